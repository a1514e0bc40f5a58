//! A server that fails on command, between the wire and the store.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Method, Request, Response, StatusCode, body::Frame, body::Incoming, service::Service};
use s3s::service::S3Service;

type Body = UnsyncBoxBody<Bytes, io::Error>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Put,
    Begin,
    Part,
    Complete,
    Abort,
    Get,
    Head,
    Delete,
    DeleteMany,
    List,
    ListUploads,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// 500, nothing happened.
    ErrorBefore,
    /// 500, it happened.
    ErrorAfter,
    /// 503 SlowDown.
    SlowDown,
    ResetBefore,
    ResetAfter,
    /// No headers come; nothing happened.
    StallBefore,
    /// No headers come; it happened.
    StallAfter,
    /// Half of the body, framed as if it were all.
    CutFramed,
    /// Half of the body, then the connection breaks.
    CutShort,
    /// Half of the body, then nothing.
    StallBody,
    /// A bit of the answer's body is another one.
    FlipAnswer,
    /// A bit of the request's body is another one.
    FlipRequest,
}

impl Fault {
    pub(super) const ALL: [Self; 12] = [
        Self::ErrorBefore,
        Self::ErrorAfter,
        Self::SlowDown,
        Self::ResetBefore,
        Self::ResetAfter,
        Self::StallBefore,
        Self::StallAfter,
        Self::CutFramed,
        Self::CutShort,
        Self::StallBody,
        Self::FlipAnswer,
        Self::FlipRequest,
    ];
}

#[derive(Default)]
struct Plan {
    fault: Option<(Verb, Fault)>,
    /// How often it still strikes.
    left: u32,
    struck: u32,
    calls: Vec<Verb>,
}

#[derive(Clone)]
pub(super) struct Chaos {
    store: S3Service,
    plan: Arc<Mutex<Plan>>,
}

impl Chaos {
    pub(super) fn new(store: S3Service) -> Self {
        let plan = Arc::default();
        Self { store, plan }
    }

    /// The next `times` requests of that verb fail.
    pub(super) fn strike(&self, verb: Verb, fault: Fault, times: u32) {
        let mut plan = self.plan.lock().unwrap();
        plan.fault = Some((verb, fault));
        plan.left = times;
        plan.struck = 0;
        plan.calls.clear();
    }

    pub(super) fn calm(&self) {
        self.plan.lock().unwrap().left = 0;
    }

    /// How many requests failed since the last [`Chaos::strike`].
    pub(super) fn struck(&self) -> u32 {
        self.plan.lock().unwrap().struck
    }

    /// How many requests of that verb came since then.
    pub(super) fn calls(&self, verb: Verb) -> usize {
        let plan = self.plan.lock().unwrap();
        plan.calls.iter().filter(|call| **call == verb).count()
    }

    fn fault(&self, verb: Verb) -> Option<Fault> {
        let mut plan = self.plan.lock().unwrap();
        plan.calls.push(verb);
        match plan.fault {
            Some((at, fault)) if at == verb && plan.left > 0 => {
                plan.left -= 1;
                plan.struck += 1;
                Some(fault)
            }
            _ => None,
        }
    }

    async fn answer(self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let head = request.method() == Method::HEAD;
        let fault = self.fault(verb(&request));
        match fault {
            Some(Fault::ErrorBefore) => {
                return Ok(error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"));
            }
            Some(Fault::SlowDown) => {
                return Ok(error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"));
            }
            Some(Fault::ResetBefore) => return Err(io::Error::other("reset")),
            Some(Fault::StallBefore) => return stalled().await,
            _ => {}
        }
        let request = match fault {
            Some(Fault::FlipRequest) => {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
                Request::from_parts(parts, s3s::Body::from(flipped(&body)))
            }
            _ => request.map(s3s::Body::from),
        };
        let answer = self.store.call(request).await.map_err(io::Error::other)?;
        let (mut parts, body) = answer.into_parts();
        match fault {
            Some(Fault::ErrorAfter) => {
                return Ok(error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"));
            }
            Some(Fault::ResetAfter) => return Err(io::Error::other("reset")),
            Some(Fault::StallAfter) => return stalled().await,
            // An answer to HEAD has no body to harm.
            _ if head || fault.is_none() => {
                let body = body.map_err(io::Error::other).boxed_unsync();
                return Ok(Response::from_parts(parts, body));
            }
            _ => {}
        }
        let whole = BodyExt::collect(body)
            .await
            .map_err(io::Error::other)?
            .to_bytes();
        let half = whole.slice(..whole.len() / 2);
        let body = match fault {
            Some(Fault::CutFramed) => {
                parts.headers.insert("content-length", half.len().into());
                pieces(vec![Ok(half)])
            }
            Some(Fault::CutShort) => {
                parts.headers.insert("content-length", whole.len().into());
                let half = stream::iter([Ok(Frame::data(half))]);
                let reset = stream::once(async {
                    // Headers and half are sent first.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    Err(io::Error::other("reset"))
                });
                StreamBody::new(half.chain(reset)).boxed_unsync()
            }
            Some(Fault::StallBody) => {
                parts.headers.insert("content-length", whole.len().into());
                let half = stream::iter([Ok(Frame::data(half))]);
                StreamBody::new(half.chain(stream::pending())).boxed_unsync()
            }
            Some(Fault::FlipAnswer) => pieces(vec![Ok(flipped(&whole))]),
            _ => pieces(vec![Ok(whole)]),
        };
        Ok(Response::from_parts(parts, body))
    }
}

impl Service<Request<Incoming>> for Chaos {
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Response<Body>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}

fn verb<B>(request: &Request<B>) -> Verb {
    let query = request.uri().query().unwrap_or_default();
    let asks = |name: &str| {
        query
            .split('&')
            .any(|pair| pair.split('=').next() == Some(name))
    };
    let in_bucket = request.uri().path().trim_matches('/').contains('/');
    match (request.method(), in_bucket) {
        (&Method::PUT, true) if asks("partNumber") => Verb::Part,
        (&Method::PUT, true) => Verb::Put,
        (&Method::POST, true) if asks("uploads") => Verb::Begin,
        (&Method::POST, true) => Verb::Complete,
        (&Method::POST, false) if asks("delete") => Verb::DeleteMany,
        (&Method::DELETE, true) if asks("uploadId") => Verb::Abort,
        (&Method::DELETE, true) => Verb::Delete,
        (&Method::HEAD, true) => Verb::Head,
        (&Method::GET, true) => Verb::Get,
        (&Method::GET, false) if asks("uploads") => Verb::ListUploads,
        (&Method::GET, false) => Verb::List,
        _ => Verb::Other,
    }
}

fn error(status: StatusCode, code: &str) -> Response<Body> {
    let xml = format!("<Error><Code>{code}</Code><Message>chaos</Message></Error>");
    let mut response = Response::new(pieces(vec![Ok(Bytes::from(xml))]));
    *response.status_mut() = status;
    response
}

async fn stalled() -> io::Result<Response<Body>> {
    tokio::time::sleep(Duration::from_mins(1)).await;
    Err(io::Error::other("stalled"))
}

fn pieces(pieces: Vec<io::Result<Bytes>>) -> Body {
    let frames = pieces.into_iter().map(|piece| piece.map(Frame::data));
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

fn flipped(body: &[u8]) -> Bytes {
    let mut body = body.to_vec();
    let middle = body.len() / 2;
    if let Some(byte) = body.get_mut(middle) {
        *byte ^= 1;
    }
    body.into()
}
