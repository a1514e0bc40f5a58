//! The connection pool, migrations and transactions.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::PgConnection;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use crate::error::{StorageError, StorageResult};
use crate::notifications::Notifications;

pub type Transaction = sqlx::Transaction<'static, Postgres>;

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

pub struct DatabaseConfig {
    pub url: SecretString,
    /// The most connections that this process holds, its listening one included.
    pub max_connections: u32,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// How long a caller waits for a connection before it is told that the database is away.
    pub acquire_timeout: Duration,
}

/// Our database. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    pool: PgPool,
    kept: Arc<Kept>,
    notifications: Notifications,
    watch: Arc<Watch>,
}

/// How often it is told whether the process is quiet.
const LOOK: Duration = Duration::from_millis(250);
/// A process that takes no more connections than this between two looks is quiet.
const QUIET: u64 = 25;
/// Connections of the pool that never come back: that of [`Notifications`].
const LISTENING: usize = 1;
/// Looks until quiet is believed.
const QUIET_LOOKS: u32 = 12;

/// Closes what a quiet process does not need, all idle connections but one: the pool hands them
/// out in turn, so with a query now and then none would ever be idle for long.
///
/// Quiet is told by how often connections are taken, not by how many are out at a moment: a busy
/// process that closed and opened them all the time would run into Postgres's limit.
#[derive(Default)]
struct Shedding {
    taken: AtomicU64,
    is_quiet: AtomicBool,
    /// The pool's options hold this, so it must let go of the pool for either to end.
    pool: Mutex<Option<PgPool>>,
}

impl Shedding {
    fn pool(&self) -> Option<PgPool> {
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.clone()
    }

    /// Whether a connection that comes back is one too many: another one waits, and no other is at
    /// work. (While others are, a burst may have begun, which would have to open it again.)
    fn is_surplus(&self) -> bool {
        let is_the_last_of_several = |pool: PgPool| {
            let idle = pool.num_idle();
            // The pool counts without a lock: for a moment it may have one less than none idle.
            let few = idle.checked_add(LISTENING + 1);
            idle > 0 && few.is_some_and(|few| pool.size() as usize <= few)
        };
        self.is_quiet.load(Ordering::Relaxed) && self.pool().is_some_and(is_the_last_of_several)
    }

    /// Tells quiet from busy, and closes what a busy time has left, or two connections that came
    /// back at once, each taking the other for one at work.
    async fn watch(self: Arc<Self>, kept: Weak<Kept>) {
        let mut quiet_looks = 0_u32;
        loop {
            tokio::time::sleep(LOOK).await;
            let busy = self.taken.swap(0, Ordering::Relaxed) > QUIET;
            quiet_looks = if busy {
                0
            } else {
                quiet_looks.saturating_add(1)
            };
            let is_quiet = quiet_looks >= QUIET_LOOKS;
            self.is_quiet.store(is_quiet, Ordering::Relaxed);
            let Some(pool) = self.pool() else { return };
            if is_quiet {
                if let Some(kept) = kept.upgrade() {
                    kept.release();
                }
                for _ in 1..pool.num_idle() {
                    if let Some(connection) = pool.try_acquire() {
                        let _ = connection.close().await;
                    }
                }
            }
        }
    }
}

/// Connections kept out of the pool between single statements: the pool asks the server for a sign
/// of life each time that one is given back, which costs as much as the statement did.
struct Kept {
    idle: Mutex<Vec<PoolConnection<Postgres>>>,
    /// So many at most; the others of the pool are for transactions.
    most: u32,
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Kept {
    /// Of a small pool none: it could not spare them.
    fn of(config: &DatabaseConfig) -> Self {
        let most = match config.max_connections {
            0..8 => 0,
            many => many / 2,
        };
        Self {
            idle: Mutex::default(),
            most,
            places: Arc::new(Semaphore::new(most as usize)),
            patience: config.acquire_timeout,
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<PoolConnection<Postgres>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Back to the pool with those that nobody needs.
    fn release(&self) {
        let idle = std::mem::take(&mut *self.idle());
        if tokio::runtime::Handle::try_current().is_ok() {
            drop(idle);
        } else {
            // The process ends: the pool cannot take them back without a runtime.
            idle.into_iter().for_each(std::mem::forget);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.release();
    }
}

/// A connection for one statement outside of any transaction; see [`Database::acquire_for_one`].
pub struct OneStatement {
    connection: PoolConnection<Postgres>,
    kept: Arc<Kept>,
    /// None: of a pool that keeps none.
    place: Option<OwnedSemaphorePermit>,
}

impl OneStatement {
    /// Gives the connection back after its statement has ended well and all of its rows were read.
    /// One that is dropped instead, for an error or because its caller has gone, is looked at by
    /// the pool.
    pub fn done(self) {
        if self.place.is_some() {
            self.kept.idle().push(self.connection);
        }
    }
}

impl Deref for OneStatement {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for OneStatement {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

/// Ends with the last clone of its [`Database`].
struct Watch {
    shedding: Arc<Shedding>,
    task: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
        let mut pool = self
            .shedding
            .pool
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *pool = None;
    }
}

impl Database {
    /// Connects lazily: a database that is away is reported by the first query, so that a process
    /// can start before its database and outlive its restarts.
    pub fn connect(config: &DatabaseConfig) -> StorageResult<Self> {
        let options: PgConnectOptions = config
            .url
            .expose_secret()
            .parse()
            .map_err(StorageError::Database)?;
        let options = options.application_name(&config.application_name);
        let shedding = Arc::new(Shedding::default());
        let (taking, returning) = (shedding.clone(), shedding.clone());
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .min_connections(0)
            .acquire_timeout(config.acquire_timeout)
            .idle_timeout(Duration::from_secs(10))
            // A ping before each use would double the round trips of the hot path; a broken
            // connection answers its first query with an error that says so.
            .test_before_acquire(false)
            .before_acquire(move |_, _| {
                taking.taken.fetch_add(1, Ordering::Relaxed);
                Box::pin(std::future::ready(Ok(true)))
            })
            .after_release(move |_, _| Box::pin(std::future::ready(Ok(!returning.is_surplus()))))
            .connect_lazy_with(options);
        let notifications = Notifications::listen(pool.clone());
        *shedding.pool.lock().unwrap_or_else(PoisonError::into_inner) = Some(pool.clone());
        let kept = Arc::new(Kept::of(config));
        let watch = shedding.clone().watch(Arc::downgrade(&kept));
        let task = tokio::spawn(watch).abort_handle();
        Ok(Self {
            pool,
            kept,
            notifications,
            watch: Arc::new(Watch { shedding, task }),
        })
    }

    pub async fn begin(&self) -> StorageResult<Transaction> {
        Ok(self.pool.begin().await?)
    }

    pub async fn acquire(&self) -> StorageResult<PoolConnection<Postgres>> {
        Ok(self.pool.acquire().await?)
    }

    /// A connection for one statement outside of any transaction, without the round trip that the
    /// pool makes when one is given back: for the hot paths. Say [`OneStatement::done`] after it.
    pub async fn acquire_for_one(&self) -> StorageResult<OneStatement> {
        let kept = self.kept.clone();
        let place = if kept.most == 0 {
            None
        } else {
            let place = kept.places.clone().acquire_owned();
            match tokio::time::timeout(kept.patience, place).await {
                Ok(Ok(place)) => Some(place),
                Ok(Err(_)) => return Err(sqlx::Error::PoolClosed.into()),
                Err(_) => return Err(sqlx::Error::PoolTimedOut.into()),
            }
        };
        let idle = kept.idle().pop();
        let connection = if let Some(connection) = idle {
            self.watch.shedding.taken.fetch_add(1, Ordering::Relaxed);
            connection
        } else {
            self.pool.acquire().await?
        };
        Ok(OneStatement {
            connection,
            kept,
            place,
        })
    }

    /// For the queue's own library, which brings its own SQL.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub fn notifications(&self) -> &Notifications {
        &self.notifications
    }

    /// Brings the schema up to date: the queue's tables first, for our rows send messages through
    /// them. Safe to run by several processes at once.
    pub async fn migrate(&self) -> StorageResult<()> {
        crate::wakeups::migrate(&self.pool).await?;
        MIGRATOR.run(&self.pool).await.map_err(migration_error)
    }

    /// How many of our migrations the database lacks.
    pub async fn pending_migrations(&self) -> StorageResult<usize> {
        let known = MIGRATOR
            .iter()
            .filter(|m| !m.migration_type.is_down_migration())
            .count();
        let exists: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
            .fetch_one(&self.pool)
            .await?;
        if !exists {
            return Ok(known);
        }
        let applied: i64 =
            sqlx::query_scalar("select count(*) from _sqlx_migrations where success")
                .fetch_one(&self.pool)
                .await?;
        Ok(known.saturating_sub(usize::try_from(applied).unwrap_or(0)))
    }

    /// One round trip, for readiness probes.
    pub async fn ping(&self) -> StorageResult<()> {
        sqlx::query("select 1").execute(&self.pool).await?;
        Ok(())
    }

    pub async fn close(&self) {
        self.notifications.stop();
        self.kept.places.close();
        self.kept.release();
        self.pool.close().await;
    }
}

fn migration_error(error: sqlx::migrate::MigrateError) -> StorageError {
    match error {
        sqlx::migrate::MigrateError::Execute(cause) => cause.into(),
        other => StorageError::Migration(other.to_string()),
    }
}
