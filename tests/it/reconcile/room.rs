//! When the provider has no room.

use super::*;

#[tokio::test]
async fn want_of_room_is_waited_for_however_often_it_takes() {
    let (app, partner) = with_pool(0).await;
    app.sim.fail_times(Verb::Launch, Fault::Capacity, 12);
    let project = active(&partner).await;
    assert_eq!(app.newest_operation(project).await.attempts, 0);
    partner.pause(&project.to_string()).await.expect(200);
    app.sim.fail_times(Verb::Start, Fault::Capacity, 12);
    partner.restore(&project.to_string()).await.expect(200);
    app.assert_truth().await;
}

#[tokio::test]
async fn nobody_pays_for_a_machine_that_waits_for_room() {
    let (app, partner) = with_pool(0).await;
    let project = paused(&partner).await;
    app.sim.fail_times(Verb::Start, Fault::Capacity, 1000);
    let restoring = tokio::spawn({
        let (partner, id) = (partner.clone(), project.to_string());
        async move { partner.restore(&id).await }
    });
    eventually("it waits for room", SOON, async || {
        let error = app.newest_operation(project).await.error?;
        (error.code == "no_capacity").then_some(())
    })
    .await;
    let open = "select count(*) from machine_runs where stopped_at is null";
    let mut conn = app.database.connect().await;
    sqlx::query("update operations set deadline_at = now() where finished_at is null")
        .execute(&mut conn)
        .await
        .unwrap();
    app.wait_for_status(project, ProjectStatus::Failed).await;
    restoring.await.unwrap().expect(200);
    let runs: i64 = sqlx::query_scalar(open).fetch_one(&mut conn).await.unwrap();
    assert_eq!(runs, 0);
    assert_eq!(machine(&app, project).await.state, MachineState::Stopped);
    let starts = app.sim.calls(Verb::Start);
    tokio::time::sleep(app.worker_config("").reconcile_every * 5).await;
    assert_eq!(app.sim.calls(Verb::Start), starts, "nobody starts it");
}

#[tokio::test]
async fn want_of_room_ends_with_the_deadline_and_says_so() {
    let (app, partner) = with_pool(0).await;
    app.sim.fail_times(Verb::Launch, Fault::Capacity, 1000);
    let begun = tokio::spawn({
        let partner = partner.clone();
        async move { partner.begin_project("shop").await }
    });
    eventually("it waits for room", SOON, async || {
        let all = app
            .control_plane
            .list_operations(None, None, 1)
            .await
            .ok()?;
        let code = all.first()?.error.as_ref()?.code.clone();
        (code == "no_capacity").then_some(())
    })
    .await;
    sqlx::query("update operations set deadline_at = now() + interval '2 seconds'")
        .execute(&mut app.database.connect().await)
        .await
        .unwrap();
    let project = begun.await.unwrap();
    app.wait_for_status(project, ProjectStatus::Failed).await;
    let failed = app.newest_operation(project).await;
    assert_eq!(failed.error.unwrap().code, "no_capacity");
    assert_eq!(failed.attempts, 0);
}

#[tokio::test]
async fn a_warm_machine_that_waited_long_for_its_launch_may_boot_as_long_as_any() {
    let app = App::start_with(AppOptions {
        sim: SimConfig {
            boots_after: Duration::from_secs(2),
            ..SimConfig::default()
        },
        worker: false,
        ..AppOptions::default()
    })
    .await;
    let plan = app
        .control_plane
        .plan_pool("sim", Region::UsEast, InstanceType::Nano, 1, 1)
        .await
        .unwrap();
    sqlx::query("update machines set created_at = now() - interval '1 hour'")
        .execute(&mut app.database.connect().await)
        .await
        .unwrap();
    let _worker = app.start_worker(WorkerConfig {
        pool: App::warm_pool(1),
        ..app.worker_config("late")
    });
    assert_eq!(warm(&app, 1).await, plan.launch);
    assert_eq!(app.sim.calls(Verb::Launch), 1);
}
