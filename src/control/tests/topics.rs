//! The list of topics, and forgetting them.

use super::*;

#[test]
fn topics_are_listed_in_order_page_by_page() {
    let server = Server::start();
    for n in (0..600).rev() {
        server.context.shared.publisher.publish(&format!("q.{n:03}"), Payload::Text("1")).unwrap();
    }
    server.context.shared.publisher.publish("t.a", Payload::Text("1")).unwrap();
    let _held = server.context.shared.subscriptions.add(["q.*", "t.a"].into_iter()).unwrap();
    let mut client = server.connect();
    let all = client.get("/topics").json();
    assert_eq!((&all["count"], all["topics"].as_array().unwrap().len()), (&601.into(), 601));
    assert_eq!(all.get("next"), None);
    let (mut after, mut names) = (String::new(), Vec::new());
    loop {
        let page = client.get(&format!("/topics?pattern=q.%3E&limit=250&after={after}")).json();
        assert_eq!(page["count"], if after.is_empty() { 600.into() } else { Value::Null });
        for row in page["topics"].as_array().unwrap() {
            assert_eq!((&row["seq"], &row["subscribers"]), (&1.into(), &1.into()));
            names.push(row["topic"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        after = next.to_owned();
    }
    assert_eq!(names, (0..600).map(|n| format!("q.{n:03}")).collect::<Vec<_>>());
    for bad in ["/topics?pattern=a..b", "/topics?limit=0", "/topics?limit=-1", "/topics?limit=x", "/topics?limit="] {
        assert_eq!(client.get(bad).status, 400, "{bad}");
    }
}

#[test]
fn a_page_has_a_thousand_topics_at_most_and_says_where_the_next_begins() {
    let server = Server::start();
    let mut batch = server.context.shared.publisher.batch();
    for n in 0..2500 {
        batch.push(&format!("a.{n:04}.x"), Payload::Text("1")).unwrap();
    }
    drop(batch);
    let mut client = server.connect();
    for (query, rows, count, next) in [
        ("limit=10000", 1000, Value::from(2500), "a.0999.x".into()),
        ("limit=99999999999999999999999", 1000, 2500.into(), "a.0999.x".into()),
        ("pattern=a.*.x&after=a.0999.x", 1000, Value::Null, "a.1999.x".into()),
        ("pattern=a.*.x&after=a.1999.x", 500, Value::Null, Value::Null),
        ("pattern=*.2499.*", 1, 1.into(), Value::Null),
        ("pattern=a.0007.x&after=a", 1, Value::Null, Value::Null),
        ("pattern=a.0007.x&after=a.0007.x", 0, Value::Null, Value::Null),
        ("pattern=a.0007.x", 1, 1.into(), Value::Null),
        ("pattern=b.%3E", 0, 0.into(), Value::Null),
        ("pattern=a.%3E&limit=1", 1, 2500.into(), "a.0000.x".into()),
    ] {
        let page = client.get(&format!("/topics?{query}")).json();
        let found = (page["topics"].as_array().unwrap().len(), page["count"].clone(), page["next"].clone());
        assert_eq!(found, (rows, count, next), "{query}");
    }
    let length: usize = client.ask("HEAD", "/topics").headers["content-length"].parse().unwrap();
    assert_eq!(client.get("/topics").body.len(), length);
}

#[test]
fn whoever_looks_sees_what_it_may_subscribe_to_and_an_operator_all() {
    let change = |config: &mut Config| {
        config.anonymous_subscribe = vec!["q.*.x".into(), "t.7".into()];
        config.admin_token = Some("boss".parse().unwrap());
    };
    let server = Server::with(change, |_| {});
    let mut batch = server.context.shared.publisher.batch();
    for n in 0..1500 {
        // One in three is of those that may be seen.
        batch.push(&format!("q.{n:04}.{}", ["x", "y", "z"][n % 3]), Payload::Text("1")).unwrap();
        batch.push(&format!("t.{n}"), Payload::Text("1")).unwrap();
    }
    drop(batch);
    let mut client = server.connect();
    let (mut after, mut names) = (String::new(), Vec::new());
    loop {
        let page = client.get(&format!("/topics?limit=99&after={after}")).json();
        assert_eq!(page["count"], if after.is_empty() { 501.into() } else { Value::Null }, "no others are counted");
        names.extend(page["topics"].as_array().unwrap().iter().map(|row| row["topic"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        after = next.to_owned();
    }
    let expected = (0..1500).step_by(3).map(|n| format!("q.{n:04}.x")).chain(["t.7".to_owned()]);
    assert_eq!(names, expected.collect::<Vec<_>>());
    for (query, rows, count) in
        [("pattern=t.%3E", 1, 1), ("pattern=q.*.y", 0, 0), ("pattern=t.8", 0, 0), ("pattern=t.7", 1, 1)]
    {
        let page = client.get(&format!("/topics?{query}")).json();
        assert_eq!((page["topics"].as_array().unwrap().len(), &page["count"]), (rows, &count.into()), "{query}");
    }
    // Be there such a topic or not.
    let told = ["/topics/t.8", "/topics/t.99999"].map(|target| client.get(target));
    assert_eq!(told[0].status, 401);
    assert_eq!(told[0].body.replace("t.8:", ""), told[1].body.replace("t.99999:", ""));
    assert_eq!(client.get("/topics/t.7").status, 200);
    assert_eq!(client.get("/topics?token=boss").json()["count"], 3000);
    assert_eq!(client.get("/topics/t.8?token=boss").status, 200);
}

#[test]
fn a_topic_that_nobody_needs_is_forgotten() {
    let hour = Duration::from_secs(3600);
    let (context, ..) = context(|config| config.topic_expiry = Span::new(hour), |_| {});
    let publisher = &context.shared.publisher;
    for topic in ["old", "heard"] {
        publisher.publish(topic, Payload::Text("1")).unwrap();
    }
    let _held = context.shared.subscriptions.add(["heard"].into_iter()).unwrap();
    let (mut sweep, now) = (sweep::Sweep::new(Moment::now()), Moment::now());
    let has = |name: &str| context.tape.with_topics(|topics, _| topics.find(name).is_some());
    sweep.forget_some(&context, 0..256, now);
    publisher.publish("young", Payload::Text("1")).unwrap();
    sweep.forget_some(&context, 0..256, now + hour / 2);
    sweep.forget_some(&context, 0..256, now + hour);
    assert!(has("old"), "it is young still");
    sweep.forget_some(&context, 0..256, now + hour + Duration::from_millis(1));
    assert!(!has("old") && has("heard") && has("young"));
    assert_eq!(context.shared.metrics.topics_forgotten.get(), 1);
}

#[test]
fn a_topic_without_value_is_forgotten_without_expiry() {
    let (context, ..) = context(|config| config.max_values = "4B".parse().unwrap(), |_| {});
    let publisher = &context.shared.publisher;
    publisher.publish("kept", Payload::Text("1")).unwrap();
    publisher.publish("dropped", Payload::Text("12345")).unwrap();
    let has = |name: &str| context.tape.with_topics(|topics, _| topics.find(name).is_some());
    let mut sweep = sweep::Sweep::new(Moment::now());
    sweep.forget_some(&context, 0..256, Moment::now());
    assert!(has("dropped"), "it is on the tape still");
    while context.tape.tail().0 < 2 {
        publisher.publish("new", Payload::Text("1")).unwrap();
    }
    sweep.forget_some(&context, 0..256, Moment::now());
    let names = context.tape.with_topics(|topics, _| ["kept", "dropped"].map(|name| topics.find(name).is_some()));
    assert_eq!(names, [true, false]);
}

#[test]
fn nobody_holds_a_lock_for_longer_than_a_stretch_of_topics_takes() {
    let server = Server::with(|config| config.topic_expiry = Span::new(Duration::from_secs(60)), |_| {});
    let (tape, subscriptions) = (&server.context.tape, &server.context.shared.subscriptions);
    let mut batch = server.context.shared.publisher.batch();
    for n in 0..5000 {
        batch.push(&format!("a.a.a.a.a.a.a.a.{n}"), Payload::Text("1")).unwrap();
    }
    drop(batch);
    // Of eight segments any may be a star, so that counting who listens to one topic is as dear as it may be.
    let star = |bits: usize| (0..8).map(|at| if bits >> at & 1 == 1 { "*" } else { "a" }).collect::<Vec<_>>().join(".");
    let names: Vec<String> = (0..256).map(|bits| star(bits) + ".*").collect();
    let held = subscriptions.add(names.iter().map(String::as_str)).unwrap();
    let page = server.connect().get("/topics?pattern=*.a.%3E").json();
    assert_eq!((&page["count"], &page["topics"][999]["subscribers"]), (&5000.into(), &256.into()));
    let (mut sweep, now) = (sweep::Sweep::new(Moment::now()), Moment::now());
    let mut sweep_at = |after| {
        (0..5120).step_by(256).for_each(|at| sweep.forget_some(&server.context, at..at + 256, now + after));
        tape.with_topics(|topics, _| topics.len())
    };
    sweep_at(Duration::ZERO);
    assert_eq!(sweep_at(Duration::from_secs(61)), 5000, "somebody listens to each");
    subscriptions.remove(held.iter());
    assert_eq!(sweep_at(Duration::from_secs(61)), 0);
    let longest = (tape.longest_hold(), subscriptions.longest_hold());
    assert!(longest.0 <= 256 && longest.1 <= 768, "{longest:?} topics and nodes under one hold");
}
