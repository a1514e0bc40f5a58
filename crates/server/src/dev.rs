//! `insforge-cloud dev`: everything on one computer, in one folder, from one command.
//!
//! Each layer starts one thing, runs the next layer, and stops its thing whatever came of it:
//! folder → Postgres → objects → business and machines → API and worker. So Ctrl-C, an error half-way and a
//! normal end all leave nothing running; projects stay on disk and come back with the next start.
//!
//! There is no container when Postgres is not installed: the machines need its binaries anyway.

mod demo;
mod folder;
mod mails;
mod objects;
mod postgres;
mod tour;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cp_domain::ControlPlane;
use cp_model::{InstanceType, Region};
use cp_provider::local::LocalCompute;
use cp_provider::{AwsAccess, Compute as _, SharedObjects};
use cp_worker::Worker;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Metrics};
use crate::cli::DevOptions;
use crate::config::{Config, PoolTarget};
use crate::production::{api_options, bind, worker_config};
use crate::{local_machines, plane};

pub use demo::{Demo, DemoOAuth, DemoPartner, DemoUser};
pub use folder::{DevFolder, FolderError};

/// How often backends are asked what they used.
const USAGE_EVERY: Duration = Duration::from_secs(10);

/// How long requests and steps in flight may go on after Ctrl-C.
const DRAIN: Duration = Duration::from_secs(10);

struct Listeners {
    api: TcpListener,
    admin: TcpListener,
}

struct Providers {
    compute: LocalCompute,
    objects: SharedObjects,
}

pub async fn run(
    mut config: Config,
    options: DevOptions,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    // Before anything is started: what is most likely to be wrong.
    local_machines::agent_binary(&config.local)?;
    let listeners = Listeners {
        api: bind(options.listen, "--listen").await?,
        admin: bind(options.admin_listen, "--admin-listen").await?,
    };
    let base_url = format!("http://{}", reachable(listeners.api.local_addr()?));
    let folder = DevFolder::open(&config.local.data_dir)?;
    config.http.listen = listeners.api.local_addr()?;
    config.http.base_url = Some(base_url);
    config.admin.listen = listeners.admin.local_addr()?;
    config.local.data_dir = folder.path().to_owned();
    // Receivers run here, too.
    config.limits.allow_http_webhooks = true;
    if !config.names_mail() {
        config.mail.folder = Some(folder.mail());
    }
    if config.pool.targets.is_empty() {
        config.pool.targets.push(PoolTarget {
            region: Region::UsEast,
            instance_type: InstanceType::Nano,
            floor: 2,
            ceiling: 4,
        });
    }
    with_database(config, &folder, listeners, shutdown).await
}

/// Postgres: the one that the configuration names, else a private one in the folder.
async fn with_database(
    mut config: Config,
    folder: &DevFolder,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    if !config.names_sealing_key() {
        config.secrets.sealing_key_file = Some(folder.sealing_key_file(config.names_database())?);
    }
    if config.names_database() {
        folder.write_config(&config)?;
        return Box::pin(with_objects(config, folder, listeners, shutdown)).await;
    }
    let postgres = postgres::Private::start(folder).await?;
    let outcome = async {
        config.database.url = Some(postgres.create_database().await?);
        folder.write_config(&config)?;
        Box::pin(with_objects(config, folder, listeners, shutdown)).await
    }
    .await;
    postgres.stop().await;
    outcome
}

/// Objects: in the buckets that the configuration names, else in the folder.
async fn with_objects(
    config: Config,
    folder: &DevFolder,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    if config.objects.names_buckets() {
        let access = AwsAccess::from_environment().await;
        let objects = Arc::new(config.objects.open(&access));
        return with_machines(config, folder, objects, listeners, shutdown).await;
    }
    let private = objects::Private::start(folder, &config.objects).await?;
    let objects = private.objects.clone();
    let outcome = with_machines(config, folder, objects, listeners, shutdown).await;
    private.stop().await;
    outcome
}

/// The business, and the machines of its projects.
async fn with_machines(
    config: Config,
    folder: &DevFolder,
    objects: SharedObjects,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let base_url = config.base_url()?;
    let metrics = Metrics::install()?;
    let database = plane::database(&config, "dev")?;
    let outcome = async {
        if !plane::prepare_database(&database, true, &shutdown).await? {
            return Ok(());
        }
        let control_plane = plane::control_plane(&config, database.clone(), &base_url)?;
        control_plane.rotate_signing_keys(false).await?;
        if demo::base_url_of_last_time(folder)?.is_some_and(|last| last != base_url) {
            move_machines(&config, &control_plane, &base_url).await?;
        }
        // Only now, for it notes the new address: a crash in between must not hide the move.
        let demo = demo::ensure(&control_plane, folder, &base_url).await?;
        let compute = local_machines::open(&config.local, &base_url).await?;
        let outcome = serve(
            &config,
            &control_plane,
            Providers {
                compute: compute.clone(),
                objects,
            },
            metrics,
            listeners,
            &demo,
            shutdown,
        )
        .await;
        compute.shutdown().await;
        outcome
    }
    .await;
    database.close().await;
    outcome
}

/// `dev` came back on another port. Agents that a killed `dev` left running look for us at the old
/// one, so they are stopped and started anew; and backends know our address from their desired
/// state, so that is handed out again.
async fn move_machines(
    config: &Config,
    control_plane: &ControlPlane,
    base_url: &str,
) -> anyhow::Result<()> {
    let compute = local_machines::open(&config.local, base_url).await?;
    compute.shutdown().await;
    let mut machines = Vec::new();
    for region in compute.regions() {
        let living = control_plane.list_living_machines(compute.name(), region);
        machines.extend(living.await?);
    }
    let mut transaction = control_plane.database().begin().await?;
    for machine in machines {
        cp_storage::machines::bump_desired(&mut transaction, machine.id).await?;
    }
    transaction
        .commit()
        .await
        .map_err(cp_storage::StorageError::from)?;
    Ok(())
}

/// API, worker and admin listener, until told to stop or one of them fails.
async fn serve(
    config: &Config,
    control_plane: &ControlPlane,
    Providers { compute, objects }: Providers,
    metrics: Metrics,
    listeners: Listeners,
    demo: &Demo,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (openrouter, analyst) = (config.openrouter()?, config.analyst()?);
    let parts = TaskTracker::new();
    let admin = admin::router(control_plane.clone(), metrics, compute.name());
    parts.spawn(admin::serve(listeners.admin, admin, shutdown.clone()));
    parts.spawn(local_machines::keep_running(
        compute.clone(),
        shutdown.clone(),
    ));
    let mut settings = local_machines::pace(worker_config(config, demo.base_url.clone()));
    // Somebody watches; and there are few backends to ask.
    if settings.usage_every == cp_worker::WorkerConfig::default().usage_every {
        settings.usage_every = USAGE_EVERY;
    }
    let payments = config.payments(&demo.base_url)?;
    let settings = cp_worker::WorkerConfig {
        payments: payments.clone(),
        mailer: config.mailer(Some(mails::announce()))?,
        objects: Some(objects.clone()),
        openrouter: openrouter.clone(),
        ..settings
    };
    let worker = Worker::new(control_plane.clone(), Arc::new(compute), settings);
    parts.spawn(worker.run(shutdown.clone()));

    let options = cp_api::ApiOptions {
        openrouter,
        analyst,
        ..api_options(config, Some(objects), payments, &shutdown)
    };
    let router = cp_api::router(control_plane.clone(), options);
    let mut api = tokio::spawn(cp_api::serve(listeners.api, router, shutdown.clone()));

    announce(demo, &config.local.data_dir.join(demo::FILE));
    let early = tokio::select! {
        () = shutdown.cancelled() => None,
        ended = &mut api => Some(ended),
    };
    shutdown.cancel();
    parts.close();
    if tokio::time::timeout(DRAIN, parts.wait()).await.is_err() {
        tracing::warn!(
            "steps were still running when the time to stop was over; they go on at the next start"
        );
    }
    match early {
        Some(ended) => ended?.context("the API listener failed"),
        None => match tokio::time::timeout(DRAIN, api).await {
            Ok(ended) => ended?.context("the API listener failed"),
            Err(_) => Ok(()),
        },
    }
}

/// The ready line, which scripts wait for, and what to try next.
fn announce(demo: &Demo, demo_file: &std::path::Path) {
    let mut out = std::io::stdout().lock();
    // Nobody may be reading any more; that is no reason to end.
    let _ = writeln!(out, "ready: {}", demo.base_url);
    let _ = writeln!(out, "\n{}", tour::sign_in(&demo.base_url, demo_file));
    let _ = writeln!(out, "{}", tour::text(demo_file));
    let _ = out.flush();
}

/// Where clients on this computer reach a listener: one on all addresses answers on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_loopback() {
        let reach = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reach("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(reach("[::]:1"), "127.0.0.1:1");
        assert_eq!(reach("127.0.0.2:9"), "127.0.0.2:9");
    }
}
