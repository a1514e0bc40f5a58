//! Clusters with the real Postgres of this machine.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;

use crate::{Binaries, Cluster, Error, Settings, Started, StopMode, free_port, postmaster};

const STOP: Duration = Duration::from_secs(10);

/// A folder that the user who runs Postgres may enter.
fn home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    home
}

fn password(text: &str) -> SecretString {
    SecretString::from(text.to_owned())
}

async fn cluster(dir: &Path, secret: &SecretString) -> Cluster {
    let binaries = Binaries::find().await.unwrap();
    Cluster::initdb(&binaries, dir, free_port().unwrap(), secret)
        .await
        .unwrap()
}

fn accepts_connections(binaries: &Binaries, port: u16) -> bool {
    Command::new(binaries.program("pg_isready"))
        .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
        .status()
        .unwrap()
        .success()
}

/// Whether a login with the password in the URL works.
fn logs_in(binaries: &Binaries, url: &SecretString) -> bool {
    Command::new(binaries.program("psql"))
        .args(["-X", "-c", "SELECT 1", url.expose_secret()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap()
        .success()
}

#[tokio::test]
async fn a_stop_finds_a_server_whose_start_was_given_up() {
    let home = home();
    let cluster = cluster(&home.path().join("pg"), &password("s3cret")).await;
    for milliseconds in (0..120).step_by(6) {
        let patience = Duration::from_millis(milliseconds);
        let _ = tokio::time::timeout(patience, cluster.start(&Settings::tests())).await;
        cluster.stop(StopMode::Immediate, STOP).await.unwrap();
        // Longer than a postmaster needs from its fork to its lock file.
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(
            !cluster.is_running().await,
            "given up after {milliseconds} ms"
        );
    }
}

#[tokio::test]
async fn a_cluster_lives_stops_returns_and_is_copied() {
    let home = home();
    let binaries = Binaries::find().await.unwrap();
    let secret = password("s3cret '/?@ word");
    let settings = Settings::tests();

    let original = cluster(&home.path().join("template"), &secret).await;
    assert!(!original.is_running().await);
    assert_eq!(original.start(&settings).await.unwrap(), Started::Fresh);
    assert!(accepts_connections(&binaries, original.port()));
    assert!(logs_in(
        &binaries,
        &original.superuser_url("postgres", &secret)
    ));
    assert!(!logs_in(
        &binaries,
        &original.superuser_url("postgres", &password("wrong"))
    ));

    let copy_dir = home.path().join("machines/m1/pg");
    let refused =
        Cluster::copy_template(&binaries, original.dir(), &copy_dir, free_port().unwrap()).await;
    assert!(matches!(refused, Err(Error::TemplateRunning(_))));

    original.stop(StopMode::Fast, STOP).await.unwrap();
    assert!(!original.is_running().await);
    assert!(!accepts_connections(&binaries, original.port()));
    original.stop(StopMode::Fast, STOP).await.unwrap();
    assert_eq!(original.start(&settings).await.unwrap(), Started::Fresh);
    original.stop(StopMode::Fast, STOP).await.unwrap();

    let copy = Cluster::copy_template(&binaries, original.dir(), &copy_dir, free_port().unwrap())
        .await
        .unwrap();
    let own = password("it's its own");
    copy.set_superuser_password(&own).await.unwrap();
    original.start(&settings).await.unwrap();
    copy.start(&settings).await.unwrap();
    assert!(logs_in(&binaries, &copy.superuser_url("postgres", &own)));
    assert!(!logs_in(
        &binaries,
        &copy.superuser_url("postgres", &secret)
    ));
    assert!(logs_in(
        &binaries,
        &original.superuser_url("postgres", &secret)
    ));

    copy.remove().await.unwrap();
    assert!(!copy_dir.exists());
    original.remove().await.unwrap();
    let left: Vec<_> = std::fs::read_dir(home.path().join("machines/m1"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_running_cluster_is_adopted_and_a_crashed_one_recovers() {
    let home = home();
    let binaries = Binaries::find().await.unwrap();
    let dir = home.path().join("pg");
    let first = cluster(&dir, &password("x")).await;
    first.start(&Settings::tests()).await.unwrap();
    let pid = first.pid().await.unwrap();

    let second = Cluster::open(&binaries, &dir, first.port()).await.unwrap();
    assert_eq!(
        second.start(&Settings::tests()).await.unwrap(),
        Started::Adopted
    );
    assert_eq!(second.pid().await, Some(pid));
    // The way of systems without /proc, where `ps` always exists.
    if Command::new("ps").output().is_ok() {
        assert!(postmaster::is_postmaster_by_ps(pid, &dir).await);
        assert!(!postmaster::is_postmaster_by_ps(pid, home.path()).await);
        assert!(!postmaster::is_postmaster_by_ps(std::process::id(), &dir).await);
    }

    let elsewhere = Cluster::open(&binaries, &dir, free_port().unwrap())
        .await
        .unwrap();
    assert!(matches!(
        elsewhere.start(&Settings::tests()).await,
        Err(Error::OtherPort { actual, .. }) if actual == first.port()
    ));

    second.stop(StopMode::Immediate, STOP).await.unwrap();
    // The lock that a crash of the machine leaves behind, naming a pid that lives again.
    std::fs::write(
        dir.join("postmaster.pid"),
        format!("{}\n{}\n0\n{}\n", std::process::id(), dir.display(), 1),
    )
    .unwrap();
    assert!(!first.is_running().await);
    assert_eq!(
        first.start(&Settings::tests()).await.unwrap(),
        Started::Fresh
    );
    assert!(accepts_connections(&binaries, first.port()));
    first.remove().await.unwrap();
}

#[tokio::test]
async fn a_start_on_a_taken_port_says_why() {
    let home = home();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let binaries = Binaries::find().await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let cluster = Cluster::initdb(&binaries, home.path().join("pg"), port, &password("x"))
        .await
        .unwrap();
    let error = cluster.start(&Settings::tests()).await.unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
}

#[tokio::test]
async fn what_is_there_is_not_overwritten_and_what_is_not_is_not_opened() {
    let home = home();
    let binaries = Binaries::find().await.unwrap();
    let made = Cluster::initdb(&binaries, home.path(), 5999, &password("x")).await;
    assert!(matches!(made, Err(Error::AlreadyExists(_))));
    let opened = Cluster::open(&binaries, home.path(), 5999).await;
    assert!(matches!(opened, Err(Error::NotACluster(_))));
    let empty = Cluster::initdb(&binaries, home.path().join("pg"), 1, &password("")).await;
    assert!(matches!(empty, Err(Error::BadPassword)));
}
