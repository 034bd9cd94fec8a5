//! Sockets to be sent to, and a thread that reads all that is sent.
//!
//! The reader never sleeps, so that no send pays for waking it (what that costs [`waking`](crate::waking) asks). A pass
//! over the sockets begins only when all of the last one has been read, so that no socket is ever full; should one be,
//! that is counted and said.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{Timespec, epoll},
    io::Errno,
    net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg},
};

use crate::{
    cpu::{Cores, Time},
    rounds::{self, Spread},
};

/// Sockets that are sent to: enough that one isn't still in a cache from the last pass.
pub const MEMBERS: usize = 250;

/// How long passes are repeated for one sample.
const SAMPLE: Duration = Duration::from_millis(12);

/// Sockets, all read by one thread until they are dropped.
pub struct Crowd {
    members: Vec<TcpStream>,
    out: Outgoing,
    /// How much has been read.
    drained: Arc<AtomicU64>,
    time: Time,
    reader: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Connects [`MEMBERS`] sockets over loopback.
    pub fn new(cores: Cores) -> io::Result<Crowd> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (mut members, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..MEMBERS {
            ends.push(TcpStream::connect(listener.local_addr()?)?);
            let (member, _) = listener.accept()?;
            member.set_nodelay(true)?;
            members.push(member);
        }
        let drained = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&drained);
        let reader = thread::Builder::new().name("receivers".into()).spawn(move || {
            cores.pin_second();
            drain(&ends, &count).expect("epoll and sockets that are open");
        })?;
        Ok(Crowd { members, out: Outgoing::default(), drained, time: Time::default(), reader: Some(reader) })
    }

    /// Measures ways of a pass over the members; what each takes for one member.
    pub fn interleaved<W: Copy>(
        &mut self,
        ways: &[W],
        mut pass: impl FnMut(W, &[TcpStream], &mut Outgoing),
    ) -> Vec<Spread> {
        rounds::interleaved(ways, |way| self.sample(|members, out| pass(way, members, out)))
    }

    fn sample(&mut self, mut pass: impl FnMut(&[TcpStream], &mut Outgoing)) -> f64 {
        let (begun, mut time, mut passes) = (Instant::now(), Time::default(), 0);
        while passes == 0 || begun.elapsed() < SAMPLE {
            time.add(Time::of(|| pass(&self.members, &mut self.out)));
            passes += 1;
            // Relaxed: it is a count, nothing else is read because of it.
            while self.drained.load(Ordering::Relaxed) < self.out.bytes {
                std::hint::spin_loop();
            }
        }
        self.time.add(time);
        time.cpu / f64::from(passes) / self.members.len() as f64
    }

    /// Prints what speaks for or against the figures.
    pub fn print_doubts(&self) {
        println!(
            "\n{} sends, {} of them short; the sender had its core {:.1} % of the time.",
            self.out.sends,
            self.out.short,
            self.time.presence()
        );
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.members.clear();
        // The reader has seen all ends; nothing disturbs the next question.
        let _ = self.reader.take().map(JoinHandle::join);
    }
}

/// What has been sent.
#[derive(Default)]
pub struct Outgoing {
    bytes: u64,
    sends: u64,
    /// Sends that took less than they were given.
    short: u64,
}

impl Outgoing {
    /// Sends bytes with one call.
    pub fn send(&mut self, socket: &TcpStream, bytes: &[u8]) {
        self.count(send(socket, bytes, FLAGS), bytes.len());
    }

    /// Sends bytes with as many calls as it takes with at most `max` in each.
    pub fn send_in_pieces(&mut self, socket: &TcpStream, bytes: &[u8], max: usize) {
        bytes.chunks(max).for_each(|piece| self.send(socket, piece));
    }

    /// Sends what lies scattered with one call.
    pub fn send_slices(&mut self, socket: &TcpStream, slices: &[IoSlice<'_>]) {
        let len = slices.iter().map(|slice| slice.len()).sum();
        self.count(sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), FLAGS), len);
    }

    fn count(&mut self, taken: Result<usize, Errno>, len: usize) {
        let taken = match taken {
            Ok(taken) => taken,
            Err(Errno::AGAIN) => 0,
            Err(error) => panic!("send: {error}"),
        };
        self.bytes += taken as u64;
        self.sends += 1;
        self.short += u64::from(taken < len);
    }
}

/// As the server sends.
const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// Reads from all sockets, and says how much, until all have ended.
fn drain(sockets: &[TcpStream], drained: &AtomicU64) -> io::Result<()> {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (nth, socket) in sockets.iter().enumerate() {
        epoll::add(&set, socket, epoll::EventData::new_u64(nth as u64), epoll::EventFlags::IN)?;
    }
    let (mut open, mut total, mut buffer) = (sockets.len(), 0, vec![0; 256 * 1024]);
    let mut events = [const { MaybeUninit::uninit() }; MEMBERS];
    let at_once = Timespec::default();
    while open > 0 {
        let (ready, _) = epoll::wait(&set, &mut events, Some(&at_once))?;
        for event in ready {
            let socket = &sockets[event.data.u64() as usize];
            let (read, _) = recv(socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
            if read == 0 {
                epoll::delete(&set, socket)?;
                open -= 1;
            }
            total += read as u64;
            // Relaxed: pairs with the load in `sample`, which wants nothing but the count.
            drained.store(total, Ordering::Relaxed);
        }
    }
    Ok(())
}
