//! What the answers look like: fields, tables, versions, pages.

use chrono::{Datelike as _, Days};
use cp_model::{ProjectId, ProjectStatus};
use cp_tests::{Answer, fields};
use reqwest::Method;
use serde_json::json;

use super::Story;
use super::reference::{by_project, read_project};

const HEADER: &str = "database_bytes,storage_bytes,ai_tokens,mcp_calls,egress_bytes,ai_credits,email_requests,function_calls,ec2_compute";

impl Story {
    async fn get_as(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.partner.request(Method::GET, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::to(request).await
    }

    async fn csv(&self, path: &str) -> Vec<String> {
        let answer = self.get_as(path, &[("accept", "text/csv")]).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(
            answer.header("content-type"),
            Some("text/csv; charset=utf-8")
        );
        answer.text.lines().map(str::to_owned).collect()
    }

    /// Usage on two days of two months, long ago: nothing that runs changes it.
    async fn told(&self) -> (String, String) {
        let last = self.today().with_day(1).unwrap() - Days::new(1);
        let next = last + Days::new(1);
        let event = |id: &str, metric: &str, value: serde_json::Value, day| {
            let when = super::midnight(day);
            self.service.event(id, self.project, metric, value, when)
        };
        let told = [
            event("1", "ai_tokens", json!(5), last),
            event("2", "ai_credits", json!(0.25), last),
            event("3", "database_bytes", json!(1_000), last),
            event("4", "ai_tokens", json!(-7), next),
            event("5", "database_bytes", json!(400), next),
        ];
        assert_eq!(self.service.tell(&told).await["accepted"], 5);
        (last.to_string(), next.to_string())
    }
}

#[tokio::test]
async fn answers_have_the_documents_fields_and_no_others() {
    let story = Story::start().await;
    let usage = story.project_usage(story.project, "").await;
    assert_eq!(
        fields(&usage),
        ["daily_usage", "period", "project", "summary"]
    );
    assert_eq!(
        fields(&usage["project"]),
        ["id", "last_activity_at", "name", "status"]
    );
    assert_eq!(fields(&usage["period"]), ["end", "start"]);
    assert_eq!(
        fields(&usage["summary"]),
        [
            "max_database_size_bytes",
            "max_file_storage_bytes",
            "total_ai_credits",
            "total_ai_tokens",
            "total_ec2_compute",
            "total_egress_bytes",
            "total_email_requests",
            "total_function_calls",
            "total_mcp_calls",
        ]
    );
    let days = usage["daily_usage"].as_array().unwrap();
    assert_eq!(days.len(), 7, "zeros included");
    assert_eq!(
        fields(&days[0]),
        [
            "ai_credits",
            "ai_tokens",
            "database_size_bytes",
            "ec2_compute",
            "egress_bytes",
            "email_requests",
            "file_storage_bytes",
            "function_calls",
            "mcp_calls",
            "usage_date",
        ]
    );
    let usage = story.partner_usage("").await;
    assert_eq!(fields(&usage), ["partnership", "period", "summary"]);
    assert_eq!(
        usage["partnership"],
        json!({ "id": story.partner.id, "name": "Acme" })
    );
    assert_eq!(
        fields(&usage["summary"]),
        [
            "ai_credits",
            "ai_tokens",
            "database_bytes",
            "ec2_compute",
            "egress_bytes",
            "email_requests",
            "function_calls",
            "mcp_calls",
            "storage_bytes",
        ]
    );
    let usage = story.partner_usage("?group_by=project").await;
    assert_eq!(
        fields(&usage),
        ["partnership", "period", "projects", "summary"]
    );
    let line = &usage["projects"][0];
    assert_eq!(fields(line), ["project", "summary"]);
    assert_eq!(
        fields(&line["project"]),
        ["id", "last_activity_at", "name", "status"]
    );
}

#[tokio::test]
async fn tables_have_a_header_and_a_line_for_each() {
    let story = Story::start().await;
    let (last, next) = story.told().await;
    let range = format!("?start_date={last}&end_date={next}");
    let of_days = [
        format!("usage_date,{HEADER}"),
        format!("{last},1000,0,5,0,0,0.25,0,0,0"),
        format!("{next},400,0,-7,0,0,0,0,0,0"),
    ];
    let of_project = story.csv(&format!("/{}/usage{range}", story.project)).await;
    let of_partner = story.csv(&format!("/usage{range}")).await;
    // Compute is told by the machines' runs, which the story does not choose: today may be one.
    let without_compute = |lines: &[String]| -> Vec<String> {
        let cut = |line: &String| line.rsplit_once(',').unwrap().0.to_owned();
        lines.iter().map(cut).collect()
    };
    assert_eq!(without_compute(&of_project), without_compute(&of_days));
    assert_eq!(of_project, of_partner, "one project is all");
    let months = story.csv(&format!("/usage{range}&granularity=month")).await;
    let of_months = [
        format!("usage_month,{HEADER}"),
        format!("{},1000,0,5,0,0,0.25,0,0,0", &last[..7]),
        format!("{},400,0,-7,0,0,0,0,0,0", &next[..7]),
    ];
    assert_eq!(without_compute(&months), without_compute(&of_months));
    let of_project = story
        .csv(&format!(
            "/{}/usage{range}&granularity=month",
            story.project
        ))
        .await;
    assert_eq!(months, of_project);
    let lines = story.csv(&format!("/usage{range}&group_by=project")).await;
    let expected = [
        format!("project_id,project_name,status,{HEADER}"),
        format!("{},shop,paused,1000,0,-2,0,0,0.25,0,0,0", story.project),
    ];
    assert_eq!(without_compute(&lines), without_compute(&expected));
}

#[tokio::test]
async fn a_name_in_a_table_is_no_formula_and_breaks_no_line() {
    let story = Story::start_working().await;
    let names = [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (
            "=HYPERLINK(\"http://evil\",\"a\")",
            "\"'=HYPERLINK(\"\"http://evil\"\",\"\"a\"\")\"",
        ),
        ("a,b", "\"a,b\""),
        ("say \"hi\"", "\"say \"\"hi\"\"\""),
        ("Käse 🧀", "Käse 🧀"),
        ("a=1", "a=1"),
    ];
    for (name, _) in names {
        story.partner.create_project(name).await;
    }
    let lines = story.csv("/usage?group_by=project&limit=100").await;
    assert_eq!(lines.len(), 2 + names.len());
    for (line, (_, shown)) in lines[2..].iter().zip(names) {
        let (_, rest) = line.split_once(',').unwrap();
        assert!(rest.starts_with(&format!("{shown},")), "{line}");
    }
}

#[tokio::test]
async fn a_caller_that_has_an_answer_is_told_so() {
    let story = Story::start().await;
    let (last, next) = story.told().await;
    let range = format!("?start_date={last}&end_date={last}");
    let project = format!("/{}/usage{range}", story.project);
    for path in [
        project.clone(),
        format!("/usage{range}"),
        format!("/usage{range}&granularity=day"),
        format!("/usage{range}&group_by=project"),
    ] {
        let mut etags = Vec::new();
        for accept in ["application/json", "text/csv"] {
            let first = story.get_as(&path, &[("accept", accept)]).await;
            assert_eq!(first.header("vary"), Some("accept"), "{path}");
            let etag = first.header("etag").unwrap().to_owned();
            assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
            for known in [
                etag.clone(),
                format!("W/{etag}"),
                format!("\"x\", {etag}"),
                "*".into(),
            ] {
                let headers = [("accept", accept), ("if-none-match", known.as_str())];
                let again = story.get_as(&path, &headers).await;
                assert_eq!(
                    (again.status, again.text.as_str()),
                    (304, ""),
                    "{path} {known}"
                );
                assert_eq!(again.header("etag"), Some(etag.as_str()));
                assert_eq!(again.header("vary"), Some("accept"));
            }
            for unknown in ["\"x\"", "", etag.trim_matches('"')] {
                let headers = [("accept", accept), ("if-none-match", unknown)];
                let again = story.get_as(&path, &headers).await;
                assert_eq!(
                    (again.status, &again.text),
                    (200, &first.text),
                    "{path} {unknown}"
                );
            }
            etags.push(etag);
        }
        assert_ne!(etags[0], etags[1], "a table is another answer");
    }
    let before = story.get_as(&project, &[]).await;
    let etag = before.header("etag").unwrap();
    let elsewhere = format!("/{}/usage?start_date={next}&end_date={next}", story.project);
    let other_day = story.get_as(&elsewhere, &[("if-none-match", etag)]).await;
    assert_eq!(other_day.status, 200);
    let late = story.service.event(
        "late",
        story.project,
        "mcp_calls",
        1,
        super::midnight(last.parse().unwrap()),
    );
    story.service.tell(&[late]).await;
    let after = story.get_as(&project, &[("if-none-match", etag)]).await;
    assert_eq!(after.status, 200, "a late event makes another version");
}

#[tokio::test]
async fn whoever_has_an_answer_may_keep_it_and_asks_whether_it_is_the_newest() {
    let story = Story::start().await;
    for path in ["/usage".to_owned(), format!("/{}/usage", story.project)] {
        let answer = story.partner.get(&path).await;
        assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    }
}

#[tokio::test]
async fn a_table_is_for_those_who_ask_for_one() {
    let story = Story::start().await;
    for (accept, kind) in [
        (None, "application/json"),
        (Some("*/*"), "application/json"),
        (Some("application/json"), "application/json"),
        (
            Some("text/html,application/xhtml+xml,*/*;q=0.8"),
            "application/json",
        ),
        (Some("text/csv2"), "application/json"),
        (Some("text/csv"), "text/csv; charset=utf-8"),
        (Some("TEXT/CSV; charset=utf-8"), "text/csv; charset=utf-8"),
        (Some("text/csv;q=0.9, */*;q=0.1"), "text/csv; charset=utf-8"),
        (Some("text/html , text/csv"), "text/csv; charset=utf-8"),
    ] {
        let headers: Vec<(&str, &str)> = accept
            .map(|accept| ("accept", accept))
            .into_iter()
            .collect();
        for path in ["/usage", "/usage?group_by=project"] {
            let answer = story.get_as(path, &headers).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("content-type"), Some(kind), "{accept:?}");
        }
    }
}

#[tokio::test]
async fn whoever_would_rather_have_json_than_a_table_gets_it() {
    let story = Story::start().await;
    // RFC 9110 section 12.4.2: not at all, and rather the other.
    for accept in ["text/csv;q=0", "application/json, text/csv;q=0.1"] {
        let answer = story.get_as("/usage", &[("accept", accept)]).await;
        assert_eq!(
            answer.header("content-type"),
            Some("application/json"),
            "{accept}"
        );
    }
}

#[tokio::test]
async fn more_than_a_hundred_projects_come_in_pages() {
    let story = Story::start().await;
    let mut projects = vec![story.project];
    for n in 0..120 {
        projects.push(
            story
                .app
                .copy_project(story.project, &format!("copy {n}"))
                .await,
        );
    }
    let tokens = |n: usize| i64::try_from(n).unwrap() * 3 - 100;
    let told: Vec<_> = (0..)
        .zip(&projects)
        .map(|(n, project)| {
            story
                .service
                .event(n, project, "ai_tokens", tokens(n), story.now())
        })
        .collect();
    assert_eq!(story.service.tell(&told).await["accepted"], 121);
    for limit in [1, 7, 50, 100] {
        let lines = by_project(&story.partner, "granularity=day", limit).await;
        let ids: Vec<ProjectId> = lines.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, projects, "in the order of their making");
        for (n, (id, amounts)) in lines.iter().enumerate() {
            assert_eq!(amounts[2], tokens(n), "{id}");
        }
    }
    let page = story.partner_usage("?group_by=project").await;
    assert_eq!(page["projects"].as_array().map(Vec::len), Some(50));
    // What comes while somebody turns the pages moves nothing.
    let next = page["next_cursor"].as_str().unwrap();
    story.app.copy_project(story.project, "newest").await;
    let second = story
        .partner_usage(&format!("?group_by=project&limit=100&cursor={next}"))
        .await;
    assert_eq!(second["projects"].as_array().map(Vec::len), Some(72));
    assert_eq!(second["next_cursor"], json!(null));
    let csv = story.csv("/usage?group_by=project&limit=100").await;
    assert_eq!(csv.len(), 101);
}

#[tokio::test]
async fn a_deleted_project_is_listed_for_the_days_that_it_lived() {
    let story = Story::start_working().await;
    let id = story.project.to_string();
    story
        .service
        .tell(&[story.event("1", "ai_tokens", 5)])
        .await;
    story.partner.delete_project(&id).await.expect(200);
    story
        .app
        .wait_for_status(story.project, ProjectStatus::Deleted)
        .await;
    let died = story.today();
    story.clock.advance(chrono::TimeDelta::days(3));
    story.partner.metadata(&id).await.expect(404);
    let range = format!("?start_date={died}&group_by=project");
    let usage = story.partner_usage(&range).await;
    assert_eq!(usage["projects"][0]["project"]["status"], "deleted");
    assert_eq!(read_project(&usage["projects"][0])[2], 5);
    assert_eq!(usage["summary"]["ai_tokens"], 5);
    let usage = story
        .project_usage(story.project, &format!("?start_date={died}"))
        .await;
    assert_eq!(usage["project"]["status"], "deleted");
    assert_eq!(usage["daily_usage"].as_array().map(Vec::len), Some(1));
    let range = format!("?start_date={}&group_by=project", died + Days::new(1));
    let usage = story.partner_usage(&range).await;
    assert_eq!(usage["projects"], json!([]));
    assert_eq!(usage["summary"]["ai_tokens"], 0);
}
