//! Databases of a test: made, copied, fed with SQL files, dumped, dropped with the test.

use std::{io::Write as _, process::Stdio};

use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};
use std::process::Command as StdCommand;
use tokio::process::Command;
use uuid::Uuid;

use crate::cluster::{Server, server};

/// A database of its own. Dropped at the end of the test, also of one that fails.
pub struct Database {
    server: &'static Server,
    pub name: String,
}

impl Database {
    pub async fn empty() -> Self {
        Self::create("template0").await
    }

    /// Nobody may be connected to `self`.
    pub async fn template_copy(&self) -> Self {
        Self::create(&self.name).await
    }

    async fn create(template: &str) -> Self {
        let server = server().await;
        let name = format!("m_{}", Uuid::new_v4().simple());
        let sql = format!(r#"CREATE DATABASE "{name}" TEMPLATE "{template}""#);
        psql(server, "postgres", &sql).await.unwrap();
        Self { server, name }
    }

    /// As the platform copies: by `pg_dump` and `pg_restore`.
    pub async fn dump_copy(&self) -> Self {
        let copy = Self::empty().await;
        let dump = self.run("pg_dump", &["--format=custom"], &[]).await;
        let name = copy.url();
        copy.run(
            "pg_restore",
            &["--exit-on-error", "--dbname", &name],
            &dump.0,
        )
        .await;
        copy
    }

    pub fn options(&self) -> PgConnectOptions {
        self.server.options(&self.name)
    }

    pub async fn connect(&self) -> PgConnection {
        self.options().connect().await.unwrap()
    }

    pub fn url(&self) -> String {
        let (base, query) = self
            .server
            .url
            .split_once('?')
            .unwrap_or((&self.server.url, ""));
        let (base, _) = base.rsplit_once('/').unwrap();
        format!("{base}/{}?{query}", self.name)
    }

    /// Statement by statement, as people do; what `psql -At` prints.
    pub async fn psql(&self, sql: &str) -> String {
        match psql(self.server, &self.name, sql).await {
            Ok(out) => out,
            Err(error) => panic!("{sql}\n{error}"),
        }
    }

    /// `pg_dump --schema-only`.
    pub async fn dump(&self) -> String {
        let (out, _) = self.run("pg_dump", &["--schema-only"], &[]).await;
        let text = String::from_utf8(out).unwrap();
        // Newer releases of `pg_dump` put a random word into each dump.
        let random =
            |line: &&str| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict ");
        text.lines().filter(random).collect::<Vec<_>>().join("\n")
    }

    /// The dump of a database that was restored from the dump of this one.
    pub async fn dump_after_round_trip(&self) -> String {
        let copy = Self::empty().await;
        copy.psql(&self.dump().await).await;
        copy.dump().await
    }

    async fn run(&self, program: &str, args: &[&str], input: &[u8]) -> (Vec<u8>, String) {
        let mut command = Command::new(self.server.binaries.program(program));
        command.args(args);
        if program == "pg_dump" {
            command.arg(self.url());
        }
        let (ok, out, err) = feed(command, input).await;
        assert!(ok, "{program}: {err}");
        (out, err)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!(r#"DROP DATABASE IF EXISTS "{}" WITH (FORCE)"#, self.name);
        let _ = StdCommand::new(self.server.binaries.program("psql"))
            .args(["-XqAt", "-c", &sql, &self.server.url])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

async fn psql(server: &Server, database: &str, sql: &str) -> Result<String, String> {
    let (base, query) = server.url.split_once('?').unwrap_or((&server.url, ""));
    let (base, _) = base.rsplit_once('/').unwrap();
    let mut command = Command::new(server.binaries.program("psql"));
    command
        .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-f", "-"])
        .arg(format!("{base}/{database}?{query}"));
    let (ok, out, err) = feed(command, sql.as_bytes()).await;
    if ok {
        Ok(String::from_utf8(out).unwrap().trim_end().to_owned())
    } else {
        Err(err)
    }
}

/// Its input comes from a file: two pipes at once could wait for each other.
async fn feed(mut command: Command, input: &[u8]) -> (bool, Vec<u8>, String) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let out = command
        .stdin(file)
        .output()
        .await
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    (
        out.status.success(),
        out.stdout,
        String::from_utf8_lossy(&out.stderr).into_owned(),
    )
}
