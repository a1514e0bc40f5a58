//! Sites: what backends deploy theirs with, and what it is called (contract/project-backend.md 3.5).

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use cp_domain::{ControlPlane, SiteCredentials, SiteName};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{SignQuery, Unproven};
use crate::body::{JsonBody, RequestBody};
use crate::caller::Calling;
use crate::docs::errors::{BackendErrors, BackendNotConfigured, BackendSlugTaken};
use crate::params::{ProjectParam, QueryText};
use crate::problem::Problem;
use crate::wire::time;

/// A slug for a site.
#[derive(Deserialize, ToSchema)]
pub struct SlugRequest {
    sign: String,
    /// 3 to 63 lower-case letters, digits and hyphens, none at an end. Null: none any more.
    // Left out it is an error, and no wish to have none.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(
        required = true,
        min_length = 3,
        max_length = 63,
        example = "storefront"
    )]
    slug: Option<String>,
}

impl RequestBody for SlugRequest {}

/// What a backend deploys its site with, at Vercel.
#[derive(Serialize, ToSchema)]
pub struct SiteCredentialsResponse {
    #[schema(example = "team_a1B2c3D4")]
    team_id: String,
    #[schema(example = "prj_a1B2c3D4")]
    vercel_project_id: String,
    bearer_token: String,
    /// When to ask again.
    #[serde(serialize_with = "time::seconds")]
    expires_at: DateTime<Utc>,
    /// What Vercel signs its webhooks with.
    #[schema(required = true)]
    webhook_secret: Option<String>,
    #[schema(required = true, example = "storefront")]
    slug: Option<String>,
}

impl From<SiteCredentials> for SiteCredentialsResponse {
    fn from(site: SiteCredentials) -> Self {
        Self {
            team_id: site.team_id,
            vercel_project_id: site.vercel_project_id,
            bearer_token: site.token.expose_secret().to_owned(),
            expires_at: site.expires_at,
            webhook_secret: site
                .webhook_secret
                .map(|secret| secret.expose_secret().to_owned()),
            slug: site.slug,
        }
    }
}

/// What a site is called now.
#[derive(Serialize, ToSchema)]
pub struct SlugResponse {
    success: bool,
    #[schema(required = true, example = "storefront")]
    slug: Option<String>,
    /// Null without a slug, and where the operator has no domain for sites.
    #[schema(required = true, example = "storefront.insforge.site")]
    domain: Option<String>,
}

/// Get a project's site credentials
///
/// Where its backend deploys the project's site, and with which token. Only for projects to which the operator gave one;
/// branches have none.
#[utoipa::path(
    get,
    path = "/sites/v1/credentials/{projectId}",
    tag = "Backends",
    security(("signature" = [])),
    params(ProjectParam, SignQuery),
    responses(
        (status = 200, description = "The credentials", body = SiteCredentialsResponse),
        BackendErrors, BackendNotConfigured,
    )
)]
pub async fn get_site_credentials(
    State(control_plane): State<ControlPlane>,
    QueryText(query): QueryText<SignQuery>,
    call: Unproven,
) -> Result<Json<SiteCredentialsResponse>, Problem> {
    let signature = query.sign.as_deref();
    let project = call.prove(&control_plane, signature, b"").await?;
    let site = control_plane.site_credentials(project.id).await?;
    Ok(Json(site.into()))
}

/// Set the slug of a project's site
///
/// Its name under the operator's domain for sites: unique, and free again when it is changed or the project deleted.
#[utoipa::path(
    put,
    path = "/sites/v1/{projectId}/slug",
    tag = "Backends",
    security(("signature" = [])),
    params(ProjectParam),
    request_body = SlugRequest,
    responses(
        (status = 200, description = "What the site is called now", body = SlugResponse),
        BackendErrors, BackendSlugTaken, BackendNotConfigured,
    )
)]
pub async fn set_site_slug(
    State(control_plane): State<ControlPlane>,
    Calling(caller): Calling,
    call: Unproven,
    body: JsonBody<SlugRequest>,
) -> Result<Json<SlugResponse>, Problem> {
    let request = &body.value;
    let project = call
        .prove(&control_plane, Some(&request.sign), &body.raw)
        .await?;
    let slug = request.slug.as_deref();
    let SiteName { slug, domain } = control_plane.set_site_slug(&caller, &project, slug).await?;
    Ok(Json(SlugResponse {
        success: true,
        slug,
        domain,
    }))
}
