//! Operations as partners see them.

use chrono::{DateTime, Utc};
use cp_model::{Operation, OperationId, OperationKind, OperationState, ProjectId};
use serde::Serialize;
use utoipa::ToSchema;

use super::project::FailureReason;
use super::{schema, time};

/// The answer to `GET operations/:id`.
#[derive(Serialize, ToSchema)]
pub struct OperationResponse {
    operation: OperationStatus,
}

/// One piece of long work on a project.
#[derive(Serialize, ToSchema)]
struct OperationStatus {
    #[schema(value_type = Uuid)]
    id: OperationId,
    #[schema(value_type = Uuid)]
    project_id: ProjectId,
    #[schema(schema_with = schema::operation_kind)]
    kind: OperationKind,
    #[schema(schema_with = schema::operation_state)]
    state: OperationState,
    /// The step that runs next, or ran last.
    #[schema(example = "wait_until_serving")]
    step: String,
    /// 0 before it begins, 100 when it has succeeded, 50 in between.
    #[schema(minimum = 0, maximum = 100)]
    progress: u8,
    /// How often the present step was tried.
    attempts: i32,
    /// The last error: of a failed attempt while it runs, of the whole once it has failed.
    #[schema(required = true)]
    error: Option<FailureReason>,
    #[serde(serialize_with = "time::seconds")]
    #[schema(value_type = String, format = DateTime)]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "time::optional_seconds")]
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    started_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "time::optional_seconds")]
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    finished_at: Option<DateTime<Utc>>,
    /// When the next attempt begins; null once it has ended.
    #[serde(serialize_with = "time::optional_seconds")]
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<DateTime<Utc>>,
}

/// What can be said without knowing how long each step takes.
fn progress(operation: &Operation) -> u8 {
    match operation.state {
        OperationState::Succeeded => 100,
        _ if operation.started_at.is_none() => 0,
        _ => 50,
    }
}

impl From<Operation> for OperationResponse {
    fn from(operation: Operation) -> Self {
        let in_flight = operation.state.is_in_flight();
        Self {
            operation: OperationStatus {
                progress: progress(&operation),
                id: operation.id,
                project_id: operation.project_id,
                kind: operation.kind,
                state: operation.state,
                step: operation.step,
                attempts: operation.attempts,
                error: operation.error.map(Into::into),
                created_at: operation.created_at,
                started_at: operation.started_at,
                finished_at: operation.finished_at,
                next_attempt_at: in_flight.then_some(operation.next_attempt_at),
            },
        }
    }
}
