//! A server that answers as Stripe's documents say (version 2026-10-28.endive), as far as we call it: it checks the
//! key, the version, every parameter's name and idempotency keys itself, and can fail in all the ways that matter.
//!
//! For tests, ours and those of who uses this crate (feature `stand-in`). What it does not know it refuses or panics over.

#![allow(clippy::unwrap_used, reason = "part of tests: they shall fail")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use url::{Url, form_urlencoded};

/// The key that it takes.
pub const KEY: &str = "sk_test_51Nightingale";
const VERSION: &str = "2026-10-28.endive";

/// What happens to the next request.
#[derive(Clone)]
pub enum Fault {
    /// None.
    Fine,
    /// An answer that says so with these headers, before anything is done.
    Status(u16, &'static [(&'static str, &'static str)]),
    /// Stripe fails in the middle, and remembers that with the key.
    FailAndRemember,
    /// All is done, but no answer ever comes.
    DoAndHang,
    /// All is done, and half of the answer comes.
    DoAndBreakOff,
    /// All is done, and the answer is this.
    DoAndSay(&'static str),
    /// A refusal, word for word.
    Say(u16, Value),
    /// The connection ends without an answer.
    HangUp,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub path: String,
    /// Of the query or the form.
    pub params: BTreeMap<String, String>,
    pub idempotency_key: Option<String>,
}

#[derive(Default)]
pub struct World {
    pub customers: BTreeMap<String, Value>,
    pub subscriptions: Vec<Value>,
    pub invoices: Vec<Value>,
    pub transactions: Vec<Value>,
    pub sessions: Vec<Value>,
    pub requests: Vec<Request>,
    pub faults: VecDeque<Fault>,
    answers: HashMap<String, Remembered>,
    last_id: u32,
}

struct Remembered {
    request: String,
    answer: Answer,
}

type Answer = (u16, Value);

pub struct StandIn {
    pub url: Url,
    world: Arc<Mutex<World>>,
    server: JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl StandIn {
    pub async fn start() -> Self {
        let world = Arc::new(Mutex::new(World::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(world.clone());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            url: url.parse().unwrap(),
            world,
            server,
        }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub fn fails_with(&self, faults: impl IntoIterator<Item = Fault>) {
        self.world().faults.extend(faults);
    }

    /// All requests until now, as `POST /v1/customers`.
    pub fn calls(&self) -> Vec<String> {
        let world = self.world();
        let calls = world.requests.iter();
        calls
            .map(|call| format!("{} {}", call.method, call.path))
            .collect()
    }

    pub fn last_request(&self) -> Request {
        self.world().requests.last().unwrap().clone()
    }
}

async fn answer(
    State(world): State<Arc<Mutex<World>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let fault = {
        let mut world = world.lock().unwrap();
        world.faults.pop_front().unwrap_or(Fault::Fine)
    };
    let mut replayed = false;
    let (status, value) = {
        let mut world = world.lock().unwrap();
        match world.receive(&method, &uri, &headers, &body) {
            Err(refusal) => refusal,
            Ok(request) => match &fault {
                Fault::Status(status, headers) => {
                    let error =
                        json!({"error": {"type": "api_error", "message": "We are sorry."}});
                    return response(*status, headers, Body::from(error.to_string()));
                }
                Fault::Say(status, value) => (*status, value.clone()),
                Fault::HangUp => {
                    let broken: Result<Bytes, std::io::Error> =
                        Err(std::io::ErrorKind::ConnectionReset.into());
                    let body = Body::from_stream(futures::stream::iter([broken]));
                    return response(200, &[], body);
                }
                _ => world.once(&request, &mut replayed, |world| {
                    if matches!(fault, Fault::FailAndRemember) {
                        let error = json!({"error": {"type": "api_error", "message": "An error occurred."}});
                        (500, error)
                    } else {
                        world.work(&request).unwrap_or_else(|refusal| refusal)
                    }
                }),
            },
        }
    };
    let text = value.to_string();
    let mut headers = vec![
        ("request-id", "req_stand_in"),
        ("content-type", "application/json"),
    ];
    if replayed {
        headers.push(("idempotent-replayed", "true"));
    }
    match fault {
        Fault::DoAndHang => {
            tokio::time::sleep(Duration::from_hours(1)).await;
            unreachable!("who asked has gone")
        }
        Fault::DoAndBreakOff => {
            let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
            let chunks = [
                Ok(half),
                Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe)),
            ];
            response(
                status,
                &headers,
                Body::from_stream(futures::stream::iter(chunks)),
            )
        }
        Fault::DoAndSay(words) => response(status, &headers, Body::from(words)),
        _ => response(status, &headers, Body::from(text)),
    }
}

fn response(status: u16, headers: &[(&str, &str)], body: Body) -> Response<Body> {
    let mut answer = Response::builder().status(StatusCode::from_u16(status).unwrap());
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    answer.body(body).unwrap()
}

fn refusal(status: u16, code: &str, param: Option<&str>, message: &str) -> Answer {
    let error =
        json!({"type": "invalid_request_error", "code": code, "param": param, "message": message});
    (status, json!({"error": error}))
}

fn missing(status: u16, what: &str, id: &str, param: &str) -> Answer {
    let message = format!("No such {what}: '{id}'");
    refusal(status, "resource_missing", Some(param), &message)
}

impl World {
    /// Checks what every request must have, and notes it.
    fn receive(
        &mut self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Request, Answer> {
        let header = |name: &str| Some(headers.get(name)?.to_str().unwrap().to_owned());
        let encoded = match *method {
            Method::POST => body,
            _ => uri.query().unwrap_or_default().as_bytes(),
        };
        let mut params = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(encoded) {
            let twice = params.insert(name.into_owned(), value.into_owned());
            assert!(twice.is_none(), "a parameter is there twice");
        }
        let request = Request {
            method: method.clone(),
            path: uri.path().to_owned(),
            params,
            idempotency_key: header("idempotency-key"),
        };
        self.requests.push(request.clone());
        if header("authorization") != Some(format!("Bearer {KEY}")) {
            let message = "Invalid API Key provided: sk_test_***";
            let error = json!({"error": {"type": "invalid_request_error", "message": message}});
            return Err((401, error));
        }
        if header("stripe-version").as_deref() != Some(VERSION) {
            return Err(refusal(
                400,
                "invalid_version",
                None,
                "Invalid Stripe API version",
            ));
        }
        let is_form =
            header("content-type").as_deref() == Some("application/x-www-form-urlencoded");
        if *method == Method::POST && !is_form {
            return Err(refusal(400, "invalid_form", None, "Invalid request body"));
        }
        let may_have_key = *method == Method::POST;
        if request.idempotency_key.is_some() != may_have_key {
            return Err(refusal(
                400,
                "idempotency_key",
                None,
                "a key for each POST, and no other",
            ));
        }
        Ok(request)
    }

    /// Does it, unless it was done under the same key: then the answer is the same, even if it was a failure.
    fn once(
        &mut self,
        request: &Request,
        replayed: &mut bool,
        work: impl FnOnce(&mut Self) -> Answer,
    ) -> Answer {
        let Some(key) = &request.idempotency_key else {
            return work(self);
        };
        let asked = format!("{} {:?}", request.path, request.params);
        if let Some(known) = self.answers.get(key) {
            if known.request != asked {
                let message = "Keys for idempotent requests can only be used with the same parameters they were \
                               first used with.";
                let error = json!({"error": {"type": "idempotency_error", "message": message}});
                return (400, error);
            }
            *replayed = true;
            return known.answer.clone();
        }
        let answer = work(self);
        // "Results are only saved if an endpoint started executing", not if validation failed.
        if answer.0 < 400 || answer.0 >= 500 {
            let remembered = Remembered {
                request: asked,
                answer: answer.clone(),
            };
            self.answers.insert(key.clone(), remembered);
        }
        answer
    }

    fn new_id(&mut self, prefix: &str) -> String {
        self.last_id += 1;
        format!("{prefix}_{}", self.last_id)
    }

    fn work(&mut self, request: &Request) -> Result<Answer, Answer> {
        let path: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        let params = &request.params;
        let body = match (request.method.as_str(), path.as_slice()) {
            ("POST", ["v1", "customers"]) => {
                allow(params, &["name", "email", "metadata[organization_id]"])?;
                let id = self.new_id("cus");
                let customer = json!({
                    "id": id, "object": "customer", "balance": 0, "currency": null, "created": 1_795_000_000,
                    "name": params.get("name"), "email": params.get("email"), "livemode": false,
                    "metadata": {"organization_id": params["metadata[organization_id]"]},
                });
                self.customers.insert(id, customer.clone());
                customer
            }
            ("POST", ["v1", "customers", id]) => {
                allow(params, &["name", "email"])?;
                let customer = self.living_customer(id, 404, "id")?;
                for (name, value) in params {
                    customer[name] = json!(value);
                }
                customer.clone()
            }
            ("GET", ["v1", "customers", id]) => {
                allow(params, &[])?;
                self.customers
                    .get(*id)
                    .cloned()
                    .ok_or_else(|| missing(404, "customer", id, "id"))?
            }
            ("GET", ["v1", "customers", id, "balance_transactions"]) => {
                allow(params, &["limit", "starting_after"])?;
                self.living_customer(id, 404, "customer")?;
                page(
                    &self.transactions,
                    &BTreeMap::from([("customer".to_owned(), (*id).to_owned())]),
                    params,
                )
            }
            ("POST", ["v1", "checkout", "sessions"]) => self.check_out(params)?,
            ("GET", ["v1", "checkout", "sessions"]) => {
                allow(params, &["customer", "status", "limit", "starting_after"])?;
                self.living_customer(&params["customer"], 400, "customer")?;
                let mut wanted = params.clone();
                wanted.retain(|name, _| name == "customer" || name == "status");
                page(&self.sessions, &wanted, params)
            }
            ("POST", ["v1", "checkout", "sessions", id, "expire"]) => {
                allow(params, &[])?;
                let session = self.sessions.iter_mut().find(|one| one["id"] == *id);
                let session =
                    session.ok_or_else(|| missing(404, "checkout.session", id, "session"))?;
                if session["status"] != "open" {
                    let message =
                        "Only Checkout Sessions with a status in [\"open\"] can be expired.";
                    return Err(refusal(400, "checkout_session_not_open", None, message));
                }
                session["status"] = json!("expired");
                session.clone()
            }
            ("POST", ["v1", "billing_portal", "sessions"]) => {
                allow(params, &["customer", "return_url"])?;
                self.living_customer(&params["customer"], 400, "customer")?;
                let id = self.new_id("bps");
                let url = format!("https://billing.stripe.com/p/session/{id}");
                json!({"id": id, "object": "billing_portal.session", "url": url, "customer": params["customer"]})
            }
            ("GET", ["v1", "subscriptions"]) => {
                allow(params, &["customer", "status", "limit", "starting_after"])?;
                self.living_customer(&params["customer"], 400, "customer")?;
                let mut wanted = params.clone();
                wanted
                    .retain(|name, value| name == "customer" || name == "status" && value != "all");
                page(&self.subscriptions, &wanted, params)
            }
            ("GET", ["v1", "subscriptions", id]) => {
                allow(params, &[])?;
                self.subscription(id)?.clone()
            }
            ("DELETE", ["v1", "subscriptions", id]) => {
                allow(params, &[])?;
                let subscription = self.subscription(id)?;
                if subscription["status"] == "canceled" {
                    return Err(missing(404, "subscription", id, "id"));
                }
                subscription["status"] = json!("canceled");
                subscription.clone()
            }
            ("GET", ["v1", "prices", id]) => {
                allow(params, &[])?;
                if !matches!(*id, "price_pro" | "price_once") {
                    return Err(missing(404, "price", id, "price"));
                }
                let recurring = (*id == "price_pro").then(|| json!({"interval": "month"}));
                json!({
                    "id": id, "object": "price", "active": true, "currency": "usd", "unit_amount": 2500,
                    "recurring": recurring,
                })
            }
            ("GET", ["v1", "invoices"]) => {
                allow(params, &["customer", "limit", "starting_after"])?;
                let wanted = BTreeMap::from([("customer".to_owned(), params["customer"].clone())]);
                page(&self.invoices, &wanted, params)
            }
            _ => {
                return Err(refusal(
                    404,
                    "unrecognized_url",
                    None,
                    "Unrecognized request URL",
                ));
            }
        };
        Ok((200, body))
    }

    fn check_out(&mut self, params: &BTreeMap<String, String>) -> Result<Value, Answer> {
        allow(
            params,
            &[
                "mode",
                "customer",
                "client_reference_id",
                "metadata[organization_id]",
                "subscription_data[metadata][organization_id]",
                "line_items[0][price]",
                "line_items[0][quantity]",
                "success_url",
                "cancel_url",
            ],
        )?;
        self.living_customer(&params["customer"], 400, "customer")?;
        let price = &params["line_items[0][price]"];
        if price != "price_pro" {
            return Err(missing(400, "price", price, "line_items[0][price]"));
        }
        let id = self.new_id("cs_test");
        let session = json!({
            "id": id, "object": "checkout.session", "mode": params["mode"], "customer": params["customer"],
            "client_reference_id": params["client_reference_id"], "status": "open", "payment_status": "unpaid",
            "url": format!("https://checkout.stripe.com/c/pay/{id}#fid=1"),
        });
        self.sessions.push(session.clone());
        Ok(session)
    }

    fn living_customer(
        &mut self,
        id: &str,
        status: u16,
        param: &str,
    ) -> Result<&mut Value, Answer> {
        self.customers
            .get_mut(id)
            .filter(|customer| customer["deleted"] != true)
            .ok_or_else(|| missing(status, "customer", id, param))
    }

    fn subscription(&mut self, id: &str) -> Result<&mut Value, Answer> {
        self.subscriptions
            .iter_mut()
            .find(|subscription| subscription["id"] == id)
            .ok_or_else(|| missing(404, "subscription", id, "id"))
    }
}

/// Stripe refuses parameters that it does not know.
fn allow(params: &BTreeMap<String, String>, known: &[&str]) -> Result<(), Answer> {
    match params.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => {
            let message = format!("Received unknown parameter: {name}");
            Err(refusal(400, "parameter_unknown", Some(name), &message))
        }
        None => Ok(()),
    }
}

/// Lists are kept as Stripe tells them, the newest first.
fn page(
    all: &[Value],
    wanted: &BTreeMap<String, String>,
    params: &BTreeMap<String, String>,
) -> Value {
    let is_wanted = |item: &&Value| wanted.iter().all(|(name, value)| item[name] == *value);
    let mut matching: Vec<&Value> = all.iter().filter(is_wanted).collect();
    if let Some(last) = params.get("starting_after") {
        let place = matching
            .iter()
            .position(|item| item["id"] == *last)
            .unwrap();
        matching.drain(..=place);
    }
    let limit: usize = params["limit"].parse().unwrap();
    assert!(
        (1..=100).contains(&limit),
        "limit can range between 1 and 100"
    );
    let has_more = matching.len() > limit;
    matching.truncate(limit);
    json!({"object": "list", "data": matching, "has_more": has_more, "url": "/v1/things"})
}
