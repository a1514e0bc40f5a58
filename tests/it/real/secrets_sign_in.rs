//! The same for people who sign in: passwords, cookies, codes, links, tokens, keys and the secrets of
//! applications. With everything logged, none of them is found in plain text: not in a log, an
//! argument, the database or a job.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cp_tests::programs::{Dev, NO_POOL};
use cp_tests::{Answer, ReceivedMail, RelyingParty, Visitor};
use reqwest::header::SET_COOKIE;
use serde_json::{Value, json};

use super::secrets::{Secrets, dump, files, is_data_of_postgres, is_private, note, read};

/// The command-line client.
const CLI: &str = "clf_NK8cMUs41gm8ZcfdtSguVw";

#[tokio::test]
async fn no_secret_of_people_who_sign_in_is_found_in_logs_database_or_job_payloads() {
    let log = [("INSFORGE_LOG", "debug"), ("RUST_LOG", "debug"), NO_POOL];
    let dev = Dev::start_with(&log).await;
    let mut run = Run::new(&dev);
    run.register_applications().await;
    run.sign_up().await;
    run.sign_up_by_json().await;
    run.sign_in_to_an_application().await;
    run.connect_a_device().await;
    run.make_a_key().await;
    run.forget_the_password().await;
    run.make_mistakes().await;
    let kinds = [
        "ics_", "iac_", "irt_", "idc_", "ibs_", "imt_", "uak_", "eyJ",
    ];
    for kind in kinds {
        let is_there = run.secrets.values().any(|secret| secret.starts_with(kind));
        assert!(is_there, "the story has no secret that begins with {kind}");
    }

    let mut told: Vec<(String, String)> = files(&dev.data())
        .into_iter()
        .filter(|path| !is_private(path) && !is_data_of_postgres(path))
        .filter(|path| !path.starts_with(dev.mail_folder()))
        .map(|path| (path.display().to_string(), read(&path)))
        .collect();
    let said = dev.home().said();
    told.extend(
        said.iter()
            .map(|path| (path.display().to_string(), log_of(path))),
    );
    let command_lines = dev.home().processes().into_iter().map(|p| p.command);
    told.push((
        "command lines".into(),
        command_lines.collect::<Vec<_>>().join("\n"),
    ));
    told.push(("the log of operators' commands".into(), run.operators_log));
    told.push(("the database".into(), dump(&dev).await));
    for (place, text) in &told {
        for (name, secret) in &run.secrets {
            let at = text
                .find(secret.as_str())
                .map(|at| text[..at].lines().count());
            assert_eq!(at, None, "{name} is in {place}, at that line");
        }
        for (name, code) in &run.codes {
            let at = text.lines().position(|line| has_word(line, code));
            assert_eq!(at, None, "{name} is in {place}, at that line");
        }
    }
    // What is looked for can be found: these calls are logged, without their queries; and the lines
    // that were left out hold a link.
    for path in [
        "/api/oauth/v1/authorize",
        "/auth/v1/profile",
        "/reset-password",
    ] {
        let is_logged =
            |(place, text): &(String, String)| place.contains("/said/") && text.contains(path);
        assert!(told.iter().any(is_logged), "{path} is not in the log");
    }
    let link = &run.secrets["the link of a reset"];
    assert!(said.iter().any(|path| read(path).contains(link)));

    let mails = files(&dev.mail_folder());
    assert!(mails.len() >= 3, "{mails:?}");
    for path in &mails {
        let mode = path.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
}

/// What a program said, but for the lines that tell a developer the links of mails.
fn log_of(path: &Path) -> String {
    let text = read(path);
    let is_of_mail = |line: &&str| line.starts_with("mail to ");
    let lines: Vec<&str> = text.lines().filter(|line| !is_of_mail(line)).collect();
    lines.join("\n")
}

/// Whether six digits stand by themselves; within a time or an id they are others.
fn has_word(line: &str, code: &str) -> bool {
    line.match_indices(code).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + code.len()..].chars().next();
        let is_part = |c: char| c.is_alphanumeric() || "._-".contains(c);
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// One life, and the secrets that occurred in it.
struct Run<'a> {
    dev: &'a Dev,
    http: reqwest::Client,
    visitor: Visitor,
    party: Option<RelyingParty>,
    secrets: Secrets,
    /// Six digits each: looked for as words.
    codes: BTreeMap<String, String>,
    operators_log: String,
}

const EMAIL: &str = "ada@example.com";
const PASSWORD: &str = "ninety-nine-paper-boats";

impl<'a> Run<'a> {
    fn new(dev: &'a Dev) -> Self {
        Self {
            dev,
            http: dev.partner.http.clone(),
            visitor: dev.visitor(),
            party: None,
            secrets: Secrets::new(),
            codes: BTreeMap::new(),
            operators_log: String::new(),
        }
    }

    fn party(&self) -> &RelyingParty {
        self.party.as_ref().expect("it was registered")
    }

    fn note(&mut self, name: &str, secret: &str) {
        note(&mut self.secrets, name, &json!(secret));
    }

    fn note_tokens(&mut self, whose: &str, tokens: &Value) {
        for name in ["access_token", "refresh_token"] {
            note(
                &mut self.secrets,
                &format!("{name} of {whose}"),
                &tokens[name],
            );
        }
    }

    fn note_mail(&mut self, what: &str, mail: &ReceivedMail) {
        let link = mail.link();
        let (_, token) = link.split_once("token=").expect("a token in the link");
        self.note(&format!("the link of {what}"), token);
    }

    fn note_cookies(&mut self, when: &str) {
        for (name, value) in self.visitor.cookies() {
            if value.starts_with("ibs_") {
                self.note(&format!("the cookie {name} {when}"), &value);
            }
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = self.http.post(format!("{}{path}", self.dev.base_url()));
        Answer::to(request.json(body)).await
    }

    async fn operator(&mut self, args: &[&str]) -> Value {
        let debug = [("INSFORGE_LOG", "debug")];
        let said = self.dev.home().operator_with(args, &debug).await;
        self.operators_log.push_str(&said.err);
        said.json()
    }

    async fn register_applications(&mut self) {
        let redirect_uri = "https://app.example/callback";
        let party = self
            .dev
            .relying_party(redirect_uri, &["--confidential"])
            .await;
        let first = party.client_secret.clone().expect("a secret");
        self.note("a client's secret", &first);
        let id = party.client_id.clone();
        self.party = Some(party);
        let rotate = ["oauth-client", "rotate-secret", &id, "--json"];
        let rotated = self.operator(&rotate).await;
        note(&mut self.secrets, "its next secret", &rotated["secret"]);
    }

    async fn sign_up(&mut self) {
        self.note("a password", PASSWORD);
        let page = self.visitor.open("/signup").await;
        self.note_cookies("before signing in");
        let form = page.form("/signup");
        let csrf = form.fields.iter().find(|(name, _)| name == "csrf_token");
        let csrf = csrf.expect("forms have one").1.clone();
        self.note("a form's token", &csrf);
        let values = [("name", "Ada"), ("email", EMAIL), ("password", PASSWORD)];
        let page = self.visitor.submit(&page, "/signup", &values).await;
        let mail = self.dev.mail(EMAIL, "Confirm your").await;
        self.note_mail("signing up", &mail);
        self.codes
            .insert("the code of signing up".into(), mail.code());
        let page = self
            .visitor
            .submit(&page, "/verify-email", &[("code", &mail.code())])
            .await;
        assert_eq!(page.url.path(), "/settings", "{}", page.text());
        self.note_cookies("after signing in");
    }

    async fn sign_up_by_json(&mut self) {
        let (email, password) = ("bo@example.com", "seventy-seven-tin-drums");
        self.note("another password", password);
        let new = json!({ "name": "Bo", "email": email, "password": password });
        let answer = self.post("/auth/v1/signup", &new).await;
        self.note_session("signing up by JSON", answer, 201);
        self.note_mail(
            "signing up by JSON",
            &self.dev.mail(email, "Confirm your").await,
        );
        let (email, password) = self.dev.demo_user();
        let login = json!({ "email": email, "password": password });
        let answer = self.post("/auth/v1/login", &login).await;
        self.note_session("signing in by JSON", answer, 200);
    }

    fn note_session(&mut self, when: &str, answer: Answer, status: u16) {
        let cookie = answer.headers.get(SET_COOKIE).expect("a cookie");
        let cookie = cookie.to_str().expect("text");
        let (_, value) = cookie.split_once("refreshToken=").expect("the cookie");
        let value = value.split(';').next().unwrap_or_default().to_owned();
        self.note(&format!("the refresh token of {when}"), &value);
        let body = answer.expect(status);
        note(
            &mut self.secrets,
            &format!("the token of {when}"),
            &body["token"],
        );
    }

    async fn sign_in_to_an_application(&mut self) {
        let url = self.party().authorize_url();
        let back = self.visitor.allow(&url).await;
        let code = back.param("code").expect("a code");
        self.note("a code", &code);
        let verifier = self.party().code_verifier.clone();
        self.note("a code's verifier", &verifier);
        let tokens = self.party().exchange(&code).await.expect(200);
        self.note_tokens("an application", &tokens);
        let refresh_token = tokens["refresh_token"].as_str().expect("a token");
        let fresh = self.party().refresh(refresh_token).await.expect(200);
        self.note_tokens("an application, later", &fresh);
        let access_token = fresh["access_token"].as_str().expect("a token");
        self.party().profile(access_token).await.expect(200);
        self.party().introspect(access_token).await.expect(200);
        // Used twice: noticed, and written down without the code.
        self.party().exchange(&code).await.expect(400);
        self.party().refresh(refresh_token).await.expect(400);
    }

    async fn connect_a_device(&mut self) {
        let path = "/api/oauth/v1/device_authorization";
        let begun = json!({ "client_id": CLI, "scope": "user:read" });
        let begun = self.post(path, &begun).await.expect(200);
        note(&mut self.secrets, "a device's code", &begun["device_code"]);
        let link = begun["verification_uri_complete"].as_str().expect("a link");
        let page = self.visitor.open(link).await;
        self.visitor.decide_device(&page, "Allow").await;
        let poll = json!({
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "device_code": begun["device_code"],
            "client_id": CLI,
        });
        let tokens = self.post("/api/oauth/v1/token", &poll).await.expect(200);
        self.note_tokens("a device", &tokens);
    }

    async fn make_a_key(&mut self) {
        let key = self.visitor.make_api_key("backup script").await;
        self.note("an API key", &key);
        self.party().profile(&key).await.expect(200);
    }

    async fn forget_the_password(&mut self) {
        let page = self.visitor.open("/forgot-password").await;
        let values = [("email", EMAIL)];
        self.visitor
            .submit(&page, "/forgot-password", &values)
            .await;
        let mail = self.dev.mail(EMAIL, "new InsForge password").await;
        self.note_mail("a reset", &mail);
        let page = self.visitor.open(&mail.link()).await;
        let new = "eighty-eight-brass-keys";
        self.note("a new password", new);
        let values = [("password", new)];
        let page = self.visitor.submit(&page, "/reset-password", &values).await;
        page.expect_text("Your password is changed.");
        self.visitor.sign_in(EMAIL, new).await;
        self.note_cookies("after a reset");
    }

    /// What people and programs send to the wrong place, or wrongly, is their secret all the same.
    async fn make_mistakes(&mut self) {
        let wrong = "sixty-six-glass-bells";
        self.note("a wrong password", wrong);
        let login = json!({ "email": EMAIL, "password": wrong });
        self.post("/auth/v1/login", &login).await.expect(401);
        let secret = "ics_WrongWrongWrongWrongWrongWrongWrongWrong";
        self.note("a wrong client secret", secret);
        let party = RelyingParty {
            client_secret: Some(secret.to_owned()),
            ..self.party().clone()
        };
        party.refresh("irt_none").await.expect(401);
        // In addresses, which logs are full of.
        let secret = self.secrets["a client's secret"].clone();
        let id = &self.party().client_id;
        let url = format!("/api/oauth/v1/token?client_id={id}&client_secret={secret}");
        let body = json!({ "grant_type": "refresh_token", "refresh_token": "irt_none" });
        self.post(&url, &body).await.expect(400);
        for (name, path) in [
            ("an API key", "/auth/v1/profile?access_token="),
            ("the link of a reset", "/verify-email?token="),
            ("a code", "/nowhere/"),
        ] {
            let url = format!("{}{path}{}", self.dev.base_url(), self.secrets[name]);
            let answer = Answer::to(self.http.get(url)).await;
            assert!(answer.status >= 400, "{name}: {}", answer.status);
        }
        // Not JSON, and quoted by no error.
        let half = format!("{{\"email\": \"{EMAIL}\", \"password\": \"{wrong}");
        let request = self
            .http
            .post(format!("{}/auth/v1/login", self.dev.base_url()));
        let request = request
            .header("content-type", "application/json")
            .body(half);
        Answer::to(request).await.expect(400);
    }
}
