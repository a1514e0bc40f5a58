//! Verifying what a [`Signer`](super::Signer) signed, the way a project's backend does. Called by
//! the development backend and by tests.

use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::de::DeserializeOwned;

use super::Jwks;
use crate::{TokenError, jwt};

/// Whose tokens for whom are accepted.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    pub issuer: &'a str,
    pub audience: &'a str,
}

/// Verifies an RS256 token by the key that its `kid` names, which must be in `jwks`. Requires
/// `iss`, `aud`, `sub` and an `exp` that has not come.
pub fn verify<C: DeserializeOwned>(
    token: &str,
    jwks: &Jwks,
    expected: Expected<'_>,
    now: DateTime<Utc>,
) -> Result<C, TokenError> {
    let kid = jwt::unverified_header(token)?
        .kid
        .ok_or(TokenError::UnknownKey)?;
    let jwk = jwks.find(&kid).ok_or(TokenError::UnknownKey)?;
    let key =
        DecodingKey::from_rsa_components(&jwk.n, &jwk.e).map_err(|_| TokenError::UnknownKey)?;
    let Expected { issuer, audience } = expected;
    jwt::decode(token, &key, Algorithm::RS256, issuer, audience, now)
}
