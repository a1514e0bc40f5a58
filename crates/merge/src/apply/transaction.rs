//! The one transaction of a merge, and its proof.

use std::{collections::BTreeMap, time::Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};

use super::{
    ApplyOptions, record,
    rehearsal::{Rehearsal, listed},
    rights::Rights,
    stages::{Later, Stages},
};
use crate::{
    Error, Snapshot,
    catalog::{self, Catalog, FactId},
    config::{self, Migration, Write},
    plan::MergePlan,
    probing::{ask, in_the_way},
    rebase::RebaseError,
    script::{Lock, Probe},
    session::{PATH, enter_rows, enter_script, run, run_migrations, run_one, run_with_rights},
    three_way::reparsed,
};

/// Tells PostgREST about schemas: the trigger that does it otherwise is silent while a script runs.
const SYNC: &str = "DO $$ BEGIN \
    IF pg_catalog.to_regprocedure('system.sync_postgrest_exposed_schemas()') IS NOT NULL THEN \
    PERFORM system.sync_postgrest_exposed_schemas(); END IF; END $$";

/// Held by one merge at a time, for as long as its transactions last: a migration can give back what a session holds.
const ALONE: &str =
    "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('insforge.merge')::bigint)";

pub(super) struct Transaction<'a> {
    pub plan: &'a MergePlan,
    pub stages: &'a Stages<'a>,
    pub options: &'a ApplyOptions,
    pub rehearsal: &'a Rehearsal,
    pub on: &'a PgConnectOptions,
}

impl Transaction<'_> {
    /// Labels that the script uses must be committed before it. Each is one short transaction with the same guards.
    pub async fn commit_pre_steps(&self, session: &mut PgConnection) -> Result<(), Error> {
        let failed = "add labels to enums";
        for statement in &self.plan.script.pre_steps {
            let mut attempts = 1;
            loop {
                let mut transaction = session.begin().await.map_err(Error::while_doing(failed))?;
                self.guard(&mut transaction).await?;
                enter_script(&mut transaction).await?;
                match run_one(&mut transaction, &statement.sql).await {
                    Ok(()) => {
                        transaction
                            .commit()
                            .await
                            .map_err(Error::while_doing(failed))?;
                        break;
                    }
                    Err(error)
                        if super::is_about_locks(&error) && attempts < self.options.attempts =>
                    {
                        transaction
                            .rollback()
                            .await
                            .map_err(Error::while_doing(failed))?;
                        tokio::time::sleep(super::backoff(attempts)).await;
                        attempts += 1;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// All of it once. The number of statements that were run.
    pub async fn run<E>(
        &self,
        session: &mut PgConnection,
        keep: &mut Option<impl AsyncFnOnce(Snapshot) -> Result<(), E>>,
    ) -> Result<usize, RebaseError<E>> {
        let mut transaction = session
            .begin_with("BEGIN ISOLATION LEVEL READ COMMITTED")
            .await
            .map_err(Error::while_doing("begin the merge"))?;
        match self.work_keeping(&mut transaction, keep).await {
            Ok(statements) => {
                transaction
                    .commit()
                    .await
                    .map_err(Error::while_doing("commit the merge"))?;
                Ok(statements)
            }
            Err(error) => {
                // Where this fails the connection is broken, and the server rolls back by itself.
                let _ = transaction.rollback().await;
                Err(error)
            }
        }
    }

    async fn work_keeping<E>(
        &self,
        conn: &mut PgConnection,
        keep: &mut Option<impl AsyncFnOnce(Snapshot) -> Result<(), E>>,
    ) -> Result<usize, RebaseError<E>> {
        let statements = self.work(conn).await?;
        let proved = self.prove(conn).await?;
        if let Some(keep) = keep.take() {
            keep(proved).await.map_err(RebaseError::Keep)?;
        }
        Ok(statements)
    }

    async fn work(&self, conn: &mut PgConnection) -> Result<usize, Error> {
        let begun = Instant::now();
        self.guard(conn).await?;
        run(conn, ALONE).await?;
        if !self.plan.migrations.is_empty() {
            // They may write configuration themselves: what others wrote cannot be told from that afterwards.
            self.lock_written(conn).await?;
        }
        self.check_rows_are_planned_for(conn).await?;
        if !self.plan.migrations.is_empty() {
            run_migrations(conn, &self.plan.migrations).await?;
            // They had settings of their own.
            self.guard(conn).await?;
        }
        enter_script(conn).await?;
        self.lock_asked(conn).await?;
        self.ask_rows(conn).await?;
        let rights = Rights::new(self.plan.from(), &self.plan.target);
        for statement in &*self.stages.now {
            self.keep_to_the_time(conn, begun).await?;
            let role = rights.of_statement(statement);
            run_with_rights(conn, role.as_deref(), &statement.sql).await?;
        }
        if let Some(record) = &self.options.record {
            let unfinished: Vec<String> = self.stages.later.iter().map(Later::name).collect();
            record::write(conn, record, &unfinished).await?;
        }
        run(conn, SYNC).await?;
        enter_rows(conn).await?;
        if self.plan.migrations.is_empty() && !self.plan.written.is_empty() {
            self.lock_written(conn).await?;
            self.check_rows_are_planned_for(conn).await?;
        }
        for migration in &self.plan.migrations {
            append(conn, migration).await?;
        }
        let writes = || self.plan.writes.iter().flat_map(|(_, writes)| writes);
        for each in writes() {
            write(conn, each).await?;
        }
        let of_migrations: usize = self
            .plan
            .migrations
            .iter()
            .map(|m| m.statements.len() + 1)
            .sum();
        Ok(of_migrations + self.stages.now.len() + writes().count())
    }

    async fn guard(&self, conn: &mut PgConnection) -> Result<(), Error> {
        // The script is run for the schema that was read: no plan of it is worth compiling.
        run(
            conn,
            &format!(
                "SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}; \
                 SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL jit = off; \
                 SET LOCAL row_security = off",
                self.options.lock_timeout.as_millis(),
                self.options.statement_timeout.as_millis()
            ),
        )
        .await
    }

    /// The statements share the time that one may take.
    async fn keep_to_the_time(&self, conn: &mut PgConnection, begun: Instant) -> Result<(), Error> {
        let left = self
            .options
            .statement_timeout
            .saturating_sub(begun.elapsed());
        // Not worth a round trip as long as most of it is left; and 0 would mean for ever.
        if left > self.options.statement_timeout / 2 {
            return Ok(());
        }
        let left = left.as_millis().max(1);
        run(conn, &format!("SET LOCAL statement_timeout = {left}")).await
    }

    /// What a probe has seen must be what its statement finds: nobody may write in between.
    async fn lock_asked(&self, conn: &mut PgConnection) -> Result<(), Error> {
        let mut locks: BTreeMap<&String, Lock> = BTreeMap::new();
        let probes = self.plan.script.probes.iter();
        for probe in probes.filter(|probe| !self.is_later(probe)) {
            for relation in &probe.relations {
                let lock = locks.entry(relation).or_insert(probe.lock);
                *lock = probe.lock.max(*lock);
            }
        }
        for (relation, lock) in locks {
            let is_table: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_class
                                WHERE oid = pg_catalog.to_regclass($1) AND relkind IN ('r', 'p'))",
            )
            .bind(relation)
            .fetch_one(&mut *conn)
            .await
            .map_err(Error::while_doing("look for tables to lock"))?;
            if is_table {
                run_one(
                    conn,
                    &format!("LOCK TABLE {relation} IN {} MODE", lock.as_sql()),
                )
                .await?;
            }
        }
        Ok(())
    }

    /// From here on nobody else writes the configuration that this merge writes.
    async fn lock_written(&self, conn: &mut PgConnection) -> Result<(), Error> {
        let tables: Vec<&str> = self.plan.written.iter().map(String::as_str).collect();
        let tables = tables.join(", ");
        run_one(
            conn,
            &format!("LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE"),
        )
        .await
    }

    async fn check_rows_are_planned_for(&self, conn: &mut PgConnection) -> Result<(), Error> {
        if config::read(conn).await? == self.plan.parent.rows {
            Ok(())
        } else {
            Err(Error::Stale)
        }
    }

    /// Those rows are read by what comes after the commit, and nobody is to wait for that here.
    fn is_later(&self, probe: &Probe) -> bool {
        self.stages.is_later(&probe.id)
    }

    /// Again, after the migrations: rows may have come since the plan was made, and migrations may have mended some.
    async fn ask_rows(&self, conn: &mut PgConnection) -> Result<(), Error> {
        let rights = Rights::new(self.plan.from(), &self.plan.target);
        let mut found = Vec::new();
        let probes = self.plan.script.probes.iter();
        // Before migrations the answer did not count: it is asked now or never.
        let counted = !self.plan.migrations.is_empty();
        for probe in probes.filter(|probe| counted || !self.is_later(probe)) {
            let role = rights.of_probe(probe);
            let rows = ask(conn, probe, role.as_deref()).await?;
            if rows > 0 {
                found.push(in_the_way(probe, rows));
            }
        }
        if found.is_empty() {
            Ok(())
        } else {
            Err(Error::RowsInTheWay(found))
        }
    }

    /// That it reads as it should, and as what it reads.
    async fn prove(&self, conn: &mut PgConnection) -> Result<Snapshot, Error> {
        let now = Snapshot {
            catalog: catalog::read(conn).await?,
            rows: config::read(conn).await?,
        };
        self.prove_schema(&now.catalog).await?;
        if let (Some(expected), Some(found)) = (&self.plan.expected_rows, &now.rows) {
            let different = expected.difference(found);
            if !different.is_empty() {
                return Err(Error::Unexpected(different.join(", ")));
            }
        }
        Ok(now)
    }

    /// What was touched reads as in the rehearsal, everything else as before. (Or as in the rehearsal: what is made
    /// again from its own text may read differently once.)
    async fn prove_schema(&self, now: &Catalog) -> Result<(), Error> {
        let Rehearsal {
            touched,
            after,
            left_out,
        } = self.rehearsal;
        let before = &self.plan.parent.catalog;
        let payload = |catalog: &'_ Catalog, id: &FactId| {
            catalog.facts.get(id).map(|fact| fact.payload.hash())
        };
        let differs = |id: &&FactId| payload(now, id) != payload(after, id);
        let mut wrong: Vec<&FactId> = touched
            .iter()
            .filter(|id| !now.is_managed(id))
            .filter(differs)
            // A text that only got another name with its table is still the parent's own, not parsed again.
            .filter(|id| payload(now, id) != payload(&self.plan.target, id))
            .collect();
        if !wrong.is_empty() {
            // Nor is one that followed another rename; in the rehearsal it was.
            let parsed = reparsed(now, &wrong, self.on).await?;
            wrong.retain(|id| payload(&parsed, id) != payload(after, id));
        }
        if !wrong.is_empty() {
            return Err(Error::Unexpected(listed(wrong, after, now)));
        }
        // What could not be rehearsed must be there if it was merged. (Its text may read differently once.)
        let target = &*self.stages.between;
        let is_there = |catalog: &Catalog, id: &FactId| catalog.facts.contains_key(id);
        let missing: Vec<&FactId> = left_out
            .iter()
            .filter(|id| !now.is_managed(id) && is_there(now, id) != is_there(target, id))
            .collect();
        if !missing.is_empty() {
            return Err(Error::Unexpected(listed(missing, target, now)));
        }
        let meant = |id: &FactId| {
            left_out.contains(id) && payload(self.plan.from(), id) != payload(target, id)
        };
        let changed = before.diff(now);
        let foreign = changed
            .iter()
            .filter(|id| !touched.contains(*id) && !now.is_managed(id))
            .filter(|id| !meant(id))
            .any(|id| differs(&id) && payload(now, id) != payload(before, id));
        if foreign {
            // Somebody else's, since the script did no such thing where it was tried.
            return Err(Error::Stale);
        }
        Ok(())
    }
}

/// A function of the product's, which says in its result whether it worked: `true`, or a row with a column `success`. Its
/// body may rely on the path that the product's server has.
async fn call(conn: &mut PgConnection, sql: &str) -> Result<(), Error> {
    run(conn, "SET LOCAL search_path = public, pg_temp").await?;
    let answer: Option<serde_json::Value> = sqlx::query_scalar(AssertSqlSafe(sql))
        .persistent(false)
        .fetch_optional(&mut *conn)
        .await
        .map_err(Error::while_doing(format!("run `{sql}`")))?;
    run(conn, &format!("SET LOCAL search_path = {PATH}")).await?;
    let answer = answer.unwrap_or_default();
    let refused = answer == false
        || answer
            .get("success")
            .is_some_and(|success| *success == false);
    if refused {
        return Err(Error::Unexpected(format!("`{sql}` says {answer}")));
    }
    Ok(())
}

async fn append(conn: &mut PgConnection, migration: &Migration) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO system.custom_migrations (version, name, statements, created_at)
         VALUES ($1, $2, $3, $4::pg_catalog.timestamptz)",
    )
    .bind(&migration.version)
    .bind(&migration.name)
    .bind(&migration.statements)
    .bind(&migration.created_at)
    .execute(conn)
    .await
    .map_err(Error::while_doing(format!(
        "append migration {} to the ledger",
        migration.version
    )))?;
    Ok(())
}

async fn write(conn: &mut PgConnection, write: &Write) -> Result<(), Error> {
    if write.calls {
        return call(conn, &write.sql).await;
    }
    match &write.sealed {
        None => run_one(conn, &write.sql).await,
        Some(sealed) => {
            sqlx::query(AssertSqlSafe(write.sql.as_str()))
                .bind(sealed.ciphertext())
                .execute(conn)
                .await
                .map_err(Error::while_doing("copy a ciphertext"))?;
            Ok(())
        }
    }
}
