//! What may be told, and what is refused: each event by itself, with its place, the field and the
//! rule; a batch only where it cannot be read as one.

use std::time::Duration;

use chrono::{Days, TimeDelta};
use cp_model::{ProjectId, ProjectStatus};
use cp_tests::{Answer, UsageService, eventually, fields};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Story;
use super::reference::read_partner;

/// The event with one field changed, or left out where the value is null.
fn with(event: &Value, field: &str, value: Value) -> Value {
    let mut event = event.clone();
    let object = event.as_object_mut().unwrap();
    if value.is_null() {
        object.remove(field);
    } else {
        object.insert(field.into(), value);
    }
    event
}

/// The text of the event with this instead of its value.
fn numbered(event: &Value, number: &str) -> String {
    with(event, "value", json!("NUMBER"))
        .to_string()
        .replace("\"NUMBER\"", number)
}

/// Sends JSON as it stands.
async fn send(service: &UsageService, body: impl Into<reqwest::Body>) -> Answer {
    let request = service
        .client
        .request()
        .header("content-type", "application/json");
    Answer::to(request.body(body)).await
}

impl Story {
    /// Sends the text of an event between two good ones: it alone is refused.
    async fn assert_refused(&self, number: usize, event: &str, field: &str, words: &[&str]) {
        let neighbour = |side: &str| self.event(&format!("{number}-{side}"), "ai_tokens", 1);
        let body = format!(
            r#"{{"events":[{},{event},{}]}}"#,
            neighbour("left"),
            neighbour("right")
        );
        let answer = send(&self.service, body).await.expect(200);
        assert_eq!(fields(&answer), ["accepted", "duplicates", "refused"]);
        assert_eq!(
            (&answer["accepted"], &answer["duplicates"]),
            (&json!(2), &json!(0)),
            "{event}: {answer}"
        );
        let refused = answer["refused"].as_array().unwrap();
        assert_eq!(refused.len(), 1, "{event}: {answer}");
        assert_eq!(fields(&refused[0]), ["error", "field", "index"]);
        assert_eq!(refused[0]["index"], 1, "{event}");
        assert_eq!(refused[0]["field"], field, "{event}: {answer}");
        let error = refused[0]["error"].as_str().unwrap();
        for word in words {
            assert!(
                error.contains(word),
                "{event}: {word:?} is not in {error:?}"
            );
        }
    }

    async fn nothing_counted(&self) {
        for table in ["usage_events", "usage_event_keys", "usage_daily"] {
            assert_eq!(self.app.database.count(table).await, 0, "{table}");
        }
    }
}

#[tokio::test]
async fn each_field_that_breaks_a_rule_refuses_its_event_alone() {
    let story = Story::start().await;
    let good = story.event("good", "ai_tokens", 100);
    let of = |metric: &str| with(&good, "metric", json!(metric));
    let ago = |by: TimeDelta| json!((story.now() - by).to_rfc3339());
    let long = "x".repeat(201);
    let range = "between -10000000000000 and 10000000000000";
    let list = "database_bytes, storage_bytes, ai_tokens, mcp_calls, egress_bytes, ai_credits, email_requests, function_calls";
    let mut cases: Vec<(String, &str, Vec<&str>)> = Vec::new();
    // Left out, or of another type.
    for field in [
        "id",
        "source",
        "project_id",
        "metric",
        "value",
        "occurred_at",
    ] {
        let missing = with(&good, field, Value::Null).to_string();
        cases.push((missing, "event", vec![field]));
    }
    for field in ["id", "source", "project_id", "metric", "occurred_at"] {
        for wrong in [json!(7), json!(true), json!({}), json!(["x"])] {
            let event = with(&good, field, wrong).to_string();
            cases.push((event, "event", vec!["must be an object", "string"]));
        }
    }
    for wrong in [
        "null",
        r#""100""#,
        r#""NaN""#,
        r#""Infinity""#,
        "true",
        "[1]",
        "{}",
    ] {
        let event = numbered(&good, wrong);
        cases.push((event, "value", vec!["must be a number"]));
    }
    for wrong in ["null", "7", r#""event""#, "[]", "true"] {
        cases.push((wrong.to_owned(), "event", vec!["must be an object"]));
    }
    let twice = good.to_string().replace(r#""id""#, r#""id":"other","id""#);
    cases.push((twice, "event", vec!["duplicate", "id"]));
    // Values.
    for (metric, number, rule) in [
        ("ai_tokens", "1e308", range),
        ("ai_tokens", "-1e308", range),
        ("ai_tokens", "1e999", range),
        ("ai_tokens", "9223372036854775808", range),
        ("ai_tokens", "-9223372036854775809", range),
        ("ai_tokens", "10000000000001", range),
        ("egress_bytes", "0.5", "whole number"),
        ("mcp_calls", "1e-400", "whole number"),
        (
            "function_calls",
            "1.0000000000000000000000000000000000001",
            "whole number",
        ),
        ("ai_credits", "0.0000001", "at most 6 decimals"),
        ("ai_credits", "1.1234567", "at most 6 decimals"),
        ("ai_credits", "10000001", "between -10000000 and 10000000"),
        ("database_bytes", "-1", "must not be negative"),
        ("storage_bytes", "-0.0000001", "storage_bytes"),
        ("storage_bytes", "1.5", "whole number"),
    ] {
        let event = numbered(&of(metric), number);
        cases.push((event, "value", vec![rule]));
    }
    // Texts.
    let more: Vec<(Value, &str, Vec<&str>)> = vec![
        (of("ec2_compute"), "metric", vec!["machines' own runs"]),
        (of("tokens"), "metric", vec![list]),
        (of("AI_TOKENS"), "metric", vec![list]),
        (of(""), "metric", vec![list]),
        (with(&good, "id", json!("")), "id", vec!["1 to 200"]),
        (with(&good, "id", json!(long)), "id", vec!["1 to 200"]),
        (with(&good, "id", json!("a\u{0}b")), "id", vec!["control"]),
        (with(&good, "id", json!("a\nb")), "id", vec!["control"]),
        (with(&good, "id", json!("a\u{7f}b")), "id", vec!["control"]),
        (with(&good, "source", json!("")), "source", vec!["1 to 64"]),
        (
            with(&good, "source", json!("Gateway")),
            "source",
            vec!["a-z"],
        ),
        (
            with(&good, "source", json!("a\u{0}b")),
            "source",
            vec!["a-z"],
        ),
        (
            with(&good, "source", json!("x".repeat(65))),
            "source",
            vec!["1 to 64"],
        ),
        (
            with(&good, "source", json!("mailer")),
            "source",
            vec!["this token's", "gateway"],
        ),
        (
            with(&good, "source", json!("collector")),
            "source",
            vec!["this token's"],
        ),
        (
            with(&good, "project_id", json!("shop")),
            "project_id",
            vec!["UUID"],
        ),
        (
            with(&good, "project_id", json!("")),
            "project_id",
            vec!["UUID"],
        ),
        (
            with(
                &good,
                "project_id",
                json!(ProjectId::generate().to_string()),
            ),
            "project_id",
            vec!["that of a project"],
        ),
    ];
    cases.extend(more.into_iter().map(|(e, f, w)| (e.to_string(), f, w)));
    // Times.
    for (time, rule) in [
        (json!(""), "with its offset"),
        (json!("yesterday"), "with its offset"),
        (json!("2026-01-01"), "with its offset"),
        (json!("2026-01-01T10:00:00"), "with its offset"),
        (json!("2026-02-29T10:00:00Z"), "with its offset"),
        (json!("2026-01-01T25:00:00Z"), "with its offset"),
        (json!("+99999-01-01T00:00:00Z"), "with its offset"),
        (json!("9999-12-31T23:59:59Z"), "5 minutes"),
        (json!("0001-01-01T00:00:00Z"), "35 days"),
        (ago(TimeDelta::days(36)), "35 days"),
        (ago(TimeDelta::days(35) + TimeDelta::minutes(1)), "35 days"),
        (ago(-TimeDelta::minutes(6)), "5 minutes"),
    ] {
        let event = with(&good, "occurred_at", time).to_string();
        cases.push((event, "occurred_at", vec![rule]));
    }
    for (number, (event, field, words)) in cases.iter().enumerate() {
        story.assert_refused(number, event, field, words).await;
    }
    let seen = read_partner(&story.partner_usage("").await);
    let mut expected = [0; 8];
    expected[2] = 2 * i64::try_from(cases.len()).unwrap();
    assert_eq!(
        seen[..8],
        expected,
        "the neighbours are counted, and nothing else"
    );
}

#[tokio::test]
async fn an_event_is_an_object_and_no_list_of_its_values() {
    let story = Story::start().await;
    let good = story.event("good", "ai_tokens", 100);
    let names = [
        "id",
        "source",
        "project_id",
        "metric",
        "value",
        "occurred_at",
    ];
    let list = json!(names.map(|name| &good[name]));
    story
        .assert_refused(0, &list.to_string(), "event", &["must be an object"])
        .await;
}

#[tokio::test]
async fn values_are_exact_and_corrections_go_below_zero() {
    let story = Story::start().await;
    let when = story.now();
    let told = [
        ("ai_credits", "0.1"),
        ("ai_credits", "0.2"),
        ("ai_credits", "0.000001"),
        ("ai_tokens", "1e3"),
        ("ai_tokens", "-1500.0"),
        ("egress_bytes", "10000000000000"),
        ("egress_bytes", "9999999999999"),
        ("database_bytes", "0"),
        ("storage_bytes", "7"),
        ("storage_bytes", "3"),
    ];
    let events: Vec<String> = (0..)
        .zip(told)
        .map(|(n, (metric, number))| {
            let event = story.service.event(n, story.project, metric, 0, when);
            numbered(&event, number)
        })
        .collect();
    let body = format!(r#"{{"events":[{}]}}"#, events.join(","));
    let answer = send(&story.service, body).await.expect(200);
    assert_eq!(
        answer,
        json!({ "accepted": 10, "duplicates": 0, "refused": [] })
    );
    let text = story.partner.get("/usage").await.text;
    for exact in [
        r#""ai_credits":0.300001,"#,
        r#""ai_tokens":-500,"#,
        r#""egress_bytes":19999999999999,"#,
        r#""storage_bytes":7,"#,
    ] {
        assert!(text.contains(exact), "{exact} is not in {text}");
    }
    let path = format!("/{}/usage", story.project);
    let text = story.partner.get(&path).await.text;
    for exact in [
        r#""total_ai_credits":0.300001,"#,
        r#""ai_credits":0.300001,"#,
    ] {
        assert!(text.contains(exact), "{exact} is not in {text}");
    }
}

#[tokio::test]
async fn an_event_is_counted_once_whatever_it_says_the_second_time() {
    let story = Story::start().await;
    let first = story.event("e1", "ai_tokens", 5);
    let other = story.app.usage_service("mailer").await;
    let theirs = other.event("e1", story.project, "ai_tokens", 70, story.now());
    let again = [
        first.clone(),
        with(&first, "value", json!(900)),
        with(&first, "metric", json!("mcp_calls")),
        with(
            &first,
            "occurred_at",
            json!((story.now() - Days::new(3)).to_rfc3339()),
        ),
    ];
    let answer = story
        .service
        .tell(&[&[first.clone()][..], &again].concat())
        .await;
    assert_eq!(
        answer,
        json!({ "accepted": 1, "duplicates": 4, "refused": [] })
    );
    let answer = story.service.tell(&again).await;
    assert_eq!(
        answer,
        json!({ "accepted": 0, "duplicates": 4, "refused": [] })
    );
    // Another source's event of the same id is another event.
    assert_eq!(other.tell(&[theirs]).await["accepted"], 1);
    // A refused event is not remembered: mended, it counts.
    let bad = story.event("e2", "ai_tokens", 0.5);
    assert_eq!(story.service.tell(&[bad]).await["accepted"], 0);
    let good = story.event("e2", "ai_tokens", 600);
    assert_eq!(story.service.tell(&[good]).await["accepted"], 1);
    let seen = read_partner(&story.partner_usage("").await);
    assert_eq!((seen[2], seen[3]), (675, 0));
}

#[tokio::test]
async fn usage_belongs_to_the_days_on_which_its_project_existed() {
    let story = Story::start_working().await;
    let born = story.now() - Days::new(10);
    story.app.set_created_at(story.project, born).await;
    let event = |id: &str, at| story.service.event(id, story.project, "mcp_calls", 1, at);
    let told = [
        event(
            "the day before",
            super::midnight(born.date_naive()) - TimeDelta::seconds(1),
        ),
        event("earlier that day", super::midnight(born.date_naive())),
        event("ahead", story.now() + TimeDelta::minutes(4)),
    ];
    let answer = story.service.tell(&told).await;
    assert_eq!(answer["accepted"], 2, "{answer}");
    assert_eq!(answer["refused"][0]["index"], 0);
    assert_eq!(answer["refused"][0]["field"], "occurred_at");
    let id = story.project.to_string();
    // Not in the last minutes of a day, or the events ahead would be of the next.
    story
        .clock
        .set(super::midnight(story.today() + Days::new(1)) + TimeDelta::hours(12));
    story.partner.delete_project(&id).await.expect(200);
    story
        .app
        .wait_for_status(story.project, ProjectStatus::Deleted)
        .await;
    let died = story.now();
    story.clock.advance(TimeDelta::days(2));
    let told = [
        event("late", died - TimeDelta::hours(1)),
        event("later that day", died + TimeDelta::hours(1)),
        event("the day after", died + TimeDelta::days(1)),
    ];
    let answer = story.service.tell(&told).await;
    assert_eq!(answer["accepted"], 2, "{answer}");
    let refused = &answer["refused"][0];
    assert_eq!(
        (&refused["index"], &refused["field"]),
        (&json!(2), &json!("occurred_at"))
    );
    assert!(
        refused["error"]
            .as_str()
            .unwrap()
            .contains("project existed")
    );
    let range = format!("?start_date={}", born.date_naive());
    assert_eq!(read_partner(&story.partner_usage(&range).await)[3], 4);
}

#[tokio::test]
async fn an_event_ahead_of_midnight_stays_on_the_bill_of_a_project_deleted_before() {
    let story = Story::start_working().await;
    let today = story.today();
    let tomorrow = super::midnight(today + Days::new(1));
    story.clock.set(tomorrow - TimeDelta::minutes(3));
    let ahead = tomorrow + TimeDelta::minutes(1);
    let event = story
        .service
        .event("ahead", story.project, "ai_tokens", 5, ahead);
    assert_eq!(
        story.service.tell(std::slice::from_ref(&event)).await["accepted"],
        1
    );
    story
        .partner
        .delete_project(&story.project.to_string())
        .await
        .expect(200);
    story
        .app
        .wait_for_status(story.project, ProjectStatus::Deleted)
        .await;
    story.clock.hold();
    let mut reference = story.runs().await;
    reference.count(&event);
    for first in [today, tomorrow.date_naive()] {
        let range = (first, first + Days::new(2));
        super::reference::assert_figures(&story.partner, &reference, &[story.project], range).await;
    }
}

#[tokio::test]
async fn a_project_without_a_partner_is_counted_and_on_nobodys_bill() {
    let story = Story::start().await;
    let own = story.app.copy_project(story.project, "own").await;
    let others = story.app.partner().await;
    sqlx::query("update projects set partner_id = null where id = $1")
        .bind(own.0)
        .execute(&mut story.app.database.connect().await)
        .await
        .unwrap();
    let told = [
        story.service.event("1", own, "ai_tokens", 5, story.now()),
        story
            .service
            .event("2", own, "database_bytes", 5, story.now()),
        story.event("3", "ai_tokens", 700),
    ];
    let answer = story.service.tell(&told).await;
    assert_eq!(
        answer,
        json!({ "accepted": 3, "duplicates": 0, "refused": [] })
    );
    let seen = read_partner(&story.partner_usage("").await);
    assert_eq!((seen[0], seen[2]), (0, 700));
    let text = story.partner.get("/usage?group_by=project").await.text;
    assert!(!text.contains(&own.to_string()), "{text}");
    let missing = story.partner.get(&format!("/{own}/usage")).await;
    missing.expect_code(404, "project_not_found");
    let seen = others
        .get("/usage?granularity=day&group_by=project")
        .await
        .expect(200);
    assert_eq!(read_partner(&seen), [0; 9], "another partner's never shows");
    assert_eq!(seen["projects"], json!([]));
    let counted: i64 =
        sqlx::query_scalar("select sum(ai_tokens)::bigint from usage_daily where project_id = $1")
            .bind(own.0)
            .fetch_one(&mut story.app.database.connect().await)
            .await
            .unwrap();
    assert_eq!(counted, 5, "it is known all the same");
}

#[tokio::test]
async fn a_batch_is_a_thousand_events_and_a_mebibyte() {
    let story = Story::start().await;
    let event = |n: usize| story.event(&n.to_string(), "function_calls", 1);
    let many: Vec<Value> = (0..1_001).map(event).collect();
    let refused = story.service.post(&many).await;
    assert_eq!(fields(&refused.body), ["code", "error", "requestId"]);
    let refused = refused.expect_code(400, "invalid_input");
    assert!(
        refused["error"].as_str().unwrap().contains("1000"),
        "{refused}"
    );
    story.nothing_counted().await;

    for (what, head, body) in [
        ("10 MB announced", "Content-Length: 10000000", Vec::new()),
        (
            "a byte too many announced",
            "Content-Length: 1048577",
            Vec::new(),
        ),
        (
            "in chunks",
            "Transfer-Encoding: chunked",
            [
                b"200000\r\n".to_vec(),
                vec![b' '; 0x20_0000],
                b"\r\n0\r\n\r\n".to_vec(),
            ]
            .concat(),
        ),
    ] {
        let text = raw(&story.service, head, &body).await;
        assert!(text.starts_with("HTTP/1.1 413"), "{what}: {text}");
        assert!(text.contains("payload_too_large"), "{what}: {text}");
    }
    story.nothing_counted().await;

    let answer = story.service.tell(&many[..1_000]).await;
    assert_eq!(answer["accepted"], 1_000);
    // The longest events that there can be.
    let long = |n: usize| story.event(&format!("{n:0>200}"), "function_calls", 1);
    let long: Vec<Value> = (0..1_000).map(long).collect();
    assert_eq!(story.service.tell(&long).await["accepted"], 1_000);
    assert_eq!(read_partner(&story.partner_usage("").await)[7], 2_000);
    let nothing = story.service.tell(&[]).await;
    assert_eq!(
        nothing,
        json!({ "accepted": 0, "duplicates": 0, "refused": [] })
    );
}

/// Sends a body as it is; the server may close before it has read everything.
async fn raw(service: &UsageService, head: &str, body: &[u8]) -> String {
    read_all(open(service, head, body).await).await
}

/// A request whose body may go on.
async fn open(service: &UsageService, head: &str, body: &[u8]) -> TcpStream {
    let address = service.client.base_url.trim_start_matches("http://");
    let head = format!(
        "POST /internal/usage/v1/events HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nConnection: close\r\n{head}\r\n\r\n",
        service.client.token
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let _ = stream.write_all(body).await;
    stream
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    let reading = stream.read_to_end(&mut text);
    let _ = tokio::time::timeout(Duration::from_secs(5), reading)
        .await
        .expect("the answer does not wait for more of the body");
    String::from_utf8_lossy(&text).into_owned()
}

/// Growth is refused before it takes memory: a batch that must wait is not read.
#[tokio::test]
async fn batches_beyond_the_places_are_told_to_wait_before_they_are_read() {
    let story = Story::start().await;
    let batch = json!({ "events": [story.event("held", "ai_tokens", 1)] }).to_string();
    let head = format!("Content-Length: {}", batch.len());
    let (begin, end) = batch.split_at(10);
    let (mut held, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        held.push(open(&story.service, &head, begin.as_bytes()).await);
    }
    // The body never comes to an end: whoever is answered has no place.
    eventually("four have no place", Duration::from_secs(8), async || {
        let mut silent = Vec::new();
        for stream in held.drain(..) {
            let answer = tokio::time::timeout(Duration::from_millis(50), stream.readable());
            match answer.await {
                Ok(_) => refused.push(read_all(stream).await),
                Err(_) => silent.push(stream),
            }
        }
        held = silent;
        (refused.len() >= 4).then_some(())
    })
    .await;
    for text in &refused {
        assert!(text.starts_with("HTTP/1.1 429"), "{text}");
        assert!(text.contains("rate_limited"), "{text}");
        assert!(text.to_lowercase().contains("retry-after: 1\r\n"), "{text}");
    }
    assert_eq!(held.len(), 8);
    story.nothing_counted().await;
    for mut stream in held {
        stream.write_all(end.as_bytes()).await.unwrap();
        let text = read_all(stream).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
    let answer = story
        .service
        .post(&[story.event("free", "ai_tokens", 1)])
        .await;
    assert_eq!(answer.status, 200, "the places are free again");
    assert_eq!(read_partner(&story.partner_usage("").await)[2], 2);
}

#[tokio::test]
async fn what_is_no_batch_is_refused_whole() {
    let story = Story::start().await;
    let event = story.event("good", "ai_tokens", 1);
    let good = event.to_string();
    let bodies = [
        String::new(),
        "null".into(),
        "[]".into(),
        "7".into(),
        "{".into(),
        "{}".into(),
        format!("[{good}]"),
        good.clone(),
        format!(r#"{{"event":[{good}]}}"#),
        r#"{"events":null}"#.into(),
        r#"{"events":"all"}"#.into(),
        format!(r#"{{"events":{good}}}"#),
        format!(r#"{{"events":[{good}]"#),
        format!(r#"{{"events":[{good},]}}"#),
        format!(r#"{{"events":[{good}]}} x"#),
        format!(r#"{{"events":[{good}],"events":[{good}]}}"#),
        // JSON has no such numbers, so this is none.
        format!(r#"{{"events":[{}]}}"#, numbered(&event, "NaN")),
        format!(r#"{{"events":[{}]}}"#, numbered(&event, "Infinity")),
        format!(r#"{{"events":[{}]}}"#, numbered(&event, "01")),
        format!(r#"{{"events":[{}]}}"#, numbered(&event, "+1")),
        format!(r#"{{"events":[{}]}}"#, numbered(&event, ".5")),
    ];
    for body in bodies {
        let answer = send(&story.service, body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
        assert_eq!(answer.body["code"], "invalid_input", "{body}");
        assert_eq!(
            fields(&answer.body),
            ["code", "error", "requestId"],
            "{body}"
        );
    }
    let not_utf8 = send(&story.service, b"{\"events\":[\"\xff\"]}".to_vec()).await;
    not_utf8.expect_code(400, "invalid_input");
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-ndjson"),
        Some("text/csv"),
    ] {
        let mut request = story
            .service
            .client
            .request()
            .body(format!(r#"{{"events":[{good}]}}"#));
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        Answer::to(request)
            .await
            .expect_code(415, "unsupported_media_type");
    }
    story.nothing_counted().await;
}

#[tokio::test]
async fn services_alone_may_tell() {
    let story = Story::start().await;
    let revoked = story.app.usage_service("revoked").await;
    story
        .app
        .control_plane
        .revoke_usage_token("revoked")
        .await
        .unwrap();
    let token = &story.service.client.token;
    let last = if token.ends_with('a') { "b" } else { "a" };
    let events = json!({ "events": [story.event("good", "ai_tokens", 1)] });
    for (what, credentials) in [
        ("none", None),
        ("empty", Some("Bearer ".to_owned())),
        ("revoked", Some(format!("Bearer {}", revoked.client.token))),
        (
            "a partner's secret",
            Some(format!("Bearer {}", story.partner.secret)),
        ),
        ("no scheme", Some(token.clone())),
        ("another scheme", Some(format!("Basic {token}"))),
        (
            "mistyped",
            Some(format!("Bearer {}{last}", &token[..token.len() - 1])),
        ),
        ("two in one", Some(format!("Bearer {token},{token}"))),
        ("very long", Some(format!("Bearer {}", "x".repeat(4_000)))),
    ] {
        let mut request = story
            .app
            .http
            .post(format!("{}/internal/usage/v1/events", story.app.base_url))
            .json(&events);
        if let Some(credentials) = credentials {
            request = request.header("authorization", credentials);
        }
        let answer = Answer::to(request).await;
        assert_eq!(answer.status, 401, "{what}: {}", answer.text);
        assert!(answer.header("www-authenticate").is_some(), "{what}");
        assert!(!answer.text.contains(token.as_str()), "{what}");
    }
    story.nothing_counted().await;
    let answer = story
        .service
        .post(events["events"].as_array().unwrap())
        .await;
    assert_eq!(answer.expect(200)["accepted"], 1);
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked_and_never_kept() {
    let story = Story::start().await;
    let control_plane = &story.app.control_plane;
    let made = story.app.usage_service("mailer").await;
    let again = control_plane
        .create_usage_token("mailer", &["mailer".into()])
        .await;
    assert!(again.is_err(), "a live token has this name");
    for bad in ["", "Mailer", "a b", "collector", &"x".repeat(65)] {
        let refused = control_plane
            .create_usage_token("other", &[bad.to_owned()])
            .await;
        assert!(refused.is_err(), "{bad:?}");
    }
    assert!(
        control_plane
            .create_usage_token("other", &[])
            .await
            .is_err()
    );
    let listed = control_plane.list_usage_tokens().await.unwrap();
    let names: Vec<&str> = listed.iter().map(|token| token.name.as_str()).collect();
    assert_eq!(names, ["gateway", "mailer"]);
    control_plane.revoke_usage_token("mailer").await.unwrap();
    assert!(
        control_plane.revoke_usage_token("mailer").await.is_err(),
        "once"
    );
    // The name is free again, and the old token stays what it was.
    let next = story.app.usage_service("mailer").await;
    assert_eq!(made.post(&[]).await.status, 401);
    next.post(&[]).await.expect(200);
    let mut conn = story.app.database.connect().await;
    let rows: String = sqlx::query_scalar("select string_agg(t::text, ' ') from usage_tokens t")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert!(!rows.contains(&next.client.token));
    let audited: Vec<String> = sqlx::query_scalar(
        "select action from audit_log where action like 'usage_token.%' order by at, id",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let (created, revoked) = ("usage_token.created", "usage_token.revoked");
    assert_eq!(audited, [created, created, revoked, created]);
}
