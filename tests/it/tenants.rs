//! Whose things are whose: every documented route, called by everyone who may not call it and on
//! everything that is not the caller's. The routes come from the OpenAPI document, so that a new
//! one cannot be forgotten here.

use std::collections::{BTreeMap, BTreeSet};

use cp_domain::NewPartner;
use cp_model::{MachineId, ProjectId};
use cp_tests::{Answer, App, AppOptions, MovingClock, PartnerClient, eventually};
use cp_tokens::secret::{OpaqueSecret, SecretKind};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

#[derive(Clone, Copy, PartialEq)]
enum Model {
    CoBranded,
    WhiteLabel,
    Both,
}

/// How a partnership route is called. The path comes after `/partnership/v1/{partnerId}`.
struct Route {
    method: &'static str,
    path: &'static str,
    model: Model,
    /// A body that would be taken; none: the call has none.
    body: Option<&'static str>,
}

const fn route(
    method: &'static str,
    path: &'static str,
    model: Model,
    body: Option<&'static str>,
) -> Route {
    Route {
        method,
        path,
        model,
        body,
    }
}

/// A new route needs a line here, and is then called by everyone below.
const PARTNERSHIP: &[Route] = &[
    route(
        "POST",
        "/connect-user",
        Model::CoBranded,
        Some(r#"{"name":"Eve","email":"eve@example.com"}"#),
    ),
    route(
        "POST",
        "/{userId}/sync-project",
        Model::CoBranded,
        Some(r#"{"project_name":"taken over"}"#),
    ),
    route(
        "GET",
        "/{userId}/{projectId}/metadata",
        Model::CoBranded,
        None,
    ),
    route(
        "POST",
        "/sync-embedded-project",
        Model::WhiteLabel,
        Some(r#"{"project_name":"taken over"}"#),
    ),
    route("GET", "/{projectId}/metadata", Model::WhiteLabel, None),
    route("POST", "/{projectId}/pause", Model::WhiteLabel, Some("{}")),
    route(
        "POST",
        "/{projectId}/restore",
        Model::WhiteLabel,
        Some("{}"),
    ),
    route(
        "POST",
        "/{projectId}/restart",
        Model::WhiteLabel,
        Some("{}"),
    ),
    route(
        "POST",
        "/{projectId}/upgrade",
        Model::WhiteLabel,
        Some(r#"{"instance_type":"small"}"#),
    ),
    route("DELETE", "/{projectId}", Model::WhiteLabel, None),
    route(
        "POST",
        "/{projectId}/authorization",
        Model::WhiteLabel,
        Some("{}"),
    ),
    route("GET", "/projects", Model::Both, None),
    route("GET", "/operations/{operationId}", Model::Both, None),
    route("GET", "/usage", Model::Both, None),
    route("GET", KEPT, Model::Both, None),
    route("POST", "/usage/report-link", Model::Both, Some("{}")),
    route(
        "POST",
        "/{projectId}/branches",
        Model::WhiteLabel,
        Some(r#"{"name":"taken-over","mode":"full"}"#),
    ),
    route("GET", "/{projectId}/branches", Model::WhiteLabel, None),
    route(
        "GET",
        "/{projectId}/branches/{branchId}",
        Model::WhiteLabel,
        None,
    ),
    route(
        "DELETE",
        "/{projectId}/branches/{branchId}",
        Model::WhiteLabel,
        None,
    ),
    route(
        "POST",
        "/{projectId}/branches/{branchId}/reset",
        Model::WhiteLabel,
        None,
    ),
    route(
        "POST",
        "/{projectId}/branches/{branchId}/merge",
        Model::WhiteLabel,
        Some("{}"),
    ),
    route(
        "POST",
        "/{projectId}/branches/{branchId}/rebase",
        Model::WhiteLabel,
        Some("{}"),
    ),
    route(
        "GET",
        "/{projectId}/branches/{branchId}/diff",
        Model::WhiteLabel,
        None,
    ),
];

/// What a project used stays when the project is deleted.
const KEPT: &str = "/{projectId}/usage";

/// Agents' routes, with a body that would be taken.
const AGENT: &[(&str, &str, Option<&str>)] = &[
    ("GET", "/agent/v1/desired", None),
    (
        "POST",
        "/agent/v1/report",
        Some(r#"{"generation":1,"state":"idle","agent_version":"x"}"#),
    ),
    (
        "POST",
        "/agent/v1/renew",
        Some(r#"{"agent_token":"iat_1"}"#),
    ),
];

/// Services of ours; their wrong callers are those of `usage::events`.
const SERVICES: &[&str] = &["POST /internal/usage/v1/events"];

/// People and applications; their wrong callers are those of `oauth_attacks`, `oauth` and
/// `accounts`.
const SIGN_IN: &[&str] = &[
    "GET /.well-known/oauth-authorization-server",
    "GET /api/oauth/v1/authorize",
    "POST /api/oauth/v1/device_authorization",
    "POST /api/oauth/v1/introspect",
    "POST /api/oauth/v1/revoke",
    "POST /api/oauth/v1/token",
    "POST /auth/v1/login",
    "POST /auth/v1/logout",
    "POST /auth/v1/refresh",
    "POST /auth/v1/signup",
];

/// Routes that need no credentials of ours: the first has its own in the body, the second is signed by the payment provider.
const OPEN: &[&str] = &[
    "POST /agent/v1/register",
    "POST /billing/v1/stripe/webhook",
    "GET /.well-known/jwks.json",
    "GET /platform/insforge/latest-version",
    "POST /tracking/v1/agent-connected",
];

/// Each request has the same id, so that bodies can be compared byte for byte.
const REQUEST_ID: &str = "same-for-all";

impl Route {
    fn request(&self, by: &PartnerClient, ids: &Ids) -> RequestBuilder {
        let path = self
            .path
            .replace("{userId}", &ids.user)
            .replace("{projectId}", &ids.project)
            .replace("{operationId}", &ids.operation)
            // Nobody's; those of others are in `branches`.
            .replace("{branchId}", &Uuid::now_v7().to_string());
        assert!(!path.contains('{'), "{path}: unknown parameter");
        let request = by
            .request(self.method.parse().unwrap(), &path)
            .header("x-request-id", REQUEST_ID);
        match self.body {
            Some(body) => request
                .header("content-type", "application/json")
                .body(body),
            None => request,
        }
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// What stands in a path.
#[derive(Clone)]
struct Ids {
    user: String,
    project: String,
    operation: String,
}

impl Ids {
    fn random() -> Self {
        let id = || Uuid::now_v7().to_string();
        Self {
            user: id(),
            project: id(),
            operation: id(),
        }
    }
}

/// A partner with a person, the person's project and an embedded one.
struct Tenant {
    partner: PartnerClient,
    person: Ids,
    embedded: Ids,
}

impl Tenant {
    async fn start(app: &App, email: &str) -> Self {
        let partner = app.partner().await;
        let user = partner.connect_user(email).await;
        let synced = partner.sync_project(&user, "shop").await.expect(200);
        let project = synced["project"]["id"].as_str().unwrap().to_owned();
        let embedded = partner.create_active_project("shop").await;
        let ids = async |project: &str| Ids {
            user: user.clone(),
            project: project.to_owned(),
            operation: newest_operation(app, project).await,
        };
        Self {
            person: ids(&project).await,
            embedded: ids(&embedded).await,
            partner,
        }
    }

    async fn assert_untouched(&self, app: &App) {
        app.settle().await;
        for ids in [&self.person, &self.embedded] {
            let seen = self.partner.metadata(&ids.project).await.expect(200);
            assert_eq!(seen["project"]["status"], "active");
            assert_eq!(newest_operation(app, &ids.project).await, ids.operation);
        }
        let listed = self.partner.get("/projects").await.expect(200);
        assert_eq!(listed["projects"].as_array().unwrap().len(), 2);
    }
}

async fn newest_operation(app: &App, project: &str) -> String {
    let id = ProjectId(project.parse().unwrap());
    app.newest_operation(id).await.id.to_string()
}

#[test]
fn every_documented_route_is_known_here() {
    let document = serde_json::to_value(cp_api::openapi()).unwrap();
    let documented: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter();
            // Those of people and of backends have their own (`platform::matrix`, `platform::backend_calls`).
            let others = methods.filter(|(_, called)| {
                let security = &called["security"][0];
                security["bearer"].is_null() && security["signature"].is_null()
            });
            others.map(move |(method, _)| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    let partnership = PARTNERSHIP.iter().map(|route| {
        format!(
            "{} /partnership/v1/{{partnerId}}{}",
            route.method, route.path
        )
    });
    let agent = AGENT
        .iter()
        .map(|(method, path, _)| format!("{method} {path}"));
    let known: BTreeSet<String> = partnership
        .chain(agent)
        .chain(
            [OPEN, SIGN_IN, SERVICES]
                .concat()
                .into_iter()
                .map(str::to_owned),
        )
        .collect();
    assert_eq!(
        documented, known,
        "give a new route its line in PARTNERSHIP, AGENT, SERVICES, SIGN_IN or OPEN"
    );
}

/// The same but for its last character.
fn with_another_end(secret: &str) -> String {
    let (rest, last) = secret.split_at(secret.len() - 1);
    format!("{rest}{}", if last == "x" { "y" } else { "x" })
}

fn opaque(kind: SecretKind) -> String {
    OpaqueSecret::generate(kind).expose().to_owned()
}

#[tokio::test]
async fn wrong_credentials_are_one_refusal_on_every_route() {
    let clock = MovingClock::new();
    let app = App::start_with(AppOptions {
        clock: clock.clone(),
        ..AppOptions::default()
    })
    .await;
    let victim = Tenant::start(&app, "ada@example.com").await;
    let attacker = app.partner().await;
    let expired = victim.partner.secret.clone();
    let made = app
        .control_plane
        .rotate_partner_secret(&victim.partner.partner_id(), Duration::ZERO)
        .await
        .unwrap();
    let victim = Tenant {
        partner: victim
            .partner
            .with_secret(secrecy::ExposeSecret::expose_secret(&made.secret)),
        ..victim
    };
    clock.advance(chrono::TimeDelta::seconds(1));
    let wrong: BTreeMap<&str, String> = [
        ("malformed", "ifps_".to_owned()),
        ("not ours", "Bearer 1234".to_owned()),
        ("bad checksum", with_another_end(&victim.partner.secret)),
        ("well-formed", opaque(SecretKind::PartnerSecret)),
        ("of another kind", opaque(SecretKind::ServiceToken)),
        ("another partner's", attacker.secret.clone()),
        ("expired", expired),
        (
            "two in one",
            format!("{},{}", attacker.secret, victim.partner.secret),
        ),
        ("very long", "x".repeat(4_000)),
    ]
    .into();

    let mut bodies = BTreeSet::new();
    for route in PARTNERSHIP {
        let mut answers = Vec::new();
        for (what, secret) in &wrong {
            let caller = victim.partner.with_secret(secret);
            let request = route.request(&caller, &victim.embedded);
            answers.push((*what, Answer::to(request).await));
        }
        // No header at all, and a partner that does not exist.
        let nobody = PartnerClient {
            id: cp_model::PartnerId::generate().as_str().to_owned(),
            ..victim.partner.clone()
        };
        let request = route.request(&nobody, &victim.embedded);
        answers.push(("unknown partner", Answer::to(request).await));
        let mut bare = route
            .request(&victim.partner, &victim.embedded)
            .build()
            .unwrap();
        bare.headers_mut().remove("x-partnership-secret");
        let sent = app.http.execute(bare).await.unwrap();
        answers.push(("none", Answer::of(sent).await));

        for (what, answer) in answers {
            let at = format!("{} with {what}", route.name());
            assert_eq!(answer.status, 401, "{at}: {}", answer.text);
            assert_eq!(answer.body["code"], "unauthorized", "{at}");
            assert!(answer.header("www-authenticate").is_some(), "{at}");
            assert!(answer.header("x-ratelimit-limit").is_none(), "{at}");
            bodies.insert(answer.text);
        }
    }
    assert_eq!(bodies.len(), 1, "the same body for all: {bodies:?}");
    victim.assert_untouched(&app).await;
}

#[tokio::test]
async fn suspended_partners_and_those_of_the_other_model_are_refused_on_every_route() {
    let app = App::start().await;
    let victim = Tenant::start(&app, "ada@example.com").await;
    let of_model = async |model: Model| {
        app.partner_with(NewPartner {
            name: "One".into(),
            co_branded: model == Model::CoBranded,
            white_label: model == Model::WhiteLabel,
            rate_limit: 1_000,
            trusted: false,
        })
        .await
    };
    let co_branded = of_model(Model::CoBranded).await;
    let white_label = of_model(Model::WhiteLabel).await;
    for route in PARTNERSHIP {
        let wrong = match route.model {
            Model::CoBranded => &white_label,
            Model::WhiteLabel => &co_branded,
            Model::Both => continue,
        };
        // Told before the input is looked at, and whatever the ids are.
        for ids in [&victim.embedded, &Ids::random()] {
            let answer = Answer::to(route.request(wrong, ids)).await;
            answer.expect_code(403, "wrong_partnership_model");
        }
    }
    let id = victim.partner.partner_id();
    app.control_plane.suspend_partner(&id, true).await.unwrap();
    for route in PARTNERSHIP {
        let answer = Answer::to(route.request(&victim.partner, &victim.embedded)).await;
        answer.expect_code(403, "partner_suspended");
    }
    app.control_plane.suspend_partner(&id, false).await.unwrap();
    victim.assert_untouched(&app).await;
}

#[tokio::test]
async fn what_is_anothers_or_deleted_is_like_what_never_was() {
    let app = App::start().await;
    let victim = Tenant::start(&app, "ada@example.com").await;
    let caller = Tenant::start(&app, "bob@example.com").await;
    let mine = |ids: &Ids| Ids {
        user: caller.person.user.clone(),
        ..ids.clone()
    };
    // A deleted project of the caller's own, with the operation that made it.
    let deleted = caller.partner.create_active_project("deleted").await;
    let deleted = mine(&Ids {
        operation: newest_operation(&app, &deleted).await,
        project: deleted,
        user: String::new(),
    });
    caller
        .partner
        .delete_project(&deleted.project)
        .await
        .expect(200);
    let deleting = Ids {
        operation: newest_operation(&app, &deleted.project).await,
        ..deleted.clone()
    };
    let cases: Vec<(&str, Ids)> = vec![
        ("another's embedded project", mine(&victim.embedded)),
        ("another's person's project", mine(&victim.person)),
        ("another's person", victim.person.clone()),
        ("another's person, embedded", victim.embedded.clone()),
        (
            "another's person, own project",
            Ids {
                project: caller.person.project.clone(),
                ..victim.person.clone()
            },
        ),
        ("deleted", deleted.clone()),
        ("the operation that deletes", deleting),
        ("own person, unknown project", mine(&Ids::random())),
        (
            "the nil id",
            Ids {
                user: Uuid::nil().to_string(),
                project: Uuid::nil().to_string(),
                operation: Uuid::nil().to_string(),
            },
        ),
    ];
    let mut refused = BTreeSet::new();
    for route in PARTNERSHIP.iter().filter(|route| route.path.contains('{')) {
        let missing = Answer::to(route.request(&caller.partner, &Ids::random())).await;
        assert_eq!(missing.status, 404, "{}: {}", route.name(), missing.text);
        for (what, ids) in &cases {
            let stays = route.path == KEPT && ids.project == deleted.project;
            if stays || is_the_callers_own(route, ids, &caller) {
                continue;
            }
            let at = format!("{} on {what}", route.name());
            let answer = Answer::to(route.request(&caller.partner, ids)).await;
            assert_eq!(answer.status, 404, "{at}: {}", answer.text);
            assert_eq!(answer.text, missing.text, "{at}");
            let comparable = |answer: &Answer| {
                let mut headers = answer.headers.clone();
                headers.remove("date");
                headers.remove("x-ratelimit-remaining");
                headers.remove("x-ratelimit-reset");
                headers
            };
            assert_eq!(comparable(&answer), comparable(&missing), "{at}");
            refused.insert(route.name());
        }
    }
    let with_ids = PARTNERSHIP.iter().filter(|route| route.path.contains('{'));
    assert_eq!(refused.len(), with_ids.count(), "each was tried");
    victim.assert_untouched(&app).await;
    caller.assert_untouched(&app).await;
}

/// Whether everything that the route's path names belongs to the caller.
fn is_the_callers_own(route: &Route, ids: &Ids, caller: &Tenant) -> bool {
    let own = &caller.person;
    !route.path.contains("{branchId}")
        && (!route.path.contains("{userId}") || ids.user == own.user)
        && (!route.path.contains("{projectId}") || ids.project == own.project)
        && (!route.path.contains("{operationId}") || ids.operation == own.operation)
}

#[tokio::test]
async fn lists_and_candidates_show_nothing_of_others() {
    let app = App::start().await;
    let victim = Tenant::start(&app, "ada@example.com").await;
    let other = app.partner().await;
    let listed = other.get("/projects").await.expect(200);
    assert_eq!(listed["projects"], json!([]));
    // Another tenant's id as a cursor is a place in the order, and nothing more.
    let path = format!("/projects?cursor={}", victim.person.project);
    assert_eq!(other.get(&path).await.expect(200), listed);
    let text = other.get("/projects").await.text;
    assert!(!text.contains("ik_"), "lists hold no keys");
    let own = victim.partner.get("/projects").await;
    assert!(!own.text.contains("ik_"), "lists hold no keys");
}

#[tokio::test]
async fn machines_alone_call_the_agents_routes() {
    let app = App::start().await;
    let partner = app.partner().await;
    let machine = MachineId(Uuid::now_v7());
    let id = partner.create_active_project("shop").await;
    let alive = app.sim.alive()[0].machine_id;
    assert_ne!(alive, machine);
    // The token that the sim's agent made is nowhere but in its hands: give this one another.
    let token = opaque(SecretKind::AgentToken);
    let hash = OpaqueSecret::parse(SecretKind::AgentToken, &token).unwrap();
    let mut conn = app.database.connect().await;
    sqlx::query("update machines set agent_token_hash = $1 where id = $2")
        .bind(hash.hash().as_bytes().to_vec())
        .bind(alive.0)
        .execute(&mut conn)
        .await
        .unwrap();
    let call = async |method: &str, path: &str, body: Option<&str>, credentials: Option<&str>| {
        let method: Method = method.parse().unwrap();
        let mut request = app
            .http
            .request(method, format!("{}{path}", app.base_url))
            .header("x-request-id", REQUEST_ID);
        if let Some(credentials) = credentials {
            request = request.header("authorization", credentials);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_owned());
        }
        Answer::to(request).await
    };
    let bearer = format!("Bearer {token}");
    let known = call("GET", "/agent/v1/desired", None, Some(&bearer)).await;
    known.expect(200);

    partner.delete_project(&id).await.expect(200);
    app.settle().await;
    eventually("the machine is gone", Duration::from_secs(10), async || {
        app.sim.alive().is_empty().then_some(())
    })
    .await;
    let well_formed = format!("Bearer {}", opaque(SecretKind::AgentToken));
    let secret = format!("Bearer {}", partner.secret);
    let bare = token.clone();
    let basic = format!("Basic {token}");
    let mut bodies = BTreeSet::new();
    for (method, path, body) in AGENT {
        for (what, credentials) in [
            ("no token", None),
            ("an empty one", Some("Bearer ")),
            ("an unknown one", Some(well_formed.as_str())),
            ("a partner's secret", Some(&secret)),
            ("no scheme", Some(&bare)),
            ("another scheme", Some(&basic)),
            ("that of a terminated machine", Some(&bearer)),
        ] {
            let answer = call(method, path, *body, credentials).await;
            let at = format!("{method} {path} with {what}");
            assert_eq!(answer.status, 401, "{at}: {}", answer.text);
            assert!(answer.header("www-authenticate").is_some(), "{at}");
            bodies.insert(answer.text);
        }
    }
    let body: Value = serde_json::from_str(bodies.first().unwrap()).unwrap();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!(cp_tests::fields(&body), ["code", "error", "requestId"]);
}
