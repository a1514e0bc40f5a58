//! Compute seconds: exact over pause, restore, loss, deletion, midnight and leap days, for projects
//! and for their partner alike.

use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use cp_model::{MachineId, ProjectId, ProjectStatus};
use cp_storage::machine_runs;
use cp_tests::eventually;
use serde_json::json;

use super::reference::{Amounts, assert_figures, read_days, read_partner, read_project};
use super::{Story, at, day, midnight};

const COMPUTE: usize = 8;

impl Story {
    /// A project without runs so far, and a machine to run for it.
    async fn machine(&self) -> MachineId {
        let mut conn = self.app.database.connect().await;
        sqlx::query("delete from machine_runs")
            .execute(&mut conn)
            .await
            .unwrap();
        sqlx::query("delete from usage_partner_daily")
            .execute(&mut conn)
            .await
            .unwrap();
        self.app.machine_of(self.project).await.unwrap().id
    }

    /// As the worker records it.
    async fn run(&self, machine: MachineId, project: ProjectId, from: &str, until: Option<&str>) {
        let mut tx = self.app.database.open(1).begin().await.unwrap();
        let opened = machine_runs::open_run(&mut tx, machine, project, at(from)).await;
        assert!(opened.unwrap());
        if let Some(until) = until {
            machine_runs::close_run(&mut tx, machine, at(until))
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// Seconds of the project, by day, zeros left out; and those of its partner are the same.
    async fn seconds(&self, first: &str, last: &str) -> Vec<(NaiveDate, i64)> {
        let range = format!("?start_date={first}&end_date={last}");
        let of_project = self.project_usage(self.project, &range).await;
        let days = read_days(&of_project).into_iter();
        let days: Vec<_> = days
            .map(|(day, amounts)| (day, amounts[COMPUTE]))
            .filter(|(_, seconds)| *seconds != 0)
            .collect();
        let sum: i64 = days.iter().map(|(_, seconds)| seconds).sum();
        assert_eq!(read_project(&of_project)[COMPUTE], sum);
        let of_partner = self.partner_usage(&range).await;
        assert_eq!(read_partner(&of_partner)[COMPUTE], sum, "{range}");
        days
    }
}

#[tokio::test]
async fn a_life_is_counted_to_the_second() {
    let story = Story::start_working().await;
    // Half a minute before midnight.
    let tomorrow = midnight(story.today() + Days::new(1));
    story.clock.set(tomorrow - TimeDelta::seconds(30));
    let id = story.partner.create_active_project("life").await;
    let project: ProjectId = id.parse().unwrap();
    story.app.settle().await;
    let born = story.today();
    let seconds = async |of: NaiveDate| {
        let range = format!("?start_date={born}&end_date={}", born + Days::new(9));
        let usage = story.project_usage(project, &range).await;
        read_days(&usage).get(&of).map(|amounts| amounts[COMPUTE])
    };
    assert_eq!(seconds(born + Days::new(1)).await, None, "not begun");
    story.clock.advance(TimeDelta::minutes(10));
    let next = born + Days::new(1);
    let first_day = seconds(born).await.unwrap();
    assert!((1..=30).contains(&first_day), "{first_day}");
    let running = seconds(next).await.unwrap();
    assert!((560..=600).contains(&running), "{running}");

    story.partner.pause(&id).await.expect(200);
    let paused = seconds(next).await.unwrap();
    story.clock.advance(TimeDelta::hours(30));
    assert_eq!(seconds(next).await, Some(paused), "a pause costs nothing");
    story.partner.restore(&id).await.expect(200);
    story.clock.advance(TimeDelta::hours(1));
    let third = born + Days::new(2);
    let restored = seconds(third).await.unwrap();
    assert!((3_600..=3_630).contains(&restored), "{restored}");

    // The machine was seen last within these two minutes.
    let before = seconds(third).await.unwrap();
    let machine = story.app.machine_of(project).await.unwrap();
    story.app.sim.vanish(machine.id);
    story
        .app
        .wait_for_status(project, ProjectStatus::Failed)
        .await;
    let lost = seconds(third).await.unwrap();
    assert!(
        (before - 3_700..=before + 30).contains(&lost),
        "{before} {lost}"
    );
    story.clock.advance(TimeDelta::hours(5));
    assert_eq!(
        seconds(third).await,
        Some(lost),
        "nobody pays for what is lost"
    );

    story.partner.delete_project(&id).await.expect(200);
    story
        .app
        .wait_for_status(project, ProjectStatus::Deleted)
        .await;
    story.clock.advance(TimeDelta::days(3));
    assert_eq!(seconds(born).await, Some(first_day), "usage stays");
    assert_eq!(
        seconds(third + Days::new(1)).await,
        None,
        "no day after its end"
    );
    story.clock.hold();
    let reference = story.runs().await;
    let projects = [story.project, project];
    for last in 0..7 {
        let range = (born - Days::new(1), born + Days::new(last));
        assert_figures(&story.partner, &reference, &projects, range).await;
    }
}

#[tokio::test]
async fn runs_are_split_at_utc_midnight_leap_days_too() {
    let story = Story::start().await;
    let machine = story.machine().await;
    story
        .app
        .set_created_at(story.project, at("2024-02-01T12:00:00Z"))
        .await;
    let run = async |from, until| story.run(machine, story.project, from, Some(until)).await;
    run("2024-02-28T23:59:59.999Z", "2024-03-01T00:00:01Z").await;
    // A second, less than a second within one, less than a second across two, and nothing at all.
    run("2024-03-05T10:00:00.5Z", "2024-03-05T10:00:01.5Z").await;
    run("2024-03-06T10:00:00.1Z", "2024-03-06T10:00:00.9Z").await;
    run("2024-03-07T10:00:00.9Z", "2024-03-07T10:00:01.1Z").await;
    run("2024-03-08T10:00:00Z", "2024-03-08T10:00:00Z").await;
    // Up to midnight, and from midnight on.
    run("2024-03-09T23:00:00Z", "2024-03-10T00:00:00Z").await;
    run("2024-03-11T00:00:00Z", "2024-03-11T00:00:07Z").await;
    let expected = [
        ("2024-02-28", 1),
        ("2024-02-29", 86_400),
        ("2024-03-01", 1),
        ("2024-03-05", 1),
        ("2024-03-07", 1),
        ("2024-03-09", 3_600),
        ("2024-03-11", 7),
    ]
    .map(|(text, seconds)| (day(text), seconds));
    assert_eq!(story.seconds("2024-02-01", "2024-03-31").await, expected);
    // A period of which each run begins or ends outside.
    assert_eq!(
        story.seconds("2024-02-29", "2024-02-29").await,
        expected[1..2]
    );
    assert_eq!(
        story.seconds("2024-03-01", "2024-03-08").await,
        expected[2..5]
    );
    // The longest: a leap year.
    assert_eq!(story.seconds("2024-01-01", "2024-12-31").await, expected);
    let year = "?start_date=2024-01-01&end_date=2024-12-31";
    let usage = story.project_usage(story.project, year).await;
    let days = read_days(&usage);
    // From the day on which the project was made, zeros included.
    assert_eq!(days.len(), 335);
    assert_eq!(days.keys().next(), Some(&day("2024-02-01")));
    assert_eq!(
        usage["period"],
        json!({ "start": "2024-01-01T00:00:00Z", "end": "2024-12-31T23:59:59Z" })
    );
}

#[tokio::test]
async fn a_machine_that_runs_is_counted_up_to_now_and_not_beyond() {
    let story = Story::start().await;
    let machine = story.machine().await;
    story.clock.hold();
    story.clock.set(at("2027-01-10T00:00:00Z"));
    story
        .app
        .set_created_at(story.project, at("2027-01-08T23:00:00Z"))
        .await;
    let from = "2027-01-08T23:59:50Z";
    story.run(machine, story.project, from, None).await;
    let mut expected = vec![(day("2027-01-08"), 10), (day("2027-01-09"), 86_400)];
    assert_eq!(story.seconds("2027-01-01", "2027-01-20").await, expected);
    story.clock.advance(TimeDelta::milliseconds(2_900));
    expected.push((day("2027-01-10"), 2));
    assert_eq!(story.seconds("2027-01-01", "2027-01-20").await, expected);
    // The future is empty, for the partner as for the project.
    assert_eq!(story.seconds("2027-01-11", "2027-01-12").await, []);
    let future = "?start_date=2027-01-11&end_date=2028-01-11";
    let usage = story.project_usage(story.project, future).await;
    assert_eq!(usage["daily_usage"], json!([]));
    assert_eq!(read_project(&usage), Amounts::default());
    // The past before it was made as well.
    assert_eq!(story.seconds("2027-01-01", "2027-01-07").await, []);
    // As everybody asks: the last seven days, today included.
    let usage = story.project_usage(story.project, "").await;
    assert_eq!(
        usage["period"],
        json!({ "start": "2027-01-04T00:00:00Z", "end": "2027-01-10T23:59:59Z" })
    );
    assert_eq!(read_days(&usage).len(), 3);
    assert_eq!(read_project(&usage)[COMPUTE], 86_412);
}

#[tokio::test]
async fn a_project_alive_for_one_second_is_on_the_bill() {
    let story = Story::start().await;
    let machine = story.machine().await;
    let (born, died) = ("2024-02-29T23:59:59Z", "2024-03-01T00:00:00Z");
    story.run(machine, story.project, born, Some(died)).await;
    sqlx::query(
        "update projects set status = 'deleted', created_at = $2, deleted_at = $3 where id = $1",
    )
    .bind(story.project.0)
    .bind(at(born))
    .bind(at(died))
    .execute(&mut story.app.database.connect().await)
    .await
    .unwrap();
    assert_eq!(
        story.seconds("2024-02-29", "2024-02-29").await,
        [(day("2024-02-29"), 1)]
    );
    let range = "?start_date=2024-02-01&end_date=2024-03-31";
    let usage = story.project_usage(story.project, range).await;
    assert_eq!(usage["project"]["status"], "deleted");
    let days: Vec<NaiveDate> = read_days(&usage).into_keys().collect();
    assert_eq!(days, [day("2024-02-29"), day("2024-03-01")]);
    let usage = story
        .partner_usage(&format!("{range}&group_by=project"))
        .await;
    assert_eq!(usage["projects"][0]["summary"]["total_ec2_compute"], 1);
}

#[tokio::test]
async fn a_clock_that_goes_back_takes_nothing_back() {
    let story = Story::start_working().await;
    let id = story.partner.create_active_project("time traveller").await;
    let project: ProjectId = id.parse().unwrap();
    story.app.settle().await;
    story.clock.advance(TimeDelta::days(2));
    story.partner.pause(&id).await.expect(200);
    story.partner.restore(&id).await.expect(200);
    let range = (story.today() - Days::new(3), story.today() + Days::new(1));
    let figures = async || {
        let query = format!("?start_date={}&end_date={}", range.0, range.1);
        let of_project = read_project(&story.project_usage(project, &query).await);
        (
            of_project[COMPUTE],
            read_partner(&story.partner_usage(&query).await)[COMPUTE],
        )
    };
    let before = figures().await;
    story.clock.advance(-TimeDelta::days(1));
    let after = figures().await;
    // Up to the newest start or stop, which lies a moment behind.
    assert!(
        before.0 - after.0 <= 5 && before.1 - after.1 <= 10,
        "{before:?} {after:?}"
    );
    // A pause while the clock is behind: the run ends where it began.
    story.partner.pause(&id).await.expect(200);
    story.clock.hold();
    let reference = story.runs().await;
    assert_figures(&story.partner, &reference, &[story.project, project], range).await;
}

#[tokio::test]
async fn what_ran_before_the_clock_went_back_stays_on_the_deleted_projects_bill() {
    let story = Story::start_working().await;
    let id = story.partner.create_active_project("time traveller").await;
    let project: ProjectId = id.parse().unwrap();
    story.app.settle().await;
    story.clock.advance(TimeDelta::days(2));
    story.partner.pause(&id).await.expect(200);
    story.clock.advance(-TimeDelta::days(2));
    story.partner.delete_project(&id).await.expect(200);
    story
        .app
        .wait_for_status(project, ProjectStatus::Deleted)
        .await;
    story.clock.hold();
    let reference = story.runs().await;
    let today = story.today();
    for (first, last) in [
        (today, today + Days::new(3)),
        (today + Days::new(1), today + Days::new(3)),
    ] {
        let projects = [story.project, project];
        assert_figures(&story.partner, &reference, &projects, (first, last)).await;
    }
}

#[tokio::test]
async fn starts_and_stops_of_many_machines_at_once_add_up() {
    let story = Story::start_working().await;
    let names = ["a1", "b2", "c3", "d4", "e5", "f6"];
    let made = names.map(|name| story.partner.create_active_project(name));
    let ids: Vec<String> = futures::future::join_all(made).await;
    for round in 0..3 {
        let paused = ids.iter().map(|id| story.partner.pause(id));
        for answer in futures::future::join_all(paused).await {
            answer.expect(200);
        }
        story.clock.advance(TimeDelta::hours(7 * (round + 1)));
        let restored = ids.iter().map(|id| story.partner.restore(id));
        for answer in futures::future::join_all(restored).await {
            answer.expect(200);
        }
        story.clock.advance(TimeDelta::hours(11));
    }
    let machine = story.app.machine_of(ids[0].parse().unwrap()).await.unwrap();
    let before = story.app.database.count("machine_runs").await;
    story.app.sim.crash(machine.id);
    // It is started again, and the time between is not the project's.
    eventually("another run", Duration::from_secs(20), async || {
        (story.app.database.count("machine_runs").await > before).then_some(())
    })
    .await;
    story.app.settle().await;
    story.clock.hold();
    let now: DateTime<Utc> = story.now();
    let mut projects: Vec<ProjectId> = ids.iter().map(|id| id.parse().unwrap()).collect();
    projects.push(story.project);
    let reference = story.runs().await;
    let first = now.date_naive() - Days::new(5);
    for last in 0..7 {
        let range = (first, first + Days::new(last));
        assert_figures(&story.partner, &reference, &projects, range).await;
    }
}
