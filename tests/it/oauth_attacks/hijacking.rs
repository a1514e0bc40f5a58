//! Accounts taken before their owner comes, by addresses that are not proven.

use cp_tests::App;
use serde_json::json;

use super::{MALLORYS, refresh_as_cli, sign_up, squat, squat_by_json};
use crate::stage::{
    SESSION, Stage, Tokens, get_profile, installation, is_signed_in, json_call, json_login,
    refresh_cookie, refused, soon,
};

#[tokio::test]
async fn a_squatted_account_is_taken_back_when_a_partner_connects_its_owner() {
    // Account pre-hijacking (Sudhodanan and Paverd 2022, "classic-federated merge").
    let (app, _) = installation().await;
    let Tokens { access, refresh } = squat_by_json(&app).await;
    let squatter = app.visitor();
    squatter.log_in("ada@example.com", MALLORYS).await;
    app.mails().await;
    let partner = app.partner().await;
    partner.connect_user("Ada@example.com").await;
    json_login(&app, "ada@example.com", MALLORYS)
        .await
        .expect(401);
    get_profile(&app, &access).await.expect(401);
    assert!(!is_signed_in(&squatter).await);
    refused(refresh_as_cli(&app, &refresh).await, 400, "invalid_grant");
    // Ada signs in by a code that only she gets.
    let ada = app.visitor();
    let page = ada.ask_for_code("ada@example.com").await;
    let code = app.newest_mail("ada@example.com").await.code();
    ada.submit(&page, "/verify-email", &[("code", &code)]).await;
    assert!(is_signed_in(&ada).await);
    json_login(&app, "ada@example.com", MALLORYS)
        .await
        .expect(401);
}

#[tokio::test]
async fn the_squatters_open_challenge_is_dead_after_the_owner_came() {
    // Account pre-hijacking, "unexpired identifier": the code that Mallory's browser waits for.
    let (app, _) = installation().await;
    let (squatter, waiting) = squat(&app).await;
    let code = app.newest_mail("ada@example.com").await.code();
    app.partner().await.connect_user("ada@example.com").await;
    squatter
        .submit(&waiting, "/verify-email", &[("code", &code)])
        .await;
    assert!(!is_signed_in(&squatter).await);
}

#[tokio::test]
async fn a_password_reset_by_the_owner_ends_the_squatters_session() {
    // Account pre-hijacking, "unexpired session".
    let (app, _) = installation().await;
    let (squatter, _) = squat(&app).await;
    let page = squatter.open("/login").await;
    if !page.forms().is_empty() && page.url.path() == "/login" {
        let to = [("email", "ada@example.com"), ("password", MALLORYS)];
        squatter.submit(&page, "/login", &to).await;
    }
    let login = json_login(&app, "ada@example.com", MALLORYS).await;
    login.expect_code(403, "email_not_verified");
    app.mails().await;
    let ada = app.visitor();
    ada.forget_password("ada@example.com").await;
    let link = app.newest_mail("ada@example.com").await.link();
    ada.reset_password(&link, "adas own and good").await;
    json_login(&app, "ada@example.com", MALLORYS)
        .await
        .expect(401);
    let user = json_login(&app, "ada@example.com", "adas own and good")
        .await
        .expect(200);
    assert_eq!(
        user["user"]["email_verified"], true,
        "the link proved the address"
    );
    assert_eq!(squatter.look("/settings").await.status, 303);
}

#[tokio::test]
async fn an_owner_who_signs_in_by_mail_throws_the_squatter_out() {
    // Account pre-hijacking: by code and by link; neither the password nor what came of it stays.
    for by_link in [false, true] {
        let (app, _) = installation().await;
        let Tokens { access, refresh } = squat_by_json(&app).await;
        let squatter = app.visitor();
        let waiting = squatter.log_in("ada@example.com", MALLORYS).await;
        app.mails().await;
        let ada = app.visitor();
        let page = ada.ask_for_code("ada@example.com").await;
        let mail = app.newest_mail("ada@example.com").await;
        if by_link {
            let page = ada.open(&mail.link()).await;
            ada.submit(&page, "/verify-email/link", &[]).await;
        } else {
            ada.submit(&page, "/verify-email", &[("code", &mail.code())])
                .await;
        }
        assert!(is_signed_in(&ada).await);
        json_login(&app, "ada@example.com", MALLORYS)
            .await
            .expect(401);
        get_profile(&app, &access).await.expect(401);
        assert!(!is_signed_in(&squatter).await);
        refused(refresh_as_cli(&app, &refresh).await, 400, "invalid_grant");
        // The code that the squatter waited for is of no use either.
        squatter
            .submit(&waiting, "/verify-email", &[("code", &mail.code())])
            .await;
        assert!(!is_signed_in(&squatter).await);
    }
}

#[tokio::test]
async fn a_squatters_grant_does_not_survive_the_owners_reset() {
    // Account pre-hijacking, "unexpired session", for tokens.
    let (app, _) = installation().await;
    let Tokens { access, refresh } = squat_by_json(&app).await;
    get_profile(&app, &access).await.expect(200);
    app.mails().await;
    let ada = app.visitor();
    ada.forget_password("ada@example.com").await;
    let link = app.newest_mail("ada@example.com").await.link();
    ada.reset_password(&link, "adas own and good").await;
    get_profile(&app, &access).await.expect(401);
    refused(refresh_as_cli(&app, &refresh).await, 400, "invalid_grant");
}

#[tokio::test]
async fn a_strangers_signup_is_not_verified_by_a_careless_click() {
    // Account pre-hijacking, "trojan identifier": Ada opens the link and presses the button.
    let (app, _) = installation().await;
    squat(&app).await;
    let link = app.newest_mail("ada@example.com").await.link();
    let secret = link.split("token=").nth(1).unwrap();
    let ada = app.visitor();
    let page = ada.open(&link).await;
    page.expect_text("Sign in");
    assert!(page.forms().is_empty(), "nothing to press");
    let token = ada.open("/login").await.csrf_token("/login");
    let fields = [("csrf_token", token.as_str()), ("token", secret)];
    let page = ada.post("/verify-email/link", &fields).await;
    assert_eq!(page.status, 403, "{}", page.html);
    assert!(!is_signed_in(&ada).await);
    json_login(&app, "ada@example.com", MALLORYS)
        .await
        .expect_code(403, "email_not_verified");
    // Nor when somebody else is signed in.
    let bob = app.person("Bob").await;
    bob.visitor.open(&link).await;
    let token = bob.visitor.open("/logout").await.csrf_token("/logout");
    let fields = [("csrf_token", token.as_str()), ("token", secret)];
    let page = bob.visitor.post("/verify-email/link", &fields).await;
    assert_eq!(page.status, 403, "{}", page.html);
    json_login(&app, "ada@example.com", MALLORYS)
        .await
        .expect_code(403, "email_not_verified");
}

#[tokio::test]
async fn who_signed_up_verifies_by_the_link_when_signed_in() {
    // The other side of it.
    let (app, _) = installation().await;
    squat(&app).await;
    let link = app.newest_mail("ada@example.com").await.link();
    let visitor = app.visitor();
    visitor.log_in("ada@example.com", MALLORYS).await;
    let page = visitor.open(&link).await;
    let page = visitor.submit(&page, "/verify-email/link", &[]).await;
    assert_eq!(page.status, 200, "{}", page.html);
    json_login(&app, "ada@example.com", MALLORYS)
        .await
        .expect(200);
}

#[tokio::test]
async fn accounts_that_prove_nothing_can_sign_in_nowhere() {
    // RFC 9700 section 4.16 and account pre-hijacking: no code, no device, no key before the proof.
    let (app, _) = installation().await;
    let notes = app.relying_party().await;
    squat(&app).await;
    let visitor = app.visitor();
    visitor.log_in("ada@example.com", MALLORYS).await;
    let cookie = visitor.cookie(SESSION).unwrap();
    let by = app
        .control_plane
        .browser_session(&cookie, &crate::stage::caller())
        .await
        .unwrap()
        .expect("signed in, unproven");
    assert!(!by.user.email_verified);
    let page = visitor.open(&notes.authorize_url()).await;
    assert!(!page.is_elsewhere, "{}", page.url);
    if page.forms().iter().any(|form| form.action == "/consent") {
        let page = visitor.press(&page, "/consent", "Allow", &[]).await;
        assert!(!page.is_elsewhere, "{}", page.url);
    }
    assert_eq!(app.database.count("oauth_authorization_codes").await, 0);
    let body = json!({"client_id": cp_model::CLI_CLIENT_ID, "scope": "user:read"});
    let started = notes
        .post("/api/oauth/v1/device_authorization", &body)
        .await
        .expect(200);
    let user_code = started["user_code"].as_str().unwrap();
    let token = visitor
        .open("/verify-email")
        .await
        .csrf_token("/verify-email/resend");
    let fields = [
        ("csrf_token", token.as_str()),
        ("user_code", user_code),
        ("decision", "approve"),
    ];
    visitor.post("/device/decision", &fields).await;
    let fields = [
        ("csrf_token", token.as_str()),
        ("key_name", "laptop"),
        ("access", "everything"),
    ];
    visitor.post("/settings/api-keys", &fields).await;
    assert_eq!(app.database.count("user_api_keys").await, 0);
    let state: String = sqlx::query_scalar("select state from oauth_device_codes")
        .fetch_one(&mut app.database.connect().await)
        .await
        .unwrap();
    assert_eq!(state, "pending");
}

#[tokio::test]
async fn a_code_belongs_to_the_browser_that_asked() {
    // RFC 9700 section 4.7 in the small: a code read over a shoulder needs the challenge, too.
    let (app, _) = installation().await;
    let (one, page_of_one) = squat(&app).await;
    app.mails().await;
    let other = app.visitor();
    let page_of_other = other
        .sign_up("Bob", "bob@example.com", "bobs long and good")
        .await;
    let code = app.newest_mail("bob@example.com").await.code();
    one.submit(&page_of_one, "/verify-email", &[("code", &code)])
        .await;
    assert!(!is_signed_in(&one).await);
    other
        .submit(&page_of_other, "/verify-email", &[("code", &code)])
        .await;
    assert!(is_signed_in(&other).await);
}

#[tokio::test]
async fn an_application_learns_of_proven_addresses_only() {
    // RFC 9700 section 4.16 and OpenID Connect Core section 5.7: `email_verified` is the truth.
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let profile = get_profile(&stage.app, &tokens.access).await.expect(200);
    assert_eq!(profile["user"]["email_verified"], true);
    let answer = json_call(
        &stage.app,
        "/auth/v1/signup",
        &json!({"name": "Eve", "email": "eve@example.com", "password": "a long and new one"}),
    )
    .await
    .expect(201);
    let profile = get_profile(&stage.app, answer["token"].as_str().unwrap())
        .await
        .expect(200);
    assert_eq!(profile["user"]["email_verified"], false);
}

#[tokio::test]
async fn the_owner_is_not_called_by_the_squatters_words() {
    // Account pre-hijacking: applications show the name, and a stranger chose it.
    for by_partner in [false, true] {
        let (app, _) = installation().await;
        let notes = app.relying_party().await;
        squat(&app).await;
        if by_partner {
            app.partner().await.connect_user("ada@example.com").await;
        }
        app.mails().await;
        let ada = app.visitor();
        let page = ada.ask_for_code("ada@example.com").await;
        let code = app.newest_mail("ada@example.com").await.code();
        ada.submit(&page, "/verify-email", &[("code", &code)]).await;
        // What stands before the `@`, or what the partner calls her.
        let name = if by_partner { "Ada" } else { "ada" };
        let tokens = Tokens::of(&notes.tokens_for(&ada).await);
        let profile = notes.profile(&tokens.access).await.expect(200);
        assert_eq!(profile["user"]["name"], name);
        assert_eq!(profile["user"]["profile"]["name"], name);
        let organization: String =
            sqlx::query_scalar("select name from organizations where kind = 'personal'")
                .fetch_one(&mut app.database.connect().await)
                .await
                .unwrap();
        assert_eq!(organization, name);
    }
}

/// Waits until somebody waits for this table.
async fn is_waited_for(app: &App, table: &str) {
    let mut conn = app.database.connect().await;
    soon("somebody waits for the table", async || {
        sqlx::query_scalar(
            "select true from pg_locks where relation = $1::regclass and not granted",
        )
        .bind(table)
        .fetch_optional(&mut conn)
        .await
        .unwrap()
        .filter(|waits: &bool| *waits)
    })
    .await;
}

#[tokio::test]
async fn an_account_that_is_claimed_while_it_is_made_gives_no_tokens() {
    // Account pre-hijacking, as a race: the claim comes between the account and its tokens.
    let (app, _) = installation().await;
    let mut mails = app.database.connect().await;
    let mut accounts = app.database.connect().await;
    sqlx::raw_sql("begin; lock table mails in access exclusive mode")
        .execute(&mut mails)
        .await
        .unwrap();
    let claiming = async {
        // The sign-up stops at its mail, the last thing that it writes; the claim is the next in
        // turn for the account.
        is_waited_for(&app, "mails").await;
        let claim = sqlx::raw_sql("begin; lock table users in access exclusive mode");
        let go_on = async {
            is_waited_for(&app, "users").await;
            sqlx::raw_sql("commit").execute(&mut mails).await.unwrap();
        };
        let (claimed, ()) = tokio::join!(claim.execute(&mut accounts), go_on);
        claimed.unwrap();
        // As `delete_unproven_password` does it.
        let claim = sqlx::raw_sql("update users set password_hash = null; commit");
        claim.execute(&mut accounts).await.unwrap();
    };
    let body = json!({"name": "Mallory", "email": "ada@example.com", "password": MALLORYS});
    let squatting = json_call(&app, "/auth/v1/signup", &body);
    let (answer, ()) = tokio::join!(squatting, claiming);
    assert_eq!(refresh_cookie(&answer), None);
    answer.expect_code(401, "unauthorized");
    assert_eq!(app.database.count("oauth_grants").await, 0);
}

#[tokio::test]
async fn a_code_is_sent_again_to_ones_own_address_only() {
    // RFC 6819 section 4.4.1.11 in the small: a challenge's name alone makes nobody's mails.
    let (app, _) = installation().await;
    let (mallory, page) = sign_up(&app, "mallory@example.com").await;
    let (_, page_of_eve) = sign_up(&app, "eve@example.com").await;
    app.mails().await;
    let form = page.form("/verify-email/resend");
    let challenge = page_of_eve.param("challenge").unwrap();
    let again = mallory
        .send(&page, &form, &[("challenge", &challenge)], None)
        .await;
    assert_eq!((again.status, again.url.path()), (200, "/verify-email"));
    assert!(app.mails().await.is_empty());
    mallory.send(&page, &form, &[], None).await;
    assert_eq!(app.newest_mail("mallory@example.com").await.code().len(), 6);
}
