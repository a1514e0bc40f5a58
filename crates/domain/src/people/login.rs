//! Signing in with a password.

use cp_storage::StorageError;
use cp_storage::accounts::{self, UserRecord};
use cp_tokens::password;
use secrecy::SecretString;

use super::throttle::{AccountKey, Throttle};
use crate::oauth::TokenPair;
use crate::{Caller, ControlPlane, DomainError, DomainResult, Profile};

/// Somebody who has just signed in to a browser.
pub struct SignedIn {
    pub user: Profile,
    /// The session cookie's value.
    pub cookie: SecretString,
}

/// What a program gets for a right password.
pub enum PasswordGrant {
    Granted(Box<TokenPair>),
    /// The address has to be verified first.
    Unverified(Profile),
}

/// An account whose password was just proven.
struct Proven {
    user: UserRecord,
    /// The hash that it was proven against.
    password_hash: String,
}

impl ControlPlane {
    /// Whose address and password these are. An unknown address, an account without password, a
    /// disabled one and a wrong password are the same refusal after the same work. Whether the
    /// address is verified is for the caller to look at.
    pub async fn log_in(
        &self,
        email: &str,
        password: &SecretString,
        caller: &Caller,
    ) -> DomainResult<Profile> {
        let proven = self.prove_password(email, password, caller).await?;
        Ok(proven.user.into())
    }

    /// [`ControlPlane::log_in`] and [`ControlPlane::begin_browser_session`] in one: no session
    /// begins with a password that was changed, or an account that was claimed, in between.
    pub async fn sign_in_with_password(
        &self,
        email: &str,
        password: &SecretString,
        caller: &Caller,
        user_agent: Option<&str>,
    ) -> DomainResult<SignedIn> {
        let Proven {
            user,
            password_hash,
        } = self.prove_password(email, password, caller).await?;
        let mut tx = self.db().begin().await?;
        if !accounts::lock_password(&mut tx, user.id, &password_hash).await? {
            return Err(DomainError::Unauthorized);
        }
        let cookie = self
            .insert_browser_session(&mut tx, user.id, caller, user_agent)
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(SignedIn {
            user: user.into(),
            cookie,
        })
    }

    /// The same for programs: tokens of the command-line client in place of a cookie, and none
    /// before the address is verified.
    pub async fn grant_with_password(
        &self,
        email: &str,
        password: &SecretString,
        caller: &Caller,
        user_agent: Option<&str>,
    ) -> DomainResult<PasswordGrant> {
        let Proven {
            user,
            password_hash,
        } = self.prove_password(email, password, caller).await?;
        let user = Profile::from(user);
        if !user.email_verified {
            return Ok(PasswordGrant::Unverified(user));
        }
        let tokens = self
            .begin_password_sign_in(user.id, &password_hash, caller, user_agent)
            .await?;
        Ok(PasswordGrant::Granted(Box::new(tokens)))
    }

    async fn prove_password(
        &self,
        email: &str,
        password: &SecretString,
        caller: &Caller,
    ) -> DomainResult<Proven> {
        let mut conn = self.db().acquire().await?;
        let user = find(&mut conn, email).await?;
        let throttles = login_throttles(&AccountKey::of(user.as_ref(), email), caller);
        self.check_throttles(&mut conn, &throttles).await?;
        drop(conn);
        let known = user.and_then(|mut user| {
            let hash = user.password_hash.take();
            let enabled = user.disabled_at.is_none();
            hash.map(|hash| (user, hash, enabled))
        });
        let hash = known.as_ref().map(|(_, hash, _)| hash.clone());
        let right = self.check_password(hash, password, &throttles).await?;
        match known {
            Some((user, password_hash, true)) if right => Ok(Proven {
                user,
                password_hash,
            }),
            // The right password of a disabled account, which must not show that it was right.
            Some((_, _, false)) if right => {
                let mut conn = self.db().acquire().await?;
                self.count_failure(&mut conn, &throttles).await?;
                Err(DomainError::Unauthorized)
            }
            _ => Err(DomainError::Unauthorized),
        }
    }

    /// One guess at a password, with all that guarding it takes; a wrong one is counted. Without a
    /// hash it does the same work and is never right.
    ///
    /// Guesses wait for a thread and are then held against the limits again, so that guesses made
    /// at once exceed them by no more than the threads that there are.
    pub(super) async fn check_password(
        &self,
        hash: Option<String>,
        password: &SecretString,
        throttles: &[Throttle],
    ) -> DomainResult<bool> {
        let turn = self.inner.hashing.turn().await?;
        let mut conn = self.db().acquire().await?;
        self.check_throttles(&mut conn, throttles).await?;
        drop(conn);
        let given = password.clone();
        let right = turn
            .run(move || {
                if let Some(hash) = hash {
                    password::verify(&given, &hash)
                } else {
                    password::dummy_verify(&given);
                    Ok(false)
                }
            })
            .await?
            .map_err(DomainError::internal)?;
        if !right {
            let mut conn = self.db().acquire().await?;
            self.count_failure(&mut conn, throttles).await?;
        }
        drop(turn);
        Ok(right)
    }
}

/// What Postgres cannot hold in a text is no account's address.
async fn find(
    conn: &mut cp_storage::PgConnection,
    email: &str,
) -> DomainResult<Option<UserRecord>> {
    let email = if email.contains('\0') {
        ""
    } else {
        email.trim()
    };
    Ok(accounts::find_user_by_email(conn, email).await?)
}

pub(super) fn login_throttles(account: &AccountKey, caller: &Caller) -> Vec<Throttle> {
    let of_account = [
        Throttle::login_account_at(account, caller.address),
        Throttle::login_account(account),
    ];
    let address = Throttle::login_address(caller.address);
    of_account.into_iter().chain(address).collect()
}
