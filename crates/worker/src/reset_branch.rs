//! Gives a branch its first database again: the same machine, keys and address.

use cp_dump::How;

use crate::await_backend::await_backend;
use crate::create_branch::{await_database, restart_database, restore, serve};
use crate::step::{Outcome, StepContext, StepResult, steps};

steps!(
    Step {
        StopBackend = "stop_backend",
        AwaitDatabase = "await_database",
        RestoreCopy = "restore_copy",
        RestartDatabase = "restart_database",
        Serve = "serve",
        AwaitBackend = "await_backend",
    }
);

pub(crate) async fn run(cx: &StepContext<'_>) -> StepResult {
    match Step::parse(cx.step) {
        Some(Step::StopBackend) | None => stop_backend(cx).await,
        Some(Step::AwaitDatabase) => await_database(cx, Step::RestoreCopy.as_str()).await,
        Some(Step::RestoreCopy) => {
            let (restart, serve) = (Step::RestartDatabase, Step::Serve);
            restore(cx, How::InPlace, restart.as_str(), serve.as_str()).await
        }
        Some(Step::RestartDatabase) => restart_database(cx, Step::Serve.as_str()).await,
        Some(Step::Serve) => serve(cx, Step::AwaitBackend.as_str()).await,
        Some(Step::AwaitBackend) => await_backend(cx, Step::AwaitBackend.as_str()).await,
    }
}

/// Only the database may run while it is made anew.
async fn stop_backend(cx: &StepContext<'_>) -> StepResult {
    let machine = cx.machine()?.id;
    cx.control_plane()
        .set_branch_serves(cx.lease, machine, false)
        .await?;
    cx.after_effect().await;
    Ok(Outcome::Next(Step::AwaitDatabase.as_str()))
}
