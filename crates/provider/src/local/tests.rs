//! With real Postgres binaries; a shell script stands in for the agent. What the real agent does
//! on such a machine is tested in `cp-agent`.

use std::{fs, os::unix::fs::PermissionsExt};

use cp_model::InstanceType;
use tempfile::TempDir;

use super::*;

/// Ends at SIGTERM, as an agent does.
const AGENT: &str = "#!/bin/sh
echo started >> starts
trap 'exit 0' TERM
while :; do sleep 0.05; done
";
/// Must be killed.
const STUBBORN_AGENT: &str = "#!/bin/sh
trap '' TERM
while :; do sleep 0.05; done
";

struct Lab {
    compute: LocalCompute,
    config: LocalConfig,
    _dir: TempDir,
}

impl Lab {
    async fn new(agent: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let agent_binary = dir.path().join("agent.sh");
        fs::write(&agent_binary, agent).unwrap();
        fs::set_permissions(&agent_binary, fs::Permissions::from_mode(0o755)).unwrap();
        let config = LocalConfig {
            dir: dir.path().join("data"),
            agent_binary,
            binaries: Binaries::find().await.unwrap(),
            durability: Durability::Fast,
            runtime: Runtime::Builtin,
            control_url: None,
        };
        let compute = LocalCompute::open(config.clone()).await.unwrap();
        Self {
            compute,
            config,
            _dir: dir,
        }
    }

    /// What another process would see.
    async fn reopened(&self) -> LocalCompute {
        LocalCompute::open(self.config.clone()).await.unwrap()
    }

    fn machine_dir(&self, id: MachineId) -> MachineDir {
        self.compute.inner.layout.machine(id)
    }

    fn starts(&self, id: MachineId) -> usize {
        let text = fs::read_to_string(self.machine_dir(id).path().join("starts"));
        text.unwrap_or_default().lines().count()
    }

    async fn power(&self, id: MachineId) -> Option<Power> {
        self.reopened()
            .await
            .find(Region::EuCentral, id)
            .await
            .unwrap()
            .map(|machine| machine.power)
    }

    async fn until_started(&self, id: MachineId, times: usize) {
        for _ in 0..500 {
            if self.starts(id) == times {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the agent started {} times, not {times}", self.starts(id));
    }
}

impl Drop for Lab {
    /// A failed assertion must leave no process behind.
    fn drop(&mut self) {
        for dir in self.compute.inner.layout.machines() {
            if let Holder::Process(pid) = dir.agent() {
                halt::kill_group_for_tests(pid);
            }
        }
    }
}

/// Also reaped: this process is its parent.
async fn until_gone(pid: u32) {
    for _ in 0..200 {
        if !halt::group_exists_for_tests(pid) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the agent outlived its machine");
}

fn spec(machine_id: MachineId) -> LaunchSpec {
    LaunchSpec {
        machine_id,
        region: Region::EuCentral,
        instance_type: InstanceType::DEFAULT,
        volume_gib: 8,
        bootstrap_token: "ibt_secret".into(),
        control_url: "http://127.0.0.1:1".to_owned(),
    }
}

/// By our id alone, as after a launch whose answer was lost.
fn named(id: MachineId) -> MachineRef<'static> {
    MachineRef {
        region: Region::DEFAULT,
        id,
        provider_ref: "",
    }
}

#[tokio::test]
async fn a_machine_lives_through_stop_start_and_a_new_control_plane() {
    let lab = Lab::new(AGENT).await;
    let id = MachineId::generate();
    let machine = lab.compute.launch(&spec(id)).await.unwrap();
    assert_eq!(
        (machine.power, machine.region),
        (Power::Running, Region::EuCentral)
    );
    assert!(Cluster::exists(&lab.machine_dir(id).pgdata()));
    lab.until_started(id, 1).await;

    // Repeated, also by another process: the same machine, no second agent.
    let again = lab.reopened().await.launch(&spec(id)).await.unwrap();
    lab.compute.start(machine.at()).await.unwrap();
    assert_eq!(again, machine);
    let listed = lab.compute.list(Region::EuCentral).await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&machine));

    for _ in 0..2 {
        lab.reopened().await.stop(machine.at()).await.unwrap();
        assert_eq!(lab.power(id).await, Some(Power::Stopped));
    }
    assert_eq!(
        lab.compute.resume().await.unwrap(),
        0,
        "it was stopped on purpose"
    );

    lab.compute.start(machine.at()).await.unwrap();
    lab.until_started(id, 2).await;
    let back = lab.compute.find(Region::EuCentral, id).await.unwrap();
    assert_eq!(back, Some(machine.clone()), "same address, same everything");

    lab.compute.terminate(machine.at()).await.unwrap();
    lab.compute.terminate(machine.at()).await.unwrap();
    assert_eq!(lab.compute.find(Region::EuCentral, id).await.unwrap(), None);
    assert_eq!(
        fs::read_dir(lab.config.dir.join("machines"))
            .unwrap()
            .count(),
        0
    );
    assert_eq!(
        lab.compute.start(named(id)).await,
        Err(ProviderError::NotFound)
    );
}

#[tokio::test]
async fn a_dead_agent_is_seen_and_resumed_and_shutdown_keeps_what_was_wanted() {
    let lab = Lab::new(AGENT).await;
    let id = MachineId::generate();
    lab.compute.launch(&spec(id)).await.unwrap();
    lab.until_started(id, 1).await;
    let Holder::Process(pid) = lab.machine_dir(id).agent() else {
        panic!("no agent");
    };
    halt::kill_group_for_tests(pid);
    for _ in 0..200 {
        if lab.power(id).await == Some(Power::Stopped) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(lab.power(id).await, Some(Power::Stopped));
    assert_eq!(lab.compute.resume().await.unwrap(), 1);
    lab.until_started(id, 2).await;

    lab.compute.shutdown().await;
    assert_eq!(lab.power(id).await, Some(Power::Stopped));
    assert!(
        lab.compute.start(named(id)).await.is_err(),
        "nothing starts after shutdown"
    );
    let next = LocalCompute::open(LocalConfig {
        control_url: Some("http://127.0.0.1:2".to_owned()),
        ..lab.config.clone()
    });
    let next = next.await.unwrap();
    assert_eq!(next.resume().await.unwrap(), 1);
    lab.until_started(id, 3).await;
    let config = fs::read_to_string(lab.machine_dir(id).agent_config()).unwrap();
    assert!(config.contains("http://127.0.0.1:2") && config.contains("ibt_secret"));
    next.terminate(named(id)).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_ignores_the_signal_is_killed_with_its_machine() {
    let lab = Lab::new(STUBBORN_AGENT).await;
    let id = MachineId::generate();
    lab.compute.launch(&spec(id)).await.unwrap();
    let Holder::Process(pid) = lab.machine_dir(id).agent() else {
        panic!("no agent");
    };
    lab.compute.terminate(named(id)).await.unwrap();
    until_gone(pid).await;
}

#[tokio::test]
async fn a_folder_deleted_by_hand_is_no_machine_and_its_processes_can_be_ended() {
    let lab = Lab::new(AGENT).await;
    let id = MachineId::generate();
    lab.compute.launch(&spec(id)).await.unwrap();
    lab.until_started(id, 1).await;
    let Holder::Process(pid) = lab.machine_dir(id).agent() else {
        panic!("no agent");
    };
    fs::remove_dir_all(lab.machine_dir(id).path()).unwrap();
    assert_eq!(lab.compute.find(Region::EuCentral, id).await.unwrap(), None);
    lab.compute.terminate(named(id)).await.unwrap();
    until_gone(pid).await;
}

#[tokio::test]
async fn half_made_and_half_gone_machines_are_cleared_and_ports_are_never_shared() {
    let lab = Lab::new(AGENT).await;
    let id = MachineId::generate();
    let machines = lab.config.dir.join("machines");
    for left in [format!(".making-{id}"), format!(".gone-{id}")] {
        fs::create_dir(machines.join(&left)).unwrap();
        fs::write(machines.join(&left).join("junk"), "x").unwrap();
    }
    assert_eq!(lab.compute.find(Region::EuCentral, id).await.unwrap(), None);
    let second = MachineId::generate();
    let third = MachineId::generate();
    let (first, second, third) = tokio::join!(
        async { lab.compute.launch(&spec(id)).await.unwrap() },
        async { lab.reopened().await.launch(&spec(second)).await.unwrap() },
        async { lab.compute.launch(&spec(third)).await.unwrap() },
    );
    assert!(!machines.join(format!(".making-{id}")).exists());
    assert!(
        !machines.join(format!(".gone-{id}")).exists(),
        "open() swept it"
    );
    assert!(!machines.join(format!("{id}/junk")).exists());
    assert_eq!(lab.compute.inner.layout.ports_taken().len(), 6);
    for machine in [first, second, third] {
        lab.compute.terminate(machine.at()).await.unwrap();
    }
    assert!(
        lab.compute
            .list(Region::EuCentral)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn one_id_launched_by_two_processes_at_once_is_one_machine_with_one_agent() {
    let lab = Lab::new(AGENT).await;
    let id = MachineId::generate();
    let other = lab.reopened().await;
    let spec = spec(id);
    let (one, two) = tokio::join!(lab.compute.launch(&spec), other.launch(&spec));
    assert_eq!(one.unwrap(), two.unwrap());
    lab.until_started(id, 1).await;
    assert_eq!(lab.compute.list(Region::EuCentral).await.unwrap().len(), 1);
    lab.compute.terminate(named(id)).await.unwrap();
}

#[tokio::test]
async fn secrets_on_disk_are_for_the_owner_only() {
    let lab = Lab::new(AGENT).await;
    let id = MachineId::generate();
    lab.compute.launch(&spec(id)).await.unwrap();
    let dir = lab.machine_dir(id);
    let version = lab.config.binaries.version();
    let files = [
        dir.agent_config(),
        dir.agent_log(),
        lab.compute.inner.layout.template_password(version),
    ];
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", file.display());
    }
    lab.compute.terminate(named(id)).await.unwrap();
}

#[tokio::test]
async fn a_missing_agent_program_is_named() {
    let lab = Lab::new(AGENT).await;
    fs::remove_file(&lab.config.agent_binary).unwrap();
    let id = MachineId::generate();
    let error = lab.compute.launch(&spec(id)).await.unwrap_err();
    assert!(
        matches!(&error, ProviderError::Permanent(text) if text.contains("agent.sh")),
        "{error}"
    );
    lab.compute.terminate(named(id)).await.unwrap();
}
