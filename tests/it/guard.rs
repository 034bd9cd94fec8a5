//! What `scripts/guard` decides about the counts of instructions.

use std::collections::BTreeMap;

#[path = "../../benches/budget/mod.rs"]
mod budget;

use budget::{Baseline, Step, Verdict};

const NAMES: &[&str] = &["append", "turn"];

/// Two steps: 1,000 instructions of at most 1,100, and 50,000 of at most 60,000.
fn baseline() -> Baseline {
    let step = |instructions, budget| Step { instructions, budget, reason: "it is \"worth\" it".to_owned() };
    let steps = [("append".to_owned(), step(1_000, 1_100)), ("turn".to_owned(), step(50_000, 60_000))];
    Baseline { tools: tools(1), steps: steps.into() }
}

fn tools(version: u32) -> Vec<String> {
    vec![format!("rustc {version}"), "valgrind".to_owned()]
}

fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    of.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
}

#[test]
fn growth_within_the_budget_is_somebodys_decision_and_beyond_it_nobodys() {
    let baseline = baseline();
    for (count, verdict) in [
        (994, Verdict::Lower),
        (996, Verdict::Keep),
        (1_029, Verdict::Keep),
        (1_031, Verdict::Renew),
        (1_100, Verdict::Renew),
        (1_101, Verdict::Refuse),
    ] {
        assert_eq!(baseline.judge("append", count), verdict, "{count}");
    }
    assert_eq!(baseline.judge("another", 1), Verdict::Enter);
}

#[test]
fn a_budget_holds_even_where_growth_would_be_tolerated() {
    let mut baseline = baseline();
    baseline.steps.get_mut("append").unwrap().budget = 1_010;
    assert_eq!((baseline.judge("append", 1_010), baseline.judge("append", 1_011)), (Verdict::Keep, Verdict::Refuse));
}

#[test]
fn what_falls_stays_down_and_nothing_else_moves() {
    let mut now = baseline();
    assert!(!now.lower(&counts(&[("append", 1_020), ("turn", 49_900)])));
    assert_eq!(now, baseline());
    assert!(now.lower(&counts(&[("append", 1_200), ("turn", 40_000), ("another", 5)])));
    assert_eq!(now.steps["turn"], Step { instructions: 40_000, ..baseline().steps["turn"].clone() });
    assert_eq!(now.steps["append"], baseline().steps["append"]);
    assert_eq!(now.judge("turn", 42_000), Verdict::Renew, "it is held to what it fell to");
}

#[test]
fn renewing_takes_growth_within_the_budget_only_and_all_of_it_or_nothing() {
    let mut now = baseline();
    let refused = now.renew(tools(1), &counts(&[("append", 1_101), ("turn", 55_000)])).unwrap_err();
    assert!(refused.len() == 1 && refused[0].contains("append is 1101, its budget 1100"), "{refused:?}");
    assert_eq!(now, baseline());
    now.renew(tools(1), &counts(&[("append", 1_100)])).unwrap();
    assert_eq!((now.steps["append"].instructions, now.steps["turn"].instructions), (1_100, 50_000));
    assert_eq!(now.steps["append"].budget, 1_100, "a budget is raised by hand");
}

#[test]
fn counts_of_different_compilers_do_not_stand_side_by_side() {
    let mut now = baseline();
    assert!(now.renew(tools(2), &counts(&[("append", 1_000)])).is_err());
    assert_eq!(now, baseline());
    now.renew(tools(2), &counts(&[("append", 900), ("turn", 51_000)])).unwrap();
    assert_eq!((&now.tools, now.steps["turn"].instructions), (&tools(2), 51_000));
}

#[test]
fn a_new_step_has_to_say_what_it_buys() {
    let mut now = baseline();
    now.renew(tools(1), &counts(&[("new", 200)])).unwrap();
    assert_eq!((now.steps["new"].instructions, now.steps["new"].budget), (200, 210));
    let faults = now.faults(&["append", "turn", "new"]);
    assert!(faults.len() == 1 && faults[0].starts_with("new has a budget without a reason"), "{faults:?}");
}

#[test]
fn a_file_that_contradicts_itself_is_told_line_by_line() {
    assert_eq!(baseline().faults(NAMES), Vec::<String>::new());
    let mut wrong = baseline();
    wrong.steps.get_mut("turn").unwrap().budget = 49_999;
    let faults = wrong.faults(&["turn"]);
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].starts_with("append is counted no more"), "{faults:?}");
    assert!(faults[1].starts_with("turn has a budget of 49999, less than its 50000"), "{faults:?}");
}

#[test]
fn the_file_is_read_as_it_was_written() {
    let text = baseline().to_text();
    assert_eq!(Baseline::parse(&text).unwrap(), baseline(), "{text}");
    assert!(text.lines().filter(|line| line.contains("budget")).count() == 2, "a step a line: {text}");
    let kept = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.json")).unwrap();
    assert_eq!(Baseline::parse(&kept).unwrap().to_text(), kept);
}
