//! The mark on a database that a restore is under way, kept as the comment on the database.
//!
//! A restore is not always one transaction (see `restore`), and what recreates the database cannot be one. The mark is
//! set before the first change and taken over by another one after the last, so whoever finds a database after a crash
//! knows whether it is whole. The comment belongs to the database, not to its contents: no dump carries it.

use sqlx::{AssertSqlSafe, PgConnection};

use crate::{
    database::{Database, quote_identifier, quote_literal},
    error::Error,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Incomplete,
    Complete,
}

const INCOMPLETE: &str = "InsForge control plane: restore under way";
const COMPLETE: &str = "InsForge control plane: restored";

/// Whether a restore of this database began and did not end.
pub async fn is_incomplete(database: &Database) -> Result<bool, Error> {
    let mut connection = database.connect().await?;
    Ok(find(&mut connection, &database.name).await? == Some(Mark::Incomplete))
}

/// The mark of a database of this server.
pub(crate) async fn find(
    connection: &mut PgConnection,
    database: &str,
) -> Result<Option<Mark>, Error> {
    let comment: Option<String> = sqlx::query_scalar(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1",
    )
    .bind(database)
    .fetch_optional(connection)
    .await
    .map_err(Error::sql("look whether a restore is under way"))?
    .flatten();
    Ok(match comment.as_deref() {
        Some(INCOMPLETE) => Some(Mark::Incomplete),
        Some(COMPLETE) => Some(Mark::Complete),
        _ => None,
    })
}

/// Durable when it returns, and everything before it: the restore itself does not wait for the disk.
pub(crate) async fn set(
    connection: &mut PgConnection,
    database: &str,
    mark: Mark,
) -> Result<(), Error> {
    let text = match mark {
        Mark::Incomplete => INCOMPLETE,
        Mark::Complete => COMPLETE,
    };
    let statement = format!(
        "SET synchronous_commit = on; COMMENT ON DATABASE {} IS {}",
        quote_identifier(database),
        quote_literal(text)
    );
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(connection)
        .await
        .map_err(Error::sql("mark the database"))?;
    Ok(())
}
