//! How long a copy of a database with about 1 GB takes, beside the bare programs between the same servers, and how much
//! memory: a process of its own.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use cp_dump::{
    Contents, Database, Exported, FixUps, How, Meter, Programs, Tls, dump, fix_up_branch, restore,
};
use cp_pg::{Binaries, SUPERUSER};
use cp_tests::PrivateCluster;
use futures::StreamExt as _;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tokio::process::Command;
use tokio_util::io::ReaderStream;

use crate::at_most;
use crate::report::Row;

/// The product's name for a project's database.
const NAME: &str = "insforge";
/// Of tables, their overflow and indexes, about.
const MEBIBYTES: u32 = 1024;

pub async fn measure() -> Vec<Row> {
    let output = Command::new(std::env::current_exe().expect("a program knows its path"))
        .arg("--copy-child")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await
        .expect("this program can be started again");
    assert!(output.status.success(), "the copy failed");
    let figures: Value = serde_json::from_slice(&output.stdout).expect("the child writes JSON");
    let number = |key: &str| figures[key].as_f64().unwrap_or(f64::NAN);
    vec![
        at_most(
            "copy of 1 GB beside pg_dump | pg_restore",
            number("copied") / number("bare"),
            "x",
            1.3,
            1.3,
            format!(
                "{:.1} s with the fix-ups of a branch, archive whole before its restore; the programs alone {:.1} s",
                number("copied"),
                number("bare")
            ),
        ),
        at_most(
            "  memory that it takes meanwhile",
            number("grown_mib"),
            "MiB",
            32.0,
            32.0,
            format!("archive of {:.0} MiB", number("archive_mib")),
        ),
    ]
}

pub async fn child() {
    let binaries = Binaries::find()
        .await
        .expect("there are Postgres's programs");
    let (parent, _) = PrivateCluster::start(&binaries).await;
    let (branch, _) = PrivateCluster::start(&binaries).await;
    let programs = Programs::find()
        .await
        .expect("there are pg_dump and pg_restore");
    parent
        .run("postgres", &format!("CREATE DATABASE {NAME}"))
        .await;
    fill(&parent).await;
    let bare = bare_programs(&binaries, &parent, &branch).await;
    let before = crate::memory::peak();
    let (copied, archive_mib) = copy(&programs, &parent, &branch).await;
    let grown_mib = crate::memory::peak() - before;
    let report = json!({ "bare": bare, "copied": copied, "grown_mib": grown_mib, "archive_mib": archive_mib });
    println!("{report}");
}

/// As backends have it: many short rows with keys and indexes, some documents, some long texts.
async fn fill(server: &PrivateCluster) {
    let (events, documents, files) = (MEBIBYTES * 3_400, MEBIBYTES * 260, MEBIBYTES * 7);
    let sql = format!(
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
         ALTER TABLE files ADD PRIMARY KEY (id);
         ANALYZE"
    );
    server.run(NAME, &sql).await;
    // Pages that nobody has read since they were written cost their first reader more.
    server
        .run(NAME, "SELECT count(*) FROM users; SELECT count(*) FROM events; SELECT count(*) FROM documents; \
                    SELECT sum(length(bytes)) FROM files")
        .await;
}

/// Seconds of `pg_dump -Fc | pg_restore`.
async fn bare_programs(
    binaries: &Binaries,
    parent: &PrivateCluster,
    branch: &PrivateCluster,
) -> f64 {
    branch.run("postgres", "CREATE DATABASE bare").await;
    let program = |name: &str| -> PathBuf { binaries.program(name) };
    let script = format!(
        "'{}' -Fc '{}' | '{}' -d '{}'",
        program("pg_dump").display(),
        parent.url(NAME),
        program("pg_restore").display(),
        branch.url("bare"),
    );
    let began = Instant::now();
    let status = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .status()
        .await
        .expect("a shell can be started");
    assert!(status.success(), "pg_dump | pg_restore failed");
    let took = began.elapsed().as_secs_f64();
    branch.run("postgres", "CHECKPOINT").await;
    took
}

/// As a branch is made, with a file for the store; seconds, and MiB of the archive.
async fn copy(programs: &Programs, parent: &PrivateCluster, branch: &PrivateCluster) -> (f64, u64) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("archive");
    let (from, to, meter) = (database(parent), database(branch), Meter::new());
    let began = Instant::now();
    let snapshot = Exported::open(&from).await.expect("a snapshot is exported");
    let name = Some(snapshot.name());
    let mut archive = dump(&from, programs, Contents::Branch, name, meter.clone())
        .await
        .expect("the dump begins");
    let mut file = BufWriter::new(File::create(&path).await.expect("a file can be made"));
    while let Some(piece) = archive.next().await {
        let piece = piece.expect("the dump goes on");
        file.write_all(&piece)
            .await
            .expect("the archive can be written");
    }
    file.flush().await.expect("the archive can be written");
    snapshot.close().await.expect("the snapshot is closed");
    let file = File::open(&path).await.expect("the archive is there");
    let archive = ReaderStream::with_capacity(file, 256 * 1024);
    restore(&to, programs, archive, How::NewMachine, Meter::new())
        .await
        .expect("the archive can be restored");
    let fix_ups = FixUps {
        schema_only: false,
        run_schedules: false,
    };
    fix_up_branch(&to, fix_ups)
        .await
        .expect("the branch is fixed up");
    (began.elapsed().as_secs_f64(), meter.bytes() >> 20)
}

fn database(server: &PrivateCluster) -> Database {
    Database {
        host: "127.0.0.1".to_owned(),
        port: server.cluster.port(),
        name: NAME.to_owned(),
        user: SUPERUSER.to_owned(),
        password: SecretString::from(PrivateCluster::PASSWORD),
        tls: Tls::Disable,
    }
}
