//! Launching a machine at most once, for a project and for the pool alike.
//!
//! The provider is asked by tag first: its own idempotency does not reach far enough (design.md,
//! invariant 3). But a tag may show late, so every attempt is written down before it is made, and
//! after one whose outcome is unknown nobody launches again until its machine would be seen.

use std::time::Duration;

use cp_model::Machine;
use cp_provider::{LaunchSpec, Machine as Found, MachineRef, ProviderError};

use crate::Worker;

/// How often to look for a machine that may yet show.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    #[error(transparent)]
    Domain(#[from] cp_domain::DomainError),
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

/// The machine as its row names it; none until its launch is recorded.
pub(crate) fn recorded(machine: &Machine) -> Option<MachineRef<'_>> {
    Some(MachineRef {
        region: machine.region,
        id: machine.id,
        provider_ref: machine.provider_ref.as_deref()?,
    })
}

impl Worker {
    /// The machine at its provider: the one that is recorded, whatever else carries its tag; and as
    /// long as none is, the one that everybody would find.
    pub(crate) async fn find(&self, machine: &Machine) -> Result<Option<Found>, ProviderError> {
        match recorded(machine) {
            Some(recorded) => self.compute().describe(recorded).await,
            None => self.compute().find(machine.region, machine.id).await,
        }
    }

    /// The machine at its provider, launched if need be. None: an earlier attempt may have made
    /// it; look again after [`Worker::look_again`].
    pub(crate) async fn launch_once(
        &self,
        machine: &Machine,
    ) -> Result<Option<Found>, MachineError> {
        let control_plane = self.control_plane();
        // The attempt is taken before the look: what an earlier one made is seen by a look that
        // comes `launch_visibility` after it.
        let attempt = control_plane
            .begin_launch(machine.id, self.config().launch_visibility)
            .await?;
        // Who waits in the line of launches looks at nothing: that would be a call each time.
        let turn = match attempt {
            Some(_) => self.compute().turn(machine.region, machine.id),
            None => Ok(()),
        };
        let found = match turn {
            Ok(()) => self.find(machine).await,
            Err(wait) => Err(wait),
        };
        let launched = match (found, attempt) {
            (Ok(Some(found)), _) => return Ok(Some(found)),
            (Ok(None), None) => return Ok(None),
            (Ok(None), Some(_)) => self.launch(machine).await,
            (Err(error), _) => Err(error.into()),
        };
        // A look changes nothing.
        let is_undone = match &launched {
            Err(MachineError::Provider(error)) => !matches!(error, ProviderError::Ambiguous(_)),
            _ => false,
        };
        if let Some(attempt) = attempt.filter(|_| is_undone) {
            control_plane.forget_launch(attempt).await?;
        }
        launched
    }

    pub(crate) fn look_again(&self) -> Duration {
        LOOK_AGAIN.min(self.config().launch_visibility)
    }

    async fn launch(&self, machine: &Machine) -> Result<Option<Found>, MachineError> {
        let Some(bootstrap_token) = self.control_plane().bootstrap_token(machine.id).await? else {
            // It registered, so it exists; the provider's list will show it.
            return Ok(None);
        };
        let spec = LaunchSpec {
            machine_id: machine.id,
            region: machine.region,
            instance_type: machine.instance_type,
            volume_gib: machine.volume_gib,
            bootstrap_token,
            control_url: self.config().control_url.clone(),
        };
        Ok(Some(self.compute().launch(&spec).await?))
    }
}
