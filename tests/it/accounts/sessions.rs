//! Browser sessions, as their person sees them.

use chrono::TimeDelta;

use super::who;
use crate::stage::{installation, is_signed_in};

#[tokio::test]
async fn a_person_sees_and_ends_their_sessions() {
    let (app, _) = installation().await;
    let ada = app.person("Ada").await;
    let phone = app.visitor();
    phone.log_in(&ada.email, &ada.password).await;
    let tablet = app.visitor();
    tablet.log_in(&ada.email, &ada.password).await;
    let by = who(&app, &ada.visitor).await;
    let cp = &app.control_plane;
    let sessions = cp.list_browser_sessions(&by).await.unwrap();
    assert_eq!(sessions.len(), 3);
    assert_eq!(sessions.iter().filter(|s| s.is_this_one).count(), 1);
    for session in &sessions {
        assert_eq!(session.address.as_deref(), Some("127.0.0.1"));
    }
    // One of the others, by the page.
    let page = ada.visitor.open("/settings").await;
    let page = ada
        .visitor
        .submit(&page, "/settings/sessions/end", &[])
        .await;
    assert!(page.status < 400);
    assert!(is_signed_in(&ada.visitor).await);
    let left = [is_signed_in(&phone).await, is_signed_in(&tablet).await];
    assert_eq!(
        left.iter().filter(|signed_in| **signed_in).count(),
        1,
        "{left:?}"
    );
    let page = ada.visitor.open("/settings").await;
    ada.visitor
        .submit(&page, "/settings/sessions/end-others", &[])
        .await;
    assert!(!is_signed_in(&phone).await && !is_signed_in(&tablet).await);
    assert!(is_signed_in(&ada.visitor).await);
}

#[tokio::test]
async fn a_session_knows_when_it_was_seen() {
    let (app, clock) = installation().await;
    let ada = app.person("Ada").await;
    let seen = async || {
        let by = who(&app, &ada.visitor).await;
        app.control_plane.list_browser_sessions(&by).await.unwrap()[0].last_seen_at
    };
    let first = seen().await;
    clock.advance(TimeDelta::minutes(5));
    ada.visitor.open("/settings").await;
    assert!(seen().await > first);
}

#[tokio::test]
async fn signing_out_asks_first_where_a_link_leads_there() {
    let (app, _) = installation().await;
    let ada = app.person("Ada").await;
    let page = ada.visitor.open("/logout").await;
    assert_eq!(page.status, 200);
    assert!(is_signed_in(&ada.visitor).await);
    let page = ada.visitor.submit(&page, "/logout", &[]).await;
    assert!(page.status < 400);
    assert!(!is_signed_in(&ada.visitor).await);
}
