//! Asks backends what they used (contract/project-backend.md, 2.4). One that is slow or silent
//! holds up one place among many, for seconds; its hours are caught up later.

use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta};
use cp_domain::DomainResult;
use cp_domain::usage::{Collection, Stats};
use futures::stream::{self, StreamExt as _};
use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;

use crate::Worker;
use crate::jobs::{Ticks, log_failure};
use crate::probe::read_json;

/// How often due collections are looked for; at most, when they are made more often than that.
const LOOK: Duration = Duration::from_secs(30);
/// Backends asked at once.
const AT_ONCE: usize = 16;
/// Collections claimed at once; few enough to be done before their claims end, even if every
/// backend is silent for the five seconds of the client's patience.
const BATCH: i64 = 160;

pub(crate) async fn collect(worker: Worker, shutdown: CancellationToken) {
    let look = LOOK.min(worker.config().usage_every);
    let mut ticks = Ticks::every(look, shutdown.clone());
    while ticks.next().await {
        let round = worker.collect_due_usage();
        tokio::select! {
            result = round => log_failure("collect_usage", result),
            // What is cut off here is due again when its claim ends.
            () = shutdown.cancelled() => return,
        }
    }
}

impl Worker {
    async fn collect_due_usage(&self) -> DomainResult<()> {
        let every = TimeDelta::from_std(self.config().usage_every).unwrap_or(TimeDelta::hours(1));
        loop {
            let due = self
                .control_plane()
                .take_due_collections(every, BATCH)
                .await?;
            if due.is_empty() {
                return Ok(());
            }
            stream::iter(due)
                .for_each_concurrent(AT_ONCE, async |collection| {
                    log_failure("collect_usage", self.collect_one(&collection, every).await);
                })
                .await;
        }
    }

    async fn collect_one(&self, collection: &Collection, every: TimeDelta) -> DomainResult<()> {
        let control_plane = self.control_plane();
        let outcome = match self.ask_for_usage(collection).await {
            Ok(stats) => {
                control_plane
                    .record_collection(collection, &stats, every)
                    .await?;
                "collected"
            }
            Err(reason) => {
                tracing::info!(project = %collection.project, reason, "a backend did not tell its usage; it is asked again");
                control_plane
                    .mark_collection_failed(collection, &reason, every)
                    .await?;
                "failed"
            }
        };
        metrics::counter!("usage_collections_total", "outcome" => outcome).increment(1);
        Ok(())
    }

    async fn ask_for_usage(&self, collection: &Collection) -> Result<Stats, String> {
        let time =
            |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let request = self
            .inner
            .http
            .get(format!("{}/api/usage/stats", collection.access_host))
            .query(&[
                ("start_date", time(collection.from)),
                ("end_date", time(collection.until)),
            ])
            .bearer_auth(collection.token.expose_secret());
        let stats: Stats = serde_json::from_value(read_json(request).await?)
            .map_err(|error| format!("the answer is no usage: {error}"))?;
        Ok(stats)
    }
}
