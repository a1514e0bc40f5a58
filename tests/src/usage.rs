//! What scenarios about usage arrange with: a service that posts events, a clock that goes back and
//! stands still, and projects that are older than the scenario.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use cp_model::{Clock, ProjectId, SystemClock};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Answer, App};

/// A clock that runs until it is held, and that can be moved either way.
#[derive(Debug, Default)]
pub struct StoryClock(Mutex<Hands>);

#[derive(Debug, Default)]
struct Hands {
    ahead: TimeDelta,
    held: Option<DateTime<Utc>>,
}

impl StoryClock {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Ahead, or back.
    pub fn advance(&self, by: TimeDelta) {
        let mut hands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hands.ahead += by;
        hands.held = hands.held.map(|at| at + by);
    }

    /// To that moment.
    pub fn set(&self, to: DateTime<Utc>) {
        self.advance(to - self.now());
    }

    /// Stands still from now on, so that figures of machines that run can be compared.
    pub fn hold(&self) {
        let now = self.now();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).held = Some(now);
    }
}

impl Clock for StoryClock {
    fn now(&self) -> DateTime<Utc> {
        let hands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hands
            .held
            .unwrap_or_else(|| SystemClock.now() + hands.ahead)
    }
}

/// Posts to the ingest endpoint with one token.
#[derive(Clone)]
pub struct UsageClient {
    pub http: reqwest::Client,
    pub base_url: String,
    pub token: String,
}

impl UsageClient {
    pub fn new(base_url: &str, token: &str) -> Self {
        Self {
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(30))
                .build()
                .expect("a client can be built"),
            base_url: base_url.to_owned(),
            token: token.to_owned(),
        }
    }

    /// A batch that has no body yet.
    pub fn request(&self) -> reqwest::RequestBuilder {
        self.http
            .post(format!("{}/internal/usage/v1/events", self.base_url))
            .bearer_auth(&self.token)
    }

    /// Posts a whole body.
    pub async fn post(&self, batch: &Value) -> Answer {
        Answer::to(self.request().json(batch)).await
    }
}

/// A service of ours that tells what projects used.
#[derive(Clone)]
pub struct UsageService {
    pub client: UsageClient,
    /// What it calls itself.
    pub source: String,
}

impl UsageService {
    /// One event of this service, as it goes over the wire.
    pub fn event(
        &self,
        id: impl std::fmt::Display,
        project: impl std::fmt::Display,
        metric: &str,
        value: impl Into<Value>,
        occurred_at: DateTime<Utc>,
    ) -> Value {
        json!({
            "id": id.to_string(),
            "source": self.source,
            "project_id": project.to_string(),
            "metric": metric,
            "value": value.into(),
            "occurred_at": occurred_at.to_rfc3339_opts(SecondsFormat::Micros, true),
        })
    }

    pub async fn post(&self, events: &[Value]) -> Answer {
        self.client.post(&json!({ "events": events })).await
    }

    /// Sends the batch until it is taken; gives what became of it.
    ///
    /// # Panics
    /// On any answer but 200 and 429.
    pub async fn tell(&self, events: &[Value]) -> Value {
        loop {
            let answer = self.post(events).await;
            if answer.status != 429 {
                return answer.expect(200);
            }
            assert_eq!(answer.header("retry-after"), Some("1"), "{}", answer.text);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl App {
    /// A service with a token for this one source.
    pub async fn usage_service(&self, source: &str) -> UsageService {
        let made = self
            .control_plane
            .create_usage_token(source, &[source.to_owned()])
            .await
            .expect("a usage token can be made");
        UsageService {
            client: UsageClient::new(&self.base_url, made.token.expose_secret()),
            source: source.to_owned(),
        }
    }

    /// Makes a project older or younger than it is.
    pub async fn set_created_at(&self, project: ProjectId, at: DateTime<Utc>) {
        sqlx::query("update projects set created_at = $2 where id = $1")
            .bind(project.0)
            .bind(at)
            .execute(&mut self.database.connect().await)
            .await
            .expect("a project's row can be changed");
    }

    /// A paused project without a machine, like that one but for its name: for scenarios that need
    /// many.
    pub async fn copy_project(&self, of: ProjectId, name: &str) -> ProjectId {
        let id = ProjectId::generate();
        sqlx::query(
            "insert into projects (id, organization_id, partner_id, name, app_key, region, instance_type, status, created_at, updated_at)
             select $2, organization_id, partner_id, $3, $4, region, instance_type, 'paused', created_at, updated_at
             from projects where id = $1",
        )
        .bind(of.0)
        .bind(id.0)
        .bind(name)
        .bind(Uuid::new_v4().simple().to_string())
        .execute(&mut self.database.connect().await)
        .await
        .expect("a project's row can be copied");
        id
    }
}
