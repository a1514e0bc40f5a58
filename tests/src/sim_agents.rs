//! Agents for `sim` machines: they register, follow `desired` and report, as the real agent does,
//! and let the sim's listener serve what they were told.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use cp_domain::{ControlPlane, DomainError};
use cp_model::agent_protocol::{DesiredState, ObservedState, RegisterRequest, ReportRequest};
use cp_model::{InstanceType, MachineId};
use cp_provider::sim::{SimBoot, SimCompute, SimHost};
use cp_tokens::secret::{OpaqueSecret, SecretKind};
use secrecy::ExposeSecret;
use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Disks = HashMap<MachineId, Disk>;

/// What a machine keeps over its boots.
#[derive(Clone)]
struct Disk {
    agent_token: String,
    boots: u64,
    /// The release that served last.
    release: String,
}

/// What a backend runs whose project is pinned to no release.
const NEWEST: &str = "v2.3.0";

fn lock(disks: &Mutex<Disks>) -> MutexGuard<'_, Disks> {
    disks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How agents pass their time.
#[derive(Clone)]
pub struct AgentPace {
    /// How long each waits for a change of what is desired; and so how late it sees, at most, that
    /// its machine has stopped.
    pub poll: Duration,
    /// From learning whose backend it runs to serving, drawn evenly by the machine's id.
    pub backend_starts_in: RangeInclusive<Duration>,
}

impl Default for AgentPace {
    /// A test's: nobody waits.
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(2),
            backend_starts_in: Duration::ZERO..=Duration::ZERO,
        }
    }
}

impl AgentPace {
    fn backend_start(&self, machine: MachineId) -> Duration {
        let (from, to) = (self.backend_starts_in.start(), self.backend_starts_in.end());
        // The last bytes of a version 7 UUID are random.
        let share = f64::from(u16::try_from(machine.0.as_u128() % 1000).unwrap_or(0)) / 1000.0;
        *from + to.saturating_sub(*from).mul_f64(share)
    }
}

/// All agents of one world. They talk to the domain directly: the HTTP half of the protocol is
/// tested with the real agent.
pub struct SimAgents {
    control_plane: ControlPlane,
    sim: SimCompute,
    pace: AgentPace,
    disks: Mutex<Disks>,
    /// These do not become healthy.
    sick_releases: Mutex<HashSet<String>>,
    /// Machines of these types do not come up.
    dead_types: Mutex<HashSet<InstanceType>>,
}

impl SimAgents {
    pub fn install(control_plane: ControlPlane, sim: &SimCompute, pace: AgentPace) -> Arc<Self> {
        let this = Arc::new(Self {
            control_plane,
            sim: sim.clone(),
            pace,
            disks: Mutex::default(),
            sick_releases: Mutex::default(),
            dead_types: Mutex::default(),
        });
        sim.set_host(this.clone());
        this
    }

    /// From now on this release does not become healthy, and agents roll back.
    pub fn sicken(&self, release: &str) {
        let mut sick = self.sick_releases.lock();
        let sick = sick.as_mut().expect("nobody panics with it");
        sick.insert(release.to_owned());
    }

    /// From now on machines of this type run, but nothing comes up on them.
    pub fn keep_down(&self, kind: InstanceType) {
        let mut dead = self.dead_types.lock();
        dead.as_mut().expect("nobody panics with it").insert(kind);
    }

    /// They do again, from their next boot on.
    pub fn let_up(&self, kind: InstanceType) {
        let mut dead = self.dead_types.lock();
        dead.as_mut().expect("nobody panics with it").remove(&kind);
    }

    fn comes_up(&self, machine: MachineId) -> bool {
        let dead = self.dead_types.lock().expect("nobody panics with it");
        let mut alive = self.sim.alive().into_iter();
        alive.any(|m| m.machine_id == machine && !dead.contains(&m.instance_type))
    }

    fn boot_number(&self, machine: MachineId) -> u64 {
        lock(&self.disks).get(&machine).map_or(0, |disk| disk.boots)
    }

    fn is_running(&self, machine: MachineId, boot: u64) -> bool {
        self.sim.runs(machine) && self.boot_number(machine) == boot
    }

    async fn live(&self, boot: SimBoot) {
        let machine = boot.machine_id;
        let (token, number) = {
            let mut disks = lock(&self.disks);
            let disk = disks.entry(machine).or_insert_with(|| Disk {
                agent_token: OpaqueSecret::generate(SecretKind::AgentToken)
                    .expose()
                    .to_owned(),
                boots: 0,
                release: NEWEST.into(),
            });
            disk.boots += 1;
            (disk.agent_token.clone(), disk.boots)
        };
        if !self.comes_up(machine) {
            return;
        }
        let register = RegisterRequest {
            machine_id: machine,
            bootstrap_token: boot.bootstrap_token.expose_secret().to_owned(),
            agent_token: token.clone(),
            agent_version: "sim".into(),
        };
        // A machine that boots again has its token already.
        while boot.first && self.is_running(machine, number) {
            match self.control_plane.register_agent(&register).await {
                Ok(_) => break,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        let mut known = 0;
        let mut report: Option<ReportRequest> = None;
        let mut reported_at = self.control_plane.clock().now();
        while self.is_running(machine, number) {
            // The first look must not wait; a report is due every 20 seconds.
            let wait = report.as_ref().map_or(Duration::ZERO, |_| self.pace.poll);
            let id = match self.control_plane.authenticate_agent(Some(&token)).await {
                Ok(id) => id,
                Err(DomainError::Unauthorized) => return,
                // The database is busy or away; the real agent tries again, too.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            match self.control_plane.desired_state(id, known, wait).await {
                // Stopped while it waited.
                Ok(_) if !self.is_running(machine, number) => return,
                Ok(Some(desired)) => {
                    known = desired.generation;
                    if desired.backend.is_some() {
                        tokio::time::sleep(self.pace.backend_start(machine)).await;
                    }
                    report = Some(self.obey(machine, &desired));
                }
                Ok(None)
                    if self.control_plane.clock().now() - reported_at < TimeDelta::seconds(20) =>
                {
                    continue;
                }
                Ok(None) => {}
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            }
            while let Some(report) = &report
                && self.is_running(machine, number)
            {
                if self
                    .control_plane
                    .record_report(machine, report)
                    .await
                    .is_ok()
                {
                    reported_at = self.control_plane.clock().now();
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Makes the machine what it shall be; what there is to report of it.
    fn obey(&self, machine: MachineId, desired: &DesiredState) -> ReportRequest {
        let mut rolled_back_from = None;
        let mut serving = None;
        let (state, restarts) = if let Some(backend) = &desired.backend
            && backend.database_only
        {
            self.sim.serve_nothing(machine);
            (ObservedState::DatabaseOnly, backend.restarts)
        } else if let Some(backend) = &desired.backend {
            let key = backend.env["ACCESS_API_KEY"].clone();
            self.sim.serve(machine, backend.project_id, key);
            let wanted = backend.release.as_deref().unwrap_or(NEWEST);
            let sick = self.sick_releases.lock().expect("nobody panics with it");
            let mut disks = lock(&self.disks);
            let disk = disks.get_mut(&machine).expect("it booted");
            let state = if sick.contains(wanted) {
                rolled_back_from = Some(wanted.to_owned());
                ObservedState::Failing
            } else {
                wanted.clone_into(&mut disk.release);
                ObservedState::Serving
            };
            serving = Some(disk.release.clone());
            (state, backend.restarts)
        } else {
            self.sim.serve_nothing(machine);
            (ObservedState::Idle, 0)
        };
        ReportRequest {
            generation: desired.generation,
            state,
            restarts,
            backend_version: Some("2.3.1-sim".into()),
            backend_release: serving,
            rolled_back_from,
            message: None,
            agent_version: "sim".into(),
            sample: None,
        }
    }
}

#[async_trait]
impl SimHost for SimAgents {
    async fn booted(&self, boot: SimBoot) {
        self.live(boot).await;
    }
}
