//! Conditions: what results were measured on, in a few lines below which their figures can stand.
//!
//! All of it is in each result. What several results, or several runs, have in common is said once.

use crate::{
    figures::{Report, Run},
    target::Url,
    units,
};

/// As a list in Markdown.
pub fn of(reports: &[Report]) -> String {
    let runs = || reports.iter().flat_map(|report| &report.runs);
    let mut lines = Vec::new();
    let mut add = |title: &str, known: Vec<String>| {
        if !known.is_empty() {
            lines.push(format!("- {title}: {}\n", known.join("; ")));
        }
    };
    add("machine", distinct(reports.iter().map(machine)));
    add("commit", distinct(reports.iter().filter_map(|report| report.commit.clone())));
    add("servers", distinct(runs().filter_map(servers)));
    add("generator", distinct(runs().map(generator)));
    if runs().any(over_loopback) {
        let text = "all traffic is over loopback: a server's processor time holds the kernel's receiving as well as its sending";
        lines.push(format!("- {text}\n"));
    }
    lines.concat()
}

fn distinct(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut known: Vec<String> = Vec::new();
    all.for_each(|one| {
        if !known.contains(&one) {
            known.push(one);
        }
    });
    known
}

fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let memory = units::bytes(machine.memory as f64);
    format!(
        "{}, {} cores, {memory}, {}, congestion control {}",
        machine.cpu, machine.cores, machine.kernel, machine.congestion
    )
}

fn servers(run: &Run) -> Option<String> {
    let server = run.server.as_ref()?;
    let nice = server.nice.map_or_else(String::new, |nice| format!(", {nice}"));
    Some(format!("cores {:?}{nice}", server.cores))
}

fn generator(run: &Run) -> String {
    let generator = &run.generator;
    let cores = generator.work.as_ref().map_or(&generator.cores, |work| &work.cores);
    let nice = generator.nice.map_or_else(String::new, |nice| format!(", {nice}"));
    let publisher = if generator.publisher_real_time { ", its publisher in real time" } else { "" };
    format!("cores {cores:?}{nice}{publisher}")
}

fn over_loopback(run: &Run) -> bool {
    run.server.is_some() && Url::parse(&run.target).is_ok_and(|url| url.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_is_said_once_and_in_its_order() {
        let said = distinct(["b", "a", "b"].into_iter().map(str::to_owned));
        assert_eq!(said, ["b", "a"]);
    }
}
