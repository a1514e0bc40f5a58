//! The refusals that routes have in common, for the OpenAPI document. A handler names the groups
//! that it can answer.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

const PARTNERSHIP: &str = "PartnershipError";
const PLATFORM: &str = "PlatformError";
const OAUTH: &str = "OAuthError";

const UNAVAILABLE: &str = "The service cannot work at the moment (`unavailable`)";
const INTERNAL: &str = "Something went wrong on our side (`internal_error`)";

type Responses = BTreeMap<String, RefOr<Response>>;

fn refusal(schema: &str, status: u16, description: &str) -> (String, RefOr<Response>) {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(schema)))
        .build();
    let mut response = ResponseBuilder::new()
        .description(description)
        .content("application/json", content);
    if matches!(status, 429 | 503) {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer).build();
        let header = HeaderBuilder::new()
            .schema(Some(seconds))
            .description(Some("Seconds to wait before the next try"))
            .build();
        response = response.header("Retry-After", header);
    }
    (status.to_string(), response.build().into())
}

fn refusals<const N: usize>(schema: &str, listed: [(u16, &str); N]) -> Responses {
    listed
        .into_iter()
        .map(|(status, description)| refusal(schema, status, description))
        .collect()
}

macro_rules! refusal_group {
    ($(#[$meta:meta])* $name:ident: $schema:expr, $($status:literal => $text:expr),+ $(,)?) => {
        $(#[$meta])*
        pub struct $name;

        impl IntoResponses for $name {
            fn responses() -> Responses {
                refusals($schema, [$(($status, $text)),+])
            }
        }
    };
}

refusal_group!(
    /// What every partnership route can answer.
    PartnerErrors: PARTNERSHIP,
    401 => "Unknown partner, or the secret is missing or wrong (`unauthorized`)",
    403 => "Your partnership is suspended (`partner_suspended`), does not have this model (`wrong_partnership_model`), or the user's plan allows no more projects (`project_limit_reached`, with `candidate_projects`)",
    429 => "Over the rate limit (`rate_limited`)",
    500 => INTERNAL,
    503 => UNAVAILABLE,
);
refusal_group!(
    /// What a route that reads a body can answer.
    InputErrors: PARTNERSHIP,
    400 => "The input breaks a rule; `message` names the field and the rule (`invalid_input`)",
    413 => "The body is larger than 64 KiB (`payload_too_large`)",
    415 => "The body is not `application/json` (`unsupported_media_type`)",
);
refusal_group!(
    /// What a route with ids or a query can answer.
    BadRequestError: PARTNERSHIP,
    400 => "The input breaks a rule; `message` names the field and the rule (`invalid_input`)",
);
refusal_group!(
    TooLargeError: PARTNERSHIP,
    413 => "The body is larger than 64 KiB (`payload_too_large`)",
);
refusal_group!(
    NotFoundError: PARTNERSHIP,
    404 => "There is no such thing, or it is not yours (`project_not_found`, `user_not_found`, `operation_not_found`)",
);
refusal_group!(
    ConflictError: PARTNERSHIP,
    409 => "It does not fit the project's state (`operation_in_progress` with the `operation`, `project_not_active`, `project_wrong_status`) or the idempotency key (`idempotency_key_reused`, `request_in_progress`)",
);
refusal_group!(
    /// What an open route can answer.
    OpenErrors: PLATFORM,
    500 => INTERNAL,
    503 => UNAVAILABLE,
);
refusal_group!(
    /// What every agent route can answer.
    AgentErrors: PLATFORM,
    400 => "The input breaks a rule; `error` names the field and the rule (`invalid_input`)",
    401 => "The token is missing or wrong (`unauthorized`)",
    500 => INTERNAL,
    503 => UNAVAILABLE,
);
refusal_group!(
    /// What an agent route that reads a body can answer besides.
    AgentBodyErrors: PLATFORM,
    413 => "The body is larger than 64 KiB (`payload_too_large`)",
    415 => "The body is not `application/json` (`unsupported_media_type`)",
);
refusal_group!(
    /// What a service that tells usage can be answered.
    UsageEventErrors: PLATFORM,
    400 => "The batch cannot be read, or is too long; `error` says why (`invalid_input`). Nothing is counted",
    401 => "The token is missing, wrong or revoked (`unauthorized`)",
    413 => "The body is larger than 1 MiB (`payload_too_large`)",
    415 => "The body is not `application/json` (`unsupported_media_type`)",
    429 => "Too many batches at once (`rate_limited`)",
    500 => INTERNAL,
    503 => UNAVAILABLE,
);
refusal_group!(
    /// What backends can be answered.
    BackendErrors: PARTNERSHIP,
    400 => "The input breaks a rule; `message` names the field and the rule (`invalid_input`)",
    401 => "The signature is missing, wrong, expired, another project's, or was used before (`unauthorized`)",
    413 => "The body is larger than 64 KiB (`payload_too_large`)",
    415 => "The body is not `application/json` (`unsupported_media_type`)",
    500 => INTERNAL,
    503 => UNAVAILABLE,
);
refusal_group!(
    /// What backends ask for that this installation was not given.
    BackendNotConfigured: PARTNERSHIP,
    501 => "This installation was not set up for it (`not_configured`)",
);
refusal_group!(
    /// What a site cannot be named.
    BackendSlugTaken: PARTNERSHIP,
    409 => "Another project has this slug (`slug_taken`); `error` repeats `message`",
);
refusal_group!(
    /// What mails are refused for.
    BackendMailErrors: PARTNERSHIP,
    403 => "The plan sends no mails that projects have written themselves (`plan_upgrade_needed`)",
    429 => "Too many mails in this minute, or on this day (`rate_limited`)",
);
refusal_group!(
    /// What AI keys are refused for.
    BackendAiErrors: PARTNERSHIP,
    409 => "A key of this project is being made (`ai_key_being_made`)",
    429 => "Too many keys in the last 30 days (`rate_limited`)",
    502 => "The AI gateway refused, and its operator has to mend that (`ai_gateway_failed`)",
    503 => "The AI gateway cannot be reached (`ai_unavailable`), or the service cannot work at the moment (`unavailable`)",
);
refusal_group!(
    BackendUnknownAddress: PARTNERSHIP,
    409 => "The database's address is not known yet (`database_address_unknown`)",
);
refusal_group!(
    /// What every OAuth route that an application calls can answer.
    OAuthErrors: OAUTH,
    400 => "The request is refused; `error` says why, in a code of RFC 6749 section 5.2 or RFC 8628 section 3.5",
    401 => "The client is unknown, or its secret is missing or wrong (`invalid_client`)",
    413 => "The body is larger than 64 KiB (`invalid_request`)",
    500 => "Something went wrong on our side (`server_error`)",
    503 => "The service cannot work at the moment (`temporarily_unavailable`)",
);
refusal_group!(
    OAuthRateLimitError: OAUTH,
    429 => "Over the client's rate limit (`temporarily_unavailable`). A device that polls is told `slow_down` with 400 instead",
);
refusal_group!(
    /// What every route can answer that people call by an access token or an API key.
    BearerErrors: PLATFORM,
    401 => "The access token or API key is missing, wrong, expired or revoked (`unauthorized`); `WWW-Authenticate` says which",
    403 => "It was not given the scope that this asks for (`insufficient_scope`), or the person may not do this: only administrators of the organization (`administrator_needed`), only with a verified address (`email_not_verified`), not beyond a plan or a quota (`project_limit_reached`, `organization_limit_reached`, `plan_upgrade_needed`, `backup_limit_reached`, `branch.quota_exceeded`)",
    500 => INTERNAL,
    503 => UNAVAILABLE,
);
refusal_group!(
    /// What the routes on one organization can answer besides.
    MemberErrors: PLATFORM,
    400 => "The input breaks a rule; `error` names the field and the rule (`invalid_input`)",
    404 => "There is no such organization, member or invitation, or you do not belong to it (`organization_not_found`, `member_not_found`, `invitation_not_found`)",
);
refusal_group!(
    /// What the routes on one project can answer besides.
    OwnProjectErrors: PLATFORM,
    400 => "The input breaks a rule; `error` names the field and the rule (`invalid_input`)",
    404 => "There is no such project or organization, or you do not belong to it (`project_not_found`, `organization_not_found`)",
);
refusal_group!(
    /// What the routes on backups can answer besides.
    BackupErrors: PLATFORM,
    400 => "The input breaks a rule; `error` names the field and the rule (`invalid_input`)",
    404 => "There is no such project or backup, or it is not yours (`project_not_found`, `backup_not_found`)",
);
refusal_group!(
    /// What a route that reads a body can answer besides.
    PlatformInputErrors: PLATFORM,
    400 => "The input breaks a rule; `error` names the field and the rule (`invalid_input`)",
    413 => "The body is larger than 64 KiB (`payload_too_large`)",
    415 => "The body is not `application/json` (`unsupported_media_type`)",
);
refusal_group!(
    /// What a question to an AI is refused for.
    AnalyzeErrors: PLATFORM,
    413 => "The body is larger than 256 KiB (`payload_too_large`)",
    415 => "The body is not `application/json` (`unsupported_media_type`)",
);
refusal_group!(
    /// What a rating is refused for.
    SessionErrors: PLATFORM,
    404 => "There is no such analysis, or somebody else asked (`session_not_found`)",
);
refusal_group!(
    /// What the payment provider can be the reason of.
    PaymentErrors: PLATFORM,
    429 => "Too many questions to the payment provider in this minute (`rate_limited`)",
    502 => "The payment provider refuses us; the operator has to mend that (`payments_failed`)",
    503 => "We or the payment provider are not available; try again after `Retry-After` (`unavailable`, `payments_unavailable`)",
);
refusal_group!(
    /// What buying and managing can answer besides.
    PurchaseErrors: PLATFORM,
    409 => "Nothing was bought: it cannot be bought, is had already, or there is nothing to manage (`plan_not_sold`, `plan_held`, `subscription_open`, `nothing_bought`)",
);
refusal_group!(
    /// What the payment provider can be told.
    WebhookErrors: PLATFORM,
    400 => "It is no event, or not signed by the payment provider within the last five minutes (`invalid_event`), or did not arrive in time (`invalid_input`)",
    413 => "The body is larger than 512 KiB (`payload_too_large`)",
    500 => INTERNAL,
    503 => UNAVAILABLE,
);
refusal_group!(
    /// What needs something that this installation was not given.
    NotConfiguredError: PLATFORM,
    501 => "This installation was not set up for it (`not_configured`)",
);
refusal_group!(
    /// What a route that changes something can answer besides.
    PlatformChangeErrors: PLATFORM,
    409 => "It does not fit how things stand; `error` says what to do (`operation_in_progress`, `project_wrong_status`, `last_administrator`, `home_organization`, `organization_has_projects`, `already_member`, `too_many_invitations`, `made_through_partner`, `branch.not_ready`, `backup_running`, `backup_failed`, `backup_being_restored`, `branch_has_no_backups`)",
    413 => "The body is larger than 64 KiB (`payload_too_large`)",
);
refusal_group!(
    /// What the routes on branches can answer besides.
    BranchErrors: PLATFORM,
    400 => "The input breaks a rule; `error` names the field and the rule (`invalid_input`, `branch.invalid_name`)",
    404 => "There is no such project or branch, or it is not yours (`project_not_found`, `branch.not_found`)",
);
refusal_group!(
    /// What a route that changes a branch can answer besides.
    BranchChangeErrors: PLATFORM,
    409 => "It does not fit the branch's state or its parent's (`branch.busy`, `branch.not_ready`, `branch.name_conflict`, `branch.parent_not_branchable`, `operation_in_progress`)",
    413 => "The body is larger than 64 KiB (`payload_too_large`)",
    415 => "The body is not `application/json` (`unsupported_media_type`)",
);
refusal_group!(
    /// What a comparison can answer besides.
    CompareErrors: PLATFORM,
    409 => "The branch or its parent cannot be compared now (`branch.busy`, `branch.not_ready`, `branch.parent_not_branchable`)",
    422 => "The databases cannot be compared (`branch.merge_failed`)",
);
refusal_group!(
    /// The same, for partners.
    PartnerCompareErrors: PARTNERSHIP,
    409 => "The branch or its parent cannot be compared now (`branch.busy`, `branch.not_ready`, `branch.parent_not_branchable`)",
    422 => "The databases cannot be compared (`branch.merge_failed`)",
);
refusal_group!(
    /// What a merge or a rebase can answer besides.
    MergeErrors: PLATFORM,
    409 => "Nothing was merged (`branch.merge_conflict`); `diff` tells why, and 409 means nothing else here. A dry run: the branch or its parent cannot be compared now (`branch.busy`, `branch.not_ready`, `branch.parent_not_branchable`)",
    413 => "The body is larger than 64 KiB (`payload_too_large`)",
    415 => "The body is not `application/json` (`unsupported_media_type`)",
    422 => "Nothing was merged: a statement was refused, or the databases cannot be compared (`branch.merge_failed`)",
    423 => "Not now (`branch.busy`, `branch.not_ready`, `branch.parent_not_branchable`, `operation_in_progress`, `merge_running`), or the idempotency key does not fit",
);
refusal_group!(
    /// The same, for partners.
    PartnerMergeErrors: PARTNERSHIP,
    409 => "Nothing was merged (`branch.merge_conflict`); `diff` tells why, and 409 means nothing else here. A dry run: the branch or its parent cannot be compared now (`branch.busy`, `branch.not_ready`, `branch.parent_not_branchable`)",
    413 => "The body is larger than 64 KiB (`payload_too_large`)",
    415 => "The body is not `application/json` (`unsupported_media_type`)",
    422 => "Nothing was merged: a statement was refused, or the databases cannot be compared (`branch.merge_failed`)",
    423 => "Not now (`branch.busy`, `branch.not_ready`, `branch.parent_not_branchable`, `operation_in_progress`, `merge_running`), or the idempotency key does not fit",
);
refusal_group!(
    RateLimitError: PLATFORM,
    429 => "Over the rate limit (`rate_limited`)",
);
refusal_group!(
    LoginErrors: PLATFORM,
    400 => "The input breaks a rule; `error` names the field and the rule (`invalid_input`)",
    401 => "The e-mail address or the password is wrong (`unauthorized`)",
    403 => "The address is not verified, and a new code is on its way (`email_not_verified`); or a page of another site asks (`cross_site_request`)",
    413 => "The body is larger than 64 KiB (`payload_too_large`)",
    415 => "The body is not `application/json` (`unsupported_media_type`)",
    429 => "Too many wrong passwords (`rate_limited`)",
    500 => INTERNAL,
    503 => UNAVAILABLE,
);
refusal_group!(
    SignupErrors: PLATFORM,
    400 => "The input breaks a rule; `error` names the field and the rule (`invalid_input`)",
    403 => "A page of another site asks (`cross_site_request`)",
    409 => "There is an account with this address (`email_taken`)",
    413 => "The body is larger than 64 KiB (`payload_too_large`)",
    415 => "The body is not `application/json` (`unsupported_media_type`)",
    429 => "Too many sign-ups from this address (`rate_limited`)",
    500 => INTERNAL,
    503 => UNAVAILABLE,
);
refusal_group!(
    RefreshErrors: PLATFORM,
    401 => "The cookie is missing, or its token has expired or was revoked (`unauthorized`)",
    403 => "A page of another site asks (`cross_site_request`)",
    429 => "Over the rate limit (`rate_limited`)",
    500 => INTERNAL,
    503 => UNAVAILABLE,
);
refusal_group!(
    LogoutErrors: PLATFORM,
    403 => "A page of another site asks (`cross_site_request`)",
    500 => INTERNAL,
    503 => UNAVAILABLE,
);
