//! Waiting for a project to come to rest, bounded in time, by the number of those that wait, and
//! by the end of the process.

use std::time::Duration;

use axum::response::Response;
use cp_domain::{DomainResult, Effect, IdempotentRequest, PartnerCaller, ProjectView};
use cp_model::{Failure, Operation, OperationState, Partner, ProjectId, ProjectStatus};
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

/// What became of a verb.
pub struct After {
    /// 202 when the caller wanted to wait for the end and it did not come in time.
    pub status: StatusCode,
    pub view: ProjectView,
    /// None: nothing had to be done.
    pub operation: Option<Operation>,
}

impl After {
    /// Why the project is as it was before, although the verb was begun.
    pub fn turned_back(&self) -> Option<Failure> {
        let ended = self.operation.as_ref();
        ended
            .filter(|operation| operation.state == OperationState::Failed)
            .and_then(Operation::turned_back)
    }
}

/// The project and the operation after a verb.
pub async fn after(
    state: &ApiState,
    partner: &Partner,
    place: &Place,
    effect: Effect,
    wait: bool,
) -> Result<After, Problem> {
    let control_plane = &state.control_plane;
    let id = project_of(effect)?;
    let settled = |status: ProjectStatus| !status.is_transitional();
    let (status, view) = if wait {
        let at_most = control_plane.settings().completion_wait;
        let view = wait_for_status(state, partner, place, id, settled, at_most).await?;
        let status = if settled(view.project.status) {
            StatusCode::OK
        } else {
            StatusCode::ACCEPTED
        };
        (status, view)
    } else {
        let view = control_plane.project_view(partner, id).await?;
        (StatusCode::OK, view)
    };
    let operation = match effect {
        Effect::Operation { operation, .. } => {
            let found = control_plane.partner_operation(partner, operation, Duration::ZERO);
            Some(found.await?)
        }
        Effect::Project(_) | Effect::User(_) => None,
    };
    Ok(After {
        status,
        view,
        operation,
    })
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
        let after = after(state, &by.partner, place, effect, wait).await?;
        Answer::json(after.status, &StatusResponse::from(after.view.project))
    })
    .await
}

/// The project that a verb worked on.
pub fn project_of(effect: Effect) -> Result<ProjectId, Problem> {
    match effect {
        Effect::Project(id) | Effect::Operation { project: id, .. } => Ok(id),
        Effect::User(_) => Err(Problem::internal(
            "a project verb left the effect of a user verb",
        )),
    }
}
