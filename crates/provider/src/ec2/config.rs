//! What an operator decides about machines on EC2.

use std::collections::BTreeMap;
use std::time::Duration;

use cp_model::{InstanceType, Region};

pub use crate::pace::Ration;

/// Machines of one control plane, in any number of regions.
#[derive(Debug, Clone)]
pub struct Ec2Config {
    /// Whose machines these are: the value of the tag `insforge:managed`. Two control planes in one
    /// account must have two names, or each takes the other's machines for orphans of its own.
    pub deployment: String,
    /// Where users reach a backend, with `{app_key}`, `{region}`, `{address}` (the machine's private
    /// address and port) and `{address_label}` (the address as a part of a host name: `10-0-1-2`) in
    /// it: `https://{app_key}.{region}.insforge.app`.
    pub access_host: String,
    /// What the machines may do on AWS: the name of an instance profile.
    pub instance_profile: Option<String>,
    /// How far answers of the metadata service travel, in hops; 2 lets containers use the
    /// machine's role.
    pub hop_limit: i32,
    /// How long one call may take until its answer counts as lost.
    pub patience: Duration,
    pub regions: Vec<Ec2Region>,
}

#[derive(Debug, Clone)]
pub struct Ec2Region {
    pub region: Region,
    /// AWS's name for it: `us-east-1`.
    pub aws_region: String,
    /// Instead of AWS's own endpoint.
    pub endpoint: Option<String>,
    /// One or more, each in a zone of its own: where one has no room, the next is tried.
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
    pub image: Image,
    /// For each size the instance types that will do, best first.
    pub instance_types: BTreeMap<InstanceType, Vec<String>>,
    pub launches: Ration,
}

/// What machines boot from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// `ami-…`.
    Id(String),
    /// The newest one of the owner (an account, or `self`) whose name matches; `*` for any text.
    /// `architecture` is AWS's name for it (`x86_64`, `arm64`): an image of another one boots on none
    /// of the instance types.
    Newest {
        owner: String,
        name: String,
        architecture: String,
    },
}
