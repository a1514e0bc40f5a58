//! Operators' commands, as programs see them (`--json`) and as people do.

use std::time::Duration;

use cp_tests::programs::{Dev, Home, NO_POOL, Said};
use cp_tests::{PartnerClient, eventually};
use serde_json::{Value, json};

async fn answers_soon(partner: &PartnerClient, status: u16) {
    let what = format!("the API answers {status}");
    eventually(&what, Duration::from_secs(3), async || {
        let answer = partner.get("/projects").await;
        (answer.status == status).then_some(())
    })
    .await;
}

#[tokio::test]
async fn operators_lead_partners_keys_and_operations() {
    let dev = Dev::start_with(&[NO_POOL]).await;
    partners(&dev).await;
    signing_keys(&dev).await;
    operations(&dev).await;
    the_doctor(&dev).await;
    people(&dev).await;
    sites(&dev).await;
}

async fn operator(dev: &Dev, line: &str) -> Said {
    let args: Vec<&str> = line.split(' ').collect();
    dev.home().operator(&args).await
}

async fn partners(dev: &Dev) {
    let made = operator(
        dev,
        "partner create Acme --model white_label --rate-limit 500 --json",
    );
    let made = made.await.json();
    assert_eq!(made["model"], "white_label");
    assert_eq!(made["rate_limit"], 500);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let (id, secret) = (text(&made["id"]), text(&made["secret"]));
    let mut acme = dev.partner.with_secret(&secret);
    acme.id.clone_from(&id);
    acme.get("/projects").await.expect(200);

    let list = operator(dev, "partner list --json").await;
    assert!(!list.out.contains(&secret), "secrets are shown once");
    let ids: Vec<Value> = list
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["id"].clone())
        .collect();
    assert_eq!(ids.len(), 2);
    assert!(ids.contains(&json!(id)) && ids.contains(&json!(dev.partner.id)));

    let suspended = operator(dev, &format!("partner suspend {id} --yes --json"))
        .await
        .json();
    assert!(suspended["suspended_at"].is_string());
    // Within the second for which the API may remember it, if the notification of it is slow.
    answers_soon(&acme, 403).await;
    dev.partner.get("/projects").await.expect(200);
    let resumed = operator(dev, &format!("partner resume {id} --json"))
        .await
        .json();
    assert_eq!(resumed["suspended_at"], Value::Null);
    answers_soon(&acme, 200).await;

    let rotated = operator(dev, &format!("partner rotate-secret {id} --json"))
        .await
        .json();
    let new = acme.with_secret(&text(&rotated["secret"]));
    assert!(rotated["previous_secret_until"].is_string());
    acme.get("/projects").await.expect(200);
    new.get("/projects").await.expect(200);
    let leaked = format!("partner rotate-secret {id} --overlap 0s --json");
    let newest = acme.with_secret(&text(&operator(dev, &leaked).await.json()["secret"]));
    newest.get("/projects").await.expect(200);
    answers_soon(&new, 401).await;
    answers_soon(&acme, 401).await;

    let unknown = operator(dev, "partner suspend ps_0000000000000000 --yes").await;
    assert!(unknown.refused().contains("partner list"), "{unknown:?}");
    let unknown = operator(dev, "partner suspend ps_0000000000000000 --yes --json").await;
    let error: Value = serde_json::from_str(unknown.refused()).expect("errors are JSON, too");
    assert!(
        error["error"].is_string() && error["hint"].is_string(),
        "{error}"
    );
}

async fn signing_keys(dev: &Dev) {
    let keys = async |line: &str| operator(dev, line).await.json().as_array().unwrap().clone();
    let before = keys("signing-key list --json").await;
    assert_eq!(before.len(), 1);
    assert_eq!(before[0]["state"], "active");
    let active = before[0]["kid"].as_str().expect("a kid");

    let refused = operator(dev, &format!("signing-key retire {active} --yes")).await;
    assert!(
        refused.refused().contains("signing-key rotate"),
        "{refused:?}"
    );
    let after = keys("signing-key rotate --json").await;
    assert_eq!(after.len(), 2, "{after:?}");
    let state = |kid: &str| {
        let key = after.iter().find(|key| key["kid"] == kid);
        key.expect("it is listed")["state"].clone()
    };
    assert_eq!(state(active), "active", "the next one is published first");
    let jwks = reqwest::Client::builder().no_proxy().build().unwrap();
    cp_tests::eventually(
        "both are published",
        std::time::Duration::from_secs(30),
        async || {
            let url = format!("{}/.well-known/jwks.json", dev.partner.base_url);
            let body: Value = jwks.get(url).send().await.ok()?.json().await.ok()?;
            (body["keys"].as_array()?.len() == 2).then_some(())
        },
    )
    .await;
    let unknown = operator(dev, "signing-key retire kid_none --yes").await;
    assert!(unknown.refused().contains("kid_none"), "{unknown:?}");
}

async fn operations(dev: &Dev) {
    let shop = dev.create("shop").await;
    let list = operator(dev, &format!("operation list --project {} --json", shop.id)).await;
    let list = list.json();
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    let id = list[0]["id"].as_str().expect("an id");
    let shown = operator(dev, &format!("operation show {id} --json"))
        .await
        .json();
    assert_eq!(shown["id"], id);
    assert_eq!(shown["state"], "succeeded");
    assert_eq!(shown["project_id"], shop.id);
    for (verb, part) in [("retry", "succeeded"), ("cancel", "succeeded")] {
        let refused = operator(dev, &format!("operation {verb} {id}")).await;
        assert!(refused.refused().contains(part), "{refused:?}");
    }
    let none = operator(dev, "operation show 01890a5d-ac96-774b-bcce-b302099a8057").await;
    assert!(none.refused().contains("operation list"), "{none:?}");
    // For people: columns, and nothing on stderr.
    let table = operator(dev, "operation list").await;
    assert!(
        table.out.starts_with("ID ") && table.out.contains("provision"),
        "{table:?}"
    );
    assert_eq!(table.err, "");
}

async fn the_doctor(dev: &Dev) {
    let healthy = operator(dev, "doctor --json").await;
    let report = healthy.json();
    assert_eq!(report["ok"], true, "{report}");
    let database = std::fs::read_to_string(dev.data().join("postgres-password")).unwrap();
    assert!(
        !healthy.out.contains(database.trim()),
        "the URL is not masked"
    );
    let url = report["configuration"].as_array().unwrap().iter();
    let url = url.clone().find(|entry| entry["key"] == "database.url");
    assert!(
        url.is_some_and(|url| url["value"].to_string().contains("***")),
        "{url:?}"
    );

    let broken = [
        (
            "INSFORGE_DATABASE_URL",
            "postgres://x:hidden-word@127.0.0.1:1/x",
        ),
        ("INSFORGE_AGENT_BIN", "/nowhere"),
    ];
    let sick = dev
        .home()
        .operator_with(&["doctor", "--json"], &broken)
        .await;
    assert_eq!(sick.code, Some(1), "{sick:?}");
    let report: Value = serde_json::from_str(&sick.out).expect("a report all the same");
    let failed = report["checks"].as_array().unwrap().iter();
    let failed: Vec<_> = failed
        .filter(|c| c["verdict"] == "failed")
        .map(|c| &c["name"])
        .collect();
    assert_eq!(failed, ["database", "agent"], "{report}");
    assert!(!sick.out.contains("hidden-word") && !sick.err.contains("hidden-word"));
}

async fn people(dev: &Dev) {
    let made = operator(dev, "user create --email ada@example.com --name Ada --json")
        .await
        .json();
    let id = made["id"].as_str().expect("an id");
    assert!(
        made["password"].as_str().is_some_and(|p| p.len() >= 20),
        "{made}"
    );
    let plan = operator(dev, &format!("user set-plan {id} pro --json"))
        .await
        .json();
    assert_eq!(plan["plan"], "pro");
}

async fn sites(dev: &Dev) {
    let shop = dev.create("site").await;
    let token = dev.data().join("vercel-token");
    std::fs::write(&token, "vcp_hidden-word\n").unwrap();
    let line = format!(
        "site set {} --team-id team_a1 --vercel-project-id prj_a1 --token-file {} --expires-at 2099-01-31T00:00:00Z --json",
        shop.id,
        token.display()
    );
    let set = operator(dev, &line).await;
    assert!(!set.out.contains("hidden-word"), "{set:?}");
    let set = set.json();
    assert_eq!(set["team_id"], "team_a1");
    assert_eq!(set["token_expires_at"], "2099-01-31T00:00:00Z");
    assert_eq!(set["has_webhook_secret"], false);
    let shown = operator(dev, &format!("site show {} --json", shop.id)).await;
    assert_eq!(shown.json(), set);
    let shown = operator(dev, &format!("site show {}", shop.id)).await;
    assert!(shown.out.contains("prj_a1"), "{shown:?}");

    let nowhere = line.replace("vercel-token", "no-token");
    let refused = operator(dev, &nowhere).await;
    assert!(refused.refused().contains("no-token"), "{refused:?}");
    let removed = operator(dev, &format!("site remove {} --yes --json", shop.id)).await;
    assert_eq!(removed.json()["removed"], true);
    let none = operator(dev, &format!("site show {}", shop.id)).await;
    assert!(none.refused().contains("site set"), "{none:?}");
}

#[tokio::test]
async fn without_a_database_commands_say_what_to_configure() {
    let home = Home::new();
    for line in [
        "partner list",
        "operation list",
        "signing-key list",
        "migrate",
        "serve",
        "work",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let base = [("INSFORGE_HTTP_BASE_URL", "http://127.0.0.1:1")];
        let said = home.run(&args, &base).await;
        let message = said.refused();
        for part in ["database.url", "INSFORGE_DATABASE_URL", "--data-dir"] {
            assert!(message.contains(part), "{line}: {message}");
        }
    }
    let misspelt = [("INSFORGE_DATABASE_ULR", "x")];
    let said = home.run(&["partner", "list"], &misspelt).await;
    assert!(said.refused().contains("INSFORGE_DATABASE_ULR"), "{said:?}");
}

#[tokio::test]
async fn every_command_explains_itself() {
    let home = Home::new();
    let mut commands: Vec<Vec<String>> = vec![Vec::new()];
    let mut seen = 0;
    while let Some(command) = commands.pop() {
        let mut args: Vec<&str> = command.iter().map(String::as_str).collect();
        args.push("--help");
        let said = home.run(&args, &[]).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        let help = &said.out;
        assert!(help.contains("Usage: insforge-cloud"), "{help}");
        let about = help.lines().next().unwrap_or_default();
        assert!(
            about.len() > 5 && !about.contains("Usage"),
            "{command:?}: {help}"
        );
        seen += 1;
        for name in subcommands(help) {
            commands.push([&command[..], &[name]].concat());
        }
    }
    assert!(seen > 20, "only {seen} commands were found");
}

/// The first words of the lines under `Commands:`, which must all have a second.
fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    lines
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| {
            let (name, about) = line.trim().split_once(' ')?;
            assert!(!about.trim().is_empty(), "{name} has no description");
            (name != "help").then(|| name.to_owned())
        })
        .collect()
}
