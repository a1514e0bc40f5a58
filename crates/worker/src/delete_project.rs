//! Reclaims what a deleted project had. Access ended when the call was answered; this goes on
//! until the provider confirms that nothing is left.

use std::time::Duration;

use cp_model::{Failure, Machine};
use cp_provider::Power;

use crate::copies::{prefix_of, stored};
use crate::launch::recorded;
use crate::step::{Outcome, StepContext, StepResult, steps};

steps!(
    Step {
        AwaitQuiet = "await_quiet",
        TerminateMachine = "terminate_machine",
        AwaitTerminated = "await_terminated",
        DeleteObjects = "delete_objects",
    }
);

pub(crate) async fn run(cx: &StepContext<'_>) -> StepResult {
    match Step::parse(cx.step) {
        Some(Step::AwaitQuiet) | None => await_quiet(cx).await,
        Some(Step::TerminateMachine) => terminate_machine(cx).await,
        Some(Step::AwaitTerminated) => await_terminated(cx).await,
        Some(Step::DeleteObjects) => delete_objects(cx).await,
    }
}

/// The delete may have cancelled an operation whose worker is in the middle of a launch. It lets
/// go within its lease; only then is what we see all there is.
async fn await_quiet(cx: &StepContext<'_>) -> StepResult {
    match cx.control_plane().predecessor_lease(cx.lease).await? {
        Some(left) => Ok(Outcome::Wait(left.min(Duration::from_millis(500)))),
        None => Ok(Outcome::Next(Step::TerminateMachine.as_str())),
    }
}

async fn terminate_machine(cx: &StepContext<'_>) -> StepResult {
    let Some(machine) = &cx.work.machine else {
        return Ok(Outcome::Next(Step::DeleteObjects.as_str()));
    };
    cx.control_plane()
        .record_terminating(cx.lease, machine.id)
        .await?;
    if is_nowhere(cx, machine) {
        cx.after_effect().await;
        return Ok(Outcome::Next(Step::AwaitTerminated.as_str()));
    }
    // By tag: a launch may have happened whose answer we never recorded. Whatever else has it goes
    // in its turn.
    let found = cx.compute().find(machine.region, machine.id).await?;
    let seen = found.as_ref().map(|found| found.at());
    if let Some(machine) = seen.or_else(|| recorded(machine)) {
        cx.compute().terminate(machine).await?;
    }
    cx.after_effect().await;
    Ok(Outcome::Next(Step::AwaitTerminated.as_str()))
}

async fn await_terminated(cx: &StepContext<'_>) -> StepResult {
    let Some(machine) = &cx.work.machine else {
        return Ok(Outcome::Next(Step::DeleteObjects.as_str()));
    };
    let found = if is_nowhere(cx, machine) {
        None
    } else {
        cx.compute().find(machine.region, machine.id).await?
    };
    match found {
        Some(found) => {
            if found.power != Power::Terminating {
                cx.compute().terminate(found.at()).await?;
            }
            Ok(Outcome::Wait(Duration::from_secs(1)))
        }
        // Launched a moment ago, by an attempt that this delete may have cut short: it may show late.
        None if cx
            .control_plane()
            .launch_may_surface(machine.id, cx.config().launch_visibility)
            .await? =>
        {
            Ok(Outcome::Wait(cx.worker.look_again()))
        }
        None => {
            cx.control_plane()
                .record_terminated(cx.lease, machine.id)
                .await?;
            Ok(Outcome::Next(Step::DeleteObjects.as_str()))
        }
    }
}

/// Its backups, and the copies that a branch was made from. An upload that a dead worker left half done goes, too.
async fn delete_objects(cx: &StepContext<'_>) -> StepResult {
    let project = cx.project();
    if cx.config().objects.is_some() {
        let prefix = prefix_of(project.id)?;
        let objects = cx.worker.objects()?;
        objects
            .delete_prefix(project.region, &prefix)
            .await
            .map_err(stored)?;
        cx.after_effect().await;
    } else if cx.control_plane().has_backups(project.id).await? {
        // Whoever has the store deletes them; without the rows nobody would know of them.
        let text = "its backups cannot be deleted: this worker has no store (section [objects])";
        return Ok(Outcome::Hold(Failure::new("store_missing", text)));
    }
    Ok(Outcome::Done)
}

/// Whether there is neither anything to end nor anybody to ask: it was asked for in a region without
/// machines. One that was launched there, before the region was taken out of the configuration, is
/// asked for until it is back in: it costs money.
fn is_nowhere(cx: &StepContext<'_>, machine: &Machine) -> bool {
    machine.was_never_launched() && !cx.compute().regions().contains(&machine.region)
}
