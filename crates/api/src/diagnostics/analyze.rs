//! `POST /diagnostic/v1/analyze` and the rating of an analysis. They need an AI endpoint, which this installation has
//! not.

use axum::extract::State;
use cp_domain::ControlPlane;
use cp_model::{FieldError, ProjectId, Scope};
use http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::bearer::Bearer;
use crate::body::{JsonBody, RequestBody};
use crate::docs::errors::{
    BearerErrors, NotConfiguredError, OwnProjectErrors, PlatformInputErrors,
};
use crate::params::{SessionPath, one_of, parse_id};
use crate::problem::Problem;

/// Characters of a question.
const LONGEST_QUESTION: usize = 2000;

/// The body of an analysis.
#[derive(Deserialize, ToSchema)]
pub struct AnalyzeRequest {
    #[schema(format = Uuid, example = "019a2f6a-2e90-7b44-a7d3-91c0e5f6b218")]
    project_id: String,
    #[schema(min_length = 1, max_length = 2000, example = "Why is it slow?")]
    question: String,
}

impl RequestBody for AnalyzeRequest {}

/// The body of a rating.
#[derive(Deserialize, ToSchema)]
pub struct RatingRequest {
    /// `helpful`, `not_helpful` or `incorrect`.
    #[schema(example = "helpful")]
    rating: String,
}

impl RequestBody for RatingRequest {}

/// For the document: the path of a rating.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
pub struct SessionParam {
    /// From the event `done` of an analysis.
    #[param(rename = "sessionId", example = "019a2f90-63aa-7c52-8f19-d7b3a0c4e876")]
    session_id: uuid::Uuid,
}

/// Ask an AI about a project
///
/// Needs an AI endpoint; without one it answers 501. Asks for the scope `projects:read`.
#[utoipa::path(
    post,
    path = "/diagnostic/v1/analyze",
    tag = "Diagnostics",
    security(("bearer" = ["projects:read"])),
    request_body = AnalyzeRequest,
    responses(BearerErrors, OwnProjectErrors, PlatformInputErrors, NotConfiguredError)
)]
pub async fn analyze(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    body: JsonBody<AnalyzeRequest>,
) -> Result<(), Problem> {
    by.require(Scope::ProjectsRead)?;
    let length = body.value.question.trim().chars().count();
    if !(1..=LONGEST_QUESTION).contains(&length) {
        let rule = format!("must have 1 to {LONGEST_QUESTION} characters, has {length}");
        return Err(FieldError::new("question", rule).into());
    }
    let project = parse_id("project_id", &body.value.project_id)?;
    control_plane
        .member_project(&by, ProjectId(project))
        .await?;
    Err(Problem::not_configured(
        "This installation has no AI to ask. Use insforge diagnose without --ai.",
    ))
}

/// Rate an analysis
///
/// Asks for the scope `projects:read`.
#[utoipa::path(
    post,
    path = "/diagnostic/v1/sessions/{sessionId}/rating",
    tag = "Diagnostics",
    security(("bearer" = ["projects:read"])),
    params(SessionParam),
    request_body = RatingRequest,
    responses(BearerErrors, OwnProjectErrors, PlatformInputErrors)
)]
pub async fn rate_analysis(
    Bearer(by): Bearer,
    _session: SessionPath,
    body: JsonBody<RatingRequest>,
) -> Result<(), Problem> {
    by.require(Scope::ProjectsRead)?;
    let valid = ["helpful", "not_helpful", "incorrect"];
    one_of("rating", &body.value.rating, &valid, |text| text)?;
    Err(Problem::new(
        StatusCode::NOT_FOUND,
        "session_not_found",
        "There is no such analysis.",
    ))
}
