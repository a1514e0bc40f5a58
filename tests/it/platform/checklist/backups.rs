//! `backups` (contract/platform-api.md 11). What copies a database stands in `real`.

mod real;

use serde_json::{Value, json};

use super::forms::{BACKUP_RENAMED, BACKUPS};
use super::{Story, id_of, shown};

impl Story {
    /// An active project with a backup that nobody makes: there is no worker.
    async fn with_running_backup(&self) -> (String, String) {
        let project = self.project().await;
        let ended = "update operations set state = 'succeeded' where project_id = $1";
        self.run(ended, &project).await;
        let active = "update projects set status = 'active' where id = $1";
        self.run(active, &project).await;
        let path = format!("/projects/v1/{project}/backup");
        let body = json!({ "name": "before-launch" });
        let begun = self.ada.send(reqwest::Method::POST, &path, &body).await;
        let backup = id_of(&begun.expect(202)["backup"]);
        (project, backup)
    }
}

async fn list(story: &Story, project: &str) -> Value {
    let listed = story
        .cli
        .get(&format!("/projects/v1/{project}/backups"))
        .await;
    listed.shaped(200, &BACKUPS)
}

#[tokio::test]
async fn backups_list() {
    let story = Story::of("backups list").await;
    let (project, backup) = story.with_running_backup().await;
    let listed = list(&story, &project).await;
    let [seen] = &listed["backups"].as_array().unwrap()[..] else {
        panic!("one backup: {listed}");
    };
    assert_eq!(id_of(seen), backup);
    for (field, expected) in [
        ("project_id", json!(project)),
        ("plan", json!("free")),
        ("status", json!("running")),
        ("trigger_source", json!("manual")),
        ("name", json!("before-launch")),
        ("size_bytes", Value::Null),
        ("created_by", json!(story.ada.user)),
    ] {
        assert_eq!(seen.get(field), Some(&expected), "{field}: {seen}");
    }
    story.run("update operations set state = 'failed', error_code = 'copy_failed', error_message = 'no room' where project_id = $1 and kind = 'backup'", &project).await;
    let listed = list(&story, &project).await;
    assert_eq!(listed["backups"][0]["status"], "failed");
    assert_eq!(listed["backups"][0]["error_message"], "no room");
}

#[tokio::test]
async fn backups_rename() {
    let story = Story::of("backups rename").await;
    let (project, backup) = story.with_running_backup().await;
    let path = format!("/projects/v1/{project}/backups/{backup}");
    for name in [json!("night"), Value::Null] {
        let renamed = story.cli.patch(&path, json!({ "name": name })).await;
        let renamed = renamed.shaped(200, &BACKUP_RENAMED);
        assert_eq!(renamed, json!({ "id": backup, "name": name }), "bare");
    }
    let long = json!({ "name": "x".repeat(65) });
    let text = shown(story.cli.patch(&path, long).await, 400);
    assert!(text.contains("name"), "{text}");
}

#[tokio::test]
async fn backups_delete() {
    let story = Story::of("backups delete").await;
    let (project, backup) = story.with_running_backup().await;
    let path = format!("/projects/v1/{project}/backups/{backup}");
    let deleted = story.cli.delete(&path).await;
    assert_eq!((deleted.status, &*deleted.text), (204, ""));
    shown(story.cli.delete(&path).await, 404);
    let listed = story
        .ada
        .get(&format!("/projects/v1/{project}/backups"))
        .await;
    assert_eq!(listed.expect(200), json!({ "backups": [] }));
}
