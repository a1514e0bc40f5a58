//! Branches with real machines, databases and copies, as contract/branching.md tells their life.

use std::time::Duration;

use cp_tests::eventually;
use cp_tests::programs::{Backend, Dev, NO_POOL};
use serde_json::{Value, json};

/// Copying, booting and restoring, on two cores with another story beside it.
const MADE: Duration = Duration::from_mins(3);

struct Story {
    dev: Dev,
    parent: Backend,
}

impl Story {
    /// A project with people, their rows and a policy.
    async fn start() -> Self {
        let dev = Dev::start_with(&[NO_POOL]).await;
        let parent = dev.create("shop").await;
        for statement in [
            "create table users (id bigint generated always as identity primary key, email text not null, name text)",
            "insert into users (email, name) values ('ada@example.com', 'Ada'), ('bob@example.com', 'Bob')",
            "alter table users enable row level security",
            "create policy own on users for select to authenticated using (email = current_setting('app.email', true))",
        ] {
            parent.sql(statement).await;
        }
        Self { dev, parent }
    }

    fn path(&self, rest: &str) -> String {
        format!("/{}/branches{rest}", self.parent.id)
    }

    async fn create(&self, name: &str, mode: &str) -> String {
        let body = json!({ "name": name, "mode": mode });
        let made = self.dev.partner.post(&self.path(""), &body).await;
        let made = made.expect(200)["branch"].clone();
        assert_eq!(made["branch_state"], "creating");
        assert_eq!(made["branch_metadata"]["mode"], mode);
        made["id"].as_str().unwrap().to_owned()
    }

    async fn state(&self, id: &str) -> String {
        let seen = self.dev.partner.get(&self.path(&format!("/{id}"))).await;
        let seen = seen.expect(200);
        seen["branch"]["branch_state"].as_str().unwrap().to_owned()
    }

    async fn until_ready(&self, id: &str) -> Backend {
        eventually("the branch is ready", MADE, async || {
            let state = self.state(id).await;
            (state == "ready").then_some(())
        })
        .await;
        let project = self.dev.partner.metadata(id).await.expect(200)["project"].clone();
        Backend::of(&project)
    }

    async fn branch(&self, name: &str, mode: &str) -> Backend {
        let id = self.create(name, mode).await;
        self.until_ready(&id).await
    }

    async fn merge(&self, id: &str, dry_run: bool, body: &Value) -> cp_tests::Answer {
        let query = if dry_run { "?dryRun=true" } else { "" };
        let path = self.path(&format!("/{id}/merge{query}"));
        self.dev.partner.post(&path, body).await
    }
}

#[tokio::test]
async fn a_branch_is_made_changed_merged_reset_and_deleted() {
    let story = Story::start().await;
    let parent = &story.parent;
    let branch = story.branch("feat", "full").await;

    // A backend of its own, with the parent's rows and none of its keys.
    assert_ne!(branch.host, parent.host);
    assert_ne!(branch.key, parent.key);
    let emails = "select email from users order by id";
    let both = json!([{ "email": "ada@example.com" }, { "email": "bob@example.com" }]);
    assert_eq!(branch.sql(emails).await, both);
    let mut stranger = branch.clone();
    stranger.key.clone_from(&parent.key);
    let refused = stranger.try_sql(emails).await.unwrap();
    assert_eq!(refused.status, 401, "{}", refused.text);

    // Both sides change: one thing each, and one thing both.
    branch
        .sql("create table coupons (id uuid primary key, percent integer not null)")
        .await;
    branch
        .sql("alter table users alter column name set default 'nobody'")
        .await;
    branch
        .sql("insert into users (email) values ('eve@example.com')")
        .await;
    parent.sql("alter table users add column phone text").await;
    parent
        .sql("alter table users alter column name set default 'someone'")
        .await;
    assert_eq!(parent.sql(emails).await, both, "the parent is untouched");

    let diff = story.merge(&branch.id, true, &json!({})).await.expect(200);
    assert_eq!(diff["summary"]["conflicts"], 1, "{diff}");
    assert_eq!(diff["summary"]["added"], 1, "{diff}");
    assert_eq!(diff["changes"][0]["object"], "coupons");
    let conflict = &diff["conflicts"][0];
    assert_eq!(conflict["schema"], "public");
    assert_eq!(conflict["object"], "users.name");
    assert!(!conflict["hint"].as_str().unwrap().is_empty());
    let sql = diff["rendered_sql"].as_str().unwrap();
    assert!(sql.contains("CREATE TABLE public.coupons"), "{sql}");

    // The same for reading, with each definition as both sides have it.
    let partner = &story.dev.partner;
    let path = story.path(&format!("/{}/diff", branch.id));
    let page = partner.http.get(format!(
        "{}/partnership/v1/{}{path}",
        partner.base_url, partner.id
    ));
    let page = page
        .header("X-Partnership-Secret", &partner.secret)
        .header("Accept", "text/html");
    let page = page.send().await.unwrap().text().await.unwrap();
    for text in [
        "Conflicts",
        "public.users.name",
        "nobody",
        "someone",
        "CREATE TABLE public.coupons",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }

    let refused = story.merge(&branch.id, false, &json!({})).await;
    let refused = refused.expect_code(409, "branch.merge_conflict");
    assert_eq!(refused["diff"]["conflicts"][0]["object"], "users.name");
    assert_eq!(story.state(&branch.id).await, "ready");
    let gone = parent.try_sql("select from coupons").await.unwrap();
    assert_ne!(gone.status, 200, "nothing was merged");

    let settled = json!({ "resolutions": { "public.users.name": "branch" } });
    let merged = story.merge(&branch.id, false, &settled).await.expect(200);
    assert_eq!(merged["status"], "merged");
    assert_eq!(merged["branchId"], json!(branch.id));
    assert_eq!(merged["diff"]["summary"]["conflicts"], 0, "{merged}");
    assert_eq!(story.state(&branch.id).await, "merged");
    assert_eq!(
        parent.sql("select count(*)::int as n from coupons").await,
        json!([{ "n": 0 }])
    );
    parent
        .sql("insert into users (email) values ('cid@example.com')")
        .await;
    let cid = "select name, phone from users where email = 'cid@example.com'";
    assert_eq!(
        parent.sql(cid).await,
        json!([{ "name": "nobody", "phone": null }])
    );
    // Rows never merge.
    assert_eq!(
        parent
            .sql("select id from users where email = 'eve@example.com'")
            .await,
        json!([])
    );

    // Merging once more changes nothing.
    let again = story.merge(&branch.id, false, &settled).await.expect(200);
    assert_eq!(again["diff"]["changes"], json!([]), "{again}");

    let reset = story.path(&format!("/{}/reset", branch.id));
    let begun = story.dev.partner.post(&reset, &json!({})).await.expect(200);
    assert_eq!(begun["branch"]["branch_state"], "resetting");
    let busy = story.merge(&branch.id, false, &json!({})).await;
    busy.expect_code(423, "branch.busy");
    let same = story.until_ready(&branch.id).await;
    assert_eq!((&same.host, &same.key), (&branch.host, &branch.key));
    assert_eq!(same.sql(emails).await, both, "as it began");
    let gone = same.try_sql("select from coupons").await.unwrap();
    assert_ne!(gone.status, 200);

    let machine = story.dev.home().machine_at(&branch.host);
    let one = story.path(&format!("/{}", branch.id));
    story.dev.partner.delete(&one).await.expect(200);
    let list = story.dev.partner.get(&story.path("")).await.expect(200);
    assert_eq!(list["data"], json!([]));
    story
        .dev
        .partner
        .get(&one)
        .await
        .expect_code(404, "branch.not_found");
    eventually("the machine is gone", MADE, async || {
        (!machine.exists()).then_some(())
    })
    .await;
    eventually("the copies are gone", MADE, async || {
        let left = objects_of(&story.dev, &branch.id);
        left.is_empty().then_some(())
    })
    .await;
    assert_eq!(
        parent.sql("select count(*)::int as n from users").await,
        json!([{ "n": 3 }])
    );
}

#[tokio::test]
async fn a_branch_without_data_has_the_schema_and_goes_with_its_parent() {
    let story = Story::start().await;
    let branch = story.branch("empty", "schema-only").await;
    assert!(!objects_of(&story.dev, &branch.id).is_empty());
    assert_eq!(
        branch.sql("select count(*)::int as n from users").await,
        json!([{ "n": 0 }])
    );
    let policies = "select polname::text as name from pg_policy";
    assert_eq!(branch.sql(policies).await, json!([{ "name": "own" }]));

    // A branch is a project: it can be paused and restored; then it is not ready to be merged.
    story.dev.partner.pause(&branch.id).await.expect(200);
    eventually("it is paused", MADE, async || {
        (story.dev.status(&branch.id).await == "paused").then_some(())
    })
    .await;
    let refused = story.merge(&branch.id, false, &json!({})).await;
    refused.expect_code(423, "branch.not_ready");

    let machine = story.dev.home().machine_at(&branch.host);
    story
        .dev
        .partner
        .delete_project(&story.parent.id)
        .await
        .expect(200);
    eventually("the branch's machine is gone", MADE, async || {
        (!machine.exists()).then_some(())
    })
    .await;
    story.dev.partner.metadata(&branch.id).await.expect(404);
}

/// What the store has of a branch.
fn objects_of(dev: &Dev, branch: &str) -> Vec<std::path::PathBuf> {
    fn walk(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&dev.data().join("objects"), &mut found);
    // The store keeps each object's key in a small file beside its content.
    found.retain(|path| {
        let is_small = path.metadata().is_ok_and(|file| file.len() < 4096);
        is_small && std::fs::read_to_string(path).is_ok_and(|text| text.contains(branch))
    });
    found
}

#[tokio::test]
async fn an_online_merge_builds_indexes_and_proves_checks_after_its_commit() {
    let story = Story::start().await;
    let parent = &story.parent;
    let branch = story.branch("feat", "full").await;
    branch
        .sql("create index users_email on users (email)")
        .await;
    branch
        .sql("alter table users add constraint has_name check (name <> '')")
        .await;

    let path = story.path(&format!("/{}/rebase", branch.id));
    let online = json!({ "online": true });
    let refused = story.dev.partner.post(&path, &online).await;
    refused.expect_code(400, "invalid_input");
    let merged = story.merge(&branch.id, false, &online).await.expect(200);
    let finished = merged["diff"]["finished"].as_array().unwrap().iter();
    let mut finished: Vec<_> = finished.map(|item| item["name"].clone()).collect();
    finished.sort_by_key(Value::to_string);
    assert_eq!(
        finished,
        ["public.users.has_name", "public.users_email"],
        "{merged}"
    );
    assert_eq!(merged["diff"]["unfinished"], json!([]), "{merged}");
    let valid = "select indisvalid from pg_index where indexrelid = 'users_email'::regclass";
    assert_eq!(parent.sql(valid).await, json!([{ "indisvalid": true }]));
    let proved = "select convalidated from pg_constraint where conname = 'has_name'";
    assert_eq!(parent.sql(proved).await, json!([{ "convalidated": true }]));
    let again = story.merge(&branch.id, true, &json!({})).await.expect(200);
    assert_eq!(again["changes"], json!([]), "{again}");
}
