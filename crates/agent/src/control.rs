//! The control plane's three calls.

use std::time::Duration;

use cp_model::{
    MachineId,
    agent_protocol::{DesiredState, RegisterRequest, RenewRequest, ReportRequest},
};
use reqwest::{Client, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};

/// How long the control plane may hold `desired` open.
const WAIT_SECONDS: u64 = 25;
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a call failed, by how soon to try again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// It answered, and does not want us: somebody must look. Try again, slowly.
    #[error("the control plane refused: {0}")]
    Refused(StatusCode),
    /// Not reached, or in trouble itself. Try again soon.
    #[error("the control plane is away: {0}")]
    Away(String),
}

pub(crate) struct ControlPlane {
    http: Client,
    base: String,
}

impl ControlPlane {
    pub(crate) fn new(http: Client, control_url: &str) -> Self {
        Self {
            http,
            base: format!("{}/agent/v1", control_url.trim_end_matches('/')),
        }
    }

    pub(crate) async fn register(
        &self,
        machine_id: MachineId,
        bootstrap_token: &SecretString,
        agent_token: &str,
    ) -> Result<(), ControlError> {
        let request = RegisterRequest {
            machine_id,
            bootstrap_token: bootstrap_token.expose_secret().to_owned(),
            agent_token: agent_token.to_owned(),
            agent_version: crate::VERSION.to_owned(),
        };
        let call = self.http.post(format!("{}/register", self.base));
        accept(call.json(&request).timeout(CALL_TIMEOUT).send().await).map(drop)
    }

    /// Takes `renewed` in place of `token`.
    pub(crate) async fn renew(&self, token: &str, renewed: &str) -> Result<(), ControlError> {
        let request = RenewRequest {
            agent_token: renewed.to_owned(),
        };
        let call = self.http.post(format!("{}/renew", self.base));
        let call = call.bearer_auth(token).json(&request).timeout(CALL_TIMEOUT);
        accept(call.send().await).map(drop)
    }

    /// What is newer than `generation`; none when nothing came in time.
    pub(crate) async fn desired(
        &self,
        token: &str,
        generation: i64,
    ) -> Result<Option<DesiredState>, ControlError> {
        let call = self
            .http
            .get(format!("{}/desired", self.base))
            .query(&[("generation", generation)])
            .query(&[("wait", WAIT_SECONDS)])
            .bearer_auth(token)
            .timeout(Duration::from_secs(WAIT_SECONDS) + CALL_TIMEOUT);
        let response = accept(call.send().await)?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        response.json().await.map(Some).map_err(away)
    }

    pub(crate) async fn report(
        &self,
        token: &str,
        report: &ReportRequest,
    ) -> Result<(), ControlError> {
        let call = self.http.post(format!("{}/report", self.base));
        let call = call.bearer_auth(token).json(report).timeout(CALL_TIMEOUT);
        accept(call.send().await).map(drop)
    }
}

fn accept(outcome: Result<Response, reqwest::Error>) -> Result<Response, ControlError> {
    let response = outcome.map_err(away)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            Err(ControlError::Away(status.to_string()))
        }
        status if status.is_client_error() => Err(ControlError::Refused(status)),
        status => Err(ControlError::Away(status.to_string())),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn away(error: reqwest::Error) -> ControlError {
    // The cause (connection refused) is more telling than reqwest's own words.
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    ControlError::Away(cause.to_string())
}
