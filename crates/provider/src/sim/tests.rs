use super::*;
use cp_model::InstanceType;

fn spec(machine_id: MachineId) -> LaunchSpec {
    LaunchSpec {
        machine_id,
        region: Region::DEFAULT,
        instance_type: InstanceType::DEFAULT,
        volume_gib: 8,
        bootstrap_token: "ibt_x".into(),
        control_url: "http://127.0.0.1:1".to_owned(),
    }
}

async fn world(config: SimConfig) -> SimCompute {
    SimCompute::new(config).await.unwrap()
}

async fn until_running(compute: &SimCompute, id: MachineId) {
    for _ in 0..400 {
        if compute
            .find(Region::DEFAULT, id)
            .await
            .unwrap()
            .is_some_and(|machine| machine.power == Power::Running)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never ran");
}

#[tokio::test]
async fn a_lost_answer_leaves_one_machine_that_a_look_finds() {
    let compute = world(SimConfig::default()).await;
    let id = MachineId::generate();
    compute.fail_next(Verb::Launch, Fault::BeforeEffect);
    compute.fail_next(Verb::Launch, Fault::AfterEffect);

    let first = compute.launch(&spec(id)).await.unwrap_err();
    assert!(matches!(first, ProviderError::Transient(_)), "{first}");
    assert_eq!(compute.launch_effects(id), 0);

    let second = compute.launch(&spec(id)).await.unwrap_err();
    assert!(matches!(second, ProviderError::Ambiguous(_)), "{second}");
    assert_eq!(compute.launch_effects(id), 1);

    let found = compute.launch(&spec(id)).await.unwrap();
    assert_eq!(found, compute.alive()[0]);
    assert_eq!(compute.launch_effects(id), 1);
    assert_eq!(compute.calls(Verb::Launch), 3);
}

#[tokio::test]
async fn late_tags_let_a_careless_caller_launch_twice() {
    let config = SimConfig {
        tag_lag: Duration::from_mins(1),
        ..SimConfig::default()
    };
    let compute = world(config).await;
    let id = MachineId::generate();
    compute.launch(&spec(id)).await.unwrap();
    assert_eq!(compute.find(Region::DEFAULT, id).await.unwrap(), None);
    compute.launch(&spec(id)).await.unwrap();
    assert_eq!(compute.launch_effects(id), 2);
    let refs: Vec<_> = compute
        .alive()
        .into_iter()
        .map(|machine| machine.provider_ref)
        .collect();
    assert_eq!(refs, ["sim-1", "sim-2"]);
}

#[tokio::test]
async fn capacity_comes_back_after_the_scripted_refusals() {
    let compute = world(SimConfig::default()).await;
    let id = MachineId::generate();
    compute.fail_times(Verb::Launch, Fault::Capacity, 2);
    for _ in 0..2 {
        let refused = compute.launch(&spec(id)).await.unwrap_err();
        assert!(matches!(refused, ProviderError::Capacity(_)), "{refused}");
    }
    compute.launch(&spec(id)).await.unwrap();
    assert_eq!(compute.launch_effects(id), 1);
}

#[tokio::test]
async fn one_seed_makes_one_sequence_of_faults() {
    let mut sequences = Vec::new();
    for seed in [7, 7, 8] {
        let config = SimConfig {
            error_rate: 0.5,
            seed,
            ..SimConfig::default()
        };
        let compute = world(config).await;
        let mut outcomes = Vec::new();
        for _ in 0..40 {
            outcomes.push(compute.list(Region::DEFAULT).await.is_ok());
        }
        sequences.push(outcomes);
    }
    assert_eq!(sequences[0], sequences[1]);
    assert_ne!(sequences[0], sequences[2]);
    assert!(sequences[0].contains(&true) && sequences[0].contains(&false));
}

/// Registers what booted, as the harness does.
#[derive(Default)]
struct Boots(Mutex<Vec<(MachineId, bool)>>);

#[async_trait]
impl SimHost for Boots {
    async fn booted(&self, boot: SimBoot) {
        self.0.lock().unwrap().push((boot.machine_id, boot.first));
    }
}

#[tokio::test]
async fn the_host_hears_of_each_boot_and_a_stopped_machine_serves_nobody() {
    let compute = world(SimConfig::default()).await;
    let boots = Arc::new(Boots::default());
    compute.set_host(boots.clone());
    let (id, project) = (MachineId::generate(), ProjectId::generate());
    let machine = compute.launch(&spec(id)).await.unwrap();
    assert_eq!(machine.power, Power::Pending);
    until_running(&compute, id).await;

    let host = compute
        .access_host(&machine, "key", Region::DEFAULT)
        .unwrap();
    let ask = async |path: &str, key: &str| {
        let request = reqwest::Client::new()
            .get(format!("{host}{path}"))
            .bearer_auth(key);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(ask("/api/health", "").await.0, 503, "no backend yet");
    compute.serve(id, project, "ik_1");
    assert_eq!(ask("/api/health", "").await.0, 200);
    assert_eq!(ask("/api/metadata/project-id", "ik_2").await.0, 401);
    let (status, body) = ask("/api/metadata/project-id", "ik_1").await;
    assert_eq!((status, body.contains(&project.to_string())), (200, true));

    compute.stop(machine.at()).await.unwrap();
    compute.stop(machine.at()).await.unwrap();
    assert_eq!(ask("/api/metadata/project-id", "ik_1").await.0, 503);
    compute.start(machine.at()).await.unwrap();
    until_running(&compute, id).await;
    assert_eq!(ask("/api/metadata/project-id", "ik_1").await.0, 200);
    for _ in 0..200 {
        if boots.0.lock().unwrap().len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(*boots.0.lock().unwrap(), [(id, true), (id, false)]);
}

#[tokio::test]
async fn a_vanished_machine_is_not_found_and_can_still_be_terminated() {
    let compute = world(SimConfig::default()).await;
    let id = MachineId::generate();
    let machine = compute.launch(&spec(id)).await.unwrap();
    // A second worker.
    let other = compute.clone();
    compute.vanish(id);
    assert_eq!(other.find(Region::DEFAULT, id).await.unwrap(), None);
    assert!(other.list(Region::DEFAULT).await.unwrap().is_empty());
    let start = other.start(machine.at()).await;
    assert_eq!(start, Err(ProviderError::NotFound));
    other.terminate(machine.at()).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_gives_up_has_launched_all_the_same() {
    let compute = world(SimConfig::default()).await;
    let id = MachineId::generate();
    compute.fail_next(Verb::Launch, Fault::Hang(Duration::from_mins(1)));
    let patience = Duration::from_millis(20);
    let answer = tokio::time::timeout(patience, compute.launch(&spec(id))).await;
    assert!(answer.is_err());
    until_running(&compute, id).await;
    assert_eq!(compute.launch_effects(id), 1);
}

#[tokio::test]
async fn a_stop_takes_its_time_and_refuses_a_start_meanwhile() {
    let config = SimConfig {
        stops_after: Duration::from_millis(50),
        ..SimConfig::default()
    };
    let compute = world(config).await;
    let id = MachineId::generate();
    let machine = compute.launch(&spec(id)).await.unwrap();
    until_running(&compute, id).await;
    compute.stop(machine.at()).await.unwrap();
    let power = async || {
        compute
            .find(Region::DEFAULT, id)
            .await
            .unwrap()
            .unwrap()
            .power
    };
    assert_eq!(power().await, Power::Stopping);
    let start = compute.start(machine.at()).await;
    assert!(
        matches!(start, Err(ProviderError::Transient(_))),
        "{start:?}"
    );
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(power().await, Power::Stopped);
}
