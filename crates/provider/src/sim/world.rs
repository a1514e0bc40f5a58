//! The machines there are, and how their power changes.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use cp_model::{MachineId, ProjectId, Region};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use secrecy::SecretString;
use tokio::time::Instant;

use super::{SimBoot, cloud::Bucket, fault::Faults};
use crate::{Ailment, LaunchSpec, Leftover, Machine, Power, ProviderError};

pub(super) struct World {
    /// In the order of their making, terminated ones too.
    pub machines: Vec<SimMachine>,
    /// Where in `machines` those of an id are.
    by_id: HashMap<MachineId, Vec<usize>>,
    pub serving: HashMap<MachineId, (ProjectId, SecretString)>,
    pub faults: Faults,
    /// Nothing is shown, as to somebody else's credentials.
    pub hidden: bool,
    /// By the provider's names; a start mends it.
    pub ailing: HashMap<String, Ailment>,
    pub leftovers: Vec<(Region, Leftover)>,
    /// Overrides the configured one.
    pub error_rate: Option<f64>,
    /// What is left of each region's ration of launches.
    pub buckets: HashMap<Region, Bucket>,
    pub refused_launches: usize,
    draws: StdRng,
}

pub(super) struct SimMachine {
    pub machine: Machine,
    bootstrap_token: SecretString,
    control_url: String,
    /// Not in any list before.
    shows_at: Instant,
    /// Of the first boot.
    pub boots_for: Duration,
    pub volume_gib: i32,
}

/// A panicking test must not hide behind a poisoned lock.
pub(super) fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            machines: Vec::new(),
            by_id: HashMap::new(),
            serving: HashMap::new(),
            faults: Faults::new(seed),
            hidden: false,
            ailing: HashMap::new(),
            leftovers: Vec::new(),
            error_rate: None,
            buckets: HashMap::new(),
            refused_launches: 0,
            draws: StdRng::seed_from_u64(seed ^ 1),
        }
    }

    pub(super) fn draw(&mut self, times: &RangeInclusive<Duration>) -> Duration {
        self.draws.random_range(times.clone())
    }

    pub(super) fn make(
        &mut self,
        spec: &LaunchSpec,
        address: String,
        now: DateTime<Utc>,
        shows_after: Duration,
        boots_for: Duration,
    ) -> Machine {
        let machine = Machine {
            machine_id: spec.machine_id,
            provider_ref: format!("sim-{}", self.machines.len() + 1),
            power: Power::Pending,
            address: Some(address),
            database_address: None,
            launched_at: now,
            region: spec.region,
            instance_type: spec.instance_type,
        };
        let place = self.machines.len();
        self.by_id.entry(spec.machine_id).or_default().push(place);
        self.machines.push(SimMachine {
            machine: machine.clone(),
            bootstrap_token: spec.bootstrap_token.clone(),
            control_url: spec.control_url.clone(),
            shows_at: Instant::now() + shows_after,
            boots_for,
            volume_gib: spec.volume_gib,
        });
        machine
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = &SimMachine> {
        self.machines
            .iter()
            .filter(|sim| sim.machine.power != Power::Terminated)
    }

    /// What a list shows.
    pub(super) fn visible(&self) -> impl Iterator<Item = Machine> {
        let now = Instant::now();
        self.alive()
            .filter(move |sim| !self.hidden && sim.shows_at <= now)
            .map(|sim| sim.machine.clone())
    }

    /// What a look by tag shows.
    pub(super) fn visible_with(&self, id: MachineId) -> impl Iterator<Item = Machine> {
        let now = Instant::now();
        self.with(id)
            .filter(move |sim| {
                let alive = sim.machine.power != Power::Terminated;
                alive && !self.hidden && sim.shows_at <= now
            })
            .map(|sim| sim.machine.clone())
    }

    /// Terminated ones too.
    pub(super) fn with(&self, id: MachineId) -> impl Iterator<Item = &SimMachine> {
        let places = self.by_id.get(&id).into_iter().flatten();
        places.map(|place| &self.machines[*place])
    }

    /// By the provider's name for it; an empty one means whichever has the tag.
    pub(super) fn get_mut(
        &mut self,
        id: MachineId,
        provider_ref: &str,
    ) -> Result<&mut SimMachine, ProviderError> {
        self.machines
            .iter_mut()
            .filter(|sim| sim.machine.power != Power::Terminated)
            .find(|sim| {
                sim.machine.machine_id == id
                    && (provider_ref.is_empty() || sim.machine.provider_ref == provider_ref)
            })
            .ok_or(ProviderError::NotFound)
    }

    /// From pending to running; none when something else happened to it meanwhile.
    pub(super) fn boot(&mut self, provider_ref: &str, first: bool) -> Option<SimBoot> {
        let sim = self
            .machines
            .iter_mut()
            .find(|sim| sim.machine.provider_ref == provider_ref)?;
        if sim.machine.power != Power::Pending {
            return None;
        }
        sim.machine.power = Power::Running;
        Some(SimBoot {
            machine_id: sim.machine.machine_id,
            provider_ref: sim.machine.provider_ref.clone(),
            bootstrap_token: sim.bootstrap_token.clone(),
            control_url: sim.control_url.clone(),
            first,
        })
    }

    pub(super) fn finish_stop(&mut self, provider_ref: &str) {
        let sim = self
            .machines
            .iter_mut()
            .find(|sim| sim.machine.provider_ref == provider_ref);
        if let Some(sim) = sim.filter(|sim| sim.machine.power == Power::Stopping) {
            sim.machine.power = Power::Stopped;
        }
    }

    pub(super) fn set_power_of_all(&mut self, id: MachineId, power: Power) {
        for sim in &mut self.machines {
            if sim.machine.machine_id == id && sim.machine.power != Power::Terminated {
                sim.machine.power = power;
            }
        }
    }

    /// Who is served on a machine that runs.
    pub(super) fn served_by(&self, id: MachineId) -> Option<&(ProjectId, SecretString)> {
        self.runs(id).then(|| self.serving.get(&id)).flatten()
    }

    pub(super) fn runs(&self, id: MachineId) -> bool {
        self.with(id).any(|sim| sim.machine.power == Power::Running)
    }
}
