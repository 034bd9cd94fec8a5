//! Compressed publications: once for all, the same to everybody, and counted. (That every byte is right is what every client checks, in
//! every script of luck.)

use super::*;
use crate::metrics::{Figure, WorkerMetrics};

impl World {
    /// A JSON client that is subscribed to `names`, and offers this.
    pub(super) fn subscriber_offering(&mut self, room: usize, names: &[&str], offer: Offer) -> usize {
        let (peer, id) = self.hand_over(room);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.clients.push(Client::connect(peer, id, Speech::Json, &names, offer, &self.journal));
        self.settle();
        let at = self.clients.len() - 1;
        assert_eq!(self.clients[at].state, State::Open);
        at
    }
}

impl World {
    /// Asserts that clients were not sent so many bytes, which are `each` for a publication. What a socket has taken of one in which it was full is
    /// counted by its share.
    fn check_saved(&self, all: u64, each: u64, about: &str) {
        let count = |figure: fn(&WorkerMetrics) -> &Figure| -> u64 {
            self.posts.iter().map(|post| figure(&post.worker.ground.metrics).get()).sum()
        };
        let (saved, stops) = (count(|it| &it.packed_saved_bytes), count(|it| &it.sends_full));
        assert!(saved <= all + all / 20, "{about}: {saved} of {all}");
        assert!(
            saved + stops * each + all / 20 >= all,
            "{about}: {saved} of {all}, {each} each, stopped {stops} times"
        );
    }

    /// Bytes that all compressed publications have become shorter by, and one of them.
    fn shorter(&self) -> (u64, u64) {
        let counts = &self.shared.packs.counts;
        let all = counts.bytes_in.get() - counts.bytes_out.get();
        (all, all.div_ceil(counts.frames.get().max(1)))
    }
}

/// Settings under which nothing is let go of what was compressed.
fn ample() -> Settings {
    let settings = settings();
    let packs = PackSettings { least: 150, memory: 1 << 20, ..settings.compression.packs };
    Settings { compression: Compressing { packs, ..settings.compression }, ..settings }
}

#[test]
fn a_publication_is_compressed_once_for_all_cohorts_of_all_workers() {
    let mut world = World::of(2, 1, ample(), 4096, 1 << 20);
    let compressed: Vec<usize> =
        (0..6).map(|n| world.subscriber_offering(1 << 16, [&["q.*"][..], &["q.a"]][n % 2], Offer::Plain)).collect();
    let clear = world.subscriber_offering(1 << 16, &["q.*"], Offer::None);
    let nine = world.subscriber_offering(1 << 16, &["q.*"], Offer::Nine);
    world.publish_some("q.a", 20, 200);
    world.publish_some("q.a", 5, 0);
    world.settle();
    for at in compressed {
        assert_eq!(world.clients[at].inflated, 20, "small ones come as they are");
    }
    assert_eq!((world.clients[clear].inflated, world.clients[nine].inflated), (0, 0));
    let counts = &world.shared.packs.counts;
    assert_eq!((counts.frames.get(), counts.evicted.get()), (20, 0));
    assert!(counts.bytes_out.get() * 2 < counts.bytes_in.get());
    let (all, each) = world.shorter();
    world.check_saved(6 * all, each, "six");
    let packed: u64 = world.posts.iter().map(|post| post.worker.ground.metrics.packed.get()).sum();
    assert_eq!(packed, 6, "those that are sent compressed frames");
}

#[test]
fn whoever_stops_at_any_byte_of_a_frame_goes_on_at_that_byte_also_when_it_has_to_be_made_again() {
    // Of 6000 bytes of memory, and of none.
    for memory in [6000, 0] {
        for room in 1..70 {
            let settings = settings();
            let packs = PackSettings { memory, ..settings.compression.packs };
            let settings = Settings { compression: Compressing { packs, ..settings.compression }, ..settings };
            let mut world = World::new(room as u64, settings, 4096, 1 << 20);
            let at = world.subscriber_offering(room, &["q"], Offer::Twelve);
            let before = world.clients[at].inflated;
            world.publish_some("q", 12, 150);
            world.settle();
            let inflated = world.clients[at].inflated - before;
            assert!(inflated == 12 || (memory == 0 && inflated > 0), "room for {room}: {inflated}");
            let (tail, end) = (world.tail(), world.journal.len());
            world.clients[at].check_complete(end, &world.journal, tail);
        }
    }
}

#[test]
fn whoever_is_behind_or_comes_late_is_sent_the_same_frames() {
    let mut world = World::new(1, ample(), 4096, 1 << 20);
    let stalled = world.subscriber_offering(500, &["q.*"], Offer::Plain);
    let fast = world.subscriber_offering(1 << 16, &["q.*"], Offer::Plain);
    world.clients[stalled].stalled = true;
    world.publish_some("q.a", 60, 300);
    world.settle();
    let made = world.shared.packs.counts.frames.get();
    assert_eq!((made, world.clients[fast].inflated), (60, 60));
    world.clients[stalled].stalled = false;
    world.settle();
    assert_eq!(world.clients[stalled].inflated, 60);
    assert_eq!(world.shared.packs.counts.frames.get(), made, "nothing was compressed again");
    let (all, each) = world.shorter();
    world.check_saved(2 * all, each, "both");
}

#[test]
fn what_is_saved_counts_for_those_at_rates_and_behind_and_in_newest_values() {
    for (way, is_stalled) in [(Way::Rate(1), false), (Way::Rate(1), true), (Way::Latest, true), (Way::All, true)] {
        let mut world = World::new(1, ample(), 4096, 1 << 20);
        let wish = Wish { names: vec!["q.*".into()], way, snapshot: false, from: BTreeMap::new(), cursor: None };
        let (peer, id) = world.hand_over(if is_stalled { 600 } else { 1 << 16 });
        world.clients.push(Client::wish(peer, id, Speech::Json, wish, Offer::Plain, &world.journal));
        world.settle();
        let at = world.clients.len() - 1;
        for _ in 0..5 {
            world.clients[at].stalled = is_stalled;
            (0..20).for_each(|n| world.publish_some(&format!("q.{n}"), 2, 300));
            world.pass(Duration::from_millis(1100));
            world.clients[at].stalled = false;
            world.pass(Duration::from_millis(1100));
        }
        let (inflated, (_, each)) = (world.clients[at].inflated, world.shorter());
        assert!(inflated > 50, "{way:?}: {inflated}");
        world.check_saved(inflated * each, each, &format!("{way:?}"));
    }
}

#[test]
fn what_inflates_to_much_counts_by_that_and_a_turn_takes_no_more_than_it_may() {
    let mut world = plain(Settings { turn_work: 20_000, ..settings() });
    let at = world.subscriber_offering(1 << 16, &[], Offer::Plain);
    // A sum of its bytes that is even is compressed (`Client::send`).
    let text = format!(r#"{{"op":"ping","id":77,"x":"{}"}}"#, " ".repeat(15_000));
    let text = if text.bytes().fold(0_u8, u8::wrapping_add) % 2 == 0 { text } else { text.replacen(' ', "!", 1) };
    assert!(text.bytes().fold(0_u8, u8::wrapping_add) % 2 == 0);
    let before = world.posts[0].worker.ground.metrics.inflated.bytes_out.get();
    for _ in 0..50 {
        world.clients[at].send(1, text.as_bytes());
    }
    // What a turn may cost is asserted after each of them.
    while !world.at_rest() {
        world.turn();
    }
    let metrics = &world.posts[0].worker.ground.metrics;
    assert_eq!(metrics.inflated.messages.get(), 50);
    assert_eq!(metrics.inflated.bytes_out.get() - before, 50 * text.len() as u64);
    assert!(metrics.turns.get() > 10, "{} turns", metrics.turns.get());
}
