//! Branches (contract/branching.md, platform-api.md 10): the same for people, by bearer, and for
//! partners, by their secret.

mod accept;
mod partner;
mod people;
mod request;

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use cp_domain::{BranchRef, DomainError, MergeOutcome, ProjectCaller, Resolutions};
use cp_model::{Failure, MergeDirection, ProjectId};
use http::header::VARY;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;
use crate::pages::branch_diff;
use crate::problem::Problem;
use crate::wire::branch::MergeResponse;

/// How long a dry run and a merge are waited for: HTTP clients give up after five minutes.
const PATIENCE: Duration = Duration::from_secs(270);

pub fn people() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(people::create_branch, people::list_branches))
        .routes(routes!(people::get_branch, people::delete_branch))
        .routes(routes!(people::reset_branch))
        .routes(routes!(people::merge_branch))
        .routes(routes!(people::rebase_branch))
        .routes(routes!(people::get_branch_diff))
}

pub fn partners() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(
            partner::create_project_branch,
            partner::list_project_branches
        ))
        .routes(routes!(
            partner::get_project_branch,
            partner::delete_project_branch
        ))
        .routes(routes!(partner::reset_project_branch))
        .routes(routes!(partner::merge_project_branch))
        .routes(routes!(partner::rebase_project_branch))
        .routes(routes!(partner::get_project_branch_diff))
}

/// What a merge would do now, or a rebase.
pub async fn compare(
    state: &ApiState,
    by: ProjectCaller<'_>,
    branch: BranchRef,
    direction: MergeDirection,
    resolutions: &Resolutions,
) -> Result<Value, Problem> {
    let work = state
        .control_plane
        .compare_branch(by, branch, direction, resolutions, PATIENCE);
    let compared = tokio::select! {
        compared = work => compared?,
        () = state.shutdown.cancelled() => return Err(Problem::unavailable()),
    };
    compared.map_err(refused)
}

/// The diff for programs, or for people where the caller would rather have HTML.
async fn diff(
    state: &ApiState,
    by: ProjectCaller<'_>,
    branch: BranchRef,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let found = state.control_plane.find_branch(by, branch).await?;
    let (direction, none) = (MergeDirection::Merge, Resolutions::default());
    let diff = compare(state, by, branch, direction, &none).await?;
    let mut response = if accept::prefers_html(headers) {
        branch_diff::answer(&found, diff).map_err(|error| Problem::internal(&error))?
    } else {
        Json(diff).into_response()
    };
    let vary = HeaderValue::from_static("accept");
    response.headers_mut().append(VARY, vary);
    Ok(response)
}

/// What a merge or a rebase came to, as its answer.
fn merged(
    branch: ProjectId,
    direction: MergeDirection,
    outcome: MergeOutcome,
) -> Result<MergeResponse, Problem> {
    match outcome {
        MergeOutcome::Merged(diff) => Ok(MergeResponse {
            branch_id: branch,
            status: match direction {
                MergeDirection::Merge => "merged",
                MergeDirection::Rebase => "rebased",
            },
            diff,
        }),
        MergeOutcome::Conflict(diff) => Err(Problem::merge_conflict(diff)),
        // It has ended, whatever it was: to be tried again it must be asked for again.
        MergeOutcome::Failed(failure) => Err(match failure.code.as_str() {
            "branch.parent_not_branchable" => refused(failure).locked_if_in_the_way(),
            _ => not_merged(failure.message),
        }),
        MergeOutcome::Running(operation) => Err(Problem::new(
            StatusCode::LOCKED,
            "merge_running",
            format!(
                "The {direction} ({operation}) takes longer than this call may wait, and goes on. It has ended when the branch's state is no longer merging."
            ),
        )),
    }
}

/// Why a worker did not compare or merge.
fn refused(failure: Failure) -> Problem {
    let Failure { code, message } = failure;
    match code.as_str() {
        "branch.parent_not_branchable" => Problem::new(
            StatusCode::CONFLICT,
            "branch.parent_not_branchable",
            message,
        ),
        "branch.not_ready" => Problem::new(StatusCode::CONFLICT, "branch.not_ready", message),
        "database_unreachable" | "database_unavailable" | "store_failed" => {
            tracing::warn!(code, message, "a branch was not compared");
            DomainError::Unavailable.into()
        }
        _ => not_merged(message),
    }
}

fn not_merged(message: String) -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "branch.merge_failed",
        message,
    )
}
