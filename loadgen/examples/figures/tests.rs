//! Small projects, with raw data of a real session, and what is said of their documents.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::{Outcome, root, run};

/// A project with a README, the excuses, and some raw data: sound runs, doubtful ones (`w256`), and a text.
fn project(readme: &str, excuses: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results/day");
    fs::create_dir_all(&results).unwrap();
    fs::create_dir_all(folder.path().join("scripts")).unwrap();
    for file in
        ["1000x128-w16.json.gz", "1000x128-w256.json.gz", "1000x128-r50.json.gz", "1000x128-r500.json.gz", "kernel.txt"]
    {
        fs::copy(root().join("results/2026-11-21").join(file), results.join(file)).unwrap();
    }
    fs::write(folder.path().join("README.md"), readme).unwrap();
    fs::write(folder.path().join("scripts/unmeasured"), excuses).unwrap();
    folder
}

fn judged(readme: &str) -> Outcome {
    run(project(readme, "").path(), false).unwrap()
}

/// The only problem.
fn problem(readme: &str) -> String {
    let mut problems = judged(readme).problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

fn written(folder: &Path) -> String {
    run(folder, true).unwrap();
    fs::read_to_string(folder.join("README.md")).unwrap()
}

#[test]
fn every_figure_in_readme_and_documents_is_what_its_raw_data_says() {
    let outcome = run(&root(), false).unwrap();
    assert!(outcome.problems.is_empty(), "{outcome}");
    assert!(outcome.traced > 0);
}

#[test]
fn a_figure_holds_that_its_raw_data_rounds_to() {
    let text = "Bun needs 528 ns, 1.10 times as much.\n<!-- figures: results/day/1000x128-w16 bun cpu;\n\
                results/day/1000x128-w16 bun cpu / results/day/1000x128-w16 ceiling cpu -->\n";
    let outcome = judged(text);
    assert_eq!((outcome.problems, outcome.traced), (vec![], 2));
    assert_eq!(judged("A send is 4.19 µs. <!-- figures: results/day/kernel.txt \"| 4096 \" ns -->\n").traced, 1);
}

#[test]
fn a_figure_without_raw_data_fails() {
    assert!(problem("# A\n\nIt takes 528 ns.\n").starts_with("README.md:3: `528 ns`: no raw data is named for it"));
    assert!(problem("| a | b |\n| --- | --- |\n| x | 31 |\n").contains("`31` alone in a cell: no raw data"));
    // A source belongs to its own paragraph.
    let other = "It takes 528 ns.\n\nIt takes 528 ns.\n<!-- figures: results/day/1000x128-w16 bun cpu -->\n";
    assert!(problem(other).starts_with("README.md:1: `528 ns`: no raw data"));
}

#[test]
fn a_figure_that_is_not_what_its_raw_data_says_fails() {
    let said = problem("It takes 529 ns. <!-- figures: results/day/1000x128-w16 bun cpu -->\n");
    assert!(said.starts_with("README.md:1: `529 ns`: `results/day/1000x128-w16 bun cpu` says 528 (527."), "{said}");
}

#[test]
fn a_file_a_server_a_line_that_is_not_there_fails() {
    let said = |source: &str| problem(&format!("It takes 528 ns. <!-- figures: {source} -->\n"));
    assert!(said("results/day/1000x128-w17 bun cpu").contains("there is no file results/day/1000x128-w17.json.gz"));
    assert!(said("results/day/1000x128-w16 nobody cpu").contains("no run is of nobody; there are bun, ceiling, "));
    assert!(said("results/day/1000x128-w16 bun speed").contains("`speed` is no figure"));
    assert!(
        said("results/day/kernel.txt \"| 4097 \" ns")
            .contains("no line of results/day/kernel.txt has \"| 4097 \" in it")
    );
    assert!(
        said("results/day/kernel.txt \"| 64 \" ns").contains("lines of results/day/kernel.txt have \"| 64 \" in them")
    );
}

#[test]
fn a_doubtful_run_is_no_raw_data() {
    let said = problem("It takes 31 ns. <!-- figures: results/day/1000x128-w256 stentor-raw cpu -->\n");
    assert!(said.contains("0 of 3 runs are sound, and a figure takes 2, and half of them; one says: "), "{said}");
}

#[test]
fn nor_is_a_run_that_lost_something() {
    let said = problem("Its p50 is 7.7 s. <!-- figures: results/day/1000x128-r500 ws p50 -->\n");
    assert!(said.contains("0 of 3 runs are sound"), "{said}");
}

#[test]
fn a_percentile_of_too_few_publications_fails() {
    let said = problem("Its p99 is 6.4 ms. <!-- figures: results/day/1000x128-r50 stentor-raw p99 -->\n");
    assert!(said.contains("too few (750 of 1,000)"), "{said}");
}

#[test]
fn a_ratio_is_paired_by_round_and_has_an_interval() {
    let judge = |figures: &str, ends: &str| {
        judged(&format!(
            "Bun takes {figures} of it. <!-- figures: results/day/1000x128-w16 bun cpu paired ceiling{ends} -->\n"
        ))
    };
    let mean = judge("9.99", "").problems.remove(0);
    assert!(mean.contains("`results/day/1000x128-w16 bun cpu paired ceiling` says 1.09"), "{mean}");
    let of = "; results/day/1000x128-w16 bun cpu paired ceiling";
    let said = judge("1.09 (9.99 to 0.01)", &format!("{of} low{of} high")).problems;
    assert!(said.len() == 2 && said[0].contains(" low` says 0.95") && said[1].contains(" high` says 1.24"), "{said:?}");
    let few = problem("It takes 0.50. <!-- figures: results/day/1000x128-r500 stentor p50 paired ws -->\n");
    assert!(few.contains("sound"), "{few}");
}

#[test]
fn as_many_sources_as_figures() {
    let said = problem("From 3 to 528 ns. <!-- figures: results/day/1000x128-w16 bun cpu -->\n");
    assert!(said.contains("1 sources for 2 figures: `3 ns`; `528 ns`"), "{said}");
}

#[test]
fn what_was_asked_is_given_and_no_result() {
    let judge =
        |source: &str| judged(&format!("At 500 publications a second it takes 528 ns. <!-- figures: {source} -->\n"));
    let outcome = judge("given; results/day/1000x128-w16 bun cpu");
    assert_eq!((outcome.problems, outcome.traced, outcome.excused), (vec![], 1, 1));
}

#[test]
fn what_is_excused_needs_no_raw_data_and_what_excuses_nothing_is_a_fault() {
    let judge = |excuses: &str| run(project("Lines of 64 KiB wait for 5 s.\n", excuses).path(), false);
    assert!(judge("README.md: KiB s\n  Bounds.\n").unwrap().problems.is_empty());
    assert!(judge("README.md: \"64 KiB wait\"\n  A bound.\n\nREADME.md: s\n  A bound.\n").unwrap().problems.is_empty());
    let some = judge("README.md: KiB\n  Bounds.\n\nREADME.md: GiB\n  Others.\n").unwrap().problems;
    assert_eq!(some.len(), 2, "{some:?}");
    assert!(some[1].contains("excuses nothing any more: README.md: GiB"), "{some:?}");
    assert!(
        judge("README.md: KiB s\n").unwrap_err().to_string().contains("there is no reason below: README.md: KiB s")
    );
}

#[test]
fn code_and_links_and_comments_hold_no_figures() {
    let text = "`5 ms` and [x](y-5 ms) <!-- 5 ms -->\n\n```sh\nsleep 5 s\n```\n";
    assert_eq!(judged(text).problems, Vec::<String>::new());
}

#[test]
fn writing_puts_in_what_the_raw_data_says() {
    let folder = project(
        "It takes **1,529 ns**, and 0.9 ms. <!-- figures: results/day/1000x128-w16 bun cpu; results/none bun cpu -->\n",
        "",
    );
    assert!(written(folder.path()).starts_with("It takes **528 ns**, and 0.9 ms."));
}

#[test]
fn what_is_said_of_a_session_is_written_into_its_page_as_well() {
    let folder = project("", "");
    let reading = "Bun takes 1 ns. <!-- figures: 1000x128-w16 bun cpu -->\n";
    fs::write(folder.path().join("results/day/reading.md"), reading).unwrap();
    let page = folder.path().join("results/day/README.md");
    fs::write(&page, format!("# day\n\n{reading}\nIt took 1 ns.\n")).unwrap();
    run(folder.path(), true).unwrap();
    let text = fs::read_to_string(page).unwrap();
    assert!(text.starts_with("# day\n\nBun takes 528 ns.") && text.ends_with("It took 1 ns.\n"), "{text}");
}

const TABLE: &str = "<!-- figures from results/day -->\n<!-- table:\nrow ceiling = bare\nrow stentor-raw = **ours**\nrow stentor = json\nrow bun = Bun\n\
                     row tungstenite = t\nrow ws = ws\nrow nats = NATS\nrow nchan = Nchan\ncolumn CPU = 1000x128-w16 cpu\n\
                     column at 500k/s = 1000x128-r500 p50 p99\ncolumn 50k/s = 1000x128-r50 p50 p99\ncolumn full = 1000x128-w256 cpu\n\
                     column held = 1000x128-r* held\n-->\n<!-- end of table -->\n";

#[test]
fn a_table_is_made_of_raw_data_and_stands_as_it_was_made() {
    let folder = project(TABLE, "");
    assert!(run(folder.path(), false).unwrap().problems[0].contains("not what its raw data says"));
    let text = written(folder.path());
    let row = |name: &str| text.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap().to_owned();
    // Two of three of its runs at 500,000 a second are doubtful, and all of those in full flight; 750 publications are too few for a p99.
    assert_eq!(row("**ours**"), "| **ours** | 269 ns | – | 2.4 / – ms | – | ≥ 50k/s |");
    assert_eq!(row("NATS"), "| NATS | 794 ns | 11 / 32 ms | 5.6 / – ms | 238 ns | ≥ 500k/s |");
    // What fell behind has no latencies of those that it still served.
    assert_eq!(row("ws"), "| ws | 6.1 µs | not held | 4.1 / – ms | 6.6 µs | 50k/s |");
    // Its rounds took 1.2 to 1.8 times what the best took: of three, that doesn't tell it from the best, so that nobody is ahead there.
    assert_eq!(row("Nchan"), "| Nchan | 4.4 µs | not held | 3.5 / – ms | 4.5 µs | 50k/s |");
    let outcome = run(folder.path(), false).unwrap();
    assert!(outcome.problems.is_empty(), "{outcome}");
    fs::write(folder.path().join("README.md"), text.replace("269 ns", "268 ns")).unwrap();
    assert!(run(folder.path(), false).unwrap().problems[0].contains("not what its raw data says"));
}

#[test]
fn nobody_who_was_measured_is_left_out_of_a_table() {
    assert!(problem(&TABLE.replace("row bun = Bun\n", "")).contains("bun was measured and has no row"));
    assert!(
        problem(&TABLE.replace("row bun = Bun\n", "row bun = Bun\nrow deno = Deno\n"))
            .contains("deno has a row and was not measured")
    );
    assert!(
        problem(&TABLE.replace("column CPU", "pillar CPU"))
            .contains("is not understood: expected `row SERVER = TITLE`")
    );
    assert!(problem("<!-- table:\n-->\n").contains("nothing ends it"));
    // Who need not be there isn't, where nobody measured it.
    let maybe = written(project(&TABLE.replace("row bun = Bun", "maybe deno = Deno\nmaybe bun = Bun"), "").path());
    assert!(maybe.contains("| Bun | 528 ns") && !maybe.contains("| Deno"), "{maybe}");
}
