//! Metrics for Prometheus: what the process counted itself, and what the database knows at the
//! moment of the scrape (written out anew each time, so that what is no more shows no more).

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use cp_domain::ControlPlane;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// In seconds. From a signature (half a millisecond) to a cold machine (minutes).
const BUCKETS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0,
];

#[derive(Debug, thiserror::Error)]
#[error("metrics could not be set up: {0}")]
pub struct MetricsError(#[from] BuildError);

#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// The process has one recorder, however often a test starts an admin listener in it.
static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();

impl Metrics {
    /// Counts from here on. Call before anything that counts; needs a tokio runtime.
    pub fn install() -> Result<Self, MetricsError> {
        if let Some(handle) = INSTALLED.get() {
            return Ok(Self(handle.clone()));
        }
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("seconds".to_owned()), &BUCKETS)?
            .install_recorder()?;
        let upkeep = handle.clone();
        // Histograms keep every sample until then.
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                upkeep.run_upkeep();
            }
        });
        Ok(Self(INSTALLED.get_or_init(|| handle).clone()))
    }

    pub(super) async fn render(&self, control_plane: &ControlPlane, provider: &str) -> String {
        let mut text = self.0.render();
        let counted = database_metrics(control_plane, provider).await;
        let up = u8::from(counted.is_some());
        write_metric(
            &mut text,
            "insforge_database_up",
            "gauge",
            &[("", up.to_string())],
        );
        text.push_str(&counted.unwrap_or_default());
        text
    }
}

/// None: the database is away.
async fn database_metrics(control_plane: &ControlPlane, provider: &str) -> Option<String> {
    let queue = control_plane.queue_depth().await.ok()?;
    let pool = control_plane.pool_levels(provider).await.ok()?;
    let mut text = String::new();
    write_metric(
        &mut text,
        "insforge_operations",
        "gauge",
        &[
            (r#"{state="queued"}"#, queue.queued.to_string()),
            (r#"{state="running"}"#, queue.running.to_string()),
            (r#"{state="waiting"}"#, queue.waiting.to_string()),
        ],
    );
    let oldest = [("", queue.oldest_due_seconds.to_string())];
    write_metric(
        &mut text,
        "insforge_operations_oldest_due_seconds",
        "gauge",
        &oldest,
    );
    let levels: Vec<(String, String)> = pool
        .iter()
        .flat_map(|level| {
            [("ready", level.ready), ("coming", level.coming)].map(|(state, count)| {
                let labels = format!(
                    r#"{{region="{}",instance_type="{}",state="{state}"}}"#,
                    level.region, level.instance_type
                );
                (labels, count.to_string())
            })
        })
        .collect();
    write_metric(&mut text, "insforge_pool_machines", "gauge", &levels);
    Some(text)
}

/// Labels come from our own enums, so nothing in them needs escaping.
fn write_metric(text: &mut String, name: &str, kind: &str, values: &[(impl AsRef<str>, String)]) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# TYPE {name} {kind}");
    for (labels, value) in values {
        let _ = writeln!(text, "{name}{} {value}", labels.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_written_as_prometheus_reads_them() {
        let mut text = String::new();
        write_metric(&mut text, "a", "gauge", &[("", "1".to_owned())]);
        write_metric(&mut text, "b", "gauge", &[(r#"{x="y"}"#, "2".to_owned())]);
        assert_eq!(text, "# TYPE a gauge\na 1\n# TYPE b gauge\nb{x=\"y\"} 2\n");
    }
}
