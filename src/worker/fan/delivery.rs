//! How a subscription is delivered: every publication, the newest value, or the newest at a rate.

use std::cmp::Reverse;

use crate::{
    clock::Moment,
    protocol::{Mode, Sub},
};

/// How a name is delivered, the strongest first: where a topic has several names of one subscriber, the strongest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Delivery {
    /// Every publication.
    All,
    /// Every publication to whoever keeps up, else the newest value.
    Latest,
    /// The newest value, once a tick.
    Paced(Reverse<Rate>),
}

impl Delivery {
    pub fn of(sub: &Sub<'_>) -> Delivery {
        match (sub.mode, sub.rate) {
            (Mode::All, _) => Delivery::All,
            (Mode::Latest, None) => Delivery::Latest,
            (Mode::Latest, Some(rate)) => Delivery::Paced(Reverse(Rate::new(rate))),
        }
    }

    pub fn mode(self) -> Mode {
        if self == Delivery::All { Mode::All } else { Mode::Latest }
    }

    pub fn rate(self) -> Option<Rate> {
        match self {
            Delivery::Paced(Reverse(rate)) => Some(rate),
            _ => None,
        }
    }
}

/// Ticks a second, from one an hour to one a millisecond. Positive and finite, so that its bits have the order of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

impl Rate {
    /// Nobody waits longer than an hour for a value that has changed.
    const LEAST: f64 = 1.0 / 3600.0;

    /// A worker has passes to make, too.
    const MOST: f64 = 1000.0;

    /// The nearest rate that there is.
    pub fn new(per_second: f64) -> Rate {
        debug_assert!(per_second.is_finite() && per_second > 0.0);
        Rate(per_second.clamp(Rate::LEAST, Rate::MOST).to_bits())
    }

    pub fn per_second(self) -> f64 {
        f64::from_bits(self.0)
    }

    /// The first tick after `now`. Ticks are multiples of the period, so that all of one rate fall together.
    pub fn tick_after(self, now: Moment) -> Moment {
        let period = (1e9 / self.per_second()) as u64;
        Moment((now.0 / period).saturating_add(1).saturating_mul(period))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stronger_delivery_comes_first() {
        let paced = |rate| Delivery::Paced(Reverse(Rate::new(rate)));
        let mut all = [paced(0.5), paced(10.0), Delivery::Latest, paced(2.0), Delivery::All];
        all.sort();
        assert_eq!(all, [Delivery::All, Delivery::Latest, paced(10.0), paced(2.0), paced(0.5)]);
    }

    #[test]
    fn ticks_of_one_rate_fall_together_and_never_now() {
        let rate = Rate::new(4.0);
        assert_eq!(rate.tick_after(Moment(0)), Moment(250_000_000));
        assert_eq!(rate.tick_after(Moment(249_999_999)), Moment(250_000_000));
        assert_eq!(rate.tick_after(Moment(250_000_000)), Moment(500_000_000));
        assert_eq!(Rate::new(1e-300).tick_after(Moment(5)), Moment(3_600_000_000_000));
    }

    #[test]
    fn rates_beyond_what_there_is_are_the_nearest_that_there_is() {
        let rates = [f64::MIN_POSITIVE, 1e-9, 0.5, 1e4, f64::MAX].map(Rate::new);
        assert_eq!(rates.map(Rate::per_second), [1.0 / 3600.0, 1.0 / 3600.0, 0.5, 1000.0, 1000.0]);
        assert_eq!(rates[0], rates[1], "and so of one cohort");
        assert_eq!(rates[4].tick_after(Moment(5)), Moment(1_000_000));
    }
}
