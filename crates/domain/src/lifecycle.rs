//! What a partner does to a project that exists: pause, restore, restart, delete.

use cp_model::{Failure, OperationKind, Project, ProjectId, ProjectStatus, field};
use cp_storage::{PgConnection, StorageError, accounts, machines, operations, projects};
use serde_json::json;

use crate::context::{IdempotentRequest, PartnerCaller};
use crate::{ControlPlane, DomainError, DomainResult, Effect, Thing};

impl ControlPlane {
    /// Stops the machine, keeps the disk. Nothing to do for a paused project.
    pub async fn pause_project(
        &self,
        by: &PartnerCaller,
        id: ProjectId,
        key: Option<&IdempotentRequest>,
    ) -> DomainResult<Effect> {
        self.change_project(by, id, key, OperationKind::Pause, None)
            .await
    }

    /// Starts the machine of a paused project. Nothing to do for an active one.
    pub async fn restore_project(
        &self,
        by: &PartnerCaller,
        id: ProjectId,
        key: Option<&IdempotentRequest>,
    ) -> DomainResult<Effect> {
        self.change_project(by, id, key, OperationKind::Restore, None)
            .await
    }

    /// Restarts the backend, with another release if one is named.
    pub async fn restart_project(
        &self,
        by: &PartnerCaller,
        id: ProjectId,
        release: Option<&str>,
        key: Option<&IdempotentRequest>,
    ) -> DomainResult<Effect> {
        let release = release
            .map(|r| field::release("insforge_oss_version", r))
            .transpose()?;
        self.change_project(by, id, key, OperationKind::Restart, release.as_deref())
            .await
    }

    async fn change_project(
        &self,
        by: &PartnerCaller,
        id: ProjectId,
        key: Option<&IdempotentRequest>,
        kind: OperationKind,
        release: Option<&str>,
    ) -> DomainResult<Effect> {
        let partner = &by.partner.id;
        let mut tx = self.db().begin().await?;
        self.take_key(&mut tx, partner, key).await?;
        let project = self.lock_own_project(&mut tx, by, id).await?;
        // A restart always does something; the others only bring about a status.
        let nothing_to_do = kind != OperationKind::Restart && project.status == kind.final_status();
        if !nothing_to_do {
            self.check_idle(&mut tx, id).await?;
            if !kind.starts_from().contains(&project.status) {
                return Err(DomainError::WrongStatus {
                    verb: past_tense(kind),
                    status: project.status,
                });
            }
            if let (OperationKind::Restore, Some(user)) = (kind, project.user_id) {
                // A paused project gave its place away; it needs one again.
                let organization = project.organization_id;
                let plan = accounts::lock_organization(&mut tx, organization).await?;
                self.check_plan(&mut tx, by, user, organization, plan)
                    .await?;
            }
            self.enter(&mut tx, &project, kind.transitional_status())
                .await?;
            if let Some(release) = release {
                projects::set_release(&mut tx, id, release).await?;
            }
            let actor = by.actor();
            self.begin_operation(
                &mut tx,
                id,
                kind,
                &actor,
                by.caller.request_id.as_str(),
                json!({}),
            )
            .await?;
            self.audit_project(&mut tx, by, audit_action(kind), id)
                .await?;
        }
        let effect = Effect::Project(id);
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
        if let Some(running) = operations::find_in_flight(&mut tx, id).await? {
            let reason = Failure::new("project_deleted", "the project was deleted while this ran");
            operations::mark_cancelled(&mut tx, running.id, &reason, self.now()).await?;
        }
        self.enter(&mut tx, &project, ProjectStatus::Deleting)
            .await?;
        if let Some(machine) = machines::find_project_machine(&mut tx, id).await? {
            // The agent stops the backend at once: terminating a machine may take minutes.
            machines::bump_desired(&mut tx, machine.id).await?;
        }
        let (kind, actor) = (OperationKind::Delete, by.actor());
        self.begin_operation(
            &mut tx,
            id,
            kind,
            &actor,
            by.caller.request_id.as_str(),
            json!({}),
        )
        .await?;
        self.audit_project(&mut tx, by, audit_action(kind), id)
            .await?;
        let effect = Effect::Project(id);
        self.note_effect(&mut tx, partner, key, effect).await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(effect)
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
        OperationKind::Delete => "deleted",
        OperationKind::Rebuild => "rebuilt",
    }
}

const fn audit_action(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Provision => "project.created",
        OperationKind::Pause => "project.paused",
        OperationKind::Restore => "project.restored",
        OperationKind::Restart => "project.restarted",
        OperationKind::Delete => "project.deleted",
        OperationKind::Rebuild => "project.rebuilt",
    }
}
