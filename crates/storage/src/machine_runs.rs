//! The stretches of time in which machines ran for projects: the exact source of compute seconds.

use chrono::{DateTime, Utc};
use cp_model::usage::DAY;
use cp_model::{MachineId, ProjectId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StorageResult;

/// Opens a run unless the machine has an open one. Tells whether it did.
///
/// The run counts for the project's partner from its second on: see [`crate::usage`].
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
    .execute(&mut *conn)
    .await?;
    let is_new = done.rows_affected() == 1;
    if is_new {
        count_change(conn, project.0, Change::Start, now).await?;
    }
    Ok(is_new)
}

/// Closes the machine's open run. Tells whether it had one. A clock that went back closes it at its
/// start.
pub async fn close_run(
    conn: &mut PgConnection,
    machine: MachineId,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let closed = sqlx::query!(
        r#"update machine_runs set stopped_at = greatest($2, started_at)
           where machine_id = $1 and stopped_at is null
           returning project_id, stopped_at as "stopped_at!""#,
        machine.0,
        now
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(run) = &closed {
        count_change(conn, run.project_id, Change::Stop, run.stopped_at).await?;
    }
    Ok(closed.is_some())
}

#[derive(Clone, Copy)]
enum Change {
    Start,
    Stop,
}

/// Counts a start or a stop on its day, for the project's partner.
async fn count_change(
    conn: &mut PgConnection,
    project: Uuid,
    change: Change,
    at: DateTime<Utc>,
) -> StorageResult<()> {
    let second = at.timestamp().rem_euclid(DAY);
    let (starts, start_seconds, stops, stop_seconds) = match change {
        Change::Start => (1, second, 0, 0),
        Change::Stop => (0, 0, 1, second),
    };
    sqlx::query!(
        "insert into usage_partner_daily as d (partner_id, day, lane, run_starts, run_start_seconds, run_stops, run_stop_seconds, newest_run_change)
         select partner_id, $2, usage_lane(), $3, $4, $5, $6, $7 from projects where id = $1 and partner_id is not null
         on conflict (partner_id, day, lane) do update set
             run_starts = d.run_starts + excluded.run_starts, run_start_seconds = d.run_start_seconds + excluded.run_start_seconds,
             run_stops = d.run_stops + excluded.run_stops, run_stop_seconds = d.run_stop_seconds + excluded.run_stop_seconds,
             newest_run_change = greatest(d.newest_run_change, excluded.newest_run_change)",
        project,
        at.date_naive(),
        starts,
        start_seconds,
        stops,
        stop_seconds,
        at
    )
    .execute(conn)
    .await?;
    Ok(())
}
