//! When signing keys come and go. Pure: rows and a time in, a plan out.
//!
//! ```text
//! (created) → next ──publish_ahead──→ active ──active_lifetime──→ retiring ──retire_after──→ retired
//!             published, unused       signs                       published, unused          gone
//! ```
//!
//! A key is published before it signs, so that every cached key set has it by then, and stays
//! published until every token that it signed has expired. The waiting key itself is the record
//! that a rotation is under way: a forced rotation needs no flag that outlives its call.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::PROJECT_AUTHORIZATION_LIFETIME;

/// `max-age` of the key set's answer.
pub const JWKS_CACHE_LIFETIME: TimeDelta = TimeDelta::seconds(300);

/// Where a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Published, signs nothing yet.
    Next,
    /// Signs. There is one.
    Active,
    /// Published, signs nothing any more.
    Retiring,
    /// Not published: its tokens have expired.
    Retired,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown state of a signing key: {0}")]
pub struct UnknownKeyState(String);

impl KeyState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
        }
    }

    pub const fn is_published(self) -> bool {
        !matches!(self, Self::Retired)
    }

    pub const fn can_become(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Next, Self::Active)
                | (Self::Active, Self::Retiring)
                // A waiting key may be dropped unused.
                | (Self::Next | Self::Retiring, Self::Retired)
        )
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for KeyState {
    type Err = UnknownKeyState;

    fn from_str(text: &str) -> Result<Self, UnknownKeyState> {
        [Self::Next, Self::Active, Self::Retiring, Self::Retired]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownKeyState(text.to_owned()))
    }
}

/// What rotation needs to know of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    pub kid: String,
    pub state: KeyState,
    /// Since then it is published.
    pub created_at: DateTime<Utc>,
    /// Since then it signs.
    pub activated_at: Option<DateTime<Utc>>,
    /// Since then it signs no more.
    pub retiring_since: Option<DateTime<Utc>>,
}

/// The times between a key's states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotationPolicy {
    /// From publishing a key to its first signature.
    pub publish_ahead: TimeDelta,
    /// From a key's last signature to its removal.
    pub retire_after: TimeDelta,
    /// From a key's first signature to its last, unless forced.
    pub active_lifetime: TimeDelta,
}

impl Default for RotationPolicy {
    fn default() -> Self {
        Self {
            // Backends keep the key set for up to 10 minutes, whatever our headers say.
            publish_ahead: TimeDelta::minutes(15),
            // The token's life, and a minute for clocks that differ and for a process that has
            // not noticed the rotation yet.
            retire_after: TimeDelta::seconds(660),
            active_lifetime: TimeDelta::days(30),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("publish_ahead is below 300 seconds, the time for which the key set may be cached")]
    PublishAheadTooShort,
    #[error("retire_after is below 600 seconds, the life of a project authorization")]
    RetireAfterTooShort,
    #[error("active_lifetime must be longer than publish_ahead")]
    ActiveLifetimeTooShort,
}

impl RotationPolicy {
    /// Whether no token signed under this policy can meet a verifier without its key. For
    /// configuration; tests use shorter times.
    pub fn validate(&self) -> Result<(), PolicyError> {
        if self.publish_ahead < JWKS_CACHE_LIFETIME {
            return Err(PolicyError::PublishAheadTooShort);
        }
        if self.retire_after < PROJECT_AUTHORIZATION_LIFETIME {
            return Err(PolicyError::RetireAfterTooShort);
        }
        if self.active_lifetime <= self.publish_ahead {
            return Err(PolicyError::ActiveLifetimeTooShort);
        }
        Ok(())
    }
}

/// What to do now, all in one transaction. Empty: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RotationPlan {
    /// Generate a key and insert it as [`KeyState::Next`], `created_at` = now.
    pub create_next: bool,
    /// `Next` → `Active`, `activated_at` = now.
    pub activate: Option<String>,
    /// → `Retiring`, `retiring_since` = now.
    pub begin_retiring: Vec<String>,
    /// `Retiring` → `Retired`: no longer published; the private half can be deleted.
    pub retire: Vec<String>,
}

impl RotationPlan {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Plans the next step. Call it regularly, and again at once after a plan that said `create_next`
/// while no key was active: the first key of an installation signs without waiting, since there
/// is no earlier key that could sign in the meantime.
///
/// `force` starts a rotation before its time. It takes effect once the new key has been published
/// for `publish_ahead`, by calls without `force`. While a rotation is under way it does nothing.
///
/// Every run leaves exactly one active key once there is one. Should rows ever show none (someone
/// took it away by hand), the longest published waiting key is activated at once: a token that some
/// backends refuse until they fetch the key set again, within 30 seconds, is better than none.
pub fn plan_rotation(
    keys: &[KeyRecord],
    now: DateTime<Utc>,
    policy: &RotationPolicy,
    force: bool,
) -> RotationPlan {
    let in_state = |state| keys.iter().filter(move |key| key.state == state);
    let mut plan = RotationPlan::default();

    // One active key by the database's constraint; of several, the latest goes on.
    let active = in_state(KeyState::Active).max_by_key(|key| (signs_since(key), &key.kid));
    let next = in_state(KeyState::Next).min_by_key(|key| (key.created_at, &key.kid));

    match (active, next) {
        (None, None) => plan.create_next = true,
        (None, Some(next)) => plan.activate = Some(next.kid.clone()),
        (Some(_), Some(next)) => {
            if now - next.created_at >= policy.publish_ahead {
                plan.activate = Some(next.kid.clone());
            }
        }
        (Some(active), None) => {
            // Early by as much as the new key has to wait, so that the change comes on time.
            let due_at = signs_since(active) + policy.active_lifetime - policy.publish_ahead;
            plan.create_next = force || now >= due_at;
        }
    }

    for key in in_state(KeyState::Active) {
        let goes_on = plan.activate.is_none() && active.is_some_and(|active| active.kid == key.kid);
        if !goes_on {
            plan.begin_retiring.push(key.kid.clone());
        }
    }
    for key in in_state(KeyState::Retiring) {
        match key.retiring_since {
            Some(since) if now - since >= policy.retire_after => plan.retire.push(key.kid.clone()),
            Some(_) => {}
            // A row without its time: the wait starts now, and the key is not lost sight of.
            None => plan.begin_retiring.push(key.kid.clone()),
        }
    }
    plan
}

fn signs_since(key: &KeyRecord) -> DateTime<Utc> {
    key.activated_at.unwrap_or(key.created_at)
}
