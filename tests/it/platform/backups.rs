//! Who makes way for whom, and how many daily backups there are at once. Nobody works: operations stay as they are begun.

use std::time::Duration;

use cp_model::{OperationKind, OperationState, ProjectId};
use cp_tests::{App, Member, PartnerClient, eventually};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::quiet;

async fn run(app: &App, statement: &'static str, project: &str) {
    sqlx::query(statement)
        .bind(Uuid::parse_str(project).unwrap())
        .execute(&mut app.database.connect().await)
        .await
        .unwrap();
}

/// As a worker would leave it.
async fn make_active(app: &App, project: &str) {
    for statement in [
        "update operations set state = 'succeeded' where project_id = $1",
        "update projects set status = 'active' where id = $1",
    ] {
        run(app, statement, project).await;
    }
}

async fn make_due(app: &App, project: &str) {
    let due = "update projects set next_backup_at = now() - interval '1 minute' where id = $1";
    run(app, due, project).await;
}

async fn active_project(app: &App, ada: &Member) -> String {
    let home = ada.home().await;
    let made = ada.begin_project(&home, "shop").await.expect(201);
    let id = made["project"]["id"].as_str().unwrap().to_owned();
    make_active(app, &id).await;
    id
}

async fn backups(ada: &Member, project: &str) -> Vec<Value> {
    let listed = ada.get(&format!("/projects/v1/{project}/backups")).await;
    listed.expect(200)["backups"].as_array().unwrap().clone()
}

async fn begin_backup(ada: &Member, project: &str) {
    let path = format!("/projects/v1/{project}/backup");
    ada.send(Method::POST, &path, &json!({})).await.expect(202);
}

/// A project that a partner made for Ada, and runs.
async fn synced(app: &App, partner: &PartnerClient) -> (Member, String) {
    let ada = app.member("Ada").await;
    let user = partner.connect_user("ada@example.com").await;
    let made = partner.sync_project(&user, "shop").await;
    let id = made.body["project"]["id"].as_str().unwrap().to_owned();
    make_active(app, &id).await;
    (ada, id)
}

#[tokio::test]
async fn a_partners_pause_cancels_what_people_back_up() {
    let app = cp_tests::App::start_with(cp_tests::AppOptions {
        worker: false,
        create_wait: Duration::from_millis(50),
        completion_wait: Duration::from_millis(50),
        ..cp_tests::AppOptions::default()
    })
    .await;
    let partner = app.partner().await;
    let (ada, id) = synced(&app, &partner).await;
    begin_backup(&ada, &id).await;
    assert_eq!(backups(&ada, &id).await[0]["status"], "running");
    // Her own work does not end what she asked for herself.
    let refused = ada.post(&format!("/projects/v1/{id}/pause")).await;
    refused.expect_code(409, "operation_in_progress");
    let paused = partner.post(&format!("/{id}/pause"), &json!({})).await;
    assert!(matches!(paused.status, 200 | 202), "{}", paused.text);
    let project: ProjectId = id.parse().unwrap();
    let running = app.newest_operation(project).await;
    assert_eq!(running.kind, OperationKind::Pause);
    assert!(running.state.is_in_flight(), "{running:?}");
    let backup = &backups(&ada, &id).await[0];
    assert_eq!(backup["status"], "failed");
    let why = backup["error_message"].as_str().unwrap();
    assert!(why.contains("made way"), "{why}");
}

#[tokio::test]
async fn a_merge_cancels_its_parents_daily_backup_and_not_what_people_asked_for() {
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let parent = active_project(&app, &ada).await;
    let body = json!({ "name": "feat", "mode": "full" });
    let path = format!("/projects/v1/{parent}/branches");
    let made = ada.send(Method::POST, &path, &body).await.expect(201);
    let branch = made["branch"]["id"].as_str().unwrap().to_owned();
    make_active(&app, &branch).await;
    let ready = "update branches set state = 'ready', serves = true where project_id = $1";
    run(&app, ready, &branch).await;
    make_due(&app, &parent).await;
    let begun = app.control_plane.begin_scheduled_backups(4).await;
    assert_eq!(begun.unwrap(), 1);
    let status = async || backups(&ada, &parent).await[0]["status"].clone();
    assert_eq!(status().await, "running");

    // It waits for a worker that does not come; what it begins is there.
    let begin_merge = async || {
        let merge = format!("/projects/v1/branches/{branch}/merge");
        let begun = eventually("the merge begins", Duration::from_secs(10), async || {
            let newest = app.newest_operation(branch.parse().unwrap()).await;
            (newest.kind == OperationKind::MergeBranch && newest.state.is_in_flight()).then_some(())
        });
        tokio::select! {
            answer = ada.post(&merge) => panic!("{}", answer.text),
            () = begun => {}
        }
    };
    begin_merge().await;
    assert_eq!(status().await, "failed");
    let cancelled = app.newest_operation(parent.parse().unwrap()).await;
    assert_eq!(cancelled.kind, OperationKind::Backup);
    assert_eq!(cancelled.state, OperationState::Cancelled);
    // It comes again within the hour.
    let soon: bool = sqlx::query_scalar(
        "select next_backup_at <= now() + interval '61 minutes' from projects where id = $1",
    )
    .bind(Uuid::parse_str(&parent).unwrap())
    .fetch_one(&mut app.database.connect().await)
    .await
    .unwrap();
    assert!(soon);

    // The next one is somebody's own.
    make_active(&app, &branch).await;
    run(&app, ready, &branch).await;
    begin_backup(&ada, &parent).await;
    begin_merge().await;
    assert_eq!(status().await, "running");
}

#[tokio::test]
async fn how_long_a_daily_backup_waits_is_told_to_operators() {
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let project = active_project(&app, &ada).await;
    let waits = async || {
        let seconds = app.control_plane.oldest_due_backup_seconds().await.unwrap();
        Duration::from_secs_f64(seconds).as_secs()
    };
    assert_eq!(waits().await, 0);
    let due = "update projects set next_backup_at = now() - interval '7 hours' where id = $1";
    run(&app, due, &project).await;
    let seconds = waits().await;
    assert!((25_200..25_260).contains(&seconds), "{seconds}");
    // A paused project's backup waits for nobody.
    let paused = "update projects set status = 'paused' where id = $1";
    run(&app, paused, &project).await;
    assert_eq!(waits().await, 0);
    make_active(&app, &project).await;
    let begun = app.control_plane.begin_scheduled_backups(4).await;
    assert_eq!(begun.unwrap(), 1);
    assert_eq!(waits().await, 0);
}

#[tokio::test]
async fn all_workers_together_make_so_many_daily_backups_at_once() {
    const AT_ONCE: usize = 3;
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let home = ada.home().await;
    let pro = "update organizations set plan = 'pro' where id = $1";
    run(&app, pro, &home).await;
    for n in 0..12 {
        let made = ada.begin_project(&home, &format!("shop {n}")).await;
        let id = made.expect(201)["project"]["id"].clone();
        make_active(&app, id.as_str().unwrap()).await;
        make_due(&app, id.as_str().unwrap()).await;
    }
    let in_flight = async || -> i64 {
        sqlx::query_scalar(
            "select count(*) from operations where kind = 'backup' and state in ('queued', 'running', 'waiting')",
        )
        .fetch_one(&mut app.database.connect().await)
        .await
        .unwrap()
    };
    let workers: Vec<_> = (0..6).map(|_| app.another_control_plane()).collect();
    // They come one shortly after the other, so that some count while others begin.
    for round in 0..24 {
        let rounds = workers.iter().enumerate().map(async |(n, worker)| {
            tokio::time::sleep(Duration::from_micros(700 * n as u64 + 100 * round)).await;
            worker.begin_scheduled_backups(AT_ONCE).await
        });
        let begun: usize = join_all(rounds).await.into_iter().map(Result::unwrap).sum();
        assert_eq!(begun, AT_ONCE, "round {round}");
        assert_eq!(in_flight().await, 3, "round {round}");
        let more = app.control_plane.begin_scheduled_backups(AT_ONCE).await;
        assert_eq!(more.unwrap(), 0, "round {round}");
        for statement in [
            "update operations set state = 'succeeded' where kind = 'backup'",
            "update projects set next_backup_at = now() - interval '1 minute'",
        ] {
            sqlx::query(statement)
                .execute(&mut app.database.connect().await)
                .await
                .unwrap();
        }
    }
}
