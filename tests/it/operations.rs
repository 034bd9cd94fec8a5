//! What operators read and load is held against the program, so that it can't be out of date.

use std::{collections::BTreeSet, fs};

use crate::{
    client::{Client, exchange, serve},
    process::run,
};

fn read(name: &str) -> String {
    fs::read_to_string(format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Every flag that the program's help explains.
fn flags() -> BTreeSet<String> {
    let output = run(&["--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    let lines = help.lines().filter_map(|line| line.strip_prefix("      --"));
    let flags: BTreeSet<_> =
        lines.map(|line| format!("--{}", line.split([' ', '=']).next().unwrap_or_default())).collect();
    assert!(flags.len() > 60 && flags.contains("--print-config"), "{flags:?}");
    flags
}

/// The names of all metrics, as samples have them; of histograms, the name without a suffix.
fn metrics() -> BTreeSet<String> {
    let server = serve(|_| {});
    let _client = Client::hello(&server, "/ws?topics=a");
    let text = exchange(server.addresses()[0], b"GET /metrics HTTP/1.0\r\n\r\n");
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned)).collect()
}

/// Every word of the text that begins like this and goes on with letters, digits, `_` or `-`.
fn words(text: &str, start: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let found = text.match_indices(start).filter(|(at, _)| !text[..*at].ends_with(is_part));
    found.map(|(at, _)| text[at..].split(|c| !is_part(c)).next().unwrap().to_owned()).collect()
}

#[test]
fn every_flag_is_explained_and_no_other() {
    let (text, flags) = (read("operations.md"), flags());
    let missing: Vec<_> = flags.iter().filter(|flag| !text.contains(&format!("`{flag}`"))).collect();
    assert!(missing.is_empty(), "docs/operations.md does not name {missing:?}");
    // What is at the beginning of a cell or alone in backticks is a flag of ours; commands have flags of other programs.
    let rows: String = text.lines().filter(|line| line.starts_with("| `--")).collect();
    let unknown: Vec<_> = words(&rows, "--").into_iter().filter(|flag| !flags.contains(flag)).collect();
    assert!(unknown.is_empty(), "docs/operations.md explains {unknown:?}, which are no flags");
}

#[test]
fn settings_that_change_live_are_marked_and_no_others() {
    let text = read("operations.md");
    let marked: BTreeSet<_> = text
        .lines()
        .filter(|line| line.starts_with("| `--") && line.contains("| ● |"))
        .map(|line| line.split('`').nth(1).unwrap().trim_start_matches("--").replace('-', "_"))
        .collect();
    let live = stentor::config::LIVE.iter().chain(&["log_level"]).map(|field| (*field).to_owned());
    assert_eq!(marked, live.collect());
}

#[test]
fn every_metric_is_explained_and_no_other() {
    let (text, metrics) = (read("operations.md"), metrics());
    let missing: Vec<_> = metrics.iter().filter(|metric| !text.contains(&format!("`{metric}`"))).collect();
    assert!(missing.is_empty(), "docs/operations.md does not name {missing:?}");
    for name in ["operations.md", "operations/alerts.yml", "operations/alerts.test.yml", "operations/grafana.json"] {
        let unknown: Vec<_> = words(&read(name), "stentor_")
            .into_iter()
            .filter(|word| {
                let bare = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
                !metrics.contains(word) && !bare.is_some_and(|bare| metrics.contains(bare))
            })
            .collect();
        assert!(unknown.is_empty(), "docs/{name} names {unknown:?}, which are no metrics");
    }
}

#[test]
fn the_example_of_a_settings_file_would_start() {
    let file = format!("{}/docs/operations/stentor.toml", env!("CARGO_MANIFEST_DIR"));
    let output = run(&["--check", "--config", &file, "--max-connections", "100", "--listen", "0.0.0.0:0"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("sndbuf = \"64KiB\"  # file "), "{text}");
}

#[test]
fn the_unit_lets_the_program_tell_systemd_how_it_goes() {
    let unit = read("operations/stentor.service");
    let set = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    assert_eq!(set("Type"), Some("notify"));
    assert!(set("WatchdogSec").is_some_and(|seconds| seconds.parse::<u32>().is_ok_and(|seconds| seconds >= 10)));
    // Its socket is one of these.
    assert!(
        set("RestrictAddressFamilies").is_some_and(|families| families.split(' ').any(|family| family == "AF_UNIX"))
    );
}

#[test]
fn the_documents_link_to_files_that_exist() {
    for name in ["operations.md", "proxies.md", "tls.md"] {
        let text = read(name);
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let file = link.split('#').next().unwrap();
            let exists = fs::exists(format!("{}/docs/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            assert!(file.is_empty() || exists, "docs/{name} links to {link}");
        }
    }
}
