//! Machines that get another size or a bigger disk, releases that do not become healthy, and the
//! way back from both.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use cp_model::{InstanceType, MachineState, OperationState, ProjectId, ProjectStatus};
use cp_provider::sim::{Fault, Verb};
use cp_tests::{Answer, App, AppOptions, MovingClock, PartnerClient, eventually};
use serde_json::{Value, json};

struct Story {
    app: App,
    partner: PartnerClient,
    clock: Arc<MovingClock>,
    /// Of an active project, nano with 8 GiB.
    id: String,
}

impl Story {
    async fn start() -> Self {
        let clock = MovingClock::new();
        let app = App::start_with(AppOptions {
            clock: clock.clone(),
            ..AppOptions::default()
        })
        .await;
        let partner = app.partner().await;
        let id = partner.create_active_project("shop").await;
        Self {
            app,
            partner,
            clock,
            id,
        }
    }

    fn project(&self) -> ProjectId {
        self.id.parse().unwrap()
    }

    async fn ask(&self, verb: &str, body: Value) -> Answer {
        let path = format!("/{}/{verb}", self.id);
        self.partner.post(&path, &body).await
    }

    async fn upgrade(&self, to: &str, gib: i32) -> Answer {
        let body = json!({
            "instance_type": to, "volume_size_gib": gib, "wait_for_completion": true
        });
        self.ask("upgrade", body).await
    }

    fn answer(&self, message: &str, from: (&str, i32), to: (&str, i32)) -> Value {
        json!({
            "message": message,
            "previousInstanceType": from.0, "newInstanceType": to.0,
            "previousVolumeSizeGiB": from.1, "newVolumeSizeGiB": to.1,
            "project": { "id": self.id, "status": "active" },
        })
    }

    /// The newest operation has failed so, and the project is as well as before.
    async fn assert_turned_back(&self, code: &str) {
        let operation = self.app.newest_operation(self.project()).await;
        assert_eq!(operation.state, OperationState::Failed, "{operation:?}");
        let failure = operation.error.expect("a reason");
        assert_eq!(failure.code, code, "{failure:?}");
        let path = format!("/operations/{}", operation.id);
        let told = self.partner.get(&path).await.expect(200);
        assert_eq!(told["operation"]["error"]["code"], code);
        self.app.assert_truth().await;
        let metadata = self.partner.metadata(&self.id).await.expect(200);
        assert_eq!(metadata["project"]["status"], "active");
        assert_eq!(metadata["project"].get("failure"), None);
    }
}

#[tokio::test]
async fn a_project_gets_another_size_and_a_bigger_disk() {
    let story = Story::start().await;
    let before = story.app.machine_of(story.project()).await.unwrap();
    let done = story.upgrade("small", 20).await.expect(200);
    let expected = story.answer("Project upgraded successfully", ("nano", 8), ("small", 20));
    assert_eq!(done, expected);
    story.app.assert_truth().await;

    let after = story.app.machine_of(story.project()).await.unwrap();
    assert_eq!(after.id, before.id, "its disk is the same");
    assert_eq!(after.provider_ref, before.provider_ref);
    assert_eq!(
        (after.instance_type, after.volume_gib),
        (InstanceType::Small, 20)
    );
    let metadata = story.partner.metadata(&story.id).await.expect(200);
    assert_eq!(metadata["project"]["instance_type"], "small");
    // Stopped time is nobody's.
    assert_eq!(story.app.database.count("machine_runs").await, 2);

    // Down again; what is left out stays.
    let body = json!({ "instance_type": "micro", "wait_for_completion": true });
    let done = story.ask("upgrade", body).await.expect(200);
    let expected = story.answer(
        "Project upgraded successfully",
        ("small", 20),
        ("micro", 20),
    );
    assert_eq!(done, expected);
    story.app.assert_truth().await;
}

#[tokio::test]
async fn a_bigger_disk_alone_interrupts_nobody() {
    let story = Story::start().await;
    let body = json!({ "volume_size_gib": 9, "wait_for_completion": true });
    let done = story.ask("upgrade", body).await.expect(200);
    let expected = story.answer("Project upgraded successfully", ("nano", 8), ("nano", 9));
    assert_eq!(done, expected);
    assert_eq!(story.app.sim.calls(Verb::Stop), 0);
    assert_eq!(story.app.database.count("machine_runs").await, 1);
    story.app.assert_truth().await;

    let refused = story.ask("upgrade", json!({ "volume_size_gib": 8 })).await;
    let refused = refused.expect_code(400, "invalid_input");
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("volume_size_gib must be at least 9"),
        "{message}"
    );
}

#[tokio::test]
async fn a_size_that_it_has_already_is_nothing_to_do() {
    let story = Story::start().await;
    let operations = story.app.database.count("operations").await;
    let done = story.upgrade("nano", 8).await.expect(200);
    let expected = story.answer("Project has this size already", ("nano", 8), ("nano", 8));
    assert_eq!(done, expected);
    assert_eq!(story.app.database.count("operations").await, operations);
}

#[tokio::test]
async fn only_active_projects_are_upgraded() {
    let story = Story::start().await;
    story.partner.pause(&story.id).await.expect(200);
    let refused = story.upgrade("small", 8).await;
    refused.expect_code(409, "project_wrong_status");
}

#[tokio::test]
async fn who_does_not_wait_is_told_what_it_will_be() {
    let mut story = Story::start().await;
    story.app.settle().await;
    story.app.kill_worker();
    let begun = story.ask("upgrade", json!({ "instance_type": "xl" })).await;
    let mut expected = story.answer("Project is being upgraded", ("nano", 8), ("xl", 8));
    expected["project"]["status"] = json!("upgrading");
    assert_eq!(begun.expect(200), expected);
    let again = story.ask("upgrade", json!({ "instance_type": "xl" })).await;
    let refused = again.expect_code(409, "operation_in_progress");
    assert_eq!(refused["operation"]["kind"], "upgrade");
}

#[tokio::test]
async fn without_room_for_the_new_size_it_has_the_old_one_again() {
    let story = Story::start().await;
    story.app.sim.fail_next(Verb::Start, Fault::Capacity);
    let done = story.upgrade("8xl", 8).await.expect(200);
    let message = "there is no room for instance type 8xl at the moment; try again later; \
                   the project runs with nano as before";
    assert_eq!(done, story.answer(message, ("nano", 8), ("nano", 8)));
    story.assert_turned_back("no_capacity").await;
}

#[tokio::test]
async fn a_size_that_the_provider_refuses_is_given_up_and_the_disk_stays_bigger() {
    let story = Story::start().await;
    story.app.sim.fail_next(Verb::Resize, Fault::Permanent);
    let done = story.upgrade("16xl", 12).await.expect(200);
    let answer = story.answer("", ("nano", 8), ("nano", 12));
    assert_eq!(done["newInstanceType"], answer["newInstanceType"]);
    assert_eq!(done["newVolumeSizeGiB"], 12);
    story.assert_turned_back("provider_refused").await;
}

#[tokio::test]
async fn a_disk_that_may_not_grow_now_interrupts_nobody() {
    let story = Story::start().await;
    story.app.sim.fail_next(Verb::GrowVolume, Fault::Capacity);
    let done = story.upgrade("small", 100).await.expect(200);
    assert_eq!(done["newVolumeSizeGiB"], 8);
    let message = done["message"].as_str().unwrap();
    assert!(message.contains("once in six hours"), "{message}");
    assert_eq!(story.app.sim.calls(Verb::Stop), 0);
    story.assert_turned_back("volume_not_grown").await;
}

#[tokio::test]
async fn a_machine_that_does_not_come_back_gets_its_old_size_again() {
    let story = Story::start().await;
    story.app.agents.keep_down(InstanceType::Large);
    story
        .ask("upgrade", json!({ "instance_type": "large" }))
        .await
        .expect(200);
    let at = async |step: &str| {
        let operation = story.app.newest_operation(story.project()).await;
        (operation.step == step && operation.state == OperationState::Waiting).then_some(())
    };
    let soon = Duration::from_secs(10);
    eventually("it waits for the backend", soon, async || {
        at("await_backend").await
    })
    .await;
    // Not yet: big machines take their time.
    story.clock.advance(TimeDelta::minutes(15));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        story.app.status_of(story.project()).await,
        ProjectStatus::Upgrading
    );
    story.clock.advance(TimeDelta::minutes(6));
    story
        .app
        .wait_for_status(story.project(), ProjectStatus::Active)
        .await;
    story.assert_turned_back("upgrade_rolled_back").await;
    let machine = story.app.machine_of(story.project()).await.unwrap();
    assert_eq!(machine.instance_type, InstanceType::Nano);
}

#[tokio::test]
async fn a_step_that_fails_again_and_again_turns_back_in_time() {
    let story = Story::start().await;
    story
        .app
        .sim
        .fail_times(Verb::Resize, Fault::BeforeEffect, 5);
    story
        .ask("upgrade", json!({ "instance_type": "large" }))
        .await
        .expect(200);
    // Its pauses are long by then.
    let hurry = "update operations set next_attempt_at = now() where finished_at is null";
    eventually("it has turned back", Duration::from_secs(20), async || {
        let mut conn = story.app.database.connect().await;
        sqlx::query(hurry).execute(&mut conn).await.ok()?;
        let status = story.app.status_of(story.project()).await;
        (status == ProjectStatus::Active).then_some(())
    })
    .await;
    story.assert_turned_back("upgrade_rolled_back").await;
}

#[tokio::test]
async fn a_machine_that_vanishes_meanwhile_is_told_and_rebuilt_with_its_size() {
    let story = Story::start().await;
    story.app.agents.keep_down(InstanceType::Large);
    story.upgrade_in_background("large", 30).await;
    let machine = story.app.machine_of(story.project()).await.unwrap();
    assert_eq!(machine.instance_type, InstanceType::Large);
    story.app.sim.vanish(machine.id);
    story
        .app
        .wait_for_status(story.project(), ProjectStatus::Failed)
        .await;
    let failed = story.app.newest_operation(story.project()).await;
    assert_eq!(failed.error.unwrap().code, "machine_lost");
    // What it shall be rebuilt with comes up.
    story.app.agents.let_up(InstanceType::Large);
    let retried = story
        .app
        .control_plane
        .retry_operation(failed.id, true)
        .await;
    retried.unwrap();
    story
        .app
        .wait_for_status(story.project(), ProjectStatus::Active)
        .await;
    story.app.assert_truth().await;
    let rebuilt = story.app.machine_of(story.project()).await.unwrap();
    assert_ne!(rebuilt.id, machine.id);
    assert_eq!(
        (rebuilt.instance_type, rebuilt.volume_gib),
        (InstanceType::Large, 30)
    );
}

#[tokio::test]
async fn what_an_operator_cancelled_goes_on_with_a_retry() {
    let story = Story::start().await;
    story.app.agents.keep_down(InstanceType::Large);
    story.upgrade_in_background("large", 30).await;
    let operation = story.app.newest_operation(story.project()).await;
    let control_plane = &story.app.control_plane;
    control_plane.cancel_operation(operation.id).await.unwrap();
    assert_eq!(
        story.app.status_of(story.project()).await,
        ProjectStatus::Failed
    );
    story.app.agents.let_up(InstanceType::Large);
    let soon = Duration::from_secs(10);
    eventually("the cancelled one is let go", soon, async || {
        control_plane
            .retry_operation(operation.id, false)
            .await
            .ok()
    })
    .await;
    // Its agent sleeps until the machine boots again.
    let machine = story.app.machine_of(story.project()).await.unwrap();
    story.app.sim.crash(machine.id);
    story
        .app
        .wait_for_status(story.project(), ProjectStatus::Active)
        .await;
    story.app.assert_truth().await;
    let machine = story.app.machine_of(story.project()).await.unwrap();
    assert_eq!(
        (machine.instance_type, machine.volume_gib),
        (InstanceType::Large, 30)
    );
    assert_eq!(machine.state, MachineState::Ready);
}

#[tokio::test]
async fn a_way_back_that_failed_is_gone_again_with_a_retry() {
    let story = Story::start().await;
    story.app.sim.fail_next(Verb::Start, Fault::Capacity);
    story.app.sim.fail_next(Verb::Start, Fault::Permanent);
    let done = story.upgrade("large", 8).await.expect(200);
    assert_eq!(done["project"]["status"], "failed", "{done}");
    assert_eq!(done["newInstanceType"], "nano", "{done}");
    let failed = story.app.newest_operation(story.project()).await;
    let control_plane = &story.app.control_plane;
    control_plane
        .retry_operation(failed.id, false)
        .await
        .unwrap();
    story
        .app
        .wait_for_status(story.project(), ProjectStatus::Active)
        .await;
    story.assert_turned_back("no_capacity").await;
}

#[tokio::test]
async fn a_release_that_does_not_become_healthy_is_given_up() {
    let story = Story::start().await;
    let restart =
        |release: &str| json!({ "insforge_oss_version": release, "wait_for_completion": true });
    let answer = |message: &str, release: &str| {
        json!({
            "message": message, "insforgeOssVersion": release,
            "project": { "id": story.id, "status": "active" },
        })
    };
    story.ask("restart", restart("v2.3.1")).await.expect(200);
    story.app.agents.sicken("v9.9.9");
    let done = story.ask("restart", restart("v9.9.9")).await;
    let message = "release v9.9.9 did not become healthy; the project runs v2.3.1 as before";
    assert_eq!(done.expect(200), answer(message, "v2.3.1"));
    story.assert_turned_back("release_rolled_back").await;
    let machine = story.app.machine_of(story.project()).await.unwrap();
    assert!(machine.serves_as_desired(), "{machine:?}");
    assert_eq!(machine.backend_release.as_deref(), Some("v2.3.1"));

    // The next one is not held against it.
    let again = story
        .ask("restart", json!({ "wait_for_completion": true }))
        .await;
    assert_eq!(
        again.expect(200),
        answer("Project restarted successfully", "v2.3.1")
    );
    let newer = story.ask("restart", restart("v2.3.2")).await;
    assert_eq!(
        newer.expect(200),
        answer("Project restarted successfully", "v2.3.2")
    );
}

impl Story {
    /// Begins an upgrade to a size with which the machine does not come up, and waits until it is
    /// waited for.
    async fn upgrade_in_background(&self, to: &str, gib: i32) {
        let body = json!({ "instance_type": to, "volume_size_gib": gib });
        self.ask("upgrade", body).await.expect(200);
        let soon = Duration::from_secs(10);
        eventually("it waits for the backend", soon, async || {
            let operation = self.app.newest_operation(self.project()).await;
            let waits = operation.state == OperationState::Waiting;
            (operation.step == "await_backend" && waits).then_some(())
        })
        .await;
    }
}
