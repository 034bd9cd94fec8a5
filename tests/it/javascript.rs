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

#[test]
fn the_javascript_client_passes_its_own_tests() {
    let Some(option) = ["--no-warnings", "--experimental-websocket"].into_iter().find(|option| has_websocket(option))
    else {
        return skip("node", "the JavaScript client under Node: there is no node here that has a WebSocket");
    };
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/js");
    let files = ["client", "console", "faults"].map(|name| format!("{tests}/{name}.test.mjs"));
    let args = [&[option, "--test-reporter=spec", "--test"][..], &files.each_ref().map(String::as_str)].concat();
    let output = node(&args).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
