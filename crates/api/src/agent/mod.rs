//! What the agents on machines call (`cp_model::agent_protocol`): register, desired, report, renew.

mod schemas;

use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use cp_domain::ControlPlane;
use cp_model::agent_protocol::{
    MAX_WAIT_SECONDS, RegisterRequest, RegisterResponse, RenewRequest, ReportRequest,
};
use cp_model::{MachineId, field};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;
use crate::bearer::bearer_token;
use crate::body::{JsonBody, RequestBody};
use crate::docs::errors::{AgentBodyErrors, AgentErrors};
use crate::params::{self, QueryText};
use crate::problem::Problem;

/// The long poll, which the front door counts apart.
pub const DESIRED_PATH: &str = "/agent/v1/desired";
/// What anybody may send a body to, which the front door counts apart too.
pub const REGISTER_PATH: &str = "/agent/v1/register";

/// How much of an agent's own words is kept.
const MAX_MESSAGE_CHARS: usize = 500;
const MAX_VERSION_CHARS: usize = 64;

pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(register))
        .routes(routes!(desired))
        .routes(routes!(report))
        .routes(routes!(renew))
}

impl RequestBody for RegisterRequest {
    /// Its credential is in the body, so nobody is known before it has arrived.
    const ARRIVAL: Duration = Duration::from_secs(5);
}
impl RequestBody for ReportRequest {}
impl RequestBody for RenewRequest {}

/// The machine whose agent calls.
struct CallingMachine(MachineId);

impl FromRequestParts<ApiState> for CallingMachine {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let token = presented(&parts.headers);
        let machine = state.control_plane.authenticate_agent(token).await?;
        Ok(Self(machine))
    }
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(AUTHORIZATION)?;
    header.to_str().ok().and_then(bearer_token)
}

/// Register an agent
///
/// Turns the single-use bootstrap token of the machine's user-data into the agent's own token.
/// The same pair of tokens is answered the same again; another agent token is refused.
#[utoipa::path(
    post,
    path = "/agent/v1/register",
    tag = "Agents",
    request_body = schemas::AgentRegisterRequest,
    responses(
        (status = 200, description = "The agent is registered", body = schemas::AgentRegisterResponse),
        AgentErrors, AgentBodyErrors,
    )
)]
async fn register(
    State(control_plane): State<ControlPlane>,
    body: JsonBody<RegisterRequest>,
) -> Result<Json<RegisterResponse>, Problem> {
    let mut request = body.value;
    request.agent_version = printable(&request.agent_version, MAX_VERSION_CHARS);
    Ok(Json(control_plane.register_agent(&request).await?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DesiredQuery {
    /// The generation that the agent has; 0 if it has none.
    #[param(value_type = Option<i64>, required = false, nullable = false, minimum = 0)]
    generation: Option<String>,
    /// Hold the answer back until there is a newer one, for at most so many seconds.
    #[param(value_type = Option<u64>, required = false, nullable = false, minimum = 0, maximum = 30)]
    wait: Option<String>,
}

/// Get the desired state
///
/// What the machine shall be, once that is newer than `generation`.
#[utoipa::path(
    get,
    path = "/agent/v1/desired",
    tag = "Agents",
    security(("agent_token" = [])),
    params(DesiredQuery),
    responses(
        (status = 200, description = "The desired state", body = schemas::AgentDesiredState),
        (status = 204, description = "Nothing newer came in time"),
        AgentErrors,
    )
)]
async fn desired(
    State(state): State<ApiState>,
    CallingMachine(machine): CallingMachine,
    QueryText(query): QueryText<DesiredQuery>,
) -> Result<Response, Problem> {
    let known = params::number("generation", query.generation.as_deref(), 0..=i64::MAX, 0)?;
    let wait = params::number("wait", query.wait.as_deref(), 0..=MAX_WAIT_SECONDS, 0)?;
    let wait = Duration::from_secs(wait);
    let newer = tokio::select! {
        newer = state.control_plane.desired_state(machine, known, wait) => newer?,
        // The agent asks again at once, and another process answers.
        () = state.shutdown.cancelled() => None,
    };
    Ok(newer.map_or_else(
        || StatusCode::NO_CONTENT.into_response(),
        |desired| Json(desired).into_response(),
    ))
}

/// Report the observed state
///
/// What the agent sees, on every change and at least every 20 seconds.
#[utoipa::path(
    post,
    path = "/agent/v1/report",
    tag = "Agents",
    security(("agent_token" = [])),
    request_body = schemas::AgentReportRequest,
    responses(
        (status = 204, description = "Noted"),
        AgentErrors, AgentBodyErrors,
    )
)]
async fn report(
    State(control_plane): State<ControlPlane>,
    CallingMachine(machine): CallingMachine,
    body: JsonBody<ReportRequest>,
) -> Result<StatusCode, Problem> {
    let report = tidy(body.value);
    control_plane.record_report(machine, &report).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Renew the agent's token
///
/// Takes a token that the agent has made in place of the one that it calls with, which is good for
/// an hour more. The same pair of tokens changes nothing.
#[utoipa::path(
    post,
    path = "/agent/v1/renew",
    tag = "Agents",
    security(("agent_token" = [])),
    request_body = schemas::AgentRenewRequest,
    responses(
        (status = 204, description = "The new token is good"),
        AgentErrors, AgentBodyErrors,
    )
)]
async fn renew(
    State(control_plane): State<ControlPlane>,
    CallingMachine(_): CallingMachine,
    headers: HeaderMap,
    body: JsonBody<RenewRequest>,
) -> Result<StatusCode, Problem> {
    let token = presented(&headers);
    control_plane.renew_agent_token(token, &body.value).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes the agent's words fit to be kept. They are not refused: an agent whose reports are
/// refused, say because its backend's version has a strange character, is a machine that is lost.
fn tidy(mut report: ReportRequest) -> ReportRequest {
    report.agent_version = printable(&report.agent_version, MAX_VERSION_CHARS);
    report.backend_version = report
        .backend_version
        .map(|version| printable(&version, MAX_VERSION_CHARS));
    // What serves may become what the project asks for: only what people may ask for themselves.
    for release in [&mut report.backend_release, &mut report.rolled_back_from] {
        *release = release
            .take()
            .and_then(|it| field::release("release", &it).ok());
    }
    report.sample = report.sample.filter(|sample| sample.check().is_ok());
    report.message = report
        .message
        .map(|message| printable(&message, MAX_MESSAGE_CHARS));
    report
}

/// Without control characters, which Postgres (U+0000) or an operator's terminal (escape
/// sequences) would choke on.
fn printable(text: &str, max_chars: usize) -> String {
    text.chars()
        .take(max_chars)
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use cp_model::agent_protocol::{MachineSample, ObservedState};

    use super::*;

    #[test]
    fn an_agents_words_are_tidied_and_not_refused() {
        let tidied = tidy(ReportRequest {
            generation: 1,
            state: ObservedState::Failing,
            restarts: 0,
            backend_version: Some("2.0\u{0}".into()),
            backend_release: Some("v2.1.0".into()),
            rolled_back_from: Some("v2 of the agent's own".into()),
            message: Some(format!("\u{1b}[31mno disk\nleft{}", "x".repeat(1000))),
            agent_version: "0.1.0".into(),
            sample: Some(MachineSample {
                cpu_usage: 101.0,
                memory_usage: 1.0,
                disk_usage: 1.0,
                network_in: 1.0,
                network_out: 1.0,
            }),
        });
        assert_eq!(tidied.sample, None);
        let message = tidied.message.unwrap();
        assert!(message.starts_with(" [31mno disk\nleft"));
        assert_eq!(message.chars().count(), MAX_MESSAGE_CHARS);
        assert_eq!(tidied.backend_version.unwrap(), "2.0 ");
        assert_eq!(tidied.backend_release.unwrap(), "v2.1.0");
        assert_eq!(tidied.rolled_back_from, None);
    }
}
