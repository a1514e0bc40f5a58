//! What the EC2 and the S3 client share: where credentials come from, one HTTP client, the guard
//! against bodies that were cut off, and what is known about a request that failed.
//!
//! Called by `s3` and `ec2` when they build their clients.

use std::{error::Error, iter, time::Duration};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, environment::EnvironmentVariableRegionProvider,
    meta::region::RegionProviderChain, retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_sdk_s3::config::{
    ConfigBag, Credentials, Intercept, RuntimeComponents, SharedCredentialsProvider,
    SharedHttpClient, interceptors::AfterDeserializationInterceptorContextRef,
};
use aws_sdk_s3::error::BoxError;
use aws_smithy_http_client::tls;
use aws_smithy_runtime_api::client::{
    interceptors::context::InterceptorContext,
    retries::classifiers::{ClassifyRetry, RetryAction, RetryClassifierPriority},
};

/// The SDK's defaults as they were on that day: an update of the crates changes none of them.
pub(crate) fn behavior_version() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

/// Where AWS is and who we are there. Made once per process and cloned: credentials are fetched
/// and renewed once, and connections and root certificates are shared by all clients made of it.
///
/// Holds secrets, so it has no `Debug`.
#[derive(Clone)]
pub struct AwsAccess {
    sdk: SdkConfig,
    path_style: bool,
}

impl AwsAccess {
    /// From the environment, the profile, the container's or the instance's role, in the SDK's
    /// order. `AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_EC2` and `AWS_ENDPOINT_URL_S3` are heeded.
    ///
    /// Never fails: credentials are looked for at the first call, which then says what is missing.
    pub async fn from_environment() -> Self {
        // Each client has a region of its own; this one is for the service that exchanges roles for
        // credentials. Without one the SDK would ask the instance's metadata service, and wait
        // where there is none.
        let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(Region::new("us-east-1"));
        let sdk = aws_config::defaults(behavior_version())
            .http_client(http_client(tls::TrustStore::default()))
            .region(region)
            .load()
            .await;
        let path_style =
            sdk.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
        Self { sdk, path_style }
    }

    /// A server that speaks AWS's protocols elsewhere: the one of `dev`, or an emulator in tests.
    pub fn fixed(endpoint: &str, access_key: &str, secret_key: &str) -> Self {
        // Root certificates take time to read, a machine may have none, and over plain HTTP
        // nobody looks at them.
        let trust = if endpoint.starts_with("https:") {
            tls::TrustStore::default()
        } else {
            tls::TrustStore::empty()
        };
        let credentials = Credentials::new(access_key, secret_key, None, None, "fixed");
        let sdk = SdkConfig::builder()
            .behavior_version(behavior_version())
            .http_client(http_client(trust))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .endpoint_url(endpoint)
            .build();
        Self {
            sdk,
            path_style: true,
        }
    }

    /// What a service's `config::Builder::from` takes. It has no region yet.
    pub(crate) fn sdk_config(&self) -> &SdkConfig {
        &self.sdk
    }

    /// Whether buckets are named in the path: servers on other endpoints have no host per bucket.
    pub(crate) fn path_style(&self) -> bool {
        self.path_style
    }
}

/// One for all regions and both services. It does not heed `HTTP_PROXY`, unlike the SDK's own: a
/// proxy of the developer's would swallow calls to emulators on loopback.
fn http_client(trust: tls::TrustStore) -> SharedHttpClient {
    let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc);
    let context = tls::TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .expect("a trust store of known certificates is a valid context");
    aws_smithy_http_client::Builder::new()
        .pool_idle_timeout(Duration::from_secs(20))
        .tls_provider(provider)
        .tls_context(context)
        .build_https()
}

/// Limits of one attempt: `headers` until the response's headers are there (the request's body
/// is sent by then), `attempt` until its body is read, too (streamed bodies excepted).
///
/// There is no limit over all attempts: in adaptive mode the SDK sleeps inside it before anything
/// is sent, so it could not tell whether the request went out.
pub(crate) fn timeouts(headers: Duration, attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .read_timeout(headers)
        .operation_attempt_timeout(attempt)
        .build()
}

/// For requests whose answer may be lost and which must not be sent twice unseen.
pub(crate) fn one_attempt() -> RetryConfig {
    RetryConfig::disabled()
}

/// Refuses responses whose XML ends too early. The SDK's decoders take the end of the text for
/// the end of the list: a body that was cut, but framed well, would pass for a shorter answer.
///
/// The call then fails with `SdkError::ResponseError`: it was answered, so a change may well have
/// happened. For reads add [`RetryCutXml`].
#[derive(Debug)]
pub(crate) struct WholeXml;

impl Intercept for WholeXml {
    fn name(&self) -> &'static str {
        "WholeXml"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // None: a body that is streamed to the caller, an object's content.
        match context.response().body().bytes() {
            Some(body) if !is_whole(body) => Err("the response's XML ends too early".into()),
            _ => Ok(()),
        }
    }
}

/// Sends the request again when [`WholeXml`] refused the answer. Only for clients whose requests
/// may be repeated.
#[derive(Debug)]
pub(crate) struct RetryCutXml;

impl ClassifyRetry for RetryCutXml {
    fn name(&self) -> &'static str {
        "cut XML"
    }

    fn priority(&self) -> RetryClassifierPriority {
        RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
    }

    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        match context.output_or_error() {
            // No other interceptor of ours fails.
            Some(Err(error)) if error.is_interceptor_error() => RetryAction::transient_error(),
            _ => RetryAction::NoActionIndicated,
        }
    }
}

/// Whether a body is empty, is no XML, or ends with the end of its root element.
fn is_whole(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    let Some(mut rest) = body.strip_prefix(b"<") else {
        return true;
    };
    if rest.starts_with(b"?") {
        let Some(end) = rest.windows(2).position(|two| two == b"?>") else {
            return false;
        };
        match rest[end + 2..].trim_ascii_start().strip_prefix(b"<") {
            Some(root) => rest = root,
            None => return false,
        }
    }
    let name_end = rest
        .iter()
        .position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'>' | b'/'));
    let Some(name_end) = name_end else {
        return false;
    };
    let (name, after) = rest.split_at(name_end);
    if let Some(end) = after.iter().position(|byte| *byte == b'>')
        && end > 0
        && after[end - 1] == b'/'
    {
        return end + 1 == after.len();
    }
    body.strip_suffix(b">")
        .and_then(|body| body.trim_ascii_end().strip_suffix(name))
        .is_some_and(|body| body.ends_with(b"</"))
}

/// Whether the connection was never made, so that nothing can have happened.
pub(crate) fn never_sent(error: &(dyn Error + 'static)) -> bool {
    iter::successors(Some(error), |error| (*error).source()).any(|error| {
        error
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<List xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Item a="/"/><Item>List</Item></List>
"#;

    #[test]
    fn whole_bodies_pass_and_every_cut_is_noticed() {
        assert!(is_whole(LIST.as_bytes()));
        let end = LIST.trim_end().len();
        for cut in 1..end {
            assert!(!is_whole(&LIST.as_bytes()[..cut]), "cut at {cut}");
        }
    }

    #[test]
    fn empty_bodies_empty_roots_and_other_formats_pass() {
        for body in [
            "",
            " \n",
            "<a/>",
            "<a b=\"c\" />",
            "<?xml?><a/>",
            "<a></a >",
            "{}",
            "OK",
        ] {
            assert!(is_whole(body.as_bytes()), "{body}");
        }
        for body in ["<a", "<a b", "<a></b>", "<a><a/>", "<?xml?>"] {
            assert!(!is_whole(body.as_bytes()), "{body}");
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_known_to_have_sent_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let access = AwsAccess::fixed(&endpoint, "key", "secret");
        let client = || {
            let config = aws_sdk_s3::config::Builder::from(access.sdk_config())
                .region(Region::new("us-east-1"))
                .retry_config(one_attempt())
                .timeout_config(timeouts(Duration::from_millis(200), Duration::from_secs(1)))
                .build();
            aws_sdk_s3::Client::from_conf(config)
        };
        // Connected, and no answer: it may have happened.
        let silent = client().list_buckets().send().await.unwrap_err();
        assert!(!never_sent(&silent));
        drop(listener);
        let refused = client().list_buckets().send().await.unwrap_err();
        assert!(never_sent(&refused));
    }
}
