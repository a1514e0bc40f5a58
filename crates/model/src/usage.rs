//! What partners are billed for: metrics, their amounts, days, and the arithmetic of totals
//! (contract/partnership-api.md, "Usage").
//!
//! Every amount is a whole number of its metric's unit, so that sums are exact in any order. Time
//! is counted in whole seconds: a run begins and ends at the second that its timestamps lie in, so
//! the totals of projects add up to those of their partner to the second.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Index, IndexMut, SubAssign};

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

use crate::field::{FieldError, FieldResult};
use crate::text_enum;

text_enum! {
    /// What is counted. The text is what events and limits call it.
    Metric ("metric") {
        /// Bytes of a project's database; the greatest of a day.
        DatabaseBytes = "database_bytes",
        /// Bytes of a project's files; the greatest of a day.
        StorageBytes = "storage_bytes",
        AiTokens = "ai_tokens",
        McpCalls = "mcp_calls",
        EgressBytes = "egress_bytes",
        /// Millionths of a credit.
        AiCredits = "ai_credits",
        EmailRequests = "email_requests",
        FunctionCalls = "function_calls",
        /// Seconds that a machine ran for the project.
        Ec2Compute = "ec2_compute",
    }
}

/// How the days of a period make its total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// The greatest day.
    Peak,
    /// All days.
    Cumulative,
}

impl Metric {
    pub const COUNT: usize = Self::ALL.len();

    pub const fn kind(self) -> MetricKind {
        match self {
            Self::DatabaseBytes | Self::StorageBytes => MetricKind::Peak,
            Self::AiTokens
            | Self::McpCalls
            | Self::EgressBytes
            | Self::AiCredits
            | Self::EmailRequests
            | Self::FunctionCalls
            | Self::Ec2Compute => MetricKind::Cumulative,
        }
    }

    /// Digits behind the point that its wire form may have.
    pub const fn decimals(self) -> u32 {
        match self {
            Self::AiCredits => 6,
            _ => 0,
        }
    }

    /// The most that one event may tell, either way; in the metric's unit. Of sizes a pebibyte's
    /// worth, since one is told as it is; of the rest less, since they are added up.
    pub const fn most(self) -> i64 {
        match self.kind() {
            MetricKind::Peak => 1_000_000_000_000_000,
            MetricKind::Cumulative => 10_000_000_000_000,
        }
    }

    /// A number as JSON writes it, in the metric's unit. No float on the way: `0.1` is 0.1.
    ///
    /// # Errors
    /// Names `value` and the rule: not a number, too many decimals, too big, a negative size, or
    /// a metric that is measured and not told.
    pub fn parse_value(self, number: &str) -> FieldResult<i64> {
        let refuse = |rule: String| Err(FieldError::new("value", rule));
        if self == Self::Ec2Compute {
            return Err(FieldError::new(
                "metric",
                "ec2_compute is measured from the machines' own runs; it cannot be told",
            ));
        }
        if !number
            .bytes()
            .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
        {
            return refuse("must be a number".into());
        }
        let most = Decimal::new(self.most(), self.decimals());
        let too_big = || {
            format!(
                "must lie between -{most} and {most}",
                most = most.normalize()
            )
        };
        let parsed = Decimal::from_str_exact(number).or_else(|error| match error {
            rust_decimal::Error::ErrorString(_) => Decimal::from_scientific(number),
            other => Err(other),
        });
        let Ok(value) = parsed else {
            // Numbers of JSON that no decimal holds: 1e308, and 0.1 with thirty more digits.
            return match number.parse::<f64>() {
                Ok(float) if float.abs() > 1.0 => refuse(too_big()),
                Ok(_) => refuse(self.decimals_rule()),
                Err(_) => refuse("must be a number".into()),
            };
        };
        if value.abs() > most {
            return refuse(too_big());
        }
        if value.normalize().scale() > self.decimals() {
            return refuse(self.decimals_rule());
        }
        if value.is_sign_negative() && !value.is_zero() && self.kind() == MetricKind::Peak {
            return refuse(format!(
                "of {self} must not be negative: a size is told as it is, not as a difference"
            ));
        }
        let unit = Decimal::from(10_i64.pow(self.decimals()));
        match (value * unit).to_i64() {
            Some(amount) => Ok(amount),
            None => refuse(too_big()),
        }
    }

    fn decimals_rule(self) -> String {
        match self.decimals() {
            0 => format!("of {self} must be a whole number"),
            decimals => format!("of {self} must have at most {decimals} decimals"),
        }
    }

    /// The amount as a decimal number, without trailing zeros.
    pub fn display(self, amount: i64) -> Decimal {
        Decimal::new(amount, self.decimals()).normalize()
    }
}

/// One amount per metric, each in its metric's unit. Sums that no 64 bits hold stay at the end of
/// the range: no usage comes near it, and a bill must not turn negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amounts([i64; Metric::COUNT]);

impl Index<Metric> for Amounts {
    type Output = i64;

    fn index(&self, metric: Metric) -> &i64 {
        &self.0[metric as usize]
    }
}

impl IndexMut<Metric> for Amounts {
    fn index_mut(&mut self, metric: Metric) -> &mut i64 {
        &mut self.0[metric as usize]
    }
}

impl AddAssign<&Amounts> for Amounts {
    fn add_assign(&mut self, other: &Amounts) {
        for metric in Metric::ALL {
            self[*metric] = self[*metric].saturating_add(other[*metric]);
        }
    }
}

impl SubAssign<&Amounts> for Amounts {
    fn sub_assign(&mut self, other: &Amounts) {
        for metric in Metric::ALL {
            self[*metric] = self[*metric].saturating_sub(other[*metric]);
        }
    }
}

impl Amounts {
    /// The total of a period: the greatest day of sizes, the sum of the rest.
    pub fn total<'a>(days: impl IntoIterator<Item = &'a Amounts>) -> Self {
        let mut total = Self::default();
        for day in days {
            for metric in Metric::ALL {
                total[*metric] = match metric.kind() {
                    MetricKind::Peak => total[*metric].max(day[*metric]),
                    MetricKind::Cumulative => total[*metric].saturating_add(day[*metric]),
                };
            }
        }
        total
    }

    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|amount| *amount == 0)
    }
}

/// Whole UTC days, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsagePeriod {
    first: NaiveDate,
    last: NaiveDate,
}

/// The most days that one question may span.
pub const MOST_DAYS: i64 = 366;
/// Days that are told when nobody asks for certain ones, today included.
const DEFAULT_DAYS: u64 = 7;

impl UsagePeriod {
    /// # Errors
    /// Names `start_date` or `end_date` and the rule: no such day, the wrong order, too long.
    pub fn parse(start: Option<&str>, end: Option<&str>, today: NaiveDate) -> FieldResult<Self> {
        let last = end.map_or(Ok(today), |text| parse_day("end_date", text))?;
        let first = match start {
            Some(text) => parse_day("start_date", text)?,
            None => last - Days::new(DEFAULT_DAYS - 1),
        };
        Self::new(first, last)
    }

    /// # Errors
    /// The wrong order, or too long.
    pub fn new(first: NaiveDate, last: NaiveDate) -> FieldResult<Self> {
        if first > last {
            return Err(FieldError::new(
                "start_date",
                format!("must not be after end_date ({last})"),
            ));
        }
        if (last - first).num_days() >= MOST_DAYS {
            return Err(FieldError::new(
                "start_date",
                format!("must be at most {MOST_DAYS} days before the end of the period"),
            ));
        }
        Ok(Self { first, last })
    }

    /// The month that a day lies in.
    pub fn month_of(day: NaiveDate) -> Self {
        let first = day - Days::new(u64::from(chrono::Datelike::day0(&day)));
        let last = first + chrono::Months::new(1) - Days::new(1);
        Self { first, last }
    }

    /// The month before the one that it begins in.
    #[must_use]
    pub fn month_before(self) -> Self {
        Self::month_of(Self::month_of(self.first).first - Days::new(1))
    }

    /// A whole month.
    ///
    /// # Errors
    /// Names `month` and the rule.
    pub fn month(text: &str) -> FieldResult<Self> {
        let well_formed = text.len() == 7 && text.is_ascii();
        let first = well_formed
            .then(|| NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").ok())
            .flatten()
            .filter(|day| in_reach(*day))
            .ok_or_else(|| FieldError::new("month", "must be a month as YYYY-MM"))?;
        let last = first + chrono::Months::new(1) - Days::new(1);
        Ok(Self { first, last })
    }

    pub fn first(self) -> NaiveDate {
        self.first
    }

    pub fn last(self) -> NaiveDate {
        self.last
    }

    /// Ascending.
    pub fn days(self) -> impl Iterator<Item = NaiveDate> {
        self.first
            .iter_days()
            .take_while(move |day| *day <= self.last)
    }

    /// 00:00:00Z of the first day.
    pub fn start(self) -> DateTime<Utc> {
        midnight(self.first)
    }

    /// 23:59:59Z of the last day.
    pub fn end(self) -> DateTime<Utc> {
        midnight(self.last) + chrono::TimeDelta::seconds(DAY - 1)
    }

    pub fn contains(self, day: NaiveDate) -> bool {
        (self.first..=self.last).contains(&day)
    }
}

fn parse_day(field: &'static str, text: &str) -> FieldResult<NaiveDate> {
    // chrono alone would take `+2025-1-1`, too.
    let well_formed = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    well_formed
        .then(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok())
        .flatten()
        .filter(|day| in_reach(*day))
        .ok_or_else(|| FieldError::new(field, "must be a day of the calendar as YYYY-MM-DD"))
}

/// Days with which we can go on counting without leaving the calendar.
fn in_reach(day: NaiveDate) -> bool {
    use chrono::Datelike as _;
    (1900..=9000).contains(&day.year())
}

pub const DAY: i64 = 86_400;

pub fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

/// A stretch of time in which a machine ran for a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub started_at: DateTime<Utc>,
    /// None: it still runs.
    pub stopped_at: Option<DateTime<Utc>>,
}

/// Seconds of the runs on each day of the period, up to `now`; days without any are left out.
pub fn compute_seconds(
    runs: &[Run],
    period: UsagePeriod,
    now: DateTime<Utc>,
) -> BTreeMap<NaiveDate, i64> {
    let mut seconds = BTreeMap::new();
    for run in runs {
        let start = run.started_at.timestamp().max(period.start().timestamp());
        let stop = run.stopped_at.unwrap_or(now).min(now).timestamp();
        let stop = stop.min(period.end().timestamp() + 1);
        let mut from = start;
        while from < stop {
            let Some(at) = DateTime::from_timestamp(from, 0) else {
                break;
            };
            let until = (midnight(at.date_naive()).timestamp() + DAY).min(stop);
            *seconds.entry(at.date_naive()).or_default() += until - from;
            from = until;
        }
    }
    seconds
}

/// How many machines began and ceased to run for one partner on a day. With this for all days, the
/// seconds of any period follow without a look at the runs: the number of machines that run is
/// known at each midnight, and each start and stop changes its day by what is left of that day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunChanges {
    pub starts: i64,
    /// Sum of the seconds since midnight at which they started.
    pub start_seconds: i64,
    pub stops: i64,
    pub stop_seconds: i64,
}

impl RunChanges {
    /// Machine seconds of a day of which `length` seconds have passed, when `running` machines ran
    /// at its beginning.
    fn seconds(self, running: i64, length: i64) -> i64 {
        running * length + (self.starts * length - self.start_seconds)
            - (self.stops * length - self.stop_seconds)
    }

    pub fn balance(self) -> i64 {
        self.starts - self.stops
    }
}

/// Fills in the seconds of every day, in order. `running`: machines that ran when the first day
/// began.
pub fn fill_compute<'a>(
    days: impl IntoIterator<Item = (NaiveDate, RunChanges, &'a mut Amounts)>,
    mut running: i64,
    now: DateTime<Utc>,
) {
    for (day, changes, amounts) in days {
        let length = (now.timestamp() - midnight(day).timestamp()).clamp(0, DAY);
        amounts[Metric::Ec2Compute] = changes.seconds(running, length);
        running += changes.balance();
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn values_are_exact() {
        assert_eq!(Metric::AiCredits.parse_value("0.1"), Ok(100_000));
        assert_eq!(Metric::AiCredits.parse_value("-1.5"), Ok(-1_500_000));
        assert_eq!(Metric::AiCredits.parse_value("0.000001"), Ok(1));
        assert_eq!(Metric::AiTokens.parse_value("15000"), Ok(15_000));
        assert_eq!(Metric::AiTokens.parse_value("1e3"), Ok(1_000));
        assert_eq!(Metric::AiTokens.parse_value("7.0"), Ok(7));
        assert_eq!(Metric::DatabaseBytes.parse_value("-0"), Ok(0));
        assert_eq!(
            Metric::AiTokens.parse_value("10000000000000"),
            Ok(Metric::AiTokens.most())
        );
        assert_eq!(Metric::AiCredits.display(1_500_000).to_string(), "1.5");
        assert_eq!(Metric::AiTokens.display(-3).to_string(), "-3");
    }

    #[test]
    fn sums_beyond_the_range_stay_at_its_end() {
        let mut amounts = Amounts::default();
        amounts[Metric::AiTokens] = i64::MAX - 1;
        let total = Amounts::total([&amounts, &amounts]);
        assert_eq!(total[Metric::AiTokens], i64::MAX);
    }

    #[test]
    fn bad_values_name_the_rule() {
        let rule = |metric: Metric, text| metric.parse_value(text).unwrap_err().rule;
        for big in ["1e308", "9223372036854775808", "10000000000001", "-1e14"] {
            let rule = rule(Metric::AiTokens, big);
            assert!(
                rule.contains("between -10000000000000 and"),
                "{big}: {rule}"
            );
        }
        assert!(rule(Metric::AiCredits, "10000001").contains("between -10000000 and"));
        assert!(rule(Metric::AiTokens, "1.5").contains("whole number"));
        assert!(rule(Metric::AiTokens, "1e-400").contains("whole number"));
        assert!(rule(Metric::AiCredits, "0.0000001").contains("at most 6 decimals"));
        assert!(rule(Metric::StorageBytes, "-1").contains("must not be negative"));
        assert!(rule(Metric::AiTokens, "NaN").contains("a number"));
        assert!(rule(Metric::AiTokens, "\"5\"").contains("a number"));
        assert_eq!(
            Metric::Ec2Compute.parse_value("5").unwrap_err().field,
            "metric"
        );
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(amount in -Metric::AiTokens.most()..=Metric::AiTokens.most()) {
            for metric in Metric::ALL.iter().filter(|m| m.kind() == MetricKind::Cumulative && **m != Metric::Ec2Compute) {
                prop_assert_eq!(metric.parse_value(&metric.display(amount).to_string()), Ok(amount));
            }
        }

        #[test]
        fn any_text_is_a_value_or_not_without_panic(text in ".{0,40}") {
            for metric in Metric::ALL {
                if let Ok(amount) = metric.parse_value(&text) {
                    prop_assert!(amount.abs() <= metric.most());
                }
            }
        }
    }

    #[test]
    fn periods() {
        let today = day("2024-03-01");
        let week = UsagePeriod::parse(None, None, today).unwrap();
        assert_eq!((week.first(), week.last()), (day("2024-02-24"), today));
        assert_eq!(week.start().to_rfc3339(), "2024-02-24T00:00:00+00:00");
        assert_eq!(week.end().to_rfc3339(), "2024-03-01T23:59:59+00:00");
        let leap = UsagePeriod::month("2024-02").unwrap();
        assert_eq!(leap.days().count(), 29);
        assert!(UsagePeriod::parse(Some("2024-01-01"), Some("2024-12-31"), today).is_ok());
        let refused = |start, end| UsagePeriod::parse(start, end, today).unwrap_err();
        assert_eq!(refused(Some("2024-03-02"), None).field, "start_date");
        assert_eq!(
            refused(Some("2023-01-01"), Some("2024-01-02")).field,
            "start_date"
        );
        for bad in [
            "2023-02-29",
            "2024-2-01",
            "20240201",
            "+024-02-01",
            "2024-13-01",
            "",
            "9999-12-31",
            "0000-01-01",
            "２024-01-01",
        ] {
            assert_eq!(refused(Some(bad), None).field, "start_date", "{bad}");
            assert_eq!(refused(None, Some(bad)).field, "end_date", "{bad}");
        }
        for bad in ["2024-13", "2024-2", "2024-02-01", "", "+024-01"] {
            assert_eq!(UsagePeriod::month(bad).unwrap_err().field, "month", "{bad}");
        }
    }

    #[test]
    fn a_run_is_split_at_midnight_and_counted_up_to_now() {
        let period = UsagePeriod::new(day("2025-01-01"), day("2025-01-03")).unwrap();
        let runs = [
            Run {
                started_at: at("2024-12-31T23:00:00Z"),
                stopped_at: Some(at("2025-01-01T00:00:10.9Z")),
            },
            Run {
                started_at: at("2025-01-02T23:59:59.2Z"),
                stopped_at: None,
            },
        ];
        let seconds = compute_seconds(&runs, period, at("2025-01-03T00:00:05Z"));
        let expected = [("2025-01-01", 10), ("2025-01-02", 1), ("2025-01-03", 5)];
        assert_eq!(seconds, expected.map(|(d, s)| (day(d), s)).into());
    }

    proptest! {
        /// The partner's way of counting against the plain one over the same runs.
        #[test]
        fn changes_tell_what_the_runs_tell(
            runs in proptest::collection::vec((0..10 * DAY * 1000, proptest::option::of(0..3 * DAY * 1000)), 0..20),
            first in 0..8u64, length in 0..5u64, now in 0..12 * DAY,
        ) {
            let origin = midnight(day("2024-02-25"));
            let millis = |ms: i64| origin + TimeDelta::milliseconds(ms);
            let runs: Vec<Run> = runs.iter().map(|(start, length)| Run {
                started_at: millis(*start),
                stopped_at: length.map(|length| millis(start + length)),
            }).collect();
            // Readers never look from before the newest change.
            let newest = runs.iter().map(|r| r.stopped_at.unwrap_or(r.started_at)).max().unwrap_or(origin);
            let now = newest.max(origin + TimeDelta::seconds(now));
            let first = day("2024-02-25") + Days::new(first);
            let period = UsagePeriod::new(first, first + Days::new(length)).unwrap();

            let mut changes: BTreeMap<NaiveDate, RunChanges> = BTreeMap::new();
            for run in &runs {
                let started = changes.entry(run.started_at.date_naive()).or_default();
                started.starts += 1;
                started.start_seconds += run.started_at.timestamp().rem_euclid(DAY);
                if let Some(at) = run.stopped_at {
                    let stopped = changes.entry(at.date_naive()).or_default();
                    stopped.stops += 1;
                    stopped.stop_seconds += at.timestamp().rem_euclid(DAY);
                }
            }
            let running = changes.range(..first).map(|(_, c)| c.balance()).sum();
            let mut days: Vec<(NaiveDate, Amounts)> = period.days().map(|d| (d, Amounts::default())).collect();
            fill_compute(
                days.iter_mut().map(|(d, a)| (*d, changes.get(d).copied().unwrap_or_default(), a)),
                running,
                now,
            );
            let plain = compute_seconds(&runs, period, now);
            for (day, amounts) in days {
                prop_assert_eq!(amounts[Metric::Ec2Compute], plain.get(&day).copied().unwrap_or(0), "{}", day);
            }
        }
    }
}
