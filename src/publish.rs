//! Publishing: the one way onto the tape, for connections, HTTP, feeds and embedding programs alike.
//!
//! To publish is to append under the tape's short lock, and then to wake the workers that sleep. It never waits for a
//! subscriber.

use std::sync::Arc;

use crate::{
    clock,
    io::waker::Waker,
    limits::Account,
    metrics::Metrics,
    protocol::{ErrorCode, Payload, Topic},
    tape::{Appended, Appender, PublishError, Tape},
};

/// A handle for publishing; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Publisher {
    tape: Tape,
    wakers: Arc<[Arc<Waker>]>,
    metrics: Arc<Metrics>,
    topic_length_max: usize,
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
    ) -> Publisher {
        Publisher { tape, wakers, metrics, topic_length_max, source: Source::Own }
    }

    /// The same handle, whose publications are counted as made over HTTP.
    pub(crate) fn over_http(&self) -> Publisher {
        Publisher { source: Source::Http, ..self.clone() }
    }

    /// Publishes one payload, stamped with the present time.
    ///
    /// # Errors
    /// [`PublishError`]: a bad topic name, one topic too many, or a payload that is too large. Nothing was published.
    pub fn publish(&self, topic: &str, payload: Payload<'_>) -> Result<Appended, PublishError> {
        let done = self.append(&mut self.tape.appender(), topic, payload)?;
        self.count(1);
        self.wake();
        Ok(done)
    }

    /// Publishes several payloads under one lock; subscribers see them when the batch is dropped. Keep it short:
    /// everybody else who publishes waits meanwhile.
    pub fn batch(&self) -> Batch<'_> {
        self.batch_of(None)
    }

    /// The same, charged to the account of the client that publishes.
    pub(crate) fn batch_of<'p>(&'p self, account: Option<&'p Arc<Account>>) -> Batch<'p> {
        Batch { publisher: self, appender: Some(self.tape.appender().charging(account)), count: 0 }
    }

    /// Wakes the workers that sleep; those that don't will see the tape's new head by themselves.
    pub(crate) fn wake(&self) {
        for waker in &*self.wakers {
            waker.wake_for_publication();
        }
    }

    fn count(&self, publications: u64) {
        match self.source {
            Source::Own => self.metrics.own_publications.add(publications),
            Source::Http => self.metrics.http_publications.add(publications),
        }
    }

    fn append(&self, appender: &mut Appender<'_>, topic: &str, payload: Payload<'_>) -> Result<Appended, PublishError> {
        Topic::check(topic, self.topic_length_max).map_err(|error| PublishError::BadTopic(error.to_string()))?;
        appender.append(topic, payload, clock::wall_us(), 0)
    }
}

/// Publications that are made together.
pub struct Batch<'p> {
    publisher: &'p Publisher,
    appender: Option<Appender<'p>>,
    count: u64,
}

impl Batch<'_> {
    /// Adds one payload.
    ///
    /// # Errors
    /// As [`Publisher::publish`]; the others of the batch stand.
    pub fn push(&mut self, topic: &str, payload: Payload<'_>) -> Result<Appended, PublishError> {
        let appender = self.appender.as_mut().expect("it is there until the drop");
        let done = self.publisher.append(appender, topic, payload)?;
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

impl PublishError {
    /// What a client is told.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            PublishError::TopicsFull { .. } => ErrorCode::TooManyTopics,
            PublishError::AddressFull { .. } => ErrorCode::AddressFull,
            PublishError::TooLarge { .. } => ErrorCode::TooLarge,
            PublishError::BadTopic(_) => ErrorCode::BadTopic,
        }
    }
}
