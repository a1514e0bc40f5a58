//! A project, its status and the changes that are allowed.

use chrono::{DateTime, Utc};

use crate::catalogue::MachineSize;
use crate::{InstanceType, OrganizationId, PartnerId, ProjectId, Region, UserId, text_enum};

/// One backend, as the control plane keeps it. Holds no secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    pub id: ProjectId,
    pub organization_id: OrganizationId,
    /// The partner it was made through; none: a person made it.
    pub partner_id: Option<PartnerId>,
    /// The person it was made for; none: embedded, the partner's own.
    pub user_id: Option<UserId>,
    /// The project that it is a branch of.
    pub parent_id: Option<ProjectId>,
    pub external_id: Option<String>,
    pub name: String,
    /// Its DNS label and object prefix: short, lowercase, unguessable.
    pub app_key: String,
    pub region: Region,
    pub instance_type: InstanceType,
    /// Of its machine's disk, in GiB.
    pub volume_gib: i32,
    pub status: ProjectStatus,
    pub failure: Option<Failure>,
    /// Base URL at which its backend answers; none until it has a machine with an address.
    pub access_host: Option<String>,
    pub release: Option<String>,
    pub metadata: Option<serde_json::Value>,
    pub last_activity_at: Option<DateTime<Utc>>,
    /// A host name of its people's that leads to its backend.
    pub customized_domain: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// Why something failed: a stable code, and words for people. Never a secret.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    pub code: String,
    pub message: String,
}

impl Failure {
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

text_enum!(
    /// A project's status, as the wire has it (partnership-api.md, "Statuses on the wire").
    ProjectStatus ("status") {
        Provisioning = "provisioning",
        Active = "active",
        Pausing = "pausing",
        Paused = "paused",
        Restoring = "restoring",
        Restarting = "restarting",
        Upgrading = "upgrading",
        Deleting = "deleting",
        Failed = "failed",
        /// The end. The row stays, for usage and audit; no tenant sees it.
        Deleted = "deleted",
    }
);

impl Project {
    pub fn size(&self) -> MachineSize {
        MachineSize {
            instance_type: self.instance_type,
            volume_gib: self.volume_gib,
        }
    }
}

impl ProjectStatus {
    /// Whether a project may go from this status straight to `next`.
    pub const fn can_become(self, next: Self) -> bool {
        use ProjectStatus as S;
        match self {
            S::Provisioning | S::Restoring | S::Restarting | S::Upgrading => {
                matches!(next, S::Active | S::Failed | S::Deleting)
            }
            // Restoring: the database of a backup.
            S::Active => matches!(
                next,
                S::Pausing | S::Restoring | S::Restarting | S::Upgrading | S::Failed | S::Deleting
            ),
            S::Pausing => matches!(next, S::Paused | S::Failed | S::Deleting),
            S::Paused => matches!(next, S::Restoring | S::Failed | S::Deleting),
            // An operator's retry takes the failed operation's way again.
            S::Failed => matches!(
                next,
                S::Provisioning
                    | S::Pausing
                    | S::Restoring
                    | S::Restarting
                    | S::Upgrading
                    | S::Deleting
            ),
            S::Deleting => matches!(next, S::Deleted),
            S::Deleted => false,
        }
    }

    /// Whether an operation is working on the project.
    pub const fn is_transitional(self) -> bool {
        use ProjectStatus as S;
        matches!(
            self,
            S::Provisioning
                | S::Pausing
                | S::Restoring
                | S::Restarting
                | S::Upgrading
                | S::Deleting
        )
    }

    /// Whether tenants still see the project. Access ends with the answer to the delete call.
    pub const fn is_live(self) -> bool {
        !matches!(self, Self::Deleting | Self::Deleted)
    }

    /// Whether the project takes one of the plan's places. Paused ones do not: the plan limits
    /// *active* projects. Failed ones do, for their machine may still run.
    pub const fn counts_against_plan(self) -> bool {
        !matches!(
            self,
            Self::Paused | Self::Pausing | Self::Deleting | Self::Deleted
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OperationKind;

    #[test]
    fn nothing_leaves_deleted_and_only_deleted_follows_deleting() {
        for next in ProjectStatus::ALL {
            assert!(!ProjectStatus::Deleted.can_become(*next));
            assert_eq!(
                ProjectStatus::Deleting.can_become(*next),
                *next == ProjectStatus::Deleted
            );
        }
    }

    #[test]
    fn every_live_status_can_be_deleted() {
        for status in ProjectStatus::ALL.iter().filter(|s| s.is_live()) {
            assert!(status.can_become(ProjectStatus::Deleting), "{status}");
        }
    }

    #[test]
    fn no_transitional_status_is_a_dead_end() {
        for status in ProjectStatus::ALL.iter().filter(|s| s.is_transitional()) {
            let ends = ProjectStatus::ALL
                .iter()
                .filter(|next| status.can_become(**next))
                .count();
            assert!(ends > 0, "{status}");
        }
    }

    #[test]
    fn every_operation_moves_along_allowed_changes() {
        for kind in OperationKind::ALL {
            let Some(through) = kind.transitional_status() else {
                continue;
            };
            assert!(through.is_transitional());
            assert!(through.can_become(kind.final_status()), "{kind}");
            for from in kind.starts_from() {
                assert!(from.can_become(through), "{kind} from {from}");
            }
        }
    }
}
