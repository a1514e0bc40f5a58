//! HS256 tokens that the control plane issues and only the control plane verifies: OAuth access
//! tokens, the state of a login in progress. Called by the domain and by the api's extractors.
//!
//! The JOSE header carries `typ`, which keeps one kind of token from being taken for another
//! (RFC 8725 section 3.11), and `kid`, so that the secret rotates: a new secret becomes the
//! primary, the former one verifies until its tokens have expired.

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use secrecy::ExposeSecret as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{SecretBytes, TokenError, jwt};

/// RFC 7518 section 3.2: a key for HS256 has at least 256 bits.
pub const MIN_SECRET_LEN: usize = 32;

/// `typ` of OAuth access tokens, RFC 9068 section 2.1.
pub const ACCESS_TOKEN: &str = "at+jwt";

/// Why session secrets cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionSecretError {
    #[error("session secret {0} is too short; it needs 32 bytes or more")]
    TooShort(String),
    #[error("two session secrets have the id {0}; give each its own")]
    DuplicateKid(String),
}

/// Why a token could not be issued: the claims are no JSON object. A bug of the caller.
#[derive(Debug, thiserror::Error)]
#[error("the session token could not be made")]
pub struct IssueError(#[from] jsonwebtoken::errors::Error);

/// A secret and the `kid` by which tokens name it.
pub struct SessionSecret {
    pub kid: String,
    pub secret: SecretBytes,
}

/// The claims of a verified token; `claims` are the caller's own beside the registered ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session<C> {
    pub iss: String,
    pub aud: String,
    pub sub: String,
    /// Seconds since the epoch.
    pub iat: i64,
    /// Seconds since the epoch.
    pub exp: i64,
    pub jti: String,
    #[serde(flatten)]
    pub claims: C,
}

/// Issues and verifies the tokens of one issuer and audience.
pub struct SessionTokens {
    issuer: String,
    audience: String,
    primary_kid: String,
    encoding: EncodingKey,
    decoding: Vec<(String, DecodingKey)>,
}

impl SessionTokens {
    /// # Errors
    /// A secret below [`MIN_SECRET_LEN`], or two with one `kid`.
    pub fn new(
        issuer: &str,
        audience: &str,
        primary: &SessionSecret,
        older: &[SessionSecret],
    ) -> Result<Self, SessionSecretError> {
        let mut decoding: Vec<(String, DecodingKey)> = Vec::with_capacity(1 + older.len());
        for SessionSecret { kid, secret } in std::iter::once(primary).chain(older) {
            if secret.expose_secret().len() < MIN_SECRET_LEN {
                return Err(SessionSecretError::TooShort(kid.clone()));
            }
            if decoding.iter().any(|(known, _)| known == kid) {
                return Err(SessionSecretError::DuplicateKid(kid.clone()));
            }
            let key = DecodingKey::from_secret(secret.expose_secret());
            decoding.push((kid.clone(), key));
        }
        Ok(Self {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            primary_kid: primary.kid.clone(),
            encoding: EncodingKey::from_secret(primary.secret.expose_secret()),
            decoding,
        })
    }

    /// A token of type `typ` about `sub`, good from `now` for `lifetime`. `jti` must be unique
    /// (RFC 7519 section 4.1.7). `claims` must serialize to an object, without the fields of
    /// [`Session`].
    pub fn issue<C: Serialize>(
        &self,
        typ: &str,
        sub: &str,
        jti: &str,
        claims: C,
        lifetime: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<String, IssueError> {
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(typ.to_owned());
        header.kid = Some(self.primary_kid.clone());
        let session = Session {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: sub.to_owned(),
            iat: now.timestamp(),
            exp: now.timestamp() + lifetime.num_seconds(),
            jti: jti.to_owned(),
            claims,
        };
        Ok(jsonwebtoken::encode(&header, &session, &self.encoding)?)
    }

    /// Verifies signature, `typ`, `iss`, `aud` and `exp` and reads the claims.
    pub fn verify<C: DeserializeOwned>(
        &self,
        typ: &str,
        token: &str,
        now: DateTime<Utc>,
    ) -> Result<Session<C>, TokenError> {
        let header = jwt::unverified_header(token)?;
        let kid = header.kid.ok_or(TokenError::UnknownKey)?;
        let (_, key) = self
            .decoding
            .iter()
            .find(|(known, _)| *known == kid)
            .ok_or(TokenError::UnknownKey)?;
        let session = jwt::decode(
            token,
            key,
            Algorithm::HS256,
            &self.issuer,
            &self.audience,
            now,
        )?;
        // The header is covered by the signature that `decode` has just checked.
        if header.typ.as_deref() != Some(typ) {
            return Err(TokenError::OtherPurpose);
        }
        Ok(session)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Scope {
        scope: String,
    }

    fn secret(kid: &str, letter: &str) -> SessionSecret {
        SessionSecret {
            kid: kid.into(),
            secret: SecretBytes::from(letter.repeat(32).into_bytes()),
        }
    }

    fn tokens() -> SessionTokens {
        tokens_of("insforge", "insforge-api", "s1", "a")
    }

    fn tokens_of(issuer: &str, audience: &str, kid: &str, letter: &str) -> SessionTokens {
        SessionTokens::new(issuer, audience, &secret(kid, letter), &[]).unwrap()
    }

    fn noon() -> DateTime<Utc> {
        DateTime::from_timestamp(1_750_000_000, 0).unwrap()
    }

    fn issue(tokens: &SessionTokens) -> String {
        let claims = Scope {
            scope: "user:read".into(),
        };
        tokens
            .issue(
                ACCESS_TOKEN,
                "user-1",
                "token-1",
                claims,
                TimeDelta::hours(1),
                noon(),
            )
            .unwrap()
    }

    fn refused(tokens: &SessionTokens, token: &str) -> TokenError {
        tokens
            .verify::<Scope>(ACCESS_TOKEN, token, noon())
            .unwrap_err()
    }

    #[test]
    fn an_issued_token_verifies_and_gives_the_claims_back() {
        let session = tokens()
            .verify::<Scope>(ACCESS_TOKEN, &issue(&tokens()), noon())
            .unwrap();
        assert_eq!(session.sub, "user-1");
        assert_eq!(session.exp - session.iat, 3600);
        assert_eq!(
            session.claims,
            Scope {
                scope: "user:read".into()
            }
        );
    }

    #[test]
    fn the_wire_carries_the_registered_and_the_callers_claims_only() {
        let token = issue(&tokens());
        let part = |index: usize| -> Value {
            let text = token.split('.').nth(index).unwrap();
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
        };
        assert_eq!(
            part(0),
            json!({"alg": "HS256", "typ": "at+jwt", "kid": "s1"})
        );
        let mut claims: Vec<_> = part(1).as_object().unwrap().keys().cloned().collect();
        claims.sort();
        assert_eq!(claims, ["aud", "exp", "iat", "iss", "jti", "scope", "sub"]);
    }

    #[test]
    fn a_token_ends_with_its_last_second() {
        let (tokens, token) = (tokens(), issue(&tokens()));
        let at = |seconds| {
            let now = noon() + TimeDelta::seconds(seconds);
            tokens.verify::<Scope>(ACCESS_TOKEN, &token, now).err()
        };
        assert_eq!(at(3599), None);
        assert_eq!(at(3600), Some(TokenError::Expired));
    }

    #[test]
    fn a_token_from_the_future_is_refused() {
        let (tokens, token) = (tokens(), issue(&tokens()));
        let before = |seconds| {
            let now = noon() - TimeDelta::seconds(seconds);
            tokens.verify::<Scope>(ACCESS_TOKEN, &token, now).err()
        };
        assert_eq!(before(60), None, "another process's clock may be ahead");
        assert_eq!(before(61), Some(TokenError::NotYet));
    }

    #[test]
    fn a_token_for_another_purpose_is_refused() {
        let token = issue(&tokens());
        let other_type = tokens().verify::<Scope>("login+jwt", &token, noon());
        assert_eq!(other_type.unwrap_err(), TokenError::OtherPurpose);
        let other_issuer = tokens_of("else", "insforge-api", "s1", "a");
        assert_eq!(refused(&other_issuer, &token), TokenError::OtherPurpose);
        let other_audience = tokens_of("insforge", "else", "s1", "a");
        assert_eq!(refused(&other_audience, &token), TokenError::OtherPurpose);
    }

    #[test]
    fn a_changed_token_is_refused() {
        let token = issue(&tokens());
        let mut parts: Vec<&str> = token.split('.').collect();
        let forged = URL_SAFE_NO_PAD.encode(
            json!({"iss": "insforge", "aud": "insforge-api", "sub": "admin", "exp": 9_999_999_999_i64,
                   "iat": 0, "jti": "x", "scope": "all"})
            .to_string(),
        );
        parts[1] = &forged;
        assert_eq!(refused(&tokens(), &parts.join(".")), TokenError::Signature);
        assert_eq!(refused(&tokens(), "nonsense"), TokenError::Malformed);
        assert_eq!(refused(&tokens(), ""), TokenError::Malformed);
    }

    #[test]
    fn the_algorithm_is_pinned() {
        let token = issue(&tokens());
        let body = token.split_once('.').unwrap().1;
        for alg in ["none", "HS384", "RS256"] {
            let header = json!({"alg": alg, "typ": "at+jwt", "kid": "s1"}).to_string();
            let token = format!("{}.{body}", URL_SAFE_NO_PAD.encode(header));
            let error = refused(&tokens(), &token);
            assert!(
                matches!(error, TokenError::Signature | TokenError::Malformed),
                "{alg}"
            );
        }
    }

    #[test]
    fn the_secret_rotates() {
        let old = issue(&tokens());
        let rotated = SessionTokens::new(
            "insforge",
            "insforge-api",
            &secret("s2", "b"),
            &[secret("s1", "a")],
        )
        .unwrap();
        assert!(rotated.verify::<Scope>(ACCESS_TOKEN, &old, noon()).is_ok());
        let new = issue(&rotated);
        assert!(rotated.verify::<Scope>(ACCESS_TOKEN, &new, noon()).is_ok());
        assert_eq!(refused(&tokens(), &new), TokenError::UnknownKey);
        let same_kid = tokens_of("insforge", "insforge-api", "s2", "c");
        assert_eq!(refused(&same_kid, &new), TokenError::Signature);
    }

    #[test]
    fn claims_may_be_empty() {
        let token = tokens()
            .issue("t", "s", "j", (), TimeDelta::minutes(1), noon())
            .unwrap();
        assert!(tokens().verify::<()>("t", &token, noon()).is_ok());
    }

    #[test]
    fn weak_or_ambiguous_secrets_are_refused() {
        let short = SessionSecret {
            kid: "s1".into(),
            secret: SecretBytes::from(b"short".to_vec()),
        };
        let error = SessionTokens::new("i", "a", &short, &[]).err().unwrap();
        assert_eq!(error, SessionSecretError::TooShort("s1".into()));
        let twice = SessionTokens::new("i", "a", &secret("s1", "a"), &[secret("s1", "b")]);
        assert_eq!(
            twice.err().unwrap(),
            SessionSecretError::DuplicateKid("s1".into())
        );
    }
}
