//! The audit as a whole: a queue, a file that fills up, moves and vanishes, and what is said of it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytesize::ByteSize;
use serde_json::Value;

use super::*;
use crate::clock::Moment;

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("stentor-audit-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = Folder(std::env::temp_dir().join(name));
        fs::create_dir(&folder.0).unwrap();
        folder
    }

    fn file(&self) -> PathBuf {
        self.0.join("audit.jsonl")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(folder: &Folder, change: impl FnOnce(&mut Config)) -> (Audit, Writer) {
    let mut config = Config { audit: Some(folder.file()), ..Config::default() };
    change(&mut config);
    Audit::open(&config).unwrap().unwrap()
}

fn event(conn: u64, what: What) -> Event {
    Event { ts: 1, conn, address: "192.0.2.1:1".parse().unwrap(), holder: Holder::Server, what }
}

fn here(conn: u64) -> Event {
    event(conn, What::Here { been: Been::default(), subscriptions: 0 })
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"))).collect()
}

fn events(path: &Path) -> Vec<String> {
    lines(path).iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect()
}

fn at(seconds: u64) -> Moment {
    Moment::now() + Duration::from_secs(seconds)
}

#[test]
fn without_a_file_nothing_is_noted_and_nothing_is_made_up() {
    assert!(Audit::open(&Config::default()).unwrap().is_none());
    let audit = Audit::default();
    audit.note(|| unreachable!("nobody wants it"));
    assert!(!audit.is_on() && audit.figures().is_none());
}

#[test]
fn what_is_noted_is_in_the_file_in_its_order_and_the_file_is_for_its_owner_and_group() {
    let folder = Folder::new();
    let (audit, mut writer) = open(&folder, |_| {});
    for conn in 1..=1000 {
        audit.note(|| here(conn));
    }
    assert!(audit.figures().unwrap().queued > 1000 * 64);
    writer.look(at(0));
    let found = lines(&folder.file());
    assert_eq!(found[0]["event"], "start");
    let conns: Vec<String> = found[1..].iter().map(|line| line["conn"].as_str().unwrap().to_owned()).collect();
    assert_eq!(conns, (1..=1000).map(|conn| format!("0-{conn:x}")).collect::<Vec<_>>());
    let figures = audit.figures().unwrap();
    assert_eq!((figures.lines, figures.queued, figures.dropped, figures.is_writing), (1001, 0, 0, true));
    assert_eq!(fs::metadata(folder.file()).unwrap().permissions().mode() & 0o007, 0);
}

#[test]
fn a_file_of_before_is_appended_to_and_its_half_of_a_line_ended() {
    let folder = Folder::new();
    fs::write(folder.file(), "{\"event\":\"old\"}\n{\"event\":\"ha").unwrap();
    let (_audit, mut writer) = open(&folder, |_| {});
    writer.look(at(0));
    let text = fs::read_to_string(folder.file()).unwrap();
    let all: Vec<&str> = text.lines().collect();
    assert_eq!(all[..2], ["{\"event\":\"old\"}", "{\"event\":\"ha"]);
    assert!(all[2].contains("\"start\"") && all.len() == 3, "{text}");
}

#[test]
fn what_there_is_no_room_for_is_dropped_and_counted_and_said_in_the_file() {
    let folder = Folder::new();
    let (audit, mut writer) = open(&folder, |config| config.audit_queue = ByteSize::kib(64));
    for conn in 1..=5000 {
        audit.note(|| here(conn));
    }
    let figures = audit.figures().unwrap();
    let taken = 5000 - figures.dropped;
    assert!(figures.queued <= figures.queue_max && (100..1000).contains(&taken), "{figures:?}");
    // A long one has less room than many short ones.
    audit.note(|| event(1, What::Unsubscribe { names: vec!["x".repeat(70_000).into()] }));
    assert_eq!(audit.figures().unwrap().dropped, figures.dropped + 1);
    writer.look(at(0));
    let found = lines(&folder.file());
    let dropped: Vec<u64> = found.iter().filter_map(|line| line["lines"].as_u64()).collect();
    assert_eq!(dropped, [figures.dropped + 1]);
    assert_eq!(found.len() as u64, taken + 2);
    audit.note(|| here(1));
    writer.look(at(0));
    assert_eq!(lines(&folder.file()).len() as u64, taken + 3, "there is room again");
}

#[test]
fn a_full_file_is_moved_aside_and_so_many_are_kept() {
    let folder = Folder::new();
    let (audit, mut writer) = open(&folder, |config| {
        (config.audit_size, config.audit_files) = (ByteSize::mib(1), 2);
        config.audit_queue = ByteSize::mib(64);
    });
    let named = |n: u64| event(n, What::Read { door: "poll", names: vec!["x".repeat(1000).into()] });
    audit.set(&Config {
        audit_limit: ByteSize::b(0),
        audit_size: ByteSize::mib(1),
        audit_files: 2,
        ..Config::default()
    });
    for n in 1..=5000 {
        audit.note(|| named(n));
    }
    writer.look(at(0));
    let path = |end: &str| PathBuf::from(format!("{}{end}", folder.file().display()));
    let mut conns = Vec::new();
    for end in [".2", ".1", ""] {
        let len = fs::metadata(path(end)).unwrap().len();
        assert!(len <= 1 << 20, "{end}: {len}");
        conns.extend(lines(&path(end)).iter().map(|line| line["conn"].as_str().unwrap().to_owned()));
    }
    let newest = (5001 - conns.len() as u64..=5000).map(|conn| format!("0-{conn:x}")).collect::<Vec<_>>();
    assert_eq!(conns, newest, "no line is missing between two files");
    assert!(conns.len() > 1800 && !path(".3").exists());
}

#[test]
fn a_file_that_was_moved_or_removed_is_made_anew_with_nothing_lost() {
    let folder = Folder::new();
    let (audit, mut writer) = open(&folder, |_| {});
    audit.note(|| here(1));
    writer.look(at(0));
    let moved = folder.0.join("moved");
    fs::rename(folder.file(), &moved).unwrap();
    audit.note(|| here(2));
    writer.look(at(1));
    assert_eq!(events(&moved), ["start", "here"]);
    assert_eq!(events(&folder.file()), ["here"]);
    fs::remove_file(folder.file()).unwrap();
    audit.note(|| here(3));
    writer.look(at(2));
    assert_eq!(lines(&folder.file())[0]["conn"], "0-3");
    // Whoever moves it and makes a new one, and then says so.
    fs::rename(folder.file(), &moved).unwrap();
    fs::write(folder.file(), "").unwrap();
    audit.reopen();
    audit.note(|| here(4));
    writer.look(at(3));
    assert_eq!((events(&moved).len(), events(&folder.file()).len()), (1, 1));
}

#[test]
fn a_folder_that_vanishes_costs_what_the_queue_cannot_hold_and_is_told_when_it_is_back() {
    let folder = Folder::new();
    let (audit, mut writer) = open(&folder, |config| config.audit_queue = ByteSize::kib(64));
    writer.look(at(0));
    let aside = folder.0.with_extension("aside");
    fs::rename(&folder.0, &aside).unwrap();
    for conn in 1..=5000 {
        audit.note(|| here(conn));
        if conn == 10 {
            writer.look(at(1));
        }
    }
    writer.look(at(3));
    let figures = audit.figures().unwrap();
    assert!(!figures.is_writing && figures.failures >= 2 && figures.dropped > 4000, "{figures:?}");
    fs::rename(&aside, &folder.0).unwrap();
    writer.look(at(3));
    assert!(!audit.figures().unwrap().is_writing, "it is left alone for a second");
    writer.look(at(5));
    assert!(audit.figures().unwrap().is_writing);
    let found = lines(&folder.file());
    let dropped: u64 = found.iter().filter_map(|line| line["lines"].as_u64()).sum();
    let conns: Vec<&str> = found.iter().filter_map(|line| line["conn"].as_str()).collect();
    assert_eq!(dropped + conns.len() as u64, 5000, "each is there, or counted as missing");
    assert_eq!(conns[..10], ["0-1", "0-2", "0-3", "0-4", "0-5", "0-6", "0-7", "0-8", "0-9", "0-a"]);
}

#[test]
fn an_address_that_has_had_its_share_leaves_the_file_to_the_others() {
    let folder = Folder::new();
    let (audit, mut writer) = open(&folder, |config| config.audit_limit = ByteSize::kib(1));
    let refused = |address: &str| Event {
        address: address.parse().unwrap(),
        ..event(0, What::Refused { why: "forbidden", message: "no".into() })
    };
    for _ in 0..10_000 {
        audit.note(|| refused("192.0.2.1:1"));
    }
    audit.note(|| refused("192.0.2.2:1"));
    audit.note(|| here(7));
    writer.look(at(0));
    let found = lines(&folder.file());
    let of = |address: &str| found.iter().filter(|line| line["address"] == address).count();
    assert!((100..1000).contains(&of("192.0.2.1:1")), "{}", of("192.0.2.1:1"));
    assert_eq!(of("192.0.2.2:1"), 1);
    let last = found.last().unwrap();
    assert_eq!(last["event"], "here", "who is there is written in any case");
    assert_eq!(last["left_out"].as_u64(), Some(audit.figures().unwrap().left_out));
}

#[test]
fn what_is_no_file_is_refused_with_what_was_found() {
    let folder = Folder::new();
    let said = |path: &Path| {
        let config = Config { audit: Some(path.to_owned()), ..Config::default() };
        Audit::open(&config).err().expect("it can't be appended to").to_string()
    };
    for path in [&folder.0, Path::new("/dev/null")] {
        let text = said(path);
        assert!(text.starts_with(&format!("--audit {}: expected a file", path.display())), "{text}");
    }
    let text = said(&folder.0.join("none/audit"));
    assert!(text.contains("No such file"), "{text}");
    let link = folder.0.join("dangling");
    std::os::unix::fs::symlink(folder.0.join("none/audit"), &link).unwrap();
    assert!(said(&link).contains("No such file"));
}

#[test]
fn the_end_says_what_was_left_out_and_that_it_is_the_end() {
    let folder = Folder::new();
    let (audit, writer) = open(&folder, |config| config.audit_limit = ByteSize::kib(1));
    for _ in 0..10_000 {
        audit.note(|| event(0, What::Refused { why: "forbidden", message: "no".into() }));
    }
    let (stop, stopped) = crossbeam_channel::bounded(0);
    drop(stop);
    writer.run(&stopped);
    let found = lines(&folder.file());
    let [.., left_out, stop] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&left_out["event"], &stop["event"]), (&"left_out".into(), &"stop".into()));
    assert_eq!(left_out["lines"].as_u64(), Some(audit.figures().unwrap().left_out));
}
