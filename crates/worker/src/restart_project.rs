//! Restarts a project's backend, with another release if the project is pinned to one.

use serde_json::json;

use crate::await_backend::await_backend;
use crate::step::{Outcome, StepContext, StepResult, steps};

steps!(
    Step {
        PlanRestart = "plan_restart",
        RequestRestart = "request_restart",
        AwaitBackend = "await_backend",
    }
);

pub(crate) async fn run(cx: &StepContext<'_>) -> StepResult {
    match Step::parse(cx.step) {
        Some(Step::PlanRestart) | None => plan_restart(cx),
        Some(Step::RequestRestart) => request_restart(cx).await,
        Some(Step::AwaitBackend) => await_backend(cx, Step::PlanRestart.as_str()).await,
    }
}

/// Fixes which restart this is before it is asked for, so that asking twice is asking once.
fn plan_restart(cx: &StepContext<'_>) -> StepResult {
    let mut data = cx.operation.data.clone();
    data["restarts"] = json!(cx.machine()?.restarts + 1);
    Ok(Outcome::NextWith(Step::RequestRestart.as_str(), data))
}

async fn request_restart(cx: &StepContext<'_>) -> StepResult {
    let machine = cx.machine()?;
    let wanted = cx.operation.data["restarts"]
        .as_i64()
        .unwrap_or(machine.restarts + 1);
    cx.control_plane()
        .request_restart(cx.lease, machine.id, wanted)
        .await?;
    cx.after_effect().await;
    Ok(Outcome::Next(Step::AwaitBackend.as_str()))
}
