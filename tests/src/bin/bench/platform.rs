//! What dashboards and the command-line client ask most: a project, and an organization's projects, against `pgbench -S` on
//! the same Postgres; and whether a page of the list costs more as the organization grows.

use std::time::Duration;

use cp_tests::eventually;
use cp_tests::programs::Dev;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::at_least;
use crate::load::{pgbench_selects, prepare_pgbench, wrk_with};
use crate::report::Row;

/// On one page, and all that there are at first.
const LISTED: i32 = 50;
/// What the organization grows to.
const MANY: i32 = 10_000;

pub async fn measure(dev: &Dev) -> Vec<Row> {
    let member = Client::log_in(dev).await;
    let organization = member
        .post(
            "/organizations/v1",
            &json!({ "name": "Bench", "type": "team" }),
        )
        .await["organization"]["id"]
        .clone();
    let organization = organization.as_str().expect("an id");
    let path = format!("/organizations/v1/{organization}/projects");
    let made = member
        .post(&path, &json!({ "name": "bench-project" }))
        .await;
    let project = made["project"]["id"].as_str().expect("an id").to_owned();
    let one = format!("/projects/v1/{project}");
    eventually(
        "the project is active",
        Duration::from_secs(90),
        async || (member.get(&one).await["project"]["status"] == "active").then_some(()),
    )
    .await;

    let url = dev.database_url();
    prepare_pgbench(&url);
    let mut database = PgConnection::connect(&url).await.expect("dev's database");
    fill(&mut database, &project, 1, LISTED).await;
    let script = format!(
        "wrk.headers[\"Authorization\"] = \"Bearer {}\"\n",
        member.token
    );
    let rate = |path: &str| wrk_with(dev, &script, path);
    let page = format!("{path}?limit={LISTED}");
    let (got, listed) = (rate(&one), rate(&path));
    let base = pgbench_selects(&url);
    let (got, listed) = (
        f64::midpoint(got, rate(&one)),
        f64::midpoint(listed, rate(&path)),
    );
    let few = rate(&page);
    fill(&mut database, &project, LISTED, MANY).await;
    let many = rate(&page);
    let forget = "delete from projects where organization_id = $1::uuid and status = 'paused'";
    sqlx::query(forget)
        .bind(organization)
        .execute(&mut database)
        .await
        .expect("rows are forgotten");
    member.delete(&one).await;
    vec![
        at_least(
            "GET project / pgbench -S prepared",
            got / base,
            "x",
            0.15,
            0.15,
            format!("{got:.0}/s against {base:.0} transactions/s"),
        ),
        at_least(
            "list of 50 projects / pgbench -S prepared",
            listed / base,
            "x",
            0.08,
            0.08,
            format!("{listed:.0}/s against {base:.0} transactions/s"),
        ),
        at_least(
            "page of 50 of 10,000 / of 50 projects",
            many / few,
            "x",
            0.85,
            1.0,
            format!("{many:.0}/s against {few:.0}/s"),
        ),
    ]
}

/// So many projects, the first one among them: rows without machines, which no worker looks at.
async fn fill(database: &mut PgConnection, project: &str, there: i32, wanted: i32) {
    let statement = "insert into projects (id, organization_id, user_id, name, app_key, region, instance_type, volume_gib,
                                           status, access_host, created_at, updated_at)
                     select gen_random_uuid(), organization_id, user_id, 'bench ' || i, 'bench' || i, region,
                            instance_type, volume_gib, 'paused', access_host, created_at, updated_at
                     from projects, generate_series($2 + 1, $3) i where id = $1::uuid";
    let made = sqlx::query(statement)
        .bind(project)
        .bind(there)
        .bind(wanted)
        .execute(&mut *database)
        .await;
    made.expect("rows are made");
    let analyzed = sqlx::raw_sql("analyze projects").execute(database).await;
    analyzed.expect("statistics are made");
}

/// The demo user, as the command-line client.
struct Client {
    http: reqwest::Client,
    base_url: String,
    token: String,
}

impl Client {
    async fn log_in(dev: &Dev) -> Self {
        let (email, password) = dev.demo_user();
        let mut client = Self {
            http: reqwest::Client::new(),
            base_url: dev.base_url().to_owned(),
            token: String::new(),
        };
        let body = json!({ "email": email, "password": password });
        let answer = client.post("/auth/v1/login", &body).await;
        answer["token"]
            .as_str()
            .expect("a token")
            .clone_into(&mut client.token);
        client
    }

    async fn get(&self, path: &str) -> Value {
        let request = self.http.get(format!("{}{path}", self.base_url));
        let answer = request.bearer_auth(&self.token).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        let answer = answer.unwrap_or_else(|error| panic!("GET {path}: {error}"));
        answer.json().await.expect("JSON")
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.http.post(format!("{}{path}", self.base_url));
        let answer = request.bearer_auth(&self.token).json(body).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        let answer = answer.unwrap_or_else(|error| panic!("POST {path}: {error}"));
        answer.json().await.expect("JSON")
    }

    async fn delete(&self, path: &str) {
        let request = self.http.delete(format!("{}{path}", self.base_url));
        let answer = request.bearer_auth(&self.token).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        answer.unwrap_or_else(|error| panic!("DELETE {path}: {error}"));
    }
}
