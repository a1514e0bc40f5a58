//! Uploads in parts.

use std::collections::BTreeMap;

use chrono::Utc;
use s3s::{
    S3Result, TrailingHeaders,
    dto::{
        ChecksumAlgorithm, CompleteMultipartUploadInput, CompleteMultipartUploadOutput,
        CompletedPart, CreateMultipartUploadInput, CreateMultipartUploadOutput, ETag,
        ListMultipartUploadsInput, ListMultipartUploadsOutput, MultipartUpload, UploadPartInput,
        UploadPartOutput,
    },
    s3_error,
};

use super::{
    super::encode_crc32,
    Store,
    content::receive,
    shelf::{About, Object, Part, Upload},
    verbs::{e_tag, encryption, full_object, limit, may_replace, new_object, refuse, timestamp},
};

impl Store {
    pub(super) fn begin(
        &self,
        input: CreateMultipartUploadInput,
    ) -> S3Result<CreateMultipartUploadOutput> {
        let other_checksum = input
            .checksum_algorithm
            .as_ref()
            .is_some_and(|algorithm| algorithm.as_str() != ChecksumAlgorithm::CRC32);
        refuse(other_checksum || input.sse_customer_algorithm.is_some())?;
        let (id, mut draft) = self.draft(&input.bucket)?;
        let about = About::new(
            input.content_type,
            input.metadata,
            input.server_side_encryption,
            input.ssekms_key_id,
        );
        let output = CreateMultipartUploadOutput {
            bucket: Some(input.bucket.clone()),
            key: Some(input.key.clone()),
            upload_id: Some(id.clone()),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: input.checksum_type,
            server_side_encryption: encryption(&about),
            ssekms_key_id: about.kms_key.clone(),
            ..Default::default()
        };
        let upload = Upload {
            begun_at: Utc::now(),
            about,
            parts: BTreeMap::new(),
        };
        self.shelf.bucket(&input.bucket, |bucket| {
            bucket.uploads.insert((input.key, id), upload);
            Ok(())
        })?;
        draft.keep();
        Ok(output)
    }

    pub(super) async fn take_part(
        &self,
        input: UploadPartInput,
        trailers: Option<TrailingHeaders>,
    ) -> S3Result<UploadPartOutput> {
        refuse(input.content_md5.is_some() || input.checksum_sha256.is_some())?;
        if !(1..=10_000).contains(&input.part_number) {
            return Err(s3_error!(InvalidArgument, "part numbers are 1 to 10000"));
        }
        let at = (input.key, input.upload_id);
        self.shelf.bucket(&input.bucket, |bucket| {
            let upload = bucket.uploads.get(&at);
            upload.map(|_| ()).ok_or_else(|| s3_error!(NoSuchUpload))
        })?;
        let dir = self.shelf.data(&input.bucket, &at.1);
        let part = receive(
            self.shelf.disk,
            dir.clone(),
            input.body,
            input.checksum_crc32.as_deref(),
            trailers,
        )
        .await?;
        let tag = part_tag(&part);
        let crc32 = encode_crc32(part.crc32);
        let file = part.file.clone();
        let taken = self.shelf.bucket(&input.bucket, |bucket| {
            let upload = bucket.uploads.get_mut(&at);
            let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
            Ok(upload.parts.insert(input.part_number, part))
        });
        let unused = match &taken {
            Ok(replaced) => replaced.as_ref().map(|replaced| &replaced.file),
            Err(_) => Some(&file),
        };
        if let Some(unused) = unused {
            let _ = tokio::fs::remove_file(dir.join(unused)).await;
            // Aborted meanwhile, this part was in the way. (An object's data is never empty.)
            let _ = tokio::fs::remove_dir(dir).await;
        }
        taken?;
        Ok(UploadPartOutput {
            e_tag: Some(ETag::Strong(tag)),
            checksum_crc32: Some(crc32),
            ..Default::default()
        })
    }

    pub(super) async fn complete(
        &self,
        input: CompleteMultipartUploadInput,
    ) -> S3Result<CompleteMultipartUploadOutput> {
        refuse(input.if_match.is_some())?;
        let may_replace = may_replace(input.if_none_match.as_ref())?;
        let at = (input.key.clone(), input.upload_id.clone());
        let (bucket, named) = (input.bucket.clone(), input.bucket.clone());
        let object = self
            .change(move |shelf| {
                let min_part = shelf.min_part;
                let build = |upload: &Upload| assemble(upload, input, min_part);
                shelf.complete(&bucket, at, may_replace, build)
            })
            .await?;
        Ok(CompleteMultipartUploadOutput {
            bucket: Some(named),
            key: Some(object.key.clone()),
            e_tag: Some(e_tag(&object)),
            checksum_crc32: Some(encode_crc32(object.crc32)),
            checksum_type: Some(full_object()),
            server_side_encryption: encryption(&object.about),
            ssekms_key_id: object.about.kms_key.clone(),
            ..Default::default()
        })
    }

    pub(super) fn uploads(
        &self,
        input: ListMultipartUploadsInput,
    ) -> S3Result<ListMultipartUploadsOutput> {
        refuse(input.delimiter.is_some())?;
        let prefix = input.prefix.unwrap_or_default();
        let limit = limit(input.max_uploads);
        // Without an upload id the marker means every upload of that key.
        let key_marker = input.key_marker.unwrap_or_default();
        let id_marker = input.upload_id_marker.clone();
        let behind = |key: &str, id: &str| match &id_marker {
            Some(marker) => (key, id) > (key_marker.as_str(), marker.as_str()),
            None => key > key_marker.as_str(),
        };
        let (uploads, more) = self.shelf.bucket(&input.bucket, |bucket| {
            let mut found = bucket.uploads.iter().filter(|((key, id), _)| {
                key.starts_with(&prefix) && (key_marker.is_empty() || behind(key, id))
            });
            let page = found.by_ref().take(limit);
            let page = page.map(|((key, id), upload)| MultipartUpload {
                key: Some(key.clone()),
                upload_id: Some(id.clone()),
                initiated: Some(timestamp(upload.begun_at)),
                ..Default::default()
            });
            let page: Vec<_> = page.collect();
            Ok((page, found.next().is_some()))
        })?;
        let last = uploads.last().filter(|_| more);
        Ok(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            is_truncated: Some(more),
            key_marker: Some(key_marker),
            max_uploads: i32::try_from(limit).ok(),
            next_key_marker: last.and_then(|last| last.key.clone()),
            next_upload_id_marker: last.and_then(|last| last.upload_id.clone()),
            prefix: Some(prefix),
            upload_id_marker: input.upload_id_marker,
            uploads: Some(uploads),
            ..Default::default()
        })
    }
}

/// The object that a completion asks for, if the parts are as it says.
fn assemble(
    upload: &Upload,
    input: CompleteMultipartUploadInput,
    min_part: u64,
) -> S3Result<Object> {
    let named = input.multipart_upload.and_then(|upload| upload.parts);
    let parts = choose(upload, &named.unwrap_or_default(), min_part)?;
    let object = new_object(input.key, input.upload_id, parts, upload.about.clone());
    if let Some(claimed) = &input.checksum_crc32
        && *claimed != encode_crc32(object.crc32)
    {
        return Err(s3_error!(
            BadDigest,
            "the CRC32 of all parts is another one"
        ));
    }
    if let Some(claimed) = input.mpu_object_size
        && u64::try_from(claimed) != Ok(object.size)
    {
        return Err(s3_error!(InvalidRequest, "the parts have another size"));
    }
    Ok(object)
}

/// The parts that the client names, in their order.
fn choose(upload: &Upload, named: &[CompletedPart], min_size: u64) -> S3Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    let mut last = 0;
    for part in named {
        let number = part.part_number.unwrap_or_default();
        if number <= last {
            return Err(s3_error!(InvalidPartOrder));
        }
        last = number;
        let sent = upload
            .parts
            .get(&number)
            .filter(|sent| part.e_tag.as_ref().map(ETag::value) == Some(&part_tag(sent)))
            .ok_or_else(|| s3_error!(InvalidPart))?;
        if parts.last().is_some_and(|before| before.size < min_size) {
            return Err(s3_error!(EntityTooSmall));
        }
        parts.push(sent.clone());
    }
    if parts.is_empty() {
        return Err(s3_error!(MalformedXML));
    }
    Ok(parts)
}

/// Of the content: a part that is sent twice has one tag, as on S3.
fn part_tag(part: &Part) -> String {
    format!("{:08x}{:x}", part.crc32, part.size)
}
