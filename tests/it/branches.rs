//! The rules of branches: names, limits, states, owners. What needs no database; the machines of `sim`
//! have none, so each branch stays as a scenario sets it, or cannot be made. Whole lives are told in
//! `real::branches`.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use cp_domain::people::NewApiKey;
use cp_model::{ProjectId, ProjectStatus, Scope, Scopes};
use cp_tests::{Answer, App, AppOptions, PartnerClient, Person, eventually};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stage::{SESSION, caller};

/// A partner with an active project; no worker, so nothing moves by itself.
struct World {
    app: App,
    partner: PartnerClient,
    parent: String,
}

impl World {
    async fn start() -> Self {
        let app = App::start_with(AppOptions {
            worker: false,
            create_wait: Duration::from_millis(50),
            ..AppOptions::default()
        })
        .await;
        let partner = app.partner().await;
        let parent = active_project(&app, &partner, "shop").await;
        Self {
            app,
            partner,
            parent,
        }
    }

    fn path(&self, rest: &str) -> String {
        format!("/{}/branches{rest}", self.parent)
    }

    async fn create(&self, name: &str) -> Answer {
        create(&self.partner, &self.parent, name).await
    }

    async fn created(&self, name: &str) -> String {
        let made = self.create(name).await.expect(200);
        made["branch"]["id"].as_str().unwrap().to_owned()
    }

    async fn post(&self, branch: &str, verb: &str) -> Answer {
        let path = self.path(&format!("/{branch}{verb}"));
        self.partner.post(&path, &json!({})).await
    }

    async fn state(&self, branch: &str) -> Value {
        let seen = self.partner.get(&self.path(&format!("/{branch}"))).await;
        seen.expect(200)["branch"]["branch_state"].clone()
    }

    async fn run(&self, statement: &'static str, id: &str) {
        run(&self.app, statement, id).await;
    }

    /// As a worker would leave it.
    async fn make_ready(&self, branch: &str) {
        self.run(
            "update operations set state = 'succeeded' where project_id = $1",
            branch,
        )
        .await;
        self.run(
            "update projects set status = 'active' where id = $1",
            branch,
        )
        .await;
        self.run(
            "update branches set state = 'ready', serves = true where project_id = $1",
            branch,
        )
        .await;
    }
}

async fn run(app: &App, statement: &'static str, id: &str) {
    sqlx::query(statement)
        .bind(Uuid::parse_str(id).unwrap())
        .execute(&mut app.database.connect().await)
        .await
        .unwrap();
}

async fn active_project(app: &App, partner: &PartnerClient, name: &str) -> String {
    let id = partner.begin_project(name).await.to_string();
    run(
        app,
        "update operations set state = 'succeeded' where project_id = $1",
        &id,
    )
    .await;
    run(
        app,
        "update projects set status = 'active' where id = $1",
        &id,
    )
    .await;
    id
}

async fn create(partner: &PartnerClient, parent: &str, name: &str) -> Answer {
    let body = json!({ "name": name, "mode": "full" });
    partner.post(&format!("/{parent}/branches"), &body).await
}

#[tokio::test]
async fn names_and_modes_are_checked_and_nothing_is_left() {
    let world = World::start().await;
    let long = "x".repeat(65);
    for bad in [
        "", "-feat", "a b", "feat_1", "grün", "a/b", "a.b", &long, " feat",
    ] {
        let refused = world
            .create(bad)
            .await
            .expect_code(400, "branch.invalid_name");
        let message = refused["message"].as_str().unwrap();
        assert!(message.starts_with("name must have"), "{bad:?}: {message}");
    }
    let path = world.path("");
    for (body, field) in [
        (json!({ "name": "feat", "mode": "half" }), "mode"),
        (json!({ "name": "feat" }), "mode"),
        (json!({ "mode": "full" }), "name"),
        (
            json!({ "name": "feat", "mode": "full", "expires_at": "soon" }),
            "expires_at",
        ),
        (
            json!({ "name": "feat", "mode": "full", "expires_at": "2020-01-01T00:00:00Z" }),
            "expires_at",
        ),
    ] {
        let refused = world.partner.post(&path, &body).await;
        let refused = refused.expect_code(400, "invalid_input");
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains(field), "{message}");
    }
    let list = world.partner.get(&path).await.expect(200);
    assert_eq!(list, json!({ "data": [] }));
    assert!(
        world.create("a").await.status == 200 && world.create(&"y".repeat(64)).await.status == 200
    );
}

#[tokio::test]
async fn a_branch_is_listed_at_once_and_never_among_projects() {
    let world = World::start().await;
    let before = Utc::now();
    let made = world.create("Feat-1").await.expect(200)["branch"].clone();
    assert_eq!(made["name"], "Feat-1");
    assert_eq!(made["parent_project_id"], json!(world.parent));
    assert_eq!(made["branch_state"], "creating");
    assert_eq!(made["branch_metadata"], json!({ "mode": "full" }));
    assert_eq!(made["expires_at"], Value::Null);
    let at = made["branch_created_at"].as_str().unwrap();
    let at = chrono::DateTime::parse_from_rfc3339(at).unwrap();
    assert!(
        (at.to_utc() - before).abs() < TimeDelta::seconds(30),
        "{at}"
    );
    let list = world.partner.get(&world.path("")).await.expect(200);
    assert_eq!(list, json!({ "data": [made] }));
    let projects = world.partner.get("/projects").await.expect(200);
    assert_eq!(projects["projects"].as_array().unwrap().len(), 1);
    // Its id is accepted where a project's is.
    let id = made["id"].as_str().unwrap();
    let seen = world.partner.metadata(id).await.expect(200);
    assert_eq!(seen["project"]["status"], "provisioning");
    // But it has no branches.
    world.make_ready(id).await;
    let refused = create(&world.partner, id, "deeper").await;
    refused.expect_code(409, "branch.parent_not_branchable");
}

#[tokio::test]
async fn a_name_is_taken_whatever_its_case_until_its_branch_is_deleted() {
    let world = World::start().await;
    let id = world.created("Feat").await;
    world
        .create("feat")
        .await
        .expect_code(409, "branch.name_conflict");
    world
        .partner
        .delete(&world.path(&format!("/{id}")))
        .await
        .expect(200);
    let list = world.partner.get(&world.path("")).await.expect(200);
    assert_eq!(list["data"], json!([]));
    let again = world.created("feat").await;
    assert_ne!(again, id);
    world
        .post(&id, "/reset")
        .await
        .expect_code(404, "branch.not_found");
}

#[tokio::test]
async fn limits_hold_however_many_ask_at_once() {
    let world = World::start().await;
    let asked = (0..20).map(|n| {
        let (partner, parent) = (world.partner.clone(), world.parent.clone());
        tokio::spawn(async move { create(&partner, &parent, &format!("feat-{n}")).await })
    });
    let mut made = 0;
    for answer in futures::future::join_all(asked).await {
        let answer = answer.unwrap();
        if answer.status == 200 {
            made += 1;
        } else {
            answer.expect_code(403, "branch.quota_exceeded");
        }
    }
    assert_eq!(made, 2, "of one project");

    // Of one organization, the first parent included.
    let mut parents = Vec::new();
    for n in 0..6 {
        parents.push(active_project(&world.app, &world.partner, &format!("shop-{n}")).await);
    }
    let asked = parents
        .iter()
        .map(|parent| create(&world.partner, parent, "feat"));
    let answers = futures::future::join_all(asked).await;
    let made = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(made, 2, "of the organization");
    for refused in answers.into_iter().filter(|answer| answer.status != 200) {
        refused.expect_code(403, "branch.quota_exceeded");
    }
}

#[tokio::test]
async fn a_parent_that_is_not_active_has_no_new_branches() {
    let world = World::start().await;
    for status in ProjectStatus::ALL.iter().filter(|s| s.is_live()) {
        if *status == ProjectStatus::Active {
            continue;
        }
        sqlx::query("update projects set status = $2 where id = $1")
            .bind(Uuid::parse_str(&world.parent).unwrap())
            .bind(status.as_str())
            .execute(&mut world.app.database.connect().await)
            .await
            .unwrap();
        let refused = world.create("feat").await;
        refused.expect_code(409, "branch.parent_not_branchable");
    }
}

#[tokio::test]
async fn a_busy_branch_says_so_with_the_code_of_the_call() {
    let world = World::start().await;
    let id = world.created("feat").await;
    for state in ["creating", "merging", "resetting"] {
        sqlx::query("update branches set state = $2 where project_id = $1")
            .bind(Uuid::parse_str(&id).unwrap())
            .bind(state)
            .execute(&mut world.app.database.connect().await)
            .await
            .unwrap();
        world
            .post(&id, "/reset")
            .await
            .expect_code(409, "branch.busy");
        // Here 409 means a conflict and nothing else.
        world
            .post(&id, "/merge")
            .await
            .expect_code(423, "branch.busy");
        if state != "merging" {
            // Nor is there anything to compare while its data is still on its way.
            let dry_run = world.post(&id, "/merge?dryRun=true").await;
            dry_run.expect_code(409, "branch.busy");
            let path = world.path(&format!("/{id}/diff"));
            let diff = world.partner.get(&path).await;
            diff.expect_code(409, "branch.busy");
        }
    }
    world.make_ready(&id).await;
    world
        .run("update projects set status = 'paused' where id = $1", &id)
        .await;
    world
        .post(&id, "/reset")
        .await
        .expect_code(409, "branch.not_ready");
    world
        .post(&id, "/merge")
        .await
        .expect_code(423, "branch.not_ready");
    world.make_ready(&id).await;
    world
        .run(
            "update projects set status = 'paused' where id = $1",
            &world.parent,
        )
        .await;
    let refused = world.post(&id, "/merge").await;
    refused.expect_code(423, "branch.parent_not_branchable");
    // The branch itself can be reset; and is `resetting` before the answer leaves.
    let reset = world.post(&id, "/reset").await.expect(200);
    assert_eq!(reset["branch"]["branch_state"], "resetting");
    assert_eq!(reset["branch"]["status"], "restarting");
    world
        .post(&id, "/reset")
        .await
        .expect_code(409, "branch.busy");
}

#[tokio::test]
async fn a_rebase_has_the_rules_of_a_merge() {
    let world = World::start().await;
    let id = world.created("feat").await;
    let refused = world.post(&id, "/rebase").await;
    refused.expect_code(423, "branch.busy");
    world.make_ready(&id).await;
    let path = world.path(&format!("/{id}/rebase"));
    let wrong = json!({ "resolutions": { "public.users.email": "both" } });
    let refused = world.partner.post(&path, &wrong).await;
    refused.expect_code(400, "invalid_input");
    let query = format!("{path}?dryRun=yes");
    let refused = world.partner.post(&query, &json!({})).await;
    refused.expect_code(400, "invalid_input");
    world
        .run(
            "update projects set status = 'paused' where id = $1",
            &world.parent,
        )
        .await;
    let refused = world.post(&id, "/rebase").await;
    refused.expect_code(423, "branch.parent_not_branchable");
    assert_eq!(world.state(&id).await, "ready");
}

#[tokio::test]
async fn what_works_on_a_branch_is_told() {
    let world = World::start().await;
    let made = world.create("feat").await.expect(200)["branch"].clone();
    let work = &made["work"];
    assert_eq!(work["kind"], "create_branch");
    assert_eq!(work["step"], "allocate_machine");
    assert_eq!(work["bytes_copied"], Value::Null);
    let operation = work["operation_id"].as_str().unwrap();
    let path = format!("/operations/{operation}");
    world.partner.get(&path).await.expect(200);

    let id = made["id"].as_str().unwrap();
    let halfway = "update operations set step = 'restore_copy', data = '{\"bytes_copied\": 700}' where project_id = $1";
    world.run(halfway, id).await;
    let copies = r#"update branches set copies = '{"dump": {"key": "k", "size": 1000, "crc32": 1}}' where project_id = $1"#;
    world.run(copies, id).await;
    let seen = world.partner.get(&world.path(&format!("/{id}"))).await;
    let work = seen.expect(200)["branch"]["work"].clone();
    assert_eq!(
        (&work["bytes_copied"], &work["bytes_total"]),
        (&json!(700), &json!(1000))
    );
    world.make_ready(id).await;
    let seen = world.partner.get(&world.path(&format!("/{id}"))).await;
    assert_eq!(seen.expect(200)["branch"]["work"], Value::Null);
}

#[tokio::test]
async fn the_page_of_a_branch_is_its_peoples_alone() {
    let world = World::start().await;
    let id = world.created("feat").await;
    let page = format!("/branches/{id}/diff");
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap();
    let ask = async |path: &str, cookie: Option<&str>| {
        let mut request = client
            .get(format!("{}{path}", world.app.base_url))
            .header("accept", "text/html,*/*;q=0.8");
        if let Some(cookie) = cookie {
            request = request.header("cookie", format!("{SESSION}={cookie}"));
        }
        let response = request.send().await.unwrap();
        let location = response.headers().get("location");
        let location = location.map(|to| to.to_str().unwrap().to_owned());
        (
            response.status().as_u16(),
            location,
            response.text().await.unwrap(),
        )
    };
    // A browser at the API's address is led to the page, and there to sign in.
    let (status, to, _) = ask(&format!("/projects/v1{page}"), None).await;
    assert_eq!((status, to.as_deref()), (303, Some(&*page)));
    let (status, to, _) = ask(&page, None).await;
    assert_eq!(status, 303);
    assert!(to.unwrap().starts_with("/login?"), "and back afterwards");

    let eve = world.app.person("Eve").await;
    let cookie = eve.visitor.cookie(SESSION).expect("a cookie");
    for path in [
        &*page,
        &format!("/branches/{}/diff", Uuid::now_v7()),
        "/branches/x/diff",
    ] {
        let (status, _, text) = ask(path, Some(&cookie)).await;
        assert_eq!(status, 404, "{path}");
        assert!(text.contains("There is no such branch"), "{text}");
        assert!(!text.contains("feat"), "{text}");
    }
}

#[tokio::test]
async fn resolutions_and_the_query_are_checked() {
    let world = World::start().await;
    let id = world.created("feat").await;
    world.make_ready(&id).await;
    let path = world.path(&format!("/{id}/merge"));
    for body in [
        json!({ "resolutions": { "public.users.email": "both" } }),
        json!({ "resolutions": ["public.users.email"] }),
        json!({ "resolutions": { "public.users.email": 1 } }),
        json!([]),
    ] {
        let refused = world.partner.post(&path, &body).await;
        refused.expect_code(400, "invalid_input");
    }
    for query in ["?dryRun=yes", "?dryRun=", "?dryRun=true&dryRun=false"] {
        let refused = world
            .partner
            .post(&format!("{path}{query}"), &json!({}))
            .await;
        refused.expect_code(400, "invalid_input");
    }
    assert_eq!(world.state(&id).await, "ready");
}

#[tokio::test]
async fn a_creation_that_cannot_be_done_leaves_nothing_behind() {
    let app = App::start().await;
    let partner = app.partner().await;
    let parent = partner.create_active_project("shop").await;
    let machines = app.sim.alive().len();
    let made = create(&partner, &parent, "feat").await.expect(200);
    let id = made["branch"]["id"].as_str().unwrap().to_owned();
    // The machines of `sim` have no database.
    let project: ProjectId = id.parse().unwrap();
    app.wait_for_status(project, ProjectStatus::Deleted).await;
    let path = format!("/{parent}/branches/{id}");
    partner
        .get(&path)
        .await
        .expect_code(404, "branch.not_found");
    assert_eq!(app.sim.alive().len(), machines);
    app.assert_truth().await;
    let again = create(&partner, &parent, "feat").await;
    assert_eq!(
        again.status, 200,
        "the name and the place are free: {}",
        again.text
    );
}

#[tokio::test]
async fn deleting_a_project_deletes_its_branches() {
    let app = App::start().await;
    let partner = app.partner().await;
    let parent = partner.create_active_project("shop").await;
    let made = create(&partner, &parent, "feat").await.expect(200);
    let branch: ProjectId = made["branch"]["id"].as_str().unwrap().parse().unwrap();
    partner.delete_project(&parent).await.expect(200);
    partner.metadata(&branch.to_string()).await.expect(404);
    app.wait_for_status(branch, ProjectStatus::Deleted).await;
    app.wait_for_status(parent.parse().unwrap(), ProjectStatus::Deleted)
        .await;
    assert!(app.sim.alive().is_empty());
    app.assert_truth().await;
}

#[tokio::test]
async fn a_branch_expires_after_a_warning() {
    let world = World::start().await;
    let expires_at = (Utc::now() + TimeDelta::hours(23)).to_rfc3339();
    let body = json!({ "name": "feat", "mode": "full", "expires_at": expires_at });
    let made = world.partner.post(&world.path(""), &body).await.expect(200);
    let id = made["branch"]["id"].as_str().unwrap().to_owned();
    let control_plane = &world.app.control_plane;
    assert_eq!(control_plane.expire_branches().await.unwrap(), 0);
    let warned = async || {
        sqlx::query_scalar::<_, i64>(
            "select count(*) from audit_log where action = 'branch.expiry_warned'",
        )
        .fetch_one(&mut world.app.database.connect().await)
        .await
        .unwrap()
    };
    assert_eq!(warned().await, 1);
    assert_eq!(control_plane.expire_branches().await.unwrap(), 0);
    assert_eq!(warned().await, 1, "told once");
    world
        .run(
            "update branches set expires_at = now() - interval '1 s' where project_id = $1",
            &id,
        )
        .await;
    assert_eq!(control_plane.expire_branches().await.unwrap(), 1);
    let path = world.path(&format!("/{id}"));
    world
        .partner
        .get(&path)
        .await
        .expect_code(404, "branch.not_found");
}

#[tokio::test]
async fn keys_repeat_the_first_answer() {
    let world = World::start().await;
    let body = json!({ "name": "feat", "mode": "full" });
    let send = async || {
        let request = world.partner.request(Method::POST, &world.path(""));
        Answer::to(request.header("Idempotency-Key", "k-1").json(&body)).await
    };
    let first = send().await.expect(200);
    let second = send().await;
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    assert_eq!(second.expect(200), first);
}

/// People's routes by everybody who may not call them.
#[tokio::test]
async fn people_see_their_own_branches_alone_and_as_far_as_their_scopes_go() {
    let world = World::start().await;
    let (app, partner) = (&world.app, &world.partner);
    let (ada, bob) = (app.person("Ada").await, app.person("Bob").await);
    let key = async |person: &Person, scopes: Option<Scopes>| {
        let cookie = person.visitor.cookie(SESSION).expect("a cookie");
        let by = app.control_plane.browser_session(&cookie, &caller()).await;
        let new = NewApiKey {
            name: "laptop".into(),
            scopes,
            expires_in_days: None,
        };
        let by = by.unwrap().expect("somebody is signed in");
        let (_, secret) = app.control_plane.create_api_key(&by, &new).await.unwrap();
        secret.expose_secret().to_owned()
    };
    let user = partner.connect_user(&ada.email).await;
    let synced = partner.sync_project(&user, "shop").await;
    let project = synced.body["project"]["id"].as_str().unwrap().to_owned();
    run(
        app,
        "update operations set state = 'succeeded' where project_id = $1",
        &project,
    )
    .await;
    run(
        app,
        "update projects set status = 'active' where id = $1",
        &project,
    )
    .await;
    partner.connect_user(&bob.email).await;

    let call = async |method: Method, path: String, key: Option<&str>, body: Option<Value>| {
        let mut request = app
            .http
            .request(method, format!("{}/projects/v1{path}", app.base_url));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        Answer::to(request.header("x-request-id", "same")).await
    };
    let new = json!({ "name": "feat", "mode": "schema-only" });
    let adas = key(&ada, None).await;
    let bobs = key(&bob, None).await;
    let made = call(
        Method::POST,
        format!("/{project}/branches"),
        Some(&adas),
        Some(new.clone()),
    )
    .await;
    let id = made.expect(201)["branch"]["id"]
        .as_str()
        .unwrap()
        .to_owned();

    let routes = |project: &str, id: &str| {
        vec![
            (
                Method::POST,
                format!("/{project}/branches"),
                Some(new.clone()),
                true,
            ),
            (Method::GET, format!("/{project}/branches"), None, false),
            (Method::GET, format!("/branches/{id}"), None, false),
            (Method::GET, format!("/branches/{id}/diff"), None, false),
            (Method::POST, format!("/branches/{id}/reset"), None, true),
            (Method::POST, format!("/branches/{id}/merge"), None, true),
            (Method::POST, format!("/branches/{id}/rebase"), None, true),
            (
                Method::POST,
                format!("/branches/{id}/rebase?dryRun=true"),
                None,
                true,
            ),
            (
                Method::POST,
                format!("/branches/{id}/merge?dryRun=true"),
                None,
                true,
            ),
            (Method::DELETE, format!("/branches/{id}"), None, true),
        ]
    };
    let nowhere = Uuid::now_v7().to_string();
    let missing = routes(&nowhere, &nowhere);
    let mut bodies = BTreeSet::new();
    for ((method, path, body, _), (_, unknown, ..)) in
        routes(&project, &id).into_iter().zip(missing)
    {
        let at = format!("{method} {path}");
        let none = call(method.clone(), path.clone(), None, body.clone()).await;
        assert_eq!(none.status, 401, "{at}");
        let wrong = call(
            method.clone(),
            path.clone(),
            Some("uak_wrong"),
            body.clone(),
        )
        .await;
        assert_eq!(wrong.status, 401, "{at}");
        let strange = call(method.clone(), path, Some(&bobs), body.clone()).await;
        let missing = call(method, unknown, Some(&bobs), body).await;
        assert_eq!(strange.status, 404, "{at}: {}", strange.text);
        assert_eq!(strange.text, missing.text, "{at}");
        bodies.insert(strange.text);
    }
    assert_eq!(bodies.len(), 2, "project or branch: {bodies:?}");

    // Somebody's embedded project is nobody's, whatever the person's organizations.
    let refused = call(
        Method::GET,
        format!("/{}/branches", world.parent),
        Some(&adas),
        None,
    )
    .await;
    refused.expect_code(404, "project_not_found");

    let reader = key(&ada, Some([Scope::ProjectsRead].into_iter().collect())).await;
    let nothing = key(&ada, Some([Scope::UserRead].into_iter().collect())).await;
    for (method, path, body, writes) in routes(&project, &id) {
        let at = format!("{method} {path}");
        let refused = call(method.clone(), path.clone(), Some(&nothing), body.clone()).await;
        assert_eq!(refused.status, 403, "{at}");
        if writes {
            let refused = call(method, path, Some(&reader), body).await;
            assert_eq!(refused.body["code"], "insufficient_scope", "{at}");
        }
    }
    let seen = call(Method::GET, format!("/branches/{id}"), Some(&reader), None).await;
    assert_eq!(seen.expect(200)["branch"]["branch_state"], "creating");
    // The partner through which the project was made sees the branch, another one does not.
    let path = format!("/{project}/branches/{id}");
    partner.get(&path).await.expect(200);
    let other = app.partner().await;
    other.get(&path).await.expect_code(404, "branch.not_found");
    // Under another parent it is not there.
    partner
        .get(&world.path(&format!("/{id}")))
        .await
        .expect_code(404, "branch.not_found");
    let gone = call(Method::DELETE, format!("/branches/{id}"), Some(&adas), None).await;
    assert_eq!(gone.status, 204);
    eventually(
        "it is gone from lists",
        Duration::from_secs(1),
        async || {
            let list = call(
                Method::GET,
                format!("/{project}/branches"),
                Some(&adas),
                None,
            )
            .await;
            (list.body == json!({ "data": [] })).then_some(())
        },
    )
    .await;
}
