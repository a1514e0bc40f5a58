//! `GET projects`.

use axum::Json;
use axum::extract::State;
use cp_domain::ControlPlane;
use cp_model::{ProjectId, ProjectStatus};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::docs::errors::{BadRequestError, PartnerErrors};
use crate::params::{self, PartnerParam, QueryText};
use crate::partner_auth::AnyPartner;
use crate::problem::Problem;
use crate::wire::project::ProjectList;
use crate::wire::schema;

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 100;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// `next_cursor` of the page before.
    #[param(value_type = Option<Uuid>, required = false, nullable = false)]
    cursor: Option<String>,
    /// Projects on a page; 50 if left out.
    #[param(value_type = Option<u32>, required = false, nullable = false, minimum = 1, maximum = 100)]
    limit: Option<String>,
    /// Only projects of this status.
    #[param(schema_with = schema::status, required = false)]
    status: Option<String>,
}

/// List your projects
///
/// All live projects made through your partnership, oldest first, in pages.
#[utoipa::path(
    get,
    path = "/partnership/v1/{partnerId}/projects",
    tag = "Both models",
    security(("partnership_secret" = [])),
    params(PartnerParam, ListQuery),
    responses(
        (status = 200, description = "One page of projects", body = ProjectList),
        BadRequestError, PartnerErrors,
    )
)]
pub async fn list_projects(
    State(control_plane): State<ControlPlane>,
    AnyPartner(by): AnyPartner,
    QueryText(query): QueryText<ListQuery>,
) -> Result<Json<ProjectList>, Problem> {
    let after = params::id("cursor", query.cursor.as_deref())?.map(ProjectId);
    let limit = params::number(
        "limit",
        query.limit.as_deref(),
        1..=MAX_LIMIT,
        DEFAULT_LIMIT,
    )?;
    let status = query
        .status
        .as_deref()
        .map(|given| {
            let valid = schema::visible_statuses();
            params::one_of("status", given, &valid, ProjectStatus::as_str)
        })
        .transpose()?;
    let page = control_plane
        .list_partner_projects(&by.partner, after, status, limit)
        .await?;
    Ok(Json(ProjectList {
        projects: page.items.into_iter().map(Into::into).collect(),
        next_cursor: page.next,
    }))
}
