//! What projects' backends ask of us (contract/project-backend.md 3), signed with their project's `JWT_SECRET`: in the
//! header `sign`, in the query, or in the body. Whatever is refused has its reason in `message`, which backends pass on.

mod ai;
mod email;
mod sites;

use axum::Json;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, State};
use cp_domain::{ControlPlane, DatabaseAccess, SignedCall};
use cp_model::{Project, ProjectId};
use http::request::Parts;
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;
use crate::body::RequestBody;
use crate::docs::errors::{BackendErrors, BackendUnknownAddress};
use crate::params::{ProjectParam, parse_id};
use crate::problem::Problem;

pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(get_database_connection_string))
        .routes(routes!(get_database_password))
        .routes(routes!(email::send_template_mail))
        .routes(routes!(email::send_own_mail))
        .routes(routes!(ai::get_ai_credentials))
        .routes(routes!(ai::rotate_ai_credentials))
        .routes(routes!(ai::get_ai_activity))
        .routes(routes!(sites::get_site_credentials))
        .routes(routes!(sites::set_site_slug))
}

/// A call of a backend before it is proven: who it says that it is, and what it does.
pub struct Unproven {
    id: Result<ProjectId, Problem>,
    method: Method,
    route: String,
    header: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Unproven {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let given = params.ok().and_then(|params| {
            let mut found = params.iter().filter(|(name, _)| *name == "projectId");
            found.next().map(|(_, id)| id.to_owned())
        });
        let id = parse_id("projectId", given.as_deref().unwrap_or_default());
        let route = parts.extensions.get::<MatchedPath>();
        let header = parts.headers.get("sign");
        Ok(Self {
            id: id.map(ProjectId).map_err(Problem::from),
            method: parts.method.clone(),
            route: route.map_or_else(String::new, |route| route.as_str().to_owned()),
            header: header
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
        })
    }
}

impl Unproven {
    /// The project, once its signature is proven.
    async fn prove(
        self,
        control_plane: &ControlPlane,
        signature: Option<&str>,
        body: &[u8],
    ) -> Result<Project, Problem> {
        let id = self.id?;
        let name = format!("{} {}", self.method, self.route);
        let call = SignedCall {
            name: &name,
            body,
            changes: !self.method.is_safe(),
        };
        let signature = signature.or(self.header.as_deref());
        let proven = control_plane.authenticate_backend(id, signature, call);
        Ok(proven.await?)
    }
}

/// The signature, where it travels in the query.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SignQuery {
    /// HS256 by the project's `JWT_SECRET`: `{"sub": projectId, "iat", "exp": iat + 600}`.
    #[param(required = true, nullable = false)]
    sign: Option<String>,
}

/// The signature, where it travels in the body.
#[derive(Deserialize, ToSchema)]
pub struct SignBody {
    sign: String,
}

impl RequestBody for SignBody {}

/// How a database is entered, part by part.
#[derive(Serialize, ToSchema)]
struct ConnectionParameters {
    #[schema(example = "203.0.113.7")]
    host: String,
    #[schema(example = 5432)]
    port: u16,
    #[schema(example = "insforge")]
    database: &'static str,
    #[schema(example = "postgres")]
    user: &'static str,
    password: String,
    /// Encrypted where the server can.
    #[schema(example = "prefer")]
    sslmode: &'static str,
}

/// How a database is entered.
#[derive(Serialize, ToSchema)]
pub struct ConnectionString {
    #[serde(rename = "connectionURL")]
    #[schema(example = "postgresql://postgres:secret@203.0.113.7:5432/insforge?sslmode=prefer")]
    connection_url: String,
    parameters: ConnectionParameters,
}

impl From<DatabaseAccess> for ConnectionString {
    fn from(access: DatabaseAccess) -> Self {
        let password = access.password.expose_secret();
        let encoded = utf8_percent_encode(password, NON_ALPHANUMERIC);
        let DatabaseAccess {
            host,
            port,
            database,
            user,
            ..
        } = &access;
        Self {
            connection_url: format!(
                "postgresql://{user}:{encoded}@{host}:{port}/{database}?sslmode=prefer"
            ),
            parameters: ConnectionParameters {
                host: host.clone(),
                port: *port,
                database,
                user,
                password: password.to_owned(),
                sslmode: "prefer",
            },
        }
    }
}

/// The password of a database's superuser.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabasePassword {
    database_password: String,
}

/// Get a project's connection string
///
/// For its own backend, which shows it to the project's administrators.
#[utoipa::path(
    get,
    path = "/projects/v1/{projectId}/database-connection-string",
    tag = "Backends",
    security(("signature" = [])),
    params(ProjectParam),
    responses(
        (status = 200, description = "How the database is entered", body = ConnectionString),
        BackendErrors, BackendUnknownAddress,
    )
)]
pub async fn get_database_connection_string(
    State(control_plane): State<ControlPlane>,
    call: Unproven,
) -> Result<Json<ConnectionString>, Problem> {
    let id = call.prove(&control_plane, None, b"").await?.id;
    let access = control_plane.database_access(id).await?.ok_or_else(|| {
        Problem::new(
            StatusCode::CONFLICT,
            "database_address_unknown",
            "The database's address is not known yet. Restart the project, then try again.",
        )
    })?;
    Ok(Json(access.into()))
}

/// Get the password of a project's database
///
/// For its own backend, which shows it to the project's administrators.
#[utoipa::path(
    get,
    path = "/projects/v1/{projectId}/database-password",
    tag = "Backends",
    security(("signature" = [])),
    params(ProjectParam),
    responses(
        (status = 200, description = "The password", body = DatabasePassword),
        BackendErrors,
    )
)]
pub async fn get_database_password(
    State(control_plane): State<ControlPlane>,
    call: Unproven,
) -> Result<Json<DatabasePassword>, Problem> {
    let id = call.prove(&control_plane, None, b"").await?.id;
    let password = control_plane.database_password(id).await?;
    Ok(Json(DatabasePassword {
        database_password: password.expose_secret().to_owned(),
    }))
}
