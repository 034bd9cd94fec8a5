//! What the decoder promises, rule by rule, then as properties over any chunking, then against `tungstenite`.

use std::io::{self, Read, Write};

use proptest::prelude::*;
use tungstenite::{Message, WebSocket, protocol::WebSocketConfig};

use super::*;
use crate::websocket::{client, frame};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const MAX: usize = 2000;

/// An event that owns what it carries.
#[derive(Clone, Debug, PartialEq)]
enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Deflated(bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Event<'_>> for Owned {
    fn from(event: Event<'_>) -> Owned {
        match event {
            Event::Text(text) => Owned::Text(text.into()),
            Event::Binary(bytes) => Owned::Binary(bytes.into()),
            Event::Deflated { is_text, message } => Owned::Deflated(is_text, message.into()),
            Event::Ping(bytes) => Owned::Ping(bytes.into()),
            Event::Pong(bytes) => Owned::Pong(bytes.into()),
            Event::Close(close) => Owned::Close(close.map(|(code, reason)| (code.get(), reason.into()))),
        }
    }
}

/// Decodes `bytes` in pieces of the given sizes, over and over, and checks on the way what always holds.
fn decode_in(sizes: &[usize], role: Role, bytes: &[u8]) -> (Vec<Owned>, Option<Violation>) {
    decode_with(Decoder::new(role), sizes, bytes)
}

/// The same where messages may be compressed.
fn decode_deflated(sizes: &[usize], bytes: &[u8]) -> (Vec<Owned>, Option<Violation>) {
    let mut decoder = Decoder::new(Role::Server);
    decoder.take_deflated();
    decode_with(decoder, sizes, bytes)
}

fn decode_with(mut decoder: Decoder, sizes: &[usize], bytes: &[u8]) -> (Vec<Owned>, Option<Violation>) {
    let most = if decoder.takes_deflated() { compressed_max(MAX) } else { MAX };
    let (mut events, mut violation) = (Vec::new(), None);
    let mut bytes = bytes.to_vec();
    let mut rest = &mut bytes[..];
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let len = size.min(rest.len());
        let mut input = take(&mut rest, len);
        loop {
            let next = decoder.next(&mut input, MAX).map(|event| event.map(Owned::from));
            assert!(decoder.buffered() <= most + frame::CONTROL_MAX + size_of::<Unfinished>());
            match next {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(refused) => {
                    assert!(violation.is_none() && input.is_empty());
                    violation = Some(refused);
                }
            }
        }
        assert!(input.is_empty());
    }
    (events, violation)
}

fn decode(bytes: &[u8]) -> (Vec<Owned>, Option<Violation>) {
    decode_in(&[usize::MAX], Role::Server, bytes)
}

/// A client's frame of any kind.
fn masked(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    client::push_masked(&mut out, opcode, payload, KEY);
    if !fin {
        out[0] &= 0x7F;
    }
    out
}

fn text(text: &str) -> Owned {
    Owned::Text(text.into())
}

#[test]
fn an_idle_decoder_is_two_words() {
    assert_eq!(size_of::<Decoder>(), 2 * size_of::<usize>());
}

#[test]
fn several_frames_in_one_read_come_out_one_by_one() {
    let bytes = [masked(true, Opcode::Text, b"one"), masked(true, Opcode::Ping, b"?"), masked(true, Opcode::Text, b"")]
        .concat();
    assert_eq!(decode(&bytes), (vec![text("one"), Owned::Ping(b"?".into()), text("")], None));
}

#[test]
fn a_whole_frame_is_handed_out_from_the_input_itself() {
    let mut bytes = masked(true, Opcode::Binary, b"payload");
    let range = bytes.as_ptr_range();
    let (mut decoder, mut input) = (Decoder::new(Role::Server), &mut bytes[..]);
    let Ok(Some(Event::Binary(payload))) = decoder.next(&mut input, MAX) else { panic!("a binary message") };
    assert!(range.contains(&payload.as_ptr()));
    assert_eq!(decoder.buffered(), 0);
}

#[test]
fn memory_of_a_gathered_message_is_released_with_the_last_call() {
    let mut bytes = masked(true, Opcode::Text, &[b'x'; 500]);
    let (first, mut second) = bytes.split_at_mut(100);
    let (mut decoder, mut first) = (Decoder::new(Role::Server), first);
    assert_eq!(decoder.next(&mut first, MAX), Ok(None));
    assert!(decoder.buffered() >= 92);
    assert!(matches!(decoder.next(&mut second, MAX), Ok(Some(Event::Text(text))) if text.len() == 500));
    assert_eq!(decoder.next(&mut second, MAX), Ok(None));
    assert_eq!(decoder.buffered(), 0);
}

/// A frame that is marked as compressed.
fn marked(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = masked(fin, opcode, payload);
    out[0] |= 0x40;
    out
}

#[test]
fn a_compressed_message_is_handed_out_as_it_came_when_it_is_whole_and_text_is_not_looked_at() {
    let bytes = [
        marked(true, Opcode::Binary, b"one"),
        marked(false, Opcode::Text, b"\xff"),
        masked(true, Opcode::Ping, b"?"),
        masked(false, Opcode::Continuation, b""),
        masked(true, Opcode::Continuation, b"two"),
        masked(true, Opcode::Text, b"as it is"),
        masked(false, Opcode::Text, b"in "),
        masked(true, Opcode::Continuation, b"pieces"),
    ]
    .concat();
    let expected = vec![
        Owned::Deflated(false, b"one".into()),
        Owned::Ping(b"?".into()),
        Owned::Deflated(true, b"\xfftwo".into()),
        text("as it is"),
        text("in pieces"),
    ];
    for sizes in [1, 3, usize::MAX] {
        assert_eq!(decode_deflated(&[sizes], &bytes), (expected.clone(), None), "{sizes}");
        assert_eq!(decode_in(&[sizes], Role::Server, &bytes), (vec![], Some(Violation::ReservedBits)), "{sizes}");
    }
}

#[test]
fn only_the_first_frame_of_a_message_may_be_marked_as_compressed() {
    for bytes in [
        [marked(false, Opcode::Text, b"a"), marked(true, Opcode::Continuation, b"b")].concat(),
        [masked(false, Opcode::Text, b"a"), marked(true, Opcode::Continuation, b"b")].concat(),
        marked(true, Opcode::Ping, b""),
        marked(true, Opcode::Close, b""),
    ] {
        for sizes in [1, usize::MAX] {
            assert_eq!(decode_deflated(&[sizes], &bytes), (vec![], Some(Violation::DeflatedWithin)));
        }
    }
    // Nor is any other bit known.
    let mut bytes = marked(true, Opcode::Text, b"a");
    bytes[0] |= 0x20;
    assert_eq!(decode_deflated(&[1], &bytes), (vec![], Some(Violation::ReservedBits)));
}

#[test]
fn of_a_compressed_message_is_held_what_can_come_to_no_more_than_there_may_be() {
    let most = compressed_max(MAX);
    let halves = |last: usize| {
        [marked(false, Opcode::Binary, &vec![7; most / 2]), masked(true, Opcode::Continuation, &vec![7; last])].concat()
    };
    for sizes in [100, usize::MAX] {
        let (events, violation) = decode_deflated(&[sizes], &halves(most - most / 2));
        assert!(violation.is_none() && events == [Owned::Deflated(false, vec![7; most])]);
        assert_eq!(decode_deflated(&[sizes], &halves(most - most / 2 + 1)), (vec![], Some(Violation::TooBig)));
        // What isn't compressed has the bound that it has.
        assert_eq!(decode_deflated(&[sizes], &masked(true, Opcode::Binary, &[7; MAX + 1])).1, Some(Violation::TooBig));
    }
}

#[test]
fn control_frames_come_between_the_fragments_of_a_message() {
    let bytes = [
        masked(false, Opcode::Text, "fr€".as_bytes()),
        masked(true, Opcode::Ping, b"still there?"),
        masked(false, Opcode::Continuation, b""),
        masked(true, Opcode::Pong, b""),
        masked(true, Opcode::Continuation, b"agments"),
    ]
    .concat();
    let expected = vec![Owned::Ping(b"still there?".into()), Owned::Pong(vec![]), text("fr€agments")];
    assert_eq!(decode(&bytes), (expected.clone(), None));
    assert_eq!(decode_in(&[1], Role::Server, &bytes), (expected, None));
}

#[test]
fn a_character_may_be_cut_between_two_fragments() {
    let bytes =
        [masked(false, Opcode::Text, &[b'a', 0xE2]), masked(true, Opcode::Continuation, &[0x82, 0xAC])].concat();
    assert_eq!(decode(&bytes), (vec![text("a€")], None));
}

#[test]
fn bad_text_is_refused_in_the_middle_of_a_frame() {
    let mut bytes = masked(false, Opcode::Text, &[b'a', 0xED, 0xA0, b'b', b'c', b'd']);
    let mut decoder = Decoder::new(Role::Server);
    assert_eq!(decoder.next(&mut &mut bytes[..8], MAX), Ok(None), "a, and the start of some character");
    let violation = decoder.next(&mut &mut bytes[8..9], MAX).unwrap_err();
    assert_eq!(violation.code(), CloseCode::BAD_DATA);
}

#[test]
fn text_that_ends_inside_a_character_is_refused() {
    assert_eq!(decode(&masked(true, Opcode::Text, &[b'a', 0xE2])), (vec![], Some(Violation::BadText)));
    let bytes = [masked(false, Opcode::Text, &[0xE2]), masked(true, Opcode::Continuation, &[0x82])].concat();
    assert_eq!(decode(&bytes), (vec![], Some(Violation::BadText)));
}

#[test]
fn a_message_in_the_wrong_place_is_a_protocol_error() {
    let lone = masked(true, Opcode::Continuation, b"of what?");
    assert_eq!(decode(&lone).1, Some(Violation::LoneContinuation));
    let after_whole = [masked(true, Opcode::Text, b"whole"), lone].concat();
    assert_eq!(decode(&after_whole), (vec![text("whole")], Some(Violation::LoneContinuation)));
    let inside = [masked(false, Opcode::Text, b"begun"), masked(true, Opcode::Binary, b"another")].concat();
    assert_eq!(decode(&inside).1, Some(Violation::InterruptedMessage));
}

#[test]
fn a_client_has_to_mask_and_a_server_must_not() {
    assert_eq!(decode(&[0x81, 0x01, b'x']).1, Some(Violation::Unmasked));
    let (events, violation) = decode_in(&[usize::MAX], Role::Client, &[0x81, 0x01, b'x']);
    assert_eq!((events, violation), (vec![text("x")], None));
    let bytes = masked(true, Opcode::Text, b"x");
    assert_eq!(decode_in(&[usize::MAX], Role::Client, &bytes).1, Some(Violation::Masked));
}

#[test]
fn a_header_that_claims_far_too_much_is_refused_before_anything_is_set_aside() {
    let huge = [0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4];
    let (events, violation) = decode(&huge);
    assert_eq!((events, violation.unwrap().code()), (vec![], CloseCode::TOO_BIG));
    let overflowing = [0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    assert_eq!(decode(&overflowing).1.unwrap().code(), CloseCode::PROTOCOL_ERROR);
}

#[test]
fn the_limit_is_for_the_message_and_not_for_its_frames() {
    let fits = [masked(false, Opcode::Binary, &[1; 1000]), masked(true, Opcode::Continuation, &[2; 1000])].concat();
    assert_eq!(decode(&fits), (vec![Owned::Binary([[1; 1000], [2; 1000]].concat())], None));
    let exceeds = [masked(false, Opcode::Binary, &[1; 1000]), masked(true, Opcode::Continuation, &[2; 1001])].concat();
    assert_eq!(decode(&exceeds), (vec![], Some(Violation::TooBig)));
}

#[test]
fn nothing_comes_after_a_close_frame() {
    let bytes =
        [masked(true, Opcode::Close, &[3, 232, b'b', b'y', b'e']), masked(true, Opcode::Text, b"late")].concat();
    let expected = vec![Owned::Close(Some((1000, "bye".into())))];
    assert_eq!(decode(&bytes), (expected.clone(), None));
    assert_eq!(decode_in(&[3], Role::Server, &bytes), (expected, None));
}

#[test]
fn nothing_comes_after_a_violation() {
    let bytes = [masked(true, Opcode::Close, &[3]), masked(true, Opcode::Text, b"late")].concat();
    assert_eq!(decode(&bytes), (vec![], Some(Violation::CloseTruncated)));
    assert_eq!(decode_in(&[1], Role::Server, &bytes), (vec![], Some(Violation::CloseTruncated)));
}

#[test]
fn a_message_of_a_thousand_tiny_fragments_is_not_copied_for_each() {
    let mut bytes = masked(false, Opcode::Binary, b"x");
    for _ in 0..1000 {
        bytes.extend(masked(false, Opcode::Continuation, b"x"));
    }
    let (mut decoder, mut input) = (Decoder::new(Role::Server), &mut bytes[..]);
    let (mut capacity, mut growths) = (0, 0);
    while !input.is_empty() {
        let mut fragment = take(&mut input, 7);
        assert_eq!(decoder.next(&mut fragment, MAX), Ok(None));
        let now = decoder.buffered();
        growths += usize::from(now != capacity);
        capacity = now;
    }
    assert!(growths <= 12, "{growths} growths");
}

/// Frames as a client might send them: mostly whole messages, some of them fragmented with control frames in between,
/// and now and then something that breaks a rule.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        3 => "[ -~]{0,140}".prop_map(String::into_bytes),
        2 => "[α-ω€𝄞]{0,60}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ];
    let control = (prop::sample::select(vec![Opcode::Ping, Opcode::Pong]), prop::collection::vec(any::<u8>(), 0..126))
        .prop_map(|(opcode, payload)| masked(true, opcode, &payload));
    let pieces = prop::collection::vec((1_usize..50, prop::option::weighted(0.3, control)), 0..4);
    let message = (any::<bool>(), payload, pieces).prop_map(|(is_text, payload, pieces)| {
        let (mut out, mut rest) = (Vec::new(), &payload[..]);
        let mut opcode = if is_text { Opcode::Text } else { Opcode::Binary };
        for (len, control) in pieces {
            let (piece, after) = rest.split_at(len.min(rest.len()));
            out.extend(masked(false, opcode, piece));
            out.extend(control.unwrap_or_default());
            (rest, opcode) = (after, Opcode::Continuation);
        }
        out.extend(masked(true, opcode, rest));
        out
    });
    let closing = prop::sample::select(vec![&b""[..], &[3, 232], &[3, 233, b'b', b'y', b'e'], &[3]])
        .prop_map(|payload| masked(true, Opcode::Close, payload));
    let broken = prop::sample::select(vec![
        vec![0xC1, 0x80, 0, 0, 0, 0],
        vec![0x83, 0x80, 0, 0, 0, 0],
        vec![0x09, 0x80, 0, 0, 0, 0],
        vec![0x81, 0x01, b'x'],
        masked(true, Opcode::Ping, &[0; 126]),
        masked(false, Opcode::Text, b"begun"),
        masked(true, Opcode::Continuation, b"lone"),
        masked(true, Opcode::Text, &[0xC0, 0x80]),
        masked(true, Opcode::Binary, &[0; MAX + 1]),
    ]);
    let item = prop_oneof![20 => message, 1 => closing, 2 => broken];
    prop::collection::vec(item, 0..8).prop_map(|items| items.concat())
}

/// What `tungstenite` makes of the same bytes: its messages, and whether it refused any.
fn tungstenite(bytes: &[u8]) -> (Vec<Owned>, bool) {
    /// Ends after what was read already, and takes every answer.
    struct Ended;
    impl Read for Ended {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
    impl Write for Ended {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let config = WebSocketConfig::default().max_message_size(Some(MAX)).max_frame_size(Some(MAX));
    let role = tungstenite::protocol::Role::Server;
    let mut socket = WebSocket::from_partially_read(Ended, bytes.to_vec(), role, Some(config));
    let mut events = Vec::new();
    loop {
        events.push(match socket.read() {
            Ok(Message::Text(text)) => Owned::Text(text.as_str().into()),
            Ok(Message::Binary(bytes)) => Owned::Binary(bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Owned::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Owned::Pong(bytes.to_vec()),
            Ok(Message::Close(close)) => {
                events.push(Owned::Close(close.map(|frame| (frame.code.into(), frame.reason.as_str().into()))));
                return (events, false);
            }
            Ok(Message::Frame(_)) => unreachable!("only ever written"),
            Err(tungstenite::Error::Io(_)) => return (events, false),
            Err(_) => return (events, true),
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_chunking_gives_the_same_events(
        bytes in streams(),
        lost in prop_oneof![Just(0_usize), 0_usize..300],
        sizes in prop::collection::vec(1_usize..100, 1..20),
    ) {
        let bytes = &bytes[..bytes.len().saturating_sub(lost)];
        let whole = decode(bytes);
        prop_assert_eq!(&decode_in(&sizes, Role::Server, bytes), &whole);
        prop_assert_eq!(&decode_in(&[1], Role::Server, bytes), &whole);
    }

    // Whole frames only: in an incomplete one, a refusal comes here as soon as it is certain, there once it is complete.
    #[test]
    fn tungstenite_reads_the_same_messages_and_refuses_the_same_streams(bytes in streams()) {
        let (events, violation) = decode(&bytes);
        prop_assert_eq!((events, violation.is_some()), tungstenite(&bytes));
    }

    #[test]
    fn arbitrary_bytes_are_decoded_or_refused_within_the_memory_promised(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        sizes in prop::collection::vec(1_usize..300, 1..10),
        first in prop::sample::select(vec![0x81_u8, 0x01, 0x82, 0x02, 0x89]),
    ) {
        decode_in(&sizes, Role::Server, &bytes);
        decode_in(&sizes, Role::Client, &bytes);
        // As many again that begin like a long masked frame, since few arbitrary bytes do.
        let begun = [&[first, 0xFE, 0x07, 0xD0][..], &bytes].concat();
        prop_assert_eq!(decode_in(&sizes, Role::Server, &begun), decode(&begun));
    }

    #[test]
    fn a_client_reads_what_the_server_pushes(message in ".{0,200}", payload in prop::collection::vec(any::<u8>(), 0..126)) {
        let mut out = Vec::new();
        frame::push_text(&mut out, &message);
        frame::push_binary(&mut out, &payload);
        frame::push_ping(&mut out, &payload);
        frame::push_pong(&mut out, &payload);
        frame::push_close(&mut out, Some((CloseCode::GOING_AWAY, &message)));
        let (events, violation) = decode_in(&[usize::MAX], Role::Client, &out);
        let reason = close::fitting(&message).to_owned();
        let expected = vec![
            Owned::Text(message),
            Owned::Binary(payload.clone()),
            Owned::Ping(payload.clone()),
            Owned::Pong(payload),
            Owned::Close(Some((1001, reason))),
        ];
        prop_assert_eq!((events, violation), (expected, None));
    }
}

#[test]
fn frames_are_counted_and_those_that_bring_next_to_nothing_apart() {
    let key = [0; 4];
    let mut bytes = Vec::new();
    for (fin, opcode, len) in [
        (false, Opcode::Text, 3),
        (false, Opcode::Continuation, 0),
        (true, Opcode::Ping, 5),
        (false, Opcode::Continuation, FRAGMENT_LEAST - 1),
        (false, Opcode::Continuation, FRAGMENT_LEAST),
        (true, Opcode::Continuation, 0),
        (true, Opcode::Text, 1),
    ] {
        Header { fin, deflated: false, opcode, key: Some(key), payload_len: len as u64 }.push(&mut bytes);
        bytes.extend(std::iter::repeat_n(b'x', len));
    }
    for size in [1, 7, bytes.len()] {
        let mut decoder = Decoder::new(Role::Server);
        let mut came = Came::default();
        for piece in bytes.clone().chunks_mut(size) {
            let mut piece = piece;
            while decoder.next(&mut piece, 10_000).unwrap().is_some() {}
            let more = decoder.take_came();
            came = Came { frames: came.frames + more.frames, fragments: came.fragments + more.fragments };
        }
        assert_eq!(came, Came { frames: 7, fragments: 3 });
    }
}

#[test]
fn what_is_missing_of_a_payload_is_known() {
    let mut bytes = Vec::new();
    Header { fin: true, deflated: false, opcode: Opcode::Binary, key: Some([0; 4]), payload_len: 5000 }
        .push(&mut bytes);
    bytes.extend([0; 1000]);
    let mut decoder = Decoder::new(Role::Server);
    assert_eq!(decoder.next(&mut &mut bytes[..], 10_000), Ok(None));
    assert_eq!(decoder.missing(), 4000);
}
