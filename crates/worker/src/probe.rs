//! Sees for ourselves that a backend serves: an authenticated read, through the address that the
//! user gets. Its health endpoint alone answers 200 with the database down and no key accepted
//! (contract/project-backend.md section 4).

use std::time::Duration;

use cp_model::ProjectId;
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};

/// Bytes.
const LONGEST_ANSWER: usize = 64 * 1024;

pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .timeout(Duration::from_secs(5))
        .connect_timeout(Duration::from_secs(2))
        .redirect(reqwest::redirect::Policy::none())
        // Thousands of backends, each asked once: connections are not worth keeping.
        .pool_max_idle_per_host(0)
        .no_proxy()
        .build()
        .expect("a client with constant settings can be built")
}

/// Why a backend does not serve yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotServing {
    #[error("status 401")]
    KeyRefused,
    #[error("{0}")]
    Other(String),
}

/// Ok when the backend answers for this project and with its key.
pub(crate) async fn probe(
    http: &reqwest::Client,
    access_host: &str,
    project: ProjectId,
    api_key: &SecretString,
) -> Result<(), NotServing> {
    let request = http
        .get(format!("{access_host}/api/metadata/project-id"))
        .bearer_auth(api_key.expose_secret());
    let answer = send(request).await.map_err(NotServing::Other)?;
    if answer.status() == StatusCode::UNAUTHORIZED {
        return Err(NotServing::KeyRefused);
    }
    let body = read(answer).await.map_err(NotServing::Other)?;
    if body["projectId"] == project.to_string() {
        Ok(())
    } else {
        Err(NotServing::Other("another project answered".to_owned()))
    }
}

/// The key that the backend accepts, asked for with a signed token.
pub(crate) async fn current_api_key(
    http: &reqwest::Client,
    access_host: &str,
    token: &SecretString,
) -> Result<SecretString, String> {
    let request = http
        .get(format!("{access_host}/api/metadata/api-key"))
        .bearer_auth(token.expose_secret());
    let answer = read_json(request).await?;
    match answer["apiKey"].as_str() {
        Some(key) if is_plausible(key) => Ok(key.to_owned().into()),
        _ => Err("it has none".to_owned()),
    }
}

/// It is kept and shown: a backend must not put a book there.
fn is_plausible(key: &str) -> bool {
    (1..=256).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic())
}

/// A backend's answer. It is the project's own code that answers: it must not be able to fill our
/// memory.
pub(crate) async fn read_json(
    request: reqwest::RequestBuilder,
) -> Result<serde_json::Value, String> {
    read(send(request).await?).await
}

async fn send(request: reqwest::RequestBuilder) -> Result<reqwest::Response, String> {
    request
        .send()
        .await
        .map_err(|e| format!("no answer: {}", e.without_url()))
}

async fn read(mut answer: reqwest::Response) -> Result<serde_json::Value, String> {
    if !answer.status().is_success() {
        return Err(format!("status {}", answer.status()));
    }
    let mut text = Vec::new();
    while let Some(chunk) = answer
        .chunk()
        .await
        .map_err(|e| format!("no answer: {}", e.without_url()))?
    {
        text.extend_from_slice(&chunk);
        if text.len() > LONGEST_ANSWER {
            return Err("the answer is too long".to_owned());
        }
    }
    serde_json::from_slice(&text).map_err(|_| "the answer is not JSON".to_owned())
}
