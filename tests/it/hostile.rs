//! The hostile client suite, scaled down: while each attack holds its position, somebody else is served as ever. What they
//! wait for, and memory, is for the suite in full size (`scripts/hostile`); here it is only whether they get it.

use std::{net::SocketAddr, thread};

use bytesize::ByteSize;
use rustix::process::Signal;
use stentor::{Payload, config::Config, server::Server};

use tungstenite::Message;

use self::attacks::{ALL, Attack, Attacker};
use crate::{
    client::{Client, exchange, serve},
    process::{Running, metric, wait_for},
    tls::{json, secure},
};

#[path = "../../examples/hostile/attacks/mod.rs"]
mod attacks;

/// Whoever attacks comes from here; the others come from 127.0.0.1.
const HOSTILE: &str = "127.0.0.2";

/// How often somebody else comes, while an attack lasts.
const OFTEN: usize = 20;

fn named(name: &str) -> &'static Attack {
    ALL.iter().find(|attack| attack.name == name).expect("there is such an attack")
}

/// Runs an attack, its numbers divided by `scale`, and what somebody else does meanwhile once it holds its position.
fn during<T>(server: SocketAddr, name: &str, scale: usize, meanwhile: impl FnOnce() -> T) -> T {
    attacked(&Attacker::new(server, HOSTILE.parse().unwrap(), scale), name, meanwhile)
}

fn attacked<T>(attacker: &Attacker, name: &str, meanwhile: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let attacking = scope.spawn(|| (named(name).run)(attacker));
        // Also if what somebody else does fails.
        let stops = StopsAtLast(attacker);
        attacker.wait_settled();
        let result = meanwhile();
        drop(stops);
        attacking.join().unwrap();
        result
    })
}

struct StopsAtLast<'a>(&'a Attacker);

impl Drop for StopsAtLast<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A server that is attacked, with somebody who was there before; once it is over, everything is given back.
fn beside(name: &str, scale: usize, change: impl FnOnce(&mut Config)) {
    let server = serve(change);
    let mut before = Client::hello(&server, "/ws?topics=healthy.still");
    assert_eq!(before.json()["type"], "ack");
    server.publisher().publish("healthy.still", Payload::Json(b"1")).unwrap();
    assert_eq!(before.json()["seq"], 1);
    during(server.addresses()[0], name, scale, || {
        for n in 0..OFTEN {
            assert_eq!(before.ask(r#"{"op":"ping"}"#)["type"], "pong");
            probe(&server, "/healthz");
            probe(&server, "/readyz");
            newcomer(&server, n);
        }
    });
    let address = server.addresses()[0];
    wait_for("connections", || metric(address, "connections_admitted") <= 2.0);
    for given_back in ["pending_answers_bytes", "assembly_bytes"] {
        wait_for(given_back, || metric(address, given_back) == 0.0);
    }
    // Those of many names go over several turns, behind their connections.
    wait_for("subscriptions", || metric(address, "subscriptions") == 1.0);
}

/// The same for TLS: somebody who was there before is sent everything and answered, and somebody new comes.
fn beside_tls(name: &str, scale: usize, change: impl FnOnce(&mut Config)) {
    let secure = secure(change);
    let address = secure.server.addresses()[0];
    let mut before = secure.subscribe("/ws?topics=healthy.still");
    for first in ["hello", "ack"] {
        assert_eq!(json(&mut before)["type"], first);
    }
    let attacker = Attacker::new(address, HOSTILE.parse().unwrap(), scale);
    let attacker = attacker.over(Some(attacks::tls::Secure::new(secure.address(), secure.folder()).unwrap()));
    let publisher = secure.server.publisher();
    attacked(&attacker, name, || {
        for n in 1..=OFTEN as u64 {
            publisher.publish("healthy.still", Payload::Json(b"1")).unwrap();
            assert_eq!(json(&mut before)["seq"], n);
            before.send(Message::text(r#"{"op":"ping"}"#)).unwrap();
            assert_eq!(json(&mut before)["type"], "pong");
            let mut new = secure.subscribe("/ws?topics=healthy.still");
            for first in ["hello", "ack", "snapshot"] {
                assert_eq!(json(&mut new)["type"], first);
            }
            // More than a record, and so it comes in pieces.
            let large = "x".repeat(40_000);
            new.send(Message::text(format!(r#"{{"op":"pub","id":2,"topic":"healthy.large","data":"{large}"}}"#)))
                .unwrap();
            assert_eq!(json(&mut new)["type"], "ack");
            new.close(None).unwrap();
        }
    });
    for (given_back, most) in
        [("tls_sessions", 1.0), ("tls_held_bytes", 0.0), ("tls_kept_bytes", 0.0), ("assembly_bytes", 0.0)]
    {
        wait_for(given_back, || metric(address, given_back) <= most);
    }
}

fn probe(server: &Server, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = exchange(server.addresses()[0], request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer:?}");
}

/// Somebody new subscribes to what is there and to what isn't yet, gets the last value, and publishes on a new topic.
fn newcomer(server: &Server, n: usize) {
    let mut client = Client::hello(server, "/ws");
    let ack = client.ask(&format!(r#"{{"op":"sub","id":1,"topics":["healthy.still","healthy.new.{n}"]}}"#));
    assert_eq!(ack["type"], "ack", "{ack}");
    let snapshot = client.json();
    assert_eq!((&snapshot["type"], &snapshot["data"]), (&"snapshot".into(), &1.into()), "{snapshot}");
    let mut both =
        [client.ask(&format!(r#"{{"op":"pub","id":2,"topic":"healthy.new.{n}","data":{n}}}"#)), client.json()];
    // Where commands wait, the update may come before the answer.
    both.sort_by_key(|message| message["type"] != "ack");
    let [published, update] = both;
    assert_eq!((&published["type"], &published["seq"]), (&"ack".into(), &1.into()), "{published}");
    assert_eq!((&update["type"], &update["data"]), (&"update".into(), &n.into()), "{update}");
    // And its value is kept for whoever comes later.
    client.ask(&format!(r#"{{"op":"sub","topics":["healthy.new.{n}"]}}"#));
    assert_eq!(client.json()["type"], "snapshot");
    client.socket.close(None).unwrap();
    assert_eq!(client.closed().0, 1005);
}

/// Few places of plain HTTP, so that thirty connections are too many.
fn few_places(config: &mut Config) {
    config.max_http_connections = 16;
}

#[test]
fn idle_http_connections_leave_probes_a_place() {
    beside("http-idle", 20, few_places);
}

#[test]
fn pipelines_of_lists_leave_probes_their_turn() {
    beside("http-pipelines", 20, few_places);
}

#[test]
fn answers_that_nobody_reads_leave_probes_a_place() {
    beside("http-unread", 20, few_places);
}

#[test]
fn heads_that_come_byte_by_byte_leave_probes_a_place() {
    beside("slow-next-heads", 20, few_places);
}

#[test]
fn bodies_that_come_byte_by_byte_leave_probes_a_place() {
    beside("slow-bodies", 20, few_places);
}

#[test]
fn answers_that_are_taken_slowly_leave_probes_a_place() {
    beside("slow-takers", 20, few_places);
}

#[test]
fn one_address_does_not_take_every_connection() {
    beside("connections", 100, |config| config.max_connections = 80);
}

#[test]
fn one_address_does_not_take_every_connection_with_requests_that_never_end() {
    beside("slow-heads", 100, |config| config.max_connections = 80);
}

#[test]
fn one_address_does_not_take_every_subscription() {
    beside("subscriptions", 100, |config| config.max_subscriptions_total = 8192);
}

#[test]
fn one_address_does_not_take_every_topic() {
    beside("topics", 100, |config| config.max_topics = 512);
}

#[test]
fn one_address_does_not_take_the_room_of_others_last_values() {
    beside("values", 100, |config| config.max_values = ByteSize::mib(1));
}

#[test]
fn polls_of_everything_without_end_leave_others_their_turn() {
    beside("poll-everything", 20, |_| {});
}

#[test]
fn polls_whose_answers_nobody_reads_give_their_room_back() {
    beside("poll-unread", 20, |_| {});
}

#[test]
fn polls_from_an_old_cursor_without_end_leave_others_their_turn() {
    beside("poll-latest", 20, |_| {});
}

#[test]
fn polls_that_wait_together_and_are_woken_together_leave_others_their_turn() {
    beside("polls-woken", 20, |_| {});
}

#[test]
fn polls_that_are_each_a_cohort_leave_others_their_turn() {
    beside("polls-cohorts", 20, |_| {});
}

#[test]
fn polls_that_are_given_up_at_once_leave_nothing() {
    beside("polls-dropped", 20, |_| {});
}

#[test]
fn cursors_that_are_none_leave_others_their_turn() {
    beside("cursors-garbled", 20, |_| {});
}

#[test]
fn history_that_nobody_reads_gives_its_room_back() {
    beside("history-unread", 20, |_| {});
}

#[test]
fn who_comes_back_by_a_cursor_again_and_again_leaves_others_their_turn() {
    beside("cursor-resumes", 20, |_| {});
}

#[test]
fn close_codes_that_clients_choose_make_no_series() {
    let server = serve(|_| {});
    let address = server.addresses()[0];
    let series = || {
        let text = exchange(address, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        text.lines().filter(|line| line.starts_with("stentor_")).count()
    };
    let before = series();
    during(address, "close-codes", 20, || {});
    wait_for("connections", || metric(address, "connections_admitted") == 1.0);
    wait_for("ends", || metric(address, "websocket_closes_total") == 100.0);
    let after = series();
    assert!(after <= before + 3, "{before} series before, {after} after a hundred codes");
}

#[test]
fn a_flood_of_refusals_is_logged_in_few_lines_and_loses_no_other_line() {
    let settings = tempfile();
    let mut running = Running::start(&["--workers", "1", "--config", &settings]);
    let address = running.at();
    let flood = || during(address, "log", 1, || wait_for("refusals", || metric(address, "refusals_total") >= 3000.0));
    let log = thread::scope(|scope| {
        let flooding = scope.spawn(flood);
        wait_for("refusals", || metric(address, "refusals_total") >= 100.0);
        running.signal(Signal::HUP);
        let mut log = running.logged("reloaded");
        flooding.join().unwrap();
        running.signal(Signal::HUP);
        log += &running.logged("reloaded");
        log
    });
    std::fs::remove_file(settings).unwrap();
    let lines = log.lines().count();
    assert!(lines < 1000, "{lines} lines for some 3000 refusals");
}

#[test]
fn little_that_inflates_to_much_hurts_nobody_else() {
    beside("deflate-bombs", 4, |_| {});
    beside("deflate-inflating", 1, |_| {});
}

#[test]
fn much_that_inflates_to_nothing_and_fragments_of_one_byte_hurt_nobody_else() {
    beside("deflate-tables", 1, |_| {});
    beside("deflate-fragments", 1, |_| {});
}

#[test]
fn compressed_messages_that_never_end_leave_others_the_room_that_they_need() {
    beside("deflate-halves", 10, |_| {});
}

#[test]
fn who_marks_as_compressed_what_may_not_be_hurts_nobody_else() {
    beside("deflate-bits", 2, |_| {});
}

#[test]
fn offers_without_end_and_windows_that_change_hurt_nobody_else() {
    beside("deflate-offers", 1, |_| {});
    beside("deflate-windows", 10, |_| {});
}

#[test]
fn old_publications_that_are_compressed_again_and_again_leave_others_their_turn() {
    beside("deflate-old", 20, |_| {});
}

#[test]
fn who_reads_nothing_of_what_is_compressed_and_who_publishes_much_to_be_compressed_hurt_nobody_else() {
    beside("deflate-stalled", 50, |_| {});
    beside("deflate-published", 1, |_| {});
}

#[test]
fn many_lists_of_their_own_with_a_stream_each_hurt_nobody_else() {
    beside("deflate-lists", 10, |_| {});
}

#[test]
fn records_of_one_byte_hurt_nobody_else() {
    beside_tls("tls-tiny-records", 2, |_| {});
}

#[test]
fn records_with_nothing_in_them_hurt_nobody_else() {
    beside_tls("tls-empty-records", 2, |_| {});
}

#[test]
fn changes_of_keys_without_end_hurt_nobody_else() {
    beside_tls("tls-key-updates", 2, |_| {});
}

#[test]
fn who_asks_for_another_handshake_hurts_nobody_else() {
    beside_tls("tls-renegotiations", 2, |_| {});
}

#[test]
fn alerts_and_garbage_in_the_middle_hurt_nobody_else() {
    beside_tls("tls-alerts", 2, |_| {});
}

#[test]
fn handshakes_that_never_end_leave_others_a_place() {
    // A few more than there are places: with many more, each place is somebody else's before a handshake of a busy machine is done.
    beside_tls("tls-silent", 30, |config| config.handshakes = 64);
}

#[test]
fn handshakes_that_come_byte_by_byte_leave_others_a_place() {
    beside_tls("tls-trickling", 30, |config| config.handshakes = 64);
}

#[test]
fn a_first_message_of_the_greatest_length_in_records_of_one_byte_hurts_nobody_else() {
    beside_tls("tls-fragments", 4, |_| {});
}

#[test]
fn beginnings_of_records_leave_others_the_room_that_they_need() {
    beside_tls("tls-half-records", 40, |config| config.tls_buffers = ByteSize::mib(1));
}

#[test]
fn who_reads_nothing_of_what_is_encrypted_leaves_others_theirs() {
    beside_tls("tls-stalled", 50, |config| config.tls_buffers = ByteSize::mib(1));
}

#[test]
fn connections_of_which_one_half_has_ended_are_given_back() {
    beside_tls("tls-half-closed", 20, |_| {});
}

/// Takes tokens, and lets everybody in without.
fn knows_tokens(config: &mut Config) {
    config.jwt_keys = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/hostile/keys.json").into());
    config.anonymous_subscribe = vec![">".into()];
    config.anonymous_publish = true;
}

#[test]
fn forged_tokens_over_plain_http_hurt_nobody_else() {
    beside("tokens", 1, knows_tokens);
}

#[test]
fn forged_tokens_at_handshakes_hurt_nobody_else() {
    beside("tokens-at-handshakes", 1, knows_tokens);
}

#[test]
fn forged_tokens_of_many_addresses_hurt_nobody_else() {
    beside("tokens-of-many", 1, knows_tokens);
}

#[test]
fn who_shows_new_tokens_all_at_once_is_answered_and_hurts_nobody_else() {
    beside("refreshes", 50, knows_tokens);
}

/// An empty settings file.
fn tempfile() -> String {
    let path = std::env::temp_dir().join(format!("stentor-hostile-test-{}.toml", std::process::id()));
    std::fs::write(&path, "").unwrap();
    path.to_str().unwrap().to_owned()
}
