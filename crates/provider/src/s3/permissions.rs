//! Whether we may do what we shall have to do. S3 has no dry run, so it is done, with an object of
//! its own that is removed again.

use std::sync::Arc;

use aws_sdk_s3::types as t;
use futures::{TryStreamExt, future};

use super::{Bucket, S3Objects, get};
use crate::{
    ec2::permissions::{Permission, Verdict},
    objects::{ObjectError, ObjectKey, ObjectPrefix, Stored},
};

const CONTENT: &[u8] = b"insforge-cloud doctor";

impl S3Objects {
    /// Every action that objects need, in every region, under the prefix `doctor/`. The right to
    /// use a KMS key shows as the right to put and get.
    pub async fn check_permissions(&self) -> Vec<Permission> {
        // At once: a region that does not answer takes its time.
        let checks = self.buckets.iter().map(async |(region, bucket)| {
            let verdicts = check(bucket).await.into_iter();
            let permissions = verdicts.map(|(action, done)| Permission {
                region: *region,
                action,
                verdict: verdict(done),
            });
            permissions.collect::<Vec<_>>()
        });
        future::join_all(checks).await.concat()
    }
}

async fn check(bucket: &Arc<Bucket>) -> Vec<(&'static str, Result<(), ObjectError>)> {
    let named = ObjectPrefix::new("doctor").and_then(|under| Ok((under.attempt()?, under)));
    let (key, under) = named.expect("a short plain word names objects");
    let put = bucket.put(&key, &mut &CONTENT[..]).await;
    let got = match &put {
        Ok(stored) => read(bucket, &key, stored).await,
        Err(_) => Err(ObjectError::Transient("nothing could be put".to_owned())),
    };
    vec![
        ("s3:PutObject", put.map(drop)),
        ("s3:GetObject", got),
        ("s3:ListBucket", bucket.list(&under, None).await.map(drop)),
        (
            "s3:ListBucketMultipartUploads",
            bucket.abort_uploads(key.as_str(), None).await.map(drop),
        ),
        ("s3:AbortMultipartUpload", abort(bucket, &key).await),
        ("s3:DeleteObject", bucket.delete(&key).await),
    ]
}

async fn read(bucket: &Arc<Bucket>, key: &ObjectKey, stored: &Stored) -> Result<(), ObjectError> {
    let pieces = get::open(bucket.clone(), key, *stored).await?;
    pieces.try_for_each(|_| async { Ok(()) }).await
}

async fn abort(bucket: &Bucket, key: &ObjectKey) -> Result<(), ObjectError> {
    let upload = bucket.begin(key).await?;
    let named = t::MultipartUpload::builder()
        .key(key.as_str())
        .upload_id(&upload.id)
        .build();
    bucket.abort_upload(&named).await?;
    upload.ended();
    Ok(())
}

fn verdict(done: Result<(), ObjectError>) -> Verdict {
    match done {
        Ok(()) => Verdict::Allowed,
        Err(ObjectError::Permanent(text)) => Verdict::Denied(text),
        Err(error) => Verdict::Unknown(error.to_string()),
    }
}
