//! The warm pool: booted machines without an identity, so that a project is ready in a second
//! although a machine boots for minutes. A machine that ever had a project never comes back here.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use cp_domain::machines::Launched;
use cp_model::{MachineId, MachineState};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::jobs::{Ticks, log_failure};
use crate::launch::MachineError;
use crate::{PoolTarget, Worker};

/// The stretch of the past that tells what is usual.
pub const USUAL_WINDOW: TimeDelta = TimeDelta::minutes(10);
/// The stretch that tells of a burst: about a boot.
pub const BURST_WINDOW: TimeDelta = TimeDelta::minutes(2);
/// A machine that was wanted within this time is not taken out of the pool.
const KEPT_FOR: Duration = Duration::from_mins(10);
/// Standard deviations beyond the mean that the pool holds: of a Poisson distribution, 97 of 100
/// draws and more are below.
const DEVIATIONS: f64 = 2.0;
/// Launches at once.
const PARALLEL: usize = 4;

/// Projects made per minute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// Within [`USUAL_WINDOW`].
    pub usual: f64,
    /// Within [`BURST_WINDOW`].
    pub burst: f64,
}

/// How many machines to keep, between floor and ceiling.
///
/// Each machine that is taken is replaced by one that boots, and the pool is empty when all of its
/// machines are booting. How many boot at a time is Poisson distributed with the mean demand × boot
/// time, however much boot times differ (Palm's theorem: only their mean counts). So the pool holds
/// that mean and two standard deviations: relatively more while demand is small and chance great.
///
/// Demand is what was usual in ten minutes; and what came in the last two as soon as that is more
/// than chance makes of the usual, or a burst would find ten minutes' worth of an empty pool.
/// `make bench ARGS=--pool` simulates days of it.
pub fn wanted_machines(target: &PoolTarget, demand: Demand, boot_time: Duration) -> u32 {
    let during_boot = |per_minute: f64| per_minute * boot_time.as_secs_f64() / 60.0;
    let covers = |mean: f64| mean + DEVIATIONS * mean.sqrt();
    let (usual, burst) = (during_boot(demand.usual), during_boot(demand.burst));
    let wanted = if burst > covers(usual) {
        covers(burst)
    } else {
        covers(usual)
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped by the ceiling
    let wanted = wanted.ceil().clamp(0.0, f64::from(u32::MAX)) as u32;
    wanted.clamp(target.floor, target.ceiling.max(target.floor))
}

/// The most that was wanted within ten minutes. The pool shrinks to that only: what is wanted
/// changes by chance from second to second, and a machine that is ended for it is missing a minute
/// later, when another one begins to boot.
#[derive(Debug, Default)]
pub struct MostWanted(VecDeque<(Duration, u32)>);

impl MostWanted {
    /// `now` is the time since any fixed moment, and never goes back.
    pub fn note(&mut self, now: Duration, wanted: u32) -> u32 {
        while self.0.back().is_some_and(|(_, less)| *less <= wanted) {
            self.0.pop_back();
        }
        self.0.push_back((now, wanted));
        while self.0.front().is_some_and(|(at, _)| *at + KEPT_FOR < now) {
            self.0.pop_front();
        }
        self.0.front().map_or(wanted, |(_, most)| *most)
    }
}

/// One target by itself: a region that is down does not hold up the others.
pub(crate) async fn keep_warm(worker: Worker, target: PoolTarget, shutdown: CancellationToken) {
    let mut ticks = Ticks::every(worker.config().sweep_every, shutdown);
    let (began, mut most_wanted) = (Instant::now(), MostWanted::default());
    while ticks.next().await {
        let wanted = match worker.wanted(&target).await {
            Ok(wanted) => wanted,
            Err(error) => {
                log_failure("keep_warm", Err(error));
                continue;
            }
        };
        let kept = most_wanted.note(began.elapsed(), wanted);
        log_failure("keep_warm", worker.fill(&target, wanted, kept).await);
    }
}

impl Worker {
    async fn wanted(&self, target: &PoolTarget) -> cp_domain::DomainResult<u32> {
        let per_minute = |window| {
            let (region, kind) = (target.region, target.instance_type);
            self.control_plane().demand_per_minute(region, kind, window)
        };
        let demand = Demand {
            usual: per_minute(USUAL_WINDOW).await?,
            burst: per_minute(BURST_WINDOW).await?,
        };
        Ok(wanted_machines(target, demand, self.config().boot_time))
    }

    async fn fill(
        &self,
        target: &PoolTarget,
        wanted: u32,
        kept: u32,
    ) -> cp_domain::DomainResult<()> {
        let (region, kind) = (target.region, target.instance_type);
        let provider = self.compute().name();
        let plan = self
            .control_plane()
            .plan_pool(provider, region, kind, wanted, kept)
            .await?;
        // Those taken out of the pool are ended by the reconciler, as all that is `terminating`.
        let mut launches = JoinSet::new();
        for id in plan.launch {
            if launches.len() >= PARALLEL {
                launches.join_next().await;
            }
            let worker = self.clone();
            launches.spawn(async move {
                if let Err(error) = worker.launch_warm(id).await {
                    tracing::warn!(machine = %id, %error, "a warm machine could not be launched; the reconciler tries again");
                }
            });
        }
        launches.join_all().await;
        Ok(())
    }

    /// Launches a machine that the pool means to have. Also called by the reconciler, for what a
    /// crash left behind between intent and launch.
    pub(crate) async fn launch_warm(&self, id: MachineId) -> Result<(), MachineError> {
        let control_plane = self.control_plane();
        let Some(machine) = control_plane.find_machine(id).await? else {
            return Ok(());
        };
        if machine.state != MachineState::Launching {
            return Ok(());
        }
        let Some(launched) = self.launch_once(&machine).await? else {
            return Ok(());
        };
        let launched = Launched {
            provider_ref: launched.provider_ref,
            address: launched.address,
        };
        control_plane.record_pool_launch(id, &launched).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cp_model::{InstanceType, Region};
    use proptest::prelude::*;

    const TARGET: PoolTarget = PoolTarget {
        region: Region::UsEast,
        instance_type: InstanceType::Nano,
        floor: 2,
        ceiling: 20,
    };

    const BOOT: Duration = Duration::from_mins(2);

    fn steady(per_minute: f64) -> Demand {
        Demand {
            usual: per_minute,
            burst: per_minute,
        }
    }

    #[test]
    fn the_pool_covers_what_is_asked_for_during_a_boot_and_chance() {
        // Four a minute and two minutes to boot: eight, and twice the root of eight.
        assert_eq!(wanted_machines(&TARGET, steady(4.0), BOOT), 14);
        assert_eq!(wanted_machines(&TARGET, steady(0.0), BOOT), 2);
        assert_eq!(wanted_machines(&TARGET, steady(1000.0), BOOT), 20);
    }

    #[test]
    fn a_burst_counts_at_once_but_chance_does_not() {
        let wanted = |burst| {
            let demand = Demand { usual: 1.0, burst };
            wanted_machines(&TARGET, demand, BOOT)
        };
        // Two during a boot, and up to 4.8 by chance.
        assert_eq!(wanted(0.0), 5);
        assert_eq!(wanted(2.0), 5);
        // Six did come: six, and twice the root of six.
        assert_eq!(wanted(3.0), 11);
    }

    #[test]
    fn the_pool_shrinks_when_it_was_wanted_smaller_for_ten_minutes() {
        let mut most = MostWanted::default();
        let minute = |number: u64| Duration::from_secs(60 * number);
        assert_eq!(most.note(minute(0), 5), 5);
        assert_eq!(most.note(minute(1), 9), 9);
        assert_eq!(most.note(minute(2), 3), 9);
        assert_eq!(most.note(minute(11), 4), 9);
        assert_eq!(most.note(minute(12), 2), 4);
        assert_eq!(most.note(minute(60), 2), 2);
    }

    proptest! {
        #[test]
        fn more_demand_never_means_fewer_machines(
            usual in 0.0..1000.0f64, burst in 0.0..1000.0f64, more in 0.0..1000.0f64, boot in 1u64..600
        ) {
            let boot = Duration::from_secs(boot);
            let one = wanted_machines(&TARGET, Demand { usual, burst }, boot);
            let more_bursts = wanted_machines(&TARGET, Demand { usual, burst: burst + more }, boot);
            prop_assert!(one <= more_bursts);
            let more_of_both = Demand { usual: usual + more, burst: burst + more };
            let two = wanted_machines(&TARGET, more_of_both, boot);
            prop_assert!(one <= two || burst > usual);
            prop_assert!((TARGET.floor..=TARGET.ceiling).contains(&two));
        }

        #[test]
        fn the_most_wanted_is_that_of_ten_minutes(wanted in prop::collection::vec((0u64..400, 0u32..30), 1..50)) {
            let (mut most, mut now) = (MostWanted::default(), Duration::ZERO);
            let mut all = Vec::new();
            for (pause, wanted) in wanted {
                now += Duration::from_secs(pause);
                all.push((now, wanted));
                let lately = all.iter().filter(|(at, _)| *at + KEPT_FOR >= now);
                prop_assert_eq!(most.note(now, wanted), lately.map(|(_, w)| *w).max().unwrap());
            }
        }
    }
}
