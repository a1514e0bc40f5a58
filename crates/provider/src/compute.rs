//! The verbs that every provider offers, and what they speak about.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use cp_model::{InstanceType, MachineId, Region};
use secrecy::SecretString;

pub type SharedCompute = Arc<dyn Compute>;

/// A source of machines. Each machine carries our [`MachineId`] as its tag.
///
/// Every verb may be repeated at any time, by any process: callers crash between a call and the
/// record of its result, and then call again.
#[async_trait]
pub trait Compute: Send + Sync {
    /// What `machines.provider` holds: `local`, `ec2`, `sim`.
    fn name(&self) -> &'static str;

    /// Where it can launch. Whoever looks after machines does so region by region: one that is
    /// down must not hold up the others.
    fn regions(&self) -> Vec<Region>;

    /// The machine with our tag, stopped ones too; none when there is none, or it is terminated. Of
    /// several with one id [`Machine::first_of`]. Who has recorded which one is meant asks for that:
    /// [`Self::describe`].
    async fn find(&self, region: Region, id: MachineId) -> Result<Option<Machine>, ProviderError>;

    /// Exactly that machine, stopped too; none when it is terminated, whatever else has its id.
    async fn describe(&self, machine: MachineRef<'_>) -> Result<Option<Machine>, ProviderError>;

    /// Every machine of the region with a tag of ours, stopped ones too, terminated ones not. Two
    /// machines with one id show as two.
    async fn list(&self, region: Region) -> Result<Vec<Machine>, ProviderError>;

    /// Whether it is this machine's turn to be launched, where launches are rationed;
    /// [`ProviderError::Throttled`] tells when to come back. Calls nobody: a place in the line
    /// costs nothing.
    fn turn(&self, _region: Region, _id: MachineId) -> Result<(), ProviderError> {
        Ok(())
    }

    /// Makes the machine and boots it. When one with this id exists it is answered instead. May
    /// return before it runs.
    async fn launch(&self, spec: &LaunchSpec) -> Result<Machine, ProviderError>;

    /// Boots a stopped machine. Ok when it runs already; may return before it runs.
    async fn start(&self, machine: MachineRef<'_>) -> Result<(), ProviderError>;

    /// Shuts a machine down; its disk stays. Ok when it is stopped already; may return before it
    /// is stopped ([`Power::Stopping`] then).
    async fn stop(&self, machine: MachineRef<'_>) -> Result<(), ProviderError>;

    /// Ends a machine and its disk. Ok when it is gone already; may return before it is gone.
    async fn terminate(&self, machine: MachineRef<'_>) -> Result<(), ProviderError>;

    /// Gives a stopped machine another size. Ok when it has it already.
    async fn resize(
        &self,
        machine: MachineRef<'_>,
        instance_type: InstanceType,
    ) -> Result<(), ProviderError>;

    /// Makes the machine's disk at least that big; its agent grows the file system. Ok when it is
    /// already. [`ProviderError::Transient`] as long as the provider is at it.
    async fn grow_volume(&self, machine: MachineRef<'_>, gib: i32) -> Result<(), ProviderError>;

    /// Running machines that should not stay where they are, as the provider says; others' may be
    /// among them. Stopped and started again, they come up elsewhere.
    async fn ailing(&self, _region: Region) -> Result<Vec<Ailing>, ProviderError> {
        Ok(Vec::new())
    }

    /// Disks with tags of ours that no machine has. Each costs money, and may hold data.
    async fn leftovers(&self, _region: Region) -> Result<Vec<Leftover>, ProviderError> {
        Ok(Vec::new())
    }

    /// Deletes a disk that no machine has. Ok when it is gone already.
    async fn delete_leftover(
        &self,
        _region: Region,
        _leftover: &Leftover,
    ) -> Result<(), ProviderError> {
        Ok(())
    }

    /// The base URL under which users reach a backend with this app key on this machine, with no
    /// trailing slash. None as long as the machine has no address.
    fn access_host(&self, machine: &Machine, app_key: &str, region: Region) -> Option<String>;

    /// The control plane of a laptop ends: `local` stops its machines, disks stay. Others keep
    /// theirs running.
    async fn shutdown(&self) {}
}

/// A machine as verbs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineRef<'a> {
    pub region: Region,
    pub id: MachineId,
    /// The provider's own name for it.
    pub provider_ref: &'a str,
}

/// What to launch. Holds a secret, so it has no `Debug`.
#[derive(Clone)]
pub struct LaunchSpec {
    pub machine_id: MachineId,
    pub region: Region,
    pub instance_type: InstanceType,
    pub volume_gib: i32,
    /// Single-use; the agent exchanges it for a token of its own (`POST /agent/v1/register`).
    pub bootstrap_token: SecretString,
    /// Base URL of the control plane as the machine reaches it, with no trailing slash.
    pub control_url: String,
}

/// A machine as its provider sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub machine_id: MachineId,
    /// The provider's own name for it (`machines.provider_ref`).
    pub provider_ref: String,
    pub power: Power,
    /// Where the backend listens or will listen: `host:port`, with a path in `sim`.
    pub address: Option<String>,
    /// Where its Postgres listens: `host:port`, for connection strings. None in `sim`.
    pub database_address: Option<String>,
    pub launched_at: DateTime<Utc>,
    pub region: Region,
    pub instance_type: InstanceType,
}

impl Machine {
    pub fn at(&self) -> MachineRef<'_> {
        MachineRef {
            region: self.region,
            id: self.machine_id,
            provider_ref: &self.provider_ref,
        }
    }

    /// Of machines with one id the one that everybody takes for it as long as none is recorded: who
    /// lives comes before who is ending, and then the provider's name decides. Times do not: EC2's
    /// `LaunchTime` is that of the last start.
    pub fn first_of<'a>(machines: impl IntoIterator<Item = &'a Self>) -> Option<&'a Self> {
        let ends = |it: &Self| matches!(it.power, Power::Terminating | Power::Terminated);
        machines
            .into_iter()
            .min_by_key(|it| (ends(it), it.provider_ref.as_str()))
    }
}

/// A machine that should not stay where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ailing {
    /// The provider's own name for the machine.
    pub provider_ref: String,
    pub ailment: Ailment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ailment {
    /// The machine or what it runs on does not pass the provider's checks. It may pass by.
    Impaired,
    /// The provider will stop it, or take away what it runs on.
    Retiring,
}

/// A disk that no machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Whose disk it was.
    pub machine_id: MachineId,
    /// The provider's own name for the disk.
    pub provider_ref: String,
}

/// The states that EC2 names, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Power {
    Pending,
    Running,
    Stopping,
    Stopped,
    Terminating,
    Terminated,
}

/// Why a provider did not do it, by what the caller does next. The texts are for operators and
/// hold no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// Nothing happened; try again later.
    #[error("the provider failed for now: {0}")]
    Transient(String),
    /// Nothing happened, and nothing will before that: calls of this kind are rationed.
    #[error("the provider takes no more calls for {} ms", .0.as_millis())]
    Throttled(Duration),
    /// Nothing happened for want of room; try again later, or elsewhere.
    #[error("the provider has no capacity: {0}")]
    Capacity(String),
    /// Trying again cannot help.
    #[error("the provider refused: {0}")]
    Permanent(String),
    /// No machine with that id.
    #[error("no such machine")]
    NotFound,
    /// The answer was lost: it may have happened. Look by tag before trying again.
    #[error("the provider's answer was lost: {0}")]
    Ambiguous(String),
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn which_of_two_is_first_does_not_change_when_one_is_restarted() {
        let machine = |provider_ref: &str| Machine {
            machine_id: MachineId::generate(),
            provider_ref: provider_ref.into(),
            power: Power::Running,
            address: None,
            database_address: None,
            launched_at: Utc::now(),
            region: Region::DEFAULT,
            instance_type: InstanceType::DEFAULT,
        };
        let (mut one, two) = (machine("i-1"), machine("i-2"));
        let first = |one: &Machine| Machine::first_of([&two, one]).unwrap().provider_ref.clone();
        assert_eq!(first(&one), "i-1");
        one.launched_at += TimeDelta::hours(1);
        one.power = Power::Stopped;
        assert_eq!(first(&one), "i-1");
        one.power = Power::Terminating;
        assert_eq!(first(&one), "i-2");
    }
}
