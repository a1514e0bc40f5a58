//! Projects' sites (contract/project-backend.md 3.5): the operator names the Vercel project and the token of each, the
//! project's backend deploys with them, and its people choose the slug. A token of the whole team in every backend would
//! let one tenant enter all others' sites.

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::{FieldError, Project, ProjectId, field};
use cp_storage::sites::{self, NewSite, SLUG_KEY, StoredSite, VERCEL_PROJECT_KEY};
use cp_storage::{PgConnection, StorageError, projects};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use crate::context::Caller;
use crate::operations::{commit, lock};
use crate::{ControlPlane, DomainError, DomainResult, Thing};

/// After so long a backend asks again for a token that has no end.
const ASK_AGAIN: TimeDelta = TimeDelta::days(1);

/// Why a backend's call about its site is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SiteError {
    #[error("This project has no site. The operator of this installation sets one up.")]
    NotConfigured,
    #[error("The slug {0} is taken. Choose another one.")]
    SlugTaken(String),
}

/// What an operator gives a project. Has secrets, so no `Debug`.
pub struct SiteSettings<'a> {
    pub team_id: &'a str,
    pub vercel_project_id: &'a str,
    pub token: &'a SecretString,
    /// When Vercel ends the token. None: it does not.
    pub token_expires_at: Option<DateTime<Utc>>,
    /// What Vercel signs its webhooks with, if it sends any.
    pub webhook_secret: Option<&'a SecretString>,
}

/// A project's site, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteSummary {
    pub project: ProjectId,
    pub team_id: String,
    pub vercel_project_id: String,
    pub token_expires_at: Option<DateTime<Utc>>,
    pub has_webhook_secret: bool,
    pub slug: Option<String>,
    pub domain: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What a project's backend deploys with. Has secrets, so no `Debug`.
pub struct SiteCredentials {
    pub team_id: String,
    pub vercel_project_id: String,
    pub token: SecretString,
    /// When the backend asks again. In the past, for a token that has ended: it asks each time.
    pub expires_at: DateTime<Utc>,
    pub webhook_secret: Option<SecretString>,
    pub slug: Option<String>,
}

/// What a site is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteName {
    pub slug: Option<String>,
    /// None without a slug, and where the operator named no domain.
    pub domain: Option<String>,
}

/// What of a site is sealed.
#[derive(Clone, Copy)]
enum Sealed {
    Token,
    WebhookSecret,
}

impl Sealed {
    /// Binds the sealed value to its row.
    fn context(self, project: ProjectId) -> String {
        let name = match self {
            Self::Token => "token",
            Self::WebhookSecret => "webhook_secret",
        };
        format!("site:{project}:{name}")
    }
}

impl ControlPlane {
    /// Sets all of a project's site but its slug, which it keeps.
    pub async fn set_site(
        &self,
        id: ProjectId,
        settings: &SiteSettings<'_>,
    ) -> DomainResult<SiteSummary> {
        let now = self.now();
        check(settings, now)?;
        let seal = |secret: &SecretString, what: Sealed| {
            let secret = secret.expose_secret().as_bytes();
            self.sealer().seal(secret, &what.context(id))
        };
        let token_sealed = seal(settings.token, Sealed::Token);
        let webhook_secret = settings.webhook_secret;
        let webhook_secret_sealed = webhook_secret.map(|s| seal(s, Sealed::WebhookSecret));
        let new = NewSite {
            team_id: settings.team_id,
            vercel_project_id: settings.vercel_project_id,
            token_sealed: &token_sealed,
            token_expires_at: settings.token_expires_at,
            webhook_secret_sealed: webhook_secret_sealed.as_deref(),
        };
        let mut tx = self.db().begin().await?;
        // Locked, or the end of its deletion could forget this site before it is there.
        let project = lock(&mut tx, id).await?;
        if !project.status.is_live() {
            return Err(DomainError::NotFound(Thing::Project));
        }
        if project.parent_id.is_some() {
            return Err(DomainError::Conflict(
                "this project is a branch; its backend would deploy over its parent's site. Give the parent a site instead"
                    .into(),
            ));
        }
        let set = sites::set_site(&mut tx, id, &new, now).await;
        set.map_err(|error| {
            if error.is_unique_violation_of(VERCEL_PROJECT_KEY) {
                return DomainError::Conflict(format!(
                    "another project deploys to the Vercel project {}. Make one for each: their backends could read and \
                     replace each other's site",
                    settings.vercel_project_id
                ));
            }
            error.into()
        })?;
        let details = json!({
            "team_id": settings.team_id, "vercel_project_id": settings.vercel_project_id,
            "token_expires_at": settings.token_expires_at, "has_webhook_secret": webhook_secret.is_some(),
        });
        self.audit_site(&mut tx, &project, "site.set", details)
            .await?;
        let stored = require_site(&mut tx, id).await?;
        commit(tx).await?;
        Ok(self.summary(id, stored))
    }

    pub async fn show_site(&self, id: ProjectId) -> DomainResult<SiteSummary> {
        let mut conn = self.db().acquire().await?;
        projects::find_project(&mut conn, id)
            .await?
            .filter(|project| project.status.is_live())
            .ok_or(DomainError::NotFound(Thing::Project))?;
        let stored = require_site(&mut conn, id).await?;
        Ok(self.summary(id, stored))
    }

    /// Its slug is free at once. What is deployed stays where it is, and so does the token at Vercel.
    pub async fn remove_site(&self, id: ProjectId) -> DomainResult<()> {
        let mut tx = self.db().begin().await?;
        let project = lock(&mut tx, id).await?;
        if !sites::delete_site(&mut tx, id).await? {
            return Err(DomainError::NotFound(Thing::Site));
        }
        self.audit_site(&mut tx, &project, "site.removed", json!({}))
            .await?;
        commit(tx).await
    }

    /// What the project's own backend deploys with.
    pub async fn site_credentials(&self, id: ProjectId) -> DomainResult<SiteCredentials> {
        let mut conn = self.db().acquire().await?;
        let stored = sites::find_site(&mut conn, id).await?;
        let stored = stored.ok_or(SiteError::NotConfigured)?;
        let open = |sealed: &[u8], what: Sealed| {
            let opened = self.sealer().open_text(sealed, &what.context(id));
            opened.map_err(|error| {
                DomainError::internal(format!(
                    "a secret of the site of project {id} cannot be opened: {error}"
                ))
            })
        };
        let webhook_secret = stored.webhook_secret_sealed.as_deref();
        Ok(SiteCredentials {
            token: open(&stored.token_sealed, Sealed::Token)?,
            expires_at: stored.token_expires_at.unwrap_or(self.now() + ASK_AGAIN),
            webhook_secret: webhook_secret
                .map(|sealed| open(sealed, Sealed::WebhookSecret))
                .transpose()?,
            team_id: stored.team_id,
            vercel_project_id: stored.vercel_project_id,
            slug: stored.slug,
        })
    }

    /// The project's people name its site, by its backend; or take the name away.
    pub async fn set_site_slug(
        &self,
        caller: &Caller,
        project: &Project,
        slug: Option<&str>,
    ) -> DomainResult<SiteName> {
        let mut tx = self.db().begin().await?;
        // Before the slug is looked at: without a site, no slug would do.
        if sites::find_site(&mut tx, project.id).await?.is_none() {
            return Err(SiteError::NotConfigured.into());
        }
        let slug = slug
            .map(|slug| field::site_slug("slug", slug))
            .transpose()?;
        let set = sites::set_slug(&mut tx, project.id, slug.as_deref(), self.now()).await;
        let is_there = set.map_err(|error| match &slug {
            Some(slug) if error.is_unique_violation_of(SLUG_KEY) => {
                SiteError::SlugTaken(slug.clone()).into()
            }
            _ => DomainError::from(error),
        })?;
        if !is_there {
            return Err(SiteError::NotConfigured.into());
        }
        let details = json!({ "slug": slug });
        self.audit_backend(&mut tx, caller, "site.slug_set", project, details)
            .await?;
        tx.commit().await.map_err(StorageError::from)?;
        let domain = self.site_domain(slug.as_deref());
        Ok(SiteName { slug, domain })
    }

    fn site_domain(&self, slug: Option<&str>) -> Option<String> {
        let domain = self.settings().sites_domain.as_deref()?;
        Some(format!("{}.{domain}", slug?))
    }

    fn summary(&self, project: ProjectId, stored: StoredSite) -> SiteSummary {
        SiteSummary {
            project,
            team_id: stored.team_id,
            vercel_project_id: stored.vercel_project_id,
            token_expires_at: stored.token_expires_at,
            has_webhook_secret: stored.webhook_secret_sealed.is_some(),
            domain: self.site_domain(stored.slug.as_deref()),
            slug: stored.slug,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
        }
    }

    async fn audit_site(
        &self,
        conn: &mut PgConnection,
        project: &Project,
        action: &str,
        details: serde_json::Value,
    ) -> DomainResult<()> {
        let id = project.id.to_string();
        let (target, of) = (("project", id.as_str()), Some(project));
        Ok(self
            .audit_service(conn, "operator", action, target, of, details)
            .await?)
    }
}

async fn require_site(conn: &mut PgConnection, id: ProjectId) -> DomainResult<StoredSite> {
    let stored = sites::find_site(conn, id).await?;
    stored.ok_or(DomainError::NotFound(Thing::Site))
}

/// Refuses what no request to Vercel could carry.
fn check(settings: &SiteSettings<'_>, now: DateTime<Utc>) -> DomainResult<()> {
    field::vercel_id("team-id", settings.team_id)?;
    field::vercel_id("vercel-project-id", settings.vercel_project_id)?;
    field::opaque_secret("token", settings.token.expose_secret())?;
    if let Some(secret) = settings.webhook_secret {
        field::opaque_secret("webhook-secret", secret.expose_secret())?;
    }
    if settings.token_expires_at.is_some_and(|at| at <= now) {
        let rule = "must be in the future; make another token at Vercel";
        return Err(FieldError::new("expires-at", rule).into());
    }
    Ok(())
}
