//! Reading the configuration of one database.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::{
    Here, Migration, Row, Rows, Sealed,
    tables::{TABLES, Table},
};
use crate::Error;

pub(crate) const LEDGER: &str = "system.custom_migrations";

/// Which of the tables are there, and with which columns: releases differ.
const COLUMNS: &str = "
    SELECT n.nspname || '.' || c.relname AS name, array_agg(a.attname::text) AS columns
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname = ANY ($1)
    GROUP BY 1";

/// Whether this is a database of the product, and not just any Postgres.
pub async fn is_product(conn: &mut PgConnection) -> Result<bool, Error> {
    sqlx::query_scalar(
        "SELECT pg_catalog.to_regprocedure('system.is_exposed_schema(text)') IS NOT NULL",
    )
    .fetch_one(conn)
    .await
    .map_err(Error::while_doing("look for the product's schema"))
}

/// All configuration; none on a database that is not one of the product. Runs inside the caller's transaction if there
/// is one.
pub async fn read(conn: &mut PgConnection) -> Result<Option<Rows>, Error> {
    if !is_product(conn).await? {
        return Ok(None);
    }
    let there = columns(conn).await?;
    let mut rows = Rows::default();
    for table in TABLES {
        if let Some(columns) = there.get(&table.qualified()) {
            rows.tables
                .insert(table.qualified(), read_table(conn, table, columns).await?);
        }
    }
    if there.contains_key(LEDGER) {
        rows.migrations = read_ledger(conn).await?;
    }
    rows.here = read_here(conn, &there).await?;
    Ok(Some(rows))
}

/// Values of a row; none is null.
type Texts = Vec<Option<String>>;
type Columns = BTreeMap<String, BTreeSet<String>>;

async fn columns(conn: &mut PgConnection) -> Result<Columns, Error> {
    let names: Vec<String> = TABLES
        .iter()
        .map(Table::qualified)
        .chain([LEDGER.to_owned(), "system.secrets".to_owned()])
        .collect();
    let found: Vec<(String, Vec<String>)> = sqlx::query_as(COLUMNS)
        .bind(names)
        .fetch_all(conn)
        .await
        .map_err(Error::while_doing("look for configuration tables"))?;
    Ok(found
        .into_iter()
        .map(|(table, columns)| (table, columns.into_iter().collect()))
        .collect())
}

async fn read_table(
    conn: &mut PgConnection,
    table: &Table,
    there: &BTreeSet<String>,
) -> Result<BTreeMap<String, Row>, Error> {
    let carried: Vec<&str> = table
        .columns
        .iter()
        .copied()
        .filter(|column| there.contains(*column))
        .collect();
    let sql = format!(
        "SELECT ARRAY[{}]::text[], ARRAY[{}]::text[] FROM {}",
        as_texts(table.key),
        as_texts(&carried),
        table.qualified()
    );
    let found: Vec<(Texts, Texts)> = sqlx::query_as(AssertSqlSafe(sql))
        .fetch_all(conn)
        .await
        .map_err(Error::while_doing(format!("read {}", table.qualified())))?;
    Ok(found
        .into_iter()
        .map(|(key, values)| {
            let values = carried
                .iter()
                .map(|c| (*c).to_owned())
                .zip(values)
                .collect();
            (name_of(&key), Row { key, values })
        })
        .collect())
}

/// Identifiers of [`TABLES`] only: nothing to quote but `key` and `public`, which are no reserved words.
fn as_texts(columns: &[&str]) -> String {
    let texts: Vec<String> = columns.iter().map(|c| format!("{c}::text")).collect();
    texts.join(", ")
}

/// The parts, with dots between them: in all but the last one, dots of their own are told apart. An empty part and none
/// are the same, as for the unique indexes.
fn name_of(key: &[Option<String>]) -> String {
    let last = key.len().saturating_sub(1);
    let parts: Vec<String> = key
        .iter()
        .enumerate()
        .filter_map(|(place, part)| Some((place, part.as_ref()?)))
        .filter(|(_, part)| !part.is_empty())
        .map(|(place, part)| {
            if place == last {
                part.clone()
            } else {
                part.replace('\\', "\\\\").replace('.', "\\.")
            }
        })
        .collect();
    parts.join(".")
}

async fn read_ledger(conn: &mut PgConnection) -> Result<BTreeMap<String, Migration>, Error> {
    let found: Vec<(String, String, Vec<String>, String)> = sqlx::query_as(
        "SELECT version::text, name::text, statements::text[],
                pg_catalog.to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
         FROM system.custom_migrations",
    )
    .fetch_all(conn)
    .await
    .map_err(Error::while_doing("read the ledger of migrations"))?;
    Ok(found
        .into_iter()
        .map(|(version, name, statements, created_at)| {
            let migration = Migration {
                version: version.clone(),
                name,
                statements,
                created_at,
            };
            (version, migration)
        })
        .collect())
}

async fn read_here(conn: &mut PgConnection, there: &Columns) -> Result<Here, Error> {
    let has = |table: &str, column: &str| {
        there
            .get(table)
            .is_some_and(|columns| columns.contains(column))
    };
    let failed = "read what configuration depends on";
    let mut here = Here {
        stamped: there
            .iter()
            .filter(|(_, columns)| columns.contains("updated_at"))
            .map(|(table, _)| table.clone())
            .collect(),
        ..Here::default()
    };
    if has("system.secrets", "key") {
        let keys: Vec<String> = sqlx::query_scalar(
            "SELECT key::text FROM system.secrets WHERE key ILIKE 'CUSTOM\\_OAUTH\\_%\\_CLIENT\\_SECRET'",
        )
        .fetch_all(&mut *conn)
        .await
        .map_err(Error::while_doing(failed))?;
        here.secrets = keys.into_iter().collect();
    }
    if there.contains_key("email.config") {
        // Of releases that lack the column nothing is known: no row matches.
        here.email_has_password = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM email.config c
                            WHERE pg_catalog.to_jsonb(c) ->> 'password_encrypted' <> '')",
        )
        .fetch_one(&mut *conn)
        .await
        .map_err(Error::while_doing(failed))?;
    }
    if has("schedules.jobs", "encrypted_headers") {
        let found = sqlx::query(
            "SELECT id::text AS id, encrypted_headers::text AS headers
             FROM schedules.jobs WHERE encrypted_headers IS NOT NULL",
        )
        .fetch_all(&mut *conn)
        .await
        .map_err(Error::while_doing(failed))?;
        here.encrypted_headers = found
            .iter()
            .map(|row| (row.get("id"), Sealed(row.get("headers"))))
            .collect();
    }
    here.schedules = sqlx::query_scalar(
        "SELECT pg_catalog.to_regprocedure('schedules.enable_job(uuid)') IS NOT NULL
            AND pg_catalog.to_regprocedure('schedules.disable_job(uuid)') IS NOT NULL",
    )
    .fetch_one(conn)
    .await
    .map_err(Error::while_doing(failed))?;
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn names_of_rows_do_not_meet() {
        let name = |parts: [&str; 2]| name_of(&parts.map(|part| Some(part.to_owned())));
        assert_eq!(name(["rule", "public.t"]), "rule.public.t");
        assert_ne!(name(["a.b", "c"]), name(["a", "b.c"]));
        assert_eq!(name(["a", ""]), name_of(&[Some("a".to_owned()), None]));
        assert_eq!(name_of(&[Some("x.y".to_owned())]), "x.y");
    }
}
