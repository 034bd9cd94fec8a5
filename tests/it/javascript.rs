//! The JavaScript client and the parts of the console that need no browser, under Node. Skipped where there is none.

use std::process::Command;

use crate::skip::skip;

fn node(args: &[&str]) -> Option<std::process::Output> {
    Command::new("node").args(args).env("STENTOR", env!("CARGO_BIN_EXE_stentor")).output().ok()
}

/// Node has a WebSocket; before 22 it wants to be asked for it, and before 20.10 there is none.
fn has_websocket(option: &str) -> bool {
    let said = node(&[option, "--print", "typeof WebSocket + typeof fetch"]);
    said.is_some_and(|said| said.stdout.trim_ascii() == b"functionfunction")
}

/// Runs these of its tests, where there is a node for them.
fn pass(names: &[&str]) {
    let Some(option) = ["--no-warnings", "--experimental-websocket"].into_iter().find(|option| has_websocket(option))
    else {
        return skip("node", "the JavaScript client under Node: there is no node here that has a WebSocket");
    };
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/js");
    let files: Vec<String> = names.iter().map(|name| format!("{tests}/{name}.test.mjs")).collect();
    let args: Vec<&str> =
        [option, "--test-reporter=spec", "--test"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let output = node(&args).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_javascript_client_passes_its_own_tests() {
    pass(&["client", "console", "faults", "ways"]);
}
