//! What operators do with webhooks.

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::{PartnerId, WebhookEventId, WebhookEventType, WebhookState};
use cp_storage::webhooks::{self, StoredWebhook, WebhookEventSummary};
use cp_storage::{PgConnection, StorageError, partners};
use cp_tokens::secret::{OpaqueSecret, SecretKind};
use secrecy::SecretString;
use serde_json::json;

use super::address::check_url;
use super::events::GIVE_UP_AFTER;
use crate::{ControlPlane, DomainError, DomainResult, Thing};

/// After a rotation both secrets sign for so long, so that the receiver can change over.
const OVERLAP: TimeDelta = TimeDelta::hours(24);

/// A partner's webhook, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSummary {
    pub url: String,
    /// Until then the secret before signs, too.
    pub previous_secret_until: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A webhook that was just set.
pub struct WebhookSet {
    pub webhook: WebhookSummary,
    /// Shown this once. None: the secret is the one from before.
    pub secret: Option<SecretString>,
}

/// Binds the sealed secret to its partner.
pub(super) fn context(partner: &PartnerId) -> String {
    format!("webhook:{partner}")
}

fn summary(stored: StoredWebhook, now: DateTime<Utc>) -> WebhookSummary {
    WebhookSummary {
        url: stored.url,
        previous_secret_until: stored.previous_until.filter(|until| *until > now),
        created_at: stored.created_at,
        updated_at: stored.updated_at,
    }
}

impl ControlPlane {
    /// Sets where a partner is told of events. The first time, and with `rotate`, there is a new
    /// secret; after a rotation the one before signs for another 24 hours.
    pub async fn set_webhook(
        &self,
        partner: &PartnerId,
        url: &str,
        rotate: bool,
    ) -> DomainResult<WebhookSet> {
        let now = self.now();
        let url = check_url(url, self.settings().allow_http_webhooks)?;
        let mut tx = self.db().begin().await?;
        self.require_partner(&mut tx, partner).await?;
        let is_new = webhooks::lock_webhook(&mut tx, partner).await?.is_none();
        let secret = (is_new || rotate).then(|| OpaqueSecret::generate(SecretKind::WebhookSecret));
        let sealed = secret.as_ref().map(|secret| {
            self.sealer()
                .seal(secret.expose().as_bytes(), &context(partner))
        });
        match &sealed {
            Some(sealed) if is_new => {
                if !webhooks::insert_webhook(&mut tx, partner, url.as_str(), sealed, now).await? {
                    return Err(DomainError::Conflict(
                        "somebody else set this webhook just now; look at it with `partner webhook show`".into(),
                    ));
                }
            }
            Some(sealed) => {
                webhooks::rotate_secret(&mut tx, partner, sealed, now + OVERLAP, now).await?;
                webhooks::set_url(&mut tx, partner, url.as_str(), now).await?;
            }
            None => {
                webhooks::set_url(&mut tx, partner, url.as_str(), now).await?;
            }
        }
        let stored = webhooks::find_webhook(&mut tx, partner)
            .await?
            .ok_or(DomainError::NotFound(Thing::Webhook))?;
        // The path may hold a secret of the receiver's.
        let details = json!({ "host": url.host_str(), "new_secret": secret.is_some() });
        self.audit_webhook(&mut tx, partner, "webhook.set", details)
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(WebhookSet {
            webhook: summary(stored, now),
            secret: secret.map(OpaqueSecret::into_secret_string),
        })
    }

    pub async fn show_webhook(&self, partner: &PartnerId) -> DomainResult<WebhookSummary> {
        let mut conn = self.db().acquire().await?;
        self.require_partner(&mut conn, partner).await?;
        let stored = webhooks::find_webhook(&mut conn, partner)
            .await?
            .ok_or(DomainError::NotFound(Thing::Webhook))?;
        Ok(summary(stored, self.now()))
    }

    /// Tells the partner nothing any more, also not what is queued.
    pub async fn remove_webhook(&self, partner: &PartnerId) -> DomainResult<()> {
        let mut tx = self.db().begin().await?;
        self.require_partner(&mut tx, partner).await?;
        if !webhooks::delete_webhook(&mut tx, partner).await? {
            return Err(DomainError::NotFound(Thing::Webhook));
        }
        self.audit_webhook(&mut tx, partner, "webhook.removed", json!({}))
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }

    /// Queues an event that says nothing but that it is a test.
    pub async fn test_webhook(&self, partner: &PartnerId) -> DomainResult<WebhookEventId> {
        let mut tx = self.db().begin().await?;
        self.require_partner(&mut tx, partner).await?;
        let data = json!({ "partner_id": partner });
        let id = self
            .queue_event(&mut tx, partner, WebhookEventType::Test, &data)
            .await?
            .ok_or(DomainError::NotFound(Thing::Webhook))?;
        let details = json!({ "event": id });
        self.audit_webhook(&mut tx, partner, "webhook.tested", details)
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(id)
    }

    /// Tells an event again, whatever became of it before.
    pub async fn redeliver_webhook_event(
        &self,
        partner: &PartnerId,
        id: WebhookEventId,
    ) -> DomainResult<()> {
        let now = self.now();
        let mut tx = self.db().begin().await?;
        self.require_partner(&mut tx, partner).await?;
        webhooks::lock_webhook(&mut tx, partner)
            .await?
            .ok_or(DomainError::NotFound(Thing::Webhook))?;
        let give_up_at = now + GIVE_UP_AFTER;
        if !webhooks::mark_queued_again(&mut tx, partner, id, give_up_at, now).await? {
            return Err(DomainError::NotFound(Thing::WebhookEvent));
        }
        let details = json!({ "event": id });
        self.audit_webhook(&mut tx, partner, "webhook.redelivered", details)
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }

    pub async fn find_webhook_event(
        &self,
        partner: &PartnerId,
        id: WebhookEventId,
    ) -> DomainResult<WebhookEventSummary> {
        let mut conn = self.db().acquire().await?;
        webhooks::find_event(&mut conn, partner, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::WebhookEvent))
    }

    /// Newest first.
    pub async fn list_webhook_events(
        &self,
        partner: &PartnerId,
        state: Option<WebhookState>,
        limit: u32,
    ) -> DomainResult<Vec<WebhookEventSummary>> {
        let mut conn = self.db().acquire().await?;
        self.require_partner(&mut conn, partner).await?;
        Ok(webhooks::list_events(&mut conn, partner, state, i64::from(limit)).await?)
    }

    pub(crate) async fn require_partner(
        &self,
        conn: &mut PgConnection,
        partner: &PartnerId,
    ) -> DomainResult<()> {
        let found = partners::find_partner(conn, partner).await?;
        found.map(drop).ok_or(DomainError::NotFound(Thing::Partner))
    }

    async fn audit_webhook(
        &self,
        conn: &mut PgConnection,
        partner: &PartnerId,
        action: &str,
        details: serde_json::Value,
    ) -> DomainResult<()> {
        let target = ("partner", partner.as_str());
        Ok(self
            .audit_service(conn, "operator", action, target, None, details)
            .await?)
    }
}
