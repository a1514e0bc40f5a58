//! Everything that a verb can refuse, one variant per thing that a caller can act on.

use cp_model::{FieldError, OperationId, OperationKind, PartnershipModel, ProjectStatus};
use cp_storage::StorageError;

use crate::ai_keys::AiKeyError;
use crate::backups::BackupError;
use crate::billing::PurchaseError;
use crate::branches::BranchError;
use crate::oauth::OAuthError;
use crate::organizations::OrganizationError;
use crate::reads::ProjectAccess;
use crate::sites::SiteError;

pub type DomainResult<T> = Result<T, DomainError>;

/// What was not found, or is somebody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    Organization,
    Member,
    Invitation,
    Project,
    Branch,
    User,
    Operation,
    Machine,
    Partner,
    OAuthClient,
    ApiKey,
    Backup,
    Analysis,
    Session,
    Grant,
    DeviceCode,
    UsageToken,
    Statement,
    Webhook,
    WebhookEvent,
    UsageLimit,
    Site,
}

impl Thing {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::Member => "member",
            Self::Invitation => "invitation",
            Self::Project => "project",
            Self::Branch => "branch",
            Self::User => "user",
            Self::Operation => "operation",
            Self::Machine => "machine",
            Self::Partner => "partner",
            Self::OAuthClient => "OAuth client",
            Self::ApiKey => "API key",
            Self::Backup => "backup",
            Self::Analysis => "analysis",
            Self::Session => "session",
            Self::Grant => "sign-in",
            Self::DeviceCode => "device code",
            Self::UsageToken => "usage token",
            Self::Statement => "statement",
            Self::Webhook => "webhook",
            Self::WebhookEvent => "webhook event",
            Self::UsageLimit => "usage limit",
            Self::Site => "site",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    #[error(transparent)]
    InvalidField(#[from] FieldError),
    #[error("the credentials are missing or wrong")]
    Unauthorized,
    #[error("this partner is suspended; contact partnerships@insforge.dev")]
    PartnerSuspended,
    #[error(
        "this endpoint belongs to the {needed} partnership model, which this partner does not have"
    )]
    WrongPartnershipModel { needed: PartnershipModel },
    #[error("{} not found", .0.as_str())]
    NotFound(Thing),
    #[error("{message}")]
    ProjectLimitReached {
        message: String,
        candidates: Vec<ProjectAccess>,
    },
    #[error("operation {operation_id} ({kind}) is still running on this project")]
    OperationInProgress {
        operation_id: OperationId,
        kind: OperationKind,
    },
    #[error("the project is {status}, not active")]
    ProjectNotActive { status: ProjectStatus },
    #[error("a project that is {status} cannot be {verb}")]
    WrongStatus {
        verb: &'static str,
        status: ProjectStatus,
    },
    #[error("this Idempotency-Key was used for another request")]
    IdempotencyKeyReused,
    #[error("the first request with this Idempotency-Key is still running")]
    RequestInProgress,
    #[error("too many requests; the limit is {limit} per minute")]
    RateLimited { limit: u32, retry_after: u64 },
    /// The credential is good, but not for this (RFC 6750 section 3.1).
    #[error("this credential lacks {needed}")]
    InsufficientScope { needed: &'static str },
    #[error("an account with this e-mail address exists")]
    EmailTaken,
    #[error("the e-mail address of this account is not verified")]
    EmailNotVerified,
    /// Wrong, expired, or guessed at too often: no difference is told.
    #[error("the code is wrong or has expired")]
    WrongCode,
    #[error("the link has expired or was used")]
    ExpiredLink,
    #[error(transparent)]
    OAuth(#[from] OAuthError),
    #[error(transparent)]
    AiKey(#[from] AiKeyError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Purchase(#[from] PurchaseError),
    #[error(transparent)]
    Branch(#[from] BranchError),
    #[error(transparent)]
    Organization(#[from] OrganizationError),
    #[error(transparent)]
    Site(#[from] SiteError),
    /// An operator's verb that does not fit the state of things; says what to do.
    #[error("{0}")]
    Conflict(String),
    /// The worker lost its lease: another one has the operation, or it was cancelled.
    #[error("the lease is lost")]
    LeaseLost,
    #[error("the database is not available")]
    Unavailable,
    /// A bug or a damaged value. The text is for the log alone.
    #[error("{0}")]
    Internal(String),
}

impl DomainError {
    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<StorageError> for DomainError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Unavailable(cause) => {
                tracing::warn!(error = %cause, "the database is not available");
                Self::Unavailable
            }
            StorageError::Conflict(cause) => {
                tracing::warn!(error = %cause, "a transaction met another one");
                Self::Unavailable
            }
            other => Self::internal(other),
        }
    }
}
