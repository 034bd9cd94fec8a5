//! The summary of a comparison that asked several questions: what one looks for first, and the two plots that show it.
//!
//! A question is one file of runs against several targets. All figures are medians, and ratios to the first target of
//! their own question: its runs met the same weather as the others'. Targets that differ in one flag have tables and plots
//! of their own ([`curve`]).

use anyhow::{Context, Result};

use super::{
    compare::{Group, as_markdown, middle},
    curve,
    plot::Bars,
    question::{Question, TOO_FEW, cpu, factor, mark, median, sends, tail},
    report::percentile_plot,
};
use crate::{figures::Run, spec::Pace, units};

/// One table a figure: a row for each question, a column for each target; then one table a curve.
pub fn tables(questions: &[Question]) -> String {
    let mut out = String::new();
    let mut table = |title: &str, of: &dyn Fn(&Question) -> bool, cell: &dyn Fn(&Group<'_>, &Group<'_>) -> String| {
        let asked: Vec<&Question> = questions.iter().filter(|question| of(question) && compares(question)).collect();
        if !asked.is_empty() {
            out += &format!("{title}\n\n{}\n", as_markdown(&rows(&asked, cell)));
        }
    };
    let open = |question: &Question| question.window().is_none();
    let closed = |question: &Question| question.window().is_some();
    let cost = "At the same offered load, server CPU for each delivery: the first column's, and the others' as multiples of it; less is better.";
    table(cost, &open, &|group, first| ratio(group, first, cpu, units::time));
    table("Latency from the planned send time: p50, p99, p99.9.", &Question::has_latencies, &|group, _| tails(group));
    let cost = "Closed windows, as fast as it goes with so many publications not yet delivered to everybody. Server CPU for each delivery: the first column's, and the others' as multiples of it.";
    table(cost, &closed, &|group, first| ratio(group, first, cpu, units::time));
    let rate = "Closed windows, deliveries a second: likewise; more is better.";
    table(rate, &closed, &|group, first| ratio(group, first, |run| run.deliveries_per_s(), units::short));
    let knows = |question: &Question| closed(question) && question.report.runs.iter().any(|run| sends(run) > 0.0);
    table("Closed windows, sends for each delivery.", &knows, &|group, _| match median(group, sends) {
        known if known > 0.0 => format!("{known:.4}"),
        _ => "-".into(),
    });
    out += &floors(questions);
    for curve in questions.iter().flat_map(curve::of) {
        out += &format!("{}\n", curve.table());
    }
    if out.contains(TOO_FEW) {
        out += "`too few`: under 1,000 publications for p99, or 10,000 for p99.9. All deliveries of one are one sample of its delay.\n\n";
    }
    out += "`?`: some of the runs are doubtful, and the question's own table says how many. `!`: some lost or changed something.\n";
    out
}

/// The first target, and the others that are no points of a curve.
fn apart(question: &Question) -> Vec<Group<'_>> {
    let curves = curve::of(question);
    let first = question.first().name;
    let mut groups = question.groups();
    groups.retain(|group| group.name == first || !curves.iter().any(|curve| curve.holds(group.name)));
    groups
}

/// Whether there is more to see than curves.
fn compares(question: &Question) -> bool {
    apart(question).len() > 1 || curve::of(question).is_empty()
}

/// What closed windows cost at least, computed: the sends that have to be made, at what one costs. Empty where nothing is known of that.
fn floors(questions: &[Question]) -> String {
    let mut rows = vec![
        ["", "publications in a send, at most", "the bare loop's CPU for a send", "floor of a delivery"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for question in questions.iter().filter(|question| question.window().is_some_and(|window| window > 1)) {
        let Some(send) = questions.iter().find_map(|one| one.send_like(question)) else { continue };
        let most = question.in_a_send();
        rows.push(vec![question.name.clone(), factor(most), units::time(send), units::time(send / most)]);
    }
    let of = "Closed windows, the floor: computed from how many publications a send of up to 65,483 bytes can carry, and from what a send of the \
              bare loop's costs in the same session where it carries one.";
    if rows.len() > 1 { format!("{of}\n\n{}\n", as_markdown(&rows)) } else { String::new() }
}

fn rows(questions: &[&Question], cell: &dyn Fn(&Group<'_>, &Group<'_>) -> String) -> Vec<Vec<String>> {
    let names = names(questions);
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(names.iter().map(|name| name.to_string()));
    for question in questions {
        let groups = apart(question);
        let mut row = vec![question.name.clone()];
        for name in &names {
            let group = groups.iter().find(|group| group.name == *name);
            row.push(group.map_or_else(|| "-".into(), |group| cell(group, &groups[0]) + mark(group)));
        }
        rows.push(row);
    }
    rows
}

/// All targets but the points of curves, in the order in which they first appear.
fn names<'a>(questions: &[&'a Question]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for group in questions.iter().flat_map(|question| apart(question)) {
        if !names.contains(&group.name) {
            names.push(group.name);
        }
    }
    names
}

fn ratio(group: &Group<'_>, first: &Group<'_>, of: fn(&Run) -> f64, show: fn(f64) -> String) -> String {
    let (own, base) = (median(group, of), median(first, of));
    match () {
        () if own <= 0.0 => "-".into(),
        () if group.name == first.name || base <= 0.0 => show(own),
        () => factor(own / base),
    }
}

fn tails(group: &Group<'_>) -> String {
    [units::time(median(group, middle)), tail(group, 0.99), tail(group, 0.999)].join(" / ")
}

/// Processor time for each delivery as a multiple of the first target's, by window.
pub fn cost(questions: &[Question]) -> Result<String> {
    let first = questions.iter().find(|question| question.window().is_some());
    let first = first.context("--cost: none of the results is of a run with a --window")?;
    let alike = |question: &&Question| question.shape() == first.shape();
    let mut windows: Vec<&Question> =
        questions.iter().filter(|question| question.window().is_some()).filter(alike).collect();
    windows.sort_by_key(|question| question.window());
    let names = names(&windows);
    let group = |question: &&Question| {
        let groups = question.groups();
        let base = median(&groups[0], cpu);
        let value = |name: &str| {
            let group = groups.iter().find(|group| group.name == name)?;
            Some(median(group, cpu) / base)
        };
        let window = question.window().unwrap_or_default();
        let label = if window == 1 { "one at a time".to_owned() } else { format!("{window} in flight") };
        (label, names.iter().map(|name| value(name)).collect())
    };
    let spec = &first.report.spec;
    let title = format!(
        "Server CPU for each delivery, as a multiple of {}: {} subscribers, {} bytes",
        names.first().unwrap_or(&"?"),
        units::count(spec.subs as u64),
        spec.size
    );
    let groups = windows.iter().map(group).collect();
    let names = names.iter().map(|name| name.to_string()).collect();
    Ok(Bars { title: &title, names, groups, show: factor }.svg())
}

/// Latency by percentile, of the first question with planned send times.
pub fn latency(questions: &[Question]) -> Result<String> {
    let open = questions.iter().find(|question| question.has_latencies());
    let open = open.context("--latency: none of the results is of a run with a --rate")?;
    let spec = &open.report.spec;
    let rate = match &spec.pace {
        Pace::Rate(rate) => format!("{rate} to "),
        _ => String::new(),
    };
    let title = format!("Latency from the planned send time: {rate}{} subscribers", units::count(spec.subs as u64));
    percentile_plot(&open.report, &title)
}
