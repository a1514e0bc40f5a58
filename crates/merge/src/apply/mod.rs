//! Doing what a plan says, or nothing at all.
//!
//! The story of [`apply`]:
//! 1. The script is tried in a scratch database that has the parent's schema; its result must be the merged schema.
//! 2. One merge per parent at a time; a parent that changed since the plan was made is refused.
//! 3. Migrations, script and configuration run in one transaction, which gives up quickly where it would have to wait
//!    for others, and is then repeated as a whole.
//! 4. Before it commits, the schema and the configuration are read again: what the script touched must read as in the
//!    rehearsal, everything else as before.
//! 5. What an online merge left for later ([`ApplyOptions::online`]) is done after the commit. The merge stands whatever becomes
//!    of that: what is missing then, the next plan finds.

mod finish;
mod places;
mod record;
mod rehearsal;
mod rights;
mod stages;
mod transaction;

use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

use crate::{Error, Snapshot, plan::MergePlan, rebase::RebaseError, session::run, snapshot};

pub use record::{Record, is_recorded, unfinished};
pub(crate) use rehearsal::migrated;
pub(crate) use rights::Rights;
use stages::{Later, Stages};

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
    /// For big tables: foreign keys and checks are added `NOT VALID` and proved after the commit, and indexes are built after it
    /// (`CONCURRENTLY`), so that nobody who writes waits for either. Only on tables that are there already and neither partitioned
    /// nor partitions, and only what nothing else needs; the rest is done in the transaction. A rebase has no such mode.
    pub online: bool,
    /// Of one statement after the commit.
    pub online_timeout: Duration,
}

impl Default for ApplyOptions {
    fn default() -> Self {
        Self {
            lock_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_mins(10),
            attempts: 10,
            record: None,
            online: false,
            online_timeout: Duration::from_hours(6),
        }
    }
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Of migrations, script and configuration; pre-steps too.
    pub statements: usize,
    pub attempts: u32,
    /// The record was there: this merge was done before, and nothing was done now but what it had left unfinished.
    pub already: bool,
    /// What an online merge did after its commit.
    pub finished: Vec<Finished>,
    /// What it could not do then. The merge stands without it; the next plan has it.
    pub unfinished: Vec<Unfinished>,
}

/// A foreign key or check that was proved, or an index that was built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finished {
    /// As of changes: `constraint` or `index`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `schema.object`, as changes have it.
    pub name: String,
    pub statement: String,
}

/// One that was not. The constraint is there and holds for new rows, but is `NOT VALID`; the index is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    pub statement: String,
    /// What the database said.
    pub why: String,
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
///
/// After the commit there are no errors: see [`Applied::unfinished`].
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
    let mut session = parent
        .clone()
        .disable_statement_logging()
        // Nothing prepared is used again: a migration could prepare its own under the same name.
        .statement_cache_capacity(0)
        .connect()
        .await
        .map_err(Error::while_doing("connect"))?;
    let stages = Stages::of(plan, options);
    let committed = apply_in(&mut session, parent, plan, &stages, options, keep).await;
    // The advisory lock ends with the session, and so does a transaction that was not committed.
    let _ = session.close().await;
    let (mut applied, left) = committed?;
    let later: Vec<Later> = match left {
        Left::All => stages.later,
        Left::Named(names) => {
            let later = stages.later.into_iter();
            later.filter(|one| names.contains(&one.name())).collect()
        }
    };
    if !later.is_empty() {
        (applied.finished, applied.unfinished) =
            finish::finish(parent, &plan.target, options, &later).await;
    }
    Ok(applied)
}

/// What an online merge has still to do after its commit.
enum Left {
    All,
    /// The merge was done before, and its record says this. The plan may be one of now, with changes that the merge had not.
    Named(Vec<String>),
}

async fn apply_in<E>(
    session: &mut PgConnection,
    parent: &PgConnectOptions,
    plan: &MergePlan,
    stages: &Stages<'_>,
    options: &ApplyOptions,
    keep: impl AsyncFnOnce(Snapshot) -> Result<(), E>,
) -> Result<(Applied, Left), RebaseError<E>> {
    if let Some(already) = done_before(session, options).await? {
        return Ok(already);
    }
    if !plan.is_clean() {
        return Err(RebaseError::Rebase(Error::NotClean {
            conflicts: plan.conflicts.len(),
            needs_migration: plan.needs_migration.len(),
        }));
    }
    let rehearsal = rehearsal::rehearse(parent, plan, stages).await?;
    lock(session, options).await?;
    if let Some(already) = done_before(session, options).await? {
        return Ok(already);
    }
    if snapshot(session).await?.hash() != plan.parent_hash {
        return Err(RebaseError::Rebase(Error::Stale));
    }
    finish::clear_names(session, &plan.script.statements, options.statement_timeout).await?;
    let transaction = transaction::Transaction {
        plan,
        stages,
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
                let applied = Applied {
                    statements: statements + plan.script.pre_steps.len(),
                    attempts,
                    ..Applied::default()
                };
                return Ok((applied, Left::All));
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

/// Nothing of the plan counts any more then, not even that the parent changed since.
async fn done_before(
    session: &mut PgConnection,
    options: &ApplyOptions,
) -> Result<Option<(Applied, Left)>, Error> {
    let Some(record) = &options.record else {
        return Ok(None);
    };
    if !is_recorded(session, record.id).await? {
        return Ok(None);
    }
    let already = Applied {
        already: true,
        ..Applied::default()
    };
    let left = unfinished(session, record.id).await?;
    Ok(Some((already, Left::Named(left))))
}

/// One merge at a time in this database, for as long as the session lives.
async fn lock(session: &mut PgConnection, options: &ApplyOptions) -> Result<(), Error> {
    const PAUSE: Duration = Duration::from_millis(50);
    // The other merge may take as long as one of its statements may, or longer: then this one is not worth waiting. It is asked
    // again and again: a statement that waits has a snapshot, and CREATE INDEX CONCURRENTLY of the other one waits for that.
    let begun = Instant::now();
    while begun.elapsed() < options.statement_timeout {
        let alone: bool = sqlx::query_scalar(
            "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtext('insforge.merge')::bigint)",
        )
        .fetch_one(&mut *session)
        .await
        .map_err(Error::while_doing("wait for other merges"))?;
        if alone {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    // For the error of a lock that is not to be had.
    run(
        session,
        "SET lock_timeout = 1; \
         SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtext('insforge.merge')::bigint); \
         SET lock_timeout = 0",
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
