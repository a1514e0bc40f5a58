//! `GET /organizations/v1/{organizationId}/audit-log`.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use cp_domain::{AuditPlace, AuditRecord, ControlPlane};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::bearer::Bearer;
use crate::docs::errors::{BearerErrors, MemberErrors};
use crate::params::{self, OrganizationParam, OrganizationPath, QueryText};
use crate::problem::Problem;
use crate::wire::time;

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 100;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// `next_cursor` of the page before.
    #[param(required = false, nullable = false)]
    cursor: Option<String>,
    /// Entries on a page; 50 if left out.
    #[param(value_type = Option<u32>, required = false, nullable = false, minimum = 1, maximum = 100)]
    limit: Option<String>,
}

/// One change that somebody made.
#[derive(Serialize, ToSchema)]
struct AuditEntry {
    id: Uuid,
    #[serde(serialize_with = "time::seconds")]
    #[schema(example = "2026-08-20T07:31:12Z")]
    at: DateTime<Utc>,
    /// `user:` and an id, `partner:` and an id, `operator` or `system`.
    #[schema(example = "user:019a2f5e-1c7b-7d10-9a43-6f0c8d2b7e11")]
    actor: String,
    /// The person's address; null when it was none.
    #[schema(required = true, example = "ada@example.com")]
    actor_email: Option<String>,
    #[schema(example = "project.paused")]
    action: String,
    #[schema(example = "project")]
    target_type: String,
    #[schema(example = "019a2f6a-2e90-7b44-a7d3-91c0e5f6b218")]
    target_id: String,
    /// Where the request came from.
    #[schema(required = true, example = "203.0.113.7")]
    address: Option<String>,
    #[schema(required = true, example = "req_01J9ZK3V5M")]
    request_id: Option<String>,
    /// What belongs to this action.
    #[schema(value_type = Object)]
    details: Value,
}

impl From<AuditRecord> for AuditEntry {
    fn from(AuditRecord(entry): AuditRecord) -> Self {
        Self {
            id: entry.id,
            at: entry.at,
            actor: entry.actor,
            actor_email: entry.actor_email,
            action: entry.action,
            target_type: entry.target_type,
            target_id: entry.target_id,
            address: entry.address,
            request_id: entry.request_id,
            details: entry.details,
        }
    }
}

/// A page of the audit log.
#[derive(Serialize, ToSchema)]
pub struct AuditLogResponse {
    entries: Vec<AuditEntry>,
    /// Where the next page begins; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

/// Read the audit log
///
/// Who changed what of the organization and its projects, the newest first, in pages. For
/// administrators.
#[utoipa::path(
    get,
    path = "/organizations/v1/{organizationId}/audit-log",
    tag = "Organizations",
    security(("bearer" = ["account", "administrator"])),
    params(OrganizationParam, AuditQuery),
    responses(
        (status = 200, description = "A page of the log", body = AuditLogResponse),
        BearerErrors, MemberErrors,
    )
)]
pub async fn list_audit_log(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    OrganizationPath(id): OrganizationPath,
    QueryText(query): QueryText<AuditQuery>,
) -> Result<Json<AuditLogResponse>, Problem> {
    by.require_everything()?;
    let before = query.cursor.as_deref().map(str::parse::<AuditPlace>);
    let limit = query.limit.as_deref();
    let limit = params::number("limit", limit, 1..=MAX_LIMIT, DEFAULT_LIMIT)?;
    let (records, next) = control_plane
        .list_audit_log(&by, id, before.transpose()?, limit)
        .await?;
    Ok(Json(AuditLogResponse {
        entries: records.into_iter().map(Into::into).collect(),
        next_cursor: next.map(|place| place.to_string()),
    }))
}
