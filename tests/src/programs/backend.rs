//! A project's backend, as its owner's programs see it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{Answer, eventually};

#[derive(Clone)]
pub struct Backend {
    /// The project's id.
    pub id: String,
    pub host: String,
    pub key: String,
    http: reqwest::Client,
}

impl Backend {
    /// From a `project` object of the API.
    ///
    /// # Panics
    /// When it has no address or no key.
    pub fn of(project: &Value) -> Self {
        let text = |name: &str| {
            let value = project[name].as_str();
            value
                .unwrap_or_else(|| panic!("no {name}: {project}"))
                .to_owned()
        };
        Self {
            id: text("id"),
            host: text("access_host"),
            key: text("api_key"),
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(5))
                // A machine that comes back has the same port and none of the old connections.
                .pool_max_idle_per_host(0)
                .build()
                .expect("a client can be built"),
        }
    }

    /// A statement with the project's key. None: nobody answers.
    pub async fn try_sql(&self, query: &str) -> Option<Answer> {
        let request = self
            .http
            .post(format!("{}/api/database/advance/rawsql", self.host))
            .bearer_auth(&self.key)
            .json(&json!({ "query": query }));
        Some(Answer::of(request.send().await.ok()?).await)
    }

    /// The rows of a statement.
    ///
    /// # Panics
    /// When nobody answers 200.
    pub async fn sql(&self, query: &str) -> Value {
        let answer = self.try_sql(query).await.expect("the backend answers");
        answer.expect(200)["rows"].clone()
    }

    /// Makes a table with one row in it.
    pub async fn write(&self, title: &str) {
        self.sql("create table notes (title text)").await;
        self.sql(&format!("insert into notes values ('{title}')"))
            .await;
    }

    /// Waits until the row of [`Self::write`] is read with the project's key.
    ///
    /// # Panics
    /// When it is not in time.
    pub async fn until_read(&self, title: &str, at_most: Duration) {
        eventually("the backend answers", at_most, async || {
            let answer = self.try_sql("select title from notes").await?;
            (answer.body["rows"] == json!([{ "title": title }])).then_some(())
        })
        .await;
    }

    /// Whether anything listens at its address.
    pub async fn answers(&self) -> bool {
        let request = self.http.get(format!("{}/api/health", self.host));
        request.send().await.is_ok()
    }

    /// The backend's admin session for an authorization code of ours. None: nobody answers.
    pub async fn try_exchange(&self, code: &str) -> Option<Answer> {
        let request = self
            .http
            .post(format!("{}/api/auth/admin/sessions/exchange", self.host))
            .json(&json!({ "code": code }));
        Some(Answer::of(request.send().await.ok()?).await)
    }

    /// The same.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn exchange(&self, code: &str) -> Answer {
        let answer = self.try_exchange(code).await;
        answer.expect("the backend answers")
    }
}
