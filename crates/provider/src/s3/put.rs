//! Put: one request for what fits into one part, a multipart upload for the rest.

use std::time::Duration;

use aws_sdk_s3::{
    Client, config::Config, error::ProvideErrorMetadata, primitives::ByteStream, types as t,
};
use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::io::AsyncRead;
use uuid::Uuid;

use super::{
    ATTEMPT, Bucket, classify, encode_crc32, incomplete,
    parts::{Part, Parts},
};
use crate::{
    aws,
    objects::{ObjectError, ObjectKey, Stored},
};

/// The slowest line that a put is meant for, in bytes per second.
const SLOWEST: usize = 256 * 1024;

impl Bucket {
    pub(super) async fn put(
        &self,
        key: &ObjectKey,
        content: &mut (dyn AsyncRead + Unpin + Send),
    ) -> Result<Stored, ObjectError> {
        let mut parts = Parts::new(content, &self.tuning, &self.buffers);
        let first = parts.next().await?;
        let first = first.unwrap_or_else(|| Part::new(1, Bytes::new()));
        if !parts.more().await? {
            return self.put_whole(key, first).await;
        }
        let upload = self.begin(key).await?;
        match self.put_parts(&upload, first, parts).await {
            Ok(stored) => {
                upload.ended();
                Ok(stored)
            }
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }

    async fn put_whole(&self, key: &ObjectKey, content: Part) -> Result<Stored, ObjectError> {
        let attempt = Uuid::new_v4().simple().to_string();
        let (encryption, kms_key) = self.encryption();
        let stored = Stored {
            size: content.bytes.len() as u64,
            crc32: content.crc.finalize(),
        };
        let patience = self.patience(content.bytes.len());
        let sent = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(key.as_str())
            .content_type("application/octet-stream")
            .metadata(ATTEMPT, &attempt)
            .if_none_match("*")
            .set_bucket_key_enabled(kms_key.is_some().then_some(true))
            .set_ssekms_key_id(kms_key)
            .server_side_encryption(encryption)
            // Emulators keep the checksum only when its algorithm is named.
            .checksum_algorithm(t::ChecksumAlgorithm::Crc32)
            .checksum_crc32(encode_crc32(stored.crc32))
            .body(ByteStream::from(content.bytes))
            .customize()
            // The checksum is signed, and it covers the body.
            .disable_payload_signing()
            .config_override(Config::builder().timeout_config(aws::timeouts(patience, patience)))
            .send()
            .await;
        let Err(error) = sent else {
            return Ok(stored);
        };
        // The SDK has sent it several times: the first may have done it and the last be refused.
        let failure = classify("PutObject", &error);
        match self.settle(key, &attempt, &stored).await {
            Ok(Some(())) => Ok(stored),
            Err(ObjectError::Exists) => Err(ObjectError::Exists),
            // Something is there, and only a look would tell whether it is ours.
            Err(unseen) if error.code() == Some("PreconditionFailed") => Err(unseen),
            Ok(None) | Err(_) => Err(failure),
        }
    }

    pub(super) async fn begin(&self, key: &ObjectKey) -> Result<Upload, ObjectError> {
        let attempt = Uuid::new_v4().simple().to_string();
        let (encryption, kms_key) = self.encryption();
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(&self.name)
            .key(key.as_str())
            .content_type("application/octet-stream")
            .metadata(ATTEMPT, &attempt)
            .set_bucket_key_enabled(kms_key.is_some().then_some(true))
            .set_ssekms_key_id(kms_key)
            .server_side_encryption(encryption)
            .checksum_algorithm(t::ChecksumAlgorithm::Crc32)
            .checksum_type(t::ChecksumType::FullObject)
            .send()
            .await
            .map_err(|error| classify("CreateMultipartUpload", &error))?;
        let id = begun
            .upload_id()
            .ok_or_else(|| incomplete("CreateMultipartUpload"))?;
        Ok(Upload {
            client: self.client.clone(),
            bucket: self.name.clone(),
            key: key.clone(),
            id: id.to_owned(),
            attempt,
            open: true,
        })
    }

    /// Sends parts while the next ones are read, and completes.
    async fn put_parts(
        &self,
        upload: &Upload,
        first: Part,
        mut parts: Parts<'_>,
    ) -> Result<Stored, ObjectError> {
        let mut crc = crc32fast::Hasher::new();
        let mut size = 0;
        let mut sending = FuturesUnordered::new();
        let mut sent = Vec::new();
        let mut next = Some(first);
        loop {
            if let Some(part) = next.take() {
                crc.combine(&part.crc);
                size += part.bytes.len() as u64;
                sending.push(self.send_part(upload, part));
            }
            tokio::select! {
                part = parts.next(), if sending.len() < self.tuning.parts_in_flight => {
                    match part? {
                        Some(part) => next = Some(part),
                        None => break,
                    }
                }
                Some(part) = sending.next() => sent.push(part?),
            }
        }
        while let Some(part) = sending.next().await {
            sent.push(part?);
        }
        sent.sort_unstable_by_key(t::CompletedPart::part_number);
        let stored = Stored {
            size,
            crc32: crc.finalize(),
        };
        self.complete(upload, sent, &stored).await?;
        Ok(stored)
    }

    async fn send_part(
        &self,
        upload: &Upload,
        part: Part,
    ) -> Result<t::CompletedPart, ObjectError> {
        let crc32 = encode_crc32(part.crc.finalize());
        let patience = self.patience(part.bytes.len());
        let sent = self
            .client
            .upload_part()
            .bucket(&self.name)
            .key(upload.key.as_str())
            .upload_id(&upload.id)
            .part_number(part.number)
            .checksum_algorithm(t::ChecksumAlgorithm::Crc32)
            .checksum_crc32(&crc32)
            .body(ByteStream::from(part.bytes))
            .customize()
            .disable_payload_signing()
            .config_override(Config::builder().timeout_config(aws::timeouts(patience, patience)))
            .send()
            .await
            .map_err(|error| classify("UploadPart", &error))?;
        let e_tag = sent.e_tag().ok_or_else(|| incomplete("UploadPart"))?;
        Ok(t::CompletedPart::builder()
            .part_number(part.number)
            .e_tag(e_tag)
            .checksum_crc32(crc32)
            .build())
    }

    /// Completes an upload. Each time that no clear answer comes, what is there tells: stores
    /// answer a repetition in different ways.
    async fn complete(
        &self,
        upload: &Upload,
        parts: Vec<t::CompletedPart>,
        stored: &Stored,
    ) -> Result<(), ObjectError> {
        let parts = t::CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        let mut attempt = 1;
        loop {
            let timeouts = aws::timeouts(self.tuning.completion, self.tuning.completion);
            let once = Config::builder()
                .retry_config(aws::one_attempt())
                .timeout_config(timeouts);
            let sent = self
                .client
                .complete_multipart_upload()
                .bucket(&self.name)
                .key(upload.key.as_str())
                .upload_id(&upload.id)
                .multipart_upload(parts.clone())
                .if_none_match("*")
                .checksum_crc32(encode_crc32(stored.crc32))
                .checksum_type(t::ChecksumType::FullObject)
                .set_mpu_object_size(stored.size.try_into().ok())
                .customize()
                .config_override(once)
                .send()
                .await;
            let Err(error) = sent else {
                return Ok(());
            };
            let failure = classify("CompleteMultipartUpload", &error);
            let looked = self.settle(&upload.key, &upload.attempt, stored).await;
            match looked {
                Ok(Some(())) => return Ok(()),
                Err(ObjectError::Exists) => return Err(ObjectError::Exists),
                // Not there, and it will not be: the upload is refused, or gone.
                Ok(None)
                    if matches!(failure, ObjectError::Permanent(_))
                        || error.code() == Some("NoSuchUpload") =>
                {
                    return Err(failure);
                }
                _ if attempt == self.tuning.attempts => return Err(failure),
                _ => {}
            }
            self.back_off(attempt).await;
            attempt += 1;
        }
    }

    /// Looks who made the object: we; someone else ([`ObjectError::Exists`]); none: nobody yet.
    async fn settle(
        &self,
        key: &ObjectKey,
        attempt: &str,
        stored: &Stored,
    ) -> Result<Option<()>, ObjectError> {
        let Some(found) = self.head(key).await? else {
            return Ok(None);
        };
        if found.attempt.as_deref() != Some(attempt) {
            return Err(ObjectError::Exists);
        }
        let same = found.info.size == stored.size
            && found.info.crc32.is_none_or(|crc32| crc32 == stored.crc32);
        if same {
            Ok(Some(()))
        } else {
            Err(ObjectError::Transient(
                "what was stored is not what was sent".to_owned(),
            ))
        }
    }

    /// How long a request with so many bytes may take.
    fn patience(&self, bytes: usize) -> Duration {
        self.tuning.headers + Duration::from_secs((bytes / SLOWEST) as u64)
    }
}

/// A multipart upload: completed, or aborted, also when it is dropped.
pub(super) struct Upload {
    client: Client,
    bucket: String,
    key: ObjectKey,
    pub(super) id: String,
    attempt: String,
    open: bool,
}

impl Upload {
    /// By a completion, or by hand.
    pub(super) fn ended(mut self) {
        self.open = false;
    }

    async fn abort(mut self) {
        abort(&self.client, &self.bucket, self.key.as_str(), &self.id).await;
        self.open = false;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Outside of a runtime there is nobody to do it; `abort_leftovers` will.
        if self.open
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (client, bucket) = (self.client.clone(), self.bucket.clone());
            let (key, id) = (self.key.clone(), self.id.clone());
            runtime.spawn(async move { abort(&client, &bucket, key.as_str(), &id).await });
        }
    }
}

/// What fails here is left to `abort_leftovers`.
async fn abort(client: &Client, bucket: &str, key: &str, id: &str) {
    let request = client.abort_multipart_upload().bucket(bucket).key(key);
    if let Err(error) = request.upload_id(id).send().await
        && error.code() != Some("NoSuchUpload")
    {
        let error = classify("AbortMultipartUpload", &error);
        tracing::warn!(%error, %bucket, %key, "an upload was left behind");
    }
}
