//! The last step of everything that ends in `active`: the agent says that the backend serves, and
//! we see it ourselves, through the address that the user gets (design.md, invariant 5).

use std::time::Duration;

use cp_domain::operations::machine_lost;
use cp_model::{Failure, Machine, MachineState, OperationKind};
use cp_provider::Power;

use crate::lost::{note_seen, wait_or_lose};
use crate::probe::{NotServing, current_api_key, probe};
use crate::restore_project::start_own;
use crate::step::{Outcome, StepContext, StepError, StepResult};

/// `reallocate`: the step from which a project that never had data gets another machine.
pub(crate) async fn await_backend(cx: &StepContext<'_>, reallocate: &'static str) -> StepResult {
    let machine = cx.machine()?;
    if let Some(serving) = machine.rolled_back_to() {
        return settle_for(cx, machine, serving).await;
    }
    if machine.serves_as_desired()
        && let Some(access_host) = &cx.project().access_host
    {
        let Err(reason) = serves(cx, access_host).await? else {
            note_database(cx, machine).await?;
            return Ok(Outcome::Done);
        };
        tracing::info!(
            reason,
            "the agent says that the backend serves, but it does not answer us yet"
        );
        // Else what it said may be old, and the machine may have stopped since.
        if cx.worker.heard_lately(machine) {
            return Ok(Outcome::Wait(Duration::from_millis(500)));
        }
    }
    if let Some(outcome) = keep_running(cx, machine).await? {
        return Ok(outcome);
    }
    match cx.lease.kind {
        OperationKind::Provision | OperationKind::Rebuild => Ok(Outcome::Next(reallocate)),
        _ => Ok(Outcome::Fail(machine_lost())),
    }
}

/// Where people reach the project's database may have changed with the machine's start.
async fn note_database(cx: &StepContext<'_>, machine: &Machine) -> Result<(), StepError> {
    let found = cx.worker.find(machine).await?;
    if let Some(address) = found.and_then(|found| found.database_address) {
        let noted = cx.control_plane();
        noted
            .note_database_address(cx.lease, machine.id, &address)
            .await?;
    }
    Ok(())
}

/// Starts the machine if it has stopped; what is awaited comes later. None: it is gone.
pub(crate) async fn keep_running(
    cx: &StepContext<'_>,
    machine: &Machine,
) -> Result<Option<Outcome>, StepError> {
    let wait = Some(Outcome::Wait(cx.config().recheck));
    match cx.worker.find(machine).await? {
        Some(found) if found.power == Power::Stopped => {
            // One that has never registered stays what it is.
            if matches!(machine.state, MachineState::Ready | MachineState::Stopped) {
                start_own(cx).await??;
            } else {
                cx.compute().start(found.at()).await?;
            }
            Ok(wait)
        }
        Some(_) => {
            note_seen(cx, machine).await?;
            Ok(wait)
        }
        None => wait_or_lose(cx, machine).await,
    }
}

/// The agent gave up the release that was asked for; the one before it serves. That one is desired
/// from now on, and once it serves as desired the operation ends: failed, with the project well.
/// First it is written down that the operation turns back: afterwards nothing would show it.
async fn settle_for(cx: &StepContext<'_>, machine: &Machine, serving: &str) -> StepResult {
    let given_up = machine.rolled_back_from.as_deref().unwrap_or_default();
    if cx.operation.turned_back().is_some() {
        cx.control_plane()
            .settle_for_release(cx.lease, machine.id, serving)
            .await?;
        return Ok(Outcome::Wait(cx.config().recheck));
    }
    tracing::warn!(
        given_up,
        serving,
        reason = machine.agent_message,
        "a release did not become healthy"
    );
    let failure = Failure::new(
        "release_rolled_back",
        format!("release {given_up} did not become healthy; the project runs {serving} as before"),
    );
    let data = cx.operation.turning_back(&failure);
    Ok(Outcome::NextWith(cx.step, data))
}

/// Whether the backend serves; else why not. A key that the project's owner has changed, of which
/// backends tell nobody, is learned here (contract/project-backend.md section 3.9).
async fn serves(cx: &StepContext<'_>, access_host: &str) -> Result<Result<(), String>, StepError> {
    let (control_plane, http) = (cx.control_plane(), &cx.worker.inner.http);
    let project = cx.project().id;
    let api_key = control_plane.project_api_key(project).await?;
    let reason = match probe(http, access_host, project, &api_key).await {
        Err(NotServing::KeyRefused) => "the backend does not accept its API key".to_owned(),
        Err(NotServing::Other(reason)) => return Ok(Err(reason)),
        Ok(()) => return Ok(Ok(())),
    };
    let token = control_plane
        .authorize_service(project, access_host, "readiness")
        .await?;
    let rotated = match current_api_key(http, access_host, &token).await {
        Ok(key) => key,
        Err(error) => {
            return Ok(Err(format!(
                "{reason}, nor tells the one that it has: {error}"
            )));
        }
    };
    if let Err(error) = probe(http, access_host, project, &rotated).await {
        return Ok(Err(format!("{reason}, nor the one that it tells: {error}")));
    }
    tracing::info!("the project's owner has changed its API key; it is kept from now on");
    control_plane
        .record_rotated_api_key(cx.lease, &rotated)
        .await?;
    Ok(Ok(()))
}
