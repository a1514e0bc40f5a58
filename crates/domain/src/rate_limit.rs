//! Requests per minute, counted over all processes. Each process takes a share of the minute's
//! budget from the database and spends it from memory, so the hot path asks the database once in a
//! while only. Shares shrink with what is left of the minute, so that processes that are used alike
//! spend all of it; one that is asked nothing more loses what it has not spent.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use cp_model::{ClientKind, OAuthClient, Partner, PartnerId};
use cp_storage::rate_limits;
use moka::sync::Cache;

use crate::{ControlPlane, Credential, DomainError, DomainResult, UserCaller};

/// Authorization requests of one address in a minute (seeds/oauth-server.md, Rate Limits).
const AUTHORIZE_LIMIT: u32 = 100;

/// Looks at one partner's usage report in a minute, by all who have a link.
const REPORT_VIEWS: u32 = 60;

/// Profile requests with one token in a minute (the same).
const PROFILE_LIMIT: u32 = 100;

/// What a caller is told about its limit, after this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests per minute.
    pub limit: u32,
    pub remaining: u32,
    /// Seconds until the minute ends.
    pub reset: u64,
}

const WINDOW: TimeDelta = TimeDelta::minutes(1);

fn window_start(now: DateTime<Utc>) -> DateTime<Utc> {
    now.duration_trunc(WINDOW).unwrap_or(now)
}

fn seconds_left(now: DateTime<Utc>) -> u64 {
    let left = window_start(now) + WINDOW - now;
    u64::try_from(left.num_milliseconds())
        .unwrap_or(0)
        .div_ceil(1000)
        .max(1)
}

/// How much to take next when `left` seems to be left of `limit`: a quarter, and of a big limit no
/// more than two percent, which is what an idle process may lose.
fn share_size(limit: u32, left: u32) -> u32 {
    let most = if limit >= 500 { limit / 50 } else { limit };
    (left / 4).clamp(1, most.max(1))
}

/// What one process holds of one budget.
#[derive(Debug)]
struct Share {
    window: DateTime<Utc>,
    /// Requests that this process may still spend.
    left: u32,
    /// What everybody has taken of the window, as far as this process knows.
    taken: u32,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            window: DateTime::UNIX_EPOCH,
            left: 0,
            taken: 0,
        }
    }
}

impl Share {
    /// How much to ask the database for; none: there is something left, or it is known that
    /// nothing is. What is known to be spent is refused from memory: who is over the limit costs
    /// nobody else.
    fn wants(&self, window: DateTime<Utc>, limit: u32) -> Option<u32> {
        if self.window != window {
            return Some(share_size(limit, limit));
        }
        let left_to_all = limit.saturating_sub(self.taken);
        (self.left == 0 && left_to_all > 0).then(|| share_size(limit, left_to_all))
    }

    /// The database has noted `size`; `before` was taken until then, by everybody.
    fn refill(&mut self, window: DateTime<Utc>, limit: u32, size: u32, before: u32) {
        *self = Self {
            window,
            left: size.min(limit.saturating_sub(before)),
            taken: before.saturating_add(size),
        };
    }

    /// Spends one; gives what is left to everybody, as far as known. None: nothing is.
    fn spend(&mut self, limit: u32) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        Some(limit.saturating_sub(self.taken) + self.left)
    }
}

/// The shares of this process. Bounded: what has not been asked for in two minutes, or is crowded
/// out by a hundred thousand others, is forgotten, which costs its share at most.
pub(crate) struct Limiter {
    shares: Cache<String, Arc<tokio::sync::Mutex<Share>>>,
}

impl Default for Limiter {
    fn default() -> Self {
        Self {
            shares: Cache::builder()
                .max_capacity(100_000)
                .time_to_idle(Duration::from_mins(2))
                .build(),
        }
    }
}

impl Limiter {
    fn share(&self, key: &str) -> Arc<tokio::sync::Mutex<Share>> {
        self.shares
            .get(key)
            .unwrap_or_else(|| self.shares.get_with(key.to_owned(), Arc::default))
    }
}

/// How an address is named in keys. Those without one share one budget.
fn network_name(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "unknown".into(), |address| network(address).to_string())
}

impl ControlPlane {
    /// Takes one request from the partner's minute.
    pub async fn take_request(&self, partner: &Partner) -> DomainResult<RateLimit> {
        let key = format!("partner:{}", partner.id);
        self.take(&key, partner.rate_limit).await
    }

    /// Takes one look at the partner's usage report. Counted apart from its calls: whoever was given
    /// a link may look, and must not stand in their way.
    pub async fn take_report_view(&self, partner: &PartnerId) -> DomainResult<RateLimit> {
        self.take(&format!("usage-report:{partner}"), REPORT_VIEWS)
            .await
    }

    /// Takes one token request from the client's minute. A public client is anybody who knows its
    /// id: each network has a minute of its own there, so that nobody uses up the others'.
    pub async fn take_token_request(
        &self,
        client: &OAuthClient,
        address: Option<IpAddr>,
    ) -> DomainResult<RateLimit> {
        self.take_client_request("token", client, address).await
    }

    /// The same for starting and polling devices, counted apart: a few devices that wait must not
    /// use up what refreshes need, since a client that is refused one signs its person out.
    pub async fn take_device_request(
        &self,
        client: &OAuthClient,
        address: Option<IpAddr>,
    ) -> DomainResult<RateLimit> {
        self.take_client_request("device", client, address).await
    }

    async fn take_client_request(
        &self,
        what: &str,
        client: &OAuthClient,
        address: Option<IpAddr>,
    ) -> DomainResult<RateLimit> {
        let key = match client.kind {
            ClientKind::Confidential => format!("{what}:{}", client.id),
            ClientKind::Public => format!("{what}:{}:{}", client.id, network_name(address)),
        };
        self.take(&key, client.rate_limit).await
    }

    /// Takes one authorization request from the address's minute.
    pub async fn take_authorize_request(&self, address: Option<IpAddr>) -> DomainResult<RateLimit> {
        let key = format!("authorize:{}", network_name(address));
        self.take(&key, AUTHORIZE_LIMIT).await
    }

    /// Takes one profile request from the token's minute.
    pub async fn take_profile_request(&self, by: &UserCaller) -> DomainResult<RateLimit> {
        let key = match &by.credential {
            Credential::AccessToken { jti, .. } => format!("profile:{jti}"),
            Credential::ApiKey { id, .. } => format!("profile:key:{id}"),
            Credential::Browser(id) => format!("profile:session:{id}"),
        };
        self.take(&key, PROFILE_LIMIT).await
    }

    /// Takes one from the key's minute.
    pub(crate) async fn take(&self, key: &str, limit: u32) -> DomainResult<RateLimit> {
        let now = self.now();
        let window = window_start(now);
        let share = self.inner.limiter.share(key);
        let mut share = share.lock().await;
        if let Some(size) = share.wants(window, limit) {
            let mut conn = self.db().acquire_for_one().await?;
            let before = rate_limits::take(&mut conn, key, window, i64::from(size)).await?;
            conn.done();
            let before = u32::try_from(before).unwrap_or(u32::MAX);
            share.refill(window, limit, size, before);
        }
        match share.spend(limit) {
            Some(remaining) => Ok(RateLimit {
                limit,
                remaining,
                reset: seconds_left(now),
            }),
            None => Err(DomainError::RateLimited {
                limit,
                retry_after: seconds_left(now),
            }),
        }
    }
}

/// Wrong credentials per address. An address that sent too many is refused, unasked, until the
/// minute ends.
pub(crate) struct FailureLimiter {
    limit: u32,
    blocked: moka::sync::Cache<IpAddr, DateTime<Utc>>,
}

impl FailureLimiter {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            blocked: moka::sync::Cache::builder().max_capacity(100_000).build(),
        }
    }
}

/// What one subscriber has: an IPv4 address, or an IPv6 /64 (RFC 6177), of which anybody could use
/// every single address once.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
    }
}

impl ControlPlane {
    /// Refuses an address that has sent too many wrong credentials in this minute.
    pub(crate) fn check_auth_failures(&self, address: Option<IpAddr>) -> DomainResult<()> {
        let failures = &self.inner.auth_failures;
        let now = self.now();
        match address.and_then(|a| failures.blocked.get(&network(a))) {
            Some(window) if window == window_start(now) => Err(DomainError::RateLimited {
                limit: failures.limit,
                retry_after: seconds_left(now),
            }),
            _ => Ok(()),
        }
    }

    /// Counts wrong credentials; the refusal to answer with.
    pub(crate) async fn count_auth_failure(&self, address: Option<IpAddr>) -> DomainError {
        let Some(address) = address.map(network) else {
            return DomainError::Unauthorized;
        };
        let failures = &self.inner.auth_failures;
        let now = self.now();
        let taken = async {
            let mut conn = self.db().acquire().await?;
            rate_limits::take(&mut conn, &format!("auth:{address}"), window_start(now), 1).await
        };
        match taken.await {
            Ok(before) if before >= i64::from(failures.limit) => {
                failures.blocked.insert(address, window_start(now));
                DomainError::RateLimited {
                    limit: failures.limit,
                    retry_after: seconds_left(now),
                }
            }
            Ok(_) => DomainError::Unauthorized,
            Err(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minute of processes that share one budget, as the database counts it.
    struct Minute {
        limit: u32,
        taken: u32,
        calls: u32,
        processes: Vec<Share>,
    }

    impl Minute {
        fn new(limit: u32, processes: usize) -> Self {
            Self {
                limit,
                taken: 0,
                calls: 0,
                processes: (0..processes).map(|_| Share::default()).collect(),
            }
        }

        fn request(&mut self, process: usize) -> Option<u32> {
            let window = DateTime::UNIX_EPOCH + WINDOW;
            let share = &mut self.processes[process];
            if let Some(size) = share.wants(window, self.limit) {
                share.refill(window, self.limit, size, self.taken);
                self.taken += size;
                self.calls += 1;
            }
            share.spend(self.limit)
        }
    }

    #[test]
    fn one_process_spends_all_and_counts_down_by_one() {
        for limit in (1..=120).chain([499, 500, 1_000, 9_999]) {
            let mut minute = Minute::new(limit, 1);
            for left in (0..limit).rev() {
                assert_eq!(minute.request(0), Some(left), "limit {limit}");
            }
            for _ in 0..3 {
                assert_eq!(minute.request(0), None, "limit {limit}");
            }
        }
    }

    #[test]
    fn processes_that_are_used_alike_let_exactly_the_limit_pass() {
        for count in [2, 3, 5] {
            for limit in (1..=200).chain([500, 1_000]) {
                let mut minute = Minute::new(limit, count);
                let requests = 2 * limit as usize + 10 * count;
                let passed = (0..requests)
                    .filter(|number| minute.request(number % count).is_some())
                    .count();
                assert_eq!(passed, limit as usize, "limit {limit}, {count} processes");
            }
        }
    }

    #[test]
    fn no_order_of_requests_lets_more_than_the_limit_pass() {
        // Any order will do; this one is a fixed stream of a linear congruential generator.
        let mut random = 1_u64;
        let mut next = || {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::from(u8::try_from(random >> 56).unwrap_or(0))
        };
        for limit in 1..=150 {
            let mut minute = Minute::new(limit, 4);
            let mut passed = 0;
            for _ in 0..4 * limit + 40 {
                passed += u32::from(minute.request(next() % 4).is_some());
            }
            assert!(passed <= limit, "{passed} of {limit}");
        }
    }

    #[test]
    fn the_database_is_asked_seldom() {
        for (limit, calls) in [(50, 20), (100, 25), (10_000, 100)] {
            let mut minute = Minute::new(limit, 1);
            for _ in 0..limit + 1_000 {
                minute.request(0);
            }
            assert!(minute.calls <= calls, "{} calls for {limit}", minute.calls);
        }
    }

    #[test]
    fn a_new_minute_begins_anew() {
        let mut share = Share::default();
        share.refill(DateTime::UNIX_EPOCH + WINDOW, 5, 1, 4);
        assert_eq!(share.spend(5), Some(0));
        assert_eq!(share.wants(DateTime::UNIX_EPOCH + WINDOW, 5), None);
        assert_eq!(share.wants(DateTime::UNIX_EPOCH + WINDOW * 2, 5), Some(1));
    }

    #[test]
    fn a_network_is_what_one_subscriber_has() {
        let name = |text: &str| network_name(Some(text.parse().unwrap()));
        assert_eq!(name("192.0.2.7"), "192.0.2.7");
        assert_eq!(name("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(name("2001:db8:1:2:3:4:5:6"), name("2001:db8:1:2::"));
        assert_ne!(name("2001:db8:1:2::"), name("2001:db8:1:3::"));
        assert_eq!(network_name(None), "unknown");
    }
}
