//! Somebody who calls the platform interface as the command-line client does: a bearer, JSON on every call, bodies
//! left out where the client leaves them out (contract/platform-api.md 2.2).

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{Answer, App, Person};

#[derive(Clone)]
pub struct Member {
    http: reqwest::Client,
    base_url: String,
    pub bearer: String,
    pub user: String,
}

impl App {
    /// A person with a verified address, logged in to the client by e-mail and password.
    pub async fn member(&self, name: &str) -> Member {
        let person = self.stranger(name).await;
        self.member_of(&person).await
    }

    pub async fn member_of(&self, person: &Person) -> Member {
        let login = json!({ "email": person.email, "password": person.password });
        let url = format!("{}/auth/v1/login", self.base_url);
        let answer = Answer::to(self.http.post(url).json(&login))
            .await
            .expect(200);
        let bearer = answer["token"].as_str().expect("a token");
        self.member_with(&person.id.to_string(), bearer)
    }

    /// Whoever has this bearer.
    pub fn member_with(&self, user: &str, bearer: &str) -> Member {
        Member {
            http: self.http.clone(),
            base_url: self.base_url.clone(),
            bearer: bearer.to_owned(),
            user: user.to_owned(),
        }
    }
}

impl Member {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base_url))
            .bearer_auth(&self.bearer)
            .header("content-type", "application/json")
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::to(self.request(Method::GET, path)).await
    }

    /// Without a body.
    pub async fn post(&self, path: &str) -> Answer {
        Answer::to(self.request(Method::POST, path)).await
    }

    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Answer {
        Answer::to(self.request(method, path).body(body.to_string())).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        Answer::to(self.request(Method::DELETE, path)).await
    }

    /// The id of their own organization.
    pub async fn home(&self) -> String {
        let listed = self.get("/organizations/v1").await.expect(200);
        id_of(&listed["organizations"][0])
    }

    /// The id of a new organization.
    pub async fn create_organization(&self, name: &str) -> String {
        let body = json!({ "name": name, "type": "team" });
        let made = self.send(Method::POST, "/organizations/v1", &body).await;
        id_of(&made.expect(201)["organization"])
    }

    pub async fn invite(&self, organization: &str, email: &str, role: &str) -> Answer {
        let path = format!("/organizations/v1/{organization}/members/invite");
        let body = json!({ "email": email, "role": role });
        self.send(Method::POST, &path, &body).await
    }

    pub async fn begin_project(&self, organization: &str, name: &str) -> Answer {
        let path = format!("/organizations/v1/{organization}/projects");
        self.send(Method::POST, &path, &json!({ "name": name }))
            .await
    }

    /// The id of a new project, asked for until it is active, as `create` does.
    pub async fn create_project(&self, organization: &str, name: &str) -> String {
        let made = self.begin_project(organization, name).await.expect(201);
        let id = id_of(&made["project"]);
        self.await_status(&id, "active").await;
        id
    }

    pub async fn await_status(&self, project: &str, status: &str) -> Value {
        let what = format!("project {project} is {status}");
        let at_most = std::time::Duration::from_secs(30);
        crate::eventually(&what, at_most, async || {
            let seen = self.project(project).await;
            (seen["status"] == status).then_some(seen)
        })
        .await
    }

    pub async fn project(&self, id: &str) -> Value {
        let seen = self.get(&format!("/projects/v1/{id}")).await.expect(200);
        seen["project"].clone()
    }

    /// Makes another person a member: by invitation, mail and page.
    pub async fn add(&self, app: &App, organization: &str, person: &Person, role: &str) {
        self.invite(organization, &person.email, role)
            .await
            .expect(201);
        let mail = app.newest_mail(&person.email).await;
        person.log_in().await;
        let page = person.visitor.open(&mail.link()).await;
        let joined = person
            .visitor
            .press(&page, "/invitation", "Join", &[])
            .await;
        assert_eq!(joined.status, 200, "{}", joined.html);
    }

    /// The membership id of a person.
    pub async fn membership(&self, organization: &str, user: &str) -> String {
        let path = format!("/organizations/v1/{organization}/members");
        let listed = self.get(&path).await.expect(200);
        let members = listed["members"].as_array().expect("a list");
        let found = members.iter().find(|member| member["user_id"] == user);
        id_of(found.expect("they are listed"))
    }
}

fn id_of(thing: &Value) -> String {
    thing["id"].as_str().expect("it has an id").to_owned()
}
