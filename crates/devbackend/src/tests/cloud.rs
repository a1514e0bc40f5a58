//! Tokens of the control plane: each row of the contract's table in 2.3.

use serde_json::{Value, json};

use super::harness::{CloudKey, ControlPlane, claims_with, good_claims, hs256, with_world};

const EXCHANGE: &str = "/api/auth/admin/sessions/exchange";

#[tokio::test]
async fn the_exchange_answers_as_the_contract_says() {
    with_world(async |mut world| {
        let cloud = ControlPlane::start().await;
        let (rsa, ec) = (CloudKey::rs256("k1"), CloudKey::es256("k2"));
        cloud.publish(&rsa);
        cloud.publish(&ec);
        let backend = world.set("CLOUD_API_HOST", &cloud.url).start().await;
        let exchange = async |code: Value| {
            backend
                .send("POST", EXCHANGE, &[], Some(json!({ "code": code })))
                .await
        };

        for good in [
            rsa.sign(&good_claims()),
            ec.sign(&good_claims()),
            rsa.sign(&claims_with("exp", Value::Null)),
        ] {
            let answer = exchange(json!(good)).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(answer.body["admin"]["sub"], "cloud:user-1");
        }

        let now = chrono::Utc::now().timestamp();
        let mismatch = (403, "AUTH_UNAUTHORIZED", "Project ID mismatch");
        let invalid = |text: &'static str| (401, "AUTH_INVALID_CREDENTIALS", text);
        let not_admin = invalid("Invalid cloud project authorization token");
        let rows = [
            (
                rsa.sign(&claims_with("projectId", json!("other"))),
                mismatch,
            ),
            (rsa.sign(&claims_with("projectId", Value::Null)), mismatch),
            (
                rsa.sign(&claims_with("exp", json!(now - 1))),
                invalid("exp"),
            ),
            (
                rsa.sign(&claims_with("nbf", json!(now + 60))),
                invalid("nbf"),
            ),
            (rsa.sign(&claims_with("type", json!("other"))), not_admin),
            (rsa.sign(&claims_with("type", Value::Null)), not_admin),
            (rsa.sign(&claims_with("userId", Value::Null)), not_admin),
            (rsa.sign(&claims_with("userId", json!(" "))), not_admin),
            (rsa.sign(&claims_with("userId", json!(7))), not_admin),
            (
                CloudKey::rs256("unknown").sign(&good_claims()),
                invalid("no applicable key"),
            ),
            (
                CloudKey::rs256("k1").sign(&good_claims()),
                invalid("signature"),
            ),
            // The key's type does not fit the algorithm.
            (
                CloudKey::es256("k1").sign(&good_claims()),
                invalid("no applicable key"),
            ),
            (hs256(&good_claims()), invalid("alg")),
            ("not.a.jwt".to_owned(), invalid("Invalid")),
            ("nothing".to_owned(), invalid("Invalid")),
        ];
        for (token, (status, code, text)) in rows {
            let answer = exchange(json!(token)).await;
            assert_eq!(answer.error(), (status, code), "{}", answer.body);
            let message = answer.body["message"].as_str().unwrap();
            assert!(message.contains(text), "{message} lacks {text}");
        }

        let answer = backend.send("POST", EXCHANGE, &[], Some(json!({}))).await;
        assert_eq!(answer.error(), (400, "INVALID_INPUT"));
        assert_eq!(answer.body["message"], "code: Required");
        // One fetch for all of it: unknown key ids refetch only after the cooldown.
        assert_eq!(cloud.fetches(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_unreachable_or_unconfigured_control_plane_opens_nothing() {
    with_world(async |mut world| {
        let token = CloudKey::rs256("k1").sign(&good_claims());
        let body = json!({ "code": token });
        let backend = world.start().await;
        let answer = backend
            .send("POST", EXCHANGE, &[], Some(body.clone()))
            .await;
        assert_eq!(answer.error(), (401, "AUTH_INVALID_CREDENTIALS"));
        let message = answer.body["message"].as_str().unwrap();
        assert!(message.ends_with("fetch failed"), "{message}");

        let backend = world.set("PROJECT_ID", "").start().await;
        let answer = backend.send("POST", EXCHANGE, &[], Some(body)).await;
        assert_eq!(answer.error(), (500, "INTERNAL_ERROR"));
    })
    .await;
}

#[tokio::test]
async fn a_session_reads_refreshes_and_is_who_it_was() {
    with_world(async |mut world| {
        let cloud = ControlPlane::start().await;
        let key = CloudKey::rs256("k1");
        cloud.publish(&key);
        let backend = world.set("CLOUD_API_HOST", &cloud.url).start().await;
        let code = key.sign(&good_claims());
        let session = backend
            .send("POST", EXCHANGE, &[], Some(json!({ "code": code })))
            .await;
        let access = session.body["accessToken"].as_str().unwrap();
        let csrf = session.body["csrfToken"].as_str().unwrap();
        let cookie = session.headers["set-cookie"].to_str().unwrap();
        for attribute in [
            "HttpOnly",
            "Secure",
            "SameSite=None",
            "Path=/api/auth/admin",
        ] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        let cookie = cookie.split(';').next().unwrap();

        let current = "/api/auth/admin/sessions/current";
        let answer = backend.get_with_token(current, access).await;
        assert_eq!(answer.body, json!({"admin": {"sub": "cloud:user-1"}}));
        assert_eq!(backend.get_with_token(current, &code).await.status, 401);
        assert_eq!(
            backend.get_with_token("/api/metadata", access).await.status,
            200
        );
        assert_eq!(
            backend.get_with_token("/api/metadata", &code).await.status,
            200
        );

        let refresh = "/api/auth/admin/refresh";
        let answer = backend.send("POST", refresh, &[], None).await;
        assert_eq!(answer.status, 401);
        let answer = backend
            .send("POST", refresh, &[("cookie", cookie)], None)
            .await;
        assert_eq!(answer.status, 403);
        let headers = [("cookie", cookie), ("x-csrf-token", csrf)];
        let answer = backend.send("POST", refresh, &headers, None).await;
        assert_eq!(answer.body["admin"]["sub"], "cloud:user-1");
        // The refresh token itself opens no admin route.
        let token = cookie.split_once('=').unwrap().1;
        assert_eq!(
            backend.get_with_token("/api/metadata", token).await.status,
            401
        );
    })
    .await;
}
