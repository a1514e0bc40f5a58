//! What an online merge does after its commit, outside of any transaction that would hold others up: proves foreign keys and
//! checks, builds indexes. The merge stands whatever becomes of it, and what could not be done is what the next plan finds
//! missing.

use std::time::Duration;

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use super::{
    ApplyOptions, Finished, Unfinished, backoff, is_about_locks, lock, record, rights::Rights,
    stages::Later,
};
use crate::{
    Error,
    catalog::{Catalog, FactId, Kind},
    plan::connect,
    script::{Statement, quote},
    session::{enter_script, run, run_one, run_with_rights, settle_for_scripts},
};

/// Each of `later`, in its order. One that fails is no reason to leave out the next.
pub(super) async fn finish(
    parent: &PgConnectOptions,
    merged: &Catalog,
    options: &ApplyOptions,
    later: &[Later],
) -> (Vec<Finished>, Vec<Unfinished>) {
    let (mut finished, mut unfinished) = (Vec::new(), Vec::new());
    // A session of its own: a migration may have left whatever it liked in that of the merge.
    let mut session = match settled(parent, options).await {
        Ok(session) => session,
        Err(error) => {
            tell(&error);
            let why = error.to_string();
            let unfinished = later.iter().map(|one| one.unfinished(why.clone()));
            return (finished, unfinished.collect());
        }
    };
    let finish = Finish {
        options,
        // What the script did to owners is done.
        rights: Rights::new(merged, merged),
    };
    let mut left = Vec::new();
    for one in later {
        match finish.one(&mut session, one).await {
            Ok(()) => finished.push(one.finished()),
            Err(error) => {
                tell(&error);
                unfinished.push(one.unfinished(error.to_string()));
                left.push(one.name());
            }
        }
    }
    if let Some(record) = &options.record
        && let Err(error) = record::leave(&mut session, record, &left).await
    {
        // It says too much then. Who goes by it finds things done.
        tell(&error);
    }
    let _ = session.close().await;
    (finished, unfinished)
}

fn tell(error: &Error) {
    // Its text quotes statements, and those what people wrote.
    tracing::warn!(sqlstate = ?error.sqlstate(), "an online merge left something unfinished");
}

impl Later {
    fn finished(&self) -> Finished {
        Finished {
            kind: self.id.kind.as_str().to_owned(),
            name: self.id.to_string(),
            statement: self.online.clone(),
        }
    }

    fn unfinished(&self, why: String) -> Unfinished {
        let Finished {
            kind,
            name,
            statement,
        } = self.finished();
        Unfinished {
            kind,
            name,
            statement,
            why,
        }
    }
}

/// With the settings of scripts, and alone: no other merge runs meanwhile.
async fn settled(parent: &PgConnectOptions, options: &ApplyOptions) -> Result<PgConnection, Error> {
    let mut session = connect(parent).await?;
    lock(&mut session, options).await?;
    settle_for_scripts(&mut session).await?;
    run(
        &mut session,
        &format!(
            "SET statement_timeout = {}; SET jit = off; SET row_security = off; \
             SET idle_in_transaction_session_timeout = 0",
            options.online_timeout.as_millis()
        ),
    )
    .await?;
    Ok(session)
}

struct Finish<'a> {
    options: &'a ApplyOptions,
    rights: Rights<'a>,
}

impl Finish<'_> {
    async fn one(&self, session: &mut PgConnection, later: &Later) -> Result<(), Error> {
        if later.id.kind == Kind::Index {
            self.build(session, later).await?;
        } else {
            self.run(session, &later.statement).await?;
        }
        for statement in &later.follow {
            self.run(session, statement).await?;
        }
        Ok(())
    }

    /// In a transaction of its own, as a script's.
    async fn run(&self, session: &mut PgConnection, statement: &Statement) -> Result<(), Error> {
        let mut attempts = 1;
        loop {
            match self.try_once(session, statement).await {
                Err(error) if is_about_locks(&error) && attempts < self.options.attempts => {
                    tokio::time::sleep(backoff(attempts)).await;
                    attempts += 1;
                }
                done => return done,
            }
        }
    }

    async fn try_once(
        &self,
        session: &mut PgConnection,
        statement: &Statement,
    ) -> Result<(), Error> {
        let failed = "finish an online merge";
        let mut transaction = session.begin().await.map_err(Error::while_doing(failed))?;
        enter_script(&mut transaction).await?;
        let patience = self.options.lock_timeout.as_millis();
        run(
            &mut transaction,
            &format!("SET LOCAL lock_timeout = {patience}"),
        )
        .await?;
        let role = self.rights.of_statement(statement);
        run_with_rights(&mut transaction, role.as_deref(), &statement.sql).await?;
        transaction
            .commit()
            .await
            .map_err(Error::while_doing(failed))
    }

    /// Nobody who reads or writes waits for it, so it may wait for all transactions that are older, as it has to. Postgres
    /// evaluates expressions of indexes with the rights of the table's owner.
    async fn build(&self, session: &mut PgConnection, later: &Later) -> Result<(), Error> {
        let mut attempts = 1;
        loop {
            match state(session, &later.id, &later.table).await? {
                Some(true) => return Ok(()),
                Some(false) => drop_index(session, &later.id).await?,
                None => {}
            }
            let Err(error) = run_one(session, &later.online).await else {
                return Ok(());
            };
            // It would slow writers down, and refuse rows if it is unique.
            if let Err(left) = clear_away(session, later).await {
                return Err(error.with_index_left(&later.id, &left));
            }
            if !is_about_locks(&error) || attempts >= self.options.attempts {
                return Err(error);
            }
            tokio::time::sleep(backoff(attempts)).await;
            attempts += 1;
        }
    }
}

async fn clear_away(session: &mut PgConnection, later: &Later) -> Result<(), Error> {
    match state(session, &later.id, &later.table).await? {
        Some(false) => drop_index(session, &later.id).await,
        _ => Ok(()),
    }
}

/// Whether the index is whole; none where the table has no index of that name.
async fn state(
    session: &mut PgConnection,
    index: &FactId,
    table: &str,
) -> Result<Option<bool>, Error> {
    sqlx::query_scalar(
        "SELECT i.indisvalid AND i.indisready FROM pg_catalog.pg_index i
           JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'i' AND n.nspname = $1 AND c.relname = $2
           AND i.indrelid = pg_catalog.to_regclass($3)",
    )
    .bind(&index.schema)
    .bind(&index.object)
    .bind(table)
    .fetch_optional(session)
    .await
    .map_err(Error::while_doing("look for an index"))
}

async fn drop_index(session: &mut PgConnection, index: &FactId) -> Result<(), Error> {
    let index = quote::object(index);
    run_one(
        session,
        &format!("DROP INDEX CONCURRENTLY IF EXISTS {index}"),
    )
    .await
}

/// Indexes that an online merge which died did not finish, where this script makes them. They are invalid, so they are part of
/// no schema; but they have the name.
pub(super) async fn clear_names(
    session: &mut PgConnection,
    statements: &[Statement],
    patience: Duration,
) -> Result<(), Error> {
    let invalid: Vec<(String, String)> = sqlx::query_as(
        "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text FROM pg_catalog.pg_index i
           JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'i' AND NOT (i.indisvalid AND i.indisready)",
    )
    .fetch_all(&mut *session)
    .await
    .map_err(Error::while_doing("look for invalid indexes"))?;
    for (schema, name) in invalid {
        let index = FactId::object(Kind::Index, &schema, &name);
        if !statements
            .iter()
            .any(|statement| statement.makes.as_ref() == Some(&index))
        {
            continue;
        }
        let patience = patience.as_millis();
        run(session, &format!("SET statement_timeout = {patience}")).await?;
        drop_index(session, &index).await?;
        run(session, "SET statement_timeout = 0").await?;
    }
    Ok(())
}
