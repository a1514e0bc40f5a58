//! Branches for partners: `/partnership/v1/{partnerId}/{projectId}/branches…`, by their secret.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cp_domain::{BranchRef, ControlPlane, Effect, PartnerCaller, ProjectCaller};
use cp_model::{MergeDirection, ProjectId};
use http::{HeaderMap, StatusCode};

use super::request::{CreateBranchRequest, MergeQuery, MergeRequest};
use super::{PATIENCE, compare, diff, merged};
use crate::ApiState;
use crate::body::{IgnoredBody, JsonBody};
use crate::docs::errors::{
    BadRequestError, ConflictError, InputErrors, NotFoundError, PartnerCompareErrors,
    PartnerErrors, PartnerMergeErrors, TooLargeError,
};
use crate::idempotency::{Answer, IdempotencyKey, IdempotencyParam, once};
use crate::params::{
    BranchParam, ParentAndBranchPath, PartnerParam, ProjectParam, ProjectPath, QueryText,
};
use crate::partner_auth::WhiteLabel;
use crate::partnership::project_of;
use crate::places::Place;
use crate::problem::Problem;
use crate::wire::branch::{BranchResponse, BranchesResponse, DiffResult, MergeAnswer};

fn of(parent: ProjectId, branch: ProjectId) -> BranchRef {
    BranchRef {
        parent: Some(parent),
        branch,
    }
}

async fn answer(
    control_plane: &ControlPlane,
    by: &PartnerCaller,
    branch: BranchRef,
    status: StatusCode,
) -> Result<Answer, Problem> {
    let by = ProjectCaller::Partner(by, None);
    let branch = control_plane.find_branch(by, branch).await?;
    Answer::json(status, &BranchResponse::from(branch))
}

/// Create a branch
///
/// A copy of the project's whole backend on a machine of its own: `full` with its data, `schema-only`
/// without. Listed at once, in state `creating`; ask for it until it is `ready`. The project serves
/// meanwhile.
#[utoipa::path(
    post,
    path = "/partnership/v1/{partnerId}/{projectId}/branches",
    tag = "Branches",
    security(("partnership_secret" = [])),
    params(PartnerParam, ProjectParam, IdempotencyParam),
    request_body = CreateBranchRequest,
    responses(
        (status = 200, description = "It is being made", body = BranchResponse),
        InputErrors, NotFoundError, ConflictError, PartnerErrors,
    )
)]
pub async fn create_project_branch(
    State(control_plane): State<ControlPlane>,
    WhiteLabel(by): WhiteLabel,
    ProjectPath(parent): ProjectPath,
    key: IdempotencyKey,
    body: JsonBody<CreateBranchRequest>,
) -> Result<Response, Problem> {
    let request = body.value.read()?;
    let key = key.with_body(&body.raw);
    let effect = async {
        let caller = ProjectCaller::Partner(&by, key.as_ref());
        let branch = control_plane
            .create_branch(caller, parent, &request)
            .await?;
        Ok(Effect::Project(branch.project.id))
    };
    once(&control_plane, &by, key.as_ref(), effect, async |effect| {
        let branch = of(parent, project_of(effect)?);
        answer(&control_plane, &by, branch, StatusCode::OK).await
    })
    .await
}

/// List a project's branches
///
/// Oldest first. Deleted ones are left out.
#[utoipa::path(
    get,
    path = "/partnership/v1/{partnerId}/{projectId}/branches",
    tag = "Branches",
    security(("partnership_secret" = [])),
    params(PartnerParam, ProjectParam),
    responses(
        (status = 200, description = "The branches", body = BranchesResponse),
        BadRequestError, NotFoundError, PartnerErrors,
    )
)]
pub async fn list_project_branches(
    State(control_plane): State<ControlPlane>,
    WhiteLabel(by): WhiteLabel,
    ProjectPath(parent): ProjectPath,
) -> Result<Json<BranchesResponse>, Problem> {
    let by = ProjectCaller::Partner(&by, None);
    let branches = control_plane.list_branches(by, parent).await?;
    let data = branches.into_iter().map(Into::into).collect();
    Ok(Json(BranchesResponse { data }))
}

/// Get a branch
#[utoipa::path(
    get,
    path = "/partnership/v1/{partnerId}/{projectId}/branches/{branchId}",
    tag = "Branches",
    security(("partnership_secret" = [])),
    params(PartnerParam, ProjectParam, BranchParam),
    responses(
        (status = 200, description = "The branch", body = BranchResponse),
        BadRequestError, NotFoundError, PartnerErrors,
    )
)]
pub async fn get_project_branch(
    State(control_plane): State<ControlPlane>,
    WhiteLabel(by): WhiteLabel,
    ParentAndBranchPath(parent, branch): ParentAndBranchPath,
) -> Result<Json<BranchResponse>, Problem> {
    let by = ProjectCaller::Partner(&by, None);
    let branch = control_plane.find_branch(by, of(parent, branch)).await?;
    Ok(Json(branch.into()))
}

/// Delete a branch
///
/// Cannot be undone. Access ends with the answer; its machine and its copies are taken down after it.
#[utoipa::path(
    delete,
    path = "/partnership/v1/{partnerId}/{projectId}/branches/{branchId}",
    tag = "Branches",
    security(("partnership_secret" = [])),
    params(PartnerParam, ProjectParam, BranchParam, IdempotencyParam),
    responses(
        (status = 200, description = "The branch is deleted"),
        BadRequestError, NotFoundError, ConflictError, TooLargeError, PartnerErrors,
    )
)]
pub async fn delete_project_branch(
    State(control_plane): State<ControlPlane>,
    WhiteLabel(by): WhiteLabel,
    ParentAndBranchPath(parent, branch): ParentAndBranchPath,
    key: IdempotencyKey,
    IgnoredBody(body): IgnoredBody,
) -> Result<Response, Problem> {
    let key = key.with_body(&body);
    let effect = async {
        let caller = ProjectCaller::Partner(&by, key.as_ref());
        let deleted = control_plane
            .delete_branch(caller, of(parent, branch))
            .await?;
        Ok(Effect::Project(deleted))
    };
    once(&control_plane, &by, key.as_ref(), effect, async |_| {
        let request_id = by.caller.request_id.as_str();
        Answer::ok(&serde_json::json!({
            "message": "Branch deleted successfully",
            "requestId": request_id,
        }))
    })
    .await
}

/// Reset a branch
///
/// Gives it the database that it began with; what was done on it since is lost. Keys and address stay.
/// Ask for it until it is `ready`.
#[utoipa::path(
    post,
    path = "/partnership/v1/{partnerId}/{projectId}/branches/{branchId}/reset",
    tag = "Branches",
    security(("partnership_secret" = [])),
    params(PartnerParam, ProjectParam, BranchParam, IdempotencyParam),
    responses(
        (status = 200, description = "It is being reset", body = BranchResponse),
        BadRequestError, NotFoundError, ConflictError, TooLargeError, PartnerErrors,
    )
)]
pub async fn reset_project_branch(
    State(control_plane): State<ControlPlane>,
    WhiteLabel(by): WhiteLabel,
    ParentAndBranchPath(parent, branch): ParentAndBranchPath,
    key: IdempotencyKey,
    IgnoredBody(body): IgnoredBody,
) -> Result<Response, Problem> {
    let key = key.with_body(&body);
    let branch = of(parent, branch);
    let effect = async {
        let caller = ProjectCaller::Partner(&by, key.as_ref());
        let reset = control_plane.reset_branch(caller, branch).await?;
        Ok(Effect::Project(reset.project.id))
    };
    let answered = once(&control_plane, &by, key.as_ref(), effect, async |_| {
        answer(&control_plane, &by, branch, StatusCode::OK).await
    });
    Box::pin(answered).await
}

/// Merge a branch
///
/// Brings the branch's changes to its parent, in one transaction, or changes nothing. Rows of tables
/// never merge. With `dryRun=true` it only tells what it would do: then the answer is the diff itself.
#[utoipa::path(
    post,
    path = "/partnership/v1/{partnerId}/{projectId}/branches/{branchId}/merge",
    tag = "Branches",
    security(("partnership_secret" = [])),
    params(PartnerParam, ProjectParam, BranchParam, MergeQuery, IdempotencyParam),
    request_body = Option<MergeRequest>,
    responses(
        (status = 200, description = "It is merged; of a dry run, what a merge would do", body = MergeAnswer),
        BadRequestError, NotFoundError, PartnerMergeErrors, PartnerErrors,
    )
)]
pub async fn merge_project_branch(
    State(state): State<ApiState>,
    WhiteLabel(by): WhiteLabel,
    path: ParentAndBranchPath,
    query: QueryText<MergeQuery>,
    place: Place,
    key: IdempotencyKey,
    body: JsonBody<MergeRequest>,
) -> Result<Response, Problem> {
    let direction = MergeDirection::Merge;
    merge(&state, &by, path, direction, query, &place, key, body).await
}

/// Rebase a branch
///
/// Brings the parent's changes to the branch, in one transaction, or changes nothing. From then on the
/// branch counts as made from the parent as it is now: that is what it is compared with, and what a
/// reset leads to. Rows of tables stay. `resolutions` and `dryRun` are as of a merge.
#[utoipa::path(
    post,
    path = "/partnership/v1/{partnerId}/{projectId}/branches/{branchId}/rebase",
    tag = "Branches",
    security(("partnership_secret" = [])),
    params(PartnerParam, ProjectParam, BranchParam, MergeQuery, IdempotencyParam),
    request_body = Option<MergeRequest>,
    responses(
        (status = 200, description = "It is rebased; of a dry run, what a rebase would do", body = MergeAnswer),
        BadRequestError, NotFoundError, PartnerMergeErrors, PartnerErrors,
    )
)]
pub async fn rebase_project_branch(
    State(state): State<ApiState>,
    WhiteLabel(by): WhiteLabel,
    path: ParentAndBranchPath,
    query: QueryText<MergeQuery>,
    place: Place,
    key: IdempotencyKey,
    body: JsonBody<MergeRequest>,
) -> Result<Response, Problem> {
    let direction = MergeDirection::Rebase;
    merge(&state, &by, path, direction, query, &place, key, body).await
}

#[allow(clippy::too_many_arguments, reason = "all that a request consists of")]
async fn merge(
    state: &ApiState,
    by: &PartnerCaller,
    ParentAndBranchPath(parent, id): ParentAndBranchPath,
    direction: MergeDirection,
    QueryText(query): QueryText<MergeQuery>,
    place: &Place,
    key: IdempotencyKey,
    body: JsonBody<MergeRequest>,
) -> Result<Response, Problem> {
    let (control_plane, branch) = (&state.control_plane, of(parent, id));
    let dry_run = query.is_dry_run()?;
    let options = body.value.read(direction)?;
    let key = key.with_body(&body.raw).filter(|_| !dry_run);
    let _waiting = state.waits.begin(&by.partner.id, place);
    if dry_run {
        let caller = ProjectCaller::Partner(by, None);
        let diff = compare(state, caller, branch, direction, &options.resolutions).await?;
        return Ok(Json(diff).into_response());
    }
    let effect = async {
        let caller = ProjectCaller::Partner(by, key.as_ref());
        let begun = control_plane.begin_merge(caller, branch, &options);
        let (project, operation) = (id, begun.await?);
        Ok(Effect::Operation { project, operation })
    };
    let answered = once(control_plane, by, key.as_ref(), effect, async |effect| {
        let Effect::Operation { project, operation } = effect else {
            return Err(Problem::internal("a merge left no operation"));
        };
        let outcome = control_plane.await_merge(project, operation, PATIENCE);
        Answer::ok(&merged(id, direction, outcome.await?)?)
    });
    Box::pin(answered)
        .await
        .map_err(Problem::locked_if_in_the_way)
}

/// Compare a branch with its parent
///
/// What a merge would do now; the same as a merge with `dryRun=true`. Changes nothing. With
/// `Accept: text/html` it is a page for people, each definition side by side.
#[utoipa::path(
    get,
    path = "/partnership/v1/{partnerId}/{projectId}/branches/{branchId}/diff",
    tag = "Branches",
    security(("partnership_secret" = [])),
    params(PartnerParam, ProjectParam, BranchParam),
    responses(
        (status = 200, description = "What a merge would do", content(
            (DiffResult = "application/json"), (String = "text/html"),
        )),
        BadRequestError, NotFoundError, PartnerCompareErrors, PartnerErrors,
    )
)]
pub async fn get_project_branch_diff(
    State(state): State<ApiState>,
    WhiteLabel(by): WhiteLabel,
    ParentAndBranchPath(parent, id): ParentAndBranchPath,
    headers: HeaderMap,
    place: Place,
) -> Result<Response, Problem> {
    let _waiting = state.waits.begin(&by.partner.id, &place);
    let caller = ProjectCaller::Partner(&by, None);
    diff(&state, caller, of(parent, id), &headers).await
}
