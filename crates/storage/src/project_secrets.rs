//! The sealed secrets of a project's backend. The domain seals and opens them.

use chrono::{DateTime, Utc};
use cp_model::ProjectId;
use sqlx::PgConnection;

use crate::error::StorageResult;

/// Keeps all secrets of a new project in one statement.
pub async fn insert_secrets(
    conn: &mut PgConnection,
    project: ProjectId,
    sealed: &[(String, Vec<u8>)],
    now: DateTime<Utc>,
) -> StorageResult<()> {
    let kinds: Vec<String> = sealed.iter().map(|(kind, _)| kind.clone()).collect();
    let values: Vec<Vec<u8>> = sealed.iter().map(|(_, value)| value.clone()).collect();
    sqlx::query!(
        "insert into project_secrets (project_id, kind, sealed, created_at)
         select $1, kind, sealed, $4 from unnest($2::text[], $3::bytea[]) as t (kind, sealed)",
        project.0,
        &kinds,
        &values,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn list_secrets(
    conn: &mut PgConnection,
    project: ProjectId,
) -> StorageResult<Vec<(String, Vec<u8>)>> {
    let rows = sqlx::query!(
        "select kind, sealed from project_secrets where project_id = $1",
        project.0
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|r| (r.kind, r.sealed)).collect())
}

pub async fn find_secret(
    conn: &mut PgConnection,
    project: ProjectId,
    kind: &str,
) -> StorageResult<Option<Vec<u8>>> {
    Ok(sqlx::query_scalar!(
        "select sealed from project_secrets where project_id = $1 and kind = $2",
        project.0,
        kind
    )
    .fetch_optional(conn)
    .await?)
}

/// The backend has another one now.
pub async fn replace_secret(
    conn: &mut PgConnection,
    project: ProjectId,
    kind: &str,
    sealed: &[u8],
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update project_secrets set sealed = $3 where project_id = $1 and kind = $2",
        project.0,
        kind,
        sealed
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// When a project is deleted, what it kept secret is forgotten.
pub async fn delete_secrets(conn: &mut PgConnection, project: ProjectId) -> StorageResult<()> {
    sqlx::query!(
        "delete from project_secrets where project_id = $1",
        project.0
    )
    .execute(conn)
    .await?;
    Ok(())
}
