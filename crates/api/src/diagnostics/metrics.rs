//! `GET /projects/v1/{projectId}/metrics`.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use cp_domain::{ControlPlane, MetricsSeries};
use cp_model::{FieldResult, MachineId, MachineMetric, MetricsRange, ProjectId, Scope};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bearer::Bearer;
use crate::docs::errors::{BearerErrors, OwnProjectErrors};
use crate::params::{ProjectParam, ProjectPath, QueryText, one_of};
use crate::problem::Problem;
use crate::wire::{schema, time};

/// What of the metrics is asked for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MetricsQuery {
    /// How far back: `1h` (in minutes), `6h` (in minutes), `24h` (in ten minutes) or `7d` (in ten minutes).
    #[param(required = false, nullable = false, example = "1h")]
    range: Option<String>,
    /// Names of metrics with commas between; all if left out.
    #[param(required = false, nullable = false, example = "cpu_usage,memory_usage")]
    metrics: Option<String>,
}

/// The mean of a minute, or of ten.
#[derive(Serialize, ToSchema)]
struct MetricsPoint {
    /// When it began, in seconds since 1970.
    #[schema(example = 1_787_482_800)]
    timestamp: i64,
    /// Percent, or bytes per second.
    #[schema(example = 11.4)]
    value: f64,
}

/// One metric over time.
#[derive(Serialize, ToSchema)]
struct Series {
    #[schema(schema_with = schema::machine_metric)]
    metric: MachineMetric,
    /// The machine; left out while there are no points.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>, nullable = false)]
    instance_id: Option<MachineId>,
    /// The oldest first. Where nothing was measured there is no point.
    data: Vec<MetricsPoint>,
}

impl From<MetricsSeries> for Series {
    fn from(series: MetricsSeries) -> Self {
        let points = series.points.into_iter();
        Self {
            metric: series.metric,
            instance_id: series.machine,
            data: points
                .map(|(at, value)| MetricsPoint {
                    timestamp: at.timestamp(),
                    value,
                })
                .collect(),
        }
    }
}

/// About the answer itself.
#[derive(Serialize, ToSchema)]
struct MetricsMeta {
    #[serde(serialize_with = "time::seconds")]
    requested_at: DateTime<Utc>,
    query_time_ms: u64,
    cached: bool,
}

/// How busy a project's machine is and was.
#[derive(Serialize, ToSchema)]
pub struct MetricsResponse {
    #[schema(value_type = Uuid)]
    project_id: ProjectId,
    #[schema(schema_with = schema::metrics_range)]
    range: MetricsRange,
    /// One series for each metric, all with the same times.
    metrics: Vec<Series>,
    #[serde(rename = "_meta")]
    meta: MetricsMeta,
}

/// Get a project's metrics
///
/// Processor, memory and disk in percent, network in bytes per second: what its machine tells each minute. Asks for the
/// scope `projects:read`.
#[utoipa::path(
    get,
    path = "/projects/v1/{projectId}/metrics",
    tag = "Diagnostics",
    security(("bearer" = ["projects:read"])),
    params(ProjectParam, MetricsQuery),
    responses(
        (status = 200, description = "The metrics", body = MetricsResponse),
        BearerErrors, OwnProjectErrors,
    )
)]
pub async fn get_metrics(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    ProjectPath(project_id): ProjectPath,
    QueryText(query): QueryText<MetricsQuery>,
) -> Result<Json<MetricsResponse>, Problem> {
    by.require(Scope::ProjectsRead)?;
    let (range, wanted) = read(&query).map_err(|error| {
        // The client shows why a section is missing only where it finds this word (contract/platform-api.md 3.2).
        Problem::invalid_input(format!("Metrics: {error}"))
    })?;
    let (requested_at, begin) = (control_plane.clock().now(), Instant::now());
    let series = control_plane
        .project_metrics(&by, project_id, range, &wanted)
        .await?;
    Ok(Json(MetricsResponse {
        project_id,
        range,
        metrics: series.into_iter().map(Series::from).collect(),
        meta: MetricsMeta {
            requested_at,
            query_time_ms: begin.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
            cached: false,
        },
    }))
}

/// Each metric once, in the order that all have.
fn read(query: &MetricsQuery) -> FieldResult<(MetricsRange, Vec<MachineMetric>)> {
    let range = query
        .range
        .as_deref()
        .unwrap_or(MetricsRange::Hour.as_str());
    let range = one_of("range", range, MetricsRange::ALL, MetricsRange::as_str)?;
    let Some(names) = query.metrics.as_deref().filter(|names| !names.is_empty()) else {
        return Ok((range, MachineMetric::ALL.to_vec()));
    };
    let mut wanted = Vec::new();
    for name in names.split(',') {
        let (all, text) = (MachineMetric::ALL, MachineMetric::as_str);
        wanted.push(one_of("metrics", name.trim(), all, text)?);
    }
    wanted.sort_unstable();
    wanted.dedup();
    Ok((range, wanted))
}
