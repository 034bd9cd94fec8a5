//! What all parts of a worker stand on and none of them owns: the kernel's edge, the tape, the settings, the clock, the counts.
//!
//! The parts are given it for as long as a step takes. Nothing here knows of any part.

use std::{ops::Deref, sync::Arc, time::Duration};

use super::work::{Step, Work};
use crate::{
    clock::Moment,
    io::Edge,
    metrics::WorkerMetrics,
    packs::Packer,
    protocol::command,
    shared::{Settings, Shared},
    tape::{Reader, Tape},
};

/// How often figures that cost a look at every connection are brought up to date.
pub const SURVEY_EVERY: Duration = Duration::from_millis(250);

/// See the module's description.
pub struct Ground<E: Edge> {
    /// The worker's number.
    pub index: usize,
    pub shared: Arc<Shared>,
    /// As they are in this turn.
    pub settings: Arc<Settings>,
    pub edge: E,
    pub tape: Tape,
    pub reader: Reader,
    /// The way to compressed frames.
    pub packer: Packer,
    /// What the worker counts.
    pub metrics: Counts,
    /// What this turn has cost.
    pub work: Work,
    /// The moment of this turn.
    pub now: Moment,
}

/// A worker's own metrics.
pub struct Counts {
    shared: Arc<Shared>,
    index: usize,
}

impl<E: Edge> Ground<E> {
    pub fn new(index: usize, shared: Arc<Shared>, tape: Tape, edge: E) -> Ground<E> {
        Ground {
            index,
            settings: shared.settings.get(),
            packer: Packer::with_streams(Arc::clone(&shared.packs), shared.streams_of(index)),
            metrics: Counts { shared: Arc::clone(&shared), index },
            shared,
            work: Work::new(),
            now: edge.now(),
            edge,
            reader: Reader::new(tape.clone()),
            tape,
        }
    }

    /// Another turn begins. Returns when.
    pub fn begin_turn(&mut self) -> Moment {
        self.shared.settings.refresh(&mut self.settings);
        self.now = self.edge.now();
        self.work.begin_turn();
        self.metrics.turn_begun.set(self.now.0.max(1));
        self.shared.publisher.lead().takes_turn(self.index, self.now, self.settings.stall_limit);
        self.now
    }

    /// A step of the turn begins.
    pub fn begin_step(&mut self, step: Step) {
        self.work.begin(step, self.settings.turn_work, self.settings.turn_sends);
    }

    /// What commands are held to.
    pub fn command_limits(&self) -> command::Limits {
        command::Limits {
            topic_length_max: self.settings.topic_length_max,
            topics_max: self.settings.subscriptions_max,
        }
    }
}

impl Deref for Counts {
    type Target = WorkerMetrics;

    fn deref(&self) -> &WorkerMetrics {
        &self.shared.metrics.workers[self.index]
    }
}
