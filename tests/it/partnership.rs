//! The main job: a partner makes, uses, pauses, restores, restarts and deletes a project. Every
//! answer, field by field (contract/partnership-api.md).

use std::time::Duration;

use cp_domain::NewPartner;
use cp_model::ProjectId;
use cp_tests::{Answer, App, AppOptions, MovingClock, PartnerClient, eventually, fields};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Row;
use uuid::Uuid;

/// The document's body of the plan's limit, word for word.
const LIMIT_MESSAGE: &str =
    "Free plan allows up to 2 active projects. Please upgrade your plan to create more projects.";

/// Answers at once, so that what is in flight can be seen in flight.
fn impatient() -> AppOptions {
    AppOptions {
        create_wait: Duration::from_millis(50),
        completion_wait: Duration::from_millis(300),
        ..AppOptions::default()
    }
}

fn id_of(object: &Value) -> String {
    let id = object["id"].as_str().expect("an id");
    Uuid::parse_str(id).expect("ids are UUIDs");
    id.to_owned()
}

fn project_id(id: &str) -> ProjectId {
    ProjectId(Uuid::parse_str(id).expect("ids are UUIDs"))
}

async fn partner_of_model(app: &App, co_branded: bool, white_label: bool) -> PartnerClient {
    app.partner_with(NewPartner {
        name: "Acme".into(),
        co_branded,
        white_label,
        rate_limit: 1_000_000,
        trusted: false,
    })
    .await
}

#[tokio::test]
async fn an_embedded_project_lives_its_whole_life() {
    let app = App::start().await;
    let partner = app.partner().await;
    let project = partner.create_active_project("shop").await;

    let seen = partner.metadata(&project).await.expect(200)["project"].clone();
    assert_eq!(seen["status"], "active");
    assert_eq!(seen["region"], "us-east");
    assert_eq!(seen["instance_type"], "nano");
    assert!(seen["api_key"].as_str().unwrap().starts_with("ik_"));
    assert!(seen["access_host"].as_str().unwrap().starts_with("http://"));

    assert_eq!(
        partner.pause(&project).await.expect(200),
        json!({ "project": { "id": project, "status": "paused" } })
    );
    assert_eq!(
        partner.restore(&project).await.expect(200),
        json!({ "project": { "id": project, "status": "active" } })
    );
    partner.restart(&project).await.expect(200);
    assert_eq!(
        partner.metadata(&project).await.expect(200)["project"]["status"],
        "active"
    );

    let deleted = partner.delete_project(&project).await.expect(200);
    assert_eq!(deleted["message"], "Project deleted successfully");
    partner
        .metadata(&project)
        .await
        .expect_code(404, "project_not_found");
    app.settle().await;
    assert!(
        app.sim.alive().is_empty(),
        "machines are left: {:?}",
        app.sim.alive()
    );
}

#[tokio::test]
async fn connect_user_is_an_upsert_by_email_whose_answer_never_tells_which() {
    let app = App::start().await;
    let (ours, other) = (app.partner().await, app.partner().await);
    let connect = async |partner: &PartnerClient, name: &str, email: &str| {
        let body = json!({ "name": name, "email": email });
        partner.post("/connect-user", &body).await.expect(200)
    };
    let first = connect(&ours, " John Doe ", "John@Example.com").await;
    let id = id_of(&first["account"]);
    assert_eq!(first, json!({ "account": { "id": id } }));
    assert_eq!(connect(&ours, "Johnny", "john@EXAMPLE.com").await, first);
    assert_eq!(connect(&other, "J. Doe", "john@example.com").await, first);

    let mut conn = app.database.connect().await;
    let user = sqlx::query(
        "select u.name, u.password_hash is null and u.email_verified_at is null as bare, o.kind, o.plan
         from users u join organization_members m on m.user_id = u.id join organizations o on o.id = m.organization_id",
    )
    .fetch_one(&mut conn)
    .await
    .unwrap();
    assert_eq!(user.get::<String, _>("name"), "John Doe");
    assert!(user.get::<bool, _>("bare"), "no password, not verified");
    assert_eq!(user.get::<String, _>("kind"), "personal");
    assert_eq!(user.get::<String, _>("plan"), "free");
    assert_eq!(app.database.count("partner_users").await, 2);
}

#[tokio::test]
async fn sync_project_makes_a_project_once_per_name() {
    let app = App::start().await;
    let partner = app.partner().await;
    let user = partner.connect_user("ada@example.com").await;
    let first = partner.sync_project(&user, "my-project").await.expect(200);
    assert_eq!(fields(&first), ["project", "success"]);
    assert_eq!(first["success"], true);
    let project = first["project"].clone();
    assert_eq!(
        fields(&project),
        ["access_host", "api_key", "id", "status"],
        "the document's fields, and none besides"
    );
    assert_eq!(project["status"], "active");
    let key = project["api_key"].as_str().unwrap();
    assert_eq!(key.len(), "ik_".len() + 32);
    assert!(
        key.trim_start_matches("ik_")
            .bytes()
            .all(|b| b.is_ascii_hexdigit())
    );

    let again = partner
        .sync_project(&user, "  my-project ")
        .await
        .expect(200);
    assert_eq!(again, first);
    let other = partner.sync_project(&user, "My-Project").await.expect(200);
    assert_ne!(other["project"]["id"], project["id"]);

    let id = id_of(&project);
    let metadata = partner.get(&format!("/{user}/{id}/metadata")).await;
    assert_eq!(metadata.expect(200), json!({ "project": project }));
    let listed = partner.get("/projects").await.expect(200);
    assert_eq!(listed["projects"][0]["name"], "my-project");
    assert_eq!(listed["projects"][0]["user_id"], json!(user));
}

#[tokio::test]
async fn only_connected_users_have_projects() {
    let app = App::start().await;
    let (ours, other) = (app.partner().await, app.partner().await);
    let stranger = other.connect_user("ada@example.com").await;
    ours.sync_project(&stranger, "shop")
        .await
        .expect_code(404, "user_not_found");
    ours.sync_project(&Uuid::now_v7().to_string(), "shop")
        .await
        .expect_code(404, "user_not_found");
    assert_eq!(app.database.count("projects").await, 0);
}

#[tokio::test]
async fn at_the_plans_limit_the_candidates_are_offered() {
    let app = App::start().await;
    let partner = app.partner().await;
    let user = partner.connect_user("ada@example.com").await;
    // An embedded project is the partner's own: it neither counts nor shows.
    partner.create_active_project("embedded").await;
    let one = partner.sync_project(&user, "one").await.expect(200)["project"].clone();
    let two = partner.sync_project(&user, "two").await.expect(200)["project"].clone();

    let refused = partner
        .sync_project(&user, "three")
        .await
        .expect_code(403, "project_limit_reached");
    assert_eq!(
        fields(&refused),
        [
            "candidate_projects",
            "code",
            "message",
            "requestId",
            "success"
        ]
    );
    assert_eq!(refused["success"], false);
    assert_eq!(refused["message"], LIMIT_MESSAGE);
    assert_eq!(refused["candidate_projects"], json!([two, one]));

    // A sync of what is there makes nothing, so no limit speaks against it.
    let again = partner.sync_project(&user, "one").await.expect(200);
    assert_eq!(again["project"], one);
    // A place that is given back can be taken.
    let gone = id_of(&two);
    partner.delete_project(&gone).await.expect(200);
    let third = partner.sync_project(&user, "three").await.expect(200);
    assert_eq!(third["success"], true);
}

#[tokio::test]
async fn a_paused_project_gives_its_place_away_and_needs_one_to_come_back() {
    let app = App::start().await;
    let partner = app.partner().await;
    let user = partner.connect_user("ada@example.com").await;
    partner.sync_project(&user, "one").await.expect(200);
    let two = partner.sync_project(&user, "two").await.expect(200);
    let two = id_of(&two["project"]);
    partner.pause(&two).await.expect(200);
    let three = partner.sync_project(&user, "three").await.expect(200);
    let refused = partner.restore(&two).await;
    let refused = refused.expect_code(403, "project_limit_reached");
    assert_eq!(refused["message"], LIMIT_MESSAGE);
    assert_eq!(
        partner.metadata(&two).await.expect(200)["project"]["status"],
        "paused"
    );
    let gone = id_of(&three["project"]);
    partner.delete_project(&gone).await.expect(200);
    let restored = partner.restore(&two).await.expect(200);
    assert_eq!(restored["project"]["status"], "active");
}

#[tokio::test]
async fn a_strangers_projects_show_without_their_keys_until_they_are_shared() {
    let app = App::start().await;
    let (maker, ours) = (app.partner().await, app.partner().await);
    let trusted = app
        .partner_with(NewPartner {
            name: "Trusted".into(),
            co_branded: true,
            white_label: true,
            rate_limit: 1_000,
            trusted: true,
        })
        .await;
    let user = maker.connect_user("ada@example.com").await;
    let one = maker.sync_project(&user, "one").await.expect(200)["project"].clone();
    let two = maker.sync_project(&user, "two").await.expect(200)["project"].clone();
    let hidden = |project: &Value| {
        json!({
            "id": project["id"], "access_host": null, "api_key": null,
            "status": "active", "shareable": true
        })
    };
    ours.connect_user("ada@example.com").await;
    let candidates = async |partner: &PartnerClient| {
        partner
            .sync_project(&user, "mine")
            .await
            .expect_code(403, "project_limit_reached")["candidate_projects"]
            .clone()
    };
    assert_eq!(candidates(&ours).await, json!([hidden(&two), hidden(&one)]));
    let path = format!("/{user}/{}/metadata", id_of(&one));
    let seen = ours.get(&path).await.expect(200);
    assert_eq!(seen, json!({ "project": hidden(&one) }));
    // Seeing that it is there gives no right over it.
    ours.metadata(&id_of(&one))
        .await
        .expect_code(404, "project_not_found");
    ours.delete_project(&id_of(&one))
        .await
        .expect_code(404, "project_not_found");

    app.control_plane
        .share_project(project_id(&id_of(&one)), &ours.partner_id())
        .await
        .unwrap();
    assert_eq!(
        ours.get(&path).await.expect(200),
        json!({ "project": one.clone() })
    );
    assert_eq!(
        candidates(&ours).await,
        json!([hidden(&two), one.clone()]),
        "only what was shared"
    );

    trusted.connect_user("ada@example.com").await;
    assert_eq!(candidates(&trusted).await, json!([two, one]));
}

#[tokio::test]
async fn an_external_id_makes_the_call_a_sync_and_metadata_comes_back() {
    let app = App::start().await;
    let (partner, other) = (app.partner().await, app.partner().await);
    let body = json!({
        "project_name": " shop ", "region": "eu-central", "instance_type": "small",
        "external_id": "customer-4711", "metadata": { "plan": "gold", "seats": [1, 2.5, null] }
    });
    let first = partner.post("/sync-embedded-project", &body).await;
    let first = first.expect(200);
    assert_eq!(fields(&first), ["project", "success"]);
    assert_eq!(
        fields(&first["project"]),
        ["access_host", "api_key", "id", "status"]
    );
    let renamed = json!({ "project_name": "renamed", "external_id": "customer-4711" });
    let again = partner.post("/sync-embedded-project", &renamed).await;
    assert_eq!(again.expect(200), first);
    let elsewhere = other.post("/sync-embedded-project", &body).await;
    assert_ne!(
        elsewhere.expect(200)["project"]["id"],
        first["project"]["id"]
    );

    let id = id_of(&first["project"]);
    let seen = partner.metadata(&id).await.expect(200);
    let project = &seen["project"];
    assert_eq!(
        fields(project),
        [
            "access_host",
            "api_key",
            "external_id",
            "id",
            "instance_type",
            "last_activity_at",
            "metadata",
            "region",
            "status"
        ]
    );
    assert_eq!(project["external_id"], "customer-4711");
    assert_eq!(project["metadata"], body["metadata"]);
    assert_eq!(project["region"], "eu-central");
    assert_eq!(project["instance_type"], "small");
    let activity = project["last_activity_at"].as_str().unwrap();
    assert_eq!(activity.len(), "2025-01-21T10:30:00Z".len(), "{activity}");
    assert!(activity.ends_with('Z'), "{activity}");

    // A deleted project frees its external id.
    partner.delete_project(&id).await.expect(200);
    let anew = partner.post("/sync-embedded-project", &body).await;
    assert_ne!(anew.expect(200)["project"]["id"], first["project"]["id"]);
}

#[tokio::test]
async fn without_an_external_id_each_call_makes_a_project() {
    let app = App::start().await;
    let partner = app.partner().await;
    let one = partner.create_active_project("shop").await;
    let two = partner.create_active_project("shop").await;
    assert_ne!(one, two);
    let seen = partner.metadata(&one).await.expect(200);
    assert_eq!(
        fields(&seen["project"]),
        [
            "access_host",
            "api_key",
            "id",
            "instance_type",
            "last_activity_at",
            "region",
            "status"
        ],
        "the document's fields, and none besides"
    );
}

#[tokio::test]
async fn work_in_flight_is_shown_and_keeps_others_out() {
    let app = App::start_with(AppOptions {
        worker: false,
        ..impatient()
    })
    .await;
    let partner = app.partner().await;
    let made = partner.create_project("shop").await;
    assert_eq!(made["status"], "provisioning");
    assert_eq!(made["access_host"], Value::Null);
    let id = id_of(&made);

    let operation = partner.metadata(&id).await.expect(200)["project"]["operation"].clone();
    assert_eq!(
        operation,
        json!({ "id": id_of(&operation), "kind": "provision", "state": "queued" })
    );
    let path = format!("/operations/{}", id_of(&operation));
    let told = partner.get(&path).await.expect(200)["operation"].clone();
    assert_eq!(
        fields(&told),
        [
            "attempts",
            "created_at",
            "error",
            "finished_at",
            "id",
            "kind",
            "next_attempt_at",
            "progress",
            "project_id",
            "started_at",
            "state",
            "step"
        ]
    );
    assert_eq!(told["project_id"], json!(id));
    assert_eq!(told["kind"], "provision");
    assert_eq!(told["state"], "queued");
    assert_eq!(told["step"], "allocate_machine");
    assert_eq!(told["progress"], 0);
    assert_eq!(told["attempts"], 0);
    assert_eq!(told["error"], Value::Null);

    for verb in ["pause", "restore", "restart", "upgrade"] {
        let body = json!({ "instance_type": "small" });
        let refused = partner.post(&format!("/{id}/{verb}"), &body).await;
        let refused = refused.expect_code(409, "operation_in_progress");
        assert_eq!(
            refused["operation"],
            json!({ "id": operation["id"], "kind": "provision" }),
            "{verb}"
        );
        assert_eq!(
            fields(&refused),
            ["code", "message", "operation", "requestId", "success"]
        );
    }
    partner
        .post(&format!("/{id}/authorization"), &json!({}))
        .await
        .expect_code(409, "project_not_active");
    // Nobody has to wait for it before the project can go.
    partner.delete_project(&id).await.expect(200);
}

#[tokio::test]
async fn verbs_answer_with_the_transitional_status_unless_they_wait() {
    let mut app = App::start_with(AppOptions {
        completion_wait: Duration::from_millis(300),
        ..AppOptions::default()
    })
    .await;
    let partner = app.partner().await;
    let [plain, waited, restarted] = ["plain", "waited", "restarted"];
    let plain = partner.create_active_project(plain).await;
    let waited = partner.create_active_project(waited).await;
    let restarted = partner.create_active_project(restarted).await;
    app.settle().await;
    app.kill_worker();

    let answer = Answer::to(partner.request(Method::POST, &format!("/{plain}/pause"))).await;
    assert_eq!(
        answer.expect(200),
        json!({ "project": { "id": plain, "status": "pausing" } })
    );
    let refused = partner.restore(&plain).await;
    let refused = refused.expect_code(409, "operation_in_progress");
    assert_eq!(refused["operation"]["kind"], "pause");
    let running = app.newest_operation(project_id(&plain)).await;
    assert_eq!(refused["operation"]["id"], json!(running.id.to_string()));

    // Time is up: 202 with the status so far.
    assert_eq!(
        partner.pause(&waited).await.expect(202),
        json!({ "project": { "id": waited, "status": "pausing" } })
    );
    assert_eq!(
        partner.restart(&restarted).await.expect(202),
        json!({
            "message": "Project is restarting", "insforgeOssVersion": null,
            "project": { "id": restarted, "status": "restarting" }
        })
    );

    let _worker = app.start_worker(app.worker_config("second"));
    app.settle().await;
    let restoring = partner
        .post(&format!("/{plain}/restore"), &json!({}))
        .await
        .expect(200);
    assert_eq!(
        restoring,
        json!({ "project": { "id": plain, "status": "restoring" } })
    );
}

#[tokio::test]
async fn a_verb_whose_end_is_there_already_does_nothing() {
    let app = App::start().await;
    let partner = app.partner().await;
    let id = partner.create_active_project("shop").await;
    let operations = app.database.count("operations").await;
    assert_eq!(
        partner.restore(&id).await.expect(200),
        json!({ "project": { "id": id, "status": "active" } })
    );
    assert_eq!(app.database.count("operations").await, operations);

    partner.pause(&id).await.expect(200);
    let operations = app.database.count("operations").await;
    for body in [json!({}), json!({ "wait_for_completion": true })] {
        let again = partner.post(&format!("/{id}/pause"), &body).await;
        assert_eq!(
            again.expect(200),
            json!({ "project": { "id": id, "status": "paused" } })
        );
    }
    assert_eq!(app.database.count("operations").await, operations);
    partner
        .restart(&id)
        .await
        .expect_code(409, "project_wrong_status");
    let refused = partner
        .post(&format!("/{id}/authorization"), &json!({}))
        .await;
    refused.expect_code(409, "project_not_active");
}

#[tokio::test]
async fn a_restart_can_name_the_release() {
    let app = App::start().await;
    let partner = app.partner().await;
    let id = partner.create_active_project("shop").await;
    let body = json!({ "insforge_oss_version": "v2.3.1", "wait_for_completion": true });
    let done = partner.post(&format!("/{id}/restart"), &body).await;
    let restarted = |version: &str| {
        json!({
            "message": "Project restarted successfully", "insforgeOssVersion": version,
            "project": { "id": id, "status": "active" }
        })
    };
    assert_eq!(done.expect(200), restarted("v2.3.1"));
    // It stays with that release until another is named.
    assert_eq!(partner.restart(&id).await.expect(200), restarted("v2.3.1"));
}

/// The claims as a backend reads them.
async fn verified(app: &App, code: &str, audience: &str) -> Value {
    let jwks = app
        .http
        .get(format!("{}/.well-known/jwks.json", app.base_url));
    let jwks = Answer::to(jwks).await.expect(200);
    let header = jsonwebtoken::decode_header(code).unwrap();
    assert_eq!(header.alg, Algorithm::RS256);
    assert_eq!(header.typ.as_deref(), Some("JWT"));
    let kid = header.kid.expect("a kid");
    let key = jwks["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["kid"] == json!(kid))
        .expect("the key is published");
    let key =
        DecodingKey::from_rsa_components(key["n"].as_str().unwrap(), key["e"].as_str().unwrap())
            .unwrap();
    let mut rules = Validation::new(Algorithm::RS256);
    rules.leeway = 0;
    rules.set_issuer(&[&app.base_url]);
    rules.set_audience(&[audience]);
    rules.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
    jsonwebtoken::decode::<Value>(code, &key, &rules)
        .expect("the token verifies")
        .claims
}

#[tokio::test]
async fn an_authorization_verifies_with_the_published_keys() {
    let app = App::start().await;
    let partner = app.partner().await;
    let project = partner.create_project("shop").await;
    let (id, host) = (id_of(&project), project["access_host"].as_str().unwrap());
    // The body is optional, and what is in it does not matter.
    let bare = Answer::to(partner.request(Method::POST, &format!("/{id}/authorization"))).await;
    let answer = bare.expect(200);
    assert_eq!(fields(&answer), ["code", "expires_in", "type"]);
    assert_eq!(answer["expires_in"], 600);
    assert_eq!(answer["type"], "Bearer");
    let code = answer["code"].as_str().unwrap();
    let claims = verified(&app, code, host).await;
    let actor = format!("partner:{}", partner.id);
    assert_eq!(
        fields(&claims),
        [
            "aud",
            "exp",
            "iat",
            "iss",
            "jti",
            "projectId",
            "sub",
            "type",
            "userId"
        ]
    );
    assert_eq!(claims["iss"], json!(app.base_url));
    assert_eq!(claims["aud"], json!(host));
    assert_eq!(claims["projectId"], json!(id));
    assert_eq!(claims["userId"], json!(actor));
    assert_eq!(claims["sub"], json!(actor));
    assert_eq!(claims["type"], "project_authorization");
    let (issued, expires) = (
        claims["iat"].as_i64().unwrap(),
        claims["exp"].as_i64().unwrap(),
    );
    assert_eq!(expires - issued, 600);
    assert!((app.control_plane.clock().now().timestamp() - issued).abs() <= 5);

    let second = partner
        .post(&format!("/{id}/authorization"), &json!({}))
        .await;
    let second = second.expect(200);
    let other = verified(&app, second["code"].as_str().unwrap(), host).await;
    assert_ne!(claims["jti"], other["jti"], "each token has its own id");

    // A client library for key sets reads it as well.
    let url = format!("{}/.well-known/jwks.json", app.base_url);
    let source = jwks_client_rs::source::WebSource::builder()
        .build(url.parse().unwrap())
        .unwrap();
    let client = jwks_client_rs::JwksClient::builder().build(source);
    let claims: Value = client.decode(code, &[host]).await.unwrap();
    assert_eq!(claims["projectId"], json!(id));
    let elsewhere = client
        .decode::<Value>(code, &["https://other.example"])
        .await;
    assert!(elsewhere.is_err(), "made for one backend only");
}

#[tokio::test]
async fn an_authorization_for_a_persons_project_names_the_person() {
    let app = App::start().await;
    let partner = app.partner().await;
    let user = partner.connect_user("ada@example.com").await;
    let project = partner.sync_project(&user, "shop").await.expect(200)["project"].clone();
    let path = format!("/{}/authorization", id_of(&project));
    let answer = partner.post(&path, &json!({})).await.expect(200);
    let host = project["access_host"].as_str().unwrap();
    let claims = verified(&app, answer["code"].as_str().unwrap(), host).await;
    assert_eq!(claims["userId"], json!(user));
    assert_eq!(claims["sub"], json!(user));
}

#[tokio::test]
async fn projects_are_listed_in_pages() {
    let app = App::start().await;
    let (partner, other) = (app.partner().await, app.partner().await);
    other.create_active_project("elsewhere").await;
    let mut made = Vec::new();
    for number in 0..5 {
        made.push(
            partner
                .create_active_project(&format!("shop {number}"))
                .await,
        );
    }
    let gone = made.remove(0);
    partner.delete_project(&gone).await.expect(200);
    partner.pause(&made[1]).await.expect(200);

    let mut seen = Vec::new();
    let mut path = "/projects?limit=3".to_owned();
    loop {
        let page = partner.get(&path).await.expect(200);
        assert_eq!(fields(&page), ["next_cursor", "projects"]);
        let items = page["projects"].as_array().unwrap();
        assert!(items.len() <= 3);
        seen.extend(items.iter().map(id_of));
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        assert_eq!(items.len(), 3, "only the last page is short");
        path = format!("/projects?limit=3&cursor={next}");
    }
    assert_eq!(seen, made, "all that live, oldest first, each once");

    let paused = partner.get("/projects?status=paused").await.expect(200);
    let only = &paused["projects"].as_array().unwrap()[..];
    assert_eq!(only.len(), 1);
    assert_eq!(
        fields(&only[0]),
        [
            "access_host",
            "created_at",
            "external_id",
            "id",
            "instance_type",
            "last_activity_at",
            "name",
            "region",
            "status",
            "user_id"
        ]
    );
    assert_eq!(only[0]["id"], json!(made[1]));
    assert_eq!(only[0]["name"], "shop 2");
    assert_eq!(only[0]["status"], "paused");
    assert_eq!(paused["next_cursor"], Value::Null);
    let exact = partner.get("/projects?limit=4").await.expect(200);
    assert_eq!(
        exact["next_cursor"],
        Value::Null,
        "a full last page is known to be the last"
    );
}

#[tokio::test]
async fn an_operation_can_be_waited_for() {
    let mut app = App::start().await;
    let partner = app.partner().await;
    let id = partner.create_active_project("shop").await;
    app.settle().await;
    app.kill_worker();
    let pausing = partner.post(&format!("/{id}/pause"), &json!({})).await;
    assert_eq!(pausing.expect(200)["project"]["status"], "pausing");
    let operation = app.newest_operation(project_id(&id)).await.id;

    let began = std::time::Instant::now();
    let path = format!("/operations/{operation}?wait=1");
    let still = partner.get(&path).await.expect(200);
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(still["operation"]["state"], "queued");

    let waiting = tokio::spawn({
        let partner = partner.clone();
        async move {
            partner
                .get(&format!("/operations/{operation}?wait=30"))
                .await
        }
    });
    let began = std::time::Instant::now();
    let _worker = app.start_worker(app.worker_config("second"));
    let ended = waiting.await.unwrap().expect(200)["operation"].clone();
    assert!(began.elapsed() < Duration::from_secs(10), "told at its end");
    assert_eq!(ended["state"], "succeeded");
    assert_eq!(ended["kind"], "pause");
    assert_eq!(ended["progress"], 100);
    assert_eq!(ended["next_attempt_at"], Value::Null);
    assert!(ended["started_at"].is_string() && ended["finished_at"].is_string());
}

#[tokio::test]
async fn what_is_deleted_is_gone_for_every_call() {
    let app = App::start().await;
    let partner = app.partner().await;
    let id = partner.create_active_project("shop").await;
    let request = partner
        .request(Method::DELETE, &format!("/{id}"))
        .header("x-request-id", "delete-1");
    assert_eq!(
        Answer::to(request).await.expect(200),
        json!({ "message": "Project deleted successfully", "requestId": "delete-1" })
    );
    partner
        .metadata(&id)
        .await
        .expect_code(404, "project_not_found");
    for verb in ["pause", "restore", "restart", "authorization"] {
        let answer = partner.post(&format!("/{id}/{verb}"), &json!({})).await;
        answer.expect_code(404, "project_not_found");
    }
    partner
        .delete_project(&id)
        .await
        .expect_code(404, "project_not_found");
    let listed = partner.get("/projects").await.expect(200);
    assert_eq!(listed["projects"], json!([]));
}

#[tokio::test]
async fn each_model_has_its_endpoints() {
    let app = App::start().await;
    let co_branded = partner_of_model(&app, true, false).await;
    let white_label = partner_of_model(&app, false, true).await;
    let refused = co_branded
        .post("/sync-embedded-project", &json!({ "project_name": "shop" }))
        .await
        .expect_code(403, "wrong_partnership_model");
    assert_eq!(refused["success"], false);
    let body = json!({ "name": "Ada", "email": "ada@example.com" });
    white_label
        .post("/connect-user", &body)
        .await
        .expect_code(403, "wrong_partnership_model");
    // What belongs to both is there for both.
    co_branded.get("/projects").await.expect(200);
    white_label.get("/projects").await.expect(200);
}

#[tokio::test]
async fn a_suspended_partner_is_told_so_until_it_is_resumed() {
    let app = App::start().await;
    let partner = app.partner().await;
    let id = partner.create_active_project("shop").await;
    let elsewhere = partner.through(&app.start_second_api().await);
    elsewhere.metadata(&id).await.expect(200);
    let suspend = async |on| {
        let id = partner.partner_id();
        app.control_plane.suspend_partner(&id, on).await.unwrap();
    };
    suspend(true).await;
    // Other processes follow, although they have just met the secret.
    eventually("the second API knows", Duration::from_secs(2), async || {
        (elsewhere.metadata(&id).await.status == 403).then_some(())
    })
    .await;
    partner
        .metadata(&id)
        .await
        .expect_code(403, "partner_suspended");
    partner
        .delete_project(&id)
        .await
        .expect_code(403, "partner_suspended");
    partner
        .with_secret("ifps_wrong")
        .metadata(&id)
        .await
        .expect_code(401, "unauthorized");
    suspend(false).await;
    assert_eq!(
        partner.metadata(&id).await.expect(200)["project"]["status"],
        "active"
    );
}

#[tokio::test]
async fn a_rotated_secret_goes_on_until_the_overlap_ends() {
    let clock = MovingClock::new();
    let app = App::start_with(AppOptions {
        clock: clock.clone(),
        worker: false,
        ..AppOptions::default()
    })
    .await;
    let old = app.partner().await;
    let overlap = Duration::from_hours(24);
    let made = app
        .control_plane
        .rotate_partner_secret(&old.partner_id(), overlap)
        .await
        .unwrap();
    let new = old.with_secret(secrecy::ExposeSecret::expose_secret(&made.secret));
    assert_ne!(old.secret, new.secret);
    old.get("/projects").await.expect(200);
    new.get("/projects").await.expect(200);

    clock.advance(chrono::TimeDelta::hours(24));
    // A secret in constant use must not outlive its end: it is asked for all the while.
    eventually(
        "the old secret has ended",
        Duration::from_secs(3),
        async || {
            let answer = old.get("/projects").await;
            (answer.status == 401).then_some(())
        },
    )
    .await;
    new.get("/projects").await.expect(200);
}

#[tokio::test]
async fn a_partner_has_two_live_secrets_at_most() {
    let app = App::start_with(AppOptions {
        worker: false,
        ..AppOptions::default()
    })
    .await;
    let first = app.partner().await;
    let rotate = async || {
        let made = app
            .control_plane
            .rotate_partner_secret(&first.partner_id(), Duration::from_hours(24))
            .await
            .unwrap();
        first.with_secret(secrecy::ExposeSecret::expose_secret(&made.secret))
    };
    let second = rotate().await;
    first.get("/projects").await.expect(200);
    let third = rotate().await;
    first
        .get("/projects")
        .await
        .expect_code(401, "unauthorized");
    second.get("/projects").await.expect(200);
    third.get("/projects").await.expect(200);
}

#[tokio::test]
async fn every_answer_carries_a_request_id() {
    let app = App::start().await;
    let partner = app.partner().await;
    let ask = async |id: Option<&str>, path: &str| {
        let mut request = partner.request(Method::GET, path);
        if let Some(id) = id {
            request = request.header("x-request-id", id);
        }
        Answer::to(request).await
    };
    let echoed = ask(Some("my-id_1.2"), "/projects").await;
    assert_eq!(echoed.header("x-request-id"), Some("my-id_1.2"));
    let refused = ask(Some("my-id"), "/x/metadata").await;
    assert_eq!(refused.header("x-request-id"), Some("my-id"));
    assert_eq!(refused.expect(400)["requestId"], "my-id");

    let too_long = "x".repeat(129);
    for bad in [None, Some("a b"), Some("a\"b"), Some(too_long.as_str())] {
        let answer = ask(bad, "/nothing/of/the/kind").await;
        let made = answer.header("x-request-id").expect("an id").to_owned();
        assert_ne!(Some(made.as_str()), bad);
        assert!(made.len() > 8, "{made}");
        assert_eq!(answer.expect(404)["requestId"], json!(made));
    }
    let (one, two) = (ask(None, "/projects").await, ask(None, "/projects").await);
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
    assert_eq!(
        one.header("cache-control"),
        Some("no-store"),
        "answers hold keys"
    );
}

#[tokio::test]
async fn every_mutation_is_in_the_audit_log() {
    let app = App::start().await;
    let partner = app.partner().await;
    let send = async |method: Method, path: String, id: &str, body: Value| {
        let request = partner.request(method, &path).header("x-request-id", id);
        Answer::to(request.json(&body)).await.expect(200)
    };
    let person = json!({ "name": "Ada", "email": "ada@example.com" });
    let user = send(Method::POST, "/connect-user".into(), "r-connect", person).await;
    let user = id_of(&user["account"]);
    let name = json!({ "project_name": "shop" });
    let theirs = send(
        Method::POST,
        format!("/{user}/sync-project"),
        "r-sync",
        name.clone(),
    )
    .await;
    let embedded = send(
        Method::POST,
        "/sync-embedded-project".into(),
        "r-embed",
        name.clone(),
    )
    .await;
    let (theirs, id) = (id_of(&theirs["project"]), id_of(&embedded["project"]));
    let wait = json!({ "wait_for_completion": true });
    for (verb, request) in [
        ("restart", "r-restart"),
        ("pause", "r-pause"),
        ("restore", "r-restore"),
    ] {
        send(Method::POST, format!("/{id}/{verb}"), request, wait.clone()).await;
    }
    // Neither a sync of what is there nor a verb with nothing to do is a mutation.
    send(Method::POST, format!("/{user}/sync-project"), "r-not", name).await;
    send(Method::POST, format!("/{id}/restore"), "r-not", wait).await;
    send(Method::DELETE, format!("/{id}"), "r-delete", json!({})).await;
    let refused = partner.delete_project(&id).await;
    refused.expect_code(404, "project_not_found");

    let mut conn = app.database.connect().await;
    let rows = sqlx::query(
        "select action, request_id, target_type, target_id, actor, address from audit_log
         where partner_id = $1 and actor like 'partner:%' order by at, id",
    )
    .bind(&partner.id)
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let text = |row: &sqlx::postgres::PgRow, column: &str| row.get::<String, _>(column);
    let written: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                text(row, "action"),
                text(row, "request_id"),
                text(row, "target_id"),
            )
        })
        .collect();
    let expected = [
        ("user.connected", "r-connect", &user),
        ("project.created", "r-sync", &theirs),
        ("project.created", "r-embed", &id),
        ("project.restarted", "r-restart", &id),
        ("project.paused", "r-pause", &id),
        ("project.restored", "r-restore", &id),
        ("project.deleted", "r-delete", &id),
    ]
    .map(|(action, request, target)| (action.to_owned(), request.to_owned(), target.clone()));
    assert_eq!(written, expected);
    for row in &rows {
        assert_eq!(text(row, "actor"), format!("partner:{}", partner.id));
        assert_eq!(text(row, "address"), "127.0.0.1");
    }
}
