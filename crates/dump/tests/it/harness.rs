//! Two private servers, a parent's and a branch's, and verbs for what happens between them.

use std::{
    future::Future, os::unix::fs::PermissionsExt, process::Stdio, sync::Arc, time::Duration,
};

use bytes::Bytes;
use cp_dump::{
    Contents, Database, Error, FixUps, How, Meter, Programs, Restored, Tls, dump, fix_up_branch,
    restore,
};
use cp_pg::{Binaries, Cluster, Settings, StopMode, free_port};
use futures::{StreamExt, TryStreamExt, stream};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::{process::Command, sync::OnceCell};

pub const PASSWORD: &str = "swordfish";
pub const NAME: &str = "insforge";

pub struct Server {
    pub cluster: Cluster,
    binaries: Binaries,
}

pub struct World {
    pub parent: Server,
    pub branch: Server,
    pub programs: Programs,
}

/// Runs `test` with two fresh servers; removes them whatever happens.
pub async fn with_world<F, T>(test: F)
where
    F: FnOnce(Arc<World>) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    with_settings(&[], test).await;
}

/// The same, with further settings of both servers.
pub async fn with_settings<F, T>(extra: &[(&str, &str)], test: F)
where
    F: FnOnce(Arc<World>) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let home = folder();
    let world = Arc::new(World {
        parent: Server::start(&home, "parent", extra).await,
        branch: Server::start(&home, "branch", extra).await,
        programs: Programs::find().await.unwrap(),
    });
    let clusters = [world.parent.cluster.clone(), world.branch.cluster.clone()];
    let outcome = tokio::spawn(test(world)).await;
    for cluster in clusters {
        cluster.remove().await.unwrap();
    }
    if let Err(failure) = outcome {
        std::panic::resume_unwind(failure.into_panic());
    }
}

fn folder() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    // Postgres runs as another user when we are root.
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    home
}

/// A stopped cluster to copy: faster than making one for each test.
async fn template(binaries: &Binaries) -> &'static tempfile::TempDir {
    static TEMPLATE: OnceCell<tempfile::TempDir> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            let home = folder();
            let password = SecretString::from(PASSWORD);
            Cluster::initdb(binaries, home.path().join("pg"), 1, &password)
                .await
                .unwrap();
            home
        })
        .await
}

impl Server {
    async fn start(home: &tempfile::TempDir, name: &str, extra: &[(&str, &str)]) -> Self {
        let binaries = Binaries::find().await.unwrap();
        let template = template(&binaries).await.path().join("pg");
        let to = home.path().join(name);
        let cluster = Cluster::copy_template(&binaries, &template, to, free_port().unwrap())
            .await
            .unwrap();
        let settings = Settings {
            extra: extra
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Settings::tests()
        };
        cluster.start(&settings).await.unwrap();
        Self { cluster, binaries }
    }

    pub async fn restart(&self, extra: &[(&str, &str)]) {
        let wait = Duration::from_secs(20);
        self.cluster.stop(StopMode::Fast, wait).await.unwrap();
        let settings = Settings {
            extra: extra
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Settings::tests()
        };
        self.cluster.start(&settings).await.unwrap();
    }

    pub fn database(&self) -> Database {
        self.named(NAME)
    }

    pub fn named(&self, name: &str) -> Database {
        Database {
            host: "127.0.0.1".to_owned(),
            port: self.cluster.port(),
            name: name.to_owned(),
            user: cp_pg::SUPERUSER.to_owned(),
            password: SecretString::from(PASSWORD),
            tls: Tls::Disable,
        }
    }

    pub async fn connect(&self) -> PgConnection {
        self.database().connect().await.unwrap()
    }

    pub async fn sql(&self, sql: &str) {
        self.sql_in(NAME, sql).await;
    }

    pub async fn sql_in(&self, name: &str, sql: &str) {
        let mut connection = self.named(name).connect().await.unwrap();
        // As the users' own SQL: without the empty search path of our connections.
        let sql = format!("SET search_path = public; {sql}");
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(sql.clone()))
            .execute(&mut connection)
            .await
        {
            let begin: String = sql.chars().take(400).collect();
            panic!("{error} in {begin}");
        }
        connection.close().await.unwrap();
    }

    pub async fn create_database(&self, name: &str) {
        self.about_databases(format!("CREATE DATABASE \"{name}\""))
            .await;
    }

    pub async fn drop_database(&self, name: &str) {
        self.about_databases(format!("DROP DATABASE \"{name}\" WITH (FORCE)"))
            .await;
    }

    /// These run by themselves only.
    async fn about_databases(&self, statement: String) {
        let mut connection = self.named("postgres").connect().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .unwrap();
    }

    /// The one value that a query answers, as text.
    pub async fn value(&self, query: &str) -> String {
        let mut connection = self.connect().await;
        let value = value(&mut connection, query).await;
        connection.close().await.unwrap();
        value
    }

    /// The schema as pg_dump writes it, less what differs from run to run.
    pub async fn schema(&self) -> String {
        let database = self.database();
        let output = Command::new(self.binaries.program("pg_dump"))
            .args(["--schema-only", "--no-subscriptions", "-h", &database.host])
            .args(["-p", &database.port.to_string(), "-U", &database.user])
            .arg(&database.name)
            .env("PGPASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("--") && !line.starts_with('\\') && !line.is_empty());
        lines.collect::<Vec<_>>().join("\n")
    }

    /// A digest of the rows of each table, by name.
    pub async fn rows(&self) -> Vec<(String, i64, String)> {
        let mut connection = self.connect().await;
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c
             JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
             ORDER BY 1",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        let mut rows = Vec::new();
        for table in tables {
            let query = format!(
                "SELECT count(*), COALESCE(md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))), '')
                 FROM {table} t"
            );
            let (count, digest) = sqlx::query_as(AssertSqlSafe(query))
                .fetch_one(&mut connection)
                .await
                .unwrap();
            rows.push((table, count, digest));
        }
        rows
    }

    pub async fn sequences(&self) -> String {
        self.value(
            "SELECT string_agg(format('%s.%s=%s', schemaname, sequencename, last_value), ' '
                               ORDER BY schemaname, sequencename) FROM pg_sequences",
        )
        .await
    }
}

pub async fn value(connection: &mut PgConnection, query: &str) -> String {
    let query = format!("SELECT ({query})::text");
    let value: Option<String> = sqlx::query_scalar(AssertSqlSafe(query))
        .fetch_one(connection)
        .await
        .unwrap();
    value.unwrap_or_default()
}

impl World {
    /// The whole archive of the parent.
    pub async fn archive(&self, contents: Contents) -> Vec<u8> {
        let meter = Meter::new();
        let archive = dump(
            &self.parent.database(),
            &self.programs,
            contents,
            None,
            meter.clone(),
        )
        .await
        .unwrap();
        let pieces: Vec<Bytes> = archive.try_collect().await.unwrap();
        let bytes = pieces.concat();
        assert_eq!(meter.bytes(), bytes.len() as u64);
        bytes
    }

    /// Restores these bytes on the branch's server.
    pub async fn restore(&self, archive: &[u8], how: How) -> Result<Restored, Error> {
        let pieces: Vec<Bytes> = archive.chunks(10_000).map(Bytes::copy_from_slice).collect();
        let pieces = stream::iter(pieces).map(Ok::<_, std::io::Error>);
        let meter = Meter::new();
        let restored = restore(
            &self.branch.database(),
            &self.programs,
            pieces,
            how,
            meter.clone(),
        )
        .await;
        if restored.is_ok() {
            assert_eq!(meter.bytes(), archive.len() as u64);
        }
        restored
    }

    /// Parent to branch without anything between.
    pub async fn copy(&self, contents: Contents, how: How) -> Result<Restored, Error> {
        let archive = dump(
            &self.parent.database(),
            &self.programs,
            contents,
            None,
            Meter::new(),
        )
        .await?;
        restore(
            &self.branch.database(),
            &self.programs,
            archive,
            how,
            Meter::new(),
        )
        .await
    }

    pub async fn fix_up(&self, schema_only: bool, run_schedules: bool) -> Result<(), Error> {
        let fix_ups = FixUps {
            schema_only,
            run_schedules,
        };
        fix_up_branch(&self.branch.database(), fix_ups).await
    }
}
