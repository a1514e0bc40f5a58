//! The `compose` runtime: what a machine does in its life. What may go wrong at each step is in
//! `faults.rs`.

use super::{docker::*, machine::*, *};

#[tokio::test]
async fn a_warm_machine_has_its_images_and_no_identity_until_a_project_comes() {
    let mut machine = Machine::new().await;
    machine.start();
    machine
        .control
        .until(0, |report| report.state == ObservedState::Idle)
        .await;
    let pulled = machine.docker.state().images.len();
    assert_eq!(pulled, 3, "no functions folder, no function host");
    assert!(!machine.calls().iter().any(|call| call.contains("up")));
    assert!(!machine.data("environment.json").exists());

    let before = machine.calls().len();
    let report = machine.until_serving(None, 0).await;
    assert_eq!(report.backend_release.as_deref(), Some(V1));
    let calls = machine.calls()[before..].join("\n");
    assert!(!calls.contains("pull"), "{calls}");
    for (name, value) in &machine.backend(None, 0).env {
        if name != "PORT" {
            assert_eq!(
                machine.docker.variable(name).as_ref(),
                Some(value),
                "{name}"
            );
        }
    }
    // The same again changes nothing; a grown count restarts.
    machine.until_serving(None, 0).await;
    assert_eq!(machine.started(), [V1]);
    machine.until_serving(None, 1).await;
    assert_eq!(machine.started(), [V1, V1]);
    machine.check();
    machine.stop().await;
}

#[tokio::test]
async fn a_warm_machine_whose_images_are_not_to_be_had_says_so_and_goes_on_trying() {
    let mut machine = Machine::new().await;
    let image = "postgrest/postgrest:v12.2.12".to_owned();
    machine.docker.state().unpullable.insert(image);
    machine.start();
    let message = machine.until_failing(0).await.message.unwrap();
    assert_eq!(
        message,
        "`docker pull postgrest/postgrest:v12.2.12` failed: manifest unknown"
    );
    // So it does for a project that cannot wait for anything else.
    let generation = machine.want(Some(V1), 0);
    let report = machine.until_failing(generation).await;
    assert!(report.message.unwrap().contains("manifest unknown"));
    machine.docker.state().unpullable.clear();
    machine.control.until(0, serving(generation)).await;
    machine.stop().await;
}

#[tokio::test]
async fn a_release_that_does_not_become_healthy_is_rolled_back_until_asked_for_again() {
    let mut machine = Machine::new().await;
    machine.start_seconds = 3;
    machine.docker.state().unhealthy.insert(V2.to_owned());
    machine.start();
    machine.until_serving(Some(V1), 0).await;

    let generation = machine.want(Some(V2), 1);
    let report = machine.until_failing(generation).await;
    assert_eq!(report.rolled_back_from.as_deref(), Some(V2));
    assert_eq!(report.backend_release.as_deref(), Some(V1));
    assert_eq!(report.backend_version.as_deref(), Some("2.3.1"));
    assert_eq!(report.restarts, 1);
    let message = report.message.unwrap();
    assert!(
        message.starts_with("release v2.4.0 did not become healthy; running v2.3.1 again: the backend does not answer, ")
            && message.contains("insforge-insforge-1: Restarting (1)"),
        "{message}"
    );
    assert_eq!(machine.started(), [V1, V2, V1]);

    // Neither a new agent nor a reboot tries it again.
    machine.stop().await;
    machine.docker.reboot().await;
    let before = machine.control.reports();
    machine.start();
    let again = machine
        .control
        .until(before, |report| report.rolled_back_from.is_some())
        .await;
    assert_eq!(again.message.unwrap(), message);
    assert_eq!(machine.started(), [V1, V2, V1, V1]);

    // The control plane takes the old release for what it is: nothing to restart.
    let report = machine.until_serving(Some(V1), 1).await;
    assert_eq!(report.rolled_back_from, None);
    assert_eq!(machine.started().len(), 4);

    // Mended, and asked for once more.
    machine.docker.state().unhealthy.clear();
    let report = machine.until_serving(Some(V2), 2).await;
    assert_eq!(report.backend_release.as_deref(), Some(V2));
    assert_eq!(machine.docker.release().as_deref(), Some(V2));
    machine.check();
    machine.stop().await;
}

#[tokio::test]
async fn a_release_that_is_not_to_be_had_never_stops_the_one_that_serves() {
    let mut machine = Machine::new().await;
    machine.start();
    machine.until_serving(Some(V1), 0).await;
    let image = format!("ghcr.io/insforge/insforge-oss:{V2}");
    machine.docker.state().unpullable.insert(image);
    let generation = machine.want(Some(V2), 1);
    let report = machine.until_failing(generation).await;
    assert_eq!(report.rolled_back_from.as_deref(), Some(V2));
    let message = report.message.unwrap();
    assert!(message.contains("manifest unknown"), "{message}");
    let generation = machine.want(Some("-rf"), 2);
    let report = machine.until_failing(generation).await;
    let message = report.message.unwrap();
    assert!(
        message.contains("`-rf` is not the name of a release"),
        "{message}"
    );
    machine.until_serving(Some(V1), 2).await;
    assert_eq!(machine.started(), [V1], "not even restarted");
    machine.stop().await;
}

#[tokio::test]
async fn a_release_over_which_agents_are_killed_is_rolled_back() {
    let mut machine = Machine::new().await;
    machine.start();
    machine.until_serving(Some(V1), 0).await;
    machine.docker.until_called(1, "image ls").await;
    machine.docker.state().unhealthy.insert(V2.to_owned());
    machine.docker.state().always = vec![("compose up", Fault::AgentKilled)];
    let generation = machine.want(Some(V2), 1);
    machine.docker.until_called(4, "compose up").await;
    machine.docker.state().always.clear();
    let report = machine.until_failing(generation).await;
    let message = report.message.unwrap();
    assert!(
        message.contains("was ended 3 times before it served"),
        "{message}"
    );
    assert_eq!(machine.docker.release().as_deref(), Some(V1));
    machine.stop().await;
}

#[tokio::test]
async fn when_the_old_release_does_not_come_back_either_it_says_both_and_goes_on_trying() {
    let mut machine = Machine::new().await;
    machine.start_seconds = 2;
    machine.start();
    machine.until_serving(Some(V1), 0).await;
    machine.docker.state().unhealthy = [V1, V2].map(str::to_owned).into();
    let generation = machine.want(Some(V2), 1);
    let report = machine.until_failing(generation).await;
    let message = report.message.unwrap();
    assert!(
        message.starts_with("neither release v2.4.0 became healthy (")
            && message.contains("nor v2.3.1 again"),
        "{message}"
    );
    assert_eq!(report.rolled_back_from, None, "nothing serves");
    machine.docker.state().unhealthy.clear();
    let report = machine
        .control
        .until(0, |report| report.rolled_back_from.is_some())
        .await;
    assert_eq!(report.backend_release.as_deref(), Some(V1));
    machine.stop().await;
}

#[tokio::test]
async fn the_agents_end_and_its_upgrade_leave_the_containers_alone() {
    let mut machine = Machine::new().await;
    machine.start();
    machine.until_serving(Some(V1), 0).await;
    machine.docker.until_called(1, "image ls").await;
    machine.stop().await;
    let key = machine.backend(None, 0).env["ACCESS_API_KEY"].clone();
    let url = format!("http://127.0.0.1:{}/api/metadata/project-id", machine.port);
    let ask = || reqwest::Client::new().get(&url).bearer_auth(&key).send();
    assert!(ask().await.unwrap().status().is_success());

    // Another agent with other defaults, and a control plane that is away.
    let path = machine.dir.path().join("agent.json");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace(V1, V2)).unwrap();
    machine.control.seen.lock().unwrap().refuse_tokens = true;
    let calls = machine.calls().len();
    machine.start();
    machine.docker.until_called(2, "image ls").await;
    assert_eq!(
        machine.calls()[calls..],
        ["image ls ghcr.io/insforge/insforge-oss"]
    );
    assert_eq!(machine.started(), [V1]);
    machine.stop().await;

    // A reboot: docker has the containers up before the agent is.
    machine.docker.reboot().await;
    machine.start();
    machine.docker.until_called(3, "image ls").await;
    assert!(ask().await.unwrap().status().is_success());
    assert_eq!(machine.started(), [V1, V1]);
    assert_eq!(machine.control.seen.lock().unwrap().registrations.len(), 1);
    machine.check();
    machine.stop().await;
}

#[tokio::test]
async fn a_backend_that_ends_or_accepts_no_key_is_restarted() {
    let mut machine = Machine::new().await;
    machine.docker.state().seedless.insert(V1.to_owned());
    machine.start();
    let generation = machine.want(None, 0);
    machine.control.until(0, serving(generation)).await;
    assert_eq!(machine.started(), [V1, V1], "its seeding had failed");
    // It hangs: docker sees nothing of that, and `up` alone would change nothing.
    let before = machine.control.reports();
    machine.docker.hang_server();
    let starting = machine
        .control
        .until(before, |report| report.state == ObservedState::Starting)
        .await;
    assert_eq!(
        (starting.generation, starting.backend_version),
        (generation, None)
    );
    machine.control.until(before, serving(generation)).await;
    assert_eq!(machine.started().len(), 3);
    machine.stop().await;
}

#[tokio::test]
async fn another_database_password_reaches_the_database_before_the_server() {
    let mut machine = Machine::new().await;
    machine.start();
    machine.until_serving(Some(V1), 0).await;
    let new = "another 'one' with $PATH".to_owned();
    let desired = DesiredBackend {
        database_password: new.clone(),
        ..machine.backend(Some(V1), 0)
    };
    // The note of the change is lost once, too.
    machine.docker.state().always = vec![("compose exec", Fault::FailsAfter)];
    let generation = machine.control.want(Some(desired));
    machine.docker.until_called(1, "compose exec").await;
    machine.docker.state().always.clear();
    machine.control.until(0, serving(generation)).await;
    assert_eq!(
        machine.docker.state().database_password.as_ref(),
        Some(&new)
    );
    assert_eq!(
        machine.docker.variable("POSTGRES_PASSWORD"),
        Some(new.clone())
    );
    for call in &machine.docker.state().calls {
        assert!(!call.args.join(" ").contains(&new));
    }
    assert!(!machine.log().contains(&new));
    machine.stop().await;
}

#[tokio::test]
async fn a_machine_that_held_a_project_is_for_no_other_and_never_warm_again() {
    let mut machine = Machine::new().await;
    machine.start();
    machine.until_serving(Some(V1), 0).await;
    let idle = |report: &ReportRequest| report.state == ObservedState::Idle;
    let was_idle = machine
        .control
        .seen
        .lock()
        .unwrap()
        .reports
        .iter()
        .filter(|r| idle(r))
        .count();

    let stranger = ProjectId::generate();
    let generation = machine.control.want(Some(Lab::backend(stranger, 0)));
    let report = machine.until_failing(generation).await;
    let message = report.message.unwrap();
    assert!(message.contains(&machine.project.to_string()), "{message}");
    assert_eq!(
        machine.docker.variable("PROJECT_ID"),
        Some(machine.project.to_string())
    );

    let generation = machine.control.want(None);
    machine.until_failing(generation).await;
    assert_nothing_runs(&machine);
    // Its own project may come back, to its data.
    machine.until_serving(Some(V1), 0).await;
    assert_eq!(machine.docker.state().volumes.len(), 1);
    machine.check();
    machine.stop().await;
    let notes = fs::read_to_string(machine.data("stack.json")).unwrap();
    assert!(notes.contains(r#""settled":true"#), "{notes}");
    let reports = &machine.control.seen.lock().unwrap().reports;
    assert_eq!(reports.iter().filter(|r| idle(r)).count(), was_idle);
}

pub(super) fn assert_nothing_runs(machine: &Machine) {
    assert_eq!(machine.docker.release(), None);
    for name in ["environment.json", "machine.env", "postgres/machine.conf"] {
        assert!(!machine.data(name).exists(), "{name}");
    }
    // Whose it was is never forgotten.
    let notes = fs::read_to_string(machine.data("stack.json")).unwrap();
    assert!(notes.contains(&machine.project.to_string()));
    assert!(!notes.contains("JWT_SECRET"));
}

#[tokio::test]
async fn left_overs_of_anybody_are_refused() {
    let mut machine = Machine::new().await;
    let owner = ProjectId::generate().to_string();
    machine
        .docker
        .state()
        .volumes
        .insert("insforge-x-postgres".to_owned(), owner.clone());
    machine.start();
    let report = machine.until_failing(0).await;
    assert!(report.message.unwrap().contains(&owner));
    let generation = machine.want(None, 0);
    let report = machine.until_failing(generation).await;
    assert!(report.message.unwrap().contains(&owner));
    assert!(machine.started().is_empty());
    machine.stop().await;

    // What another machine kept, say in an image that was taken of it.
    let mut copied = Machine::new().await;
    fs::create_dir_all(copied.data("")).unwrap();
    for name in ["agent-token.json", "desired.json"] {
        if machine.data(name).exists() {
            fs::copy(machine.data(name), copied.data(name)).unwrap();
        }
    }
    copied.start();
    while !copied.log().contains("was kept by machine") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // It ends, is started, and ends.
    let (_, unit) = copied.systemd.take().unwrap();
    unit.abort();
    assert!(copied.control.seen.lock().unwrap().registrations.is_empty());
    assert!(copied.calls().is_empty());
}

/// A disk that lost or garbled what was written last.
#[tokio::test]
async fn notes_that_are_half_written_do_not_end_a_backend() {
    for name in [
        "stack.json",
        "desired.json",
        "environment.json",
        "compose.yaml",
    ] {
        let mut machine = Machine::new().await;
        machine.start();
        machine.until_serving(Some(V1), 0).await;
        machine.docker.until_called(1, "image ls").await;
        machine.stop().await;
        let path = machine.data(name);
        let text = fs::read(&path).unwrap();
        if name.starts_with("compose") || name.starts_with("environment") {
            fs::remove_file(&path).unwrap();
        } else {
            fs::write(&path, &text[..text.len() / 2]).unwrap();
        }
        fs::write(self::aside(&path), "half").unwrap();
        let before = machine.control.reports();
        machine.start();
        let generation = machine.control.desired.borrow().generation;
        machine.control.until(before, serving(generation)).await;
        assert_eq!(machine.docker.release().as_deref(), Some(V1), "{name}");
        let stopped = machine.calls().iter().any(|call| call.contains("down"));
        assert!(!stopped, "{name}");
        machine.until_serving(Some(V2), 1).await;
        machine.check();
        machine.stop().await;
    }
}

fn aside(path: &std::path::Path) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    aside.into()
}

#[tokio::test]
async fn old_releases_go_but_for_the_one_before() {
    let mut machine = Machine::new().await;
    machine.start();
    for (restarts, release) in [V1, V2, "v2.5.0", "v2.6.0"].into_iter().enumerate() {
        machine
            .until_serving(Some(release), i64::try_from(restarts).unwrap())
            .await;
        machine.docker.until_called(restarts + 1, "image ls").await;
    }
    machine.docker.until_called(1, "image rm").await;
    machine.stop().await;
    let state = machine.docker.state();
    let left: Vec<&str> = state
        .images
        .iter()
        .filter_map(|image| image.strip_prefix("ghcr.io/insforge/insforge-oss:"))
        .collect();
    // The first is the machine's default.
    assert_eq!(left, [V1, "v2.5.0", "v2.6.0"]);
}

#[test]
fn the_shortest_configuration_is_enough_and_a_wrong_one_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.json");
    let parse = |runtime: serde_json::Value, postgres: bool| {
        let mut config = serde_json::json!({
            "machine_id": MachineId::generate(),
            "control_url": "https://api.example.com",
            "bootstrap_token": "ibt_x",
            "port": 7130,
            "runtime": runtime,
        });
        if postgres {
            config["postgres"] = serde_json::json!({"binaries": "/", "port": 1, "password": "x"});
        }
        serde_json::from_value::<Config>(config).map_err(|error| error.to_string())
    };
    let compose = |more: serde_json::Value| {
        let mut runtime = serde_json::json!({"kind": "compose"});
        runtime
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        runtime
    };
    let config = parse(compose(serde_json::json!({})), false).unwrap();
    let Runtime::Compose(config) = config.runtime else {
        panic!("another runtime");
    };
    assert_eq!(config.images.insforge, "ghcr.io/insforge/insforge-oss");
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/insforge"));
    assert!(!config.grow_file_systems, "nobody's disks unasked");

    for (more, named) in [
        (serde_json::json!({"release": "a b"}), "runtime.release"),
        (
            serde_json::json!({"data_dir": "relative"}),
            "runtime.data_dir",
        ),
        (serde_json::json!({"data_dir": "/a$b"}), "runtime.data_dir"),
        (
            serde_json::json!({"project_name": "In Force"}),
            "runtime.project_name",
        ),
        (
            serde_json::json!({"images": {"deno": "-x"}}),
            "runtime.images.deno",
        ),
        (serde_json::json!({"registry": "x"}), "registry"),
    ] {
        let error = parse(compose(more), false).err().unwrap();
        assert!(error.contains(named), "{error}");
    }
    let error = parse(compose(serde_json::json!({})), true).err().unwrap();
    assert!(error.contains("`postgres`"), "{error}");
    let error = parse(serde_json::json!({"kind": "builtin"}), false)
        .err()
        .unwrap();
    assert!(error.contains("`postgres`"), "{error}");
    fs::write(&path, "{").unwrap();
    assert!(Config::load(&path).is_err());
}
