//! What partners read: projects, their keys where they may, operations.

use std::time::Duration;

use cp_model::{
    Operation, OperationId, OperationKind, OperationState, Partner, Project, ProjectId,
    ProjectStatus, UserId,
};
use cp_storage::notifications::Topic;
use cp_storage::{PgConnection, operations, partners, project_secrets, projects};
use secrecy::SecretString;
use tokio::time::Instant;

use crate::secrets::{SecretName, open};
use crate::{ControlPlane, DomainError, DomainResult, Thing};

/// A project as a partner may see it.
pub struct ProjectAccess {
    pub project: Project,
    /// None: made through somebody else and not shared, so host and key stay hidden.
    pub access: Option<Access>,
}

impl std::fmt::Debug for ProjectAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProjectAccess")
            .field("id", &self.project.id)
            .finish_non_exhaustive()
    }
}

pub struct Access {
    pub api_key: SecretString,
}

/// A partner's own project with everything that `metadata` tells.
pub struct ProjectView {
    pub project: Project,
    pub api_key: SecretString,
    pub operation: Option<OperationSummary>,
}

/// The work in flight on a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationSummary {
    pub id: OperationId,
    pub kind: OperationKind,
    pub state: OperationState,
}

#[derive(Debug, Clone)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Where the next page begins; none: this is the last one.
    pub next: Option<ProjectId>,
}

impl ControlPlane {
    /// A live project made through the partner. The hot path: one statement.
    pub async fn project_view(
        &self,
        partner: &Partner,
        id: ProjectId,
    ) -> DomainResult<ProjectView> {
        let mut conn = self.db().acquire_for_one().await?;
        let view = projects::find_partner_project_view(&mut conn, &partner.id, id).await?;
        conn.done();
        let view = view.ok_or(DomainError::NotFound(Thing::Project))?;
        let sealed = view
            .api_key_sealed
            .ok_or_else(|| DomainError::internal(format!("project {id} has no API key")))?;
        let operation = view
            .operation
            .map(|o| {
                Ok::<_, DomainError>(OperationSummary {
                    id: OperationId(o.id),
                    kind: o.kind.parse().map_err(DomainError::internal)?,
                    state: o.state.parse().map_err(DomainError::internal)?,
                })
            })
            .transpose()?;
        Ok(ProjectView {
            api_key: open(self.sealer(), id, SecretName::ApiKey, &sealed)?,
            project: view.project,
            operation,
        })
    }

    /// A live project of a connected person's own organization, whoever made it.
    pub async fn user_project_view(
        &self,
        partner: &Partner,
        user: UserId,
        id: ProjectId,
    ) -> DomainResult<ProjectAccess> {
        let mut conn = self.db().acquire().await?;
        if !partners::is_connected(&mut conn, &partner.id, user).await? {
            return Err(DomainError::NotFound(Thing::Project));
        }
        let project = projects::find_home_project(&mut conn, user, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::Project))?;
        self.with_access(&mut conn, partner, project).await
    }

    /// The person's live projects, to choose from.
    pub(crate) async fn user_projects(
        &self,
        conn: &mut PgConnection,
        partner: &Partner,
        user: UserId,
    ) -> DomainResult<Vec<ProjectAccess>> {
        let mut seen = Vec::new();
        for project in projects::list_home_projects(conn, user).await? {
            seen.push(self.with_access(conn, partner, project).await?);
        }
        Ok(seen)
    }

    /// Adds the key if the partner may have it: an e-mail address alone must not let a partner
    /// read the keys of a stranger's projects.
    async fn with_access(
        &self,
        conn: &mut PgConnection,
        partner: &Partner,
        project: Project,
    ) -> DomainResult<ProjectAccess> {
        let may_read = partner.trusted
            || project.partner_id.as_ref() == Some(&partner.id)
            || projects::is_shared(conn, &partner.id, project.id).await?;
        let access = if may_read {
            let name = SecretName::ApiKey;
            let sealed = project_secrets::find_secret(conn, project.id, name.as_str())
                .await?
                .ok_or_else(|| {
                    DomainError::internal(format!("project {} has no API key", project.id))
                })?;
            Some(Access {
                api_key: open(self.sealer(), project.id, name, &sealed)?,
            })
        } else {
            None
        };
        Ok(ProjectAccess { project, access })
    }

    /// The project once its status has settled, or as it is when the time is up.
    pub async fn wait_for_status(
        &self,
        partner: &Partner,
        id: ProjectId,
        settled: impl Fn(ProjectStatus) -> bool + Send,
        at_most: Duration,
    ) -> DomainResult<ProjectView> {
        let until = Instant::now() + at_most;
        let mut changes = self
            .db()
            .notifications()
            .subscribe(Topic::Projects, &id.to_string());
        loop {
            let view = self.project_view(partner, id).await?;
            if settled(view.project.status) {
                return Ok(view);
            }
            if tokio::time::timeout_at(until, changes.changed())
                .await
                .is_err()
            {
                // One last look: what came with the last moment counts.
                return self.project_view(partner, id).await;
            }
        }
    }

    pub async fn list_partner_projects(
        &self,
        partner: &Partner,
        after: Option<ProjectId>,
        status: Option<ProjectStatus>,
        limit: u32,
    ) -> DomainResult<Page<Project>> {
        let mut conn = self.db().acquire().await?;
        let size = usize::try_from(limit).unwrap_or(1);
        let mut items = projects::list_partner_projects(
            &mut conn,
            &partner.id,
            after,
            status,
            i64::from(limit) + 1,
        )
        .await?;
        let more = items.len() > size;
        items.truncate(size);
        let next = if more {
            items.last().map(|p| p.id)
        } else {
            None
        };
        Ok(Page { items, next })
    }

    /// An operation on one of the partner's projects; waits up to `wait` for its end.
    pub async fn partner_operation(
        &self,
        partner: &Partner,
        id: OperationId,
        wait: Duration,
    ) -> DomainResult<Operation> {
        let until = Instant::now() + wait;
        let mut operation = self.find_partner_operation(partner, id).await?;
        let mut changes = self
            .db()
            .notifications()
            .subscribe(Topic::Projects, &operation.project_id.to_string());
        while operation.state.is_in_flight() && Instant::now() < until {
            operation = self.find_partner_operation(partner, id).await?;
            if !operation.state.is_in_flight()
                || tokio::time::timeout_at(until, changes.changed())
                    .await
                    .is_err()
            {
                break;
            }
        }
        if operation.state.is_in_flight() && !wait.is_zero() {
            operation = self.find_partner_operation(partner, id).await?;
        }
        Ok(operation)
    }

    async fn find_partner_operation(
        &self,
        partner: &Partner,
        id: OperationId,
    ) -> DomainResult<Operation> {
        let mut conn = self.db().acquire().await?;
        operations::find_partner_operation(&mut conn, &partner.id, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::Operation))
    }
}
