//! The lanes: the forms in which publications go to their subscribers, one file each.
//!
//! Adding a lane is its file and its line in the list below.

mod address;
pub mod draft;
pub mod events;
pub mod json;
pub mod raw;
mod words;

pub use address::Address;
pub use draft::Draft;
pub use words::{Asked, Words};

use std::ops::Deref;

use crate::{
    protocol::cursor,
    publication::{Epoch, Kind, Payload},
};

/// Makes [`Lane`] of the list of lanes.
macro_rules! lanes {
    ($($(#[$about:meta])* $lane:ident = $format:expr,)+) => {
        /// Which encoding of the publications a subscriber is sent.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Lane {
            $($(#[$about])* $lane,)+
        }

        impl Lane {
            /// All lanes, in order.
            pub const ALL: [Lane; [$(Lane::$lane),+].len()] = [$(Lane::$lane),+];

            // How publications are put into it, without a call through a table.

            #[inline]
            fn asks_for_json(self) -> bool {
                match self {
                    $(Lane::$lane => $format.asks_for_json(),)+
                }
            }

            #[inline]
            fn may_differ(self, kind: Kind) -> bool {
                match self {
                    $(Lane::$lane => $format.may_differ(kind),)+
                }
            }

            fn prepare(self, payload: Payload<'_>, body: &mut Vec<u8>) {
                match self {
                    $(Lane::$lane => $format.prepare(payload, body),)+
                }
            }

            #[inline]
            fn len(self, of: &Numbered<'_>, kind: Kind, body: &[u8]) -> usize {
                match self {
                    $(Lane::$lane => $format.len(of, kind, body),)+
                }
            }

            #[inline]
            fn write(self, of: &Numbered<'_>, kind: Kind, body: &[u8], room: &mut [u8]) {
                match self {
                    $(Lane::$lane => $format.write(of, kind, body, room),)+
                }
            }

            /// How it is spoken.
            #[inline]
            pub fn words(self) -> &'static dyn Words {
                match self {
                    $(Lane::$lane => &$format,)+
                }
            }
        }
    };
}

lanes! {
    /// The `update` envelope in a text frame, for `/ws`.
    Json = json::Json,
    /// The payload alone in a frame of its own kind, for `/raw`.
    Raw = raw::Raw,
    /// The `update` envelope as a Server-Sent Event, for `/sse`.
    Events = events::Events,
}

/// How many lanes there are.
pub const LANES: usize = Lane::ALL.len();

/// How many lanes there is room for, wherever something is kept for each.
pub const LANES_MAX: usize = 5;

const _: () = assert!(LANES <= LANES_MAX);

/// How a lane has publications. What one is of before it has its number comes first, so that it can be done without a lock.
pub trait Encoding {
    /// Whether it has to be known of text if it is JSON.
    fn asks_for_json(&self) -> bool;

    /// Whether it may have another body for such a payload than the payload's own bytes. A lane that asks for JSON has one for
    /// text.
    fn may_differ(&self, kind: Kind) -> bool;

    /// Appends the payload as this lane has it, unless that is the payload's own bytes: then nothing.
    fn prepare(&self, payload: Payload<'_>, body: &mut Vec<u8>);

    /// How many bytes the frame has; never none. `body` is what was prepared. Not asked of what was too large where a lane
    /// [tells](Words::tells) nothing.
    fn len(&self, of: &Numbered<'_>, kind: Kind, body: &[u8]) -> usize;

    /// Writes the frame into `room`, which has that many bytes.
    fn write(&self, of: &Numbered<'_>, kind: Kind, body: &[u8], room: &mut [u8]);
}

/// What a publication has got where it was taken in.
#[derive(Clone, Copy, Debug)]
pub struct Numbered<'a> {
    /// What it begins with: its topic's [`prefix`], or [`first_prefix`].
    pub prefix: &'a [u8],
    /// Its number on the tape.
    pub at: u64,
    /// What the cursors of the tape are made with.
    pub words: &'a Cursors,
    /// Its number within the topic.
    pub seq: u64,
    /// When it was taken in, in microseconds since the Unix epoch.
    pub ts: u64,
}

/// What the cursors of a tape are made with, of which some lanes say one for each publication.
#[derive(Debug)]
pub struct Cursors(cursor::Words);

impl Cursors {
    /// For those of a tape that is made now.
    pub fn random() -> Cursors {
        Cursors(cursor::Words::new(cursor::Instance::random()))
    }
}

impl Deref for Cursors {
    type Target = cursor::Words;

    fn deref(&self) -> &cursor::Words {
        &self.0
    }
}

/// What the updates of a topic begin with, but for the first, in whatever lane: made once for each topic.
pub fn prefix(topic: &str) -> Box<[u8]> {
    crate::protocol::update_prefix(topic)
}

/// What the first of them begins with, in whatever lane.
pub fn first_prefix(topic: &str, epoch: Epoch) -> Box<[u8]> {
    crate::protocol::first_update_prefix(topic, &epoch.to_string())
}

/// A set of lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted(u8);

impl Wanted {
    /// Those of which `is_in` says so.
    pub fn of(is_in: impl Fn(Lane) -> bool) -> Wanted {
        Lane::ALL.into_iter().filter(|lane| is_in(*lane)).fold(Wanted::default(), Wanted::with)
    }

    /// The set that has such [`Wanted::bits`].
    #[inline]
    pub fn from_bits(bits: u8) -> Wanted {
        Wanted(bits)
    }

    /// The set as a number.
    #[inline]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The set and one more.
    #[inline]
    #[must_use]
    pub fn with(self, lane: Lane) -> Wanted {
        Wanted(self.0 | 1 << lane as u8)
    }

    /// Whether a lane is in it.
    #[inline]
    pub fn has(self, lane: Lane) -> bool {
        self.0 >> lane as u8 & 1 == 1
    }

    /// Those that aren't in `other`.
    #[inline]
    #[must_use]
    pub fn without(self, other: Wanted) -> Wanted {
        Wanted(self.0 & !other.0)
    }

    /// The lanes in it, in order.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = Lane> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let lane = *Lane::ALL.get(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(lane)
        })
    }

    /// Those in which such a publication has a frame: what was too large is told where there are words for it.
    #[inline]
    #[must_use]
    pub fn having(self, kind: Kind) -> Wanted {
        if kind == Kind::TooLarge { self.telling() } else { self }
    }

    #[cold]
    fn telling(self) -> Wanted {
        Wanted::of(|lane| self.has(lane) && lane.words().tells())
    }

    /// The lanes that are written when these are wanted: one at least, of those from which the others can be made, so that
    /// the history is there for whoever comes later.
    #[inline]
    #[must_use]
    pub fn written(self) -> Wanted {
        if self.has(Lane::Json) { self } else { self.with(Lane::Raw) }
    }
}
