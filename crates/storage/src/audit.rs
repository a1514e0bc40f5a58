//! The audit log: who changed what, from where, in which request.

use chrono::{DateTime, Utc};
use cp_model::{OrganizationId, PartnerId};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::StorageResult;

/// An entry as it is read.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    pub id: Uuid,
    pub at: DateTime<Utc>,
    pub actor: String,
    /// Of the person who is the actor.
    pub actor_email: Option<String>,
    pub action: String,
    pub target_type: String,
    pub target_id: String,
    pub address: Option<String>,
    pub request_id: Option<String>,
    pub details: Value,
}

/// One entry. `details` never holds a secret.
#[derive(Debug)]
pub struct AuditEntry<'a> {
    pub at: DateTime<Utc>,
    /// `partner:<id>`, `user:<id>`, `backend:<project>`, `operator` or `system`.
    pub actor: &'a str,
    pub partner_id: Option<&'a PartnerId>,
    pub organization_id: Option<OrganizationId>,
    /// A noun and a verb, as in `project.paused`.
    pub action: &'a str,
    pub target_type: &'a str,
    pub target_id: &'a str,
    pub address: Option<&'a str>,
    pub request_id: Option<&'a str>,
    pub details: Value,
}

pub async fn insert_entry(conn: &mut PgConnection, entry: AuditEntry<'_>) -> StorageResult<()> {
    sqlx::query!(
        "insert into audit_log (id, at, actor, partner_id, organization_id, action, target_type, target_id,
                                address, request_id, details)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        Uuid::now_v7(),
        entry.at,
        entry.actor,
        entry.partner_id.map(PartnerId::as_str),
        entry.organization_id.map(|id| id.0),
        entry.action,
        entry.target_type,
        entry.target_id,
        entry.address,
        entry.request_id,
        entry.details
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An organization's entries, the newest first, before a place in the log (`at`, `id`).
pub async fn list_organization_entries(
    conn: &mut PgConnection,
    organization: OrganizationId,
    before: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> StorageResult<Vec<StoredEntry>> {
    let (at, id) = before.unzip();
    let entries = sqlx::query_as!(
        StoredEntry,
        r#"select a.id, a.at, a.actor, u.email as "actor_email?", a.action, a.target_type, a.target_id, a.address,
                a.request_id, a.details
         from audit_log a left join users u
             on u.id = case when a.actor like 'user:%' then substr(a.actor, 6)::uuid end
         where a.organization_id = $1 and ($2::timestamptz is null or (a.at, a.id) < ($2, $3::uuid))
         order by a.at desc, a.id desc limit $4"#,
        organization.0,
        at,
        id,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(entries)
}
