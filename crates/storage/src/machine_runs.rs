//! The stretches of time in which machines ran for projects: the exact source of compute seconds.

use chrono::{DateTime, Utc};
use cp_model::{MachineId, ProjectId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StorageResult;

/// Opens a run unless the machine has an open one. Tells whether it did.
pub async fn open_run(
    conn: &mut PgConnection,
    machine: MachineId,
    project: ProjectId,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "insert into machine_runs (id, machine_id, project_id, started_at) values ($1, $2, $3, $4)
         on conflict (machine_id) where stopped_at is null do nothing",
        Uuid::now_v7(),
        machine.0,
        project.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Closes the machine's open run, if it has one. A clock that went back closes it at its start.
pub async fn close_run(
    conn: &mut PgConnection,
    machine: MachineId,
    now: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "update machine_runs set stopped_at = greatest($2, started_at) where machine_id = $1 and stopped_at is null",
        machine.0,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}
