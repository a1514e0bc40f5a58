//! API keys at OpenRouter, made and ended by a provisioning key
//! (<https://openrouter.ai/docs/features/provisioning-api-keys>).
//!
//! A key's text is told once, when it is made, and OpenRouter takes no idempotency key. So a key is made in one attempt,
//! under a name that the caller has written down before: a key whose answer was lost is found by that name in the list,
//! and can only be deleted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cp_model::FieldResult;
use reqwest::Method;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::http::{Http, check_secret, check_url, parse};
use crate::{AiError, AiResult};

/// A call that changes something, or a page of the list.
const WITHIN: Duration = Duration::from_secs(20);
/// How much is left of a key's limit is told if it is known soon; a backend waits for it.
const GLANCE_WITHIN: Duration = Duration::from_secs(2);
/// Pages that are read before the list is taken for endless: a hundred thousand keys.
const PAGES: usize = 1000;

/// How to reach OpenRouter.
#[derive(Clone)]
pub struct OpenRouterConfig {
    /// A provisioning key: it manages keys, and cannot ask models.
    pub provisioning_key: SecretString,
    /// [`OpenRouterConfig::API_BASE`], or a stand-in. https, or http on this machine.
    pub api_base: Url,
}

impl OpenRouterConfig {
    /// OpenRouter's own API.
    pub const API_BASE: &str = "https://openrouter.ai/api/v1";

    /// Checks every field without asking OpenRouter.
    ///
    /// # Errors
    /// The first field that breaks a rule, and the rule. Never shows a secret.
    pub fn check(&self) -> FieldResult<()> {
        check_secret("provisioning_key", &self.provisioning_key)?;
        check_url("api_base", &self.api_base)
    }
}

/// OpenRouter, for one account. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct OpenRouter {
    http: Arc<Http>,
}

/// A key that was made just now. Its text is told this once.
pub struct MadeKey {
    /// By which OpenRouter knows it.
    pub hash: String,
    pub key: SecretString,
}

/// A key as the list tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ListedKey {
    pub hash: String,
    pub name: String,
}

#[derive(Deserialize)]
struct Made {
    data: ListedKey,
    key: SecretString,
}

#[derive(Deserialize)]
struct Page {
    data: Vec<ListedKey>,
}

#[derive(Deserialize)]
struct Shown {
    data: Limits,
}

#[derive(Deserialize)]
struct Limits {
    limit_remaining: Option<f64>,
}

impl OpenRouter {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// What [`OpenRouterConfig::check`] refuses; and `api_base` if this machine has no certificates to trust.
    pub fn new(config: &OpenRouterConfig) -> FieldResult<Self> {
        config.check()?;
        let key = config.provisioning_key.clone();
        Ok(Self {
            http: Arc::new(Http::new("api_base", &config.api_base, key)?),
        })
    }

    /// Makes a key that may spend `monthly_limit` US cents in each month. One attempt: a second one would make a second key.
    pub async fn create_key(&self, name: &str, monthly_limit: u32) -> AiResult<MadeKey> {
        let body =
            json!({ "name": name, "limit": dollars(monthly_limit), "limit_reset": "monthly" });
        let call = self
            .http
            .call(Method::POST, &["keys"], &[], Some(&body), WITHIN);
        let made: Made = parse(&call.await?)?;
        check_hash(&made.data.hash)?;
        if check_secret("key", &made.key).is_err() {
            return Err(AiError::Unexpected("the new key is no key".into()));
        }
        Ok(MadeKey {
            hash: made.data.hash,
            key: made.key,
        })
    }

    /// How many US dollars the key may spend until the month ends. None: OpenRouter sets it no limit.
    pub async fn limit_remaining(&self, hash: &str) -> AiResult<Option<f64>> {
        let path = ["keys", hash];
        let call = self.http.call(Method::GET, &path, &[], None, GLANCE_WITHIN);
        let shown: Shown = parse(&call.await?)?;
        Ok(shown.data.limit_remaining)
    }

    /// Lets the key spend `monthly_limit` US cents in each month.
    pub async fn set_limit(&self, hash: &str, monthly_limit: u32) -> AiResult<()> {
        let body = json!({ "limit": dollars(monthly_limit), "limit_reset": "monthly" });
        let path = ["keys", hash];
        let call = self
            .http
            .call(Method::PATCH, &path, &[], Some(&body), WITHIN);
        call.await.map(drop)
    }

    /// One that is not there is done.
    pub async fn delete_key(&self, hash: &str) -> AiResult<()> {
        let path = ["keys", hash];
        let call = self.http.call(Method::DELETE, &path, &[], None, WITHIN);
        match call.await {
            Ok(_) | Err(AiError::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// All keys of the account.
    pub async fn list_keys(&self) -> AiResult<Vec<ListedKey>> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut offset = 0;
        for _ in 0..PAGES {
            let text = offset.to_string();
            let query = [("offset", text.as_str())];
            let call = self.http.call(Method::GET, &["keys"], &query, None, WITHIN);
            let page: Page = parse(&call.await?)?;
            let length = page.data.len();
            let before = found.len();
            for key in page.data {
                check_hash(&key.hash)?;
                if seen.insert(key.hash.clone()) {
                    found.push(key);
                }
            }
            if found.len() == before {
                return Ok(found);
            }
            // Pages overlap: what is deleted meanwhile moves those behind it forward, over the edge of a page.
            offset += (length - length / 10).max(1);
        }
        Err(AiError::Unexpected("the list of keys does not end".into()))
    }
}

/// It stands in paths.
fn check_hash(hash: &str) -> AiResult<()> {
    if !hash.is_empty() && hash.len() <= 200 && hash.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(AiError::Unexpected("a key's hash is none".into()))
}

fn dollars(cents: u32) -> f64 {
    f64::from(cents) / 100.0
}
