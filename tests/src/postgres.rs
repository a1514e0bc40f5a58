//! A database per test, copied from a template that has our migrations. The server is the one that
//! `INSFORGE_TEST_DATABASE_URL` names (`make test` starts one for all tests), else a private
//! cluster of this test process, else a container where Docker runs.

use std::path::PathBuf;
use std::process::Command;

use cp_pg::{Binaries, Cluster, Settings, free_port};
use cp_storage::{Database, DatabaseConfig};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, Executor, PgConnection};
use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// An own, empty, migrated database. Its server ends with the last database of this process.
pub struct TestDatabase {
    pub name: String,
    pub url: String,
}

static SERVER: OnceCell<Server> = OnceCell::const_new();

struct Server {
    /// URL of the database `postgres`.
    admin_url: String,
    _kept: Kept,
}

enum Kept {
    Elsewhere,
    #[expect(dead_code, reason = "ends the cluster when the process does")]
    Private(PrivateCluster),
    #[expect(dead_code, reason = "ends the container when it is dropped")]
    Container(Box<ContainerAsync<GenericImage>>),
}

impl TestDatabase {
    pub async fn new() -> Self {
        let server = SERVER.get_or_init(Server::start).await;
        let template = server.template().await;
        let name = format!("t_{}", Uuid::new_v4().simple());
        let mut admin = connect(&server.admin_url).await;
        // Two copies of one template at once are refused: take turns, over all test processes.
        execute(&mut admin, "select pg_advisory_lock(727)").await;
        execute(
            &mut admin,
            &format!("create database {name} template {template}"),
        )
        .await;
        execute(&mut admin, "select pg_advisory_unlock(727)").await;
        Self {
            url: with_database(&server.admin_url, &name),
            name,
        }
    }

    pub fn open(&self, connections: u32) -> Database {
        self.open_as("insforge-test", connections)
    }

    /// `application` is what `pg_stat_activity` shows.
    pub fn open_as(&self, application: &str, connections: u32) -> Database {
        Database::connect(&DatabaseConfig {
            url: SecretString::from(self.url.clone()),
            max_connections: connections,
            application_name: application.into(),
            acquire_timeout: std::time::Duration::from_secs(10),
        })
        .expect("the test database's URL is valid")
    }

    /// How many rows a table has.
    pub async fn count(&self, table: &str) -> i64 {
        let mut conn = self.connect().await;
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {table}")))
            .fetch_one(&mut conn)
            .await
            .unwrap_or_else(|e| panic!("{table}: {e}"))
    }

    /// A plain connection, for looking at rows.
    pub async fn connect(&self) -> PgConnection {
        connect(&self.url).await
    }
}

impl Server {
    async fn start() -> Self {
        if let Ok(url) = std::env::var("INSFORGE_TEST_DATABASE_URL") {
            return Self {
                admin_url: url,
                _kept: Kept::Elsewhere,
            };
        }
        match Binaries::find().await {
            Ok(binaries) => {
                let (cluster, admin_url) = PrivateCluster::start(&binaries).await;
                Self {
                    admin_url,
                    _kept: Kept::Private(cluster),
                }
            }
            Err(missing) => {
                let container = GenericImage::new("postgres", "15-alpine")
                    .with_wait_for(WaitFor::message_on_stderr(
                        "database system is ready to accept connections",
                    ))
                    .with_env_var("POSTGRES_PASSWORD", "postgres")
                    .start()
                    .await
                    .unwrap_or_else(|e| panic!("{missing}; nor does a container start: {e}"));
                let port = container
                    .get_host_port_ipv4(5432.tcp())
                    .await
                    .expect("the container publishes its port");
                let admin_url = format!("postgres://postgres:postgres@127.0.0.1:{port}/postgres");
                Self {
                    admin_url,
                    _kept: Kept::Container(Box::new(container)),
                }
            }
        }
    }

    /// The migrated template, made by whichever test comes first. Its name carries a digest of
    /// the migrations, so that a changed one makes a new template.
    async fn template(&self) -> String {
        static TEMPLATE: OnceCell<String> = OnceCell::const_new();
        TEMPLATE
            .get_or_init(|| async {
                let name = format!("template_{}", migrations_digest());
                let mut admin = connect(&self.admin_url).await;
                execute(&mut admin, "select pg_advisory_lock(726)").await;
                let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
                    .bind(&name)
                    .fetch_one(&mut admin)
                    .await
                    .expect("the catalogue can be read");
                if !exists {
                    let making = format!("making_{}", Uuid::new_v4().simple());
                    execute(&mut admin, &format!("create database {making}")).await;
                    let database = TestDatabase { url: with_database(&self.admin_url, &making), name: making.clone() };
                    let open = database.open(2);
                    open.migrate().await.expect("the migrations run");
                    open.close().await;
                    execute(&mut admin, &format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{making}'")).await;
                    execute(&mut admin, &format!("alter database {making} rename to {name}")).await;
                }
                execute(&mut admin, "select pg_advisory_unlock(726)").await;
                name
            })
            .await
            .clone()
    }
}

/// Ends with this process, whatever becomes of the test.
pub struct PrivateCluster {
    pub cluster: Cluster,
    pub binaries: Binaries,
    dir: PathBuf,
}

impl PrivateCluster {
    /// The password of its superuser.
    pub const PASSWORD: &str = "postgres";

    /// With the URL of its database `postgres`.
    pub async fn start(binaries: &Binaries) -> (Self, String) {
        let dir = std::env::temp_dir().join(format!("insforge-test-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(&dir).expect("a folder for the test's Postgres can be made");
        let password = SecretString::from(Self::PASSWORD);
        let port = free_port().expect("there is a free port");
        let cluster = Cluster::initdb(binaries, dir.join("pgdata"), port, &password)
            .await
            .expect("initdb works");
        let settings = Settings {
            max_connections: 200,
            ..Settings::tests()
        };
        cluster.start(&settings).await.expect("Postgres starts");
        let url = cluster
            .superuser_url("postgres", &password)
            .expose_secret()
            .to_owned();
        let this = Self {
            cluster,
            binaries: binaries.clone(),
            dir,
        };
        // Statics are not dropped: end it when the process ends.
        let (pg_ctl, data) = (
            this.binaries.program("pg_ctl"),
            this.cluster.dir().to_owned(),
        );
        watch_parent(&pg_ctl, &data, &this.dir);
        (this, url)
    }

    /// As its superuser.
    pub fn url(&self, database: &str) -> String {
        let password = SecretString::from(Self::PASSWORD);
        let url = self.cluster.superuser_url(database, &password);
        url.expose_secret().to_owned()
    }

    /// Several statements, one after the other.
    ///
    /// # Panics
    /// Where one fails.
    pub async fn run(&self, database: &str, sql: &str) {
        execute(&mut connect(&self.url(database)).await, sql).await;
    }
}

/// Leaves a shell behind that waits for this process's end and then stops and removes the cluster:
/// a test may abort, and nothing may be left running.
fn watch_parent(pg_ctl: &std::path::Path, data: &std::path::Path, dir: &std::path::Path) {
    let owner = std::fs::metadata(data).map_or(0, |m| std::os::unix::fs::MetadataExt::uid(&m));
    let script = format!(
        "while kill -0 {parent} 2>/dev/null; do sleep 0.2; done; \
         {run} '{pg_ctl}' -D '{data}' -m immediate stop >/dev/null 2>&1; rm -rf '{dir}'",
        parent = std::process::id(),
        run = if owner == 0 {
            String::new()
        } else {
            format!("setpriv --reuid={owner} --clear-groups")
        },
        pg_ctl = pg_ctl.display(),
        data = data.display(),
        dir = dir.display(),
    );
    // Not root: `setpriv` is neither needed nor allowed.
    let script = if is_root() {
        script
    } else {
        script.replace(&format!("setpriv --reuid={owner} --clear-groups"), "")
    };
    let mut shell = Command::new("sh");
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    // Its end is after ours: nobody waits for it.
    #[expect(clippy::zombie_processes, reason = "it outlives this process")]
    let _watcher = shell
        .args(["-c", &script])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("a shell can be started");
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|o| o.stdout.trim_ascii() == b"0")
}

fn migrations_digest() -> String {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .expect("migrations are there")
        .flatten()
        .map(|f| f.path())
        .collect();
    files.sort();
    let all: Vec<u8> = files
        .iter()
        .flat_map(|f| std::fs::read(f).expect("a migration can be read"))
        .collect();
    cp_domain::fingerprint("", "", &all)[..8]
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn with_database(url: &str, name: &str) -> String {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (server, _) = base
        .rsplit_once('/')
        .expect("a database URL names a database");
    if query.is_empty() {
        format!("{server}/{name}")
    } else {
        format!("{server}/{name}?{query}")
    }
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url)
        .await
        .expect("the test's Postgres answers")
}

async fn execute(conn: &mut PgConnection, sql: &str) {
    conn.execute(sqlx::AssertSqlSafe(sql.to_owned()))
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
}
