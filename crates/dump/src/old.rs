//! The database that a restore replaces, kept beside the new one until that has proved itself: a reset that fails goes back
//! to where it came from (contract, "reset").

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    database::{Database, quote_identifier},
    error::Error,
    mark::{self, Mark},
    prepare::{self, run},
    restore::Restored,
};

const PREFIX: &str = "control_plane_before_";

/// What it is called while it is kept.
fn name(id: Uuid) -> String {
    format!("{PREFIX}{}", id.simple())
}

pub(crate) async fn is_kept(server: &mut PgConnection, id: Uuid) -> Result<bool, Error> {
    prepare::exists(server, &name(id)).await
}

/// Gives the database another name and ends all sessions in it. Until it is put back nobody enters it.
pub(crate) async fn keep(
    server: &mut PgConnection,
    database: &Database,
    id: Uuid,
) -> Result<(), Error> {
    // What earlier resets could not discard; in the way of nothing but the disk's space.
    let others = format!("datname <> '{}'", name(id));
    if let Err(error) = discard_where(server, &others).await {
        tracing::warn!(%error, "a database that an earlier reset kept is still there");
    }
    allow_connections(server, &database.name, true).await?;
    prepare::roll_back_prepared(server, database).await?;
    allow_connections(server, &database.name, false).await?;
    sqlx::query(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
         WHERE datname = $1 AND backend_type <> 'autovacuum worker'",
    )
    .bind(&database.name)
    .execute(&mut *server)
    .await
    .map_err(Error::sql("end the sessions in the old database"))?;
    rename(server, &database.name, &name(id)).await
}

/// Gives the kept database its name again, in the place of what a restore has made since. Without a kept one everything
/// stays as it is: it was not replaced yet, or is back already.
///
/// # Errors
/// [`Error::Incomplete`] when nothing was kept and what is there is no whole database.
pub async fn put_back(database: &Database, id: Uuid) -> Result<Restored, Error> {
    let mut server = database.maintenance().connect().await?;
    if is_kept(&mut server, id).await? {
        if prepare::exists(&mut server, &database.name).await? {
            prepare::drop(&mut server, database).await?;
        }
        rename(&mut server, &name(id), &database.name).await?;
    } else if !prepare::exists(&mut server, &database.name).await?
        || mark::find(&mut server, &database.name).await? == Some(Mark::Incomplete)
    {
        return Err(Error::Incomplete(database.describe()));
    }
    allow_connections(&mut server, &database.name, true).await?;
    Ok(Restored {
        restart_postgres: prepare::has_cron_launcher(&mut server).await?,
    })
}

/// What `read` finds in the kept database; none when none is kept. It lets us in and then nobody again, whatever comes.
pub(crate) async fn read_kept<T, F>(
    database: &Database,
    id: Uuid,
    read: impl FnOnce(PgConnection) -> F,
) -> Result<Option<T>, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut server = database.maintenance().connect().await?;
    if !is_kept(&mut server, id).await? {
        return Ok(None);
    }
    let kept = Database {
        name: name(id),
        ..database.clone()
    };
    allow_connections(&mut server, &kept.name, true).await?;
    let found = async { read(kept.connect().await?).await }.await;
    allow_connections(&mut server, &kept.name, false).await?;
    found.map(Some)
}

/// Drops what was kept. There is no way back after it.
pub async fn discard_kept(database: &Database) -> Result<(), Error> {
    let mut server = database.maintenance().connect().await?;
    discard_where(&mut server, "true").await
}

async fn discard_where(server: &mut PgConnection, condition: &str) -> Result<(), Error> {
    let query = format!(
        "SELECT datname::text FROM pg_database WHERE starts_with(datname, '{PREFIX}') AND {condition}"
    );
    let kept: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
        .fetch_all(&mut *server)
        .await
        .map_err(Error::sql("look for databases that were kept"))?;
    for name in kept {
        let drop = format!(
            "DROP DATABASE IF EXISTS {} WITH (FORCE)",
            quote_identifier(&name)
        );
        run(server, drop, "drop the database that was kept").await?;
    }
    Ok(())
}

async fn rename(server: &mut PgConnection, from: &str, to: &str) -> Result<(), Error> {
    let rename = format!(
        "ALTER DATABASE {} RENAME TO {}",
        quote_identifier(from),
        quote_identifier(to)
    );
    run(server, rename, "rename the database").await
}

async fn allow_connections(
    server: &mut PgConnection,
    name: &str,
    allow: bool,
) -> Result<(), Error> {
    let alter = format!(
        "ALTER DATABASE {} WITH ALLOW_CONNECTIONS {allow}",
        quote_identifier(name)
    );
    run(server, alter, "close the database, or open it").await
}
