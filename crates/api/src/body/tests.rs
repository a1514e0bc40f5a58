use axum::body::Body;
use cp_model::RequestId;
use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::problem::Form;

#[derive(Deserialize, Default)]
struct Order {
    name: String,
    #[serde(default)]
    count: Option<u32>,
    #[serde(default)]
    nested: Option<Nested>,
}

#[derive(Deserialize, Default)]
struct Nested {
    #[allow(dead_code, reason = "only its type matters")]
    wait: bool,
}

impl RequestBody for Order {}

#[derive(Deserialize, Default)]
struct Options {
    #[serde(default)]
    wait: bool,
}

impl RequestBody for Options {
    fn when_absent() -> Option<Self> {
        Some(Self::default())
    }
}

fn request(content_type: Option<&str>, body: impl Into<Body>) -> Request {
    let mut request = Request::post("/");
    if let Some(kind) = content_type {
        request = request.header(CONTENT_TYPE, kind);
    }
    request.body(body.into()).unwrap()
}

async fn order(content_type: Option<&str>, body: impl Into<Body>) -> Result<Order, Problem> {
    JsonBody::from_request(request(content_type, body), &())
        .await
        .map(|body| body.value)
}

async fn refused(body: &str) -> String {
    let problem = order(Some("application/json"), body.to_owned())
        .await
        .err()
        .expect("refused");
    assert_eq!(problem.status, StatusCode::BAD_REQUEST);
    message(&problem)
}

fn message(problem: &Problem) -> String {
    let id = RequestId::generate();
    let body: Value = serde_json::from_slice(&problem.body(Form::Partnership, &id)).unwrap();
    body["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_good_body_is_read_and_unknown_fields_are_ignored() {
    let body = r#" {"name":"shop","count":3,"colour":{"deep":[1]}} "#;
    let read = order(Some("application/json; charset=utf-8"), body)
        .await
        .ok()
        .unwrap();
    assert_eq!((read.name.as_str(), read.count), ("shop", Some(3)));
    assert!(read.nested.is_none());
}

#[tokio::test]
async fn refusals_name_the_field_and_the_rule() {
    assert_eq!(refused(r#"{"name":5}"#).await, "name must be a string");
    assert_eq!(refused("{}").await, "name is required");
    assert_eq!(
        refused(r#"{"name":"a","nested":{"wait":"yes"}}"#).await,
        "nested.wait must be a boolean"
    );
    assert_eq!(
        refused(r#"{"name":"a","nested":{}}"#).await,
        "nested.wait is required"
    );
    assert_eq!(
        refused(r#"{"name":"a","name":"b"}"#).await,
        "name must be given only once"
    );
    assert_eq!(
        refused(r#"{"name":"a","count":-1}"#).await,
        "count must be a whole number of 0 or more"
    );
    assert_eq!(refused(r#"["a",1]"#).await, "body must be a JSON object");
    assert_eq!(refused("null").await, "body must be a JSON object");
    assert_eq!(refused("").await, "body must be a JSON object, is empty");
}

#[tokio::test]
async fn malformed_json_is_answered_with_its_position() {
    let message = refused("{\"name\":\n \"a\",}").await;
    assert_eq!(message, "body is not valid JSON: see line 2, column 6");
    for bad in [
        "{",
        "{\"name\":\"a\"} x",
        "\u{feff}{}",
        "{\"name\":\"\\ud800\"}",
        "name",
    ] {
        let message = refused(bad).await;
        assert!(
            message.starts_with("body is not valid JSON"),
            "{bad}: {message}"
        );
    }
}

#[tokio::test]
async fn a_secret_in_a_wrong_place_is_not_repeated() {
    let message = refused(r#"{"name":"a","count":"hunter2"}"#).await;
    assert!(!message.contains("hunter2"), "{message}");
}

#[tokio::test]
async fn only_json_is_taken() {
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
    ] {
        let problem = order(kind, r#"{"name":"a"}"#).await.err().unwrap();
        assert_eq!(problem.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
}

#[tokio::test]
async fn an_absent_body_is_fine_where_all_is_optional() {
    for (kind, body) in [
        (None, ""),
        (Some("application/json"), ""),
        (Some("application/json"), " null\n"),
        (Some("application/json"), "{}"),
    ] {
        let read = JsonBody::<Options>::from_request(request(kind, body), &()).await;
        assert!(!read.ok().unwrap().value.wait, "{body:?}");
    }
    let read = JsonBody::<Options>::from_request(request(None, "null"), &()).await;
    let problem = read.err().unwrap();
    assert_eq!(problem.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_given_up() {
    let stream = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let problem = order(Some("application/json"), Body::from_stream(stream))
        .await
        .err()
        .unwrap();
    assert_eq!(message(&problem), "body must arrive within 10 seconds");
}

#[tokio::test]
async fn a_body_in_chunks_is_limited_too() {
    let chunks = futures::stream::iter((0..65).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024])));
    let problem = order(Some("application/json"), Body::from_stream(chunks))
        .await
        .err()
        .unwrap();
    assert_eq!(problem.status, StatusCode::PAYLOAD_TOO_LARGE);

    let chunks = futures::stream::iter((0..64).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024])));
    let problem = order(Some("application/json"), Body::from_stream(chunks))
        .await
        .err()
        .unwrap();
    assert_eq!(problem.status, StatusCode::BAD_REQUEST, "64 KiB are read");
}

proptest! {
    #[test]
    fn no_bytes_are_answered_with_anything_but_a_value_or_a_400(raw: Vec<u8>) {
        if let Err(problem) = parse::<Order>(&raw) {
            prop_assert_eq!(problem.status, StatusCode::BAD_REQUEST);
        }
    }
}

#[tokio::test]
async fn a_number_where_an_enums_text_belongs_is_told_by_its_field() {
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum State {
        Idle,
    }
    #[derive(Deserialize)]
    struct Report {
        state: State,
    }
    impl RequestBody for Report {}

    let read = async |body: &'static str| {
        let request = request(Some("application/json"), body);
        JsonBody::<Report>::from_request(request, &()).await
    };
    assert!(matches!(
        read(r#"{"state":"idle"}"#)
            .await
            .map(|body| body.value.state),
        Ok(State::Idle)
    ));
    let problem = read(r#"{"state":1}"#).await.err().expect("refused");
    assert_eq!(
        message(&problem),
        "state has a value that is not valid here"
    );
    let problem = read(r#"{"state":1"#).await.err().expect("refused");
    assert!(message(&problem).starts_with("body is not valid JSON"));
}
