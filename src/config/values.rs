//! The values of settings, as people write them: cores, times, rates, speeds, secrets.
//!
//! Each is read with `FromStr`, whose error says what was expected and what was found, and printed the way it is read.

use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

use clap::ValueEnum;
use ipnet::IpNet;

/// Where workers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// One worker per usable core, pinned; unpinned where there are more workers than cores.
    Auto,
    /// Wherever the scheduler likes.
    None,
    /// Worker n on the nth of these cores.
    Cores(Vec<usize>),
}

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => return Ok(Pin::Auto),
            "none" => return Ok(Pin::None),
            _ => {}
        }
        let wrong = |part: &str| format!("expected auto, none, or cores like 0,2-3; found {part:?}");
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: usize = first.trim().parse().map_err(|_| wrong(part))?;
            let last: usize = last.trim().parse().map_err(|_| wrong(part))?;
            if first > last || last >= 4096 {
                return Err(wrong(part));
            }
            cores.extend(first..=last);
        }
        if (1..cores.len()).any(|i| cores[..i].contains(&cores[i])) {
            return Err(format!("expected each core once; found {text:?}"));
        }
        Ok(Pin::Cores(cores))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pin::Auto => f.write_str("auto"),
            Pin::None => f.write_str("none"),
            Pin::Cores(cores) => {
                let names: Vec<String> = cores.iter().map(usize::to_string).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

/// A length of time as people write it: `250ms`, `10s`, `2m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// The length itself.
    pub fn get(self) -> Duration {
        self.0
    }

    /// Whether this is the zero that means `never` or `at once`.
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Span(Duration::ZERO));
        }
        humantime::parse_duration(text).map(Span).map_err(|error| format!("expected a time like 250ms or 10s: {error}"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

/// A number per second: `500`, `1000/s`, `50k/s`, `1.5M/s`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(pub f64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix("/s").unwrap_or(text);
        let (number, factor) = match number.strip_suffix(['k', 'M']) {
            Some(rest) if number.ends_with('k') => (rest, 1e3),
            Some(rest) => (rest, 1e6),
            None => (number, 1.0),
        };
        match number.parse::<f64>() {
            Ok(n) if n.is_finite() && n > 0.0 && n * factor <= 1e9 => Ok(Rate(n * factor)),
            _ => Err(format!("expected a rate above 0 like 500, 50k/s or 1.5M/s; found {text:?}")),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// A bound on how often something may happen: a [`Rate`], or `0` for no bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit(pub f64);

impl RateLimit {
    /// Whether this is the zero that means `no limit`.
    pub fn is_none(self) -> bool {
        self.0 == 0.0
    }
}

impl FromStr for RateLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text, "0" | "0/s") {
            return Ok(RateLimit(0.0));
        }
        text.parse().map(|Rate(rate)| RateLimit(rate)).map_err(|error| format!("{error}; or 0 for no limit"))
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Rate(self.0).fmt(f)
    }
}

/// How fast a recording is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many times its own pace.
    Times(f64),
    /// As fast as it can be read.
    Max,
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Speed::Max);
        }
        match text.strip_suffix('x').unwrap_or(text).parse::<f64>() {
            Ok(times) if times.is_finite() && times > 0.0 => Ok(Speed::Times(times)),
            _ => Err(format!("expected a factor above 0 like 0.5 or 10, or max; found {text:?}")),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Speed::Times(times) => write!(f, "{times}"),
            Speed::Max => f.write_str("max"),
        }
    }
}

/// Some addresses: one (`192.0.2.7`), or a network (`10.0.0.0/8`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether the address is among them. An IPv4 address in the disguise of IPv6 counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let alone = text.parse().map(|address: IpAddr| IpNet::from(address.to_canonical()));
        let network = alone.or_else(|_| text.parse::<IpNet>());
        let network = network
            .map_err(|_| format!("expected an address like 192.0.2.7 or a network like 10.0.0.0/8; found {text:?}"))?;
        // 10.1.2.3/8 is most likely a slip of the pen, and trusting the whole of 10.0.0.0/8 would be a costly guess.
        if network.trunc() != network {
            return Err(format!(
                "expected an address or a network; {text} is an address in the network {}",
                network.trunc()
            ));
        }
        Ok(Network(network))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A token; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The token itself, to be shown to a server.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `shown` is the token; takes the same time wherever they differ.
    pub fn matches(&self, shown: &str) -> bool {
        use subtle::ConstantTimeEq;
        self.0.as_bytes().ct_eq(shown.as_bytes()).into()
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("expected one or more printable ASCII characters without spaces".into());
        }
        Ok(Secret(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// How events are written to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_people_write_them() {
        assert_eq!("0,2-3".parse::<Pin>().unwrap(), Pin::Cores(vec![0, 2, 3]));
        assert!("0,0".parse::<Pin>().is_err());
        assert!("3-1".parse::<Pin>().is_err());
        assert_eq!("50k/s".parse::<Rate>().unwrap(), Rate(50_000.0));
        assert!("0".parse::<Rate>().is_err());
        assert!("0".parse::<RateLimit>().unwrap().is_none());
        assert_eq!("2k/s".parse::<RateLimit>().unwrap(), RateLimit(2_000.0));
        assert!("-1".parse::<RateLimit>().unwrap_err().contains("0 for no limit"));
        assert_eq!("max".parse::<Speed>().unwrap(), Speed::Max);
        assert!("-1".parse::<Speed>().is_err());
        let (inside, outside) = ("10.9.9.9".parse().unwrap(), "11.0.0.1".parse().unwrap());
        let network: Network = "10.0.0.0/8".parse().unwrap();
        assert!(network.contains(inside) && !network.contains(outside));
        assert!("::1".parse::<Network>().unwrap().contains("::1".parse().unwrap()));
        for wrong in ["10.0.0.0/33", "10.1.2.3/8", "localhost", ""] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        assert_eq!("250ms".parse::<Span>().unwrap().get(), Duration::from_millis(250));
    }
}
