//! Organizations, members and invitations, word by word as the client sends them.

use chrono::{DateTime, TimeDelta, Utc};
use cp_tests::{App, AppOptions, Member, MovingClock};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::quiet;

fn names(object: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_person_has_an_organization_from_the_start_and_makes_more() {
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let listed = ada.get("/organizations/v1").await.expect(200);
    let own = &listed["organizations"][0];
    assert_eq!(
        names(own),
        ["created_at", "id", "name", "plan", "type", "updated_at"]
    );
    assert_eq!(
        (&own["name"], &own["type"]),
        (&json!("Ada"), &json!("personal"))
    );
    assert_eq!(listed["organizations"].as_array().unwrap().len(), 1);

    let body = json!({ "name": " Moreno Labs ", "type": "team" });
    let made = ada
        .send(Method::POST, "/organizations/v1", &body)
        .await
        .expect(201);
    let made = &made["organization"];
    assert_eq!(
        (&made["name"], &made["type"]),
        (&json!("Moreno Labs"), &json!("team"))
    );
    for time in ["created_at", "updated_at"] {
        made[time]
            .as_str()
            .unwrap()
            .parse::<DateTime<Utc>>()
            .unwrap();
    }
    let path = format!("/organizations/v1/{}", made["id"].as_str().unwrap());
    let changed = ada
        .send(Method::PUT, &path, &json!({ "name": "Moreno & Co" }))
        .await
        .expect(200);
    assert_eq!(changed["organization"]["name"], "Moreno & Co");
    assert_eq!(changed["organization"]["type"], "team");
    let changed = ada
        .send(Method::PUT, &path, &json!({ "type": "company" }))
        .await
        .expect(200);
    assert_eq!(changed["organization"]["type"], "company");
    assert_eq!(changed["organization"]["name"], "Moreno & Co");

    let deleted = ada.delete(&path).await.expect(200);
    assert!(!deleted["message"].as_str().unwrap().is_empty());
    assert_eq!(deleted["organizationId"], made["id"]);
    ada.delete(&path)
        .await
        .expect_code(404, "organization_not_found");
    let listed = ada.get("/organizations/v1").await.expect(200);
    assert_eq!(listed["organizations"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn bad_input_names_the_field_and_the_rule() {
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let team = ada.create_organization("Team").await;
    let own = format!("/organizations/v1/{team}");
    let invite = format!("{own}/members/invite");
    let projects = format!("{own}/projects");
    let nobody = format!("{own}/members/x/role");
    let post = Method::POST;
    for (method, path, body, says) in [
        (&post, "/organizations/v1", json!({}), "name is required"),
        (
            &post,
            "/organizations/v1",
            json!({"name": "x", "type": "team"}),
            "name must have 2 to 64",
        ),
        (
            &post,
            "/organizations/v1",
            json!({"name": "x".repeat(65), "type": "team"}),
            "name must have 2 to 64",
        ),
        (
            &post,
            "/organizations/v1",
            json!({"name": "a\nb", "type": "team"}),
            "name must not contain control",
        ),
        (
            &post,
            "/organizations/v1",
            json!({"name": "Team"}),
            "type is required",
        ),
        (
            &post,
            "/organizations/v1",
            json!({"name": "Team", "type": "partner"}),
            "type must be one of personal, team, company",
        ),
        (&Method::PUT, &own, json!({}), "name or type must be given"),
        (
            &Method::PUT,
            &own,
            json!({"name": 1}),
            "name must be a string",
        ),
        (
            &post,
            &invite,
            json!({"role": "developer"}),
            "email is required",
        ),
        (
            &post,
            &invite,
            json!({"email": "lin", "role": "developer"}),
            "email must be",
        ),
        (
            &post,
            &invite,
            json!({"email": "lin@example.com", "role": "owner"}),
            "role must be one of administrator, developer",
        ),
        (
            &Method::PUT,
            &nobody,
            json!({"role": "developer"}),
            "memberId must be a UUID",
        ),
        (&post, &projects, json!({}), "name is required"),
        (
            &post,
            &projects,
            json!({"name": "x"}),
            "name must have 2 to 64",
        ),
        (
            &post,
            &projects,
            json!({"name": "shop", "region": "mars"}),
            "region must be one of us-east",
        ),
    ] {
        let refused = ada.send(method.clone(), path, &body).await;
        let said = refused.expect_code(400, "invalid_input")["error"].to_string();
        assert!(said.contains(says), "{method} {path} {body}: {said}");
    }
    let mut unread = ada.request(post, "/organizations/v1").build().unwrap();
    *unread.body_mut() = Some("{".into());
    let refused = cp_tests::Answer::of(app.http.execute(unread).await.unwrap()).await;
    refused.expect_code(400, "invalid_input");
}

#[tokio::test]
async fn a_mailed_invitation_makes_a_member() {
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let lin = app.stranger("Lin").await;
    let team = ada.create_organization("Moreno Labs").await;
    let made = ada.invite(&team, &lin.email, "developer").await.expect(201);
    let invitation = &made["invitation"];
    assert_eq!(invitation["email"], "lin@example.com");
    assert_eq!(invitation["role"], "developer");
    let ends: DateTime<Utc> = invitation["expires_at"].as_str().unwrap().parse().unwrap();
    assert!(ends > Utc::now() + TimeDelta::days(6));
    let members = format!("/organizations/v1/{team}/members");
    let listed = ada.get(&members).await.expect(200);
    assert_eq!(listed["members"].as_array().unwrap().len(), 1);
    assert_eq!(listed["invitations"][0]["status"], "pending");

    // The mail names who invites, and nothing that somebody made up.
    let mail = app.newest_mail(&lin.email).await;
    assert!(mail.text.contains("ada@example.com") && !mail.text.contains("Moreno"));
    // Whoever opens the link is led to sign in, and back.
    let page = lin.visitor.open(&mail.link()).await;
    let values = [("email", &*lin.email), ("password", &*lin.password)];
    let page = lin.visitor.submit(&page, "/login", &values).await;
    page.expect_text("Join Moreno Labs?");
    page.expect_text("As a developer");
    let joined = lin.visitor.press(&page, "/invitation", "Join", &[]).await;
    joined.expect_text("You belong to Moreno Labs");

    let listed = ada.get(&members).await.expect(200);
    assert_eq!(listed["invitations"], json!([]));
    let member = listed["members"]
        .as_array()
        .unwrap()
        .iter()
        .find(|m| m["email"] == "lin@example.com")
        .unwrap();
    assert_eq!(
        (&member["role"], &member["name"]),
        (&json!("developer"), &json!("Lin"))
    );
    assert_eq!(member["invited_by"], ada.user);
    assert_eq!(member["organization_id"], team);
    let client = app.member_of(&lin).await;
    let theirs = client.get("/organizations/v1").await.expect(200);
    assert_eq!(theirs["organizations"].as_array().unwrap().len(), 2);
    // The link is used up.
    let again = lin.visitor.open(&mail.link()).await;
    again.expect_text("does not work any more");
    assert_eq!(again.status, 400);
    ada.invite(&team, "LIN@example.com", "developer")
        .await
        .expect_code(409, "already_member");
}

#[tokio::test]
async fn an_invitation_is_for_its_address_alone() {
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let team = ada.create_organization("Team").await;
    ada.invite(&team, "lin@example.com", "administrator")
        .await
        .expect(201);
    let link = app.newest_mail("lin@example.com").await.link();
    let eve = app.person("Eve").await;
    let page = eve.visitor.open(&link).await;
    assert_eq!(page.status, 403);
    page.expect_text("for somebody else");
    assert!(!page.html.contains("Team"), "{}", page.html);
    let token = link.split_once("token=").unwrap().1;
    let settings = eve.visitor.open("/settings").await;
    let csrf = settings.csrf_token("/logout");
    let fields = [
        ("csrf_token", &*csrf),
        ("token", token),
        ("decision", "accept"),
    ];
    let forced = eve.visitor.post("/invitation", &fields).await;
    assert_eq!(forced.status, 403);

    // Whoever has no account makes one on the way.
    let lin = app.visitor();
    let page = lin
        .sign_up("Lin", "lin@example.com", "correct horse battery")
        .await;
    assert_eq!(page.status, 200, "{}", page.html);
    let code = app.newest_mail("lin@example.com").await.code();
    let page = lin.submit(&page, "/verify-email", &[("code", &code)]).await;
    assert_eq!(page.status, 200, "{}", page.html);
    let page = lin.open(&link).await;
    let done = lin.press(&page, "/invitation", "Decline", &[]).await;
    done.expect_text("You declined");
    let listed = ada
        .get(&format!("/organizations/v1/{team}/members"))
        .await
        .expect(200);
    assert_eq!(listed["members"].as_array().unwrap().len(), 1);
    assert_eq!(listed["invitations"][0]["status"], "declined");
}

#[tokio::test]
async fn invitations_end() {
    let clock = MovingClock::new();
    let app = App::start_with(AppOptions {
        worker: false,
        clock: clock.clone(),
        ..AppOptions::default()
    })
    .await;
    let ada = app.stranger("Ada").await;
    let by = app.member_of(&ada).await;
    let lin = app.person("Lin").await;
    let team = by.create_organization("Team").await;
    let members = format!("/organizations/v1/{team}/members");
    let invite = async |by: &Member| -> (String, String) {
        let made = by.invite(&team, &lin.email, "developer").await.expect(201);
        let id = made["invitation"]["id"].as_str().unwrap().to_owned();
        (id, app.newest_mail(&lin.email).await.link())
    };
    let works = async |link: &str| lin.visitor.open(link).await.status == 200;
    // A newer one replaces it.
    let (first, old) = invite(&by).await;
    let (second, link) = invite(&by).await;
    assert_eq!(first, second);
    assert!(!works(&old).await && works(&link).await);
    // It is taken back.
    let path = format!("/organizations/v1/{team}/invitations/{second}");
    by.delete(&path).await.expect(204);
    by.delete(&path)
        .await
        .expect_code(404, "invitation_not_found");
    assert!(!works(&link).await);
    // Its time is over; nobody has to clean up before the next one.
    let (_, link) = invite(&by).await;
    clock.advance(TimeDelta::days(7) + TimeDelta::seconds(1));
    assert!(!works(&link).await);
    let by = app.member_of(&ada).await;
    let listed = by.get(&members).await.expect(200);
    assert_eq!(listed["invitations"][0]["status"], "expired");
    let (_, link) = invite(&by).await;
    assert!(works(&link).await);
    // Who offered it is no administrator any more.
    let max = app.stranger("Max").await;
    by.add(&app, &team, &max, "administrator").await;
    let max = app.member_of(&max).await;
    let own = by.membership(&team, &by.user).await;
    let role = json!({ "role": "developer" });
    let path = format!("{members}/{own}/role");
    max.send(Method::PUT, &path, &role).await.expect(200);
    assert!(!works(&link).await);
}

#[tokio::test]
async fn roles_are_changed_and_members_removed() {
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let lin = app.stranger("Lin").await;
    let team = ada.create_organization("Team").await;
    ada.add(&app, &team, &lin, "developer").await;
    let lin = app.member_of(&lin).await;
    let members = format!("/organizations/v1/{team}/members");
    let (her, his) = (
        ada.membership(&team, &ada.user).await,
        ada.membership(&team, &lin.user).await,
    );
    let refused = lin
        .send(
            Method::PUT,
            &format!("{members}/{his}/role"),
            &json!({"role": "administrator"}),
        )
        .await;
    refused.expect_code(403, "administrator_needed");
    // The last administrator stays one, whichever way.
    let developer = json!({ "role": "developer" });
    let refused = ada
        .send(Method::PUT, &format!("{members}/{her}/role"), &developer)
        .await;
    refused.expect_code(409, "last_administrator");
    ada.delete(&format!("{members}/{her}"))
        .await
        .expect_code(409, "last_administrator");
    let refused = ada.post(&format!("/organizations/v1/{team}/leave")).await;
    let said = refused.expect_code(409, "last_administrator")["error"].to_string();
    assert!(said.contains("last administrator"), "{said}");

    let changed = ada
        .send(
            Method::PUT,
            &format!("{members}/{his}/role"),
            &json!({"role": "administrator"}),
        )
        .await;
    assert_eq!(changed.expect(200)["member"]["role"], "administrator");
    let left = ada
        .post(&format!("/organizations/v1/{team}/leave"))
        .await
        .expect(200);
    assert!(!left["message"].as_str().unwrap().is_empty());
    ada.get(&members)
        .await
        .expect_code(404, "organization_not_found");
    lin.get(&members).await.expect(200);
    // A membership of another organization is not there.
    let home = lin.home().await;
    let refused = lin
        .delete(&format!("/organizations/v1/{home}/members/{his}"))
        .await;
    refused.expect_code(404, "member_not_found");
}

#[tokio::test]
async fn a_persons_own_organization_stays_theirs() {
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let lin = app.stranger("Lin").await;
    let home = ada.home().await;
    ada.add(&app, &home, &lin, "administrator").await;
    let lin = app.member_of(&lin).await;
    let her = ada.membership(&home, &ada.user).await;
    let path = format!("/organizations/v1/{home}");
    lin.delete(&format!("{path}/members/{her}"))
        .await
        .expect_code(409, "home_organization");
    let role = json!({ "role": "developer" });
    let refused = lin
        .send(Method::PUT, &format!("{path}/members/{her}/role"), &role)
        .await;
    refused.expect_code(409, "home_organization");
    ada.post(&format!("{path}/leave"))
        .await
        .expect_code(409, "home_organization");
    ada.delete(&path)
        .await
        .expect_code(409, "home_organization");
    // What applications make for him is made in his own.
    let partner = app.partner().await;
    let user = partner.connect_user("lin@example.com").await;
    let body = json!({ "project_name": "synced" });
    let synced = partner.post(&format!("/{user}/sync-project"), &body).await;
    let id = synced.body["project"]["id"].as_str().unwrap().to_owned();
    let theirs = lin.home().await;
    assert_ne!(theirs, home);
    assert_eq!(lin.project(&id).await["organization_id"], theirs);
    ada.get(&format!("/projects/v1/{id}"))
        .await
        .expect_code(404, "project_not_found");
}

#[tokio::test]
async fn an_organization_is_deleted_when_it_is_empty() {
    let app = App::start().await;
    let ada = app.member("Ada").await;
    let team = ada.create_organization("Team").await;
    let project = ada.create_project(&team, "shop").await;
    let path = format!("/organizations/v1/{team}");
    let said = ada
        .delete(&path)
        .await
        .expect_code(409, "organization_has_projects");
    assert!(
        said["error"]
            .as_str()
            .unwrap()
            .contains("Nothing was deleted")
    );
    ada.delete(&format!("/projects/v1/{project}"))
        .await
        .expect(204);
    ada.delete(&path).await.expect(200);
    app.settle().await;
    app.assert_truth().await;
}

#[tokio::test]
async fn one_of_two_administrators_who_leave_at_once_stays() {
    let app = quiet().await;
    for round in 0..5 {
        let ada = app.member(&format!("Ada{round}")).await;
        let lin = app.stranger(&format!("Lin{round}")).await;
        let team = ada.create_organization("Team").await;
        ada.add(&app, &team, &lin, "administrator").await;
        let lin = app.member_of(&lin).await;
        let members = format!("/organizations/v1/{team}/members");
        let his = ada.membership(&team, &lin.user).await;
        let her = ada.membership(&team, &ada.user).await;
        // Each takes the other's role; or both leave.
        let developer = json!({ "role": "developer" });
        let answers = if round % 2 == 0 {
            let leave = format!("/organizations/v1/{team}/leave");
            [tokio::join!(ada.post(&leave), lin.post(&leave))].map(|(a, b)| [a, b])
        } else {
            let (his, her) = (
                format!("{members}/{his}/role"),
                format!("{members}/{her}/role"),
            );
            [tokio::join!(
                ada.send(Method::PUT, &his, &developer),
                lin.send(Method::PUT, &her, &developer)
            )]
            .map(|(a, b)| [a, b])
        };
        let good = answers[0]
            .iter()
            .filter(|answer| answer.status == 200)
            .count();
        assert_eq!(good, 1, "{answers:?}");
        let administrators: i64 = sqlx::query_scalar(
            "select count(*) from organization_members where organization_id = $1 and role = 'administrator'",
        )
        .bind(Uuid::parse_str(&team).unwrap())
        .fetch_one(&mut app.database.connect().await)
        .await
        .unwrap();
        assert_eq!(administrators, 1);
    }
}

#[tokio::test]
async fn one_invitation_makes_one_membership_however_often_it_is_accepted() {
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let lin = app.person("Lin").await;
    let team = ada.create_organization("Team").await;
    ada.invite(&team, &lin.email, "developer").await.expect(201);
    let page = lin
        .visitor
        .open(&app.newest_mail(&lin.email).await.link())
        .await;
    let presses = (0..6).map(|_| lin.visitor.press(&page, "/invitation", "Join", &[]));
    let pages = join_all(presses).await;
    assert_eq!(pages.iter().filter(|page| page.status == 200).count(), 1);
    let listed = ada
        .get(&format!("/organizations/v1/{team}/members"))
        .await
        .expect(200);
    assert_eq!(listed["members"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_one_can_make_us_do_is_bounded() {
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let body = json!({ "name": "Team", "type": "team" });
    let made = join_all((0..8).map(|_| ada.send(Method::POST, "/organizations/v1", &body))).await;
    let good = made.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(good, 3, "{made:?}");
    let refused = made
        .iter()
        .find(|answer| answer.status != 201)
        .unwrap()
        .clone();
    refused.expect_code(403, "organization_limit_reached");
    // Nobody's mailbox is filled, from however many organizations.
    let home = ada.home().await;
    let mut answers = Vec::new();
    for _ in 0..7 {
        answers.push(
            ada.invite(&home, "lin@example.com", "developer")
                .await
                .status,
        );
    }
    assert_eq!(answers, [201, 201, 201, 201, 201, 429, 429]);
    assert_eq!(app.mails().await.len(), 5);
}

#[tokio::test]
async fn an_account_whose_address_is_not_proven_shares_nothing() {
    let app = quiet().await;
    let url = format!("{}/auth/v1/signup", app.base_url);
    let body =
        json!({ "name": "Eve", "email": "eve@example.com", "password": "correct horse battery" });
    let signed_up = cp_tests::Answer::to(app.http.post(url).json(&body))
        .await
        .expect(201);
    let eve = app.member_with("-", signed_up["token"].as_str().unwrap());
    let body = json!({ "name": "Team", "type": "team" });
    let refused = eve.send(Method::POST, "/organizations/v1", &body).await;
    refused.expect_code(403, "email_not_verified");
    eve.get("/organizations/v1")
        .await
        .expect_code(403, "email_not_verified");
}

#[tokio::test]
async fn the_limit_on_free_organizations_cannot_be_handed_around() {
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let lin = app.person("Lin").await;
    let client = app.member_of(&lin).await;
    for name in ["One", "Two", "Three"] {
        client.create_organization(name).await;
    }
    let team = ada.create_organization("Team").await;
    ada.invite(&team, &lin.email, "administrator")
        .await
        .expect(201);
    let link = app.newest_mail(&lin.email).await.link();
    let page = lin.visitor.open(&link).await;
    let refused = lin.visitor.press(&page, "/invitation", "Join", &[]).await;
    assert_eq!(refused.status, 403, "{}", refused.html);
    // As a developer he may come, and stays one.
    ada.invite(&team, &lin.email, "developer").await.expect(201);
    let link = app.newest_mail(&lin.email).await.link();
    let page = lin.visitor.open(&link).await;
    let joined = lin.visitor.press(&page, "/invitation", "Join", &[]).await;
    assert_eq!(joined.status, 200, "{}", joined.html);
    let his = ada.membership(&team, &client.user).await;
    let path = format!("/organizations/v1/{team}/members/{his}/role");
    let role = json!({ "role": "administrator" });
    let refused = ada.send(Method::PUT, &path, &role).await;
    refused.expect_code(403, "organization_limit_reached");
}

#[tokio::test]
async fn an_invitation_ends_with_the_account_that_sent_it() {
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let lin = app.person("Lin").await;
    let team = ada.create_organization("Team").await;
    ada.invite(&team, &lin.email, "administrator")
        .await
        .expect(201);
    let link = app.newest_mail(&lin.email).await.link();
    assert_eq!(lin.visitor.open(&link).await.status, 200);
    app.control_plane
        .disable_user("ada@example.com", true)
        .await
        .unwrap();
    assert_eq!(lin.visitor.open(&link).await.status, 400);
}

#[tokio::test]
async fn the_audit_log_is_read_in_pages() {
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let home = ada.home().await;
    let made = ada.begin_project(&home, "shop").await.expect(201);
    let project = made["project"]["id"].as_str().unwrap();
    for name in ["store", "stall", "kiosk"] {
        let body = json!({ "name": name });
        ada.send(Method::PUT, &format!("/projects/v1/{project}"), &body)
            .await
            .expect(200);
    }
    ada.invite(&home, "lin@example.com", "developer")
        .await
        .expect(201);
    let path = format!("/organizations/v1/{home}/audit-log");
    let all = ada.get(&path).await.expect(200);
    let all = all["entries"].as_array().unwrap();
    let actions: Vec<_> = all.iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        [
            "organization.member_invited",
            "project.updated",
            "project.updated",
            "project.updated",
            "project.created"
        ]
    );
    assert_eq!(all[0]["actor"], format!("user:{}", ada.user));
    assert_eq!(all[0]["actor_email"], "ada@example.com");
    assert_eq!(all[1]["target_id"], project);
    assert_eq!(all[1]["details"]["name"], "kiosk");
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = ada
            .get(&format!("{path}?limit=2{cursor}"))
            .await
            .expect(200);
        seen.extend(page["entries"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(&seen, all);
    for bad in [
        "cursor=x",
        "cursor=-1000000000000000000.0192d3b4-5c6d-7e8f-9a0b-1c2d3e4f5a6b",
        "limit=0",
    ] {
        let refused = ada.get(&format!("{path}?{bad}")).await;
        refused.expect_code(400, "invalid_input");
    }
}

#[tokio::test]
async fn usage_and_billing_are_told_as_they_are_without_a_payment_provider() {
    let app = quiet().await;
    let ada = app.member("Ada").await;
    let home = ada.home().await;
    let made = ada.begin_project(&home, "shop").await.expect(201);
    let used = ada
        .get(&format!("/usage/v1/organizations/{home}"))
        .await
        .expect(200);
    assert_eq!(used["organization"]["price_plan"], "free");
    assert_eq!(used["projects"][0]["id"], made["project"]["id"]);
    for (metric, amount) in used["usage_summary"].as_object().unwrap() {
        assert!(amount.is_number(), "{metric}: {amount}");
    }
    let own = format!("/organizations/v1/{home}");
    let status = ada.get(&format!("{own}/subscription-status")).await;
    assert_eq!(
        status.expect(200),
        json!({ "status": "active", "plan": "free" })
    );
    let cycles = ada.get(&format!("{own}/billing-cycles")).await.expect(200);
    for cycle in ["current", "previous"] {
        for end in ["start_date", "end_date"] {
            let date = cycles[cycle][end].as_str().unwrap();
            date.parse::<chrono::NaiveDate>().unwrap();
        }
    }
    let payments = ada.get(&format!("{own}/payment-history")).await;
    assert_eq!(payments.expect(200), json!({ "payments": [] }));
    let credit = ada.get(&format!("/billing/v1/{home}/credits")).await;
    assert_eq!(credit.expect(200)["transactions"], json!([]));
    for (path, body) in [
        (
            "/billing/v1/stripe/checkout-session",
            json!({ "organizationId": home, "plan": "pro" }),
        ),
        (
            "/billing/v1/stripe/portal-session",
            json!({ "organizationId": home }),
        ),
    ] {
        let refused = ada.send(Method::POST, path, &body).await;
        refused.expect_code(501, "not_configured");
    }
}
