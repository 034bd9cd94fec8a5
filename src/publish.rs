//! Publishing: the one door onto the tape, for connections, HTTP, feeds and embedding programs alike.
//!
//! ```text
//!   holder ─► may it publish there?
//!   payload ► not too large ─► text: is it JSON? ─► escaped, coded, divided, for the lanes that are wanted
//!                                                                            │
//!             ┌─ the tape's lock ────────────────────────────────────────────▼────────────────┐
//!             │ number ─► room ─► frames copied ─► index entry ─► last value ─► what is new can be seen │
//!             └───────────────────────────────────────────────────────────────────────────────┘
//!   whoever publishes wakes the workers that sleep, once for all that it has published
//! ```
//!
//! It never waits for a subscriber, nor for a worker: whoever publishes asks before whether to wait ([`lead`]). What may take long,
//! as a payload is long, is done before the lock, in a buffer of the publishing thread's own; what is done under it stands with the tape's writer.

mod lead;

use std::{cell::Cell, sync::Arc, time::Duration};

pub use self::lead::{HOLD_PAUSE, Lead};

use crate::{
    access::{Key, Standing},
    clock::{self, Moment},
    counted::counted,
    io::waker::Waker,
    lane::{Draft, Wanted},
    limits::{Account, Place, Places},
    metrics::{self, Metrics},
    protocol::{ErrorCode, Payload, Topic},
    slack::{KEPT_BY_THREAD, Slack},
    tape::{About, Appended, Appender, Tape},
    topic::RegistryFull,
};

/// The door. Neither counts nor wakes: that is for whoever publishes.
#[derive(Clone)]
pub struct Door {
    tape: Tape,
    topic_length_max: usize,
    /// Largest payload, in bytes.
    message_max: usize,
    /// Topics that holders with a name have added.
    places: Arc<Places<Arc<Key>>>,
}

/// Who publishes.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// What it may at this moment.
    pub may: Standing<'a>,
    /// What its new topics and their values are charged to; nothing for the server itself, and whom a trusted proxy doesn't name.
    pub account: Option<&'a Arc<Account>>,
    /// Who it is, if it has a name: its new topics are counted for it, too.
    pub holder: Option<&'a Arc<Key>>,
}

impl By<'_> {
    /// The server's own feeds, and the program that it is part of.
    pub const SERVER: By<'static> = By { may: Standing::SERVER, account: None, holder: None };
}

/// Why a publication was refused. Nothing of it was kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Whoever wants to publish may not do it there.
    #[error("you may not publish on {0}")]
    Forbidden(String),
    /// The server is about to stop: its subscribers are being sent away.
    #[error("the server is stopping")]
    Draining,
    /// The topic would be one too many.
    #[error("there {} already {}, as many as --max-topics allows", if *.max == 1 { "is" } else { "are" }, counted(*.max, "topic"))]
    TopicsFull {
        /// The bound.
        max: usize,
    },
    /// The topic would be one too many for the address that publishes.
    #[error("your address has added {}, as many as --max-topics-per-ip allows", counted(*.max, "topic"))]
    AddressFull {
        /// The bound.
        max: usize,
    },
    /// The topic would be one too many for the holder that publishes.
    #[error("you have added {}, as many as --max-topics-per-holder allows", counted(*.max, "topic"))]
    HolderFull {
        /// The bound.
        max: usize,
    },
    /// The payload is larger than `--max-message`.
    #[error("the payload has {}, --max-message allows {max}", counted(*.len, "byte"))]
    TooLarge {
        /// What was given.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The topic's name is not one.
    #[error("{0}")]
    BadTopic(String),
}

impl PublishError {
    /// What a client is told.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            PublishError::Forbidden(_) => ErrorCode::Forbidden,
            PublishError::Draining => ErrorCode::Draining,
            PublishError::TopicsFull { .. } | PublishError::HolderFull { .. } => ErrorCode::TooManyTopics,
            PublishError::AddressFull { .. } => ErrorCode::AddressFull,
            PublishError::TooLarge { .. } => ErrorCode::TooLarge,
            PublishError::BadTopic(_) => ErrorCode::BadTopic,
        }
    }
}

impl From<RegistryFull> for PublishError {
    fn from(full: RegistryFull) -> PublishError {
        match full {
            RegistryFull::Table { max } => PublishError::TopicsFull { max },
            RegistryFull::Address { max } => PublishError::AddressFull { max },
        }
    }
}

thread_local! {
    /// Where this thread encodes what it publishes.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Door {
    /// The door onto a tape, for topics with names of at most so many bytes.
    pub fn new(tape: Tape, topic_length_max: usize) -> Door {
        let message_max = tape.settings().message_max;
        Door { tape, topic_length_max, message_max, places: Arc::new(Places::new(usize::MAX)) }
    }

    /// Publishes one payload.
    ///
    /// # Errors
    /// [`PublishError`]: no right, a bad topic name, one topic too many, or a payload that is too large. Nothing was published.
    pub fn publish(
        &self,
        by: By<'_>,
        topic: &str,
        payload: Payload<'_>,
        about: About,
    ) -> Result<Appended, PublishError> {
        self.admit(by.may, topic, payload)?;
        let mut draft = ready(payload, self.lanes());
        let done = self.tape.appender().append(by.account, topic, &mut draft, about, || self.place(by, topic));
        keep(draft);
        done
    }

    /// The lanes to be written; there may be others by the time that a publication has its number.
    #[inline]
    fn lanes(&self) -> Wanted {
        self.tape.wanted().written()
    }

    /// Asks what can be asked without the lock.
    #[inline]
    fn admit(&self, may: Standing<'_>, topic: &str, payload: Payload<'_>) -> Result<(), PublishError> {
        if !may.may_publish(topic) {
            return Err(PublishError::Forbidden(topic.to_owned()));
        }
        let (len, max) = (payload.bytes().len(), self.message_max);
        if len > max {
            self.check(topic)?;
            return Err(PublishError::TooLarge { len, max });
        }
        Ok(())
    }

    /// Asks whether a topic may be made, and takes its holder's place for it.
    #[cold]
    fn place(&self, by: By<'_>, topic: &str) -> Result<Option<Place>, PublishError> {
        self.check(topic)?;
        let full = |max| PublishError::HolderFull { max };
        by.holder.map(|holder| self.places.take(holder).map_err(full)).transpose()
    }

    #[cold]
    fn check(&self, topic: &str) -> Result<(), PublishError> {
        Topic::check(topic, self.topic_length_max).map_err(|error| PublishError::BadTopic(error.to_string()))
    }
}

/// Does what can be done without the lock, in this thread's buffer if one is needed. (Inlined: else the draft is copied.)
#[inline(always)]
fn ready(payload: Payload<'_>, lanes: Wanted) -> Draft<'_> {
    if !Draft::takes_room(payload, lanes) {
        return Draft::as_it_is(payload, lanes);
    }
    ready_in_buffer(payload, lanes)
}

#[cold]
fn ready_in_buffer(payload: Payload<'_>, lanes: Wanted) -> Draft<'_> {
    let mut draft = Draft::new(payload, BUFFER.take());
    draft.prepare(lanes);
    draft
}

/// Keeps the buffer for the next time.
#[inline]
fn keep(draft: Draft<'_>) {
    let buffer = draft.into_buffer();
    if buffer.capacity() > 0 {
        keep_buffer(buffer);
    }
}

#[cold]
fn keep_buffer(mut buffer: Vec<u8>) {
    buffer.clear();
    buffer.give_back(KEPT_BY_THREAD);
    BUFFER.set(buffer);
}

/// A handle for publishing; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Publisher {
    door: Door,
    wakers: Arc<[Arc<Waker>]>,
    lead: Arc<Lead>,
    metrics: Arc<Metrics>,
    source: Source,
}

/// Who publishes through a handle, for the figures.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// A feed, or the embedding program.
    Own,
    /// A client, over HTTP.
    Http,
}

impl Publisher {
    pub(crate) fn new(
        tape: Tape,
        wakers: Arc<[Arc<Waker>]>,
        metrics: Arc<Metrics>,
        topic_length_max: usize,
        lead_max: usize,
    ) -> Publisher {
        let lead = Arc::new(Lead::new(metrics.workers.len(), lead_max, tape.settings().retain));
        Publisher { door: Door::new(tape, topic_length_max), wakers, lead, metrics, source: Source::Own }
    }

    /// The same handle, whose publications are counted as made over HTTP.
    pub(crate) fn over_http(&self) -> Publisher {
        Publisher { source: Source::Http, ..self.clone() }
    }

    /// The same handle for what is replayed, whose payloads have a bound of their own, in bytes.
    pub(crate) fn for_replay(&self, message_max: usize) -> Publisher {
        let door = Door { message_max, ..self.door.clone() };
        Publisher { door, ..self.clone() }
    }

    /// Counts a line of a recording that was not published as it is.
    pub(crate) fn skip_line(&self, why: metrics::Skipped) {
        self.metrics.skip_line(why);
    }

    /// The door itself, for whoever counts and wakes by itself.
    pub(crate) fn door(&self) -> &Door {
        &self.door
    }

    /// Sets how many topics each holder with a name may add; `usize::MAX` for any number.
    pub(crate) fn set_topics_per_holder(&self, most: usize) {
        self.door.places.set(most);
    }

    /// How far the workers have come, for them to show it.
    pub(crate) fn lead(&self) -> &Lead {
        &self.lead
    }

    /// Whether whoever publishes much should wait, as of `now`.
    pub(crate) fn holds(&self, now: Moment) -> bool {
        self.lead.holds(&self.door.tape, now)
    }

    /// Who has published so many KiB lately, or more, should wait, as of `now`.
    pub(crate) fn allowance(&self, now: Moment) -> f32 {
        self.lead.allowance(&self.door.tape, now)
    }

    /// How far each worker is behind, in bytes of the tape.
    pub(crate) fn behind(&self) -> impl Iterator<Item = u64> {
        self.lead.behind(&self.door.tape)
    }

    /// Notes that whoever publishes by this door was held back for so long.
    pub(crate) fn was_held(&self, door: metrics::Door, length: Duration) {
        self.metrics.held[door].times.bump();
        self.metrics.held[door].us.add(length.as_micros() as u64);
    }

    /// Whether it would be better to wait for a moment before the next publication: a worker is further behind than
    /// `--max-lead`, so that others wait longer, and the tape may come to roll over subscribers that keep up.
    ///
    /// [`Publisher::publish`] and batches never wait by themselves: they may be called from anywhere. Who publishes without end
    /// asks this now and then, every some hundred KiB, and pauses for a millisecond while it says so; feeds, `POST /publish` and
    /// WebSocket clients are held back in the same way. It costs a load for each worker and a look at the clock.
    pub fn should_wait(&self) -> bool {
        self.holds(Moment::now())
    }

    /// Publishes one payload, stamped with the present time, whether or not it [would be better to
    /// wait](Publisher::should_wait).
    ///
    /// # Errors
    /// [`PublishError`]: a bad topic name, one topic too many, or a payload that is too large. Nothing was published.
    pub fn publish(&self, topic: &str, payload: Payload<'_>) -> Result<Appended, PublishError> {
        self.publish_for(By::SERVER, topic, payload, now())
    }

    /// Publishes one payload for a client.
    pub(crate) fn publish_for(
        &self,
        by: By<'_>,
        topic: &str,
        payload: Payload<'_>,
        about: About,
    ) -> Result<Appended, PublishError> {
        let done = self.door.publish(by, topic, payload, about)?;
        self.count(1);
        self.wake();
        Ok(done)
    }

    /// Publishes several payloads, most of them under one lock; subscribers are woken for them when the batch is dropped. Keep
    /// it short: everybody else who publishes waits meanwhile.
    pub fn batch(&self) -> Batch<'_> {
        self.batch_for(By::SERVER)
    }

    /// The same for a client.
    pub(crate) fn batch_for<'p>(&'p self, by: By<'p>) -> Batch<'p> {
        Batch { publisher: self, by, appender: None, held: 0, count: 0 }
    }

    /// Wakes the workers that sleep; those that don't will see the tape's new head by themselves.
    pub(crate) fn wake(&self) {
        for waker in &*self.wakers {
            waker.wake_for_publication();
        }
    }

    /// Wakes the workers that sleep, for something other than a publication.
    pub(crate) fn wake_all(&self) {
        self.wakers.iter().for_each(|waker| waker.wake());
    }

    /// Wakes one of them, if it sleeps.
    pub(crate) fn wake_one(&self, worker: usize) {
        if let Some(waker) = self.wakers.get(worker) {
            waker.wake();
        }
    }

    fn count(&self, publications: u64) {
        match self.source {
            Source::Own => self.metrics.own_publications.add(publications),
            Source::Http => self.metrics.http_publications.add(publications),
        }
    }
}

/// What is to be said of a publication that is made now by no connection.
fn now() -> About {
    About { ts: clock::wall_us(), ..About::default() }
}

/// Publications that are made together.
pub struct Batch<'p> {
    publisher: &'p Publisher,
    by: By<'p>,
    /// The tape's lock, as long as it is held.
    appender: Option<Appender<'p>>,
    /// What was appended since it was taken, in bytes.
    held: usize,
    count: u64,
}

/// After so many bytes, a batch lets others publish: that is some 30 microseconds.
const HELD_MAX: usize = 64 * 1024;

/// What a publication without a payload counts, and what a topic that is made for it counts beside it.
const HELD_BY_ONE: usize = 512;
const HELD_BY_TOPIC: usize = 2048;

impl Batch<'_> {
    /// Adds one payload, stamped with the present time.
    ///
    /// # Errors
    /// As [`Publisher::publish`]; the others of the batch stand.
    pub fn push(&mut self, topic: &str, payload: Payload<'_>) -> Result<Appended, PublishError> {
        self.push_as(topic, payload, now())
    }

    /// Adds one payload.
    pub(crate) fn push_as(
        &mut self,
        topic: &str,
        payload: Payload<'_>,
        about: About,
    ) -> Result<Appended, PublishError> {
        let door = &self.publisher.door;
        door.admit(self.by.may, topic, payload)?;
        let lanes = door.lanes();
        // Nobody waits while this one is encoded.
        if self.held >= HELD_MAX || Draft::takes_time(payload, lanes) {
            self.appender = None;
            self.held = 0;
        }
        let mut draft = ready(payload, lanes);
        let appender = self.appender.get_or_insert_with(|| door.tape.appender());
        let done = appender.append(self.by.account, topic, &mut draft, about, || door.place(self.by, topic));
        keep(draft);
        let done = done?;
        self.held += payload.bytes().len() + HELD_BY_ONE + if done.seq == 1 { HELD_BY_TOPIC } else { 0 };
        self.count += 1;
        Ok(done)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // First let the publications be seen, then wake those who are to see them.
        self.appender = None;
        if self.count > 0 {
            self.publisher.count(self.count);
            self.publisher.wake();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::access::Rules;
    use crate::{
        lane::Lane,
        tape::{Position, TapeSettings},
    };

    fn publisher(message_max: usize) -> Publisher {
        let tape = Tape::new(TapeSettings {
            retain: 8 << 20,
            segment: 1 << 20,
            message_max,
            topics_max: 2,
            value_bytes_max: 1 << 20,
            epoch: 1,
        });
        Publisher::new(tape, Arc::new([]), Arc::new(Metrics::new(1)), 8, 1 << 20)
    }

    /// Whether somebody holds the tape's lock.
    fn is_held(publisher: &Publisher) -> bool {
        publisher.door.tape.try_status().is_none()
    }

    #[test]
    fn what_is_wrong_is_said_and_nothing_of_it_is_kept() {
        let publisher = publisher(3);
        let refused = |topic: &str, text: &str| publisher.publish(topic, Payload::Text(text)).unwrap_err().to_string();
        assert!(refused("a..b", "1").contains("an empty segment at byte 2"));
        assert!(refused("nine.byte", "1").contains("at most 8 bytes, found 9"));
        assert_eq!(refused("a", "1234"), "the payload has 4 bytes, --max-message allows 3");
        assert!(refused("a..b", "1234").contains("an empty segment at byte 2"), "the name is read first");
        for topic in ["a", "b"] {
            publisher.publish(topic, Payload::Text("123")).unwrap();
        }
        assert_eq!(refused("c", "1"), "there are already 2 topics, as many as --max-topics allows");
        let status = publisher.door.tape.status();
        assert_eq!((status.publications, status.topics), (2, 2));
    }

    #[test]
    fn the_time_is_the_callers_and_so_is_waking() {
        let publisher = publisher(3);
        let about = About { ts: 77, ..About::default() };
        let done = publisher.door().publish(By::SERVER, "a", Payload::Text("1"), about).unwrap();
        assert_eq!(done, Appended { position: Position(0), seq: 1, ts: 77 });
        assert_eq!(publisher.metrics.own_publications.get(), 0, "whoever publishes counts");
        let mut batch = publisher.batch();
        assert_eq!(batch.push_as("a", Payload::Text("1"), about).unwrap().position, Position(1));
        drop(batch);
        assert_eq!(publisher.metrics.own_publications.get(), 1);
    }

    #[test]
    fn a_batch_holds_the_lock_for_what_is_ready_and_lets_others_publish_while_it_encodes() {
        let publisher = publisher(9000);
        let tape = publisher.door.tape.clone();
        let mut batch = publisher.batch();
        batch.push("a", Payload::Text("1")).unwrap();
        assert_eq!((tape.head(), is_held(&publisher)), (Position(0), true), "nobody wants to know what it is");
        drop(batch);
        tape.want(Lane::Json);
        let mut batch = publisher.batch();
        batch.push("a", Payload::Json(b"1")).unwrap();
        assert_eq!(tape.head(), Position(1), "it is ready as it is");
        batch.push("a", Payload::Text("1")).unwrap();
        assert_eq!((tape.head(), is_held(&publisher)), (Position(2), true), "what went before can be seen meanwhile");
        drop(batch);
        tape.want(Lane::Events);
        let mut batch = publisher.batch();
        batch.push("a", Payload::Json(b"1")).unwrap();
        batch.push("a", Payload::Json(b"1")).unwrap();
        assert_eq!(tape.head(), Position(3), "a short one of one line is ready");
        batch.push("a", Payload::Json(b"[\r1]")).unwrap();
        assert_eq!((tape.head(), is_held(&publisher)), (Position(5), true), "lines are divided before");
        batch.push("a", Payload::Json(&[b'1'; 5000])).unwrap();
        assert_eq!((tape.head(), is_held(&publisher)), (Position(6), true), "a long one is looked through before");
    }

    #[test]
    fn a_long_batch_lets_others_publish_in_between() {
        let publisher = publisher(1000);
        let mut batch = publisher.batch();
        for n in 1..=2000 {
            batch.push("a", Payload::Json(&[b'1'; 1000])).unwrap();
            let unseen = n - publisher.door.tape.head().0;
            assert!(unseen <= 256, "{unseen} of 1,000 bytes");
        }
    }

    #[test]
    fn who_may_not_publish_leaves_nothing_not_even_the_topic() {
        let publisher = publisher(1000);
        let rules = Rules::default();
        let by = By { may: rules.nobody(), account: None, holder: None };
        let refused = publisher.publish_for(by, "a", Payload::Text("1"), now());
        assert_eq!(refused, Err(PublishError::Forbidden("a".to_owned())));
        assert_eq!(publisher.batch_for(by).push("a", Payload::Text("1")), refused);
        let topics = publisher.door.tape.with_topics(|topics, position| (topics.len(), position));
        assert_eq!(topics, (0, Position(0)));
    }

    #[test]
    fn a_long_text_leaves_no_long_buffer_behind() {
        let publisher = publisher(8 << 20);
        publisher.door.tape.want(Lane::Json);
        publisher.publish("a", Payload::Text(&"\x01".repeat(1 << 20))).unwrap();
        let buffer = BUFFER.take();
        assert!(buffer.capacity() <= KEPT_BY_THREAD, "{}", buffer.capacity());
    }
}
