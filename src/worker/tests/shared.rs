//! Streams that cohorts share: who reads them from where on, who leaves them, and what each is sent. (That every byte is right is what every client
//! checks, in every script of luck.)

use super::*;
use crate::{io::Token, metrics::Tally, shared::Ask};

/// Three members share a stream, which begins anew every eight frames, and within two for nobody.
fn sharing(change: impl FnOnce(&mut StreamSettings)) -> Settings {
    let settings = settings();
    let mut streams = StreamSettings {
        most: 1,
        members_min: 3,
        level: Some(7),
        least: 80,
        anew_every: 8,
        anew_least: 2,
        kept: 60_000,
        ..StreamSettings::default()
    };
    change(&mut streams);
    Settings { compression: Compressing { is_shared: true, streams, ..settings.compression }, ..settings }
}

fn world(change: impl FnOnce(&mut StreamSettings)) -> World {
    World::new(1, sharing(change), 4096, 1 << 20)
}

impl World {
    fn subscribers(&mut self, count: usize, names: &[&str]) -> Vec<usize> {
        (0..count).map(|_| self.subscriber_offering(1 << 16, names, Offer::Plain)).collect()
    }

    /// Publishes one by one, each sent before the next.
    fn publish_each(&mut self, topic: &str, count: usize, pad: usize) {
        for _ in 0..count {
            self.publish_some(topic, 1, pad);
            self.settle();
        }
    }

    /// Compressed messages that somebody was sent, and such as refer to those before them.
    fn read(&self, at: usize) -> (u64, u64) {
        (self.clients[at].inflated, self.clients[at].followed)
    }

    /// Publications that streams have passed over.
    fn passed(&self) -> u64 {
        self.shared.packs.stream_counts.passed.get()
    }

    fn counts(&self) -> [u64; 5] {
        let counts = &self.shared.packs.stream_counts;
        [&counts.frames, &counts.clear, &counts.anew_due, &counts.anew_joined, &counts.evicted].map(Tally::get)
    }
}

#[test]
fn members_of_one_cohort_share_a_stream_and_whoever_has_agreed_to_less_has_no_part_in_it() {
    let mut world = world(|_| {});
    let mut members = world.subscribers(3, &["q"]);
    members.push(world.subscriber_offering(1 << 16, &["q"], Offer::Twelve));
    let single = world.subscriber_offering(1 << 16, &["q"], Offer::Single);
    let (nine, clear) = (
        world.subscriber_offering(1 << 16, &["q"], Offer::Nine),
        world.subscriber_offering(1 << 16, &["q"], Offer::None),
    );
    world.publish_each("q", 32, 200);
    for at in members {
        assert_eq!(world.read(at), (32, 28), "all but the first one of each eight refer to others");
    }
    assert_eq!([single, nine, clear].map(|at| world.read(at)), [(32, 0), (0, 0), (0, 0)]);
    assert_eq!(world.counts(), [32, 0, 3, 0, 0]);
    let counts = &world.shared.packs.stream_counts;
    let (from, to) = (counts.bytes_in.get(), counts.bytes_out.get());
    assert!(to * 3 < from, "{to} of {from}");
    let metrics = &world.posts[0].worker.ground.metrics;
    assert_eq!((metrics.shared_streams.get(), metrics.stream_members.get(), metrics.stream_waiting.get()), (1, 4, 0));
    assert!(metrics.shared_streams_bytes.get() > 100_000);
}

#[test]
fn whoever_comes_later_waits_until_the_stream_begins_anew_but_not_for_long() {
    let mut world = world(|streams| (streams.anew_every, streams.anew_least) = (100, 10));
    let first = world.subscribers(3, &["q"]);
    world.publish_each("q", 15, 200);
    let late = world.subscriber_offering(1 << 16, &["q"], Offer::Plain);
    world.publish_each("q", 1, 200);
    assert_eq!((world.read(late), world.read(first[0])), ((1, 0), (16, 14)), "it had gone on for long enough");
    let later = world.subscriber_offering(1 << 16, &["q"], Offer::Plain);
    world.publish_each("q", 9, 200);
    assert_eq!(world.read(later), (0, 0), "it is sent them as they are");
    let metrics = &world.posts[0].worker.ground.metrics;
    assert_eq!((metrics.stream_members.get(), metrics.stream_waiting.get()), (4, 1));
    world.publish_each("q", 4, 200);
    assert_eq!((world.read(later), world.read(late), world.read(first[0])), ((4, 3), (14, 12), (29, 26)));
    assert_eq!(world.counts(), [29, 0, 0, 2, 0]);
}

#[test]
fn whoever_is_behind_goes_on_with_the_stream_while_that_keeps_what_comes_next_and_then_without_it() {
    for (kept, is_kept) in [(60_000, true), (1500, false)] {
        let mut world = world(|streams| (streams.kept, streams.anew_least) = (kept, 8));
        let stalled = world.subscriber_offering(400, &["q"], Offer::Plain);
        world.subscribers(3, &["q"]);
        world.publish_each("q", 4, 200);
        assert_eq!(world.read(stalled).0, 4);
        world.clients[stalled].stalled = true;
        world.publish_each("q", 60, 200);
        world.clients[stalled].stalled = false;
        world.settle();
        let (inflated, followed) = world.read(stalled);
        assert_eq!(inflated, 64, "what isn't kept is compressed by itself");
        assert_eq!(followed > 50, is_kept, "{followed} refer to those before");
        assert_eq!(world.counts()[4] > 0, !is_kept, "frames were let go");
        world.publish_each("q", 20, 200);
        let (again, refers) = world.read(stalled);
        assert!(again >= inflated + 12 && refers > followed + 8, "it comes back to the stream: {again}, {refers}");
    }
}

impl World {
    /// Asks the first worker for connections, and wakes it.
    fn ask_first(&self, of: (Token, usize)) -> Arc<Ask> {
        let ask = self.shared.looks.ask(0, of, None).unwrap();
        self.shared.publisher.wake_one(0);
        ask
    }

    /// How the first worker's connections are said to be sent publications, in the order of their places.
    fn told(&mut self) -> Vec<&'static str> {
        let (mut from, mut all) = (0, Vec::new());
        loop {
            let ask = self.ask_first((from, 2));
            self.settle();
            let found = ask.fetch().expect("it was answered");
            assert!(found.rows.len() <= 2);
            all.extend(found.rows.iter().map(|shown| shown.compression));
            let Some(next) = found.next else { return all };
            from = next;
        }
    }
}

#[test]
fn of_everybody_it_is_told_whether_it_reads_a_stream_and_why_not() {
    let (waits, few) =
        ("clear: it waits for the stream to begin anew", "once: too few on its worker have the same subscription");
    let mut world = world(|streams| (streams.anew_every, streams.anew_least, streams.kept) = (1000, 900, 1500));
    world.subscribers(2, &["q"]);
    assert_eq!(world.told(), [few; 2]);
    let stalled = world.subscriber_offering(400, &["q"], Offer::Plain);
    assert_eq!(world.told(), ["once: the stream begins with the next publication"; 3]);
    world.publish_each("q", 3, 200);
    assert_eq!(world.told(), ["shared"; 3]);
    world.subscribers(1, &["q"]);
    world.subscribers(1, &["r"]);
    assert_eq!(world.told(), ["shared", "shared", "shared", waits, few]);
    world.clients[stalled].stalled = true;
    world.publish_each("q", 5, 200);
    assert_eq!(world.told()[2], "shared", "it goes on with what is kept");
    world.publish_each("q", 200, 200);
    world.clients[stalled].pace = Some(100);
    world.clients[stalled].stalled = false;
    for _ in 0..1000 {
        if world.told()[2] != "shared" {
            break;
        }
        world.read_slowly();
        world.settle();
    }
    assert_eq!(world.told()[2], "once: it is behind, and has missed some of the stream");
    world.clients[stalled].pace = None;
    world.settle();
    assert_eq!(world.told()[2], waits);
}

#[test]
fn questions_of_operators_take_no_more_of_a_turn_than_there_is_and_a_worker_that_sleeps_is_woken_for_them() {
    let mut world = World::new(1, Settings { turn_work: 2000, turn_sends: 1, ..sharing(|_| {}) }, 4096, 1 << 20);
    world.subscribers(40, &["q"]);
    let asks: Vec<_> = (0..20).map(|_| world.ask_first((0, 1000))).collect();
    let turns = world.posts[0].worker.ground.metrics.turns.get();
    // What a turn may cost is asserted after each of them.
    world.settle();
    let turns = world.posts[0].worker.ground.metrics.turns.get() - turns;
    assert!(turns >= 20, "one a turn: {turns}");
    for ask in asks {
        let found = ask.fetch().unwrap();
        assert!(!found.rows.is_empty() && found.rows.len() < 40 && found.next.is_some(), "{} rows", found.rows.len());
    }
}

#[test]
fn whoever_stops_at_any_byte_of_a_stream_goes_on_at_that_byte() {
    for room in (1..90).chain([200, 333]) {
        let mut world = World::new(room as u64, sharing(|streams| streams.anew_least = 0), 4096, 1 << 20);
        let at = world.subscriber_offering(room, &["q"], Offer::Twelve);
        world.subscribers(2, &["q"]);
        for _ in 0..6 {
            world.publish_some("q", 5, 100);
            world.settle();
        }
        let (inflated, followed) = world.read(at);
        assert!(inflated >= 25 && followed >= 15, "room for {room}: {inflated}, of these {followed}");
    }
}

#[test]
fn what_is_private_or_small_comes_between_as_it_is_and_what_is_large_compressed_by_itself() {
    for level in [1, 7] {
        let change =
            |streams: &mut StreamSettings| (streams.private, streams.least) = (["q.secret".into()].into(), 150);
        let mut world = world(|streams| {
            change(streams);
            streams.level = Some(level);
        });
        let members = world.subscribers(3, &["q.*"]);
        for _ in 0..5 {
            world.publish_each("q.a", 2, 200);
            world.publish_each("q.secret", 1, 200);
            world.publish_each("q.b", 1, 0);
            world.publish_each("q.b", 1, 5000);
        }
        for at in members {
            let (inflated, followed) = world.read(at);
            assert_eq!(inflated, 15, "three of five");
            assert!(followed >= 5, "of which one in eight begins anew and a third refers to nothing: {followed}");
        }
        assert_eq!(world.counts(), [10, 10, 1, 0, 0]);
        assert_eq!(world.passed(), 5);
    }
}

#[test]
fn a_publication_that_many_streams_want_goes_compressed_by_itself_to_the_last_of_them() {
    let mut world = world(|streams| (streams.members_min, streams.most, streams.level) = (1, 100, Some(1)));
    let lists: Vec<usize> = (0..40).map(|n| world.subscribers(1, &["q", &format!("own.{n}")])[0]).collect();
    for n in 0..40 {
        world.publish_each(&format!("own.{n}"), 1, 200);
    }
    let opened = world.counts()[0];
    world.publish_each("q", 6, 200);
    assert_eq!(opened, 40, "each has a stream");
    for at in &lists {
        assert_eq!(world.read(*at).0, 7, "nobody is sent anything as it is");
    }
    let (frames, passed) = (world.counts()[0] - 40, world.passed());
    assert_eq!(frames + passed, 240);
    assert!(frames >= 36 && passed >= 36, "{frames} in streams, {passed} by themselves");
    // They go on, all of them.
    for n in 0..40 {
        world.publish_each(&format!("own.{n}"), 1, 200);
    }
    for at in &lists {
        let (inflated, followed) = world.read(*at);
        assert!(inflated == 8 && followed >= 1, "{inflated}, of which {followed} refer to others");
    }
}

#[test]
fn what_passing_one_publication_over_costs_in_all_streams_has_a_bound_too() {
    let mut world = world(|streams| (streams.members_min, streams.most, streams.level) = (1, 200, Some(7)));
    let lists: Vec<usize> = (0..60).map(|n| world.subscribers(1, &["q", &format!("own.{n}")])[0]).collect();
    for n in 0..60 {
        world.publish_each(&format!("own.{n}"), 1, 200);
    }
    world.publish_each("q", 1, 5000);
    let passed = world.passed();
    assert!(passed > 0 && passed < 10, "{passed}");
    for n in 0..60 {
        world.publish_each(&format!("own.{n}"), 1, 200);
    }
    for at in &lists {
        let (inflated, followed) = world.read(*at);
        assert!(inflated >= 2 && followed == 1, "they go on, whatever they were sent: {inflated}, {followed}");
    }
}

#[test]
fn who_waits_for_a_stream_is_sent_what_was_compressed_for_others_as_that() {
    let mut world = world(|streams| (streams.anew_every, streams.anew_least) = (1000, 900));
    let first = world.subscribers(3, &["q"]);
    world.publish_each("q", 4, 200);
    let late = world.subscriber_offering(1 << 16, &["q"], Offer::Plain);
    world.publish_each("q", 4, 200);
    assert_eq!(world.read(late), (0, 0));
    world.publish_each("q", 2, 5000);
    assert_eq!(world.read(late), (2, 0), "those are too large for the stream");
    assert_eq!(world.read(first[0]).0, 10);
}

#[test]
fn whoever_was_not_sent_what_the_stream_passed_over_leaves_it() {
    // What is compressed by itself is kept, or let go before it is sent.
    for (memory, followed_least) in [(1 << 20, 20), (0, 0)] {
        let settings = sharing(|streams| streams.anew_every = 30);
        let packs = PackSettings { memory, ..settings.compression.packs };
        let settings = Settings { compression: Compressing { packs, ..settings.compression }, ..settings };
        let mut world = World::new(1, settings, 4096, 1 << 20);
        let members = world.subscribers(3, &["q"]);
        world.publish_each("q", 5, 200);
        world.publish_some("q", 20, 5000);
        world.settle();
        let told = world.told();
        assert_eq!(told[0] == "shared", memory > 0, "{told:?}");
        world.publish_each("q", 40, 200);
        assert_eq!(world.told(), ["shared"; 3]);
        for at in members {
            let (inflated, followed) = world.read(at);
            assert!(inflated >= 20 && followed >= followed_least, "{inflated}, {followed}");
        }
    }
}

#[test]
fn whoever_stops_at_any_byte_of_what_is_compressed_by_itself_goes_on_at_that_byte_and_with_the_stream() {
    for way in [Way::All, Way::Latest] {
        for room in (1..90).chain([200, 333]) {
            let mut world = World::new(room as u64, sharing(|streams| streams.anew_least = 0), 4096, 1 << 20);
            let at = world.wishing(room, way);
            world.subscribers(2, &["q"]);
            world.wishing(1 << 16, way);
            world.wishing(1 << 16, way);
            for _ in 0..6 {
                world.publish_some("q", 2, 100);
                world.publish_some("q", 1, 5000);
                world.publish_some("q", 2, 100);
                world.settle();
            }
            assert!(world.passed() > 0);
            let (inflated, followed) = world.read(at);
            let is_all = matches!(way, Way::All);
            assert!(!is_all || (inflated >= 25 && followed >= 12), "room for {room}: {inflated}, of these {followed}");
        }
    }
}

#[test]
fn whoever_changes_its_subscription_leaves_the_stream_and_comes_back_where_it_begins_anew() {
    let mut world = world(|_| {});
    let members = world.subscribers(4, &["q"]);
    world.publish_each("q", 4, 200);
    let World { clients, journal, .. } = &mut world;
    clients[members[0]].sub(vec!["t".into()], false, journal);
    world.settle();
    world.publish_each("q", 4, 200);
    let (inflated, followed) = world.read(members[0]);
    assert_eq!((inflated, followed), (8, 3), "alone with its names it is sent them compressed by themselves");
    let World { clients, journal, .. } = &mut world;
    clients[members[0]].unsub(vec!["t".into()], journal);
    world.settle();
    world.publish_each("q", 8, 200);
    let (again, refers) = world.read(members[0]);
    assert!(again > inflated && refers > followed + 4, "{again}, {refers}");
}

#[test]
fn a_cohort_that_is_much_larger_takes_the_stream_of_a_small_one_and_who_is_left_alone_has_none() {
    let mut world = world(|streams| streams.members_min = 2);
    let small = world.subscribers(2, &["t"]);
    world.publish_each("t", 3, 200);
    let large = world.subscribers(5, &["q"]);
    // Those of the small one come first each time, and don't get it back.
    for _ in 0..4 {
        world.publish_each("t", 1, 200);
        world.publish_each("q", 1, 200);
    }
    assert_eq!(world.posts[0].worker.ground.metrics.shared_streams.get(), 1);
    assert_eq!(world.read(small[0]), (7, 3), "what comes then is compressed by itself");
    assert!(world.read(large[0]).1 >= 2, "each refers to the one before");
    for at in &large[1..] {
        world.clients[*at].close(1000);
    }
    world.settle();
    let before = world.read(large[0]).1;
    world.publish_each("q", 5, 200);
    let metrics = &world.posts[0].worker.ground.metrics;
    assert_eq!(metrics.shared_streams.get(), 1, "with half of the least it goes on");
    assert!(world.read(large[0]).1 - before >= 4);
}

impl World {
    /// A JSON client that is subscribed to `q` in this way.
    fn wishing(&mut self, room: usize, way: Way) -> usize {
        let (peer, id) = self.hand_over(room);
        let wish = Wish { names: vec!["q".into()], way, snapshot: true, from: BTreeMap::new(), cursor: None };
        self.clients.push(Client::wish(peer, id, Speech::Json, wish, Offer::Plain, &self.journal));
        self.settle();
        self.clients.len() - 1
    }
}

#[test]
fn newest_values_come_through_a_stream_to_whoever_keeps_up_and_by_themselves_to_whoever_does_not() {
    let mut world = world(|streams| streams.anew_every = 20);
    let slow = world.wishing(1500, Way::Latest);
    let quick = world.wishing(1 << 16, Way::Latest);
    world.wishing(1 << 16, Way::Latest);
    world.publish_each("q", 7, 200);
    for (inflated, followed) in [slow, quick].map(|at| world.read(at)) {
        assert!(inflated == 7 && followed >= 4, "{inflated}, of these {followed} refer to others");
    }
    world.clients[slow].stalled = true;
    world.publish_each("q", 300, 200);
    world.clients[slow].stalled = false;
    world.settle();
    let (inflated, followed) = world.read(slow);
    assert!(
        inflated < 150 && followed < 150,
        "most are left out, and what is newest is by itself: {inflated}, {followed}"
    );
    assert!(world.read(quick).0 >= 300, "{}", world.read(quick).0);
    world.publish_each("q", 30, 200);
    let (again, refers) = world.read(slow);
    assert!(again - inflated >= 18 && refers - followed > 10, "it is back on the stream: {again}, {refers}");
    assert_eq!(world.told(), ["shared"; 3]);
}

#[test]
fn rates_never_come_through_a_stream() {
    let mut world = world(|_| {});
    let clients: Vec<usize> = (0..4).map(|_| world.wishing(1 << 16, Way::Rate(50))).collect();
    world.publish_each("q", 20, 200);
    world.pass(Duration::from_millis(100));
    for at in clients {
        assert_eq!(world.read(at).1, 0);
        assert!(world.read(at).0 > 0);
    }
    assert_eq!(world.counts()[0], 0);
    assert_eq!(world.told(), ["once: some of its names have a rate"; 4]);
}

#[test]
fn cohorts_of_a_few_do_without_a_stream_while_turns_are_full_and_for_a_while_after() {
    let settings = Settings { turn_work: 5000, ..sharing(|streams| streams.level = None) };
    let mut world = World::new(1, settings, 4096, 1 << 20);
    let few = world.subscribers(3, &["q"]);
    world.publish_each("q", 4, 200);
    assert_eq!((world.read(few[0]), world.counts()[0]), ((4, 3), 4), "there is leisure");
    // More at once than a turn has room for.
    world.publish_some("q", 12, 200);
    world.settle();
    assert_eq!(world.counts()[0], 16, "it was a burst");
    world.publish_some("q", 400, 200);
    world.settle();
    let frames = world.counts()[0];
    assert!(frames < 400, "{frames} of them in the stream");
    world.publish_each("q", 4, 200);
    assert_eq!(world.counts()[0], frames, "there was none just now");
    assert_eq!(world.told()[0], "once: few have the same subscription, and its worker was busy");
    world.pass(crate::stream::streams::LEISURE);
    world.publish_each("q", 4, 200);
    assert_eq!(world.counts()[0], frames + 4, "there is again");
}

#[test]
fn cohorts_of_many_and_those_of_a_level_that_was_set_keep_their_streams_when_turns_are_full() {
    for (members, level) in [(8, None), (3, Some(1))] {
        let mut world = world(|streams| streams.level = level);
        world.subscribers(members, &["q"]);
        world.publish_some("q", 2000, 200);
        world.settle();
        assert_eq!(world.shared.packs.stream_counts.opened.get(), 1, "{members} {level:?}");
        let metrics = &world.posts[0].worker.ground.metrics;
        assert_eq!(metrics.shared_streams.get(), 1, "{members} {level:?}");
    }
}
