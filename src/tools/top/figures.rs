//! From two scrapes of `/metrics` to what happened between them: rates, percentiles, levels.

use std::time::{Duration, Instant};

/// The samples of one scrape.
#[derive(Clone, Debug)]
pub(super) struct Scrape {
    at: Instant,
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    /// What is between the braces.
    labels: String,
    value: f64,
}

impl Scrape {
    /// Reads Prometheus text; lines that are no samples are passed over.
    pub fn parse(text: &str, at: Instant) -> Scrape {
        Scrape { at, samples: text.lines().filter_map(Sample::parse).collect() }
    }

    fn of<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Sample> {
        self.samples.iter().filter(move |sample| sample.name.strip_prefix("stentor_") == Some(name))
    }

    /// All workers', or sources', together.
    fn sum(&self, name: &str) -> f64 {
        self.of(name).map(|sample| sample.value).sum()
    }

    fn max(&self, name: &str) -> f64 {
        self.of(name).map(|sample| sample.value).fold(0.0, f64::max)
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Sample> {
        if line.starts_with('#') {
            return None;
        }
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        Some(Sample { name: name.to_owned(), labels: labels.to_owned(), value: value.parse().ok()? })
    }

    /// The value of a label. No label of ours has a quote or a comma in its value.
    fn label(&self, name: &str) -> Option<&str> {
        let mut labels = self.labels.split(',').filter_map(|label| label.split_once('='));
        labels.find(|(label, _)| *label == name).map(|(_, value)| value.trim_matches('"'))
    }
}

/// What a frame shows of the server as a whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub version: String,
    pub is_ready: bool,
    pub up: Duration,
    /// The time between the scrapes.
    pub over: Duration,
    pub connections: f64,
    pub connections_max: f64,
    pub websockets: f64,
    pub cohorts: f64,
    pub subscriptions: f64,
    pub topics: f64,
    /// A second, as all rates.
    pub publications: f64,
    pub deliveries: f64,
    pub sends: f64,
    pub sends_full: f64,
    pub sent_bytes: f64,
    pub received_bytes: f64,
    /// What would have been sent beside `sent_bytes` if nothing were compressed.
    pub saved_bytes: f64,
    /// WebSockets that are sent compressed publications.
    pub packed: f64,
    pub streams: f64,
    /// Subscribers that read one, and that wait for the one of their names to begin anew.
    pub members: f64,
    pub waiting: f64,
    pub turned_away: f64,
    /// Cores' worth of processor time.
    pub cpu: f64,
    pub resident_bytes: f64,
    pub publish_to_send: Percentiles,
    pub turn: Percentiles,
    pub behind: f64,
    pub lag_max: f64,
    pub pending_bytes: f64,
    pub tape_bytes: f64,
    pub retain_bytes: f64,
    pub oldest: Duration,
    /// How far back the tape reaches when it is full; none while nothing is published.
    pub holds: Option<Duration>,
    /// Since the server started: those that fell off the tape.
    pub lagged: f64,
}

/// Half and all but a hundredth of what was measured took no longer than this; None where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Percentiles {
    pub p50: Option<Duration>,
    pub p99: Option<Duration>,
}

impl Figures {
    /// What happened between two scrapes; after a restart of the server, what happened since.
    pub fn between(before: &Scrape, after: &Scrape) -> Figures {
        let over = after.at.saturating_duration_since(before.at);
        let gained = |name: &str| {
            let (was, is) = (before.sum(name), after.sum(name));
            if is < was { is } else { is - was }
        };
        let a_second = |name: &str| if over.is_zero() { 0.0 } else { gained(name) / over.as_secs_f64() };
        let version = after.of("build_info").find_map(|sample| sample.label("version")).unwrap_or_default();
        let started = after.sum("start_time_seconds");
        let now = crate::clock::wall_us() as f64 / 1e6;
        let lagged = after.of("websocket_closes_total").find(|sample| sample.label("code") == Some("4100"));
        Figures {
            version: version.to_owned(),
            is_ready: after.sum("ready") > 0.0,
            up: seconds(now - started),
            over,
            connections: after.sum("connections"),
            connections_max: after.sum("connections_max"),
            websockets: after.sum("websocket_connections"),
            cohorts: after.sum("cohorts"),
            subscriptions: after.sum("subscriptions"),
            topics: after.sum("topics"),
            publications: a_second("publications_total"),
            deliveries: a_second("deliveries_total"),
            sends: a_second("sends_total"),
            sends_full: a_second("sends_full_total"),
            sent_bytes: a_second("sent_bytes_total"),
            received_bytes: a_second("received_bytes_total"),
            saved_bytes: a_second("compression_saved_bytes_total"),
            packed: after.sum("compressed_connections"),
            streams: after.sum("shared_streams"),
            members: after.sum("shared_stream_members"),
            waiting: after.sum("shared_stream_waiting"),
            turned_away: a_second("refusals_total"),
            cpu: a_second("process_cpu_seconds_total"),
            resident_bytes: after.sum("process_resident_memory_bytes"),
            publish_to_send: Percentiles::between(before, after, "publish_to_send_seconds_bucket"),
            turn: Percentiles::between(before, after, "turn_duration_seconds_bucket"),
            behind: after.sum("alone_subscribers"),
            lag_max: after.max("lag_publications_max"),
            pending_bytes: after.sum("pending_answers_bytes"),
            tape_bytes: after.sum("tape_bytes"),
            retain_bytes: after.sum("tape_retain_bytes"),
            oldest: seconds(after.sum("tape_oldest_age_seconds")),
            holds: Some(after.sum("tape_holds_seconds")).filter(|holds| holds.is_finite() && *holds > 0.0).map(seconds),
            lagged: lagged.map_or(0.0, |sample| sample.value),
        }
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

impl Percentiles {
    fn between(before: &Scrape, after: &Scrape, name: &str) -> Percentiles {
        let ends = cumulative(after, name);
        let was = cumulative(before, name);
        // Counts that have fallen are those of another run of the server.
        let is_same = was.iter().zip(&ends).all(|(was, is)| was.0 == is.0 && was.1 <= is.1);
        let gained: Vec<(f64, f64)> = ends
            .iter()
            .enumerate()
            .map(|(n, (end, count))| (*end, count - was.get(n).filter(|_| is_same).map_or(0.0, |was| was.1)))
            .collect();
        Percentiles { p50: percentile(&gained, 0.5), p99: percentile(&gained, 0.99) }
    }
}

/// Each bucket's upper end, and how many were at or below it; all workers together.
fn cumulative(scrape: &Scrape, name: &str) -> Vec<(f64, f64)> {
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for sample in scrape.of(name) {
        let Some(end) = sample.label("le").and_then(|end| end.parse().ok()) else { continue };
        match buckets.iter_mut().find(|(known, _)| *known == end) {
            Some((_, count)) => *count += sample.value,
            None => buckets.push((end, sample.value)),
        }
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    buckets
}

/// Where the share lies within its bucket, taken as evenly filled; the last bound for what lies beyond all.
fn percentile(buckets: &[(f64, f64)], share: f64) -> Option<Duration> {
    let wanted = buckets.last().map(|(_, count)| count * share).filter(|wanted| *wanted > 0.0)?;
    let at = buckets.iter().position(|(_, count)| *count >= wanted)?;
    let (lower, below) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
    let (upper, upto) = buckets[at];
    if upper.is_infinite() {
        return Some(seconds(lower));
    }
    Some(seconds(lower + (upper - lower) * (wanted - below) / (upto - below).max(f64::MIN_POSITIVE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(text: &str, at: Instant) -> Scrape {
        Scrape::parse(text, at)
    }

    #[test]
    fn rates_are_what_was_gained_over_the_time_between() {
        let start = Instant::now();
        let before = scrape(
            "# HELP x y\nstentor_deliveries_total{worker=\"0\"} 100\nstentor_deliveries_total{worker=\"1\"} 50\n\
             stentor_sends_total{worker=\"0\"} 500\n",
            start,
        );
        let after = scrape(
            "stentor_deliveries_total{worker=\"0\"} 1100\nstentor_deliveries_total{worker=\"1\"} 1050\n\
             stentor_sends_total{worker=\"0\"} 40\nstentor_lag_publications_max{worker=\"0\"} 3\n\
             stentor_lag_publications_max{worker=\"1\"} 9\nstentor_build_info{version=\"0.1.0\"} 1\nnonsense\n\
             stentor_websocket_closes_total{code=\"1000\"} 7\nstentor_websocket_closes_total{code=\"4100\"} 2\n",
            start + Duration::from_secs(2),
        );
        let figures = Figures::between(&before, &after);
        assert_eq!((figures.deliveries, figures.lag_max, figures.lagged), (1000.0, 9.0, 2.0));
        assert_eq!(figures.sends, 20.0, "a count that fell is that of another run");
        assert_eq!(figures.version, "0.1.0");
        assert_eq!(Figures::between(&after, &after).deliveries, 0.0);
    }

    #[test]
    fn percentiles_are_of_what_was_measured_between() {
        let start = Instant::now();
        let buckets = |counts: [u64; 4]| {
            let ends = ["0.001", "0.01", "0.1", "+Inf"];
            let line =
                |(end, count)| format!("stentor_publish_to_send_seconds_bucket{{le=\"{end}\",worker=\"0\"}} {count}\n");
            scrape(&ends.into_iter().zip(counts).map(line).collect::<String>(), start)
        };
        let of = |before, after| Figures::between(&buckets(before), &buckets(after)).publish_to_send;
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(of([9; 4], [9; 4]), Percentiles::default());
        // A thousand before, all slow; then 100 between 1 and 10 ms.
        assert_eq!(of([0, 0, 1000, 1000], [0, 100, 1100, 1100]).p50, Some(Duration::from_micros(5500)));
        assert_eq!(of([0; 4], [100, 100, 100, 200]), Percentiles { p50: ms(1), p99: ms(100) });
        // The server was started anew.
        assert_eq!(of([5000; 4], [0, 0, 10, 10]).p50, ms(55));
    }
}
