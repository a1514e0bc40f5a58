//! The last step of everything that ends in `active`: the agent says that the backend serves, and
//! we see it ourselves, through the address that the user gets (design.md, invariant 5).

use std::time::Duration;

use cp_domain::operations::machine_lost;
use cp_model::OperationKind;
use cp_provider::Power;

use crate::lost::{note_seen, wait_or_lose};
use crate::probe::probe;
use crate::step::{Outcome, StepContext, StepResult};

/// `reallocate`: the step from which a project that never had data gets another machine.
pub(crate) async fn await_backend(cx: &StepContext<'_>, reallocate: &'static str) -> StepResult {
    let machine = cx.machine()?;
    if machine.serves_as_desired()
        && let Some(access_host) = &cx.project().access_host
    {
        let api_key = cx.control_plane().project_api_key(cx.project().id).await?;
        return match probe(
            &cx.worker.inner.http,
            access_host,
            cx.project().id,
            &api_key,
        )
        .await
        {
            Ok(()) => Ok(Outcome::Done),
            Err(reason) => {
                tracing::info!(
                    reason,
                    "the agent says that the backend serves, but it does not answer us yet"
                );
                Ok(Outcome::Wait(Duration::from_millis(500)))
            }
        };
    }
    match cx.compute().find(machine.region, machine.id).await? {
        Some(found) if found.power == Power::Stopped => {
            cx.compute().start(found.at()).await?;
            Ok(Outcome::Wait(cx.config().recheck))
        }
        Some(_) => {
            note_seen(cx, machine).await?;
            Ok(Outcome::Wait(cx.config().recheck))
        }
        None => match (wait_or_lose(cx, machine).await?, cx.lease.kind) {
            (Some(wait), _) => Ok(wait),
            (None, OperationKind::Provision | OperationKind::Rebuild) => {
                Ok(Outcome::Next(reallocate))
            }
            (None, _) => Ok(Outcome::Fail(machine_lost())),
        },
    }
}
