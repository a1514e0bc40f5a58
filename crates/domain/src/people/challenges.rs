//! Proofs that a person reads an address: six digits or a link, both mailed.
//!
//! Who began a challenge decides what meeting it does:
//! - `VerifyEmail` is begun by somebody who has proven the account's password (signed up, signed
//!   in). The password stays.
//! - `FirstLogin` may be begun by anybody, and signs in whoever reads the mail. On an account whose
//!   address was never proven it ends everything that was set up before, the password too: a
//!   stranger may have signed up with this address to wait for its owner (account pre-hijacking).
//! - `ResetPassword` may be begun by anybody, and lets whoever reads the mail set a password.

use std::fmt;
use std::str::FromStr;

use chrono::TimeDelta;
use cp_model::{UserId, field};
use cp_storage::accounts::{self, UserRecord};
use cp_storage::email_challenges::{self, NewChallenge, OpenChallenge};
use cp_storage::{PgConnection, StorageError};
use cp_tokens::SecretBytes;
use cp_tokens::secret::{OpaqueSecret, SecretKind, constant_time_eq, random_text_from};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use uuid::Uuid;

use super::throttle::{AccountKey, Throttle};
use super::{evenly, mac, mail_texts};
use crate::{Caller, ControlPlane, DomainError, DomainResult, Profile, UserCaller};

/// Wrong codes that end a challenge.
const MOST_ATTEMPTS: i32 = 5;
/// Wrong codes on all of an account's challenges within [`REMEMBERED`], after which its mails have
/// links only: whoever may ask for challenges without end could otherwise guess without end.
const MOST_WRONG_CODES: i64 = 25;
pub(crate) const REMEMBERED: TimeDelta = TimeDelta::days(30);
/// A challenge that was not met may be sent again for so long.
const SENT_AGAIN_FOR: TimeDelta = TimeDelta::hours(24);
const KEY_PURPOSE: &str = "mail code";

/// Names a challenge. Safe to show: the code is needed besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChallengeRef(Uuid);

impl ChallengeRef {
    /// One that no code answers, for where there is no account and nobody must notice.
    pub fn dead() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for ChallengeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ChallengeRef {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// What a mailed link is for, and whose address it proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkPurpose {
    VerifyEmail {
        email: String,
        /// Whether its owner must sign in before they use it.
        needs_sign_in: bool,
    },
    FirstLogin {
        email: String,
    },
    ResetPassword {
        email: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    VerifyEmail,
    FirstLogin,
    ResetPassword,
}

impl Purpose {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify_email",
            Self::FirstLogin => "first_login",
            Self::ResetPassword => "reset_password",
        }
    }

    fn parse(text: &str) -> DomainResult<Self> {
        [Self::VerifyEmail, Self::FirstLogin, Self::ResetPassword]
            .into_iter()
            .find(|purpose| purpose.as_str() == text)
            .ok_or_else(|| DomainError::internal(format!("a challenge for {text}")))
    }

    const fn lifetime(self) -> TimeDelta {
        match self {
            Self::VerifyEmail | Self::FirstLogin => TimeDelta::minutes(15),
            Self::ResetPassword => TimeDelta::minutes(60),
        }
    }
}

/// Keyed, since a plain hash of six digits is undone by trying them all; bound to its challenge, so
/// that equal codes have different hashes.
fn code_hash(key: &SecretBytes, challenge: Uuid, code: &str) -> [u8; 32] {
    let mut input = challenge.as_bytes().to_vec();
    input.extend_from_slice(code.as_bytes());
    mac(key, &input)
}

/// The digits of what somebody typed: people put spaces or a dash into codes.
fn digits(typed: &str) -> Option<String> {
    let digits: String = typed
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .take(7)
        .collect();
    (digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
}

impl ControlPlane {
    /// Mails a code and a link to whoever has this address, asked for by anybody: accounts without
    /// password, or whose address is not proven, are signed in by it (`FirstLogin`). The owner of
    /// any other account is told that they have one. The answer tells nothing of all that.
    ///
    /// For somebody who has just proven the password see [`ControlPlane::begin_verification`],
    /// for "send it again" [`ControlPlane::resend_verification`].
    pub async fn send_verification(
        &self,
        email: &str,
        caller: &Caller,
    ) -> DomainResult<ChallengeRef> {
        let email = field::email("email", email)?;
        evenly(self.send_to_stranger(&email, caller)).await
    }

    async fn send_to_stranger(&self, email: &str, caller: &Caller) -> DomainResult<ChallengeRef> {
        let Some(user) = self
            .take_mail_request(email, Throttle::mail_account, caller)
            .await?
        else {
            return Ok(ChallengeRef::dead());
        };
        let mut tx = self.db().begin().await?;
        let challenge = if has_proven_password(&user) {
            let mail = mail_texts::account_exists(&self.settings().base_url);
            self.queue_mail(&mut tx, &user.email, mail, None).await?;
            ChallengeRef::dead()
        } else {
            self.open_challenge(&mut tx, &user, Purpose::FirstLogin)
                .await?
        };
        tx.commit().await.map_err(StorageError::from)?;
        Ok(challenge)
    }

    /// Mails a code and a link to somebody who has proven the account's password: after signing
    /// in, or from a session of theirs. A dead reference, and no mail, when there is nothing left
    /// to verify.
    pub async fn begin_verification(
        &self,
        user: UserId,
        caller: &Caller,
    ) -> DomainResult<ChallengeRef> {
        let mut conn = self.db().acquire().await?;
        let user = accounts::find_user(&mut conn, user)
            .await?
            .filter(|u| u.disabled_at.is_none() && u.email_verified_at.is_none());
        let Some(user) = user else {
            return Ok(ChallengeRef::dead());
        };
        let account = AccountKey::of(Some(&user), &user.email);
        let throttles = mail_throttles(Throttle::mail_account(&account), caller);
        self.take_throttles(&mut conn, &throttles).await?;
        drop(conn);
        let mut tx = self.db().begin().await?;
        let challenge = self
            .open_challenge(&mut tx, &user, Purpose::VerifyEmail)
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(challenge)
    }

    /// Mails a new code for the same purpose, for the browser that holds the former challenge and
    /// remembers which address it was mailed to. A dead reference gives another one, after the same
    /// counting: how often one may ask must not tell whether there is an account.
    pub async fn resend_verification(
        &self,
        challenge: ChallengeRef,
        email: &str,
        caller: &Caller,
    ) -> DomainResult<ChallengeRef> {
        let email = field::email("email", email)?;
        evenly(self.send_again(challenge, &email, caller)).await
    }

    async fn send_again(
        &self,
        challenge: ChallengeRef,
        email: &str,
        caller: &Caller,
    ) -> DomainResult<ChallengeRef> {
        let asked = self
            .take_mail_request(email, Throttle::mail_account, caller)
            .await?;
        let since = self.now() - SENT_AGAIN_FOR;
        let mut tx = self.db().begin().await?;
        let former = email_challenges::find_unused(&mut tx, challenge.0, since).await?;
        let (Some(former), Some(user)) = (former, asked) else {
            return Ok(ChallengeRef::dead());
        };
        let purpose = Purpose::parse(&former.purpose)?;
        let is_met = match purpose {
            Purpose::VerifyEmail => user.email_verified_at.is_some(),
            Purpose::FirstLogin => has_proven_password(&user),
            Purpose::ResetPassword => true,
        };
        if former.user != user.id || is_met {
            return Ok(ChallengeRef::dead());
        }
        let challenge = self.open_challenge(&mut tx, &user, purpose).await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(challenge)
    }

    /// Mails a link that sets a new password, if the address has an account. The answer does not
    /// tell whether it has.
    pub async fn request_password_reset(&self, email: &str, caller: &Caller) -> DomainResult<()> {
        let email = field::email("email", email)?;
        evenly(async {
            let asked = self
                .take_mail_request(&email, Throttle::reset_account, caller)
                .await?;
            if let Some(user) = asked {
                let mut tx = self.db().begin().await?;
                self.open_challenge(&mut tx, &user, Purpose::ResetPassword)
                    .await?;
                tx.commit().await.map_err(StorageError::from)?;
            }
            Ok(())
        })
        .await
    }

    /// Counts a mail that anybody may ask for, whether or not there is an account; the account, if
    /// it may have mail.
    async fn take_mail_request(
        &self,
        email: &str,
        of_account: fn(&AccountKey) -> Throttle,
        caller: &Caller,
    ) -> DomainResult<Option<UserRecord>> {
        let mut conn = self.db().acquire().await?;
        let user = accounts::find_user_by_email(&mut conn, email).await?;
        let of_account = of_account(&AccountKey::of(user.as_ref(), email));
        let throttles = mail_throttles(of_account, caller);
        self.take_throttles(&mut conn, &throttles).await?;
        Ok(user.filter(|user| user.disabled_at.is_none()))
    }

    /// Opens a challenge and queues its mail, in the caller's transaction. Earlier ones stay open
    /// until one is met: otherwise whoever keeps asking keeps the owner from ever answering.
    pub(super) async fn open_challenge(
        &self,
        conn: &mut PgConnection,
        user: &UserRecord,
        purpose: Purpose,
    ) -> DomainResult<ChallengeRef> {
        let now = self.now();
        let id = Uuid::now_v7();
        let link = OpaqueSecret::generate(SecretKind::MailToken);
        let may_guess = match purpose {
            Purpose::ResetPassword => false,
            Purpose::VerifyEmail | Purpose::FirstLogin => {
                let since = now - REMEMBERED;
                email_challenges::count_wrong_codes(conn, user.id, since).await? < MOST_WRONG_CODES
            }
        };
        let code = may_guess.then(|| random_text_from(b"0123456789", 6));
        let keys = self.sealer().derived_keys(KEY_PURPOSE);
        let code_hash = match (&code, keys.first()) {
            (Some(code), Some((_, key))) => Some(code_hash(key, id, code.expose_secret())),
            _ => None,
        };
        let link_hash = link.hash();
        let new = NewChallenge {
            id,
            user: user.id,
            purpose: purpose.as_str(),
            link_hash: link_hash.as_bytes(),
            code_hash: code_hash.as_ref().map(<[u8; 32]>::as_slice),
            now,
            expires_at: now + purpose.lifetime(),
        };
        email_challenges::insert_challenge(conn, &new).await?;
        let base_url = &self.settings().base_url;
        let code = code.as_ref().map(SecretString::expose_secret);
        let mail = match purpose {
            Purpose::VerifyEmail => mail_texts::verify_email(code, link.expose(), base_url),
            Purpose::FirstLogin => {
                let ends_password =
                    user.email_verified_at.is_none() && user.password_hash.is_some();
                mail_texts::first_login(code, link.expose(), ends_password, base_url)
            }
            Purpose::ResetPassword => mail_texts::reset_password(link.expose(), base_url),
        };
        self.queue_mail(conn, &user.email, mail, Some(new.expires_at))
            .await?;
        Ok(ChallengeRef(id))
    }

    /// The code that was mailed, typed in: proves the address. A wrong code, an expired, used or
    /// unknown challenge, and one that was guessed at too often, are refused alike.
    pub async fn confirm_code(
        &self,
        challenge: ChallengeRef,
        code: &str,
        caller: &Caller,
    ) -> DomainResult<Profile> {
        let Some(code) = digits(code) else {
            return Err(DomainError::WrongCode);
        };
        let throttle: Vec<_> = Throttle::code_address(caller.address).into_iter().collect();
        let mut conn = self.db().acquire().await?;
        self.take_throttles(&mut conn, &throttle).await?;
        let attempt =
            email_challenges::take_attempt(&mut conn, challenge.0, MOST_ATTEMPTS, self.now())
                .await?
                .ok_or(DomainError::WrongCode)?;
        let keys = self.sealer().derived_keys(KEY_PURPOSE);
        let right = keys.iter().any(|(_, key)| {
            constant_time_eq(&code_hash(key, challenge.0, &code), &attempt.code_hash)
        });
        if !right {
            return Err(DomainError::WrongCode);
        }
        self.give_back(&mut conn, &throttle).await?;
        drop(conn);
        let challenge = OpenChallenge {
            id: challenge.0,
            user: attempt.user,
            purpose: attempt.purpose,
        };
        self.meet(&challenge, true, caller)
            .await?
            .ok_or(DomainError::WrongCode)
    }

    /// What the link is for. Uses nothing up: programs that look for viruses open links, too.
    pub async fn look_at_link(&self, token: &str) -> DomainResult<LinkPurpose> {
        let (challenge, user) = self.find_link(token).await?;
        Ok(match Purpose::parse(&challenge.purpose)? {
            Purpose::VerifyEmail => LinkPurpose::VerifyEmail {
                needs_sign_in: user.password_hash.is_some(),
                email: user.email,
            },
            Purpose::FirstLogin => LinkPurpose::FirstLogin { email: user.email },
            Purpose::ResetPassword => LinkPurpose::ResetPassword { email: user.email },
        })
    }

    /// Proves the address by the link. `by`: who is signed in to the browser that opened it. Where
    /// somebody's password would stay, that must be the account's owner, else `Unauthorized`: the
    /// reader of a mail may click on anything, and must not so verify a stranger's account.
    pub async fn confirm_link(
        &self,
        token: &str,
        by: Option<&UserCaller>,
        caller: &Caller,
    ) -> DomainResult<Profile> {
        let (challenge, user) = self.find_link(token).await?;
        match Purpose::parse(&challenge.purpose)? {
            Purpose::VerifyEmail => {
                let is_owner = by.is_some_and(|by| by.user.id == user.id);
                if user.password_hash.is_some() && !is_owner {
                    return Err(DomainError::Unauthorized);
                }
            }
            Purpose::FirstLogin => {}
            Purpose::ResetPassword => return Err(DomainError::ExpiredLink),
        }
        self.meet(&challenge, false, caller)
            .await?
            .ok_or(DomainError::ExpiredLink)
    }

    /// The open challenge that the link answers, and its account.
    pub(super) async fn find_link(&self, token: &str) -> DomainResult<(OpenChallenge, UserRecord)> {
        let token = OpaqueSecret::parse(SecretKind::MailToken, token)
            .map_err(|_| DomainError::ExpiredLink)?;
        let mut conn = self.db().acquire().await?;
        let challenge =
            email_challenges::find_open_by_link(&mut conn, token.hash().as_bytes(), self.now())
                .await?
                .ok_or(DomainError::ExpiredLink)?;
        let user = accounts::find_user(&mut conn, challenge.user)
            .await?
            .filter(|user| user.disabled_at.is_none())
            .ok_or(DomainError::ExpiredLink)?;
        Ok((challenge, user))
    }

    /// Uses the challenge up and notes that the address is proven. None: somebody was faster, or
    /// the account is disabled.
    async fn meet(
        &self,
        challenge: &OpenChallenge,
        by_code: bool,
        caller: &Caller,
    ) -> DomainResult<Option<Profile>> {
        let now = self.now();
        let mut tx = self.db().begin().await?;
        let user = accounts::lock_user(&mut tx, challenge.user).await?;
        let Some(user) = user.filter(|user| user.disabled_at.is_none()) else {
            return Ok(None);
        };
        if !email_challenges::mark_used(&mut tx, challenge.id, by_code, now).await? {
            return Ok(None);
        }
        let purpose = Purpose::parse(&challenge.purpose)?;
        if purpose == Purpose::FirstLogin && user.email_verified_at.is_none() {
            let (name, _) = user.email.split_once('@').unwrap_or((&user.email, ""));
            self.end_what_a_stranger_began(&mut tx, user.id, name)
                .await?;
        }
        email_challenges::mark_all_used(&mut tx, user.id, now).await?;
        let is_new = accounts::mark_verified(&mut tx, user.id, now).await?;
        let action = if is_new {
            "user.email_verified"
        } else {
            "user.signed_in_by_mail"
        };
        let target = user.id.to_string();
        let details = json!({ "by": if by_code { "code" } else { "link" } });
        self.audit_person(&mut tx, user.id, caller, action, ("user", &target), details)
            .await?;
        let user = accounts::find_user(&mut tx, user.id).await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(user.map(Profile::from))
    }

    /// Ends what was set up on an account before its address was proven: whoever did that may be a
    /// stranger who waits for the address's owner (account pre-hijacking). The account is called
    /// `name` from now on, since applications show its owner by the stranger's words otherwise.
    pub(crate) async fn end_what_a_stranger_began(
        &self,
        conn: &mut PgConnection,
        user: UserId,
        name: &str,
    ) -> DomainResult<()> {
        let Some(had_password) = accounts::delete_unproven_password(conn, user).await? else {
            return Ok(());
        };
        let ended = self
            .end_every_sign_in(conn, user, "address_claimed")
            .await?;
        if !had_password && ended.is_nothing() {
            return Ok(());
        }
        accounts::rename_user(conn, user, name).await?;
        accounts::delete_consents(conn, user).await?;
        // The stranger's browser waits for a code that the owner gets by mail.
        email_challenges::mark_all_used(conn, user, self.now()).await?;
        let target = user.to_string();
        let details = json!({
            "sessions": ended.sessions, "grants": ended.grants, "api_keys": ended.keys,
        });
        self.audit_service(
            conn,
            "system",
            "user.unproven_password_removed",
            ("user", &target),
            None,
            details,
        )
        .await?;
        Ok(())
    }
}

/// Its owner signs in with it; no mail does.
fn has_proven_password(user: &UserRecord) -> bool {
    user.email_verified_at.is_some() && user.password_hash.is_some()
}

fn mail_throttles(of_account: Throttle, caller: &Caller) -> Vec<Throttle> {
    // The address first: who floods is refused before the account's own count is touched, which
    // would keep its owner from asking.
    Throttle::mail_address(caller.address)
        .into_iter()
        .chain([of_account])
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hash_of_a_code_belongs_to_key_challenge_and_code() {
        let (one, other) = (
            SecretBytes::from(vec![1; 32]),
            SecretBytes::from(vec![2; 32]),
        );
        let (here, there) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let hash = code_hash(&one, here, "012345");
        assert_eq!(hash, code_hash(&one, here, "012345"));
        assert_ne!(hash, code_hash(&one, here, "012346"));
        assert_ne!(hash, code_hash(&one, there, "012345"));
        assert_ne!(hash, code_hash(&other, here, "012345"));
    }

    #[test]
    fn codes_may_be_typed_with_spaces() {
        for typed in [
            "012345",
            " 012 345 ",
            "012-345",
            "01 23 45\n",
            "012\u{a0}345",
        ] {
            assert_eq!(digits(typed).as_deref(), Some("012345"), "{typed:?}");
        }
        for typed in [
            "",
            "12345",
            "1234567",
            "12345a",
            "١٢٣٤٥٦",
            "0x1234",
            "+12345",
        ] {
            assert_eq!(digits(typed), None, "{typed:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_code_or_not_without_panic(typed in ".{0,40}") {
            if let Some(code) = digits(&typed) {
                prop_assert!(code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit()));
            }
        }
    }

    #[test]
    fn purposes_are_read_back_as_they_are_stored() {
        for purpose in [
            Purpose::VerifyEmail,
            Purpose::FirstLogin,
            Purpose::ResetPassword,
        ] {
            assert_eq!(Purpose::parse(purpose.as_str()).unwrap(), purpose);
        }
        assert!(Purpose::parse("other").is_err());
    }

    #[test]
    fn a_reference_is_read_back() {
        let challenge = ChallengeRef::dead();
        assert_eq!(challenge.to_string().parse(), Ok(challenge));
        assert!("x".parse::<ChallengeRef>().is_err());
    }
}
