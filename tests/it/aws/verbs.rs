//! Each verb of the provider against moto: what is asked for is what AWS gets.

use std::time::Duration;

use cp_model::{InstanceType, MachineId, Region};
use cp_provider::{Compute as _, LaunchSpec, Machine, MachineRef, Power, ProviderError};
use cp_tests::aws::{Cloud, Fault};

fn spec(id: MachineId) -> LaunchSpec {
    LaunchSpec {
        machine_id: id,
        region: Region::UsEast,
        instance_type: InstanceType::Nano,
        volume_gib: 12,
        bootstrap_token: "ibt_test".into(),
        control_url: "http://127.0.0.1:1".into(),
    }
}

async fn launched() -> (Cloud, Box<dyn cp_provider::Compute>, Machine) {
    let cloud = Cloud::start(&[Region::UsEast]).await;
    let compute = cloud.compute();
    let machine = compute.launch(&spec(MachineId::generate())).await.unwrap();
    (cloud, Box::new(compute), machine)
}

#[tokio::test]
async fn an_instance_is_launched_as_the_configuration_has_it() {
    let (cloud, compute, machine) = launched().await;
    assert_eq!(machine.region, Region::UsEast);
    assert_eq!(machine.instance_type, InstanceType::Nano);
    assert!(machine.address.as_deref().unwrap().ends_with(":7130"));
    let [instance] = cloud.alive().await.try_into().unwrap();
    assert_eq!(instance.id, machine.provider_ref);
    assert_eq!(instance.instance_type, "t3.small");
    assert_eq!(instance.machine, Some(machine.machine_id.to_string()));
    for fact in [
        "<httpTokens>required</httpTokens>",
        "<httpPutResponseHopLimit>2</httpPutResponseHopLimit>",
        "<deleteOnTermination>true</deleteOnTermination>",
        "instance-profile/insforge-machine",
        "<key>insforge:managed</key><value>test</value>",
    ] {
        let flat: String = instance.xml.split_whitespace().collect();
        assert!(flat.contains(fact), "{fact} is not in {flat}");
    }
    let volumes = cloud.moto.call("ec2", "us-east-1", "DescribeVolumes", &[]);
    let flat: String = volumes.await.split_whitespace().collect();
    for fact in [
        "<volumeType>gp3</volumeType>",
        "<encrypted>true</encrypted>",
        "<size>12</size>",
        "<key>insforge:machine</key>",
    ] {
        assert!(flat.contains(fact), "{fact} is not in {flat}");
    }
    let found = compute.find(Region::UsEast, machine.machine_id).await;
    let found = found.unwrap().unwrap();
    assert_eq!(found.power, Power::Running);
    assert_eq!(compute.list(Region::UsEast).await.unwrap(), [found]);
}

#[tokio::test]
async fn a_machine_that_is_there_is_not_launched_again() {
    let (cloud, compute, machine) = launched().await;
    let again = compute.launch(&spec(machine.machine_id)).await.unwrap();
    assert_eq!(again.provider_ref, machine.provider_ref);
    assert_eq!(cloud.alive().await.len(), 1);
    assert_eq!(cloud.chaos().calls_of("RunInstances"), 1);
}

#[tokio::test]
async fn power_goes_on_and_off_as_often_as_it_is_asked() {
    let (cloud, compute, machine) = launched().await;
    let power = async || {
        let found = compute.find(Region::UsEast, machine.machine_id).await;
        found.unwrap().map(|machine| machine.power)
    };
    for _ in 0..2 {
        compute.stop(machine.at()).await.unwrap();
        assert_eq!(power().await, Some(Power::Stopped));
    }
    for _ in 0..2 {
        compute.start(machine.at()).await.unwrap();
        assert_eq!(power().await, Some(Power::Running));
    }
    for _ in 0..2 {
        compute.terminate(machine.at()).await.unwrap();
        assert_eq!(power().await, None);
    }
    assert_eq!(cloud.volumes().await, 0);
    let nobody = MachineRef {
        provider_ref: "i-0123456789abcdef0",
        ..machine.at()
    };
    compute.terminate(nobody).await.unwrap();
    assert_eq!(compute.start(nobody).await, Err(ProviderError::NotFound));
}

#[tokio::test]
async fn a_stopped_machine_gets_another_size_and_a_bigger_disk() {
    let (cloud, compute, machine) = launched().await;
    let running = compute.resize(machine.at(), InstanceType::Micro).await;
    assert!(
        matches!(running, Err(ProviderError::Transient(_))),
        "{running:?}"
    );
    compute.stop(machine.at()).await.unwrap();
    for _ in 0..2 {
        compute
            .resize(machine.at(), InstanceType::Micro)
            .await
            .unwrap();
    }
    assert_eq!(cloud.chaos().calls_of("ModifyInstanceAttribute"), 1);
    assert_eq!(cloud.alive().await[0].instance_type, "t3.medium");
    let found = compute.find(Region::UsEast, machine.machine_id).await;
    assert_eq!(found.unwrap().unwrap().instance_type, InstanceType::Micro);

    compute.grow_volume(machine.at(), 12).await.unwrap();
    let growing = compute.grow_volume(machine.at(), 30).await;
    assert!(
        matches!(growing, Err(ProviderError::Transient(_))),
        "{growing:?}"
    );
    compute.grow_volume(machine.at(), 30).await.unwrap();
    assert_eq!(cloud.chaos().calls_of("ModifyVolume"), 1);
    let unknown = compute.resize(machine.at(), InstanceType::Xl16).await;
    assert!(
        matches!(unknown, Err(ProviderError::Permanent(_))),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn where_a_zone_is_full_the_next_one_is_taken_and_then_the_next_type() {
    let cloud = Cloud::start(&[Region::UsEast]).await;
    let compute = cloud.compute();
    for _ in 0..3 {
        cloud.chaos().fail_next("RunInstances", Fault::NoCapacity);
    }
    let first = compute.launch(&spec(MachineId::generate())).await.unwrap();
    assert_eq!(cloud.chaos().calls_of("RunInstances"), 4);
    assert_eq!(cloud.alive().await[0].instance_type, "t3a.small");
    assert_eq!(
        first.instance_type,
        InstanceType::Nano,
        "both types are nano"
    );
    // For a while nobody tries the full ones.
    compute.launch(&spec(MachineId::generate())).await.unwrap();
    assert_eq!(cloud.chaos().calls_of("RunInstances"), 5);

    for _ in 0..6 {
        cloud.chaos().fail_next("RunInstances", Fault::NoCapacity);
    }
    let full = cloud.compute().launch(&spec(MachineId::generate())).await;
    assert!(matches!(full, Err(ProviderError::Capacity(_))), "{full:?}");
}

#[tokio::test]
async fn many_looks_are_few_calls() {
    let (cloud, compute, machine) = launched().await;
    let before = cloud.chaos().calls_of("DescribeInstances");
    let looks = (0..300).map(|n| {
        let id = if n == 7 {
            machine.machine_id
        } else {
            MachineId::generate()
        };
        compute.find(Region::UsEast, id)
    });
    let found = futures::future::join_all(looks).await;
    let seen = found
        .into_iter()
        .filter(|found| found.as_ref().unwrap().is_some());
    assert_eq!(seen.count(), 1);
    let calls = cloud.chaos().calls_of("DescribeInstances") - before;
    assert!(calls <= 6, "{calls} calls for 300 looks");
}

/// The one row of the table that must never be wrong: a launch whose answer is lost is told as one
/// that may have happened, and one that did not happen as one that did not.
#[tokio::test]
async fn a_launch_that_fails_says_whether_it_may_have_happened() {
    let cloud = Cloud::start(&[Region::UsEast]).await;
    for fault in Fault::ALL {
        let before = cloud.alive().await.len();
        cloud.chaos().fail_next("RunInstances", fault);
        let began = std::time::Instant::now();
        let compute = cloud.compute();
        let result = compute.launch(&spec(MachineId::generate())).await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(8), "{fault:?} took {took:?}");
        let happened = cloud.alive().await.len() - before;
        let told = match &result {
            Ok(_) => "ok",
            Err(ProviderError::Ambiguous(_)) => "ambiguous",
            Err(ProviderError::Throttled(_)) => "throttled",
            Err(other) => panic!("{fault:?}: {other:?}"),
        };
        let expected = match fault {
            Fault::NoCapacity => ("ok", 1),
            Fault::Throttled => ("throttled", 0),
            Fault::ResetBefore | Fault::Error500 | Fault::Error503 => ("ambiguous", 0),
            Fault::ResetAfter
            | Fault::Error500After
            | Fault::Stall
            | Fault::CutShort
            | Fault::CutOff => ("ambiguous", 1),
        };
        assert_eq!((told, happened), expected, "{fault:?}: {result:?}");
    }
}
