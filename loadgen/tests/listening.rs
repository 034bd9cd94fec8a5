//! Subscribers that only listen, and say that they are there.

mod common;

use std::{
    net::{SocketAddr, TcpListener},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use common::run;
use tungstenite::{Message, accept};

/// A feed that sends so many messages to everybody, then keeps them; and what subscribers say.
fn feed(messages: usize) -> (SocketAddr, Receiver<Message>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, (say, said)) = (listener.local_addr().unwrap(), channel());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let say = say.clone();
            thread::spawn(move || {
                let mut socket = accept(stream).unwrap();
                // What is said first is the subscription.
                let mut next = socket.read();
                for nth in 0..messages {
                    thread::sleep(Duration::from_millis(2));
                    socket.send(Message::text(format!("{{\"price\":{nth}}}"))).unwrap();
                }
                while let Ok(message) = next {
                    if say.send(message).is_err() {
                        return;
                    }
                    next = socket.read();
                }
            });
        }
    });
    (address, said)
}

#[test]
fn a_foreign_feed_is_counted_and_not_verified() {
    let (address, _said) = feed(100);
    let outcome =
        run(&format!("listen ws://{address} --protocol generic --subscribe-template SUBSCRIBE --subs 3 --duration 1s"));
    assert_eq!(outcome.run("/faults").as_array().unwrap().len(), 0, "{}", outcome.out);
    // The first ones may come before all are there.
    let deliveries = outcome.run("/deliveries").as_u64().unwrap();
    assert!((3..=300).contains(&deliveries), "{}", outcome.out);
    assert!(outcome.run("/bytes").as_u64().unwrap() >= 11 * deliveries, "{}", outcome.out);
    assert!(outcome.out.contains(" messages/s ") && !outcome.out.contains("checked"), "{}", outcome.out);
}

#[test]
fn subscribers_show_that_they_are_there_each_in_its_turn() {
    let beats = |arguments: &str| {
        let (address, said) = feed(0);
        let arguments = format!("--subs 4 --duration 1s --heartbeat 100ms {arguments}");
        let outcome =
            run(&format!("listen ws://{address} --protocol generic --subscribe-template SUBSCRIBE {arguments}"));
        assert_eq!(outcome.run("/faults").as_array().unwrap().len(), 0, "{}", outcome.out);
        said.try_iter().filter(|message| message != &Message::text("SUBSCRIBE")).collect::<Vec<Message>>()
    };
    let pings = beats("");
    assert!(
        pings.len() >= 4 * 5 && pings.iter().all(|message| matches!(message, Message::Ping(_) | Message::Close(_))),
        "{pings:?}"
    );
    let own = beats("--heartbeat-template {\"op\":\"ping\"}");
    let text = Message::text("{\"op\":\"ping\"}");
    assert!(own.iter().filter(|message| **message == text).count() >= 4 * 5, "{own:?}");
}
