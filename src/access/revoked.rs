//! Who was revoked: by name or by a token's id, each until a moment.
//!
//! ```text
//!  {"sub":"u42","until":1798761600}                    all holders of that name, whoever vouches for them
//!  {"sub":"u42","iss":"https://a","until":1798761600}  those of one issuer
//!  {"jti":"7f3a","until":1798761600}                   one token
//!  {"sub":"u42","until":0}                             no more: what was revoked is lifted
//! ```
//!
//! One table for all threads. Whoever changes it counts its generation up, within the lock and after the change; whoever asks reads the generation first. So who
//! was judged before a change and asks after it finds another generation and looks again, and who finds the same one needs no lock: that
//! is what a publication costs. What is revoked is in the table until its moment has come, for at most `--max-revoked` entries; those whose
//! moment has passed make room first, and beyond that another is refused, since forgetting one would let somebody in.
//!
//! The file (`--revoked`) has the same lines, in the order in which they were said; a later one wins. It is appended to and written through before
//! anybody is told, so that it outlives the process. When it is read, at the start and at a reload, and most of its lines count no more, it is written anew
//! without those. A last line that was cut off, by a disk that was full or power that was lost, is no mistake.
//!
//! Who appends takes the file's lock (`flock(2)`), as whoever writes it anew does, and then looks whether it is still the one that the path leads to. Somebody's
//! `echo >>` takes none: what it writes to the old file is looked for until after the new one is in its place and on the disk.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{
    holder::{Key, Known},
    token::NAME_MAX,
};
use crate::certified::TakenBack;

/// Somebody, until a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Who.
    pub whom: Whom,
    /// Seconds since the Unix epoch; what is past lifts an earlier one.
    pub until: u64,
}

/// Who is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Whom {
    /// All holders of this name; of one issuer, if one is named.
    Name {
        /// `sub` of a token, name of a certificate or a static token.
        name: Box<str>,
        /// `iss` of its tokens.
        issuer: Option<Box<str>>,
    },
    /// The token of this id.
    Id(Box<str>),
}

/// A line of the file, and the body of a request.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'l> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub: Option<std::borrow::Cow<'l, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iss: Option<std::borrow::Cow<'l, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<std::borrow::Cow<'l, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
}

impl Revocation {
    /// Reads one: `{"sub":…}` or `{"jti":…}`, with `until` in seconds since the Unix epoch, which is `otherwise` where it isn't given.
    ///
    /// # Errors
    /// What is wrong, as a sentence.
    pub fn parse(json: &str, otherwise: u64) -> Result<Revocation, String> {
        Revocation::parse_or(json, |_| otherwise)
    }

    /// The same, where `otherwise` hangs on who it is.
    ///
    /// # Errors
    /// As above.
    pub fn parse_or(json: &str, otherwise: impl FnOnce(&Whom) -> u64) -> Result<Revocation, String> {
        let line: Line<'_> = serde_json::from_str(json).map_err(|error| {
            format!("expected {{\"sub\":\"…\"}} or {{\"jti\":\"…\"}}, with \"until\" in seconds since 1970: {error}")
        })?;
        let name = |field: &str, text: &str| match text.len() {
            1..=NAME_MAX => Ok(Box::from(text)),
            len => Err(format!("{field}: expected 1 to {NAME_MAX} bytes, found {len}")),
        };
        let whom = match (line.sub, line.jti, line.iss) {
            (Some(sub), None, issuer) => {
                Whom::Name { name: name("sub", &sub)?, issuer: issuer.map(|issuer| name("iss", &issuer)).transpose()? }
            }
            (None, Some(jti), None) => Whom::Id(name("jti", &jti)?),
            (None, Some(_), Some(_)) => return Err("iss goes with sub, and not with jti".into()),
            (Some(_), Some(_), _) => return Err("expected either sub or jti, found both".into()),
            (None, None, _) => return Err("expected sub or jti, found neither".into()),
        };
        let until = line.until.unwrap_or_else(|| otherwise(&whom));
        Ok(Revocation { whom, until })
    }

    /// As a line of the file, without its end.
    pub fn line(&self) -> String {
        let (sub, iss, jti) = match &self.whom {
            Whom::Name { name, issuer } => (Some(&**name), issuer.as_deref(), None),
            Whom::Id(id) => (None, None, Some(&**id)),
        };
        let line = Line {
            sub: sub.map(Into::into),
            iss: iss.map(Into::into),
            jti: jti.map(Into::into),
            until: Some(self.until),
        };
        // Text and a number are always written.
        serde_json::to_string(&line).unwrap_or_default()
    }
}

/// The table. See the module's description.
#[derive(Debug)]
pub struct Revoked {
    table: Mutex<HashMap<Whom, u64>>,
    generation: AtomicU64,
    most: AtomicUsize,
    /// Certificates that were taken back while their holders were connected.
    certificates: Mutex<Arc<TakenBack>>,
    /// Held while the file is read or written, so that its order is that of the table.
    order: Mutex<()>,
}

/// The next generation of whichever table changes, so that what was found in one is never taken for what is in another.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// There is no room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are {most} revocations already, which --max-revoked allows: nobody was revoked")]
pub struct Full {
    /// As many as there may be.
    pub most: usize,
}

impl Revoked {
    /// Room for so many.
    pub fn new(most: usize) -> Revoked {
        Revoked {
            table: Mutex::default(),
            generation: NEXT.fetch_add(1, Ordering::Relaxed).into(),
            most: most.into(),
            certificates: Mutex::default(),
            order: Mutex::default(),
        }
    }

    /// Another number after each change; never 0, and never that of another table.
    #[inline]
    pub fn generation(&self) -> u64 {
        // Acquire: pairs with the Release in `change`, so that who finds a generation finds what it came with.
        self.generation.load(Ordering::Acquire)
    }

    /// How many there are, those whose moment has passed included, and how many there may be.
    pub fn count(&self) -> (usize, usize) {
        (self.table.lock().len(), self.most())
    }

    fn most(&self) -> usize {
        // Relaxed: a bound, which nothing else hangs on.
        self.most.load(Ordering::Relaxed)
    }

    /// Takes one in. `now` is in seconds since the Unix epoch. Returns its generation.
    ///
    /// # Errors
    /// There is no room, not even of those whose moment has passed.
    pub fn add(&self, one: &Revocation, now: u64) -> Result<u64, Full> {
        self.change(|table| {
            if one.until <= now {
                table.remove(&one.whom);
                return Ok(());
            }
            if table.len() >= self.most() && !table.contains_key(&one.whom) {
                table.retain(|_, until| *until > now);
                if table.len() >= self.most() {
                    return Err(Full { most: self.most() });
                }
            }
            table.insert(one.whom.clone(), one.until);
            Ok(())
        })
    }

    /// These in the place of those before, as a file has them, but for those whose moment has passed.
    ///
    /// # Errors
    /// They are more than there is room for, and nothing has changed.
    pub fn replace(&self, all: &[Revocation], now: u64) -> Result<u64, Full> {
        let mut fresh = HashMap::new();
        for one in all {
            match one.until > now {
                true => fresh.insert(one.whom.clone(), one.until),
                false => fresh.remove(&one.whom),
            };
        }
        self.change(|table| {
            if fresh.len() > self.most() {
                return Err(Full { most: self.most() });
            }
            *table = fresh;
            Ok(())
        })
    }

    /// Takes one in, and keeps it in a file before it counts. Returns the generation from which on it does.
    ///
    /// # Errors
    /// The file can't be written, or there is no room: nobody was revoked.
    pub fn revoke(&self, one: &Revocation, now: u64, file: Option<&Path>) -> io::Result<u64> {
        // One at a time: the order in the file is that in the table.
        let _order = self.order.lock();
        if let Err(full) = self.has_room(one, now) {
            return Err(io::Error::other(full));
        }
        if let Some(path) = file {
            append(path, one)?;
        }
        self.add(one, now).map_err(io::Error::other)
    }

    /// Whether there is room for one, or will be when those are gone whose moment has passed.
    fn has_room(&self, one: &Revocation, now: u64) -> Result<(), Full> {
        let table = self.table.lock();
        let fits = one.until <= now
            || table.contains_key(&one.whom)
            || table.len() < self.most()
            || table.values().any(|until| *until <= now);
        if fits { Ok(()) } else { Err(Full { most: self.most() }) }
    }

    /// Goes on after a change of the rules, with room for so many, and with what a file says in the place of what was there. The file was read a moment
    /// ago without a mistake; it is read again, since somebody may have been revoked since.
    pub(super) fn go_on(&self, most: usize, file: Option<&Path>, now: u64) {
        self.most.store(most, Ordering::Relaxed);
        let Some(path) = file else { return };
        let _order = self.order.lock();
        let done = read(path).and_then(|all| self.replace(&all, now).map_err(|full| full.to_string()));
        if let Err(why) = done {
            tracing::error!("who was revoked stays as it was: {why}");
            return;
        }
        tell_of(compact(path, now));
    }

    /// Writes a file anew without what counts no more, if that is most of it.
    pub(super) fn compact(&self, path: &Path, now: u64) {
        // Nobody is revoked here meanwhile; whoever edits the file is looked for.
        let _order = self.order.lock();
        tell_of(compact(path, now));
    }

    /// By what certificates are judged from now on that were shown before.
    pub fn set_certificates(&self, taken_back: Arc<TakenBack>) {
        let before = std::mem::replace(&mut *self.certificates.lock(), Arc::clone(&taken_back));
        // Lists may be long: they are compared, and those of before forgotten, while nobody waits.
        if !Arc::ptr_eq(&before, &taken_back) && before != taken_back {
            // Nothing of the table changes but that all are looked at again.
            let _ = self.change(|_| Ok(()));
        }
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<Whom, u64>) -> Result<(), Full>) -> Result<u64, Full> {
        let mut table = self.table.lock();
        change(&mut table)?;
        // Relaxed: what others have done with their tables is nothing to this one.
        let generation = NEXT.fetch_add(1, Ordering::Relaxed);
        // Release: pairs with the Acquire in `generation`.
        self.generation.store(generation, Ordering::Release);
        Ok(generation)
    }

    /// Whether somebody is revoked at this moment, in seconds since the Unix epoch.
    pub fn has(&self, who: &Key, id: Option<&str>, now: u64) -> bool {
        let table = self.table.lock();
        if table.is_empty() {
            return false;
        }
        let is_there = |whom: &Whom| table.get(whom).is_some_and(|until| *until > now);
        let named = |issuer: Option<Box<str>>| is_there(&Whom::Name { name: who.name.clone(), issuer });
        named(None) || named(Some(who.issuer.clone())) || id.is_some_and(|id| is_there(&Whom::Id(id.into())))
    }

    /// The same of somebody who may have been looked for in this generation already.
    #[inline]
    pub(super) fn has_known(&self, known: &Known, now: u64) -> bool {
        let generation = self.generation();
        // Relaxed: what is read is a generation in which this thread or another found it not to be revoked, whichever it is.
        if known.seen.load(Ordering::Relaxed) == generation {
            return false;
        }
        let found = self.has(&known.key, known.id.as_deref(), now)
            || known.certificate.as_ref().is_some_and(|it| self.certificates.lock().has(&it.0, &it.1));
        if !found {
            known.seen.store(generation, Ordering::Relaxed);
        }
        found
    }
}

/// Reads a file of them; one that isn't there has none.
///
/// # Errors
/// Names file, line and what is wrong there.
pub fn read(path: &Path) -> Result<Vec<Revocation>, String> {
    match File::open(path) {
        Ok(file) => parse(path, &text_of(&file).map_err(|error| format!("--revoked {}: {error}", path.display()))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("--revoked {}: {error}", path.display())),
    }
}

fn text_of(file: &File) -> io::Result<String> {
    let mut text = String::new();
    let length = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if length as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("expected a file of at most {FILE_BYTES_MAX} bytes, found more")));
    }
    Ok(text)
}

fn parse(path: &Path, text: &str) -> Result<Vec<Revocation>, String> {
    let mut all = Vec::new();
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        match Revocation::parse(line.trim(), u64::MAX) {
            Ok(one) => all.push(one),
            Err(_) if line.trim().is_empty() => {}
            // Cut off when it was written: nobody was told that it was taken.
            Err(_) if !line.ends_with('\n') => {}
            Err(why) => return Err(format!("--revoked {}:{number}: {why}", path.display())),
        }
    }
    Ok(all)
}

/// Whether a path leads to this file still.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens a file to append to it, made if it isn't there, with its lock.
///
/// # Errors
/// Those of the file, or somebody else keeps the lock.
fn open_locked(path: &Path) -> io::Result<File> {
    for _ in 0..LOCK_TRIES {
        let file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // It may have been written anew while its lock was waited for, and then this one isn't anybody's any more.
            Ok(()) if is_at(&file, path)? => return Ok(file),
            // There is nothing to await: `flock` waits for ever or not at all.
            Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(LOCK_EVERY),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "another process keeps its lock; try again"))
}

/// Appends one to a file, and has it written through.
///
/// # Errors
/// Those of the file: it may have a part of the line then, which is no mistake in it. Or somebody else keeps its lock.
pub fn append(path: &Path, one: &Revocation) -> io::Result<()> {
    let mut file = open_locked(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    let from = length.saturating_sub(LINE_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let last = memchr::memrchr(b'\n', &tail).map_or(&*tail, |end| &tail[end + 1..]);
    let mut end = "";
    if !last.is_empty() {
        // Somebody has left out the end of the last line; or it was cut off, and must not take this one with it.
        match std::str::from_utf8(last).is_ok_and(|line| Revocation::parse(line.trim(), 0).is_ok()) {
            true => end = "\n",
            // Where it ends may be further on than a moment ago.
            false => file.set_len(from + (tail.len() - last.len()) as u64)?,
        }
    }
    file.write_all(format!("{end}{}\n", one.line()).as_bytes())?;
    file.sync_data()
}

/// Writes a file anew, as far as it still counts, if most of its lines don't: they were said again, were lifted, or their moment has passed. Returns how many
/// lines there were and are, if it was. Does nothing while somebody else has its lock.
///
/// A file beside it takes its place when it is on the disk, with the owner and the mode of the old one. What somebody appends to the old one until then, and shortly after, is taken over.
///
/// # Errors
/// Those of the files. The old one is as it was then; but where lines that came in the very moment in which it was replaced can't be taken over, the
/// error has them.
pub fn compact(path: &Path, now: u64) -> io::Result<Option<[usize; 2]>> {
    // The file itself, and not what leads to it.
    let path = &match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        path => path?,
    };
    // For writing, which some file systems want of whoever locks.
    let old = OpenOptions::new().read(true).append(true).open(path)?;
    match flock(&old, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if is_at(&old, path)? => {}
        // Another time.
        Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let text = text_of(&old)?;
    if !text.ends_with('\n') {
        // Somebody may be about to write the rest of a line.
        return Ok(None);
    }
    let all = parse(path, &text).map_err(io::Error::other)?;
    let mut last: HashMap<&Whom, (usize, u64)> = HashMap::new();
    for (at, one) in all.iter().enumerate() {
        last.insert(&one.whom, (at, one.until));
    }
    // A clock that was set forward by mistake is set back, and nobody comes in for that.
    let mut kept: Vec<usize> =
        last.into_values().filter(|(_, until)| until.saturating_add(KEPT_FOR) > now).map(|(at, _)| at).collect();
    if all.len() < LINES_MIN || kept.len() > all.len() / 2 {
        return Ok(None);
    }
    kept.sort_unstable();
    let counts: String = kept.iter().map(|at| all[*at].line() + "\n").collect();
    replace(path, &old, &counts)?;
    Ok(Some([all.len(), kept.len()]))
}

/// Puts a file with this text in the place of `old`, which has been read to its end and is locked; what comes to the old one meanwhile follows it.
fn replace(path: &Path, mut old: &File, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = &path.with_file_name(name);
    let written = (|| {
        let mut new = create_beside(beside)?;
        // Whoever finds it under its own name waits until it has what came late, so that the order stays.
        flock(&new, FlockOperation::NonBlockingLockExclusive)?;
        let like = old.metadata()?;
        // Where it belongs to somebody else and can't be given to him, it stays as it is.
        let is = new.metadata()?;
        if (is.uid(), is.gid()) != (like.uid(), like.gid()) {
            fchown(&new, Some(like.uid()), Some(like.gid()))?;
        }
        new.set_permissions(like.permissions())?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        // On a full disk this fails, and not what follows the change of names.
        take_over(old, &mut new)?;
        new.sync_all()?;
        if !is_at(old, path)? || old.metadata()?.len() < old.stream_position()? {
            return Err(io::Error::other("somebody else has written it anew meanwhile"));
        }
        fs::rename(beside, path)?;
        Ok(new)
    })();
    let mut new = written.inspect_err(|error: &io::Error| {
        // What is there already is somebody else's.
        if error.kind() != io::ErrorKind::AlreadyExists {
            let _ = fs::remove_file(beside);
        }
    })?;
    // Who opened the old one before writes to it now: a shell at once, and so once more when all is on the disk, which takes a while.
    for _ in 0..2 {
        take_over(old, &mut new)?;
        new.sync_all()?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
    }
    take_over(old, &mut new)?;
    new.sync_all()
}

/// Makes a file, which nobody else can have put there or may read. One of an attempt that was cut off is removed.
fn create_beside(path: &Path) -> io::Result<File> {
    let make = || {
        let mut how = OpenOptions::new();
        how.create_new(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
    };
    match make() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            make()
        }
        made => made,
    }
}

/// Appends what has come to a file since it was read.
fn take_over(mut old: &File, new: &mut File) -> io::Result<()> {
    let mut late = Vec::new();
    old.read_to_end(&mut late)?;
    new.write_all(&late).map_err(|error| {
        let late = String::from_utf8_lossy(&late);
        io::Error::new(
            error.kind(),
            format!("{error}; what was appended meanwhile is to be said again: {}", late.trim_end()),
        )
    })
}

fn tell_of(done: io::Result<Option<[usize; 2]>>) {
    match done {
        Ok(None) => {}
        Ok(Some([before, after])) => {
            tracing::info!("--revoked: {before} lines have become {after}, without what counts no more");
        }
        // It is as good as it was, and longer than it need be; or the error says what is to be done.
        Err(error) => tracing::warn!("--revoked: the file isn't written anew without what counts no more: {error}"),
    }
}

/// Fewer lines than these aren't worth another file.
const LINES_MIN: usize = 1000;

/// A line is kept for so many seconds after its moment: a day.
const KEPT_FOR: u64 = 24 * 60 * 60;

/// How long the lock of the file is waited for: twenty milliseconds, as a disk may take as well. Whoever waits is the control thread, and with it all that
/// is plain HTTP: somebody who keeps the lock must not have them all wait.
const LOCK_TRIES: u32 = 10;
const LOCK_EVERY: Duration = Duration::from_millis(2);

/// More than a line has: two names, each of their bytes escaped.
const LINE_MAX: u64 = 8192;

/// Half a million lines.
const FILE_BYTES_MAX: u64 = 64 << 20;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_appends_while_a_file_is_written_anew_follows_what_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revoked");
        fs::write(&path, "before\n").unwrap();
        let old = File::open(&path).unwrap();
        assert_eq!(text_of(&old).unwrap(), "before\n");
        let mut shell = OpenOptions::new().append(true).open(&path).unwrap();
        shell.write_all(b"late\n").unwrap();
        replace(&path, &old, "kept\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept\nlate\n");
        // Somebody has written it anew himself: that stays.
        fs::write(dir.path().join("another"), "by an editor\n").unwrap();
        let old = File::open(&path).unwrap();
        text_of(&old).unwrap();
        fs::rename(dir.path().join("another"), &path).unwrap();
        replace(&path, &old, "kept\n").unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "by an editor\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_comes_too_late_for_a_file_that_takes_no_more_is_told() {
        let mut old = tempfile::tempfile().unwrap();
        old.write_all(b"{\"jti\":\"7\"}\n").unwrap();
        old.seek(SeekFrom::Start(0)).unwrap();
        let full = OpenOptions::new().write(true).open("/dev/full");
        let said = take_over(&old, &mut full.unwrap()).unwrap_err().to_string();
        assert!(said.contains(r#"is to be said again: {"jti":"7"}"#), "{said}");
    }
}
