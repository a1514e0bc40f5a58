//! Making projects: `sync-project` for a partner's people, `sync-embedded-project` for partners, and what people make
//! themselves.

use cp_model::catalogue::DEFAULT_VOLUME_GIB;
use cp_model::{
    InstanceType, MachineSize, OperationId, OperationKind, OrganizationId, Plan, ProjectId, Region,
    UserId, field,
};
use cp_storage::operations::NewOperation;
use cp_storage::projects::NewProject;
use cp_storage::{
    PgConnection, StorageError, operations, organizations, partners, projects, wakeups,
};
use cp_tokens::secret::app_key;
use serde_json::{Map, Value, json};

use crate::context::{IdempotentRequest, PartnerCaller, ProjectCaller, UserCaller};
use crate::{ControlPlane, DomainError, DomainResult, Effect, Thing};

/// What a partner asks for.
#[derive(Debug, Clone)]
pub struct ProjectRequest {
    pub name: String,
    pub region: Region,
    pub instance_type: InstanceType,
    pub external_id: Option<String>,
    pub metadata: Option<Map<String, Value>>,
}

impl ControlPlane {
    /// The person's live project of this name through this partner; made if there is none and
    /// the plan has room.
    pub async fn sync_project(
        &self,
        by: &PartnerCaller,
        user: UserId,
        request: &ProjectRequest,
        key: Option<&IdempotentRequest>,
    ) -> DomainResult<Effect> {
        let name = field::project_name("project_name", &request.name)?;
        let partner = &by.partner.id;
        let mut tx = self.db().begin().await?;
        self.take_key(&mut tx, partner, key).await?;
        if !partners::is_connected(&mut tx, partner, user).await? {
            return Err(DomainError::NotFound(Thing::User));
        }
        // The lock makes both rules hold under concurrency: one project of a name, no more than
        // the plan allows.
        let (organization, plan) = organizations::lock_personal_organization(&mut tx, user)
            .await?
            .ok_or_else(|| {
                DomainError::internal(format!("user {user} has no personal organization"))
            })?;
        let existing = projects::find_synced(&mut tx, partner, user, &name).await?;
        let project = if let Some(existing) = existing {
            existing.id
        } else {
            self.check_plan_for_partner(&mut tx, by, user, organization, plan)
                .await?;
            let request = ProjectRequest {
                name,
                ..request.clone()
            };
            let by = ProjectCaller::Partner(by, key);
            self.insert_project(&mut tx, by, organization, Some(user), &request)
                .await?
                .ok_or_else(|| {
                    DomainError::internal("a synced project appeared under the organization's lock")
                })?
        };
        let effect = Effect::Project(project);
        self.note_effect(&mut tx, partner, key, effect).await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(effect)
    }

    /// A new project of the partner's own; with an `external_id`, the one that has it already.
    pub async fn sync_embedded_project(
        &self,
        by: &PartnerCaller,
        request: &ProjectRequest,
        key: Option<&IdempotentRequest>,
    ) -> DomainResult<Effect> {
        let request = ProjectRequest {
            name: field::project_name("project_name", &request.name)?,
            external_id: request
                .external_id
                .as_deref()
                .map(|id| field::external_id("external_id", id))
                .transpose()?,
            ..request.clone()
        };
        if let Some(metadata) = &request.metadata {
            field::metadata("metadata", metadata)?;
        }
        let partner = &by.partner.id;
        let mut tx = self.db().begin().await?;
        self.take_key(&mut tx, partner, key).await?;
        let organization = by.partner.organization_id;
        let inserted = self
            .insert_project(
                &mut tx,
                ProjectCaller::Partner(by, key),
                organization,
                None,
                &request,
            )
            .await?;
        let project = if let Some(id) = inserted {
            id
        } else {
            // The unique index made us wait for whoever else was making it.
            let external_id = request.external_id.as_deref().unwrap_or_default();
            projects::find_by_external_id(&mut tx, partner, external_id)
                .await?
                .ok_or(DomainError::Unavailable)?
                .id
        };
        let effect = Effect::Project(project);
        self.note_effect(&mut tx, partner, key, effect).await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(effect)
    }

    /// A new project in an organization that the person belongs to.
    pub async fn create_project(
        &self,
        by: &UserCaller,
        organization: OrganizationId,
        request: &ProjectRequest,
    ) -> DomainResult<ProjectId> {
        let request = ProjectRequest {
            name: field::project_name("name", &request.name)?,
            ..request.clone()
        };
        let mut tx = self.db().begin().await?;
        self.find_member_role(&mut tx, by, organization).await?;
        let plan = organizations::lock_organization(&mut tx, organization).await?;
        // They may have been removed between the look and the lock.
        self.find_member_role(&mut tx, by, organization).await?;
        self.check_plan(&mut tx, organization, plan).await?;
        let caller = ProjectCaller::Person(by);
        let id = self
            .insert_project(&mut tx, caller, organization, Some(by.user.id), &request)
            .await?
            .ok_or_else(|| DomainError::internal("a new project was there"))?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(id)
    }

    /// Refuses what would take more than the plan's places. The caller holds the organization's lock.
    pub(crate) async fn check_plan(
        &self,
        conn: &mut PgConnection,
        organization: OrganizationId,
        plan: Plan,
    ) -> DomainResult<()> {
        let Some(limit) = plan.project_limit() else {
            return Ok(());
        };
        if projects::count_against_plan(conn, organization).await? < i64::from(limit) {
            return Ok(());
        }
        Err(DomainError::ProjectLimitReached {
            message: plan.limit_message(limit),
            candidates: Vec::new(),
        })
    }

    /// The same; a partner is told which of the person's projects it could be given instead.
    pub(crate) async fn check_plan_for_partner(
        &self,
        conn: &mut PgConnection,
        by: &PartnerCaller,
        user: UserId,
        organization: OrganizationId,
        plan: Plan,
    ) -> DomainResult<()> {
        match self.check_plan(conn, organization, plan).await {
            Err(DomainError::ProjectLimitReached { message, .. }) => {
                let candidates = self.user_projects(conn, &by.partner, user).await?;
                Err(DomainError::ProjectLimitReached {
                    message,
                    candidates,
                })
            }
            checked => checked,
        }
    }

    /// The project, its secrets, its operation and the wake-up. None: a unique index has it.
    async fn insert_project(
        &self,
        conn: &mut PgConnection,
        by: ProjectCaller<'_>,
        organization: OrganizationId,
        user: Option<UserId>,
        request: &ProjectRequest,
    ) -> DomainResult<Option<ProjectId>> {
        let now = self.now();
        let id = ProjectId::generate();
        let app_key = app_key();
        let metadata = request.metadata.clone().map(Value::Object);
        let new = NewProject {
            id,
            organization_id: organization,
            partner_id: match by {
                ProjectCaller::Partner(by, _) => Some(&by.partner.id),
                ProjectCaller::Person(_) => None,
            },
            user_id: user,
            parent_id: None,
            external_id: request.external_id.as_deref(),
            name: &request.name,
            app_key: &app_key,
            region: request.region,
            size: MachineSize {
                instance_type: request.instance_type,
                volume_gib: DEFAULT_VOLUME_GIB,
            },
            metadata: metadata.as_ref(),
            now,
        };
        if !projects::insert_project(conn, &new).await? {
            return Ok(None);
        }
        self.make_secrets(conn, id).await?;
        let (actor, request_id) = (by.actor(), by.request_id());
        let kind = OperationKind::Provision;
        self.begin_operation(conn, id, kind, &actor, request_id, json!({}))
            .await?;
        let audited = (id, organization);
        self.audit_project(conn, by, "project.created", audited, json!({}))
            .await?;
        Ok(Some(id))
    }

    /// Queues an operation and sends its wake-up, in the caller's transaction.
    pub(crate) async fn begin_operation(
        &self,
        conn: &mut PgConnection,
        project: ProjectId,
        kind: OperationKind,
        requested_by: &str,
        request_id: &str,
        data: Value,
    ) -> DomainResult<OperationId> {
        let id = OperationId::generate();
        let new = NewOperation {
            id,
            project_id: project,
            kind,
            first_step: kind.first_step(),
            data,
            requested_by,
            request_id,
            now: self.now(),
        };
        match operations::insert_operation(conn, &new).await {
            Ok(()) => {}
            Err(error) if error.is_unique_violation_of("operations_in_flight_key") => {
                // Cannot happen while callers hold the project's row lock; the index is the last word.
                return Err(DomainError::Unavailable);
            }
            Err(error) => return Err(error.into()),
        }
        wakeups::push(conn, id).await?;
        Ok(id)
    }
}
