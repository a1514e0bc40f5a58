//! `dev` ends and comes back: orderly, killed, at another address, twice at once.

use std::time::Duration;

use cp_tests::programs::{Dev, NO_POOL};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn projects_answer_again_after_ctrl_c_also_at_another_address() {
    let dev = Dev::start_with(&[NO_POOL]).await;
    let shop = dev.create("shop").await;
    let closed = dev.create("closed").await;
    shop.write("before").await;
    dev.partner.pause(&closed.id).await.expect(200);
    let listen = dev.listen();
    let objects = dev.data().join("objects");
    assert!(objects.join("us-east").is_dir(), "there is no bucket");
    let served = std::fs::File::open(objects.join("lock")).unwrap();
    assert!(served.try_lock().is_err(), "nobody serves objects");

    let home = dev.interrupt().await;
    home.nothing_runs(Duration::from_secs(2)).await;
    served.try_lock().expect("nobody serves objects any more");
    drop(served);

    let dev = Dev::start_at(home, &listen, &[NO_POOL]).await;
    shop.until_read("before", SOON).await;
    assert_eq!(dev.status(&shop.id).await, "active");
    assert_eq!(dev.status(&closed.id).await, "paused");
    assert!(!closed.answers().await, "a paused project was started");

    let home = dev.interrupt().await;
    let dev = Dev::start_in(home, &[NO_POOL]).await;
    assert_ne!(dev.listen(), listen);
    shop.until_read("before", SOON).await;
    // Its backend must have learned where our keys are now.
    let path = format!("/{}/authorization", shop.id);
    let authorization = dev.partner.post(&path, &serde_json::json!({})).await;
    let code = authorization.expect(200)["code"].clone();
    cp_tests::eventually("the backend accepts us", SOON, async || {
        let answer = shop.try_exchange(code.as_str().expect("a code")).await?;
        (answer.status == 200).then_some(())
    })
    .await;
    dev.partner.restore(&closed.id).await.expect(200);
    assert!(closed.answers().await);
    let home = dev.interrupt().await;
    home.nothing_runs(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn a_killed_dev_leaves_projects_serving_and_the_next_one_takes_them_over() {
    let dev = Dev::start_with(&[NO_POOL]).await;
    let shop = dev.create("shop").await;
    shop.write("before").await;
    let machine = dev.home().machine_at(&shop.host);
    let listen = dev.listen();

    let home = dev.kill().await;
    shop.until_read("before", Duration::from_secs(1)).await;
    let before = pids(&home, &machine);
    assert!(before.len() >= 3, "agent, backend, Postgres: {before:?}");

    let dev = Dev::start_at(home, &listen, &[NO_POOL]).await;
    assert_eq!(dev.status(&shop.id).await, "active");
    shop.until_read("before", SOON).await;
    assert_eq!(pids(dev.home(), &machine), before, "nothing was restarted");
    assert_eq!(dev.home().machines().len(), 1);
    // They are not only left alone, they are led.
    dev.partner.pause(&shop.id).await.expect(200);
    assert!(pids(dev.home(), &machine).is_empty());
    dev.partner.restore(&shop.id).await.expect(200);
    shop.until_read("before", SOON).await;

    // Killed again, and back at another address: the agents looked for us at the old one.
    let home = dev.kill().await;
    let dev = Dev::start_in(home, &[NO_POOL]).await;
    shop.until_read("before", SOON).await;
    dev.partner.pause(&shop.id).await.expect(200);
    let home = dev.interrupt().await;
    home.nothing_runs(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn a_second_dev_on_the_same_folder_is_refused_and_harms_nothing() {
    let dev = Dev::start_with(&[NO_POOL]).await;
    let home = dev.home();
    let args = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let second = home.operator(&[&["dev"], &args[..]].concat()).await;
    let message = second.refused();
    for part in [
        "another `insforge-cloud dev`",
        &dev.pid().to_string(),
        "--data-dir",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(message.lines().count(), 1, "{message}");
    dev.partner.get("/projects").await.expect(200);

    let taken = home
        .run(
            &["dev", "--listen", &dev.listen(), "--data-dir", "other"],
            &[],
        )
        .await;
    let message = taken.refused();
    assert!(message.contains("--listen"), "{message}");
    assert!(!home.path().join("other").exists(), "it left a folder");
}

/// Of the processes of a machine that name it; Postgres's own children come and go.
fn pids(home: &cp_tests::programs::Home, machine: &std::path::Path) -> Vec<u32> {
    let mut pids: Vec<u32> = home
        .processes_of(machine)
        .into_iter()
        .filter(|process| !process.command.starts_with("postgres:"))
        .map(|process| process.pid)
        .collect();
    pids.sort_unstable();
    pids
}
