//! Stops a project's machine; its disk stays.

use std::time::Duration;

use cp_domain::operations::machine_lost;
use cp_provider::{Machine, Power};

use crate::lost::{note_seen, wait_or_lose};
use crate::step::{Outcome, StepContext, StepError, StepResult, steps};

steps!(
    Step {
        StopMachine = "stop_machine",
        AwaitStopped = "await_stopped",
    }
);

pub(crate) async fn run(cx: &StepContext<'_>) -> StepResult {
    match Step::parse(cx.step) {
        Some(Step::StopMachine) | None => stop_machine(cx, Step::AwaitStopped.as_str()).await,
        Some(Step::AwaitStopped) => await_stopped(cx, Outcome::Done).await,
    }
}

pub(crate) async fn stop_machine(cx: &StepContext<'_>, next: &'static str) -> StepResult {
    let found = find_own(cx).await?;
    cx.compute().stop(found.at()).await?;
    cx.after_effect().await;
    Ok(Outcome::Next(next))
}

/// `stopped`: the outcome once it has stopped.
pub(crate) async fn await_stopped(cx: &StepContext<'_>, stopped: Outcome) -> StepResult {
    let found = find_own(cx).await?;
    match found.power {
        Power::Stopped => {
            cx.control_plane()
                .record_stopped(cx.lease, found.machine_id)
                .await?;
            Ok(stopped)
        }
        Power::Running => {
            // Somebody started it again, or the first call was lost.
            cx.compute().stop(found.at()).await?;
            Ok(Outcome::Wait(Duration::from_secs(1)))
        }
        _ => Ok(Outcome::Wait(Duration::from_secs(2))),
    }
}

/// The project's machine as the provider sees it; a project whose machine is gone cannot go on.
/// The error of one that is missing since just now is to look again.
pub(crate) async fn find_own(cx: &StepContext<'_>) -> Result<Machine, StepError> {
    let machine = cx.machine()?;
    if let Some(found) = cx.worker.find(machine).await? {
        note_seen(cx, machine).await?;
        return Ok(found);
    }
    let wait = wait_or_lose(cx, machine).await?;
    Err(StepError::Failed(
        wait.unwrap_or_else(|| Outcome::Fail(machine_lost())),
    ))
}
