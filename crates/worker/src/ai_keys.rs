//! Keeps the AI provider's keys as the database says: deletes those that nobody wants any more (of deleted projects, replaced
//! ones, and those whose answer was lost), and tells limits that have changed with a plan.

use std::time::Duration;

use cp_ai::{ListedKey, OpenRouter};
use cp_domain::{DomainResult, DoomedAiKey, is_surely_not_made, name_of_doomed};
use tokio_util::sync::CancellationToken;

use crate::Worker;
use crate::jobs::{Ticks, log_failure};

pub(crate) async fn keep_ai_keys(
    worker: Worker,
    openrouter: OpenRouter,
    every: Duration,
    shutdown: CancellationToken,
) {
    let mut ticks = Ticks::every(every, shutdown.clone());
    while ticks.next().await {
        let round = async {
            // Limits first: a slow provider may take long over deletions, and who pays no more must not spend on.
            log_failure("limit_ai_keys", worker.limit_ai_keys(&openrouter).await);
            log_failure("reclaim_ai_keys", worker.reclaim_ai_keys(&openrouter).await);
        };
        if shutdown.run_until_cancelled(round).await.is_none() {
            return;
        }
    }
}

impl Worker {
    async fn reclaim_ai_keys(&self, openrouter: &OpenRouter) -> DomainResult<()> {
        let doomed = self.control_plane().list_doomed_ai_keys().await?;
        // Those of which nobody knows whether they were made are found by their name.
        let mut listed = None;
        if doomed.iter().any(|key| key.hash.is_none()) {
            listed = openrouter
                .list_keys()
                .await
                .inspect_err(|error| {
                    tracing::warn!(%error, "the AI provider's keys could not be listed; the next round tries again");
                })
                .ok();
        }
        for key in doomed {
            if self.is_gone(openrouter, &key, listed.as_deref()).await {
                self.control_plane().settle_ai_key(key.id).await?;
                metrics::counter!("ai_keys_reclaimed_total").increment(1);
            } else {
                self.control_plane().put_off_ai_key(key.id).await?;
            }
        }
        Ok(())
    }

    /// Deletes it; whether it is sure that there is none any more.
    async fn is_gone(
        &self,
        openrouter: &OpenRouter,
        key: &DoomedAiKey,
        listed: Option<&[ListedKey]>,
    ) -> bool {
        let found: Vec<&str> = match (&key.hash, listed) {
            (Some(hash), _) => vec![hash],
            (None, None) => return false,
            (None, Some(listed)) => {
                let name = name_of_doomed(key);
                let same = listed.iter().filter(|listed| listed.name == name);
                same.map(|listed| listed.hash.as_str()).collect()
            }
        };
        for hash in &found {
            if let Err(error) = openrouter.delete_key(hash).await {
                tracing::warn!(project = %key.project, %error, "an AI key that nobody needs could not be deleted; the next round tries again");
                return false;
            }
        }
        let now = self.control_plane().clock().now();
        !found.is_empty() || is_surely_not_made(key.created_at, now)
    }

    async fn limit_ai_keys(&self, openrouter: &OpenRouter) -> DomainResult<()> {
        for key in self.control_plane().list_ai_keys_to_limit().await? {
            let cents = u32::try_from(key.monthly_limit).unwrap_or(u32::MAX);
            match openrouter.set_limit(&key.hash, cents).await {
                Ok(()) => self.control_plane().record_ai_limit(&key).await?,
                Err(error) => {
                    tracing::warn!(project = %key.project, %error, "the limit of an AI key could not be changed; the next round tries again");
                    self.control_plane().put_off_ai_key(key.id).await?;
                }
            }
        }
        Ok(())
    }
}
