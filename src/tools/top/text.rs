//! Numbers, sizes and times as people read them: three digits, and a unit.

use std::time::Duration;

/// A number: `17`, `1.23k`, `45.6M`.
pub(super) fn count(number: f64) -> String {
    scaled(number, 1000.0, &["", "k", "M", "G", "T"], "")
}

/// So many of something that is called `one` where there is one: `1 topic`, `1.23k topics`.
pub(super) fn counted(number: f64, one: &str) -> String {
    let shown = count(number);
    let ending = if shown == "1" { "" } else { "s" };
    format!("{shown} {one}{ending}")
}

/// A size: `512 B`, `1.23 KiB`, `64.0 MiB`.
pub(super) fn bytes(number: f64) -> String {
    scaled(number, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"], " ")
}

/// A length of time: `250 µs`, `1.23 ms`, `2.50 s`, `3m 12s`, `5h 7m`, `2d 3h`.
pub(super) fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..60 => scaled(length.as_nanos() as f64 / 1000.0, 1000.0, &["µs", "ms", "s"], " "),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

fn scaled(mut number: f64, step: f64, units: &[&str], gap: &str) -> String {
    let mut at = 0;
    // What would be shown as a thousand of one unit is one of the next.
    while number >= step - 0.5 && at + 1 < units.len() {
        number /= step;
        at += 1;
    }
    let decimals = match number {
        _ if at == 0 && number == number.trunc() => 0,
        n if n < 9.995 => 2,
        n if n < 99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}{gap}{}", units[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        let numbers = [0.0, 7.0, 0.25, 999.4, 999.6, 1000.0, 1234.0, 45_600.0, 39_999_999.0, 2e15];
        assert_eq!(numbers.map(count), ["0", "7", "0.25", "999", "1.00k", "1.00k", "1.23k", "45.6k", "40.0M", "2000T"]);
        assert_eq!(
            [0.0, 1.0, 1.5, 1000.0].map(|n| counted(n, "topic")),
            ["0 topics", "1 topic", "1.50 topics", "1.00k topics"]
        );
        assert_eq!([0.0, 512.0, 1024.0, 67_108_864.0].map(bytes), ["0 B", "512 B", "1.00 KiB", "64.0 MiB"]);
        let spans = [0, 250, 1_230, 2_500_000, 192_000_000, 18_420_000_000, 183_600_000_000];
        assert_eq!(
            spans.map(|us| span(Duration::from_micros(us))),
            ["0 µs", "250 µs", "1.23 ms", "2.50 s", "3m 12s", "5h 7m", "2d 3h"]
        );
    }
}
