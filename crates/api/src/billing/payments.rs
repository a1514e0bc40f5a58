//! Plans, cycles, payments and credits, as they are without a payment provider.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, NaiveDate, Utc};
use cp_domain::ControlPlane;
use cp_model::{OrganizationId, Plan, UsagePeriod};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::bearer::Bearer;
use crate::body::{JsonBody, RequestBody};
use crate::docs::errors::{BearerErrors, MemberErrors, NotConfiguredError, PlatformInputErrors};
use crate::params::{self, OrganizationParam, OrganizationPath, one_of};
use crate::problem::Problem;
use crate::wire::{schema, time};

const NO_PAYMENTS: &str = "This installation takes no payments. Ask its operator for another plan.";

/// Whether an organization pays, and for what.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionStatus {
    #[schema(example = "active")]
    status: &'static str,
    #[schema(schema_with = schema::plan)]
    plan: Plan,
}

/// The first and the last day of a billing cycle.
#[derive(Serialize, ToSchema)]
struct Cycle {
    start_date: NaiveDate,
    end_date: NaiveDate,
}

impl From<UsagePeriod> for Cycle {
    fn from(period: UsagePeriod) -> Self {
        Self {
            start_date: period.first(),
            end_date: period.last(),
        }
    }
}

/// The present cycle and the one before.
#[derive(Serialize, ToSchema)]
pub struct BillingCycles {
    current: Cycle,
    previous: Cycle,
}

/// A payment.
#[derive(Serialize, ToSchema)]
struct Payment {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    stripe_invoice_id: Option<String>,
    amount_cents: i64,
    #[schema(example = "$25.00")]
    amount_display: String,
    #[schema(example = "usd")]
    currency: String,
    #[schema(example = "paid")]
    status: String,
    #[schema(required = true)]
    description: Option<String>,
    #[schema(required = true)]
    invoice_pdf_url: Option<String>,
    #[serde(serialize_with = "time::seconds")]
    created_at: DateTime<Utc>,
}

/// Payments, the newest first.
#[derive(Serialize, ToSchema)]
pub struct PaymentsResponse {
    payments: Vec<Payment>,
}

/// What was added to or taken from the credit.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CreditTransaction {
    amount_cents: i64,
    description: String,
    #[serde(serialize_with = "time::seconds")]
    created: DateTime<Utc>,
}

/// What an organization has paid ahead, or was given.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_field_names, reason = "the contract's names")]
pub struct CreditBalance {
    credit_balance_cents: i64,
    #[schema(example = "$0.00")]
    credit_balance_formatted: String,
    transactions: Vec<CreditTransaction>,
}

/// The body of a checkout.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckoutRequest {
    #[schema(format = Uuid, example = "019a2f60-44d0-7c3e-b1a5-0d5e7f9a2c31")]
    organization_id: String,
    #[schema(schema_with = schema::bought_plan)]
    plan: String,
}

impl RequestBody for CheckoutRequest {}

/// The body of a portal session.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortalRequest {
    #[schema(format = Uuid, example = "019a2f60-44d0-7c3e-b1a5-0d5e7f9a2c31")]
    organization_id: String,
}

impl RequestBody for PortalRequest {}

/// Get an organization's subscription
///
/// Without a payment provider: the plan that the operator has set.
#[utoipa::path(
    get,
    path = "/organizations/v1/{organizationId}/subscription-status",
    tag = "Billing",
    security(("bearer" = ["account"])),
    params(OrganizationParam),
    responses(
        (status = 200, description = "The subscription", body = SubscriptionStatus),
        BearerErrors, MemberErrors,
    )
)]
pub async fn get_subscription_status(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    OrganizationPath(id): OrganizationPath,
) -> Result<Json<SubscriptionStatus>, Problem> {
    by.require_everything()?;
    let organization = control_plane.organization(&by, id).await?;
    Ok(Json(SubscriptionStatus {
        status: "active",
        plan: organization.plan,
    }))
}

/// Get an organization's billing cycles
///
/// Calendar months, in UTC: the periods that usage is told for.
#[utoipa::path(
    get,
    path = "/organizations/v1/{organizationId}/billing-cycles",
    tag = "Billing",
    security(("bearer" = ["account"])),
    params(OrganizationParam),
    responses(
        (status = 200, description = "The cycles", body = BillingCycles),
        BearerErrors, MemberErrors,
    )
)]
pub async fn list_billing_cycles(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    OrganizationPath(id): OrganizationPath,
) -> Result<Json<BillingCycles>, Problem> {
    by.require_everything()?;
    control_plane.organization(&by, id).await?;
    let current = UsagePeriod::month_of(control_plane.today());
    Ok(Json(BillingCycles {
        previous: current.month_before().into(),
        current: current.into(),
    }))
}

/// List an organization's payments
///
/// Without a payment provider there are none.
#[utoipa::path(
    get,
    path = "/organizations/v1/{organizationId}/payment-history",
    tag = "Billing",
    security(("bearer" = ["account"])),
    params(OrganizationParam),
    responses(
        (status = 200, description = "The payments", body = PaymentsResponse),
        BearerErrors, MemberErrors,
    )
)]
pub async fn list_payments(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    OrganizationPath(id): OrganizationPath,
) -> Result<Json<PaymentsResponse>, Problem> {
    by.require_everything()?;
    control_plane.organization(&by, id).await?;
    Ok(Json(PaymentsResponse { payments: vec![] }))
}

/// Get an organization's credit
///
/// Without a payment provider there is none.
#[utoipa::path(
    get,
    path = "/billing/v1/{organizationId}/credits",
    tag = "Billing",
    security(("bearer" = ["account"])),
    params(OrganizationParam),
    responses(
        (status = 200, description = "The credit", body = CreditBalance),
        BearerErrors, MemberErrors,
    )
)]
pub async fn get_credits(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    OrganizationPath(id): OrganizationPath,
) -> Result<Json<CreditBalance>, Problem> {
    by.require_everything()?;
    control_plane.organization(&by, id).await?;
    Ok(Json(CreditBalance {
        credit_balance_cents: 0,
        credit_balance_formatted: "$0.00".into(),
        transactions: vec![],
    }))
}

/// Buy a plan
///
/// For administrators. Without a payment provider the operator sets plans, and this answers 501.
#[utoipa::path(
    post,
    path = "/billing/v1/stripe/checkout-session",
    tag = "Billing",
    security(("bearer" = ["account", "administrator"])),
    request_body = CheckoutRequest,
    responses(BearerErrors, MemberErrors, PlatformInputErrors, NotConfiguredError)
)]
pub async fn create_checkout_session(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    body: JsonBody<CheckoutRequest>,
) -> Result<(), Problem> {
    by.require_everything()?;
    one_of("plan", &body.value.plan, &Plan::OF_PEOPLE, Plan::as_str)?;
    let id = params::parse_id("organizationId", &body.value.organization_id)?;
    control_plane
        .administered_organization(&by, OrganizationId(id))
        .await?;
    Err(Problem::not_configured(NO_PAYMENTS))
}

/// Manage a subscription
///
/// For administrators. Without a payment provider the operator sets plans, and this answers 501.
#[utoipa::path(
    post,
    path = "/billing/v1/stripe/portal-session",
    tag = "Billing",
    security(("bearer" = ["account", "administrator"])),
    request_body = PortalRequest,
    responses(BearerErrors, MemberErrors, PlatformInputErrors, NotConfiguredError)
)]
pub async fn create_portal_session(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    body: JsonBody<PortalRequest>,
) -> Result<(), Problem> {
    by.require_everything()?;
    let id = params::parse_id("organizationId", &body.value.organization_id)?;
    control_plane
        .administered_organization(&by, OrganizationId(id))
        .await?;
    Err(Problem::not_configured(NO_PAYMENTS))
}
