//! The crash enumeration for branches: a worker dies at every crash point of every step of what is done to a branch, with
//! real machines, databases and copies; the next worker goes on, and the end is the same as if nothing had happened.

use std::sync::Arc;
use std::time::Duration;

use cp_model::{OperationKind, OperationState, ProjectId, ProjectStatus, Region};
use cp_provider::Compute as _;
use cp_tests::programs::Backend;
use cp_tests::{App, AppOptions, Local, PartnerClient, WorkerProcess, eventually};
use cp_worker::{CrashPoint, WorkerConfig};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use super::stops::{DONE, config, cut_object, die_at, sites, steps, until_active};

const EMAILS: &str = "select email from users order by id";

#[tokio::test]
async fn creating_survives_every_crash_before_its_effects() {
    create_through_crashes(CrashPoint::BeforeEffect).await;
}

#[tokio::test]
async fn creating_survives_every_crash_after_its_effects() {
    create_through_crashes(CrashPoint::AfterEffect).await;
}

#[tokio::test]
async fn creating_survives_every_crash_after_its_records() {
    create_through_crashes(CrashPoint::AfterRecord).await;
}

async fn create_through_crashes(point: CrashPoint) {
    let world = World::start().await;
    for step in steps(OperationKind::CreateBranch) {
        let site = format!("{step} {}", point.as_str());
        let id = world.begin_branch("feat").await;
        world.die_at(id, step, point).await;
        let worker = world.worker();
        let branch = world.until_ready(&id, &site).await;
        assert_eq!(
            branch.sql(EMAILS).await,
            world.parent.sql(EMAILS).await,
            "{site}"
        );
        world.only_its_copies_are_stored(&id, &site).await;
        world.nothing_is_orphaned(&site).await;
        world.delete(&id, &site).await;
        drop(worker);
    }
}

#[tokio::test]
async fn a_reset_survives_every_crash() {
    let world = World::start().await;
    let id = world.branch("feat").await;
    for (step, point) in sites(OperationKind::ResetBranch) {
        let site = format!("{step} {}", point.as_str());
        let worker = world.worker();
        let branch = world.backend(&id).await;
        branch
            .sql("insert into users (email) values ('eve@example.com')")
            .await;
        drop(worker);
        world.post(&id, "reset", &json!({})).await;
        world.die_at(id, step, point).await;
        let worker = world.worker();
        let branch = world.until_ready(&id, &site).await;
        assert_eq!(
            branch.sql(EMAILS).await,
            world.parent.sql(EMAILS).await,
            "{site}"
        );
        world.only_one_database(&branch, &site).await;
        world.only_its_copies_are_stored(&id, &site).await;
        world.nothing_is_orphaned(&site).await;
        drop(worker);
    }
}

#[tokio::test]
async fn a_reset_that_fails_leaves_the_branch_as_it_was() {
    let world = World::start().await;
    let id = world.branch("feat").await;
    let mut worker = world.worker();
    let branch = world.backend(&id).await;
    let mine = "select i from mine";
    branch.sql("create table mine as select 7 as i").await;
    let before = world.copies_of(&id).await;

    // The store's disk has lost a piece of the dump.
    world.damage_dump(&id).await;
    world.post(&id, "reset", &json!({})).await;
    let operation = world.app.newest_operation(id).await;
    eventually("the last attempt comes", DONE, async || {
        let statement = "update operations set attempts = 7, next_attempt_at = now() \
                         where id = $1 and step = 'restore_copy' and attempts between 1 and 6";
        let done = sqlx::query(statement)
            .bind(operation.id.0)
            .execute(&mut world.app.database.connect().await)
            .await
            .unwrap();
        (done.rows_affected() == 1).then_some(())
    })
    .await;
    drop(std::mem::replace(&mut worker, world.worker()));
    let branch = world.until_ready(&id, "put back").await;
    assert_eq!(branch.sql(mine).await, json!([{ "i": 7 }]));
    world.only_one_database(&branch, "put back").await;
    let ended = world.app.operation(operation.id).await;
    assert_eq!(ended.state, OperationState::Failed);
    let failure = ended.error.unwrap();
    assert_eq!(failure.code, "branch.reset_failed");
    assert!(
        failure.message.contains("as it was before"),
        "{}",
        failure.message
    );
    assert_eq!(world.app.status_of(id).await, ProjectStatus::Active);
    // Its base is still its own: only what it did is a change.
    assert_eq!(world.copies_of(&id).await, before);
    let diff = world.diff(&id).await;
    assert_eq!(names(&diff["changes"]), ["mine"], "{diff}");
}

#[tokio::test]
async fn a_merge_survives_every_crash_and_is_done_once() {
    let world = World::start().await;
    let id = world.branch("feat").await;
    for (number, (step, point)) in sites(OperationKind::MergeBranch).into_iter().enumerate() {
        let site = format!("{step} {}", point.as_str());
        let branch = world.backend(&id).await;
        branch
            .sql(&format!("create table new_{number} (i int)"))
            .await;
        let merge = world.ask(&id, "merge", &json!({}));
        world.die_at(id, step, point).await;
        let worker = world.worker();
        assert_eq!(
            merge.await.unwrap().expect(200)["status"],
            "merged",
            "{site}"
        );
        assert_eq!(world.merges_of_parent().await, number + 1, "{site}");
        let there = format!("select count(*)::int as n from new_{number}");
        assert_eq!(
            world.parent.sql(&there).await,
            json!([{ "n": 0 }]),
            "{site}"
        );
        drop(worker);
    }
}

#[tokio::test]
async fn a_rebase_survives_every_crash_and_moves_the_base() {
    let world = World::start().await;
    let id = world.branch("feat").await;
    let branch = world.backend(&id).await;
    branch.sql("create table mine (i int)").await;
    branch.sql("insert into mine values (7)").await;
    for (number, (step, point)) in sites(OperationKind::RebaseBranch).into_iter().enumerate() {
        let site = format!("{step} {}", point.as_str());
        world
            .parent
            .sql(&format!("create table news_{number} (i int)"))
            .await;
        let rebase = world.ask(&id, "rebase", &json!({}));
        world.die_at(id, step, point).await;
        let worker = world.worker();
        let done = rebase.await.unwrap().expect(200);
        assert_eq!(done["status"], "rebased", "{site}");
        assert_eq!(
            names(&done["diff"]["changes"]),
            [format!("news_{number}")],
            "{site}"
        );
        let there = format!("select count(*)::int as n from news_{number}");
        assert_eq!(branch.sql(&there).await, json!([{ "n": 0 }]), "{site}");
        assert_eq!(
            branch.sql("select i from mine").await,
            json!([{ "i": 7 }]),
            "{site}"
        );
        // Against its new base the branch has its own change and no other.
        let diff = world.diff(&id).await;
        assert_eq!(names(&diff["changes"]), ["mine"], "{site}: {diff}");
        world.only_its_copies_are_stored(&id, &site).await;
        drop(worker);
    }

    // A reset leads to the parent as it was at the last rebase.
    let last = "select count(*)::int as n from news_0";
    let worker = world.worker();
    world.post(&id, "reset", &json!({})).await;
    let branch = world.until_ready(&id, "reset").await;
    assert_eq!(branch.sql(last).await, json!([{ "n": 0 }]));
    assert_ne!(
        branch.try_sql("select i from mine").await.unwrap().status,
        200
    );
    drop(worker);
}

#[tokio::test]
async fn a_branch_whose_machine_is_gone_is_told_and_deleted() {
    let world = World::start().await;
    let id = world.branch("feat").await;
    let machine = world.app.machine_of(id).await.unwrap();
    let gone = world.local.compute.find(Region::UsEast, machine.id).await;
    world
        .local
        .compute
        .terminate(gone.unwrap().unwrap().at())
        .await
        .unwrap();
    // Before anybody has noticed.
    for verb in ["merge", "rebase"] {
        let asked = world.ask(&id, verb, &json!({}));
        let worker = world.worker();
        let refused = asked.await.unwrap();
        if verb == "merge" {
            let refused = refused.expect_code(422, "branch.merge_failed");
            let message = refused["message"].as_str().unwrap();
            assert!(message.contains("machine is gone"), "{message}");
        } else {
            refused.expect_code(423, "branch.not_ready");
        }
        assert_eq!(world.app.status_of(id).await, ProjectStatus::Failed);
        drop(worker);
    }
    let worker = world.worker();
    world.delete(&id, "its machine was gone").await;
    drop(worker);
}

#[tokio::test]
async fn a_parent_that_goes_away_meanwhile_leaves_nothing_half_done() {
    let world = World::start().await;
    // Paused while its copy is about to be taken: there is no branch, and nothing of it is left.
    let id = world.begin_branch("feat").await;
    world
        .die_at(id, "copy_parent", CrashPoint::BeforeEffect)
        .await;
    let path = format!("/{}/pause", world.parent.id);
    world.partner.post(&path, &json!({})).await;
    let worker = world.worker();
    world.until_gone(&id).await;
    drop(worker);
    let parent: ProjectId = world.parent.id.parse().unwrap();
    assert_eq!(world.app.status_of(parent).await, ProjectStatus::Paused);
    let worker = world.worker();
    let path = format!("/{}/restore", world.parent.id);
    world.partner.post(&path, &json!({})).await;
    until_active(&world.app, parent).await;
    drop(worker);

    // Deleted after its copy was taken: the branch goes with it.
    let id = world.begin_branch("feat").await;
    world
        .die_at(id, "restore_copy", CrashPoint::BeforeEffect)
        .await;
    world
        .partner
        .delete_project(&world.parent.id)
        .await
        .expect(200);
    let worker = world.worker();
    world.until_gone(&id).await;
    eventually("no machine is left", DONE, async || {
        world.local.machines().await.is_empty().then_some(())
    })
    .await;
    drop(worker);
}

/// The objects of a list of changes.
fn names(changes: &Value) -> Vec<String> {
    let changes = changes.as_array().unwrap();
    let name = |change: &Value| change["object"].as_str().unwrap().to_owned();
    changes.iter().map(name).collect()
}

/// An active project with rows, and no worker.
struct World {
    app: App,
    partner: PartnerClient,
    parent: Backend,
    local: Local,
}

impl World {
    async fn start() -> Self {
        let local = Local::start().await;
        let app = App::start_with(AppOptions {
            compute: Some(Arc::new(local.compute.clone())),
            worker: false,
            create_wait: Duration::from_millis(50),
            ..AppOptions::default()
        })
        .await;
        let partner = app.partner().await;
        let worker = app.start_worker(config(&app, &local, "first"));
        let id = partner.begin_project("shop").await;
        until_active(&app, id).await;
        let project = partner.metadata(&id.to_string()).await.expect(200)["project"].clone();
        let parent = Backend::of(&project);
        for statement in [
            "create table users (id bigint generated always as identity primary key, email text not null)",
            "insert into users (email) values ('ada@example.com'), ('bob@example.com')",
        ] {
            parent.sql(statement).await;
        }
        drop(worker);
        Self {
            app,
            partner,
            parent,
            local,
        }
    }

    fn config(&self, name: &str) -> WorkerConfig {
        config(&self.app, &self.local, name)
    }

    fn worker(&self) -> WorkerProcess {
        self.app.start_worker(self.config("plain"))
    }

    fn path(&self, id: &ProjectId, rest: &str) -> String {
        format!("/{}/branches/{id}{rest}", self.parent.id)
    }

    async fn begin_branch(&self, name: &str) -> ProjectId {
        let body = json!({ "name": name, "mode": "full" });
        let path = format!("/{}/branches", self.parent.id);
        let made = self.partner.post(&path, &body).await.expect(200);
        made["branch"]["id"].as_str().unwrap().parse().unwrap()
    }

    async fn branch(&self, name: &str) -> ProjectId {
        let worker = self.worker();
        let id = self.begin_branch(name).await;
        self.until_ready(&id, "no crash").await;
        drop(worker);
        id
    }

    async fn post(&self, id: &ProjectId, verb: &str, body: &Value) {
        let path = self.path(id, &format!("/{verb}"));
        self.partner.post(&path, body).await.expect(200);
    }

    /// A call that waits for workers.
    fn ask(
        &self,
        id: &ProjectId,
        verb: &str,
        body: &Value,
    ) -> tokio::task::JoinHandle<cp_tests::Answer> {
        let (partner, path, body) = (
            self.partner.clone(),
            self.path(id, &format!("/{verb}")),
            body.clone(),
        );
        tokio::spawn(async move { partner.post(&path, &body).await })
    }

    async fn diff(&self, id: &ProjectId) -> Value {
        self.partner.get(&self.path(id, "/diff")).await.expect(200)
    }

    async fn backend(&self, id: &ProjectId) -> Backend {
        let project = self.partner.metadata(&id.to_string()).await.expect(200)["project"].clone();
        Backend::of(&project)
    }

    async fn until_ready(&self, id: &ProjectId, site: &str) -> Backend {
        eventually(&format!("{site}: the branch is ready"), DONE, async || {
            let seen = self.partner.get(&self.path(id, "")).await.expect(200);
            (seen["branch"]["branch_state"] == "ready").then_some(())
        })
        .await;
        self.backend(id).await
    }

    async fn die_at(&self, id: ProjectId, step: &'static str, point: CrashPoint) {
        die_at(&self.app, self.config("doomed"), id, step, point).await;
    }

    /// Every machine is somebody's, and nobody has two.
    async fn nothing_is_orphaned(&self, site: &str) {
        eventually(
            &format!("{site}: each project has one machine"),
            DONE,
            async || {
                let mut rows: Vec<uuid::Uuid> =
                    sqlx::query_scalar("select id from machines where project_id is not null")
                        .fetch_all(&mut self.app.database.connect().await)
                        .await
                        .unwrap();
                let mut found = self.local.machines().await;
                rows.sort_unstable();
                found.sort_unstable();
                (rows == found && found.len() == 2).then_some(())
            },
        )
        .await;
    }

    /// How many merges its database remembers. Only the superuser sees them.
    async fn merges_of_parent(&self) -> usize {
        let id: ProjectId = self.parent.id.parse().unwrap();
        let machine = self.app.machine_of(id).await.unwrap();
        let found = self.local.compute.find(Region::UsEast, machine.id).await;
        let address = found.unwrap().unwrap().database_address.unwrap();
        let password = self.app.control_plane.database_password(id).await.unwrap();
        let url = format!(
            "postgres://postgres:{}@{address}/insforge",
            password.expose_secret()
        );
        let mut conn = PgConnection::connect(&url).await.unwrap();
        let count: i64 = sqlx::query_scalar("select count(*) from system.control_plane_merges")
            .fetch_one(&mut conn)
            .await
            .unwrap();
        count.try_into().unwrap()
    }

    /// What a reset keeps meanwhile is gone.
    async fn only_one_database(&self, branch: &Backend, site: &str) {
        let others = "select datname from pg_database where datname like 'control_plane%'";
        eventually(
            &format!("{site}: the old database is gone"),
            DONE,
            async || (branch.sql(others).await == json!([])).then_some(()),
        )
        .await;
    }

    async fn copies_of(&self, id: &ProjectId) -> Value {
        sqlx::query_scalar("select copies from branches where project_id = $1")
            .bind(id.0)
            .fetch_one(&mut self.app.database.connect().await)
            .await
            .unwrap()
    }

    /// A dump and two snapshots; nothing that a crash left.
    async fn only_its_copies_are_stored(&self, id: &ProjectId, site: &str) {
        let copies = self.copies_of(id).await;
        let mut referred = ["dump", "parent", "branch"]
            .map(|copy| copies[copy]["key"].as_str().unwrap().to_owned());
        let mut stored = self
            .local
            .objects_under(&format!("projects/{id}/branch"))
            .await;
        referred.sort_unstable();
        stored.sort_unstable();
        assert_eq!(stored, referred, "{site}");
    }

    /// Cuts off the end of the stored dump.
    async fn damage_dump(&self, id: &ProjectId) {
        let dump = self.copies_of(id).await["dump"].clone();
        let size = dump["size"].as_u64().unwrap();
        cut_object(&self.local, size);
    }

    async fn delete(&self, id: &ProjectId, site: &str) {
        self.partner.delete(&self.path(id, "")).await.expect(200);
        self.until_gone(id).await;
        eventually(&format!("{site}: its machine is gone"), DONE, async || {
            (self.local.machines().await.len() == 1).then_some(())
        })
        .await;
    }

    /// Deleted, with its copies.
    async fn until_gone(&self, id: &ProjectId) {
        eventually("it is deleted", DONE, async || {
            (self.app.status_of(*id).await == ProjectStatus::Deleted).then_some(())
        })
        .await;
        let left = self
            .local
            .objects_under(&format!("projects/{id}/branch"))
            .await;
        assert_eq!(left, Vec::<String>::new());
    }
}
