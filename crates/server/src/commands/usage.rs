//! `insforge-cloud usage …`: what was used, drawn in the terminal.

use anyhow::Context as _;
use cp_domain::ControlPlane;
use cp_domain::usage::{DayUsage, total};
use cp_model::{Amounts, Metric, MetricKind, PartnerId, UsagePeriod};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};

use super::output::{columns, show};
use crate::cli::{Output, UsageCommand};
use crate::config::Config;

pub async fn run(config: &Config, command: UsageCommand) -> anyhow::Result<()> {
    let control_plane = super::open(config).await?;
    let (id, project, start, end, output) = match command {
        UsageCommand::Show {
            partner,
            project,
            start,
            end,
            output,
        } => (partner, project, start, end, output),
        UsageCommand::ReportLink { partner, output } => {
            return report_link(&control_plane, &partner, output).await;
        }
    };
    let partner = control_plane.find_partner(&id).await?;
    let today = control_plane.today();
    let period =
        UsagePeriod::parse(start.as_deref(), end.as_deref(), today).context("--start and --end")?;
    let (whose, days) = if let Some(project) = project {
        let usage = control_plane
            .project_usage(&partner, project, period)
            .await?;
        let project = usage.project;
        (format!("{} ({})", project.name, project.status), usage.days)
    } else {
        let usage = control_plane.partner_usage(&partner.id, period).await?;
        (partner.name.clone(), usage.days)
    };
    let value = json!({
        "partner": partner.id, "project": project, "start_date": period.first(), "end_date": period.last(),
        "total": object(&total(&days)),
        "days": days.iter().map(|day| {
            let mut object = object(&day.amounts);
            object.insert("usage_date".into(), json!(day.day));
            Value::Object(object)
        }).collect::<Vec<_>>(),
    });
    show(output, &value, || {
        format!(
            "{whose}: {} to {} (UTC days)\n\n{}",
            period.first(),
            period.last(),
            table(&days)
        )
    })
}

async fn report_link(
    control_plane: &ControlPlane,
    partner: &PartnerId,
    output: Output,
) -> anyhow::Result<()> {
    let partner = control_plane.find_partner(partner).await?;
    let link = control_plane.usage_report_link(&partner.id)?;
    let url = link.url.expose_secret();
    let value = json!({ "url": url, "expires_in": link.expires_in });
    show(output, &value, || {
        let minutes = link.expires_in / 60;
        let seen = format!(
            "{url}\n\nShows the usage of {} to whoever has it, for {minutes} minutes.",
            partner.name
        );
        match partner.suspended_at {
            Some(_) => format!("{seen} Not while the partner is suspended, as it is now."),
            None => seen,
        }
    })
}

/// Amounts as numbers; credits as text, since six decimals of a big number fit no float.
pub(super) fn object(amounts: &Amounts) -> Map<String, Value> {
    Metric::ALL
        .iter()
        .map(|metric| {
            let value = match metric.decimals() {
                0 => json!(amounts[*metric]),
                _ => json!(metric.display(amounts[*metric]).to_string()),
            };
            (metric.as_str().to_owned(), value)
        })
        .collect()
}

fn table(days: &[DayUsage]) -> String {
    let total = total(days);
    let rows: Vec<_> = Metric::ALL
        .iter()
        .map(|metric| {
            let values: Vec<i64> = days.iter().map(|day| day.amounts[*metric]).collect();
            let greatest = values.iter().copied().max().unwrap_or(0);
            [
                metric.to_string(),
                sparkline(&values),
                readable(*metric, greatest),
                readable(*metric, total[*metric]),
                match metric.kind() {
                    MetricKind::Peak => "peak",
                    MetricKind::Cumulative => "sum",
                }
                .to_owned(),
            ]
        })
        .collect();
    columns(["METRIC", "DAYS", "GREATEST DAY", "TOTAL", ""], &rows)
}

/// One character per day, as high as its share of the greatest day. Long periods are drawn in 60
/// characters, each the greatest of its days.
fn sparkline(values: &[i64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const WIDEST: usize = 60;
    let greatest = values.iter().copied().max().unwrap_or(0);
    let per_character = values.len().div_ceil(WIDEST).max(1);
    values
        .chunks(per_character)
        .map(|days| {
            let value = days.iter().copied().max().unwrap_or(0);
            if value <= 0 {
                return '·';
            }
            let step = i128::from(value) * 8 - 1;
            let bar = usize::try_from(step / i128::from(greatest)).unwrap_or(0);
            BARS.get(bar).copied().unwrap_or('█')
        })
        .collect()
}

/// Bytes in the greatest unit that they fill, seconds as hours.
pub(super) fn readable(metric: Metric, amount: i64) -> String {
    match metric {
        Metric::DatabaseBytes | Metric::StorageBytes | Metric::EgressBytes => bytes(amount),
        Metric::Ec2Compute => {
            let (sign, seconds) = (if amount < 0 { "-" } else { "" }, amount.unsigned_abs());
            let (hours, rest) = (seconds / 3600, seconds % 3600);
            format!("{sign}{hours} h {:02} m {:02} s", rest / 60, rest % 60)
        }
        _ => metric.display(amount).to_string(),
    }
}

fn bytes(amount: i64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (i128::from(amount) * 10, 0);
    while value.abs() >= 10_240 && unit < UNITS.len() - 1 {
        value /= 1024;
        unit += 1;
    }
    if unit == 0 {
        format!("{amount} B")
    } else {
        format!("{}.{} {}", value / 10, (value % 10).abs(), UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_drawn_by_their_share_of_the_greatest() {
        assert_eq!(sparkline(&[0, 1, 4, 8]), "·▁▄█");
        assert_eq!(sparkline(&[]), "");
        assert_eq!(sparkline(&[i64::MAX, -1]), "█·");
        assert_eq!(sparkline(&[1; 366]).chars().count(), 53);
    }

    #[test]
    fn amounts_are_readable() {
        assert_eq!(readable(Metric::DatabaseBytes, 1_023), "1023 B");
        assert_eq!(readable(Metric::EgressBytes, 1_536), "1.5 KiB");
        assert_eq!(readable(Metric::StorageBytes, 12_402_023), "11.8 MiB");
        assert_eq!(readable(Metric::Ec2Compute, 3_661), "1 h 01 m 01 s");
        assert_eq!(readable(Metric::Ec2Compute, -61), "-0 h 01 m 01 s");
        assert_eq!(readable(Metric::AiCredits, 1_500_000), "1.5");
    }
}
