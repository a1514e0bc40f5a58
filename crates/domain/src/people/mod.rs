//! People: how they sign up and in, prove their address, and what they keep here: sessions, API
//! keys. Called by `api` (pages and JSON), by `server` (operators' commands) and, for the mails,
//! by `worker`.
//!
//! Three rules hold everywhere:
//! - Nobody learns from an answer, or from its time, whether an address has an account. The JSON
//!   sign-up alone must tell (contract).
//! - An address belongs to whoever reads its mail. What somebody set up before that was proven (a
//!   password, sessions) ends when somebody else proves it (account pre-hijacking).
//! - What is used once is used by one UPDATE.

mod api_keys;
mod browser_sessions;
mod challenges;
mod csrf;
mod login;
mod mail_texts;
mod mails;
mod operators;
mod passwords;
mod project_texts;
mod signup;
mod throttle;

use std::time::Duration;

use cp_model::UserId;
use cp_storage::accounts::{self, UserRecord};
use cp_storage::{
    PgConnection, api_keys as stored_keys, browser_sessions as stored_sessions, oauth_codes,
    oauth_devices, oauth_grants,
};
use cp_tokens::SecretBytes;
use cp_tokens::secret::{OpaqueSecret, SecretKind};

use crate::{ControlPlane, Credential, DomainError, DomainResult, Profile, Thing, UserCaller};

pub(crate) use challenges::REMEMBERED as CHALLENGES_KEPT;
pub(crate) use mail_texts::{MailText, invitation as invitation_mail};
pub(crate) use project_texts::of_template as project_mail;
pub(crate) use throttle::Throttle;

pub use api_keys::{ApiKeySummary, NewApiKey};
pub use browser_sessions::BrowserSessionSummary;
pub use challenges::{ChallengeRef, LinkPurpose};
pub use login::{PasswordGrant, SignedIn};
pub use mails::{Envelope, Mail};
pub use operators::UserSummary;
pub use signup::{NewAccount, SignUp};

impl From<UserRecord> for Profile {
    fn from(user: UserRecord) -> Self {
        Self {
            id: user.id,
            email: user.email,
            name: user.name,
            avatar_url: user.avatar_url,
            email_verified: user.email_verified_at.is_some(),
            created_at: user.created_at,
        }
    }
}

/// HMAC-SHA256 of `input`, by way of a derived secret that nobody sees.
pub(crate) fn mac(key: &SecretBytes, input: &[u8]) -> [u8; 32] {
    OpaqueSecret::derive(SecretKind::MailToken, key, input)
        .hash()
        .0
}

/// What is stored of the browser that somebody signs in with.
fn short_user_agent(given: &str) -> String {
    given
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect()
}

/// What answers take at least where the work differs between addresses that have an account and
/// those that have none: longer than the work, so that its time does not show.
const EVEN_TIME: Duration = Duration::from_millis(300);

/// Does the work and answers after [`EVEN_TIME`], not before.
async fn evenly<T>(work: impl Future<Output = T>) -> T {
    let even = tokio::time::Instant::now() + EVEN_TIME;
    let done = work.await;
    tokio::time::sleep_until(even).await;
    done
}

/// What was ended of a person's.
pub(crate) struct Ended {
    pub sessions: u64,
    pub grants: u64,
    pub keys: u64,
}

impl Ended {
    fn is_nothing(&self) -> bool {
        self.sessions + self.grants + self.keys == 0
    }
}

impl ControlPlane {
    /// Ends everything by which somebody could act as this person: sessions, sign-ins to
    /// applications and those on their way, API keys. Leaves the account locked, so that nothing
    /// is begun beside it until the transaction ends.
    pub(crate) async fn end_every_sign_in(
        &self,
        conn: &mut PgConnection,
        user: UserId,
        because: &str,
    ) -> DomainResult<Ended> {
        let (sessions, grants) = self.end_sessions(conn, user, because).await?;
        Ok(Ended {
            sessions,
            grants,
            keys: stored_keys::mark_all_revoked(conn, user, self.now()).await?,
        })
    }

    /// [`ControlPlane::end_every_sign_in`] without the API keys; gives how many sessions and
    /// sign-ins to applications there were.
    async fn end_sessions(
        &self,
        conn: &mut PgConnection,
        user: UserId,
        because: &str,
    ) -> DomainResult<(u64, u64)> {
        let now = self.now();
        accounts::lock_user(conn, user)
            .await?
            .ok_or(DomainError::NotFound(Thing::User))?;
        let sessions = stored_sessions::mark_all_revoked(conn, user, None, now).await?;
        oauth_codes::delete_unused_codes(conn, user, None).await?;
        oauth_devices::withdraw_approvals(conn, user, None).await?;
        let grants = oauth_grants::mark_users_revoked(conn, user, None, because, now).await?;
        Ok((sessions, grants))
    }

    /// Refuses a credential that was ended after it was authenticated. For verbs that make
    /// something which outlives the credential, after [`accounts::lock_user`]: a stranger who is
    /// being locked out must not slip in between.
    pub(crate) async fn check_still_signed_in(
        &self,
        conn: &mut PgConnection,
        by: &UserCaller,
    ) -> DomainResult<()> {
        let now = self.now();
        let user = by.user.id;
        let is_live = match &by.credential {
            Credential::Browser(id) => stored_sessions::is_live(conn, user, *id, now).await?,
            Credential::ApiKey { id, .. } => stored_keys::is_live(conn, user, *id, now).await?,
            Credential::AccessToken { grant, .. } => {
                accounts::is_grant_live(conn, user, *grant, now).await?
            }
        };
        if is_live {
            Ok(())
        } else {
            Err(DomainError::Unauthorized)
        }
    }
}
