//! A recorded feed, published again.
//!
//! A line of the recording is one of these:
//!
//! ```text
//!   {"ts_ns":…,"topic":…,"data":…}                      a JSON value, published byte for byte
//!   {"ts_ns":…,"topic":…,"text":"…"}                    text, whatever it looks like
//!   {"ts_ns":…,"topic":…,"base64":"…"}                  bytes
//!   {"ts_ns":…,"topic":…,"gap":{"from":5,"to":9}}       5 to 9 are missing from the recording; `{}`: it is not known how many are
//! ```
//!
//! Other fields are passed over, among them the `seq` and `epoch` that a publication had where it was recorded: here it is given
//! numbers of the server's own, whatever else is published on its topic, and however often the recording goes round.
//!
//! A publication is due at its own timestamp's distance from the first one, divided by the speed, counted from
//! the moment of the start: deadlines are absolute, so nothing drifts, and what was late once does not delay what follows.
//! What is due at the same moment goes out in one batch. A timestamp that goes backwards is sent at once and counted. A gap longer than
//! `--max-gap` is cut to that.
//!
//! What would be a larger message than `--max-replay-message`, with the envelope around it, is left out: it takes its number, counted
//! and logged, and subscribers are told; and so is data that is nested more deeply than readers take. What clients may publish has
//! nothing to do with it: full order books of real sessions are larger than what a client of one's own would be allowed.
//!
//! A gap is told to subscribers in the same way, and takes one number however wide it is. That is what they have to know: what they
//! keep of the topic is no longer good. As many numbers as are missing would let one line roll over the whole tape, and be right only
//! as long as nobody else publishes on the topic; how many they were stands in the recording.
//!
//! A bad line is skipped and counted, never fatal, and nothing else is lost by it; the first few are logged with their
//! number and what was wrong. Of a recording that is cut off or damaged what comes before is published, again and again with `--loop`; the
//! log says once where it breaks off. Memory is bounded: one read buffer, one line, one batch, and the set of topics counted.
//!
//! Cost: reading, decompressing and parsing one line, some microseconds; `--speed max` is bound by that.

use std::{
    borrow::Cow,
    collections::HashSet,
    fmt,
    hash::BuildHasher,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use crossbeam_channel::Receiver;
use rustc_hash::FxBuildHasher;

use super::{
    Gathered, Sink, Wait,
    lines::{Line, Lines},
    schedule::Schedule,
    wait, wait_for_room,
};
use crate::{
    config::{Config, Speed},
    metrics::Skipped,
    protocol::{
        DEPTH_MAX, Json, Payload,
        envelope::{AROUND_MAX, value_len},
        name::Topic,
        ndjson::{self, LineError, Value},
        object::{Fields, ObjectError, kind, shown},
    },
};

/// How a recording is replayed.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `--speed`.
    pub speed: Speed,
    /// `--loop`: begin again at the end.
    pub repeat: bool,
    /// `--replay-delay`: wait before the first publication.
    pub delay: Duration,
    /// `--max-gap`: gaps of the recording that are longer are cut to this; zero for any.
    pub gap_max: Duration,
    /// `--max-replay-message`: largest message that a line may become, in bytes, with all that is around the payload.
    pub message_max: usize,
    /// `--max-topic-length`, in bytes.
    pub topic_length_max: usize,
}

impl Options {
    /// The options among the server's settings.
    pub fn of(config: &Config) -> Self {
        Options {
            speed: config.speed,
            repeat: config.replay_loop,
            delay: config.replay_delay.get(),
            gap_max: config.max_gap.get(),
            message_max: usize::try_from(config.max_replay_message.as_u64()).unwrap_or(usize::MAX),
            topic_length_max: config.max_topic_length,
        }
    }

    /// Longest line: the payload, the topic, and room for the fields around them.
    fn line_max(&self) -> usize {
        const REST: usize = 1024; // "ts_ns" and its number are 30 bytes; the rest is for fields that we pass over
        self.message_max.saturating_add(self.topic_length_max).saturating_add(REST)
    }

    /// What is said of a payload that makes a larger message than may be.
    fn too_large(&self, topic: &str, len: usize) -> String {
        let most = ByteSize::b(self.message_max as u64);
        format!("left out of {topic}: data of {len} bytes makes a message larger than --max-replay-message {most}")
    }

    /// What is said of a line that is not even looked at.
    fn too_long(&self, len: u64, whose: &str) -> String {
        let most = ByteSize::b(self.message_max as u64);
        format!(
            "left out of {whose}: a line of {len} bytes is more than makes a message of --max-replay-message {most}"
        )
    }

    /// Whether a payload makes a larger message than may be, with what is around it.
    fn is_too_large(&self, topic: &str, len: usize) -> bool {
        len.saturating_add(topic.len()).saturating_add(AROUND_MAX) > self.message_max
    }
}

/// A recording that could not be read; one line for the operator.
#[derive(Debug)]
pub struct ReplayError {
    path: PathBuf,
    cause: io::Error,
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--replay {}: expected a readable file, plain, gzip or zstd: {}", self.path.display(), self.cause)
    }
}

impl std::error::Error for ReplayError {}

/// A recording, opened and ready to run.
pub struct Replay {
    path: PathBuf,
    options: Options,
    lines: Lines,
    gathered: Gathered,
    /// When the first of what is gathered was due.
    gathered_due: Option<Instant>,
    topics: Topics,
    summary: Summary,
    progress: Progress,
}

/// Who is told, now and then, how many of the file's bytes were taken, and how many it has (0 where that is not known). Dropped
/// when the replay ends.
#[derive(Default)]
pub(crate) struct Progress(pub Option<Box<dyn FnMut(u64, u64) + Send>>);

impl Progress {
    fn tell(&mut self, taken: u64, of: u64) {
        if let Some(tell) = &mut self.0 {
            tell(taken, of);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Progress").field(&self.0.is_some()).finish()
    }
}

/// What a replay did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Publications taken by the server.
    pub publications: u64,
    /// Their payloads' bytes.
    pub bytes: u64,
    /// Different topics, counted up to [`TOPICS_MAX`].
    pub topics: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// Lines that were no publication.
    pub skipped: u64,
    /// Lines that would have been larger messages than `--max-replay-message`.
    pub too_large: u64,
    /// Lines with data that is nested too deeply.
    pub too_deep: u64,
    /// Lines that say that publications are missing.
    pub gaps: u64,
    /// Publications that the server refused.
    pub refused: u64,
    /// Publications whose timestamp was before an earlier one's.
    pub backwards: u64,
    /// Gaps that were cut to `--max-gap`.
    pub cut_gaps: u64,
    /// How late the latest batch went out; zero with `--speed max`, where nothing is ever due.
    pub late_max: Duration,
    /// Whether the file was damaged on the way.
    pub broken: bool,
}

/// More topics than this are not told apart, which bounds the memory for counting them: 64 Ki of 8 bytes each.
pub const TOPICS_MAX: usize = 1 << 16;

/// So many bad lines are logged in full; the summary has the count of all.
const LOGGED_MAX: u64 = 10;

/// A pause of this length is either real, as over a night, or a damaged timestamp: whoever waits should know.
const LONG_WAIT: Duration = Duration::from_secs(600);

/// How a pass over the file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    End,
    Stopped,
}

impl Replay {
    /// Opens the recording, so that a file that cannot be read is found before the server starts.
    ///
    /// # Errors
    /// It cannot be opened or read, begins like gzip or zstd and isn't, or is packed otherwise.
    pub fn open(path: &Path, options: Options) -> Result<Replay, ReplayError> {
        let lines =
            Lines::open(path, options.line_max()).map_err(|cause| ReplayError { path: path.to_owned(), cause })?;
        Ok(Replay {
            path: path.to_owned(),
            options,
            lines,
            gathered: Gathered::new(),
            gathered_due: None,
            topics: Topics::default(),
            summary: Summary::default(),
            progress: Progress::default(),
        })
    }

    /// Tells `progress` how far it has come.
    pub(crate) fn telling(self, progress: Progress) -> Replay {
        Replay { progress, ..self }
    }

    /// Publishes the recording, until it ends or `stop` is told or dropped; logs a summary, and returns it.
    pub fn run(mut self, mut sink: impl Sink, stop: &Receiver<()>) -> Summary {
        if wait(stop, Instant::now() + self.options.delay) == Wait::Stop {
            return self.summary;
        }
        let started = Instant::now();
        self.progress.tell(0, self.lines.file_len());
        let mut schedule = Schedule::new(self.options.speed, self.options.gap_max, started);
        loop {
            let before = self.summary.publications;
            let passed = self.pass(&mut schedule, &mut sink, stop);
            // With nothing in the file to publish, going on would be a busy loop for ever.
            let repeats = self.options.repeat && self.summary.publications > before;
            match passed {
                Ok(Pass::End) if repeats => {}
                Ok(_) => break,
                // The same again next time, unlike what a disk says.
                Err(error) if repeats && error.raw_os_error().is_none() => self.note_break(&error),
                Err(error) => {
                    self.note_break(&error);
                    break;
                }
            }
            schedule.begin_again();
            match Lines::open(&self.path, self.options.line_max()) {
                Ok(lines) => self.lines = lines,
                Err(cause) => {
                    self.summary.broken = true;
                    tracing::error!("{}", ReplayError { path: self.path.clone(), cause });
                    break;
                }
            }
        }
        drop(std::mem::take(&mut self.progress));
        self.summary.topics = self.topics.count();
        self.summary.elapsed = started.elapsed();
        self.summary.backwards = schedule.backwards();
        self.summary.cut_gaps = schedule.cut();
        self.log_summary();
        self.summary
    }

    /// Publishes the file once, from where `lines` stands to its end.
    fn pass(&mut self, schedule: &mut Schedule, sink: &mut impl Sink, stop: &Receiver<()>) -> io::Result<Pass> {
        loop {
            if self.gathered.is_full() || !self.lines.is_ready() {
                if wait_for_room(sink, stop) == Wait::Stop {
                    return Ok(Pass::Stopped);
                }
                self.send(sink);
                self.progress.tell(self.lines.taken(), self.lines.file_len());
                if wait(stop, Instant::now()) == Wait::Stop {
                    return Ok(Pass::Stopped);
                }
            }
            let (number, taken, file_len) = (self.lines.number() + 1, self.lines.taken(), self.lines.file_len());
            let line = match self.lines.read() {
                Ok(Line::End) => break,
                Ok(Line::Bytes(b"")) => continue,
                Ok(Line::Bytes(bytes)) => Record::parse(bytes, &self.options),
                Ok(Line::TooLong { len, outline }) => Record::of_outline(outline, len, &self.options),
                Err(error) => {
                    self.send(sink);
                    return Err(error);
                }
            };
            let record = match line {
                Ok(record) => record,
                Err(wrong) => {
                    if !self.lines.is_open() {
                        wrong.note(&mut self.summary, sink, &self.path, number);
                    } else if !std::mem::replace(&mut self.summary.broken, true) {
                        let Wrong(why, what) = wrong;
                        Wrong(why, format!("the file breaks off in it: {what}")).note(
                            &mut self.summary,
                            sink,
                            &self.path,
                            number,
                        );
                    }
                    continue;
                }
            };
            let (now, cut) = (Instant::now(), schedule.cut());
            let due = schedule.due(record.ts_ns);
            if schedule.cut() > cut && cut < LOGGED_MAX {
                let (path, most) = (self.path.display(), humantime::format_duration(self.options.gap_max));
                tracing::warn!("replay {path}: line {number}: the gap before it was cut to --max-gap {most}");
            }
            if let Some(due) = due
                && due > now
            {
                if due - now > LONG_WAIT {
                    tracing::warn!("replay {}: line {number} is due in {:?}", self.path.display(), due - now);
                }
                if wait_for_room(sink, stop) == Wait::Stop {
                    return Ok(Pass::Stopped);
                }
                // Not `self.send`: the record still borrows the line.
                send(&mut self.gathered, self.gathered_due.take(), sink, &mut self.summary, &self.path);
                self.progress.tell(taken, file_len);
                if wait(stop, due) == Wait::Stop {
                    return Ok(Pass::Stopped);
                }
            }
            self.gathered_due = self.gathered_due.or(schedule.latest_due());
            self.topics.see(&record.topic);
            match record.value {
                Ok(value) => self.gathered.add(&record.topic, value.payload(), number),
                Err(left_out) => {
                    left_out.note(&mut self.summary, sink, &self.path, number);
                    self.gathered.add(&record.topic, Payload::TooLarge, number);
                }
            }
        }
        self.send(sink);
        Ok(Pass::End)
    }

    fn send(&mut self, sink: &mut impl Sink) {
        send(&mut self.gathered, self.gathered_due.take(), sink, &mut self.summary, &self.path);
    }

    /// Says once where the recording breaks off.
    fn note_break(&mut self, error: &io::Error) {
        if std::mem::replace(&mut self.summary.broken, true) {
            return;
        }
        let (path, line, taken) = (self.path.display(), self.lines.number(), self.lines.taken());
        let what = if error.kind() == io::ErrorKind::UnexpectedEof { "cut off" } else { "damaged" };
        tracing::warn!(
            "replay {path}: it is {what} behind line {line}, in its first {taken} bytes: {error}; what comes before was published"
        );
    }

    fn log_summary(&self) {
        let s = &self.summary;
        let seconds = s.elapsed.as_secs_f64();
        tracing::info!(
            file = %self.path.display(),
            publications = s.publications,
            topics = s.topics,
            seconds = (seconds * 1e3).round() / 1e3,
            rate_per_s = (s.publications as f64 / seconds.max(1e-6)).round(),
            bytes = s.bytes,
            skipped_lines = s.skipped,
            too_large = s.too_large,
            too_deep = s.too_deep,
            gaps = s.gaps,
            refused = s.refused,
            backwards = s.backwards,
            cut_gaps = s.cut_gaps,
            late_max_us = s.late_max.as_micros() as u64,
            "replay ended"
        );
    }
}

/// Pushes what was gathered, the first of which was due at `due`.
fn send(gathered: &mut Gathered, due: Option<Instant>, sink: &mut impl Sink, summary: &mut Summary, path: &Path) {
    if gathered.is_empty() {
        return;
    }
    if let Some(due) = due {
        summary.late_max = summary.late_max.max(due.elapsed());
    }
    let mut refused = Vec::new();
    let (publications, bytes) = gathered.push_all(sink, |line, reason| refused.push((line, reason)));
    for (line, reason) in refused {
        Wrong(Skipped::Refused, reason).note(summary, sink, path, line);
    }
    summary.publications += publications;
    summary.bytes += bytes;
}

/// Why a line is not published as it is, and the sentence about it.
#[derive(Debug, PartialEq)]
struct Wrong(Skipped, String);

impl Wrong {
    /// Counts it, and logs it if it is among the first.
    fn note(&self, summary: &mut Summary, sink: &impl Sink, path: &Path, line: u64) {
        let Wrong(why, what) = self;
        let count = match why {
            Skipped::Bad => &mut summary.skipped,
            Skipped::TooLarge => &mut summary.too_large,
            Skipped::TooDeep => &mut summary.too_deep,
            Skipped::Gap => &mut summary.gaps,
            Skipped::Refused => &mut summary.refused,
        };
        sink.skipped(*why);
        note_first(count, path, line, what);
    }
}

impl From<LineError> for Wrong {
    fn from(error: LineError) -> Wrong {
        error.to_string().into()
    }
}

impl From<String> for Wrong {
    fn from(what: String) -> Wrong {
        Wrong(Skipped::Bad, what)
    }
}

/// Counts a line, and logs it if it is among the first.
fn note_first(count: &mut u64, path: &Path, line: u64, wrong: &str) {
    *count += 1;
    match (*count).cmp(&LOGGED_MAX) {
        std::cmp::Ordering::Less => tracing::warn!("replay {}: line {line}: {wrong}", path.display()),
        std::cmp::Ordering::Equal => {
            tracing::warn!("replay {}: line {line}: {wrong} (more will only be counted)", path.display());
        }
        std::cmp::Ordering::Greater => {}
    }
}

/// One line of a recording.
struct Record<'a> {
    ts_ns: u64,
    topic: Cow<'a, str>,
    /// What is published, or why that can be carried to nobody: then it takes a number, which subscribers are told.
    value: Result<Value<'a>, Wrong>,
}

/// One line of a recording, without a look at what it publishes.
struct Head<'a> {
    ts_ns: u64,
    topic: Cow<'a, str>,
    /// Which of the fields it has that say what it is, and the field's value.
    form: (&'static str, Json<'a>),
    is_too_deep: bool,
}

impl<'a> Record<'a> {
    fn parse(line: &'a [u8], options: &Options) -> Result<Self, Wrong> {
        let Head { ts_ns, topic, form: (name, value), is_too_deep } = Head::read(line, options)?;
        let value = if is_too_deep {
            let text =
                format!("left out of {topic}: data nested more than {DEPTH_MAX} deep, which some readers don't take");
            Err(Wrong(Skipped::TooDeep, text))
        } else if name == "gap" {
            Err(Wrong(Skipped::Gap, format!("left out of {topic}: {}", gap(value)?)))
        } else {
            let value = ndjson::value(name, value)?;
            let len = value_len(value.payload());
            match options.is_too_large(&topic, len) {
                true => Err(Wrong(Skipped::TooLarge, options.too_large(&topic, len))),
                false => Ok(value),
            }
        };
        Ok(Record { ts_ns, topic, value })
    }

    /// That of a line of `len` bytes, which is too long to be looked at. If not even its outline says whose it is, nobody can be told.
    fn of_outline(outline: &'a [u8], len: u64, options: &Options) -> Result<Self, Wrong> {
        let too_long = |whose: &str| Wrong(Skipped::TooLarge, options.too_long(len, whose));
        match Head::read(outline, options) {
            Ok(Head { ts_ns, topic, .. }) => Ok(Record { ts_ns, value: Err(too_long(&topic)), topic }),
            Err(Wrong(_, why)) => Err(too_long(&format!("a topic that can't be found ({why})"))),
        }
    }
}

impl<'a> Head<'a> {
    fn read(line: &'a [u8], options: &Options) -> Result<Self, Wrong> {
        let mut fields = Fields::new(&["ts_ns", "topic", "data", "text", "base64", "gap"]);
        let is_too_deep = match fields.read(ndjson::text(line)?) {
            Ok(()) => false,
            Err(ObjectError::TooDeep("data")) => true,
            Err(error) => return Err(LineError::from(error).into()),
        };
        let ts_ns = fields.get(0).ok_or_else(|| r#"expected a field "ts_ns", found none"#.to_owned())?.get();
        let Ok(ts_ns) = ts_ns.parse() else {
            return Err(format!(r#"expected "ts_ns" to be a whole number of nanoseconds, found {ts_ns:.40}"#).into());
        };
        let topic = ndjson::topic(fields.get(1))?;
        Topic::check(&topic, options.topic_length_max).map_err(|error| format!(r#""topic": {error}"#))?;
        Ok(Head { ts_ns, topic, form: ndjson::one_of(fields.from(2))?, is_too_deep })
    }
}

/// What is said of a gap.
fn gap(value: Json<'_>) -> Result<String, Wrong> {
    let wrong = |found: &str| format!(r#"expected "gap" to be {{"from":N,"to":N}}, or {{}}, found {found}"#);
    if !value.get().starts_with('{') {
        return Err(wrong(kind(value.get())).into());
    }
    let mut fields = Fields::new(&["from", "to"]);
    fields.read(value.get()).map_err(|error| format!("\"gap\": {error}"))?;
    let number = |field: usize| fields.get(field).and_then(|number| number.get().parse::<u64>().ok());
    match (number(0), number(1)) {
        (Some(from), Some(to)) if (1..=to).contains(&from) => Ok(format!("{from} to {to}, missing from the recording")),
        (None, None) if fields.get(0).or(fields.get(1)).is_none() => {
            Ok("nobody knows how many, missing from the recording".to_owned())
        }
        _ => Err(wrong(&shown(value.get())).into()),
    }
}

/// How many different topics there were, by their hashes.
#[derive(Default)]
struct Topics(HashSet<u64, FxBuildHasher>);

impl Topics {
    fn see(&mut self, topic: &str) {
        if self.0.len() < TOPICS_MAX {
            self.0.insert(FxBuildHasher.hash_one(topic));
        }
    }

    fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        lines::tests::{Scratch, gzip},
        tests::Recorder,
    };
    use super::*;

    const OPTIONS: Options = Options {
        speed: Speed::Max,
        repeat: false,
        delay: Duration::ZERO,
        gap_max: Duration::ZERO,
        message_max: 100 + AROUND_MAX,
        topic_length_max: 16,
    };

    fn run(content: &[u8], options: Options) -> (Summary, Vec<(String, String, Instant)>, Vec<usize>) {
        let scratch = Scratch::new(content);
        let recorder = Recorder::default();
        let replay = Replay::open(&scratch.0, options).unwrap();
        let summary = replay.run(recorder.clone(), &crossbeam_channel::never());
        let mut record = recorder.0.lock();
        (summary, std::mem::take(&mut record.published), std::mem::take(&mut record.batches))
    }

    fn spawn(replay: Replay, recorder: Recorder, stop: Receiver<()>) -> std::thread::JoinHandle<Summary> {
        std::thread::spawn(move || replay.run(recorder, &stop))
    }

    fn line(ts_ns: u64, topic: &str, data: &str) -> String {
        format!("{{\"ts_ns\":{ts_ns},\"topic\":\"{topic}\",\"data\":{data}}}\n")
    }

    #[test]
    fn every_publication_is_sent_in_order_and_byte_for_byte() {
        let datas: Vec<String> = (0..2000).map(|n| format!("{{\"n\": {n}.50 }}")).collect();
        let content: String =
            datas.iter().enumerate().map(|(n, data)| line(n as u64, &format!("t.{}", n % 7), data)).collect();
        for content in [content.as_bytes().to_vec(), gzip(content.as_bytes())] {
            let (summary, published, batches) = run(&content, OPTIONS);
            assert_eq!((summary.publications, summary.topics, summary.skipped), (2000, 7, 0));
            assert_eq!(summary.bytes, datas.iter().map(|data| data.len() as u64).sum::<u64>());
            assert!(published.iter().map(|(_, data, _)| data).eq(&datas));
            assert!(batches.iter().all(|&batch| batch <= Gathered::ENTRIES_MAX) && batches.len() < 20, "{batches:?}");
        }
    }

    #[test]
    fn a_bad_line_is_counted_and_costs_no_other() {
        let long = format!("\"{}\"", "x".repeat(200));
        let content = [
            &line(1, "a", "1"),
            "\n",
            "hello\n",
            "{\"topic\":\"a\",\"data\":1}\n",
            &line(1, "a..b", "1"),
            &line(1, "a", &long),
            &line(1, "a", &"9".repeat(2000)),
            &line(1, "refuse", "1"),
            &line(2, "b", "2"),
        ];
        let (scratch, recorder) = (Scratch::new(content.concat().as_bytes()), Recorder::default());
        let replay = Replay::open(&scratch.0, OPTIONS).unwrap();
        let summary = replay.run(recorder.clone(), &crossbeam_channel::never());
        let mut published = std::mem::take(&mut recorder.0.lock().published);
        assert_eq!(published.extract_if(.., |(_, data, _)| data == "too large").count(), 2);
        assert_eq!((summary.publications, summary.skipped, summary.refused, summary.broken), (2, 3, 1, false));
        assert_eq!(summary.too_large, 2);
        let told = &recorder.0.lock().skipped;
        let told =
            [Skipped::Bad, Skipped::TooLarge, Skipped::Refused].map(|why| told.iter().filter(|it| **it == why).count());
        assert_eq!(told, [3, 2, 1]);
        assert_eq!((&*published[0].1, &*published[1].1), ("1", "2"));
    }

    #[test]
    fn a_line_may_be_as_large_a_message_as_is_said_and_no_larger() {
        let mebibyte = Options { message_max: 1 << 20, ..OPTIONS };
        let most = (1 << 20) - AROUND_MAX - "a.b".len();
        for (len, taken) in [(70_000, 1), (709_000, 1), (most, 1), (most + 1, 0), (2 << 20, 0)] {
            let data = format!("\"{}\"", "x".repeat(len - 2));
            let (summary, published, _) = run(line(1, "a.b", &data).as_bytes(), mebibyte);
            assert_eq!((summary.publications, summary.too_large, summary.skipped), (taken, 1 - taken, 0), "{len}");
            let expected = if taken == 1 { &*data } else { "too large" };
            assert_eq!(published.len(), 1);
            assert!(published[0].1 == expected, "{len}");
        }
    }

    #[test]
    fn what_is_too_large_keeps_its_place_and_its_time_wherever_the_line_says_them() {
        let book = format!("{{\"bids\":[{}1]}}", "[1,2],".repeat(1000));
        let content = [
            &line(1, "a", "1"),
            &format!("{{\"data\":{book},\"topic\":\"b\",\"ts_ns\":20000001}}\n"),
            &line(40_000_001, "a", "2"),
            &line(40_000_001, "a", &book),
            &format!("{{\"data\":{book},\"topic\":\"no name\"}}\n"),
            &line(40_000_001, "b", "3"),
        ];
        let started = Instant::now();
        let (summary, published, _) =
            run(content.map(String::as_str).concat().as_bytes(), Options { speed: Speed::Times(1.0), ..OPTIONS });
        let told: Vec<_> = published.iter().map(|(topic, data, _)| (&**topic, &**data)).collect();
        assert_eq!(told, [("a", "1"), ("b", "too large"), ("a", "2"), ("a", "too large"), ("b", "3")]);
        assert!(published[1].2 - started >= Duration::from_millis(20));
        assert_eq!((summary.publications, summary.too_large, summary.skipped), (3, 3, 0));
    }

    #[test]
    fn what_is_nested_too_deeply_keeps_its_place_too_and_names_the_bound() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let (most, deeper, deepest) = (nested(DEPTH_MAX), nested(DEPTH_MAX + 1), nested(2000));
        let content = [
            &line(1, "a", &most),
            &line(1, "b", &deeper),
            &line(1, "a", &deepest),
            &format!("{{\"data\":{deeper},\"topic\":\"no name\",\"ts_ns\":1}}\n"),
            &format!("{{\"ts_ns\":{deeper},\"topic\":\"a\",\"data\":1}}\n"),
            &line(1, "b", "2"),
        ];
        let content = content.map(String::as_str).concat();
        let (summary, published, _) = run(content.as_bytes(), Options { message_max: 1 << 20, ..OPTIONS });
        let told: Vec<_> = published.iter().map(|(topic, data, _)| (&**topic, &**data)).collect();
        assert_eq!(told, [("a", &*most), ("b", "too large"), ("a", "too large"), ("b", "2")]);
        assert_eq!((summary.publications, summary.too_deep, summary.too_large, summary.skipped), (2, 2, 0, 2));
        let bytes = line(1, "b", &deeper);
        let record = Record::parse(bytes.trim_end().as_bytes(), &Options { message_max: 1 << 20, ..OPTIONS }).unwrap();
        let said = "left out of b: data nested more than 120 deep, which some readers don't take";
        assert_eq!(record.value, Err(Wrong(Skipped::TooDeep, said.into())));
    }

    #[test]
    fn text_stays_text_bytes_stay_bytes_and_a_gap_takes_one_number() {
        let content = concat!(
            r#"{"ts_ns":1,"topic":"a","epoch":"k3","seq":8,"data":"7"}"#,
            "\n",
            r#"{"ts_ns":1,"topic":"a","epoch":"k3","seq":9,"text":"7"}"#,
            "\n",
            r#"{"ts_ns":1,"topic":"a","gap":{"from":10,"to":4000000,"why":"slow"},"epoch":"k3"}"#,
            "\n",
            r#"{"base64":"/wA=","topic":"b","ts_ns":1,"seq":"of another sort"}"#,
            "\n",
            r#"{"ts_ns":1,"topic":"a","text":"{\"n\":1}\u0000é"}"#,
            "\n",
            r#"{"ts_ns":1,"topic":"b","gap":{}}"#,
        );
        let (summary, published, _) = run(content.as_bytes(), OPTIONS);
        let told: Vec<_> = published.iter().map(|(topic, data, _)| (&**topic, &**data)).collect();
        let expected = [
            ("a", "\"7\""),
            ("a", "text 7"),
            ("a", "too large"),
            ("b", "bytes [255, 0]"),
            ("a", "text {\"n\":1}\0é"),
            ("b", "too large"),
        ];
        assert_eq!(told, expected);
        assert_eq!((summary.publications, summary.gaps, summary.skipped, summary.too_large), (4, 2, 0, 0));
    }

    #[test]
    fn whatever_a_line_publishes_is_measured_as_it_stands_in_a_message() {
        // A message has room for 100 bytes of them, and for a name.
        for (form, value, taken) in [
            ("text", format!("\"{}\"", "\\u0041".repeat(97)), true),
            ("text", format!("\"{}\"", "x".repeat(98)), false),
            ("text", format!("\"{}\"", "\\n".repeat(48)), true),
            ("text", format!("\"{}\"", "\\u0001".repeat(17)), false),
            ("base64", format!("\"{}\"", "A".repeat(96)), true),
            ("base64", format!("\"{}\"", "A".repeat(100)), false),
        ] {
            let line = format!("{{\"ts_ns\":1,\"topic\":\"a\",\"{form}\":{value}}}");
            let (summary, published, _) = run(line.as_bytes(), OPTIONS);
            assert_eq!((summary.publications, summary.too_large), (u64::from(taken), u64::from(!taken)), "{line}");
            assert_eq!(published.len(), 1);
        }
        // One that is too long to be looked at, wherever its value is cut.
        for value in ["\\ud83d\\ude00".repeat(3000), "\\\"".repeat(9001), "abc".repeat(9001)] {
            for form in ["text", "base64", "data"] {
                let line = format!("{{\"{form}\":\"{value}\",\"topic\":\"a\",\"ts_ns\":1}}");
                let (summary, published, _) = run(line.as_bytes(), OPTIONS);
                assert_eq!((summary.too_large, summary.skipped, published.len()), (1, 0, 1), "{form}");
            }
        }
    }

    #[test]
    fn a_bad_line_says_what_was_expected_and_what_was_found() {
        let long = line(1, "a", &format!("\"{}\"", "x".repeat(200)));
        for (text, wrong) in [
            ("[]", "expected a JSON object, found a list"),
            ("{\"topic\":\"a\",\"data\":1}", "expected a field \"ts_ns\", found none"),
            (&line(1, "a.*", "1"), "\"topic\": found the wildcard '*' at byte 2"),
            (
                "{\"ts_ns\":1.5,\"topic\":\"a\",\"data\":1}",
                "expected \"ts_ns\" to be a whole number of nanoseconds, found 1.5",
            ),
            ("{\"ts_ns\":1,\"topic\":\"a\"}", "expected a field \"data\", found none"),
            (r#"{"ts_ns":1,"topic":"a","data":1,"gap":{}}"#, "expected one of \"data\" and \"gap\", found both"),
            (r#"{"ts_ns":1,"topic":"a","text":{}}"#, "expected \"text\" to be a string, found an object"),
            (
                r#"{"ts_ns":1,"topic":"a","base64":"????"}"#,
                "expected \"base64\" to be base64 with its padding, found \"????\": Invalid symbol 63, offset 0.",
            ),
            (
                r#"{"ts_ns":1,"topic":"a","gap":[5,9]}"#,
                "expected \"gap\" to be {\"from\":N,\"to\":N}, or {}, found a list",
            ),
            (
                r#"{"ts_ns":1,"topic":"a","gap":{"from":9,"to":5}}"#,
                r#"expected "gap" to be {"from":N,"to":N}, or {}, found "{\"from\":9,\"to\":5}""#,
            ),
            (
                r#"{"ts_ns":1,"topic":"a","gap":{"from":0,"to":5}}"#,
                r#"expected "gap" to be {"from":N,"to":N}, or {}, found"#,
            ),
            (r#"{"ts_ns":1,"topic":"a","gap":{"from":5}}"#, r#"expected "gap" to be {"from":N,"to":N}, or {}, found"#),
            (
                r#"{"ts_ns":1,"topic":"a","gap":{"from":5,"to":9,"to":9}}"#,
                "\"gap\": expected the field \"to\" once, found it twice",
            ),
            (r#"{"ts_ns":1,"topic":"a","gap":{"from":5,"to":9}}"#, "left out of a: 5 to 9, missing from the recording"),
            (&long, "left out of a: data of 202 bytes makes a message larger than --max-replay-message 228 B"),
        ] {
            let record = Record::parse(text.trim_end().as_bytes(), &OPTIONS);
            let Wrong(_, found) = record.and_then(|record| record.value).unwrap_err();
            assert!(found.starts_with(wrong), "{text}: {found}");
        }
        let found = Record::parse(b"{\"a\":\"\xff\"}", &OPTIONS).err().unwrap();
        assert_eq!(found, Wrong(Skipped::Bad, "expected UTF-8, found something else at byte 6".into()));
    }

    #[test]
    fn its_own_pace_is_kept_times_the_speed() {
        let content = [line(1_000_000_000, "a", "1"), line(1_000_000_000, "a", "2"), line(1_400_000_000, "a", "3")];
        let started = Instant::now();
        let (summary, published, batches) =
            run(content.concat().as_bytes(), Options { speed: Speed::Times(10.0), ..OPTIONS });
        let at: Vec<Duration> = published.iter().map(|(_, _, at)| *at - started).collect();
        assert!(at[1] < Duration::from_millis(40) && at[2] >= Duration::from_millis(40), "{at:?}");
        assert_eq!(batches, [2, 1]);
        assert!(summary.late_max < Duration::from_secs(1));
    }

    #[test]
    fn a_timestamp_that_goes_backwards_is_sent_at_once() {
        let content = [line(2_000_000_000, "a", "1"), line(0, "a", "2"), line(2_000_000_001, "a", "3")];
        let (summary, published, _) = run(content.concat().as_bytes(), Options { speed: Speed::Times(1.0), ..OPTIONS });
        assert_eq!((summary.publications, summary.backwards, published.len()), (3, 1, 3));
    }

    #[test]
    fn a_loop_goes_on_until_it_is_stopped() {
        let scratch = Scratch::new(line(1, "a", "1").as_bytes());
        let recorder = Recorder::default();
        let (tell, stop) = crossbeam_channel::bounded(0);
        let replay = Replay::open(&scratch.0, Options { repeat: true, ..OPTIONS }).unwrap();
        let thread = spawn(replay, recorder.clone(), stop);
        while recorder.0.lock().published.len() < 5 {
            std::thread::yield_now();
        }
        drop(tell);
        assert!(thread.join().unwrap().publications >= 5);
        // Nothing in the file to publish: going on would be a busy loop for ever.
        let (summary, ..) = run(b"hello\n", Options { repeat: true, ..OPTIONS });
        assert_eq!((summary.publications, summary.skipped), (0, 1));
    }

    #[test]
    fn a_recording_as_editors_and_disks_leave_it_goes_round_and_round() {
        let content = ["\u{feff}", &line(1, "a", "1"), &line(2, "b", "2"), &"\0".repeat(5000)].concat();
        for content in [content.clone().into_bytes(), [gzip(content.as_bytes()), vec![0; 5000]].concat()] {
            let scratch = Scratch::new(&content);
            let recorder = Recorder::default();
            let (tell, stop) = crossbeam_channel::bounded(0);
            let replay = Replay::open(&scratch.0, Options { repeat: true, ..OPTIONS }).unwrap();
            let thread = spawn(replay, recorder.clone(), stop);
            while recorder.0.lock().published.len() < 5 && !thread.is_finished() {
                std::thread::yield_now();
            }
            drop(tell);
            let summary = thread.join().unwrap();
            assert_eq!((summary.skipped, summary.broken, summary.topics), (0, false, 2), "{summary:?}");
        }
    }

    #[test]
    fn a_damaged_timestamp_is_not_waited_for() {
        let content = [line(1, "a", "1"), line(u64::MAX, "a", "2"), line(3, "a", "3"), line(1_000_003, "a", "4")];
        let options = Options { speed: Speed::Times(1.0), gap_max: Duration::from_millis(20), ..OPTIONS };
        let (summary, published, _) = run(content.concat().as_bytes(), options);
        assert_eq!((published.len(), summary.cut_gaps, summary.backwards), (4, 1, 1));
        assert!(published[1].2 - published[0].2 >= Duration::from_millis(20) && published[3].2 > published[2].2);
    }

    #[test]
    fn a_wait_of_hours_stops_when_told() {
        let content = [line(0, "a", "1"), line(3_600_000_000_000, "a", "2")].concat();
        let scratch = Scratch::new(content.as_bytes());
        let replay = Replay::open(&scratch.0, Options { speed: Speed::Times(1.0), ..OPTIONS }).unwrap();
        let (recorder, (tell, stop)) = (Recorder::default(), crossbeam_channel::bounded(1));
        let thread = spawn(replay, recorder.clone(), stop);
        tell.send(()).unwrap();
        assert!(thread.join().unwrap().publications <= 1);
    }

    #[test]
    fn a_file_that_breaks_off_gives_what_was_read_before() {
        let content: String = (0..20_000).map(|n| line(n, "a", &fastrand::u64(..).to_string())).collect();
        let packed = gzip(content.as_bytes());
        let (summary, published, _) = run(&packed[..packed.len() - 30], OPTIONS);
        assert!(summary.broken && summary.publications > 10_000, "{summary:?}");
        assert_eq!(published.len() as u64, summary.publications);
    }

    #[test]
    fn a_recording_that_is_cut_off_goes_round_with_what_is_whole() {
        let whole: String = (0..3000).map(|n| line(n, "a", &fastrand::u64(..).to_string())).collect();
        let plain = [whole.as_bytes(), b"{\"ts_ns\":3000,\"topic\":\"a\",\"da"].concat();
        let long =
            [whole.as_bytes(), b"{\"ts_ns\":3000,\"topic\":\"a\",\"data\":[", "1,".repeat(5000).as_bytes()].concat();
        let (gzip, zstd) = (gzip(whole.as_bytes()), zstd::encode_all(whole.as_bytes(), 1).unwrap());
        let mut damaged = gzip.clone();
        // Of its checksum.
        *damaged.iter_mut().nth_back(6).unwrap() ^= 1;
        let noise: Vec<u8> = (0..20_000).map(|_| fastrand::u8(b' '..b'~')).collect();
        let noise = zstd::encode_all(&[whole.as_bytes(), &noise].concat()[..], 1).unwrap();
        for (content, bad) in [
            (&plain[..], 1),
            (&long, 0),
            (&gzip[..gzip.len() - 9], 0),
            (&gzip[..gzip.len() / 2], 0),
            (&damaged, 0),
            (&zstd[..zstd.len() - 5], 0),
            (&noise[..noise.len() - 5000], 0),
        ] {
            let (scratch, recorder) = (Scratch::new(content), Recorder::default());
            let (tell, stop) = crossbeam_channel::bounded(0);
            let replay = Replay::open(&scratch.0, Options { repeat: true, ..OPTIONS }).unwrap();
            let (once, ..) = run(content, OPTIONS);
            let thread = spawn(replay, recorder.clone(), stop);
            while (recorder.0.lock().batches.iter().sum::<usize>() as u64) < 3 * once.publications
                && !thread.is_finished()
            {
                std::thread::yield_now();
            }
            drop(tell);
            let summary = thread.join().unwrap();
            assert!(once.publications > 100 && summary.publications >= 3 * once.publications, "{summary:?}, {once:?}");
            assert!(summary.broken && once.broken);
            // Told once, however often it goes round.
            assert_eq!((summary.skipped, once.skipped), (bad, bad), "{summary:?}");
            assert_eq!(recorder.0.lock().skipped.len(), (summary.skipped + summary.too_large) as usize);
        }
    }

    #[test]
    fn who_wants_to_know_is_told_how_far_it_has_come_and_dropped_at_the_end() {
        let content: String = (0..20_000).map(|n| line(n, "a", "1")).collect();
        let scratch = Scratch::new(content.as_bytes());
        let told = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
        let teller = std::sync::Arc::clone(&told);
        let progress = Progress(Some(Box::new(move |taken, of| teller.lock().push((taken, of)))));
        let replay = Replay::open(&scratch.0, OPTIONS).unwrap().telling(progress);
        replay.run(Recorder::default(), &crossbeam_channel::never());
        let told = std::sync::Arc::into_inner(told).expect("nobody is told any more").into_inner();
        let len = content.len() as u64;
        assert_eq!((told[0], *told.last().unwrap()), ((0, len), (len, len)));
        assert!(told.len() > 10 && told.is_sorted(), "{} times", told.len());
    }

    #[test]
    fn a_missing_file_is_one_line_for_the_operator() {
        let error = Replay::open(Path::new("/no/such/file"), OPTIONS).err().unwrap().to_string();
        assert!(error.starts_with("--replay /no/such/file: ") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_real_recording_has_no_bad_line() {
        const RECORDING: &str = "../shared/data/cryptofeed_excerpt.ndjson";
        let Ok(content) = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORDING)) else {
            return crate::skip::skip("recording", &format!("a recording of real sessions: {RECORDING} is not here"));
        };
        let lines = content.iter().filter(|&&byte| byte == b'\n').count();
        let (summary, published, _) = run(&content, Options { message_max: 1 << 20, topic_length_max: 128, ..OPTIONS });
        assert_eq!((summary.skipped, summary.refused, published.len()), (0, 0, lines));
    }
}
