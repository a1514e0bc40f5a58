//! What backends tell of themselves, asked for every hour: sizes as they are, and how many MCP
//! calls there were since the last time (contract/project-backend.md, 2.4).

use std::collections::BTreeMap;

use chrono::{DateTime, Days, SubsecRound as _, TimeDelta, Utc};
use cp_model::usage::midnight;
use cp_model::{Metric, ProjectId};
use cp_storage::usage_collections::{self, DueCollection};
use cp_storage::{StorageError, usage};
use secrecy::SecretString;

use super::ingest::{MOST_LATE, UsageEvent};
use crate::{ControlPlane, DomainResult};

/// What our collector calls itself in the events that it makes.
pub(super) const SOURCE: &str = "collector";
/// A collector that says nothing for so long is taken for dead.
const CLAIM: TimeDelta = TimeDelta::minutes(1);
/// Backends' clocks differ from ours: the newest moments are left for the next time.
const MOST_SKEW: TimeDelta = TimeDelta::seconds(30);
const FIRST_PAUSE: TimeDelta = TimeDelta::minutes(1);

/// One question to one backend.
pub struct Collection {
    pub project: ProjectId,
    /// Base URL of the backend.
    pub access_host: String,
    /// For `Authorization: Bearer`.
    pub token: SecretString,
    /// Included.
    pub from: DateTime<Utc>,
    /// Not included. Never on a later day than `from`, so that counts fall on their day.
    pub until: DateTime<Utc>,
    /// Not so while whole days are to be caught up on.
    is_current: bool,
    attempts: i32,
}

/// A backend's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub struct Stats {
    /// Between the two times that were asked for.
    pub mcp_usage_count: i64,
    /// Now.
    pub database_size_bytes: i64,
    /// Now.
    pub storage_size_bytes: i64,
}

impl ControlPlane {
    /// Claims collections that are due, the longest due first. They are nobody else's for a
    /// minute.
    pub async fn take_due_collections(
        &self,
        every: TimeDelta,
        limit: i64,
    ) -> DomainResult<Vec<Collection>> {
        let now = self.now();
        let mut conn = self.db().acquire().await?;
        usage_collections::insert_missing(&mut conn, now, every).await?;
        let claimed = usage_collections::claim_due(&mut conn, limit, now, now + CLAIM).await?;
        // Each token is signed: nobody should wait for a connection meanwhile.
        drop(conn);
        let mut due = Vec::with_capacity(claimed.len());
        for claimed in claimed {
            let collection = self.collection(claimed, now, every).await?;
            if collection.from < collection.until {
                due.push(collection);
            } else {
                // Our clock went back: until it has caught up, all is counted.
                let mut conn = self.db().acquire().await?;
                usage_collections::postpone(&mut conn, collection.project, now + every).await?;
            }
        }
        Ok(due)
    }

    async fn collection(
        &self,
        due: DueCollection,
        now: DateTime<Utc>,
        every: TimeDelta,
    ) -> DomainResult<Collection> {
        // Counts that are too late for an event are too late for a collection.
        let from = due.collected_until.max((now - MOST_LATE).trunc_subsecs(0));
        let day_ends = midnight(from.date_naive() + Days::new(1));
        let newest = (now - MOST_SKEW.min(every / 10)).trunc_subsecs(0);
        let until = newest.min(day_ends).max(from);
        let token = self.authorize_service(due.project, &due.access_host, "usage");
        let token = token.await?;
        Ok(Collection {
            project: due.project,
            access_host: due.access_host,
            token,
            from,
            until,
            is_current: newest <= day_ends,
            attempts: due.attempts,
        })
    }

    /// Counts what the backend told, once, and sets when it is asked again: at once while there
    /// are days to catch up on, else after `every`. A backend whose counters went back is taken at
    /// its word for the time that was asked for; what was counted before stays.
    pub async fn record_collection(
        &self,
        collection: &Collection,
        stats: &Stats,
        every: TimeDelta,
    ) -> DomainResult<()> {
        let now = self.now();
        let Collection {
            project,
            from,
            until,
            ..
        } = *collection;
        let next = if collection.is_current {
            now + every
        } else {
            now
        };
        let mut tx = self.db().begin().await?;
        if !usage_collections::mark_collected(&mut tx, project, from, until, next).await? {
            // Somebody else was taken for the living one.
            return Ok(());
        }
        let projects: BTreeMap<_, _> = usage::list_counted_projects(&mut tx, &[project]).await?;
        let event = |metric: Metric, told: i64, at: DateTime<Utc>| {
            let can_be = (0..=metric.most()).contains(&told);
            if !can_be {
                tracing::error!(%project, %metric, told, "a backend told what cannot be; it is not counted");
            }
            let amount = if can_be { told } else { 0 };
            UsageEvent {
                id: format!("{project}:{metric}:{}", from.timestamp()),
                source: SOURCE.to_owned(),
                project,
                metric,
                amount,
                occurred_at: at,
            }
        };
        let mut events = vec![event(Metric::McpCalls, stats.mcp_usage_count, from)];
        if collection.is_current {
            events.push(event(
                Metric::DatabaseBytes,
                stats.database_size_bytes,
                until,
            ));
            events.push(event(Metric::StorageBytes, stats.storage_size_bytes, until));
        }
        events.retain(|event| event.amount != 0);
        self.count_events(&mut tx, &events, &projects).await?;
        tx.commit().await.map_err(StorageError::from)?;
        self.check_limits_of(&events, &projects).await;
        Ok(())
    }

    /// Asks again later: after a minute, doubling up to `every`.
    pub async fn mark_collection_failed(
        &self,
        collection: &Collection,
        error: &str,
        every: TimeDelta,
    ) -> DomainResult<()> {
        let doublings = u32::try_from(collection.attempts).unwrap_or(0).min(10);
        let pause = (FIRST_PAUSE * (1 << doublings)).min(every);
        let error: String = error
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(500)
            .collect();
        let mut conn = self.db().acquire().await?;
        let next = self.now() + pause;
        usage_collections::mark_failed(&mut conn, collection.project, &error, next).await?;
        Ok(())
    }
}
