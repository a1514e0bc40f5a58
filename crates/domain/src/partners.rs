//! Partner platforms: how they prove who they are, and what operators do with them.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::{OrganizationId, OrganizationKind, Partner, PartnerId, Plan, ProjectId, field};
use cp_storage::notifications::Topic;
use cp_storage::organizations::{self, NewOrganization};
use cp_storage::{StorageError, partners, projects};
use cp_tokens::secret::{OpaqueSecret, SecretKind, constant_time_eq, hash_bytes};
use moka::sync::Cache;
use secrecy::SecretString;
use serde_json::json;

use crate::{ControlPlane, DomainError, DomainResult, Inner, Thing};

/// Known secrets, for a second: the hot path's second query saved. Changes empty it at once
/// through a notification; the second bounds what a lost notification can do, and how long a
/// secret outlives the end of its overlap.
pub(crate) fn cache() -> Cache<[u8; 32], Arc<Partner>> {
    Cache::builder()
        .max_capacity(10_000)
        .time_to_live(Duration::from_secs(1))
        .build()
}

/// Secrets that were right lately. They say nothing of now; they only let a request ask the
/// database although somebody else at its address guesses secrets.
pub(crate) fn lately_right() -> Cache<[u8; 32], ()> {
    Cache::builder()
        .max_capacity(10_000)
        .time_to_live(Duration::from_hours(1))
        .build()
}

/// Empties the cache whenever a partner changes.
pub(crate) fn follow(inner: Weak<Inner>) -> impl Future<Output = ()> + Send {
    let changes = inner
        .upgrade()
        .map(|i| i.db.notifications().subscribe(Topic::Partners, ""));
    async move {
        let Some(mut changes) = changes else { return };
        while changes.changed().await.is_ok() {
            let Some(inner) = inner.upgrade() else { return };
            inner.partners.invalidate_all();
        }
    }
}

/// What an operator decides about a new partner.
#[derive(Debug, Clone)]
pub struct NewPartner {
    pub name: String,
    pub co_branded: bool,
    pub white_label: bool,
    pub rate_limit: u32,
    pub trusted: bool,
}

/// A partner with a fresh secret, shown this once.
pub struct PartnerCredentials {
    pub partner: Partner,
    pub secret: SecretString,
    /// When the secrets from before end; none: there were none.
    pub previous_until: Option<DateTime<Utc>>,
}

impl ControlPlane {
    /// Who has this id and this secret. An unknown partner and a missing, malformed or wrong
    /// secret are the same refusal after the same work: one hash, one look-up.
    pub async fn authenticate_partner(
        &self,
        partner_id: &str,
        secret: Option<&str>,
        address: Option<IpAddr>,
    ) -> DomainResult<Arc<Partner>> {
        let hash = hash_bytes(secret.unwrap_or_default().as_bytes());
        let cached = self.inner.partners.get(&hash);
        let is_cached = cached.is_some();
        let partner = if is_cached {
            cached
        } else {
            if !self.inner.lately_right.contains_key(&hash) {
                self.check_auth_failures(address)?;
            }
            let mut conn = self.db().acquire().await?;
            partners::find_partner_by_secret(&mut conn, &hash, self.now())
                .await?
                .map(Arc::new)
        };
        let Some(partner) =
            partner.filter(|p| constant_time_eq(p.id.as_str().as_bytes(), partner_id.as_bytes()))
        else {
            return Err(self.count_auth_failure(address).await);
        };
        // Not again for what came out of the cache: its second would begin anew with each
        // request, and a secret in constant use would never end.
        if !is_cached {
            self.inner.partners.insert(hash, partner.clone());
            self.inner.lately_right.insert(hash, ());
        }
        if partner.suspended_at.is_some() {
            return Err(DomainError::PartnerSuspended);
        }
        Ok(partner)
    }

    pub async fn create_partner(&self, new: &NewPartner) -> DomainResult<PartnerCredentials> {
        let name = field::person_name("name", &new.name)?;
        if !new.co_branded && !new.white_label {
            return Err(
                field::FieldError::new("model", "must be co_branded, white_label or both").into(),
            );
        }
        let rate_limit_ok = (1..=10_000_000).contains(&new.rate_limit);
        if !rate_limit_ok {
            return Err(field::FieldError::new(
                "rate_limit",
                "must be 1 to 10000000 requests per minute",
            )
            .into());
        }
        let now = self.now();
        let partner = Partner {
            id: PartnerId::generate(),
            name,
            organization_id: OrganizationId::generate(),
            co_branded: new.co_branded,
            white_label: new.white_label,
            rate_limit: new.rate_limit,
            trusted: new.trusted,
            suspended_at: None,
            created_at: now,
        };
        let secret = OpaqueSecret::generate(SecretKind::PartnerSecret);
        let mut tx = self.db().begin().await?;
        let organization = NewOrganization {
            id: partner.organization_id,
            name: &partner.name,
            kind: OrganizationKind::Partner,
            plan: Plan::Partner,
            home_of: None,
            now,
        };
        organizations::insert_organization(&mut tx, &organization).await?;
        partners::insert_partner(&mut tx, &partner).await?;
        partners::insert_secret(&mut tx, &partner.id, secret.hash().as_bytes(), now).await?;
        self.audit_service(
            &mut tx,
            "operator",
            "partner.created",
            ("partner", partner.id.as_str()),
            None,
            json!({}),
        )
        .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(PartnerCredentials {
            partner,
            secret: secret.into_secret_string(),
            previous_until: None,
        })
    }

    pub async fn find_partner(&self, id: &PartnerId) -> DomainResult<Partner> {
        let mut conn = self.db().acquire().await?;
        partners::find_partner(&mut conn, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::Partner))
    }

    pub async fn list_partners(&self) -> DomainResult<Vec<Partner>> {
        let mut conn = self.db().acquire().await?;
        Ok(partners::list_partners(&mut conn).await?)
    }

    /// Gives the partner a new secret; those it has go on for `overlap`.
    pub async fn rotate_partner_secret(
        &self,
        id: &PartnerId,
        overlap: Duration,
    ) -> DomainResult<PartnerCredentials> {
        let now = self.now();
        let overlap = TimeDelta::from_std(overlap).map_err(DomainError::internal)?;
        let secret = OpaqueSecret::generate(SecretKind::PartnerSecret);
        let mut tx = self.db().begin().await?;
        let partner = partners::find_partner(&mut tx, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::Partner))?;
        let previous = partners::expire_secrets(&mut tx, id, now + overlap, now).await?;
        partners::insert_secret(&mut tx, id, secret.hash().as_bytes(), now).await?;
        self.audit_service(
            &mut tx,
            "operator",
            "partner.secret_rotated",
            ("partner", id.as_str()),
            None,
            json!({}),
        )
        .await?;
        tx.commit().await.map_err(StorageError::from)?;
        self.inner.partners.invalidate_all();
        Ok(PartnerCredentials {
            partner,
            secret: secret.into_secret_string(),
            previous_until: (previous > 0).then(|| now + overlap),
        })
    }

    /// Stops (or, with false, lets go on) everything that the partner asks for.
    pub async fn suspend_partner(&self, id: &PartnerId, suspended: bool) -> DomainResult<Partner> {
        let mut tx = self.db().begin().await?;
        let since = suspended.then(|| self.now());
        if !partners::mark_suspended(&mut tx, id, since).await? {
            return Err(DomainError::NotFound(Thing::Partner));
        }
        let action = if suspended {
            "partner.suspended"
        } else {
            "partner.resumed"
        };
        self.audit_service(
            &mut tx,
            "operator",
            action,
            ("partner", id.as_str()),
            None,
            json!({}),
        )
        .await?;
        let partner = partners::find_partner(&mut tx, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::Partner))?;
        tx.commit().await.map_err(StorageError::from)?;
        self.inner.partners.invalidate_all();
        Ok(partner)
    }

    /// Lets the partner read the keys of a project that was not made through it, for its owner.
    pub async fn share_project(&self, id: ProjectId, partner: &PartnerId) -> DomainResult<()> {
        let mut tx = self.db().begin().await?;
        partners::find_partner(&mut tx, partner)
            .await?
            .ok_or(DomainError::NotFound(Thing::Partner))?;
        let project = projects::find_project(&mut tx, id)
            .await?
            .filter(|p| p.status.is_live() && p.user_id.is_some())
            .ok_or(DomainError::NotFound(Thing::Project))?;
        projects::insert_share(&mut tx, partner, id, self.now()).await?;
        let details = json!({ "partner": partner.as_str() });
        let target = id.to_string();
        self.audit_service(
            &mut tx,
            "operator",
            "project.shared",
            ("project", &target),
            Some(&project),
            details,
        )
        .await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(())
    }
}
