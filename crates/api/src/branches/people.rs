//! Branches for people: `/projects/v1/…`, by an access token or an API key.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cp_domain::{BranchRef, ControlPlane, ProjectCaller, UserCaller};
use cp_model::{MergeDirection, ProjectId, Scope};
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};

use super::accept::prefers_html;
use super::request::{CreateBranchRequest, MergeQuery, MergeRequest};
use super::{PATIENCE, compare, diff, merged};
use crate::ApiState;
use crate::bearer::Bearer;
use crate::body::{IgnoredBody, JsonBody};
use crate::docs::errors::{
    BearerErrors, BranchChangeErrors, BranchErrors, CompareErrors, MergeErrors,
};
use crate::pages::branch_diff;
use crate::pages::redirects::see_other;
use crate::params::{BranchParam, BranchPath, ProjectParam, ProjectPath, QueryText};
use crate::places::Place;
use crate::problem::Problem;
use crate::wire::branch::{BranchResponse, BranchesResponse, DiffResult, MergeAnswer};

fn own(branch: ProjectId) -> BranchRef {
    BranchRef {
        parent: None,
        branch,
    }
}

fn caller(by: &UserCaller, scope: Scope) -> Result<ProjectCaller<'_>, Problem> {
    by.require(scope)?;
    Ok(ProjectCaller::Person(by))
}

/// Create a branch
///
/// A copy of the project's whole backend on a machine of its own: `full` with its data, `schema-only`
/// without. Listed at once, in state `creating`; ask for it until it is `ready`. The project serves
/// meanwhile.
#[utoipa::path(
    post,
    path = "/projects/v1/{projectId}/branches",
    tag = "Branches",
    security(("bearer" = ["projects:write"])),
    params(ProjectParam),
    request_body = CreateBranchRequest,
    responses(
        (status = 201, description = "It is being made", body = BranchResponse),
        BearerErrors, BranchErrors, BranchChangeErrors,
    )
)]
pub async fn create_branch(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    ProjectPath(parent): ProjectPath,
    body: JsonBody<CreateBranchRequest>,
) -> Result<Response, Problem> {
    let by = caller(&by, Scope::ProjectsWrite)?;
    let request = body.value.read()?;
    let branch = control_plane.create_branch(by, parent, &request).await?;
    Ok((StatusCode::CREATED, Json(BranchResponse::from(branch))).into_response())
}

/// List a project's branches
///
/// Oldest first. Deleted ones are left out.
#[utoipa::path(
    get,
    path = "/projects/v1/{projectId}/branches",
    tag = "Branches",
    security(("bearer" = ["projects:read"])),
    params(ProjectParam),
    responses(
        (status = 200, description = "The branches", body = BranchesResponse),
        BearerErrors, BranchErrors,
    )
)]
pub async fn list_branches(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    ProjectPath(parent): ProjectPath,
) -> Result<Json<BranchesResponse>, Problem> {
    let by = caller(&by, Scope::ProjectsRead)?;
    let branches = control_plane.list_branches(by, parent).await?;
    let data = branches.into_iter().map(Into::into).collect();
    Ok(Json(BranchesResponse { data }))
}

/// Get a branch
#[utoipa::path(
    get,
    path = "/projects/v1/branches/{branchId}",
    tag = "Branches",
    security(("bearer" = ["projects:read"])),
    params(BranchParam),
    responses(
        (status = 200, description = "The branch", body = BranchResponse),
        BearerErrors, BranchErrors,
    )
)]
pub async fn get_branch(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    BranchPath(branch): BranchPath,
) -> Result<Json<BranchResponse>, Problem> {
    let by = caller(&by, Scope::ProjectsRead)?;
    let branch = control_plane.find_branch(by, own(branch)).await?;
    Ok(Json(branch.into()))
}

/// Delete a branch
///
/// Cannot be undone. Access ends with the answer; its machine and its copies are taken down after it.
#[utoipa::path(
    delete,
    path = "/projects/v1/branches/{branchId}",
    tag = "Branches",
    security(("bearer" = ["projects:write"])),
    params(BranchParam),
    responses(
        (status = 204, description = "The branch is deleted"),
        BearerErrors, BranchErrors, BranchChangeErrors,
    )
)]
pub async fn delete_branch(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    BranchPath(branch): BranchPath,
    IgnoredBody(_): IgnoredBody,
) -> Result<StatusCode, Problem> {
    let by = caller(&by, Scope::ProjectsWrite)?;
    control_plane.delete_branch(by, own(branch)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reset a branch
///
/// Gives it the database that it began with; what was done on it since is lost. Keys and address stay.
/// Ask for it until it is `ready`.
#[utoipa::path(
    post,
    path = "/projects/v1/branches/{branchId}/reset",
    tag = "Branches",
    security(("bearer" = ["projects:write"])),
    params(BranchParam),
    responses(
        (status = 202, description = "It is being reset", body = BranchResponse),
        BearerErrors, BranchErrors, BranchChangeErrors,
    )
)]
pub async fn reset_branch(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    BranchPath(branch): BranchPath,
    IgnoredBody(_): IgnoredBody,
) -> Result<Response, Problem> {
    let by = caller(&by, Scope::ProjectsWrite)?;
    let branch = control_plane.reset_branch(by, own(branch)).await?;
    Ok((StatusCode::ACCEPTED, Json(BranchResponse::from(branch))).into_response())
}

/// Merge a branch
///
/// Brings the branch's changes to its parent, in one transaction, or changes nothing. Rows of your
/// tables never merge. With `dryRun=true` it only tells what it would do: then the answer is the diff
/// itself.
#[utoipa::path(
    post,
    path = "/projects/v1/branches/{branchId}/merge",
    tag = "Branches",
    security(("bearer" = ["projects:write"])),
    params(BranchParam, MergeQuery),
    request_body = Option<MergeRequest>,
    responses(
        (status = 200, description = "It is merged; of a dry run, what a merge would do", body = MergeAnswer),
        BearerErrors, BranchErrors, MergeErrors,
    )
)]
pub async fn merge_branch(
    State(state): State<ApiState>,
    Bearer(by): Bearer,
    BranchPath(id): BranchPath,
    query: QueryText<MergeQuery>,
    place: Place,
    body: JsonBody<MergeRequest>,
) -> Result<Response, Problem> {
    let direction = MergeDirection::Merge;
    merge(&state, &by, id, direction, query, &place, body).await
}

/// Rebase a branch
///
/// Brings the parent's changes to the branch, in one transaction, or changes nothing. From then on the
/// branch counts as made from the parent as it is now: that is what it is compared with, and what a
/// reset leads to. Rows of your tables stay. `resolutions` and `dryRun` are as of a merge.
#[utoipa::path(
    post,
    path = "/projects/v1/branches/{branchId}/rebase",
    tag = "Branches",
    security(("bearer" = ["projects:write"])),
    params(BranchParam, MergeQuery),
    request_body = Option<MergeRequest>,
    responses(
        (status = 200, description = "It is rebased; of a dry run, what a rebase would do", body = MergeAnswer),
        BearerErrors, BranchErrors, MergeErrors,
    )
)]
pub async fn rebase_branch(
    State(state): State<ApiState>,
    Bearer(by): Bearer,
    BranchPath(id): BranchPath,
    query: QueryText<MergeQuery>,
    place: Place,
    body: JsonBody<MergeRequest>,
) -> Result<Response, Problem> {
    let direction = MergeDirection::Rebase;
    merge(&state, &by, id, direction, query, &place, body).await
}

async fn merge(
    state: &ApiState,
    by: &UserCaller,
    id: ProjectId,
    direction: MergeDirection,
    QueryText(query): QueryText<MergeQuery>,
    place: &Place,
    body: JsonBody<MergeRequest>,
) -> Result<Response, Problem> {
    let _waiting = state.waits.begin_for_user(by.user.id, place);
    let by = caller(by, Scope::ProjectsWrite)?;
    let dry_run = query.is_dry_run()?;
    let options = body.value.read(direction)?;
    if dry_run {
        let diff = compare(state, by, own(id), direction, &options.resolutions).await?;
        return Ok(Json(diff).into_response());
    }
    let outcome = state
        .control_plane
        .merge_branch(by, own(id), &options, PATIENCE)
        .await
        .map_err(|error| Problem::from(error).locked_if_in_the_way())?;
    Ok(Json(merged(id, direction, outcome)?).into_response())
}

/// Compare a branch with its parent
///
/// What a merge would do now; the same as a merge with `dryRun=true`. Changes nothing. With
/// `Accept: text/html` it is a page for people, each definition side by side; a browser without a token
/// is led to where its person signs in.
#[utoipa::path(
    get,
    path = "/projects/v1/branches/{branchId}/diff",
    tag = "Branches",
    security(("bearer" = ["projects:read"])),
    params(BranchParam),
    responses(
        (status = 200, description = "What a merge would do", content(
            (DiffResult = "application/json"), (String = "text/html"),
        )),
        (status = 303, description = "A browser without a token is led to the page"),
        BearerErrors, BranchErrors, CompareErrors,
    )
)]
pub async fn get_branch_diff(
    State(state): State<ApiState>,
    bearer: Result<Bearer, Problem>,
    headers: HeaderMap,
    BranchPath(id): BranchPath,
    place: Place,
) -> Result<Response, Problem> {
    let has_token = headers.contains_key(AUTHORIZATION);
    let Bearer(by) = match bearer {
        Err(_) if !has_token && prefers_html(&headers) => {
            return Ok(see_other(&branch_diff::path_of(id)));
        }
        bearer => bearer?,
    };
    let _waiting = state.waits.begin_for_user(by.user.id, &place);
    let by = caller(&by, Scope::ProjectsRead)?;
    diff(&state, by, own(id), &headers).await
}
