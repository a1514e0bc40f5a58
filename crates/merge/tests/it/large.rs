//! How long reading and deciding take. Run by hand, in release: `cargo test -p cp-merge --release --test it -- --ignored
//! large --nocapture`; `TABLES` sets the size.

use std::time::Instant;

use cp_merge::{
    catalog,
    three_way::{Resolutions, Sides, three_way},
};

use crate::database::Database;

fn schema(tables: usize) -> String {
    (0..tables)
        .map(|n| {
            format!(
                "CREATE TABLE public.t{n} (id bigserial PRIMARY KEY, a text NOT NULL DEFAULT 'x', b int, c jsonb, d timestamptz \
                 DEFAULT now(), e uuid, f numeric(10,2), g boolean DEFAULT false, h varchar(20), i text);
                 CREATE INDEX t{n}_a ON public.t{n} (a); CREATE INDEX t{n}_b ON public.t{n} (b DESC) WHERE b > 0;
                 CREATE POLICY p ON public.t{n} USING (a = current_user);\n"
            )
        })
        .collect()
}

fn edits(side: &str, from: usize) -> String {
    (from..from + 50)
        .map(|n| match n % 4 {
            0 => format!("ALTER TABLE public.t{n} ADD COLUMN {side} text;"),
            1 => format!("CREATE INDEX {side}_{n} ON public.t{n} (e);"),
            2 => format!("ALTER TABLE public.t{n} ALTER b SET DEFAULT 5;"),
            _ => format!("CREATE VIEW public.{side}_v{n} AS SELECT id, a FROM public.t{n};"),
        })
        .collect()
}

#[tokio::test]
#[ignore = "a measurement"]
async fn large_schemas() {
    let tables = std::env::var("TABLES").map_or(1000, |tables| tables.parse().unwrap());
    let parent = Database::empty().await;
    for part in schema(tables).lines().collect::<Vec<_>>().chunks(1000) {
        parent.psql(&part.join("\n")).await;
    }
    let branch = parent.template_copy().await;
    let mut session = parent.connect().await;
    let parent_t0 = catalog::read(&mut session).await.unwrap();
    let branch_t0 = catalog::read(&mut branch.connect().await).await.unwrap();
    parent.psql(&edits("parent", 0)).await;
    branch.psql(&edits("branch", 25)).await;
    let branch = catalog::read(&mut branch.connect().await).await.unwrap();
    let start = Instant::now();
    let parent = catalog::read(&mut session).await.unwrap();
    let read = start.elapsed();
    let sides = Sides {
        parent_t0: &parent_t0,
        parent: &parent,
        branch_t0: &branch_t0,
        branch: &branch,
    };
    let start = Instant::now();
    let merge = three_way(&sides, &Resolutions::new());
    let decided = start.elapsed();
    let start = Instant::now();
    let bytes = parent.to_bytes();
    let written = start.elapsed();
    let start = Instant::now();
    let script = cp_merge::script::script(&parent, &merge.target, &merge.renames);
    let scripted = start.elapsed();
    let peak = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = peak.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    println!(
        "{tables} tables, {} facts: read (until settled) {read:?}, decided {decided:?} ({} changes, {} conflicts), script {scripted:?} \
         ({} statements), {} bytes in {written:?}; {peak}",
        parent.facts.len(),
        merge.changes.len(),
        merge.conflicts.len(),
        script.statements.len(),
        bytes.len()
    );
    assert!(merge.changes.len() + merge.conflicts.len() >= 40);
}
