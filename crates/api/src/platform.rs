//! What the command-line client asks beside its work: the newest release, that it is there, and whether integrations
//! are connected (contract/platform-api.md 9.5, 14 and 15).

use axum::Json;
use axum::extract::State;
use cp_domain::{ControlPlane, UserCaller};
use cp_model::{FieldError, ProjectId, Scope};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;
use crate::bearer::Bearer;
use crate::body::{JsonBody, RequestBody};
use crate::docs::errors::{
    BearerErrors, NotConfiguredError, OpenErrors, OwnProjectErrors, PlatformInputErrors,
};
use crate::params::{QueryText, one_of, parse_id};
use crate::problem::Problem;

pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(get_latest_version))
        .routes(routes!(note_agent))
        .routes(routes!(start_posthog))
        .routes(routes!(get_posthog_connection))
        .routes(routes!(start_apify))
        .routes(routes!(get_apify_connection))
}

/// The newest release of the backend.
#[derive(Serialize, ToSchema)]
pub struct LatestVersion {
    #[schema(example = "v2.2.3")]
    version: String,
    /// Whether it was looked up before; always, since the operator sets it.
    cached: bool,
}

/// Get the newest release
///
/// What `restart` takes as `insforgeOssVersion`. The operator sets it; where they have not, this answers 501.
#[utoipa::path(
    get,
    path = "/platform/insforge/latest-version",
    tag = "Projects",
    responses(
        (status = 200, description = "The release", body = LatestVersion),
        OpenErrors, NotConfiguredError,
    )
)]
pub async fn get_latest_version(
    State(control_plane): State<ControlPlane>,
) -> Result<Json<LatestVersion>, Problem> {
    match &control_plane.settings().latest_release {
        Some(version) => Ok(Json(LatestVersion {
            version: version.clone(),
            cached: true,
        })),
        None => Err(Problem::not_configured(
            "The operator of this installation has not said which release is the newest.",
        )),
    }
}

/// What a program tells of itself after it was linked.
#[derive(Deserialize, ToSchema)]
pub struct AgentConnected {
    #[schema(example = "cli")]
    client: String,
}

impl RequestBody for AgentConnected {}

/// Tell that a program is linked
///
/// Noted in the log, nothing more. Needs no bearer, and looks at none.
#[utoipa::path(
    post,
    path = "/tracking/v1/agent-connected",
    tag = "Projects",
    request_body = AgentConnected,
    responses(
        (status = 204, description = "Noted"),
        OpenErrors, PlatformInputErrors,
    )
)]
pub async fn note_agent(body: JsonBody<AgentConnected>) -> Result<StatusCode, Problem> {
    one_of("client", &body.value.client, &["cli"], |text| text)?;
    tracing::debug!("the command-line client was linked");
    Ok(StatusCode::NO_CONTENT)
}

/// Which project is to be connected.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StartQuery {
    /// The project's id.
    #[param(value_type = Uuid, required = true)]
    p: Option<String>,
}

/// Whose connection is asked for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ConnectionQuery {
    #[param(value_type = Uuid, required = true)]
    project_id: Option<String>,
}

/// The project has to be one of the caller's before anything is said of integrations.
async fn check_project(
    control_plane: &ControlPlane,
    by: &UserCaller,
    scope: Scope,
    name: &'static str,
    given: Option<&str>,
) -> Result<(), Problem> {
    by.require(scope)?;
    let given = given.ok_or_else(|| FieldError::new(name, "is required"))?;
    let project = ProjectId(parse_id(name, given)?);
    control_plane.member_project(by, project).await?;
    Ok(())
}

const NO_POSTHOG: &str = "This installation is not connected to PostHog.";
const NO_APIFY: &str = "This installation is not connected to Apify.";

fn not_connected() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_connected",
        "This project is not connected.",
    )
}

/// Connect PostHog
///
/// Needs an application at PostHog; without one it answers 501. Asks for the scope `projects:write`.
#[utoipa::path(
    get,
    path = "/integrations/posthog/v1/cli-start",
    tag = "Integrations",
    security(("bearer" = ["projects:write"])),
    params(StartQuery),
    responses(BearerErrors, OwnProjectErrors, NotConfiguredError)
)]
pub async fn start_posthog(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    QueryText(query): QueryText<StartQuery>,
) -> Result<(), Problem> {
    let (scope, given) = (Scope::ProjectsWrite, query.p.as_deref());
    check_project(&control_plane, &by, scope, "p", given).await?;
    Err(Problem::not_configured(NO_POSTHOG))
}

/// Get the connection to PostHog
///
/// Asks for the scope `projects:write`, since it is a credential.
#[utoipa::path(
    get,
    path = "/integrations/posthog/v1/connection",
    tag = "Integrations",
    security(("bearer" = ["projects:write"])),
    params(ConnectionQuery),
    responses(BearerErrors, OwnProjectErrors)
)]
pub async fn get_posthog_connection(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    QueryText(query): QueryText<ConnectionQuery>,
) -> Result<(), Problem> {
    let (scope, given) = (Scope::ProjectsWrite, query.project_id.as_deref());
    check_project(&control_plane, &by, scope, "project_id", given).await?;
    Err(not_connected())
}

/// Connect Apify
///
/// Needs an application at Apify; without one it answers 501. Asks for the scope `projects:write`.
#[utoipa::path(
    get,
    path = "/integrations/apify/v1/cli-start",
    tag = "Integrations",
    security(("bearer" = ["projects:write"])),
    params(StartQuery),
    responses(BearerErrors, OwnProjectErrors, NotConfiguredError)
)]
pub async fn start_apify(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    QueryText(query): QueryText<StartQuery>,
) -> Result<(), Problem> {
    let (scope, given) = (Scope::ProjectsWrite, query.p.as_deref());
    check_project(&control_plane, &by, scope, "p", given).await?;
    Err(Problem::not_configured(NO_APIFY))
}

/// Get the connection to Apify
///
/// Asks for the scope `projects:write`, since it is a credential.
#[utoipa::path(
    get,
    path = "/integrations/apify/v1/connection",
    tag = "Integrations",
    security(("bearer" = ["projects:write"])),
    params(ConnectionQuery),
    responses(BearerErrors, OwnProjectErrors)
)]
pub async fn get_apify_connection(
    State(control_plane): State<ControlPlane>,
    Bearer(by): Bearer,
    QueryText(query): QueryText<ConnectionQuery>,
) -> Result<(), Problem> {
    let (scope, given) = (Scope::ProjectsWrite, query.project_id.as_deref());
    check_project(&control_plane, &by, scope, "project_id", given).await?;
    Err(not_connected())
}
