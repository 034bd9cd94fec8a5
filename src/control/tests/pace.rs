//! For how long the tape holds what is published in any case, foretold and held against what happens.

use bytesize::ByteSize;

use super::{super::pace::Pace, *};
use crate::{
    lane::Lane,
    publish::{By, Door},
    tape::About,
};

const SECOND: Duration = Duration::from_secs(1);

/// A tape, its publisher and a clock that goes by the second.
struct Feed {
    context: Context,
    pace: Pace,
    now: Moment,
    payload: String,
}

impl Feed {
    fn new(retain: ByteSize, segment: ByteSize, lanes: &[Lane], payload: usize) -> Feed {
        let mut context = context_alone(|_| {}, |_| {});
        let (retain, segment) = (retain.as_u64() as usize, segment.as_u64() as usize);
        context.tape = Tape::new(TapeSettings { retain, segment, ..*context.tape.settings() });
        for lane in lanes {
            context.tape.want(*lane);
        }
        let now = Moment(1);
        Feed { pace: Pace::new(now, 0), context, now, payload: "7".repeat(payload) }
    }

    /// Publishes so many in the next second.
    fn second(&mut self, count: usize) {
        let door = Door::new(self.context.tape.clone(), 128);
        for _ in 0..count {
            door.publish(By::SERVER, "q.AAPL", Payload::Text(&self.payload), About::default()).unwrap();
        }
        self.now = self.now + SECOND;
        self.pace.advance(self.now, &self.context);
    }

    /// What is said: seconds, or 0 for no end.
    fn holds(&self) -> f64 {
        self.context.shared.metrics.tape_holds_us.get() as f64 / 1e6
    }

    /// How many publications there are, at least, while so many more are published.
    fn least(&self, count: usize) -> u64 {
        let door = Door::new(self.context.tape.clone(), 128);
        let held = (0..count).map(|_| {
            door.publish(By::SERVER, "q.AAPL", Payload::Text(&self.payload), About::default()).unwrap();
            self.context.tape.head().0 - self.context.tape.tail().0
        });
        held.min().unwrap()
    }
}

#[test]
fn what_is_said_is_there_just_after_the_oldest_has_gone() {
    let (kib, mib) = (ByteSize::kib, ByteSize::mib);
    for (retain, segment) in
        [(mib(1), kib(512)), (kib(1400), kib(512)), (mib(3), mib(1)), (mib(4), mib(1)), (mib(4), kib(64))]
    {
        for (lanes, payload) in
            [(&[Lane::Json][..], 10), (&[Lane::Json], 1000), (&[Lane::Json], 30_000), (&Lane::ALL, 300)]
        {
            let mut feed = Feed::new(retain, segment, lanes, payload);
            feed.second(10);
            let foretold = feed.holds();
            while feed.context.tape.tail().0 == 0 {
                feed.second(100);
            }
            (0..11).for_each(|_| feed.second(100));
            let said = feed.holds() * 100.0;
            // A segment has room for no more.
            let most = segment.as_u64() / payload.max(128) as u64 * 4;
            let there = feed.least(3 * most as usize) as f64;
            // Where two don't fit, there is none.
            let whole = (0..most).find_map(|_| {
                feed.second(1);
                feed.context.tape.status().whole
            });
            let whole = whole.map_or(0.0, |whole| whole.publications as f64);
            let case = format!("{retain}, {segment}, {payload} bytes, {} lanes", lanes.len());
            assert!(said <= there * 1.01 + 1.0, "{case}: {said} are said, and there are {there}");
            // A block of each lane, or a few publications.
            let close = |said: f64| there - said <= whole * 0.35 + 2.0 + there * 0.05;
            assert!(close(said), "{case}: {said} are said, and there are {there}");
            assert!(
                foretold * 10.0 <= there * 1.1 + 2.0,
                "{case}: {foretold} s were foretold at 10 a second, and there are {there}"
            );
        }
    }
}

#[test]
fn what_counts_is_the_rate_of_the_last_ten_seconds() {
    let mut feed = Feed::new(ByteSize::mib(4), ByteSize::kib(64), &[Lane::Json], 100);
    (0..30).for_each(|_| feed.second(10));
    let slow = feed.holds();
    // The market opens. The oldest publication is as old as before, and is soon gone.
    (0..10).for_each(|_| feed.second(1000));
    let fast = feed.holds();
    assert!((90.0..110.0).contains(&(slow / fast)), "{slow} s, then {fast} s");
    (0..10).for_each(|_| feed.second(0));
    assert_eq!(feed.holds(), 0.0, "nothing comes, so there is no end to it");
}

#[test]
fn it_is_among_the_figures_from_the_first_second_on() {
    let server = Server::start();
    let mut client = server.connect();
    let mut said = || {
        let body = client.get("/metrics").body;
        let line = body.lines().find_map(|line| line.strip_prefix("stentor_tape_holds_seconds "));
        line.expect("it is there").parse::<f64>().unwrap()
    };
    assert_eq!(said(), f64::INFINITY);
    server.context.shared.publisher.publish("a", Payload::Text("1")).unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while said().is_infinite() {
        assert!(std::time::Instant::now() < until, "it is not said");
        std::thread::sleep(SOON);
    }
}
