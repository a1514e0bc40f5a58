//! What of a copy must not stay as it was on the parent (contract, 5.11 and 5.12).

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgTransaction};
use uuid::Uuid;

use crate::{
    contents::Contents,
    database::{Database, quote_identifier},
    error::Error,
    mark::{self, Mark},
    old,
    tables::{Kind, Relation, Tables, has_function, user_schemas},
};

/// What the branch is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixUps {
    /// Without users' rows, whatever the archive brought.
    pub schema_only: bool,
    /// Whether the parent's active schedules run on the branch too: they call absolute URLs, most likely the parent's. If
    /// not, they are made inactive.
    pub run_schedules: bool,
}

/// Keys of the parent, with which it would still be entered, and its addresses (5.11). `JWT_SECRET` and the pair that signs
/// access tokens stay: a branch shares its parent's.
const DELETE_SECRETS: &str = r"
    DELETE FROM system.secrets
    WHERE key IN ('API_KEY', 'ANON_KEY', 'INSFORGE_BASE_URL', 'INSFORGE_INTERNAL_URL', 'VERCEL_WEBHOOK_SECRET')
       OR key LIKE 'API\_KEY\_OLD\_%' OR key LIKE 'ANON\_KEY\_OLD\_%'";

/// The two jobs that migrations make and no start-up does: name, schedule, command, function.
const RETENTION_JOBS: [(&str, &str, &str, (&str, &str)); 2] = [
    (
        "realtime-message-retention",
        "0 0 * * *",
        "SELECT realtime.cleanup_messages()",
        ("realtime", "cleanup_messages"),
    ),
    (
        "schedules-job-logs-retention",
        "0 * * * *",
        "SELECT schedules.cleanup_job_logs()",
        ("schedules", "cleanup_job_logs"),
    ),
];

/// How many tables one statement looks into.
const TABLES_AT_ONCE: usize = 200;

/// Makes a restored copy a branch, in one transaction. To be done after each restore and before the branch's server starts;
/// doing it again then changes nothing more. (Later it would take the branch's own keys and jobs.)
///
/// What a database does not have is passed over: a copy of a database that is no InsForge backend stays as it is, but for
/// `schema_only`.
pub async fn fix_up_branch(database: &Database, fix_ups: FixUps) -> Result<(), Error> {
    let mut connection = database.connect().await?;
    if mark::find(&mut connection, &database.name).await? == Some(Mark::Incomplete) {
        return Err(Error::Incomplete(database.describe()));
    }
    let mut transaction = connection
        .begin()
        .await
        .map_err(Error::sql("begin the fix-ups"))?;
    forget_cron(&mut transaction).await?;
    fix_schedules(&mut transaction, fix_ups).await?;
    delete_secrets(&mut transaction).await?;
    empty_tables(&mut transaction, fix_ups).await?;
    schedule(&mut transaction, fix_ups).await?;
    sync_postgrest(&mut transaction).await?;
    transaction
        .commit()
        .await
        .map_err(Error::sql("commit the fix-ups"))
}

/// Makes a backup that was restored into its own database serve: PostgREST learns the schemas, and the keys are those of the
/// database that it replaced, which is kept under this id. A key that was replaced since the backup must not be good again.
/// Without a kept one the keys are the backup's. To be done before the server starts; doing it again changes nothing more.
pub async fn fix_up_backup(database: &Database, kept: Uuid) -> Result<(), Error> {
    let mut connection = database.connect().await?;
    if mark::find(&mut connection, &database.name).await? == Some(Mark::Incomplete) {
        return Err(Error::Incomplete(database.describe()));
    }
    let keys = old::read_kept(database, kept, keys_of).await?;
    let mut transaction = connection
        .begin()
        .await
        .map_err(Error::sql("begin the fix-ups"))?;
    if let Some(keys) = keys {
        set_keys(&mut transaction, &keys).await?;
    }
    sync_postgrest(&mut transaction).await?;
    transaction
        .commit()
        .await
        .map_err(Error::sql("commit the fix-ups"))
}

/// What enters a backend besides people, by table: what is good today, and nothing that was good when the backup was made
/// (contract, 1.2, 5.5 and 6.2).
const KEYS: [(&str, &str, &str); 2] = [
    (
        "system",
        "secrets",
        r"key IN ('API_KEY', 'ANON_KEY') OR key LIKE 'API\_KEY\_OLD\_%' OR key LIKE 'ANON\_KEY\_OLD\_%'",
    ),
    ("storage", "s3_access_keys", "true"),
];

/// Rows of keys of one table, and how long they may be together: whoever has the database's password can write more.
const MOST_KEYS: i64 = 10_000;
const MOST_KEYS_BYTES: i64 = 8 << 20;

/// The rows of the keys, as JSON by table; none where there is no such table.
async fn keys_of(mut connection: PgConnection) -> Result<[Option<String>; 2], Error> {
    let mut keys = [None, None];
    for (found, (schema, table, are_keys)) in keys.iter_mut().zip(KEYS) {
        if !has_table(&mut connection, schema, table).await? {
            continue;
        }
        let query = format!(
            "SELECT count(*), coalesce(sum(octet_length(s::text)), 0)::int8 FROM {schema}.{table} s WHERE {are_keys}"
        );
        let (rows, bytes): (i64, i64) = sqlx::query_as(AssertSqlSafe(query))
            .fetch_one(&mut connection)
            .await
            .map_err(Error::sql("count the keys"))?;
        if rows > MOST_KEYS || bytes > MOST_KEYS_BYTES {
            return Err(Error::TooMuch {
                what: format!("{schema}.{table}"),
            });
        }
        let query = format!(
            "SELECT coalesce(jsonb_agg(to_jsonb(s)), '[]')::text FROM {schema}.{table} s WHERE {are_keys}"
        );
        let rows = sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_one(&mut connection)
            .await
            .map_err(Error::sql("read the keys"))?;
        *found = Some(rows);
    }
    // Renaming a database takes that nobody is in it.
    let _ = connection.close().await;
    Ok(keys)
}

async fn set_keys(
    transaction: &mut PgTransaction<'_>,
    keys: &[Option<String>; 2],
) -> Result<(), Error> {
    for (rows, (schema, table, are_keys)) in keys.iter().zip(KEYS) {
        let (Some(rows), true) = (rows, has_table(transaction, schema, table).await?) else {
            continue;
        };
        let statement = format!("{QUIET}; DELETE FROM {schema}.{table} WHERE {are_keys}");
        run(transaction, statement, "delete the backup's keys").await?;
        let insert = format!(
            "INSERT INTO {schema}.{table}
             SELECT r.* FROM jsonb_populate_recordset(NULL::{schema}.{table}, $1::jsonb) r"
        );
        sqlx::query(AssertSqlSafe(insert))
            .bind(rows)
            .execute(&mut **transaction)
            .await
            .map_err(Error::sql("keep the keys"))?;
        run(transaction, LOUD.to_owned(), "keep the keys").await?;
    }
    Ok(())
}

/// Entries of pg_cron that a full archive brought would run the parent's jobs. pg_cron notices by a trigger.
async fn forget_cron(transaction: &mut PgTransaction<'_>) -> Result<(), Error> {
    for table in ["job", "job_run_details"] {
        if has_table(transaction, "cron", table).await? {
            let statement = format!("DELETE FROM cron.{table}");
            run(transaction, statement, "forget the parent's cron jobs").await?;
        }
    }
    Ok(())
}

/// A `cron_job_id` names a job of the parent's; edits of the schedule would remove whatever job has that number here.
async fn fix_schedules(transaction: &mut PgTransaction<'_>, fix_ups: FixUps) -> Result<(), Error> {
    if !has_table(transaction, "schedules", "jobs").await? {
        return Ok(());
    }
    let inactive = if fix_ups.run_schedules {
        ""
    } else {
        ", is_active = false"
    };
    let statement =
        format!("{QUIET}; UPDATE schedules.jobs SET cron_job_id = NULL{inactive}; {LOUD}");
    run(transaction, statement, "detach the schedules").await
}

/// Triggers of the tables, which users may have made, are not meant for what happens here.
const QUIET: &str = "SET LOCAL session_replication_role = replica";
const LOUD: &str = "SET LOCAL session_replication_role = origin";

async fn delete_secrets(transaction: &mut PgTransaction<'_>) -> Result<(), Error> {
    if !has_table(transaction, "system", "secrets").await? {
        return Ok(());
    }
    run(
        transaction,
        DELETE_SECRETS.to_owned(),
        "delete the parent's keys",
    )
    .await
}

async fn empty_tables(transaction: &mut PgTransaction<'_>, fix_ups: FixUps) -> Result<(), Error> {
    let contents = if fix_ups.schema_only {
        Contents::BranchWithoutData
    } else {
        Contents::Branch
    };
    let tables = Tables::read(transaction).await?;
    let emptied = tables.emptied(contents);
    if !fix_ups.schema_only {
        // Rows that others reference cannot be truncated away; what becomes of the others is what the keys say.
        for relation in tables.copied_all_the_same() {
            let statement = format!("DELETE FROM {}", relation.quoted());
            run(transaction, statement, "empty a table that is referenced").await?;
        }
    }
    run(transaction, QUIET.to_owned(), "silence triggers").await?;
    if has_rows(transaction, &emptied).await? {
        truncate(transaction, &emptied).await?;
        if fix_ups.schema_only {
            refresh_views(transaction).await?;
        }
    }
    restart_sequences(transaction, &emptied).await?;
    run(transaction, LOUD.to_owned(), "silence triggers").await
}

/// Usually none has, since the archive was made without them; truncating thousands of empty tables is slow.
async fn has_rows(
    transaction: &mut PgTransaction<'_>,
    emptied: &BTreeMap<i64, &Relation>,
) -> Result<bool, Error> {
    let tables: Vec<String> = emptied
        .values()
        .filter(|relation| relation.kind == Kind::Table)
        .map(|relation| format!("EXISTS (SELECT FROM ONLY {})", relation.quoted()))
        .collect();
    for some in tables.chunks(TABLES_AT_ONCE) {
        let found: bool =
            sqlx::query_scalar(AssertSqlSafe(format!("SELECT {}", some.join(" OR "))))
                .fetch_one(&mut **transaction)
                .await
                .map_err(Error::sql("look for rows"))?;
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// In one statement, since tables reference each other. With ONLY, or without where it would refuse: tables of other
/// servers that are partitions here must not be emptied over there.
async fn truncate(
    transaction: &mut PgTransaction<'_>,
    emptied: &BTreeMap<i64, &Relation>,
) -> Result<(), Error> {
    let reaching_out: Vec<i64> = sqlx::query_scalar(
        "SELECT a.relid::oid::int8 FROM pg_class c, pg_partition_ancestors(c.oid) a
         WHERE c.relkind = 'f' AND c.relispartition",
    )
    .fetch_all(&mut **transaction)
    .await
    .map_err(Error::sql("list the foreign tables"))?;
    let names: Vec<String> = emptied
        .iter()
        .filter_map(|(oid, relation)| match relation.kind {
            Kind::Table => Some(format!("ONLY {}", relation.quoted())),
            Kind::Partitioned => (!reaching_out.contains(oid)).then(|| relation.quoted()),
            Kind::Sequence => None,
        })
        .collect();
    let statement = format!("TRUNCATE {}", names.join(", "));
    run(transaction, statement, "empty the tables").await
}

/// They still show the rows that were. In the order in which they were made, so what reads another comes after it.
async fn refresh_views(transaction: &mut PgTransaction<'_>) -> Result<(), Error> {
    let schemas = user_schemas(transaction).await?;
    let views: Vec<(String, String)> = sqlx::query_as(
        "SELECT n.nspname::text, c.relname::text FROM pg_class c
         JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = ANY ($1::text[])
         WHERE c.relkind = 'm' AND c.relispopulated ORDER BY c.oid",
    )
    .bind(&schemas)
    .fetch_all(&mut **transaction)
    .await
    .map_err(Error::sql("list the materialized views"))?;
    for (schema, name) in views {
        let statement = format!(
            "REFRESH MATERIALIZED VIEW {}.{}",
            quote_identifier(&schema),
            quote_identifier(&name)
        );
        run(transaction, statement, "refresh a materialized view").await?;
    }
    Ok(())
}

async fn restart_sequences(
    transaction: &mut PgTransaction<'_>,
    emptied: &BTreeMap<i64, &Relation>,
) -> Result<(), Error> {
    let sequences: Vec<i64> = emptied
        .iter()
        .filter(|(_, relation)| relation.kind == Kind::Sequence)
        .map(|(oid, _)| *oid)
        .collect();
    sqlx::query(
        "SELECT setval(seqrelid::regclass, seqstart, false) FROM pg_sequence
         WHERE seqrelid::int8 = ANY ($1)",
    )
    .bind(&sequences)
    .execute(&mut **transaction)
    .await
    .map_err(Error::sql("restart the sequences"))?;
    Ok(())
}

/// Makes the jobs of pg_cron that the branch is to have: all others are gone by now.
async fn schedule(transaction: &mut PgTransaction<'_>, fix_ups: FixUps) -> Result<(), Error> {
    if !has_function(transaction, "cron", "schedule").await? {
        return Ok(());
    }
    for (name, when, command, (schema, function)) in RETENTION_JOBS {
        if has_function(transaction, schema, function).await? {
            sqlx::query("SELECT cron.schedule($1, $2, $3)")
                .bind(name)
                .bind(when)
                .bind(command)
                .execute(&mut **transaction)
                .await
                .map_err(Error::sql("schedule a retention job"))?;
        }
    }
    if fix_ups.run_schedules && has_function(transaction, "schedules", "enable_job").await? {
        enable_schedules(transaction).await?;
    }
    Ok(())
}

/// `enable_job` tells failures in its answer (5.4). A schedule that cannot run here does not keep the branch from being
/// made; it is inactive then, for all to see.
async fn enable_schedules(transaction: &mut PgTransaction<'_>) -> Result<(), Error> {
    let doing = "enable a schedule";
    as_the_server(transaction).await?;
    let answers: Vec<(String, Option<String>)> = sqlx::query_as(
        "SELECT j.id::text, to_jsonb(answer) ->> 'success'
         FROM schedules.jobs j, LATERAL schedules.enable_job(j.id) AS answer
         WHERE j.is_active",
    )
    .fetch_all(&mut **transaction)
    .await
    .map_err(Error::sql(doing))?;
    for (id, success) in answers {
        if success.as_deref() == Some("false") {
            tracing::warn!(schedule = id, "a schedule cannot run on the branch");
            sqlx::query("UPDATE schedules.jobs SET is_active = false WHERE id::text = $1")
                .bind(&id)
                .execute(&mut **transaction)
                .await
                .map_err(Error::sql(doing))?;
        }
    }
    Ok(())
}

/// Tells PostgREST which schemas to serve: no archive carries that, and the event trigger that keeps it was not there yet
/// while the schemas were restored (5.3).
async fn sync_postgrest(transaction: &mut PgTransaction<'_>) -> Result<(), Error> {
    let name = "sync_postgrest_exposed_schemas";
    if !has_function(transaction, "system", name).await? {
        return Ok(());
    }
    as_the_server(transaction).await?;
    let statement = format!("SELECT system.{name}()");
    run(transaction, statement, "tell PostgREST the schemas").await
}

/// The release's functions are called with the search path that its server has.
async fn as_the_server(transaction: &mut PgTransaction<'_>) -> Result<(), Error> {
    let statement = "SET LOCAL search_path = \"$user\", public".to_owned();
    run(transaction, statement, "set the search path").await
}

async fn run(
    connection: &mut PgConnection,
    statement: String,
    doing: &'static str,
) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(connection)
        .await
        .map_err(Error::sql(doing))?;
    Ok(())
}

async fn has_table(connection: &mut PgConnection, schema: &str, name: &str) -> Result<bool, Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                        WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p'))",
    )
    .bind(schema)
    .bind(name)
    .fetch_one(connection)
    .await
    .map_err(Error::sql("look for a table"))
}
