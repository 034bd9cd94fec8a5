//! What clients send: frames, commands, and publications.

use super::{
    super::{
        connection::{Connection, Phase},
        work::price,
    },
    Clerk, Doom,
    asking::Job,
    closing::Farewell,
};
use crate::{
    io::{Edge, Token},
    lane::Asked,
    metrics::Refusal,
    protocol::{Command, ErrorCode, Id, Op, Payload, Reply, command::CommandError},
    publication::Flags,
    publish::{By, PublishError},
    tape::{About, Appended},
    websocket::{CloseCode, Decoder, Event, Role, Violation, frame},
};

/// A message that is read, against one that is copied.
pub const READ: u64 = 4;

impl<E: Edge> Clerk<'_, E> {
    /// Takes in bytes of a connection that speaks WebSocket.
    pub fn feed(&mut self, token: Token, mut bytes: &mut [u8]) {
        let Some(handle) = self.connections.handle(token) else { return };
        let Some(connection) = self.connections.get_mut(token) else { return };
        // Events borrow from the decoder while the worker acts on them, so it is taken out meanwhile.
        let mut decoder = std::mem::replace(&mut connection.decoder, Decoder::new(Role::Server));
        let held = decoder.buffered();
        let most = self.ground.settings.message_max;
        loop {
            match decoder.next(&mut bytes, most) {
                Ok(Some(Event::Deflated { is_text, message })) => {
                    if let Err(violation) = self.act_deflated(token, is_text, message, most) {
                        self.desk.doomed.push_back((handle, Doom::Violation(violation)));
                        decoder.end();
                        break;
                    }
                }
                Ok(Some(event)) => self.act(token, event),
                Ok(None) => break,
                Err(violation) => {
                    self.desk.doomed.push_back((handle, Doom::Violation(violation)));
                    break;
                }
            }
            if self.connections.named(handle).is_none() {
                break;
            }
            if self.desk.doomed.back().is_some_and(|(doomed, _)| *doomed == handle) {
                // There was no room for a message.
                decoder.end();
                break;
            }
        }
        let mut after = 0;
        if let Some(connection) = self.connections.named(handle) {
            after = decoder.buffered();
            // Nearly always it holds nothing, before and after.
            if after != held
                && let Err(why) = connection.permit.hold(after)
            {
                self.ground.shared.metrics.refuse(why);
                self.desk.doomed.push_back((handle, Doom::Full(why)));
                decoder.end();
                after = 0;
                connection.permit.let_go();
            }
            connection.decoder = decoder;
        }
        let assembly = &self.ground.metrics.assembly_bytes;
        assembly.set((assembly.get() + after as u64).saturating_sub(held as u64));
    }

    /// Inflates a message, and does what it asks for.
    fn act_deflated(&mut self, token: Token, is_text: bool, message: &[u8], most: usize) -> Result<(), Violation> {
        // Whoever closes isn't listened to.
        if self.connections.get(token).is_none_or(|connection| connection.phase != Phase::Open) {
            return Ok(());
        }
        let (inflated, cost) = self.desk.inflating.take(message, most);
        self.ground.work.charge(cost);
        let counts = &self.ground.metrics.inflated;
        counts.messages.add(1);
        counts.bytes_in.add(message.len() as u64);
        let inflated = inflated?;
        counts.bytes_out.add(inflated.len() as u64);
        let mut done = Ok(());
        if !is_text {
            self.act(token, Event::Binary(&inflated));
        } else if let Ok(text) = simdutf8::basic::from_utf8(&inflated) {
            self.act(token, Event::Text(text));
        } else {
            done = Err(Violation::BadText);
        }
        self.desk.inflating.hand_back(inflated);
        done
    }

    fn act(&mut self, token: Token, event: Event<'_>) {
        let Some(Connection { phase, .. }) = self.connections.get(token) else { return };
        let phase = *phase;
        match event {
            Event::Close(close) if matches!(phase, Phase::Open | Phase::Closing) => {
                let code = close.map(|(code, _)| code);
                if !self.ends_later(token, Some(code)) {
                    self.peer_closes(token, code);
                }
            }
            _ if phase != Phase::Open => {}
            Event::Ping(payload) => {
                if self.may_ask(token) {
                    self.answer(token, |out| frame::push_pong(out, payload));
                }
            }
            Event::Pong(_) => {
                self.may_be_heard(token);
            }
            Event::Close(_) => {}
            Event::Text(text) => self.hear(token, Payload::Text(text)),
            Event::Binary(bytes) => self.hear(token, Payload::Binary(bytes)),
            // It was inflated before.
            Event::Deflated { .. } => {}
        }
    }

    /// Does what a message asks for, as the connection's lane reads it; of one that ends, only what it publishes. What goes on over
    /// turns is returned.
    pub fn carry_out(&mut self, token: Token, message: Payload<'_>, ends: bool) -> Option<Job> {
        self.ground.work.charge(READ * price::lines(message.bytes().len()));
        let words = self.connections.get(token)?.lane.words();
        let asked = words.read(message, &self.ground.command_limits());
        let publishes = matches!(&asked, Asked::Publish(_) | Asked::Command(Ok(Command { op: Op::Pub { .. }, .. })));
        match asked {
            _ if ends && !publishes => {}
            Asked::Command(command) => return self.obey(token, command),
            Asked::Publish(payload) => self.publish_raw(token, payload),
            Asked::Unfit(code, reason) => self.close(token, Farewell { code: Some(code), reason, error: None }),
            Asked::Nothing => {}
        }
        None
    }

    /// Does what a command asks for. What goes on over turns is returned.
    fn obey(&mut self, token: Token, command: Result<Command<'_>, CommandError<'_>>) -> Option<Job> {
        // Publishing without the right costs an answer like any other command.
        let publishes = match &command {
            Ok(Command { op: Op::Pub { topic, data }, .. }) => self.may_publish(token, topic).then(|| data.get().len()),
            _ => None,
        };
        let in_time = match publishes {
            Some(len) => self.may_publish_now(token, len),
            None => self.may_ask(token),
        };
        if !in_time {
            return None;
        }
        match command {
            Err(refused) => self.error(token, refused.id, refused.code, &refused.message),
            Ok(Command { id, op }) => match op {
                Op::Pub { topic, data } => self.publish_json(token, id, &topic, data.get()),
                Op::Sub(sub) => return self.subscribe(token, id, &sub),
                Op::Unsub { topics } => return self.unsubscribe(token, id, &topics),
                Op::List => self.list_subscriptions(token, id),
                Op::Auth { token: shown } => self.authenticate(token, id, &shown),
                Op::Ping => {
                    let ts = self.ground.edge.wall_us();
                    let cursor = self.cursor(token);
                    self.reply(token, &Reply::Pong { id, ts, cursor });
                }
            },
        }
        None
    }

    fn publish_json(&mut self, token: Token, id: Option<Id<'_>>, topic: &str, data: &str) {
        match self.append(token, topic, Payload::Json(data.as_bytes())) {
            Ok(done) if id.is_some() => {
                self.reply(token, &Reply::Published { id, topic, seq: done.seq, ts: done.ts });
            }
            Ok(_) => {}
            Err(PublishError::Forbidden(_)) if !self.has_name(token) => {
                let how = "publishing needs a token: send {\"op\":\"auth\",\"token\":…} first";
                self.error(token, id, ErrorCode::Forbidden, how);
            }
            Err(error) => self.error(token, id, error.code(), &error.to_string()),
        }
    }

    fn publish_raw(&mut self, token: Token, payload: Payload<'_>) {
        if !self.may_publish_now(token, payload.bytes().len()) {
            return;
        }
        let Some(connection) = self.connections.get(token) else { return };
        // Whatever has no commands was opened with a topic.
        let Some(topic) = connection.topic.as_deref().cloned() else { return };
        let payload = match payload {
            Payload::Text(text) => connection.declared.payload(text),
            bytes => Ok(bytes),
        };
        let payload = match payload {
            Ok(payload) => payload,
            Err(what) => {
                let reason = format!("the message {what}");
                let farewell = Farewell { code: Some(CloseCode::POLICY), reason: &reason, error: None };
                return self.close(token, farewell);
            }
        };
        if let Err(error) = self.append(token, &topic, payload) {
            let reason = match &error {
                PublishError::Forbidden(_) if !self.has_name(token) => {
                    "publishing needs a token: connect with ?token=".to_owned()
                }
                error => error.to_string(),
            };
            let code = if error == PublishError::Draining { CloseCode::GOING_AWAY } else { CloseCode::POLICY };
            self.close(token, Farewell { code: Some(code), reason: &reason, error: None });
        }
    }

    fn append(&mut self, token: Token, topic: &str, payload: Payload<'_>) -> Result<Appended, PublishError> {
        let Some(connection) = self.connections.get(token) else {
            return Err(PublishError::Forbidden(topic.to_owned()));
        };
        if !self.ground.shared.welcomes() {
            self.ground.shared.metrics.refuse(Refusal::Draining);
            return Err(PublishError::Draining);
        }
        let ts = self.ground.edge.wall_us();
        let about = About { ts, origin: connection.id, flags: Flags::default() };
        let (account, holder) = (connection.permit.account(), connection.holder.key());
        let may = self.ground.settings.access.now(&connection.holder, ts);
        let by = By { may, account, holder };
        let done = self.ground.shared.publisher.door().publish(by, topic, payload, about);
        match &done {
            Ok(_) => {
                self.ground.metrics.publications.add(1);
                self.desk.published = true;
            }
            Err(PublishError::Forbidden(_)) => self.ground.shared.metrics.refuse(Refusal::Forbidden),
            Err(PublishError::TopicsFull { .. }) => self.ground.shared.metrics.refuse(Refusal::TopicsFull),
            Err(PublishError::HolderFull { .. }) => self.ground.shared.metrics.refuse(Refusal::HolderTopicsFull),
            Err(PublishError::AddressFull { .. }) => self.ground.shared.metrics.refuse(Refusal::AddressTopicsFull),
            Err(_) => {}
        }
        done
    }

    /// Answers that a command was refused.
    pub fn error(&mut self, token: Token, id: Option<Id<'_>>, code: ErrorCode, message: &str) {
        // What is malformed is no refusal.
        if matches!(code.status(), 401 | 403 | 429 | 503) {
            self.note_refusal(token, code.as_str(), message);
        }
        self.reply(token, &Reply::Error { id, code, message });
    }
}
