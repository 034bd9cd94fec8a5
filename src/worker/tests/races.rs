//! Tokens, and when they are judged: many at one moment, a few in a turn; and one that is judged in a worker while its holder is revoked in another thread: at each place between two of the worker's calls of its edge, one after
//! the other, so that no luck is needed to meet the one that would let somebody in.

use std::cell::Cell;

use jsonwebtoken::Algorithm;
use serde_json::json;

use super::*;
use crate::{
    access::{Revocation, Rules, sign::Signer},
    config::Config,
    worker::work::price,
};

/// How somebody is there.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Door {
    /// The token comes with the request.
    Ws,
    /// It comes by `auth`.
    Auth,
    Sse,
    Raw,
}

struct Stage {
    world: World,
    token: String,
    _dir: tempfile::TempDir,
}

impl Stage {
    fn new(signer: &Signer, of: Settings) -> Stage {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("keys"), signer.jwks()).unwrap();
        let config = Config { jwt_keys: Some(dir.path().join("keys")), ..Config::default() };
        let probe = World::new(1, settings(), 4096, 1 << 20);
        let access = Rules::read(&config, probe.kernel.wall_us()).unwrap().0;
        let world = World::new(1, Settings { access, ..of }, 4096, 1 << 20);
        let mut stage = Stage { world, token: String::new(), _dir: dir };
        stage.token = stage.sign(signer, "one");
        stage
    }

    fn sign(&self, signer: &Signer, jti: &str) -> String {
        let exp = self.world.kernel.wall_us() / 1_000_000 + 3600;
        let claims = json!({"aud": "stentor", "sub": "u1", "jti": jti, "exp": exp, "stentor": {"sub": ["a"]}});
        signer.sign(&claims).unwrap()
    }

    fn knock(&mut self, door: Door) -> Peer {
        let (peer, _) = self.world.hand_over(100_000);
        let path = match door {
            Door::Ws => "/ws?topics=a",
            Door::Auth => "/ws",
            Door::Sse => "/sse?topics=a",
            Door::Raw => "/raw/a",
        };
        let mut head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n");
        if door != Door::Sse {
            head += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        }
        if door != Door::Auth {
            head += &format!("Authorization: Bearer {}\r\n", self.token);
        }
        peer.write(format!("{head}\r\n").as_bytes());
        if door == Door::Auth {
            peer.write(&command(&json!({"op": "auth", "token": self.token}).to_string()));
            peer.write(&command(r#"{"op":"sub","topics":["a"]}"#));
        }
        peer
    }
}

fn command(json: &str) -> Vec<u8> {
    let head = match json.len() {
        len @ 0..126 => vec![0x81, 0x80 | len as u8],
        len => [&[0x81, 0x80 | 126][..], &(len as u16).to_be_bytes()].concat(),
    };
    [&head[..], &[0; 4], json.as_bytes()].concat()
}

/// Somebody knocks, and is revoked just before the worker's call of this number. Returns whether there was such a call, and whether somebody had been let in
/// by then, who was found when all were looked at.
fn meet(signer: &Signer, door: Door, whom: &str, call: u32) -> (bool, bool) {
    let mut stage = Stage::new(signer, settings());
    let (shared, is_done) = (Arc::clone(&stage.world.shared), Rc::new(Cell::new(false)));
    let one = Revocation::parse(whom, u64::MAX).unwrap();
    let (wall_us, done) = (stage.world.kernel.wall_us(), Rc::clone(&is_done));
    stage.world.kernel.between(call, move || {
        shared.settings.get().access.revoke(&one, wall_us).unwrap();
        shared.publisher.wake_all();
        done.set(true);
    });
    let peer = stage.knock(door);
    stage.world.settle();
    let was_done = is_done.get();
    stage.world.kernel.between(u32::MAX, || {});
    stage.world.publish_some("a", 1, 10);
    stage.world.settle();
    let text = String::from_utf8_lossy(&peer.read(usize::MAX)).into_owned();
    let has_it = text.contains("\"pad\":\"xxxxxxxxxx\"");
    if !was_done {
        assert!(has_it, "{door:?} {call}: who isn't revoked is sent what comes: {text}");
        return (false, false);
    }
    assert!(!has_it, "{door:?} {call}: {text}");
    stage.world.pass(Duration::from_secs(20));
    assert!(peer.dropped(), "{door:?} {call}: {text}");
    let found = stage.world.shared.metrics.losses().find(|(why, _)| *why == crate::metrics::Loss::Revoked).unwrap().1;
    (true, found == 1)
}

/// What is asked for by plain HTTP, on a connection that goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Request {
    /// It waits for what comes.
    Poll,
    History,
}

/// The same of somebody who asks by requests. The place to poll from was told before; history is asked for once more afterwards.
fn ask(signer: &Signer, request: Request, whom: &str, call: u32) -> (bool, bool) {
    let mut stage = Stage::new(signer, settings());
    stage.world.publish_some("a", 1, 3);
    let (peer, _) = stage.world.hand_over(100_000);
    let say = |path: &str| {
        let token = &stage.token;
        peer.write(
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n").as_bytes(),
        );
    };
    let mut path = "/history/a".to_owned();
    if request == Request::Poll {
        say("/poll?topics=a&wait=0");
        stage.world.settle();
        let text = String::from_utf8_lossy(&peer.read(usize::MAX)).into_owned();
        let cursor = text.split_once("\"cursor\":\"").and_then(|(_, rest)| rest.split_once('"')).expect("a place").0;
        path = format!("/poll?topics=a&wait=20&cursor={cursor}");
    }
    let (shared, is_done) = (Arc::clone(&stage.world.shared), Rc::new(Cell::new(false)));
    let one = Revocation::parse(whom, u64::MAX).unwrap();
    let (wall_us, done) = (stage.world.kernel.wall_us(), Rc::clone(&is_done));
    stage.world.kernel.between(call, move || {
        shared.settings.get().access.revoke(&one, wall_us).unwrap();
        shared.publisher.wake_all();
        done.set(true);
    });
    say(&path);
    stage.world.settle();
    let (was_done, begun) = (is_done.get(), String::from_utf8_lossy(&peer.read(usize::MAX)).into_owned());
    stage.world.kernel.between(u32::MAX, || {});
    stage.world.publish_some("a", 1, 10);
    if request == Request::History && !peer.dropped() {
        say(&path);
    }
    stage.world.settle();
    let text = begun.clone() + &String::from_utf8_lossy(&peer.read(usize::MAX));
    let has_it = text.contains("\"pad\":\"xxxxxxxxxx\"");
    if !was_done {
        assert!(has_it, "{request:?} {call}: who isn't revoked is sent what comes: {text}");
        return (false, false);
    }
    assert!(!has_it, "{request:?} {call}: {text}");
    // It doesn't wait for its time to end.
    assert!(text.contains("HTTP/1.1 401 ") || peer.dropped(), "{request:?} {call}: {text}");
    let was_in = match request {
        // What it was answered was its own when it was sent.
        Request::History => begun.starts_with("HTTP/1.1 200 "),
        // Once for the place, and once more.
        Request::Poll => stage.world.shared.metrics.tokens[0].get() == 2,
    };
    (true, was_in)
}

#[test]
fn a_request_that_is_judged_while_its_holder_is_revoked_is_answered_nothing_from_then_on() {
    let signer = Signer::make(Algorithm::HS256).unwrap().0;
    for request in [Request::Poll, Request::History] {
        for whom in [r#"{"sub":"u1"}"#, r#"{"jti":"one"}"#] {
            let (mut refused, mut was_in) = (0, 0);
            for call in 1.. {
                let (is_there, is_in) = ask(&signer, request, whom, call);
                if !is_there {
                    break;
                }
                *if is_in { &mut was_in } else { &mut refused } += 1;
            }
            assert!(refused >= 1 && was_in >= 1, "{request:?}: refused at {refused} places, let in at {was_in}");
        }
    }
}

#[test]
fn a_token_that_is_judged_while_its_holder_is_revoked_lets_nobody_stay_wherever_the_two_meet() {
    let signer = Signer::make(Algorithm::HS256).unwrap().0;
    for door in [Door::Ws, Door::Auth, Door::Sse, Door::Raw] {
        for whom in [r#"{"sub":"u1"}"#, r#"{"jti":"one"}"#] {
            let (mut refused, mut found) = (0, 0);
            for call in 1.. {
                let (is_there, was_in) = meet(&signer, door, whom, call);
                if !is_there {
                    break;
                }
                *if was_in { &mut found } else { &mut refused } += 1;
            }
            assert!(refused >= 1 && found >= 1, "{door:?}: refused at {refused} places, found later at {found}");
        }
    }
}

#[test]
fn many_tokens_at_one_moment_are_judged_a_few_in_a_turn_and_all_of_them_in_the_end() {
    let signer = Signer::make(Algorithm::HS256).unwrap().0;
    let mut stage = Stage::new(&signer, Settings { turn_work: 2 * price::TOKEN, ..settings() });
    let mut peers = Vec::new();
    for n in 0..40 {
        stage.token = stage.sign(&signer, &format!("t{n}"));
        // Half of them say `auth`, four times each.
        peers.push(stage.knock(if n % 2 == 0 { Door::Ws } else { Door::Auth }));
        if n % 2 == 1 {
            for again in 0..3 {
                let token = stage.sign(&signer, &format!("t{n}.{again}"));
                peers[n].write(&command(&json!({"op": "auth", "token": token}).to_string()));
            }
        }
    }
    let judged = |world: &World| world.shared.metrics.tokens[0].get();
    let (mut most, mut before) = (0, 0);
    for _ in 0..10_000 {
        if judged(&stage.world) == 100 {
            break;
        }
        stage.world.kernel.allow(Duration::from_millis(1));
        stage.world.turn();
        let now = judged(&stage.world);
        (most, before) = (most.max(now - before), now);
    }
    assert_eq!(before, 100, "some are never judged");
    assert!(most <= 3, "{most} in one turn");
    assert_eq!(stage.world.shared.metrics.tokens[1].get(), 0);
}

#[test]
fn a_clock_that_is_set_ends_tokens_by_the_new_time_within_half_a_minute_and_one_set_back_lets_them_last() {
    let signer = Signer::make(Algorithm::HS256).unwrap().0;
    for (step_s, ends) in [(3700, true), (3500, false), (-86_400, false)] {
        let mut stage = Stage::new(&signer, settings());
        let peer = stage.knock(Door::Sse);
        stage.world.settle();
        assert!(peer.arrived() > 0);
        stage.world.kernel.step_wall_clock(step_s * 1_000_000);
        stage.world.pass(Duration::from_secs(31));
        assert_eq!(peer.dropped(), ends, "{step_s}");
        let text = String::from_utf8_lossy(&peer.read(usize::MAX)).into_owned();
        assert_eq!(text.contains("the token has expired"), ends, "{text}");
    }
}
