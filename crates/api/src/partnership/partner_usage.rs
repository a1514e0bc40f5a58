//! `GET usage`: what all projects of the partner used.

use axum::extract::State;
use axum::response::Response;
use cp_domain::ControlPlane;
use cp_model::{FieldError, ProjectId};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::docs::errors::{BadRequestError, PartnerErrors};
use crate::etag;
use crate::params::{self, PartnerParam, QueryText};
use crate::partner_auth::AnyPartner;
use crate::problem::Problem;
use crate::wire::usage::{
    Granularity, PartnerUsageResponse, PeriodQuery, csv_of_days, csv_of_projects, wants_csv,
};

/// With a table of projects: `cursor` of the next page; absent on the last one.
const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 100;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct GroupQuery {
    /// `project` lists what each project used, deleted ones too, in pages.
    #[param(value_type = Option<String>, required = false, nullable = false, example = "project")]
    group_by: Option<String>,
    /// `next_cursor` of the page before.
    #[param(value_type = Option<Uuid>, required = false, nullable = false)]
    cursor: Option<String>,
    /// Projects on a page; 50 if left out.
    #[param(value_type = Option<u32>, required = false, nullable = false, minimum = 1, maximum = 100)]
    limit: Option<String>,
}

/// Get your partnership's usage
///
/// What all your projects used together, deleted ones included. Sizes are peaks of the daily sum
/// over projects; the rest are sums. `Accept: text/csv` gives a table; one of projects names the next
/// page in `X-Next-Cursor`.
#[utoipa::path(
    get,
    path = "/partnership/v1/{partnerId}/usage",
    tag = "Both models",
    security(("partnership_secret" = [])),
    params(PartnerParam, PeriodQuery, GroupQuery),
    responses(
        (status = 200, description = "What your projects used", content(
            (PartnerUsageResponse = "application/json"), (String = "text/csv"))),
        (status = 304, description = "It is what `If-None-Match` names"),
        BadRequestError, PartnerErrors,
    )
)]
pub async fn get_partner_usage(
    State(control_plane): State<ControlPlane>,
    AnyPartner(by): AnyPartner,
    QueryText(query): QueryText<PeriodQuery>,
    QueryText(group): QueryText<GroupQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let period = query.period(control_plane.today())?;
    let granularity = query.granularity()?;
    let by_project = match group.group_by.as_deref() {
        None => false,
        Some("project") => true,
        Some(_) => return Err(FieldError::new("group_by", "must be project").into()),
    };
    let after = params::id("cursor", group.cursor.as_deref())?.map(ProjectId);
    let limit = params::number(
        "limit",
        group.limit.as_deref(),
        1..=MAX_LIMIT,
        DEFAULT_LIMIT,
    )?;
    let partner = &by.partner;
    let lines = if by_project {
        let page = control_plane
            .partner_usage_by_project(&partner.id, period, after, limit)
            .await?;
        Some(page)
    } else {
        None
    };
    let csv = wants_csv(&headers);
    if let Some((lines, next)) = lines.as_ref().filter(|_| csv) {
        let table = csv_of_projects(lines)?;
        let mut response = etag::answer(&headers, "text/csv; charset=utf-8", table)?;
        // A table has no place for it.
        if let Some(next) = next.and_then(|next| HeaderValue::from_str(&next.to_string()).ok()) {
            response.headers_mut().insert(NEXT_CURSOR, next);
        }
        return Ok(response);
    }
    let usage = control_plane.partner_usage(&partner.id, period).await?;
    if csv {
        let granularity = granularity.unwrap_or(Granularity::Day);
        let table = csv_of_days(&usage.days, granularity)?;
        return etag::answer(&headers, "text/csv; charset=utf-8", table);
    }
    let response = PartnerUsageResponse::new(partner, &usage, granularity, lines.as_ref());
    let body =
        serde_json::to_vec(&response).map_err(|error| Problem::internal(error.to_string()))?;
    etag::answer(&headers, "application/json", body)
}
