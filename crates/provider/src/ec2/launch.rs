//! Launching: which zone, which instance type, and what is said to AWS.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_ec2::types as t;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;

use super::client::{BootImage, Client};
use super::config::Ec2Config;
use super::trouble::Trouble;
use super::user_data::user_data;
use crate::{LaunchSpec, ProviderError};

/// How long a zone that had no room for a type is not asked again.
const FULL_FOR: Duration = Duration::from_mins(1);
/// Client tokens of one launch whose instances AWS has ended again.
const MOST_TOKENS: u32 = 5;

/// A type in a subnet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    instance_type: String,
    subnet: String,
}

/// Places that had no room lately.
#[derive(Default)]
pub(super) struct Full(Mutex<HashMap<Place, Instant>>);

impl Full {
    fn note(&self, place: &Place) {
        let mut full = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        full.retain(|_, since| since.elapsed() < FULL_FOR);
        full.insert(place.clone(), Instant::now());
    }

    fn has(&self, place: &Place) -> bool {
        let full = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        full.get(place)
            .is_some_and(|since| since.elapsed() < FULL_FOR)
    }
}

/// Launches in the first place that has room: all zones with the best type, then the next type.
pub(super) async fn launch(
    client: &Client,
    config: &Ec2Config,
    full: &Full,
    spec: &LaunchSpec,
) -> Result<t::Instance, ProviderError> {
    let image = client
        .image()
        .await
        .map_err(|trouble| read_error(&trouble))?;
    let user_data = user_data(spec)?;
    let mut refusal = "every zone was full a moment ago".to_owned();
    for place in places(client, spec)? {
        if full.has(&place) {
            continue;
        }
        client
            .pace
            .take(spec.machine_id)
            .map_err(ProviderError::Throttled)?;
        // The request is big: not on the stack of everybody who may launch.
        let launch = Box::pin(run(client, config, spec, &place, &image, &user_data));
        match launch.await {
            Ok(instance) => {
                client.pace.speed_up();
                return Ok(instance);
            }
            Err(Trouble::Capacity(text)) => {
                tracing::info!(?place, "no room there: {text}");
                full.note(&place);
                refusal = text;
            }
            Err(Trouble::Throttled) => {
                return Err(ProviderError::Throttled(client.pace.slow_down()));
            }
            Err(trouble) => return Err(write_error(trouble)),
        }
    }
    Err(ProviderError::Capacity(refusal))
}

/// Zones in an order of the machine's own, so that machines spread over them.
fn places(client: &Client, spec: &LaunchSpec) -> Result<Vec<Place>, ProviderError> {
    let region = &client.config;
    let types = region.instance_types.get(&spec.instance_type);
    let Some(types) = types.filter(|types| !types.is_empty()) else {
        return Err(ProviderError::Permanent(format!(
            "no instance type is configured for {} in {}",
            spec.instance_type, region.aws_region
        )));
    };
    // The last bytes of a version 7 UUID are random.
    let random = spec.machine_id.0.as_u128();
    let first = usize::try_from(random % region.subnets.len().max(1) as u128).unwrap_or(0);
    let zones = region.subnets.iter().cycle().skip(first);
    Ok(types
        .iter()
        .flat_map(|instance_type| {
            let zones = zones.clone().take(region.subnets.len());
            zones.map(|subnet| Place {
                instance_type: instance_type.clone(),
                subnet: subnet.clone(),
            })
        })
        .collect())
}

async fn run(
    client: &Client,
    config: &Ec2Config,
    spec: &LaunchSpec,
    place: &Place,
    image: &BootImage,
    user_data: &SecretString,
) -> Result<t::Instance, Trouble> {
    let machine = spec.machine_id.to_string();
    for round in 0..MOST_TOKENS {
        let tags = |kind| {
            t::TagSpecification::builder()
                .resource_type(kind)
                .set_tags(Some(client.tags(&machine)))
                .build()
        };
        let metadata = t::InstanceMetadataOptionsRequest::builder()
            .http_endpoint(t::InstanceMetadataEndpointState::Enabled)
            .http_tokens(t::HttpTokensState::Required)
            .http_put_response_hop_limit(config.hop_limit)
            .build();
        let disk = t::EbsBlockDevice::builder()
            .volume_type(t::VolumeType::Gp3)
            .volume_size(spec.volume_gib)
            .encrypted(true)
            .delete_on_termination(true)
            .build();
        let profile = config.instance_profile.as_ref().map(|name| {
            t::IamInstanceProfileSpecification::builder()
                .name(name)
                .build()
        });
        let ask = client
            .writes
            .run_instances()
            .client_token(token(spec, place, image, user_data, round))
            .min_count(1)
            .max_count(1)
            .image_id(&image.id)
            .instance_type(t::InstanceType::from(place.instance_type.as_str()))
            .subnet_id(&place.subnet)
            .set_security_group_ids(Some(client.config.security_groups.clone()))
            .set_iam_instance_profile(profile)
            .metadata_options(metadata)
            .block_device_mappings(
                t::BlockDeviceMapping::builder()
                    .device_name(&image.root_device)
                    .ebs(disk)
                    .build(),
            )
            // A shutdown from inside is no end of a customer's disk.
            .instance_initiated_shutdown_behavior(t::ShutdownBehavior::Stop)
            .user_data(BASE64_STANDARD.encode(user_data.expose_secret()))
            .tag_specifications(tags(t::ResourceType::Instance))
            .tag_specifications(tags(t::ResourceType::Volume));
        match Box::pin(client.call("RunInstances", ask.send())).await {
            // What it launched is gone again, as AWS itself says.
            Err(Trouble::TokenSpent) => {}
            Ok(launched) => {
                let instance = launched.instances.unwrap_or_default().into_iter().next();
                let whole = instance.filter(|instance| instance.instance_id().is_some());
                return whole
                    .ok_or_else(|| Trouble::Unknown("the answer names no instance".into()));
            }
            Err(trouble) => return Err(trouble),
        }
    }
    Err(Trouble::Capacity(
        "AWS ended every instance that it launched".into(),
    ))
}

/// The same for the same request, so that AWS takes a repeated one for what it is; at most 64
/// characters. Another for every other request, which AWS would refuse under the same token.
fn token(
    spec: &LaunchSpec,
    place: &Place,
    image: &BootImage,
    user_data: &SecretString,
    round: u32,
) -> String {
    let parts = [
        place.instance_type.as_str(),
        &place.subnet,
        &image.id,
        user_data.expose_secret(),
    ];
    let digest = crc32fast::hash(parts.join("\0").as_bytes());
    format!("{}-{digest:08x}-{round}", spec.machine_id.0.simple())
}

/// Of a call that changes nothing.
pub(super) fn read_error(trouble: &Trouble) -> ProviderError {
    match trouble.clone() {
        Trouble::Throttled => ProviderError::Throttled(Duration::from_secs(2)),
        Trouble::Denied(text) | Trouble::Invalid(text) => ProviderError::Permanent(text),
        Trouble::NotFound(_) => ProviderError::NotFound,
        Trouble::Capacity(text)
        | Trouble::Limit(text)
        | Trouble::WrongState(text)
        | Trouble::NotDone(text)
        | Trouble::Unknown(text) => ProviderError::Transient(text),
        Trouble::TokenSpent => ProviderError::Transient("a client token is spent".into()),
    }
}

/// Of a call that changes something.
pub(super) fn write_error(trouble: Trouble) -> ProviderError {
    match trouble {
        Trouble::Unknown(text) => ProviderError::Ambiguous(text),
        Trouble::Capacity(text) | Trouble::Limit(text) => ProviderError::Capacity(text),
        other => read_error(&other),
    }
}

#[cfg(test)]
mod tests {
    use cp_model::{InstanceType, MachineId, Region};

    use super::*;

    #[test]
    fn a_token_is_that_of_its_request() {
        let spec = LaunchSpec {
            machine_id: MachineId::generate(),
            region: Region::DEFAULT,
            instance_type: InstanceType::DEFAULT,
            volume_gib: 8,
            bootstrap_token: "ibt_1".into(),
            control_url: "https://api.example.com".into(),
        };
        let place = Place {
            instance_type: "t3.small".into(),
            subnet: "subnet-1".into(),
        };
        let image = BootImage {
            id: "ami-1".into(),
            root_device: "/dev/sda1".into(),
        };
        let data = user_data(&spec).unwrap();
        let first = token(&spec, &place, &image, &data, 0);
        assert_eq!(first, token(&spec, &place, &image, &data, 0));
        assert!(first.len() <= 64 && first.is_ascii(), "{first}");
        let elsewhere = Place {
            subnet: "subnet-2".into(),
            ..place.clone()
        };
        assert_ne!(first, token(&spec, &elsewhere, &image, &data, 0));
        assert_ne!(first, token(&spec, &place, &image, &data, 1));
    }
}
