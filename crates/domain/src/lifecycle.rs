//! What a partner does to a project that exists: pause, restore, restart, upgrade, delete.

use cp_model::catalogue::MAX_VOLUME_GIB;
use cp_model::{
    Failure, FieldError, FieldResult, InstanceType, MachineSize, OperationId, OperationKind,
    Project, ProjectId, ProjectStatus, UpgradePlan, field,
};
use cp_storage::{PgConnection, StorageError, accounts, machines, operations, projects};
use serde_json::{Value, json};

use crate::context::{IdempotentRequest, PartnerCaller};
use crate::{ControlPlane, DomainError, DomainResult, Effect, Thing};

/// What a project's machine shall be made of; what is left out stays. Made by [`Upgrade::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upgrade {
    instance_type: Option<InstanceType>,
    volume_gib: Option<i32>,
}

impl Upgrade {
    /// `volume_size_gib`: 1 to [`MAX_VOLUME_GIB`].
    pub fn new(
        instance_type: Option<InstanceType>,
        volume_size_gib: Option<i64>,
    ) -> FieldResult<Self> {
        if instance_type.is_none() && volume_size_gib.is_none() {
            let rule = "or volume_size_gib must be given";
            return Err(FieldError::new("instance_type", rule));
        }
        let volume_gib = volume_size_gib.map(|given| {
            let fits = i32::try_from(given).ok();
            fits.filter(|gib| (1..=MAX_VOLUME_GIB).contains(gib))
                .ok_or_else(|| {
                    FieldError::new(VOLUME, format!("must be between 1 and {MAX_VOLUME_GIB}"))
                })
        });
        Ok(Self {
            instance_type,
            volume_gib: volume_gib.transpose()?,
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
            return Err(FieldError::new(VOLUME, rule));
        }
        Ok(UpgradePlan { from, to })
    }
}

const VOLUME: &str = "volume_size_gib";

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
            Self::Restart { .. } => (true, json!({})),
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
        by: &PartnerCaller,
        id: ProjectId,
        key: Option<&IdempotentRequest>,
    ) -> DomainResult<Effect> {
        self.change_project(by, id, key, Change::Pause).await
    }

    /// Starts the machine of a paused project. Nothing to do for an active one.
    pub async fn restore_project(
        &self,
        by: &PartnerCaller,
        id: ProjectId,
        key: Option<&IdempotentRequest>,
    ) -> DomainResult<Effect> {
        self.change_project(by, id, key, Change::Restore).await
    }

    /// Restarts the backend, with another release if one is named.
    pub async fn restart_project(
        &self,
        by: &PartnerCaller,
        id: ProjectId,
        release: Option<&str>,
        key: Option<&IdempotentRequest>,
    ) -> DomainResult<Effect> {
        let release = release.map(|r| field::release("insforge_oss_version", r));
        let release = release.transpose()?;
        let release = release.as_deref();
        self.change_project(by, id, key, Change::Restart { release })
            .await
    }

    /// Gives an active project's machine another size, a bigger disk, or both. Nothing to do when
    /// it has them.
    pub async fn upgrade_project(
        &self,
        by: &PartnerCaller,
        id: ProjectId,
        upgrade: Upgrade,
        key: Option<&IdempotentRequest>,
    ) -> DomainResult<Effect> {
        self.change_project(by, id, key, Change::Upgrade(upgrade))
            .await
    }

    async fn change_project(
        &self,
        by: &PartnerCaller,
        id: ProjectId,
        key: Option<&IdempotentRequest>,
        change: Change<'_>,
    ) -> DomainResult<Effect> {
        let (partner, kind) = (&by.partner.id, change.kind());
        let mut tx = self.db().begin().await?;
        self.take_key(&mut tx, partner, key).await?;
        let project = self.lock_own_project(&mut tx, by, id).await?;
        let effect = if let Some(data) = change.plan(&project)? {
            self.check_idle(&mut tx, id).await?;
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
                let plan = accounts::lock_organization(&mut tx, organization).await?;
                self.check_plan(&mut tx, by, user, organization, plan)
                    .await?;
            }
            if let Some(status) = kind.transitional_status() {
                self.enter(&mut tx, &project, status).await?;
            }
            if let Change::Restart {
                release: Some(release),
            } = change
            {
                projects::set_release(&mut tx, id, release).await?;
            }
            let (actor, request) = (by.actor(), by.caller.request_id.as_str());
            let operation = self
                .begin_operation(&mut tx, id, kind, &actor, request, data)
                .await?;
            self.audit_project(&mut tx, by, audit_action(kind), id)
                .await?;
            Effect::Operation {
                project: id,
                operation,
            }
        } else {
            Effect::Project(id)
        };
        self.note_effect(&mut tx, partner, key, effect).await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(effect)
    }

    /// Ends access at once; the worker reclaims what the project had. An operation in flight is
    /// cancelled. The row stays, for usage and audit.
    pub async fn delete_project(
        &self,
        by: &PartnerCaller,
        id: ProjectId,
        key: Option<&IdempotentRequest>,
    ) -> DomainResult<Effect> {
        let partner = &by.partner.id;
        let mut tx = self.db().begin().await?;
        self.take_key(&mut tx, partner, key).await?;
        let project = self.lock_own_project(&mut tx, by, id).await?;
        let request_id = by.caller.request_id.as_str();
        self.begin_delete(&mut tx, &project, &by.actor(), request_id)
            .await?;
        let action = audit_action(OperationKind::Delete);
        self.audit_project(&mut tx, by, action, id).await?;
        let effect = Effect::Project(id);
        self.note_effect(&mut tx, partner, key, effect).await?;
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

    async fn lock_own_project(
        &self,
        conn: &mut PgConnection,
        by: &PartnerCaller,
        id: ProjectId,
    ) -> DomainResult<Project> {
        projects::lock_partner_project(conn, &by.partner.id, id)
            .await?
            .filter(|p| p.user_id.is_none() || by.partner.co_branded)
            .ok_or(DomainError::NotFound(Thing::Project))
    }

    /// Invariant 2, told before the index has to: the caller holds the project's row lock.
    async fn check_idle(&self, conn: &mut PgConnection, id: ProjectId) -> DomainResult<()> {
        match operations::find_in_flight(conn, id).await? {
            Some(running) => Err(DomainError::OperationInProgress {
                operation_id: running.id,
                kind: running.kind,
            }),
            None => Ok(()),
        }
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
    }
}
