//! Limits on what partners and projects use, and when they were reached.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};
use cp_model::{LimitPeriod, Metric, PartnerId, ProjectId, UsageLimitId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{StorageError, StorageResult, parse};

/// An amount that a partner is told of when usage reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageLimit {
    pub id: UsageLimitId,
    pub partner: PartnerId,
    /// None: all projects of the partner together.
    pub project: Option<ProjectId>,
    pub metric: Metric,
    pub period: LimitPeriod,
    /// In the metric's unit.
    pub amount: i64,
    pub created_at: DateTime<Utc>,
}

struct LimitRow {
    id: Uuid,
    partner_id: String,
    project_id: Option<Uuid>,
    metric: String,
    period: String,
    amount: i64,
    created_at: DateTime<Utc>,
}

impl TryFrom<LimitRow> for UsageLimit {
    type Error = StorageError;

    fn try_from(row: LimitRow) -> StorageResult<Self> {
        Ok(Self {
            id: UsageLimitId(row.id),
            partner: parse("usage_limits", "partner_id", &row.partner_id)?,
            project: row.project_id.map(ProjectId),
            metric: parse("usage_limits", "metric", &row.metric)?,
            period: parse("usage_limits", "period", &row.period)?,
            amount: row.amount,
            created_at: row.created_at,
        })
    }
}

/// False: there is the same one.
pub async fn insert_limit(conn: &mut PgConnection, limit: &UsageLimit) -> StorageResult<bool> {
    let done = sqlx::query!(
        "insert into usage_limits (id, partner_id, project_id, metric, period, amount, created_at)
         values ($1, $2, $3, $4, $5, $6, $7) on conflict on constraint usage_limits_key do nothing",
        limit.id.0,
        limit.partner.as_str(),
        limit.project.map(|p| p.0),
        limit.metric.as_str(),
        limit.period.as_str(),
        limit.amount,
        limit.created_at
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// With the first day of the newest period in which it was reached.
pub async fn list_limits(
    conn: &mut PgConnection,
    partner: &PartnerId,
) -> StorageResult<Vec<(UsageLimit, Option<NaiveDate>)>> {
    let rows = sqlx::query!(
        "select l.id, l.partner_id, l.project_id, l.metric, l.period, l.amount, l.created_at,
                (select max(c.period_start) from usage_limit_crossings c where c.limit_id = l.id) as crossed
         from usage_limits l where l.partner_id = $1
         order by l.project_id nulls first, l.metric, l.period, l.amount",
        partner.as_str()
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let limit = LimitRow {
                id: row.id,
                partner_id: row.partner_id,
                project_id: row.project_id,
                metric: row.metric,
                period: row.period,
                amount: row.amount,
                created_at: row.created_at,
            };
            Ok((limit.try_into()?, row.crossed))
        })
        .collect()
}

pub async fn delete_limit(
    conn: &mut PgConnection,
    partner: &PartnerId,
    id: UsageLimitId,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "delete from usage_limits where partner_id = $1 and id = $2",
        partner.as_str(),
        id.0
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Limits that usage of these projects could reach: their own and those of these partners.
pub async fn list_touched(
    conn: &mut PgConnection,
    partners: &[PartnerId],
    projects: &[ProjectId],
) -> StorageResult<Vec<UsageLimit>> {
    let partners: Vec<String> = partners.iter().map(ToString::to_string).collect();
    let projects: Vec<Uuid> = projects.iter().map(|p| p.0).collect();
    sqlx::query_as!(
        LimitRow,
        "select id, partner_id, project_id, metric, period, amount, created_at from usage_limits
         where partner_id = any($1) and (project_id is null or project_id = any($2))
         order by partner_id, project_id",
        &partners,
        &projects
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(UsageLimit::try_from)
    .collect()
}

/// Partners that have limits, in order; those after `after`.
pub async fn list_limited_partners(
    conn: &mut PgConnection,
    after: Option<&PartnerId>,
    limit: i64,
) -> StorageResult<Vec<PartnerId>> {
    let rows = sqlx::query_scalar!(
        r#"select distinct partner_id from usage_limits where $1::text is null or partner_id > $1
           order by partner_id limit $2"#,
        after.map(PartnerId::as_str),
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|id| parse("usage_limits", "partner_id", id))
        .collect()
}

/// All limits of a partner but those of projects that were deleted before then.
pub async fn list_live(
    conn: &mut PgConnection,
    partner: &PartnerId,
    deleted_before: DateTime<Utc>,
) -> StorageResult<Vec<UsageLimit>> {
    sqlx::query_as!(
        LimitRow,
        "select l.id, l.partner_id, l.project_id, l.metric, l.period, l.amount, l.created_at
         from usage_limits l left join projects p on p.id = l.project_id
         where l.partner_id = $1 and (p.deleted_at is null or p.deleted_at >= $2)
         order by l.project_id",
        partner.as_str(),
        deleted_before
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(UsageLimit::try_from)
    .collect()
}

/// The periods since then in which one of the limits was reached.
pub async fn list_crossings(
    conn: &mut PgConnection,
    limits: &[UsageLimit],
    since: NaiveDate,
) -> StorageResult<BTreeSet<(UsageLimitId, NaiveDate)>> {
    let ids: Vec<Uuid> = limits.iter().map(|limit| limit.id.0).collect();
    let rows = sqlx::query!(
        "select limit_id, period_start from usage_limit_crossings where limit_id = any($1) and period_start >= $2",
        &ids,
        since
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (UsageLimitId(row.limit_id), row.period_start))
        .collect())
}

/// False: somebody saw it before, or the limit is gone.
pub async fn insert_crossing(
    conn: &mut PgConnection,
    limit: UsageLimitId,
    period_start: NaiveDate,
    value: i64,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "insert into usage_limit_crossings (limit_id, period_start, crossed_at, value)
         select id, $2, $4, $3 from usage_limits where id = $1 for key share
         on conflict do nothing",
        limit.0,
        period_start,
        value,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
