//! Objects on S3, a bucket per region, and on everything that speaks its protocol: moto in tests,
//! the server in [`folder`] on a laptop.
//!
//! One file per verb: [`put`], [`get`], [`sweep`] (list, delete, abort). Made by the server, driven
//! by the worker.
//!
//! Retries. Reads, deletes and parts may be repeated and are, by the SDK: what is sent is at hand,
//! and the source of a put cannot be read twice. Puts of whole objects and completions are sent
//! with `If-None-Match: *`, so a repetition cannot do harm; who won is told by a mark that each put
//! leaves in the metadata of its object.

mod calls;
mod error;
pub mod folder;
mod get;
mod parts;
mod permissions;
mod put;
mod sweep;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    config::{
        Builder, RequestChecksumCalculation, ResponseChecksumValidation,
        StalledStreamProtectionConfig,
        retry::{RetryConfig, RetryPartition},
    },
    error::ProvideErrorMetadata,
    presigning::PresigningConfig,
    primitives::DateTime as S3DateTime,
    types::{self as t, ServerSideEncryption},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use cp_model::Region;
use secrecy::SecretString;
use tokio::io::AsyncRead;

use crate::{
    AwsAccess, aws,
    objects::{
        MAX_PRESIGNED_LIFETIME, ObjectError, ObjectInfo, ObjectKey, ObjectPage, ObjectPrefix,
        ObjectStream, Objects, Stored,
    },
};
use calls::CountCalls;
use error::classify;
use parts::Buffers;

/// Metadata of an object: which put made it.
const ATTEMPT: &str = "attempt";

/// Where the objects of a region are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Bucket {
    /// AWS's name: `us-east-1`.
    pub aws_region: String,
    pub name: String,
    /// The ARN of the KMS key that encrypts its objects. None: S3's own keys (AES-256).
    pub kms_key: Option<String>,
    /// Where this bucket is in place of [`AwsAccess`]'s endpoint: `http://host:port`.
    pub endpoint: Option<String>,
}

/// The implementation on aws-sdk-s3.
///
/// Memory: a put holds at most four parts at a time (three on their way, one being filled), of
/// 8 MiB each; parts grow with the object, from 16 GiB on, to 128 MiB at last (see [`parts`]). A
/// get holds what the connection delivers and one piece back.
pub struct S3Objects {
    buckets: BTreeMap<Region, Arc<Bucket>>,
}

/// A bucket and how it is talked to.
struct Bucket {
    client: Client,
    aws_region: String,
    name: String,
    kms_key: Option<String>,
    tuning: Tuning,
    buffers: Buffers,
}

/// Sizes and patience. Tests take smaller ones.
#[derive(Debug, Clone)]
struct Tuning {
    /// Of the first parts, in bytes; S3 wants at least 5 MiB.
    part_size: usize,
    /// How many parts of one put are on their way at a time.
    parts_in_flight: usize,
    /// How many names a listing gives at once, and how many are deleted at once; at most 1,000.
    page: i32,
    /// How often a request is sent, and how often a broken get is resumed without a byte more.
    attempts: u32,
    /// Before the second attempt; doubled for each further one.
    backoff: Duration,
    /// Until the headers of a response are there.
    headers: Duration,
    /// Until a completion is answered: S3 may work for minutes at it.
    completion: Duration,
    /// How long a body may stand still.
    stall: Duration,
}

impl Tuning {
    fn of(patience: Duration) -> Self {
        Self {
            part_size: 8 * 1024 * 1024,
            parts_in_flight: 3,
            page: 1000,
            attempts: 5,
            backoff: Duration::from_millis(250),
            headers: patience,
            completion: patience * 20,
            stall: patience,
        }
    }
}

impl S3Objects {
    /// `patience`: how long one request may take until the headers of its answer are there, and
    /// how long a body may stand still. What sends much may take longer by what a slow line needs
    /// for it, and a completion 20 times as long.
    ///
    /// Asks nobody: a wrong bucket shows at the first call.
    pub fn new(
        access: &AwsAccess,
        buckets: BTreeMap<Region, S3Bucket>,
        patience: Duration,
    ) -> Self {
        Self::tuned(access, buckets, &Tuning::of(patience))
    }

    fn tuned(access: &AwsAccess, buckets: BTreeMap<Region, S3Bucket>, tuning: &Tuning) -> Self {
        let buckets = buckets.into_iter().map(|(region, bucket)| {
            let client = client(access, &bucket, tuning);
            let bucket = Bucket {
                client,
                aws_region: bucket.aws_region,
                name: bucket.name,
                kms_key: bucket.kms_key,
                tuning: tuning.clone(),
                buffers: Buffers::default(),
            };
            (region, Arc::new(bucket))
        });
        Self {
            buckets: buckets.collect(),
        }
    }

    /// Makes the buckets that are not there, for `dev` and emulators. In production they belong to
    /// `infra/`, and the control plane may not make any.
    pub async fn create_buckets(&self) -> Result<(), ObjectError> {
        for bucket in self.buckets.values() {
            bucket.create().await?;
        }
        Ok(())
    }

    fn bucket(&self, region: Region) -> Result<&Arc<Bucket>, ObjectError> {
        self.buckets.get(&region).ok_or_else(|| {
            ObjectError::Permanent(format!("no bucket is configured for region {region}"))
        })
    }
}

fn client(access: &AwsAccess, bucket: &S3Bucket, tuning: &Tuning) -> Client {
    let retry = RetryConfig::standard()
        .with_max_attempts(tuning.attempts)
        .with_initial_backoff(tuning.backoff)
        .with_max_backoff(Duration::from_secs(20));
    let stall = StalledStreamProtectionConfig::enabled()
        .grace_period(tuning.stall)
        .build();
    let mut config = Builder::from(access.sdk_config());
    if let Some(endpoint) = &bucket.endpoint {
        config = config.endpoint_url(endpoint);
    }
    let config = config
        .region(aws_config::Region::new(bucket.aws_region.clone()))
        .force_path_style(access.path_style() || bucket.endpoint.is_some())
        .retry_config(retry)
        // Of this client alone: a region that fails spends no other region's retries.
        .retry_partition(RetryPartition::custom("objects").build())
        .timeout_config(aws::timeouts(tuning.headers, tuning.headers * 2))
        .stalled_stream_protection(stall)
        // Requests carry the checksums that we compute while we read; and what is read is checked
        // against our own record, which the SDK does not know.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .interceptor(aws::WholeXml)
        .interceptor(CountCalls {
            region: bucket.aws_region.clone(),
        })
        .retry_classifier(aws::RetryCutXml)
        .build();
    Client::from_conf(config)
}

#[async_trait]
impl Objects for S3Objects {
    fn regions(&self) -> Vec<Region> {
        self.buckets.keys().copied().collect()
    }

    async fn put(
        &self,
        region: Region,
        key: &ObjectKey,
        content: &mut (dyn AsyncRead + Unpin + Send),
    ) -> Result<Stored, ObjectError> {
        self.bucket(region)?.put(key, content).await
    }

    async fn get(
        &self,
        region: Region,
        key: &ObjectKey,
        expected: &Stored,
    ) -> Result<ObjectStream, ObjectError> {
        get::open(self.bucket(region)?.clone(), key, *expected).await
    }

    async fn presign_get(
        &self,
        region: Region,
        key: &ObjectKey,
        lifetime: Duration,
    ) -> Result<SecretString, ObjectError> {
        self.bucket(region)?.presign_get(key, lifetime).await
    }

    async fn head(
        &self,
        region: Region,
        key: &ObjectKey,
    ) -> Result<Option<ObjectInfo>, ObjectError> {
        let found = self.bucket(region)?.head(key).await?;
        Ok(found.map(|found| found.info))
    }

    async fn delete(&self, region: Region, key: &ObjectKey) -> Result<(), ObjectError> {
        self.bucket(region)?.delete(key).await
    }

    async fn delete_prefix(
        &self,
        region: Region,
        prefix: &ObjectPrefix,
    ) -> Result<u64, ObjectError> {
        self.bucket(region)?.delete_prefix(prefix).await
    }

    async fn list(
        &self,
        region: Region,
        prefix: &ObjectPrefix,
        after: Option<&str>,
    ) -> Result<ObjectPage, ObjectError> {
        self.bucket(region)?.list(prefix, after).await
    }

    async fn abort_leftovers(
        &self,
        region: Region,
        before: DateTime<Utc>,
    ) -> Result<u64, ObjectError> {
        self.bucket(region)?.abort_uploads("", Some(before)).await
    }
}

/// An object and the put that made it.
struct Found {
    info: ObjectInfo,
    attempt: Option<String>,
}

impl Bucket {
    async fn head(&self, key: &ObjectKey) -> Result<Option<Found>, ObjectError> {
        let sent = self
            .client
            .head_object()
            .bucket(&self.name)
            .key(key.as_str())
            .checksum_mode(t::ChecksumMode::Enabled)
            .send()
            .await;
        let found = match sent {
            Ok(found) => found,
            Err(error) => {
                return match classify("HeadObject", &error) {
                    ObjectError::NotFound => Ok(None),
                    error => Err(error),
                };
            }
        };
        let size = found.content_length().and_then(|size| size.try_into().ok());
        let info = ObjectInfo {
            size: size.ok_or_else(|| incomplete("HeadObject"))?,
            crc32: found.checksum_crc32().and_then(decode_crc32),
            modified_at: found
                .last_modified()
                .and_then(time)
                .ok_or_else(|| incomplete("HeadObject"))?,
        };
        let attempt = found.metadata().and_then(|metadata| metadata.get(ATTEMPT));
        Ok(Some(Found {
            info,
            attempt: attempt.cloned(),
        }))
    }

    async fn presign_get(
        &self,
        key: &ObjectKey,
        lifetime: Duration,
    ) -> Result<SecretString, ObjectError> {
        if !(Duration::from_secs(1)..=MAX_PRESIGNED_LIFETIME).contains(&lifetime) {
            let text = format!("a presigned URL lives for 1 s to 7 days, not {lifetime:?}");
            return Err(ObjectError::Permanent(text));
        }
        let config = PresigningConfig::expires_in(lifetime)
            .map_err(|error| ObjectError::Permanent(error.to_string()))?;
        let request = self
            .client
            .get_object()
            .bucket(&self.name)
            .key(key.as_str())
            .presigned(config)
            .await
            .map_err(|error| classify("presigned GetObject", &error))?;
        Ok(SecretString::from(request.uri()))
    }

    async fn create(&self) -> Result<(), ObjectError> {
        // The oldest region is the default and is refused as a constraint.
        let elsewhere = (self.aws_region != "us-east-1").then(|| {
            t::CreateBucketConfiguration::builder()
                .location_constraint(t::BucketLocationConstraint::from(&*self.aws_region))
                .build()
        });
        let sent = self
            .client
            .create_bucket()
            .bucket(&self.name)
            .set_create_bucket_configuration(elsewhere)
            .send()
            .await;
        match sent {
            Err(error) if error.code() != Some("BucketAlreadyOwnedByYou") => {
                Err(classify("CreateBucket", &error))
            }
            _ => Ok(()),
        }
    }

    /// The encryption of a put: algorithm and key.
    fn encryption(&self) -> (ServerSideEncryption, Option<String>) {
        match &self.kms_key {
            Some(key) => (ServerSideEncryption::AwsKms, Some(key.clone())),
            None => (ServerSideEncryption::Aes256, None),
        }
    }

    /// Waits before the attempt of that number, the second one being 1.
    async fn back_off(&self, attempt: u32) {
        let full = self.tuning.backoff * 2_u32.saturating_pow(attempt - 1).min(64);
        // Jitter, so that those who failed together do not come back together.
        tokio::time::sleep(full.mul_f64(rand::random_range(0.5..1.0))).await;
    }
}

fn incomplete(what: &str) -> ObjectError {
    ObjectError::Transient(format!("{what}: the answer lacks what was asked for"))
}

/// As S3 writes checksums: base64 of the big-endian bytes. None for the checksum of checksums
/// (`…-3`), which says nothing about the content.
fn decode_crc32(text: &str) -> Option<u32> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    bytes.try_into().ok().map(u32::from_be_bytes)
}

fn encode_crc32(crc32: u32) -> String {
    BASE64_STANDARD.encode(crc32.to_be_bytes())
}

fn time(at: &S3DateTime) -> Option<DateTime<Utc>> {
    SystemTime::try_from(*at).ok().map(DateTime::from)
}
