//! A server that answers as OpenRouter's documents on provisioning keys say, as far as we call it; it can fail in the ways
//! that matter.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use cp_ai::{OpenRouter, OpenRouterConfig};
use secrecy::SecretString;
use serde_json::{Value, json};

const PROVISIONING_KEY: &str = "sk-or-v1-provisioning-0123456789abcdef";

/// What happens to the next request of a method.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// It is refused with this status, before anything is done.
    Refuse(u16),
    /// All is done, and then this status is answered.
    DoAndSay(u16),
}

/// A key as OpenRouter keeps it.
#[derive(Debug, Clone)]
pub struct KeptKey {
    pub name: String,
    pub limit: f64,
    pub text: String,
}

#[derive(Default)]
pub struct World {
    /// By their hashes.
    pub keys: BTreeMap<String, KeptKey>,
    /// As `POST /api/v1/keys`.
    pub calls: Vec<String>,
    faults: VecDeque<(Method, Fault)>,
    /// How long making a key takes.
    pub pace: Duration,
    made: u32,
}

/// OpenRouter's stand-in, until dropped.
pub struct OpenRouterStandIn {
    url: String,
    world: Arc<Mutex<World>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for OpenRouterStandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl OpenRouterStandIn {
    pub async fn start() -> Self {
        let world = Arc::new(Mutex::new(World::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a loopback port is free");
        let address = listener.local_addr().expect("the listener has an address");
        let app = Router::new().fallback(answer).with_state(world.clone());
        let server = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("it serves");
        });
        Self {
            url: format!("http://{address}/api/v1"),
            world,
            server,
        }
    }

    /// A client with the right provisioning key.
    pub fn client(&self) -> OpenRouter {
        self.client_with(PROVISIONING_KEY)
    }

    pub fn client_with(&self, key: &str) -> OpenRouter {
        OpenRouter::new(&OpenRouterConfig {
            provisioning_key: SecretString::from(key),
            api_base: self.url.parse().expect("it is a URL"),
        })
        .expect("the configuration is good")
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn fails(&self, method: Method, fault: Fault) {
        self.world().faults.push_back((method, fault));
    }

    /// How often it was asked so.
    pub fn count(&self, call: &str) -> usize {
        let world = self.world();
        world
            .calls
            .iter()
            .filter(|made| made.as_str() == call)
            .count()
    }
}

async fn answer(
    State(world): State<Arc<Mutex<World>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let lock = || world.lock().unwrap_or_else(PoisonError::into_inner);
    let (fault, pace) = {
        let mut world = lock();
        world.calls.push(format!("{method} {}", uri.path()));
        let next = world.faults.iter().position(|(of, _)| *of == method);
        let fault = next.and_then(|next| world.faults.remove(next));
        (fault.map(|(_, fault)| fault), world.pace)
    };
    let bearer = headers
        .get("authorization")
        .map(|value| value.as_bytes().to_owned());
    if bearer != Some(format!("Bearer {PROVISIONING_KEY}").into_bytes()) {
        return error(401, "No auth credentials found");
    }
    if let Some(Fault::Refuse(status)) = fault {
        return error(status, "we are sorry");
    }
    if method == Method::POST {
        tokio::time::sleep(pace).await;
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let done = lock().work(&method, &uri, &body);
    match fault {
        Some(Fault::DoAndSay(status)) => error(status, "something failed after all was done"),
        _ => done,
    }
}

fn error(status: u16, message: &str) -> Response {
    say(
        status,
        &json!({ "error": { "code": status, "message": message } }),
    )
}

fn say(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    (status, axum::Json(body)).into_response()
}

impl World {
    fn work(&mut self, method: &Method, uri: &Uri, body: &Value) -> Response {
        let path = uri.path().strip_prefix("/api/v1/keys").unwrap_or("?");
        let hash = path.strip_prefix('/').unwrap_or_default();
        let shown = |hash: &str, key: &KeptKey| {
            json!({
                "hash": hash, "name": key.name, "label": "sk-or-v1-abc…", "disabled": false, "limit": key.limit,
                "limit_remaining": key.limit - 0.25, "limit_reset": "monthly", "usage": 0.25,
            })
        };
        match (method.as_str(), path.is_empty()) {
            ("POST", true) => {
                let (Some(name), Some(limit), Some("monthly")) = (
                    body["name"].as_str(),
                    body["limit"].as_f64(),
                    body["limit_reset"].as_str(),
                ) else {
                    return error(400, "name, limit and limit_reset");
                };
                self.made += 1;
                let hash = format!("hash{}", self.made);
                let key = KeptKey {
                    name: name.to_owned(),
                    limit,
                    text: format!("sk-or-v1-made-{:08}", self.made),
                };
                let data = shown(&hash, &key);
                let text = key.text.clone();
                self.keys.insert(hash, key);
                say(201, &json!({ "data": data, "key": text }))
            }
            ("GET", true) => {
                let offset = uri.query().and_then(|query| query.strip_prefix("offset="));
                let offset = offset.and_then(|offset| offset.parse().ok()).unwrap_or(0);
                let page = self.keys.iter().skip(offset).take(3);
                let page: Vec<Value> = page.map(|(hash, key)| shown(hash, key)).collect();
                say(200, &json!({ "data": page }))
            }
            ("DELETE", false) if self.keys.remove(hash).is_some() => {
                say(200, &json!({ "deleted": true }))
            }
            (method, false) => match self.keys.get_mut(hash) {
                None => error(404, "API key not found"),
                Some(key) => {
                    if method == "PATCH"
                        && let Some(limit) = body["limit"].as_f64()
                    {
                        key.limit = limit;
                    }
                    say(200, &json!({ "data": shown(hash, key) }))
                }
            },
            _ => error(405, "no such call"),
        }
    }
}
