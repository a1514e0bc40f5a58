//! Statements: what a month's bill says. A month is closed once and never changes; what becomes
//! known of it later is an adjustment of the next statement that is closed.

use std::collections::BTreeMap;

use chrono::{DateTime, Months, NaiveDate, Utc};
use cp_model::{Amounts, FieldError, LimitPeriod, PartnerId, UsagePeriod};
use cp_storage::usage;
use cp_storage::usage_statements::{self, StatementLine, StatementRecord};
use cp_storage::{PgConnection, StorageError};
use serde_json::json;

use super::total;
use crate::{ControlPlane, DomainError, DomainResult, Thing};

/// A closed month of a partner.
#[derive(Debug, Clone)]
pub struct Statement {
    pub month: UsagePeriod,
    pub closed_at: DateTime<Utc>,
    /// What the month used, as it was known at the close.
    pub amounts: Amounts,
    /// What this statement mends of earlier ones.
    pub adjustments: Vec<Adjustment>,
    /// What each project used in the month; those that used nothing are left out.
    pub lines: Vec<StatementLine>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adjustment {
    /// First day of the month that it is about.
    pub of_month: NaiveDate,
    pub amounts: Amounts,
}

/// A closed month, in a list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatementSummary {
    pub month: NaiveDate,
    pub closed_at: DateTime<Utc>,
    pub amounts: Amounts,
}

fn month_text(month: NaiveDate) -> String {
    month.format("%Y-%m").to_string()
}

impl ControlPlane {
    /// Closes a month, for ever. Months are closed in order, each after its end, from the first in
    /// which the partner used anything; none is left out. Whatever is counted from this moment on
    /// goes to the next statement.
    pub async fn close_statement(
        &self,
        partner: &PartnerId,
        month: UsagePeriod,
    ) -> DomainResult<Statement> {
        let partner = self.find_partner(partner).await?.id;
        let now = self.now();
        if now.date_naive() <= month.last() {
            let rule = format!("must be over; it ends with {}", month.last());
            return Err(FieldError::new("month", rule).into());
        }
        let mut tx = self.db().begin().await?;
        // All that is read here is of one moment, so the lines add up to the whole.
        usage_statements::begin_snapshot(&mut tx).await?;
        let closed = usage_statements::list_statements(&mut tx, &partner).await?;
        let newest = closed.last().map(|statement| statement.month);
        if let Some(newest) = newest.filter(|newest| *newest >= month.first()) {
            return Err(DomainError::Conflict(format!(
                "{} is closed; months are closed in order, and once",
                month_text(newest)
            )));
        }
        let first_used = usage::find_first_day(&mut tx, &partner).await?;
        let first_used = first_used.map(|day| LimitPeriod::Month.first_day(day));
        let due = newest.map_or(first_used, |newest| {
            newest.checked_add_months(Months::new(1))
        });
        if let Some(due) = due.filter(|due| *due < month.first()) {
            return Err(DomainError::Conflict(format!(
                "{} is not closed yet and comes first; months are closed in order, and none is left out",
                month_text(due)
            )));
        }
        let statement = StatementRecord {
            month: month.first(),
            closed_at: now,
            amounts: self.month_total(&mut tx, &partner, month).await?,
        };
        if !usage_statements::insert_statement(&mut tx, &partner, newest, &statement).await? {
            return Err(DomainError::Conflict(
                "somebody else closes a month of this partner; look at `partner statement list`"
                    .into(),
            ));
        }
        usage_statements::insert_lines(&mut tx, &partner, month).await?;
        let adjusted = usage_statements::list_adjusted(&mut tx, &partner).await?;
        let billed: BTreeMap<NaiveDate, Amounts> = closed
            .iter()
            .map(|statement| (statement.month, statement.amounts))
            .collect();
        // Usage may come late for a month before the first that was closed, too.
        let mut earlier = first_used.into_iter().chain(billed.keys().copied()).min();
        while let Some(of_month) = earlier.filter(|earlier| *earlier < statement.month) {
            earlier = of_month.checked_add_months(Months::new(1));
            let period = UsagePeriod::month(&month_text(of_month))?;
            let mut late = self.month_total(&mut tx, &partner, period).await?;
            for known in [&billed, &adjusted] {
                late -= &known.get(&of_month).copied().unwrap_or_default();
            }
            if !late.is_zero() {
                usage_statements::insert_adjustment(
                    &mut tx,
                    &partner,
                    statement.month,
                    of_month,
                    &late,
                )
                .await?;
            }
        }
        let details = json!({ "month": month_text(statement.month) });
        self.audit_service(
            &mut tx,
            "operator",
            "usage_statement.closed",
            ("partner", partner.as_str()),
            None,
            details,
        )
        .await?;
        tx.commit().await.map_err(StorageError::from)?;
        self.find_statement(&partner, month).await
    }

    /// A closed month, the same whenever it is asked for.
    pub async fn find_statement(
        &self,
        partner: &PartnerId,
        month: UsagePeriod,
    ) -> DomainResult<Statement> {
        let mut conn = self.db().acquire().await?;
        let closed = usage_statements::list_statements(&mut conn, partner).await?;
        let record = closed
            .into_iter()
            .find(|statement| statement.month == month.first())
            .ok_or(DomainError::NotFound(Thing::Statement))?;
        let adjustments = usage_statements::list_adjustments(&mut conn, partner)
            .await?
            .into_iter()
            .filter(|(statement, ..)| *statement == record.month)
            .map(|(_, of_month, amounts)| Adjustment { of_month, amounts })
            .collect();
        let lines = usage_statements::list_lines(&mut conn, partner, record.month).await?;
        Ok(Statement {
            month,
            closed_at: record.closed_at,
            amounts: record.amounts,
            adjustments,
            lines,
        })
    }

    /// Oldest first.
    pub async fn list_statements(
        &self,
        partner: &PartnerId,
    ) -> DomainResult<Vec<StatementSummary>> {
        let partner = self.find_partner(partner).await?.id;
        let mut conn = self.db().acquire().await?;
        let closed = usage_statements::list_statements(&mut conn, &partner).await?;
        Ok(closed
            .into_iter()
            .map(|record| StatementSummary {
                month: record.month,
                closed_at: record.closed_at,
                amounts: record.amounts,
            })
            .collect())
    }

    async fn month_total(
        &self,
        conn: &mut PgConnection,
        partner: &PartnerId,
        month: UsagePeriod,
    ) -> DomainResult<Amounts> {
        Ok(total(&self.partner_days(conn, partner, month).await?))
    }
}
