//! The reconcilers: what happens behind our back is noticed and mended, or told to an operator.

mod doubt;
mod health;
mod room;

use std::time::Duration;

use chrono::{DateTime, Utc};
use cp_domain::DomainError;
use cp_model::{InstanceType, Machine, MachineId, MachineState, ProjectId, ProjectStatus, Region};
use cp_provider::sim::{Fault, SimConfig, Verb};
use cp_provider::{Ailment, Compute, LaunchSpec, Power};
use cp_tests::{App, AppOptions, PartnerClient, WorkerProcess, eventually};
use cp_worker::WorkerConfig;
use secrecy::SecretString;

const SOON: Duration = Duration::from_secs(10);

async fn with_pool(floor: u32) -> (App, PartnerClient) {
    let app = App::start_with(AppOptions {
        pool: if floor == 0 {
            Vec::new()
        } else {
            App::warm_pool(floor)
        },
        ..AppOptions::default()
    })
    .await;
    let partner = app.partner().await;
    (app, partner)
}

async fn active(partner: &PartnerClient) -> ProjectId {
    partner
        .create_active_project("shop")
        .await
        .parse()
        .expect("a project id")
}

async fn machine(app: &App, project: ProjectId) -> Machine {
    app.machine_of(project)
        .await
        .expect("the project has a machine")
}

fn power(app: &App, id: MachineId) -> Option<Power> {
    app.sim
        .alive()
        .iter()
        .find(|m| m.machine_id == id)
        .map(|m| m.power)
}

/// Waits for this many machines that could be claimed now.
async fn warm(app: &App, count: i64) -> Vec<MachineId> {
    eventually(&format!("{count} machines are warm"), SOON, async || {
        let levels = app.control_plane.pool_levels("sim").await.ok()?;
        let ready: i64 = levels.iter().map(|level| level.ready).sum();
        (ready == count).then_some(())
    })
    .await;
    pooled(app).await
}

async fn pooled(app: &App) -> Vec<MachineId> {
    let rows = app
        .control_plane
        .list_living_machines("sim", Region::UsEast)
        .await
        .expect("machines can be read");
    rows.iter()
        .filter(|row| row.project_id.is_none() && row.state == MachineState::Ready)
        .map(|row| row.id)
        .collect()
}

/// From when until when the machine ran, oldest first.
async fn runs_of(app: &App, id: MachineId) -> Vec<(DateTime<Utc>, Option<DateTime<Utc>>)> {
    sqlx::query_as(
        "select started_at, stopped_at from machine_runs where machine_id = $1 order by started_at",
    )
    .bind(id.0)
    .fetch_all(&mut app.database.connect().await)
    .await
    .expect("runs can be read")
}

#[tokio::test]
async fn a_machine_that_stopped_behind_our_back_is_started_again() {
    let (app, partner) = with_pool(0).await;
    let project = active(&partner).await;
    let id = machine(&app, project).await.id;
    app.sim.crash(id);
    assert_eq!(power(&app, id), Some(Power::Stopped));
    eventually("it runs again", SOON, async || {
        (power(&app, id) == Some(Power::Running)).then_some(())
    })
    .await;
    let runs = eventually("a run of its own for after the crash", SOON, async || {
        let runs = runs_of(&app, id).await;
        (runs.len() > 1).then_some(runs)
    })
    .await;
    let [(_, Some(silent_since)), (started_again, None)] = runs[..] else {
        panic!("{runs:?}")
    };
    assert!(silent_since < started_again, "the time between is not paid");
    app.assert_truth().await;
    assert_eq!(app.status_of(project).await, ProjectStatus::Active);
}

#[tokio::test]
async fn a_vanished_machine_fails_its_project_until_an_operator_accepts_the_loss() {
    let (app, partner) = with_pool(0).await;
    let project = active(&partner).await;
    let key = app.control_plane.project_api_key(project).await.unwrap();
    let lost = machine(&app, project).await.id;
    app.sim.vanish(lost);
    app.wait_for_status(project, ProjectStatus::Failed).await;
    app.assert_truth().await;
    let failed = app.newest_operation(project).await;
    assert_eq!(failed.error.as_ref().unwrap().code, "machine_lost");

    let refused = app.control_plane.retry_operation(failed.id, false).await;
    assert!(
        matches!(&refused, Err(DomainError::Conflict(text)) if text.contains("--accept-data-loss")),
        "{refused:?}"
    );
    assert_eq!(app.status_of(project).await, ProjectStatus::Failed);

    app.control_plane
        .retry_operation(failed.id, true)
        .await
        .unwrap();
    app.wait_for_status(project, ProjectStatus::Active).await;
    app.assert_truth().await;
    assert_ne!(machine(&app, project).await.id, lost);
    let kept = app.control_plane.project_api_key(project).await.unwrap();
    assert_eq!(
        secrecy::ExposeSecret::expose_secret(&kept),
        secrecy::ExposeSecret::expose_secret(&key)
    );
}

#[tokio::test]
async fn the_machine_of_a_paused_project_that_vanished_is_not_replaced_by_an_empty_one() {
    let (app, partner) = with_pool(0).await;
    let project = active(&partner).await;
    partner.pause(&project.to_string()).await.expect(200);
    let lost = machine(&app, project).await.id;
    app.sim.vanish(lost);
    app.wait_for_status(project, ProjectStatus::Failed).await;
    app.assert_truth().await;
    assert_eq!(machine(&app, project).await.state, MachineState::Lost);
    assert_eq!(app.sim.calls(Verb::Launch), 1);
}

#[tokio::test]
async fn one_look_in_vain_does_not_count_against_a_machine_later() {
    let (app, partner) = with_pool(0).await;
    let project = active(&partner).await;
    partner.pause(&project.to_string()).await.expect(200);
    let id = machine(&app, project).await.id;
    // The provider's list missed it once, long ago.
    sqlx::query("update machines set missing_since = now() - interval '1 hour' where id = $1")
        .bind(id.0)
        .execute(&mut app.database.connect().await)
        .await
        .unwrap();
    eventually("it counts as seen", SOON, async || {
        machine(&app, project)
            .await
            .missing_since
            .is_none()
            .then_some(())
    })
    .await;
    partner.restore(&project.to_string()).await.expect(200);
    app.assert_truth().await;
}

#[tokio::test]
async fn a_vanished_warm_machine_is_replaced() {
    let (app, _partner) = with_pool(2).await;
    let before = warm(&app, 2).await;
    app.sim.vanish(before[0]);
    eventually("another one is warm", SOON, async || {
        let now = pooled(&app).await;
        (now.len() == 2 && !now.contains(&before[0])).then_some(())
    })
    .await;
    warm(&app, 2).await;
    app.assert_truth().await;
}

#[tokio::test]
async fn a_machine_that_vanishes_before_it_is_assigned_is_replaced() {
    let (app, partner) = with_pool(1).await;
    let before = warm(&app, 1).await;
    app.sim.vanish(before[0]);
    // Most likely claims the one that is no more: the reconciler has not missed it yet.
    let project = active(&partner).await;
    let machine = app.machine_of(project).await.expect("a machine");
    assert_ne!(machine.id, before[0]);
    app.assert_truth().await;
}

/// Launches a machine that none of our rows names.
async fn launch_stray(app: &App, id: MachineId) {
    let spec = LaunchSpec {
        machine_id: id,
        region: Region::UsEast,
        instance_type: InstanceType::Nano,
        volume_gib: 8,
        bootstrap_token: SecretString::from("none"),
        control_url: app.base_url.clone(),
    };
    app.sim.launch(&spec).await.expect("the sim launches");
}

#[tokio::test]
async fn a_machine_without_a_row_is_terminated_after_a_grace_period() {
    let (app, partner) = with_pool(0).await;
    let project = active(&partner).await;
    let stray = MachineId::generate();
    let began = tokio::time::Instant::now();
    launch_stray(&app, stray).await;
    eventually("the stray is gone", SOON, async || {
        power(&app, stray).is_none().then_some(())
    })
    .await;
    let grace = app.worker_config("main").orphan_grace;
    assert!(began.elapsed() >= grace, "gone after {:?}", began.elapsed());
    app.assert_truth().await;
    assert_eq!(app.status_of(project).await, ProjectStatus::Active);
}

#[tokio::test]
async fn the_second_machine_of_one_row_is_terminated_and_the_recorded_one_stays() {
    let app = App::start_with(AppOptions {
        sim: SimConfig {
            launch_looks_first: false,
            ..SimConfig::default()
        },
        ..AppOptions::default()
    })
    .await;
    let partner = app.partner().await;
    let project = active(&partner).await;
    let own = machine(&app, project).await;
    launch_stray(&app, own.id).await;
    assert_eq!(app.sim.launch_effects(own.id), 2);
    eventually("one of the two is gone", SOON, async || {
        (app.sim.alive().len() == 1).then_some(())
    })
    .await;
    assert_eq!(
        Some(app.sim.alive()[0].provider_ref.clone()),
        own.provider_ref
    );
    app.assert_truth().await;
}

#[tokio::test]
async fn the_machine_of_a_paused_project_that_runs_is_stopped() {
    let (app, partner) = with_pool(0).await;
    let project = active(&partner).await;
    partner.pause(&project.to_string()).await.expect(200);
    let own = machine(&app, project).await;
    let machine = app.sim.find(own.region, own.id).await.unwrap().unwrap();
    app.sim.start(machine.at()).await.unwrap();
    let stops = app.sim.calls(Verb::Stop);
    eventually("it is stopped again", SOON, async || {
        (app.sim.calls(Verb::Stop) > stops && power(&app, own.id) == Some(Power::Stopped))
            .then_some(())
    })
    .await;
    app.assert_truth().await;
    assert_eq!(app.status_of(project).await, ProjectStatus::Paused);
    assert!(audited(&app, "machine.stopped_again", own.id).await >= 1);
}

#[tokio::test]
async fn the_pool_is_refilled_and_a_machine_that_held_data_never_returns_to_it() {
    let (app, partner) = with_pool(2).await;
    let first = warm(&app, 2).await;
    let project = active(&partner).await;
    let claimed = machine(&app, project).await;
    assert!(first.contains(&claimed.id), "a warm machine was there");
    assert!(claimed.held_data);
    let refilled = warm(&app, 2).await;
    assert!(!refilled.contains(&claimed.id));

    partner
        .delete_project(&project.to_string())
        .await
        .expect(200);
    app.wait_for_status(project, ProjectStatus::Deleted).await;
    app.assert_truth().await;
    assert!(!pooled(&app).await.contains(&claimed.id));
    assert_eq!(power(&app, claimed.id), None);
    let next = machine(&app, active(&partner).await).await;
    assert_ne!(next.id, claimed.id);
}

#[tokio::test]
async fn a_crash_between_the_pools_intent_and_its_launch_is_made_good() {
    let app = App::start_with(AppOptions {
        worker: false,
        ..AppOptions::default()
    })
    .await;
    // The intents are written down; then the worker dies.
    let plan = app
        .control_plane
        .plan_pool("sim", Region::UsEast, InstanceType::Nano, 2, 2)
        .await
        .unwrap();
    assert_eq!((plan.launch.len(), app.sim.alive().len()), (2, 0));
    let _worker: WorkerProcess = app.start_worker(WorkerConfig {
        pool: App::warm_pool(2),
        ..app.worker_config("heir")
    });
    let mut ready = warm(&app, 2).await;
    let mut planned = plan.launch;
    ready.sort();
    planned.sort();
    assert_eq!(ready, planned, "no other machine was made instead");
    app.assert_truth().await;
    assert_eq!(app.sim.calls(Verb::Launch), 2);
}

/// The agent of a machine registers before whoever launched it has written that down, and dies.
#[tokio::test]
async fn a_machine_whose_agent_was_quicker_than_its_record_is_recorded() {
    let (mut app, _partner) = with_pool(1).await;
    let [id] = warm(&app, 1).await.try_into().unwrap();
    app.kill_worker();
    sqlx::query("update machines set provider_ref = null where id = $1")
        .bind(id.0)
        .execute(&mut app.database.connect().await)
        .await
        .unwrap();
    let _worker = app.start_worker(app.worker_config("heir"));
    app.assert_truth().await;
    assert_eq!(app.sim.launch_effects(id), 1);
    assert_eq!(audited(&app, "machine.launch_found", id).await, 1);
}

#[tokio::test]
async fn two_workers_keep_one_pool() {
    let (app, _partner) = with_pool(3).await;
    let _second = app.start_worker(app.worker_config("second"));
    warm(&app, 3).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    app.assert_truth().await;
    assert_eq!(app.sim.alive().len(), 3);
    for machine in app.sim.alive() {
        assert_eq!(app.sim.launch_effects(machine.machine_id), 1);
    }
}

#[tokio::test]
async fn of_two_machines_of_one_id_the_recorded_one_is_worked_with() {
    let mut app = App::start_with(AppOptions {
        sim: SimConfig {
            launch_looks_first: false,
            ..SimConfig::default()
        },
        ..AppOptions::default()
    })
    .await;
    let partner = app.partner().await;
    let project = active(&partner).await;
    let own = machine(&app, project).await;
    app.kill_worker();
    launch_stray(&app, own.id).await;
    let refs: Vec<String> = app
        .sim
        .alive()
        .into_iter()
        .map(|m| m.provider_ref)
        .collect();
    // Not the one that a look by tag alone takes.
    let recorded = refs.iter().max().unwrap();
    sqlx::query("update machines set provider_ref = $2 where id = $1")
        .bind(own.id.0)
        .bind(recorded)
        .execute(&mut app.database.connect().await)
        .await
        .unwrap();
    let _worker = app.start_worker(WorkerConfig {
        reconcile_every: Duration::from_hours(1),
        orphan_grace: Duration::from_hours(1),
        ..app.worker_config("second")
    });
    partner.pause(&project.to_string()).await.expect(200);
    let stopped: Vec<String> = app
        .sim
        .alive()
        .into_iter()
        .filter(|m| m.power == Power::Stopped)
        .map(|m| m.provider_ref)
        .collect();
    assert_eq!(stopped, std::slice::from_ref(recorded));
}

#[tokio::test]
async fn only_its_own_attempt_to_launch_is_forgotten() {
    let app = App::start_with(AppOptions {
        worker: false,
        ..AppOptions::default()
    })
    .await;
    let plan = app
        .control_plane
        .plan_pool("sim", Region::UsEast, InstanceType::Nano, 1, 1)
        .await
        .unwrap();
    let id = plan.launch[0];
    let begin = async |visibility| {
        app.control_plane
            .begin_launch(id, visibility)
            .await
            .unwrap()
    };
    let slow = begin(Duration::ZERO).await.expect("nobody launches yet");
    tokio::time::sleep(Duration::from_millis(5)).await;
    let heir = begin(Duration::ZERO)
        .await
        .expect("the first one counts as over");
    // The slow one comes back at last, refused.
    app.control_plane.forget_launch(slow).await.unwrap();
    let minute = Duration::from_mins(1);
    assert!(
        app.control_plane
            .launch_may_surface(id, minute)
            .await
            .unwrap()
    );
    assert_eq!(begin(minute).await, None);
    app.control_plane.forget_launch(heir).await.unwrap();
    assert!(begin(minute).await.is_some());
}

async fn paused(partner: &PartnerClient) -> ProjectId {
    let project = active(partner).await;
    partner.pause(&project.to_string()).await.expect(200);
    project
}

async fn audited(app: &App, action: &str, machine: MachineId) -> i64 {
    sqlx::query_scalar("select count(*) from audit_log where action = $1 and target_id = $2")
        .bind(action)
        .bind(machine.to_string())
        .fetch_one(&mut app.database.connect().await)
        .await
        .unwrap()
}
