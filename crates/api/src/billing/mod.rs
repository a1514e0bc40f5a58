//! What organizations use and pay for (contract/platform-api.md 12). Without a payment provider the plans are set by
//! the operator: what can be told then is told, and what only a provider could do is refused with 501
//! `not_configured`.

mod payments;
mod usage;

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
        .routes(routes!(payments::create_checkout_session))
        .routes(routes!(payments::create_portal_session))
}
