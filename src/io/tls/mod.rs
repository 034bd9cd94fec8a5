//! An edge around another that encrypts: sockets with a TLS session on them are sent and read through it, and the others as if it weren't
//! there.
//!
//! What is encrypted can't be taken back, nor be sent later in another order. So what a full socket leaves over of a send is held here, and
//! until it is gone there is room for nothing ([`Sent::Full`]); the owner hears of it as it hears of a full socket.
//!
//! ```text
//!   send    the tape's bytes ──► records, in the thread's scratch ──► the other edge ──► what is left over: held by the session
//!   flush   what is held ──────────────────────────────────────────► the other edge
//!   receive the other edge ──► scratch, behind the beginning of a record that is kept ──► the owner's buffer ──► what has no room: kept
//! ```
//!
//! Records carry [`RECORD_MAX`] bytes, several a send, so that the ciphertext of [`SEND_MAX`] bytes is no more than one segment of the
//! loopback path takes. At the beginning, after a pause and once a socket was full they are of [`SMALL_RECORD`]: a browser can use what is in
//! a record when all of it has come, and less is held for who doesn't read.
//!
//! # Bounds
//!
//! What is held for one connection is a send at most, what is kept of what it has sent at most a read and the beginning of a record (or
//! of one handshake message). For all of them together, [`Buffers`] has the bound, of which one address has half: the less is left of
//! it, the less each is held for, and the less is read at a time; what a session then still takes is [`LEAST`]. Who sends the beginning
//! of a record and not its end while there is no room for it is told so and closed.
//!
//! Records cost work whatever is in them: the owner charges them ([`Edge::take_records`]), and [`RECORDS_MAX`] are taken in at a time.
//! What has come behind them is kept, and told of as what can be read.

pub mod session;
#[cfg(all(any(test, feature = "bench"), not(loom)))]
#[allow(missing_docs)]
pub mod testing;
#[cfg(all(test, not(loom)))]
mod tests;

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustc_hash::FxHashMap;
use rustls::{Error, ServerConfig};

use self::session::{RECORD_MAX, RECORD_OVERHEAD, Session, Stage, WIRE_RECORD_MAX, records};
use super::{Edge, Flushed, Ready, Received, SEND_MAX, Sent, Token, acks::Acks, path::Path, waker::Sleep};
use crate::{
    certified::Certified,
    clock::Moment,
    limits::{Account, Table},
};

/// The first byte of every handshake: a record of that type (RFC 8446, section 5.1).
pub const FIRST_BYTE: u8 = 22;

/// Plaintext of the records for who may be slow.
pub const SMALL_RECORD: usize = 4096;

/// Most bytes that are encrypted at once for who may be slow.
const SMALL_SEND: usize = 4 * SMALL_RECORD;

/// After so many bytes that all went at once, somebody isn't slow.
const SWIFT_AFTER: u32 = 256 * 1024;

/// After so long without a send, the peer's TCP begins small, and so do records.
const PAUSE: Duration = Duration::from_secs(1);

/// What each session may hold in each direction, however little room there is for all.
pub const LEAST: usize = 1024;

/// What is held for one of them at most is this part of what is left for all.
const SHARE: u64 = 16;

/// Bytes read at a time at least, and at most.
const READ: std::ops::RangeInclusive<usize> = 1024..=64 * 1024;

/// Bytes of a handshake message that isn't whole, at most: a chain of certificates, with room to spare.
const MESSAGE_MAX: usize = 64 * 1024;

/// Records taken in at a time: what one read may cost, however small they are.
const RECORDS_MAX: usize = 64;

/// What a record costs that says nothing to the owner, in those that do: a change of keys is computing.
const DULL: u32 = 5;

/// Sockets that one wait tells of because something of theirs is kept here.
const TOLD_MAX: usize = 1024;

/// Room for the records of the largest send, and a key update before them.
const SCRATCH: usize = MESSAGE_MAX + *READ.end() + WIRE_RECORD_MAX;

const _: () = assert!(SCRATCH >= SEND_MAX + (SEND_MAX / SMALL_RECORD + 1) * RECORD_OVERHEAD + 256);

/// What all sessions together hold, and may.
#[derive(Debug)]
pub struct Buffers {
    /// Encrypted, and not taken by the kernel yet.
    held: AtomicU64,
    /// Come, and not whole, or not read yet.
    kept: AtomicU64,
    /// Sessions.
    sessions: AtomicU64,
    /// Sessions that were closed because there was no room for what they sent.
    cut: AtomicU64,
    most: AtomicU64,
}

impl Buffers {
    /// Room for `most` bytes in each direction.
    pub fn new(most: u64) -> Arc<Buffers> {
        let zero = || AtomicU64::new(0);
        Arc::new(Buffers { held: zero(), kept: zero(), sessions: zero(), cut: zero(), most: AtomicU64::new(most) })
    }

    /// From now on, so many bytes in each direction.
    pub fn set(&self, most: u64) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Bytes that were encrypted and that the kernel hasn't taken.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Bytes that have come and are not whole records, or not read.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Sessions there are.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Sessions that were closed because there was no room for what they sent.
    pub fn cut(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }

    /// What is counted for all, of this kind.
    fn used(&self, table: Table) -> &AtomicU64 {
        if table == Table::TlsHeld { &self.held } else { &self.kept }
    }
}

/// The room that a session has: of that for all, and of its address's part of that.
#[derive(Clone, Debug)]
pub struct Room {
    buffers: Arc<Buffers>,
    account: Option<Arc<Account>>,
}

impl Room {
    /// In `buffers`, for somebody whose address has this account; none where it isn't counted for one.
    pub fn new(buffers: &Arc<Buffers>, account: Option<&Arc<Account>>) -> Room {
        Room { buffers: Arc::clone(buffers), account: account.cloned() }
    }

    /// What may be held, or kept, for one session, given what is for all and for those of its address.
    fn share(&self, table: Table) -> usize {
        let used = self.buffers.used(table).load(Ordering::Relaxed);
        let left = self.buffers.most.load(Ordering::Relaxed).saturating_sub(used);
        let left = self.account.as_ref().map_or(left, |account| left.min(account.left(table) as u64));
        usize::try_from(left / SHARE).unwrap_or(usize::MAX).max(LEAST)
    }

    fn add(&self, table: Table, bytes: usize) {
        self.buffers.used(table).fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(account) = &self.account {
            account.take_anyway(table, bytes);
        }
    }

    fn give_back(&self, table: Table, bytes: usize) {
        self.buffers.used(table).fetch_sub(bytes as u64, Ordering::Relaxed);
        if let Some(account) = &self.account {
            account.give_back(table, bytes);
        }
    }
}

/// A socket, with a TLS session on it or none.
#[derive(Debug)]
pub struct Socket<S> {
    socket: S,
    tls: Option<Box<Secured>>,
}

impl<S> From<S> for Socket<S> {
    fn from(socket: S) -> Self {
        Socket { socket, tls: None }
    }
}

impl<S> Socket<S> {
    /// The session on it.
    pub fn session(&self) -> Option<&Session> {
        self.tls.as_ref().map(|tls| &tls.session)
    }

    /// With a session whose handshake is done.
    #[cfg(all(any(test, feature = "bench"), not(loom)))]
    pub fn secured(socket: S, session: Session, room: Room) -> Socket<S> {
        Socket { socket, tls: Some(Box::new(Secured::new(session, room))) }
    }

    /// From now on it is somebody's whose certificate was judged to be good.
    pub fn certify(&mut self, certified: Option<Certified>) {
        if let Some(tls) = &mut self.tls {
            tls.certified = certified.map(Box::new);
        }
    }

    /// The socket beneath.
    pub fn inner(&self) -> &S {
        &self.socket
    }
}

/// A session, and what is held for it.
#[derive(Debug)]
struct Secured {
    session: Session,
    /// Whose certificate its peer has shown. It goes with the session from thread to thread.
    certified: Option<Box<Certified>>,
    room: Room,
    /// None while its socket isn't watched.
    token: Option<Token>,
    /// The beginning of a record, or of a handshake message in several; and whole ones, if it is `fresh`.
    input: Vec<u8>,
    /// What was decrypted, and not read; read from `plain_at`.
    plain: Vec<u8>,
    plain_at: u32,
    /// Encrypted, and not taken; sent from `held_at`.
    held: Vec<u8>,
    held_at: u32,
    /// Bytes that went at once since it may have been slow.
    went: u32,
    /// When something was sent last.
    sent: Moment,
    /// Nothing follows what is held.
    finished: bool,
    /// What is in `input`, or a part of it, wasn't looked at yet.
    fresh: bool,
    /// So much of `input` is of records that were taken in, whose handshake message isn't whole.
    begun: u32,
    /// Goes with it, where something of it waits to be read.
    there: Option<Arc<()>>,
}

impl Secured {
    fn new(session: Session, room: Room) -> Secured {
        room.buffers.sessions.fetch_add(1, Ordering::Relaxed);
        Secured {
            session,
            certified: None,
            room,
            token: None,
            input: Vec::new(),
            plain: Vec::new(),
            plain_at: 0,
            held: Vec::new(),
            held_at: 0,
            went: 0,
            sent: Moment::default(),
            finished: false,
            fresh: false,
            begun: 0,
            there: None,
        }
    }

    fn unsent(&self) -> &[u8] {
        &self.held[self.held_at as usize..]
    }

    fn unread(&self) -> &[u8] {
        &self.plain[self.plain_at as usize..]
    }

    /// Holds more of what is encrypted.
    fn hold(&mut self, bytes: &[u8]) {
        self.room.add(Table::TlsHeld, bytes.len());
        if self.held.is_empty() {
            self.held = bytes.to_vec();
        } else {
            self.held.extend_from_slice(bytes);
        }
        self.went = 0;
    }

    /// So many bytes of what is held were taken.
    fn let_go(&mut self, len: usize) {
        self.room.give_back(Table::TlsHeld, len);
        self.held_at += len as u32;
        if self.unsent().is_empty() {
            (self.held, self.held_at) = (Vec::new(), 0);
        }
    }

    /// What it keeps of what came, and may.
    fn keeps(&self) -> usize {
        self.input.len() + self.unread().len()
    }

    /// Notes that it keeps more, or less, than before.
    fn note_kept(&self, before: usize) {
        let now = self.keeps();
        if now > before {
            self.room.add(Table::TlsKept, now - before);
        } else {
            self.room.give_back(Table::TlsKept, before - now);
        }
    }

    /// How much is encrypted at once of `wanted` bytes, and in records of which size.
    fn sizes(&mut self, now: Moment, wanted: usize) -> (usize, usize) {
        if now.since(self.sent) > PAUSE {
            self.went = 0;
        }
        let (send, record) = if self.went < SWIFT_AFTER { (SMALL_SEND, SMALL_RECORD) } else { (SEND_MAX, RECORD_MAX) };
        // What everybody may have anyway needs no look at what there is for all, and for those of its address.
        let share = if wanted <= LEAST { LEAST } else { self.room.share(Table::TlsHeld) };
        (wanted.min(send).min(share), record)
    }

    /// Hands out what was decrypted before; returns how many bytes.
    fn read(&mut self, buffer: &mut [u8]) -> usize {
        let len = self.unread().len().min(buffer.len());
        buffer[..len].copy_from_slice(&self.unread()[..len]);
        self.plain_at += len as u32;
        if self.unread().is_empty() {
            (self.plain, self.plain_at) = (Vec::new(), 0);
        }
        len
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        self.room.buffers.sessions.fetch_sub(1, Ordering::Relaxed);
        self.room.give_back(Table::TlsHeld, self.unsent().len());
        self.room.give_back(Table::TlsKept, self.keeps());
    }
}

/// How far a handshake is.
#[derive(Debug)]
pub enum Shaken {
    /// It waits for the peer.
    Going,
    /// It is done: the socket may be read and sent to.
    Done,
    /// The peer has broken the rules, and was told; or speaks no TLS, or none that is spoken here.
    Refused(Error),
    /// The peer has gone.
    Gone,
}

/// The edge. See the module's description.
pub struct Tls<E> {
    edge: E,
    /// What is being encrypted, or has come and is being decrypted.
    scratch: Vec<u8>,
    /// What TLS has to say itself.
    answer: Vec<u8>,
    /// Sockets of which something was read that is not handed out yet, as far as their owners read from them; and whether they are
    /// still there.
    /// None for one that was read since. Each is in `told` once.
    unread: FxHashMap<Token, Option<Weak<()>>>,
    /// In which order they are told of.
    told: VecDeque<Token>,
    /// Records that came since somebody asked.
    records: u32,
}

/// What became of what was to be sent.
enum Pushed {
    /// The other edge has it.
    All,
    /// Some, or all, is held.
    Held,
    Broken(io::ErrorKind),
}

impl<E: Edge> Tls<E> {
    /// Around `edge`.
    pub fn new(edge: E) -> Tls<E> {
        Tls {
            edge,
            scratch: Vec::new(),
            answer: Vec::new(),
            unread: FxHashMap::default(),
            told: VecDeque::new(),
            records: 0,
        }
    }

    /// Begins a session on a socket that goes by `token`: the handshake begins with `come`, which was read already, and is gone on with by
    /// [`Tls::shake`].
    ///
    /// # Errors
    /// The settings can't be used.
    pub fn begin(
        socket: &mut Socket<E::Socket>,
        token: Token,
        (config, room): (&Arc<ServerConfig>, Room),
        come: &[u8],
    ) -> Result<(), Error> {
        let session = Session::new(Arc::clone(config))?;
        let mut tls = Secured::new(session, room);
        tls.token = Some(token);
        tls.input = come.to_vec();
        tls.fresh = !come.is_empty();
        tls.note_kept(0);
        socket.tls = Some(Box::new(tls));
        Ok(())
    }

    /// Goes on with the handshake of a session that was begun, as far as what has come says.
    pub fn shake(&mut self, socket: &mut Socket<E::Socket>) -> Shaken {
        let Some(tls) = &mut socket.tls else { return Shaken::Done };
        if tls.session.stage() == Stage::Open {
            return Shaken::Done;
        }
        self.forget_unread(tls);
        // Of what comes behind the handshake, nothing is handed out here.
        match self.take(socket, &mut []) {
            Ok(Took::Something(_) | Took::Nothing) => {}
            Ok(Took::End) | Err(Broken::Kernel(_)) => return Shaken::Gone,
            Err(Broken::Rules(error)) => return Shaken::Refused(error),
        }
        let Some(tls) = &mut socket.tls else { return Shaken::Done };
        match tls.session.stage() {
            Stage::Shaking => {
                self.tell_unread(tls);
                Shaken::Going
            }
            // What is held goes along.
            Stage::Open => Shaken::Done,
            Stage::Ended => Shaken::Gone,
        }
    }

    /// Says that there is something to read.
    fn tell_unread(&mut self, tls: &mut Secured) {
        let Some(token) = tls.token else { return };
        if tls.unread().is_empty() && !tls.fresh && tls.session.stage() != Stage::Ended {
            return;
        }
        let there = Arc::downgrade(tls.there.get_or_insert_default());
        if self.unread.insert(token, Some(there)).is_none() {
            self.told.push_back(token);
        }
    }

    fn forget_unread(&mut self, tls: &Secured) {
        if tls.there.is_some()
            && let Some(waits) = tls.token.and_then(|token| self.unread.get_mut(&token))
        {
            *waits = None;
        }
    }

    /// Gives what is encrypted to the other edge; holds what it doesn't take.
    fn push(edge: &mut E, socket: &mut E::Socket, tls: &mut Secured, bytes: &[u8]) -> Pushed {
        let mut taken = 0;
        if tls.unsent().is_empty() && !bytes.is_empty() {
            taken = match edge.send(socket, bytes) {
                Sent::Took(taken) => taken,
                Sent::Full => 0,
                Sent::Broken(why) => return Pushed::Broken(why),
            };
        }
        if taken < bytes.len() {
            tls.hold(&bytes[taken..]);
            return Pushed::Held;
        }
        Pushed::All
    }

    /// Reads from the other edge what there is room for, and decrypts it: into `buffer` first.
    fn take(&mut self, socket: &mut Socket<E::Socket>, buffer: &mut [u8]) -> Result<Took, Broken> {
        let Tls { edge, scratch, answer, records: came, .. } = self;
        let Socket { socket, tls: Some(tls) } = socket else { return Ok(Took::Nothing) };
        if scratch.is_empty() {
            scratch.resize(SCRATCH, 0);
        }
        let before = tls.keeps();
        let kept = tls.input.len();
        scratch[..kept].copy_from_slice(&tls.input);
        let room = tls.room.share(Table::TlsKept).max(*READ.start());
        let most = buffer.len().clamp(*READ.start(), *READ.end()).min(room);
        let len = if std::mem::take(&mut tls.fresh) {
            0
        } else {
            match edge.receive(socket, &mut scratch[kept..kept + most]) {
                Received::Bytes(len) => len,
                Received::Nothing => return Ok(Took::Nothing),
                Received::End => return Ok(Took::End),
                Received::Broken(why) => return Err(Broken::Kernel(why)),
            }
        };
        let (all, begun) = (&mut scratch[..kept + len], tls.begun as usize);
        let found = records(&all[begun..], RECORDS_MAX);
        let (input, rest) = all.split_at_mut(begun + found.len);
        let (mut read, mut heard, plain) = (0, 0, &mut tls.plain);
        let sink = |bytes: &[u8]| {
            heard += u32::from(!bytes.is_empty());
            let fits = bytes.len().min(buffer.len() - read);
            buffer[read..read + fits].copy_from_slice(&bytes[..fits]);
            read += fits;
            plain.extend_from_slice(&bytes[fits..]);
        };
        answer.clear();
        let was_open = tls.session.stage() == Stage::Open;
        let (done, result) = tls.session.take_in(input, sink, answer);
        if was_open {
            *came += found.begun + found.whole.saturating_sub(heard) * (DULL - 1);
        }
        // Nothing counts behind the peer's end (RFC 8446, section 6.1), nor behind what broke the rules.
        let rest = if result.is_ok() && tls.session.stage() != Stage::Ended { rest } else { &mut [] };
        tls.fresh = !rest.is_empty();
        tls.begun = (begun + found.whole_len).saturating_sub(done) as u32;
        // Exactly as much as is there: it may lie there for long.
        tls.input = [&input[done..], &*rest].concat();
        tls.note_kept(before);
        let pushed = Self::push(edge, socket, tls, answer);
        if let Err(error) = result {
            return Err(Broken::Rules(error));
        }
        if let Pushed::Broken(why) = pushed {
            return Err(Broken::Kernel(why));
        }
        // Answers to key updates, one for each; whoever asks for them and doesn't read them wants to fill memory.
        let answers_too_much = tls.unsent().len() > SEND_MAX + MESSAGE_MAX;
        let most = if tls.session.stage() == Stage::Shaking { MESSAGE_MAX } else { WIRE_RECORD_MAX };
        let keeps_too_much = !tls.fresh && tls.input.len() > most.min(tls.room.share(Table::TlsKept));
        if answers_too_much || keeps_too_much {
            tls.room.buffers.cut.fetch_add(1, Ordering::Relaxed);
            return Err(Broken::Rules(Error::General("there is no room for what isn't whole".into())));
        }
        match (read, tls.session.stage()) {
            (0, Stage::Ended) => Ok(Took::End),
            (0, _) => Ok(Took::Nothing),
            (read, _) => Ok(Took::Something(read)),
        }
    }

    #[inline(never)]
    fn send_all(&mut self, socket: &mut Socket<E::Socket>, bytes: &[u8]) -> Sent {
        let Tls { edge, scratch, .. } = self;
        let Socket { socket, tls: Some(tls) } = socket else { return Sent::Full };
        assert!(!tls.finished, "a send behind the end");
        if !tls.unsent().is_empty() {
            return Sent::Full;
        }
        if scratch.is_empty() {
            scratch.resize(SCRATCH, 0);
        }
        let now = edge.now();
        let mut taken = 0;
        while taken < bytes.len() {
            let (send, record) = tls.sizes(now, bytes.len() - taken);
            let part = &bytes[taken..taken + send];
            let begun = &mut tls.input[..tls.begun as usize];
            let Ok(len) = tls.session.encrypt(begun, part, record, scratch) else {
                // So much was encrypted with these keys that nothing more may be.
                return Sent::Broken(io::ErrorKind::ConnectionAborted);
            };
            tls.sent = now;
            match Self::push(edge, socket, tls, &scratch[..len]) {
                Pushed::All => tls.went = tls.went.saturating_add(part.len() as u32),
                Pushed::Held => return Sent::Took(taken + part.len()),
                Pushed::Broken(why) => return Sent::Broken(why),
            }
            taken += part.len();
        }
        Sent::Took(taken)
    }
}

/// What came.
enum Took {
    /// So many bytes are in the buffer; more may be kept.
    Something(usize),
    /// Nothing that says anything.
    Nothing,
    End,
}

enum Broken {
    Kernel(io::ErrorKind),
    Rules(Error),
}

impl<E: Edge> Edge for Tls<E> {
    type Socket = Socket<E::Socket>;

    fn now(&self) -> Moment {
        self.edge.now()
    }

    fn wall_us(&self) -> u64 {
        self.edge.wall_us()
    }

    fn watch(&mut self, socket: &mut Self::Socket, token: Token) -> io::Result<()> {
        self.edge.watch(&mut socket.socket, token)?;
        if let Some(tls) = &mut socket.tls {
            tls.token = Some(token);
            self.tell_unread(tls);
            // Whatever still doesn't fit has the other edge ask for room.
            self.flush(socket);
        }
        Ok(())
    }

    fn interest(&mut self, socket: &mut Self::Socket, read: bool) {
        self.edge.interest(&mut socket.socket, read);
        if let Some(tls) = &mut socket.tls {
            self.forget_unread(tls);
            if read {
                self.tell_unread(tls);
            }
        }
    }

    fn unwatch(&mut self, socket: &mut Self::Socket) {
        self.edge.unwatch(&mut socket.socket);
        if let Some(tls) = &mut socket.tls {
            self.forget_unread(tls);
            tls.token = None;
        }
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        depth: Sleep,
        work: &mut dyn FnMut() -> bool,
        ready: &mut Vec<Ready>,
    ) {
        let waits = !self.unread.is_empty();
        self.edge.wait(if waits { Some(Duration::ZERO) } else { timeout }, depth, work, ready);
        if !waits {
            return;
        }
        let first = ready.len();
        for _ in 0..self.told.len().min(TOLD_MAX) {
            let Some(token) = self.told.pop_front() else { break };
            match self.unread.get(&token) {
                Some(Some(there)) if there.strong_count() > 0 => {
                    self.told.push_back(token);
                    ready.push(Ready { token, readable: true, writable: false });
                }
                _ => drop(self.unread.remove(&token)),
            }
        }
        // Both may have told of one; it is told of once.
        if first > 0 && ready.len() > first {
            ready.sort_unstable_by_key(|ready| ready.token);
            ready.dedup_by(|second, first| {
                let same = second.token == first.token;
                if same {
                    first.readable |= second.readable;
                    first.writable |= second.writable;
                }
                same
            });
        }
    }

    fn receive(&mut self, socket: &mut Self::Socket, buffer: &mut [u8]) -> Received {
        let Some(tls) = &mut socket.tls else { return self.edge.receive(&mut socket.socket, buffer) };
        self.forget_unread(tls);
        let received = if !tls.unread().is_empty() {
            let before = tls.keeps();
            let len = tls.read(buffer);
            tls.note_kept(before);
            Received::Bytes(len)
        } else if tls.session.stage() == Stage::Ended {
            Received::End
        } else {
            match self.take(socket, buffer) {
                Ok(Took::Something(len)) => Received::Bytes(len),
                Ok(Took::Nothing) => Received::Nothing,
                Ok(Took::End) => Received::End,
                Err(Broken::Kernel(why)) => Received::Broken(why),
                Err(Broken::Rules(_)) => Received::Broken(io::ErrorKind::InvalidData),
            }
        };
        if let (Some(tls), Received::Bytes(_) | Received::Nothing) = (&mut socket.tls, received) {
            self.tell_unread(tls);
        }
        received
    }

    #[inline]
    fn send(&mut self, socket: &mut Self::Socket, bytes: &[u8]) -> Sent {
        match &socket.tls {
            None => self.edge.send(&mut socket.socket, bytes),
            Some(_) => self.send_all(socket, bytes),
        }
    }

    fn flush(&mut self, socket: &mut Self::Socket) -> Flushed {
        match self.edge.flush(&mut socket.socket) {
            Flushed::All => {}
            other => return other,
        }
        let Some(tls) = &mut socket.tls else { return Flushed::All };
        while !tls.unsent().is_empty() {
            let piece = tls.unsent().len().min(SEND_MAX);
            match self.edge.send(&mut socket.socket, &tls.unsent()[..piece]) {
                Sent::Took(len) => {
                    tls.let_go(len);
                    if len < piece {
                        return Flushed::Held;
                    }
                }
                Sent::Full => return Flushed::Held,
                Sent::Broken(why) => return Flushed::Broken(why),
            }
        }
        if tls.finished {
            self.edge.finish(&mut socket.socket);
        }
        Flushed::All
    }

    fn held(&self, socket: &Self::Socket) -> usize {
        self.edge.held(&socket.socket) + socket.tls.as_ref().map_or(0, |tls| tls.unsent().len())
    }

    fn encrypted(&self, socket: &Self::Socket) -> Option<usize> {
        socket.tls.as_ref().map(|tls| tls.unsent().len())
    }

    fn finish(&mut self, socket: &mut Self::Socket) {
        let Socket { socket, tls } = socket;
        let Some(tls) = tls else { return self.edge.finish(socket) };
        if std::mem::replace(&mut tls.finished, true) {
            return;
        }
        let mut room = [0; 256];
        let len = tls.session.end(&mut tls.input[..tls.begun as usize], &mut room).unwrap_or(0);
        if let Pushed::All = Self::push(&mut self.edge, socket, tls, &room[..len])
            && tls.unsent().is_empty()
        {
            self.edge.finish(socket);
        }
    }

    fn keep_short(&mut self, socket: &mut Self::Socket, short: bool) {
        self.edge.keep_short(&mut socket.socket, short);
    }

    fn acks(&mut self, socket: &Self::Socket) -> Acks {
        let acks = self.edge.acks(&socket.socket);
        Acks { queued: acks.queued + socket.tls.as_ref().map_or(0, |tls| tls.unsent().len() as u64), ..acks }
    }

    fn keep_asking(&mut self, socket: &Self::Socket, timeout: Duration) {
        self.edge.keep_asking(&socket.socket, timeout);
    }

    fn path(&mut self, socket: &Self::Socket) -> Option<Path> {
        self.edge.path(&socket.socket)
    }

    fn certified<'s>(&self, socket: &'s Self::Socket) -> Option<&'s Certified> {
        socket.tls.as_ref()?.certified.as_deref()
    }

    fn is_worn(&self, socket: &Self::Socket) -> bool {
        socket.session().is_some_and(Session::is_worn)
    }

    fn take_records(&mut self) -> u32 {
        std::mem::take(&mut self.records)
    }
}
