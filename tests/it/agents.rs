//! The machines' side over HTTP: register, desired, report (`cp_model::agent_protocol`).

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::TimeDelta;
use cp_model::{MachineId, ProjectId};
use cp_provider::sim::{SimBoot, SimHost};
use cp_tests::{Answer, App, AppOptions, MovingClock, PartnerClient, eventually, fields};
use cp_tokens::secret::{OpaqueSecret, SecretKind};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use uuid::Uuid;

/// Machines that boot and have no agent: the scenario plays it.
#[derive(Default)]
struct Bare(Mutex<Vec<SimBoot>>);

#[async_trait]
impl SimHost for Bare {
    async fn booted(&self, boot: SimBoot) {
        self.0.lock().unwrap().push(boot);
    }
}

struct Story {
    app: App,
    clock: Arc<MovingClock>,
    partner: PartnerClient,
    boots: Arc<Bare>,
}

impl Story {
    async fn start() -> Self {
        let clock = MovingClock::new();
        let app = App::start_with(AppOptions {
            clock: clock.clone(),
            create_wait: Duration::ZERO,
            completion_wait: Duration::ZERO,
            ..AppOptions::default()
        })
        .await;
        let boots = Arc::new(Bare::default());
        app.sim.set_host(boots.clone());
        Self {
            partner: app.partner().await,
            clock,
            app,
            boots,
        }
    }

    /// A new project and the machine that was launched for it.
    async fn machine(&self, name: &str) -> (String, Agent<'_>) {
        let before = self.boots.0.lock().unwrap().len();
        let project = self.partner.create_project(name).await;
        assert_eq!(project["status"], "provisioning", "{project}");
        let (machine, bootstrap) = eventually("a boot", Duration::from_secs(10), async || {
            let boots = self.boots.0.lock().unwrap();
            let boot = boots.get(before)?;
            let token = boot.bootstrap_token.expose_secret().to_owned();
            Some((boot.machine_id, token))
        })
        .await;
        let agent = Agent {
            app: &self.app,
            machine,
            bootstrap,
            token: token(),
        };
        (project["id"].as_str().unwrap().to_owned(), agent)
    }
}

fn token() -> String {
    let token = OpaqueSecret::generate(SecretKind::AgentToken);
    token.expose().to_owned()
}

struct Agent<'a> {
    app: &'a App,
    machine: MachineId,
    bootstrap: String,
    token: String,
}

impl Agent<'_> {
    async fn register_as(&self, machine: MachineId, bootstrap: &str, token: &str) -> Answer {
        let body = json!({
            "machine_id": machine.to_string(), "bootstrap_token": bootstrap,
            "agent_token": token, "agent_version": "0.1.0"
        });
        let url = format!("{}/agent/v1/register", self.app.base_url);
        Answer::to(self.app.http.post(url).json(&body)).await
    }

    async fn register(&self) -> Answer {
        self.register_as(self.machine, &self.bootstrap, &self.token)
            .await
    }

    async fn desired(&self, query: &str) -> Answer {
        let url = format!("{}/agent/v1/desired{query}", self.app.base_url);
        Answer::to(self.app.http.get(url).bearer_auth(&self.token)).await
    }

    async fn report(&self, body: &Value) -> Answer {
        let url = format!("{}/agent/v1/report", self.app.base_url);
        let request = self.app.http.post(url).bearer_auth(&self.token);
        Answer::to(request.json(body)).await
    }

    async fn renew(&self, body: &Value) -> Answer {
        let url = format!("{}/agent/v1/renew", self.app.base_url);
        let request = self.app.http.post(url).bearer_auth(&self.token);
        Answer::to(request.json(body)).await
    }

    fn serving(desired: &Value) -> Value {
        json!({
            "generation": desired["generation"], "state": "serving",
            "restarts": desired["backend"]["restarts"], "backend_version": "2.3.1",
            "agent_version": "0.1.0"
        })
    }

    /// Does what it is told, once.
    async fn bring_up(&self, desired: &Value) {
        let backend = &desired["backend"];
        let project = backend["project_id"].as_str().unwrap().parse().unwrap();
        let key = backend["env"]["ACCESS_API_KEY"].as_str().unwrap();
        self.app.sim.serve(self.machine, ProjectId(project), key);
        let answer = self.report(&Self::serving(desired)).await;
        assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    }
}

async fn assert_becomes(partner: &PartnerClient, project: &str, status: &str) {
    eventually(status, Duration::from_secs(10), async || {
        let seen = partner.metadata(project).await.expect(200);
        (seen["project"]["status"] == status).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_agent_brings_a_project_up_and_follows_what_is_wanted() {
    let story = Story::start().await;
    let (project, agent) = story.machine("shop").await;
    assert_eq!(
        agent.register().await.expect(200),
        json!({ "machine_id": agent.machine.to_string() })
    );
    let desired = agent.desired("?generation=0&wait=10").await.expect(200);
    assert_eq!(fields(&desired), ["backend", "generation"]);
    let mut desired = desired;
    if desired["backend"].is_null() {
        let path = format!("?generation={}&wait=10", desired["generation"]);
        desired = agent.desired(&path).await.expect(200);
    }
    let backend = &desired["backend"];
    assert_eq!(backend["project_id"], json!(project));
    assert_eq!(
        fields(backend),
        [
            "database_password",
            "env",
            "project_id",
            "release",
            "restarts"
        ]
    );
    let seen = story.partner.metadata(&project).await.expect(200);
    assert_eq!(backend["env"]["ACCESS_API_KEY"], seen["project"]["api_key"]);
    assert_eq!(backend["env"]["PROJECT_ID"], json!(project));

    // Nobody has said that it serves, so it is not active.
    assert_eq!(seen["project"]["status"], "provisioning");
    agent.bring_up(&desired).await;
    assert_becomes(&story.partner, &project, "active").await;
    story.app.settle().await;

    // Nothing new: the answer is held back for as long as was asked.
    let generation = desired["generation"].as_i64().unwrap();
    let began = Instant::now();
    let nothing = agent
        .desired(&format!("?generation={generation}&wait=1"))
        .await;
    assert_eq!((nothing.status, nothing.text.as_str()), (204, ""));
    assert!(began.elapsed() >= Duration::from_secs(1));
    let at_once = agent.desired(&format!("?generation={generation}")).await;
    assert_eq!(at_once.status, 204);

    // Something new: told at once.
    let path = format!("?generation={generation}&wait=30");
    let (newer, restarting) = tokio::join!(
        async {
            let answer = agent.desired(&path).await;
            (answer, Instant::now())
        },
        async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let asked = Instant::now();
            let path = format!("/{project}/restart");
            story.partner.post(&path, &json!({})).await.expect(200);
            asked
        }
    );
    let (newer, told) = newer;
    assert!(told.duration_since(restarting) < Duration::from_secs(3));
    let newer = newer.expect(200);
    assert!(newer["generation"].as_i64().unwrap() > generation);
    assert_eq!(newer["backend"]["restarts"], 1);
    agent.bring_up(&newer).await;
    assert_becomes(&story.partner, &project, "active").await;

    // A deleted project's backend ends with the answer.
    let path = format!("?generation={}&wait=30", newer["generation"]);
    story.partner.delete_project(&project).await.expect(200);
    let last = agent.desired(&path).await;
    // The machine may be on its way out already, and its token with it.
    match last.status {
        200 => assert_eq!(last.body["backend"], Value::Null),
        status => assert_eq!(status, 401, "{}", last.text),
    }
}

#[tokio::test]
async fn a_bootstrap_token_buys_one_agent_token() {
    let story = Story::start().await;
    let (_, agent) = story.machine("shop").await;
    let unauthorized = |answer: Answer| answer.expect_code(401, "unauthorized");
    let never = OpaqueSecret::generate(SecretKind::BootstrapToken);
    // Before it is used: wrong token, wrong machine, tokens that are none.
    unauthorized(
        agent
            .register_as(agent.machine, never.expose(), &agent.token)
            .await,
    );
    let unknown = MachineId(Uuid::now_v7());
    unauthorized(
        agent
            .register_as(unknown, &agent.bootstrap, &agent.token)
            .await,
    );
    unauthorized(agent.register_as(agent.machine, "", &agent.token).await);
    unauthorized(
        agent
            .register_as(agent.machine, &agent.bootstrap, "short")
            .await,
    );
    assert_eq!(agent.desired("").await.status, 401, "not registered yet");

    let first = agent.register().await.expect(200);
    // A lost answer is mended by asking again.
    assert_eq!(agent.register().await.expect(200), first);
    let second = agent
        .register_as(agent.machine, &agent.bootstrap, &token())
        .await;
    let refused = unauthorized(second);
    assert_eq!(fields(&refused), ["code", "error", "requestId"]);
    agent.desired("").await.expect(200);
}

#[tokio::test]
async fn an_agent_renews_its_token_and_the_old_one_ends_an_hour_later() {
    let story = Story::start().await;
    let (_, mut agent) = story.machine("shop").await;
    let (_, other) = story.machine("other").await;
    agent.register().await.expect(200);
    other.register().await.expect(200);
    let (old, new) = (agent.token.clone(), token());
    for body in [
        json!({}),
        json!({ "agent_token": "short" }),
        json!({ "agent_token": old }),
    ] {
        let refused = agent.renew(&body).await.expect_code(400, "invalid_input");
        assert!(
            refused["error"]
                .as_str()
                .unwrap()
                .starts_with("agent_token")
        );
    }
    // A lost answer is mended by asking again.
    for _ in 0..2 {
        let answer = agent.renew(&json!({ "agent_token": new })).await;
        assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    }
    agent.desired("").await.expect(200);
    // Whoever has the old one cannot put a third in the new one's place.
    let stolen = agent.renew(&json!({ "agent_token": token() })).await;
    stolen.expect_code(401, "unauthorized");
    new.clone_into(&mut agent.token);
    agent.desired("").await.expect(200);
    story.clock.advance(TimeDelta::minutes(61));
    agent.desired("").await.expect(200);
    agent.token = old;
    agent.desired("").await.expect_code(401, "unauthorized");
    let stale = agent.renew(&json!({ "agent_token": token() })).await;
    stale.expect_code(401, "unauthorized");
    agent.token = new;
    agent.desired("").await.expect(200);
    other.desired("").await.expect(200);
}

#[tokio::test]
async fn of_many_that_hold_one_bootstrap_token_one_is_registered() {
    let story = Story::start().await;
    let (_, agent) = story.machine("shop").await;
    let tokens: Vec<String> = (0..10).map(|_| token()).collect();
    let asked = tokens
        .iter()
        .map(|token| agent.register_as(agent.machine, &agent.bootstrap, token));
    let answers = futures::future::join_all(asked).await;
    let taken = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().filter(|answer| answer.status == 401).count();
    assert_eq!((taken, refused), (1, 9));
}

#[tokio::test]
async fn a_bootstrap_token_of_another_machine_is_worth_nothing() {
    let story = Story::start().await;
    let (_, one) = story.machine("one").await;
    let (_, two) = story.machine("two").await;
    assert_ne!(one.machine, two.machine);
    let crossed = two
        .register_as(two.machine, &one.bootstrap, &two.token)
        .await;
    crossed.expect_code(401, "unauthorized");
    // It has done neither of them harm.
    one.register().await.expect(200);
    two.register().await.expect(200);
    // Nor can two machines share an agent token.
    let (_, three) = story.machine("three").await;
    let shared = three
        .register_as(three.machine, &three.bootstrap, &one.token)
        .await;
    assert_ne!(shared.status, 200, "{}", shared.text);
    three.register().await.expect(200);
}

#[tokio::test]
async fn a_bootstrap_token_ends_after_half_an_hour() {
    let mut story = Story::start().await;
    let (early, late) = {
        let (_, early) = story.machine("early").await;
        let (_, late) = story.machine("late").await;
        early.register().await.expect(200);
        let parts = |agent: Agent<'_>| (agent.machine, agent.bootstrap, agent.token);
        (parts(early), parts(late))
    };
    // Or it would give the machine up and launch another.
    story.app.kill_worker();
    story.clock.advance(TimeDelta::minutes(31));
    let agent = |(machine, bootstrap, token): (MachineId, String, String)| Agent {
        app: &story.app,
        machine,
        bootstrap,
        token,
    };
    let refused = agent(late).register().await;
    refused.expect_code(401, "unauthorized");
    // Who has registered may repeat it, and goes on.
    let early = agent(early);
    early.register().await.expect(200);
    early.desired("").await.expect(200);
}

#[tokio::test]
async fn what_agents_send_is_checked() {
    let story = Story::start().await;
    let (project, agent) = story.machine("shop").await;
    agent.register().await.expect(200);
    let whole = json!({ "generation": 1, "state": "idle", "agent_version": "0.1.0" });
    let with = |field: &str, value: Value| {
        let mut body = whole.clone();
        body[field] = value;
        body
    };
    let without = |field: &str| {
        let mut body = whole.clone();
        body.as_object_mut().unwrap().remove(field);
        body
    };
    for (body, words) in [
        (json!({}), ["generation", "required"]),
        (without("state"), ["state", "required"]),
        (without("agent_version"), ["agent_version", "required"]),
        (with("generation", json!("1")), ["generation", "must be"]),
        (with("state", json!("asleep")), ["state", ""]),
        (with("state", json!(1)), ["state", ""]),
        (with("restarts", json!(1.5)), ["restarts", "must be"]),
        (with("message", json!([])), ["message", "must be"]),
        (json!([1]), ["body", "object"]),
    ] {
        let refused = agent.report(&body).await.expect_code(400, "invalid_input");
        assert_eq!(fields(&refused), ["code", "error", "requestId"]);
        let message = refused["error"].as_str().unwrap();
        for word in words {
            assert!(message.contains(word), "{body}: {message}");
        }
    }
    for (query, name) in [
        ("?generation=x", "generation"),
        ("?generation=-1", "generation"),
        ("?wait=31", "wait"),
        ("?wait=-1", "wait"),
    ] {
        let refused = agent.desired(query).await.expect_code(400, "invalid_input");
        assert!(refused["error"].as_str().unwrap().starts_with(name));
    }
    // None of it was taken for a report.
    let mut conn = story.app.database.connect().await;
    let observed: Option<String> =
        sqlx::query_scalar("select observed_state from machines where id = $1")
            .bind(agent.machine.0)
            .fetch_one(&mut conn)
            .await
            .unwrap();
    assert_eq!(observed, None);

    // An agent's own words are tidied rather than refused: its reports matter more.
    let long = "x".repeat(2_000);
    let strange = json!({
        "generation": 1, "state": "failing", "agent_version": "0.1\u{0}",
        "message": format!("no disk\u{0}\u{1b}[31m {long}"), "unknown": { "a": 1 }
    });
    assert_eq!(agent.report(&strange).await.status, 204);
    let kept: String = sqlx::query_scalar("select agent_message from machines where id = $1")
        .bind(agent.machine.0)
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert!(kept.starts_with("no disk  [31m x"), "{kept}");
    assert_eq!(kept.chars().count(), 500);
    let seen = story.partner.metadata(&project).await.expect(200);
    assert_eq!(seen["project"]["status"], "provisioning");
}

#[tokio::test]
async fn a_report_of_an_older_generation_does_not_make_a_project_active() {
    let story = Story::start().await;
    let (project, agent) = story.machine("shop").await;
    agent.register().await.expect(200);
    let stale = json!({ "generation": 0, "state": "serving", "agent_version": "0.1.0" });
    assert_eq!(agent.report(&stale).await.status, 204);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let seen = story.partner.metadata(&project).await.expect(200);
    assert_eq!(seen["project"]["status"], "provisioning");
    // Nor does a report alone: the backend itself has to answer with the project's key.
    let desired = agent.desired("?generation=0&wait=5").await.expect(200);
    assert_eq!(agent.report(&Agent::serving(&desired)).await.status, 204);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let seen = story.partner.metadata(&project).await.expect(200);
    assert_eq!(seen["project"]["status"], "provisioning");
    let desired = match &desired["backend"] {
        Value::Null => agent
            .desired(&format!("?generation={}&wait=5", desired["generation"]))
            .await
            .expect(200),
        _ => desired,
    };
    agent.bring_up(&desired).await;
    assert_becomes(&story.partner, &project, "active").await;
}
