//! The OAuth 2.0 provider: which applications there are, what people allow them, and the tokens
//! that they get. The standards are named where they apply; the rules of the house are in the
//! contract (oauth.md).
//!
//! | file | what for | called by |
//! |---|---|---|
//! | `clients` | applications: who they are, what operators do with them | every endpoint; operators |
//! | `authorize` | requests for a person's consent, and the codes that come of them | the pages |
//! | `grants` | codes, refresh tokens and passwords become tokens; tokens end | token, revocation |
//! | `devices` | sign-in of devices without a browser | device endpoints, the device page |
//! | `access_tokens` | the JWT itself | the files around it |
//! | `bearer` | whom a credential in `Authorization: Bearer` stands for | every platform route |
//! | `bearer_lookups` | whether sign-ins live, for many requests at once | `bearer`, `introspect` |
//! | `introspect` | what a token is good for | introspection |
//! | `connected_apps` | what a person has allowed, and how they end it | the settings page |

mod access_tokens;
mod authorize;
mod bearer;
mod bearer_lookups;
mod clients;
mod connected_apps;
mod devices;
mod error;
mod grants;
mod introspect;

use std::sync::Arc;
use std::time::Duration;

use cp_model::{ClientId, GrantId, Scopes, UserId};
use cp_storage::audit::{AuditEntry, insert_entry};
use cp_storage::oauth_grants::Account;
use cp_storage::{PgConnection, StorageResult};
use cp_tokens::SecretBytes;
use cp_tokens::sealing::Sealer;
use cp_tokens::session::{SessionSecret, SessionTokens};
use moka::sync::Cache;
use serde_json::Value;

use crate::context::Caller;
use crate::{ControlPlane, Credential, DomainError, DomainResult, Profile, UserCaller};

pub use authorize::{AuthorizationRequest, AuthorizeError, AuthorizeParams, Prompt};
pub(crate) use bearer_lookups::{BearerLookups, answer as answer_bearer_lookups};
pub(crate) use clients::follow;
pub use clients::{ClientCredentials, NewOAuthClient};
pub use connected_apps::ConnectedApp;
pub use devices::{DeviceRequest, DeviceStart};
pub use error::{OAuthError, OAuthErrorCode};
pub(crate) use grants::IDLE;
pub use grants::TokenPair;
pub use introspect::Introspection;

/// What the provider holds in memory. It has secrets, so it has no `Debug`.
pub(crate) struct Provider {
    access_tokens: SessionTokens,
    /// From which successors of refresh tokens are derived; the one in use first.
    refresh_keys: Vec<SecretBytes>,
    /// For a second, like partners: see there.
    clients: Cache<ClientId, Arc<clients::KnownClient>>,
    /// Ids that were right lately. They say nothing of now; they only let a request ask the
    /// database although somebody else at its address guesses.
    lately_known: Cache<ClientId, ()>,
}

impl Provider {
    pub(crate) fn new(sealer: &Sealer) -> Self {
        let mut secrets = sealer
            .derived_keys("access token")
            .into_iter()
            .map(|(kid, secret)| SessionSecret { kid, secret });
        // A sealer has a primary key, its ids are all different (`Sealer::new`), and what it
        // derives has 32 bytes: the rules of `SessionTokens::new`.
        let primary = secrets.next().expect("a sealer has a primary key");
        let older: Vec<_> = secrets.collect();
        let access_tokens = SessionTokens::new(
            access_tokens::ISSUER,
            access_tokens::AUDIENCE,
            &primary,
            &older,
        )
        .expect("derived keys are long enough and have ids of their own");
        let refresh_keys = sealer.derived_keys("refresh token");
        Self {
            access_tokens,
            refresh_keys: refresh_keys.into_iter().map(|(_, key)| key).collect(),
            clients: Cache::builder()
                .max_capacity(10_000)
                .time_to_live(Duration::from_secs(1))
                .build(),
            lately_known: Cache::builder()
                .max_capacity(10_000)
                .time_to_live(Duration::from_hours(1))
                .build(),
        }
    }
}

fn profile(account: Account) -> Profile {
    Profile {
        id: account.id,
        email: account.email,
        name: account.name,
        avatar_url: account.avatar_url,
        email_verified: account.email_verified_at.is_some(),
        created_at: account.created_at,
    }
}

/// RFC 6749 section 3.3, against what the client is registered for.
fn parse_scopes(text: &str, allowed: &Scopes) -> Result<Scopes, OAuthError> {
    let invalid = |description| OAuthError::new(OAuthErrorCode::InvalidScope, description);
    let scopes: Scopes = text.parse().map_err(|_| {
        invalid(
            "The scope must name one or more of user:read, organizations:read, projects:read and projects:write, with spaces between them.",
        )
    })?;
    if !scopes.is_subset(allowed) {
        return Err(invalid(
            "The scope asks for more than this application may have.",
        ));
    }
    Ok(scopes)
}

/// The session in which a person decides something. Only a browser counts: what an application
/// was given must not be able to give more to itself, or to others.
fn browser_of(by: &UserCaller) -> DomainResult<cp_model::BrowserSessionId> {
    match by.credential {
        Credential::Browser(session) => Ok(session),
        Credential::ApiKey { .. } | Credential::AccessToken { .. } => {
            Err(DomainError::InsufficientScope {
                needed: "a session of the person",
            })
        }
    }
}

/// What was sent with a request, cut to what is worth keeping.
fn kept_user_agent(given: Option<&str>) -> Option<String> {
    given.map(|text| text.chars().filter(|c| !c.is_control()).take(256).collect())
}

impl ControlPlane {
    /// An application did something for a person.
    async fn audit_client(
        &self,
        conn: &mut PgConnection,
        client: &ClientId,
        caller: &Caller,
        action: &str,
        grant: GrantId,
        details: Value,
    ) -> StorageResult<()> {
        let address = caller.address.map(|a| a.to_string());
        insert_entry(
            conn,
            AuditEntry {
                at: self.now(),
                actor: &format!("client:{client}"),
                partner_id: None,
                organization_id: None,
                action,
                target_type: "grant",
                target_id: &grant.to_string(),
                address: address.as_deref(),
                request_id: Some(caller.request_id.as_str()),
                details,
            },
        )
        .await
    }
}

/// Holds the person's row and proves that the account is not disabled; then the rest of the
/// transaction cannot be passed by whoever ends everything of the person (see `oauth_codes`).
async fn hold_person(conn: &mut PgConnection, user: UserId) -> DomainResult<()> {
    if cp_storage::oauth_codes::hold_person(conn, user).await? {
        Ok(())
    } else {
        Err(DomainError::Unauthorized)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_beyond_the_registration_are_refused() {
        let allowed: Scopes = "user:read projects:read".parse().unwrap();
        let parsed = parse_scopes("projects:read", &allowed).unwrap();
        assert_eq!(parsed.to_string(), "projects:read");
        for bad in [
            "",
            " ",
            "projects:write",
            "user:read projects:write",
            "admin",
            "USER:READ",
        ] {
            let error = parse_scopes(bad, &allowed).unwrap_err();
            assert_eq!(error.code, OAuthErrorCode::InvalidScope, "{bad:?}");
        }
    }

    #[test]
    fn a_user_agent_cannot_break_lines_or_fill_tables() {
        assert_eq!(kept_user_agent(Some("a\nb")).unwrap(), "ab");
        assert_eq!(
            kept_user_agent(Some(&"é".repeat(999)))
                .unwrap()
                .chars()
                .count(),
            256
        );
        assert_eq!(kept_user_agent(None), None);
    }
}
