//! Quotes: payloads that look as those of a real feed do, and change as those do.
//!
//! What compression leaves depends on what is compressed: of letters by chance nearly all, of filler that is always the same nearly nothing. A
//! quote has the names of its fields in common with all others, most of its digits with the one before it on its topic, and the rest is new: prices walk
//! by some ticks, sizes are round, volumes grow, and the time is that at which it is due. Prices and sizes follow from the seed.
//!
//! ```text
//! {"sym":"KQ1C","bid":101.25,"bsz":300,"ask":101.27,"asz":1200,"last":101.27,"lsz":100,"vol":1234500,"chg":-0.42,"ex":"XNAS","ts":1796049000123456}
//! ```
//!
//! In front of it stands the stamp, as in every payload, of which about a third is as good as chance: so what compression leaves of these is more than it would
//! leave of the quotes alone.

use std::io::Write;

use fastrand::Rng;

use crate::{chance, spec::Spec, stamp};

/// Bytes of a payload with a quote, on average.
pub const USUAL: usize = 240;

/// The quotes of a run, by topic.
pub struct Quotes {
    topics: Vec<Quote>,
    text: Vec<u8>,
}

/// What is known of a topic. Prices are in cents.
struct Quote {
    random: Rng,
    symbol: [u8; 4],
    open: i64,
    bid: i64,
    volume: u64,
}

const VENUES: [&str; 6] = ["XNAS", "XNYS", "ARCX", "BATS", "IEXG", "EDGX"];

/// Microseconds that the clock is ahead of the monotonic one: it looks like the end of 2026.
const CLOCK: u64 = 1_796_000_000_000_000;

impl Quotes {
    /// Those of a run, as they are in the beginning; none if its payloads are others.
    pub fn new(spec: &Spec) -> Option<Self> {
        let topics = (0..spec.topics).map(|topic| Quote::new(chance::of_one(spec, 5, topic)));
        spec.quotes.then(|| Self { topics: topics.collect(), text: Vec::new() })
    }

    /// The next quote of a topic, due at a moment of the monotonic clock, as what follows a stamp.
    pub fn next(&mut self, topic: usize, due: u64) -> stamp::Body<'_> {
        self.text.clear();
        self.topics[topic].write(due, &mut self.text);
        stamp::Body::Data(&self.text)
    }
}

impl Quote {
    fn new(mut random: Rng) -> Self {
        const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let symbol = [(); 4].map(|()| LETTERS[random.usize(..32)]);
        // From 5 to 500, as many below 50 as above.
        let open = (500.0 * 100f64.powf(random.f64())) as i64;
        let volume = random.u64(1..20_000) * 100;
        Self { random, symbol, open, bid: open, volume }
    }

    fn write(&mut self, due: u64, out: &mut Vec<u8>) {
        let random = &mut self.random;
        if random.u8(..3) > 0 {
            self.bid = (self.bid + random.i64(-3..=3)).max(1);
        }
        let ask = self.bid + random.i64(1..=1 + self.bid / 5000);
        let last = if random.bool() { self.bid } else { ask };
        let mut size = || 100 * (1 + random.u64(..8) * random.u64(..4));
        let (bid_size, ask_size, last_size) = (size(), size(), size());
        self.volume += last_size;
        let symbol = std::str::from_utf8(&self.symbol).expect("letters");
        let venue = VENUES[random.usize(..VENUES.len())];
        let [bid, ask, last, change] = [self.bid, ask, last, last - self.open].map(|cents| cents as f64 / 100.0);
        let (volume, time) = (self.volume, CLOCK + due / 1000);
        write!(
            out,
            "{{\"sym\":\"{symbol}\",\"bid\":{bid:.2},\"bsz\":{bid_size},\"ask\":{ask:.2},\"asz\":{ask_size},\"last\":{last:.2},\
             \"lsz\":{last_size},\"vol\":{volume},\"chg\":{change:.2},\"ex\":\"{venue}\",\"ts\":{time}}}"
        )
        .expect("writing to memory");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        spec::tests::sample,
        stamp::{Body, Form, Stamp},
    };

    fn texts(seed: u64) -> Vec<Vec<u8>> {
        let mut quotes = Quotes::new(&Spec { quotes: true, topics: 3, seed, ..sample() }).unwrap();
        let mut text = |n: u64| match quotes.next(n as usize % 3, n * 1_234_567) {
            Body::Data(text) => text.to_vec(),
            Body::Fill(_) => unreachable!(),
        };
        (0..300).map(&mut text).collect()
    }

    #[test]
    fn quotes_are_json_that_changes_and_follows_from_the_seed() {
        let texts_of = texts(1);
        assert_eq!(texts_of, texts(1));
        assert_ne!(texts_of, texts(2));
        for pair in texts_of.windows(4) {
            let [before, after] = [&pair[0], &pair[3]].map(|text| -> serde_json::Value {
                serde_json::from_slice(text).unwrap_or_else(|error| panic!("{error}: {}", text.escape_ascii()))
            });
            let number = |value: &serde_json::Value, name: &str| value[name].as_f64().unwrap();
            assert_eq!(before["sym"], after["sym"]);
            assert!((number(&before, "bid") - number(&after, "bid")).abs() < 0.04);
            assert!(number(&after, "ask") > number(&after, "bid") && number(&after, "vol") > number(&before, "vol"));
            assert!(number(&after, "ts") > number(&before, "ts"));
        }
    }

    #[test]
    fn a_payload_is_about_as_long_as_is_said() {
        let payload = |text: &Vec<u8>| {
            let mut out = Vec::new();
            stamp::write(&Stamp::default(), Form::Json, Body::Data(text), &mut out);
            out.len()
        };
        let lengths: Vec<usize> = texts(1).iter().map(payload).collect();
        let mean = lengths.iter().sum::<usize>() / lengths.len();
        assert!(mean.abs_diff(USUAL) < 10, "{mean}");
        assert!(lengths.iter().all(|len| (210..270).contains(len)));
    }
}
