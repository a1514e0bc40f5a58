//! `Idempotency-Key` (partnership-api.md, "Idempotency"). Every handler that changes something
//! answers through [`once`]: the effect commits together with its key, the answer is kept right
//! after, and a second request with the key gets the first answer again. [`see_through`] stands
//! before the handlers, so that the answer is kept although nobody waits for it any more.

use std::panic::resume_unwind;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cp_domain::{
    Begun, ControlPlane, DomainResult, Effect, IdempotentRequest, PartnerCaller, StoredAnswer,
    fingerprint,
};
use cp_model::{FieldError, field};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde::Serialize;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use utoipa::IntoParams;

use crate::places::Place;
use crate::problem::{Form, Problem};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// For the document: the header of every POST and DELETE.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
pub struct IdempotencyParam {
    /// Makes the request safe to repeat for 24 hours: the same key with the same body gets the
    /// first answer again, with the header `Idempotent-Replayed: true`.
    #[param(
        rename = "Idempotency-Key",
        required = false,
        min_length = 1,
        max_length = 255,
        pattern = "^[ -~]+$",
        nullable = false
    )]
    idempotency_key: Option<String>,
}

/// Runs a request with a key to its end, also when its caller hangs up. Dropped half-way it would
/// leave its key taken and no answer under it: retries would be told `request_in_progress` for as
/// long as a first request may run.
pub async fn see_through(request: Request, next: Next) -> Response {
    if !request.headers().contains_key(KEY) {
        return next.run(request).await;
    }
    // Of `serve`, which waits for it before the process ends.
    let work = request.extensions().get::<TaskTracker>().cloned();
    let place = request.extensions().get::<Place>().cloned();
    let running = async move {
        let response = next.run(request).await;
        drop(place);
        response
    };
    let running = work.unwrap_or_default().spawn(running.in_current_span());
    running
        .await
        .unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime is going down.
            Err(_) => Problem::unavailable().into_response(),
        })
}

/// The key of this request, if it has one, with what it is tied to.
pub struct IdempotencyKey(Option<(String, Method, Uri)>);

impl IdempotencyKey {
    pub fn with_body(self, body: &[u8]) -> Option<IdempotentRequest> {
        self.0.map(|(key, method, uri)| IdempotentRequest {
            key,
            fingerprint: fingerprint(method.as_str(), uri.path(), body),
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut given = parts.headers.get_all(KEY).iter();
        let Some(value) = given.next() else {
            return Ok(Self(None));
        };
        if given.next().is_some() {
            return Err(FieldError::new("Idempotency-Key", "must be given only once").into());
        }
        // Bytes that are not UTF-8 fail the rule on printable ASCII like any other.
        let text = std::str::from_utf8(value.as_bytes()).unwrap_or_default();
        let key = field::idempotency_key("Idempotency-Key", text)?;
        Ok(Self(Some((key, parts.method.clone(), parts.uri.clone()))))
    }
}

/// An answer before it is sent, as it is kept.
pub struct Answer {
    status: StatusCode,
    body: Vec<u8>,
}

impl Answer {
    pub fn json(status: StatusCode, body: &impl Serialize) -> Result<Self, Problem> {
        let body =
            serde_json::to_vec(body).map_err(|error| Problem::internal(error.to_string()))?;
        Ok(Self { status, body })
    }

    pub fn ok(body: &impl Serialize) -> Result<Self, Problem> {
        Self::json(StatusCode::OK, body)
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        (self.status, [(CONTENT_TYPE, json)], Body::from(self.body)).into_response()
    }
}

/// Runs `effect` unless its key says that it has run, and answers with what `build` makes of it.
/// `effect` is a future that has not begun: where the key was used before it is dropped unpolled.
pub async fn once<Build, Building>(
    control_plane: &ControlPlane,
    by: &PartnerCaller,
    key: Option<&IdempotentRequest>,
    effect: impl Future<Output = DomainResult<Effect>>,
    build: Build,
) -> Result<Response, Problem>
where
    Build: FnOnce(Effect) -> Building,
    Building: Future<Output = Result<Answer, Problem>>,
{
    let Some(key) = key else {
        return Ok(build(effect.await?).await?.into_response());
    };
    let effect = match control_plane.begin_idempotent(&by.partner.id, key).await? {
        Begun::Replay(stored) => return Ok(replay(stored)),
        Begun::Resume(effect) => Ok(effect),
        Begun::Fresh => effect.await,
    };
    let took_effect = effect.is_ok();
    let outcome = match effect {
        Ok(effect) => build(effect).await,
        Err(error) => Err(error.into()),
    };
    keep(control_plane, by, key, took_effect, &outcome).await;
    outcome.map(IntoResponse::into_response)
}

/// Like [`once`], for what changes nothing of ours: there is no effect that a key could commit
/// with, so two first requests at once may both be answered anew.
pub async fn once_without_effect(
    control_plane: &ControlPlane,
    by: &PartnerCaller,
    key: Option<&IdempotentRequest>,
    answer: impl Future<Output = Result<Answer, Problem>>,
) -> Result<Response, Problem> {
    let Some(key) = key else {
        return answer.await.map(IntoResponse::into_response);
    };
    if let Begun::Replay(stored) = control_plane.begin_idempotent(&by.partner.id, key).await? {
        return Ok(replay(stored));
    }
    let outcome = answer.await;
    keep(control_plane, by, key, false, &outcome).await;
    outcome.map(IntoResponse::into_response)
}

fn replay(stored: StoredAnswer) -> Response {
    let answer = Answer {
        status: StatusCode::from_u16(stored.status).unwrap_or(StatusCode::OK),
        body: stored.body,
    };
    let mut response = answer.into_response();
    response
        .headers_mut()
        .insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// Keeps what a second request shall get. The effect is committed already, so a failure here is
/// no failure of the request: the next one with the key builds its answer from the effect.
async fn keep(
    control_plane: &ControlPlane,
    by: &PartnerCaller,
    key: &IdempotentRequest,
    took_effect: bool,
    outcome: &Result<Answer, Problem>,
) {
    let refusal;
    let (status, body) = match outcome {
        Ok(answer) => (answer.status, &answer.body),
        Err(problem) if problem.is_final() => {
            refusal = problem.body(Form::Partnership, &by.caller.request_id);
            (problem.status, &refusal)
        }
        Err(_) => return,
    };
    if let Err(error) = control_plane
        .keep_answer(&by.partner.id, key, took_effect, status.as_u16(), body)
        .await
    {
        tracing::warn!(%error, "an answer could not be kept under its idempotency key");
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    async fn key_of(headers: &[(&str, &[u8])], path: &str) -> Result<IdempotencyKey, Problem> {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        IdempotencyKey::from_request_parts(&mut parts, &()).await
    }

    #[tokio::test]
    async fn a_key_is_tied_to_path_and_body() {
        let given: &[(&str, &[u8])] = &[("Idempotency-Key", b"k 1")];
        let of = async |path, body: &[u8]| {
            let key = key_of(given, path).await.ok().unwrap();
            key.with_body(body).unwrap()
        };
        let first = of("/a", b"{}").await;
        assert_eq!(first.key, "k 1");
        assert_eq!(first.fingerprint, of("/a", b"{}").await.fingerprint);
        assert_ne!(first.fingerprint, of("/b", b"{}").await.fingerprint);
        assert_ne!(first.fingerprint, of("/a", b"{ }").await.fingerprint);
    }

    #[tokio::test]
    async fn keys_that_are_not_printable_ascii_are_refused() {
        let long = [b'x'; 256];
        let bad: [&[u8]; 4] = [b"", b"a\tb", "ü".as_bytes(), &long];
        for value in bad {
            let refused = key_of(&[("Idempotency-Key", value)], "/").await;
            assert_eq!(refused.err().unwrap().status, StatusCode::BAD_REQUEST);
        }
        let twice: &[(&str, &[u8])] = &[("Idempotency-Key", b"a"), ("Idempotency-Key", b"b")];
        assert!(key_of(twice, "/").await.is_err());
        let none = key_of(&[], "/").await.ok().unwrap();
        assert!(none.with_body(b"").is_none());
    }

    #[test]
    fn a_replay_says_so() {
        let response = replay(StoredAnswer {
            status: 202,
            body: b"{}".to_vec(),
        });
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        assert_eq!(response.headers()[REPLAYED], "true");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    }
}
