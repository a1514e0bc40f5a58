//! Backups when something goes wrong between two steps: the store is away while one is deleted, an operator ends a restore
//! when the database was already replaced.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use cp_model::{OperationKind, OperationState, ProjectStatus, Region};
use cp_provider::{AwsAccess, S3Bucket, S3Objects};
use cp_tests::{Answer, eventually};
use cp_worker::{CrashPoint, WorkerConfig};
use serde_json::json;

use super::backups::{Story, TITLES};
use super::stops::{DONE, config, die_at};

/// A store that nobody serves.
async fn away() -> S3Objects {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let bucket = |region: Region| S3Bucket {
        aws_region: "us-east-1".to_owned(),
        name: region.to_string(),
        kms_key: None,
        endpoint: Some(url.clone()),
    };
    let buckets = Region::ALL.iter().map(|r| (*r, bucket(*r))).collect();
    let access = AwsAccess::fixed(&url, "test", "test");
    S3Objects::new(&access, buckets, Duration::from_millis(200))
}

#[tokio::test]
async fn a_deleted_backup_is_known_until_the_store_has_let_go_of_it() {
    let mut story = Story::start().await;
    let id = story.backup().await;
    let stored = story.stored().await;
    assert_eq!(stored.len(), 1);
    let rows = async |story: &Story| -> Vec<chrono::DateTime<chrono::Utc>> {
        sqlx::query_scalar("select deleted_at from backups")
            .fetch_all(&mut story.app.database.connect().await)
            .await
            .unwrap()
    };
    story.worker = None;
    let path = story.path(&format!("/backups/{id}"));
    story.ada.delete(&path).await.expect(204);
    let deleted_at = rows(&story).await[0];
    story.advance(TimeDelta::minutes(2)).await;
    let without_store = WorkerConfig {
        objects: Some(Arc::new(away().await)),
        backups_every: Duration::from_millis(200),
        ..config(&story.app, &story.local, "without")
    };
    story.worker = Some(story.app.start_worker(without_store));
    eventually("it tries, and puts it off", DONE, async || {
        let rows = rows(&story).await;
        assert_eq!(rows.len(), 1, "the row is what is known of the object");
        (rows[0] > deleted_at).then_some(())
    })
    .await;
    assert_eq!(story.stored().await, stored);
    // For people it is gone all the while.
    assert!(story.list().await.is_empty());

    story.start_worker();
    story.advance(TimeDelta::minutes(2)).await;
    eventually("nothing is stored, and nothing known", DONE, async || {
        (story.stored().await.is_empty() && rows(&story).await.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_restore_that_ended_halfway_is_finished_when_it_is_retried() {
    let mut story = Story::start().await;
    let backup = story.backup().await;
    story.add("second").await;
    let old_key = story.backend.key.clone();
    let rotate = format!("{}/api/secrets/api-key/rotate", story.backend.host);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(rotate).bearer_auth(&old_key);
    let rotated = Answer::to(request.json(&json!({ "gracePeriodHours": 0 }))).await;
    let new_key = rotated.expect(200)["apiKey"].as_str().unwrap().to_owned();

    // The backup is in the database's place, with the keys of then; what was there before is kept beside it.
    story.worker = None;
    story.restore(&backup).await;
    let doomed = config(&story.app, &story.local, "doomed");
    let point = CrashPoint::AfterEffect;
    die_at(&story.app, doomed, story.id, "restore_copy", point).await;
    let operation = story.app.newest_operation(story.id).await;
    assert_eq!(operation.kind, OperationKind::RestoreBackup);
    let control_plane = &story.app.control_plane;
    control_plane.cancel_operation(operation.id).await.unwrap();
    assert_eq!(story.app.status_of(story.id).await, ProjectStatus::Failed);

    let again = eventually("the dead worker's lease is over", DONE, async || {
        let retried = control_plane.retry_operation(operation.id, false).await;
        retried.ok()
    })
    .await;
    assert_ne!(again.id, operation.id, "what was cancelled stays so");
    story.start_worker();
    story.until_restored().await;
    let ended = story.app.operation(again.id).await;
    assert_eq!(ended.state, OperationState::Succeeded);
    // The keys are those of before the first attempt, not those of the backup.
    story.backend.key = new_key;
    let titles = story.backend.sql(TITLES).await;
    assert_eq!(titles, json!([{ "title": "first" }]));
    story.only_one_database("retried").await;
    story.backend.key = old_key;
    let refused = story.backend.try_sql(TITLES).await.unwrap();
    assert_eq!(refused.status, 401, "{}", refused.text);
}
