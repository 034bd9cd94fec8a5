//! The values of settings, as people write them: cores, times, rates, speeds, secrets.
//!
//! Each is read with `FromStr`, whose error says what was expected and what was found, and printed the way it is read. What
//! is read is within bounds for which nothing that is computed from it can overflow, so whoever uses it needs no care: a
//! [`Span`] fits any clock, and the time that one thing of a [`Rate`] takes is no less than a nanosecond and no more than an hour.

use std::{collections::HashSet, fmt, net::IpAddr, str::FromStr, time::Duration};

use bytesize::ByteSize;
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
        let mut seen = HashSet::new();
        if !cores.iter().all(|core| seen.insert(*core)) {
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

/// A length of time as people write it: `250ms`, `10s`, `2m`. At most [`Span::MOST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// A hundred years: as good as never, and a sixth of what nanoseconds in 64 bits hold, so that moments can be added to it.
    pub const MOST: Span = Span(Duration::from_secs(100 * 31_557_600));

    /// This length, or [`Span::MOST`] where it is longer.
    pub const fn new(length: Duration) -> Span {
        if length.as_secs() >= Span::MOST.0.as_secs() { Span::MOST } else { Span(length) }
    }

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
        let length =
            humantime::parse_duration(text).map_err(|error| format!("expected a time like 250ms or 10s: {error}"))?;
        if length > Span::MOST.0 {
            return Err(format!("expected a time like 250ms or 10s, at most {}; found {text}", Span::MOST));
        }
        Ok(Span(length))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

/// A number per second: `500`, `1000/s`, `50k/s`, `1.5M/s`. From one an hour to 1,000,000,000 a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(f64);

impl Rate {
    const LEAST: f64 = 1.0 / 3600.0;
    const MOST: f64 = 1e9;

    /// So many a second.
    ///
    /// # Errors
    /// Fewer than one an hour, more than 1,000,000,000, or no number.
    pub fn new(per_second: f64) -> Result<Rate, String> {
        match (Rate::LEAST..=Rate::MOST).contains(&per_second) {
            true => Ok(Rate(per_second)),
            false => Err(format!("expected a rate from 1 an hour (0.00028/s) to 1000M/s; found {per_second}/s")),
        }
    }

    /// How many a second.
    pub fn per_second(self) -> f64 {
        self.0
    }

    /// How long one of them takes: a nanosecond to an hour.
    pub fn period(self) -> Duration {
        Duration::from_secs_f64(1.0 / self.0)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix("/s").unwrap_or(text);
        let (number, factor) = match number.strip_suffix(['k', 'M']) {
            Some(rest) if number.ends_with('k') => (rest, 1e3),
            Some(rest) => (rest, 1e6),
            None => (number, 1.0),
        };
        let rate = number.parse().ok().and_then(|number: f64| Rate::new(number * factor).ok());
        rate.ok_or_else(|| {
            format!("expected a rate like 500, 50k/s or 1.5M/s, from 1 an hour (0.00028/s) to 1000M/s; found {text:?}")
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// A bound on how often something may happen: a [`Rate`], or `0` for no bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit(Option<Rate>);

impl RateLimit {
    /// No bound.
    pub const NONE: RateLimit = RateLimit(None);

    /// The bound; none for any number.
    pub fn rate(self) -> Option<Rate> {
        self.0
    }
}

impl From<Rate> for RateLimit {
    fn from(rate: Rate) -> Self {
        RateLimit(Some(rate))
    }
}

impl FromStr for RateLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text, "0" | "0/s") {
            return Ok(RateLimit::NONE);
        }
        text.parse().map(|rate: Rate| rate.into()).map_err(|error: String| format!("{error}; or 0 for no limit"))
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(rate) => rate.fmt(f),
            None => f.write_str("0/s"),
        }
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
            Ok(times) if (1e-6..=1e6).contains(&times) => Ok(Speed::Times(times)),
            _ => Err(format!("expected a factor like 0.5 or 10, from 0.000001 to 1000000, or max; found {text:?}")),
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

/// A size that is printed as what it is and not rounded, so that what is read from it is the same: `2.0 MiB`, but `2049 KiB`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exactly(pub ByteSize);

impl fmt::Display for Exactly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        if text.parse::<ByteSize>() == Ok(self.0) {
            return f.write_str(&text);
        }
        let bytes = self.0.as_u64();
        match bytes.trailing_zeros() {
            20.. => write!(f, "{} MiB", bytes >> 20),
            10.. => write!(f, "{} KiB", bytes >> 10),
            _ => write!(f, "{bytes} B"),
        }
    }
}

/// A token; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The token itself, to be shown to a server.
    #[cfg(feature = "cli")]
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

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClientAuth {
    /// They may.
    Request,
    /// They must.
    Require,
}

/// Whether what subscribers are sent is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// It is not, whatever clients offer.
    Off,
    /// Each publication by itself, once for all who have agreed on permessage-deflate.
    Once,
    /// The same, and cohorts that are sent every publication have a stream each, in which publications are compressed by those before them.
    Shared,
}

/// How hard to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(pub Option<u8>);

impl FromStr for Level {
    type Err = String;

    /// `auto`, or a number from 1 to 9.
    fn from_str(text: &str) -> Result<Level, String> {
        if text == "auto" {
            return Ok(Level(None));
        }
        let level = text.parse().ok().filter(|level| (1..=9).contains(level));
        level
            .map(|level| Level(Some(level)))
            .ok_or_else(|| format!("expected auto, or a number from 1 to 9, found {text}"))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("auto"),
            Some(level) => write!(f, "{level}"),
        }
    }
}

/// The name of a topic, or a pattern of names: segments with dots between them, of which any may be `*`, and the last one `>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics(String);

impl Topics {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Topics {
    type Err = String;

    fn from_str(text: &str) -> Result<Topics, String> {
        let wrong =
            |what: &str| format!("expected a topic or a pattern like quotes.us.* or quotes.>, found {text:?}: {what}");
        let segments: Vec<&str> = text.split('.').collect();
        if text.len() > 1024 {
            return Err(wrong("it has more than 1024 bytes"));
        }
        if segments.iter().any(|segment| segment.is_empty()) {
            return Err(wrong("a segment is empty"));
        }
        if text.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
            return Err(wrong("it has a space or a control character in it"));
        }
        let is_joker = |segment: &&str| segment.contains(['*', '>']) && segment.len() > 1;
        if segments.iter().any(is_joker) {
            return Err(wrong("* and > stand for whole segments"));
        }
        if segments.iter().position(|segment| *segment == ">").is_some_and(|at| at.saturating_add(1) < segments.len()) {
            return Err(wrong("> stands at the end"));
        }
        Ok(Topics(text.to_owned()))
    }
}

impl fmt::Display for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Clients, by what they call themselves (`User-Agent`): pieces that stand there one behind the other, written with `*` between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client(String);

impl Client {
    /// Whether a client that calls itself so is one of them. Case counts, as it does in what they send.
    pub fn fits(&self, name: &str) -> bool {
        let mut rest = name;
        self.0.split('*').all(|piece| match rest.split_once(piece) {
            Some((_, behind)) => {
                rest = behind;
                true
            }
            None => false,
        })
    }
}

impl FromStr for Client {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_good =
            text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.bytes().any(|byte| !b"* ".contains(&byte));
        if text == "none" || is_good {
            return Ok(Client(text.to_owned()));
        }
        Err(format!("expected pieces of a User-Agent in ASCII, with * between them, or none; found {text:?}"))
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
        assert_eq!("50k/s".parse::<Rate>().unwrap().per_second(), 50_000.0);
        assert!("0".parse::<Rate>().is_err());
        assert_eq!("0".parse::<RateLimit>().unwrap().rate(), None);
        assert_eq!("2k/s".parse::<RateLimit>().unwrap(), Rate::new(2_000.0).unwrap().into());
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
        let safari: Client = "OS 15_*Version/15.1".parse().unwrap();
        assert!(
            safari
                .fits("Mozilla/5.0 (iPhone; CPU iPhone OS 15_1 like Mac OS X) Version/15.1 Mobile/15E148 Safari/604.1")
        );
        for other in ["OS 15_1 Version/15.4", "Version/15.1 OS 15_1", "os 15_1 version/15.1", ""] {
            assert!(!safari.fits(other), "{other}");
        }
        for wrong in ["", " ", "*", "é", "a\tb"] {
            assert!(wrong.parse::<Client>().unwrap_err().contains(&format!("{wrong:?}")), "{wrong}");
        }
        assert_eq!("250ms".parse::<Span>().unwrap().get(), Duration::from_millis(250));
    }

    #[test]
    fn a_size_is_printed_as_what_it_is() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (3 << 19, "1.5 MiB"),
            (64 << 20, "64.0 MiB"),
            ((2 << 20) + 1024, "2049 KiB"),
            ((2 << 20) + 1, "2097153 B"),
            ((3 << 30) + (1 << 20), "3073 MiB"),
            (u64::MAX - 1, "18446744073709551614 B"),
        ] {
            let shown = Exactly(ByteSize::b(bytes)).to_string();
            assert_eq!(shown, text);
            assert_eq!(shown.parse::<ByteSize>(), Ok(ByteSize::b(bytes)), "{shown}");
        }
    }

    #[test]
    fn what_nothing_could_be_computed_from_is_refused_with_what_is_accepted() {
        for text in ["1e-20", "0.00027", "1e300", "1e10k", "1001M/s", "inf", "-inf", "nan", "-1", "", "k", "/s"] {
            let error = text.parse::<RateLimit>().unwrap_err();
            assert!(error.contains("from 1 an hour (0.00028/s) to 1000M/s") && error.contains(text), "{error}");
        }
        for text in ["0.00028", "1000M/s", "1e9"] {
            let period = text.parse::<Rate>().unwrap().period();
            assert!(period >= Duration::from_nanos(1) && period <= Duration::from_secs(3600), "{text} {period:?}");
        }
        for text in ["101years", "500000000years", "18446744073709551615s"] {
            let error = text.parse::<Span>().unwrap_err();
            assert!(error.contains("at most 100years") && error.contains(text), "{error}");
        }
        assert_eq!("100years".parse::<Span>().unwrap(), Span::MOST);
        assert_eq!(Span::new(Duration::MAX), Span::MOST);
        for text in ["1e-300", "1e300", "inf", "nan", "0", "0.0000001"] {
            let error = text.parse::<Speed>().unwrap_err();
            assert!(error.contains("from 0.000001 to 1000000") && error.contains(text), "{error}");
        }
    }
}
