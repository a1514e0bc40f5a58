//! What a project's backend signs its calls with: an HS256 JWT by the project's own `JWT_SECRET`, good for ten minutes
//! (contract/project-backend.md 3.1). It proves possession of that secret, nothing else. Called by the domain.

use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::TokenError;

/// The longest life of a signature, in seconds.
const LIFETIME: i64 = 600;

/// How far a backend's clock may be ahead of ours, in seconds.
const CLOCK_SKEW: i64 = 60;

#[derive(Deserialize)]
struct Claims {
    sub: String,
    iat: i64,
    exp: i64,
}

/// Verifies that the secret's owner signed for `subject` within the last ten minutes. Gives when that ends.
pub fn verify(
    secret: &SecretString,
    token: &str,
    subject: &str,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, TokenError> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_required_spec_claims(&["sub", "exp"]);
    validation.validate_aud = false;
    // By the caller's clock, below.
    validation.validate_exp = false;
    let key = DecodingKey::from_secret(secret.expose_secret().as_bytes());
    let claims: Claims = jsonwebtoken::decode(token, &key, &validation)
        .map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature
            | jsonwebtoken::errors::ErrorKind::InvalidAlgorithm => TokenError::Signature,
            _ => TokenError::Malformed,
        })?
        .claims;
    let now = now.timestamp();
    if claims.sub != subject {
        return Err(TokenError::OtherPurpose);
    }
    if now >= claims.exp {
        return Err(TokenError::Expired);
    }
    let lives = claims.exp.saturating_sub(claims.iat);
    if claims.iat > now.saturating_add(CLOCK_SKEW) || !(0..=LIFETIME).contains(&lives) {
        return Err(TokenError::NotYet);
    }
    DateTime::from_timestamp(claims.exp, 0).ok_or(TokenError::Malformed)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};

    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text.repeat(8))
    }

    fn signed(secret: &SecretString, algorithm: Algorithm, claims: &Value) -> String {
        let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
    }

    #[test]
    fn only_a_fresh_signature_for_this_subject_by_this_secret_is_taken() {
        let now = Utc::now();
        let at = |seconds: i64| (now + TimeDelta::seconds(seconds)).timestamp();
        let claims = |sub: &str, iat, exp| json!({ "sub": sub, "iat": iat, "exp": exp });
        let (ours, theirs) = (secret("ours"), secret("theirs"));
        let good = claims("p1", at(-1), at(599));
        let token = signed(&ours, Algorithm::HS256, &good);
        let until = verify(&ours, &token, "p1", now).unwrap();
        assert_eq!(until.timestamp(), at(599));
        for (token, expected) in [
            (
                signed(&theirs, Algorithm::HS256, &good),
                TokenError::Signature,
            ),
            (
                signed(&ours, Algorithm::HS512, &good),
                TokenError::Signature,
            ),
            (
                signed(&ours, Algorithm::HS256, &claims("p2", at(-1), at(599))),
                TokenError::OtherPurpose,
            ),
            (
                signed(&ours, Algorithm::HS256, &claims("p1", at(-601), at(-1))),
                TokenError::Expired,
            ),
            // One that lives longer than it should, or is not signed yet.
            (
                signed(&ours, Algorithm::HS256, &claims("p1", at(-1), at(3600))),
                TokenError::NotYet,
            ),
            (
                signed(&ours, Algorithm::HS256, &claims("p1", at(300), at(900))),
                TokenError::NotYet,
            ),
            (
                signed(
                    &ours,
                    Algorithm::HS256,
                    &json!({ "sub": "p1", "exp": at(599) }),
                ),
                TokenError::Malformed,
            ),
            (
                signed(
                    &ours,
                    Algorithm::HS256,
                    &json!({ "sub": "p1", "iat": at(-1) }),
                ),
                TokenError::Malformed,
            ),
            (String::new(), TokenError::Malformed),
            (
                signed(&secret("ours2"), Algorithm::HS256, &good),
                TokenError::Signature,
            ),
        ] {
            assert_eq!(verify(&ours, &token, "p1", now), Err(expected), "{token}");
        }
        // `alg: none` with no signature.
        let (_, claims) = token.split_once('.').unwrap();
        let (claims, _) = claims.split_once('.').unwrap();
        let none = format!("eyJhbGciOiJub25lIn0.{claims}.");
        assert!(verify(&ours, &none, "p1", now).is_err());
    }
}
