//! Where partners want to be told of events, and the events on their way. Whoever queues one does
//! so in the transaction of what happened; a worker tells it later, so that a dead receiver loses
//! nothing and holds up nobody.

use chrono::{DateTime, Utc};
use cp_model::{PartnerId, WebhookEventId, WebhookEventType, WebhookState};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{StorageError, StorageResult, parse};
use crate::notifications::{Topic, notify};

/// An endpoint with its sealed secrets.
pub struct StoredWebhook {
    pub url: String,
    pub secret_sealed: Vec<u8>,
    pub previous_secret_sealed: Option<Vec<u8>>,
    /// Until then the previous secret signs, too.
    pub previous_until: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// Locked until the transaction ends.
pub async fn lock_webhook(
    conn: &mut PgConnection,
    partner: &PartnerId,
) -> StorageResult<Option<StoredWebhook>> {
    Ok(sqlx::query_as!(
        StoredWebhook,
        "select url, secret_sealed, previous_secret_sealed, previous_until, created_at, updated_at
         from partner_webhooks where partner_id = $1 for update",
        partner.as_str()
    )
    .fetch_optional(conn)
    .await?)
}

pub async fn find_webhook(
    conn: &mut PgConnection,
    partner: &PartnerId,
) -> StorageResult<Option<StoredWebhook>> {
    Ok(sqlx::query_as!(
        StoredWebhook,
        "select url, secret_sealed, previous_secret_sealed, previous_until, created_at, updated_at
         from partner_webhooks where partner_id = $1",
        partner.as_str()
    )
    .fetch_optional(conn)
    .await?)
}

/// False: the partner has one.
pub async fn insert_webhook(
    conn: &mut PgConnection,
    partner: &PartnerId,
    url: &str,
    secret_sealed: &[u8],
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "insert into partner_webhooks (partner_id, url, secret_sealed, created_at, updated_at)
         values ($1, $2, $3, $4, $4) on conflict (partner_id) do nothing",
        partner.as_str(),
        url,
        secret_sealed,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn set_url(
    conn: &mut PgConnection,
    partner: &PartnerId,
    url: &str,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update partner_webhooks set url = $2, updated_at = $3 where partner_id = $1",
        partner.as_str(),
        url,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The secret so far goes on until `previous_until`; one from before that ends.
pub async fn rotate_secret(
    conn: &mut PgConnection,
    partner: &PartnerId,
    secret_sealed: &[u8],
    previous_until: DateTime<Utc>,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update partner_webhooks set previous_secret_sealed = secret_sealed, previous_until = $3,
                secret_sealed = $2, updated_at = $4
         where partner_id = $1",
        partner.as_str(),
        secret_sealed,
        previous_until,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Removes the endpoint and gives up what was on its way there. False: there is none.
pub async fn delete_webhook(conn: &mut PgConnection, partner: &PartnerId) -> StorageResult<bool> {
    // Waits for transactions that queue an event; a second statement then sees what they queued.
    let done = sqlx::query!(
        "delete from partner_webhooks where partner_id = $1",
        partner.as_str()
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "update webhook_events set state = 'failed', last_error = 'the webhook was removed'
         where partner_id = $1 and state = 'queued'",
        partner.as_str()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// An event to queue.
pub struct NewEvent<'a> {
    pub id: WebhookEventId,
    pub partner: &'a PartnerId,
    pub kind: WebhookEventType,
    pub data: &'a Value,
    pub give_up_at: DateTime<Utc>,
}

/// Queues an event for a partner that has an endpoint. False: it has none.
pub async fn insert_event(
    conn: &mut PgConnection,
    new: &NewEvent<'_>,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    // The lock keeps the endpoint until this commits: an event without one would wait for ever.
    let done = sqlx::query!(
        "insert into webhook_events (id, partner_id, type, data, created_at, state, next_attempt_at, give_up_at)
         select $1, partner_id, $3, $4, $5, 'queued', $5, $6 from partner_webhooks
         where partner_id = $2 for key share",
        new.id.0,
        new.partner.as_str(),
        new.kind.as_str(),
        new.data,
        now,
        new.give_up_at
    )
    .execute(&mut *conn)
    .await?;
    let is_queued = done.rows_affected() == 1;
    if is_queued {
        notify(conn, Topic::Webhooks, &new.id.to_string()).await?;
    }
    Ok(is_queued)
}

/// An event that a worker has claimed, and where it goes.
pub struct ClaimedEvent {
    pub id: WebhookEventId,
    pub partner: PartnerId,
    pub kind: WebhookEventType,
    pub data: Value,
    pub created_at: DateTime<Utc>,
    /// This one included.
    pub attempts: i32,
    pub webhook: StoredWebhook,
}

/// How many events a worker takes.
pub struct Places<'a> {
    pub free: i64,
    /// At once, of any partner.
    pub per_partner: i64,
    /// Partners whose events the worker is telling, and how many of each.
    pub busy: &'a [(PartnerId, i64)],
}

/// Claims events that are due, few of each partner: first those of partners that the worker tells
/// least just now, so that receivers which do not answer hold up nobody else; of these the longest
/// due. Nobody else gets them until `until`, when a worker that says nothing is taken for dead.
pub async fn claim_due(
    conn: &mut PgConnection,
    places: &Places<'_>,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
) -> StorageResult<Vec<ClaimedEvent>> {
    let partners: Vec<String> = places.busy.iter().map(|(p, _)| p.to_string()).collect();
    let counts: Vec<i64> = places.busy.iter().map(|(_, count)| *count).collect();
    let rows = sqlx::query!(
        r#"with due as (
             select e.id from partner_webhooks w
             left join unnest($4::text[], $5::bigint[]) as busy (partner_id, count) on busy.partner_id = w.partner_id
             cross join lateral (
                 select id, next_attempt_at from webhook_events
                 where partner_id = w.partner_id and state = 'queued' and next_attempt_at <= $1
                 order by next_attempt_at limit greatest($6 - coalesce(busy.count, 0), 0) for update skip locked
             ) e
             order by coalesce(busy.count, 0) + row_number() over (partition by w.partner_id order by e.next_attempt_at),
                      e.next_attempt_at limit $3
           )
           update webhook_events e set attempts = e.attempts + 1, next_attempt_at = $2
           from due, partner_webhooks w where e.id = due.id and w.partner_id = e.partner_id
           returning e.id, e.partner_id, e.type as kind, e.data, e.created_at, e.attempts,
                     w.url, w.secret_sealed, w.previous_secret_sealed, w.previous_until,
                     w.created_at as webhook_created_at, w.updated_at as webhook_updated_at"#,
        now,
        until,
        places.free,
        &partners,
        &counts,
        places.per_partner
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(ClaimedEvent {
                id: WebhookEventId(row.id),
                partner: parse("webhook_events", "partner_id", &row.partner_id)?,
                kind: parse("webhook_events", "type", &row.kind)?,
                data: row.data,
                created_at: row.created_at,
                attempts: row.attempts,
                webhook: StoredWebhook {
                    url: row.url,
                    secret_sealed: row.secret_sealed,
                    previous_secret_sealed: row.previous_secret_sealed,
                    previous_until: row.previous_until,
                    created_at: row.webhook_created_at,
                    updated_at: row.webhook_updated_at,
                },
            })
        })
        .collect()
}

/// The receiver has it.
pub async fn mark_delivered(
    conn: &mut PgConnection,
    id: WebhookEventId,
    status: i32,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update webhook_events set state = 'delivered', delivered_at = $3, last_status = $2, last_error = null
         where id = $1 and state <> 'delivered'",
        id.0,
        status,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Why an attempt did not succeed.
pub struct Refusal<'a> {
    /// Of HTTP; none: there was no answer.
    pub status: Option<i32>,
    pub error: &'a str,
}

/// The attempt of this number failed. It is tried again at `next_attempt_at`, or given up if that
/// is later than the event is worth. None: it is somebody else's by now; else what became of it.
pub async fn mark_attempt_failed(
    conn: &mut PgConnection,
    id: WebhookEventId,
    attempt: i32,
    refusal: &Refusal<'_>,
    next_attempt_at: DateTime<Utc>,
) -> StorageResult<Option<WebhookState>> {
    let state = sqlx::query_scalar!(
        "update webhook_events set next_attempt_at = $5, last_status = $3, last_error = $4,
                state = case when $5 < give_up_at then 'queued' else 'failed' end
         where id = $1 and attempts = $2 and state = 'queued' returning state",
        id.0,
        attempt,
        refusal.status,
        refusal.error,
        next_attempt_at
    )
    .fetch_optional(conn)
    .await?;
    state
        .map(|state| parse("webhook_events", "state", &state))
        .transpose()
}

/// Tells an event again from now on, as if it had just happened. False: the partner has no such
/// event.
pub async fn mark_queued_again(
    conn: &mut PgConnection,
    partner: &PartnerId,
    id: WebhookEventId,
    give_up_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update webhook_events set state = 'queued', attempts = 0, next_attempt_at = $3, give_up_at = $4,
                delivered_at = null, last_status = null, last_error = null
         where partner_id = $1 and id = $2",
        partner.as_str(),
        id.0,
        now,
        give_up_at
    )
    .execute(&mut *conn)
    .await?;
    notify(conn, Topic::Webhooks, &id.to_string()).await?;
    Ok(done.rows_affected() == 1)
}

/// An event as operators see it.
#[derive(Debug, Clone)]
pub struct WebhookEventSummary {
    pub id: WebhookEventId,
    pub kind: WebhookEventType,
    pub data: Value,
    pub state: WebhookState,
    pub attempts: i32,
    pub created_at: DateTime<Utc>,
    pub next_attempt_at: DateTime<Utc>,
    pub delivered_at: Option<DateTime<Utc>>,
    pub last_status: Option<i32>,
    pub last_error: Option<String>,
}

struct EventRow {
    id: Uuid,
    kind: String,
    data: Value,
    state: String,
    attempts: i32,
    created_at: DateTime<Utc>,
    next_attempt_at: DateTime<Utc>,
    delivered_at: Option<DateTime<Utc>>,
    last_status: Option<i32>,
    last_error: Option<String>,
}

impl TryFrom<EventRow> for WebhookEventSummary {
    type Error = StorageError;

    fn try_from(row: EventRow) -> StorageResult<Self> {
        Ok(Self {
            id: WebhookEventId(row.id),
            kind: parse("webhook_events", "type", &row.kind)?,
            data: row.data,
            state: parse("webhook_events", "state", &row.state)?,
            attempts: row.attempts,
            created_at: row.created_at,
            next_attempt_at: row.next_attempt_at,
            delivered_at: row.delivered_at,
            last_status: row.last_status,
            last_error: row.last_error,
        })
    }
}

pub async fn find_event(
    conn: &mut PgConnection,
    partner: &PartnerId,
    id: WebhookEventId,
) -> StorageResult<Option<WebhookEventSummary>> {
    sqlx::query_as!(
        EventRow,
        "select id, type as kind, data, state, attempts, created_at, next_attempt_at, delivered_at, last_status, last_error
         from webhook_events where partner_id = $1 and id = $2",
        partner.as_str(),
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(WebhookEventSummary::try_from)
    .transpose()
}

/// Newest first.
pub async fn list_events(
    conn: &mut PgConnection,
    partner: &PartnerId,
    state: Option<WebhookState>,
    limit: i64,
) -> StorageResult<Vec<WebhookEventSummary>> {
    sqlx::query_as!(
        EventRow,
        "select id, type as kind, data, state, attempts, created_at, next_attempt_at, delivered_at, last_status, last_error
         from webhook_events where partner_id = $1 and ($2::text is null or state = $2)
         order by id desc limit $3",
        partner.as_str(),
        state.map(WebhookState::as_str),
        limit
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(WebhookEventSummary::try_from)
    .collect()
}
