//! `Idempotency-Key`: a request that is sent again takes effect once (partnership-api.md).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cp_domain::{Caller, IdempotentRequest, PartnerCaller, ProjectRequest, fingerprint};
use cp_model::{InstanceType, Region, RequestId};
use cp_tests::{Answer, App, AppOptions, MovingClock, PartnerClient};
use reqwest::Method;
use serde_json::{Value, json};

async fn send(by: &PartnerClient, method: Method, path: &str, key: &str, body: &Value) -> Answer {
    let request = by
        .request(method, path)
        .header("Idempotency-Key", key)
        .json(body);
    Answer::to(request).await
}

async fn post(by: &PartnerClient, path: &str, key: &str, body: &Value) -> Answer {
    send(by, Method::POST, path, key, body).await
}

#[track_caller]
fn assert_replay(again: &Answer, first: &Answer) {
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.status, first.status);
    assert_eq!(again.text, first.text, "byte for byte");
    assert_eq!(again.header("content-type"), first.header("content-type"));
    assert_eq!(first.header("idempotent-replayed"), None);
}

#[tokio::test]
async fn the_first_answer_comes_again_for_every_verb() {
    let app = App::start().await;
    let partner = app.partner().await;
    let user = partner.connect_user("ada@example.com").await;
    let id = partner.create_active_project("target").await;
    let wait = json!({ "wait_for_completion": true });
    let calls = [
        (
            Method::POST,
            "/connect-user".to_owned(),
            json!({ "name": "Bob", "email": "bob@example.com" }),
        ),
        (
            Method::POST,
            format!("/{user}/sync-project"),
            json!({ "project_name": "shop" }),
        ),
        (
            Method::POST,
            "/sync-embedded-project".into(),
            json!({ "project_name": "shop" }),
        ),
        (Method::POST, format!("/{id}/authorization"), json!({})),
        (Method::POST, format!("/{id}/restart"), wait.clone()),
        (
            Method::POST,
            format!("/{id}/upgrade"),
            json!({ "instance_type": "small", "wait_for_completion": true }),
        ),
        (Method::POST, format!("/{id}/pause"), wait.clone()),
        (Method::POST, format!("/{id}/restore"), wait),
        (Method::DELETE, format!("/{id}"), json!({})),
    ];
    let mut firsts = Vec::new();
    for (number, (method, path, body)) in calls.iter().enumerate() {
        let key = format!("key {number}");
        let first = send(&partner, method.clone(), path, &key, body).await;
        assert_eq!(first.status, 200, "{path}: {}", first.text);
        let again = send(&partner, method.clone(), path, &key, body).await;
        assert_replay(&again, &first);
        firsts.push((key, first));
    }
    // Also after everything has changed.
    let rows = app.database.count("operations").await;
    for ((method, path, body), (key, first)) in calls.iter().zip(&firsts) {
        let again = send(&partner, method.clone(), path, key, body).await;
        assert_replay(&again, first);
    }
    assert_eq!(app.database.count("operations").await, rows);
    assert_eq!(app.database.count("projects").await, 3);
}

#[tokio::test]
async fn a_key_belongs_to_one_request_of_one_partner() {
    let app = App::start().await;
    let (partner, other) = (app.partner().await, app.partner().await);
    let id = partner.create_active_project("target").await;
    let body = json!({ "project_name": "shop" });
    let first = post(&partner, "/sync-embedded-project", "k", &body).await;
    for (method, path, body) in [
        (
            Method::POST,
            "/sync-embedded-project".to_owned(),
            json!({ "project_name": "shop 2" }),
        ),
        (Method::POST, format!("/{id}/pause"), body.clone()),
        (Method::DELETE, format!("/{id}"), body.clone()),
        (Method::POST, format!("/{id}/authorization"), body.clone()),
    ] {
        let refused = send(&partner, method, &path, "k", &body).await;
        assert_eq!(refused.header("idempotent-replayed"), None, "{path}");
        refused.expect_code(409, "idempotency_key_reused");
    }
    // The first answer is still there.
    let again = post(&partner, "/sync-embedded-project", "k", &body).await;
    assert_replay(&again, &first);
    // Another partner has its own keys.
    let theirs = post(&other, "/sync-embedded-project", "k", &body).await;
    assert_eq!(theirs.header("idempotent-replayed"), None);
    assert_ne!(
        theirs.expect(200)["project"]["id"],
        first.body["project"]["id"]
    );
    assert_eq!(app.database.count("projects").await, 3);
}

#[tokio::test]
async fn a_key_is_kept_for_24_hours() {
    let clock = MovingClock::new();
    let app = App::start_with(AppOptions {
        clock: clock.clone(),
        worker: false,
        create_wait: Duration::ZERO,
        ..AppOptions::default()
    })
    .await;
    let partner = app.partner().await;
    let body = json!({ "project_name": "shop" });
    let sync = async || post(&partner, "/sync-embedded-project", "k", &body).await;
    let first = sync().await;
    clock.advance(chrono::TimeDelta::hours(24) - chrono::TimeDelta::minutes(1));
    assert_replay(&sync().await, &first);
    clock.advance(chrono::TimeDelta::minutes(2));
    let anew = sync().await;
    assert_eq!(anew.header("idempotent-replayed"), None);
    assert_ne!(anew.body["project"]["id"], first.body["project"]["id"]);
    assert_replay(&sync().await, &anew);
    assert_eq!(app.database.count("projects").await, 2);
}

#[tokio::test]
async fn of_requests_at_once_one_takes_effect() {
    let app = App::start().await;
    let second = app.start_second_api().await;
    let partner = app.partner().await;
    let body = json!({ "project_name": "shop" });
    let requests = (0..20).map(|number| {
        let by = if number % 2 == 0 {
            partner.clone()
        } else {
            partner.through(&second)
        };
        let body = body.clone();
        async move { post(&by, "/sync-embedded-project", "k", &body).await }
    });
    let answers = futures::future::join_all(requests).await;
    let mut ids = BTreeMap::<String, usize>::new();
    for answer in answers {
        if answer.status == 200 {
            let id = answer.body["project"]["id"].as_str().unwrap().to_owned();
            *ids.entry(id).or_default() += 1;
        } else {
            answer.expect_code(409, "request_in_progress");
        }
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(app.database.count("projects").await, 1);
    let later = post(&partner, "/sync-embedded-project", "k", &body).await;
    assert_eq!(later.header("idempotent-replayed"), Some("true"));
}

#[tokio::test]
async fn refusals_come_again_too() {
    let app = App::start().await;
    let partner = app.partner().await;
    let user = partner.connect_user("ada@example.com").await;
    let id = partner.create_active_project("target").await;
    let nobody = uuid::Uuid::now_v7();
    let missing = post(&partner, &format!("/{nobody}/pause"), "404", &json!({})).await;
    assert_eq!(missing.status, 404);
    let again = post(&partner, &format!("/{nobody}/pause"), "404", &json!({})).await;
    assert_replay(&again, &missing);

    for name in ["one", "two"] {
        partner.sync_project(&user, name).await.expect(200);
    }
    let path = format!("/{user}/sync-project");
    let third = json!({ "project_name": "three" });
    let full = post(&partner, &path, "403", &third).await;
    assert_eq!(full.status, 403);
    assert_replay(&post(&partner, &path, "403", &third).await, &full);

    partner.pause(&id).await.expect(200);
    let path = format!("/{id}/authorization");
    let paused = post(&partner, &path, "409", &json!({})).await;
    assert_eq!(paused.status, 409);
    partner.restore(&id).await.expect(200);
    assert_replay(&post(&partner, &path, "409", &json!({})).await, &paused);
    post(&partner, &path, "new", &json!({})).await.expect(200);
}

#[tokio::test]
async fn a_refused_secret_leaves_the_key_free() {
    let app = App::start().await;
    let partner = app.partner().await;
    let body = json!({ "project_name": "shop" });
    let wrong = partner.with_secret("ifps_wrong");
    let refused = post(&wrong, "/sync-embedded-project", "k", &body).await;
    refused.expect_code(401, "unauthorized");
    let done = post(&partner, "/sync-embedded-project", "k", &body).await;
    assert_eq!(done.header("idempotent-replayed"), None);
    done.expect(200);
}

/// As the HTTP interface would call the domain, but the process dies before it answers.
async fn take_effect_only(app: &App, by: &PartnerClient, key: &str, body: &[u8]) -> String {
    let partners = app.control_plane.list_partners().await.unwrap();
    let partner = partners.into_iter().find(|p| p.id == by.partner_id());
    let caller = PartnerCaller {
        partner: Arc::new(partner.unwrap()),
        caller: Caller {
            request_id: RequestId::generate(),
            address: None,
        },
    };
    let request = ProjectRequest {
        name: "shop".into(),
        region: Region::DEFAULT,
        instance_type: InstanceType::DEFAULT,
        external_id: None,
        metadata: None,
    };
    let path = format!("/partnership/v1/{}/sync-embedded-project", by.id);
    let key = IdempotentRequest {
        key: key.to_owned(),
        fingerprint: fingerprint("POST", &path, body),
    };
    let effect = app
        .control_plane
        .sync_embedded_project(&caller, &request, Some(&key))
        .await
        .unwrap();
    match effect {
        cp_domain::Effect::Project(id) => id.to_string(),
        other => panic!("a project was made, not {other:?}"),
    }
}

#[tokio::test]
async fn an_effect_whose_process_died_is_answered_and_not_repeated() {
    let clock = MovingClock::new();
    let app = App::start_with(AppOptions {
        clock: clock.clone(),
        ..AppOptions::default()
    })
    .await;
    let partner = app.partner().await;
    let body = json!({ "project_name": "shop" });
    let bytes = serde_json::to_vec(&body).unwrap();
    let made = take_effect_only(&app, &partner, "k", &bytes).await;

    let sync = async || post(&partner, "/sync-embedded-project", "k", &body).await;
    sync().await.expect_code(409, "request_in_progress");
    let other = json!({ "project_name": "other" });
    let reused = post(&partner, "/sync-embedded-project", "k", &other).await;
    reused.expect_code(409, "idempotency_key_reused");

    clock.advance(chrono::TimeDelta::minutes(2));
    let resumed = sync().await;
    assert_eq!(resumed.header("idempotent-replayed"), None);
    assert_eq!(resumed.status, 200, "{}", resumed.text);
    assert_eq!(resumed.body["project"]["id"], json!(made));
    assert_eq!(resumed.body["project"]["status"], "active");
    assert_replay(&sync().await, &resumed);
    assert_eq!(app.database.count("projects").await, 1);
}

#[tokio::test]
async fn a_refusal_never_becomes_the_answer_of_a_request_that_took_effect() {
    let app = App::start().await;
    let partner = app.partner().await;
    let body = json!({ "project_name": "shop" });
    let bytes = serde_json::to_vec(&body).unwrap();
    // Two requests with one key: the one took effect while the other was being refused.
    take_effect_only(&app, &partner, "k", &bytes).await;
    let loser = IdempotentRequest {
        key: "k".into(),
        fingerprint: fingerprint("POST", "/elsewhere", b"{}"),
    };
    app.control_plane
        .keep_answer(&partner.partner_id(), &loser, false, 404, b"{}")
        .await
        .unwrap();
    let again = post(&partner, "/sync-embedded-project", "k", &body).await;
    again.expect_code(409, "request_in_progress");
}

#[tokio::test]
async fn stored_answers_are_sealed() {
    let app = App::start().await;
    let partner = app.partner().await;
    let body = json!({ "project_name": "shop" });
    let made = post(&partner, "/sync-embedded-project", "k", &body).await;
    let made = made.expect(200)["project"].clone();
    let key = made["api_key"].as_str().unwrap();
    let path = format!("/{}/authorization", made["id"].as_str().unwrap());
    let code = post(&partner, &path, "k2", &json!({})).await.expect(200)["code"].clone();

    let mut conn = app.database.connect().await;
    let rows: Vec<String> = sqlx::query_scalar(
        "select k::text || coalesce(encode(k.body_sealed, 'escape'), '') from idempotency_keys k",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        for secret in [key, "ik_", code.as_str().unwrap(), "eyJ", "access_host"] {
            assert!(!row.contains(secret), "{secret} is in {row}");
        }
    }
}
