//! The payment provider, or that there is none.

use axum::extract::FromRequestParts;
use cp_billing::{CustomerId, Stripe};
use cp_domain::{BillingAccount, ControlPlane};
use http::request::Parts;

use crate::ApiState;
use crate::problem::Problem;

/// Who takes payments for this installation; none: plans are the operator's alone.
pub struct Payments(pub Option<Stripe>);

impl FromRequestParts<ApiState> for Payments {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(_: &mut Parts, state: &ApiState) -> Result<Self, Self::Rejection> {
        Ok(Self(state.payments.clone()))
    }
}

impl Payments {
    /// Who can be asked about the account, and under which name; none: it never began to pay.
    pub async fn of<'a>(
        &'a self,
        control_plane: &ControlPlane,
        account: &BillingAccount,
    ) -> Result<Option<(&'a Stripe, CustomerId)>, Problem> {
        let (Some(stripe), Some(customer)) = (&self.0, &account.customer) else {
            return Ok(None);
        };
        control_plane
            .take_billing_question(account.organization.id)
            .await?;
        Ok(Some((stripe, read_customer(customer)?)))
    }
}

/// A customer as we noted it.
pub fn read_customer(noted: &str) -> Result<CustomerId, Problem> {
    noted
        .parse()
        .map_err(|error| Problem::internal(format!("a stored customer is none: {error}")))
}
