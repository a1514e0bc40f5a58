//! What projects and partners used, per day. Whatever is counted is counted for the project and for
//! its partner in one transaction, so that a read after it sees both (design.md, invariant 9).
//!
//! A transaction that counts first takes its lane ([`take_lane`]); the migration says why.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use cp_model::usage::midnight;
use cp_model::{
    Amounts, Metric, OrganizationId, PartnerId, ProjectId, ProjectStatus, Run, RunChanges,
    UsagePeriod,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{StorageError, StorageResult, parse};

/// The metrics that are columns, in the order of the columns; compute follows from the runs.
const COLUMNS: [Metric; 8] = [
    Metric::DatabaseBytes,
    Metric::StorageBytes,
    Metric::AiTokens,
    Metric::McpCalls,
    Metric::EgressBytes,
    Metric::AiCredits,
    Metric::EmailRequests,
    Metric::FunctionCalls,
];

/// The amounts of a row that has these columns.
macro_rules! amounts {
    ($row:expr) => {{
        let mut amounts = Amounts::default();
        amounts[Metric::DatabaseBytes] = $row.database_bytes;
        amounts[Metric::StorageBytes] = $row.storage_bytes;
        amounts[Metric::AiTokens] = $row.ai_tokens;
        amounts[Metric::McpCalls] = $row.mcp_calls;
        amounts[Metric::EgressBytes] = $row.egress_bytes;
        amounts[Metric::AiCredits] = $row.ai_credits;
        amounts[Metric::EmailRequests] = $row.email_requests;
        amounts[Metric::FunctionCalls] = $row.function_calls;
        amounts
    }};
}
pub(crate) use amounts;

/// Where the transaction counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane(i16);

/// Sizes are the greatest of their day, whoever told them: one row per project and day.
const SIZES: Lane = Lane(0);

/// Takes a lane that no other transaction has, until this one ends.
pub async fn take_lane(conn: &mut PgConnection) -> StorageResult<Lane> {
    let lane = sqlx::query_scalar!(r#"select usage_lane() as "lane!""#)
        .fetch_one(conn)
        .await?;
    Ok(Lane(lane))
}

/// An event as it is kept.
#[derive(Debug, Clone)]
pub struct NewEvent<'a> {
    /// Names source and id.
    pub key: Uuid,
    pub source: &'a str,
    pub id: &'a str,
    pub project: ProjectId,
    pub metric: Metric,
    pub amount: i64,
    pub occurred_at: DateTime<Utc>,
}

/// Keeps the events that were never kept before; gives the keys of these. No two may have one key.
///
/// Waits for a transaction that keeps one of the same events, and then sees what became of it.
pub async fn insert_events(
    conn: &mut PgConnection,
    events: &[NewEvent<'_>],
    now: DateTime<Utc>,
) -> StorageResult<Vec<Uuid>> {
    // In one order, so that two transactions with the same events do not wait for each other.
    let mut events: Vec<&NewEvent<'_>> = events.iter().collect();
    events.sort_unstable_by_key(|event| event.key);
    let keys: Vec<Uuid> = events.iter().map(|e| e.key).collect();
    let times: Vec<DateTime<Utc>> = events.iter().map(|e| e.occurred_at).collect();
    let projects: Vec<Uuid> = events.iter().map(|e| e.project.0).collect();
    let metrics: Vec<String> = events
        .iter()
        .map(|e| e.metric.as_str().to_owned())
        .collect();
    let amounts: Vec<i64> = events.iter().map(|e| e.amount).collect();
    let sources: Vec<String> = events.iter().map(|e| e.source.to_owned()).collect();
    let ids: Vec<String> = events.iter().map(|e| e.id.to_owned()).collect();
    Ok(sqlx::query_scalar!(
        r#"with given as (
             select * from unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::bigint[], $6::text[], $7::text[])
                 as g (key, occurred_at, project_id, metric, amount, source, id)
           ), fresh as (
             insert into usage_event_keys (key, received_at) select key, $8 from given
             on conflict (key) do nothing returning key
           ), kept as (
             insert into usage_events (occurred_at, received_at, project_id, metric, amount, source, id)
             select g.occurred_at, $8, g.project_id, g.metric, g.amount, g.source, g.id
             from given g join fresh using (key)
           )
           select key as "key!" from fresh"#,
        &keys,
        &times,
        &projects,
        &metrics,
        &amounts,
        &sources,
        &ids,
        now
    )
    .fetch_all(conn)
    .await?)
}

/// What a project used on a day, beyond what is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Increment {
    pub project: ProjectId,
    /// None: nobody is billed.
    pub partner: Option<PartnerId>,
    pub day: NaiveDate,
    /// Sizes: as they were seen. The rest: what is to be added.
    pub amounts: Amounts,
}

/// Adds to what projects and their partners used. No two increments may be of one project and day.
pub async fn add_usage(
    conn: &mut PgConnection,
    lane: Lane,
    increments: &[Increment],
) -> StorageResult<()> {
    let mut increments: Vec<&Increment> = increments.iter().collect();
    // In one order: rows of sizes are shared.
    increments.sort_unstable_by_key(|i| (i.project, i.day));
    let grown = add_sizes(conn, lane, &increments).await?;
    add_counts(conn, lane, &increments).await?;
    let mut of_partners: BTreeMap<(&PartnerId, NaiveDate), Amounts> = BTreeMap::new();
    for (increment, grown) in increments.iter().zip(grown) {
        let Some(partner) = &increment.partner else {
            continue;
        };
        let mut amounts = increment.amounts;
        (
            amounts[Metric::DatabaseBytes],
            amounts[Metric::StorageBytes],
        ) = grown;
        *of_partners.entry((partner, increment.day)).or_default() += &amounts;
    }
    add_to_partners(conn, lane, &of_partners).await
}

/// Raises the sizes of days to what was seen; gives by how much each grew.
async fn add_sizes(
    conn: &mut PgConnection,
    lane: Lane,
    increments: &[&Increment],
) -> StorageResult<Vec<(i64, i64)>> {
    let has_size = |i: &Increment| {
        i.amounts[Metric::DatabaseBytes] != 0 || i.amounts[Metric::StorageBytes] != 0
    };
    if !increments.iter().any(|i| has_size(i)) {
        return Ok(vec![(0, 0); increments.len()]);
    }
    // Whose counts go to the same lane locks those rows now, too: shared rows are locked in one
    // order, once.
    let sized: Vec<&&Increment> = increments
        .iter()
        .filter(|i| has_size(i) || lane == SIZES)
        .collect();
    let projects: Vec<Uuid> = sized.iter().map(|i| i.project.0).collect();
    let days: Vec<NaiveDate> = sized.iter().map(|i| i.day).collect();
    let partners: Vec<Option<String>> = sized.iter().map(|i| partner_text(i)).collect();
    let of = |metric| -> Vec<i64> { sized.iter().map(|i| i.amounts[metric]).collect() };
    // The rows first, in one pass that makes those that are missing and locks those that are not:
    // whoever counts in their lane takes them in the same order.
    sqlx::query!(
        "insert into usage_daily (project_id, day, lane, partner_id)
         select g.project_id, g.day, $4, g.partner_id
         from unnest($1::uuid[], $2::date[], $3::text[]) as g (project_id, day, partner_id)
         on conflict (project_id, day, lane) do update set lane = excluded.lane",
        &projects,
        &days,
        &partners as &[Option<String>],
        SIZES.0
    )
    .execute(&mut *conn)
    .await?;
    let rows = sqlx::query!(
        r#"with before as (
             select d.project_id, d.day, d.database_bytes, d.storage_bytes, g.database_bytes as seen_database, g.storage_bytes as seen_storage
             from usage_daily d
             join unnest($1::uuid[], $2::date[], $3::bigint[], $4::bigint[]) as g (project_id, day, database_bytes, storage_bytes)
                 on d.project_id = g.project_id and d.day = g.day and d.lane = $5
             order by d.project_id, d.day for update of d
           ), after as (
             update usage_daily d set database_bytes = greatest(b.database_bytes, b.seen_database),
                    storage_bytes = greatest(b.storage_bytes, b.seen_storage)
             from before b where d.project_id = b.project_id and d.day = b.day and d.lane = $5
           )
           select project_id, day, greatest(seen_database - database_bytes, 0) as "database!",
                  greatest(seen_storage - storage_bytes, 0) as "storage!" from before"#,
        &projects,
        &days,
        &of(Metric::DatabaseBytes),
        &of(Metric::StorageBytes),
        SIZES.0
    )
    .fetch_all(conn)
    .await?;
    let grown: BTreeMap<(Uuid, NaiveDate), (i64, i64)> = rows
        .into_iter()
        .map(|row| ((row.project_id, row.day), (row.database, row.storage)))
        .collect();
    Ok(increments
        .iter()
        .map(|i| grown.get(&(i.project.0, i.day)).copied().unwrap_or((0, 0)))
        .collect())
}

fn partner_text(increment: &Increment) -> Option<String> {
    increment.partner.as_ref().map(ToString::to_string)
}

async fn add_counts(
    conn: &mut PgConnection,
    lane: Lane,
    increments: &[&Increment],
) -> StorageResult<()> {
    let mut counted: Vec<&&Increment> = increments
        .iter()
        .filter(|i| COLUMNS[2..].iter().any(|metric| i.amounts[*metric] != 0))
        .collect();
    if counted.is_empty() {
        return Ok(());
    }
    // Nobody else writes rows of this lane: those that there are already need no look for rows of
    // others, which takes twice as long. Sizes are of everybody, and their rows taken in order.
    let updated = match lane {
        SIZES => HashSet::new(),
        own => update_counts(conn, own, &counted).await?,
    };
    counted.retain(|i| !updated.contains(&(i.project, i.day)));
    if counted.is_empty() {
        return Ok(());
    }
    let projects: Vec<Uuid> = counted.iter().map(|i| i.project.0).collect();
    let days: Vec<NaiveDate> = counted.iter().map(|i| i.day).collect();
    let partners: Vec<Option<String>> = counted.iter().map(|i| partner_text(i)).collect();
    let of = |metric| -> Vec<i64> { counted.iter().map(|i| i.amounts[metric]).collect() };
    sqlx::query!(
        "insert into usage_daily as d (project_id, day, lane, partner_id, ai_tokens, mcp_calls, egress_bytes, ai_credits, email_requests, function_calls)
         select g.project_id, g.day, $3, g.partner_id, g.ai_tokens, g.mcp_calls, g.egress_bytes, g.ai_credits, g.email_requests, g.function_calls
         from unnest($1::uuid[], $2::date[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[])
             as g (project_id, day, partner_id, ai_tokens, mcp_calls, egress_bytes, ai_credits, email_requests, function_calls)
         on conflict (project_id, day, lane) do update set
             ai_tokens = d.ai_tokens + excluded.ai_tokens, mcp_calls = d.mcp_calls + excluded.mcp_calls,
             egress_bytes = d.egress_bytes + excluded.egress_bytes, ai_credits = d.ai_credits + excluded.ai_credits,
             email_requests = d.email_requests + excluded.email_requests, function_calls = d.function_calls + excluded.function_calls",
        &projects,
        &days,
        lane.0,
        &partners as &[Option<String>],
        &of(Metric::AiTokens),
        &of(Metric::McpCalls),
        &of(Metric::EgressBytes),
        &of(Metric::AiCredits),
        &of(Metric::EmailRequests),
        &of(Metric::FunctionCalls),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds to the rows that there are; gives which these were.
async fn update_counts(
    conn: &mut PgConnection,
    lane: Lane,
    increments: &[&&Increment],
) -> StorageResult<HashSet<(ProjectId, NaiveDate)>> {
    let projects: Vec<Uuid> = increments.iter().map(|i| i.project.0).collect();
    let days: Vec<NaiveDate> = increments.iter().map(|i| i.day).collect();
    let of = |metric| -> Vec<i64> { increments.iter().map(|i| i.amounts[metric]).collect() };
    let rows = sqlx::query!(
        "update usage_daily d set
             ai_tokens = d.ai_tokens + g.ai_tokens, mcp_calls = d.mcp_calls + g.mcp_calls,
             egress_bytes = d.egress_bytes + g.egress_bytes, ai_credits = d.ai_credits + g.ai_credits,
             email_requests = d.email_requests + g.email_requests, function_calls = d.function_calls + g.function_calls
         from unnest($1::uuid[], $2::date[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[])
             as g (project_id, day, ai_tokens, mcp_calls, egress_bytes, ai_credits, email_requests, function_calls)
         where d.project_id = g.project_id and d.day = g.day and d.lane = $3
         returning d.project_id, d.day",
        &projects,
        &days,
        lane.0,
        &of(Metric::AiTokens),
        &of(Metric::McpCalls),
        &of(Metric::EgressBytes),
        &of(Metric::AiCredits),
        &of(Metric::EmailRequests),
        &of(Metric::FunctionCalls),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (ProjectId(row.project_id), row.day))
        .collect())
}

async fn add_to_partners(
    conn: &mut PgConnection,
    lane: Lane,
    of_partners: &BTreeMap<(&PartnerId, NaiveDate), Amounts>,
) -> StorageResult<()> {
    let changed: Vec<_> = of_partners
        .iter()
        .filter(|(_, amounts)| !amounts.is_zero())
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    let partners: Vec<String> = changed.iter().map(|((p, _), _)| p.to_string()).collect();
    let days: Vec<NaiveDate> = changed.iter().map(|((_, day), _)| *day).collect();
    let of = |metric| -> Vec<i64> { changed.iter().map(|(_, amounts)| amounts[metric]).collect() };
    sqlx::query!(
        "insert into usage_partner_daily as d (partner_id, day, lane, database_bytes, storage_bytes, ai_tokens, mcp_calls, egress_bytes, ai_credits, email_requests, function_calls)
         select g.partner_id, g.day, $3, g.database_bytes, g.storage_bytes, g.ai_tokens, g.mcp_calls, g.egress_bytes, g.ai_credits, g.email_requests, g.function_calls
         from unnest($1::text[], $2::date[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
             as g (partner_id, day, database_bytes, storage_bytes, ai_tokens, mcp_calls, egress_bytes, ai_credits, email_requests, function_calls)
         on conflict (partner_id, day, lane) do update set
             database_bytes = d.database_bytes + excluded.database_bytes, storage_bytes = d.storage_bytes + excluded.storage_bytes,
             ai_tokens = d.ai_tokens + excluded.ai_tokens, mcp_calls = d.mcp_calls + excluded.mcp_calls,
             egress_bytes = d.egress_bytes + excluded.egress_bytes, ai_credits = d.ai_credits + excluded.ai_credits,
             email_requests = d.email_requests + excluded.email_requests, function_calls = d.function_calls + excluded.function_calls",
        &partners,
        &days,
        lane.0,
        &of(Metric::DatabaseBytes),
        &of(Metric::StorageBytes),
        &of(Metric::AiTokens),
        &of(Metric::McpCalls),
        &of(Metric::EgressBytes),
        &of(Metric::AiCredits),
        &of(Metric::EmailRequests),
        &of(Metric::FunctionCalls),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a project used on the days of the period, compute left out; days without anything are left
/// out.
pub async fn list_project_days(
    conn: &mut PgConnection,
    partner: &PartnerId,
    project: ProjectId,
    period: UsagePeriod,
) -> StorageResult<BTreeMap<NaiveDate, Amounts>> {
    let rows = sqlx::query!(
        r#"select day, max(database_bytes) as "database_bytes!", max(storage_bytes) as "storage_bytes!",
                  sum(ai_tokens)::bigint as "ai_tokens!", sum(mcp_calls)::bigint as "mcp_calls!",
                  sum(egress_bytes)::bigint as "egress_bytes!", sum(ai_credits)::bigint as "ai_credits!",
                  sum(email_requests)::bigint as "email_requests!", sum(function_calls)::bigint as "function_calls!"
           from usage_daily where partner_id = $1 and project_id = $2 and day between $3 and $4 group by day"#,
        partner.as_str(),
        project.0,
        period.first(),
        period.last()
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|r| (r.day, amounts!(r))).collect())
}

/// The first day of which any usage of the partner is known.
pub async fn find_first_day(
    conn: &mut PgConnection,
    partner: &PartnerId,
) -> StorageResult<Option<NaiveDate>> {
    Ok(sqlx::query_scalar!(
        "select min(day) from usage_partner_daily where partner_id = $1",
        partner.as_str()
    )
    .fetch_one(conn)
    .await?)
}

/// A project that somebody may be billed for.
#[derive(Debug, Clone)]
pub struct UsedProject {
    pub id: ProjectId,
    pub name: String,
    pub status: ProjectStatus,
    pub last_activity_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub deleted_at: Option<DateTime<Utc>>,
}

struct UsedProjectRow {
    id: Uuid,
    name: String,
    status: String,
    last_activity_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    deleted_at: Option<DateTime<Utc>>,
}

impl TryFrom<UsedProjectRow> for UsedProject {
    type Error = StorageError;

    fn try_from(row: UsedProjectRow) -> StorageResult<Self> {
        Ok(Self {
            id: ProjectId(row.id),
            name: row.name,
            status: parse("projects", "status", &row.status)?,
            last_activity_at: row.last_activity_at,
            created_at: row.created_at,
            deleted_at: row.deleted_at,
        })
    }
}

/// A project of the partner, a deleted one too.
pub async fn find_used_project(
    conn: &mut PgConnection,
    partner: &PartnerId,
    id: ProjectId,
) -> StorageResult<Option<UsedProject>> {
    sqlx::query_as!(
        UsedProjectRow,
        "select id, name, status, last_activity_at, created_at, deleted_at
         from projects where partner_id = $1 and id = $2",
        partner.as_str(),
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(UsedProject::try_from)
    .transpose()
}

/// Projects of the partner that existed in the period, or used something in it, deleted ones too, in
/// the order of their ids.
pub async fn list_used_projects(
    conn: &mut PgConnection,
    partner: &PartnerId,
    period: UsagePeriod,
    after: Option<ProjectId>,
    limit: i64,
) -> StorageResult<Vec<UsedProject>> {
    sqlx::query_as!(
        UsedProjectRow,
        "select id, name, status, last_activity_at, created_at, deleted_at from projects p
         where partner_id = $1 and id > $2
           and (created_at < $4 and (deleted_at is null or deleted_at >= $3)
                or exists (select from usage_daily u where u.project_id = p.id and u.day between $6 and $7)
                or exists (select from machine_runs r where r.project_id = p.id and r.started_at < $4
                               and (r.stopped_at is null or r.stopped_at >= $3)))
         order by id limit $5",
        partner.as_str(),
        after.map_or(Uuid::nil(), |id| id.0),
        period.start(),
        midnight(period.last()) + TimeDelta::days(1),
        limit,
        period.first(),
        period.last()
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(UsedProject::try_from)
    .collect()
}

/// The partner's projects whose machines ran longest in the period, deleted ones too, the longest
/// first; those whose machines did not run are left out.
pub async fn list_busiest_projects(
    conn: &mut PgConnection,
    partner: &PartnerId,
    period: UsagePeriod,
    now: DateTime<Utc>,
    limit: i64,
) -> StorageResult<Vec<UsedProject>> {
    // The time up to which machines that still run are counted. `least` passes over nulls.
    let until = now.min(midnight(period.last()) + TimeDelta::days(1));
    sqlx::query_as!(
        UsedProjectRow,
        "select p.id, p.name, p.status, p.last_activity_at, p.created_at, p.deleted_at
         from projects p join machine_runs r on r.project_id = p.id
         where p.partner_id = $1 and r.started_at < $3 and (r.stopped_at is null or r.stopped_at > $2)
         group by p.id
         order by sum(least(r.stopped_at, $3) - greatest(r.started_at, $2)) desc, p.id limit $4",
        partner.as_str(),
        period.start(),
        until,
        limit
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(UsedProject::try_from)
    .collect()
}

/// What each of the projects used in the whole period, compute left out; those that used nothing
/// are left out.
pub async fn list_project_totals(
    conn: &mut PgConnection,
    partner: &PartnerId,
    projects: &[ProjectId],
    period: UsagePeriod,
) -> StorageResult<BTreeMap<ProjectId, Amounts>> {
    let ids: Vec<Uuid> = projects.iter().map(|p| p.0).collect();
    let rows = sqlx::query!(
        r#"select project_id, max(database_bytes) as "database_bytes!", max(storage_bytes) as "storage_bytes!",
                  sum(ai_tokens)::bigint as "ai_tokens!", sum(mcp_calls)::bigint as "mcp_calls!",
                  sum(egress_bytes)::bigint as "egress_bytes!", sum(ai_credits)::bigint as "ai_credits!",
                  sum(email_requests)::bigint as "email_requests!", sum(function_calls)::bigint as "function_calls!"
           from usage_daily where partner_id = $1 and project_id = any($2) and day between $3 and $4 group by project_id"#,
        partner.as_str(),
        &ids,
        period.first(),
        period.last()
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| (ProjectId(r.project_id), amounts!(r)))
        .collect())
}

/// The runs of projects that touch the period.
pub async fn list_runs(
    conn: &mut PgConnection,
    partner: &PartnerId,
    projects: &[ProjectId],
    period: UsagePeriod,
) -> StorageResult<BTreeMap<ProjectId, Vec<Run>>> {
    let ids: Vec<Uuid> = projects.iter().map(|p| p.0).collect();
    let rows = sqlx::query!(
        "select r.project_id, r.started_at, r.stopped_at from machine_runs r join projects p on p.id = r.project_id
         where p.partner_id = $1 and r.project_id = any($2) and r.started_at < $4 and (r.stopped_at is null or r.stopped_at >= $3)",
        partner.as_str(),
        &ids,
        period.start(),
        midnight(period.last()) + TimeDelta::days(1)
    )
    .fetch_all(conn)
    .await?;
    let mut runs: BTreeMap<ProjectId, Vec<Run>> = BTreeMap::new();
    for row in rows {
        runs.entry(ProjectId(row.project_id))
            .or_default()
            .push(Run {
                started_at: row.started_at,
                stopped_at: row.stopped_at,
            });
    }
    Ok(runs)
}

/// Projects of an organization of people that existed in the period, deleted ones too, branches too, the oldest first.
pub async fn list_organization_used_projects(
    conn: &mut PgConnection,
    organization: OrganizationId,
    period: UsagePeriod,
) -> StorageResult<Vec<UsedProject>> {
    sqlx::query_as!(
        UsedProjectRow,
        "select id, name, status, last_activity_at, created_at, deleted_at from projects
         where organization_id = $1 and created_at < $3 and (deleted_at is null or deleted_at >= $2) order by id",
        organization.0,
        period.start(),
        midnight(period.last()) + TimeDelta::days(1)
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(UsedProject::try_from)
    .collect()
}

/// What each of the organization's projects used in the whole period, compute left out; those that used nothing are
/// left out.
pub async fn list_organization_totals(
    conn: &mut PgConnection,
    organization: OrganizationId,
    period: UsagePeriod,
) -> StorageResult<BTreeMap<ProjectId, Amounts>> {
    let rows = sqlx::query!(
        r#"select u.project_id, max(u.database_bytes) as "database_bytes!", max(u.storage_bytes) as "storage_bytes!",
                  sum(u.ai_tokens)::bigint as "ai_tokens!", sum(u.mcp_calls)::bigint as "mcp_calls!",
                  sum(u.egress_bytes)::bigint as "egress_bytes!", sum(u.ai_credits)::bigint as "ai_credits!",
                  sum(u.email_requests)::bigint as "email_requests!", sum(u.function_calls)::bigint as "function_calls!"
           from usage_daily u join projects p on p.id = u.project_id
           where p.organization_id = $1 and u.day between $2 and $3 group by u.project_id"#,
        organization.0,
        period.first(),
        period.last()
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| (ProjectId(r.project_id), amounts!(r)))
        .collect())
}

/// The runs of the organization's projects that touch the period.
pub async fn list_organization_runs(
    conn: &mut PgConnection,
    organization: OrganizationId,
    period: UsagePeriod,
) -> StorageResult<BTreeMap<ProjectId, Vec<Run>>> {
    let rows = sqlx::query!(
        "select r.project_id, r.started_at, r.stopped_at from machine_runs r join projects p on p.id = r.project_id
         where p.organization_id = $1 and r.started_at < $3 and (r.stopped_at is null or r.stopped_at >= $2)",
        organization.0,
        period.start(),
        midnight(period.last()) + TimeDelta::days(1)
    )
    .fetch_all(conn)
    .await?;
    let mut runs: BTreeMap<ProjectId, Vec<Run>> = BTreeMap::new();
    for row in rows {
        runs.entry(ProjectId(row.project_id))
            .or_default()
            .push(Run {
                started_at: row.started_at,
                stopped_at: row.stopped_at,
            });
    }
    Ok(runs)
}

/// One day of a partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartnerDay {
    /// Compute left out.
    pub amounts: Amounts,
    pub changes: RunChanges,
}

/// What all projects of a partner used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartnerDays {
    /// Days without anything are left out.
    pub days: BTreeMap<NaiveDate, PartnerDay>,
    /// Machines that ran when the period began.
    pub running: i64,
    pub newest_run_change: Option<DateTime<Utc>>,
}

/// What all projects of a partner used in the period. Its cost grows with the days, not with the
/// projects.
pub async fn find_partner_days(
    conn: &mut PgConnection,
    partner: &PartnerId,
    period: UsagePeriod,
) -> StorageResult<PartnerDays> {
    // All days before the period are one group, of which only the balance of runs is of interest.
    let rows = sqlx::query!(
        r#"select greatest(day, $2::date - 1) as "day!",
                  sum(database_bytes)::bigint as "database_bytes!", sum(storage_bytes)::bigint as "storage_bytes!",
                  sum(ai_tokens)::bigint as "ai_tokens!", sum(mcp_calls)::bigint as "mcp_calls!",
                  sum(egress_bytes)::bigint as "egress_bytes!", sum(ai_credits)::bigint as "ai_credits!",
                  sum(email_requests)::bigint as "email_requests!", sum(function_calls)::bigint as "function_calls!",
                  sum(run_starts)::bigint as "run_starts!", sum(run_start_seconds)::bigint as "run_start_seconds!",
                  sum(run_stops)::bigint as "run_stops!", sum(run_stop_seconds)::bigint as "run_stop_seconds!",
                  max(newest_run_change) as newest_run_change
           from usage_partner_daily where partner_id = $1 and day <= $3 group by 1"#,
        partner.as_str(),
        period.first(),
        period.last()
    )
    .fetch_all(conn)
    .await?;
    let mut found = PartnerDays::default();
    for r in rows {
        let changes = RunChanges {
            starts: r.run_starts,
            start_seconds: r.run_start_seconds,
            stops: r.run_stops,
            stop_seconds: r.run_stop_seconds,
        };
        found.newest_run_change = found.newest_run_change.max(r.newest_run_change);
        if r.day < period.first() {
            found.running = changes.balance();
            continue;
        }
        let day = PartnerDay {
            amounts: amounts!(r),
            changes,
        };
        found.days.insert(r.day, day);
    }
    Ok(found)
}

/// The newest start or stop of any machine of the partner.
pub async fn find_newest_run_change(
    conn: &mut PgConnection,
    partner: &PartnerId,
    since: NaiveDate,
) -> StorageResult<Option<DateTime<Utc>>> {
    Ok(sqlx::query_scalar!(
        "select max(newest_run_change) from usage_partner_daily where partner_id = $1 and day >= $2",
        partner.as_str(),
        since
    )
    .fetch_one(conn)
    .await?)
}

/// A project that events may name.
#[derive(Debug, Clone)]
pub struct CountedProject {
    pub partner: Option<PartnerId>,
    pub created_at: DateTime<Utc>,
    pub deleted_at: Option<DateTime<Utc>>,
}

/// Those of the projects that there are, deleted ones too. Of any tenant: for services of ours.
pub async fn count_mails_of_day(
    conn: &mut PgConnection,
    project: ProjectId,
    day: NaiveDate,
) -> StorageResult<i64> {
    let count = sqlx::query_scalar!(
        r#"select coalesce(sum(email_requests), 0)::bigint as "count!" from usage_daily where project_id = $1 and day = $2"#,
        project.0,
        day
    )
    .fetch_one(conn)
    .await?;
    Ok(count)
}

pub async fn list_counted_projects(
    conn: &mut PgConnection,
    projects: &[ProjectId],
) -> StorageResult<BTreeMap<ProjectId, CountedProject>> {
    let ids: Vec<Uuid> = projects.iter().map(|p| p.0).collect();
    let rows = sqlx::query!(
        // Not `= any`: that goes through the whole list for each project that it looks at.
        "select p.id, p.partner_id, p.created_at, p.deleted_at
         from unnest($1::uuid[]) as g (id) join projects p using (id)",
        &ids
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let partner = row
                .partner_id
                .map(|id| parse("projects", "partner_id", &id))
                .transpose()?;
            let project = CountedProject {
                partner,
                created_at: row.created_at,
                deleted_at: row.deleted_at,
            };
            Ok((ProjectId(row.id), project))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_but_compute_is_a_column() {
        let missing: Vec<_> = Metric::ALL
            .iter()
            .filter(|metric| !COLUMNS.contains(metric))
            .collect();
        assert_eq!(missing, [&Metric::Ec2Compute]);
    }
}
