//! Answers of an AI, as they come: one question to an endpoint that speaks OpenAI's chat completions
//! (<https://platform.openai.com/docs/api-reference/chat/streaming>), which most providers and local models do.

use std::sync::Arc;
use std::time::Duration;

use cp_model::{FieldError, FieldResult};
use reqwest::Response;
use reqwest::header::{ACCEPT, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::http::{self, check_place, check_secret, no_answer, refusal};
use crate::{AiError, AiResult};

/// Bytes of a line that the endpoint sends. One holds a few words.
const LONGEST_LINE: usize = 256 * 1024;
/// Bytes of an answer's text. Beyond that it is no answer any more.
const LONGEST_TEXT: usize = 256 * 1024;

/// Whom to ask.
#[derive(Clone)]
pub struct AnalystConfig {
    /// The whole URL, as `https://api.example.com/v1/chat/completions`. https, or http on this machine.
    pub url: Url,
    /// Local models need none.
    pub api_key: Option<SecretString>,
    pub model: String,
    /// How much one answer may cost.
    pub max_tokens: u32,
    /// From the question to the answer's last word.
    pub time_limit: Duration,
}

impl AnalystConfig {
    /// Checks every field without asking anybody.
    ///
    /// # Errors
    /// The first field that breaks a rule, and the rule. Never shows a secret.
    pub fn check(&self) -> FieldResult<()> {
        check_place("url", &self.url)?;
        if let Some(key) = &self.api_key {
            check_secret("api_key", key)?;
        }
        if self.model.is_empty() || self.model.chars().any(char::is_whitespace) {
            let rule = "must be a model's name, without spaces";
            return Err(FieldError::new("model", rule));
        }
        Ok(())
    }
}

/// An endpoint that answers questions. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Analyst {
    client: reqwest::Client,
    config: Arc<AnalystConfig>,
}

/// An answer on its way. The endpoint is hung up on when it is dropped.
pub struct Answer {
    response: Response,
    key: Option<SecretString>,
    buffer: Vec<u8>,
    /// Whether the endpoint said that it is complete.
    is_complete: bool,
    length: usize,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    /// What comes where a provider fails in the middle.
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Failure {
    message: Option<String>,
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Text(String),
    End,
}

impl Analyst {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// What [`AnalystConfig::check`] refuses; and `url` if this machine has no certificates to trust.
    pub fn new(config: AnalystConfig) -> FieldResult<Self> {
        config.check()?;
        Ok(Self {
            client: http::client("url", &config.url)?,
            config: Arc::new(config),
        })
    }

    /// `system` says who the AI is and what it does; `user` is what it is asked.
    pub async fn ask(&self, system: &str, user: &str) -> AiResult<Answer> {
        let config = &self.config;
        let body = json!({
            "model": config.model,
            "messages": [{ "role": "system", "content": system }, { "role": "user", "content": user }],
            "max_tokens": config.max_tokens,
            "stream": true,
        });
        let mut request = self
            .client
            .post(config.url.clone())
            .header(ACCEPT, HeaderValue::from_static("text/event-stream"))
            .timeout(config.time_limit)
            .json(&body);
        if let Some(key) = &config.api_key {
            request = request.bearer_auth(key.expose_secret());
        }
        let mut response = request.send().await.map_err(|error| no_answer(&error))?;
        if !response.status().is_success() {
            let body = http::read(&mut response).await?;
            let key = config.api_key.clone().unwrap_or_default();
            return Err(refusal(response.status(), &body, &key));
        }
        Ok(Answer {
            response,
            key: config.api_key.clone(),
            buffer: Vec::new(),
            is_complete: false,
            length: 0,
        })
    }
}

impl Answer {
    /// Some more of it, as it comes; none: it is complete. To be dropped after an error.
    pub async fn next(&mut self) -> AiResult<Option<String>> {
        loop {
            while let Some(line) = self.take_line() {
                match self.understand(&line)? {
                    Said::Nothing => {}
                    Said::End => return Ok(None),
                    Said::Text(text) => {
                        self.length += text.len();
                        if self.length > LONGEST_TEXT {
                            return Err(AiError::Unexpected("the answer does not end".into()));
                        }
                        return Ok(Some(text));
                    }
                }
            }
            let chunk = self.response.chunk().await;
            match chunk.map_err(|error| no_answer(&error))? {
                Some(chunk) => {
                    self.buffer.extend_from_slice(&chunk);
                    if self.buffer.len() > LONGEST_LINE && !self.buffer.contains(&b'\n') {
                        return Err(AiError::Unexpected("a line does not end".into()));
                    }
                }
                // Some say no [DONE].
                None if self.is_complete => return Ok(None),
                None => {
                    return Err(AiError::Unavailable {
                        reason: "the answer broke off".into(),
                        may_have_happened: true,
                    });
                }
            }
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = self.buffer.iter().position(|byte| *byte == b'\n')?;
        let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(line)
    }

    /// Server-sent events, of which OpenAI's protocol uses lines with `data:` alone; others are comments.
    fn understand(&mut self, line: &[u8]) -> AiResult<Said> {
        let Some(data) = line.strip_prefix(b"data:") else {
            return Ok(Said::Nothing);
        };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            return Ok(Said::End);
        }
        let chunk: Chunk = http::parse(data)?;
        if let Some(failure) = chunk.error {
            let reason = failure.message.unwrap_or_else(|| "no message".into());
            let key = self.key.clone().unwrap_or_default();
            return Err(AiError::Unavailable {
                reason: http::without(&reason, &key),
                may_have_happened: true,
            });
        }
        let Some(choice) = chunk.choices.into_iter().next() else {
            return Ok(Said::Nothing);
        };
        self.is_complete |= choice.finish_reason.is_some();
        let text = choice.delta.and_then(|delta| delta.content);
        Ok(match text.filter(|text| !text.is_empty()) {
            Some(text) => Said::Text(text),
            None => Said::Nothing,
        })
    }
}
