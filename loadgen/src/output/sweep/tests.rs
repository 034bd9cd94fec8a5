//! What a server held, and what it took, of runs that were made up.

use super::*;
use crate::{
    figures::{self, ClassFigures, Distribution, GeneratorFigures},
    machine::Machine,
    meter::times,
    server::ServerFigures,
    spec::tests::sample,
    units::Rate,
};

/// A run of 4 s that delivered everything in time: 600 publications, whose latencies are around `ms`.
fn run(name: &str, round: u32, cpu_ns: f64, ms: u64) -> Run {
    let mut latency = times();
    latency.record_n(ms * 1_000_000, 500).unwrap();
    latency.record_n(3 * ms * 1_000_000, 100).unwrap();
    let latency = Distribution::of(&latency);
    let class = ClassFigures {
        label: "all".into(),
        publications: 600,
        latency: latency.clone(),
        sent: latency,
        handed: None,
        bytes: 1 << 20,
    };
    Run {
        name: name.into(),
        seconds: 4.0,
        planned_seconds: Some(4.0),
        publications: 600,
        deliveries: 600,
        segments: Some(300),
        round: Some(round),
        classes: vec![class],
        server: Some(ServerFigures { cpu_ns_per_delivery: cpu_ns, ..ServerFigures::default() }),
        ..figures::tests::sample()
    }
}

fn doubtful(name: &str, round: u32) -> Run {
    Run { doubts: vec!["the schedule slipped: by a lot".into()], ..run(name, round, 9e9, 900) }
}

/// It took half as long again for what it was offered.
fn behind(name: &str, round: u32) -> Run {
    let mut run = Run { seconds: 6.0, doubts: vec!["waited".into()], ..run(name, round, 9e9, 900) };
    run.server.as_mut().unwrap().busiest_thread = Some(1.0);
    run
}

fn report(rate: f64, runs: Vec<Run>) -> Report {
    Report {
        format: 1,
        version: String::new(),
        commit: None,
        started: 0,
        command: Vec::new(),
        machine: Machine::default(),
        spec: Spec { pace: Pace::Rate(Rate(rate)), ..sample() },
        runs,
        thresholds: Vec::new(),
        search: None,
    }
}

fn sweep(rates: Vec<(f64, Vec<Run>)>) -> Sweep {
    Sweep::of(rates.into_iter().map(|(rate, runs)| report(rate, runs)).collect(), None).unwrap()
}

/// Two rounds at each rate: `a` holds both, `b` falls behind at the second.
fn two() -> Sweep {
    let at = |factor: u64| {
        (1..=2).flat_map(move |round| [run("a", round, 1e3, 2), run("b", round, 1e3 * factor as f64, 2 * factor)])
    };
    let mut high: Vec<Run> = (1..=2).map(|round| run("a", round, 500.0, 2)).collect();
    high.extend((1..=2).map(|round| behind("b", round)));
    sweep(vec![(200.0, high), (100.0, at(3).collect())])
}

#[test]
fn a_capacity_is_the_highest_rate_that_was_held_in_every_round() {
    let sweep = two();
    let b = sweep.capacity("b");
    assert_eq!(b, Capacity { held: Some(100.0), above: Above::Behind { rate: 200.0, behind: 2, rounds: 2 } });
    assert_eq!(sweep.capacity("a"), Capacity { held: Some(200.0), above: Above::Nothing });
    let held = |runs| self::sweep(vec![(100.0, runs)]).capacity("a").held;
    assert_eq!(held(vec![run("a", 1, 1.0, 1), behind("a", 2), run("a", 3, 1.0, 1)]), None);
    let lost = Run { faults: vec!["1 missing".into()], ..run("a", 2, 1.0, 1) };
    assert_eq!(held(vec![run("a", 1, 1.0, 1), lost]), None);
}

#[test]
fn what_the_generator_could_not_do_is_no_servers_limit() {
    let generator = GeneratorFigures { receivers_busy: vec![0.99], ..GeneratorFigures::default() };
    let slow = Run { seconds: 6.0, generator, ..run("a", 1, 1.0, 1) };
    let capacity = sweep(vec![(100.0, vec![run("a", 1, 1.0, 1)]), (200.0, vec![slow])]).capacity("a");
    assert_eq!(capacity, Capacity { held: Some(100.0), above: Above::Generator { rate: 200.0 } });
    assert_eq!(capacity.to_string(), "at least 100");
}

#[test]
fn a_doubtful_round_has_no_figures_and_most_rounds_being_so_a_rate_is_not_held() {
    let most = vec![run("a", 1, 1e3, 2), doubtful("a", 2), doubtful("a", 3)];
    let capacity = sweep(vec![(50.0, vec![run("a", 1, 1.0, 1)]), (100.0, most)]).capacity("a");
    let why = "the schedule slipped".to_owned();
    assert_eq!(capacity, Capacity { held: Some(50.0), above: Above::Doubtful { rate: 100.0, why } });
    let few = sweep(vec![(100.0, vec![run("a", 1, 1e3, 2), doubtful("a", 2)])]);
    assert_eq!(few.capacity("a").held, Some(100.0));
    let cpu = few.point(0, "a").unwrap().figure(&FIGURES[0]);
    assert_eq!(cpu, Some(Ok(1e3)));
    assert!(few.tables().contains("| a | 1 of 2, 1 doubtful: the schedule slipped | 1us |"), "{}", few.tables());
}

#[test]
fn a_round_that_was_made_again_counts_by_its_last_sound_run() {
    let runs = vec![doubtful("a", 1), run("a", 1, 1e3, 2), run("a", 2, 3e3, 2), doubtful("a", 2)];
    let sweep = sweep(vec![(100.0, runs)]);
    let point = sweep.point(0, "a").unwrap();
    assert_eq!((point.rounds.len(), point.standing()), (2, Standing::Held));
    assert_eq!(point.figure(&FIGURES[0]), Some(Ok(2e3)));
    assert!(sweep.tables().contains("2 runs were made again"), "{}", sweep.tables());
    let fell = [doubtful("a", 1), behind("a", 1)];
    assert_eq!(Point::of(&[&fell[0], &fell[1]]).standing(), Standing::Behind);
}

#[test]
fn ratios_are_paired_by_round_whatever_the_order_of_runs() {
    let runs =
        vec![run("a", 1, 1e3, 2), run("a", 2, 4e3, 8), run("b", 2, 8e3, 16), run("b", 1, 2e3, 4), run("b", 3, 1.0, 1)];
    let sweep = sweep(vec![(100.0, runs)]);
    let (a, b) = (sweep.point(0, "a").unwrap(), sweep.point(0, "b").unwrap());
    let ratio = b.ratio(&a, &FIGURES[0]).unwrap();
    assert!((ratio.mean - 2.0).abs() < 1e-9 && ratio.rounds == 2, "{ratio:?}");
    let (low, high) = ratio.interval.unwrap();
    assert!(high / low < 1.001, "{ratio:?}");
    // Two rounds of 600 publications are enough for p99 together.
    assert!(b.ratio(&a, &FIGURES[3]).is_some_and(|ratio| (ratio.mean - 2.0).abs() < 0.01));
}

#[test]
fn a_percentile_of_too_few_publications_has_neither_a_figure_nor_a_ratio() {
    let sweep = sweep(vec![(100.0, vec![run("a", 1, 1e3, 2), run("b", 1, 1e3, 2)])]);
    let (a, b) = (sweep.point(0, "a").unwrap(), sweep.point(0, "b").unwrap());
    assert_eq!(b.figure(&FIGURES[3]), Some(Err(TooFew { have: 600, need: 1_000 })));
    assert!(b.ratio(&a, &FIGURES[3]).is_none() && b.ratio(&a, &FIGURES[2]).is_some());
    assert!(sweep.tables().contains("too few (600 of 1,000)"), "{}", sweep.tables());
}

#[test]
fn tables_say_what_was_held_and_what_it_took() {
    let tables = two().tables();
    assert!(tables.starts_with("10 subscribers of one topic, 128 bytes, even arrivals.\n"), "{tables}");
    for line in [
        "| a | at least 200 | 2000 | was not asked for more |",
        "| b | 100 | 1000 | fell behind at 200, in 2 of 2 |",
        "### 100 publications a second, 1000 deliveries",
        "| a | 2 | 1us | 1 | 0.500 | 2.001ms | 1 | 6.001ms | 1 |",
        "| b | 2 | 3us | 3.00 (3.00 to 3.00) | 0.500 | ",
        "| b | 0 of 2, fell behind: 67 % delivered in time | - | - | - | - | - | - | - |",
    ] {
        assert!(tables.contains(line), "{line}\n{tables}");
    }
}

#[test]
fn the_plot_has_four_panels_and_every_line_ends_as_its_capacity_is_known() {
    let svg = two().plot();
    // Four figures of two rates of `a`, and of the rate that `b` held.
    assert_eq!(svg.matches("<circle").count(), 4 * 3, "{svg}");
    assert_eq!(svg.matches("v12\" class=\"line plot-1\"").count(), 4, "{svg}");
    assert_eq!(svg.matches("l6 4l-6 4\" class=\"line plot-0\"").count(), 4, "{svg}");
    assert!(!svg.contains("NaN") && !svg.contains("inf") && svg.contains("arrivals"), "{svg}");
}

#[test]
fn a_search_refines_what_the_grid_found() {
    let mut found = report(150.0, vec![run("b", 1, 1.0, 1)]);
    found.search = Some(figures::Found { rate: Some(150.0), ..Default::default() });
    let grid = report(100.0, vec![run("a", 1, 1.0, 1), run("b", 1, 1.0, 1)]);
    let sweep = Sweep::of(vec![found, grid], Some("b")).unwrap();
    assert_eq!((sweep.searched("b"), sweep.searched("a"), &*sweep.against), (Some(150.0), None, "b"));
    assert!(sweep.tables().contains("| by search |"), "{}", sweep.tables());
}

#[test]
fn a_window_alone_is_a_table_of_throughput() {
    let mut window = report(1.0, vec![run("a", 1, 1e3, 2), run("b", 1, 2e3, 2)]);
    window.spec.pace = Pace::Window(16);
    let tables = Sweep::of(vec![window], None).unwrap().tables();
    assert!(tables.starts_with("16 in flight, 10 subscribers of one topic, 128 bytes.\n"), "{tables}");
    assert!(tables.contains("| b | 1 | 2us | 2.00 (one round) | 0.500 | 150 | 1.00 (one round) |"), "{tables}");
    assert!(!tables.contains("p99") && !tables.contains("held"), "{tables}");
}

#[test]
fn what_is_not_one_grid_is_refused() {
    let refused = |reports: Vec<Report>, against| Sweep::of(reports, against).err().unwrap().to_string();
    let one = || report(100.0, vec![run("a", 1, 1.0, 1)]);
    let mut other = report(200.0, vec![run("a", 1, 1.0, 1)]);
    other.spec.size = 256;
    assert!(
        refused(vec![one(), other], None).contains("128 bytes")
            && refused(vec![one(), one()], None).contains("same rate")
    );
    assert!(refused(vec![one()], Some("x")).contains("--against x: there are a"));
    let mut window = one();
    window.spec.pace = Pace::Window(1);
    assert!(refused(vec![window, one()], None).contains("without a --rate"));
    assert!(refused(vec![], None).contains("no result"));
}
