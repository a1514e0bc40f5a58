//! `insforge-cloud partner limit …`: amounts of usage that a partner is told of.

use chrono::{DateTime, Utc};
use cp_domain::ControlPlane;
use cp_domain::usage::{LimitSummary, NewLimit, UsageLimit};
use cp_model::{LimitPeriod, Metric, ProjectId, UsageLimitId};
use serde::Serialize;
use serde_json::json;

use super::output::{columns, confirm, properties, show, time};
use crate::cli::LimitCommand;

#[derive(Serialize)]
struct Shown {
    id: UsageLimitId,
    project: Option<ProjectId>,
    metric: Metric,
    period: LimitPeriod,
    /// Text: six decimals of a big number fit no float.
    amount: String,
    created_at: DateTime<Utc>,
    /// The newest period in which it was reached.
    reached_in: Option<String>,
}

impl Shown {
    fn of(limit: &UsageLimit, reached_in: Option<String>) -> Self {
        Self {
            id: limit.id,
            project: limit.project,
            metric: limit.metric,
            period: limit.period,
            amount: limit.metric.display(limit.amount).to_string(),
            created_at: limit.created_at,
            reached_in,
        }
    }

    fn whose(&self) -> String {
        self.project
            .map_or_else(|| "all".to_owned(), |project| project.to_string())
    }
}

pub async fn run(control_plane: &ControlPlane, command: LimitCommand) -> anyhow::Result<()> {
    match command {
        LimitCommand::Set {
            partner,
            metric,
            amount,
            project,
            period,
            output,
        } => {
            let new = NewLimit {
                metric,
                amount: &amount,
                project,
                period,
            };
            let limit = control_plane.set_usage_limit(&partner, new).await?;
            let shown = Shown::of(&limit, None);
            show(output, &shown, || {
                properties(&[
                    ("id", shown.id.to_string()),
                    ("projects", shown.whose()),
                    ("metric", shown.metric.to_string()),
                    ("amount", format!("{} a {}", shown.amount, shown.period)),
                ])
            })
        }
        LimitCommand::List { partner, output } => {
            let limits = control_plane.list_usage_limits(&partner).await?;
            let limits: Vec<Shown> = limits
                .into_iter()
                .map(|LimitSummary { limit, reached_in }| Shown::of(&limit, reached_in))
                .collect();
            show(output, &limits, || table(&limits))
        }
        LimitCommand::Remove {
            partner,
            limit,
            confirm: asked,
            output,
        } => {
            confirm(&format!("Remove limit {limit}?"), asked)?;
            control_plane.remove_usage_limit(&partner, limit).await?;
            show(output, &json!({ "limit": limit, "removed": true }), || {
                format!("limit {limit} is removed")
            })
        }
    }
}

fn table(limits: &[Shown]) -> String {
    let rows: Vec<_> = limits
        .iter()
        .map(|limit| {
            [
                limit.id.to_string(),
                limit.whose(),
                limit.metric.to_string(),
                limit.period.to_string(),
                limit.amount.clone(),
                limit.reached_in.clone().unwrap_or_else(|| "-".to_owned()),
                time(limit.created_at),
            ]
        })
        .collect();
    columns(
        [
            "ID",
            "PROJECTS",
            "METRIC",
            "PERIOD",
            "AMOUNT",
            "REACHED IN",
            "CREATED",
        ],
        &rows,
    )
}
