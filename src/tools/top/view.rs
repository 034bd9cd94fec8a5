//! A frame: the figures, and the list of those behind, as lines of text.

use std::time::Duration;

use super::{
    figures::{Figures, Percentiles},
    slow::{Column, Order, Row, SlowList},
    text::{bytes, count, counted, span},
};

/// Columns where the output is no terminal: everything is shown.
const PLAIN_COLUMNS: usize = usize::MAX;

/// What is shown, and how.
pub(super) struct View {
    url: String,
    pub order: Order,
    pub is_paused: bool,
    figures: Option<Figures>,
    slow: Result<SlowList, String>,
    /// Why the server could not be read the last time.
    failure: Option<String>,
}

/// A line, and how it stands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub text: String,
    pub style: Style,
}

/// How a line stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Heading,
    Alarm,
}

impl View {
    /// A view that has nothing to show yet.
    pub fn new(url: String, order: Order) -> View {
        let slow = Ok(SlowList::default());
        View { url, order, is_paused: false, figures: None, slow, failure: None }
    }

    /// Takes what was read.
    pub fn take(&mut self, figures: Figures, slow: Result<SlowList, String>) {
        (self.figures, self.slow, self.failure) = (Some(figures), slow, None);
    }

    /// Keeps showing what it has, and says that there was nothing newer.
    pub fn fail(&mut self, failure: String) {
        self.failure = Some(failure);
    }

    /// The whole frame as text.
    pub fn plain(&self) -> String {
        let lines = self.lines(PLAIN_COLUMNS, usize::MAX);
        lines.iter().flat_map(|line| [line.text.trim_end(), "\n"]).collect()
    }

    /// The frame in so many columns and lines.
    pub fn lines(&self, columns: usize, height: usize) -> Vec<Line> {
        let mut lines = vec![self.title()];
        if let Some(failure) = &self.failure {
            lines.push(Line { text: failure.clone(), style: Style::Alarm });
        }
        if let Some(figures) = &self.figures {
            lines.extend(summary(figures).map(|text| Line { text, style: Style::Plain }));
            lines.push(Line { text: String::new(), style: Style::Plain });
            lines.extend(self.list());
        }
        lines.truncate(height);
        for line in &mut lines {
            line.text = fitted(&line.text, columns);
        }
        lines
    }

    fn title(&self) -> Line {
        let mut text = format!("stentor top  {}", self.url);
        match &self.figures {
            None => text += "  connecting",
            Some(figures) => {
                let state = if figures.is_ready { "ready" } else { "draining" };
                text += &format!("  {}  up {}  {state}", figures.version, span(figures.up));
                text += &format!("  over {}", span(figures.over));
            }
        }
        if self.is_paused {
            text += "  paused";
        }
        Line { text, style: Style::Bold }
    }

    fn list(&self) -> Vec<Line> {
        let plain = |text: String| vec![Line { text, style: Style::Plain }];
        let mut rows = match &self.slow {
            Err(why) => return plain(format!("slow subscribers: {why}")),
            Ok(list) if list.connections.is_empty() => return plain("no slow subscribers".into()),
            Ok(list) => list.connections.clone(),
        };
        self.order.sort(&mut rows);
        let table: Vec<(Column, Vec<String>, usize)> = Column::ALL.map(|column| self.column(column, &rows)).into();
        (0..=rows.len())
            .map(|n| {
                let cells = table.iter().map(|(column, cells, width)| match column.is_number() {
                    true => format!("{:>width$}  ", cells[n]),
                    false => format!("{:<width$}  ", cells[n]),
                });
                let style = if n == 0 { Style::Heading } else { Style::Plain };
                Line { text: cells.collect::<String>().trim_end().to_owned(), style }
            })
            .collect()
    }

    /// A column's heading and cells, and how wide it is.
    fn column(&self, column: Column, rows: &[Row]) -> (Column, Vec<String>, usize) {
        let mark = match (column == self.order.column, column.is_number() != self.order.is_reversed) {
            (false, _) => "",
            (true, true) => "▼",
            (true, false) => "▲",
        };
        let heading = format!("{}{mark}", column.name().to_uppercase());
        let cells: Vec<String> = [heading].into_iter().chain(rows.iter().map(|row| column.text(row))).collect();
        let width = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
        (column, cells, width)
    }
}

/// The figures, a line for each question: who is there, what moves, what it costs, who is behind.
fn summary(f: &Figures) -> [String; 7] {
    let per_send = if f.sends > 0.0 { format!("{:.2}", f.deliveries / f.sends) } else { "-".into() };
    // In the console it is the same.
    let saved = if f.saved_bytes > 0.0 {
        format!("{:.0} %", 100.0 * f.saved_bytes / (f.sent_bytes + f.saved_bytes))
    } else {
        "nothing".into()
    };
    let fill = if f.retain_bytes > 0.0 { 100.0 * f.tape_bytes / f.retain_bytes } else { 0.0 };
    [
        format!(
            "clients    {} of {}, {}; {}, {}, {}",
            count(f.connections),
            counted(f.connections_max, "connection"),
            counted(f.websockets, "WebSocket"),
            counted(f.subscriptions, "subscription"),
            counted(f.cohorts, "cohort"),
            counted(f.topics, "topic"),
        ),
        format!(
            "flow       {}/s publications, {}/s deliveries, {}/s out, {}/s in, {} publications a send",
            count(f.publications),
            count(f.deliveries),
            bytes(f.sent_bytes),
            bytes(f.received_bytes),
            per_send,
        ),
        format!(
            "deflate    saves {saved}, {}/s; {} of {} compressed, {} on {}, {} waiting",
            bytes(f.saved_bytes),
            count(f.packed),
            counted(f.websockets, "WebSocket"),
            count(f.members),
            counted(f.streams, "shared stream"),
            count(f.waiting),
        ),
        format!(
            "cost       {:.0} % CPU, {} resident; publish to send {}; turns {}",
            100.0 * f.cpu,
            bytes(f.resident_bytes),
            percentiles(f.publish_to_send),
            percentiles(f.turn),
        ),
        format!(
            "tape       holds at least {} at this rate; {} of {} ({fill:.0} %), reaches back {}",
            shown(f.holds),
            bytes(f.tape_bytes),
            bytes(f.retain_bytes),
            span(f.oldest),
        ),
        format!(
            "slow       {} with a cursor of {} own, lag at most {}, {}/s full sockets",
            count(f.behind),
            if f.behind == 1.0 { "its" } else { "their" },
            counted(f.lag_max, "publication"),
            count(f.sends_full),
        ),
        format!(
            "trouble    {} of answers wait, {} fell off the tape, {}/s refused",
            bytes(f.pending_bytes),
            count(f.lagged),
            count(f.turned_away),
        ),
    ]
}

fn shown(length: Option<Duration>) -> String {
    length.map_or("-".into(), span)
}

fn percentiles(of: Percentiles) -> String {
    format!("p50 {} p99 {}", shown(of.p50), shown(of.p99))
}

/// The text in so many columns. What a server says must not move the cursor, so control characters are shown as such.
fn fitted(text: &str, columns: usize) -> String {
    text.chars().take(columns).map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let figures = Figures {
            version: "0.1.0".into(),
            is_ready: true,
            up: Duration::from_secs(192),
            over: Duration::from_secs(1),
            connections: 2001.0,
            connections_max: 10_000.0,
            websockets: 2000.0,
            cohorts: 3.0,
            subscriptions: 2000.0,
            topics: 600.0,
            publications: 20_000.0,
            deliveries: 40e6,
            sends: 885e3,
            sent_bytes: 5.5e9,
            cpu: 0.98,
            resident_bytes: 34.0 * 1048576.0,
            publish_to_send: Percentiles { p50: Some(Duration::from_micros(250)), p99: None },
            tape_bytes: 48.0 * 1048576.0,
            retain_bytes: 64.0 * 1048576.0,
            oldest: Duration::from_millis(3200),
            holds: Some(Duration::from_millis(4270)),
            lag_max: 12_345.0,
            ..Figures::default()
        };
        let row = |conn: &str, lag_ms, more, rtt_us| Row {
            conn: conn.into(),
            address: "192.0.2.7:5555".into(),
            lag_ms,
            lag_bytes: lag_ms * 1024,
            rtt_us,
            subscriptions: vec!["q.>".into(), "t.a".into()],
            more,
            mode: "all".into(),
            ..Row::default()
        };
        let rows = vec![row("1-2a", 250, 0, None), row("2-1", 2500, 7, Some(1230))];
        let mut view = View::new("http://127.0.0.1:9001".into(), Order::by(Column::Behind));
        view.take(figures, Ok(SlowList { connections: rows }));
        view
    }

    #[test]
    fn what_compression_saves_is_shown_where_it_saves_something() {
        let mut view = view();
        assert!(view.plain().contains("\ndeflate    saves nothing, 0 B/s; 0 of 2.00k WebSockets compressed, "));
        let figures = Figures {
            sent_bytes: 600.0,
            saved_bytes: 400.0,
            websockets: 12.0,
            packed: 11.0,
            streams: 1.0,
            members: 9.0,
            waiting: 2.0,
            ..Figures::default()
        };
        view.take(figures, Ok(SlowList { connections: Vec::new() }));
        let frame = view.plain();
        let line = "saves 40 %, 400 B/s; 11 of 12 WebSockets compressed, 9 on 1 shared stream, 2 waiting";
        assert!(frame.contains(&format!("\ndeflate    {line}\n")), "{frame}");
    }

    #[test]
    fn a_frame_as_text() {
        let frame = view().plain();
        let lines: Vec<&str> = frame.lines().collect();
        assert_eq!(lines[0], "stentor top  http://127.0.0.1:9001  0.1.0  up 3m 12s  ready  over 1.00 s");
        assert_eq!(
            lines[1],
            "clients    2.00k of 10.0k connections, 2.00k WebSockets; 2.00k subscriptions, 3 cohorts, 600 topics"
        );
        assert!(lines[2].contains("20.0k/s publications, 40.0M/s deliveries, 5.12 GiB/s out"), "{frame}");
        assert!(lines[2].ends_with("45.20 publications a send"), "{frame}");
        assert!(lines[4].contains("98 % CPU, 34.0 MiB resident; publish to send p50 250 µs p99 -"), "{frame}");
        let tape = "tape       holds at least 4.27 s at this rate; 48.0 MiB of 64.0 MiB (75 %), reaches back 3.20 s";
        assert_eq!(lines[5], tape);
        assert!(lines[6].contains("lag at most 12.3k publications"), "{frame}");
        assert_eq!(lines[8], "");
        assert!(lines[9].starts_with("CONN  ADDRESS         WORKER  CONNECTED  BEHIND▼"), "{frame}");
        assert!(lines[10].starts_with("2-1   192.0.2.7:5555       0       0 µs   2.50 s  2.44 MiB"), "{frame}");
        assert!(lines[10].ends_with("1.23 ms  all   q.> t.a and 7 more"), "{frame}");
        assert!(lines[11].starts_with("1-2a") && lines[11].ends_with("-  all   q.> t.a"), "{frame}");
        assert_eq!(lines.len(), 12);
    }

    #[test]
    fn one_is_not_called_many() {
        let mut view = view();
        let of_one = Figures {
            connections_max: 1.0,
            websockets: 1.0,
            subscriptions: 1.0,
            cohorts: 1.0,
            topics: 1.0,
            behind: 1.0,
            lag_max: 1.0,
            ..Figures::default()
        };
        view.take(of_one, Ok(SlowList::default()));
        let frame = view.plain();
        assert!(frame.contains("0 of 1 connection, 1 WebSocket; 1 subscription, 1 cohort, 1 topic\n"), "{frame}");
        assert!(frame.contains("1 with a cursor of its own, lag at most 1 publication,"), "{frame}");
    }

    #[test]
    fn a_frame_fits_the_terminal() {
        let view = view();
        for (columns, height) in [(80, 24), (20, 3), (1, 1), (0, 0)] {
            let lines = view.lines(columns, height);
            assert!(lines.len() <= height && lines.iter().all(|line| line.text.chars().count() <= columns));
        }
        assert_eq!(view.lines(200, 50).iter().filter(|line| line.style == Style::Heading).count(), 1);
    }

    #[test]
    fn what_cannot_be_shown_says_why() {
        let mut view = View::new("http://a:1".into(), Order::by(Column::Lag));
        assert!(view.plain().contains("connecting"));
        view.fail("http://a:1/metrics: connection refused".into());
        assert_eq!(view.lines(80, 24)[1].style, Style::Alarm);
        view.take(Figures::default(), Err("401: a token is needed".into()));
        assert!(view.plain().contains("slow subscribers: 401: a token is needed"));
        assert!(!view.plain().contains("connection refused"));
        view.take(Figures::default(), Ok(SlowList::default()));
        assert!(view.plain().contains("no slow subscribers"));
    }

    #[test]
    fn what_a_server_says_does_not_move_the_cursor() {
        assert_eq!(fitted("a\x1b[2Jb\n", 80), "a\u{fffd}[2Jb\u{fffd}");
    }
}
