//! Organizations as the payment provider knows them, and what it told of them.

use chrono::{DateTime, Utc};
use cp_model::{OrganizationId, Plan};
use sqlx::PgConnection;

use crate::error::{StorageResult, parse};
use crate::notifications::{Topic, notify};
use crate::retention::BATCH;

/// An organization whose plan is to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueCustomer {
    pub organization: OrganizationId,
    pub customer: String,
    /// Which time this is: what was asked for later is newer.
    pub round: i64,
    /// How often in a row it could not be asked for.
    pub failures: i32,
    /// Whether the organization was deleted: what it pays for has to end.
    pub is_deleted: bool,
}

/// What operators see of an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganizationSummary {
    pub id: OrganizationId,
    pub name: String,
    pub plan: Plan,
    pub granted_plan: Option<Plan>,
    /// None: it never began to pay.
    pub paid_plan: Option<Plan>,
    pub customer: Option<String>,
    pub created_at: DateTime<Utc>,
}

/// People's organizations, the newest first.
pub async fn list_organizations(
    conn: &mut PgConnection,
    limit: i64,
) -> StorageResult<Vec<OrganizationSummary>> {
    let rows = sqlx::query!(
        "select o.id, o.name, o.plan, o.granted_plan, o.created_at, c.paid_plan as \"paid_plan?\", c.customer_id as \"customer_id?\"
         from organizations o left join billing_customers c on c.organization_id = o.id
         where o.kind <> 'partner' and o.deleted_at is null
         order by o.created_at desc, o.id desc limit $1",
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let plan_of = |column, text: Option<String>| {
                text.map(|text| parse("organizations", column, &text))
                    .transpose()
            };
            Ok(OrganizationSummary {
                id: OrganizationId(row.id),
                name: row.name,
                plan: parse("organizations", "plan", &row.plan)?,
                granted_plan: plan_of("granted_plan", row.granted_plan)?,
                paid_plan: plan_of("paid_plan", row.paid_plan)?,
                customer: row.customer_id,
                created_at: row.created_at,
            })
        })
        .collect()
}

pub async fn find_customer(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> StorageResult<Option<String>> {
    let found = sqlx::query_scalar!(
        "select customer_id from billing_customers where organization_id = $1",
        organization.0
    );
    Ok(found.fetch_optional(conn).await?)
}

/// Notes the organization's customer, unless it has one; gives the one that it has.
pub async fn insert_customer(
    conn: &mut PgConnection,
    organization: OrganizationId,
    customer: &str,
    now: DateTime<Utc>,
) -> StorageResult<String> {
    let kept = sqlx::query_scalar!(
        "insert into billing_customers as c (organization_id, customer_id, created_at, due_at) values ($1, $2, $3, $3)
         on conflict (organization_id) do update set customer_id = c.customer_id
         returning customer_id",
        organization.0,
        customer,
        now
    );
    Ok(kept.fetch_one(conn).await?)
}

/// Another customer in place of one that is no more.
pub async fn replace_customer(
    conn: &mut PgConnection,
    organization: OrganizationId,
    gone: &str,
    customer: &str,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update billing_customers set customer_id = $3, round = round + 1, due_at = $4, failures = 0
         where organization_id = $1 and customer_id = $2",
        organization.0,
        gone,
        customer,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The organization that a customer is; none: it is none of ours.
pub async fn find_organization(
    conn: &mut PgConnection,
    customer: &str,
) -> StorageResult<Option<OrganizationId>> {
    let found = sqlx::query_scalar!(
        "select organization_id from billing_customers where customer_id = $1",
        customer
    );
    Ok(found.fetch_optional(conn).await?.map(OrganizationId))
}

/// False: it was told before.
pub async fn insert_event(
    conn: &mut PgConnection,
    id: &str,
    kind: &str,
    organization: OrganizationId,
    happened_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "insert into billing_events (id, kind, organization_id, happened_at, received_at) values ($1, $2, $3, $4, $5)
         on conflict (id) do nothing",
        id,
        kind,
        organization.0,
        happened_at,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Has the provider asked at once, whatever is being asked now. False: it never had anything to do with it.
pub async fn mark_due(
    conn: &mut PgConnection,
    organization: OrganizationId,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update billing_customers set round = round + 1, due_at = $2, failures = 0 where organization_id = $1",
        organization.0,
        now
    )
    .execute(&mut *conn)
    .await?;
    let is_marked = done.rows_affected() == 1;
    if is_marked {
        notify(conn, Topic::Billing, &organization.to_string()).await?;
    }
    Ok(is_marked)
}

/// Takes some that are due. Whoever takes them has until `again_at` before another one does.
pub async fn take_due(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
    again_at: DateTime<Utc>,
    limit: i64,
) -> StorageResult<Vec<DueCustomer>> {
    let rows = sqlx::query!(
        "update billing_customers c set round = c.round + 1, due_at = $2
         from organizations o
         where o.id = c.organization_id and c.organization_id in
             (select organization_id from billing_customers where due_at <= $1
              order by due_at limit $3 for update skip locked)
         returning c.organization_id, c.customer_id, c.round, c.failures, (o.deleted_at is not null) as \"is_deleted!\"",
        now,
        again_at,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| DueCustomer {
            organization: OrganizationId(row.organization_id),
            customer: row.customer_id,
            round: row.round,
            failures: row.failures,
            is_deleted: row.is_deleted,
        })
        .collect())
}

/// Takes what the provider answered, unless a later answer was taken. If something was told meanwhile it stays due.
pub async fn take_answer(
    conn: &mut PgConnection,
    due: &DueCustomer,
    paid: Plan,
    again_at: Option<DateTime<Utc>>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update billing_customers
         set paid_plan = $4, taken_round = $3, failures = 0, due_at = case when round = $3 then $5 else due_at end
         where organization_id = $1 and customer_id = $2 and taken_round < $3",
        due.organization.0,
        due.customer,
        due.round,
        paid.as_str(),
        again_at
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// It could not be asked.
pub async fn put_off(
    conn: &mut PgConnection,
    due: &DueCustomer,
    again_at: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "update billing_customers set failures = failures + 1, due_at = $3
         where organization_id = $1 and round = $2",
        due.organization.0,
        due.round,
        again_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What the organization pays for, as last answered.
pub async fn find_paid_plan(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> StorageResult<Option<Plan>> {
    let found = sqlx::query_scalar!(
        "select paid_plan from billing_customers where organization_id = $1",
        organization.0
    );
    let found = found.fetch_optional(conn).await?;
    found
        .map(|plan| parse("billing_customers", "paid_plan", &plan))
        .transpose()
}

pub async fn delete_events(conn: &mut PgConnection, before: DateTime<Utc>) -> StorageResult<u64> {
    let done = sqlx::query!(
        "delete from billing_events where id in (select id from billing_events where received_at < $1 limit $2)",
        before,
        BATCH.cast_signed()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
