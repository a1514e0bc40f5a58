//! Gives a project's machine another size, a bigger disk, or both: the disk first, while the
//! machine runs; then stop, change, start. A machine that does not come back with its new size gets
//! the old one again. The operation has failed then, and the project is active as before; only a
//! disk that has grown stays as big as it is.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use cp_domain::operations::MACHINE_LOST;
use cp_model::{Failure, InstanceType, Machine, MachineSize, MachineState, UpgradePlan};
use cp_provider::ProviderError;

use crate::await_backend::await_backend;
use crate::pause_project::{await_stopped, find_own, stop_machine};
use crate::restore_project::start_own;
use crate::step::{Outcome, StepContext, StepError, StepResult, steps};

steps!(
    Step {
        GrowVolume = "grow_volume",
        StopMachine = "stop_machine",
        AwaitStopped = "await_stopped",
        ResizeMachine = "resize_machine",
        StartMachine = "start_machine",
        AwaitBackend = "await_backend",
    }
);

/// What must be left of the operation's time for a disk to go on growing, and for the rest to go on
/// with the new size: enough for what comes after, turning back included.
const LEFT_AFTER_GROWING: TimeDelta = TimeDelta::minutes(30);
const LEFT_FOR_TURNING_BACK: TimeDelta = TimeDelta::minutes(20);
/// A step that fails so often will fail once more.
const MOST_ATTEMPTS: i32 = 5;
/// AWS shows a disk's new size after seconds, or a minute.
const LOOK_AT_VOLUME: Duration = Duration::from_secs(5);

pub(crate) async fn run(cx: &StepContext<'_>) -> StepResult {
    let step = Step::parse(cx.step).unwrap_or(Step::GrowVolume);
    let upgrade = Upgrade::of(cx)?;
    if let Some(failure) = upgrade.out_of_patience(cx, step) {
        return Ok(upgrade.turn_back(cx, step, &failure));
    }
    let outcome = match step {
        Step::GrowVolume => grow_volume(cx, &upgrade).await,
        Step::StopMachine => stop_machine(cx, Step::AwaitStopped.as_str()).await,
        Step::AwaitStopped => await_stopped(cx, Outcome::Next(Step::ResizeMachine.as_str())).await,
        Step::ResizeMachine => resize_machine(cx, &upgrade).await,
        Step::StartMachine => start_machine(cx, &upgrade).await,
        Step::AwaitBackend => await_backend(cx, Step::GrowVolume.as_str()).await,
    };
    match outcome {
        // Its backend may be down: the old size at once, rather than the new one some day.
        Ok(Outcome::Fail(failure) | Outcome::Hold(failure))
        | Err(StepError::Failed(Outcome::Fail(failure) | Outcome::Hold(failure)))
            if !upgrade.turned_back && failure.code != MACHINE_LOST =>
        {
            Ok(upgrade.turn_back(cx, step, &failure))
        }
        outcome => outcome,
    }
}

struct Upgrade {
    plan: UpgradePlan,
    turned_back: bool,
}

impl Upgrade {
    fn of(cx: &StepContext<'_>) -> Result<Self, StepError> {
        let plan = serde_json::from_value(cx.operation.data.clone()).map_err(|error| {
            tracing::error!(%error, "an upgrade does not say what it is for");
            let reason = Failure::new("internal_error", "the upgrade does not say what it is for");
            StepError::Failed(Outcome::Fail(reason))
        })?;
        Ok(Self {
            plan,
            turned_back: cx.operation.turned_back().is_some(),
        })
    }

    /// The size that the machine shall have at the end, as things stand.
    fn goal(&self) -> InstanceType {
        if self.turned_back {
            self.plan.from.instance_type
        } else {
            self.plan.to.instance_type
        }
    }

    /// Why to go on no longer.
    fn out_of_patience(&self, cx: &StepContext<'_>, step: Step) -> Option<Failure> {
        if self.turned_back {
            return None;
        }
        let left = |deadline: DateTime<Utc>| deadline - cx.control_plane().clock().now();
        let needed = if step == Step::GrowVolume {
            LEFT_AFTER_GROWING
        } else {
            LEFT_FOR_TURNING_BACK
        };
        let too_late = cx.operation.deadline_at.is_some_and(|at| left(at) < needed);
        if !too_late && cx.operation.attempts < MOST_ATTEMPTS {
            return None;
        }
        let why = cx.operation.error.as_ref().map_or("", |e| &e.message);
        let what = match step {
            Step::GrowVolume => "the disk did not grow in time",
            Step::StopMachine | Step::AwaitStopped => "the machine did not stop in time",
            Step::ResizeMachine => "the machine could not be resized",
            Step::StartMachine | Step::AwaitBackend => {
                "the machine did not come back with its new size in time"
            }
        };
        let colon = if why.is_empty() { "" } else { ": " };
        Some(Failure::new(
            "upgrade_rolled_back",
            format!("{what}{colon}{why}"),
        ))
    }

    fn turn_back(&self, cx: &StepContext<'_>, step: Step, failure: &Failure) -> Outcome {
        tracing::warn!(
            code = failure.code,
            message = failure.message,
            "turning back"
        );
        metrics::counter!("upgrades_turned_back_total", "step" => step.as_str()).increment(1);
        let machine = cx.work.machine.as_ref();
        let untouched = machine.is_some_and(|m| runs_as(m, self.plan.from.instance_type));
        let next = if matches!(step, Step::GrowVolume | Step::StopMachine) && untouched {
            Step::AwaitBackend
        } else {
            Step::StopMachine
        };
        let message = format!(
            "{}; the project runs with {} as before",
            failure.message, self.plan.from.instance_type
        );
        let failure = Failure::new(&failure.code, message);
        Outcome::NextWith(next.as_str(), cx.operation.turning_back(&failure))
    }
}

async fn grow_volume(cx: &StepContext<'_>, upgrade: &Upgrade) -> StepResult {
    let machine = cx.machine()?;
    let wanted = upgrade.plan.to;
    if machine.volume_gib < wanted.volume_gib && !upgrade.turned_back {
        let found = find_own(cx).await?;
        match cx
            .compute()
            .grow_volume(found.at(), wanted.volume_gib)
            .await
        {
            Ok(()) => {}
            Err(ProviderError::Transient(reason)) => {
                tracing::debug!(reason, "the disk grows");
                return Ok(Outcome::Wait(LOOK_AT_VOLUME.min(cx.config().recheck)));
            }
            // EBS: VolumeModificationRateExceeded.
            Err(ProviderError::Capacity(reason)) => {
                tracing::warn!(reason, "the disk may not grow now");
                let reason =
                    "the disk cannot grow at the moment; a disk can be changed once in six hours";
                return Ok(Outcome::Fail(Failure::new("volume_not_grown", reason)));
            }
            Err(error) => return Err(error.into()),
        }
        cx.after_effect().await;
        let size = MachineSize {
            instance_type: machine.instance_type,
            volume_gib: wanted.volume_gib,
        };
        cx.control_plane()
            .record_size(cx.lease, machine.id, size)
            .await?;
    }
    let next = if runs_as(machine, upgrade.goal()) {
        Step::AwaitBackend
    } else {
        Step::StopMachine
    };
    Ok(Outcome::Next(next.as_str()))
}

/// An operator may have retried what failed while the machine was stopped.
fn runs_as(machine: &Machine, kind: InstanceType) -> bool {
    machine.state == MachineState::Ready && machine.instance_type == kind
}

async fn resize_machine(cx: &StepContext<'_>, upgrade: &Upgrade) -> StepResult {
    let (machine, wanted) = (cx.machine()?, upgrade.goal());
    let found = find_own(cx).await?;
    cx.compute().resize(found.at(), wanted).await?;
    cx.after_effect().await;
    let size = MachineSize {
        instance_type: wanted,
        volume_gib: machine.volume_gib,
    };
    cx.control_plane()
        .record_size(cx.lease, machine.id, size)
        .await?;
    Ok(Outcome::Next(Step::StartMachine.as_str()))
}

async fn start_machine(cx: &StepContext<'_>, upgrade: &Upgrade) -> StepResult {
    match start_own(cx).await? {
        Err(ProviderError::Capacity(reason)) if !upgrade.turned_back => {
            tracing::warn!(reason, "no room for the new size");
            let reason = format!(
                "there is no room for instance type {} at the moment; try again later",
                upgrade.goal()
            );
            Ok(Outcome::Fail(Failure::new("no_capacity", reason)))
        }
        Err(error) => Err(error.into()),
        Ok(()) => Ok(Outcome::Next(Step::AwaitBackend.as_str())),
    }
}
