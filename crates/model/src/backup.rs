//! Backups: copies of a project's database that it can be brought back to (contract/platform-api.md 11).

use chrono::{DateTime, TimeDelta, Utc};

use crate::{BackupId, Failure, OrganizationId, Plan, ProjectId, StoredCopy, UserId, text_enum};

/// How long scheduled backups are kept, but for the newest whole one; and failed ones of any kind.
pub const BACKUPS_KEPT: TimeDelta = TimeDelta::days(7);

/// How far scheduled backups of a project are apart.
pub const BACKUP_EVERY: TimeDelta = TimeDelta::days(1);

text_enum!(
    /// Where a backup stands.
    BackupStatus ("backup status") {
        Running = "running",
        Completed = "completed",
        Failed = "failed",
    }
);

text_enum!(
    /// Who began it.
    BackupTrigger ("trigger source") {
        Manual = "manual",
        Scheduled = "scheduled",
    }
);

/// One backup.
#[derive(Debug, Clone, PartialEq)]
pub struct Backup {
    pub id: BackupId,
    pub project_id: ProjectId,
    /// Whose project it is now.
    pub organization_id: OrganizationId,
    /// The organization's plan when the backup was begun.
    pub plan: Plan,
    pub status: BackupStatus,
    pub trigger: BackupTrigger,
    /// 1 to 64 characters.
    pub name: Option<String>,
    /// Why it failed, or what its last attempt failed with.
    pub failure: Option<Failure>,
    /// What is stored; of a whole one alone.
    pub copy: Option<StoredCopy>,
    pub created_by: Option<UserId>,
    pub created_at: DateTime<Utc>,
    /// When a worker began with it.
    pub started_at: Option<DateTime<Utc>>,
}
