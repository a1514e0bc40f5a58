//! Machines on AWS: the section `[ec2]`, its defaults and its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use cp_model::{InstanceType, Region};
use cp_provider::ec2::config::{Ec2Config, Ec2Region, Image, Ration};
use serde::{Deserialize, Serialize};

use super::scalar::{optional_scalar, scalar};
use super::{ConfigError, Period};

/// Machines that are EC2 instances. Credentials come from where AWS's own tools have them: the
/// environment, a profile, the role of the container or the instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ec2 {
    /// Whose machines these are: every instance and volume of ours has it as its tag
    /// `insforge:managed`, and whatever has it and no row of the database is terminated. So there
    /// is no default, and two control planes in one account need two names.
    #[serde(deserialize_with = "scalar")]
    pub deployment: String,
    /// The public URL of a backend. `{app_key}`, `{region}`, `{address}` (private address and port
    /// of the machine) and `{address_label}` (the address as a part of a host name: `10-0-1-2`) are
    /// filled in.
    #[serde(deserialize_with = "scalar")]
    pub access_host: String,
    /// The instance profile that machines get; none unless given.
    #[serde(deserialize_with = "optional_scalar")]
    pub instance_profile: Option<String>,
    /// How far answers of the instance metadata service travel; 2 reaches containers.
    #[serde(deserialize_with = "scalar")]
    pub hop_limit: i32,
    /// How long one call to AWS may take until its answer counts as lost.
    #[serde(deserialize_with = "scalar")]
    pub patience: Period,
    /// Launches a second and region in the long run: AWS's own limit of RunInstances.
    #[serde(deserialize_with = "scalar")]
    pub launches_per_second: f64,
    /// Launches at once after a rest.
    #[serde(deserialize_with = "scalar")]
    pub launch_burst: NonZeroU32,
    /// `[[ec2.regions]]`, one for each region with machines. In the environment:
    /// `INSFORGE_EC2_REGIONS='[{region="us-east",subnets=["subnet-…"],security_groups=["sg-…"],image="ami-…"}]'`.
    pub regions: Vec<RegionOfMachines>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionOfMachines {
    pub region: Region,
    /// AWS's name for it, unless it is the usual one: `us-east-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_region: Option<String>,
    /// Instead of AWS's own endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// One or more, best each in a zone of its own.
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
    /// `ami-…`; or `image_owner` and `image_name` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// An account, or `self`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_owner: Option<String>,
    /// With `*` for any text; the newest one is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_name: Option<String>,
    /// AWS's name for what the image must run on, `x86_64` unless given: that of the instance types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_architecture: Option<String>,
    /// For each size the instance types that will do, best first; those that are left out have
    /// their default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub instance_types: BTreeMap<InstanceType, Vec<String>>,
}

impl Default for Ec2 {
    fn default() -> Self {
        Self {
            deployment: String::new(),
            access_host: "https://{app_key}.{region}.insforge.app".into(),
            instance_profile: None,
            hop_limit: 2,
            patience: Duration::from_secs(30).into(),
            launches_per_second: 2.0,
            launch_burst: Ration::default().burst,
            regions: Vec::new(),
        }
    }
}

/// AWS's name for a region.
pub const fn usual_name(region: Region) -> &'static str {
    match region {
        Region::UsEast => "us-east-1",
        Region::UsWest => "us-west-2",
        Region::ApSoutheast => "ap-southeast-1",
        Region::EuCentral => "eu-central-1",
    }
}

/// Several makers and generations, so that one without room in a zone is no end. As in
/// infra/terraform/modules/machines.
const fn usual_types(size: InstanceType) -> &'static [&'static str] {
    match size {
        InstanceType::Nano => &["t3.small", "t3a.small"],
        InstanceType::Micro => &["t3.medium", "t3a.medium"],
        InstanceType::Small => &["t3.large", "t3a.large", "m6i.large"],
        InstanceType::Medium => &["m6i.xlarge", "m6a.xlarge", "m5.xlarge"],
        InstanceType::Large => &["m6i.2xlarge", "m6a.2xlarge", "m5.2xlarge"],
        InstanceType::Xl => &["m6i.4xlarge", "m6a.4xlarge", "m5.4xlarge"],
        InstanceType::Xl2 => &["m6i.8xlarge", "m6a.8xlarge", "m5.8xlarge"],
        InstanceType::Xl4 => &["m6i.12xlarge", "m6a.12xlarge", "m5.12xlarge"],
        InstanceType::Xl8 => &["m6i.16xlarge", "m6a.16xlarge", "m5.16xlarge"],
        InstanceType::Xl16 => &["m6i.24xlarge", "m6a.24xlarge", "m5.24xlarge"],
    }
}

impl Ec2 {
    /// What the provider takes.
    pub fn compute(&self) -> Ec2Config {
        let launches = Ration {
            interval: Duration::from_secs_f64(1.0 / self.launches_per_second),
            burst: self.launch_burst,
        };
        Ec2Config {
            deployment: self.deployment.clone(),
            access_host: self.access_host.clone(),
            instance_profile: self.instance_profile.clone(),
            hop_limit: self.hop_limit,
            patience: self.patience.get(),
            regions: self
                .regions
                .iter()
                .map(|region| region.compute(launches))
                .collect(),
        }
    }

    pub(super) fn validate(&self, is_used: bool) -> Result<(), ConfigError> {
        let refuse = |key: &str, rule: &str| Err(ConfigError::invalid(format!("ec2.{key}"), rule));
        let is_plain = |text: &str| {
            (1..=64).contains(&text.len())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        if (is_used || !self.deployment.is_empty()) && !is_plain(&self.deployment) {
            return refuse(
                "deployment",
                "must be a name of this control plane's own, 1 to 64 letters, digits, '-', '_' or '.'",
            );
        }
        let names_one = ["{app_key}", "{address}", "{address_label}"]
            .iter()
            .any(|part| self.access_host.contains(part));
        if !names_one || !self.access_host.starts_with("http") || self.access_host.ends_with('/') {
            return refuse(
                "access_host",
                "must be a URL with {app_key}, {address} or {address_label} in it and without a slash at its end",
            );
        }
        if !(1..=64).contains(&self.hop_limit) {
            return refuse("hop_limit", "must lie between 1 and 64");
        }
        if self.patience.get() < Duration::from_secs(1) {
            return refuse("patience", "must be at least 1s");
        }
        if !(0.01..=1000.0).contains(&self.launches_per_second) {
            return refuse("launches_per_second", "must lie between 0.01 and 1000");
        }
        if is_used && self.regions.is_empty() {
            return refuse(
                "regions",
                "must name at least one region: worker.provider is ec2",
            );
        }
        let (mut seen, mut places) = (BTreeSet::new(), BTreeSet::new());
        for region in &self.regions {
            if !seen.insert(region.region) {
                let rule = format!("{} is there twice", region.region);
                return refuse("regions", &rule);
            }
            // Each would take the other's machines for machines without a row, and end them.
            if !places.insert((region.aws_name(), &region.endpoint)) {
                let rule = format!("two of them are in {}", region.aws_name());
                return refuse("regions", &rule);
            }
            region
                .validate()
                .or_else(|rule| refuse("regions", &format!("{}: {rule}", region.region)))?;
        }
        Ok(())
    }
}

impl RegionOfMachines {
    fn aws_name(&self) -> &str {
        let usual = usual_name(self.region);
        self.aws_region.as_deref().unwrap_or(usual)
    }

    fn validate(&self) -> Result<(), &'static str> {
        if self.subnets.is_empty() {
            return Err("subnets must name at least one");
        }
        if self.security_groups.is_empty() {
            return Err("security_groups must name at least one");
        }
        if self.instance_types.values().any(Vec::is_empty) {
            return Err("instance_types must name at least one type for each size");
        }
        match (&self.image, &self.image_owner, &self.image_name) {
            (Some(_), None, None) | (None, Some(_), Some(_)) => Ok(()),
            _ => Err("either image, or image_owner and image_name must be set"),
        }
    }

    fn compute(&self, launches: Ration) -> Ec2Region {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let image = match &self.image {
            Some(id) => Image::Id(id.clone()),
            None => Image::Newest {
                owner: text(&self.image_owner),
                name: text(&self.image_name),
                architecture: self.image_architecture.clone().unwrap_or("x86_64".into()),
            },
        };
        let usual = |size: &InstanceType| {
            let types = usual_types(*size).iter();
            types.map(|name| (*name).to_owned()).collect()
        };
        let instance_types = InstanceType::ALL.iter().map(|size| {
            let own = self.instance_types.get(size).cloned();
            (*size, own.unwrap_or_else(|| usual(size)))
        });
        Ec2Region {
            region: self.region,
            aws_region: self.aws_name().to_owned(),
            endpoint: self.endpoint.clone(),
            subnets: self.subnets.clone(),
            security_groups: self.security_groups.clone(),
            image,
            instance_types: instance_types.collect(),
            launches,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_the_same_machines_with_and_without_terraform() {
        let infra = include_str!("../../../../infra/terraform/modules/machines/variables.tf");
        for size in InstanceType::ALL {
            let key = format!("\"{size}\"");
            let line = infra.lines().find(|line| line.trim().starts_with(&key));
            let (_, types) = line.and_then(|it| it.split_once('=')).unwrap_or_default();
            let types: Vec<String> = serde_json::from_str(types.trim()).unwrap_or_default();
            assert_eq!(types, usual_types(*size), "{size}");
        }
    }
}
