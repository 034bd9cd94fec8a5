//! Each doubt is raised by what it is about, and by nothing else.

use super::*;
use crate::{
    clock::Quality,
    figures::Distribution,
    meter::{Checks, times},
};

/// A run that nothing speaks against.
fn fine() -> Run {
    Run {
        target: "ws://h".into(),
        label: "A".into(),
        name: "h".into(),
        doubts: Vec::new(),
        faults: Vec::new(),
        ended: None,
        notes: Vec::new(),
        open_loop: true,
        seconds: 10.0,
        connected: 10,
        connections_per_s: 1.0,
        publications: 100,
        deliveries: 1000,
        bytes: 1 << 20,
        classes: Vec::new(),
        spread: Distribution::default(),
        spread_unknown: 0,
        joins: Distribution::default(),
        rejoins: Distribution::default(),
        checks: Checks::default(),
        server: Some(ServerFigures { cores: vec![0], cores_busy: 0.5, ..ServerFigures::default() }),
        generator: GeneratorFigures {
            receivers_busy: vec![0.4],
            cores: vec![1],
            clock: Quality { read_ns: 20.0, ..Quality::default() },
            ..GeneratorFigures::default()
        },
        intervals: Vec::new(),
    }
}

fn quiet() -> Circumstances {
    Circumstances { foreign_work: vec![(1, 0.02)], machine_busy: 0.5 }
}

fn all_at(nanoseconds: u64) -> Distribution {
    let mut times = times();
    times.record(nanoseconds).unwrap();
    Distribution::of(&times)
}

/// The only doubt about a fine run, changed.
#[track_caller]
fn doubt(change: impl FnOnce(&mut Run, &mut Circumstances)) -> String {
    let (mut run, mut around) = (fine(), quiet());
    change(&mut run, &mut around);
    let mut doubts = of(&run, &around);
    assert_eq!(doubts.len(), 1, "{doubts:?}");
    doubts.remove(0)
}

#[test]
fn a_fine_run_raises_none() {
    assert_eq!(of(&fine(), &quiet()), Vec::<String>::new());
}

#[test]
fn a_saturated_generator_is_doubtful() {
    assert!(doubt(|run, _| run.generator.receivers_busy = vec![0.3, 0.97]).contains("saturated side"));
    assert!(doubt(|run, _| run.generator.publisher_busy = 0.99).contains("saturated side"));
    let unknown = doubt(|run, _| {
        run.generator.receivers_busy = vec![0.97];
        run.server = None;
    });
    assert!(unknown.contains("may have been") && unknown.contains("--server-pid"), "{unknown}");
}

#[test]
fn a_saturated_server_explains_a_busy_generator() {
    let mut run = fine();
    run.generator.receivers_busy = vec![0.98];
    run.server.as_mut().unwrap().cores_busy = 0.99;
    assert_eq!(of(&run, &quiet()), Vec::<String>::new());
    assert!(notes(&run)[0].contains("both sides were saturated"));
}

#[test]
fn a_schedule_that_slips_is_doubtful() {
    assert!(doubt(|run, _| run.generator.slip = all_at(2_000_000)).contains("the schedule slipped"));
    let mut run = fine();
    run.generator.slip = all_at(100_000);
    assert!(of(&run, &quiet()).is_empty());
}

#[test]
fn waiting_for_the_server_is_a_note_and_no_doubt() {
    let mut run = fine();
    run.generator.held_up = all_at(50_000_000);
    assert!(of(&run, &quiet()).is_empty());
    assert!(notes(&run)[0].contains("waited for the server"));
}

#[test]
fn a_backlog_worth_of_time_is_doubtful() {
    assert!(doubt(|run, _| run.generator.backlog_bytes = 10_000).contains("lay unread"));
}

#[test]
fn sharing_a_core_is_doubtful() {
    assert!(doubt(|run, _| run.generator.cores = vec![0, 1]).contains("may both run on cores [0]"));
    assert!(doubt(|_, around| around.foreign_work = vec![(1, 0.4)]).contains("core 1 was shared"));
    let crowded = doubt(|run, around| (run.server, around.machine_busy) = (None, 0.99));
    assert!(crowded.contains("whole machine"), "{crowded}");
}

#[test]
fn clocks_and_hosts_are_doubted() {
    assert!(doubt(|run, _| run.generator.clock.read_ns = 900.0).contains("clock"));
    assert!(doubt(|run, _| run.checks.too_early = 3).contains("don't share a clock"));
    assert!(doubt(|run, _| run.generator.steal = 0.1).contains("the host took 10 %"));
}
