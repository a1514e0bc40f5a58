//! Who calls the partnership interface. [`authenticate`] stands before all of its routes, so none
//! can be added without it; the extractors hand the caller to the handlers and, where an endpoint
//! belongs to one partnership model, refuse the partners of the other one.
//!
//! Order (partnership-api.md): credentials, rate limit, model, validation, effect.

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cp_domain::{ControlPlane, PartnerCaller};
use cp_model::PartnershipModel;
use http::HeaderName;
use http::request::Parts;

use crate::caller::take_caller;
use crate::idempotency::see_through;
use crate::problem::{Problem, set_rate_limit};

/// The header that carries a partner's secret, as the documents write it.
pub const SECRET_HEADER: &str = "X-Partnership-Secret";
const SECRET: HeaderName = HeaderName::from_static("x-partnership-secret");

/// Checks the secret against the partner of the path, takes one request of its rate limit, and
/// tells on every answer what is left.
pub async fn authenticate(
    State(control_plane): State<ControlPlane>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = take_caller(request.extensions_mut());
    let secret = request
        .headers()
        .get(SECRET)
        .and_then(|value| value.to_str().ok());
    let identified = control_plane
        .authenticate_partner(
            partner_segment(request.uri().path()),
            secret,
            caller.address,
        )
        .await;
    let partner = match identified {
        Ok(partner) => partner,
        Err(error) => return Problem::from(error).into_response(),
    };
    let limit = match control_plane.take_request(&partner).await {
        Ok(limit) => limit,
        Err(error) => return Problem::from(error).into_response(),
    };
    request
        .extensions_mut()
        .insert(PartnerCaller { partner, caller });

    let mut response = see_through(request, next).await;
    set_rate_limit(response.headers_mut(), limit);
    response
}

/// The partner's id in `/partnership/v1/{partnerId}/…`. Ids are of characters that nobody needs
/// to percent-encode, so the raw segment will do.
fn partner_segment(path: &str) -> &str {
    path.strip_prefix("/partnership/v1/")
        .and_then(|rest| rest.split('/').next())
        .unwrap_or_default()
}

/// A partner of either model.
pub struct AnyPartner(pub PartnerCaller);
/// A partner whose users know InsForge.
pub struct CoBranded(pub PartnerCaller);
/// A partner whose users do not.
pub struct WhiteLabel(pub PartnerCaller);

/// Missing only if a route was mounted outside of [`authenticate`]: then nobody gets in.
fn identified(parts: &mut Parts) -> Result<PartnerCaller, Problem> {
    parts
        .extensions
        .remove::<PartnerCaller>()
        .ok_or_else(Problem::unauthorized)
}

fn of_model(parts: &mut Parts, model: PartnershipModel) -> Result<PartnerCaller, Problem> {
    let by = identified(parts)?;
    if by.partner.has_model(model) {
        Ok(by)
    } else {
        Err(Problem::wrong_model(model))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AnyPartner {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        identified(parts).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for CoBranded {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        of_model(parts, PartnershipModel::CoBranded).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for WhiteLabel {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        of_model(parts, PartnershipModel::WhiteLabel).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::Utc;
    use cp_domain::Caller;
    use cp_model::{OrganizationId, Partner, PartnerId, RequestId};
    use http::StatusCode;

    use super::*;

    fn parts_of_a_white_label_partner() -> Parts {
        let partner = Partner {
            id: PartnerId::generate(),
            name: "Shop".into(),
            organization_id: OrganizationId::generate(),
            co_branded: false,
            white_label: true,
            rate_limit: 600,
            trusted: false,
            suspended_at: None,
            created_at: Utc::now(),
        };
        let caller = Caller {
            request_id: RequestId::generate(),
            address: None,
        };
        let mut request = Request::new(());
        request.extensions_mut().insert(PartnerCaller {
            partner: Arc::new(partner),
            caller,
        });
        request.into_parts().0
    }

    #[tokio::test]
    async fn an_endpoint_of_the_other_model_is_refused() {
        let mut parts = parts_of_a_white_label_partner();
        assert!(
            WhiteLabel::from_request_parts(&mut parts, &())
                .await
                .is_ok()
        );

        let mut parts = parts_of_a_white_label_partner();
        let refused = CoBranded::from_request_parts(&mut parts, &()).await;
        assert_eq!(refused.err().unwrap().code, "wrong_partnership_model");
    }

    #[tokio::test]
    async fn a_route_without_authentication_lets_nobody_in() {
        let mut parts = Request::new(()).into_parts().0;
        let refused = AnyPartner::from_request_parts(&mut parts, &()).await;
        assert_eq!(refused.err().unwrap().status, StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn the_documented_header_is_the_one_that_is_read() {
        assert_eq!(SECRET, SECRET_HEADER.parse::<HeaderName>().unwrap());
    }

    #[test]
    fn the_partner_is_the_third_segment() {
        assert_eq!(partner_segment("/partnership/v1/ps_a/projects"), "ps_a");
        assert_eq!(partner_segment("/partnership/v2/ps_a"), "");
    }
}
