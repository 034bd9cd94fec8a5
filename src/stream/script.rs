//! Operation scripts on a stream and those who read it, each with an inflater of another make that has seen what it was sent and nothing else.
//! Tests make them at random, the fuzzer where they lead to new code (`fuzz/`).
//!
//! Members stand by themselves here, without a cohort: what makes a member come to the stream and leave it is what this says and the fan
//! keeps (`worker/fan/share.rs`), which the simulation holds it to.

use super::{Kept, LEAST, SHARED_MAX, Stream, StreamCounts, StreamSettings};
use crate::{
    tape::Position,
    websocket::{
        deflate::Deflater,
        frame::{self, Header, Opcode},
    },
};

/// An inflater that knows all compressed messages of its connection.
pub trait Reads {
    /// Of a connection that was agreed to refer back so many bits at most.
    fn new(window_bits: u8) -> Self;

    /// What a message inflates to behind those before it; none if it can't be read.
    fn message(&mut self, message: &[u8]) -> Option<Vec<u8>>;
}

/// What happens; numbers are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A publication: its length, what it is made of, whether it is private, or there is no time to compress it for this stream.
    Publish { len: u16, seed: u8, private: bool, late: bool },
    /// Somebody comes, with everything before sent.
    Join,
    /// Somebody goes.
    Leave(u8),
    /// Somebody is sent what it has not had yet, so many publications at most.
    Read(u8, u8),
    /// Turns are full from here on, or not.
    Press(bool),
    /// The stream ends, and another begins.
    Reopen,
}

struct Member<R> {
    reader: R,
    /// The next publication that it is to be sent.
    next: u64,
    shares: bool,
}

/// A stream, everything that was published, and those who read it.
pub struct Script<R> {
    settings: StreamSettings,
    counts: StreamCounts,
    stream: Stream,
    published: Vec<Vec<u8>>,
    members: Vec<Member<R>>,
    is_pressed: bool,
    /// What compresses publications by themselves.
    alone: Deflater,
    /// Publications that were read from the stream, as they are, and compressed by themselves beside the stream.
    pub read: (u64, u64, u64),
}

impl<R: Reads> Member<R> {
    fn read(&mut self, frame: &[u8], payload: &[u8]) {
        let (_, at) = Header::parse_with(frame, true).expect("it is a header").expect("it is whole");
        let came = self.reader.message(&frame[at..]);
        assert!(came.as_deref() == Some(payload), "publication {} reads otherwise", self.next);
    }
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut clear = vec![0; frame::header_len(payload.len())];
    frame::write_header(&mut clear, true, Opcode::Binary, payload.len());
    clear.extend_from_slice(payload);
    clear
}

const MEMBERS_MAX: usize = 12;

impl<R: Reads> Script<R> {
    /// With bounds that are reached soon.
    pub fn new(window_bits: u8, anew_every: u8, kept: u16) -> Script<R> {
        let anew_every = u32::from(anew_every).max(1);
        let settings = StreamSettings {
            most: 1,
            members_min: 1,
            window_bits: window_bits % 7 + 9,
            level: [None, None, Some(1), Some(7)][usize::from(window_bits / 7 % 4)],
            anew_every,
            anew_least: anew_every / 4,
            kept: kept.into(),
            ..StreamSettings::default()
        };
        let stream = Stream::new(&settings, settings.level(MEMBERS_MAX, false), Position(0));
        Script {
            settings,
            counts: StreamCounts::default(),
            stream,
            published: Vec::new(),
            members: Vec::new(),
            is_pressed: false,
            alone: Deflater::new(6),
            read: (0, 0, 0),
        }
    }

    pub fn take(&mut self, step: Step) {
        match step {
            Step::Publish { len, seed, private, late } => self.publish(len.into(), seed, (private, late)),
            Step::Join if self.members.len() < MEMBERS_MAX => {
                let next = self.published.len() as u64;
                self.members.push(Member { reader: R::new(self.settings.window_bits), next, shares: false });
            }
            Step::Join => {}
            Step::Leave(who) if !self.members.is_empty() => {
                self.members.swap_remove(usize::from(who) % self.members.len());
            }
            Step::Leave(_) => {}
            Step::Read(who, most) => self.send(who.into(), most.into()),
            Step::Press(is_pressed) => self.is_pressed = is_pressed,
            Step::Reopen => {
                let at = Position(self.published.len() as u64);
                self.stream = Stream::new(&self.settings, self.settings.level(self.members.len(), self.is_pressed), at);
            }
        }
        self.stream.invariants(&self.settings);
    }

    fn publish(&mut self, len: usize, seed: u8, (private, late): (bool, bool)) {
        let at = self.published.len() as u64;
        let mut payload = format!("{{\"topic\":\"q.us.{}\",\"seq\":{at},\"data\":", seed % 5).into_bytes();
        let mut random = fastrand::Rng::with_seed(seed.into());
        // Some that repeats, and some that doesn't.
        let is_noise = seed.is_multiple_of(7);
        payload
            .extend((0..len % (SHARED_MAX + 200)).map(|n| if is_noise { random.u8(..) } else { (n % 40) as u8 + 40 }));
        let clear = framed(&payload);
        let waits = self.members.iter().any(|member| !member.shares && member.next == at);
        if clear.len() < LEAST || private {
            self.stream.push_clear(&self.settings, &self.counts, Position(at));
        } else {
            if self.stream.is_to_begin(&self.settings, waits) && !late {
                self.stream.begin_anew(self.settings.level(self.members.len(), self.is_pressed));
            }
            if self.stream.is_fresh() {
                let at_end = self.members.iter_mut().filter(|member| member.next == at);
                at_end.for_each(|member| member.shares = true);
            }
            self.push(Position(at), &clear, late);
        }
        self.published.push(payload);
    }

    fn push(&mut self, at: Position, clear: &[u8], late: bool) {
        let Script { stream, settings, counts, alone, .. } = self;
        if clear.len() <= SHARED_MAX && !late {
            let len = stream.push(settings, counts, at, clear);
            assert!(len.is_some_and(|len| len > 0), "a compressor doesn't fail");
        } else if let Some(packed) = alone.frame(clear) {
            assert!(stream.pass(settings, counts, at, (clear, &packed)), "a compressor doesn't fail");
        } else {
            stream.push_clear(settings, counts, at);
        }
    }

    /// Sends somebody what comes next, from the stream for as long as it can read that.
    fn send(&mut self, who: usize, most: usize) {
        if self.members.is_empty() {
            return;
        }
        let who = who % self.members.len();
        let Script { stream, published, members, read, alone, .. } = self;
        let member = &mut members[who];
        for _ in 0..most {
            let Some(payload) = published.get(member.next as usize) else { return };
            let kept = stream.find(Position(member.next)).filter(|_| member.shares);
            match kept {
                Some(Kept::Frame(frame)) => {
                    member.read(frame, payload);
                    read.0 += 1;
                }
                Some(Kept::Alone) => {
                    // It is the same whenever it is made.
                    let frame = alone.frame(&framed(payload)).expect("it was");
                    member.read(&frame, payload);
                    read.2 += 1;
                }
                Some(Kept::Clear) => read.1 += 1,
                None => {
                    (member.shares, read.1) = (false, read.1 + 1);
                }
            }
            member.next += 1;
        }
    }
}

#[cfg(test)]
pub mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::{seeds, websocket::independent::Context};

    const SCRIPTS: u64 = 300;

    impl Reads for Context {
        fn new(window_bits: u8) -> Context {
            Context::new(window_bits)
        }

        fn message(&mut self, message: &[u8]) -> Option<Vec<u8>> {
            self.message(message)
        }
    }

    fn step(random: &mut fastrand::Rng) -> Step {
        match random.u8(..24) {
            0..9 => {
                let len = if random.u8(..12) == 0 { random.u16(..) } else { random.u16(..300) };
                Step::Publish { len, seed: random.u8(..), private: random.u8(..10) == 0, late: random.u8(..6) == 0 }
            }
            9..11 => Step::Join,
            11 => Step::Leave(random.u8(..)),
            12..22 => Step::Read(random.u8(..), random.u8(..9)),
            22 => Step::Press(random.bool()),
            _ if random.u8(..8) == 0 => Step::Reopen,
            _ => Step::Join,
        }
    }

    #[test]
    fn everybody_reads_what_was_published_whenever_it_came_and_whatever_it_missed() {
        let [by_stream, otherwise, alone] = [(); 3].map(|()| AtomicU64::new(0));
        seeds::try_all(SCRIPTS, |seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            let kept = if random.bool() { 60_000 } else { random.u16(..3000) };
            let mut script = Script::<Context>::new(random.u8(..), random.u8(..40), kept);
            for _ in 0..random.usize(..400) {
                script.take(step(&mut random));
            }
            for who in 0..MEMBERS_MAX {
                script.take(Step::Read(who as u8, 255));
            }
            // Relaxed: sums, which are looked at when all threads are gone.
            by_stream.fetch_add(script.read.0, Ordering::Relaxed);
            otherwise.fetch_add(script.read.1, Ordering::Relaxed);
            alone.fetch_add(script.read.2, Ordering::Relaxed);
        });
        let read = [by_stream, otherwise, alone].map(AtomicU64::into_inner);
        // One script may have little to read.
        let few = seeds::wanted(SCRIPTS) < 40;
        assert!(
            few || (read[0] > 1000 && read[1] > 500 && read[2] > 200),
            "{read:?} by the stream, as they are, and by themselves"
        );
    }

    #[test]
    fn topics_are_kept_out_by_names_and_patterns() {
        let private = ["q.us.*".into(), "orders".into()].into();
        let settings = StreamSettings { private, ..StreamSettings::default() };
        let private = |topic| settings.is_private(topic);
        assert_eq!([Some("q.us.A"), Some("q.us"), Some("orders"), None].map(private), [true, false, true, true]);
        assert!(!StreamSettings::default().is_private(None), "where none is private, none is");
    }
}
