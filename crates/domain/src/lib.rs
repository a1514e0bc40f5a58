//! The business: who may do what, each verb in one transaction. Called by `api` (requests), by
//! `worker` (operations and jobs) and by `server` (operators' commands). It never calls a
//! provider, an agent or a backend.

mod accounts;
mod agents;
mod ai_keys;
mod analyses;
mod audit;
mod authorize;
mod backends;
mod backups;
mod billing;
mod branches;
mod context;
mod create;
mod errors;
mod heavy;
mod housekeeping;
mod idempotency;
mod keys;
mod lifecycle;
pub mod machines;
mod merges;
mod metrics;
pub mod oauth;
pub mod operations;
mod organizations;
mod partners;
pub mod people;
mod project_mails;
pub mod queue;
mod rate_limit;
mod reads;
mod secrets;
mod sites;
pub mod usage;
pub mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use cp_model::SharedClock;
use cp_storage::Database;
pub use cp_storage::billing::{DueCustomer, OrganizationSummary};
use cp_tokens::keyring::RotationPolicy;
use cp_tokens::sealing::Sealer;

pub use ai_keys::{
    AiKey, AiKeyAttempt, AiKeyError, AiKeyStart, AiKeyToLimit, AiLimits, DoomedAiKey,
    FinishedAiKey, is_surely_not_made, name_of_doomed,
};
pub use analyses::{AnalysisOutcome, Rating};
pub use authorize::Authorization;
pub use backends::{DatabaseAccess, SignedCall};
pub use backups::{BackupError, RESTORE_FAILED};
pub use billing::{BillingAccount, NotedEvent, PurchaseError};
pub use branches::{
    BranchError, BranchLimits, BranchRef, BranchRequest, MERGE_CONFLICT, MergeOptions,
    RESET_FAILED, Resolutions, parent_away,
};
pub use context::{
    Caller, Credential, IdempotentRequest, PartnerCaller, Profile, ProjectCaller, UserCaller,
    fingerprint,
};
pub use create::ProjectRequest;
pub use errors::{DomainError, DomainResult, Thing};
pub use idempotency::{Begun, Effect, StoredAnswer};
pub use keys::{PublishedJwks, SigningKeySummary};
pub use lifecycle::{SizeFields, Upgrade};
pub use merges::{Comparison, MergeOutcome};
pub use metrics::MetricsSeries;
pub use organizations::{
    AuditPlace, AuditRecord, Incident, MemberProject, OrganizationError, OrganizationUsage,
    ProjectUpdate, ShownInvitation, Verdict,
};
pub use partners::{NewPartner, PartnerCredentials};
pub use project_mails::{OwnMail, TemplateMail};
pub use rate_limit::RateLimit;
pub use reads::{Access, OperationSummary, Page, ProjectAccess, ProjectView};
pub use sites::{SiteCredentials, SiteError, SiteName, SiteSettings, SiteSummary};

/// What the business can be told from outside.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our own public URL, without a trailing slash: issuer of authorizations, `CLOUD_API_HOST` of
    /// backends.
    pub base_url: String,
    /// How long sync calls wait for `active` before they answer `provisioning`.
    pub create_wait: Duration,
    /// How long `wait_for_completion` waits before it answers 202.
    pub completion_wait: Duration,
    /// Wrong secrets that one address may send in a minute.
    pub auth_failures_per_minute: u32,
    pub rotation: RotationPolicy,
    pub branches: BranchLimits,
    /// The newest release of the backend, as in `v2.2.3`, if the operator says which.
    pub latest_release: Option<String>,
    /// Sites are at `{slug}.` this, if the operator has a domain for them.
    pub sites_domain: Option<String>,
    /// What a project's AI key may spend.
    pub ai_limits: AiLimits,
    /// Questions that a person may ask an AI in an hour.
    pub analyses_per_hour: u32,
    /// Webhooks may be on this computer and in private networks, there by http, too. For `dev` and
    /// tests: whoever sets a webhook could reach what only we can reach.
    pub allow_http_webhooks: bool,
}

impl Settings {
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into().trim_end_matches('/').to_owned(),
            create_wait: Duration::from_secs(10),
            completion_wait: Duration::from_mins(1),
            auth_failures_per_minute: 30,
            rotation: RotationPolicy::default(),
            branches: BranchLimits::default(),
            latest_release: None,
            sites_domain: None,
            ai_limits: AiLimits::default(),
            analyses_per_hour: 20,
            allow_http_webhooks: false,
        }
    }
}

/// The control plane's business on one database. Cheap to clone; any number of processes may run
/// one each against the same database.
#[derive(Clone)]
pub struct ControlPlane {
    inner: Arc<Inner>,
}

struct Inner {
    db: Database,
    clock: SharedClock,
    sealer: Sealer,
    settings: Settings,
    keys: keys::LoadedKeys,
    signing: heavy::Heavy,
    hashing: heavy::Heavy,
    partners: moka::sync::Cache<[u8; 32], Arc<cp_model::Partner>>,
    lately_right: moka::sync::Cache<[u8; 32], ()>,
    limiter: rate_limit::Limiter,
    auth_failures: rate_limit::FailureLimiter,
    oauth: oauth::Provider,
    bearer_lookups: oauth::BearerLookups,
    background: std::sync::Mutex<Vec<tokio::task::AbortHandle>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in self
            .background
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
        {
            task.abort();
        }
    }
}

impl ControlPlane {
    /// Starts the business. Signing keys and caches follow the database from here on.
    pub fn new(db: Database, clock: SharedClock, sealer: Sealer, settings: Settings) -> Self {
        let (bearer_lookups, questions) = oauth::BearerLookups::new();
        let inner = Arc::new(Inner {
            limiter: rate_limit::Limiter::default(),
            auth_failures: rate_limit::FailureLimiter::new(settings.auth_failures_per_minute),
            oauth: oauth::Provider::new(&sealer),
            bearer_lookups,
            partners: partners::cache(),
            lately_right: partners::lately_right(),
            keys: keys::LoadedKeys::default(),
            signing: heavy::Heavy::short(),
            hashing: heavy::Heavy::long(),
            background: std::sync::Mutex::default(),
            db,
            clock,
            sealer,
            settings,
        });
        let this = Self { inner };
        this.follow(keys::follow(Arc::downgrade(&this.inner)));
        this.follow(partners::follow(Arc::downgrade(&this.inner)));
        this.follow(oauth::follow(Arc::downgrade(&this.inner)));
        let weak = Arc::downgrade(&this.inner);
        this.follow(oauth::answer_bearer_lookups(weak, questions));
        this
    }

    fn follow(&self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(task).abort_handle();
        self.inner
            .background
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(handle);
    }

    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    pub fn clock(&self) -> &SharedClock {
        &self.inner.clock
    }

    pub fn database(&self) -> &Database {
        &self.inner.db
    }

    fn db(&self) -> &Database {
        &self.inner.db
    }

    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        self.inner.clock.now()
    }

    fn sealer(&self) -> &Sealer {
        &self.inner.sealer
    }
}
