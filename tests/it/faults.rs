//! What goes wrong around a server: its peers, its clock, its disk, its own end.
//!
//! Tests that need more than a user has (a network of their own, a clock that can be set) are ignored here and run by
//! `scripts/faults`.

use std::{
    fs::{self, File},
    io::Read,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use tungstenite::Message;

use crate::{
    client::{Client, upgraded},
    process::{Running, stentor, wait_for},
};

/// A client in a process of its own: bash connects and subscribes, cat reads.
struct Reader(Child);

impl Reader {
    fn start(address: SocketAddr, path: &str) -> Reader {
        Reader::of(Command::new("bash").arg("-c"), address, path)
    }

    /// Starts it by this command, to which the script is the last argument.
    fn of(command: &mut Command, address: SocketAddr, path: &str) -> Reader {
        let (host, port) = (address.ip(), address.port());
        let head =
            format!("GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n");
        let key = "Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n";
        let script = format!("exec 3<>/dev/tcp/{host}/{port} && printf '{head}{key}' >&3 && exec cat <&3");
        Reader(command.arg(script).stdout(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads updates on a topic whose data is the seq until told to stop; they have to be without a gap.
fn follow(mut client: Client, stop: &AtomicBool) -> u64 {
    let mut last = None;
    while !stop.load(Ordering::Relaxed) {
        let message = client.json();
        if message["type"] == "update" {
            let seq = message["seq"].as_u64().unwrap();
            assert!(last.is_none_or(|last| seq == last + 1), "{seq} behind {last:?}");
            last = Some(seq);
        }
    }
    last.unwrap_or(0)
}

#[test]
fn a_stopped_client_is_given_up_and_the_others_notice_nothing() {
    // With a full socket, a subscriber is slow for as long as it hasn't fallen off the tape: here, soon.
    let narrow = ["--segment", "64KiB", "--retain", "256KiB", "--sndbuf", "8KiB", "--idle-timeout", "1s"];
    let running = Running::start(&[&narrow[..], &["--workers", "1", "--pin", "none"]].concat());
    let stopped: Vec<Reader> = (0..10).map(|_| Reader::start(running.at(), "/ws?topics=a")).collect();
    running.until("websocket_connections", |count| count == 10.0);
    stopped.iter().for_each(|reader| reader.signal(Signal::STOP));
    let (stop, published) = (AtomicBool::new(false), AtomicU64::new(0));
    let (healthy, mut publisher) = (running.client("/ws?topics=a"), running.client("/ws"));
    thread::scope(|scope| {
        let follower = scope.spawn(|| follow(healthy, &stop));
        scope.spawn(|| {
            assert_eq!(publisher.json()["type"], "hello");
            while !stop.load(Ordering::Relaxed) {
                let ack = publisher.ask(r#"{"op":"pub","id":1,"topic":"a","data":1}"#);
                published.store(ack["seq"].as_u64().unwrap(), Ordering::Relaxed);
            }
            // So that the follower looks up.
            publisher.ask(r#"{"op":"pub","id":1,"topic":"a","data":1}"#);
        });
        running.until("websocket_connections", |count| count == 2.0);
        stop.store(true, Ordering::Relaxed);
        assert!(follower.join().unwrap() > 0);
    });
    assert!(published.load(Ordering::Relaxed) > 0);
    for mut reader in stopped {
        reader.signal(Signal::CONT);
        assert!(reader.0.wait().is_ok(), "it reads to the end of a connection that was given up");
    }
}

/// How many connections wait to be accepted, as the kernel says for this listening socket.
fn accept_queue(address: SocketAddr) -> usize {
    let wanted = format!(":{:04X} 00000000:0000 0A ", address.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().find_map(|line| line.split_once(&wanted)).expect("it listens");
    usize::from_str_radix(line.1.split([':', ' ']).nth(1).unwrap(), 16).unwrap()
}

#[test]
fn a_full_accept_queue_is_served_when_there_is_time() {
    let running = Running::start(&["--backlog", "2", "--workers", "1", "--pin", "none"]);
    running.signal(Signal::STOP);
    let address = running.at();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..20)
            .map(|_| scope.spawn(move || Client::try_connect(address, "/ws", &[]).unwrap().json()["type"].clone()))
            .collect();
        // One more than asked for is what Linux takes; the others' SYN is dropped and sent again.
        wait_for("a full queue", || accept_queue(address) > 2);
        running.signal(Signal::CONT);
        for client in clients {
            assert_eq!(client.join().unwrap(), "hello");
        }
    });
}

/// The port that a process listens on, which it can't say itself.
fn listening(pid: u32) -> Option<SocketAddr> {
    let inodes: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_ours = fields[3] == "0A" && inodes.iter().any(|inode| inode == fields[9]);
        let port = u16::from_str_radix(fields[1].split_once(':')?.1, 16).ok()?;
        is_ours.then(|| SocketAddr::from(([127, 0, 0, 1], port)))
    })
}

#[test]
fn a_log_on_a_full_disk_costs_the_log_and_nothing_else() {
    for format in ["text", "json"] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = stentor();
        let args = ["--listen", "127.0.0.1:0", "--log-level", "trace", "--log-format", format, "--pin", "none"];
        let mut child = command.args(args).stderr(full).spawn().unwrap();
        let mut address = None;
        wait_for("the port", || {
            address = listening(child.id());
            address.is_some()
        });
        for _ in 0..300 {
            let mut client = Client::try_connect(address.unwrap(), "/ws?topics=a", &[]).unwrap();
            assert_eq!(client.json()["type"], "hello");
        }
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

/// Comes back as the protocol says, and subscribes again: the epoch and the seq of the topic.
fn come_back(address: SocketAddr) -> (Client, String, u64) {
    let mut back = None;
    wait_for("the server", || {
        back = TcpStream::connect(address).ok().and_then(|_| Client::try_connect(address, "/ws?topics=a", &[]).ok());
        back.is_some()
    });
    let mut client = back.unwrap();
    assert_eq!(client.json()["type"], "hello");
    let ack = client.json();
    let topic = &ack["topics"][0];
    (client, topic["epoch"].as_str().unwrap().to_owned(), topic["seq"].as_u64().unwrap())
}

#[test]
fn after_kill_9_and_a_restart_clients_come_back_to_a_new_epoch() {
    let mut running = Running::start(&["--pin", "none"]);
    let address = running.at();
    let clients: Vec<_> = (0..20).map(|_| come_back(address)).collect();
    let mut publisher = running.client("/ws");
    assert_eq!(publisher.json()["type"], "hello");
    assert_eq!(publisher.ask(r#"{"op":"pub","id":1,"topic":"a","data":1}"#)["seq"], 1);
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    thread::scope(|scope| {
        let returned: Vec<_> = clients
            .into_iter()
            .map(|(mut client, before, _)| {
                scope.spawn(move || {
                    while client.socket.read().is_ok() {}
                    (before, come_back(address))
                })
            })
            .collect();
        let restarted = Running::spawn(stentor().args(["--listen", &address.to_string(), "--pin", "none"]));
        assert_eq!(restarted.at(), address);
        for client in returned {
            let (before, (mut client, after, seq)) = client.join().unwrap();
            assert_ne!(before, after);
            assert_eq!(seq, 0, "what was published is forgotten");
            assert_eq!(client.ask(r#"{"op":"ping"}"#)["type"], "pong");
        }
    });
}

#[test]
fn sigterm_in_the_middle_of_traffic_loses_nothing_that_was_acknowledged_before() {
    static ACKED: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
    let running = Running::start(&["--workers", "2", "--pin", "none"]);
    let address = running.at();
    let subscribers: Vec<_> = (0..8)
        .map(|_| {
            let mut client = running.client("/ws?topics=a.*");
            assert_eq!((client.json()["type"].clone(), client.json()["type"].clone()), ("hello".into(), "ack".into()));
            thread::spawn(move || {
                let mut last = [0; 4];
                loop {
                    match client.message() {
                        Message::Text(text) => {
                            let message: serde_json::Value = serde_json::from_str(&text).unwrap();
                            if message["type"] == "update" {
                                let topic: usize = message["topic"].as_str().unwrap()[2..].parse().unwrap();
                                last[topic] += 1;
                                assert_eq!(message["seq"], last[topic]);
                            }
                        }
                        Message::Close(frame) => return (last, u16::from(frame.unwrap().code)),
                        other => panic!("{other:?}"),
                    }
                }
            })
        })
        .collect();
    let publishers: Vec<_> = (0..4)
        .map(|topic| {
            let mut client = Client::try_connect(address, "/ws", &[]).unwrap();
            thread::spawn(move || {
                let text = format!(r#"{{"op":"pub","id":1,"topic":"a.{topic}","data":1}}"#);
                while client.socket.send(Message::text(text.as_str())).is_ok() {
                    match client.socket.read() {
                        Ok(Message::Text(answer)) if answer.contains(r#""seq":"#) => {
                            ACKED[topic].fetch_add(1, Ordering::SeqCst);
                        }
                        Ok(Message::Text(_)) => {}
                        _ => return,
                    }
                }
            })
        })
        .collect();
    running.until("publications_total", |count| count > 1000.0);
    // What comes while the server drains may come too late for a subscriber that has been let go already.
    let acked = ACKED.each_ref().map(|count| count.load(Ordering::SeqCst));
    running.signal(Signal::TERM);
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    for subscriber in subscribers {
        let (last, code) = subscriber.join().unwrap();
        assert_eq!(code, 1001);
        assert!(last.iter().zip(&acked).all(|(got, acked)| got >= acked), "{last:?} of {acked:?}");
    }
    assert_eq!(running.end().0, Some(0));
}

/// Runs a program that sets up networks.
fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs a network namespace of its own: scripts/faults"]
fn a_peer_that_vanishes_without_a_word_is_given_up() {
    // Another namespace, at the other end of a cable. Its first process is there for as long as its pipe is open.
    run("ip", &["link", "set", "lo", "up"]);
    let mut far = Command::new("unshare").args(["--net", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let pid = far.id().to_string();
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    wait_for("the namespace", || fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|other| other != own));
    run("ip", &["link", "add", "near", "type", "veth", "peer", "name", "far", "netns", &pid]);
    run("ip", &["address", "add", "192.0.2.1/30", "dev", "near"]);
    run("ip", &["link", "set", "near", "up"]);
    let inside = |args: &[&str]| run("nsenter", &[&["--net", "--target", &pid][..], args].concat());
    inside(&["ip", "address", "add", "192.0.2.2/30", "dev", "far"]);
    inside(&["ip", "link", "set", "far", "up"]);

    let mut command = stentor();
    command.args(["--listen", "192.0.2.1:0", "--anonymous-publish", "--idle-timeout", "2s", "--close-timeout", "1s"]);
    command.args(["--heartbeat", "0s", "--sndbuf", "8KiB"]);
    let running = Running::spawn(command.args(["--pin", "none", "--handshake-timeout", "2s"]));
    let enter = |path: &str| {
        let mut command = Command::new("nsenter");
        Reader::of(command.args(["--net", "--target", &pid, "bash", "-c"]), running.at(), path)
    };
    let readers: Vec<Reader> = ["/ws?topics=a", "/ws?topics=none", "/raw/a"].map(enter).into();
    let events: Vec<Reader> = ["/sse?topics=a", "/sse?topics=none"].map(enter).into();
    // These have stopped reading before, and their kernels say so; one of them goes on doing that.
    let paths = ["/ws?topics=b&mode=latest", "/sse?topics=b&mode=latest", "/raw/b?mode=latest"];
    let stopped: Vec<Reader> = paths.map(enter).into();
    let stays = Reader::start(running.at(), "/ws?topics=b&mode=latest");
    running.until("websocket_connections", |count| count == 6.0);
    running.until("event_streams", |count| count == 3.0);
    stopped.iter().chain([&stays]).for_each(|reader| reader.signal(Signal::STOP));
    let mut publisher = running.client("/raw/b?echo=0");
    let large = "x".repeat(10_000);
    wait_for("full sockets", || {
        publisher.send(&large);
        running.metric("alone_subscribers") == 4.0
    });
    drop(publisher);
    running.until("websocket_connections", |count| count == 6.0);
    let before = running.descriptors();

    // Nobody there takes packets any more, and nobody says so.
    inside(&["ip", "address", "flush", "dev", "far"]);
    let neighbour = fs::read_to_string("/proc/net/arp").unwrap();
    let hardware = neighbour.lines().find(|line| line.starts_with("192.0.2.2 ")).unwrap();
    let hardware = hardware.split_whitespace().nth(3).unwrap().to_owned();
    run("ip", &["neighbour", "replace", "192.0.2.2", "lladdr", &hardware, "dev", "near", "nud", "permanent"]);
    let mut publisher = running.client("/raw/a?echo=0");
    // More than the sockets of those on `a` hold.
    (0..1000).for_each(|_| publisher.send(&large));
    drop(publisher);
    running.until("dead_connections_total", |count| count == 8.0);
    running.until("connections_admitted", |count| count == 2.0);
    wait_for("descriptors", || running.descriptors() == before - 8);
    // The one that has only stopped is there still, and catches up.
    assert_eq!((running.metric("websocket_connections"), running.metric("event_streams")), (1.0, 0.0));
    stays.signal(Signal::CONT);
    running.until("alone_subscribers", |count| count == 0.0);
    assert_eq!(running.metric("websocket_connections"), 1.0);
    drop((readers, events, stopped));
    drop(far.stdin.take());
    let _ = far.wait();
}

/// A process whose wall clock is set by a file, by `libfaketime`.
struct Clock(PathBuf);

impl Clock {
    fn new() -> Clock {
        let clock = Clock(std::env::temp_dir().join(format!("stentor-clock-{}", std::process::id())));
        clock.set("+0");
        clock
    }

    /// Sets it by so much from the real one, as `libfaketime` writes it.
    fn set(&self, offset: &str) {
        let fresh = self.0.with_extension("fresh");
        fs::write(&fresh, offset).unwrap();
        fs::rename(&fresh, &self.0).unwrap();
    }

    fn preload(&self, library: &Path, command: &mut Command) {
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &self.0).env("FAKETIME_NO_CACHE", "1");
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
#[ignore = "needs libfaketime in STENTOR_FAKETIME: scripts/faults"]
fn a_clock_that_is_set_changes_ts_and_nothing_else() {
    let library = PathBuf::from(std::env::var_os("STENTOR_FAKETIME").expect("STENTOR_FAKETIME names libfaketime.so.1"));
    let clock = Clock::new();
    let mut command = stentor();
    command.args(["--listen", "127.0.0.1:0", "--workers", "1", "--pin", "none", "--idle-timeout", "20s"]);
    command.args([
        "--heartbeat",
        "1s",
        "--topic-expiry",
        "1m",
        "--max-values",
        "10B",
        "--segment",
        "64KiB",
        "--retain",
        "128KiB",
    ]);
    clock.preload(&library, &mut command);
    let running = Running::spawn(&mut command);
    let mut client = running.client("/ws?topics=a,a.%3E");
    let mut publisher = running.client("/ws");
    assert_eq!(publisher.json()["type"], "hello");
    let mut publish = |topic: &str, data: &str| {
        let ack = publisher.ask(&format!(r#"{{"op":"pub","id":1,"topic":"{topic}","data":{data}}}"#));
        (ack["seq"].as_u64().unwrap(), ack["ts"].as_u64().unwrap())
    };
    const DAY: u64 = 86_400_000_000;
    let (mut seq, mut ts) = publish("a", "1");
    publish("kept", "1");
    for (step, offset) in ["+1d", "-1d", "+0"].into_iter().enumerate() {
        clock.set(offset);
        let (next, set) = publish("a", "1");
        assert_eq!(next, seq + 1);
        assert!(set.abs_diff(ts) > DAY / 2, "{offset}: {ts} then {set}");
        (seq, ts) = (next, set);
        // A topic whose value could not be kept goes when it has left the tape: then the topics have been looked at since.
        let (forgotten, big) = (running.metric("topics_forgotten_total"), "1".repeat(1000));
        let bait = format!("bait.{step}");
        publish(&bait, &big);
        wait_for("the tape to go on", || {
            publish("filler", &big);
            running.metric("topics_forgotten_total") > forgotten
        });
        let mut late = running.client("/ws?topics=kept");
        assert_eq!((late.json()["type"].clone(), late.json()["topics"][0]["seq"].clone()), ("hello".into(), 1.into()));
        // The subscriber is connected still, and hears of it in order.
        while client.json()["seq"] != seq {}
    }
    assert!(running.metric("websocket_connections") >= 2.0);
}

#[test]
fn a_connection_that_breaks_in_every_place_leaves_the_others_alone() {
    // One publication after another is cut off in the middle by the subscriber's reset.
    let running = Running::start(&["--workers", "1", "--pin", "none", "--sndbuf", "4KiB"]);
    let mut healthy = running.client("/raw/a");
    let mut publisher = running.client("/raw/a?echo=0");
    for size in [1, 100, 4000, 60_000] {
        for _ in 0..20 {
            let mut broken = upgraded(running.at(), "/raw/a");
            publisher.send(&"x".repeat(size));
            // Its kernel has some of it; the rest meets a reset.
            let mut some = [0; 10];
            let _ = broken.read(&mut some[..size.min(2)]);
            socket2::SockRef::from(&broken).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(broken);
            assert_eq!(healthy.text().len(), size);
        }
    }
    running.until("websocket_connections", |count| count == 2.0);
}
