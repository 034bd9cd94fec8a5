//! Rights that become less while publications, rounds and snapshots are on their way: of a topic that somebody lost not a byte is given
//! to the kernel any more, and of those that are left nothing is missing.
//!
//! Clients read by hand here and see what the edge was given, byte by byte: a look at all that has arrived when the worker has seen to
//! the new rules is what was given before.

use super::*;
use crate::{config::Config, metrics::Loss};

/// With these, whoever shows nothing may see so much.
fn rules(names: &[&str]) -> Rules {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Rules::of(&Config { jwt_keys: Some("none".into()), anonymous_subscribe: names, ..Config::default() })
}

fn command(json: &str) -> Vec<u8> {
    let head = match json.len() {
        len @ 0..126 => vec![0x81, 0x80 | len as u8],
        len => [&[0x81, 0x80 | 126][..], &(len as u16).to_be_bytes()].concat(),
    };
    [&head[..], &[0; 4], json.as_bytes()].concat()
}

/// Somebody who is subscribed, and all that it was sent.
struct Reader {
    peer: Peer,
    /// How it has `a`, and how `b`.
    ways: [&'static str; 2],
    wants: [bool; 2],
    /// It takes everything at once.
    is_quick: bool,
    bytes: Vec<u8>,
    /// So many of them were given before it lost `b`.
    before: usize,
}

/// What it was sent: each message, and where it ends.
struct Heard {
    messages: Vec<(usize, serde_json::Value)>,
    closed: Option<u16>,
    /// It ends within one.
    is_broken_off: bool,
}

impl Reader {
    fn open(world: &mut World, room: usize, ways: [&'static str; 2], wants: [bool; 2], is_quick: bool) -> Reader {
        let (peer, _) = world.hand_over(room);
        peer.write(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        let reader = Reader { peer, ways, wants, is_quick, bytes: Vec::new(), before: 0 };
        reader.subscribe();
        reader
    }

    fn subscribe(&self) {
        let [a, b] = self.ways;
        let ask =
            |names: &str, way: &str| self.peer.write(&command(&format!(r#"{{"op":"sub","topics":[{names}]{way}}}"#)));
        match self.wants {
            [true, true] if a == b => ask("\"a\",\"b\"", a),
            wants => {
                [("\"a\"", a), ("\"b\"", b)].into_iter().zip(wants).filter(|it| it.1).for_each(|it| ask(it.0.0, it.0.1))
            }
        }
    }

    fn is_mixed(&self) -> bool {
        self.wants[0] && self.ways[0] != self.ways[1]
    }

    fn read(&mut self, most: usize) -> bool {
        let bytes = self.peer.read(most);
        self.bytes.extend_from_slice(&bytes);
        !bytes.is_empty()
    }

    fn heard(&self) -> Heard {
        let head = self.bytes.windows(4).position(|end| end == b"\r\n\r\n").map_or(self.bytes.len(), |at| at + 4);
        let (mut at, mut heard) = (head, Heard { messages: Vec::new(), closed: None, is_broken_off: false });
        while let Some(rest) = self.bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let (len, from) = match rest.get(1) {
                Some(126) if rest.len() >= 4 => (usize::from(u16::from_be_bytes([rest[2], rest[3]])), 4),
                Some(len @ 0..126) => (usize::from(*len), 2),
                _ => (usize::MAX / 2, 0),
            };
            let Some(payload) = rest.get(from..from + len) else {
                heard.is_broken_off = true;
                break;
            };
            at += from + len;
            match rest[0] {
                0x81 => heard.messages.push((at, serde_json::from_slice(payload).unwrap())),
                0x88 => heard.closed = payload.first_chunk().map(|code| u16::from_be_bytes(*code)),
                _ => {}
            }
        }
        heard
    }
}

impl World {
    fn read_quick(&mut self, readers: &mut [Reader], rng: &mut fastrand::Rng) {
        for _ in 0..3 {
            self.settle();
            for reader in readers.iter_mut() {
                let most = if reader.is_quick { usize::MAX } else { rng.usize(..300) };
                reader.read(most);
            }
        }
    }

    fn read_out(&mut self, readers: &mut [Reader]) {
        loop {
            self.kernel.allow(Duration::from_secs(2));
            self.settle();
            if !readers.iter_mut().fold(false, |any, reader| reader.read(usize::MAX) | any) {
                return;
            }
        }
    }
}

/// What became of those who lost something, over all scripts.
#[derive(Default)]
struct Outcomes {
    /// Were told, and went on.
    told: usize,
    /// The same, of those who were behind.
    told_behind: usize,
    /// The same, of those who had what they lost in another way than what is left.
    told_mixed: usize,
    /// Were closed, or cut.
    ended: usize,
}

const READERS: usize = 12;

const WAYS: [&str; 3] = ["", r#","mode":"latest""#, r#","mode":"latest","rate":4"#];

fn script(seed: u64, outcomes: &mut Outcomes) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let before = rules(&["a", "b"]);
    let after = rules(&["a"]).after(&before);
    // Odd ones: no edge holds anything back, so that what has arrived is all that was given.
    let mut world = World::new(2 * seed + 1, Settings { access: before, ..settings() }, 4096, 1 << 20);
    let mut readers = Vec::new();
    for n in 0..READERS {
        let is_quick = n < 3 || n == 8;
        let room = if is_quick { 100_000 } else { rng.usize(100..3000) };
        let wants = [rng.bool(), true];
        let ways = if n < 8 { [WAYS[n % 3]; 2] } else { [(); 2].map(|()| WAYS[rng.usize(..3)]) };
        readers.push(Reader::open(&mut world, room, ways, wants, is_quick));
    }
    world.read_quick(&mut readers, &mut rng);
    for _ in 0..rng.usize(2..20) {
        let (topic, count, pad) = (if rng.bool() { "a" } else { "b" }, rng.usize(1..6), rng.usize(..400));
        world.publish_some(topic, count, pad);
        match rng.u8(..4) {
            0 => world.read_quick(&mut readers, &mut rng),
            1 => world.settle(),
            2 => world.pass(Duration::from_millis(300)),
            _ => {}
        }
        if rng.u8(..6) == 0 {
            // With snapshots of both, once more.
            let at = rng.usize(3..READERS);
            readers[at].subscribe();
        }
    }
    // Else a send that the edge took in part may leave even those that read at once within a publication.
    let is_calm = rng.bool();
    if is_calm {
        world.read_quick(&mut readers, &mut rng);
    }
    let behind: Vec<bool> = readers.iter().map(|reader| reader.peer.arrived() > 0).collect();
    world.shared.settings.set(Settings { access: after, ..settings() });
    world.shared.publisher.wake_all();
    for _ in 0..40 {
        world.turn_of(0);
    }
    for reader in &mut readers {
        // No turn passes meanwhile.
        reader.read(usize::MAX);
        reader.before = reader.bytes.len();
    }
    world.publish_some("b", 3, 50);
    world.publish_some("a", 3, 50);
    world.read_quick(&mut readers, &mut rng);
    world.publish_some("a", 1, 20);
    world.publish_some("b", 1, 20);
    world.pass(Duration::from_secs(2));
    world.read_out(&mut readers);
    let last =
        world.journal.all.iter().filter(|publication| publication.topic == "a").map(|it| it.seq).max().unwrap_or(0);
    for (reader, behind) in readers.iter().zip(behind) {
        let Heard { messages, closed, is_broken_off } = reader.heard();
        let (mut told, mut seq_of_a) = (0, None);
        for (end, message) in &messages {
            let (kind, topic) = (message["type"].as_str().unwrap(), message["topic"].as_str());
            let is_data = matches!(kind, "update" | "snapshot");
            assert!(
                !(is_data && topic == Some("b") && *end > reader.before),
                "{} of {}: {message}",
                end,
                reader.before
            );
            if kind == "error" && message["topic"] == "b" {
                assert_eq!(message["code"], "forbidden");
                told += 1;
            } else if kind == "error" {
                // A subscription on its way, or one that came too late.
                assert_eq!(message["code"], "forbidden", "{message}");
            }
            if is_data && topic == Some("a") {
                let seq = message["seq"].as_u64().unwrap();
                let is_next = seq_of_a.is_none_or(|before| seq == before + 1);
                assert!(is_next || kind == "snapshot" || !reader.ways[0].is_empty(), "{message} behind {seq_of_a:?}");
                assert!(
                    seq_of_a.is_none_or(|before| seq > before || kind == "snapshot"),
                    "{message} behind {seq_of_a:?}"
                );
                seq_of_a = Some(seq);
            }
        }
        assert!(told <= 1, "it is told once");
        let has_ended = closed.is_some() || is_broken_off || reader.peer.dropped();
        if has_ended {
            let how = (reader.ways, reader.wants, closed, is_broken_off, reader.peer.dropped(), messages.last());
            assert!(!is_calm || !reader.is_quick, "who has had everything goes on: {how:?}");
            assert!(closed.is_none_or(|code| code == 1013), "{closed:?}");
            outcomes.ended += 1;
            continue;
        }
        assert_eq!(told, 1, "it lost b, and is told");
        outcomes.told += 1;
        outcomes.told_behind += usize::from(behind);
        outcomes.told_mixed += usize::from(behind && reader.is_mixed());
        if reader.wants[0] {
            assert_eq!(seq_of_a, Some(last), "nothing of a is missing in the end");
        }
    }
    let lost = |why| world.shared.metrics.losses().find(|(other, _)| *other == why).map_or(0, |(_, count)| count);
    assert_eq!(lost(Loss::Names) + lost(Loss::Narrowed), READERS as u64);
    assert!(world.shared.metrics.rights_judged.get() >= READERS as u64);
}

#[test]
fn of_what_somebody_lost_nothing_is_sent_any_more_and_of_the_rest_nothing_is_missing() {
    let mut outcomes = Outcomes::default();
    if let Ok(seed) = std::env::var("STENTOR_SEED") {
        return script(seed.parse().unwrap(), &mut outcomes);
    }
    let seeds = seeds::wanted(SEEDS) / 4;
    for seed in 0..seeds {
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| script(seed, &mut outcomes)));
        if let Err(panic) = tried {
            eprintln!("the script that failed: STENTOR_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
    let Outcomes { told, told_behind, told_mixed, ended } = outcomes;
    assert!(
        told_behind > 0 && told_mixed > 0 && ended > 0 && told > ended,
        "{told} told, {told_behind} of them behind, {told_mixed} of these in two ways; {ended} ended"
    );
}
