//! The worker's side: takes events that are due, and says what became of them.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use cp_model::{PartnerId, WebhookEventId, WebhookEventType, WebhookState};
use cp_storage::notifications::{Subscription, Topic};
use cp_storage::webhooks::{self, ClaimedEvent, Places, Refusal};
use cp_tokens::webhook::sign;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::endpoints::context;
use crate::{ControlPlane, DomainError, DomainResult};

/// A worker that says nothing for so long is taken for dead. Much longer than one attempt may take.
const CLAIM: TimeDelta = TimeDelta::minutes(1);
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_hours(6);
/// Characters of an error that are kept.
const LONGEST_ERROR: usize = 500;

/// One attempt to tell one event. Holds secrets, so it has no `Debug`.
pub struct Delivery {
    pub id: WebhookEventId,
    pub partner: PartnerId,
    pub kind: WebhookEventType,
    /// Not to be logged: its path may hold a secret of the receiver's.
    pub url: String,
    /// JSON; the same bytes in every attempt.
    pub body: Vec<u8>,
    secrets: Vec<SecretString>,
    attempt: i32,
}

#[derive(Serialize)]
struct Body<'a> {
    id: WebhookEventId,
    #[serde(rename = "type")]
    kind: WebhookEventType,
    created_at: String,
    data: &'a Value,
}

impl Delivery {
    /// The value of `X-InsForge-Signature`, made anew for each attempt: `t=<unix seconds>` and a
    /// `v1=<hex>` for each secret.
    pub fn signature(&self, now: DateTime<Utc>) -> String {
        let timestamp = now.timestamp();
        self.secrets
            .iter()
            .fold(format!("t={timestamp}"), |header, secret| {
                format!("{header},v1={}", sign(secret, timestamp, &self.body))
            })
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it; the status of its answer.
    Delivered(u16),
    Failed {
        /// None: there was no answer.
        status: Option<u16>,
        error: String,
    },
}

impl ControlPlane {
    /// Claims events that are due, at most `free`, and of each partner no more than make
    /// `per_partner` with those that the worker is `busy` with.
    pub async fn take_due_deliveries(
        &self,
        free: usize,
        per_partner: usize,
        busy: &[(PartnerId, i64)],
    ) -> DomainResult<Vec<Delivery>> {
        let now = self.now();
        let places = Places {
            free: i64::try_from(free).unwrap_or(i64::MAX),
            per_partner: i64::try_from(per_partner).unwrap_or(i64::MAX),
            busy,
        };
        let mut conn = self.db().acquire().await?;
        let claimed = webhooks::claim_due(&mut conn, &places, now, now + CLAIM).await?;
        drop(conn);
        let mut due = Vec::with_capacity(claimed.len());
        for event in claimed {
            let (id, attempt) = (event.id, event.attempts);
            match self.delivery(event, now) {
                Ok(delivery) => due.push(delivery),
                Err(error) => {
                    // One such event must not hold up the others. An operator may bring back the key.
                    tracing::error!(event = %id, %error, "a webhook's secret cannot be opened");
                    let error = "its secret cannot be opened; see the log".to_owned();
                    self.record_failure(id, attempt, None, &error).await?;
                }
            }
        }
        Ok(due)
    }

    fn delivery(&self, event: ClaimedEvent, now: DateTime<Utc>) -> DomainResult<Delivery> {
        let open = |sealed: &[u8]| {
            self.sealer()
                .open_text(sealed, &context(&event.partner))
                .map_err(DomainError::internal)
        };
        let webhook = &event.webhook;
        let mut secrets = vec![open(&webhook.secret_sealed)?];
        if let (Some(sealed), Some(until)) =
            (&webhook.previous_secret_sealed, webhook.previous_until)
            && now < until
        {
            secrets.push(open(sealed)?);
        }
        let body = Body {
            id: event.id,
            kind: event.kind,
            created_at: event
                .created_at
                .to_rfc3339_opts(SecondsFormat::Millis, true),
            data: &event.data,
        };
        Ok(Delivery {
            id: event.id,
            kind: event.kind,
            body: serde_json::to_vec(&body).map_err(DomainError::internal)?,
            url: event.webhook.url,
            partner: event.partner,
            secrets,
            attempt: event.attempts,
        })
    }

    /// What became of an attempt. A failed one comes again after a pause, doubling from ten seconds
    /// to six hours, for three days.
    pub async fn record_delivery(
        &self,
        delivery: &Delivery,
        outcome: &Outcome,
    ) -> DomainResult<()> {
        match outcome {
            Outcome::Delivered(status) => {
                let mut conn = self.db().acquire().await?;
                // False: it was told twice, by a worker that was taken for dead. Nothing to mend.
                webhooks::mark_delivered(&mut conn, delivery.id, i32::from(*status), self.now())
                    .await?;
                Ok(())
            }
            Outcome::Failed { status, error } => {
                self.record_failure(delivery.id, delivery.attempt, *status, error)
                    .await
            }
        }
    }

    async fn record_failure(
        &self,
        id: WebhookEventId,
        attempt: i32,
        status: Option<u16>,
        error: &str,
    ) -> DomainResult<()> {
        let error: String = error
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(LONGEST_ERROR)
            .collect();
        let refusal = Refusal {
            status: status.map(i32::from),
            error: &error,
        };
        // Eight random bytes of a version 4 UUID; its fixed bits are not among the low ones.
        let (_, random) = Uuid::new_v4().as_u64_pair();
        let next = self.now() + pause_after(attempt, random);
        let mut conn = self.db().acquire().await?;
        let state = webhooks::mark_attempt_failed(&mut conn, id, attempt, &refusal, next).await?;
        if state == Some(WebhookState::Failed) {
            tracing::warn!(event = %id, "a webhook did not take an event for three days; it is given up");
        }
        Ok(())
    }

    /// Wakes when an event was queued.
    pub fn subscribe_webhooks(&self) -> Subscription {
        self.db().notifications().subscribe(Topic::Webhooks, "")
    }
}

/// A fifth of the pause is random, so that what failed together does not come back together.
fn pause_after(attempt: i32, random: u64) -> TimeDelta {
    let doublings = u32::try_from(attempt - 1).unwrap_or(0).min(12);
    let pause = FIRST_PAUSE
        .saturating_mul(1 << doublings)
        .min(LONGEST_PAUSE);
    let less = pause / 5 * u32::try_from(random % 1000).unwrap_or(0) / 1000;
    let pause = pause.saturating_sub(less).max(FIRST_PAUSE);
    TimeDelta::from_std(pause).unwrap_or(TimeDelta::hours(6))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_to_six_hours() {
        let pause = |attempt| pause_after(attempt, 0);
        assert_eq!(pause(1), TimeDelta::seconds(10));
        assert_eq!(pause(2), TimeDelta::seconds(20));
        assert_eq!(pause(5), TimeDelta::seconds(160));
        assert_eq!(pause(13), TimeDelta::hours(6));
        assert_eq!(pause(1000), TimeDelta::hours(6));
    }

    proptest! {
        #[test]
        fn pauses_stay_in_bounds(attempt: i32, random: u64) {
            let attempt = attempt.max(1);
            let pause = pause_after(attempt, random);
            prop_assert!(pause >= TimeDelta::seconds(10) && pause <= TimeDelta::hours(6));
            prop_assert!(pause >= pause_after(attempt, 0) * 4 / 5);
        }
    }
}
