//! Runs operations: lease, step, record, and again. Everything that this file writes is written
//! under the lease; a worker that lost it writes nothing.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use cp_domain::DomainError;
use cp_domain::operations::Lease;
use cp_model::operation::backoff;
use cp_model::{Failure, Operation, OperationId, OperationKind};
use rand::Rng;
use tracing::Instrument;

use crate::crash::CrashPoint;
use crate::step::{Outcome, StepContext, StepError, StepResult};
use crate::{
    Worker, back_up_project, create_branch, delete_project, merge_branch, pause_project,
    provision_project, rebase_branch, replace_database, restart_project, restore_project,
    upgrade_project,
};

/// The longest wait between attempts of a delete, which is tried for ever.
const LONGEST_BACKOFF: Duration = Duration::from_mins(5);

impl Worker {
    /// Works on the operation until it waits, ends, or is lost. Called for every wake-up message;
    /// one too many finds nothing to lease.
    pub(crate) async fn work_on(&self, id: OperationId) {
        let leased = self
            .control_plane()
            .lease_operation(id, &self.inner.owner, self.config().lease)
            .await;
        let (lease, operation) = match leased {
            Ok(Some(leased)) => leased,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(operation = %id, %error, "an operation could not be leased; the sweeper sends it again");
                return;
            }
        };
        let span = tracing::info_span!("operation", %id, kind = %lease.kind, project = %lease.project,
            request_id = %operation.request_id, generation = lease.generation);
        let ended = self
            .holding(&lease, Box::pin(self.run_steps(&lease, operation)))
            .instrument(span.clone())
            .await;
        if let Err(error) = ended {
            let _entered = span.enter();
            match error {
                DomainError::LeaseLost => tracing::info!("the lease is lost; letting go"),
                other => {
                    tracing::warn!(error = %other, "the operation's state could not be recorded; its lease will end");
                }
            }
        }
        // After a cancellation somebody may be waiting for us to stop.
        if let Err(error) = self.control_plane().let_go(&lease).await {
            tracing::debug!(operation = %id, %error, "could not say that the lease is let go");
        }
    }

    async fn run_steps(&self, lease: &Lease, mut operation: Operation) -> Result<(), DomainError> {
        loop {
            let Some(step) = find_step(lease.kind, &operation.step) else {
                // A newer release put it there, during a rolling upgrade: one of its workers comes by.
                tracing::warn!(
                    step = operation.step,
                    "this release does not know the step; leaving it to another worker"
                );
                let later = self.control_plane().clock().now() + TimeDelta::seconds(5);
                return self
                    .control_plane()
                    .suspend_operation(lease, operation.wakes, later)
                    .await;
            };
            let started = Instant::now();
            let work = self.control_plane().load_work(lease).await?;
            let context = StepContext::new(self, lease, &operation, &work, step);
            context.reach(CrashPoint::BeforeEffect).await;
            let limit = self.time_for(step);
            let result = tokio::time::timeout(limit, Box::pin(dispatch(&context))).await;
            context.after_effect().await;
            metrics::histogram!("operation_step_duration_seconds", "kind" => lease.kind.as_str(), "step" => step)
                .record(started.elapsed().as_secs_f64());
            let outcome = match result {
                Ok(Ok(outcome) | Err(StepError::Failed(outcome))) => outcome,
                Err(_elapsed) => Outcome::Retry(Failure::new(
                    "step_timeout",
                    format!("step {step} did not end in time"),
                )),
                Ok(Err(StepError::LeaseLost)) => return Err(DomainError::LeaseLost),
            };
            let outcome = match lease.kind {
                OperationKind::ResetBranch | OperationKind::RestoreBackup => {
                    replace_database::or_back(&context, outcome)
                }
                _ => outcome,
            };
            tracing::debug!(step, ?outcome, "step ran");
            let next = self.record(lease, &operation, outcome).await?;
            context.reach(CrashPoint::AfterRecord).await;
            match next {
                Some((step, data)) => {
                    step.clone_into(&mut operation.step);
                    operation.data = data;
                    operation.attempts = 0;
                }
                None => return Ok(()),
            }
        }
    }

    /// How long one run of the step may take: as long as the database is big, where one is copied.
    fn time_for(&self, step: &str) -> Duration {
        match step {
            "copy_parent" | "restore_copy" | "copy_database" => self.config().copy_timeout,
            "merge" | "look" | "rebase" => self.config().merge_timeout,
            _ => self.config().step_timeout,
        }
    }

    /// Does the work while its lease is kept alive. Work whose lease is lost is dropped where it
    /// stands.
    async fn holding(
        &self,
        lease: &Lease,
        work: impl Future<Output = Result<(), DomainError>>,
    ) -> Result<(), DomainError> {
        let time = self.config().lease;
        let renewals = async {
            let mut renewed = tokio::time::Instant::now();
            loop {
                tokio::time::sleep(time / 3).await;
                let asked = tokio::time::Instant::now();
                // A database that hangs may have given the lease away: stop before it ends.
                let give_up = renewed + time * 5 / 6;
                let renewal = self.control_plane().renew_lease(lease, time);
                match tokio::time::timeout_at(give_up, renewal).await {
                    Ok(Ok(())) => renewed = asked,
                    Ok(Err(DomainError::LeaseLost)) | Err(_) => return,
                    Ok(Err(_)) if renewed.elapsed() >= time / 2 => return,
                    Ok(Err(_)) => {}
                }
            }
        };
        tokio::select! {
            ended = work => ended,
            () = renewals => Err(DomainError::LeaseLost),
        }
    }

    /// Writes the outcome down. Gives the next step to run at once, if there is one.
    async fn record(
        &self,
        lease: &Lease,
        operation: &Operation,
        outcome: Outcome,
    ) -> Result<Option<(&'static str, serde_json::Value)>, DomainError> {
        let control_plane = self.control_plane();
        let now = control_plane.clock().now();
        match outcome {
            Outcome::Next(step) => {
                control_plane
                    .advance_operation(lease, step, &operation.data)
                    .await?;
                return Ok(Some((step, operation.data.clone())));
            }
            Outcome::NextWith(step, data) => {
                control_plane.advance_operation(lease, step, &data).await?;
                return Ok(Some((step, data)));
            }
            Outcome::Wait(time) => {
                let time = TimeDelta::from_std(time).unwrap_or(TimeDelta::seconds(1));
                control_plane
                    .suspend_operation(lease, operation.wakes, now + time)
                    .await?;
            }
            Outcome::Hold(failure) => {
                let pause = self.config().capacity_pause;
                let pause = TimeDelta::from_std(pause.mul_f64(rand::rng().random_range(1.0..2.0)));
                let next = now + pause.unwrap_or(TimeDelta::minutes(1));
                tracing::info!(code = failure.code, message = failure.message, "step waits");
                control_plane
                    .hold_operation_until(lease, next, &failure)
                    .await?;
            }
            Outcome::Done => {
                let turned_back = operation.turned_back();
                control_plane
                    .finish_operation(lease, turned_back.as_ref())
                    .await?;
                let how = turned_back.map_or("succeeded", |_| "rolled_back");
                self.count_end(lease, operation, how);
            }
            // A delete goes on until nothing is left: machines cost money.
            Outcome::Fail(failure) if lease.kind != OperationKind::Delete => {
                tracing::warn!(
                    code = failure.code,
                    message = loggable(lease.kind, &failure),
                    "operation failed"
                );
                control_plane.fail_operation(lease, &failure).await?;
                self.count_end(lease, operation, "failed");
            }
            Outcome::Fail(failure) | Outcome::Retry(failure) => {
                let attempt = operation.attempts.saturating_add(1);
                if attempt >= operation.max_attempts {
                    tracing::warn!(
                        code = failure.code,
                        message = loggable(lease.kind, &failure),
                        attempt,
                        "operation gave up"
                    );
                    control_plane.fail_operation(lease, &failure).await?;
                    self.count_end(lease, operation, "failed");
                } else {
                    tracing::info!(
                        code = failure.code,
                        message = failure.message,
                        attempt,
                        "step will be tried again"
                    );
                    let pause = with_jitter(
                        backoff(u32::try_from(attempt).unwrap_or(1)).min(LONGEST_BACKOFF),
                    );
                    control_plane
                        .retry_operation_at(lease, now + pause, &failure)
                        .await?;
                }
            }
        }
        Ok(None)
    }

    fn count_end(&self, lease: &Lease, operation: &Operation, outcome: &'static str) {
        let kind = lease.kind.as_str();
        let seconds =
            (self.control_plane().clock().now() - operation.created_at).num_milliseconds();
        metrics::counter!("operations_finished_total", "kind" => kind, "outcome" => outcome)
            .increment(1);
        #[allow(clippy::cast_precision_loss)] // milliseconds of minutes
        metrics::histogram!("operation_duration_seconds", "kind" => kind, "outcome" => outcome)
            .record(seconds as f64 / 1000.0);
    }
}

/// Why a merge failed may quote what people wrote; that is for them, not for our log.
fn loggable(kind: OperationKind, failure: &Failure) -> &str {
    match kind {
        OperationKind::MergeBranch | OperationKind::RebaseBranch => "",
        _ => &failure.message,
    }
}

/// Half to one and a half of the wait, so that what failed together does not return together.
fn with_jitter(wait: Duration) -> TimeDelta {
    let wait = wait.mul_f64(rand::rng().random_range(0.5..1.5));
    TimeDelta::from_std(wait).unwrap_or(TimeDelta::seconds(1))
}

fn find_step(kind: OperationKind, name: &str) -> Option<&'static str> {
    all_steps(kind).into_iter().find(|step| *step == name)
}

async fn dispatch(context: &StepContext<'_>) -> StepResult {
    match context.lease.kind {
        OperationKind::Provision | OperationKind::Rebuild => provision_project::run(context).await,
        OperationKind::Pause => pause_project::run(context).await,
        OperationKind::Restore => restore_project::run(context).await,
        OperationKind::Restart => restart_project::run(context).await,
        OperationKind::Upgrade => upgrade_project::run(context).await,
        OperationKind::Delete => delete_project::run(context).await,
        OperationKind::CreateBranch => create_branch::run(context).await,
        OperationKind::ResetBranch | OperationKind::RestoreBackup => {
            replace_database::run(context).await
        }
        OperationKind::MergeBranch => merge_branch::run(context).await,
        OperationKind::RebaseBranch => rebase_branch::run(context).await,
        OperationKind::Backup => back_up_project::run(context).await,
    }
}

/// Every step of every kind, in order, for the crash enumeration.
pub fn all_steps(kind: OperationKind) -> Vec<&'static str> {
    fn names<S: Copy>(all: &[S], name: impl Fn(S) -> &'static str) -> Vec<&'static str> {
        all.iter().map(|s| name(*s)).collect()
    }
    match kind {
        OperationKind::Provision | OperationKind::Rebuild => names(
            provision_project::Step::ALL,
            provision_project::Step::as_str,
        ),
        OperationKind::Pause => names(pause_project::Step::ALL, pause_project::Step::as_str),
        OperationKind::Restore => names(restore_project::Step::ALL, restore_project::Step::as_str),
        OperationKind::Restart => names(restart_project::Step::ALL, restart_project::Step::as_str),
        OperationKind::Upgrade => names(upgrade_project::Step::ALL, upgrade_project::Step::as_str),
        OperationKind::Delete => names(delete_project::Step::ALL, delete_project::Step::as_str),
        OperationKind::CreateBranch => names(create_branch::Step::ALL, create_branch::Step::as_str),
        OperationKind::ResetBranch | OperationKind::RestoreBackup => {
            names(replace_database::Step::ALL, replace_database::Step::as_str)
        }
        OperationKind::Backup => names(back_up_project::Step::ALL, back_up_project::Step::as_str),
        OperationKind::MergeBranch => names(merge_branch::Step::ALL, merge_branch::Step::as_str),
        OperationKind::RebaseBranch => names(rebase_branch::Step::ALL, rebase_branch::Step::as_str),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_begins_with_its_first_step() {
        for kind in OperationKind::ALL {
            assert_eq!(
                all_steps(*kind).first().copied(),
                Some(kind.first_step()),
                "{kind}"
            );
            assert!(
                all_steps(*kind)
                    .iter()
                    .all(|step| find_step(*kind, step) == Some(*step))
            );
        }
    }

    #[test]
    fn jitter_stays_within_half_of_the_wait() {
        for _ in 0..1000 {
            let wait = with_jitter(Duration::from_secs(10));
            assert!(
                (TimeDelta::seconds(5)..TimeDelta::seconds(15)).contains(&wait),
                "{wait}"
            );
        }
    }
}
