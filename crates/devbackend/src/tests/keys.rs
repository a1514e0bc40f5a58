//! Keys: the seeding rule of 1.2, rotation, restarts, foreign encryption keys.

use serde_json::json;

use super::harness::{API_KEY, hs256, with_world};

const PROBE: &str = "/api/metadata/project-id";

#[tokio::test]
async fn the_stored_key_wins_over_the_environment() {
    with_world(async |mut world| {
        let backend = world.start().await;
        assert_eq!(backend.get(PROBE).await.status, 200);
        assert_eq!(
            backend.get("/api/metadata/api-key").await.body["apiKey"],
            API_KEY
        );
        let anon = backend.get("/api/metadata/anon-key").await.body["anonKey"].clone();
        let first_jwks = backend
            .send("GET", "/.well-known/jwks.json", &[], None)
            .await;
        assert_eq!(first_jwks.body["keys"][0]["alg"], "RS256");

        let rotated = backend
            .post(
                "/api/secrets/api-key/rotate",
                json!({"gracePeriodHours": 1}),
            )
            .await;
        let fresh = rotated.body["apiKey"].as_str().unwrap().to_owned();
        assert!(fresh.starts_with("ik_") && fresh != API_KEY);
        assert_eq!(backend.get_with_token(PROBE, &fresh).await.status, 200);
        assert_eq!(backend.get(PROBE).await.status, 200, "within its grace");

        // A restart with another key in the environment changes nothing.
        let restarted = world.set("ACCESS_API_KEY", "ik_other").start().await;
        assert_eq!(restarted.get_with_token(PROBE, &fresh).await.status, 200);
        assert_eq!(
            restarted.get_with_token(PROBE, "ik_other").await.error(),
            (401, "AUTH_INVALID_API_KEY")
        );
        assert_eq!(
            restarted.get("/api/metadata/anon-key").await.body["anonKey"],
            anon
        );
        let jwks = restarted
            .send("GET", "/.well-known/jwks.json", &[], None)
            .await;
        assert_eq!(jwks.body, first_jwks.body);

        // No row, as after a branch's fix-ups: the environment's key is stored.
        restarted
            .superuser_sql("DELETE FROM system.secrets WHERE key LIKE 'API_KEY%'")
            .await;
        assert_eq!(restarted.get_with_token(PROBE, &fresh).await.status, 401);
        let seeded = world.start().await;
        assert_eq!(seeded.get_with_token(PROBE, "ik_other").await.status, 200);
        assert_eq!(seeded.get(PROBE).await.status, 401);
    })
    .await;
}

#[tokio::test]
async fn a_foreign_encryption_key_accepts_no_key_but_serves_health() {
    with_world(async |mut world| {
        // The first start makes the pair after it serves; asking for it waits until it is stored.
        let first = world.start().await;
        let jwks = first.send("GET", "/.well-known/jwks.json", &[], None).await;
        assert_eq!(jwks.body["keys"].as_array().unwrap().len(), 1);
        let backend = world
            .set("ENCRYPTION_KEY", "another-key-of-at-least-32-characters")
            .start()
            .await;
        assert_eq!(backend.get("/api/health").await.status, 200);
        assert_eq!(backend.get(PROBE).await.status, 401);
        let jwks = backend
            .send("GET", "/.well-known/jwks.json", &[], None)
            .await;
        assert_eq!(jwks.body, json!({"keys": []}));
    })
    .await;
}

#[tokio::test]
async fn credentials_are_told_apart() {
    with_world(async |world| {
        let backend = world.start().await;
        let none = backend.send("GET", PROBE, &[], None).await;
        assert_eq!(none.error(), (401, "AUTH_INVALID_CREDENTIALS"));
        let wrong = backend.get_with_token(PROBE, "ik_wrong").await;
        assert_eq!(wrong.error(), (401, "AUTH_INVALID_API_KEY"));
        let anon = backend.get("/api/metadata/anon-key").await.body["anonKey"].clone();
        let anon = backend.get_with_token(PROBE, anon.as_str().unwrap()).await;
        assert_eq!(anon.status, 401);

        let token = |role: &str| hs256(&json!({"sub": "u", "role": role}));
        let user = backend.get_with_token(PROBE, &token("authenticated")).await;
        assert_eq!(user.error(), (403, "AUTH_UNAUTHORIZED"));
        let admin = backend.get_with_token(PROBE, &token("project_admin")).await;
        assert_eq!(admin.status, 200);

        let path = "/api/auth/admin/sessions";
        let login = |password: &str| json!({"username": "admin", "password": password});
        let answer = backend.send("POST", path, &[], Some(login("wrong"))).await;
        assert_eq!(answer.error(), (401, "AUTH_UNAUTHORIZED"));
        let answer = backend
            .send("POST", path, &[], Some(login("correct horse")))
            .await;
        let access = answer.body["accessToken"].as_str().unwrap();
        assert_eq!(backend.get_with_token(PROBE, access).await.status, 200);
    })
    .await;
}
