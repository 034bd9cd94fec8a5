//! Feeds that the server makes or reads itself: the simulated market and the replayed recording.
//!
//! A feed is one thread that publishes like everybody else. It is given a [`Sink`] to publish into, and a channel that it
//! waits on: an empty wait is its pacing, and a message or the channel's end means to stop now. It holds no lock while it
//! reads, parses or makes anything: publications that are due are gathered first, then handed over in one batch. Before it, the feed
//! waits if workers are too far behind; what is late for that is published as soon as it can be.
//!
//! - [`market`]: the simulated market, made from a seed; [`demo`] plays it against the clock, `--demo`;
//! - [`lines`]: the lines of a plain or compressed file, in bounded memory; [`replay`] publishes them at their own
//!   timestamps, `--replay`, when `schedule` says that they are due.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::{
    metrics::{Door, Skipped},
    publication::{Kind, Payload},
    publish::{self, HOLD_PAUSE, Publisher},
};

pub mod demo;
pub mod lines;
pub mod market;
mod outline;
pub mod replay;
mod schedule;

/// Where a feed's publications go.
pub trait Sink: Send + 'static {
    /// What publications are pushed into; whoever subscribes is woken when it is dropped.
    type Batch<'a>: Batch
    where
        Self: 'a;

    /// Begins a batch. Feeds keep it for as long as it takes to push what they have gathered.
    fn batch(&mut self) -> Self::Batch<'_>;

    /// Whether a feed has to wait before the next batch.
    fn holds(&self) -> bool;

    /// It has waited for so long.
    fn held(&self, length: Duration);

    /// A line of a recording is not published as it is.
    fn skipped(&self, why: Skipped);
}

/// Publications that go out together.
pub trait Batch {
    /// Publishes one payload.
    ///
    /// # Errors
    /// The reason why it was refused, as a sentence; the feed counts it and goes on.
    fn push(&mut self, topic: &str, payload: Payload<'_>) -> Result<(), String>;
}

impl Sink for Publisher {
    type Batch<'a> = publish::Batch<'a>;

    fn batch(&mut self) -> publish::Batch<'_> {
        Publisher::batch(self)
    }

    fn holds(&self) -> bool {
        self.should_wait()
    }

    fn held(&self, length: Duration) {
        self.was_held(Door::Feed, length);
    }

    fn skipped(&self, why: Skipped) {
        self.skip_line(why);
    }
}

impl Batch for publish::Batch<'_> {
    fn push(&mut self, topic: &str, payload: Payload<'_>) -> Result<(), String> {
        publish::Batch::push(self, topic, payload).map(|_| ()).map_err(|error| error.to_string())
    }
}

/// What a wait ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The time has come.
    Go,
    /// Stop now.
    Stop,
}

/// Waits until `due`, or until it is time to stop. A time that has passed only looks whether to stop.
fn wait(stop: &Receiver<()>, due: Instant) -> Wait {
    match stop.recv_deadline(due) {
        Err(RecvTimeoutError::Timeout) => Wait::Go,
        Ok(()) | Err(RecvTimeoutError::Disconnected) => Wait::Stop,
    }
}

/// Waits until a batch may be published, or until it is time to stop.
fn wait_for_room(sink: &impl Sink, stop: &Receiver<()>) -> Wait {
    if !sink.holds() {
        return Wait::Go;
    }
    let begun = Instant::now();
    let mut ended = Wait::Go;
    while sink.holds() && ended == Wait::Go {
        ended = wait(stop, Instant::now() + HOLD_PAUSE);
    }
    sink.held(begun.elapsed());
    ended
}

/// Publications that are due, kept in one piece of memory until they are pushed together.
///
/// ```text
///  bytes    topic payload topic payload …
///  entries  (end of topic, end of payload, what it is, tag) …
/// ```
struct Gathered {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

struct Entry {
    topic_end: usize,
    end: usize,
    kind: Kind,
    /// The feed's own name for this publication, for errors.
    tag: u64,
}

impl Gathered {
    /// Bounds how much is gathered, and one payload more; how long others wait is bounded by whoever publishes.
    const ENTRIES_MAX: usize = 512;
    const BYTES_MAX: usize = 256 << 10;

    fn new() -> Self {
        Gathered { bytes: Vec::new(), entries: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= Self::ENTRIES_MAX || self.bytes.len() >= Self::BYTES_MAX
    }

    /// Adds one publication.
    fn add(&mut self, topic: &str, payload: Payload<'_>, tag: u64) {
        self.bytes.extend_from_slice(topic.as_bytes());
        let topic_end = self.bytes.len();
        self.bytes.extend_from_slice(payload.bytes());
        self.entries.push(Entry { topic_end, end: self.bytes.len(), kind: payload.kind(), tag });
    }

    /// Pushes everything in one batch and forgets it; `refused` is told the tag and the reason of each that was refused.
    ///
    /// Returns how many were published, and how many bytes of payload. Those that have none, being too large, are not counted.
    fn push_all(&mut self, sink: &mut impl Sink, mut refused: impl FnMut(u64, String)) -> (u64, u64) {
        if self.is_empty() {
            return (0, 0);
        }
        let (mut published, mut bytes, mut start) = (0, 0, 0);
        let mut reasons = Vec::new();
        let mut batch = sink.batch();
        for entry in &self.entries {
            let topic = std::str::from_utf8(&self.bytes[start..entry.topic_end]).expect("it was added as a str");
            let payload = Payload::from_parts(entry.kind, &self.bytes[entry.topic_end..entry.end]);
            match batch.push(topic, payload) {
                Ok(()) if payload == Payload::TooLarge => {}
                Ok(()) => (published, bytes) = (published + 1, bytes + payload.bytes().len() as u64),
                Err(reason) => reasons.push((entry.tag, reason)),
            }
            start = entry.end;
        }
        drop(batch);
        // Whoever is told may write to a log: never while the batch is held.
        reasons.into_iter().for_each(|(tag, reason)| refused(tag, reason));
        self.bytes.clear();
        self.entries.clear();
        (published, bytes)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;

    /// Remembers every publication and the size of every batch; refuses topics that begin with `refuse`.
    #[derive(Clone, Default)]
    pub(crate) struct Recorder(pub(crate) Arc<Mutex<Record>>);

    #[derive(Default)]
    pub(crate) struct Record {
        pub(crate) published: Vec<(String, String, Instant)>,
        pub(crate) batches: Vec<usize>,
        /// So often it says that a feed has to wait.
        pub(crate) holds: u32,
        /// So often a feed has waited.
        pub(crate) held: u32,
        /// What it was told of lines that were left out.
        pub(crate) skipped: Vec<Skipped>,
    }

    impl Sink for Recorder {
        type Batch<'a> = Recording<'a>;

        fn batch(&mut self) -> Recording<'_> {
            Recording(&self.0, 0)
        }

        fn holds(&self) -> bool {
            let mut record = self.0.lock();
            let holds = record.holds > 0;
            record.holds -= u32::from(holds);
            holds
        }

        fn held(&self, _: Duration) {
            self.0.lock().held += 1;
        }

        fn skipped(&self, why: Skipped) {
            self.0.lock().skipped.push(why);
        }
    }

    pub(crate) struct Recording<'a>(&'a Mutex<Record>, usize);

    impl Batch for Recording<'_> {
        fn push(&mut self, topic: &str, payload: Payload<'_>) -> Result<(), String> {
            if topic.starts_with("refuse") {
                return Err("no room for another topic".into());
            }
            let data = match payload {
                Payload::TooLarge => "too large".to_owned(),
                Payload::Plain(text) => format!("text {text}"),
                Payload::Binary(bytes) => format!("bytes {bytes:?}"),
                payload => String::from_utf8(payload.bytes().to_vec()).unwrap(),
            };
            self.0.lock().published.push((topic.to_owned(), data, Instant::now()));
            self.1 += 1;
            Ok(())
        }
    }

    impl Drop for Recording<'_> {
        fn drop(&mut self) {
            self.0.lock().batches.push(self.1);
        }
    }

    #[test]
    fn a_wait_ends_at_its_time_or_at_once_when_told_to_stop() {
        let soon = Instant::now() + Duration::from_millis(5);
        let late = Instant::now() + Duration::from_secs(3600);
        let (tell, stop) = crossbeam_channel::bounded(1);
        assert_eq!(wait(&stop, soon), Wait::Go);
        assert!(Instant::now() >= soon);
        tell.send(()).unwrap();
        assert_eq!(wait(&stop, late), Wait::Stop);
        drop(tell);
        assert_eq!(wait(&stop, late), Wait::Stop);
    }

    #[test]
    fn whoever_is_held_back_looks_again_until_it_may_go_on_or_is_to_stop() {
        let recorder = Recorder::default();
        let (tell, stop) = crossbeam_channel::bounded(1);
        assert_eq!(wait_for_room(&recorder, &stop), Wait::Go);
        recorder.0.lock().holds = 5;
        assert_eq!(wait_for_room(&recorder, &stop), Wait::Go);
        {
            let mut record = recorder.0.lock();
            assert_eq!((record.holds, record.held), (0, 1));
            record.holds = u32::MAX;
        }
        tell.send(()).unwrap();
        assert_eq!(wait_for_room(&recorder, &stop), Wait::Stop);
    }

    #[test]
    fn gathered_publications_go_out_in_order_in_one_batch() {
        let (mut gathered, mut recorder, mut refused) = (Gathered::new(), Recorder::default(), Vec::new());
        gathered.add("a", Payload::Json(b"1"), 10);
        gathered.add("refuse.b", Payload::Json(b"2"), 11);
        gathered.add("c", Payload::Json(b"\"3\""), 12);
        for (payload, tag) in [(Payload::Plain("3"), 13), (Payload::TooLarge, 14), (Payload::Binary(b"\xff"), 15)] {
            gathered.add("c", payload, tag);
        }
        let sent = gathered.push_all(&mut recorder, |tag, reason| refused.push((tag, reason)));
        assert_eq!(sent, (4, 6));
        assert_eq!(refused, [(11, "no room for another topic".to_owned())]);
        let record = recorder.0.lock();
        let published: Vec<_> = record.published.iter().map(|(topic, data, _)| (&**topic, &**data)).collect();
        let expected = [("a", "1"), ("c", "\"3\""), ("c", "text 3"), ("c", "too large"), ("c", "bytes [255]")];
        assert_eq!(published, expected);
        assert_eq!(record.batches, [5]);
        assert!(gathered.is_empty());
    }
}
