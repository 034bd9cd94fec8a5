//! The JSON protocol on `/ws`.

use stentor::Payload;

use crate::{
    client::{Client, serve},
    skip::skip,
};

#[test]
fn a_subscriber_gets_the_last_value_and_then_every_update_in_order() {
    let server = serve(|_| {});
    let publisher = server.publisher();
    publisher.publish("q.us.AAPL", Payload::Json(b"1")).unwrap();
    publisher.publish("q.us.AAPL", Payload::Json(b"{\"bid\": 189.21}")).unwrap();
    let mut client = Client::hello(&server, "/ws");
    let ack = client.ask(r#"{"op":"sub","id":"first","topics":["q.us.AAPL"]}"#);
    assert_eq!(ack["type"], "ack");
    assert_eq!(ack["id"], "first");
    assert_eq!(ack["topics"][0]["seq"], 2);
    assert_eq!(ack["topics"][0]["mode"], "all");
    let snapshot = client.json();
    assert_eq!((&snapshot["type"], &snapshot["seq"]), (&"snapshot".into(), &2.into()));
    assert_eq!(snapshot["epoch"], ack["topics"][0]["epoch"]);
    assert_eq!(snapshot["data"]["bid"], 189.21);
    for n in 3..100 {
        publisher.publish("q.us.AAPL", Payload::Json(n.to_string().as_bytes())).unwrap();
    }
    for n in 3..100 {
        let update = client.json();
        assert_eq!((&update["type"], &update["seq"], &update["data"]), (&"update".into(), &n.into(), &n.into()));
        assert!(update["ts"].as_u64().unwrap() > 1_700_000_000_000_000);
    }
}

#[test]
fn data_is_passed_on_byte_for_byte() {
    let server = serve(|_| {});
    let mut client = Client::hello(&server, "/ws?topics=a");
    client.json();
    let data = r#"{ "b" : 1.10000000000000000000000001 ,"a":"\u00e9\n é", "a": [ ] }"#;
    let mut publisher = Client::hello(&server, "/ws");
    publisher.send(&format!(r#"{{"data":{data},"op":"pub","topic":"a"}}"#));
    let text = client.text();
    assert!(text.ends_with(&format!(",\"data\":{data}}}")), "{text}");
}

#[test]
fn patterns_match_topics_made_later_and_only_those() {
    let server = serve(|_| {});
    let mut client = Client::hello(&server, "/ws?topics=q.*.x,t.%3E");
    assert_eq!(client.json()["topics"][1]["topic"], "t.>");
    let publisher = server.publisher();
    for topic in ["q.x", "q.a.x", "q.a.b.x", "q.a.y", "t", "t.a", "t.a.b.c"] {
        publisher.publish(topic, Payload::Json(b"0")).unwrap();
    }
    let topics: Vec<String> = (0..3).map(|_| client.json()["topic"].as_str().unwrap().to_owned()).collect();
    assert_eq!(topics, ["q.a.x", "t.a", "t.a.b.c"]);
}

#[test]
fn overlapping_names_deliver_each_publication_once() {
    let server = serve(|_| {});
    let mut client = Client::hello(&server, "/ws?topics=q.a,q.*,%3E");
    client.json();
    for _ in 0..3 {
        server.publisher().publish("q.a", Payload::Json(b"0")).unwrap();
    }
    let seqs: Vec<_> = (0..3).map(|_| client.json()["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2, 3]);
    assert_eq!(client.ask(r#"{"op":"ping","id":1}"#)["type"], "pong");
}

#[test]
fn after_the_ack_of_unsub_nothing_more_comes() {
    let server = serve(|_| {});
    let mut client = Client::hello(&server, "/ws?topics=a,b");
    client.json();
    let ack = client.ask(r#"{"op":"unsub","id":7,"topics":["a","never"]}"#);
    assert_eq!((&ack["type"], &ack["id"]), (&"ack".into(), &7.into()));
    server.publisher().publish("a", Payload::Json(b"1")).unwrap();
    server.publisher().publish("b", Payload::Json(b"2")).unwrap();
    assert_eq!(client.json()["topic"], "b");
    let list = client.ask(r#"{"op":"list","id":8}"#);
    assert_eq!(list["topics"].as_array().unwrap().len(), 1);
    assert_eq!(list["topics"][0]["topic"], "b");
}

#[test]
fn publishing_is_acknowledged_only_if_asked() {
    let server = serve(|_| {});
    let mut client = Client::hello(&server, "/ws");
    client.send(r#"{"op":"pub","topic":"a","data":1}"#);
    let ack = client.ask(r#"{"op":"pub","id":1.50,"topic":"a","data":2}"#);
    assert_eq!((&ack["type"], &ack["seq"], &ack["topic"]), (&"ack".into(), &2.into(), &"a".into()));
    client.send(r#"{"op":"sub","topics":["a"],"snapshot":false}"#);
    assert_eq!(client.json()["topics"][0]["seq"], 2);
    assert_eq!(client.ask(r#"{"op":"ping"}"#)["type"], "pong");
}

#[test]
fn a_command_that_cannot_be_obeyed_is_refused_whole_and_the_connection_goes_on() {
    let server = serve(|_| {});
    let mut client = Client::hello(&server, "/ws");
    for (command, code, word) in [
        ("nonsense", "bad_json", "JSON"),
        ("[1,2]", "bad_command", "object"),
        (r#"{"op":"dance","id":1}"#, "unknown_op", "dance"),
        (r#"{"id":1}"#, "bad_command", "op"),
        (r#"{"op":"sub","id":1,"topics":["fine","not..fine","also bad"]}"#, "bad_topic", "not..fine"),
        (r#"{"op":"sub","id":1,"topics":["a.>.b"]}"#, "bad_topic", "a.>.b"),
        (r#"{"op":"sub","id":1}"#, "bad_command", "topics"),
        (r#"{"op":"sub","id":1,"topics":"a"}"#, "bad_command", "topics"),
        (r#"{"op":"pub","id":1,"topic":"a.*","data":1}"#, "bad_topic", "a.*"),
        (r#"{"op":"pub","id":1,"topic":"a"}"#, "bad_command", "data"),
        (r#"{"op":"pub","id":1,"topic":"a","data":{]}"#, "bad_json", "JSON"),
        (r#"{"op":"auth","id":1,"token":5}"#, "bad_command", "token"),
    ] {
        let answer = client.ask(command);
        assert_eq!(answer["type"], "error", "{command}");
        assert_eq!(answer["code"], code, "{command}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(word), "{command}: {answer}");
    }
    assert!(client.ask(r#"{"op":"list"}"#)["topics"].as_array().unwrap().is_empty());
}

#[test]
fn a_binary_message_on_ws_is_closed_with_1003() {
    let server = serve(|_| {});
    let mut client = Client::hello(&server, "/ws");
    client.socket.send(tungstenite::Message::binary(vec![1, 2, 3])).unwrap();
    assert_eq!(client.closed().0, 1003);
}

#[test]
fn every_subscriber_sees_the_same_order_whichever_worker_it_is_on() {
    let server = serve(|config| config.workers = Some(3));
    let mut clients: Vec<Client> = (0..9).map(|_| Client::hello(&server, "/ws?topics=%3E")).collect();
    for client in &mut clients {
        client.json();
    }
    let publishers: Vec<_> = (0..3)
        .map(|n| {
            let publisher = server.publisher();
            std::thread::spawn(move || {
                for i in 0..200 {
                    publisher.publish(&format!("t.{n}"), Payload::Json(i.to_string().as_bytes())).unwrap();
                }
            })
        })
        .collect();
    let mut seen = clients.iter_mut().map(|client| (0..600).map(|_| client.text()).collect::<Vec<_>>());
    let first = seen.next().unwrap();
    assert!(seen.all(|other| other == first));
    publishers.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_silent_client_is_sent_a_heartbeat_and_a_ping() {
    let server = serve(|config| {
        config.heartbeat = "1s".parse().unwrap();
        config.idle_timeout = "2s".parse().unwrap();
    });
    let mut client = Client::hello(&server, "/ws");
    assert_eq!(client.json()["type"], "heartbeat");
    // The library answers pings while it reads, so the connection outlives the idle timeout.
    for _ in 0..3 {
        assert_eq!(client.json()["type"], "heartbeat");
    }
}

#[test]
fn a_client_that_does_not_answer_pings_is_closed() {
    let server = serve(|config| {
        config.heartbeat = "0".parse().unwrap();
        config.idle_timeout = "1s".parse().unwrap();
    });
    let mut stream = crate::client::upgraded(server.addresses()[0], "/ws");
    assert_eq!(crate::client::close_code(&mut stream), 1008);
}

#[test]
fn answers_come_in_the_order_of_the_commands() {
    let server = serve(|_| {});
    let mut client = Client::hello(&server, "/ws");
    for (n, command) in
        ["sub\",\"topics\":[\"a\"]", "list\"", "unsub\",\"topics\":[\"a\"]", "list\"", "ping\""].iter().enumerate()
    {
        client.socket.write(tungstenite::Message::text(format!("{{\"id\":{n},\"op\":\"{command}}}"))).unwrap();
    }
    client.socket.flush().unwrap();
    for n in 0..5 {
        let answer = client.json();
        assert_eq!(answer["id"], n, "{answer}");
        if answer["type"] == "subscriptions" {
            assert_eq!(answer["topics"].as_array().unwrap().len(), usize::from(n == 1));
        }
    }
}

#[test]
fn every_way_of_tuning_delivers_the_same() {
    for tune in [
        (|config| config.acceptors = 3) as fn(&mut stentor::config::Config),
        |config| config.spin = 200,
        |config| config.flush_interval = "20ms".parse().unwrap(),
        |config| match std::net::TcpListener::bind("[::1]:0") {
            Ok(_) => config.listen.push("[::1]:0".parse().unwrap()),
            Err(_) => skip("ipv6", "IPv6: this machine has none"),
        },
        |config| config.pin = stentor::config::Pin::Auto,
    ] {
        let server = serve(tune);
        let addresses = server.addresses().to_vec();
        let mut clients: Vec<Client> =
            (0..6).map(|n| Client::try_connect(addresses[n % addresses.len()], "/ws?topics=a", &[]).unwrap()).collect();
        for client in &mut clients {
            assert_eq!((&client.json()["type"], &client.json()["type"]), (&"hello".into(), &"ack".into()));
        }
        for n in 1..=200 {
            server.publisher().publish("a", Payload::Json(n.to_string().as_bytes())).unwrap();
        }
        for client in &mut clients {
            (1..=200).for_each(|n| assert_eq!(client.json()["seq"], n));
        }
    }
}
