//! Requests that are too large, ambiguous, or not what they seem.

use cp_tests::{Answer, RelyingParty};
use serde_json::{Value, json};

use crate::stage::{
    AUTHORIZE, Stage, TOKEN, assert_is_error_page, form, installation, refused, wire,
};

async fn raw(by: &RelyingParty, path: &str, kind: &str, body: impl Into<reqwest::Body>) -> Answer {
    Answer::to(
        wire()
            .post(format!("{}{path}", by.base_url))
            .header("content-type", kind)
            .body(body),
    )
    .await
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

fn pairs(by: &RelyingParty, code: &str) -> Vec<(&'static str, String)> {
    let mut pairs = vec![
        ("grant_type", "authorization_code".to_owned()),
        ("code", code.to_owned()),
        ("redirect_uri", by.redirect_uri.clone()),
        ("code_verifier", by.code_verifier.clone()),
        ("client_id", by.client_id.clone()),
    ];
    pairs.extend(
        by.client_secret
            .clone()
            .map(|secret| ("client_secret", secret)),
    );
    pairs
}

fn encoded(pairs: &[(&str, String)]) -> String {
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (*n, v.as_str())).collect();
    form(&pairs)
}

#[tokio::test]
async fn a_parameter_given_twice_gets_no_code() {
    // RFC 6749 section 3.1: must not be included more than once. RFC 6819 section 4.1: confusion.
    let stage = Stage::new().await;
    stage.code().await;
    let url = stage.notes.authorize_url();
    for (name, value) in stage.notes.authorize_params() {
        for again in [value.as_str(), "other", ""] {
            let url = format!("{url}&{}", form(&[(name, again)]));
            let page = stage.ada.visitor.open(&url).await;
            assert_eq!(page.param("code"), None, "{name}={again}: {}", page.url);
            if matches!(name, "client_id" | "redirect_uri") {
                assert_is_error_page(&page, name);
            } else {
                assert!(
                    page.is_elsewhere || page.status == 400,
                    "{name}: {}",
                    page.url
                );
            }
            if page.is_elsewhere {
                assert_eq!(
                    page.param("error").as_deref(),
                    Some("invalid_request"),
                    "{name}"
                );
            }
        }
    }
    // The name spelled in another way is the same name.
    let page = stage
        .ada
        .visitor
        .open(&format!(
            "{url}&%72edirect_uri=https%3A%2F%2Fevil.example%2F"
        ))
        .await;
    assert_is_error_page(&page, "an encoded name");
}

#[tokio::test]
async fn a_token_parameter_given_twice_is_refused_in_a_form() {
    // RFC 6749 section 3.2.
    let stage = Stage::new().await;
    let code = stage.code().await;
    let good = pairs(&stage.notes, &code);
    for (name, value) in &good {
        for again in [value.as_str(), "other", ""] {
            let mut twice = good.clone();
            twice.push((name, again.to_owned()));
            let answer = raw(&stage.notes, TOKEN, FORM, encoded(&twice)).await;
            refused(answer, 400, "invalid_request");
        }
    }
    raw(&stage.notes, TOKEN, FORM, encoded(&good))
        .await
        .expect(200);
}

#[tokio::test]
async fn a_token_parameter_given_twice_is_refused_in_json() {
    // RFC 6749 section 3.2, RFC 8259 section 4: names that are not unique are read differently.
    let stage = Stage::new().await;
    let code = stage.code().await;
    let good = pairs(&stage.notes, &code);
    let members: Vec<String> = good
        .iter()
        .map(|(n, v)| format!("{}:{}", json!(n), json!(v)))
        .collect();
    for (name, value) in &good {
        for again in [json!(value), json!("other"), Value::Null] {
            let body = format!("{{{},{}:{again}}}", members.join(","), json!(name));
            refused(
                raw(&stage.notes, TOKEN, JSON, body).await,
                400,
                "invalid_request",
            );
        }
    }
    raw(
        &stage.notes,
        TOKEN,
        JSON,
        format!("{{{}}}", members.join(",")),
    )
    .await
    .expect(200);
}

#[tokio::test]
async fn parameters_of_other_types_are_refused() {
    // RFC 6749 section 5.2: a text is a text; no arrays, no objects, no numbers.
    let stage = Stage::new().await;
    let code = stage.code().await;
    let good = pairs(&stage.notes, &code);
    for (name, _) in &good {
        for value in [
            json!(1),
            json!(true),
            json!([code]),
            json!({"$ne": ""}),
            json!([]),
        ] {
            let mut body: serde_json::Map<String, Value> = good
                .iter()
                .map(|(n, v)| ((*n).to_owned(), json!(v)))
                .collect();
            body.insert((*name).into(), value);
            let answer = raw(&stage.notes, TOKEN, JSON, Value::Object(body).to_string()).await;
            refused(answer, 400, "invalid_request");
        }
    }
    for body in [
        "",
        "null",
        "[]",
        "\"x\"",
        "{",
        "{\"a\":",
        "\u{feff}{}",
        "{}{}",
    ] {
        refused(
            raw(&stage.notes, TOKEN, JSON, body).await,
            400,
            "invalid_request",
        );
    }
    for (kind, body) in [
        ("text/plain", encoded(&good)),
        ("multipart/form-data; boundary=x", "--x--".into()),
        ("application/xml", "<x/>".into()),
    ] {
        let answer = raw(&stage.notes, TOKEN, kind, body).await;
        assert!(
            matches!(answer.status, 400 | 415),
            "{kind}: {}",
            answer.text
        );
        assert_eq!(answer.body["error"], "invalid_request");
    }
    stage.notes.exchange(&code).await.expect(200);
}

#[tokio::test]
async fn endless_parameters_are_refused() {
    // RFC 6819 section 4.4.1.11 (exhaustion): bounded before they are looked at.
    let stage = Stage::new().await;
    let code = stage.code().await;
    let long = "x".repeat(4097);
    for name in [
        "grant_type",
        "code",
        "redirect_uri",
        "code_verifier",
        "client_id",
        "client_secret",
    ] {
        let mut pairs = pairs(&stage.notes, &code);
        pairs
            .iter_mut()
            .find(|(known, _)| *known == name)
            .unwrap()
            .1
            .clone_from(&long);
        refused(
            raw(&stage.notes, TOKEN, FORM, encoded(&pairs)).await,
            400,
            "invalid_request",
        );
    }
    let huge = "x".repeat(80 * 1024);
    for kind in [FORM, JSON] {
        let answer = raw(&stage.notes, TOKEN, kind, format!("code={huge}")).await;
        assert_eq!(answer.status, 413, "{}", answer.text);
        assert_eq!(answer.body["error"], "invalid_request");
    }
    let many: Vec<String> = (0..20_000).map(|n| format!("{n}=")).collect();
    let answer = raw(&stage.notes, TOKEN, FORM, many.join("&")).await;
    assert!(matches!(answer.status, 400 | 413), "{}", answer.status);
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let answer = raw(&stage.notes, TOKEN, JSON, format!("{{\"x\":{deep}}}")).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    stage.notes.exchange(&code).await.expect(200);
}

#[tokio::test]
async fn endless_authorization_requests_are_refused() {
    // RFC 6819 section 4.4.1.11: on a page, and never a broken redirect.
    let stage = Stage::new().await;
    for name in [
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "code_challenge",
        "prompt",
        "unknown",
    ] {
        for length in [3000, 7000, 20_000, 60_000] {
            let long = "x".repeat(length);
            let page = stage.look(&[(name, &long)]).await;
            assert!(
                matches!(page.status, 200 | 303 | 400 | 414 | 431),
                "{name} of {length}: {}",
                page.status
            );
            if let Some(location) = page.header("location") {
                assert!(
                    location.starts_with(&stage.notes.redirect_uri) || location.starts_with('/'),
                    "{name}"
                );
                assert!(
                    location.len() < 16 * 1024,
                    "{name} of {length}: {}",
                    location.len()
                );
                assert!(!location.contains("code="), "{name}");
            }
        }
    }
    stage.code().await;
}

#[tokio::test]
async fn the_state_comes_back_as_it_was_or_not_at_all() {
    // RFC 6749 sections 4.1.2 and A.5; CWE-113: line breaks make no headers.
    let mut stage = Stage::new().await;
    stage.code().await;
    for (state, is_good) in [
        ("a b", true),
        ("a+b%20c&d=e", true),
        ("\"<script>alert(1)</script>'", true),
        ("{\"json\":[1,2]}", true),
        ("#fragment?query=/../", true),
        ("%0d%0aSet-Cookie: x=y", true),
        ("\\u0000 \\r\\n", true),
        ("x\r\nSet-Cookie: evil=1", false),
        ("x\nLocation: https://evil.example", false),
        ("x\rx", false),
        ("x\0y", false),
        ("\u{2028}", false),
        ("caf\u{e9}", false),
    ] {
        stage.notes.state = state.into();
        let url = stage.notes.authorize_url();
        let page = stage.ada.visitor.open(&url).await;
        assert!(
            page.header("set-cookie")
                .is_none_or(|c| !c.contains("evil")),
            "{state:?}"
        );
        if is_good {
            assert!(page.is_elsewhere, "{state:?}: {}", page.html);
            assert!(page.param("code").is_some(), "{state:?}: {}", page.url);
        }
        if page.is_elsewhere {
            assert!(
                page.url
                    .as_str()
                    .starts_with("https://app.example/callback?"),
                "{}",
                page.url
            );
            let back = page.param("state");
            assert!(
                back.is_none() || back.as_deref() == Some(state),
                "{state:?}: {back:?}"
            );
            assert!(!is_good || back.is_some(), "{state:?}");
            assert_eq!(page.url.fragment(), None, "{state:?}");
        } else {
            assert_eq!(page.status, 400, "{state:?}");
        }
    }
}

#[tokio::test]
async fn a_state_is_carried_through_signing_in() {
    // RFC 6749 section 4.1.2: exactly, also over the login page, where it is encoded twice.
    let mut stage = Stage::new().await;
    stage.notes.state = "a b+c%2Bd&e=f#g\"'<>\\".into();
    let visitor = stage.app.visitor();
    let page = visitor.open(&stage.notes.authorize_url()).await;
    assert_eq!(page.url.path(), "/login");
    let to = [
        ("email", stage.ada.email.as_str()),
        ("password", &stage.ada.password),
    ];
    let page = visitor.submit(&page, "/login", &to).await;
    let page = visitor.press(&page, "/consent", "Allow", &[]).await;
    assert_eq!(
        page.param("state"),
        Some(stage.notes.state.clone()),
        "{}",
        page.url
    );
}

#[tokio::test]
async fn a_missing_state_is_refused() {
    // The public document requires it; RFC 9700 section 4.7.1.
    let stage = Stage::new().await;
    let page = stage
        .ada
        .visitor
        .open(&stage.notes.authorize_url_with(&[("state", "")]))
        .await;
    assert!(page.is_elsewhere, "{}", page.html);
    assert_eq!(page.param("error").as_deref(), Some("invalid_request"));
    assert_eq!(page.param("state"), None);
    assert_eq!(page.param("code"), None);
}

#[tokio::test]
async fn bytes_that_are_no_text_are_refused() {
    // RFC 6749 appendix B: UTF-8; CWE-158: U+0000.
    let stage = Stage::new().await;
    for query in [
        "state=%ff",
        "scope=%c3%28",
        "client_id=%00",
        "redirect_uri=%ed%a0%80",
        "%ff=x",
    ] {
        let page = stage
            .ada
            .visitor
            .look(&format!("{AUTHORIZE}?{query}"))
            .await;
        assert_is_error_page(&page, query);
    }
    for body in ["code=%ff", "code=%00", "client_id=%c3%28&grant_type=x"] {
        let answer = raw(&stage.notes, TOKEN, FORM, body).await;
        assert!(
            matches!(answer.status, 400 | 401),
            "{body}: {}",
            answer.text
        );
    }
    let answer = raw(
        &stage.notes,
        TOKEN,
        JSON,
        vec![b'{', b'"', 0xff, b'"', b'}'],
    )
    .await;
    refused(answer, 400, "invalid_request");
    for (path, body) in [
        (
            "/auth/v1/login",
            json!({"email": "ada\u{0}@example.com", "password": "x\u{0}"}),
        ),
        (
            "/auth/v1/signup",
            json!({"name": "a\u{0}", "email": "eve@example.com", "password": "a long and new one\u{0}"}),
        ),
    ] {
        let answer = crate::stage::json_call(&stage.app, path, &body).await;
        assert!(
            matches!(answer.status, 400 | 401),
            "{path}: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn endpoints_take_their_own_method_only() {
    // RFC 6749 section 3.2: POST, so that secrets are in no URL.
    let stage = Stage::new().await;
    let base = &stage.app.base_url;
    for path in [
        TOKEN,
        "/api/oauth/v1/revoke",
        "/api/oauth/v1/introspect",
        "/api/oauth/v1/device_authorization",
    ] {
        let answer = Answer::to(wire().get(format!("{base}{path}"))).await;
        assert_eq!(answer.status, 405, "{path}");
        assert_eq!(answer.body["error"], "invalid_request", "{path}");
        let answer = Answer::to(wire().put(format!("{base}{path}")).body("{}")).await;
        assert_eq!(answer.status, 405, "{path}");
    }
    for path in [
        "/auth/v1/login",
        "/auth/v1/signup",
        "/auth/v1/refresh",
        "/auth/v1/logout",
    ] {
        let answer = Answer::to(wire().get(format!("{base}{path}?email=a&password=b"))).await;
        assert_eq!(answer.status, 405, "{path}");
    }
    let answer = Answer::to(wire().get(format!("{base}/api/oauth/v1/nowhere"))).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.body["error"], "invalid_request");
}

#[tokio::test]
async fn errors_hold_only_the_characters_of_the_rfc() {
    // RFC 6749 section 5.2: %x20-21 / %x23-5B / %x5D-7E; nor do they repeat what was sent.
    let (app, _) = installation().await;
    let notes = app.relying_party().await;
    let nasty = "hunter2\u{1f4a5}\"\\<script>";
    for body in [
        json!({"grant_type": nasty}),
        json!({"grant_type": "authorization_code", "code": nasty, "client_id": nasty}),
        json!({"grant_type": "refresh_token", "refresh_token": nasty, "client_id": notes.client_id, "client_secret": nasty}),
        json!({"grant_type": nasty, "client_id": notes.client_id, "client_secret": notes.client_secret}),
        json!({"grant_type": "refresh_token", "client_id": notes.client_id, "client_secret": notes.client_secret, "refresh_token": "irt_x", "scope": nasty}),
    ] {
        let answer = notes.post(TOKEN, &body).await;
        assert!(matches!(answer.status, 400 | 401), "{}", answer.text);
        let description = answer.body["error_description"].as_str().unwrap();
        assert!(
            description
                .chars()
                .all(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\')),
            "{description}"
        );
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    }
}
