//! The figures, read with a parser of their own.

use super::{
    super::{metrics::Exposition, out::Pending},
    *,
};
use crate::{http, metrics::Ending};

/// Families by name: type and samples.
type Families = BTreeMap<String, (String, Vec<(String, f64)>)>;

/// Reads the figures with a parser of its own, and checks what both formats demand of every line.
fn parse_metrics(text: &str, is_openmetrics: bool) -> Families {
    let mut families: Families = BTreeMap::new();
    let (mut helped, mut family) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.ends_with('.') && help.len() > 8, "{line}");
            helped = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(helped, name, "help comes before the type");
            assert!(families.insert(name.to_owned(), (kind.to_owned(), Vec::new())).is_none(), "{name} twice");
            family = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').unwrap();
            assert!(is_openmetrics && name == family && name.ends_with(unit), "{line}");
        } else if line == "# EOF" {
            assert!(is_openmetrics);
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            let (kind, samples) = families.get_mut(&family).unwrap_or_else(|| panic!("no family for {line}"));
            let suffixes: &[&str] = match (kind.as_str(), is_openmetrics) {
                ("counter", true) => &["_total"],
                ("info", true) => &["_info"],
                ("histogram", _) => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(suffixes.iter().any(|suffix| name.strip_prefix(&*family) == Some(suffix)), "{line} in {family}");
            assert!(name.starts_with("stentor_") && (kind != "counter" || name.ends_with("_total")), "{line}");
            samples.push((sample.to_owned(), value.parse().unwrap()));
        }
    }
    assert!(!is_openmetrics || text.ends_with("# EOF\n"));
    families
}

fn value(families: &Families, sample: &str) -> f64 {
    let mut all = families.values().flat_map(|(_, samples)| samples);
    all.find(|(name, _)| name == sample).unwrap_or_else(|| panic!("no sample {sample}")).1
}

#[test]
fn the_figures_are_those_of_the_formats_that_prometheus_reads() {
    let server = Server::start();
    let worker = &server.context.shared.metrics.workers[0];
    worker.turn.record([(5, 1), (60, 2), (3_000_000, 1)]);
    worker.deliveries.add(12);
    server.context.shared.metrics.close(Ending::by_server(4100));
    let mut client = server.connect();
    client.post("/publish/a", "", "12345");
    let answer = client.get("/metrics");
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let classic = parse_metrics(&answer.body, false);
    client.send(
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text;version=1.0.0;q=0.6,*/*\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!(answer.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let open = parse_metrics(&answer.body, true);
    for families in [&classic, &open] {
        for (sample, expected) in [
            ("stentor_publications_total{source=\"http\"}", 1.0),
            ("stentor_deliveries_total{worker=\"0\"}", 12.0),
            ("stentor_websocket_closes_total{code=\"4100\"}", 1.0),
            ("stentor_refusals_total{reason=\"forbidden\"}", 0.0),
            ("stentor_tape_publications_total", 1.0),
            ("stentor_topics", 1.0),
            ("stentor_values_bytes", 5.0),
            ("stentor_http_connections", 1.0),
            ("stentor_connections_max", 10_000.0),
        ] {
            assert_eq!(value(families, sample), expected, "{sample}");
        }
        assert!(value(families, "stentor_process_descriptors_open") > 3.0);
        assert!(value(families, "stentor_process_resident_memory_bytes") > 100_000.0);
        assert!(value(families, "stentor_process_cpu_seconds_total") > 0.0);
        assert!(value(families, "stentor_start_time_seconds") > 1.6e9);
        for (name, (_, samples)) in families.iter().filter(|(_, (kind, _))| kind == "histogram") {
            assert!(name.ends_with("_seconds"));
            let of = |suffix: &'static str| samples.iter().filter(move |(sample, _)| sample.contains(suffix));
            let buckets: Vec<f64> = of("_bucket{").map(|(_, value)| *value).collect();
            assert!(buckets.is_sorted() && buckets.len() == 17, "{name}: {buckets:?}");
            assert!(of("_bucket{").next_back().unwrap().0.contains("le=\"+Inf\""));
            assert_eq!(buckets.last(), of("_count{").next().map(|(_, count)| count));
        }
        assert_eq!(value(families, "stentor_turn_duration_seconds_count{worker=\"0\"}"), 4.0);
        assert!((value(families, "stentor_turn_duration_seconds_sum{worker=\"0\"}") - 3.000125).abs() < 1e-6);
    }
    assert_eq!(value(&open, "stentor_turn_duration_seconds_bucket{le=\"0.0001\",worker=\"0\"}"), 3.0);
}

#[test]
fn figures_are_made_four_times_a_second_at_most_and_shared() {
    let (context, ..) = context(|_| {}, |_| {});
    let pending = Pending::default();
    let mut exposition = Exposition::new(context, pending.clone());
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (head, _) = http::head::parse(request, 8192).unwrap().unwrap();
    let begun = Moment(1);
    let (_, first, is_new) = exposition.render(&head, begun);
    assert!(is_new);
    let counted = pending.bytes();
    let (_, second, is_new) = exposition.render(&head, begun + Duration::from_millis(249));
    assert!(Arc::ptr_eq(&first, &second) && !is_new);
    assert_eq!(pending.bytes(), counted, "whoever shares it takes no more memory");
    let (_, third, is_new) = exposition.render(&head, begun + Duration::from_millis(250));
    assert!(!Arc::ptr_eq(&first, &third) && is_new);
}

#[test]
fn figures_are_there_while_somebody_publishes_for_long() {
    let server = Server::start();
    server.context.shared.publisher.publish("a", Payload::Text("1")).unwrap();
    let _held = server.context.tape.appender();
    let answer = server.connect().get("/metrics");
    assert!(answer.body.contains("stentor_topics_max 65536"), "{}", answer.body);
}
