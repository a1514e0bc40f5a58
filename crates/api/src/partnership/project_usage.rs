//! `GET :projectId/usage`.

use axum::extract::State;
use axum::response::Response;
use cp_domain::ControlPlane;
use http::HeaderMap;

use crate::docs::errors::{BadRequestError, NotFoundError, PartnerErrors};
use crate::etag;
use crate::params::{PartnerParam, ProjectParam, ProjectPath, QueryText};
use crate::partner_auth::AnyPartner;
use crate::problem::Problem;
use crate::wire::usage::{Granularity, PeriodQuery, ProjectUsageResponse, csv_of_days, wants_csv};

/// Get a project's usage
///
/// Per day, and in all. Also of a project that is deleted: its usage stays. `Accept: text/csv` gives
/// the days as a table.
#[utoipa::path(
    get,
    path = "/partnership/v1/{partnerId}/{projectId}/usage",
    tag = "Both models",
    security(("partnership_secret" = [])),
    params(PartnerParam, ProjectParam, PeriodQuery),
    responses(
        (status = 200, description = "What the project used", content(
            (ProjectUsageResponse = "application/json"), (String = "text/csv"))),
        (status = 304, description = "It is what `If-None-Match` names"),
        BadRequestError, NotFoundError, PartnerErrors,
    )
)]
pub async fn get_project_usage(
    State(control_plane): State<ControlPlane>,
    AnyPartner(by): AnyPartner,
    ProjectPath(id): ProjectPath,
    QueryText(query): QueryText<PeriodQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let period = query.period(control_plane.today())?;
    let granularity = query.granularity()?;
    let usage = control_plane.project_usage(&by.partner, id, period).await?;
    if wants_csv(&headers) {
        let granularity = granularity.unwrap_or(Granularity::Day);
        return etag::answer(
            &headers,
            "text/csv; charset=utf-8",
            csv_of_days(&usage.days, granularity)?,
        );
    }
    let body = serde_json::to_vec(&ProjectUsageResponse::new(&usage, granularity))
        .map_err(|error| Problem::internal(error.to_string()))?;
    etag::answer(&headers, "application/json", body)
}
