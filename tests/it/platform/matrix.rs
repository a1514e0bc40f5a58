//! Every route that takes a bearer × everyone who may not call it. The routes, what they ask of a caller and bodies
//! that they would take come from the OpenAPI document, so that a new route cannot escape.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::TimeDelta;
use cp_domain::people::NewApiKey;
use cp_model::{Scope, Scopes};
use cp_tests::{Answer, App, AppOptions, Member, MovingClock};
use cp_tokens::secret::{OpaqueSecret, SecretKind};
use reqwest::{Method, RequestBuilder};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stage::caller;

/// Each request has the same id, so that bodies can be compared byte for byte.
const REQUEST_ID: &str = "same-for-all";

/// A developer may send it, though not with all that its body can hold: a bigger disk is for administrators.
const PARTLY_FOR_ADMINISTRATORS: &str = "PUT /projects/v1/{projectId}";

/// What is said to whoever may ask, of what there is not.
const NOTHING_THERE: &[&str] = &["\"no_scan\"", "\"not_connected\"", "\"session_not_found\""];

#[derive(Debug, Clone)]
struct Route {
    method: Method,
    path: String,
    /// Scopes, `account`, `administrator`: as the document says.
    asks: BTreeSet<String>,
    /// Names of parameters that must be in the query.
    query: BTreeSet<String>,
    /// A body that would be taken.
    body: Option<Value>,
}

impl Route {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn scope(&self) -> Option<Scope> {
        self.asks.iter().find_map(|asked| asked.parse().ok())
    }

    fn request(&self, by: &Member, ids: &Ids) -> RequestBuilder {
        let mut path = self.path.clone();
        for (name, id) in &ids.0 {
            path = path.replace(&format!("{{{name}}}"), id);
        }
        assert!(
            !path.contains('{'),
            "{path}: give the parameter an id in `Ids`"
        );
        let project = &ids.0["projectId"];
        let query = [("p", project), ("project_id", project)];
        let query = query
            .into_iter()
            .filter(|(name, _)| self.query.contains(*name));
        let request = by
            .request(self.method.clone(), &path)
            .query(&query.collect::<Vec<_>>())
            .header("x-request-id", REQUEST_ID);
        let Some(mut body) = self.body.clone() else {
            return request;
        };
        for (field, id) in [
            ("organizationId", "organizationId"),
            ("targetOrganizationId", "organizationId"),
            ("project_id", "projectId"),
        ] {
            if body.get(field).is_some() {
                body[field] = json!(ids.0[id]);
            }
        }
        request.body(body.to_string())
    }

    async fn call(&self, by: &Member, ids: &Ids) -> Answer {
        Answer::to(self.request(by, ids)).await
    }

    /// None: it was let in, and waits for a worker, of which there is none.
    async fn call_briefly(&self, by: &Member, ids: &Ids) -> Option<Answer> {
        let request = self.request(by, ids).timeout(Duration::from_secs(3));
        match request.send().await {
            Ok(response) => Some(Answer::of(response).await),
            Err(error) if error.is_timeout() => None,
            Err(error) => panic!("{}: {error}", self.name()),
        }
    }
}

/// Those that take a bearer of a person.
fn routes() -> Vec<Route> {
    let document = serde_json::to_value(cp_api::openapi()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(asks) = operation["security"][0]["bearer"].as_array() else {
                continue;
            };
            let body = &operation["requestBody"]["content"]["application/json"]["schema"];
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let needed = parameters.filter(|p| p["in"] == "query" && p["required"] == true);
            let query = needed
                .map(|p| p["name"].as_str().unwrap().to_owned())
                .collect();
            routes.push(Route {
                query,
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                asks: asks
                    .iter()
                    .map(|a| a.as_str().unwrap().to_owned())
                    .collect(),
                body: (!body.is_null()).then(|| example(&document, body)),
            });
        }
    }
    assert!(routes.len() > 25, "{}", routes.len());
    routes
}

/// A value that the schema takes, from its examples.
fn example(document: &Value, schema: &Value) -> Value {
    if let Some(target) = schema["$ref"].as_str() {
        return example(document, document.pointer(&target[1..]).unwrap());
    }
    if let Some(given) = schema.get("example") {
        return given.clone();
    }
    if let Some(values) = schema["enum"].as_array() {
        return values[0].clone();
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let real = choices.iter().find(|choice| choice["type"] != "null");
        return example(document, real.unwrap());
    }
    let Some(properties) = schema["properties"].as_object() else {
        panic!("give the schema an example: {schema}");
    };
    let filled = properties
        .iter()
        .map(|(name, schema)| (name.clone(), example(document, schema)));
    Value::Object(filled.collect())
}

/// What stands in paths, by the parameters' names.
#[derive(Clone)]
struct Ids(BTreeMap<&'static str, String>);

impl Ids {
    fn random() -> Self {
        let names = [
            "organizationId",
            "projectId",
            "branchId",
            "memberId",
            "invitationId",
            "sessionId",
            "backupId",
        ];
        Self(names.map(|name| (name, Uuid::now_v7().to_string())).into())
    }
}

/// An administrator, a developer, and all that can stand in a path.
struct World {
    app: App,
    clock: std::sync::Arc<MovingClock>,
    ada: Member,
    ids: Ids,
}

impl World {
    /// Without a worker: nothing moves by itself.
    async fn start() -> Self {
        let clock = MovingClock::new();
        let app = App::start_with(AppOptions {
            worker: false,
            clock: clock.clone(),
            ..AppOptions::default()
        })
        .await;
        let ada = app.member("Ada").await;
        let team = ada.create_organization("Team").await;
        let made = ada.begin_project(&team, "shop").await.expect(201);
        let project = made["project"]["id"].as_str().unwrap().to_owned();
        set(
            &app,
            "update operations set state = 'succeeded' where project_id = $1",
            &project,
        )
        .await;
        set(
            &app,
            "update projects set status = 'active' where id = $1",
            &project,
        )
        .await;
        let path = format!("/projects/v1/{project}/backup");
        let made = ada.post(&path).await.expect(202);
        let backup = made["backup"]["id"].as_str().unwrap().to_owned();
        for statement in [
            "update operations set state = 'succeeded' where project_id = $1",
            r#"update backups set trigger_source = 'scheduled', completed_at = now(), copy = '{"key": "x/y", "size": 1, "crc32": 1}' where project_id = $1"#,
        ] {
            set(&app, statement, &project).await;
        }
        let body = json!({ "name": "feat", "mode": "full" });
        let path = format!("/projects/v1/{project}/branches");
        let made = ada.send(Method::POST, &path, &body).await.expect(201);
        let branch = made["branch"]["id"].as_str().unwrap().to_owned();
        let made = ada
            .invite(&team, "new@example.com", "developer")
            .await
            .expect(201);
        let invitation = made["invitation"]["id"].as_str().unwrap().to_owned();
        let member = ada.membership(&team, &ada.user).await;
        let ids = [
            ("organizationId", team),
            ("projectId", project),
            ("branchId", branch),
            ("memberId", member),
            ("invitationId", invitation),
            ("backupId", backup),
            // There are none.
            ("sessionId", Uuid::now_v7().to_string()),
        ];
        Self {
            ids: Ids(ids.into()),
            app,
            clock,
            ada,
        }
    }

    /// The same person with an API key of these scopes; none: everything.
    async fn with_key(&self, scopes: Option<Scopes>) -> Member {
        let by = self
            .app
            .control_plane
            .authenticate_bearer(&self.ada.bearer, &caller())
            .await
            .unwrap();
        let new = NewApiKey {
            name: "x".into(),
            scopes,
            expires_in_days: None,
        };
        let (_, key) = self
            .app
            .control_plane
            .create_api_key(&by, &new)
            .await
            .unwrap();
        self.app.member_with(&self.ada.user, key.expose_secret())
    }

    async fn with_new_login(&self) -> Member {
        let login = json!({ "email": "ada@example.com", "password": cp_tests::PASSWORD });
        let url = format!("{}/auth/v1/login", self.app.base_url);
        let answer = Answer::to(self.app.http.post(url).json(&login))
            .await
            .expect(200);
        self.app
            .member_with(&self.ada.user, answer["token"].as_str().unwrap())
    }

    /// All that Ada has, as she sees it.
    async fn state(&self) -> Vec<Value> {
        let id = |name| &self.ids.0[name];
        let (team, project, branch) = (id("organizationId"), id("projectId"), id("branchId"));
        let mut seen = Vec::new();
        for path in [
            "/organizations/v1".to_owned(),
            format!("/organizations/v1/{team}/members"),
            format!("/organizations/v1/{team}/projects"),
            format!("/projects/v1/{project}"),
            format!("/projects/v1/{project}/backups"),
            format!("/projects/v1/{project}/branches"),
            format!("/projects/v1/branches/{branch}"),
        ] {
            seen.push(self.ada.get(&path).await.expect(200));
        }
        seen
    }
}

async fn set(app: &App, statement: &'static str, id: &str) {
    sqlx::query(statement)
        .bind(Uuid::parse_str(id).unwrap())
        .execute(&mut app.database.connect().await)
        .await
        .unwrap();
}

#[tokio::test]
async fn without_a_good_bearer_every_route_answers_401() {
    let world = World::start().await;
    let before = world.state().await;
    let app = &world.app;
    let expired = world.ada.bearer.clone();
    world.clock.advance(TimeDelta::hours(2));
    let partner = app.partner().await;
    let opaque = |kind| OpaqueSecret::generate(kind).expose().to_owned();
    let (rest, last) = expired.split_at(expired.len() - 1);
    let other_end = format!("{rest}{}", if last == "A" { "B" } else { "A" });
    let wrong = [
        ("expired", expired),
        ("another end", other_end),
        ("not ours", "x".to_owned()),
        ("an unknown key", opaque(SecretKind::UserApiKey)),
        ("a refresh token", opaque(SecretKind::RefreshToken)),
        ("a device code", opaque(SecretKind::DeviceCode)),
        ("a session", opaque(SecretKind::BrowserSession)),
        ("an agent's token", opaque(SecretKind::AgentToken)),
        ("a mailed token", opaque(SecretKind::MailToken)),
        ("a partner's secret", partner.secret.clone()),
    ];
    for route in routes() {
        for (what, bearer) in &wrong {
            let answer = route.call(&app.member_with("-", bearer), &world.ids).await;
            let challenge = answer
                .header("www-authenticate")
                .unwrap_or_default()
                .to_owned();
            assert_eq!(
                answer.status,
                401,
                "{} by {what}: {}",
                route.name(),
                answer.text
            );
            assert_eq!(answer.body["code"], "unauthorized");
            assert!(
                challenge.contains("invalid_token"),
                "{}: {challenge}",
                route.name()
            );
        }
        for secret in [None, Some(&partner.secret)] {
            let by = app.member_with("-", "-");
            let mut request = route.request(&by, &world.ids).build().unwrap();
            request.headers_mut().remove("authorization");
            if let Some(secret) = secret {
                request
                    .headers_mut()
                    .insert("x-partnership-secret", secret.parse().unwrap());
            }
            let answer = Answer::of(app.http.execute(request).await.unwrap()).await;
            let challenge = answer
                .header("www-authenticate")
                .unwrap_or_default()
                .to_owned();
            assert_eq!(answer.status, 401, "{}: {}", route.name(), answer.text);
            assert!(
                !challenge.contains("error"),
                "who did not try is told no error: {challenge}"
            );
        }
    }
    let ada = world.with_new_login().await;
    assert_eq!(World { ada, ..world }.state().await, before);
}

#[tokio::test]
async fn what_is_another_persons_is_not_there() {
    let world = World::start().await;
    let before = world.state().await;
    let eve = world.app.member("Eve").await;
    let own = eve.home().await;
    for route in routes() {
        if !route.path.contains('{') {
            let answer = route.call(&eve, &world.ids).await;
            let leaks = world
                .ids
                .0
                .values()
                .any(|id| answer.text.contains(id.as_str()));
            assert!(
                !leaks && !answer.text.contains("ada@"),
                "{}: {}",
                route.name(),
                answer.text
            );
            continue;
        }
        let hers = route.call(&eve, &world.ids).await;
        let nobodys = route.call(&eve, &Ids::random()).await;
        assert_eq!(hers.status, 404, "{}: {}", route.name(), hers.text);
        assert_eq!(hers.text, nobodys.text, "{}", route.name());
        // Her own organization before somebody else's member, project or invitation.
        let mut mixed = world.ids.clone();
        mixed.0.insert("organizationId", own.clone());
        if route.path.contains("memberId") || route.path.contains("invitationId") {
            let answer = route.call(&eve, &mixed).await;
            assert_eq!(answer.status, 404, "{}: {}", route.name(), answer.text);
        }
    }
    assert_eq!(world.state().await, before);
}

#[tokio::test]
async fn a_credential_that_lacks_what_a_route_asks_for_is_refused() {
    let world = World::start().await;
    let before = world.state().await;
    let four = world.with_key(Some(Scopes::all())).await;
    for route in routes() {
        let needed = route.scope();
        let by = if let Some(scope) = needed {
            let others = Scope::ALL.iter().copied().filter(|other| *other != scope);
            world.with_key(Some(others.collect())).await
        } else {
            let asks = &route.asks;
            assert!(asks.contains("account"), "{}: {asks:?}", route.name());
            four.clone()
        };
        let answer = route.call(&by, &world.ids).await;
        let challenge = answer
            .header("www-authenticate")
            .unwrap_or_default()
            .to_owned();
        assert_eq!(answer.status, 403, "{}: {}", route.name(), answer.text);
        assert_eq!(
            answer.body["code"],
            "insufficient_scope",
            "{}",
            route.name()
        );
        assert!(
            challenge.contains("insufficient_scope"),
            "{}: {challenge}",
            route.name()
        );
        if let Some(scope) = needed {
            assert!(
                challenge.contains(scope.as_str()),
                "{}: {challenge}",
                route.name()
            );
        }
    }
    assert_eq!(world.state().await, before);
}

#[tokio::test]
async fn developers_do_all_but_what_is_for_administrators() {
    let world = World::start().await;
    let dev = world.app.stranger("Dev").await;
    let team = world.ids.0["organizationId"].clone();
    world.ada.add(&world.app, &team, &dev, "developer").await;
    let dev = world.app.member_of(&dev).await;
    let before = world.state().await;
    let mut routes = routes();
    for route in routes
        .iter()
        .filter(|route| route.asks.contains("administrator"))
    {
        let answer = route.call(&dev, &world.ids).await;
        assert_eq!(answer.status, 403, "{}: {}", route.name(), answer.text);
        assert_eq!(
            answer.body["code"],
            "administrator_needed",
            "{}",
            route.name()
        );
    }
    assert_eq!(world.state().await, before);
    // What ends things comes last.
    routes.retain(|route| !route.asks.contains("administrator"));
    routes.sort_by_key(|route| {
        (
            route.path.ends_with("/leave"),
            route.method == Method::DELETE,
        )
    });
    for route in routes {
        let Some(answer) = route.call_briefly(&dev, &world.ids).await else {
            continue;
        };
        if route.name() == PARTLY_FOR_ADMINISTRATORS {
            answer.expect_code(403, "administrator_needed");
            continue;
        }
        // It may not fit how things stand, or not be there; it is theirs to ask for.
        let is_hidden =
            answer.status == 404 && !NOTHING_THERE.contains(&&*answer.body["code"].to_string());
        let refused = matches!(answer.status, 401 | 403 | 500 | 502..) || is_hidden;
        assert!(
            !refused,
            "{}: {} {}",
            route.name(),
            answer.status,
            answer.text
        );
    }
}

#[tokio::test]
async fn a_suspended_person_is_out_at_once() {
    let world = World::start().await;
    let key = world.with_key(None).await;
    let before = world.state().await;
    world
        .app
        .control_plane
        .disable_user("ada@example.com", true)
        .await
        .unwrap();
    for route in routes() {
        for by in [&world.ada, &key] {
            let answer = route.call(by, &world.ids).await;
            assert_eq!(answer.status, 401, "{}: {}", route.name(), answer.text);
        }
    }
    // Nothing of theirs was changed or lost.
    world
        .app
        .control_plane
        .disable_user("ada@example.com", false)
        .await
        .unwrap();
    let ada = world.with_new_login().await;
    let world = World { ada, ..world };
    assert_eq!(world.state().await, before);
}
