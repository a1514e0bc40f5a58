//! `insforge-cloud operation …`.

use chrono::{DateTime, Utc};
use cp_model::{Operation, OperationId, OperationKind, OperationState, ProjectId};
use serde::Serialize;

use super::output::{columns, confirm, properties, show, time, time_or_dash};
use crate::cli::OperationCommand;
use crate::config::Config;

#[derive(Serialize)]
struct Shown<'a> {
    id: OperationId,
    project_id: ProjectId,
    kind: OperationKind,
    state: OperationState,
    step: &'a str,
    /// None: no limit.
    max_attempts: Option<i32>,
    attempts: i32,
    next_attempt_at: DateTime<Utc>,
    deadline_at: Option<DateTime<Utc>>,
    generation: i64,
    lease_owner: Option<&'a str>,
    lease_until: Option<DateTime<Utc>>,
    error_code: Option<&'a str>,
    error_message: Option<&'a str>,
    requested_by: &'a str,
    request_id: &'a str,
    data: &'a serde_json::Value,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

impl<'a> From<&'a Operation> for Shown<'a> {
    fn from(operation: &'a Operation) -> Self {
        let error = operation.error.as_ref();
        Self {
            id: operation.id,
            project_id: operation.project_id,
            kind: operation.kind,
            state: operation.state,
            step: &operation.step,
            max_attempts: Some(operation.max_attempts).filter(|max| *max < i32::MAX),
            attempts: operation.attempts,
            next_attempt_at: operation.next_attempt_at,
            deadline_at: operation.deadline_at,
            generation: operation.generation,
            lease_owner: operation.lease_owner.as_deref(),
            lease_until: operation.lease_until,
            error_code: error.map(|e| e.code.as_ref()),
            error_message: error.map(|e| e.message.as_ref()),
            requested_by: &operation.requested_by,
            request_id: &operation.request_id,
            data: &operation.data,
            created_at: operation.created_at,
            started_at: operation.started_at,
            finished_at: operation.finished_at,
        }
    }
}

pub async fn run(config: &Config, command: OperationCommand) -> anyhow::Result<()> {
    let control_plane = super::open(config).await?;
    match command {
        OperationCommand::List {
            project,
            state,
            limit,
            output,
        } => {
            let operations = control_plane.list_operations(project, state, limit).await?;
            let shown: Vec<Shown<'_>> = operations.iter().map(Shown::from).collect();
            show(output, &shown, || table(&shown))
        }
        OperationCommand::Show { operation, output } => {
            let operation = control_plane.show_operation(operation).await?;
            let shown = Shown::from(&operation);
            show(output, &shown, || details(&shown))
        }
        OperationCommand::Retry {
            operation,
            accept_data_loss,
            output,
        } => {
            let retried = control_plane
                .retry_operation(operation, accept_data_loss)
                .await?;
            show(output, &Shown::from(&retried), || {
                let id = retried.id;
                format!(
                    "operation {id} ({}) is queued; `operation show {id}` tells how it goes",
                    retried.kind
                )
            })
        }
        OperationCommand::Cancel {
            operation,
            confirm: asked,
            output,
        } => {
            confirm(
                &format!("Stop operation {operation} and leave its project failed?"),
                asked,
            )?;
            let cancelled = control_plane.cancel_operation(operation).await?;
            show(output, &Shown::from(&cancelled), || {
                let project = cancelled.project_id;
                format!("operation {operation} is cancelled; project {project} is failed")
            })
        }
    }
}

fn table(operations: &[Shown<'_>]) -> String {
    let rows: Vec<_> = operations
        .iter()
        .map(|o| {
            [
                o.id.to_string(),
                o.project_id.to_string(),
                o.kind.to_string(),
                o.state.to_string(),
                o.step.to_owned(),
                attempts(o),
                time(o.created_at),
                o.error_code.unwrap_or("-").to_owned(),
            ]
        })
        .collect();
    let headers = [
        "ID", "PROJECT", "KIND", "STATE", "STEP", "ATTEMPTS", "CREATED", "ERROR",
    ];
    columns(headers, &rows)
}

fn attempts(operation: &Shown<'_>) -> String {
    match operation.max_attempts {
        Some(max) => format!("{} of {max}", operation.attempts),
        None => operation.attempts.to_string(),
    }
}

fn details(operation: &Shown<'_>) -> String {
    let dash = || "-".to_owned();
    let in_flight = operation.state.is_in_flight();
    let mut lines = vec![
        ("id", operation.id.to_string()),
        ("project", operation.project_id.to_string()),
        ("kind", operation.kind.to_string()),
        ("state", operation.state.to_string()),
        ("step", operation.step.to_owned()),
        ("attempts", attempts(operation)),
        ("requested by", operation.requested_by.to_owned()),
        ("request", operation.request_id.to_owned()),
        ("created", time(operation.created_at)),
        ("started", time_or_dash(operation.started_at)),
        ("finished", time_or_dash(operation.finished_at)),
    ];
    if in_flight {
        lines.push(("next attempt", time(operation.next_attempt_at)));
        lines.push(("deadline", time_or_dash(operation.deadline_at)));
        let worker = operation.lease_owner.map_or_else(dash, str::to_owned);
        lines.push(("worker", worker));
    }
    if let (Some(code), Some(message)) = (operation.error_code, operation.error_message) {
        lines.push(("error", format!("{code}: {message}")));
    }
    let next = match operation.state {
        OperationState::Failed => {
            format!("\n\n`operation retry {}` takes it up again", operation.id)
        }
        state if state.is_in_flight() && operation.kind != OperationKind::Delete => {
            format!("\n\n`operation cancel {}` stops it", operation.id)
        }
        _ => String::new(),
    };
    properties(&lines) + &next
}
