//! Subscribers that poll: a request, its answer, and the next request at once.

use std::sync::Arc;

use super::{Receiver, judge::Judge};
use crate::{
    connection::{Connection, Stage},
    dialect::poll::{self, Taken},
    line::Line,
    meter::Phase,
    socket::Interest,
};

impl Receiver {
    /// Asks for the first time.
    pub(super) fn poll(&mut self, index: usize, line: &Line, now: u64) {
        let conn = &mut self.conns[index];
        let mut request = Vec::new();
        poll::push_request(&self.shared.dialect, &conn.topics.topics(), None, &mut request);
        let sent = line.write(&request).and_then(|_| self.poller.modify(&line.fd, index as u64, Interest::IN));
        match sent {
            Ok(()) => {
                self.judge.interval.reached(conn, Phase::Upgrade, now);
                conn.stage = Stage::Subscribing;
            }
            Err(error) => self.failed(index, format!("connecting: {error}")),
        }
    }
}

impl Judge {
    /// Takes the answers at the start of `bytes`, each of which is followed by the next request; returns how many bytes they were.
    pub(super) fn take_answers(&mut self, conn: &mut Connection, bytes: &[u8], now: u64) -> usize {
        let mut at = 0;
        while conn.ended.is_none() {
            match poll::take(&bytes[at..]) {
                Taken::Partial(needs) => {
                    conn.needs = needs;
                    return at;
                }
                Taken::Wrong(why) => {
                    self.checks.wrong += 1;
                    conn.ended = Some(why);
                }
                Taken::Answer { len, cursor, messages } => {
                    self.ask_again(conn, cursor);
                    messages.iter().for_each(|message| self.message(conn, message.get().as_bytes(), now));
                    at += len;
                }
            }
        }
        bytes.len()
    }

    fn ask_again(&self, conn: &Connection, cursor: &str) {
        let Some(line) = conn.line.as_ref().map(Arc::clone) else { return };
        let shared = self.shared();
        let mut request = Vec::new();
        poll::push_request(&shared.dialect, &conn.topics.topics(), Some(cursor), &mut request);
        // A line that is broken shows at the next read.
        let _ = line.write(&request);
    }
}
