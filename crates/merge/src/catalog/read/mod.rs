//! Reads a database's system catalogs into a [`Catalog`]: one query per kind, however many objects there are.
//!
//! The queries live next to what they read (`schemas`, `types`, `relations`, …), in the order in which [`attempt`]
//! calls them: later ones look up what earlier ones found.

mod dependencies;
mod fingerprint;
mod keys;
mod notes;
mod parts;
mod privileges;
mod reader;
mod relations;
mod routines;
mod schemas;
mod types;
mod unmodelled;

use sqlx::{Connection, PgConnection, Row};

use crate::{catalog::Catalog, error::Error};
use fingerprint::{Fingerprint, fingerprint, is_quiet};
use reader::Reader;

/// What decides how Postgres prints its own expressions (merge-engine, "Snapshot"), and what makes the wide queries below
/// slower: `jit` compiles them for longer than they run, and each parallel worker fills caches of its own.
const SETTINGS: [(&str, &str); 8] = [
    ("search_path", ""),
    ("timezone", "UTC"),
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("extra_float_digits", "1"),
    ("quote_all_identifiers", "off"),
    ("jit", "off"),
    ("max_parallel_workers_per_gather", "0"),
];

/// Reads that may be disturbed, until it is given up.
const READS: u32 = 6;

/// Reads all facts in the session given, as they are at one moment. `pg_get_*def` sees what commits while it runs, whatever
/// the transaction's snapshot is: so nothing was committed meanwhile ([`is_quiet`]), or not to the catalogs ([`fingerprint`]),
/// or two reads are equal (where others make temporary tables all the time).
///
/// Runs inside the caller's transaction if there is one. The session's settings are as before in the end.
///
/// # Errors
/// [`Error::Database`]; [`Error::Unsettled`] when somebody changes the schema all the time.
pub async fn read(conn: &mut PgConnection) -> Result<Catalog, Error> {
    if let Some(isolation) = transaction(conn).await? {
        let before = settings(conn).await?;
        set(
            conn,
            &SETTINGS.map(|(name, value)| (name, value.to_owned())),
        )
        .await?;
        let catalog = settled(conn, isolation == "read committed").await?;
        set(conn, &before).await?;
        return Ok(catalog);
    }
    let mut last: Option<Catalog> = None;
    for _ in 0..READS {
        let (now, before) = match alone(conn).await {
            Ok(read) => read,
            Err(error) if vanished(&error) => {
                last = None;
                continue;
            }
            Err(error) => return Err(error),
        };
        let undisturbed = match before {
            Some(before) => fingerprint(conn).await?.rows == before.rows,
            None => true,
        };
        if undisturbed || last.is_some_and(|last| last.facts == now.facts) {
            return Ok(now);
        }
        last = Some(now);
    }
    Err(Error::Unsettled { reads: READS })
}

/// One read, in a transaction of its own, and what the catalogs held when that began; none where nothing was committed since.
async fn alone(conn: &mut PgConnection) -> Result<(Catalog, Option<Fingerprint>), Error> {
    let mut transaction = conn
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await
        .map_err(Error::while_doing("begin to read the schema"))?;
    set(
        &mut transaction,
        &SETTINGS.map(|(name, value)| (name, value.to_owned())),
    )
    .await?;
    let read = async {
        let now = attempt(&mut transaction).await?;
        if is_quiet(&mut transaction).await? {
            return Ok((now, None));
        }
        // Sees what the transaction saw first.
        let before = fingerprint(&mut transaction).await?;
        Ok((now, Some(before)))
    }
    .await;
    transaction
        .rollback()
        .await
        .map_err(Error::while_doing("end the reading of the schema"))?;
    read
}

/// In the caller's transaction. Only where it `sees_commits` of others does a fingerprint tell something.
async fn settled(conn: &mut PgConnection, sees_commits: bool) -> Result<Catalog, Error> {
    let mut last: Option<Catalog> = None;
    for _ in 0..READS {
        let before = if sees_commits {
            Some(fingerprint(conn).await?)
        } else {
            None
        };
        let now = attempt(conn).await?;
        let undisturbed = match &before {
            Some(before) => before.again(conn).await?.rows == before.rows,
            None => false,
        };
        if undisturbed || last.is_some_and(|last| last.facts == now.facts) {
            return Ok(now);
        }
        last = Some(now);
    }
    Err(Error::Unsettled { reads: READS })
}

async fn attempt(conn: &mut PgConnection) -> Result<Catalog, Error> {
    let mut reader = Reader::start(conn).await?;
    schemas::schemas(&mut reader).await?;
    schemas::extensions(&mut reader).await?;
    schemas::collations(&mut reader).await?;
    types::enums(&mut reader).await?;
    types::domains(&mut reader).await?;
    types::composites(&mut reader).await?;
    types::ranges(&mut reader).await?;
    relations::tables(&mut reader).await?;
    relations::columns(&mut reader).await?;
    relations::sequences(&mut reader).await?;
    relations::views(&mut reader).await?;
    routines::routines(&mut reader).await?;
    parts::constraints(&mut reader).await?;
    parts::indexes(&mut reader).await?;
    parts::statistics(&mut reader).await?;
    parts::rules(&mut reader).await?;
    parts::triggers(&mut reader).await?;
    parts::policies(&mut reader).await?;
    notes::publications(&mut reader).await?;
    notes::event_triggers(&mut reader).await?;
    privileges::grants(&mut reader).await?;
    privileges::defaults(&mut reader).await?;
    notes::comments(&mut reader).await?;
    dependencies::dependencies(&mut reader).await?;
    unmodelled::unmodelled(&mut reader).await?;
    Ok(reader.finish())
}

/// `pg_get_*def` fails for what somebody drops while it is read (`cache lookup failed`, an internal error).
fn vanished(error: &Error) -> bool {
    error
        .sqlstate()
        .is_some_and(|state| state == "XX000" || state.starts_with("42"))
}

/// The isolation level of the caller's transaction; none outside of one.
///
/// Asked with the simple protocol: there, a statement outside of a transaction begins its own, at its own time.
async fn transaction(conn: &mut PgConnection) -> Result<Option<String>, Error> {
    let row = sqlx::raw_sql(
        "SELECT CASE WHEN now() <> statement_timestamp() THEN current_setting('transaction_isolation') END",
    )
    .fetch_one(&mut *conn)
    .await
    .map_err(Error::while_doing("look for a transaction"))?;
    row.try_get(0)
        .map_err(Error::while_doing("look for a transaction"))
}

async fn settings(conn: &mut PgConnection) -> Result<Vec<(&'static str, String)>, Error> {
    let names = SETTINGS.map(|(name, _)| name);
    let values: Vec<String> = sqlx::query_scalar(
        "SELECT current_setting(s.name) FROM unnest($1::text[]) WITH ORDINALITY AS s(name, number) ORDER BY number",
    )
    .bind(names.as_slice())
    .fetch_all(conn)
    .await
    .map_err(Error::while_doing("read the session's settings"))?;
    Ok(names.into_iter().zip(values).collect())
}

/// For the rest of the transaction.
async fn set(conn: &mut PgConnection, settings: &[(&'static str, String)]) -> Result<(), Error> {
    let (names, values): (Vec<&str>, Vec<&str>) = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .unzip();
    sqlx::query("SELECT set_config(s.name, s.value, true) FROM unnest($1::text[], $2::text[]) AS s(name, value)")
        .bind(names)
        .bind(values)
        .execute(conn)
        .await
        .map_err(Error::while_doing("set what decides how texts read"))?;
    Ok(())
}
