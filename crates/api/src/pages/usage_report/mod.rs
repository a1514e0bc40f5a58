//! `/usage-report`: what a partner's projects used, drawn. Opened by a link that the partner asked
//! for (`POST /partnership/v1/{partnerId}/usage/report-link`); nobody signs in, and looking changes
//! nothing.

mod chart;
mod words;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use chrono::{Days, NaiveDate};
use cp_domain::DomainError;
use cp_domain::usage::{DayUsage, OpenedReport, ProjectTotal, total};
use cp_model::{FieldResult, Metric, MetricKind, ProjectStatus, UsagePeriod};
use http::StatusCode;
use maud::{Markup, html};

use super::error_page::Failure;
use super::fields::Fields;
use super::forms::{Errors, Field, hidden};
use super::layout::{Layout, Width, moment};
use crate::ApiState;
use words::{exact, name, readable};

pub const PATH: &str = "/usage-report";

/// Days that are shown when nobody asks for certain ones, today included.
const DEFAULT_DAYS: u64 = 30;
/// Projects that are listed.
const MOST_PROJECTS: u32 = 20;
const LABELS: [(&str, &str, &str); 2] = [
    ("start_date", "start_date", "The first day"),
    ("end_date", "end_date", "The last day"),
];

pub async fn show(
    State(state): State<ApiState>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes())
        .map_err(|_| Failure::wrong_report_link())?;
    let control_plane = &state.control_plane;
    let token = fields.text("token");
    let opened = match control_plane.open_usage_report(token).await {
        Ok(opened) => opened,
        Err(DomainError::NotFound(_)) => return Err(Failure::wrong_report_link()),
        Err(DomainError::ExpiredLink) => return Err(Failure::expired_report_link()),
        Err(DomainError::PartnerSuspended) => return Err(Failure::suspended_partner()),
        Err(error) => return Err(error.into()),
    };
    let mut asked = Asked {
        token,
        first: fields.text("start_date").trim().to_owned(),
        last: fields.text("end_date").trim().to_owned(),
    };
    let period = match asked.period(control_plane.today()) {
        Ok(period) => period,
        Err(error) => {
            let errors = Errors::broken(&error, &LABELS);
            let content = html! { (heading(&opened)) (asked.form(&errors)) };
            return Ok(answer(StatusCode::BAD_REQUEST, &opened, &errors, &content));
        }
    };
    let partner = &opened.partner.id;
    let usage = control_plane.partner_usage(partner, period).await?;
    let projects = control_plane
        .busiest_projects(partner, period, MOST_PROJECTS)
        .await?;
    asked.fill_in(period);
    let report = Report {
        opened: &opened,
        asked: &asked,
        period,
        days: &usage.days,
        projects: &projects,
    };
    let content = report.render().map_err(|error| Failure::internal(&error))?;
    Ok(answer(StatusCode::OK, &opened, &Errors::none(), &content))
}

fn answer(
    status: StatusCode,
    opened: &OpenedReport,
    errors: &Errors,
    content: &Markup,
) -> Response {
    let title = format!("Usage of {}", opened.partner.name);
    let layout = Layout {
        title: &errors.title(&title),
        visitor: None,
        width: Width::Wide,
    };
    layout.answer(status, content)
}

fn heading(opened: &OpenedReport) -> Markup {
    html! { h1 { "Usage of " (opened.partner.name) } }
}

/// What the form asks for, as it was typed.
pub struct Asked<'a> {
    pub token: &'a str,
    pub first: String,
    pub last: String,
}

impl Asked<'_> {
    /// An empty field is one that was left out.
    fn period(&self, today: NaiveDate) -> FieldResult<UsagePeriod> {
        let given = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
        let (first, last) = (given(&self.first), given(&self.last));
        let period = UsagePeriod::parse(first.as_deref(), last.as_deref(), today)?;
        if first.is_some() {
            return Ok(period);
        }
        UsagePeriod::new(period.last() - Days::new(DEFAULT_DAYS - 1), period.last())
    }

    fn fill_in(&mut self, period: UsagePeriod) {
        self.first = period.first().to_string();
        self.last = period.last().to_string();
    }

    fn form(&self, errors: &Errors) -> Markup {
        let field = |name, label, value| Field {
            name,
            label,
            kind: "date",
            value,
            ..Field::default()
        };
        html! {
            (errors.summary())
            form.period method="get" action=(PATH) novalidate {
                (hidden("token", self.token))
                (field("start_date", "First day", &self.first).render(errors))
                (field("end_date", "Last day", &self.last).render(errors))
                button.button type="submit" { "Show" }
            }
        }
    }
}

/// All that the page shows.
pub struct Report<'a> {
    pub opened: &'a OpenedReport,
    pub asked: &'a Asked<'a>,
    pub period: UsagePeriod,
    pub days: &'a [DayUsage],
    pub projects: &'a [ProjectTotal],
}

impl Report<'_> {
    /// # Errors
    /// When a chart cannot be drawn.
    pub fn render(&self) -> Result<Markup, String> {
        let total = total(self.days);
        let nothing = self.days.iter().all(|day| day.amounts.is_zero());
        let cards: Vec<Markup> = Metric::ALL
            .iter()
            .map(|metric| self.card(*metric, total[*metric]))
            .collect::<Result<_, _>>()?;
        Ok(html! {
            (heading(self.opened))
            p { (long_day(self.period.first())) " to " (long_day(self.period.last())) ". Days begin and end at midnight UTC. Deleted projects are included." }
            (self.asked.form(&Errors::none()))
            @if nothing {
                p.notice role="status" { "Nothing was used in this period." }
            }
            div.cards {
                @for card in &cards { (card) }
            }
            (self.busiest())
            p.fine {
                "This page opens until " (moment(self.opened.expires_at))
                "; after that, ask for a new link. Whoever has its address can see it."
            }
        })
    }

    fn card(&self, metric: Metric, total: i64) -> Result<Markup, String> {
        let values: Vec<(NaiveDate, i64)> = self
            .days
            .iter()
            .map(|day| (day.day, day.amounts[metric]))
            .collect();
        let kind = match metric.kind() {
            MetricKind::Peak => "on the greatest day",
            MetricKind::Cumulative => "in all",
        };
        let is_empty = values.iter().all(|(_, amount)| *amount == 0);
        let title_id = format!("{metric}-chart");
        let heading_id = format!("{metric}-heading");
        let chart = chart::bars(&summary(metric, &values), &title_id, metric, &values)?;
        Ok(html! {
            section.metric aria-labelledby=(heading_id) {
                h2 id=(heading_id) { (name(metric)) }
                p.total { (amount(metric, total)) " " span.fine { (kind) } }
                @if is_empty {
                    p.fine { "None in this period." }
                } @else {
                    (chart)
                    details {
                        summary { "Figures" span.hidden { " of " (name(metric)) } }
                        (figures(metric, &values))
                    }
                }
            }
        })
    }

    fn busiest(&self) -> Markup {
        const COLUMNS: [Metric; 4] = [
            Metric::Ec2Compute,
            Metric::DatabaseBytes,
            Metric::StorageBytes,
            Metric::AiTokens,
        ];
        html! {
            section {
                h2 #projects { "Projects that ran longest" }
                @if self.projects.is_empty() {
                    p.fine { "No project ran in this period." }
                } @else {
                    p.fine {
                        "At most " (MOST_PROJECTS) ". The API lists all of them: "
                        code { "GET usage?group_by=project" } "."
                    }
                    div.scroll role="region" aria-labelledby="projects" tabindex="0" {
                        table {
                            thead {
                                tr {
                                    th scope="col" { "Project" }
                                    @for metric in COLUMNS { th.number scope="col" { (name(metric)) } }
                                }
                            }
                            tbody {
                                @for line in self.projects {
                                    tr {
                                        th scope="row" {
                                            (line.project.name)
                                            @if is_gone(line.project.status) {
                                                " " span.tag { "deleted" }
                                            }
                                        }
                                        @for metric in COLUMNS {
                                            td.number { (amount(metric, line.total[metric])) }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// To its partner a project is gone once deleting it was answered.
fn is_gone(status: ProjectStatus) -> bool {
    matches!(status, ProjectStatus::Deleting | ProjectStatus::Deleted)
}

/// The same as the chart, for those who cannot see it or want it to the byte.
fn figures(metric: Metric, values: &[(NaiveDate, i64)]) -> Markup {
    let unit = exact(metric);
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "Day" }
                    th.number scope="col" { (name(metric)) }
                    @if let Some(unit) = unit { th.number scope="col" { (unit) } }
                }
            }
            tbody {
                @for (day, value) in values {
                    tr {
                        th scope="row" { time { (day) } }
                        td.number { (amount(metric, *value)) }
                        @if unit.is_some() { td.number { (value) } }
                    }
                }
            }
        }
    }
}

/// For people, with what the API says of it for programs.
fn amount(metric: Metric, amount: i64) -> Markup {
    html! { data value=(metric.display(amount)) { (readable(metric, amount)) } }
}

/// What the chart shows, in words.
fn summary(metric: Metric, values: &[(NaiveDate, i64)]) -> String {
    let greatest = values
        .iter()
        .rev()
        .max_by_key(|(_, amount)| *amount)
        .filter(|(_, amount)| *amount > 0)
        .map_or_else(String::new, |(day, amount)| {
            let amount = readable(metric, *amount);
            format!(" The greatest is {amount}, on {}.", long_day(*day))
        });
    format!("{}, one bar per day.{greatest}", name(metric))
}

fn long_day(day: NaiveDate) -> String {
    day.format("%-d %B %Y").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(first: &str, last: &str) -> FieldResult<(String, String)> {
        let asked = Asked {
            token: "",
            first: first.into(),
            last: last.into(),
        };
        let period = asked.period("2026-03-31".parse().unwrap())?;
        Ok((period.first().to_string(), period.last().to_string()))
    }

    #[test]
    fn the_last_thirty_days_unless_asked() {
        let days = |first: &str, last: &str| Ok((first.to_owned(), last.to_owned()));
        assert_eq!(asked("", ""), days("2026-03-02", "2026-03-31"));
        assert_eq!(asked("", "2026-01-31"), days("2026-01-02", "2026-01-31"));
        assert_eq!(asked("2026-03-31", ""), days("2026-03-31", "2026-03-31"));
        assert_eq!(asked("2026-04-01", "").unwrap_err().field, "start_date");
        assert_eq!(asked("", "tomorrow").unwrap_err().field, "end_date");
    }
}
