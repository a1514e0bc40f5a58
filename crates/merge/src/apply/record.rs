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

/// Inside the caller's transaction. The table belongs to the schema `system`, which only the product's databases have.
pub(super) async fn write(conn: &mut PgConnection, record: &Record) -> Result<(), Error> {
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
        .execute(conn)
        .await
        .map_err(Error::while_doing("record the merge"))?;
    Ok(())
}
