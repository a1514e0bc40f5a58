//! Operations: the worker's side (lease, step, wait, end; every write under the lease) and the
//! operators' side (list, show, retry, cancel).
//!
//! Every transaction that locks several rows locks them in one order: project, operation,
//! machine. Requests begin at the project and workers at the operation; without the order they
//! would deadlock.

use std::time::Duration;

use chrono::{DateTime, Utc};
use cp_model::{
    Failure, Machine, MachineState, Operation, OperationId, OperationKind, OperationState, Project,
    ProjectId, ProjectStatus,
};
use cp_storage::operations::QueueDepth;
use cp_storage::{
    PgConnection, StorageError, Transaction, backups, branches, machine_runs, machines, metrics,
    operations, project_secrets, projects, sites, wakeups,
};
use serde_json::{Value, json};

use crate::branches::{BranchEnd, RESET_FAILED};
use crate::{ControlPlane, DomainError, DomainResult, Thing};

/// The failure code of a machine that is gone with its disk.
pub const MACHINE_LOST: &str = "machine_lost";

/// The failure code of a provider that has no room, or an account that may have no more.
pub const NO_CAPACITY: &str = "no_capacity";

/// The right to write for an operation, until somebody else has it.
#[derive(Debug, Clone)]
pub struct Lease {
    pub operation: OperationId,
    pub project: ProjectId,
    pub kind: OperationKind,
    pub generation: i64,
    pub owner: String,
}

/// What a step works with, read under the lease.
#[derive(Debug, Clone)]
pub struct Work {
    pub project: Project,
    pub machine: Option<Machine>,
}

impl ControlPlane {
    /// Leases the operation if it is due and free. None: nothing to do.
    pub async fn lease_operation(
        &self,
        id: OperationId,
        owner: &str,
        lease: Duration,
    ) -> DomainResult<Option<(Lease, Operation)>> {
        let mut conn = self.db().acquire().await?;
        let leased =
            operations::lease(&mut conn, id, owner, lease.as_secs_f64(), self.now()).await?;
        Ok(leased.map(|operation| {
            let lease = Lease {
                operation: id,
                project: operation.project_id,
                kind: operation.kind,
                generation: operation.generation,
                owner: owner.to_owned(),
            };
            (lease, operation)
        }))
    }

    /// Keeps the lease alive.
    pub async fn renew_lease(&self, lease: &Lease, time: Duration) -> DomainResult<()> {
        let mut conn = self.db().acquire().await?;
        held(
            operations::renew_lease(
                &mut conn,
                lease.operation,
                lease.generation,
                time.as_secs_f64(),
            )
            .await?,
        )
    }

    /// A worker that lost its lease says that it has stopped, so that nobody waits for its end.
    pub async fn let_go(&self, lease: &Lease) -> DomainResult<()> {
        let mut conn = self.db().acquire().await?;
        Ok(operations::clear_lease(&mut conn, lease.operation, &lease.owner).await?)
    }

    /// The project and its machine.
    pub async fn load_work(&self, lease: &Lease) -> DomainResult<Work> {
        let mut conn = self.db().acquire().await?;
        let project = projects::find_project(&mut conn, lease.project)
            .await?
            .ok_or_else(|| {
                DomainError::internal(format!("operation {} has no project", lease.operation))
            })?;
        let machine = machines::find_project_machine(&mut conn, lease.project).await?;
        Ok(Work { project, machine })
    }

    /// A transaction that commits only while the lease holds: project and operation are locked
    /// until then.
    pub(crate) async fn begin_under(&self, lease: &Lease) -> DomainResult<Transaction> {
        let mut tx = self.db().begin().await?;
        lock(&mut tx, lease.project).await?;
        held(operations::lock_lease(&mut tx, lease.operation, lease.generation).await?)?;
        Ok(tx)
    }

    pub async fn advance_operation(
        &self,
        lease: &Lease,
        step: &str,
        data: &Value,
    ) -> DomainResult<()> {
        let mut tx = self.db().begin().await?;
        held(operations::mark_step(&mut tx, lease.operation, lease.generation, step, data).await?)?;
        operations::notify_project(&mut tx, lease.project).await?;
        commit(tx).await
    }

    /// How far a step is: shown with the operation until the step ends.
    pub async fn note_progress(&self, lease: &Lease, bytes: u64) -> DomainResult<()> {
        let mut conn = self.db().acquire().await?;
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let (id, generation) = (lease.operation, lease.generation);
        held(operations::set_progress(&mut conn, id, generation, bytes).await?)
    }

    /// Keeps what the step in hand needs if it is run again.
    pub async fn keep_data(&self, lease: &Lease, data: &Value) -> DomainResult<()> {
        let mut conn = self.db().acquire().await?;
        let (id, generation) = (lease.operation, lease.generation);
        held(operations::set_data(&mut conn, id, generation, data).await?)
    }

    /// Sleeps until `until` or until the operation is woken, whichever is sooner.
    pub async fn suspend_operation(
        &self,
        lease: &Lease,
        wakes_seen: i64,
        until: DateTime<Utc>,
    ) -> DomainResult<()> {
        let now = self.now();
        let mut tx = self.db().begin().await?;
        let next = operations::mark_waiting(
            &mut tx,
            lease.operation,
            lease.generation,
            wakes_seen,
            until,
            now,
        )
        .await?
        .ok_or(DomainError::LeaseLost)?;
        if next <= now {
            wakeups::push(&mut tx, lease.operation).await?;
        }
        commit(tx).await
    }

    pub async fn retry_operation_at(
        &self,
        lease: &Lease,
        next: DateTime<Utc>,
        error: &Failure,
    ) -> DomainResult<()> {
        let mut conn = self.db().acquire().await?;
        let (id, generation) = (lease.operation, lease.generation);
        held(operations::mark_retrying(&mut conn, id, generation, next, error, true).await?)
    }

    /// As [`Self::retry_operation_at`], for what no number of attempts speaks against: the reason is
    /// told, and only the deadline ends it.
    pub async fn hold_operation_until(
        &self,
        lease: &Lease,
        next: DateTime<Utc>,
        reason: &Failure,
    ) -> DomainResult<()> {
        let mut conn = self.db().acquire().await?;
        let (id, generation) = (lease.operation, lease.generation);
        held(operations::mark_retrying(&mut conn, id, generation, next, reason, false).await?)
    }

    /// Ends the operation: the project reaches its final status in the same transaction. One that
    /// turned back has failed with that reason, although the project is well.
    pub async fn finish_operation(
        &self,
        lease: &Lease,
        turned_back: Option<&Failure>,
    ) -> DomainResult<()> {
        let now = self.now();
        let mut tx = self.begin_under(lease).await?;
        let project = lock(&mut tx, lease.project).await?;
        let branch_end = match turned_back {
            None => BranchEnd::Succeeded,
            Some(failure) if failure.code == RESET_FAILED => BranchEnd::PutBack,
            Some(_) => BranchEnd::TurnedBack,
        };
        if !self
            .settle_elsewhere(&mut tx, &project, lease.kind, branch_end)
            .await?
        {
            self.enter(&mut tx, &project, lease.kind.final_status())
                .await?;
        }
        if lease.kind == OperationKind::Delete {
            project_secrets::delete_secrets(&mut tx, project.id).await?;
            sites::delete_site(&mut tx, project.id).await?;
            backups::delete_backups_of(&mut tx, project.id).await?;
            metrics::delete_metrics(&mut tx, project.id).await?;
        }
        let (end, how) = match turned_back {
            None => (OperationState::Succeeded, "succeeded"),
            Some(_) => (OperationState::Failed, "rolled_back"),
        };
        held(
            operations::mark_finished(
                &mut tx,
                lease.operation,
                lease.generation,
                end,
                turned_back,
                now,
            )
            .await?,
        )?;
        let action = format!("{}.{how}", lease.kind);
        let details = turned_back.map_or(json!({}), |failure| json!({ "code": failure.code }));
        self.audit_operation(
            &mut tx,
            "system",
            &action,
            lease.operation,
            &project,
            details,
        )
        .await?;
        commit(tx).await
    }

    /// Ends the operation badly: the project is `failed`, with the reason. A delete never gets
    /// here: it is tried until it is done.
    pub async fn fail_operation(&self, lease: &Lease, failure: &Failure) -> DomainResult<()> {
        let now = self.now();
        let mut tx = self.begin_under(lease).await?;
        let project = lock(&mut tx, lease.project).await?;
        let done = OperationState::Failed;
        held(
            operations::mark_finished(
                &mut tx,
                lease.operation,
                lease.generation,
                done,
                Some(failure),
                now,
            )
            .await?,
        )?;
        self.settle_failed(&mut tx, &project, lease.kind, failure)
            .await?;
        let action = format!("{}.failed", lease.kind);
        let details = json!({ "code": failure.code });
        self.audit_operation(
            &mut tx,
            "system",
            &action,
            lease.operation,
            &project,
            details,
        )
        .await?;
        commit(tx).await
    }

    /// What an operation that has failed leaves behind: a failed project, unless its branch has it
    /// otherwise.
    async fn settle_failed(
        &self,
        conn: &mut PgConnection,
        project: &Project,
        kind: OperationKind,
        failure: &Failure,
    ) -> DomainResult<()> {
        let end = BranchEnd::Failed;
        let is_settled = self.settle_elsewhere(conn, project, kind, end).await?;
        // Whatever is left of a branch whose machine is gone, it does not serve.
        let is_gone = failure.code == MACHINE_LOST && kind != OperationKind::CreateBranch;
        if is_settled && !is_gone {
            return Ok(());
        }
        self.fail_project(conn, project, failure).await
    }

    /// Whether the end of an operation leaves the project's status to others: to what becomes of its branch, or, after a
    /// backup, to what it is.
    async fn settle_elsewhere(
        &self,
        conn: &mut PgConnection,
        project: &Project,
        kind: OperationKind,
        end: BranchEnd,
    ) -> DomainResult<bool> {
        if kind == OperationKind::Backup {
            // Somebody waits for the end.
            operations::notify_project(conn, project.id).await?;
            return Ok(true);
        }
        self.settle_branch(conn, project, kind, end).await
    }

    async fn fail_project(
        &self,
        conn: &mut PgConnection,
        project: &Project,
        failure: &Failure,
    ) -> DomainResult<()> {
        let to = ProjectStatus::Failed;
        if !projects::mark_status(
            conn,
            project.id,
            project.status,
            to,
            Some(failure),
            self.now(),
        )
        .await?
        {
            return Err(DomainError::internal(format!(
                "project {} changed under its lock",
                project.id
            )));
        }
        self.tell_status(conn, project, to, Some(failure)).await
    }

    /// How long a worker of a cancelled operation may still be at work on the project.
    pub async fn predecessor_lease(&self, lease: &Lease) -> DomainResult<Option<Duration>> {
        let mut conn = self.db().acquire().await?;
        let seconds = operations::find_lease_of_cancelled(&mut conn, lease.project).await?;
        Ok(seconds.map(|s| Duration::from_secs_f64(s.max(0.0))))
    }

    /// Sends wake-ups for operations that are due and lack one. Gives how many.
    pub async fn wake_due_operations(&self) -> DomainResult<u64> {
        let mut conn = self.db().acquire().await?;
        Ok(wakeups::push_due(&mut conn, self.now()).await?)
    }

    /// Fails operations whose deadline has passed. Gives how many.
    pub async fn fail_expired_operations(&self) -> DomainResult<usize> {
        let mut conn = self.db().acquire().await?;
        let expired = operations::list_expired(&mut conn, self.now(), 100).await?;
        drop(conn);
        let mut failed = 0;
        for operation in expired {
            let failure = out_of_time(&operation);
            let mut tx = self.db().begin().await?;
            let project = lock(&mut tx, operation.project_id).await?;
            if operations::mark_expired(&mut tx, operation.id, &failure, self.now()).await? {
                self.settle_failed(&mut tx, &project, operation.kind, &failure)
                    .await?;
                let action = format!("{}.failed", operation.kind);
                let details = json!({ "code": failure.code });
                self.audit_operation(&mut tx, "system", &action, operation.id, &project, details)
                    .await?;
                commit(tx).await?;
                failed += 1;
            }
        }
        Ok(failed)
    }

    pub async fn queue_depth(&self) -> DomainResult<QueueDepth> {
        let mut conn = self.db().acquire().await?;
        Ok(operations::queue_depth(&mut conn, self.now()).await?)
    }

    pub async fn list_operations(
        &self,
        project: Option<ProjectId>,
        state: Option<OperationState>,
        limit: u32,
    ) -> DomainResult<Vec<Operation>> {
        let mut conn = self.db().acquire().await?;
        Ok(operations::list_operations(&mut conn, project, state, i64::from(limit)).await?)
    }

    pub async fn show_operation(&self, id: OperationId) -> DomainResult<Operation> {
        let mut conn = self.db().acquire().await?;
        operations::find_operation(&mut conn, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::Operation))
    }

    /// Takes a failed operation up again from its first step; begins a cancelled one anew. A project whose machine is gone can
    /// only be given a new, empty one, and only when the operator accepts that its data is lost.
    pub async fn retry_operation(
        &self,
        id: OperationId,
        accept_data_loss: bool,
    ) -> DomainResult<Operation> {
        let now = self.now();
        let mut tx = self.db().begin().await?;
        let operation = operations::find_operation(&mut tx, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::Operation))?;
        let project = lock(&mut tx, operation.project_id).await?;
        let state = operation.state;
        if !matches!(state, OperationState::Failed | OperationState::Cancelled) {
            return Err(DomainError::Conflict(format!(
                "operation {id} is {state}; only failed and cancelled ones can be retried"
            )));
        }
        if project.status != ProjectStatus::Failed {
            let status = project.status;
            return Err(DomainError::Conflict(format!(
                "project {} is {status}, so there is nothing to mend",
                project.id
            )));
        }
        // An older one would forget what was learned since, such as that the machine is gone.
        let newest = operations::list_operations(&mut tx, Some(project.id), None, 1).await?;
        if let Some(newest) = newest.first().filter(|newest| newest.id != id) {
            return Err(DomainError::Conflict(format!(
                "project {} has a newer operation; retry {} instead",
                project.id, newest.id
            )));
        }
        // A worker that has not heard of the cancellation may be in the middle of a launch.
        if let Some(left) = operations::find_lease_of_cancelled(&mut tx, project.id).await? {
            return Err(DomainError::Conflict(format!(
                "the worker of operation {id} has not let go of it yet; try again in {} s",
                left.ceil().max(1.0)
            )));
        }
        let lost = operation
            .error
            .as_ref()
            .is_some_and(|e| e.code == MACHINE_LOST);
        let machine = machines::find_project_machine(&mut tx, project.id).await?;
        let came_back = lost && machine.is_some_and(|m| m.state != MachineState::Lost);
        // A branch whose reset did not end has nothing that could serve, nor has a project whose restore did not.
        let half_reset = branches::find_branch(&mut tx, project.id)
            .await?
            .is_some_and(|branch| !branch.serves);
        let half_restored = !projects::find_serves(&mut tx, project.id).await?;
        // A project that was never active has no data to lose.
        let data_lost = lost && !came_back && operation.kind != OperationKind::Provision;
        let rebuilds = data_lost || (operation.kind == OperationKind::Rebuild && !came_back);
        if rebuilds && project.parent_id.is_some() {
            // An empty backend would be no branch, and its base would no longer fit it.
            return Err(DomainError::Conflict(format!(
                "project {} is a branch, and its machine is gone with its disk; delete the branch and make another one",
                project.id
            )));
        }
        // What was cancelled stays so; another one of its kind is begun.
        let begins_anew = data_lost
            || came_back
            || operation.kind == OperationKind::Rebuild
            || state == OperationState::Cancelled;
        let retried = if begins_anew {
            if data_lost && !accept_data_loss {
                let latest = backups::find_latest(&mut tx, project.id).await?;
                let kept = latest.map_or_else(
                    || "there is no backup of it".to_owned(),
                    |latest| {
                        let at = latest.created_at.format("%Y-%m-%d %H:%M UTC");
                        format!("its newest backup, of {at}, can be restored afterwards")
                    },
                );
                return Err(DomainError::Conflict(format!(
                    "the machine of project {} is gone with its disk, and {kept}. To give the \
                     project a new, empty backend under the same keys, run: operation retry {id} --accept-data-loss",
                    project.id
                )));
            }
            let kind = match operation.kind {
                _ if data_lost => OperationKind::Rebuild,
                OperationKind::Provision => OperationKind::Provision,
                _ if came_back && half_restored => OperationKind::RestoreBackup,
                _ if came_back && half_reset => OperationKind::ResetBranch,
                // The machine was only out of sight.
                _ if came_back => OperationKind::Restore,
                kind => kind,
            };
            if kind == OperationKind::Rebuild {
                projects::set_serves(&mut tx, project.id, true).await?;
            }
            self.reenter(&mut tx, &project, kind).await?;
            // Another one of the same kind has the same to do.
            let mut data = if kind == operation.kind {
                operation.data.clone()
            } else if kind == OperationKind::RestoreBackup {
                self.data_of_restore(&mut tx, project.id).await?
            } else {
                json!({})
            };
            data["retries"] = json!(id.to_string());
            self.begin_operation(&mut tx, project.id, kind, "operator", "-", data)
                .await?
        } else {
            self.reenter(&mut tx, &project, operation.kind).await?;
            let deadline = operation.kind.deadline().map(|d| now + d);
            // Every step looks at what is there before it acts, so the first is always right.
            operations::mark_retried(&mut tx, id, operation.kind.first_step(), deadline, now)
                .await?;
            wakeups::push(&mut tx, id).await?;
            id
        };
        let details = json!({ "accept_data_loss": accept_data_loss });
        self.audit_operation(
            &mut tx,
            "operator",
            "operation.retried",
            id,
            &project,
            details,
        )
        .await?;
        let operation = operations::find_operation(&mut tx, retried)
            .await?
            .ok_or(DomainError::NotFound(Thing::Operation))?;
        commit(tx).await?;
        Ok(operation)
    }

    /// What the restore knew that left the project half restored.
    async fn data_of_restore(
        &self,
        conn: &mut PgConnection,
        project: ProjectId,
    ) -> DomainResult<Value> {
        let newest = operations::list_operations(conn, Some(project), None, 100).await?;
        let mut restores = newest
            .into_iter()
            .filter(|o| o.kind == OperationKind::RestoreBackup);
        Ok(restores.next().map_or(json!({}), |restore| restore.data))
    }

    /// The project, and the branch that it may be, are at work again.
    async fn reenter(
        &self,
        conn: &mut PgConnection,
        project: &Project,
        kind: OperationKind,
    ) -> DomainResult<()> {
        if let Some(status) = kind.transitional_status() {
            self.enter(conn, project, status).await?;
        }
        self.resume_branch(conn, project.id, kind).await
    }

    /// Stops an operation in flight. Its project is `failed` until the operation (or another) is
    /// retried or the project deleted. A delete cannot be cancelled: access has ended already.
    pub async fn cancel_operation(&self, id: OperationId) -> DomainResult<Operation> {
        let mut tx = self.db().begin().await?;
        let operation = operations::find_operation(&mut tx, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::Operation))?;
        if operation.kind == OperationKind::Delete {
            return Err(DomainError::Conflict(
                "a delete cannot be cancelled; it goes on until nothing is left".into(),
            ));
        }
        let project = lock(&mut tx, operation.project_id).await?;
        let failure = Failure::new("operation_cancelled", "an operator cancelled the operation");
        if !operations::mark_cancelled(&mut tx, id, &failure, self.now()).await? {
            return Err(DomainError::Conflict(format!(
                "operation {id} is {} already",
                operation.state
            )));
        }
        self.settle_failed(&mut tx, &project, operation.kind, &failure)
            .await?;
        self.audit_operation(
            &mut tx,
            "operator",
            "operation.cancelled",
            id,
            &project,
            json!({}),
        )
        .await?;
        let operation = operations::find_operation(&mut tx, id)
            .await?
            .ok_or(DomainError::NotFound(Thing::Operation))?;
        commit(tx).await?;
        Ok(operation)
    }

    pub(crate) async fn audit_operation(
        &self,
        conn: &mut PgConnection,
        actor: &str,
        action: &str,
        operation: OperationId,
        project: &Project,
        mut details: Value,
    ) -> DomainResult<()> {
        details["operation"] = json!(operation.to_string());
        let target = project.id.to_string();
        Ok(self
            .audit_service(
                conn,
                actor,
                action,
                ("project", &target),
                Some(project),
                details,
            )
            .await?)
    }

    /// The reconciler found that a project's machine is gone: the project fails with the reason,
    /// and a failed operation is left for an operator to retry. Nothing happens while an operation
    /// is in flight; its own steps find out.
    pub async fn fail_project_of_lost_machine(&self, machine: &Machine) -> DomainResult<bool> {
        let Some(project_id) = machine.project_id else {
            return Ok(false);
        };
        let now = self.now();
        let mut tx = self.db().begin().await?;
        let project = lock(&mut tx, project_id).await?;
        let idle = operations::find_in_flight(&mut tx, project_id)
            .await?
            .is_none();
        if !idle || !project.status.is_live() {
            return Ok(false);
        }
        let (lost, seen) = (MachineState::Lost, machine.project_id);
        if !machines::mark_state_if_as_seen(&mut tx, machine.id, machine.state, seen, lost, now)
            .await?
        {
            return Ok(false);
        }
        machine_runs::close_run(&mut tx, machine.id, machine.last_seen_at.unwrap_or(now)).await?;
        let failure = machine_lost();
        if project.status != ProjectStatus::Failed {
            self.fail_project(&mut tx, &project, &failure).await?;
        }
        let kind = OperationKind::Rebuild;
        let new = operations::NewOperation {
            id: OperationId::generate(),
            project_id,
            kind,
            first_step: kind.first_step(),
            data: json!({}),
            requested_by: "system",
            request_id: "-",
            now,
        };
        operations::insert_failed_operation(&mut tx, &new, &failure).await?;
        let details = json!({ "machine": machine.id.to_string() });
        self.audit_operation(&mut tx, "system", "machine.lost", new.id, &project, details)
            .await?;
        commit(tx).await?;
        Ok(true)
    }
}

/// Why an operation fails whose deadline has passed.
fn out_of_time(operation: &Operation) -> Failure {
    let last = match &operation.error {
        // It is this that it waited for.
        Some(error) if error.code == NO_CAPACITY => return error.clone(),
        Some(error) => format!("; the last error was: {}", error.message),
        None => String::new(),
    };
    let (kind, step) = (operation.kind, &operation.step);
    let text = format!("{kind} did not end in time, in step {step}{last}");
    Failure::new("deadline_exceeded", text)
}

/// Why a project without its machine cannot go on.
pub fn machine_lost() -> Failure {
    Failure::new(
        MACHINE_LOST,
        "the project's machine is gone, and its disk with it",
    )
}

pub(crate) fn held(row_changed: bool) -> DomainResult<()> {
    if row_changed {
        Ok(())
    } else {
        Err(DomainError::LeaseLost)
    }
}

pub(crate) async fn commit(tx: Transaction) -> DomainResult<()> {
    Ok(tx.commit().await.map_err(StorageError::from)?)
}

pub(crate) async fn lock(conn: &mut PgConnection, id: ProjectId) -> DomainResult<Project> {
    projects::lock_project(conn, id)
        .await?
        .ok_or(DomainError::NotFound(Thing::Project))
}
