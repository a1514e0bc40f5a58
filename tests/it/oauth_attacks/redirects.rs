//! Where people are sent: only to what was registered, character by character, and to our own
//! pages.

use cp_model::{CLI_CLIENT_ID, ClientKind};
use cp_tests::{App, REDIRECT_URI, Visitor};

use crate::stage::{Stage, assert_is_error_page, installation, refused};

/// The registered URI is `https://app.example/callback`.
async fn refuses(uris: &[&str]) {
    let stage = Stage::new().await;
    assert!(stage.notes.authorize(&stage.ada.visitor).await.is_elsewhere);
    for uri in uris {
        assert_ne!(*uri, REDIRECT_URI);
        stage.refuses_on_a_page(&[("redirect_uri", uri)]).await;
    }
}

#[tokio::test]
async fn a_redirect_uri_with_more_after_it_is_refused() {
    // RFC 9700 section 4.1.1, RFC 6819 section 4.1.5: matching by prefix.
    refuses(&[
        "https://app.example/callback2",
        "https://app.example/callback/",
        "https://app.example/callback/evil",
        "https://app.example/callback.evil.example",
        "https://app.example/callback;evil",
    ])
    .await;
}

#[tokio::test]
async fn a_redirect_uri_with_less_after_it_is_refused() {
    // RFC 9700 section 4.1.1: matching by suffix, or by host alone.
    refuses(&[
        "https://app.example",
        "https://app.example/",
        "https://app.example/callbac",
        "app.example/callback",
        "//app.example/callback",
        "/callback",
    ])
    .await;
}

#[tokio::test]
async fn a_redirect_uri_on_a_host_that_looks_alike_is_refused() {
    // RFC 9700 section 4.1.1: patterns on the host's name.
    refuses(&[
        "https://evilapp.example/callback",
        "https://evil.app.example/callback",
        "https://app.example.evil.example/callback",
        "https://evil.example/app.example/callback",
        "https://evil.example/?https://app.example/callback",
        "https://app.example./callback",
        "https://\u{430}pp.example/callback",
    ])
    .await;
}

#[tokio::test]
async fn a_redirect_uri_with_a_user_name_is_refused() {
    // RFC 9700 section 4.1.3: what stands before `@` is no host.
    refuses(&[
        "https://app.example@evil.example/callback",
        "https://app.example:443@evil.example/callback",
        "https://user@app.example/callback",
        "https://app.example%40evil.example/callback",
        "https://evil.example\\@app.example/callback",
    ])
    .await;
}

#[tokio::test]
async fn a_redirect_uri_in_another_encoding_is_refused() {
    // RFC 9700 section 4.1.3: simple string comparison (RFC 3986 section 6.2.1), no decoding.
    refuses(&[
        "https://app.example/%63allback",
        "https://app.example/call%62ack",
        "https://app.example%2Fcallback",
        "https%3A%2F%2Fapp.example%2Fcallback",
        "https://app%2Eexample/callback",
    ])
    .await;
}

#[tokio::test]
async fn a_redirect_uri_with_a_fragment_is_refused() {
    // RFC 6749 section 3.1.2, RFC 9700 section 4.1.2: the fragment is kept over redirects.
    refuses(&[
        "https://app.example/callback#",
        "https://app.example/callback#evil",
        "https://app.example/callback%23evil",
    ])
    .await;
}

#[tokio::test]
async fn a_redirect_uri_on_another_port_is_refused() {
    // RFC 9700 section 4.1.3: only loopback addresses may vary their port.
    refuses(&[
        "https://app.example:443/callback",
        "https://app.example:8443/callback",
        "https://app.example:/callback",
    ])
    .await;
}

#[tokio::test]
async fn a_redirect_uri_in_another_case_is_refused() {
    // RFC 9700 section 4.1.3: exact string matching.
    refuses(&[
        "HTTPS://app.example/callback",
        "https://APP.example/callback",
        "https://app.example/Callback",
        "https://app.example/CALLBACK",
    ])
    .await;
}

#[tokio::test]
async fn a_redirect_uri_that_walks_up_is_refused() {
    // RFC 9700 section 4.1.1: path traversal to an open redirector on the client's host.
    refuses(&[
        "https://app.example/callback/../evil",
        "https://app.example/callback/..%2fevil",
        "https://app.example/callback/%2e%2e/evil",
        "https://app.example/x/../callback",
        "https://app.example/./callback",
        "https://app.example//callback",
        "https://app.example\\callback",
    ])
    .await;
}

#[tokio::test]
async fn a_redirect_uri_with_another_query_is_refused() {
    // RFC 9700 section 4.1.3: the query is part of the string.
    refuses(&[
        "https://app.example/callback?",
        "https://app.example/callback?next=https://evil.example",
        "https://app.example/callback&x=1",
    ])
    .await;
}

#[tokio::test]
async fn a_redirect_uri_of_another_scheme_is_refused() {
    // RFC 9700 section 2.6, RFC 6819 section 4.1.5: no downgrade, no scripts.
    refuses(&[
        "http://app.example/callback",
        "javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:app.example/callback",
        "file:///callback",
    ])
    .await;
}

#[tokio::test]
async fn a_redirect_uri_with_blanks_around_it_is_refused() {
    // RFC 9700 section 4.1.3: nothing is trimmed.
    refuses(&[
        " https://app.example/callback",
        "https://app.example/callback ",
        "https://app.example/callback\n",
        "https://app.example/callback\t",
        "https://app.example/call\tback",
        "https://app.example/callback\0",
    ])
    .await;
}

#[tokio::test]
async fn a_missing_redirect_uri_is_not_guessed() {
    // RFC 6749 section 3.1.2.3: the public document requires it, even with one registered.
    let stage = Stage::new().await;
    stage.refuses_on_a_page(&[("redirect_uri", "")]).await;
    let url = stage.notes.authorize_url_with(&[("redirect_uri", "")]);
    let page = stage
        .ada
        .visitor
        .look(&format!("{url}&redirect_uri="))
        .await;
    assert_is_error_page(&page, "an empty one");
}

#[tokio::test]
async fn another_clients_redirect_uri_is_refused() {
    // RFC 9700 section 4.1.3: what is registered is registered for one client.
    let stage = Stage::new().await;
    let other = stage
        .app
        .relying_party_with(ClientKind::Public, |new| {
            new.redirect_uris = vec!["https://other.example/callback".into()];
        })
        .await;
    stage
        .refuses_on_a_page(&[("redirect_uri", &other.redirect_uri)])
        .await;
    stage
        .refuses_on_a_page(&[("client_id", &other.client_id)])
        .await;
}

#[tokio::test]
async fn an_unknown_client_is_told_to_the_person_and_nobody_else() {
    // RFC 6749 section 4.1.2.1, RFC 9700 section 4.11.2: never redirect for an unknown client.
    let stage = Stage::new().await;
    for client_id in ["clf_nobody", "nonsense", "clf_' or 1=1--", "../admin"] {
        stage.refuses_on_a_page(&[("client_id", client_id)]).await;
    }
    stage.refuses_on_a_page(&[("client_id", "")]).await;
}

#[tokio::test]
async fn other_errors_do_not_make_an_open_redirector_of_us() {
    // RFC 9700 section 4.11.2: the URI is checked before anything is redirected, errors included.
    let stage = Stage::new().await;
    for changes in [
        ("scope", "everything"),
        ("response_type", "token"),
        ("code_challenge", ""),
        ("prompt", "none"),
        ("state", ""),
    ] {
        stage
            .refuses_on_a_page(&[("redirect_uri", "https://evil.example/"), changes])
            .await;
    }
}

async fn command_line_client(app: &App, redirect_uri: &str) -> (Visitor, String) {
    let mut cli = app.public_relying_party().await;
    cli.client_id = CLI_CLIENT_ID.into();
    cli.redirect_uri = redirect_uri.into();
    let ada = app.person("Ada").await;
    (ada.visitor, cli.authorize_url())
}

#[tokio::test]
async fn localhost_and_its_likes_are_no_loopback_address() {
    // RFC 8252 section 8.3: names may resolve to somebody else's machine.
    let (app, _) = installation().await;
    let (visitor, url) = command_line_client(&app, "http://127.0.0.1/callback").await;
    assert_eq!(visitor.look(&url).await.status, 200, "the consent page");
    let cli = app.public_relying_party().await;
    for uri in [
        "http://localhost/callback",
        "http://localhost:4711/callback",
        "http://127.0.0.1.evil.example/callback",
        "http://127.0.0.1:4711@evil.example/callback",
        "http://127.0.0.1:4711.evil.example/callback",
        "http://127.0.0.1:x/callback",
        "http://127.0.0.1:/callback",
        "http://127.0.0.1:99999/callback",
        "http://127.1/callback",
        "http://2130706433/callback",
        "http://0x7f000001/callback",
        "http://0.0.0.0/callback",
        "http://[::]/callback",
        "http://[::ffff:127.0.0.1]/callback",
        "https://127.0.0.1:4711/callback",
        "http://127.0.0.1:4711/other",
        "http://127.0.0.1:4711/callback?x=1",
        "http://127.0.0.1:4711/callback#x",
        "http://user@127.0.0.1:4711/callback",
    ] {
        let url = cli.authorize_url_with(&[("client_id", CLI_CLIENT_ID), ("redirect_uri", uri)]);
        assert_is_error_page(&visitor.look(&url).await, uri);
    }
}

#[tokio::test]
async fn a_loopback_code_belongs_to_the_port_that_asked() {
    // RFC 8252 sections 7.3 and 8.1: any port may ask, but another program's port gets nothing.
    let (app, _) = installation().await;
    let ada = app.person("Ada").await;
    let mut cli = app.public_relying_party().await;
    cli.client_id = CLI_CLIENT_ID.into();
    for uri in [
        "http://127.0.0.1:4711/callback",
        "http://127.0.0.1:1/callback",
        "http://[::1]:65535/callback",
    ] {
        cli.redirect_uri = uri.into();
        let page = cli.authorize(&ada.visitor).await;
        assert!(page.url.as_str().starts_with(uri), "{}", page.url);
        let code = page.param("code").expect("a code");
        let mut thief = cli.clone();
        thief.redirect_uri = "http://127.0.0.1:9999/callback".into();
        refused(thief.exchange(&code).await, 400, "invalid_grant");
        let code = cli.code_for(&ada.visitor).await;
        cli.exchange(&code).await.expect(200);
    }
}

#[tokio::test]
async fn a_clients_own_query_stays_in_its_redirect_uri() {
    // RFC 6749 section 3.1.2: kept, and nothing of ours is overwritten by it.
    let (app, _) = installation().await;
    let ada = app.person("Ada").await;
    let tenants = app
        .relying_party_with(ClientKind::Confidential, |new| {
            new.redirect_uris = vec!["https://app.example/cb?tenant=7&x=%2F".into()];
        })
        .await;
    let page = tenants.authorize(&ada.visitor).await;
    let url = page.url.as_str();
    assert!(
        url.starts_with("https://app.example/cb?tenant=7&x=%2F&"),
        "{url}"
    );
    let code = page.param("code").expect("a code");
    tenants.exchange(&code).await.expect(200);
}

/// What strangers write into links, hoping that we send people there.
const ELSEWHERE: &[&str] = &[
    "https://evil.example/",
    "http:evil.example",
    "https:/evil.example",
    "//evil.example/",
    "///evil.example/",
    "////evil.example/",
    "/\\evil.example/",
    "\\/evil.example/",
    "\\\\evil.example/",
    "/\t/evil.example/",
    "/\n/evil.example/",
    "\t//evil.example/",
    " //evil.example/",
    "/%09/evil.example",
    "/%5cevil.example",
    "/%2f%2fevil.example",
    "%2f%2fevil.example",
    "%68ttps://evil.example/",
    "@evil.example",
    ".evil.example",
    ":80@evil.example/",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,x",
    "/..//evil.example",
    "/.//evil.example/",
    "/settings/..//evil.example",
    "\u{2044}\u{2044}evil.example",
    "/\u{ff0f}evil.example",
    "https://app.example@evil.example/",
    "/\r\nLocation: https://evil.example/",
];

#[tokio::test]
async fn signing_in_returns_to_our_own_pages_only() {
    // RFC 9700 section 4.11: the authorization server as an open redirector, by `return_to`.
    let (app, clock) = installation().await;
    let ada = app.stranger("Ada").await;
    let login = async |return_to: &str| {
        let visitor = app.visitor();
        let query = crate::stage::form(&[("return_to", return_to)]);
        let page = visitor.open(&format!("/login?{query}")).await;
        assert_eq!(page.status, 200, "{return_to:?}");
        let to = [("email", ada.email.as_str()), ("password", &ada.password)];
        let page = visitor.submit(&page, "/login", &to).await;
        // Whoever is signed in is sent on at once: the other way to the same place.
        let again = visitor.open(&format!("/login?{query}")).await;
        (page, again)
    };
    let (page, _) = login("/device").await;
    assert_eq!(page.url.path(), "/device", "a path of ours is returned to");
    for (count, to) in ELSEWHERE.iter().enumerate() {
        for page in <[cp_tests::Page; 2]>::from(login(to).await) {
            assert!(!page.is_elsewhere, "{to:?} led to {}", page.url);
            assert!(page.status < 500, "{to:?}");
        }
        if count % 8 == 7 {
            clock.advance(crate::stage::a_while());
        }
    }
}

#[tokio::test]
async fn a_form_sent_with_a_foreign_return_to_stays_with_us() {
    // RFC 9700 section 4.11: the hidden field is as much a stranger's as the link.
    let (app, clock) = installation().await;
    let ada = app.stranger("Ada").await;
    for (count, to) in ELSEWHERE.iter().enumerate() {
        let visitor = app.visitor();
        let page = visitor.open("/login").await;
        let fields = [
            ("email", ada.email.as_str()),
            ("password", &ada.password),
            ("return_to", to),
        ];
        let page = visitor.submit(&page, "/login", &fields).await;
        assert!(!page.is_elsewhere, "{to:?} led to {}", page.url);
        for path in ["/logout", "/signup", "/verify-email", "/device"] {
            let query = crate::stage::form(&[("return_to", to), ("user_code", "x")]);
            let page = visitor.open(&format!("{path}?{query}")).await;
            assert!(!page.is_elsewhere, "{path} {to:?} led to {}", page.url);
        }
        if count % 8 == 7 {
            clock.advance(crate::stage::a_while());
        }
    }
}

#[tokio::test]
async fn redirects_do_not_carry_a_form_along() {
    // RFC 9700 section 4.12: a 307 would send the password on to the application.
    let stage = Stage::new().await;
    let page = stage.ada.visitor.open(&stage.notes.authorize_url()).await;
    let consent = stage
        .ada
        .visitor
        .press(&page, "/consent", "Allow", &[])
        .await;
    assert!(consent.is_elsewhere);
    assert!(matches!(consent.status, 302 | 303), "{}", consent.status);
    let visitor = stage.app.visitor();
    let look = visitor.look(&stage.notes.authorize_url()).await;
    assert!(matches!(look.status, 302 | 303), "{}", look.status);
    let page = visitor.open("/login").await;
    let cookies = visitor.cookies();
    let token = page.form("/login");
    let mut fields: Vec<(&str, &str)> = token
        .fields
        .iter()
        .filter(|(name, _)| name != "email" && name != "password")
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    fields.extend([
        ("email", stage.ada.email.as_str()),
        ("password", &stage.ada.password),
    ]);
    let origin = [("origin", stage.app.base_url.as_str())];
    let answer =
        crate::stage::send_form(&stage.app.base_url, "/login", &cookies, &origin, &fields).await;
    assert_eq!(answer.status, 303, "{}", answer.text);
}

#[tokio::test]
async fn every_answer_to_the_application_says_who_we_are() {
    // RFC 9700 section 4.4 (mix-up), RFC 9207: `iss` with codes and with errors, and it is the
    // issuer of the metadata document.
    let stage = Stage::new().await;
    let url = format!(
        "{}/.well-known/oauth-authorization-server",
        stage.app.base_url
    );
    let metadata = cp_tests::Answer::to(stage.app.http.get(url))
        .await
        .expect(200);
    let issuer = metadata["issuer"].as_str().unwrap();
    assert_eq!(issuer, stage.app.base_url);
    assert_eq!(
        metadata["authorization_response_iss_parameter_supported"],
        true
    );
    let page = stage.notes.authorize(&stage.ada.visitor).await;
    assert_eq!(page.param("iss").as_deref(), Some(issuer));
    assert!(page.param("code").is_some());
    let page = stage
        .refuses_by_redirect(&[("scope", "all")], "invalid_scope")
        .await;
    assert_eq!(page.param("iss").as_deref(), Some(issuer));
    let given = page.url.query_pairs().filter(|(name, _)| name == "iss");
    assert_eq!(given.count(), 1);
}

#[tokio::test]
async fn an_issuer_sent_along_changes_nothing() {
    // RFC 9207 section 4: what we say we are is never what the request says.
    let stage = Stage::new().await;
    let url = stage
        .notes
        .authorize_url_with(&[("iss", "https://evil.example")]);
    let page = stage.ada.visitor.open(&url).await;
    let page = stage
        .ada
        .visitor
        .press(&page, "/consent", "Allow", &[])
        .await;
    assert_eq!(page.param("iss"), Some(stage.app.base_url.clone()));
    assert!(!page.url.as_str().contains("evil"), "{}", page.url);
}
