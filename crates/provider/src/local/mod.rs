//! Machines of a laptop. A machine is a folder under `<dir>/machines/` with a Postgres cluster, an
//! `insforge-agent` process that keeps that cluster and a backend running, and nothing else:
//!
//! ```text
//! <dir>/template-pg15/            initdb, once; every machine starts as a copy of it
//! <dir>/locks/<machine id>.lock   held by whoever changes that machine
//! <dir>/machines/<machine id>/
//!     machine.json  what was launched; the ports are the machine's for life
//!     power         what we want: running or stopped
//!     agent.json    the agent's configuration (0600)
//!     agent.lock    locked as long as the agent lives (see `lock`)
//!     agent.log, backend.log, pgdata/, storage/, logs/, and the agent's own files
//! ```
//!
//! The control plane may die and come back, and several workers may share one folder: what a
//! machine is, is read from disk and from the process that holds its lock, never from memory.
//! Made by the server for `dev`, driven by the worker.

mod agent;
mod halt;
mod layout;
pub(crate) mod lock;
mod template;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::Utc;
use cp_model::{InstanceType, MachineId, Region};
use cp_pg::{Binaries, Cluster, Durability, RunAs};
use tokio::task::JoinSet;

use crate::{Compute, LaunchSpec, Machine, MachineRef, Power, ProviderError};
pub use agent::{AgentConfig, PostgresConfig, Runtime};
use halt::Haste;
use layout::{Layout, MachineDir, Record, Wanted};
use lock::{FileLock, Holder};

/// How long a machine's lock is waited for. A stop holds it longest, see `halt`.
const LOCK_WAIT: Duration = Duration::from_mins(1);

/// What `dev` says about its machines.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Everything lives under it. Under root, user `postgres` must be able to enter it.
    pub dir: PathBuf,
    /// The program `insforge-agent`.
    pub agent_binary: PathBuf,
    pub binaries: Binaries,
    /// [`Durability::Fast`] is for tests.
    pub durability: Durability,
    /// What the agents run as backend.
    pub runtime: Runtime,
    /// When given, a machine is pointed here at each of its starts: `dev` may come back on another
    /// port than the one that the machine was launched from.
    pub control_url: Option<String>,
}

#[derive(Clone)]
pub struct LocalCompute {
    inner: Arc<Inner>,
}

struct Inner {
    config: LocalConfig,
    layout: Layout,
    /// After `shutdown` nothing may start again.
    closed: AtomicBool,
}

impl LocalCompute {
    /// Opens the folder, makes it where it is missing, and removes what an interrupted terminate
    /// left. Starts nothing: see [`Self::resume`].
    pub async fn open(config: LocalConfig) -> Result<Self, ProviderError> {
        let run_as = RunAs::detect().await.map_err(from_pg)?;
        let layout = Layout::open(&config.dir, &run_as).map_err(io_at("open", &config.dir))?;
        run_as
            .check_reachable(&layout.template(config.binaries.version()))
            .map_err(from_pg)?;
        let compute = Self {
            inner: Arc::new(Inner {
                config,
                layout,
                closed: AtomicBool::new(false),
            }),
        };
        for gone in compute.inner.layout.gone() {
            compute.inner.erase(&gone).await?;
        }
        Ok(compute)
    }

    /// Makes the template ahead of time, so that the first launch need not wait for initdb.
    pub async fn prepare(&self) -> Result<(), ProviderError> {
        let inner = &self.inner;
        template::ensure(&inner.layout, &inner.config.binaries).await?;
        Ok(())
    }

    /// Starts each machine that should run and does not: after a restart of `dev` or of the
    /// laptop, or when an agent died. Does what systemd does on a real machine; call it at start
    /// and then every few seconds. Returns how many were started.
    pub async fn resume(&self) -> Result<usize, ProviderError> {
        let mut tasks = JoinSet::new();
        for dir in self.inner.layout.machines() {
            if dir.wanted() == Wanted::Running && dir.agent() == Holder::Nobody {
                let inner = Arc::clone(&self.inner);
                tasks.spawn(async move { inner.resume(dir).await });
            }
        }
        // All of them, whatever becomes of one.
        let mut started = 0;
        let mut failure = None;
        while let Some(outcome) = tasks.join_next().await {
            match outcome.unwrap_or_else(|error| Err(ProviderError::Transient(error.to_string()))) {
                Ok(true) => started += 1,
                Ok(false) => {}
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(started), Err)
    }
}

#[async_trait]
impl Compute for LocalCompute {
    fn name(&self) -> &'static str {
        "local"
    }

    fn regions(&self) -> Vec<Region> {
        Region::ALL.to_vec()
    }

    async fn find(&self, _region: Region, id: MachineId) -> Result<Option<Machine>, ProviderError> {
        describe(&self.inner.layout.machine(id))
    }

    /// A folder is named after its machine, so there is no other one with its id.
    async fn describe(&self, machine: MachineRef<'_>) -> Result<Option<Machine>, ProviderError> {
        self.find(machine.region, machine.id).await
    }

    async fn list(&self, region: Region) -> Result<Vec<Machine>, ProviderError> {
        let mut machines = Vec::new();
        for dir in self.inner.layout.machines() {
            machines.extend(describe(&dir)?.filter(|machine| machine.region == region));
        }
        Ok(machines)
    }

    async fn launch(&self, spec: &LaunchSpec) -> Result<Machine, ProviderError> {
        let _lock = self.inner.lock(spec.machine_id).await?;
        let dir = self.inner.layout.machine(spec.machine_id);
        // A crash may have come between the folder and its first start, so an existing machine
        // is started too, unless it was stopped since.
        if dir.record().map_err(io_at("read", dir.path()))?.is_none() {
            self.inner.make(spec, &dir).await?;
        }
        if dir.wanted() == Wanted::Running {
            self.inner.run(&dir).await?;
        }
        describe(&dir)?.ok_or(ProviderError::NotFound)
    }

    async fn start(&self, machine: MachineRef<'_>) -> Result<(), ProviderError> {
        let id = machine.id;
        let _lock = self.inner.lock(id).await?;
        let dir = self.inner.existing(id)?;
        if dir.wanted() == Wanted::Stopped {
            // Whoever stopped it may have died half-way.
            self.inner.halt(&dir, Haste::Clean).await?;
            dir.want(Wanted::Running)
                .map_err(io_at("write in", dir.path()))?;
        }
        self.inner.run(&dir).await
    }

    async fn stop(&self, machine: MachineRef<'_>) -> Result<(), ProviderError> {
        let id = machine.id;
        let _lock = self.inner.lock(id).await?;
        let dir = self.inner.existing(id)?;
        dir.want(Wanted::Stopped)
            .map_err(io_at("write in", dir.path()))?;
        self.inner.halt(&dir, Haste::Clean).await
    }

    async fn terminate(&self, machine: MachineRef<'_>) -> Result<(), ProviderError> {
        let id = machine.id;
        let lock = self.inner.lock(id).await?;
        let layout = &self.inner.layout;
        // One rename and it is no machine any more, however far the rest gets.
        layout
            .set_aside(id)
            .map_err(io_at("rename", layout.machine(id).path()))?;
        for dir in layout.remains(id) {
            self.inner.erase(&dir).await?;
        }
        halt::kill_strays(layout.machine(id).path()).await;
        lock.remove();
        Ok(())
    }

    /// A process has the whole computer, whatever its size is called.
    async fn resize(
        &self,
        machine: MachineRef<'_>,
        instance_type: InstanceType,
    ) -> Result<(), ProviderError> {
        self.inner
            .rewrite(machine.id, |record| record.instance_type = instance_type)
            .await
    }

    /// A folder has the whole disk.
    async fn grow_volume(&self, machine: MachineRef<'_>, gib: i32) -> Result<(), ProviderError> {
        self.inner
            .rewrite(machine.id, |record| {
                record.volume_gib = record.volume_gib.max(gib);
            })
            .await
    }

    fn access_host(&self, machine: &Machine, _app_key: &str, _region: Region) -> Option<String> {
        let address = machine.address.as_ref()?;
        Some(format!("http://{address}"))
    }

    /// Stops every running machine but still wants them running, so that [`LocalCompute::resume`]
    /// brings them back.
    async fn shutdown(&self) {
        self.inner.closed.store(true, Ordering::SeqCst);
        let mut tasks = JoinSet::new();
        for dir in self.inner.layout.machines() {
            let inner = Arc::clone(&self.inner);
            tasks.spawn(async move {
                let _lock = inner.lock(dir.id()).await?;
                inner.halt(&dir, Haste::Clean).await
            });
        }
        while let Some(outcome) = tasks.join_next().await {
            if let Ok(Err(error)) = outcome {
                tracing::warn!(%error, "could not stop a local machine");
            }
        }
    }
}

impl Inner {
    async fn lock(&self, id: MachineId) -> Result<FileLock, ProviderError> {
        let path = self.layout.lock(id);
        lock::wait(&path, LOCK_WAIT)
            .await
            .map_err(io_at("lock", &path))
    }

    fn existing(&self, id: MachineId) -> Result<MachineDir, ProviderError> {
        let dir = self.layout.machine(id);
        match dir.record().map_err(io_at("read", dir.path()))? {
            Some(_) => Ok(dir),
            None => Err(ProviderError::NotFound),
        }
    }

    async fn rewrite(
        &self,
        id: MachineId,
        change: impl FnOnce(&mut Record) + Send,
    ) -> Result<(), ProviderError> {
        let _lock = self.lock(id).await?;
        let dir = self.existing(id)?;
        let mut record = dir
            .record()
            .map_err(io_at("read", dir.path()))?
            .ok_or(ProviderError::NotFound)?;
        change(&mut record);
        dir.write_record(&record)
            .map_err(io_at("write in", dir.path()))
    }

    /// Builds the folder aside and renames it into place: a machine that exists is whole.
    async fn make(&self, spec: &LaunchSpec, dir: &MachineDir) -> Result<(), ProviderError> {
        self.check_open()?;
        let template = template::ensure(&self.layout, &self.config.binaries).await?;
        let making = self
            .layout
            .begin(spec.machine_id)
            .map_err(io_at("create", dir.path()))?;
        let record = self.reserve_ports(spec, &making).await?;
        Cluster::copy_template(
            &self.config.binaries,
            &template.dir,
            making.pgdata(),
            record.database_port,
        )
        .await
        .map_err(from_pg)?;
        let config = agent::AgentConfig {
            machine_id: spec.machine_id,
            control_url: spec.control_url.clone(),
            bootstrap_token: spec.bootstrap_token.clone(),
            port: record.backend_port,
            postgres: agent::PostgresConfig {
                binaries: self.config.binaries.dir().to_owned(),
                port: record.database_port,
                password: template.password,
                fast: self.config.durability == Durability::Fast,
            },
            runtime: self.config.runtime.clone(),
        };
        config
            .write(&making.agent_config())
            .and_then(|()| making.want(Wanted::Running))
            .and_then(|()| self.layout.finish(&making, dir))
            .map_err(io_at("finish", dir.path()))
    }

    /// Two ports that no other machine of this folder has. Reserved by writing `machine.json`,
    /// which other processes read under the same lock.
    async fn reserve_ports(
        &self,
        spec: &LaunchSpec,
        making: &MachineDir,
    ) -> Result<Record, ProviderError> {
        let path = self.layout.ports_lock();
        let _lock = lock::wait(&path, LOCK_WAIT)
            .await
            .map_err(io_at("lock", &path))?;
        let [backend_port, database_port] = layout::free_ports(&self.layout.ports_taken())
            .ok_or_else(|| {
                ProviderError::Capacity("no free TCP port is left on this machine".to_owned())
            })?;
        let record = Record {
            machine_id: spec.machine_id,
            region: spec.region,
            instance_type: spec.instance_type,
            volume_gib: spec.volume_gib,
            backend_port,
            database_port,
            launched_at: Utc::now(),
        };
        making
            .write_record(&record)
            .map_err(io_at("write in", making.path()))?;
        Ok(record)
    }

    /// Starts the agent unless it lives. Call with the machine's lock held.
    async fn run(&self, dir: &MachineDir) -> Result<(), ProviderError> {
        self.check_open()?;
        if dir.agent() != Holder::Nobody {
            return Ok(());
        }
        if let Some(url) = &self.config.control_url {
            agent::point_at(&dir.agent_config(), url)
                .map_err(io_at("rewrite", &dir.agent_config()))?;
        }
        agent::spawn(&self.config.agent_binary, dir).await
    }

    async fn resume(&self, dir: MachineDir) -> Result<bool, ProviderError> {
        let _lock = self.lock(dir.id()).await?;
        // It may have been stopped or terminated while we waited.
        if dir.wanted() != Wanted::Running || dir.agent() != Holder::Nobody {
            return Ok(false);
        }
        self.run(&dir).await?;
        Ok(true)
    }

    async fn halt(&self, dir: &MachineDir, haste: Haste) -> Result<(), ProviderError> {
        halt::halt(dir, &self.config.binaries, haste).await
    }

    /// Ends what still runs in a folder that is no machine any more, then removes it.
    async fn erase(&self, dir: &MachineDir) -> Result<(), ProviderError> {
        self.halt(dir, Haste::AtOnce).await?;
        layout::remove_all(dir.path())
            .await
            .map_err(io_at("remove", dir.path()))
    }

    fn check_open(&self) -> Result<(), ProviderError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(ProviderError::Transient("it is shutting down".to_owned()));
        }
        Ok(())
    }
}

fn describe(dir: &MachineDir) -> Result<Option<Machine>, ProviderError> {
    let Some(record) = dir.record().map_err(io_at("read", dir.path()))? else {
        return Ok(None);
    };
    let power = match (dir.wanted(), dir.agent()) {
        (_, Holder::Nobody) => Power::Stopped,
        (Wanted::Running, _) => Power::Running,
        (Wanted::Stopped, _) => Power::Stopping,
    };
    Ok(Some(Machine {
        machine_id: record.machine_id,
        provider_ref: record.machine_id.to_string(),
        power,
        address: Some(format!("127.0.0.1:{}", record.backend_port)),
        database_address: Some(format!("127.0.0.1:{}", record.database_port)),
        launched_at: record.launched_at,
        region: record.region,
        instance_type: record.instance_type,
    }))
}

/// For `map_err`: says what was done to which path. A full or failing disk may be mended, so it is
/// worth another try.
fn io_at(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ProviderError {
    move |error| ProviderError::Transient(format!("cannot {action} {}: {error}", path.display()))
}

fn from_pg(error: cp_pg::Error) -> ProviderError {
    use cp_pg::Error as E;
    match error {
        E::Unreachable { .. }
        | E::NoUnprivilegedUser
        | E::NotACluster(_)
        | E::WrongVersion { .. } => ProviderError::Permanent(error.to_string()),
        other => ProviderError::Transient(other.to_string()),
    }
}
