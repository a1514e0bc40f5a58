//! Objects on S3: the section `[objects]`, its defaults and its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cp_model::Region;
use cp_provider::{AwsAccess, S3Bucket, S3Objects};
use serde::{Deserialize, Serialize};

use super::aws::usual_name;
use super::scalar::scalar;
use super::sections::check_origin;
use super::{ConfigError, Period};

/// Snapshots and whatever else is too big for the database, in a bucket per region, on S3 or on
/// what speaks its protocol. Credentials come from where AWS's own tools have them. In `dev` a
/// folder stands in where no bucket is named.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Objects {
    /// How long one request may take until its answer begins.
    #[serde(deserialize_with = "scalar")]
    pub patience: Period,
    /// `[[objects.buckets]]`, one for each region with objects. In the environment:
    /// `INSFORGE_OBJECTS_BUCKETS='[{region="us-east",aws_region="us-east-1",bucket="acme-objects"}]'`.
    pub buckets: Vec<BucketOfRegion>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketOfRegion {
    pub region: Region,
    /// AWS's name for it, unless it is the usual one: `us-east-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_region: Option<String>,
    pub bucket: String,
    /// Instead of AWS's own endpoint, of a store that speaks S3's protocol. The bucket's name is in
    /// the path then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The ARN of the KMS key that objects are encrypted with, in the bucket's region; S3's own
    /// keys (AES-256) unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
}

impl Default for Objects {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(30).into(),
            buckets: Vec::new(),
        }
    }
}

impl Objects {
    /// Whether any bucket is named; without one nothing can be stored.
    pub fn names_buckets(&self) -> bool {
        !self.buckets.is_empty()
    }

    /// The buckets that are named.
    pub fn open(&self, access: &AwsAccess) -> S3Objects {
        let buckets = self.buckets.iter();
        let buckets = buckets.map(|bucket| (bucket.region, bucket.s3()));
        self.open_these(access, buckets.collect())
    }

    /// Other buckets, in the same way.
    pub fn open_these(&self, access: &AwsAccess, buckets: BTreeMap<Region, S3Bucket>) -> S3Objects {
        S3Objects::new(access, buckets, self.patience.get())
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let refuse =
            |key: &str, rule: &str| Err(ConfigError::invalid(format!("objects.{key}"), rule));
        if !(Duration::from_secs(1)..=Duration::from_mins(10)).contains(&self.patience.get()) {
            return refuse("patience", "must lie between 1s and 10m");
        }
        let (mut seen, mut places) = (BTreeSet::new(), BTreeSet::new());
        for bucket in &self.buckets {
            if !seen.insert(bucket.region) {
                let rule = format!("{} is there twice", bucket.region);
                return refuse("buckets", &rule);
            }
            // A tenant's data stays in the region that was chosen for it.
            if !places.insert((&bucket.endpoint, &bucket.bucket)) {
                let rule = format!("two regions have the bucket {:?}", bucket.bucket);
                return refuse("buckets", &rule);
            }
            bucket
                .validate()
                .or_else(|rule| refuse("buckets", &format!("{}: {rule}", bucket.region)))?;
        }
        Ok(())
    }
}

impl BucketOfRegion {
    fn aws_name(&self) -> &str {
        let usual = usual_name(self.region);
        self.aws_region.as_deref().unwrap_or(usual)
    }

    fn s3(&self) -> S3Bucket {
        S3Bucket {
            aws_region: self.aws_name().to_owned(),
            name: self.bucket.clone(),
            kms_key: self.kms_key.clone(),
            endpoint: self.endpoint.clone(),
        }
    }

    fn validate(&self) -> Result<(), String> {
        if self.aws_name().is_empty() {
            return Err("aws_region may not be empty".into());
        }
        if !is_bucket_name(&self.bucket) {
            return Err(
                "bucket must be a bucket's name: 3 to 63 lower-case letters, digits, '-' and '.', \
                 with a letter or digit at both ends"
                    .into(),
            );
        }
        if let Some(endpoint) = &self.endpoint {
            check_origin(endpoint).map_err(|rule| format!("endpoint {rule}"))?;
        }
        match &self.kms_key {
            // Stores of others name their keys as they like.
            Some(key) if self.endpoint.is_none() && !is_key_in(key, self.aws_name()) => {
                Err(format!(
                    "kms_key must be the ARN of a key in the bucket's region: arn:aws:kms:{}:…:key/…",
                    self.aws_name()
                ))
            }
            _ => Ok(()),
        }
    }
}

/// S3's rules for names, as far as a slip breaks them.
fn is_bucket_name(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|b| is_plain(*b) || b"-.".contains(b))
        && bytes.first().is_some_and(|b| is_plain(*b))
        && bytes.last().is_some_and(|b| is_plain(*b))
}

/// S3 takes a key of its own region alone (Amazon S3 user guide, "SSE-KMS").
fn is_key_in(arn: &str, aws_region: &str) -> bool {
    let parts: Vec<_> = arn.split(':').collect();
    matches!(parts[..], ["arn", _, "kms", region, account, key]
        if region == aws_region && !account.is_empty() && key.starts_with("key/"))
}
