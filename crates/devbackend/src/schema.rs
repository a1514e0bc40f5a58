//! The database before the port opens: the database itself, the roles of the cluster, the
//! schema. Idempotent, and quick when there is nothing to do: a warm machine has it all done.

use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

use crate::{config::DatabaseConfig, error::Error};

/// The steps of the schema, in order; their names go to the ledger `system.migrations`. The real
/// server's ledger names its own files, so the two cannot take over each other's databases.
const STEPS: [(&str, &str); 1] = [("000_devbackend-base", include_str!("schema.sql"))];

/// Cluster-wide work is serialized through a lock in the database that every cluster has.
const MAINTENANCE_DATABASE: &str = "postgres";

const LEDGER: &str = "
    CREATE SCHEMA IF NOT EXISTS system;
    CREATE TABLE IF NOT EXISTS system.migrations (
        id serial PRIMARY KEY,
        name varchar(255) NOT NULL UNIQUE,
        run_on timestamp NOT NULL DEFAULT now()
    )";

const ROLES: &str = "
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'anon') THEN
            CREATE ROLE anon NOLOGIN;
        END IF;
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'authenticated') THEN
            CREATE ROLE authenticated NOLOGIN;
        END IF;
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'project_admin') THEN
            CREATE ROLE project_admin NOLOGIN BYPASSRLS;
        ELSIF NOT (SELECT rolbypassrls FROM pg_roles WHERE rolname = 'project_admin') THEN
            ALTER ROLE project_admin BYPASSRLS;
        END IF;
    END $$";

/// The roles that a backend's grants name, in the cluster of this superuser's connection: without
/// them no dump of one can be restored (contract/project-backend.md section 5.10). Those that are
/// there stay.
pub async fn create_roles(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(ROLES).execute(connection).await?;
    Ok(())
}

/// Makes the database named in the URL if it is missing, the roles and the schema. The agent
/// calls it ahead of time on a warm machine. `database_url` is a superuser's.
pub async fn migrate(database_url: &SecretString) -> Result<(), Error> {
    let options = PgConnectOptions::from_str(database_url.expose_secret())
        .map_err(|error| Error::DatabaseUrl(redact(error)))?;
    prepare_with(&options).await
}

pub(crate) async fn prepare(database: &DatabaseConfig) -> Result<(), Error> {
    prepare_with(&database.options()).await
}

async fn prepare_with(options: &PgConnectOptions) -> Result<(), Error> {
    let name = options.get_database().unwrap_or("insforge").to_owned();
    let mut maintenance = options
        .clone()
        .database(MAINTENANCE_DATABASE)
        .connect()
        .await?;
    let outcome = prepare_cluster(&mut maintenance, &name).await;
    // Closing politely is a courtesy; the outcome is what counts.
    let _ = maintenance.close().await;
    outcome?;

    let mut connection = options.clone().database(&name).connect().await?;
    let outcome = prepare_schema(&mut connection, &name).await;
    let _ = connection.close().await;
    Ok(outcome?)
}

/// Roles and database; under a session lock, since CREATE DATABASE takes no transaction.
async fn prepare_cluster(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    let ready: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)
            AND 3 = (SELECT count(*) FROM pg_roles
                     WHERE rolname IN ('anon', 'authenticated')
                        OR (rolname = 'project_admin' AND rolbypassrls))",
    )
    .bind(name)
    .fetch_one(&mut *connection)
    .await?;
    if ready {
        return Ok(());
    }
    sqlx::raw_sql("SELECT pg_advisory_lock(hashtext('insforge.devbackend'))")
        .execute(&mut *connection)
        .await?;
    create_roles(connection).await?;
    let exists: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(name)
            .fetch_one(&mut *connection)
            .await?;
    if !exists {
        sqlx::raw_sql(AssertSqlSafe(format!(
            "CREATE DATABASE {}",
            quote_identifier(name)
        )))
        .execute(&mut *connection)
        .await?;
    }
    Ok(()) // the lock ends with the session
}

async fn prepare_schema(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    // A restored database lacks this grant: it belongs to the database, not to its contents.
    let may_create: bool = sqlx::query_scalar(
        "SELECT has_database_privilege('project_admin', current_database(), 'CREATE')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if may_create && missing_steps(connection).await?.is_empty() {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql("SELECT pg_advisory_xact_lock(hashtext('system.migrations'))")
        .execute(&mut *transaction)
        .await?;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "GRANT CREATE ON DATABASE {} TO project_admin",
        quote_identifier(name)
    )))
    .execute(&mut *transaction)
    .await?;
    sqlx::raw_sql(LEDGER).execute(&mut *transaction).await?;
    for (step, sql) in missing_steps(&mut transaction).await? {
        sqlx::raw_sql(sql).execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO system.migrations (name) VALUES ($1)")
            .bind(step)
            .execute(&mut *transaction)
            .await?;
        tracing::info!(step, "schema step applied");
    }
    create_pgcrypto_where_available(&mut transaction).await?;
    transaction.commit().await
}

async fn missing_steps(
    connection: &mut PgConnection,
) -> Result<Vec<(&'static str, &'static str)>, sqlx::Error> {
    let has_ledger: bool =
        sqlx::query_scalar("SELECT to_regclass('system.migrations') IS NOT NULL")
            .fetch_one(&mut *connection)
            .await?;
    let applied: Vec<String> = if has_ledger {
        sqlx::query_scalar("SELECT name::text FROM system.migrations")
            .fetch_all(&mut *connection)
            .await?
    } else {
        Vec::new()
    };
    Ok(STEPS
        .into_iter()
        .filter(|(name, _)| !applied.iter().any(|done| done == name))
        .collect())
}

/// Some packagings of Postgres leave the contrib modules out; nothing here depends on them.
async fn create_pgcrypto_where_available(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let available: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pgcrypto')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if available {
        sqlx::raw_sql("CREATE EXTENSION IF NOT EXISTS pgcrypto SCHEMA public")
            .execute(connection)
            .await?;
    }
    Ok(())
}

pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A URL that does not parse must not be quoted in the error: it holds the password.
fn redact(_: sqlx::Error) -> sqlx::Error {
    sqlx::Error::Configuration("unreadable URL".into())
}
