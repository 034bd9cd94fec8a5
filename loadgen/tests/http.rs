//! Publishing by HTTP: against Stentor, and against servers that answer otherwise.

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread,
};

use common::{Act, Outcome, run, serve};
use stentor::server::Server;

const SHORT: &str = "--subs 4 --rate 200/s --duration 1s --warmup 200ms --drain 500ms";

fn stentor() -> Server {
    let set = |config: &mut stentor::config::Config| {
        config.workers = Some(1);
        config.pin = stentor::config::Pin::None;
    };
    Server::builder().listen("127.0.0.1:0".parse().unwrap()).set(set).start().unwrap()
}

#[test]
fn publications_go_by_http_to_both_of_stentors_protocols() {
    let server = stentor();
    let address = server.addresses()[0];
    for protocol in ["stentor", "raw"] {
        let topics = if protocol == "raw" { "--topics 4" } else { "--topics 4 --topics-per-sub 4" };
        let outcome = run(&format!(
            "fanout ws://{address} --protocol {protocol} --publish-url http://{address} --topic {protocol}.{{n}} {topics} \
             --publishers 3 --publisher-threads 2 {SHORT}"
        ));
        outcome.assert_fine();
        let each = if protocol == "raw" { 1 } else { 4 };
        assert_eq!(outcome.run("/deliveries").as_u64(), Some(200 * each), "{}", outcome.out);
    }
}

#[test]
fn subscribers_that_poll_get_all_that_is_published_and_of_newest_values_the_newest() {
    let server = stentor();
    let address = server.addresses()[0];
    let outcome = run(&format!("fanout ws://{address} --protocol poll --topics 4 --topics-per-sub 4 {SHORT}"));
    outcome.assert_fine();
    assert_eq!(outcome.run("/deliveries").as_u64(), Some(200 * 4), "{}", outcome.out);
    let outcome = run(&format!("fanout ws://{address} --protocol poll --topic newest.{{n}} --mode latest {SHORT}"));
    outcome.assert_fine();
    let outcome = run(&format!("fanout ws://{address}/nothing --protocol poll {SHORT}"));
    assert!(outcome.code == 4 && outcome.err.contains("it answered 404"), "{}{}", outcome.out, outcome.err);
}

/// Subscribers that hear nothing, while publications are answered so.
fn answered(answer: &'static [u8]) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let publish: SocketAddr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                while stream.read(&mut [0; 4096]).is_ok_and(|len| len > 0) && stream.write_all(answer).is_ok() {}
            });
        }
    });
    let subscribe = serve(|_, _| Act::Pass);
    run(&format!("fanout ws://{subscribe}/sub/x --protocol generic --publish-url http://{publish}/{{topic}} {SHORT}"))
}

#[test]
fn a_publication_that_is_refused_is_remarked_on_and_missing() {
    let outcome = answered(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nno entry");
    assert_eq!(outcome.code, 1, "{}{}", outcome.out, outcome.err);
    assert!(
        outcome.out.contains("240 times: the server answered a publication with 403 Forbidden no entry"),
        "{}",
        outcome.out
    );
    assert_eq!(outcome.check("missing"), 240 * 4, "{}", outcome.out);
}

#[test]
fn an_answer_without_an_end_is_a_plain_sentence() {
    let outcome = answered(b"HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(outcome.code, 4, "{}{}", outcome.out, outcome.err);
    assert!(outcome.out.contains("doesn't say how long it is"), "{}", outcome.out);
}
