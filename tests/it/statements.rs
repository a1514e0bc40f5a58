//! Statements: a month is closed once, never changes, and what comes later is on the next one.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use cp_domain::DomainError;
use cp_domain::usage::{NewUsageEvent, Statement, UsageEvent, UsageService};
use cp_model::{Amounts, Clock as _, Metric, PartnerId, ProjectId, UsagePeriod};
use cp_tests::{App, AppOptions, MovingClock, PartnerClient};

struct Scene {
    app: App,
    clock: Arc<MovingClock>,
    partner: PartnerClient,
    project: ProjectId,
}

/// A project that runs since the middle of January.
async fn scene() -> Scene {
    let clock = MovingClock::new();
    let begin: DateTime<Utc> = "2025-01-15T12:00:00Z".parse().expect("a time");
    clock.advance(begin - clock.now());
    let app = App::start_with(AppOptions {
        clock: clock.clone(),
        ..AppOptions::default()
    })
    .await;
    let partner = app.partner().await;
    let project = partner.create_active_project("shop").await;
    let project = project.parse().expect("a project id");
    Scene {
        app,
        clock,
        partner,
        project,
    }
}

impl Scene {
    fn id(&self) -> PartnerId {
        self.partner.partner_id()
    }

    fn move_to(&self, time: &str) {
        let time: DateTime<Utc> = time.parse().expect("a time");
        self.clock.advance(time - self.clock.now());
    }

    async fn tokens(&self, id: &str, count: i64, occurred_at: &str) {
        let service = UsageService {
            name: "test".into(),
            sources: vec!["test".into()],
        };
        let event = UsageEvent::parse(&NewUsageEvent {
            id,
            source: "test",
            project_id: &self.project.to_string(),
            metric: "ai_tokens",
            value: &count.to_string(),
            occurred_at,
        });
        let ingested = self
            .app
            .control_plane
            .record_usage_events(&service, vec![event])
            .await
            .expect("the event can be counted");
        assert_eq!(ingested.accepted, 1, "{ingested:?}");
    }

    async fn close(&self, month: &str) -> Result<Statement, DomainError> {
        self.app
            .control_plane
            .close_statement(&self.id(), period(month))
            .await
    }

    async fn find(&self, month: &str) -> Statement {
        self.app
            .control_plane
            .find_statement(&self.id(), period(month))
            .await
            .expect("the month is closed")
    }
}

fn period(month: &str) -> UsagePeriod {
    UsagePeriod::month(month).expect("a month")
}

fn tokens(amounts: &Amounts) -> i64 {
    amounts[Metric::AiTokens]
}

#[tokio::test]
async fn a_closed_month_never_changes_and_late_events_are_on_the_next_one() {
    let scene = scene().await;
    scene.tokens("a", 100, "2025-01-15T12:00:00Z").await;
    scene.move_to("2025-02-03T00:00:00Z");
    let january = scene.close("2025-01").await.expect("January is over");
    assert_eq!(tokens(&january.amounts), 100);
    // From the 15th, noon, to the end of the month; the machine still runs.
    let seconds = 16 * 86_400 + 43_200;
    let counted = january.amounts[Metric::Ec2Compute];
    assert!((seconds - 30..=seconds).contains(&counted), "{counted}");
    assert!(january.adjustments.is_empty());

    scene.tokens("late", 7, "2025-01-31T23:59:59Z").await;
    scene
        .tokens("correction", -30, "2025-01-20T00:00:00Z")
        .await;
    scene.tokens("b", 1, "2025-02-02T00:00:00Z").await;
    let again = scene.find("2025-01").await;
    assert_eq!(
        (again.amounts, again.lines),
        (january.amounts, january.lines)
    );
    let usage = scene
        .partner
        .get("/usage?start_date=2025-01-01&end_date=2025-01-31")
        .await
        .expect(200);
    assert_eq!(
        usage["summary"]["ai_tokens"], 77,
        "usage goes on being right"
    );

    scene.move_to("2025-03-01T00:00:00Z");
    let february = scene.close("2025-02").await.expect("February is over");
    assert_eq!(tokens(&february.amounts), 1);
    assert_eq!(february.amounts[Metric::Ec2Compute], 28 * 86_400);
    let mended: Vec<_> = february
        .adjustments
        .iter()
        .map(|a| (a.of_month.to_string(), tokens(&a.amounts)))
        .collect();
    assert_eq!(mended, [("2025-01-01".to_owned(), -23)]);

    scene.tokens("latest", 5, "2025-01-31T00:00:00Z").await;
    scene.move_to("2025-04-01T00:00:00Z");
    let march = scene.close("2025-03").await.expect("March is over");
    let mended: i64 = march.adjustments.iter().map(|a| tokens(&a.amounts)).sum();
    assert_eq!(mended, 5, "each thing is on one statement");
    let billed: i64 = [january.amounts, february.amounts, march.amounts]
        .iter()
        .map(tokens)
        .sum();
    let adjusted: i64 = [&february, &march]
        .iter()
        .flat_map(|s| &s.adjustments)
        .map(|a| tokens(&a.amounts))
        .sum();
    assert_eq!(billed + adjusted, 100 + 7 - 30 + 1 + 5);
}

#[tokio::test]
async fn the_lines_of_a_statement_add_up_to_it() {
    let scene = scene().await;
    let deleted = scene.partner.create_active_project("gone").await;
    scene.clock.advance(TimeDelta::seconds(90));
    scene.partner.delete_project(&deleted).await.expect(200);
    scene
        .app
        .wait_for_status(
            deleted.parse().expect("an id"),
            cp_model::ProjectStatus::Deleted,
        )
        .await;
    scene.tokens("a", 3, "2025-01-15T12:00:00Z").await;
    scene.move_to("2025-02-01T00:00:00Z");
    let statement = scene.close("2025-01").await.expect("January is over");
    assert_eq!(statement.lines.len(), 2);
    for metric in Metric::ALL {
        let sum: i64 = statement.lines.iter().map(|l| l.amounts[*metric]).sum();
        assert_eq!(sum, statement.amounts[*metric], "{metric}");
    }
    let counted = statement.lines[1].amounts[Metric::Ec2Compute];
    assert!((90..120).contains(&counted), "{counted}");
}

#[tokio::test]
async fn months_are_closed_in_order_once_and_when_they_are_over() {
    let scene = scene().await;
    let early = scene.close("2025-01").await.unwrap_err().to_string();
    assert!(early.contains("must be over"), "{early}");
    // The last second counts whole, so it must be over.
    scene.move_to("2025-01-31T23:59:59.400Z");
    let early = scene.close("2025-01").await.unwrap_err().to_string();
    assert!(early.contains("must be over"), "{early}");
    scene.move_to("2025-03-10T00:00:00Z");
    let skipped = scene.close("2025-02").await.unwrap_err().to_string();
    assert!(skipped.contains("2025-01 is not closed yet"), "{skipped}");
    scene.close("2025-01").await.expect("January is over");
    scene.close("2025-02").await.expect("February is over");
    for closed in ["2025-01", "2025-02"] {
        let again = scene.close(closed).await.unwrap_err();
        assert!(matches!(again, DomainError::Conflict(_)), "{again}");
    }
    assert_eq!(
        scene
            .app
            .control_plane
            .list_statements(&scene.id())
            .await
            .expect("statements can be read")
            .len(),
        2
    );
}

#[tokio::test]
async fn usage_of_a_month_before_the_first_statement_is_on_a_bill() {
    let scene = scene().await;
    let born = "2024-12-01T00:00:00Z".parse().expect("a time");
    scene.app.set_created_at(scene.project, born).await;
    scene.move_to("2025-02-02T00:00:00Z");
    let january = scene.close("2025-01").await.expect("January is over");
    assert!(january.adjustments.is_empty(), "{january:?}");
    scene.tokens("late", 7, "2024-12-31T12:00:00Z").await;
    scene.move_to("2025-03-01T00:00:00Z");
    let february = scene.close("2025-02").await.expect("February is over");
    let [adjustment] = &february.adjustments[..] else {
        panic!("{february:?}");
    };
    assert_eq!(adjustment.of_month.to_string(), "2024-12-01");
    assert_eq!(adjustment.amounts[Metric::AiTokens], 7);
    scene.move_to("2025-04-01T00:00:00Z");
    let march = scene.close("2025-03").await.expect("March is over");
    assert!(march.adjustments.is_empty(), "{march:?}");
}

#[tokio::test]
async fn of_many_that_close_a_month_at_once_one_does() {
    let scene = scene().await;
    scene.move_to("2025-03-10T00:00:00Z");
    let closing = (0..8).map(|n| scene.close(if n % 2 == 0 { "2025-01" } else { "2025-02" }));
    let outcomes = futures::future::join_all(closing).await;
    let closed: Vec<_> = outcomes.into_iter().filter_map(Result::ok).collect();
    assert!((1..=2).contains(&closed.len()), "{closed:?}");
    let months: Vec<_> = closed.iter().map(|s| s.month.first()).collect();
    assert!(months.is_sorted() || months.len() == 2, "{months:?}");
}
