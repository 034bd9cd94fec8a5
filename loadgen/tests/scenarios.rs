//! Every scenario, against independent servers: what it is to show, it shows.

mod common;

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use common::{
    Act,
    json::{self, Flaw},
    loadgen, run, serve,
};

/// The JSON protocol at a server with a flaw.
fn stentor(scenario: &str, flaw: Flaw, arguments: &str) -> common::Outcome {
    run(&format!("{scenario} ws://{} {arguments}", json::serve(flaw)))
}

const SHORT: &str = "--subs 8 --rate 200/s --duration 1s --warmup 500ms --drain 1s";

#[test]
fn json_subscribers_of_several_topics_get_everything() {
    let arguments = format!("{SHORT} --topics 4 --topics-per-sub 3 --threads 2");
    let outcome = stentor("fanout", Flaw::None, &arguments);
    outcome.assert_fine();
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(200 * 8 * 3 / 4));
}

/// The bare loop, on a thread that ends with the test.
fn bare_loop() -> std::net::SocketAddr {
    bare_loop_that_tells(false)
}

/// The same, telling when it sent what, or not.
fn bare_loop_that_tells(tells: bool) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || loadgen::bare_loop::serve_telling(listener, tells));
    address
}

#[test]
fn a_server_that_tells_when_it_sent_shows_what_part_of_a_latency_is_not_its_own() {
    let bare_loop = |tells| {
        let address = bare_loop_that_tells(tells);
        run(&format!(
            "fanout ws://{address}/sub/{{topic}} --protocol generic --publish-url ws://{address}/pub/{{topic}} {SHORT} --processes 2"
        ))
    };
    let told = bare_loop(true);
    told.assert_fine();
    for part in ["until", "since"] {
        let count = told.run(&format!("/classes/0/handed/{part}/count")).as_u64();
        assert_eq!(count, Some(200 * 8), "{part}: {}", told.out);
    }
    // Both parts together are the whole.
    let mean = |of: &str| told.run(&format!("/classes/0/{of}/mean_ns")).as_f64().unwrap();
    let (parts, whole) = (mean("handed/until") + mean("handed/since"), mean("sent"));
    assert!((parts - whole).abs() < 0.01 * whole, "{parts} {whole}");
    assert!(told.out.contains("until handed over") && told.out.contains(" are not the server's"), "{}", told.out);

    let silent = bare_loop(false);
    silent.assert_fine();
    assert!(silent.run("/classes/0").get("handed").is_none() && !silent.out.contains("handed over"), "{}", silent.out);
}

#[test]
fn it_tells_where_connections_have_several_topics_too() {
    let address = bare_loop_that_tells(true);
    let outcome = run(&format!(
        "fanout ws://{address}/sub/{{topics}} --protocol generic --publish-url ws://{address}/pub --publish-template \
         {{topic}}\\x20{{payload}} {SHORT} --topics 4 --topics-per-sub 3"
    ));
    outcome.assert_fine();
    assert_eq!(outcome.run("/classes/0/handed/until/count").as_u64(), Some(200 * 8 * 3 / 4), "{}", outcome.out);
    assert_eq!(outcome.run("/classes/0/handed/until/max_ns").as_u64().map(|max| max > 0), Some(true));
}

#[test]
fn several_threads_publish_each_topic_in_its_order() {
    let arguments = format!("{SHORT} --topics 5 --topics-per-sub 5 --publisher-threads 3 --publishers 4");
    let outcome = stentor("fanout", Flaw::None, &arguments);
    outcome.assert_fine();
    assert_eq!(outcome.run("/publications").as_u64(), Some(200), "{}", outcome.out);
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(200 * 8), "{}", outcome.out);
    assert_eq!(outcome.run("/generator/slip/count").as_u64(), Some(200), "{}", outcome.out);
}

#[test]
fn round_trips_are_shared_out_to_several_threads() {
    let url = format!("ws://{}/echo", serve(|_, _| Act::Pass));
    let threads = "--subs 5 --rate 200/s --duration 1s --warmup 100ms --publisher-threads 2";
    let outcome = run(&format!("echo {url} --protocol generic {threads}"));
    outcome.assert_fine();
    assert_eq!(outcome.run("/classes/0/latency/count").as_u64(), Some(200), "{}", outcome.out);
}

#[test]
fn several_topics_on_a_connection_that_its_address_names() {
    let address = bare_loop();
    let outcome = run(&format!(
        "fanout ws://{address}/sub/{{topics}} --protocol generic --publish-url ws://{address}/pub --publish-template \
         {{topic}}\\x20{{payload}} {SHORT} --topics 4 --topics-per-sub 3"
    ));
    outcome.assert_fine();
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(200 * 8 * 3 / 4));
}

#[test]
fn one_name_that_stands_for_all_topics() {
    let address = bare_loop();
    let outcome = run(&format!(
        "fanout ws://{address}/sub/{{topics}} --protocol generic --publish-url ws://{address}/pub --publish-template \
         {{topic}}\\x20{{payload}} {SHORT} --topics 4 --subscribe-as >"
    ));
    outcome.assert_fine();
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(200 * 8));
}

#[test]
fn an_envelope_of_another_topic_is_caught() {
    let outcome = stentor("fanout", Flaw::WrongTopic, SHORT);
    assert_eq!((outcome.code, outcome.check("wrong")), (1, 8), "{}", outcome.out);
}

#[test]
fn a_server_numbering_out_of_step_is_caught() {
    let outcome = stentor("fanout", Flaw::SkippedSeq, SHORT);
    assert_eq!(outcome.code, 1, "{}", outcome.out);
    assert!(outcome.out.contains("out of step"), "{}", outcome.out);
}

#[test]
fn churning_subscribers_join_without_gap_or_repeat() {
    let outcome = stentor("churn", Flaw::None, &format!("{SHORT} --churn-share 50% --churn-rate 100/s"));
    outcome.assert_fine();
    assert!(outcome.run("/rejoins/count").as_u64().unwrap() >= 30, "{}", outcome.out);
    let labels: Vec<&str> =
        outcome.run("/classes").as_array().unwrap().iter().map(|class| class["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["calm", "churn 100/s"]);
    // A connection that ends takes its count of segments with it.
    assert!(outcome.run("/segments").is_null());
}

#[test]
fn missing_snapshots_are_caught() {
    let outcome = stentor("churn", Flaw::NoSnapshot, &format!("{SHORT} --churn-share 50% --churn-rate 100/s"));
    assert_eq!(outcome.code, 1, "{}", outcome.out);
    assert!(outcome.check("joints") > 0, "{}", outcome.out);
}

#[test]
fn snapshots_that_leave_a_gap_are_caught() {
    let outcome = stentor("storm", Flaw::StaleSnapshot, &format!("{SHORT} --storm-share 50%"));
    assert_eq!(outcome.code, 1, "{}", outcome.out);
    assert!(outcome.check("joints") > 0, "{}", outcome.out);
}

#[test]
fn a_storm_brings_everybody_back() {
    let outcome = stentor("storm", Flaw::None, &format!("{SHORT} --storm-share 50%"));
    outcome.assert_fine();
    assert_eq!(outcome.run("/rejoins/count").as_u64(), Some(4), "{}", outcome.out);
    // Four subscribers stay, and theirs are the figures.
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(200 * 4));
}

#[test]
fn half_of_them_connect_under_load_and_the_others_are_measured() {
    let outcome = stentor("join", Flaw::None, &format!("{SHORT} --threads 2"));
    outcome.assert_fine();
    let count = |name: &str| outcome.run(name).as_u64();
    assert_eq!((count("/connected"), count("/rejoins/count")), (Some(4), Some(4)), "{}", outcome.out);
    assert_eq!(count("/deliveries"), Some(200 * 4), "{}", outcome.out);
    assert!(outcome.out.contains("connecting under load") && outcome.out.contains("50% connecting"), "{}", outcome.out);
    // They get what comes after them, the last ones little, and that is checked.
    let received = outcome.check("received");
    assert!((300 * 4 + 100..300 * 4 + 400).contains(&received), "{received}");
    let late = stentor("join", Flaw::NoSnapshot, SHORT);
    assert!(late.code == 1 && late.check("joints") > 0, "{}", late.out);
}

#[test]
fn stalled_subscribers_are_not_measured_and_their_losses_are_no_faults() {
    let outcome = loadgen("slow", serve(|_, _| Act::Pass), &format!("{SHORT} --slow-share 25%"));
    outcome.assert_fine();
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(200 * 6), "{}", outcome.out);
    let counts = ["0", "1"].map(|class| outcome.run(&format!("/classes/{class}/latency/count")).as_u64().unwrap());
    assert_eq!(counts, [600, 600]);
}

#[test]
fn slow_readers_still_read() {
    let outcome = loadgen("slow", serve(|_, _| Act::Pass), &format!("{SHORT} --slow-share 25% --slow-read 4KiB"));
    outcome.assert_fine();
    let received = outcome.check("received");
    // All of the six healthy ones', the slow ones' first half, and some of their second half.
    assert!(received > 300 * 6 + 200 * 2 && received < 300 * 8, "{received}");
}

#[test]
fn what_comes_by_chance_is_the_same_for_every_server() {
    let chance = "--arrivals bursty --topics 4 --topics-per-sub 4 --topic-skew 1.2 --size-mix 128:3,700:1 --seed 5";
    let outcomes = [(); 2].map(|()| stentor("fanout", Flaw::None, &format!("{SHORT} {chance}")));
    let [first, second] = outcomes.each_ref().map(|outcome| {
        outcome.assert_fine();
        let figure = |name: &str| outcome.run(name).as_u64().unwrap();
        // A JSON envelope's length depends on the numbers in it; they are the same, too.
        (figure("/publications"), figure("/deliveries"), figure("/bytes"))
    });
    assert_eq!(first, second);
    assert!((100..300).contains(&first.0) && first.1 == 8 * first.0, "{first:?}");
    assert!(outcomes[0].out.contains("200/s, bursty, for 1s"), "{}", outcomes[0].out);
    assert!(outcomes[0].out.contains("4 topics skewed by 1.2, on average 271 bytes"), "{}", outcomes[0].out);
}

#[test]
fn bursts_are_told_apart_from_calm() {
    let bursts = "--subs 4 --rate 20/s --burst-rate 500/s --burst-every 500ms --burst-length 100ms --duration 1s";
    let outcome = loadgen("burst", serve(|_, _| Act::Pass), bursts);
    outcome.assert_fine();
    let counts = ["0", "1"].map(|class| outcome.run(&format!("/classes/{class}/latency/count")).as_u64().unwrap());
    assert_eq!(counts, [16 * 4, 100 * 4], "{}", outcome.out);
}

#[test]
fn connecting_is_timed_from_when_it_was_due() {
    let outcome = loadgen("connect", serve(|_, _| Act::Pass), "--subs 50 --connect-rate 500/s --duration 200ms");
    outcome.assert_fine();
    assert_eq!(outcome.run("/joins/count").as_u64(), Some(50));
    assert_eq!(outcome.run("/connected").as_u64(), Some(50));
    // 50 at 500/s are due within 98 ms; faster they cannot be.
    assert!(outcome.run("/connections_per_s").as_f64().unwrap() <= 511.0, "{}", outcome.out);
}

#[test]
fn round_trips_go_over_the_connection_that_sends() {
    let url = format!("ws://{}/echo", serve(|_, _| Act::Pass));
    let outcome = run(&format!("echo {url} --protocol generic --subs 5 --rate 200/s --duration 1s --warmup 100ms"));
    outcome.assert_fine();
    assert_eq!(outcome.run("/classes/0/latency/count").as_u64(), Some(200), "{}", outcome.out);
    assert_eq!(outcome.run("/classes/0/label").as_str(), Some("round trip"));
}

#[test]
fn a_captured_session_is_replayed_on_its_topics_at_its_timing() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for nth in 0..50u64 {
        let (topic, at) = (["x.a", "x.b"][nth as usize % 2], 1_000_000_000 + nth * 20_000_000);
        writeln!(file, r#"{{"ts_ns":{at},"topic":"{topic}","data":{{"p":[{nth},"q"],"s":1.50}}}}"#).unwrap();
    }
    let path = file.path().display().to_string();
    let outcome = stentor("replay", Flaw::None, &format!("--file {path} --subs 3 --speed 2"));
    outcome.assert_fine();
    assert_eq!(outcome.run("/publications").as_u64(), Some(50), "{}", outcome.out);
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(150), "{}", outcome.out);
    // 49 steps of 20 ms, twice as fast.
    assert!(outcome.run("/seconds").as_f64().unwrap() >= 0.49, "{}", outcome.out);
}

#[test]
fn several_processes_share_a_run_and_merge_exactly() {
    let outcome = loadgen("fanout", serve(|_, _| Act::Pass), &format!("{SHORT} --processes 3"));
    outcome.assert_fine();
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(200 * 8), "{}{}", outcome.out, outcome.err);
    assert_eq!(outcome.run("/classes/0/latency/count").as_u64(), Some(200 * 8));
    assert_eq!(outcome.run("/connected").as_u64(), Some(8));
    assert_eq!(outcome.run("/publications").as_u64(), Some(200));
}

#[test]
fn several_processes_speak_each_servers_own_protocol() {
    let (raw, other) = (serve(|_, _| Act::Pass), json::serve(Flaw::None));
    let against = format!("--against ws://{other} --against-publish-url ws://{other} --against-protocol stentor");
    let outcome = loadgen("fanout", raw, &format!("{SHORT} --processes 2 {against}"));
    assert!(outcome.code == 0 || outcome.code == 3, "{}{}", outcome.out, outcome.err);
    for run in [0, 1] {
        let deliveries = outcome.json.pointer(&format!("/runs/{run}/deliveries")).and_then(|count| count.as_u64());
        assert_eq!(deliveries, Some(200 * 8), "run {run}\n{}{}", outcome.out, outcome.err);
    }
}

#[test]
fn several_processes_leave_the_servers_own_counters_to_the_first() {
    let counters = TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = counters.local_addr().unwrap();
    thread::spawn(move || {
        for (nth, mut stream) in counters.incoming().flatten().enumerate() {
            let _ = stream.read(&mut [0; 1024]);
            let (sends, deliveries) = (nth * 50, nth * 100);
            let _ = write!(stream, "HTTP/1.1 200 OK\r\n\r\nx_sends_total {sends}\nx_deliveries_total {deliveries}\n");
        }
    });
    let server = format!("--server-pid {} --server-metrics http://{metrics}/metrics", std::process::id());
    let outcome = loadgen("fanout", serve(|_, _| Act::Pass), &format!("{SHORT} --processes 2 {server}"));
    outcome.assert_fine();
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(200 * 8), "{}{}", outcome.out, outcome.err);
    assert_eq!(outcome.run("/server/sends_per_delivery").as_f64(), Some(0.5), "{}", outcome.out);
}

#[test]
fn a_loss_in_another_process_is_caught() {
    let server = serve(|subscriber, nth| if (subscriber, nth) == (7, 150) { Act::Drop } else { Act::Pass });
    let outcome = loadgen("fanout", server, &format!("{SHORT} --processes 2"));
    assert_eq!((outcome.code, outcome.check("missing")), (1, 1), "{}{}", outcome.out, outcome.err);
}

#[test]
fn what_checking_costs_can_be_left_out() {
    let outcome = loadgen("fanout", serve(|_, _| Act::Pass), &format!("{SHORT} --bare"));
    outcome.assert_fine();
    assert_eq!(outcome.check("received"), 0);
    // Bytes do not tell warm-up from what is measured: what comes within the first tick may be either.
    let deliveries = outcome.run("/deliveries").as_u64().unwrap();
    assert!((190 * 8..=200 * 8).contains(&deliveries), "{}", outcome.out);
}
