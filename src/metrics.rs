//! What the server counts: plain atomics that their one writer bumps without a lock, and that a scrape reads.
//!
//! Each worker has counters of its own, on cache lines of its own, and adds them up once a pass, not once a delivery.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// A number with one writer and any readers. Relaxed throughout: a scrape needs no order between figures.
#[derive(Debug, Default)]
pub struct Figure(AtomicU64);

impl Figure {
    /// Adds; only its one writer may.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Sets; only its one writer may.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Reads.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that several threads bump, rarely.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Adds one.
    pub fn bump(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Reads.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A distribution of times in microseconds, from 1 µs to a minute, three percent wide at worst.
#[derive(Debug)]
pub struct Times(Mutex<Recorded>);

#[derive(Clone, Debug)]
struct Recorded {
    histogram: Histogram<u64>,
    sum_us: u64,
}

impl Default for Times {
    fn default() -> Times {
        let histogram = Histogram::new_with_bounds(1, 60_000_000, 2).expect("the bounds are in order");
        Times(Mutex::new(Recorded { histogram, sum_us: 0 }))
    }
}

impl Times {
    /// Records times in microseconds, each so many times; one lock for all of them.
    pub fn record(&self, times_us: impl IntoIterator<Item = (u64, u64)>) {
        let mut recorded = self.0.lock();
        for (us, times) in times_us {
            recorded.sum_us += us * times;
            recorded.histogram.saturating_record_n(us.max(1), times);
        }
    }

    /// Cumulative counts at or below each of `bounds`, then the count and the sum in seconds.
    pub fn cumulative(&self, bounds: &[Duration]) -> (Vec<u64>, u64, f64) {
        // A copy, so that the worker waits for as long as copying some KiB takes, and not for the counting.
        let recorded = self.0.lock().clone();
        let counts = bounds.iter().map(|bound| recorded.histogram.count_between(0, bound.as_micros() as u64)).collect();
        (counts, recorded.histogram.len(), recorded.sum_us as f64 / 1e6)
    }
}

/// The steps of a worker's turn that have an allotment of work, in their order (`worker/work.rs`).
pub const STEPS: [&str; 7] = ["read", "ask", "plan", "serve", "tick", "go", "look_after"];

/// What one worker counts.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Connections it owns now, of any kind.
    pub connections: Figure,
    /// Of those, WebSocket connections that are open.
    pub websockets: Figure,
    /// Streams of Server-Sent Events that are open.
    pub streams: Figure,
    /// Open connections that were given up because their peers' TCP answered nothing any more.
    pub dead: Figure,
    /// Connections that were upgraded to WebSocket.
    pub upgrades: Figure,
    /// Of these, such as agreed on compression.
    pub upgrades_deflated: Figure,
    /// Open connections that may be sent compressed frames.
    pub packed: Figure,
    /// Compressed messages received.
    pub inflated: Inflated,
    /// Bytes that connections would have been sent beside `sent_bytes` if nothing were compressed.
    pub packed_saved_bytes: Figure,
    /// Streams that its cohorts share, and the memory that they take.
    pub shared_streams: Figure,
    pub shared_streams_bytes: Figure,
    /// Members of these cohorts at the head that read their stream, and that don't.
    pub stream_members: Figure,
    pub stream_waiting: Figure,
    /// Polls that were asked for.
    pub polls: Figure,
    /// Polls that wait for something to come.
    pub polls_waiting: Figure,
    /// Requests for a topic's history.
    pub histories: Figure,
    /// Publications that came in over its connections.
    pub publications: Figure,
    /// Publications that it sent, once for each subscriber.
    pub deliveries: Figure,
    /// Publications left out because a subscriber was slow.
    pub skipped: Figure,
    /// Subscriptions that resumed by a cursor, and those of which that was good no more.
    pub resumed: [Figure; 2],
    /// What each of the [`STEPS`] of its turns has cost, in units of some ten nanoseconds.
    pub work: [Figure; STEPS.len()],
    /// Turns in which each of them left something for the next.
    pub put_off: [Figure; STEPS.len()],
    /// Calls of `send`.
    pub sends: Figure,
    /// Of those, such that the kernel took not all of.
    pub sends_full: Figure,
    /// Bytes sent.
    pub sent_bytes: Figure,
    /// Bytes received.
    pub received_bytes: Figure,
    /// Connections that stand in line to be read.
    pub unread: Figure,
    /// Messages received.
    pub messages: Figure,
    /// Groups of subscribers with the same subscription.
    pub cohorts: Figure,
    /// Those of them that trail: they are planned for behind the others.
    pub cohorts_trailing: Figure,
    /// Distinct names subscribed to.
    pub names: Figure,
    /// Subscribers whose cursors are behind, because their socket was full or they just joined.
    pub behind: Figure,
    /// Greatest lag of a subscriber, in publications.
    pub lag_max: Figure,
    /// Answers that wait for full sockets, in bytes.
    pub pending_bytes: Figure,
    /// Connections for which commands wait to be done.
    pub commands_waiting: Figure,
    /// Bytes of the messages among these that wait.
    pub commands_waiting_bytes: Figure,
    /// Bytes of unfinished messages held.
    pub assembly_bytes: Figure,
    /// Bytes of memory that its connections hold, of any kind.
    pub held_bytes: Figure,
    /// Of those, what the connection holds that would be cut first.
    pub held_largest: Figure,
    /// Connections that were cut because all held more than they may.
    pub held_cut: Figure,
    /// Turns taken.
    pub turns: Figure,
    /// When its present turn began, as a [`Moment`](crate::clock::Moment); 0 while it waits.
    pub turn_begun: Figure,
    /// The tape position of the publication that is to wake it; the greatest number if none is.
    pub sleeps_for: Figure,
    /// Segments of the tape it pins.
    pub segments_pinned: Figure,
    /// How long turns took, waiting not counted.
    pub turn: Times,
    /// Bytes that were planned and not yet sent to everybody at the head, each publication counted once.
    pub planned_bytes: Figure,
    /// From a publication's `ts` until all of this worker's subscribers at the head were sent it.
    pub publish_to_send: Times,
}

/// Compressed messages that came in.
#[derive(Debug, Default)]
pub struct Inflated {
    pub messages: Figure,
    /// Bytes that they had.
    pub bytes_in: Figure,
    /// Bytes that they inflated to.
    pub bytes_out: Figure,
}

impl WorkerMetrics {
    /// The count of open connections: of events, or WebSockets.
    pub fn open(&self, events: bool) -> &Figure {
        if events { &self.streams } else { &self.websockets }
    }
}

/// Why a connection or request was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// `--max-connections` are there.
    ServerFull,
    /// `--max-connections-per-ip` are there.
    AddressFull,
    /// Connecting too often (`--max-connects-per-ip`).
    ConnectsLimited,
    /// The worker's or the control thread's inbox is full.
    InboxFull,
    /// `--max-http-connections` are there.
    HttpFull,
    /// The request was malformed or asked for something that isn't there.
    BadRequest,
    /// The request didn't come in time.
    HandshakeTimeout,
    /// The page's origin is not allowed.
    Origin,
    /// Subscribing or publishing without the right, or with a token that is not the right one.
    Forbidden,
    /// Tokens shown too often by one address (`--max-tokens-per-ip`), or on one connection (`--max-auths`).
    TokensLimited,
    /// Publishing on one topic too many.
    TopicsFull,
    /// Publishing on one topic more than an address may add (`--max-topics-per-ip`).
    AddressTopicsFull,
    /// Publishing on one topic more than a holder may add (`--max-topics-per-holder`).
    HolderTopicsFull,
    /// One subscription too many.
    SubscriptionsFull,
    /// One subscription too many for an address (`--max-subscriptions-per-ip`).
    AddressSubscriptionsFull,
    /// More unfinished messages than `--max-assembly`.
    AssemblyFull,
    /// More of them than an address may have (`--max-assembly-per-ip`).
    AddressAssemblyFull,
    /// More asked for than all connections may hold (`--max-held`).
    HeldFull,
    /// More than those of an address may (`--max-held-per-ip`).
    AddressHeldFull,
    /// Commands, pings or publications too often.
    RateLimited,
    /// The same over all connections of an address.
    AddressRateLimited,
    /// The server is stopping.
    Draining,
}

impl Refusal {
    /// The word for it in metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::ServerFull => "server_full",
            Refusal::AddressFull => "address_full",
            Refusal::ConnectsLimited => "connects_limited",
            Refusal::InboxFull => "inbox_full",
            Refusal::HttpFull => "http_full",
            Refusal::BadRequest => "bad_request",
            Refusal::HandshakeTimeout => "handshake_timeout",
            Refusal::Origin => "origin",
            Refusal::Forbidden => "forbidden",
            Refusal::TokensLimited => "tokens_limited",
            Refusal::TopicsFull => "topics_full",
            Refusal::AddressTopicsFull => "address_topics_full",
            Refusal::HolderTopicsFull => "holder_topics_full",
            Refusal::SubscriptionsFull => "subscriptions_full",
            Refusal::AddressSubscriptionsFull => "address_subscriptions_full",
            Refusal::AssemblyFull => "assembly_full",
            Refusal::AddressAssemblyFull => "address_assembly_full",
            Refusal::HeldFull => "held_full",
            Refusal::AddressHeldFull => "address_held_full",
            Refusal::RateLimited => "rate_limited",
            Refusal::AddressRateLimited => "address_rate_limited",
            Refusal::Draining => "draining",
        }
    }

    pub(crate) const COUNT: usize = Refusal::ALL.len();

    /// All of them, by their numbers.
    pub(crate) fn all() -> impl Iterator<Item = Refusal> {
        Refusal::ALL.into_iter()
    }

    const ALL: [Refusal; 22] = [
        Refusal::ServerFull,
        Refusal::AddressFull,
        Refusal::ConnectsLimited,
        Refusal::InboxFull,
        Refusal::HttpFull,
        Refusal::BadRequest,
        Refusal::HandshakeTimeout,
        Refusal::Origin,
        Refusal::Forbidden,
        Refusal::TokensLimited,
        Refusal::TopicsFull,
        Refusal::AddressTopicsFull,
        Refusal::HolderTopicsFull,
        Refusal::SubscriptionsFull,
        Refusal::AddressSubscriptionsFull,
        Refusal::AssemblyFull,
        Refusal::AddressAssemblyFull,
        Refusal::HeldFull,
        Refusal::AddressHeldFull,
        Refusal::RateLimited,
        Refusal::AddressRateLimited,
        Refusal::Draining,
    ];
}

/// The close code under which an end is counted. Clients may close with any of 2000 codes, so only those with a meaning are told
/// apart: RFC 6455's and the registry's, with 1005 and 1006 for what had none, and this server's own where it was the server
/// that closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ending(usize);

impl Ending {
    const CODES: [u16; 18] =
        [1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 4001, 4002, 4003, 4100];

    /// How many there are.
    pub(crate) const COUNT: usize = Ending::CODES.len() + 1;

    const OTHER: Ending = Ending(Ending::CODES.len());

    /// That of a close code that the server has chosen, or that describes an end without one.
    pub fn by_server(code: u16) -> Ending {
        Ending::CODES.iter().position(|known| *known == code).map_or(Ending::OTHER, Ending)
    }

    /// That of a close code that the client has chosen.
    pub fn by_client(code: u16) -> Ending {
        if code < 3000 { Ending::by_server(code) } else { Ending::OTHER }
    }

    /// The word for it in metrics: the code, or `other`.
    pub fn name(self) -> String {
        Ending::CODES.get(self.0).map_or_else(|| "other".to_owned(), u16::to_string)
    }

    /// Its number among all, below [`Ending::COUNT`].
    pub(crate) fn index(self) -> usize {
        self.0
    }

    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Ending> {
        (0..Ending::COUNT).map(Ending)
    }
}

/// By which way publications come, where those who publish may be held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// WebSocket connections; those of one worker together.
    WebSocket,
    /// Bodies of `POST /publish`, each by itself.
    Http,
    /// The server's own feeds, each by itself.
    Feed,
}

impl Door {
    /// All of them, by their numbers.
    pub const ALL: [Door; 3] = [Door::WebSocket, Door::Http, Door::Feed];

    /// The word for it in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Door::WebSocket => "websocket",
            Door::Http => "http",
            Door::Feed => "feed",
        }
    }
}

/// How often those who publish by one door were held back, and for how long.
#[derive(Debug, Default)]
pub struct Held {
    /// Times that it began.
    pub times: Tally,
    /// How long it has lasted, without what lasts still, in microseconds.
    pub us: Tally,
}

/// The same by door.
#[derive(Debug, Default)]
pub struct HeldByDoor([Held; Door::ALL.len()]);

impl std::ops::Index<Door> for HeldByDoor {
    type Output = Held;

    fn index(&self, door: Door) -> &Held {
        &self.0[door as usize]
    }
}

/// Why a plain HTTP connection was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// Its place was needed, and it waited for nothing.
    Idle,
    /// Its place was needed, and its client had not gone on for longest.
    Slow,
    /// The memory of its answer was needed.
    Memory,
    /// Its client took an answer too slowly.
    Pace,
}

impl Eviction {
    const ALL: [Eviction; 4] = [Eviction::Idle, Eviction::Slow, Eviction::Memory, Eviction::Pace];

    /// The word for it in metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Eviction::Idle => "idle",
            Eviction::Slow => "slow",
            Eviction::Memory => "memory",
            Eviction::Pace => "pace",
        }
    }
}

/// Why a connection was ended, or some of its subscriptions, for its rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its token has expired.
    Expired,
    /// Its token, or whoever that is for, was revoked.
    Revoked,
    /// It has shown nothing that gives it any right within `--auth-timeout`.
    Nothing,
    /// Its holder has connected more often than it may at once, and it was the oldest.
    Replaced,
    /// Its rights became less, and what it was to be sent could not be told apart.
    Narrowed,
    /// Subscriptions that its rights don't cover any more; each counts.
    Names,
}

impl Loss {
    const ALL: [Loss; 6] = [Loss::Expired, Loss::Revoked, Loss::Nothing, Loss::Replaced, Loss::Narrowed, Loss::Names];

    /// The word for it in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Loss::Expired => "expired",
            Loss::Revoked => "revoked",
            Loss::Nothing => "nothing",
            Loss::Replaced => "replaced",
            Loss::Narrowed => "narrowed",
            Loss::Names => "names",
        }
    }
}

/// What became of a TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// It was done, from the beginning.
    Full,
    /// It resumed an earlier session.
    Resumed,
    /// The peer broke the rules, or speaks nothing that is spoken here.
    Failed,
    /// The peer spoke in clear.
    Clear,
    /// It took longer than `--handshake-timeout`.
    TimedOut,
    /// Its place was needed, and it had waited for its peer for longest.
    Crowded,
    /// The peer went.
    Gone,
}

impl Handshake {
    const ALL: [Handshake; 7] = [
        Handshake::Full,
        Handshake::Resumed,
        Handshake::Failed,
        Handshake::Clear,
        Handshake::TimedOut,
        Handshake::Crowded,
        Handshake::Gone,
    ];

    /// The word for it in metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Handshake::Full => "full",
            Handshake::Resumed => "resumed",
            Handshake::Failed => "failed",
            Handshake::Clear => "clear",
            Handshake::TimedOut => "timed_out",
            Handshake::Crowded => "crowded",
            Handshake::Gone => "gone",
        }
    }
}

/// Why a line of a recording was not published as it stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// It is no publication.
    Bad,
    /// It would be a larger message than `--max-replay-message`.
    TooLarge,
    /// Its data is nested more deeply than readers take.
    TooDeep,
    /// It says that there is nothing: that publications are missing.
    Gap,
    /// The server refused it.
    Refused,
}

impl Skipped {
    const ALL: [Skipped; 5] = [Skipped::Bad, Skipped::TooLarge, Skipped::TooDeep, Skipped::Gap, Skipped::Refused];

    /// The word for it in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Skipped::Bad => "bad",
            Skipped::TooLarge => "too_large",
            Skipped::TooDeep => "too_deep",
            Skipped::Gap => "gap",
            Skipped::Refused => "refused",
        }
    }
}

/// What the whole server counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// One for each worker.
    pub workers: Vec<crossbeam_utils::CachePadded<WorkerMetrics>>,
    /// Sockets accepted.
    pub accepted: Tally,
    /// Failures to accept, such as being out of descriptors.
    pub accept_errors: Tally,
    /// HTTP requests answered by the control thread.
    pub http_requests: Tally,
    /// HTTP connections that the control thread owns now.
    pub http_connections: Figure,
    /// Answers over plain HTTP that clients have not taken, in bytes.
    pub http_pending_bytes: Figure,
    /// Turns that the control thread has taken.
    pub control_turns: Figure,
    /// Connections to the admin address now.
    pub admin_connections: Figure,
    /// Connections to the address for challenges now.
    pub acme_connections: Figure,
    /// Challenges that were answered.
    pub challenges_answered: Tally,
    /// Those that were asked for and are not there.
    pub challenges_missing: Tally,
    /// Publications over HTTP.
    pub http_publications: Tally,
    /// Publications by feeds and by the embedding program.
    pub own_publications: Tally,
    /// How often and for how long publishers were held back.
    pub held: HeldByDoor,
    /// For how long at least the tape holds what is published now, in microseconds; 0 while nothing is.
    pub tape_holds_us: Figure,
    /// Topics forgotten.
    pub topics_forgotten: Tally,
    /// Lines of a recording that were not published as they are.
    skipped_lines: [Tally; Skipped::ALL.len()],
    refusals: [Tally; Refusal::ALL.len()],
    closes: [Tally; Ending::COUNT],
    evictions: [Tally; Eviction::ALL.len()],
    losses: [Tally; Loss::ALL.len()],
    /// Tokens that were judged: found good, and found not to be.
    pub tokens: [Tally; 2],
    /// Connections whose rights workers have judged anew, because something about rights had changed.
    pub rights_judged: Tally,
    /// TLS handshakes begun.
    pub handshakes_begun: Tally,
    handshakes: [Tally; Handshake::ALL.len()],
}

impl Metrics {
    /// Counters for so many workers.
    pub fn new(workers: usize) -> Metrics {
        Metrics { workers: (0..workers).map(|_| Default::default()).collect(), ..Metrics::default() }
    }

    /// Counts a line of a recording.
    pub fn skip_line(&self, why: Skipped) {
        self.skipped_lines[why as usize].bump();
    }

    /// How many there were, by reason.
    pub fn skipped_lines(&self) -> impl Iterator<Item = (Skipped, u64)> {
        Skipped::ALL.into_iter().map(|why| (why, self.skipped_lines[why as usize].get()))
    }

    /// Counts a refusal.
    pub fn refuse(&self, why: Refusal) {
        self.refusals[why as usize].bump();
    }

    /// Every reason to refuse, with its count.
    pub fn refusals(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL.into_iter().map(|why| (why, self.refusals[why as usize].get()))
    }

    /// Counts a plain HTTP connection that was ended.
    pub fn evict(&self, why: Eviction) {
        self.evictions[why as usize].bump();
    }

    /// Every reason to end one, with its count.
    pub fn evictions(&self) -> impl Iterator<Item = (Eviction, u64)> {
        Eviction::ALL.into_iter().map(|why| (why, self.evictions[why as usize].get()))
    }

    /// Counts what was ended for somebody's rights.
    pub fn lose(&self, why: Loss, n: usize) {
        self.losses[why as usize].add(n as u64);
    }

    /// Every reason, with its count.
    pub fn losses(&self) -> impl Iterator<Item = (Loss, u64)> {
        Loss::ALL.into_iter().map(|why| (why, self.losses[why as usize].get()))
    }

    /// Counts a TLS handshake that is over.
    pub fn shake(&self, what: Handshake) {
        self.handshakes[what as usize].bump();
    }

    /// Everything that can become of one, with its count.
    pub fn handshakes(&self) -> impl Iterator<Item = (Handshake, u64)> {
        Handshake::ALL.into_iter().map(|what| (what, self.handshakes[what as usize].get()))
    }

    /// Counts a WebSocket connection that ended.
    pub fn close(&self, ending: Ending) {
        self.closes[ending.index()].bump();
    }

    /// Every way to end, with its count. All are there from the start: Prometheus sees no increase in a series that begins with
    /// its first one.
    pub fn closes(&self) -> impl Iterator<Item = (Ending, u64)> {
        Ending::all().map(|ending| (ending, self.closes[ending.index()].get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_clients_make_up_are_one_label_and_none_is_taken_for_the_servers() {
        let metrics = Metrics::new(1);
        (3000..5000).for_each(|code| metrics.close(Ending::by_client(code)));
        for code in [1000, 1006, 4100] {
            metrics.close(Ending::by_server(code));
        }
        let seen: Vec<(String, u64)> =
            metrics.closes().filter(|(_, count)| *count > 0).map(|(ending, count)| (ending.name(), count)).collect();
        let expected = [("1000", 1), ("1006", 1), ("4100", 1), ("other", 2000)];
        assert_eq!(seen, expected.map(|(name, count)| (name.to_owned(), count)));
    }
}
