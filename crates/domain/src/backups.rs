//! Backups of projects' databases: asked for by the people of their organization, and made daily
//! (contract/platform-api.md 11). A backup is whole or it is none: what is stored counts once it is recorded.

use std::time::Duration;

use chrono::TimeDelta;
use cp_model::backup::{BACKUP_EVERY, BACKUPS_KEPT};
use cp_model::{
    Backup, BackupId, BackupStatus, BackupTrigger, Failure, Operation, OperationId, OperationKind,
    Project, ProjectId, ProjectStatus, StoredCopy, field,
};
use cp_storage::backups::{self, DeletedBackup, NewBackup};
use cp_storage::notifications::Topic;
use cp_storage::{PgConnection, operations, organizations};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::context::{ProjectCaller, UserCaller};
use crate::operations::{Lease, commit, held, lock};
use crate::{ControlPlane, DomainError, DomainResult, Thing};

/// The failure code of a restore that ended with the database that was there before.
pub const RESTORE_FAILED: &str = "backup.restore_failed";

/// Who begins scheduled backups, in `operations.requested_by`.
pub(crate) const SCHEDULE: &str = "system";

/// When a scheduled backup that made way for somebody's work comes again.
const AFTER_MAKING_WAY: TimeDelta = TimeDelta::hours(1);

/// A project that is busy when its backup is due is looked at again then.
const BUSY_PAUSE: TimeDelta = TimeDelta::minutes(10);

/// A worker that has lost its lease may store something for so long.
const QUIET_AFTER: TimeDelta = TimeDelta::minutes(1);

/// Where an operation's data names its backup.
const BACKUP: &str = "backup";

/// What backups refuse besides what everything can.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(
        "the {plan} plan has places for {slots} of a project's backups, besides the daily ones; delete one first"
    )]
    NoSlot { plan: cp_model::Plan, slots: u32 },
    #[error("the backup is being made; wait for its end, then try again")]
    Running,
    #[error("the backup failed, so there is nothing to restore; choose another one")]
    Failed,
    #[error("the project is being restored from this backup; wait for its end, then try again")]
    BeingRestored,
    #[error("a branch has no backups: reset it to be what its parent was, or back its parent up")]
    OfBranch,
}

impl ControlPlane {
    /// Begins a backup of an active project.
    pub async fn create_backup(
        &self,
        by: &UserCaller,
        project: ProjectId,
        name: Option<&str>,
    ) -> DomainResult<(BackupId, OperationId)> {
        let name = name.map(|name| field::backup_name("name", name));
        let name = name.transpose()?;
        let caller = ProjectCaller::Person(by);
        let mut tx = self.db().begin().await?;
        let project = self.lock_own_project(&mut tx, caller, project).await?;
        self.make_way(&mut tx, project.id).await?;
        check_active(&project, "backed up")?;
        let organization = self
            .find_own_organization(&mut tx, by, project.organization_id)
            .await?;
        let slots = organization.plan.backup_slots();
        let there = backups::list_backups(&mut tx, project.id).await?;
        let taken = there.iter().filter(|b| takes_slot(b)).count();
        if taken >= slots as usize {
            let plan = organization.plan;
            return Err(BackupError::NoSlot { plan, slots }.into());
        }
        let new = New {
            name: name.as_deref(),
            plan: organization.plan,
            trigger: BackupTrigger::Manual,
        };
        let begun = self.begin_backup(&mut tx, &project, Some(by), &new).await?;
        let details = json!({ "backup": begun.0, "name": name });
        let audited = (project.id, project.organization_id);
        self.audit_project(&mut tx, caller, "backup.created", audited, details)
            .await?;
        commit(tx).await?;
        Ok(begun)
    }

    async fn begin_backup(
        &self,
        conn: &mut PgConnection,
        project: &Project,
        by: Option<&UserCaller>,
        new: &New<'_>,
    ) -> DomainResult<(BackupId, OperationId)> {
        let id = BackupId::generate();
        let actor = by.map_or_else(|| SCHEDULE.to_owned(), UserCaller::actor);
        let request = by.map_or("-", |by| by.caller.request_id.as_str());
        let (kind, data) = (OperationKind::Backup, json!({ BACKUP: id }));
        let operation = self
            .begin_operation(conn, project.id, kind, &actor, request, data)
            .await?;
        let new = NewBackup {
            id,
            project: project.id,
            operation,
            name: new.name,
            plan: new.plan,
            trigger: new.trigger,
            created_by: by.map(|by| by.user.id),
            now: self.now(),
        };
        backups::insert_backup(conn, &new).await?;
        // Its status stays as it is, and people see by it that something is done.
        operations::notify_project(conn, project.id).await?;
        Ok((id, operation))
    }

    /// Begins the daily backups that are due, as many as may be under way at once. Gives how many.
    pub async fn begin_scheduled_backups(&self, at_once: usize) -> DomainResult<usize> {
        let now = self.now();
        // Held to the end of the round: a worker that counts while another one begins would begin too many.
        let mut round = self.db().begin().await?;
        if !backups::try_lock_schedule(&mut round).await? {
            return Ok(0);
        }
        let running = backups::count_scheduled_in_flight(&mut round).await?;
        let room = i64::try_from(at_once).unwrap_or(i64::MAX) - running;
        let due = backups::list_due_projects(&mut round, now, room.max(0)).await?;
        let mut begun = 0;
        for id in due {
            match self.begin_scheduled_backup(id).await {
                Ok(is_begun) => begun += usize::from(is_begun),
                // One that cannot be backed up must not keep the others from it.
                Err(error) => {
                    tracing::warn!(project = %id, %error, "a scheduled backup could not be begun");
                    let mut conn = self.db().acquire().await?;
                    backups::put_off_next(&mut conn, id, now + BUSY_PAUSE, now).await?;
                }
            }
        }
        commit(round).await?;
        Ok(begun)
    }

    /// For how long a daily backup has been due and was not begun, in seconds; 0: none waits.
    pub async fn oldest_due_backup_seconds(&self) -> DomainResult<f64> {
        let mut conn = self.db().acquire().await?;
        Ok(backups::oldest_due_seconds(&mut conn, self.now()).await?)
    }

    async fn begin_scheduled_backup(&self, id: ProjectId) -> DomainResult<bool> {
        let now = self.now();
        let mut tx = self.db().begin().await?;
        let project = lock(&mut tx, id).await?;
        let is_idle = operations::find_in_flight(&mut tx, id).await?.is_none();
        let is_active = project.status == ProjectStatus::Active;
        let pause = if is_idle { BACKUP_EVERY } else { BUSY_PAUSE };
        // Another worker may have been here, or somebody may have paused it.
        if !is_active || !backups::put_off_next(&mut tx, id, now + pause, now).await? {
            return Ok(false);
        }
        if is_idle {
            let plan = organizations::find_plan(&mut tx, project.organization_id).await?;
            let new = New {
                name: None,
                plan,
                trigger: BackupTrigger::Scheduled,
            };
            self.begin_backup(&mut tx, &project, None, &new).await?;
        }
        commit(tx).await?;
        Ok(is_idle)
    }

    /// Refuses while an operation is in flight: the caller holds the project's row lock. A scheduled backup makes way,
    /// nobody asked for it now; it comes again.
    pub(crate) async fn make_way(
        &self,
        conn: &mut PgConnection,
        id: ProjectId,
    ) -> DomainResult<()> {
        match self.cancel_backup(conn, id, |by| by == SCHEDULE).await? {
            None => Ok(()),
            Some(running) => Err(DomainError::OperationInProgress {
                operation_id: running.id,
                kind: running.kind,
            }),
        }
    }

    /// Cancels the backup that is being made, if it was asked for by such a one. Gives the operation that stays in flight.
    pub(crate) async fn cancel_backup(
        &self,
        conn: &mut PgConnection,
        id: ProjectId,
        is_asked_by: impl Fn(&str) -> bool,
    ) -> DomainResult<Option<Operation>> {
        let Some(running) = operations::find_in_flight(conn, id).await? else {
            return Ok(None);
        };
        if running.kind != OperationKind::Backup || !is_asked_by(&running.requested_by) {
            return Ok(Some(running));
        }
        let reason = Failure::new("made_way", "it made way for what was asked for afterwards");
        held(operations::mark_cancelled(conn, running.id, &reason, self.now()).await?)?;
        if running.requested_by == SCHEDULE {
            backups::bring_forward(conn, id, self.now() + AFTER_MAKING_WAY).await?;
        }
        operations::notify_project(conn, id).await?;
        Ok(None)
    }

    /// A project's backups, the newest first.
    pub async fn list_backups(
        &self,
        by: &UserCaller,
        project: ProjectId,
    ) -> DomainResult<Vec<Backup>> {
        let mut conn = self.db().acquire().await?;
        let caller = ProjectCaller::Person(by);
        let project = self.find_own_project(&mut conn, caller, project).await?;
        Ok(backups::list_backups(&mut conn, project.id).await?)
    }

    /// The newest backup that is whole, with its project.
    pub async fn latest_backup(
        &self,
        by: &UserCaller,
        project: ProjectId,
    ) -> DomainResult<(Project, Backup, StoredCopy)> {
        let mut conn = self.db().acquire().await?;
        let caller = ProjectCaller::Person(by);
        let project = self.find_own_project(&mut conn, caller, project).await?;
        let latest = backups::find_latest(&mut conn, project.id).await?;
        let latest = latest.ok_or(DomainError::NotFound(Thing::Backup))?;
        let copy = latest.copy.clone();
        let copy = copy.ok_or_else(|| DomainError::internal("a whole backup without its copy"))?;
        Ok((project, latest, copy))
    }

    /// The backup once it is whole or has failed, or as it is when the time is up.
    pub async fn wait_for_backup(
        &self,
        by: &UserCaller,
        project: ProjectId,
        id: BackupId,
        at_most: Duration,
    ) -> DomainResult<Backup> {
        let until = Instant::now() + at_most;
        let mut changes = self
            .db()
            .notifications()
            .subscribe(Topic::Projects, &project.to_string());
        loop {
            let mut conn = self.db().acquire().await?;
            let seen = self.find_own_backup(&mut conn, by, project, id).await?;
            drop(conn);
            if seen.status != BackupStatus::Running {
                return Ok(seen);
            }
            let changed = tokio::time::timeout_at(until, changes.changed()).await;
            if changed.is_err() {
                return Ok(seen);
            }
        }
    }

    /// Gives a backup another name, or none.
    pub async fn rename_backup(
        &self,
        by: &UserCaller,
        project: ProjectId,
        id: BackupId,
        name: Option<&str>,
    ) -> DomainResult<Backup> {
        let name = name.map(|name| field::backup_name("name", name));
        let name = name.transpose()?;
        let caller = ProjectCaller::Person(by);
        let mut tx = self.db().begin().await?;
        let project = self.lock_own_project(&mut tx, caller, project).await?;
        if !backups::set_name(&mut tx, project.id, id, name.as_deref()).await? {
            return Err(DomainError::NotFound(Thing::Backup));
        }
        let details = json!({ "backup": id, "name": name });
        let audited = (project.id, project.organization_id);
        self.audit_project(&mut tx, caller, "backup.renamed", audited, details)
            .await?;
        let renamed = self.find_own_backup(&mut tx, by, project.id, id).await?;
        commit(tx).await?;
        Ok(renamed)
    }

    /// Deletes a backup for good, so people have to be administrators; one that is being made is given up. What is stored
    /// goes soon after.
    pub async fn delete_backup(
        &self,
        by: &UserCaller,
        project: ProjectId,
        id: BackupId,
    ) -> DomainResult<()> {
        let caller = ProjectCaller::Person(by);
        let mut tx = self.db().begin().await?;
        let project = self.lock_own_project(&mut tx, caller, project).await?;
        self.require_administrator(&mut tx, by, project.organization_id)
            .await?;
        let backup = self.find_own_backup(&mut tx, by, project.id, id).await?;
        let running = if backup.status == BackupStatus::Running {
            self.cancel_backup(&mut tx, project.id, |_| true).await?
        } else {
            operations::find_in_flight(&mut tx, project.id).await?
        };
        if running.is_some_and(|running| {
            running.kind == OperationKind::RestoreBackup && running.data[BACKUP] == json!(id)
        }) {
            return Err(BackupError::BeingRestored.into());
        }
        held(backups::mark_deleted(&mut tx, project.id, id, self.now()).await?)?;
        let details = json!({ "backup": id, "name": backup.name });
        let audited = (project.id, project.organization_id);
        self.audit_project(&mut tx, caller, "backup.deleted", audited, details)
            .await?;
        commit(tx).await
    }

    /// Begins to give an active project the database of a backup. What is in its database now is lost when it succeeds, so
    /// people have to be administrators.
    pub async fn restore_backup(
        &self,
        by: &UserCaller,
        project: ProjectId,
        id: BackupId,
    ) -> DomainResult<OperationId> {
        let caller = ProjectCaller::Person(by);
        let mut tx = self.db().begin().await?;
        let project = self.lock_own_project(&mut tx, caller, project).await?;
        self.require_administrator(&mut tx, by, project.organization_id)
            .await?;
        let backup = self.find_own_backup(&mut tx, by, project.id, id).await?;
        match backup.status {
            BackupStatus::Completed => {}
            BackupStatus::Running => return Err(BackupError::Running.into()),
            BackupStatus::Failed => return Err(BackupError::Failed.into()),
        }
        self.make_way(&mut tx, project.id).await?;
        check_active(&project, "restored from a backup")?;
        let kind = OperationKind::RestoreBackup;
        if let Some(status) = kind.transitional_status() {
            self.enter(&mut tx, &project, status).await?;
        }
        let (actor, request) = (by.actor(), by.caller.request_id.as_str());
        let data = json!({ BACKUP: id });
        let operation = self
            .begin_operation(&mut tx, project.id, kind, &actor, request, data)
            .await?;
        let details = json!({ "backup": id, "name": backup.name });
        let audited = (project.id, project.organization_id);
        self.audit_project(&mut tx, caller, "backup.restore_begun", audited, details)
            .await?;
        commit(tx).await?;
        Ok(operation)
    }

    async fn find_own_backup(
        &self,
        conn: &mut PgConnection,
        by: &UserCaller,
        project: ProjectId,
        id: BackupId,
    ) -> DomainResult<Backup> {
        let caller = ProjectCaller::Person(by);
        let project = self.find_own_project(conn, caller, project).await?;
        backups::find_backup(conn, project.id, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::Backup))
    }

    /// For workers: the backup that an operation makes or restores, and the users' own roles in it, as `cp-dump` wrote them.
    pub async fn load_backup(&self, lease: &Lease, data: &Value) -> DomainResult<(Backup, Value)> {
        let id: BackupId =
            serde_json::from_value(data[BACKUP].clone()).map_err(DomainError::internal)?;
        let mut conn = self.db().acquire().await?;
        let backup = backups::find_backup_in_work(&mut conn, lease.project, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::Backup))?;
        Ok((backup, backups::find_roles(&mut conn, id).await?))
    }

    /// For workers: whether anything of the project may be stored that only a store can tell.
    pub async fn has_backups(&self, project: ProjectId) -> DomainResult<bool> {
        let mut conn = self.db().acquire().await?;
        Ok(backups::has_backups(&mut conn, project).await?)
    }

    /// For workers: what is stored is the backup, and whole.
    pub async fn record_backup(
        &self,
        lease: &Lease,
        id: BackupId,
        copy: &StoredCopy,
        roles: &Value,
    ) -> DomainResult<()> {
        let mut tx = self.begin_under(lease).await?;
        held(backups::mark_completed(&mut tx, lease.project, id, copy, roles, self.now()).await?)?;
        commit(tx).await
    }

    /// Ends what is past its time. Gives how many backups that were.
    pub async fn expire_backups(&self) -> DomainResult<u64> {
        let now = self.now();
        let mut conn = self.db().acquire().await?;
        Ok(backups::mark_expired(&mut conn, now - BACKUPS_KEPT, now, 500).await?)
    }

    /// Some backups whose stored content is to be deleted.
    pub async fn list_deleted_backups(&self) -> DomainResult<Vec<DeletedBackup>> {
        let mut conn = self.db().acquire().await?;
        Ok(backups::list_deleted(&mut conn, self.now() - QUIET_AFTER, 100).await?)
    }

    /// What was stored for it is gone, or could not be deleted now.
    pub async fn settle_deleted_backup(&self, id: BackupId, is_gone: bool) -> DomainResult<()> {
        let mut conn = self.db().acquire().await?;
        if is_gone {
            backups::delete_backup(&mut conn, id).await?;
        } else {
            backups::put_off_deletion(&mut conn, id, self.now()).await?;
        }
        Ok(())
    }
}

/// What a backup is begun with.
struct New<'a> {
    name: Option<&'a str>,
    plan: cp_model::Plan,
    trigger: BackupTrigger,
}

fn takes_slot(backup: &Backup) -> bool {
    backup.trigger == BackupTrigger::Manual && backup.status != BackupStatus::Failed
}

fn check_active(project: &Project, verb: &'static str) -> DomainResult<()> {
    // A merge takes what a branch has lost since its base for what it deletes.
    if project.parent_id.is_some() {
        return Err(BackupError::OfBranch.into());
    }
    match project.status {
        ProjectStatus::Active => Ok(()),
        status => Err(DomainError::WrongStatus { verb, status }),
    }
}
