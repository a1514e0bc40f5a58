//! `backups create`, `latest` and `restore` with a real database and a store.

use std::sync::Arc;

use cp_tests::{AppOptions, Local, WorkerProcess};
use serde_json::{Value, json};

use crate::platform::checklist::forms::{BACKUP_BEGUN, LATEST_BACKUP};
use crate::platform::checklist::{Story, id_of, shown};
use crate::real::stops::config;

struct World {
    story: Story,
    project: String,
    _worker: WorkerProcess,
    _local: Local,
}

impl World {
    async fn of(command: &str) -> Self {
        let local = Local::start().await;
        let options = AppOptions {
            compute: Some(Arc::new(local.compute.clone())),
            downloads: Some(local.objects.clone()),
            worker: false,
            ..AppOptions::default()
        };
        let story = Story::with(command, options).await;
        let worker = story.app.start_worker(config(&story.app, &local, "main"));
        let project = story.active_project().await;
        Self {
            story,
            project,
            _worker: worker,
            _local: local,
        }
    }

    fn path(&self, rest: &str) -> String {
        format!("/projects/v1/{}{rest}", self.project)
    }

    /// By the same person elsewhere.
    async fn backup(&self) -> Value {
        let path = self.path("/backup?waitForCompletion=true");
        let made = self
            .story
            .ada
            .send(reqwest::Method::POST, &path, &json!({}))
            .await;
        made.expect(200)["backup"].clone()
    }
}

#[tokio::test]
async fn backups_create() {
    let world = World::of("backups create").await;
    let (story, project) = (&world.story, &world.project);
    // `--wait`: one request, answered when it is done.
    let named = json!({ "name": "before-launch" });
    let waiting = world.path("/backup?waitForCompletion=true");
    let made = story.cli.post_json(&waiting, named).await;
    let made = made.shaped(200, &BACKUP_BEGUN);
    assert_eq!(
        made["project"],
        json!({ "id": project, "name": "storefront", "status": "active" })
    );
    assert_eq!(made["backup"]["status"], "completed");
    // The one place of the plan is taken; a failed request changes nothing.
    shown(story.cli.post_json(&waiting, json!({})).await, 403);
    let taken = id_of(&made["backup"]);
    story
        .ada
        .delete(&world.path(&format!("/backups/{taken}")))
        .await
        .expect(204);
    // Without a name the body is `{}`, and without the query it is answered at once.
    let begun = story.cli.post_json(&world.path("/backup"), json!({})).await;
    let begun = begun.shaped(202, &BACKUP_BEGUN);
    assert_eq!(begun["backup"]["name"], Value::Null);
    assert_eq!(begun["backup"]["status"], "running");
}

#[tokio::test]
async fn backups_latest() {
    let world = World::of("backups latest").await;
    let (story, path) = (&world.story, world.path("/backup/latest"));
    // There is none: passed through, exit 0.
    shown(story.cli.get(&path).await, 404);
    let backup = world.backup().await;
    let latest = story.cli.get(&path).await.shaped(200, &LATEST_BACKUP);
    assert_eq!(latest["size_bytes"], backup["size_bytes"]);
    let url = latest["download_url"].as_str().unwrap();
    let fetched = story.app.http.get(url).send().await.unwrap();
    assert_eq!(fetched.status(), 200);
    let fetched = fetched.bytes().await.unwrap();
    assert_eq!(Some(fetched.len() as u64), backup["size_bytes"].as_u64());
}

#[tokio::test]
async fn backups_restore() {
    let world = World::of("backups restore").await;
    let story = &world.story;
    let backup = id_of(&world.backup().await);
    // A content type and no body.
    let restore = world.path(&format!("/backups/{backup}/restore"));
    let begun = story.cli.post(&restore).await.expect(202);
    assert_eq!(begun["project"]["status"], "restoring");
    story.ada.await_status(&world.project, "active").await;
    let unknown = uuid::Uuid::now_v7();
    let unknown = world.path(&format!("/backups/{unknown}/restore"));
    shown(story.cli.post(&unknown).await, 404);
}
