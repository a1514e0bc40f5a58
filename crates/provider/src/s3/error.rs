//! What an error of the SDK means for the caller.

use std::{error::Error, iter};

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
};

use crate::objects::ObjectError;

/// For requests that may be repeated, as all of ours may. `what` is the name of the request.
pub(super) fn classify<E>(what: &str, error: &SdkError<E, HttpResponse>) -> ObjectError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            let code = error.code().unwrap_or_default();
            let text = format!(
                "{what}: {status} {code} {} (request {})",
                error.message().unwrap_or_default(),
                error.request_id().unwrap_or("unknown"),
            );
            answered(status, code, text)
        }
        SdkError::ConstructionFailure(_) => ObjectError::Permanent(chain(what, error)),
        // No answer, or none that could be read.
        _ => ObjectError::Transient(chain(what, error)),
    }
}

fn answered(status: u16, code: &str, text: String) -> ObjectError {
    if matches!(code, "NoSuchKey" | "NotFound") {
        ObjectError::NotFound
    } else if passes(status, code) {
        ObjectError::Transient(text)
    } else {
        ObjectError::Permanent(text)
    }
}

/// Whether the same request may be answered in another way later.
fn passes(status: u16, code: &str) -> bool {
    match code {
        // Clocks, and credentials that are being renewed.
        "RequestTimeTooSkewed" | "ExpiredToken" | "TokenRefreshRequired" | "RequestExpired"
        // Damaged or cut on its way.
        | "RequestTimeout" | "BadDigest" | "IncompleteBody" | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        // Someone aborted it: another attempt has another upload.
        | "NoSuchUpload"
        | "SlowDown" => true,
        code if code.contains("Throttl") => true,
        // 409: someone else is changing the same thing. Redirects lead to other regions' buckets:
        // the configuration is wrong.
        _ => matches!(status, 409 | 429) || !(300..=499).contains(&status),
    }
}

fn chain<E: Error + 'static>(what: &str, error: &E) -> String {
    let first: &(dyn Error + 'static) = error;
    let texts = iter::successors(Some(first), |&error| error.source()).map(ToString::to_string);
    format!("{what}: {}", texts.collect::<Vec<_>>().join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_mean_what_the_caller_can_do() {
        let meaning = |status, code| answered(status, code, String::new());
        let (transient, permanent) = (
            ObjectError::Transient(String::new()),
            ObjectError::Permanent(String::new()),
        );
        assert_eq!(meaning(404, "NoSuchKey"), ObjectError::NotFound);
        assert_eq!(meaning(404, "NoSuchUpload"), transient);
        assert_eq!(meaning(404, "NoSuchBucket"), permanent);
        assert_eq!(meaning(403, "AccessDenied"), permanent);
        assert_eq!(meaning(403, "ExpiredToken"), transient);
        assert_eq!(meaning(301, "PermanentRedirect"), permanent);
        assert_eq!(meaning(400, "BadDigest"), transient);
        assert_eq!(meaning(400, "ThrottlingException"), transient);
        assert_eq!(meaning(400, "EntityTooLarge"), permanent);
        assert_eq!(meaning(503, "SlowDown"), transient);
        assert_eq!(meaning(500, ""), transient);
        // Complete answers 200 before it knows.
        assert_eq!(meaning(200, "InternalError"), transient);
    }
}
