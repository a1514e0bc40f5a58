//! Does the backend serve? Its health endpoint answers 200 with the database down and no key
//! accepted (contract/project-backend.md section 4), so an authenticated read is asked, too.

use std::time::Duration;

use cp_model::ProjectId;
use reqwest::{Client, StatusCode};
use serde::Deserialize;

const TIMEOUT: Duration = Duration::from_secs(3);

/// Why it does not serve yet; may be shown to operators.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotServing {
    #[error("the backend does not answer")]
    NoAnswer,
    #[error("the backend's health endpoint answered {0}")]
    Unhealthy(StatusCode),
    #[error("the backend does not accept its own API key ({0})")]
    KeyRefused(StatusCode),
    #[error("something else than this project's backend answers on its port")]
    Stranger,
}

#[derive(Deserialize)]
struct Health {
    #[serde(default)]
    version: Option<String>,
}

#[derive(Deserialize)]
struct ProjectIdAnswer {
    #[serde(rename = "projectId")]
    project_id: Option<String>,
}

/// The version that the health endpoint tells, once both were answered.
pub(crate) async fn probe(
    http: &Client,
    port: u16,
    project_id: ProjectId,
    api_key: Option<&str>,
) -> Result<Option<String>, NotServing> {
    let base = format!("http://127.0.0.1:{port}/api");
    let call = http.get(format!("{base}/health")).timeout(TIMEOUT);
    let response = call.send().await.map_err(|_| NotServing::NoAnswer)?;
    if !response.status().is_success() {
        return Err(NotServing::Unhealthy(response.status()));
    }
    let health: Health = response.json().await.map_err(|_| NotServing::Stranger)?;
    let Some(api_key) = api_key else {
        return Ok(health.version);
    };
    let call = http.get(format!("{base}/metadata/project-id"));
    let response = call
        .bearer_auth(api_key)
        .timeout(TIMEOUT)
        .send()
        .await
        .map_err(|_| NotServing::NoAnswer)?;
    if !response.status().is_success() {
        return Err(NotServing::KeyRefused(response.status()));
    }
    let answer: ProjectIdAnswer = response.json().await.map_err(|_| NotServing::Stranger)?;
    // Null: a backend that was given no PROJECT_ID.
    match answer.project_id {
        Some(served) if served != project_id.to_string() => Err(NotServing::Stranger),
        _ => Ok(health.version),
    }
}
