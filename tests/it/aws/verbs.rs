//! Each verb of the provider against moto: what is asked for is what AWS gets.

use std::time::Duration;

use cp_model::{InstanceType, MachineId, Region};
use cp_provider::ec2::config::Image;
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
    // Six asks are more than may be made at once; the rest comes when it is our turn.
    let (compute, another) = (cloud.compute(), spec(MachineId::generate()));
    let full = loop {
        match compute.launch(&another).await {
            Err(ProviderError::Throttled(pause)) => tokio::time::sleep(pause).await,
            answer => break answer,
        }
    };
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

#[tokio::test]
async fn of_two_instances_with_one_id_the_same_is_found_after_every_restart() {
    let (cloud, compute, machine) = launched().await;
    let mut refs = vec![machine.provider_ref.clone()];
    let id = machine.machine_id.to_string();
    let region = &cloud.config.regions[0];
    let Image::Id(image) = &region.image else {
        panic!("moto's image has an id")
    };
    let run = [
        ("ImageId", image.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("TagSpecification.1.ResourceType", "instance"),
        ("TagSpecification.1.Tag.1.Key", "insforge:managed"),
        ("TagSpecification.1.Tag.1.Value", "test"),
        ("TagSpecification.1.Tag.2.Key", "insforge:machine"),
        ("TagSpecification.1.Tag.2.Value", id.as_str()),
    ];
    cloud
        .moto
        .call("ec2", "us-east-1", "RunInstances", &run)
        .await;
    let list = compute.list(Region::UsEast).await.unwrap();
    refs.extend(list.into_iter().map(|m| m.provider_ref));
    refs.sort();
    refs.dedup();
    assert_eq!(refs.len(), 2);
    for restarted in &refs {
        for action in ["StopInstances", "StartInstances"] {
            cloud.by_hand(Region::UsEast, action, restarted).await;
        }
        let found = compute.find(Region::UsEast, machine.machine_id).await;
        assert_eq!(found.unwrap().unwrap().provider_ref, refs[0]);
        let described = MachineRef {
            provider_ref: restarted,
            ..machine.at()
        };
        let found = compute.describe(described).await.unwrap().unwrap();
        assert_eq!(&found.provider_ref, restarted);
    }
    cloud
        .by_hand(Region::UsEast, "TerminateInstances", &refs[1])
        .await;
    let gone = MachineRef {
        provider_ref: &refs[1],
        ..machine.at()
    };
    assert_eq!(compute.describe(gone).await, Ok(None));
    let found = compute.find(Region::UsEast, machine.machine_id).await;
    assert_eq!(found.unwrap().unwrap().provider_ref, refs[0]);
}

/// Any of a size's types is that size: a machine that got the second one for want of room stays.
#[tokio::test]
async fn a_machine_of_another_type_of_its_size_is_not_resized() {
    let cloud = Cloud::start(&[Region::UsEast]).await;
    for _ in 0..3 {
        cloud.chaos().fail_next("RunInstances", Fault::NoCapacity);
    }
    let compute = cloud.compute();
    let machine = compute.launch(&spec(MachineId::generate())).await.unwrap();
    assert_eq!(cloud.alive().await[0].instance_type, "t3a.small");
    // Although it runs.
    compute
        .resize(machine.at(), InstanceType::Nano)
        .await
        .unwrap();
    assert_eq!(cloud.chaos().calls_of("ModifyInstanceAttribute"), 0);
}

#[tokio::test]
async fn a_wrong_subnet_or_image_is_a_refusal_that_names_it() {
    let mut cloud = Cloud::start(&[Region::UsEast]).await;
    let right = cloud.config.regions[0].clone();
    cloud.config.regions[0].subnets = vec!["subnet-0badbadbadbad0bad".into()];
    let subnet = cloud.compute().launch(&spec(MachineId::generate())).await;
    cloud.config.regions[0] = right;
    cloud.config.regions[0].image = Image::Id("ami-0badbadbadbad0bad".into());
    let image = cloud.compute().launch(&spec(MachineId::generate())).await;
    for (refused, named) in [(subnet, "subnet-0bad"), (image, "ami-0bad")] {
        let Err(ProviderError::Permanent(text)) = refused else {
            panic!("{refused:?}")
        };
        assert!(text.contains(named), "{text}");
    }
    assert!(cloud.alive().await.is_empty());
}

/// moto forgets the architecture of an image, so what is asked for has to do.
#[tokio::test]
async fn the_newest_image_is_one_that_the_machines_can_boot() {
    let mut cloud = Cloud::start(&[Region::UsEast]).await;
    cloud.config.regions[0].image = Image::Newest {
        owner: "self".into(),
        name: "insforge-machine-*".into(),
        architecture: "arm64".into(),
    };
    let launched = cloud.compute().launch(&spec(MachineId::generate())).await;
    assert!(
        matches!(launched, Err(ProviderError::Permanent(_))),
        "{launched:?}"
    );
    let asked = cloud.chaos().asked("DescribeImages");
    let filter = asked.iter().find(|(_, value)| *value == "architecture");
    let (name, _) = filter.expect("a filter by architecture");
    assert_eq!(asked[&name.replace("Name", "Value.1")], "arm64");
}

/// A region that is slow, and refuses nobody, must not take all slots of a worker.
#[tokio::test]
async fn a_look_ends_after_fifteen_seconds_and_those_after_it_at_once() {
    let mut cloud = Cloud::start(&[Region::UsEast]).await;
    cloud.config.patience = Duration::from_mins(1);
    let compute = cloud.compute();
    let look = async || {
        let began = std::time::Instant::now();
        let found = compute.find(Region::UsEast, MachineId::generate()).await;
        (found, began.elapsed())
    };
    cloud.chaos().fail_next("DescribeInstances", Fault::Stall);
    let (found, took) = look().await;
    assert!(
        matches!(found, Err(ProviderError::Throttled(_))),
        "{found:?}"
    );
    assert!((14..20).contains(&took.as_secs()), "{took:?}");
    let (found, took) = look().await;
    assert!(found.is_err() && took < Duration::from_secs(1), "{took:?}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(look().await.0, Ok(None));
}

/// A list that ends in the middle looks like machines that are gone.
#[tokio::test]
async fn a_list_whose_pages_go_round_is_no_list() {
    let (cloud, compute, _machine) = launched().await;
    let page = "<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId>\
                <reservationSet/><nextToken>again</nextToken></DescribeInstancesResponse>";
    let chaos = cloud.chaos();
    chaos.answer("DescribeInstances", Some(page.into()));
    let list = compute.list(Region::UsEast).await;
    assert!(matches!(list, Err(ProviderError::Transient(_))), "{list:?}");
    assert_eq!(
        chaos.calls_of("DescribeInstances"),
        2 + 1,
        "and the launch's own look"
    );
    chaos.answer("DescribeInstances", None);
    assert_eq!(compute.list(Region::UsEast).await.unwrap().len(), 1);
}
