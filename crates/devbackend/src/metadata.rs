//! `GET /api/metadata` and its parts (project-backend 4). A key that is present says "the
//! feature exists", so `deployments` and `compute` are left out: there is nothing behind them.

use axum::{
    Json,
    extract::{Path, State},
};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    auth::Admin,
    error::{ApiError, ApiResult},
    routes::Params,
    secrets,
    state::AppState,
};

/// What the real server's image reports here; the release is in the health answer.
const METADATA_VERSION: &str = "1.0.0";

const AUTH: &str = "
    SELECT jsonb_build_object(
        'oAuthProviders', (SELECT COALESCE(jsonb_agg(provider ORDER BY provider), '[]')
            FROM auth.oauth_configs),
        'customOAuthProviders', (SELECT COALESCE(jsonb_agg(key ORDER BY key), '[]')
            FROM auth.custom_oauth_configs),
        'smtpConfig', (SELECT jsonb_build_object('enabled', enabled, 'host', host, 'port', port,
            'username', username, 'hasPassword', password_encrypted IS NOT NULL,
            'senderEmail', sender_email, 'senderName', sender_name,
            'minIntervalSeconds', min_interval_seconds) FROM email.config),
        'requireEmailVerification', COALESCE(c.require_email_verification, false),
        'passwordMinLength', COALESCE(c.password_min_length, 6),
        'requireNumber', COALESCE(c.require_number, false),
        'requireLowercase', COALESCE(c.require_lowercase, false),
        'requireUppercase', COALESCE(c.require_uppercase, false),
        'requireSpecialChar', COALESCE(c.require_special_char, false),
        'verifyEmailMethod', COALESCE(c.verify_email_method, 'code'),
        'resetPasswordMethod', COALESCE(c.reset_password_method, 'code'),
        'allowedRedirectUrls', COALESCE(to_jsonb(c.allowed_redirect_urls), '[]'),
        'disableSignup', COALESCE(c.disable_signup, false))
    FROM (VALUES (1)) AS one LEFT JOIN auth.config c ON true";

/// Counts rows exactly, as the real server does; user databases behind a stand-in are small.
const DATABASE: &str = "
    SELECT jsonb_build_object(
        'tables', COALESCE(jsonb_agg(jsonb_build_object(
            'tableName', c.relname,
            'recordCount', (xpath('/row/n/text()', query_to_xml(
                format('SELECT count(*) AS n FROM %s', c.oid::regclass), false, true, '')))[1]::text::bigint)
            ORDER BY c.relname), '[]'),
        'totalSizeInGB', round(pg_database_size(current_database()) / 1073741824.0, 3),
        'hint', 'Use GET /api/metadata/{table} for the columns of a table')
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')";

const STORAGE: &str = "
    SELECT jsonb_build_object(
        'buckets', COALESCE(jsonb_agg(jsonb_build_object(
            'name', b.name, 'public', b.public, 'createdAt', b.created_at,
            'objectCount', (SELECT count(*) FROM storage.objects o WHERE o.bucket = b.name))
            ORDER BY b.name), '[]'),
        'totalSizeInGB', (SELECT round(COALESCE(sum(size), 0) / 1073741824.0, 3)
            FROM storage.objects))
    FROM storage.buckets b";

const FUNCTIONS: &str = "
    SELECT COALESCE(jsonb_agg(jsonb_build_object('slug', slug, 'name', name,
        'description', description, 'status', status) ORDER BY slug), '[]')
    FROM functions.definitions";

const REALTIME: &str = "
    SELECT jsonb_build_object(
        'channels', COALESCE(jsonb_agg(jsonb_build_object('pattern', pattern,
            'description', description, 'enabled', enabled) ORDER BY pattern), '[]'),
        'permissions', jsonb_build_object(
            'subscribe', jsonb_build_object('policies', '[]'::jsonb),
            'publish', jsonb_build_object('policies', '[]'::jsonb)))
    FROM realtime.channels";

const TABLE: &str = "
    SELECT jsonb_build_object('tableName', c.relname,
        'columns', (SELECT jsonb_agg(jsonb_build_object('name', a.attname,
                'type', format_type(a.atttypid, a.atttypmod), 'isNullable', NOT a.attnotnull,
                'default', pg_get_expr(d.adbin, d.adrelid)) ORDER BY a.attnum)
            FROM pg_attribute a LEFT JOIN pg_attrdef d
                ON d.adrelid = a.attrelid AND d.adnum = a.attnum
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
        'indexes', (SELECT COALESCE(jsonb_agg(jsonb_build_object('indexName', indexname,
                'indexDef', indexdef) ORDER BY indexname), '[]')
            FROM pg_indexes WHERE schemaname = 'public' AND tablename = c.relname),
        'foreignKeys', (SELECT COALESCE(jsonb_agg(jsonb_build_object('constraintName', conname,
                'definition', pg_get_constraintdef(oid)) ORDER BY conname), '[]')
            FROM pg_constraint WHERE conrelid = c.oid AND contype = 'f'),
        'rlsEnabled', c.relrowsecurity,
        'policies', (SELECT COALESCE(jsonb_agg(jsonb_build_object('policyName', policyname,
                'cmd', cmd, 'roles', to_jsonb(roles), 'qual', qual, 'withCheck', with_check)
                ORDER BY policyname), '[]')
            FROM pg_policies WHERE schemaname = 'public' AND tablename = c.relname),
        'triggers', (SELECT COALESCE(jsonb_agg(jsonb_build_object('triggerName', tgname,
                'triggerDef', pg_get_triggerdef(oid)) ORDER BY tgname), '[]')
            FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal))
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname = $1";

#[derive(Deserialize)]
pub(crate) struct FormatQuery {
    format: Option<String>,
}

/// `GET /api/metadata`; the real server's other format, Markdown, is refused.
pub(crate) async fn all(
    _: Admin,
    State(state): State<AppState>,
    Params(query): Params<FormatQuery>,
) -> ApiResult<Json<Value>> {
    if query.format.is_some_and(|format| format != "json") {
        return Err(ApiError::invalid_input(
            "format: the stand-in gives json only",
        ));
    }
    Ok(Json(json!({
        "auth": part(&state, AUTH).await?,
        "database": part(&state, DATABASE).await?,
        "storage": part(&state, STORAGE).await?,
        "functions": part(&state, FUNCTIONS).await?,
        "realtime": part(&state, REALTIME).await?,
        "version": METADATA_VERSION,
    })))
}

/// `GET /api/metadata/{part}`: a part of the whole, else a table of the user.
pub(crate) async fn by_name(
    _: Admin,
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> ApiResult<Json<Value>> {
    let sql = match name.as_str() {
        "auth" => AUTH,
        "database" => DATABASE,
        "storage" => STORAGE,
        "functions" => FUNCTIONS,
        "realtime" => REALTIME,
        table => return table_metadata(&state, table).await,
    };
    part(&state, sql).await.map(Json)
}

async fn table_metadata(state: &AppState, table: &str) -> ApiResult<Json<Value>> {
    let found: Option<Value> = sqlx::query_scalar(TABLE)
        .bind(table)
        .fetch_optional(&state.pool)
        .await?;
    found.map(Json).ok_or_else(|| {
        ApiError::not_found("DATABASE_NOT_FOUND", format!("Table not found: {table}"))
    })
}

async fn part(state: &AppState, sql: &'static str) -> ApiResult<Value> {
    Ok(sqlx::query_scalar(sql).fetch_one(&state.pool).await?)
}

/// `GET /api/metadata/api-key`
pub(crate) async fn api_key(_: Admin, State(state): State<AppState>) -> ApiResult<Json<Value>> {
    let key = stored_key(&state, "API_KEY").await?;
    Ok(Json(json!({ "apiKey": key })))
}

/// `GET /api/metadata/anon-key`
pub(crate) async fn anon_key(_: Admin, State(state): State<AppState>) -> ApiResult<Json<Value>> {
    let key = stored_key(&state, "ANON_KEY").await?;
    Ok(Json(json!({ "anonKey": key })))
}

/// `POST /api/auth/tokens/anon`: an old route that the client still uses.
pub(crate) async fn anon_token(_: Admin, State(state): State<AppState>) -> ApiResult<Json<Value>> {
    let key = stored_key(&state, "ANON_KEY").await?;
    Ok(Json(json!({
        "accessToken": key,
        "message": "Anonymous key retrieved successfully",
    })))
}

/// `GET /api/metadata/project-id`
pub(crate) async fn project_id(_: Admin, State(state): State<AppState>) -> Json<Value> {
    Json(json!({ "projectId": state.config.project_id }))
}

async fn stored_key(state: &AppState, name: &str) -> ApiResult<String> {
    secrets::find_value(&state.pool, &state.vault, name)
        .await?
        .map(|key| key.expose_secret().to_owned())
        .ok_or_else(|| ApiError::not_found("SECRET_NOT_FOUND", format!("{name} is not stored")))
}
