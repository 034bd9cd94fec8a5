//! The service manager that has started this process, if it wants to be told how it goes: systemd, with `Type=notify`.
//!
//! It is told by datagrams of lines (`sd_notify(3)`) when the server listens, reads its settings again and stops; and where it keeps a
//! watchdog (`WATCHDOG_USEC`), in half of that time that the server goes on, as long as it does. The socket is looked up for
//! each datagram, and waited for a second at most: a manager that reads nothing holds nobody up.
//!
//! These are a few lines of our own since the crates for it lack what is needed: sd-notify 0.5 takes an abstract socket for a file and
//! waits for ever, libsystemd brings D-Bus's journal and hashing along.

use std::{
    env, io,
    os::{linux::net::SocketAddrExt, unix::net},
    process,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use rustix::time::{ClockId, clock_gettime};

use super::TARGET;
use crate::panic::spawn;

/// How long a manager that doesn't read is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whoever is to be told, if there is somebody.
pub(super) struct Manager {
    socket: Option<(net::UnixDatagram, net::SocketAddr)>,
    watchdog: Option<Duration>,
}

/// What there is to tell.
pub(super) enum News<'a> {
    /// It listens, as the sentence says.
    Ready(&'a str),
    /// It reads its settings again. The next news is [`News::Ready`], whatever comes of it.
    Reloading,
    /// It stops, which takes so long at most.
    Stopping(Duration),
    /// It could not start, because of this.
    Failed(&'a str),
    /// It goes on.
    Watchdog,
}

impl Manager {
    /// The one that the environment names.
    pub fn of_environment() -> Manager {
        let socket = env::var("NOTIFY_SOCKET").ok().and_then(|name| match socket(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(target: TARGET, "NOTIFY_SOCKET={name}: {error}: the service manager is told nothing");
                None
            }
        });
        let [for_us, time] = ["WATCHDOG_PID", "WATCHDOG_USEC"].map(|name| env::var(name).ok());
        let watchdog = watchdog(for_us.as_deref(), time.as_deref()).filter(|_| socket.is_some());
        Manager { socket, watchdog }
    }

    /// Tells it. That it can't be told is logged, and changes nothing else.
    pub fn tell(&self, news: &News<'_>) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(news.text().as_bytes(), address) {
            tracing::warn!(target: TARGET, %error, "the service manager could not be told");
        }
    }

    /// Keeps its watchdog quiet as long as `goes_on` says so, if it has one: from now on, and once it is told to
    /// [`Watch::let_stop`], in any case.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn watch(
        self: &Arc<Manager>,
        goes_on: impl FnMut() -> Result<(), String> + Send + 'static,
    ) -> io::Result<Option<Watch>> {
        let Some(time) = self.watchdog else { return Ok(None) };
        let (stop, stopping) = unbounded();
        let manager = Arc::clone(self);
        let thread = spawn("watchdog".into(), move || keep(&manager, time, &stopping, goes_on))?;
        Ok(Some(Watch { stop, thread }))
    }
}

/// The thread that keeps the watchdog quiet.
pub(super) struct Watch {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// The server stops: its threads end one after the other, which is not to be taken for standing still. How long that may take is for
    /// the manager's own patience (`TimeoutStopSec=`).
    pub fn let_stop(&self) {
        let _ = self.stop.send(());
    }

    /// Ends it.
    pub fn end(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

fn keep(manager: &Manager, time: Duration, stopping: &Receiver<()>, mut goes_on: impl FnMut() -> Result<(), String>) {
    let (mut stops, mut stood) = (false, false);
    loop {
        // Once something stands still there is half of the time left for it to go on, so it is looked more often.
        match stopping.recv_timeout(time / if stood { 8 } else { 2 }) {
            Ok(()) => stops = true,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let stands = if stops { None } else { goes_on().err() };
        if let Some(who) = stands.as_ref().filter(|_| !stood) {
            tracing::error!(target: TARGET, "{who}: the service manager's watchdog is not kept quiet any more");
        }
        stood = stands.is_some();
        if !stood {
            manager.tell(&News::Watchdog);
        }
    }
}

impl News<'_> {
    fn text(&self) -> String {
        match self {
            News::Ready(sentence) => format!("READY=1\nSTATUS={}\n", line(sentence)),
            News::Reloading => {
                format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=Reads its settings again\n", monotonic_us())
            }
            News::Stopping(most) => {
                format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}\nSTATUS=Sends what is left, and closes\n", most.as_micros())
            }
            News::Failed(why) => format!("STATUS={}\n", line(why)),
            News::Watchdog => "WATCHDOG=1\n".to_owned(),
        }
    }
}

/// On one line: another would be another message.
fn line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// By the clock that the manager compares with.
fn monotonic_us() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000)
}

/// A path, or `@` and an abstract name.
fn socket(name: &str) -> io::Result<(net::UnixDatagram, net::SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => net::SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => net::SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::other("neither a path from / on nor @ and a name")),
    };
    let socket = net::UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok((socket, address))
}

/// In what time the manager wants to hear of this process, if it does (`sd_watchdog_enabled(3)`).
fn watchdog(for_us: Option<&str>, time: Option<&str>) -> Option<Duration> {
    let is_ours = for_us.is_none_or(|pid| pid.parse() == Ok(process::id()));
    let time = time?.parse().ok().filter(|us| is_ours && *us > 0);
    time.map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_for_the_process_that_it_names_and_has_a_time() {
        let own = process::id().to_string();
        for (for_us, time, found) in [
            (None, Some("30000000"), Some(30)),
            (Some(&*own), Some("30000000"), Some(30)),
            (Some("1"), Some("30000000"), None),
            (Some(""), Some("30000000"), None),
            (None, Some("0"), None),
            (None, Some("soon"), None),
            (Some(&*own), None, None),
        ] {
            assert_eq!(watchdog(for_us, time), found.map(Duration::from_secs), "{for_us:?} {time:?}");
        }
    }

    #[test]
    fn a_sentence_stays_a_line() {
        assert_eq!(News::Ready("a\nWATCHDOG=1").text(), "READY=1\nSTATUS=a WATCHDOG=1\n");
    }

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        assert!(socket("/run/systemd/notify").is_ok() && socket("@stentor/test").is_ok());
        for name in ["", "vsock:2:1234", "run/notify"] {
            assert!(socket(name).is_err(), "{name}");
        }
    }

    #[test]
    fn nothing_is_said_of_what_stands_still_until_it_goes_on() {
        let name = format!("stentor-watchdog-{}", process::id());
        let address = net::SocketAddr::from_abstract_name(&name).unwrap();
        let heard = net::UnixDatagram::bind_addr(&address).unwrap();
        heard.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let manager =
            Manager { socket: Some(socket(&format!("@{name}")).unwrap()), watchdog: Some(Duration::from_millis(80)) };
        let (looked, looks) = crossbeam_channel::unbounded();
        let mut count = 0;
        let watch = Arc::new(manager).watch(move || {
            count += 1;
            looked.send(count).unwrap();
            if (3..=5).contains(&count) || count > 6 { Err("somebody stands still".to_owned()) } else { Ok(()) }
        });
        let watch = watch.unwrap().unwrap();
        let mut text = [0; 64];
        let mut hear = || {
            let len = heard.recv(&mut text).unwrap();
            assert_eq!(&text[..len], b"WATCHDOG=1\n");
        };
        (0..2).for_each(|_| hear());
        while looks.recv().unwrap() < 5 {}
        heard.set_nonblocking(true).unwrap();
        assert_eq!(heard.recv(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        heard.set_nonblocking(false).unwrap();
        let hear = || assert_eq!(heard.recv(&mut [0; 64]).unwrap(), b"WATCHDOG=1\n".len());
        hear();
        while looks.recv().unwrap() < 8 {}
        watch.let_stop();
        (0..2).for_each(|_| hear());
        watch.end();
    }
}
