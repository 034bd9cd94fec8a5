//! Those that are behind: shown, limited, and told.

use super::*;

#[test]
fn a_full_connection_without_subscriptions_does_not_lag() {
    let mut world = plain(settings());
    let quiet = world.subscriber(60, &["q"]);
    let World { clients, journal, .. } = &mut world;
    clients[quiet].stalled = true;
    clients[quiet].ping();
    clients[quiet].ping();
    clients[quiet].unsub(vec!["q".into()], journal);
    world.settle();
    // Somebody else's subscription keeps the worker on the tape.
    world.subscriber(100_000, &["t"]);
    for _ in 0..40 {
        world.publish_some("t", 5, 400);
        world.settle();
    }
    assert!(world.tail() > 100);
    world.clients[quiet].stalled = false;
    world.settle();
    assert_eq!(world.clients[quiet].state, State::Open);
    world.clients[quiet].check_complete(world.journal.len(), &world.journal, 0);
}

#[test]
fn a_lag_limit_keeps_no_worker_awake_over_somebody_who_has_unsubscribed() {
    let mut world = plain(Settings { lag_limit: 100, ..settings() });
    let quiet = world.subscriber(60, &["q"]);
    let World { clients, journal, .. } = &mut world;
    clients[quiet].stalled = true;
    clients[quiet].ping();
    clients[quiet].unsub(vec!["q".into()], journal);
    // Falls asleep, or the turns in which nothing moves are counted as a loop.
    world.pass(Duration::from_secs(1));
    assert_eq!(world.posts[0].worker.cursors.len(), 1);
}

#[test]
fn the_last_subscription_to_end_leaves_no_acknowledgement_behind() {
    // Luck decides whether something else takes the worker out of its sleep.
    for seed in 0..10 {
        let settings = Settings {
            flush_interval: Duration::from_secs(10),
            heartbeat: Duration::ZERO,
            idle_timeout: Duration::from_secs(6),
            ..settings()
        };
        let mut world = World::new(seed, settings, 4096, 64 * 1024);
        let silent = world.subscriber(100_000, &["q"]);
        world.clients[silent].rude = true;
        world.publish_some("q", 1, 0);
        world.pass(Duration::from_secs(8));
        let other = world.subscriber(100_000, &[]);
        // Held back: the worker's position stays before it, and the other's change of subscription comes behind it.
        world.publish_some("q", 1, 0);
        let World { clients, journal, .. } = &mut world;
        clients[other].unsub(vec!["t".into()], journal);
        world.pass(Duration::from_millis(1500));
        assert!(matches!(world.clients[silent].state, State::Closed(1008)));
        world.clients[other].check_complete(2, &world.journal, 0);
    }
}

#[test]
fn those_furthest_behind_are_shown_worst_first_and_no_more_than_are_asked_for() {
    let mut world = plain(Settings { slow_list: 2, ..settings() });
    let names = ["q", "t", "a.1", "a.2", "a.3", "a.4", "a.5", "a.6", "a.7", "a.8"];
    let slow: Vec<usize> = (0..4).map(|_| world.subscriber(60, &names)).collect();
    let healthy = world.subscriber(100_000, &["q"]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.shared.slow.all().len(), 0);
    // Each stalls at another publication, the first of them first.
    for at in &slow {
        world.clients[*at].stalled = true;
        world.publish_some("q", 1, 100);
        world.pass(Duration::from_secs(10));
    }
    let shown = world.shared.slow.all();
    let name = |at: usize| format!("1-{:x}", world.clients[at].id & 0xffff_ffff_ffff);
    assert_eq!([0, 1].map(|n| shown[n].conn.clone()), [0, 1].map(|n| name(slow[n])));
    assert_eq!(shown.len(), 2);
    let (first, second) = (&shown[0], &shown[1]);
    assert!(first.lag_bytes > second.lag_bytes && second.lag_bytes > 300, "{shown:?}");
    assert!((38..=41).contains(&first.lag.as_secs()) && (28..=31).contains(&second.lag.as_secs()), "{shown:?}");
    assert!(first.connected >= Duration::from_secs(42), "{shown:?}");
    assert_eq!((first.subscriptions.len(), first.more, first.mode, first.skips), (8, 2, "all", 0));
    assert!(first.path.unwrap().unacked_bytes > 0);
    // They read again, and nothing else happens.
    for at in &slow {
        world.clients[*at].stalled = false;
    }
    world.pass(Duration::from_secs(3));
    assert_eq!(world.shared.slow.all().len(), 0);
    world.clients[healthy].check_complete(world.journal.len(), &world.journal, 0);
}

#[test]
fn no_slow_list_is_none() {
    let mut world = plain(Settings { slow_list: 0, ..settings() });
    let at = world.subscriber(60, &["q"]);
    world.clients[at].stalled = true;
    world.publish_some("q", 5, 100);
    world.pass(Duration::from_secs(3));
    assert_eq!((world.posts[0].worker.cursors.len(), world.shared.slow.all().len()), (1, 0));
}

#[test]
fn answers_and_lag_are_shown_while_they_are_there_also_if_the_worker_sleeps() {
    let mut world = plain(Settings { slow_list: 0, ..settings() });
    let at = world.subscriber(60, &["q"]);
    world.clients[at].stalled = true;
    world.publish_some("q", 5, 100);
    world.clients[at].ping();
    world.clients[at].ping();
    world.pass(Duration::from_secs(1));
    let metrics = Arc::clone(&world.shared.metrics);
    let figures = || [&metrics.workers[0].pending_bytes, &metrics.workers[0].lag_max].map(|figure| figure.get());
    assert!(figures().into_iter().all(|figure| figure > 0), "{:?}", figures());
    // Nothing else gives the worker a turn after this one.
    world.clients[at].state = State::Left;
    world.clients[at].peer.reset();
    world.pass(Duration::from_secs(1));
    assert_eq!(figures(), [0, 0]);
}

#[test]
fn whoever_is_further_behind_than_the_limit_is_told_and_closed() {
    let bytes = Settings { lag_limit: 2000, ..settings() };
    let age = Settings { lag_limit_age: Duration::from_secs(3), ..settings() };
    for (limits, way) in [(bytes, Way::All), (age, Way::All), (Settings { lag_limit: 2000, ..settings() }, Way::Latest)]
    {
        let mut world = plain(limits);
        let wish = Wish { names: vec!["q".into()], way, snapshot: true, from: BTreeMap::new(), cursor: None };
        let slow = world.connect_as(300, Speech::Json, wish);
        world.settle();
        world.clients[slow].stalled = true;
        world.publish_some("q", 40, 100);
        world.pass(Duration::from_secs(5));
        // The tape has it all, and yet.
        let expected = if way == Way::All { State::Closed(4100) } else { State::Open };
        world.clients[slow].stalled = false;
        let World { clients, journal, .. } = &mut world;
        clients[slow].read(usize::MAX, journal, journal.len());
        world.pass(Duration::from_secs(1));
        assert_eq!(world.clients[slow].state, expected);
    }
}

#[test]
fn whoever_is_beyond_the_limit_within_a_frame_is_told_and_closed_though_the_tape_has_rolled_on() {
    let mut world = plain(Settings { lag_limit: 10_000, ..settings() });
    let slow = world.subscriber(300, &["q"]);
    world.clients[slow].stalled = true;
    world.publish_some("q", 1, 2000);
    world.settle();
    // It is time to look in the turn that also finds that the tape has let go of what it is in the middle of.
    world.kernel.advance(Duration::from_secs(1));
    world.publish_some("q", 100, 2000);
    world.settle();
    assert!(world.tail() > 1);
    world.clients[slow].stalled = false;
    world.settle();
    assert_eq!(world.clients[slow].state, State::Closed(4100));
}

#[test]
fn whoever_falls_off_the_tape_is_told_how_many_publications_are_gone() {
    let mut world = plain(settings());
    let (peer, _) = world.hand_over(2000);
    peer.write(
        b"GET /ws?topics=q HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    world.settle();
    world.publish_some("q", 30, 100);
    world.settle();
    world.publish_some("q", 300, 400);
    let mut told = Vec::new();
    for _ in 0..50 {
        world.settle();
        told.extend(peer.read(usize::MAX));
    }
    let told = String::from_utf8_lossy(&told);
    let updates = told.matches(r#""type":"update""#).count();
    let (_, lost) = told.split_once("too slow: ").expect("it has fallen off");
    let lost: usize = lost.split(' ').next().unwrap().parse().unwrap();
    // The one that it had begun to be sent is among those that are gone.
    assert!(
        updates > 5 && (0..=1).contains(&(lost + updates - world.tail())),
        "{lost} and {updates} of {}",
        world.tail()
    );
}

#[test]
fn a_topic_that_is_forgotten_in_the_middle_of_its_frame_costs_that_client_alone() {
    for reads_on in [false, true] {
        let mut world = plain(settings());
        // Nobody wants the lane yet, so that the frame is made when it is missed, from the topic's name.
        world.publish_some("q", 3, 400);
        let epoch = world.tape.with_topics(|topics, _| topics.find("q").unwrap().epoch);
        let at = world.subscriber(200, &[]);
        world.settle();
        world.clients[at].stalled = true;
        let sub = format!(r#"{{"op":"sub","topics":["q"],"snapshot":false,"from":{{"q":["{epoch}",0]}}}}"#);
        world.clients[at].send(1, sub.as_bytes());
        world.settle();
        world.clients[at].send(1, br#"{"op":"unsub","topics":["q"]}"#);
        world.settle();
        assert_eq!(world.tape.forget_topics(0..8, |_, _| true), 1);
        if reads_on {
            while !world.clients[at].peer.read(usize::MAX).is_empty() {
                world.settle();
            }
        } else {
            world.clients[at].send(8, &1000u16.to_be_bytes());
            world.settle();
        }
        assert!(world.clients[at].peer.dropped(), "there is nothing that could follow the half of a frame");
        world.clients[at].state = State::Left;
        world.settle();
    }
}

/// What the steps for those that are behind, and for those that are to end, have cost so far.
fn cost(world: &World) -> u64 {
    let work = &world.shared.metrics.workers[0].work;
    work[work::Step::Go as usize].get() + work[work::Step::LookAfter as usize].get()
}

#[test]
fn clients_that_wait_for_room_cost_a_turn_nothing_however_many() {
    let cost_with = |stalled: usize| {
        let mut world = World::new(1, settings(), 4096, 1 << 20);
        world.subscriber(10 << 20, &["q"]);
        let wish =
            Wish { names: vec!["q".into()], way: Way::Latest, snapshot: true, from: BTreeMap::new(), cursor: None };
        for n in 0..stalled {
            let at = match n % 2 {
                0 => world.subscriber(60, &["q"]),
                _ => world.connect_as(300, Speech::Json, wish.clone()),
            };
            world.settle();
            world.clients[at].stalled = true;
        }
        world.publish_some("q", 20, 100);
        world.settle();
        let behind = world.posts[0].worker.cursors.len();
        assert!(behind > stalled / 2, "{behind} of {stalled}");
        let publish = |world: &mut World| {
            // Some of them begin a segment.
            let before = cost(world);
            world.publish_some("q", 4, 400);
            world.settle();
            cost(world) - before
        };
        // Sometimes luck lets the socket of the one that reads be full.
        (0..20).map(|_| publish(&mut world)).min()
    };
    assert_eq!([2, 40].map(cost_with), [Some(0); 2]);
}

#[test]
fn clients_that_fall_off_the_tape_together_end_over_several_turns_and_are_sent_whole_frames() {
    let mut world = World::new(1, Settings { turn_work: 1000, turn_sends: 2, ..settings() }, 4096, 16 * 1024);
    world.limits = Limits::of_connections(1000);
    let slow: Vec<usize> = (0..40).map(|n| world.subscriber(100 + n, &["q"])).collect();
    world.settle();
    for at in &slow {
        world.clients[*at].stalled = true;
    }
    for _ in 0..20 {
        world.publish_some("q", 5, 400);
        world.settle();
    }
    let put_off = &world.shared.metrics.workers[0].put_off[work::Step::LookAfter as usize];
    assert!(put_off.get() > 3, "they all end in one turn");
    for at in &slow {
        world.clients[*at].stalled = false;
    }
    // Each client checks every byte.
    world.settle();
    for at in slow {
        assert_eq!(world.clients[at].state, State::Closed(4100));
    }
}

/// A subscriber of newest values of `q.>` that is stalled behind `topics` topics, each of which changes twice.
fn stalled_behind(topics: usize, clients: usize) -> (World, Vec<usize>) {
    let mut world = World::new(1, settings(), 1 << 16, 4 << 20);
    let wish =
        Wish { names: vec!["q.>".into()], way: Way::Latest, snapshot: true, from: BTreeMap::new(), cursor: None };
    let names: Vec<String> = (0..topics).map(|n| format!("q.{n}")).collect();
    names.iter().for_each(|name| world.publish_some(name, 1, 0));
    let slow: Vec<usize> = (0..clients).map(|_| world.connect_as(200, Speech::Json, wish.clone())).collect();
    world.settle();
    for at in &slow {
        world.clients[*at].stalled = true;
    }
    for name in names.iter().chain(&names) {
        world.publish_some(name, 1, 0);
        world.settle();
    }
    assert_eq!(world.posts[0].worker.cursors.len(), clients);
    (world, slow)
}

#[test]
fn what_a_client_that_stalls_in_newest_values_holds_does_not_grow_with_topics() {
    let held = |topics: usize| {
        let (world, _) = stalled_behind(topics, 10);
        let Worker { connections, cursors, fan, .. } = &world.posts[0].worker;
        let most = connections.iter().map(|(token, connection)| cursors.held(token, connection)).max().unwrap();
        // What it was told of topics that have changed since is kept once, for all.
        assert!(fan.interest.kept_of_past() <= topics * 2, "{} for {topics} topics", fan.interest.kept_of_past());
        most
    };
    let (few, many) = (held(10), held(400));
    assert!(many < few + 2048, "{few} bytes with 10 topics, {many} with 400");
}

#[test]
fn a_round_of_many_topics_is_sent_whole_and_in_order_though_they_all_change_meanwhile() {
    let (mut world, slow) = stalled_behind(300, 2);
    for n in 0..4000 {
        // Each reads a little, while topics change behind and before it.
        world.kernel.allow(Duration::ZERO);
        world.turn();
        world.read_all(150);
        for at in &slow {
            world.clients[*at].stalled = false;
        }
        if n < 1500 {
            world.publish_some(&format!("q.{}", n * 7 % 300), 1, 0);
        }
    }
    world.settle();
    for at in slow {
        let client = &mut world.clients[at];
        assert_eq!(client.state, State::Open);
        client.check_complete(world.journal.len(), &world.journal, 0);
        assert!(client.book.as_ref().unwrap().skipped > 300, "it was sent everything");
    }
    let told: u64 = world.clients.iter().filter_map(|client| Some(client.book.as_ref()?.skipped)).sum();
    assert_eq!(world.shared.metrics.workers[0].skipped.get(), told, "what the metric says, and what clients were told");
}

#[test]
fn what_was_kept_for_slow_clients_goes_when_they_have_caught_up() {
    let (mut world, slow) = stalled_behind(50, 3);
    assert!(world.posts[0].worker.fan.interest.kept_of_past() > 0);
    for at in slow {
        world.clients[at].stalled = false;
    }
    world.settle();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.posts[0].worker.fan.interest.kept_of_past(), 0);
}

#[test]
fn a_value_at_a_rate_that_is_gone_before_it_was_sent_is_told_to_whoever_changes_to_newest_values() {
    let mut world = plain(settings());
    // A pattern's acknowledgement tells no numbers: nothing but skips says what is missing.
    let wish = |way| Wish { names: vec!["q.*".into()], way, snapshot: false, from: BTreeMap::new(), cursor: None };
    let at = world.connect_as(200, Speech::Json, wish(Way::Rate(1)));
    world.settle();
    world.clients[at].stalled = true;
    // It has begun to be sent the first, at a tick; the second is to be sent before the subscription changes.
    world.publish_some("q.a", 1, 400);
    world.pass(Duration::from_millis(1100));
    world.publish_some("q.a", 1, 0);
    world.clients[at].sub_as(wish(Way::Latest), &world.journal);
    world.settle();
    for _ in 0..60 {
        world.publish_some("q.a", 5, 400);
        world.settle();
    }
    assert!(world.tail() > 2, "the second is gone");
    world.clients[at].stalled = false;
    world.settle();
    let client = &mut world.clients[at];
    assert_eq!(client.state, State::Open);
    client.check_complete(world.journal.len(), &world.journal, 0);
    assert_eq!(client.book.as_ref().unwrap().skipped, 300, "all but the first and the last");
}

#[test]
fn whoever_is_stopped_within_a_tick_is_told_no_place_beyond_what_it_is_still_to_be_sent() {
    let mut world = plain(settings());
    for n in 0..10 {
        world.publish_some(&format!("q.{n}"), 1, 0);
    }
    let wish =
        Wish { names: vec!["q.*".into()], way: Way::Rate(1), snapshot: true, from: BTreeMap::new(), cursor: None };
    let at = world.connect_as(2000, Speech::Json, wish);
    world.settle();
    world.clients[at].stalled = true;
    for n in 0..10 {
        world.publish_some(&format!("q.{n}"), 1, 400);
    }
    world.pass(Duration::from_millis(1100));
    assert_eq!(world.posts[0].worker.cursors.len(), 1, "its tick was more than its socket took");
    // The answer comes before the values, with a place that the client holds against what it has been told by then.
    world.clients[at].ping();
    world.settle();
    world.clients[at].stalled = false;
    world.settle();
    let client = &mut world.clients[at];
    client.check_complete(world.journal.len(), &world.journal, 0);
}

#[test]
fn a_cursor_far_behind_goes_through_the_tape_a_piece_at_a_time() {
    for mixed in [false, true] {
        let mut world = World::new(1, Settings { turn_work: 5000, turn_sends: 1, ..settings() }, 1 << 16, 8 << 20);
        let wish = |name: &str, way| Wish {
            names: vec![name.into()],
            way,
            snapshot: false,
            from: BTreeMap::new(),
            cursor: None,
        };
        let at = world.connect_as(300, Speech::Json, wish("q", Way::All));
        world.settle();
        if mixed {
            world.clients[at].sub_as(wish("p", Way::Latest), &world.journal);
            world.settle();
        }
        world.clients[at].stalled = true;
        world.publish_some("q", 1, 2000);
        world.settle();
        world.publish_some("x", 5000, 0);
        world.publish_some("q", 1, 0);
        world.settle();
        assert_eq!(world.posts[0].worker.cursors.len(), 1);
        world.clients[at].stalled = false;
        let mut turns = 0;
        while !world.posts[0].worker.cursors.is_empty() {
            world.read_all(usize::MAX);
            world.turn_of(0);
            turns += 1;
        }
        assert!(turns > 20, "{turns} turns");
        world.settle();
        world.clients[at].check_complete(world.journal.len(), &world.journal, 0);
    }
}

#[test]
fn what_a_rate_leaves_out_is_not_told_to_whoever_is_behind_and_not_late() {
    let mut world = plain(settings());
    let wish = |name: &str| Wish {
        names: vec![name.into()],
        way: Way::Rate(1),
        snapshot: false,
        from: BTreeMap::new(),
        cursor: None,
    };
    let at = world.connect_as(200, Speech::Json, wish("q"));
    world.settle();
    world.clients[at].stalled = true;
    world.publish_some("q", 1, 400);
    world.pass(Duration::from_millis(1100));
    // Of these the last is due when the subscription changes.
    world.publish_some("q", 4, 0);
    world.clients[at].sub_as(wish("x"), &world.journal);
    world.settle();
    assert_eq!(world.posts[0].worker.cursors.len(), 1);
    world.clients[at].stalled = false;
    world.settle();
    let client = &mut world.clients[at];
    client.check_complete(world.journal.len(), &world.journal, 0);
    assert_eq!(client.book.as_ref().unwrap().skipped, 0);
}
