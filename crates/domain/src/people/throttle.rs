//! How often somebody may try: wrong passwords, wrong codes, mails asked for. Counted in the
//! database over all processes, in windows of a quarter of an hour.

use std::fmt::Write as _;
use std::net::IpAddr;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use cp_model::UserId;
use cp_storage::accounts::UserRecord;
use cp_storage::{PgConnection, rate_limits};
use cp_tokens::secret::hash_bytes;

use crate::rate_limit::network;
use crate::{ControlPlane, DomainError, DomainResult};

const WINDOW: TimeDelta = TimeDelta::minutes(15);

/// One thing that is counted, and how much of it there may be in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Throttle {
    key: String,
    limit: u32,
}

impl Throttle {
    /// Wrong passwords for one account, from everywhere.
    pub(super) fn login_account(account: &AccountKey) -> Self {
        Self::new("login:account", &account.0, 100)
    }

    /// Wrong passwords for one account from one place. Much less than from everywhere, so that
    /// whoever wants to lock a person out has to come from ten places at once.
    pub(super) fn login_account_at(account: &AccountKey, address: Option<IpAddr>) -> Self {
        let place = address.map_or_else(String::new, |address| network(address).to_string());
        Self::new("login:account_at", &format!("{}:{place}", account.0), 10)
    }

    /// Wrong passwords from one place.
    pub(super) fn login_address(address: Option<IpAddr>) -> Option<Self> {
        Self::of_address("login:address", address, 100)
    }

    /// Wrong codes from one place.
    pub(super) fn code_address(address: Option<IpAddr>) -> Option<Self> {
        Self::of_address("code:address", address, 50)
    }

    /// Mails that strangers can make us send to one account.
    pub(super) fn mail_account(account: &AccountKey) -> Self {
        Self::new("mail:account", &account.0, 5)
    }

    /// Links to a new password for one account: the way back in, which nothing else may use up.
    pub(super) fn reset_account(account: &AccountKey) -> Self {
        Self::new("reset:account", &account.0, 5)
    }

    /// Mails that one place can make us send.
    pub(super) fn mail_address(address: Option<IpAddr>) -> Option<Self> {
        Self::of_address("mail:address", address, 30)
    }

    /// Accounts that one place can make, or try to make.
    pub(super) fn signup_address(address: Option<IpAddr>) -> Option<Self> {
        Self::of_address("signup:address", address, 30)
    }

    /// Invitations that one person has mailed, and mails that strangers can make us send to the account.
    pub(crate) fn invitation(
        inviter: UserId,
        invited: Option<&UserRecord>,
        email: &str,
    ) -> [Self; 2] {
        [
            Self::new("invitation:from", &inviter.to_string(), 30),
            Self::mail_account(&AccountKey::of(invited, email)),
        ]
    }

    fn new(what: &str, whose: &str, limit: u32) -> Self {
        Self {
            key: format!("{what}:{whose}"),
            limit,
        }
    }

    fn of_address(what: &str, address: Option<IpAddr>, limit: u32) -> Option<Self> {
        address.map(|address| Self::new(what, &network(address).to_string(), limit))
    }

    fn refusal(&self, now: DateTime<Utc>) -> DomainError {
        let left = window_start(now) + WINDOW - now;
        DomainError::RateLimited {
            limit: self.limit,
            retry_after: u64::try_from(left.num_seconds()).unwrap_or(0).max(1),
        }
    }
}

/// Names an account in a counter's key, whether it exists or not, without spelling its address.
pub(super) struct AccountKey(String);

impl AccountKey {
    /// Of the stored address where there is an account: Postgres takes some letters for the same
    /// that we would tell apart, and each such spelling would otherwise be counted anew.
    pub(super) fn of(user: Option<&UserRecord>, given_email: &str) -> Self {
        let email = user.map_or(given_email, |user| &user.email);
        let hash = hash_bytes(email.trim().to_lowercase().as_bytes());
        Self(
            hash.iter()
                .fold(String::with_capacity(64), |mut hex, byte| {
                    // Writing to a String cannot fail.
                    let _ = write!(hex, "{byte:02x}");
                    hex
                }),
        )
    }
}

fn window_start(now: DateTime<Utc>) -> DateTime<Utc> {
    now.duration_trunc(WINDOW).unwrap_or(now)
}

impl ControlPlane {
    /// Refuses where a counter has reached its limit. Counts nothing.
    pub(super) async fn check_throttles(
        &self,
        conn: &mut PgConnection,
        throttles: &[Throttle],
    ) -> DomainResult<()> {
        let now = self.now();
        for throttle in throttles {
            let used = rate_limits::used(conn, &throttle.key, window_start(now)).await?;
            if used >= i64::from(throttle.limit) {
                return Err(throttle.refusal(now));
            }
        }
        Ok(())
    }

    /// Counts one failure.
    pub(super) async fn count_failure(
        &self,
        conn: &mut PgConnection,
        throttles: &[Throttle],
    ) -> DomainResult<()> {
        let window = window_start(self.now());
        for throttle in throttles {
            let before = rate_limits::take(conn, &throttle.key, window, 1).await?;
            if before + 1 == i64::from(throttle.limit) {
                // Once per window. The key names no address of a person, only that of a network.
                tracing::warn!(
                    counter = throttle.key,
                    "too many failures; refusing for a while"
                );
            }
        }
        Ok(())
    }

    /// Counts one try before it is made, so that many at once are not more than the limit.
    pub(crate) async fn take_throttles(
        &self,
        conn: &mut PgConnection,
        throttles: &[Throttle],
    ) -> DomainResult<()> {
        let now = self.now();
        for throttle in throttles {
            let before = rate_limits::take(conn, &throttle.key, window_start(now), 1).await?;
            if before >= i64::from(throttle.limit) {
                return Err(throttle.refusal(now));
            }
        }
        Ok(())
    }

    /// Takes back a try that turned out to be a good one.
    pub(super) async fn give_back(
        &self,
        conn: &mut PgConnection,
        throttles: &[Throttle],
    ) -> DomainResult<()> {
        let window = window_start(self.now());
        for throttle in throttles {
            rate_limits::take(conn, &throttle.key, window, -1).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_counted_once_whatever_the_case() {
        let key = |email| AccountKey::of(None, email).0;
        assert_eq!(key("Ada@Example.com"), key(" ada@example.COM"));
        assert_ne!(key("ada@example.com"), key("bob@example.com"));
        let throttle = Throttle::login_account(&AccountKey::of(None, "ada@example.com"));
        assert!(!throttle.key.contains("ada"), "{}", throttle.key);
        assert_eq!(throttle.key.len(), "login:account:".len() + 64);
    }

    #[test]
    fn a_whole_ipv6_network_is_one_place() {
        let key = |text: &str| Throttle::login_address(text.parse().ok()).map(|t| t.key);
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert!(Throttle::login_address(None).is_none());
    }

    #[test]
    fn who_is_refused_is_told_when_the_window_ends() {
        let now = "2026-11-21T10:14:30Z".parse().unwrap();
        let refusal = Throttle::new("a", "b", 10).refusal(now);
        assert!(
            matches!(
                refusal,
                DomainError::RateLimited {
                    limit: 10,
                    retry_after: 30
                }
            ),
            "{refusal:?}"
        );
    }
}
