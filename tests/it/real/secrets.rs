//! A whole life with everything logged, and no secret of it in plain text anywhere but in the few
//! private files whose very purpose is to hold one.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cp_pg::Binaries;
use cp_tests::programs::{Backend, Dev, NO_POOL};
use serde_json::{Value, json};
use sqlx::Connection as _;

/// Files that hold secrets. Nobody but their owner may read them.
const PRIVATE: [&str; 9] = [
    "demo.json",
    "config.toml",
    "sealing-key",
    "postgres-password",
    "template-pg15.password",
    "agent.json",
    "agent-token.json",
    "desired.json",
    "database-password",
];

/// By what each is called, so that a failure need not show it.
pub(super) type Secrets = BTreeMap<String, String>;

#[tokio::test]
async fn no_secret_of_a_run_is_found_in_logs_database_or_job_payloads() {
    let log = [("INSFORGE_LOG", "debug"), ("RUST_LOG", "debug"), NO_POOL];
    let dev = Dev::start_with(&log).await;
    let mut secrets = Secrets::new();
    let operators_log = live(&dev, &mut secrets).await;
    assert!(operators_log.contains("DEBUG"), "{operators_log}");
    assert!(secrets.len() >= 25, "{:?}", secrets.keys());

    let home = dev.home();
    let mut told: Vec<(String, String)> = files(&dev.data())
        .into_iter()
        .filter(|path| !is_private(path) && !is_data_of_postgres(path))
        .chain(home.said())
        .map(|path| (path.display().to_string(), read(&path)))
        .collect();
    let logs = told.iter().filter(|(name, _)| is_log(Path::new(name)));
    assert!(logs.count() >= 4, "agent.log, backend.log and Postgres's");
    let command_lines = home.processes().into_iter().map(|p| p.command);
    told.push((
        "command lines".into(),
        command_lines.collect::<Vec<_>>().join("\n"),
    ));
    told.push(("the log of operators' commands".into(), operators_log));
    told.push(("the database".into(), dump(&dev).await));
    for (place, text) in &told {
        for (name, secret) in &secrets {
            let at = text.find(secret.as_str());
            let before = at.map(|at| text[..at].lines().count());
            assert_eq!(before, None, "{name} is in {place}, at that line");
        }
    }
    // What is looked for can be found: the request ids of these calls are there.
    assert!(
        told.iter()
            .any(|(place, text)| place.contains("/said/") && text.contains("req_"))
    );

    for path in files(&dev.data()).iter().filter(|path| is_private(path)) {
        let mode = path.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    payloads_are_ids(&dev).await;
}

/// Creates, uses, authorizes, pauses, restores, rotates: what makes or shows a secret. Gives what
/// operators' commands logged; what they show is meant to be seen, once.
async fn live(dev: &Dev, secrets: &mut Secrets) -> String {
    let shop = dev.create("first").await;
    shop.write("row").await;
    let path = format!("/{}/authorization", shop.id);
    let authorization = dev.partner.post(&path, &json!({})).await.expect(200);
    note(secrets, "authorization", &authorization["code"]);
    let code = authorization["code"].as_str().expect("a code");
    let session = shop.exchange(code).await.expect(200);
    note(secrets, "admin access token", &session["accessToken"]);
    dev.partner.pause(&shop.id).await.expect(200);
    dev.partner.restore(&shop.id).await.expect(200);
    shop.until_read("row", Duration::from_secs(20)).await;
    // Wrong ones are somebody's right ones elsewhere.
    let wrong = "ifps_wrongwrongwrongwrongwrongwrongwrongwrong";
    dev.partner
        .with_secret(wrong)
        .get("/projects")
        .await
        .expect(401);
    note(secrets, "a wrong partner secret", &json!(wrong));
    gather(dev, &shop, secrets);
    gather(dev, &idempotent_create(dev).await, secrets);

    let mut log = String::new();
    let mut operator = async |args: &[&str]| {
        let debug = [("INSFORGE_LOG", "debug")];
        let said = dev.home().operator_with(args, &debug).await;
        log.push_str(&said.err);
        said.json()
    };
    let made = operator(&["partner", "create", "Other", "--json"]).await;
    note(secrets, "another partner's secret", &made["secret"]);
    let id = made["id"].as_str().expect("an id");
    let rotated = operator(&["partner", "rotate-secret", id, "--json"]).await;
    note(secrets, "its next secret", &rotated["secret"]);
    let user = [
        "user",
        "create",
        "--email",
        "a@example.com",
        "--name",
        "A",
        "--json",
    ];
    note(
        secrets,
        "a person's password",
        &operator(&user).await["password"],
    );
    operator(&["signing-key", "rotate", "--json"]).await;
    log
}

/// The stored answer of an idempotent create holds the project's key.
async fn idempotent_create(dev: &Dev) -> Backend {
    let create = async || {
        let path = "/sync-embedded-project";
        let request = dev.partner.request(reqwest::Method::POST, path);
        let request = request.header("Idempotency-Key", "key-1");
        cp_tests::Answer::to(request.json(&json!({ "project_name": "second" }))).await
    };
    let first = create().await.expect(200);
    assert_eq!(create().await.expect(200), first);
    let id = first["project"]["id"].as_str().expect("a project id");
    dev.until_active(id).await
}

/// The secrets of the installation, and those of one project.
fn gather(dev: &Dev, project: &Backend, secrets: &mut Secrets) {
    let name = |what: &str| format!("{what} of {}", project.id);
    note(secrets, &name("API key"), &json!(project.key));
    let machine = dev.home().machine_at(&project.host);
    let json_of =
        |file: &str| -> Value { serde_json::from_str(&read(&machine.join(file))).expect("JSON") };
    let env = &json_of("desired.json")["backend"]["env"];
    for variable in [
        "JWT_SECRET",
        "ENCRYPTION_KEY",
        "ACCESS_ANON_KEY",
        "ROOT_ADMIN_PASSWORD",
    ] {
        note(secrets, &name(variable), &env[variable]);
    }
    let agent = json_of("agent.json");
    note(secrets, &name("bootstrap token"), &agent["bootstrap_token"]);
    note(
        secrets,
        &name("agent token"),
        &json_of("agent-token.json")["token"],
    );
    let password = read(&machine.join("database-password"));
    note(secrets, &name("database password"), &json!(password.trim()));

    let text = |file: &str| json!(read(&dev.data().join(file)).trim());
    note(secrets, "database password", &text("postgres-password"));
    note(
        secrets,
        "template's password",
        &agent["postgres"]["password"],
    );
    let sealing_key = read(&dev.data().join("sealing-key"));
    let (_, material) = sealing_key.trim().split_once(':').expect("id:key");
    note(secrets, "sealing key", &json!(material));
    let demo: Value = serde_json::from_str(&read(&dev.data().join("demo.json"))).expect("JSON");
    note(secrets, "demo partner's secret", &demo["partner"]["secret"]);
    note(secrets, "demo user's password", &demo["user"]["password"]);
}

#[track_caller]
pub(super) fn note(secrets: &mut Secrets, name: &str, value: &Value) {
    let text = value.as_str().unwrap_or_default();
    assert!(text.len() >= 16, "{name} is no secret: {value}");
    secrets.insert(name.to_owned(), text.to_owned());
}

pub(super) fn is_private(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    PRIVATE.contains(&&*name)
}

/// Its pages. Of our own database a dump is looked at; a project's database is its owner's.
pub(super) fn is_data_of_postgres(path: &Path) -> bool {
    let inside = |name: &str| path.components().any(|part| part.as_os_str() == name);
    !is_log(path) && (inside("pgdata") || inside("postgres") || inside("template-pg15"))
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "log")
}

pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

pub(super) fn read(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// All schemas of our database, as text. Bytes are hexadecimal there, so those are told, too.
pub(super) async fn dump(dev: &Dev) -> String {
    let binaries = Binaries::find().await.expect("Postgres is installed");
    let output = Command::new(binaries.program("pg_dump"))
        .args(["--inserts", "--dbname", &dev.database_url()])
        .output()
        .expect("pg_dump can be run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for table in [
        "apalis.jobs",
        "public.operations",
        "public.partners",
        "public.audit_log",
    ] {
        assert!(text.contains(table), "no {table} in the dump");
    }
    let bytes = text
        .split("'\\x")
        .skip(1)
        .filter_map(|rest| rest.split('\'').next());
    let bytes: Vec<u8> = bytes.flat_map(from_hex).collect();
    format!("{text}{}", String::from_utf8_lossy(&bytes))
}

fn from_hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .chain([b'\n'])
        .collect()
}

async fn payloads_are_ids(dev: &Dev) {
    let mut connection = sqlx::PgConnection::connect(&dev.database_url())
        .await
        .expect("dev's database answers");
    let payloads: Vec<Vec<u8>> = sqlx::query_scalar("select job from apalis.jobs")
        .fetch_all(&mut connection)
        .await
        .expect("the queue can be read");
    let ids: Vec<uuid::Uuid> = sqlx::query_scalar("select id from operations")
        .fetch_all(&mut connection)
        .await
        .expect("operations can be read");
    assert!(!payloads.is_empty());
    for payload in payloads {
        let text = String::from_utf8_lossy(&payload).into_owned();
        let id: uuid::Uuid = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(ids.contains(&id), "{text} is no operation");
    }
}
