//! Machines: what the worker writes down before and after it asks a provider, and what the
//! reconcilers keep right. Writes for a project's operation are made under its lease.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::catalogue::DEFAULT_VOLUME_GIB;
use cp_model::{
    InstanceType, Machine, MachineId, MachineSize, MachineState, Project, ProjectId, Region,
};
use cp_storage::machines::{NewMachine, PoolLevel};
use cp_storage::{PgConnection, machine_runs, machines, projects};
use cp_tokens::secret::{OpaqueSecret, SecretKind};
use secrecy::SecretString;
use serde_json::json;

use crate::operations::{Lease, commit, held, lock};
use crate::{ControlPlane, DomainError, DomainResult, Thing};

/// From the provider's taking a launch to the last moment at which its agent may register.
const BOOTSTRAP_LIFETIME: TimeDelta = TimeDelta::minutes(30);

fn time_delta(time: Duration) -> TimeDelta {
    // Longer than chrono can say is longer than anybody waits.
    TimeDelta::from_std(time).unwrap_or(TimeDelta::days(1))
}

/// A warm machine whose agent was silent for this long (it reports every 20 s) is not trusted.
pub const SILENCE: TimeDelta = TimeDelta::seconds(75);

fn context(machine: MachineId) -> String {
    format!("machine:{machine}:bootstrap")
}

/// What a provider told about a machine that we launched.
#[derive(Debug, Clone)]
pub struct Launched {
    pub provider_ref: String,
    pub address: Option<String>,
}

/// The right to launch a machine now; whoever lets it go may only let go of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchAttempt {
    machine: MachineId,
    begun_at: DateTime<Utc>,
}

impl ControlPlane {
    /// Gives the project a machine: the one it has, else a warm one, else the intent to launch a
    /// new one. A lost one is let go first.
    pub async fn allocate_machine(
        &self,
        lease: &Lease,
        provider: &str,
        project: &Project,
    ) -> DomainResult<Machine> {
        let mut tx = self.begin_under(lease).await?;
        if let Some(machine) = machines::find_project_machine(&mut tx, project.id).await? {
            // One whose bootstrap token ran out will never register, and so holds no data.
            let hopeless = machine.registered_at.is_none()
                && machine
                    .bootstrap_expires_at
                    .is_some_and(|at| at <= self.now());
            let usable = matches!(
                machine.state,
                MachineState::Launching | MachineState::Booting | MachineState::Ready
            );
            if usable && !hopeless {
                return Ok(machine);
            }
            machine_runs::close_run(&mut tx, machine.id, self.now()).await?;
            machines::release_from_project(&mut tx, machine.id).await?;
            machines::mark_state(&mut tx, machine.id, MachineState::Terminating, self.now())
                .await?;
        }
        let (region, size) = (project.region, project.size());
        // The pool's machines have the usual disk.
        if size.volume_gib == DEFAULT_VOLUME_GIB
            && let Some(warm) = machines::claim_warm(
                &mut tx,
                provider,
                region,
                size.instance_type,
                project.id,
                self.now() - SILENCE,
            )
            .await?
        {
            commit(tx).await?;
            return Ok(warm);
        }
        let id = self
            .intend_machine(&mut tx, provider, region, size, Some(project.id))
            .await?;
        let machine = machines::find_machine(&mut tx, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::Machine))?;
        commit(tx).await?;
        Ok(machine)
    }

    /// Writes down that we mean to launch a machine, with the token that it will register with.
    async fn intend_machine(
        &self,
        conn: &mut PgConnection,
        provider: &str,
        region: Region,
        size: MachineSize,
        project_id: Option<ProjectId>,
    ) -> DomainResult<MachineId> {
        let id = MachineId::generate();
        let token = OpaqueSecret::generate(SecretKind::BootstrapToken);
        let new = NewMachine {
            id,
            provider,
            region,
            instance_type: size.instance_type,
            volume_gib: size.volume_gib,
            project_id,
            bootstrap_hash: &token.hash().0,
            bootstrap_sealed: &self.sealer().seal(token.expose().as_bytes(), &context(id)),
            now: self.now(),
        };
        machines::insert_machine(conn, &new).await?;
        Ok(id)
    }

    /// The token that the machine's user-data carries: the same for every attempt to launch it.
    /// None: it has registered.
    pub async fn bootstrap_token(&self, machine: MachineId) -> DomainResult<Option<SecretString>> {
        let mut conn = self.db().acquire().await?;
        let sealed = machines::find_bootstrap(&mut conn, machine).await?;
        sealed
            .map(|sealed| {
                self.sealer()
                    .open_text(&sealed, &context(machine))
                    .map_err(|e| {
                        DomainError::internal(format!("bootstrap token of {machine}: {e}"))
                    })
            })
            .transpose()
    }

    /// Asks to launch a machine now. None: an attempt within `visibility` may have made one that
    /// the provider does not show yet (or the launch is recorded); look for it instead.
    pub async fn begin_launch(
        &self,
        machine: MachineId,
        visibility: Duration,
    ) -> DomainResult<Option<LaunchAttempt>> {
        let now = self.now();
        let mut conn = self.db().acquire().await?;
        let earlier = now - time_delta(visibility);
        let begun_at = machines::begin_launch(&mut conn, machine, earlier, now).await?;
        Ok(begun_at.map(|begun_at| LaunchAttempt { machine, begun_at }))
    }

    /// That attempt surely made no machine. Whoever has begun one since keeps it.
    pub async fn forget_launch(&self, attempt: LaunchAttempt) -> DomainResult<()> {
        let mut conn = self.db().acquire().await?;
        Ok(machines::clear_launch(&mut conn, attempt.machine, attempt.begun_at).await?)
    }

    /// Whether the provider may yet show a machine of an attempt to launch within `visibility`.
    pub async fn launch_may_surface(
        &self,
        machine: MachineId,
        visibility: Duration,
    ) -> DomainResult<bool> {
        let mut conn = self.db().acquire().await?;
        let attempted = machines::find_launch_attempt(&mut conn, machine).await?;
        Ok(attempted.is_some_and(|at| at > self.now() - time_delta(visibility)))
    }

    /// Records the provider's answer to a launch for a project.
    pub async fn record_launch(
        &self,
        lease: &Lease,
        machine: MachineId,
        launched: &Launched,
    ) -> DomainResult<()> {
        let mut tx = self.begin_under(lease).await?;
        let expires = self.now() + BOOTSTRAP_LIFETIME;
        held(
            machines::mark_launched(
                &mut tx,
                machine,
                &launched.provider_ref,
                launched.address.as_deref(),
                expires,
            )
            .await?,
        )?;
        commit(tx).await
    }

    /// Tells the machine whose it is: from now on its agent is given the project's backend to run,
    /// and its time is the project's.
    pub async fn assign_machine(
        &self,
        lease: &Lease,
        machine: MachineId,
        access_host: &str,
    ) -> DomainResult<()> {
        let mut tx = self.begin_under(lease).await?;
        let project = lock(&mut tx, lease.project).await?;
        let moved = project.access_host.as_deref() != Some(access_host);
        if moved {
            projects::set_access_host(&mut tx, project.id, access_host).await?;
        }
        let opened = machine_runs::open_run(&mut tx, machine, project.id, self.now()).await?;
        // A rebuilt project may keep its address; its new machine must hear of it all the same.
        if moved || opened {
            machines::bump_desired(&mut tx, machine).await?;
        }
        commit(tx).await
    }

    /// Host and port of the machine's Postgres.
    pub async fn note_database_address(
        &self,
        lease: &Lease,
        machine: MachineId,
        address: &str,
    ) -> DomainResult<()> {
        let mut tx = self.begin_under(lease).await?;
        machines::set_database_address(&mut tx, machine, address).await?;
        commit(tx).await
    }

    /// The machine runs again for its project. What its agent said before is forgotten.
    pub async fn record_started(&self, lease: &Lease, machine: MachineId) -> DomainResult<()> {
        let now = self.now();
        let mut tx = self.begin_under(lease).await?;
        machines::mark_state(&mut tx, machine, MachineState::Ready, now).await?;
        machine_runs::open_run(&mut tx, machine, lease.project, now).await?;
        commit(tx).await
    }

    /// A machine that had stopped behind our back was started again. Its project does not pay for the
    /// time between: from when its agent was heard last.
    pub async fn record_started_again(&self, machine: &Machine) -> DomainResult<()> {
        let now = self.now();
        let mut tx = self.db().begin().await?;
        // An operation that came in between may have closed the run; then it is none of ours to open.
        let silent_since = machine.last_seen_at.unwrap_or(now);
        if machine_runs::close_run(&mut tx, machine.id, silent_since).await?
            && let Some(project) = machine.project_id
        {
            machine_runs::open_run(&mut tx, machine.id, project, now).await?;
        }
        self.audit_machine_on(&mut tx, machine.id, "machine.started_again")
            .await?;
        commit(tx).await
    }

    /// The provider confirmed that the machine has stopped.
    pub async fn record_stopped(&self, lease: &Lease, machine: MachineId) -> DomainResult<()> {
        let now = self.now();
        let mut tx = self.begin_under(lease).await?;
        machines::mark_state(&mut tx, machine, MachineState::Stopped, now).await?;
        machine_runs::close_run(&mut tx, machine, now).await?;
        commit(tx).await
    }

    /// We mean to end the machine of a project that is being deleted.
    pub async fn record_terminating(&self, lease: &Lease, machine: MachineId) -> DomainResult<()> {
        let now = self.now();
        let mut tx = self.begin_under(lease).await?;
        machines::mark_state(&mut tx, machine, MachineState::Terminating, now).await?;
        commit(tx).await
    }

    /// The provider confirmed that the machine is gone.
    pub async fn record_terminated(&self, lease: &Lease, machine: MachineId) -> DomainResult<()> {
        let now = self.now();
        let mut tx = self.begin_under(lease).await?;
        machine_runs::close_run(&mut tx, machine, now).await?;
        machines::mark_state(&mut tx, machine, MachineState::Terminated, now).await?;
        commit(tx).await
    }

    /// The project's machine is gone although nobody asked for that.
    pub async fn record_lost(&self, lease: &Lease, machine: &Machine) -> DomainResult<()> {
        let now = self.now();
        let mut tx = self.begin_under(lease).await?;
        machines::mark_state(&mut tx, machine.id, MachineState::Lost, now).await?;
        machine_runs::close_run(&mut tx, machine.id, machine.last_seen_at.unwrap_or(now)).await?;
        commit(tx).await
    }

    /// Asks the agent for one restart; `wanted` is the count of restarts after it.
    pub async fn request_restart(
        &self,
        lease: &Lease,
        machine: MachineId,
        wanted: i64,
    ) -> DomainResult<()> {
        let mut tx = self.begin_under(lease).await?;
        machines::request_restart(&mut tx, machine, wanted).await?;
        commit(tx).await
    }

    /// The provider gave the project's machine this size.
    pub async fn record_size(
        &self,
        lease: &Lease,
        machine: MachineId,
        size: MachineSize,
    ) -> DomainResult<()> {
        let mut tx = self.begin_under(lease).await?;
        held(machines::set_size(&mut tx, machine, size).await?)?;
        held(projects::set_size(&mut tx, lease.project, size).await?)?;
        commit(tx).await
    }

    /// The agent gave up the release that was desired: the one that serves instead is desired from
    /// now on.
    pub async fn settle_for_release(
        &self,
        lease: &Lease,
        machine: MachineId,
        serving: &str,
    ) -> DomainResult<()> {
        let mut tx = self.begin_under(lease).await?;
        projects::set_release(&mut tx, lease.project, serving).await?;
        held(machines::bump_desired(&mut tx, machine).await?)?;
        commit(tx).await
    }

    pub async fn list_living_machines(
        &self,
        provider: &str,
        region: Region,
    ) -> DomainResult<Vec<Machine>> {
        let mut conn = self.db().acquire().await?;
        Ok(machines::list_living(&mut conn, provider, region).await?)
    }

    pub async fn find_project_machine(&self, project: ProjectId) -> DomainResult<Option<Machine>> {
        let mut conn = self.db().acquire().await?;
        Ok(machines::find_project_machine(&mut conn, project).await?)
    }

    pub async fn find_machine(&self, id: MachineId) -> DomainResult<Option<Machine>> {
        let mut conn = self.db().acquire().await?;
        Ok(machines::find_machine(&mut conn, id).await?)
    }

    /// The machine as it is now, for the reconciler to look after. None: its project has an
    /// operation in flight, whose steps look after it themselves.
    pub async fn find_unattended_machine(&self, id: MachineId) -> DomainResult<Option<Machine>> {
        let mut conn = self.db().acquire().await?;
        let Some(machine) = machines::find_machine(&mut conn, id).await? else {
            return Ok(None);
        };
        if let Some(project) = machine.project_id {
            let in_flight = cp_storage::operations::find_in_flight(&mut conn, project).await?;
            return Ok(in_flight.is_none().then_some(machine));
        }
        Ok(Some(machine))
    }

    /// Remembers since when the provider does not know a machine (true), or that it does (false).
    pub async fn note_missing(&self, machine: MachineId, missing: bool) -> DomainResult<()> {
        let mut conn = self.db().acquire().await?;
        Ok(machines::set_missing_since(&mut conn, machine, missing.then(|| self.now())).await?)
    }

    /// For the reconciler: moves a machine on if it still is as it was seen. Between the look and
    /// this a project may have claimed it.
    pub async fn mark_machine(&self, seen: &Machine, to: MachineState) -> DomainResult<bool> {
        let mut tx = self.db().begin().await?;
        let moved = machines::mark_state_if_as_seen(
            &mut tx,
            seen.id,
            seen.state,
            seen.project_id,
            to,
            self.now(),
        )
        .await?;
        if moved {
            let action = format!("machine.{to}");
            let target = seen.id.to_string();
            self.audit_service(
                &mut tx,
                "system",
                &action,
                ("machine", &target),
                None,
                json!({}),
            )
            .await?;
        }
        commit(tx).await?;
        Ok(moved)
    }

    /// The reconciler mended something about a machine.
    pub async fn audit_machine(&self, machine: MachineId, action: &str) -> DomainResult<()> {
        let mut conn = self.db().acquire().await?;
        self.audit_machine_on(&mut conn, machine, action).await
    }

    async fn audit_machine_on(
        &self,
        conn: &mut PgConnection,
        machine: MachineId,
        action: &str,
    ) -> DomainResult<()> {
        let target = machine.to_string();
        Ok(self
            .audit_service(
                conn,
                "system",
                action,
                ("machine", &target),
                None,
                json!({}),
            )
            .await?)
    }

    pub async fn pool_levels(&self, provider: &str) -> DomainResult<Vec<PoolLevel>> {
        let mut conn = self.db().acquire().await?;
        Ok(machines::pool_levels(&mut conn, provider).await?)
    }

    /// Projects made of this region and type within `window`, per minute: the pool's demand.
    pub async fn demand_per_minute(
        &self,
        region: Region,
        instance_type: InstanceType,
        window: TimeDelta,
    ) -> DomainResult<f64> {
        let mut conn = self.db().acquire().await?;
        let count =
            machines::count_demand(&mut conn, region, instance_type, self.now() - window).await?;
        #[allow(clippy::cast_precision_loss)] // far below 2^52 projects in an hour
        Ok(count as f64 / (window.num_seconds().max(1) as f64 / 60.0))
    }

    /// Writes down the intent to launch machines for the pool, up to `wanted` ready or coming;
    /// takes those beyond `kept` out, which is no less. One process at a time. Gives those to
    /// launch and those to end.
    pub async fn plan_pool(
        &self,
        provider: &str,
        region: Region,
        instance_type: InstanceType,
        wanted: u32,
        kept: u32,
    ) -> DomainResult<PoolPlan> {
        let mut tx = self.db().begin().await?;
        let mut plan = PoolPlan::default();
        if !machines::try_lock_pool(&mut tx).await? {
            return Ok(plan);
        }
        let level = machines::pool_levels(&mut tx, provider)
            .await?
            .into_iter()
            .find(|l| l.region == region && l.instance_type == instance_type);
        let (ready, coming) = level.map_or((0, 0), |l| (l.ready, l.coming));
        let size = MachineSize {
            instance_type,
            volume_gib: DEFAULT_VOLUME_GIB,
        };
        let (wanted, kept) = (i64::from(wanted), i64::from(kept));
        for _ in (ready + coming)..wanted {
            let id = self
                .intend_machine(&mut tx, provider, region, size, None)
                .await?;
            plan.launch.push(id);
        }
        if ready + coming > kept {
            let surplus = (ready + coming - kept).min(ready);
            plan.retire =
                machines::retire_warm(&mut tx, provider, region, instance_type, surplus).await?;
        }
        commit(tx).await?;
        Ok(plan)
    }

    /// Records the provider's answer to a launch for the pool. False: the machine is not wanted
    /// any more.
    pub async fn record_pool_launch(
        &self,
        machine: MachineId,
        launched: &Launched,
    ) -> DomainResult<bool> {
        let mut conn = self.db().acquire().await?;
        let expires = self.now() + BOOTSTRAP_LIFETIME;
        let (reference, address) = (&launched.provider_ref, launched.address.as_deref());
        Ok(machines::mark_launched(&mut conn, machine, reference, address, expires).await?)
    }
}

/// What the pool wants done.
#[derive(Debug, Default)]
pub struct PoolPlan {
    pub launch: Vec<MachineId>,
    pub retire: Vec<MachineId>,
}
