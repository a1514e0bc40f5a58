//! Usage as partners see it (seeds/partnership.md, "Get Project Usage" and "Get Partnership Total
//! Usage").

use axum::http::HeaderMap;
use chrono::{DateTime, Datelike as _, NaiveDate, Utc};
use cp_domain::usage::{DayUsage, PartnerUsage, ProjectTotal, ProjectUsage, total};
use cp_model::{
    Amounts, FieldError, FieldResult, Metric, Partner, PartnerId, ProjectId, ProjectStatus,
    UsagePeriod,
};
use http::header::ACCEPT;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::{schema, time};
use crate::problem::Problem;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PeriodQuery {
    /// First day, UTC. Six days before the last if left out.
    #[param(value_type = Option<String>, required = false, nullable = false, format = Date)]
    start_date: Option<String>,
    /// Last day, UTC, included. Today if left out.
    #[param(value_type = Option<String>, required = false, nullable = false, format = Date)]
    end_date: Option<String>,
    /// `day` or `month`: lists the usage of each.
    #[param(schema_with = granularities, required = false)]
    granularity: Option<String>,
}

fn granularities() -> utoipa::openapi::schema::Object {
    schema::texts("Lists the usage of each.", ["day", "month"].into_iter()).build()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    Day,
    Month,
}

impl PeriodQuery {
    pub fn period(&self, today: NaiveDate) -> FieldResult<UsagePeriod> {
        UsagePeriod::parse(self.start_date.as_deref(), self.end_date.as_deref(), today)
    }

    pub fn granularity(&self) -> FieldResult<Option<Granularity>> {
        match self.granularity.as_deref() {
            None => Ok(None),
            Some("day") => Ok(Some(Granularity::Day)),
            Some("month") => Ok(Some(Granularity::Month)),
            Some(_) => Err(FieldError::new("granularity", "must be day or month")),
        }
    }
}

/// Credits: a decimal of up to six places, written as it is and never through a float.
#[derive(Debug, Clone, Copy)]
pub struct Credits(pub i64);

impl Serialize for Credits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(Metric::AiCredits.display(self.0).to_string())
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

/// From the first second of the first day to the last of the last.
#[derive(Serialize, ToSchema)]
struct Period {
    #[serde(serialize_with = "time::seconds")]
    #[schema(example = "2025-11-10T00:00:00Z")]
    start: DateTime<Utc>,
    #[serde(serialize_with = "time::seconds")]
    #[schema(example = "2025-11-18T23:59:59Z")]
    end: DateTime<Utc>,
}

impl From<UsagePeriod> for Period {
    fn from(period: UsagePeriod) -> Self {
        Self {
            start: period.start(),
            end: period.end(),
        }
    }
}

/// Whose usage it is.
#[derive(Serialize, ToSchema)]
struct UsedProject {
    #[schema(value_type = Uuid)]
    id: ProjectId,
    name: String,
    /// As everywhere; `deleted` once it is.
    #[schema(value_type = String, example = "active")]
    status: ProjectStatus,
    #[serde(serialize_with = "time::optional_seconds")]
    #[schema(required = true)]
    last_activity_at: Option<DateTime<Utc>>,
}

impl From<&cp_domain::usage::UsedProject> for UsedProject {
    fn from(project: &cp_domain::usage::UsedProject) -> Self {
        Self {
            id: project.id,
            name: project.name.clone(),
            status: project.status,
            last_activity_at: project.last_activity_at,
        }
    }
}

/// One project over the whole period.
#[derive(Serialize, ToSchema)]
struct ProjectSummary {
    max_database_size_bytes: i64,
    max_file_storage_bytes: i64,
    total_ai_tokens: i64,
    total_mcp_calls: i64,
    total_egress_bytes: i64,
    #[schema(value_type = f64)]
    total_ai_credits: Credits,
    total_email_requests: i64,
    total_function_calls: i64,
    /// Seconds that its machine ran.
    total_ec2_compute: i64,
}

impl From<Amounts> for ProjectSummary {
    fn from(amounts: Amounts) -> Self {
        Self {
            max_database_size_bytes: amounts[Metric::DatabaseBytes],
            max_file_storage_bytes: amounts[Metric::StorageBytes],
            total_ai_tokens: amounts[Metric::AiTokens],
            total_mcp_calls: amounts[Metric::McpCalls],
            total_egress_bytes: amounts[Metric::EgressBytes],
            total_ai_credits: Credits(amounts[Metric::AiCredits]),
            total_email_requests: amounts[Metric::EmailRequests],
            total_function_calls: amounts[Metric::FunctionCalls],
            total_ec2_compute: amounts[Metric::Ec2Compute],
        }
    }
}

/// One project on one day, or in one month.
#[derive(Serialize, ToSchema)]
struct ProjectAmounts {
    /// The greatest that was seen.
    database_size_bytes: i64,
    /// The greatest that was seen.
    file_storage_bytes: i64,
    ai_tokens: i64,
    mcp_calls: i64,
    egress_bytes: i64,
    #[schema(value_type = f64)]
    ai_credits: Credits,
    email_requests: i64,
    function_calls: i64,
    ec2_compute: i64,
}

impl From<Amounts> for ProjectAmounts {
    fn from(amounts: Amounts) -> Self {
        Self {
            database_size_bytes: amounts[Metric::DatabaseBytes],
            file_storage_bytes: amounts[Metric::StorageBytes],
            ai_tokens: amounts[Metric::AiTokens],
            mcp_calls: amounts[Metric::McpCalls],
            egress_bytes: amounts[Metric::EgressBytes],
            ai_credits: Credits(amounts[Metric::AiCredits]),
            email_requests: amounts[Metric::EmailRequests],
            function_calls: amounts[Metric::FunctionCalls],
            ec2_compute: amounts[Metric::Ec2Compute],
        }
    }
}

/// All projects together: over the whole period, on one day, or in one month.
#[derive(Serialize, ToSchema)]
struct PartnerAmounts {
    /// Peak of the daily sum over projects.
    database_bytes: i64,
    /// Peak of the daily sum over projects.
    storage_bytes: i64,
    ai_tokens: i64,
    mcp_calls: i64,
    egress_bytes: i64,
    #[schema(value_type = f64)]
    ai_credits: Credits,
    email_requests: i64,
    function_calls: i64,
    /// Seconds that machines ran.
    ec2_compute: i64,
}

impl From<Amounts> for PartnerAmounts {
    fn from(amounts: Amounts) -> Self {
        Self {
            database_bytes: amounts[Metric::DatabaseBytes],
            storage_bytes: amounts[Metric::StorageBytes],
            ai_tokens: amounts[Metric::AiTokens],
            mcp_calls: amounts[Metric::McpCalls],
            egress_bytes: amounts[Metric::EgressBytes],
            ai_credits: Credits(amounts[Metric::AiCredits]),
            email_requests: amounts[Metric::EmailRequests],
            function_calls: amounts[Metric::FunctionCalls],
            ec2_compute: amounts[Metric::Ec2Compute],
        }
    }
}

#[derive(Serialize, ToSchema)]
struct DayOf<T> {
    usage_date: NaiveDate,
    #[serde(flatten)]
    amounts: T,
}

#[derive(Serialize, ToSchema)]
struct MonthOf<T> {
    #[schema(example = "2025-11")]
    usage_month: String,
    #[serde(flatten)]
    amounts: T,
}

fn days_of<T: From<Amounts>>(days: &[DayUsage]) -> Vec<DayOf<T>> {
    days.iter()
        .map(|day| DayOf {
            usage_date: day.day,
            amounts: day.amounts.into(),
        })
        .collect()
}

/// The months that the days lie in, each with its total.
fn by_month(days: &[DayUsage]) -> impl Iterator<Item = (String, Amounts)> + '_ {
    days.chunk_by(|a, b| (a.day.year(), a.day.month()) == (b.day.year(), b.day.month()))
        .filter_map(|days| Some((days.first()?.day.format("%Y-%m").to_string(), total(days))))
}

fn months_of<T: From<Amounts>>(days: &[DayUsage]) -> Vec<MonthOf<T>> {
    by_month(days)
        .map(|(usage_month, amounts)| MonthOf {
            usage_month,
            amounts: amounts.into(),
        })
        .collect()
}

/// What one project used.
#[derive(Serialize, ToSchema)]
pub struct ProjectUsageResponse {
    project: UsedProject,
    period: Period,
    summary: ProjectSummary,
    /// Every day of the period on which the project existed. Left out with `granularity=month`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    daily_usage: Option<Vec<DayOf<ProjectAmounts>>>,
    /// With `granularity=month`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    monthly_usage: Option<Vec<MonthOf<ProjectAmounts>>>,
}

impl ProjectUsageResponse {
    pub fn new(usage: &ProjectUsage, granularity: Option<Granularity>) -> Self {
        let by_month = granularity == Some(Granularity::Month);
        Self {
            project: (&usage.project).into(),
            period: usage.period.into(),
            summary: total(&usage.days).into(),
            daily_usage: (!by_month).then(|| days_of(&usage.days)),
            monthly_usage: by_month.then(|| months_of(&usage.days)),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Partnership {
    #[schema(value_type = String, example = "ps_abc123xyz")]
    id: PartnerId,
    name: String,
}

/// What all projects of a partner used.
#[derive(Serialize, ToSchema)]
pub struct PartnerUsageResponse {
    partnership: Partnership,
    period: Period,
    summary: PartnerAmounts,
    /// With `granularity=day`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    daily_usage: Option<Vec<DayOf<PartnerAmounts>>>,
    /// With `granularity=month`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    monthly_usage: Option<Vec<MonthOf<PartnerAmounts>>>,
    /// With `group_by=project`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    projects: Option<Vec<ProjectLine>>,
    /// Where the next page of projects begins; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Uuid>)]
    next_cursor: Option<ProjectId>,
}

/// What one of the projects used.
#[derive(Serialize, ToSchema)]
struct ProjectLine {
    project: UsedProject,
    summary: ProjectSummary,
}

impl PartnerUsageResponse {
    pub fn new(
        partner: &Partner,
        usage: &PartnerUsage,
        granularity: Option<Granularity>,
        lines: Option<&(Vec<ProjectTotal>, Option<ProjectId>)>,
    ) -> Self {
        let line = |line: &ProjectTotal| ProjectLine {
            project: (&line.project).into(),
            summary: line.total.into(),
        };
        Self {
            partnership: Partnership {
                id: partner.id.clone(),
                name: partner.name.clone(),
            },
            period: usage.period.into(),
            summary: total(&usage.days).into(),
            daily_usage: (granularity == Some(Granularity::Day)).then(|| days_of(&usage.days)),
            monthly_usage: (granularity == Some(Granularity::Month))
                .then(|| months_of(&usage.days)),
            projects: lines.map(|(lines, _)| lines.iter().map(line).collect()),
            next_cursor: lines.and_then(|(_, next)| *next),
        }
    }
}

/// Whether the caller would rather have a table than JSON (RFC 9110 section 12.5.1); of two that are
/// equally welcome, the one that is named first.
pub fn wants_csv(headers: &HeaderMap) -> bool {
    let accepted: Vec<(String, f32)> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|kind| {
            let mut parts = kind.split(';').map(|part| part.trim().to_ascii_lowercase());
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
            (name, weight.unwrap_or(1.0))
        })
        .collect();
    let find = |wanted: &str| {
        let mut named = accepted.iter().enumerate();
        named
            .find(|(_, (name, weight))| name == wanted && *weight > 0.0)
            .map(|(place, (_, weight))| (place, *weight))
    };
    match (find("text/csv"), find("application/json")) {
        (Some(csv), Some(json)) if csv.1.total_cmp(&json.1).is_eq() => csv.0 < json.0,
        (Some(csv), Some(json)) => csv.1 > json.1,
        (csv, None) => csv.is_some(),
        (None, Some(_)) => false,
    }
}

/// One line per day or month.
pub fn csv_of_days(days: &[DayUsage], granularity: Granularity) -> Result<Vec<u8>, Problem> {
    match granularity {
        Granularity::Day => csv(
            &["usage_date"],
            days.iter()
                .map(|day| (vec![day.day.to_string()], day.amounts)),
        ),
        Granularity::Month => csv(
            &["usage_month"],
            by_month(days).map(|(month, amounts)| (vec![month], amounts)),
        ),
    }
}

/// One line per project.
pub fn csv_of_projects(lines: &[ProjectTotal]) -> Result<Vec<u8>, Problem> {
    let lines = lines.iter().map(|line| {
        let project = &line.project;
        // A spreadsheet would run what begins like a formula.
        let harmless = match project.name.chars().next() {
            Some('=' | '+' | '-' | '@') => format!("'{}", project.name),
            _ => project.name.clone(),
        };
        let names = vec![project.id.to_string(), harmless, project.status.to_string()];
        (names, line.total)
    });
    csv(&["project_id", "project_name", "status"], lines)
}

fn csv(
    names: &[&str],
    lines: impl Iterator<Item = (Vec<String>, Amounts)>,
) -> Result<Vec<u8>, Problem> {
    let broken = |error: csv::Error| Problem::internal(error.to_string());
    let mut table = csv::Writer::from_writer(Vec::new());
    let metrics = Metric::ALL.iter().map(|metric| metric.as_str());
    table
        .write_record(names.iter().copied().chain(metrics))
        .map_err(broken)?;
    for (names, amounts) in lines {
        let amounts = Metric::ALL
            .iter()
            .map(|metric| metric.display(amounts[*metric]).to_string());
        table
            .write_record(names.into_iter().chain(amounts))
            .map_err(broken)?;
    }
    table
        .into_inner()
        .map_err(|error| Problem::internal(error.to_string()))
}
