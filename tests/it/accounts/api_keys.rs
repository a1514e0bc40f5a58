//! API keys of people (`uak_…`).

use chrono::{DateTime, TimeDelta, Utc};
use cp_domain::people::NewApiKey;
use cp_model::{Scope, Scopes};

use super::{new_key, who};
use crate::stage::{Stage, caller, get_profile, installation, json_login};

#[tokio::test]
async fn a_key_is_shown_once_and_works() {
    let (app, _) = installation().await;
    let ada = app.person("Ada").await;
    let page = ada.visitor.open("/settings").await;
    let made = ada
        .visitor
        .submit(&page, "/settings/api-keys", &[("key_name", "my laptop")])
        .await;
    let start = made.html.find("uak_").expect("the key");
    let key: String = made.html[start..]
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect();
    let profile = get_profile(&app, &key).await.expect(200);
    assert_eq!(profile["user"]["id"], ada.id.to_string());
    let page = ada.visitor.open("/settings").await;
    page.expect_text("my laptop");
    assert!(!page.html.contains(&key), "never again");
    // Its end is enough to tell it from others.
    page.expect_text(&key[key.len() - 4..]);
    let mail = app.newest_mail(&ada.email).await;
    assert!(mail.text.contains("my laptop"));
    assert!(!mail.text.contains(&key));
}

#[tokio::test]
async fn a_key_lives_until_its_day() {
    let (app, clock) = installation().await;
    let ada = app.person("Ada").await;
    let by = who(&app, &ada.visitor).await;
    let (_, month) = new_key(&app, &by, None, Some(30)).await;
    let (_, endless) = new_key(&app, &by, None, None).await;
    clock.advance(TimeDelta::days(30) - TimeDelta::minutes(1));
    get_profile(&app, &month).await.expect(200);
    clock.advance(TimeDelta::minutes(2));
    get_profile(&app, &month).await.expect(401);
    clock.advance(TimeDelta::days(1000));
    get_profile(&app, &endless).await.expect(200);
    for days in [0, 3651, u32::MAX] {
        let new = NewApiKey {
            name: "x".into(),
            scopes: None,
            expires_in_days: Some(days),
        };
        let refused = app.control_plane.create_api_key(&by, &new).await;
        assert!(refused.is_err(), "{days} days");
    }
}

#[tokio::test]
async fn a_key_of_the_page_lives_for_90_days() {
    // platform-api.md 4.4: the usual life.
    let (app, clock) = installation().await;
    let ada = app.person("Ada").await;
    let page = ada.visitor.open("/settings").await;
    ada.visitor
        .submit(&page, "/settings/api-keys", &[("key_name", "laptop")])
        .await;
    let ends: DateTime<Utc> = sqlx::query_scalar("select expires_at from user_api_keys")
        .fetch_one(&mut app.database.connect().await)
        .await
        .unwrap();
    let days = (ends - cp_model::Clock::now(&*clock)).num_hours();
    assert!((89 * 24..=90 * 24).contains(&days), "{days} hours");
}

#[tokio::test]
async fn a_revoked_key_is_dead_at_once() {
    let (app, _) = installation().await;
    let ada = app.person("Ada").await;
    let by = who(&app, &ada.visitor).await;
    let (id, key) = new_key(&app, &by, None, None).await;
    let (_, other) = new_key(&app, &by, None, None).await;
    get_profile(&app, &key).await.expect(200);
    app.control_plane.revoke_api_key(&by, id).await.unwrap();
    get_profile(&app, &key).await.expect(401);
    get_profile(&app, &other).await.expect(200);
    let page = ada.visitor.open("/settings").await;
    let page = ada
        .visitor
        .submit(&page, "/settings/api-keys/revoke", &[])
        .await;
    assert!(page.status < 400);
    get_profile(&app, &other).await.expect(401);
    assert!(
        app.control_plane.revoke_api_key(&by, id).await.is_err(),
        "it is gone"
    );
}

#[tokio::test]
async fn a_keys_last_use_is_known() {
    let (app, clock) = installation().await;
    let ada = app.person("Ada").await;
    let by = who(&app, &ada.visitor).await;
    let (_, key) = new_key(&app, &by, None, None).await;
    let last = async || app.control_plane.list_api_keys(&by).await.unwrap()[0].last_used_at;
    assert_eq!(last().await, None);
    get_profile(&app, &key).await.expect(200);
    let first = last().await.expect("used");
    get_profile(&app, &key).await.expect(200);
    assert_eq!(last().await, Some(first), "not written at each use");
    clock.advance(TimeDelta::minutes(2));
    get_profile(&app, &key).await.expect(200);
    assert!(last().await.unwrap() > first);
}

#[tokio::test]
async fn a_limited_key_cannot_make_another() {
    let (app, _) = installation().await;
    let ada = app.person("Ada").await;
    let by = who(&app, &ada.visitor).await;
    let limited: Scopes = Scope::ALL.iter().copied().collect();
    let (_, key) = new_key(&app, &by, Some(limited), None).await;
    let with_key = app
        .control_plane
        .authenticate_bearer(&key, &caller())
        .await
        .unwrap();
    let new = NewApiKey {
        name: "wider".into(),
        scopes: None,
        expires_in_days: None,
    };
    assert!(
        app.control_plane
            .create_api_key(&with_key, &new)
            .await
            .is_err()
    );
    assert!(app.control_plane.list_api_keys(&with_key).await.is_err());
    assert!(
        app.control_plane
            .list_browser_sessions(&with_key)
            .await
            .is_err()
    );
    let (_, whole) = new_key(&app, &by, None, None).await;
    let with_whole = app
        .control_plane
        .authenticate_bearer(&whole, &caller())
        .await
        .unwrap();
    app.control_plane.list_api_keys(&with_whole).await.unwrap();
}

#[tokio::test]
async fn an_application_cannot_make_keys_and_ours_can() {
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let cp = &stage.app.control_plane;
    let new = NewApiKey {
        name: "wider".into(),
        scopes: None,
        expires_in_days: None,
    };
    let third_party = cp
        .authenticate_bearer(&tokens.access, &caller())
        .await
        .unwrap();
    assert!(cp.create_api_key(&third_party, &new).await.is_err());
    assert!(cp.list_connected_apps(&third_party).await.is_err());
    let body = json_login(&stage.app, &stage.ada.email, &stage.ada.password)
        .await
        .expect(200);
    let ours = cp
        .authenticate_bearer(body["token"].as_str().unwrap(), &caller())
        .await
        .unwrap();
    ours.require_everything().unwrap();
    cp.list_api_keys(&ours).await.unwrap();
}

#[tokio::test]
async fn a_key_can_do_what_was_ticked() {
    let (app, _) = installation().await;
    let ada = app.person("Ada").await;
    let page = ada.visitor.open("/settings").await;
    let nothing = [("key_name", "x"), ("access", "limited")];
    let refused = ada
        .visitor
        .submit(&page, "/settings/api-keys", &nothing)
        .await;
    assert_eq!(refused.status, 400);
    let some = [
        ("key_name", "reader"),
        ("access", "limited"),
        ("projects:read", "yes"),
    ];
    ada.visitor.submit(&page, "/settings/api-keys", &some).await;
    let by = who(&app, &ada.visitor).await;
    let keys = app.control_plane.list_api_keys(&by).await.unwrap();
    assert_eq!(keys.len(), 1);
    let scopes = keys[0].scopes.clone().expect("limited");
    assert_eq!(scopes, [Scope::ProjectsRead].into_iter().collect());
}
