//! A running `insforge-cloud dev` in a folder of its own.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use cp_tests::{PartnerClient, programs};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

pub struct Dev {
    pub partner: PartnerClient,
    pub dir: PathBuf,
    child: Child,
}

impl Dev {
    pub async fn start() -> Self {
        let dir =
            std::env::temp_dir().join(format!("insforge-bench-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&dir).expect("a folder can be made");
        let port = cp_pg::free_port().expect("there is a free port");
        let admin = cp_pg::free_port().expect("there is a free port");
        let mut child = Command::new(programs::built("insforge-cloud"))
            .args([
                "dev",
                "--listen",
                &format!("127.0.0.1:{port}"),
                "--admin-listen",
                &format!("127.0.0.1:{admin}"),
            ])
            .arg("--data-dir")
            .arg(&dir)
            .env("INSFORGE_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("insforge-cloud can be started");
        let mut lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        let ready = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.starts_with("ready: ") {
                    return;
                }
            }
            panic!("insforge-cloud ended before it was ready");
        };
        tokio::time::timeout(Duration::from_mins(2), ready)
            .await
            .expect("dev is ready within two minutes");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let demo: Value = serde_json::from_str(
            &std::fs::read_to_string(dir.join("demo.json")).expect("demo.json is there"),
        )
        .expect("demo.json is JSON");
        let text = |value: &Value| value.as_str().expect("demo.json holds texts").to_owned();
        let partner = PartnerClient {
            http: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client can be built"),
            base_url: text(&demo["base_url"]),
            id: text(&demo["partner"]["id"]),
            secret: text(&demo["partner"]["secret"]),
        };
        Self {
            partner,
            dir,
            child,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("dev runs")
    }

    /// The URL of dev's own Postgres, as its configuration file has it.
    pub fn database_url(&self) -> String {
        let config = std::fs::read_to_string(self.dir.join("config.toml"))
            .expect("dev writes its configuration");
        let url = config
            .lines()
            .find_map(|l| l.trim().strip_prefix("url = \""))
            .expect("it names the database");
        url.trim_end_matches('"').to_owned()
    }

    pub async fn stop(mut self) {
        let pid = self.pid().to_string();
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .await
            .expect("kill can be run");
        let _ = tokio::time::timeout(Duration::from_mins(1), self.child.wait()).await;
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
