//! Sharing: a cohort without rates has one compressed stream for all of its members that keep up ([`Stream`]), be they one or many. They are sent every
//! publication; who wants newest values leaves it when its socket is full.
//!
//! ```text
//!   planned:     | 40  41 | 42  43 | 44  ‖ 45 | 46            ‖ the stream began anew
//!   members:     [ s s c ]    [ s ]         [ s c ]     [ s c s ]
//! ```
//!
//! Members that read the stream (s) and those that don't (c) stand in one column, and what is planned is planned for both: pieces of the tape, by
//! the positions of publications. When it is their turn, those of one kind that stand at one cut are sent the same bytes. A frame of
//! the stream is made when its publication is planned, as the step's room goes.
//!
//! A member comes to the stream where this begins anew, if it stands at the end of what is planned, so that it has everything before and the next
//! frame is its first. It leaves it wherever it can't go on: when what it is owed isn't kept, when its subscription changes, when the
//! stream ends. Who falls behind takes along that it reads the stream ([`Connection::shares`](super::Connection::shares)), and
//! goes on from the stream for as long as that keeps what comes next (`cursors/shared.rs`). What is left of a frame that was sent in part
//! is taken along, too: nobody stands within a frame of a stream.

use super::{
    super::{
        connections::Connections,
        deliver::{Outcome, Parcel, deliver_to_each},
        ground::Ground,
        work::price,
    },
    Fan, Fell, Why,
    column::{Column, Planned, is_sharing},
    interest::{Cohort, CohortId, Interest},
    passes::PassId,
};
use crate::{
    io::{Edge, SEND_MAX},
    packs::{Form, Frames, Packer, Packing},
    stream::{Kept, LEAST, SHARED_MAX, Stream, cost_of_new},
    tape::{Position, Published, Run},
};

/// A look at so many members costs as much as one at anything else: they lie side by side.
const MEMBERS_A_LOOK: u64 = 16;

impl Cohort {
    /// Whether its members may share a stream: they can read one, and whoever of them keeps up is sent every publication of all of their names.
    #[inline]
    pub fn may_share(&self) -> bool {
        self.key.packed == Packing::Shared && self.paces.is_empty() && !self.key.polls
    }

    /// Adds a publication to what its members are to be sent, by the stream and by itself. What is planned is as long as it is on the tape.
    pub(super) fn plan_shared(
        &mut self,
        pass: PassId,
        entry: &Published<'_>,
        frames: &mut Frames<'_>,
        (id, topic): (CohortId, Option<&str>),
    ) -> (Planned, u64) {
        let (lane, at) = (self.key.lane, entry.position);
        let reader = frames.reader;
        let clear = reader.bytes(lane, entry.run(lane));
        self.open_or_end(id, at, topic, frames.packer);
        let (members, len) = (self.column.len() as u64, clear.len() as u64);
        let to_send = match self.push(at, clear, topic, frames.packer) {
            Some(shared) => {
                let sharing = self.column.sharing() as u64;
                shared * sharing + len * (members - sharing)
            }
            None => {
                // It is compressed now, when there is room for that.
                let packed = u64::from(frames.run(self.key.form(), entry).len);
                packed * members
            }
        };
        let run = Run { base: at, start: 0, len: clear.len() as u32 };
        (self.column.plan(pass, at, run), to_send)
    }

    /// Opens a stream where there are members enough, with those that have everything before `at`; or ends it, where there are too few, or
    /// few and no leisure. What may not go through one opens none: a cohort that wants nothing else would keep a place that others have a use for.
    fn open_or_end(&mut self, id: CohortId, at: Position, topic: Option<&str>, packer: &mut Packer) {
        let least = packer.packs().streams.members_min;
        let has_to_wait = packer.streams.is_swamped && packer.packs().streams.is_for_leisure(self.users);
        if self.stream.is_some() {
            if self.users * 2 < least || has_to_wait {
                self.end_stream();
            }
            return;
        }
        if self.column.len() < least || has_to_wait || is_private(at, topic, packer) {
            return;
        }
        let level = packer.packs().streams.level(self.users, packer.streams.is_pressed);
        let cost = cost_of_new(level);
        // With the next publication, then.
        if !packer.streams.may_cost(at, cost) {
            return;
        }
        if !packer.streams.has_room_for(id) {
            return packer.streams.note_refused(id, self.column.len());
        }
        packer.charge(self.column.len() as u64 / MEMBERS_A_LOOK);
        if self.column.waiting() == 0 {
            return;
        }
        let stream = Stream::new(&packer.packs().streams, level, at);
        packer.packs().stream_counts.opened.bump();
        packer.streams.note_open(id);
        packer.streams.may_spend(at, cost);
        packer.charge(cost);
        self.stream = Some(stream.into());
        self.column.share_at_end();
    }

    /// Nobody reads its stream from here on.
    pub fn end_stream(&mut self) {
        self.stream = None;
        self.column.unshare_all();
    }

    /// Takes a publication into the stream. Returns how many bytes its readers are sent for it; none if there is no stream.
    fn push(&mut self, at: Position, clear: &[u8], topic: Option<&str>, packer: &mut Packer) -> Option<u64> {
        let Cohort { key, stream, column, users, .. } = self;
        let stream = stream.as_deref_mut()?;
        stream.members = *users;
        let packs = std::sync::Arc::clone(packer.packs());
        let (settings, counts) = (&packs.streams, &packs.stream_counts);
        let may = clear.len() >= LEAST.max(settings.least) && !is_private(at, topic, packer);
        let mut has_to_begin = false;
        if may {
            let is_pressed = packer.streams.is_pressed || column.owed_most() >= SEND_MAX;
            let level = settings.level(*users, is_pressed);
            // Who reads it can go on whatever happens; and where nobody does, nobody minds.
            let may_soon = stream.is_fresh() || stream.is_to_begin(settings, true) || column.sharing() == 0;
            let waiting = if may_soon { column.waiting() } else { 0 };
            packer.charge(if may_soon { 1 + column.len() as u64 / MEMBERS_A_LOOK } else { 0 });
            let is_due = stream.is_to_begin(settings, false);
            if is_due || (waiting > 0 && !stream.is_fresh()) {
                let cost = stream.cost_of_beginning(level);
                has_to_begin = !packer.streams.may_spend(at, cost);
                if !has_to_begin {
                    packer.charge(cost);
                    stream.begin_anew(level);
                    if is_due { &counts.anew_due } else { &counts.anew_joined }.bump();
                }
            }
            if waiting > 0 && stream.is_fresh() {
                column.share_at_end();
            }
        }
        if !may || column.sharing() == 0 {
            stream.push_clear(settings, counts, at);
            // Nobody reads the stream because there is no time for it to begin anew: that's not for those to pay who wait.
            let packed = if has_to_begin { packer.packed(key.lane, at, clear) } else { None };
            return Some(packed.map_or(clear.len(), <[u8]>::len) as u64);
        }
        let (cost, passing) = (stream.cost_of(clear.len()), stream.cost_of_passing(clear.len()));
        let sent = if clear.len() <= SHARED_MAX && !has_to_begin && packer.streams.may_spend(at, cost) {
            packer.charge(cost);
            stream.push(settings, counts, at, clear)
        } else if packer.streams.may_pass(at, passing)
            && let Some(packed) = packer.packed(key.lane, at, clear)
        {
            let len = packed.len();
            let is_passed = stream.pass(settings, counts, at, (clear, packed));
            packer.charge(passing);
            is_passed.then_some(len)
        } else {
            stream.push_clear(settings, counts, at);
            Some(clear.len())
        };
        if sent.is_none() {
            self.end_stream();
        }
        sent.map(|len| len as u64)
    }

    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub(super) fn check_stream(&self) {
        assert!(self.stream.is_none() || self.may_share(), "a stream that nobody may read");
        assert!(self.stream.is_some() || self.column.sharing() == 0, "somebody reads a stream that isn't there");
    }
}

/// Whether the publication at `at` is kept out of streams. Patterns are looked at once for all cohorts that want it.
fn is_private(at: Position, topic: Option<&str>, packer: &mut Packer) -> bool {
    if let Some((_, is_private)) = packer.streams.private.filter(|(last, _)| *last == at) {
        return is_private;
    }
    let settings = &packer.packs().streams;
    let (is_private, looks) = (settings.is_private(topic), settings.private.len() as u64);
    packer.charge(price::MATCH * looks);
    packer.streams.private = Some((at, is_private));
    is_private
}

/// Bytes for those who stand at one place, and where each publication ends in them.
#[derive(Debug, Default)]
pub struct Gathered {
    pub bytes: Vec<u8>,
    pub ends: Vec<End>,
    /// How many bytes they are on the tape.
    on_tape: u64,
}

/// Where a publication ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    at: usize,
    position: Position,
    /// Its frame is the one that whoever is behind is sent, so that it can be gone on with there.
    is_usual: bool,
}

/// Where somebody has stopped.
#[derive(Debug, PartialEq, Eq)]
struct Stopped {
    position: Position,
    /// So many bytes of that publication are sent,
    offset: u32,
    /// or this is what is left of them.
    rest: Vec<u8>,
    /// Publications that went whole.
    whole: u64,
}

impl Gathered {
    /// What was planned for those who read the stream. Returns whether all of it is kept there.
    fn shared(
        &mut self,
        frames: &mut Frames<'_>,
        stream: &Stream,
        form: Form,
        from: Position,
        runs: impl Iterator<Item = Run>,
    ) -> bool {
        self.clear();
        if !stream.is_kept_from(from) {
            return false;
        }
        let mut kept = stream.from(from);
        for run in runs {
            let mut is_usual = false;
            match kept.next().filter(|(position, _)| *position == run.base) {
                Some((_, Kept::Frame(frame))) => self.bytes.extend_from_slice(frame),
                Some((_, Kept::Clear)) => {
                    let entry = frames.reader.look(run.base).expect("what is planned is on the tape");
                    is_usual = !frames.may_pack(form.lane, &entry);
                    frames.push_made(form.lane.into(), &entry, &mut self.bytes);
                }
                Some((_, Kept::Alone)) => {
                    let entry = frames.reader.look(run.base).expect("what is planned is on the tape");
                    is_usual = true;
                    if !frames.push_made(form, &entry, &mut self.bytes) {
                        // It was let go.
                        return false;
                    }
                }
                None => {
                    debug_assert!(false, "{:?} was planned, and isn't in the stream", run.base);
                    return false;
                }
            }
            self.on_tape += u64::from(run.len);
            self.ends.push(End { at: self.bytes.len(), position: run.base, is_usual });
        }
        true
    }

    /// What was planned for those who don't. What nobody has compressed by itself, or was let go since, goes as it is: for those who wait to come to
    /// the stream nothing is compressed.
    fn unshared(&mut self, frames: &mut Frames<'_>, form: Form, runs: impl Iterator<Item = Run>) {
        self.clear();
        for run in runs {
            let entry = frames.reader.look(run.base).expect("what is planned is on the tape");
            let is_usual = frames.push_made(form, &entry, &mut self.bytes);
            self.on_tape += u64::from(entry.len(form.lane));
            self.ends.push(End { at: self.bytes.len(), position: run.base, is_usual });
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.on_tape = 0;
    }

    /// Where somebody has stopped who took so many bytes.
    fn stopped(&self, taken: usize) -> Stopped {
        let whole = self.ends.partition_point(|end| end.at <= taken);
        let start = whole.checked_sub(1).map_or(0, |last| self.ends[last].at);
        let (whole, offset, rest) = (whole as u64, 0, Vec::new());
        let Some(End { at, position, is_usual }) = self.ends.get(whole as usize).copied() else {
            debug_assert!(false, "a socket that is full has not taken all");
            let position = self.ends.last().map_or(Position(0), |last| Position(last.position.0 + 1));
            return Stopped { position, offset, rest, whole };
        };
        if is_usual {
            return Stopped { position, offset: (taken - start) as u32, rest, whole };
        }
        let rest = if taken > start { self.bytes[taken..at].to_vec() } else { rest };
        Stopped { position, offset, rest, whole }
    }
}

impl Fan {
    /// Serves members of a cohort that are sent compressed frames, their stream's or each by itself, until its round is over or at least
    /// `most` calls of `send` were made. Returns how many. Nothing is compressed here.
    pub(super) fn serve_packed<E: Edge>(
        &mut self,
        ground: &mut Ground<E>,
        connections: &mut Connections<E::Socket>,
        id: CohortId,
        most: u64,
    ) -> u64 {
        let Fan { interest, passes, gathered, .. } = self;
        let Ground { edge, reader, packer, metrics, .. } = ground;
        let mut frames = Frames { reader, packer };
        let cohort = interest.cohort(id);
        cohort.last_sent = ground.now;
        let form = cohort.key.form();
        let Cohort { column, stream, .. } = cohort;
        let (mut sends, mut fallen, mut stopped) = (0, Vec::new(), Vec::new());
        let room = ground.work.left();
        while sends < most
            && frames.packer.cost() <= room
            && let Some(cut) = column.next_cut()
        {
            let owed = column.owed(cut);
            if is_sharing(cut) {
                let is_kept = stream
                    .as_deref()
                    .is_some_and(|stream| gathered.shared(&mut frames, stream, form, owed.from, column.runs(cut)));
                if !is_kept {
                    frames.packer.charge(column.len() as u64 / MEMBERS_A_LOOK);
                    column.unshare_at(cut);
                    continue;
                }
            } else {
                gathered.unshared(&mut frames, form, column.runs(cut));
            }
            debug_assert_eq!(gathered.ends.len(), owed.publications as usize);
            let saved = gathered.on_tape.saturating_sub(gathered.bytes.len() as u64);
            let parcel = Parcel { bytes: &gathered.bytes, publications: owed.publications.into(), saved };
            let next = || column.serve_at(cut);
            let done = deliver_to_each(edge, metrics, connections, parcel, most - sends, next, &mut stopped);
            sends += done.sends;
            column.settle(cut, done.members, passes);
            for (token, outcome) in stopped.drain(..) {
                let why = match outcome {
                    Outcome::All => continue,
                    Outcome::Full(taken) => {
                        let Stopped { position, offset, rest, whole } = gathered.stopped(taken);
                        metrics.deliveries.add(whole);
                        Why::Full { position, offset, rest }
                    }
                    Outcome::Broken(why) => Why::Broken(why),
                };
                fallen.push((token, why));
            }
        }
        let looks = ground.packer.take_cost();
        ground.work.charge(looks);
        for (token, why) in fallen {
            let owed = self.leave(connections, token);
            self.fell.push_back(Fell { token, why, owed });
        }
        sends
    }

    /// Shows what there is of streams, and takes one from a cohort that is small for one that is large.
    pub fn see_to_streams<E: Edge>(&mut self, ground: &mut Ground<E>) {
        let Ground { packer, metrics, .. } = ground;
        if (packer.streams.open.is_empty() && metrics.shared_streams.get() == 0)
            || !packer.streams.is_to_look(ground.now)
        {
            return;
        }
        let interest = &mut self.interest;
        packer.streams.open.retain(|id| interest.stream_of(*id).is_some());
        if let Some((larger, members)) = packer.streams.take_refused() {
            let users = |id: &CohortId| interest.cohort_users(*id);
            let smallest = packer.streams.open.iter().copied().min_by_key(users);
            if let Some(id) = smallest.filter(|id| users(id) * 2 <= members) {
                interest.cohort(id).end_stream();
                packer.streams.open.retain(|other| *other != id);
                packer.streams.claim_for(larger);
            }
        }
        let (mut held, mut sharing, mut waiting) = (0, 0, 0);
        for id in &packer.streams.open {
            held += interest.stream_of(*id).map_or(0, Stream::held);
            let column: &Column = &interest.cohort(*id).column;
            sharing += column.sharing();
            waiting += column.len() - column.sharing();
        }
        metrics.shared_streams.set(packer.streams.open.len() as u64);
        metrics.shared_streams_bytes.set(held as u64);
        metrics.stream_members.set(sharing as u64);
        metrics.stream_waiting.set(waiting as u64);
    }
}

impl Interest {
    /// The stream of a cohort, if there is one and it is still there.
    pub fn stream_of(&self, id: CohortId) -> Option<&Stream> {
        self.find(id)?.stream.as_deref()
    }

    /// How many users a cohort has; none if it is gone.
    fn cohort_users(&self, id: CohortId) -> usize {
        self.find(id).map_or(0, |cohort| cohort.users)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_stopped_within_a_frame_takes_the_rest_of_it_along() {
        let end = |position, at| End { at, position: Position(position), is_usual: false };
        let mut gathered = Gathered { bytes: vec![1, 2, 3, 4, 5], ends: vec![end(4, 2), end(7, 5)], on_tape: 9 };
        let stopped = |position, offset, rest: &[u8], whole| Stopped {
            position: Position(position),
            offset,
            rest: rest.to_vec(),
            whole,
        };
        assert_eq!(gathered.stopped(0), stopped(4, 0, &[], 0));
        assert_eq!(gathered.stopped(1), stopped(4, 0, &[2], 0));
        assert_eq!(gathered.stopped(2), stopped(7, 0, &[], 1));
        assert_eq!(gathered.stopped(4), stopped(7, 0, &[5], 1));
        // Unless it is found again.
        gathered.ends[1].is_usual = true;
        assert_eq!(gathered.stopped(2), stopped(7, 0, &[], 1));
        assert_eq!(gathered.stopped(4), stopped(7, 2, &[], 1));
    }
}
