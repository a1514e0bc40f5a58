//! Machines in memory, for tests. One world is shared by all clones of a [`SimCompute`], so that
//! several workers see the same machines and a "restarted" worker finds them again.
//!
//! It misbehaves the way clouds do, on command ([`SimCompute::fail_next`]) or at random from a
//! seed: errors before and after the effect, lost answers, no capacity, tags that are seen late,
//! repeated launches that are not recognised, machines that vanish. It counts effects, so that a
//! test can assert that a machine was launched exactly once.
//!
//! Machines answer HTTP ([`serve`]): `GET /api/health`, and `GET /api/metadata/project-id` for the
//! key that [`SimCompute::serve`] was told. What an agent would do is the test's own: a
//! [`SimHost`] hears of each boot. All waiting is tokio time.
//!
//! With [`SimConfig::ec2`] it is as slow as EC2 and rations launches as EC2 does.

mod cloud;
mod fault;
mod serve;
#[cfg(test)]
mod tests;
mod world;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use cp_model::{InstanceType, MachineId, ProjectId, Region, SharedClock, SystemClock};
use secrecy::SecretString;
use tokio::{net::TcpListener, runtime::Handle, task::JoinHandle};

use crate::looks::{Looks, NoAnswer};
use crate::pace::Pace;
use crate::{
    Ailing, Ailment, Compute, LaunchSpec, Leftover, Machine, MachineRef, Power, ProviderError,
};
pub use cloud::Ec2Like;
use cloud::{Bucket, Regional, Regions};
pub use fault::{Fault, Verb};
use world::World;

/// Machines on one page of a list (`ec2::client::PAGE`).
const PAGE: usize = 1000;

/// How the world behaves when nothing was scripted.
#[derive(Clone)]
pub struct SimConfig {
    /// From launch or start to [`SimHost::booted`].
    pub boots_after: Duration,
    /// From stop to stopped.
    pub stops_after: Duration,
    /// Before each answer.
    pub latency: Duration,
    /// How long a new machine is missing from `find` and `list`.
    pub tag_lag: Duration,
    /// A second launch with an id makes a second machine, unless the tag is seen already and
    /// `launch_looks_first` holds.
    pub launch_looks_first: bool,
    /// This share of all calls fails, 0 to 1, at random before or after the effect.
    pub error_rate: f64,
    /// Of the random faults, and of what [`Ec2Like`] draws.
    pub seed: u64,
    /// Counts instead of `boots_after`, `latency` and `tag_lag`. Then no answer lies: after an
    /// effect the answer is lost, and what was denied did not happen.
    pub ec2: Option<Ec2Like>,
    /// For `launched_at` only.
    pub clock: SharedClock,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            boots_after: Duration::from_millis(5),
            stops_after: Duration::ZERO,
            latency: Duration::ZERO,
            tag_lag: Duration::ZERO,
            launch_looks_first: true,
            error_rate: 0.0,
            seed: 0,
            ec2: None,
            clock: Arc::new(SystemClock),
        }
    }
}

/// A machine that has just booted. Holds a secret, so it has no `Debug`.
#[derive(Clone)]
pub struct SimBoot {
    pub machine_id: MachineId,
    pub provider_ref: String,
    /// Of the launch; the same at each later boot.
    pub bootstrap_token: SecretString,
    pub control_url: String,
    /// False after a stop and start.
    pub first: bool,
}

/// What runs on the machines: the test's stand-in for the agent.
#[async_trait]
pub trait SimHost: Send + Sync {
    /// Runs in a task of its own; may take as long as it likes.
    async fn booted(&self, boot: SimBoot);
}

#[derive(Clone)]
pub struct SimCompute {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<SimConfig>,
    world: Arc<Mutex<World>>,
    /// Empty unless it is like EC2.
    regions: Regions,
    host: Mutex<Option<Arc<dyn SimHost>>>,
    address: SocketAddr,
    server: JoinHandle<()>,
    /// The world's own: machines outlive the worker that launched them.
    runtime: Handle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl SimCompute {
    /// A new, empty world with its HTTP listener on 127.0.0.1.
    pub async fn new(config: SimConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let world = Arc::new(Mutex::new(World::new(config.seed)));
        let server = tokio::spawn(serve::run(listener, Arc::clone(&world)));
        let config = Arc::new(config);
        let regions = config.ec2.iter().flat_map(|ec2| {
            Region::ALL.iter().map(|region| {
                let regional = Regional {
                    pace: Pace::new(ec2.launches),
                    looks: looks(&config, &world, *region),
                };
                (*region, regional)
            })
        });
        let regions = regions.collect();
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                world,
                regions,
                host: Mutex::new(None),
                address,
                server,
                runtime: Handle::current(),
            }),
        })
    }

    /// Who hears of boots, from now on.
    pub fn set_host(&self, host: Arc<dyn SimHost>) {
        *self
            .inner
            .host
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(host);
    }

    /// The next call of `verb` fails so. Repeat it for the ones after.
    pub fn fail_next(&self, verb: Verb, fault: Fault) {
        self.world().faults.script(verb, fault);
    }

    pub fn fail_times(&self, verb: Verb, fault: Fault, times: usize) {
        for _ in 0..times {
            self.fail_next(verb, fault);
        }
    }

    /// From now on this share of calls fails; 0 makes the world well again.
    pub fn set_error_rate(&self, rate: f64) {
        self.world().error_rate = Some(rate);
    }

    /// The machine's backend accepts `api_key` for `project_id` from now on.
    pub fn serve(
        &self,
        machine_id: MachineId,
        project_id: ProjectId,
        api_key: impl Into<SecretString>,
    ) {
        let serving = (project_id, api_key.into());
        self.world().serving.insert(machine_id, serving);
    }

    /// The machine's backend goes away; the machine stays.
    pub fn serve_nothing(&self, machine_id: MachineId) {
        self.world().serving.remove(&machine_id);
    }

    /// The machine is gone, and nobody asked for that.
    pub fn vanish(&self, machine_id: MachineId) {
        self.world().set_power_of_all(machine_id, Power::Terminated);
    }

    /// The machine has stopped, and nobody asked for that.
    pub fn crash(&self, machine_id: MachineId) {
        self.world().set_power_of_all(machine_id, Power::Stopped);
    }

    /// From now on no machine is seen, as with credentials of another account; false: all are again.
    pub fn hide_all(&self, hidden: bool) {
        self.world().hidden = hidden;
    }

    /// The provider says so of the machine from now on, until it is started again.
    pub fn ail(&self, provider_ref: &str, ailment: Ailment) {
        let mut world = self.world();
        world.ailing.insert(provider_ref.to_owned(), ailment);
    }

    /// A disk of that machine stays behind; gives it.
    pub fn leave_behind(&self, region: Region, machine_id: MachineId) -> Leftover {
        let mut world = self.world();
        let leftover = Leftover {
            machine_id,
            provider_ref: format!("disk-{}", world.leftovers.len() + 1),
        };
        world.leftovers.push((region, leftover.clone()));
        leftover
    }

    /// Disks that no machine has.
    pub fn left_behind(&self) -> Vec<Leftover> {
        let world = self.world();
        let leftovers = world.leftovers.iter();
        leftovers.map(|(_, leftover)| leftover.clone()).collect()
    }

    /// How many machines were ever made for this id.
    pub fn launch_effects(&self, machine_id: MachineId) -> usize {
        self.world().with(machine_id).count()
    }

    /// The size of the machine's disk.
    pub fn volume_gib(&self, machine_id: MachineId) -> Option<i32> {
        let world = self.world();
        let sim = world
            .alive()
            .find(|sim| sim.machine.machine_id == machine_id);
        sim.map(|sim| sim.volume_gib)
    }

    /// Whether the machine with this id runs now.
    pub fn runs(&self, machine_id: MachineId) -> bool {
        self.world().runs(machine_id)
    }

    /// Region and first boot's time of each machine that was ever made, in the order of launches.
    pub fn boots(&self) -> Vec<(Region, Duration)> {
        let world = self.world();
        let boots = world.machines.iter();
        boots
            .map(|sim| (sim.machine.region, sim.boots_for))
            .collect()
    }

    /// Launches that a region refused as one too many ([`Ec2Like::takes`]).
    pub fn refused_launches(&self) -> usize {
        self.world().refused_launches
    }

    /// How often a verb was called, successfully or not. Like EC2: each page of a list, and each
    /// call that looks for many machines, once.
    pub fn calls(&self, verb: Verb) -> usize {
        self.world().faults.calls(verb)
    }

    /// Every machine that costs money now, whatever `find` and `list` tell.
    pub fn alive(&self) -> Vec<Machine> {
        self.world()
            .alive()
            .map(|sim| sim.machine.clone())
            .collect()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        world::lock(&self.inner.world)
    }

    async fn call<T>(
        &self,
        verb: Verb,
        effect: impl FnOnce(&mut World) -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        call(&self.inner.config, &self.inner.world, verb, effect).await
    }

    fn boot_time(&self, world: &mut World) -> Duration {
        let config = &self.inner.config;
        let ec2 = config.ec2.as_ref();
        ec2.map_or(config.boots_after, |ec2| world.draw(&ec2.boots))
    }

    /// Finishes a launch or start in the background, as a real machine boots by itself.
    fn boot(&self, provider_ref: String, first: bool, takes: Duration) {
        let compute = self.clone();
        self.inner.runtime.spawn(async move {
            tokio::time::sleep(takes).await;
            let Some(boot) = compute.world().boot(&provider_ref, first) else {
                // Stopped or terminated meanwhile.
                return;
            };
            let host = compute
                .inner
                .host
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if let Some(host) = host {
                host.booted(boot).await;
            }
        });
    }

    // Boots and stops go on from inside the effect: they must also when the caller's patience
    // ends before the answer comes.
    async fn run(&self, spec: &LaunchSpec) -> Result<Machine, ProviderError> {
        let config = &self.inner.config;
        let address = format!("{}/m/{}", self.inner.address, spec.machine_id);
        self.call(Verb::Launch, |world| {
            if let Some(ec2) = &config.ec2 {
                let bucket = world.buckets.entry(spec.region);
                if !bucket
                    .or_insert_with(|| Bucket::full(ec2.takes))
                    .take(ec2.takes)
                {
                    world.refused_launches += 1;
                    return Err(ProviderError::Throttled(ec2.takes.interval));
                }
            } else if config.launch_looks_first
                && let Some(machine) = world.visible_with(spec.machine_id).next()
            {
                return Ok(machine);
            }
            let shows_after = match &config.ec2 {
                Some(ec2) => world.draw(&ec2.tag_lag),
                None => config.tag_lag,
            };
            let boots_for = self.boot_time(world);
            let now = config.clock.now();
            let machine = world.make(spec, address, now, shows_after, boots_for);
            self.boot(machine.provider_ref.clone(), true, boots_for);
            Ok(machine)
        })
        .await
    }

    fn finish_stop(&self, provider_ref: String) {
        let compute = self.clone();
        self.inner.runtime.spawn(async move {
            tokio::time::sleep(compute.inner.config.stops_after).await;
            compute.world().finish_stop(&provider_ref);
        });
    }
}

/// One call: latency, then the effect with whatever fault is due.
async fn call<T>(
    config: &SimConfig,
    world: &Mutex<World>,
    verb: Verb,
    effect: impl FnOnce(&mut World) -> Result<T, ProviderError>,
) -> Result<T, ProviderError> {
    let latency = match &config.ec2 {
        Some(ec2) => world::lock(world).draw(&ec2.latency),
        None => config.latency,
    };
    tokio::time::sleep(latency).await;
    let (outcome, hang) = {
        let mut world = world::lock(world);
        let rate = world.error_rate.unwrap_or(config.error_rate);
        match world.faults.due(verb, rate, config.ec2.is_none()) {
            None => (effect(&mut world), None),
            Some(Fault::Hang(time)) => (effect(&mut world), Some(time)),
            Some(fault) if fault.has_effect() => {
                // The caller learns nothing of how it went.
                (effect(&mut world).and(Err(fault.error(verb))), None)
            }
            Some(fault) => (Err(fault.error(verb)), None),
        }
    };
    if let Some(time) = hang {
        tokio::time::sleep(time).await;
    }
    outcome
}

/// Not by the compute itself: it would own itself.
fn looks(
    config: &Arc<SimConfig>,
    world: &Arc<Mutex<World>>,
    region: Region,
) -> Looks<Machine, ProviderError> {
    let (config, world) = (config.clone(), world.clone());
    Looks::new(move |ids: Vec<MachineId>| {
        let (config, world) = (config.clone(), world.clone());
        async move {
            let look = |world: &mut World| {
                let seen = ids.iter().flat_map(|id| world.visible_with(*id));
                let seen = seen.filter(|machine| machine.region == region);
                Ok(seen.map(|machine| (machine.machine_id, machine)).collect())
            };
            call(&config, &world, Verb::Find, look).await
        }
    })
}

impl From<NoAnswer> for ProviderError {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Ending => Self::Transient(why.to_string()),
            NoAnswer::Late => Self::Throttled(Duration::from_secs(2)),
        }
    }
}

#[async_trait]
impl Compute for SimCompute {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn regions(&self) -> Vec<Region> {
        Region::ALL.to_vec()
    }

    async fn find(&self, region: Region, id: MachineId) -> Result<Option<Machine>, ProviderError> {
        if let Some(regional) = self.inner.regions.get(&region) {
            let found = regional.looks.find(id).await?;
            return Ok(Machine::first_of(&found).cloned());
        }
        self.call(Verb::Find, |world| {
            let seen: Vec<Machine> = world
                .visible_with(id)
                .filter(|machine| machine.region == region)
                .collect();
            Ok(Machine::first_of(&seen).cloned())
        })
        .await
    }

    async fn describe(&self, machine: MachineRef<'_>) -> Result<Option<Machine>, ProviderError> {
        if let Some(regional) = self.inner.regions.get(&machine.region) {
            let found = regional.looks.find(machine.id).await?;
            return Ok(found.into_iter().find(|found| found.at() == machine));
        }
        self.call(Verb::Find, |world| {
            let mut seen = world.visible_with(machine.id);
            Ok(seen.find(|found| found.at() == machine))
        })
        .await
    }

    async fn list(&self, region: Region) -> Result<Vec<Machine>, ProviderError> {
        let pages = self.inner.config.ec2.is_some();
        self.call(Verb::List, |world| {
            let seen = world.visible();
            let seen: Vec<_> = seen.filter(|machine| machine.region == region).collect();
            if pages {
                let more = seen.len().div_ceil(PAGE).saturating_sub(1);
                world.faults.count_pages(Verb::List, more);
            }
            Ok(seen)
        })
        .await
    }

    fn turn(&self, region: Region, id: MachineId) -> Result<(), ProviderError> {
        let regional = self.inner.regions.get(&region);
        let turn = regional.map(|regional| regional.pace.turn(id));
        turn.unwrap_or(Ok(())).map_err(ProviderError::Throttled)
    }

    async fn launch(&self, spec: &LaunchSpec) -> Result<Machine, ProviderError> {
        let Some(regional) = self.inner.regions.get(&spec.region) else {
            return self.run(spec).await;
        };
        // As `Ec2Compute` does.
        if let Some(machine) = self.find(spec.region, spec.machine_id).await? {
            return Ok(machine);
        }
        let pace = &regional.pace;
        pace.take(spec.machine_id)
            .map_err(ProviderError::Throttled)?;
        match self.run(spec).await {
            Err(ProviderError::Throttled(_)) => Err(ProviderError::Throttled(pace.slow_down())),
            Err(error) => Err(error),
            Ok(machine) => {
                pace.speed_up();
                Ok(machine)
            }
        }
    }

    async fn start(&self, machine: MachineRef<'_>) -> Result<(), ProviderError> {
        self.call(Verb::Start, |world| {
            let takes = self.boot_time(world);
            let machine = &mut world.get_mut(machine.id, machine.provider_ref)?.machine;
            match machine.power {
                Power::Pending | Power::Running => Ok(()),
                Power::Stopped => {
                    machine.power = Power::Pending;
                    // As EC2's `LaunchTime`.
                    machine.launched_at = self.inner.config.clock.now();
                    let provider_ref = machine.provider_ref.clone();
                    world.ailing.remove(&provider_ref);
                    self.boot(provider_ref, false, takes);
                    Ok(())
                }
                // EC2: IncorrectInstanceState.
                Power::Stopping => {
                    let text = "the machine is stopping".to_owned();
                    Err(ProviderError::Transient(text))
                }
                Power::Terminating | Power::Terminated => Err(ProviderError::NotFound),
            }
        })
        .await
    }

    async fn stop(&self, machine: MachineRef<'_>) -> Result<(), ProviderError> {
        self.call(Verb::Stop, |world| {
            let machine = &mut world.get_mut(machine.id, machine.provider_ref)?.machine;
            if matches!(machine.power, Power::Pending | Power::Running) {
                machine.power = Power::Stopping;
                let provider_ref = machine.provider_ref.clone();
                if self.inner.config.stops_after.is_zero() {
                    world.finish_stop(&provider_ref);
                } else {
                    self.finish_stop(provider_ref);
                }
            }
            Ok(())
        })
        .await
    }

    async fn terminate(&self, machine: MachineRef<'_>) -> Result<(), ProviderError> {
        self.call(Verb::Terminate, |world| {
            if let Ok(sim) = world.get_mut(machine.id, machine.provider_ref) {
                sim.machine.power = Power::Terminated;
            }
            Ok(())
        })
        .await
    }

    async fn resize(
        &self,
        machine: MachineRef<'_>,
        instance_type: InstanceType,
    ) -> Result<(), ProviderError> {
        self.call(Verb::Resize, |world| {
            let machine = &mut world.get_mut(machine.id, machine.provider_ref)?.machine;
            match machine.power {
                _ if machine.instance_type == instance_type => Ok(()),
                Power::Stopped => {
                    machine.instance_type = instance_type;
                    Ok(())
                }
                // EC2: IncorrectInstanceState.
                Power::Stopping | Power::Pending | Power::Running => {
                    let text = "the machine is not stopped".to_owned();
                    Err(ProviderError::Transient(text))
                }
                Power::Terminating | Power::Terminated => Err(ProviderError::NotFound),
            }
        })
        .await
    }

    async fn grow_volume(&self, machine: MachineRef<'_>, gib: i32) -> Result<(), ProviderError> {
        self.call(Verb::GrowVolume, |world| {
            let sim = world.get_mut(machine.id, machine.provider_ref)?;
            sim.volume_gib = sim.volume_gib.max(gib);
            Ok(())
        })
        .await
    }

    async fn ailing(&self, _region: Region) -> Result<Vec<Ailing>, ProviderError> {
        self.call(Verb::Ailing, |world| {
            let ailing = world.ailing.iter().map(|(provider_ref, ailment)| Ailing {
                provider_ref: provider_ref.clone(),
                ailment: *ailment,
            });
            Ok(ailing.collect())
        })
        .await
    }

    async fn leftovers(&self, region: Region) -> Result<Vec<Leftover>, ProviderError> {
        self.call(Verb::Leftovers, |world| {
            let all = world.leftovers.iter();
            let here = all.filter(|(its_region, _)| *its_region == region);
            Ok(here.map(|(_, leftover)| leftover.clone()).collect())
        })
        .await
    }

    async fn delete_leftover(
        &self,
        _region: Region,
        leftover: &Leftover,
    ) -> Result<(), ProviderError> {
        self.call(Verb::DeleteLeftover, |world| {
            world.leftovers.retain(|(_, other)| other != leftover);
            Ok(())
        })
        .await
    }

    fn access_host(&self, machine: &Machine, _app_key: &str, _region: Region) -> Option<String> {
        let address = machine.address.as_ref()?;
        Some(format!("http://{address}"))
    }
}
