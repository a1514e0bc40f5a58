//! Clients and their secrets, as operators change them.

use chrono::TimeDelta;
use cp_tests::RelyingParty;

use crate::stage::{Stage, refused, soon};

#[tokio::test]
async fn two_secrets_live_while_one_is_exchanged_for_the_other() {
    let stage = Stage::new().await;
    let id = stage.notes.client_id.parse().unwrap();
    let hour = std::time::Duration::from_hours(1);
    let (_, new, ends) = stage
        .app
        .control_plane
        .rotate_client_secret(&id, hour)
        .await
        .unwrap();
    assert!(ends.is_some(), "the old one ends some time");
    let with_new = RelyingParty {
        client_secret: Some(secrecy::ExposeSecret::expose_secret(&new).to_owned()),
        ..stage.notes.clone()
    };
    for by in [&stage.notes, &with_new] {
        let code = stage.code().await;
        soon("both are taken", async || {
            (by.exchange(&code).await.status == 200).then_some(())
        })
        .await;
    }
    stage.clock.advance(TimeDelta::minutes(61));
    refused(stage.notes.exchange("iac_x").await, 401, "invalid_client");
    let code = stage.code().await;
    with_new.exchange(&code).await.expect(200);
    // A third one ends the oldest of two at once.
    let (_, third, _) = stage
        .app
        .control_plane
        .rotate_client_secret(&id, hour)
        .await
        .unwrap();
    let (_, fourth, _) = stage
        .app
        .control_plane
        .rotate_client_secret(&id, hour)
        .await
        .unwrap();
    soon("the oldest has ended", async || {
        (with_new.exchange("iac_x").await.status == 401).then_some(())
    })
    .await;
    for secret in [third, fourth] {
        let by = RelyingParty {
            client_secret: Some(secrecy::ExposeSecret::expose_secret(&secret).to_owned()),
            ..stage.notes.clone()
        };
        refused(by.exchange("iac_x").await, 400, "invalid_grant");
    }
}

#[tokio::test]
async fn a_client_that_is_enabled_again_goes_on() {
    let stage = Stage::new().await;
    let id = stage.notes.client_id.parse().unwrap();
    let cp = &stage.app.control_plane;
    cp.disable_oauth_client(&id, true).await.unwrap();
    soon("it is disabled", async || {
        (stage.notes.exchange("iac_x").await.status == 401).then_some(())
    })
    .await;
    cp.disable_oauth_client(&id, false).await.unwrap();
    soon("it is enabled", async || {
        (stage.notes.exchange("iac_x").await.status == 400).then_some(())
    })
    .await;
    stage.tokens().await;
    let listed = cp.list_oauth_clients().await.unwrap();
    let names: Vec<&str> = listed.iter().map(|client| client.name.as_str()).collect();
    assert!(names.contains(&"InsForge CLI"), "{names:?}");
    assert!(names.contains(&"Acme Notes"), "{names:?}");
}
