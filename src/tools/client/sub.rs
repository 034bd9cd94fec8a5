//! `stentor sub`: prints what is published.

use std::{
    collections::BTreeMap,
    fmt::Display,
    io::{self, BufWriter, IsTerminal, Stdout, StdoutLock, Write},
    time::{Duration, Instant},
};

use clap::Args;
use crossterm::{
    cursor::{Hide, MoveTo, Show},
    execute, queue,
    terminal::{self, Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen},
};
use stentor_client::{Client, Event, From, How, Mode, Update};

use super::{
    Connect, Failure, Next, Session, hinted,
    line::{self, Format},
    split_url,
};
use crate::config::Span;

/// What `stentor sub` is told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The server (ws://, wss://, http://, https://) [default: ws://127.0.0.1:9001/ws], and names of topics, or patterns
    #[arg(value_name = "[URL] NAME", required = true)]
    pub names: Vec<String>,

    /// Which publications: each of them (all), or the newest (latest)
    #[arg(long, value_name = "MODE", default_value = "all", value_parser = mode)]
    pub mode: Mode,

    /// At most so many a second of each topic; so the newest
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub rate: Option<f64>,

    /// Begin there: a cursor, or TOPIC=EPOCH:SEQ (several of these)
    #[arg(long, value_name = "PLACE")]
    pub from: Vec<String>,

    /// Without the last values at the beginning
    #[arg(long)]
    pub no_snapshot: bool,

    /// End after so many publications, with code 4 if the time was over before
    #[arg(long, value_name = "COUNT")]
    pub count: Option<u64>,

    /// End after this time
    #[arg(long = "for", value_name = "DURATION")]
    pub time: Option<Span>,

    /// How each is printed: text with {topic}, {seq}, {ts}, {epoch}, {data} in it [default: a JSON object a line]
    #[arg(long, value_name = "TEXT", conflicts_with = "watch")]
    pub format: Option<Format>,

    /// A table of the last values, live on the terminal
    #[arg(long)]
    pub watch: bool,

    /// Say nothing of gaps, resets and the connection
    #[arg(long, short)]
    pub quiet: bool,

    /// How to reach the server.
    #[command(flatten)]
    pub connect: Connect,
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "all" => Ok(Mode::All),
        "latest" => Ok(Mode::Latest),
        _ => Err("expected all or latest".into()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "expected a number, such as 4 or 0.5".to_owned())?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("expected more than 0".into()) }
}

/// Where to begin, as the flags say.
fn start(places: &[String]) -> Result<Option<From>, Failure> {
    let wrong = |place: &str| Failure::Usage(format!("--from: expected one cursor, or TOPIC=EPOCH:SEQ; found {place}"));
    match places {
        [] => Ok(None),
        [cursor] if !cursor.contains('=') => Ok(Some(From::Cursor(cursor.clone()))),
        points => {
            let point = |place: &String| {
                let (topic, point) = place.split_once('=')?;
                let (epoch, seq) = point.split_once(':')?;
                Some((topic.to_owned(), (epoch.to_owned(), seq.parse().ok()?)))
            };
            let points = points.iter().map(|place| point(place).ok_or_else(|| wrong(place)));
            Ok(Some(From::Points(points.collect::<Result<_, _>>()?)))
        }
    }
}

/// Where publications go.
enum Output {
    Lines { out: BufWriter<StdoutLock<'static>>, format: Option<Format>, terminal: bool, line: String },
    Table(Table),
}

impl Output {
    fn write(&mut self, update: &Update) -> io::Result<()> {
        match self {
            Output::Lines { out, format, terminal, line } => {
                line.clear();
                match format {
                    Some(format) => format.write(update, *terminal, line),
                    None => line::ndjson(update, *terminal, line),
                }
                out.write_all(line.as_bytes())
            }
            Output::Table(table) => {
                table.put(update);
                Ok(())
            }
        }
    }

    /// Nothing else has come, or much has: what there is is shown.
    fn show(&mut self, client: &Client) -> io::Result<()> {
        match self {
            Output::Lines { out, .. } => out.flush(),
            Output::Table(table) => table.draw(if client.is_open() { "" } else { client.trouble() }),
        }
    }

    fn forget(&mut self, topic: &str) {
        if let Output::Table(table) = self {
            table.rows.remove(topic);
        }
    }
}

/// Runs until it has what was asked for, or is asked to end.
///
/// # Errors
/// See the module above.
pub fn run(options: &Options) -> Result<(), Failure> {
    let (url, names) = split_url(&options.names);
    hinted(print(options, url, names), url, names)
}

fn print(options: &Options, url: Option<&str>, names: &[String]) -> Result<(), Failure> {
    if names.is_empty() {
        return Err(Failure::Usage("expected names of topics behind the address, such as q.demo.* or >".into()));
    }
    let mode = if options.rate.is_some() { Mode::Latest } else { options.mode };
    let how = How { mode, rate: options.rate, snapshot: !options.no_snapshot, from: start(&options.from)? };
    let mut session = Session::open(url, &options.connect, "sub")?;
    session.is_quiet = options.quiet || options.watch;
    session.client.subscribe(names.to_vec(), how);
    let terminal = io::stdout().is_terminal();
    let mut output = match options.watch {
        true if !terminal => return Err(Failure::Usage("--watch: expected a terminal to draw on".into())),
        true => Output::Table(Table::open()?),
        false => {
            let out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
            Output::Lines { out, format: options.format.clone(), terminal, line: String::new() }
        }
    };
    let until = options.time.map(|time| Instant::now() + time.get());
    let mut left = options.count;
    while left != Some(0) {
        // What has come already is taken first, and shown when there is no more for the moment.
        let next = match session.next(Some(Instant::now()))? {
            Next::Nothing => {
                output.show(&session.client)?;
                let soon = Instant::now() + Duration::from_millis(250);
                session.next(Some(until.map_or(soon, |until| until.min(soon))))?
            }
            next => next,
        };
        match next {
            Next::Event(Event::Update(update)) => {
                output.write(&update)?;
                left = left.map(|left| left - 1);
            }
            Next::Event(Event::Gap(gap)) => session.gap(&gap),
            Next::Event(Event::Reset(reset)) => {
                session.reset(&reset);
                output.forget(&reset.topic);
            }
            Next::Event(_) | Next::Nothing => {}
            Next::Interrupted => break,
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
    }
    output.show(&session.client)?;
    drop(output);
    session.client.close();
    match (left, options.count) {
        (Some(left @ 1..), Some(count)) => Err(Failure::TooFew(format!("{} of {count} came", count - left))),
        _ => Ok(()),
    }
}

/// Topics that a table remembers; of more the first that came.
const TOPICS_MAX: usize = 10_000;

/// Last values on a terminal, of which it has another screen until it is dropped.
struct Table {
    out: Stdout,
    rows: BTreeMap<String, Row>,
    drawn: Option<Instant>,
}

struct Row {
    seq: u64,
    since: Instant,
    data: String,
}

impl Table {
    /// Between two frames.
    const EVERY: Duration = Duration::from_millis(200);

    fn open() -> io::Result<Table> {
        let mut out = io::stdout();
        // What is wider than it has letters, such as Chinese, is cut by the terminal rather than taken to the next line.
        execute!(out, EnterAlternateScreen, Hide, DisableLineWrap)?;
        Ok(Table { out, rows: BTreeMap::new(), drawn: None })
    }

    fn put(&mut self, update: &Update) {
        if self.rows.len() >= TOPICS_MAX && !self.rows.contains_key(&update.topic) {
            return;
        }
        let mut data = String::new();
        line::json(update.raw(), true, &mut data);
        let row = Row { seq: update.seq, since: Instant::now(), data };
        self.rows.insert(update.topic.clone(), row);
    }

    /// Draws it, unless it has just been; with what keeps more from coming, if something does.
    fn draw(&mut self, trouble: &str) -> io::Result<()> {
        if self.drawn.is_some_and(|drawn| drawn.elapsed() < Table::EVERY) {
            return Ok(());
        }
        self.drawn = Some(Instant::now());
        let (width, height) = terminal::size()?;
        queue!(self.out, MoveTo(0, 0))?;
        for (nth, text) in lines(&self.rows, trouble, width.into(), height.into()).into_iter().enumerate() {
            if nth > 0 {
                self.out.write_all(b"\r\n")?;
            }
            self.out.write_all(text.as_bytes())?;
            queue!(self.out, Clear(ClearType::UntilNewLine))?;
        }
        queue!(self.out, Clear(ClearType::FromCursorDown))?;
        self.out.flush()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let _ = execute!(self.out, EnableLineWrap, LeaveAlternateScreen, Show);
    }
}

/// A table on a screen of this size: what it is of, then a line for each topic that has room, by name. Where there is little room in a line, values come before numbers and ages.
fn lines(rows: &BTreeMap<String, Row>, trouble: &str, width: usize, height: usize) -> Vec<String> {
    let there = height.saturating_sub(1).min(rows.len());
    let head = match (trouble, rows.len()) {
        ("", all) if there < all => format!("{there} of {all} topics, Ctrl-C ends"),
        ("", all) => format!("{all} topics, Ctrl-C ends"),
        (trouble, _) => format!("no connection: {}", line::escaped(trouble)),
    };
    // A third of a line for names; numbers and ages where the values keep thirty letters.
    let names: Vec<String> = rows.keys().take(there).map(|topic| line::escaped(topic)).collect();
    let longest = names.iter().map(|name| name.chars().count()).max();
    let name = longest.unwrap_or(0).clamp(5, (width / 3).clamp(5, 40));
    let has_numbers = width >= name + 19 + 30;
    let row = |topic: &str, seq: &dyn Display, age: &dyn Display, data: &str| {
        let letters = topic.chars().count();
        let topic = match letters > name {
            // The end of a name says more than its beginning.
            true => format!("…{}", topic.chars().skip(letters - (name - 1)).collect::<String>()),
            false => topic.to_owned(),
        };
        if has_numbers { format!("{topic:name$} {seq:>10} {age:>5}  {data}") } else { format!("{topic:name$} {data}") }
    };
    let mut lines = vec![row("topic", &"seq", &"age", &head)];
    lines.extend(
        names
            .iter()
            .zip(rows.values())
            .map(|(topic, Row { seq, since, data })| row(topic, seq, &format!("{}s", since.elapsed().as_secs()), data)),
    );
    for line in &mut lines {
        if let Some((end, _)) = line.char_indices().nth(width) {
            line.truncate(end);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(topics: impl IntoIterator<Item = String>) -> BTreeMap<String, Row> {
        topics
            .into_iter()
            .map(|topic| (topic, Row { seq: 7, since: Instant::now(), data: "{\"px\":1.50}".into() }))
            .collect()
    }

    #[test]
    fn a_narrow_table_shows_values_rather_than_numbers() {
        let rows = rows(["q.demo.AAPL".to_owned(), "a.name.that.is.longer.than.it.has.room.here".to_owned()]);
        let narrow = lines(&rows, "", 24, 9);
        assert_eq!(narrow, ["topic    2 topics, Ctrl-", "…om.here {\"px\":1.50}", "…mo.AAPL {\"px\":1.50}"]);
        let wide = lines(&rows, "", 100, 9);
        assert!(wide[0].ends_with("age  2 topics, Ctrl-C ends"), "{wide:?}");
        assert!(wide[2].starts_with("q.demo.AAPL ") && wide[2].contains("         7    0s  {"), "{wide:?}");
    }

    #[test]
    fn a_table_says_what_it_has_no_room_for() {
        let rows = rows((0..300).map(|nth| format!("t.{nth}")));
        let shown = lines(&rows, "", 80, 24);
        assert_eq!(shown.len(), 24);
        assert!(shown[0].ends_with("23 of 300 topics, Ctrl-C ends"), "{shown:?}");
        for (width, height) in [(0, 0), (1, 1), (3, 2), (10, 3)] {
            let shown = lines(&rows, "", width, height);
            assert!(
                shown.len() <= height.max(1) && shown.iter().all(|line| line.chars().count() <= width),
                "{shown:?}"
            );
        }
    }

    #[test]
    fn names_that_somebody_elses_server_has_made_are_cut_between_letters_and_say_nothing_to_the_terminal() {
        let rows = rows(["ü".repeat(30), "q.\x1b[2J".to_owned()]);
        let narrow = lines(&rows, "", 24, 9);
        assert_eq!(narrow, ["topic    2 topics, Ctrl-", r#"…{1b}[2J {"px":1.50}"#, r#"…üüüüüüü {"px":1.50}"#]);
        let wide = lines(&rows, "", 120, 9);
        assert!(
            wide[1].starts_with(r"q.\u{1b}[2J ") && wide[2].starts_with(&format!("{} ", "ü".repeat(30))),
            "{wide:?}"
        );
    }

    #[test]
    fn a_table_that_gets_nothing_more_says_why() {
        let shown = lines(&rows(["a".to_owned()]), "ws://h/ws: it was cut\x1b[2J", 80, 24);
        assert!(shown[0].ends_with(r"no connection: ws://h/ws: it was cut\u{1b}[2J"), "{shown:?}");
    }
}
