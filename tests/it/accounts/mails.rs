//! The outbox: no mail is lost, none is sent twice at once.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use cp_model::MailId;
use cp_tests::{App, MovingClock, Person};
use serde_json::json;

use super::{EVE, GOOD, sign_up};
use crate::stage::{installation, json_call};

async fn due(app: &App) -> BTreeSet<MailId> {
    app.control_plane
        .take_due_mails(100)
        .await
        .unwrap()
        .into_iter()
        .map(|(id, _)| id)
        .collect()
}

/// To people who asked for a code and have a password: mails that stay worth reading.
async fn three_mails() -> (App, std::sync::Arc<MovingClock>, Vec<Person>) {
    let (app, clock) = installation().await;
    let mut people = Vec::new();
    for name in ["Ada", "Bob", "Cleo"] {
        let person = app.stranger(name).await;
        person.visitor.ask_for_code(&person.email).await;
        people.push(person);
    }
    (app, clock, people)
}

#[tokio::test]
async fn a_mail_that_fails_is_tried_again_until_it_is_sent() {
    let (app, clock, _) = three_mails().await;
    let first = due(&app).await;
    assert_eq!(first.len(), 3);
    for id in &first {
        app.control_plane
            .mark_mail_failed(*id, "connection refused")
            .await
            .unwrap();
    }
    assert!(due(&app).await.is_empty(), "not at once");
    let mut tries = 1;
    for _ in 0..8 {
        clock.advance(TimeDelta::minutes(61));
        let again = due(&app).await;
        assert_eq!(again, first, "nothing is lost");
        tries += 1;
        for id in &again {
            app.control_plane
                .mark_mail_failed(*id, "connection refused")
                .await
                .unwrap();
        }
    }
    let attempts: Vec<i32> = sqlx::query_scalar("select attempts from mails")
        .fetch_all(&mut app.database.connect().await)
        .await
        .unwrap();
    assert_eq!(attempts, [tries; 3]);
    clock.advance(TimeDelta::minutes(61));
    for id in due(&app).await {
        app.control_plane.mark_mail_sent(id).await.unwrap();
    }
    clock.advance(TimeDelta::days(2));
    assert!(due(&app).await.is_empty());
    let kept: Vec<(String, Option<Vec<u8>>)> =
        sqlx::query_as("select state, content_sealed from mails")
            .fetch_all(&mut app.database.connect().await)
            .await
            .unwrap();
    for (state, content) in kept {
        assert_eq!(state, "sent");
        assert_eq!(content, None, "links are not kept");
    }
}

#[tokio::test]
async fn a_sender_that_dies_loses_no_mail() {
    let (app, clock, _) = three_mails().await;
    let taken = due(&app).await;
    assert_eq!(taken.len(), 3);
    assert!(due(&app).await.is_empty(), "they are that sender's");
    clock.advance(TimeDelta::minutes(10));
    assert_eq!(due(&app).await, taken, "and somebody else's after a while");
}

#[tokio::test]
async fn two_senders_take_different_mails() {
    let (app, _, _) = three_mails().await;
    let second = app.another_control_plane();
    let (one, two, three) = tokio::join!(
        app.control_plane.take_due_mails(2),
        second.take_due_mails(2),
        app.control_plane.take_due_mails(2),
    );
    let mut ids: Vec<MailId> = Vec::new();
    for taken in [one, two, three] {
        ids.extend(taken.unwrap().into_iter().map(|(id, _)| id));
    }
    let different: BTreeSet<MailId> = ids.iter().copied().collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(different.len(), 3);
}

#[tokio::test]
async fn a_mail_that_nobody_takes_is_given_up_after_a_day() {
    let (app, clock, _) = three_mails().await;
    for _ in 0..30 {
        for id in due(&app).await {
            app.control_plane
                .mark_mail_failed(id, "mailbox unavailable")
                .await
                .unwrap();
        }
        clock.advance(TimeDelta::minutes(61));
    }
    assert!(due(&app).await.is_empty());
    let states: Vec<(String, Option<String>)> =
        sqlx::query_as("select state, last_error from mails")
            .fetch_all(&mut app.database.connect().await)
            .await
            .unwrap();
    for (state, error) in states {
        assert_eq!(state, "failed");
        assert_eq!(
            error.as_deref(),
            Some("mailbox unavailable"),
            "for operators"
        );
    }
}

#[tokio::test]
async fn a_mail_exists_if_and_only_if_what_it_is_about_does() {
    // design.md, invariant 1: queued in the same transaction.
    let (app, _) = installation().await;
    let body = json!({"name": "Eve", "email": EVE, "password": "short"});
    json_call(&app, "/auth/v1/signup", &body).await.expect(400);
    assert_eq!(app.database.count("mails").await, 0);
    let body = json!({"name": "Eve", "email": EVE, "password": GOOD});
    json_call(&app, "/auth/v1/signup", &body).await.expect(201);
    assert_eq!(app.database.count("mails").await, 1);
    let content: Vec<u8> = sqlx::query_scalar("select content_sealed from mails")
        .fetch_one(&mut app.database.connect().await)
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&content);
    assert!(!text.contains("imt_") && !text.contains("verify"), "sealed");
}

/// The state of the only mail, and whether what it says is kept.
async fn only_mail(app: &App) -> (String, bool) {
    sqlx::query_as("select state, content_sealed is not null from mails")
        .fetch_one(&mut app.database.connect().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_mail_whose_code_has_expired_is_not_sent() {
    // It would only mislead: the code works for 15 minutes, and no sender was there.
    let (app, clock) = installation().await;
    sign_up(&app.visitor()).await;
    clock.advance(TimeDelta::minutes(16));
    assert!(due(&app).await.is_empty());
    assert_eq!(only_mail(&app).await, ("failed".into(), false));
}

#[tokio::test]
async fn a_mail_is_not_tried_again_after_its_code_has_expired() {
    let (app, clock) = installation().await;
    sign_up(&app.visitor()).await;
    for minutes in [1, 13] {
        clock.advance(TimeDelta::minutes(minutes));
        let taken = due(&app).await;
        assert_eq!(taken.len(), 1, "while it is of use");
        assert_eq!(only_mail(&app).await, ("queued".into(), true));
        for id in taken {
            app.control_plane
                .mark_mail_failed(id, "connection refused")
                .await
                .unwrap();
        }
    }
    clock.advance(TimeDelta::minutes(2));
    assert!(due(&app).await.is_empty());
    assert_eq!(only_mail(&app).await, ("failed".into(), false));
}

#[tokio::test]
async fn a_mail_that_offers_nothing_is_worth_reading_later() {
    let (app, clock) = installation().await;
    let ada = app.person("Ada").await;
    let page = ada.visitor.open("/settings").await;
    let fields = [
        ("current_password", ada.password.as_str()),
        ("new_password", GOOD),
    ];
    ada.visitor
        .submit(&page, "/settings/password", &fields)
        .await;
    clock.advance(TimeDelta::minutes(61));
    let told = app.newest_mail(&ada.email).await;
    assert!(told.subject.contains("changed"), "{}", told.subject);
}
