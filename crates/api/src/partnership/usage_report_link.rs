//! `POST usage/report-link`: a link to the usage report, which a browser can open.

use axum::extract::State;
use axum::response::Response;
use cp_domain::ControlPlane;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::{JsonBody, RequestBody};
use crate::docs::errors::{ConflictError, InputErrors, PartnerErrors};
use crate::idempotency::{Answer, IdempotencyKey, IdempotencyParam, once_without_effect};
use crate::params::PartnerParam;
use crate::partner_auth::AnyPartner;
use crate::problem::Problem;

/// Nothing is asked for; a body may be sent all the same.
#[derive(Default, Deserialize)]
pub struct ReportLinkRequest {}

impl RequestBody for ReportLinkRequest {
    fn when_absent() -> Option<Self> {
        Some(Self::default())
    }
}

/// Whoever has the link sees the report, so this has no `Debug`.
#[derive(Serialize, ToSchema)]
struct ReportLinkResponse {
    /// A page for people. Add `start_date` and `end_date` for other days than the last 30.
    #[schema(
        example = "https://api.insforge.dev/usage-report?token=ps_abc123xyz.1763467200.5f3a…"
    )]
    url: String,
    /// Seconds.
    #[schema(example = 600)]
    expires_in: i64,
}

/// Get a link to your usage report
///
/// A page with one chart per metric, per day, and the projects that ran longest. The link needs no
/// secret and opens for 10 minutes: give it to those who may see your usage.
#[utoipa::path(
    post,
    path = "/partnership/v1/{partnerId}/usage/report-link",
    tag = "Both models",
    security(("partnership_secret" = [])),
    params(PartnerParam, IdempotencyParam),
    responses(
        (status = 200, description = "The link", body = ReportLinkResponse),
        InputErrors, ConflictError, PartnerErrors,
    )
)]
pub async fn create_usage_report_link(
    State(control_plane): State<ControlPlane>,
    AnyPartner(by): AnyPartner,
    key: IdempotencyKey,
    body: JsonBody<ReportLinkRequest>,
) -> Result<Response, Problem> {
    let key = key.with_body(&body.raw);
    let answer = async {
        let link = control_plane.usage_report_link(&by.partner.id)?;
        Answer::ok(&ReportLinkResponse {
            url: link.url.expose_secret().to_owned(),
            expires_in: link.expires_in,
        })
    };
    once_without_effect(&control_plane, &by, key.as_ref(), answer).await
}
