//! The operations engine: leases that fence, wake-ups that are not lost, deadlines, retries, and
//! the operators' verbs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use cp_domain::DomainError;
use cp_domain::machines::Launched;
use cp_model::operation::backoff;
use cp_model::{
    Clock, Failure, ManualClock, OperationId, OperationKind, OperationState, ProjectId,
    ProjectStatus,
};
use cp_provider::sim::{Fault, SimConfig, Verb};
use cp_tests::{App, AppOptions, PartnerClient, WorkerProcess, eventually};
use cp_worker::{CrashHook, CrashPoint, WorkerConfig};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

/// An app without a worker, whose creating calls do not wait.
async fn still(sim: SimConfig) -> (App, PartnerClient) {
    let app = App::start_with(AppOptions {
        sim,
        worker: false,
        create_wait: Duration::ZERO,
        ..AppOptions::default()
    })
    .await;
    let partner = app.partner().await;
    (app, partner)
}

async fn with_clock(sim: SimConfig) -> (App, PartnerClient, Arc<ManualClock>) {
    let clock = ManualClock::at(Utc::now());
    let app = App::start_with(AppOptions {
        sim,
        clock: clock.clone(),
        worker: false,
        create_wait: Duration::ZERO,
        ..AppOptions::default()
    })
    .await;
    let partner = app.partner().await;
    (app, partner, clock)
}

fn worker(app: &App, name: &str) -> WorkerProcess {
    app.start_worker(app.worker_config(name))
}

fn hooked(app: &App, hook: CrashHook) -> WorkerProcess {
    app.start_worker(WorkerConfig {
        crash_hook: Some(hook),
        ..app.worker_config("hooked")
    })
}

/// Every row that an operation could change, as text.
async fn snapshot(app: &App) -> Value {
    sqlx::query_scalar(
        "select jsonb_build_object(
            'operations', (select jsonb_agg(to_jsonb(t) - 'lease_until' order by id) from operations t),
            'projects', (select jsonb_agg(to_jsonb(t) order by id) from projects t),
            'machines', (select jsonb_agg(to_jsonb(t) order by id) from machines t),
            'runs', (select jsonb_agg(to_jsonb(t) order by id) from machine_runs t),
            'messages', (select count(*) from apalis.jobs),
            'audit', (select count(*) from audit_log))",
    )
    .fetch_one(&mut app.database.connect().await)
    .await
    .expect("the rows can be read")
}

#[tokio::test]
async fn a_zombie_with_an_old_generation_changes_no_row() {
    let (app, partner) = still(SimConfig::default()).await;
    let project = partner.begin_project("zombie").await;
    let id = app.newest_operation(project).await.id;
    let (first, second) = (&app.control_plane, app.another_control_plane());

    let (zombie, operation) = first
        .lease_operation(id, "first", Duration::from_millis(200))
        .await
        .unwrap()
        .unwrap();
    assert!(
        second
            .lease_operation(id, "second", SOON)
            .await
            .unwrap()
            .is_none(),
        "the lease still holds"
    );
    let row = first.load_work(&zombie).await.unwrap().project;
    let machine = first.allocate_machine(&zombie, "sim", &row).await.unwrap();
    tokio::time::sleep(Duration::from_millis(250)).await;
    let (heir, _) = second
        .lease_operation(id, "second", SOON)
        .await
        .unwrap()
        .unwrap();
    assert!(heir.generation > zombie.generation);

    let before = snapshot(&app).await;
    let failure = Failure::new("zombie", "should not be seen");
    let launched = Launched {
        provider_ref: "sim-zombie".into(),
        address: None,
    };
    let later = Utc::now();
    let size = cp_model::MachineSize {
        instance_type: cp_model::InstanceType::Xl,
        volume_gib: 99,
    };
    let writes = [
        ("renew", first.renew_lease(&zombie, SOON).await.err()),
        (
            "advance",
            first
                .advance_operation(&zombie, "await_backend", &json!({}))
                .await
                .err(),
        ),
        (
            "suspend",
            first
                .suspend_operation(&zombie, operation.wakes, later)
                .await
                .err(),
        ),
        (
            "retry",
            first
                .retry_operation_at(&zombie, later, &failure)
                .await
                .err(),
        ),
        ("finish", first.finish_operation(&zombie, None).await.err()),
        (
            "turn back",
            first.finish_operation(&zombie, Some(&failure)).await.err(),
        ),
        ("fail", first.fail_operation(&zombie, &failure).await.err()),
        (
            "allocate",
            first.allocate_machine(&zombie, "sim", &row).await.err(),
        ),
        (
            "launch",
            first
                .record_launch(&zombie, machine.id, &launched)
                .await
                .err(),
        ),
        (
            "assign",
            first
                .assign_machine(&zombie, machine.id, "http://zombie")
                .await
                .err(),
        ),
        (
            "start",
            first.record_started(&zombie, machine.id).await.err(),
        ),
        (
            "stop",
            first.record_stopped(&zombie, machine.id).await.err(),
        ),
        (
            "terminating",
            first.record_terminating(&zombie, machine.id).await.err(),
        ),
        (
            "terminated",
            first.record_terminated(&zombie, machine.id).await.err(),
        ),
        ("lost", first.record_lost(&zombie, &machine).await.err()),
        (
            "restart",
            first.request_restart(&zombie, machine.id, 9).await.err(),
        ),
        (
            "size",
            first.record_size(&zombie, machine.id, size).await.err(),
        ),
        (
            "release",
            first
                .settle_for_release(&zombie, machine.id, "v0")
                .await
                .err(),
        ),
        (
            "key",
            first
                .record_rotated_api_key(&zombie, &"ik_zombie".into())
                .await
                .err(),
        ),
    ];
    for (write, refused) in writes {
        assert!(
            matches!(refused, Some(DomainError::LeaseLost)),
            "{write}: {refused:?}"
        );
    }
    first.let_go(&zombie).await.unwrap();
    assert_eq!(snapshot(&app).await, before);

    // The heir's own writes go through.
    second
        .advance_operation(&heir, "launch_machine", &json!({}))
        .await
        .unwrap();
    assert_eq!(app.operation(id).await.step, "launch_machine");
}

#[tokio::test]
async fn a_report_that_arrives_while_a_step_runs_is_not_slept_through() {
    let (app, partner) = still(SimConfig::default()).await;
    let project = partner.begin_project("report").await;
    let database = app.database.clone();
    // The step has read its rows before this point; the report comes before it goes to sleep.
    let hook: CrashHook = Arc::new(move |site| {
        let database = database.clone();
        Box::pin(async move {
            if site.step != "await_backend" || site.point != CrashPoint::BeforeEffect {
                return;
            }
            let mut conn = database.connect().await;
            let until = tokio::time::Instant::now() + SOON;
            loop {
                let serving: Option<bool> =
                    sqlx::query_scalar("select observed_state = 'serving' from machines")
                        .fetch_one(&mut conn)
                        .await
                        .expect("there is one machine");
                if serving == Some(true) {
                    return;
                }
                assert!(
                    tokio::time::Instant::now() < until,
                    "the agent never reports"
                );
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    });
    let began = tokio::time::Instant::now();
    let _worker = hooked(&app, hook);
    app.wait_for_status(project, ProjectStatus::Active).await;
    // Slept through, it would have been looked at again after five seconds.
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn the_sweeper_sends_lost_wake_ups_again() {
    let (app, partner) = still(SimConfig::default()).await;
    let project = partner.begin_project("sweep").await;
    let lost = sqlx::query("delete from apalis.jobs")
        .execute(&mut app.database.connect().await)
        .await
        .unwrap();
    assert_eq!(lost.rows_affected(), 1);
    let _worker = worker(&app, "main");
    app.wait_for_status(project, ProjectStatus::Active).await;
    app.assert_truth().await;
}

#[tokio::test]
async fn an_operation_of_a_kind_that_only_a_newer_release_knows_is_left_to_it() {
    let (app, partner, clock) = with_clock(SimConfig::default()).await;
    let newer = partner.begin_project("tomorrow").await;
    let known = partner.begin_project("today").await;
    let id = app.newest_operation(newer).await.id;
    let kind_becomes = async |kind: &str| {
        sqlx::query("update operations set kind = $2 where id = $1")
            .bind(id.0)
            .bind(kind)
            .execute(&mut app.database.connect().await)
            .await
            .unwrap();
    };
    kind_becomes("of_tomorrow").await;
    let _worker = worker(&app, "old");
    app.wait_for_status(known, ProjectStatus::Active).await;
    // Past its deadline, too: only who knows the kind knows how it fails.
    clock.advance(TimeDelta::hours(1));
    let next = partner.begin_project("after that").await;
    app.wait_for_status(next, ProjectStatus::Active).await;

    kind_becomes("provision").await;
    let untouched = app.operation(id).await;
    assert_eq!(untouched.state, OperationState::Queued);
    assert_eq!(untouched.generation, 0, "no worker has taken it");
}

#[tokio::test]
async fn an_operation_past_its_deadline_fails_and_says_where_it_stood() {
    let never = SimConfig {
        boots_after: Duration::from_hours(1),
        ..SimConfig::default()
    };
    let (app, partner, clock) = with_clock(never).await;
    let _worker = worker(&app, "main");
    let project = partner.begin_project("late").await;
    let id = app.newest_operation(project).await.id;
    eventually("it waits for the backend", SOON, async || {
        let row = app.operation(id).await;
        (row.step == "await_backend" && row.state == OperationState::Waiting).then_some(())
    })
    .await;
    clock.advance(TimeDelta::minutes(19));
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(app.status_of(project).await, ProjectStatus::Provisioning);
    clock.advance(TimeDelta::minutes(2));
    app.wait_for_status(project, ProjectStatus::Failed).await;
    let failed = app.operation(id).await;
    assert_eq!(failed.state, OperationState::Failed);
    let error = failed.error.unwrap();
    assert_eq!(error.code, "deadline_exceeded");
    assert!(error.message.contains("await_backend"), "{}", error.message);
}

#[tokio::test]
async fn a_provider_that_hangs_does_not_hold_an_operation_for_ever() {
    let (app, partner) = still(SimConfig::default()).await;
    app.sim
        .fail_next(Verb::Find, Fault::Hang(Duration::from_hours(1)));
    let _worker = app.start_worker(WorkerConfig {
        step_timeout: Duration::from_millis(300),
        ..app.worker_config("main")
    });
    let project = partner.begin_project("hang").await;
    app.wait_for_status(project, ProjectStatus::Active).await;
    app.assert_truth().await;
}

/// Waits until the attempt of this number has failed.
async fn attempted(app: &App, id: OperationId, attempts: i32) -> DateTime<Utc> {
    eventually(
        &format!("attempt {attempts} has failed"),
        SOON,
        async || {
            let row = app.operation(id).await;
            (row.attempts == attempts && row.state == OperationState::Waiting)
                .then_some(row.next_attempt_at)
        },
    )
    .await
}

#[tokio::test]
async fn retries_back_off_and_give_up_without_the_providers_own_words() {
    let (app, partner, clock) = with_clock(SimConfig::default()).await;
    let most = OperationKind::Provision.max_attempts();
    app.sim.fail_times(
        Verb::Launch,
        Fault::BeforeEffect,
        usize::try_from(most).unwrap(),
    );
    let _worker = worker(&app, "main");
    let project = partner.begin_project("retries").await;
    let id = app.newest_operation(project).await.id;
    for attempt in 1..most {
        let next = attempted(&app, id, attempt).await;
        let wait = (next - clock.now()).to_std().unwrap();
        let nominal = backoff(u32::try_from(attempt).unwrap());
        assert!(
            wait >= nominal / 2 && wait <= nominal * 3 / 2,
            "attempt {attempt}: {wait:?}"
        );
        assert_eq!(
            app.sim.calls(Verb::Launch),
            usize::try_from(attempt).unwrap(),
            "not tried before its time"
        );
        clock.advance(next - clock.now());
    }
    app.wait_for_status(project, ProjectStatus::Failed).await;
    let failed = app.operation(id).await;
    assert_eq!(app.sim.calls(Verb::Launch), usize::try_from(most).unwrap());
    let error = failed.error.unwrap();
    assert_eq!(error.code, "provider_error");
    // A provider's words may name paths and accounts of ours; they are for the log.
    assert!(
        !error.message.contains("simulated fault"),
        "{}",
        error.message
    );
    let shown = partner.metadata(&project.to_string()).await.expect(200);
    assert_eq!(shown["project"]["status"], "failed", "{shown}");
}

#[tokio::test]
async fn a_refusal_fails_at_once_and_an_operators_retry_resumes() {
    let (app, partner) = still(SimConfig::default()).await;
    app.sim.fail_next(Verb::Launch, Fault::Permanent);
    let _worker = worker(&app, "main");
    let project = partner.begin_project("refused").await;
    app.wait_for_status(project, ProjectStatus::Failed).await;
    let failed = app.newest_operation(project).await;
    assert_eq!(failed.error.unwrap().code, "provider_refused");
    assert_eq!(app.sim.calls(Verb::Launch), 1);
    let intended = app.machine_of(project).await.unwrap().id;

    let retried = app
        .control_plane
        .retry_operation(failed.id, false)
        .await
        .unwrap();
    assert_eq!((retried.id, retried.attempts), (failed.id, 0));
    app.wait_for_status(project, ProjectStatus::Active).await;
    app.assert_truth().await;
    assert_eq!(app.machine_of(project).await.unwrap().id, intended);
    assert_eq!(app.operation(failed.id).await.error, None);
    let again = app.control_plane.retry_operation(failed.id, false).await;
    assert!(matches!(again, Err(DomainError::Conflict(_))), "{again:?}");
}

#[tokio::test]
async fn a_cancelled_operation_fails_its_project_and_can_be_begun_anew() {
    let (app, partner) = still(SimConfig::default()).await;
    let project = partner.begin_project("cancelled").await;
    let cancelled = app.newest_operation(project).await;
    app.control_plane
        .cancel_operation(cancelled.id)
        .await
        .unwrap();
    assert_eq!(app.status_of(project).await, ProjectStatus::Failed);
    let again = app.control_plane.cancel_operation(cancelled.id).await;
    assert!(matches!(again, Err(DomainError::Conflict(_))), "{again:?}");

    let anew = app
        .control_plane
        .retry_operation(cancelled.id, false)
        .await
        .unwrap();
    assert_eq!(anew.kind, OperationKind::Provision);
    assert_ne!(anew.id, cancelled.id);
    assert_eq!(
        app.operation(cancelled.id).await.state,
        OperationState::Cancelled
    );
    let _worker = worker(&app, "main");
    app.wait_for_status(project, ProjectStatus::Active).await;
    app.assert_truth().await;
    let stale = app.control_plane.retry_operation(cancelled.id, false).await;
    assert!(matches!(stale, Err(DomainError::Conflict(_))), "{stale:?}");
}

#[tokio::test]
async fn a_cancelled_operation_is_not_begun_anew_before_its_worker_has_let_go() {
    let (app, partner) = still(SimConfig::default()).await;
    app.sim
        .fail_next(Verb::Launch, Fault::Hang(Duration::from_mins(10)));
    let _worker = app.start_worker(WorkerConfig {
        lease: Duration::from_secs(6),
        ..app.worker_config("main")
    });
    let project = partner.begin_project("cancelled").await;
    let id = app.newest_operation(project).await.id;
    eventually("the launch hangs", SOON, async || {
        (!app.sim.alive().is_empty()).then_some(())
    })
    .await;
    app.control_plane.cancel_operation(id).await.unwrap();
    let early = app.control_plane.retry_operation(id, false).await;
    assert!(
        matches!(&early, Err(DomainError::Conflict(text)) if text.contains("not let go")),
        "{early:?}"
    );
    // Its next renewal tells the worker; nobody waits for the whole lease.
    eventually("the retry is taken", Duration::from_secs(4), async || {
        app.control_plane.retry_operation(id, false).await.ok()
    })
    .await;
    app.wait_for_status(project, ProjectStatus::Active).await;
    app.assert_truth().await;
    assert_eq!(app.sim.calls(Verb::Launch), 1);
}

#[tokio::test]
async fn a_project_deleted_in_the_middle_of_a_launch_leaves_no_machine() {
    let (app, partner) = still(SimConfig::default()).await;
    app.sim
        .fail_next(Verb::Launch, Fault::Hang(Duration::from_mins(10)));
    let _worker = app.start_worker(WorkerConfig {
        orphan_grace: Duration::from_mins(10),
        ..app.worker_config("main")
    });
    let project = partner.begin_project("deleted").await;
    let provision = app.newest_operation(project).await.id;
    eventually("the launch hangs", SOON, async || {
        (!app.sim.alive().is_empty()).then_some(())
    })
    .await;
    partner
        .delete_project(&project.to_string())
        .await
        .expect(200);
    partner.metadata(&project.to_string()).await.expect(404);
    app.wait_for_status(project, ProjectStatus::Deleted).await;
    assert_eq!(app.sim.alive(), Vec::new());
    app.assert_truth().await;
    assert_eq!(
        app.operation(provision).await.state,
        OperationState::Cancelled
    );
}

#[tokio::test]
async fn no_two_workers_run_one_operation_at_once() {
    #[derive(Default)]
    struct Runs {
        now: HashMap<OperationId, u32>,
        most: u32,
        steps: u32,
    }
    let (app, partner) = still(SimConfig::default()).await;
    let runs = Arc::new(Mutex::new(Runs::default()));
    let seen = runs.clone();
    let hook: CrashHook = Arc::new(move |site| {
        let runs = seen.clone();
        Box::pin(async move {
            match site.point {
                CrashPoint::BeforeEffect => {
                    let mut runs = runs.lock().expect("no holder panics");
                    runs.steps += 1;
                    let now = runs.now.entry(site.operation).or_default();
                    *now += 1;
                    let now = *now;
                    runs.most = runs.most.max(now);
                }
                // Steps that outlast the lease several times: renewals must keep it.
                CrashPoint::AfterEffect => tokio::time::sleep(Duration::from_millis(400)).await,
                CrashPoint::AfterRecord => {
                    *runs
                        .lock()
                        .expect("no holder panics")
                        .now
                        .entry(site.operation)
                        .or_default() -= 1;
                }
            }
        })
    });
    let workers = ["one", "two", "three"].map(|name| {
        app.start_worker(WorkerConfig {
            lease: Duration::from_millis(700),
            sweep_every: Duration::from_millis(20),
            crash_hook: Some(hook.clone()),
            ..app.worker_config(name)
        })
    });
    let projects = futures::future::join_all((0..12).map(|n| {
        let partner = &partner;
        async move { partner.begin_project(&format!("p{n}")).await }
    }))
    .await;
    // Wake-ups by the dozen, as a storm of reports would send them.
    let mut conn = app.database.connect().await;
    for _ in 0..10 {
        for project in &projects {
            sqlx::query("update operations set wakes = wakes + 1, next_attempt_at = now() where project_id = $1 and finished_at is null")
                .bind(project.0)
                .execute(&mut conn)
                .await
                .unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for project in &projects {
        app.wait_for_status(*project, ProjectStatus::Active).await;
    }
    app.assert_truth().await;
    drop(workers);
    let runs = runs.lock().unwrap();
    assert!(runs.steps >= 4 * 12, "{} steps", runs.steps);
    assert_eq!(runs.most, 1);
    assert_eq!(app.sim.calls(Verb::Launch), 12);
}

#[tokio::test]
async fn waiting_operations_hold_no_connection() {
    const PROJECTS: usize = 50;
    let slow = SimConfig {
        boots_after: Duration::from_secs(5),
        ..SimConfig::default()
    };
    let (app, partner) = still(slow).await;
    let _worker = worker(&app, "main");
    let mut projects = Vec::<ProjectId>::new();
    for n in 0..PROJECTS {
        projects.push(partner.begin_project(&format!("p{n}")).await);
    }
    let mut conn = app.database.connect().await;
    eventually("all wait", SOON, async || {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from operations where state = 'waiting' and step = 'await_backend'",
        )
        .fetch_one(&mut conn)
        .await
        .ok()?;
        (usize::try_from(waiting) == Ok(PROJECTS)).then_some(())
    })
    .await;
    let (mut busy, mut samples) = (0, 0);
    while samples < 60 {
        let now: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = current_database()
             and backend_type = 'client backend' and state <> 'idle' and pid <> pg_backend_pid()",
        )
        .fetch_one(&mut conn)
        .await
        .unwrap();
        busy += now;
        samples += 1;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert!(
        busy <= 2 * samples,
        "{busy} busy connections in {samples} looks"
    );
    for project in projects {
        app.wait_for_status(project, ProjectStatus::Active).await;
    }
    app.assert_truth().await;
    assert_eq!(app.sim.alive().len(), PROJECTS);
}

#[tokio::test]
async fn one_operation_at_most_is_in_flight_on_a_project() {
    let (app, partner) = still(SimConfig::default()).await;
    let mut main = worker(&app, "main");
    let project = partner.begin_project("busy").await;
    app.wait_for_status(project, ProjectStatus::Active).await;
    main = {
        main.kill();
        let calls = (0..10).map(|n| {
            let partner = &partner;
            async move {
                let verb = if n % 2 == 0 { "pause" } else { "restart" };
                partner
                    .post(&format!("/{project}/{verb}"), &json!({}))
                    .await
            }
        });
        let answers = futures::future::join_all(calls).await;
        let taken = answers.iter().filter(|a| a.status < 300).count();
        assert_eq!(taken, 1, "{answers:?}");
        let winner = app.newest_operation(project).await.id.to_string();
        for refused in answers.into_iter().filter(|a| a.status >= 300) {
            let text = refused.text.clone();
            refused.expect_code(409, "operation_in_progress");
            assert!(text.contains(&winner), "{text}");
        }
        // The index has the last word, whatever the code does.
        let second = sqlx::query(
            "insert into operations (id, project_id, kind, state, step, max_attempts, next_attempt_at, requested_by, request_id, created_at)
             values (gen_random_uuid(), $1, 'pause', 'queued', 'stop_machine', 8, now(), 'test', '-', now())",
        )
        .bind(project.0)
        .execute(&mut app.database.connect().await)
        .await
        .unwrap_err();
        let constraint = second
            .as_database_error()
            .and_then(|e| e.constraint())
            .map(str::to_owned);
        assert_eq!(constraint.as_deref(), Some("operations_in_flight_key"));
        worker(&app, "main")
    };
    app.settle().await;
    app.assert_truth().await;
    drop(main);
}
