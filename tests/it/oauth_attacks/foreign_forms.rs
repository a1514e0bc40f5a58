//! Forms that another site sends with a person's cookies, and pages in another site's frame.

use std::collections::BTreeMap;

use cp_tests::{Answer, App, Form, Page, Person, Visitor};
use serde_json::json;

use crate::stage::{SESSION, Stage, get_profile, installation, is_signed_in, send_form};

/// Everywhere that a form goes to.
const ACTIONS: &[&str] = &[
    "/consent",
    "/login",
    "/login/code",
    "/logout",
    "/signup",
    "/verify-email",
    "/verify-email/link",
    "/verify-email/resend",
    "/forgot-password",
    "/reset-password",
    "/device",
    "/device/decision",
    "/settings/password",
    "/settings/sessions/end",
    "/settings/sessions/end-others",
    "/settings/apps/disconnect",
    "/settings/api-keys",
    "/settings/api-keys/revoke",
];

/// Ways in which a form can come from elsewhere: what stands in for the token, and headers.
async fn foreign(
    app: &App,
    own: &str,
) -> Vec<(&'static str, Option<String>, Vec<(&'static str, String)>)> {
    let other = app.visitor();
    let others = other.open("/login").await.csrf_token("/login");
    let here = ("origin", app.base_url.clone());
    let mut changed = own.to_owned();
    let last = if changed.ends_with('A') { "B" } else { "A" };
    changed.replace_range(changed.len() - 1.., last);
    vec![
        ("no token", None, vec![here.clone()]),
        ("an empty token", Some(String::new()), vec![here.clone()]),
        (
            "a token of another browser",
            Some(others),
            vec![here.clone()],
        ),
        ("a changed token", Some(changed), vec![here.clone()]),
        (
            "another origin",
            Some(own.into()),
            vec![("origin", "https://evil.example".into())],
        ),
        (
            "a similar origin",
            Some(own.into()),
            vec![("origin", format!("{}.evil.example", app.base_url))],
        ),
        (
            "cross-site",
            Some(own.into()),
            vec![here.clone(), ("sec-fetch-site", "cross-site".into())],
        ),
        (
            "same-site",
            Some(own.into()),
            vec![("sec-fetch-site", "same-site".into())],
        ),
        (
            "a sandboxed frame",
            Some(own.into()),
            vec![
                ("origin", "null".into()),
                ("sec-fetch-site", "cross-site".into()),
            ],
        ),
    ]
}

fn field_of(form: &Form, name: &str) -> String {
    form.fields
        .iter()
        .find_map(|(known, value)| (known == name).then(|| value.clone()))
        .unwrap_or_else(|| panic!("no {name} in {form:?}"))
}

/// Sends the form in each of these ways; none is taken.
async fn all_are_refused(
    app: &App,
    cookies: &BTreeMap<String, String>,
    action: &str,
    own_token: &str,
    fields: &[(&str, &str)],
) {
    for (what, token, headers) in foreign(app, own_token).await {
        let mut fields = fields.to_vec();
        if let Some(token) = &token {
            fields.push(("csrf_token", token));
        }
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = send_form(&app.base_url, action, cookies, &headers, &fields).await;
        assert_eq!(answer.status, 403, "{action} with {what}: {}", answer.text);
        assert_eq!(answer.header("location"), None, "{action} with {what}");
    }
}

/// As the browser itself would send it.
async fn is_taken(
    app: &App,
    cookies: &BTreeMap<String, String>,
    action: &str,
    own_token: &str,
    fields: &[(&str, &str)],
) -> Answer {
    let mut fields = fields.to_vec();
    fields.push(("csrf_token", own_token));
    let headers = [
        ("origin", app.base_url.as_str()),
        ("sec-fetch-site", "same-origin"),
    ];
    let answer = send_form(&app.base_url, action, cookies, &headers, &fields).await;
    assert!(
        answer.status < 400,
        "{action}: {} {}",
        answer.status,
        answer.text
    );
    answer
}

#[tokio::test]
async fn no_form_is_taken_from_another_site() {
    // RFC 9700 section 4.7, RFC 6819 section 4.4.1.8: none was forgotten.
    let stage = Stage::new().await;
    let page = stage.ada.visitor.open("/logout").await;
    let token = page.csrf_token("/logout");
    let cookies = stage.ada.visitor.cookies();
    for action in ACTIONS {
        all_are_refused(&stage.app, &cookies, action, &token, &[]).await;
    }
    assert!(is_signed_in(&stage.ada.visitor).await);
}

#[tokio::test]
async fn nobody_is_signed_in_by_another_site() {
    // RFC 6819 section 4.4.1.8, RFC 9700 section 4.7: login CSRF.
    let (app, _) = installation().await;
    let mallory = app.stranger("Mallory").await;
    let victim = app.visitor();
    let token = victim.open("/login").await.csrf_token("/login");
    let cookies = victim.cookies();
    let fields = [
        ("email", mallory.email.as_str()),
        ("password", &mallory.password),
    ];
    all_are_refused(&app, &cookies, "/login", &token, &fields).await;
    // A page that was never opened has left no cookie, and the form is refused as well.
    let headers = [("origin", app.base_url.as_str())];
    let answer = send_form(&app.base_url, "/login", &BTreeMap::new(), &headers, &fields).await;
    assert!(matches!(answer.status, 400 | 403), "{}", answer.status);
    assert_eq!(answer.header("location"), None);
    let answer = is_taken(&app, &cookies, "/login", &token, &fields).await;
    assert_eq!(answer.status, 303);
}

#[tokio::test]
async fn a_form_of_the_attackers_own_session_does_not_fit_the_victim() {
    // RFC 9700 section 4.7.1: the token is bound to the user agent.
    let (app, _) = installation().await;
    let mallory = app.person("Mallory").await;
    let ada = app.person("Ada").await;
    let token = mallory.visitor.open("/logout").await.csrf_token("/logout");
    let headers = [("origin", app.base_url.as_str())];
    let fields = [("csrf_token", token.as_str())];
    let answer = send_form(
        &app.base_url,
        "/logout",
        &ada.visitor.cookies(),
        &headers,
        &fields,
    )
    .await;
    assert_eq!(answer.status, 403);
    assert!(is_signed_in(&ada.visitor).await);
    send_form(
        &app.base_url,
        "/logout",
        &mallory.visitor.cookies(),
        &headers,
        &fields,
    )
    .await;
    assert!(!is_signed_in(&mallory.visitor).await);
}

#[tokio::test]
async fn nobody_consents_by_another_site() {
    // RFC 6819 sections 4.4.1.8 and 4.4.1.10, RFC 9700 section 4.7.
    let stage = Stage::new().await;
    let page = stage.ada.visitor.open(&stage.notes.authorize_url()).await;
    let form = page.form("/consent");
    let token = field_of(&form, "csrf_token");
    let cookies = stage.ada.visitor.cookies();
    let mut fields: Vec<(&str, &str)> = form
        .fields
        .iter()
        .filter(|(name, _)| name != "csrf_token")
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    fields.push(("decision", "approve"));
    all_are_refused(&stage.app, &cookies, "/consent", &token, &fields).await;
    assert_eq!(stage.app.database.count("oauth_consents").await, 0);
    assert_eq!(
        stage.app.database.count("oauth_authorization_codes").await,
        0
    );
    let answer = is_taken(&stage.app, &cookies, "/consent", &token, &fields).await;
    assert!(answer.header("location").unwrap().contains("code="));
}

#[tokio::test]
async fn a_consent_form_belongs_to_who_saw_it() {
    // RFC 9700 section 4.7: signed in as somebody else since, in another tab.
    let stage = Stage::new().await;
    let visitor = &stage.ada.visitor;
    let page = visitor.open(&stage.notes.authorize_url()).await;
    let question = visitor.open("/logout").await;
    visitor.submit(&question, "/logout", &[]).await;
    let bob = stage.app.stranger("Bob").await;
    let login = visitor.open("/login").await;
    let to = [("email", bob.email.as_str()), ("password", &bob.password)];
    visitor.submit(&login, "/login", &to).await;
    assert!(is_signed_in(visitor).await);
    let page = visitor.press(&page, "/consent", "Allow", &[]).await;
    assert_eq!(page.status, 403, "{}", page.url);
    assert_eq!(
        stage.app.database.count("oauth_authorization_codes").await,
        0
    );
}

#[tokio::test]
async fn a_consent_form_that_was_changed_is_checked_anew() {
    // RFC 9700 section 4.1.3: what comes back from the browser is a stranger's text again.
    let stage = Stage::new().await;
    let page = stage.ada.visitor.open(&stage.notes.authorize_url()).await;
    for (name, value) in [
        ("redirect_uri", "https://evil.example/"),
        ("redirect_uri", ""),
        ("client_id", "clf_nobody"),
    ] {
        let answer = stage
            .ada
            .visitor
            .press(&page, "/consent", "Allow", &[(name, value)])
            .await;
        assert_eq!(answer.status, 400, "{name}: {}", answer.url);
        assert!(!answer.is_elsewhere);
    }
    for (name, value, error) in [
        ("scope", "everything", "invalid_scope"),
        ("code_challenge", "", "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
        ("response_type", "token", "unsupported_response_type"),
    ] {
        let answer = stage
            .ada
            .visitor
            .press(&page, "/consent", "Allow", &[(name, value)])
            .await;
        assert_eq!(
            answer.param("error").as_deref(),
            Some(error),
            "{name}: {}",
            answer.url
        );
    }
    assert_eq!(
        stage.app.database.count("oauth_authorization_codes").await,
        0
    );
}

async fn device(stage: &Stage) -> (String, String) {
    let cli = stage.app.public_relying_party().await;
    let started = cli.start_device().await;
    let text = |name: &str| started[name].as_str().unwrap().to_owned();
    (text("device_code"), text("user_code"))
}

#[tokio::test]
async fn no_device_is_approved_by_another_site() {
    // RFC 8628 section 5.4 (remote phishing) and RFC 9700 section 4.7.
    let stage = Stage::new().await;
    let (_, user_code) = device(&stage).await;
    let visitor = &stage.ada.visitor;
    let page = visitor.open("/device").await;
    let page = visitor
        .submit(&page, "/device", &[("user_code", &user_code)])
        .await;
    let token = page.csrf_token("/device/decision");
    let fields = [("user_code", user_code.as_str()), ("decision", "approve")];
    all_are_refused(
        &stage.app,
        &visitor.cookies(),
        "/device/decision",
        &token,
        &fields,
    )
    .await;
    let state: String = sqlx::query_scalar("select state from oauth_device_codes")
        .fetch_one(&mut stage.app.database.connect().await)
        .await
        .unwrap();
    assert_eq!(state, "pending");
    is_taken(
        &stage.app,
        &visitor.cookies(),
        "/device/decision",
        &token,
        &fields,
    )
    .await;
}

#[tokio::test]
async fn opening_a_devices_link_approves_nothing() {
    // RFC 8628 sections 3.3.1 and 5.4: the complete link still asks.
    let stage = Stage::new().await;
    let (_, user_code) = device(&stage).await;
    for path in [
        format!("/device?user_code={user_code}"),
        format!("/device?user_code={user_code}&decision=approve"),
    ] {
        let page = stage.ada.visitor.open(&path).await;
        assert_eq!(page.status, 200);
    }
    let path = format!("/device/decision?user_code={user_code}&decision=approve");
    let page = stage.ada.visitor.look(&path).await;
    assert_eq!(page.status, 405);
    let state: String = sqlx::query_scalar("select state from oauth_device_codes")
        .fetch_one(&mut stage.app.database.connect().await)
        .await
        .unwrap();
    assert_eq!(state, "pending");
}

#[tokio::test]
async fn settings_are_not_changed_by_another_site() {
    // RFC 9700 section 4.7: an API key, once made, outlives the session.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let visitor = &stage.ada.visitor;
    let page = visitor.open("/settings").await;
    let cookies = visitor.cookies();
    let token = page.csrf_token("/settings/api-keys");
    for (action, fields) in [
        (
            "/settings/api-keys",
            vec![("name", "evil"), ("access", "everything")],
        ),
        (
            "/settings/apps/disconnect",
            vec![("client_id", stage.notes.client_id.as_str())],
        ),
        ("/settings/sessions/end-others", vec![]),
        (
            "/settings/password",
            vec![
                ("current_password", stage.ada.password.as_str()),
                ("new_password", "evil evil evil"),
                ("password", "evil evil evil"),
            ],
        ),
    ] {
        all_are_refused(&stage.app, &cookies, action, &token, &fields).await;
    }
    assert_eq!(stage.app.database.count("user_api_keys").await, 0);
    get_profile(&stage.app, &tokens.access).await.expect(200);
    let again = stage.app.visitor();
    let login = again.open("/login").await;
    let to = [
        ("email", stage.ada.email.as_str()),
        ("password", &stage.ada.password),
    ];
    again.submit(&login, "/login", &to).await;
    assert!(is_signed_in(&again).await, "the password is the old one");
}

#[tokio::test]
async fn opening_a_page_changes_nothing() {
    // RFC 9110 section 9.2.1: a link in a stranger's page is a GET with cookies (SameSite=Lax).
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    for path in ACTIONS {
        let page = stage.ada.visitor.look(path).await;
        assert!(page.status < 500, "{path}");
    }
    assert!(is_signed_in(&stage.ada.visitor).await);
    get_profile(&stage.app, &tokens.access).await.expect(200);
}

#[tokio::test]
async fn a_form_in_another_encoding_is_refused() {
    // RFC 9700 section 4.7: `text/plain` and JSON can be sent across sites without a preflight.
    let stage = Stage::new().await;
    let page = stage.ada.visitor.open("/logout").await;
    let token = page.csrf_token("/logout");
    let cookie = stage.ada.visitor.cookie(SESSION).unwrap();
    for (kind, body) in [
        ("text/plain", format!("csrf_token={token}")),
        ("application/json", json!({"csrf_token": token}).to_string()),
        (
            "multipart/form-data; boundary=x",
            format!(
                "--x\r\nContent-Disposition: form-data; name=\"csrf_token\"\r\n\r\n{token}\r\n--x--\r\n"
            ),
        ),
    ] {
        let answer = Answer::to(
            crate::stage::wire()
                .post(format!("{}/logout", stage.app.base_url))
                .header("content-type", kind)
                .header("cookie", format!("{SESSION}={cookie}"))
                .body(body),
        )
        .await;
        assert!(
            answer.status >= 400 && answer.status < 500,
            "{kind}: {}",
            answer.status
        );
    }
    assert!(is_signed_in(&stage.ada.visitor).await);
}

#[tokio::test]
async fn the_json_interface_signs_nobody_in_across_sites() {
    // RFC 9700 section 4.7: its cookie is as good as a session.
    let (app, _) = installation().await;
    let mallory = app.stranger("Mallory").await;
    let body = json!({"email": mallory.email, "password": mallory.password});
    for path in [
        "/auth/v1/login",
        "/auth/v1/signup",
        "/auth/v1/refresh",
        "/auth/v1/logout",
    ] {
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let answer = Answer::to(
                app.http
                    .post(format!("{}{path}", app.base_url))
                    .header(name, value)
                    .json(&body),
            )
            .await;
            assert_eq!(answer.status, 403, "{path} {value}: {}", answer.text);
            assert_eq!(answer.header("set-cookie"), None);
        }
    }
    // Without a preflight a page of another site can send only these kinds of bodies.
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let answer = Answer::to(
            app.http
                .post(format!("{}/auth/v1/login", app.base_url))
                .header("content-type", kind)
                .body(body.to_string()),
        )
        .await;
        assert!(
            matches!(answer.status, 400 | 415),
            "{kind}: {}",
            answer.status
        );
    }
}

#[tokio::test]
async fn no_other_site_may_read_with_cookies() {
    // Fetch, "CORS protocol and credentials": no page of ours is open to scripts of others.
    let stage = Stage::new().await;
    for path in [
        "/settings",
        "/login",
        "/auth/v1/profile",
        "/auth/v1/refresh",
        "/api/oauth/v1/token",
        "/api/oauth/v1/authorize",
    ] {
        let answer = Answer::to(
            crate::stage::wire()
                .get(format!("{}{path}", stage.app.base_url))
                .header("origin", "https://evil.example")
                .header(
                    "cookie",
                    format!("{SESSION}={}", stage.ada.visitor.cookie(SESSION).unwrap()),
                ),
        )
        .await;
        assert_eq!(
            answer.header("access-control-allow-credentials"),
            None,
            "{path}"
        );
        let origin = answer.header("access-control-allow-origin");
        assert!(
            origin.is_none() || origin == Some("*"),
            "{path}: {origin:?}"
        );
        if path == "/settings" {
            assert_eq!(origin, None);
        }
    }
}

/// Each page of ours once, as somebody signed in and as nobody sees it.
async fn every_page(stage: &Stage) -> Vec<Page> {
    let nobody = stage.app.visitor();
    let mut pages = Vec::new();
    for path in [
        "/login",
        "/signup",
        "/forgot-password",
        "/verify-email",
        "/verify-email?token=imt_x",
        "/reset-password?token=imt_x",
        "/logout",
    ] {
        pages.push(nobody.look(path).await);
    }
    for path in [
        "/settings",
        "/device",
        "/device?user_code=BCDF-GHJK",
        "/logout",
        "/consent",
        "/login?again=yes",
    ] {
        pages.push(stage.ada.visitor.look(path).await);
    }
    pages.push(stage.ada.visitor.look(&stage.notes.authorize_url()).await);
    pages.push(stage.look(&[("client_id", "clf_nobody")]).await);
    pages.push(stage.look(&[("scope", "everything")]).await);
    pages.push(nobody.look(&stage.notes.authorize_url()).await);
    pages.push(nobody.look("/settings").await);
    let (_, user_code) = device(stage).await;
    let page = stage.ada.visitor.open("/device").await;
    pages.push(
        stage
            .ada
            .visitor
            .submit(&page, "/device", &[("user_code", &user_code)])
            .await,
    );
    pages.push(stage.ada.visitor.post("/logout", &[]).await);
    pages
}

#[tokio::test]
async fn no_page_can_be_framed() {
    // RFC 9700 section 4.15 and RFC 6819 section 4.4.1.9: clickjacking.
    let stage = Stage::new().await;
    for page in every_page(&stage).await {
        assert_eq!(page.header("x-frame-options"), Some("DENY"), "{}", page.url);
        let policy = page.header("content-security-policy").unwrap_or_default();
        assert!(
            policy.contains("frame-ancestors 'none'"),
            "{}: {policy}",
            page.url
        );
    }
}

#[tokio::test]
async fn no_page_runs_a_script_or_leaks_its_address() {
    // RFC 9700 section 4.2.4: Referrer-Policy; no third party's content on pages with codes.
    let stage = Stage::new().await;
    for page in every_page(&stage).await {
        let at = &page.url;
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"), "{at}");
        assert_eq!(page.header("cache-control"), Some("no-store"), "{at}");
        assert_eq!(
            page.header("x-content-type-options"),
            Some("nosniff"),
            "{at}"
        );
        let policy = page.header("content-security-policy").unwrap_or_default();
        assert!(policy.contains("default-src 'none'"), "{at}: {policy}");
        assert!(!policy.contains("unsafe"), "{at}: {policy}");
        assert!(!policy.contains("script-src"), "{at}: {policy}");
        assert!(policy.contains("base-uri 'none'"), "{at}: {policy}");
        let html = page.html.to_lowercase();
        for never in [
            "<script",
            "javascript:",
            " onclick",
            " onload",
            " style=",
            "<iframe",
            "<object",
            "<base",
        ] {
            assert!(!html.contains(never), "{at}: {never}");
        }
        assert!(
            !html.contains("src=\"http"),
            "{at} loads from elsewhere: {html}"
        );
    }
}

#[tokio::test]
async fn cookies_keep_away_from_scripts_and_other_sites() {
    // RFC 9700 section 4.7, RFC 6265bis: HttpOnly, SameSite, no Domain.
    let (app, _) = installation().await;
    let ada: Person = app.person("Ada").await;
    let cookies = ada.visitor.set_cookies.lock().unwrap().clone();
    assert!(cookies.len() >= 2, "{cookies:?}");
    for cookie in cookies {
        for attribute in ["HttpOnly", "SameSite=Lax", "Path=/"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        assert!(!cookie.to_lowercase().contains("domain="), "{cookie}");
    }
    let answer = crate::stage::json_login(&app, &ada.email, &ada.password).await;
    let cookie = answer.header("set-cookie").unwrap().to_owned();
    for attribute in ["refreshToken=irt_", "HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
}

#[tokio::test]
async fn under_https_cookies_are_bound_to_the_host() {
    // RFC 9700 section 4.7, RFC 6265bis section 4.1.3: `__Host-` and Secure.
    let (app, _) = installation().await;
    app.stranger("Ada").await;
    let base_url = app.start_api_as("https://api.insforge.example").await;
    let visitor = Visitor::new(&base_url);
    visitor.open("/login").await;
    let cookies = visitor.set_cookies.lock().unwrap().clone();
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    assert!(cookies[0].starts_with("__Host-session="), "{cookies:?}");
    assert!(cookies[0].contains("; Secure"), "{cookies:?}");
    let answer = Answer::to(
        app.http
            .post(format!("{base_url}/auth/v1/login"))
            .json(&json!({"email": "ada@example.com", "password": cp_tests::PASSWORD})),
    )
    .await;
    let cookie = answer.header("set-cookie").unwrap().to_owned();
    answer.expect(200);
    assert!(cookie.contains("; Secure"), "{cookie}");
}
