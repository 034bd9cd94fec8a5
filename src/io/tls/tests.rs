//! The edge that encrypts, on a simulated one, beside rustls' client.

use bytesize::ByteSize;
use rustls::version::{TLS12, TLS13};

use super::{
    testing::{Client, server_of_weak_keys},
    *,
};
use crate::{
    config::Config,
    io::{
        sim::{self, Kernel, Peer, SimEdge},
        waker::Waker,
    },
    limits::{Bounds, Limits},
};

/// One socket and its peer.
struct Pair {
    kernel: std::rc::Rc<Kernel>,
    edge: Tls<SimEdge>,
    socket: Socket<sim::Socket>,
    peer: Peer,
    client: Client,
    buffers: Arc<Buffers>,
}

const TOKEN: Token = 7;

impl Pair {
    fn new(seed: u64, room: usize, client: Client) -> Pair {
        Pair::within(seed, room, client, &Buffers::new(1 << 30))
    }

    fn within(seed: u64, room: usize, client: Client, buffers: &Arc<Buffers>) -> Pair {
        Pair::at(seed, room, client, Room::new(buffers, None))
    }

    /// Of an address.
    fn at(seed: u64, room: usize, mut client: Client, has: Room) -> Pair {
        let session = client.agree();
        Pair::of(seed, room, client, session, has)
    }

    fn of(seed: u64, room: usize, client: Client, session: Session, has: Room) -> Pair {
        let kernel = Kernel::new(seed);
        let mut edge = Tls::new(kernel.edge(Arc::new(Waker::new().unwrap())));
        let (socket, peer) = kernel.connect(room);
        let buffers = Arc::clone(&has.buffers);
        let mut socket = Socket::secured(socket, session, has);
        edge.watch(&mut socket, TOKEN).unwrap();
        Pair { kernel, edge, socket, peer, client, buffers }
    }

    /// What the peer is sent by now, decrypted.
    fn arrives(&mut self) -> Vec<u8> {
        let bytes = self.peer.read(usize::MAX);
        self.client.decrypt(&bytes).unwrap()
    }

    /// What the edge tells of in one wait.
    fn wait(&mut self) -> Vec<Ready> {
        let mut ready = Vec::new();
        self.edge.wait(Some(Duration::ZERO), Sleep::Light, &mut || false, &mut ready);
        ready
    }

    /// Sends all of it, while the peer reads; returns what arrives.
    fn send_all(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (mut at, mut arrived) = (0, Vec::new());
        while at < bytes.len() || self.edge.held(&self.socket) > 0 {
            let piece = &bytes[at..bytes.len().min(at + SEND_MAX)];
            match if piece.is_empty() { Sent::Full } else { self.edge.send(&mut self.socket, piece) } {
                Sent::Took(len) => at += len,
                Sent::Full => {
                    arrived.extend(self.arrives());
                    self.edge.flush(&mut self.socket);
                }
                Sent::Broken(why) => panic!("{why}"),
            }
        }
        arrived.extend(self.arrives());
        arrived
    }

    /// Reads by pieces of at most `most` until there are `len` bytes.
    fn receive_all(&mut self, most: usize, len: usize) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), vec![0; most]);
        for _ in 0..1_000_000 {
            match self.edge.receive(&mut self.socket, &mut buffer) {
                Received::Bytes(len) => all.extend_from_slice(&buffer[..len]),
                Received::Nothing => {}
                other => panic!("{other:?}"),
            }
            if all.len() >= len {
                return all;
            }
        }
        panic!("{} of {len} bytes came", all.len());
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

#[test]
fn whatever_is_sent_arrives_in_its_order_however_little_the_socket_takes() {
    for seed in 0..60 {
        let version = if seed % 3 == 0 { &TLS12 } else { &TLS13 };
        let room = [300, 5000, 100_000, 1 << 20][seed as usize % 4];
        let mut pair = Pair::new(seed, room, Client::speaking(version));
        let mut random = fastrand::Rng::with_seed(seed);
        for turn in 0..10 {
            let bytes = noise(seed * 100 + turn, random.usize(1..=2 * SEND_MAX));
            assert!(pair.send_all(&bytes) == bytes, "seed {seed}");
        }
    }
}

#[test]
fn whatever_comes_is_read_in_its_order_in_whichever_records_and_pieces() {
    for seed in 0..60 {
        let version = if seed % 3 == 0 { &TLS12 } else { &TLS13 };
        let mut pair = Pair::new(seed, 1 << 20, Client::speaking(version));
        let mut random = fastrand::Rng::with_seed(seed);
        for turn in 0..10 {
            let bytes = noise(seed * 100 + turn, random.usize(1..=60_000));
            let record = random.usize(1..=RECORD_MAX);
            pair.peer.write(&pair.client.encrypt(bytes.chunks(record)));
            assert!(pair.receive_all(random.usize(1..=70_000), bytes.len()) == bytes, "seed {seed}");
        }
    }
}

#[test]
fn what_a_full_socket_left_over_goes_out_though_nothing_is_sent_behind_it() {
    let mut pair = Pair::new(1, 1000, Client::any());
    let bytes = noise(1, 4000);
    assert_eq!(pair.edge.send(&mut pair.socket, &bytes), Sent::Took(4000));
    assert!(pair.edge.held(&pair.socket) > 2000);
    assert_eq!(pair.buffers.held(), pair.edge.held(&pair.socket) as u64);
    assert_eq!(pair.edge.send(&mut pair.socket, b"more"), Sent::Full, "it is in the way");
    let mut arrived = Vec::new();
    while pair.edge.held(&pair.socket) > 0 {
        arrived.extend(pair.arrives());
        if pair.wait().iter().any(|ready| ready.writable) {
            pair.edge.flush(&mut pair.socket);
        }
    }
    arrived.extend(pair.arrives());
    assert!(arrived == bytes);
    assert_eq!(pair.buffers.held(), 0);
}

#[test]
fn what_is_held_of_all_sockets_together_is_bounded_however_many_are_full() {
    let buffers = Buffers::new(1 << 20);
    let bytes = noise(2, SEND_MAX);
    let mut pairs: Vec<Pair> = (0..200).map(|seed| Pair::within(seed, 100, Client::any(), &buffers)).collect();
    for pair in &mut pairs {
        while let Sent::Took(_) = pair.edge.send(&mut pair.socket, &bytes) {}
    }
    let each = (LEAST + RECORD_OVERHEAD) as u64;
    assert!(buffers.held() <= (1 << 20) + 200 * each, "{}", buffers.held());
    assert!(buffers.held() >= 1 << 19, "the room that there is is used: {}", buffers.held());
    assert_eq!(buffers.sessions(), 200);
    drop(pairs);
    assert_eq!((buffers.held(), buffers.kept(), buffers.sessions()), (0, 0, 0));
}

#[test]
fn beginnings_of_records_are_kept_as_far_as_there_is_room_and_who_sends_more_is_closed() {
    let buffers = Buffers::new(512 << 10);
    let mut pairs: Vec<Pair> = (0..100).map(|seed| Pair::within(seed, 1 << 20, Client::any(), &buffers)).collect();
    let mut broken = 0;
    for pair in &mut pairs {
        let record = pair.client.encrypt([&[7; RECORD_MAX][..]]);
        pair.peer.write(&record[..record.len() - 1]);
        let mut buffer = vec![0; 4096];
        for _ in 0..200 {
            match pair.edge.receive(&mut pair.socket, &mut buffer) {
                Received::Nothing => {}
                Received::Broken(io::ErrorKind::InvalidData) => {
                    broken += 1;
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(broken > 50 && broken < 100, "{broken}");
    assert_eq!(buffers.cut(), broken);
    assert!(buffers.kept() <= (512 << 10) + 100 * (LEAST + 4096) as u64, "{}", buffers.kept());
}

/// Room for two addresses, of which each may have half.
fn two_addresses(most: u64) -> (Arc<Buffers>, [Room; 2]) {
    let buffers = Buffers::new(most);
    let config = Config { tls_buffers: ByteSize::b(most), ..Config::default() };
    let limits = Limits::new(&Bounds::of(&config), 64);
    let room = |address: &str| {
        let account = limits.account(address.parse().unwrap(), Moment::default());
        Room::new(&buffers, Some(&account))
    };
    let rooms = ["192.0.2.1", "192.0.2.2"].map(room);
    (buffers, rooms)
}

#[test]
fn those_of_one_address_that_read_nothing_leave_the_sends_of_others_as_large_as_they_were() {
    let (buffers, [hostile, other]) = two_addresses(4 << 20);
    let bytes = noise(2, SEND_MAX);
    let mut stalled: Vec<Pair> = (0..400).map(|seed| Pair::at(seed, 100, Client::any(), hostile.clone())).collect();
    for pair in &mut stalled {
        while let Sent::Took(_) = pair.edge.send(&mut pair.socket, &bytes) {}
    }
    assert!(buffers.held() >= 1 << 20, "they have what they may: {}", buffers.held());
    let mut pair = Pair::at(1000, 1 << 20, Client::any(), other);
    let (mut at, mut wire) = (0, Vec::new());
    while at < bytes.len() || pair.edge.held(&pair.socket) > 0 {
        if let Sent::Took(len) = pair.edge.send(&mut pair.socket, &bytes[at..]) {
            at += len;
        }
        wire.extend(pair.peer.read(usize::MAX));
        pair.edge.flush(&mut pair.socket);
    }
    wire.extend(pair.peer.read(usize::MAX));
    let records = session::records(&wire, usize::MAX);
    assert!(records.whole <= (SEND_MAX / SMALL_RECORD + 1) as u32, "{} records", records.whole);
    assert!(pair.client.decrypt(&wire).unwrap() == bytes);
    drop(stalled);
    drop(pair);
    assert_eq!((buffers.held(), buffers.kept()), (0, 0));
}

#[test]
fn beginnings_of_records_from_one_address_leave_room_for_those_of_others() {
    let (buffers, [hostile, other]) = two_addresses(4 << 20);
    let mut begun: Vec<Pair> = (0..500).map(|seed| Pair::at(seed, 1 << 20, Client::any(), hostile.clone())).collect();
    for pair in &mut begun {
        let record = pair.client.encrypt([&[7; RECORD_MAX][..]]);
        pair.peer.write(&record[..record.len() - 1]);
        let mut buffer = vec![0; 4096];
        for _ in 0..30 {
            if let Received::Broken(_) = pair.edge.receive(&mut pair.socket, &mut buffer) {
                break;
            }
        }
    }
    assert!(buffers.kept() >= 1 << 20, "they have what they may: {}", buffers.kept());
    let mut pair = Pair::at(1000, 1 << 20, Client::any(), other);
    let bytes = noise(1, RECORD_MAX);
    let record = pair.client.encrypt([&bytes[..]]);
    let (first, second) = record.split_at(record.len() - 1);
    pair.peer.write(first);
    for _ in 0..30 {
        let mut buffer = vec![0; 4096];
        assert_eq!(pair.edge.receive(&mut pair.socket, &mut buffer), Received::Nothing);
    }
    pair.peer.write(second);
    assert!(pair.receive_all(4096, bytes.len()) == bytes);
}

#[test]
fn both_say_that_they_send_no_more() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::new(3, 1 << 16, Client::speaking(version));
        assert_eq!(pair.send_all(b"last words"), b"last words");
        pair.edge.finish(&mut pair.socket);
        pair.edge.finish(&mut pair.socket);
        while !pair.peer.at_end() {
            pair.arrives();
            pair.edge.flush(&mut pair.socket);
        }
        assert!(pair.client.has_ended());
        let mut end = pair.client.encrypt([&b"and mine"[..]]);
        end.extend(pair.client.end());
        pair.peer.write(&end);
        assert_eq!(pair.receive_until_end(), b"and mine");
    }
}

#[test]
fn an_end_behind_a_full_socket_waits_for_what_is_held() {
    let mut pair = Pair::new(4, 500, Client::any());
    let bytes = noise(4, 3000);
    assert_eq!(pair.edge.send(&mut pair.socket, &bytes), Sent::Took(3000));
    pair.edge.finish(&mut pair.socket);
    let mut arrived = Vec::new();
    while !pair.peer.at_end() {
        arrived.extend(pair.arrives());
        pair.edge.flush(&mut pair.socket);
    }
    arrived.extend(pair.arrives());
    assert!(arrived == bytes);
    assert!(pair.client.has_ended());
}

impl Pair {
    fn receive_until_end(&mut self) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), [0; 100]);
        loop {
            match self.edge.receive(&mut self.socket, &mut buffer) {
                Received::Bytes(len) => all.extend_from_slice(&buffer[..len]),
                Received::Nothing => {}
                Received::End => return all,
                Received::Broken(why) => panic!("{why}"),
            }
        }
    }
}

#[test]
fn who_breaks_the_rules_is_told_by_an_alert_and_is_broken() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed, 1 << 16, Client::any());
        let mut record = pair.client.encrypt([&b"something"[..]]);
        *record.last_mut().unwrap() ^= 1;
        pair.peer.write(&record);
        let mut buffer = [0; 4096];
        let broken = loop {
            match pair.edge.receive(&mut pair.socket, &mut buffer) {
                Received::Nothing => {}
                other => break other,
            }
        };
        assert_eq!(broken, Received::Broken(io::ErrorKind::InvalidData));
        pair.edge.flush(&mut pair.socket);
        let alert = pair.peer.read(usize::MAX);
        let told = pair.client.decrypt(&alert).unwrap_err();
        assert_eq!(told, Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
    }
}

#[test]
fn each_record_is_counted_whatever_is_in_it() {
    let mut pair = Pair::new(5, 1 << 16, Client::any());
    let bytes = [1; 500];
    pair.peer.write(&pair.client.encrypt(bytes.chunks(1)));
    assert!(pair.receive_all(4096, bytes.len()) == bytes);
    let counted = pair.edge.take_records();
    assert!((500..600).contains(&counted), "{counted}: some were looked at twice, when they weren't whole");
    assert_eq!(pair.edge.take_records(), 0);
}

#[test]
fn however_small_records_are_one_read_takes_so_many_and_the_rest_is_told_of() {
    let mut pair = Pair::new(11, 1 << 20, Client::any());
    let bytes = noise(11, 3000);
    pair.peer.write(&pair.client.encrypt(bytes.chunks(1)));
    let (mut read, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    while read.len() < bytes.len() {
        match pair.edge.receive(&mut pair.socket, &mut buffer) {
            Received::Bytes(len) => read.extend_from_slice(&buffer[..len]),
            Received::Nothing => {}
            other => panic!("{other:?}"),
        }
        let most = RECORDS_MAX as u32;
        assert!(pair.edge.take_records() <= most, "one read took more");
        // Whatever the kernel has, there is some more here.
        let is_told = pair.wait().iter().any(|ready| ready.readable);
        assert!(is_told || read.len() == bytes.len(), "{} of {}", read.len(), bytes.len());
        // What is sent meanwhile has nothing to do with it.
        assert_ne!(pair.edge.send(&mut pair.socket, b"x"), Sent::Broken(io::ErrorKind::ConnectionAborted));
        pair.edge.flush(&mut pair.socket);
    }
    assert!(read == bytes);
    assert!(pair.arrives().iter().all(|byte| *byte == b'x'));
    assert_eq!(pair.buffers.kept(), 0);
}

#[test]
fn a_record_that_says_nothing_costs_more_than_one_that_does() {
    let mut pair = Pair::new(12, 1 << 20, Client::speaking(&TLS13));
    let said = pair.client.encrypt([&b"a"[..]; 10]);
    let mut dull: Vec<u8> = (0..10).flat_map(|_| pair.client.change_keys()).collect();
    dull.extend(pair.client.encrypt([&b"a"[..]]));
    let mut charge = |records: &[u8]| {
        pair.peer.write(records);
        let mut buffer = [0; 4096];
        while pair.edge.receive(&mut pair.socket, &mut buffer) == Received::Nothing {}
        pair.edge.take_records()
    };
    let (said, dull) = (charge(&said), charge(&dull));
    assert!(dull >= 4 * said, "{said} for ten that say something, {dull} for ten changes of keys");
}

#[test]
fn keys_may_change_in_between_and_who_asks_for_that_again_and_again_is_closed() {
    let mut pair = Pair::new(6, 1 << 20, Client::speaking(&TLS13));
    for round in 0..10 {
        let bytes = noise(round, 1000);
        pair.peer.write(&pair.client.change_keys());
        pair.peer.write(&pair.client.encrypt([&bytes[..]]));
        assert!(pair.receive_all(4096, bytes.len()) == bytes);
        assert!(pair.send_all(&bytes) == bytes);
    }
    let many: Vec<u8> = (0..1000).flat_map(|_| pair.client.change_keys()).collect();
    pair.peer.write(&many);
    let mut buffer = [0; 4096];
    let broken = loop {
        match pair.edge.receive(&mut pair.socket, &mut buffer) {
            Received::Nothing => {}
            other => break other,
        }
    };
    assert_eq!(broken, Received::Broken(io::ErrorKind::InvalidData));
}

#[test]
fn whoever_leaves_something_unread_is_told_of_it_again_also_by_another_edge() {
    let mut pair = Pair::new(7, 1 << 16, Client::any());
    pair.peer.write(&pair.client.encrypt([&[9; 3000][..]]));
    let mut buffer = [0; 100];
    while pair.edge.receive(&mut pair.socket, &mut buffer) == Received::Nothing {}
    let tells = |ready: &[Ready]| ready.iter().any(|ready| ready.token == TOKEN && ready.readable);
    for _ in 0..3 {
        let ready = pair.wait();
        assert!(tells(&ready), "{ready:?}");
    }
    pair.edge.interest(&mut pair.socket, false);
    assert_eq!(pair.edge.unread.values().flatten().count(), 0);
    pair.edge.interest(&mut pair.socket, true);
    let ready = pair.wait();
    assert!(tells(&ready));
    pair.edge.unwatch(&mut pair.socket);
    let mut other = Tls::new(pair.kernel.edge(Arc::new(Waker::new().unwrap())));
    other.watch(&mut pair.socket, TOKEN).unwrap();
    let mut ready = Vec::new();
    other.wait(None, Sleep::Light, &mut || false, &mut ready);
    assert!(tells(&ready));
    pair.edge = other;
    assert!(pair.receive_all(4096, 2900) == [9; 2900]);
    assert_eq!(pair.edge.unread.values().flatten().count(), 0);
    assert_eq!(pair.buffers.kept(), 0);
}

#[test]
fn who_is_read_a_little_at_a_time_is_told_of_once_and_has_one_place() {
    let mut pair = Pair::new(10, 1 << 16, Client::any());
    pair.peer.write(&pair.client.encrypt([&[9; 3000][..]]));
    let mut buffer = [0; 10];
    while pair.edge.receive(&mut pair.socket, &mut buffer) == Received::Nothing {}
    for _ in 0..200 {
        assert_eq!(pair.edge.receive(&mut pair.socket, &mut buffer), Received::Bytes(10));
        let told = pair.wait().iter().filter(|ready| ready.readable).count();
        assert_eq!((told, pair.edge.told.len()), (1, 1));
    }
}

#[test]
fn of_a_socket_that_is_gone_nothing_is_told() {
    let mut pair = Pair::new(8, 1 << 16, Client::any());
    pair.peer.write(&pair.client.encrypt([&[9; 3000][..]]));
    let mut buffer = [0; 100];
    while pair.edge.receive(&mut pair.socket, &mut buffer) == Received::Nothing {}
    let (other, _peer) = pair.kernel.connect(10);
    pair.socket = Socket::from(other);
    pair.wait();
    assert_eq!(pair.edge.unread.values().flatten().count(), 0);
}

#[test]
fn a_socket_that_was_full_is_sent_small_records_until_it_keeps_up() {
    let mut pair = Pair::new(9, 1 << 24, Client::any());
    let bytes = noise(9, SEND_MAX);
    let largest = |bytes: &[u8]| {
        let (mut at, mut most) = (0, 0);
        while at + 5 <= bytes.len() {
            let len = usize::from(u16::from_be_bytes([bytes[at + 3], bytes[at + 4]]));
            (at, most) = (at + 5 + len, most.max(len));
        }
        most
    };
    let sent = |pair: &mut Pair| {
        while pair.edge.send(&mut pair.socket, &bytes) == Sent::Full {
            pair.edge.flush(&mut pair.socket);
        }
        while pair.edge.held(&pair.socket) > 0 {
            pair.edge.flush(&mut pair.socket);
        }
        largest(&pair.peer.read(usize::MAX))
    };
    assert!(sent(&mut pair) < SMALL_RECORD + 64, "at the beginning");
    pair.socket.tls.as_mut().unwrap().went = SWIFT_AFTER;
    let most = std::iter::repeat_with(|| sent(&mut pair)).take(5).max().unwrap();
    assert!(most > RECORD_MAX, "{most}");
    pair.socket.tls.as_mut().unwrap().went = SWIFT_AFTER;
    pair.kernel.advance(PAUSE + Duration::from_millis(1));
    assert!(sent(&mut pair) < SMALL_RECORD + 64, "after a pause");
}

#[test]
fn keys_that_have_encrypted_as_much_as_they_may_change_by_themselves_where_there_is_a_way_to() {
    let mut client = Client::speaking(&TLS13);
    let session = client.agree_with(server_of_weak_keys(50));
    let mut pair = Pair::of(1, 1 << 20, client, session, Room::new(&Buffers::new(1 << 30), None));
    for n in 0..1000 {
        let bytes = noise(n, 100);
        assert!(pair.send_all(&bytes) == bytes);
        assert!(!pair.edge.is_worn(&pair.socket));
    }
}

#[test]
fn where_there_is_no_way_to_change_keys_a_socket_says_so_in_time_and_ends_there() {
    let mut client = Client::speaking(&TLS12);
    let session = client.agree_with(server_of_weak_keys(160));
    let mut pair = Pair::of(1, 1 << 20, client, session, Room::new(&Buffers::new(1 << 30), None));
    for n in 0..149 {
        let bytes = noise(n, 100);
        assert!(pair.send_all(&bytes) == bytes);
        assert!(!pair.edge.is_worn(&pair.socket), "{n}");
    }
    let mut sent = 0;
    while let Sent::Took(100) = pair.edge.send(&mut pair.socket, &[1; 100]) {
        sent += 1;
        assert!(pair.edge.is_worn(&pair.socket), "{sent}");
        while pair.edge.flush(&mut pair.socket) == Flushed::Held {}
    }
    assert!((5..=11).contains(&sent), "{sent}");
    assert_eq!(pair.edge.send(&mut pair.socket, &[1]), Sent::Broken(io::ErrorKind::ConnectionAborted));
}

#[test]
fn behind_its_end_or_a_broken_rule_a_session_encrypts_nothing_more() {
    for ends in [true, false] {
        let mut client = Client::speaking(&TLS13);
        let mut session = client.agree();
        let mut room = [0; 500];
        // By rustls, and then without it.
        for text in [b"one", b"two"] {
            let len = session.encrypt(&mut [], text, RECORD_MAX, &mut room).unwrap();
            assert_eq!(client.decrypt(&room[..len]).unwrap(), text);
        }
        if ends {
            let len = session.end(&mut [], &mut room).unwrap();
            client.decrypt(&room[..len]).unwrap();
            assert!(client.has_ended());
        } else {
            let mut garbage = [23, 3, 3, 0, 17].iter().chain(&[9; 17]).copied().collect::<Vec<u8>>();
            session.take_in(&mut garbage, |_| panic!("nothing was said"), &mut Vec::new()).1.unwrap_err();
        }
        session.encrypt(&mut [], b"three", RECORD_MAX, &mut room).unwrap_err();
    }
}

#[test]
fn of_a_large_send_each_record_is_whole_and_as_large_as_it_may_be() {
    let mut client = Client::speaking(&TLS13);
    let mut session = client.agree();
    let (plain, mut room) = (noise(1, 3 * RECORD_MAX + 7), vec![0; 4 * (RECORD_MAX + RECORD_OVERHEAD)]);
    for _ in 0..2 {
        let len = session.encrypt(&mut [], &plain, RECORD_MAX, &mut room).unwrap();
        assert_eq!(len, plain.len() + 4 * crate::tls::seal::OVERHEAD);
        assert_eq!(records(&room[..len], usize::MAX).whole, 4);
        assert!(client.decrypt(&room[..len]).unwrap() == plain);
    }
}
