//! What goes wrong, what it is called, and that nothing is taken for more than it is.

use std::{io, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use bytes::Bytes;
use cp_dump::{Contents, Error, How, Meter, Programs, dump, fix_up_branch, is_incomplete, restore};
use cp_pg::free_port;
use futures::{StreamExt, TryStreamExt, stream};
use secrecy::SecretString;

use crate::{
    backend,
    harness::{PASSWORD, with_settings, with_world},
};

const TABLES: &str = "SELECT count(*) FROM pg_tables WHERE schemaname !~ '^pg_' AND schemaname <> 'information_schema'";

#[tokio::test]
async fn an_archive_cut_anywhere_is_an_error() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        let archive = world.archive(Contents::Branch).await;
        let length = archive.len();
        let mut cuts = vec![0, 1, 4, 20, 60, 200, 5_000, length / 2];
        cuts.extend([1, 2, 5, 6, 10, 11, 100, 1_000].map(|less| length - less));
        cuts.extend((1..10).map(|tenth| length * tenth / 10));
        for cut in cuts {
            let error = world
                .restore(&archive[..cut], How::InPlace)
                .await
                .unwrap_err();
            assert!(error.is_permanent(), "{cut} of {length}: {error}");
            if cut < 200 {
                // Its head never came, so nothing was touched.
                assert!(matches!(error, Error::Archive(_)), "{cut}: {error}");
                continue;
            }
            assert!(is_incomplete(&world.branch.database()).await.unwrap());
            assert_eq!(world.branch.value(TABLES).await, "0", "{cut} of {length}");
            let refused = world.fix_up(false, false).await.unwrap_err();
            assert!(matches!(refused, Error::Incomplete(_)), "{refused}");
        }
        world.restore(&archive, How::NewMachine).await.unwrap();
        assert!(!is_incomplete(&world.branch.database()).await.unwrap());
        world.fix_up(false, false).await.unwrap();
        assert_eq!(world.branch.schema().await, world.parent.schema().await);
    })
    .await;
}

#[tokio::test]
async fn bytes_that_are_changed_or_go_on_are_an_error() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        let archive = world.archive(Contents::Branch).await;
        let twice = [archive.as_slice(), archive.as_slice()].concat();
        let error = world.restore(&twice, How::InPlace).await.unwrap_err();
        assert!(matches!(error, Error::Archive(_)), "{error}");
        assert!(is_incomplete(&world.branch.database()).await.unwrap());

        let mut changed = archive.clone();
        let middle = changed.len() / 2;
        changed[middle..middle + 64].fill(0x5a);
        world.restore(&changed, How::InPlace).await.unwrap_err();
        assert!(is_incomplete(&world.branch.database()).await.unwrap());

        for other in [&b"-- PostgreSQL database dump"[..], b"", b"\x1f\x8b\x08"] {
            let error = world.restore(other, How::InPlace).await.unwrap_err();
            assert!(matches!(error, Error::Archive(_)), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_source_that_fails_at_the_very_end_restores_nothing() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        let archive = world.archive(Contents::Branch).await;
        let length = archive.len() as u64;
        let pieces = [
            Ok(Bytes::from(archive)),
            Err(io::Error::other("its checksum is another one")),
        ];
        let error = restore(
            &world.branch.database(),
            &world.programs,
            stream::iter(pieces),
            How::NewMachine,
            Meter::new(),
        )
        .await
        .unwrap_err();
        assert!(
            matches!(&error, Error::Stream { bytes, .. } if *bytes == length),
            "{error}"
        );
        assert!(!error.is_permanent());
        assert!(is_incomplete(&world.branch.database()).await.unwrap());
        assert_eq!(world.branch.value(TABLES).await, "0");
    })
    .await;
}

/// Enough that pg_dump is still at it when the first pieces are read.
const MUCH: &str = "CREATE TABLE much AS SELECT i, md5(i::text) || md5((i * 7)::text) AS noise FROM generate_series(1, 400000) i";

#[tokio::test]
async fn a_killed_pg_dump_is_an_error_of_the_stream_and_of_the_restore() {
    with_world(|world| async move {
        world.parent.create_database("insforge").await;
        world.parent.sql(MUCH).await;
        for ending in [Ending::ProgramKilled, Ending::SessionTerminated] {
            let mut archive = dump(
                &world.parent.database(),
                &world.programs,
                Contents::Everything,
                None,
                Meter::new(),
            )
            .await
            .unwrap();
            let mut begin = Vec::new();
            while begin.len() < 300_000 {
                begin.extend_from_slice(&archive.next().await.unwrap().unwrap());
            }
            match ending {
                Ending::ProgramKilled => kill_pg_dump_of(world.parent.cluster.port()),
                Ending::SessionTerminated => {
                    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                                     WHERE query LIKE 'COPY%' AND pid <> pg_backend_pid()";
                    world.parent.sql(terminate).await;
                }
            }
            let rest: Result<Vec<Bytes>, io::Error> = archive.try_collect().await;
            let source = rest.unwrap_err();
            assert!(
                source.get_ref().unwrap().is::<Error>(),
                "{ending:?}: {source}"
            );

            let pieces = [Ok(Bytes::from(begin)), Err(source)];
            let error = restore(
                &world.branch.database(),
                &world.programs,
                stream::iter(pieces),
                How::NewMachine,
                Meter::new(),
            )
            .await
            .unwrap_err();
            assert!(matches!(error, Error::Stream { .. }), "{ending:?}: {error}");
            assert!(!error.is_permanent(), "{ending:?}: {error}");
            assert!(is_incomplete(&world.branch.database()).await.unwrap());
        }
    })
    .await;
}

#[derive(Debug)]
enum Ending {
    ProgramKilled,
    SessionTerminated,
}

/// Ours alone: the child of this process that speaks to this port.
fn kill_pg_dump_of(port: u16) {
    let ours = std::process::id().to_string();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let command = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let parent = stat.rsplit(')').next().unwrap_or("").split(' ').nth(2);
        if parent == Some(&ours)
            && stat.contains("(pg_dump)")
            && command.contains(&format!("port='{port}'"))
        {
            assert!(!command.contains(PASSWORD), "{command}");
            let pid = entry.file_name();
            let killed = std::process::Command::new("kill")
                .arg("-9")
                .arg(&pid)
                .status();
            assert!(killed.unwrap().success());
            return;
        }
    }
    panic!("no pg_dump of ours runs");
}

#[tokio::test]
async fn a_dropped_dump_and_a_dropped_restore_end_their_programs() {
    with_world(|world| async move {
        world.parent.create_database("insforge").await;
        world.parent.sql(MUCH).await;
        let mut archive = dump(
            &world.parent.database(),
            &world.programs,
            Contents::Everything,
            None,
            Meter::new(),
        )
        .await
        .unwrap();
        archive.next().await.unwrap().unwrap();
        drop(archive);
        let running = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'insforge%' AND pid <> pg_backend_pid()";
        nobody(&world.parent, running).await;

        let whole = world.archive(Contents::Everything).await;
        let endless = stream::iter([Ok::<_, io::Error>(Bytes::from(whole))]).chain(stream::pending());
        let branch = world.branch.database();
        let restoring = tokio::time::timeout(
            Duration::from_secs(2),
            restore(
                &branch,
                &world.programs,
                endless,
                How::NewMachine,
                Meter::new(),
            ),
        );
        assert!(restoring.await.is_err(), "the end has not come");
        assert!(is_incomplete(&world.branch.database()).await.unwrap());
        nobody(&world.branch, running).await;
        assert_eq!(world.branch.value(TABLES).await, "0");
    })
    .await;
}

async fn nobody(server: &crate::harness::Server, running: &str) {
    for _ in 0..100 {
        if server.value(running).await == "0" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("sessions are left");
}

#[tokio::test]
async fn who_is_not_let_in_or_finds_nobody_is_told_so() {
    with_world(|world| async move {
        world.parent.create_database("insforge").await;
        let right = world.parent.database();
        let attempt = async |database: &cp_dump::Database| {
            let dumped = dump(
                database,
                &world.programs,
                Contents::Branch,
                None,
                Meter::new(),
            )
            .await;
            let error = dumped.err().unwrap();
            assert!(!error.to_string().contains(PASSWORD), "{error}");
            error
        };

        let mut database = right.clone();
        database.password = SecretString::from("marlin");
        let error = attempt(&database).await;
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        assert!(error.is_permanent() && !error.to_string().contains("marlin"));

        let mut database = right.clone();
        database.name = "elsewhere".to_owned();
        let error = attempt(&database).await;
        assert!(error.is_permanent(), "{error}");

        let mut database = right.clone();
        database.port = free_port().unwrap();
        let error = attempt(&database).await;
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        assert!(!error.is_permanent());

        let fixed = fix_up_branch(
            &database,
            cp_dump::FixUps {
                schema_only: false,
                run_schedules: false,
            },
        );
        assert!(!fixed.await.unwrap_err().is_permanent());

        let snapshot = Some("00000003-0000001B-1");
        let dumped = dump(
            &right,
            &world.programs,
            Contents::Branch,
            snapshot,
            Meter::new(),
        )
        .await;
        let error = dumped.err().unwrap();
        assert!(matches!(error, Error::SnapshotGone), "{error}");
    })
    .await;
}

#[tokio::test]
async fn programs_that_do_not_fit_the_server_are_refused_before_anything_changes() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        let archive = world.archive(Contents::Branch).await;
        world.restore(&archive, How::NewMachine).await.unwrap();

        let old = stand_in("14.9");
        let programs = Programs::in_dir(old.path()).await.unwrap();
        let database = world.parent.database();
        let dumped = dump(&database, &programs, Contents::Branch, None, Meter::new()).await;
        let error = dumped.err().unwrap();
        assert!(matches!(error, Error::ProgramTooOld { .. }), "{error}");
        assert!(error.is_permanent());

        for version in ["14.9", "17.2"] {
            let other = stand_in(version);
            let programs = Programs::in_dir(other.path()).await.unwrap();
            let error = restore(
                &world.branch.database(),
                &programs,
                stream::iter([Ok::<_, io::Error>(Bytes::from(archive.clone()))]),
                How::InPlace,
                Meter::new(),
            )
            .await
            .unwrap_err();
            assert!(matches!(error, Error::NoFittingProgram { .. }), "{error}");
        }
        assert_eq!(
            world.branch.value("SELECT count(*) FROM auth.users").await,
            "50"
        );
    })
    .await;
}

/// Programs of another release: all that is asked of them is their version.
fn stand_in(version: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for program in ["pg_dump", "pg_restore"] {
        let path = folder.path().join(program);
        let script = format!("#!/bin/sh\necho '{program} (PostgreSQL) {version}'\n");
        std::fs::write(&path, script).unwrap();
        executable(&path);
    }
    folder
}

fn executable(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn more_tables_than_locks_are_restored_all_the_same() {
    let few = [
        ("max_locks_per_transaction", "10"),
        ("max_connections", "20"),
    ];
    with_settings(&few, |world| async move {
        // The parent needs a lock per table for the dump itself.
        let many = [
            ("max_locks_per_transaction", "64"),
            ("max_connections", "200"),
        ];
        world.parent.restart(&many).await;
        world.parent.create_database("insforge").await;
        for hundred in 0..15 {
            world
                .parent
                .sql(&format!(
                    "DO $$ BEGIN FOR i IN 1..100 LOOP
                         EXECUTE format('CREATE TABLE t{hundred}_%s (id int PRIMARY KEY, t text)', i);
                         EXECUTE format('INSERT INTO t{hundred}_%s VALUES (%s)', i, i);
                     END LOOP; END $$"
                ))
                .await;
        }
        let archive = world.archive(Contents::Branch).await;
        let cut = archive.len() - 3;
        world
            .restore(&archive[..cut], How::NewMachine)
            .await
            .unwrap_err();
        // Not one transaction, so something is there; but it is marked for what it is, and made anew.
        assert_eq!(world.branch.value(TABLES).await, "1500");
        assert!(is_incomplete(&world.branch.database()).await.unwrap());
        world.restore(&archive, How::NewMachine).await.unwrap();
        assert_eq!(world.branch.rows().await, world.parent.rows().await);
    })
    .await;
}

#[tokio::test]
async fn a_row_that_cannot_be_restored_is_not_quoted() {
    with_world(|world| async move {
        world.parent.create_database("insforge").await;
        world
            .parent
            .sql(
                "CREATE TABLE z_gate AS SELECT 1 AS open;
                 CREATE FUNCTION may_enter(text) RETURNS boolean LANGUAGE sql AS
                     'SELECT EXISTS (SELECT FROM public.z_gate)';
                 CREATE TABLE a (secret text CHECK (may_enter(secret)));
                 INSERT INTO a VALUES ('hush')",
            )
            .await;
        // Its rows come before those that the check asks for.
        let error = world
            .copy(Contents::Branch, How::NewMachine)
            .await
            .unwrap_err();
        assert!(error.is_permanent(), "{error}");
        let text = format!("{error} {error:?}");
        assert!(
            text.contains("a_secret_check") && !text.contains("hush"),
            "{text}"
        );
    })
    .await;
}
