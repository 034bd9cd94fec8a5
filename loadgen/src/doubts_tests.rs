//! Each doubt is raised by what it is about, and by nothing else.

use super::*;
use crate::{
    figures::{Distribution, tests::sample as fine},
    meter::times,
};

/// Work on one core.
fn on(core: usize, busy: f64, own: f64) -> Option<CoreWork> {
    Some(CoreWork { cores: vec![core], busy, own })
}

fn all_at(nanoseconds: u64) -> Distribution {
    let mut times = times();
    times.record(nanoseconds).unwrap();
    Distribution::of(&times)
}

/// The only doubt about a fine run, changed.
#[track_caller]
fn doubt(change: impl FnOnce(&mut Run)) -> String {
    let mut run = fine();
    change(&mut run);
    let mut doubts = of(&run);
    assert_eq!(doubts.len(), 1, "{doubts:?}");
    doubts.remove(0)
}

#[test]
fn a_fine_run_raises_none() {
    assert_eq!(of(&fine()), Vec::<String>::new());
}

#[test]
fn a_saturated_generator_is_doubtful() {
    assert!(doubt(|run| run.generator.receivers_busy = vec![0.3, 0.97]).contains("saturated side"));
    assert!(doubt(|run| run.generator.publisher_busy = 0.99).contains("saturated side"));
    let unknown = doubt(|run| {
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
    assert_eq!(of(&run), Vec::<String>::new());
    assert!(notes(&run)[0].contains("both sides were saturated"));
}

#[test]
fn a_server_with_cores_to_spare_explains_nothing() {
    let spare = doubt(|run| {
        run.generator.receivers_busy = vec![0.98];
        let server = run.server.as_mut().unwrap();
        (server.cores, server.cores_busy, server.busiest_thread) = (vec![0, 2, 3, 4], 0.99, Some(0.25));
    });
    assert!(spare.contains("the generator was the saturated side"), "{spare}");
}

#[test]
fn other_work_on_the_servers_core_is_doubtful() {
    let work = |run: &mut Run, busy: f64, waited: Option<f64>| {
        let server = run.server.as_mut().unwrap();
        (server.work, server.waited) = (on(0, busy, server.cores_busy), waited);
    };
    for waited in [Some(0.2), None] {
        let shared = doubt(|run| work(run, 0.9, waited));
        assert!(shared.contains("cores [0] were shared: 0.40 cores") && shared.contains("than the server"), "{shared}");
    }
    // The kernel's housekeeping; and interrupts that somebody else's account has, for which nobody waited.
    for (busy, waited) in [(0.58, Some(0.2)), (0.9, Some(0.001))] {
        let mut run = fine();
        work(&mut run, busy, waited);
        assert_eq!(of(&run), Vec::<String>::new());
    }
}

#[test]
fn falling_seconds_behind_the_plan_is_doubtful() {
    let behind = doubt(|run| run.generator.held_up = all_at(3_000_000_000));
    assert!(behind.contains("the longest 3.0") && behind.contains("lower --rate"), "{behind}");
    let mut windowed = fine();
    (windowed.open_loop, windowed.generator.held_up) = (false, all_at(3_000_000_000));
    assert_eq!(of(&windowed), Vec::<String>::new());
}

#[test]
fn a_run_that_was_stopped_is_doubtful() {
    assert!(doubt(|run| run.stopped = true).contains("stopped before its end"));
}

#[test]
fn a_schedule_that_slips_is_doubtful() {
    assert!(doubt(|run| run.generator.slip = all_at(2_000_000)).contains("the schedule slipped"));
    let mut run = fine();
    run.generator.slip = all_at(100_000);
    assert!(of(&run).is_empty());
}

#[test]
fn waiting_for_the_server_is_a_note_and_no_doubt() {
    let mut run = fine();
    run.generator.held_up = all_at(50_000_000);
    assert!(of(&run).is_empty());
    assert!(notes(&run)[0].contains("waited for the server"));
}

#[test]
fn over_loopback_it_is_said_whose_bill_receiving_is_on() {
    let mut run = fine();
    assert!(notes(&run).is_empty());
    run.target = "ws://127.0.0.1:1/x".into();
    assert!(notes(&run)[0].contains("holds the kernel's receiving"), "{:?}", notes(&run));
    run.server = None;
    assert!(notes(&run).is_empty());
}

#[test]
fn two_counts_of_sends_that_are_apart_are_a_note() {
    let counts = |segments, counted| {
        let mut run = fine();
        run.segments = Some(segments);
        run.server.as_mut().unwrap().sends_per_delivery = Some(counted);
        assert!(of(&run).is_empty());
        notes(&run)
    };
    assert_eq!(counts(980, 1.0), Vec::<String>::new());
    for (segments, counted) in [(500, 1.0), (1000, 0.5)] {
        assert!(counts(segments, counted)[0].contains("sends a delivery"), "{:?}", counts(segments, counted));
    }
}

#[test]
fn a_backlog_worth_of_time_is_doubtful() {
    assert!(doubt(|run| run.generator.backlog_bytes = 10_000).contains("lay unread"));
}

#[test]
fn sharing_a_core_is_doubtful() {
    assert!(doubt(|run| run.generator.cores = vec![0, 1]).contains("may both run on cores [0]"));
    assert!(doubt(|run| run.generator.work = on(1, 0.8, 0.4)).contains("cores [1] were shared: 0.40 cores"));
    let crowded = doubt(|run| (run.server, run.generator.machine_busy) = (None, 0.99));
    assert!(crowded.contains("whole machine"), "{crowded}");
}

#[test]
fn clocks_and_hosts_are_doubted() {
    assert!(doubt(|run| run.generator.clock.read_ns = 900.0).contains("clock"));
    assert!(doubt(|run| run.checks.too_early = 3).contains("don't share a clock"));
    assert!(doubt(|run| run.generator.steal = 0.1).contains("the host took 10 %"));
}
