//! One call of Stripe's API: form in, JSON out; with a deadline, and tried again when Stripe was not available.
//!
//! Every POST carries an `Idempotency-Key`, the same in each attempt: what was done, and its answer lost, is not done
//! twice (<https://docs.stripe.com/api/idempotent_requests>).

use std::time::Duration;

use cp_model::{FieldError, FieldResult};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use url::{Url, form_urlencoded};
use uuid::Uuid;

use crate::wire::{Listed, Page};
use crate::{BillingError, BillingResult, STRIPE_VERSION, StripeConfig};

const VERSION: HeaderName = HeaderName::from_static("stripe-version");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("stripe-should-retry");
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// The first attempt and two more.
const ATTEMPTS: u32 = 3;
/// Bytes of an answer. A page of a hundred subscriptions has less than one MiB.
const LONGEST_ANSWER: usize = 8 * 1024 * 1024;
/// Characters of Stripe's message that are kept.
const LONGEST_MESSAGE: usize = 500;
/// The most that Stripe gives at once.
const PAGE: usize = 100;
/// Pages that are read before the list is taken for endless.
const PAGES: usize = 20;

/// How long things may take.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub connect: Duration,
    /// One attempt, from connecting to the answer's last byte.
    pub attempt: Duration,
    /// A call with all its attempts. A person waits for it.
    pub total: Duration,
    /// Before the second attempt; twice that before the third. Half to one and a half of it, by chance.
    pub pause: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            attempt: Duration::from_secs(10),
            total: Duration::from_secs(20),
            pause: Duration::from_millis(500),
        }
    }
}

pub(crate) struct Http {
    client: reqwest::Client,
    base: Url,
    key: SecretString,
    times: Times,
}

/// What is asked for; the same in every attempt.
struct Call {
    method: Method,
    url: Url,
    /// Of a POST.
    form: Option<String>,
    idempotency_key: Option<String>,
}

/// An attempt that gave nothing.
struct Failure {
    error: BillingError,
    is_worth_retrying: bool,
    /// How long Stripe asks us to wait.
    retry_after: Duration,
}

impl Http {
    pub fn new(config: &StripeConfig, times: Times) -> FieldResult<Self> {
        let version = (VERSION, HeaderValue::from_static(STRIPE_VERSION));
        let is_https = config.api_base.scheme() == "https";
        let mut client = reqwest::Client::builder()
            .connect_timeout(times.connect)
            .default_headers(HeaderMap::from_iter([version]))
            // The key goes to nobody that an answer names.
            .redirect(reqwest::redirect::Policy::none())
            .https_only(is_https)
            .user_agent(concat!("InsForge-Billing/", env!("CARGO_PKG_VERSION")));
        if !is_https {
            // A proxy would read the key, which shall not leave this machine.
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| {
            let rule = format!("cannot be connected to by this machine: {}", cause(&error));
            FieldError::new("api_base", rule)
        })?;
        Ok(Self {
            client,
            base: config.api_base.clone(),
            key: config.secret_key.clone(),
            times,
        })
    }

    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> BillingResult<T> {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.send(Call {
            method: Method::GET,
            url,
            form: None,
            idempotency_key: None,
        })
        .await
    }

    /// The newest that are wanted, at most `limit`, from as many pages as it takes.
    pub async fn list<T: DeserializeOwned + Listed>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        limit: usize,
        is_wanted: fn(&T) -> bool,
    ) -> BillingResult<Vec<T>> {
        let page_size = limit.clamp(1, PAGE).to_string();
        let mut found = Vec::new();
        let mut last: Option<String> = None;
        for _ in 0..PAGES {
            let mut query = query.to_vec();
            query.push(("limit", &page_size));
            query.extend(last.as_deref().map(|last| ("starting_after", last)));
            let page: Page<T> = self.get(path, &query).await?;
            last = page.data.last().map(|item| item.id().to_owned());
            found.extend(page.data.into_iter().filter(is_wanted));
            if found.len() >= limit || !page.has_more {
                found.truncate(limit);
                return Ok(found);
            }
            if last.is_none() {
                break;
            }
        }
        let problem = format!("the list of {} does not end", path.join("/"));
        Err(BillingError::Unexpected(problem))
    }

    /// A write that a caller may repeat under the same key, with the same form, and that is done once.
    pub async fn post_once<T: DeserializeOwned>(
        &self,
        path: &[&str],
        form: &[(&str, &str)],
        idempotency_key: &str,
    ) -> BillingResult<T> {
        // The serializer is not `Send`: it may not live on while Stripe is awaited.
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        self.send(Call {
            method: Method::POST,
            url: self.url(path),
            form: Some(form),
            idempotency_key: Some(idempotency_key.to_owned()),
        })
        .await
    }

    /// A write under a key of its own: done once however often it is tried here, and again when it is called again.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        form: &[(&str, &str)],
    ) -> BillingResult<T> {
        let key = Uuid::new_v4().to_string();
        self.post_once(path, form, &key).await
    }

    /// Stripe takes no key for this. Of what was deleted by an attempt whose answer was lost, the next one is told
    /// [`BillingError::Missing`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &[&str]) -> BillingResult<T> {
        self.send(Call {
            method: Method::DELETE,
            url: self.url(path),
            form: None,
            idempotency_key: None,
        })
        .await
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        // What has a host (see `StripeConfig::check`) has a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        url
    }

    async fn send<T: DeserializeOwned>(&self, call: Call) -> BillingResult<T> {
        let deadline = Instant::now() + self.times.total;
        let mut attempt = 1;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let failure = match self.attempt(&call, self.times.attempt.min(left)).await {
                Ok(answer) => return read(&answer),
                Err(failure) => failure,
            };
            let pause = self.times.pause.mul_f64(rand::random_range(0.5..1.5)) * attempt;
            let pause = pause.max(failure.retry_after);
            let is_too_late = pause >= deadline.saturating_duration_since(Instant::now());
            if !failure.is_worth_retrying || attempt == ATTEMPTS || is_too_late {
                return Err(failure.error);
            }
            tracing::warn!(
                method = %call.method, path = call.url.path(), attempt, error = %failure.error,
                "trying Stripe again"
            );
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// The body of a 2xx.
    async fn attempt(&self, call: &Call, time: Duration) -> Result<Vec<u8>, Failure> {
        let mut request = self
            .client
            .request(call.method.clone(), call.url.clone())
            .bearer_auth(self.key.expose_secret())
            .timeout(time);
        if let Some(key) = &call.idempotency_key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        if let Some(form) = &call.form {
            request = request
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.clone());
        }
        let mut answer = request
            .send()
            .await
            .map_err(|error| Failure::no_answer(&error, time))?;
        let body = body(&mut answer, time).await?;
        if answer.status().is_success() {
            Ok(body)
        } else {
            Err(self.failure(&answer, &body))
        }
    }

    /// What an answer that is no 2xx means.
    fn failure(&self, answer: &Response, body: &[u8]) -> Failure {
        let status = answer.status();
        let header = |name: &HeaderName| answer.headers().get(name)?.to_str().ok();
        let stripe = serde_json::from_slice::<ErrorBody>(body).map(|body| body.error);
        let message = stripe.as_ref().ok().and_then(|it| it.message.as_deref());
        let message = self.without_secrets(message.unwrap_or("no message"));
        let should_retry = header(&SHOULD_RETRY);
        // 409: another request with the same key, maybe our own whose answer we gave up on, is being worked on.
        let is_unavailable = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::CONFLICT)
            || should_retry == Some("true");
        if is_unavailable {
            let is_replayed = header(&IDEMPOTENT_REPLAYED) == Some("true");
            let seconds = header(&RETRY_AFTER).and_then(|text| text.parse().ok());
            return Failure {
                error: BillingError::Unavailable {
                    reason: format!("status {status}: {message}"),
                    is_replayed,
                },
                is_worth_retrying: should_retry != Some("false") && !is_replayed,
                retry_after: seconds.map_or(Duration::ZERO, Duration::from_secs),
            };
        }
        let Ok(stripe) = stripe else {
            let problem = format!("status {status}, and no error of Stripe's");
            return Failure::for_good(BillingError::Unexpected(problem));
        };
        // The same code is told of a price that Stripe does not know, which somebody has to mend.
        let is_about_the_thing = matches!(
            stripe.param.as_deref(),
            None | Some("id" | "customer" | "subscription" | "subscription_exposed_id")
        );
        if stripe.code.as_deref() == Some("resource_missing") && is_about_the_thing {
            return Failure::for_good(BillingError::Missing { message });
        }
        Failure::for_good(BillingError::Refused {
            status: status.as_u16(),
            code: stripe.code.unwrap_or(stripe.kind),
            param: stripe.param,
            message,
            request_id: header(&REQUEST_ID).map(str::to_owned),
        })
    }

    /// Stripe shows a wrong key with most of it left out. We rely on nobody for that.
    fn without_secrets(&self, message: &str) -> String {
        message
            .replace(self.key.expose_secret(), "[the secret key]")
            .chars()
            .take(LONGEST_MESSAGE)
            .collect()
    }
}

/// <https://docs.stripe.com/api/errors>
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorWire,
}

#[derive(Deserialize)]
struct ErrorWire {
    #[serde(rename = "type")]
    kind: String,
    code: Option<String>,
    param: Option<String>,
    message: Option<String>,
}

impl Failure {
    fn no_answer(error: &reqwest::Error, time: Duration) -> Self {
        let reason = if error.is_timeout() {
            format!("no answer within {time:.1?}")
        } else {
            format!("no answer: {}", cause(error))
        };
        Self {
            error: BillingError::unavailable(reason),
            is_worth_retrying: true,
            retry_after: Duration::ZERO,
        }
    }

    fn for_good(error: BillingError) -> Self {
        Self {
            error,
            is_worth_retrying: false,
            retry_after: Duration::ZERO,
        }
    }
}

async fn body(answer: &mut Response, time: Duration) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > LONGEST_ANSWER => {
                let problem = format!("it has more than {LONGEST_ANSWER} bytes");
                return Err(Failure::for_good(BillingError::Unexpected(problem)));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(Failure::no_answer(&error, time)),
        }
    }
}

fn read<T: DeserializeOwned>(answer: &[u8]) -> BillingResult<T> {
    serde_json::from_slice(answer).map_err(|error| BillingError::Unexpected(error.to_string()))
}

/// The innermost cause says most, and names no URL.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
