//! Branches on the wire (contract/platform-api.md 10). The same shapes for people and partners.

use chrono::{DateTime, SecondsFormat, Utc};
use cp_model::{
    BranchCopies, BranchMode, BranchState, Operation, OperationId, OperationKind, OrganizationId,
    ProjectId, ProjectStatus, Region,
};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::project::FailureReason;
use super::schema;

/// With milliseconds: the client compares it with its own clock (10.3).
fn millis<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

#[allow(
    clippy::ref_option,
    reason = "serde's serialize_with gives a reference to the field"
)]
fn optional_millis<S: Serializer>(
    time: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => millis(time, serializer),
        None => serializer.serialize_none(),
    }
}

/// A branch: a project of its own, with a parent.
#[derive(Serialize, ToSchema)]
#[allow(clippy::struct_field_names, reason = "the contract's names")]
pub struct Branch {
    /// Also its id as a project.
    #[schema(value_type = Uuid)]
    id: ProjectId,
    #[schema(value_type = Uuid)]
    parent_project_id: ProjectId,
    #[schema(value_type = Uuid)]
    organization_id: OrganizationId,
    #[schema(example = "feat-coupons")]
    name: String,
    /// With the region the host of its backend.
    #[schema(example = "p3v8tz4n")]
    appkey: String,
    #[schema(schema_with = schema::region)]
    region: Region,
    #[schema(schema_with = schema::status)]
    status: ProjectStatus,
    #[schema(schema_with = schema::branch_state)]
    branch_state: BranchState,
    /// When it was asked for.
    #[serde(serialize_with = "millis")]
    #[schema(example = "2026-08-21T12:05:33.412Z")]
    branch_created_at: DateTime<Utc>,
    branch_metadata: BranchMetadata,
    /// Base URL of its backend; null until it has one.
    #[schema(required = true)]
    access_host: Option<String>,
    /// When it is deleted by itself; null: never.
    #[serde(serialize_with = "optional_millis")]
    #[schema(required = true)]
    expires_at: Option<DateTime<Utc>>,
    /// When its changes came to the parent.
    #[serde(serialize_with = "optional_millis")]
    #[schema(required = true)]
    merged_at: Option<DateTime<Utc>>,
    /// What is done to it now; null in a state that lasts.
    #[schema(required = true)]
    work: Option<Work>,
    /// Why its backend failed; only while its status is `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    failure: Option<FailureReason>,
}

/// How far the creation, merge, rebase or reset of a branch is.
#[derive(Serialize, ToSchema)]
struct Work {
    #[schema(value_type = Uuid)]
    operation_id: OperationId,
    #[schema(schema_with = schema::operation_kind)]
    kind: OperationKind,
    /// The step that runs, or runs next.
    #[schema(example = "restore_copy")]
    step: String,
    /// How much of a database the step has copied so far; null while it copies none.
    #[schema(required = true)]
    bytes_copied: Option<u64>,
    /// Of how much; null where that is not known beforehand.
    #[schema(required = true)]
    bytes_total: Option<u64>,
    /// The last error, of an attempt that is repeated.
    #[schema(required = true)]
    error: Option<FailureReason>,
}

impl Work {
    fn of(operation: Operation, copies: &BranchCopies) -> Self {
        let stored = copies.dump.as_ref().map(|dump| dump.size);
        Self {
            operation_id: operation.id,
            kind: operation.kind,
            bytes_copied: operation.bytes_copied(),
            bytes_total: stored.filter(|_| operation.step == "restore_copy"),
            step: operation.step,
            error: operation.error.map(Into::into),
        }
    }
}

/// What a branch was made from.
#[derive(Serialize, ToSchema)]
struct BranchMetadata {
    #[schema(schema_with = schema::branch_mode)]
    mode: BranchMode,
}

impl From<cp_model::Branch> for Branch {
    fn from(branch: cp_model::Branch) -> Self {
        let project = branch.project;
        Self {
            id: project.id,
            parent_project_id: branch.parent_id,
            organization_id: project.organization_id,
            name: branch.name,
            appkey: project.app_key,
            region: project.region,
            failure: project
                .failure
                .filter(|_| project.status == ProjectStatus::Failed)
                .map(Into::into),
            status: project.status,
            branch_state: branch.state,
            branch_created_at: branch.created_at,
            branch_metadata: BranchMetadata { mode: branch.mode },
            access_host: project.access_host,
            expires_at: branch.expires_at,
            merged_at: branch.merged_at,
            work: branch
                .work
                .map(|operation| Work::of(operation, &branch.copies)),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub struct BranchResponse {
    pub branch: Branch,
}

impl From<cp_model::Branch> for BranchResponse {
    fn from(branch: cp_model::Branch) -> Self {
        let branch = branch.into();
        Self { branch }
    }
}

#[derive(Serialize, ToSchema)]
pub struct BranchesResponse {
    /// Oldest first; deleted ones are left out.
    pub data: Vec<Branch>,
}

/// What a merge would do, or did.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
pub struct DiffResult {
    summary: DiffSummary,
    /// The statements in the form of a migration file.
    rendered_sql: String,
    changes: Vec<Change>,
    /// Nothing is merged while there is one.
    conflicts: Vec<Conflict>,
    /// Nothing is merged while there is one: the parent's rows are in the way, or the change needs a
    /// decision on data.
    needs_migration: Vec<serde_json::Value>,
    renames: Vec<serde_json::Value>,
    warnings: Vec<serde_json::Value>,
    /// Of an online merge that was done: what followed its transaction.
    #[schema(required = false, nullable = false)]
    finished: Option<Vec<AfterCommit>>,
    /// And what could not be done then: the merge stands without it, and the next one has it.
    #[schema(required = false, nullable = false)]
    unfinished: Option<Vec<AfterCommit>>,
}

/// An index that was built, or a constraint that was proved, or not.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
struct AfterCommit {
    #[serde(rename = "type")]
    #[schema(example = "index")]
    kind: String,
    #[schema(example = "public.coupons_code")]
    name: String,
    statement: String,
    /// What the database said; left out where it was done.
    #[schema(required = false, nullable = false)]
    why: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct DiffSummary {
    added: u32,
    modified: u32,
    conflicts: u32,
}

#[derive(Serialize, ToSchema)]
struct Change {
    #[schema(example = "public")]
    schema: String,
    #[schema(example = "coupons")]
    object: String,
    #[serde(rename = "type")]
    #[schema(example = "table")]
    kind: String,
    #[schema(example = "add")]
    action: String,
    sql: String,
    definitions: Definitions,
}

/// The thing's own definition on each side, as SQL. Null where a side has no such thing.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
struct Definitions {
    /// In the parent when the branch was made, or last rebased.
    #[schema(required = true)]
    base: Option<String>,
    /// In the parent now.
    #[schema(required = true)]
    parent: Option<String>,
    /// In the branch now.
    #[schema(
        required = true,
        example = "CREATE TABLE public.coupons (id uuid NOT NULL)"
    )]
    branch: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Conflict {
    #[schema(example = "public")]
    schema: String,
    #[schema(example = "users.email")]
    object: String,
    #[serde(rename = "type")]
    #[schema(example = "column")]
    kind: String,
    parent_t0_hash: String,
    parent_now_hash: String,
    branch_now_hash: String,
    /// What both sides did.
    hint: String,
    definitions: Definitions,
}

/// The answer to a merge or a rebase: that it was done, or of a dry run what it would do.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
pub enum MergeAnswer {
    Done(MergeResponse),
    DryRun(DiffResult),
}

/// The answer to a merge or a rebase that was done.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MergeResponse {
    #[schema(value_type = Uuid)]
    pub branch_id: ProjectId,
    /// `merged`, or of a rebase `rebased`.
    #[schema(example = "merged")]
    pub status: &'static str,
    #[schema(value_type = DiffResult)]
    pub diff: serde_json::Value,
}
