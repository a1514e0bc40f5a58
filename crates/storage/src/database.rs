//! The connection pool, migrations and transactions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, Postgres};
use tokio::task::AbortHandle;

use crate::error::{StorageError, StorageResult};
use crate::notifications::Notifications;

pub type Transaction = sqlx::Transaction<'static, Postgres>;

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

pub struct DatabaseConfig {
    pub url: SecretString,
    /// The most connections that this process holds, listeners aside.
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
    notifications: Notifications,
    _shedding: Arc<Shedding>,
}

/// Ends with the last clone of its [`Database`].
struct Shedding(AbortHandle);

impl Drop for Shedding {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A process that takes no more connections than this in a second is quiet.
const QUIET: u64 = 100;

/// Closes what a quiet process does not need: the pool hands out its connections in turn, so with
/// a query now and then none would ever be idle for long. One stays open, for the next query.
///
/// Quiet is told by how often connections are taken, not by how many are out at a moment: a busy
/// process that closed and opened them all the time would run into Postgres's limit.
async fn shed_idle_connections(pool: PgPool, taken: Arc<AtomicU64>) {
    let mut quiet_seconds = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let busy = taken.swap(0, Ordering::Relaxed) > QUIET;
        quiet_seconds = if busy { 0 } else { quiet_seconds + 1 };
        if quiet_seconds >= 3 {
            for _ in 1..pool.num_idle() {
                if let Some(connection) = pool.try_acquire() {
                    let _ = connection.close().await;
                }
            }
        }
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
        let taken = Arc::new(AtomicU64::new(0));
        let counter = taken.clone();
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .min_connections(0)
            .acquire_timeout(config.acquire_timeout)
            .idle_timeout(Duration::from_secs(10))
            // A ping before each use would double the round trips of the hot path; a broken
            // connection answers its first query with an error that says so.
            .test_before_acquire(false)
            .before_acquire(move |_, _| {
                counter.fetch_add(1, Ordering::Relaxed);
                Box::pin(std::future::ready(Ok(true)))
            })
            .connect_lazy_with(options);
        let notifications = Notifications::listen(pool.clone());
        let shedding = tokio::spawn(shed_idle_connections(pool.clone(), taken));
        Ok(Self {
            pool,
            notifications,
            _shedding: Arc::new(Shedding(shedding.abort_handle())),
        })
    }

    pub async fn begin(&self) -> StorageResult<Transaction> {
        Ok(self.pool.begin().await?)
    }

    pub async fn acquire(&self) -> StorageResult<sqlx::pool::PoolConnection<Postgres>> {
        Ok(self.pool.acquire().await?)
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
        self.pool.close().await;
    }
}

fn migration_error(error: sqlx::migrate::MigrateError) -> StorageError {
    match error {
        sqlx::migrate::MigrateError::Execute(cause) => cause.into(),
        other => StorageError::Migration(other.to_string()),
    }
}
