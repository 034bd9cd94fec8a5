//! The JavaScript client and the parts of the console that need no browser, under Node. Skipped where there is none.

use std::process::Command;

fn node(args: &[&str]) -> Option<std::process::Output> {
    Command::new("node").args(args).env("STENTOR", env!("CARGO_BIN_EXE_stentor")).output().ok()
}

#[test]
fn the_javascript_client_passes_its_own_tests() {
    let Some(kind) = node(&["--print", "typeof WebSocket + typeof fetch"]) else {
        return eprintln!("skipped: the JavaScript client under Node: there is no node here");
    };
    // Node 20 has a WebSocket, and wants to be asked for it.
    let has = String::from_utf8_lossy(&kind.stdout).trim() == "functionfunction";
    let option = if has { "--no-warnings" } else { "--experimental-websocket" };
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/js");
    let files = ["client", "console", "faults"].map(|name| format!("{tests}/{name}.test.mjs"));
    let args = [&[option, "--test-reporter=spec", "--test"][..], &files.each_ref().map(String::as_str)].concat();
    let output = node(&args).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
