//! Token introspection (RFC 7662): an application asks what a token of its own is good for.

use chrono::{DateTime, Utc};
use cp_model::{ClientId, OAuthClient, Scopes, UserId};
use cp_storage::oauth_grants;
use cp_tokens::secret::{OpaqueSecret, SecretKind};

use super::access_tokens::{AUDIENCE, AccessToken, ISSUER};
use crate::{ControlPlane, DomainResult};

/// A token that is good (RFC 7662 section 2.2). Times are seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introspection {
    pub scopes: Scopes,
    pub client_id: ClientId,
    /// The person's e-mail address, as it is now.
    pub username: String,
    pub sub: UserId,
    pub iss: &'static str,
    pub iat: i64,
    pub exp: i64,
    /// `Bearer` for access tokens; RFC 6749 section 5.1 has no word for refresh tokens.
    pub token_type: Option<&'static str>,
    /// Of access tokens.
    pub aud: Option<&'static str>,
    /// Of access tokens.
    pub jti: Option<String>,
}

impl ControlPlane {
    /// None: the token is not active, or not this client's, which is told the same (section 2.2).
    pub async fn introspect(
        &self,
        client: &OAuthClient,
        token: &str,
    ) -> DomainResult<Option<Introspection>> {
        let now = self.now();
        if let Ok(refresh_token) = OpaqueSecret::parse(SecretKind::RefreshToken, token) {
            return self
                .introspect_refresh_token(client, &refresh_token, now)
                .await;
        }
        match self.inner.oauth.read_access_token(token, now) {
            Some(token) if token.client == client.id => self.introspect_access_token(token).await,
            _ => Ok(None),
        }
    }

    async fn introspect_access_token(
        &self,
        token: AccessToken,
    ) -> DomainResult<Option<Introspection>> {
        let bearer = self
            .find_bearer(token.user, token.grant, &token.client)
            .await?;
        Ok(bearer.map(|bearer| Introspection {
            scopes: token.scopes,
            client_id: token.client,
            username: bearer.account.email,
            sub: token.user,
            iss: ISSUER,
            iat: token.iat,
            exp: token.exp,
            token_type: Some("Bearer"),
            aud: Some(AUDIENCE),
            jti: Some(token.jti),
        }))
    }

    async fn introspect_refresh_token(
        &self,
        client: &OAuthClient,
        token: &OpaqueSecret,
        now: DateTime<Utc>,
    ) -> DomainResult<Option<Introspection>> {
        let mut conn = self.db().acquire_for_one().await?;
        let hash = token.hash();
        let known = oauth_grants::find_refresh_token(&mut conn, hash.as_bytes(), &[], now).await?;
        conn.done();
        let live = known.filter(|known| {
            known.client == client.id
                && !known.is_over
                && known.used_at.is_none()
                && known.expires_at > now
        });
        Ok(live.map(|live| Introspection {
            scopes: live.grant.scopes,
            client_id: live.client,
            username: live.grant.account.email,
            sub: live.grant.account.id,
            iss: ISSUER,
            iat: live.created_at.timestamp(),
            exp: live.expires_at.timestamp(),
            token_type: None,
            aud: None,
            jti: None,
        }))
    }
}
