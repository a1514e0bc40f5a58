//! When a machine counts as gone: providers' lists lag, so one look in vain proves nothing.

use std::time::Duration;

use chrono::TimeDelta;
use cp_domain::operations::machine_lost;
use cp_model::Machine;

use crate::Worker;
use crate::step::{Outcome, StepContext, StepError};

const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Called when the provider does not know the project's machine. Gives how long to wait before
/// the next look; none: it is gone, and written down as lost.
pub(crate) async fn wait_or_lose(
    cx: &StepContext<'_>,
    machine: &Machine,
) -> Result<Option<Outcome>, StepError> {
    let look_again = Outcome::Wait(LOOK_AGAIN.min(cx.config().missing_grace));
    if cx.worker.doubts().has(machine.region) {
        return Ok(Some(look_again));
    }
    let now = cx.control_plane().clock().now();
    let grace = TimeDelta::from_std(cx.config().missing_grace).unwrap_or(TimeDelta::minutes(1));
    if machine
        .missing_since
        .is_some_and(|since| now - since >= grace)
        && !cx.worker.heard_lately(machine)
    {
        cx.control_plane().record_lost(cx.lease, machine).await?;
        return Ok(None);
    }
    cx.control_plane().note_missing(machine.id, true).await?;
    Ok(Some(look_again))
}

/// What a step does that needs the project's machine to be there, if it is not. None: it is.
pub(crate) async fn without_machine(cx: &StepContext<'_>) -> Result<Option<Outcome>, StepError> {
    let machine = cx.machine()?;
    if cx.worker.find(machine).await?.is_some() {
        note_seen(cx, machine).await?;
        return Ok(None);
    }
    let waits = wait_or_lose(cx, machine).await?;
    Ok(Some(waits.unwrap_or_else(|| Outcome::Fail(machine_lost()))))
}

/// The provider knows the machine: forgets that it did not.
pub(crate) async fn note_seen(cx: &StepContext<'_>, machine: &Machine) -> Result<(), StepError> {
    if machine.missing_since.is_some() {
        cx.control_plane().note_missing(machine.id, false).await?;
    }
    Ok(())
}

impl Worker {
    /// Whether the machine's own agent spoke within the grace: then it is not gone, whatever the
    /// provider's list says.
    pub(crate) fn heard_lately(&self, machine: &Machine) -> bool {
        let now = self.control_plane().clock().now();
        let heard = machine.last_seen_at.and_then(|at| (now - at).to_std().ok());
        heard.is_some_and(|ago| ago < self.config().missing_grace)
    }
}
