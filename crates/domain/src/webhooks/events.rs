//! What is told, queued in the transaction of what happened.

use chrono::TimeDelta;
use cp_model::{Failure, PartnerId, Project, ProjectStatus, WebhookEventId, WebhookEventType};
use cp_storage::PgConnection;
use cp_storage::webhooks::{self, NewEvent};
use serde_json::{Value, json};

use crate::{ControlPlane, DomainResult};

/// An event that its receiver did not take for so long is given up.
pub(super) const GIVE_UP_AFTER: TimeDelta = TimeDelta::days(3);

impl ControlPlane {
    /// Queues an event in the caller's transaction, if the partner wants to be told.
    pub(crate) async fn queue_event(
        &self,
        conn: &mut PgConnection,
        partner: &PartnerId,
        kind: WebhookEventType,
        data: &Value,
    ) -> DomainResult<Option<WebhookEventId>> {
        let now = self.now();
        let new = NewEvent {
            id: WebhookEventId::generate(),
            partner,
            kind,
            data,
            give_up_at: now + GIVE_UP_AFTER,
        };
        let is_queued = webhooks::insert_event(conn, &new, now).await?;
        Ok(is_queued.then_some(new.id))
    }

    /// The project's partner is told its new status, if that is one to stay in. The caller changes
    /// it in the same transaction.
    pub(crate) async fn tell_status(
        &self,
        conn: &mut PgConnection,
        project: &Project,
        status: ProjectStatus,
        failure: Option<&Failure>,
    ) -> DomainResult<()> {
        let (Some(partner), Some(kind)) =
            (&project.partner_id, WebhookEventType::of_status(status))
        else {
            return Ok(());
        };
        let data = json!({
            "project_id": project.id,
            "external_id": project.external_id,
            "name": project.name,
            "status": status,
            "region": project.region,
            "instance_type": project.instance_type,
            "failure": failure.map(|f| json!({ "code": f.code, "message": f.message })),
            "occurred_at": self.now(),
        });
        self.queue_event(conn, partner, kind, &data).await?;
        Ok(())
    }
}
