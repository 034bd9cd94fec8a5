//! A link between two network namespaces that has a delay and loses packets, for kernels that have no netem.
//!
//! ```sh
//! cargo run -p loadgen --example link -- --delay 50ms --loss 1% /proc/PID/ns/net:link0 /proc/PID/ns/net:link0
//! ```
//!
//! Makes a TUN device in each namespace, says `up` when both are there, and carries packets from one to the other until SIGINT or SIGTERM. The devices
//! vanish with it; addresses and routes are for others to set (`scripts/links`). Each direction is a [`Lane`] with a thread of its own: a packet is
//! read, lost or put in line by the moment at which it is due, and written when that has come. There is no limit to the rate; what is under way is
//! bounded in packets and bytes, and what finds no room is dropped and counted. In the end it says what it did, a line of JSON for each direction, and
//! how late packets left: so late was this program, not the link.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    num::NonZeroU64,
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use loadgen::{
    clock,
    meter::{Times, times},
    output::terminal::print,
    units::{Bytes, Share, Span},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Mode, OFlags, open},
    io::Errno,
    thread::{LinkNameSpaceType, move_into_link_name_space},
    time::Timespec,
};

/// A link between two network namespaces that has a delay and loses packets.
#[derive(Parser, Debug)]
struct Settings {
    /// One end: a namespace and the name of the device there, like /proc/PID/ns/net:link0
    one: End,
    /// The other end
    other: End,
    /// How long a packet takes, each way
    #[arg(long, value_name = "TIME", default_value = "0ms")]
    delay: Span,
    /// Share of the packets that are lost, each way
    #[arg(long, value_name = "SHARE", default_value = "0%")]
    loss: Share,
    /// What chance follows from: the same packets of a sequence are lost
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Packets that may be under way, each way
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    packets_max: usize,
    /// Bytes that may be under way, each way
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    bytes_max: Bytes,
}

/// Where a device is made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct End {
    namespace: String,
    device: String,
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{text}` {why}: write it like /proc/PID/ns/net:link0");
        let (namespace, device) = text.rsplit_once(':').ok_or_else(|| wrong("names no device"))?;
        match (namespace.len(), device.len()) {
            (0, _) => Err(wrong("names no namespace")),
            (_, 1..=NAME_MAX) => Ok(Self { namespace: namespace.into(), device: device.into() }),
            _ => Err(wrong("has a device's name that is not of 1 to 15 bytes")),
        }
    }
}

fn main() -> ExitCode {
    match run(&Settings::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("link: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("asking for signals")?;
    }
    let (one, other) = (device(&settings.one)?, device(&settings.other)?);
    print("up\n")?;
    let lanes = [Lane::new(settings, settings.seed), Lane::new(settings, settings.seed ^ u64::MAX)];
    let stop = &stop;
    let carried = thread::scope(|scope| {
        let ways = [(&one, &other), (&other, &one)].into_iter().zip(lanes);
        let start = |((from, to), lane)| {
            scope.spawn(move || {
                let carried = carry(from, to, lane, stop);
                // A link that goes one way is none.
                stop.store(true, Ordering::Relaxed);
                carried
            })
        };
        let threads: Vec<_> = ways.map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("a lane does not panic")).collect::<Vec<_>>()
    });
    for (lane, way) in carried.into_iter().zip(["there", "back"]) {
        print(&lane?.line(way))?;
    }
    Ok(())
}

/// One direction: what is under way in it, in the order in which it is due.
struct Lane {
    delay: u64,
    loss: f64,
    chance: fastrand::Rng,
    packets_max: usize,
    bytes_max: usize,
    under_way: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
    /// Buffers of packets that have left.
    spare: Vec<Vec<u8>>,
    counts: Counts,
    /// How long behind their moment packets left.
    late: Times,
}

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    carried: u64,
    bytes: u64,
    /// Lost as asked.
    lost: u64,
    /// Dropped because too much was under way.
    no_room: u64,
    /// The other device did not take it.
    refused: u64,
}

impl Lane {
    fn new(settings: &Settings, seed: u64) -> Self {
        Self {
            delay: settings.delay.0,
            loss: settings.loss.0,
            chance: fastrand::Rng::with_seed(seed),
            packets_max: settings.packets_max,
            bytes_max: settings.bytes_max.0,
            under_way: VecDeque::new(),
            bytes: 0,
            spare: Vec::new(),
            counts: Counts::default(),
            late: times(),
        }
    }

    /// Takes a packet in, unless it is lost or there is no room.
    fn take(&mut self, packet: &[u8], now: u64) {
        // A number is drawn for each, so that which are lost depends on nothing but the seed and how many came before.
        if self.chance.f64() < self.loss {
            self.counts.lost += 1;
        } else if self.under_way.len() >= self.packets_max || self.bytes + packet.len() > self.bytes_max {
            self.counts.no_room += 1;
        } else {
            let mut buffer = self.spare.pop().unwrap_or_default();
            buffer.clear();
            buffer.extend_from_slice(packet);
            self.bytes += packet.len();
            self.under_way.push_back((now + self.delay, buffer));
        }
    }

    /// When the next packet is due.
    fn next(&self) -> Option<u64> {
        self.under_way.front().map(|(due, _)| *due)
    }

    /// Hands over the next packet if it is due; `send` says whether it was taken.
    fn give(&mut self, now: u64, send: impl FnOnce(&[u8]) -> bool) -> bool {
        let Some((due, packet)) = self.under_way.pop_front_if(|(due, _)| *due <= now) else { return false };
        self.bytes -= packet.len();
        self.late.saturating_record(now - due);
        if send(&packet) {
            self.counts.carried += 1;
            self.counts.bytes += packet.len() as u64;
        } else {
            self.counts.refused += 1;
        }
        if self.spare.len() < SPARE_MAX {
            self.spare.push(packet);
        }
        true
    }

    fn line(&self, way: &str) -> String {
        let Counts { carried, bytes, lost, no_room, refused } = self.counts;
        let (p50, p99, max) = (self.late.value_at_quantile(0.5), self.late.value_at_quantile(0.99), self.late.max());
        format!(
            "{{\"way\":\"{way}\",\"carried\":{carried},\"bytes\":{bytes},\"lost\":{lost},\"no_room\":{no_room},\"refused\":{refused},\
             \"late_ns\":{{\"p50\":{p50},\"p99\":{p99},\"max\":{max}}}}}\n"
        )
    }
}

/// Carries packets one way until it is told to stop.
fn carry(from: &OwnedFd, to: &OwnedFd, mut lane: Lane, stop: &AtomicBool) -> Result<Lane> {
    // Where it may, it goes first, so that the delay is the link's and not that of a queue for the processor.
    let _ = rustix::process::setpriority_process(None, NICE);
    let _ = rustix::thread::set_current_timer_slack(Some(NonZeroU64::MIN));
    let mut buffer = vec![0; PACKET_MAX];
    // Relaxed: the flag is all that is told.
    while !stop.load(Ordering::Relaxed) {
        let wait = lane.next().map_or(LOOK_NS, |due| due.saturating_sub(clock::now()).min(LOOK_NS));
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait as i64 };
        match poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => bail!("waiting for packets: {}", io::Error::from(error)),
        }
        for _ in 0..BATCH {
            match rustix::io::read(from, &mut buffer) {
                Ok(len) => lane.take(&buffer[..len], clock::now()),
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => bail!("reading a packet: {}", io::Error::from(error)),
            }
        }
        while lane.give(clock::now(), |packet| rustix::io::write(to, packet).is_ok()) {}
    }
    Ok(lane)
}

/// Makes a device where it belongs. A thread goes there to do so, since a namespace is a thread's; the descriptor works from anywhere.
fn device(end: &End) -> Result<OwnedFd> {
    let End { namespace, device } = end;
    let make = || -> Result<OwnedFd> {
        let place = File::open(namespace).with_context(|| format!("opening the namespace {namespace}"))?;
        move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("going to the namespace {namespace}"))?;
        // The file is of the namespace that it was opened in, and so is the device.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let tun = open("/dev/net/tun", flags, Mode::empty()).context("opening /dev/net/tun")?;
        attach(&tun, device).with_context(|| format!("making the device {device} in {namespace}"))?;
        Ok(tun)
    };
    thread::scope(|scope| scope.spawn(make).join().expect("making a device does not panic"))
}

/// Makes the open TUN file a device of that name in the thread's namespace (Linux, networking/tuntap.rst): one packet a read, without a header before it.
#[allow(unsafe_code)]
fn attach(tun: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    let mut request = Request { name: [0; NAME_MAX + 1], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // Safety: no safe interface of the kernel names a device. TUNSETIFF takes a pointer to a `struct ifreq` of 40 bytes, which `Request` is: a
    // name that ends with a zero, and flags; the kernel keeps no pointer to it.
    unsafe { rustix::ioctl::ioctl(tun, rustix::ioctl::Setter::<TUNSETIFF, Request>::new(request)) }
}

/// `struct ifreq` of `<linux/if.h>`, as far as TUN looks.
///
/// ```text
///  0               16      18            40
///  +-- name, \0 --+-flags-+-- unused ---+
/// ```
#[repr(C)]
struct Request {
    name: [u8; NAME_MAX + 1],
    flags: u16,
    rest: [u8; 22],
}

/// `<linux/if_tun.h>`.
const TUNSETIFF: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<i32>(b'T', 202);
const IFF_TUN: u16 = 0x0001;
const IFF_NO_PI: u16 = 0x1000;

/// IFNAMSIZ, without the zero at the end.
const NAME_MAX: usize = 15;

/// The largest packet of IPv4.
const PACKET_MAX: usize = 65_535;

/// Packets read before those that are due are looked at: some 100 us of work.
const BATCH: usize = 64;

/// Buffers kept: what 10,000 packets a second over 50 ms take, twice.
const SPARE_MAX: usize = 1024;

/// How often it looks whether it is to end.
const LOOK_NS: u64 = 100_000_000;

/// As the generator's publisher.
const NICE: i32 = -10;

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(arguments: &str) -> Lane {
        let arguments = format!("link {arguments} /proc/1/ns/net:a /proc/2/ns/net:b");
        let settings = Settings::try_parse_from(arguments.split_whitespace()).unwrap();
        Lane::new(&settings, settings.seed)
    }

    /// Everything that leaves until `now`.
    fn leaving(lane: &mut Lane, now: u64) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        while lane.give(now, |packet| {
            out.push(packet.to_vec());
            true
        }) {}
        out
    }

    #[test]
    fn a_packet_leaves_when_its_time_has_come_and_not_before() {
        let mut lane = lane("--delay 5ms");
        lane.take(b"first", 1_000);
        lane.take(b"second", 2_000);
        assert_eq!(lane.next(), Some(5_001_000));
        assert_eq!(leaving(&mut lane, 5_000_999), Vec::<Vec<u8>>::new());
        assert_eq!(leaving(&mut lane, 5_001_999), [b"first"]);
        assert_eq!(leaving(&mut lane, 5_002_500), [b"second"]);
        assert_eq!((lane.next(), lane.late.max()), (None, 999));
    }

    #[test]
    fn what_is_beyond_its_bounds_is_dropped_and_counted_and_room_comes_back() {
        let mut packets = lane("--packets-max 2");
        (0..3).for_each(|_| packets.take(b"1234", 0));
        assert_eq!(packets.counts, Counts { no_room: 1, ..Counts::default() });
        assert_eq!(leaving(&mut packets, 0).len(), 2);
        packets.take(b"1234", 0);
        assert_eq!(packets.counts, Counts { carried: 2, bytes: 8, no_room: 1, ..Counts::default() });

        let mut bytes = lane("--bytes-max 10");
        (0..3).for_each(|_| bytes.take(b"1234", 0));
        assert_eq!((bytes.counts.no_room, bytes.bytes), (1, 8));
        assert_eq!((leaving(&mut bytes, 0).len(), bytes.bytes), (2, 0));
    }

    #[test]
    fn as_many_are_lost_as_was_asked_and_the_same_ones_again() {
        let kept = |arguments: &str| {
            let mut lane = lane(arguments);
            (0..100_000u32).for_each(|nth| lane.take(&nth.to_be_bytes(), 0));
            leaving(&mut lane, 0)
        };
        let (once, again, other) = (kept("--loss 1%"), kept("--loss 1%"), kept("--loss 1% --seed 2"));
        assert!((98_700..99_300).contains(&once.len()), "{}", once.len());
        assert!(once == again && once != other);
        assert_eq!(kept("").len(), 100_000);
        assert_eq!(kept("--loss 100%").len(), 0);
    }

    #[test]
    fn what_the_other_device_does_not_take_is_counted_and_not_kept() {
        let mut lane = lane("");
        lane.take(b"1234", 0);
        assert!(lane.give(0, |_| false));
        assert_eq!((lane.counts, lane.bytes), (Counts { refused: 1, ..Counts::default() }, 0));
    }

    #[test]
    fn an_end_is_a_namespace_and_a_device() {
        let end: End = "/proc/7/ns/net:link0".parse().unwrap();
        assert_eq!((end.namespace.as_str(), end.device.as_str()), ("/proc/7/ns/net", "link0"));
        for wrong in ["link0", ":link0", "/proc/7/ns/net:", "/proc/7/ns/net:a-name-that-is-long"] {
            let error = wrong.parse::<End>().unwrap_err();
            assert!(error.contains(wrong) && error.contains("link0"), "{error}");
        }
    }
}
