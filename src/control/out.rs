//! Answers on their way, and how much memory they take.
//!
//! What a client has not taken waits in an [`Out`], piece by piece: bytes of its own, a [`Text`] that many are sent (a
//! scrape), or bytes of the program itself (the console). Whatever takes memory is counted in one [`Pending`] for all
//! connections from when it is made until it is dropped: a text once, however many wait for it, the program's bytes not at all.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Answers shorter than this are put behind those that wait, so that a long pipeline makes few pieces and few sends.
const JOINED_MAX: usize = 4 * 1024;

/// Memory of the answers of all connections, in bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending(Arc<AtomicUsize>);

/// Some of it, until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    len: usize,
    pending: Pending,
}

impl Pending {
    /// How much there is.
    pub fn bytes(&self) -> usize {
        // Relaxed, here and below: one thread counts, the others only look.
        self.0.load(Ordering::Relaxed)
    }

    /// Counts so many bytes.
    pub fn hold(&self, len: usize) -> Held {
        self.0.fetch_add(len, Ordering::Relaxed);
        Held { len, pending: self.clone() }
    }
}

impl Held {
    fn resize(&mut self, len: usize) {
        if len != self.len {
            *self = self.pending.hold(len);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.pending.0.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// Bytes that several clients may be sent.
#[derive(Debug)]
pub(super) struct Text {
    bytes: Box<[u8]>,
    _held: Held,
}

impl Text {
    pub fn new(text: String, pending: &Pending) -> Arc<Text> {
        let bytes = text.into_bytes().into_boxed_slice();
        let held = pending.hold(bytes.len());
        Arc::new(Text { bytes, _held: held })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[derive(Debug)]
enum Piece {
    Own(Vec<u8>, Held),
    Shared(Arc<Text>),
    Program(&'static [u8]),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Own(bytes, _) => bytes,
            Piece::Shared(text) => text.bytes(),
            Piece::Program(bytes) => bytes,
        }
    }
}

/// What one client is still to be sent.
#[derive(Debug)]
pub(super) struct Out {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that were sent.
    sent: usize,
    len: usize,
    pending: Pending,
}

impl Out {
    pub fn new(pending: &Pending) -> Out {
        Out { pieces: VecDeque::new(), sent: 0, len: 0, pending: pending.clone() }
    }

    /// Bytes to be sent.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether memory would be given back if it were dropped; of a text there may be others who wait for it.
    pub fn takes_memory(&self) -> bool {
        self.pieces.iter().any(|piece| !matches!(piece, Piece::Program(_)))
    }

    /// Appends what `write` writes: something short, the head of an answer.
    pub fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if !matches!(self.pieces.back(), Some(Piece::Own(bytes, _)) if bytes.len() < JOINED_MAX) {
            self.pieces.push_back(Piece::Own(Vec::new(), self.pending.hold(0)));
        }
        let Some(Piece::Own(bytes, held)) = self.pieces.back_mut() else { unreachable!("it was just put there") };
        let before = bytes.len();
        write(bytes);
        self.len += bytes.len() - before;
        held.resize(bytes.capacity());
        if before == bytes.len() && before == 0 {
            self.pieces.pop_back();
        }
    }

    /// Appends bytes, which become this client's.
    pub fn push(&mut self, mut bytes: Vec<u8>) {
        if bytes.len() < JOINED_MAX {
            return self.append(|out| out.extend_from_slice(&bytes));
        }
        bytes.shrink_to_fit();
        self.len += bytes.len();
        let held = self.pending.hold(bytes.capacity());
        self.pieces.push_back(Piece::Own(bytes, held));
    }

    /// Appends bytes that others are sent as well.
    pub fn share(&mut self, text: Arc<Text>) {
        self.len += text.bytes().len();
        self.pieces.push_back(Piece::Shared(text));
    }

    /// Appends bytes that are part of the program.
    pub fn show(&mut self, bytes: &'static [u8]) {
        self.len += bytes.len();
        self.pieces.push_back(Piece::Program(bytes));
    }

    /// What is to be sent next; empty if there is nothing.
    pub fn next(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| &piece.bytes()[self.sent..])
    }

    /// So many bytes of it were sent.
    pub fn advance(&mut self, sent: usize) {
        self.sent += sent;
        self.len -= sent;
        while self.pieces.front().is_some_and(|piece| piece.bytes().len() == self.sent) {
            self.pieces.pop_front();
            self.sent = 0;
        }
        if self.pieces.is_empty() {
            self.pieces = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(out: &mut Out, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !out.is_empty() {
            let next = out.next();
            let some = next.len().min(step);
            all.extend_from_slice(&next[..some]);
            out.advance(some);
        }
        all
    }

    #[test]
    fn pieces_leave_in_order_and_their_memory_is_counted_until_they_have() {
        let pending = Pending::default();
        let (mut out, mut other) = (Out::new(&pending), Out::new(&pending));
        let text = Text::new("shared".repeat(1000), &pending);
        for out in [&mut out, &mut other] {
            out.append(|bytes| bytes.extend_from_slice(b"head "));
            out.share(Arc::clone(&text));
            out.show(b" program ");
            out.push(vec![b'x'; 5000]);
        }
        drop(text);
        assert!((16_000..17_000).contains(&pending.bytes()), "the text counts once: {}", pending.bytes());
        let expected = format!("head {} program {}", "shared".repeat(1000), "x".repeat(5000));
        assert_eq!(String::from_utf8(drained(&mut out, 7)).unwrap(), expected);
        assert!((11_000..12_000).contains(&pending.bytes()), "{}", pending.bytes());
        drop(other);
        assert_eq!(pending.bytes(), 0);
    }

    #[test]
    fn short_answers_make_few_pieces() {
        let mut out = Out::new(&Pending::default());
        for _ in 0..100 {
            out.append(|_| {});
            out.push(b"a short answer".to_vec());
        }
        assert_eq!((out.pieces.len(), out.len()), (1, 1400));
        assert_eq!(drained(&mut out, 1000).len(), 1400);
    }
}
