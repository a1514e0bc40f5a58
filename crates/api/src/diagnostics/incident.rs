//! `GET /projects/v1/{projectId}/diagnose/incident`.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use cp_domain::{ControlPlane, Incident};
use cp_model::{InstanceType, ProjectId, ProjectStatus, Scope};
use serde::Serialize;
use utoipa::ToSchema;

use crate::bearer::Bearer;
use crate::docs::errors::{BearerErrors, OwnProjectErrors};
use crate::params::{ProjectParam, ProjectPath};
use crate::problem::Problem;
use crate::wire::{schema, time};

/// Something that we did to the project.
#[derive(Serialize, ToSchema)]
struct PlatformOperation {
    #[schema(example = "restart")]
    action: &'static str,
    #[serde(serialize_with = "time::seconds")]
    at: DateTime<Utc>,
}

/// What of the project is heard.
#[derive(Serialize, ToSchema)]
struct Reachable {
    /// When its machine last reported; null: never.
    #[serde(serialize_with = "time::optional_seconds")]
    #[schema(required = true)]
    metrics_last_seen_at: Option<DateTime<Utc>>,
    /// Whether its machine reported within the last two minutes.
    metrics_reporting: bool,
    /// Whether its machine says that the database answers.
    database_connect: bool,
}

/// What may be wrong, as far as can be told from outside of the project.
#[derive(Serialize, ToSchema)]
pub struct IncidentResponse {
    #[schema(example = "no_incident_detected")]
    verdict: &'static str,
    explanation: String,
    /// What to do about it.
    recommendation: &'static str,
    #[schema(value_type = Uuid)]
    project_id: ProjectId,
    #[schema(schema_with = schema::status)]
    project_status: ProjectStatus,
    #[schema(required = true)]
    operation_status: Option<&'static str>,
    #[schema(schema_with = schema::instance_type)]
    instance_type: InstanceType,
    reachable: Reachable,
    /// Since when its machine does not report; null: it does.
    #[serde(serialize_with = "time::optional_seconds")]
    #[schema(required = true)]
    down_since: Option<DateTime<Utc>>,
    /// The machine's memory in use when it was last told before it went silent, in percent; null: it reports.
    #[schema(required = true, example = 93.5)]
    memory_before_down_pct: Option<f64>,
    /// The machine's memory in use, in percent, as last told; null: never.
    #[schema(required = true, example = 41.2)]
    memory_latest_pct: Option<f64>,
    /// How often, in the last 24 hours, nothing was told for three minutes or longer.
    scrape_gaps_24h: i64,
    /// The newest first.
    recent_platform_operations: Vec<PlatformOperation>,
}

impl From<Incident> for IncidentResponse {
    fn from(incident: Incident) -> Self {
        let project = incident.project;
        let operations = incident.operations.into_iter();
        Self {
            verdict: incident.verdict.as_str(),
            explanation: incident.explanation,
            recommendation: incident.recommendation,
            project_id: project.id,
            project_status: project.status,
            operation_status: project.operation_status,
            instance_type: project.size.instance_type,
            reachable: Reachable {
                metrics_last_seen_at: incident.last_seen_at,
                metrics_reporting: incident.is_heard,
                database_connect: incident.has_database,
            },
            down_since: incident.down_since,
            memory_before_down_pct: incident
                .memory_usage
                .filter(|_| incident.down_since.is_some()),
            memory_latest_pct: incident.memory_usage,
            scrape_gaps_24h: incident.gaps,
            recent_platform_operations: operations
                .map(|(action, at)| PlatformOperation { action, at })
                .collect(),
        }
    }
}

/// Ask what may be wrong
///
/// Told from what the platform knows; works while the project cannot be reached. Asks for the scope `projects:read`.
#[utoipa::path(
    get,
    path = "/projects/v1/{projectId}/diagnose/incident",
    tag = "Diagnostics",
    security(("bearer" = ["projects:read"])),
    params(ProjectParam),
    responses(
        (status = 200, description = "A verdict", body = IncidentResponse),
        BearerErrors, OwnProjectErrors,
    )
)]
pub async fn get_incident(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    ProjectPath(id): ProjectPath,
) -> Result<Json<IncidentResponse>, Problem> {
    by.require(Scope::ProjectsRead)?;
    Ok(Json(control_plane.project_incident(&by, id).await?.into()))
}
