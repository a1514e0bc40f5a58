//! Spans of time as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// A whole number and a unit: `250ms`, `10s`, `5m`, `1h`, `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(Duration);

/// Units with their length in milliseconds, longest first.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl Period {
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Period {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number and a unit: 250ms, 10s, 5m, 1h or 30d")]
pub struct NoPeriod;

impl FromStr for Period {
    type Err = NoPeriod;

    fn from_str(text: &str) -> Result<Self, NoPeriod> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(NoPeriod)?;
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| NoPeriod)?;
        let (_, length) = UNITS
            .iter()
            .find(|(name, _)| *name == unit.trim())
            .ok_or(NoPeriod)?;
        let millis = number.checked_mul(*length).ok_or(NoPeriod)?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (unit, length) = UNITS
            .iter()
            .find(|(_, length)| millis > 0 && millis.is_multiple_of(u128::from(*length)))
            .unwrap_or(&UNITS[4]);
        write!(f, "{}{unit}", millis / u128::from(*length))
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_read_as_they_are_written() {
        for text in ["250ms", "10s", "5m", "1h", "30d", "0ms"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        assert_eq!("660s".parse::<Period>().unwrap().to_string(), "11m");
    }

    #[test]
    fn a_number_without_a_unit_is_no_period() {
        for bad in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "10 years",
            "99999999999999999d",
        ] {
            assert_eq!(bad.parse::<Period>(), Err(NoPeriod), "{bad:?}");
        }
    }
}
