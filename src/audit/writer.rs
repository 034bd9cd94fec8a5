//! The thread that writes the audit.
//!
//! It looks into the queue twenty times a second and sleeps in between: nobody who notes an event wakes it, which would cost them more
//! than the event. What it finds becomes lines, some tens of KiB at a time, and these are written with one call.
//!
//! What the disk doesn't take stays ([`Writer::lines`]) and is tried again every second, from the byte on where it stopped; meanwhile
//! no more is taken out of the queue, which fills up, and what is dropped then is said in the file afterwards. The log says when that
//! begins and when it ends. Written data is brought to the disk (`fdatasync(2)`) once a second, while there is any; that may take its time, and
//! only this thread waits for it.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{Event, Trail, file::AuditFile, line, shares::Shares};
use crate::clock::{self, Moment};

/// How often it looks into the queue.
const LOOK: Duration = Duration::from_millis(50);

/// How long a disk that took nothing is left alone; also a file that could not be moved aside.
const PAUSE: Duration = Duration::from_secs(1);

/// How often what was written is brought to the disk, and what was left out is settled.
const SYNC: Duration = Duration::from_secs(1);

/// Bytes of lines that are written at once.
const WRITE_BYTES: usize = 64 * 1024;

/// So many of these at one look, and then it is seen to what else there is to do. What is left waits for the next.
const WRITES: usize = 256;

/// See the module's description.
pub(crate) struct Writer {
    trail: Arc<Trail>,
    queue: Receiver<Event>,
    file: AuditFile,
    shares: Shares,
    /// Whole lines to be written, of which so many bytes were.
    lines: Vec<u8>,
    written: usize,
    /// Events dropped that the file knows of.
    told: u64,
    /// The disk takes nothing; when it is tried again.
    failing: Option<Moment>,
    /// Until when it isn't tried to move the file aside.
    rotates_after: Moment,
    /// Something was written since the last time that it was brought to the disk.
    unsynced: bool,
    sync_due: Moment,
}

impl Writer {
    pub(super) fn new(trail: Arc<Trail>, queue: Receiver<Event>, file: AuditFile, shares: Shares) -> Writer {
        let mut lines = Vec::new();
        line::write_own(clock::wall_us(), "start", &mut lines);
        Writer {
            trail,
            queue,
            file,
            shares,
            lines,
            written: 0,
            told: 0,
            failing: None,
            rotates_after: Moment::default(),
            unsynced: false,
            sync_due: Moment::default(),
        }
    }

    /// Writes until `stop` has no sender any more, and then what there is.
    pub(crate) fn run(mut self, stop: &Receiver<()>) {
        while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(LOOK) {
            self.look(Moment::now());
        }
        self.end(Moment::now());
    }

    /// Writes what is there, as far as the disk takes it.
    pub(super) fn look(&mut self, now: Moment) {
        if self.trail.reopens.swap(false, Ordering::Relaxed) {
            self.reopen(now);
        }
        for _ in 0..WRITES {
            if !self.flush(now) {
                return;
            }
            self.take(now);
            if self.lines.is_empty() {
                break;
            }
        }
        if now >= self.sync_due {
            self.sync_due = now + SYNC;
            self.settle(now, false);
            self.sync(now);
        }
    }

    /// Writes all there is, for the last time.
    fn end(&mut self, now: Moment) {
        // A disk that took nothing is asked once more.
        self.failing = self.failing.map(|_| now);
        self.look(now);
        if self.flush(now) {
            self.settle(now, true);
            line::write_own(clock::wall_us(), "stop", &mut self.lines);
        }
        self.sync_due = now;
        if self.flush(now) {
            self.sync(now);
        }
        let lines = self.lines[self.written..].iter().filter(|byte| **byte == b'\n').count() + self.queue.len();
        let lost = lines as u64 + self.trail.dropped.get() - self.told;
        if lost > 0 {
            let file = self.file.path().display();
            tracing::error!(%file, lost, "the end of the audit could not be written");
        }
    }

    /// Makes lines of events, until there is enough to be written or nothing more.
    fn take(&mut self, now: Moment) {
        let dropped = self.trail.dropped.get();
        if dropped > self.told {
            line::write_dropped(clock::wall_us(), dropped - self.told, &mut self.lines);
            self.told = dropped;
        }
        let limit = self.trail.live.limit.load(Ordering::Relaxed);
        while self.lines.len() < WRITE_BYTES
            && let Ok(event) = self.queue.try_recv()
        {
            self.trail.queued.fetch_sub(event.bytes(), Ordering::Relaxed);
            let begun = self.lines.len();
            line::write(&event, 0, &mut self.lines);
            let bytes = self.lines.len() - begun;
            match self.shares.admit(event.address.ip(), bytes, limit, now, !event.may_be_left_out()) {
                Some(0) => {}
                Some(left_out) => {
                    self.lines.truncate(begun);
                    line::write(&event, left_out, &mut self.lines);
                }
                None => {
                    self.lines.truncate(begun);
                    self.trail.left_out.add(1);
                }
            }
        }
    }

    /// Says what was left out of addresses of which no line comes.
    fn settle(&mut self, now: Moment, end: bool) {
        for (address, lines) in self.shares.settle(now, end) {
            line::write_left_out(clock::wall_us(), address, lines, &mut self.lines);
        }
    }

    /// Writes the lines that are made; returns whether all of them are.
    fn flush(&mut self, now: Moment) -> bool {
        if self.lines.is_empty() {
            return true;
        }
        if self.failing.is_some_and(|again| now < again) || !self.prepare(now) {
            return false;
        }
        while self.written < self.lines.len() {
            match self.file.write(&self.lines[self.written..]) {
                Ok(len) => {
                    self.written += len;
                    self.unsynced = true;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return self.fail(now, &error),
            }
        }
        self.trail.lines.add(self.lines.iter().filter(|byte| **byte == b'\n').count() as u64);
        self.lines.clear();
        self.lines.shrink_to(2 * WRITE_BYTES);
        self.written = 0;
        self.succeed();
        true
    }

    /// Sees to it that there is a file by this name, with room; returns whether there is.
    fn prepare(&mut self, now: Moment) -> bool {
        if !self.file.is_there() && !self.reopen(now) {
            return false;
        }
        let size = self.trail.live.size.load(Ordering::Relaxed);
        let is_full = size > 0 && self.file.len() > 0 && self.file.len() + self.lines.len() as u64 > size;
        if !is_full || self.written > 0 || now < self.rotates_after {
            return true;
        }
        let keep = self.trail.live.files.load(Ordering::Relaxed);
        match self.file.rotate(keep) {
            Ok(()) => true,
            Err(error) => {
                // A file that is too long is better than none.
                self.rotates_after = now + 60 * PAUSE;
                let file = self.file.path().display();
                tracing::error!(%file, %error, "the audit could not be moved aside: it becomes longer than --audit-size");
                self.trail.failures.add(1);
                self.file.is_there() || self.reopen(now)
            }
        }
    }

    /// Opens the file anew; of a line that was begun in the old one, all goes into the new one.
    fn reopen(&mut self, now: Moment) -> bool {
        match self.file.reopen() {
            Ok(()) => {
                let done = &self.lines[..self.written];
                self.written = done.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                true
            }
            Err(error) => self.fail(now, &error),
        }
    }

    fn fail(&mut self, now: Moment, error: &std::io::Error) -> bool {
        self.trail.failures.add(1);
        self.trail.is_writing.set(0);
        if self.failing.replace(now + PAUSE).is_none() {
            let file = self.file.path().display();
            tracing::error!(%file, %error, "the audit is not written: it is tried again every second, and what there is no room for is dropped");
        }
        false
    }

    fn succeed(&mut self) {
        if self.failing.take().is_some() {
            self.trail.is_writing.set(1);
            let (file, dropped) = (self.file.path().display(), self.trail.dropped.get() - self.told);
            tracing::warn!(%file, dropped, "the audit is written again");
        }
    }

    fn sync(&mut self, now: Moment) {
        if std::mem::take(&mut self.unsynced)
            && let Err(error) = self.file.sync()
        {
            self.fail(now, &error);
        }
    }
}
