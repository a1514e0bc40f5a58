//! One control plane on a database of its own: the HTTP interface on a loopback port, a `sim`
//! world with agents, and workers as the scenario wants them.

use std::sync::Arc;
use std::time::Duration;

use cp_ai::{Analyst, OpenRouter};
use cp_api::ApiOptions;
use cp_billing::Stripe;
use cp_domain::{ControlPlane, NewPartner, Settings};
use cp_model::{
    InstanceType, Operation, OperationId, OperationState, ProjectId, Region, SharedClock,
    SystemClock,
};
use cp_provider::sim::{SimCompute, SimConfig};
use cp_provider::{SharedCompute, SharedObjects};
use cp_server::downloads::StoreDownloads;
use cp_tokens::sealing::{Sealer, SealingKey};
use cp_worker::{PoolTarget, WorkerConfig};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;

use crate::partner::PartnerClient;
use crate::postgres::TestDatabase;
use crate::sim_agents::{AgentPace, SimAgents};
use crate::worker::WorkerProcess;

pub struct AppOptions {
    pub sim: SimConfig,
    pub agents: AgentPace,
    /// Instead of the sim.
    pub compute: Option<SharedCompute>,
    pub clock: SharedClock,
    /// Warm machines to keep; none by default, so that every machine is the scenario's own.
    pub pool: Vec<PoolTarget>,
    /// Starts one worker.
    pub worker: bool,
    pub create_wait: Duration,
    pub completion_wait: Duration,
    pub auth_failures_per_minute: u32,
    /// The worker works at the pace of production instead of a test's.
    pub production_pace: bool,
    /// Webhooks may be on this computer.
    pub allow_http_webhooks: bool,
    /// Where sites are.
    pub sites_domain: Option<String>,
    /// The store that the interface makes links to.
    pub downloads: Option<SharedObjects>,
    /// Where AI keys are made.
    pub openrouter: Option<OpenRouter>,
    /// Who is asked about projects.
    pub analyst: Option<Analyst>,
    /// Who takes payments.
    pub payments: Option<Stripe>,
    /// The newest release, as the operator has set it.
    pub latest_release: Option<String>,
}

impl Default for AppOptions {
    fn default() -> Self {
        Self {
            sim: SimConfig::default(),
            agents: AgentPace::default(),
            compute: None,
            clock: Arc::new(SystemClock),
            pool: Vec::new(),
            worker: true,
            create_wait: Duration::from_secs(10),
            completion_wait: Duration::from_secs(20),
            auth_failures_per_minute: 100_000,
            production_pace: false,
            allow_http_webhooks: true,
            sites_domain: None,
            downloads: None,
            openrouter: None,
            analyst: None,
            payments: None,
            latest_release: None,
        }
    }
}

pub struct App {
    pub control_plane: ControlPlane,
    pub base_url: String,
    pub sim: SimCompute,
    pub agents: Arc<SimAgents>,
    pub database: Arc<TestDatabase>,
    pub http: reqwest::Client,
    sealing_key: SecretString,
    options: AppOptions,
    worker: Option<WorkerProcess>,
    shutdown: CancellationToken,
}

impl App {
    pub async fn start() -> Self {
        Self::start_with(AppOptions::default()).await
    }

    pub async fn start_with(options: AppOptions) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_env("INSFORGE_LOG"))
            .with_test_writer()
            .try_init();
        let database = Arc::new(TestDatabase::new().await);
        let sealing_key = SealingKey::generate().to_secret_text();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a loopback port is free");
        let base_url = format!(
            "http://{}",
            listener.local_addr().expect("the listener has an address")
        );
        let sim = SimCompute::new(options.sim.clone())
            .await
            .expect("the sim listens");
        let control_plane = control_plane(&database, &sealing_key, &options, &base_url);
        let agents = SimAgents::install(control_plane.clone(), &sim, options.agents.clone());
        let mut app = Self {
            control_plane,
            agents,
            base_url,
            sim,
            database,
            http: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client can be built"),
            sealing_key,
            options,
            worker: None,
            shutdown: CancellationToken::new(),
        };
        app.control_plane
            .rotate_signing_keys(false)
            .await
            .expect("a signing key can be made");
        app.serve(listener, app.control_plane.clone());
        if app.options.worker {
            app.worker = Some(app.start_worker(app.worker_config("main")));
        }
        app
    }

    fn serve(&self, listener: tokio::net::TcpListener, control_plane: ControlPlane) {
        let options = ApiOptions {
            shutdown: self.shutdown.clone(),
            downloads: self
                .options
                .downloads
                .clone()
                .map(|objects| Arc::new(StoreDownloads(objects)) as _),
            openrouter: self.options.openrouter.clone(),
            analyst: self.options.analyst.clone(),
            payments: self.options.payments.clone(),
            ..ApiOptions::default()
        };
        let router = cp_api::router(control_plane, options);
        tokio::spawn(cp_api::serve(listener, router, self.shutdown.clone()));
    }

    /// A second API process on the same database; gives its base URL.
    pub async fn start_second_api(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a loopback port is free");
        let base_url = format!(
            "http://{}",
            listener.local_addr().expect("the listener has an address")
        );
        let second = control_plane(
            &self.database,
            &self.sealing_key,
            &self.options,
            &self.base_url,
        );
        second.load_keys().await.expect("the keys can be loaded");
        self.serve(listener, second);
        base_url
    }

    /// A further API process that believes to be at `public_url`; gives where it really is.
    pub async fn start_api_as(&self, public_url: &str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a loopback port is free");
        let address = listener.local_addr().expect("the listener has an address");
        let other = control_plane(&self.database, &self.sealing_key, &self.options, public_url);
        other.load_keys().await.expect("the keys can be loaded");
        self.serve(listener, other);
        format!("http://{address}")
    }

    /// What seals and derives in this installation: for scenarios that forge.
    pub fn sealer(&self) -> Sealer {
        sealer(&self.sealing_key)
    }

    /// The business as another process has it, on the same database.
    pub fn another_control_plane(&self) -> ControlPlane {
        control_plane(
            &self.database,
            &self.sealing_key,
            &self.options,
            &self.base_url,
        )
    }

    /// Short times, so that a test need not wait for what production waits for.
    pub fn worker_config(&self, name: &str) -> WorkerConfig {
        let production = WorkerConfig {
            name: name.into(),
            control_url: self.base_url.clone(),
            pool: self.options.pool.clone(),
            openrouter: self.options.openrouter.clone(),
            payments: self.options.payments.clone(),
            ..WorkerConfig::default()
        };
        if self.options.production_pace {
            return production;
        }
        WorkerConfig {
            lease: Duration::from_millis(900),
            ai_keys_every: Duration::from_millis(200),
            sweep_every: Duration::from_millis(100),
            reconcile_every: Duration::from_millis(200),
            // An emulator is slow, and has others to answer.
            health_every: Duration::from_millis(if self.options.compute.is_some() {
                2000
            } else {
                300
            }),
            impaired_grace: Duration::from_millis(300),
            missing_grace: Duration::from_millis(400),
            launch_visibility: Duration::from_millis(300),
            recheck: Duration::from_secs(1),
            orphan_grace: Duration::from_millis(600),
            capacity_pause: Duration::from_millis(100),
            boot_time: Duration::from_secs(1),
            grace: Duration::from_secs(5),
            ..production
        }
    }

    pub fn start_worker(&self, config: WorkerConfig) -> WorkerProcess {
        let compute = self.options.compute.clone();
        let compute = compute.unwrap_or_else(|| Arc::new(self.sim.clone()));
        self.start_worker_on(compute, config)
    }

    /// A worker with machines of its own choice.
    pub fn start_worker_on(&self, compute: SharedCompute, config: WorkerConfig) -> WorkerProcess {
        WorkerProcess::start(
            &self.database,
            self.options.clock.clone(),
            sealer(&self.sealing_key),
            self.control_plane.settings().clone(),
            compute,
            config,
        )
    }

    /// Kills the worker that `start` began.
    pub fn kill_worker(&mut self) {
        self.worker.take().expect("a worker runs").kill();
    }

    /// A partner of both models, without a limit that a test could meet.
    pub async fn partner(&self) -> PartnerClient {
        self.partner_with(NewPartner {
            name: "Acme".into(),
            co_branded: true,
            white_label: true,
            rate_limit: 1_000_000,
            trusted: false,
        })
        .await
    }

    pub async fn partner_with(&self, new: NewPartner) -> PartnerClient {
        let made = self
            .control_plane
            .create_partner(&new)
            .await
            .expect("a partner can be made");
        PartnerClient {
            http: self.http.clone(),
            base_url: self.base_url.clone(),
            id: made.partner.id.as_str().to_owned(),
            secret: made.secret.expose_secret().to_owned(),
        }
    }

    /// The newest operation of a project.
    pub async fn newest_operation(&self, project: ProjectId) -> Operation {
        let operations = self
            .control_plane
            .list_operations(Some(project), None, 1)
            .await
            .expect("operations can be read");
        operations
            .into_iter()
            .next()
            .expect("the project has an operation")
    }

    /// The operation as its row is now.
    pub async fn operation(&self, id: OperationId) -> Operation {
        self.control_plane
            .show_operation(id)
            .await
            .expect("the operation can be read")
    }

    /// Waits until nothing is in flight.
    pub async fn settle(&self) {
        crate::eventually(
            "all operations ended",
            Duration::from_secs(30),
            async || {
                for state in OperationState::ALL.iter().filter(|s| s.is_in_flight()) {
                    let busy = self
                        .control_plane
                        .list_operations(None, Some(*state), 1)
                        .await
                        .ok()?;
                    if !busy.is_empty() {
                        return None;
                    }
                }
                Some(())
            },
        )
        .await;
    }

    pub fn warm_pool(floor: u32) -> Vec<PoolTarget> {
        vec![PoolTarget {
            region: Region::UsEast,
            instance_type: InstanceType::Nano,
            floor,
            ceiling: floor + 4,
        }]
    }

    /// As when the process is told to end.
    pub fn shut_down(&self) {
        self.shutdown.cancel();
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn sealer(key: &SecretString) -> Sealer {
    let key = SealingKey::parse(key.expose_secret()).expect("the sealing key is well-formed");
    Sealer::new(key, Vec::new()).expect("one key makes a sealer")
}

fn control_plane(
    database: &TestDatabase,
    key: &SecretString,
    options: &AppOptions,
    base_url: &str,
) -> ControlPlane {
    let settings = Settings {
        create_wait: options.create_wait,
        completion_wait: options.completion_wait,
        auth_failures_per_minute: options.auth_failures_per_minute,
        allow_http_webhooks: options.allow_http_webhooks,
        sites_domain: options.sites_domain.clone(),
        latest_release: options.latest_release.clone(),
        ..Settings::new(base_url)
    };
    ControlPlane::new(
        database.open(16),
        options.clock.clone(),
        sealer(key),
        settings,
    )
}
