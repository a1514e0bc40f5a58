//! What may be wrong with a project (contract/platform-api.md 13).

mod advisor;
mod analyze;
mod answer;
mod context;
mod incident;
mod metrics;
mod prompt;

pub use answer::Analyses;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;

pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(metrics::get_metrics))
        .routes(routes!(incident::get_incident))
        .routes(routes!(advisor::get_latest_scan))
        .routes(routes!(advisor::list_latest_issues))
        .routes(routes!(analyze::analyze))
        .routes(routes!(analyze::rate_analysis))
}
