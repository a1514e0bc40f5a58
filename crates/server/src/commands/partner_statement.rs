//! `insforge-cloud partner statement …`: months, closed for bills.

use cp_domain::ControlPlane;
use cp_domain::usage::Statement;
use cp_model::{Amounts, Metric, UsagePeriod};
use serde_json::{Value, json};

use super::output::{columns, confirm, show, time};
use super::usage::{object, readable};
use crate::cli::{Output, StatementCommand};

pub async fn run(control_plane: &ControlPlane, command: StatementCommand) -> anyhow::Result<()> {
    match command {
        StatementCommand::Close {
            partner,
            month,
            confirm: asked,
            output,
        } => {
            let period = UsagePeriod::month(&month)?;
            confirm(
                &format!(
                    "Close {month} for partner {partner}? A closed month never changes again."
                ),
                asked,
            )?;
            let statement = control_plane.close_statement(&partner, period).await?;
            show_statement(output, &statement)
        }
        StatementCommand::Show {
            partner,
            month,
            output,
        } => {
            let period = UsagePeriod::month(&month)?;
            let statement = control_plane.find_statement(&partner, period).await?;
            show_statement(output, &statement)
        }
        StatementCommand::List { partner, output } => {
            let closed = control_plane.list_statements(&partner).await?;
            let value: Vec<Value> = closed
                .iter()
                .map(|statement| {
                    json!({
                        "month": statement.month.format("%Y-%m").to_string(),
                        "closed_at": statement.closed_at, "amounts": object(&statement.amounts),
                    })
                })
                .collect();
            show(output, &value, || {
                let rows: Vec<_> = closed
                    .iter()
                    .map(|statement| {
                        [
                            statement.month.format("%Y-%m").to_string(),
                            time(statement.closed_at),
                            readable(Metric::Ec2Compute, statement.amounts[Metric::Ec2Compute]),
                        ]
                    })
                    .collect();
                columns(["MONTH", "CLOSED", "COMPUTE"], &rows)
            })
        }
    }
}

fn show_statement(output: Output, statement: &Statement) -> anyhow::Result<()> {
    let month = statement.month.first().format("%Y-%m").to_string();
    let value = json!({
        "month": month, "closed_at": statement.closed_at, "amounts": object(&statement.amounts),
        "adjustments": statement.adjustments.iter().map(|adjustment| json!({
            "of_month": adjustment.of_month.format("%Y-%m").to_string(), "amounts": object(&adjustment.amounts),
        })).collect::<Vec<_>>(),
        "projects": statement.lines.iter().map(|line| json!({
            "id": line.project, "name": line.name, "amounts": object(&line.amounts),
        })).collect::<Vec<_>>(),
    });
    show(output, &value, || {
        let mut parts = vec![format!(
            "{month}, closed {}\n\n{}",
            time(statement.closed_at),
            amounts_table(&statement.amounts)
        )];
        parts.extend(statement.adjustments.iter().map(|adjustment| {
            format!(
                "Became known of {} since it was closed\n{}",
                adjustment.of_month.format("%Y-%m"),
                amounts_table(&adjustment.amounts)
            )
        }));
        parts.push(format!(
            "{} projects used something; --json tells each.",
            statement.lines.len()
        ));
        parts.join("\n\n")
    })
}

/// Without the metrics of which there is nothing.
fn amounts_table(amounts: &Amounts) -> String {
    let rows: Vec<_> = Metric::ALL
        .iter()
        .filter(|metric| amounts[**metric] != 0)
        .map(|metric| [metric.to_string(), readable(*metric, amounts[*metric])])
        .collect();
    columns(["METRIC", "AMOUNT"], &rows)
}
