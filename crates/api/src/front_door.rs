//! The outermost middleware, one function for what every request and every answer needs: request
//! id, span, metrics, load shedding, panics, and refusals in the right form. One layer and not
//! seven, because each layer costs an allocation on the two routes where speed is measured.

use std::any::Any;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cp_domain::Caller;
use cp_model::RequestId;
use futures::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::{Instrument, Span, field};

use crate::ApiOptions;
use crate::client_address::client_address;
use crate::problem::{Form, Problem};

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the front door decides by.
pub struct FrontDoor {
    trusted_proxies: usize,
    in_flight: Semaphore,
    agent_waits: Semaphore,
}

impl FrontDoor {
    pub fn new(options: &ApiOptions) -> Self {
        Self {
            trusted_proxies: options.trusted_proxies,
            in_flight: Semaphore::new(options.max_in_flight),
            agent_waits: Semaphore::new(options.max_agent_waits),
        }
    }

    /// A place for the request; none: we have more than we can work on, and a fast refusal is
    /// better than a slow answer to everybody. Agents' long polls are counted apart, or a few
    /// thousand idle machines would shut partners out.
    fn admit(&self, path: &str) -> Option<SemaphorePermit<'_>> {
        let places = if path == crate::agent::DESIRED_PATH {
            &self.agent_waits
        } else {
            &self.in_flight
        };
        places.try_acquire().ok()
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
    let keeps_secrets = form == Form::Partnership || request.uri().path().starts_with("/agent/");
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
        Some(_place) => {
            request.extensions_mut().insert(caller);
            AssertUnwindSafe(next.run(request))
                .catch_unwind()
                .instrument(span.clone())
                .await
                .unwrap_or_else(|panic| {
                    Problem::internal(format!("panicked: {}", panic_text(&*panic))).into_response()
                })
        }
        None => Problem::unavailable().into_response(),
    };
    span.in_scope(|| finish(&mut response, form, &request_id));
    if keeps_secrets {
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    measure(&span, route, method, response.status(), started);
    response
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
fn finish(response: &mut Response, form: Form, request_id: &RequestId) {
    let status = response.status();
    if let Some(problem) = response.extensions_mut().remove::<Arc<Problem>>() {
        log(&problem);
        problem.write(form, request_id, response);
    } else if (status.is_client_error() || status.is_server_error()) && !is_json(response) {
        // The router's own 404 and 405, and whatever else answered without a reason.
        let problem = Problem::of_status(status);
        log(&problem);
        problem.write(form, request_id, response);
    }
    // A request id is printable ASCII by construction.
    if let Ok(value) = HeaderValue::from_str(request_id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
}

fn log(problem: &Problem) {
    if problem.status.is_server_error() {
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

fn is_json(response: &Response) -> bool {
    response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
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
