//! The parts without a worker: each is given the ground that it stands on, and what it says is a value.

use super::*;
use crate::access::Holder;
use crate::packs::Packing;
use crate::worker::{
    connection::Connection,
    fan::{
        delivery::Delivery,
        interest::{CohortId, CohortKey},
    },
    work::Step,
};

/// A fan and those that are behind, with members that are all sent what is published on `q`.
struct Stage {
    world: World,
    ground: Ground<SimEdge>,
    connections: Connections<sim::Socket>,
    fan: Fan,
    cursors: Cursors,
    cohort: CohortId,
    peers: Vec<Peer>,
}

impl Stage {
    /// With one member for each of these rooms.
    fn new(rooms: &[usize]) -> Stage {
        let world = World::new(1, settings(), 4096, 64 * 1024);
        let edge = world.kernel.edge(Arc::new(Waker::new().unwrap()));
        let mut ground = Ground::new(0, Arc::clone(&world.shared), world.tape.clone(), edge);
        let (mut fan, cursors) = (Fan::new(ground.now), Cursors::new(ground.now));
        fan.attach(&mut ground, Lane::Raw);
        let name = fan.interest.intern(&"q".into());
        let mut connections = Connections::new();
        let mut peers = Vec::new();
        let mut cohort = 0;
        for (n, room) in rooms.iter().enumerate() {
            let (socket, peer) = world.kernel.connect(*room);
            let permit = world.limits.admit(None, Moment::default()).unwrap();
            let about = ("127.0.0.1:1".parse().unwrap(), permit, Listener::Clear);
            let mut connection = Connection::new(n as u64 + 1, socket, about, Holder::Anonymous, ground.now);
            connection.lane = Lane::Raw;
            let key = CohortKey {
                lane: Lane::Raw,
                packed: Packing::Clear,
                names: [(name, Delivery::All)].into(),
                except: 0,
                polls: false,
            };
            cohort = fan.interest.join(key, fan.position());
            connection.cohort = Some(cohort);
            let token = connections.insert(connection);
            fan.join(token, connections.get_mut(token).unwrap());
            peers.push(peer);
        }
        Stage { world, ground, connections, fan, cursors, cohort, peers }
    }

    /// Has the fan send what is published now. Returns whom it could not serve, which luck may decide.
    fn publish(&mut self, count: usize) -> Vec<Fell> {
        self.world.publish_some("q", count, 60);
        self.ground.reader.refresh();
        self.ground.begin_turn();
        self.ground.begin_step(Step::Plan);
        assert!(self.fan.plan(&mut self.ground));
        self.fan.serve(&mut self.ground, &mut self.connections);
        std::iter::from_fn(|| self.fan.next_fell()).collect()
    }

    /// Gives those whose sockets were full to the cursors.
    fn take(&mut self, fallen: Vec<Fell>) {
        let Stage { ground, connections, fan, cursors, cohort, .. } = self;
        for Fell { token, why, .. } in fallen {
            let Why::Full { position, offset, .. } = why else { continue };
            let connection = connections.get_mut(token).unwrap();
            cursors.take(ground, &mut fan.interest, connection, token, (position, offset), Vec::new());
            assert!(matches!(connection.cursor, Cursor::Behind(_)) && connection.cohort == Some(*cohort));
        }
        self.check();
    }

    /// Lets those that are behind go on, as if their sockets had room, and gives those that have caught up to the fan.
    fn go(&mut self) {
        let Stage { ground, connections, fan, cursors, .. } = self;
        for token in 0..connections.end() {
            let Some(connection) = connections.get_mut(token) else { continue };
            connection.full = false;
            cursors.has_room(token, connection, ground.now);
        }
        ground.begin_step(work::Step::Go);
        cursors.go(ground, &mut fan.interest, connections);
        while let Some(came) = cursors.next_came() {
            let Came::Up(token) = came else { panic!("{came:?}") };
            fan.join(token, connections.get_mut(token).unwrap());
        }
        self.check();
    }

    fn check(&self) {
        self.fan.invariants(&self.connections);
        self.cursors.invariants(&self.connections);
    }

    /// Everything that a peer has been sent, as far as it has not been read.
    fn read(&self, n: usize) -> Vec<u8> {
        self.peers[n].read(usize::MAX)
    }
}

#[test]
fn a_member_whose_socket_is_full_goes_on_from_the_very_byte_and_comes_back() {
    let mut stage = Stage::new(&[100_000, 200]);
    let fallen = stage.publish(3);
    stage.check();
    let of_the_small = fallen.iter().find(|fell| fell.token == 1).expect("its socket has less room");
    let Why::Full { position, offset, .. } = of_the_small.why else { panic!("{of_the_small:?}") };
    let mut sent = [stage.read(0), stage.read(1)];
    let taken = sent[1].len();
    stage.take(fallen);
    // What comes meanwhile, it gets along with the rest.
    let fallen = stage.publish(1);
    stage.take(fallen);
    while !stage.cursors.is_empty() {
        stage.go();
        [0, 1].into_iter().for_each(|n| sent[n].extend(stage.read(n)));
    }
    [0, 1].into_iter().for_each(|n| sent[n].extend(stage.read(n)));
    assert_eq!(sent[0], sent[1]);
    let frame = sent[0].len() / 4;
    assert_eq!((position.0 as usize, offset as usize), (taken / frame, taken % frame));
}

#[test]
fn a_broken_member_is_told_and_is_none_any_more() {
    let mut stage = Stage::new(&[100_000, 100_000]);
    stage.peers[1].reset();
    let fallen = stage.publish(1);
    assert!(fallen.iter().any(|fell| matches!(fell, Fell { token: 1, why: Why::Broken(_), .. })), "{fallen:?}");
    stage.take(fallen);
    stage.connections.get_mut(1).unwrap().cohort = None;
    stage.fan.interest.let_go(&stage.ground.tape, &mut stage.ground.reader, stage.cohort);
    let fallen = stage.publish(1);
    assert!(fallen.iter().all(|fell| fell.token == 0), "{fallen:?}");
    stage.take(fallen);
}

#[test]
fn a_token_whose_connection_has_ended_names_nobody_and_a_handle_never_another() {
    let mut stage = Stage::new(&[1000]);
    let handle = stage.connections.handle(0).unwrap();
    assert!(stage.connections.named(handle).is_some());
    stage.fan.leave(&mut stage.connections, 0);
    let gone = stage.connections.remove(0).unwrap();
    assert!(stage.connections.get(0).is_none() && stage.connections.handle(0).is_none());
    // Another one has its place now.
    let mut next = Stage::new(&[1000]).connections.remove(0).unwrap();
    next.id = gone.id + 1;
    assert_eq!(stage.connections.insert(next), 0);
    assert!(stage.connections.get(0).is_some() && stage.connections.named(handle).is_none());
}
