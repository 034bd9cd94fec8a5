//! What is written can be read: by HdrHistogram's own readers, by `compare` and `merge`, by a browser.

mod common;

use base64::{Engine, engine::general_purpose::STANDARD};
use common::{Act, program, serve};
use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    },
};
use std::process::{Command, Stdio};

struct Written {
    folder: tempfile::TempDir,
    out: String,
}

impl Written {
    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

/// Two interleaved rounds against two servers, with every output.
fn session() -> Written {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (a, b) = (serve(|_, _| Act::Pass), serve(|_, _| Act::Pass));
    let outcome = program(&format!(
        "fanout ws://{a}/x --against ws://{b}/x --protocol generic --publish-url ws://{a}/pub --subs 0 --json x"
    ));
    assert_eq!(outcome.code, 2, "{}", outcome.err);
    let outcome = program(&format!(
        "echo ws://{a}/echo --against ws://{b}/echo --protocol generic --subs 3 --rate 200/s --duration 1s --warmup \
         100ms --repeat 2 --json {} --hgrm {} --hlog {} --report {}",
        path("r.json"),
        path("r.hgrm"),
        path("r.hlog"),
        path("r.html")
    ));
    assert!(outcome.code == 0 || outcome.code == 3, "{}{}", outcome.out, outcome.err);
    Written { folder, out: outcome.out }
}

#[test]
fn all_outputs_of_a_session_agree() {
    let written = session();
    let json: serde_json::Value = serde_json::from_str(&written.read("r.json")).unwrap();
    let runs = json["runs"].as_array().unwrap();
    let labels: Vec<&str> = runs.iter().map(|run| run["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["A", "B", "A", "B"]);
    assert!(json["machine"]["kernel"].as_str().unwrap().starts_with("Linux"));
    // The server doesn't tell how often it sends; the subscribers' kernels do.
    for run in runs {
        let (segments, deliveries) = (run["segments"].as_u64().unwrap(), run["deliveries"].as_u64().unwrap());
        assert!((deliveries / 2..deliveries * 2).contains(&segments), "{segments} of {deliveries}");
    }
    log_holds_every_delivery(&written.read("r.hlog"), runs);
    distribution_counts_the_first_target(&written.read("r.hgrm"), 400);
    page_is_whole(&written.read("r.html"));
    assert!(written.out.contains("run 4 of 4") && written.out.contains("target"), "{}", written.out);
    files_can_be_compared_and_merged(&written);
    a_summary_has_tables_and_plots(&written);
    what_a_flag_does_is_a_table_and_a_curve(&written, &json);
    closed_windows_have_a_computed_floor(&written, &json);
    servers_are_put_side_by_side_at_each_rate(&written, &json);
}

/// Sixteen in flight can share a send, which costs the bare loop 4 us where it carries one.
fn closed_windows_have_a_computed_floor(written: &Written, json: &serde_json::Value) {
    let mut paths = Vec::new();
    for (window, cost) in [(1, 4000.0), (16, 900.0)] {
        let mut report = json.clone();
        report["spec"]["pace"] = serde_json::json!({ "window": window });
        (report["spec"]["topics"], report["spec"]["topics_per_sub"]) = (1.into(), 1.into());
        let run = &mut report["runs"][0];
        (run["name"], run["open_loop"]) = ("bare-loop".into(), false.into());
        run["server"] = serde_json::json!({
            "pid": 1, "cpu_ns": 1, "cpu_ns_per_delivery": cost, "cores_busy": 0.1, "resident_before": 1,
            "resident_joined": 1, "resident_max": 1, "cores": [0],
        });
        let path = written.path(&format!("w{window}.json"));
        std::fs::write(&path, report.to_string()).unwrap();
        paths.push(path);
    }
    let summary = program(&format!("summary {}", paths.join(" ")));
    assert_eq!(summary.code, 0, "{}", summary.err);
    assert!(summary.out.contains("| w16 | 16 | 4us | 250ns |"), "{}", summary.out);
    assert!(!summary.out.contains("At the same offered load"), "{}", summary.out);
}

/// Both targets of a round have its number, so that they can be paired. Nothing is to speak against them, whatever the machine did meanwhile.
fn servers_are_put_side_by_side_at_each_rate(written: &Written, json: &serde_json::Value) {
    let mut report = json.clone();
    for run in report["runs"].as_array_mut().unwrap() {
        (run["doubts"], run["seconds"]) = (serde_json::json!([]), run["planned_seconds"].clone());
    }
    std::fs::write(written.path("sound.json"), report.to_string()).unwrap();
    let runs = report["runs"].as_array().unwrap();
    let rounds: Vec<Option<u64>> = runs.iter().map(|run| run["round"].as_u64()).collect();
    assert_eq!(rounds, [1, 1, 2, 2].map(Some));
    let (path, plot) = (written.path("sound.json"), written.path("sweep.svg"));
    let name = runs[1]["name"].as_str().unwrap();
    let swept = program(&format!("sweep {path} --against {name} --plot {plot}"));
    assert_eq!(swept.code, 0, "{}", swept.err);
    let row = swept.out.lines().find(|line| line.starts_with(&format!("| {name} |"))).expect(&swept.out);
    assert!(swept.out.contains(&format!("| × {name} |")) && row.contains("too few (400 of 1,000)"), "{}", swept.out);
    assert!(written.read("sweep.svg").starts_with("<svg xmlns="));
    let refused = program(&format!("sweep {path} {path}"));
    assert!(refused.code == 4 && refused.err.contains("same rate"), "{} {}", refused.code, refused.err);
    let conditions = program(&format!("conditions {path} {path}"));
    assert!(conditions.out.contains("congestion control ") && conditions.out.contains(", nice "), "{}", conditions.out);
    assert_eq!(conditions.out.matches("- machine: ").count(), 1, "{}", conditions.out);
}

fn log_holds_every_delivery(log: &str, runs: &[serde_json::Value]) {
    let mut sum = Histogram::<u64>::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
    for entry in IntervalLogIterator::new(log.as_bytes()) {
        if let Ok(LogEntry::Interval(interval)) = entry {
            let bytes = STANDARD.decode(interval.encoded_histogram()).unwrap();
            sum.add(Deserializer::new().deserialize::<u64, _>(&mut &bytes[..]).unwrap()).unwrap();
        }
    }
    let logged: u64 = runs
        .iter()
        .flat_map(|run| run["intervals"].as_array().unwrap())
        .map(|interval| interval["deliveries"].as_u64().unwrap())
        .sum();
    assert_eq!(sum.len(), logged);
    // Those of the first ticks may lie before the first second.
    assert!((750..=800).contains(&logged), "{logged}");
}

fn distribution_counts_the_first_target(text: &str, deliveries: u64) {
    let total = text.lines().find(|line| line.starts_with("#[Max")).unwrap();
    assert!(total.ends_with(&format!("{deliveries}]")), "{total}");
    assert!(text.contains("#[Publications = 400, "), "{text}");
    assert!(text.trim_start().starts_with("Value"), "{text}");
}

fn page_is_whole(page: &str) {
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert!(page.matches("<svg").count() == page.matches("</svg>").count() && page.contains("by percentile"));
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"), "not self-contained");
    assert!(!page.contains("NaN"));
    // The two targets side by side, and the second as a ratio of the first.
    assert!(page.matches("<th scope=\"row\">").count() == 2 && page.contains("<b>×"), "{page}");
}

fn files_can_be_compared_and_merged(written: &Written) {
    let path = written.path("r.json");
    let compared = program(&format!("compare {path} --markdown"));
    assert_eq!(compared.code, 0, "{}", compared.err);
    assert!(compared.out.starts_with("| target | runs |") && compared.out.contains(" x"), "{}", compared.out);
    // Two runs of 200 publications each are pooled.
    assert!(compared.out.contains("too few (400 of 1,000)"), "{}", compared.out);
    let sum = written.path("sum.json");
    let merged = program(&format!("merge {path} {path} --json {sum}"));
    assert_eq!(merged.code, 0, "{}", merged.err);
    let sum: serde_json::Value = serde_json::from_str(&written.read("sum.json")).unwrap();
    assert_eq!(sum["runs"][0]["deliveries"].as_u64(), Some(400));
    assert_eq!(sum["runs"][0]["classes"][0]["latency"]["count"].as_u64(), Some(400));
}

fn a_summary_has_tables_and_plots(written: &Written) {
    let (path, plot) = (written.path("r.json"), written.path("latency.svg"));
    let summary = program(&format!("summary {path} {path} --latency {plot}"));
    assert_eq!(summary.code, 0, "{}", summary.err);
    let rows = summary.out.lines().filter(|line| line.starts_with("| r |")).count();
    // Two questions in the table of latencies; nobody looked at the server, so there is no cost.
    assert!(rows >= 2 && summary.out.contains("p50, p99, p99.9"), "{}", summary.out);
    assert!(written.read("latency.svg").starts_with("<svg xmlns="));
    let refused = program(&format!("summary {path} --cost {plot}"));
    assert!(refused.code == 4 && refused.err.contains("--window"), "{} {}", refused.code, refused.err);
}

/// The same runs, as if they were of the bare loop, of a server with three values of a flag, and of another that nothing is known of.
fn what_a_flag_does_is_a_table_and_a_curve(written: &Written, json: &serde_json::Value) {
    let measured = [
        ("bare-loop", 4000.0, None),
        ("s:flush-interval=10ms", 400.0, Some(0.05)),
        ("s:flush-interval=500us", 2000.0, Some(0.5)),
        ("s:flush-interval=0s", 4000.0, Some(1.0)),
        ("other", 8000.0, None),
    ];
    let run = |(name, cost, sends): &(&str, f64, Option<f64>)| {
        let mut run = json["runs"][0].clone();
        run["name"] = (*name).into();
        run["publications"] = 1000.into();
        // What the server counts itself is taken where nobody else counted.
        run["segments"] = serde_json::Value::Null;
        run["server"] = serde_json::json!({
            "pid": 1, "cpu_ns": 1, "cpu_ns_per_delivery": cost, "cores_busy": 0.1, "resident_before": 1,
            "resident_joined": 1, "resident_max": 1, "cores": [0], "sends_per_delivery": sends,
        });
        run
    };
    let mut report = json.clone();
    report["runs"] = measured.iter().map(run).collect::<Vec<serde_json::Value>>().into();
    let (path, folder) = (written.path("tuned.json"), written.folder.path().display());
    std::fs::write(&path, report.to_string()).unwrap();
    let summary = program(&format!("summary {path} --curves {folder}"));
    assert_eq!(summary.code, 0, "{}", summary.err);

    let (common, own) = summary.out.split_once("`--flush-interval` of s at tuned:").expect(&summary.out);
    assert!(common.contains("|  | bare-loop | other |") && !common.contains("s:flush"), "{common}");
    let rows: Vec<Vec<&str>> = own.lines().filter(|line| line.starts_with('|')).map(cells).collect();
    let column =
        |title: &str| rows[0].iter().position(|cell| *cell == title).unwrap_or_else(|| panic!("{title}: {own}"));
    let values: Vec<&str> = rows[2..].iter().map(|row| row[0].trim_end_matches(" ?")).collect();
    assert_eq!(values, ["bare-loop", "0s", "500us", "10ms"]);
    let figures = |title: &str| rows[2..].iter().map(|row| row[column(title)]).collect::<Vec<&str>>();
    assert_eq!(figures("publications a send"), ["-", "1.00", "2.00", "20"]);
    assert_eq!(figures("times bare-loop"), ["1.00", "1.00", "0.50", "0.10"]);
    assert_eq!(figures("sends a delivery"), ["-", "1.0000", "0.5000", "0.0500"]);
    assert!(figures("p99").iter().all(|cell| cell.ends_with('s')), "{own}");
    // It takes ten times as many publications for this, and says so.
    assert!(figures("p99.9").iter().all(|cell| *cell == "too few"), "{own}");
    assert!(common.contains(" / too few") && own.contains("under 1,000 publications for p99"), "{}", summary.out);

    let plot = written.read("curve-flush-interval.svg");
    // By publications a send and by processor time: two lines each, of three points.
    assert!(plot.starts_with("<svg xmlns=") && plot.matches("<circle").count() == 12, "{plot}");
    assert!(plot.contains(">500us</text>") && plot.contains("tuned, s, p99") && !plot.contains("NaN"), "{plot}");

    // Without planned moments there are no latencies: what is left is throughput and processor time, beside the bare loop's.
    report["runs"].as_array_mut().unwrap().iter_mut().for_each(|run| run["open_loop"] = false.into());
    std::fs::write(&path, report.to_string()).unwrap();
    let summary = program(&format!("summary {path} --curves {folder}"));
    assert_eq!(summary.code, 0, "{}", summary.err);
    let (_, own) = summary.out.split_once("`--flush-interval` of s at tuned:").expect(&summary.out);
    assert!(own.contains("| deliveries/s |") && !own.contains("p99"), "{own}");
    let plot = written.read("curve-flush-interval.svg");
    assert!(plot.matches("<circle").count() == 3 && plot.contains("tuned, bare-loop"), "{plot}");
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// A short run against a server of its own.
fn echo(folder: &tempfile::TempDir) -> String {
    let address = serve(|_, _| Act::Pass);
    let path = |name: &str| folder.path().join(name).display().to_string();
    format!(
        "echo ws://{address}/echo --protocol generic --subs 2 --rate 100/s --duration 1s --warmup 100ms --hgrm {} --report {}",
        path("r.hgrm"),
        path("r.html")
    )
}

fn assert_written(folder: &tempfile::TempDir) {
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(read("r.hgrm").contains("#[Mean") && read("r.html").contains("</html>"));
}

#[test]
fn nobody_at_standard_output_or_error_costs_no_file() {
    for one in ["out", "err"] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        command
            .args(echo(&folder).split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        match one {
            "out" => drop(child.stdout.take()),
            _ => drop(child.stderr.take()),
        }
        let output = child.wait_with_output().unwrap();
        assert!(matches!(output.status.code(), Some(0 | 3)), "{one}: {output:?}");
        assert_written(&folder);
    }
}

#[test]
fn a_file_that_can_not_be_written_is_found_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("r.hgrm");
    std::fs::write(&kept, "the run before").unwrap();
    // There is no server: a run would fail otherwise.
    let outcome = program(&format!(
        "echo ws://127.0.0.1:1/echo --protocol generic --subs 1 --rate 1/s --hgrm {} --json {}/no/r.json",
        kept.display(),
        folder.path().display()
    ));
    assert_eq!(outcome.code, 2, "{}", outcome.err);
    assert!(
        outcome.err.starts_with("loadgen: --json ") && outcome.err.contains("/no/r.json: expected a file"),
        "{}",
        outcome.err
    );
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "the run before");
}

#[test]
fn a_run_that_was_not_made_leaves_no_file_and_what_was_there_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let [kept, made] = ["r.hgrm", "r.json"].map(|name| folder.path().join(name));
    std::fs::write(&kept, "the run before").unwrap();
    let address = serve(|_, _| Act::Pass);
    let outcome = program(&format!(
        "echo ws://{address}/echo --protocol generic --subs 1 --rate 1/s --server-pid 2147483000 --hgrm {} --json {}",
        kept.display(),
        made.display()
    ));
    assert_eq!(outcome.code, 4, "{}", outcome.err);
    assert!(!made.exists());
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "the run before");
}

#[test]
fn one_file_for_two_results_is_refused_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r").display().to_string();
    let outcome = program(&format!(
        "echo ws://127.0.0.1:1/echo --protocol generic --subs 1 --rate 1/s --json {path} --hlog {path}"
    ));
    assert_eq!(outcome.code, 2, "{}", outcome.err);
    assert!(
        outcome.err.contains(&format!("--hlog {path}: expected another file than --json writes")),
        "{}",
        outcome.err
    );
    assert!(!folder.path().join("r").exists());
}

#[test]
fn a_full_disk_under_one_file_costs_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = program(&format!("{} --json /dev/full --hlog /dev/full", echo(&folder)));
    assert_eq!(outcome.code, 4, "{}", outcome.err);
    assert_eq!(outcome.err.matches("writing /dev/full: No space").count(), 2, "{}", outcome.err);
    assert_written(&folder);
}
