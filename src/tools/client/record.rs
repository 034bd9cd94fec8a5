//! `stentor record`: writes a feed as a recording, which `--replay` reads.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, BufWriter, IsTerminal, StdoutLock, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use flate2::{Compression, write::GzEncoder};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use stentor_client::{Event, How, Update};

use super::{Connect, Failure, Next, Session, hinted, line, split_url};
use crate::config::Span;

/// How often what was written reaches the file: who is killed loses no more.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// What `stentor record` is told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The server [default: ws://127.0.0.1:9001/ws], and names of topics, or patterns
    #[arg(value_name = "[URL] NAME", required = true)]
    pub names: Vec<String>,

    /// The recording: a name that ends in .gz or .zst is compressed so; - for standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,

    /// Write over a file that is there
    #[arg(long)]
    pub overwrite: bool,

    /// Begin with the last values, though they were published earlier
    #[arg(long)]
    pub snapshot: bool,

    /// End after so many publications, with code 4 if the time was over before
    #[arg(long, value_name = "COUNT")]
    pub count: Option<u64>,

    /// End after this time
    #[arg(long = "for", value_name = "DURATION")]
    pub time: Option<Span>,

    /// How to reach the server.
    #[command(flatten)]
    pub connect: Connect,
}

/// The file, packed as its name says; or standard output.
enum Packed {
    Standard(BufWriter<StdoutLock<'static>>),
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
    Zstd(zstd::Encoder<'static, BufWriter<File>>),
}

impl Packed {
    fn create(path: &Path, overwrite: bool) -> io::Result<Packed> {
        if is_standard(path) {
            return Ok(Packed::Standard(BufWriter::with_capacity(64 << 10, io::stdout().lock())));
        }
        let mut options = OpenOptions::new();
        let options = if overwrite { options.create(true).truncate(true) } else { options.create_new(true) };
        let file = BufWriter::new(options.write(true).open(path)?);
        Ok(match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Packed::Gzip(GzEncoder::new(file, Compression::default())),
            Some("zst") => Packed::Zstd(zstd::Encoder::new(file, 0)?),
            _ => Packed::Plain(file),
        })
    }

    fn finish(self) -> io::Result<()> {
        let file = match self {
            Packed::Standard(mut out) => return out.flush(),
            Packed::Plain(file) => file,
            Packed::Gzip(encoder) => encoder.finish()?,
            Packed::Zstd(encoder) => encoder.finish()?,
        };
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }

    fn out(&mut self) -> &mut dyn Write {
        match self {
            Packed::Standard(out) => out,
            Packed::Plain(file) => file,
            Packed::Gzip(encoder) => encoder,
            Packed::Zstd(encoder) => encoder,
        }
    }

    /// Nothing more has come for the moment: who reads what is written is given what there is. A file has it soon enough.
    fn show(&mut self) -> io::Result<()> {
        if let Packed::Standard(out) = self { out.flush() } else { Ok(()) }
    }
}

/// Whether a recording goes to standard output.
fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// What was written.
#[derive(Default)]
struct Written {
    publications: u64,
    gaps: u64,
    bytes: u64,
    line: String,
    /// Of the last publication, in nanoseconds: a gap stands where it was noticed.
    ts_ns: u64,
    /// It is shown on a terminal.
    terminal: bool,
}

impl Written {
    fn publication(&mut self, update: &Update, out: &mut dyn Write) -> io::Result<()> {
        self.ts_ns = update.ts.saturating_mul(1000);
        self.begin(&update.topic, &update.epoch);
        let _ = write!(self.line, r#","seq":{}"#, update.seq);
        match update.is_binary {
            true => _ = write!(self.line, r#","base64":{}"#, Value::from(update.raw())),
            false => {
                self.line.push_str(r#","data":"#);
                line::json(update.raw(), self.terminal, &mut self.line);
            }
        }
        self.publications += 1;
        self.end(out)
    }

    /// Publications that are missing: so many, or nobody knows how many.
    fn gap(&mut self, topic: &str, epoch: &str, which: Option<(u64, u64)>, out: &mut dyn Write) -> io::Result<()> {
        self.begin(topic, epoch);
        match which {
            Some((first, last)) => _ = write!(self.line, r#","gap":{{"from":{first},"to":{last}}}"#),
            None => self.line.push_str(r#","gap":{}"#),
        }
        self.gaps += 1;
        self.end(out)
    }

    fn begin(&mut self, topic: &str, epoch: &str) {
        self.line.clear();
        let _ = write!(self.line, r#"{{"ts_ns":{},"topic":{}"#, self.ts_ns, Value::from(topic));
        if !epoch.is_empty() {
            let _ = write!(self.line, r#","epoch":{}"#, Value::from(epoch));
        }
    }

    fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.line.push_str("}\n");
        self.bytes += self.line.len() as u64;
        out.write_all(self.line.as_bytes())
    }

    fn told(&self) -> String {
        let gaps = if self.gaps == 0 { String::new() } else { format!(", {} gaps", HumanCount(self.gaps)) };
        format!("{} publications{gaps}, {}", HumanCount(self.publications), HumanBytes(self.bytes))
    }
}

/// Records until it has what was asked for, or is asked to end.
///
/// # Errors
/// See the module above.
pub fn run(options: &Options) -> Result<(), Failure> {
    let (url, names) = split_url(&options.names);
    hinted(to_its_end(options, url, names), url, names)
}

fn to_its_end(options: &Options, url: Option<&str>, names: &[String]) -> Result<(), Failure> {
    if names.is_empty() {
        return Err(Failure::Usage("expected names of topics behind the address, such as q.demo.* or >".into()));
    }
    let is_standard = is_standard(&options.output);
    let file = |error: io::Error| {
        if is_standard {
            return Failure::Output(error);
        }
        let hint = match error.kind() {
            _ if options.output.is_dir() => ": expected a file, found a folder",
            io::ErrorKind::AlreadyExists => ": there is such a file (--overwrite writes over it)",
            _ => return Failure::Usage(format!("-o {}: {error}", options.output.display())),
        };
        Failure::Usage(format!("-o {}{hint}", options.output.display()))
    };
    let mut session = Session::open(url, &options.connect, "record")?;
    let how = How { snapshot: options.snapshot, ..How::default() };
    session.client.subscribe(names.to_vec(), how);
    // Only who has a server has a recording.
    if let Next::Interrupted = session.greeted(None)? {
        return Ok(());
    }
    let mut packed = Packed::create(&options.output, options.overwrite).map_err(file)?;
    let terminal = is_standard && io::stdout().is_terminal();
    let bar = if terminal { ProgressBar::hidden() } else { progress() };
    let mut written = Written { ts_ns: now_ns(), terminal, ..Written::default() };
    let outcome = record(options, &mut session, &mut packed, &mut written, &bar);
    bar.finish_and_clear();
    // What there is stays good, whatever ended it.
    packed.finish().map_err(file)?;
    let whither = if is_standard { "standard output".into() } else { options.output.display().to_string() };
    session.say(&format!("{whither}: {}", written.told()));
    session.client.close();
    outcome?;
    match options.count {
        Some(count) if written.publications < count => {
            Err(Failure::TooFew(format!("{} of {count} came", written.publications)))
        }
        _ => Ok(()),
    }
}

fn record(
    options: &Options,
    session: &mut Session,
    packed: &mut Packed,
    written: &mut Written,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let file = |error: io::Error| match is_standard(&options.output) {
        true => Failure::Output(error),
        false => Failure::Unreachable(format!("-o {}: {error}", options.output.display())),
    };
    let until = options.time.map(|time| Instant::now() + time.get());
    let mut flushed = Instant::now();
    while options.count.is_none_or(|count| written.publications < count) {
        if flushed.elapsed() > FLUSH_EVERY {
            flushed = Instant::now();
            packed.out().flush().map_err(file)?;
            bar.set_message(written.told());
        }
        // What has come already is taken first.
        let next = match session.next(Some(Instant::now()))? {
            Next::Nothing => {
                packed.show().map_err(file)?;
                let soon = Instant::now() + FLUSH_EVERY;
                session.next(Some(until.map_or(soon, |until| until.min(soon))))?
            }
            next => next,
        };
        match next {
            Next::Event(Event::Update(update)) if update.is_snapshot && !options.snapshot => {}
            Next::Event(Event::Update(update)) => written.publication(&update, packed.out()).map_err(file)?,
            Next::Event(Event::Gap(gap)) => {
                session.gap(&gap);
                let which = Some((gap.first, gap.last));
                written.gap(&gap.topic, &gap.epoch, which, packed.out()).map_err(file)?;
            }
            Next::Event(Event::Reset(reset)) => {
                session.reset(&reset);
                written.gap(&reset.topic, &reset.epoch, None, packed.out()).map_err(file)?;
            }
            Next::Event(_) | Next::Nothing => {}
            Next::Interrupted => break,
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
    }
    Ok(())
}

fn now_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("record {spinner} {msg}  {elapsed}").expect("the template is fixed");
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
    bar.enable_steady_tick(Duration::from_millis(250));
    bar.with_style(style)
}
