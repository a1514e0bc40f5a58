//! Statements: months of partners as they were when they were closed. Nothing here is ever changed.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use cp_model::{Amounts, Metric, PartnerId, ProjectId, UsagePeriod};
use sqlx::PgConnection;

use crate::error::StorageResult;

/// A closed month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementRecord {
    /// Its first day.
    pub month: NaiveDate,
    pub closed_at: DateTime<Utc>,
    pub amounts: Amounts,
}

/// Amounts as the columns of these tables have them.
macro_rules! amounts_of {
    ($row:expr) => {{
        let mut amounts = crate::usage::amounts!($row);
        amounts[Metric::Ec2Compute] = $row.ec2_compute;
        amounts
    }};
}

/// What the transaction reads from here on is of one moment. Before anything else in it.
pub async fn begin_snapshot(conn: &mut PgConnection) -> StorageResult<()> {
    sqlx::query!("set transaction isolation level repeatable read")
        .execute(conn)
        .await?;
    Ok(())
}

/// Oldest first.
pub async fn list_statements(
    conn: &mut PgConnection,
    partner: &PartnerId,
) -> StorageResult<Vec<StatementRecord>> {
    let rows = sqlx::query!(
        "select month, closed_at, database_bytes, storage_bytes, ai_tokens, mcp_calls, egress_bytes, ai_credits, email_requests, function_calls, ec2_compute
         from usage_statements where partner_id = $1 order by month",
        partner.as_str()
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| StatementRecord {
            month: row.month,
            closed_at: row.closed_at,
            amounts: amounts_of!(row),
        })
        .collect())
}

/// False: the month is closed, or another one was closed meanwhile.
pub async fn insert_statement(
    conn: &mut PgConnection,
    partner: &PartnerId,
    follows: Option<NaiveDate>,
    new: &StatementRecord,
) -> StorageResult<bool> {
    let a = &new.amounts;
    let done = sqlx::query!(
        "insert into usage_statements (partner_id, month, follows, closed_at, database_bytes, storage_bytes, ai_tokens, mcp_calls, egress_bytes, ai_credits, email_requests, function_calls, ec2_compute)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) on conflict do nothing",
        partner.as_str(),
        new.month,
        follows,
        new.closed_at,
        a[Metric::DatabaseBytes],
        a[Metric::StorageBytes],
        a[Metric::AiTokens],
        a[Metric::McpCalls],
        a[Metric::EgressBytes],
        a[Metric::AiCredits],
        a[Metric::EmailRequests],
        a[Metric::FunctionCalls],
        a[Metric::Ec2Compute],
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes down what each project used in the month; gives how many used anything.
pub async fn insert_lines(
    conn: &mut PgConnection,
    partner: &PartnerId,
    month: UsagePeriod,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "insert into usage_statement_lines (partner_id, month, project_id, database_bytes, storage_bytes, ai_tokens, mcp_calls, egress_bytes, ai_credits, email_requests, function_calls, ec2_compute)
         select $1, $2, p.id, coalesce(u.database_bytes, 0), coalesce(u.storage_bytes, 0), coalesce(u.ai_tokens, 0), coalesce(u.mcp_calls, 0),
                coalesce(u.egress_bytes, 0), coalesce(u.ai_credits, 0), coalesce(u.email_requests, 0), coalesce(u.function_calls, 0), coalesce(r.seconds, 0)
         from projects p
         left join (
             select project_id, max(database_bytes) as database_bytes, max(storage_bytes) as storage_bytes, sum(ai_tokens)::bigint as ai_tokens,
                    sum(mcp_calls)::bigint as mcp_calls, sum(egress_bytes)::bigint as egress_bytes, sum(ai_credits)::bigint as ai_credits,
                    sum(email_requests)::bigint as email_requests, sum(function_calls)::bigint as function_calls
             from usage_daily where partner_id = $1 and day between $2 and $3 group by project_id
         ) u on u.project_id = p.id
         left join (
             select r.project_id, sum(floor(extract(epoch from least(coalesce(r.stopped_at, $5), $5))) - floor(extract(epoch from greatest(r.started_at, $4))))::bigint as seconds
             from machine_runs r join projects p on p.id = r.project_id
             where p.partner_id = $1 and r.started_at < $5 and (r.stopped_at is null or r.stopped_at >= $4) group by r.project_id
         ) r on r.project_id = p.id
         where p.partner_id = $1 and (u.project_id is not null or r.seconds > 0)",
        partner.as_str(),
        month.first(),
        month.last(),
        month.start(),
        month.end() + chrono::TimeDelta::seconds(1)
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// A project's part of a closed month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementLine {
    pub project: ProjectId,
    pub name: String,
    pub amounts: Amounts,
}

/// In the order of the projects' making.
pub async fn list_lines(
    conn: &mut PgConnection,
    partner: &PartnerId,
    month: NaiveDate,
) -> StorageResult<Vec<StatementLine>> {
    let rows = sqlx::query!(
        "select l.project_id, p.name, l.database_bytes, l.storage_bytes, l.ai_tokens, l.mcp_calls, l.egress_bytes, l.ai_credits, l.email_requests, l.function_calls, l.ec2_compute
         from usage_statement_lines l join projects p on p.id = l.project_id
         where l.partner_id = $1 and l.month = $2 order by l.project_id",
        partner.as_str(),
        month
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| StatementLine {
            project: ProjectId(row.project_id),
            amounts: amounts_of!(row),
            name: row.name,
        })
        .collect())
}

pub async fn insert_adjustment(
    conn: &mut PgConnection,
    partner: &PartnerId,
    month: NaiveDate,
    of_month: NaiveDate,
    a: &Amounts,
) -> StorageResult<()> {
    sqlx::query!(
        "insert into usage_statement_adjustments (partner_id, month, of_month, database_bytes, storage_bytes, ai_tokens, mcp_calls, egress_bytes, ai_credits, email_requests, function_calls, ec2_compute)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        partner.as_str(),
        month,
        of_month,
        a[Metric::DatabaseBytes],
        a[Metric::StorageBytes],
        a[Metric::AiTokens],
        a[Metric::McpCalls],
        a[Metric::EgressBytes],
        a[Metric::AiCredits],
        a[Metric::EmailRequests],
        a[Metric::FunctionCalls],
        a[Metric::Ec2Compute],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// By how much all statements of the partner together mend each closed month.
pub async fn list_adjusted(
    conn: &mut PgConnection,
    partner: &PartnerId,
) -> StorageResult<BTreeMap<NaiveDate, Amounts>> {
    let mut adjusted: BTreeMap<NaiveDate, Amounts> = BTreeMap::new();
    for (_, of_month, amounts) in list_adjustments(conn, partner).await? {
        *adjusted.entry(of_month).or_default() += &amounts;
    }
    Ok(adjusted)
}

/// The statement that says it, the month that it is about, and by how much.
pub async fn list_adjustments(
    conn: &mut PgConnection,
    partner: &PartnerId,
) -> StorageResult<Vec<(NaiveDate, NaiveDate, Amounts)>> {
    let rows = sqlx::query!(
        "select month, of_month, database_bytes, storage_bytes, ai_tokens, mcp_calls, egress_bytes, ai_credits, email_requests, function_calls, ec2_compute
         from usage_statement_adjustments where partner_id = $1 order by month, of_month",
        partner.as_str()
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.month, row.of_month, amounts_of!(row)))
        .collect())
}
