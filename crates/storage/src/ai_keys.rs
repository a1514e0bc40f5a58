//! API keys of projects at the AI provider. The domain seals and opens them.

use chrono::{DateTime, Utc};
use cp_model::{AiKeyId, OrganizationId, Plan, ProjectId, UserId};
use sqlx::PgConnection;

use crate::error::StorageResult;
use crate::retention::BATCH;

/// The key that a project's backend uses.
pub struct CurrentAiKey {
    pub id: AiKeyId,
    pub hash: String,
    pub sealed: Vec<u8>,
}

/// A key that is about to be asked for.
pub struct NewAiKey {
    pub id: AiKeyId,
    pub project: ProjectId,
    pub organization: OrganizationId,
    /// US cents.
    pub monthly_limit: i64,
    pub now: DateTime<Utc>,
}

/// A key that is to be deleted at the provider.
pub struct DoomedAiKey {
    pub id: AiKeyId,
    pub project: ProjectId,
    /// None: whether it was made is not known.
    pub hash: Option<String>,
    pub created_at: DateTime<Utc>,
}

/// A key whose limit is not its plan's any more.
pub struct AiKeyToLimit {
    pub id: AiKeyId,
    pub project: ProjectId,
    pub hash: String,
    /// US cents.
    pub monthly_limit: i64,
}

pub async fn find_current(
    conn: &mut PgConnection,
    project: ProjectId,
) -> StorageResult<Option<CurrentAiKey>> {
    let row = sqlx::query!(
        r#"select id, hash as "hash!", key_sealed as "key_sealed!" from ai_keys
           where project_id = $1 and state = 'current'"#,
        project.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| CurrentAiKey {
        id: AiKeyId(row.id),
        hash: row.hash,
        sealed: row.key_sealed,
    }))
}

/// False: one is being made.
pub async fn insert_making(conn: &mut PgConnection, new: &NewAiKey) -> StorageResult<bool> {
    let done = sqlx::query!(
        "insert into ai_keys (id, project_id, organization_id, state, monthly_limit, created_at, next_attempt_at)
         values ($1, $2, $3, 'making', $4, $5, $5)
         on conflict (project_id) where state = 'making' do nothing",
        new.id.0,
        new.project.0,
        new.organization.0,
        new.monthly_limit,
        new.now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Keys that were made, and given to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MadeAiKeys {
    pub of_project: i64,
    pub of_organization: i64,
    /// Of all projects that are, or were, the person's, in organizations of the free plan.
    pub of_person: i64,
}

pub async fn count_made(
    conn: &mut PgConnection,
    project: ProjectId,
    organization: OrganizationId,
    person: Option<UserId>,
    since: DateTime<Utc>,
) -> StorageResult<MadeAiKeys> {
    let row = sqlx::query!(
        r#"select count(*) filter (where k.project_id = $1) as "of_project!",
                  count(*) filter (where k.organization_id = $2) as "of_organization!",
                  count(*) filter (where p.user_id = $3 and o.plan = 'free') as "of_person!"
           from ai_keys k
           join projects p on p.id = k.project_id
           join organizations o on o.id = k.organization_id
           where k.created_at > $4 and k.hash is not null
             and (k.project_id = $1 or k.organization_id = $2 or p.user_id = $3)"#,
        project.0,
        organization.0,
        person.map(|id| id.0),
        since
    )
    .fetch_one(conn)
    .await?;
    Ok(MadeAiKeys {
        of_project: row.of_project,
        of_organization: row.of_organization,
        of_person: row.of_person,
    })
}

/// Attempts of the project since then that have ended without anybody knowing how.
pub async fn count_unknown(
    conn: &mut PgConnection,
    project: ProjectId,
    since: DateTime<Utc>,
) -> StorageResult<i64> {
    Ok(sqlx::query_scalar!(
        r#"select count(*) as "count!" from ai_keys
           where project_id = $1 and state = 'doomed' and hash is null and created_at > $2"#,
        project.0,
        since
    )
    .fetch_one(conn)
    .await?)
}

/// The project has none from now on; the one that it had is deleted after a while. False: it had none.
pub async fn doom_current(
    conn: &mut PgConnection,
    project: ProjectId,
    next_attempt_at: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update ai_keys set state = 'doomed', key_sealed = null, next_attempt_at = $2
         where project_id = $1 and state = 'current'",
        project.0,
        next_attempt_at
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The key that was asked for is the project's. False: it took too long, and was given up meanwhile.
pub async fn mark_current(
    conn: &mut PgConnection,
    project: ProjectId,
    id: AiKeyId,
    hash: &str,
    sealed: &[u8],
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update ai_keys set state = 'current', hash = $3, key_sealed = $4
         where project_id = $1 and id = $2 and state = 'making'",
        project.0,
        id.0,
        hash,
        sealed
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// It was asked for, and nobody knows what came of it; or it is known by now, by its hash, and nobody wants it.
pub async fn mark_doomed(
    conn: &mut PgConnection,
    project: ProjectId,
    id: AiKeyId,
    hash: Option<&str>,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update ai_keys set state = 'doomed', hash = coalesce($3, hash), key_sealed = null, next_attempt_at = $4
         where project_id = $1 and id = $2",
        project.0,
        id.0,
        hash,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// It was refused, so there is nothing.
pub async fn delete_unmade(
    conn: &mut PgConnection,
    project: ProjectId,
    id: AiKeyId,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "delete from ai_keys where project_id = $1 and id = $2 and state = 'making'",
        project.0,
        id.0
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives up those that somebody began to make before then and never ended.
pub async fn doom_abandoned(
    conn: &mut PgConnection,
    project: Option<ProjectId>,
    before: DateTime<Utc>,
    now: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "update ai_keys set state = 'doomed', next_attempt_at = $3
         where state = 'making' and created_at < $2 and ($1::uuid is null or project_id = $1)",
        project.map(|id| id.0),
        before,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Those of projects that are deleted, or being deleted.
pub async fn doom_of_deleted_projects(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
) -> StorageResult<u64> {
    let done = sqlx::query!(
        "update ai_keys k set state = 'doomed', key_sealed = null, next_attempt_at = $1
         from projects p where p.id = k.project_id and k.state = 'current' and p.status in ('deleting', 'deleted')",
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Those that are due, the longest first.
pub async fn list_doomed(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
    limit: i64,
) -> StorageResult<Vec<DoomedAiKey>> {
    let rows = sqlx::query!(
        "select id, project_id, hash, created_at from ai_keys
         where state = 'doomed' and next_attempt_at <= $1 order by next_attempt_at limit $2",
        now,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| DoomedAiKey {
            id: AiKeyId(row.id),
            project: ProjectId(row.project_id),
            hash: row.hash,
            created_at: row.created_at,
        })
        .collect())
}

/// The provider does not have it any more.
pub async fn mark_gone(conn: &mut PgConnection, id: AiKeyId) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update ai_keys set state = 'gone' where id = $1 and state = 'doomed'",
        id.0
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn put_off(
    conn: &mut PgConnection,
    id: AiKeyId,
    until: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update ai_keys set next_attempt_at = $2 where id = $1 and state in ('current', 'doomed')",
        id.0,
        until
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Those in use whose limit is another one than their organization's plan has now.
pub async fn list_to_limit(
    conn: &mut PgConnection,
    limits: &[(Plan, i64)],
    now: DateTime<Utc>,
    most: i64,
) -> StorageResult<Vec<AiKeyToLimit>> {
    let plans: Vec<String> = limits.iter().map(|(plan, _)| plan.to_string()).collect();
    let cents: Vec<i64> = limits.iter().map(|(_, cents)| *cents).collect();
    let rows = sqlx::query!(
        r#"select k.id, k.project_id, k.hash as "hash!", l.cents as "cents!"
           from ai_keys k
           join projects p on p.id = k.project_id
           join organizations o on o.id = p.organization_id
           join unnest($1::text[], $2::bigint[]) as l (plan, cents) on l.plan = o.plan
           where k.state = 'current' and k.monthly_limit <> l.cents and k.next_attempt_at <= $3
           order by k.next_attempt_at limit $4"#,
        &plans,
        &cents,
        now,
        most
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| AiKeyToLimit {
            id: AiKeyId(row.id),
            project: ProjectId(row.project_id),
            hash: row.hash,
            monthly_limit: row.cents,
        })
        .collect())
}

/// The provider was told.
pub async fn set_limit(
    conn: &mut PgConnection,
    id: AiKeyId,
    monthly_limit: i64,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update ai_keys set monthly_limit = $2 where id = $1 and state = 'current'",
        id.0,
        monthly_limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Those that are gone, and were made before then.
pub async fn delete_gone(conn: &mut PgConnection, before: DateTime<Utc>) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from ai_keys where id in
             (select id from ai_keys where state = 'gone' and created_at < $1 limit $2)",
        before,
        BATCH.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
