//! Projects of people, word by word as the client sends them.

use chrono::{DateTime, Utc};
use cp_model::Plan;
use cp_tests::{App, Member};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::quiet;

#[tokio::test]
async fn a_project_is_made_linked_and_ended() {
    let app = App::start().await;
    let ada = app.member("Ada").await;
    let home = ada.home().await;
    let made = ada.begin_project(&home, "storefront").await.expect(201);
    let made = &made["project"];
    for (field, value) in [
        ("organization_id", json!(home)),
        ("name", json!("storefront")),
        ("region", json!("us-east")),
        ("instance_type", json!("nano")),
        ("customized_domain", Value::Null),
        ("storage_disk_size", json!(8)),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    let id = made["id"].as_str().unwrap();
    let appkey = made["appkey"].as_str().unwrap();
    assert!(
        appkey
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
        "{appkey}"
    );
    for time in ["created_at", "updated_at"] {
        made[time]
            .as_str()
            .unwrap()
            .parse::<DateTime<Utc>>()
            .unwrap();
    }
    let active = ada.await_status(id, "active").await;
    assert_eq!(active["operation_status"], Value::Null);
    assert_eq!(
        (&active["appkey"], &active["region"]),
        (&made["appkey"], &made["region"])
    );
    // A branch of `link`: the same key that the backend has.
    let key = ada.get(&format!("/projects/v1/{id}/access-api-key")).await;
    assert_eq!(key.header("cache-control"), Some("no-store"));
    let key = key.expect(200);
    assert_eq!(key.as_object().unwrap().len(), 1);
    assert!(key["access_api_key"].as_str().unwrap().starts_with("ik_"));
    let host = active["access_host"].as_str().unwrap();
    let answered = app
        .http
        .get(format!("{host}/api/metadata/project-id"))
        .bearer_auth(key["access_api_key"].as_str().unwrap());
    assert!(answered.send().await.unwrap().status().is_success());

    let listed = ada
        .get(&format!("/organizations/v1/{home}/projects"))
        .await
        .expect(200);
    assert_eq!(listed["projects"].as_array().unwrap().len(), 1);
    assert_eq!(listed["projects"][0]["id"], id);
    assert_eq!(listed.get("next_cursor"), None);
    ada.delete(&format!("/projects/v1/{id}")).await.expect(204);
    let gone = ada
        .get(&format!("/projects/v1/{id}"))
        .await
        .expect_code(404, "project_not_found");
    assert!(
        gone["error"].as_str().unwrap().contains("not found"),
        "the client looks for the words"
    );
    app.settle().await;
    app.assert_truth().await;
}

#[tokio::test]
async fn the_sentinels_of_the_client_are_not_found() {
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let (project, organization) = (
        "fa4e0000-1234-5678-90ab-cd1234567890",
        "fa4e0001-1234-5678-90ab-cd1234567890",
    );
    for path in [
        format!("/projects/v1/{project}"),
        format!("/projects/v1/{project}/access-api-key"),
        format!("/projects/v1/{project}/branches"),
        format!("/organizations/v1/{organization}/projects"),
        format!("/organizations/v1/{organization}/members"),
    ] {
        ada.get(&path).await.expect(404);
    }
}

/// The operator sets the plan of somebody's own organization.
async fn pay(app: &App, by: &Member) {
    let user = by.user.parse().unwrap();
    app.control_plane
        .set_user_plan(user, Plan::Pro)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_project_is_renamed_and_grows() {
    let app = App::start().await;
    let ada = app.member("Ada").await;
    let home = ada.home().await;
    let id = ada.create_project(&home, "shop").await;
    let path = format!("/projects/v1/{id}");
    let put = async |body: Value| ada.send(Method::PUT, &path, &body).await;
    let changed = put(json!({ "name": "store", "customizedDomain": "API.Example.com" }))
        .await
        .expect(200);
    assert_eq!(changed["project"]["name"], "store");
    assert_eq!(changed["project"]["customized_domain"], "api.example.com");
    let changed = put(json!({ "customizedDomain": "" })).await.expect(200);
    assert_eq!(changed["project"]["customized_domain"], Value::Null);
    assert_eq!(changed["project"]["name"], "store");
    for (body, says) in [
        (
            json!({}),
            "name or customizedDomain or storageDiskSize must be given",
        ),
        (json!({ "name": "x" }), "name must have 2 to 64"),
        (
            json!({ "customizedDomain": "https://x.org" }),
            "customizedDomain must be a host name",
        ),
        (
            json!({ "customizedDomain": "10.0.0.1" }),
            "customizedDomain must be a host name",
        ),
        (
            json!({ "storageDiskSize": 7 }),
            "storageDiskSize must be between 8 and 16384",
        ),
        (
            json!({ "storageDiskSize": "20" }),
            "storageDiskSize must be",
        ),
    ] {
        let said = put(body.clone()).await.expect_code(400, "invalid_input")["error"].to_string();
        assert!(said.contains(says), "{body}: {said}");
    }
    // Bigger machines cost money, which nobody pays on the free plan.
    let refused = put(json!({ "storageDiskSize": 20 })).await;
    refused.expect_code(403, "plan_upgrade_needed");
    pay(&app, &ada).await;
    let growing = put(json!({ "name": "grown", "storageDiskSize": 20 }))
        .await
        .expect(200);
    assert_eq!(growing["project"]["name"], "grown");
    let grown = cp_tests::eventually(
        "it has grown",
        std::time::Duration::from_secs(30),
        async || {
            let seen = ada.project(&id).await;
            (seen["storage_disk_size"] == 20 && seen["status"] == "active").then_some(seen)
        },
    )
    .await;
    assert_eq!(grown["operation_status"], Value::Null);
    // All of it or nothing.
    let refused = put(json!({ "name": "small", "storageDiskSize": 10 })).await;
    let said = refused.expect_code(400, "invalid_input")["error"].to_string();
    assert!(
        said.contains("storageDiskSize must be at least 20"),
        "{said}"
    );
    assert_eq!(ada.project(&id).await["name"], "grown");
}

#[tokio::test]
async fn a_project_is_paused_restored_restarted_and_upgraded() {
    let app = App::start().await;
    let ada = app.member("Ada").await;
    let home = ada.home().await;
    let id = ada.create_project(&home, "shop").await;
    let path = |verb: &str| format!("/projects/v1/{id}/{verb}");
    let begun = ada.post(&path("pause")).await.expect(202);
    assert_eq!(begun["project"]["operation_status"], "pausing");
    ada.await_status(&id, "paused").await;
    let nothing = ada.post(&path("pause")).await.expect(200);
    assert_eq!(nothing["project"]["status"], "paused");
    let refused = ada.post(&path("restart")).await;
    refused.expect_code(409, "project_wrong_status");
    let begun = ada.post(&path("restore")).await.expect(202);
    assert_eq!(begun["project"]["operation_status"], "restoring");
    ada.await_status(&id, "active").await;

    let restart = path("restart?insforgeOssVersion=v2.2.3");
    let begun = ada.post(&restart).await.expect(202);
    assert_eq!(
        begun["project"]["operation_status"],
        "updating_project_version"
    );
    let refused = ada.post(&path("restart")).await;
    refused.expect_code(409, "operation_in_progress");
    ada.await_status(&id, "active").await;
    let waited = ada
        .post(&format!("{restart}&waitForCompletion=true"))
        .await
        .expect(200);
    assert_eq!(waited["project"]["status"], "active");
    for bad in [
        "insforgeOssVersion=a/b",
        "waitForCompletion=yes",
        "insforgeOssVersion=%ff",
    ] {
        let refused = ada.post(&path(&format!("restart?{bad}"))).await;
        refused.expect_code(400, "invalid_input");
    }

    let upgrade = path("upgrade-instance");
    let small = json!({ "instanceType": "small" });
    let refused = ada.send(Method::POST, &upgrade, &small).await;
    refused.expect_code(403, "plan_upgrade_needed");
    pay(&app, &ada).await;
    let refused = ada
        .send(Method::POST, &upgrade, &json!({ "instanceType": "huge" }))
        .await;
    refused.expect_code(400, "invalid_input");
    let begun = ada
        .send(Method::POST, &upgrade, &json!({ "instanceType": "small" }))
        .await
        .expect(200);
    assert_eq!(begun["previousInstanceType"], "nano");
    assert_eq!(begun["newInstanceType"], "small");
    assert_eq!(
        (&begun["previousVolumeSizeGiB"], &begun["newVolumeSizeGiB"]),
        (&json!(8), &json!(8))
    );
    assert_eq!(
        begun["project"]["operation_status"],
        "upgrading_instance_type"
    );
    assert!(!begun["message"].as_str().unwrap().is_empty());
    let upgraded = ada.await_status(&id, "active").await;
    assert_eq!(upgraded["instance_type"], "small");
    let nothing = ada
        .send(Method::POST, &upgrade, &json!({ "instanceType": "small" }))
        .await
        .expect(200);
    assert_eq!(nothing["previousInstanceType"], "small");
    app.assert_truth().await;
}

#[tokio::test]
async fn the_plan_has_room_for_two() {
    let app = App::start().await;
    let ada = app.member("Ada").await;
    let home = ada.home().await;
    let path = format!("/organizations/v1/{home}/projects");
    let body = json!({ "name": "shop" });
    let made = join_all((0..6).map(|_| ada.send(Method::POST, &path, &body))).await;
    assert_eq!(
        made.iter().filter(|answer| answer.status == 201).count(),
        2,
        "{made:?}"
    );
    let refused = made
        .iter()
        .find(|answer| answer.status != 201)
        .unwrap()
        .clone();
    let said = refused.expect_code(403, "project_limit_reached");
    assert!(
        said["error"]
            .as_str()
            .unwrap()
            .contains("Free plan allows up to 2")
    );
    app.settle().await;
    // A paused project gives its place away, and asks for one when it comes back.
    let listed = ada.get(&path).await.expect(200);
    let first = listed["projects"][0]["id"].as_str().unwrap();
    ada.post(&format!("/projects/v1/{first}/pause"))
        .await
        .expect(202);
    ada.await_status(first, "paused").await;
    ada.create_project(&home, "third").await;
    let refused = ada.post(&format!("/projects/v1/{first}/restore")).await;
    refused.expect_code(403, "project_limit_reached");
    // Nothing was begun.
    assert_eq!(ada.project(first).await["status"], "paused");
}

#[tokio::test]
async fn lists_come_in_pages_when_asked() {
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let home = ada.home().await;
    sqlx::query("update organizations set plan = 'pro' where id = $1")
        .bind(Uuid::parse_str(&home).unwrap())
        .execute(&mut app.database.connect().await)
        .await
        .unwrap();
    let mut made = Vec::new();
    for n in 0..7 {
        let answer = ada
            .begin_project(&home, &format!("shop {n}"))
            .await
            .expect(201);
        made.push(answer["project"]["id"].clone());
    }
    let path = format!("/organizations/v1/{home}/projects");
    let all = ada.get(&path).await.expect(200);
    assert_eq!(all["projects"].as_array().unwrap().len(), 7);
    let (mut seen, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let after = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
        let page = ada.get(&format!("{path}?limit=3{after}")).await.expect(200);
        let projects = page["projects"].as_array().unwrap();
        assert!(projects.len() <= 3);
        seen.extend(projects.iter().map(|project| project["id"].clone()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(seen, made);
    for bad in ["limit=0", "limit=101", "limit=x", "cursor=x"] {
        let refused = ada.get(&format!("{path}?{bad}")).await;
        refused.expect_code(400, "invalid_input");
    }
}

#[tokio::test]
async fn a_project_is_given_to_another_organization() {
    let app = App::start().await;
    let ada = app.member("Ada").await;
    let lin = app.stranger("Lin").await;
    let (home, team) = (ada.home().await, ada.create_organization("Team").await);
    ada.add(&app, &team, &lin, "developer").await;
    let lin = app.member_of(&lin).await;
    let id = ada.create_project(&home, "shop").await;
    lin.get(&format!("/projects/v1/{id}")).await.expect(404);
    let transfer = format!("/projects/v1/{id}/transfer");
    let to = |organization: &str| json!({ "targetOrganizationId": organization });
    // Not to what is not hers, nor out of where somebody is no administrator.
    let theirs = lin.home().await;
    let refused = ada.send(Method::POST, &transfer, &to(&theirs)).await;
    refused.expect_code(404, "organization_not_found");
    let refused = ada.send(Method::POST, &transfer, &to("x")).await;
    refused.expect_code(400, "invalid_input");
    let given = ada
        .send(Method::POST, &transfer, &to(&team))
        .await
        .expect(200);
    assert_eq!(given["project"]["organization_id"], team);
    assert_eq!(given["project"]["status"], "active");
    assert_eq!(lin.project(&id).await["name"], "shop");
    let refused = lin.send(Method::POST, &transfer, &to(&theirs)).await;
    refused.expect_code(403, "administrator_needed");
    // Where it is already, nothing has to be done.
    ada.send(Method::POST, &transfer, &to(&team))
        .await
        .expect(200);
    let audited: i64 =
        sqlx::query_scalar("select count(*) from audit_log where action = 'project.transferred'")
            .fetch_one(&mut app.database.connect().await)
            .await
            .unwrap();
    assert_eq!(audited, 2, "once for each organization");
}

#[tokio::test]
async fn transfers_at_once_keep_the_plans_limit() {
    let app = App::start().await;
    let ada = app.member("Ada").await;
    let home = ada.home().await;
    let teams = [
        ada.create_organization("One").await,
        ada.create_organization("Two").await,
    ];
    let mut projects = Vec::new();
    for organization in [&home, &home, &teams[0], &teams[0]] {
        projects.push(ada.create_project(organization, "shop").await);
    }
    // Four into the places of two, and crosswise, so that locks meet.
    let to = |organization: &str| json!({ "targetOrganizationId": organization });
    let paths: Vec<_> = projects
        .iter()
        .map(|id| format!("/projects/v1/{id}/transfer"))
        .collect();
    let wanted = [to(&teams[1]), to(&teams[0]), to(&teams[1]), to(&teams[1])];
    let moves = paths
        .iter()
        .zip(&wanted)
        .map(|(path, to)| ada.send(Method::POST, path, to));
    let answers = join_all(moves).await;
    for answer in &answers {
        assert!(matches!(answer.status, 200 | 403), "{}", answer.text);
    }
    for organization in [&home, &teams[0], &teams[1]] {
        let listed = ada
            .get(&format!("/organizations/v1/{organization}/projects"))
            .await
            .expect(200);
        assert!(
            listed["projects"].as_array().unwrap().len() <= 2,
            "{listed}"
        );
    }
    let total: usize = join_all([&home, &teams[0], &teams[1]].map(async |organization| {
        let listed = ada
            .get(&format!("/organizations/v1/{organization}/projects"))
            .await
            .expect(200);
        listed["projects"].as_array().unwrap().len()
    }))
    .await
    .into_iter()
    .sum();
    assert_eq!(total, 4);
}

#[tokio::test]
async fn co_branded_projects_show_up_for_their_owners_and_embedded_ones_never() {
    let app = App::start().await;
    let ada = app.member("Ada").await;
    let partner = app.partner().await;
    let user = partner.connect_user("ada@example.com").await;
    let synced = partner.sync_project(&user, "synced").await.expect(200);
    let synced = synced["project"]["id"].as_str().unwrap();
    let embedded = partner.create_active_project("embedded").await;
    let home = ada.home().await;
    let listed = ada
        .get(&format!("/organizations/v1/{home}/projects"))
        .await
        .expect(200);
    let listed: Vec<_> = listed["projects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["id"].clone())
        .collect();
    assert_eq!(listed, [json!(synced)]);
    assert_eq!(ada.project(synced).await["status"], "active");
    ada.get(&format!("/projects/v1/{embedded}"))
        .await
        .expect_code(404, "project_not_found");
    ada.delete(&format!("/projects/v1/{embedded}"))
        .await
        .expect_code(404, "project_not_found");
    // Hers to end; the partner sees it end.
    ada.delete(&format!("/projects/v1/{synced}"))
        .await
        .expect(204);
    let seen = partner.get(&format!("/{user}/{synced}/metadata")).await;
    seen.expect_code(404, "project_not_found");
}

#[tokio::test]
async fn what_was_made_through_a_partner_stays_its_to_run() {
    let app = App::start().await;
    let ada = app.member("Ada").await;
    let team = ada.create_organization("Team").await;
    let partner = app.partner().await;
    let user = partner.connect_user("ada@example.com").await;
    let synced = partner.sync_project(&user, "synced").await.expect(200);
    let id = synced["project"]["id"].as_str().unwrap();
    pay(&app, &ada).await;
    for (method, path, body) in [
        (
            Method::POST,
            format!("/projects/v1/{id}/transfer"),
            json!({ "targetOrganizationId": team }),
        ),
        (
            Method::PUT,
            format!("/projects/v1/{id}"),
            json!({ "name": "renamed" }),
        ),
        (
            Method::PUT,
            format!("/projects/v1/{id}"),
            json!({ "storageDiskSize": 20 }),
        ),
        (
            Method::POST,
            format!("/projects/v1/{id}/upgrade-instance"),
            json!({ "instanceType": "small" }),
        ),
    ] {
        let refused = ada.send(method, &path, &body).await;
        refused.expect_code(409, "made_through_partner");
    }
    let again = partner.sync_project(&user, "synced").await.expect(200);
    assert_eq!(again["project"]["id"], id, "found by its name");
}

#[tokio::test]
async fn a_partner_sees_nothing_of_what_others_share_with_its_people() {
    let app = App::start().await;
    let lin = app.member("Lin").await;
    let ada = app.stranger("Ada").await;
    let team = lin.create_organization("Team").await;
    lin.add(&app, &team, &ada, "administrator").await;
    let secret = lin.create_project(&team, "secret").await;
    let ada = app.member_of(&ada).await;
    assert_eq!(ada.project(&secret).await["name"], "secret");
    let home = ada.home().await;
    for name in ["one", "two"] {
        ada.create_project(&home, name).await;
    }
    // Trusted, even: it reads the keys of all that is Ada's.
    let partner = app
        .partner_with(cp_domain::NewPartner {
            name: "Acme".into(),
            co_branded: true,
            white_label: true,
            rate_limit: 1_000_000,
            trusted: true,
        })
        .await;
    let user = partner.connect_user("ada@example.com").await;
    let seen = partner.get(&format!("/{user}/{secret}/metadata")).await;
    seen.expect_code(404, "project_not_found");
    let body = json!({ "project_name": "more" });
    let refused = partner.post(&format!("/{user}/sync-project"), &body).await;
    let refused = refused.expect_code(403, "project_limit_reached");
    let candidates = refused["candidate_projects"].as_array().unwrap();
    assert_eq!(candidates.len(), 2, "{refused}");
    assert!(!refused.to_string().contains(&secret), "{refused}");
}

#[tokio::test]
async fn what_may_be_wrong_is_told_without_asking_the_machine() {
    let app = App::start().await;
    let ada = app.member("Ada").await;
    let home = ada.home().await;
    let id = ada.create_project(&home, "shop").await;
    let path = format!("/projects/v1/{id}/diagnose/incident");
    let verdict = async || ada.get(&path).await.expect(200);
    let good = verdict().await;
    assert_eq!(good["verdict"], "no_incident_detected", "{good}");
    assert_eq!(good["reachable"]["metrics_reporting"], true);
    assert_eq!(good["reachable"]["database_connect"], true);
    assert_eq!(good["recent_platform_operations"][0]["action"], "provision");
    assert_eq!(good["project_id"], id);
    ada.post(&format!("/projects/v1/{id}/pause"))
        .await
        .expect(202);
    let paused = eventually_verdict(&ada, &path, "paused_or_suspended").await;
    assert!(
        paused["recommendation"]
            .as_str()
            .unwrap()
            .contains("restore")
    );
    ada.post(&format!("/projects/v1/{id}/restore"))
        .await
        .expect(202);
    let busy = verdict().await;
    assert_eq!(busy["verdict"], "platform_operation_in_progress", "{busy}");
    eventually_verdict(&ada, &path, "no_incident_detected").await;
    // Nobody has heard of it for a while; its agent may report in between, so more than once.
    app.settle().await;
    let at_most = std::time::Duration::from_secs(30);
    let silent = cp_tests::eventually("a silent machine shows", at_most, async || {
        sqlx::query(
            "update machines set last_seen_at = now() - interval '1 hour' where project_id = $1",
        )
        .bind(Uuid::parse_str(&id).unwrap())
        .execute(&mut app.database.connect().await)
        .await
        .unwrap();
        let seen = ada.get(&path).await.expect(200);
        (seen["verdict"] == "metrics_stopped").then_some(seen)
    })
    .await;
    let said = silent["explanation"].as_str().unwrap();
    assert!(said.contains("not reported since"), "{said}");
    assert_eq!(silent["reachable"]["database_connect"], false);
}

async fn eventually_verdict(by: &Member, path: &str, wanted: &str) -> Value {
    let at_most = std::time::Duration::from_secs(30);
    cp_tests::eventually(wanted, at_most, async || {
        let seen = by.get(path).await.expect(200);
        (seen["verdict"] == wanted).then_some(seen)
    })
    .await
}

#[tokio::test]
async fn what_this_installation_has_not_is_said_honestly() {
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let home = ada.home().await;
    let made = ada.begin_project(&home, "shop").await.expect(201);
    let id = made["project"]["id"].as_str().unwrap();
    let analyze = json!({ "project_id": id, "question": " why? ", "context": { "context_version": "diagnostic-v1" } });
    let refused = ada
        .send(Method::POST, "/diagnostic/v1/analyze", &analyze)
        .await;
    refused.expect_code(501, "not_configured");
    for question in ["", "  ", &"x".repeat(2001)] {
        let body = json!({ "project_id": id, "question": question });
        let refused = ada
            .send(Method::POST, "/diagnostic/v1/analyze", &body)
            .await;
        refused.expect_code(400, "invalid_input");
    }
    let rating = format!("/diagnostic/v1/sessions/{}/rating", Uuid::now_v7());
    let body = json!({ "rating": "helpful" });
    let refused = ada.send(Method::POST, &rating, &body).await;
    refused.expect_code(404, "session_not_found");
    for path in ["advisor/latest", "advisor/latest/issues?limit=50"] {
        let refused = ada.get(&format!("/projects/v1/{id}/{path}")).await;
        refused.expect_code(404, "no_scan");
    }
    for name in ["posthog", "apify"] {
        let path = format!("/integrations/{name}/v1");
        let refused = ada.get(&format!("{path}/cli-start?p={id}")).await;
        refused.expect_code(501, "not_configured");
        let refused = ada.get(&format!("{path}/connection?project_id={id}")).await;
        refused.expect_code(404, "not_connected");
        let other = Uuid::now_v7();
        let refused = ada
            .get(&format!("{path}/connection?project_id={other}"))
            .await;
        refused.expect_code(404, "project_not_found");
        let refused = ada.get(&format!("{path}/connection")).await;
        refused.expect_code(400, "invalid_input");
    }
    // The operator has not said which release is the newest; nobody has to be signed in to be told.
    let url = format!("{}/platform/insforge/latest-version", app.base_url);
    let refused = cp_tests::Answer::to(app.http.get(url)).await;
    refused.expect_code(501, "not_configured");
    let url = format!("{}/tracking/v1/agent-connected", app.base_url);
    let body = json!({ "client": "cli", "project_id": id });
    let noted = cp_tests::Answer::to(app.http.post(url).json(&body)).await;
    assert_eq!(noted.status, 204, "{}", noted.text);
}
