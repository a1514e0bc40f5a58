//! What projects' backends ask of us (contract/project-backend.md 3): every signed route × every wrong signature. The
//! routes come from the OpenAPI document, so that a new one cannot escape.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use cp_model::ProjectId;
use cp_tests::{Answer, App, AppOptions, MovingClock, PartnerClient};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};

pub(super) struct World {
    pub app: App,
    pub clock: Arc<MovingClock>,
    pub partner: PartnerClient,
    pub project: ProjectId,
    pub secret: String,
    pub other: ProjectId,
    pub other_secret: String,
}

impl World {
    pub async fn start() -> Self {
        let clock = MovingClock::new();
        let app = App::start_with(AppOptions {
            clock: clock.clone(),
            sites_domain: Some("sites.example.com".into()),
            ..AppOptions::default()
        })
        .await;
        let partner = app.partner().await;
        let mut made = Vec::new();
        for name in ["shop", "other"] {
            let id: ProjectId = partner.create_active_project(name).await.parse().unwrap();
            made.push((id, secret_of(&app, id).await));
        }
        let (other, other_secret) = made.pop().unwrap();
        let (project, secret) = made.pop().unwrap();
        Self {
            app,
            clock,
            partner,
            project,
            secret,
            other,
            other_secret,
        }
    }

    pub fn now(&self) -> i64 {
        self.app.control_plane.clock().now().timestamp()
    }

    /// As the backend signs, a second ago.
    fn sign(&self) -> String {
        let iat = self.now() - 1;
        signed(&self.secret, self.project, iat, iat + 600)
    }

    async fn call(&self, route: &Route, project: ProjectId, signature: Option<&str>) -> Answer {
        let path = route.path.replace("{projectId}", &project.to_string());
        let url = format!("{}{path}", self.app.base_url);
        let mut request = self.app.http.request(route.method.clone(), url);
        if let Some(body) = &route.body {
            request = request.json(body);
        }
        match (signature, route.way) {
            (Some(signature), Way::Header) => request = request.header("sign", signature),
            (Some(signature), Way::Query) => request = request.query(&[("sign", signature)]),
            (_, Way::Body) => {
                let body = json!({ "sign": signature.unwrap_or(""), "slug": "shop" });
                request = request.json(&body);
            }
            (None, _) => {}
        }
        Answer::to(request).await
    }
}

/// With which the project's backend signs.
pub async fn secret_of(app: &App, project: ProjectId) -> String {
    let machine = app.machine_of(project).await.unwrap();
    let desired = app
        .control_plane
        .desired_state(machine.id, 0, Duration::ZERO);
    let backend = desired.await.unwrap().unwrap().backend.unwrap();
    backend.env["JWT_SECRET"].clone()
}

pub fn signed(secret: &str, project: ProjectId, iat: i64, exp: i64) -> String {
    let claims = json!({ "sub": project, "iat": iat, "exp": exp });
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
}

/// How the signature travels.
#[derive(Debug, Clone, Copy)]
enum Way {
    Header,
    Query,
    Body,
}

#[derive(Debug)]
struct Route {
    method: Method,
    path: String,
    way: Way,
    /// What is sent besides the signature.
    body: Option<Value>,
}

fn routes() -> Vec<Route> {
    let document = serde_json::to_value(cp_api::openapi()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation["security"][0]["signature"].is_null() {
                continue;
            }
            let parameters = operation["parameters"].as_array().unwrap();
            let in_query = |p: &Value| p["in"] == "query" && p["name"] == "sign";
            let way = if parameters.iter().any(in_query) {
                Way::Query
            } else if path.starts_with("/email/") {
                Way::Header
            } else if operation["requestBody"].is_object() {
                Way::Body
            } else {
                Way::Header
            };
            routes.push(Route {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                way,
                body: path.starts_with("/email/").then(|| {
                    json!({
                        "email": "lin@example.com", "template": "request-otp", "variables": { "token": "123456" },
                        "to": "lin@example.com", "subject": "Hello", "html": "<p>Hello</p>",
                    })
                }),
            });
        }
    }
    assert!(routes.len() >= 9, "{routes:?}");
    routes
}

/// Either done, or honestly not there.
fn is_let_in(answer: &Answer) -> bool {
    let not_there = ["not_configured", "database_address_unknown"];
    let code = answer.body["code"].as_str().unwrap_or_default();
    answer.status == 200 || not_there.contains(&code)
}

#[tokio::test]
async fn only_the_projects_own_fresh_signature_is_taken_and_once() {
    let world = World::start().await;
    for route in routes() {
        let now = world.now();
        let (own, secret) = (world.project, &world.secret);
        let stranger = signed(&world.other_secret, world.other, now - 1, now + 599);
        for (what, wrong) in [
            ("none", None),
            ("nonsense", Some("x".to_owned())),
            ("another project's", Some(stranger)),
            (
                "another project's secret",
                Some(signed(&world.other_secret, own, now - 1, now + 599)),
            ),
            (
                "for another project",
                Some(signed(secret, world.other, now - 1, now + 599)),
            ),
            ("expired", Some(signed(secret, own, now - 601, now - 1))),
            (
                "good for a day",
                Some(signed(secret, own, now - 1, now + 86_400)),
            ),
            (
                "of tomorrow",
                Some(signed(secret, own, now + 600, now + 1200)),
            ),
        ] {
            let answer = world.call(&route, own, wrong.as_deref()).await;
            // A body without a signature is a bad body.
            let expected = [401, 400];
            assert!(
                expected.contains(&answer.status),
                "{route:?} with {what}: {} {}",
                answer.status,
                answer.text
            );
            assert!(answer.body["message"].is_string(), "{}", answer.text);
        }
        // A project that is not there answers alike.
        let nobody = ProjectId::generate();
        let theirs = signed(secret, nobody, now - 1, now + 599);
        let missing = world.call(&route, nobody, Some(&theirs)).await;
        assert_eq!(missing.status, 401, "{route:?}: {}", missing.text);

        let token = world.sign();
        let first = world.call(&route, own, Some(&token)).await;
        assert!(
            is_let_in(&first),
            "{route:?}: {} {}",
            first.status,
            first.text
        );
        // In the same second somebody else may ask for the same; a change is made once.
        let again = world.call(&route, own, Some(&token)).await;
        if route.method == Method::GET {
            assert!(is_let_in(&again), "{route:?}: {}", again.text);
        } else {
            assert_eq!(again.status, 401, "{route:?}: {}", again.text);
        }
        world.clock.advance(TimeDelta::seconds(10));
        let later = world.call(&route, own, Some(&token)).await;
        assert_eq!(
            later.status, 401,
            "{route:?}, ten seconds later: {}",
            later.text
        );
        let fresh = world.call(&route, own, Some(&world.sign())).await;
        assert!(is_let_in(&fresh), "{route:?}: {}", fresh.text);
    }
    // One that stood in an address, which may be written down, soon opens nothing else; nor does another spelling.
    let routes = routes();
    let find = |path: &str| {
        routes
            .iter()
            .find(|route| route.path.contains(path))
            .unwrap()
    };
    let token = world.sign();
    let asked = world
        .call(find("/ai/v1/activity"), world.project, Some(&token))
        .await;
    assert!(is_let_in(&asked), "{}", asked.text);
    world.clock.advance(TimeDelta::seconds(6));
    let password = find("database-password");
    let stolen = world.call(password, world.project, Some(&token)).await;
    assert_eq!(stolen.status, 401, "{}", stolen.text);
    let token = world.sign();
    let again = |body: &'static str, id: String| {
        let url = format!("{}/sites/v1/{id}/slug", world.app.base_url);
        let body = body.replace("TOKEN", &token);
        let request = world
            .app
            .http
            .put(url)
            .header("content-type", "application/json");
        Answer::to(request.body(body))
    };
    let id = world.project.to_string();
    let first = again(r#"{"sign":"TOKEN","slug":"shop"}"#, id.clone()).await;
    assert!(is_let_in(&first), "{}", first.text);
    for (body, id) in [
        (r#"{"sign":"TOKEN", "slug":"shop"}"#, id.clone()),
        (r#"{"slug":"shop","sign":"TOKEN"}"#, id.clone()),
        (r#"{"sign":"TOKEN","slug":"shop"}"#, id.to_uppercase()),
        (
            r#"{"sign":"TOKEN","slug":"shop"}"#,
            id.replacen('-', "%2D", 1),
        ),
    ] {
        let replayed = again(body, id).await;
        assert_eq!(replayed.status, 401, "{body}: {}", replayed.text);
    }
    // What is used is thrown away once it has expired.
    world.clock.advance(TimeDelta::minutes(11));
    world.app.control_plane.keep_house().await.unwrap();
    let left: i64 = sqlx::query_scalar("select count(*) from used_signatures")
        .fetch_one(&mut world.app.database.connect().await)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_deleted_projects_signature_is_worth_nothing() {
    let world = World::start().await;
    let token = world.sign();
    sqlx::query("update projects set status = 'deleting' where id = $1")
        .bind(world.project.0)
        .execute(&mut world.app.database.connect().await)
        .await
        .unwrap();
    for route in routes() {
        let answer = world.call(&route, world.project, Some(&token)).await;
        assert_eq!(answer.status, 401, "{route:?}: {}", answer.text);
    }
}

impl World {
    async fn mail(&self, what: &str, body: &Value) -> Answer {
        let url = format!("{}/email/v1/{}/{what}", self.app.base_url, self.project);
        let request = self.app.http.post(url).header("sign", self.sign());
        Answer::to(request.json(body)).await
    }

    async fn counted(&self) -> i64 {
        sqlx::query_scalar(
            "select coalesce(sum(email_requests), 0)::bigint from usage_daily where project_id = $1",
        )
        .bind(self.project.0)
        .fetch_one(&mut self.app.database.connect().await)
        .await
        .unwrap()
    }
}

#[tokio::test]
async fn a_backends_mails_go_out_in_its_name_and_are_counted() {
    let world = World::start().await;
    let link = "https://shop.example/verify?token=a&b=<c>";
    for (template, variables, expected) in [
        (
            "email-verification-code",
            json!({ "token": "123456" }),
            "123456",
        ),
        (
            "reset-password-code",
            json!({ "token": "234567" }),
            "234567",
        ),
        ("request-otp", json!({ "token": "345678" }), "345678"),
        (
            "email-verification-link",
            json!({ "link": link }),
            "shop.example/verify",
        ),
        (
            "reset-password-link",
            json!({ "link": link }),
            "shop.example/verify",
        ),
    ] {
        let to = format!("{template}@example.com");
        let body =
            json!({ "email": to, "name": "Lin", "template": template, "variables": variables });
        let sent = world.mail("send-with-template", &body).await.expect(200);
        assert_eq!(sent["success"], true);
        let mail = world.app.newest_mail(&to).await;
        assert!(mail.text.contains(expected), "{template}: {}", mail.text);
        assert!(
            mail.text.contains("shop"),
            "signed by the project: {}",
            mail.text
        );
        assert!(!mail.text.contains("InsForge"), "{}", mail.text);
    }
    assert_eq!(world.counted().await, 5);

    // What it has written itself: a partner's project may.
    let own = json!({
        "to": ["own@example.com", "two@example.com"], "cc": "three@example.com", "subject": "Your order",
        "html": "<p>It is on its way.</p>", "from": "Storefront", "replyTo": "help@example.com",
    });
    world.mail("send-on-demand", &own).await.expect(200);
    let mail = world.app.newest_mail("own@example.com").await;
    assert_eq!(mail.subject, "Your order");
    assert_eq!(world.counted().await, 6);

    // What breaks a rule is not counted, nor queued.
    for (what, body, rule) in [
        (
            "send-with-template",
            json!({ "email": "x", "template": "request-otp", "variables": { "token": "1" } }),
            "email",
        ),
        (
            "send-with-template",
            json!({ "email": "a@example.com", "template": "poem", "variables": {} }),
            "template",
        ),
        (
            "send-with-template",
            json!({ "email": "a@example.com", "template": "request-otp", "variables": {} }),
            "variables.token",
        ),
        (
            "send-with-template",
            json!({ "email": "a@example.com", "template": "reset-password-link", "variables": { "link": "javascript:x" } }),
            "variables.link",
        ),
        (
            "send-on-demand",
            json!({ "to": [], "subject": "x", "html": "x" }),
            "to",
        ),
        (
            "send-on-demand",
            json!({ "to": vec!["a@example.com"; 51], "subject": "x", "html": "x" }),
            "to",
        ),
        (
            "send-on-demand",
            json!({ "to": "a@example.com\r\nBcc: b@example.com", "subject": "x", "html": "x" }),
            "to",
        ),
        (
            "send-on-demand",
            json!({ "to": "a@example.com", "subject": "", "html": "x" }),
            "subject",
        ),
        (
            "send-on-demand",
            json!({ "to": "a@example.com", "subject": "x", "html": " " }),
            "html",
        ),
    ] {
        let refused = world
            .mail(what, &body)
            .await
            .expect_code(400, "invalid_input");
        let message = refused["message"].as_str().unwrap();
        assert!(message.starts_with(rule), "{body}: {message}");
    }
    assert_eq!(world.counted().await, 6);

    // The free plan sends none of its own, and fewer in a day.
    let free = "update organizations set plan = 'free' where id = (select organization_id from projects where id = $1)";
    sqlx::query(free)
        .bind(world.project.0)
        .execute(&mut world.app.database.connect().await)
        .await
        .unwrap();
    // Signed in another second: else it would be the same mail again.
    world.clock.advance(TimeDelta::seconds(1));
    let refused = world.mail("send-on-demand", &own).await;
    refused.expect_code(403, "plan_upgrade_needed");
    let day = "update usage_daily set email_requests = 100 where project_id = $1";
    sqlx::query(day)
        .bind(world.project.0)
        .execute(&mut world.app.database.connect().await)
        .await
        .unwrap();
    let body = json!({ "email": "a@example.com", "template": "request-otp", "variables": { "token": "1" } });
    let refused = world.mail("send-with-template", &body).await;
    assert!(refused.header("retry-after").is_some());
    refused.expect_code(429, "rate_limited");
}
