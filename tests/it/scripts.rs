//! What the scripts share: how they look for programs, and what `--strict` lets pass.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

/// Runs commands after `scripts/common.sh`, in the project's folder.
fn bash(commands: &str) -> (bool, String) {
    let script = format!("set -euo pipefail\n. scripts/common.sh\n{commands}");
    let Output { status, stdout, stderr } =
        Command::new("bash").args(["-c", &script]).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    (status.success(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

/// Holds skips against a list.
fn judge(list: &str, skipped: &[&str]) -> (bool, String) {
    let folder = tempdir();
    let path = folder.join("list");
    fs::write(&path, list).unwrap();
    let skips: String = skipped.iter().map(|text| format!("skip '{text}' >/dev/null\n")).collect();
    let judged = bash(&format!("{skips}judge_skips '{}'", path.display()));
    fs::remove_dir_all(folder).unwrap();
    judged
}

fn tempdir() -> std::path::PathBuf {
    let name = format!("stentor-scripts-{}-{:?}", std::process::id(), std::thread::current().id());
    let folder = std::env::temp_dir().join(name.replace(['(', ')'], ""));
    fs::create_dir_all(&folder).unwrap();
    folder
}

const LIST: &str =
    "# What may be skipped.\n\nthe moon: * is too far\n  Nobody can help it.\nGrafana\n  Not in a registry.\n";

#[test]
fn what_the_list_names_may_be_skipped_and_what_was_not_is_reported() {
    let (passed, said) = judge(LIST, &["the moon: it is too far"]);
    assert!(passed, "{said}");
    assert!(said.contains("not skipped this time") && said.contains(": Grafana"), "{said}");
    assert!(!said.contains("the moon"), "{said}");
    assert!(judge(LIST, &[]).0);
}

#[test]
fn what_the_list_does_not_name_may_not_be_skipped() {
    for text in ["the moon", "Grafana itself", "the page in a browser: STENTOR_BROWSER names none"] {
        let (passed, said) = judge(LIST, &["Grafana", text]);
        assert!(!passed && said.contains(&format!("0 entries, not 1, for what was skipped: {text}\n")), "{said}");
    }
}

#[test]
fn a_skip_belongs_to_one_entry_and_each_has_its_reason() {
    let (passed, said) = judge(&format!("{LIST}Graf*\n  Again.\n"), &["Grafana"]);
    assert!(!passed && said.contains("2 entries, not 1"), "{said}");
    for list in ["Grafana\nthe moon\n  Far.\n", "the moon\n  Far.\nGrafana\n"] {
        let (passed, said) = judge(list, &["the moon"]);
        assert!(!passed && said.contains("there is no reason below: Grafana"), "{said}");
    }
}

#[test]
fn the_list_that_is_kept_is_a_good_one() {
    let (passed, said) = bash("judge_skips scripts/skips");
    assert!(passed, "{said}");
}

#[test]
fn skips_of_what_is_run_are_gathered_once_each_even_from_a_test_that_runs_alone() {
    let (_, said) = bash(
        "fake() { echo 'skipped: a'; echo 'test x::y ... skipped: b'; echo 'skipped: a' >&2; echo 'not skipped: c'; }\n\
         run fake >/dev/null; printf '<%s>' \"${left_out[@]}\"",
    );
    assert_eq!(said, "<skipped: a><skipped: b>");
}

#[test]
fn a_function_is_not_taken_for_the_program_of_its_name() {
    let (found, said) =
        bash("debian() { why=$1; return 1; }; no_such_program() { :; }; have no_such_program the-package");
    assert!(!found, "{said}");
    let (_, said) =
        bash("debian() { why=\"asked for $1\"; return 1; }; no_such() { :; }; have no_such pack || echo \"$why\"");
    assert_eq!(said, "no no_such here: asked for pack\n");
    assert!(bash("debian() { return 1; }; have bash").0);
}

#[test]
fn every_script_explains_itself_and_refuses_what_it_does_not_know() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");
    let scripts = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let scripts: Vec<_> = scripts.filter(|path| fs::read_to_string(path).unwrap().starts_with("#!")).collect();
    assert!(scripts.len() > 9, "{scripts:?}");
    for script in scripts {
        let run = |option| Command::new(&script).arg(option).env("PATH", "/usr/bin:/bin").output().unwrap();
        let help = run("--help");
        assert!(help.status.success() && help.stdout.len() > 100, "{}: {help:?}", script.display());
        let bad = run("--no-such-option");
        assert_eq!(bad.status.code(), Some(2), "{}: {bad:?}", script.display());
        let said = String::from_utf8_lossy(&bad.stderr).into_owned();
        assert!(said.contains("--no-such-option is not understood"), "{}: {said}", script.display());
    }
}

/// A project's folder in which nothing is built, and every program is what it is said to be.
struct Project(std::path::PathBuf);

impl Project {
    fn new() -> Self {
        let project = Self(tempdir());
        for folder in ["scripts", "benches/peers"] {
            fs::create_dir_all(project.0.join(folder)).unwrap();
            for entry in fs::read_dir(format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"))).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    fs::copy(&path, project.0.join(folder).join(path.file_name().unwrap())).unwrap();
                }
            }
        }
        for name in ["bin/cargo", "bin/git", "target/release/loadgen", "target/release/stentor"] {
            project.program(name, "exit 0");
        }
        project
    }

    fn program(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn compare(&self, arguments: &str) -> Output {
        let path = format!("{}:{}", self.0.join("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(self.0.join("scripts/compare"));
        command.args(arguments.split_whitespace()).env("PATH", path).output().unwrap()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_comparison_says_which_servers_did_not_start_and_why_and_fails() {
    let project = Project::new();
    for name in ["loadgen", "stentor"] {
        project.program(&format!("target/release/{name}"), &format!("echo {name} has no luck; exit 1"));
    }
    let output = project.compare("--only 10x128-w1 --servers bare-loop,stentor --rounds 1 --seconds 1");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    // The second was tried though the first had failed.
    for (server, program) in [("bare-loop", "loadgen"), ("stentor", "stentor")] {
        let line = format!("missing: 10x128-w1 round 1 {server}: it did not start: {program} has no luck");
        assert!(said.contains(&line), "{said}");
    }
}

/// Loads up to 30 a second are delivered, more are not; the first run at 20 is doubtful.
const GENERATOR: &str = r#"
command=$1
while [ $# -gt 0 ]; do
  case $1 in --json) json=$2 ;; --plot) : >"$2" ;; --rate) rate=${2%/s} ;; esac
  shift
done
case $command in
  fanout)
    echo '{}' >"$json"
    echo '1 deliveries/s'
    if [ "$rate" -gt 30 ]; then exit 5; fi
    if [ "$rate" = 20 ] && mkdir doubted 2>/dev/null; then exit 3; fi ;;
  compare) echo '{}' >"$json"; echo '| compared |' ;;
  *) echo "| $command |" ;;
esac
"#;

#[test]
fn a_sweep_makes_doubtful_runs_again_and_asks_no_more_of_who_fell_behind_twice() {
    let project = Project::new();
    project.program("target/release/loadgen", GENERATOR);
    project.program("target/release/stentor", &format!("exec {} \"$@\"", env!("CARGO_BIN_EXE_stentor")));
    let arguments = "--subs 10 --servers stentor --rates 10,20,40,80 --windows none --rounds 2 --seconds 1 --into out";
    let output = project.compare(&format!("sweep {arguments} --minutes 60"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let run = |line: &str| {
        let (_, line) = line.split_once(' ')?;
        let (what, how) = line.split_once(" stentor: ")?;
        let (rate, round) = what.strip_prefix("10x128-r")?.split_once("-poisson round ")?;
        Some(format!("{rate} {round} {}", how.split(',').next()?))
    };
    let runs: Vec<String> = said.lines().filter_map(run).collect();
    assert_eq!(
        runs,
        ["10 1 exit 0", "20 1 exit 3", "20 1 exit 0", "40 1 exit 5", "80 1 exit 5"]
            .into_iter()
            .chain(["10 2 exit 0", "20 2 exit 0", "40 2 not asked", "80 2 not asked"])
            .collect::<Vec<&str>>(),
        "{said}"
    );
    let page = fs::read_to_string(project.0.join("out/README.md")).unwrap();
    assert!(page.contains("| conditions |") && page.contains("| sweep |") && page.contains("](sweep.svg)"), "{page}");
    // All of it is kept, also what was doubtful; nothing is measured twice.
    let again = project.compare(&format!("sweep {arguments}"));
    assert!(again.status.success() && !String::from_utf8_lossy(&again.stdout).contains("exit"), "{again:?}");
}

#[test]
fn a_row_is_measured_beside_stentor_and_the_bare_loop_and_says_where_its_data_is() {
    let project = Project::new();
    let plan = project.compare("row bun,stentor 1000x128-r500 --plan");
    let said = String::from_utf8_lossy(&plan.stdout).into_owned();
    let servers: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("5 x 1000x128-r500 ")).collect();
    assert_eq!(servers, ["bare-loop", "stentor", "bun"], "{said}");
    for refused in ["row bun", "row bun 1000x128", "row nobody 1000x128-r500", "sweep --kinds x", "sweep --only slow"] {
        assert_eq!(project.compare(refused).status.code(), Some(2), "{refused}");
    }
    project.program("target/release/loadgen", GENERATOR);
    project.program("target/release/stentor", &format!("exec {} \"$@\"", env!("CARGO_BIN_EXE_stentor")));
    // The bare loop is nothing but a name here.
    let output = project.compare("row stentor 10x128-r20 --rounds 1 --seconds 1");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("| sweep |") && said.contains("raw data: .cache/rows/stentor-10x128-r20/10x128-r20.json.gz"),
        "{said}"
    );
}
