//! Operations: the truth about long work. The queue only carries wake-ups; whoever wakes up
//! leases the operation here, and every later write names the lease's generation, so that a
//! worker that lost its lease changes no row (design.md, invariant 4).
//!
//! Leases compare database time with database time. `next_attempt_at` and `deadline_at` are
//! business time, from the caller's clock.

use chrono::{DateTime, Utc};
use cp_model::{
    Failure, Operation, OperationId, OperationKind, OperationState, PartnerId, ProjectId,
};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{StorageError, StorageResult, parse};
use crate::notifications::{Topic, notify};

struct OperationRow {
    id: Uuid,
    project_id: Uuid,
    kind: String,
    state: String,
    step: String,
    data: Value,
    attempts: i32,
    max_attempts: i32,
    next_attempt_at: DateTime<Utc>,
    deadline_at: Option<DateTime<Utc>>,
    generation: i64,
    lease_owner: Option<String>,
    lease_until: Option<DateTime<Utc>>,
    wakes: i64,
    error_code: Option<String>,
    error_message: Option<String>,
    requested_by: String,
    request_id: String,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

impl TryFrom<OperationRow> for Operation {
    type Error = StorageError;
    fn try_from(row: OperationRow) -> StorageResult<Self> {
        Ok(Self {
            id: OperationId(row.id),
            project_id: ProjectId(row.project_id),
            kind: parse("operations", "kind", &row.kind)?,
            state: parse("operations", "state", &row.state)?,
            step: row.step,
            data: row.data,
            attempts: row.attempts,
            max_attempts: row.max_attempts,
            next_attempt_at: row.next_attempt_at,
            deadline_at: row.deadline_at,
            generation: row.generation,
            lease_owner: row.lease_owner,
            lease_until: row.lease_until,
            wakes: row.wakes,
            error: row.error_code.map(|code| Failure {
                code,
                message: row.error_message.unwrap_or_default(),
            }),
            requested_by: row.requested_by,
            request_id: row.request_id,
            created_at: row.created_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
        })
    }
}

/// A statement on operations `o` whose columns stand between its head and its tail.
macro_rules! query_operations {
    ($head:literal, $tail:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            OperationRow,
            $head + " o.id, o.project_id, o.kind, o.state, o.step, o.data, o.attempts, o.max_attempts, \
                     o.next_attempt_at, o.deadline_at, o.generation, o.lease_owner, o.lease_until, o.wakes, \
                     o.error_code, o.error_message, o.requested_by, o.request_id, o.created_at, o.started_at, \
                     o.finished_at " + $tail
            $(, $arg)*
        )
    };
}

/// Work that is to begin at once.
pub struct NewOperation<'a> {
    pub id: OperationId,
    pub project_id: ProjectId,
    pub kind: OperationKind,
    pub first_step: &'a str,
    pub data: Value,
    pub requested_by: &'a str,
    pub request_id: &'a str,
    pub now: DateTime<Utc>,
}

/// Refused with the unique constraint `operations_in_flight_key` while the project has another
/// operation in flight.
pub async fn insert_operation(
    conn: &mut PgConnection,
    new: &NewOperation<'_>,
) -> StorageResult<()> {
    let deadline = new.kind.deadline().map(|d| new.now + d);
    sqlx::query!(
        "insert into operations (id, project_id, kind, state, step, data, max_attempts, next_attempt_at, deadline_at,
                                 requested_by, request_id, created_at)
         values ($1, $2, $3, 'queued', $4, $5, $6, $7, $8, $9, $10, $7)",
        new.id.0,
        new.project_id.0,
        new.kind.as_str(),
        new.first_step,
        new.data,
        new.kind.max_attempts(),
        new.now,
        deadline,
        new.requested_by,
        new.request_id
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// For the service itself: keeps a failure that nobody asked for (a lost machine), so that an
/// operator finds and retries it.
pub async fn insert_failed_operation(
    conn: &mut PgConnection,
    new: &NewOperation<'_>,
    failure: &Failure,
) -> StorageResult<()> {
    sqlx::query!(
        "insert into operations (id, project_id, kind, state, step, data, max_attempts, next_attempt_at,
                                 requested_by, request_id, created_at, finished_at, error_code, error_message)
         values ($1, $2, $3, 'failed', $4, $5, $6, $7, $8, $9, $7, $7, $10, $11)",
        new.id.0,
        new.project_id.0,
        new.kind.as_str(),
        new.first_step,
        new.data,
        new.kind.max_attempts(),
        new.now,
        new.requested_by,
        new.request_id,
        failure.code,
        failure.message
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn find_in_flight(
    conn: &mut PgConnection,
    project: ProjectId,
) -> StorageResult<Option<Operation>> {
    query_operations!(
        "select",
        "from operations o where o.project_id = $1 and o.state in ('queued', 'running', 'waiting')",
        project.0
    )
    .fetch_optional(conn)
    .await?
    .map(Operation::try_from)
    .transpose()
}

/// An operation on a live project that was made through the partner: with the project's end, access
/// to all of it ends.
pub async fn find_partner_operation(
    conn: &mut PgConnection,
    partner: &PartnerId,
    id: OperationId,
) -> StorageResult<Option<Operation>> {
    query_operations!(
        "select",
        "from operations o join projects p on p.id = o.project_id
         where p.partner_id = $1 and o.id = $2 and p.status not in ('deleting', 'deleted')",
        partner.as_str(),
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(Operation::try_from)
    .transpose()
}

/// For operators and the worker: any operation.
pub async fn find_operation(
    conn: &mut PgConnection,
    id: OperationId,
) -> StorageResult<Option<Operation>> {
    query_operations!("select", "from operations o where o.id = $1", id.0)
        .fetch_optional(conn)
        .await?
        .map(Operation::try_from)
        .transpose()
}

/// For operators, newest first.
pub async fn list_operations(
    conn: &mut PgConnection,
    project: Option<ProjectId>,
    state: Option<OperationState>,
    limit: i64,
) -> StorageResult<Vec<Operation>> {
    query_operations!(
        "select",
        "from operations o where ($1::uuid is null or o.project_id = $1) and ($2::text is null or o.state = $2)
         order by o.created_at desc, o.id desc limit $3",
        project.map(|id| id.0),
        state.map(OperationState::as_str),
        limit
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Operation::try_from)
    .collect()
}

/// Leases the operation to `owner` if it is due and nobody holds it. One of a kind that this release
/// does not know is left to the workers of the newer one that put it there.
pub async fn lease(
    conn: &mut PgConnection,
    id: OperationId,
    owner: &str,
    lease_seconds: f64,
    now: DateTime<Utc>,
) -> StorageResult<Option<Operation>> {
    query_operations!(
        "update operations o set state = 'running', generation = o.generation + 1, lease_owner = $2,
                lease_until = clock_timestamp() + make_interval(secs => $3), started_at = coalesce(o.started_at, $4)
         where o.id = $1 and o.state in ('queued', 'running', 'waiting') and o.next_attempt_at <= $4
           and (o.lease_until is null or o.lease_until < clock_timestamp()) and o.kind = any($5)
         returning",
        "",
        id.0,
        owner,
        lease_seconds,
        now,
        &known_kinds()
    )
    .fetch_optional(conn)
    .await?
    .map(Operation::try_from)
    .transpose()
}

pub async fn renew_lease(
    conn: &mut PgConnection,
    id: OperationId,
    generation: i64,
    lease_seconds: f64,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update operations set lease_until = clock_timestamp() + make_interval(secs => $3)
         where id = $1 and generation = $2 and state = 'running'",
        id.0,
        generation,
        lease_seconds
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether the lease of this generation still holds; if so, nobody takes it before the
/// transaction ends.
pub async fn lock_lease(
    conn: &mut PgConnection,
    id: OperationId,
    generation: i64,
) -> StorageResult<bool> {
    let held = sqlx::query_scalar!(
        "select id from operations where id = $1 and generation = $2 and state = 'running' for update",
        id.0,
        generation
    )
    .fetch_optional(conn)
    .await?;
    Ok(held.is_some())
}

/// Goes on to the next step, keeping the lease. The next step starts with a fresh count of attempts.
pub async fn mark_step(
    conn: &mut PgConnection,
    id: OperationId,
    generation: i64,
    step: &str,
    data: &Value,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update operations set step = $3, data = $4, attempts = 0, error_code = null, error_message = null
         where id = $1 and generation = $2 and state = 'running'",
        id.0,
        generation,
        step,
        data
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Sleeps until `until`, or not at all if the operation was woken since it was leased: the event
/// that the step would wait for may already have come.
pub async fn mark_waiting(
    conn: &mut PgConnection,
    id: OperationId,
    generation: i64,
    wakes_seen: i64,
    until: DateTime<Utc>,
    now: DateTime<Utc>,
) -> StorageResult<Option<DateTime<Utc>>> {
    Ok(sqlx::query_scalar!(
        "update operations set state = 'waiting', lease_owner = null, lease_until = null,
                next_attempt_at = case when wakes = $3 then $4::timestamptz else $5::timestamptz end
         where id = $1 and generation = $2 and state = 'running' returning next_attempt_at",
        id.0,
        generation,
        wakes_seen,
        until,
        now
    )
    .fetch_optional(conn)
    .await?)
}

/// Shown until the step's end, which writes the data anew.
pub async fn set_progress(
    conn: &mut PgConnection,
    id: OperationId,
    generation: i64,
    bytes: i64,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update operations set data = jsonb_set(data, '{bytes_copied}', to_jsonb($3::bigint))
         where id = $1 and generation = $2",
        id.0,
        generation,
        bytes
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Keeps what the step in hand needs if it is run again.
pub async fn set_data(
    conn: &mut PgConnection,
    id: OperationId,
    generation: i64,
    data: &Value,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update operations set data = $3 where id = $1 and generation = $2 and state = 'running'",
        id.0,
        generation,
        data
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives the step another attempt at `next`.
pub async fn mark_retrying(
    conn: &mut PgConnection,
    id: OperationId,
    generation: i64,
    next: DateTime<Utc>,
    error: &Failure,
    counts: bool,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update operations set state = 'waiting', lease_owner = null, lease_until = null,
                attempts = attempts + case when $6 then 1 else 0 end,
                next_attempt_at = $3, error_code = $4, error_message = $5
         where id = $1 and generation = $2 and state = 'running'",
        id.0,
        generation,
        next,
        error.code,
        error.message,
        counts
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends the operation under its lease.
pub async fn mark_finished(
    conn: &mut PgConnection,
    id: OperationId,
    generation: i64,
    state: OperationState,
    error: Option<&Failure>,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update operations set state = $3, lease_owner = null, lease_until = null, finished_at = $4,
                error_code = $5, error_message = $6
         where id = $1 and generation = $2 and state = 'running'",
        id.0,
        generation,
        state.as_str(),
        now,
        error.map(|e| e.code.as_str()),
        error.map(|e| e.message.as_str())
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends an operation in flight from outside. Its worker, if it has one, finds its lease gone; the
/// lease's end stays readable, so that whoever follows can wait until that worker has surely let go.
pub async fn mark_cancelled(
    conn: &mut PgConnection,
    id: OperationId,
    reason: &Failure,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update operations set state = 'cancelled', generation = generation + 1, finished_at = $4,
                error_code = $2, error_message = $3
         where id = $1 and state in ('queued', 'running', 'waiting')",
        id.0,
        reason.code,
        reason.message,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A worker that found its lease gone says that it has let go.
pub async fn clear_lease(
    conn: &mut PgConnection,
    id: OperationId,
    owner: &str,
) -> StorageResult<()> {
    sqlx::query!(
        "update operations set lease_owner = null, lease_until = null
         where id = $1 and lease_owner = $2 and state in ('cancelled', 'failed', 'succeeded')",
        id.0,
        owner
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How long a worker of an earlier, cancelled operation on the project may still be at work; none:
/// nobody is.
pub async fn find_lease_of_cancelled(
    conn: &mut PgConnection,
    project: ProjectId,
) -> StorageResult<Option<f64>> {
    let seconds = sqlx::query_scalar!(
        "select extract(epoch from max(lease_until) - clock_timestamp())::float8 from operations
         where project_id = $1 and state = 'cancelled' and lease_until > clock_timestamp()",
        project.0
    )
    .fetch_one(conn)
    .await?;
    Ok(seconds)
}

/// Fails an operation in flight whose deadline has passed and that nobody holds.
pub async fn mark_expired(
    conn: &mut PgConnection,
    id: OperationId,
    failure: &Failure,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update operations set state = 'failed', generation = generation + 1, lease_owner = null, lease_until = null,
                finished_at = $4, error_code = $2, error_message = $3
         where id = $1 and state in ('queued', 'running', 'waiting') and deadline_at <= $4
           and (lease_until is null or lease_until < clock_timestamp())",
        id.0,
        failure.code,
        failure.message,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// An operator's retry: the failed operation starts again at its step (or another).
pub async fn mark_retried(
    conn: &mut PgConnection,
    id: OperationId,
    step: &str,
    deadline: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update operations set state = 'queued', step = $2, attempts = 0, next_attempt_at = $4, deadline_at = $3,
                finished_at = null, error_code = null, error_message = null
         where id = $1 and state = 'failed'",
        id.0,
        step,
        deadline,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Makes the project's operation in flight due now. Gives its id, for the wake-up message.
pub async fn wake(
    conn: &mut PgConnection,
    project: ProjectId,
    now: DateTime<Utc>,
) -> StorageResult<Option<OperationId>> {
    let id = sqlx::query_scalar!(
        "update operations set wakes = wakes + 1, next_attempt_at = least(next_attempt_at, $2)
         where project_id = $1 and state in ('queued', 'running', 'waiting') returning id",
        project.0,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(id.map(OperationId))
}

/// Operations past their deadline that nobody holds, of the kinds that this release knows.
pub async fn list_expired(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
    limit: i64,
) -> StorageResult<Vec<Operation>> {
    query_operations!(
        "select",
        "from operations o where o.state in ('queued', 'running', 'waiting') and o.deadline_at <= $1
           and (o.lease_until is null or o.lease_until < clock_timestamp()) and o.kind = any($3) limit $2",
        now,
        limit,
        &known_kinds()
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Operation::try_from)
    .collect()
}

fn known_kinds() -> Vec<String> {
    let kinds = OperationKind::ALL.iter();
    kinds.map(|kind| kind.as_str().to_owned()).collect()
}

/// How many operations are in flight by state, and the age in seconds of the oldest that is due.
pub struct QueueDepth {
    pub queued: i64,
    pub running: i64,
    pub waiting: i64,
    pub oldest_due_seconds: f64,
}

pub async fn queue_depth(conn: &mut PgConnection, now: DateTime<Utc>) -> StorageResult<QueueDepth> {
    Ok(sqlx::query_as!(
        QueueDepth,
        r#"select count(*) filter (where state = 'queued') as "queued!",
                  count(*) filter (where state = 'running') as "running!",
                  count(*) filter (where state = 'waiting') as "waiting!",
                  coalesce(extract(epoch from $1 - min(next_attempt_at)
                      filter (where next_attempt_at <= $1 and state <> 'running')), 0)::float8 as "oldest_due_seconds!"
           from operations where state in ('queued', 'running', 'waiting')"#,
        now
    )
    .fetch_one(conn)
    .await?)
}

/// Tells who waits for the project that something changed about its operation.
pub async fn notify_project(conn: &mut PgConnection, project: ProjectId) -> StorageResult<()> {
    notify(conn, Topic::Projects, &project.to_string()).await
}
