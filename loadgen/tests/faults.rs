//! Against an independent WebSocket server with injected faults: each of them is caught, and none is imagined.

mod common;

use std::time::Duration;

use common::{Act, Outcome, loadgen, run, serve};

/// 100 publications are warm-up at this rate; number 200 is well within the measured ones.
const SHORT: &str = "--subs 5 --rate 200/s --duration 1500ms --warmup 500ms --drain 1s";

/// A run in which `act` happens to one publication on its way to one subscriber.
fn with(act: Act) -> Outcome {
    let server = serve(move |subscriber, nth| if (subscriber, nth) == (2, 200) { act.clone() } else { Act::Pass });
    loadgen("fanout", server, SHORT)
}

#[test]
fn a_faultless_server_has_no_faults() {
    let outcome = with(Act::Pass);
    assert!(outcome.code == 0 || outcome.code == 3, "{}{}", outcome.out, outcome.err);
    assert_eq!(outcome.run("/faults").as_array().unwrap().len(), 0);
    assert_eq!((outcome.check("missing"), outcome.run("/publications").as_u64()), (0, Some(300)));
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(1500));
    assert_eq!(outcome.run("/classes/0/latency/count").as_u64(), Some(1500));
    assert_eq!(outcome.run("/spread/count").as_u64(), Some(300));
    let verdict = "It worked: 300 publications reached everybody: 1,500 deliveries, each byte as it was sent.";
    assert!(outcome.out.starts_with(verdict), "{}", outcome.out);
    for advice in
        ["--server-pid PID tells", "--cores 1 here", "--repeat 3", "--duration 5s makes the 1,000 publications"]
    {
        assert!(outcome.out.contains(advice), "{advice}: {}", outcome.out);
    }
}

#[test]
fn a_loss_is_caught() {
    let outcome = with(Act::Drop);
    assert_eq!((outcome.code, outcome.check("missing"), outcome.check("gaps")), (1, 1, 1), "{}", outcome.out);
    assert!(outcome.out.contains("1 publications missing"), "{}", outcome.out);
    assert!(outcome.out.starts_with("It did not work: see the faults.\n"), "{}", outcome.out);
}

#[test]
fn the_loss_of_the_last_publication_is_caught() {
    let server = serve(|subscriber, nth| if (subscriber, nth) == (2, 399) { Act::Drop } else { Act::Pass });
    let outcome = loadgen("fanout", server, SHORT);
    assert_eq!((outcome.code, outcome.check("missing"), outcome.check("gaps")), (1, 1, 0), "{}", outcome.out);
}

#[test]
fn a_repeat_is_caught() {
    let outcome = with(Act::Repeat);
    assert_eq!((outcome.code, outcome.check("repeats"), outcome.check("missing")), (1, 1, 0), "{}", outcome.out);
}

#[test]
fn reordering_is_caught_and_is_no_loss() {
    let outcome = with(Act::Hold);
    assert_eq!((outcome.code, outcome.check("reordered"), outcome.check("missing")), (1, 1, 0), "{}", outcome.out);
    assert_eq!(outcome.check("repeats"), 0);
}

#[test]
fn a_wrong_byte_is_caught() {
    let outcome = with(Act::Corrupt);
    assert_eq!((outcome.code, outcome.check("wrong"), outcome.check("missing")), (1, 1, 1), "{}", outcome.out);
}

#[test]
fn a_payload_cut_short_is_caught() {
    let outcome = with(Act::Cut);
    assert_eq!((outcome.code, outcome.check("torn")), (1, 1), "{}", outcome.out);
}

#[test]
fn a_subscriber_that_is_cut_off_is_caught() {
    let outcome = with(Act::HangUp);
    assert_eq!((outcome.code, outcome.check("closed")), (1, 1), "{}", outcome.out);
    assert!(outcome.check("missing") >= 199, "{}", outcome.out);
}

/// 200 publications a second for 1.5 s: a stall of 100 ms delays the 20 that are due meanwhile, by 95, 90, 85 … ms, of
/// the 1,500 that this subscriber and its four healthy neighbours get. Counted from the planned moment, all of them
/// must show; counted as many generators do, only one would.
#[test]
fn a_stall_of_100_ms_shows_in_full() {
    let outcome = with(Act::Stall(Duration::from_millis(100)));
    let figure = |name: &str| outcome.run(&format!("/classes/0/latency/{name}")).as_u64().unwrap() as f64 / 1e6;
    assert!(figure("max_ns") >= 99.0, "max {} ms\n{}", figure("max_ns"), outcome.out);
    // 10 of 1,500 deliveries are late by 50 ms or more: so is p99.5, and half as much at p99.
    assert!(figure("p999_ns") >= 90.0, "p99.9 {} ms\n{}", figure("p999_ns"), outcome.out);
    assert!(figure("p99_ns") >= 20.0, "p99 {} ms\n{}", figure("p99_ns"), outcome.out);
    assert_eq!(outcome.run("/faults").as_array().unwrap().len(), 0, "{}", outcome.out);
}

#[test]
fn a_server_that_dies_is_a_plain_sentence_with_what_was_done() {
    let server = serve(|_, nth| if nth == 200 { Act::Die } else { Act::Pass });
    let outcome = loadgen("fanout", server, SHORT);
    assert_eq!(outcome.code, 4, "{}{}", outcome.out, outcome.err);
    assert!(outcome.out.contains("the server was gone before the end"), "{}", outcome.out);
    assert!(outcome.out.starts_with("It did not come to its end"), "{}", outcome.out);
    assert!(outcome.run("/deliveries").as_u64().unwrap() >= 400, "{}", outcome.out);
}

#[test]
fn a_window_run_prints_throughput_and_says_why() {
    let outcome = loadgen("fanout", serve(|_, _| Act::Pass), "--subs 5 --window 8 --duration 500ms --warmup 100ms");
    assert!(outcome.code == 0 || outcome.code == 3, "{}{}", outcome.out, outcome.err);
    assert!(outcome.out.contains("No latencies: without --rate"), "{}", outcome.out);
    assert!(!outcome.out.contains("from actual send"), "{}", outcome.out);
    assert!(outcome.run("/deliveries").as_u64().unwrap() > 500, "{}", outcome.out);
}

/// One subscriber takes 20 ms for each, so it has 25 by the end. A window of 64 that waits for everybody goes no further than 64 beyond
/// those; one that rolls counts deliveries, 320, and the four others don't use up theirs.
#[test]
fn a_rolling_window_does_not_wait_for_the_slowest() {
    let run = |rolling: &str| {
        let slow = |subscriber, nth| subscriber == 4 && (20..60).contains(&nth);
        let server = serve(move |subscriber, nth| match slow(subscriber, nth) {
            true => Act::Stall(Duration::from_millis(20)),
            false => Act::Pass,
        });
        let arguments = format!("--subs 5 --window 64 {rolling} --duration 500ms --warmup 100ms");
        let outcome = loadgen("fanout", server, &arguments);
        assert!(outcome.code == 0 || outcome.code == 3, "{}{}", outcome.out, outcome.err);
        outcome.run("/publications").as_u64().unwrap()
    };
    let (whole, rolling) = (run(""), run("--rolling"));
    assert!(whole <= 100 && rolling > 200, "{whole} {rolling}");
}

#[test]
fn a_rolling_window_of_one_is_one_at_a_time() {
    let server = serve(|_, _| Act::Stall(Duration::from_millis(2)));
    let outcome = loadgen("fanout", server, "--subs 3 --window 1 --rolling --duration 300ms --warmup 100ms");
    assert!(outcome.code == 0 || outcome.code == 3, "{}{}", outcome.out, outcome.err);
    let publications = outcome.run("/publications").as_u64().unwrap();
    assert!((1..=150).contains(&publications), "{}", outcome.out);
    assert!(outcome.out.contains("flat out, 1 in flight, rolling, for 300ms"), "{}", outcome.out);
}

#[test]
fn a_window_that_stands_still_is_given_up() {
    let server = serve(|subscriber, nth| if subscriber == 2 && nth >= 200 { Act::Drop } else { Act::Pass });
    let outcome = loadgen("fanout", server, "--subs 5 --window 8 --duration 30s --warmup 100ms");
    assert_eq!(outcome.code, 4, "{}{}", outcome.out, outcome.err);
    assert!(outcome.out.contains("never reached everybody"), "{}", outcome.out);
}

/// The generator once hung up when its last publication was sent, and servers dropped what they had not read by then.
#[test]
fn what_a_server_has_yet_to_read_is_not_lost_by_hanging_up() {
    let server = serve(|_, _| Act::Pass);
    let urls = format!("ws://{server}/sub/x --protocol generic --publish-url ws://{server}/pub-slow/x");
    let outcome = run(&format!("fanout {urls} --subs 3 --rate 200/s --duration 500ms --warmup 100ms"));
    outcome.assert_fine();
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(300), "{}", outcome.out);
}
