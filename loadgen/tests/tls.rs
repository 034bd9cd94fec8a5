//! With TLS: Stentor, and servers that misbehave, behind a relay that ends TLS.

mod common;

use std::net::SocketAddr;

use common::{Act, Outcome, relay::Relay, run, serve};
use rustls::version;
use stentor::server::Server;

const SHORT: &str = "--subs 4 --rate 200/s --duration 1s --warmup 200ms --drain 500ms";

fn stentor() -> Server {
    let set = |config: &mut stentor::config::Config| {
        config.workers = Some(1);
        config.pin = stentor::config::Pin::None;
    };
    Server::builder().listen("127.0.0.1:0".parse().unwrap()).set(set).start().unwrap()
}

/// What the note on TLS says.
fn note(outcome: &Outcome) -> String {
    let notes = outcome.run("/notes").as_array().unwrap().iter().filter_map(|note| note.as_str());
    notes.filter(|note| note.starts_with("TLS is ")).collect()
}

fn handshakes(outcome: &Outcome) -> (u64, u64) {
    let count = |name: &str| outcome.run(&format!("/generator/tls/{name}")).as_u64().unwrap();
    (count("full"), count("resumed"))
}

#[test]
fn everything_arrives_in_either_version_and_what_tls_took_of_the_generator_is_told() {
    for versions in [&[&version::TLS13][..], &[&version::TLS12]] {
        let server = stentor();
        let relay = Relay::with(server.addresses()[0], versions);
        for protocol in ["stentor", "raw"] {
            let url = format!("wss://{}", relay.address);
            let outcome = run(&format!("fanout {url} --protocol {protocol} {} {SHORT}", relay.trusted()));
            outcome.assert_fine();
            assert_eq!(outcome.run("/deliveries").as_u64(), Some(200 * 4), "{}", outcome.out);
            assert_eq!(handshakes(&outcome), (4, 0), "{}", outcome.out);
            assert!(outcome.run("/generator/tls/ns_per_delivery").as_f64().unwrap() > 0.0, "{}", outcome.out);
            assert!(note(&outcome).contains("a delivery"), "{}", outcome.out);
            assert!(outcome.run("/target").as_str().unwrap().starts_with(&url), "{}", outcome.out);
        }
    }
}

#[test]
fn publications_go_by_https_and_the_servers_counters_are_read_so() {
    let server = stentor();
    let relay = Relay::to(server.addresses()[0]);
    let (address, trusted, pid) = (relay.address, relay.trusted(), std::process::id());
    let outcome = run(&format!(
        "fanout wss://{address} --publish-url https://{address} --publishers 2 --server-pid {pid} --server-metrics \
         https://{address}/metrics {trusted} {SHORT}"
    ));
    outcome.assert_fine();
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(200 * 4), "{}", outcome.out);
    assert!(outcome.run("/server/sends_per_delivery").as_f64().is_some(), "{}", outcome.out);
}

#[test]
fn round_trips_of_one_connection_have_one_session() {
    let relay = Relay::to(serve(|_, _| Act::Pass));
    let url = format!("wss://{}/echo --protocol generic", relay.address);
    let outcome = run(&format!("echo {url} {} --subs 3 --rate 300/s --duration 1s --warmup 200ms", relay.trusted()));
    outcome.assert_fine();
    assert_eq!(handshakes(&outcome), (3, 0), "{}", outcome.out);
}

#[test]
fn payloads_longer_than_records_and_reads_come_whole() {
    let server = stentor();
    let relay = Relay::to(server.addresses()[0]);
    let size = "--size-mix 100:5,16000:5,40000:1 --subs 3 --rate 100/s --duration 1s --warmup 200ms";
    run(&format!("fanout wss://{} --protocol raw {} {size}", relay.address, relay.trusted())).assert_fine();
    let relay = Relay::to(serve(|_, _| Act::Pass));
    let urls = format!("wss://{0}/sub/x --protocol generic --publish-url wss://{0}/pub/x", relay.address);
    let size = "--size 700KiB --subs 2 --rate 20/s --duration 1s --warmup 100ms";
    run(&format!("fanout {urls} {} {size}", relay.trusted())).assert_fine();
}

#[test]
fn a_slow_reader_that_stops_within_a_record_breaks_nothing() {
    let server = stentor();
    let relay = Relay::to(server.addresses()[0]);
    let slow = "--slow-share 50% --slow-read 3KiB --size 1KiB --subs 4 --rate 400/s --duration 2s --warmup 200ms";
    let outcome = run(&format!("slow wss://{} --protocol raw {} {slow}", relay.address, relay.trusted()));
    outcome.assert_fine();
    assert_eq!(outcome.check("wrong") + outcome.check("torn"), 0, "{}", outcome.out);
}

#[test]
fn those_who_come_back_resume_their_sessions_only_if_asked_to_and_each_step_is_timed() {
    let server = stentor();
    let relay = Relay::to(server.addresses()[0]);
    for (option, expected) in [("", (12, 0)), ("--tls-resume", (8, 4))] {
        let storm = "--storm-share 50% --subs 8 --rate 100/s --duration 2s --warmup 200ms";
        let outcome = run(&format!("storm wss://{} {} {storm} {option}", relay.address, relay.trusted()));
        outcome.assert_fine();
        assert_eq!(handshakes(&outcome), expected, "{}", outcome.out);
        for (times, count) in [("first", 8), ("again", 4)] {
            for step in 0..3 {
                let found = outcome.run(&format!("/phases/{times}/{step}/count")).as_u64();
                assert_eq!(found, Some(count), "{times} {step}: {}", outcome.out);
            }
        }
        assert!(outcome.out.contains("  of which TCP") && outcome.out.contains("  upgrade"), "{}", outcome.out);
    }
}

#[test]
fn connections_are_counted_and_timed_where_nothing_is_published() {
    let server = stentor();
    let relay = Relay::to(server.addresses()[0]);
    let connect = "--subs 20 --connect-rate 200/s --duration 500ms";
    let outcome = run(&format!("connect wss://{} {} {connect}", relay.address, relay.trusted()));
    outcome.assert_fine();
    assert_eq!(outcome.run("/phases/first/1/count").as_u64(), Some(20), "{}", outcome.out);
    assert!(note(&outcome).contains("handshakes: 20 full, 0 resumed"), "{}", outcome.out);
}

#[test]
fn parts_of_a_run_speak_tls_and_add_up() {
    let server = stentor();
    let relay = Relay::to(server.addresses()[0]);
    let outcome = run(&format!("fanout wss://{} {} --processes 2 {SHORT}", relay.address, relay.trusted()));
    outcome.assert_fine();
    assert_eq!(handshakes(&outcome), (4, 0), "{}", outcome.out);
    assert_eq!(outcome.run("/phases/first/1/count").as_u64(), Some(4), "{}", outcome.out);
}

#[test]
fn who_is_not_trusted_and_who_speaks_otherwise_is_a_plain_sentence() {
    let server = stentor();
    let relay = Relay::to(server.addresses()[0]);
    let (tls, clear) = (relay.address, server.addresses()[0]);
    let refused = |url: &str, address: SocketAddr, options: &str| {
        let outcome = run(&format!("fanout {url}://{address} {SHORT} {options}"));
        (outcome.code, outcome.err)
    };
    let (code, said) = refused("wss", tls, &Relay::to(clear).trusted());
    assert!(code == 4 && said.contains("in the TLS handshake: ") && said.contains("--tls-ca FILE"), "{said}");
    let (code, said) = refused("wss", clear, "--insecure");
    assert!(code == 4 && said.contains("it speaks no TLS there"), "{said}");
    let (code, said) = refused("ws", tls, "");
    assert!(code == 4 && said.contains("it speaks TLS there: write wss://"), "{said}");
    let by_name = run(&format!("fanout wss://localhost:{} {} {SHORT}", tls.port(), relay.trusted()));
    assert!(by_name.code == 4 && by_name.err.contains("not for localhost but for "), "{}", by_name.err);
    assert_eq!(refused("wss", tls, "--insecure").0 & 4, 0);
}

#[test]
fn options_that_can_not_be_meant_are_refused() {
    for (arguments, said) in [
        ("fanout ws://127.0.0.1:1 --insecure", "--insecure: no address here is spoken to with TLS"),
        ("storm ws://127.0.0.1:1 --tls-resume", "--tls-resume: no address here"),
        ("fanout wss://127.0.0.1:1 --tls-ca /nowhere", "--tls-ca /nowhere: "),
        ("fanout wss://127.0.0.1:1 --tls-ca x --insecure", "cannot be used with"),
        ("fanout wss://a_b..c:1", "is no name that a certificate can be for"),
    ] {
        let outcome = run(arguments);
        assert!(outcome.code == 2 && outcome.err.contains(said), "{arguments}: {}", outcome.err);
    }
}
