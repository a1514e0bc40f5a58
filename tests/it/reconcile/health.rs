//! What the provider says of machines and disks that nobody asked it for.

use super::*;

#[tokio::test]
async fn an_ailing_machine_is_stopped_and_started_once() {
    let (app, partner) = with_pool(0).await;
    for ailment in [Ailment::Impaired, Ailment::Retiring] {
        let project = active(&partner).await;
        let own = machine(&app, project).await;
        let rest = app.worker_config("main").impaired_grace * 3;
        tokio::time::sleep(rest).await;
        let stops = app.sim.calls(Verb::Stop);
        app.sim.ail(own.provider_ref.as_deref().unwrap(), ailment);
        eventually("it was stopped and runs again", SOON, async || {
            let stopped = app.sim.calls(Verb::Stop) > stops;
            (stopped && power(&app, own.id) == Some(Power::Running)).then_some(())
        })
        .await;
        app.assert_truth().await;
        assert_eq!(app.status_of(project).await, ProjectStatus::Active);
        assert_eq!(app.sim.calls(Verb::Stop), stops + 1);
        assert_eq!(audited(&app, "machine.moved", own.id).await, 1);
        assert_eq!(audited(&app, "machine.started_again", own.id).await, 1);
    }
}

#[tokio::test]
async fn what_ails_only_for_a_moment_stays_where_it_is() {
    let mut app = App::start().await;
    let partner = app.partner().await;
    let own = machine(&app, active(&partner).await).await;
    app.kill_worker();
    tokio::time::sleep(Duration::from_secs(1)).await;
    app.sim
        .ail(own.provider_ref.as_deref().unwrap(), Ailment::Impaired);
    let _worker = app.start_worker(WorkerConfig {
        impaired_grace: Duration::from_hours(1),
        ..app.worker_config("patient")
    });
    let rounds = app.sim.calls(Verb::Ailing);
    eventually("it was looked at", SOON, async || {
        (app.sim.calls(Verb::Ailing) > rounds + 4 * Region::ALL.len()).then_some(())
    })
    .await;
    assert_eq!(app.sim.calls(Verb::Stop), 0);
}

/// Checks fail for what its owner does with a machine, too.
#[tokio::test]
async fn what_serves_is_not_moved_for_a_failed_check_but_for_its_retirement() {
    let mut app = App::start().await;
    let partner = app.partner().await;
    let own = machine(&app, active(&partner).await).await;
    app.kill_worker();
    let worker = app.worker_config("main");
    tokio::time::sleep(worker.impaired_grace * 3).await;
    let reference = own.provider_ref.as_deref().unwrap();
    app.sim.ail(reference, Ailment::Impaired);
    let _worker = app.start_worker(WorkerConfig {
        // Its agent's last word counts for that long.
        missing_grace: Duration::from_mins(1),
        ..worker
    });
    tokio::time::sleep(app.worker_config("").impaired_grace * 3).await;
    let rounds = app.sim.calls(Verb::Ailing);
    eventually("it was looked at", SOON, async || {
        (app.sim.calls(Verb::Ailing) > rounds + 4 * Region::ALL.len()).then_some(())
    })
    .await;
    assert_eq!(app.sim.calls(Verb::Stop), 0);
    app.sim.ail(reference, Ailment::Retiring);
    eventually("it was stopped", SOON, async || {
        (app.sim.calls(Verb::Stop) == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_ailing_warm_machine_is_replaced() {
    let (app, _partner) = with_pool(1).await;
    let [id] = warm(&app, 1).await.try_into().unwrap();
    let row = app.control_plane.find_machine(id).await.unwrap().unwrap();
    app.sim.ail(&row.provider_ref.unwrap(), Ailment::Retiring);
    eventually("another one is warm", SOON, async || {
        let now = pooled(&app).await;
        (now.len() == 1 && now[0] != id).then_some(())
    })
    .await;
    eventually("it is gone", SOON, async || {
        power(&app, id).is_none().then_some(())
    })
    .await;
    assert_eq!(audited(&app, "machine.terminating", id).await, 1);
}

#[tokio::test]
async fn disks_are_deleted_once_nobody_can_need_them() {
    let (app, partner) = with_pool(0).await;
    let lost = active(&partner).await;
    let kept = machine(&app, lost).await.id;
    app.sim.vanish(kept);
    app.wait_for_status(lost, ProjectStatus::Failed).await;
    let deleted = active(&partner).await;
    let gone = machine(&app, deleted).await.id;
    partner
        .delete_project(&deleted.to_string())
        .await
        .expect(200);
    app.wait_for_status(deleted, ProjectStatus::Deleted).await;
    let began = tokio::time::Instant::now();
    let nobodys = MachineId::generate();
    let rescue = app.sim.leave_behind(Region::UsEast, kept);
    app.sim.leave_behind(Region::UsEast, gone);
    app.sim.leave_behind(Region::UsEast, nobodys);
    eventually("one is left", SOON, async || {
        (app.sim.left_behind().len() == 1).then_some(())
    })
    .await;
    let grace = app.worker_config("main").orphan_grace;
    assert!(began.elapsed() >= grace, "gone after {:?}", began.elapsed());
    for id in [gone, nobodys] {
        assert_eq!(audited(&app, "machine.disk_deleted", id).await, 1);
    }
    // All that is left of somebody's data.
    tokio::time::sleep(grace * 2).await;
    assert_eq!(app.sim.left_behind(), [rescue]);
}

#[tokio::test]
async fn disks_are_spared_where_orphans_are() {
    let app = App::start_with(AppOptions {
        worker: false,
        ..AppOptions::default()
    })
    .await;
    let _worker = app.start_worker(WorkerConfig {
        spare_orphans: true,
        ..app.worker_config("restored")
    });
    let disk = app.sim.leave_behind(Region::UsEast, MachineId::generate());
    tokio::time::sleep(app.worker_config("").orphan_grace * 4).await;
    assert_eq!(app.sim.left_behind(), [disk]);
}
