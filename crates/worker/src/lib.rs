//! Long work: the operations engine, the steps of each kind of operation, and the reconcilers that
//! keep machines as the database says. Any number of workers may run against one database; a
//! worker may die at any moment, and another one goes on where it stopped.
//!
//! The story of a project is told by `provision_project`, `pause_project`, `restore_project`,
//! `restart_project` and `delete_project`; that of a branch by `create_branch`, `merge_branch` and
//! `rebase_branch`; that of a backup by `back_up_project`; a reset and a restore by
//! `replace_database`: one file each, from top to bottom.

mod ai_keys;
mod await_backend;
mod back_up_project;
mod billing;
mod copies;
mod crash;
mod create_branch;
mod delete_project;
mod doubt;
mod engine;
mod health;
mod jobs;
mod launch;
mod lost;
pub mod mail;
mod merge_branch;
mod pause_project;
pub mod pool;
mod probe;
mod provision_project;
mod queue;
mod rebase_branch;
mod reconcile;
mod replace_database;
mod restart_project;
mod restore_project;
mod step;
mod upgrade_project;
mod usage;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use cp_ai::OpenRouter;
use cp_billing::Stripe;
use cp_domain::ControlPlane;
use cp_model::{InstanceType, Region};
use cp_provider::{SharedCompute, SharedObjects};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use doubt::Doubts;

pub use crash::{CrashHook, CrashPoint, CrashSite};
pub use engine::all_steps;

#[derive(Clone)]
pub struct WorkerConfig {
    /// Shown in `operation list` as the lease's owner. Made unique per process.
    pub name: String,
    /// The control plane's base URL as machines reach it.
    pub control_url: String,
    /// Steps at once.
    pub concurrency: usize,
    /// How long a lease lasts unless it is renewed, which happens three times in that span. When a
    /// worker dies, its operations wait this long for the next one.
    pub lease: Duration,
    /// How often overdue wake-ups are sent again, and with it the grain of all waits.
    pub sweep_every: Duration,
    /// How often machines are compared with the provider's list.
    pub reconcile_every: Duration,
    /// How often the provider is asked which machines ail, and which disks nobody has.
    pub health_every: Duration,
    /// How long a machine may fail the provider's checks before it is moved. After a move it is not
    /// moved again for three times that.
    pub impaired_grace: Duration,
    /// How long the provider may not know a machine before it counts as gone: providers' lists lag.
    pub missing_grace: Duration,
    /// How long after a launch the provider may fail to show its machine. After a launch whose
    /// answer was lost, nobody launches again until then.
    pub launch_visibility: Duration,
    /// How often an operation that waits for its machine asks the provider about it. The agent's
    /// reports wake it at once; this is for machines that vanish or stop while they boot.
    pub recheck: Duration,
    /// How long a step rests when the provider has no room, or the account none left: this long to
    /// twice as long.
    pub capacity_pause: Duration,
    /// How long one run of a step may take; a provider's call may hang.
    pub step_timeout: Duration,
    /// How long a database may take to be copied, or to be filled from a copy.
    pub copy_timeout: Duration,
    /// How long a merge may take, with all its attempts to get its locks.
    pub merge_timeout: Duration,
    /// Databases copied at once.
    pub copies: usize,
    /// How long a machine without a row may run before it is terminated.
    pub orphan_grace: Duration,
    /// Or whether it is only told of, and nothing that runs is ended or stopped for being in the
    /// wrong place: after the database was restored from a backup, it does not know what became of
    /// machines since, and customers use them.
    pub spare_orphans: bool,
    /// Believes it when a provider's list lacks most machines of a region at once. Else nothing is
    /// done about such a list: rather is it another account's (see `doubt`).
    pub believe_losses: bool,
    /// How long a warm machine may take to register before it is replaced.
    pub boot_deadline: Duration,
    /// How long machines take to boot, for the size of the pool.
    pub boot_time: Duration,
    pub pool: Vec<PoolTarget>,
    /// How often each backend is asked what it used.
    pub usage_every: Duration,
    /// Where snapshots and the like are stored; without one nothing can be.
    pub objects: Option<SharedObjects>,
    /// How often uploads are looked for that nobody ended.
    pub leftovers_every: Duration,
    /// How old they must be: older than any that is still at work.
    pub leftover_age: Duration,
    /// How often it is looked for backups that are due or to be deleted; a twelfth as often for those that are over.
    pub backups_every: Duration,
    /// Scheduled backups under way at once, of all workers together. Those that wait make way for people's work.
    pub scheduled_backups: usize,
    /// Where projects' AI keys are; without one there are none.
    pub openrouter: Option<OpenRouter>,
    /// How often it is looked for AI keys to delete, and for limits to change.
    pub ai_keys_every: Duration,
    /// Who takes payments; without one plans are the operator's alone.
    pub payments: Option<Stripe>,
    /// Who brings mails to people; without one they stay queued.
    pub mailer: Option<mail::Mailer>,
    /// How long running steps are waited for on shutdown.
    pub grace: Duration,
    /// Called at every crash point; for tests.
    pub crash_hook: Option<CrashHook>,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            name: "worker".into(),
            control_url: "http://127.0.0.1:8080".into(),
            concurrency: 16,
            lease: Duration::from_secs(15),
            sweep_every: Duration::from_secs(1),
            reconcile_every: Duration::from_secs(10),
            health_every: Duration::from_mins(1),
            impaired_grace: Duration::from_mins(10),
            missing_grace: Duration::from_mins(1),
            launch_visibility: Duration::from_secs(30),
            recheck: Duration::from_mins(1),
            capacity_pause: Duration::from_secs(30),
            step_timeout: Duration::from_mins(2),
            copy_timeout: Duration::from_hours(6),
            merge_timeout: Duration::from_mins(15),
            copies: 4,
            orphan_grace: Duration::from_mins(5),
            spare_orphans: false,
            believe_losses: false,
            boot_deadline: Duration::from_mins(15),
            boot_time: Duration::from_mins(2),
            pool: Vec::new(),
            usage_every: Duration::from_hours(1),
            objects: None,
            leftovers_every: Duration::from_hours(24),
            leftover_age: Duration::from_hours(24),
            backups_every: Duration::from_secs(5),
            scheduled_backups: 32,
            openrouter: None,
            ai_keys_every: Duration::from_secs(30),
            payments: None,
            mailer: None,
            grace: Duration::from_secs(10),
            crash_hook: None,
        }
    }
}

/// How many warm machines of one region and type are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolTarget {
    pub region: Region,
    pub instance_type: InstanceType,
    pub floor: u32,
    pub ceiling: u32,
}

/// One worker process's work.
#[derive(Clone)]
pub struct Worker {
    inner: Arc<Inner>,
}

struct Inner {
    control_plane: ControlPlane,
    compute: SharedCompute,
    http: reqwest::Client,
    owner: String,
    config: WorkerConfig,
    doubts: Doubts,
    /// One for each copy that may be made at once.
    copies: Semaphore,
}

impl Worker {
    pub fn new(control_plane: ControlPlane, compute: SharedCompute, config: WorkerConfig) -> Self {
        let copies = Semaphore::new(config.copies.max(1));
        let owner = format!("{}-{}", config.name, uuid::Uuid::now_v7().simple());
        Self {
            inner: Arc::new(Inner {
                control_plane,
                compute,
                http: probe::client(),
                owner,
                config,
                doubts: Doubts::default(),
                copies,
            }),
        }
    }

    /// Works until `shutdown`, then lets running steps end (`WorkerConfig::grace`).
    pub async fn run(self, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        tasks.spawn(queue::consume(self.clone(), shutdown.clone()));
        tasks.spawn(jobs::sweep(self.clone(), shutdown.clone()));
        tasks.spawn(jobs::rotate_keys(self.clone(), shutdown.clone()));
        tasks.spawn(jobs::keep_house(self.clone(), shutdown.clone()));
        tasks.spawn(jobs::send_mails(self.clone(), shutdown.clone()));
        // One that a tenant's locks hold up must not hold up the others'.
        for _ in 0..self.config().copies {
            tasks.spawn(merge_branch::compare_branches(
                self.clone(),
                shutdown.clone(),
            ));
        }
        tasks.spawn(usage::collect(self.clone(), shutdown.clone()));
        tasks.spawn(webhooks::deliver(self.clone(), shutdown.clone()));
        tasks.spawn(webhooks::check_limits(self.clone(), shutdown.clone()));
        if let Some(stripe) = self.config().payments.clone() {
            tasks.spawn(billing::settle_plans(
                self.clone(),
                stripe,
                shutdown.clone(),
            ));
        }
        for region in self.compute().regions() {
            let round = reconcile::reconcile_machines(self.clone(), region, shutdown.clone());
            tasks.spawn(round);
            tasks.spawn(health::mend_machines(
                self.clone(),
                region,
                shutdown.clone(),
            ));
        }
        if let Some(objects) = &self.config().objects {
            for region in objects.regions() {
                let round =
                    jobs::abort_leftovers(self.clone(), objects.clone(), region, shutdown.clone());
                tasks.spawn(round);
            }
            tasks.spawn(jobs::back_up_daily(self.clone(), shutdown.clone()));
            tasks.spawn(jobs::expire_backups(self.clone(), shutdown.clone()));
            tasks.spawn(jobs::reclaim_backups(
                self.clone(),
                objects.clone(),
                shutdown.clone(),
            ));
        }
        if let Some(openrouter) = self.config().openrouter.clone() {
            let every = self.config().ai_keys_every;
            let keeping = ai_keys::keep_ai_keys(self.clone(), openrouter, every, shutdown.clone());
            tasks.spawn(keeping);
        }
        for target in &self.config().pool {
            if !self.compute().regions().contains(&target.region) {
                tracing::error!(region = %target.region, "a pool (pool.targets) is in a region without machines (ec2.regions); it stays empty");
                continue;
            }
            tasks.spawn(pool::keep_warm(self.clone(), *target, shutdown.clone()));
        }
        tasks.close();
        tasks.wait().await;
    }

    fn control_plane(&self) -> &ControlPlane {
        &self.inner.control_plane
    }

    fn compute(&self) -> &SharedCompute {
        &self.inner.compute
    }

    fn config(&self) -> &WorkerConfig {
        &self.inner.config
    }

    fn doubts(&self) -> &Doubts {
        &self.inner.doubts
    }
}
