//! What operators do about people.

use super::{EVE, GOOD, new_key, sign_up, who};
use crate::stage::{Stage, audited, get_profile, installation, is_signed_in, json_login, refused};

#[tokio::test]
async fn an_operator_verifies_an_account() {
    let (app, _) = installation().await;
    sign_up(&app.visitor()).await;
    json_login(&app, EVE, GOOD).await.expect(403);
    let profile = app.control_plane.verify_user(EVE).await.unwrap();
    assert!(profile.email_verified);
    json_login(&app, EVE, GOOD).await.expect(200);
    assert!(
        app.control_plane
            .verify_user("nobody@example.com")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn an_operator_disables_and_enables_an_account() {
    let stage = Stage::new().await;
    let app = &stage.app;
    let cp = &app.control_plane;
    let by = who(app, &stage.ada.visitor).await;
    let (_, key) = new_key(app, &by, None, None).await;
    cp.disable_user(&stage.ada.email, true).await.unwrap();
    json_login(app, &stage.ada.email, &stage.ada.password)
        .await
        .expect(401);
    get_profile(app, &key).await.expect(401);
    let page = app
        .visitor()
        .log_in(&stage.ada.email, &stage.ada.password)
        .await;
    assert_eq!(page.status, 400);
    let page = app.visitor().ask_for_code(&stage.ada.email).await;
    assert_eq!(page.url.path(), "/verify-email");
    app.mails()
        .await
        .iter()
        .for_each(|mail| assert!(!mail.subject.contains("Sign in"), "{}", mail.subject));
    cp.disable_user(&stage.ada.email, false).await.unwrap();
    json_login(app, &stage.ada.email, &stage.ada.password)
        .await
        .expect(200);
    get_profile(app, &key).await.expect(200);
    // What was ended stays ended.
    assert!(!is_signed_in(&stage.ada.visitor).await);
    let actions = audited(app).await;
    for action in ["user.disabled", "user.enabled"] {
        assert!(actions.iter().any(|a| a == action), "{actions:?}");
    }
}

#[tokio::test]
async fn an_operator_ends_a_persons_sessions() {
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let bob = stage.app.person("Bob").await;
    let ended = stage
        .app
        .control_plane
        .revoke_sessions(&stage.ada.email)
        .await
        .unwrap();
    assert_eq!(ended, 2, "a browser and an application");
    assert!(!is_signed_in(&stage.ada.visitor).await);
    get_profile(&stage.app, &tokens.access).await.expect(401);
    refused(
        stage.notes.refresh(&tokens.refresh).await,
        400,
        "invalid_grant",
    );
    assert!(is_signed_in(&bob.visitor).await);
    json_login(&stage.app, &stage.ada.email, &stage.ada.password)
        .await
        .expect(200);
}

#[tokio::test]
async fn a_password_that_an_operator_sets_ends_what_there_was() {
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    let password = GOOD.into();
    stage
        .app
        .control_plane
        .create_user("Ada", &stage.ada.email, &password)
        .await
        .unwrap();
    assert!(!is_signed_in(&stage.ada.visitor).await);
    get_profile(&stage.app, &tokens.access).await.expect(401);
    json_login(&stage.app, &stage.ada.email, &stage.ada.password)
        .await
        .expect(401);
    json_login(&stage.app, &stage.ada.email, GOOD)
        .await
        .expect(200);
}

#[tokio::test]
async fn an_operator_lists_people() {
    let (app, _) = installation().await;
    for name in ["Ada", "Bob", "Cleo"] {
        app.stranger(name).await;
    }
    let all = app.control_plane.list_users(10).await.unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!(app.control_plane.list_users(2).await.unwrap().len(), 2);
}
