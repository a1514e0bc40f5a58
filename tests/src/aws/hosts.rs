//! What runs on the instances: agents that begin with the user-data of their launch, as cloud-init
//! would start them, and speak the agent's protocol over HTTP; and the backends, behind one listener.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cp_model::agent_protocol::{DesiredState, ObservedState, RegisterRequest, ReportRequest};
use cp_tokens::secret::{OpaqueSecret, SecretKind};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::moto::all;

const TRY_AGAIN: Duration = Duration::from_millis(50);

pub struct Hosts {
    /// Backends answer under `<url>/<address>`.
    pub url: String,
    instances: Mutex<HashMap<String, Host>>,
    http: reqwest::Client,
}

#[derive(Clone)]
struct Host {
    address: String,
    runs: bool,
    /// Counts starts: an agent of an earlier one is no more.
    boot: u64,
    agent_json: Value,
    /// What the agent keeps on its disk.
    token: String,
    registered: bool,
    /// Project and key that the backend serves.
    serving: Option<(String, String)>,
}

impl Hosts {
    pub(super) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a loopback port is free");
        let url = format!(
            "http://{}",
            listener.local_addr().expect("it has an address")
        );
        let http = reqwest::Client::builder().no_proxy().build();
        let this = Arc::new(Self {
            url,
            instances: Mutex::default(),
            http: http.expect("a client can be built"),
        });
        let router = Router::new()
            .route("/{address}/api/health", get(health))
            .route("/{address}/api/metadata/project-id", get(project_id))
            .with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        this
    }

    /// Hears of every call that had an effect, whatever its caller was told.
    pub(super) fn saw(
        self: &Arc<Self>,
        action: &str,
        form: &HashMap<String, String>,
        answer: &str,
    ) {
        let named = form.get("InstanceId.1").cloned().unwrap_or_default();
        match action {
            "RunInstances" => {
                let id = all(answer, "instanceId").remove(0);
                let host = Host {
                    address: format!("{}:7130", all(answer, "privateIpAddress").remove(0)),
                    runs: false,
                    boot: 0,
                    agent_json: agent_json(&form["UserData"]),
                    token: OpaqueSecret::generate(SecretKind::AgentToken)
                        .expose()
                        .to_owned(),
                    registered: false,
                    serving: None,
                };
                self.lock().insert(id.clone(), host);
                self.boot(&id);
            }
            "StartInstances" => self.boot(&named),
            "StopInstances" | "TerminateInstances" => self.stopped(&named),
            _ => {}
        }
    }

    /// The power is off.
    pub(super) fn stopped(&self, id: &str) {
        if let Some(host) = self.lock().get_mut(id) {
            host.runs = false;
        }
    }

    fn boot(self: &Arc<Self>, id: &str) {
        let boot = {
            let mut instances = self.lock();
            let Some(host) = instances.get_mut(id).filter(|host| !host.runs) else {
                return;
            };
            host.runs = true;
            host.boot += 1;
            host.boot
        };
        let (this, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move { this.live(&id, boot).await });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The host, as long as it runs since that boot.
    fn running(&self, id: &str, boot: u64) -> Option<Host> {
        let host = self.lock().get(id).cloned()?;
        (host.runs && host.boot == boot).then_some(host)
    }

    async fn live(&self, id: &str, boot: u64) {
        while let Some(host) = self.running(id, boot).filter(|host| !host.registered) {
            let text = |key: &str| host.agent_json[key].as_str().unwrap_or_default().to_owned();
            let register = RegisterRequest {
                machine_id: text("machine_id").parse().expect("a machine's id"),
                bootstrap_token: text("bootstrap_token"),
                agent_token: host.token.clone(),
                agent_version: "moto".into(),
            };
            let url = format!("{}/agent/v1/register", text("control_url"));
            let answer = self.http.post(url).json(&register).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                if let Some(host) = self.lock().get_mut(id) {
                    host.registered = true;
                }
            } else {
                tokio::time::sleep(TRY_AGAIN).await;
            }
        }
        let mut report: Option<ReportRequest> = None;
        while let Some(host) = self.running(id, boot) {
            let generation = report.as_ref().map_or(0, |report| report.generation);
            let wait = i32::from(report.is_some());
            let base = host.agent_json["control_url"].as_str().unwrap_or_default();
            let url = format!("{base}/agent/v1/desired?generation={generation}&wait={wait}");
            let answer = self.http.get(url).bearer_auth(&host.token).send().await;
            let desired = match answer {
                Ok(answer) if answer.status() == 200 => answer.json::<DesiredState>().await.ok(),
                Ok(answer) if answer.status() == 204 => None,
                _ => {
                    tokio::time::sleep(TRY_AGAIN).await;
                    continue;
                }
            };
            if let Some(desired) = desired {
                report = Some(self.obey(id, &desired));
            }
            let (Some(report), Some(_)) = (&report, self.running(id, boot)) else {
                continue;
            };
            let url = format!("{base}/agent/v1/report");
            let told = self.http.post(url).bearer_auth(&host.token).json(report);
            let _ = told.send().await;
        }
    }

    fn obey(&self, id: &str, desired: &DesiredState) -> ReportRequest {
        let backend = desired.backend.as_ref();
        let serves = backend.filter(|backend| !backend.database_only);
        if let Some(host) = self.lock().get_mut(id) {
            host.serving = serves.map(|backend| {
                let key = backend.env["ACCESS_API_KEY"].clone();
                (backend.project_id.to_string(), key)
            });
        }
        let state = match backend {
            Some(backend) if backend.database_only => ObservedState::DatabaseOnly,
            Some(_) => ObservedState::Serving,
            None => ObservedState::Idle,
        };
        let mut report = json!({
            "generation": desired.generation,
            "state": state,
            "restarts": backend.map_or(0, |backend| backend.restarts),
            "agent_version": "moto",
        });
        report["backend_version"] = json!("2.3.1");
        serde_json::from_value(report).expect("a report")
    }

    /// Projects and keys. The networks of two regions have the same addresses, and moto gives them out
    /// in the same order, so there may be one in each.
    fn served_at(&self, address: &str) -> Vec<(String, String)> {
        let instances = self.lock();
        let hosts = instances.values();
        hosts
            .filter(|host| host.runs && host.address == address)
            .filter_map(|host| host.serving.clone())
            .collect()
    }
}

/// What cloud-init would have written.
fn agent_json(user_data: &str) -> Value {
    let config = BASE64_STANDARD.decode(user_data).expect("base64");
    let config = String::from_utf8(config).expect("text");
    let yaml = config
        .strip_prefix("#cloud-config\n")
        .expect("a cloud-config");
    let config: Value = serde_json::from_str(yaml).expect("YAML in the form of JSON");
    let file = config["write_files"][0]["content"].as_str();
    serde_json::from_str(file.expect("a file's content")).expect("agent.json")
}

async fn health(State(hosts): State<Arc<Hosts>>, Path(address): Path<String>) -> Response {
    if hosts.served_at(&address).is_empty() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    Json(json!({ "status": "ok", "version": "2.3.1" })).into_response()
}

async fn project_id(
    State(hosts): State<Arc<Hosts>>,
    Path(address): Path<String>,
    headers: HeaderMap,
) -> Response {
    let served = hosts.served_at(&address);
    if served.is_empty() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let given = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    match served.iter().find(|(_, key)| given == Some(key)) {
        Some((project, _)) => Json(json!({ "projectId": project })).into_response(),
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}
