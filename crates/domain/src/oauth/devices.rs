//! Sign-in of devices without a browser (RFC 8628): the device shows a short code, a person enters
//! it on our page and approves, the device polls until then.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::{OAuthClient, Scopes};
use cp_storage::oauth_devices::{self, NewDevice, Poll};
use cp_storage::oauth_grants::Origin;
use cp_storage::{PgConnection, StorageError};
use cp_tokens::secret::{OpaqueSecret, SecretKind, random_text_from};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::grants::SignIn;
use super::{
    OAuthError, OAuthErrorCode, TokenPair, browser_of, hold_person, kept_user_agent, parse_scopes,
};
use crate::context::Caller;
use crate::rate_limit::network;
use crate::{ControlPlane, DomainError, DomainResult, Thing, UserCaller};

const LIFETIME: TimeDelta = TimeDelta::minutes(15);

/// Seconds between two polls, to begin with.
const INTERVAL: i32 = 5;

/// Consonants: no words come of them, and none looks like another or like a digit (RFC 8628
/// section 6.1, whose entropy of 20^8 this is).
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const CODE_LEN: usize = 8;

/// Codes that one person, and one network, may try in a minute (RFC 8628 section 5.1).
const TRIES_PER_PERSON: u32 = 10;
const TRIES_PER_NETWORK: u32 = 50;

/// What a device shows and polls with. It holds a secret, so it has no `Debug`.
pub struct DeviceStart {
    pub device_code: SecretString,
    /// As it is shown: `BCDF-GHJK`.
    pub user_code: String,
    /// Seconds.
    pub expires_in: i64,
    /// Seconds between two polls.
    pub interval: i64,
}

/// What a person is asked to approve, and where it came from (RFC 8628 section 5.4).
#[derive(Debug, Clone)]
pub struct DeviceRequest {
    pub client: Arc<OAuthClient>,
    pub scopes: Scopes,
    pub address: Option<String>,
    pub user_agent: Option<String>,
    pub created_at: DateTime<Utc>,
    /// As it is shown.
    pub user_code: String,
}

/// What a person typed, as it is stored: whatever its case, with dashes and spaces wherever they
/// like. None: it cannot be a code.
fn normalized(typed: &str) -> Option<String> {
    let mut code = String::with_capacity(CODE_LEN);
    for letter in typed.chars() {
        match letter.to_ascii_uppercase() {
            '-' | '\u{2010}'..='\u{2015}' => {}
            letter if letter.is_whitespace() => {}
            letter
                if code.len() < CODE_LEN && ALPHABET.iter().any(|&b| char::from(b) == letter) =>
            {
                code.push(letter);
            }
            _ => return None,
        }
    }
    (code.len() == CODE_LEN).then_some(code)
}

/// With its dash.
fn shown(code: &str) -> String {
    let (first, second) = code.split_at(CODE_LEN / 2);
    format!("{first}-{second}")
}

fn refusal(code: OAuthErrorCode, description: &'static str) -> DomainError {
    OAuthError::new(code, description).into()
}

/// Unknown, used and dead codes are all the same to a device: it must ask for a new one.
fn expired() -> DomainError {
    refusal(
        OAuthErrorCode::ExpiredToken,
        "The device code has expired, or was used. Ask for a new one.",
    )
}

fn check_may_use_devices(client: &OAuthClient) -> DomainResult<()> {
    if client.device_grant {
        Ok(())
    } else {
        Err(refusal(
            OAuthErrorCode::UnauthorizedClient,
            "This application may not use the device flow.",
        ))
    }
}

impl ControlPlane {
    pub async fn begin_device(
        &self,
        client: &OAuthClient,
        scope: &str,
        caller: &Caller,
        user_agent: Option<&str>,
    ) -> DomainResult<DeviceStart> {
        check_may_use_devices(client)?;
        let scopes = parse_scopes(scope, &client.scopes)?;
        let now = self.now();
        let device_code = OpaqueSecret::generate(SecretKind::DeviceCode);
        let hash = device_code.hash();
        let address = caller.address.map(|a| a.to_string());
        let user_agent = kept_user_agent(user_agent);
        let mut conn = self.db().acquire().await?;
        // Two devices with one code are as likely as a right guess; then another is drawn.
        for _ in 0..5 {
            let user_code = random_text_from(ALPHABET, CODE_LEN);
            let new = NewDevice {
                hash: hash.as_bytes(),
                user_code: user_code.expose_secret(),
                client: &client.id,
                scopes: &scopes,
                address: address.as_deref(),
                user_agent: user_agent.as_deref(),
                poll_interval: INTERVAL,
                expires_at: now + LIFETIME,
                now,
            };
            if oauth_devices::insert_device(&mut conn, &new).await? {
                return Ok(DeviceStart {
                    device_code: device_code.into_secret_string(),
                    user_code: shown(user_code.expose_secret()),
                    expires_in: LIFETIME.num_seconds(),
                    interval: INTERVAL.into(),
                });
            }
        }
        Err(DomainError::internal("no user code was free"))
    }

    /// The device that waits with this code.
    ///
    /// # Errors
    /// [`DomainError::NotFound`], [`DomainError::RateLimited`], and for accounts that have not
    /// proven their address [`DomainError::EmailNotVerified`]: anybody can make those, and guess
    /// with each.
    pub async fn find_device(
        &self,
        by: &UserCaller,
        user_code: &str,
    ) -> DomainResult<DeviceRequest> {
        let code = self.take_try(by, user_code).await?;
        let mut conn = self.db().acquire().await?;
        let waiting = oauth_devices::find_waiting_device(&mut conn, &code, self.now())
            .await?
            .ok_or(DomainError::NotFound(Thing::DeviceCode))?;
        drop(conn);
        let known = self
            .known_client(&waiting.client)
            .await?
            .filter(|known| known.client.disabled_at.is_none())
            .ok_or(DomainError::NotFound(Thing::DeviceCode))?;
        Ok(DeviceRequest {
            client: known.client.clone(),
            scopes: waiting.scopes,
            address: waiting.address,
            user_agent: waiting.user_agent,
            created_at: waiting.created_at,
            user_code: shown(&code),
        })
    }

    /// Approves the device, or refuses it. An approval is good until the code expires, whether or
    /// not the device polls meanwhile.
    ///
    /// # Errors
    /// As [`ControlPlane::find_device`].
    pub async fn decide_device(
        &self,
        by: &UserCaller,
        user_code: &str,
        approve: bool,
    ) -> DomainResult<()> {
        let session = browser_of(by)?;
        let code = self.take_try(by, user_code).await?;
        let mut tx = self.db().begin().await?;
        hold_person(&mut tx, by.user.id).await?;
        let user = by.user.id;
        let client =
            oauth_devices::mark_decided(&mut tx, user, session, &code, approve, self.now())
                .await?
                .ok_or(DomainError::NotFound(Thing::DeviceCode))?;
        let action = if approve {
            "oauth.device_approved"
        } else {
            "oauth.device_denied"
        };
        let target = ("oauth_client", client.as_str());
        self.audit_by_user(&mut tx, by, action, target, json!({}))
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }

    /// One of the tries that a person has; gives the code.
    async fn take_try(&self, by: &UserCaller, user_code: &str) -> DomainResult<String> {
        if !by.user.email_verified {
            return Err(DomainError::EmailNotVerified);
        }
        let person = format!("device:{}", by.user.id);
        self.take(&person, TRIES_PER_PERSON).await?;
        if let Some(network) = by.caller.address.map(network) {
            self.take(&format!("device:{network}"), TRIES_PER_NETWORK)
                .await?;
        }
        normalized(user_code).ok_or(DomainError::NotFound(Thing::DeviceCode))
    }

    /// Tokens, once the person has approved; until then an error of RFC 8628 section 3.5.
    pub async fn poll_device(
        &self,
        client: &OAuthClient,
        device_code: &str,
        caller: &Caller,
    ) -> DomainResult<TokenPair> {
        check_may_use_devices(client)?;
        let code = OpaqueSecret::parse(SecretKind::DeviceCode, device_code)
            .map_err(|_| expired())?
            .hash();
        let mut conn = self.db().acquire().await?;
        let poll =
            oauth_devices::poll_device(&mut conn, code.as_bytes(), &client.id, self.now()).await?;
        drop(conn);
        check_poll(poll)?;
        let mut tx = self.db().begin().await?;
        let tokens = self
            .redeem(&mut tx, client, code.as_bytes(), caller)
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(tokens)
    }

    /// Uses the approved code; another poll may have been faster.
    async fn redeem(
        &self,
        conn: &mut PgConnection,
        client: &OAuthClient,
        code: &[u8],
        caller: &Caller,
    ) -> DomainResult<TokenPair> {
        let (user, scopes) =
            oauth_devices::take_approved_device(conn, code, &client.id, self.now())
                .await?
                .ok_or_else(expired)?;
        let sign_in = SignIn {
            client: &client.id,
            user,
            scopes,
            origin: Origin::DeviceCode,
            caller,
            user_agent: None,
        };
        let begun = self.begin_sign_in(conn, sign_in).await?;
        let (_, tokens) = begun.ok_or_else(expired)?;
        Ok(tokens)
    }
}

/// Lets an approved device pass.
fn check_poll(poll: Option<Poll>) -> DomainResult<()> {
    let Some(poll) = poll else {
        return Err(expired());
    };
    Err(match (poll.state.as_str(), poll.too_soon) {
        ("approved", _) => return Ok(()),
        ("pending", true) => refusal(
            OAuthErrorCode::SlowDown,
            "That was too soon. Wait five seconds longer between two polls from now on.",
        ),
        ("pending", false) => refusal(
            OAuthErrorCode::AuthorizationPending,
            "The person has not answered yet. Ask again after the interval.",
        ),
        ("denied", _) => refusal(
            OAuthErrorCode::AccessDenied,
            "The person denied the request.",
        ),
        _ => expired(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_is_typed() {
        for typed in [
            "BCDF-GHJK",
            "bcdfghjk",
            " b c d f - g h j k ",
            "BCDF\u{2013}GHJK",
            "bcdf\tghjk\n",
        ] {
            assert_eq!(normalized(typed).as_deref(), Some("BCDFGHJK"), "{typed:?}");
        }
        for bad in [
            "",
            "BCDF",
            "BCDF-GHJ",
            "BCDF-GHJKL",
            "ACDF-GHJK",
            "BCDF-GHJ0",
            "BCDFGHJ\u{212a}",
            "BCDF_GHJK",
        ] {
            assert_eq!(normalized(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for _ in 0..100 {
            let code = random_text_from(ALPHABET, CODE_LEN);
            let shown = shown(code.expose_secret());
            assert_eq!(shown.len(), 9);
            assert_eq!(normalized(&shown).as_deref(), Some(code.expose_secret()));
        }
    }

    #[test]
    fn each_state_has_its_answer() {
        let told = |state: &str, too_soon| {
            let poll = Poll {
                state: state.into(),
                too_soon,
            };
            match check_poll(Some(poll)) {
                Ok(()) => "tokens",
                Err(DomainError::OAuth(error)) => error.code.as_str(),
                Err(_) => "other",
            }
        };
        assert_eq!(told("pending", false), "authorization_pending");
        assert_eq!(told("pending", true), "slow_down");
        for too_soon in [false, true] {
            assert_eq!(told("approved", too_soon), "tokens");
            assert_eq!(told("denied", too_soon), "access_denied");
            assert_eq!(told("used", too_soon), "expired_token");
        }
        assert!(matches!(
            check_poll(None),
            Err(DomainError::OAuth(error)) if error.code == OAuthErrorCode::ExpiredToken
        ));
    }

    #[test]
    fn while_a_device_waits_no_text_makes_it_forget_its_code() {
        // The command-line client drops its code at these words (platform-api.md 3.2).
        for too_soon in [false, true] {
            let poll = Poll {
                state: "pending".into(),
                too_soon,
            };
            let Err(DomainError::OAuth(error)) = check_poll(Some(poll)) else {
                panic!("a pending device got through");
            };
            let text = error.description.to_lowercase();
            assert!(
                !["denied", "expired", "cancelled"]
                    .iter()
                    .any(|word| text.contains(word))
            );
        }
    }
}
