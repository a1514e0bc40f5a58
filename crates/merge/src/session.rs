//! How statements of a merge run: which settings, one by one or many at once.

use sqlx::{AssertSqlSafe, PgConnection};

use crate::{
    Error,
    config::Migration,
    script::Statement,
    script::quote::{ident, literal},
};

/// As scripts want it (merge-engine, "Transaction"): names are qualified, bodies of functions may mention what comes
/// later, and existing event triggers and triggers must not act.
const SCRIPT: &[(&str, &str)] = &[
    ("search_path", ""),
    ("check_function_bodies", "off"),
    ("session_replication_role", "replica"),
];

/// Configuration rows are written as the product's server writes them, with foreign keys and triggers. (The one on
/// `cron.job` tells the scheduler.)
pub(crate) const ROWS_SETTINGS: &[(&str, &str)] =
    &[("search_path", ""), ("session_replication_role", "origin")];

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
        .map(|(name, value)| format!("SET LOCAL {name} = {}", literal(value)))
        .collect()
}

/// For the rest of the transaction.
pub(crate) async fn enter_rows(conn: &mut PgConnection) -> Result<(), Error> {
    set(conn, "SET LOCAL", ROWS_SETTINGS).await
}

async fn set(conn: &mut PgConnection, verb: &str, settings: &[(&str, &str)]) -> Result<(), Error> {
    let sql: Vec<String> = settings
        .iter()
        .map(|(name, value)| format!("{verb} {name} = {}", literal(value)))
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
    // As the product has it: what was deferred fires with the rights of who wrote it.
    let failed = Error::while_doing("check what the migrations deferred");
    as_role(conn, "project_admin", "SET CONSTRAINTS ALL IMMEDIATE")
        .await
        .map_err(failed)?;
    // A migration may SET what it likes, and would have set it for whatever comes.
    run(
        conn,
        "DROP FUNCTION IF EXISTS pg_temp.insforge_run(text); RESET ALL",
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
    as_role(conn, role, sql)
        .await
        .map_err(|source| Error::Database {
            doing: format!("run `{}` as {role}", shortened(sql)),
            source,
        })?;
    run(conn, "DROP FUNCTION IF EXISTS pg_temp.insforge_run(text)").await
}

/// The number that a query gives, with the rights of `role`, inside the caller's transaction, which may still write: once the
/// function that lends the rights is there, it may be told to only read.
pub(crate) async fn count_as(
    conn: &mut PgConnection,
    role: &str,
    sql: &str,
    read_only: bool,
) -> Result<i64, sqlx::Error> {
    let role = ident(role);
    let mut make = format!(
        "DROP FUNCTION IF EXISTS pg_temp.insforge_count(text); \
         CREATE FUNCTION pg_temp.insforge_count(query text) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER \
             AS $insforge$ DECLARE found bigint; BEGIN EXECUTE query INTO found; RETURN found; END $insforge$; \
         ALTER FUNCTION pg_temp.insforge_count(text) OWNER TO {role}"
    );
    if read_only {
        make.push_str("; SET TRANSACTION READ ONLY");
    }
    sqlx::raw_sql(AssertSqlSafe(make))
        .execute(&mut *conn)
        .await?;
    sqlx::query_scalar("SELECT pg_temp.insforge_count($1::text)")
        .persistent(false)
        .bind(sql)
        .fetch_one(conn)
        .await
}

/// Runs what a tenant wrote, with no more than the rights of `role` and inside the transaction that there is. In a
/// function that is `SECURITY DEFINER` Postgres refuses `SET ROLE`, `RESET ROLE` and whatever begins or ends transactions,
/// at any depth, which a session under `SET ROLE` does not. It is made anew for each statement, since its owner may
/// replace it.
async fn as_role(conn: &mut PgConnection, role: &str, statement: &str) -> Result<(), sqlx::Error> {
    let role = ident(role);
    sqlx::raw_sql(AssertSqlSafe(format!(
        "DROP FUNCTION IF EXISTS pg_temp.insforge_run(text); \
         CREATE FUNCTION pg_temp.insforge_run(statement text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER \
             AS $insforge$ BEGIN EXECUTE statement; END $insforge$; \
         ALTER FUNCTION pg_temp.insforge_run(text) OWNER TO {role}"
    )))
    .execute(&mut *conn)
    .await?;
    sqlx::query("SELECT pg_temp.insforge_run($1::text)")
        .persistent(false)
        .bind(statement)
        .execute(conn)
        .await?;
    Ok(())
}
