//! Sees for ourselves that a backend serves: an authenticated read, through the address that the
//! user gets. Its health endpoint alone answers 200 with the database down and no key accepted
//! (contract/project-backend.md section 4).

use std::time::Duration;

use cp_model::ProjectId;
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

/// Ok when the backend answers for this project and with its key; else why not.
pub(crate) async fn probe(
    http: &reqwest::Client,
    access_host: &str,
    project: ProjectId,
    api_key: &SecretString,
) -> Result<(), String> {
    let request = http
        .get(format!("{access_host}/api/metadata/project-id"))
        .bearer_auth(api_key.expose_secret());
    let body = read_json(request).await?;
    if body["projectId"] == project.to_string() {
        Ok(())
    } else {
        Err("another project answered".to_owned())
    }
}

/// A backend's answer. It is the project's own code that answers: it must not be able to fill our
/// memory.
pub(crate) async fn read_json(
    request: reqwest::RequestBuilder,
) -> Result<serde_json::Value, String> {
    let mut answer = request
        .send()
        .await
        .map_err(|e| format!("no answer: {}", e.without_url()))?;
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
