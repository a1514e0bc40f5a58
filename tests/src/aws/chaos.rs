//! A proxy between the SDK and moto, for machines and for objects, that fails on command, before the effect or after it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::hosts::Hosts;

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The connection ends before anything happens.
    ResetBefore,
    /// It happens, and the connection ends.
    ResetAfter,
    /// 500 without a word; nothing happened.
    Error500,
    /// 500 without a word; it happened.
    Error500After,
    /// `ServiceUnavailable`, of S3 `SlowDown`; nothing happened.
    Error503,
    /// `RequestLimitExceeded`; nothing happened.
    Throttled,
    /// `InsufficientInstanceCapacity`; nothing happened.
    NoCapacity,
    /// It happens, and the answer never comes.
    Stall,
    /// It happens, and the answer ends in its middle, as its length has it.
    CutShort,
    /// It happens, and the answer ends before its length is reached.
    CutOff,
}

impl Fault {
    pub const ALL: [Self; 10] = [
        Self::ResetBefore,
        Self::ResetAfter,
        Self::Error500,
        Self::Error500After,
        Self::Error503,
        Self::Throttled,
        Self::NoCapacity,
        Self::Stall,
        Self::CutShort,
        Self::CutOff,
    ];

    /// Those that S3 knows.
    pub const OF_OBJECTS: [Self; 8] = [
        Self::ResetBefore,
        Self::ResetAfter,
        Self::Error500,
        Self::Error500After,
        Self::Error503,
        Self::Stall,
        Self::CutShort,
        Self::CutOff,
    ];
}

/// One region's endpoint.
pub struct Chaos {
    pub url: String,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    scripts: HashMap<String, VecDeque<Fault>>,
    /// Answers that moto cannot give.
    answers: HashMap<String, String>,
    /// What each action was last asked with.
    asked: HashMap<String, HashMap<String, String>>,
    calls: BTreeMap<String, usize>,
    faults: usize,
}

type Body = BoxBody<Bytes, io::Error>;

impl Chaos {
    pub(super) async fn listen(moto: &str, hosts: Arc<Hosts>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a loopback port is free");
        let url = format!(
            "http://{}",
            listener.local_addr().expect("it has an address")
        );
        let state = Arc::<Mutex<State>>::default();
        let proxy = Arc::new(Proxy {
            moto: moto.to_owned(),
            http: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client can be built"),
            state: state.clone(),
            hosts,
        });
        let server = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let proxy = proxy.clone();
                tokio::spawn(async move {
                    let serve = service_fn(|request| proxy.serve(request));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), serve);
                    // A fault is an error of the connection.
                    let _ = connection.await;
                });
            }
        });
        Self { url, state, server }
    }

    /// The next call of that action fails so. Repeat it for the ones after.
    pub fn fail_next(&self, action: &str, fault: Fault) {
        let mut state = lock(&self.state);
        let script = state.scripts.entry(action.to_owned()).or_default();
        script.push_back(fault);
    }

    /// Every call of that action is answered so from now on, and nothing happens; none: by moto again.
    pub fn answer(&self, action: &str, xml: Option<String>) {
        let mut state = lock(&self.state);
        match xml {
            Some(xml) => state.answers.insert(action.to_owned(), xml),
            None => state.answers.remove(action),
        };
    }

    /// The parameters of the last call of that action.
    pub fn asked(&self, action: &str) -> HashMap<String, String> {
        let state = lock(&self.state);
        state.asked.get(action).cloned().unwrap_or_default()
    }

    /// Calls off the faults that nobody has met.
    pub fn forget_faults(&self) {
        lock(&self.state).scripts.clear();
    }

    /// Faults that were due and have been met.
    pub fn faults(&self) -> usize {
        lock(&self.state).faults
    }

    /// How often each action was called.
    pub fn calls(&self) -> BTreeMap<String, usize> {
        lock(&self.state).calls.clone()
    }

    pub fn calls_of(&self, action: &str) -> usize {
        self.calls().get(action).copied().unwrap_or(0)
    }

    /// The region is down from now on: nobody listens.
    pub fn shut_down(&self) {
        self.server.abort();
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Proxy {
    moto: String,
    http: reqwest::Client,
    state: Arc<Mutex<State>>,
    hosts: Arc<Hosts>,
}

impl Proxy {
    async fn serve(&self, request: Request<Incoming>) -> Result<Response<Body>, io::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let form: HashMap<String, String> = if is_form(&parts) {
            url::form_urlencoded::parse(&body).into_owned().collect()
        } else {
            HashMap::new()
        };
        let action = match form.get("Action") {
            Some(action) => action.clone(),
            None => action_on_objects(&parts).to_owned(),
        };
        let (fault, told) = {
            let mut state = lock(&self.state);
            *state.calls.entry(action.clone()).or_default() += 1;
            state.asked.insert(action.clone(), form.clone());
            let fault = state.scripts.get_mut(&action).and_then(VecDeque::pop_front);
            state.faults += usize::from(fault.is_some());
            (fault, state.answers.get(&action).cloned())
        };
        if let Some(xml) = told {
            return Ok(plain(200, xml.into()));
        }
        match fault {
            Some(Fault::ResetBefore) => return Err(io::Error::other("reset")),
            Some(Fault::Error500) => return Ok(plain(500, Bytes::new())),
            Some(Fault::Error503) if form.is_empty() => return Ok(slow_down()),
            Some(Fault::Error503) => return Ok(refusal(503, "ServiceUnavailable")),
            Some(Fault::Throttled) => return Ok(refusal(503, "RequestLimitExceeded")),
            Some(Fault::NoCapacity) => return Ok(refusal(500, "InsufficientInstanceCapacity")),
            _ => {}
        }
        let is_head = parts.method == Method::HEAD;
        let mut forward = self
            .http
            .request(parts.method, format!("{}{}", self.moto, parts.uri));
        for (name, value) in &parts.headers {
            if !matches!(name.as_str(), "host" | "content-length" | "connection") {
                forward = forward.header(name, value);
            }
        }
        let answer = forward.body(body).send().await.map_err(io::Error::other)?;
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let text = answer.bytes().await.map_err(io::Error::other)?;
        if status == 200 {
            self.hosts
                .saw(&action, &form, &String::from_utf8_lossy(&text));
        }
        match fault {
            Some(Fault::ResetAfter) => Err(io::Error::other("reset")),
            Some(Fault::Error500After) => Ok(plain(500, Bytes::new())),
            Some(Fault::Stall) => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                Err(io::Error::other("it never answers"))
            }
            // There is nothing to cut but the headers.
            Some(Fault::CutShort | Fault::CutOff) if text.is_empty() => {
                Err(io::Error::other("cut off"))
            }
            Some(Fault::CutShort) => {
                let half = text.slice(..text.len() / 2);
                Ok(with_headers(plain(status, half), &headers, is_head))
            }
            Some(Fault::CutOff) => Ok(with_headers(cut_off(status, &text), &headers, is_head)),
            _ => Ok(with_headers(plain(status, text), &headers, is_head)),
        }
    }
}

/// EC2's protocol puts the action into a form.
fn is_form(request: &Parts) -> bool {
    let kind = request.headers.get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes() == b"application/x-www-form-urlencoded")
}

/// What S3's own documents call a request, with the bucket in the path.
fn action_on_objects(request: &Parts) -> &'static str {
    let query = request.uri.query().unwrap_or_default();
    let asks = |name: &str| url::form_urlencoded::parse(query.as_bytes()).any(|(n, _)| n == name);
    let is_object = request.uri.path().trim_matches('/').contains('/');
    match (&request.method, is_object) {
        (&Method::PUT, true) if asks("partNumber") => "UploadPart",
        (&Method::PUT, true) => "PutObject",
        (&Method::PUT, false) => "CreateBucket",
        (&Method::POST, true) if asks("uploads") => "CreateMultipartUpload",
        (&Method::POST, true) => "CompleteMultipartUpload",
        (&Method::POST, false) => "DeleteObjects",
        (&Method::DELETE, true) if asks("uploadId") => "AbortMultipartUpload",
        (&Method::DELETE, true) => "DeleteObject",
        (&Method::HEAD, true) => "HeadObject",
        (&Method::GET, true) => "GetObject",
        (&Method::GET, false) if asks("uploads") => "ListMultipartUploads",
        (&Method::GET, false) => "ListObjectsV2",
        _ => "",
    }
}

fn slow_down() -> Response<Body> {
    plain(
        503,
        Bytes::from_static(b"<Error><Code>SlowDown</Code><Message>as told to</Message></Error>"),
    )
}

/// What else the answer's headers say; its length only where it has no body to tell it.
fn with_headers(
    mut response: Response<Body>,
    headers: &HeaderMap,
    is_head: bool,
) -> Response<Body> {
    for (name, value) in headers {
        let is_ours = [CONNECTION, DATE, TRANSFER_ENCODING].contains(name)
            || (*name == CONTENT_LENGTH && !is_head);
        if !is_ours {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

fn plain(status: u16, text: Bytes) -> Response<Body> {
    let body = Full::new(text).map_err(|never: Infallible| match never {});
    answer(status, body.boxed(), None)
}

fn refusal(status: u16, code: &str) -> Response<Body> {
    let text = format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>as told to</Message></Error></Errors><RequestID>r</RequestID></Response>"
    );
    plain(status, text.into())
}

fn cut_off(status: u16, text: &Bytes) -> Response<Body> {
    let half = text.slice(..text.len() / 2);
    let frames = [Ok(Frame::data(half)), Err(io::Error::other("cut off"))];
    let body = StreamBody::new(stream::iter(frames));
    answer(status, BodyExt::boxed(body), Some(text.len()))
}

fn answer(status: u16, body: Body, length: Option<usize>) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    headers.insert(
        "content-type",
        "text/xml".parse().expect("a header's value"),
    );
    if let Some(length) = length {
        headers.insert("content-length", length.into());
    }
    response
}
