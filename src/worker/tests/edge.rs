//! An edge that holds back what it took, and proxies that announce who comes.

use super::*;

/// Worlds with a raw subscriber of `q` that doesn't read, and whose edge holds a publication back that the worker is done with.
fn holding() -> impl Iterator<Item = (World, usize)> {
    (0..40).step_by(2).filter_map(|seed| {
        let mut world = World::new(seed, quiet(), 4096, 1 << 20);
        let at = world.connect(300, Speech::Raw { topic: "q".into(), echo: true }, &[]);
        world.settle();
        world.clients[at].stalled = true;
        world.publish_some("q", 1, 2000);
        world.settle();
        world.posts[0].worker.cursors.is_empty().then_some((world, at))
    })
}

#[test]
fn what_an_edge_holds_back_arrives_though_nothing_follows() {
    let mut worlds = 0;
    for (mut world, at) in holding() {
        world.clients[at].stalled = false;
        world.settle();
        world.clients[at].check_complete(1, &world.journal, 0);
        worlds += 1;
    }
    assert!(worlds > 5, "{worlds}");
}

#[test]
fn a_server_that_stops_waits_for_what_an_edge_holds_back() {
    for (mut world, at) in holding() {
        let until = Moment(world.kernel.now_ns()) + Duration::from_secs(8);
        world.clients[at].drained = true;
        world.posts[0].inbox.drain(until);
        // Longer than a connection may take to close.
        world.pass(Duration::from_secs(6));
        world.clients[at].stalled = false;
        world.pass(Duration::from_secs(1));
        assert_eq!(world.clients[at].state, State::Closed(1001));
        world.clients[at].check_complete(1, &world.journal, 0);
    }
}

#[test]
fn a_proxy_announces_a_client_at_the_beginning_and_nowhere_else() {
    let proxies = || Proxies::new(vec!["127.0.0.0/8".parse().unwrap()], true);
    for (beginning, header, status) in [
        (Beginning::Awaited, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "101"),
        (Beginning::Awaited, "", "400"),
        // Also where nothing of the next request was read.
        (Beginning::Read(Vec::new()), "", "101"),
        (Beginning::Read(b"GET ".to_vec()), "", "101"),
    ] {
        let mut world = plain(Settings { proxies: proxies(), ..quiet() });
        let is_read = matches!(&beginning, Beginning::Read(bytes) if !bytes.is_empty());
        let (peer, _) = world.hand_over_at(10_000, beginning);
        let request = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        peer.write(format!("{header}{}", &request[if is_read { 4 } else { 0 }..]).as_bytes());
        world.settle();
        let answer = peer.read(12);
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"));
    }
}
