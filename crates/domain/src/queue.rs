//! The wake-up queue as the worker sees it: where to fetch, and when. The worker imports no
//! storage; this hands it the little that apalis needs.

use cp_storage::notifications::{Subscription, Topic};
use cp_storage::{Database, wakeups};

use crate::{ControlPlane, DomainResult};

pub use cp_storage::wakeups::QUEUE;

#[derive(Clone)]
pub struct Wakeups {
    db: Database,
}

impl Wakeups {
    /// For apalis, which brings its own SQL on its own tables.
    pub fn pool(&self) -> &cp_storage::PgPool {
        self.db.pool()
    }

    /// Wakes whenever a message was pushed, or may have been while nobody listened.
    pub fn subscribe(&self) -> Subscription {
        self.db.notifications().subscribe(Topic::Wakeups, "")
    }

    /// Hands back what a worker fetched but did not finish.
    pub async fn release(&self, worker: &str) -> DomainResult<u64> {
        let mut conn = self.db.acquire().await?;
        Ok(wakeups::release(&mut conn, worker).await?)
    }
}

impl ControlPlane {
    pub fn wakeups(&self) -> Wakeups {
        Wakeups {
            db: self.database().clone(),
        }
    }
}
