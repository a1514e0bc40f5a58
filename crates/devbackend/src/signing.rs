//! The instance's own RSA pair, kept in `system.secrets`, and the tokens of admin sessions.

use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::Utc;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, jwk::Jwk};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    crypto::{self, Vault},
    error::ApiError,
    secrets,
};

pub(crate) const ACCESS_SECONDS: i64 = 15 * 60;
pub(crate) const REFRESH_SECONDS: i64 = 7 * 24 * 3600;

pub(crate) struct SigningKey {
    kid: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    jwk: Jwk,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct AccessClaims {
    pub sub: String,
    pub role: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<i64>,
}

/// Has no `role`: it is signed with `JWT_SECRET`, and any HS256 token of that secret with
/// `role: project_admin` is an admin's.
#[derive(Serialize, Deserialize)]
struct RefreshClaims {
    sub: String,
    #[serde(rename = "type")]
    kind: String,
    jti: String,
    iat: i64,
    exp: i64,
}

const REFRESH_KIND: &str = "admin_refresh";

pub(crate) async fn load_or_create(pool: &PgPool, vault: &Vault) -> Result<SigningKey, ApiError> {
    if let Some(key) = load(pool, vault).await? {
        return Ok(key);
    }
    let made = tokio::task::spawn_blocking(generate)
        .await
        .map_err(|_| ApiError::internal("Key generation was interrupted"))??;
    secrets::insert_reserved_if_absent(pool, vault, "JWT_PRIVATE_KEY", &made.private_pem).await?;
    secrets::insert_reserved_if_absent(pool, vault, "JWT_PUBLIC_KEY", &made.public_pem).await?;
    secrets::insert_reserved_if_absent(pool, vault, "JWT_KEY_ID", &made.kid).await?;
    load(pool, vault)
        .await?
        .ok_or_else(|| ApiError::internal("Signing key is incomplete"))
}

async fn load(pool: &PgPool, vault: &Vault) -> Result<Option<SigningKey>, ApiError> {
    let private = secrets::find_value(pool, vault, "JWT_PRIVATE_KEY").await?;
    let kid = secrets::find_value(pool, vault, "JWT_KEY_ID").await?;
    let (Some(private), Some(kid)) = (private, kid) else {
        return Ok(None);
    };
    SigningKey::from_pem(&private, kid.expose_secret()).map(Some)
}

struct Generated {
    private_pem: SecretString,
    public_pem: SecretString,
    kid: SecretString,
}

fn generate() -> Result<Generated, ApiError> {
    let failed = || ApiError::internal("Key generation failed");
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| failed())?;
    let private = pair.as_der().map_err(|_| failed())?;
    let public = pair.public_key().as_der().map_err(|_| failed())?;
    let kid = crypto::random::<16>().map_err(|_| failed())?;
    Ok(Generated {
        private_pem: pem("PRIVATE KEY", private.as_ref()),
        public_pem: pem("PUBLIC KEY", public.as_ref()),
        kid: SecretString::from(format!("kid_{}", hex::encode(kid))),
    })
}

fn pem(label: &str, der: &[u8]) -> SecretString {
    let text = STANDARD.encode(der);
    let mut lines = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        lines.extend(line.iter().map(|byte| char::from(*byte)));
        lines.push('\n');
    }
    lines.push_str("-----END ");
    lines.push_str(label);
    lines.push_str("-----\n");
    SecretString::from(lines)
}

impl SigningKey {
    fn from_pem(private: &SecretString, kid: &str) -> Result<Self, ApiError> {
        let unreadable = |_| ApiError::internal("Signing key is unreadable");
        let encoding =
            EncodingKey::from_rsa_pem(private.expose_secret().as_bytes()).map_err(unreadable)?;
        let mut jwk = Jwk::from_encoding_key(&encoding, Algorithm::RS256).map_err(unreadable)?;
        jwk.common.key_id = Some(kid.to_owned());
        let decoding = DecodingKey::from_jwk(&jwk).map_err(unreadable)?;
        Ok(Self {
            kid: kid.to_owned(),
            encoding,
            decoding,
            jwk,
        })
    }

    /// `{"keys":[…]}` with our public key.
    pub fn jwks(&self) -> Value {
        let mut key = serde_json::to_value(&self.jwk).unwrap_or_default();
        key["use"] = json!("sig");
        json!({ "keys": [key] })
    }

    pub fn sign_access(&self, sub: &str) -> Result<String, ApiError> {
        let now = Utc::now().timestamp();
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.kid.clone());
        let claims = AccessClaims {
            sub: sub.to_owned(),
            role: crate::database::PROJECT_ADMIN.to_owned(),
            exp: Some(now + ACCESS_SECONDS),
            iat: Some(now),
        };
        jsonwebtoken::encode(&header, &claims, &self.encoding)
            .map_err(|_| ApiError::internal("Cannot sign the token"))
    }

    pub fn verify_access(&self, token: &str) -> Option<AccessClaims> {
        verify(token, Algorithm::RS256, &self.decoding)
    }
}

/// Any HS256 token signed with `JWT_SECRET` (project-backend 2.2).
pub(crate) fn verify_shared_secret(token: &str, jwt_secret: &SecretString) -> Option<AccessClaims> {
    verify(token, Algorithm::HS256, &shared_decoding(jwt_secret))
}

/// The refresh token of a session and the CSRF token that belongs to it.
pub(crate) fn sign_refresh(
    sub: &str,
    jwt_secret: &SecretString,
) -> Result<(SecretString, String), ApiError> {
    let now = Utc::now().timestamp();
    let claims = RefreshClaims {
        sub: sub.to_owned(),
        kind: REFRESH_KIND.to_owned(),
        jti: uuid::Uuid::new_v4().to_string(),
        iat: now,
        exp: now + REFRESH_SECONDS,
    };
    let key = EncodingKey::from_secret(jwt_secret.expose_secret().as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
        .map_err(|_| ApiError::internal("Cannot sign the token"))?;
    let csrf = csrf_of(&token, jwt_secret);
    Ok((SecretString::from(token), csrf))
}

/// The `sub` of a valid refresh token.
pub(crate) fn verify_refresh(token: &str, jwt_secret: &SecretString) -> Option<String> {
    let claims: RefreshClaims = verify(token, Algorithm::HS256, &shared_decoding(jwt_secret))?;
    (claims.kind == REFRESH_KIND).then_some(claims.sub)
}

pub(crate) fn csrf_of(refresh_token: &str, jwt_secret: &SecretString) -> String {
    crypto::fingerprint(jwt_secret, &format!("csrf:{refresh_token}"))
}

/// The signature of outbound calls (project-backend 3.1): valid for ten minutes.
pub(crate) fn sign_outbound(project_id: &str, jwt_secret: &SecretString) -> Option<String> {
    let now = Utc::now().timestamp();
    let key = EncodingKey::from_secret(jwt_secret.expose_secret().as_bytes());
    let claims = json!({ "sub": project_id, "iat": now, "exp": now + 600 });
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).ok()
}

fn shared_decoding(jwt_secret: &SecretString) -> DecodingKey {
    DecodingKey::from_secret(jwt_secret.expose_secret().as_bytes())
}

fn verify<C: DeserializeOwned>(token: &str, algorithm: Algorithm, key: &DecodingKey) -> Option<C> {
    let mut validation = Validation::new(algorithm);
    validation.leeway = 0;
    validation.validate_nbf = true;
    validation.validate_aud = false;
    // Checked when present.
    validation.required_spec_claims.clear();
    jsonwebtoken::decode(token, key, &validation)
        .ok()
        .map(|data| data.claims)
}
