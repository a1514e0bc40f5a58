//! Metrics and their amounts in words that people read.

use cp_model::Metric;

pub fn name(metric: Metric) -> &'static str {
    match metric {
        Metric::DatabaseBytes => "Database size",
        Metric::StorageBytes => "File storage",
        Metric::AiTokens => "AI tokens",
        Metric::McpCalls => "MCP calls",
        Metric::EgressBytes => "Outgoing traffic",
        Metric::AiCredits => "AI credits",
        Metric::EmailRequests => "E-mails",
        Metric::FunctionCalls => "Function calls",
        Metric::Ec2Compute => "Compute time",
    }
}

/// What the exact amount counts, where [`readable`] rounds.
pub fn exact(metric: Metric) -> Option<&'static str> {
    match metric {
        Metric::DatabaseBytes | Metric::StorageBytes | Metric::EgressBytes => Some("Bytes"),
        Metric::Ec2Compute => Some("Seconds"),
        Metric::AiTokens
        | Metric::McpCalls
        | Metric::AiCredits
        | Metric::EmailRequests
        | Metric::FunctionCalls => None,
    }
}

/// Bytes in the greatest unit that they fill, seconds as hours, all else with its digits in groups.
pub fn readable(metric: Metric, amount: i64) -> String {
    match exact(metric) {
        Some("Bytes") => bytes(amount),
        Some(_) => time(amount),
        None => grouped(&metric.display(amount).to_string()),
    }
}

fn bytes(amount: i64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut tenths, mut unit) = (u128::from(amount.unsigned_abs()) * 10, 0);
    while tenths >= 10_240 && unit < UNITS.len() - 1 {
        tenths /= 1024;
        unit += 1;
    }
    let (sign, unit) = (sign(amount), UNITS[unit]);
    let whole = grouped(&(tenths / 10).to_string());
    match tenths % 10 {
        0 => format!("{sign}{whole} {unit}"),
        tenth => format!("{sign}{whole}.{tenth} {unit}"),
    }
}

fn time(seconds: i64) -> String {
    let (sign, seconds) = (sign(seconds), seconds.unsigned_abs());
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{rest} s"),
        (0, _) => format!("{sign}{minutes} min {rest:02} s"),
        _ => format!("{sign}{} h {minutes:02} min", grouped(&hours.to_string())),
    }
}

const fn sign(amount: i64) -> &'static str {
    if amount < 0 { "-" } else { "" }
}

/// A decimal number with its whole digits in groups of three.
fn grouped(number: &str) -> String {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", number),
    };
    let (whole, rest) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    let mut text = String::from(sign);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_readable() {
        for (metric, amount, text) in [
            (Metric::DatabaseBytes, 0, "0 B"),
            (Metric::DatabaseBytes, 1_023, "1,023 B"),
            (Metric::EgressBytes, -1_536, "-1.5 KiB"),
            (Metric::StorageBytes, 12_402_023, "11.8 MiB"),
            (Metric::StorageBytes, i64::MAX, "8,388,607.9 TiB"),
            (Metric::Ec2Compute, 59, "59 s"),
            (Metric::Ec2Compute, 754, "12 min 34 s"),
            (Metric::Ec2Compute, 4_500_061, "1,250 h 01 min"),
            (Metric::AiCredits, 1_234_500_000, "1,234.5"),
            (Metric::AiCredits, -1, "-0.000001"),
            (Metric::AiTokens, 999, "999"),
            (Metric::AiTokens, -1_000_000, "-1,000,000"),
        ] {
            assert_eq!(readable(metric, amount), text);
        }
        for metric in Metric::ALL {
            assert!(!readable(*metric, i64::MIN).is_empty());
        }
    }
}
