//! The warm pool: booted machines without an identity, so that a project is ready in a second
//! although a machine boots for minutes. A machine that ever had a project never comes back here.

use std::time::Duration;

use chrono::TimeDelta;
use cp_domain::machines::Launched;
use cp_model::{MachineId, MachineState};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::jobs::{Ticks, log_failure};
use crate::launch::MachineError;
use crate::{PoolTarget, Worker};

/// The stretch of the past from which demand is taken.
const DEMAND_WINDOW: TimeDelta = TimeDelta::minutes(10);
/// Launches at once.
const PARALLEL: usize = 4;

/// How many machines to keep: what is asked for while one boots, and half as much again for
/// chance, between floor and ceiling.
pub fn wanted_machines(target: &PoolTarget, demand_per_minute: f64, boot_time: Duration) -> u32 {
    let during_boot = demand_per_minute * boot_time.as_secs_f64() / 60.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped by the ceiling
    let wanted = (during_boot * 1.5).ceil().clamp(0.0, f64::from(u32::MAX)) as u32;
    wanted.clamp(target.floor, target.ceiling.max(target.floor))
}

/// One target by itself: a region that is down does not hold up the others.
pub(crate) async fn keep_warm(worker: Worker, target: PoolTarget, shutdown: CancellationToken) {
    let mut ticks = Ticks::every(worker.config().sweep_every, shutdown);
    while ticks.next().await {
        log_failure("keep_warm", worker.fill(&target).await);
    }
}

impl Worker {
    async fn fill(&self, target: &PoolTarget) -> cp_domain::DomainResult<()> {
        let control_plane = self.control_plane();
        let (region, kind) = (target.region, target.instance_type);
        let demand = control_plane
            .demand_per_minute(region, kind, DEMAND_WINDOW)
            .await?;
        let wanted = wanted_machines(target, demand, self.config().boot_time);
        let plan = control_plane
            .plan_pool(self.compute().name(), region, kind, wanted)
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

    #[test]
    fn the_pool_covers_what_is_asked_for_during_a_boot() {
        // Four a minute and two minutes to boot: eight, and half as much again.
        assert_eq!(wanted_machines(&TARGET, 4.0, Duration::from_mins(2)), 12);
        assert_eq!(wanted_machines(&TARGET, 0.0, Duration::from_mins(2)), 2);
        assert_eq!(wanted_machines(&TARGET, 1000.0, Duration::from_mins(2)), 20);
    }

    proptest! {
        #[test]
        fn more_demand_never_means_fewer_machines(low in 0.0..1000.0f64, more in 0.0..1000.0f64, boot in 1u64..600) {
            let boot = Duration::from_secs(boot);
            let (one, two) = (wanted_machines(&TARGET, low, boot), wanted_machines(&TARGET, low + more, boot));
            prop_assert!(one <= two);
            prop_assert!((TARGET.floor..=TARGET.ceiling).contains(&two));
        }
    }
}
