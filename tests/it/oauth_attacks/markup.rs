//! Texts of strangers on our pages: names, addresses, user agents, parameters.

use cp_model::ClientKind;
use cp_tests::{Answer, App, Page, Visitor};
use serde_json::json;

use crate::stage::{Stage, form, installation};

/// Would run, break out of an attribute, or end a comment.
const PROBE: &str = "\"'><svg onload=alert(1)><script>alert(1)</script>--><b x=";

#[track_caller]
fn assert_is_text(page: &Page) {
    // Our own mark is an `<svg`, too.
    for never in ["<svg onload", "<svg>", "<script", "<b x"] {
        assert!(!page.html.contains(never), "{}: {}", page.url, page.html);
    }
}

/// As [`assert_is_text`], where the text must be on the page.
#[track_caller]
fn assert_shown_as_text(page: &Page) {
    assert_is_text(page);
    assert!(
        page.text().contains("alert(1)"),
        "{} does not show it: {}",
        page.url,
        page.text()
    );
}

#[tokio::test]
async fn an_applications_name_is_text() {
    // RFC 6819 section 4.4.1.12 and OWASP XSS: shown on consent, device, login and settings.
    let (app, _) = installation().await;
    let ada = app.person("Ada").await;
    let name: String = PROBE.chars().take(90).collect();
    let evil = app
        .relying_party_with(ClientKind::Public, |new| new.name = name)
        .await;
    let stranger = app.visitor();
    assert_shown_as_text(&stranger.open(&evil.authorize_url()).await);
    assert_shown_as_text(&ada.visitor.open(&evil.authorize_url()).await);
    let body = json!({"client_id": evil.client_id, "scope": "user:read"});
    let started = evil
        .post("/api/oauth/v1/device_authorization", &body)
        .await
        .expect(200);
    let page = ada.visitor.open("/device").await;
    let user_code = started["user_code"].as_str().unwrap();
    let page = ada
        .visitor
        .submit(&page, "/device", &[("user_code", user_code)])
        .await;
    assert_shown_as_text(&page);
    evil.tokens_for(&ada.visitor).await;
    assert_shown_as_text(&ada.visitor.open("/settings").await);
}

#[tokio::test]
async fn a_persons_name_and_address_are_text() {
    // OWASP XSS: shown on every page of theirs, and in mails.
    let (app, _) = installation().await;
    let visitor = app.visitor();
    let page = visitor.open("/signup").await;
    let to = [
        ("name", PROBE),
        ("email", "x'<svg>\"@example.com"),
        ("password", "short"),
    ];
    assert_is_text(&visitor.submit(&page, "/signup", &to).await);
    let to = [
        ("name", PROBE),
        ("email", "eve+<svg>@example.com"),
        ("password", "a long and new one"),
    ];
    let page = visitor.submit(&page, "/signup", &to).await;
    assert_is_text(&page);
    let name: String = PROBE.chars().take(60).collect();
    let page = app.visitor().open("/signup").await;
    assert_is_text(&page);
    let eve = app.visitor();
    let page = eve.open("/signup").await;
    let to = [
        ("name", name.as_str()),
        ("email", "eve@example.com"),
        ("password", "a long and new one"),
    ];
    let page = eve.submit(&page, "/signup", &to).await;
    let due = app.control_plane.take_due_mails(10).await.unwrap();
    let mut code = String::new();
    for (_, mail) in due
        .into_iter()
        .filter(|(_, mail)| mail.to == "eve@example.com")
    {
        assert!(
            !mail.html.contains("<svg") && !mail.html.contains("<script"),
            "{}",
            mail.html
        );
        code = mail
            .text
            .split(|c: char| !c.is_ascii_digit())
            .find(|run| run.len() == 6)
            .unwrap_or_default()
            .into();
    }
    let page = eve.submit(&page, "/verify-email", &[("code", &code)]).await;
    assert_is_text(&page);
    assert_is_text(&eve.open("/settings").await);
    let notes = app.relying_party().await;
    assert_is_text(&eve.open(&notes.authorize_url()).await);
}

#[tokio::test]
async fn a_browsers_name_is_text() {
    // OWASP XSS: a device's user agent is a stranger's text on the page that approves it.
    let stage = Stage::new().await;
    let cli = stage.app.public_relying_party().await;
    let request = stage
        .app
        .http
        .post(format!(
            "{}/api/oauth/v1/device_authorization",
            stage.app.base_url
        ))
        .header("user-agent", PROBE)
        .json(&json!({"client_id": cli.client_id, "scope": "user:read"}));
    let started = Answer::to(request).await.expect(200);
    let visitor = &stage.ada.visitor;
    let page = visitor.open("/device").await;
    let user_code = started["user_code"].as_str().unwrap();
    assert_is_text(
        &visitor
            .submit(&page, "/device", &[("user_code", user_code)])
            .await,
    );
    let login = visitor_named(&stage.app, PROBE, &stage.ada.email, &stage.ada.password).await;
    assert_eq!(login, 303);
    assert_is_text(&visitor.open("/settings").await);
}

/// Signs in with a browser that calls itself so.
async fn visitor_named(app: &App, agent: &str, email: &str, password: &str) -> u16 {
    let visitor: Visitor = app.visitor();
    let page = visitor.open("/login").await;
    let token = page.csrf_token("/login");
    crate::stage::send_form(
        &app.base_url,
        "/login",
        &visitor.cookies(),
        &[("user-agent", agent)],
        &[
            ("csrf_token", &token),
            ("email", email),
            ("password", password),
        ],
    )
    .await
    .status
}

#[tokio::test]
async fn parameters_are_text() {
    // OWASP XSS: reflected.
    let stage = Stage::new().await;
    let anybody = stage.app.visitor();
    for name in [
        "return_to",
        "email",
        "token",
        "challenge",
        "user_code",
        "done",
        "again",
        "error",
        "x",
    ] {
        let query = form(&[(name, PROBE)]);
        for path in [
            "/login",
            "/signup",
            "/verify-email",
            "/forgot-password",
            "/reset-password",
            "/logout",
        ] {
            assert_is_text(&anybody.open(&format!("{path}?{query}")).await);
        }
        for path in ["/device", "/settings", "/logout"] {
            assert_is_text(&stage.ada.visitor.open(&format!("{path}?{query}")).await);
        }
    }
    for name in [
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "prompt",
        "response_type",
        "code_challenge",
    ] {
        assert_is_text(&stage.look(&[(name, PROBE)]).await);
    }
    let mut notes = stage.notes.clone();
    notes.state = PROBE.into();
    let page = stage.ada.visitor.open(&notes.authorize_url()).await;
    assert_eq!(page.status, 200, "a state of printable characters is good");
    assert_is_text(&page);
    let page = stage
        .ada
        .visitor
        .press(&page, "/consent", "Allow", &[])
        .await;
    assert_eq!(page.param("state").as_deref(), Some(PROBE));
}

#[tokio::test]
async fn what_is_typed_into_forms_is_text() {
    // OWASP XSS: a form that comes back with an error shows what was typed.
    let stage = Stage::new().await;
    let anybody = stage.app.visitor();
    for (path, fields) in [
        ("/login", vec![("email", PROBE), ("password", "x")]),
        ("/forgot-password", vec![("email", PROBE)]),
        (
            "/signup",
            vec![("name", PROBE), ("email", PROBE), ("password", "x")],
        ),
    ] {
        let page = anybody.open(path).await;
        assert_is_text(&anybody.submit(&page, path, &fields).await);
    }
    let visitor = &stage.ada.visitor;
    let page = visitor.open("/device").await;
    assert_is_text(
        &visitor
            .submit(&page, "/device", &[("user_code", PROBE)])
            .await,
    );
    let page = visitor.open("/settings").await;
    let page = visitor
        .submit(&page, "/settings/api-keys", &[("key_name", PROBE)])
        .await;
    assert_is_text(&page);
    assert_shown_as_text(&visitor.open("/settings").await);
}

#[tokio::test]
async fn what_an_operator_gives_a_client_cannot_break_a_page() {
    // RFC 6819 section 4.1.4: logo, colour and homepage come from partners.
    let (app, _) = installation().await;
    let ada = app.person("Ada").await;
    for (logo, color, homepage) in [
        (Some("javascript:alert(1)"), None, None),
        (
            Some("https://a.example/\"><svg onload=alert(1)>"),
            None,
            None,
        ),
        (
            None,
            Some("red;background:url(https://evil.example/)"),
            None,
        ),
        (None, Some("#fff\"><svg onload=alert(1)>"), None),
        (None, None, Some("javascript:alert(1)")),
        (
            None,
            None,
            Some("https://a.example/\"><svg onload=alert(1)>"),
        ),
    ] {
        let new = cp_domain::oauth::NewOAuthClient {
            name: "Evil".into(),
            kind: ClientKind::Public,
            redirect_uris: vec!["https://evil.example/cb".into()],
            scopes: cp_model::Scopes::all(),
            first_party: false,
            device_grant: false,
            rate_limit: 50,
            logo_url: logo.map(str::to_owned),
            color: color.map(str::to_owned),
            homepage_url: homepage.map(str::to_owned),
        };
        let Ok((client, _)) = app.control_plane.create_oauth_client(&new).await else {
            continue;
        };
        let mut evil = app.public_relying_party().await;
        evil.client_id = client.id.to_string();
        evil.redirect_uri = "https://evil.example/cb".into();
        let page = ada.visitor.open(&evil.authorize_url()).await;
        assert_eq!(page.status, 200);
        assert_is_text(&page);
        assert!(!page.html.contains("javascript:"), "{}", page.html);
        assert!(!page.html.contains("url(https://evil"), "{}", page.html);
    }
}
