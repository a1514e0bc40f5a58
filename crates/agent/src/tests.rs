//! The agent against a control plane in this process, with real Postgres and the real stand-in
//! backend as a process of its own.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cp_model::{
    MachineId, ProjectId,
    agent_protocol::{
        DesiredBackend, DesiredState, ObservedState, RegisterRequest, RegisterResponse,
        RenewRequest, ReportRequest,
    },
};
use cp_pg::{Binaries, Cluster, free_port};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    agent,
    compose::Limits,
    config::{Config, PostgresConfig, Program, Runtime},
    keep, process,
};

mod compose;
mod database_only;
mod docker;
mod faults;
mod machine;

/// Not a test of its own: the test binary as `insforge-agent backend` (see `backend.rs`).
#[test]
#[ignore = "started by the other tests as a child process"]
fn as_the_stand_in() {
    if std::env::var_os("JWT_SECRET").is_none() {
        return;
    }
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(crate::builtin::run())
        .unwrap();
}

/// What the control plane was told and wants.
struct Control {
    desired: watch::Sender<DesiredState>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    registrations: Vec<(MachineId, String, String)>,
    reports: Vec<ReportRequest>,
    /// So many registrations take effect but are answered 500.
    lose_registrations: usize,
    /// The tokens of the renewals that took effect.
    renewed: Vec<String>,
    /// So many renewals take effect but are answered 500.
    lose_renewals: usize,
    refuse_tokens: bool,
}

impl Control {
    async fn serve() -> (Arc<Self>, String) {
        let nothing = DesiredState {
            generation: 0,
            backend: None,
        };
        let control = Arc::new(Self {
            desired: watch::channel(nothing).0,
            seen: Mutex::default(),
        });
        let router = Router::new()
            .route("/agent/v1/register", post(register))
            .route("/agent/v1/desired", get(desired))
            .route("/agent/v1/report", post(report))
            .route("/agent/v1/renew", post(renew))
            .with_state(control.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (control, url)
    }

    fn want(&self, backend: Option<DesiredBackend>) -> i64 {
        self.desired.send_modify(|desired| {
            desired.generation += 1;
            desired.backend = backend;
        });
        self.desired.borrow().generation
    }

    fn accepts(&self, headers: &HeaderMap) -> bool {
        let seen = self.seen.lock().unwrap();
        let registered = seen.registrations.last().map(|(_, _, token)| token);
        let Some(token) = seen.renewed.last().or(registered) else {
            return false;
        };
        !seen.refuse_tokens && headers["authorization"] == format!("Bearer {token}")
    }

    /// Waits for a report that fits, among those after the first `skip`.
    async fn until(&self, skip: usize, fits: impl Fn(&ReportRequest) -> bool) -> ReportRequest {
        for _ in 0..3000 {
            let seen = self
                .seen
                .lock()
                .unwrap()
                .reports
                .iter()
                .skip(skip)
                .find(|r| fits(r))
                .cloned();
            if let Some(report) = seen {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("reported: {:?}", self.seen.lock().unwrap().reports);
    }

    fn reports(&self) -> usize {
        self.seen.lock().unwrap().reports.len()
    }
}

async fn register(
    State(control): State<Arc<Control>>,
    Json(request): Json<RegisterRequest>,
) -> Response {
    let mut seen = control.seen.lock().unwrap();
    let registration = (
        request.machine_id,
        request.bootstrap_token,
        request.agent_token,
    );
    seen.registrations.push(registration);
    if seen.lose_registrations > 0 {
        seen.lose_registrations -= 1;
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let machine_id = request.machine_id;
    Json(RegisterResponse { machine_id }).into_response()
}

#[derive(Deserialize)]
struct DesiredQuery {
    generation: i64,
    wait: u64,
}

async fn desired(
    State(control): State<Arc<Control>>,
    Query(query): Query<DesiredQuery>,
    headers: HeaderMap,
) -> Response {
    if !control.accepts(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let mut desired = control.desired.subscribe();
    let newer = desired.wait_for(|desired| desired.generation > query.generation);
    match tokio::time::timeout(Duration::from_secs(query.wait), newer).await {
        Ok(newer) => Json(newer.unwrap().clone()).into_response(),
        Err(_) => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn report(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
    Json(report): Json<ReportRequest>,
) -> StatusCode {
    if !control.accepts(&headers) {
        return StatusCode::UNAUTHORIZED;
    }
    control.seen.lock().unwrap().reports.push(report);
    StatusCode::NO_CONTENT
}

/// Without an overlap: a lost answer shows as a token that is not good any more.
async fn renew(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
    Json(request): Json<RenewRequest>,
) -> StatusCode {
    if !control.accepts(&headers) {
        return StatusCode::UNAUTHORIZED;
    }
    let mut seen = control.seen.lock().unwrap();
    seen.renewed.push(request.agent_token);
    if seen.lose_renewals > 0 {
        seen.lose_renewals -= 1;
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    StatusCode::NO_CONTENT
}

/// A machine as a provider makes it, and the agent on it.
struct Lab {
    control: Arc<Control>,
    dir: TempDir,
    cluster: Cluster,
    port: u16,
    machine_id: MachineId,
    agent: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Lab {
    async fn new(runtime: cp_provider::local::Runtime) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (control, control_url) = Control::serve().await;
        let binaries = Binaries::find().await.unwrap();
        let password = SecretString::from("first password");
        let database_port = free_port().unwrap();
        let pgdata = dir.path().join("pgdata");
        let cluster = Cluster::initdb(&binaries, pgdata, database_port, &password)
            .await
            .unwrap();
        let port = free_port().unwrap();
        let machine_id = MachineId::generate();
        let config = cp_provider::local::AgentConfig {
            machine_id,
            control_url,
            bootstrap_token: "ibt_once".into(),
            port,
            postgres: cp_provider::local::PostgresConfig {
                binaries: binaries.dir().to_owned(),
                port: database_port,
                password,
                fast: true,
            },
            runtime,
        };
        config.write(&dir.path().join("agent.json")).unwrap();
        Self {
            control,
            dir,
            cluster,
            port,
            machine_id,
            agent: None,
        }
    }

    fn start(&mut self) {
        self.start_within(Limits::default());
    }

    fn start_within(&mut self, limits: Limits) {
        let stop = CancellationToken::new();
        let config = self.dir.path().join("agent.json");
        let until = stop.clone();
        let agent = tokio::spawn(async move {
            agent::run_until(&config, limits, until).await.unwrap();
        });
        self.agent = Some((stop, agent));
    }

    /// Stops the agent and sees that nothing is left.
    async fn stop(&mut self) {
        let (stop, agent) = self.agent.take().unwrap();
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), agent)
            .await
            .unwrap()
            .unwrap();
        assert!(
            !self.cluster.is_running().await,
            "postgres was left running"
        );
        // By its processes where they show: by now another test's server may have the port.
        let is_left = if cfg!(target_os = "linux") {
            !self.backends().is_empty()
        } else {
            self.ask("/api/health", "").await.is_some()
        };
        assert!(!is_left, "the backend was left running");
    }

    fn backend(project_id: ProjectId, restarts: i64) -> DesiredBackend {
        let env = [
            ("PROJECT_ID", project_id.to_string()),
            ("AWS_INSTANCE_PROFILE_NAME", "test".to_owned()),
            ("CLOUD_API_HOST", "http://127.0.0.1:9".to_owned()),
            ("APP_KEY", "shop".to_owned()),
            ("JWT_SECRET", "j".repeat(40)),
            ("ENCRYPTION_KEY", "e".repeat(40)),
            (
                "ACCESS_API_KEY",
                "ik_0123456789abcdef0123456789abcdef".to_owned(),
            ),
            (
                "ACCESS_ANON_KEY",
                "anon_0123456789abcdef0123456789abcdef".to_owned(),
            ),
            ("ROOT_ADMIN_USERNAME", "admin".to_owned()),
            ("ROOT_ADMIN_PASSWORD", "p".repeat(20)),
            // Ours, and not for anybody to override.
            ("PORT", "1".to_owned()),
        ];
        DesiredBackend {
            project_id,
            restarts,
            release: None,
            database_password: "it's \\ the project's own".to_owned(),
            env: env.map(|(name, value)| (name.to_owned(), value)).into(),
            database_only: false,
        }
    }

    async fn ask(&self, path: &str, key: &str) -> Option<(u16, String)> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let response = reqwest::Client::new()
            .get(url)
            .bearer_auth(key)
            .send()
            .await
            .ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    async fn rotate_api_key(&self, key: &str) -> String {
        let url = format!("http://127.0.0.1:{}/api/secrets/api-key/rotate", self.port);
        let response = reqwest::Client::new()
            .post(url)
            .bearer_auth(key)
            .json(&serde_json::json!({"gracePeriodHours": 0}))
            .send()
            .await
            .unwrap();
        let answer: serde_json::Value = response.json().await.unwrap();
        answer["apiKey"].as_str().unwrap().to_owned()
    }

    /// The backend's processes, where the system shows them (Linux).
    fn backends(&self) -> Vec<u32> {
        processes_with_home(&self.dir.path().join("storage").to_string_lossy())
    }
}

impl Drop for Lab {
    /// A failed assertion must leave no Postgres behind.
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.dir.path().join("pgdata/postmaster.pid"));
        let pid = pid.ok().and_then(|text| text.lines().next()?.parse().ok());
        if let Some(pid) = pid {
            process::signal(pid, rustix::process::Signal::QUIT);
        }
    }
}

/// Backends are known by the HOME that the agent gave them.
fn processes_with_home(home: &str) -> Vec<u32> {
    let entry = format!("HOME={home}\0");
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&entry)
        })
        .collect()
}

fn database_only(generation: i64) -> impl Fn(&ReportRequest) -> bool {
    move |report| report.state == ObservedState::DatabaseOnly && report.generation == generation
}

fn serving(generation: i64) -> impl Fn(&ReportRequest) -> bool {
    move |report| report.state == ObservedState::Serving && report.generation == generation
}

#[tokio::test]
async fn a_token_is_renewed_in_time_and_kept_whatever_becomes_of_the_answer() {
    let mut lab = Lab::new(cp_provider::local::Runtime::Builtin).await;
    lab.control.seen.lock().unwrap().lose_renewals = 1;
    let limits = Limits {
        token_lifetime: Duration::from_secs(2),
        ..Limits::default()
    };
    lab.start_within(limits);
    lab.control.until(0, |_| true).await;
    let (first, renewed) = loop {
        {
            let seen = lab.control.seen.lock().unwrap();
            let (_, _, first) = seen.registrations.last().unwrap().clone();
            // The second one: the answer to the first was lost.
            match seen.renewed.last() {
                Some(renewed) if seen.lose_renewals == 0 => break (first, renewed.clone()),
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_ne!(first, renewed);
    // It goes on with a token that is good, at once and after a reboot.
    let before = lab.control.reports();
    lab.control.want(None);
    lab.control.until(before, |_| true).await;
    lab.stop().await;
    let before = lab.control.reports();
    lab.start();
    lab.control.until(before, |_| true).await;
    assert_eq!(lab.control.seen.lock().unwrap().registrations.len(), 1);

    // A control plane that was set back to before the last renewal learns of it again.
    let last = lab.control.seen.lock().unwrap().renewed.pop().unwrap();
    lab.control.want(None);
    for _ in 0..500 {
        if lab.control.seen.lock().unwrap().renewed.last() == Some(&last) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(lab.control.seen.lock().unwrap().renewed.last(), Some(&last));
    lab.stop().await;
}

#[tokio::test]
async fn how_busy_the_machine_is_is_told_again_and_again() {
    let mut lab = Lab::new(cp_provider::local::Runtime::Builtin).await;
    lab.start_within(Limits {
        sample_every: Duration::from_millis(300),
        ..Limits::default()
    });
    let mut seen = 0;
    for _ in 0..3 {
        let report = lab.control.until(seen, |report| report.sample.is_some());
        let sample = report.await.sample.unwrap();
        sample.check().unwrap();
        assert!(
            sample.memory_usage > 0.0 && sample.disk_usage > 0.0,
            "{sample:?}"
        );
        seen = lab.control.reports();
    }
    // One sample is told once; reports for other reasons come without.
    lab.stop().await;
    let seen = lab.control.seen.lock().unwrap();
    let samples: Vec<_> = seen
        .reports
        .iter()
        .filter_map(|report| report.sample)
        .collect();
    assert!(
        samples.windows(2).all(|pair| pair[0] != pair[1]),
        "{samples:?}"
    );
}

#[tokio::test]
async fn a_machine_registers_once_warms_up_and_serves_the_project_it_is_given() {
    let mut lab = Lab::new(cp_provider::local::Runtime::Builtin).await;
    lab.control.seen.lock().unwrap().lose_registrations = 1;
    lab.start();
    lab.control
        .until(0, |report| report.state == ObservedState::Idle)
        .await;
    {
        let seen = lab.control.seen.lock().unwrap();
        let [lost, again] = &seen.registrations[..] else {
            panic!("{} registrations", seen.registrations.len());
        };
        assert_eq!(lost, again, "a lost answer is mended by the same pair");
        assert_eq!((lost.0, lost.1.as_str()), (lab.machine_id, "ibt_once"));
        assert!(lost.2.starts_with("iat_") && lost.2.len() >= 47);
    }

    let project = ProjectId::generate();
    let desired = Lab::backend(project, 0);
    let key = desired.env["ACCESS_API_KEY"].clone();
    let begin = std::time::Instant::now();
    let generation = lab.control.want(Some(desired.clone()));
    let report = lab.control.until(0, serving(generation)).await;
    println!("identity to serving: {:?}", begin.elapsed());
    assert_eq!(
        report.backend_version.as_deref(),
        Some(cp_devbackend::VERSION)
    );
    let (status, body) = lab.ask("/api/metadata/project-id", &key).await.unwrap();
    assert_eq!(
        (status, body.contains(&project.to_string())),
        (200, true),
        "{body}"
    );

    // Restarted by a grown counter only.
    let before = lab.control.reports();
    let generation = lab.control.want(Some(desired));
    lab.control.until(before, serving(generation)).await;
    let same = lab.control.seen.lock().unwrap().reports[before..]
        .iter()
        .all(|r| r.state == ObservedState::Serving);
    assert!(same, "the same desire again restarts nothing");
    let before = lab.control.reports();
    let generation = lab.control.want(Some(Lab::backend(project, 1)));
    let report = lab.control.until(before, serving(generation)).await;
    assert_eq!(report.restarts, 1);
    assert!(
        lab.control.seen.lock().unwrap().reports[before..]
            .iter()
            .any(|r| r.state == ObservedState::Starting)
    );

    // Its owner changes the key: nobody tells us, and the backend serves.
    let rotated = lab.rotate_api_key(&key).await;
    assert_eq!(
        lab.ask("/api/metadata/project-id", &key).await.unwrap().0,
        401
    );
    let key = rotated;

    // Killed, it comes back by itself.
    let backends = lab.backends();
    #[cfg(target_os = "linux")]
    assert_eq!(backends.len(), 1);
    if let [backend] = backends[..] {
        let before = lab.control.reports();
        process::signal(backend, rustix::process::Signal::KILL);
        lab.control.until(before, serving(generation)).await;
        assert_ne!(lab.backends(), [backend]);
    }

    // And so does Postgres.
    let before = lab.control.reports();
    lab.cluster
        .stop(cp_pg::StopMode::Immediate, Duration::from_secs(5))
        .await
        .unwrap();
    lab.control
        .until(before, |report| report.state == ObservedState::Starting)
        .await;
    lab.control.until(before, serving(generation)).await;
    assert_eq!(
        lab.ask("/api/metadata/project-id", &key).await.unwrap().0,
        200
    );

    // No project any more: warm again, though with its password.
    let generation = lab.control.want(None);
    lab.control
        .until(0, |r| {
            r.state == ObservedState::Idle && r.generation == generation
        })
        .await;
    assert!(lab.ask("/api/health", "").await.is_none());
    lab.stop().await;
    assert!(lab.backends().is_empty());
}

#[tokio::test]
async fn after_a_reboot_it_serves_without_the_control_plane() {
    let mut lab = Lab::new(cp_provider::local::Runtime::Builtin).await;
    lab.start();
    let desired = Lab::backend(ProjectId::generate(), 0);
    let key = desired.env["ACCESS_API_KEY"].clone();
    let generation = lab.control.want(Some(desired));
    lab.control.until(0, serving(generation)).await;
    lab.stop().await;
    for file in [
        "agent-token.json",
        "desired.json",
        "database-password",
        "backend.log",
    ] {
        let mode = lab
            .dir
            .path()
            .join(file)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{file}");
    }

    lab.control.seen.lock().unwrap().refuse_tokens = true;
    let before = lab.control.reports();
    lab.start();
    let mut status = None;
    for _ in 0..1500 {
        status = lab
            .ask("/api/metadata/project-id", &key)
            .await
            .map(|(status, _)| status);
        if status == Some(200) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(status, Some(200));
    assert_eq!(lab.control.reports(), before);
    assert_eq!(lab.control.seen.lock().unwrap().registrations.len(), 1);
    lab.stop().await;
}

#[tokio::test]
async fn a_machine_whose_folder_is_gone_ends_with_all_its_processes() {
    let mut lab = Lab::new(cp_provider::local::Runtime::Builtin).await;
    lab.start();
    let generation = lab
        .control
        .want(Some(Lab::backend(ProjectId::generate(), 0)));
    lab.control.until(0, serving(generation)).await;
    let postmaster = lab.cluster.pid().await.unwrap();
    // Processes may still write into it.
    while fs::remove_dir_all(lab.dir.path()).is_err() {}
    let (_, agent) = lab.agent.take().unwrap();
    tokio::time::timeout(Duration::from_secs(20), agent)
        .await
        .unwrap()
        .unwrap();
    assert!(lab.ask("/api/health", "").await.is_none());
    for _ in 0..500 {
        if process::command_line(postmaster)
            .await
            .is_none_or(|line| line.trim().is_empty())
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("postgres outlived its machine");
}

/// A backend that fails, then one that ignores SIGTERM and outlives its agent.
#[tokio::test]
async fn a_command_that_fails_is_reported_and_a_left_over_one_is_killed() {
    let scripts = tempfile::tempdir().unwrap();
    fs::set_permissions(scripts.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = script(&scripts, "fails", "exit 7");
    let mut lab = Lab::new(cp_provider::local::Runtime::Command {
        program,
        args: Vec::new(),
    })
    .await;
    lab.start();
    let generation = lab
        .control
        .want(Some(Lab::backend(ProjectId::generate(), 0)));
    let report = lab
        .control
        .until(0, |report| report.state == ObservedState::Failing)
        .await;
    assert_eq!(report.generation, generation);
    assert!(report.message.unwrap().contains("ended with status 7"));
    lab.stop().await;

    let (config, dir) = Config::load(&lab.dir.path().join("agent.json")).unwrap();
    let stubborn = script(
        &scripts,
        "stubborn",
        "trap '' TERM; env > storage/env; while :; do sleep 0.1; done",
    );
    let program = Program::Command {
        program: stubborn,
        args: Vec::new(),
    };
    let run_as = cp_pg::RunAs::detect().await.unwrap();
    let launcher = crate::backend::Launcher::new(&program, run_as, &dir, config.port).unwrap();
    let desired = Lab::backend(ProjectId::generate(), 0);
    let environment = launcher.environment(&desired, 4711, &"postgres://x".into());
    let backend = launcher.spawn(&environment).unwrap();
    // What a crash does: nobody stops it.
    std::mem::forget(backend);
    let seen = dir.file("storage/env");
    while !fs::read_to_string(&seen).is_ok_and(|text| text.contains("STORAGE_DIR=")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seen = fs::read_to_string(seen).unwrap();
    let seen: BTreeMap<_, _> = seen
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    assert_eq!(
        seen["PORT"],
        lab.port.to_string(),
        "the agent alone knows the port"
    );
    assert_eq!(
        (seen["POSTGRES_PORT"], seen["POSTGRES_DB"]),
        ("4711", "insforge")
    );
    assert_eq!(seen["POSTGRES_PASSWORD"], desired.database_password);
    assert!(
        !seen.contains_key("CARGO_MANIFEST_DIR"),
        "our own environment is not handed on"
    );
    assert!(launcher.spawn(&environment).is_err(), "never two");
    launcher.clear().await.unwrap();
    launcher.spawn(&environment).unwrap();
}

fn script(dir: &TempDir, name: &str, body: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn a_password_that_others_changed_is_set_again() {
    let lab = Lab::new(cp_provider::local::Runtime::Builtin).await;
    let (config, dir) = Config::load(&lab.dir.path().join("agent.json")).unwrap();
    let mut postgres = crate::postgres::Postgres::open(postgres_of(config), &dir)
        .await
        .unwrap();
    lab.cluster
        .set_superuser_password(&"of somebody else".into())
        .await
        .unwrap();
    postgres.ensure().await.unwrap();
    let desired = Lab::backend(ProjectId::generate(), 0);
    postgres.adapt(&desired).await.unwrap();
    let kept = keep::database_password(&dir).unwrap().unwrap();
    assert_eq!(kept.expose_secret(), desired.database_password);
    // The note may be lost at any time, too.
    fs::remove_file(dir.file("database-password")).unwrap();
    postgres.adapt(&desired).await.unwrap();
    postgres.prepare().await.unwrap();
    postgres.stop().await;
    assert!(!lab.cluster.is_running().await);
}

fn postgres_of(config: Config) -> PostgresConfig {
    match config.runtime {
        Runtime::Processes { postgres, .. } => postgres,
        Runtime::Compose(_) => panic!("another runtime"),
    }
}

#[test]
fn a_configuration_with_an_unknown_field_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.json");
    fs::write(&path, r#"{"machine_ids": "x"}"#).unwrap();
    let error = Config::load(&path).err().unwrap().to_string();
    assert!(
        error.contains("machine_ids") && error.contains("agent.json"),
        "{error}"
    );
}
