//! Usage totals of partners of any size against a plain `GROUP BY` over the same daily rows, and
//! events through the interface against `COPY` of the same rows.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use chrono::Utc;
use cp_tests::programs::Dev;
use cp_tests::{PartnerClient, UsageClient};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::report::Row;
use crate::{at_least, at_most};

/// Calls of which the slowest hundredth is told.
const CALLS: usize = 1_000;
/// Calls before them: after the seeding's changes to the schema each connection reads it anew once.
const WARM_UP: usize = 100;
const BATCH: usize = 1_000;
const BATCHES: usize = 300;
const WRITERS: usize = 4;

pub async fn measure(dev: &Dev) -> Vec<Row> {
    let mut conn = PgConnection::connect(&dev.database_url())
        .await
        .expect("the database answers");
    let mut rows = Vec::new();
    rows.extend(ingest(dev, &mut conn).await);

    let small = partner(dev, "Small").await;
    let middle = partner(dev, "Middle").await;
    let big = partner(dev, "Big").await;
    seed(dev, &small, 1_000).await;
    seed(dev, &middle, 10_000).await;
    let before = database_bytes(&mut conn).await;
    let began = Instant::now();
    seed(dev, &big, 100_000).await;
    let seeding = began.elapsed();
    let gib = (database_bytes(&mut conn).await - before) / f64::from(1 << 30);
    // What seeding leaves to be written is not what is measured.
    for settle in ["vacuum (analyze)", "checkpoint"] {
        sqlx::query(settle)
            .execute(&mut conn)
            .await
            .expect("the database can settle");
    }

    let month = calls(&middle, 30).await;
    let year = calls(&big, 365).await;
    let year_of_small = calls(&small, 365).await;
    let plain_month = group_by(&mut conn, &middle, 30).await;
    let plain_year = group_by(&mut conn, &big, 365).await;
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let times = |plain: Duration, ours: &Times| plain.as_secs_f64() / ours.median.as_secs_f64();
    rows.extend([
        at_most(
            "usage of 10,000 projects, 30 days, p99",
            ms(month.p99),
            "ms",
            5.0,
            5.0,
            format!("median {:.2} ms", ms(month.median)),
        ),
        at_most(
            "usage of 100,000 projects, 365 days, p99",
            ms(year.p99),
            "ms",
            25.0,
            25.0,
            format!("median {:.2} ms", ms(year.median)),
        ),
        at_least(
            "  GROUP BY of 10,000 x 30 days / ours",
            times(plain_month, &month),
            "x",
            100.0,
            100.0,
            format!(
                "{:.0} ms, the product's own tables and indexes",
                ms(plain_month)
            ),
        ),
        at_least(
            "  GROUP BY of 100,000 x 365 days / ours",
            times(plain_year, &year),
            "x",
            100.0,
            100.0,
            format!("{:.0} ms", ms(plain_year)),
        ),
        at_most(
            "  growth from 1,000 to 100,000 projects",
            year.median.as_secs_f64() / year_of_small.median.as_secs_f64(),
            "x",
            2.0,
            2.0,
            format!(
                "medians of 365 days; {:.2} ms for 1,000",
                ms(year_of_small.median)
            ),
        ),
        at_most(
            "  seeding 100,000 projects x 365 days",
            seeding.as_secs_f64() / 60.0,
            "min",
            5.0,
            5.0,
            String::new(),
        ),
        at_most("  and its size", gib, "GiB", 9.3, 9.3, "10 GB".into()),
    ]);
    rows
}

async fn partner(dev: &Dev, name: &str) -> PartnerClient {
    let made = dev
        .home()
        .operator(&[
            "partner",
            "create",
            name,
            "--rate-limit",
            "1000000",
            "--json",
        ])
        .await
        .json();
    let text = |key: &str| made[key].as_str().expect("a text").to_owned();
    PartnerClient {
        id: text("id"),
        secret: text("secret"),
        ..dev.partner.clone()
    }
}

/// Projects with a year of usage each, as a year of events would have left them. They are deleted,
/// so that nobody asks their backends.
async fn seed(dev: &Dev, partner: &PartnerClient, projects: i32) {
    let mut conn = PgConnection::connect(&dev.database_url())
        .await
        .expect("the database answers");
    sqlx::query("select ensure_usage_partitions(make_date(extract(year from current_date - 364)::int, 1, 1), 0)")
        .execute(&mut conn)
        .await
        .expect("partitions can be made");
    sqlx::query(
        "insert into projects (id, organization_id, partner_id, name, app_key, region, instance_type, status, created_at, updated_at, deleted_at)
         select gen_random_uuid(), p.organization_id, p.id, 'bench ' || i, 'bench' || $2 || 'x' || i, 'us-east', 'nano', 'deleted', now() - interval '400 days', now(), now()
         from partners p, generate_series(1, $2) i where p.id = $1",
    )
    .bind(&partner.id)
    .bind(projects)
    .execute(&mut conn)
    .await
    .expect("projects can be made");
    // Both cores.
    let half = |low: &'static str, high: &'static str| async move {
        let mut conn = PgConnection::connect(&dev.database_url())
            .await
            .expect("the database answers");
        sqlx::query(
            "insert into usage_daily (project_id, day, lane, partner_id, database_bytes, storage_bytes, ai_tokens, mcp_calls, egress_bytes, ai_credits, email_requests, function_calls)
             select p.id, d.day, 0, p.partner_id, 12000000 + d.day - current_date, 1000000, 500, 10, 100000, 50000, 5, 20
             from (select id, partner_id from projects where partner_id = $1 and id >= $2::uuid and id < $3::uuid order by id) p,
                  (select current_date - i as day from generate_series(0, 364) i) d",
        )
        .bind(&partner.id)
        .bind(low)
        .bind(high)
        .execute(&mut conn)
        .await
        .expect("days can be made");
    };
    tokio::join!(
        half(
            "00000000-0000-0000-0000-000000000000",
            "80000000-0000-0000-0000-000000000000"
        ),
        half(
            "80000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff"
        ),
    );
    sqlx::query(
        "insert into usage_partner_daily (partner_id, day, lane, database_bytes, storage_bytes, ai_tokens, mcp_calls, egress_bytes, ai_credits, email_requests, function_calls, run_starts, run_start_seconds, run_stops, run_stop_seconds)
         select partner_id, day, 0, sum(database_bytes), sum(storage_bytes), sum(ai_tokens), sum(mcp_calls), sum(egress_bytes), sum(ai_credits), sum(email_requests), sum(function_calls),
                count(*), 3600 * count(*), count(*), 7200 * count(*)
         from usage_daily where partner_id = $1 group by partner_id, day",
    )
    .bind(&partner.id)
    .execute(&mut conn)
    .await
    .expect("days of partners can be made");
}

async fn database_bytes(conn: &mut PgConnection) -> f64 {
    let bytes: i64 = sqlx::query_scalar("select pg_database_size(current_database())")
        .fetch_one(conn)
        .await
        .expect("the size is known");
    #[allow(clippy::cast_precision_loss)] // gigabytes
    let bytes = bytes as f64;
    bytes
}

struct Times {
    median: Duration,
    p99: Duration,
}

async fn calls(partner: &PartnerClient, days: u64) -> Times {
    let end = Utc::now().date_naive();
    let start = end - chrono::Days::new(days - 1);
    let path = format!("/usage?start_date={start}&end_date={end}");
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..WARM_UP {
        partner.get(&path).await.expect(200);
    }
    for _ in 0..CALLS {
        let began = Instant::now();
        let usage = partner.get(&path).await.expect(200);
        times.push(began.elapsed());
        assert!(usage["summary"]["ai_tokens"].as_i64() > Some(0), "{usage}");
    }
    times.sort_unstable();
    Times {
        median: times[CALLS / 2],
        p99: times[CALLS * 99 / 100],
    }
}

/// The best of three.
async fn group_by(conn: &mut PgConnection, partner: &PartnerClient, days: i32) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        sqlx::query(
            "select day, sum(database_bytes), sum(storage_bytes), sum(ai_tokens), sum(mcp_calls), sum(egress_bytes), sum(ai_credits), sum(email_requests), sum(function_calls)
             from usage_daily where partner_id = $1 and day > current_date - $2::int group by day",
        )
        .bind(&partner.id)
        .bind(days)
        .fetch_all(&mut *conn)
        .await
        .expect("the days can be summed up");
        best = best.min(began.elapsed());
    }
    best
}

/// Batches of a thousand, each event for one of a thousand projects, by several writers at once.
async fn ingest(dev: &Dev, conn: &mut PgConnection) -> Vec<Row> {
    let partner = partner(dev, "Events").await;
    sqlx::query(
        "insert into projects (id, organization_id, partner_id, name, app_key, region, instance_type, status, created_at, updated_at, deleted_at)
         select gen_random_uuid(), p.organization_id, p.id, 'events ' || i, 'events' || i, 'us-east', 'nano', 'deleted', now() - interval '10 days', now(), now() + interval '1 day'
         from partners p, generate_series(1, 1000) i where p.id = $1",
    )
    .bind(&partner.id)
    .execute(&mut *conn)
    .await
    .expect("projects can be made");
    let projects: Vec<Uuid> = sqlx::query_scalar("select id from projects where partner_id = $1")
        .bind(&partner.id)
        .fetch_all(&mut *conn)
        .await
        .expect("projects can be read");
    let token = dev
        .home()
        .operator(&[
            "usage-token",
            "create",
            "bench",
            "--source",
            "bench",
            "--json",
        ])
        .await
        .json();
    let token = token["token"].as_str().expect("a token").to_owned();
    let client = UsageClient::new(dev.base_url(), &token);
    let now = Utc::now();
    let batches: Vec<Value> = (0..BATCHES)
        .map(|batch| {
            let events: Vec<Value> = (0..BATCH)
                .map(|n| {
                    json!({ "id": format!("{}", Uuid::new_v4()), "source": "bench", "project_id": projects[(n * 7 + batch) % projects.len()],
                            "metric": "ai_tokens", "value": 15, "occurred_at": now })
                })
                .collect();
            json!({ "events": events })
        })
        .collect();
    let rows = copy_rows(&batches);

    let began = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for mine in batches.chunks(BATCHES.div_ceil(WRITERS)) {
        let (client, mine) = (client.clone(), mine.to_vec());
        writers.spawn(async move {
            for batch in &mine {
                let answer = client.post(batch).await.expect(200);
                assert_eq!(answer["accepted"], BATCH, "{answer}");
            }
        });
    }
    writers.join_all().await;
    #[allow(clippy::cast_precision_loss)] // thousands
    let events = (BATCHES * BATCH) as f64;
    let ours = events / began.elapsed().as_secs_f64();

    sqlx::query(
        "create table bench_copy (key uuid primary key, occurred_at timestamptz not null, project_id uuid not null,
                                  metric text not null, amount bigint not null, source text not null, id text not null)",
    )
    .execute(&mut *conn)
    .await
    .expect("a table can be made");
    let began = Instant::now();
    let mut copy = conn
        .copy_in_raw("copy bench_copy from stdin")
        .await
        .expect("COPY begins");
    copy.send(rows.into_bytes()).await.expect("COPY takes rows");
    copy.finish().await.expect("COPY ends");
    let plain = events / began.elapsed().as_secs_f64();
    vec![
        at_least(
            "usage events through the interface",
            ours,
            "/s",
            20_000.0,
            20_000.0,
            format!("batches of {BATCH}, {WRITERS} writers"),
        ),
        at_least(
            "  of COPY into a table with a primary key",
            ours / plain,
            "x",
            0.3,
            0.3,
            format!("{plain:.0}/s"),
        ),
    ]
}

/// The same events as COPY's text format has them.
fn copy_rows(batches: &[Value]) -> String {
    let mut rows = String::new();
    for event in batches
        .iter()
        .flat_map(|batch| batch["events"].as_array().into_iter().flatten())
    {
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(
            rows,
            "{}\t{}\t{}\t{}\t{}\t{}\t{}",
            Uuid::new_v4(),
            text("occurred_at"),
            text("project_id"),
            text("metric"),
            event["value"],
            text("source"),
            text("id")
        );
    }
    rows
}
