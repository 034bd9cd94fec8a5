//! `stentor sub`: prints what is published.

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, IsTerminal, Stdout, StdoutLock, Write},
    time::{Duration, Instant},
};

use clap::Args;
use crossterm::{
    cursor::{Hide, MoveTo, Show},
    execute, queue,
    terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen},
};
use stentor_client::{Event, From, How, Mode, Update};

use super::{
    Connect, Failure, Next, Session,
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
    fn show(&mut self) -> io::Result<()> {
        match self {
            Output::Lines { out, .. } => out.flush(),
            Output::Table(table) => table.draw(),
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
                output.show()?;
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
    output.show()?;
    drop(output);
    session.client.close();
    match (left, options.count) {
        (Some(left @ 1..), Some(count)) => Err(Failure::TooFew(format!("{} of {count} came", count - left))),
        _ => Ok(()),
    }
}

/// Rows of a table; of more topics the first by name are shown.
const ROWS_MAX: usize = 10_000;

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
        execute!(out, EnterAlternateScreen, Hide)?;
        Ok(Table { out, rows: BTreeMap::new(), drawn: None })
    }

    fn put(&mut self, update: &Update) {
        if self.rows.len() >= ROWS_MAX && !self.rows.contains_key(&update.topic) {
            return;
        }
        let mut data = String::new();
        line::json(update.raw(), true, &mut data);
        let row = Row { seq: update.seq, since: Instant::now(), data };
        self.rows.insert(update.topic.clone(), row);
    }

    fn draw(&mut self) -> io::Result<()> {
        if self.drawn.is_some_and(|drawn| drawn.elapsed() < Table::EVERY) {
            return Ok(());
        }
        self.drawn = Some(Instant::now());
        let (width, height) = terminal::size()?;
        let (width, height) = (usize::from(width), usize::from(height));
        let name = self.rows.keys().map(String::len).max().unwrap_or(0).clamp(5, 40);
        queue!(self.out, MoveTo(0, 0))?;
        let head =
            format!("{:name$} {:>10} {:>5}  data   ({} topics, Ctrl-C ends)", "topic", "seq", "age", self.rows.len());
        let rows = self.rows.iter().take(height.saturating_sub(1)).map(|(topic, row)| {
            format!("{topic:name$} {:>10} {:>4}s  {}", row.seq, row.since.elapsed().as_secs(), row.data)
        });
        for (nth, text) in std::iter::once(head).chain(rows).enumerate() {
            if nth > 0 {
                self.out.write_all(b"\r\n")?;
            }
            let text: String = text.chars().take(width).collect();
            self.out.write_all(text.as_bytes())?;
            queue!(self.out, Clear(ClearType::UntilNewLine))?;
        }
        queue!(self.out, Clear(ClearType::FromCursorDown))?;
        self.out.flush()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let _ = execute!(self.out, LeaveAlternateScreen, Show);
    }
}
