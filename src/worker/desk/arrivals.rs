//! Sockets that come and go: from the acceptor and the control thread to a worker, and back to the control thread.

use super::{
    super::{connection::Connection, work::price},
    Clerk, Draining,
};
use crate::{
    access::Holder,
    handover::{Arrival, Beginning, Message},
    http,
    io::{Edge, Token},
    log::{Kind, tell},
};

impl<E: Edge> Clerk<'_, E> {
    /// Takes over what waits in the inbox: for as much as half of what the turn has for reading, and what is left is looked for
    /// before the worker sleeps.
    pub fn take_all_over(&mut self) {
        let rest = self.spare() / 2;
        while self.spare() > rest {
            match self.desk.inbox.try_recv() {
                Ok(Message::Take(arrival)) => drop(self.take_over(arrival)),
                Ok(Message::Drain { until }) => self.desk.draining = Some(Draining::new(until)),
                Err(_) => return,
            }
        }
        if !self.desk.inbox.is_empty() {
            self.ground.work.put_off();
        }
    }

    /// Makes a connection of a socket. None if the kernel can't watch it.
    fn take_over(&mut self, arrival: Arrival<E::Socket>) -> Option<Token> {
        self.desk.made += 1;
        // The edge is asked to watch it.
        self.ground.work.charge(price::END + price::SEND);
        let id = ((self.ground.index as u64 + 1) << 48) | self.desk.made;
        let Arrival { socket, peer, permit, by, beginning } = arrival;
        let (received, is_awaited) = beginning.into_read();
        let mut connection = Connection::new(id, socket, (peer, permit, by), Holder::Anonymous, self.ground.now);
        connection.awaits_header = is_awaited && self.ground.settings.proxies.announce(peer.ip());
        let token = self.connections.insert(connection);
        let socket = self.connections.get_mut(token).map(|connection| &mut connection.socket)?;
        if let Err(error) = self.ground.edge.watch(socket, token) {
            tell!(self.ground.shared.log, Kind::Unwatched, self.ground.now, WARN, { %error }, "a socket could not be watched");
            self.remove(token);
            return None;
        }
        self.set_timer(token);
        if self.desk.draining.is_some() {
            self.refuse(token, &received, &http::Refusal::new(503, "The server is stopping."));
        } else if !received.is_empty() {
            self.feed_request(token, &received);
        }
        self.note_held(token);
        Some(token)
    }

    /// Hands a connection to the control thread, with what was read from it.
    pub fn give_to_control(&mut self, token: Token, received: Vec<u8>) {
        self.clear_timer(token);
        self.forget_held(token);
        let Some(connection) = self.connections.remove(token) else { return };
        let Connection { mut socket, peer, permit, by, .. } = connection;
        self.ground.edge.unwatch(&mut socket);
        let arrival = Arrival { socket, peer, permit, by, beginning: Beginning::Read(received) };
        if let Err(mut arrival) = self.desk.control.hand_over(arrival) {
            let (received, _) = std::mem::replace(&mut arrival.beginning, Beginning::Read(Vec::new())).into_read();
            if let Some(token) = self.take_over(arrival) {
                let text = "Too many HTTP requests are waiting: try again later.";
                self.refuse(token, &received, &http::Refusal::new(503, text));
            }
        }
    }
}
