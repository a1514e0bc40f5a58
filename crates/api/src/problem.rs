//! Refusals: what is wrong, in the words and the form of the interface that was called. A handler
//! returns a [`Problem`]; the front door writes it, because only there the request id and the form
//! are known for every way a request can fail.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use cp_ai::AiError;
use cp_billing::BillingError;
use cp_domain::oauth::{OAuthError, OAuthErrorCode};
use cp_domain::{
    AiKeyError, BackupError, BranchError, DomainError, OrganizationError, PurchaseError, RateLimit,
    SiteError, Thing,
};
use cp_model::{FieldError, OperationId, OperationKind, PartnershipModel, RequestId, Scope};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::oauth::error::{self as oauth_error, OAuthErrorBody};
use crate::wire::project::ConnectedProject;

const RATE_LIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Tells what is left of the caller's minute.
pub fn set_rate_limit(headers: &mut HeaderMap, limit: RateLimit) {
    headers.insert(RATE_LIMIT_LIMIT, HeaderValue::from(limit.limit));
    headers.insert(RATE_LIMIT_REMAINING, HeaderValue::from(limit.remaining));
    headers.insert(RATE_LIMIT_RESET, HeaderValue::from(limit.reset));
}

/// Seconds after which a caller may try again when we are overloaded or Postgres is away.
const RETRY_UNAVAILABLE: u64 = 2;
/// The same when the payment provider is.
const RETRY_PAYMENTS: u64 = 60;

/// The same for the AI provider: after an attempt whose end is not known we rest for so long.
const RETRY_AI: u64 = 10;

/// The forms in which a refusal is written (design.md, "Errors").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `{"success":false,"message","code","requestId"}`
    Partnership,
    /// `{"code","error","requestId"}`
    Platform,
    /// `{"error","error_description"}` (RFC 6749 section 5.2)
    OAuth,
    /// As the partnership's: projects' backends pass `message` on (contract/project-backend.md 3).
    Backend,
}

impl Form {
    pub fn of_path(path: &str) -> Self {
        let is_below = |prefix| {
            path.strip_prefix(prefix)
                .is_some_and(|rest: &str| rest.is_empty() || rest.starts_with('/'))
        };
        if is_below("/partnership") {
            Self::Partnership
        } else if is_below("/api/oauth") {
            Self::OAuth
        } else if is_below("/ai")
            || is_below("/email")
            || is_below("/sites")
            || is_of_database(path)
        {
            Self::Backend
        } else {
            Self::Platform
        }
    }
}

fn is_of_database(path: &str) -> bool {
    path.starts_with("/projects/v1/")
        && (path.ends_with("/database-connection-string") || path.ends_with("/database-password"))
}

/// One refusal. May carry the keys of candidate projects, so it has no `Debug`.
pub struct Problem {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: Cow<'static, str>,
    detail: Option<Detail>,
    advice: Option<Advice>,
    challenge: Challenge,
    /// For the log, never for the caller.
    pub cause: Option<String>,
}

/// What some refusals add to the body.
enum Detail {
    Candidates(Vec<ConnectedProject>),
    Operation(OperationInFlight),
    /// What a merge found.
    Diff(Box<Value>),
    /// The message once more, under the name that this call's contract gives it.
    Error,
}

/// What some refusals add to the headers.
enum Advice {
    RetryAfter(u64),
    RateLimited { limit: u32, retry_after: u64 },
}

/// What `WWW-Authenticate` says where bearers are taken (RFC 6750 section 3).
enum Challenge {
    /// Nothing but how to authenticate: the caller did not try.
    Plain,
    InvalidRequest,
    InvalidToken,
    /// None: no scope would do.
    InsufficientScope(Option<Scope>),
}

impl Challenge {
    fn value(&self) -> HeaderValue {
        match self {
            Self::Plain => HeaderValue::from_static(r#"Bearer realm="insforge""#),
            Self::InvalidRequest => {
                HeaderValue::from_static(r#"Bearer realm="insforge", error="invalid_request""#)
            }
            Self::InvalidToken => {
                HeaderValue::from_static(r#"Bearer realm="insforge", error="invalid_token""#)
            }
            Self::InsufficientScope(None) => {
                HeaderValue::from_static(r#"Bearer realm="insforge", error="insufficient_scope""#)
            }
            // Scopes are printable ASCII by construction.
            Self::InsufficientScope(Some(scope)) => HeaderValue::try_from(format!(
                r#"Bearer realm="insforge", error="insufficient_scope", scope="{}""#,
                scope.as_str()
            ))
            .unwrap_or_else(|_| Self::InsufficientScope(None).value()),
        }
    }
}

/// The operation that holds a project.
#[derive(Serialize, ToSchema)]
pub struct OperationInFlight {
    #[schema(value_type = uuid::Uuid)]
    id: OperationId,
    #[schema(schema_with = crate::wire::schema::operation_kind)]
    kind: OperationKind,
}

impl Problem {
    pub fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            detail: None,
            advice: None,
            challenge: Challenge::Plain,
            cause: None,
        }
    }

    /// 400: the message names the field and the rule.
    pub fn invalid_input(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_input", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "Authentication failed. Check the credentials that you send.",
        )
    }

    /// 401: a bearer came and is not, or no longer, good (RFC 6750 section 3.1).
    pub fn invalid_token() -> Self {
        Self {
            challenge: Challenge::InvalidToken,
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "The access token or API key is wrong, has expired or was revoked. Sign in again.",
            )
        }
    }

    /// 400: more than one bearer came, or none that can be read.
    pub fn unreadable_token() -> Self {
        Self {
            challenge: Challenge::InvalidRequest,
            ..Self::invalid_input("Authorization must be given once, as Bearer and the token")
        }
    }

    pub fn wrong_model(needed: PartnershipModel) -> Self {
        let name = match needed {
            PartnershipModel::CoBranded => "co-branded",
            PartnershipModel::WhiteLabel => "white-label",
        };
        Self::new(
            StatusCode::FORBIDDEN,
            "wrong_partnership_model",
            format!(
                "This endpoint belongs to the {name} partnership model, which your partnership does not have."
            ),
        )
    }

    /// 409: nothing was merged; the diff tells why (branching.md, "Errors").
    pub fn merge_conflict(diff: Value) -> Self {
        Self {
            detail: Some(Detail::Diff(Box::new(diff))),
            ..Self::new(
                StatusCode::CONFLICT,
                "branch.merge_conflict",
                "Nothing was merged: the diff has conflicts, or changes that need a migration. Settle them, or say for \
                 each conflict which side wins, in resolutions.",
            )
        }
    }

    /// On a call whose 409 means a merge conflict and nothing else, what stands in the way for now is 423
    /// (branching.md, "Errors").
    pub fn locked_if_in_the_way(mut self) -> Self {
        if self.status == StatusCode::CONFLICT && self.code != "branch.merge_conflict" {
            self.status = StatusCode::LOCKED;
        }
        self
    }

    /// 501: this installation was not given what it takes.
    pub fn not_configured(message: &'static str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not_configured", message)
    }

    /// 503: we, or what we stand on, cannot work just now.
    pub fn unavailable() -> Self {
        Self {
            advice: Some(Advice::RetryAfter(RETRY_UNAVAILABLE)),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "The service is not available at the moment. Try again in a few seconds.",
            )
        }
    }

    /// 503: the AI provider cannot be reached just now.
    pub fn ai_unavailable() -> Self {
        Self {
            advice: Some(Advice::RetryAfter(RETRY_AI)),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "ai_unavailable",
                "The AI gateway is not available at the moment. Try again in a few seconds.",
            )
        }
    }

    /// 500 with a fixed body. `cause` goes to the log under the request id.
    pub fn internal(cause: impl Into<String>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal_error",
                "Something went wrong on our side. Give the requestId to support if it lasts.",
            )
        }
    }

    /// What a status means when the router itself refused.
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::new(
                status,
                "not_found",
                "There is nothing at this address. See /docs for the interface.",
            ),
            StatusCode::METHOD_NOT_ALLOWED => Self::new(
                status,
                "method_not_allowed",
                "This address does not take this method. The Allow header lists those that it takes.",
            ),
            status if status.is_client_error() => {
                Self::new(status, "invalid_input", "The request could not be read.")
            }
            status => Self::internal(format!("a route answered {status} without a reason")),
        }
    }

    /// The same refusal in the words of RFC 8628 section 3.5. Its headers stay.
    pub fn slow_down(mut self) -> Self {
        self.status = StatusCode::BAD_REQUEST;
        self.code = OAuthErrorCode::SlowDown.as_str();
        self.message = "Ask less often: wait five seconds more between two requests.".into();
        self
    }

    /// Whether the same request with the same idempotency key shall get this answer again. What
    /// passes by itself (a rate limit, an outage, a first request still running) must not stick, nor may a
    /// refused second use of a key replace the first answer.
    pub fn is_final(&self) -> bool {
        !self.status.is_server_error()
            && self.status != StatusCode::UNAUTHORIZED
            && self.status != StatusCode::TOO_MANY_REQUESTS
            && !matches!(
                self.code,
                "request_in_progress" | "idempotency_key_reused" | "merge_running"
            )
    }

    /// The body, in the form of the interface that was called.
    pub fn body(&self, form: Form, request_id: &RequestId) -> Vec<u8> {
        let written = match form {
            Form::Partnership | Form::Backend => serde_json::to_vec(&PartnershipError {
                success: false,
                message: &self.message,
                code: self.code,
                candidate_projects: match &self.detail {
                    Some(Detail::Candidates(projects)) => Some(projects),
                    _ => None,
                },
                operation: match &self.detail {
                    Some(Detail::Operation(operation)) => Some(operation),
                    _ => None,
                },
                diff: self.diff(),
                error: match &self.detail {
                    Some(Detail::Error) => Some(&self.message),
                    _ => None,
                },
                request_id: request_id.as_str(),
            }),
            Form::Platform => serde_json::to_vec(&PlatformError {
                code: self.code,
                error: &self.message,
                diff: self.diff(),
                request_id: request_id.as_str(),
            }),
            Form::OAuth => serde_json::to_vec(&OAuthErrorBody {
                error: oauth_error::protocol_code(self.status, self.code),
                error_description: &oauth_error::description(&self.message),
            }),
        };
        // Strings and ids always serialise; an empty body would still carry the right status.
        written.unwrap_or_default()
    }

    fn diff(&self) -> Option<&Value> {
        match &self.detail {
            Some(Detail::Diff(diff)) => Some(diff),
            _ => None,
        }
    }

    /// The headers that belong to this refusal.
    pub fn add_headers(&self, form: Form, headers: &mut HeaderMap) {
        match self.advice {
            Some(Advice::RetryAfter(seconds)) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            Some(Advice::RateLimited { limit, retry_after }) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(retry_after));
                headers.insert(RATE_LIMIT_LIMIT, HeaderValue::from(limit));
                headers.insert(RATE_LIMIT_REMAINING, HeaderValue::from(0_u32));
                headers.insert(RATE_LIMIT_RESET, HeaderValue::from(retry_after));
            }
            None => {}
        }
        // RFC 9110 section 11.6.1: a 401 names the way to authenticate.
        let is_challenged = self.status == StatusCode::UNAUTHORIZED;
        let challenge = match form {
            Form::Partnership if is_challenged => {
                HeaderValue::from_static("PartnershipSecret realm=\"partnership\"")
            }
            Form::Backend if is_challenged => {
                HeaderValue::from_static("ProjectSignature realm=\"backend\"")
            }
            Form::OAuth if is_challenged => {
                HeaderValue::from_static("Basic realm=\"oauth\", charset=\"UTF-8\"")
            }
            Form::Platform if is_challenged || !matches!(self.challenge, Challenge::Plain) => {
                self.challenge.value()
            }
            _ => return,
        };
        headers.insert(WWW_AUTHENTICATE, challenge);
    }

    /// The whole answer. The front door adds what every answer has.
    pub fn write(&self, form: Form, request_id: &RequestId, response: &mut Response) {
        *response.status_mut() = self.status;
        *response.body_mut() = Body::from(self.body(form, request_id));
        let headers = response.headers_mut();
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.add_headers(form, headers);
    }
}

/// Leaves the problem in the answer's extensions, for the front door to write.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        Self::invalid_input(error.to_string())
    }
}

impl From<OAuthError> for Problem {
    fn from(error: OAuthError) -> Self {
        let status = oauth_error::status(error.code);
        Self::new(status, error.code.as_str(), error.description)
    }
}

impl From<BranchError> for Problem {
    fn from(error: BranchError) -> Self {
        let (status, code) = match error {
            BranchError::InvalidName(_) => (StatusCode::BAD_REQUEST, "branch.invalid_name"),
            BranchError::NameConflict(_) => (StatusCode::CONFLICT, "branch.name_conflict"),
            BranchError::QuotaExceeded(_) => (StatusCode::FORBIDDEN, "branch.quota_exceeded"),
            BranchError::ParentNotBranchable(_) => {
                (StatusCode::CONFLICT, "branch.parent_not_branchable")
            }
            BranchError::Busy(_) => (StatusCode::CONFLICT, "branch.busy"),
            BranchError::NotReady(_) => (StatusCode::CONFLICT, "branch.not_ready"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<AiKeyError> for Problem {
    fn from(error: AiKeyError) -> Self {
        match error {
            AiKeyError::BeingMade => Self::new(
                StatusCode::CONFLICT,
                "ai_key_being_made",
                "An AI key of this project is being made. Try again in a few seconds.",
            ),
            AiKeyError::Resting => Self::ai_unavailable(),
        }
    }
}

/// What backends are told. The provider's own words are for the operator: they are about our account.
impl From<AiError> for Problem {
    fn from(error: AiError) -> Self {
        match error {
            AiError::Unavailable { .. } => {
                tracing::warn!(%error, "the AI provider is not available");
                Self::ai_unavailable()
            }
            AiError::Missing | AiError::Refused { .. } | AiError::Unexpected(_) => Self {
                cause: Some(format!("OpenRouter (openrouter.provisioning_key): {error}")),
                ..Self::new(
                    StatusCode::BAD_GATEWAY,
                    "ai_gateway_failed",
                    "The AI gateway refused. Its operator has to mend that; try again later.",
                )
            },
        }
    }
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Self {
        let (status, code) = match error {
            BackupError::NoSlot { .. } => (StatusCode::FORBIDDEN, "backup_limit_reached"),
            BackupError::Running => (StatusCode::CONFLICT, "backup_running"),
            BackupError::Failed => (StatusCode::CONFLICT, "backup_failed"),
            BackupError::BeingRestored => (StatusCode::CONFLICT, "backup_being_restored"),
            BackupError::OfBranch => (StatusCode::CONFLICT, "branch_has_no_backups"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<SiteError> for Problem {
    fn from(error: SiteError) -> Self {
        let message = error.to_string();
        match error {
            SiteError::NotConfigured => {
                Self::new(StatusCode::NOT_IMPLEMENTED, "not_configured", message)
            }
            // contract/project-backend.md 3.5
            SiteError::SlugTaken(_) => Self {
                detail: Some(Detail::Error),
                ..Self::new(StatusCode::CONFLICT, "slug_taken", message)
            },
        }
    }
}

impl From<OrganizationError> for Problem {
    fn from(error: OrganizationError) -> Self {
        use OrganizationError as E;
        let (status, code) = match error {
            E::AdministratorNeeded => (StatusCode::FORBIDDEN, "administrator_needed"),
            E::TooMany => (StatusCode::FORBIDDEN, "organization_limit_reached"),
            E::PlanTooSmall(_) | E::NoOwnMail(_) => (StatusCode::FORBIDDEN, "plan_upgrade_needed"),
            E::ThroughPartner(_) => (StatusCode::CONFLICT, "made_through_partner"),
            E::OtherAddress(_) => (StatusCode::FORBIDDEN, "other_address"),
            E::LastAdministrator => (StatusCode::CONFLICT, "last_administrator"),
            E::Home(_) => (StatusCode::CONFLICT, "home_organization"),
            E::HasProjects(_) => (StatusCode::CONFLICT, "organization_has_projects"),
            E::AlreadyMember(_) => (StatusCode::CONFLICT, "already_member"),
            E::TooManyInvitations => (StatusCode::CONFLICT, "too_many_invitations"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<PurchaseError> for Problem {
    fn from(error: PurchaseError) -> Self {
        let code = match error {
            PurchaseError::Free => "plan_not_sold",
            PurchaseError::HasPlan(_) => "plan_held",
            PurchaseError::Unfinished(_) => "subscription_open",
            PurchaseError::NothingBought => "nothing_bought",
        };
        Self::new(StatusCode::CONFLICT, code, error.to_string())
    }
}

impl From<BillingError> for Problem {
    fn from(error: BillingError) -> Self {
        let cause = Some(error.to_string());
        let problem = match error {
            BillingError::Unavailable { .. } => Self {
                advice: Some(Advice::RetryAfter(RETRY_PAYMENTS)),
                ..Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "payments_unavailable",
                    "The payment provider does not answer at the moment. Nothing was bought or changed; try again in a minute.",
                )
            },
            // What the operator has to mend: a key, a price, the portal's settings.
            BillingError::Missing { .. }
            | BillingError::Refused { .. }
            | BillingError::Unexpected(_)
            | BillingError::NotSold(_) => Self::new(
                StatusCode::BAD_GATEWAY,
                "payments_failed",
                "The payment provider did not do it. Nothing was bought or changed; tell the operator of this installation, with the request id.",
            ),
        };
        Self { cause, ..problem }
    }
}

impl From<DomainError> for Problem {
    fn from(error: DomainError) -> Self {
        let conflict =
            |code, message: Cow<'static, str>| Self::new(StatusCode::CONFLICT, code, message);
        match error {
            DomainError::InvalidField(error) => error.into(),
            DomainError::Unauthorized => Self::unauthorized(),
            DomainError::PartnerSuspended => Self::new(
                StatusCode::FORBIDDEN,
                "partner_suspended",
                "This partnership is suspended. Write to partnerships@insforge.dev.",
            ),
            DomainError::WrongPartnershipModel { needed } => Self::wrong_model(needed),
            DomainError::NotFound(thing) => not_found(thing),
            DomainError::ProjectLimitReached {
                message,
                candidates,
            } => Self {
                detail: Some(Detail::Candidates(
                    candidates.into_iter().map(Into::into).collect(),
                )),
                ..Self::new(StatusCode::FORBIDDEN, "project_limit_reached", message)
            },
            DomainError::OperationInProgress { operation_id, kind } => Self {
                detail: Some(Detail::Operation(OperationInFlight {
                    id: operation_id,
                    kind,
                })),
                ..conflict(
                    "operation_in_progress",
                    format!(
                        "Another operation ({kind} {operation_id}) is running on this project. Wait for it to end, then try again."
                    )
                    .into(),
                )
            },
            DomainError::ProjectNotActive { status } => conflict(
                "project_not_active",
                format!("The project is {status}; it must be active for this.").into(),
            ),
            DomainError::WrongStatus { verb, status } => conflict(
                "project_wrong_status",
                format!("A project that is {status} cannot be {verb}.").into(),
            ),
            DomainError::IdempotencyKeyReused => conflict(
                "idempotency_key_reused",
                "This Idempotency-Key was used for another request. Use a new key for each new request."
                    .into(),
            ),
            DomainError::RequestInProgress => conflict(
                "request_in_progress",
                "A request with this Idempotency-Key is still running. Try again in a moment.".into(),
            ),
            DomainError::RateLimited { limit, retry_after } => Self {
                advice: Some(Advice::RateLimited { limit, retry_after }),
                ..Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "rate_limited",
                    format!("Too many requests. Try again in {retry_after} s."),
                )
            },
            DomainError::InsufficientScope { needed } => Self {
                // Not every need is a scope.
                challenge: Challenge::InsufficientScope(
                    needed.parse().ok(),
                ),
                ..Self::new(
                    StatusCode::FORBIDDEN,
                    "insufficient_scope",
                    format!("This credential was not given {needed}. Sign in again and allow it."),
                )
            },
            DomainError::EmailTaken => conflict(
                "email_taken",
                "An account with this e-mail address exists. Sign in, or reset its password."
                    .into(),
            ),
            DomainError::EmailNotVerified => Self::new(
                StatusCode::FORBIDDEN,
                "email_not_verified",
                "Verify your e-mail address first: open the link or enter the code that we mailed you.",
            ),
            DomainError::WrongCode => Self::new(
                StatusCode::BAD_REQUEST,
                "wrong_code",
                "The code is wrong or has expired. Ask for a new one.",
            ),
            DomainError::ExpiredLink => Self::new(
                StatusCode::BAD_REQUEST,
                "expired_link",
                "The link has expired or was used already. Ask for a new one.",
            ),
            DomainError::OAuth(error) => error.into(),
            DomainError::AiKey(error) => error.into(),
            DomainError::Backup(error) => error.into(),
            DomainError::Purchase(error) => error.into(),
            DomainError::Branch(error) => error.into(),
            DomainError::Organization(error) => error.into(),
            DomainError::Site(error) => error.into(),
            DomainError::Conflict(message) => conflict("conflict", message.into()),
            DomainError::Unavailable => Self::unavailable(),
            DomainError::LeaseLost => Self::internal("a request met a lease, which only workers hold"),
            DomainError::Internal(cause) => Self::internal(cause),
        }
    }
}

/// Another tenant's thing is answered byte for byte like a missing one (design.md, invariant 7).
fn not_found(thing: Thing) -> Problem {
    let (code, message) = match thing {
        Thing::Organization => ("organization_not_found", "There is no such organization."),
        Thing::Member => ("member_not_found", "There is no such member."),
        Thing::Invitation => (
            "invitation_not_found",
            "There is no such invitation, or it was answered.",
        ),
        // The client looks for these words (contract/platform-api.md 3.1).
        Thing::Project => ("project_not_found", "Project not found."),
        Thing::Branch => ("branch.not_found", "There is no such branch."),
        Thing::User => (
            "user_not_found",
            "There is no such user, or the user is not connected to your partnership.",
        ),
        Thing::Operation => ("operation_not_found", "There is no such operation."),
        Thing::Machine => ("machine_not_found", "There is no such machine."),
        Thing::Partner => ("partner_not_found", "There is no such partner."),
        Thing::OAuthClient => ("oauth_client_not_found", "There is no such application."),
        Thing::ApiKey => ("api_key_not_found", "There is no such API key."),
        Thing::Backup => ("backup_not_found", "There is no such backup."),
        Thing::Analysis => ("session_not_found", "There is no such analysis."),
        Thing::Session => ("session_not_found", "There is no such session."),
        Thing::Grant => ("grant_not_found", "There is no such sign-in."),
        Thing::DeviceCode => (
            "device_code_not_found",
            "There is no device that waits with this code. Look at the code again; it may have expired.",
        ),
        Thing::Statement => ("statement_not_found", "This month is not closed."),
        Thing::Webhook => ("webhook_not_found", "This partner has no webhook."),
        Thing::WebhookEvent => ("webhook_event_not_found", "There is no such event."),
        Thing::UsageLimit => ("usage_limit_not_found", "There is no such usage limit."),
        Thing::Site => ("site_not_found", "This project has no site."),
        Thing::UsageToken => ("usage_token_not_found", "There is no such usage token."),
    };
    Problem::new(StatusCode::NOT_FOUND, code, message)
}

/// A refusal of the partnership interface.
#[derive(Serialize, ToSchema)]
pub struct PartnershipError<'a> {
    /// Always false.
    #[schema(example = false)]
    success: bool,
    /// What happened and what to do next, for people.
    #[schema(example = "project_name must have 2 to 64 characters, has 1")]
    message: &'a str,
    /// What happened, for programs.
    #[schema(example = "invalid_input")]
    code: &'a str,
    /// With `project_limit_reached`: the user's projects that can be connected instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    candidate_projects: Option<&'a Vec<ConnectedProject>>,
    /// With `operation_in_progress`: the operation to wait for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    operation: Option<&'a OperationInFlight>,
    /// With `branch.merge_conflict`: what the merge found.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Object)]
    diff: Option<&'a Value>,
    /// With `slug_taken`: the message again, where backends look for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<&'a str>,
    /// Names this request in our logs.
    #[serde(rename = "requestId")]
    #[schema(example = "req_019a9f0d3c1b7c2e8f64")]
    request_id: &'a str,
}

/// A refusal of the other interfaces.
#[derive(Serialize, ToSchema)]
pub struct PlatformError<'a> {
    /// What happened, for programs.
    #[schema(example = "unauthorized")]
    code: &'a str,
    /// What happened and what to do next, for people.
    #[schema(example = "Authentication failed. Check the credentials that you send.")]
    error: &'a str,
    /// With `branch.merge_conflict`: what the merge found.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Object)]
    diff: Option<&'a Value>,
    /// Names this request in our logs.
    #[serde(rename = "requestId")]
    #[schema(example = "req_019a9f0d3c1b7c2e8f64")]
    request_id: &'a str,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(problem: &Problem, form: Form) -> Value {
        let id = RequestId::from_caller("r-1").unwrap();
        serde_json::from_slice(&problem.body(form, &id)).unwrap()
    }

    #[test]
    fn each_interface_gets_its_own_form() {
        let problem = Problem::from(DomainError::NotFound(Thing::Project));
        assert_eq!(
            body(&problem, Form::Partnership),
            json!({"success": false, "message": "Project not found.",
                   "code": "project_not_found", "requestId": "r-1"})
        );
        assert_eq!(
            body(&problem, Form::Platform),
            json!({"code": "project_not_found", "error": "Project not found.", "requestId": "r-1"})
        );
    }

    #[test]
    fn the_form_follows_the_path_and_not_its_prefix() {
        assert_eq!(Form::of_path("/partnership/v1/x"), Form::Partnership);
        assert_eq!(Form::of_path("/partnership"), Form::Partnership);
        assert_eq!(Form::of_path("/partnerships"), Form::Platform);
        assert_eq!(Form::of_path("/agent/v1/report"), Form::Platform);
        assert_eq!(Form::of_path("/api/oauth/v1/token"), Form::OAuth);
        assert_eq!(Form::of_path("/api/oauth/nowhere"), Form::OAuth);
        assert_eq!(Form::of_path("/api/oauths"), Form::Platform);
    }

    #[test]
    fn a_conflict_names_the_operation_that_holds_the_project() {
        let operation_id = OperationId::generate();
        let problem = Problem::from(DomainError::OperationInProgress {
            operation_id,
            kind: OperationKind::Pause,
        });
        assert_eq!(problem.status, StatusCode::CONFLICT);
        let body = body(&problem, Form::Partnership);
        assert_eq!(
            body["operation"],
            json!({"id": operation_id, "kind": "pause"})
        );
        assert_eq!(body["code"], "operation_in_progress");
    }

    #[test]
    fn the_cause_of_an_internal_error_stays_with_us() {
        let problem = Problem::from(DomainError::Internal("password=hunter2".into()));
        for form in [Form::Partnership, Form::Platform, Form::OAuth] {
            assert!(!body(&problem, form).to_string().contains("hunter2"));
        }
        assert_eq!(problem.cause.as_deref(), Some("password=hunter2"));
    }

    #[test]
    fn a_rate_limit_says_when_to_come_back() {
        let problem = Problem::from(DomainError::RateLimited {
            limit: 600,
            retry_after: 7,
        });
        let mut headers = HeaderMap::new();
        problem.add_headers(Form::Partnership, &mut headers);
        assert_eq!(headers[RETRY_AFTER], "7");
        assert_eq!(headers[RATE_LIMIT_LIMIT], "600");
        assert_eq!(headers[RATE_LIMIT_REMAINING], "0");
    }

    fn challenge(problem: &Problem, form: Form) -> Option<String> {
        let mut headers = HeaderMap::new();
        problem.add_headers(form, &mut headers);
        let value = headers.get(WWW_AUTHENTICATE)?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_oauth_form_speaks_the_protocols_words() {
        let refused = OAuthError::invalid_grant("The code has expired.");
        let problem = Problem::from(DomainError::from(refused));
        assert_eq!(problem.status, StatusCode::BAD_REQUEST);
        assert_eq!(
            body(&problem, Form::OAuth),
            json!({"error": "invalid_grant", "error_description": "The code has expired."})
        );
        for (error, status, code) in [
            (DomainError::Unauthorized, 401, "invalid_client"),
            (DomainError::Unavailable, 503, "temporarily_unavailable"),
            (DomainError::Internal(String::new()), 500, "server_error"),
            (
                DomainError::RateLimited {
                    limit: 50,
                    retry_after: 3,
                },
                429,
                "temporarily_unavailable",
            ),
            (
                FieldError::new("client_id", "must be short").into(),
                400,
                "invalid_request",
            ),
        ] {
            let problem = Problem::from(error);
            assert_eq!(problem.status, status);
            assert_eq!(body(&problem, Form::OAuth)["error"], code);
        }
        let unknown = Problem::of_status(StatusCode::NOT_FOUND);
        assert_eq!(body(&unknown, Form::OAuth)["error"], "invalid_request");
    }

    #[test]
    fn challenges_name_what_is_wrong_with_a_bearer() {
        let of = |problem: Problem| challenge(&problem, Form::Platform);
        assert_eq!(
            of(Problem::unauthorized()).unwrap(),
            r#"Bearer realm="insforge""#
        );
        assert_eq!(
            of(Problem::invalid_token()).unwrap(),
            r#"Bearer realm="insforge", error="invalid_token""#
        );
        assert_eq!(
            of(Problem::unreadable_token()).unwrap(),
            r#"Bearer realm="insforge", error="invalid_request""#
        );
        let lacking = |needed| Problem::from(DomainError::InsufficientScope { needed });
        assert_eq!(
            of(lacking("user:read")).unwrap(),
            r#"Bearer realm="insforge", error="insufficient_scope", scope="user:read""#
        );
        assert_eq!(
            of(lacking("a session of the person")).unwrap(),
            r#"Bearer realm="insforge", error="insufficient_scope""#
        );
        assert_eq!(of(Problem::invalid_input("x")), None);
        assert_eq!(
            challenge(&Problem::unauthorized(), Form::OAuth).unwrap(),
            r#"Basic realm="oauth", charset="UTF-8""#
        );
    }

    #[test]
    fn only_what_lasts_is_kept_under_an_idempotency_key() {
        let kept = |error: DomainError| Problem::from(error).is_final();
        assert!(kept(DomainError::NotFound(Thing::Project)));
        assert!(!kept(DomainError::IdempotencyKeyReused));
        assert!(!kept(DomainError::RequestInProgress));
        assert!(!kept(DomainError::Unauthorized));
        assert!(!kept(DomainError::Unavailable));
        assert!(!kept(DomainError::Internal(String::new())));
        assert!(!kept(DomainError::RateLimited {
            limit: 1,
            retry_after: 1
        }));
    }
}
