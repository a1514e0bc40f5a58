//! Tokens signed by the control plane (project-backend 2.1), verified against its JWKS.
//!
//! `jwks_client_rs` fetches, keeps and finds the keys. Four rules are held around it, because
//! its `decode` does not know them: a refetch for an unknown `kid` at most every 30 s; no key
//! older than ten minutes when the control plane is unreachable (it would go on with the old
//! set for ever); the algorithm pinned to our list *and* to the key's type; `exp` and `nbf`
//! optional but without leeway.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::Utc;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use jwks_client_rs::{
    JsonWebKey, JsonWebKeySet, JwksClient, JwksClientError,
    source::{JwksSource, WebSource},
};
use serde_json::Value;
use tokio::sync::OnceCell;

/// An unknown `kid` causes a new fetch no more often than this.
const COOLDOWN: Duration = Duration::from_secs(30);
/// No key is used longer than this after it was fetched.
const KEPT_FOR: Duration = Duration::from_mins(10);
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CloudTokenError {
    #[error("Invalid Compact JWS")]
    NotAToken,
    #[error("\"alg\" (Algorithm) Header Parameter value not allowed")]
    Algorithm,
    #[error("no applicable key found in the JSON Web Key Set")]
    NoKey,
    #[error("signature verification failed")]
    Signature,
    #[error("\"{0}\" claim timestamp check failed")]
    Time(&'static str),
    #[error("cannot get the keys of the control plane: fetch failed")]
    Fetch,
}

pub(crate) struct CloudVerifier {
    url: String,
    /// Made on the first token: an HTTP client with its certificates is a fair part of what this
    /// process weighs, and many backends never see such a token.
    client: OnceCell<JwksClient<ThrottledSource>>,
    fetched: Arc<Mutex<Option<Fetched>>>,
}

/// The last successful fetch.
#[derive(Clone)]
struct Fetched {
    at: Instant,
    keys: JsonWebKeySet,
}

impl CloudVerifier {
    pub fn new(cloud_api_host: &str) -> Self {
        Self {
            url: format!("{cloud_api_host}/.well-known/jwks.json"),
            client: OnceCell::new(),
            fetched: Arc::default(),
        }
    }

    /// The claims of a token whose signature and times hold. What the claims say is the
    /// caller's to judge.
    pub async fn verify(&self, token: &str) -> Result<Value, CloudTokenError> {
        let header = json_part(token, 0).ok_or(CloudTokenError::NotAToken)?;
        let algorithm = allowed_algorithm(&header)?;
        let kid = header["kid"].as_str().ok_or(CloudTokenError::NoKey)?;
        let key = self.key(kid).await?;
        let decoding = decoding_key(&key, algorithm)?;

        let mut validation = Validation::new(algorithm);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let claims = jsonwebtoken::decode::<Value>(token, &decoding, &validation)
            .map_err(|_| CloudTokenError::Signature)?
            .claims;
        check_times(&claims, Utc::now().timestamp())?;
        Ok(claims)
    }

    async fn key(&self, kid: &str) -> Result<JsonWebKey, CloudTokenError> {
        let client = self
            .client
            .get_or_try_init(|| async { self.build() })
            .await?;
        let key = client.get(kid).await.map_err(|error| {
            use std::error::Error as _;
            // Transparent errors: the source of a failed request is there, of a missing key not.
            if error.source().is_some() || error.to_string().starts_with("Failed fetching") {
                CloudTokenError::Fetch
            } else {
                CloudTokenError::NoKey
            }
        })?;
        let age = lock(&self.fetched).as_ref().map(|last| last.at.elapsed());
        if age.is_none_or(|age| age > KEPT_FOR) {
            return Err(CloudTokenError::Fetch);
        }
        Ok(key)
    }

    fn build(&self) -> Result<JwksClient<ThrottledSource>, CloudTokenError> {
        let url = self.url.parse().map_err(|_| CloudTokenError::Fetch)?;
        let web = WebSource::builder()
            .with_timeout(FETCH_TIMEOUT)
            .with_connect_timeout(FETCH_TIMEOUT)
            .build(url)
            .map_err(|_| CloudTokenError::Fetch)?;
        Ok(JwksClient::builder()
            // Its set may be as old as the cooldown when it is handed over.
            .time_to_live(KEPT_FOR.saturating_sub(COOLDOWN))
            .build(ThrottledSource {
                web,
                last: Arc::clone(&self.fetched),
            }))
    }
}

/// Answers from the last successful fetch while that is younger than [`COOLDOWN`].
struct ThrottledSource {
    web: WebSource,
    last: Arc<Mutex<Option<Fetched>>>,
}

#[async_trait]
impl JwksSource for ThrottledSource {
    async fn fetch_keys(&self) -> Result<JsonWebKeySet, JwksClientError> {
        let recent = lock(&self.last)
            .clone()
            .filter(|last| last.at.elapsed() < COOLDOWN);
        if let Some(recent) = recent {
            return Ok(recent.keys);
        }
        let keys = self.web.fetch_keys().await?;
        *lock(&self.last) = Some(Fetched {
            at: Instant::now(),
            keys: keys.clone(),
        });
        Ok(keys)
    }
}

/// The value is replaced whole, so one left by a panicking thread is as good as any.
fn lock(last: &Mutex<Option<Fetched>>) -> std::sync::MutexGuard<'_, Option<Fetched>> {
    last.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The unverified claims, to see which kind of token this is before it is checked as that kind.
pub(crate) fn unverified_claims(token: &str) -> Option<Value> {
    json_part(token, 1)
}

fn json_part(token: &str, index: usize) -> Option<Value> {
    let parts: Vec<&str> = token.split('.').collect();
    let &[_, _, _] = parts.as_slice() else {
        return None;
    };
    let bytes = URL_SAFE_NO_PAD.decode(parts[index]).ok()?;
    serde_json::from_slice::<Value>(&bytes)
        .ok()
        .filter(Value::is_object)
}

fn allowed_algorithm(header: &Value) -> Result<Algorithm, CloudTokenError> {
    match header["alg"].as_str() {
        Some("RS256") => Ok(Algorithm::RS256),
        Some("RS384") => Ok(Algorithm::RS384),
        Some("RS512") => Ok(Algorithm::RS512),
        Some("ES256") => Ok(Algorithm::ES256),
        Some("ES384") => Ok(Algorithm::ES384),
        _ => Err(CloudTokenError::Algorithm),
    }
}

/// The key, if it is of the kind that the algorithm wants.
fn decoding_key(key: &JsonWebKey, algorithm: Algorithm) -> Result<DecodingKey, CloudTokenError> {
    let name = format!("{algorithm:?}");
    if key.alg().is_some_and(|alg| alg != name) {
        return Err(CloudTokenError::NoKey);
    }
    let decoding = match (key, algorithm) {
        (JsonWebKey::Rsa(rsa), Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512) => {
            DecodingKey::from_rsa_components(rsa.modulus(), rsa.exponent())
        }
        (JsonWebKey::Ec(ec), Algorithm::ES256) if ec.curve() == "P-256" => {
            DecodingKey::from_ec_components(ec.x(), ec.y())
        }
        (JsonWebKey::Ec(ec), Algorithm::ES384) if ec.curve() == "P-384" => {
            DecodingKey::from_ec_components(ec.x(), ec.y())
        }
        _ => return Err(CloudTokenError::NoKey),
    };
    decoding.map_err(|_| CloudTokenError::NoKey)
}

/// Both are checked when present, without leeway: a token has expired in its `exp` second.
fn check_times(claims: &Value, now: i64) -> Result<(), CloudTokenError> {
    let seconds = |name: &'static str| match &claims[name] {
        Value::Null => Ok(None),
        #[allow(clippy::cast_possible_truncation)] // saturates, which is right for a time
        value => value
            .as_f64()
            .map(|number| Some(number.floor() as i64))
            .ok_or(CloudTokenError::Time(name)),
    };
    if seconds("exp")?.is_some_and(|exp| exp <= now) {
        return Err(CloudTokenError::Time("exp"));
    }
    if seconds("nbf")?.is_some_and(|nbf| nbf > now) {
        return Err(CloudTokenError::Time("nbf"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_count_when_present_and_without_leeway() {
        assert_eq!(check_times(&json!({}), 100), Ok(()));
        assert_eq!(check_times(&json!({"exp": 101, "nbf": 100}), 100), Ok(()));
        assert_eq!(
            check_times(&json!({"exp": 100}), 100),
            Err(CloudTokenError::Time("exp"))
        );
        assert_eq!(
            check_times(&json!({"nbf": 101}), 100),
            Err(CloudTokenError::Time("nbf"))
        );
        assert_eq!(
            check_times(&json!({"exp": "soon"}), 100),
            Err(CloudTokenError::Time("exp"))
        );
    }
}
