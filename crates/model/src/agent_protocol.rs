//! What a machine's agent and the control plane say to each other: JSON over HTTP, always begun by
//! the agent (`/agent/v1/*`). The agent makes its machine match [`DesiredState`] and reports what
//! it sees; it decides nothing.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `POST /agent/v1/register` | [`RegisterRequest`] | [`RegisterResponse`] |
//! | `GET /agent/v1/desired?generation=&wait=` | – | 200 [`DesiredState`], or 204 when nothing newer than `generation` came within `wait` seconds |
//! | `POST /agent/v1/report` | [`ReportRequest`] | 204 |
//! | `POST /agent/v1/renew` | [`RenewRequest`] | 204 |
//!
//! All but the first carry `Authorization: Bearer <agent token>`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{MachineId, ProjectId};
use crate::{FieldError, FieldResult, text_enum};

/// The longest that `desired` may be held open, in seconds.
pub const MAX_WAIT_SECONDS: u64 = 30;

/// Turns the single-use bootstrap token of the machine's user-data into the agent's own token.
/// The agent makes its token itself and keeps it on disk before it asks, so that a lost answer is
/// mended by asking again: the same pair is answered the same, another token is refused.
#[derive(Serialize, Deserialize)]
pub struct RegisterRequest {
    pub machine_id: MachineId,
    pub bootstrap_token: String,
    /// `iat_…`, made by the agent.
    pub agent_token: String,
    pub agent_version: String,
}

/// Puts a token that the agent has made, and kept on disk, in the place of the one that it calls
/// with. That one is good for [`RENEWAL_OVERLAP_SECONDS`] more, so that a lost answer is mended by
/// asking again: the same pair changes nothing.
#[derive(Serialize, Deserialize)]
pub struct RenewRequest {
    /// `iat_…`
    pub agent_token: String,
}

/// How long a token that was replaced is still good, in seconds.
pub const RENEWAL_OVERLAP_SECONDS: i64 = 3600;

#[derive(Debug, Serialize, Deserialize)]
pub struct RegisterResponse {
    pub machine_id: MachineId,
}

/// What the machine shall be. Grows by generations: a higher one replaces the lower one whole.
/// Holds secrets, so it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct DesiredState {
    pub generation: i64,
    /// None: stay warm, with no identity.
    pub backend: Option<DesiredBackend>,
}

/// The backend that the machine shall run.
#[derive(Clone, Serialize, Deserialize)]
pub struct DesiredBackend {
    pub project_id: ProjectId,
    /// Grows with each restart that was asked for; the backend is restarted when it does.
    pub restarts: i64,
    /// The release to run; none: the newest that the machine has.
    pub release: Option<String>,
    /// The password that the machine's Postgres superuser shall have.
    pub database_password: String,
    /// The backend's environment (contract/project-backend.md section 1) but for what the agent
    /// alone knows: `PORT`, `HOST`, `POSTGRES_HOST`, `POSTGRES_PORT`, `DATABASE_URL`.
    pub env: BTreeMap<String, String>,
    /// Run the database and nothing else of the backend: somebody restores into it
    /// (contract/project-backend.md section 5.10). While it is so, and as it comes to be so, a
    /// grown `restarts` restarts Postgres, and what is in the database is not the agent's to touch.
    /// Left out when false: agents that know nothing of it are told what they always were.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub database_only: bool,
}

text_enum!(
    /// What the agent sees.
    ObservedState ("observed state") {
        /// Booted, database up, no identity.
        Idle = "idle",
        /// Working towards the desired state.
        Starting = "starting",
        /// The backend answered its health endpoint and an authenticated read.
        Serving = "serving",
        /// As `DesiredBackend::database_only` asks: the project's Postgres answers, with the
        /// desired password, and nothing else of the backend runs.
        DatabaseOnly = "database_only",
        /// Could not reach the desired state; `message` says why. It keeps trying, unless it
        /// has rolled back (`ReportRequest::rolled_back_from`).
        Failing = "failing",
    }
);

/// Sent on every change and at least every 20 seconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportRequest {
    /// The generation that `state` speaks of.
    pub generation: i64,
    pub state: ObservedState,
    /// The `restarts` that the running backend was started with, or its database, where that runs
    /// alone.
    #[serde(default)]
    pub restarts: i64,
    /// The version that the backend's health endpoint tells.
    #[serde(default)]
    pub backend_version: Option<String>,
    /// The release that serves, as `DesiredBackend::release` names it; none where nothing serves,
    /// and from agents whose runtime knows no releases.
    #[serde(default)]
    pub backend_release: Option<String>,
    /// The desired release, when it did not become healthy and was given up. The state is
    /// `failing` then, since it is not what was desired, but the backend serves: with
    /// `backend_release`, and `restarts` is the desired one. It stays so until something else is
    /// desired; a grown `restarts` is a new try.
    #[serde(default)]
    pub rolled_back_from: Option<String>,
    /// Why it fails, in words for an operator; never a secret. At most 500 characters are kept.
    #[serde(default)]
    pub message: Option<String>,
    pub agent_version: String,
    /// Once a minute; left out of the reports in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<MachineSample>,
}

/// How busy the machine was in the minute before, and how full it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MachineSample {
    /// Of all processors together, 0 to 100.
    pub cpu_usage: f64,
    /// What is not available to programs, 0 to 100.
    pub memory_usage: f64,
    /// Of the file system with the project's data, 0 to 100.
    pub disk_usage: f64,
    /// Bytes per second that came in.
    pub network_in: f64,
    /// Bytes per second that went out.
    pub network_out: f64,
}

impl MachineSample {
    /// Whether the numbers can be.
    pub fn check(&self) -> FieldResult<()> {
        for (name, percent) in [
            ("sample.cpu_usage", self.cpu_usage),
            ("sample.memory_usage", self.memory_usage),
            ("sample.disk_usage", self.disk_usage),
        ] {
            if !(0.0..=100.0).contains(&percent) {
                return Err(FieldError::new(name, "must be between 0 and 100"));
            }
        }
        for (name, rate) in [
            ("sample.network_in", self.network_in),
            ("sample.network_out", self.network_out),
        ] {
            if !(0.0..=1e15).contains(&rate) {
                return Err(FieldError::new(name, "must be between 0 and 1e15"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_that_know_no_database_only_are_told_what_they_always_were() {
        let mut backend = DesiredBackend {
            project_id: ProjectId::generate(),
            restarts: 0,
            release: None,
            database_password: String::new(),
            env: BTreeMap::new(),
            database_only: false,
        };
        let told = serde_json::to_value(&backend).unwrap();
        assert!(told.get("database_only").is_none());
        assert!(
            !serde_json::from_value::<DesiredBackend>(told)
                .unwrap()
                .database_only
        );

        backend.database_only = true;
        let told = serde_json::to_value(&backend).unwrap();
        assert!(
            serde_json::from_value::<DesiredBackend>(told)
                .unwrap()
                .database_only
        );
    }
}
