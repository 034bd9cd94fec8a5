//! One subscriber's connection: how far it is, and what it has received.

use std::sync::Arc;

use crate::{
    dialect::{Gaps, Waiting},
    inflate::Context,
    ledger::Ledger,
    line::Line,
    message::Assembly,
    tls::Ticket,
    watchlist::WatchList,
};

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not begun.
    Idle,
    /// TCP is connecting.
    Connecting,
    /// TLS is being set up.
    Securing,
    /// The handshake of the WebSocket, with this key, is under way.
    Upgrading([u8; 16]),
    /// The subscription is sent and not yet acknowledged.
    Subscribing,
    /// It receives.
    Live,
    /// It could not be set up, or was ended.
    Over,
}

/// A subscriber.
pub struct Connection {
    /// Its number, over all threads and parts.
    pub nth: usize,
    /// How far it is.
    pub stage: Stage,
    /// The socket, once there is one.
    pub line: Option<Arc<Line>>,
    /// One of those that are disturbed: its deliveries are checked and not measured.
    pub disturbed: bool,
    /// It left and came back: what it missed meanwhile is no loss.
    pub returned: bool,
    /// Not read from while the disturbance lasts.
    pub stalled: bool,
    /// Its topics.
    pub topics: WatchList,
    /// Which publications on them it may never be sent: it is content with newest values, or isn't.
    pub gaps: Gaps,
    /// What it waits for, while it is subscribing by steps.
    pub waiting: Waiting,
    /// When setting it up was due, on the monotonic clock.
    pub begun: u64,
    /// When it reached its stage, while it is being set up.
    pub reached: u64,
    /// What resumes its TLS session when it comes back; none where sessions are not resumed.
    pub ticket: Option<Arc<Ticket>>,
    /// What it has received.
    pub ledger: Ledger,
    /// The beginning of a frame whose rest has not come.
    pub partial: Vec<u8>,
    /// How long that frame is, as far as known.
    pub needs: usize,
    /// The message whose last fragment has not come.
    pub assembly: Assembly,
    /// Its compressed messages so far, where one may refer to those before it.
    pub context: Option<Box<Context>>,
    /// When the server handed over what comes, on the monotonic clock, where it tells; else 0.
    pub handed: u64,
    /// Why the server ended it, or why it has to be ended.
    pub ended: Option<String>,
}

impl Connection {
    /// A connection not yet begun, to `topics`, of which nothing was seen.
    pub fn new(nth: usize, topics: WatchList, gaps: Gaps, disturbed: bool) -> Self {
        let ledger = if gaps == Gaps::Never { Ledger::new(topics.len()) } else { Ledger::of_newest(topics.len()) };
        Self {
            nth,
            stage: Stage::Idle,
            line: None,
            disturbed,
            returned: false,
            stalled: false,
            topics,
            gaps,
            waiting: Waiting::default(),
            begun: 0,
            reached: 0,
            ticket: None,
            ledger,
            partial: Vec::new(),
            needs: 0,
            assembly: Assembly::default(),
            context: None,
            handed: 0,
            ended: None,
        }
    }

    /// Whether it is being set up.
    pub fn is_opening(&self) -> bool {
        matches!(self.stage, Stage::Connecting | Stage::Securing | Stage::Upgrading(_) | Stage::Subscribing)
    }

    /// Closes its side with this code.
    pub fn say_goodbye(&self, code: u16) {
        if let Some(line) = &self.line {
            // On a line that is broken there is nobody to say it to.
            let _ = line.write_close(code);
        }
    }

    /// Drops the socket and everything half received.
    pub fn hang_up(&mut self, stage: Stage) {
        self.line = None;
        self.stage = stage;
        self.partial = Vec::new();
        self.assembly = Assembly::default();
        self.needs = 0;
        self.handed = 0;
    }
}
