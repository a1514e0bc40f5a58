//! The verbs of S3 that are answered here; all others are `NotImplemented`.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use s3s::{
    S3, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumType,
        CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CreateBucketInput,
        CreateBucketOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput,
        DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput,
        DeletedObject, ETag, ETagCondition, Error, GetObjectInput, GetObjectOutput,
        HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput,
        ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsV2Input,
        ListObjectsV2Output, PutObjectInput, PutObjectOutput, ServerSideEncryption, Timestamp,
        UploadPartInput, UploadPartOutput,
    },
    s3_error,
};

use super::{
    super::encode_crc32,
    Store,
    content::{receive, send},
    shelf::{About, Object, Part},
};

#[async_trait::async_trait]
impl S3 for Store {
    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let name = req.input.bucket;
        self.change(move |shelf| shelf.create_bucket(&name)).await?;
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn head_bucket(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.shelf.bucket(&req.input.bucket, |_| Ok(()))?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn put_object(
        &self,
        req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        let unchecked = input.content_md5.is_some()
            || input.checksum_crc32c.is_some()
            || input.checksum_crc64nvme.is_some()
            || input.checksum_sha1.is_some()
            || input.checksum_sha256.is_some()
            || input.sse_customer_algorithm.is_some()
            || input.if_match.is_some();
        refuse(unchecked)?;
        let may_replace = may_replace(input.if_none_match.as_ref())?;
        let (id, draft) = self.draft(&input.bucket)?;
        let part = receive(
            self.shelf.disk,
            draft.path.clone(),
            input.body,
            input.checksum_crc32.as_deref(),
            req.trailing_headers,
        )
        .await?;
        let about = About::new(
            input.content_type,
            input.metadata,
            input.server_side_encryption,
            input.ssekms_key_id,
        );
        let object = new_object(input.key, id, vec![part], about);
        let bucket = input.bucket;
        let object = self
            .change(move |shelf| shelf.put(&bucket, object, may_replace, draft))
            .await?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(e_tag(&object)),
            checksum_crc32: Some(encode_crc32(object.crc32)),
            checksum_type: Some(full_object()),
            server_side_encryption: encryption(&object.about),
            ssekms_key_id: object.about.kms_key.clone(),
            ..Default::default()
        }))
    }

    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        refuse(input.part_number.is_some() || input.if_none_match.is_some())?;
        let object = self.shelf.object(&input.bucket, &input.key)?;
        if let Some(ETagCondition::ETag(wanted)) = &input.if_match
            && *wanted != e_tag(&object)
        {
            return Err(s3_error!(PreconditionFailed));
        }
        let range = match input.range {
            Some(range) => range.check(object.size)?,
            None => 0..object.size,
        };
        let content_range = input
            .range
            .map(|_| format!("bytes {}-{}/{}", range.start, range.end - 1, object.size));
        let wants_checksum = input.checksum_mode.is_some() && content_range.is_none();
        let described = describe(&object, wants_checksum);
        let files = object.parts.iter().map(|part| {
            let path = self.shelf.data(&input.bucket, &object.id).join(&part.file);
            (path, part.size)
        });
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: described.accept_ranges,
            content_length: i64::try_from(range.end - range.start).ok(),
            content_range,
            body: Some(send(files.collect(), range)),
            content_type: described.content_type,
            metadata: described.metadata,
            e_tag: described.e_tag,
            last_modified: described.last_modified,
            checksum_crc32: described.checksum_crc32,
            checksum_type: described.checksum_type,
            server_side_encryption: described.server_side_encryption,
            ssekms_key_id: described.ssekms_key_id,
            ..Default::default()
        }))
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let object = self.shelf.object(&input.bucket, &input.key)?;
        let wants_checksum = input.checksum_mode.is_some();
        Ok(S3Response::new(describe(&object, wants_checksum)))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        self.change(move |shelf| shelf.delete(&input.bucket, &input.key))
            .await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = req.input;
        if input.delete.objects.len() > 1000 {
            return Err(s3_error!(MalformedXML));
        }
        let (bucket, objects) = (input.bucket, input.delete.objects);
        let (deleted, errors) = self
            .change(move |shelf| {
                let (mut deleted, mut errors) = (Vec::new(), Vec::new());
                for object in objects {
                    match shelf.delete(&bucket, &object.key) {
                        Ok(()) => deleted.push(DeletedObject {
                            key: Some(object.key),
                            ..Default::default()
                        }),
                        Err(error) => errors.push(Error {
                            code: Some(error.code().as_str().to_owned()),
                            key: Some(object.key),
                            message: error.message().map(ToOwned::to_owned),
                            ..Default::default()
                        }),
                    }
                }
                Ok((deleted, errors))
            })
            .await?;
        let quiet = input.delete.quiet.unwrap_or_default();
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: (!quiet).then_some(deleted),
            errors: Some(errors),
            ..Default::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        refuse(input.delimiter.is_some())?;
        let prefix = input.prefix.unwrap_or_default();
        let after = input.continuation_token.as_deref();
        let after = after.or(input.start_after.as_deref()).unwrap_or_default();
        let limit = limit(input.max_keys);
        let (page, more) = self.shelf.page(&input.bucket, &prefix, after, limit)?;
        let next = page.last().filter(|_| more).map(|last| last.key.clone());
        let contents = page.iter().map(|object| s3s::dto::Object {
            key: Some(object.key.clone()),
            size: i64::try_from(object.size).ok(),
            e_tag: Some(e_tag(object)),
            last_modified: Some(timestamp(object.created_at)),
            ..Default::default()
        });
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            key_count: i32::try_from(page.len()).ok(),
            max_keys: i32::try_from(limit).ok(),
            is_truncated: Some(more),
            contents: Some(contents.collect()),
            continuation_token: input.continuation_token,
            next_continuation_token: next,
            prefix: Some(prefix),
            start_after: input.start_after,
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.begin(req.input).map(S3Response::new)
    }

    async fn upload_part(
        &self,
        req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let sent = self.take_part(req.input, req.trailing_headers).await;
        sent.map(S3Response::new)
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.complete(req.input).await.map(S3Response::new)
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = req.input;
        let at = (input.key, input.upload_id);
        self.change(move |shelf| shelf.abort(&input.bucket, &at))
            .await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        self.uploads(req.input).map(S3Response::new)
    }
}

/// What cannot be checked or done here is not passed over in silence.
pub(super) fn refuse(asked: bool) -> S3Result<()> {
    if asked {
        Err(s3_error!(NotImplemented))
    } else {
        Ok(())
    }
}

pub(super) fn may_replace(if_none_match: Option<&ETagCondition>) -> S3Result<bool> {
    match if_none_match {
        None => Ok(true),
        Some(ETagCondition::Any) => Ok(false),
        Some(ETagCondition::ETag(_)) => Err(s3_error!(NotImplemented)),
    }
}

/// S3 answers 1,000 at most.
pub(super) fn limit(asked: Option<i32>) -> usize {
    usize::try_from(asked.unwrap_or(1000)).map_or(1, |asked| asked.clamp(1, 1000))
}

pub(super) fn new_object(key: String, id: String, parts: Vec<Part>, about: About) -> Object {
    let mut crc = crc32fast::Hasher::new();
    for part in &parts {
        crc.combine(&crc32fast::Hasher::new_with_initial_len(
            part.crc32, part.size,
        ));
    }
    Object {
        key,
        id,
        size: parts.iter().map(|part| part.size).sum(),
        crc32: crc.finalize(),
        parts,
        created_at: Utc::now(),
        about,
    }
}

/// What HEAD answers, and GET beside the content.
fn describe(object: &Object, wants_checksum: bool) -> HeadObjectOutput {
    HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_length: i64::try_from(object.size).ok(),
        content_type: object.about.content_type.clone(),
        metadata: object.about.metadata.clone(),
        e_tag: Some(e_tag(object)),
        last_modified: Some(timestamp(object.created_at)),
        checksum_crc32: wants_checksum.then(|| encode_crc32(object.crc32)),
        checksum_type: wants_checksum.then(full_object),
        server_side_encryption: encryption(&object.about),
        ssekms_key_id: object.about.kms_key.clone(),
        ..Default::default()
    }
}

pub(super) fn full_object() -> ChecksumType {
    ChecksumType::from_static(ChecksumType::FULL_OBJECT)
}

pub(super) fn e_tag(object: &Object) -> ETag {
    ETag::Strong(object.id.clone())
}

pub(super) fn encryption(about: &About) -> Option<ServerSideEncryption> {
    about.encryption.clone().map(Into::into)
}

pub(super) fn timestamp(at: DateTime<Utc>) -> Timestamp {
    Timestamp::from(SystemTime::from(at))
}
