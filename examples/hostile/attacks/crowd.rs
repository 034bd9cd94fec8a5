//! Crowds that read what they are sent and answer pings, each of which is as honest as can be: what hurts is how many they are, or
//! what they all want. Whoever of them is closed has been wronged, and says so, unless it was too slow: they share what is left of
//! one core.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Attack, Attacker, attack, step, wire};

/// Pings, and judges who doesn't answer, within the time that an attack takes.
const SOON: &[&str] = &["--heartbeat", "1s", "--idle-timeout", "3s"];

pub const CROWD: Attack = attack(
    "crowd",
    "1 address, 3,000 clients with subscriptions of their own that read and answer pings, and as many publications as the server \
     takes: nobody may be closed for silence",
    crowd,
)
.memory(64, 32)
.with(SOON);

fn crowd(attacker: &Attacker) {
    let count = attacker.count(3000);
    let mut crowd = Crowd::of(attacker, count, |n| attacker.upgraded(&format!("/ws?topics=attack.own.{n},attack.all")));
    let some = wire::publish_lines((0..count).map(|n| format!("attack.own.{n}")), "1");
    publish_meanwhile(attacker, &mut crowd, &some);
}

pub const TICKS: Attack = attack(
    "ticks",
    "1 address, 500 clients that read, each with 16 topics at 16 rates of about 1,000 a second, and a publisher of all of them",
    ticks,
)
.memory(64, 32);

fn ticks(attacker: &Attacker) {
    let rate = |n: usize| {
        let rate = 1000 - n;
        wire::command(&format!(r#"{{"op":"sub","topics":["attack.rate.{n}"],"mode":"latest","rate":{rate}}}"#))
    };
    let subs: Vec<u8> = (0..16).flat_map(rate).collect();
    let mut crowd = Crowd::of(attacker, attacker.count(500), |_| {
        attacker.upgraded("/ws").and_then(|mut stream| stream.write_all(&subs).ok().map(|()| stream))
    });
    let some = wire::publish_lines((0..16).map(|n| format!("attack.rate.{n}")), "1");
    publish_meanwhile(attacker, &mut crowd, &some);
}

pub const ONE_TICK: Attack = attack(
    "one-tick",
    "1 address, 4,000 clients that read, all with one topic at one rate: all of them tick together",
    one_tick,
)
.memory(64, 32);

fn one_tick(attacker: &Attacker) {
    let sub = wire::command(r#"{"op":"sub","topics":["attack.tick"],"mode":"latest","rate":20}"#);
    let mut crowd = Crowd::of(attacker, attacker.count(4000), |_| {
        attacker.upgraded("/ws").and_then(|mut stream| stream.write_all(&sub).ok().map(|()| stream))
    });
    let some = wire::publish_lines(["attack.tick".to_owned()].into_iter(), "1");
    publish_meanwhile(attacker, &mut crowd, &some);
}

pub const TOGETHER: Attack = attack(
    "together",
    "1 address, 5,000 clients that came together and answer pings: all of them are due together, for ever",
    together,
)
.memory(32, 16)
.with(SOON);

fn together(attacker: &Attacker) {
    let mut crowd = Crowd::of(attacker, attacker.count(5000), |_| attacker.upgraded("/ws"));
    attacker.settled();
    while attacker.goes_on() {
        crowd.read(attacker);
    }
}

pub const SILENT_TOGETHER: Attack = attack(
    "silent-together",
    "1 address, 5,000 clients that came together and answer no ping: all of them are closed together",
    silent_together,
)
.memory(32, 16)
.with(SOON);

fn silent_together(attacker: &Attacker) {
    let come =
        || (0..attacker.count(5000)).map_while(|_| attacker.goes_on().then(|| attacker.upgraded("/ws"))).flatten();
    let mut held: Vec<TcpStream> = come().collect();
    attacker.settled();
    let mut since = Instant::now();
    while attacker.pause(Duration::from_millis(20)) {
        // Longer than they are given.
        if since.elapsed() > Duration::from_secs(7) {
            held.clear();
            (held, since) = (come().collect(), Instant::now());
        }
    }
}

pub const LEAVE_TOGETHER: Attack = attack(
    "leave-together",
    "1 address, 5,000 subscribers of 20 names each, each of which is a cohort, that all leave at once",
    leave_together,
)
.memory(128, 64);

fn leave_together(attacker: &Attacker) {
    let names: Vec<String> = (0..19).map(|n| format!("attack.name.{n}")).collect();
    let names = names.join(",");
    while attacker.goes_on() {
        let come = |n: usize| attacker.upgraded(&format!("/ws?topics={names},attack.own.{n}"));
        let held: Vec<_> = (0..attacker.count(5000)).map_while(|n| attacker.goes_on().then(|| come(n))).collect();
        attacker.settled();
        drop(held);
        attacker.pause(Duration::from_millis(500));
    }
}

pub const BACKLOGS: Attack = attack(
    "backlogs",
    "1 address, 10 clients that ask for 15 MB of last values and take 40 KB at a time: what is left of them moves each time",
    backlogs,
)
.memory(192, 48);

fn backlogs(attacker: &Attacker) {
    attacker.publish_topics("attack.values", attacker.count(3600), &format!("\"{}\"", "x".repeat(4000)));
    let mut buffer = vec![0; 40_000];
    let open = |_| attacker.upgraded("/ws?topics=attack.values.%3E");
    attacker.hold(attacker.count(10), open, Duration::from_millis(1), |stream| {
        let _ = stream.set_nonblocking(true);
        let _ = stream.read(&mut buffer);
    });
}

pub const ROUNDS: Attack = attack(
    "rounds",
    "1 address, 100 subscribers of newest values of 20,000 topics that take a little at a time, and a publisher of ten of them: a \
     round looks at all topics for the few that changed",
    rounds,
)
.memory(128, 48);

fn rounds(attacker: &Attacker) {
    attacker.publish_topics("attack.told", attacker.count(20_000), "1");
    let sub = wire::command(r#"{"op":"sub","topics":["attack.told.>"],"mode":"latest","snapshot":false}"#);
    let some = wire::publish_lines((0..10).map(|n| format!("attack.told.{n}")), &format!("\"{}\"", "x".repeat(8000)));
    let open = |_| attacker.upgraded("/ws").and_then(|mut stream| stream.write_all(&sub).ok().map(|()| stream));
    let (mut buffer, mut published) = (vec![0; 4096], Instant::now());
    attacker.hold(attacker.count(100), open, Duration::from_millis(5), |stream| {
        let _ = stream.set_nonblocking(true);
        let _ = stream.read(&mut buffer);
        if published.elapsed() > Duration::from_millis(10) {
            published = Instant::now();
            attacker.exchange(&some);
        }
    });
}

pub const STALLED_CROWD: Attack = attack(
    "stalled-crowd",
    "1 address, 4,500 subscribers of everything that read nothing, and 8 MB/s for them: who walks those that are behind, and how often",
    stalled_crowd,
)
.memory(64, 48);

fn stalled_crowd(attacker: &Attacker) {
    let some = wire::publish_lines((0..40).map(|n| format!("attack.{n}")), &format!("\"{}\"", "x".repeat(4000)));
    let mut published = Instant::now();
    let open = |_| attacker.upgraded("/ws?topics=attack.%3E").inspect(wire::take_little);
    attacker.hold(attacker.count(4500), open, Duration::from_millis(5), |_| {
        if published.elapsed() > Duration::from_millis(20) {
            published = Instant::now();
            attacker.exchange(&some);
        }
    });
}

/// Publishes the same over and over while the crowd reads. A publisher that is held back is no wrong.
fn publish_meanwhile(attacker: &Attacker, crowd: &mut Crowd, some: &[u8]) {
    attacker.settled();
    let mut hose: Option<super::Hose> = None;
    let mut buffer = vec![0; 64 * 1024];
    // Many on one connection.
    let some = String::from_utf8_lossy(some).replacen("Connection: close\r\n", "", 1).into_bytes();
    while attacker.goes_on() {
        crowd.read(attacker);
        if hose.is_none() {
            hose = attacker.connect().map(super::Hose::new);
        }
        if hose.as_mut().is_some_and(|hose| hose.turn(&some, Some(&mut buffer)).is_none()) {
            hose = None;
        }
    }
}

/// See the module's description.
struct Crowd {
    guests: Vec<Guest>,
    buffer: Vec<u8>,
}

struct Guest {
    stream: TcpStream,
    frames: Frames,
}

/// How one has ended.
#[derive(Debug)]
enum End {
    Silent,
    Reset,
    Code(u16),
}

/// It fell off the tape.
const FELL: u16 = 4100;

impl Crowd {
    /// So many, each made by `open`. They are looked after while the others come.
    fn of(attacker: &Attacker, count: usize, open: impl Fn(usize) -> Option<TcpStream>) -> Crowd {
        let mut crowd = Crowd { guests: Vec::new(), buffer: vec![0; 64 * 1024] };
        for n in 0..count {
            if !attacker.goes_on() {
                break;
            }
            let stream = open(n);
            if let Some(stream) = stream
                && stream.set_nonblocking(true).is_ok()
            {
                crowd.guests.push(Guest { stream, frames: Frames::default() });
            }
            if n % 200 == 0 {
                crowd.read(attacker);
            }
        }
        attacker.holds(crowd.guests.len());
        crowd
    }

    /// Reads what has come for each of them, and answers; waits for it for a moment.
    fn read(&mut self, attacker: &Attacker) {
        let Crowd { guests, buffer } = self;
        let ready: Vec<bool> = {
            let fds = guests.iter().map(|guest| PollFd::from_borrowed_fd(guest.stream.as_fd(), PollFlags::IN));
            let mut fds: Vec<PollFd<'_>> = fds.collect();
            let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 2_000_000 }));
            fds.iter().map(|fd| !fd.revents().is_empty()).collect()
        };
        let mut ready = ready.into_iter();
        guests.retain_mut(|guest| {
            if !ready.next().unwrap_or_default() {
                return true;
            }
            match guest.read(buffer) {
                Ok(()) => return true,
                Err(End::Code(FELL)) => {}
                Err(end) => attacker.wronged(&format!("a client that reads and answers pings was ended: {end:?}")),
            }
            false
        });
    }
}

impl Guest {
    /// Reads once; an error says how it ended.
    fn read(&mut self, buffer: &mut [u8]) -> Result<(), End> {
        let len = match self.stream.read(buffer) {
            Ok(0) => return Err(End::Silent),
            read => step(read).ok_or(End::Reset)?,
        };
        self.frames.take(&buffer[..len], |opcode, payload| match opcode {
            9 => {
                // There is room for the few bytes, or it is a wrong that shows.
                let _ = self.stream.write(&wire::frame(0x8a, payload));
                Ok(())
            }
            8 => Err(End::Code(payload.iter().take(2).fold(0, |code, byte| code << 8 | u16::from(*byte)))),
            _ => Ok(()),
        })
    }
}

/// The frames of a stream of bytes, of which the short ones are kept.
#[derive(Default)]
struct Frames {
    head: Vec<u8>,
    /// What is left of the frame that has begun, and its beginning.
    open: Option<(u8, usize, Vec<u8>)>,
}

/// No control frame has more.
const SHORT: usize = 125;

impl Frames {
    fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(u8, &[u8]) -> Result<(), End>) -> Result<(), End> {
        loop {
            if let Some((opcode, left, kept)) = &mut self.open {
                let some = bytes.len().min(*left);
                kept.extend_from_slice(&bytes[..some.min(SHORT - kept.len().min(SHORT))]);
                *left -= some;
                bytes = &bytes[some..];
                if *left > 0 {
                    return Ok(());
                }
                each(*opcode, kept)?;
                self.open = None;
            }
            let Some((first, rest)) = bytes.split_first() else { return Ok(()) };
            self.head.push(*first);
            bytes = rest;
            let len = match *self.head {
                [_, len @ 0..126] => usize::from(len),
                [_, 126, high, low] => usize::from(u16::from_be_bytes([high, low])),
                [_, 127, _, _, _, _, a, b, c, d] => u32::from_be_bytes([a, b, c, d]) as usize,
                _ => continue,
            };
            self.open = Some((self.head[0] & 0xf, len, Vec::new()));
            self.head.clear();
        }
    }
}
