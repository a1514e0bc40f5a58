//! How long it takes to read and plan large schemas: `cargo test --release -p cp-merge --test it -- --ignored speed`.

use std::{fmt::Write as _, time::Instant};

use cp_merge::{Bases, Resolutions, plan, snapshot};

use crate::database::Database;

/// Tables of 10 columns, 2 indexes and 1 policy.
fn schema(tables: usize) -> String {
    let mut sql = String::from("BEGIN;\n");
    for n in 0..tables {
        let _ = writeln!(
            sql,
            "CREATE TABLE public.t{n} (id bigint PRIMARY KEY, a int, b text DEFAULT 'x', c date, d numeric(10,2),
                e timestamptz DEFAULT now(), f boolean NOT NULL DEFAULT false, g jsonb, h varchar(20), i uuid);
             CREATE INDEX t{n}_a ON public.t{n} (a);
             CREATE INDEX t{n}_b ON public.t{n} (lower(b));
             CREATE POLICY p ON public.t{n} USING (a > 0);"
        );
        if n % 500 == 499 {
            sql.push_str("COMMIT; BEGIN;\n");
        }
    }
    sql.push_str("COMMIT;");
    sql
}

/// 50 edits of several kinds, beginning with the table given.
fn edits(from: usize) -> String {
    let mut sql = String::new();
    for n in 0..10 {
        let t = from + n;
        let _ = writeln!(
            sql,
            "ALTER TABLE public.t{t} ADD COLUMN z{from} int DEFAULT {n};
             ALTER TABLE public.t{t} ALTER h TYPE varchar(40);
             CREATE INDEX t{t}_c ON public.t{t} (c);
             ALTER POLICY p ON public.t{t} TO anon;
             CREATE VIEW public.v{t} AS SELECT id, a FROM public.t{t};"
        );
    }
    sql
}

async fn measure(tables: usize) -> (f64, f64) {
    let parent = Database::empty().await;
    parent.psql(&schema(tables)).await;
    let branch = parent.template_copy().await;
    let began = Instant::now();
    let bases = Bases {
        parent: snapshot(&mut parent.connect().await).await.unwrap(),
        branch: snapshot(&mut branch.connect().await).await.unwrap(),
    };
    let snapshots = began.elapsed().as_secs_f64() / 2.0;
    parent.psql(&edits(0)).await;
    branch.psql(&edits(500)).await;
    let began = Instant::now();
    let plan = plan(
        &parent.options(),
        &branch.options(),
        &bases,
        &Resolutions::new(),
    )
    .await
    .unwrap();
    let planned = began.elapsed().as_secs_f64();
    assert!(plan.is_clean());
    assert_eq!(plan.changes.len(), 50);
    (snapshots, planned)
}

/// The most memory that this process ever had, in MiB; none where the system does not tell.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}

#[tokio::test]
#[ignore = "for release builds: measures"]
async fn speed() {
    let mut slow = Vec::new();
    for (tables, bar) in [(1_000, 2.0), (10_000, 25.0)] {
        let (snapshot, planned) = measure(tables).await;
        println!(
            "{tables} tables: a snapshot {snapshot:.2} s, a plan (both snapshots in it) {planned:.2} s, bar {bar} s, peak {:?} MiB",
            peak_memory()
        );
        if planned > bar {
            slow.push(tables);
        }
    }
    assert!(slow.is_empty(), "over the bar: {slow:?} tables");
    if let Some(peak) = peak_memory() {
        assert!(peak < 1024, "{peak} MiB");
    }
}
