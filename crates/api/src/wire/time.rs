//! Times as the public document writes them: `2025-01-21T10:30:00Z`.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serializer;

fn text(time: &DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// For `serialize_with`.
pub fn seconds<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(time))
}

/// For `serialize_with`.
#[allow(
    clippy::ref_option,
    reason = "serde's serialize_with gives a reference to the field"
)]
pub fn optional_seconds<S: Serializer>(
    time: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => seconds(time, serializer),
        None => serializer.serialize_none(),
    }
}
