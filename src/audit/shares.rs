//! How much of the file an address may have.
//!
//! Each has a bucket of bytes: `--audit-limit` a second, a minute's worth of which may come at once, since many come back at once after a
//! restart. There is room for so many addresses; beyond, those that are within their share are forgotten, and if that isn't enough all
//! others have one bucket together. Only the writer knows them, so there is no lock.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use crate::{clock::Moment, limits::Prefix};

/// How much may come at once: what the rate allows in this time.
const BURST: Duration = Duration::from_secs(60);

/// Addresses that are known at once, of a hundred bytes each.
const ADDRESSES_MAX: usize = 8192;

/// See the module's description.
pub(super) struct Shares {
    ipv6_len: u8,
    known: HashMap<Prefix, Bucket>,
    /// That of all that there is no room for.
    others: Bucket,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Until when the bytes that came would have lasted, each for its share of a second.
    lasts_until: Moment,
    /// Lines left out since the last one.
    left_out: u64,
}

impl Bucket {
    /// Whether there is room for so many bytes; what there must be room for is taken in any case.
    fn takes(&mut self, bytes: usize, limit: u64, now: Moment, must: bool) -> bool {
        let Some(nanos) = (bytes as u64).saturating_mul(1_000_000_000).checked_div(limit) else { return true };
        let lasts_until = self.lasts_until.max(now) + Duration::from_nanos(nanos);
        // Something always fits, however much a line is more than a minute's worth.
        let fits = lasts_until <= now + BURST || self.lasts_until <= now;
        if fits {
            self.lasts_until = lasts_until;
        } else if must {
            // Beyond what may come at once it would be paid for long afterwards.
            self.lasts_until = now + BURST;
        }
        fits || must
    }
}

impl Shares {
    /// None is known. An IPv6 address counts by so many bits of it.
    pub fn new(ipv6_len: u8) -> Shares {
        Shares { ipv6_len, known: HashMap::new(), others: Bucket::default() }
    }

    /// Whether a line of so many bytes may be written at `limit` bytes a second (0 for any): how many were left out before it; none
    /// if it is to be left out itself. One that `must` be written is.
    pub fn admit(&mut self, address: IpAddr, bytes: usize, limit: u64, now: Moment, must: bool) -> Option<u64> {
        let prefix = Prefix::of(address, self.ipv6_len);
        if self.known.len() >= ADDRESSES_MAX && !self.known.contains_key(&prefix) {
            self.forget(now);
        }
        let bucket = match self.known.len() < ADDRESSES_MAX || self.known.contains_key(&prefix) {
            true => self.known.entry(prefix).or_default(),
            false => &mut self.others,
        };
        if bucket.takes(bytes, limit, now, must) {
            return Some(std::mem::take(&mut bucket.left_out));
        }
        bucket.left_out += 1;
        None
    }

    /// Forgets those of which nothing is to be said, and which have nothing to pay for.
    fn forget(&mut self, now: Moment) {
        self.known.retain(|_, bucket| bucket.left_out > 0 || bucket.lasts_until > now);
    }

    /// Takes out what was left out of those of which no line has come since they are within their share again, or at the `end` all:
    /// address and lines; no address for all that there was no room for.
    pub fn settle(&mut self, now: Moment, end: bool) -> Vec<(Option<Prefix>, u64)> {
        let is_due = |bucket: &Bucket| bucket.left_out > 0 && (end || bucket.lasts_until <= now);
        let mut untold = Vec::new();
        for (prefix, bucket) in self.known.iter_mut().filter(|(_, bucket)| is_due(bucket)) {
            untold.push((Some(*prefix), std::mem::take(&mut bucket.left_out)));
        }
        if is_due(&self.others) {
            untold.push((None, std::mem::take(&mut self.others.left_out)));
        }
        self.forget(now);
        untold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn at(seconds: u64) -> Moment {
        Moment(5_000_000_000 + seconds * 1_000_000_000)
    }

    fn written(shares: &mut Shares, address: IpAddr, now: Moment) -> usize {
        (0..1000).filter(|_| shares.admit(address, 100, 100, now, false).is_some()).count()
    }

    #[test]
    fn an_address_has_a_minutes_worth_at_once_and_then_its_rate_whatever_others_do() {
        let mut shares = Shares::new(64);
        assert_eq!(written(&mut shares, ONE, at(0)), 60);
        assert_eq!(written(&mut shares, TWO, at(0)), 60);
        assert_eq!(written(&mut shares, ONE, at(5)), 5);
        assert_eq!(shares.admit(ONE, 100, 100, at(6), false), Some(995), "the next line says how many were left out");
        assert_eq!(shares.admit(ONE, 100, 100, at(7), false), Some(0));
    }

    #[test]
    fn who_came_and_who_went_is_written_in_any_case_and_a_share_that_is_gone_comes_back() {
        let mut shares = Shares::new(64);
        written(&mut shares, ONE, at(0));
        for _ in 0..1000 {
            assert!(shares.admit(ONE, 100, 100, at(0), true).is_some());
        }
        assert_eq!(written(&mut shares, ONE, at(0)), 0);
        assert_eq!(written(&mut shares, ONE, at(10)), 10);
        assert!(shares.admit(TWO, 1_000_000, 100, at(10), false).is_some(), "a line that is larger than a share");
        assert_eq!(written(&mut shares, TWO, at(20)), 0);
        assert_eq!(
            (0..1000).filter(|_| shares.admit(ONE, 1 << 20, 0, at(0), false).is_some()).count(),
            1000,
            "no limit"
        );
    }

    #[test]
    fn what_was_left_out_is_told_once_when_the_address_is_within_its_share_or_at_the_end() {
        let mut shares = Shares::new(64);
        written(&mut shares, ONE, at(0));
        assert_eq!(shares.settle(at(59), false), []);
        assert_eq!(shares.settle(at(60), false), [(Some(Prefix::of(ONE, 64)), 940)]);
        assert_eq!(shares.settle(at(60), true), []);
        written(&mut shares, ONE, at(60));
        assert_eq!(shares.settle(at(60), true), [(Some(Prefix::of(ONE, 64)), 940)]);
    }

    #[test]
    fn there_is_room_for_so_many_addresses_and_the_others_share_one_bucket() {
        let mut shares = Shares::new(128);
        let nth = |n: u32| IpAddr::from((u128::from(n) << 64).to_be_bytes());
        for n in 0..ADDRESSES_MAX as u32 {
            assert_eq!(written(&mut shares, nth(n), at(0)), 60);
        }
        assert_eq!((written(&mut shares, ONE, at(0)), written(&mut shares, TWO, at(0))), (60, 0));
        assert_eq!(shares.known.len(), ADDRESSES_MAX);
        let untold = shares.settle(at(60), false);
        assert_eq!(untold.len(), ADDRESSES_MAX + 1);
        assert!(untold.contains(&(None, 1940)));
        assert_eq!(shares.known.len(), 0);
    }
}
