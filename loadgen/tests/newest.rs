//! Newest values: what a server may leave out, it may; and what it may not is caught. Against Stentor itself, too.

mod common;

use common::{
    Outcome,
    json::{self, Flaw},
    run,
};
use stentor::server::Server;

const SHORT: &str = "--subs 8 --rate 200/s --duration 1s --warmup 500ms --drain 1s";

/// What a server with a flaw leaves out: ten publications for each of eight subscribers.
const SPARED: u64 = 80;

/// Subscribers of newest values at a server with a flaw.
fn latest(flaw: Flaw, arguments: &str) -> Outcome {
    run(&format!("fanout ws://{} {SHORT} --mode latest {arguments}", json::serve(flaw)))
}

fn checks(outcome: &Outcome) -> [u64; 4] {
    ["conflated", "skipped", "untold", "mistold"].map(|name| outcome.check(name))
}

#[test]
fn what_is_announced_as_left_out_is_no_loss() {
    let outcome = latest(Flaw::Conflates, "");
    outcome.assert_fine();
    assert_eq!((checks(&outcome), outcome.check("missing")), ([SPARED, SPARED, 0, 0], 0), "{}", outcome.out);
    // Latencies are those of what came.
    let counts = ["/deliveries", "/classes/0/latency/count"].map(|name| outcome.run(name).as_u64().unwrap());
    assert_eq!(counts, [200 * 8 - SPARED; 2]);
    assert!(
        outcome.out.contains("80 left out, 80 announced as left out, 0 left out without a word"),
        "{}",
        outcome.out
    );
}

#[test]
fn what_is_left_out_without_a_word_is_caught() {
    let outcome = latest(Flaw::ConflatesUntold, "");
    assert_eq!((outcome.code, checks(&outcome)), (1, [SPARED, 0, SPARED, 0]), "{}", outcome.out);
    assert!(outcome.out.contains("80 left out without a word"), "{}", outcome.out);
}

#[test]
fn an_announcement_of_less_than_was_left_out_is_caught() {
    let outcome = latest(Flaw::ConflatesHalfTold, "");
    assert_eq!((outcome.code, checks(&outcome)), (1, [SPARED, SPARED / 2, SPARED / 2, 0]), "{}", outcome.out);
}

#[test]
fn an_announcement_of_what_came_is_caught() {
    let outcome = latest(Flaw::TellsAndSends, "");
    assert_eq!((outcome.code, checks(&outcome)), (1, [0, SPARED, 0, SPARED]), "{}", outcome.out);
}

#[test]
fn an_older_value_after_a_newer_one_is_caught() {
    let outcome = latest(Flaw::OlderAfterNewer, "");
    assert_eq!((outcome.code, outcome.check("reordered"), outcome.check("missing")), (1, 8, 0), "{}", outcome.out);
}

#[test]
fn a_newest_value_that_never_comes_is_caught_whatever_was_announced() {
    let outcome = latest(Flaw::NewestLost, "");
    assert_eq!((outcome.code, outcome.check("missing")), (1, 8), "{}", outcome.out);
}

#[test]
fn a_rate_leaves_out_without_a_word() {
    let outcome = latest(Flaw::ConflatesUntold, "--latest-rate 50");
    outcome.assert_fine();
    assert_eq!(checks(&outcome), [SPARED, 0, 0, 0], "{}", outcome.out);
}

#[test]
fn subscribers_of_everything_are_not_to_be_spared_anything() {
    let outcome = run(&format!("fanout ws://{} {SHORT}", json::serve(Flaw::Conflates)));
    outcome.assert_fine();
    assert_eq!((outcome.run("/deliveries").as_u64(), checks(&outcome)), (Some(1600), [0; 4]), "{}", outcome.out);
}

/// Stentor, whose sockets hold little, so that whoever is slow is behind at once.
fn stentor() -> Server {
    let set = |config: &mut stentor::config::Config| {
        config.workers = Some(1);
        config.pin = stentor::config::Pin::None;
        config.sndbuf = bytesize::ByteSize::kib(8);
    };
    Server::builder().listen("127.0.0.1:0".parse().unwrap()).set(set).start().unwrap()
}

#[test]
fn slow_subscribers_of_newest_values_at_stentor_are_told_of_all_that_is_left_out() {
    let server = stentor();
    let outcome = run(&format!(
        "slow ws://{} --subs 8 --topics 4 --topics-per-sub 4 --rate 2000/s --size 1KiB --duration 2s --warmup 200ms \
         --slow-share 25% --slow-read 100KiB --rcvbuf 8KiB --mode latest",
        server.addresses()[0]
    ));
    outcome.assert_fine();
    let [conflated, skipped, untold, mistold] = checks(&outcome);
    assert!(conflated > 0 && skipped >= conflated, "nobody was slow: {}", outcome.out);
    assert_eq!((untold, mistold, outcome.check("missing")), (0, 0, 0), "{}", outcome.out);
}

#[test]
fn subscribers_at_a_rate_at_stentor_end_with_the_newest() {
    let server = stentor();
    for protocol in ["stentor", "raw"] {
        let outcome = run(&format!(
            "fanout ws://{} --protocol {protocol} {SHORT} --mode latest --latest-rate 20",
            server.addresses()[0]
        ));
        outcome.assert_fine();
        let [conflated, _, untold, mistold] = checks(&outcome);
        assert_eq!((untold, mistold, outcome.check("missing")), (0, 0, 0), "{}", outcome.out);
        let received = outcome.check("received");
        assert!(conflated > 0 && received + conflated >= 200 * 8, "{received} and {conflated}: {}", outcome.out);
        assert!(received < 150 * 8, "a rate of 20 leaves nine of ten out: {}", outcome.out);
    }
}
