//! What `scripts/compare` says of itself, against what it does.

use std::{path::Path, process::Command};

fn bash(script: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output = Command::new("bash").args(["-c", script]).current_dir(root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn its_help_names_every_server_that_can_be_measured() {
    let all = bash(". benches/peers/servers.sh && echo $everybody");
    let help = bash("scripts/compare --help");
    let words: Vec<&str> = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
    let unnamed: Vec<&str> = all.trim().split(',').filter(|name| !words.contains(name)).collect();
    assert!(all.contains(",stentor-tls,") && unnamed.is_empty(), "{unnamed:?}\n{help}");
}
