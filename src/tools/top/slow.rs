//! The list of those behind: its rows, its columns, and the order that it is shown in.

use std::{str::FromStr, time::Duration};

use serde::Deserialize;

use super::text;

/// `GET /debug/slow`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct SlowList {
    pub connections: Vec<Row>,
}

/// One subscriber. Fields that a server doesn't know are nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Row {
    pub conn: String,
    pub address: String,
    pub worker: u64,
    pub connected_s: u64,
    pub lag_bytes: u64,
    pub lag_ms: u64,
    pub skips: u64,
    pub pending_bytes: u64,
    pub tls_held_bytes: Option<u64>,
    pub unacked_bytes: Option<u64>,
    pub unsent_bytes: Option<u64>,
    pub kernel_bytes: Option<u64>,
    pub rtt_us: Option<u64>,
    pub subscriptions: Vec<String>,
    pub more: u64,
    pub mode: String,
}

impl SlowList {
    /// Reads the answer.
    ///
    /// # Errors
    /// It is not such an answer; the sentence says what is wrong.
    pub fn parse(json: &str) -> Result<SlowList, String> {
        serde_json::from_str(json).map_err(|error| format!("the list can't be read: {error}"))
    }
}

/// What is shown of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// What the server's log calls it.
    Conn,
    /// Its address.
    Address,
    /// Its worker.
    Worker,
    /// How long it has been there.
    Connected,
    /// The age of what it wasn't sent.
    Behind,
    /// The bytes from there to the newest publication.
    Lag,
    /// Publications left out for it.
    Skips,
    /// Answers that wait.
    Pending,
    /// Encrypted, and without room in its socket.
    Encrypted,
    /// Sent and not acknowledged.
    Unacked,
    /// Waiting in the kernel.
    Unsent,
    /// Memory of its socket.
    Kernel,
    /// Round trip.
    Rtt,
    /// How it is delivered to.
    Mode,
    /// What it is subscribed to.
    Subscriptions,
}

impl Column {
    /// As they are shown, from the left.
    pub(super) const ALL: [Column; 15] = [
        Column::Conn,
        Column::Address,
        Column::Worker,
        Column::Connected,
        Column::Behind,
        Column::Lag,
        Column::Skips,
        Column::Pending,
        Column::Encrypted,
        Column::Unacked,
        Column::Unsent,
        Column::Kernel,
        Column::Rtt,
        Column::Mode,
        Column::Subscriptions,
    ];

    /// Its heading, and its name for `--sort`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Column::Conn => "conn",
            Column::Address => "address",
            Column::Worker => "worker",
            Column::Connected => "connected",
            Column::Behind => "behind",
            Column::Lag => "lag",
            Column::Skips => "skips",
            Column::Pending => "pending",
            Column::Encrypted => "encrypted",
            Column::Unacked => "unacked",
            Column::Unsent => "unsent",
            Column::Kernel => "kernel",
            Column::Rtt => "rtt",
            Column::Mode => "mode",
            Column::Subscriptions => "subscriptions",
        }
    }

    /// Whether it is a number, to the right and with the greatest first.
    pub(super) fn is_number(self) -> bool {
        !matches!(self, Column::Conn | Column::Address | Column::Mode | Column::Subscriptions)
    }

    /// What a row has in it.
    pub(super) fn text(self, row: &Row) -> String {
        let size = |bytes: u64| text::bytes(bytes as f64);
        let known = |value: Option<u64>, show: &dyn Fn(u64) -> String| value.map_or_else(|| "-".into(), show);
        match self {
            Column::Conn => row.conn.clone(),
            Column::Address => row.address.clone(),
            Column::Worker => row.worker.to_string(),
            Column::Connected => text::span(Duration::from_secs(row.connected_s)),
            Column::Behind => text::span(Duration::from_millis(row.lag_ms)),
            Column::Lag => size(row.lag_bytes),
            Column::Skips => text::count(row.skips as f64),
            Column::Pending => size(row.pending_bytes),
            Column::Encrypted => known(row.tls_held_bytes, &size),
            Column::Unacked => known(row.unacked_bytes, &size),
            Column::Unsent => known(row.unsent_bytes, &size),
            Column::Kernel => known(row.kernel_bytes, &size),
            Column::Rtt => known(row.rtt_us, &|us| text::span(Duration::from_micros(us))),
            Column::Mode => row.mode.clone(),
            Column::Subscriptions if row.more > 0 => format!("{} and {} more", row.subscriptions.join(" "), row.more),
            Column::Subscriptions => row.subscriptions.join(" "),
        }
    }

    /// What rows are ordered by: numbers, and where they are the same, words.
    fn key(self, row: &Row) -> (u64, String) {
        match self {
            Column::Conn | Column::Address | Column::Mode => (0, self.text(row)),
            Column::Subscriptions => (row.subscriptions.len() as u64 + row.more, self.text(row)),
            Column::Worker => (row.worker, String::new()),
            Column::Connected => (row.connected_s, String::new()),
            Column::Behind => (row.lag_ms, String::new()),
            Column::Lag => (row.lag_bytes, String::new()),
            Column::Skips => (row.skips, String::new()),
            Column::Pending => (row.pending_bytes, String::new()),
            Column::Encrypted => (row.tls_held_bytes.unwrap_or_default(), String::new()),
            Column::Unacked => (row.unacked_bytes.unwrap_or_default(), String::new()),
            Column::Unsent => (row.unsent_bytes.unwrap_or_default(), String::new()),
            Column::Kernel => (row.kernel_bytes.unwrap_or_default(), String::new()),
            Column::Rtt => (row.rtt_us.unwrap_or_default(), String::new()),
        }
    }
}

impl FromStr for Column {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Column::ALL.map(Column::name).join(", ");
        let found = Column::ALL.into_iter().find(|column| column.name() == text);
        found.ok_or_else(|| format!("expected one of {names}; found {text:?}"))
    }
}

/// What the list is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub column: Column,
    pub is_reversed: bool,
}

impl Order {
    /// Numbers with the greatest first, words with the first first.
    pub fn by(column: Column) -> Order {
        Order { column, is_reversed: false }
    }

    /// By the column to the right.
    pub fn next(&mut self) {
        self.step(1);
    }

    /// By the column to the left.
    pub fn previous(&mut self) {
        self.step(Column::ALL.len() - 1);
    }

    /// The other way round.
    pub fn reverse(&mut self) {
        self.is_reversed = !self.is_reversed;
    }

    fn step(&mut self, by: usize) {
        let at = Column::ALL.iter().position(|column| *column == self.column).unwrap_or(0);
        *self = Order::by(Column::ALL[(at + by) % Column::ALL.len()]);
    }

    /// Puts rows in order; those that are the same stay as they were, worst lag first.
    pub fn sort(self, rows: &mut [Row]) {
        let greatest_first = self.column.is_number() != self.is_reversed;
        rows.sort_by(|a, b| {
            let order = self.column.key(a).cmp(&self.column.key(b));
            if greatest_first { order.reverse() } else { order }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_by_any_column_either_way() {
        let row = |conn: &str, lag_ms, rtt_us| Row { conn: conn.into(), lag_ms, rtt_us, ..Row::default() };
        let mut rows = [row("b", 5, None), row("a", 9, Some(7)), row("c", 1, Some(900))];
        let mut order = Order::by(Column::Behind);
        let mut by = |order: Order| {
            order.sort(&mut rows);
            rows.iter().map(|row| row.conn.clone()).collect::<String>()
        };
        assert_eq!(by(order), "abc");
        order.reverse();
        assert_eq!(by(order), "cba");
        assert_eq!(by(Order::by("rtt".parse().unwrap())), "cab");
        assert_eq!(by(Order::by(Column::Conn)), "abc");
        order.next();
        assert_eq!(order, Order::by(Column::Lag));
        order.previous();
        assert_eq!(order, Order::by(Column::Behind));
        for _ in 0..Column::ALL.len() {
            order.previous();
        }
        assert_eq!(order.column, Column::Behind);
        assert!("speed".parse::<Column>().unwrap_err().contains("behind, lag"));
    }

    #[test]
    fn a_list_with_fields_more_or_fewer_is_read() {
        let list = SlowList::parse(r#"{"ts":1,"connections":[{"conn":"1-2","rtt_us":null,"colour":"red"}]}"#).unwrap();
        assert_eq!((list.connections[0].conn.as_str(), list.connections[0].rtt_us), ("1-2", None));
        assert!(SlowList::parse("[]").unwrap_err().contains("can't be read"));
    }
}
