//! What projects' backends ask of us (contract/project-backend.md 3): every signed route × every wrong signature. The
//! routes come from the OpenAPI document, so that a new one cannot escape.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use cp_model::ProjectId;
use cp_tests::{Answer, App, AppOptions, MovingClock};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};

struct World {
    app: App,
    clock: Arc<MovingClock>,
    project: ProjectId,
    secret: String,
    other: ProjectId,
    other_secret: String,
}

impl World {
    async fn start() -> Self {
        let clock = MovingClock::new();
        let app = App::start_with(AppOptions {
            clock: clock.clone(),
            ..AppOptions::default()
        })
        .await;
        let partner = app.partner().await;
        let mut made = Vec::new();
        for name in ["shop", "other"] {
            let id: ProjectId = partner.create_active_project(name).await.parse().unwrap();
            let machine = app.machine_of(id).await.unwrap();
            let desired = app
                .control_plane
                .desired_state(machine.id, 0, Duration::ZERO);
            let backend = desired.await.unwrap().unwrap().backend.unwrap();
            made.push((id, backend.env["JWT_SECRET"].clone()));
        }
        let (other, other_secret) = made.pop().unwrap();
        let (project, secret) = made.pop().unwrap();
        Self {
            app,
            clock,
            project,
            secret,
            other,
            other_secret,
        }
    }

    fn now(&self) -> i64 {
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

fn signed(secret: &str, project: ProjectId, iat: i64, exp: i64) -> String {
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
            } else if operation["requestBody"].is_object() {
                Way::Body
            } else {
                Way::Header
            };
            routes.push(Route {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                way,
            });
        }
    }
    assert!(routes.len() >= 7, "{routes:?}");
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
