//! `/branches/{branchId}/diff`: what a merge of a branch would do, each definition side by side. Only looks.
//!
//! Who has an access token or a partner's secret gets the same page from the API, where the JSON is
//! (`GET …/branches/{branchId}/diff` with `Accept: text/html`).

mod lines;
mod view;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use cp_domain::{BranchRef, ProjectCaller, Resolutions};
use cp_model::{Branch, MergeDirection, ProjectId, Scope};
use http::StatusCode;
use serde_json::Value;
use uuid::Uuid;

use super::error_page::Failure;
use super::layout::{Layout, Width};
use super::session::{SignedIn, Visitor};
use super::{Page, security_headers};
use crate::ApiState;
use crate::branches::compare;
use crate::places::Place;
pub use view::Diff;

pub const PATH: &str = "/branches/{branchId}/diff";

/// Where a person's browser finds the page of a branch.
pub fn path_of(branch: ProjectId) -> String {
    format!("/branches/{branch}/diff")
}

pub async fn show(
    State(state): State<ApiState>,
    signed_in: SignedIn,
    branch: Result<Path<Uuid>, PathRejection>,
    place: Place,
) -> Result<Response, Failure> {
    let SignedIn { visitor, by } = &signed_in;
    by.require(Scope::ProjectsRead)?;
    let Path(branch) = branch.map_err(|_| Failure::no_branch())?;
    let wanted = BranchRef {
        parent: None,
        branch: ProjectId(branch),
    };
    let caller = ProjectCaller::Person(by);
    let branch = state.control_plane.find_branch(caller, wanted).await?;
    let _waiting = state.waits.begin_for_user(by.user.id, &place);
    let (direction, none) = (MergeDirection::Merge, Resolutions::default());
    let diff = compare(&state, caller, wanted, direction, &none)
        .await
        .map_err(Failure::not_compared)?;
    page(&branch, diff, Some(visitor)).map_err(|error| Failure::internal(&error))
}

/// The page as an answer of the API.
///
/// # Errors
/// When it is not a diff as workers make them.
pub fn answer(branch: &Branch, diff: Value) -> Result<Response, String> {
    let mut response = page(branch, diff, None)?;
    security_headers::add(&mut response);
    response.extensions_mut().insert(Page);
    Ok(response)
}

fn page(branch: &Branch, diff: Value, visitor: Option<&Visitor>) -> Result<Response, String> {
    let diff: Diff = serde_json::from_value(diff).map_err(|error| error.to_string())?;
    let layout = Layout {
        title: &format!("Branch {}", branch.name),
        visitor,
        width: Width::Full,
    };
    Ok(layout.answer(StatusCode::OK, &diff.render(&branch.name)))
}
