//! Who asks: the extractors that guard the admin routes (project-backend 2.2).

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};
use serde_json::Value;

use crate::{
    cloud_token::{CloudTokenError, unverified_claims},
    crypto::same_secret,
    database::PROJECT_ADMIN,
    error::{ApiError, ApiResult},
    secrets, signing,
    state::AppState,
};

/// The `type` of a control plane token that carries admin access.
const PROJECT_AUTHORIZATION: &str = "project_authorization";

/// An admin of the project, by any of the accepted credentials.
pub(crate) struct Admin;

/// The holder of the API key, nobody else.
pub(crate) struct ApiKey;

/// An admin by this instance's own access token.
pub(crate) struct LocalAdmin {
    pub subject: String,
}

/// The control plane: signature and project only.
pub(crate) struct ControlPlane;

impl FromRequestParts<AppState> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        // Beside a bearer token this header wins.
        if let Some(key) = api_key_header(&parts.headers) {
            return check_api_key(state, key).await.map(|()| Self);
        }
        let token = bearer(&parts.headers)?;
        if token.starts_with("ik_") {
            return check_api_key(state, token).await.map(|()| Self);
        }
        let claims = unverified_claims(token)
            .ok_or_else(|| ApiError::invalid_credentials("Invalid token"))?;
        // Chosen by what the token claims to be; a failure never falls back to another kind.
        if claims["type"] == PROJECT_AUTHORIZATION {
            admin_of_cloud_token(state, token).await?;
        } else {
            local_admin(state, token).await?;
        }
        Ok(Self)
    }
}

impl FromRequestParts<AppState> for ApiKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let key = match api_key_header(&parts.headers) {
            Some(key) => key,
            None => bearer(&parts.headers)?,
        };
        check_api_key(state, key).await.map(|()| Self)
    }
}

impl FromRequestParts<AppState> for LocalAdmin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let subject = local_admin(state, bearer(&parts.headers)?).await?;
        Ok(Self { subject })
    }
}

impl FromRequestParts<AppState> for ControlPlane {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let claims = verify_cloud(state, bearer(&parts.headers)?).await?;
        // Without PROJECT_ID any token of the control plane passes here, as on the real server.
        if let Some(project) = &state.config.project_id {
            check_project(&claims, project)?;
        }
        Ok(Self)
    }
}

/// `cloud:{userId}`, if the token gives its holder admin access to this project.
pub(crate) async fn admin_of_cloud_token(state: &AppState, token: &str) -> ApiResult<String> {
    let Some(project) = &state.config.project_id else {
        return Err(ApiError::internal("PROJECT_ID is not configured"));
    };
    let claims = verify_cloud(state, token).await?;
    check_project(&claims, project)?;
    let user = claims["userId"].as_str().filter(|id| !id.trim().is_empty());
    match user {
        Some(user) if claims["type"] == PROJECT_AUTHORIZATION => Ok(format!("cloud:{user}")),
        _ => Err(ApiError::invalid_credentials(
            "Invalid cloud project authorization token",
        )),
    }
}

async fn verify_cloud(state: &AppState, token: &str) -> ApiResult<Value> {
    state.cloud.verify(token).await.map_err(|error| {
        if error == CloudTokenError::Fetch {
            tracing::warn!("the control plane's keys cannot be fetched");
        }
        ApiError::invalid_credentials(format!("Invalid token: {error}"))
    })
}

fn check_project(claims: &Value, project: &str) -> ApiResult<()> {
    if claims["projectId"] == project {
        return Ok(());
    }
    Err(ApiError::not_authorized("Project ID mismatch"))
}

async fn local_admin(state: &AppState, token: &str) -> ApiResult<String> {
    // Which key to try follows from the header, but each verifier pins its own algorithm.
    let claims = match signing::verify_shared_secret(token, &state.config.jwt_secret) {
        Some(claims) => Some(claims),
        None => state.signing_key().await?.verify_access(token),
    }
    .ok_or_else(|| ApiError::invalid_credentials("Invalid token"))?;
    if claims.role != PROJECT_ADMIN {
        return Err(ApiError::not_authorized("Admin access required"));
    }
    Ok(claims.sub)
}

/// Looked up on every request, never cached: a rotated or replaced row counts at once.
async fn check_api_key(state: &AppState, offered: &str) -> ApiResult<()> {
    let mut accepted = false;
    for sealed in secrets::list_api_key_ciphertexts(&state.pool).await? {
        // A row of a foreign ENCRYPTION_KEY accepts nothing; start-up has logged it.
        if let Ok(key) = state.vault.open(&sealed) {
            accepted |= same_secret(secrecy::ExposeSecret::expose_secret(&key), offered);
        }
    }
    if accepted {
        return Ok(());
    }
    Err(ApiError::invalid_api_key())
}

fn api_key_header(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-api-key")?.to_str().ok()
}

fn bearer(headers: &HeaderMap) -> ApiResult<&str> {
    headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(str::trim)
        .filter(|token| !token.is_empty())
        .ok_or_else(|| ApiError::invalid_credentials("No token provided"))
}
