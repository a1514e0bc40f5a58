//! `branch create`, `merge` and `reset` with real machines and copies.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use cp_tests::programs::Backend;
use cp_tests::{AppOptions, Local, WorkerProcess, eventually};
use serde_json::{Value, json};

use super::find;
use crate::platform::checklist::forms::{ACCESS_API_KEY, CONFLICT, DIFF, MERGED, ONE_BRANCH};
use crate::platform::checklist::{Story, id_of};
use crate::real::stops::config;

/// 16
const CREATED: Duration = Duration::from_mins(15);
const RESET: Duration = Duration::from_mins(5);

struct World {
    story: Story,
    parent: String,
    backend: Backend,
    _worker: WorkerProcess,
    _local: Local,
}

impl World {
    /// A project with people in it.
    async fn of(command: &str) -> Self {
        let local = Local::start().await;
        let options = AppOptions {
            compute: Some(Arc::new(local.compute.clone())),
            worker: false,
            ..AppOptions::default()
        };
        let story = Story::with(command, options).await;
        let worker = story.app.start_worker(config(&story.app, &local, "main"));
        let parent = story.active_project().await;
        let backend = backend(&story, &parent).await;
        backend
            .sql("create table people (id bigint primary key, name text)")
            .await;
        Self {
            story,
            parent,
            backend,
            _worker: worker,
            _local: local,
        }
    }

    /// What only arranges a row, by the same person elsewhere.
    async fn branch(&self, name: &str) -> Backend {
        let body = json!({ "mode": "full", "name": name });
        let path = format!("/projects/v1/{}/branches", self.parent);
        let ada = &self.story.ada;
        let made = ada.send(reqwest::Method::POST, &path, &body).await;
        let id = id_of(&made.expect(201)["branch"]);
        let path = format!("/projects/v1/branches/{id}");
        eventually("the branch is ready", CREATED, async || {
            let seen = ada.get(&path).await.expect(200);
            (seen["branch"]["branch_state"] == "ready").then_some(())
        })
        .await;
        backend(&self.story, &id).await
    }

    /// Polls as the client does: any answer has to be a branch.
    async fn poll(&self, id: &str, until: &[&str], at_most: Duration) -> Value {
        let path = format!("/projects/v1/branches/{id}");
        eventually("the branch's state", at_most, async || {
            let seen = self.story.cli.get(&path).await.shaped(200, &ONE_BRANCH);
            let seen = seen["branch"].clone();
            let state = seen["branch_state"].as_str().unwrap();
            assert!(!matches!(state, "deleted" | "conflicted"), "{seen}");
            until.contains(&state).then_some(seen)
        })
        .await
    }
}

async fn backend(story: &Story, project: &str) -> Backend {
    let seen = story.ada.project(project).await;
    let path = format!("/projects/v1/{project}/access-api-key");
    let key = story.ada.get(&path).await.expect(200);
    Backend::of(&json!({
        "id": project,
        "access_host": seen["access_host"],
        "api_key": key["access_api_key"],
    }))
}

#[tokio::test]
async fn branch_create() {
    let world = World::of("branch create").await;
    let (story, parent) = (&world.story, &world.parent);
    let before = story.app.control_plane.clock().now();
    let body = json!({ "mode": "full", "name": "Feat-Coupons" });
    let path = format!("/projects/v1/{parent}/branches");
    let made = story.cli.post_json(&path, body).await;
    let made = made.shaped(201, &ONE_BRANCH)["branch"].clone();
    // Had the answer been lost, the client would find it and adopt it (10.3).
    let listed = find(&story.cli, parent, "Feat-Coupons").await.unwrap();
    assert_eq!(listed["id"], made["id"]);
    assert_eq!(listed["branch_metadata"]["mode"], "full");
    let at = made["branch_created_at"].as_str().unwrap();
    let at: DateTime<Utc> = at.parse().unwrap();
    assert!(at >= before - TimeDelta::seconds(60), "{at}");
    let id = id_of(&made);
    let ready = world.poll(&id, &["ready"], CREATED).await;
    for field in ["appkey", "region", "organization_id", "name"] {
        assert_eq!(ready[field], made[field], "{field}");
    }
    // Its host serves by then, and the list says that it is ready, too.
    let host = ready["access_host"].as_str().unwrap();
    let health = story.app.http.get(format!("{host}/api/health")).send();
    assert!(health.await.unwrap().status().is_success());
    let listed = find(&story.cli, parent, "Feat-Coupons").await.unwrap();
    assert_eq!(listed["branch_state"], "ready");
    let key = story
        .cli
        .get(&format!("/projects/v1/{id}/access-api-key"))
        .await;
    key.shaped(200, &ACCESS_API_KEY);
    let branch = backend(story, &id).await;
    assert_eq!(branch.sql("select * from people").await, json!([]));
}

#[tokio::test]
async fn branch_merge() {
    let world = World::of("branch merge").await;
    let (cli, parent) = (&world.story.cli, &world.backend);
    let branch = world.branch("feat-coupons").await;
    branch
        .sql("create table coupons (id bigint primary key)")
        .await;
    let change =
        |default: &str| format!("alter table people alter column name set default '{default}'");
    branch.sql(&change("nobody")).await;
    parent.sql(&change("someone")).await;

    let listed = find(cli, &world.parent, "feat-coupons").await.unwrap();
    let merge = format!("/projects/v1/branches/{}/merge", id_of(&listed));
    let dry_run = async || {
        let diff = cli.post(&format!("{merge}?dryRun=true")).await;
        diff.shaped(200, &DIFF)
    };
    let diff = dry_run().await;
    assert_eq!(diff["summary"]["added"], 1, "{diff}");
    assert_eq!(diff["summary"]["conflicts"], 1, "{diff}");
    assert_eq!(diff["conflicts"].as_array().unwrap().len(), 1);
    let sql = diff["rendered_sql"].as_str().unwrap();
    assert!(sql.starts_with("--") && sql.contains("BLOCKED"), "{sql}");
    assert!(sql.contains("BEGIN") && sql.contains("[DDL]"), "{sql}");
    // Executed all the same: 409 with the diff, and nothing is changed.
    let conflict = cli.post(&merge).await.shaped(409, &CONFLICT);
    assert_eq!(conflict["diff"]["summary"]["conflicts"], 1);
    let tables = "select tablename from pg_tables where tablename = 'coupons'";
    assert_eq!(parent.sql(tables).await, json!([]));

    parent
        .sql("alter table people alter column name drop default")
        .await;
    let diff = dry_run().await;
    assert_eq!(diff["summary"]["conflicts"], 0, "{diff}");
    let merged = cli.post(&merge).await.shaped(200, &MERGED);
    assert_eq!(merged["branchId"], listed["id"]);
    assert_eq!(parent.sql("select * from coupons").await, json!([]));
}

#[tokio::test]
async fn branch_reset() {
    let world = World::of("branch reset").await;
    let cli = &world.story.cli;
    let branch = world.branch("feat-coupons").await;
    branch.sql("insert into people values (1, 'Ada')").await;
    let listed = find(cli, &world.parent, "feat-coupons").await.unwrap();
    assert_eq!(
        listed["branch_state"], "ready",
        "others are refused locally"
    );
    let id = id_of(&listed);
    let reset = cli.post(&format!("/projects/v1/branches/{id}/reset")).await;
    let reset = reset.shaped(202, &ONE_BRANCH);
    assert_eq!(reset["branch"]["branch_state"], "resetting");
    // The first poll comes at once: what still saw `ready` would be taken for the end.
    let path = format!("/projects/v1/branches/{id}");
    let first = cli.get(&path).await.shaped(200, &ONE_BRANCH);
    assert_eq!(first["branch"]["branch_state"], "resetting");
    world.poll(&id, &["ready", "merged"], RESET).await;
    assert_eq!(branch.sql("select * from people").await, json!([]));
}
