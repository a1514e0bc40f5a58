//! The plain way to count: a map of what every project used on every day, filled one event and one
//! run after the other, and added up without any trick. And the comparison of all answers with it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, Utc};
use cp_model::ProjectId;
use cp_tests::{App, PartnerClient, fields};
use serde_json::Value;

use super::midnight;

/// As events and the partner's figures call them. The first two are sizes.
const METRICS: [&str; 9] = [
    "database_bytes",
    "storage_bytes",
    "ai_tokens",
    "mcp_calls",
    "egress_bytes",
    "ai_credits",
    "email_requests",
    "function_calls",
    "ec2_compute",
];
/// The same, as the days of a project call them.
const OF_A_DAY: [&str; 9] = [
    "database_size_bytes",
    "file_storage_bytes",
    "ai_tokens",
    "mcp_calls",
    "egress_bytes",
    "ai_credits",
    "email_requests",
    "function_calls",
    "ec2_compute",
];
/// The same, as the summary of a project calls them.
const OF_A_PROJECT: [&str; 9] = [
    "max_database_size_bytes",
    "max_file_storage_bytes",
    "total_ai_tokens",
    "total_mcp_calls",
    "total_egress_bytes",
    "total_ai_credits",
    "total_email_requests",
    "total_function_calls",
    "total_ec2_compute",
];
const SIZES: usize = 2;
const CREDITS: usize = 5;
const COMPUTE: usize = 8;

/// In the order of [`METRICS`]; credits in millionths.
pub type Amounts = [i64; 9];
pub type Days = BTreeMap<NaiveDate, Amounts>;

#[derive(Debug, Default, Clone)]
pub struct Reference {
    used: BTreeMap<ProjectId, Days>,
}

impl Reference {
    /// An event as it was sent, once it was accepted for the first time.
    pub fn count(&mut self, event: &Value) {
        let text = |name: &str| event[name].as_str().unwrap();
        let project = text("project_id").parse().unwrap();
        let day = text("occurred_at").parse::<DateTime<Utc>>().unwrap();
        let metric = place(text("metric"));
        let amount = amount(metric, &event["value"]);
        let amounts = self.of(project, day.date_naive());
        amounts[metric] = if metric < SIZES {
            amounts[metric].max(amount)
        } else {
            amounts[metric] + amount
        };
    }

    fn of(&mut self, project: ProjectId, day: NaiveDate) -> &mut Amounts {
        self.used
            .entry(project)
            .or_default()
            .entry(day)
            .or_default()
    }

    /// A run, in whole seconds, each on its day.
    pub fn run(&mut self, project: ProjectId, from: DateTime<Utc>, until: DateTime<Utc>) {
        for second in whole_days(from, until) {
            let (day, seconds) = second;
            self.of(project, day)[COMPUTE] += seconds;
        }
    }

    /// All runs that the database has. A machine that runs does so until now, or until the newest
    /// start or stop where the clock went back behind it.
    pub async fn measure(&mut self, app: &App, now: DateTime<Utc>) {
        let runs: Vec<(uuid::Uuid, DateTime<Utc>, Option<DateTime<Utc>>)> =
            sqlx::query_as("select project_id, started_at, stopped_at from machine_runs")
                .fetch_all(&mut app.database.connect().await)
                .await
                .unwrap();
        let newest = runs
            .iter()
            .flat_map(|(_, from, until)| [Some(*from), *until]);
        let now = newest.flatten().max().unwrap_or(now).max(now);
        for (project, from, until) in runs {
            self.run(ProjectId(project), from, until.unwrap_or(now));
        }
    }

    pub fn days(&self, project: ProjectId, first: NaiveDate, last: NaiveDate) -> Days {
        let days = self.used.get(&project).cloned().unwrap_or_default();
        days.range(first..=last).map(|(d, a)| (*d, *a)).collect()
    }

    /// Sums per day over these projects.
    pub fn partner_days(&self, projects: &[ProjectId], first: NaiveDate, last: NaiveDate) -> Days {
        let mut sums = Days::new();
        for project in projects {
            for (day, amounts) in self.days(*project, first, last) {
                let sum = sums.entry(day).or_default();
                for (sum, amount) in sum.iter_mut().zip(amounts) {
                    *sum += amount;
                }
            }
        }
        sums
    }
}

/// The seconds between the two on each day.
fn whole_days(from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<(NaiveDate, i64)> {
    let (start, stop) = (from.timestamp(), until.timestamp());
    from.date_naive()
        .iter_days()
        .take_while(|day| *day <= until.date_naive())
        .map(|day| {
            let begin = midnight(day).timestamp();
            let seconds = stop.min(begin + 86_400) - start.max(begin);
            (day, seconds.max(0))
        })
        .collect()
}

/// The greatest day of sizes, the sum of the rest.
pub fn total(days: &Days) -> Amounts {
    let mut total = Amounts::default();
    for amounts in days.values() {
        for (metric, amount) in amounts.iter().enumerate() {
            total[metric] = if metric < SIZES {
                total[metric].max(*amount)
            } else {
                total[metric] + amount
            };
        }
    }
    total
}

fn months(days: &Days) -> BTreeMap<String, Amounts> {
    let mut months: BTreeMap<String, Days> = BTreeMap::new();
    for (day, amounts) in days {
        let month = months.entry(day.format("%Y-%m").to_string()).or_default();
        month.insert(*day, *amounts);
    }
    months
        .iter()
        .map(|(m, days)| (m.clone(), total(days)))
        .collect()
}

fn place(metric: &str) -> usize {
    METRICS.iter().position(|name| *name == metric).unwrap()
}

fn amount(metric: usize, value: &Value) -> i64 {
    if metric == CREDITS {
        // Exact: a float has fifteen decimal digits, and scenarios use fewer.
        #[allow(clippy::cast_possible_truncation, reason = "it is rounded")]
        return (value.as_f64().unwrap() * 1e6).round() as i64;
    }
    value
        .as_i64()
        .unwrap_or_else(|| panic!("{value} is not whole"))
}

fn read(value: &Value, names: [&str; 9]) -> Amounts {
    std::array::from_fn(|metric| amount(metric, &value[names[metric]]))
}

/// The summary of a project's usage.
pub fn read_project(answer: &Value) -> Amounts {
    read(&answer["summary"], OF_A_PROJECT)
}

/// The summary of a partner's usage.
pub fn read_partner(answer: &Value) -> Amounts {
    read(&answer["summary"], METRICS)
}

/// The days of a project's usage.
pub fn read_days(answer: &Value) -> Days {
    listed(answer, "daily_usage", "usage_date", OF_A_DAY)
        .into_iter()
        .map(|(day, amounts)| (day.parse().unwrap(), amounts))
        .collect()
}

/// A list of days or months, in its order.
fn listed(answer: &Value, list: &str, name: &str, names: [&str; 9]) -> Vec<(String, Amounts)> {
    let rows = answer[list].as_array();
    let rows = rows.unwrap_or_else(|| panic!("no {list} in {answer}"));
    rows.iter()
        .map(|row| (row[name].as_str().unwrap().to_owned(), read(row, names)))
        .collect()
}

/// Each ascending, none twice, and no other amounts than expected: what is not listed is zero.
fn assert_listed(what: &str, seen: &[(String, Amounts)], expected: &BTreeMap<String, Amounts>) {
    let names: Vec<&String> = seen.iter().map(|(name, _)| name).collect();
    assert!(names.is_sorted(), "{what}: {names:?}");
    let seen_once: BTreeMap<String, Amounts> = seen.iter().cloned().collect();
    assert_eq!(seen_once.len(), seen.len(), "{what}: {names:?}");
    let only_used = |all: &BTreeMap<String, Amounts>| -> BTreeMap<String, Amounts> {
        let used = all.iter().filter(|(_, a)| **a != Amounts::default());
        used.map(|(name, amounts)| (name.clone(), *amounts))
            .collect()
    };
    assert_eq!(only_used(&seen_once), only_used(expected), "{what}");
}

fn by_text(days: &Days) -> BTreeMap<String, Amounts> {
    days.iter().map(|(d, a)| (d.to_string(), *a)).collect()
}

/// Compares every figure that the partner can ask for with the reference.
///
/// # Panics
/// At the first difference.
pub async fn assert_figures(
    partner: &PartnerClient,
    reference: &Reference,
    projects: &[ProjectId],
    (first, last): (NaiveDate, NaiveDate),
) {
    let range = format!("start_date={first}&end_date={last}");
    for project in projects {
        let what = format!("{project}, {range}");
        let expected = reference.days(*project, first, last);
        let ask = async |more: &str| {
            let path = format!("/{project}/usage?{range}{more}");
            partner.get(&path).await.expect(200)
        };
        let plain = ask("").await;
        assert_eq!(
            fields(&plain),
            ["daily_usage", "period", "project", "summary"]
        );
        assert_eq!(plain["period"]["start"], format!("{first}T00:00:00Z"));
        assert_eq!(plain["period"]["end"], format!("{last}T23:59:59Z"));
        let days = listed(&plain, "daily_usage", "usage_date", OF_A_DAY);
        assert_listed(&what, &days, &by_text(&expected));
        assert_eq!(read_project(&plain), total(&expected), "{what}");
        let by_day = ask("&granularity=day").await;
        assert_eq!(by_day["daily_usage"], plain["daily_usage"], "{what}");
        assert_eq!(by_day["summary"], plain["summary"], "{what}");
        let by_month = ask("&granularity=month").await;
        let rows = listed(&by_month, "monthly_usage", "usage_month", OF_A_DAY);
        assert_listed(&what, &rows, &months(&expected));
        assert_eq!(by_month["summary"], plain["summary"], "{what}");
    }
    let whole = reference.partner_days(projects, first, last);
    let ask = async |more: &str| {
        partner
            .get(&format!("/usage?{range}{more}"))
            .await
            .expect(200)
    };
    let plain = ask("").await;
    assert_eq!(fields(&plain), ["partnership", "period", "summary"]);
    assert_eq!(read_partner(&plain), total(&whole), "{range}");
    let by_day = ask("&granularity=day").await;
    let rows = listed(&by_day, "daily_usage", "usage_date", METRICS);
    let span = (last - first).num_days() + 1;
    assert_eq!(i64::try_from(rows.len()).unwrap(), span, "zeros included");
    assert_listed(&range, &rows, &by_text(&whole));
    let by_month = ask("&granularity=month").await;
    let rows = listed(&by_month, "monthly_usage", "usage_month", METRICS);
    assert_listed(&range, &rows, &months(&whole));
    let lines = by_project(partner, &range, 2).await;
    let mut sum = Amounts::default();
    for project in projects {
        let expected = total(&reference.days(*project, first, last));
        let seen = lines.iter().find(|(id, _)| id == project);
        // A project that did not exist in the period is not listed.
        let seen = seen.map(|(_, amounts)| *amounts).unwrap_or_default();
        assert_eq!(seen, expected, "{project} among all, {range}");
        for (sum, amount) in sum.iter_mut().zip(seen) {
            *sum += amount;
        }
    }
    assert_eq!(
        sum[SIZES..],
        total(&whole)[SIZES..],
        "projects add up, {range}"
    );
}

/// What each project used, over all pages.
pub async fn by_project(
    partner: &PartnerClient,
    range: &str,
    limit: usize,
) -> Vec<(ProjectId, Amounts)> {
    let mut lines = Vec::new();
    let mut cursor = String::new();
    let mut seen = BTreeSet::new();
    loop {
        let path = format!("/usage?{range}&group_by=project&limit={limit}{cursor}");
        let page = partner.get(&path).await.expect(200);
        let projects = page["projects"].as_array().unwrap();
        assert!(projects.len() <= limit, "{page}");
        for line in projects {
            let id: ProjectId = line["project"]["id"].as_str().unwrap().parse().unwrap();
            assert!(seen.insert(id), "{id} is on two pages");
            lines.push((id, read_project(line)));
        }
        let Some(next) = page["next_cursor"].as_str() else {
            return lines;
        };
        assert_eq!(projects.len(), limit, "only the last page is short");
        cursor = format!("&cursor={next}");
    }
}
