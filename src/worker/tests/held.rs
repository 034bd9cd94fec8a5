//! What connections hold in memory: one figure, whoever is refused beyond it, and whoever is cut.

use super::*;
use crate::limits::Bounds;

/// A client that reads nothing: its socket holds a little, and the server the rest.
fn unread(world: &mut World, path: &str) -> Peer {
    let (peer, _) = world.hand_over(600);
    peer.set_window(600);
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    peer.write(head.as_bytes());
    rest(world);
    peer
}

/// Takes turns until nothing moves any more.
fn rest(world: &mut World) {
    world.kernel.allow(Duration::ZERO);
    world.run();
}

/// Writes a frame under the key 0.
fn say(world: &mut World, peer: &Peer, opcode: u8, payload: &[u8]) {
    let len = u8::try_from(payload.len()).ok().filter(|len| *len < 126).expect("it is short");
    peer.write(&[&[0x80 | opcode, 0x80 | len, 0, 0, 0, 0], payload].concat());
    rest(world);
}

/// Everything that a client is sent.
fn read(world: &mut World, peer: &Peer) -> String {
    let (mut all, mut quiet) = (Vec::new(), 0);
    while quiet < 3 {
        let some = peer.read(usize::MAX);
        quiet = if some.is_empty() { quiet + 1 } else { 0 };
        all.extend(some);
        rest(world);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// A world in which connections may hold so much in all, or of one address, with topics of 50,000 bytes.
fn bounded(workers: usize, seed: u64, held: usize, of_address: usize) -> World {
    let settings = Settings { message_max: 100_000, heartbeat: Duration::ZERO, ..settings() };
    let mut world = World::of(workers, seed, settings, 256 * 1024, 4 << 20);
    world.limits = limits(held, of_address);
    for n in 0..4 {
        world.publish_some(&format!("q.{n}"), 1, 50_000);
    }
    world
}

pub fn limits(held: usize, of_address: usize) -> Arc<Limits> {
    let (connects, most) = (Quota::new(RateLimit::NONE), usize::MAX);
    let shares = [most, most, most, most, most, of_address, most, most];
    Limits::new(&Bounds { connections: 1000, assembly: most, held, connects, shares }, 64)
}

fn cut(world: &World) -> u64 {
    world.shared.metrics.workers.iter().map(|worker| worker.held_cut.get()).sum()
}

fn held(world: &World) -> u64 {
    world.shared.metrics.workers.iter().map(|worker| worker.held_bytes.get()).sum()
}

/// Has clients of which each holds little be sent pongs, in turn, until somebody was cut or there were so many.
fn grow(world: &mut World, peers: [&Peer; 2], most: usize) {
    for n in 0..most {
        if cut(world) > 0 {
            return;
        }
        say(world, peers[n % 2], 9, &[b'p'; 120]);
    }
}

#[test]
fn beyond_what_may_be_held_who_asks_is_refused_then_the_largest_is_cut_that_is_not_of_newest_values() {
    const MOST: usize = 220_000;
    let cases =
        [(MOST, usize::MAX, "server_full", "(--max-held)"), (usize::MAX, MOST, "address_full", "(--max-held-per-ip)")];
    for (all, of_address, code, flag) in cases {
        let mut world = bounded(1, 1, all, of_address);
        let newest = unread(&mut world, "/ws?topics=q.0,q.1&mode=latest");
        let large = unread(&mut world, "/ws?topics=q.0");
        let before = held(&world);
        assert!((150_000..160_000).contains(&before), "{before}");
        let asks = unread(&mut world, "/ws?topics=q.2,q.3");
        let told = read(&mut world, &asks);
        assert!(told.contains(code) && told.contains(flag) && !told.contains("\"type\":\"snapshot\""), "{told}");
        assert_eq!((cut(&world), held(&world)), (0, before), "nothing is left of what was refused");
        // Little is refused to nobody.
        let small = [(); 2].map(|()| unread(&mut world, "/ws?topics=q.9"));
        grow(&mut world, [&small[0], &small[1]], 2000);
        assert_eq!(cut(&world), 1);
        assert!(large.dropped() && !newest.dropped() && small.iter().all(|peer| !peer.dropped()));
        assert!(held(&world) < MOST as u64);
        world.publish_some("q.4", 1, 40_000);
        let again = unread(&mut world, "/ws?topics=q.4");
        assert!(read(&mut world, &again).contains("\"type\":\"snapshot\""), "there is room again");
    }
}

#[test]
fn the_largest_is_cut_on_whichever_worker_it_is() {
    for seed in 0..6 {
        let mut world = bounded(3, seed, 210_000, usize::MAX);
        let middle = unread(&mut world, "/ws?topics=q.2");
        // One of them may be at the edge.
        let large = unread(&mut world, "/ws?topics=q.0,q.1,q.3");
        let small = [(); 2].map(|()| unread(&mut world, "/ws?topics=q.9"));
        grow(&mut world, [&small[0], &small[1]], 2000);
        assert_eq!(cut(&world), 1);
        assert!(large.dropped() && !middle.dropped() && small.iter().all(|peer| !peer.dropped()), "seed {seed}");
    }
}

#[test]
fn subscribers_of_newest_values_are_never_cut_for_what_is_held() {
    let mut world = bounded(1, 1, 120_000, 120_000);
    let large = unread(&mut world, "/ws?topics=q.0,q.1&mode=latest");
    let small = [(); 2].map(|()| unread(&mut world, "/ws?topics=q.9&mode=latest"));
    grow(&mut world, [&small[0], &small[1]], 400);
    assert!(held(&world) > 120_000, "{}", held(&world));
    assert!(!large.dropped() && small.iter().all(|peer| !peer.dropped()));
    let asks = unread(&mut world, "/ws?topics=q.2&mode=latest");
    assert!(read(&mut world, &asks).contains("address_full"));
    // And they go on with the newest once they read.
    world.publish_some("q.0", 3, 100);
    assert!(read(&mut world, &large).contains("\"type\":\"update\""));
}

#[test]
fn a_message_that_there_is_no_room_for_is_not_waited_for() {
    let mut world = bounded(1, 1, 110_000, usize::MAX);
    let large = unread(&mut world, "/ws?topics=q.0,q.1");
    let writes = unread(&mut world, "/ws");
    let header = [0x81, 0x80 | 126, 0x50, 0, 0, 0, 0, 0];
    writes.write(&[&header[..], &[b'x'; 15_000]].concat());
    rest(&mut world);
    let told = read(&mut world, &writes);
    assert!(told.contains("more memory is held for clients than --max-held allows"), "{told}");
    assert!(!large.dropped() && cut(&world) == 0);
}

#[test]
fn a_command_that_would_have_to_wait_finds_room_or_its_client_is_closed() {
    for (most, has_room) in [(110_000, false), (130_000, true)] {
        let mut world = bounded(1, 1, most, usize::MAX);
        let large = unread(&mut world, "/ws?topics=q.0,q.1");
        let asks = unread(&mut world, "/ws");
        let sub = br#"{"op":"sub","id":1,"topics":["*.none"]}"#;
        let ping = format!(r#"{{"op":"ping","id":2}}{}"#, " ".repeat(9500));
        let header = [&[0x81, 0x80 | 126][..], &(ping.len() as u16).to_be_bytes(), &[0; 4]].concat();
        // The first of them takes turns.
        asks.write(&[&[0x81, 0x80 | sub.len() as u8, 0, 0, 0, 0], &sub[..], &header, ping.as_bytes()].concat());
        rest(&mut world);
        let told = read(&mut world, &asks);
        let is_told = |what: &str| told.contains(what);
        assert_eq!([is_told("\"ack\",\"id\":1"), is_told("\"pong\",\"id\":2")], [has_room; 2], "{told}");
        assert_eq!(is_told("more memory is held for clients than --max-held allows"), !has_room, "{told}");
        assert!(!large.dropped() && cut(&world) == 0);
        assert_eq!(world.posts[0].worker.desk.asking.waiting(), (0, 0));
        assert_eq!(
            world.shared.subscriptions.total(),
            2 + usize::from(has_room),
            "nothing is left of what was not done"
        );
    }
}

#[test]
fn all_that_a_connection_holds_is_given_back_when_it_goes() {
    let mut world = bounded(1, 1, usize::MAX, usize::MAX);
    let account = world.limits.account("127.0.0.1".parse().unwrap(), Moment::default());
    let peers = ["/ws?topics=q.0", "/ws?topics=q.>&mode=latest", "/sse?topics=q.>", "/raw/q.0"]
        .map(|path| unread(&mut world, path));
    peers[0].write(&[0x81, 0x80 | 126, 0x50, 0, 0, 0, 0, 0, b'x']);
    let half = world.hand_over(600).0;
    half.write(b"GET /ws HTTP/1.1\r\nHost: half");
    rest(&mut world);
    assert!(held(&world) > 450_000);
    assert_eq!(account.used(Table::Held) as u64, held(&world));
    peers.iter().chain([&half]).for_each(Peer::reset);
    rest(&mut world);
    assert_eq!((account.used(Table::Held), held(&world)), (0, 0));
}
