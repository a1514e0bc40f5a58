//! The other side: node's oidc-provider (tests/bench/oidc-provider), on a database of its own in the
//! Postgres server that we use, with a process for each core.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use cp_tests::programs::{Dev, quiet_port};
use reqwest::Url;
use serde::Deserialize;
use sqlx::Connection as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::load::{CONNECTIONS, Family, Server};

/// Dropped, it is killed.
pub struct OidcProvider {
    /// Which node runs it.
    node: String,
    program: Child,
}

/// The line that says that it can take requests.
#[derive(Deserialize)]
struct Ready {
    refresh_tokens: Vec<String>,
    node: String,
}

impl OidcProvider {
    /// With a family for each connection.
    pub async fn start(dev: &Dev) -> (Self, Vec<Family>) {
        let server = Server {
            address: format!("127.0.0.1:{}", quiet_port()),
            token_path: "/token",
            introspection_path: "/token/introspection",
            client_id: "bench".to_owned(),
            client_secret: uuid::Uuid::new_v4().simple().to_string(),
        };
        let mut program = start(dev, &server, &new_database(dev).await);
        let ready = tokio::time::timeout(Duration::from_secs(30), until_ready(&mut program))
            .await
            .expect("oidc-provider is ready within half a minute");
        let server = Arc::new(server);
        let families = ready
            .refresh_tokens
            .into_iter()
            .map(|refresh_token| Family {
                server: server.clone(),
                refresh_token,
                access_tokens: Vec::new(),
            });
        let node = ready.node;
        (Self { node, program }, families.collect())
    }

    /// Gives the version of node that ran it.
    pub async fn stop(mut self) -> String {
        self.program.kill().await.expect("it can be stopped");
        self.node
    }
}

async fn new_database(dev: &Dev) -> Url {
    let ours = dev.database_url();
    let mut connection = sqlx::PgConnection::connect(&ours)
        .await
        .expect("dev's Postgres answers");
    sqlx::query("create database oidc_provider")
        .execute(&mut connection)
        .await
        .expect("a database can be made");
    let mut url = Url::parse(&ours).expect("the address of a database is a URL");
    url.set_path("/oidc_provider");
    url
}

fn start(dev: &Dev, server: &Server, database: &Url) -> Child {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/oidc-provider");
    // The node that is installed with it, where there is one for this system.
    let own = folder.join("node_modules/.bin/node");
    let node = if own.exists() { own } else { "node".into() };
    let port = server.address.rsplit(':').next().unwrap_or_default();
    let processes = std::thread::available_parallelism().map_or(2, usize::from);
    Command::new(&node)
        .arg(folder.join("server.mjs"))
        .env("NODE_ENV", "production")
        .env("DATABASE_URL", database.as_str())
        .env("PORT", port)
        .env("PROCESSES", processes.to_string())
        .env("CLIENT_ID", &server.client_id)
        .env("CLIENT_SECRET", &server.client_secret)
        .env("FAMILIES", CONNECTIONS.to_string())
        // So that the home of dev ends what it leaves running.
        .current_dir(dev.home().path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}; run scripts/setup --bench", node.display()))
}

async fn until_ready(program: &mut Child) -> Ready {
    let out = program.stdout.take().expect("its output is a pipe");
    let mut lines = BufReader::new(out).lines();
    while let Some(line) = lines.next_line().await.expect("its output is text") {
        if let Ok(ready) = serde_json::from_str(&line) {
            return ready;
        }
        eprintln!("oidc-provider: {line}");
    }
    panic!("oidc-provider ended; run scripts/setup --bench, and see above");
}
