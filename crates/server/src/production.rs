//! `serve` and `work`: production processes. Both wait for a database that is away, and refuse one
//! whose schema is behind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cp_api::ApiOptions;
use cp_billing::Stripe;
use cp_domain::ControlPlane;
use cp_provider::ec2::Ec2Compute;
use cp_provider::{AwsAccess, SharedCompute, SharedObjects};
use cp_worker::{Worker, WorkerConfig};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Metrics};
use crate::cli::StartOptions;
use crate::config::sections::{Losses, Orphans};
use crate::config::{Config, Provider};
use crate::downloads::StoreDownloads;
use crate::{local_machines, plane};

/// `insforge-cloud serve`: the API and the admin listener.
pub async fn serve(
    config: Config,
    options: StartOptions,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let base_url = config.base_url()?;
    let (openrouter, analyst) = (config.openrouter()?, config.analyst()?);
    let database = plane::database(&config, "serve")?;
    let control_plane = plane::control_plane(&config, database.clone(), &base_url)?;
    let payments = config.payments(&base_url)?;
    let admin = start_admin(&config, &control_plane, &shutdown).await?;
    if plane::prepare_database(&database, options.migrate, &shutdown).await? {
        let listener = bind(config.http.listen, "http.listen").await?;
        tracing::info!(address = %config.http.listen, %base_url, "serving");
        let store = if config.objects.names_buckets() {
            objects(&config, &AwsAccess::from_environment().await)
        } else {
            None
        };
        let options = ApiOptions {
            openrouter,
            analyst,
            ..api_options(&config, store, payments, &shutdown)
        };
        let router = cp_api::router(control_plane, options);
        cp_api::serve(listener, router, shutdown.clone()).await?;
    }
    end(admin, &shutdown).await;
    database.close().await;
    Ok(())
}

/// `insforge-cloud work`: the worker and the admin listener.
pub async fn work(
    config: Config,
    options: StartOptions,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let base_url = config.base_url()?;
    let control_url = config
        .worker
        .control_url
        .clone()
        .unwrap_or_else(|| base_url.clone());
    let openrouter = config.openrouter()?;
    let mailer = config.mailer(None)?;
    if mailer.is_none() {
        tracing::warn!("no mail is configured (mail.smtp_url); mails to people wait in the queue");
    }
    let database = plane::database(&config, "work")?;
    let control_plane = plane::control_plane(&config, database.clone(), &base_url)?;
    let payments = config.payments(&base_url)?;
    let admin = start_admin(&config, &control_plane, &shutdown).await?;
    if plane::prepare_database(&database, options.migrate, &shutdown).await? {
        let access = AwsAccess::from_environment().await;
        let settings = WorkerConfig {
            mailer,
            openrouter,
            payments,
            objects: objects(&config, &access),
            ..worker_config(&config, control_url.clone())
        };
        // Machines go on running afterwards: another worker, or this one started again, finds them.
        match config.worker.provider {
            Provider::Local => {
                let compute = local_machines::open(&config.local, &control_url).await?;
                let keeper = tokio::spawn(local_machines::keep_running(
                    compute.clone(),
                    shutdown.clone(),
                ));
                let settings = local_machines::pace(settings);
                run_worker(control_plane, Arc::new(compute), settings, &shutdown).await;
                end(keeper, &shutdown).await;
            }
            Provider::Ec2 => {
                let compute = Ec2Compute::new(&access, config.ec2.compute());
                // An attempt is noted before it is made: a step may take its whole time before it
                // calls AWS, the call its whole patience, and AWS half a minute to show the machine.
                let attempt = settings.step_timeout + config.ec2.patience.get();
                let settings = WorkerConfig {
                    launch_visibility: attempt + Duration::from_secs(30),
                    ..settings
                };
                run_worker(control_plane, Arc::new(compute), settings, &shutdown).await;
            }
        }
    }
    end(admin, &shutdown).await;
    database.close().await;
    Ok(())
}

fn objects(config: &Config, access: &AwsAccess) -> Option<SharedObjects> {
    if config.objects.names_buckets() {
        return Some(Arc::new(config.objects.open(access)));
    }
    tracing::warn!("no bucket is configured (objects.buckets); what needs one cannot be done");
    None
}

async fn run_worker(
    control_plane: ControlPlane,
    compute: SharedCompute,
    settings: WorkerConfig,
    shutdown: &CancellationToken,
) {
    tracing::info!(provider = compute.name(), "working");
    Worker::new(control_plane, compute, settings)
        .run(shutdown.clone())
        .await;
}

pub(crate) fn api_options(
    config: &Config,
    objects: Option<SharedObjects>,
    payments: Option<Stripe>,
    shutdown: &CancellationToken,
) -> ApiOptions {
    ApiOptions {
        downloads: objects.map(|objects| Arc::new(StoreDownloads(objects)) as _),
        payments,
        trusted_proxies: config.http.trusted_proxies,
        shutdown: shutdown.clone(),
        max_in_flight: config.limits.max_in_flight,
        max_agent_waits: config.limits.max_agent_waits,
        ..ApiOptions::default()
    }
}

pub(crate) fn worker_config(config: &Config, control_url: String) -> WorkerConfig {
    let worker = &config.worker;
    WorkerConfig {
        control_url,
        concurrency: worker.concurrency,
        lease: worker.lease.get(),
        sweep_every: worker.sweep_every.get(),
        reconcile_every: worker.reconcile_every.get(),
        usage_every: worker.usage_every.get(),
        copies: worker.copies,
        scheduled_backups: worker.scheduled_backups,
        spare_orphans: worker.orphans == Orphans::Report,
        believe_losses: worker.losses == Losses::Believe,
        grace: worker.drain.get(),
        pool: config
            .pool
            .targets
            .iter()
            .map(|target| cp_worker::PoolTarget {
                region: target.region,
                instance_type: target.instance_type,
                floor: target.floor,
                ceiling: target.ceiling,
            })
            .collect(),
        ..WorkerConfig::default()
    }
}

/// `name`: what to change when the address is taken.
pub(crate) async fn bind(address: SocketAddr, name: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; choose another address with {name}"))
}

async fn start_admin(
    config: &Config,
    control_plane: &ControlPlane,
    shutdown: &CancellationToken,
) -> anyhow::Result<JoinHandle<std::io::Result<()>>> {
    let metrics = Metrics::install()?;
    let listener = bind(config.admin.listen, "admin.listen").await?;
    let router = admin::router(
        control_plane.clone(),
        metrics,
        config.worker.provider.name(),
    );
    Ok(tokio::spawn(admin::serve(
        listener,
        router,
        shutdown.clone(),
    )))
}

/// Ends what runs beside the main thing, also when that ended by itself.
async fn end<T>(task: JoinHandle<T>, shutdown: &CancellationToken) {
    shutdown.cancel();
    if let Err(error) = task.await {
        tracing::error!(%error, "a part of the process panicked");
    }
}
