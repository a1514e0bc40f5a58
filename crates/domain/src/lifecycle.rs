//! What is done to a project that exists, by its partner or by people of its organization: pause, restore, restart,
//! upgrade, delete.

use cp_model::catalogue::MAX_VOLUME_GIB;
use cp_model::{
    Failure, FieldError, FieldResult, InstanceType, MachineSize, OperationId, OperationKind,
    Project, ProjectId, ProjectStatus, UpgradePlan,
};
use cp_storage::{PgConnection, StorageError, machines, operations, organizations, projects};
use serde_json::{Value, json};

use crate::context::ProjectCaller;
use crate::operations::lock;
use crate::{ControlPlane, DomainError, DomainResult, Effect, Thing};

/// What a project's machine shall be made of; what is left out stays. Made by [`Upgrade::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upgrade {
    instance_type: Option<InstanceType>,
    volume_gib: Option<i32>,
    fields: SizeFields,
}

/// What the caller's interface calls the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeFields {
    pub instance_type: &'static str,
    pub volume_gib: &'static str,
}

impl Upgrade {
    /// `volume_gib`: `least` to [`MAX_VOLUME_GIB`].
    pub fn new(
        instance_type: Option<InstanceType>,
        volume_gib: Option<i64>,
        least: i32,
        fields: SizeFields,
    ) -> FieldResult<Self> {
        if instance_type.is_none() && volume_gib.is_none() {
            let rule = format!("or {} must be given", fields.volume_gib);
            return Err(FieldError::new(fields.instance_type, rule));
        }
        let volume_gib = volume_gib.map(|given| {
            let fits = i32::try_from(given).ok();
            fits.filter(|gib| (least..=MAX_VOLUME_GIB).contains(gib))
                .ok_or_else(|| {
                    let rule = format!("must be between {least} and {MAX_VOLUME_GIB}");
                    FieldError::new(fields.volume_gib, rule)
                })
        });
        Ok(Self {
            instance_type,
            volume_gib: volume_gib.transpose()?,
            fields,
        })
    }

    fn plan(self, from: MachineSize) -> FieldResult<UpgradePlan> {
        let to = MachineSize {
            instance_type: self.instance_type.unwrap_or(from.instance_type),
            volume_gib: self.volume_gib.unwrap_or(from.volume_gib),
        };
        if to.volume_gib < from.volume_gib {
            let rule = format!(
                "must be at least {}, the size that the disk has: a disk only grows",
                from.volume_gib
            );
            return Err(FieldError::new(self.fields.volume_gib, rule));
        }
        Ok(UpgradePlan { from, to })
    }
}

/// A change that ends with the project in the change's final status.
enum Change<'a> {
    Pause,
    Restore,
    Restart { release: Option<&'a str> },
    Upgrade(Upgrade),
}

impl Change<'_> {
    const fn kind(&self) -> OperationKind {
        match self {
            Self::Pause => OperationKind::Pause,
            Self::Restore => OperationKind::Restore,
            Self::Restart { .. } => OperationKind::Restart,
            Self::Upgrade(_) => OperationKind::Upgrade,
        }
    }

    /// What its operation has to know. None: the project is as it shall be.
    fn plan(&self, project: &Project) -> FieldResult<Option<Value>> {
        let is_there = project.status == self.kind().final_status();
        let (is_needed, data) = match self {
            Self::Pause | Self::Restore => (!is_there, json!({})),
            Self::Restart { release } => (true, json!({ "release": release })),
            Self::Upgrade(upgrade) => {
                let plan = upgrade.plan(project.size())?;
                (!is_there || plan.from != plan.to, json!(plan))
            }
        };
        Ok(is_needed.then_some(data))
    }
}

impl ControlPlane {
    /// Stops the machine, keeps the disk. Nothing to do for a paused project.
    pub async fn pause_project(
        &self,
        by: ProjectCaller<'_>,
        id: ProjectId,
    ) -> DomainResult<Effect> {
        self.change_project(by, id, Change::Pause).await
    }

    /// Starts the machine of a paused project. Nothing to do for an active one.
    pub async fn restore_project(
        &self,
        by: ProjectCaller<'_>,
        id: ProjectId,
    ) -> DomainResult<Effect> {
        self.change_project(by, id, Change::Restore).await
    }

    /// Restarts the backend, with another release if one is named (`field::release`).
    pub async fn restart_project(
        &self,
        by: ProjectCaller<'_>,
        id: ProjectId,
        release: Option<&str>,
    ) -> DomainResult<Effect> {
        self.change_project(by, id, Change::Restart { release })
            .await
    }

    /// Gives an active project's machine another size, a bigger disk, or both. Nothing to do when
    /// it has them. Costs money, so people have to be administrators.
    pub async fn upgrade_project(
        &self,
        by: ProjectCaller<'_>,
        id: ProjectId,
        upgrade: Upgrade,
    ) -> DomainResult<Effect> {
        self.change_project(by, id, Change::Upgrade(upgrade)).await
    }

    /// As [`Self::upgrade_project`], in the caller's transaction, which has locked the project.
    pub(crate) async fn begin_upgrade(
        &self,
        conn: &mut PgConnection,
        by: ProjectCaller<'_>,
        project: &Project,
        upgrade: Upgrade,
    ) -> DomainResult<Effect> {
        let change = Change::Upgrade(upgrade);
        self.begin_change(conn, by, project, change).await
    }

    async fn change_project(
        &self,
        by: ProjectCaller<'_>,
        id: ProjectId,
        change: Change<'_>,
    ) -> DomainResult<Effect> {
        let mut tx = self.db().begin().await?;
        self.take_key_of(&mut tx, by).await?;
        let project = self.lock_own_project(&mut tx, by, id).await?;
        let effect = self.begin_change(&mut tx, by, &project, change).await?;
        self.note_effect_of(&mut tx, by, effect).await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(effect)
    }

    /// The caller has locked the project.
    async fn begin_change(
        &self,
        conn: &mut PgConnection,
        by: ProjectCaller<'_>,
        project: &Project,
        change: Change<'_>,
    ) -> DomainResult<Effect> {
        let (id, kind) = (project.id, change.kind());
        if let (Change::Upgrade(_), ProjectCaller::Person(person)) = (&change, by) {
            self.require_administrator(conn, person, project.organization_id)
                .await?;
        }
        let Some(data) = change.plan(project)? else {
            return Ok(Effect::Project(id));
        };
        if let (Change::Upgrade(_), ProjectCaller::Person(person)) = (&change, by) {
            self.check_may_grow(conn, person, project).await?;
        }
        if let ProjectCaller::Partner(..) = by {
            // Who runs the project is not kept from it by what its people back up.
            self.cancel_backup(conn, id, |_| true).await?;
        }
        self.make_way(conn, id).await?;
        if !kind.starts_from().contains(&project.status) {
            return Err(DomainError::WrongStatus {
                verb: past_tense(kind),
                status: project.status,
            });
        }
        if let (OperationKind::Restore, Some(user), None) =
            (kind, project.user_id, project.parent_id)
        {
            // A paused project gave its place away; it needs one again. Branches take none.
            let organization = project.organization_id;
            let plan = organizations::lock_organization(conn, organization).await?;
            match by {
                ProjectCaller::Partner(by, _) => {
                    self.check_plan_for_partner(conn, by, user, organization, plan)
                        .await?;
                }
                ProjectCaller::Person(_) => self.check_plan(conn, organization, plan).await?,
            }
        }
        if let Some(status) = kind.transitional_status() {
            self.enter(conn, project, status).await?;
        }
        if let Change::Restart {
            release: Some(release),
        } = change
        {
            projects::set_release(conn, id, release).await?;
        }
        let (actor, request) = (by.actor(), by.request_id());
        let details = data.clone();
        let operation = self
            .begin_operation(conn, id, kind, &actor, request, data)
            .await?;
        let audited = (id, project.organization_id);
        self.audit_project(conn, by, audit_action(kind), audited, details)
            .await?;
        Ok(Effect::Operation {
            project: id,
            operation,
        })
    }

    /// Ends access at once; the worker reclaims what the project had. An operation in flight is
    /// cancelled. The row stays, for usage and audit. Cannot be undone, so people have to be administrators, but for
    /// branches.
    pub async fn delete_project(
        &self,
        by: ProjectCaller<'_>,
        id: ProjectId,
    ) -> DomainResult<Effect> {
        let mut tx = self.db().begin().await?;
        self.take_key_of(&mut tx, by).await?;
        let project = self.lock_own_project(&mut tx, by, id).await?;
        if let (ProjectCaller::Person(by), None) = (by, project.parent_id) {
            self.require_administrator(&mut tx, by, project.organization_id)
                .await?;
        }
        self.begin_delete(&mut tx, &project, &by.actor(), by.request_id())
            .await?;
        let action = audit_action(OperationKind::Delete);
        let audited = (id, project.organization_id);
        self.audit_project(&mut tx, by, action, audited, json!({}))
            .await?;
        let effect = Effect::Project(id);
        self.note_effect_of(&mut tx, by, effect).await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(effect)
    }

    /// Ends access to a project, and to its branches, and begins to reclaim what they had. The caller has
    /// locked the project.
    pub(crate) async fn begin_delete(
        &self,
        conn: &mut PgConnection,
        project: &Project,
        actor: &str,
        request_id: &str,
    ) -> DomainResult<OperationId> {
        let id = project.id;
        Box::pin(self.delete_branches_of(conn, project, actor, request_id)).await?;
        if let Some(running) = operations::find_in_flight(conn, id).await? {
            let reason = Failure::new("project_deleted", "the project was deleted while this ran");
            operations::mark_cancelled(conn, running.id, &reason, self.now()).await?;
        }
        self.enter(conn, project, ProjectStatus::Deleting).await?;
        if let Some(machine) = machines::find_project_machine(conn, id).await? {
            // The agent stops the backend at once: terminating a machine may take minutes.
            machines::bump_desired(conn, machine.id).await?;
        }
        let kind = OperationKind::Delete;
        self.begin_operation(conn, id, kind, actor, request_id, json!({}))
            .await
    }

    /// A live project of the caller's.
    pub(crate) async fn find_own_project(
        &self,
        conn: &mut PgConnection,
        by: ProjectCaller<'_>,
        id: ProjectId,
    ) -> DomainResult<Project> {
        let found = match by {
            ProjectCaller::Partner(by, _) => {
                let found = projects::find_partner_project(conn, &by.partner.id, id).await?;
                found.filter(|p| p.user_id.is_none() || by.partner.co_branded)
            }
            ProjectCaller::Person(by) => projects::find_user_project(conn, by.user.id, id).await?,
        };
        found.ok_or(DomainError::NotFound(Thing::Project))
    }

    /// The same, and nobody else changes it until the transaction ends.
    pub(crate) async fn lock_own_project(
        &self,
        conn: &mut PgConnection,
        by: ProjectCaller<'_>,
        id: ProjectId,
    ) -> DomainResult<Project> {
        self.find_own_project(conn, by, id).await?;
        lock(conn, id).await?;
        // It may have been deleted, or given away, between the look and the lock.
        self.find_own_project(conn, by, id).await
    }

    /// Changes the status of a project whose row this transaction has locked.
    pub(crate) async fn enter(
        &self,
        conn: &mut PgConnection,
        project: &Project,
        status: ProjectStatus,
    ) -> DomainResult<()> {
        if !projects::mark_status(conn, project.id, project.status, status, None, self.now())
            .await?
        {
            return Err(DomainError::internal(format!(
                "project {} changed under its lock",
                project.id
            )));
        }
        self.tell_status(conn, project, status, None).await
    }
}

const fn past_tense(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Provision => "provisioned",
        OperationKind::Pause => "paused",
        OperationKind::Restore => "restored",
        OperationKind::Restart => "restarted",
        OperationKind::Upgrade => "upgraded",
        OperationKind::Delete => "deleted",
        OperationKind::Rebuild => "rebuilt",
        OperationKind::CreateBranch => "branched",
        OperationKind::ResetBranch => "reset",
        OperationKind::MergeBranch => "merged",
        OperationKind::RebaseBranch => "rebased",
        OperationKind::Backup => "backed up",
        OperationKind::RestoreBackup => "restored from a backup",
    }
}

const fn audit_action(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Provision => "project.created",
        OperationKind::Pause => "project.paused",
        OperationKind::Restore => "project.restored",
        OperationKind::Restart => "project.restarted",
        OperationKind::Upgrade => "project.upgraded",
        OperationKind::Delete => "project.deleted",
        OperationKind::Rebuild => "project.rebuilt",
        OperationKind::CreateBranch => "branch.created",
        OperationKind::ResetBranch => "branch.reset",
        OperationKind::MergeBranch => "branch.merged",
        OperationKind::RebaseBranch => "branch.rebased",
        OperationKind::Backup => "backup.created",
        OperationKind::RestoreBackup => "backup.restored",
    }
}
