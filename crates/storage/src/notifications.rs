//! LISTEN/NOTIFY: one listening connection per process, many waiters. A waiter subscribes first
//! and reads the state after that, so nothing that commits in between is missed. When the
//! connection was lost, every waiter is woken to read again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgListener, PgPool};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::error::StorageResult;

/// What a notification is about. Its payload is the id of the thing that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A project's status, or an operation of it.
    Projects,
    /// A comparison of a branch with its parent.
    Comparisons,
    /// What a machine's agent shall do.
    Machines,
    /// A partner, or a secret of it.
    Partners,
    SigningKeys,
    /// A mail was queued.
    Mails,
    /// An OAuth client, or a secret of it.
    OAuthClients,
    /// An organization's plan is to be asked for.
    Billing,
    /// An event for a webhook was queued.
    Webhooks,
    /// A wake-up message was pushed; its payload is apalis's own.
    Wakeups,
}

impl Topic {
    const ALL: [Self; 10] = [
        Self::Projects,
        Self::Comparisons,
        Self::Machines,
        Self::Partners,
        Self::SigningKeys,
        Self::Mails,
        Self::OAuthClients,
        Self::Billing,
        Self::Webhooks,
        Self::Wakeups,
    ];

    const fn channel(self) -> &'static str {
        match self {
            Self::Projects => "cp_projects",
            Self::Comparisons => "cp_comparisons",
            Self::Machines => "cp_machines",
            Self::Partners => "cp_partners",
            Self::SigningKeys => "cp_signing_keys",
            Self::Mails => "cp_mails",
            Self::OAuthClients => "cp_oauth_clients",
            Self::Billing => "cp_billing",
            Self::Webhooks => "cp_webhooks",
            Self::Wakeups => crate::wakeups::CHANNEL,
        }
    }
}

/// Sends a notification when the transaction commits; nothing if it does not.
pub async fn notify(conn: &mut PgConnection, topic: Topic, id: &str) -> StorageResult<()> {
    sqlx::query("select pg_notify($1, $2)")
        .bind(topic.channel())
        .bind(id)
        .execute(conn)
        .await?;
    Ok(())
}

/// Ends with the last of its subscribers.
pub type Subscription = watch::Receiver<u64>;

#[derive(Clone)]
pub struct Notifications {
    waiters: Arc<Waiters>,
    listener: Arc<ListenerTask>,
}

struct ListenerTask(AbortHandle);

impl Drop for ListenerTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Default)]
struct Waiters(Mutex<HashMap<(Topic, String), watch::Sender<u64>>>);

impl Notifications {
    pub(crate) fn listen(pool: PgPool) -> Self {
        let waiters = Arc::new(Waiters::default());
        let task = tokio::spawn(listen_for_ever(pool, waiters.clone()));
        Self {
            waiters,
            listener: Arc::new(ListenerTask(task.abort_handle())),
        }
    }

    /// Wakes on each notification about `id` in `topic`; an empty `id` means about any.
    pub fn subscribe(&self, topic: Topic, id: &str) -> Subscription {
        let mut map = self.waiters.lock();
        // Entries whose waiters left without hearing anything would stay for ever.
        if map.len() >= 1024 && map.len().is_multiple_of(256) {
            map.retain(|_, sender| sender.receiver_count() > 0);
        }
        map.entry((topic, id.to_owned()))
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe()
    }

    pub(crate) fn stop(&self) {
        self.listener.0.abort();
    }
}

impl Waiters {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(Topic, String), watch::Sender<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, topic: Topic, id: &str) {
        let mut map = self.lock();
        for key in [(topic, id.to_owned()), (topic, String::new())] {
            if let Some(sender) = map.get(&key) {
                if sender.receiver_count() == 0 {
                    map.remove(&key);
                } else {
                    sender.send_modify(|n| *n += 1);
                }
            }
        }
    }

    fn wake_all(&self) {
        let mut map = self.lock();
        map.retain(|_, sender| sender.receiver_count() > 0);
        for sender in map.values() {
            sender.send_modify(|n| *n += 1);
        }
    }
}

async fn listen_for_ever(pool: PgPool, waiters: Arc<Waiters>) {
    loop {
        match listen_until_lost(&pool, &waiters).await {
            Ok(()) => tracing::warn!("the notification connection was lost; connecting again"),
            Err(error) => tracing::warn!(%error, "cannot listen for notifications; trying again"),
        }
        waiters.wake_all();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn listen_until_lost(pool: &PgPool, waiters: &Waiters) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    // Losing the connection must be seen here, since notifications of that time are lost.
    listener.eager_reconnect(false);
    listener.listen_all(Topic::ALL.map(Topic::channel)).await?;
    // What committed before we listened was not heard.
    waiters.wake_all();
    while let Some(note) = listener.try_recv().await? {
        if let Some(topic) = Topic::ALL
            .into_iter()
            .find(|t| t.channel() == note.channel())
        {
            waiters.wake(topic, note.payload());
        }
    }
    Ok(())
}
