//! The enumeration: every fault, in every call to EC2, in every step of every kind of operation.
//! Each cell ends as if nothing had happened, with as many instances and volumes as there are
//! projects. And the crash enumeration of `crash.rs` with machines that are instances.
//!
//! The reconcilers rest meanwhile: the operations must come to their end by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cp_model::{InstanceType, OperationKind, OperationState, ProjectId, ProjectStatus, Region};
use cp_tests::aws::{Cloud, Fault};
use cp_tests::{App, AppOptions, PartnerClient, WorkerProcess, eventually};
use cp_worker::{CrashHook, CrashPoint, CrashSite, WorkerConfig, all_steps};
use serde_json::json;

/// What the operations may call. A cell without its call shows in the table as such.
const ACTIONS: [&str; 9] = [
    "DescribeInstances",
    "DescribeImages",
    "DescribeVolumes",
    "RunInstances",
    "StartInstances",
    "StopInstances",
    "ModifyInstanceAttribute",
    "ModifyVolume",
    "TerminateInstances",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provisioning_survives_every_fault() {
    table(
        OperationKind::Provision,
        &["DescribeInstances", "DescribeImages", "RunInstances"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_survives_every_fault() {
    table(
        OperationKind::Pause,
        &["DescribeInstances", "StopInstances"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_survives_every_fault() {
    table(
        OperationKind::Restore,
        &["DescribeInstances", "StartInstances"],
    )
    .await;
}

// A fault may well make an upgrade turn back: the project is as well as before then.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_grows_survives_every_fault() {
    let world = World::start().await;
    world.upgrades(Upgrades::Disk);
    world
        .table(
            OperationKind::Upgrade,
            &all_steps(OperationKind::Upgrade),
            &["DescribeInstances", "DescribeVolumes", "ModifyVolume"],
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resize_survives_every_fault_until_it_has_stopped() {
    let world = World::start().await;
    world
        .table(
            OperationKind::Upgrade,
            &["grow_volume", "stop_machine", "await_stopped"],
            &["DescribeInstances", "StopInstances"],
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resize_survives_every_fault_from_then_on() {
    let world = World::start().await;
    world
        .table(
            OperationKind::Upgrade,
            &["resize_machine", "start_machine", "await_backend"],
            &[
                "DescribeInstances",
                "ModifyInstanceAttribute",
                "StartInstances",
            ],
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_survives_every_fault() {
    table(
        OperationKind::Delete,
        &["DescribeInstances", "TerminateInstances"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_survives_every_crash() {
    let world = World::start().await;
    for kind in [
        OperationKind::Provision,
        OperationKind::Pause,
        OperationKind::Restore,
        OperationKind::Upgrade,
        OperationKind::Delete,
    ] {
        for step in all_steps(kind) {
            for point in CrashPoint::ALL {
                world.crash(kind, step, point).await;
            }
        }
    }
}

async fn table(kind: OperationKind, called: &[&'static str]) {
    let world = World::start().await;
    world.table(kind, &all_steps(kind), called).await;
}

/// What upgrades are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upgrades {
    /// Another size.
    Type,
    /// A bigger disk.
    Disk,
}

/// A hook that lets the next call of that action in that step fail, once.
fn arm(
    cloud: &Cloud,
    kind: OperationKind,
    step: &'static str,
    action: &'static str,
    fault: Fault,
) -> CrashHook {
    let chaos = cloud.chaos_handle();
    let rounds = Arc::new(AtomicUsize::new(0));
    Arc::new(move |site: CrashSite| {
        if site.kind == kind && site.point == CrashPoint::BeforeEffect {
            if site.step == step && rounds.fetch_add(1, Ordering::SeqCst) == 0 {
                chaos.fail_next(action, fault);
            } else if site.step != step {
                chaos.forget_faults();
            }
        }
        Box::pin(std::future::ready(()))
    })
}

/// Which calls came in which step.
#[derive(Default)]
struct StepsCalls {
    step: Option<&'static str>,
    seen: BTreeMap<String, usize>,
    called: BTreeSet<(&'static str, &'static str)>,
}

impl StepsCalls {
    /// All calls so far; what comes from now on belongs to `step`.
    fn note(&mut self, calls: &BTreeMap<String, usize>, step: Option<&'static str>) {
        if let Some(step) = self.step {
            let new = ACTIONS
                .iter()
                .filter(|action| calls.get(**action) > self.seen.get(**action));
            self.called.extend(new.map(|action| (step, *action)));
        }
        self.seen.clone_from(calls);
        self.step = step;
    }
}

struct World {
    app: App,
    partner: PartnerClient,
    cloud: Cloud,
    /// The project that is paused and restored again and again.
    project: Mutex<Option<ProjectId>>,
    /// Projects that should have an instance.
    living: AtomicUsize,
    upgrades: Mutex<Upgrades>,
}

impl World {
    async fn start() -> Self {
        let cloud = Cloud::start(&[Region::UsEast]).await;
        let app = App::start_with(AppOptions {
            worker: false,
            create_wait: Duration::ZERO,
            ..AppOptions::default()
        })
        .await;
        let partner = app.partner().await;
        Self {
            app,
            partner,
            cloud,
            project: Mutex::default(),
            living: AtomicUsize::new(0),
            upgrades: Mutex::new(Upgrades::Type),
        }
    }

    fn upgrades(&self, what: Upgrades) {
        *self.upgrades.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    fn worker(&self, hook: CrashHook) -> WorkerProcess {
        let config = WorkerConfig {
            lease: Duration::from_millis(900),
            reconcile_every: Duration::from_hours(1),
            health_every: Duration::from_hours(1),
            crash_hook: Some(hook),
            concurrency: 1,
            ..self.app.worker_config("doomed")
        };
        // Of its own, as a process has it: nothing is remembered from the cell before.
        self.app
            .start_worker_on(Arc::new(self.cloud.compute()), config)
    }

    fn plain_worker(&self) -> WorkerProcess {
        self.worker(Arc::new(|_| Box::pin(std::future::ready(()))))
    }

    /// Every cell of one kind; `called`: what these steps must call, so that the table has no hole.
    async fn table(&self, kind: OperationKind, steps: &[&'static str], called: &[&'static str]) {
        let calls = self.calls_of(kind).await;
        let mut cells: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
        let mut met = BTreeSet::new();
        for step in steps.iter().copied() {
            for action in ACTIONS {
                // The reconcilers look at volumes, too, when a worker starts.
                if action == "DescribeVolumes" && !called.contains(&action) {
                    continue;
                }
                if !calls.contains(&(step, action)) {
                    cells.insert((step, action), vec!["not called".into()]);
                    continue;
                }
                for fault in Fault::ALL {
                    let worker = self.worker(arm(&self.cloud, kind, step, action, fault));
                    let faults = self.cloud.chaos().faults();
                    self.run(kind).await;
                    let happened = self.cloud.chaos().faults() > faults;
                    let cell = format!("{kind} {step} {action} {fault:?}");
                    self.assert_whole(&cell).await;
                    worker.kill();
                    // A look that is made only when the agent is slower than the worker.
                    if !happened {
                        cells.insert((step, action), vec!["not always called".into()]);
                        break;
                    }
                    met.insert(action);
                    let row = cells.entry((step, action)).or_default();
                    row.push(format!("{fault:?}"));
                }
            }
        }
        for ((step, action), faults) in &cells {
            println!("{kind:<10} {step:<18} {action:<20} {}", faults.join(" "));
        }
        let called: BTreeSet<&str> = called.iter().copied().collect();
        assert_eq!(met, called, "what {kind} calls");
        let holes = cells.values().filter(|faults| faults.len() > 1);
        assert!(holes.clone().all(|faults| faults.len() == Fault::ALL.len()));
        assert!(holes.count() > 0);
    }

    /// One operation of the kind to its end; what it needs first is done unarmed by the same worker.
    async fn run(&self, kind: OperationKind) {
        let project = self.begin(kind).await;
        self.ends(kind, project).await;
    }

    /// What one operation of the kind calls, step by step, when nothing goes wrong.
    async fn calls_of(&self, kind: OperationKind) -> BTreeSet<(&'static str, &'static str)> {
        let calls = Arc::new(Mutex::new(StepsCalls::default()));
        let (noted, chaos) = (calls.clone(), self.cloud.chaos_handle());
        let worker = self.worker(Arc::new(move |site: CrashSite| {
            let step = (site.kind == kind).then_some(site.step);
            let mut calls = noted.lock().unwrap_or_else(PoisonError::into_inner);
            calls.note(&chaos.calls(), step);
            Box::pin(std::future::ready(()))
        }));
        self.run(kind).await;
        worker.kill();
        let calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.called.clone()
    }

    /// Arranges what the kind needs, and asks for it.
    async fn begin(&self, kind: OperationKind) -> ProjectId {
        if kind == OperationKind::Provision {
            self.living.fetch_add(1, Ordering::SeqCst);
            return self.partner.begin_project("faults").await;
        }
        let project = self.arranged(kind).await;
        match kind {
            OperationKind::Delete => {
                let deleted = self.partner.delete_project(&project.to_string()).await;
                deleted.expect(200);
                self.living.fetch_sub(1, Ordering::SeqCst);
                *self.lock() = None;
            }
            OperationKind::Pause => self.call(project, "pause").await,
            OperationKind::Upgrade => self.upgrade(project).await,
            _ => self.call(project, "restore").await,
        }
        project
    }

    /// To the other size, or to a disk that is bigger by one.
    async fn upgrade(&self, project: ProjectId) {
        let machine = self.app.machine_of(project).await.expect("it is active");
        let other = match machine.instance_type {
            InstanceType::Nano => InstanceType::Micro,
            _ => InstanceType::Nano,
        };
        let what = *self.upgrades.lock().unwrap_or_else(PoisonError::into_inner);
        let size = match what {
            Upgrades::Type => json!({ "instance_type": other }),
            Upgrades::Disk => json!({ "volume_size_gib": machine.volume_gib + 1 }),
        };
        let path = format!("/{project}/upgrade");
        self.partner.post(&path, &size).await.expect(200);
    }

    async fn arranged(&self, kind: OperationKind) -> ProjectId {
        let known = *self.lock();
        let project = if let Some(project) = known {
            project
        } else {
            let project = self.partner.begin_project("faults").await;
            self.living.fetch_add(1, Ordering::SeqCst);
            self.app
                .wait_for_status(project, ProjectStatus::Active)
                .await;
            *self.lock() = Some(project);
            project
        };
        let (wanted, verb) = match kind {
            OperationKind::Restore => (ProjectStatus::Paused, "pause"),
            _ => (ProjectStatus::Active, "restore"),
        };
        if self.app.status_of(project).await != wanted {
            self.call(project, verb).await;
            self.app.wait_for_status(project, wanted).await;
        }
        project
    }

    async fn call(&self, project: ProjectId, verb: &str) {
        let path = format!("/{project}/{verb}");
        let answer = self.partner.post(&path, &json!({})).await;
        assert!(
            matches!(answer.status, 200 | 202),
            "{verb}: {}",
            answer.text
        );
    }

    async fn ends(&self, kind: OperationKind, project: ProjectId) {
        let operation = self.app.newest_operation(project).await;
        eventually("the operation ends", Duration::from_secs(40), async || {
            let now = self.app.operation(operation.id).await;
            (!now.state.is_in_flight()).then_some(now)
        })
        .await;
        let ended = self.app.operation(operation.id).await;
        let turned_back = ended.kind == OperationKind::Upgrade && ended.turned_back().is_some();
        assert!(
            ended.state == OperationState::Succeeded || turned_back,
            "{ended:?}"
        );
        assert_eq!(self.app.status_of(project).await, kind.final_status());
        self.cloud.chaos().forget_faults();
        if kind == OperationKind::Provision {
            // So that cells stay as quick as the first one.
            let deleted = self.partner.delete_project(&project.to_string()).await;
            deleted.expect(200);
            self.app
                .wait_for_status(project, ProjectStatus::Deleted)
                .await;
            self.living.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// As many instances and volumes as projects, and none ever doubled.
    async fn assert_whole(&self, cell: &str) {
        let living = self.living.load(Ordering::SeqCst);
        let alive = self.cloud.alive().await;
        assert_eq!(alive.len(), living, "{cell}: {alive:?}");
        assert_eq!(self.cloud.volumes().await, living, "{cell}");
        let mut launched = BTreeMap::new();
        for instance in self.cloud.launched().await {
            *launched.entry(instance.machine).or_insert(0) += 1;
        }
        assert!(
            launched.values().all(|count| *count == 1),
            "{cell}: {launched:?}"
        );
    }

    async fn crash(&self, kind: OperationKind, step: &'static str, point: CrashPoint) {
        let cell = format!("{kind} {step} {}", point.as_str());
        let plain = self.plain_worker();
        if kind != OperationKind::Provision {
            self.arranged(kind).await;
        }
        plain.kill();
        let reached = Arc::new(AtomicBool::new(false));
        let tell = reached.clone();
        let doomed = self.worker(Arc::new(move |site: CrashSite| {
            let here = site.kind == kind && site.step == step && site.point == point;
            if here && !tell.swap(true, Ordering::SeqCst) {
                Box::pin(std::future::pending())
            } else {
                Box::pin(std::future::ready(()))
            }
        }));
        let project = self.begin(kind).await;
        let operation = self.app.newest_operation(project).await.id;
        eventually(
            &format!("{cell} is reached"),
            Duration::from_secs(20),
            async || {
                // The record that ends an operation ends its lease: the place behind it may be skipped.
                let over = !self.app.operation(operation).await.state.is_in_flight();
                let may_be_over = point == CrashPoint::AfterRecord && over;
                (reached.load(Ordering::SeqCst) || may_be_over).then_some(())
            },
        )
        .await;
        doomed.kill();
        let plain = self.plain_worker();
        self.ends(kind, project).await;
        self.assert_whole(&cell).await;
        plain.kill();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<ProjectId>> {
        self.project.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
