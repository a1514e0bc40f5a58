//! Machines: the intent before the effect, the provider's answer after it, and what agents report.

use chrono::{DateTime, Utc};
use cp_model::agent_protocol::ReportRequest;
use cp_model::{InstanceType, Machine, MachineId, MachineSize, MachineState, ProjectId, Region};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{StorageError, StorageResult, parse};
use crate::notifications::{Topic, notify};

struct MachineRow {
    id: Uuid,
    provider: String,
    provider_ref: Option<String>,
    region: String,
    instance_type: String,
    volume_gib: i32,
    state: String,
    project_id: Option<Uuid>,
    held_data: bool,
    address: Option<String>,
    desired_generation: i64,
    restarts: i64,
    observed_generation: Option<i64>,
    observed_state: Option<String>,
    observed_restarts: Option<i64>,
    backend_version: Option<String>,
    backend_release: Option<String>,
    rolled_back_from: Option<String>,
    agent_message: Option<String>,
    bootstrap_expires_at: Option<DateTime<Utc>>,
    registered_at: Option<DateTime<Utc>>,
    last_seen_at: Option<DateTime<Utc>>,
    missing_since: Option<DateTime<Utc>>,
    launch_attempted_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl TryFrom<MachineRow> for Machine {
    type Error = StorageError;
    fn try_from(row: MachineRow) -> StorageResult<Self> {
        Ok(Self {
            id: MachineId(row.id),
            provider: row.provider,
            provider_ref: row.provider_ref,
            region: parse("machines", "region", &row.region)?,
            instance_type: parse("machines", "instance_type", &row.instance_type)?,
            volume_gib: row.volume_gib,
            state: parse("machines", "state", &row.state)?,
            project_id: row.project_id.map(ProjectId),
            held_data: row.held_data,
            address: row.address,
            desired_generation: row.desired_generation,
            restarts: row.restarts,
            observed_generation: row.observed_generation,
            observed_state: row
                .observed_state
                .map(|s| parse("machines", "observed_state", &s))
                .transpose()?,
            observed_restarts: row.observed_restarts,
            backend_version: row.backend_version,
            backend_release: row.backend_release,
            rolled_back_from: row.rolled_back_from,
            agent_message: row.agent_message,
            bootstrap_expires_at: row.bootstrap_expires_at,
            registered_at: row.registered_at,
            last_seen_at: row.last_seen_at,
            missing_since: row.missing_since,
            launch_attempted_at: row.launch_attempted_at,
            created_at: row.created_at,
        })
    }
}

/// A statement on machines `m` whose columns stand between its head and its tail.
macro_rules! query_machines {
    ($head:literal, $tail:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            MachineRow,
            $head + " m.id, m.provider, m.provider_ref, m.region, m.instance_type, m.volume_gib, m.state, \
                     m.project_id, m.held_data, m.address, m.desired_generation, m.restarts, \
                     m.observed_generation, m.observed_state, m.observed_restarts, m.backend_version, \
                     m.backend_release, m.rolled_back_from, m.agent_message, m.bootstrap_expires_at, m.registered_at, \
                     m.last_seen_at, m.missing_since, m.launch_attempted_at, m.created_at " + $tail
            $(, $arg)*
        )
    };
}

/// A machine that we mean to launch.
pub struct NewMachine<'a> {
    pub id: MachineId,
    pub provider: &'a str,
    pub region: Region,
    pub instance_type: InstanceType,
    pub volume_gib: i32,
    /// None: for the warm pool.
    pub project_id: Option<ProjectId>,
    pub bootstrap_hash: &'a [u8],
    pub bootstrap_sealed: &'a [u8],
    pub now: DateTime<Utc>,
}

pub async fn insert_machine(conn: &mut PgConnection, new: &NewMachine<'_>) -> StorageResult<()> {
    sqlx::query!(
        "insert into machines (id, provider, region, instance_type, volume_gib, state, project_id, held_data,
                               bootstrap_hash, bootstrap_sealed, created_at)
         values ($1, $2, $3, $4, $5, 'launching', $6::uuid, $6 is not null, $7, $8, $9)",
        new.id.0,
        new.provider,
        new.region.as_str(),
        new.instance_type.as_str(),
        new.volume_gib,
        new.project_id.map(|id| id.0),
        new.bootstrap_hash,
        new.bootstrap_sealed,
        new.now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes the longest-waiting warm machine for the project, of those heard of since then. Claims in parallel take different ones.
pub async fn claim_warm(
    conn: &mut PgConnection,
    provider: &str,
    region: Region,
    instance_type: InstanceType,
    project: ProjectId,
    heard_since: DateTime<Utc>,
) -> StorageResult<Option<Machine>> {
    query_machines!(
        "update machines m set project_id = $4, held_data = true
         where m.id = (select id from machines
                       where provider = $1 and region = $2 and instance_type = $3 and project_id is null
                         and not held_data and state = 'ready' and observed_state = 'idle' and missing_since is null
                         and last_seen_at > $5
                       order by created_at limit 1 for update skip locked)
         returning",
        "",
        provider,
        region.as_str(),
        instance_type.as_str(),
        project.0,
        heard_since
    )
    .fetch_optional(conn)
    .await?
    .map(Machine::try_from)
    .transpose()
}

pub async fn find_machine(
    conn: &mut PgConnection,
    id: MachineId,
) -> StorageResult<Option<Machine>> {
    query_machines!("select", "from machines m where m.id = $1", id.0)
        .fetch_optional(conn)
        .await?
        .map(Machine::try_from)
        .transpose()
}

pub async fn find_project_machine(
    conn: &mut PgConnection,
    project: ProjectId,
) -> StorageResult<Option<Machine>> {
    query_machines!(
        "select",
        "from machines m where m.project_id = $1",
        project.0
    )
    .fetch_optional(conn)
    .await?
    .map(Machine::try_from)
    .transpose()
}

pub async fn find_by_agent_token(
    conn: &mut PgConnection,
    hash: &[u8],
    now: DateTime<Utc>,
) -> StorageResult<Option<Machine>> {
    query_machines!(
        "select",
        "from machines m
         where (m.agent_token_hash = $1 or (m.previous_agent_token_hash = $1 and m.previous_agent_token_until > $2))
           and m.state not in ('terminating', 'terminated')",
        hash,
        now
    )
    .fetch_optional(conn)
    .await?
    .map(Machine::try_from)
    .transpose()
}

/// All machines of a provider's region that may still exist.
pub async fn list_living(
    conn: &mut PgConnection,
    provider: &str,
    region: Region,
) -> StorageResult<Vec<Machine>> {
    query_machines!(
        "select",
        "from machines m where m.provider = $1 and m.region = $2 and m.state <> 'terminated' order by m.created_at",
        provider,
        region.as_str()
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Machine::try_from)
    .collect()
}

/// The sealed bootstrap token, until the machine has registered.
pub async fn find_bootstrap(
    conn: &mut PgConnection,
    id: MachineId,
) -> StorageResult<Option<Vec<u8>>> {
    let sealed = sqlx::query_scalar!("select bootstrap_sealed from machines where id = $1", id.0)
        .fetch_optional(conn)
        .await?;
    Ok(sealed.flatten())
}

/// The provider took the launch. A machine that has registered meanwhile stays ready. False: it is
/// not wanted any more, or another instance is recorded for it already.
pub async fn mark_launched(
    conn: &mut PgConnection,
    id: MachineId,
    provider_ref: &str,
    address: Option<&str>,
    bootstrap_expires_at: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update machines set provider_ref = $2, address = coalesce($3, address), bootstrap_expires_at = $4,
                state = case when state = 'launching' then 'booting' else state end
         where id = $1 and state in ('launching', 'booting', 'ready')
           and (provider_ref is null or provider_ref = $2)",
        id.0,
        provider_ref,
        address,
        bootstrap_expires_at
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes the one attempt to launch the machine, unless there was one since `earlier`, of which the
/// provider may yet show a machine. Gives the attempt's time as it is stored, which names it. None:
/// there was, or the launch is recorded already.
pub async fn begin_launch(
    conn: &mut PgConnection,
    id: MachineId,
    earlier: DateTime<Utc>,
    now: DateTime<Utc>,
) -> StorageResult<Option<DateTime<Utc>>> {
    let attempt = sqlx::query_scalar!(
        "update machines set launch_attempted_at = $3
         where id = $1 and provider_ref is null and state = 'launching'
           and (launch_attempted_at is null or launch_attempted_at <= $2)
         returning launch_attempted_at",
        id.0,
        earlier,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(attempt.flatten())
}

/// That attempt surely made no machine: the next one need not wait. Another one's stays: of that
/// nothing is known.
pub async fn clear_launch(
    conn: &mut PgConnection,
    id: MachineId,
    attempt: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "update machines set launch_attempted_at = null where id = $1 and launch_attempted_at = $2",
        id.0,
        attempt
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// When a launch was last tried whose machine the provider may not show yet.
pub async fn find_launch_attempt(
    conn: &mut PgConnection,
    id: MachineId,
) -> StorageResult<Option<DateTime<Utc>>> {
    let at = sqlx::query_scalar!(
        "select launch_attempted_at from machines where id = $1",
        id.0
    )
    .fetch_optional(conn)
    .await?;
    Ok(at.flatten())
}

/// Uses up the bootstrap token: the one conditional UPDATE of invariant 10. The same pair of
/// tokens again changes nothing and succeeds, since the first answer may have been lost.
pub async fn mark_registered(
    conn: &mut PgConnection,
    id: MachineId,
    bootstrap_hash: &[u8],
    agent_token_hash: &[u8],
    agent_version: &str,
    now: DateTime<Utc>,
) -> StorageResult<Option<Machine>> {
    query_machines!(
        "update machines m set agent_token_hash = $3, agent_version = $4, bootstrap_sealed = null,
                state = 'ready', registered_at = coalesce(m.registered_at, $5), last_seen_at = $5
         where m.id = $1 and m.bootstrap_hash = $2
           and m.state in ('launching', 'booting', 'ready')
           and (m.agent_token_hash = $3
                or (m.agent_token_hash is null and (m.bootstrap_expires_at is null or m.bootstrap_expires_at > $5)))
         returning",
        "",
        id.0,
        bootstrap_hash,
        agent_token_hash,
        agent_version,
        now
    )
    .fetch_optional(conn)
    .await?
    .map(Machine::try_from)
    .transpose()
}

/// Puts `renewed` in the place of the token that was presented, which is good until
/// `previous_until`. The same pair again changes nothing and succeeds; a replaced token puts nothing
/// else in the place of the one that replaced it. False: what was presented is
/// not good, or no more.
pub async fn mark_renewed(
    conn: &mut PgConnection,
    presented: &[u8],
    renewed: &[u8],
    now: DateTime<Utc>,
    previous_until: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update machines set agent_token_hash = $2,
                previous_agent_token_hash = $1,
                previous_agent_token_until = case when agent_token_hash = $1 then $4 else previous_agent_token_until end
         where (agent_token_hash = $1
                or (previous_agent_token_hash = $1 and previous_agent_token_until > $3 and agent_token_hash = $2))
           and state not in ('terminating', 'terminated')",
        presented,
        renewed,
        now,
        previous_until
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Tells the agent that what it shall do has changed.
pub async fn bump_desired(conn: &mut PgConnection, id: MachineId) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update machines set desired_generation = desired_generation + 1
         where id = $1 and state not in ('terminating', 'terminated')",
        id.0
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::Machines, &id.to_string()).await?;
    Ok(done.rows_affected() == 1)
}

/// Asks for one restart of the backend. `wanted` is the count after it, so that asking again for
/// the same restart changes nothing.
pub async fn request_restart(
    conn: &mut PgConnection,
    id: MachineId,
    wanted: i64,
) -> StorageResult<()> {
    sqlx::query!(
        "update machines set restarts = $2, desired_generation = desired_generation + 1
         where id = $1 and restarts < $2",
        id.0,
        wanted
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::Machines, &id.to_string()).await
}

/// Keeps what the agent saw. A report of an older generation than one already kept is dropped.
/// Gives the machine as it was before.
pub async fn record_report(
    conn: &mut PgConnection,
    id: MachineId,
    report: &ReportRequest,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let kept = |text: &Option<String>, most: usize| -> Option<String> {
        text.as_ref().map(|text| text.chars().take(most).collect())
    };
    let done = sqlx::query!(
        "update machines set observed_generation = $2, observed_state = $3, observed_restarts = $4,
                backend_version = coalesce($5, backend_version), backend_release = $6, rolled_back_from = $7,
                agent_message = $8, agent_version = $9, last_seen_at = greatest(last_seen_at, $10)
         where id = $1 and coalesce(observed_generation, 0) <= $2 and state not in ('terminating', 'terminated')",
        id.0,
        report.generation,
        report.state.as_str(),
        report.restarts,
        kept(&report.backend_version, 64),
        kept(&report.backend_release, 64),
        kept(&report.rolled_back_from, 64),
        kept(&report.message, 500),
        report.agent_version.chars().take(64).collect::<String>(),
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The machine's size as the provider has it now.
pub async fn set_size(
    conn: &mut PgConnection,
    id: MachineId,
    size: MachineSize,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update machines set instance_type = $2, volume_gib = $3 where id = $1",
        id.0,
        size.instance_type.as_str(),
        size.volume_gib
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Forgets what the agent said, before its machine is started or its work changed: what is
/// reported after this is news.
pub async fn clear_observed(conn: &mut PgConnection, id: MachineId) -> StorageResult<()> {
    sqlx::query!(
        "update machines set observed_state = null where id = $1",
        id.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn set_address(
    conn: &mut PgConnection,
    id: MachineId,
    address: Option<&str>,
) -> StorageResult<()> {
    sqlx::query!(
        "update machines set address = coalesce($2, address) where id = $1",
        id.0,
        address
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Moves the machine from one of the states that may become `to`.
pub async fn mark_state(
    conn: &mut PgConnection,
    id: MachineId,
    to: MachineState,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let from: Vec<String> = MachineState::ALL
        .iter()
        .filter(|s| s.can_become(to))
        .map(|s| s.as_str().to_owned())
        .collect();
    let done = sqlx::query!(
        "update machines set state = $2,
                terminated_at = case when $2 = 'terminated' then $4 else terminated_at end,
                agent_token_hash = case when $2 in ('terminating', 'terminated') then null else agent_token_hash end,
                bootstrap_sealed = case when $2 in ('terminating', 'terminated') then null else bootstrap_sealed end,
                project_id = case when $2 = 'terminated' then null else project_id end,
                observed_state = case when $2 = 'ready' then observed_state end
         where id = $1 and state = any($3)",
        id.0,
        to.as_str(),
        &from,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// As [`mark_state`], if state and project still are what they were seen as.
pub async fn mark_state_if_as_seen(
    conn: &mut PgConnection,
    id: MachineId,
    seen_state: MachineState,
    seen_project: Option<ProjectId>,
    to: MachineState,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let as_seen = sqlx::query_scalar!(
        "select id from machines where id = $1 and state = $2 and project_id is not distinct from $3 for update",
        id.0,
        seen_state.as_str(),
        seen_project.map(|id| id.0)
    )
    .fetch_optional(&mut *conn)
    .await?;
    if as_seen.is_none() {
        return Ok(false);
    }
    mark_state(conn, id, to, now).await
}

/// Parts the machine from its project, which gets another one. It held data: it never returns to
/// the pool.
pub async fn release_from_project(conn: &mut PgConnection, id: MachineId) -> StorageResult<()> {
    sqlx::query!("update machines set project_id = null where id = $1", id.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// Remembers since when the provider does not know the machine; none: it does.
pub async fn set_missing_since(
    conn: &mut PgConnection,
    id: MachineId,
    since: Option<DateTime<Utc>>,
) -> StorageResult<()> {
    sqlx::query!(
        "update machines set missing_since = case when $2::timestamptz is null then null else coalesce(missing_since, $2) end
         where id = $1",
        id.0,
        since
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How many machines wait without a project, by region and type.
pub struct PoolLevel {
    pub region: Region,
    pub instance_type: InstanceType,
    /// Ready to be claimed.
    pub ready: i64,
    /// On their way.
    pub coming: i64,
}

pub async fn pool_levels(conn: &mut PgConnection, provider: &str) -> StorageResult<Vec<PoolLevel>> {
    let rows = sqlx::query!(
        r#"select region, instance_type,
                  count(*) filter (where state = 'ready' and observed_state = 'idle') as "ready!",
                  count(*) filter (where state <> 'ready' or observed_state is distinct from 'idle') as "coming!"
           from machines
           where provider = $1 and project_id is null and not held_data and state in ('launching', 'booting', 'ready')
           group by region, instance_type"#,
        provider
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|r| {
            Ok(PoolLevel {
                region: parse("machines", "region", &r.region)?,
                instance_type: parse("machines", "instance_type", &r.instance_type)?,
                ready: r.ready,
                coming: r.coming,
            })
        })
        .collect()
}

/// How many machines of this region and type were given to projects since `since`: the demand
/// that sizes the pool.
pub async fn count_demand(
    conn: &mut PgConnection,
    region: Region,
    instance_type: InstanceType,
    since: DateTime<Utc>,
) -> StorageResult<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) from projects where region = $1 and instance_type = $2 and created_at >= $3",
        region.as_str(),
        instance_type.as_str(),
        since
    )
    .fetch_one(conn)
    .await?;
    Ok(count.unwrap_or(0))
}

/// Takes up to `count` waiting machines out of the pool, to be terminated.
pub async fn retire_warm(
    conn: &mut PgConnection,
    provider: &str,
    region: Region,
    instance_type: InstanceType,
    count: i64,
) -> StorageResult<Vec<MachineId>> {
    let ids = sqlx::query_scalar!(
        "update machines set state = 'terminating', agent_token_hash = null, bootstrap_sealed = null
         where id in (select id from machines
                      where provider = $1 and region = $2 and instance_type = $3 and project_id is null
                        and not held_data and state = 'ready'
                      order by created_at desc limit $4 for update skip locked)
         returning id",
        provider,
        region.as_str(),
        instance_type.as_str(),
        count
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(MachineId).collect())
}

/// Only one process fills the pool at a time. False: another one is at it. Held until the
/// transaction ends.
pub async fn try_lock_pool(conn: &mut PgConnection) -> StorageResult<bool> {
    Ok(
        sqlx::query_scalar("select pg_try_advisory_xact_lock(hashtext('warm_pool'))")
            .fetch_one(conn)
            .await?,
    )
}

/// Host and port of its Postgres, once they are known.
pub async fn find_database_address(
    conn: &mut PgConnection,
    id: MachineId,
) -> StorageResult<Option<String>> {
    let address = sqlx::query_scalar!("select database_address from machines where id = $1", id.0)
        .fetch_optional(conn)
        .await?;
    Ok(address.flatten())
}

pub async fn set_database_address(
    conn: &mut PgConnection,
    id: MachineId,
    address: &str,
) -> StorageResult<()> {
    sqlx::query!(
        "update machines set database_address = $2 where id = $1 and database_address is distinct from $2",
        id.0,
        address
    )
    .execute(conn)
    .await?;
    Ok(())
}
