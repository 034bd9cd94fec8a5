//! Answers that are longer than a send, of somebody who is at the head.

use super::*;

/// A command, under the key 0.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).expect("it is short");
    let head = match len {
        0..126 => vec![0x80 | opcode, 0x80 | len as u8],
        _ => [&[0x80 | opcode, 0x80 | 126][..], &len.to_be_bytes()].concat(),
    };
    [&head[..], &[0; 4], payload].concat()
}

/// The text messages of what a server has sent behind its head; the rest must be pongs.
fn messages(mut bytes: &[u8]) -> Vec<serde_json::Value> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (begin, long) = match bytes[1] {
            126 => (4, u16::from_be_bytes([bytes[2], bytes[3]]) as usize),
            127 => (10, u64::from_be_bytes(bytes[2..10].try_into().unwrap()) as usize),
            len => (2, len as usize),
        };
        let (payload, rest) = bytes[begin..].split_at(long);
        match bytes[0] {
            0x81 => found.push(serde_json::from_slice(payload).expect("a whole message")),
            opcode => assert_eq!(opcode, 0x8a),
        }
        bytes = rest;
    }
    found
}

const UPGRADE: &[u8] = b"GET /ws?topics=a HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn what_is_published_never_comes_into_the_middle_of_an_answer() {
    let mut world = roomy(Settings { turn_work: 100_000, ..quiet() });
    let [lists, pings] = [(), ()].map(|()| {
        let (peer, _) = world.hand_over(1 << 20);
        peer.write(UPGRADE);
        peer
    });
    world.run();
    let names: Vec<String> = (0..1000).map(|n| format!("{n:0100}")).collect();
    for some in names.chunks(100) {
        lists.write(&frame(1, format!(r#"{{"op":"sub","topics":["{}"]}}"#, some.join(r#"",""#)).as_bytes()));
        world.run();
    }
    lists.read(usize::MAX);
    let mut firsts = BTreeMap::new();
    // With some of these the turn's reading is over when one send of the answer went.
    for n in 0..400 {
        pings.write(&frame(9, b"").repeat(n));
        lists.write(&frame(1, br#"{"op":"list"}"#));
        world.publish_some("a", 1, 0);
        world.run();
        let sent = messages(&lists.read(usize::MAX));
        pings.read(usize::MAX);
        assert_eq!(sent.len(), 2);
        *firsts.entry(sent[0]["type"].to_string()).or_insert(0) += 1;
    }
    assert_eq!(firsts.len(), 2, "{firsts:?}: some are answered before, and some behind");
}
