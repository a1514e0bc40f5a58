//! The outermost middleware, one function for what every request and every answer needs: request
//! id, span, metrics, load shedding, panics, CORS, and refusals in the right form. One layer and not
//! seven, because each layer costs an allocation on the two routes where speed is measured.

use std::any::Any;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cp_domain::Caller;
use cp_model::RequestId;
use futures::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::sync::Semaphore;
use tracing::{Instrument, Span, field};

use crate::ApiOptions;
use crate::client_address::client_address;
use crate::cors;
use crate::pages::Page;
use crate::places::Place;
use crate::problem::{Form, Problem};

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Registrations worked on at once. They are rare and short, and agents try again.
const MAX_REGISTRATIONS: usize = 64;

/// How often an outage is told in the log.
const OUTAGE_EVERY: Duration = Duration::from_secs(10);

/// What the front door decides by.
pub struct FrontDoor {
    trusted_proxies: usize,
    in_flight: Arc<Semaphore>,
    agent_waits: Arc<Semaphore>,
    registrations: Arc<Semaphore>,
    outage: Outage,
}

impl FrontDoor {
    pub fn new(options: &ApiOptions) -> Self {
        Self {
            trusted_proxies: options.trusted_proxies,
            in_flight: Arc::new(Semaphore::new(options.max_in_flight)),
            agent_waits: Arc::new(Semaphore::new(options.max_agent_waits)),
            registrations: Arc::new(Semaphore::new(MAX_REGISTRATIONS)),
            outage: Outage::default(),
        }
    }

    /// A place for the request; none: we have more than we can work on, and a fast refusal is
    /// better than a slow answer to everybody. Agents' long polls are counted apart, or a few
    /// thousand idle machines would shut partners out, and so are registrations, or anybody could
    /// who sends their bodies slowly.
    fn admit(&self, path: &str) -> Option<Place> {
        Place::take(match path {
            crate::agent::DESIRED_PATH => &self.agent_waits,
            crate::agent::REGISTER_PATH => &self.registrations,
            _ => &self.in_flight,
        })
    }
}

/// Takes one request through.
pub async fn pass(
    State(door): State<Arc<FrontDoor>>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let form = Form::of_path(request.uri().path());
    let keeps_secrets = keeps_secrets(form, request.uri().path());
    let is_for_any_origin = cors::is_for_any_origin(request.uri().path());
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);

    // The path itself and the query stay out: ids and tokens belong in neither log nor trace.
    let span = tracing::info_span!(
        "http_request",
        request_id = request_id.as_str(),
        method,
        route,
        status = field::Empty
    );
    let caller = Caller {
        request_id: request_id.clone(),
        address: client_address(
            request
                .extensions()
                .get::<ConnectInfo<SocketAddr>>()
                .map(|info| info.0),
            request.headers(),
            door.trusted_proxies,
        ),
    };
    let mut response = match door.admit(request.uri().path()) {
        Some(_) if is_for_any_origin && cors::is_preflight(&request) => cors::answer_preflight(),
        Some(place) => {
            request.extensions_mut().insert(caller);
            // For those of its routes that wait (`places`).
            if matches!(form, Form::Partnership | Form::Platform) {
                request.extensions_mut().insert(place.clone());
            }
            let answer = AssertUnwindSafe(next.run(request))
                .catch_unwind()
                .instrument(span.clone())
                .await;
            drop(place);
            answer.unwrap_or_else(|panic| {
                Problem::internal(format!("panicked: {}", panic_text(&*panic))).into_response()
            })
        }
        None => Problem::unavailable().into_response(),
    };
    span.in_scope(|| finish(&mut response, form, &request_id, &door.outage));
    let headers = response.headers_mut();
    if keeps_secrets {
        // Unless the answer says that it may be kept, as one with a version does.
        let kept = headers.entry(CACHE_CONTROL);
        kept.or_insert(HeaderValue::from_static("no-store"));
    }
    if form == Form::OAuth {
        // RFC 6749 section 5.1 wants both.
        headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    }
    if is_for_any_origin {
        cors::open(headers);
    }
    measure(&span, route, method, response.status(), started);
    response
}

/// Whether answers may hold keys, tokens or what is told to one person alone.
fn keeps_secrets(form: Form, path: &str) -> bool {
    matches!(form, Form::Partnership | Form::OAuth | Form::Backend)
        || path.starts_with("/agent/")
        || path.starts_with("/auth/")
}

/// The caller's own id when it is well-formed, else a new one.
fn request_id(headers: &HeaderMap) -> RequestId {
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .and_then(RequestId::from_caller)
        .unwrap_or_else(RequestId::generate)
}

/// Puts the request id on the answer and writes refusals in their form.
fn finish(response: &mut Response, form: Form, request_id: &RequestId, outage: &Outage) {
    let status = response.status();
    if let Some(problem) = response.extensions_mut().remove::<Arc<Problem>>() {
        log(&problem, outage);
        // A page has said it already, in its own way.
        if response.extensions().get::<Page>().is_none() {
            problem.write(form, request_id, response);
        }
    } else if (status.is_client_error() || status.is_server_error()) && !has_a_reason(response) {
        // The router's own 404 and 405, and whatever else answered without a reason.
        let problem = Problem::of_status(status);
        log(&problem, outage);
        problem.write(form, request_id, response);
    }
    // A request id is printable ASCII by construction.
    if let Ok(value) = HeaderValue::from_str(request_id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
}

fn log(problem: &Problem, outage: &Outage) {
    if problem.status == StatusCode::SERVICE_UNAVAILABLE {
        if let Some(refused) = outage.tell(Instant::now()) {
            tracing::warn!(refused, "not available; requests are answered 503");
        }
    } else if problem.status.is_server_error() && problem.status != StatusCode::NOT_IMPLEMENTED {
        let cause = problem.cause.as_deref().unwrap_or("none given");
        tracing::error!(status = problem.status.as_u16(), cause, "request failed");
    } else {
        tracing::debug!(
            status = problem.status.as_u16(),
            code = problem.code,
            "request refused"
        );
    }
}

/// Requests answered 503 since the log last said so. They come by the thousand, and whoever could
/// not do its work has logged why: one line now and then is enough.
#[derive(Default)]
struct Outage(Mutex<(Option<Instant>, u64)>);

impl Outage {
    /// Counts one more; how many there were when it is time to tell.
    fn tell(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, refused) = &mut *state;
        *refused += 1;
        if told.is_some_and(|told| now.duration_since(told) < OUTAGE_EVERY) {
            return None;
        }
        *told = Some(now);
        Some(std::mem::take(refused))
    }
}

/// Our own refusals are JSON, or a page for people.
fn has_a_reason(response: &Response) -> bool {
    let is_json = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/json");
    response.extensions().get::<Page>().is_some()
        || response.headers().get(CONTENT_TYPE).is_some_and(is_json)
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

/// A closed set: the method is the caller's choice, and each label value costs memory for ever.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn measure(span: &Span, route: &str, method: &'static str, status: StatusCode, started: Instant) {
    span.record("status", status.as_u16());
    let labels = [
        metrics::Label::new("route", route.to_owned()),
        metrics::Label::from_static_parts("method", method),
        metrics::Label::new("status", status.as_str().to_owned()),
    ];
    metrics::histogram!("http_request_duration_seconds", labels.iter())
        .record(started.elapsed().as_secs_f64());
    metrics::counter!("http_requests_total", labels.iter()).increment(1);
}

#[cfg(test)]
mod tests;
