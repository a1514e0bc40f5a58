//! What organizations use and pay for (contract/platform-api.md 12). Payments are Stripe's, if the operator has set that up.
//! Without it plans are set by the operator: what can be told then is told, and what only a provider could do is refused
//! with 501 `not_configured`.

mod payments;
mod provider;
mod purchases;
mod usage;
mod webhook;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;

pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(usage::get_organization_usage))
        .routes(routes!(payments::get_subscription_status))
        .routes(routes!(payments::list_billing_cycles))
        .routes(routes!(payments::list_payments))
        .routes(routes!(payments::get_credits))
        .routes(routes!(purchases::create_checkout_session))
        .routes(routes!(purchases::create_portal_session))
        .routes(routes!(webhook::take_stripe_event))
}
