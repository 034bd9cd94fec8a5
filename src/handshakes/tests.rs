//! Places for handshakes, on a simulated edge: who has one, and who has to go.

use std::{net::IpAddr, rc::Rc, time::Duration};

use super::*;
use crate::{
    config::Config,
    io::{
        sim::{self, Kernel, Peer, SimEdge},
        tls::testing,
        waker::Waker,
    },
    limits::Limits,
    log::{Dropped, Log},
    shared::{Settings, tape_settings},
    tape::Tape,
};

/// A thread's handshakes, and those who come.
struct World {
    kernel: Rc<Kernel>,
    handshakes: Handshakes<SimEdge>,
    inbox: Inbox<Socket<sim::Socket>>,
    limits: Arc<Limits>,
}

impl World {
    fn new(places: usize) -> World {
        let config = Config::default();
        let tape = Tape::new(tape_settings(&config, 1));
        let log = Log::new(config.log_limit, Dropped::default());
        let shared = Shared::new(Settings::new(&config), log, &tape, 1, Arc::new([]));
        let kernel = Kernel::new(1);
        let waker = Arc::new(Waker::new().unwrap());
        let edge = kernel.edge(Arc::clone(&waker));
        let (inbox, received) = Inbox::new(100, waker);
        let means =
            Means { terms: Arc::new(Live::new(Terms::of(testing::server()))), buffers: Arc::clone(&shared.tls) };
        let handshakes = Handshakes::new(edge, shared, means, received, Vec::new(), places);
        World { kernel, handshakes, inbox, limits: Limits::of_connections(100) }
    }

    /// Somebody comes from this address.
    fn come(&mut self, from: &str) -> Peer {
        let (socket, peer) = self.kernel.connect(1 << 16);
        let address: IpAddr = from.parse().unwrap();
        let permit = self.limits.admit(Some(address), Moment::default()).unwrap();
        let (by, beginning) = (Listener::Tls, Beginning::Awaited);
        let arrival = Arrival { socket: socket.into(), peer: (address, 1).into(), permit, by, beginning };
        assert!(self.inbox.hand_over(arrival).is_ok());
        self.pass();
        peer
    }

    /// Lets a moment pass, in which all is done that there is to do.
    fn pass(&mut self) {
        self.kernel.advance(Duration::from_millis(10));
        (0..50).for_each(|_| assert!(self.handshakes.turn()));
    }
}

#[test]
fn who_sends_a_byte_now_and_then_has_a_place_for_no_longer_than_who_says_nothing() {
    let mut world = World::new(3);
    let hello = testing::Client::any().says();
    let trickling = world.come("192.0.2.1");
    let mut bytes = hello.chunks(1);
    let silent = world.come("192.0.2.2");
    silent.write(&hello[..100]);
    let other = world.come("192.0.2.3");
    for _ in 0..5 {
        trickling.write(bytes.next().unwrap());
        world.pass();
    }
    assert!([&trickling, &silent, &other].iter().all(|peer| !peer.dropped()), "there is room for all of them");
    let _newcomer = world.come("192.0.2.4");
    assert!(trickling.dropped(), "it was there for longest");
    assert!(!silent.dropped() && !other.dropped());
}

#[test]
fn who_waits_for_a_round_trip_stays_as_long_as_there_are_others_whose_hello_is_not_whole() {
    let mut world = World::new(2);
    let hello = testing::Client::any().says();
    let distant = world.come("192.0.2.1");
    distant.write(&hello);
    world.pass();
    assert!(distant.arrived() > 0, "it was answered");
    for n in 2..10 {
        let silent = world.come(&format!("192.0.2.{n}"));
        silent.write(&hello[..100]);
        world.pass();
        assert!(!silent.dropped(), "there was another before");
    }
    assert!(!distant.dropped());
}

#[test]
fn of_an_address_with_many_places_the_oldest_goes_first() {
    let mut world = World::new(4);
    let alone = world.come("192.0.2.1");
    let crowd: Vec<Peer> = (0..3).map(|_| world.come("192.0.2.2")).collect();
    let newcomers = ["192.0.2.3", "192.0.2.4"].map(|address| world.come(address));
    assert!(!alone.dropped() && newcomers.iter().all(|peer| !peer.dropped()));
    assert_eq!(crowd.iter().map(Peer::dropped).collect::<Vec<_>>(), [true, true, false]);
}
