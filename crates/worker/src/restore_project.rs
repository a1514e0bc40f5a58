//! Starts the machine of a paused project and waits until its backend serves.

use cp_provider::{Power, ProviderError};

use crate::await_backend::await_backend;
use crate::pause_project::find_own;
use crate::step::{Outcome, StepContext, StepError, StepResult, steps};

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

async fn start_machine(cx: &StepContext<'_>) -> StepResult {
    start_own(cx).await??;
    Ok(Outcome::Next(Step::AwaitBackend.as_str()))
}

/// Starts the project's machine. Written down first: the machine's time counts from here, and what
/// its agent reports after this is news.
pub(crate) async fn start_own(
    cx: &StepContext<'_>,
) -> Result<Result<(), ProviderError>, StepError> {
    let found = find_own(cx).await?;
    cx.control_plane()
        .record_started(cx.lease, found.machine_id)
        .await?;
    let started = cx.compute().start(found.at()).await;
    cx.after_effect().await;
    let refused = matches!(
        started,
        Err(ProviderError::Capacity(_) | ProviderError::Permanent(_))
    );
    // Whatever waits for room now, or gives up: nobody pays for a machine that is off, and the
    // reconciler leaves it alone.
    if refused && found.power == Power::Stopped {
        cx.control_plane()
            .record_stopped(cx.lease, found.machine_id)
            .await?;
    }
    Ok(started)
}
