//! The table of routes, and the extractors of JSON bodies and queries.

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Query, Request},
    http::{Method, Uri, request::Parts},
    routing::{get, patch, post},
};
use serde::de::DeserializeOwned;

use crate::{
    catalog,
    error::{ApiError, ApiResult},
    export, health, metadata, migrations, resources, secrets, sessions, sql,
    state::AppState,
    upstream, usage,
};

/// The real server's `MAX_JSON_BODY_SIZE`.
const LARGEST_BODY: usize = 100 * 1024 * 1024;

pub(crate) fn router(state: AppState) -> Router {
    Router::new()
        .route("/api/health", get(health::health))
        .route("/.well-known/jwks.json", get(health::jwks))
        .route("/api/.well-known/jwks.json", get(health::jwks))
        .merge(auth_routes())
        .merge(metadata_routes())
        .merge(database_routes())
        .merge(secret_routes())
        .merge(resource_routes())
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(state)
}

fn auth_routes() -> Router<AppState> {
    Router::new()
        .route("/api/auth/admin/sessions", post(sessions::sign_in))
        .route(
            "/api/auth/admin/sessions/exchange",
            post(sessions::exchange),
        )
        .route("/api/auth/admin/sessions/current", get(sessions::current))
        .route("/api/auth/admin/refresh", post(sessions::refresh))
        .route("/api/auth/tokens/anon", post(metadata::anon_token))
        .route("/api/usage/stats", get(usage::stats))
        .route(
            "/api/usage/mcp",
            post(usage::record_mcp).get(usage::list_mcp),
        )
}

fn metadata_routes() -> Router<AppState> {
    Router::new()
        .route("/api/metadata", get(metadata::all))
        .route("/api/metadata/api-key", get(metadata::api_key))
        .route("/api/metadata/anon-key", get(metadata::anon_key))
        .route("/api/metadata/project-id", get(metadata::project_id))
        .route(
            "/api/metadata/database-connection-string",
            get(upstream::connection_string),
        )
        .route("/api/metadata/database-password", get(upstream::password))
        .route("/api/metadata/{name}", get(metadata::by_name))
}

fn database_routes() -> Router<AppState> {
    Router::new()
        .route("/api/database/advance/rawsql", post(sql::restricted))
        .route(
            "/api/database/advance/rawsql/unrestricted",
            post(sql::unrestricted),
        )
        .route("/api/database/advance/export", post(export::export))
        .route(
            "/api/database/migrations",
            get(migrations::list).post(migrations::apply),
        )
        .route("/api/database/tables", get(catalog::tables))
        .route("/api/database/functions", get(catalog::functions))
        .route("/api/database/indexes", get(catalog::indexes))
        .route("/api/database/policies", get(catalog::policies))
        .route("/api/database/triggers", get(catalog::triggers))
}

fn secret_routes() -> Router<AppState> {
    Router::new()
        .route("/api/secrets", get(secrets::list).post(secrets::create))
        .route("/api/secrets/{key}", get(secrets::get))
        .route("/api/secrets/api-key/rotate", post(secrets::rotate_api_key))
        .route(
            "/api/secrets/anon-key/rotate",
            post(secrets::rotate_anon_key),
        )
}

fn resource_routes() -> Router<AppState> {
    Router::new()
        .route(
            "/api/storage/buckets",
            get(resources::buckets).post(resources::create_bucket),
        )
        .route("/api/storage/config", get(resources::storage_config))
        .route("/api/realtime/config", get(resources::realtime_config))
        .route("/api/schedules/config", get(resources::schedules_config))
        .route("/api/functions", get(resources::functions))
        .route("/api/schedules", get(resources::schedules))
        .route("/api/schedules/{id}", patch(resources::update_schedule))
        .route("/api/compute/services", get(resources::empty_list))
        .route("/api/deployments", get(resources::empty_list))
        .route("/api/logs/sources", get(resources::log_sources))
        .route("/api/logs/{source}", get(resources::logs))
        .route("/api/advisor/latest", get(resources::advisor_latest))
        .route("/api/advisor/issues", get(resources::advisor_issues))
}

/// The client reads this code as "not available on this backend".
async fn not_found(method: Method, uri: Uri) -> ApiError {
    ApiError::not_found("NOT_FOUND", format!("Cannot {method} {}", uri.path()))
}

/// A JSON body in our error form; no body counts as an empty object.
pub(crate) struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> ApiResult<Self> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|error| ApiError::new(error.status(), "INVALID_INPUT", error.body_text()))?;
        let json: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(json)
            .map(Self)
            // Serde's text may quote the value, a password for one.
            .map_err(|error| {
                let what = if error.is_data() {
                    "a field has the wrong type"
                } else {
                    "not JSON"
                };
                ApiError::invalid_input(format!("body: {what}"))
            })
    }
}

/// Query parameters, with refusals in our error form.
pub(crate) struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        Query::from_request_parts(parts, state)
            .await
            .map(|Query(params)| Self(params))
            .map_err(|error| ApiError::invalid_input(error.body_text()))
    }
}
