//! Branches: copies of a whole backend, to be changed and merged back (contract/branching.md). Who may
//! do something to a project may do it to its branches.
//!
//! Rows are locked in the house's one order, with the parent before the branch: parent project,
//! organization, branch project, operation, machine.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::{
    Branch, BranchCopies, BranchMode, BranchState, Failure, FieldError, MachineId, MergeDirection,
    OperationId, OperationKind, Project, ProjectId, ProjectStatus, WebhookEventType, field,
};
use cp_storage::branches::NewBranch;
use cp_storage::projects::NewProject;
use cp_storage::{
    PgConnection, branch_comparisons, branches, machines, operations, organizations, projects,
};
use cp_tokens::secret::app_key;
use serde_json::{Value, json};

use crate::backups::SCHEDULE;
use crate::context::ProjectCaller;
use crate::operations::{Lease, commit, held, lock};
use crate::{ControlPlane, DomainError, DomainResult, Effect, Thing};

/// How long before a branch expires its owner is told.
const WARNING: TimeDelta = TimeDelta::hours(24);

/// A branch as its caller names it. Partners name the parent, too; it must be that one.
#[derive(Debug, Clone, Copy)]
pub struct BranchRef {
    pub parent: Option<ProjectId>,
    pub branch: ProjectId,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct BranchRequest {
    pub name: String,
    pub mode: BranchMode,
    /// When it shall be deleted by itself.
    pub expires_at: Option<DateTime<Utc>>,
}

/// What only branches refuse; the codes are those of contract/branching.md, "Errors".
#[derive(Debug, thiserror::Error)]
pub enum BranchError {
    #[error(transparent)]
    InvalidName(FieldError),
    #[error("this project has a branch named {0} already; choose another name, or delete that one")]
    NameConflict(String),
    #[error("{0}")]
    QuotaExceeded(String),
    #[error("{0}")]
    ParentNotBranchable(String),
    #[error("the branch is {0}; wait for that to end, then try again")]
    Busy(BranchState),
    #[error("{0}")]
    NotReady(String),
}

/// How many branches there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BranchLimits {
    /// Projects of one organization that have live branches.
    pub parents_per_organization: u32,
    /// Live branches of one project.
    pub branches_per_parent: u32,
}

impl Default for BranchLimits {
    fn default() -> Self {
        Self {
            parents_per_organization: 3,
            branches_per_parent: 2,
        }
    }
}

/// How an operation on a branch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BranchEnd {
    Succeeded,
    /// Its project serves, though not with all that was asked for.
    TurnedBack,
    /// It is as it was before.
    PutBack,
    Failed,
}

impl ControlPlane {
    /// Makes a branch: listed from now on, `creating` until a worker has copied the parent.
    pub async fn create_branch(
        &self,
        by: ProjectCaller<'_>,
        parent: ProjectId,
        request: &BranchRequest,
    ) -> DomainResult<Branch> {
        let now = self.now();
        let name = field::branch_name("name", &request.name).map_err(BranchError::InvalidName)?;
        if request.expires_at.is_some_and(|at| at <= now) {
            return Err(FieldError::new("expires_at", "must be in the future").into());
        }
        let mut tx = self.db().begin().await?;
        self.take_key_of(&mut tx, by).await?;
        let parent = self.lock_own_project(&mut tx, by, parent).await?;
        check_branchable(&parent)?;
        // Under the organization's lock the limits hold, however many ask at once.
        organizations::lock_organization(&mut tx, parent.organization_id).await?;
        self.check_branch_limits(&mut tx, &parent, &name).await?;
        let id = ProjectId::generate();
        let new = NewProject {
            id,
            organization_id: parent.organization_id,
            partner_id: parent.partner_id.as_ref(),
            user_id: parent.user_id,
            parent_id: Some(parent.id),
            external_id: None,
            name: &name,
            app_key: &app_key(),
            region: parent.region,
            size: parent.size(),
            metadata: None,
            now,
        };
        if !projects::insert_project(&mut tx, &new).await? {
            return Err(DomainError::internal(format!("branch {id} was there")));
        }
        if let Some(release) = &parent.release {
            projects::set_release(&mut tx, id, release).await?;
        }
        self.make_branch_secrets(&mut tx, id, parent.id).await?;
        let branch = NewBranch {
            project: id,
            parent: parent.id,
            name: &name,
            mode: request.mode,
            expires_at: request.expires_at,
            now,
        };
        match branches::insert_branch(&mut tx, &branch).await {
            Ok(()) => {}
            Err(error) if error.is_unique_violation_of("branches_name_key") => {
                return Err(BranchError::NameConflict(name).into());
            }
            Err(error) => return Err(error.into()),
        }
        let (kind, actor) = (OperationKind::CreateBranch, by.actor());
        let operation = self
            .begin_operation(&mut tx, id, kind, &actor, by.request_id(), json!({}))
            .await?;
        let details = json!({ "parent": parent.id, "name": name, "mode": request.mode });
        let audited = (id, parent.organization_id);
        self.audit_project(&mut tx, by, "branch.created", audited, details)
            .await?;
        let effect = Effect::Operation {
            project: id,
            operation,
        };
        self.note_effect_of(&mut tx, by, effect).await?;
        let branch = find(&mut tx, id).await?;
        commit(tx).await?;
        Ok(branch)
    }

    /// The live branches of a project, oldest first.
    pub async fn list_branches(
        &self,
        by: ProjectCaller<'_>,
        parent: ProjectId,
    ) -> DomainResult<Vec<Branch>> {
        let mut conn = self.db().acquire().await?;
        let parent = self.find_own_project(&mut conn, by, parent).await?;
        Ok(branches::list_branches(&mut conn, parent.id).await?)
    }

    pub async fn find_branch(
        &self,
        by: ProjectCaller<'_>,
        branch: BranchRef,
    ) -> DomainResult<Branch> {
        let mut conn = self.db().acquire().await?;
        self.find_own_branch(&mut conn, by, branch).await
    }

    /// Gives the branch its first database again, under the same keys and address.
    pub async fn reset_branch(
        &self,
        by: ProjectCaller<'_>,
        branch: BranchRef,
    ) -> DomainResult<Branch> {
        let kind = OperationKind::ResetBranch;
        let (id, _) = self.begin_branch_work(by, branch, kind, json!({})).await?;
        let mut conn = self.db().acquire().await?;
        find(&mut conn, id).await
    }

    /// Begins to bring the branch's changes to its parent, or the parent's to the branch. Gives the
    /// operation to wait for.
    pub async fn begin_merge(
        &self,
        by: ProjectCaller<'_>,
        branch: BranchRef,
        options: &MergeOptions,
    ) -> DomainResult<OperationId> {
        let kind = match options.direction {
            MergeDirection::Merge => OperationKind::MergeBranch,
            MergeDirection::Rebase => OperationKind::RebaseBranch,
        };
        let data = json!({ "resolutions": options.resolutions, "online": options.online });
        let (_, operation) = self.begin_branch_work(by, branch, kind, data).await?;
        Ok(operation)
    }

    async fn begin_branch_work(
        &self,
        by: ProjectCaller<'_>,
        branch: BranchRef,
        kind: OperationKind,
        data: Value,
    ) -> DomainResult<(ProjectId, OperationId)> {
        let now = self.now();
        let mut tx = self.db().begin().await?;
        self.take_key_of(&mut tx, by).await?;
        let seen = self.find_own_branch(&mut tx, by, branch).await?;
        let id = seen.project.id;
        if kind != OperationKind::ResetBranch {
            let parent = lock(&mut tx, seen.parent_id).await?;
            check_branchable(&parent)?;
        }
        let project = lock(&mut tx, id).await?;
        let branch = self.find_own_branch(&mut tx, by, branch).await?;
        check_idle(&branch, &project)?;
        self.make_way(&mut tx, id).await?;
        if kind == OperationKind::MergeBranch {
            // pg_dump's locks would be in the merge's way.
            self.cancel_backup(&mut tx, seen.parent_id, |by| by == SCHEDULE)
                .await?;
        }
        let (state, action) = match kind {
            OperationKind::MergeBranch => (BranchState::Merging, "branch.merge_begun"),
            OperationKind::RebaseBranch => (BranchState::Merging, "branch.rebase_begun"),
            _ => (BranchState::Resetting, "branch.reset_begun"),
        };
        held(branches::mark_state(&mut tx, id, branch.state, state, now).await?)?;
        if let Some(status) = kind.transitional_status() {
            self.enter(&mut tx, &project, status).await?;
        }
        let details = data.clone();
        let operation = self
            .begin_operation(&mut tx, id, kind, &by.actor(), by.request_id(), data)
            .await?;
        let audited = (id, project.organization_id);
        self.audit_project(&mut tx, by, action, audited, details)
            .await?;
        let effect = Effect::Operation {
            project: id,
            operation,
        };
        self.note_effect_of(&mut tx, by, effect).await?;
        commit(tx).await?;
        Ok((id, operation))
    }

    /// Ends access at once; workers reclaim the machine and the copies.
    pub async fn delete_branch(
        &self,
        by: ProjectCaller<'_>,
        branch: BranchRef,
    ) -> DomainResult<ProjectId> {
        let mut tx = self.db().begin().await?;
        self.take_key_of(&mut tx, by).await?;
        let id = self.find_own_branch(&mut tx, by, branch).await?.project.id;
        let project = lock(&mut tx, id).await?;
        // It may have been deleted between the look and the lock.
        self.find_own_branch(&mut tx, by, branch).await?;
        let operation = self
            .begin_delete(&mut tx, &project, &by.actor(), by.request_id())
            .await?;
        let audited = (id, project.organization_id);
        self.audit_project(&mut tx, by, "branch.deleted", audited, json!({}))
            .await?;
        let effect = Effect::Operation {
            project: id,
            operation,
        };
        self.note_effect_of(&mut tx, by, effect).await?;
        commit(tx).await?;
        Ok(id)
    }

    async fn find_own_branch(
        &self,
        conn: &mut PgConnection,
        by: ProjectCaller<'_>,
        branch: BranchRef,
    ) -> DomainResult<Branch> {
        let BranchRef { parent, branch: id } = branch;
        let found = match by {
            ProjectCaller::Partner(by, _) => {
                let found = branches::find_partner_branch(conn, &by.partner.id, parent, id).await?;
                found.filter(|b| b.project.user_id.is_none() || by.partner.co_branded)
            }
            ProjectCaller::Person(by) => branches::find_user_branch(conn, by.user.id, id).await?,
        };
        found.ok_or(DomainError::NotFound(Thing::Branch))
    }

    /// The caller holds the organization's lock.
    async fn check_branch_limits(
        &self,
        conn: &mut PgConnection,
        parent: &Project,
        name: &str,
    ) -> DomainResult<()> {
        let limits = self.settings().branches;
        if limits.branches_per_parent == 0 || limits.parents_per_organization == 0 {
            let text = "this service makes no branches";
            return Err(BranchError::QuotaExceeded(text.into()).into());
        }
        let there = branches::list_branches(conn, parent.id).await?;
        if let Some(same) = there.iter().find(|b| b.name.eq_ignore_ascii_case(name)) {
            return Err(BranchError::NameConflict(same.name.clone()).into());
        }
        let most = limits.branches_per_parent;
        if there.len() >= most as usize {
            let text = format!(
                "this project has {most} branches, which is as many as it may have; delete one first"
            );
            return Err(BranchError::QuotaExceeded(text).into());
        }
        let most = limits.parents_per_organization;
        let others = branches::count_other_parents(conn, parent.organization_id, parent.id).await?;
        if there.is_empty() && others >= i64::from(most) {
            let text = format!(
                "{most} projects of this organization have branches, which is as many as may have; \
                 delete the branches of one first"
            );
            return Err(BranchError::QuotaExceeded(text).into());
        }
        Ok(())
    }

    /// What the end of an operation means to the branch, in the transaction that ends it. Tells
    /// whether the project's status is settled with it: a failed creation leaves nothing behind, and
    /// a failed merge leaves the branch as it was.
    pub(crate) async fn settle_branch(
        &self,
        conn: &mut PgConnection,
        project: &Project,
        kind: OperationKind,
        end: BranchEnd,
    ) -> DomainResult<bool> {
        let now = self.now();
        let Some(branch) = branches::find_branch(conn, project.id).await? else {
            return Ok(false);
        };
        let (to, is_settled) = match (kind, end) {
            // One that turned back serves with another release than was asked for; its database is new.
            (OperationKind::CreateBranch, BranchEnd::Succeeded)
            | (OperationKind::ResetBranch, BranchEnd::Succeeded | BranchEnd::TurnedBack) => {
                (BranchState::Ready, false)
            }
            (OperationKind::MergeBranch, BranchEnd::Succeeded) => {
                held(branches::set_merged_at(conn, project.id, now).await?)?;
                (BranchState::Merged, true)
            }
            (OperationKind::CreateBranch, _) => {
                self.begin_delete(conn, project, "system", "-").await?;
                return Ok(true);
            }
            (
                OperationKind::ResetBranch
                | OperationKind::MergeBranch
                | OperationKind::RebaseBranch,
                _,
            ) => {
                let previous = branches::find_previous_state(conn, project.id).await?;
                let is_settled = kind != OperationKind::ResetBranch;
                (previous.unwrap_or(BranchState::Ready), is_settled)
            }
            _ => return Ok(false),
        };
        if kind == OperationKind::RebaseBranch && end != BranchEnd::Succeeded {
            self.keep_new_base(conn, project.id).await?;
        }
        held(branches::mark_state(conn, project.id, branch.state, to, now).await?)?;
        // The project's status may stay as it is, and somebody waits for the end.
        operations::notify_project(conn, project.id).await?;
        Ok(is_settled)
    }

    /// A rebase that ends in its last step has changed the branch: that it was made from the parent as it is
    /// now must not be lost with it.
    async fn keep_new_base(&self, conn: &mut PgConnection, id: ProjectId) -> DomainResult<()> {
        let newest = operations::list_operations(conn, Some(id), None, 1).await?;
        if let Some(rebase) = newest.first().filter(|newest| newest.step == "adopt")
            && let Ok(copies) = serde_json::from_value(rebase.data["copies"].clone())
        {
            held(branches::set_copies(conn, id, &copies).await?)?;
        }
        Ok(())
    }

    /// An operator takes up again what had failed.
    pub(crate) async fn resume_branch(
        &self,
        conn: &mut PgConnection,
        project: ProjectId,
        kind: OperationKind,
    ) -> DomainResult<()> {
        if kind == OperationKind::ResetBranch
            && let Some(branch) = branches::find_branch(conn, project).await?
            && branch.state.can_become(BranchState::Resetting)
        {
            let to = BranchState::Resetting;
            held(branches::mark_state(conn, project, branch.state, to, self.now()).await?)?;
        }
        Ok(())
    }

    /// Marks a branch deleted, if the project is one, and deletes the branches that it has. Part of
    /// every delete.
    pub(crate) async fn delete_branches_of(
        &self,
        conn: &mut PgConnection,
        project: &Project,
        actor: &str,
        request_id: &str,
    ) -> DomainResult<()> {
        if project.parent_id.is_some() {
            if let Some(branch) = branches::find_branch(conn, project.id).await?
                && branch.state != BranchState::Deleted
            {
                let to = BranchState::Deleted;
                held(branches::mark_state(conn, project.id, branch.state, to, self.now()).await?)?;
                branch_comparisons::delete_of_branch(conn, project.id).await?;
            }
            return Ok(());
        }
        for branch in branches::list_branches(conn, project.id).await? {
            let branch = lock(conn, branch.project.id).await?;
            if branch.status.is_live() {
                Box::pin(self.begin_delete(conn, &branch, actor, request_id)).await?;
            }
        }
        Ok(())
    }

    /// Deletes the branches whose time is over, and tells of those whose time is nearly over. Gives
    /// how many were deleted.
    pub async fn expire_branches(&self) -> DomainResult<usize> {
        let now = self.now();
        let mut conn = self.db().acquire().await?;
        let expired = branches::list_expired(&mut conn, now, 100).await?;
        let ending = branches::list_to_warn(&mut conn, now + WARNING, 100).await?;
        drop(conn);
        // Each by itself: one that cannot be done does not hold up the others.
        for branch in ending.iter().filter(|b| b.expires_at > Some(now)) {
            if let Err(error) = self.warn_of_expiry(branch).await {
                tracing::warn!(branch = %branch.project.id, %error, "nobody was told that a branch expires");
            }
        }
        let mut deleted = 0;
        for branch in &expired {
            match self.expire(branch).await {
                Ok(()) => deleted += 1,
                Err(error) => {
                    tracing::warn!(branch = %branch.project.id, %error, "an expired branch was not deleted");
                }
            }
        }
        Ok(deleted)
    }

    async fn expire(&self, branch: &Branch) -> DomainResult<()> {
        let mut tx = self.db().begin().await?;
        let project = lock(&mut tx, branch.project.id).await?;
        if !project.status.is_live() {
            return Ok(());
        }
        self.begin_delete(&mut tx, &project, "system", "-").await?;
        let target = project.id.to_string();
        let (action, target) = ("branch.expired", ("project", target.as_str()));
        let details = json!({ "expires_at": branch.expires_at });
        self.audit_service(&mut tx, "system", action, target, Some(&project), details)
            .await?;
        commit(tx).await
    }

    async fn warn_of_expiry(&self, branch: &Branch) -> DomainResult<()> {
        let project = &branch.project;
        let mut tx = self.db().begin().await?;
        if !branches::mark_warned(&mut tx, project.id, self.now()).await? {
            return Ok(());
        }
        if let Some(partner) = &project.partner_id {
            let data = json!({
                "project_id": project.id,
                "parent_project_id": branch.parent_id,
                "name": branch.name,
                "expires_at": branch.expires_at,
                "occurred_at": self.now(),
            });
            self.queue_event(&mut tx, partner, WebhookEventType::BranchExpiring, &data)
                .await?;
        }
        let target = project.id.to_string();
        let (action, target) = ("branch.expiry_warned", ("project", target.as_str()));
        let details = json!({ "expires_at": branch.expires_at });
        self.audit_service(&mut tx, "system", action, target, Some(project), details)
            .await?;
        commit(tx).await
    }

    /// For workers: the branch whose project this is.
    pub async fn load_branch(&self, project: ProjectId) -> DomainResult<Branch> {
        let mut conn = self.db().acquire().await?;
        find(&mut conn, project).await
    }

    /// For workers: a project that a branch comes from, and its machine.
    pub async fn load_parent(
        &self,
        branch: &Branch,
    ) -> DomainResult<(Project, Option<cp_model::Machine>)> {
        let mut conn = self.db().acquire().await?;
        let project = projects::find_project(&mut conn, branch.parent_id)
            .await?
            .ok_or(DomainError::NotFound(Thing::Project))?;
        let machine = machines::find_project_machine(&mut conn, project.id).await?;
        Ok((project, machine))
    }

    pub async fn record_copies(&self, lease: &Lease, copies: &BranchCopies) -> DomainResult<()> {
        let mut tx = self.begin_under(lease).await?;
        held(branches::set_copies(&mut tx, lease.project, copies).await?)?;
        commit(tx).await
    }

    /// Lets the backend run beside its database, or no longer: a branch's until it is made or reset, any project's
    /// until a backup is restored.
    pub async fn set_serves(
        &self,
        lease: &Lease,
        machine: MachineId,
        serves: bool,
    ) -> DomainResult<()> {
        let mut tx = self.begin_under(lease).await?;
        let id = lease.project;
        let is_news = match lease.kind {
            OperationKind::RestoreBackup => projects::set_serves(&mut tx, id, serves).await?,
            _ => branches::set_serves(&mut tx, id, serves).await?,
        };
        if is_news {
            held(machines::bump_desired(&mut tx, machine).await?)?;
        }
        commit(tx).await
    }
}

/// Whether the project can be copied, or merged into.
fn check_branchable(parent: &Project) -> DomainResult<()> {
    let refuse = |text: String| Err(BranchError::ParentNotBranchable(text).into());
    if parent.parent_id.is_some() {
        return refuse("a branch cannot have branches; make one of its parent".into());
    }
    match parent.status {
        ProjectStatus::Active => Ok(()),
        ProjectStatus::Paused => refuse("the parent is paused; restore it first".into()),
        status => refuse(format!("the parent is {status}; it must be active")),
    }
}

fn check_idle(branch: &Branch, project: &Project) -> DomainResult<()> {
    match branch.state {
        BranchState::Ready | BranchState::Merged => {}
        BranchState::Deleted => return Err(DomainError::NotFound(Thing::Branch)),
        state => return Err(BranchError::Busy(state).into()),
    }
    match project.status {
        ProjectStatus::Active => Ok(()),
        ProjectStatus::Paused => {
            Err(BranchError::NotReady("the branch is paused; restore it first".into()).into())
        }
        status => Err(BranchError::NotReady(format!(
            "the branch's backend is {status}; it must be active"
        ))
        .into()),
    }
}

async fn find(conn: &mut PgConnection, id: ProjectId) -> DomainResult<Branch> {
    branches::find_branch(conn, id)
        .await?
        .ok_or(DomainError::NotFound(Thing::Branch))
}

/// How a branch shall be merged.
#[derive(Debug, Clone)]
pub struct MergeOptions {
    pub direction: MergeDirection,
    pub resolutions: Resolutions,
    /// What would lock big tables for long is done after the merge's own transaction. Of a merge only.
    pub online: bool,
}

/// Which side conflicts are settled for, by the conflict's whole name.
pub type Resolutions = BTreeMap<String, cp_model::MergeSide>;

/// The failure code of a merge that has conflicts.
pub const MERGE_CONFLICT: &str = "branch.merge_conflict";

/// The failure code of a reset after which the branch is what it was before.
pub const RESET_FAILED: &str = "branch.reset_failed";

/// Why a branch's work cannot go on while its parent is as it is.
pub fn parent_away(status: ProjectStatus) -> Failure {
    Failure::new(
        "branch.parent_not_branchable",
        format!("the parent is {status}; it must be active"),
    )
}
