//! Making an account oneself.

use cp_model::{FieldError, field};
use cp_storage::accounts::{self, UserRecord};
use cp_storage::{PgConnection, StorageError};
use secrecy::SecretString;
use serde_json::json;

use super::challenges::{ChallengeRef, Purpose};
use super::throttle::{AccountKey, Throttle};
use super::{evenly, mail_texts, passwords};
use crate::oauth::TokenPair;
use crate::{Caller, ControlPlane, DomainError, DomainResult, Profile};

/// What somebody fills in. Holds a password, so it has no `Debug`.
pub struct NewAccount {
    pub email: String,
    /// 1 to 100 characters.
    pub name: String,
    pub password: SecretString,
}

impl NewAccount {
    /// All that is wrong with it, for forms; in the order of its fields.
    pub fn broken_rules(&self) -> Vec<FieldError> {
        let email = field::email("email", &self.email);
        let address = email.as_ref().map_or("", String::as_str);
        let password = passwords::check(&self.password, address);
        let name = field::person_name("name", &self.name);
        [name.err(), email.err(), password.err()]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// What came of it. Pages must look the same for both.
#[derive(Debug, Clone)]
pub enum SignUp {
    /// The address is not verified yet; `challenge` is what the mailed code answers.
    Created {
        user: Profile,
        challenge: ChallengeRef,
    },
    /// The address has an account. Its owner is told by mail.
    Taken,
}

impl ControlPlane {
    /// Makes an account, with an organization of its own, whose address is yet to be verified.
    pub async fn sign_up(&self, new: &NewAccount, caller: &Caller) -> DomainResult<SignUp> {
        let (signed_up, _) = self.sign_up_proven(new, caller).await?;
        Ok(signed_up)
    }

    /// The same for programs: with tokens of the command-line client, which can do next to nothing
    /// until the address is verified. None: the address is taken.
    pub async fn sign_up_with_grant(
        &self,
        new: &NewAccount,
        caller: &Caller,
        user_agent: Option<&str>,
    ) -> DomainResult<Option<TokenPair>> {
        let (signed_up, password_hash) = self.sign_up_proven(new, caller).await?;
        let SignUp::Created { user, .. } = signed_up else {
            return Ok(None);
        };
        // Not if somebody has claimed the account meanwhile.
        let tokens = self
            .begin_password_sign_in(user.id, &password_hash, caller, user_agent)
            .await?;
        Ok(Some(tokens))
    }

    /// With the hash of the password that was given.
    async fn sign_up_proven(
        &self,
        new: &NewAccount,
        caller: &Caller,
    ) -> DomainResult<(SignUp, String)> {
        if let Some(error) = new.broken_rules().into_iter().next() {
            return Err(error.into());
        }
        let email = field::email("email", &new.email)?;
        let name = field::person_name("name", &new.name)?;
        let mut conn = self.db().acquire().await?;
        let throttle: Vec<Throttle> = Throttle::signup_address(caller.address)
            .into_iter()
            .collect();
        self.take_throttles(&mut conn, &throttle).await?;
        drop(conn);
        evenly(self.make_account(&name, &email, &new.password, caller)).await
    }

    async fn make_account(
        &self,
        name: &str,
        email: &str,
        password: &SecretString,
        caller: &Caller,
    ) -> DomainResult<(SignUp, String)> {
        // Also for an address that is taken: the time must not tell.
        let hash = self.hash_password(password).await?;
        let mut tx = self.db().begin().await?;
        let (id, is_new) = self.ensure_account(&mut tx, name, email).await?;
        if is_new {
            accounts::set_password(&mut tx, id, &hash, None).await?;
        }
        let user = accounts::find_user(&mut tx, id)
            .await?
            .ok_or_else(|| DomainError::internal("an account vanished while it was made"))?;
        // Counted for both, so that how often a mail can be asked for does not tell them apart.
        let may_be_told = self.may_mail_once_more(&mut tx, &user).await?;
        if !is_new {
            if may_be_told && user.disabled_at.is_none() {
                let mail = mail_texts::account_exists(&self.settings().base_url);
                self.queue_mail(&mut tx, &user.email, mail, None).await?;
            }
            tx.commit().await.map_err(StorageError::from)?;
            return Ok((SignUp::Taken, hash));
        }
        let target = id.to_string();
        self.audit_person(
            &mut tx,
            id,
            caller,
            "user.signed_up",
            ("user", &target),
            json!({}),
        )
        .await?;
        let challenge = self
            .open_challenge(&mut tx, &user, Purpose::VerifyEmail)
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        let user = user.into();
        Ok((SignUp::Created { user, challenge }, hash))
    }

    /// Counts a mail to the account; false: it had enough of them lately.
    async fn may_mail_once_more(
        &self,
        conn: &mut PgConnection,
        user: &UserRecord,
    ) -> DomainResult<bool> {
        let account = AccountKey::of(Some(user), &user.email);
        match self
            .take_throttles(conn, &[Throttle::mail_account(&account)])
            .await
        {
            Ok(()) => Ok(true),
            Err(DomainError::RateLimited { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
