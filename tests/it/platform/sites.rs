//! Sites (contract/project-backend.md 3.5): what the operator gave a project, as its backend is told it; and slugs, which no
//! two projects share.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use cp_domain::{DomainError, SiteSettings, Thing};
use cp_model::{OperationState, ProjectId};
use cp_tests::{Answer, eventually, fields};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::backend_calls::{World, signed};

/// A project with what its backend signs with.
#[derive(Clone, Copy)]
struct Backend<'a> {
    id: ProjectId,
    secret: &'a str,
}

impl World {
    fn shop(&self) -> Backend<'_> {
        Backend {
            id: self.project,
            secret: &self.secret,
        }
    }

    fn rival(&self) -> Backend<'_> {
        Backend {
            id: self.other,
            secret: &self.other_secret,
        }
    }

    /// As an operator does. `name` stands in Vercel's ids and in the secrets.
    async fn give_site(
        &self,
        project: ProjectId,
        name: &str,
        token_expires_at: Option<DateTime<Utc>>,
        webhook_secret: Option<&str>,
    ) -> Result<(), DomainError> {
        let token = SecretString::from(format!("vcp_{name}"));
        let webhook_secret = webhook_secret.map(SecretString::from);
        let settings = SiteSettings {
            team_id: "team_a1B2",
            vercel_project_id: &format!("prj_{name}"),
            token: &token,
            token_expires_at,
            webhook_secret: webhook_secret.as_ref(),
        };
        let set = self.app.control_plane.set_site(project, &settings).await;
        set.map(drop)
    }

    async fn credentials(&self, of: Backend<'_>) -> Answer {
        let url = format!("{}/sites/v1/credentials/{}", self.app.base_url, of.id);
        let sign = signed(of.secret, of.id, self.now() - 1, self.now() + 599);
        Answer::to(self.app.http.get(url).query(&[("sign", sign)])).await
    }

    async fn set_slug(&self, of: Backend<'_>, slug: &Value) -> Answer {
        let url = format!("{}/sites/v1/{}/slug", self.app.base_url, of.id);
        let sign = signed(of.secret, of.id, self.now() - 1, self.now() + 599);
        let body = json!({ "sign": sign, "slug": slug });
        Answer::to(self.app.http.put(url).json(&body)).await
    }

    /// The clock does not move by itself, and signatures are made to the second: the same call twice in one is a replay.
    fn a_second_later(&self) {
        self.clock.advance(TimeDelta::seconds(1));
    }

    async fn delete(&self, project: ProjectId) {
        let deleted = self.partner.delete_project(&project.to_string()).await;
        assert!(deleted.status < 300, "{}", deleted.text);
        eventually("it is deleted", Duration::from_secs(30), async || {
            // Workers wait by this clock.
            self.a_second_later();
            let operation = self.app.newest_operation(project).await;
            (operation.state == OperationState::Succeeded).then_some(())
        })
        .await;
    }

    async fn scalar(&self, sql: &'static str) -> i64 {
        let mut conn = self.app.database.connect().await;
        sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap()
    }

    async fn execute(&self, sql: &'static str, project: ProjectId) {
        let mut conn = self.app.database.connect().await;
        let statement = sqlx::query(sql).bind(project.0);
        statement.execute(&mut conn).await.unwrap();
    }
}

#[tokio::test]
async fn a_backend_is_told_what_the_operator_gave_its_project_and_nothing_of_others() {
    let world = World::start().await;
    let (shop, rival) = (world.shop(), world.rival());
    let none = world.credentials(shop).await;
    none.expect_code(501, "not_configured");
    let none = world.set_slug(shop, &json!("no good")).await;
    none.expect_code(501, "not_configured");

    let ends = DateTime::parse_from_rfc3339("2099-01-31T10:30:00Z").unwrap();
    let ends = ends.with_timezone(&Utc);
    let given = world.give_site(shop.id, "shop", Some(ends), Some("whsec-1"));
    given.await.unwrap();
    let told = world.credentials(shop).await;
    assert_eq!(told.header("cache-control"), Some("no-store"));
    assert_eq!(
        told.expect(200),
        json!({
            "team_id": "team_a1B2", "vercel_project_id": "prj_shop", "bearer_token": "vcp_shop",
            "expires_at": "2099-01-31T10:30:00Z", "webhook_secret": "whsec-1", "slug": null,
        })
    );
    let none = world.credentials(rival).await;
    none.expect_code(501, "not_configured");

    // A token without an end: the backend asks again in a day. What is not given again is not there; the slug stays.
    world.set_slug(shop, &json!("my-shop")).await.expect(200);
    world.give_site(shop.id, "new", None, None).await.unwrap();
    let told = world.credentials(shop).await.expect(200);
    let tomorrow = DateTime::from_timestamp(world.now(), 0).unwrap() + TimeDelta::days(1);
    let expires_at: DateTime<Utc> = told["expires_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(expires_at, tomorrow);
    assert_eq!(told["bearer_token"], "vcp_new");
    assert_eq!(told["webhook_secret"], Value::Null);
    assert_eq!(told["slug"], "my-shop");

    // One Vercel project for two would let each enter the other's site.
    let refused = world.give_site(rival.id, "new", None, None).await;
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("prj_new"), "{message}");
    world
        .give_site(rival.id, "rival", None, None)
        .await
        .unwrap();
    let theirs = world.credentials(rival).await.expect(200);
    assert_eq!(theirs["bearer_token"], "vcp_rival");

    // Neither token stands anywhere in plain text; and a sealed one is good for its own project alone.
    let plain =
        "select count(*) from sites where position('vcp_' in encode(token_sealed, 'escape')) > 0";
    assert_eq!(world.scalar(plain).await, 0);
    world
        .execute(
            "update sites set token_sealed = (select token_sealed from sites where project_id <> $1) where project_id = $1",
            rival.id,
        )
        .await;
    assert_eq!(world.credentials(rival).await.status, 500);
    let audited = "select count(*) from audit_log where action = 'site.set' and actor = 'operator'
                   and organization_id is not null and details::text not like '%vcp_%'";
    assert_eq!(world.scalar(audited).await, 3);
}

#[tokio::test]
async fn what_no_request_to_vercel_could_carry_is_refused() {
    let world = World::start().await;
    let shop = world.project;
    let past = DateTime::from_timestamp(world.now() - 1, 0);
    let control_plane = &world.app.control_plane;
    let (good, blank) = (SecretString::from("vcp_x"), SecretString::from("vcp x"));
    let settings = |team_id, token, token_expires_at| SiteSettings {
        team_id,
        vercel_project_id: "prj_a",
        token,
        token_expires_at,
        webhook_secret: None,
    };
    for (field, settings) in [
        ("team-id", settings("team a", &good, None)),
        ("token", settings("team_a", &blank, None)),
        ("expires-at", settings("team_a", &good, past)),
    ] {
        let refused = control_plane.set_site(shop, &settings).await.err().unwrap();
        let message = refused.to_string();
        assert!(message.starts_with(field), "{message}");
        assert!(!message.contains("vcp"), "{message}");
    }
    let nobody = ProjectId::generate();
    let refused = world.give_site(nobody, "x", None, None).await;
    let missing = DomainError::NotFound(Thing::Project).to_string();
    assert_eq!(refused.unwrap_err().to_string(), missing);
    assert_eq!(world.scalar("select count(*) from sites").await, 0);
}

#[tokio::test]
async fn a_branch_has_no_site_of_its_own() {
    let world = World::start().await;
    let (shop, branch) = (world.shop(), world.rival());
    world.give_site(shop.id, "shop", None, None).await.unwrap();
    let made =
        "update projects set parent_id = (select id from projects where id <> $1) where id = $1";
    world.execute(made, branch.id).await;
    let refused = world.give_site(branch.id, "branch", None, None).await;
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("branch"), "{message}");
    let none = world.credentials(branch).await;
    none.expect_code(501, "not_configured");
    let none = world.set_slug(branch, &json!("feat")).await;
    none.expect_code(501, "not_configured");
}

#[tokio::test]
async fn a_slug_is_a_label_and_one_projects() {
    let world = World::start().await;
    let (shop, rival) = (world.shop(), world.rival());
    for (of, name) in [(shop, "shop"), (rival, "rival")] {
        world.give_site(of.id, name, None, None).await.unwrap();
    }
    for (bad, rule) in [
        (json!("ab"), "3 to 63"),
        (json!("a".repeat(64)), "3 to 63"),
        (json!("My-Shop"), "lower-case"),
        (json!("-shop"), "begin and end"),
        (json!("shop.x"), "letters"),
        (json!("xn--shp-sna"), "third and fourth"),
        (json!(""), "3 to 63"),
        (json!("admin"), "reserved"),
        (json!(7), "slug"),
    ] {
        let refused = world.set_slug(shop, &bad).await;
        let refused = refused.expect_code(400, "invalid_input");
        let message = refused["message"].as_str().unwrap();
        assert!(message.starts_with("slug"), "{bad}: {message}");
        assert!(message.contains(rule), "{bad}: {message}");
    }
    // Left out it is a slip, and no wish to have none.
    let url = format!("{}/sites/v1/{}/slug", world.app.base_url, shop.id);
    let sign = signed(shop.secret, shop.id, world.now() - 1, world.now() + 599);
    let left_out = Answer::to(world.app.http.put(url).json(&json!({ "sign": sign }))).await;
    let refused = left_out.expect_code(400, "invalid_input");
    assert_eq!(refused["message"], "slug is required");

    let set = world.set_slug(shop, &json!("my-shop")).await.expect(200);
    assert_eq!(
        set,
        json!({ "success": true, "slug": "my-shop", "domain": "my-shop.sites.example.com" })
    );
    let taken = world.set_slug(rival, &json!("my-shop")).await;
    let taken = taken.expect_code(409, "slug_taken");
    assert_eq!(taken["error"], taken["message"]);
    assert!(taken["error"].as_str().unwrap().contains("my-shop"));
    assert_eq!(
        fields(&taken),
        ["code", "error", "message", "requestId", "success"]
    );
    let theirs = world.credentials(rival).await.expect(200);
    assert_eq!(theirs["slug"], Value::Null);

    // Its own name again is no conflict; and null frees it.
    world.a_second_later();
    world.set_slug(shop, &json!("my-shop")).await.expect(200);
    let cleared = world.set_slug(shop, &Value::Null).await.expect(200);
    assert_eq!(
        cleared,
        json!({ "success": true, "slug": null, "domain": null })
    );
    world.a_second_later();
    world.set_slug(rival, &json!("my-shop")).await.expect(200);
    let audited =
        "select count(*) from audit_log where action = 'site.slug_set' and actor like 'backend:%'
                   and address is not null and request_id is not null";
    assert_eq!(world.scalar(audited).await, 4);
}

#[tokio::test]
async fn of_two_projects_at_once_one_gets_the_slug() {
    let world = World::start().await;
    let (shop, rival) = (world.shop(), world.rival());
    for (of, name) in [(shop, "shop"), (rival, "rival")] {
        world.give_site(of.id, name, None, None).await.unwrap();
    }
    for round in 0..8 {
        world.a_second_later();
        let slug = json!(format!("wanted-{round}"));
        let (one, two) = tokio::join!(world.set_slug(shop, &slug), world.set_slug(rival, &slug));
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "{} {}", one.text, two.text);
        let winner = if one.status == 200 { shop } else { rival };
        let told = world.credentials(winner).await.expect(200);
        assert_eq!(told["slug"], slug);
    }
}

#[tokio::test]
async fn the_end_of_a_site_or_of_its_project_frees_the_slug() {
    let world = World::start().await;
    let (shop, rival) = (world.shop(), world.rival());
    for (of, name) in [(shop, "shop"), (rival, "rival")] {
        world.give_site(of.id, name, None, None).await.unwrap();
    }
    let control_plane = &world.app.control_plane;
    world.set_slug(shop, &json!("my-shop")).await.expect(200);
    control_plane.remove_site(shop.id).await.unwrap();
    let none = world.credentials(shop).await;
    none.expect_code(501, "not_configured");
    let again = control_plane.remove_site(shop.id).await.unwrap_err();
    assert_eq!(
        again.to_string(),
        DomainError::NotFound(Thing::Site).to_string()
    );
    world.set_slug(rival, &json!("my-shop")).await.expect(200);

    // A worker deletes the project; what was sealed for it goes with it, and the name is free.
    world.give_site(shop.id, "shop", None, None).await.unwrap();
    world.a_second_later();
    let taken = world.set_slug(shop, &json!("my-shop")).await;
    taken.expect_code(409, "slug_taken");
    world.delete(rival.id).await;
    assert_eq!(world.credentials(rival).await.status, 401);
    let refused = world.give_site(rival.id, "rival", None, None).await;
    let missing = DomainError::NotFound(Thing::Project).to_string();
    assert_eq!(refused.unwrap_err().to_string(), missing);
    assert_eq!(world.scalar("select count(*) from sites").await, 1);
    world.a_second_later();
    world.set_slug(shop, &json!("my-shop")).await.expect(200);
}
