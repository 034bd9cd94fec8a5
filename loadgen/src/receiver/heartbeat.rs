//! Heartbeats: what idle subscribers say so that a server, or what is between, doesn't take them for dead.
//!
//! The connections of a thread take turns, so that they are spread over the time between two of one.

use super::Receiver;
use crate::{connection::Stage, dialect::Dialect, frame::Opcode, socket::Interest, spec::Spec};

/// Whose turn is when.
pub(super) struct Heartbeats {
    /// Time between two of one connection.
    every: u64,
    message: (Opcode, Vec<u8>),
    from: u64,
    said: u64,
}

impl Heartbeats {
    /// Those that the settings ask for, from a moment on.
    pub fn new(spec: &Spec, dialect: &Dialect, from: u64) -> Option<Self> {
        let every = spec.heartbeat?.0;
        Some(Self { every, message: dialect.heartbeat(), from, said: 0 })
    }
}

impl Receiver {
    /// Says those that are due; of a turn that was slept through by all, no more than one each.
    pub(super) fn beat(&mut self, now: u64) {
        let Some(mut beats) = self.heartbeats.take() else { return };
        let count = self.conns.len() as u64;
        let passed = u128::from(now.saturating_sub(beats.from)) * u128::from(count) / u128::from(beats.every);
        let due = passed as u64;
        beats.said = beats.said.max(due.saturating_sub(count));
        while beats.said < due {
            self.say((beats.said % count) as usize, &beats.message);
            beats.said += 1;
        }
        self.heartbeats = Some(beats);
    }

    fn say(&mut self, index: usize, (opcode, message): &(Opcode, Vec<u8>)) {
        let conn = &self.conns[index];
        let Some(line) = conn.line.as_ref().filter(|_| conn.stage == Stage::Live && !conn.stalled) else { return };
        // One that is broken shows at the next read; one that is full has something to say already.
        if line.is_clear() && line.write_frame(*opcode, message).is_ok_and(|clear| !clear) {
            let _ = self.poller.modify(&line.fd, index as u64, Interest::IN | Interest::OUT);
        }
    }
}
