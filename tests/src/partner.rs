//! A partner platform's side: one method per call, and the answer as it came.

use cp_model::{PartnerId, ProjectId};
use reqwest::Method;
use serde_json::{Value, json};

#[derive(Clone)]
pub struct PartnerClient {
    pub http: reqwest::Client,
    pub base_url: String,
    pub id: String,
    pub secret: String,
}

/// Status, headers and body of an answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    /// Null when the body is no JSON.
    pub body: Value,
}

impl Answer {
    pub async fn of(response: reqwest::Response) -> Self {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await.expect("the body can be read");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self {
            status,
            headers,
            text,
            body,
        }
    }

    /// The answer to a request that is not sent yet.
    pub async fn to(request: reqwest::RequestBuilder) -> Self {
        Self::of(request.send().await.expect("the API answers")).await
    }

    /// # Panics
    /// When the status is another one; shows the body.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    #[track_caller]
    pub fn expect_code(self, status: u16, code: &str) -> Value {
        let body = self.expect(status);
        assert_eq!(body["code"], code, "{body}");
        body
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }
}

impl PartnerClient {
    /// The id as the domain's verbs take it.
    pub fn partner_id(&self) -> PartnerId {
        self.id.parse().expect("a partner has a partner's id")
    }

    /// The same partner, calling another API process.
    #[must_use]
    pub fn through(&self, base_url: &str) -> Self {
        Self {
            base_url: base_url.to_owned(),
            ..self.clone()
        }
    }

    /// The same partner id with another secret.
    #[must_use]
    pub fn with_secret(&self, secret: &str) -> Self {
        Self {
            secret: secret.to_owned(),
            ..self.clone()
        }
    }

    /// A request with the partner's secret; `path` comes after `/partnership/v1/:partnerId`.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(
                method,
                format!("{}/partnership/v1/{}{path}", self.base_url, self.id),
            )
            .header("X-Partnership-Secret", &self.secret)
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(
            self.request(Method::GET, path)
                .send()
                .await
                .expect("the API answers"),
        )
        .await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(
            self.request(Method::POST, path)
                .json(body)
                .send()
                .await
                .expect("the API answers"),
        )
        .await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        Answer::of(
            self.request(Method::DELETE, path)
                .send()
                .await
                .expect("the API answers"),
        )
        .await
    }

    /// The id of a connected person.
    pub async fn connect_user(&self, email: &str) -> String {
        let body = self
            .post("/connect-user", &json!({ "name": "Ada", "email": email }))
            .await
            .expect(200);
        body["account"]["id"]
            .as_str()
            .expect("an account id")
            .to_owned()
    }

    pub async fn sync_project(&self, user: &str, name: &str) -> Answer {
        self.post(
            &format!("/{user}/sync-project"),
            &json!({ "project_name": name }),
        )
        .await
    }

    /// An embedded project; gives its `project` object.
    pub async fn create_project(&self, name: &str) -> Value {
        self.post("/sync-embedded-project", &json!({ "project_name": name }))
            .await
            .expect(200)["project"]
            .clone()
    }

    /// An embedded project that is active; gives its id.
    pub async fn create_active_project(&self, name: &str) -> String {
        let project = self.create_project(name).await;
        assert_eq!(project["status"], "active", "{project}");
        project["id"].as_str().expect("a project id").to_owned()
    }

    /// Asks for an embedded project and does not wait for it; gives its id.
    pub async fn begin_project(&self, name: &str) -> ProjectId {
        let project = self.create_project(name).await;
        project["id"]
            .as_str()
            .and_then(|id| id.parse().ok())
            .expect("a project id")
    }

    pub async fn metadata(&self, project: &str) -> Answer {
        self.get(&format!("/{project}/metadata")).await
    }

    pub async fn pause(&self, project: &str) -> Answer {
        self.post(
            &format!("/{project}/pause"),
            &json!({ "wait_for_completion": true }),
        )
        .await
    }

    pub async fn restore(&self, project: &str) -> Answer {
        self.post(
            &format!("/{project}/restore"),
            &json!({ "wait_for_completion": true }),
        )
        .await
    }

    pub async fn restart(&self, project: &str) -> Answer {
        self.post(
            &format!("/{project}/restart"),
            &json!({ "wait_for_completion": true }),
        )
        .await
    }

    pub async fn delete_project(&self, project: &str) -> Answer {
        self.delete(&format!("/{project}")).await
    }
}
