//! Request bodies: read once as bytes, because an idempotency key is tied to them, then read as
//! strict JSON. What is refused names the field and the rule.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use serde_json::error::Category;

use crate::problem::Problem;

/// The largest body of any request (design.md, "Errors").
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// How long a body may take to arrive. Without a bound, a few thousand callers that send a byte a
/// minute would take all places in flight.
const ARRIVAL: Duration = Duration::from_secs(10);

/// A JSON request body.
pub trait RequestBody: DeserializeOwned {
    /// How long it may take to arrive; less where anybody may send it.
    const ARRIVAL: Duration = ARRIVAL;
    /// More only where batches are sent.
    const MAX_BYTES: usize = MAX_BODY_BYTES;

    /// What an absent body means; none: the body is required.
    fn when_absent() -> Option<Self> {
        None
    }
}

/// A body read as JSON, with the bytes that it was read from.
pub struct JsonBody<T> {
    pub value: T,
    pub raw: Bytes,
}

impl<S: Send + Sync, T: RequestBody> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let raw = read(&parts.headers, body, T::MAX_BYTES, T::ARRIVAL).await?;
        if !raw.is_empty() {
            check_content_type(&parts.headers)?;
        }
        // Some clients send `null` for a body that they leave out.
        let absent = matches!(raw.trim_ascii(), b"" | b"null");
        let value = match T::when_absent().filter(|_| absent) {
            Some(value) => value,
            None if raw.is_empty() => {
                let message = "body must be a JSON object, is empty";
                return Err(Problem::invalid_input(message));
            }
            None => parse(&raw)?,
        };
        Ok(Self { value, raw })
    }
}

/// A body whose content does not matter, as of a DELETE.
pub struct IgnoredBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for IgnoredBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        read(&parts.headers, body, MAX_BODY_BYTES, ARRIVAL)
            .await
            .map(Self)
    }
}

/// At most `most` bytes, whether the length was announced or comes in chunks.
pub async fn read(
    headers: &HeaderMap,
    body: Body,
    most: usize,
    within: Duration,
) -> Result<Bytes, Problem> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok());
    if announced.is_some_and(|length| length > most as u64) {
        return Err(too_large(most));
    }
    let reading = Limited::new(body, most).collect();
    match tokio::time::timeout(within, reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(most)),
        Ok(Err(_)) => Err(Problem::invalid_input("body could not be read to its end")),
        Err(_) => Err(Problem::invalid_input(format!(
            "body must arrive within {} seconds",
            within.as_secs()
        ))),
    }
}

fn too_large(most: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "payload_too_large",
        format!(
            "The body is larger than the {} KiB that are allowed.",
            most / 1024
        ),
    )
}

/// Whether the body is announced as `kind`, with or without parameters.
pub fn is_of_type(headers: &HeaderMap, kind: &str) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case(kind))
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    if is_of_type(headers, "application/json") {
        Ok(())
    } else {
        Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "Send the body as JSON, with the header Content-Type: application/json.",
        ))
    }
}

fn parse<T: DeserializeOwned>(raw: &[u8]) -> Result<T, Problem> {
    // serde reads structs from arrays too, field by field: not an interface that we mean to have.
    // Malformed input goes on, to be answered with its position.
    let first = raw.iter().find(|byte| !byte.is_ascii_whitespace());
    let is_no_object = first.is_some_and(|byte| *byte != b'{');
    if is_no_object && serde_json::from_slice::<IgnoredAny>(raw).is_ok() {
        return Err(Problem::invalid_input("body must be a JSON object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(raw);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        // serde_json calls a number where an enum's text belongs a syntax error.
        if error.inner().is_syntax() && serde_json::from_slice::<Value>(raw).is_ok() {
            return Problem::invalid_input(format!("{path} has a value that is not valid here"));
        }
        refusal(&path, error.inner())
    })?;
    reader.end().map_err(|error| refusal(".", &error))?;
    Ok(value)
}

/// Says what serde_json found wrong, without repeating the value: it may be a secret.
fn refusal(path: &str, error: &serde_json::Error) -> Problem {
    if error.classify() != Category::Data {
        let (line, column) = (error.line(), error.column());
        return Problem::invalid_input(format!(
            "body is not valid JSON: see line {line}, column {column}"
        ));
    }
    let text = error.to_string();
    let reason = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(reason, _)| reason);
    let field = if path == "." { "body" } else { path };
    if let Some(missing) = quoted_after(reason, "missing field ") {
        let whole = if path == "." {
            missing.to_owned()
        } else {
            format!("{path}.{missing}")
        };
        return Problem::invalid_input(format!("{whole} is required"));
    }
    if let Some(twice) = quoted_after(reason, "duplicate field ") {
        return Problem::invalid_input(format!("{twice} must be given only once"));
    }
    match reason.rsplit_once(", expected ") {
        Some(_) if path == "." => Problem::invalid_input("body must be a JSON object"),
        Some((_, expected)) => {
            // serde names types of ours.
            let expected = match expected {
                "i32" | "i64" => "a whole number",
                "u32" | "u64" => "a whole number of 0 or more",
                other => other,
            };
            Problem::invalid_input(format!("{field} must be {expected}"))
        }
        None => Problem::invalid_input(format!("{field} has a value that is not valid here")),
    }
}

fn quoted_after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.strip_prefix(prefix).map(|rest| rest.trim_matches('`'))
}

#[cfg(test)]
mod tests;
