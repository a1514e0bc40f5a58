//! List, delete, abort.

use aws_sdk_s3::{error::ProvideErrorMetadata, types as t};
use chrono::{DateTime, Utc};

use super::{Bucket, classify, incomplete, time};
use crate::objects::{ListedObject, ObjectError, ObjectKey, ObjectPage, ObjectPrefix};

impl Bucket {
    pub(super) async fn list(
        &self,
        prefix: &ObjectPrefix,
        after: Option<&str>,
    ) -> Result<ObjectPage, ObjectError> {
        let (found, more) = self.page(prefix.as_str(), after).await?;
        let next = found
            .last()
            .filter(|_| more)
            .and_then(|last| last.key.clone());
        let objects = found.iter().filter_map(listed).collect();
        Ok(ObjectPage { objects, next })
    }

    pub(super) async fn delete(&self, key: &ObjectKey) -> Result<(), ObjectError> {
        let request = self.client.delete_object().bucket(&self.name);
        match request.key(key.as_str()).send().await {
            Ok(_) => Ok(()),
            Err(error) => match classify("DeleteObject", &error) {
                ObjectError::NotFound => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Uploads first: one that is completed meanwhile shows in the listing then.
    pub(super) async fn delete_prefix(&self, prefix: &ObjectPrefix) -> Result<u64, ObjectError> {
        self.abort_uploads(prefix.as_str(), None).await?;
        let (mut deleted, mut attempt) = (0, 1);
        loop {
            let (found, _) = self.page(prefix.as_str(), None).await?;
            if found.is_empty() {
                return Ok(deleted);
            }
            let count = found.len();
            let failed = self.delete_all(found).await?;
            deleted += (count - failed.len()) as u64;
            if let Some(failure) = failed.into_iter().next() {
                if attempt == self.tuning.attempts {
                    return Err(failure);
                }
                self.back_off(attempt).await;
                attempt += 1;
            }
        }
    }

    /// Aborts the uploads of keys that begin with `prefix` and, if that is said, were begun before
    /// a time. Tries them all before it fails.
    pub(super) async fn abort_uploads(
        &self,
        prefix: &str,
        before: Option<DateTime<Utc>>,
    ) -> Result<u64, ObjectError> {
        let (mut aborted, mut failure) = (0, None);
        let (mut key_marker, mut id_marker) = (None, None);
        loop {
            let page = self
                .client
                .list_multipart_uploads()
                .bucket(&self.name)
                .prefix(prefix)
                .max_uploads(self.tuning.page)
                .set_key_marker(key_marker)
                .set_upload_id_marker(id_marker)
                .send()
                .await
                .map_err(|error| classify("ListMultipartUploads", &error))?;
            for upload in page.uploads() {
                let begun_at = upload.initiated().and_then(time);
                if before.is_some_and(|before| begun_at.is_none_or(|begun_at| begun_at >= before)) {
                    continue;
                }
                match self.abort_upload(upload).await {
                    Ok(()) => aborted += 1,
                    Err(error) => failure = Some(error),
                }
            }
            if page.is_truncated() != Some(true) {
                break;
            }
            key_marker = page.next_key_marker().map(ToOwned::to_owned);
            id_marker = page.next_upload_id_marker().map(ToOwned::to_owned);
            if key_marker.is_none() {
                return Err(incomplete("ListMultipartUploads"));
            }
        }
        failure.map_or(Ok(aborted), Err)
    }

    pub(super) async fn abort_upload(
        &self,
        upload: &t::MultipartUpload,
    ) -> Result<(), ObjectError> {
        let sent = self
            .client
            .abort_multipart_upload()
            .bucket(&self.name)
            .set_key(upload.key.clone())
            .set_upload_id(upload.upload_id.clone())
            .send()
            .await;
        match sent {
            Err(error) if error.code() != Some("NoSuchUpload") => {
                Err(classify("AbortMultipartUpload", &error))
            }
            _ => Ok(()),
        }
    }

    /// Objects under a prefix, and whether there are more of them.
    async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<(Vec<t::Object>, bool), ObjectError> {
        let page = self
            .client
            .list_objects_v2()
            .bucket(&self.name)
            .prefix(prefix)
            .set_start_after(after.map(ToOwned::to_owned))
            .max_keys(self.tuning.page)
            .send()
            .await
            .map_err(|error| classify("ListObjectsV2", &error))?;
        let more = page.is_truncated() == Some(true);
        Ok((page.contents.unwrap_or_default(), more))
    }

    /// Answers why those that are still there could not be deleted.
    async fn delete_all(&self, objects: Vec<t::Object>) -> Result<Vec<ObjectError>, ObjectError> {
        let names = objects.into_iter().map(|object| {
            t::ObjectIdentifier::builder()
                .set_key(object.key)
                .build()
                .map_err(|_| incomplete("ListObjectsV2"))
        });
        let delete = t::Delete::builder()
            .quiet(true)
            .set_objects(Some(names.collect::<Result<_, _>>()?))
            .build()
            .map_err(|error| ObjectError::Permanent(error.to_string()))?;
        let answer = self
            .client
            .delete_objects()
            .bucket(&self.name)
            .delete(delete)
            .send()
            .await
            .map_err(|error| classify("DeleteObjects", &error))?;
        let failed = answer.errors().iter().map(|error| {
            let (key, code) = (
                error.key().unwrap_or_default(),
                error.code().unwrap_or_default(),
            );
            let text = format!("DeleteObjects {key}: {code}");
            match code {
                "AccessDenied" => ObjectError::Permanent(text),
                _ => ObjectError::Transient(text),
            }
        });
        Ok(failed.collect())
    }
}

/// None for what is not of ours: a key that we would never have taken.
fn listed(object: &t::Object) -> Option<ListedObject> {
    let key = object.key()?;
    let Ok(key) = ObjectKey::new(key) else {
        tracing::warn!(key, "a bucket holds an object that is not of ours");
        return None;
    };
    Some(ListedObject {
        key,
        size: object.size()?.try_into().ok()?,
        modified_at: time(object.last_modified()?)?,
    })
}
