//! The files as docker compose and a real Postgres read them.

use std::{collections::BTreeSet, process::Command};

use cp_model::{MachineId, ProjectId};
use cp_pg::{Binaries, Cluster, Settings, StopMode, free_port};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use super::*;
use crate::{compose::memory::Memory, config::Config};

const KEY: &str = "it's \\ a $KEY \"of\" 100%";

struct Lab {
    dir: TempDir,
    files: Files,
    stack: Stack,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Postgres, which does not run as root, reads some of it.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("agent.json");
        let config = json!({
            "machine_id": MachineId::generate(),
            "control_url": "http://127.0.0.1:9",
            "bootstrap_token": "ibt_x",
            "port": 7130,
            "runtime": {
                "kind": "compose",
                "data_dir": dir.path().join("data"),
                "release_dir": dir.path().join("release"),
            },
        });
        fs::write(&path, config.to_string()).unwrap();
        let (config, machine) = Config::load(&path).unwrap();
        let crate::config::Runtime::Compose(config) = config.runtime else {
            panic!("another runtime");
        };
        let env = [
            ("JWT_SECRET", "j"),
            ("ENCRYPTION_KEY", KEY),
            ("POSTGRES_DB", "shop"),
        ];
        let stack = Stack {
            project_id: ProjectId::generate(),
            release: "v2.3.1".to_owned(),
            restarts: 3,
            database_password: "pa$$word".to_owned(),
            env: env
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            memory: Memory(2000),
            database_only: false,
        };
        Self {
            files: Files::new(&machine, 7130, &config),
            dir,
            stack,
        }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join("data").join(name)).unwrap()
    }
}

#[test]
fn what_stands_in_braces_is_filled_in_and_nothing_else() {
    let lab = Lab::new();
    lab.files.write(&lab.stack).unwrap();
    let asked: BTreeSet<String> = lab
        .read(COMPOSE)
        .split("${")
        .skip(1)
        .map(|rest| rest.split_once('}').unwrap().0.to_owned())
        .collect();
    let machine = lab.read(MACHINE);
    let given = machine.lines().filter_map(|line| line.split_once('='));
    let given: BTreeSet<String> = given.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(asked, given);
    assert!(machine.contains("INSFORGE_IMAGE=ghcr.io/insforge/insforge-oss:v2.3.1\n"));
    // Secrets stand in environment.json, and there docker compose fills in nothing.
    for name in [COMPOSE, MACHINE] {
        assert!(!lab.read(name).contains("KEY \"of\""), "{name}");
    }
    let environment: serde_json::Value = serde_json::from_str(&lab.read(ENVIRONMENT)).unwrap();
    let server = &environment["services"]["insforge"]["environment"];
    assert_eq!(server["ENCRYPTION_KEY"], KEY.replace('$', "$$"));
    assert_eq!(server["POSTGRES_PASSWORD"], "pa$$$$word");
}

#[test]
fn the_releases_own_files_win_and_its_functions_need_a_host() {
    let lab = Lab::new();
    assert!(!lab.files.compose_args().contains(&"functions".to_owned()));
    let release = lab.dir.path().join("release");
    fs::create_dir_all(release.join("functions")).unwrap();
    fs::write(release.join("jwt.sql"), "-- theirs").unwrap();
    lab.files.write(&lab.stack).unwrap();
    assert!(lab.files.compose_args().contains(&"functions".to_owned()));
    assert_eq!(lab.read("postgres/jwt.sql"), "-- theirs");
    assert!(
        lab.read("postgres/db-init.sql")
            .contains("CREATE ROLE project_admin")
    );
    lab.files.remove().unwrap();
    assert!(!lab.files.are_there());
}

/// The settings as Postgres understands them; the libraries of the image are not here.
#[tokio::test]
async fn postgres_reads_its_key_from_a_file() {
    let lab = Lab::new();
    lab.files.write(&lab.stack).unwrap();
    let postgres = lab.dir.path().join("data/postgres");
    let conf = lab.dir.path().join("machine.conf");
    let own = lab.read("postgres/machine.conf");
    fs::write(
        &conf,
        own.replace("/etc/insforge", postgres.to_str().unwrap()),
    )
    .unwrap();
    let binaries = Binaries::find().await.unwrap();
    let show = |name: &str| {
        // The one thing that Postgres does for root.
        let output = Command::new(binaries.program("postgres"))
            .args(["-C", name, "-D"])
            .arg(lab.dir.path())
            .arg(format!("--config_file={}", conf.display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name}: {said}");
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    };
    assert_eq!(show("app.encryption_key"), KEY);
    assert_eq!(show("cron.database_name"), "shop");
    assert_eq!(show("wal_level"), "logical");
    assert_eq!(
        show("shared_preload_libraries"),
        "pg_cron,http,pgcrypto,insforge_pg_utils"
    );
    assert!(show("insforge.internal_schemas").starts_with("ai,auth,"));
    assert_eq!(show("max_connections"), "125");
}

#[tokio::test]
async fn the_first_start_scripts_make_what_the_migrations_expect() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binaries = Binaries::find().await.unwrap();
    let password = SecretString::from("p");
    let pgdata = dir.path().join("pgdata");
    Cluster::initdb(&binaries, &pgdata, 1, &password)
        .await
        .unwrap();
    let cluster = loop {
        let port = free_port().unwrap();
        let cluster = Cluster::open(&binaries, &pgdata, port).await.unwrap();
        match cluster.start(&Settings::tests()).await {
            Ok(_) => break cluster,
            // Somebody else was given it meanwhile.
            Err(error) if error.to_string().contains("Address already in use") => {}
            Err(error) => panic!("{error}"),
        }
    };
    let url = cluster.superuser_url("postgres", &password);
    let outcome = tokio::spawn(first_start(binaries, url)).await;
    cluster
        .stop(StopMode::Immediate, std::time::Duration::from_secs(10))
        .await
        .unwrap();
    outcome.unwrap();
}

async fn first_start(binaries: Binaries, url: SecretString) {
    // As the image's entrypoint does.
    for (name, script) in &POSTGRES_FILES[1..] {
        let mut psql = Command::new(binaries.program("psql"))
            .args(["--no-psqlrc", "--set=ON_ERROR_STOP=1", "--dbname"])
            .arg(url.expose_secret())
            .env("JWT_EXP", "1800")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        io::Write::write_all(&mut psql.stdin.take().unwrap(), script.as_bytes()).unwrap();
        assert!(psql.wait().unwrap().success(), "{name}");
    }
    let mut connection = PgConnection::connect(url.expose_secret()).await.unwrap();
    let roles: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'project_admin')",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(roles, 3);
    let expires: String = sqlx::query_scalar("SELECT current_setting('app.settings.jwt_exp')")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(expires, "1800");

    sqlx::raw_sql(
        "CREATE TABLE public.plain (id int); CREATE TABLE public.guarded (id int); \
         ALTER TABLE public.guarded ENABLE ROW LEVEL SECURITY; \
         ALTER TABLE public.guarded ADD COLUMN name text; ALTER TABLE public.plain ADD COLUMN name text",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let policies: Vec<(String, String)> =
        sqlx::query_as("SELECT tablename::text, policyname::text FROM pg_policies")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    assert_eq!(
        policies,
        [("guarded".to_owned(), "project_admin_policy".to_owned())]
    );

    // What the migrations do later.
    sqlx::raw_sql(
        "DROP EVENT TRIGGER create_policies_on_table_create; \
         DROP EVENT TRIGGER create_policies_on_rls_enable; \
         ALTER ROLE project_admin BYPASSRLS; SET ROLE project_admin; \
         SELECT count(*) FROM public.guarded",
    )
    .execute(&mut connection)
    .await
    .unwrap();
}
