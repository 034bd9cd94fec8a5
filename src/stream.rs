//! A stream that a whole cohort shares: its publications compressed one behind the other, each with the context of those before it.
//!
//! Compressed by itself a quote of some hundred bytes keeps more than half of them, since little repeats within it; what repeats is what came
//! before. So subscribers that are sent the very same messages share one stream of deflate with context takeover (RFC 7692 section 7.2), which
//! leaves a fifth, at less cost than compressing each by itself. They need no client of their own for it: it is what every one of them has
//! agreed on.
//!
//! ```text
//!   publications      | 40 | 41 | 42 | 43 | 44 | 45 | 46 | 47 | 48 | 49 |      by their positions, of one cohort
//!   the stream          f    f    c    f    a  ‖ f    c    f    a    f         f compressed, c sent as it is on the tape, a by itself
//!                   ▲                          ▲
//!                   kept from here on          began anew: nothing behind refers back beyond it
//! ```
//!
//! - **Who can read it.** A frame is read by whoever was sent all frames between it and where the stream began anew before it. So a reader
//!   comes to it only where it begins anew, with everything before sent ([`Stream::is_to_begin`]); from then on it is sent its publications
//!   from here, found by their positions, or as they are on the tape, which touches no window (section 6.1: RSV1 is 0), or compressed by themselves:
//!   then their text is in its window, and the stream passes over it ([`Stream::pass`]). If one of them
//!   isn't kept any more, it reads the stream no longer. To leave it is right at any time.
//! - **Beginning anew** costs a per cent of the bytes if it is done every 256 frames. It is done earlier when somebody waits to come to
//!   it, but not within 64. A window that went wrong, by whatever fault, heals there, too.
//! - **Bounds.** A stream has a compressor ([`StreamDeflater::held`]), and keeps the newest frames ([`StreamSettings::kept`], and of that
//!   [`KEPT_EACH`] for each member). A frame of more than [`SHARED_MAX`] bytes goes compressed by itself, as does, to the last of them, a publication that is
//!   wanted by so many streams that compressing it would cost more than [`ENTRY_COST_MAX`]. What compressing costs, the step that plans is charged.
//! - **What one client can make others pay.** Who comes and goes all the time makes the stream begin anew four times as often: a tenth of the
//!   bytes that it saves. Who has many connections, each with names of its own, takes places that others are without, who are sent each publication
//!   compressed by itself then; and so are those on streams of a few members where somebody publishes so much that turns are full. Who
//!   publishes into a stream and sees how long its frames are can learn of what others publish into it (as in CRIME): topics can be kept out of streams ([`StreamSettings::private`]).
//!
//! It belongs to one worker and one cohort, and knows of no socket and no member: the fan does (`worker/fan/share.rs`).

#[cfg(all(any(test, fuzzing), not(loom)))]
#[doc(hidden)]
pub mod script;
pub mod streams;

use std::{collections::VecDeque, sync::Arc};

use crate::{metrics::Tally, protocol::name::matches, tape::Position, websocket::deflate::StreamDeflater};

/// How streams are made.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    /// Streams of all workers at most; 0 for none at all.
    pub most: usize,
    /// A cohort has one from so many members at the head on.
    pub members_min: usize,
    /// Bits of the window, from 9 to 15.
    pub window_bits: u8,
    /// From 1 to 9; none for 7 where many share it and there is leisure, and else 1.
    pub level: Option<u8>,
    /// A frame of fewer bytes goes as it is.
    pub least: usize,
    /// Frames after which it begins anew, and those within which it doesn't, whoever waits.
    pub anew_every: u32,
    pub anew_least: u32,
    /// Bytes of frames that a stream keeps for those that are behind.
    pub kept: usize,
    /// Topics by names and patterns that go as they are.
    pub private: Arc<[Box<str>]>,
}

impl Default for StreamSettings {
    /// There are none.
    fn default() -> StreamSettings {
        StreamSettings {
            most: 0,
            members_min: MEMBERS_MIN,
            window_bits: WINDOW_BITS,
            level: None,
            least: 128,
            anew_every: ANEW_EVERY,
            anew_least: ANEW_LEAST,
            kept: KEPT_BYTES,
            private: Arc::default(),
        }
    }
}

impl StreamSettings {
    /// Whether a topic goes as it is; so does one of which the name isn't known.
    pub fn is_private(&self, topic: Option<&str>) -> bool {
        !self.private.is_empty() && topic.is_none_or(|topic| self.private.iter().any(|name| matches(name, topic)))
    }

    /// The level to compress at from here on, for so many members.
    pub fn level(&self, members: usize, is_pressed: bool) -> u8 {
        let is_thorough = members >= MEMBERS_THOROUGH && !is_pressed;
        self.level.unwrap_or(if is_thorough { LEVEL_THOROUGH } else { LEVEL_FAST })
    }

    /// Whether a stream of so many members is done without where turns are full for longer. Its sends are few, and what compressing costs them is what is saved
    /// first; who has set the level has decided otherwise.
    pub fn is_for_leisure(&self, members: usize) -> bool {
        self.level.is_none() && members < MEMBERS_FEW
    }

    /// Memory that all streams take at most where there are so many connections, in bytes.
    #[cfg(feature = "cli")]
    pub fn held_at_most(&self, connections: usize) -> usize {
        let thorough = StreamDeflater::held(LEVEL_THOROUGH, self.window_bits);
        let compressor = match self.level {
            None => StreamDeflater::held(LEVEL_FAST, self.window_bits).max(thorough / MEMBERS_THOROUGH),
            Some(level) => StreamDeflater::held(level, self.window_bits),
        };
        let by_members = connections.saturating_mul(compressor + KEPT_EACH);
        by_members.min(self.most.saturating_mul(thorough + self.kept))
    }

    /// Bytes of frames that a stream of so many members keeps.
    fn kept_for(&self, members: usize) -> usize {
        self.kept.min(KEPT_EACH.saturating_mul(members))
    }
}

/// Members from which on a stream is worth it. One is enough: watch lists are of one's own, and compressing a publication for one member costs less
/// than a send does.
pub const MEMBERS_MIN: usize = 1;

/// With 12 bits quotes come to 20 %, with 15 to 18 %, with 9 to 35 %. Python's websockets offers no more than 12.
pub const WINDOW_BITS: u8 = 12;

/// Measured on recorded feeds: 19 to 25 % of the bytes in eight microseconds a message, and 22 to 28 % in two, also where there are hundreds of streams.
const LEVEL_THOROUGH: u8 = 7;
const LEVEL_FAST: u8 = 1;

/// Members from which on eight microseconds a publication, thirty where there are hundreds of streams, are little beside what their sends cost, as are 300 KiB
/// of memory beside theirs.
const MEMBERS_THOROUGH: usize = if cfg!(any(test, fuzzing)) { 4 } else { 32 };

/// Those of fewer members are the first that are done without.
const MEMBERS_FEW: usize = 8;

/// With 64 instead of 256 a tenth more bytes are left.
const ANEW_EVERY: u32 = 256;
const ANEW_LEAST: u32 = 64;

/// Some thousand quotes: a second of a fast market.
const KEPT_BYTES: usize = 256 * 1024;

/// Of that, what a stream keeps for each of its members: those of a few shall not keep for each what those of many keep for all.
const KEPT_EACH: usize = 8 * 1024;

/// A frame of more bytes goes compressed by itself: what is left of one of the stream's that was sent in part is copied for its reader, and compressing one
/// for each stream is not divided.
pub const SHARED_MAX: usize = if cfg!(any(test, fuzzing)) { 4096 } else { 32 * 1024 };

/// What compressing costs, in the units of a worker's work, of ten nanoseconds: a frame, and sixty-four bytes of it, by levels. (Measured with quotes of
/// some 340 bytes.)
const FRAME_COST: u64 = 30;
const LINE_COST: [u64; 10] = [0, 32, 40, 66, 66, 70, 72, 87, 92, 95];

/// What passing over a frame costs, and sixty-four bytes of it, of which no more than a window are taken in: at level 1 they are copied, at the others
/// hashed, and now and then all tables are gone through.
const PASS_COST: [u64; 2] = [30, 300];
const PASS_LINE_COST: [u64; 2] = [1, 20];

/// What a new compressor of this level costs, also where one begins anew at another level.
pub const fn cost_of_new(level: u8) -> u64 {
    if level == LEVEL_FAST { 300 } else { 4000 }
}

/// What it costs to begin anew at the same.
const fn cost_of_clearing(level: u8) -> u64 {
    if level == LEVEL_FAST { 20 } else { 400 }
}

/// What compressing one publication may cost a worker in all of its streams before the others send it compressed by itself: a millisecond, or some 500 streams.
/// With what repeats but in a few bytes at a time, or not at all, it is up to four times as long.
/// That of new streams, and of those that begin anew, is part of it. As much again may be spent on passing it over; beyond that it goes as it is.
pub const ENTRY_COST_MAX: u64 = if cfg!(any(test, fuzzing)) { 5000 } else { 100_000 };

/// What was done, in all streams.
#[derive(Debug, Default)]
pub struct StreamCounts {
    pub opened: Tally,
    /// Frames that were compressed; their bytes before and after.
    pub frames: Tally,
    pub bytes_in: Tally,
    pub bytes_out: Tally,
    /// Publications that went compressed by themselves, since they were large, or wanted by too many streams.
    pub passed: Tally,
    /// Publications that went as they are, since they were small, private or very large, get no shorter, or nobody read the stream.
    pub clear: Tally,
    /// How often one began anew: because it was time, and earlier because somebody waited.
    pub anew_due: Tally,
    pub anew_joined: Tally,
    /// Frames that were let go for want of room.
    pub evicted: Tally,
}

/// See the module's description.
pub struct Stream {
    deflater: StreamDeflater,
    /// Frames since it began anew, with those that were passed over.
    frames: u32,
    kept: VecDeque<One>,
    /// Of the publications from here on, all that came by are kept.
    from: Position,
    /// Those who may read it: it keeps as much as is worth it for so many.
    pub members: usize,
    /// Bytes that those which are kept take.
    bytes: usize,
    #[cfg(debug_assertions)]
    check: check::Check,
}

/// A publication that came by.
struct One {
    position: Position,
    goes: Goes,
}

enum Goes {
    Packed(Box<[u8]>),
    Alone,
    Clear,
}

/// A publication, as those who read the stream are sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept<'s> {
    Frame(&'s [u8]),
    /// Compressed by itself: that frame and no other, since its text has to be in their windows.
    Alone,
    /// As it is on the tape.
    Clear,
}

impl One {
    fn bytes(&self) -> usize {
        size_of::<One>() + if let Goes::Packed(frame) = &self.goes { frame.len() } else { 0 }
    }

    fn kept(&self) -> Kept<'_> {
        match &self.goes {
            Goes::Packed(frame) => Kept::Frame(frame),
            Goes::Alone => Kept::Alone,
            Goes::Clear => Kept::Clear,
        }
    }
}

impl Stream {
    /// A new one, for publications from `from` on.
    pub fn new(settings: &StreamSettings, level: u8, from: Position) -> Stream {
        Stream {
            deflater: StreamDeflater::new(level, settings.window_bits),
            frames: 0,
            kept: VecDeque::new(),
            from,
            members: usize::MAX,
            bytes: 0,
            #[cfg(debug_assertions)]
            check: check::Check::new(settings.window_bits),
        }
    }

    /// Whether it is to begin anew before the next frame, where somebody waits for that or nobody does.
    #[inline]
    pub fn is_to_begin(&self, settings: &StreamSettings, is_waited_for: bool) -> bool {
        self.frames >= settings.anew_every || (is_waited_for && self.frames >= settings.anew_least)
    }

    /// Begins anew: what comes from here on refers to nothing before.
    pub fn begin_anew(&mut self, level: u8) {
        self.frames = 0;
        self.deflater.begin_anew(level);
        #[cfg(debug_assertions)]
        self.check.begin_anew();
    }

    /// What that costs.
    pub fn cost_of_beginning(&self, level: u8) -> u64 {
        if level == self.deflater.level() { cost_of_clearing(level) } else { cost_of_new(level) }
    }

    /// Whether nothing refers back to what came before now.
    pub fn is_fresh(&self) -> bool {
        self.frames == 0
    }

    /// What compressing a frame of so many bytes costs.
    pub fn cost_of(&self, len: usize) -> u64 {
        FRAME_COST + LINE_COST[usize::from(self.deflater.level().min(9))] * (len as u64).div_ceil(64)
    }

    /// Takes in the publication at `at`, which comes behind all others, as it is compressed. Returns the frame's bytes, none if the compressor
    /// failed: then the stream is over.
    pub fn push(
        &mut self,
        settings: &StreamSettings,
        counts: &StreamCounts,
        at: Position,
        clear: &[u8],
    ) -> Option<usize> {
        debug_assert!(clear.len() <= SHARED_MAX && clear.len() >= LEAST, "{} bytes", clear.len());
        let frame = self.deflater.frame(clear)?;
        #[cfg(debug_assertions)]
        self.check.frame(clear, &frame);
        self.frames += 1;
        counts.frames.bump();
        counts.bytes_in.add(clear.len() as u64);
        counts.bytes_out.add(frame.len() as u64);
        let len = frame.len();
        self.keep(settings, counts, One { position: at, goes: Goes::Packed(frame) });
        Some(len)
    }

    /// What passing over a frame of so many bytes costs.
    pub fn cost_of_passing(&self, len: usize) -> u64 {
        let of_level = usize::from(self.deflater.level() > LEVEL_FAST);
        let lines = len.min(1 << self.deflater.window_bits()).div_ceil(64) as u64;
        PASS_COST[of_level] + PASS_LINE_COST[of_level] * lines
    }

    /// Takes in the publication at `at`, which comes behind all others and goes compressed by itself, as `packed`. Returns false if the compressor failed:
    /// then the stream is over.
    #[must_use]
    pub fn pass(
        &mut self,
        settings: &StreamSettings,
        counts: &StreamCounts,
        at: Position,
        (clear, packed): (&[u8], &[u8]),
    ) -> bool {
        if !self.deflater.pass(clear) {
            return false;
        }
        #[cfg(debug_assertions)]
        self.check.frame(clear, packed);
        #[cfg(not(debug_assertions))]
        let _ = packed;
        // Where it can't be afforded to begin anew, it is due for longer.
        self.frames = (self.frames + 1).min(settings.anew_every.max(1));
        counts.passed.bump();
        self.keep(settings, counts, One { position: at, goes: Goes::Alone });
        true
    }

    /// Takes in the publication at `at`, which comes behind all others and goes as it is.
    pub fn push_clear(&mut self, settings: &StreamSettings, counts: &StreamCounts, at: Position) {
        counts.clear.bump();
        self.keep(settings, counts, One { position: at, goes: Goes::Clear });
    }

    fn keep(&mut self, settings: &StreamSettings, counts: &StreamCounts, one: One) {
        debug_assert!(self.kept.back().is_none_or(|last| last.position < one.position), "in the order of the tape");
        self.bytes += one.bytes();
        self.kept.push_back(one);
        let most = settings.kept_for(self.members);
        while self.bytes > most
            && let Some(oldest) = self.kept.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.from = Position(oldest.position.0 + 1);
            counts.evicted.add(u64::from(matches!(oldest.goes, Goes::Packed(_))));
        }
    }

    /// Whether all that came by from `position` on is kept.
    #[inline]
    pub fn is_kept_from(&self, position: Position) -> bool {
        self.from <= position
    }

    /// The publication at `position`, as its readers are sent it; none if it isn't kept, or never came by.
    pub fn find(&self, position: Position) -> Option<Kept<'_>> {
        let at = self.kept.partition_point(|one| one.position < position);
        self.kept.get(at).filter(|one| one.position == position).map(One::kept)
    }

    /// Those from `position` on, in the order of the tape.
    pub fn from(&self, position: Position) -> impl Iterator<Item = (Position, Kept<'_>)> {
        let at = self.kept.partition_point(|one| one.position < position);
        self.kept.range(at..).map(|one| (one.position, one.kept()))
    }

    /// Memory that it takes, in bytes.
    pub fn held(&self) -> usize {
        StreamDeflater::held(self.deflater.level(), self.deflater.window_bits()) + self.bytes
    }

    /// Asserts that what it keeps is in order, counted, and within its bound.
    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub fn invariants(&self, settings: &StreamSettings) {
        assert!(self.kept.iter().is_sorted_by(|a, b| a.position < b.position), "in the order of the tape");
        assert!(self.kept.front().is_none_or(|first| self.from <= first.position), "what is kept is from there on");
        assert_eq!(self.bytes, self.kept.iter().map(One::bytes).sum::<usize>(), "bytes that are kept");
        assert!(self.bytes <= settings.kept, "{} bytes are kept", self.bytes);
        assert!(self.frames <= settings.anew_every.max(1), "{} frames since it began anew", self.frames);
        let is_packed = |one: &One| !matches!(&one.goes, Goes::Packed(frame) if frame[0] & 0x40 == 0);
        assert!(self.kept.iter().all(is_packed), "compressed");
    }
}

/// A frame of fewer bytes is never compressed: there may be nothing in it.
pub const LEAST: usize = 16;

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;

    #[test]
    fn however_connections_are_divided_into_streams_these_take_no_more_than_is_said() {
        for level in [None, Some(1), Some(7)] {
            let settings = StreamSettings { most: 100, level, ..StreamSettings::default() };
            for (streams, members) in
                [(1, 1), (100, 1), (100, MEMBERS_THOROUGH - 1), (100, MEMBERS_THOROUGH), (3, 1000)]
            {
                let compressor = StreamDeflater::held(settings.level(members, false), settings.window_bits);
                let held = streams * (compressor + settings.kept_for(members));
                let said = settings.held_at_most(streams * members);
                assert!(held <= said, "{streams} of {members} at {level:?} take {held}, and {said} was said");
                assert!(said <= 100 * (StreamDeflater::held(7, settings.window_bits) + settings.kept));
            }
        }
    }
}

/// A debug build reads some of its own streams as their readers do.
#[cfg(debug_assertions)]
mod check {
    use flate2::{Decompress, FlushDecompress};

    use crate::websocket::frame::Header;

    /// One in so many stretches between beginnings is read.
    const SAMPLED: u32 = 4;

    pub struct Check {
        inflate: Option<Decompress>,
        window_bits: u8,
        begun: u32,
        out: Vec<u8>,
    }

    impl Check {
        pub fn new(window_bits: u8) -> Check {
            let inflate = Some(Decompress::new_with_window_bits(false, window_bits));
            Check { inflate, window_bits, begun: 0, out: Vec::new() }
        }

        pub fn begin_anew(&mut self) {
            self.begun += 1;
            let is_sampled = self.begun.is_multiple_of(SAMPLED);
            self.inflate = is_sampled.then(|| Decompress::new_with_window_bits(false, self.window_bits));
        }

        pub fn frame(&mut self, clear: &[u8], frame: &[u8]) {
            let Some(inflate) = &mut self.inflate else { return };
            let payload =
                |frame| Header::parse_with(frame, true).ok().flatten().map(|(_, len)| len).unwrap_or_default();
            let (clear, frame) = (&clear[payload(clear)..], &frame[payload(frame)..]);
            self.out.clear();
            for mut rest in [frame, &[0, 0, 0xff, 0xff]] {
                loop {
                    self.out.reserve(clear.len() + 64);
                    let before = inflate.total_in();
                    inflate.decompress_vec(rest, &mut self.out, FlushDecompress::Sync).expect("a stream is deflate");
                    rest = &rest[(inflate.total_in() - before) as usize..];
                    if rest.is_empty() && self.out.len() < self.out.capacity() {
                        break;
                    }
                }
            }
            assert!(self.out == clear, "a frame that reads otherwise than what was compressed");
        }
    }
}
