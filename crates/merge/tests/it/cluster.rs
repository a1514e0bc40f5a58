//! The Postgres of these tests: the one that `INSFORGE_TEST_DATABASE_URL` names (`make test` starts one for all),
//! else one that all test processes of this crate share.
//!
//! nextest runs every test as a process of its own, and a cluster costs more than most tests. So the first process
//! leaves a link to its cluster, the others follow it, and a shell that watches over them stops the cluster when the
//! last one is gone.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::FromStr,
};

use cp_pg::{Binaries, Cluster, Settings, free_port};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{ConnectOptions, Connection, postgres::PgConnectOptions};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// A server with the three roles.
pub struct Server {
    pub binaries: Binaries,
    /// Of the database `postgres`, as superuser.
    pub url: String,
}

static SERVER: OnceCell<Server> = OnceCell::const_new();

pub async fn server() -> &'static Server {
    SERVER.get_or_init(Server::find).await
}

impl Server {
    pub fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::from_str(&self.url)
            .unwrap()
            .database(database)
            .disable_statement_logging()
    }

    async fn find() -> Self {
        let binaries = Binaries::find().await.unwrap();
        let url = match std::env::var("INSFORGE_TEST_DATABASE_URL") {
            Ok(url) => url,
            Err(_) => shared(&binaries).await,
        };
        let server = Self { binaries, url };
        server.make_roles().await;
        server
    }

    async fn make_roles(&self) {
        let mut session = self.options("postgres").connect().await.unwrap();
        sqlx::raw_sql(
            "SELECT pg_advisory_lock(hashtext('cp-merge.tests'));
             DO $$ BEGIN
                 IF to_regrole('anon') IS NULL THEN CREATE ROLE anon NOLOGIN; END IF;
                 IF to_regrole('authenticated') IS NULL THEN CREATE ROLE authenticated NOLOGIN; END IF;
                 IF to_regrole('project_admin') IS NULL THEN CREATE ROLE project_admin NOLOGIN BYPASSRLS; END IF;
             END $$",
        )
        .execute(&mut session)
        .await
        .unwrap();
        session.close().await.unwrap();
    }
}

/// Where the link is. Worktrees and users do not share.
fn link() -> PathBuf {
    let place = env!("CARGO_MANIFEST_DIR").replace('/', "-");
    let user = std::env::var("USER").unwrap_or_default();
    std::env::temp_dir().join(format!("cp-merge{place}-{user}"))
}

async fn shared(binaries: &Binaries) -> String {
    let link = link();
    if let Some(url) = join(&link).await {
        return url;
    }
    let dir = std::env::temp_dir().join(format!("cp-merge-{}", Uuid::new_v4().simple()));
    let url = start(binaries, &dir, &link).await;
    loop {
        if std::os::unix::fs::symlink(&dir, &link).is_ok() {
            return url;
        }
        // Somebody was quicker: use theirs, and let ours go.
        if let Some(theirs) = join(&link).await {
            fs::remove_file(dir.join("users").join(std::process::id().to_string())).unwrap();
            return theirs;
        }
        // A link to a cluster that is gone.
        let _ = fs::remove_file(&link);
    }
}

/// Registers as a user first, so that the watcher does not stop what was just found.
async fn join(dir: &Path) -> Option<String> {
    let me = dir.join("users").join(std::process::id().to_string());
    fs::write(&me, "").ok()?;
    let url = fs::read_to_string(dir.join("url")).ok()?;
    let session = PgConnectOptions::from_str(&url)
        .ok()?
        .connect()
        .await
        .ok()?;
    let _ = session.close().await;
    Some(url)
}

async fn start(binaries: &Binaries, dir: &Path, link: &Path) -> String {
    fs::create_dir_all(dir.join("users")).unwrap();
    fs::write(dir.join("users").join(std::process::id().to_string()), "").unwrap();
    let password = SecretString::from("postgres");
    let port = free_port().unwrap();
    let cluster = Cluster::initdb(binaries, dir.join("pgdata"), port, &password)
        .await
        .unwrap();
    let settings = Settings {
        extra: vec![("autovacuum".into(), "off".into())],
        ..Settings::tests()
    };
    cluster.start(&settings).await.unwrap();
    let url = cluster
        .superuser_url("postgres", &password)
        .expose_secret()
        .to_owned();
    fs::write(dir.join("url"), &url).unwrap();
    watch(dir, link);
    url
}

const WATCHER: &str = r#"
dir=$1 link=$2
used() {
    for file in "$dir"/users/*; do
        [ -e "$file" ] || continue
        kill -0 "${file##*/}" 2>/dev/null && return 0
        rm -f "$file"
    done
    return 1
}
idle=0
while [ $idle -lt 20 ]; do
    if used; then idle=0; else idle=$((idle + 1)); fi
    sleep 0.2
done
[ "$(readlink "$link")" = "$dir" ] && rm -f "$link"
sleep 0.2
while used; do sleep 0.2; done
kill -QUIT "$(head -n 1 "$dir/pgdata/postmaster.pid")"
sleep 1
rm -rf "$dir"
"#;

fn watch(dir: &Path, link: &Path) {
    // Its end is after ours: nobody waits for it.
    #[expect(clippy::zombie_processes, reason = "it outlives this process")]
    let _watcher = Command::new("sh")
        .args(["-c", WATCHER, "sh"])
        .args([dir, link])
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
}
