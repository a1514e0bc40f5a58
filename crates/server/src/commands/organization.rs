//! `insforge-cloud organization …`.

use chrono::{DateTime, Utc};
use cp_domain::OrganizationSummary;
use cp_model::{OrganizationId, Plan};
use serde::Serialize;
use serde_json::json;

use super::output::{columns, show, time};
use crate::cli::OrganizationCommand;
use crate::config::Config;

/// An organization as operators see it.
#[derive(Serialize)]
struct Listed<'a> {
    id: OrganizationId,
    name: &'a str,
    plan: Plan,
    granted_plan: Option<Plan>,
    paid_plan: Option<Plan>,
    stripe_customer_id: Option<&'a str>,
    created_at: DateTime<Utc>,
}

impl<'a> From<&'a OrganizationSummary> for Listed<'a> {
    fn from(summary: &'a OrganizationSummary) -> Self {
        Self {
            id: summary.id,
            name: &summary.name,
            plan: summary.plan,
            granted_plan: summary.granted_plan,
            paid_plan: summary.paid_plan,
            stripe_customer_id: summary.customer.as_deref(),
            created_at: summary.created_at,
        }
    }
}

pub async fn run(config: &Config, command: OrganizationCommand) -> anyhow::Result<()> {
    let control_plane = super::open(config).await?;
    match command {
        OrganizationCommand::List { limit, output } => {
            let found = control_plane.list_all_organizations(limit).await?;
            let shown: Vec<Listed<'_>> = found.iter().map(Into::into).collect();
            show(output, &shown, || table(&shown))
        }
        OrganizationCommand::GrantPlan {
            organization,
            plan,
            output,
        } => {
            let has = control_plane.grant_plan(organization, plan).await?;
            let shown = json!({ "id": organization, "granted_plan": plan, "plan": has });
            show(output, &shown, || {
                if has > plan {
                    format!(
                        "organization {organization} is given no more than the {plan} plan, and stays on the {has} plan: it pays for that"
                    )
                } else {
                    format!("organization {organization} is on the {has} plan now")
                }
            })
        }
    }
}

fn table(organizations: &[Listed<'_>]) -> String {
    let or_dash = |plan: Option<Plan>| plan.map_or("-", Plan::as_str).to_owned();
    let rows: Vec<_> = organizations
        .iter()
        .map(|one| {
            [
                one.id.to_string(),
                one.name.to_owned(),
                one.plan.to_string(),
                or_dash(one.granted_plan),
                or_dash(one.paid_plan),
                one.stripe_customer_id.unwrap_or("-").to_owned(),
                time(one.created_at),
            ]
        })
        .collect();
    columns(
        ["ID", "NAME", "PLAN", "GIVEN", "PAID", "CUSTOMER", "CREATED"],
        &rows,
    )
}
