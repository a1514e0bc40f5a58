//! How statements of a merge run: which settings, one by one or many at once.

use sqlx::{AssertSqlSafe, PgConnection};

use crate::{Error, config::Migration, script::Statement, script::quote::ident};

/// No schema of users, and temporary objects last: left unsaid they would be first, and a tenant's `pg_temp.text` would be
/// what `text` means. All that scripts name has its schema, so nothing reads otherwise than with the empty path.
pub(crate) const PATH: &str = "pg_catalog, pg_temp";

/// As scripts want it (merge-engine, "Transaction"): names are qualified, bodies of functions may mention what comes
/// later, and existing event triggers and triggers must not act.
const SCRIPT: &[(&str, &str)] = &[
    ("search_path", PATH),
    ("check_function_bodies", "off"),
    ("session_replication_role", "replica"),
];

/// Configuration rows are written as the product's server writes them, with foreign keys and triggers. (The one on
/// `cron.job` tells the scheduler.)
pub(crate) const ROWS_SETTINGS: &[(&str, &str)] = &[
    ("search_path", PATH),
    ("session_replication_role", "origin"),
];

/// For the rest of the transaction.
pub(crate) async fn enter_script(conn: &mut PgConnection) -> Result<(), Error> {
    set(conn, "SET LOCAL", SCRIPT).await
}

/// For the rest of the session.
pub(crate) async fn settle_for_scripts(conn: &mut PgConnection) -> Result<(), Error> {
    set(conn, "SET", SCRIPT).await
}

/// As [`enter_script`], as text.
pub(crate) fn script_settings() -> Vec<String> {
    SCRIPT
        .iter()
        .map(|(name, value)| format!("SET LOCAL {name} = {value}"))
        .collect()
}

/// For the rest of the transaction.
pub(crate) async fn enter_rows(conn: &mut PgConnection) -> Result<(), Error> {
    set(conn, "SET LOCAL", ROWS_SETTINGS).await
}

async fn set(conn: &mut PgConnection, verb: &str, settings: &[(&str, &str)]) -> Result<(), Error> {
    let sql: Vec<String> = settings
        .iter()
        .map(|(name, value)| format!("{verb} {name} = {value}"))
        .collect();
    run(conn, &sql.join("; ")).await
}

/// One statement and no more: a text that holds two is refused.
pub(crate) async fn run_one(conn: &mut PgConnection, sql: &str) -> Result<(), Error> {
    sqlx::query(AssertSqlSafe(sql))
        .persistent(false)
        .execute(conn)
        .await
        .map_err(|source| Error::Database {
            doing: format!("run `{}`", shortened(sql)),
            source,
        })?;
    Ok(())
}

/// One statement, or several as one implicit transaction.
pub(crate) async fn run(conn: &mut PgConnection, sql: &str) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(conn)
        .await
        .map_err(|source| Error::Database {
            doing: format!("run `{}`", shortened(sql)),
            source,
        })?;
    Ok(())
}

/// What a message can hold of a statement.
fn shortened(sql: &str) -> String {
    const LONGEST: usize = 2_000;
    match sql.char_indices().nth(LONGEST) {
        None => sql.to_owned(),
        Some((end, _)) => format!("{} …", &sql[..end]),
    }
}

/// Fast on an empty database: many statements per message. Where one fails, its part is run again one by one, for an
/// error that names the statement.
pub(crate) async fn run_all(
    conn: &mut PgConnection,
    statements: &[Statement],
) -> Result<(), Error> {
    const AT_ONCE: usize = 200;
    for part in statements.chunks(AT_ONCE) {
        let texts: Vec<&str> = part.iter().map(|s| s.sql.as_str()).collect();
        if run(conn, &texts.join(";\n")).await.is_err() {
            for text in texts {
                run(conn, text).await?;
            }
        }
    }
    Ok(())
}

/// The branch's migrations, inside the caller's transaction, as the product's server applies them (project-backend
/// 5.7): as `project_admin`, with `search_path = public`, and with triggers. Afterwards the session is the caller's
/// own again, with no trigger left for the commit: `ALTER TABLE` refuses tables that have some.
pub(crate) async fn run_migrations(
    conn: &mut PgConnection,
    migrations: &[Migration],
) -> Result<(), Error> {
    if migrations.is_empty() {
        return Ok(());
    }
    run(
        conn,
        "SET LOCAL session_replication_role = origin; SET LOCAL check_function_bodies = on; \
         SET LOCAL search_path = public",
    )
    .await?;
    for migration in migrations {
        for statement in &migration.statements {
            as_role(conn, "project_admin", statement)
                .await
                .map_err(|source| Error::Database {
                    doing: format!(
                        "migration {}: run `{}`",
                        migration.version,
                        shortened(statement)
                    ),
                    source,
                })?;
        }
    }
    // Whatever is left for the commit would be done with the session's rights: the queries of cursors, and what was
    // deferred, which fires with the rights of who wrote it, as the product has it.
    let failed = Error::while_doing("close the cursors of the migrations");
    as_role(conn, "project_admin", "CLOSE ALL")
        .await
        .map_err(failed)?;
    let failed = Error::while_doing("check what the migrations deferred");
    lend(conn, "project_admin", &["SET CONSTRAINTS ALL IMMEDIATE"])
        .await
        .map_err(failed)?;
    // A migration may SET what it likes, and would have set it for whatever comes.
    run(
        conn,
        "SET CONSTRAINTS ALL IMMEDIATE; DEALLOCATE ALL; RESET ALL",
    )
    .await
}

/// One statement of a script, with the rights of `role` where that is not the session's own business.
pub(crate) async fn run_with_rights(
    conn: &mut PgConnection,
    role: Option<&str>,
    sql: &str,
) -> Result<(), Error> {
    let Some(role) = role else {
        return run_one(conn, sql).await;
    };
    lend(conn, role, &[sql])
        .await
        .map_err(|source| Error::Database {
            doing: format!("run `{}` as {role}", shortened(sql)),
            source,
        })
}

/// As [`run_all`], with the rights of `role`.
pub(crate) async fn run_all_with_rights(
    conn: &mut PgConnection,
    role: &str,
    statements: &[Statement],
) -> Result<(), Error> {
    let texts: Vec<&str> = statements.iter().map(|s| s.sql.as_str()).collect();
    if lend(conn, role, &texts).await.is_err() {
        run(conn, "DISCARD TEMP").await?;
        for text in texts {
            run_with_rights(conn, Some(role), text).await?;
        }
    }
    Ok(())
}

/// Runs statements with no more than the rights of `role`, and so that nothing of them outlives them but what they say.
///
/// Postgres has a state for this, the security-restricted operation, in which no role can be taken, nothing can be deferred or
/// left open, no temporary table can be made, nothing is prepared, and which takes back all settings in the end. SQL comes into
/// it by the expression of an index, which is evaluated with the rights of the table's owner: here once for each row, in their
/// order. (An expression must claim to be immutable, and what is immutable may not write; but it may call what does.)
/// Whatever else was made in `pg_temp` is gone afterwards.
async fn lend(conn: &mut PgConnection, role: &str, statements: &[&str]) -> Result<(), sqlx::Error> {
    let run = "BEGIN EXECUTE statement; END";
    prepare_to_lend(conn, role, run, "").await?;
    evaluate(conn, statements).await?;
    sqlx::raw_sql("DISCARD TEMP").execute(conn).await?;
    Ok(())
}

/// The number that a query gives, with the rights of `role` as for statements of a script. Whatever it calls can only read.
pub(crate) async fn count_as(
    conn: &mut PgConnection,
    role: &str,
    sql: &str,
) -> Result<i64, sqlx::Error> {
    let look = "DECLARE found pg_catalog.int8;
         BEGIN
             PERFORM pg_catalog.set_config('transaction_read_only', 'on', true);
             EXECUTE statement INTO found;
             INSERT INTO pg_temp.insforge_answer VALUES (found);
         END";
    // Not the role's own: what is read from it must be a table.
    let answer = format!(
        "CREATE TABLE pg_temp.insforge_answer (found pg_catalog.int8); \
         GRANT INSERT ON pg_temp.insforge_answer TO {};",
        ident(role)
    );
    prepare_to_lend(conn, role, look, &answer).await?;
    evaluate(conn, &[sql]).await?;
    let found = sqlx::query_scalar("SELECT pg_catalog.max(found) FROM pg_temp.insforge_answer")
        .persistent(false)
        .fetch_one(&mut *conn)
        .await?;
    sqlx::raw_sql("DISCARD TEMP").execute(conn).await?;
    Ok(found)
}

async fn prepare_to_lend(
    conn: &mut PgConnection,
    role: &str,
    run: &str,
    more: &str,
) -> Result<(), sqlx::Error> {
    let role = ident(role);
    sqlx::raw_sql(AssertSqlSafe(format!(
        "{more} CREATE TABLE pg_temp.insforge_lent (statement pg_catalog.text); \
         ALTER TABLE pg_temp.insforge_lent OWNER TO {role}; \
         CREATE FUNCTION pg_temp.insforge_run(statement pg_catalog.text) RETURNS pg_catalog.void \
             LANGUAGE plpgsql AS $insforge$ {run} $insforge$; \
         ALTER FUNCTION pg_temp.insforge_run(pg_catalog.text) OWNER TO {role}; \
         CREATE FUNCTION pg_temp.insforge_lend(statement pg_catalog.text) RETURNS pg_catalog.int4 \
             LANGUAGE plpgsql IMMUTABLE \
             AS $insforge$ BEGIN PERFORM pg_temp.insforge_run(statement); RETURN 0; END $insforge$; \
         ALTER FUNCTION pg_temp.insforge_lend(pg_catalog.text) OWNER TO {role}"
    )))
    .execute(conn)
    .await?;
    Ok(())
}

async fn evaluate(conn: &mut PgConnection, statements: &[&str]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO pg_temp.insforge_lent SELECT * FROM pg_catalog.unnest($1::pg_catalog.text[])",
    )
    .persistent(false)
    .bind(statements)
    .execute(&mut *conn)
    .await?;
    sqlx::raw_sql("CREATE INDEX ON pg_temp.insforge_lent (pg_temp.insforge_lend(statement))")
        .execute(conn)
        .await?;
    Ok(())
}

/// Runs a statement of a migration, with no more than the rights of `role` and inside the transaction that there is. In a
/// function that is `SECURITY DEFINER` Postgres refuses `SET ROLE`, `RESET ROLE` and whatever begins or ends transactions,
/// at any depth, which a session under `SET ROLE` does not. It is made anew for each statement, since its owner may
/// replace it; and since earlier statements may have set a path and made temporary objects, each name here has its schema.
async fn as_role(conn: &mut PgConnection, role: &str, statement: &str) -> Result<(), sqlx::Error> {
    let role = ident(role);
    sqlx::raw_sql(AssertSqlSafe(format!(
        "DROP FUNCTION IF EXISTS pg_temp.insforge_run(pg_catalog.text); \
         CREATE FUNCTION pg_temp.insforge_run(statement pg_catalog.text) RETURNS pg_catalog.void \
             LANGUAGE plpgsql SECURITY DEFINER AS $insforge$ BEGIN EXECUTE statement; END $insforge$; \
         ALTER FUNCTION pg_temp.insforge_run(pg_catalog.text) OWNER TO {role}"
    )))
    .execute(&mut *conn)
    .await?;
    sqlx::query("SELECT pg_temp.insforge_run($1::pg_catalog.text)")
        .persistent(false)
        .bind(statement)
        .execute(&mut *conn)
        .await?;
    sqlx::raw_sql("DROP FUNCTION IF EXISTS pg_temp.insforge_run(pg_catalog.text)")
        .execute(conn)
        .await?;
    Ok(())
}
