//! A provider's list, or our own rows, that can hardly be true.

use super::*;

#[tokio::test]
async fn a_list_without_most_machines_makes_nobody_lost() {
    let (app, partner) = with_pool(0).await;
    let mut projects = Vec::new();
    for _ in 0..5 {
        projects.push(paused(&partner).await);
    }
    app.sim.hide_all(true);
    let lists = app.sim.calls(Verb::List);
    eventually("many rounds have seen nothing", SOON, async || {
        (app.sim.calls(Verb::List) > lists + 8 * Region::ALL.len()).then_some(())
    })
    .await;
    for project in &projects {
        assert_eq!(app.status_of(*project).await, ProjectStatus::Paused);
        assert_eq!(machine(&app, *project).await.missing_since, None);
    }
    // What asks for one of them itself does not believe it, either.
    let restoring = projects[0];
    let path = format!("/{restoring}/restore");
    let body = serde_json::json!({});
    let (answer, ()) = tokio::join!(partner.post(&path, &body), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        app.sim.hide_all(false);
    });
    answer.expect(200);
    app.assert_truth().await;
    assert_eq!(app.status_of(restoring).await, ProjectStatus::Active);
}

/// As with an empty database, or another one's.
#[tokio::test]
async fn rows_without_most_machines_make_no_orphans() {
    let (app, partner) = with_pool(0).await;
    let project = active(&partner).await;
    let strays: Vec<MachineId> = (0..5).map(|_| MachineId::generate()).collect();
    for stray in &strays {
        launch_stray(&app, *stray).await;
    }
    let disk = app.sim.leave_behind(Region::UsEast, strays[0]);
    tokio::time::sleep(app.worker_config("").orphan_grace * 4).await;
    for stray in &strays {
        assert!(power(&app, *stray).is_some(), "{stray} was ended");
    }
    assert_eq!(app.sim.left_behind(), [disk]);
    assert_eq!(app.status_of(project).await, ProjectStatus::Active);
    // Somebody has looked.
    let _worker = app.start_worker(WorkerConfig {
        believe_losses: true,
        ..app.worker_config("believer")
    });
    eventually("they are gone", SOON, async || {
        let mut strays = strays.iter();
        strays.all(|id| power(&app, *id).is_none()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_operator_who_knows_that_most_are_gone_is_believed() {
    let mut app = App::start().await;
    let partner = app.partner().await;
    let mut projects = Vec::new();
    for _ in 0..5 {
        projects.push(paused(&partner).await);
    }
    app.kill_worker();
    app.sim.hide_all(true);
    let _worker = app.start_worker(WorkerConfig {
        believe_losses: true,
        ..app.worker_config("believer")
    });
    for project in &projects {
        app.wait_for_status(*project, ProjectStatus::Failed).await;
    }
}

#[tokio::test]
async fn a_lost_machine_that_is_seen_again_and_stopped_stays_stopped() {
    let (app, partner) = with_pool(0).await;
    let project = paused(&partner).await;
    app.sim.hide_all(true);
    app.wait_for_status(project, ProjectStatus::Failed).await;
    let starts = app.sim.calls(Verb::Start);
    app.sim.hide_all(false);
    eventually("it is known again", SOON, async || {
        (machine(&app, project).await.state != MachineState::Lost).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(machine(&app, project).await.state, MachineState::Stopped);
    assert_eq!(app.sim.calls(Verb::Start), starts, "it would run unbilled");
    let failed = app.newest_operation(project).await;
    app.control_plane
        .retry_operation(failed.id, false)
        .await
        .unwrap();
    app.wait_for_status(project, ProjectStatus::Active).await;
    app.assert_truth().await;
}
