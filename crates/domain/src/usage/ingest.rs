//! Usage events: each is counted once, in the transaction that remembers it.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use cp_model::{Amounts, FieldError, FieldResult, Metric, ProjectId};
use cp_storage::usage::{self, CountedProject, Increment, NewEvent};
use cp_storage::{PgConnection, StorageError};
use cp_tokens::secret::hash_bytes;
use uuid::Uuid;

use super::services::{UsageService, check_source};
use crate::{ControlPlane, DomainResult};

/// The most events of one batch.
pub const MOST_EVENTS: usize = 1_000;
/// An event may come this long after it happened.
pub(super) const MOST_LATE: TimeDelta = TimeDelta::days(35);
/// And this long before, for clocks that differ.
const MOST_EARLY: TimeDelta = TimeDelta::minutes(5);
const LONGEST_ID: usize = 200;

/// An event as a service tells it, each part as text.
#[derive(Debug, Clone, Copy)]
pub struct NewUsageEvent<'a> {
    pub id: &'a str,
    pub source: &'a str,
    pub project_id: &'a str,
    pub metric: &'a str,
    /// A number as JSON writes it.
    pub value: &'a str,
    /// RFC 3339.
    pub occurred_at: &'a str,
}

/// An event that keeps the rules that need no look at the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageEvent {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) project: ProjectId,
    pub(super) metric: Metric,
    pub(super) amount: i64,
    pub(super) occurred_at: DateTime<Utc>,
}

impl UsageEvent {
    /// # Errors
    /// Names the field and the rule.
    pub fn parse(new: &NewUsageEvent<'_>) -> FieldResult<Self> {
        let id_ok = (1..=LONGEST_ID).contains(&new.id.chars().count())
            && !new.id.chars().any(char::is_control);
        if !id_ok {
            let rule =
                format!("must be 1 to {LONGEST_ID} characters, none of them a control character");
            return Err(FieldError::new("id", rule));
        }
        check_source(new.source)?;
        let project = new
            .project_id
            .parse()
            .map_err(|_| FieldError::new("project_id", "must be a UUID"))?;
        let metric: Metric = new.metric.parse().map_err(|error: cp_model::UnknownText| {
            FieldError::new("metric", format!("must be one of {}", error.valid))
        })?;
        let occurred_at = DateTime::parse_from_rfc3339(new.occurred_at).map_err(|_| {
            let rule = "must be a time with its offset, like 2025-11-18T10:30:00Z";
            FieldError::new("occurred_at", rule)
        })?;
        Ok(Self {
            id: new.id.to_owned(),
            source: new.source.to_owned(),
            project,
            metric,
            amount: metric.parse_value(new.value)?,
            occurred_at: occurred_at.to_utc(),
        })
    }

    /// Of source and id; the zero byte, which neither has, keeps them apart.
    fn key(&self) -> Uuid {
        let text = format!("{}\0{}", self.source, self.id);
        let hash = hash_bytes(text.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&hash[..16]);
        Uuid::from_bytes(key)
    }

    pub(super) fn day(&self) -> NaiveDate {
        self.occurred_at.date_naive()
    }
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ingested {
    pub accepted: usize,
    /// Counted before, or twice in the batch.
    pub duplicates: usize,
    pub refused: Vec<RefusedEvent>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedEvent {
    /// Place in the batch, from 0.
    pub index: usize,
    pub error: FieldError,
}

impl ControlPlane {
    /// Counts what is new among the events, all or (on an error) nothing. What breaks a rule is
    /// refused by itself; `given` has the refusals of whoever read the batch, too.
    pub async fn record_usage_events(
        &self,
        service: &UsageService,
        given: Vec<FieldResult<UsageEvent>>,
    ) -> DomainResult<Ingested> {
        let mut ingested = Ingested::default();
        let mut events = Vec::with_capacity(given.len());
        let now = self.now();
        for (index, event) in given.into_iter().enumerate() {
            match event.and_then(|event| allow(event, service, now)) {
                Ok(event) => events.push((index, event)),
                Err(error) => ingested.refused.push(RefusedEvent { index, error }),
            }
        }
        let projects: HashSet<ProjectId> = events.iter().map(|(_, e)| e.project).collect();
        let projects: Vec<ProjectId> = projects.into_iter().collect();
        let mut tx = self.db().begin().await?;
        let projects = usage::list_counted_projects(&mut tx, &projects).await?;
        let mut known = Vec::with_capacity(events.len());
        for (index, event) in events {
            match check_project(&event, projects.get(&event.project)) {
                Ok(()) => known.push(event),
                Err(error) => ingested.refused.push(RefusedEvent { index, error }),
            }
        }
        ingested.accepted = self.count_events(&mut tx, &known, &projects).await?;
        ingested.duplicates = known.len() - ingested.accepted;
        tx.commit().await.map_err(StorageError::from)?;
        self.check_limits_of(&known, &projects).await;
        ingested.refused.sort_by_key(|refused| refused.index);
        Ok(ingested)
    }

    /// Counts those that were never counted before, in the caller's transaction; gives how many.
    pub(crate) async fn count_events(
        &self,
        conn: &mut PgConnection,
        events: &[UsageEvent],
        projects: &BTreeMap<ProjectId, CountedProject>,
    ) -> DomainResult<usize> {
        let mut by_key: BTreeMap<Uuid, &UsageEvent> = BTreeMap::new();
        for event in events {
            by_key.entry(event.key()).or_insert(event);
        }
        if by_key.is_empty() {
            return Ok(0);
        }
        let rows: Vec<NewEvent<'_>> = by_key
            .iter()
            .map(|(key, event)| NewEvent {
                key: *key,
                source: &event.source,
                id: &event.id,
                project: event.project,
                metric: event.metric,
                amount: event.amount,
                occurred_at: event.occurred_at,
            })
            .collect();
        let fresh = usage::insert_events(conn, &rows, self.now()).await?;
        let mut used: BTreeMap<(ProjectId, NaiveDate), Amounts> = BTreeMap::new();
        for event in fresh.iter().filter_map(|key| by_key.get(key)) {
            let amounts = used.entry((event.project, event.day())).or_default();
            let amount = &mut amounts[event.metric];
            *amount = match event.metric.kind() {
                cp_model::MetricKind::Peak => event.amount.max(*amount),
                cp_model::MetricKind::Cumulative => *amount + event.amount,
            };
        }
        let increments: Vec<Increment> = used
            .into_iter()
            .map(|((project, day), amounts)| Increment {
                project,
                partner: projects.get(&project).and_then(|p| p.partner.clone()),
                day,
                amounts,
            })
            .collect();
        if !increments.is_empty() {
            let lane = usage::take_lane(conn).await?;
            usage::add_usage(conn, lane, &increments).await?;
        }
        Ok(fresh.len())
    }
}

fn allow(event: UsageEvent, service: &UsageService, now: DateTime<Utc>) -> FieldResult<UsageEvent> {
    if !service.sources.contains(&event.source) {
        let rule = format!(
            "must be one of this token's: {}",
            service.sources.join(", ")
        );
        return Err(FieldError::new("source", rule));
    }
    if event.occurred_at > now + MOST_EARLY {
        let rule = "must not lie more than 5 minutes in the future";
        return Err(FieldError::new("occurred_at", rule));
    }
    if event.occurred_at < now - MOST_LATE {
        let rule = "must not lie more than 35 days in the past";
        return Err(FieldError::new("occurred_at", rule));
    }
    Ok(event)
}

/// Usage of a day on which its project did not exist would be on the partner's bill and on no
/// project's.
fn check_project(event: &UsageEvent, project: Option<&CountedProject>) -> FieldResult<()> {
    let Some(project) = project else {
        return Err(FieldError::new("project_id", "must be that of a project"));
    };
    let day = event.day();
    let existed = project.created_at.date_naive() <= day
        && project.deleted_at.is_none_or(|at| day <= at.date_naive());
    if existed {
        Ok(())
    } else {
        let rule = "must lie on a day on which the project existed";
        Err(FieldError::new("occurred_at", rule))
    }
}
