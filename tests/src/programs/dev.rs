//! A running `insforge-cloud dev` in a home of its own.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::{Backend, Home, Program, mailbox, quiet_port};
use crate::{PartnerClient, ReceivedMail, RelyingParty, SCOPE, Visitor, eventually};

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

    /// What `demo.json` says.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn demo(&self) -> Value {
        demo(&self.home)
    }

    /// The e-mail address and the password of its demo user.
    ///
    /// # Panics
    /// When demo.json has none.
    pub fn demo_user(&self) -> (String, String) {
        let user = &self.demo()["user"];
        let text = |name: &str| {
            user[name]
                .as_str()
                .expect("demo.json holds texts")
                .to_owned()
        };
        (text("email"), text("password"))
    }

    /// A browser without scripts in which the demo user is signed in.
    pub async fn signed_in(&self) -> Visitor {
        let visitor = self.visitor();
        let (email, password) = self.demo_user();
        visitor.sign_in(&email, &password).await;
        visitor
    }

    pub fn base_url(&self) -> &str {
        &self.partner.base_url
    }

    pub fn visitor(&self) -> Visitor {
        Visitor::new(self.base_url())
    }

    /// Where its mails are.
    pub fn mail_folder(&self) -> PathBuf {
        self.data().join("mail")
    }

    /// The newest mail to this address whose subject has this part. Waits for it: mails are sent
    /// after the request that asked for them.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn mail(&self, to: &str, subject: &str) -> ReceivedMail {
        let what = format!("a mail to {to} about {subject:?}");
        eventually(&what, Duration::from_secs(10), async || {
            let mails = mailbox::mails(&self.mail_folder(), to);
            mails
                .into_iter()
                .rfind(|mail| mail.subject.contains(subject))
        })
        .await
    }

    /// An application that an operator registers with these options.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn relying_party(&self, redirect_uri: &str, options: &[&str]) -> RelyingParty {
        let create = ["oauth-client", "create", "--json", "--name", "Acme Notes"];
        let redirect = ["--redirect-uri", redirect_uri];
        let args = [&create[..], &redirect, options].concat();
        let made = self.home.operator(&args).await.json();
        RelyingParty {
            http: self.partner.http.clone(),
            base_url: self.base_url().to_owned(),
            client_id: made["id"].as_str().expect("an id").to_owned(),
            client_secret: made["secret"].as_str().map(str::to_owned),
            redirect_uri: redirect_uri.to_owned(),
            scope: SCOPE.to_owned(),
            state: "af0ifjsldkj".to_owned(),
            code_verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned(),
        }
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

fn demo(home: &Home) -> Value {
    let demo = std::fs::read_to_string(home.data().join("demo.json")).expect("demo.json is there");
    serde_json::from_str(&demo).expect("demo.json is JSON")
}

fn demo_partner(home: &Home) -> PartnerClient {
    let demo = demo(home);
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
