//! What the client tells with a question (contract/platform-api.md 13.4): what it saw from where it runs. Fields that are not
//! known here are left out of what the AI is told; the body's size bounds all of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The client and where it runs.
#[derive(Deserialize, Serialize, ToSchema)]
struct ClientInfo {
    #[schema(nullable = false, example = "0.2.8")]
    cli_version: Option<String>,
    #[schema(nullable = false, example = "v22.11.0")]
    node_version: Option<String>,
    #[schema(nullable = false, example = "linux")]
    os: Option<String>,
}

/// One metric, summed up.
#[derive(Deserialize, Serialize, ToSchema)]
struct ClientMetric {
    #[schema(example = "cpu_usage")]
    metric: String,
    latest: f64,
    avg: f64,
    max: f64,
}

/// How many issues there are, by severity.
#[derive(Deserialize, Serialize, ToSchema)]
struct IssueCounts {
    total: i64,
    critical: i64,
    warning: i64,
    info: i64,
}

/// What the project's own advisor says.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AdvisorSummary {
    summary: IssueCounts,
    #[serde(default)]
    collector_errors: Vec<String>,
}

/// A row of a check, as the client has it.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum CheckRow {
    Named(BTreeMap<String, String>),
    Listed(Vec<String>),
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Moment {
    Text(String),
    Number(serde_json::Number),
}

/// An error that was found in a log.
#[derive(Deserialize, Serialize, ToSchema)]
struct LoggedError {
    /// A text or a number.
    #[schema(value_type = Option<String>, nullable = false)]
    timestamp: Option<Moment>,
    message: String,
    #[schema(nullable = false)]
    source: Option<String>,
}

/// The errors of one log.
#[derive(Deserialize, Serialize, ToSchema)]
struct LogErrors {
    #[schema(example = "postgres.logs")]
    source: String,
    total: i64,
    #[serde(default)]
    errors: Vec<LoggedError>,
}

/// What the client saw.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({ "context_version": "diagnostic-v1" }))]
pub struct AnalyzeContext {
    /// `diagnostic-v1`
    pub context_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    client_info: Option<ClientInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    metrics: Option<Vec<ClientMetric>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    advisor: Option<AdvisorSummary>,
    /// The name of a check, and its rows; each cell is a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, nullable = false)]
    db: Option<BTreeMap<String, Vec<CheckRow>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    logs: Option<Vec<LogErrors>>,
}
