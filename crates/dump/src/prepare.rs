//! The server and the database before a restore (contract, 5.10).

use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;

use crate::{
    database::{Database, quote_identifier, quote_literal},
    error::Error,
    mark::{self, Mark},
    old, roles,
};

/// What the release's first-start script leaves in a database that no server has migrated. The triggers would add
/// policies to the tables that are restored.
const CLEAR_FIRST_START: &str = "
    DROP EVENT TRIGGER IF EXISTS create_policies_on_table_create;
    DROP EVENT TRIGGER IF EXISTS create_policies_on_rls_enable;
    DROP FUNCTION IF EXISTS public.create_default_policies();
    DROP FUNCTION IF EXISTS public.create_policies_after_rls()";

/// Tables, views, sequences, types, functions and schemas that are no extension's and not of the first-start script.
/// `public` itself is everybody's.
const HAS_CONTENTS: &str = "
    WITH ours AS (
        SELECT oid FROM pg_namespace n
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    ), of_extensions AS (
        SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
    )
    SELECT EXISTS (
        SELECT FROM pg_class c JOIN ours ON ours.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')
          AND ('pg_class'::regclass, c.oid) NOT IN (SELECT * FROM of_extensions)
    ) OR EXISTS (
        SELECT FROM pg_proc p JOIN ours ON ours.oid = p.pronamespace
        WHERE p.proname NOT IN ('create_default_policies', 'create_policies_after_rls')
          AND ('pg_proc'::regclass, p.oid) NOT IN (SELECT * FROM of_extensions)
    ) OR EXISTS (
        SELECT FROM pg_namespace n JOIN ours USING (oid)
        WHERE nspname <> 'public' AND ('pg_namespace'::regclass, oid) NOT IN (SELECT * FROM of_extensions)
    )";

/// A new machine's database: made if it is missing, cleared of what the first-start script left. One that an earlier
/// restore left behind is made anew; one with contents of other origin is not touched. Whether it was made anew.
pub(crate) async fn new_machine(database: &Database) -> Result<bool, Error> {
    let mut server = database.maintenance().connect().await?;
    let exists = exists(&mut server, &database.name).await?;
    if !exists || mark::find(&mut server, &database.name).await?.is_some() {
        recreate_on(&mut server, database, None).await?;
        return Ok(true);
    }

    let mut connection = database.connect().await?;
    let has_contents: bool = sqlx::query_scalar(HAS_CONTENTS)
        .fetch_one(&mut connection)
        .await
        .map_err(Error::sql("look whether the database is empty"))?;
    if has_contents {
        return Err(Error::NotEmpty(database.describe()));
    }
    mark::set(&mut server, &database.name, Mark::Incomplete).await?;
    sqlx::raw_sql(CLEAR_FIRST_START)
        .execute(&mut connection)
        .await
        .map_err(Error::sql("clear what the first start left"))?;
    roles::make_the_releases(&mut server).await?;
    grant_create(&mut server, &database.name).await?;
    Ok(false)
}

/// Drops the database with all that is in it, whoever is connected, and makes it anew; with `keep` the first one of that id
/// is kept instead (see [`old`]). Whether there was one, now or before an earlier attempt that came no further than
/// that: what ended with it is still ended.
pub(crate) async fn recreate(database: &Database, keep: Option<Uuid>) -> Result<bool, Error> {
    let mut server = database.maintenance().connect().await?;
    recreate_on(&mut server, database, keep).await?;
    Ok(true)
}

/// The new database is made aside and takes the name last, so that what it has of the old one is not lost with a crash
/// between: the settings `ALTER DATABASE … SET` that a first-start script made are nowhere else.
async fn recreate_on(
    server: &mut PgConnection,
    database: &Database,
    keep: Option<Uuid>,
) -> Result<(), Error> {
    roles::make_the_releases(server).await?;
    let aside: String = sqlx::query_scalar("SELECT 'control_plane_' || md5($1)")
        .bind(&database.name)
        .fetch_one(&mut *server)
        .await
        .map_err(Error::sql("name the new database"))?;
    let exists = exists(server, &database.name).await?;
    // Without the old one, what is aside is from an attempt that came that far.
    if exists || !self::exists(server, &aside).await? {
        make_aside(server, database, &aside).await?;
    }
    if exists {
        match keep {
            Some(id)
                if !old::is_kept(server, id).await?
                    && mark::find(server, &database.name).await? != Some(Mark::Incomplete) =>
            {
                old::keep(server, database, id).await?;
            }
            _ => {
                mark::set(server, &database.name, Mark::Incomplete).await?;
                drop(server, database).await?;
            }
        }
    }
    let rename = format!(
        "ALTER DATABASE {} RENAME TO {}",
        quote_identifier(&aside),
        quote_identifier(&database.name)
    );
    run(server, rename, "name the new database").await
}

/// An empty database like the one that it is to replace, marked as not yet restored.
async fn make_aside(
    server: &mut PgConnection,
    database: &Database,
    aside: &str,
) -> Result<(), Error> {
    let name = quote_identifier(aside);
    let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    run(server, drop, "drop what an earlier attempt left").await?;
    let likeness = likeness(server, &database.name).await?;
    let create = format!("CREATE DATABASE {name} TEMPLATE template0{likeness}");
    run(server, create, "create the database").await?;
    // Row by row: as statements, settings that are lists would have to be taken apart.
    sqlx::query(
        "INSERT INTO pg_db_role_setting (setdatabase, setrole, setconfig)
         SELECT new.oid, s.setrole, s.setconfig
         FROM pg_db_role_setting s JOIN pg_database old ON old.oid = s.setdatabase, pg_database new
         WHERE old.datname = $1 AND new.datname = $2",
    )
    .bind(&database.name)
    .bind(aside)
    .execute(&mut *server)
    .await
    .map_err(Error::sql("keep the database's settings"))?;
    mark::set(server, aside, Mark::Incomplete).await?;
    grant_create(server, aside).await
}

pub(crate) async fn drop(server: &mut PgConnection, database: &Database) -> Result<(), Error> {
    clear_the_way(server, database).await?;
    let drop = format!(
        "DROP DATABASE {} WITH (FORCE)",
        quote_identifier(&database.name)
    );
    run(server, drop, "drop the database").await
}

pub(crate) async fn exists(server: &mut PgConnection, name: &str) -> Result<bool, Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(server)
        .await
        .map_err(Error::sql("look for the database"))
}

/// What the new database must have of the old one: encoding, locale, owner. Nothing if there is no old one.
async fn likeness(server: &mut PgConnection, name: &str) -> Result<String, Error> {
    let row = sqlx::query(
        "SELECT pg_encoding_to_char(encoding) AS encoding, datcollate::text, datctype::text,
                COALESCE(to_jsonb(d) ->> 'daticulocale', CASE WHEN datlocprovider = 'i'
                    THEN to_jsonb(d) ->> 'datlocale' END) AS icu,
                pg_get_userbyid(datdba)::text AS owner
         FROM pg_database d WHERE datname = $1",
    )
    .bind(name)
    .fetch_optional(server)
    .await
    .map_err(Error::sql("look at the database"))?;
    let Some(row) = row else {
        return Ok(String::new());
    };
    let text = |column: &str| row.get::<String, _>(column);
    let mut options = format!(
        " OWNER {} ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        quote_identifier(&text("owner")),
        quote_literal(&text("encoding")),
        quote_literal(&text("datcollate")),
        quote_literal(&text("datctype")),
    );
    if let Some(icu) = row.get::<Option<String>, _>("icu") {
        options.push_str(" LOCALE_PROVIDER icu ICU_LOCALE ");
        options.push_str(&quote_literal(&icu));
    }
    Ok(options)
}

pub(crate) async fn run(
    server: &mut PgConnection,
    statement: String,
    doing: &'static str,
) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(server)
        .await
        .map_err(Error::sql(doing))?;
    Ok(())
}

/// What DROP DATABASE refuses to end even by force: prepared transactions, subscriptions, readers of replication slots.
async fn clear_the_way(server: &mut PgConnection, database: &Database) -> Result<(), Error> {
    let doing = "clear the way for dropping the database";
    let (in_the_way, slots): (bool, bool) = sqlx::query_as(
        "SELECT EXISTS (SELECT FROM pg_prepared_xacts WHERE database = d.datname)
                OR EXISTS (SELECT FROM pg_subscription WHERE subdbid = d.oid),
                EXISTS (SELECT FROM pg_replication_slots WHERE database = d.datname AND active)
         FROM pg_database d WHERE datname = $1",
    )
    .bind(&database.name)
    .fetch_one(&mut *server)
    .await
    .map_err(Error::sql(doing))?;
    if slots {
        sqlx::query(
            "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots
             WHERE database = $1 AND active",
        )
        .bind(&database.name)
        .execute(&mut *server)
        .await
        .map_err(Error::sql(doing))?;
    }
    if !in_the_way {
        return Ok(());
    }
    // Both can be ended from within only. Event triggers go first, since they may forbid all that follows; on themselves
    // none fires.
    let mut inside = database.connect().await?;
    let statements: Vec<String> = sqlx::query_scalar(
        "SELECT format('DROP EVENT TRIGGER %I CASCADE', evtname) FROM pg_event_trigger
         WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_event_trigger'::regclass
             AND d.objid = pg_event_trigger.oid AND d.deptype = 'e')
         UNION ALL
         SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts
         WHERE database = current_database()
         UNION ALL
         SELECT format('ALTER SUBSCRIPTION %1$I DISABLE; ALTER SUBSCRIPTION %1$I SET (slot_name = NONE); DROP SUBSCRIPTION %1$I', subname)
         FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database()",
    )
    .fetch_all(&mut inside)
    .await
    .map_err(Error::sql(doing))?;
    for statement in statements {
        run(&mut inside, statement, doing).await?;
    }
    Ok(())
}

/// What ALTER DATABASE … RENAME waits for in vain. Sessions that end with it cannot finish them.
pub(crate) async fn roll_back_prepared(
    server: &mut PgConnection,
    database: &Database,
) -> Result<(), Error> {
    let doing = "roll back prepared transactions";
    let statements: Vec<String> = sqlx::query_scalar(
        "SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts WHERE database = $1",
    )
    .bind(&database.name)
    .fetch_all(server)
    .await
    .map_err(Error::sql(doing))?;
    if statements.is_empty() {
        return Ok(());
    }
    let mut inside = database.connect().await?;
    for statement in statements {
        run(&mut inside, statement, doing).await?;
    }
    Ok(())
}

/// Belongs to the database, so no dump carries it.
async fn grant_create(server: &mut PgConnection, name: &str) -> Result<(), Error> {
    let grant = format!(
        "GRANT CREATE ON DATABASE {} TO project_admin",
        quote_identifier(name)
    );
    run(server, grant, "grant CREATE on the database").await
}

/// How many objects one transaction of this server may lock, by its settings (manual, `max_locks_per_transaction`).
pub(crate) async fn lockable(connection: &mut PgConnection) -> Result<u64, Error> {
    let lockable: i64 = sqlx::query_scalar(
        "SELECT current_setting('max_locks_per_transaction')::bigint * (
                current_setting('max_connections')::bigint
                + current_setting('autovacuum_max_workers')::bigint + 1
                + current_setting('max_worker_processes')::bigint
                + current_setting('max_wal_senders')::bigint
                + current_setting('max_prepared_transactions')::bigint)",
    )
    .fetch_one(connection)
    .await
    .map_err(Error::sql("ask how many locks there are"))?;
    Ok(u64::try_from(lockable).unwrap_or_default())
}

/// Whether the server runs pg_cron, whose launcher a dropped database ends for good.
pub(crate) async fn has_cron_launcher(connection: &mut PgConnection) -> Result<bool, Error> {
    sqlx::query_scalar(
        "SELECT 'pg_cron' = ANY (string_to_array(
             replace(replace(current_setting('shared_preload_libraries'), ' ', ''), '\"', ''), ','))",
    )
    .fetch_one(connection)
    .await
    .map_err(Error::sql("ask for the preloaded libraries"))
}
