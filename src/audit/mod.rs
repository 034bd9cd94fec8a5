//! Who was there, and what they asked for: lines of JSON in a file that is only appended to (`--audit`).
//!
//! ```text
//!   worker-0 ─┐
//!   worker-1 ─┼─► a bounded queue ─► thread `audit` ─► FILE ─► (full) ─► FILE.1 ─► FILE.2 … ─► gone
//!   control  ─┘        │ no room                          │ no disk
//!                      └► counted, and said in the file   └► said in the log, tried again, the queue fills up
//! ```
//!
//! Whoever notes an event never waits: an event is a value that is put into a queue, or counted as dropped if there is no room. Nobody
//! is woken for it; the thread looks into the queue twenty times a second ([`writer`]). What was dropped is said in the file as
//! soon as it can be written again, so that a gap is seen as one.
//!
//! # What one client can make the others pay
//!
//! The queue has room for `--audit-queue` bytes, over all. An event is as large as what the client has sent, about, which is bounded
//! already. The file has room for `--audit-size` times `--audit-files`, and whoever makes the server write without end would push
//! everybody else's lines out of it: so each address has a share ([`shares`]), `--audit-limit` bytes a second. What is beyond is left
//! out and counted, and the next line of that address says how many. Who came, who went and who is there is never left out: that is
//! bounded by `--max-connects-per-ip` and `--max-connections`.
//!
//! No secret comes here: a token is known by its id and by its holder's name. Of what clients say, control characters are escaped, and what
//! could turn the text around ([`line`]).
//!
//! | file | holds |
//! | --- | --- |
//! | `line` | an event as a line of JSON |
//! | `shares` | how much of the file an address may have |
//! | `file` | the file: appended to, full, gone |
//! | `writer` | the thread |

mod file;
mod line;
mod shares;
#[cfg(all(test, not(loom)))]
mod tests;
mod writer;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

#[cfg(feature = "cli")]
pub(crate) use self::file::inspect;
pub(crate) use self::writer::Writer;
use self::{file::AuditFile, shares::Shares};
use crate::{
    access::{Holder, Revocation},
    config::Config,
    metrics::{Figure, Tally},
};

/// How many bytes of the queue there are for one event. Most have no names, and need less.
const EVENT_BYTES: u64 = 512;

/// Bytes of what is said of a refusal or an end.
const TEXT_MAX: usize = 512;

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Microseconds since the Unix epoch.
    pub ts: u64,
    /// The connection's number; 0 for a request over plain HTTP.
    pub conn: u64,
    /// Who is at its other end.
    pub address: SocketAddr,
    /// Who that has shown to be.
    pub holder: Holder,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A WebSocket, or a stream of events, was opened.
    Connect {
        /// `ws`, `raw` or `sse`.
        door: &'static str,
        /// It came by TLS.
        tls: bool,
    },
    /// Another token was shown on a connection, and counts from now on.
    Auth,
    /// A subscription was made, or changed.
    Subscribe {
        /// Its topics and patterns.
        names: Vec<Arc<str>>,
        /// How they are delivered.
        mode: &'static str,
        /// Messages a second at most, if that was asked for.
        rate: Option<f64>,
    },
    /// Topics and patterns that it was subscribed to and is no longer.
    Unsubscribe {
        /// Those.
        names: Vec<Arc<str>>,
    },
    /// Values were looked at over plain HTTP.
    Read {
        /// `poll`, `history` or `topics`.
        door: &'static str,
        /// Of these topics and patterns.
        names: Vec<Arc<str>>,
    },
    /// Something was asked for, and refused.
    Refused {
        /// The word for it, as in the metric of refusals, or the code of an error.
        why: &'static str,
        /// What the client was told.
        message: String,
    },
    /// Somebody was revoked, by whoever this is of.
    Revoked {
        /// Whom, and until when.
        one: Box<Revocation>,
    },
    /// A connection ended.
    End {
        /// Its close code; 1006 where none was seen.
        code: u16,
        /// What was said about it.
        reason: String,
        /// What there was of it.
        been: Been,
    },
    /// A connection is there still.
    Here {
        /// What there was of it so far.
        been: Been,
        /// How many topics and patterns it is subscribed to.
        subscriptions: usize,
    },
}

/// What there was of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Been {
    /// For how long it has been open.
    pub seconds: u64,
    /// Bytes that the client's TCP has acknowledged, with what encryption adds.
    pub bytes: u64,
    /// Bytes behind those, which it may have and may not.
    pub unacked: u64,
    /// Bytes that have come from the client: what it has published, with the commands and frames around it, and what encryption adds.
    pub received: u64,
}

impl Event {
    /// What it takes of the queue.
    fn bytes(&self) -> u64 {
        let names = |names: &[Arc<str>]| names.iter().map(|name| name.len() + size_of::<Arc<str>>()).sum::<usize>();
        let beside = match &self.what {
            What::Subscribe { names: all, .. } | What::Unsubscribe { names: all } | What::Read { names: all, .. } => {
                names(all)
            }
            What::Refused { message: text, .. } | What::End { reason: text, .. } => text.len(),
            What::Revoked { one } => one.line().len(),
            What::Connect { .. } | What::Auth | What::Here { .. } => 0,
        };
        (size_of::<Event>() + beside) as u64
    }

    /// Whether it may be left out, where its address has had its share.
    fn may_be_left_out(&self) -> bool {
        !matches!(
            self.what,
            What::Connect { .. } | What::Auth | What::Revoked { .. } | What::End { .. } | What::Here { .. }
        )
    }
}

/// As much of a text as goes into a line.
pub(crate) fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_MAX)].to_owned()
}

/// What events are noted with, by any thread. Where there is no `--audit`, nothing is.
#[derive(Clone, Default)]
pub(crate) struct Audit(Option<Arc<Trail>>);

/// What the threads share that note events, and the one that writes them.
struct Trail {
    sender: Sender<Event>,
    /// Bytes of the queue that are taken.
    queued: AtomicU64,
    queue_max: u64,
    /// The file is to be opened anew.
    reopens: AtomicBool,
    /// The settings that can change.
    live: Bounds,
    dropped: Tally,
    /// What only the writer counts.
    lines: Figure,
    left_out: Figure,
    failures: Figure,
    /// 1 while the file takes what comes, 0 while it doesn't.
    is_writing: Figure,
}

/// The bounds of the file.
#[derive(Debug, Default)]
struct Bounds {
    /// Bytes a second of one address; 0 for any.
    limit: AtomicU64,
    /// Bytes of a file; 0 for any.
    size: AtomicU64,
    /// Files beside it.
    files: AtomicU64,
}

impl Bounds {
    fn set(&self, config: &Config) {
        // Relaxed, here and where they are read: each stands for itself.
        self.limit.store(config.audit_limit.as_u64(), Ordering::Relaxed);
        self.size.store(config.audit_size.as_u64(), Ordering::Relaxed);
        self.files.store(config.audit_files as u64, Ordering::Relaxed);
    }
}

/// What is counted of the audit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Lines written.
    pub lines: u64,
    /// Events that there was no room for.
    pub dropped: u64,
    /// Lines that were beyond the share of their address.
    pub left_out: u64,
    /// How often the file could not be written.
    pub failures: u64,
    /// Whether it can be now.
    pub is_writing: bool,
    /// Bytes that wait.
    pub queued: u64,
    /// Bytes that may.
    pub queue_max: u64,
}

/// The file can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("--audit {}: {cause}", path.display())]
pub struct AuditError {
    /// The file.
    pub path: PathBuf,
    /// What the system says, or what was expected and what was found.
    pub cause: io::Error,
}

impl Audit {
    /// Opens the file that the settings name; what writes it is to run in a thread of its own. None if they name none.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn open(config: &Config) -> Result<Option<(Audit, Writer)>, AuditError> {
        let Some(path) = &config.audit else { return Ok(None) };
        let file = AuditFile::open(path).map_err(|cause| AuditError { path: path.clone(), cause })?;
        let (trail, queue) = Trail::new(config);
        let writer = Writer::new(Arc::clone(&trail), queue, file, Shares::new(config.ipv6_prefix));
        Ok(Some((Audit(Some(trail)), writer)))
    }

    /// One whose events nobody writes: they are to be looked at.
    #[cfg(test)]
    pub fn watched() -> (Audit, Receiver<Event>) {
        let (trail, queue) = Trail::new(&Config::default());
        (Audit(Some(trail)), queue)
    }

    /// Whether anything is noted.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Notes what `event` makes, if anything is noted. Never waits: an event that there is no room for is counted, and dropped.
    #[inline]
    pub fn note(&self, event: impl FnOnce() -> Event) {
        if let Some(trail) = &self.0 {
            trail.put(event());
        }
    }

    /// Takes over those settings that can change.
    pub fn set(&self, config: &Config) {
        if let Some(trail) = &self.0 {
            trail.live.set(config);
        }
    }

    /// Opens the file anew by its name: it may have been moved.
    pub fn reopen(&self) {
        if let Some(trail) = &self.0 {
            // Relaxed: it is seen at the writer's next look, and nothing goes with it.
            trail.reopens.store(true, Ordering::Relaxed);
        }
    }

    /// What is counted; none if nothing is noted.
    pub fn figures(&self) -> Option<Figures> {
        self.0.as_ref().map(|trail| Figures {
            lines: trail.lines.get(),
            dropped: trail.dropped.get(),
            left_out: trail.left_out.get(),
            failures: trail.failures.get(),
            is_writing: trail.is_writing.get() == 1,
            queued: trail.queued.load(Ordering::Relaxed),
            queue_max: trail.queue_max,
        })
    }
}

impl Trail {
    /// With a queue of its own.
    fn new(config: &Config) -> (Arc<Trail>, Receiver<Event>) {
        let queue_max = config.audit_queue.as_u64();
        // A queue of so many places takes no more memory before it is used.
        let (sender, queue) = bounded(usize::try_from(queue_max / EVENT_BYTES).unwrap_or(usize::MAX).max(1));
        let trail = Arc::new(Trail {
            sender,
            queued: AtomicU64::new(0),
            queue_max,
            reopens: AtomicBool::new(false),
            live: Bounds::default(),
            dropped: Tally::default(),
            lines: Figure::default(),
            left_out: Figure::default(),
            failures: Figure::default(),
            is_writing: Figure::default(),
        });
        trail.live.set(config);
        trail.is_writing.set(1);
        (trail, queue)
    }

    fn put(&self, event: Event) {
        let bytes = event.bytes();
        // Relaxed, here and where it is taken back: it is a count, and what goes with an event goes through the queue.
        let before = self.queued.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.queue_max {
            return self.drop_one(bytes);
        }
        match self.sender.try_send(event) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.drop_one(bytes),
        }
    }

    fn drop_one(&self, bytes: u64) {
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
        self.dropped.bump();
    }
}
