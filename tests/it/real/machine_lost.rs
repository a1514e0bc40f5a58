//! Somebody deletes the folder of a machine.

use std::time::Duration;

use cp_tests::eventually;
use cp_tests::programs::{Dev, NO_POOL};
use serde_json::Value;

#[tokio::test]
async fn a_deleted_machine_is_found_and_an_operator_decides() {
    let often = ("INSFORGE_WORKER_RECONCILE_EVERY", "1s");
    let dev = Dev::start_with(&[NO_POOL, often]).await;
    let shop = dev.create("shop").await;
    shop.write("before").await;
    let machine = dev.home().machine_at(&shop.host);

    // Its Postgres writes files while we delete them.
    eventually("the folder is gone", Duration::from_secs(5), async || {
        let _ = std::fs::remove_dir_all(&machine);
        (!machine.exists()).then_some(())
    })
    .await;

    eventually("its processes end", Duration::from_secs(20), async || {
        dev.home().processes_of(&machine).is_empty().then_some(())
    })
    .await;
    let project: Value = eventually("the project failed", Duration::from_secs(30), async || {
        let project = dev.partner.metadata(&shop.id).await.expect(200)["project"].clone();
        (project["status"] == "failed").then_some(project)
    })
    .await;
    assert_eq!(project["failure"]["code"], "machine_lost", "{project}");

    let list = ["operation", "list", "--state", "failed", "--json"];
    let failed = dev.home().operator(&list).await.json();
    assert_eq!(failed.as_array().map(Vec::len), Some(1), "{failed}");
    assert_eq!(failed[0]["project_id"], shop.id);
    assert_eq!(failed[0]["error_code"], "machine_lost");
    let id = failed[0]["id"].as_str().expect("an id");

    let why = dev.home().operator(&["operation", "retry", id]).await;
    for part in ["gone with its disk", "no backup", "--accept-data-loss"] {
        assert!(why.refused().contains(part), "{why:?}");
    }
    assert_eq!(dev.status(&shop.id).await, "failed");

    let retry = ["operation", "retry", id, "--accept-data-loss", "--json"];
    let retried = dev.home().operator(&retry).await.json();
    assert_eq!(retried["kind"], "rebuild");
    let project = eventually("it is active", Duration::from_secs(30), async || {
        let project = dev.partner.metadata(&shop.id).await.expect(200)["project"].clone();
        (project["status"] == "active").then_some(project)
    })
    .await;
    let rebuilt = cp_tests::programs::Backend::of(&project);
    assert_eq!(rebuilt.key, shop.key, "its owner's programs go on");
    let tables = rebuilt.try_sql("select * from notes").await;
    assert_ne!(tables.map(|answer| answer.status), Some(200), "it is empty");
    rebuilt.write("after").await;
    assert_eq!(dev.home().machines().len(), 1);
}
