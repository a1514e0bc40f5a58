//! Many at once: the rules hold, one wins, and two processes behave as one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cp_model::OperationState;
use cp_tests::{Answer, App, AppOptions, PartnerClient};
use futures::future::join_all;
use serde_json::json;

#[track_caller]
fn id_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.body["project"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn fifty_syncs_of_one_name_make_one_project() {
    let app = App::start().await;
    let partner = app.partner().await;
    let user = partner.connect_user("ada@example.com").await;
    let answers = join_all((0..50).map(|_| partner.sync_project(&user, "shop"))).await;
    let ids: BTreeSet<String> = answers.iter().map(id_of).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(app.database.count("projects").await, 1);
    app.settle().await;
    assert_eq!(app.sim.alive().len(), 1);
}

#[tokio::test]
async fn twenty_creates_on_a_free_plan_make_exactly_two() {
    let app = App::start().await;
    let (one, two) = (app.partner().await, app.partner().await);
    let user = one.connect_user("ada@example.com").await;
    two.connect_user("ada@example.com").await;
    // The plan is the person's, whichever partner asks.
    let answers = join_all((0..20).map(|number| {
        let by = if number % 2 == 0 { &one } else { &two };
        let user = &user;
        async move { by.sync_project(user, &format!("shop {number}")).await }
    }))
    .await;
    let (made, refused): (Vec<Answer>, Vec<Answer>) =
        answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!(made.len(), 2);
    for answer in refused {
        let body = answer.expect_code(403, "project_limit_reached");
        assert_eq!(body["candidate_projects"].as_array().unwrap().len(), 2);
    }
    assert_eq!(app.database.count("projects").await, 2);
}

#[tokio::test]
async fn thirty_syncs_of_one_external_id_make_one_project() {
    let app = App::start().await;
    let partner = app.partner().await;
    let body = json!({ "project_name": "shop", "external_id": "customer-4711" });
    let answers = join_all((0..30).map(|_| partner.post("/sync-embedded-project", &body))).await;
    let ids: BTreeSet<String> = answers.iter().map(id_of).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(app.database.count("projects").await, 1);
}

#[tokio::test]
async fn fifty_connects_of_one_address_make_one_account() {
    let app = App::start().await;
    let (one, two) = (app.partner().await, app.partner().await);
    let answers = join_all((0..50).map(|number| {
        let by = if number % 2 == 0 { &one } else { &two };
        async move {
            let email = if number % 3 == 0 {
                "ada@example.com"
            } else {
                "ADA@example.com"
            };
            by.connect_user(email).await
        }
    }))
    .await;
    let ids: BTreeSet<String> = answers.into_iter().collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(app.database.count("users").await, 1);
    // One for the person, one for each partner.
    assert_eq!(app.database.count("organizations").await, 3);
}

/// A call of one verb, by its name.
async fn call(by: &PartnerClient, id: &str, verb: &str) -> Answer {
    match verb {
        "delete" => by.delete_project(id).await,
        verb => by.post(&format!("/{id}/{verb}"), &json!({})).await,
    }
}

#[tokio::test]
async fn of_two_verbs_at_once_one_wins() {
    let mut app = App::start().await;
    let second = app.start_second_api().await;
    let partner = app.partner().await;
    let other = partner.through(&second);
    let pairs = [
        ("pause", "pause"),
        ("pause", "restart"),
        ("restart", "restart"),
        ("pause", "delete"),
        ("restart", "delete"),
        ("delete", "delete"),
    ];
    let mut projects = Vec::new();
    for pair in pairs {
        let name = format!("{} {}", pair.0, pair.1);
        for _ in 0..3 {
            projects.push((pair, partner.create_active_project(&name).await));
        }
    }
    app.settle().await;
    // Nothing ends meanwhile, so that the loser meets the winner.
    app.kill_worker();
    for ((one, two), id) in &projects {
        let answers = tokio::join!(call(&partner, id, one), call(&other, id, two));
        let mut statuses = [answers.0.status, answers.1.status];
        statuses.sort_unstable();
        let at = format!("{one} and {two}: {} {}", answers.0.text, answers.1.text);
        match (*one, *two) {
            // The pause that came second has nothing to do only once the first has ended.
            (one, two) if one != "delete" && two != "delete" => {
                assert_eq!(statuses, [200, 409], "{at}");
                let loser = if answers.0.status == 409 {
                    answers.0
                } else {
                    answers.1
                };
                loser.expect_code(409, "operation_in_progress");
            }
            // A delete is never kept waiting: it cancels what came first.
            ("delete", _) => assert_eq!(statuses, [200, 404], "{at}"),
            _ => assert!(
                statuses == [200, 200] || statuses == [200, 404] || statuses == [200, 409],
                "{at}"
            ),
        }
    }
    let _worker = app.start_worker(app.worker_config("second"));
    app.settle().await;
    let listed = partner.get("/projects").await.expect(200);
    let left: BTreeMap<&str, &str> = listed["projects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|project| {
            (
                project["id"].as_str().unwrap(),
                project["status"].as_str().unwrap(),
            )
        })
        .collect();
    for ((one, two), id) in &projects {
        match (*one, *two, left.get(id.as_str())) {
            (_, "delete", None)
            | ("pause", "pause", Some(&"paused"))
            | ("restart", "restart", Some(&"active"))
            | ("pause", "restart", Some(&("paused" | "active"))) => {}
            (one, two, end) => panic!("{one} and {two} ended as {end:?}"),
        }
    }
    // The three deletes of each pair left no machine, the others have one each.
    assert_eq!(app.sim.alive().len(), left.len());
}

#[tokio::test]
async fn two_apis_and_two_workers_on_one_database_behave_as_one() {
    let app = App::start_with(AppOptions {
        create_wait: Duration::from_secs(30),
        ..AppOptions::default()
    })
    .await;
    let _second_worker = app.start_worker(app.worker_config("second"));
    let second = app.start_second_api().await;
    let one = app.partner().await;
    let two = one.through(&second);
    let made = join_all((0..30).map(|number| {
        let (by, other) = if number % 2 == 0 {
            (&one, &two)
        } else {
            (&two, &one)
        };
        async move {
            let project = by.create_project(&format!("shop {number}")).await;
            assert_eq!(project["status"], "active", "{project}");
            let id = project["id"].as_str().unwrap().to_owned();
            // What the one did, the other knows.
            let seen = other.metadata(&id).await.expect(200);
            assert_eq!(seen["project"]["api_key"], project["api_key"]);
            if number % 5 == 0 {
                assert_eq!(
                    other.pause(&id).await.expect(200)["project"]["status"],
                    "paused"
                );
                assert_eq!(
                    by.restore(&id).await.expect(200)["project"]["status"],
                    "active"
                );
            }
            id
        }
    }))
    .await;
    app.settle().await;
    let machines: BTreeSet<_> = app
        .sim
        .alive()
        .iter()
        .map(|machine| machine.machine_id)
        .collect();
    assert_eq!(machines.len(), made.len(), "one machine each");
    for machine in app.sim.alive() {
        assert_eq!(app.sim.launch_effects(machine.machine_id), 1);
    }
    let failed = app
        .control_plane
        .list_operations(None, Some(OperationState::Failed), 1)
        .await
        .unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    let mut conn = app.database.connect().await;
    let owned: i64 = sqlx::query_scalar(
        "select count(distinct project_id) from machines where state = 'ready' and project_id is not null",
    )
    .fetch_one(&mut conn)
    .await
    .unwrap();
    assert_eq!(owned, 30);
}
