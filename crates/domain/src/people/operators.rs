//! What operators do with people's accounts.

use chrono::{DateTime, Utc};
use cp_model::{MemberRole, OrganizationId, OrganizationKind, Plan, UserId, field};
use cp_storage::accounts::{self, UserRecord};
use cp_storage::organizations::{self, NewOrganization};
use cp_storage::{PgConnection, StorageError, email_challenges};
use secrecy::SecretString;
use serde_json::json;

use super::passwords;
use crate::{ControlPlane, DomainError, DomainResult, Profile, Thing};

/// An account in an operator's list.
#[derive(Debug, Clone)]
pub struct UserSummary {
    pub profile: Profile,
    pub has_password: bool,
    pub disabled_at: Option<DateTime<Utc>>,
}

impl From<UserRecord> for UserSummary {
    fn from(user: UserRecord) -> Self {
        Self {
            has_password: user.password_hash.is_some(),
            disabled_at: user.disabled_at,
            profile: user.into(),
        }
    }
}

impl ControlPlane {
    /// An account with a personal organization on the free plan, no password, address not
    /// verified; an existing one stays as it is.
    pub(crate) async fn ensure_account(
        &self,
        conn: &mut PgConnection,
        name: &str,
        email: &str,
    ) -> DomainResult<(UserId, bool)> {
        let now = self.now();
        let (user, is_new) = accounts::upsert_user(conn, email, name, now).await?;
        if is_new {
            let home = NewOrganization {
                id: OrganizationId::generate(),
                name,
                kind: OrganizationKind::Personal,
                plan: Plan::Free,
                home_of: Some(user),
                now,
            };
            organizations::insert_organization(conn, &home).await?;
            let role = MemberRole::Administrator;
            organizations::insert_member(conn, home.id, user, role, None, now).await?;
        }
        Ok((user, is_new))
    }

    /// For `dev` and operators: an account with a password and a verified address. One that exists
    /// gets the password, and whoever was signed in to it is out.
    pub async fn create_user(
        &self,
        name: &str,
        email: &str,
        password: &SecretString,
    ) -> DomainResult<UserId> {
        let name = field::person_name("name", name)?;
        let email = field::email("email", email)?;
        passwords::check(password, &email)?;
        let hash = self.hash_password(password).await?;
        let mut tx = self.db().begin().await?;
        let (user, is_new) = self.ensure_account(&mut tx, &name, &email).await?;
        let action = if is_new {
            "user.created"
        } else {
            self.end_every_sign_in(&mut tx, user, "operator").await?;
            accounts::delete_consents(&mut tx, user).await?;
            email_challenges::mark_all_used(&mut tx, user, self.now()).await?;
            "user.password_set"
        };
        accounts::set_password(&mut tx, user, &hash, Some(self.now())).await?;
        self.audit_operator(&mut tx, action, user).await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(user)
    }

    /// Takes the operator's word that the person reads their address.
    pub async fn verify_user(&self, email: &str) -> DomainResult<Profile> {
        let mut tx = self.db().begin().await?;
        let user = find(&mut tx, email).await?.id;
        if accounts::mark_verified(&mut tx, user, self.now()).await? {
            self.audit_operator(&mut tx, "user.email_verified", user)
                .await?;
        }
        self.profile_and_commit(tx, user).await
    }

    /// Locks the person out at once, or lets them in again. Sessions and sign-ins to applications
    /// end for good; API keys rest until then.
    pub async fn disable_user(&self, email: &str, disabled: bool) -> DomainResult<Profile> {
        let now = self.now();
        let mut tx = self.db().begin().await?;
        let user = find(&mut tx, email).await?.id;
        if disabled {
            self.end_sessions(&mut tx, user, "disabled").await?;
            email_challenges::mark_all_used(&mut tx, user, now).await?;
        }
        if accounts::mark_disabled(&mut tx, user, disabled.then_some(now)).await? {
            let action = if disabled {
                "user.disabled"
            } else {
                "user.enabled"
            };
            self.audit_operator(&mut tx, action, user).await?;
        }
        self.profile_and_commit(tx, user).await
    }

    /// The newest accounts.
    pub async fn list_users(&self, limit: u32) -> DomainResult<Vec<UserSummary>> {
        let mut conn = self.db().acquire().await?;
        let users = accounts::list_users(&mut conn, i64::from(limit)).await?;
        Ok(users.into_iter().map(UserSummary::from).collect())
    }

    /// Signs the person out everywhere, browsers and applications; gives how many there were. API
    /// keys go on.
    pub async fn revoke_sessions(&self, email: &str) -> DomainResult<u64> {
        let mut tx = self.db().begin().await?;
        let user = find(&mut tx, email).await?.id;
        let (sessions, grants) = self.end_sessions(&mut tx, user, "operator").await?;
        self.audit_operator(&mut tx, "user.sessions_revoked", user)
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(sessions + grants)
    }

    async fn profile_and_commit(
        &self,
        mut tx: cp_storage::Transaction,
        user: UserId,
    ) -> DomainResult<Profile> {
        let user = accounts::find_user(&mut tx, user)
            .await?
            .ok_or(DomainError::NotFound(Thing::User))?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(user.into())
    }

    async fn audit_operator(
        &self,
        conn: &mut PgConnection,
        action: &str,
        user: UserId,
    ) -> DomainResult<()> {
        let target = user.to_string();
        self.audit_service(conn, "operator", action, ("user", &target), None, json!({}))
            .await?;
        Ok(())
    }
}

async fn find(conn: &mut PgConnection, email: &str) -> DomainResult<UserRecord> {
    let email = field::email("email", email)?;
    accounts::find_user_by_email(conn, &email)
        .await?
        .ok_or(DomainError::NotFound(Thing::User))
}
