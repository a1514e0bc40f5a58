//! A project's owner gives the backend another API key, of which the backend tells nobody.

use cp_tests::Answer;
use cp_tests::programs::{Backend, Dev, NO_POOL};
use serde_json::json;

#[tokio::test]
async fn a_project_with_another_key_is_restored_and_its_partner_learns_the_key() {
    let dev = Dev::start_with(&[NO_POOL]).await;
    let shop = dev.create("shop").await;
    shop.write("before").await;
    let rotate = format!("{}/api/secrets/api-key/rotate", shop.host);
    let request = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = request.post(rotate).bearer_auth(&shop.key);
    let rotated = Answer::to(request.json(&json!({ "gracePeriodHours": 0 }))).await;
    let key = rotated.expect(200)["apiKey"].as_str().unwrap().to_owned();
    assert_ne!(key, shop.key);

    dev.partner.pause(&shop.id).await.expect(200);
    dev.partner.restore(&shop.id).await.expect(200);
    let metadata = dev.partner.metadata(&shop.id).await.expect(200);
    let restored = Backend::of(&metadata["project"]);
    assert_eq!(restored.key, key);
    restored
        .until_read("before", std::time::Duration::from_secs(5))
        .await;
}
