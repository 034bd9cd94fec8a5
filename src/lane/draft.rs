//! A publication on its way into the lanes.
//!
//! What is to be done is done in two steps. Text is looked through, escaped, coded or divided into lines before the publication
//! has a number, that is before anybody's lock; what is left then is to copy, between the few bytes that the number is in.

use super::{LANES, Lane, Numbered, Wanted, json, raw};
use crate::publication::{Kind, Payload};

/// A payload of more bytes takes a while even to look through.
const LONG: usize = 4096;

/// Whether a payload may be of several lines.
fn is_divided(payload: &[u8]) -> bool {
    payload.len() > LONG || memchr::memchr2(b'\n', b'\r', payload).is_some()
}

/// A publication that is made ready for lanes.
#[derive(Debug)]
pub struct Draft<'a> {
    payload: Payload<'a>,
    ready: Wanted,
    /// What lanes have instead of the payload, one behind the other.
    bodies: Vec<u8>,
    /// Where in `bodies` each lane's begins and ends; nowhere, if it has the payload itself.
    places: [(usize, usize); LANES],
}

impl<'a> Draft<'a> {
    /// Whether one of these lanes may have something else than such a payload itself, for which there is to be room.
    #[inline]
    pub fn takes_room(payload: Payload<'_>, lanes: Wanted) -> bool {
        lanes.iter().any(|lane| lane.may_differ(payload.kind()))
    }

    /// A draft that is ready for these lanes, none of which [takes room](Draft::takes_room).
    #[inline]
    pub fn as_it_is(payload: Payload<'a>, lanes: Wanted) -> Draft<'a> {
        debug_assert!(!Draft::takes_room(payload, lanes));
        Draft { payload, ready: lanes, bodies: Vec::new(), places: [(0, 0); LANES] }
    }

    /// A draft that is ready for no lane. `buffer` is memory to be used again.
    #[inline]
    pub fn new(payload: Payload<'a>, mut buffer: Vec<u8>) -> Draft<'a> {
        buffer.clear();
        Draft { payload, ready: Wanted::default(), bodies: buffer, places: [(0, 0); LANES] }
    }

    /// Whether making such a payload ready for these lanes is more than to see that it is ready.
    #[inline]
    pub fn takes_time(payload: Payload<'_>, lanes: Wanted) -> bool {
        let kind = payload.kind();
        let is_looked_at = kind != Kind::Json && lanes.iter().any(Lane::asks_for_json);
        is_looked_at || lanes.iter().any(|lane| lane.may_differ(kind)) && is_divided(payload.bytes())
    }

    /// Makes it ready for those of `lanes` for which it isn't yet.
    #[inline]
    pub fn prepare(&mut self, lanes: Wanted) {
        let missing = lanes.without(self.ready);
        if missing.bits() != 0 {
            self.make_ready(missing);
        }
    }

    #[cold]
    fn make_ready(&mut self, lanes: Wanted) {
        for lane in lanes.iter() {
            if lane.asks_for_json() {
                self.payload = self.payload.settled();
            }
            if lane.may_differ(self.kind()) {
                let start = self.bodies.len();
                lane.prepare(self.payload, &mut self.bodies);
                self.places[lane as usize] = (start, self.bodies.len());
            }
        }
        self.ready = Wanted::from_bits(self.ready.bits() | lanes.bits());
    }

    /// What sort of payload it is. Whether text is JSON is settled from when a lane had to know.
    #[inline]
    pub fn kind(&self) -> Kind {
        self.payload.kind()
    }

    /// The payload's bytes.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload.bytes()
    }

    /// How many bytes the frame in `lane` has, for which it is ready.
    #[inline]
    pub fn len(&self, lane: Lane, of: &Numbered<'_>) -> usize {
        lane.len(of, self.kind(), self.body(lane))
    }

    /// Writes the frame into `room`, which has that many bytes.
    #[inline]
    pub fn write(&self, lane: Lane, of: &Numbered<'_>, room: &mut [u8]) {
        lane.write(of, self.kind(), self.body(lane), room);
    }

    /// The buffer back.
    #[inline]
    pub fn into_buffer(self) -> Vec<u8> {
        self.bodies
    }

    #[inline]
    fn body(&self, lane: Lane) -> &[u8] {
        debug_assert!(self.ready.has(lane));
        match self.places[lane as usize] {
            (start, end) if start < end => &self.bodies[start..end],
            _ => self.payload.bytes(),
        }
    }
}

/// Appends the frame that subscribers of `lane` are sent: none, of what was too large, where there are no words to say so.
pub fn push(lane: Lane, of: &Numbered<'_>, payload: Payload<'_>, out: &mut Vec<u8>) {
    if !Wanted::default().with(lane).having(payload.kind()).has(lane) {
        return;
    }
    let mut draft = Draft::new(payload, Vec::new());
    draft.prepare(Wanted::default().with(lane));
    let start = out.len();
    out.resize(start + draft.len(lane, of), 0);
    draft.write(lane, of, &mut out[start..]);
}

/// The same, for a publication that is there in another lane, in one of those that are always [written](Wanted::written), or of which
/// there is nothing: `frame` says what its frame in a lane is, if there is one.
pub fn push_from<'f>(
    lane: Lane,
    of: &Numbered<'_>,
    kind: Kind,
    frame: impl Fn(Lane) -> Option<&'f [u8]>,
    out: &mut Vec<u8>,
) {
    if kind == Kind::TooLarge {
        return push(lane, of, Payload::TooLarge, out);
    }
    let bytes = match frame(Lane::Raw) {
        Some(frame) => raw::payload_of(frame).into(),
        None => json::payload_of(frame(Lane::Json).expect("one of the two is written"), of, kind),
    };
    push(lane, of, Payload::from_parts(kind, &bytes), out);
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::{
        lane::Cursors,
        protocol::{
            cursor::{Cursor, Instance, Words},
            event,
        },
    };

    static WORDS: LazyLock<Cursors> = LazyLock::new(|| Cursors(Words::new(Instance(7))));

    fn numbered(prefix: &[u8]) -> Numbered<'_> {
        Numbered { prefix, at: 8, words: &WORDS, seq: 3, ts: 4 }
    }

    /// The id of its event: behind it.
    fn id() -> String {
        format!("id: {}\n", Cursor { tape: Instance(7), at: 9, begins: false })
    }

    fn pushed(lane: Lane, payload: Payload<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        push(lane, &numbered(&super::super::prefix("q")), payload, &mut out);
        out
    }

    #[test]
    fn a_publication_is_encoded_for_every_lane() {
        let json = r#"{"type":"update","topic":"q","seq":3,"ts":4,"data":[1]}"#;
        let payload = Payload::Text("[1]");
        assert_eq!(pushed(Lane::Raw, payload), b"\x81\x03[1]");
        assert_eq!(pushed(Lane::Json, payload)[2..], *json.as_bytes());
        assert_eq!(pushed(Lane::Events, payload), format!("{}data: {json}\n\n", id()).as_bytes());
    }

    #[test]
    fn what_was_too_large_is_told_in_every_lane_that_has_words() {
        let json = r#"{"type":"skip","topic":"q","from":3,"to":3,"why":"too_large"}"#;
        let all = Wanted::of(|_| true);
        assert_eq!(all.having(Kind::TooLarge).without(all), Wanted::default());
        for lane in Lane::ALL {
            let expected = match lane {
                Lane::Json => [&[0x81, json.len() as u8], json.as_bytes()].concat(),
                Lane::Events => format!("{}data: {json}\n\n", id()).into_bytes(),
                Lane::Raw => Vec::new(),
            };
            assert_eq!(pushed(lane, Payload::TooLarge), expected);
            assert_eq!(all.having(Kind::TooLarge).has(lane), !expected.is_empty());
            let mut made = Vec::new();
            push_from(lane, &numbered(&super::super::prefix("q")), Kind::TooLarge, |_| None, &mut made);
            assert_eq!(made, expected);
        }
    }

    #[test]
    fn an_event_is_the_message_of_the_json_lane_divided_where_it_has_line_ends() {
        let payloads = ["1", "{\r\n\"a\":\n1\r}", "no\njson", "\n1\n", ""].map(Payload::Text);
        for payload in payloads.into_iter().chain([Payload::Binary(b"\n\xff"), Payload::Plain("{\n}")]) {
            let json = pushed(Lane::Json, payload);
            let mut expected = Vec::new();
            expected.extend_from_slice(id().as_bytes());
            event::push_event(&mut expected, |out| out.extend_from_slice(&json[2..]));
            assert_eq!(pushed(Lane::Events, payload), expected, "{payload:?}");
        }
    }

    #[test]
    fn a_draft_can_be_made_ready_for_more_lanes_later() {
        let prefix = super::super::prefix("q");
        let of = numbered(&prefix);
        let all = Wanted::of(|_| true);
        for payload in [Payload::Text("a\"b"), Payload::Text("7"), Payload::Plain("7"), Payload::Binary(b"\0\n")] {
            let mut draft = Draft::new(payload, b"old".to_vec());
            for lane in Lane::ALL {
                draft.prepare(Wanted::default().with(lane));
            }
            draft.prepare(all);
            for lane in Lane::ALL {
                let mut room = vec![0; draft.len(lane, &of)];
                draft.write(lane, &of, &mut room);
                assert_eq!(room, pushed(lane, payload), "{lane:?} {payload:?}");
            }
        }
    }

    #[test]
    fn what_is_written_can_be_made_into_every_other_lane() {
        let prefix = super::super::prefix("q");
        let of = numbered(&prefix);
        let payloads = ["7", " {\r\n}", "\"\\\u{1}\u{7f}é\n", ""].map(Payload::Text);
        let others = [Payload::Binary(b""), Payload::Binary(b"\"\xff\n"), Payload::Plain("[1]"), Payload::Plain("\"")];
        for payload in payloads.into_iter().chain(others) {
            for written in (0..1 << LANES).map(|bits| Wanted::from_bits(bits).written()) {
                let mut draft = Draft::new(payload, Vec::new());
                draft.prepare(written);
                let frames = Lane::ALL.map(|lane| written.has(lane).then(|| pushed(lane, payload)));
                for lane in Lane::ALL {
                    let mut made = Vec::new();
                    push_from(lane, &of, draft.kind(), |lane| frames[lane as usize].as_deref(), &mut made);
                    assert_eq!(made, pushed(lane, payload), "{lane:?} of {written:?}: {payload:?}");
                }
            }
        }
    }
}
