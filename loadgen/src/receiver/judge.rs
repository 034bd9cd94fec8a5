//! The judge: takes what arrived apart, verifies it, and enters it into ledgers and meters.
//!
//! This is the hot path, once per delivery. The usual delivery is a whole frame whose bytes are those of a publication
//! verified before: one comparison, one step in the ledger, two histogram entries. All else (first receipts, several
//! stamps in one message, messages without a stamp, fragments, control frames) branches off to the slow side below.

use std::sync::Arc;

use super::recent::{self, Recent, Slot};
use crate::{
    connection::{Connection, Stage},
    dialect::{Envelope, Gaps, Heard},
    frame::{self, Frame, Opcode, Scan},
    handover,
    inflate::Inflated,
    ledger::Receipt,
    message::{BAD_TEXT, Event, PROTOCOL_ERROR, Violation},
    meter::{Checks, Interval},
    shared::Shared,
    spec::Scenario,
    stamp::{self, Fault, Stamp},
};

/// So many numbers are kept of one topic.
const TOO_LARGE_MAX: usize = 1 << 16;

/// One thread's judge.
pub struct Judge {
    shared: Arc<Shared>,
    recent: Recent,
    /// By topic: this thread's measured subscribers.
    fan: Vec<u32>,
    /// By topic: how far the server's own numbering is ahead of ours.
    offsets: Vec<Option<i64>>,
    /// The server's numbers of publications of others on our topics that were too large to be sent, in order.
    too_large: Vec<Vec<u64>>,
    acknowledges: bool,
    /// Messages may be compressed.
    compress: bool,
    inflated: Inflated,
    /// What comes is somebody else's, to be counted.
    listens: bool,
    /// What is being measured now.
    pub interval: Interval,
    /// What was found so far.
    pub checks: Checks,
}

impl Judge {
    /// A judge for one thread's connections.
    pub fn new(shared: Arc<Shared>, thread: usize, now: u64) -> Self {
        let spec = &shared.spec;
        Self {
            recent: Recent::new(recent::room(spec)),
            fan: Shared::fan_of(spec, &shared.lists, thread),
            offsets: vec![None; spec.topics],
            too_large: vec![Vec::new(); spec.topics],
            acknowledges: shared.dialect.acknowledges(),
            compress: spec.offer().is_some(),
            inflated: Inflated::default(),
            listens: spec.scenario == Scenario::Listen,
            interval: Interval::new(-1, now, shared.classes.labels.len()),
            checks: Checks::default(),
            shared,
        }
    }

    /// Takes the frames at the start of `bytes`; returns how many bytes they were. What the connection then needs is
    /// noted in it.
    pub fn take(&mut self, conn: &mut Connection, bytes: &[u8], now: u64) -> usize {
        let mut at = 0;
        loop {
            match frame::scan_with(&bytes[at..], self.compress) {
                Scan::Frame(frame) => {
                    at += frame.len;
                    self.frame(conn, &frame, now);
                }
                Scan::Partial(needs) => {
                    conn.needs = needs;
                    return at;
                }
                Scan::Wrong(why) => self.broken(conn, Violation { code: PROTOCOL_ERROR, why }),
            }
            if conn.ended.is_some() {
                return bytes.len();
            }
        }
    }

    /// Takes a message that came by itself.
    pub fn message(&mut self, conn: &mut Connection, message: &[u8], now: u64) {
        if self.listens {
            self.listen(conn, message, now);
        } else if !self.known(conn, message, now) {
            self.message_slowly(conn, message, now);
        }
    }

    /// What is known of the run.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    #[inline]
    fn frame(&mut self, conn: &mut Connection, frame: &Frame<'_>, now: u64) {
        if frame.compressed {
            return self.compressed(conn, frame, now);
        }
        self.interval.clear_bytes += frame::len_of(frame.payload.len()) as u64;
        let whole = frame.fin && matches!(frame.opcode, Opcode::Text | Opcode::Binary) && conn.assembly.is_empty();
        // Bytes that were verified before need no second look, not even whether they are text.
        if whole && self.known(conn, frame.payload, now) {
            return;
        }
        self.frame_slowly(conn, frame, now);
    }

    /// Inflates a message, and takes that as if it had come in clear.
    #[inline(never)]
    fn compressed(&mut self, conn: &mut Connection, frame: &Frame<'_>, now: u64) {
        if !frame.fin || !conn.assembly.is_empty() {
            let why = "a compressed message came in pieces, which are not put together here";
            return self.broken(conn, Violation { code: PROTOCOL_ERROR, why });
        }
        if self.shared.spec.compress_context {
            let message = conn.context.get_or_insert_default().message(frame.payload);
            let why = "a compressed message was no deflate behind those before it";
            let Some(message) = message else { return self.broken(conn, Violation { code: BAD_TEXT, why }) };
            return self.frame(conn, &Frame { compressed: false, payload: &message, ..*frame }, now);
        }
        let Some(message) = self.inflated.message(frame.payload) else {
            return self.broken(conn, Violation { code: BAD_TEXT, why: "a compressed message was no deflate" });
        };
        self.frame(conn, &Frame { compressed: false, payload: &message, ..*frame }, now);
    }

    /// Enters a message that is the same as an earlier one; false where it isn't.
    #[inline]
    fn known(&mut self, conn: &mut Connection, message: &[u8], now: u64) -> bool {
        if conn.stage != Stage::Live {
            return false;
        }
        let Some(slot) = self.recent.same_message(message) else { return false };
        let tally = Tally {
            shared: &self.shared,
            interval: &mut self.interval,
            checks: &mut self.checks,
            offsets: &self.offsets,
        };
        deliver(conn, slot, message.len(), now, tally);
        true
    }

    #[cold]
    #[inline(never)]
    fn frame_slowly(&mut self, conn: &mut Connection, frame: &Frame<'_>, now: u64) {
        if frame.opcode == Opcode::Pong {
            conn.handed = handover::read(frame.payload).unwrap_or(conn.handed);
        }
        match conn.assembly.take(frame) {
            Ok(Event::Nothing) => {}
            Ok(Event::Message(_, message)) if self.is_awaited(conn, &message) => self.next_step(conn, now),
            Ok(Event::Message(_, message)) if self.listens => self.listen(conn, &message, now),
            Ok(Event::Message(_, message)) => {
                if !self.known(conn, &message, now) {
                    self.message_slowly(conn, &message, now);
                }
            }
            Ok(Event::Ping(payload)) => {
                if let Some(line) = &conn.line {
                    // A line that is broken shows at the next read.
                    let _ = line.write_frame(Opcode::Pong, payload);
                }
            }
            Ok(Event::Close(code, reason)) => {
                conn.ended = Some(format!("the server closed it with {code} {reason}").trim_end().to_owned());
                conn.say_goodbye(code);
            }
            Err(violation) => self.broken(conn, violation),
        }
    }

    /// Whether a message has in it what a connection that is being set up waits for.
    fn is_awaited(&self, conn: &mut Connection, message: &[u8]) -> bool {
        conn.stage == Stage::Subscribing && self.shared.dialect.steps().take(&mut conn.waiting, message)
    }

    /// Goes on with setting a connection up, if all that it waited for has come.
    fn next_step(&mut self, conn: &mut Connection, now: u64) {
        if !conn.waiting.is_over() {
            return;
        }
        let Some(line) = conn.line.as_ref().map(Arc::clone) else { return };
        let dialect = &self.shared.dialect;
        let topics = conn.topics.topics();
        let say = &mut |message: &[u8]| {
            // A line that is broken shows at the next read.
            let _ = line.write_frame(dialect.opcode(), message);
        };
        match dialect.go(conn.waiting.next(), &topics, say) {
            Some(waiting) => conn.waiting = waiting,
            None => self.joined(conn, now),
        }
    }

    /// Counts a message, unless it is about the connection itself.
    fn listen(&mut self, conn: &mut Connection, message: &[u8], now: u64) {
        match self.shared.dialect.hear(message) {
            Heard::Subscribed(_) | Heard::Answer(_) | Heard::Complaint(_) => self.unstamped(conn, message, now),
            _ if self.interval.index < 0 => {}
            _ => {
                self.checks.received += 1;
                self.interval.unchecked += 1;
                self.interval.classes[0].bytes += message.len() as u64;
                self.interval.last_delivery = now;
            }
        }
    }

    /// The server has broken the rules: that ends the connection.
    fn broken(&mut self, conn: &mut Connection, violation: Violation) {
        self.checks.wrong += 1;
        conn.ended = Some(format!("what it sent is no WebSocket stream: {}", violation.why));
        conn.say_goodbye(violation.code);
    }

    /// Any message: every stamp in it, or what it says without one.
    fn message_slowly(&mut self, conn: &mut Connection, message: &[u8], now: u64) {
        let (mut from, mut stamps) = (0, 0);
        while let Some(at) = stamp::find(message, from) {
            stamps += 1;
            from = at + self.stamped(conn, message, at, stamps == 1, now);
        }
        if stamps == 0 {
            self.unstamped(conn, message, now);
        }
    }

    /// One stamp of a message, the first or a later one; returns how many bytes to go on.
    fn stamped(&mut self, conn: &mut Connection, message: &[u8], at: usize, first: bool, now: u64) -> usize {
        let span = &message[at..];
        let (stamp, len) = match self.recent.same_span(span) {
            Some((slot, len)) => (slot.stamp, len),
            None => match stamp::read(span) {
                Ok(read) => read,
                Err(fault) => {
                    match fault {
                        Fault::Torn => self.checks.torn += 1,
                        Fault::Wrong => self.checks.wrong += 1,
                    }
                    return stamp::MARKER.len();
                }
            },
        };
        if stamp.run != self.shared.run {
            self.checks.foreign += 1;
            self.unstamped_unless_update(conn, message, now);
            return len;
        }
        match self.shared.dialect.envelope(&stamp, message, at, len) {
            Envelope::Wrong => self.checks.wrong += 1,
            Envelope::Snapshot => self.snapshot(conn, &stamp),
            Envelope::Update(number) => {
                self.number(&stamp, number);
                let alone = first && stamp::find(message, at + len).is_none();
                let (message, at) = if alone { (message, at) } else { (&message[at..at + len], 0) };
                self.update(conn, &stamp, message, at, len, now);
            }
        }
        len
    }

    /// Holds the server's own number against ours: they must run in step.
    fn number(&mut self, stamp: &Stamp, number: Option<u64>) {
        let Some(number) = number else { return };
        let others = self.too_large[stamp.topic as usize].partition_point(|other| *other < number);
        let offset = (number - others as u64) as i64 - i64::from(stamp.seq);
        if *self.offsets[stamp.topic as usize].get_or_insert(offset) != offset {
            self.checks.wrong += 1;
            self.checks.remark("an update's seq was out of step with the publications of its topic".into());
        }
    }

    /// Enters an update; `message` is the whole message, or the span alone where several share one.
    fn update(&mut self, conn: &mut Connection, stamp: &Stamp, message: &[u8], at: usize, len: usize, now: u64) {
        // A subscription that is being renewed may still bring updates of the old one.
        if conn.stage != Stage::Live && self.acknowledges {
            return;
        }
        let class = self.shared.classes.of(stamp.number, stamp.planned);
        let left = self.fan.get(stamp.topic as usize).copied().unwrap_or(0);
        let known = self.recent.same_span(&message[at..]).is_some();
        let mut unheld = Slot::unheld(*stamp, class);
        let slot = match known {
            true => self.recent.same_span(&message[at..]).map(|(slot, _)| slot),
            false => self.recent.keep(*stamp, class, left, message, at, len),
        };
        let tally = Tally {
            shared: &self.shared,
            interval: &mut self.interval,
            checks: &mut self.checks,
            offsets: &self.offsets,
        };
        deliver(conn, slot.unwrap_or(&mut unheld), message.len(), now, tally);
    }

    fn snapshot(&mut self, conn: &mut Connection, stamp: &Stamp) {
        match conn.topics.place(stamp.topic) {
            Some(slot) if conn.ledger.snapshot(slot, stamp.seq) => {}
            Some(_) => self.checks.joints += 1,
            None => self.checks.stray += 1,
        }
    }

    /// A message of another run: nothing to count, unless it is a snapshot.
    fn unstamped_unless_update(&mut self, conn: &mut Connection, message: &[u8], now: u64) {
        if let Heard::Snapshot(_) = self.shared.dialect.hear(message) {
            self.unstamped(conn, message, now);
        }
    }

    fn unstamped(&mut self, conn: &mut Connection, message: &[u8], now: u64) {
        match self.shared.dialect.hear(message) {
            Heard::Nothing => {}
            Heard::Unstamped => self.checks.wrong += 1,
            Heard::Skipped(topic, from, to) => self.skipped(conn, topic, from, to),
            Heard::TooLarge(topic, number) => {
                self.too_large(topic, number);
                // The first may stand in the place of a snapshot as well.
                if let (1, Some(slot)) = (number, conn.topics.place(topic as u32)) {
                    conn.ledger.snapshot_foreign(slot);
                }
            }
            Heard::Complaint(text) => self.checks.remark(format!("the server said: {text}")),
            Heard::Answer(answer) => {
                if let Some(line) = &conn.line {
                    let _ = line.write_frame(self.shared.dialect.opcode(), &answer);
                }
            }
            Heard::Snapshot(topic) => match conn.topics.place(topic as u32) {
                Some(slot) => conn.ledger.snapshot_foreign(slot),
                None => self.checks.stray += 1,
            },
            Heard::Subscribed(with_value) => {
                for topic in with_value {
                    if let Some(slot) = conn.topics.place(topic as u32) {
                        conn.ledger.promise(slot);
                    }
                }
                if conn.stage == Stage::Subscribing {
                    self.joined(conn, now);
                }
            }
        }
    }

    /// A publication of somebody else has taken a number, and is not coming: no gap in ours.
    fn too_large(&mut self, topic: usize, number: u64) {
        let known = &mut self.too_large[topic];
        if let Err(at) = known.binary_search(&number)
            && known.len() < TOO_LARGE_MAX
        {
            known.insert(at, number);
        }
    }

    /// The server announces that it leaves something out.
    fn skipped(&mut self, conn: &mut Connection, topic: usize, from: u64, to: u64) {
        self.checks.skipped += (to + 1).saturating_sub(from);
        match conn.topics.place(topic as u32) {
            // A subscription that is being renewed may still bring what belongs to the old one.
            Some(_) if conn.stage != Stage::Live => {}
            Some(slot) if conn.gaps != Gaps::Never && conn.ledger.tell(slot, from, to) => {}
            _ => self.checks.mistold += 1,
        }
    }

    /// A connection is set up.
    pub fn joined(&mut self, conn: &mut Connection, now: u64) {
        conn.stage = Stage::Live;
        let took = now.saturating_sub(conn.begun);
        let times = if conn.returned { &mut self.interval.rejoins } else { &mut self.interval.joins };
        times.saturating_record(took);
    }
}

/// Where a delivery is entered.
struct Tally<'a> {
    shared: &'a Shared,
    interval: &'a mut Interval,
    checks: &'a mut Checks,
    offsets: &'a [Option<i64>],
}

/// Enters what was left out before publication `seq` of a topic, as the receipt says, and holds what was announced against it.
#[cold]
fn left_out(conn: &mut Connection, place: usize, stamp: &Stamp, receipt: Receipt, tally: &mut Tally<'_>) {
    let told = conn.ledger.take_told(place);
    let missing = match receipt {
        Receipt::Gap(missing) | Receipt::JointGap(missing) => u64::from(missing),
        // Nobody knows where it would have begun.
        Receipt::First => return,
        _ => 0,
    };
    // In the server's numbers, which go on in step with ours.
    let offset = tally.offsets[stamp.topic as usize].unwrap_or(0);
    let end = (i64::from(stamp.seq) + offset) as u64;
    let begin = end.saturating_sub(missing);
    let (announced, rightly) = told.map_or((0, 0), |told| {
        let common = (told.to + 1).min(end).saturating_sub(told.from.max(begin));
        (told.to + 1 - told.from, common)
    });
    tally.checks.conflated += missing;
    tally.checks.mistold += announced - rightly;
    if conn.gaps == Gaps::Announced {
        tally.checks.untold += missing - rightly;
    }
}

/// Enters one verified delivery.
#[inline]
fn deliver(conn: &mut Connection, slot: &mut Slot, bytes: usize, now: u64, mut tally: Tally<'_>) {
    let stamp = &slot.stamp;
    let Some(place) = conn.topics.place(stamp.topic) else {
        tally.checks.stray += 1;
        return;
    };
    tally.checks.received += 1;
    tally.interval.received += 1;
    let receipt = conn.ledger.enter(place, stamp.seq);
    if receipt != Receipt::Expected {
        tally.checks.note(receipt, conn.gaps != Gaps::Never);
    }
    if conn.gaps != Gaps::Never && (receipt != Receipt::Expected || conn.ledger.is_told()) {
        left_out(conn, place, stamp, receipt, &mut tally);
    }
    let Tally { shared, interval, checks, .. } = tally;
    if conn.disturbed {
        return;
    }
    if let Some(class) = slot.class {
        checks.too_early += u64::from(now < stamp.sent);
        interval.last_delivery = now;
        interval.classes[class as usize].enter(now, stamp.planned, stamp.sent, bytes);
        if conn.handed > 0 {
            interval.classes[class as usize].enter_handed(now, stamp.sent, conn.handed);
        }
    }
    if slot.left == 0 || receipt == Receipt::Repeat {
        return;
    }
    if slot.first == 0 {
        slot.first = now;
    }
    slot.left -= 1;
    interval.reached += 1;
    if slot.left == 0 {
        let spread = shared.flights.arrive(stamp.number, slot.first, now);
        if let (Some(spread), Some(_)) = (spread, slot.class) {
            interval.spread.saturating_record(spread);
        }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
