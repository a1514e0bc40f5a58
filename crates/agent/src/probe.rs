//! Does the backend serve? Its health endpoint answers 200 with the database down and no key
//! accepted (contract/project-backend.md section 4), so an authenticated read is asked, too.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cp_model::agent_protocol::DesiredBackend;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

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

#[derive(Deserialize)]
struct ApiKeyAnswer {
    #[serde(rename = "apiKey")]
    api_key: SecretString,
}

/// The version that the health endpoint tells, once both were answered.
pub(crate) async fn probe(
    http: &Client,
    port: u16,
    backend: &DesiredBackend,
) -> Result<Option<String>, NotServing> {
    let base = format!("http://127.0.0.1:{port}/api");
    let response = get(http.get(format!("{base}/health"))).await?;
    if !response.status().is_success() {
        return Err(NotServing::Unhealthy(response.status()));
    }
    let health: Health = response.json().await.map_err(|_| NotServing::Stranger)?;
    let Some(api_key) = backend.env.get("ACCESS_API_KEY") else {
        return Ok(health.version);
    };
    let outcome = match read(http, &base, backend, &api_key.as_str().into()).await {
        Err(NotServing::KeyRefused(StatusCode::UNAUTHORIZED)) => {
            match rotated_key(http, &base, backend).await {
                Some(rotated) => read(http, &base, backend, &rotated).await,
                None => Err(NotServing::KeyRefused(StatusCode::UNAUTHORIZED)),
            }
        }
        outcome => outcome,
    };
    outcome.map(|()| health.version)
}

/// An authenticated read, answered for this project.
async fn read(
    http: &Client,
    base: &str,
    backend: &DesiredBackend,
    api_key: &SecretString,
) -> Result<(), NotServing> {
    let call = http.get(format!("{base}/metadata/project-id"));
    let response = get(call.bearer_auth(api_key.expose_secret())).await?;
    if !response.status().is_success() {
        return Err(NotServing::KeyRefused(response.status()));
    }
    let answer: ProjectIdAnswer = response.json().await.map_err(|_| NotServing::Stranger)?;
    // Null: a backend that was given no PROJECT_ID.
    match answer.project_id {
        Some(served) if served != backend.project_id.to_string() => Err(NotServing::Stranger),
        _ => Ok(()),
    }
}

/// The key that counts after the project's owner has changed it, of which nobody is told
/// (contract/project-backend.md section 3.9): restarting the backend over that would never end.
/// Asked for with a token signed by `JWT_SECRET`, which makes an admin (section 2.2). None from a
/// backend that has no key at all since its seeding failed.
async fn rotated_key(http: &Client, base: &str, backend: &DesiredBackend) -> Option<SecretString> {
    let secret = backend.env.get("JWT_SECRET")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    let claims = json!({"sub": "insforge-agent", "role": "project_admin", "exp": now + 60});
    let key = EncodingKey::from_secret(secret.as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).ok()?;
    let call = http
        .get(format!("{base}/metadata/api-key"))
        .bearer_auth(token);
    let response = get(call).await.ok()?.error_for_status().ok()?;
    let answer: ApiKeyAnswer = response.json().await.ok()?;
    Some(answer.api_key).filter(|key| !key.expose_secret().is_empty())
}

async fn get(call: RequestBuilder) -> Result<Response, NotServing> {
    let answer = call.timeout(TIMEOUT).send().await;
    answer.map_err(|_| NotServing::NoAnswer)
}
