//! Input that breaks a rule: refused with the field and the rule, and nothing changed.

use cp_tests::{Answer, App, AppOptions, PartnerClient, fields};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

/// What a refusal must not touch.
const TABLES: &[&str] = &[
    "projects",
    "operations",
    "users",
    "organizations",
    "partner_users",
    "idempotency_keys",
];

struct World {
    app: App,
    partner: PartnerClient,
    user: String,
    project: String,
    before: Vec<i64>,
}

impl World {
    async fn start() -> Self {
        let app = App::start().await;
        let partner = app.partner().await;
        let user = partner.connect_user("ada@example.com").await;
        let project = partner.create_active_project("shop").await;
        app.settle().await;
        let mut this = Self {
            app,
            partner,
            user,
            project,
            before: Vec::new(),
        };
        this.before = this.counts().await;
        this
    }

    async fn counts(&self) -> Vec<i64> {
        let mut counts = Vec::new();
        for table in TABLES {
            counts.push(self.app.database.count(table).await);
        }
        counts
    }

    async fn assert_unchanged(&self) {
        assert_eq!(self.counts().await, self.before, "rows of {TABLES:?}");
        let seen = self.partner.metadata(&self.project).await.expect(200);
        assert_eq!(seen["project"]["status"], "active");
    }

    /// `{user}` and `{project}` stand for what there is.
    fn path(&self, path: &str) -> String {
        path.replace("{user}", &self.user)
            .replace("{project}", &self.project)
    }

    async fn assert_refused(&self, method: Method, path: &str, body: &str, words: &[&str]) {
        let request = self
            .partner
            .request(method.clone(), &self.path(path))
            .header("content-type", "application/json")
            .body(body.to_owned());
        let shown: String = body.chars().take(120).collect();
        assert_refusal(
            &format!("{method} {path} {shown}"),
            &Answer::to(request).await,
            (400, "invalid_input"),
            words,
        );
    }
}

fn assert_refusal(what: &str, answer: &Answer, (status, code): (u16, &str), words: &[&str]) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text);
    assert_eq!(
        fields(&answer.body),
        ["code", "message", "requestId", "success"],
        "{what}"
    );
    assert_eq!(answer.body["code"], code, "{what}: {}", answer.text);
    assert_eq!(answer.body["success"], false, "{what}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let message = answer.body["message"].as_str().unwrap();
    for word in words {
        assert!(
            message.contains(word),
            "{what}: {word:?} is not in {message:?}"
        );
    }
}

const SYNC: &str = "/{user}/sync-project";
const EMBED: &str = "/sync-embedded-project";
const CONNECT: &str = "/connect-user";
const RESTART: &str = "/{project}/restart";
const UPGRADE: &str = "/{project}/upgrade";
const PAUSE: &str = "/{project}/pause";

/// Path, body, and words of the refusal: the field, then the rule.
fn bad_bodies() -> Vec<(&'static str, String, Vec<&'static str>)> {
    let long_name = json!({ "project_name": "x".repeat(65) }).to_string();
    let long_person = json!({ "name": "x".repeat(101), "email": "a@example.com" }).to_string();
    let long_email =
        json!({ "name": "Ada", "email": format!("{}@example.com", "a".repeat(250)) }).to_string();
    let long_id = json!({ "project_name": "shop", "external_id": "x".repeat(129) }).to_string();
    let long_release = json!({ "insforge_oss_version": "9".repeat(65) }).to_string();
    let big = json!({ "project_name": "shop", "metadata": { "a": "x".repeat(4089) } }).to_string();
    let deep = format!(
        r#"{{"project_name":"shop","metadata":{}1{}}}"#,
        "{\"a\":".repeat(500),
        "}".repeat(500)
    );
    let regions = vec!["region", "us-east, us-west, ap-southeast, eu-central"];
    let types = vec![
        "instance_type",
        "nano, micro, small, medium, large, xl, 2xl, 4xl, 8xl, 16xl",
    ];
    let mut cases: Vec<(&str, String, Vec<&str>)> = vec![
        (
            EMBED,
            long_name.clone(),
            vec!["project_name", "2 to 64", "65"],
        ),
        (SYNC, long_name, vec!["project_name", "2 to 64", "65"]),
        (CONNECT, long_person, vec!["name", "1 to 100", "101"]),
        (CONNECT, long_email, vec!["email", "254"]),
        (EMBED, long_id, vec!["external_id", "1 to 128", "129"]),
        (
            RESTART,
            long_release,
            vec!["insforge_oss_version", "1 to 64"],
        ),
        (EMBED, big, vec!["metadata", "4096", "4097"]),
        (EMBED, deep, vec!["JSON"]),
    ];
    let plain: &[(&str, &str, &[&str])] = &[
        // Malformed.
        (EMBED, "", &["body", "empty"]),
        (EMBED, "{", &["JSON", "line 1"]),
        (EMBED, r#"{"project_name":"shop",}"#, &["JSON", "line 1"]),
        (EMBED, r#"{"project_name":"shop"} x"#, &["JSON"]),
        (EMBED, "{\"project_name\":\"\\ud800\"}", &["JSON"]),
        (PAUSE, "{", &["JSON"]),
        (RESTART, "nope", &["JSON"]),
        // No object.
        (EMBED, "null", &["body", "object"]),
        (EMBED, "[]", &["body", "object"]),
        (EMBED, r#"["shop"]"#, &["body", "object"]),
        (CONNECT, r#""Ada""#, &["body", "object"]),
        (PAUSE, "[true]", &["body", "object"]),
        (PAUSE, "3", &["body", "object"]),
        (UPGRADE, "null", &["body", "object"]),
        // Left out.
        (EMBED, "{}", &["project_name", "required"]),
        (
            UPGRADE,
            "{}",
            &["instance_type", "volume_size_gib", "given"],
        ),
        (
            UPGRADE,
            r#"{"instance_type":null,"volume_size_gib":null,"wait_for_completion":true}"#,
            &["instance_type", "volume_size_gib", "given"],
        ),
        (SYNC, "{}", &["project_name", "required"]),
        (CONNECT, r#"{"name":"Ada"}"#, &["email", "required"]),
        (
            CONNECT,
            r#"{"email":"a@example.com"}"#,
            &["name", "required"],
        ),
        // Of a wrong type.
        (EMBED, r#"{"project_name":7}"#, &["project_name", "string"]),
        (
            EMBED,
            r#"{"project_name":null}"#,
            &["project_name", "string"],
        ),
        (
            SYNC,
            r#"{"project_name":["shop"]}"#,
            &["project_name", "string"],
        ),
        (
            UPGRADE,
            r#"{"volume_size_gib":"20"}"#,
            &["volume_size_gib", "whole number"],
        ),
        (
            UPGRADE,
            r#"{"volume_size_gib":20.5}"#,
            &["volume_size_gib", "whole number"],
        ),
        (
            UPGRADE,
            r#"{"volume_size_gib":0}"#,
            &["volume_size_gib", "1 and 16384"],
        ),
        (
            UPGRADE,
            r#"{"volume_size_gib":16385}"#,
            &["volume_size_gib", "1 and 16384"],
        ),
        (
            UPGRADE,
            r#"{"volume_size_gib":7}"#,
            &["volume_size_gib", "at least 8", "only grows"],
        ),
        (
            UPGRADE,
            r#"{"instance_type":"huge","volume_size_gib":20}"#,
            &["instance_type", "nano, micro, small"],
        ),
        (
            EMBED,
            r#"{"project_name":"shop","region":1}"#,
            &["region", "string"],
        ),
        (
            EMBED,
            r#"{"project_name":"shop","instance_type":{}}"#,
            &["instance_type", "string"],
        ),
        (
            EMBED,
            r#"{"project_name":"shop","external_id":4711}"#,
            &["external_id", "string"],
        ),
        (
            CONNECT,
            r#"{"name":true,"email":"a@example.com"}"#,
            &["name", "string"],
        ),
        (
            CONNECT,
            r#"{"name":"Ada","email":{"a":1}}"#,
            &["email", "string"],
        ),
        (
            PAUSE,
            r#"{"wait_for_completion":"yes"}"#,
            &["wait_for_completion", "boolean"],
        ),
        (
            "/{project}/restore",
            r#"{"wait_for_completion":1}"#,
            &["wait_for_completion", "boolean"],
        ),
        (
            RESTART,
            r#"{"wait_for_completion":[]}"#,
            &["wait_for_completion", "boolean"],
        ),
        (
            RESTART,
            r#"{"insforge_oss_version":2}"#,
            &["insforge_oss_version", "string"],
        ),
        // Given twice.
        (
            EMBED,
            r#"{"project_name":"a1","project_name":"b2"}"#,
            &["project_name", "once"],
        ),
        // Too short.
        (
            EMBED,
            r#"{"project_name":" x "}"#,
            &["project_name", "2 to 64", "has 1"],
        ),
        (
            SYNC,
            r#"{"project_name":""}"#,
            &["project_name", "must not be empty"],
        ),
        (
            CONNECT,
            r#"{"name":"  ","email":"a@example.com"}"#,
            &["name", "must not be empty"],
        ),
        (
            EMBED,
            r#"{"project_name":"shop","external_id":""}"#,
            &["external_id", "must not be empty"],
        ),
        (
            RESTART,
            r#"{"insforge_oss_version":""}"#,
            &["insforge_oss_version", "must not be empty"],
        ),
        // Control characters, and what a shell or a path would make of a release.
        (
            EMBED,
            r#"{"project_name":"a\u0000b"}"#,
            &["project_name", "control"],
        ),
        (
            EMBED,
            r#"{"project_name":"a\u001b[31mb"}"#,
            &["project_name", "control"],
        ),
        (
            SYNC,
            r#"{"project_name":"a\nb"}"#,
            &["project_name", "control"],
        ),
        (
            CONNECT,
            r#"{"name":"A\u0007da","email":"a@example.com"}"#,
            &["name", "control"],
        ),
        (
            CONNECT,
            r#"{"name":"Ada","email":"a\u0000@example.com"}"#,
            &["email", "control"],
        ),
        (
            EMBED,
            r#"{"project_name":"shop","external_id":"a\tb"}"#,
            &["external_id", "control"],
        ),
        (
            RESTART,
            r#"{"insforge_oss_version":"../../etc"}"#,
            &["insforge_oss_version", "letters"],
        ),
        (
            RESTART,
            r#"{"insforge_oss_version":"v1; rm -rf /"}"#,
            &["insforge_oss_version", "letters"],
        ),
        // Not in the catalogue: the valid ones are told.
        (
            EMBED,
            r#"{"project_name":"shop","region":"eu-west"}"#,
            &regions,
        ),
        (
            SYNC,
            r#"{"project_name":"shop","region":"US-EAST"}"#,
            &regions,
        ),
        (EMBED, r#"{"project_name":"shop","region":""}"#, &regions),
        (
            EMBED,
            r#"{"project_name":"shop","instance_type":"huge"}"#,
            &types,
        ),
        (
            SYNC,
            r#"{"project_name":"shop","instance_type":"Nano"}"#,
            &types,
        ),
        // No e-mail address.
        (
            CONNECT,
            r#"{"name":"Ada","email":"ada"}"#,
            &["email", "ada@example.com"],
        ),
        (
            CONNECT,
            r#"{"name":"Ada","email":"ada@example"}"#,
            &["email"],
        ),
        (
            CONNECT,
            r#"{"name":"Ada","email":"a b@example.com"}"#,
            &["email"],
        ),
        // Metadata.
        (
            EMBED,
            r#"{"project_name":"shop","metadata":[]}"#,
            &["metadata"],
        ),
        (
            EMBED,
            r#"{"project_name":"shop","metadata":"x"}"#,
            &["metadata"],
        ),
        (
            EMBED,
            r#"{"project_name":"shop","metadata":7}"#,
            &["metadata"],
        ),
        (
            EMBED,
            r#"{"project_name":"shop","metadata":{"a":"\u0000"}}"#,
            &["metadata", "U+0000"],
        ),
    ];
    cases.extend(
        plain
            .iter()
            .map(|(path, body, words)| (*path, (*body).to_owned(), words.to_vec())),
    );
    cases
}

#[tokio::test]
async fn bodies_that_break_a_rule_are_refused_with_field_and_rule() {
    let world = World::start().await;
    for (path, body, words) in bad_bodies() {
        world
            .assert_refused(Method::POST, path, &body, &words)
            .await;
    }
    world.assert_unchanged().await;
}

#[tokio::test]
async fn ids_that_are_no_uuids_are_refused_in_every_place() {
    let world = World::start().await;
    let simple = Uuid::now_v7().simple().to_string();
    let bad = [
        "x",
        "123",
        "00000000-0000-0000-0000-00000000000g",
        simple.as_str(),
        "%00",
        "%27%20or%201%3D1%20--",
        "..%2F..%2Fetc",
    ];
    let places = [
        (Method::POST, "/ID/sync-project", "userId"),
        (Method::GET, "/ID/{project}/metadata", "userId"),
        (Method::GET, "/{user}/ID/metadata", "projectId"),
        (Method::GET, "/ID/metadata", "projectId"),
        (Method::POST, "/ID/pause", "projectId"),
        (Method::POST, "/ID/restore", "projectId"),
        (Method::POST, "/ID/restart", "projectId"),
        (Method::POST, "/ID/upgrade", "projectId"),
        (Method::DELETE, "/ID", "projectId"),
        (Method::POST, "/ID/authorization", "projectId"),
        (Method::GET, "/ID/usage", "projectId"),
        (Method::GET, "/operations/ID", "operationId"),
    ];
    for (method, path, name) in places {
        for id in bad {
            let body = if method == Method::POST {
                r#"{"project_name":"shop"}"#
            } else {
                ""
            };
            world
                .assert_refused(
                    method.clone(),
                    &path.replace("ID", id),
                    body,
                    &[name, "UUID"],
                )
                .await;
        }
    }
    world.assert_unchanged().await;
}

#[tokio::test]
async fn query_parameters_are_refused_with_their_range() {
    let world = World::start().await;
    let operation = world
        .app
        .newest_operation(cp_model::ProjectId(world.project.parse().unwrap()))
        .await
        .id;
    let statuses =
        "provisioning, active, pausing, paused, restoring, restarting, upgrading, deleting, failed";
    let cases: &[(&str, &[&str])] = &[
        ("/projects?limit=0", &["limit", "1 to 100"]),
        ("/projects?limit=101", &["limit", "1 to 100"]),
        ("/projects?limit=-1", &["limit", "1 to 100"]),
        ("/projects?limit=ten", &["limit", "1 to 100"]),
        ("/projects?limit=1&limit=2", &["query"]),
        ("/projects?cursor=abc", &["cursor", "UUID"]),
        ("/projects?cursor=%00", &["cursor", "UUID"]),
        ("/projects?status=sleeping", &["status", statuses]),
        ("/projects?status=deleted", &["status", statuses]),
    ];
    for (path, words) in cases {
        world.assert_refused(Method::GET, path, "", words).await;
    }
    for wait in ["-1", "61", "x", "1e3"] {
        let path = format!("/operations/{operation}?wait={wait}");
        let words = ["wait", "0 to 60"];
        world.assert_refused(Method::GET, &path, "", &words).await;
    }
    world.assert_unchanged().await;
}

#[tokio::test]
async fn idempotency_keys_are_printable_ascii() {
    let world = World::start().await;
    let long = "x".repeat(256);
    let bad: [&[u8]; 4] = [b"", b"a\tb", "schl\u{fc}ssel".as_bytes(), long.as_bytes()];
    for (method, path) in [
        (Method::POST, EMBED),
        (Method::DELETE, "/{project}"),
        (Method::POST, PAUSE),
        (Method::POST, "/{project}/authorization"),
    ] {
        for key in bad {
            let key = reqwest::header::HeaderValue::from_bytes(key).unwrap();
            let request = world
                .partner
                .request(method.clone(), &world.path(path))
                .header("Idempotency-Key", key)
                .json(&json!({ "project_name": "shop" }));
            assert_refusal(
                path,
                &Answer::to(request).await,
                (400, "invalid_input"),
                &["Idempotency-Key", "1 to 255 printable ASCII"],
            );
        }
    }
    world.assert_unchanged().await;
}

#[tokio::test]
async fn bodies_must_be_declared_as_json() {
    let world = World::start().await;
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/jsonx"),
        Some("multipart/form-data; boundary=x"),
    ] {
        for path in [EMBED, CONNECT, PAUSE, "/{project}/authorization"] {
            let mut request = world
                .partner
                .request(Method::POST, &world.path(path))
                .body(r#"{"project_name":"shop"}"#);
            if let Some(kind) = kind {
                request = request.header("content-type", kind);
            }
            assert_refusal(
                &format!("{path} {kind:?}"),
                &Answer::to(request).await,
                (415, "unsupported_media_type"),
                &["Content-Type: application/json"],
            );
        }
    }
    world.assert_unchanged().await;
    let request = world
        .partner
        .request(Method::POST, "/sync-embedded-project")
        .header("content-type", "Application/JSON; charset=utf-8")
        .body(r#"{"project_name":"shop"}"#);
    Answer::to(request).await.expect(200);
}

/// Sends bytes as they are and reads the answer's head and body; the server may close before it
/// has read everything.
async fn raw(world: &World, head: &str, body: &[u8]) -> Answer {
    let address = world.app.base_url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{} HTTP/1.1\r\nHost: {address}\r\nX-Partnership-Secret: {}\r\nConnection: close\r\n\
         Content-Type: application/json\r\n{}\r\n\r\n",
        head.lines().next().unwrap(),
        world.partner.secret,
        head.lines().skip(1).collect::<Vec<_>>().join("\r\n"),
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let _ = stream.write_all(body).await;
    let mut text = Vec::new();
    let reading = stream.read_to_end(&mut text);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), reading)
        .await
        .expect("the refusal does not wait for the body");
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP answer");
    let mut headers = reqwest::header::HeaderMap::new();
    for (name, value) in head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
    {
        let name: reqwest::header::HeaderName = name.parse().unwrap();
        headers.insert(name, value.parse().unwrap());
    }
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        headers,
        text: body.to_owned(),
        body: serde_json::from_str(body).unwrap_or(Value::Null),
    }
}

#[tokio::test]
async fn bodies_above_64_kib_are_refused_however_they_come() {
    let world = World::start().await;
    let refused = (413, "payload_too_large");
    let exactly = |size: usize| {
        let empty = json!({ "project_name": "shop", "x": "" }).to_string();
        json!({ "project_name": "shop", "x": "y".repeat(size - empty.len()) }).to_string()
    };
    for (method, path) in [
        (Method::POST, EMBED),
        (Method::POST, PAUSE),
        (Method::DELETE, "/{project}"),
        (Method::POST, "/{project}/authorization"),
    ] {
        let request = world
            .partner
            .request(method, &world.path(path))
            .header("content-type", "application/json")
            .body(exactly(64 * 1024 + 1));
        assert_refusal(path, &Answer::to(request).await, refused, &["64 KiB"]);
    }

    let line = format!(
        "POST /partnership/v1/{}/sync-embedded-project",
        world.partner.id
    );
    // Announced: refused before any of it was read.
    let announced = raw(&world, &format!("{line}\nContent-Length: 10000000"), b"{").await;
    assert_refusal("announced", &announced, refused, &["64 KiB"]);
    // In chunks: refused once it is too much.
    let chunk = format!("{:x}\r\n{}\r\n", 66_000, "x".repeat(66_000));
    let chunked = format!("{line}\nTransfer-Encoding: chunked");
    let chunked = raw(&world, &chunked, chunk.as_bytes()).await;
    assert_refusal("chunked", &chunked, refused, &["64 KiB"]);
    world.assert_unchanged().await;

    let request = world
        .partner
        .request(Method::POST, "/sync-embedded-project")
        .header("content-type", "application/json")
        .body(exactly(64 * 1024));
    Answer::to(request).await.expect(200);
}

#[tokio::test]
async fn addresses_and_methods_that_are_not_there_are_refused_in_the_same_form() {
    let world = World::start().await;
    for (method, path) in [
        (Method::GET, "/connect-user"),
        (Method::PUT, "/{project}/pause"),
        (Method::DELETE, "/{project}/pause"),
        (Method::PATCH, "/{project}/metadata"),
        (Method::POST, "/projects"),
        (Method::DELETE, "/operations/{project}"),
    ] {
        let request = world.partner.request(method.clone(), &world.path(path));
        let answer = Answer::to(request).await;
        assert!(answer.header("allow").is_some(), "{method} {path}");
        assert_refusal(
            path,
            &answer,
            (405, "method_not_allowed"),
            &["does not take this method"],
        );
    }
    for path in [
        "/nothing",
        "/{project}/nothing",
        "/{user}/{project}/pause",
        "/a/b/c/d",
    ] {
        let answer = world.partner.post(&world.path(path), &json!({})).await;
        // `/nothing` has the form of a project's address, which takes a DELETE.
        if path == "/nothing" {
            assert_refusal(path, &answer, (405, "method_not_allowed"), &[]);
        } else {
            assert_refusal(
                path,
                &answer,
                (404, "not_found"),
                &["nothing at this address"],
            );
        }
    }
    world.assert_unchanged().await;
}

#[tokio::test]
async fn limits_are_inclusive() {
    let app = App::start_with(AppOptions {
        worker: false,
        create_wait: std::time::Duration::ZERO,
        ..AppOptions::default()
    })
    .await;
    let partner = app.partner().await;
    let local = "a".repeat(64);
    let domain = format!("{}.{}.{}", "b".repeat(63), "c".repeat(63), "d".repeat(61));
    let longest = format!("{local}@{domain}");
    assert_eq!(longest.len(), 254);
    for (path, body) in [
        (EMBED, json!({ "project_name": "ab" })),
        (EMBED, json!({ "project_name": "\u{fc}".repeat(64) })),
        (
            EMBED,
            json!({ "project_name": "ab", "region": null, "metadata": null, "external_id": null }),
        ),
        (
            EMBED,
            json!({ "project_name": "ab", "external_id": "x".repeat(128) }),
        ),
        (
            EMBED,
            json!({ "project_name": "ab", "metadata": { "a": "x".repeat(4088) } }),
        ),
        (EMBED, json!({ "project_name": "ab", "unknown": [1] })),
        (CONNECT, json!({ "name": "A", "email": "a@b.co" })),
        (
            CONNECT,
            json!({ "name": "x".repeat(100), "email": longest }),
        ),
    ] {
        let answer = partner.post(path, &body).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text);
    }
}
