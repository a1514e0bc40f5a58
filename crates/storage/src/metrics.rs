//! How busy projects' machines were: two rings per project, of a day of minutes and of a week of ten minutes each. A
//! slot is overwritten when its time comes round again, so nothing has to be thrown away, and a project's rows are as
//! many as they will ever be.

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::agent_protocol::MachineSample;
use cp_model::{MachineId, ProjectId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StorageResult;

/// One of the rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// Minutes of the last 24 hours.
    Day,
    /// Ten minutes each, of the last seven days.
    Week,
}

impl Ring {
    /// How long a slot is, in minutes, and how many there are.
    const fn shape(self) -> (i16, i64) {
        match self {
            Self::Day => (1, 24 * 60),
            Self::Week => (10, 7 * 24 * 6),
        }
    }

    /// The slot that a moment falls into, and when that began.
    fn slot(self, at: DateTime<Utc>) -> (i16, DateTime<Utc>) {
        let (minutes, slots) = self.shape();
        let number = at.timestamp().div_euclid(i64::from(minutes) * 60);
        let begin = DateTime::from_timestamp(number * i64::from(minutes) * 60, 0);
        let slot = i16::try_from(number.rem_euclid(slots)).unwrap_or_default();
        (slot, begin.unwrap_or(at))
    }
}

/// Counts a sample in: a slot holds the mean of its samples.
pub async fn add_sample(
    conn: &mut PgConnection,
    project: ProjectId,
    machine: MachineId,
    sample: &MachineSample,
    at: DateTime<Utc>,
) -> StorageResult<()> {
    let rings = [Ring::Day, Ring::Week];
    let minutes = rings.map(|ring| ring.shape().0);
    let slots = rings.map(|ring| ring.slot(at).0);
    let begins = rings.map(|ring| ring.slot(at).1);
    sqlx::query!(
        "insert into project_metrics as m (project_id, machine_id, minutes, slot, at, samples, cpu_usage, memory_usage,
                                           disk_usage, network_in, network_out)
         select $1, $2, r.minutes, r.slot, r.at, 1, $6, $7, $8, $9, $10
         from unnest($3::smallint[], $4::smallint[], $5::timestamptz[]) as r (minutes, slot, at)
         on conflict (project_id, minutes, slot) do update set
             machine_id = excluded.machine_id,
             at = excluded.at,
             samples = case when m.at = excluded.at then m.samples + 1 else 1 end,
             cpu_usage = excluded.cpu_usage + case when m.at = excluded.at
                 then (m.cpu_usage - excluded.cpu_usage) * m.samples / (m.samples + 1) else 0 end,
             memory_usage = excluded.memory_usage + case when m.at = excluded.at
                 then (m.memory_usage - excluded.memory_usage) * m.samples / (m.samples + 1) else 0 end,
             disk_usage = excluded.disk_usage + case when m.at = excluded.at
                 then (m.disk_usage - excluded.disk_usage) * m.samples / (m.samples + 1) else 0 end,
             network_in = excluded.network_in + case when m.at = excluded.at
                 then (m.network_in - excluded.network_in) * m.samples / (m.samples + 1) else 0 end,
             network_out = excluded.network_out + case when m.at = excluded.at
                 then (m.network_out - excluded.network_out) * m.samples / (m.samples + 1) else 0 end
         where m.at <= excluded.at or m.at > excluded.at + interval '2 minutes'",
        project.0,
        machine.0,
        &minutes,
        &slots,
        &begins,
        sample.cpu_usage,
        sample.memory_usage,
        sample.disk_usage,
        sample.network_in,
        sample.network_out
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A slot of a ring.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsSlot {
    /// When it began.
    pub at: DateTime<Utc>,
    pub machine: MachineId,
    pub mean: MachineSample,
}

/// The slots that began within, the oldest first.
pub async fn list_metrics(
    conn: &mut PgConnection,
    project: ProjectId,
    ring: Ring,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
) -> StorageResult<Vec<MetricsSlot>> {
    let rows = sqlx::query!(
        "select at, machine_id, cpu_usage, memory_usage, disk_usage, network_in, network_out from project_metrics
         where project_id = $1 and minutes = $2 and at between $3 and $4 order by at",
        project.0,
        ring.shape().0,
        since,
        until
    )
    .fetch_all(conn)
    .await?;
    let slots = rows.into_iter().map(|row| MetricsSlot {
        at: row.at,
        machine: MachineId(row.machine_id),
        mean: MachineSample {
            cpu_usage: row.cpu_usage,
            memory_usage: row.memory_usage,
            disk_usage: row.disk_usage,
            network_in: row.network_in,
            network_out: row.network_out,
        },
    });
    Ok(slots.collect())
}

/// What the last day's minutes tell of a machine that may be down.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricsHealth {
    /// When the newest minute began; none: there is none.
    pub last_at: Option<DateTime<Utc>>,
    /// In percent, in that minute.
    pub last_memory_usage: Option<f64>,
    /// How often two minutes with samples were further apart than `gap`.
    pub gaps: i64,
}

pub async fn find_health(
    conn: &mut PgConnection,
    project: ProjectId,
    since: DateTime<Utc>,
    gap: TimeDelta,
) -> StorageResult<MetricsHealth> {
    let row = sqlx::query!(
        r#"select max(at) as last_at, (array_agg(memory_usage order by at desc))[1] as last_memory_usage,
                  count(*) filter (where at - before > make_interval(secs => $3)) as "gaps!"
           from (select at, memory_usage, lag(at) over (order by at) as before from project_metrics
                 where project_id = $1 and minutes = 1 and at >= $2) minutes"#,
        project.0,
        since,
        gap.as_seconds_f64()
    )
    .fetch_one(conn)
    .await?;
    Ok(MetricsHealth {
        last_at: row.last_at,
        last_memory_usage: row.last_memory_usage,
        gaps: row.gaps,
    })
}

pub async fn delete_metrics(conn: &mut PgConnection, project: ProjectId) -> StorageResult<()> {
    let project: Uuid = project.0;
    sqlx::query!("delete from project_metrics where project_id = $1", project)
        .execute(conn)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_comes_round_again_after_its_ring() {
        let at: DateTime<Utc> = "2026-11-22T03:14:15Z".parse().unwrap();
        for (ring, step, round) in [
            (Ring::Day, TimeDelta::minutes(1), TimeDelta::days(1)),
            (Ring::Week, TimeDelta::minutes(10), TimeDelta::days(7)),
        ] {
            let (slot, begin) = ring.slot(at);
            assert!(begin <= at && at - begin < step, "{ring:?}");
            assert_eq!(ring.slot(at + round), (slot, begin + round), "{ring:?}");
            assert_ne!(ring.slot(at + step).0, slot, "{ring:?}");
        }
    }
}
