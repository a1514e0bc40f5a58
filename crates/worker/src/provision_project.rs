//! Gives a new project its machine and its backend. Also gives a project whose machine is lost a
//! new, empty one (`OperationKind::Rebuild`): the same story, begun by an operator.

use std::time::Duration;

use cp_domain::machines::Launched;
use cp_model::Failure;

use crate::await_backend::await_backend;
use crate::lost::{note_seen, wait_or_lose};
use crate::step::{Outcome, StepContext, StepResult, steps};

steps!(
    Step {
        AllocateMachine = "allocate_machine",
        LaunchMachine = "launch_machine",
        AssignMachine = "assign_machine",
        AwaitBackend = "await_backend",
    }
);

pub(crate) async fn run(cx: &StepContext<'_>) -> StepResult {
    match Step::parse(cx.step) {
        Some(Step::AllocateMachine) | None => {
            allocate_machine(cx, Step::LaunchMachine.as_str()).await
        }
        Some(Step::LaunchMachine) => launch_machine(cx, Step::AssignMachine.as_str()).await,
        Some(Step::AssignMachine) => {
            let (again, next) = (Step::AllocateMachine, Step::AwaitBackend);
            assign_machine(cx, again.as_str(), next.as_str()).await
        }
        Some(Step::AwaitBackend) => await_backend(cx, Step::AllocateMachine.as_str()).await,
    }
}

/// A warm machine if there is one, else the intent to launch.
pub(crate) async fn allocate_machine(cx: &StepContext<'_>, next: &'static str) -> StepResult {
    // Before anything is written down: nothing is left to take back.
    let region = cx.project().region;
    if !cx.compute().regions().contains(&region) {
        tracing::warn!(%region, "a project is asked for in a region that has no machines (ec2.regions)");
        let text = format!("this service has no machines in region {region}");
        return Ok(Outcome::Fail(Failure::new("region_unavailable", text)));
    }
    let machine = cx
        .control_plane()
        .allocate_machine(cx.lease, cx.compute().name(), cx.project())
        .await?;
    let warm = machine.provider_ref.is_some();
    tracing::info!(machine = %machine.id, warm, "machine allocated");
    metrics::counter!("machine_allocations_total", "warm" => if warm { "yes" } else { "no" })
        .increment(1);
    Ok(Outcome::Next(next))
}

/// Launches the machine unless it is there.
pub(crate) async fn launch_machine(cx: &StepContext<'_>, next: &'static str) -> StepResult {
    let machine = cx.machine()?;
    if machine.provider_ref.is_some() {
        return Ok(Outcome::Next(next));
    }
    let Some(launched) = cx.worker.launch_once(machine).await? else {
        return Ok(Outcome::Wait(cx.worker.look_again()));
    };
    cx.after_effect().await;
    let launched = Launched {
        provider_ref: launched.provider_ref,
        address: launched.address,
    };
    cx.control_plane()
        .record_launch(cx.lease, machine.id, &launched)
        .await?;
    Ok(Outcome::Next(next))
}

/// Tells the machine whose backend it runs, as soon as its address is known. `again`: the step from which
/// the project gets another machine when this one is gone.
pub(crate) async fn assign_machine(
    cx: &StepContext<'_>,
    again: &'static str,
    next: &'static str,
) -> StepResult {
    let machine = cx.machine()?;
    let Some(found) = cx.worker.find(machine).await? else {
        return Ok(match wait_or_lose(cx, machine).await? {
            // The provider's list may lag behind its launches, though seldom by much.
            Some(_) => Outcome::Wait(Duration::from_secs(1)),
            None => Outcome::Next(again),
        });
    };
    note_seen(cx, machine).await?;
    let project = cx.project();
    let Some(access_host) = cx
        .compute()
        .access_host(&found, &project.app_key, project.region)
    else {
        return Ok(Outcome::Wait(Duration::from_secs(2)));
    };
    cx.control_plane()
        .assign_machine(cx.lease, machine.id, &access_host)
        .await?;
    Ok(Outcome::Next(next))
}
