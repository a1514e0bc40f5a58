//! Plans, cycles, payments and credits: as the payment provider tells them, or as they are without one.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, NaiveDate, Utc};
use cp_billing::{Credit, decisive, fmt_amount};
use cp_domain::ControlPlane;
use cp_model::{Plan, UsagePeriod};
use serde::Serialize;
use utoipa::ToSchema;

use super::provider::Payments;
use crate::bearer::Bearer;
use crate::docs::errors::{BearerErrors, MemberErrors, PaymentErrors};
use crate::params::{OrganizationParam, OrganizationPath};
use crate::problem::Problem;
use crate::wire::{schema, time};

/// Payments, and changes of the credit, that are told at once.
const MOST: usize = 100;

/// Whether an organization pays, and for what.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionStatus {
    /// In the payment provider's words: `active`, `past_due`, `canceled`, …; `active` where nothing is paid.
    #[schema(example = "active")]
    status: String,
    /// What the organization has now.
    #[schema(schema_with = schema::plan)]
    plan: Plan,
    /// Until when it is paid.
    #[serde(
        serialize_with = "time::optional_seconds",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    current_period_end: Option<DateTime<Utc>>,
    /// Whether it ends then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cancel_at_period_end: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "cus_A1")]
    stripe_customer_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "sub_A1")]
    stripe_subscription_id: Option<String>,
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
    #[schema(example = "in_A1")]
    stripe_invoice_id: String,
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

impl From<cp_billing::Payment> for Payment {
    fn from(payment: cp_billing::Payment) -> Self {
        Self {
            amount_display: fmt_amount(payment.amount_cents, &payment.currency),
            stripe_invoice_id: payment.invoice_id,
            amount_cents: payment.amount_cents,
            currency: payment.currency,
            status: payment.status,
            description: payment.description,
            invoice_pdf_url: payment.pdf_url,
            created_at: payment.created,
        }
    }
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

impl From<Credit> for CreditBalance {
    fn from(credit: Credit) -> Self {
        let transactions = credit.transactions.into_iter();
        Self {
            credit_balance_cents: credit.balance_cents,
            credit_balance_formatted: fmt_amount(credit.balance_cents, &credit.currency),
            transactions: transactions
                .map(|transaction| CreditTransaction {
                    amount_cents: transaction.amount_cents,
                    description: transaction.description,
                    created: transaction.created,
                })
                .collect(),
        }
    }
}

/// Get an organization's subscription
///
/// Its plan and, if it pays for it, how that is doing.
#[utoipa::path(
    get,
    path = "/organizations/v1/{organizationId}/subscription-status",
    tag = "Billing",
    security(("bearer" = ["account"])),
    params(OrganizationParam),
    responses(
        (status = 200, description = "The subscription", body = SubscriptionStatus),
        BearerErrors, MemberErrors, PaymentErrors,
    )
)]
pub async fn get_subscription_status(
    State(control_plane): State<ControlPlane>,
    payments: Payments,
    Bearer(by): Bearer,
    OrganizationPath(id): OrganizationPath,
) -> Result<Json<SubscriptionStatus>, Problem> {
    by.require_everything()?;
    let account = control_plane.billing_account(&by, id).await?;
    let subscriptions = match payments.of(&control_plane, &account).await? {
        Some((stripe, customer)) => stripe.subscriptions_of(&customer).await?,
        None => vec![],
    };
    let shown = decisive(&subscriptions);
    Ok(Json(SubscriptionStatus {
        status: shown.map_or("active", |shown| shown.status.as_str()).into(),
        plan: account.organization.plan,
        current_period_end: shown.and_then(|shown| shown.current_period_end),
        cancel_at_period_end: shown.map(|shown| shown.cancel_at_period_end),
        stripe_subscription_id: shown.map(|shown| shown.id.to_string()),
        stripe_customer_id: account.customer,
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
/// The last hundred invoices. Without a payment provider there are none.
#[utoipa::path(
    get,
    path = "/organizations/v1/{organizationId}/payment-history",
    tag = "Billing",
    security(("bearer" = ["account"])),
    params(OrganizationParam),
    responses(
        (status = 200, description = "The payments", body = PaymentsResponse),
        BearerErrors, MemberErrors, PaymentErrors,
    )
)]
pub async fn list_payments(
    State(control_plane): State<ControlPlane>,
    payments: Payments,
    Bearer(by): Bearer,
    OrganizationPath(id): OrganizationPath,
) -> Result<Json<PaymentsResponse>, Problem> {
    by.require_everything()?;
    let account = control_plane.billing_account(&by, id).await?;
    let payments = match payments.of(&control_plane, &account).await? {
        Some((stripe, customer)) => stripe.payments(&customer, MOST).await?,
        None => vec![],
    };
    Ok(Json(PaymentsResponse {
        payments: payments.into_iter().map(Payment::from).collect(),
    }))
}

/// Get an organization's credit
///
/// What it has paid ahead or was given, with the last hundred changes. Without a payment provider there is none.
#[utoipa::path(
    get,
    path = "/billing/v1/{organizationId}/credits",
    tag = "Billing",
    security(("bearer" = ["account"])),
    params(OrganizationParam),
    responses(
        (status = 200, description = "The credit", body = CreditBalance),
        BearerErrors, MemberErrors, PaymentErrors,
    )
)]
pub async fn get_credits(
    State(control_plane): State<ControlPlane>,
    payments: Payments,
    Bearer(by): Bearer,
    OrganizationPath(id): OrganizationPath,
) -> Result<Json<CreditBalance>, Problem> {
    by.require_everything()?;
    let account = control_plane.billing_account(&by, id).await?;
    let credit = match payments.of(&control_plane, &account).await? {
        Some((stripe, customer)) => stripe.credit(&customer, MOST).await?,
        None => Credit::none(),
    };
    Ok(Json(credit.into()))
}
