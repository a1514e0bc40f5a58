//! Admin sessions (project-backend 2.3): by a control plane token, by password, by refresh.

use axum::{
    Json,
    extract::State,
    http::{
        HeaderMap, HeaderValue,
        header::{COOKIE, SET_COOKIE},
    },
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    auth::{LocalAdmin, admin_of_cloud_token},
    crypto::same_secret,
    error::{ApiError, ApiResult},
    routes::Body,
    signing::{self, REFRESH_SECONDS},
    state::AppState,
};

const REFRESH_COOKIE: &str = "insforge_admin_refresh_token";

#[derive(Deserialize)]
pub(crate) struct ExchangeRequest {
    code: Option<SecretString>,
}

/// `POST /api/auth/admin/sessions/exchange`
pub(crate) async fn exchange(
    State(state): State<AppState>,
    Body(request): Body<ExchangeRequest>,
) -> ApiResult<Response> {
    let code = request
        .code
        .filter(|code| !code.expose_secret().is_empty())
        .ok_or_else(|| ApiError::invalid_input("code: Required"))?;
    let subject = admin_of_cloud_token(&state, code.expose_secret()).await?;
    new_session(&state, &subject).await
}

#[derive(Deserialize)]
pub(crate) struct PasswordRequest {
    username: Option<String>,
    password: Option<SecretString>,
}

/// `POST /api/auth/admin/sessions`
pub(crate) async fn sign_in(
    State(state): State<AppState>,
    Body(request): Body<PasswordRequest>,
) -> ApiResult<Response> {
    let username = request
        .username
        .ok_or_else(|| ApiError::invalid_input("username: Required"))?;
    let password = request
        .password
        .ok_or_else(|| ApiError::invalid_input("password: Required"))?;
    let admin = &state.config.root_admin;
    // Both are compared in any case, so that the time tells nothing about the name.
    let name_fits = same_secret(&username, &admin.username);
    let password_fits = same_secret(password.expose_secret(), admin.password.expose_secret());
    if !(name_fits && password_fits) {
        return Err(ApiError::new(
            axum::http::StatusCode::UNAUTHORIZED,
            "AUTH_UNAUTHORIZED",
            "Invalid admin credentials",
        ));
    }
    new_session(&state, &format!("local:{username}")).await
}

/// `POST /api/auth/admin/refresh`
pub(crate) async fn refresh(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let token = cookie(&headers, REFRESH_COOKIE)
        .ok_or_else(|| ApiError::invalid_credentials("No refresh token provided"))?;
    let offered = headers
        .get("x-csrf-token")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let secret = &state.config.jwt_secret;
    if !same_secret(offered, &signing::csrf_of(token, secret)) {
        return Err(ApiError::forbidden("Invalid CSRF token"));
    }
    let subject = signing::verify_refresh(token, secret)
        .ok_or_else(|| ApiError::invalid_credentials("Invalid refresh token"))?;
    new_session(&state, &subject).await
}

/// `GET /api/auth/admin/sessions/current`
pub(crate) async fn current(admin: LocalAdmin) -> Json<Value> {
    Json(json!({ "admin": { "sub": admin.subject } }))
}

async fn new_session(state: &AppState, subject: &str) -> ApiResult<Response> {
    let access = state.signing_key().await?.sign_access(subject)?;
    let (refresh, csrf) = signing::sign_refresh(subject, &state.config.jwt_secret)?;
    let mut cookie = HeaderValue::from_str(&format!(
        "{REFRESH_COOKIE}={}; Max-Age={REFRESH_SECONDS}; Path=/api/auth/admin; HttpOnly; Secure; SameSite=None",
        refresh.expose_secret()
    ))
    .map_err(|_| ApiError::internal("Cannot set the session cookie"))?;
    cookie.set_sensitive(true);
    let body = json!({
        "admin": { "sub": subject },
        "accessToken": access,
        "csrfToken": csrf,
    });
    Ok(([(SET_COOKIE, cookie)], Json(body)).into_response())
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}
