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
        assert_eq!(page["count"], 600);
        for row in page["topics"].as_array().unwrap() {
            assert_eq!((&row["seq"], &row["subscribers"]), (&1.into(), &1.into()));
            names.push(row["topic"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        after = next.to_owned();
    }
    assert_eq!(names, (0..600).map(|n| format!("q.{n:03}")).collect::<Vec<_>>());
    for bad in ["/topics?pattern=a..b", "/topics?limit=0", "/topics?limit=10001", "/topics?limit=x"] {
        assert_eq!(client.get(bad).status, 400, "{bad}");
    }
}

#[test]
fn a_topic_that_nobody_needs_is_forgotten() {
    let hour = Duration::from_secs(3600);
    let (context, _worker) = context(|config| config.topic_expiry = Span::new(hour), |_| {});
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
    let (context, _worker) = context(|config| config.max_values = "4B".parse().unwrap(), |_| {});
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
