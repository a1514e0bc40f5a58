//! Pages of the payment provider on which plans are bought and managed.

use axum::Json;
use axum::extract::State;
use cp_billing::{BillingError, CustomerId, Stripe, plan_of};
use cp_domain::{BillingAccount, ControlPlane, PurchaseError, UserCaller};
use cp_model::{OrganizationId, Plan};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::provider::{Payments, read_customer};
use crate::bearer::Bearer;
use crate::body::{JsonBody, RequestBody};
use crate::docs::errors::{
    BearerErrors, MemberErrors, NotConfiguredError, PaymentErrors, PlatformInputErrors,
    PurchaseErrors,
};
use crate::params::{self, one_of};
use crate::problem::Problem;
use crate::wire::schema;

const NO_PAYMENTS: &str = "This installation takes no payments. Ask its operator for another plan.";

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

/// A page on which a plan is bought.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckoutResponse {
    /// Good for a day.
    #[schema(example = "https://checkout.stripe.com/c/pay/cs_test_a1")]
    checkout_url: String,
    #[schema(example = "cs_test_a1")]
    session_id: String,
}

/// The body of a portal session.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortalRequest {
    #[schema(format = Uuid, example = "019a2f60-44d0-7c3e-b1a5-0d5e7f9a2c31")]
    organization_id: String,
}

impl RequestBody for PortalRequest {}

/// A page on which a subscription is managed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortalResponse {
    /// Good for some minutes.
    #[schema(example = "https://billing.stripe.com/p/session/test_a1")]
    portal_url: String,
}

/// Buy a plan
///
/// Gives a page of the payment provider. Once it was paid there, the plan follows within seconds. For administrators.
/// Without a payment provider the operator sets plans, and this answers 501.
#[utoipa::path(
    post,
    path = "/billing/v1/stripe/checkout-session",
    tag = "Billing",
    security(("bearer" = ["account", "administrator"])),
    request_body = CheckoutRequest,
    responses(
        (status = 200, description = "Where it is bought", body = CheckoutResponse),
        BearerErrors, MemberErrors, PlatformInputErrors, PurchaseErrors, PaymentErrors, NotConfiguredError,
    )
)]
pub async fn create_checkout_session(
    State(control_plane): State<ControlPlane>,
    payments: Payments,
    Bearer(by): Bearer,
    body: JsonBody<CheckoutRequest>,
) -> Result<Json<CheckoutResponse>, Problem> {
    by.require_everything()?;
    let plan = one_of("plan", &body.value.plan, &Plan::OF_PEOPLE, Plan::as_str)?;
    let id = OrganizationId(params::parse_id(
        "organizationId",
        &body.value.organization_id,
    )?);
    let account = control_plane.administered_billing_account(&by, id).await?;
    let Some(stripe) = payments.0 else {
        return Err(Problem::not_configured(NO_PAYMENTS));
    };
    account
        .check_purchase(plan, Plan::Free)
        .map_err(Problem::from)?;
    control_plane.take_billing_question(id).await?;
    let counter = Counter {
        control_plane: &control_plane,
        stripe: &stripe,
        by: &by,
        account: &account,
    };
    let session = counter.sell(plan).await?;
    control_plane.note_checkout(&by, id, plan).await?;
    Ok(Json(CheckoutResponse {
        checkout_url: session.url.into(),
        session_id: session.id,
    }))
}

/// Where one organization buys.
struct Counter<'a> {
    control_plane: &'a ControlPlane,
    stripe: &'a Stripe,
    by: &'a UserCaller,
    account: &'a BillingAccount,
}

impl Counter<'_> {
    async fn sell(&self, plan: Plan) -> Result<cp_billing::CheckoutSession, Problem> {
        let organization = self.account.organization.id;
        let customer = self.customer().await?;
        // An event of the last purchase may still be on its way: nobody pays twice.
        let subscribed = plan_of(&self.stripe.subscriptions_of(&customer).await?);
        self.account.check_purchase(plan, subscribed)?;
        let session = self
            .stripe
            .create_checkout_session(&customer, organization, plan);
        match session.await {
            // Stripe has just told its subscriptions, so it is our account's customer, and somebody has deleted it there.
            Err(BillingError::Missing { .. }) => {
                let customer = self.another_customer(&customer).await?;
                let session = self
                    .stripe
                    .create_checkout_session(&customer, organization, plan);
                Ok(session.await?)
            }
            done => Ok(done?),
        }
    }

    /// The organization's customer, made if there is none.
    async fn customer(&self) -> Result<CustomerId, Problem> {
        if let Some(known) = &self.account.customer {
            return read_customer(known);
        }
        let made = self.make_customer().await?;
        let id = self.account.organization.id;
        let kept = self
            .control_plane
            .note_billing_customer(self.by, id, made.as_str())
            .await?;
        read_customer(&kept)
    }

    async fn another_customer(&self, gone: &CustomerId) -> Result<CustomerId, Problem> {
        let made = self.make_customer().await?;
        let id = self.account.organization.id;
        let kept = self
            .control_plane
            .replace_billing_customer(self.by, id, gone.as_str(), made.as_str())
            .await?;
        read_customer(&kept)
    }

    async fn make_customer(&self) -> Result<CustomerId, BillingError> {
        let organization = &self.account.organization;
        self.stripe
            .create_customer(organization.id, &organization.name, &self.by.user.email)
            .await
    }
}

/// Manage a subscription
///
/// Gives a page of the payment provider, for cards, invoices and cancelling. For administrators. Without a payment
/// provider the operator sets plans, and this answers 501.
#[utoipa::path(
    post,
    path = "/billing/v1/stripe/portal-session",
    tag = "Billing",
    security(("bearer" = ["account", "administrator"])),
    request_body = PortalRequest,
    responses(
        (status = 200, description = "Where it is managed", body = PortalResponse),
        BearerErrors, MemberErrors, PlatformInputErrors, PurchaseErrors, PaymentErrors, NotConfiguredError,
    )
)]
pub async fn create_portal_session(
    State(control_plane): State<ControlPlane>,
    payments: Payments,
    Bearer(by): Bearer,
    body: JsonBody<PortalRequest>,
) -> Result<Json<PortalResponse>, Problem> {
    by.require_everything()?;
    let id = OrganizationId(params::parse_id(
        "organizationId",
        &body.value.organization_id,
    )?);
    let account = control_plane.administered_billing_account(&by, id).await?;
    if payments.0.is_none() {
        return Err(Problem::not_configured(NO_PAYMENTS));
    }
    let Some((stripe, customer)) = payments.of(&control_plane, &account).await? else {
        return Err(PurchaseError::NothingBought.into());
    };
    let url = stripe.create_portal_session(&customer).await?;
    Ok(Json(PortalResponse {
        portal_url: url.into(),
    }))
}
