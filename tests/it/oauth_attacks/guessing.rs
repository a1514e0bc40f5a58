//! What the password, code or device of an account is: learnt by asking often.

use std::net::IpAddr;

use chrono::TimeDelta;
use cp_domain::{Caller, DomainError};
use cp_tests::{Answer, Person};
use futures::future::join_all;
use secrecy::SecretString;
use serde_json::json;

use super::sign_up;
use crate::stage::{Stage, a_while, caller, installation, is_signed_in, json_call, json_login};

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
        statuses.push(Answer::to(request).await.status);
    }
    assert_eq!(statuses[..10], [401; 10]);
    assert_eq!(statuses[10..], [429; 4]);
    // The right one is not tried either, or the eleventh guess would be as good as the first.
    let answer = json_login(&app, &ada.email, &ada.password).await;
    assert!(answer.header("retry-after").is_some());
    answer.expect_code(429, "rate_limited");
    assert_eq!(
        app.visitor().log_in(&ada.email, &ada.password).await.status,
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
async fn guessing_from_one_place_does_not_lock_the_person_out() {
    // RFC 6819 section 4.4.3.6, turned on the person: ten from one network, a hundred from all.
    let (app, clock) = installation().await;
    let ada = app.stranger("Ada").await;
    let log_in = async |place: u8, password: &str| {
        let by = Caller {
            address: Some(IpAddr::from([192, 0, 2, place])),
            ..caller()
        };
        let password = SecretString::from(password);
        app.control_plane.log_in(&ada.email, &password, &by).await
    };
    // Which limit refuses.
    let limit_at = async |place: u8| match log_in(place, &ada.password).await {
        Err(DomainError::RateLimited { limit, .. }) => Some(limit),
        Err(error) => panic!("{error}"),
        Ok(_) => None,
    };
    for place in 1..=10 {
        assert_eq!(limit_at(100).await, None, "at home, before place {place}");
        for _ in 0..10 {
            let wrong = log_in(place, "wrong password").await;
            assert!(matches!(wrong, Err(DomainError::Unauthorized)));
        }
        assert_eq!(limit_at(place).await, Some(10), "place {place}");
    }
    assert_eq!(limit_at(100).await, Some(100));
    clock.advance(a_while());
    assert_eq!(limit_at(100).await, None);
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
        async { Answer::to(request).await.status }
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

fn other_than(code: &str, number: u32) -> String {
    let code: u32 = code.parse().unwrap();
    format!("{:06}", (code + 1 + number) % 1_000_000)
}

#[tokio::test]
async fn a_mailed_code_can_be_guessed_at_five_times() {
    // RFC 6819 section 4.4.3.6 and NIST SP 800-63B section 5.1.3.2.
    for wrong in [4, 5] {
        let (app, _) = installation().await;
        let (visitor, mut page) = sign_up(&app, "eve@example.com").await;
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
    let (_, page) = sign_up(&app, "eve@example.com").await;
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
    let (visitor, mut page) = sign_up(&app, "eve@example.com").await;
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
        let (visitor, page) = sign_up(&app, "eve@example.com").await;
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
    let started = cli.start_device().await;
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
    let token = first.csrf_token("/device");
    let fields = [
        ("csrf_token", token.as_str()),
        ("user_code", user_code),
        ("decision", "approve"),
    ];
    let page = visitor.post("/device/decision", &fields).await;
    assert_eq!(page.status, 429, "{}", page.html);
    stage.clock.advance(a_while());
    let started = cli.start_device().await;
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
        visitor.forget_password(&ada.email).await.status
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
async fn mails_with_codes_do_not_use_up_the_way_back_in() {
    // RFC 6819 section 4.4.1.11: whoever asks for one kind of mail keeps nobody from the other.
    for resets_first in [true, false] {
        let (app, _) = installation().await;
        app.partner().await.connect_user("ada@example.com").await;
        let ask = async |for_reset: bool| {
            let visitor = app.visitor();
            let page = if for_reset {
                visitor.forget_password("ada@example.com").await
            } else {
                visitor.ask_for_code("ada@example.com").await
            };
            page.status
        };
        for number in 0..7 {
            let status = if number < 5 { 200 } else { 429 };
            assert_eq!(ask(resets_first).await, status, "number {number}");
        }
        app.mails().await;
        assert_eq!(ask(!resets_first).await, 200);
        let link = app.newest_mail("ada@example.com").await.link();
        let path = if resets_first {
            "/verify-email?"
        } else {
            "/reset-password?"
        };
        assert!(link.contains(path), "{link}");
    }
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

#[tokio::test]
async fn common_and_short_passwords_are_refused() {
    // NIST SP 800-63B section 5.1.1.2, contract oauth.md: at least 8, and none of the common ones.
    let (app, _) = installation().await;
    for password in [
        "",
        "short",
        "1234567",
        "password",
        "12345678",
        "PASSWORD",
        "qwertyui",
        "eve@example.com",
    ] {
        let body = json!({"name": "Eve", "email": "eve@example.com", "password": password});
        let answer = json_call(&app, "/auth/v1/signup", &body).await;
        let text = answer.text.clone();
        answer.expect(400);
        assert!(
            password.is_empty() || !text.contains(&format!("\"{password}\"")),
            "{text}"
        );
    }
    let endless = "x".repeat(5000);
    let body = json!({"name": "Eve", "email": "eve@example.com", "password": endless});
    json_call(&app, "/auth/v1/signup", &body).await.expect(400);
    // A long one of any characters is fine, as is a blank in it.
    let long = "correct horse \u{1f40e} battery staple and so on until nobody remembers it";
    let body = json!({"name": "Eve", "email": "eve@example.com", "password": long});
    json_call(&app, "/auth/v1/signup", &body).await.expect(201);
    json_login(&app, "eve@example.com", &long[..long.len() - 1])
        .await
        .expect(401);
    json_login(&app, "eve@example.com", long)
        .await
        .expect_code(403, "email_not_verified");
}

#[tokio::test]
async fn a_forwarded_address_is_not_believed() {
    // RFC 9700 section 4.13: without a proxy of ours in front, `X-Forwarded-For` is a stranger's.
    let (app, _) = installation().await;
    let ada = app.stranger("Ada").await;
    for number in 0..12 {
        let answer = Answer::to(
            app.http
                .post(format!("{}/auth/v1/login", app.base_url))
                .header("x-forwarded-for", format!("10.0.0.{number}"))
                .json(&json!({"email": ada.email, "password": "wrong"})),
        )
        .await;
        assert_eq!(answer.status, if number < 10 { 401 } else { 429 });
    }
    let visitor = app.visitor();
    let page = visitor.open("/login").await;
    crate::stage::send_form(
        &app.base_url,
        "/login",
        &visitor.cookies(),
        &[("x-forwarded-for", "6.6.6.6")],
        &[
            ("csrf_token", &page.csrf_token("/login")),
            ("email", "bob@example.com"),
            ("password", "x"),
        ],
    )
    .await;
    let bob = app.person("Bob").await;
    let page = bob.visitor.open("/settings").await;
    assert!(!page.text().contains("6.6.6.6"));
    page.expect_text("127.0.0.1");
}
