//! Doing what a plan says, or nothing at all.
//!
//! The story of [`apply`]:
//! 1. The script is tried in a scratch database that has the parent's schema; its result must be the merged schema.
//! 2. One merge per parent at a time; a parent that changed since the plan was made is refused.
//! 3. Migrations, script and configuration run in one transaction, which gives up quickly where it would have to wait
//!    for others, and is then repeated as a whole.
//! 4. Before it commits, the schema and the configuration are read again: what the script touched must read as in the
//!    rehearsal, everything else as before.

mod places;
mod record;
mod rehearsal;
mod rights;
mod transaction;

use std::time::Duration;

use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

use crate::{Error, Snapshot, plan::MergePlan, rebase::RebaseError, session::run, snapshot};

pub use record::{Record, is_recorded};
pub(crate) use rehearsal::migrated;
pub(crate) use rights::Rights;

/// How long a merge may hold others up.
#[derive(Clone, Debug)]
pub struct ApplyOptions {
    /// How long a statement waits for a lock, and with it everybody who comes behind it.
    pub lock_timeout: Duration,
    /// Of one statement, and of all statements of the script together.
    pub statement_timeout: Duration,
    /// Of the whole script, when locks were not to be had or a deadlock was broken.
    pub attempts: u32,
    /// A row that is written in the same transaction.
    pub record: Option<Record>,
}

impl Default for ApplyOptions {
    fn default() -> Self {
        Self {
            lock_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_mins(10),
            attempts: 10,
            record: None,
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Of migrations, script and configuration; pre-steps too.
    pub statements: usize,
    pub attempts: u32,
    /// The record was there: this merge was done before, and nothing was done now.
    pub already: bool,
}

/// Applies a clean plan to the parent.
///
/// A committed `ALTER TYPE … ADD VALUE` (the script's pre-steps) is the one thing that may stay behind when it fails:
/// it is additive, and a new plan finds it done.
///
/// # Errors
/// [`Error::NotClean`], [`Error::Stale`], [`Error::RowsInTheWay`], [`Error::Unexpected`]; [`Error::Database`] for
/// statements that fail, and with SQLSTATE 55P03 or 40P01 when all attempts met locks. After each of them the parent
/// is as before. Only where the connection breaks during the commit that is not known: then see [`is_recorded`].
pub async fn apply(
    parent: &PgConnectOptions,
    plan: &MergePlan,
    options: &ApplyOptions,
) -> Result<Applied, Error> {
    let nothing = async |_: Snapshot| Ok::<(), std::convert::Infallible>(());
    match apply_keeping(parent, plan, options, nothing).await {
        Ok(applied) => Ok(applied),
        Err(RebaseError::Rebase(error)) => Err(error),
        Err(RebaseError::Keep(never)) => match never {},
    }
}

/// As [`apply`]. `keep` gets what the database reads as after it was proved and before it is committed; where it fails,
/// all is rolled back.
pub(crate) async fn apply_keeping<E>(
    parent: &PgConnectOptions,
    plan: &MergePlan,
    options: &ApplyOptions,
    keep: impl AsyncFnOnce(Snapshot) -> Result<(), E>,
) -> Result<Applied, RebaseError<E>> {
    if !plan.is_clean() {
        return Err(RebaseError::Rebase(Error::NotClean {
            conflicts: plan.conflicts.len(),
            needs_migration: plan.needs_migration.len(),
        }));
    }
    let mut session = parent
        .clone()
        .disable_statement_logging()
        // Nothing prepared is used again: a migration could prepare its own under the same name.
        .statement_cache_capacity(0)
        .connect()
        .await
        .map_err(Error::while_doing("connect"))?;
    let applied = apply_in(&mut session, parent, plan, options, keep).await;
    // The advisory lock ends with the session, and so does a transaction that was not committed.
    let _ = session.close().await;
    applied
}

async fn apply_in<E>(
    session: &mut PgConnection,
    parent: &PgConnectOptions,
    plan: &MergePlan,
    options: &ApplyOptions,
    keep: impl AsyncFnOnce(Snapshot) -> Result<(), E>,
) -> Result<Applied, RebaseError<E>> {
    // Done before: nothing of the plan counts any more, not even that the parent changed since.
    let done = async |session: &mut PgConnection| match &options.record {
        Some(record) => is_recorded(session, record.id).await,
        None => Ok(false),
    };
    let already = Applied {
        statements: 0,
        attempts: 0,
        already: true,
    };
    if done(session).await? {
        return Ok(already);
    }
    let rehearsal = rehearsal::rehearse(parent, plan).await?;
    lock(session, options).await?;
    if done(session).await? {
        return Ok(already);
    }
    if snapshot(session).await?.hash() != plan.parent_hash {
        return Err(RebaseError::Rebase(Error::Stale));
    }
    let transaction = transaction::Transaction {
        plan,
        options,
        rehearsal: &rehearsal,
        on: parent,
    };
    transaction.commit_pre_steps(session).await?;
    let mut attempts = 1;
    // There is no second attempt after it was called: what failed then is the commit.
    let mut keep = Some(keep);
    loop {
        match transaction.run(session, &mut keep).await {
            Ok(statements) => {
                return Ok(Applied {
                    statements: statements + plan.script.pre_steps.len(),
                    attempts,
                    already: false,
                });
            }
            Err(RebaseError::Rebase(error))
                if is_about_locks(&error) && attempts < options.attempts && keep.is_some() =>
            {
                tracing::info!(attempts, sqlstate = ?error.sqlstate(), "a merge met locks and is tried again");
                tokio::time::sleep(backoff(attempts)).await;
                attempts += 1;
            }
            Err(RebaseError::Rebase(error)) => {
                return Err(RebaseError::Rebase(error.with_labels_left(plan)));
            }
            Err(error) => return Err(error),
        }
    }
}

/// One merge at a time in this database, for as long as the session lives.
async fn lock(session: &mut PgConnection, options: &ApplyOptions) -> Result<(), Error> {
    // The other merge may take as long as one of its statements may, or longer: then this one is not worth waiting.
    let patience = options.statement_timeout.as_millis();
    run(
        session,
        &format!(
            "SET lock_timeout = {patience}; \
             SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtext('insforge.merge')::bigint); \
             SET lock_timeout = 0"
        ),
    )
    .await
}

/// `lock_not_available` and `deadlock_detected`: the same script may pass in a moment.
fn is_about_locks(error: &Error) -> bool {
    matches!(error.sqlstate().as_deref(), Some("55P03" | "40P01"))
}

/// Doubles from 100 ms to 5 s; up to half of it is by chance, so that two who met do not meet again.
fn backoff(attempts: u32) -> Duration {
    const FIRST: u64 = 100;
    const LONGEST: u64 = 5_000;
    let whole = FIRST
        .saturating_mul(1 << (attempts - 1).min(10))
        .min(LONGEST);
    let chance = u64::from(uuid::Uuid::new_v4().as_fields().0) % (whole / 2);
    Duration::from_millis(whole - chance)
}
