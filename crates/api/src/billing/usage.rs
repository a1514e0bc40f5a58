//! `GET /usage/v1/organizations/{organizationId}`.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use cp_domain::usage::ProjectTotal;
use cp_domain::{ControlPlane, OrganizationUsage};
use cp_model::{Amounts, Metric, OrganizationId, Plan, ProjectId, ProjectStatus, Scope};
use serde::Serialize;
use utoipa::ToSchema;

use crate::bearer::Bearer;
use crate::docs::errors::{BearerErrors, MemberErrors};
use crate::params::{OrganizationParam, OrganizationPath};
use crate::problem::Problem;
use crate::wire::usage::Credits;
use crate::wire::{schema, time};

/// What was used, by metric. Sizes are the greatest of the month; the rest is the sum.
#[derive(Serialize, ToSchema)]
struct MonthlyAmounts {
    #[schema(example = 73_400_320)]
    database_bytes: i64,
    #[schema(example = 1_288_490_188)]
    storage_bytes: i64,
    #[schema(example = 402_653_184)]
    egress_bytes: i64,
    ai_tokens: i64,
    #[schema(value_type = f64, example = 3.75)]
    ai_credits: Credits,
    mcp_calls: i64,
    email_requests: i64,
    function_calls: i64,
    /// Seconds that machines ran.
    ec2_compute: i64,
}

impl From<Amounts> for MonthlyAmounts {
    fn from(amounts: Amounts) -> Self {
        Self {
            database_bytes: amounts[Metric::DatabaseBytes],
            storage_bytes: amounts[Metric::StorageBytes],
            egress_bytes: amounts[Metric::EgressBytes],
            ai_tokens: amounts[Metric::AiTokens],
            ai_credits: Credits(amounts[Metric::AiCredits]),
            mcp_calls: amounts[Metric::McpCalls],
            email_requests: amounts[Metric::EmailRequests],
            function_calls: amounts[Metric::FunctionCalls],
            ec2_compute: amounts[Metric::Ec2Compute],
        }
    }
}

/// What one project used.
#[derive(Serialize, ToSchema)]
struct ProjectMonth {
    #[schema(value_type = Uuid)]
    id: ProjectId,
    name: String,
    /// As everywhere; `deleted` once it is.
    #[schema(value_type = String, example = "active")]
    status: ProjectStatus,
    #[serde(flatten)]
    used: MonthlyAmounts,
}

impl From<ProjectTotal> for ProjectMonth {
    fn from(line: ProjectTotal) -> Self {
        Self {
            id: line.project.id,
            name: line.project.name,
            status: line.project.status,
            used: line.total.into(),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct UsingOrganization {
    #[schema(value_type = Uuid)]
    id: OrganizationId,
    #[schema(example = "Moreno Labs")]
    name: String,
    #[schema(schema_with = schema::plan)]
    price_plan: Plan,
}

#[derive(Serialize, ToSchema)]
struct MonthMeta {
    #[serde(serialize_with = "time::seconds")]
    requested_at: DateTime<Utc>,
    /// First second of the month.
    #[serde(serialize_with = "time::seconds")]
    period_start: DateTime<Utc>,
    #[serde(serialize_with = "time::seconds")]
    period_end: DateTime<Utc>,
}

/// What an organization used this month.
#[derive(Serialize, ToSchema)]
pub struct OrganizationUsageResponse {
    organization: UsingOrganization,
    usage_summary: MonthlyAmounts,
    projects: Vec<ProjectMonth>,
    _meta: MonthMeta,
}

impl OrganizationUsageResponse {
    fn new(used: OrganizationUsage, requested_at: DateTime<Utc>) -> Self {
        Self {
            organization: UsingOrganization {
                id: used.organization.id,
                name: used.organization.name,
                price_plan: used.organization.plan,
            },
            usage_summary: used.total.into(),
            projects: used.projects.into_iter().map(Into::into).collect(),
            _meta: MonthMeta {
                requested_at,
                period_start: used.period.start(),
                period_end: used.period.end(),
            },
        }
    }
}

/// Get an organization's usage
///
/// Of the present calendar month, in UTC, with a line for each project that existed in it. Asks for the scope
/// `organizations:read`.
#[utoipa::path(
    get,
    path = "/usage/v1/organizations/{organizationId}",
    tag = "Billing",
    security(("bearer" = ["organizations:read"])),
    params(OrganizationParam),
    responses(
        (status = 200, description = "The usage", body = OrganizationUsageResponse),
        BearerErrors, MemberErrors,
    )
)]
pub async fn get_organization_usage(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    OrganizationPath(id): OrganizationPath,
) -> Result<Json<OrganizationUsageResponse>, Problem> {
    by.require(Scope::OrganizationsRead)?;
    let used = control_plane.organization_usage(&by, id).await?;
    let now = control_plane.clock().now();
    Ok(Json(OrganizationUsageResponse::new(used, now)))
}
