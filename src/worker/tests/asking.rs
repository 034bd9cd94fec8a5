//! Commands that are not small: what they cost in a turn, who waits for them, and what becomes of those behind them.

use super::*;

/// A client that says what it likes and reads when it likes.
struct Guest {
    peer: Peer,
    input: Vec<u8>,
}

impl Guest {
    fn ask(&self, path: &str) {
        self.peer.write(
            format!(
                "GET {path} HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            .as_bytes(),
        );
    }

    fn send(&self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            len @ 0..126 => frame.push(0x80 | len as u8),
            len => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(len as u16).to_be_bytes());
            }
        }
        // A key that changes nothing.
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        self.peer.write(&frame);
    }

    fn say(&self, command: &str) {
        self.send(1, command.as_bytes());
    }

    /// What has arrived, frame by frame: pongs as `"pong"`.
    fn read(&mut self) -> Vec<String> {
        self.input.extend(self.peer.read(usize::MAX));
        if self.input.starts_with(b"HTTP/1.1 101 ") {
            let end = self.input.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
            self.input.drain(..end);
        }
        let mut frames = Vec::new();
        while let Some((opcode, len, head)) = self.next_frame() {
            let payload: Vec<u8> = self.input.drain(..head + len).skip(head).collect();
            frames.push(match opcode {
                1 => String::from_utf8(payload).unwrap(),
                10 => "pong".into(),
                _ => format!("{opcode}"),
            });
        }
        frames
    }

    fn next_frame(&self) -> Option<(u8, usize, usize)> {
        let (first, len) = (*self.input.first()?, *self.input.get(1)?);
        let (len, head) = match len {
            126 => (u16::from_be_bytes(self.input.get(2..4)?.try_into().unwrap()).into(), 4),
            127 => (u64::from_be_bytes(self.input.get(2..10)?.try_into().unwrap()) as usize, 10),
            len => (len.into(), 2),
        };
        (self.input.len() >= head + len).then_some((first & 15, len, head))
    }
}

impl World {
    fn guest(&mut self, room: usize) -> Guest {
        self.guest_at(room, "/ws")
    }

    fn guest_at(&mut self, room: usize, path: &str) -> Guest {
        let guest = Guest { peer: self.hand_over(room).0, input: Vec::new() };
        guest.ask(path);
        self.kernel.allow(Duration::ZERO);
        self.turn();
        guest
    }

    fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.kernel.allow(Duration::ZERO);
            self.turn();
        }
    }

    fn asked(&self) -> u64 {
        self.shared.metrics.workers[0].work[work::Step::Ask as usize].get()
    }
}

/// A world with so many topics, each with a value of a hundred bytes, and no bad luck.
fn with_topics(count: usize, settings: Settings) -> World {
    let mut world = World::new(1, settings, 1 << 20, 32 << 20);
    for n in 0..count {
        world.publish_some(&format!("t.{n:x}.v"), 1, 80);
    }
    world
}

fn ample() -> Settings {
    Settings { pending_max: 16 << 20, ..settings() }
}

const ALL: &str = r#"{"op":"sub","id":1,"topics":[">"]}"#;

fn is(frame: &str, kind: &str) -> bool {
    frame.starts_with(&format!(r#"{{"type":"{kind}""#))
}

/// Takes turns until something of this type has come; returns how many, and all that came.
fn turns_until(world: &mut World, guest: &mut Guest, kind: &str) -> (usize, Vec<String>) {
    let mut frames = Vec::new();
    for turn in 1..2000 {
        world.turns(1);
        frames.extend(guest.read());
        if frames.iter().any(|frame| is(frame, kind)) {
            return (turn, frames);
        }
    }
    panic!("no {kind}: {:?}", &frames[..frames.len().min(5)]);
}

#[test]
fn a_client_that_asks_for_all_topics_again_and_again_keeps_nobody_waiting() {
    for how in [r#""snapshot":false"#, r#""mode":"latest","snapshot":false"#, r#""snapshot":true"#] {
        let mut world = with_topics(20_000, ample());
        let (greedy, mut other) = (world.guest(100 << 20), world.guest(1 << 20));
        world.settle();
        other.read();
        for _ in 0..100 {
            greedy.say(&format!(r#"{{"op":"sub","topics":[">"],{how}}}"#));
        }
        world.turns(3);
        other.say(r#"{"op":"ping"}"#);
        let (turns, _) = turns_until(&mut world, &mut other, "pong");
        assert!(turns <= 20, "{turns} turns: {how}");
        let waiting = world.posts[0].worker.desk.asking.waiting().0;
        assert_eq!(waiting, 1, "not all of it was done in a few turns: {how}");
    }
}

#[test]
fn a_thousand_patterns_beside_twenty_thousand_topics_take_turns_and_find_what_they_stand_for() {
    let mut world = with_topics(20_000, Settings { message_max: 64 * 1024, ..ample() });
    let mut guest = world.guest(10 << 20);
    world.settle();
    guest.read();
    let patterns: Vec<String> = (0..1000).map(|n| format!("\"*.{:x}.*\"", 19_500 + n)).collect();
    guest.say(&format!(r#"{{"op":"sub","topics":[{}]}}"#, patterns.join(",")));
    let (turns, _) = turns_until(&mut world, &mut guest, "ack");
    assert!((5..200).contains(&turns), "{turns}");
    let mut snapshots = 0;
    for _ in 0..50 {
        world.turns(1);
        snapshots += guest.read().iter().filter(|frame| is(frame, "snapshot")).count();
    }
    // The first of them come with the acknowledgement.
    assert!((300..=500).contains(&snapshots), "{snapshots}");
}

#[test]
fn snapshots_that_are_more_than_may_wait_are_refused_before_all_of_them_were_found() {
    let mut world = with_topics(20_000, Settings { pending_max: 100_000, ..settings() });
    let mut guest = world.guest(1 << 20);
    world.settle();
    guest.read();
    guest.say(ALL);
    let (_, frames) = turns_until(&mut world, &mut guest, "error");
    assert!(frames.last().unwrap().contains("too_many_topics"), "{frames:?}");
    let asked = world.asked();
    assert!(asked < 50_000, "{asked}: as much as it takes to look at all topics");
    assert_eq!(world.shared.subscriptions.total(), 0);
}

/// A world with a short tape, and a client that asks for many topics there: some of them are found in the first turns, and then so
/// often the tape rolls on between two turns over all that was published since.
fn asking_while_the_tape_rolls_on(found: usize, floods: usize) -> (World, usize) {
    let mut world = World::new(1, Settings { turn_work: 2000, ..ample() }, 4096, 16 * 1024);
    for n in 0..600 {
        world.publish_some(&format!("t.{n:x}.v"), 1, 20);
    }
    let at = world.connect(10 << 20, Speech::Json, &[]);
    world.settle();
    let World { clients, journal, .. } = &mut world;
    clients[at].sub(vec!["t.>".into()], true, journal);
    world.turns(found);
    for flood in 0..floods {
        for n in 0..60 {
            world.publish_some(&format!("t.{:x}.v", (flood * 60 + n) * 7 % 600), 1, 400);
        }
        world.turns(1);
    }
    (world, at)
}

#[test]
fn a_subscription_that_the_tape_rolls_on_over_begins_anew_and_has_what_is_newest() {
    for found in [10, 17, 24, 31] {
        let (mut world, at) = asking_while_the_tape_rolls_on(found, 1 + found % 3);
        // The client checks each snapshot.
        world.settle();
        let end = world.journal.len();
        world.clients[at].check_complete(end, &world.journal, 0);
        assert_eq!(world.shared.subscriptions.total(), 1);
    }
}

#[test]
fn a_subscription_that_the_tape_rolls_on_over_again_and_again_is_refused_and_leaves_nothing() {
    let (mut world, at) = asking_while_the_tape_rolls_on(5, 200);
    let told = world.clients[at].peer.read(usize::MAX);
    let told = String::from_utf8_lossy(&told);
    assert!(told.contains("too_many_topics") && told.contains("more is published than"), "{told}");
    assert_eq!(world.shared.subscriptions.total(), 0);
    world.clients[at].state = State::Left;
    world.clients[at].peer.end();
    world.settle();
    world.check_nothing_left();
}

#[test]
fn names_that_are_refused_cost_no_look_at_a_topic() {
    let mut world = with_topics(5000, Settings { subscriptions_max: 1, ..settings() });
    let mut guest = world.guest(1 << 20);
    world.settle();
    guest.read();
    guest.say(r#"{"op":"sub","topics":["*.a.>"],"snapshot":false}"#);
    turns_until(&mut world, &mut guest, "ack");
    let before = world.asked();
    guest.say(ALL);
    let (_, frames) = turns_until(&mut world, &mut guest, "error");
    assert!(frames.last().unwrap().contains("too_many_subscriptions"), "{frames:?}");
    assert!(world.asked() - before < 1000);
}

#[test]
fn a_client_that_reads_nothing_and_changes_its_subscription_holds_a_few_changes() {
    for how in ["all", "latest"] {
        let mut world = with_topics(500, ample());
        let guest = world.guest(3000);
        guest.say(&format!(r#"{{"op":"sub","topics":[">"],"mode":"{how}"}}"#));
        for n in 0..2000 {
            guest.say(&format!(r#"{{"op":"sub","topics":["x.{n}"],"mode":"latest","snapshot":false}}"#));
            guest.say(r#"{"op":"unsub","topics":["x"]}"#);
            world.turns(1);
        }
        let worker = &world.posts[0].worker;
        let (_, connection) = worker.connections.iter().next().unwrap();
        assert!(connection.unread, "what waits grows for as long as it writes");
        let (waiting, bytes) = worker.desk.asking.waiting();
        assert!(waiting == 1 && (8000..40_000).contains(&bytes), "{waiting} {bytes}");
        assert!(worker.fan.interest.cohorts() <= 10, "{} cohorts", worker.fan.interest.cohorts());
        // It reads again, and has all of it done.
        let mut guest = guest;
        let mut answers = 0;
        while answers < 4001 {
            world.turns(1);
            answers += guest.read().iter().filter(|frame| is(frame, "ack") || is(frame, "error")).count();
        }
        assert_eq!(world.posts[0].worker.desk.asking.waiting(), (0, 0), "{how}");
    }
}

#[test]
fn what_is_published_while_a_command_goes_on_is_read_a_piece_at_a_time() {
    let mut world = with_topics(3000, Settings { turn_work: 5000, ..ample() });
    let mut guest = world.guest(10 << 20);
    world.settle();
    guest.read();
    guest.say(ALL);
    world.turns(4);
    assert_eq!(world.posts[0].worker.desk.asking.waiting().0, 1);
    world.publish_some("t.0.v", 20_000, 0);
    // No step of a turn goes beyond what it may cost.
    let (turns, _) = turns_until(&mut world, &mut guest, "ack");
    assert!(turns > 5, "{turns}");
}

#[test]
fn the_tables_of_newest_values_are_told_of_topics_as_these_are_found_and_not_of_all_at_once() {
    let mut world = with_topics(8000, Settings { turn_work: 20_000, ..ample() });
    let (other, mut guest) = (world.guest(1 << 20), world.guest(10 << 20));
    // The tables are kept for whoever is there.
    other.say(r#"{"op":"sub","topics":["x"],"mode":"latest"}"#);
    world.settle();
    guest.read();
    guest.say(r#"{"op":"sub","topics":[">"],"mode":"latest","snapshot":false}"#);
    // No step of a turn goes beyond what it may cost.
    let (turns, _) = turns_until(&mut world, &mut guest, "ack");
    assert!(turns > 5, "{turns}");
}

#[test]
fn what_a_command_has_found_so_far_is_held_for_its_client() {
    let mut world = with_topics(20_000, ample());
    let guest = world.guest(10 << 20);
    world.settle();
    guest.say(ALL);
    let mut most = 0;
    loop {
        world.turns(1);
        if world.posts[0].worker.desk.asking.waiting().0 == 0 {
            break;
        }
        most = most.max(world.shared.metrics.workers[0].held_bytes.get());
    }
    assert!(most > 20_000 * 16, "{most}");
}

#[test]
fn a_ping_is_answered_while_a_command_goes_on() {
    let mut world = with_topics(5000, ample());
    let mut guest = world.guest(10 << 20);
    world.settle();
    guest.read();
    guest.say(ALL);
    guest.send(9, b"there?");
    let (_, frames) = turns_until(&mut world, &mut guest, "ack");
    assert_eq!(frames[0], "pong");
}

#[test]
fn what_comes_behind_a_command_that_goes_on_is_done_in_its_order() {
    let mut world = with_topics(3000, ample());
    let mut guest = world.guest(10 << 20);
    world.settle();
    guest.read();
    guest.say(ALL);
    guest.say(r#"{"op":"list","id":2}"#);
    guest.say(r#"{"op":"sub","id":3,"topics":["t.1.v"]}"#);
    guest.say(r#"{"op":"ping","id":4}"#);
    guest.say(r#"{"op":"unsub","id":5,"topics":["t.1.v"]}"#);
    guest.say(r#"{"op":"dance","id":6}"#);
    guest.say(r#"{"op":"sub","id":7,"topics":["*.2.v"]}"#);
    guest.say(r#"{"op":"ping","id":8}"#);
    let mut ids = Vec::new();
    let mut snapshots = Vec::new();
    for _ in 0..300 {
        world.turns(1);
        for frame in guest.read() {
            match frame.split_once(r#""id":"#) {
                Some((_, id)) => ids.push(id.chars().next().unwrap()),
                None => snapshots.push((ids.len(), is(&frame, "snapshot"))),
            }
        }
    }
    assert_eq!(ids, ['1', '2', '3', '4', '5', '6', '7', '8']);
    let of = |id: usize| snapshots.iter().filter(|other| **other == (id, true)).count();
    assert_eq!([1, 2, 3, 4, 5, 6, 7, 8].map(of), [3000, 0, 1, 0, 0, 0, 1, 0]);
}

#[test]
fn a_goodbye_and_an_end_are_seen_while_a_command_waits() {
    for ends in [true, false] {
        let mut world = with_topics(2000, ample());
        // It reads nothing: what it asks for waits for ever.
        let guest = world.guest(2000);
        guest.say(ALL);
        (0..40).for_each(|_| guest.say(r#"{"op":"unsub","topics":["x"]}"#));
        world.turns(300);
        assert_eq!(world.posts[0].worker.desk.asking.waiting().0, 1);
        if ends {
            guest.peer.end();
        } else {
            guest.send(8, &1000_u16.to_be_bytes());
        }
        world.turns(20);
        assert_eq!(world.posts[0].worker.ground.metrics.websockets.get(), 0);
        assert_eq!(world.posts[0].worker.desk.asking.waiting(), (0, 0));
        assert_eq!(world.shared.subscriptions.total(), 0, "what was counted is not any more");
    }
}

#[test]
fn whoever_leaves_in_the_middle_of_a_command_leaves_nothing_behind() {
    for turns in [1, 2, 3, 5, 9] {
        let mut world = with_topics(5000, Settings { turn_work: 20_000, ..ample() });
        let guest = world.guest(10 << 20);
        let names: Vec<String> = (0..300).map(|n| format!("\"*.{n}.*\"")).collect();
        guest.say(&format!(r#"{{"op":"sub","topics":[{}]}}"#, names.join(",")));
        world.turns(turns);
        guest.peer.reset();
        world.strays.push(guest.peer);
        world.pass(Duration::from_secs(1));
        world.check_nothing_left();
    }
}

#[test]
fn what_a_client_publishes_before_it_says_goodbye_is_published() {
    for ends in [true, false] {
        let mut world = with_topics(3000, ample());
        let at = world.connect(10 << 20, Speech::Json, &[]);
        world.settle();
        let client = &mut world.clients[at];
        client.send(1, ALL.as_bytes());
        for n in 0..20 {
            let body = Body { kind: Kind::Json, bytes: format!("{n}").into_bytes() };
            client.publish("p", body, false);
        }
        client.state = State::Left;
        if ends {
            client.peer.end();
        } else {
            client.send(8, &1000_u16.to_be_bytes());
        }
        let before = world.journal.len();
        world.turns(50);
        assert_eq!(world.journal.len(), before + 20);
        assert_eq!(world.posts[0].worker.ground.metrics.websockets.get(), 0);
    }
}

#[test]
fn an_address_with_many_that_ask_keeps_another_waiting_for_one_turn_of_its_own() {
    let mut world = with_topics(10_000, ample());
    let crowd: Vec<Guest> = (0..40).map(|_| world.guest(10 << 20)).collect();
    world.address = "127.0.0.2";
    let mut other = world.guest(10 << 20);
    world.settle();
    crowd.iter().for_each(|guest| guest.say(ALL));
    world.turns(20);
    other.say(ALL);
    turns_until(&mut world, &mut other, "ack");
    let waiting = world.posts[0].worker.desk.asking.waiting().0;
    assert!(waiting > 30, "{waiting} of 40 still wait");
}

#[test]
fn an_address_that_subscribes_is_greeted_first_and_acknowledged_when_it_is_done() {
    let mut world = with_topics(5000, ample());
    let mut guest = world.guest_at(10 << 20, "/ws?topics=%3E");
    world.turns(2);
    let greeting = guest.read();
    assert!(greeting.len() == 1 && is(&greeting[0], "hello"), "{greeting:?}");
    let (turns, _) = turns_until(&mut world, &mut guest, "ack");
    assert!(turns > 1);
}

#[test]
fn a_point_to_resume_from_has_to_be_of_a_topic_that_a_name_stands_for() {
    let mut world = with_topics(10, ample());
    let mut guest = world.guest(1 << 20);
    world.settle();
    guest.read();
    guest.say(r#"{"op":"sub","id":1,"topics":["t.*.v","u.>"],"from":{"t.1.v":["k",1],"v.1":["k",1]}}"#);
    let (_, frames) = turns_until(&mut world, &mut guest, "error");
    assert!(frames[0].contains("bad_topic") && frames[0].contains(r#"\"v.1\""#), "{frames:?}");
    assert_eq!(world.shared.subscriptions.total(), 0);
}

#[test]
fn what_is_published_behind_a_command_waits_for_workers_like_what_was_not_read() {
    let (mut world, members, publisher, others) = reading::two_workers_and(1);
    for _ in 0..30 {
        world.turn_of(1);
    }
    assert!(!world.clients[publisher].publishing.is_empty(), "publishers are held back");
    let World { clients, journal, .. } = &mut world;
    let client = &mut clients[others[0]];
    client.sub(vec!["*.none".into()], true, journal);
    for n in 0..20 {
        let body = Body { kind: Kind::Json, bytes: format!("{n}").into_bytes() };
        client.publish("p", body, false);
    }
    let published = |world: &World| world.journal.seq_at("p", world.journal.len());
    for _ in 0..30 {
        world.turn_of(1);
    }
    assert_eq!(published(&world), 1, "nobody knew before that it publishes");
    assert_eq!(world.posts[1].worker.desk.asking.waiting().0, 1);
    assert!(world.kernel.asleep(1), "its worker doesn't turn for it");
    world.pass(Duration::from_secs(1));
    assert_eq!(published(&world), 20);
    for at in members {
        assert_eq!(world.clients[at].state, State::Open);
    }
}
