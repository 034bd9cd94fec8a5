//! Which lines go to the log, where clients decide how many there could be.
//!
//! One line for each refusal, time-out or wrong token lets whoever is refused fill the log: what comes faster than it can be
//! written is dropped, whoever's it is, and disks fill. So lines that clients cause are of a *kind*, and each kind has a rate
//! (`--log-limit`), two seconds' worth of which may come at once. The next line of the kind says how many were left out before it;
//! if none comes, the control thread says so, once the kind is within its rate again. The first of a kind always comes, and no
//! kind takes anything from another. All threads share the kinds; a line that is left out costs a lock and is never made up.
//!
//! `debug` and `trace` are for looking at single connections: what is logged there has no bound.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    clock::Moment,
    config::RateLimit,
    metrics::{Ending, Refusal, Tally},
};

/// How much may come at once: what the rate allows in this time.
const BURST: Duration = Duration::from_secs(2);

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A connection or request was turned away.
    Refused(Refusal),
    /// A connection was closed.
    Closed(Ending),
    /// A wrong token was shown.
    WrongToken,
    /// Descriptors or memory have run out for accepting connections.
    NotAccepted,
    /// The kernel doesn't watch a socket.
    Unwatched,
    /// A TLS handshake came to nothing.
    NoHandshake,
    /// A challenge for a certificate was asked for.
    Challenge,
}

impl Kind {
    const COUNT: usize = Refusal::COUNT + Ending::COUNT + 5;

    fn all() -> impl Iterator<Item = Kind> {
        let refused = Refusal::all().map(Kind::Refused);
        let others = [Kind::WrongToken, Kind::NotAccepted, Kind::Unwatched, Kind::NoHandshake, Kind::Challenge];
        refused.chain(Ending::all().map(Kind::Closed)).chain(others)
    }

    fn index(self) -> usize {
        match self {
            Kind::Refused(why) => why as usize,
            Kind::Closed(ending) => Refusal::COUNT + ending.index(),
            Kind::WrongToken => Kind::COUNT - 5,
            Kind::NotAccepted => Kind::COUNT - 4,
            Kind::Unwatched => Kind::COUNT - 3,
            Kind::NoHandshake => Kind::COUNT - 2,
            Kind::Challenge => Kind::COUNT - 1,
        }
    }

    /// The word for it in metrics and in the log.
    fn name(self) -> String {
        match self {
            Kind::Refused(why) => format!("refused_{}", why.name()),
            Kind::Closed(ending) => format!("closed_{}", ending.name()),
            Kind::WrongToken => "wrong_token".to_owned(),
            Kind::NotAccepted => "not_accepted".to_owned(),
            Kind::Unwatched => "unwatched".to_owned(),
            Kind::NoHandshake => "no_handshake".to_owned(),
            Kind::Challenge => "challenge".to_owned(),
        }
    }
}

/// See the module's description.
pub(crate) struct Log {
    /// What a line lasts, in nanoseconds; 0 for no bound.
    each_ns: AtomicU64,
    buckets: [Mutex<Bucket>; Kind::COUNT],
    left_out: [Tally; Kind::COUNT],
    /// Tells how many lines the writer has dropped.
    dropped: Dropped,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Until when the lines that came would have lasted, each for its share of a second; see `worker/desk/quota.rs`.
    lasts_until: Moment,
    /// Lines left out since the last one.
    left_out: u64,
    /// When the first of them was.
    since: Moment,
}

/// Asks whoever writes the log how many lines it had to drop so far.
#[derive(Clone, Default)]
pub(crate) struct Dropped(pub Option<Arc<dyn Fn() -> u64 + Send + Sync>>);

impl fmt::Debug for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dropped").field(&self.0.as_ref().map(|count| count())).finish()
    }
}

/// Logs a line of a kind, with its fields in braces, unless it would be one too many.
macro_rules! tell {
    ($log:expr, $kind:expr, $now:expr, $level:ident, { $($fields:tt)* }, $message:literal) => {
        if tracing::enabled!(tracing::Level::$level) && let Some(left_out) = $log.admit($kind, $now) {
            tracing::event!(tracing::Level::$level, $($fields)*, left_out, $message);
        }
    };
}
pub(crate) use tell;

impl Log {
    /// So many lines of each kind a second.
    pub fn new(limit: RateLimit, dropped: Dropped) -> Log {
        let log = Log {
            each_ns: AtomicU64::new(0),
            buckets: std::array::from_fn(|_| Mutex::default()),
            left_out: std::array::from_fn(|_| Tally::default()),
            dropped,
        };
        log.set_limit(limit);
        log
    }

    /// Sets the rate anew.
    pub fn set_limit(&self, limit: RateLimit) {
        let each_ns = limit.rate().map_or(0, |rate| rate.period().as_nanos() as u64);
        if self.each_ns.swap(each_ns, Ordering::Relaxed) != each_ns {
            // What a lower rate has used up would last for long.
            self.buckets.iter().for_each(|bucket| bucket.lock().lasts_until = Moment::default());
        }
    }

    /// Whether a line of a kind may come now: how many were left out before it, if any; none if it is to be left out itself.
    pub fn admit(&self, kind: Kind, now: Moment) -> Option<Option<u64>> {
        let each = Duration::from_nanos(self.each_ns.load(Ordering::Relaxed));
        let mut bucket = self.buckets[kind.index()].lock();
        if bucket.has_room(each, now) {
            let left_out = std::mem::take(&mut bucket.left_out);
            return Some((left_out > 0).then_some(left_out));
        }
        if bucket.left_out == 0 {
            bucket.since = now;
        }
        bucket.left_out += 1;
        drop(bucket);
        self.left_out[kind.index()].bump();
        None
    }

    /// Says what was left out of the kinds of which no line has come since: those that are within their rate again, or at the
    /// `end` all.
    pub fn settle(&self, now: Moment, end: bool) {
        for kind in Kind::all() {
            let mut bucket = self.buckets[kind.index()].lock();
            if bucket.left_out == 0 || !(end || bucket.lasts_until <= now) {
                continue;
            }
            let left_out = std::mem::take(&mut bucket.left_out);
            let seconds = now.since(bucket.since).as_secs();
            drop(bucket);
            let kind = kind.name();
            tracing::warn!(kind, left_out, seconds, "more lines of this kind were left out");
        }
    }

    /// Lines left out so far, by the name of their kind.
    pub fn left_out(&self) -> impl Iterator<Item = (String, u64)> {
        Kind::all().map(|kind| (kind.name(), self.left_out[kind.index()].get()))
    }

    /// Lines that the writer has dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.0.as_ref().map_or(0, |count| count())
    }
}

impl Bucket {
    fn has_room(&mut self, each: Duration, now: Moment) -> bool {
        if each.is_zero() {
            return true;
        }
        let lasts_until = self.lasts_until.max(now) + each;
        let is_within = lasts_until <= now + BURST.max(each);
        if is_within {
            self.lasts_until = lasts_until;
        }
        is_within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind::Refused(Refusal::BadRequest);

    fn at(ms: u64) -> Moment {
        Moment(5_000_000_000 + ms * 1_000_000)
    }

    fn admitted(log: &Log, kind: Kind, now: Moment, tried: usize) -> Vec<Option<u64>> {
        (0..tried).filter_map(|_| log.admit(kind, now)).collect()
    }

    #[test]
    fn a_kind_that_has_had_its_share_says_how_many_were_left_out_in_its_next_line() {
        let log = Log::new("2/s".parse().unwrap(), Dropped::default());
        assert_eq!(admitted(&log, KIND, at(0), 100), [None; 4]);
        assert_eq!(admitted(&log, KIND, at(499), 10), []);
        assert_eq!(admitted(&log, KIND, at(500), 2), [Some(106)]);
        assert_eq!(admitted(&log, KIND, at(1000), 1), [Some(1)]);
        let counted: Vec<_> = log.left_out().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("refused_bad_request".to_owned(), 107)]);
    }

    #[test]
    fn the_first_line_of_every_kind_comes_whatever_others_do() {
        let log = Log::new("0.001".parse().unwrap(), Dropped::default());
        let kinds: Vec<Kind> = Kind::all().collect();
        for (n, kind) in kinds.iter().enumerate() {
            assert_eq!(kind.index(), n);
            assert_eq!(admitted(&log, *kind, at(0), 1000).len(), 1, "{kind:?}");
        }
        assert_eq!(kinds.len(), Kind::COUNT);
    }

    #[test]
    fn what_was_left_out_is_told_once_after_a_pause_or_at_the_end() {
        let log = Log::new("2/s".parse().unwrap(), Dropped::default());
        let untold = || log.buckets[KIND.index()].lock().left_out;
        admitted(&log, KIND, at(0), 10);
        log.settle(at(1999), false);
        assert_eq!(untold(), 6, "the next line may tell");
        log.settle(at(2000), false);
        assert_eq!((untold(), admitted(&log, KIND, at(2000), 1)), (0, vec![None]));
        admitted(&log, KIND, at(2000), 10);
        log.settle(at(2000), true);
        assert_eq!(untold(), 0);
    }

    #[test]
    fn no_limit_leaves_nothing_out_and_a_new_one_counts_at_once() {
        let log = Log::new("0".parse().unwrap(), Dropped::default());
        assert_eq!(admitted(&log, KIND, at(0), 1000).len(), 1000);
        log.set_limit("1/s".parse().unwrap());
        assert_eq!(admitted(&log, KIND, at(0), 1000).len(), 2);
        for (limit, later, lines) in [("0.001", 5, 1), ("1/s", 8, 2), ("0.001", 20, 1), ("0", 21, 1000)] {
            log.set_limit(limit.parse().unwrap());
            assert_eq!(admitted(&log, KIND, at(later * 1000), 1000).len(), lines, "{limit}");
        }
    }
}
