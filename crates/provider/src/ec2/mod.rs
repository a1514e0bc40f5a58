//! Machines that are EC2 instances. Each carries two tags: `insforge:managed`, whose they are, and
//! `insforge:machine`, which of our machines it is; what AWS has is found by them, whatever became
//! of an answer.
//!
//! | module | what for |
//! |---|---|
//! | [`config`] | what an operator decides |
//! | `client` | one region's API: calls, counted and told apart by their failures |
//! | `trouble` | what a failure means |
//! | `launch` | zones, types, and what is said at a launch |
//! | `health` | what AWS says of machines that should not stay where they are |
//! | [`permissions`] | whether AWS lets us |
//! | `user_data` | what cloud-init tells the machine |
//!
//! Looks for single machines are put together by `crate::looks`, launches wait for their turn in
//! `crate::pace`; [`crate::sim`] uses both as well.
//!
//! A region that is down holds up nobody else: each has its own clients, its own line of launches,
//! its own looks.

mod client;
pub mod config;
mod health;
mod launch;
pub mod permissions;
mod trouble;
mod user_data;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ec2::types as t;
use chrono::{DateTime, Utc};
use cp_model::{InstanceType, MachineId, Region};

use crate::aws::AwsAccess;
use crate::looks::Looks;
use crate::{Ailing, Compute, LaunchSpec, Leftover, Machine, MachineRef, Power, ProviderError};
use client::{Client, MACHINE, filter};
use config::Ec2Config;
use launch::{Full, read_error, write_error};
use trouble::Trouble;

pub struct Ec2Compute {
    config: Ec2Config,
    regions: BTreeMap<Region, Regional>,
}

struct Regional {
    client: Arc<Client>,
    looks: Looks<t::Instance, Trouble>,
    full: Full,
}

impl Ec2Compute {
    /// Calls nobody yet. Needs a tokio runtime.
    pub fn new(access: &AwsAccess, config: Ec2Config) -> Self {
        let regions = config
            .regions
            .iter()
            .map(|region| {
                let client = Client::new(access, &config, region.clone());
                let client = Arc::new(client);
                let regional = Regional {
                    looks: looks(client.clone()),
                    client,
                    full: Full::default(),
                };
                (region.region, regional)
            })
            .collect();
        Self { config, regions }
    }

    fn region(&self, region: Region) -> Result<&Regional, ProviderError> {
        self.regions.get(&region).ok_or_else(|| {
            ProviderError::Permanent(format!("region {region} is not configured (ec2.regions)"))
        })
    }
}

#[async_trait]
impl Compute for Ec2Compute {
    fn name(&self) -> &'static str {
        "ec2"
    }

    fn regions(&self) -> Vec<Region> {
        self.regions.keys().copied().collect()
    }

    async fn find(&self, region: Region, id: MachineId) -> Result<Option<Machine>, ProviderError> {
        let regional = self.region(region)?;
        let found = regional.looks.find(id).await;
        let found = found.map_err(|trouble| read_error(&trouble))?;
        Ok(Machine::first_of(&regional.machines(&found)).cloned())
    }

    async fn describe(&self, machine: MachineRef<'_>) -> Result<Option<Machine>, ProviderError> {
        let regional = self.region(machine.region)?;
        match regional.instance(machine).await {
            Ok(instance) => Ok(regional.machine(&instance)),
            Err(ProviderError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, region: Region) -> Result<Vec<Machine>, ProviderError> {
        let regional = self.region(region)?;
        let found = regional.client.instances(None).await;
        let found = found.map_err(|trouble| read_error(&trouble))?;
        Ok(regional.machines(&found))
    }

    fn turn(&self, region: Region, id: MachineId) -> Result<(), ProviderError> {
        let pace = &self.region(region)?.client.pace;
        pace.turn(id).map_err(ProviderError::Throttled)
    }

    async fn launch(&self, spec: &LaunchSpec) -> Result<Machine, ProviderError> {
        if let Some(machine) = self.find(spec.region, spec.machine_id).await? {
            return Ok(machine);
        }
        let regional = self.region(spec.region)?;
        let launch = launch::launch(&regional.client, &self.config, &regional.full, spec);
        let launched = launch.await?;
        let machine = regional.machine(&launched);
        machine.ok_or_else(|| ProviderError::Ambiguous("the launched instance has no tag".into()))
    }

    async fn start(&self, machine: MachineRef<'_>) -> Result<(), ProviderError> {
        let client = &self.region(machine.region)?.client;
        let ask = client.writes.start_instances();
        let ask = ask.instance_ids(machine.provider_ref);
        let started = client.call("StartInstances", ask.send()).await;
        started.map(drop).map_err(write_error)
    }

    async fn stop(&self, machine: MachineRef<'_>) -> Result<(), ProviderError> {
        let client = &self.region(machine.region)?.client;
        let ask = client.writes.stop_instances();
        let ask = ask.instance_ids(machine.provider_ref);
        let stopped = client.call("StopInstances", ask.send()).await;
        stopped.map(drop).map_err(write_error)
    }

    async fn terminate(&self, machine: MachineRef<'_>) -> Result<(), ProviderError> {
        let client = &self.region(machine.region)?.client;
        let ask = client.writes.terminate_instances();
        let ask = ask.instance_ids(machine.provider_ref);
        match client.call("TerminateInstances", ask.send()).await {
            Ok(_) | Err(Trouble::NotFound(_)) => Ok(()),
            Err(trouble) => Err(write_error(trouble)),
        }
    }

    async fn resize(
        &self,
        machine: MachineRef<'_>,
        instance_type: InstanceType,
    ) -> Result<(), ProviderError> {
        let regional = self.region(machine.region)?;
        let client = &regional.client;
        let types = client.config.instance_types.get(&instance_type);
        let types = types.map(Vec::as_slice).unwrap_or_default();
        let wanted = types.first().ok_or_else(|| {
            ProviderError::Permanent(format!(
                "no instance type is configured for {instance_type} in {}",
                client.config.aws_region
            ))
        })?;
        let instance = regional.instance(machine).await?;
        let current = instance.instance_type().map(t::InstanceType::as_str);
        let fitting = types.iter().find(|fits| Some(fits.as_str()) == current);
        if power(&instance) != Power::Stopped {
            return match fitting {
                Some(_) => Ok(()),
                None => Err(ProviderError::Transient(
                    "the instance is not stopped".into(),
                )),
            };
        }
        // Asked for although it seems to fit: soon after a change AWS may still show the type before it.
        let value = fitting.unwrap_or(wanted);
        let value = t::AttributeValue::builder().value(value).build();
        let ask = client.writes.modify_instance_attribute();
        let ask = ask.instance_id(machine.provider_ref).instance_type(value);
        let changed = client.call("ModifyInstanceAttribute", ask.send()).await;
        changed.map(drop).map_err(write_error)
    }

    async fn grow_volume(&self, machine: MachineRef<'_>, gib: i32) -> Result<(), ProviderError> {
        let regional = self.region(machine.region)?;
        let client = &regional.client;
        let instance = regional.instance(machine).await?;
        let root = instance.root_device_name();
        let mut disks = instance.block_device_mappings().iter();
        let volume = disks
            .find(|disk| disk.device_name() == root)
            .and_then(|disk| disk.ebs()?.volume_id())
            .ok_or_else(|| ProviderError::Transient("the instance shows no disk".into()))?;
        let size = client.volume(volume).await;
        let size = size.map_err(|trouble| read_error(&trouble))?;
        let size = size.and_then(|volume| volume.size());
        // AWS shows the new size as soon as the volume has it, while it still optimizes.
        if size.is_some_and(|size| size >= gib) {
            return Ok(());
        }
        let ask = client.writes.modify_volume().volume_id(volume).size(gib);
        match client.call("ModifyVolume", ask.send()).await {
            Ok(_) | Err(Trouble::WrongState(_)) => Err(ProviderError::Transient(
                "the volume is being grown".to_owned(),
            )),
            Err(trouble) => Err(write_error(trouble)),
        }
    }

    async fn ailing(&self, region: Region) -> Result<Vec<Ailing>, ProviderError> {
        let ailing = health::ailing(&self.region(region)?.client).await;
        ailing.map_err(|trouble| read_error(&trouble))
    }

    async fn leftovers(&self, region: Region) -> Result<Vec<Leftover>, ProviderError> {
        let volumes = self.region(region)?.client.loose_volumes().await;
        let volumes = volumes.map_err(|trouble| read_error(&trouble))?;
        let leftover = |volume: t::Volume| {
            Some(Leftover {
                machine_id: machine_of(volume.tags())?,
                provider_ref: volume.volume_id?,
            })
        };
        Ok(volumes.into_iter().filter_map(leftover).collect())
    }

    async fn delete_leftover(
        &self,
        region: Region,
        leftover: &Leftover,
    ) -> Result<(), ProviderError> {
        let client = &self.region(region)?.client;
        let ask = client.writes.delete_volume();
        let ask = ask.volume_id(&leftover.provider_ref);
        match client.call("DeleteVolume", ask.send()).await {
            Ok(_) | Err(Trouble::NotFound(_)) => Ok(()),
            Err(trouble) => Err(write_error(trouble)),
        }
    }

    fn access_host(&self, machine: &Machine, app_key: &str, region: Region) -> Option<String> {
        let address = machine.address.as_ref()?;
        let ip = address.split(':').next().unwrap_or_default();
        let label = ip.replace('.', "-");
        let host = self
            .config
            .access_host
            .replace("{app_key}", app_key)
            .replace("{region}", region.as_str())
            .replace("{address}", address)
            .replace("{address_label}", &label);
        Some(host)
    }
}

fn looks(client: Arc<Client>) -> Looks<t::Instance, Trouble> {
    Looks::new(move |ids| {
        let client = client.clone();
        async move {
            let by_tag = filter(format!("tag:{MACHINE}"), ids);
            let found = client.instances(Some(by_tag)).await?;
            let tagged = found
                .into_iter()
                .filter_map(|i| Some((machine_of(i.tags())?, i)));
            Ok(tagged.collect())
        }
    })
}

/// Which machine of ours an instance is, or had a volume.
fn machine_of(tags: &[t::Tag]) -> Option<MachineId> {
    let tag = tags.iter().find(|tag| tag.key() == Some(MACHINE))?;
    tag.value()?.parse().ok()
}

impl Regional {
    async fn instance(&self, machine: MachineRef<'_>) -> Result<t::Instance, ProviderError> {
        let found = self.looks.find(machine.id).await;
        let found = found.map_err(|trouble| read_error(&trouble))?;
        let mut named = found.into_iter();
        named
            .find(|instance| instance.instance_id() == Some(machine.provider_ref))
            .ok_or(ProviderError::NotFound)
    }

    fn machines(&self, instances: &[t::Instance]) -> Vec<Machine> {
        let machines = instances.iter().filter_map(|i| self.machine(i));
        machines.collect()
    }

    /// None: no instance of ours, or none that AWS tells enough about.
    fn machine(&self, instance: &t::Instance) -> Option<Machine> {
        let region = &self.client.config;
        let kind = instance.instance_type()?;
        let sizes = &region.instance_types;
        let size = sizes
            .iter()
            .find(|(_, types)| types.iter().any(|name| name == kind.as_str()))
            // One that somebody took out of the configuration.
            .map_or(InstanceType::DEFAULT, |(size, _)| *size);
        let address = instance.private_ip_address();
        Some(Machine {
            machine_id: machine_of(instance.tags())?,
            provider_ref: instance.instance_id()?.to_owned(),
            power: power(instance),
            address: address.map(|ip| format!("{ip}:{}", user_data::BACKEND_PORT)),
            database_address: address.map(|ip| format!("{ip}:5432")),
            launched_at: instance.launch_time().map(time).unwrap_or_default(),
            region: region.region,
            instance_type: size,
        })
    }
}

fn power(instance: &t::Instance) -> Power {
    use t::InstanceStateName as S;
    match instance.state().and_then(|state| state.name()) {
        Some(S::Running) => Power::Running,
        Some(S::Stopping) => Power::Stopping,
        Some(S::Stopped) => Power::Stopped,
        Some(S::ShuttingDown) => Power::Terminating,
        Some(S::Terminated) => Power::Terminated,
        // Or a state that AWS has thought of since: something is going on.
        _ => Power::Pending,
    }
}

fn time(at: &aws_sdk_ec2::primitives::DateTime) -> DateTime<Utc> {
    DateTime::from_timestamp(at.secs(), at.subsec_nanos()).unwrap_or_default()
}
