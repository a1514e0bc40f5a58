//! `system.secrets` (project-backend 5.5): storage, the secrets API, rotation of the keys.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use chrono::{DateTime, Duration, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use crate::{
    auth::Admin,
    crypto::{self, SealError, Vault},
    error::{ApiError, ApiResult},
    routes::Body,
    state::AppState,
};

const DEFAULT_API_KEY_GRACE_HOURS: u32 = 24;
const DEFAULT_ANON_KEY_GRACE_HOURS: u32 = 168;
const LONGEST_GRACE_HOURS: u32 = 24 * 365;

impl From<SealError> for ApiError {
    fn from(error: SealError) -> Self {
        tracing::error!(%error, "a stored secret cannot be sealed or opened");
        Self::internal("Stored secret is unreadable")
    }
}

// Storage.

/// The active value, decrypted.
pub(crate) async fn find_value(
    pool: &PgPool,
    vault: &Vault,
    key: &str,
) -> ApiResult<Option<SecretString>> {
    let sealed: Option<String> = sqlx::query_scalar(
        "SELECT value_ciphertext FROM system.secrets
         WHERE key = $1 AND is_active AND (expires_at IS NULL OR expires_at > now())",
    )
    .bind(key)
    .fetch_optional(pool)
    .await?;
    Ok(sealed.map(|sealed| vault.open(&sealed)).transpose()?)
}

/// The API key and its predecessors that are still within their grace period.
pub(crate) async fn list_api_key_ciphertexts(pool: &PgPool) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        r"SELECT value_ciphertext FROM system.secrets
          WHERE (key = 'API_KEY' OR key LIKE 'API\_KEY\_OLD\_%') AND is_active
            AND (expires_at IS NULL OR expires_at > now())",
    )
    .fetch_all(pool)
    .await
}

/// A reserved row, unless the key is there already.
pub(crate) async fn insert_reserved_if_absent(
    executor: impl PgExecutor<'_>,
    vault: &Vault,
    key: &str,
    value: &SecretString,
) -> ApiResult<()> {
    sqlx::query(
        "INSERT INTO system.secrets (key, value_ciphertext, is_reserved) VALUES ($1, $2, true)
         ON CONFLICT (key) DO NOTHING",
    )
    .bind(key)
    .bind(vault.seal(value.expose_secret())?)
    .execute(executor)
    .await?;
    Ok(())
}

/// A reserved row with this value, whatever was there.
pub(crate) async fn put_reserved(
    executor: impl PgExecutor<'_>,
    vault: &Vault,
    key: &str,
    value: &SecretString,
) -> ApiResult<()> {
    sqlx::query(
        "INSERT INTO system.secrets (key, value_ciphertext, is_reserved) VALUES ($1, $2, true)
         ON CONFLICT (key) DO UPDATE SET value_ciphertext = excluded.value_ciphertext,
            is_active = true, is_reserved = true, expires_at = NULL, updated_at = now()",
    )
    .bind(key)
    .bind(vault.seal(value.expose_secret())?)
    .execute(executor)
    .await?;
    Ok(())
}

// The secrets API.

/// `GET /api/secrets`
pub(crate) async fn list(_: Admin, State(state): State<AppState>) -> ApiResult<Json<Value>> {
    let secrets: Value = sqlx::query_scalar(
        "SELECT COALESCE(jsonb_agg(jsonb_build_object(
            'id', id, 'key', key, 'isActive', is_active, 'isReserved', is_reserved,
            'lastUsedAt', last_used_at, 'expiresAt', expires_at,
            'createdAt', created_at, 'updatedAt', updated_at) ORDER BY created_at DESC, key), '[]')
         FROM system.secrets",
    )
    .fetch_one(&state.pool)
    .await?;
    Ok(Json(json!({ "secrets": secrets })))
}

/// `GET /api/secrets/{key}`
pub(crate) async fn get(
    _: Admin,
    State(state): State<AppState>,
    Path(key): Path<String>,
) -> ApiResult<Json<Value>> {
    let value = find_value(&state.pool, &state.vault, &key)
        .await?
        .ok_or_else(|| {
            ApiError::not_found("SECRET_NOT_FOUND", format!("Secret not found: {key}"))
        })?;
    sqlx::query("UPDATE system.secrets SET last_used_at = now() WHERE key = $1")
        .bind(&key)
        .execute(&state.pool)
        .await?;
    Ok(Json(json!({ "key": key, "value": value.expose_secret() })))
}

#[derive(Deserialize)]
pub(crate) struct CreateRequest {
    key: Option<String>,
    value: Option<SecretString>,
}

/// `POST /api/secrets`
pub(crate) async fn create(
    _: Admin,
    State(state): State<AppState>,
    Body(request): Body<CreateRequest>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let key = request
        .key
        .ok_or_else(|| ApiError::invalid_input("key: Required"))?;
    let value = request
        .value
        .ok_or_else(|| ApiError::invalid_input("value: Required"))?;
    let well_formed = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    if !well_formed {
        return Err(ApiError::invalid_input(
            "key: only uppercase letters, digits and underscores",
        ));
    }
    let id: Option<Uuid> = sqlx::query_scalar(
        "INSERT INTO system.secrets (key, value_ciphertext) VALUES ($1, $2)
         ON CONFLICT (key) DO NOTHING RETURNING id",
    )
    .bind(&key)
    .bind(state.vault.seal(value.expose_secret())?)
    .fetch_optional(&state.pool)
    .await?;
    let id = id.ok_or_else(|| {
        ApiError::conflict(
            "SECRET_ALREADY_EXISTS",
            format!("Secret already exists: {key}"),
        )
    })?;
    Ok((
        StatusCode::CREATED,
        Json(json!({
            "success": true,
            "message": format!("Secret {key} has been created successfully"),
            "id": id,
        })),
    ))
}

// Rotation.

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RotateRequest {
    grace_period_hours: Option<u32>,
}

/// `POST /api/secrets/api-key/rotate`
pub(crate) async fn rotate_api_key(
    _: Admin,
    State(state): State<AppState>,
    Body(request): Body<RotateRequest>,
) -> ApiResult<Json<Value>> {
    let hours = request
        .grace_period_hours
        .unwrap_or(DEFAULT_API_KEY_GRACE_HOURS);
    let (key, expires_at) = rotate(&state, "API_KEY", "ik_", hours).await?;
    Ok(Json(json!({
        "success": true,
        "message": "API key rotated successfully",
        "apiKey": key.expose_secret(),
        "oldKeyExpiresAt": expires_at,
    })))
}

/// `POST /api/secrets/anon-key/rotate`
pub(crate) async fn rotate_anon_key(
    _: Admin,
    State(state): State<AppState>,
    Body(request): Body<RotateRequest>,
) -> ApiResult<Json<Value>> {
    let hours = request
        .grace_period_hours
        .unwrap_or(DEFAULT_ANON_KEY_GRACE_HOURS);
    let (key, expires_at) = rotate(&state, "ANON_KEY", "anon_", hours).await?;
    Ok(Json(json!({
        "success": true,
        "message": "Anon key rotated successfully",
        "anonKey": key.expose_secret(),
        "oldKeyExpiresAt": expires_at,
    })))
}

/// The old row moves aside as `{name}_OLD_{ms}` with an end, the new one takes its place.
async fn rotate(
    state: &AppState,
    name: &str,
    prefix: &str,
    grace_hours: u32,
) -> ApiResult<(SecretString, DateTime<Utc>)> {
    if grace_hours > LONGEST_GRACE_HOURS {
        return Err(ApiError::invalid_input(format!(
            "gracePeriodHours: at most {LONGEST_GRACE_HOURS}"
        )));
    }
    let now = Utc::now();
    let expires_at = now + Duration::hours(i64::from(grace_hours));
    let fresh = crypto::random_key(prefix)?;
    let mut transaction = state.pool.begin().await?;
    sqlx::query(
        "UPDATE system.secrets SET key = $2, expires_at = $3, updated_at = now() WHERE key = $1",
    )
    .bind(name)
    .bind(format!("{name}_OLD_{}", now.timestamp_millis()))
    .bind(expires_at)
    .execute(&mut *transaction)
    .await?;
    put_reserved(&mut *transaction, &state.vault, name, &fresh).await?;
    transaction.commit().await?;
    Ok((fresh, expires_at))
}
