//! Whom a credential in `Authorization: Bearer` stands for. The hot path of every platform route:
//! one statement.

use super::profile;
use crate::context::Caller;
use crate::{ControlPlane, Credential, DomainError, DomainResult, UserCaller};

/// What a person's own API keys begin with.
const API_KEY_PREFIX: &str = "uak_";

impl ControlPlane {
    /// Whoever sends this access token or user API key. The account is as it is now, whatever the
    /// token says of it; its scopes are its own. A token whose sign-in has ended is refused at
    /// once, as is one of a disabled account or application.
    pub async fn authenticate_bearer(
        &self,
        token: &str,
        caller: &Caller,
    ) -> DomainResult<UserCaller> {
        if token.starts_with(API_KEY_PREFIX) {
            return self.authenticate_api_key(token, caller).await;
        }
        let now = self.now();
        let token = self
            .inner
            .oauth
            .read_access_token(token, now)
            .ok_or(DomainError::Unauthorized)?;
        let bearer = self
            .find_bearer(token.user, token.grant, &token.client)
            .await?
            .ok_or(DomainError::Unauthorized)?;
        Ok(UserCaller {
            user: profile(bearer.account),
            credential: Credential::AccessToken {
                grant: token.grant,
                client: token.client,
                // One of ours that asked for less than it was granted wants to be less.
                first_party: bearer.first_party && bearer.scopes.is_subset(&token.scopes),
                scopes: token.scopes,
                jti: token.jti,
            },
            caller: caller.clone(),
        })
    }
}
