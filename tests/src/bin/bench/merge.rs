//! How long a merge of large schemas takes to plan, how much memory, and beside migra, which compares two databases as
//! they are now, without a third that both came from.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use cp_merge::{Bases, Resolutions, Snapshot, plan, snapshot};
use cp_pg::Binaries;
use cp_tests::PrivateCluster;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::process::Command;

use crate::report::Row;
use crate::{at_least, at_most};

/// Rounds, one of ours and one of migra's each. The median counts.
const ROUNDS: usize = 3;
/// Changes that the plan has: on either side five to each of ten tables.
const EDITS: usize = 50;

/// What a promise for one size is, in seconds and MiB.
struct Bar {
    tables: usize,
    seconds: f64,
    memory: f64,
}

const BARS: [Bar; 2] = [
    Bar {
        tables: 1_000,
        seconds: 2.0,
        memory: 1024.0,
    },
    Bar {
        tables: 10_000,
        seconds: 25.0,
        memory: 1024.0,
    },
];

/// A parent and its branch, both edited since, and what both were before.
struct Pair {
    parent: String,
    branch: String,
    /// Two files: `parent` and `branch`.
    bases: TempDir,
}

pub async fn measure() -> Vec<Row> {
    let binaries = Binaries::find()
        .await
        .expect("there are Postgres's programs");
    let (server, _) = PrivateCluster::start(&binaries).await;
    server.run("postgres", "CREATE ROLE anon NOLOGIN").await;
    let mut rows = Vec::new();
    for bar in &BARS {
        let pair = Pair::make(&server, bar.tables).await;
        rows.extend(rows_of(bar, &pair).await);
    }
    rows
}

async fn rows_of(bar: &Bar, pair: &Pair) -> Vec<Row> {
    let (mut planned, mut compared, mut peak) = (Vec::new(), Vec::new(), 0.0_f64);
    for _ in 0..ROUNDS {
        let ours = plan_in_child(pair).await;
        assert_eq!(ours["changes"], EDITS, "{ours}");
        planned.push(ours["seconds"].as_f64().expect("seconds"));
        peak = peak.max(ours["peak_mib"].as_f64().expect("MiB"));
        compared.push(migra(pair).await);
    }
    let (planned, compared) = (median(planned), median(compared));
    vec![
        at_most(
            &format!("merge plan, {} tables", bar.tables),
            planned,
            "s",
            bar.seconds,
            bar.seconds,
            format!("both sides read and {EDITS} edits of each decided; median of {ROUNDS}"),
        ),
        at_most(
            "  memory of its process, peak",
            peak,
            "MiB",
            bar.memory,
            bar.memory,
            "with both snapshots that it starts from".into(),
        ),
        at_least(
            "  beside migra",
            compared / planned,
            "x",
            5.0,
            5.0,
            format!("migra {compared:.2} s for the same two databases"),
        ),
    ]
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

impl Pair {
    async fn make(server: &PrivateCluster, tables: usize) -> Self {
        let name = |side: &str| format!("{side}_{tables}");
        let (parent, branch) = (name("parent"), name("branch"));
        server
            .run("postgres", &format!("CREATE DATABASE {parent}"))
            .await;
        for first in (0..tables).step_by(500) {
            server.run(&parent, &schema(first, 500)).await;
        }
        server
            .run(
                "postgres",
                &format!("CREATE DATABASE {branch} TEMPLATE {parent}"),
            )
            .await;
        let bases = tempfile::tempdir().expect("a folder can be made");
        for (side, database, edited) in [("parent", &parent, 0), ("branch", &branch, 500)] {
            let mut session = PgConnection::connect(&server.url(database))
                .await
                .expect("the database answers");
            let base = snapshot(&mut session).await.expect("it can be read");
            std::fs::write(bases.path().join(side), base.to_bytes()).expect("it can be written");
            session.close().await.expect("a session ends");
            server.run(database, &edits(edited)).await;
            server.run(database, "ANALYZE").await;
        }
        Self {
            parent: server.url(&parent),
            branch: server.url(&branch),
            bases,
        }
    }
}

/// Tables of ten columns, two indexes and a policy.
fn schema(first: usize, count: usize) -> String {
    let mut sql = String::new();
    for n in first..first + count {
        let _ = writeln!(
            sql,
            "CREATE TABLE public.t{n} (id bigint PRIMARY KEY, a int, b text DEFAULT 'x', c date, d numeric(10,2),
                 e timestamptz DEFAULT now(), f boolean NOT NULL DEFAULT false, g jsonb, h varchar(20), i uuid);
             CREATE INDEX t{n}_a ON public.t{n} (a);
             CREATE INDEX t{n}_b ON public.t{n} (lower(b));
             CREATE POLICY p ON public.t{n} USING (a > 0);"
        );
    }
    sql
}

/// Of five kinds, to ten tables.
fn edits(first: usize) -> String {
    let mut sql = String::new();
    for n in first..first + EDITS / 5 {
        let _ = writeln!(
            sql,
            "ALTER TABLE public.t{n} ADD COLUMN z int DEFAULT {n};
             ALTER TABLE public.t{n} ALTER h TYPE varchar(40);
             CREATE INDEX t{n}_c ON public.t{n} (c);
             ALTER POLICY p ON public.t{n} TO anon;
             CREATE VIEW public.v{n} AS SELECT id, a FROM public.t{n};"
        );
    }
    sql
}

/// In a process of its own, whose memory can be told.
async fn plan_in_child(pair: &Pair) -> Value {
    let output = Command::new(std::env::current_exe().expect("a program knows its path"))
        .args(["--merge-plan", &pair.parent, &pair.branch])
        .arg(pair.bases.path())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await
        .expect("this program can be started again");
    assert!(output.status.success(), "the plan failed");
    serde_json::from_slice(&output.stdout).expect("the child writes JSON")
}

pub async fn child(arguments: &[String]) {
    let address =
        |text: &str| -> PgConnectOptions { text.parse().expect("the address of a database") };
    let base = |side: &str| {
        let bytes =
            std::fs::read(Path::new(&arguments[2]).join(side)).expect("a snapshot is there");
        Snapshot::from_bytes(&bytes).expect("a snapshot")
    };
    let bases = Bases {
        parent: base("parent"),
        branch: base("branch"),
    };
    let (parent, branch) = (address(&arguments[0]), address(&arguments[1]));
    let began = Instant::now();
    let plan = plan(&parent, &branch, &bases, &Resolutions::new())
        .await
        .expect("a plan");
    let seconds = began.elapsed().as_secs_f64();
    assert!(plan.is_clean(), "no edit meets another one");
    let report = json!({ "seconds": seconds, "changes": plan.changes.len(), "peak_mib": crate::memory::peak() });
    println!("{report}");
}

/// How long migra takes, in seconds.
async fn migra(pair: &Pair) -> f64 {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/migra/.venv/bin/migra");
    // SQLAlchemy knows this spelling of the scheme only.
    let address = |url: &str| url.replacen("postgres://", "postgresql://", 1);
    let began = Instant::now();
    let output = Command::new(program)
        .args(["--unsafe", &address(&pair.parent), &address(&pair.branch)])
        .stdin(Stdio::null())
        .output()
        .await
        .expect("scripts/setup --bench installs migra");
    let seconds = began.elapsed().as_secs_f64();
    // 2: they differ.
    assert_eq!(
        output.status.code(),
        Some(2),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    seconds
}
