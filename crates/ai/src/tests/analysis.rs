use std::time::Duration;

use secrecy::SecretString;
use serde_json::json;

use super::KEY;
use super::server::{Say, Server};
use crate::{AiError, Analyst, AnalystConfig};

fn config(url: &str) -> AnalystConfig {
    AnalystConfig {
        url: url.parse().unwrap(),
        api_key: Some(SecretString::from(KEY)),
        model: "some/model".into(),
        max_tokens: 7,
        time_limit: Duration::from_secs(1),
    }
}

fn analyst(server: &Server) -> Analyst {
    let url = format!("{}/v1/chat/completions", server.url);
    Analyst::new(config(&url)).ok().unwrap()
}

/// All of the answer's text, and how it ended.
async fn heard(says: impl Fn() -> Say + Send + Sync + 'static) -> (String, Option<AiError>) {
    let server = Server::start(move |_| says()).await;
    let mut text = String::new();
    let mut answer = match analyst(&server).ask("be short", "why?").await {
        Ok(answer) => answer,
        Err(error) => return (text, Some(error)),
    };
    loop {
        match answer.next().await {
            Ok(Some(more)) => text += &more,
            Ok(None) => return (text, None),
            Err(error) => return (text, Some(error)),
        }
    }
}

fn delta(text: &str) -> String {
    let chunk =
        json!({ "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] });
    format!("data: {chunk}\n\n")
}

const FINISH: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\n";

#[tokio::test]
async fn a_question_is_asked_as_the_documents_say() {
    let server = Server::start(|_| Say::Text(200, "data: [DONE]\n".into())).await;
    let mut answer = analyst(&server).ask("be short", "why?").await.ok().unwrap();
    assert!(answer.next().await.unwrap().is_none());
    let asked = server.asked().remove(0);
    assert_eq!(asked.call, "POST /v1/chat/completions");
    assert_eq!(asked.authorization.unwrap(), format!("Bearer {KEY}"));
    let messages =
        json!([{ "role": "system", "content": "be short" }, { "role": "user", "content": "why?" }]);
    let body =
        json!({ "model": "some/model", "messages": messages, "max_tokens": 7, "stream": true });
    assert_eq!(asked.body, body);
}

#[tokio::test]
async fn an_answer_ends_when_the_endpoint_says_so() {
    let role = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    let comment = ": OPENROUTER PROCESSING\n\nevent: x\n";
    let usage = "data: {\"choices\":[],\"usage\":{\"total_tokens\":3}}\n\n";
    let whole = [
        comment,
        role,
        &delta("It is "),
        &delta("slów.\n"),
        FINISH,
        usage,
    ]
    .concat();
    let done = format!("{whole}data: [DONE]\n\n");
    for text in [whole, done] {
        let (heard, error) = heard(move || Say::Text(200, text.clone())).await;
        assert_eq!(heard, "It is slów.\n");
        assert!(error.is_none(), "{error:?}");
    }
}

#[tokio::test]
async fn what_fails_is_told_apart() {
    let broken_off = delta("It is ");
    let (text, error) = heard(move || Say::Text(200, broken_off.clone())).await;
    assert_eq!(text, "It is ");
    assert!(
        matches!(error, Some(AiError::Unavailable { .. })),
        "{error:?}"
    );

    let failure = format!("data: {{\"error\":{{\"message\":\"no more of {KEY}\"}}}}\n\n");
    let midway = delta("It ") + &failure;
    let (text, error) = heard(move || Say::Text(200, midway.clone())).await;
    assert_eq!(text, "It ");
    let error = error.unwrap().to_string();
    assert!(
        error.contains("no more of") && !error.contains(KEY),
        "{error}"
    );

    let (_, error) = heard(|| Say::Text(200, "data: <html>\n".into())).await;
    assert!(matches!(error, Some(AiError::Unexpected(_))), "{error:?}");
    let (_, error) = heard(|| Say::Json(401, json!({ "error": { "message": "no" } }))).await;
    assert!(
        matches!(error, Some(AiError::Refused { status: 401, .. })),
        "{error:?}"
    );
    let (_, error) = heard(|| Say::Hang).await;
    assert!(
        matches!(error, Some(AiError::Unavailable { .. })),
        "{error:?}"
    );
    let (_, error) = heard(|| Say::Text(200, "x".repeat(600 * 1024))).await;
    assert!(matches!(error, Some(AiError::Unexpected(_))), "{error:?}");
    let (_, error) = heard(|| Say::Text(200, delta(&"x".repeat(1000)).repeat(300))).await;
    assert!(matches!(error, Some(AiError::Unexpected(_))), "{error:?}");
}

#[test]
fn a_configuration_that_cannot_work_is_refused_by_field() {
    let good = "https://api.example.com/v1/chat/completions?api-version=1";
    assert!(config(good).check().is_ok());
    let refused = |config: AnalystConfig| config.check().unwrap_err().field;
    assert_eq!(refused(config("http://api.example.com/")), "url");
    let nameless = AnalystConfig {
        model: String::new(),
        ..config(good)
    };
    assert_eq!(refused(nameless), "model");
    let keyless = AnalystConfig {
        api_key: Some(SecretString::from("x y")),
        ..config(good)
    };
    assert_eq!(refused(keyless), "api_key");
}
