//! Browsers in which people are signed in to our pages: what the session cookie opens.

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::{BrowserSessionId, UserId};
use cp_storage::browser_sessions::{self, NewBrowserSession};
use cp_storage::{PgConnection, StorageError};
use cp_tokens::secret::{OpaqueSecret, SecretKind};
use secrecy::SecretString;
use serde_json::json;

use super::short_user_agent;
use crate::{Caller, ControlPlane, Credential, DomainError, DomainResult, Thing, UserCaller};

/// A session that nobody uses ends after this.
const IDLE: TimeDelta = TimeDelta::days(30);
/// And every session after this.
const LONGEST: TimeDelta = TimeDelta::days(90);
/// When a session was last seen is known to this.
const SEEN_EVERY: TimeDelta = TimeDelta::minutes(1);

/// What a person sees of a session.
#[derive(Debug, Clone)]
pub struct BrowserSessionSummary {
    pub id: BrowserSessionId,
    /// Where it was begun.
    pub address: Option<String>,
    pub user_agent: Option<String>,
    pub created_at: DateTime<Utc>,
    pub last_seen_at: DateTime<Utc>,
    pub is_this_one: bool,
}

fn ends_at(created_at: DateTime<Utc>, seen_at: DateTime<Utc>) -> DateTime<Utc> {
    (seen_at + IDLE).min(created_at + LONGEST)
}

impl ControlPlane {
    /// When the person signed in to the browser that they use. None: it is no browser.
    pub async fn signed_in_at(&self, by: &UserCaller) -> DomainResult<Option<DateTime<Utc>>> {
        let Credential::Browser(session) = by.credential else {
            return Ok(None);
        };
        let mut conn = self.db().acquire().await?;
        Ok(browser_sessions::find_beginning(&mut conn, by.user.id, session).await?)
    }

    /// Signs the person in to this browser; gives the cookie's value, which is new each time, so
    /// that a cookie planted before opens nothing (session fixation). Refuses disabled accounts.
    /// Whoever has just checked a password uses [`ControlPlane::sign_in_with_password`] instead.
    pub async fn begin_browser_session(
        &self,
        user: UserId,
        caller: &Caller,
        user_agent: Option<&str>,
    ) -> DomainResult<SecretString> {
        let mut tx = self.db().begin().await?;
        let cookie = self
            .insert_browser_session(&mut tx, user, caller, user_agent)
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(cookie)
    }

    pub(super) async fn insert_browser_session(
        &self,
        conn: &mut PgConnection,
        user: UserId,
        caller: &Caller,
        user_agent: Option<&str>,
    ) -> DomainResult<SecretString> {
        let now = self.now();
        let cookie = OpaqueSecret::generate(SecretKind::BrowserSession);
        let hash = cookie.hash();
        let id = BrowserSessionId::generate();
        let address = caller.address.map(|a| a.to_string());
        let user_agent = user_agent.map(short_user_agent);
        let new = NewBrowserSession {
            id,
            hash: hash.as_bytes(),
            user,
            address: address.as_deref(),
            user_agent: user_agent.as_deref(),
            now,
            expires_at: ends_at(now, now),
        };
        if !browser_sessions::insert_session(conn, &new).await? {
            return Err(DomainError::Unauthorized);
        }
        let target = id.to_string();
        self.audit_person(
            conn,
            user,
            caller,
            "browser_session.begun",
            ("browser_session", &target),
            json!({}),
        )
        .await?;
        Ok(cookie.into_secret_string())
    }

    /// Whose browser this is; none when nobody is signed in with it.
    pub async fn browser_session(
        &self,
        cookie: &str,
        caller: &Caller,
    ) -> DomainResult<Option<UserCaller>> {
        let Ok(cookie) = OpaqueSecret::parse(SecretKind::BrowserSession, cookie) else {
            return Ok(None);
        };
        let now = self.now();
        let mut conn = self.db().acquire().await?;
        let found =
            browser_sessions::find_session(&mut conn, cookie.hash().as_bytes(), now).await?;
        let Some(session) = found else {
            return Ok(None);
        };
        if now - session.last_seen_at >= SEEN_EVERY {
            let ends_at = ends_at(session.created_at, now);
            browser_sessions::mark_seen(&mut conn, session.id, now, ends_at).await?;
        }
        Ok(Some(UserCaller {
            user: session.user.into(),
            credential: Credential::Browser(session.id),
            caller: caller.clone(),
        }))
    }

    /// Signs out of this browser. Fine also when nobody was signed in.
    pub async fn end_browser_session(&self, cookie: &str, caller: &Caller) -> DomainResult<()> {
        let Ok(cookie) = OpaqueSecret::parse(SecretKind::BrowserSession, cookie) else {
            return Ok(());
        };
        let mut tx = self.db().begin().await?;
        let hash = cookie.hash();
        let ended =
            browser_sessions::mark_revoked_by_hash(&mut tx, hash.as_bytes(), self.now()).await?;
        if let Some((id, user)) = ended {
            let target = id.to_string();
            self.audit_person(
                &mut tx,
                user,
                caller,
                "browser_session.ended",
                ("browser_session", &target),
                json!({}),
            )
            .await?;
            tx.commit().await.map_err(StorageError::from)?;
        }
        Ok(())
    }

    pub async fn list_browser_sessions(
        &self,
        by: &UserCaller,
    ) -> DomainResult<Vec<BrowserSessionSummary>> {
        by.require_everything()?;
        let this_one = own_session(by);
        let mut conn = self.db().acquire().await?;
        let sessions = browser_sessions::list_sessions(&mut conn, by.user.id, self.now()).await?;
        Ok(sessions
            .into_iter()
            .map(|session| BrowserSessionSummary {
                is_this_one: Some(session.id) == this_one,
                id: session.id,
                address: session.address,
                user_agent: session.user_agent,
                created_at: session.created_at,
                last_seen_at: session.last_seen_at,
            })
            .collect())
    }

    pub async fn revoke_browser_session(
        &self,
        by: &UserCaller,
        id: BrowserSessionId,
    ) -> DomainResult<()> {
        by.require_everything()?;
        let mut tx = self.db().begin().await?;
        if !browser_sessions::mark_revoked(&mut tx, by.user.id, id, self.now()).await? {
            return Err(DomainError::NotFound(Thing::Session));
        }
        let target = id.to_string();
        self.audit_by_user(
            &mut tx,
            by,
            "browser_session.revoked",
            ("browser_session", &target),
            json!({}),
        )
        .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }

    /// Signs out of all browsers but the one that asks; gives how many there were.
    pub async fn revoke_other_browser_sessions(&self, by: &UserCaller) -> DomainResult<u64> {
        by.require_everything()?;
        let mut tx = self.db().begin().await?;
        let user = by.user.id;
        let ended =
            browser_sessions::mark_all_revoked(&mut tx, user, own_session(by), self.now()).await?;
        let target = user.to_string();
        self.audit_by_user(
            &mut tx,
            by,
            "browser_session.others_revoked",
            ("user", &target),
            json!({ "sessions": ended }),
        )
        .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(ended)
    }
}

pub(super) fn own_session(by: &UserCaller) -> Option<BrowserSessionId> {
    match by.credential {
        Credential::Browser(id) => Some(id),
        Credential::ApiKey { .. } | Credential::AccessToken { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_idle_for_30_days_and_after_90_in_any_case() {
        let begun = DateTime::UNIX_EPOCH;
        let day = |n| begun + TimeDelta::days(n);
        assert_eq!(ends_at(begun, begun), day(30));
        assert_eq!(ends_at(begun, day(59)), day(89));
        assert_eq!(ends_at(begun, day(61)), day(90));
        assert_eq!(ends_at(begun, day(89)), day(90));
    }
}
