//! What has to be done now and then: throw away what is too old, make partitions ahead; and the
//! question whether this process can take requests.

use chrono::{Months, TimeDelta};
use cp_storage::retention::{self, BATCH};
use cp_storage::wakeups;

use crate::{ControlPlane, DomainError, DomainResult, idempotency, keys};

/// Finished operations are kept this long.
const OPERATIONS_KEPT: TimeDelta = TimeDelta::days(90);

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
        retention::delete_rate_limit_windows(&mut conn, now - TimeDelta::minutes(10)).await?;
        let ahead = 2;
        let next_month = now
            .date_naive()
            .checked_add_months(Months::new(1))
            .unwrap_or(now.date_naive());
        retention::ensure_audit_partitions(&mut conn, next_month, ahead).await?;
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
