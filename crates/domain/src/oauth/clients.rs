//! Applications: how they prove who they are, and what operators do with them.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::oauth::check_redirect_uri;
use cp_model::{ClientId, ClientKind, FieldError, FieldResult, OAuthClient, Scopes, field};
use cp_storage::notifications::Topic;
use cp_storage::{StorageError, oauth_clients};
use cp_tokens::secret::{OpaqueSecret, SecretKind, constant_time_eq, hash_bytes};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::{OAuthError, OAuthErrorCode};
use crate::context::Caller;
use crate::{ControlPlane, DomainError, DomainResult, Inner, Thing};

/// Empties the cache whenever a client changes.
pub(crate) fn follow(inner: Weak<Inner>) -> impl Future<Output = ()> + Send {
    let changes = inner
        .upgrade()
        .map(|i| i.db.notifications().subscribe(Topic::OAuthClients, ""));
    async move {
        let Some(mut changes) = changes else { return };
        while changes.changed().await.is_ok() {
            let Some(inner) = inner.upgrade() else { return };
            inner.oauth.clients.invalidate_all();
        }
    }
}

/// A client as the database had it a second ago at most, and the hashes of its secrets.
pub(crate) struct KnownClient {
    pub(super) client: Arc<OAuthClient>,
    secrets: Vec<LiveSecret>,
}

struct LiveSecret {
    hash: Vec<u8>,
    expires_at: Option<DateTime<Utc>>,
}

impl KnownClient {
    /// Looks at every secret, so that the time of an answer does not tell which one came close.
    fn has_secret(&self, secret: &SecretString, now: DateTime<Utc>) -> bool {
        let hash = hash_bytes(secret.expose_secret().as_bytes());
        self.secrets.iter().fold(false, |found, live| {
            let is_live = live.expires_at.is_none_or(|at| at > now);
            (constant_time_eq(&live.hash, &hash) && is_live) || found
        })
    }

    /// What each kind of client has to show (RFC 6749 section 2.3).
    fn is_proven_by(&self, secret: Option<&SecretString>, now: DateTime<Utc>) -> bool {
        match (self.client.kind, secret) {
            (ClientKind::Public, secret) => secret.is_none(),
            (ClientKind::Confidential, secret) => {
                secret.is_some_and(|secret| self.has_secret(secret, now))
            }
        }
    }
}

/// What a client shows. The secret makes it have no `Debug`.
pub enum ClientCredentials {
    None {
        client_id: String,
    },
    Secret {
        client_id: String,
        secret: SecretString,
    },
}

/// What an operator decides about a new client.
#[derive(Debug, Clone)]
pub struct NewOAuthClient {
    pub name: String,
    pub kind: ClientKind,
    pub redirect_uris: Vec<String>,
    pub scopes: Scopes,
    pub first_party: bool,
    pub device_grant: bool,
    pub rate_limit: u32,
    pub logo_url: Option<String>,
    pub color: Option<String>,
    pub homepage_url: Option<String>,
}

fn invalid_client(description: &'static str) -> OAuthError {
    OAuthError::new(OAuthErrorCode::InvalidClient, description)
}

impl ControlPlane {
    /// From memory, or else by one look-up.
    pub(super) async fn known_client(
        &self,
        id: &ClientId,
    ) -> DomainResult<Option<Arc<KnownClient>>> {
        let provider = &self.inner.oauth;
        if let Some(known) = provider.clients.get(id) {
            return Ok(Some(known));
        }
        let mut conn = self.db().acquire().await?;
        let Some(client) = oauth_clients::find_client(&mut conn, id).await? else {
            return Ok(None);
        };
        let secrets = match client.kind {
            ClientKind::Public => Vec::new(),
            ClientKind::Confidential => {
                oauth_clients::list_live_secrets(&mut conn, id, self.now()).await?
            }
        };
        let known = Arc::new(KnownClient {
            client: Arc::new(client),
            secrets: secrets
                .into_iter()
                .map(|secret| LiveSecret {
                    hash: secret.hash,
                    expires_at: secret.expires_at,
                })
                .collect(),
        });
        provider.clients.insert(id.clone(), known.clone());
        provider.lately_known.insert(id.clone(), ());
        Ok(Some(known))
    }

    /// Who calls. An unknown client, a missing or wrong secret, and a secret from a client that
    /// has none are the same refusal; an address that sends too many is refused unasked.
    ///
    /// # Errors
    /// [`DomainError::OAuth`] with `invalid_client`, [`DomainError::RateLimited`].
    pub async fn authenticate_client(
        &self,
        credentials: &ClientCredentials,
        caller: &Caller,
    ) -> DomainResult<Arc<OAuthClient>> {
        let (client_id, secret) = match credentials {
            ClientCredentials::None { client_id } => (client_id, None),
            // An empty secret is the same as none (RFC 6749 section 2.3.1).
            ClientCredentials::Secret { client_id, secret } => (
                client_id,
                Some(secret).filter(|secret| !secret.expose_secret().is_empty()),
            ),
        };
        let known = match client_id.parse::<ClientId>() {
            Ok(id) => {
                if !self.inner.oauth.lately_known.contains_key(&id) {
                    self.check_auth_failures(caller.address)?;
                }
                self.known_client(&id).await?
            }
            Err(_) => None,
        };
        let now = self.now();
        let Some(known) = known.filter(|known| known.is_proven_by(secret, now)) else {
            return Err(self.count_client_failure(caller.address).await);
        };
        if known.client.disabled_at.is_some() {
            return Err(invalid_client("This application has been disabled.").into());
        }
        Ok(known.client.clone())
    }

    async fn count_client_failure(&self, address: Option<IpAddr>) -> DomainError {
        if let Err(refusal) = self.check_auth_failures(address) {
            return refusal;
        }
        match self.count_auth_failure(address).await {
            DomainError::Unauthorized => invalid_client(
                "Client authentication failed: the client_id is unknown, or the client_secret is missing or wrong.",
            )
            .into(),
            refusal => refusal,
        }
    }

    /// A new client and, if it is confidential, its secret, shown this once.
    pub async fn create_oauth_client(
        &self,
        new: &NewOAuthClient,
    ) -> DomainResult<(OAuthClient, Option<SecretString>)> {
        let client = checked(new, self.now())?;
        let secret = (client.kind == ClientKind::Confidential)
            .then(|| OpaqueSecret::generate(SecretKind::ClientSecret));
        let mut tx = self.db().begin().await?;
        oauth_clients::insert_client(&mut tx, &client).await?;
        if let Some(secret) = &secret {
            let hash = secret.hash();
            oauth_clients::insert_secret(&mut tx, &client.id, hash.as_bytes(), client.created_at)
                .await?;
        }
        let details = json!({
            "name": client.name,
            "kind": client.kind.as_str(),
            "redirect_uris": client.redirect_uris,
            "scope": client.scopes.to_string(),
            "first_party": client.first_party,
        });
        self.audit_service(
            &mut tx,
            "operator",
            "oauth_client.created",
            ("oauth_client", client.id.as_str()),
            None,
            details,
        )
        .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok((client, secret.map(OpaqueSecret::into_secret_string)))
    }

    pub async fn list_oauth_clients(&self) -> DomainResult<Vec<OAuthClient>> {
        let mut conn = self.db().acquire().await?;
        Ok(oauth_clients::list_clients(&mut conn).await?)
    }

    /// Gives the client a new secret; the one it has goes on for `overlap`, until the returned
    /// time. At most two are live: one that was ending already ends at once.
    pub async fn rotate_client_secret(
        &self,
        id: &ClientId,
        overlap: Duration,
    ) -> DomainResult<(OAuthClient, SecretString, Option<DateTime<Utc>>)> {
        let now = self.now();
        let overlap = TimeDelta::from_std(overlap).map_err(DomainError::internal)?;
        let secret = OpaqueSecret::generate(SecretKind::ClientSecret);
        let mut tx = self.db().begin().await?;
        let client = oauth_clients::lock_client(&mut tx, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::OAuthClient))?;
        if client.kind == ClientKind::Public {
            return Err(DomainError::Conflict(
                "a public client has no secret; create a confidential client instead".into(),
            ));
        }
        let previous = oauth_clients::expire_secrets(&mut tx, id, now + overlap, now).await?;
        oauth_clients::insert_secret(&mut tx, id, secret.hash().as_bytes(), now).await?;
        self.audit_service(
            &mut tx,
            "operator",
            "oauth_client.secret_rotated",
            ("oauth_client", id.as_str()),
            None,
            json!({}),
        )
        .await?;
        tx.commit().await.map_err(StorageError::from)?;
        self.inner.oauth.clients.invalidate_all();
        let previous_until = (previous > 0).then(|| now + overlap);
        Ok((client, secret.into_secret_string(), previous_until))
    }

    /// Stops (or, with false, lets go on) everything that the client asks for, and every token
    /// that it holds.
    pub async fn disable_oauth_client(
        &self,
        id: &ClientId,
        disabled: bool,
    ) -> DomainResult<OAuthClient> {
        let since = disabled.then(|| self.now());
        let mut tx = self.db().begin().await?;
        if !oauth_clients::mark_disabled(&mut tx, id, since).await? {
            return Err(DomainError::NotFound(Thing::OAuthClient));
        }
        let action = if disabled {
            "oauth_client.disabled"
        } else {
            "oauth_client.enabled"
        };
        self.audit_service(
            &mut tx,
            "operator",
            action,
            ("oauth_client", id.as_str()),
            None,
            json!({}),
        )
        .await?;
        let client = oauth_clients::find_client(&mut tx, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::OAuthClient))?;
        tx.commit().await.map_err(StorageError::from)?;
        self.inner.oauth.clients.invalidate_all();
        Ok(client)
    }
}

/// A client of what an operator typed.
fn checked(new: &NewOAuthClient, now: DateTime<Utc>) -> FieldResult<OAuthClient> {
    let name = field::person_name("name", &new.name)?;
    if new.redirect_uris.is_empty() && !new.device_grant {
        return Err(FieldError::new(
            "redirect_uri",
            "must be given at least once, unless the client is for devices",
        ));
    }
    if new.redirect_uris.len() > 50 {
        return Err(FieldError::new(
            "redirect_uri",
            "must be given at most 50 times",
        ));
    }
    for uri in &new.redirect_uris {
        check_redirect_uri("redirect_uri", uri)?;
    }
    if new.scopes.is_empty() {
        return Err(FieldError::new("scope", "must name at least one scope"));
    }
    if !(1..=10_000_000).contains(&new.rate_limit) {
        return Err(FieldError::new(
            "rate_limit",
            "must be 1 to 10000000 requests per minute",
        ));
    }
    if new.color.as_deref().is_some_and(|color| !is_color(color)) {
        return Err(FieldError::new("color", "must be like #1a2b3c"));
    }
    for (field, url) in [
        ("logo_url", &new.logo_url),
        ("homepage_url", &new.homepage_url),
    ] {
        if url.as_deref().is_some_and(|url| !is_https(url)) {
            return Err(FieldError::new(
                field,
                "must be an https URL of at most 2048 characters, without user name and fragment",
            ));
        }
    }
    Ok(OAuthClient {
        id: ClientId::generate(),
        name,
        kind: new.kind,
        redirect_uris: new.redirect_uris.clone(),
        scopes: new.scopes.clone(),
        first_party: new.first_party,
        device_grant: new.device_grant,
        rate_limit: new.rate_limit,
        logo_url: new.logo_url.clone(),
        color: new.color.clone(),
        homepage_url: new.homepage_url.clone(),
        disabled_at: None,
        created_at: now,
    })
}

/// It goes into a style sheet, so nothing else will do.
fn is_color(text: &str) -> bool {
    text.strip_prefix('#')
        .is_some_and(|hex| hex.len() == 6 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The rules of redirect URIs fit all addresses that pages lead to; but only https.
fn is_https(url: &str) -> bool {
    url.starts_with("https://")
        && check_redirect_uri("url", url).is_ok()
        // Such an address would end the directive of a content security policy.
        && !url.contains([';', ',', '\'', '`'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(kind: ClientKind, secrets: &[(&str, Option<i64>)]) -> KnownClient {
        let new = NewOAuthClient { kind, ..wanted() };
        KnownClient {
            client: Arc::new(checked(&new, DateTime::UNIX_EPOCH).unwrap()),
            secrets: secrets
                .iter()
                .map(|(secret, until)| LiveSecret {
                    hash: hash_bytes(secret.as_bytes()).to_vec(),
                    expires_at: until.map(|s| DateTime::UNIX_EPOCH + TimeDelta::seconds(s)),
                })
                .collect(),
        }
    }

    fn wanted() -> NewOAuthClient {
        NewOAuthClient {
            name: "Shop".into(),
            kind: ClientKind::Public,
            redirect_uris: vec!["https://example.com/callback".into()],
            scopes: Scopes::all(),
            first_party: false,
            device_grant: false,
            rate_limit: 50,
            logo_url: None,
            color: None,
            homepage_url: None,
        }
    }

    #[test]
    fn a_confidential_client_needs_a_live_secret_and_a_public_one_has_none() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::seconds(10);
        let secret = |text: &str| SecretString::from(text);
        let client = known(
            ClientKind::Confidential,
            &[("new", None), ("old", Some(11)), ("gone", Some(10))],
        );
        for (text, right) in [
            ("new", true),
            ("old", true),
            ("gone", false),
            ("x", false),
            ("", false),
        ] {
            assert_eq!(
                client.is_proven_by(Some(&secret(text)), now),
                right,
                "{text}"
            );
        }
        assert!(!client.is_proven_by(None, now));
        let public = known(ClientKind::Public, &[]);
        assert!(public.is_proven_by(None, now));
        assert!(!public.is_proven_by(Some(&secret("x")), now));
    }

    #[test]
    fn what_operators_type_is_checked() {
        type Change = fn(&mut NewOAuthClient);
        let bad: [(&str, Change); 12] = [
            ("name", |n| n.name = " ".into()),
            ("redirect_uri", |n| n.redirect_uris.clear()),
            ("redirect_uri", |n| {
                n.redirect_uris.push("http://example.com/".into());
            }),
            ("scope", |n| n.scopes = Scopes::default()),
            ("rate_limit", |n| n.rate_limit = 0),
            ("rate_limit", |n| n.rate_limit = u32::MAX),
            ("color", |n| n.color = Some("red".into())),
            ("color", |n| n.color = Some("#12345g".into())),
            ("color", |n| n.color = Some("#123;}x".into())),
            ("logo_url", |n| {
                n.logo_url = Some("http://example.com/logo.png".into());
            }),
            ("logo_url", |n| {
                n.logo_url = Some("https://e.com/; script-src *".into());
            }),
            ("homepage_url", |n| {
                n.homepage_url = Some("javascript:alert(1)".into());
            }),
        ];
        for (field, change) in bad {
            let mut new = wanted();
            change(&mut new);
            assert_eq!(
                checked(&new, DateTime::UNIX_EPOCH).unwrap_err().field,
                field
            );
        }
        let good = NewOAuthClient {
            redirect_uris: vec![],
            device_grant: true,
            color: Some("#1A2b3c".into()),
            logo_url: Some("https://example.com/logo.png?v=1".into()),
            ..wanted()
        };
        assert!(checked(&good, DateTime::UNIX_EPOCH).is_ok());
    }
}
