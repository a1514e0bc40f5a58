//! One region's EC2, as far as machines need it: every call goes through [`Client::call`], which
//! counts it and says what its failure means.

use std::collections::HashSet;
use std::future::Future;
use std::time::{Duration, Instant};

use aws_sdk_ec2::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_ec2::config::{Builder, Region as AwsRegion};
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types as t;
use tokio::sync::RwLock;

use super::config::{Ec2Config, Ec2Region, Image};
use super::trouble::Trouble;
use crate::aws::{self, AwsAccess, RetryCutXml, WholeXml};
use crate::pace::Pace;

/// Tags of ours on instances and volumes.
pub(super) const MANAGED: &str = "insforge:managed";
pub(super) const MACHINE: &str = "insforge:machine";

/// How long the newest image is not asked for again.
const IMAGE_KNOWN_FOR: Duration = Duration::from_mins(5);
const PAGE: i32 = 1000;

pub(super) struct Client {
    pub(super) config: Ec2Region,
    pub(super) deployment: String,
    /// Tried again by the SDK, and slowed down by it when AWS asks for that.
    reads: aws_sdk_ec2::Client,
    /// Never tried again by the SDK: a lost answer is ours to settle.
    pub(super) writes: aws_sdk_ec2::Client,
    pub(super) pace: Pace,
    image: RwLock<Option<(Instant, BootImage)>>,
}

/// What a launch needs to know of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BootImage {
    pub id: String,
    /// The disk that it boots from must be described under its own name, or there are two.
    pub root_device: String,
}

impl Client {
    pub(super) fn new(access: &AwsAccess, whole: &Ec2Config, config: Ec2Region) -> Self {
        let builder = || {
            let mut builder = Builder::from(access.sdk_config())
                .region(AwsRegion::new(config.aws_region.clone()))
                .interceptor(WholeXml);
            if let Some(endpoint) = &config.endpoint {
                builder = builder.endpoint_url(endpoint);
            }
            builder
        };
        let timeouts = aws::timeouts(whole.patience, whole.patience);
        // Partitions of their own: throttled launches must not slow down looks.
        let reads = builder()
            // The SDK's rest after a throttle is 20 seconds at most, unless told otherwise.
            .retry_config(
                RetryConfig::adaptive()
                    .with_max_attempts(3)
                    .with_max_backoff(Duration::from_secs(2)),
            )
            .retry_partition(RetryPartition::custom("insforge-ec2-reads").build())
            .retry_classifier(RetryCutXml)
            .timeout_config(timeouts.clone());
        let writes = builder()
            .retry_config(aws::one_attempt())
            .timeout_config(timeouts);
        Self {
            reads: aws_sdk_ec2::Client::from_conf(reads.build()),
            writes: aws_sdk_ec2::Client::from_conf(writes.build()),
            deployment: whole.deployment.clone(),
            pace: Pace::new(config.launches),
            image: RwLock::new(None),
            config,
        }
    }

    /// One call. `action` is AWS's name for it.
    pub(super) async fn call<T, E>(
        &self,
        action: &'static str,
        send: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, Trouble>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let result = send.await.map_err(|error| Trouble::of(&error));
        let outcome = result.as_ref().map_or_else(Trouble::name, |_| "ok");
        metrics::counter!(
            "aws_calls_total",
            "service" => "ec2", "action" => action, "region" => self.config.aws_region.clone(), "outcome" => outcome
        )
        .increment(1);
        result
    }

    /// Instances of ours that match; terminated ones only where `states` names them.
    pub(super) async fn instances(
        &self,
        more: Option<t::Filter>,
    ) -> Result<Vec<t::Instance>, Trouble> {
        let living = ["pending", "running", "shutting-down", "stopping", "stopped"];
        let mut filters = vec![self.ours(), filter("instance-state-name", living)];
        filters.extend(more);
        let mut found = Vec::new();
        let mut pages = Pages::default();
        loop {
            let ask = self
                .reads
                .describe_instances()
                .set_filters(Some(filters.clone()))
                .max_results(PAGE)
                .set_next_token(pages.token.clone());
            let page = self.call("DescribeInstances", ask.send()).await?;
            for reservation in page.reservations.unwrap_or_default() {
                found.extend(reservation.instances.unwrap_or_default());
            }
            if !pages.turn(page.next_token)? {
                return Ok(found);
            }
        }
    }

    /// The statuses of running instances that match, whosesoever they are: there is no filter by tag.
    pub(super) async fn statuses(
        &self,
        matching: t::Filter,
    ) -> Result<Vec<t::InstanceStatus>, Trouble> {
        let mut found = Vec::new();
        let mut pages = Pages::default();
        loop {
            let ask = self
                .reads
                .describe_instance_status()
                .filters(matching.clone())
                .max_results(PAGE)
                .set_next_token(pages.token.clone());
            let page = self.call("DescribeInstanceStatus", ask.send()).await?;
            found.extend(page.instance_statuses.unwrap_or_default());
            if !pages.turn(page.next_token)? {
                return Ok(found);
            }
        }
    }

    /// Volumes of ours that no instance has.
    pub(super) async fn loose_volumes(&self) -> Result<Vec<t::Volume>, Trouble> {
        let mut found = Vec::new();
        let mut pages = Pages::default();
        loop {
            let ask = self
                .reads
                .describe_volumes()
                .filters(self.ours())
                .filters(filter("status", ["available"]))
                .max_results(PAGE)
                .set_next_token(pages.token.clone());
            let page = self.call("DescribeVolumes", ask.send()).await?;
            found.extend(page.volumes.unwrap_or_default());
            if !pages.turn(page.next_token)? {
                return Ok(found);
            }
        }
    }

    fn ours(&self) -> t::Filter {
        filter(format!("tag:{MANAGED}"), [&self.deployment])
    }

    /// Looked up by owner and name once in a while; a new one counts for launches from then on.
    pub(super) async fn image(&self) -> Result<BootImage, Trouble> {
        if let Some((at, image)) = &*self.image.read().await
            && at.elapsed() < IMAGE_KNOWN_FOR
        {
            return Ok(image.clone());
        }
        let mut known = self.image.write().await;
        if let Some((at, image)) = &*known
            && at.elapsed() < IMAGE_KNOWN_FOR
        {
            return Ok(image.clone());
        }
        let ask = self.reads.describe_images();
        let ask = match &self.config.image {
            Image::Id(id) => ask.image_ids(id),
            Image::Newest {
                owner,
                name,
                architecture,
            } => ask
                .owners(owner)
                .filters(filter("name", [name]))
                .filters(filter("architecture", [architecture]))
                .filters(filter("state", ["available"])),
        };
        let images = match (self.call("DescribeImages", ask.send()).await, &*known) {
            (Ok(images), _) => images,
            // An older one boots as well.
            (Err(_), Some((_, image))) => return Ok(image.clone()),
            (Err(trouble), None) => return Err(trouble),
        };
        let newest = images
            .images
            .unwrap_or_default()
            .into_iter()
            // ISO 8601 in UTC: the order of the texts is that of the times.
            .max_by(|a, b| a.creation_date().cmp(&b.creation_date()));
        let image = newest.and_then(|image| {
            Some(BootImage {
                id: image.image_id?,
                root_device: image.root_device_name?,
            })
        });
        let Some(image) = image else {
            let (region, image) = (&self.config.aws_region, &self.config.image);
            return Err(Trouble::Invalid(format!(
                "there is no image {image:?} in {region}"
            )));
        };
        *known = Some((Instant::now(), image.clone()));
        Ok(image)
    }

    pub(super) async fn volume(&self, id: &str) -> Result<Option<t::Volume>, Trouble> {
        let ask = self
            .reads
            .describe_volumes()
            .filters(filter("volume-id", [id]));
        let found = self.call("DescribeVolumes", ask.send()).await?;
        Ok(found.volumes.unwrap_or_default().into_iter().next())
    }

    pub(super) fn tags(&self, machine: &str) -> Vec<t::Tag> {
        [
            (MANAGED, self.deployment.clone()),
            (MACHINE, machine.to_owned()),
            ("Name", format!("{} {machine}", self.deployment)),
        ]
        .into_iter()
        .map(|(key, value)| t::Tag::builder().key(key).value(value).build())
        .collect()
    }
}

/// The tokens of a list's pages. Not the SDK's paginator: at a token that comes again that one takes
/// the list for whole.
#[derive(Default)]
struct Pages {
    /// Of the page to ask for; none of the first.
    token: Option<String>,
    before: HashSet<String>,
}

impl Pages {
    /// Goes on to the page that the last one names. False: that was the last.
    fn turn(&mut self, next: Option<String>) -> Result<bool, Trouble> {
        let next = next.filter(|token| !token.is_empty());
        self.before.extend(self.token.take());
        self.token = next;
        if self
            .token
            .as_ref()
            .is_some_and(|it| self.before.contains(it))
        {
            let text = "a page of the list names one before it as the next".to_owned();
            return Err(Trouble::Unknown(text));
        }
        Ok(self.token.is_some())
    }
}

pub(super) fn filter<V: ToString>(
    name: impl Into<String>,
    values: impl IntoIterator<Item = V>,
) -> t::Filter {
    let values = values.into_iter().map(|value| value.to_string()).collect();
    t::Filter::builder()
        .name(name)
        .set_values(Some(values))
        .build()
}
