//! What the process says about itself, through `tracing`: lines on stderr and, when an endpoint is
//! configured, spans to an OpenTelemetry collector.

use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::config::{LogFormat, sections::Telemetry};

const SERVICE: &str = "insforge-cloud";

/// Also bounds how long the end of the process waits for the collector.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// Who reads the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStyle {
    /// Someone at a terminal.
    Dev,
    /// A log collector.
    Production,
    /// Nobody, unless something is wrong: results are on stdout.
    Command,
}

impl LogStyle {
    fn default_filter(self) -> &'static str {
        match self {
            // sqlx and apalis tell of every statement and poll at info, and of each lost connection
            // several times; those that lost it say so themselves.
            Self::Dev | Self::Production => {
                "info,sqlx=warn,sqlx::postgres::notice=off,sqlx_core::pool=error,apalis=warn,apalis_postgres=warn,apalis_core=off"
            }
            // The command itself reports what failed, in a sentence.
            Self::Command => "off",
        }
    }

    fn default_format(self) -> LogFormat {
        match self {
            Self::Production => LogFormat::Json,
            Self::Dev | Self::Command => LogFormat::Text,
        }
    }
}

/// Sends what is left when it is dropped, at the end of the process.
pub struct TelemetryGuard(Option<SdkTracerProvider>);

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(|provider| provider.shutdown()) {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// Call once per process, outside of a runtime. Keep the guard until the end.
pub fn init(telemetry: &Telemetry, style: LogStyle) -> anyhow::Result<TelemetryGuard> {
    let filter = telemetry
        .log
        .as_deref()
        .unwrap_or_else(|| style.default_filter());
    let filter = EnvFilter::try_new(filter)
        .context("telemetry.log (INSFORGE_LOG) is no filter; write it like info,cp_worker=debug")?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match telemetry.format.unwrap_or_else(|| style.default_format()) {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines
            .compact()
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .boxed(),
    };
    let spans = telemetry
        .otlp_endpoint
        .as_deref()
        .map(span_export)
        .transpose()?;
    let export = spans
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer(SERVICE)));
    tracing_subscriber::registry()
        .with(filter)
        .with(quiet())
        .with(export)
        .with(lines)
        .try_init()
        .context("the log could not be set up")?;
    Ok(TelemetryGuard(spans))
}

/// Whatever the filter says: below these levels, libraries write whole requests, and with them
/// user-data, signatures and the objects of users.
const QUIET: [(&str, tracing::Level); 3] = [
    ("aws_", tracing::Level::INFO),
    ("hyper", tracing::Level::INFO),
    ("s3s", tracing::Level::WARN),
];

fn quiet() -> FilterFn {
    FilterFn::new(|event| {
        let mut quiet = QUIET.iter();
        let most = quiet.find(|(beginning, _)| event.target().starts_with(beginning));
        most.is_none_or(|(_, most)| event.level() <= most)
    })
}

/// In batches, from a thread of its own: a collector that is slow or away holds nothing up.
fn span_export(endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_http()
        // The path that the OTLP specification gives to traces.
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .context("the export of spans (telemetry.otlp_endpoint) could not be set up")?;
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name(SERVICE).build())
        .build())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_filter_makes_libraries_write_requests() {
        let written = Written::default();
        let writer = written.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let filter = EnvFilter::new("trace,aws_smithy_runtime::client=trace,s3s=info");
        let subscriber = tracing_subscriber::registry()
            .with(filter)
            .with(quiet())
            .with(lines);
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "aws_smithy_runtime::client", "of AWS");
            tracing::trace!(target: "aws_sdk_ec2::operation", "of EC2");
            tracing::trace!(target: "hyper_util::client", "of hyper");
            tracing::info!(target: "s3s::ops", "of S3");
            tracing::info!(target: "aws_config", "that is said");
            tracing::trace!(target: "cp_worker", "ours is said");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let said: Vec<&str> = text.lines().collect();
        assert_eq!(said.len(), 2, "{text}");
        assert!(
            said[0].contains("that is said") && said[1].contains("ours is said"),
            "{text}"
        );
    }
}
