//! The usage report: a page that a link opens for ten minutes, with the figures of the API.

use std::sync::Arc;

use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use cp_domain::usage::{NewUsageEvent, UsageEvent, UsageService};
use cp_model::{Clock as _, Metric};
use cp_tests::{App, AppOptions, MovingClock, Page, PartnerClient, Visitor};
use reqwest::Method;
use serde_json::{Value, json};

struct Scene {
    app: App,
    clock: Arc<MovingClock>,
    partner: PartnerClient,
    visitor: Visitor,
}

/// Projects that began on 1 March; it is noon of 10 March.
async fn scene(projects: &[&str]) -> (Scene, Vec<String>) {
    let clock = MovingClock::new();
    let begin: DateTime<Utc> = "2026-03-01T12:00:00Z".parse().unwrap();
    clock.advance(begin - clock.now());
    let app = App::start_with(AppOptions {
        clock: clock.clone(),
        ..AppOptions::default()
    })
    .await;
    let partner = app.partner().await;
    let mut ids = Vec::new();
    for name in projects {
        ids.push(partner.create_active_project(name).await);
    }
    clock.advance(TimeDelta::days(9));
    let visitor = Visitor::new(&app.base_url);
    let scene = Scene {
        app,
        clock,
        partner,
        visitor,
    };
    (scene, ids)
}

impl Scene {
    async fn event(&self, id: &str, project: &str, metric: &str, value: &str, day: u32) {
        let service = UsageService {
            name: "test".into(),
            sources: vec!["test".into()],
        };
        let event = UsageEvent::parse(&NewUsageEvent {
            id,
            source: "test",
            project_id: project,
            metric,
            value,
            occurred_at: &format!("2026-03-{day:02}T18:00:00Z"),
        });
        let ingested = self
            .app
            .control_plane
            .record_usage_events(&service, vec![event])
            .await
            .unwrap();
        assert_eq!(ingested.accepted, 1, "{ingested:?}");
    }

    /// The link's path and query.
    async fn link(&self, partner: &PartnerClient) -> String {
        let link = partner
            .post("/usage/report-link", &json!({}))
            .await
            .expect(200);
        assert_eq!(link["expires_in"], 600);
        let url = link["url"].as_str().unwrap();
        url.strip_prefix(&self.app.base_url).unwrap().to_owned()
    }

    async fn open(&self, path: &str) -> Page {
        self.visitor.open(path).await
    }
}

/// What stands between the two texts, after `from`.
fn between<'a>(html: &'a str, from: &str, begin: &str, end: &str) -> &'a str {
    let rest = html
        .split_once(from)
        .unwrap_or_else(|| panic!("no {from:?}"))
        .1;
    let rest = rest.split_once(begin).unwrap().1;
    rest.split_once(end).unwrap().0
}

/// The part of the page that is about one metric.
fn card<'a>(page: &'a Page, metric: &str) -> &'a str {
    between(
        &page.html,
        &format!("aria-labelledby=\"{metric}-heading\""),
        ">",
        "</section>",
    )
}

/// Every amount of a card, as the page tells it to programs: the total first, then each day's.
fn amounts(card: &str) -> Vec<Value> {
    card.split("<data value=\"")
        .skip(1)
        .map(|rest| serde_json::from_str(rest.split('"').next().unwrap()).unwrap())
        .collect()
}

const EVENTS: [(&str, &str, u32); 12] = [
    ("database_bytes", "7340032", 2),
    ("database_bytes", "9437184", 5),
    ("storage_bytes", "1024", 2),
    ("ai_tokens", "15000", 2),
    ("ai_tokens", "700", 3),
    ("ai_tokens", "-20000", 9),
    ("mcp_calls", "12", 3),
    ("egress_bytes", "5368709120", 4),
    ("ai_credits", "1.25", 4),
    ("ai_credits", "0.000001", 5),
    ("email_requests", "3", 6),
    ("function_calls", "123456", 7),
];

#[tokio::test]
async fn each_metric_is_drawn_with_the_figures_of_the_api() {
    let (scene, ids) = scene(&["shop", "blog"]).await;
    for (index, (metric, value, day)) in EVENTS.into_iter().enumerate() {
        let project = &ids[index % 2];
        scene
            .event(&format!("e{index}"), project, metric, value, day)
            .await;
    }
    scene.partner.delete_project(&ids[1]).await.expect(200);
    let link = scene.link(&scene.partner).await;
    let page = scene
        .open(&format!("{link}&start_date=2026-02-27&end_date=2026-03-10"))
        .await;
    assert_eq!(page.status, 200, "{}", page.html);

    let told = scene
        .partner
        .get("/usage?start_date=2026-02-27&end_date=2026-03-10&granularity=day")
        .await
        .expect(200);
    for metric in Metric::ALL {
        let metric = metric.as_str();
        let card = card(&page, metric);
        let mut expected = vec![told["summary"][metric].clone()];
        let days = told["daily_usage"].as_array().unwrap().iter();
        expected.extend(days.map(|day| day[metric].clone()));
        assert_eq!(amounts(card), expected, "{metric}");

        assert_eq!(card.matches("<svg").count(), 1, "{metric}");
        assert!(card.contains("role=\"img\"") && card.contains("<title"));
        let below = expected[1..]
            .iter()
            .filter(|day| day.as_f64().unwrap() < 0.0);
        let drawn = expected[1..]
            .iter()
            .filter(|day| day.as_f64().unwrap() != 0.0);
        assert_eq!(
            card.matches("correction").count(),
            below.count(),
            "{metric}"
        );
        assert_eq!(card.matches("<rect").count(), drawn.count(), "{metric}");
    }
    assert!(card(&page, "ai_tokens").contains("correction"));
    assert!(card(&page, "egress_bytes").contains("5 GiB"));
    assert!(
        page.html.contains("blog") && page.html.contains("deleted"),
        "what is deleted is there still"
    );
    let rows = between(&page.html, "id=\"projects\"", "<tbody>", "</tbody>");
    assert!(
        rows.find("shop") < rows.find("blog"),
        "what ran longest comes first"
    );
    let by_project = scene
        .partner
        .get("/usage?start_date=2026-02-27&end_date=2026-03-10&group_by=project")
        .await
        .expect(200);
    for line in by_project["projects"].as_array().unwrap() {
        let name = line["project"]["name"].as_str().unwrap();
        let row = between(rows, name, "", "</tr>");
        let summary = &line["summary"];
        let expected = [
            &summary["total_ec2_compute"],
            &summary["max_database_size_bytes"],
            &summary["max_file_storage_bytes"],
            &summary["total_ai_tokens"],
        ];
        assert_eq!(amounts(row).iter().collect::<Vec<_>>(), expected, "{name}");
    }
}

#[tokio::test]
async fn the_page_is_as_safe_as_the_others_and_changes_nothing() {
    let (scene, ids) = scene(&["<script>alert(1)</script>"]).await;
    scene.event("e", &ids[0], "ai_tokens", "5", 2).await;
    let link = scene.link(&scene.partner).await;
    let page = scene.open(&link).await;
    assert_eq!(page.status, 200);
    assert!(!page.html.contains("<script"), "names are no markup");
    assert!(page.html.contains("&lt;script&gt;alert(1)"));
    assert!(!page.html.contains("style="), "the policy refuses styles");
    assert!(!page.html.contains(&scene.partner.secret));
    for (header, value) in [
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(page.headers[header], value);
    }
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'; style-src 'self';"));
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(scene.visitor.set_cookies.lock().unwrap().is_empty());
    // The form asks for other days with the same token.
    let asked = [("start_date", "2026-03-02"), ("end_date", "2026-03-02")];
    let day = scene.visitor.submit(&page, "/usage-report", &asked).await;
    assert_eq!(day.status, 200);
    assert_eq!(amounts(card(&day, "ai_tokens")), [json!(5), json!(5)]);
    let url = format!("{}{link}", scene.app.base_url);
    let posted = scene.app.http.request(Method::POST, url).send().await;
    assert_eq!(posted.unwrap().status(), 405);
}

#[tokio::test]
async fn a_link_opens_one_report_for_ten_minutes() {
    let (scene, _) = scene(&["shop"]).await;
    let link = scene.link(&scene.partner).await;
    let other = scene.app.partner().await;
    let of_other = scene.link(&other).await;
    let page = scene.open(&of_other).await;
    assert_eq!(page.status, 200);
    assert!(page.html.contains("Nothing was used in this period."));
    assert!(!page.html.contains("shop"));

    let (head, mac) = link.rsplit_once('.').unwrap();
    let (path, end) = head.rsplit_once('.').unwrap();
    let later = end.parse::<i64>().unwrap() + 60;
    let swapped = link.replace(&scene.partner.id, &other.id);
    for forged in [
        "/usage-report".to_owned(),
        "/usage-report?token=".into(),
        "/usage-report?token=%ff".into(),
        format!("/usage-report?token={}", scene.partner.secret),
        format!("{path}.{later}.{mac}"),
        format!("{head}.{}", mac.replace(|c: char| c != '0', "0")),
        format!("{head}."),
        swapped,
        link[..link.len() - 1].into(),
    ] {
        let page = scene.open(&forged).await;
        assert_eq!(page.status, 404, "{forged}");
        assert!(page.html.contains("for a new one"), "{}", page.html);
        assert!(!page.html.contains("Acme"), "{forged}");
    }
    let dates = "&start_date=nonsense";
    let page = scene.open(&format!("/usage-report?token=x{dates}")).await;
    assert_eq!(page.status, 404, "strangers learn nothing about dates");

    // The clock goes on by itself, too.
    scene.clock.advance(TimeDelta::seconds(540));
    assert_eq!(scene.open(&link).await.status, 200);
    scene.clock.advance(TimeDelta::seconds(60));
    let page = scene.open(&link).await;
    assert_eq!(page.status, 410);
    assert!(page.html.contains("for a new one"), "{}", page.html);
}

#[tokio::test]
async fn a_suspended_partner_sees_nothing() {
    let (scene, _) = scene(&["shop"]).await;
    let link = scene.link(&scene.partner).await;
    let id = scene.partner.partner_id();
    let control_plane = &scene.app.control_plane;
    control_plane.suspend_partner(&id, true).await.unwrap();
    let page = scene.open(&link).await;
    assert_eq!(page.status, 403);
    assert!(page.html.contains("suspended") && !page.html.contains("shop"));
    let refused = scene.partner.post("/usage/report-link", &json!({})).await;
    refused.expect_code(403, "partner_suspended");
    control_plane.suspend_partner(&id, false).await.unwrap();
    assert_eq!(scene.open(&link).await.status, 200);
}

/// Whoever was given a link may not use up the partner's own calls.
#[tokio::test]
async fn looks_are_counted_apart_from_calls() {
    let (scene, _) = scene(&["shop"]).await;
    let link = scene.link(&scene.partner).await;
    for look in 0..60 {
        assert_eq!(scene.open(&link).await.status, 200, "look {look}");
    }
    let page = scene.open(&link).await;
    assert_eq!(page.status, 429);
    assert!(!page.html.contains("shop"), "{}", page.html);
    let answer = scene.partner.get("/usage").await;
    let left = answer.header("ratelimit-remaining").map(str::to_owned);
    answer.expect(200);
    assert!(left.is_none_or(|left| left.parse::<u32>().unwrap() > 50));
    scene.clock.advance(TimeDelta::seconds(61));
    assert_eq!(scene.open(&link).await.status, 200);
}

#[tokio::test]
async fn wrong_days_are_told_at_their_fields() {
    let (scene, _) = scene(&[]).await;
    let link = scene.link(&scene.partner).await;
    for (days, field) in [
        ("start_date=2026-02-30", "start_date"),
        ("start_date=2026-03-11", "start_date"),
        ("start_date=2025-03-09", "start_date"),
        ("start_date=2026-03-09&end_date=2026-03-08", "start_date"),
        ("end_date=%3Cb%3E", "end_date"),
        ("end_date=99999-01-01", "end_date"),
    ] {
        let page = scene.open(&format!("{link}&{days}")).await;
        assert_eq!(page.status, 400, "{days}");
        assert!(page.html.contains("Error: Usage of"), "{days}");
        let summary = between(&page.html, "role=\"alert\"", ">", "</div>");
        assert!(summary.contains(&format!("href=\"#{field}\"")), "{summary}");
        assert!(!page.html.contains("<b>") && !page.html.contains("<svg"));
    }
    // A whole leap year, and empty fields, which are those of a form that was left as it was.
    let year = "start_date=2024-01-01&end_date=2024-12-31";
    let page = scene.open(&format!("{link}&{year}")).await;
    assert_eq!(page.status, 200);
    let page = scene.open(&format!("{link}&start_date=&end_date=")).await;
    assert_eq!(page.status, 200);
    assert!(page.html.contains("value=\"2026-02-09\""), "thirty days");
    assert_eq!(scene.clock.now().day(), 10);
}
