//! A running `insforge-cloud dev` in a home of its own.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::{Backend, Home, Program, quiet_port};
use crate::{PartnerClient, eventually};

/// For stories that need no warm machine: each project's is made when it is created.
pub const NO_POOL: (&str, &str) = (
    "INSFORGE_POOL_TARGETS",
    r#"[{region="us-east",instance_type="nano",floor=0,ceiling=0}]"#,
);

pub struct Dev {
    /// The demo partner.
    pub partner: PartnerClient,
    // Before the home: killed first, so that it starts nothing again.
    program: Program,
    home: Home,
    listen: String,
}

impl Dev {
    /// With the configuration that people get.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(env: &[(&str, &str)]) -> Self {
        Self::start_in(Home::new(), env).await
    }

    pub async fn start_in(home: Home, env: &[(&str, &str)]) -> Self {
        let listen = format!("127.0.0.1:{}", quiet_port());
        Self::start_at(home, &listen, env).await
    }

    /// # Panics
    /// When it is not ready within two minutes.
    pub async fn start_at(home: Home, listen: &str, env: &[(&str, &str)]) -> Self {
        let args = ["dev", "--listen", listen, "--admin-listen", "127.0.0.1:0"];
        let data = home.data();
        let data = ["--data-dir", data.to_str().expect("a path of ours is text")];
        let mut program = home.start(&[&args[..], &data].concat(), env);
        program
            .until_said("ready", Duration::from_mins(2), |said| {
                said.lines()
                    .any(|line| line.starts_with("ready: "))
                    .then_some(())
            })
            .await;
        Self {
            partner: demo_partner(&home),
            program,
            home,
            listen: listen.to_owned(),
        }
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    pub fn data(&self) -> PathBuf {
        self.home.data()
    }

    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    pub fn has_ended(&mut self) -> bool {
        self.program.has_ended()
    }

    /// Where it listens, for the next one.
    pub fn listen(&self) -> String {
        self.listen.clone()
    }

    /// The URL of dev's own Postgres, as its configuration file has it.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn database_url(&self) -> String {
        let config = std::fs::read_to_string(self.data().join("config.toml"))
            .expect("dev writes its configuration");
        let url = config
            .lines()
            .find_map(|l| l.trim().strip_prefix("url = \""))
            .expect("it names the database");
        url.trim_end_matches('"').to_owned()
    }

    /// A project whose machine serves.
    ///
    /// # Panics
    /// When it does not in time.
    pub async fn create(&self, name: &str) -> Backend {
        let project = self.partner.create_project(name).await;
        self.until_active(project["id"].as_str().expect("a project id"))
            .await
    }

    /// Two cores, many machines: it may take longer than the creating call waits.
    ///
    /// # Panics
    /// When it does not in time.
    pub async fn until_active(&self, project: &str) -> Backend {
        eventually(
            "the project is active",
            Duration::from_secs(45),
            async || {
                let project = self.partner.metadata(project).await.body["project"].clone();
                (project["status"] == "active").then(|| Backend::of(&project))
            },
        )
        .await
    }

    /// The status that the metadata tells.
    pub async fn status(&self, project: &str) -> Value {
        self.partner.metadata(project).await.expect(200)["project"]["status"].clone()
    }

    /// Ctrl-C.
    ///
    /// # Panics
    /// When it does not end well.
    pub async fn interrupt(self) -> Home {
        let ended = self.program.interrupt().await;
        assert!(ended.success(), "{ended}");
        self.home
    }

    /// `kill -9`: its machines and its Postgres go on.
    pub async fn kill(self) -> Home {
        self.program.kill().await;
        self.home
    }
}

fn demo_partner(home: &Home) -> PartnerClient {
    let demo = std::fs::read_to_string(home.data().join("demo.json")).expect("demo.json is there");
    let demo: Value = serde_json::from_str(&demo).expect("demo.json is JSON");
    let text = |value: &Value| value.as_str().expect("demo.json holds texts").to_owned();
    PartnerClient {
        http: reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client can be built"),
        base_url: text(&demo["base_url"]),
        id: text(&demo["partner"]["id"]),
        secret: text(&demo["partner"]["secret"]),
    }
}
