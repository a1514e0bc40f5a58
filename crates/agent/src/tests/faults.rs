//! The `compose` runtime when docker fails, hangs, or the agent is killed: at each call, and at any
//! time.

use super::{compose::assert_nothing_runs, docker::*, machine::*, *};

const FAULTS: [(Fault, &str); 4] = [
    (Fault::Fails, "fails"),
    (Fault::FailsAfter, "fails after its effect"),
    (Fault::Hangs, "hangs"),
    (Fault::AgentKilled, "agent killed after it"),
];

/// Warm, then a project, then another release of it.
async fn live(machine: &mut Machine) {
    machine.start();
    machine
        .control
        .until(0, |report| report.state == ObservedState::Idle)
        .await;
    machine.until_serving(Some(V1), 0).await;
    machine.docker.until_called(1, "image ls").await;
    let report = machine.until_serving(Some(V2), 1).await;
    assert_eq!(report.backend_version.as_deref(), Some("2.4.0"));
    assert_eq!(report.backend_release.as_deref(), Some(V2));
    assert_eq!((report.rolled_back_from, report.message), (None, None));
    machine.docker.until_called(2, "image ls").await;
}

/// What a life may bring besides: another password, a server that hangs, more releases.
async fn live_long(machine: &mut Machine) {
    machine.docker.state().images = [
        "ghcr.io/insforge/postgres:v15.13.4".to_owned(),
        "postgrest/postgrest:v12.2.12".to_owned(),
    ]
    .into_iter()
    .chain([V1, V2].map(|release| format!("ghcr.io/insforge/insforge-oss:{release}")))
    .chain(["ghcr.io/insforge/insforge-oss:v2.2.0".to_owned()])
    .collect();
    machine.start();
    machine.until_serving(Some(V2), 0).await;
    machine.docker.until_called(1, "image rm").await;

    let changed = || DesiredBackend {
        database_password: "another 'one' with $PATH".to_owned(),
        ..machine.backend(Some(V2), 0)
    };
    let generation = machine.control.want(Some(changed()));
    machine.control.until(0, serving(generation)).await;

    let before = machine.control.reports();
    machine.docker.hang_server();
    machine
        .control
        .until(before, |report| report.state == ObservedState::Starting)
        .await;
    let before = machine.control.reports();
    machine.control.until(before, serving(generation)).await;
    let password = machine.docker.variable("POSTGRES_PASSWORD");
    assert_eq!(password, Some(changed().database_password));
    assert_eq!(machine.docker.state().database_password, password);
    assert!(!machine.log().contains(&changed().database_password));
}

/// docker call × fault: each ends with the new release serving, and nothing was started twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_docker_call_fails_the_machine_ends_right() {
    let mut plain = Machine::new().await;
    live(&mut plain).await;
    plain.check();
    plain.stop().await;
    assert_eq!(plain.started(), [V1, V2]);
    enumerate(numbered(plain.calls()), |mut machine| async move {
        live(&mut machine).await;
        machine.check();
        machine.stop().await;
        assert_eq!(
            machine.started(),
            [V1, V2],
            "{:?}",
            machine.docker.state().met
        );
        assert_eq!(machine.docker.release().as_deref(), Some(V2));
    })
    .await;
}

/// The same for the calls that such a life has not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_docker_call_fails_in_a_long_life_the_machine_ends_right() {
    let mut plain = Machine::new().await;
    live_long(&mut plain).await;
    plain.stop().await;
    let rest = [
        "compose up postgres",
        "compose exec",
        "compose restart",
        "image rm",
    ];
    let mut calls = plain.calls();
    calls.retain(|call| rest.iter().any(|name| call.starts_with(name)));
    enumerate(numbered(calls), |mut machine| async move {
        live_long(&mut machine).await;
        machine.check();
        machine.stop().await;
    })
    .await;
}

/// Each call with the number of those of its name before it.
fn numbered(calls: Vec<String>) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::<String, usize>::new();
    let number = |call: String| {
        let count = counts.entry(call.clone()).or_default();
        *count += 1;
        (call, *count - 1)
    };
    calls.into_iter().map(number).collect()
}

/// Plays a life for each call and each fault.
pub(super) async fn enumerate_faults<Life>(calls: Vec<String>, life: fn(Machine) -> Life)
where
    Life: Future<Output = ()> + Send + 'static,
{
    enumerate(numbered(calls), life).await;
}

/// Plays a life for each call and each fault. Prints the table.
async fn enumerate<Life>(calls: Vec<(String, usize)>, life: fn(Machine) -> Life)
where
    Life: Future<Output = ()> + Send + 'static,
{
    let mut running = tokio::task::JoinSet::new();
    let mut ended = Vec::new();
    for call in &calls {
        for (fault, name) in FAULTS {
            if running.len() >= 6 {
                ended.push(running.join_next().await.unwrap().unwrap());
            }
            let call = call.clone();
            running.spawn(async move {
                let machine = Machine::new().await;
                let docker = machine.docker.clone();
                docker.state().faults.insert(call.clone(), fault);
                life(machine).await;
                assert_eq!(docker.state().met, [(call.0.clone(), fault)]);
                (call, name)
            });
        }
    }
    ended.extend(running.join_all().await);
    for call in &calls {
        for (_, fault) in FAULTS {
            assert!(
                ended.contains(&(call.clone(), fault)),
                "a hole in the table"
            );
            println!("{:60} #{} {fault:24} serves", call.0, call.1 + 1);
        }
    }
}

/// Not only at a call of docker: in the middle of its own work, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_the_agent_is_killed_the_machine_ends_right() {
    let mut running = tokio::task::JoinSet::new();
    for tenths in 0..30 {
        if running.len() >= 6 {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(async move {
            let mut machine = Machine::new().await;
            machine.start();
            machine.until_serving(Some(V1), 0).await;
            machine.docker.until_called(1, "image ls").await;
            let generation = machine.want(Some(V2), 1);
            tokio::time::sleep(Duration::from_millis(tenths * 10)).await;
            let agent = machine.docker.state().agent.unwrap();
            process::signal(agent, rustix::process::Signal::KILL);
            machine.control.until(0, serving(generation)).await;
            machine.check();
            machine.stop().await;
            assert_eq!(machine.started(), [V1, V2], "killed after {tenths}0 ms");
        });
    }
    running.join_all().await;
}

/// However its end goes: no container, and no file that could start one.
#[tokio::test]
async fn whatever_goes_wrong_at_its_end_nothing_of_a_project_runs_on() {
    for (fault, _) in FAULTS {
        let mut machine = Machine::new().await;
        machine.start();
        machine.until_serving(Some(V1), 0).await;
        machine.docker.until_called(1, "image ls").await;
        let down = ("compose down".to_owned(), 0);
        machine.docker.state().faults.insert(down, fault);
        machine.control.want(None);
        machine
            .control
            .until(0, |report| {
                let message = report.message.as_deref();
                message.is_some_and(|text| text.contains("takes no other"))
            })
            .await;
        let met = machine.docker.state().met.clone();
        assert_eq!(met, [("compose down".to_owned(), fault)]);
        assert_nothing_runs(&machine);
        machine.stop().await;
    }
}
