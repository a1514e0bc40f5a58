//! Requests per minute, counted over all processes. Each process takes a small share of the
//! minute's budget from the database and spends it from memory, so the hot path asks the database
//! once in a while only; a share that is left over at the end of the minute is lost, at most two
//! percent of the limit per process.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use cp_model::Partner;
use cp_storage::rate_limits;

use crate::{ControlPlane, DomainError, DomainResult};

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

/// The share of one process.
#[derive(Debug)]
struct Share {
    window: DateTime<Utc>,
    /// Requests that this process may still spend.
    left: u32,
    /// What was used of the window when the share was taken, by everybody.
    used_before: u32,
    /// The share's size.
    size: u32,
    /// Whether nothing is left of the window after it.
    is_last: bool,
}

pub(crate) struct Limiter<K> {
    shares: Mutex<HashMap<K, Arc<tokio::sync::Mutex<Share>>>>,
}

impl<K> Default for Limiter<K> {
    fn default() -> Self {
        Self {
            shares: Mutex::default(),
        }
    }
}

impl<K: Eq + Hash + Clone> Limiter<K> {
    fn share(&self, key: &K) -> Arc<tokio::sync::Mutex<Share>> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(key) {
            return share.clone();
        }
        let share = Arc::new(tokio::sync::Mutex::new(Share {
            window: DateTime::UNIX_EPOCH,
            left: 0,
            used_before: 0,
            size: 0,
            is_last: false,
        }));
        shares.insert(key.clone(), share.clone());
        share
    }
}

impl ControlPlane {
    /// Takes one request from the partner's minute.
    pub async fn take_request(&self, partner: &Partner) -> DomainResult<RateLimit> {
        let now = self.now();
        let window = window_start(now);
        let limit = partner.rate_limit;
        let share = self.inner.limiter.share(&partner.id);
        let mut share = share.lock().await;
        // What is known to be spent is refused from memory: a partner over its limit costs nobody else.
        let known_spent = share.window == window && share.is_last;
        if share.window != window || (share.left == 0 && !known_spent) {
            let size = (limit / 50).max(1);
            let mut conn = self.db().acquire().await?;
            let key = format!("partner:{}", partner.id);
            let before = rate_limits::take(&mut conn, &key, window, i64::from(size)).await?;
            let used_before = u32::try_from(before).unwrap_or(u32::MAX);
            *share = Share {
                window,
                left: size.min(limit.saturating_sub(used_before)),
                used_before,
                size,
                is_last: used_before.saturating_add(size) >= limit,
            };
        }
        if share.left == 0 {
            return Err(DomainError::RateLimited {
                limit,
                retry_after: seconds_left(now),
            });
        }
        share.left -= 1;
        let spent = share.size.min(limit.saturating_sub(share.used_before)) - share.left;
        let remaining = limit.saturating_sub(share.used_before.saturating_add(spent));
        Ok(RateLimit {
            limit,
            remaining,
            reset: seconds_left(now),
        })
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
fn network(address: IpAddr) -> IpAddr {
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
