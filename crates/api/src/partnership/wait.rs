//! Waiting for a project to come to rest, bounded in time, by the number of those that wait, and
//! by the end of the process.

use std::time::Duration;

use axum::response::Response;
use cp_domain::{DomainResult, Effect, IdempotentRequest, PartnerCaller, ProjectView};
use cp_model::{Partner, ProjectId, ProjectStatus};
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::ApiState;
use crate::body::RequestBody;
use crate::idempotency::{Answer, once};
use crate::places::Place;
use crate::problem::Problem;
use crate::wire::project::StatusResponse;

/// The body of pause and restore.
#[derive(Default, Deserialize, ToSchema)]
pub struct WaitRequest {
    /// Answer only when it is done, or after 60 seconds with 202 and the status so far.
    #[schema(example = true)]
    wait_for_completion: Option<bool>,
}

impl WaitRequest {
    pub fn wanted(&self) -> bool {
        self.wait_for_completion.unwrap_or(false)
    }
}

impl RequestBody for WaitRequest {
    fn when_absent() -> Option<Self> {
        Some(Self::default())
    }
}

/// The project when its status has settled, when the time is up, or when the process is told to
/// stop or the partner has too many requests waiting: then with the status so far.
pub async fn wait_for_status(
    state: &ApiState,
    partner: &Partner,
    place: &Place,
    id: ProjectId,
    settled: impl Fn(ProjectStatus) -> bool + Send,
    at_most: Duration,
) -> DomainResult<ProjectView> {
    let control_plane = &state.control_plane;
    let Some(_waiting) = state.waits.begin(&partner.id, place) else {
        return control_plane.project_view(partner, id).await;
    };
    tokio::select! {
        view = control_plane.wait_for_status(partner, id, settled, at_most) => view,
        () = state.shutdown.cancelled() => control_plane.project_view(partner, id).await,
    }
}

/// The project after a verb, and the status of the answer: 202 when the caller wanted to wait for
/// the end and it did not come in time.
pub async fn view_after(
    state: &ApiState,
    partner: &Partner,
    place: &Place,
    effect: Effect,
    wait: bool,
) -> Result<(StatusCode, ProjectView), Problem> {
    let id = project_of(effect)?;
    if !wait {
        let view = state.control_plane.project_view(partner, id).await?;
        return Ok((StatusCode::OK, view));
    }
    let at_most = state.control_plane.settings().completion_wait;
    let settled = |status: ProjectStatus| !status.is_transitional();
    let view = wait_for_status(state, partner, place, id, settled, at_most).await?;
    let status = if settled(view.project.status) {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, view))
}

/// Runs a verb that changes whether the project runs; the answer is the status after it.
pub async fn answer_status(
    state: &ApiState,
    by: &PartnerCaller,
    place: &Place,
    key: Option<&IdempotentRequest>,
    verb: impl Future<Output = DomainResult<Effect>>,
    wait: bool,
) -> Result<Response, Problem> {
    once(&state.control_plane, by, key, verb, async |effect| {
        let (status, view) = view_after(state, &by.partner, place, effect, wait).await?;
        Answer::json(status, &StatusResponse::from(view.project))
    })
    .await
}

/// The project that a verb worked on.
pub fn project_of(effect: Effect) -> Result<ProjectId, Problem> {
    match effect {
        Effect::Project(id) => Ok(id),
        Effect::User(_) => Err(Problem::internal(
            "a project verb left the effect of a user verb",
        )),
    }
}
