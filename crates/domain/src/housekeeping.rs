//! What has to be done now and then: throw away what is too old, make partitions ahead; and the
//! question whether this process can take requests.

use chrono::{Months, TimeDelta};
use cp_storage::retention::{self, BATCH};
use cp_storage::{ai_keys, analyses, billing, branch_comparisons, used_signatures, wakeups};

use crate::{ControlPlane, DomainError, DomainResult, idempotency, keys, oauth, people};

/// Finished operations are kept this long.
const OPERATIONS_KEPT: TimeDelta = TimeDelta::days(90);
/// Sent mails, for operators; they have no content any more.
const MAILS_KEPT: TimeDelta = TimeDelta::days(30);
/// Longer than the longest window that is counted in, a quarter of an hour.
const RATE_LIMITS_KEPT: TimeDelta = TimeDelta::minutes(30);

/// Expired codes are kept this long, so that one that comes twice is known.
const CODES_KEPT: TimeDelta = TimeDelta::days(1);

/// Used refresh tokens, likewise; and sign-ins that have ended.
const GRANTS_KEPT: TimeDelta = TimeDelta::days(30);

/// What webhooks were told, for operators who look or tell it again.
const WEBHOOK_EVENTS_KEPT: TimeDelta = TimeDelta::days(30);

/// That a usage limit was reached, by the period. Much longer than usage may come late.
const CROSSINGS_KEPT: TimeDelta = TimeDelta::days(400);

/// Usage events, by when they happened: to count a day again, or to answer a question.
const USAGE_EVENTS_KEPT: TimeDelta = TimeDelta::days(90);

/// By which an event that comes again is known, by when they came. Longer than the 35 days that an
/// event may be late: whoever sends one again after that is refused for its time.
const USAGE_KEYS_KEPT: TimeDelta = TimeDelta::days(40);

/// AI keys that are gone, to count how many an organization has had. Longer than they are counted.
const AI_KEYS_KEPT: TimeDelta = TimeDelta::days(40);

/// That somebody asked an AI about a project, and how they rated the answer.
const ANALYSES_KEPT: TimeDelta = TimeDelta::days(90);

/// Who was invited and declined, for administrators who look.
const INVITATIONS_KEPT: TimeDelta = TimeDelta::days(30);

impl ControlPlane {
    /// Runs in batches; safe to run by any number of processes.
    pub async fn keep_house(&self) -> DomainResult<()> {
        let now = self.now();
        let mut conn = self.db().acquire().await?;
        // In batches, until one is short: no long transaction, and no backlog either.
        while wakeups::delete_handled(&mut conn).await? >= BATCH {}
        while retention::delete_idempotency_keys(&mut conn, now - idempotency::KEPT).await? >= BATCH
        {
        }
        while retention::delete_finished_operations(&mut conn, now - OPERATIONS_KEPT).await?
            >= BATCH
        {}
        while ai_keys::delete_gone(&mut conn, now - AI_KEYS_KEPT).await? >= BATCH {}
        while analyses::delete_started_before(&mut conn, now - ANALYSES_KEPT).await? >= BATCH {}
        while used_signatures::delete_expired(&mut conn, now).await? >= BATCH {}
        retention::delete_rate_limit_windows(&mut conn, now - RATE_LIMITS_KEPT).await?;
        while retention::delete_ended_browser_sessions(&mut conn, now).await? >= BATCH {}
        while retention::delete_email_challenges(&mut conn, now - people::CHALLENGES_KEPT).await?
            >= BATCH
        {}
        let invitations_before = now - INVITATIONS_KEPT;
        while retention::delete_ended_invitations(&mut conn, invitations_before).await? >= BATCH {}
        while retention::delete_done_mails(&mut conn, now - MAILS_KEPT).await? >= BATCH {}
        while billing::delete_events(&mut conn, now - crate::billing::EVENTS_KEPT).await? >= BATCH {
        }
        let events_before = now - WEBHOOK_EVENTS_KEPT;
        while retention::delete_done_webhook_events(&mut conn, events_before).await? >= BATCH {}
        let crossings_before = (now - CROSSINGS_KEPT).date_naive();
        retention::delete_usage_limit_crossings(&mut conn, crossings_before).await?;
        let comparisons_before = now - crate::merges::COMPARISONS_KEPT;
        let dry_runs_before = now - crate::merges::DRY_RUNS_KEPT;
        while branch_comparisons::delete_ended(&mut conn, comparisons_before, dry_runs_before)
            .await?
            >= BATCH
        {}
        let codes_before = now - CODES_KEPT;
        while retention::delete_authorization_codes(&mut conn, codes_before).await? >= BATCH {}
        while retention::delete_device_codes(&mut conn, codes_before).await? >= BATCH {}
        let grants_before = now - GRANTS_KEPT;
        while retention::delete_used_refresh_tokens(&mut conn, grants_before).await? >= BATCH {}
        let unused_since = grants_before - oauth::IDLE;
        while retention::delete_ended_grants(&mut conn, grants_before, unused_since).await? >= BATCH
        {
        }
        let ahead = 2;
        let next_month = now
            .date_naive()
            .checked_add_months(Months::new(1))
            .unwrap_or(now.date_naive());
        retention::ensure_audit_partitions(&mut conn, next_month, ahead).await?;
        retention::ensure_usage_partitions(&mut conn, now.date_naive(), 3).await?;
        retention::drop_usage_events(&mut conn, (now - USAGE_EVENTS_KEPT).date_naive()).await?;
        let keys_before = now - USAGE_KEYS_KEPT;
        while retention::delete_usage_event_keys(&mut conn, keys_before).await? >= BATCH {}
        retention::delete_usage_collections(&mut conn).await?;
        Ok(())
    }

    /// Whether the database answers, has our schema, and a key can sign.
    pub async fn check_ready(&self) -> DomainResult<()> {
        self.db().ping().await?;
        if self.db().pending_migrations().await? > 0 {
            return Err(DomainError::Conflict(
                "the database lacks migrations; run: insforge-cloud migrate".into(),
            ));
        }
        if self.jwks().etag == keys::NO_KEYS && !self.load_keys().await? {
            return Err(DomainError::Conflict(
                "there is no signing key yet; a worker makes it".into(),
            ));
        }
        Ok(())
    }
}
