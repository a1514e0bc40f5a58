//! Who has an account, and what its password, code or device is: learnt by asking often.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use cp_tests::{App, Page, Person, Visitor};
use futures::future::join_all;
use serde_json::json;

use crate::stage::{Stage, a_while, caller, installation, is_signed_in, json_call, json_login};

async fn log_in(visitor: &Visitor, email: &str, password: &str) -> Page {
    let page = visitor.open("/login").await;
    let to = [("email", email), ("password", password)];
    visitor.submit(&page, "/login", &to).await
}

/// What people read, without what they typed themselves.
fn words(page: &Page, typed: &str) -> String {
    page.text().replace(typed, "<typed>")
}

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
    let wrong = log_in(&app.visitor(), &ada.email, "wrong password").await;
    assert!(wrong.status >= 400, "{}", wrong.status);
    for (email, password) in [
        ("nobody@example.com", "wrong password"),
        (bob.email.as_str(), bob.password.as_str()),
        ("cleo@example.com", "wrong password"),
    ] {
        let page = log_in(&app.visitor(), email, password).await;
        assert_eq!(page.status, wrong.status, "{email}");
        assert_eq!(words(&page, email), words(&wrong, &ada.email), "{email}");
    }
    assert_eq!(
        log_in(&app.visitor(), &ada.email, &ada.password)
            .await
            .status,
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

async fn sign_up(app: &App, email: &str) -> Page {
    let visitor = app.visitor();
    let page = visitor.open("/signup").await;
    let to = [
        ("name", "Eve"),
        ("email", email),
        ("password", "a long and new one"),
    ];
    visitor.submit(&page, "/signup", &to).await
}

#[tokio::test]
async fn the_signup_page_does_not_tell_who_has_an_account() {
    // RFC 6819 section 4.3.3; OWASP: the owner is told by mail instead.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    app.mails().await;
    let new = sign_up(&app, "new@example.com").await;
    let taken = sign_up(&app, &ada.email).await;
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
        log_in(&app.visitor(), &ada.email, "a long and new one")
            .await
            .status,
        400
    );
    assert_eq!(
        log_in(&app.visitor(), &ada.email, &ada.password)
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_code_for_a_taken_address_fits_no_signup() {
    // RFC 6819 section 4.3.3: nor does the next page tell.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    let answers = async |email: &str| {
        let visitor = app.visitor();
        let page = visitor.open("/signup").await;
        let to = [
            ("name", "Eve"),
            ("email", email),
            ("password", "a long and new one"),
        ];
        let page = visitor.submit(&page, "/signup", &to).await;
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
        let page = visitor.open("/forgot-password").await;
        let page = visitor
            .submit(&page, "/forgot-password", &[("email", email)])
            .await;
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
        let page = visitor.open("/login").await;
        let form = page.form("/login");
        let token = form.fields.iter().find(|(n, _)| n == "csrf_token").unwrap();
        let to = [("csrf_token", token.1.as_str()), ("email", email)];
        let page = visitor.post("/login/code", &to).await;
        (page.status, page.url.path().to_owned(), words(&page, email))
    };
    let unknown = ask("nobody@example.com").await;
    assert_eq!(unknown.1, "/verify-email");
    assert_eq!(ask("cleo@example.com").await, unknown);
    assert_eq!(ask(&ada.email).await, unknown);
}

#[tokio::test]
async fn guessing_one_accounts_password_is_stopped() {
    // RFC 6819 section 4.4.3.6, RFC 6749 section 10.10: ten in a quarter of an hour, over processes.
    let (app, clock) = installation().await;
    let second = app.start_second_api().await;
    let ada = app.stranger("Ada").await;
    let bob = app.stranger("Bob").await;
    let mut statuses = Vec::new();
    for number in 0..14 {
        let base = if number % 2 == 0 {
            &app.base_url
        } else {
            &second
        };
        // Case is no other account.
        let email = if number % 3 == 0 {
            "ADA@example.com"
        } else {
            &ada.email
        };
        let body = json!({"email": email, "password": format!("wrong {number}")});
        let request = app.http.post(format!("{base}/auth/v1/login")).json(&body);
        statuses.push(cp_tests::Answer::to(request).await.status);
    }
    assert_eq!(statuses[..10], [401; 10]);
    assert_eq!(statuses[10..], [429; 4]);
    // The right one is not tried either, or the eleventh guess would be as good as the first.
    let answer = json_login(&app, &ada.email, &ada.password).await;
    assert!(answer.header("retry-after").is_some());
    answer.expect_code(429, "rate_limited");
    assert_eq!(
        log_in(&app.visitor(), &ada.email, &ada.password)
            .await
            .status,
        429
    );
    json_login(&app, &bob.email, &bob.password)
        .await
        .expect(200);
    clock.advance(a_while());
    json_login(&app, &ada.email, &ada.password)
        .await
        .expect(200);
}

#[tokio::test]
async fn accounts_that_do_not_exist_are_throttled_alike() {
    // RFC 6819 section 4.3.3: or the throttle would tell who has one.
    let (app, _) = installation().await;
    for number in 0..12 {
        let status = json_login(&app, "nobody@example.com", "wrong").await.status;
        assert_eq!(status, if number < 10 { 401 } else { 429 });
    }
}

#[tokio::test]
async fn many_guesses_at_once_are_no_more_than_a_few() {
    // RFC 6819 section 4.4.3.6: the count holds in a race, but for those that are being hashed at
    // this moment, in each of two processes.
    let (app, _) = installation().await;
    let second = app.start_second_api().await;
    let ada = app.stranger("Ada").await;
    let statuses = join_all((0..60).map(|number| {
        let base = if number % 2 == 0 {
            &app.base_url
        } else {
            &second
        };
        let body = json!({"email": ada.email, "password": format!("wrong {number}")});
        let request = app.http.post(format!("{base}/auth/v1/login")).json(&body);
        async { cp_tests::Answer::to(request).await.status }
    }))
    .await;
    let tried = statuses.iter().filter(|status| **status == 401).count();
    assert!((10..=14).contains(&tried), "{tried} guesses were looked at");
    assert_eq!(tried + statuses.iter().filter(|s| **s == 429).count(), 60);
}

#[tokio::test]
async fn one_address_cannot_try_many_accounts() {
    // RFC 6819 section 4.4.3.6: password spraying; 100 in a quarter of an hour.
    let (app, clock) = installation().await;
    let ada = app.stranger("Ada").await;
    let mut refused = 0;
    for round in 0..11 {
        let statuses = join_all((0..10).map(|number| {
            let email = format!("person{round}x{number}@example.com");
            let app = &app;
            async move { json_login(app, &email, "Summer2026!").await.status }
        }))
        .await;
        refused += statuses.iter().filter(|status| **status == 429).count();
    }
    assert_eq!(refused, 10);
    json_login(&app, &ada.email, &ada.password)
        .await
        .expect(429);
    clock.advance(a_while());
    json_login(&app, &ada.email, &ada.password)
        .await
        .expect(200);
}

/// Somebody who has signed up on the page and waits for the code.
async fn signing_up(app: &App, email: &str) -> (Visitor, Page) {
    let visitor = app.visitor();
    let page = visitor.open("/signup").await;
    let to = [
        ("name", "Eve"),
        ("email", email),
        ("password", "a long and new one"),
    ];
    let page = visitor.submit(&page, "/signup", &to).await;
    (visitor, page)
}

fn other_than(code: &str, number: u32) -> String {
    let code: u32 = code.parse().unwrap();
    format!("{:06}", (code + 1 + number) % 1_000_000)
}

#[tokio::test]
async fn a_mailed_code_can_be_guessed_at_five_times() {
    // RFC 6819 section 4.4.3.6 and NIST SP 800-63B section 5.1.3.2.
    for wrong in [4, 5] {
        let (app, _) = installation().await;
        let (visitor, mut page) = signing_up(&app, "eve@example.com").await;
        let code = app.newest_mail("eve@example.com").await.code();
        for number in 0..wrong {
            let guess = other_than(&code, number);
            page = visitor
                .submit(&page, "/verify-email", &[("code", &guess)])
                .await;
            assert_eq!(page.status, 400, "{}", page.html);
        }
        let page = visitor
            .submit(&page, "/verify-email", &[("code", &code)])
            .await;
        assert_eq!(
            is_signed_in(&visitor).await,
            wrong == 4,
            "after {wrong}: {}",
            page.url
        );
    }
}

#[tokio::test]
async fn thirty_guesses_at_once_are_no_more_than_five() {
    // RFC 6819 section 4.4.3.6: tries are taken before they are compared.
    let (app, _) = installation().await;
    let (_, page) = signing_up(&app, "eve@example.com").await;
    let challenge: cp_domain::people::ChallengeRef =
        page.param("challenge").unwrap().parse().unwrap();
    let code = app.newest_mail("eve@example.com").await.code();
    let second = app.another_control_plane();
    join_all((0..30).map(|number| {
        let cp = if number % 2 == 0 {
            &app.control_plane
        } else {
            &second
        };
        let guess = other_than(&code, number);
        async move {
            let caller = caller();
            cp.confirm_code(challenge, &guess, &caller)
                .await
                .unwrap_err();
        }
    }))
    .await;
    let attempts: i32 = sqlx::query_scalar("select attempts from email_challenges")
        .fetch_one(&mut app.database.connect().await)
        .await
        .unwrap();
    assert_eq!(attempts, 5, "and none of the others was compared");
    app.control_plane
        .confirm_code(challenge, &code, &caller())
        .await
        .unwrap_err();
}

#[tokio::test]
async fn new_codes_do_not_make_new_guesses_without_end() {
    // NIST SP 800-63B section 5.2.2: resending must not reset the count for ever.
    let (app, clock) = installation().await;
    let (visitor, mut page) = signing_up(&app, "eve@example.com").await;
    let mut guesses = 0;
    for round in 0..60 {
        let before = page.clone();
        for number in 0..5 {
            let tried = visitor
                .submit(
                    &before,
                    "/verify-email",
                    &[("code", &format!("{:06}", round * 5 + number))],
                )
                .await;
            match tried.status {
                400 => guesses += 1,
                429 => {}
                other => panic!("{other}: {}", tried.html),
            }
        }
        let form = before.form("/verify-email/resend");
        page = visitor
            .send(&before, &form, &[], form.buttons.first())
            .await;
        if page.status != 200 || page.forms().iter().all(|f| f.action != "/verify-email") {
            page = before;
        }
        if round % 6 == 5 {
            clock.advance(a_while());
        }
    }
    // Two hours and a half of trying: one in thousands, not one in hundreds.
    let looked_at: i64 =
        sqlx::query_scalar("select coalesce(sum(attempts), 0)::bigint from email_challenges")
            .fetch_one(&mut app.database.connect().await)
            .await
            .unwrap();
    assert!(looked_at <= 150, "{looked_at} of {guesses}");
}

#[tokio::test]
async fn a_mailed_code_lives_for_fifteen_minutes() {
    // RFC 6819 section 5.1.5.3.
    for (minutes, works) in [(14, true), (16, false)] {
        let (app, clock) = installation().await;
        let (visitor, page) = signing_up(&app, "eve@example.com").await;
        let code = app.newest_mail("eve@example.com").await.code();
        clock.advance(TimeDelta::minutes(minutes));
        visitor
            .submit(&page, "/verify-email", &[("code", &code)])
            .await;
        assert_eq!(
            is_signed_in(&visitor).await,
            works,
            "after {minutes} minutes"
        );
    }
}

#[tokio::test]
async fn user_codes_cannot_be_tried_out() {
    // RFC 8628 section 5.1: brute force of user codes.
    let stage = Stage::new().await;
    let cli = stage.app.public_relying_party().await;
    let body = json!({"client_id": cli.client_id, "scope": "user:read"});
    let started = cli
        .post("/api/oauth/v1/device_authorization", &body)
        .await
        .expect(200);
    let user_code = started["user_code"].as_str().unwrap();
    let visitor = &stage.ada.visitor;
    let first = visitor.open("/device").await;
    let letters = b"BCDFGHJKLMNPQRSTVWXZ";
    let mut tried = 0;
    loop {
        let guess: String = (0..8)
            .map(|at| char::from(letters[(tried * 7 + at * 3) % letters.len()]))
            .collect();
        let page = visitor
            .submit(&first, "/device", &[("user_code", &guess)])
            .await;
        if page.status == 429 {
            break;
        }
        assert_eq!(page.status, 400, "{}", page.html);
        tried += 1;
        assert!(tried <= 60, "no end of it");
    }
    assert!(tried >= 3, "people mistype");
    let page = visitor
        .submit(&first, "/device", &[("user_code", user_code)])
        .await;
    assert_eq!(page.status, 429, "nor is the right one looked at");
    // Nor by going straight to the decision.
    let form = first.form("/device");
    let token = form.fields.iter().find(|(n, _)| n == "csrf_token").unwrap();
    let fields = [
        ("csrf_token", token.1.as_str()),
        ("user_code", user_code),
        ("decision", "approve"),
    ];
    let page = visitor.post("/device/decision", &fields).await;
    assert_eq!(page.status, 429, "{}", page.html);
    stage.clock.advance(a_while());
    let started = cli
        .post("/api/oauth/v1/device_authorization", &body)
        .await
        .expect(200);
    let fields = [("user_code", started["user_code"].as_str().unwrap())];
    let page = visitor.submit(&first, "/device", &fields).await;
    assert_eq!(page.status, 200, "{}", page.html);
}

#[tokio::test]
async fn nobody_can_be_flooded_with_mails() {
    // RFC 6819 section 4.4.1.11 (exhaustion), turned on a person's mailbox.
    let (app, clock) = installation().await;
    let ada: Person = app.stranger("Ada").await;
    app.mails().await;
    let ask = async || {
        let visitor = app.visitor();
        let page = visitor.open("/forgot-password").await;
        visitor
            .submit(&page, "/forgot-password", &[("email", &ada.email)])
            .await
            .status
    };
    for _ in 0..20 {
        ask().await;
    }
    let sent = app.mails().await.len();
    assert!((1..=6).contains(&sent), "{sent} mails");
    clock.advance(a_while());
    ask().await;
    assert_eq!(app.mails().await.len(), 1);
}

#[tokio::test]
async fn codes_of_the_provider_are_long() {
    // RFC 6749 section 10.10: 2^-160 at least; here 256 bits of each.
    let stage = Stage::new().await;
    let one = stage.code().await;
    let two = stage.code().await;
    assert_ne!(one, two);
    for (secret, prefix) in [(one.as_str(), "iac_"), (two.as_str(), "iac_")] {
        let body = secret.strip_prefix(prefix).unwrap();
        assert!(body.len() >= 43, "{}", body.len());
    }
    let tokens = stage.tokens().await;
    assert!(tokens.refresh.strip_prefix("irt_").unwrap().len() >= 43);
}
