//! How many workers there are, and on which cores.
//!
//! By default one for each core that this process may use, pinned to it. A quota of processor time ([`Share`]) is another matter than
//! cores: all threads together may run for so long in each period of 100 ms mostly, and are all stopped for the rest of it when that is
//! used up. So there are no more workers than whole cores in the quota, and they aren't pinned unless that was asked for: who has
//! half of a machine shares its cores with whoever has the other half, and pinned, both would have the first ones.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

use core_affinity::CoreId;

use crate::{
    cgroup::Share,
    config::{Config, ConfigError, Pin},
    counted::counted,
};

/// Where the workers run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Places {
    /// For each worker, the core that it is pinned to.
    pub workers: Vec<Option<CoreId>>,
    /// Cores that this process may use.
    cores: usize,
    /// What it may have of them, where that is less.
    quota: Option<f64>,
}

impl Places {
    /// Those that the settings ask for, on this machine.
    ///
    /// # Errors
    /// `--pin` names a core that this process may not use.
    pub fn pick(config: &Config) -> Result<Places, ConfigError> {
        Places::among(config, core_affinity::get_core_ids().unwrap_or_default(), Share::own().cores)
    }

    fn among(config: &Config, usable: Vec<CoreId>, quota: Option<f64>) -> Result<Places, ConfigError> {
        let count = usable.len().max(1);
        let quota = quota.filter(|quota| *quota < count as f64);
        let cores = match &config.pin {
            Pin::Auto if quota.is_none() => usable.clone(),
            Pin::Auto | Pin::None => Vec::new(),
            Pin::Cores(list) => list.iter().map(|id| CoreId { id: *id }).collect(),
        };
        if let Some(missing) = cores.iter().find(|core| !usable.contains(core)) {
            let names: Vec<String> = usable.iter().map(|core| core.id.to_string()).collect();
            let names = names.join(",");
            return Err(ConfigError(format!(
                "--pin {}: this process may not run on core {}: name cores among {names}",
                config.pin, missing.id
            )));
        }
        let most = if cores.is_empty() { count } else { cores.len() };
        // As `available_parallelism` rounds: two workers that have one and a half cores are stopped, one isn't.
        let whole = quota.map_or(most, |quota| (quota as usize).max(1));
        let wanted = config.workers.unwrap_or(most.min(whole));
        let workers = match wanted > cores.len() {
            true => vec![None; wanted],
            false => cores.into_iter().take(wanted).map(Some).collect(),
        };
        Ok(Places { workers, cores: count, quota })
    }

    /// How many, and where.
    #[cfg(any(feature = "cli", test))]
    pub fn sentence(&self) -> String {
        let count = self.workers.len();
        let cores: Option<Vec<String>> = self.workers.iter().map(|core| core.map(|core| core.id.to_string())).collect();
        let place = cores.map_or("not pinned".to_owned(), |cores| {
            format!("pinned to core{} {}", if cores.len() == 1 { "" } else { "s" }, cores.join(","))
        });
        format!("{}, {place}; this process may use {}", counted(count, "worker"), counted(self.cores, "core"))
    }

    /// What follows from a quota, if there are fewer workers than cores for it.
    pub fn by_quota(&self) -> Option<String> {
        let quota = self.quota.filter(|_| !self.are_stopped() && self.workers.len() < self.cores)?;
        let (workers, cores) = (self.workers.len(), self.cores);
        Some(format!(
            "{} on {}, for the control group of this process has a CPU quota of {quota:.2} cores",
            counted(workers, "worker"),
            counted(cores, "core")
        ))
    }

    /// What is wrong if there are more workers than the quota has room for: they are stopped again and again.
    pub fn too_many(&self) -> Option<String> {
        let quota = self.quota.filter(|_| self.are_stopped())?;
        let workers = self.workers.len();
        if workers == 1 {
            return Some(format!(
                "1 worker has {quota:.2} cores, by the CPU quota of its control group: once it is used up, it stands still for some 10 ms \
                 and more at a time; give it at least 1 (CPUQuota=100% of a unit, --cpus=1 of a container)"
            ));
        }
        let pinned = if self.workers.iter().all(Option::is_some) { ", each pinned to a core of its own," } else { "" };
        let fewer = (quota as usize).max(1);
        let lower = if fewer < workers { format!(", or --workers {fewer}") } else { String::new() };
        Some(format!(
            "{workers} workers{pinned} have {quota:.2} cores between them, by the CPU quota of their control group: once it is used \
             up, all of them stand still for some 10 ms and more at a time; give them at least {workers} (CPUQuota={workers}00% of a \
             unit, --cpus={workers} of a container){lower}"
        ))
    }

    fn are_stopped(&self) -> bool {
        self.quota.is_some_and(|quota| quota < self.workers.len() as f64)
    }
}

/// Pins the calling thread, which is to be this worker.
pub(crate) fn pin(core: Option<CoreId>, worker: usize) {
    if let Some(core) = core
        && !core_affinity::set_for_current(core)
    {
        tracing::warn!(worker, core = core.id, "a worker could not be pinned");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On four cores, with this quota.
    fn places(quota: f64, change: impl FnOnce(&mut Config)) -> Places {
        let mut config = Config::default();
        change(&mut config);
        Places::among(&config, (0..4).map(|id| CoreId { id }).collect(), Some(quota)).unwrap()
    }

    fn pinned(places: &Places) -> Vec<Option<usize>> {
        places.workers.iter().map(|core| core.map(|core| core.id)).collect()
    }

    #[test]
    fn there_are_as_many_workers_as_whole_cores_in_the_quota_and_others_share_those_cores() {
        for (quota, count) in [(0.25, 1), (1.0, 1), (1.9, 1), (2.0, 2), (3.5, 3)] {
            let places = places(quota, |_| {});
            assert_eq!(pinned(&places), vec![None; count], "{quota}");
        }
        for quota in [4.0, 64.0] {
            let places = places(quota, |_| {});
            assert_eq!(pinned(&places), [Some(0), Some(1), Some(2), Some(3)], "{quota}");
            assert_eq!((places.by_quota(), places.too_many()), (None, None));
        }
    }

    #[test]
    fn what_is_asked_for_is_given() {
        assert_eq!(pinned(&places(1.5, |c| c.workers = Some(3))), [None; 3]);
        assert_eq!(pinned(&places(2.0, |c| c.pin = Pin::Cores(vec![1, 2, 3]))), [Some(1), Some(2)]);
        let places = places(0.5, |c| (c.pin, c.workers) = (Pin::Cores(vec![1, 3]), Some(2)));
        assert_eq!(pinned(&places), [Some(1), Some(3)]);
    }

    #[test]
    fn fewer_workers_than_cores_are_said_and_why() {
        let said = places(2.5, |_| {}).by_quota().unwrap();
        assert!(said.contains("2 workers on 4 cores") && said.contains("2.50 cores"), "{said}");
        assert_eq!(places(2.5, |_| {}).too_many(), None);
    }

    #[test]
    fn workers_that_have_less_than_a_core_each_are_said() {
        let said = places(0.5, |c| (c.pin, c.workers) = (Pin::Cores(vec![0, 1]), Some(2))).too_many().unwrap();
        for part in ["2 workers, each pinned", "0.50 cores", "CPUQuota=200%", "--cpus=2", ", or --workers 1"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let said = places(0.5, |_| {}).too_many().unwrap();
        assert!(said.starts_with("1 worker has 0.50 cores") && !said.contains("--workers"), "{said}");
        assert_eq!(places(0.5, |_| {}).by_quota(), None, "one line says it all");
    }

    #[test]
    fn one_is_not_called_many() {
        let said = |quota, workers| places(quota, |c| c.workers = Some(workers));
        assert_eq!(said(8.0, 1).sentence(), "1 worker, pinned to core 0; this process may use 4 cores");
        assert_eq!(said(8.0, 2).sentence(), "2 workers, pinned to cores 0,1; this process may use 4 cores");
        assert!(said(1.0, 1).by_quota().unwrap().starts_with("1 worker on 4 cores"));
        let alone = Places::among(&Config::default(), vec![CoreId { id: 0 }], None).unwrap().sentence();
        assert_eq!(alone, "1 worker, pinned to core 0; this process may use 1 core");
    }

    #[test]
    fn a_core_that_may_not_be_used_is_named() {
        let config = Config { pin: Pin::Cores(vec![9]), ..Config::default() };
        let error = Places::among(&config, vec![CoreId { id: 2 }], None).unwrap_err();
        assert_eq!(error.0, "--pin 9: this process may not run on core 9: name cores among 2");
    }
}
