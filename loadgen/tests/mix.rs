//! The mix: watch lists of their own, newest values for some, slow ones among them; in clear and compressed, against Stentor itself and against an
//! independent server that gets something wrong.

mod common;

use common::{
    Outcome,
    json::{self, Flaw},
    run,
};
use stentor::{
    config::{Compression, Config},
    server::Server,
};

const SHORT: &str = "--subs 24 --topics 40 --watch-list 3..20 --rate 400/s --duration 1s --warmup 300ms --drain 2s";

/// Stentor, whose sockets hold little, so that whoever is slow is behind at once.
fn stentor(set: impl FnOnce(&mut Config)) -> Server {
    let small = |config: &mut Config| {
        config.workers = Some(1);
        config.pin = stentor::config::Pin::None;
        config.sndbuf = bytesize::ByteSize::kib(8);
        set(config);
    };
    Server::builder().listen("127.0.0.1:0".parse().unwrap()).set(small).start().unwrap()
}

fn mix(server: &Server, arguments: &str) -> Outcome {
    run(&format!("mix ws://{} {SHORT} {arguments}", server.addresses()[0]))
}

/// Bytes on the wire, those without compression, and deliveries.
fn wire(outcome: &Outcome) -> [u64; 3] {
    ["bytes", "clear_bytes", "deliveries"].map(|name| outcome.run(&format!("/wire/{name}")).as_u64().unwrap())
}

#[test]
fn everybody_gets_what_is_on_its_own_list_in_clear_and_compressed() {
    let server = stentor(|config| {
        config.compression = Compression::Shared;
        (config.compression_min_members, config.compression_streams) = (1, 1000);
    });
    let [clear, once, shared] = ["", "--compress", "--compress-context"].map(|flags| {
        let outcome = mix(&server, flags);
        outcome.assert_fine();
        assert_eq!(
            [outcome.check("missing"), outcome.check("stray"), outcome.check("gaps")],
            [0; 3],
            "{}",
            outcome.out
        );
        let [bytes, without, deliveries] = wire(&outcome);
        assert!(deliveries > 1_000, "{}", outcome.out);
        bytes as f64 / without as f64
    });
    // With whatever lay in buffers when the first second began.
    assert!((0.97..1.03).contains(&clear), "{clear}");
    // How much less depends on how much time the server has for streams of one member each.
    assert!(once < 0.85 && shared < 0.85, "once {once}, shared {shared}");
}

#[test]
fn the_slow_of_a_mix_are_checked_and_neither_timed_nor_waited_for() {
    let server = stentor(|_| {});
    let arguments = "--rate 2000/s --slow-share 50% --slow-read 2KiB --latest-share 50% --threads 2";
    let outcome =
        run(&format!("mix ws://{} {SHORT} {arguments}", server.addresses()[0]).replacen("--rate 400/s", "", 1));
    outcome.assert_fine();
    let [.., deliveries] = wire(&outcome);
    let timed = outcome.run("/classes/0/latency/count").as_u64().unwrap();
    assert!(timed < deliveries, "{timed} of {deliveries}: {}", outcome.out);
    assert!(outcome.out.contains("who kept reading"), "{}", outcome.out);
    assert_eq!(
        [outcome.check("missing"), outcome.check("untold"), outcome.check("mistold")],
        [0; 3],
        "{}",
        outcome.out
    );
}

#[test]
fn the_same_seed_is_the_same_load_whoever_shares_it() {
    let server = stentor(|_| {});
    let deliveries = |arguments: &str| {
        let outcome = mix(&server, &format!("--slow-share 0 --latest-share 0 {arguments}"));
        outcome.assert_fine();
        outcome.run("/deliveries").as_u64().unwrap()
    };
    let alone = deliveries("--seed 5");
    assert_eq!(deliveries("--seed 5 --processes 2"), alone);
    assert_ne!(deliveries("--seed 6"), alone);
}

#[test]
fn what_is_not_on_a_list_and_what_is_left_out_is_caught() {
    let mix = |flaw, arguments: &str| {
        let few =
            "--subs 8 --topics 2 --watch-list 1..2 --rate 600/s --duration 1s --warmup 300ms --drain 1s --slow-share 0";
        run(&format!("mix ws://{} {few} {arguments}", json::serve(flaw)))
    };
    let outcome = mix(Flaw::WrongTopic, "");
    assert_eq!(outcome.code, 1, "{}", outcome.out);
    // Who is content with newest values is told of what is left out, and nobody else is spared anything.
    for (flaw, latest, is_caught) in
        [(Flaw::Conflates, 1.0, false), (Flaw::ConflatesUntold, 1.0, true), (Flaw::ConflatesUntold, 0.0, false)]
    {
        let outcome = mix(flaw, &format!("--latest-share {latest}"));
        assert_eq!(
            (outcome.code == 1, outcome.check("conflated") > 0),
            (is_caught, latest > 0.0),
            "{latest}: {}",
            outcome.out
        );
    }
}

#[test]
fn what_a_mix_has_words_of_its_own_for_is_not_said_in_others() {
    for (arguments, word) in [
        ("--topics-per-sub 3", "--watch-list"),
        ("--mode latest", "--latest-share"),
        ("--watch-list 5..41", "from 1 to --topics 40"),
        ("--watch-list 9..3", "the smaller one first"),
    ] {
        let outcome = run(&format!("mix ws://127.0.0.1:1 {SHORT} {arguments}").replacen(
            "--watch-list 3..20",
            "",
            usize::from(arguments.contains("watch")),
        ));
        assert_eq!(outcome.code, 2, "{arguments}: {}", outcome.err);
        assert!(outcome.err.contains(word), "{arguments}: {}", outcome.err);
    }
}
