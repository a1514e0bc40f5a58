//! Whether we may do what we shall have to do: AWS judges each call as a dry run (EC2 API
//! reference, "DryRun"), which changes nothing.

use std::future::Future;

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types as t;
use cp_model::Region;
use cp_model::catalogue::DEFAULT_VOLUME_GIB;

use super::Ec2Compute;
use super::client::{Client, MACHINE, filter};
use super::trouble::Trouble;

/// AWS's verdict on one action in one region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    pub region: Region,
    /// `ec2:RunInstances`.
    pub action: &'static str,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// In AWS's words.
    Denied(String),
    /// It could not be found out, and why.
    Unknown(String),
}

impl Ec2Compute {
    /// Every action that machines need, in every region. Changes nothing. Actions on machines need
    /// one that exists: without any, they stay unknown.
    pub async fn check_permissions(&self) -> Vec<Permission> {
        let mut permissions = Vec::new();
        for (region, regional) in &self.regions {
            let profile = self.config.instance_profile.as_deref();
            let verdicts = Box::pin(check(&regional.client, profile)).await;
            permissions.extend(verdicts.into_iter().map(|(action, verdict)| Permission {
                region: *region,
                action,
                verdict,
            }));
        }
        permissions
    }
}

async fn check(client: &Client, profile: Option<&str>) -> Vec<(&'static str, Verdict)> {
    let ec2 = &client.writes;
    let mut verdicts = Vec::new();
    let ours = || filter("tag-key", [MACHINE]);
    let describe = ec2.describe_instances().filters(ours()).dry_run(true);
    verdicts.push(("ec2:DescribeInstances", ask(describe.send()).await));
    let describe = ec2.describe_volumes().filters(ours()).dry_run(true);
    verdicts.push(("ec2:DescribeVolumes", ask(describe.send()).await));
    let describe = ec2.describe_instance_status().dry_run(true);
    verdicts.push(("ec2:DescribeInstanceStatus", ask(describe.send()).await));
    let image = client.image().await;
    verdicts.push(("ec2:DescribeImages", verdict(image.as_ref().map(drop))));
    let launch = Box::pin(may_launch(client, profile)).await;
    verdicts.push(("ec2:RunInstances", launch));

    let instances = client.instances(None).await.unwrap_or_default();
    let instance = instances.first().and_then(|i| i.instance_id());
    let Some(instance) = instance else {
        let reason = "there is no machine to try it on yet".to_owned();
        let actions = [
            "ec2:StartInstances",
            "ec2:StopInstances",
            "ec2:TerminateInstances",
            "ec2:ModifyInstanceAttribute",
            "ec2:ModifyVolume",
            "ec2:DeleteVolume",
        ];
        verdicts.extend(actions.map(|action| (action, Verdict::Unknown(reason.clone()))));
        return verdicts;
    };
    let start = ec2.start_instances().instance_ids(instance).dry_run(true);
    verdicts.push(("ec2:StartInstances", ask(start.send()).await));
    let stop = ec2.stop_instances().instance_ids(instance).dry_run(true);
    verdicts.push(("ec2:StopInstances", ask(stop.send()).await));
    let end = ec2
        .terminate_instances()
        .instance_ids(instance)
        .dry_run(true);
    verdicts.push(("ec2:TerminateInstances", ask(end.send()).await));
    let size = t::AttributeValue::builder().value("t3.small").build();
    let resize = ec2.modify_instance_attribute().instance_id(instance);
    let resize = resize.instance_type(size).dry_run(true);
    verdicts.push(("ec2:ModifyInstanceAttribute", ask(resize.send()).await));
    let disks = instances[0].block_device_mappings();
    let volume = disks.first().and_then(|disk| disk.ebs()?.volume_id());
    // AWS may refuse what makes no sense before it looks at rights: a disk only grows.
    let size = match volume {
        Some(id) => client.volume(id).await.ok().flatten(),
        None => None,
    };
    let size = size.and_then(|volume| volume.size());
    let grow = ec2.modify_volume().set_volume_id(volume.map(str::to_owned));
    let grow = grow
        .size(size.unwrap_or(DEFAULT_VOLUME_GIB) + 1)
        .dry_run(true);
    verdicts.push(("ec2:ModifyVolume", ask(grow.send()).await));
    let delete = ec2.delete_volume().set_volume_id(volume.map(str::to_owned));
    verdicts.push(("ec2:DeleteVolume", ask(delete.dry_run(true).send()).await));
    verdicts
}

/// Also proves that subnet, security groups and image are there, and that the instance profile may
/// be handed on (`iam:PassRole`).
async fn may_launch(client: &Client, profile: Option<&str>) -> Verdict {
    let image = match client.image().await {
        Ok(image) => image,
        Err(trouble) => return verdict(Err(&trouble)),
    };
    let config = &client.config;
    let kind = config.instance_types.values().flatten().next();
    let profile = profile.map(|name| {
        t::IamInstanceProfileSpecification::builder()
            .name(name)
            .build()
    });
    // As `launch` asks: policies may insist on each of these.
    let tags = |kind| {
        t::TagSpecification::builder()
            .resource_type(kind)
            .set_tags(Some(client.tags("dry-run")))
            .build()
    };
    let metadata = t::InstanceMetadataOptionsRequest::builder()
        .http_tokens(t::HttpTokensState::Required)
        .build();
    let disk = t::EbsBlockDevice::builder()
        .volume_type(t::VolumeType::Gp3)
        .volume_size(DEFAULT_VOLUME_GIB)
        .encrypted(true)
        .delete_on_termination(true)
        .build();
    let disk = t::BlockDeviceMapping::builder()
        .device_name(&image.root_device)
        .ebs(disk)
        .build();
    let launch = client
        .writes
        .run_instances()
        .min_count(1)
        .max_count(1)
        .image_id(image.id)
        .set_instance_type(kind.map(|kind| t::InstanceType::from(kind.as_str())))
        .set_subnet_id(config.subnets.first().cloned())
        .set_security_group_ids(Some(config.security_groups.clone()))
        .set_iam_instance_profile(profile)
        .tag_specifications(tags(t::ResourceType::Instance))
        .tag_specifications(tags(t::ResourceType::Volume))
        .metadata_options(metadata)
        .block_device_mappings(disk)
        .dry_run(true);
    Box::pin(ask(launch.send())).await
}

/// AWS answers a dry run with an error in any case; an emulator may just do what only looks.
async fn ask<T, E>(send: impl Future<Output = Result<T, SdkError<E>>>) -> Verdict
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match send.await {
        Ok(_) => Verdict::Allowed,
        Err(error) if error.code() == Some("DryRunOperation") => Verdict::Allowed,
        Err(error) => verdict(Err(&Trouble::of(&error))),
    }
}

fn verdict(result: Result<(), &Trouble>) -> Verdict {
    match result {
        Ok(()) => Verdict::Allowed,
        Err(Trouble::Denied(text)) => Verdict::Denied(text.clone()),
        Err(other) => Verdict::Unknown(format!("{}: {other:?}", other.name())),
    }
}
