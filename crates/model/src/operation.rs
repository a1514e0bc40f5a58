//! Long work on a project: its kinds, its states, its limits in time and attempts.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::catalogue::MachineSize;
use crate::project::{Failure, ProjectStatus};
use crate::{OperationId, ProjectId, text_enum};

/// One piece of long work on one project.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    pub id: OperationId,
    pub project_id: ProjectId,
    pub kind: OperationKind,
    pub state: OperationState,
    /// The step that runs next, by its name in the worker.
    pub step: String,
    /// What later steps need of earlier ones; never a secret. With `turned_back`, a [`Failure`], it
    /// does not get what was asked for and brings the project back to what it was: then it ends as
    /// failed, and the project as after success.
    pub data: serde_json::Value,
    pub attempts: i32,
    pub max_attempts: i32,
    pub next_attempt_at: DateTime<Utc>,
    pub deadline_at: Option<DateTime<Utc>>,
    pub generation: i64,
    pub lease_owner: Option<String>,
    pub lease_until: Option<DateTime<Utc>>,
    /// How often it was woken; see `storage::operations::release`.
    pub wakes: i64,
    /// The last error: of a failed attempt while in flight, of the whole once failed.
    pub error: Option<Failure>,
    pub requested_by: String,
    pub request_id: String,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
}

text_enum!(
    /// What an operation does to its project.
    OperationKind ("operation kind") {
        Provision = "provision",
        Pause = "pause",
        Restore = "restore",
        Restart = "restart",
        /// Gives the machine another size, a bigger disk, or both.
        Upgrade = "upgrade",
        Delete = "delete",
        /// Gives a project whose machine is gone for good a new, empty one. Only an operator can
        /// start it, since the data of the old machine is lost (`operation retry --accept-data-loss`).
        Rebuild = "rebuild",
        /// Makes a branch: copies its parent's database onto a machine of its own.
        CreateBranch = "create_branch",
        /// Gives a branch its first database again.
        ResetBranch = "reset_branch",
        /// Brings a branch's changes to its parent. The branch's project stays active.
        MergeBranch = "merge_branch",
        /// Brings the parent's changes to a branch. The branch's project stays active.
        RebaseBranch = "rebase_branch",
        /// Copies the project's database into the store. The project stays active.
        Backup = "backup",
        /// Gives the project the database of one of its backups.
        RestoreBackup = "restore_backup",
    }
);

impl OperationKind {
    /// The project's status while the operation is in flight; none: it stays what it is.
    pub const fn transitional_status(self) -> Option<ProjectStatus> {
        Some(match self {
            Self::Provision | Self::Rebuild | Self::CreateBranch => ProjectStatus::Provisioning,
            Self::Pause => ProjectStatus::Pausing,
            Self::Restore | Self::RestoreBackup => ProjectStatus::Restoring,
            Self::Restart | Self::ResetBranch => ProjectStatus::Restarting,
            Self::Upgrade => ProjectStatus::Upgrading,
            Self::Delete => ProjectStatus::Deleting,
            Self::MergeBranch | Self::RebaseBranch | Self::Backup => return None,
        })
    }

    /// The project's status when the operation has succeeded.
    pub const fn final_status(self) -> ProjectStatus {
        match self {
            Self::Provision
            | Self::Rebuild
            | Self::Restore
            | Self::Restart
            | Self::Upgrade
            | Self::CreateBranch
            | Self::ResetBranch
            | Self::MergeBranch
            | Self::RebaseBranch
            | Self::Backup
            | Self::RestoreBackup => ProjectStatus::Active,
            Self::Pause => ProjectStatus::Paused,
            Self::Delete => ProjectStatus::Deleted,
        }
    }

    /// The statuses in which a caller may ask for it (an operator's retry may also start it from
    /// `failed`). A new project is born `provisioning`, so `Provision` starts from nowhere.
    pub const fn starts_from(self) -> &'static [ProjectStatus] {
        use ProjectStatus as S;
        match self {
            Self::Provision | Self::CreateBranch => &[],
            Self::Pause
            | Self::Restart
            | Self::Upgrade
            | Self::ResetBranch
            | Self::MergeBranch
            | Self::RebaseBranch
            | Self::Backup
            | Self::RestoreBackup => &[S::Active],
            Self::Restore => &[S::Paused],
            Self::Rebuild => &[S::Failed],
            Self::Delete => &[
                S::Provisioning,
                S::Active,
                S::Pausing,
                S::Paused,
                S::Restoring,
                S::Restarting,
                S::Upgrading,
                S::Failed,
            ],
        }
    }

    /// The name of the worker's first step, with which an operation is queued.
    pub const fn first_step(self) -> &'static str {
        match self {
            Self::Provision | Self::Rebuild | Self::CreateBranch => "allocate_machine",
            Self::Pause => "stop_machine",
            Self::Restore => "start_machine",
            Self::Restart => "plan_restart",
            Self::Upgrade => "grow_volume",
            Self::Delete => "await_quiet",
            Self::ResetBranch | Self::RestoreBackup => "stop_backend",
            Self::MergeBranch => "merge",
            Self::RebaseBranch => "look",
            Self::Backup => "copy_database",
        }
    }

    /// How long the whole may take before it is failed. A delete has no deadline: machines cost
    /// money until they are gone, so it is tried for ever and shows in `operation list`. A restart
    /// with another release and an upgrade have time to turn back.
    pub const fn deadline(self) -> Option<Duration> {
        match self {
            Self::Provision | Self::Rebuild => Some(Duration::from_mins(20)),
            Self::Restore => Some(Duration::from_mins(15)),
            Self::Restart => Some(Duration::from_mins(35)),
            Self::Upgrade => Some(Duration::from_mins(40)),
            Self::Pause => Some(Duration::from_mins(10)),
            // A database of hundreds of gigabytes takes hours to copy.
            Self::CreateBranch
            | Self::ResetBranch
            | Self::RebaseBranch
            | Self::Backup
            | Self::RestoreBackup => Some(Duration::from_hours(12)),
            // An online one builds indexes of big tables.
            Self::MergeBranch => Some(Duration::from_hours(6)),
            Self::Delete => None,
        }
    }

    /// How often a step may be tried before the operation fails.
    pub const fn max_attempts(self) -> i32 {
        match self {
            Self::Delete => i32::MAX,
            _ => 8,
        }
    }
}

text_enum!(
    /// Where an operation stands.
    OperationState ("operation state") {
        Queued = "queued",
        Running = "running",
        /// Nobody works on it until a time has come or an event wakes it.
        Waiting = "waiting",
        Succeeded = "succeeded",
        Failed = "failed",
        Cancelled = "cancelled",
    }
);

impl Operation {
    /// How many bytes of a database the present step has copied; none while it copies none.
    pub fn bytes_copied(&self) -> Option<u64> {
        self.data[PROGRESS].as_u64()
    }

    /// Why it turned back, if it did.
    pub fn turned_back(&self) -> Option<Failure> {
        serde_json::from_value(self.data[TURNED_BACK].clone()).ok()
    }

    /// Its data from the moment on at which it turns back.
    pub fn turning_back(&self, failure: &Failure) -> serde_json::Value {
        let mut data = self.data.clone();
        data[TURNED_BACK] = serde_json::json!(failure);
        data
    }
}

const PROGRESS: &str = "bytes_copied";
const TURNED_BACK: &str = "turned_back";

impl OperationState {
    /// Whether it still holds its project (design.md, invariant 2).
    pub const fn is_in_flight(self) -> bool {
        matches!(self, Self::Queued | Self::Running | Self::Waiting)
    }

    pub const fn can_become(self, next: Self) -> bool {
        use OperationState as S;
        match self {
            S::Queued | S::Waiting => matches!(next, S::Running | S::Failed | S::Cancelled),
            // Running → Running: an expired lease is taken over by another worker. Nothing but an
            // operator's retry puts an operation back to the start.
            S::Running => !matches!(next, S::Queued),
            S::Failed => matches!(next, S::Queued),
            S::Succeeded | S::Cancelled => false,
        }
    }
}

/// What `Operation::data` of an upgrade holds from its beginning on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradePlan {
    pub from: MachineSize,
    pub to: MachineSize,
}

/// Waits between attempts: doubling from one second to five minutes, before jitter.
pub fn backoff(attempt: u32) -> Duration {
    Duration::from_secs(1 << attempt.saturating_sub(1).min(9)).min(Duration::from_mins(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_operations_never_run_again_except_by_retry() {
        for state in [OperationState::Succeeded, OperationState::Cancelled] {
            assert!(
                OperationState::ALL
                    .iter()
                    .all(|next| !state.can_become(*next))
            );
        }
        let from_failed: Vec<_> = OperationState::ALL
            .iter()
            .filter(|n| OperationState::Failed.can_become(**n))
            .collect();
        assert_eq!(from_failed, [&OperationState::Queued]);
    }

    #[test]
    fn backoff_grows_and_is_capped() {
        assert_eq!(backoff(1), Duration::from_secs(1));
        assert_eq!(backoff(4), Duration::from_secs(8));
        assert_eq!(backoff(60), Duration::from_mins(5));
        for attempt in 1..40 {
            assert!(backoff(attempt) <= backoff(attempt + 1));
        }
    }
}
