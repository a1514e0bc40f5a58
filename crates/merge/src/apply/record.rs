//! A row in the parent that says which merges were done, written in their own transaction: whoever lost the answer to
//! a commit finds it there.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{Error, config, session::run};

/// Written with the merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub id: Uuid,
}

/// Whether the merge with this id was committed on this database.
pub async fn is_recorded(conn: &mut PgConnection, id: Uuid) -> Result<bool, Error> {
    let failed = "look for the record of a merge";
    let there: bool = sqlx::query_scalar(
        "SELECT pg_catalog.to_regclass('system.control_plane_merges') IS NOT NULL",
    )
    .fetch_one(&mut *conn)
    .await
    .map_err(Error::while_doing(failed))?;
    if !there {
        return Ok(false);
    }
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM system.control_plane_merges WHERE id = $1)")
        .bind(id)
        .fetch_one(conn)
        .await
        .map_err(Error::while_doing(failed))
}

/// What a recorded online merge has not done yet after its commit, by name, as `index public.users_email`. An
/// [`apply`](crate::apply) with its record and `online` does it, with a plan of then or of now.
pub async fn unfinished(conn: &mut PgConnection, id: Uuid) -> Result<Vec<String>, Error> {
    // The column is there from the first online merge on.
    sqlx::query_scalar(
        "SELECT ARRAY(SELECT pg_catalog.jsonb_array_elements_text(pg_catalog.to_jsonb(m) -> 'unfinished'))
         FROM system.control_plane_merges m WHERE id = $1",
    )
    .bind(id)
    .fetch_one(conn)
    .await
    .map_err(Error::while_doing("read what a merge left unfinished"))
}

/// Inside the caller's transaction, with what is to be done after it. The table belongs to the schema `system`, which only the
/// product's databases have.
pub(super) async fn write(
    conn: &mut PgConnection,
    record: &Record,
    unfinished: &[String],
) -> Result<(), Error> {
    if !config::is_product(conn).await? {
        return Err(Error::Unexpected(
            "a merge is recorded in the product's schema `system`, which this database lacks"
                .to_owned(),
        ));
    }
    run(
        conn,
        "CREATE TABLE IF NOT EXISTS system.control_plane_merges \
         (id pg_catalog.uuid PRIMARY KEY, merged_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now())",
    )
    .await?;
    sqlx::query("INSERT INTO system.control_plane_merges (id) VALUES ($1)")
        .bind(record.id)
        .execute(&mut *conn)
        .await
        .map_err(Error::while_doing("record the merge"))?;
    if unfinished.is_empty() {
        return Ok(());
    }
    // Made for earlier releases' tables, too.
    run(
        conn,
        "ALTER TABLE system.control_plane_merges \
         ADD COLUMN IF NOT EXISTS unfinished pg_catalog.text[] NOT NULL DEFAULT '{}'",
    )
    .await?;
    leave(conn, record, unfinished).await
}

/// What the merge has not done yet.
pub(super) async fn leave(
    conn: &mut PgConnection,
    record: &Record,
    unfinished: &[String],
) -> Result<(), Error> {
    sqlx::query("UPDATE system.control_plane_merges SET unfinished = $2 WHERE id = $1")
        .bind(record.id)
        .bind(unfinished)
        .execute(conn)
        .await
        .map_err(Error::while_doing("record what the merge left unfinished"))?;
    Ok(())
}
