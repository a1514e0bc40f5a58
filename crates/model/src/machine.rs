//! A machine, as the control plane knows it.

use chrono::{DateTime, Utc};

use crate::agent_protocol::ObservedState;
use crate::{InstanceType, MachineId, ProjectId, Region, text_enum};

/// One machine that we launched or mean to launch.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    pub id: MachineId,
    pub provider: String,
    /// The provider's own name for it; none until the launch is recorded.
    pub provider_ref: Option<String>,
    pub region: Region,
    pub instance_type: InstanceType,
    pub volume_gib: i32,
    pub state: MachineState,
    pub project_id: Option<ProjectId>,
    /// Whether it ever had a project; then it is never pooled again.
    pub held_data: bool,
    /// `host:port` of the backend.
    pub address: Option<String>,
    pub desired_generation: i64,
    pub restarts: i64,
    pub observed_generation: Option<i64>,
    pub observed_state: Option<ObservedState>,
    pub observed_restarts: Option<i64>,
    pub backend_version: Option<String>,
    /// The release that serves, and the desired one that was given up for it
    /// ([`crate::agent_protocol::ReportRequest`]).
    pub backend_release: Option<String>,
    pub rolled_back_from: Option<String>,
    /// Why the agent fails, in its own words.
    pub agent_message: Option<String>,
    /// Until then it may register.
    pub bootstrap_expires_at: Option<DateTime<Utc>>,
    pub registered_at: Option<DateTime<Utc>>,
    pub last_seen_at: Option<DateTime<Utc>>,
    pub missing_since: Option<DateTime<Utc>>,
    /// When a launch was last tried of which it is not known that it made nothing.
    pub launch_attempted_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

impl Machine {
    /// Whether surely no provider ever made it.
    pub const fn was_never_launched(&self) -> bool {
        self.provider_ref.is_none() && self.launch_attempted_at.is_none()
    }

    /// Whether the agent says that its backend serves what is desired now.
    pub fn serves_as_desired(&self) -> bool {
        self.is_as_desired(ObservedState::Serving)
    }

    /// Whether the agent says that the project's Postgres runs alone, as is desired now, and was
    /// restarted as often as was asked for: it can be restored into.
    pub fn runs_database_alone_as_desired(&self) -> bool {
        self.is_as_desired(ObservedState::DatabaseOnly)
    }

    fn is_as_desired(&self, state: ObservedState) -> bool {
        self.observed_state == Some(state)
            && self.observed_generation >= Some(self.desired_generation)
            && self.observed_restarts >= Some(self.restarts)
    }

    /// The release that serves, when the agent has given up the one that is desired now.
    pub fn rolled_back_to(&self) -> Option<&str> {
        let gave_up = self.observed_state == Some(ObservedState::Failing)
            && self.rolled_back_from.is_some()
            && self.observed_generation >= Some(self.desired_generation)
            && self.observed_restarts >= Some(self.restarts);
        self.backend_release.as_deref().filter(|_| gave_up)
    }
}

text_enum!(
    /// The life of a machine. Whether it is in the warm pool or serves a project is not a state:
    /// a machine with a project serves it, one without waits for one.
    MachineState ("machine state") {
        /// We mean to launch it; the provider may or may not have heard of it.
        Launching = "launching",
        /// The provider took the launch; its agent has not registered yet.
        Booting = "booting",
        /// Its agent registered.
        Ready = "ready",
        /// Stopped on purpose: its project is paused. The disk stays.
        Stopped = "stopped",
        /// The provider says that it is gone, and we did not ask for that.
        Lost = "lost",
        /// We mean to terminate it; the provider has not confirmed.
        Terminating = "terminating",
        /// The provider confirmed that it is gone.
        Terminated = "terminated",
    }
);

impl MachineState {
    pub const fn can_become(self, next: Self) -> bool {
        use MachineState as S;
        match self {
            S::Launching => matches!(next, S::Booting | S::Ready | S::Lost | S::Terminating),
            S::Booting => matches!(next, S::Ready | S::Lost | S::Terminating),
            S::Ready => matches!(next, S::Stopped | S::Lost | S::Terminating),
            S::Stopped => matches!(next, S::Ready | S::Lost | S::Terminating),
            // It was seen again: the provider's list had been wrong.
            S::Lost => matches!(next, S::Ready | S::Stopped | S::Terminating),
            S::Terminating => matches!(next, S::Terminated),
            S::Terminated => false,
        }
    }

    /// Whether a provider may still hold something that costs money.
    pub const fn may_exist(self) -> bool {
        !matches!(self, Self::Terminated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_can_be_terminated_and_none_comes_back() {
        for state in MachineState::ALL {
            let done = matches!(state, MachineState::Terminating | MachineState::Terminated);
            assert_eq!(
                state.can_become(MachineState::Terminating),
                !done,
                "{state}"
            );
            assert!(!MachineState::Terminated.can_become(*state));
        }
    }
}
