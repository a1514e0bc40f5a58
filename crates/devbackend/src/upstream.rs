//! The two outbound calls that a client's command needs (project-backend 3.2), signed as 3.1
//! has it and passed through.

use std::time::Duration;

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};

use crate::{
    auth::Admin,
    config::CloudMode,
    error::{ApiError, ApiResult},
    signing,
    state::AppState,
};

const TIMEOUT: Duration = Duration::from_secs(10);

/// `GET /api/metadata/database-connection-string`
pub(crate) async fn connection_string(
    _: Admin,
    State(state): State<AppState>,
) -> ApiResult<Json<Value>> {
    let answer = fetch(&state, "database-connection-string").await?;
    match (&answer["connectionURL"], &answer["parameters"]) {
        (url @ Value::String(_), parameters @ Value::Object(_)) => Ok(Json(
            json!({ "connectionURL": url, "parameters": parameters }),
        )),
        _ => Err(wrong_shape()),
    }
}

/// `GET /api/metadata/database-password`
pub(crate) async fn password(_: Admin, State(state): State<AppState>) -> ApiResult<Json<Value>> {
    let answer = fetch(&state, "database-password").await?;
    match &answer["databasePassword"] {
        password @ Value::String(_) => Ok(Json(json!({ "databasePassword": password }))),
        _ => Err(wrong_shape()),
    }
}

async fn fetch(state: &AppState, what: &str) -> ApiResult<Value> {
    let config = &state.config;
    let project = config
        .project_id
        .as_deref()
        .filter(|id| *id != "local" && config.cloud_mode == CloudMode::Cloud)
        .ok_or_else(|| {
            ApiError::internal("Database access is only available on InsForge Cloud projects.")
        })?;
    let sign = signing::sign_outbound(project, &config.jwt_secret)
        .ok_or_else(|| ApiError::internal("Cannot sign the request"))?;
    let unreachable = |_| ApiError::internal("The control plane cannot be reached");
    // A client per call: these are rare, and an idle one weighs on the process for ever.
    let response = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .build()
        .map_err(unreachable)?
        .get(format!(
            "{}/projects/v1/{project}/{what}",
            config.cloud_api_host
        ))
        .header("sign", sign)
        .send()
        .await
        .map_err(unreachable)?;
    let status = response.status();
    let body: Value = response.json().await.unwrap_or_default();
    if status.is_success() {
        return Ok(body);
    }
    let message = body["message"]
        .as_str()
        .or_else(|| body["error"].as_str())
        .unwrap_or("The control plane refused the request");
    let status = StatusCode::from_u16(status.as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    Err(ApiError::new(status, "INTERNAL_ERROR", message))
}

fn wrong_shape() -> ApiError {
    ApiError::internal("The control plane's answer has an unknown form")
}
