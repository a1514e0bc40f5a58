//! A machine of the `compose` runtime with a docker that is not there (`docker.rs`). Its agent is a
//! process of its own that can be killed, and is started again as systemd would.

use std::{os::unix::process::ExitStatusExt, process::Stdio};

use super::{docker::*, *};
use crate::compose::Limits;

pub(super) const V1: &str = "v2.3.1";
pub(super) const V2: &str = "v2.4.0";

/// Not a test of its own: the test binary as `insforge-agent run`.
#[test]
#[ignore = "started by the other tests as a child process"]
fn as_the_agent() {
    let Some(config) = std::env::var_os("AGENT_JSON") else {
        return;
    };
    tracing_subscriber::fmt()
        .with_env_filter("info,cp_agent=trace")
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let start = std::env::var("START_SECONDS").unwrap().parse().unwrap();
    let limits = Limits {
        call: Duration::from_secs(4),
        pull: Duration::from_secs(4),
        pulls: 3,
        up: Duration::from_secs(4),
        start: Duration::from_secs(start),
        key_refused: Duration::from_millis(300),
        look: Duration::from_millis(200),
        look_again: Duration::from_millis(50),
        pause: Duration::from_millis(20),
        longest_pause: Duration::from_millis(200),
        ..Limits::default()
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(agent::run_within(config.as_ref(), limits))
        .unwrap();
}

/// An EC2 instance as user-data leaves it.
pub(super) struct Machine {
    pub(super) control: Arc<Control>,
    pub(super) docker: Arc<Daemon>,
    pub(super) dir: TempDir,
    pub(super) port: u16,
    pub(super) project: ProjectId,
    pub(super) start_seconds: u64,
    pub(super) systemd: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Machine {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (control, control_url) = Control::serve().await;
        let (docker, program) = Daemon::serve(dir.path()).await;
        let port = docker.port();
        let config = serde_json::json!({
            "machine_id": MachineId::generate(),
            "control_url": control_url,
            "bootstrap_token": "ibt_once",
            "port": port,
            "runtime": {
                "kind": "compose",
                "release": V1,
                "data_dir": dir.path().join("data"),
                "release_dir": dir.path().join("release"),
                "docker": program,
            },
        });
        fs::write(dir.path().join("agent.json"), config.to_string()).unwrap();
        Self {
            control,
            docker,
            dir,
            port,
            project: ProjectId::generate(),
            start_seconds: 30,
            systemd: None,
        }
    }

    pub(super) fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join("data").join(name)
    }

    /// Starts the agent, and again whenever it ends.
    pub(super) fn start(&mut self) {
        let stop = CancellationToken::new();
        let config = self.dir.path().join("agent.json");
        let log = self.dir.path().join("agent.log");
        let (docker, until, seconds) = (self.docker.clone(), stop.clone(), self.start_seconds);
        let unit = tokio::spawn(async move {
            while !until.is_cancelled() {
                let log = fs::File::options().append(true).create(true).open(&log);
                let mut agent = tokio::process::Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "tests::machine::as_the_agent"])
                    .args(["--ignored", "--nocapture"])
                    .env("AGENT_JSON", &config)
                    .env("START_SECONDS", seconds.to_string())
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(log.unwrap())
                    .kill_on_drop(true)
                    .spawn()
                    .unwrap();
                let pid = agent.id().unwrap();
                docker.state().agent = Some(pid);
                tokio::select! {
                    _ = agent.wait() => tokio::time::sleep(Duration::from_millis(20)).await,
                    () = until.cancelled() => {
                        process::signal(pid, rustix::process::Signal::TERM);
                        let status = agent.wait().await.unwrap();
                        // One that was started or killed a moment ago ends by the signal.
                        assert!(status.success() || status.signal().is_some(), "{status}");
                    }
                }
            }
        });
        self.systemd = Some((stop, unit));
    }

    /// `systemctl stop insforge-agent`.
    pub(super) async fn stop(&mut self) {
        let (stop, unit) = self.systemd.take().unwrap();
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), unit)
            .await
            .unwrap()
            .unwrap();
    }

    pub(super) fn backend(&self, release: Option<&str>, restarts: i64) -> DesiredBackend {
        DesiredBackend {
            release: release.map(str::to_owned),
            ..Lab::backend(self.project, restarts)
        }
    }

    pub(super) fn want(&self, release: Option<&str>, restarts: i64) -> i64 {
        self.control.want(Some(self.backend(release, restarts)))
    }

    /// Waits until the backend serves what was last asked for.
    pub(super) async fn until_serving(
        &self,
        release: Option<&str>,
        restarts: i64,
    ) -> ReportRequest {
        let generation = self.want(release, restarts);
        self.control.until(0, serving(generation)).await
    }

    /// Waits until the database runs alone, as was last asked for.
    pub(super) async fn until_database_only(
        &self,
        release: Option<&str>,
        restarts: i64,
    ) -> ReportRequest {
        let generation = self.want_database_only(release, restarts);
        self.control.until(0, database_only(generation)).await
    }

    pub(super) fn want_database_only(&self, release: Option<&str>, restarts: i64) -> i64 {
        self.control.want(Some(DesiredBackend {
            database_only: true,
            ..self.backend(release, restarts)
        }))
    }

    pub(super) async fn until_failing(&self, generation: i64) -> ReportRequest {
        self.control
            .until(0, |report| {
                report.state == ObservedState::Failing && report.generation == generation
            })
            .await
    }

    /// What nobody but the containers may see.
    pub(super) fn secrets(&self) -> Vec<String> {
        let desired = self.backend(None, 0);
        [
            "JWT_SECRET",
            "ENCRYPTION_KEY",
            "ACCESS_API_KEY",
            "ACCESS_ANON_KEY",
            "ROOT_ADMIN_PASSWORD",
        ]
        .iter()
        .map(|name| desired.env[*name].clone())
        .chain([desired.database_password])
        .collect()
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
    }

    pub(super) fn started(&self) -> Vec<String> {
        self.docker.state().started.clone()
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.docker.state().calls.iter().map(Call::name).collect()
    }

    /// What must be so whatever happened.
    pub(super) fn check(&self) {
        let state = self.docker.state();
        let project = self.project.to_string();
        assert!(state.volumes.values().all(|owner| *owner == project));
        let reports = format!("{:?}", self.control.seen.lock().unwrap().reports);
        for secret in self.secrets() {
            for call in &state.calls {
                assert!(!call.args.join(" ").contains(&secret), "{:?}", call.args);
            }
            assert!(!self.log().contains(&secret), "{}", self.log());
            assert!(!reports.contains(&secret), "{reports}");
        }
        drop(state);
        let files = [
            "stack.json",
            "machine.env",
            "environment.json",
            "compose.yaml",
        ];
        for name in files
            .iter()
            .chain(&["postgres/machine.conf", "desired.json"])
        {
            let mode = self.data(name).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
}
