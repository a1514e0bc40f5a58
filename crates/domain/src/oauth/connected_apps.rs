//! What a person has allowed applications, and how they end it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use cp_model::{ClientId, OAuthClient, Scopes};
use cp_storage::oauth_consents::Consent;
use cp_storage::oauth_grants::SignIns;
use cp_storage::{
    StorageError, oauth_clients, oauth_codes, oauth_consents, oauth_devices, oauth_grants,
};
use serde_json::json;

use super::grants;
use crate::{ControlPlane, DomainError, DomainResult, Thing, UserCaller};

/// An application that is signed in for a person, or need not ask to be.
#[derive(Debug, Clone)]
pub struct ConnectedApp {
    pub client: OAuthClient,
    /// Everything that it has, or would be given without asking.
    pub scopes: Scopes,
    pub since: DateTime<Utc>,
    /// When it last got a token; none: it is allowed, but not signed in.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// The same before the client is known by more than its id.
#[derive(Debug, PartialEq, Eq)]
struct Connection {
    scopes: Scopes,
    since: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
}

/// One connection per application, of all its sign-ins and what is remembered.
fn connections(sign_ins: Vec<SignIns>, consents: Vec<Consent>) -> BTreeMap<ClientId, Connection> {
    let sign_ins = sign_ins
        .into_iter()
        .map(|s| (s.client, s.scopes, s.since, Some(s.last_used_at)));
    let consents = consents
        .into_iter()
        .map(|c| (c.client, c.scopes, c.granted_at, None));
    let mut found: BTreeMap<ClientId, Connection> = BTreeMap::new();
    for (client, scopes, since, last_used_at) in sign_ins.chain(consents) {
        let connection = found.entry(client).or_insert_with(|| Connection {
            scopes: Scopes::default(),
            since,
            last_used_at,
        });
        connection.scopes = connection.scopes.union(&scopes);
        connection.since = connection.since.min(since);
        connection.last_used_at = connection.last_used_at.max(last_used_at);
    }
    found
}

impl ControlPlane {
    /// In the order of their names.
    pub async fn list_connected_apps(&self, by: &UserCaller) -> DomainResult<Vec<ConnectedApp>> {
        by.require_everything()?;
        let (now, user) = (self.now(), by.user.id);
        let mut conn = self.db().acquire().await?;
        let sign_ins =
            oauth_grants::list_live_sign_ins(&mut conn, user, now - grants::IDLE, now).await?;
        let consents = oauth_consents::list_consents(&mut conn, user).await?;
        let mut connections = connections(sign_ins, consents);
        let ids: Vec<String> = connections.keys().map(ToString::to_string).collect();
        let clients = oauth_clients::list_clients_by_id(&mut conn, &ids).await?;
        Ok(clients
            .into_iter()
            .filter_map(|client| {
                let connection = connections.remove(&client.id)?;
                Some(ConnectedApp {
                    client,
                    scopes: connection.scopes,
                    since: connection.since,
                    last_used_at: connection.last_used_at,
                })
            })
            .collect())
    }

    /// Ends all sign-ins to the application, and lets it ask again.
    pub async fn disconnect_app(&self, by: &UserCaller, client: &ClientId) -> DomainResult<()> {
        by.require_everything()?;
        let (now, user) = (self.now(), by.user.id);
        let mut tx = self.db().begin().await?;
        // What is about to become a sign-in goes first: this waits for whoever makes one of it,
        // and the last statement then sees that one.
        let consented = oauth_consents::delete_consent(&mut tx, user, client).await?;
        let codes = oauth_codes::delete_unused_codes(&mut tx, user, Some(client)).await?;
        let devices = oauth_devices::withdraw_approvals(&mut tx, user, Some(client)).await?;
        let ended =
            oauth_grants::mark_users_revoked(&mut tx, user, Some(client), "disconnected", now)
                .await?;
        if !consented && codes + devices + ended == 0 {
            return Err(DomainError::NotFound(Thing::Grant));
        }
        let target = ("oauth_client", client.as_str());
        let details = json!({ "ended": ended });
        self.audit_by_user(&mut tx, by, "oauth.app_disconnected", target, details)
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(second)
    }

    #[test]
    fn an_application_is_listed_once() {
        let id = |text: &str| text.parse::<ClientId>().unwrap();
        let scopes = |text: &str| text.parse::<Scopes>().unwrap();
        let sign_in = |scope, since, last_used_at| SignIns {
            client: id("clf_a"),
            scopes: scopes(scope),
            since: at(since),
            last_used_at: at(last_used_at),
        };
        let consent = |client, granted_at| Consent {
            client: id(client),
            scopes: scopes("projects:write"),
            granted_at: at(granted_at),
        };
        let found = connections(
            vec![sign_in("user:read", 5, 6), sign_in("projects:read", 3, 9)],
            vec![consent("clf_a", 4), consent("clf_b", 1)],
        );
        assert_eq!(found.len(), 2);
        let both = &found[&id("clf_a")];
        assert_eq!(
            both.scopes.to_string(),
            "user:read projects:read projects:write"
        );
        assert_eq!((both.since, both.last_used_at), (at(3), Some(at(9))));
        assert_eq!(found[&id("clf_b")].last_used_at, None);
    }
}
