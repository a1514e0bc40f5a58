//! Counts what is sent, retries included: `aws_calls_total`, as for EC2.

use aws_sdk_s3::{
    config::{
        ConfigBag, Intercept, RuntimeComponents, interceptors::FinalizerInterceptorContextRef,
    },
    error::BoxError,
};
use aws_smithy_runtime_api::client::orchestrator::Metadata;

#[derive(Debug)]
pub(super) struct CountCalls {
    /// AWS's name.
    pub(super) region: String,
}

impl Intercept for CountCalls {
    fn name(&self) -> &'static str {
        "CountCalls"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let action = config
            .load::<Metadata>()
            .map_or_else(String::new, |request| request.name().to_owned());
        let done = matches!(context.output_or_error(), Some(Ok(_)));
        let status = context
            .response()
            .map(|response| response.status().as_u16());
        metrics::counter!(
            "aws_calls_total",
            "service" => "s3", "action" => action, "region" => self.region.clone(), "outcome" => outcome(done, status)
        )
        .increment(1);
        Ok(())
    }
}

fn outcome(done: bool, status: Option<u16>) -> &'static str {
    match status {
        _ if done => "ok",
        Some(429 | 503) => "throttled",
        Some(401 | 403) => "denied",
        Some(404) => "not_found",
        Some(400..=499) => "invalid",
        // No answer, half an answer, or one that says nothing.
        _ => "unknown",
    }
}
