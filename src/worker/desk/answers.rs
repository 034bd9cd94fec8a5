//! Answers: what the desk has to say to a connection, between the publications that it is sent.

use super::{
    super::{
        deliver::{Outcome, flush},
        work::price,
    },
    Clerk,
};
use crate::{
    io::{Edge, Flushed, Token},
    protocol::{
        Reply,
        cursor::{Cursor, Word},
    },
};

impl<E: Edge> Clerk<'_, E> {
    /// Appends answers to what a connection is to be sent, and sees to it that they are.
    pub fn answer(&mut self, token: Token, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.out.write(write);
        if self.bound_pending(token) {
            return;
        }
        let Some(connection) = self.connections.get_mut(token) else { return };
        if !connection.answered {
            connection.answered = true;
            self.desk.answered.push(connection.group(), token);
        }
        self.note_held(token);
    }

    /// Bytes that wait to be sent to a connection.
    pub fn pending(&self, token: Token) -> usize {
        self.connections
            .get(token)
            .map_or(0, |connection| connection.out.len() + self.cursors.staged_of(token, connection))
    }

    /// Cuts a connection for which more answers wait than may; returns whether it did.
    pub fn bound_pending(&mut self, token: Token) -> bool {
        let most = self.ground.settings.pending_max;
        let over = self.pending(token) > most;
        if over {
            self.cut(token, &format!("more than --max-pending {most} bytes of answers wait for it"));
        }
        over
    }

    /// The cursor of a connection that has come to what is answered now.
    pub fn cursor(&mut self, token: Token) -> Word {
        let words = self.ground.tape.words();
        let Some(connection) = self.connections.get(token) else { return words.word(Cursor::NOWHERE) };
        let told = match self.cursors.of(token, connection) {
            Some(behind) => behind.told_when_answered(),
            None if connection.cohort.is_none() => self.ground.tape.head(),
            None => self.fan.told(connection),
        };
        words.word(told.0)
    }

    /// Answers in the words of the connection's lane. It doesn't overtake the acknowledgement of a subscription that the
    /// connection has not come to yet.
    pub fn reply(&mut self, token: Token, reply: &Reply<'_>) {
        let Some(connection) = self.connections.get(token) else { return };
        let words = connection.lane.words();
        if let Some(then) = self.cursors.last_words(token, connection) {
            words.push_reply(then, reply);
            if !self.bound_pending(token) {
                self.note_held(token);
            }
        } else {
            self.answer(token, |out| words.push_reply(out, reply));
        }
    }

    /// Sends the answers that were given, as many as the step allows, one send to each in turn.
    #[inline]
    pub fn flush_answers(&mut self) {
        while !self.desk.answered.is_empty() {
            if self.ground.work.is_over() {
                return self.ground.work.put_off();
            }
            let Some(token) = self.desk.answered.next() else { return };
            self.flush_one(token);
        }
    }

    fn flush_one(&mut self, token: Token) {
        let Clerk { desk, ground, connections, fan, cursors } = self;
        ground.work.charge(price::TURN);
        let Some(connection) = connections.get_mut(token) else { return };
        if !std::mem::take(&mut connection.answered) || connection.full || cursors.list(token, connection) {
            return;
        }
        match flush(ground, connection) {
            Outcome::All if connection.out.is_empty() && connection.phase.is_answering() => self.is_all_said(token),
            Outcome::All if connection.out.is_empty() => {}
            Outcome::All if connection.cohort.is_some() => {
                // It may have ended within a frame, into which nothing that is published may come: a cursor sends the rest of it before that.
                let (position, owed) = fan.part(connections, token);
                let Some(connection) = connections.get_mut(token) else { return };
                cursors.begin(ground, &mut fan.interest, connection, token, position).owe(owed);
                cursors.list(token, connection);
            }
            Outcome::All => {
                connection.answered = true;
                desk.answered.push(connection.group(), token);
            }
            Outcome::Full(_) => {
                let subscribed = connection.cohort.is_some();
                let (position, owed) = fan.part(connections, token);
                let Some(connection) = connections.get_mut(token) else { return };
                if subscribed {
                    let behind = cursors.begin(ground, &mut fan.interest, connection, token, position);
                    behind.owe(owed);
                    behind.conflates = true;
                }
                cursors.is_full(token, connection, ground.now);
                connection.full = true;
                desk.exchanges.keep_short(ground, token, connection);
            }
            Outcome::Broken(why) => self.lost(token, why),
        }
        self.ease(token);
        self.note_held(token);
    }

    /// The socket has room again: first for what the edge holds back.
    pub fn has_room(&mut self, token: Token) {
        let Clerk { ground, connections, cursors, .. } = self;
        let Some(connection) = connections.get_mut(token) else { return };
        match ground.edge.flush(&mut connection.socket) {
            Flushed::All => {}
            Flushed::Held => return,
            Flushed::Broken(why) => return self.lost(token, why),
        }
        if !std::mem::take(&mut connection.full) {
            return;
        }
        if !cursors.has_room(token, connection, ground.now) && !std::mem::replace(&mut connection.answered, true) {
            self.desk.answered.push(connection.group(), token);
        }
    }
}
