//! The claims of a project authorization: ten minutes of administrator's access to one project's
//! backend, which checks signature, `projectId`, `type`, `userId` and `exp`.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// `exp` − `iat`.
pub const PROJECT_AUTHORIZATION_LIFETIME: TimeDelta = TimeDelta::seconds(600);

/// `type`: separates these tokens from all others that the same keys may ever sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenType {
    ProjectAuthorization,
}

/// A backend refuses a token whose `userId` is blank, so none is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a project authorization needs a user id")]
pub struct BlankUserId;

/// For whom and for what an authorization is made.
#[derive(Debug, Clone, Copy)]
pub struct NewProjectAuthorization<'a> {
    /// Our base URL.
    pub issuer: &'a str,
    /// The project's access host.
    pub audience: &'a str,
    pub project_id: Uuid,
    /// Whoever acts at the backend, which logs it as `cloud:{userId}`: a user's id, or
    /// `partner:{partnerId}` for an embedded project. Becomes `userId` and `sub`.
    pub user_id: &'a str,
}

/// The claims. Made by [`ProjectAuthorization::new`] only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProjectAuthorization {
    pub iss: String,
    pub sub: String,
    pub aud: String,
    #[serde(rename = "projectId")]
    pub project_id: Uuid,
    #[serde(rename = "userId")]
    pub user_id: String,
    #[serde(rename = "type")]
    pub token_type: TokenType,
    /// Seconds since the epoch.
    pub iat: i64,
    /// Seconds since the epoch. Backends allow no leeway, and take a token without it for ever.
    pub exp: i64,
    pub jti: Uuid,
}

impl ProjectAuthorization {
    pub fn new(
        authorization: NewProjectAuthorization<'_>,
        now: DateTime<Utc>,
    ) -> Result<Self, BlankUserId> {
        let NewProjectAuthorization {
            issuer,
            audience,
            project_id,
            user_id,
        } = authorization;
        if user_id.trim().is_empty() {
            return Err(BlankUserId);
        }
        let iat = now.timestamp();
        Ok(Self {
            iss: issuer.to_owned(),
            sub: user_id.to_owned(),
            aud: audience.to_owned(),
            project_id,
            user_id: user_id.to_owned(),
            token_type: TokenType::ProjectAuthorization,
            iat,
            exp: iat + PROJECT_AUTHORIZATION_LIFETIME.num_seconds(),
            jti: Uuid::new_v4(),
        })
    }

    /// When the token ends, for `expiresAt` beside it in answers.
    pub fn expires_at(&self) -> DateTime<Utc> {
        // Made of a `DateTime` plus ten minutes; only a forged row of claims is out of range.
        DateTime::from_timestamp(self.exp, 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}
