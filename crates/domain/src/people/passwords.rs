//! Which passwords are good enough, and how they are set.

use std::collections::HashSet;
use std::sync::LazyLock;

use cp_model::field::{self, FieldError, FieldResult};
use cp_storage::{StorageError, accounts, browser_sessions, email_challenges, oauth_devices};
use cp_tokens::password;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::browser_sessions::own_session;
use super::challenges::Purpose;
use super::login::login_throttles;
use super::mail_texts;
use super::throttle::AccountKey;
use crate::{Caller, ControlPlane, Credential, DomainError, DomainResult, Profile, UserCaller};

/// The most common passwords of leaked lists that have 8 characters or more, in lower case.
static COMMON: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

/// 8 to 256 characters, not one of the most common, not the account's own address (NIST SP
/// 800-63B section 5.1.1.2).
pub(super) fn check(password: &SecretString, email: &str) -> FieldResult<()> {
    let given = password.expose_secret();
    field::password("password", given)?;
    let lower = given.to_lowercase();
    let email = email.to_lowercase();
    let local = email.split('@').next().unwrap_or_default();
    if lower == email || lower == local {
        return Err(FieldError::new(
            "password",
            "must not be the e-mail address: choose something that others do not know",
        ));
    }
    let mut letters = lower.chars();
    let first = letters.next();
    if COMMON.contains(lower.as_str()) || letters.all(|c| Some(c) == first) {
        return Err(FieldError::new(
            "password",
            "is one of the most common ones: choose another, for instance three words that have nothing to do with each other",
        ));
    }
    Ok(())
}

impl ControlPlane {
    pub(crate) async fn hash_password(&self, password: &SecretString) -> DomainResult<String> {
        let password = password.clone();
        self.inner
            .hashing
            .run(move || password::hash(&password))
            .await?
            .map_err(DomainError::internal)
    }

    /// Whether the person must give their password to change it.
    pub async fn has_password(&self, by: &UserCaller) -> DomainResult<bool> {
        let mut conn = self.db().acquire().await?;
        let user = accounts::find_user(&mut conn, by.user.id).await?;
        Ok(user.is_some_and(|user| user.password_hash.is_some()))
    }

    /// Sets the password that was forgotten, by the mailed link, which also proves the address.
    /// Whoever had the old one, or got in by it, is out: sessions, sign-ins to applications and
    /// API keys end.
    pub async fn reset_password(
        &self,
        token: &str,
        password: &SecretString,
        caller: &Caller,
    ) -> DomainResult<Profile> {
        let (challenge, user) = self.find_link(token).await?;
        if challenge.purpose != Purpose::ResetPassword.as_str() {
            return Err(DomainError::ExpiredLink);
        }
        check(password, &user.email)?;
        let hash = self.hash_password(password).await?;
        let now = self.now();
        let mut tx = self.db().begin().await?;
        let ended = self
            .end_every_sign_in(&mut tx, user.id, "password_reset")
            .await?;
        if !email_challenges::mark_used(&mut tx, challenge.id, false, now).await? {
            return Err(DomainError::ExpiredLink);
        }
        let user = accounts::find_user(&mut tx, user.id)
            .await?
            .filter(|user| user.disabled_at.is_none())
            .ok_or(DomainError::ExpiredLink)?;
        if user.email_verified_at.is_none() {
            accounts::delete_consents(&mut tx, user.id).await?;
        }
        accounts::set_password(&mut tx, user.id, &hash, Some(now)).await?;
        email_challenges::mark_all_used(&mut tx, user.id, now).await?;
        let name = user
            .email_verified_at
            .is_some()
            .then_some(user.name.as_str());
        let mail = mail_texts::password_changed(name, &self.settings().base_url);
        self.queue_mail(&mut tx, &user.email, mail, None).await?;
        let target = user.id.to_string();
        let details = json!({
            "sessions": ended.sessions, "grants": ended.grants, "api_keys": ended.keys,
        });
        self.audit_person(
            &mut tx,
            user.id,
            caller,
            "user.password_reset",
            ("user", &target),
            details,
        )
        .await?;
        let user = accounts::find_user(&mut tx, user.id)
            .await?
            .ok_or(DomainError::ExpiredLink)?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(user.into())
    }

    /// Sets a new password. `current` may be missing only where there is none; a wrong one is
    /// `Unauthorized`, counted like a wrong login. Other sessions end, and so do sign-ins that
    /// were made by typing the password to us or to programs of ours; other applications and API
    /// keys go on.
    pub async fn change_password(
        &self,
        by: &UserCaller,
        current: Option<&SecretString>,
        new: &SecretString,
    ) -> DomainResult<()> {
        by.require_everything()?;
        let mut conn = self.db().acquire().await?;
        let user = accounts::find_user(&mut conn, by.user.id)
            .await?
            .filter(|user| user.disabled_at.is_none())
            .ok_or(DomainError::Unauthorized)?;
        drop(conn);
        check(new, &user.email)?;
        match (&user.password_hash, current) {
            (Some(hash), Some(current)) => {
                let account = AccountKey::of(Some(&user), &user.email);
                let throttles = login_throttles(&account, &by.caller);
                let right = self
                    .check_password(Some(hash.clone()), current, &throttles)
                    .await?;
                if !right {
                    return Err(DomainError::Unauthorized);
                }
            }
            (Some(_), None) => {
                return Err(FieldError::new("current_password", "is needed").into());
            }
            // Else a session from before the address was proven could plant a password.
            (None, _) if user.email_verified_at.is_none() => {
                return Err(DomainError::EmailNotVerified);
            }
            (None, _) => {}
        }
        let hash = self.hash_password(new).await?;
        let now = self.now();
        let mut tx = self.db().begin().await?;
        accounts::lock_user(&mut tx, user.id).await?;
        self.check_still_signed_in(&mut tx, by).await?;
        let former = user.password_hash.as_deref();
        if !accounts::replace_password(&mut tx, user.id, former, &hash).await? {
            return Err(DomainError::Unauthorized);
        }
        let sessions =
            browser_sessions::mark_all_revoked(&mut tx, user.id, own_session(by), now).await?;
        oauth_devices::withdraw_approvals(&mut tx, user.id, None).await?;
        let own_grant = match &by.credential {
            Credential::AccessToken { grant, .. } => Some(*grant),
            Credential::Browser(_) | Credential::ApiKey { .. } => None,
        };
        let grants =
            accounts::revoke_password_grants(&mut tx, user.id, own_grant, "password_changed", now)
                .await?;
        // Links that set a password, asked for by whoever knew the former one or not.
        email_challenges::mark_all_used(&mut tx, user.id, now).await?;
        let name = user
            .email_verified_at
            .is_some()
            .then_some(user.name.as_str());
        let mail = mail_texts::password_changed(name, &self.settings().base_url);
        self.queue_mail(&mut tx, &user.email, mail, None).await?;
        let target = user.id.to_string();
        self.audit_by_user(
            &mut tx,
            by,
            "user.password_changed",
            ("user", &target),
            json!({ "sessions": sessions, "grants": grants }),
        )
        .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(password: &str) -> FieldResult<()> {
        check(&SecretString::from(password), "Ada.Lovelace@example.com")
    }

    #[test]
    fn common_passwords_are_refused_whatever_their_case() {
        for bad in [
            "password",
            "PassWord1",
            "12345678",
            "qwertyuiop",
            "iloveyou",
            "aaaaaaaa",
            "Ada.Lovelace@Example.com",
            "ada.lovelace",
        ] {
            assert!(verdict(bad).is_err(), "{bad}");
        }
        for good in [
            "correct horse battery",
            "ünïcödé-wörd",
            "8Ch@rs!x",
            "  spaces  ",
        ] {
            assert!(verdict(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_the_password() {
        let refusal = verdict("iloveyou").unwrap_err().to_string();
        assert!(!refusal.contains("iloveyou"), "{refusal}");
    }

    #[test]
    fn the_list_is_as_it_is_looked_up() {
        assert!(COMMON.len() >= 300, "{}", COMMON.len());
        for entry in COMMON.iter() {
            assert!(entry.chars().count() >= 8, "{entry}");
            assert_eq!(*entry, entry.to_lowercase().trim());
        }
    }
}
