//! `POST /diagnostic/v1/analyze`, answered as server-sent events, and the rating of an analysis (contract/platform-api.md
//! 13.4, 13.5).

use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Response};
use cp_domain::{ControlPlane, Rating};
use cp_model::{FieldError, MachineMetric, MetricsRange, ProjectId, Scope};
use http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::answer::{self, Analyses};
use super::context::AnalyzeContext;
use super::prompt;
use crate::ApiState;
use crate::bearer::Bearer;
use crate::body::{JsonBody, RequestBody};
use crate::docs::errors::{
    AnalyzeErrors, BearerErrors, NotConfiguredError, OwnProjectErrors, PlatformInputErrors,
    RateLimitError, SessionErrors,
};
use crate::params::{SessionPath, one_of, parse_id};
use crate::problem::Problem;

/// Characters of a question.
const LONGEST_QUESTION: usize = 2000;

/// The one form of context that there is.
const CONTEXT_VERSION: &str = "diagnostic-v1";

/// The body of an analysis.
#[derive(Deserialize, ToSchema)]
pub struct AnalyzeRequest {
    #[schema(format = Uuid, example = "019a2f6a-2e90-7b44-a7d3-91c0e5f6b218")]
    project_id: String,
    #[schema(min_length = 1, max_length = 2000, example = "Why is it slow?")]
    question: String,
    context: AnalyzeContext,
}

impl RequestBody for AnalyzeRequest {
    // Errors from logs and rows of checks come with it.
    const MAX_BYTES: usize = 256 * 1024;
}

/// The body of a rating.
#[derive(Deserialize, ToSchema)]
pub struct RatingRequest {
    /// `helpful`, `not_helpful` or `incorrect`.
    #[schema(example = "helpful")]
    rating: String,
    /// At most 2000 characters.
    #[schema(
        nullable = false,
        max_length = 2000,
        example = "It was the missing index."
    )]
    comment: Option<String>,
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

impl FromRef<ApiState> for Analyses {
    fn from_ref(state: &ApiState) -> Self {
        state.analyses.clone()
    }
}

/// Ask an AI about a project
///
/// Answered as server-sent events, each with a JSON object in one line of `data`: `delta` with some more `text` of the
/// answer, as it comes; at the end `done` with the `session_id`, by which the answer can be rated, or `error` with a
/// `message`. The AI is told what the platform knows of the project and what stands in `context`. Twenty questions of a
/// person in an hour, unless the operator says otherwise. Needs an AI endpoint; without one it answers 501. Asks for the
/// scope `projects:read`.
#[utoipa::path(
    post,
    path = "/diagnostic/v1/analyze",
    tag = "Diagnostics",
    security(("bearer" = ["projects:read"])),
    request_body = AnalyzeRequest,
    responses(
        (status = 200, description = "The answer, as events", body = String, content_type = "text/event-stream"),
        BearerErrors, OwnProjectErrors, AnalyzeErrors, RateLimitError, NotConfiguredError,
    )
)]
pub async fn analyze(
    State(control_plane): State<ControlPlane>,
    State(analyses): State<Analyses>,
    Bearer(by): Bearer,
    body: JsonBody<AnalyzeRequest>,
) -> Result<Response, Problem> {
    by.require(Scope::ProjectsRead)?;
    let request = body.value;
    let question = request.question.trim();
    let length = question.chars().count();
    if !(1..=LONGEST_QUESTION).contains(&length) {
        let rule = format!("must have 1 to {LONGEST_QUESTION} characters, has {length}");
        return Err(FieldError::new("question", rule).into());
    }
    if request.context.context_version != CONTEXT_VERSION {
        let rule = format!("must be {CONTEXT_VERSION}");
        return Err(FieldError::new("context.context_version", rule).into());
    }
    let project = ProjectId(parse_id("project_id", &request.project_id)?);
    let incident = control_plane.project_incident(&by, project).await?;
    let (range, all) = (MetricsRange::Hour, MachineMetric::ALL);
    let metrics = control_plane.project_metrics(&by, project, range, all);
    let metrics = metrics.await?;
    let place = analyses.begin()?;
    let session = control_plane.begin_analysis(&by, project, length).await?;
    let message = prompt::user(question, incident, metrics, &request.context);
    let running = answer::Running::new(control_plane, by, session);
    Ok(answer::stream(place, running, message).into_response())
}

/// Rate an analysis
///
/// By whoever asked; for others there is no such analysis. Asks for the scope `projects:read`.
#[utoipa::path(
    post,
    path = "/diagnostic/v1/sessions/{sessionId}/rating",
    tag = "Diagnostics",
    security(("bearer" = ["projects:read"])),
    params(SessionParam),
    request_body = RatingRequest,
    responses(
        (status = 204, description = "Noted"),
        BearerErrors, SessionErrors, PlatformInputErrors,
    )
)]
pub async fn rate_analysis(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    SessionPath(session): SessionPath,
    body: JsonBody<RatingRequest>,
) -> Result<StatusCode, Problem> {
    by.require(Scope::ProjectsRead)?;
    let rating = one_of("rating", &body.value.rating, Rating::ALL, Rating::as_str)?;
    let comment = body.value.comment.as_deref();
    control_plane
        .rate_analysis(&by, session, rating, comment)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
