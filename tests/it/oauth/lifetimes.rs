//! How long tokens and sign-ins live.

use chrono::TimeDelta;

use crate::stage::{Stage, Tokens, refused};

#[tokio::test]
async fn an_unused_refresh_token_lives_for_30_days() {
    let stage = Stage::new().await;
    let tokens = stage.tokens().await;
    stage.clock.advance(TimeDelta::days(29));
    let tokens = Tokens::of(&stage.notes.refresh(&tokens.refresh).await.expect(200));
    stage.clock.advance(TimeDelta::days(29));
    let tokens = Tokens::of(&stage.notes.refresh(&tokens.refresh).await.expect(200));
    stage
        .clock
        .advance(TimeDelta::days(30) + TimeDelta::seconds(1));
    refused(
        stage.notes.refresh(&tokens.refresh).await,
        400,
        "invalid_grant",
    );
}

#[tokio::test]
async fn a_sign_in_lives_for_a_year() {
    let stage = Stage::new().await;
    let mut tokens = stage.tokens().await;
    for _ in 0..18 {
        stage.clock.advance(TimeDelta::days(20));
        tokens = Tokens::of(&stage.notes.refresh(&tokens.refresh).await.expect(200));
    }
    stage.notes.profile(&tokens.access).await.expect(200);
    stage.clock.advance(TimeDelta::days(6));
    refused(
        stage.notes.refresh(&tokens.refresh).await,
        400,
        "invalid_grant",
    );
}

#[tokio::test]
async fn an_access_token_does_not_outlive_its_sign_in() {
    let stage = Stage::new().await;
    let mut tokens = stage.tokens().await;
    for _ in 0..18 {
        stage.clock.advance(TimeDelta::days(20));
        tokens = Tokens::of(&stage.notes.refresh(&tokens.refresh).await.expect(200));
    }
    // 365 days less half an hour.
    stage
        .clock
        .advance(TimeDelta::days(5) - TimeDelta::minutes(30));
    let last = stage.notes.refresh(&tokens.refresh).await.expect(200);
    let last = Tokens::of(&last);
    stage.notes.profile(&last.access).await.expect(200);
    stage.clock.advance(TimeDelta::minutes(35));
    stage.notes.profile(&last.access).await.expect(401);
}
