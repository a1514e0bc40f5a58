//! Questions that cannot be answered: refused with the parameter and the rule; and what is not the
//! caller's is what never was.

use cp_model::ProjectId;
use cp_tests::{Answer, fields};

use super::Story;

const DAY_RULE: &str = "YYYY-MM-DD";

#[tokio::test]
async fn every_malformed_parameter_is_refused_by_name() {
    let story = Story::start().await;
    let mut cases: Vec<(String, &str, &str)> = Vec::new();
    for bad in [
        "",
        "x",
        "2026",
        "2026-1-1",
        "2026-01-1",
        "20260101",
        "2026-01-01T00:00:00Z",
        "2026-01-01%20",
        "%202026-01-01",
        "2026-00-10",
        "2026-13-01",
        "2026-01-00",
        "2026-01-32",
        "2026-04-31",
        "2025-02-29",
        "2100-02-29",
        "1900-02-29",
        "01-01-2026",
        "2026/01/01",
        "-026-01-01",
        "%2B026-01-01",
        "0000-01-01",
        "9999-12-31",
        "99999-01-01",
        "%EF%BC%92026-01-01",
        "2026-01-01%00",
        "today",
        "NaN",
        "1767225600",
    ] {
        cases.push((format!("start_date={bad}"), "start_date", DAY_RULE));
        cases.push((format!("end_date={bad}"), "end_date", DAY_RULE));
    }
    let more = [
        (
            "start_date=2026-01-02&end_date=2026-01-01",
            "start_date",
            "must not be after end_date (2026-01-01)",
        ),
        // A year of 365 days and two more; a leap year and one more.
        (
            "start_date=2025-01-01&end_date=2026-01-02",
            "start_date",
            "366 days",
        ),
        (
            "start_date=2024-01-01&end_date=2025-01-01",
            "start_date",
            "366 days",
        ),
        (
            "start_date=1900-01-01&end_date=9000-12-31",
            "start_date",
            "366 days",
        ),
        // Until today.
        ("start_date=2001-01-01", "start_date", "366 days"),
        ("start_date=8999-01-01", "start_date", "must not be after"),
        ("granularity=", "granularity", "day or month"),
        ("granularity=week", "granularity", "day or month"),
        ("granularity=DAY", "granularity", "day or month"),
        ("granularity=day,month", "granularity", "day or month"),
        ("granularity=day%00", "granularity", "day or month"),
        // Each once.
        (
            "start_date=2026-01-01&start_date=2026-01-02",
            "query",
            "once",
        ),
        ("end_date=2026-01-01&end_date=2026-01-01", "query", "once"),
        ("granularity=day&granularity=month", "query", "once"),
        ("start_date=%FF", "start_date", DAY_RULE),
    ];
    cases.extend(more.map(|(query, field, rule)| (query.to_owned(), field, rule)));
    let of_partner = [
        ("group_by=", "group_by", "must be project"),
        ("group_by=user", "group_by", "must be project"),
        ("group_by=Project", "group_by", "must be project"),
        ("group_by=project&group_by=project", "query", "once"),
        ("group_by=project&limit=0", "limit", "1 to 100"),
        ("group_by=project&limit=101", "limit", "1 to 100"),
        ("group_by=project&limit=-1", "limit", "1 to 100"),
        ("group_by=project&limit=", "limit", "1 to 100"),
        ("group_by=project&limit=1e1", "limit", "1 to 100"),
        ("group_by=project&limit=1.0", "limit", "1 to 100"),
        ("group_by=project&limit=99999999999", "limit", "1 to 100"),
        ("group_by=project&cursor=", "cursor", "UUID"),
        ("group_by=project&cursor=2", "cursor", "UUID"),
        ("group_by=project&cursor=%00", "cursor", "UUID"),
        ("group_by=project&cursor=%27%20or%201=1", "cursor", "UUID"),
        // Wrong all the same where it is of no use.
        ("limit=0", "limit", "1 to 100"),
        ("cursor=x", "cursor", "UUID"),
    ];
    let project = format!("/{}/usage", story.project);
    let both = cases.iter().flat_map(|(query, field, rule)| {
        let of = |path: &str| (format!("{path}?{query}"), *field, *rule);
        [of(&project), of("/usage")]
    });
    let of_partner = of_partner
        .into_iter()
        .map(|(query, field, rule)| (format!("/usage?{query}"), field, rule));
    for (path, field, rule) in both.chain(of_partner) {
        let answer = story.partner.get(&path).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text);
        assert_eq!(
            fields(&answer.body),
            ["code", "message", "requestId", "success"],
            "{path}"
        );
        assert_eq!(answer.body["code"], "invalid_input", "{path}");
        let message = answer.body["message"].as_str().unwrap();
        assert!(message.starts_with(field), "{path}: {message}");
        assert!(message.contains(rule), "{path}: {message}");
        assert_eq!(answer.header("etag"), None, "{path}");
    }
}

#[tokio::test]
async fn the_longest_period_is_a_leap_year() {
    let story = Story::start().await;
    for range in [
        "?start_date=2024-01-01&end_date=2024-12-31",
        "?start_date=2025-01-01&end_date=2026-01-01",
        "?start_date=2024-02-29&end_date=2024-02-29",
        "?start_date=8000-01-01&end_date=8000-01-02",
    ] {
        story.project_usage(story.project, range).await;
        let usage = story
            .partner_usage(&format!("{range}&granularity=day"))
            .await;
        assert!(usage["daily_usage"].as_array().unwrap().len() <= 366);
    }
    // A start without an end means until today; an end without a start its last seven days.
    let usage = story.partner_usage("?end_date=2024-03-02").await;
    assert_eq!(usage["period"]["start"], "2024-02-25T00:00:00Z");
    let today = story.today();
    let usage = story.partner_usage(&format!("?start_date={today}")).await;
    assert_eq!(usage["period"]["end"], format!("{today}T23:59:59Z"));
}

#[tokio::test]
async fn anothers_project_is_answered_like_one_that_never_was() {
    let story = Story::start().await;
    story
        .service
        .tell(&[story.event("1", "ai_tokens", 5)])
        .await;
    let other = story.app.partner().await;
    let ask = async |project: ProjectId, query: &str, accept: &str| {
        let request = other
            .request(reqwest::Method::GET, &format!("/{project}/usage{query}"))
            .header("x-request-id", "same-for-all")
            .header("accept", accept);
        Answer::to(request).await
    };
    for query in [
        "",
        "?granularity=month",
        "?start_date=2026-01-01&end_date=2026-01-02",
    ] {
        for accept in ["application/json", "text/csv"] {
            let missing = ask(ProjectId::generate(), query, accept).await;
            let others = ask(story.project, query, accept).await;
            assert_eq!(others.text, missing.text);
            missing.expect_code(404, "project_not_found");
            others.expect_code(404, "project_not_found");
        }
    }
    // What is wrong with the question is told first, for both alike.
    for project in [story.project, ProjectId::generate()] {
        let refused = ask(project, "?granularity=week", "application/json").await;
        refused.expect_code(400, "invalid_input");
    }
    // Another's id is a place in the order, and nothing more.
    let path = format!("/usage?group_by=project&cursor={}", story.project);
    let page = other.get(&path).await.expect(200);
    assert_eq!(page["projects"].as_array().map(Vec::len), Some(0));
}
