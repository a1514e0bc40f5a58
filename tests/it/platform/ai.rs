//! The AI gateway (contract/project-backend.md 3.3), with a stand-in for OpenRouter: whatever happens, each project has one
//! key, always the same, and no key is left that nobody uses.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use cp_domain::{AiKey, FinishedAiKey};
use cp_model::{Project, ProjectId};
use cp_storage::projects;
use cp_tests::{Answer, App, AppOptions, Fault, MovingClock, OpenRouterStandIn, PartnerClient};
use futures::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use super::backend_calls::{secret_of, signed};

const SOON: Duration = Duration::from_secs(20);

struct Stage {
    app: App,
    clock: Arc<MovingClock>,
    openrouter: OpenRouterStandIn,
    partner: PartnerClient,
    project: ProjectId,
    secret: String,
}

impl Stage {
    async fn start() -> Self {
        Self::start_with(OpenRouterStandIn::client).await
    }

    async fn start_with(client: impl Fn(&OpenRouterStandIn) -> cp_ai::OpenRouter) -> Self {
        let openrouter = OpenRouterStandIn::start().await;
        let clock = MovingClock::new();
        let app = App::start_with(AppOptions {
            clock: clock.clone(),
            openrouter: Some(client(&openrouter)),
            ..AppOptions::default()
        })
        .await;
        let partner = app.partner().await;
        let project = partner.create_active_project("shop").await.parse().unwrap();
        let secret = secret_of(&app, project).await;
        Self {
            app,
            clock,
            openrouter,
            partner,
            project,
            secret,
        }
    }

    fn sign(&self) -> String {
        let iat = self.app.control_plane.clock().now().timestamp() - 1;
        signed(&self.secret, self.project, iat, iat + 600)
    }

    fn asking_at(&self, base_url: &str) -> RequestBuilder {
        let url = format!("{base_url}/ai/v1/credentials/{}", self.project);
        self.app.http.get(url).query(&[("sign", self.sign())])
    }

    async fn ask(&self) -> Answer {
        Answer::to(self.asking_at(&self.app.base_url)).await
    }

    async fn key(&self) -> String {
        key_in(self.ask().await)
    }

    /// A second later: a signature rotates once.
    async fn rotate(&self) -> Answer {
        self.clock.advance(TimeDelta::seconds(1));
        let url = format!(
            "{}/ai/v1/credentials/{}/rotate",
            self.app.base_url, self.project
        );
        Answer::to(
            self.app
                .http
                .post(url)
                .json(&json!({ "sign": self.sign() })),
        )
        .await
    }

    /// The texts of all keys that there are at OpenRouter.
    fn kept(&self) -> Vec<String> {
        let world = self.openrouter.world();
        world.keys.values().map(|key| key.text.clone()).collect()
    }

    async fn until_kept(&self, wanted: &[String]) {
        cp_tests::eventually("OpenRouter has the right keys", SOON, async || {
            (self.kept() == wanted).then_some(())
        })
        .await;
    }

    async fn row(&self) -> Project {
        let mut conn = self.app.database.open(2).acquire().await.unwrap();
        let found = projects::find_project(&mut conn, self.project).await;
        found.unwrap().unwrap()
    }

    async fn states(&self) -> Vec<String> {
        sqlx::query_scalar(
            "select state from ai_keys where project_id = $1 order by created_at, id",
        )
        .bind(self.project.0)
        .fetch_all(&mut self.app.database.connect().await)
        .await
        .unwrap()
    }
}

#[track_caller]
fn key_in(answer: Answer) -> String {
    let body = answer.expect(200);
    body["openrouter"]["api_key"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_project_has_one_key_of_its_own_and_always_the_same() {
    let stage = Stage::start().await;
    let answer = stage.ask().await;
    assert_eq!(answer.header("cache-control").unwrap(), "no-store");
    assert_eq!(answer.body["openrouter"]["limit_remaining"], 19.75);
    let key = key_in(answer);
    assert_eq!(stage.key().await, key);
    stage.clock.advance(TimeDelta::days(40));
    assert_eq!(stage.key().await, key);
    assert_eq!(stage.kept(), std::slice::from_ref(&key));
    {
        let world = stage.openrouter.world();
        let kept = world.keys.values().next().unwrap();
        assert!(
            kept.name.contains(&stage.project.to_string()),
            "{}",
            kept.name
        );
        assert!((kept.limit - 20.0).abs() < f64::EPSILON, "{}", kept.limit);
    }
    // Nothing of it stands in the database in the clear.
    let stored: Vec<u8> = sqlx::query_scalar("select key_sealed from ai_keys")
        .fetch_one(&mut stage.app.database.connect().await)
        .await
        .unwrap();
    assert!(!String::from_utf8_lossy(&stored).contains(&key[..12]));
    // What is left is told if OpenRouter tells it; the key is told all the same.
    stage.openrouter.fails(Method::GET, Fault::Refuse(500));
    let answer = stage.ask().await;
    assert!(answer.body["openrouter"].get("limit_remaining").is_none());
    assert_eq!(key_in(answer), key);

    // Another project has another one, and its signature opens nothing here.
    let other: ProjectId = stage
        .partner
        .create_active_project("other")
        .await
        .parse()
        .unwrap();
    let secret = secret_of(&stage.app, other).await;
    let iat = stage.app.control_plane.clock().now().timestamp() - 1;
    let token = signed(&secret, other, iat, iat + 600);
    let ask = |project: ProjectId| {
        let url = format!("{}/ai/v1/credentials/{project}", stage.app.base_url);
        Answer::to(stage.app.http.get(url).query(&[("sign", &token)]))
    };
    let calls = stage.openrouter.world().calls.len();
    ask(stage.project).await.expect_code(401, "unauthorized");
    assert_eq!(stage.openrouter.world().calls.len(), calls);
    assert_ne!(key_in(ask(other).await), key);
}

#[tokio::test]
async fn twenty_first_calls_at_two_processes_make_one_key() {
    let stage = Stage::start().await;
    stage.openrouter.world().pace = Duration::from_millis(500);
    let second = stage.app.start_second_api().await;
    let bases = [stage.app.base_url.clone(), second];
    let calls = (0..20).map(|i| Answer::to(stage.asking_at(&bases[i % 2])));
    let keys: Vec<String> = join_all(calls).await.into_iter().map(key_in).collect();
    assert_eq!(stage.kept(), [keys[0].clone()]);
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_eq!(stage.openrouter.count("POST /api/v1/keys"), 1);
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_a_key_that_is_used() {
    let stage = Stage::start().await;
    stage.openrouter.world().pace = Duration::from_millis(500);
    let impatient = stage.asking_at(&stage.app.base_url);
    let gone = impatient.timeout(Duration::from_millis(150)).send().await;
    assert!(gone.is_err());
    let key = stage.key().await;
    assert_eq!(stage.kept(), [key]);
    assert_eq!(stage.openrouter.count("POST /api/v1/keys"), 1);
}

#[tokio::test]
async fn a_key_that_was_made_and_not_stored_is_found_and_deleted() {
    let stage = Stage::start().await;
    let (control_plane, project) = (&stage.app.control_plane, stage.row().await);
    // A process dies after OpenRouter has made the key, another one before it asked.
    let attempt = control_plane.begin_ai_key_attempt(&project).await.unwrap();
    let client = stage.openrouter.client();
    let made = client
        .create_key(&attempt.name, attempt.monthly_limit)
        .await;
    let orphan = made.ok().unwrap();
    assert_eq!(stage.kept().len(), 1);
    stage.clock.advance(TimeDelta::minutes(3));
    control_plane.begin_ai_key_attempt(&project).await.unwrap();
    stage.clock.advance(TimeDelta::minutes(3));
    let key = stage.key().await;
    stage.until_kept(std::slice::from_ref(&key)).await;
    assert_ne!(
        stage.openrouter.world().keys.keys().next(),
        Some(&orphan.hash)
    );
    // What is not in the list might come: it is looked for until that is impossible.
    assert!(stage.states().await.contains(&"doomed".to_owned()));
    stage.clock.advance(TimeDelta::minutes(20));
    cp_tests::eventually("all is settled", SOON, async || {
        (stage.states().await == ["gone", "gone", "current"]).then_some(())
    })
    .await;
    assert_eq!(stage.key().await, key);
    // The first one was only slow: its key belongs to nobody, and goes, too.
    let late = client.create_key(&attempt.name, 100).await.ok().unwrap();
    let late = AiKey {
        hash: late.hash,
        key: late.key,
    };
    let finished = control_plane.finish_ai_key(&attempt, &project, &late);
    assert_eq!(finished.await.unwrap(), FinishedAiKey::TooLate);
    stage.until_kept(std::slice::from_ref(&key)).await;
    assert_eq!(stage.key().await, key);
    // They are forgotten, when they are not counted any more.
    stage.clock.advance(TimeDelta::days(50));
    cp_tests::eventually("they are settled again", SOON, async || {
        control_plane.keep_house().await.unwrap();
        (stage.states().await == ["current"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_lost_costs_no_key() {
    let stage = Stage::start().await;
    stage.openrouter.fails(Method::POST, Fault::DoAndSay(502));
    let refused = stage.ask().await;
    assert_eq!(refused.header("retry-after").unwrap(), "10");
    refused.expect_code(503, "ai_unavailable");
    // It is not tried again at once: each attempt may leave a key.
    stage.ask().await.expect_code(503, "ai_unavailable");
    assert_eq!(stage.openrouter.count("POST /api/v1/keys"), 1);
    stage.clock.advance(TimeDelta::seconds(11));
    let key = stage.key().await;
    stage.until_kept(&[key]).await;
}

#[tokio::test]
async fn a_refusal_is_told_in_our_words_and_leaves_nothing() {
    let stage = Stage::start_with(|openrouter| openrouter.client_with("sk-or-v1-wrong-00")).await;
    let refused = stage.ask().await;
    assert!(
        !refused.text.contains("credentials found"),
        "{}",
        refused.text
    );
    assert!(
        refused.body["message"]
            .as_str()
            .unwrap()
            .contains("operator")
    );
    refused.expect_code(502, "ai_gateway_failed");
    assert!(stage.states().await.is_empty());

    let stage = Stage::start().await;
    stage.openrouter.fails(Method::POST, Fault::Refuse(402));
    stage.ask().await.expect_code(502, "ai_gateway_failed");
    stage.openrouter.fails(Method::POST, Fault::Refuse(429));
    stage.ask().await.expect_code(503, "ai_unavailable");
    // Nothing was done by either, so the next one may try at once.
    let key = stage.key().await;
    assert_eq!(stage.kept(), [key]);
}

#[tokio::test]
async fn a_rotation_replaces_the_key_and_deletes_the_old_one() {
    let stage = Stage::start().await;
    let first = stage.key().await;
    let second = key_in(stage.rotate().await);
    assert_ne!(first, second);
    assert_eq!(stage.key().await, second);
    // If the answer was lost, the backend goes on with the old one for a while.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.kept().len(), 2);
    stage.clock.advance(TimeDelta::minutes(2));
    stage.until_kept(std::slice::from_ref(&second)).await;
    // A new one that cannot be made leaves the old one.
    stage.openrouter.fails(Method::POST, Fault::Refuse(402));
    stage.rotate().await.expect_code(502, "ai_gateway_failed");
    assert_eq!(stage.key().await, second);
    // An old one that cannot be deleted is deleted by a worker.
    stage.openrouter.fails(Method::DELETE, Fault::Refuse(500));
    let third = key_in(stage.rotate().await);
    assert_eq!(stage.key().await, third);
    stage.clock.advance(TimeDelta::minutes(2));
    cp_tests::eventually("the third is alone", SOON, async || {
        stage.clock.advance(TimeDelta::seconds(30));
        (stage.kept() == [third.clone()]).then_some(())
    })
    .await;
    // Another one that is under way is not disturbed.
    let project = stage.row().await;
    let control_plane = &stage.app.control_plane;
    let attempt = control_plane.begin_ai_key_attempt(&project).await.unwrap();
    stage.rotate().await.expect_code(409, "ai_key_being_made");
    control_plane.abandon_ai_key(&attempt, false).await.unwrap();
    // Each new key could spend the month's limit again, so there are only so many.
    for _ in 4..=5 {
        key_in(stage.rotate().await);
    }
    let last = stage.key().await;
    let refused = stage.rotate().await;
    assert!(refused.header("retry-after").is_some());
    refused.expect_code(429, "rate_limited");
    assert_eq!(stage.key().await, last);
    stage.clock.advance(TimeDelta::minutes(5));
    stage.until_kept(&[last]).await;
    let actions: Vec<String> =
        sqlx::query_scalar("select action from audit_log where actor = $1 order by at, id limit 2")
            .bind(format!("backend:{}", stage.project))
            .fetch_all(&mut stage.app.database.connect().await)
            .await
            .unwrap();
    assert_eq!(actions, ["project.ai_key_made", "project.ai_key_rotated"]);
}

#[tokio::test]
async fn a_deleted_projects_key_goes_and_a_plans_limit_comes() {
    let stage = Stage::start().await;
    let key = stage.key().await;
    let free = "update organizations set plan = 'free' where id = (select organization_id from projects where id = $1)";
    sqlx::query(free)
        .bind(stage.project.0)
        .execute(&mut stage.app.database.connect().await)
        .await
        .unwrap();
    let limit = || stage.openrouter.world().keys.values().next().unwrap().limit;
    cp_tests::eventually("the limit is the free plan's", SOON, async || {
        ((limit() - 1.0).abs() < f64::EPSILON).then_some(())
    })
    .await;
    assert_eq!(stage.key().await, key);

    stage.openrouter.fails(Method::DELETE, Fault::Refuse(503));
    let deleted = stage
        .partner
        .delete_project(&stage.project.to_string())
        .await;
    assert!(deleted.status < 300, "{}", deleted.text);
    cp_tests::eventually("it was tried to delete the key", SOON, async || {
        let world = stage.openrouter.world();
        world
            .calls
            .iter()
            .any(|call| call.starts_with("DELETE"))
            .then_some(())
    })
    .await;
    assert_eq!(stage.kept(), [key]);
    cp_tests::eventually("the key is gone", SOON, async || {
        stage.clock.advance(TimeDelta::seconds(30));
        stage.kept().is_empty().then_some(())
    })
    .await;
    cp_tests::eventually("that is noted", SOON, async || {
        (stage.states().await == ["gone"]).then_some(())
    })
    .await;
}
