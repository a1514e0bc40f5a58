//! Usage for the control plane's collector (project-backend 2.4), and the count of MCP calls.

use axum::{Json, extract::State};
use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    auth::{Admin, ApiKey, ControlPlane},
    error::{ApiError, ApiResult},
    routes::{Body, Params},
    state::AppState,
};

#[derive(Deserialize)]
pub(crate) struct StatsQuery {
    start_date: Option<String>,
    end_date: Option<String>,
}

/// `GET /api/usage/stats`: the start is included, the end is not; only the MCP count follows
/// the dates, all else is now.
pub(crate) async fn stats(
    _: ControlPlane,
    State(state): State<AppState>,
    Params(query): Params<StatsQuery>,
) -> ApiResult<Json<Value>> {
    let given = |date: Option<String>| date.filter(|date| !date.is_empty());
    let (Some(start), Some(end)) = (given(query.start_date), given(query.end_date)) else {
        return Err(ApiError::invalid_input(
            "start_date and end_date are required",
        ));
    };
    let stats: Value = sqlx::query_scalar(
        "SELECT jsonb_build_object(
            'mcp_usage_count', (SELECT count(*) FROM system.mcp_usage
                WHERE success AND created_at >= $1 AND created_at < $2),
            'database_size_bytes', pg_database_size(current_database()),
            'storage_size_bytes', (SELECT COALESCE(sum(size), 0) FROM storage.objects),
            'user_count', (SELECT count(*) FROM auth.users
                WHERE NOT is_anonymous AND NOT is_project_admin))",
    )
    .bind(date(&start)?)
    .bind(date(&end)?)
    .fetch_one(&state.pool)
    .await?;
    Ok(Json(stats))
}

/// The forms of date that callers send; a bare date is midnight UTC. Anything else is a 500, as
/// on the real server.
fn date(text: &str) -> ApiResult<DateTime<Utc>> {
    let text = text.trim();
    let full = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_rfc2822(text))
        .map(|date| date.to_utc());
    let local = || {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
            .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f"))
            .map(|date| date.and_utc())
    };
    let bare = || {
        NaiveDate::parse_from_str(text, "%Y-%m-%d")
            .map(|date| date.and_time(chrono::NaiveTime::MIN).and_utc())
    };
    full.or_else(|_| local())
        .or_else(|_| bare())
        .map_err(|_| ApiError::internal("Invalid time value"))
}

#[derive(Deserialize)]
pub(crate) struct McpRequest {
    tool_name: Option<String>,
    success: Option<bool>,
}

/// `POST /api/usage/mcp`
pub(crate) async fn record_mcp(
    _: ApiKey,
    State(state): State<AppState>,
    Body(request): Body<McpRequest>,
) -> ApiResult<Json<Value>> {
    let tool = request
        .tool_name
        .filter(|name| !name.is_empty() && name.chars().count() <= 255)
        .ok_or_else(|| ApiError::invalid_input("tool_name: Required"))?;
    sqlx::query("INSERT INTO system.mcp_usage (tool_name, success) VALUES ($1, $2)")
        .bind(tool)
        .bind(request.success.unwrap_or(true))
        .execute(&state.pool)
        .await?;
    Ok(Json(json!({ "success": true })))
}

#[derive(Deserialize)]
pub(crate) struct McpQuery {
    limit: Option<i64>,
    success: Option<bool>,
}

/// `GET /api/usage/mcp`
pub(crate) async fn list_mcp(
    _: Admin,
    State(state): State<AppState>,
    Params(query): Params<McpQuery>,
) -> ApiResult<Json<Value>> {
    let records: Value = sqlx::query_scalar(
        "SELECT COALESCE(jsonb_agg(to_jsonb(record) ORDER BY created_at DESC), '[]') FROM (
            SELECT tool_name, success, created_at FROM system.mcp_usage
            WHERE success = $1 ORDER BY created_at DESC LIMIT $2) AS record",
    )
    .bind(query.success.unwrap_or(true))
    .bind(query.limit.unwrap_or(5).clamp(1, 1000))
    .fetch_one(&state.pool)
    .await?;
    Ok(Json(json!({ "records": records })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_date_is_midnight_utc_and_nonsense_is_a_500() {
        assert_eq!(
            date("2026-03-01").unwrap().to_rfc3339(),
            "2026-03-01T00:00:00+00:00"
        );
        assert_eq!(
            date("2026-03-01T02:00:00+02:00").unwrap(),
            date("2026-03-01").unwrap()
        );
        assert_eq!(date("yesterday").unwrap_err().status, 500);
    }
}
