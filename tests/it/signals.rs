//! Signals that were ignored when the program was started: nohup does so, and shells for what they start in the background.

use std::process::Command;

use rustix::process::Signal;

use crate::{
    process::{Running, stentor},
    reload::File,
};

/// The program, started by somebody who ignores these signals.
fn ignoring(signals: &str, args: &[&str]) -> Command {
    let program = stentor();
    let mut command = Command::new("sh");
    for (name, _) in program.get_envs() {
        command.env_remove(name);
    }
    command.args(["-c", &format!("trap '' {signals}; exec \"$0\" \"$@\"")]).arg(program.get_program());
    command.args(["--listen", "127.0.0.1:0", "--workers", "1", "--pin", "none"]).args(args);
    command
}

#[test]
fn an_interrupt_for_another_program_does_not_end_one_in_the_background() {
    let running = Running::spawn(&mut ignoring("INT", &[]));
    running.signal(Signal::INT);
    // If it had counted, this would be the second one, which ends it at once, with 1.
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn what_nohup_keeps_from_it_reloads_nothing() {
    let file = File::new("");
    let mut running = Running::spawn(&mut ignoring("HUP", &["--config", file.path()]));
    running.signal(Signal::HUP);
    let mut client = running.client("/ws");
    assert_eq!(client.json()["type"], "hello");
    running.signal(Signal::TERM);
    let log = running.logged("draining");
    assert!(!log.contains("reload"), "{log}");
}

#[test]
fn what_is_ignored_is_said_and_what_is_not_counts() {
    let mut command = ignoring("TERM", &[]);
    let output = command.args(["--max-connections", "2000000000"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("SIGTERM is ignored") && !text.contains("SIGINT"), "{text}");
    let running = Running::spawn(&mut ignoring("TERM HUP", &[]));
    running.signal(Signal::TERM);
    running.signal(Signal::INT);
    assert_eq!(running.end().0, Some(0));
}
