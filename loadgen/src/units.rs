//! Values with units, as they are written on the command line and printed in tables.
//!
//! `50k/s`, `10s`, `1.5ms`, `64KiB`: a number without a unit is refused where it could be misread.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Events per second, written `50k/s`, `2M/s` or `100/s`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Rate(pub f64);

/// A length of time in nanoseconds, written `10s`, `250ms`, `50us` or `2m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span(pub u64);

/// A number of bytes, written `128`, `64KiB` or `1MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bytes(pub usize);

/// A size and how often it comes among others, written `4KiB:9`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weighted {
    /// The size.
    pub bytes: Bytes,
    /// How often, in proportion to the others'.
    pub weight: f64,
}

/// A whole number within a range, both ends included, written `5..200`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Among {
    /// The smallest.
    pub from: usize,
    /// The largest.
    pub to: usize,
}

/// A share of a whole, written `10%` or `0.1`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Share(pub f64);

impl Span {
    /// So many milliseconds.
    pub const fn ms(milliseconds: u64) -> Self {
        Self(milliseconds * 1_000_000)
    }

    /// So many seconds.
    pub const fn s(seconds: u64) -> Self {
        Self::ms(seconds * 1_000)
    }

    /// The span in seconds.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl Share {
    /// This share of `whole`, rounded up, so that a share above zero is at least one.
    pub fn of(self, whole: usize) -> usize {
        (self.0 * whole as f64).ceil() as usize
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no rate: write it like 50k/s, 100/s or 2M/s");
        let (number, unit) = split(text.strip_suffix("/s").ok_or_else(wrong)?).ok_or_else(wrong)?;
        let factor = match unit {
            "" => 1.0,
            "k" => 1e3,
            "M" => 1e6,
            _ => return Err(wrong()),
        };
        Some(Self(number * factor)).filter(|rate| rate.0 > 0.0).ok_or_else(wrong)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no length of time: write it like 10s, 250ms, 50us or 2m");
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let factor = match unit {
            "ns" => 1.0,
            "us" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(wrong()),
        };
        Ok(Self((number * factor) as u64))
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no size: write it like 128, 128B, 64KiB or 1MiB");
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let factor = match unit {
            "" | "B" => 1.0,
            "KiB" => 1024.0,
            "MiB" => 1024.0 * 1024.0,
            _ => return Err(wrong()),
        };
        Ok(Self((number * factor) as usize))
    }
}

impl FromStr for Weighted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no size with its weight: write it like 4KiB:9");
        let (bytes, weight) = text.split_once(':').ok_or_else(wrong)?;
        let weight = weight.parse().ok().filter(|weight: &f64| *weight > 0.0 && weight.is_finite());
        Ok(Self { bytes: bytes.parse()?, weight: weight.ok_or_else(wrong)? })
    }
}

impl FromStr for Among {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no range of numbers: write it like 5..200, the smaller one first");
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        let number = |text: &str| text.parse().map_err(|_| wrong());
        let among = Self { from: number(from)?, to: number(to)? };
        if among.from <= among.to { Ok(among) } else { Err(wrong()) }
    }
}

impl Among {
    /// The mean, rounded down.
    pub fn mean(self) -> usize {
        (self.from + self.to) / 2
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no share: write it like 10% or 0.1, from 0 to 100%");
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let share = match unit {
            "%" => number / 100.0,
            "" => number,
            _ => return Err(wrong()),
        };
        Some(Self(share)).filter(|share| (0.0..=1.0).contains(&share.0)).ok_or_else(wrong)
    }
}

/// A number that is not negative and the unit behind it.
fn split(text: &str) -> Option<(f64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", short(self.0))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&time(self.0 as f64))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bytes(self.0 as f64))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", figures(self.0 * 100.0))
    }
}

/// A count with its thousands apart: `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A quantity in four figures and a factor: `1.234M`, `50k`.
pub fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, "G"),
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    format!("{}{unit}", figures(value))
}

/// A time given in nanoseconds, in the unit that reads best.
pub fn time(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds.abs() {
        v if v >= 1e9 => (nanoseconds / 1e9, "s"),
        v if v >= 1e6 => (nanoseconds / 1e6, "ms"),
        v if v >= 1e3 => (nanoseconds / 1e3, "us"),
        _ => (nanoseconds, "ns"),
    };
    format!("{}{unit}", figures(value))
}

/// A number of bytes in binary units.
pub fn bytes(value: f64) -> String {
    let (value, unit) = match value.abs() {
        v if v >= 1073741824.0 => (value / 1073741824.0, "GiB"),
        v if v >= 1048576.0 => (value / 1048576.0, "MiB"),
        v if v >= 1024.0 => (value / 1024.0, "KiB"),
        _ => (value, "B"),
    };
    format!("{}{unit}", figures(value))
}

/// Four significant figures, without zeros that say nothing.
fn figures(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_their_units() {
        assert_eq!("50k/s".parse(), Ok(Rate(50_000.0)));
        assert_eq!("2.5M/s".parse(), Ok(Rate(2_500_000.0)));
        assert_eq!("250ms".parse(), Ok(Span::ms(250)));
        assert_eq!("1.5s".parse(), Ok(Span::ms(1500)));
        assert_eq!("64KiB".parse(), Ok(Bytes(65536)));
        assert_eq!("10%".parse(), Ok(Share(0.1)));
    }

    #[test]
    fn a_value_that_could_be_misread_is_refused_with_an_example() {
        assert!("50".parse::<Rate>().unwrap_err().contains("50k/s"));
        assert!("0/s".parse::<Rate>().is_err());
        assert!("10".parse::<Span>().unwrap_err().contains("10s"));
        assert!("1KB".parse::<Bytes>().unwrap_err().contains("KiB"));
        assert!("150%".parse::<Share>().is_err());
        for text in ["4KiB", "4KiB:", "4KiB:0", "4KiB:-1", "4KB:1"] {
            assert!(text.parse::<Weighted>().is_err(), "{text}");
        }
    }

    #[test]
    fn quantities_print_in_four_figures() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!(short(50_000.0), "50k");
        assert_eq!(time(1_234_567.0), "1.235ms");
        assert_eq!(time(40.0), "40ns");
        assert_eq!(bytes(65536.0), "64KiB");
    }

    #[test]
    fn a_share_above_zero_is_at_least_one() {
        assert_eq!(Share(0.1).of(5), 1);
        assert_eq!(Share(0.0).of(5), 0);
    }
}
