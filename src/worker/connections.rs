//! A worker's connections, by their tokens.
//!
//! A token is a place in a table. Many lists hold tokens: who has answers to be sent, who can go on, whose timer has come; and
//! by the time that a list is gone through, a connection on it may have ended. So nobody indexes: a token is looked up, and
//! where there is no connection any more, the step is left out. A list on which another connection with the same token must
//! not be taken for the one that was meant holds a [`Handle`].

use slab::Slab;

use super::connection::Connection;
use crate::{
    io::Token,
    slack::{KEPT_BY_THREAD, Slack},
};

/// Names one connection and never another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    pub token: Token,
    /// The connection's own number.
    id: u64,
}

/// See the module's description.
pub struct Connections<S> {
    table: Slab<Connection<S>>,
    /// Some have gone since room was given back.
    emptied: bool,
}

impl<S> Connections<S> {
    pub fn new() -> Connections<S> {
        Connections { table: Slab::new(), emptied: false }
    }

    /// Takes a connection in.
    pub fn insert(&mut self, connection: Connection<S>) -> Token {
        self.table.insert(connection) as Token
    }

    /// The connection with this token; none if it has ended.
    #[inline]
    pub fn get(&self, token: Token) -> Option<&Connection<S>> {
        self.table.get(token as usize)
    }

    /// The connection with this token; none if it has ended.
    #[inline]
    pub fn get_mut(&mut self, token: Token) -> Option<&mut Connection<S>> {
        self.table.get_mut(token as usize)
    }

    /// What names the connection that has this token now.
    pub fn handle(&self, token: Token) -> Option<Handle> {
        self.get(token).map(|connection| Handle { token, id: connection.id })
    }

    /// The connection that a handle names; none if it has ended, whoever has its token now.
    pub fn named(&mut self, handle: Handle) -> Option<&mut Connection<S>> {
        self.get_mut(handle.token).filter(|connection| connection.id == handle.id)
    }

    /// Takes a connection out.
    pub fn remove(&mut self, token: Token) -> Option<Connection<S>> {
        let gone = self.table.try_remove(token as usize);
        self.emptied |= gone.is_some();
        gone
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    #[cfg(all(any(test, fuzzing), not(loom)))]
    pub fn iter(&self) -> impl Iterator<Item = (Token, &Connection<S>)> {
        self.table.iter().map(|(token, connection)| (token as Token, connection))
    }

    /// Everybody's tokens are below this one, to go through them while some end.
    pub fn end(&self) -> Token {
        self.table.capacity() as Token
    }

    /// Whether there may be room to be given back.
    #[inline]
    pub fn has_slack(&self) -> bool {
        self.emptied
    }

    /// Gives back room that was needed once.
    pub fn give_back(&mut self) {
        self.table.give_back(KEPT_BY_THREAD);
        self.emptied = false;
    }

    /// For how many there is room.
    #[cfg(all(test, not(loom)))]
    pub fn room(&self) -> usize {
        self.table.capacity()
    }
}
