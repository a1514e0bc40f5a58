//! `kill -9` of every process of the house but `dev` itself, which `restart` kills.

use std::collections::HashSet;
use std::time::Duration;

use cp_tests::programs::{Dev, Home, NO_POOL, Program, kill, quiet_port};
use cp_tests::{PartnerClient, TestDatabase, eventually};
use cp_tokens::sealing::SealingKey;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_dies_on_a_machine_comes_back_without_an_operation() {
    let dev = Dev::start_with(&[NO_POOL]).await;
    let shop = dev.create("shop").await;
    shop.write("before").await;
    let machine = dev.home().machine_at(&shop.host);
    let find = |part: &str| {
        let processes = dev.home().processes_of(&machine);
        let found = processes.iter().find(|p| p.command.contains(part));
        found
            .unwrap_or_else(|| panic!("no {part} in {processes:#?}"))
            .pid
    };

    for victim in [" backend", "/postgres -D", "--config"] {
        let old = find(victim);
        kill(old);
        shop.until_read("before", SOON).await;
        // A backend with its database gone may answer before its agent has noticed anything.
        eventually("there is a new one", SOON, async || {
            let processes = dev.home().processes_of(&machine);
            let mut those = processes.iter().filter(|p| p.command.contains(victim));
            those.any(|p| p.pid != old).then_some(())
        })
        .await;
        shop.until_read("before", SOON).await;
        assert_eq!(dev.status(&shop.id).await, "active", "after {victim}");
    }

    for part in [" backend", "/postgres -D", "--config"] {
        let processes = dev.home().processes_of(&machine);
        let count = processes
            .iter()
            .filter(|p| p.command.contains(part))
            .count();
        assert_eq!(count, 1, "{part}: {processes:#?}");
    }
    let operations = dev.home().operator(&["operation", "list", "--json"]).await;
    let operations = operations.json();
    assert_eq!(operations.as_array().map(Vec::len), Some(1), "{operations}");
    assert_eq!(operations[0]["kind"], "provision");
}

#[tokio::test]
async fn a_worker_killed_while_it_launches_is_followed_by_another() {
    let plane = Plane::start().await;
    let [one, two] = &plane.partners;
    let mut first = plane.work();
    let creating = async |partner: &PartnerClient, name: &str| -> String {
        let body = json!({ "project_name": name, "external_id": name });
        let answer = partner.post("/sync-embedded-project", &body).await;
        let project = answer.expect(200)["project"].clone();
        project["id"].as_str().expect("an id").to_owned()
    };
    let projects = async {
        tokio::join!(
            creating(one, "shop-a"),
            creating(two, "shop-b"),
            creating(one, "shop-c"),
            // Both processes are asked for one and the same.
            creating(one, "same"),
            creating(two, "same"),
        )
    };
    let killing = async {
        let taken: HashSet<String> = first
            .until_said("a launch", SOON, |said| {
                let taken = allocated(said);
                (!taken.is_empty()).then_some(taken)
            })
            .await;
        let second = plane.work();
        first.kill().await;
        (taken, second)
    };
    let ((a, b, c, same, again), (taken, _second)) = tokio::join!(projects, killing);
    assert_eq!(same, again, "one external id, one project");
    let projects: Vec<String> = vec![a, b, c, same];

    for project in &projects {
        eventually("it is active", Duration::from_secs(45), async || {
            let status = two.metadata(project).await.expect(200)["project"]["status"].clone();
            assert_ne!(status, "failed");
            (status == "active").then_some(())
        })
        .await;
    }
    let operations = plane.operations().await;
    assert_eq!(operations.len(), projects.len(), "{operations:#?}");
    let taken_over = operations.iter().filter(|operation| {
        taken.contains(operation["id"].as_str().unwrap_or_default())
            && operation["generation"].as_i64() > Some(1)
    });
    assert!(taken_over.count() > 0, "nobody took over: {operations:#?}");

    assert_eq!(plane.home.machines().len(), projects.len());
    let agents = plane.home.processes();
    let agents = agents.iter().filter(|p| p.command.contains("--config"));
    assert_eq!(agents.count(), projects.len());
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "select count(*), count(distinct project_id) from machines where state <> 'terminated'",
    )
    .fetch_all(&mut plane.database.connect().await)
    .await
    .unwrap();
    let count = i64::try_from(projects.len()).unwrap();
    assert_eq!(rows, [(count, count)]);
}

/// The operations that a worker says it has allocated machines for.
fn allocated(log: &str) -> HashSet<String> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["message"] == "machine allocated")
        .filter_map(|line| Some(line["span"]["id"].as_str()?.to_owned()))
        .collect()
}

/// `serve` twice on one database, and as many `work` as a story starts.
struct Plane {
    // The programs end before their home and their database do.
    serving: Vec<Program>,
    /// The same partner, at each of the two.
    partners: [PartnerClient; 2],
    home: Home,
    database: TestDatabase,
    env: Vec<(String, String)>,
}

impl Plane {
    async fn start() -> Self {
        let home = Home::new();
        let database = TestDatabase::new().await;
        let addresses = [quiet_port(), quiet_port()].map(|port| format!("127.0.0.1:{port}"));
        let key = SealingKey::generate().to_secret_text();
        let data = home.data();
        let env = [
            ("DATABASE_URL", database.url.as_str()),
            ("SECRETS_SEALING_KEY", key.expose_secret()),
            ("HTTP_BASE_URL", &format!("http://{}", addresses[0])),
            ("ADMIN_LISTEN", "127.0.0.1:0"),
            (
                "LOCAL_DATA_DIR",
                data.to_str().expect("a path of ours is text"),
            ),
            ("LIMITS_CREATE_WAIT", "0s"),
            ("WORKER_LEASE", "4s"),
        ];
        let env = env.map(|(name, value)| (format!("INSFORGE_{name}"), value.to_owned()));
        let mut plane = Self {
            serving: Vec::new(),
            partners: [nobody(&addresses[0]), nobody(&addresses[1])],
            home,
            database,
            env: env.to_vec(),
        };
        for address in &addresses {
            let mut serving = plane.start_program("serve", &[("INSFORGE_HTTP_LISTEN", address)]);
            serving
                .until_said("serving", SOON, |said| {
                    said.contains("\"serving\"").then_some(())
                })
                .await;
            plane.serving.push(serving);
        }
        let create = [
            "partner",
            "create",
            "Acme",
            "--rate-limit",
            "100000",
            "--json",
        ];
        let made = plane.home.run(&create, &plane.env()).await.json();
        let text = |name: &str| made[name].as_str().expect("a text").to_owned();
        for partner in &mut plane.partners {
            (partner.id, partner.secret) = (text("id"), text("secret"));
        }
        plane
    }

    fn work(&self) -> Program {
        self.start_program("work", &[])
    }

    fn start_program(&self, name: &str, more: &[(&str, &str)]) -> Program {
        self.home.start(&[name], &[&self.env()[..], more].concat())
    }

    fn env(&self) -> Vec<(&str, &str)> {
        let text = self.env.iter();
        text.map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    async fn operations(&self) -> Vec<Value> {
        let list = ["operation", "list", "--json"];
        let operations = self.home.run(&list, &self.env()).await.json();
        operations.as_array().cloned().unwrap_or_default()
    }
}

fn nobody(address: &str) -> PartnerClient {
    PartnerClient {
        http: reqwest::Client::builder().no_proxy().build().unwrap(),
        base_url: format!("http://{address}"),
        id: String::new(),
        secret: String::new(),
    }
}
