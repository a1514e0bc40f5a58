//! What session tokens and project authorizations share when they are verified: one pinned
//! algorithm (RFC 8725 section 3.1), required claims, and the caller's clock instead of the
//! system's.

use chrono::{DateTime, Utc};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::de::DeserializeOwned;

/// Why a token is refused. To its bearer all are the same `invalid_token` (RFC 6750 section 3.1);
/// the difference is for logs, and for clients that refresh an expired one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("not a token of the expected form")]
    Malformed,
    #[error("the token names a key that is not in use")]
    UnknownKey,
    #[error("the token's signature or algorithm is wrong")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not good yet")]
    NotYet,
    /// Another issuer, audience or type: a good token, but not for this place.
    #[error("the token is meant for another purpose")]
    OtherPurpose,
}

/// How far another process's clock may be ahead of ours, in seconds.
const CLOCK_SKEW: i64 = 60;

/// Reads the header without verifying anything: it chooses the key, nothing else.
pub(crate) fn unverified_header(token: &str) -> Result<Header, TokenError> {
    jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
        // The header parses, but its `alg` is none that the library knows, such as `none`.
        ErrorKind::InvalidAlgorithmName => TokenError::Signature,
        _ => TokenError::Malformed,
    })
}

/// Verifies signature, `iss`, `aud` and `exp` (all required, no leeway), that neither `iat` nor
/// `nbf` lies in the future, and reads the claims.
pub(crate) fn decode<C: DeserializeOwned>(
    token: &str,
    key: &DecodingKey,
    algorithm: Algorithm,
    issuer: &str,
    audience: &str,
    now: DateTime<Utc>,
) -> Result<C, TokenError> {
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
    // The library would read the system's clock; `exp` is checked below against the caller's.
    validation.validate_exp = false;

    let claims: serde_json::Value = jsonwebtoken::decode(token, key, &validation)
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => TokenError::Signature,
            ErrorKind::InvalidIssuer | ErrorKind::InvalidAudience => TokenError::OtherPurpose,
            _ => TokenError::Malformed,
        })?
        .claims;

    let exp = claims["exp"].as_i64().ok_or(TokenError::Malformed)?;
    // RFC 7519 section 4.1.4: not accepted on or after `exp`.
    if now.timestamp() >= exp {
        return Err(TokenError::Expired);
    }
    // RFC 7519 section 4.1.5. `iat` alone would be no reason (section 4.1.6), but we made the
    // token, and not tomorrow.
    let is_ahead = |name: &str| {
        let claim = &claims[name];
        !claim.is_null()
            && claim
                .as_i64()
                .is_none_or(|at| at > now.timestamp() + CLOCK_SKEW)
    };
    if is_ahead("nbf") || is_ahead("iat") {
        return Err(TokenError::NotYet);
    }
    serde_json::from_value(claims).map_err(|_| TokenError::Malformed)
}
