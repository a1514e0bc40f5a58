//! What the process says about itself: lines on stderr, through `tracing`.

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, sections::Telemetry};

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
            // sqlx and apalis tell of every statement and poll at info.
            Self::Dev | Self::Production => "info,sqlx=warn,apalis=warn,apalis_postgres=warn",
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

/// Call once per process.
pub fn init(telemetry: &Telemetry, style: LogStyle) -> anyhow::Result<()> {
    let filter = telemetry
        .log
        .as_deref()
        .unwrap_or_else(|| style.default_filter());
    let filter = EnvFilter::try_new(filter)
        .context("telemetry.log (INSFORGE_LOG) is no filter; write it like info,cp_worker=debug")?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let outcome = match telemetry.format.unwrap_or_else(|| style.default_format()) {
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
        LogFormat::Text => lines
            .compact()
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
    };
    outcome.map_err(|e| anyhow::anyhow!("the log could not be set up: {e}"))
}
