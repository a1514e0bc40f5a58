//! What people see of their organizations' projects, and what they do to them besides running them
//! (`crate::lifecycle`): rename, give away.

use std::time::Duration;

use chrono::{DateTime, Utc};
use cp_model::{
    Failure, FieldError, FieldResult, InstanceType, MachineSize, OperationKind, OrganizationId,
    Plan, Project, ProjectId, ProjectStatus, Region, field,
};
use cp_storage::notifications::Topic;
use cp_storage::projects::{AtMost, MemberProjectView};
use cp_storage::{PgConnection, StorageError, branches, organizations, project_secrets, projects};
use secrecy::SecretString;
use serde_json::json;
use tokio::time::Instant;

use super::OrganizationError;
use crate::branches::BranchError;
use crate::context::{ProjectCaller, UserCaller};
use crate::lifecycle::{SizeFields, Upgrade};
use crate::operations::held;
use crate::secrets::{SecretName, open};
use crate::{ControlPlane, DomainError, DomainResult, Page, Thing};

/// The smallest disk that people can ask for, in GiB (contract/platform-api.md 9.2).
const LEAST_DISK: i32 = 8;

const FIELDS: SizeFields = SizeFields {
    instance_type: "instanceType",
    volume_gib: "storageDiskSize",
};

/// A project as its people see it.
#[derive(Debug, Clone)]
pub struct MemberProject {
    pub id: ProjectId,
    pub organization_id: OrganizationId,
    /// The project that it is a branch of.
    pub parent_id: Option<ProjectId>,
    pub name: String,
    pub app_key: String,
    pub region: Region,
    pub size: MachineSize,
    pub status: ProjectStatus,
    pub failure: Option<Failure>,
    pub access_host: Option<String>,
    pub customized_domain: Option<String>,
    /// What the backend says that it is, as in `2.2.2`; none until it has said so.
    pub service_version: Option<String>,
    /// The work in flight, in the wire's words; none: nothing is being done to it.
    pub operation_status: Option<&'static str>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl MemberProject {
    fn of(view: MemberProjectView) -> DomainResult<Self> {
        let kind = view.operation.map(|kind| kind.parse());
        let kind = kind.transpose().map_err(DomainError::internal)?;
        Ok(Self {
            id: view.id,
            organization_id: view.organization_id,
            parent_id: view.parent_id,
            name: view.name,
            app_key: view.app_key,
            region: view.region,
            size: MachineSize {
                instance_type: view.instance_type,
                volume_gib: view.volume_gib,
            },
            status: view.status,
            failure: view.failure,
            access_host: view.access_host,
            customized_domain: view.customized_domain,
            service_version: view
                .version
                .map(|version| match version.strip_prefix(['v', 'V']) {
                    Some(bare) => bare.to_owned(),
                    None => version,
                }),
            operation_status: kind.map(|kind| words(kind, view.changes_release)),
            created_at: view.created_at,
            updated_at: view.updated_at,
        })
    }
}

/// What contract/platform-api.md 9.1 calls what is being done to a project.
const fn words(kind: OperationKind, changes_release: bool) -> &'static str {
    match kind {
        OperationKind::Provision | OperationKind::CreateBranch => "provisioning",
        OperationKind::Rebuild => "rebuilding",
        OperationKind::Pause => "pausing",
        OperationKind::Restore => "restoring",
        OperationKind::Restart if changes_release => "updating_project_version",
        OperationKind::Restart => "restarting",
        OperationKind::Upgrade => "upgrading_instance_type",
        OperationKind::Delete => "deleting",
        OperationKind::ResetBranch => "resetting_branch",
        OperationKind::MergeBranch => "merging_branch",
        OperationKind::RebaseBranch => "rebasing_branch",
        OperationKind::Backup => "backing_up",
        OperationKind::RestoreBackup => "restoring_backup",
    }
}

/// What of a project shall change; at least one.
#[derive(Debug, Clone, Default)]
pub struct ProjectUpdate {
    pub name: Option<String>,
    /// Empty: none any more.
    pub customized_domain: Option<String>,
    /// In GiB, 8 to 16384; a disk only grows.
    pub storage_disk_size: Option<i64>,
}

impl Upgrade {
    /// The machine size that people ask for.
    pub fn to_instance_type(instance_type: InstanceType) -> FieldResult<Self> {
        Self::new(Some(instance_type), None, LEAST_DISK, FIELDS)
    }
}

impl ControlPlane {
    /// A project of one of the person's organizations. The hot path: one statement.
    pub async fn member_project(
        &self,
        by: &UserCaller,
        id: ProjectId,
    ) -> DomainResult<MemberProject> {
        let mut conn = self.db().acquire_for_one().await?;
        let view = projects::find_member_view(&mut conn, by.user.id, id).await?;
        conn.done();
        MemberProject::of(view.ok_or(DomainError::NotFound(Thing::Project))?)
    }

    /// An organization's projects, oldest first: all of them, or a page.
    pub async fn list_organization_projects(
        &self,
        by: &UserCaller,
        organization: OrganizationId,
        after: Option<ProjectId>,
        limit: Option<u32>,
    ) -> DomainResult<Page<MemberProject>> {
        let mut conn = self.db().acquire_for_one().await?;
        let user = by.user.id;
        let at_most = AtMost::for_page_of(limit);
        let views =
            projects::list_member_views(&mut conn, user, organization, after, at_most).await?;
        conn.done();
        // Members alone find any; of none it is not known whose they are not.
        if views.is_empty() {
            let mut conn = self.db().acquire().await?;
            self.find_member_role(&mut conn, by, organization).await?;
        }
        let size = limit.map_or(usize::MAX, |limit| limit as usize);
        let more = views.len() > size;
        let items: DomainResult<Vec<_>> = views
            .into_iter()
            .take(size)
            .map(MemberProject::of)
            .collect();
        let items = items?;
        let next = items.last().filter(|_| more).map(|last| last.id);
        Ok(Page { items, next })
    }

    /// The project once its status has settled, or as it is when the time is up.
    pub async fn wait_for_member_project(
        &self,
        by: &UserCaller,
        id: ProjectId,
        at_most: Duration,
    ) -> DomainResult<MemberProject> {
        let until = Instant::now() + at_most;
        let mut changes = self
            .db()
            .notifications()
            .subscribe(Topic::Projects, &id.to_string());
        loop {
            let seen = self.member_project(by, id).await?;
            let is_settled = !seen.status.is_transitional();
            if is_settled
                || tokio::time::timeout_at(until, changes.changed())
                    .await
                    .is_err()
            {
                return if is_settled {
                    Ok(seen)
                } else {
                    // One last look: what came with the last moment counts.
                    self.member_project(by, id).await
                };
            }
        }
    }

    /// The key with which everything can be done to the project's backend.
    pub async fn access_api_key(
        &self,
        by: &UserCaller,
        id: ProjectId,
    ) -> DomainResult<SecretString> {
        let mut conn = self.db().acquire().await?;
        let project = self
            .find_own_project(&mut conn, ProjectCaller::Person(by), id)
            .await?;
        let name = SecretName::ApiKey;
        let sealed = project_secrets::find_secret(&mut conn, project.id, name.as_str())
            .await?
            .ok_or_else(|| DomainError::internal(format!("project {id} has no API key")))?;
        open(self.sealer(), id, name, &sealed)
    }

    /// Renames a project, names its domain, grows its disk: all of what is given, or nothing. A bigger disk costs
    /// money, so it takes an administrator.
    pub async fn update_project(
        &self,
        by: &UserCaller,
        id: ProjectId,
        update: &ProjectUpdate,
    ) -> DomainResult<()> {
        let ProjectUpdate {
            name,
            customized_domain,
            storage_disk_size,
        } = update;
        if name.is_none() && customized_domain.is_none() && storage_disk_size.is_none() {
            let rule = "or customizedDomain or storageDiskSize must be given";
            return Err(FieldError::new("name", rule).into());
        }
        let name = name
            .as_deref()
            .map(|name| field::project_name("name", name));
        let name = name.transpose()?;
        let domain = customized_domain.as_deref().map(|domain| match domain {
            "" => Ok(String::new()),
            domain => field::host_name("customizedDomain", domain),
        });
        let domain = domain.transpose()?;
        let disk = storage_disk_size.map(|gib| Upgrade::new(None, Some(gib), LEAST_DISK, FIELDS));
        let disk = disk.transpose()?;
        let mut tx = self.db().begin().await?;
        let caller = ProjectCaller::Person(by);
        let project = self.lock_own_project(&mut tx, caller, id).await?;
        if name.is_some() && project.partner_id.is_some() {
            // The partner finds it by its name.
            return Err(OrganizationError::ThroughPartner("rename it").into());
        }
        if name.is_some() && project.parent_id.is_some() {
            let rule = "cannot be changed for a branch: it is found by its name";
            return Err(FieldError::new("name", rule).into());
        }
        if name.is_some() || domain.is_some() {
            let (name, domain) = (name.as_deref(), domain.as_deref());
            held(projects::update_project(&mut tx, id, name, domain, self.now()).await?)?;
            let details = json!({ "name": name, "customized_domain": domain });
            let audited = (id, project.organization_id);
            self.audit_project(&mut tx, caller, "project.updated", audited, details)
                .await?;
        }
        if let Some(disk) = disk {
            self.begin_upgrade(&mut tx, caller, &project, disk).await?;
        }
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }

    /// Gives a project, and its branches with it, to another organization. Takes an administrator of both.
    pub async fn transfer_project(
        &self,
        by: &UserCaller,
        id: ProjectId,
        target: OrganizationId,
    ) -> DomainResult<()> {
        let mut tx = self.db().begin().await?;
        let caller = ProjectCaller::Person(by);
        let project = self.lock_own_project(&mut tx, caller, id).await?;
        let source = project.organization_id;
        if project.parent_id.is_some() {
            let text = "a branch goes with its parent; transfer that one";
            return Err(BranchError::NotReady(text.into()).into());
        }
        self.require_administrator(&mut tx, by, source).await?;
        if project.partner_id.is_some() {
            // It would go on reading its key, and signing people in to it.
            return Err(OrganizationError::ThroughPartner("transfer it").into());
        }
        self.require_administrator(&mut tx, by, target).await?;
        if source == target {
            return Ok(());
        }
        // By id, so that two transfers in opposite directions wait for each other once.
        let mut both = [source, target];
        both.sort();
        for organization in both {
            organizations::lock_organization(&mut tx, organization).await?;
        }
        self.require_administrator(&mut tx, by, source).await?;
        let plan = organizations::lock_organization(&mut tx, target).await?;
        self.require_administrator(&mut tx, by, target).await?;
        self.make_way(&mut tx, id).await?;
        if project.status.counts_against_plan() {
            self.check_plan(&mut tx, target, plan).await?;
        }
        self.check_room_for_branches(&mut tx, &project, target)
            .await?;
        held(projects::set_organization(&mut tx, id, target, self.now()).await? > 0)?;
        projects::delete_shares(&mut tx, id).await?;
        let details = json!({ "from": source, "to": target });
        for organization in both {
            let audited = (id, organization);
            let action = "project.transferred";
            self.audit_project(&mut tx, caller, action, audited, details.clone())
                .await?;
        }
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }

    /// Refuses people what costs money where nobody pays for it.
    pub(crate) async fn check_may_grow(
        &self,
        conn: &mut PgConnection,
        by: &UserCaller,
        project: &Project,
    ) -> DomainResult<()> {
        if project.partner_id.is_some() {
            return Err(OrganizationError::ThroughPartner("change its size").into());
        }
        let organization = self
            .find_own_organization(conn, by, project.organization_id)
            .await?;
        match organization.plan {
            Plan::Free => Err(OrganizationError::PlanTooSmall(Plan::Free).into()),
            Plan::Pro | Plan::Partner => Ok(()),
        }
    }

    /// A project that has branches takes one of the places for such in its organization.
    async fn check_room_for_branches(
        &self,
        conn: &mut PgConnection,
        project: &Project,
        target: OrganizationId,
    ) -> DomainResult<()> {
        let most = self.settings().branches.parents_per_organization;
        if branches::list_branches(conn, project.id).await?.is_empty() {
            return Ok(());
        }
        let others = branches::count_other_parents(conn, target, project.id).await?;
        if others < i64::from(most) {
            return Ok(());
        }
        let text = format!(
            "{most} projects of that organization have branches, which is as many as may have; delete this project's branches first"
        );
        Err(BranchError::QuotaExceeded(text).into())
    }
}
