//! The simulated market: quotes and trades of instruments that don't exist.
//!
//! [`Market`] is a generator without clock or thread: from a seed it makes an endless row of [`Tick`]s, each with its own
//! time. Prices are whole numbers of ticks that walk at random and are pulled back when they stray far; trades happen at the
//! bid or the ask of the last quote. A few instruments make most of the noise, as in real markets, and at the end of each minute the
//! market *opens*: for two seconds six times as much happens. That is saved before, so that from its first second on no more has
//! happened than `--demo-rate` says, and after each minute just that.
//!
//! ```text
//!  rate  6 ┤              ┌┐              ┌┐
//!        1 ┤ ─────────────┘└──────────────┘└───
//!          0 s            58 60           118 120
//! ```
//!
//! Cost: some hundred nanoseconds a publication, and 250 bytes an instrument.

use std::collections::HashSet;

use fastrand::Rng;

use crate::config::{Config, SYMBOLS_MAX};

/// An endless market, the same for the same seed, size and rate.
pub struct Market {
    random: Rng,
    instruments: Vec<Instrument>,
    /// Sums of the instruments' weights, for drawing one.
    weights: Vec<f64>,
    clock: Clock,
    /// Instruments that had their first quote.
    opened: usize,
    data: Vec<u8>,
}

/// One publication of the market.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick<'m> {
    /// When, in microseconds since the market began; never less than the one before.
    pub at_us: u64,
    /// `q.demo.SYMBOL` or `t.demo.SYMBOL`.
    pub topic: &'m str,
    /// A JSON object.
    pub data: &'m [u8],
}

impl Market {
    /// A market of `symbols` instruments (at least 1, at most [`SYMBOLS_MAX`]) that publishes `rate` times a second on
    /// average.
    pub fn new(seed: u64, symbols: usize, rate: f64) -> Self {
        let mut random = Rng::with_seed(seed);
        let names = symbol_names(&mut random, symbols.clamp(1, SYMBOLS_MAX));
        let instruments: Vec<_> = names.iter().map(|name| Instrument::new(&mut random, name)).collect();
        let mut total = 0.0;
        let weights = (1..=instruments.len()).map(|rank| {
            total += (rank as f64).powf(-ZIPF);
            total
        });
        Market { weights: weights.collect(), instruments, random, clock: Clock::new(rate), opened: 0, data: Vec::new() }
    }

    /// The market that the server's settings ask for; another one at each start.
    pub fn of(config: &Config) -> Self {
        Market::new(config.demo_seed, config.demo_symbols, config.demo_rate.per_second())
    }

    /// The next publication: first one quote of each instrument, of which the first is at the time 0; then what chance brings.
    pub fn next(&mut self) -> Tick<'_> {
        self.data.clear();
        let at = if self.opened == 0 { 0.0 } else { self.clock.advance(&mut self.random) };
        let is_first = self.opened < self.instruments.len();
        let chosen = if is_first { self.opened } else { self.draw() };
        self.opened += usize::from(is_first);
        let instrument = &mut self.instruments[chosen];
        let topic = if !is_first && self.random.f64() < TRADES {
            instrument.trade(&mut self.random, &mut self.data);
            &instrument.trades
        } else {
            instrument.quote(&mut self.random, &mut self.data);
            &instrument.quotes
        };
        Tick { at_us: (at * 1e6) as u64, topic, data: &self.data }
    }

    /// Chooses an instrument by its weight.
    fn draw(&mut self) -> usize {
        let total = self.weights[self.weights.len() - 1];
        let at = self.random.f64() * total;
        self.weights.partition_point(|&weight| weight <= at).min(self.instruments.len() - 1)
    }
}

/// The share of trades among what happens; the rest are quotes.
const TRADES: f64 = 0.2;

/// The nth busiest instrument makes `n^-ZIPF` of the noise of the first. 1 is what is found for traded volumes.
const ZIPF: f64 = 1.0;

/// When things happen: at random (a Poisson process), more often while the market opens.
struct Clock {
    /// Seconds since the market began.
    now: f64,
    calm: f64,
    open: f64,
}

impl Clock {
    const OPENS_EVERY: f64 = 60.0;
    /// At the end of the minute: what happens then was saved before.
    const OPENS_AT: f64 = Self::OPENS_EVERY - Self::OPEN_FOR;
    const OPEN_FOR: f64 = 2.0;
    const OPEN_TIMES: f64 = 6.0;

    /// The rate while open is a multiple of the average; the calm makes up for it.
    fn new(rate: f64) -> Self {
        let open = rate * Self::OPEN_TIMES;
        let calm = (rate * Self::OPENS_EVERY - open * Self::OPEN_FOR) / (Self::OPENS_EVERY - Self::OPEN_FOR);
        Clock { now: 0.0, calm, open }
    }

    /// Goes to the next event: an exponential wait, used up at the rate of each stretch that it crosses.
    fn advance(&mut self, random: &mut Rng) -> f64 {
        let mut wait = -(1.0 - random.f64()).ln();
        loop {
            let (rate, end) = self.stretch();
            if wait <= (end - self.now) * rate {
                self.now += wait / rate;
                return self.now;
            }
            wait -= (end - self.now) * rate;
            self.now = end;
        }
    }

    /// The rate now, and until when it holds.
    fn stretch(&self) -> (f64, f64) {
        let opened = ((self.now - Self::OPENS_AT) / Self::OPENS_EVERY).floor() * Self::OPENS_EVERY + Self::OPENS_AT;
        let closes = opened + Self::OPEN_FOR;
        if self.now < closes { (self.open, closes) } else { (self.calm, opened + Self::OPENS_EVERY) }
    }
}

/// One instrument: prices are whole numbers of ticks.
struct Instrument {
    quotes: Box<str>,
    trades: Box<str>,
    scale: Scale,
    /// Where the price began, and is pulled back to.
    anchor: u64,
    bid: u64,
    /// In ticks, between bid and ask.
    spread: u64,
    /// The usual spread.
    spread_usual: u64,
    bid_size: u64,
    ask_size: u64,
}

/// How ticks are written as a price: `ticks * step` units of `10^-decimals`.
#[derive(Clone, Copy)]
struct Scale {
    step: u64,
    decimals: u32,
}

impl Instrument {
    fn new(random: &mut Rng, symbol: &str) -> Self {
        // Most prices lie between 3 and 1,500, evenly in their logarithm.
        let price = (3f64.ln() + random.f64() * (1500f64 / 3.0).ln()).exp();
        let scale = match price {
            ..10.0 => Scale { step: 1, decimals: 3 },
            ..500.0 => Scale { step: 1, decimals: 2 },
            _ => Scale { step: 5, decimals: 2 },
        };
        let tick = scale.step as f64 / 10f64.powi(scale.decimals as i32);
        let anchor = (price / tick) as u64;
        // One tick for most, up to 5 hundredths of a percent for the others.
        let spread_usual = 1 + random.u64(0..=anchor / 2000);
        Instrument {
            quotes: format!("q.demo.{symbol}").into(),
            trades: format!("t.demo.{symbol}").into(),
            scale,
            anchor,
            bid: anchor,
            spread: spread_usual,
            spread_usual,
            bid_size: lots(random),
            ask_size: lots(random),
        }
    }

    /// The market maker looks again: often only the sizes change, sometimes the price does.
    fn quote(&mut self, random: &mut Rng, out: &mut Vec<u8>) {
        let step = random.u64(0..=1 + self.anchor / 8000) * random.u64(0..=1);
        let up = match self.bid {
            bid if bid > self.anchor + self.anchor / 3 => false,
            bid if bid < self.anchor - self.anchor / 3 => true,
            _ => random.bool(),
        };
        self.bid = if up { self.bid + step } else { self.bid - step };
        self.spread = (self.spread_usual + random.u64(0..=2)).saturating_sub(random.u64(0..=2)).max(1);
        self.bid_size = lots(random);
        self.ask_size = lots(random);
        out.extend_from_slice(b"{\"bid\":");
        self.scale.write(self.bid, out);
        out.extend_from_slice(b",\"ask\":");
        self.scale.write(self.bid + self.spread, out);
        out.extend_from_slice(b",\"bidsz\":");
        write_number(self.bid_size, out);
        out.extend_from_slice(b",\"asksz\":");
        write_number(self.ask_size, out);
        out.push(b'}');
    }

    /// Somebody takes some of what the last quote offers, at its price.
    fn trade(&mut self, random: &mut Rng, out: &mut Vec<u8>) {
        let buys = random.bool();
        let (price, offered) =
            if buys { (self.bid + self.spread, &mut self.ask_size) } else { (self.bid, &mut self.bid_size) };
        // Four trades in five are round lots. The last lot always stays, so that the next trade finds one.
        let size = if random.u8(0..5) > 0 { LOT * random.u64(1..=*offered / LOT) } else { random.u64(1..LOT) };
        *offered = (*offered - size.min(*offered)).max(LOT).next_multiple_of(LOT);
        out.extend_from_slice(b"{\"px\":");
        self.scale.write(price, out);
        out.extend_from_slice(b",\"sz\":");
        write_number(size, out);
        out.extend_from_slice(if buys { b",\"side\":\"B\"}" } else { b",\"side\":\"S\"}" });
    }
}

impl Scale {
    /// Writes a price with all its decimals, digit by digit: no rounding ever shows.
    fn write(self, ticks: u64, out: &mut Vec<u8>) {
        let units = ticks * self.step;
        let one = 10u64.pow(self.decimals);
        write_number(units / one, out);
        out.push(b'.');
        let mut place = one / 10;
        while place > 0 {
            out.push(b'0' + (units / place % 10) as u8);
            place /= 10;
        }
    }
}

fn write_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Sizes are traded in hundreds.
const LOT: u64 = 100;

/// A size: mostly a few lots, rarely many.
fn lots(random: &mut Rng) -> u64 {
    let zeros = u64::from((random.u16(..) | 1 << 10).trailing_zeros());
    LOT * (1 + zeros * 2 + random.u64(0..=1 + zeros * zeros))
}

/// Different names of 2 to 5 letters that look like tickers.
fn symbol_names(random: &mut Rng, count: usize) -> Vec<String> {
    let (mut names, mut taken) = (Vec::with_capacity(count), HashSet::with_capacity(count));
    let mut failed = 0usize;
    while names.len() < count {
        // The short names run out first; whoever wants very many gets long ones.
        let length = match random.u8(0..100) {
            _ if failed > names.len() => 5,
            0..5 => 2,
            5..45 => 3,
            45..90 => 4,
            _ => 5,
        };
        let name: String = (0..length).map(|at| letter(random, at)).collect();
        if taken.insert(name.clone()) {
            names.push(name);
        } else {
            failed += 1;
        }
    }
    names
}

/// A letter; every other one is a vowel more often than not, which makes names that one can say.
fn letter(random: &mut Rng, at: usize) -> char {
    const VOWELS: &[u8] = b"AEIOU";
    let byte =
        if at % 2 == 1 && random.u8(0..3) > 0 { VOWELS[random.usize(..VOWELS.len())] } else { random.u8(b'A'..=b'Z') };
    byte.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::HashMap;

    const SEED: u64 = 7;

    #[test]
    fn the_same_seed_makes_the_same_market() {
        let (mut a, mut b) = (Market::new(SEED, 50, 1000.0), Market::new(SEED, 50, 1000.0));
        for _ in 0..5000 {
            assert_eq!(a.next(), b.next());
        }
    }

    #[test]
    fn every_instrument_is_quoted_once_at_the_start() {
        let mut market = Market::new(SEED, 300, 1000.0);
        let mut topics = HashSet::new();
        for nth in 0..300 {
            let tick = market.next();
            let symbol = tick.topic.strip_prefix("q.demo.").unwrap();
            assert_eq!(tick.at_us == 0, nth == 0, "one at once, and the others at the rate");
            assert!((2..=5).contains(&symbol.len()) && symbol.bytes().all(|byte| byte.is_ascii_uppercase()));
            assert!(topics.insert(symbol.to_owned()));
        }
        assert!((200_000..600_000).contains(&market.next().at_us));
    }

    #[test]
    fn trades_happen_at_the_touch_of_the_last_quote_and_prices_stay_sane() {
        let mut market = Market::new(SEED, 20, 1000.0);
        let (mut quotes, mut first, mut trades) = (HashMap::new(), HashMap::new(), 0);
        for _ in 0..200_000 {
            let tick = market.next();
            let (kind, symbol) = tick.topic.split_once('.').unwrap();
            let text = std::str::from_utf8(tick.data).unwrap();
            let value: Value = serde_json::from_str(text).unwrap();
            let number = |field: &str| value[field].as_f64().unwrap();
            let raw = |field: &str| text.split_once(field).unwrap().1[2..].split([',', '}']).next().unwrap().to_owned();
            if kind == "q" {
                let (bid, ask) = (number("bid"), number("ask"));
                assert!(bid < ask && (ask - bid) / bid < 0.01, "{text}");
                assert!(number("bidsz") >= 100.0 && number("asksz") % 100.0 == 0.0);
                assert!(raw("bid").split_once('.').unwrap().1.len() <= 3, "{text}");
                let start = *first.entry(symbol.to_owned()).or_insert(bid);
                assert!(bid > start / 2.0 && bid < start * 2.0);
                quotes.insert(symbol.to_owned(), (raw("bid"), raw("ask")));
            } else {
                let (bid, ask) = &quotes[symbol];
                assert_eq!(&raw("px"), if value["side"] == "B" { ask } else { bid });
                assert!(number("sz") >= 1.0);
                trades += 1;
            }
        }
        assert!((30_000..50_000).contains(&trades), "{trades}");
    }

    #[test]
    fn the_rate_holds_on_average_and_rises_at_the_open() {
        let mut market = Market::new(SEED, 10, 500.0);
        let mut per_second = vec![0u64; 600];
        while let Some(count) = per_second.get_mut((market.next().at_us / 1_000_000) as usize) {
            *count += 1;
        }
        let total: u64 = per_second.iter().sum();
        assert!(total.abs_diff(300_000) < 3_000, "{total}");
        assert!(per_second[58] > 2_700 && per_second[59] > 2_700 && per_second[118] > 2_700);
        assert!((300..500).contains(&per_second[57]) && (300..500).contains(&per_second[60]));
    }

    #[test]
    fn from_the_start_on_there_is_never_more_than_the_rate_allows() {
        for (symbols, rate) in [(10, 500.0), (3000, 500.0), (300, 1000.0), (300, 2.0)] {
            let mut market = Market::new(SEED, symbols, rate);
            let (mut count, mut at) = (0.0f64, 0.0);
            while at < 180.0 {
                at = market.next().at_us as f64 / 1e6;
                count += 1.0;
                let most = rate * at;
                // Chance may bring a little more: six standard deviations of it.
                assert!(
                    count <= 1.0 + most + 6.0 * (most + 1.0).sqrt(),
                    "{count} in {at} s, of {rate}/s and {symbols} symbols"
                );
            }
        }
    }

    #[test]
    fn a_few_instruments_make_most_of_the_noise() {
        let mut market = Market::new(SEED, 100, 1000.0);
        let mut counts = HashMap::<String, u64>::new();
        for _ in 0..100_000 {
            *counts.entry(market.next().topic[2..].to_owned()).or_default() += 1;
        }
        let mut counts: Vec<u64> = counts.into_values().collect();
        counts.sort_unstable();
        assert!(counts[99] > 15 * counts[49] && counts[0] > 0, "{counts:?}");
    }

    #[test]
    fn prices_are_written_digit_by_digit() {
        let written = |ticks, step, decimals| {
            let mut out = Vec::new();
            Scale { step, decimals }.write(ticks, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(18921, 1, 2), "189.21");
        assert_eq!(written(5, 1, 3), "0.005");
        assert_eq!(written(20001, 5, 2), "1000.05");
    }

    #[test]
    fn many_instruments_still_have_different_names() {
        let names = symbol_names(&mut Rng::with_seed(SEED), 100_000);
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), 100_000);
        assert!(names.iter().all(|name| (2..=5).contains(&name.len())));
    }
}
