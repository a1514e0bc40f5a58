use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::server::{Say, Server};
use super::{KEY, config};
use crate::{AiError, OpenRouter, OpenRouterConfig};

async fn against(
    script: impl Fn(&super::server::Asked) -> Say + Send + Sync + 'static,
) -> (Server, OpenRouter) {
    let server = Server::start(script).await;
    let client = OpenRouter::new(&config(&server)).ok().unwrap();
    (server, client)
}

#[tokio::test]
async fn a_key_is_made_as_the_documents_say() {
    let (server, client) = against(|_| {
        let data = json!({ "hash": "abc123", "name": "n", "disabled": false, "limit": 1.5, "limit_remaining": 1.5 });
        Say::Json(201, json!({ "data": data, "key": "sk-or-v1-made-0123456789" }))
    })
    .await;
    let made = client.create_key("insforge p a", 150).await.ok().unwrap();
    assert_eq!(made.hash, "abc123");
    assert_eq!(made.key.expose_secret(), "sk-or-v1-made-0123456789");
    let asked = server.asked().remove(0);
    assert_eq!(asked.call, "POST /api/v1/keys");
    assert_eq!(asked.authorization.unwrap(), format!("Bearer {KEY}"));
    let body = json!({ "name": "insforge p a", "limit": 1.5, "limit_reset": "monthly" });
    assert_eq!(asked.body, body);
}

#[tokio::test]
async fn what_a_failure_means_for_what_was_asked() {
    for (status, body, may_have_happened, named) in [
        (
            401,
            json!({ "error": { "message": "No auth", "code": 401 } }),
            false,
            "401: No auth",
        ),
        (
            402,
            json!({ "error": { "message": "Insufficient credits" } }),
            false,
            "402",
        ),
        (429, json!({}), false, "429"),
        (500, json!({}), true, "500"),
        (502, json!("<html>"), true, "502"),
        (200, json!({ "data": {} }), true, "not understood"),
        // A hash that would lead elsewhere.
        (
            200,
            json!({ "data": { "hash": "../x", "name": "n" }, "key": "sk-or-v1-0123" }),
            true,
            "hash",
        ),
        (302, json!({}), true, "302"),
    ] {
        let (_server, client) = against(move |_| Say::Json(status, body.clone())).await;
        let error = client.create_key("n", 100).await.err().unwrap();
        assert_eq!(error.may_have_happened(), may_have_happened, "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
    // Nobody listens: nothing can have happened.
    let nobody = OpenRouterConfig {
        provisioning_key: SecretString::from(KEY),
        api_base: "http://127.0.0.1:9/api/v1".parse().unwrap(),
    };
    let client = OpenRouter::new(&nobody).ok().unwrap();
    let error = client.create_key("n", 100).await.err().unwrap();
    assert!(!error.may_have_happened(), "{error}");
}

#[tokio::test]
async fn no_error_repeats_a_key() {
    let made = "sk-or-v1-made-9876543210";
    let (_server, client) = against(move |asked| {
        if asked.call.starts_with("POST") {
            Say::Text(
                200,
                format!(r#"{{"key": "{made}", "data": {{"hash": 7}}}}"#),
            )
        } else {
            let error = json!({ "error": { "message": format!("wrong key {KEY}") } });
            Say::Json(403, error)
        }
    })
    .await;
    let error = client.create_key("n", 100).await.err().unwrap();
    assert!(!format!("{error} {error:?}").contains(made), "{error}");
    let error = client.list_keys().await.err().unwrap();
    assert!(error.to_string().contains("[the key]"), "{error}");
    assert!(!format!("{error} {error:?}").contains(KEY), "{error}");
}

#[tokio::test]
async fn the_list_is_read_to_its_end_with_pages_that_overlap() {
    let (server, client) = against(|asked| {
        let offset: usize = asked.call.split_once("offset=").unwrap().1.parse().unwrap();
        let page = (offset..250).take(100);
        let keys =
            page.map(|i| json!({ "hash": format!("h{i}"), "name": format!("n{i}"), "label": "x" }));
        Say::Json(200, json!({ "data": keys.collect::<Vec<_>>() }))
    })
    .await;
    let keys = client.list_keys().await.unwrap();
    assert_eq!(keys.len(), 250);
    let calls: Vec<_> = server.asked().into_iter().map(|asked| asked.call).collect();
    assert_eq!(calls[1], "GET /api/v1/keys?offset=90");
    assert!(calls.len() <= 6, "{calls:?}");
}

#[tokio::test]
async fn what_is_not_there_is_deleted() {
    let (server, client) = against(|asked| match asked.call.as_str() {
        "DELETE /api/v1/keys/gone" => {
            Say::Json(404, json!({ "error": { "message": "not found" } }))
        }
        "DELETE /api/v1/keys/there" => Say::Json(200, json!({ "deleted": true })),
        _ => Say::Json(500, json!({})),
    })
    .await;
    client.delete_key("gone").await.unwrap();
    client.delete_key("there").await.unwrap();
    assert!(client.delete_key("other").await.is_err());
    assert_eq!(server.asked().len(), 3, "nothing is tried again");
}

#[tokio::test]
async fn what_is_left_is_told_soon_or_not() {
    let (_server, client) = against(|asked| match asked.call.as_str() {
        "GET /api/v1/keys/some" => Say::Json(200, json!({ "data": { "limit_remaining": 0.25 } })),
        "GET /api/v1/keys/endless" => {
            Say::Json(200, json!({ "data": { "limit_remaining": null } }))
        }
        _ => Say::Hang,
    })
    .await;
    assert_eq!(client.limit_remaining("some").await.unwrap(), Some(0.25));
    assert_eq!(client.limit_remaining("endless").await.unwrap(), None);
    let begin = std::time::Instant::now();
    let error = client.limit_remaining("slow").await.unwrap_err();
    assert!(matches!(error, AiError::Unavailable { .. }), "{error}");
    assert!(begin.elapsed() < std::time::Duration::from_secs(10));
}

#[test]
fn a_configuration_that_cannot_work_is_refused_by_field() {
    let config = |key: &str, base: &str| OpenRouterConfig {
        provisioning_key: SecretString::from(key),
        api_base: base.parse().unwrap(),
    };
    assert!(config(KEY, OpenRouterConfig::API_BASE).check().is_ok());
    assert!(config(KEY, "http://127.0.0.1:1/api/v1").check().is_ok());
    for (key, base, field) in [
        ("", OpenRouterConfig::API_BASE, "provisioning_key"),
        (
            "sk-or-v1-0123\n",
            OpenRouterConfig::API_BASE,
            "provisioning_key",
        ),
        (KEY, "http://openrouter.example/", "api_base"),
        (KEY, "ftp://openrouter.example/", "api_base"),
        (KEY, "https://a:b@openrouter.example/", "api_base"),
        (KEY, "https://openrouter.example/?x=1", "api_base"),
    ] {
        let error = config(key, base).check().unwrap_err();
        assert_eq!(error.field, field, "{base}");
        assert!(!error.to_string().contains(KEY));
    }
}
