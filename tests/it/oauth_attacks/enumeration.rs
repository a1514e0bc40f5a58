//! Who has an account: told by no answer, and by no time that an answer takes.

use std::time::{Duration, Instant};

use cp_tests::{App, Page, Visitor};
use serde_json::json;

use super::{sign_up, words};
use crate::stage::{a_while, caller, installation, json_call, json_login};

#[tokio::test]
async fn the_login_page_does_not_tell_who_has_an_account() {
    // RFC 6819 section 4.3.3, contract oauth.md: the same status and text.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    let bob = app.stranger("Bob").await;
    app.control_plane
        .disable_user(&bob.email, true)
        .await
        .unwrap();
    let partner = app.partner().await;
    partner.connect_user("cleo@example.com").await;
    let wrong = app.visitor().log_in(&ada.email, "wrong password").await;
    assert!(wrong.status >= 400, "{}", wrong.status);
    for (email, password) in [
        ("nobody@example.com", "wrong password"),
        (bob.email.as_str(), bob.password.as_str()),
        ("cleo@example.com", "wrong password"),
    ] {
        let page = app.visitor().log_in(email, password).await;
        assert_eq!(page.status, wrong.status, "{email}");
        assert_eq!(words(&page, email), words(&wrong, &ada.email), "{email}");
    }
    assert_eq!(
        app.visitor().log_in(&ada.email, &ada.password).await.status,
        200
    );
}

#[tokio::test]
async fn the_login_interface_does_not_tell_who_has_an_account() {
    // RFC 6819 section 4.3.3: the same for programs.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    let bob = app.stranger("Bob").await;
    app.control_plane
        .disable_user(&bob.email, true)
        .await
        .unwrap();
    let strip = |mut body: serde_json::Value| {
        body.as_object_mut().unwrap().remove("requestId");
        body
    };
    let wrong = strip(
        json_login(&app, &ada.email, "wrong password")
            .await
            .expect(401),
    );
    for (email, password) in [
        ("nobody@example.com", "x"),
        (bob.email.as_str(), &bob.password),
    ] {
        let body = strip(json_login(&app, email, password).await.expect(401));
        assert_eq!(body, wrong, "{email}");
    }
    json_login(&app, &ada.email, &ada.password)
        .await
        .expect(200);
}

async fn timed(app: &App, email: &str, password: &str) -> Duration {
    let started = Instant::now();
    json_login(app, email, password).await.expect(401);
    started.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
async fn the_time_of_a_login_does_not_tell_who_has_an_account() {
    // RFC 6819 section 4.3.3: argon2 runs in every case. Without that the unknown would be an
    // order of magnitude faster; the bound leaves room for a busy machine.
    let (app, clock) = installation().await;
    let ada = app.stranger("Ada").await;
    let bob = app.stranger("Bob").await;
    app.control_plane
        .disable_user(&bob.email, true)
        .await
        .unwrap();
    app.partner().await.connect_user("cleo@example.com").await;
    let mut times = [const { Vec::new() }; 4];
    for round in 0..15 {
        times[0].push(timed(&app, &ada.email, "wrong password").await);
        times[1].push(timed(&app, "nobody@example.com", "wrong password").await);
        times[2].push(timed(&app, &bob.email, "wrong password").await);
        times[3].push(timed(&app, "cleo@example.com", "wrong password").await);
        if round % 5 == 4 {
            clock.advance(a_while());
        }
    }
    let [known, unknown, disabled, without] = times.map(median);
    for (who, other) in [
        ("unknown", unknown),
        ("disabled", disabled),
        ("without password", without),
    ] {
        let factor = known.as_secs_f64() / other.as_secs_f64();
        assert!(
            (0.5..2.0).contains(&factor),
            "{who}: {other:?} against {known:?}"
        );
    }
}

#[tokio::test]
async fn the_time_of_asking_for_a_mail_does_not_tell_who_has_an_account() {
    // RFC 6819 section 4.3.3: writing a mail takes time, which is not to be seen.
    let (app, clock) = installation().await;
    let ada = app.stranger("Ada").await;
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..9 {
        for (at, email) in [(0, ada.email.as_str()), (1, "nobody@example.com")] {
            let started = Instant::now();
            let cp = &app.control_plane;
            cp.request_password_reset(email, &caller()).await.unwrap();
            times[at].push(started.elapsed());
            let started = Instant::now();
            cp.send_verification(email, &caller()).await.unwrap();
            times[at + 2].push(started.elapsed());
        }
        clock.advance(a_while());
    }
    let [reset, no_reset, code, no_code] = times.map(median);
    for (known, unknown) in [(reset, no_reset), (code, no_code)] {
        let factor = known.as_secs_f64() / unknown.as_secs_f64();
        assert!(
            (0.8..1.25).contains(&factor),
            "{known:?} against {unknown:?}"
        );
    }
}

#[tokio::test]
async fn the_signup_page_does_not_tell_who_has_an_account() {
    // RFC 6819 section 4.3.3; OWASP: the owner is told by mail instead.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    app.mails().await;
    let (_, new) = sign_up(&app, "new@example.com").await;
    let (_, taken) = sign_up(&app, &ada.email).await;
    assert_eq!(taken.status, new.status);
    assert_eq!(taken.url.path(), new.url.path());
    assert_eq!(words(&taken, &ada.email), words(&new, "new@example.com"));
    let names = |page: &Page| {
        page.url
            .query_pairs()
            .map(|(n, _)| n.into_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&taken), names(&new));
    let mails = app.mails().await;
    let to_ada = mails
        .iter()
        .find(|m| m.to == ada.email)
        .expect("she is told");
    assert!(
        to_ada.text.to_lowercase().contains("already"),
        "{}",
        to_ada.text
    );
    // Nothing of hers was touched.
    assert_eq!(
        app.visitor()
            .log_in(&ada.email, "a long and new one")
            .await
            .status,
        400
    );
    assert_eq!(
        app.visitor().log_in(&ada.email, &ada.password).await.status,
        200
    );
}

#[tokio::test]
async fn a_code_for_a_taken_address_fits_no_signup() {
    // RFC 6819 section 4.3.3: nor does the next page tell.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    let answers = async |email: &str| {
        let (visitor, page) = sign_up(&app, email).await;
        let page = visitor
            .submit(&page, "/verify-email", &[("code", "000000")])
            .await;
        (page.status, words(&page, email))
    };
    assert_eq!(answers("new@example.com").await, answers(&ada.email).await);
}

#[tokio::test]
async fn taken_addresses_cannot_be_collected() {
    // RFC 6819 section 4.3.3: the JSON signup has to say 409, so it is throttled per address.
    let (app, clock) = installation().await;
    let ada = app.stranger("Ada").await;
    let body =
        |email: &str| json!({"name": "Eve", "email": email, "password": "a long and new one"});
    json_call(&app, "/auth/v1/signup", &body(&ada.email))
        .await
        .expect_code(409, "email_taken");
    let mut asked = 1;
    loop {
        let email = format!("someone{asked}@example.com");
        let answer = json_call(&app, "/auth/v1/signup", &body(&email)).await;
        if answer.status == 429 {
            assert!(answer.header("retry-after").is_some());
            break;
        }
        answer.expect(201);
        asked += 1;
        assert!(asked <= 60, "no end of it");
    }
    json_call(&app, "/auth/v1/signup", &body(&ada.email))
        .await
        .expect(429);
    clock.advance(a_while());
    json_call(&app, "/auth/v1/signup", &body(&ada.email))
        .await
        .expect(409);
}

#[tokio::test]
async fn forgotten_passwords_do_not_tell_who_has_an_account() {
    // RFC 6819 section 4.3.3: the same page, and nearly the same time.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    let ask = async |email: &str| {
        let visitor = app.visitor();
        let page = visitor.forget_password(email).await;
        (page.status, page.url.path().to_owned(), words(&page, email))
    };
    let known = ask(&ada.email).await;
    assert_eq!(known, ask("nobody@example.com").await);
    assert_eq!(known.0, 200);
    let mails = app.mails().await;
    assert_eq!(mails.len(), 1, "to her alone");
    assert_eq!(mails[0].to, ada.email);
}

#[tokio::test]
async fn codes_for_signing_in_do_not_tell_who_has_an_account() {
    // RFC 6819 section 4.3.3: "mail me a code instead".
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    app.partner().await.connect_user("cleo@example.com").await;
    app.mails().await;
    let ask = async |email: &str| {
        let visitor = app.visitor();
        let page = visitor.ask_for_code(email).await;
        (page.status, page.url.path().to_owned(), words(&page, email))
    };
    let unknown = ask("nobody@example.com").await;
    assert_eq!(unknown.1, "/verify-email");
    assert_eq!(ask("cleo@example.com").await, unknown);
    assert_eq!(ask(&ada.email).await, unknown);
}

/// Presses "Mail me a new code" until that is refused; gives what was shown each time.
async fn press_until_refused(visitor: &Visitor, first: Page, email: &str) -> Vec<(u16, String)> {
    let mut page = first;
    let mut shown = Vec::new();
    loop {
        // Waiting times and request ids are no two times the same.
        let text = words(&page, email).replace(|c: char| c.is_ascii_digit(), "#");
        let text = text.split("req_").next().unwrap_or_default();
        shown.push((page.status, format!("{} {text}", page.url.path())));
        if page.status == 429 {
            assert!(page.header("retry-after").is_some());
            return shown;
        }
        assert!(shown.len() <= 20, "no end of it");
        page = visitor
            .press(&page, "/verify-email/resend", "Mail me a new code", &[])
            .await;
    }
}

#[tokio::test]
async fn a_code_sent_again_after_signing_up_does_not_tell_who_has_an_account() {
    // RFC 6819 section 4.3.3: how often one may ask is an answer, too.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    let ask = async |email: &str| {
        let (visitor, page) = sign_up(&app, email).await;
        press_until_refused(&visitor, page, email).await
    };
    let new = ask("new@example.com").await;
    assert!(new.len() > 3, "people lose mails: {new:?}");
    assert_eq!(ask(&ada.email).await, new);
}

#[tokio::test]
async fn a_code_sent_again_for_signing_in_does_not_tell_who_has_an_account() {
    // RFC 6819 section 4.3.3: the same for codes in place of a password.
    let (app, clock) = installation().await;
    let ada = app.stranger("Ada").await;
    app.partner().await.connect_user("cleo@example.com").await;
    sign_up(&app, "eve@example.com").await;
    clock.advance(a_while());
    let ask = async |email: &str| {
        let visitor = app.visitor();
        let page = visitor.ask_for_code(email).await;
        press_until_refused(&visitor, page, email).await
    };
    let unknown = ask("nobody@example.com").await;
    assert!(unknown.len() > 3, "people lose mails: {unknown:?}");
    clock.advance(a_while());
    for email in ["eve@example.com", "cleo@example.com", &ada.email] {
        assert_eq!(ask(email).await, unknown, "{email}");
    }
}
