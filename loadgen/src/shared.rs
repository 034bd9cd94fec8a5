//! What all threads of one run share: the settings, the way of speaking, and the few words that change meanwhile.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use crate::{
    dialect::Dialect,
    flights::Flights,
    schedule::Plan,
    spec::{Disturbance, Pace, Scenario, Spec},
    target::Sources,
    tls::Peer,
    watchlist::WatchLists,
};

/// Read by all threads of a run.
pub struct Shared {
    /// The settings.
    pub spec: Spec,
    /// How the server is spoken to.
    pub dialect: Dialect,
    /// Where subscribers connect.
    pub target: SocketAddr,
    /// What they are to speak to it with; none where that is in clear.
    pub peer: Option<Peer>,
    /// From where.
    pub sources: Sources,
    /// What they subscribe to.
    pub lists: WatchLists,
    /// Which publications are measured, and as what.
    pub classes: Classes,
    /// Publications on their way.
    pub flights: Flights,
    /// The last number published, by topic. Written by the publisher alone.
    pub published: Vec<AtomicU32>,
    /// Publications of the measured part that were made until now.
    pub made: AtomicU64,
    /// By topic: how many receiving threads have measured subscribers of it.
    pub listeners: Vec<u32>,
    /// By topic: how many measured subscribers this process has of it.
    pub fans: Vec<u32>,
    /// What payloads of this run carry.
    pub run: u32,
    /// Set when one publishing thread has ended early, so that the others do.
    pub unpublished: AtomicBool,
    /// Set when everything is to end early.
    pub stop: AtomicBool,
}

impl Shared {
    /// Whether to end early.
    pub fn stopped(&self) -> bool {
        // Relaxed: it only has to be noticed soon, and orders nothing.
        self.stop.load(Ordering::Relaxed)
    }

    /// Which connections a thread has, as numbers over all parts.
    pub fn connections_of(spec: &Spec, thread: usize) -> Vec<usize> {
        let (first, count) = spec.share_of_subs();
        let (apart, among): (Vec<usize>, Vec<usize>) =
            (first..first + count).partition(|&nth| spec.apart && spec.disturbs(nth));
        if thread == spec.threads { apart } else { among.into_iter().skip(thread).step_by(spec.threads).collect() }
    }

    /// Counts, by topic, the threads that have measured subscribers of it.
    pub fn listeners_of(spec: &Spec, lists: &WatchLists) -> Vec<u32> {
        let mut threads = vec![0; spec.topics];
        for thread in 0..spec.receivers() {
            for (topic, fan) in Self::fan_of(spec, lists, thread).into_iter().enumerate() {
                threads[topic] += u32::from(fan > 0);
            }
        }
        threads
    }

    /// Counts, by topic, the measured subscribers of all threads.
    pub fn fans_of(spec: &Spec, lists: &WatchLists) -> Vec<u32> {
        let mut fans = vec![0; spec.topics];
        for fan in (0..spec.receivers()).map(|thread| Self::fan_of(spec, lists, thread)) {
            fans.iter_mut().zip(fan).for_each(|(sum, fan)| *sum += fan);
        }
        fans
    }

    /// Counts, by topic, the measured subscribers of one thread.
    pub fn fan_of(spec: &Spec, lists: &WatchLists, thread: usize) -> Vec<u32> {
        let mut fan = vec![0; spec.topics];
        for nth in Self::connections_of(spec, thread).into_iter().filter(|&nth| !spec.disturbs(nth)) {
            lists.of(nth).topics().into_iter().for_each(|topic| fan[topic] += 1);
        }
        fan
    }
}

/// Tells publications apart by when they are due: before the measured part, and which class within it.
pub struct Classes {
    /// What the classes are called.
    pub labels: Vec<String>,
    warm: u64,
    /// Without a rate, what is planned for warm-up may be so much for a server that it reaches into the measured part: it counts there.
    warms_by_time: bool,
    measured_after: u64,
    end_after: u64,
    start: AtomicU64,
    rule: Rule,
}

enum Rule {
    One,
    /// From so many nanoseconds of the measured part on, the second class.
    Split(u64),
    /// One class, whatever is disturbed from the beginning on.
    Throughout,
    /// The end of each period is the second class.
    Periodic {
        every: u64,
        calm: u64,
    },
}

impl Classes {
    /// The classes that a run's figures are kept in.
    pub fn new(spec: &Spec, plan: &Plan) -> Self {
        let half = (plan.end_at - plan.measured_at) / 2;
        let two = |a: &str, b: String| (vec![a.to_owned(), b], Rule::Split(half));
        let (labels, rule) = match (&spec.disturbance, &spec.pace) {
            _ if spec.scenario == Scenario::Mix => (vec![Self::only(spec.scenario).into()], Rule::Throughout),
            (Disturbance::Slow { share, read }, _) if read.0 == 0 => two("all read", format!("{share} stalled")),
            (Disturbance::Slow { share, read }, _) => two("all read", format!("{share} read {read}/s")),
            (Disturbance::Churn { rate, .. }, _) => two("calm", format!("churn {rate}")),
            (Disturbance::Join { share }, _) => two("before", format!("{share} connecting")),
            (Disturbance::Storm { share }, _) => two("before", format!("storm of {share}")),
            (Disturbance::None, Pace::Bursts { every, length, .. }) => {
                let calm = every.0 - length.0;
                (vec!["calm".into(), "burst".into()], Rule::Periodic { every: every.0, calm })
            }
            (Disturbance::None, _) => (vec![Self::only(spec.scenario).into()], Rule::One),
        };
        Self {
            labels,
            warm: plan.warm,
            warms_by_time: matches!(spec.pace, Pace::Window(_)),
            measured_after: plan.measured_at,
            end_after: plan.end_at,
            start: AtomicU64::new(0),
            rule,
        }
    }

    fn only(scenario: Scenario) -> &'static str {
        match scenario {
            Scenario::Echo => "round trip",
            Scenario::Mix => "who keep reading",
            _ => "all",
        }
    }

    /// The run starts at `at`, on the monotonic clock. Comes before the first publication.
    pub fn start(&self, at: u64) {
        self.start.store(at, Ordering::Release);
    }

    /// When the measured part begins; 0 where that is not decided yet.
    pub fn measured_at(&self) -> u64 {
        match self.start.load(Ordering::Acquire) {
            0 => 0,
            start => start + self.measured_after,
        }
    }

    /// When it ends.
    pub fn end_at(&self) -> u64 {
        self.start.load(Ordering::Acquire) + self.end_after
    }

    /// When the disturbance begins, if there is one.
    pub fn disturbed_at(&self) -> u64 {
        match self.rule {
            Rule::Split(after) => self.measured_at() + after,
            Rule::Throughout => self.measured_at(),
            Rule::One | Rule::Periodic { .. } => u64::MAX,
        }
    }

    /// How many publications come before the measured ones.
    pub fn warm(&self) -> u64 {
        self.warm
    }

    /// The class of a publication; none for those that are not measured.
    pub fn of(&self, number: u32, planned: u64) -> Option<u8> {
        let warming = if self.warms_by_time { planned < self.measured_at() } else { u64::from(number) < self.warm };
        if warming {
            return None;
        }
        let after = planned.saturating_sub(self.measured_at());
        Some(match self.rule {
            Rule::One | Rule::Throughout => 0,
            Rule::Split(at) => u8::from(after >= at),
            Rule::Periodic { every, calm } => u8::from(after % every >= calm),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        spec::tests::sample,
        units::{Rate, Share, Span},
    };

    #[test]
    fn publications_are_classed_by_when_they_are_due() {
        let spec = Spec { disturbance: Disturbance::Storm { share: Share(0.5) }, ..sample() };
        let plan = Plan::new(&spec, None);
        let classes = Classes::new(&spec, &plan);
        assert_eq!(classes.measured_at(), 0);
        classes.start(1_000);
        let measured = 1_000 + plan.measured_at;
        assert_eq!(classes.of(plan.warm as u32 - 1, measured), None);
        assert_eq!(classes.of(plan.warm as u32, measured), Some(0));
        assert_eq!(classes.of(900, classes.disturbed_at()), Some(1));
    }

    #[test]
    fn a_window_is_measured_on_time_however_slowly_the_server_took_what_was_to_warm_it_up() {
        let spec = Spec { pace: Pace::Window(1), ..sample() };
        let plan = Plan::new(&spec, None);
        let classes = Classes::new(&spec, &plan);
        classes.start(1_000);
        let measured = classes.measured_at();
        assert_eq!((classes.of(7, measured - 1), classes.of(7, measured)), (None, Some(0)));
    }

    #[test]
    fn bursts_are_a_class_of_their_own() {
        let pace = Pace::Bursts { rate: Rate(10.0), burst: Rate(100.0), every: Span::s(1), length: Span::ms(100) };
        let spec = Spec { pace, ..sample() };
        let classes = Classes::new(&spec, &Plan::new(&spec, None));
        classes.start(1);
        let at = |ms: u64| classes.of(1_000, classes.measured_at() + ms * 1_000_000);
        assert_eq!((at(0), at(899), at(900), at(999), at(1000)), (Some(0), Some(0), Some(1), Some(1), Some(0)));
    }

    #[test]
    fn the_disturbed_have_the_last_thread_to_themselves_where_they_are_apart() {
        let spec = Spec {
            subs: 20,
            threads: 2,
            apart: true,
            disturbance: Disturbance::Storm { share: Share(0.3) },
            ..sample()
        };
        let of: Vec<Vec<usize>> = (0..spec.receivers()).map(|thread| Shared::connections_of(&spec, thread)).collect();
        assert_eq!(of.iter().map(Vec::len).collect::<Vec<_>>(), [7, 7, 6]);
        assert!(of[2].iter().all(|&nth| spec.disturbs(nth)));
        let mut all = of.concat();
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn every_subscription_is_on_exactly_one_thread() {
        let disturbance = Disturbance::Slow { share: Share(0.1), read: crate::units::Bytes(0) };
        let spec = Spec { subs: 20, topics: 5, topics_per_sub: 2, threads: 3, disturbance, ..sample() };
        let lists = WatchLists::new(&spec);
        let total: u32 = (0..3).flat_map(|thread| Shared::fan_of(&spec, &lists, thread)).sum();
        assert_eq!(total, 18 * 2);
        assert!(Shared::listeners_of(&spec, &lists).iter().all(|&threads| (1..=3).contains(&threads)));
    }
}
