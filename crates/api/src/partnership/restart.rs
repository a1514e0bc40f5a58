//! `POST :projectId/restart`.

use axum::extract::State;
use axum::response::Response;
use cp_domain::ProjectCaller;
use cp_model::{ProjectStatus, field};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::wait::{After, after};
use crate::ApiState;
use crate::body::{JsonBody, RequestBody};
use crate::docs::errors::{ConflictError, InputErrors, NotFoundError, PartnerErrors};
use crate::idempotency::{Answer, IdempotencyKey, IdempotencyParam, once};
use crate::params::{PartnerParam, ProjectParam, ProjectPath};
use crate::partner_auth::WhiteLabel;
use crate::places::Place;
use crate::problem::Problem;
use crate::wire::project::ProjectState;

/// The body of `restart`.
#[derive(Default, Deserialize, ToSchema)]
pub struct RestartRequest {
    /// The release to run from now on; left out: the same one.
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = "^[A-Za-z0-9._-]+$",
        example = "v2.3.1"
    )]
    insforge_oss_version: Option<String>,
    /// Answer only when it is done, or after 60 seconds with 202 and the status so far.
    #[schema(example = true)]
    wait_for_completion: Option<bool>,
}

impl RequestBody for RestartRequest {
    fn when_absent() -> Option<Self> {
        Some(Self::default())
    }
}

/// The answer to `restart`.
#[derive(Serialize, ToSchema)]
struct RestartResponse {
    #[schema(example = "Project restarted successfully")]
    message: String,
    /// The release that the project runs; null: the newest that its machine has.
    #[serde(rename = "insforgeOssVersion")]
    #[schema(required = true, example = "v2.3.1")]
    insforge_oss_version: Option<String>,
    project: ProjectState,
}

impl From<After> for RestartResponse {
    fn from(after: After) -> Self {
        let turned_back = after.turned_back();
        let mut project = after.view.project;
        let message = match (project.status, &project.failure, turned_back) {
            (ProjectStatus::Restarting, ..) => "Project is restarting".to_owned(),
            (ProjectStatus::Failed, Some(failure), _) => failure.message.clone(),
            (ProjectStatus::Failed, None, _) => "Project restart failed".to_owned(),
            (_, _, Some(failure)) => failure.message,
            _ => "Project restarted successfully".to_owned(),
        };
        Self {
            message,
            insforge_oss_version: project.release.take(),
            project: project.into(),
        }
    }
}

/// Restart a project
///
/// Restarts the project's backend, with another release of InsForge if one is named. A release that
/// does not become healthy is given up for the one before: the answer then names that one, with the
/// reason as its message, and so does the operation's error.
#[utoipa::path(
    post,
    path = "/partnership/v1/{partnerId}/{projectId}/restart",
    tag = "White-label",
    security(("partnership_secret" = [])),
    params(PartnerParam, ProjectParam, IdempotencyParam),
    request_body(content = Option<RestartRequest>, description = "May be left out"),
    responses(
        (status = 200, description = "The release that runs", body = RestartResponse),
        (status = 202, description = "It takes longer than the call may wait", body = RestartResponse),
        InputErrors, NotFoundError, ConflictError, PartnerErrors,
    )
)]
pub async fn restart_project(
    State(state): State<ApiState>,
    WhiteLabel(by): WhiteLabel,
    ProjectPath(id): ProjectPath,
    place: Place,
    key: IdempotencyKey,
    body: JsonBody<RestartRequest>,
) -> Result<Response, Problem> {
    let release = match &body.value.insforge_oss_version {
        Some(given) => Some(field::release("insforge_oss_version", given)?),
        None => None,
    };
    let wait = body.value.wait_for_completion.unwrap_or(false);
    let key = key.with_body(&body.raw);
    let control_plane = &state.control_plane;
    let effect = control_plane.restart_project(
        ProjectCaller::Partner(&by, key.as_ref()),
        id,
        release.as_deref(),
    );
    once(control_plane, &by, key.as_ref(), effect, async |effect| {
        let after = after(&state, &by.partner, &place, effect, wait).await?;
        Answer::json(after.status, &RestartResponse::from(after))
    })
    .await
}
