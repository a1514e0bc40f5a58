//! How long a copy takes beside the bare programs, and how much memory. Run by hand, best in a release build:
//! `cargo test --release -p cp-dump --test it -- --ignored --nocapture gigabyte`

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use cp_dump::{Contents, Exported, How, Meter, dump, restore};
use cp_pg::Binaries;
use futures::StreamExt;
use tokio::{
    fs::File,
    io::{AsyncWriteExt, BufWriter},
    process::Command,
};
use tokio_util::io::ReaderStream;

use crate::harness::{PASSWORD, World, with_world};

/// What a branch may cost beside `pg_dump -Fc | pg_restore`.
const BAR: f64 = 1.3;

/// Growth of this process that pieces under way may cause.
const MEMORY_MIB: u64 = 32;

#[tokio::test]
#[ignore = "takes minutes and measures time"]
async fn gigabyte() {
    measure(1024).await;
}

#[tokio::test]
#[ignore = "measures time"]
async fn quarter_of_a_gigabyte() {
    measure(256).await;
}

/// A schema-only branch names each table that it leaves the rows of out; that must not cost more than the rows would.
#[tokio::test]
#[ignore = "takes minutes and measures time"]
async fn two_thousand_tables() {
    with_world(|world| async move {
        world.parent.create_database("insforge").await;
        for hundred in 0..20 {
            let some = format!(
                "DO $$ BEGIN FOR i IN 1..100 LOOP
                     EXECUTE format('CREATE TABLE a_table_with_a_common_name_{hundred}_%s (id bigserial PRIMARY KEY, t text)', i);
                     EXECUTE format('INSERT INTO a_table_with_a_common_name_{hundred}_%s (t) VALUES (1)', i);
                 END LOOP; END $$"
            );
            world.parent.sql(&some).await;
        }
        let time = async |what: &str, contents| {
            let start = Instant::now();
            world.archive(contents).await;
            println!("{what}: {:.1?}", start.elapsed());
            start.elapsed()
        };
        let whole = time("everything", Contents::Everything).await;
        let schema = time("the schema", Contents::BranchWithoutData).await;
        world.parent.sql("CREATE MATERIALIZED VIEW v AS SELECT 1 AS i").await;
        let by_name = time("the schema, table by table", Contents::BranchWithoutData).await;
        assert!(schema < whole * 2);
        assert!(by_name < whole * 5);
        let start = Instant::now();
        world.copy(Contents::BranchWithoutData, How::NewMachine).await.unwrap();
        println!("dumped and restored: {:.1?}", start.elapsed());
        let start = Instant::now();
        world.fix_up(true, false).await.unwrap();
        println!("fixed up: {:.1?}", start.elapsed());
    })
    .await;
}

/// With about this many MiB in tables, overflow tables and indexes.
async fn measure(mebibytes: u32) {
    with_world(move |world| async move {
        fill(&world, mebibytes).await;
        let size = world
            .parent
            .value("SELECT pg_size_pretty(pg_database_size('insforge'))")
            .await;
        println!("database of {size}");

        let bare = bare_programs(&world).await;
        println!("pg_dump -Fc | pg_restore: {bare:.1?}");

        let before = peak_mib();
        let (joined, meter) = joined(&world).await;
        print_ratio("dump joined to restore", joined, bare);
        let (stored, dumped) = through_a_store(&world).await;
        print_ratio("dump to a file, then restore, then fix-ups", stored, bare);
        let grown = peak_mib() - before;
        println!(
            "of it the dump: {dumped:.1?}; archive of {} MiB; {grown} MiB of memory",
            meter.bytes() >> 20
        );

        assert_eq!(world.branch.rows().await, world.parent.rows().await);
        assert!(grown < MEMORY_MIB, "{grown} MiB");
        assert!(joined.as_secs_f64() < BAR * bare.as_secs_f64());
        assert!(stored.as_secs_f64() < BAR * bare.as_secs_f64());
    })
    .await;
}

fn print_ratio(what: &str, took: Duration, bare: Duration) {
    let ratio = took.as_secs_f64() / bare.as_secs_f64();
    println!("{what}: {took:.1?}, {ratio:.2} x");
}

/// As backends have it: many short rows with keys and indexes, some documents, some long texts.
async fn fill(world: &World, mebibytes: u32) {
    world.parent.create_database("insforge").await;
    let (events, documents, files) = (mebibytes * 3_400, mebibytes * 260, mebibytes * 7);
    world
        .parent
        .sql(&format!(
            "CREATE TABLE users AS SELECT i AS id, gen_random_uuid() AS key, format('user%s@example.com', i) AS email
                 FROM generate_series(1, {documents}) i;
             ALTER TABLE users ADD PRIMARY KEY (id); CREATE UNIQUE INDEX ON users (email);
             CREATE TABLE events AS SELECT i::bigint AS id, i % {documents} + 1 AS who,
                 timestamptz '2025-01-01' + i * interval '1 s' AS at, md5(i::text) AS what, random() AS value
                 FROM generate_series(1, {events}) i;
             ALTER TABLE events ADD PRIMARY KEY (id); CREATE INDEX ON events (who, at);
             ALTER TABLE events ADD FOREIGN KEY (who) REFERENCES users;
             CREATE TABLE documents AS SELECT i AS id, jsonb_build_object('title', md5(i::text), 'tags',
                 (SELECT jsonb_agg(md5((i * g)::text)) FROM generate_series(1, 25) g)) AS document
                 FROM generate_series(1, {documents}) i;
             ALTER TABLE documents ADD PRIMARY KEY (id); CREATE INDEX ON documents ((document ->> 'title'));
             CREATE TABLE files AS SELECT i AS id, (SELECT string_agg(sha512((i * g)::text::bytea), '')
                 FROM generate_series(1, 400) g) AS bytes FROM generate_series(1, {files}) i;
             ALTER TABLE files ADD PRIMARY KEY (id)"
        ))
        .await;
    // Not in the time of whoever comes first.
    world.parent.rows().await;
    world.parent.sql("ANALYZE").await;
}

async fn bare_programs(world: &World) -> Duration {
    world.branch.create_database("bare").await;
    let binaries = Binaries::find().await.unwrap();
    let script = format!(
        "'{}' -Fc -h 127.0.0.1 -U postgres -p {} insforge | '{}' -h 127.0.0.1 -U postgres -p {} -d bare",
        binaries.program("pg_dump").display(),
        world.parent.cluster.port(),
        binaries.program("pg_restore").display(),
        world.branch.cluster.port(),
    );
    let start = Instant::now();
    let status = Command::new("sh")
        .args(["-c", &script])
        .env("PGPASSWORD", PASSWORD)
        .stdin(Stdio::null())
        .status();
    assert!(status.await.unwrap().success());
    let took = start.elapsed();
    world.branch.sql_in("postgres", "CHECKPOINT").await;
    took
}

async fn joined(world: &World) -> (Duration, Meter) {
    let start = Instant::now();
    let meter = Meter::new();
    let archive = dump(
        &world.parent.database(),
        &world.programs,
        Contents::Branch,
        None,
        meter.clone(),
    )
    .await
    .unwrap();
    restore(
        &world.branch.database(),
        &world.programs,
        archive,
        How::NewMachine,
        Meter::new(),
    )
    .await
    .unwrap();
    let took = start.elapsed();
    world.branch.sql_in("postgres", "CHECKPOINT").await;
    (took, meter)
}

/// As a branch is made: the archive is whole in a store (a file here) before it is restored.
async fn through_a_store(world: &World) -> (Duration, Duration) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive");
    let start = Instant::now();
    let snapshot = Exported::open(&world.parent.database()).await.unwrap();
    let mut archive = dump(
        &world.parent.database(),
        &world.programs,
        Contents::Branch,
        Some(snapshot.name()),
        Meter::new(),
    )
    .await
    .unwrap();
    let mut file = BufWriter::new(File::create(&path).await.unwrap());
    while let Some(piece) = archive.next().await {
        file.write_all(&piece.unwrap()).await.unwrap();
    }
    file.flush().await.unwrap();
    snapshot.close().await.unwrap();
    let dumped = start.elapsed();

    let archive = ReaderStream::with_capacity(File::open(&path).await.unwrap(), 256 * 1024);
    restore(
        &world.branch.database(),
        &world.programs,
        archive,
        How::NewMachine,
        Meter::new(),
    )
    .await
    .unwrap();
    world.fix_up(false, false).await.unwrap();
    (start.elapsed(), dumped)
}

/// The most memory that this process ever had. 0 where /proc is missing.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}
