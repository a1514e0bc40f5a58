//! Lists and settings of features whose machinery is not here: buckets, functions, schedules,
//! realtime; and the empty answers that the client's basic commands expect.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    auth::Admin,
    error::{ApiError, ApiResult},
    routes::Body,
    state::AppState,
};

const LONGEST_BUCKET_NAME: usize = 63;

/// `GET /api/storage/buckets`
pub(crate) async fn buckets(_: Admin, State(state): State<AppState>) -> ApiResult<Json<Value>> {
    one(
        &state,
        "SELECT COALESCE(jsonb_agg(jsonb_build_object('name', name, 'public', public,
            'createdAt', created_at) ORDER BY name), '[]') FROM storage.buckets",
    )
    .await
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BucketRequest {
    bucket_name: Option<String>,
    is_public: Option<bool>,
}

/// `POST /api/storage/buckets`
pub(crate) async fn create_bucket(
    _: Admin,
    State(state): State<AppState>,
    Body(request): Body<BucketRequest>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let name = request
        .bucket_name
        .ok_or_else(|| ApiError::invalid_input("bucketName: Required"))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > LONGEST_BUCKET_NAME || !name.bytes().all(plain) {
        return Err(ApiError::invalid_input(
            "bucketName: 1 to 63 letters, digits, hyphens and underscores",
        ));
    }
    let created = sqlx::query(
        "INSERT INTO storage.buckets (name, public) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
    )
    .bind(&name)
    .bind(request.is_public.unwrap_or(true))
    .execute(&state.pool)
    .await?;
    if created.rows_affected() == 0 {
        return Err(ApiError::conflict(
            "STORAGE_ALREADY_EXISTS",
            format!("Bucket already exists: {name}"),
        ));
    }
    Ok((
        StatusCode::CREATED,
        Json(json!({ "message": "Bucket created successfully", "bucketName": name })),
    ))
}

/// `GET /api/storage/config`
pub(crate) async fn storage_config(
    _: Admin,
    State(state): State<AppState>,
) -> ApiResult<Json<Value>> {
    one(
        &state,
        "SELECT jsonb_build_object('id', id, 'maxFileSizeMb', max_file_size_mb,
            'createdAt', created_at, 'updatedAt', updated_at) FROM storage.config",
    )
    .await
}

/// `GET /api/realtime/config`
pub(crate) async fn realtime_config(
    _: Admin,
    State(state): State<AppState>,
) -> ApiResult<Json<Value>> {
    one(
        &state,
        "SELECT jsonb_build_object('retentionDays', retention_days) FROM realtime.config",
    )
    .await
}

/// `GET /api/schedules/config`
pub(crate) async fn schedules_config(
    _: Admin,
    State(state): State<AppState>,
) -> ApiResult<Json<Value>> {
    one(
        &state,
        "SELECT jsonb_build_object('retentionDays', retention_days) FROM schedules.config",
    )
    .await
}

/// `GET /api/functions`: the definitions are kept, nothing runs them.
pub(crate) async fn functions(_: Admin, State(state): State<AppState>) -> ApiResult<Json<Value>> {
    one(
        &state,
        "SELECT jsonb_build_object(
            'functions', COALESCE(jsonb_agg(jsonb_build_object('id', id, 'slug', slug,
                'name', name, 'description', description, 'status', status,
                'createdAt', created_at, 'updatedAt', updated_at, 'deployedAt', deployed_at)
                ORDER BY slug), '[]'),
            'runtime', jsonb_build_object('status', 'unavailable'),
            'deploymentUrl', NULL) FROM functions.definitions",
    )
    .await
}

/// `GET /api/schedules`: the jobs are kept, nothing fires them.
pub(crate) async fn schedules(_: Admin, State(state): State<AppState>) -> ApiResult<Json<Value>> {
    one(
        &state,
        "SELECT COALESCE(jsonb_agg(jsonb_build_object('id', id, 'name', name,
            'cronSchedule', cron_schedule, 'functionUrl', function_url,
            'httpMethod', http_method, 'headers', headers, 'body', body, 'isActive', is_active,
            'lastExecutedAt', last_executed_at, 'createdAt', created_at,
            'updatedAt', updated_at) ORDER BY created_at), '[]') FROM schedules.jobs",
    )
    .await
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ScheduleRequest {
    name: Option<String>,
    cron_schedule: Option<String>,
    function_url: Option<String>,
    http_method: Option<String>,
    headers: Option<Value>,
    body: Option<Value>,
    is_active: Option<bool>,
}

/// `PATCH /api/schedules/{id}`: what a merge sends after writing a job's row. Makes the job
/// active unless told otherwise, as on the real server.
pub(crate) async fn update_schedule(
    _: Admin,
    State(state): State<AppState>,
    Path(id): Path<String>,
    Body(request): Body<ScheduleRequest>,
) -> ApiResult<Json<Value>> {
    let missing = || ApiError::not_found("SCHEDULE_NOT_FOUND", format!("Schedule not found: {id}"));
    let key: Uuid = id.parse().map_err(|_| missing())?;
    let updated = sqlx::query(
        "UPDATE schedules.jobs SET name = COALESCE($2, name),
            cron_schedule = COALESCE($3, cron_schedule),
            function_url = COALESCE($4, function_url), http_method = COALESCE($5, http_method),
            headers = COALESCE($6, headers), body = COALESCE($7, body),
            is_active = COALESCE($8, true), updated_at = now()
         WHERE id = $1",
    )
    .bind(key)
    .bind(request.name)
    .bind(request.cron_schedule)
    .bind(request.function_url)
    .bind(request.http_method)
    .bind(request.headers)
    .bind(request.body)
    .bind(request.is_active)
    .execute(&state.pool)
    .await?;
    if updated.rows_affected() == 0 {
        return Err(missing());
    }
    Ok(Json(
        json!({ "id": key, "message": "Schedule updated successfully" }),
    ))
}

/// `GET /api/compute/services`, `GET /api/deployments`
pub(crate) async fn empty_list(_: Admin) -> Json<Value> {
    Json(json!([]))
}

/// `GET /api/logs/sources`
pub(crate) async fn log_sources(_: Admin) -> Json<Value> {
    Json(json!([{ "id": "1", "name": "insforge.logs", "token": "insforge.logs" }]))
}

/// `GET /api/logs/{source}`: the stand-in's log is its machine's, not its own to read.
pub(crate) async fn logs(_: Admin, Path(_source): Path<String>) -> Json<Value> {
    Json(json!({ "logs": [], "total": 0 }))
}

/// `GET /api/advisor/latest`: there was no scan.
pub(crate) async fn advisor_latest(_: Admin) -> Json<Value> {
    Json(Value::Null)
}

/// `GET /api/advisor/issues`
pub(crate) async fn advisor_issues(_: Admin) -> Json<Value> {
    Json(json!({ "issues": [], "total": 0 }))
}

async fn one(state: &AppState, sql: &'static str) -> ApiResult<Json<Value>> {
    Ok(Json(sqlx::query_scalar(sql).fetch_one(&state.pool).await?))
}
