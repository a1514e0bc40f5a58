//! One call of a provider: JSON in, JSON out, with a deadline. Nothing is tried again here: who calls knows what a
//! second time would cost.

use std::time::Duration;

use cp_model::{FieldError, FieldResult, check_service_url};
use reqwest::{Method, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::{AiError, AiResult};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of an answer. A page of a hundred keys has less than 100 KiB.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;
/// Characters of a provider's message that are kept.
const LONGEST_MESSAGE: usize = 300;

pub(crate) struct Http {
    client: reqwest::Client,
    base: Url,
    key: SecretString,
}

impl Http {
    pub fn new(field: &'static str, base: &Url, key: SecretString) -> FieldResult<Self> {
        Ok(Self {
            client: client(field, base)?,
            base: base.clone(),
            key,
        })
    }

    /// The body of a 2xx, within `time`.
    pub async fn call(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
        time: Duration,
    ) -> AiResult<Vec<u8>> {
        let mut url = self.base.clone();
        // What has a host (see `check_url`) has a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self
            .client
            .request(method, url)
            .bearer_auth(self.key.expose_secret())
            .timeout(time);
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut answer = request.send().await.map_err(|error| no_answer(&error))?;
        let body = read(&mut answer).await?;
        if answer.status().is_success() {
            Ok(body)
        } else {
            Err(refusal(answer.status(), &body, &self.key))
        }
    }
}

/// What speaks with the provider at `url`.
pub(crate) fn client(field: &'static str, url: &Url) -> FieldResult<reqwest::Client> {
    let is_https = url.scheme() == "https";
    let mut client = reqwest::Client::builder()
        .connect_timeout(CONNECT_WITHIN)
        // The key goes to nobody that an answer names.
        .redirect(reqwest::redirect::Policy::none())
        .https_only(is_https)
        .user_agent(concat!("InsForge-AI/", env!("CARGO_PKG_VERSION")));
    if !is_https {
        // A proxy would read the key, which shall not leave this machine.
        client = client.no_proxy();
    }
    client.build().map_err(|error| {
        let rule = format!("cannot be connected to by this machine: {}", cause(&error));
        FieldError::new(field, rule)
    })
}

pub(crate) fn no_answer(error: &reqwest::Error) -> AiError {
    let reason = if error.is_timeout() {
        "no answer in time".to_owned()
    } else {
        cause(error)
    };
    AiError::Unavailable {
        reason,
        may_have_happened: !error.is_connect(),
    }
}

pub(crate) async fn read(answer: &mut Response) -> AiResult<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| no_answer(&error))? {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            let problem = format!("it has more than {LONGEST_ANSWER} bytes");
            return Err(AiError::Unexpected(problem));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// `{"error": {"message"}}`, as OpenRouter and most others write it.
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorWire,
}

#[derive(Deserialize)]
struct ErrorWire {
    message: String,
}

/// What an answer that is no 2xx means.
pub(crate) fn refusal(status: StatusCode, body: &[u8], key: &SecretString) -> AiError {
    let message = serde_json::from_slice::<ErrorBody>(body);
    let message = message.map_or_else(|_| "no message".to_owned(), |body| body.error.message);
    let message = without(&message, key);
    if status == StatusCode::NOT_FOUND {
        AiError::Missing
    } else if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
        AiError::Unavailable {
            reason: format!("status {status}: {message}"),
            may_have_happened: true,
        }
    } else if status == StatusCode::TOO_MANY_REQUESTS {
        AiError::Unavailable {
            reason: format!("status {status}: {message}"),
            may_have_happened: false,
        }
    } else if status.is_client_error() {
        AiError::Refused {
            status: status.as_u16(),
            message,
        }
    } else {
        AiError::Unexpected(format!("status {status}"))
    }
}

/// Providers leave most of a key out of their messages. We rely on nobody for that.
pub(crate) fn without(message: &str, key: &SecretString) -> String {
    let message = match key.expose_secret() {
        "" => message.to_owned(),
        key => message.replace(key, "[the key]"),
    };
    message.chars().take(LONGEST_MESSAGE).collect()
}

/// Not serde's own words: they may repeat what was sent, and that may hold a key.
pub(crate) fn parse<T: DeserializeOwned>(answer: &[u8]) -> AiResult<T> {
    serde_json::from_slice(answer).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let problem = format!("{:?} at {line}:{column}", error.classify());
        AiError::Unexpected(problem)
    })
}

/// The innermost cause says most, and names no URL.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// What paths are added to, and a key is sent to.
pub(crate) fn check_url(field: &'static str, url: &Url) -> FieldResult<()> {
    if url.query().is_some() {
        return Err(FieldError::new(field, "must have no query (?…)"));
    }
    check_place(field, url)
}

/// Where a key is sent to.
pub(crate) fn check_place(field: &'static str, url: &Url) -> FieldResult<()> {
    if url.fragment().is_some() {
        return Err(FieldError::new(field, "must have no fragment (#…)"));
    }
    check_service_url(field, url)
}

/// Printable ASCII: anything else, often a line's end, is a mistake in copying; a header could not carry it.
pub(crate) fn check_secret(field: &'static str, secret: &SecretString) -> FieldResult<()> {
    let text = secret.expose_secret();
    if (8..=512).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let rule = "must be a key as the provider shows it: 8 to 512 printable characters, no spaces";
    Err(FieldError::new(field, rule))
}
