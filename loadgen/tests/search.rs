//! The search for the highest rate, against a server that holds just so much.

mod common;

use std::time::Duration;

use common::{Act, loadgen, program, serve};

const SHORT: &str = "--subs 1 --duration 1s --warmup 50ms --drain 5s";

/// Takes 4 ms for each delivery, so it holds less than 250 a second, and its queue grows with more.
fn slow() -> std::net::SocketAddr {
    serve(|_, _| Act::Stall(Duration::from_millis(4)))
}

#[test]
fn the_highest_rate_is_found_and_run_again() {
    let outcome = loadgen("fanout", slow(), &format!("{SHORT} --rate 100/s --find-max p50<60ms"));
    assert!(outcome.code == 0 || outcome.code == 3, "{}{}", outcome.out, outcome.err);
    let search = &outcome.json["search"];
    let rate = search["rate"].as_f64().unwrap();
    // It can be no more than 250, for some 15 publications more; how much less is the machine's affair.
    assert!((50.0..=290.0).contains(&rate), "{}", outcome.out);
    let probes = search["probes"].as_array().unwrap();
    let at = |probe: &&serde_json::Value| probe["rate"].as_f64() == Some(rate);
    assert_eq!(probes.iter().filter(at).count(), 2, "{}", outcome.out);
    assert!(
        probes.iter().any(|probe| probe["held"] == false && probe["rate"].as_f64() > Some(rate)),
        "{}",
        outcome.out
    );
    assert_eq!(outcome.json["runs"].as_array().unwrap().len(), 2);
    assert_eq!(outcome.json["spec"]["pace"]["rate"].as_f64(), Some(rate));
    assert!(outcome.out.starts_with("highest rate at which p50<60ms held, twice: "), "{}", outcome.out);
    assert!(probes.iter().all(|probe| probe["generator_busy"].as_f64() > Some(0.0)), "{}", outcome.out);
}

#[test]
fn where_nothing_holds_that_is_said_and_fails() {
    let server = serve(|_, nth| if nth >= 20 { Act::Drop } else { Act::Pass });
    let outcome = loadgen(
        "fanout",
        server,
        "--subs 1 --duration 100ms --warmup 10ms --drain 50ms --rate 150/s --find-max p50<60ms",
    );
    assert_eq!(outcome.code, 5, "{}{}", outcome.out, outcome.err);
    assert!(outcome.out.contains("no rate at which p50<60ms held"), "{}", outcome.out);
    assert!(outcome.out.contains("publications missing"), "{}", outcome.out);
}

#[test]
fn what_can_not_be_searched_for_is_refused() {
    let refused = [
        ("fanout ws://127.0.0.1:1 --find-max p99>5ms", "an upper bound, like 'p99<5ms'"),
        ("burst ws://127.0.0.1:1 --find-max p99<5ms", "no --rate to vary"),
        ("fanout ws://127.0.0.1:1 --find-max p99<5ms --window 3", "cannot be used with"),
        ("fanout ws://127.0.0.1:1 --find-max cpu<5us", "takes --server-pid"),
    ];
    for (arguments, sentence) in refused {
        let outcome = program(arguments);
        assert_eq!(outcome.code, 2, "{}{}", outcome.out, outcome.err);
        assert!(outcome.err.contains(sentence), "expected `{sentence}` in: {}", outcome.err);
    }
}
