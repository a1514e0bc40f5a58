//! Starts the machine of a paused project and waits until its backend serves.

use crate::await_backend::await_backend;
use crate::pause_project::find_own;
use crate::step::{Outcome, StepContext, StepResult, steps};

steps!(
    Step {
        StartMachine = "start_machine",
        AwaitBackend = "await_backend",
    }
);

pub(crate) async fn run(cx: &StepContext<'_>) -> StepResult {
    match Step::parse(cx.step) {
        Some(Step::StartMachine) | None => start_machine(cx).await,
        Some(Step::AwaitBackend) => await_backend(cx, Step::StartMachine.as_str()).await,
    }
}

/// Written down first: the machine's time counts from here, and what its agent reports after this
/// is news.
async fn start_machine(cx: &StepContext<'_>) -> StepResult {
    let found = find_own(cx).await?;
    cx.control_plane()
        .record_started(cx.lease, found.machine_id)
        .await?;
    cx.compute().start(found.at()).await?;
    cx.after_effect().await;
    Ok(Outcome::Next(Step::AwaitBackend.as_str()))
}
