//! A snapshot that several sessions share.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{
    database::{Database, quote_literal},
    error::Error,
    roles::{self, Role},
};

/// A read-only transaction that shows the database as it was at one moment, for [`dump()`](crate::dump()) and for what
/// the caller reads through [`connection`](Self::connection). It locks nothing that the database's users would notice,
/// but keeps vacuum from removing rows: close it soon after the dump.
pub struct Exported {
    connection: PgConnection,
    name: String,
}

impl Exported {
    pub async fn open(database: &Database) -> Result<Self, Error> {
        let mut connection = database.connect().await?;
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut connection)
            .await
            .map_err(Error::sql("begin the exported snapshot"))?;
        let name = sqlx::query_scalar("SELECT pg_export_snapshot()")
            .fetch_one(&mut connection)
            .await
            .map_err(Error::sql("export a snapshot"))?;
        Ok(Self { connection, name })
    }

    /// For [`dump()`](crate::dump()); good until [`close`](Self::close) or until this connection breaks.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The session that holds the snapshot, within its transaction. A statement that fails ends the transaction, and the
    /// snapshot with it.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// The roles beside the release's own that the database's objects name: for [`make_roles`](crate::make_roles()) on a
    /// new machine. Without them an archive that names them cannot be restored.
    pub async fn roles(&mut self) -> Result<Vec<Role>, Error> {
        roles::named_in(&mut self.connection).await
    }

    pub async fn close(mut self) -> Result<(), Error> {
        sqlx::raw_sql("COMMIT")
            .execute(&mut self.connection)
            .await
            .map_err(Error::sql("end the exported snapshot"))?;
        // Nothing is lost if the farewell is.
        let _ = self.connection.close().await;
        Ok(())
    }
}

/// A session that sees what the snapshot shows; without a name, one of its own.
pub(crate) async fn join(
    database: &Database,
    snapshot: Option<&str>,
) -> Result<PgConnection, Error> {
    let mut connection = database.connect().await?;
    let mut begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".to_owned();
    if let Some(name) = snapshot {
        begin.push_str("; SET TRANSACTION SNAPSHOT ");
        begin.push_str(&quote_literal(name));
    }
    match sqlx::raw_sql(AssertSqlSafe(begin))
        .execute(&mut connection)
        .await
    {
        Ok(_) => Ok(connection),
        Err(sqlx::Error::Database(_)) if snapshot.is_some() => Err(Error::SnapshotGone),
        Err(error) => Err(Error::sql("begin a snapshot")(error)),
    }
}

/// The server's major version, e.g. 15.
pub(crate) async fn server_version(connection: &mut PgConnection) -> Result<u32, Error> {
    let number: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
        .fetch_one(connection)
        .await
        .map_err(Error::sql("ask for the server's version"))?;
    Ok(u32::try_from(number / 10_000).unwrap_or_default())
}
