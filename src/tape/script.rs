//! Operation scripts on the tape, with a plain list of what was published beside it. Property tests make them at random
//! (`tests.rs`), the fuzzer where they lead to new code (`fuzz/`).

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    lane::{LANES, Lane},
    protocol::cursor::Word,
    publication::{Epoch, Flags, Kind, Payload},
    publish::{By, Door, PublishError},
};

pub const NAMES: [&str; 5] = ["q.a", "q.b", "t.a", "t.b", "x"];
pub const MESSAGE_MAX: usize = 3000;

#[derive(Clone, Debug)]
pub enum Step {
    Publish {
        topic: usize,
        kind: u8,
        len: usize,
    },
    /// One subscriber more or less for a lane.
    Want(Lane),
    Unwant(Lane),
    /// The reader catches up and everything is compared.
    Read,
    /// Another reader pins what there is, after what it pinned before has been looked at again; or lets go of it.
    Hold(bool),
    Forget {
        age: u64,
        used: usize,
    },
    Changed {
        back: u64,
    },
}

struct Published {
    name: &'static str,
    id: crate::topic::TopicId,
    epoch: Epoch,
    seq: u64,
    kind: Kind,
    bytes: Vec<u8>,
    /// Whether it has to be in each lane.
    lanes: [bool; LANES],
}

/// The list, and the tape that it is compared with.
pub struct Twin {
    pub(super) tape: Tape,
    door: Door,
    pub(super) reader: Reader,
    holder: Reader,
    /// What the other reader has pinned, and what it was when it did.
    held: Vec<(Lane, Run, Vec<u8>)>,
    retain: usize,
    all: Vec<Published>,
    seqs: BTreeMap<&'static str, u64>,
    wanted: [u32; LANES],
}

impl Twin {
    pub fn new(segment: usize, retain: usize) -> Twin {
        let settings = TapeSettings {
            retain,
            segment,
            message_max: MESSAGE_MAX,
            topics_max: NAMES.len(),
            value_bytes_max: 1 << 20,
            epoch: 1,
        };
        let tape = Tape::new(settings);
        let reader = Reader::new(tape.clone());
        let holder = Reader::new(tape.clone());
        Twin {
            door: Door::new(tape.clone(), 128),
            tape,
            reader,
            holder,
            held: Vec::new(),
            retain,
            all: Vec::new(),
            seqs: BTreeMap::new(),
            wanted: [0; LANES],
        }
    }

    pub fn take(&mut self, step: Step) {
        match step {
            Step::Publish { topic, kind, len } => self.publish(NAMES[topic], kind, len),
            Step::Want(lane) => {
                assert_eq!(self.tape.want(lane).0, self.all.len() as u64);
                self.wanted[lane as usize] += 1;
            }
            Step::Unwant(lane) if self.wanted[lane as usize] > 0 => {
                self.tape.unwant(lane);
                self.wanted[lane as usize] -= 1;
            }
            Step::Unwant(_) => {}
            Step::Read => self.compare(),
            Step::Hold(on) => self.hold(on),
            Step::Forget { age, used } => self.forget(age, NAMES[used]),
            Step::Changed { back } => self.changed(back),
        }
        let status = self.tape.status();
        assert!(status.bytes <= self.retain || status.segments == 1, "{status:?}");
        assert_eq!(status.publications, self.all.len() as u64);
        assert_eq!(status.publications - status.retained, self.tape.tail().0);
        assert_eq!(status.topics, self.seqs.len());
    }

    /// The last comparison.
    pub fn end(mut self) {
        self.hold(false);
        self.compare();
    }

    pub fn publish(&mut self, name: &'static str, kind: u8, len: usize) {
        let kind = [Kind::Json, Kind::Text, Kind::Binary, Kind::Plain, Kind::TooLarge][usize::from(kind)];
        // Quotes and control characters grow to up to six bytes in the envelope.
        let bytes = match kind {
            Kind::Json | Kind::Plain => vec![b'7'; len.max(1)],
            Kind::Text => b"\x01a\"".iter().copied().cycle().take(len).collect(),
            Kind::Binary => vec![0xff; len],
            Kind::TooLarge => Vec::new(),
        };
        let ts = self.all.len() as u64;
        let payload = Payload::from_parts(kind, &bytes);
        let about = About { ts, origin: 9, flags: Flags(ts as u8) };
        if bytes.len() > MESSAGE_MAX {
            let refused = PublishError::TooLarge { len: bytes.len(), max: MESSAGE_MAX };
            return assert_eq!(self.door.publish(By::SERVER, name, payload, about), Err(refused));
        }
        let done = self.door.publish(By::SERVER, name, payload, about).unwrap();
        let seq = self.seqs.entry(name).or_default();
        *seq += 1;
        assert_eq!((done.position, done.seq, done.ts), (Position(ts), *seq, ts));
        let of = |topic: &crate::topic::Topic| (topic.id, topic.epoch);
        let (id, epoch) = self.tape.with_topics(|topics, _| of(topics.find(name).unwrap()));
        let [json, raw, events] = self.wanted.map(|count| count > 0);
        let lanes = [json, (raw || !json) && kind != Kind::TooLarge, events];
        self.all.push(Published { name, id, epoch, seq: *seq, kind, bytes, lanes });
    }

    /// Every publication held reads back in every lane that was wanted, alone and merged with its neighbours.
    fn compare(&mut self) {
        let head = self.reader.refresh();
        self.reader.trim();
        let floor = self.reader.floor();
        assert_eq!((head.0, floor), (self.all.len() as u64, self.tape.tail()));
        let mut next = floor.0;
        let mut merged: [Vec<Run>; LANES] = Default::default();
        let mut alone: [Vec<u8>; LANES] = Default::default();
        let mut before: Vec<[usize; LANES]> = Vec::new();
        self.reader.scan(floor, head, |entry| {
            let at = entry.position;
            assert_eq!(at.0, next);
            next += 1;
            before.push(std::array::from_fn(|lane| alone[lane].len()));
            let published = &self.all[at.0 as usize];
            assert_eq!(entry.topic, published.id);
            assert_eq!((entry.seq, entry.ts, entry.origin), (published.seq, at.0, 9));
            // A lane that had to know whether it is JSON has settled it.
            let kind = if entry.kind == Kind::Plain { Kind::Plain } else { published.kind };
            assert!(entry.kind == published.kind || published.kind == Kind::Text);
            assert_eq!((entry.kind, entry.flags), (kind, Flags(at.0 as u8)));
            assert_eq!(Lane::ALL.map(|lane| entry.is_in(lane)), published.lanes);
            let before = self.all[..at.0 as usize].iter().rposition(|other| other.id == published.id);
            assert_eq!(entry.previous, before.map_or(0, |before| before as u64 + 1));
            for (lane, which) in Lane::ALL.into_iter().enumerate() {
                if published.lanes[lane] {
                    let run = entry.run(which);
                    let frame = self.reader.bytes(which, run);
                    check_frame(frame, which, published, at.0, self.tape.words().word(at.0 + 1));
                    alone[lane].extend_from_slice(frame);
                    merge(&mut merged[lane], run);
                }
            }
            true
        });
        assert_eq!(next, head.0);
        for (lane, which) in Lane::ALL.into_iter().enumerate() {
            let together: Vec<u8> =
                merged[lane].iter().flat_map(|run| self.reader.bytes(which, *run)).copied().collect();
            assert!(together == alone[lane]);
            for (at, before) in (floor.0..).zip(&before) {
                let left = alone[lane].len() - before[lane];
                assert_eq!(self.reader.bytes_from(which, Position(at)), left as u64);
            }
            assert_eq!(self.reader.bytes_from(which, head), 0);
        }
        // Every number of every topic has a place near it, as long as it is on the tape.
        for (at, published) in self.all.iter().enumerate().skip(floor.0 as usize) {
            let near = |topics: &crate::topic::Registry| topics.find(published.name)?.near(published.seq);
            let Some(near) = self.tape.with_topics(|topics, _| near(topics)) else { continue };
            let between = self.all[at..=near as usize].iter().filter(|other| other.id == published.id).count();
            assert!((1..=16).contains(&between) || self.all[near as usize].id != published.id, "{between}");
        }
        // A scan may begin and end anywhere.
        let middle = Position((floor.0 + head.0) / 2);
        assert_eq!(self.reader.scan(middle, head, |entry| entry.ts == entry.position.0), head);
        assert_eq!(self.reader.scan(floor, middle, |entry| entry.position < middle), middle);
    }

    /// Whatever was written since, pinned bytes are what they were.
    fn hold(&mut self, on: bool) {
        for (lane, run, bytes) in self.held.drain(..) {
            assert!(self.holder.bytes(lane, run) == bytes, "{lane:?} {run:?}");
        }
        self.holder.detach();
        if !on {
            return;
        }
        let head = self.holder.refresh();
        self.holder.scan(self.holder.floor(), head, |entry| {
            for lane in Lane::ALL.into_iter().filter(|lane| entry.is_in(*lane)) {
                let run = entry.run(lane);
                self.held.push((lane, run, self.holder.bytes(lane, run).to_vec()));
            }
            true
        });
    }

    fn forget(&mut self, age: u64, used: &str) {
        let before = (self.all.len() as u64).saturating_sub(age);
        let tail = self.tape.tail().0;
        let mut gone = Vec::new();
        for &name in self.seqs.keys() {
            let last = self.all.iter().rposition(|published| published.name == name).unwrap() as u64;
            if last < before && last < tail && name != used {
                gone.push(name);
            }
        }
        let all = 0..self.tape.with_topics(|topics, _| topics.slots());
        let forgotten = self.tape.forget_topics(all, |topic, held| {
            assert_eq!(held, topic.end > tail);
            !held && topic.ts < before && &*topic.name != used
        });
        assert_eq!(forgotten, gone.len(), "{gone:?}");
        for name in gone {
            self.seqs.remove(name);
            assert!(self.tape.with_topics(|topics, _| topics.find(name).is_none()));
        }
    }

    fn changed(&mut self, back: u64) {
        let since = (self.all.len() as u64).saturating_sub(back);
        let expected: BTreeSet<u32> = if since < self.tape.tail().0 {
            (0..self.tape.with_topics(|topics, _| topics.slots())).collect()
        } else {
            self.all[since as usize..].iter().map(|published| published.id.slot).collect()
        };
        let most = if since < self.tape.tail().0 { expected.len() } else { self.all.len() - since as usize };
        let slots = |most| {
            self.tape.with_changed(Position(since), most, |_, slots, position| {
                assert_eq!(position.0, self.all.len() as u64);
                slots
            })
        };
        assert_eq!(slots(most), Some(Vec::from_iter(expected)));
        assert!(most == 0 || slots(most - 1).is_none(), "more have changed than it is to be");
    }
}

fn merge(runs: &mut Vec<Run>, run: Run) {
    if !runs.last_mut().is_some_and(|last| last.extend(run)) {
        runs.push(run);
    }
}

fn check_frame(frame: &[u8], lane: Lane, published: &Published, ts: u64, id: Word) {
    if lane == Lane::Events {
        let event = std::str::from_utf8(frame).unwrap();
        let json = event.strip_prefix(&format!("id: {}\ndata: ", id.as_str())).unwrap();
        return check_update(json.strip_suffix("\n\n").unwrap().as_bytes(), published, ts);
    }
    let (len, header) = match frame[1] {
        126 => (usize::from(u16::from_be_bytes([frame[2], frame[3]])), 4),
        127 => panic!("none is that long"),
        len => (usize::from(len), 2),
    };
    let body = &frame[header..];
    assert_eq!(body.len(), len);
    if lane == Lane::Raw {
        assert_eq!(frame[0], if published.kind == Kind::Binary { 0x82 } else { 0x81 });
        return assert!(body == published.bytes);
    }
    assert_eq!(frame[0], 0x81);
    check_update(body, published, ts);
}

fn check_update(body: &[u8], published: &Published, ts: u64) {
    let (topic, seq) = (published.name, published.seq);
    let epoch = if seq == 1 { format!(r#""epoch":"{}","#, published.epoch) } else { String::new() };
    if published.kind == Kind::TooLarge {
        let told = format!(r#"{{"type":"skip","topic":"{topic}",{epoch}"from":{seq},"to":{seq},"why":"too_large"}}"#);
        return assert_eq!(std::str::from_utf8(body), Ok(&*told));
    }
    let front = format!(r#"{{"type":"update","topic":"{topic}",{epoch}"seq":{seq},"ts":{ts},"#);
    assert!(body.starts_with(front.as_bytes()), "{}", String::from_utf8_lossy(body));
    let key: &[u8] = if published.kind == Kind::Binary { b"\"base64\":" } else { b"\"data\":" };
    let value = body[front.len()..].strip_prefix(key).unwrap().strip_suffix(b"}").unwrap();
    if published.kind == Kind::Json {
        assert!(value == published.bytes);
    } else {
        assert!(value.starts_with(b"\"") && value.ends_with(b"\""));
    }
}
