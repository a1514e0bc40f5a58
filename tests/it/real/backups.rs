//! Backups with real machines, databases and copies (contract/platform-api.md 11), through the calls of the command-line
//! client; and their crashes.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::{OperationKind, OperationState, ProjectId, ProjectStatus};
use cp_tests::programs::Backend;
use cp_tests::{
    Answer, App, AppOptions, Local, Member, MovingClock, Person, WorkerProcess, eventually,
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use super::stops::{DONE, config, cut_object, die_at, sites, until_active};

pub(super) const TITLES: &str = "select title from notes order by title";

/// Somebody's active project, and a worker unless it is stopped.
pub(super) struct Story {
    pub(super) app: App,
    pub(super) local: Local,
    clock: Arc<MovingClock>,
    person: Person,
    pub(super) ada: Member,
    pub(super) id: ProjectId,
    pub(super) backend: Backend,
    pub(super) worker: Option<WorkerProcess>,
}

impl Story {
    pub(super) async fn start() -> Self {
        let local = Local::start().await;
        let clock = MovingClock::new();
        let app = App::start_with(AppOptions {
            compute: Some(Arc::new(local.compute.clone())),
            downloads: Some(local.objects.clone()),
            clock: clock.clone(),
            worker: false,
            ..AppOptions::default()
        })
        .await;
        let person = app.stranger("ada").await;
        let ada = app.member_of(&person).await;
        let worker = app.start_worker(config(&app, &local, "first"));
        let home = ada.home().await;
        let made = ada.begin_project(&home, "shop").await.expect(201);
        let id: ProjectId = made["project"]["id"].as_str().unwrap().parse().unwrap();
        until_active(&app, id).await;
        let backend = backend(&ada, id).await;
        backend.write("first").await;
        Self {
            app,
            local,
            clock,
            person,
            ada,
            id,
            backend,
            worker: Some(worker),
        }
    }

    /// Her sign-in is over by then, so she logs in again.
    pub(super) async fn advance(&mut self, by: TimeDelta) {
        self.clock.advance(by);
        self.ada = self.app.member_of(&self.person).await;
    }

    pub(super) fn path(&self, rest: &str) -> String {
        format!("/projects/v1/{}{rest}", self.id)
    }

    async fn back_up(&self, query: &str, body: &Value) -> Answer {
        let path = self.path(&format!("/backup{query}"));
        self.ada.send(Method::POST, &path, body).await
    }

    /// The id of a whole backup.
    pub(super) async fn backup(&self) -> String {
        let made = self
            .back_up("?waitForCompletion=true", &json!({}))
            .await
            .expect(200);
        made["backup"]["id"].as_str().unwrap().to_owned()
    }

    pub(super) async fn list(&self) -> Vec<Value> {
        let listed = self.ada.get(&self.path("/backups")).await.expect(200);
        listed["backups"].as_array().unwrap().clone()
    }

    pub(super) async fn restore(&self, backup: &str) {
        let path = self.path(&format!("/backups/{backup}/restore"));
        let answer = self.ada.post(&path).await.expect(202);
        assert_eq!(answer["project"]["status"], "restoring", "{answer}");
    }

    pub(super) async fn add(&self, title: &str) {
        let statement = format!("insert into notes values ('{title}')");
        self.backend.sql(&statement).await;
    }

    pub(super) fn start_worker(&mut self) {
        let config = config(&self.app, &self.local, "next");
        self.worker = Some(self.app.start_worker(config));
    }

    pub(super) async fn until_restored(&self) {
        until_active(&self.app, self.id).await;
    }

    pub(super) async fn stored(&self) -> Vec<String> {
        let prefix = format!("projects/{}", self.id);
        self.local.objects_under(&prefix).await
    }

    /// What a restore keeps meanwhile is gone.
    pub(super) async fn only_one_database(&self, site: &str) {
        let others = "select datname from pg_database where datname like 'control_plane%'";
        let what = format!("{site}: the old database is gone");
        eventually(&what, DONE, async || {
            (self.backend.sql(others).await == json!([])).then_some(())
        })
        .await;
    }
}

async fn backend(ada: &Member, id: ProjectId) -> Backend {
    let project = ada.project(&id.to_string()).await;
    let path = format!("/projects/v1/{id}/access-api-key");
    let key = ada.get(&path).await.expect(200);
    Backend::of(&json!({
        "id": id,
        "access_host": project["access_host"],
        "api_key": key["access_api_key"],
    }))
}

#[tokio::test]
async fn a_backup_is_made_fetched_named_restored_and_deleted() {
    let mut story = Story::start().await;
    let path = story.path("/backup/latest");
    story
        .ada
        .get(&path)
        .await
        .expect_code(404, "backup_not_found");
    assert!(story.list().await.is_empty());

    let body = json!({ "name": "before-launch" });
    let made = story.back_up("?waitForCompletion=true", &body).await;
    let made = made.expect(200);
    assert_eq!(made["message"], "The backup is complete.");
    assert_eq!(
        made["project"],
        json!({ "id": story.id, "name": "shop", "status": "active" })
    );
    let [backup] = &story.list().await[..] else {
        panic!("one backup")
    };
    let id = backup["id"].as_str().unwrap();
    for (field, expected) in [
        ("project_id", json!(story.id)),
        ("plan", json!("free")),
        ("status", json!("completed")),
        ("trigger_source", json!("manual")),
        ("error_message", Value::Null),
        ("name", json!("before-launch")),
        ("created_by", json!(story.ada.user)),
    ] {
        assert_eq!(backup[field], expected, "{field}: {backup}");
    }
    let size = backup["size_bytes"].as_u64().unwrap();

    // All that is in the database, for whoever has the link.
    let latest = story.ada.get(&path).await.expect(200);
    assert_eq!(latest["size_bytes"], size);
    let file = latest["file"].as_str().unwrap().rsplit_once('.');
    assert_eq!(file.unwrap().1, "dump");
    let url = latest["download_url"].as_str().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let fetched = client.get(url).send().await.unwrap();
    assert_eq!(fetched.status(), 200);
    let fetched = fetched.bytes().await.unwrap();
    assert_eq!(fetched.len() as u64, size);
    assert!(fetched.starts_with(b"PGDMP"));

    // The free plan has one place.
    let refused = story.back_up("", &json!({})).await;
    refused.expect_code(403, "backup_limit_reached");
    let named = story.path(&format!("/backups/{id}"));
    let none = json!({ "name": null });
    let renamed = story.ada.send(Method::PATCH, &named, &none).await;
    assert_eq!(renamed.expect(200), json!({ "id": id, "name": null }));

    // What came later is gone, but for a key that took another's place meanwhile.
    story.add("second").await;
    let rotate = format!("{}/api/secrets/api-key/rotate", story.backend.host);
    let request = client.post(rotate).bearer_auth(&story.backend.key);
    let rotated = Answer::to(request.json(&json!({ "gracePeriodHours": 0 }))).await;
    let old_key = story.backend.key.clone();
    let new_key = rotated.expect(200)["apiKey"].as_str().unwrap().to_owned();
    story.backend.key.clone_from(&new_key);
    story.restore(id).await;
    let busy = story.back_up("", &json!({})).await;
    busy.expect_code(409, "operation_in_progress");
    story
        .ada
        .delete(&named)
        .await
        .expect_code(409, "backup_being_restored");
    story.until_restored().await;
    assert_eq!(
        story.backend.sql(TITLES).await,
        json!([{ "title": "first" }])
    );
    story.only_one_database("restored").await;
    let known = story.ada.get(&story.path("/access-api-key")).await;
    assert_eq!(known.expect(200)["access_api_key"], new_key);
    story.backend.key = old_key;
    let refused = story.backend.try_sql(TITLES).await.unwrap();
    assert_eq!(refused.status, 401, "{}", refused.text);

    // Deleted: for people at once, in the store soon after.
    story.ada.delete(&named).await.expect(204);
    assert!(story.list().await.is_empty());
    story
        .ada
        .delete(&named)
        .await
        .expect_code(404, "backup_not_found");
    assert_eq!(story.stored().await.len(), 1);
    story.advance(TimeDelta::minutes(2)).await;
    eventually("nothing is stored", DONE, async || {
        story.stored().await.is_empty().then_some(())
    })
    .await;

    // A project takes its backups along.
    story.backup().await;
    story.ada.delete(&story.path("")).await.expect(204);
    eventually("the project is deleted", DONE, async || {
        (story.app.status_of(story.id).await == ProjectStatus::Deleted).then_some(())
    })
    .await;
    assert_eq!(story.stored().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_backend_tells_its_administrators_how_its_database_is_entered() {
    let story = Story::start().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |what: &str| {
        let url = format!("{}/api/metadata/database-{what}", story.backend.host);
        let request = client.get(url).bearer_auth(&story.backend.key);
        Answer::to(request).await.expect(200)
    };
    // The backend asks us, with its signature, and passes on what we say.
    let access = get("connection-string").await;
    let password = get("password").await["databasePassword"].clone();
    assert_eq!(access["parameters"]["password"], password);
    let mut database = PgConnection::connect(access["connectionURL"].as_str().unwrap())
        .await
        .unwrap();
    let titles: Vec<String> = sqlx::query_scalar("select title from notes")
        .fetch_all(&mut database)
        .await
        .unwrap();
    assert_eq!(titles, ["first"]);
    let parameters = &access["parameters"];
    assert_eq!(parameters["host"], "127.0.0.1");
    assert!(parameters["port"].is_number(), "{parameters}");
    assert_eq!(parameters["database"], "insforge");
}

#[tokio::test]
async fn a_backup_survives_every_crash_and_is_stored_once() {
    let mut story = Story::start().await;
    for (step, point) in sites(OperationKind::Backup) {
        let site = format!("{step} {}", point.as_str());
        story.worker = None;
        story.back_up("", &json!({})).await.expect(202);
        let doomed = config(&story.app, &story.local, "doomed");
        die_at(&story.app, doomed, story.id, step, point).await;
        story.start_worker();
        let backup = eventually(&format!("{site}: it is complete"), DONE, async || {
            let newest = story.list().await.swap_remove(0);
            (newest["status"] == "completed").then_some(newest)
        })
        .await;
        let id = backup["id"].as_str().unwrap();
        let project = story.ada.project(&story.id.to_string()).await;
        assert_eq!(project["status"], "active", "{site}");
        let named = story.path(&format!("/backups/{id}"));
        story.ada.delete(&named).await.expect(204);
    }
    story.advance(TimeDelta::minutes(2)).await;
    eventually("what crashes left is gone, too", DONE, async || {
        story.stored().await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_restore_survives_every_crash() {
    let mut story = Story::start().await;
    let backup = story.backup().await;
    for (step, point) in sites(OperationKind::RestoreBackup) {
        let site = format!("{step} {}", point.as_str());
        story.add("later").await;
        story.worker = None;
        story.restore(&backup).await;
        let doomed = config(&story.app, &story.local, "doomed");
        die_at(&story.app, doomed, story.id, step, point).await;
        story.start_worker();
        story.until_restored().await;
        let titles = story.backend.sql(TITLES).await;
        assert_eq!(titles, json!([{ "title": "first" }]), "{site}");
        story.only_one_database(&site).await;
    }
}

#[tokio::test]
async fn a_restore_that_fails_leaves_the_project_as_it_was() {
    let mut story = Story::start().await;
    let backup = story.backup().await;
    story.add("second").await;
    let size = story.list().await[0]["size_bytes"].as_u64().unwrap();
    cut_object(&story.local, size);
    story.restore(&backup).await;
    let operation = story.app.newest_operation(story.id).await;
    eventually("the last attempt comes", DONE, async || {
        let statement = "update operations set attempts = 7, next_attempt_at = now() \
                         where id = $1 and step = 'restore_copy' and attempts between 1 and 6";
        let done = sqlx::query(statement)
            .bind(operation.id.0)
            .execute(&mut story.app.database.connect().await)
            .await
            .unwrap();
        (done.rows_affected() == 1).then_some(())
    })
    .await;
    story.start_worker();
    story.until_restored().await;
    let both = json!([{ "title": "first" }, { "title": "second" }]);
    assert_eq!(story.backend.sql(TITLES).await, both);
    story.only_one_database("put back").await;
    let ended = story.app.operation(operation.id).await;
    assert_eq!(ended.state, OperationState::Failed);
    let failure = ended.error.unwrap();
    assert_eq!(failure.code, "backup.restore_failed");
    assert!(failure.message.contains("as it was before"), "{failure:?}");
}

#[tokio::test]
async fn backups_are_made_daily_and_kept_for_a_week() {
    let mut story = Story::start().await;
    assert!(story.list().await.is_empty(), "a day has not passed");
    for day in 1..=9 {
        story.advance(TimeDelta::hours(24)).await;
        let newest = eventually(&format!("day {day}"), DONE, async || {
            let listed = story.list().await;
            let newest = listed.first()?.clone();
            let at: DateTime<Utc> = newest["created_at"].as_str()?.parse().ok()?;
            let age = story.app.control_plane.clock().now() - at;
            let is_new = age < TimeDelta::hours(1);
            (is_new && newest["status"] == "completed").then_some(newest)
        })
        .await;
        assert_eq!(newest["trigger_source"], "scheduled");
        assert_eq!(newest["created_by"], Value::Null);
    }
    eventually("seven days are left", DONE, async || {
        (story.list().await.len() == 7).then_some(())
    })
    .await;
    // They take no place of the plan, and a manual one is not what expires.
    let manual = story.backup().await;
    story.ada.post(&story.path("/pause")).await.expect(202);
    eventually("it is paused", DONE, async || {
        (story.app.status_of(story.id).await == ProjectStatus::Paused).then_some(())
    })
    .await;
    // Nothing is made of a paused project; the newest of the daily ones stays.
    story.advance(TimeDelta::days(30)).await;
    let left = eventually("two are left", DONE, async || {
        let left = story.list().await;
        (left.len() == 2).then_some(left)
    })
    .await;
    assert_eq!(left[0]["id"], manual);
    assert_eq!(left[1]["trigger_source"], "scheduled");
}

#[tokio::test]
async fn a_scheduled_backup_makes_way_and_one_that_people_wait_for_does_not() {
    let mut story = Story::start().await;
    story.worker = None;
    story.advance(TimeDelta::hours(25)).await;
    let begun = story.app.control_plane.begin_scheduled_backups(4).await;
    assert_eq!(begun.unwrap(), 1);
    let again = story.app.control_plane.begin_scheduled_backups(4).await;
    assert_eq!(again.unwrap(), 0, "it is begun once");
    let project = story.ada.project(&story.id.to_string()).await;
    assert_eq!(project["operation_status"], "backing_up");
    assert_eq!(project["status"], "active");
    story.ada.post(&story.path("/pause")).await.expect(202);
    assert_eq!(story.list().await[0]["status"], "failed");
    story.start_worker();
    eventually("it is paused", DONE, async || {
        (story.app.status_of(story.id).await == ProjectStatus::Paused).then_some(())
    })
    .await;
    story.ada.post(&story.path("/restore")).await.expect(202);
    until_active(&story.app, story.id).await;
    // It comes again within the hour.
    story.worker = None;
    story.advance(TimeDelta::minutes(61)).await;
    let begun = story.app.control_plane.begin_scheduled_backups(4).await;
    assert_eq!(begun.unwrap(), 1);

    // Somebody's own takes its place, and stays.
    story.back_up("", &json!({})).await.expect(202);
    let refused = story.ada.post(&story.path("/pause")).await;
    refused.expect_code(409, "operation_in_progress");
    // Ten who want the one place at once are refused, too.
    let body = json!({});
    let calls = (0..10).map(|_| story.back_up("", &body));
    for answer in futures::future::join_all(calls).await {
        answer.expect_code(409, "operation_in_progress");
    }
    story.start_worker();
    let made = eventually("it is complete", DONE, async || {
        let newest = story.list().await.swap_remove(0);
        (newest["status"] == "completed").then_some(newest)
    })
    .await;
    assert_eq!(made["trigger_source"], "manual");
}

#[tokio::test]
async fn the_one_place_goes_to_one_of_many_and_others_backups_are_not_there() {
    let mut story = Story::start().await;
    story.worker = None;
    let body = json!({});
    let calls = (0..10).map(|_| story.back_up("", &body));
    let answers = futures::future::join_all(calls).await;
    let won = answers.iter().filter(|answer| answer.status == 202).count();
    assert_eq!(won, 1);
    let id = story.list().await[0]["id"].as_str().unwrap().to_owned();
    let eve = story.app.member("eve").await;
    for (method, rest, body) in [
        (Method::GET, "/backups".to_owned(), Value::Null),
        (Method::GET, "/backup/latest".to_owned(), Value::Null),
        (Method::POST, "/backup".to_owned(), json!({})),
        (
            Method::PATCH,
            format!("/backups/{id}"),
            json!({ "name": "mine" }),
        ),
        (Method::DELETE, format!("/backups/{id}"), Value::Null),
        (Method::POST, format!("/backups/{id}/restore"), Value::Null),
    ] {
        let answer = eve.send(method, &story.path(&rest), &body).await;
        answer.expect_code(404, "project_not_found");
    }
    // Nor through a project of one's own.
    let home = eve.home().await;
    let own = eve.begin_project(&home, "mine").await.expect(201);
    let own = own["project"]["id"].as_str().unwrap().to_owned();
    for (method, rest) in [(Method::DELETE, ""), (Method::POST, "/restore")] {
        let path = format!("/projects/v1/{own}/backups/{id}{rest}");
        let answer = eve.request(method, &path);
        Answer::to(answer)
            .await
            .expect_code(404, "backup_not_found");
    }
    // Names are checked before anything is done.
    for bad in [json!(""), json!("x".repeat(65)), json!(7), json!("a\u{0}b")] {
        let answer = story.back_up("", &json!({ "name": bad })).await;
        answer.expect_code(400, "invalid_input");
    }
    let named = story.path(&format!("/backups/{id}"));
    let answer = story.ada.send(Method::PATCH, &named, &json!({})).await;
    answer.expect_code(400, "invalid_input");
    // While it is made it can be renamed, and not restored.
    let restore = format!("{named}/restore");
    story
        .ada
        .post(&restore)
        .await
        .expect_code(409, "backup_running");
    let night = json!({ "name": " night " });
    let renamed = story.ada.send(Method::PATCH, &named, &night).await;
    assert_eq!(renamed.expect(200)["name"], "night");
    // Deleted meanwhile, it is given up, and its place is free.
    story.ada.delete(&named).await.expect(204);
    assert!(story.list().await.is_empty());
    story.back_up("", &json!({})).await.expect(202);
}
