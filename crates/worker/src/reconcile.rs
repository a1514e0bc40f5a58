//! Compares what the provider has with what the database says, and moves the one or the other.
//! Takes no input and may run anywhere, any number of times. A project with an operation in flight
//! is left to that operation's own steps.

use std::collections::HashMap;
use std::time::Instant;

use chrono::TimeDelta;
use cp_domain::DomainError;
use cp_model::{Machine, MachineId, MachineState};
use cp_provider::{Machine as Found, Power, ProviderError};
use tokio_util::sync::CancellationToken;

use crate::Worker;
use crate::jobs::{Ticks, log_failure};

#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error(transparent)]
    Domain(#[from] DomainError),
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

pub(crate) async fn reconcile_machines(worker: Worker, shutdown: CancellationToken) {
    let mut orphans = HashMap::new();
    let mut ticks = Ticks::every(worker.config().reconcile_every, shutdown);
    while ticks.next().await {
        log_failure(
            "reconcile_machines",
            worker.reconcile_once(&mut orphans).await,
        );
    }
}

impl Worker {
    async fn reconcile_once(
        &self,
        orphans: &mut HashMap<MachineId, Instant>,
    ) -> Result<(), ReconcileError> {
        // The provider first: a row is written before its launch, so whatever is in this list has
        // its row by the time the rows are read.
        let found = self.compute().list().await?;
        let rows = self
            .control_plane()
            .list_living_machines(self.compute().name())
            .await?;
        let by_id: HashMap<MachineId, &Found> = found.iter().map(|m| (m.machine_id, m)).collect();
        for row in &rows {
            if let Err(error) = self
                .reconcile_machine(row, by_id.get(&row.id).copied())
                .await
            {
                tracing::warn!(machine = %row.id, %error, "a machine could not be reconciled; the next round tries again");
            }
        }
        let known: std::collections::HashSet<MachineId> = rows.iter().map(|r| r.id).collect();
        orphans.retain(|id, _| by_id.contains_key(id) && !known.contains(id));
        for machine in found.iter().filter(|m| !known.contains(&m.machine_id)) {
            let since = *orphans
                .entry(machine.machine_id)
                .or_insert_with(Instant::now);
            if since.elapsed() >= self.config().orphan_grace {
                tracing::warn!(machine = %machine.machine_id, "terminating a machine that no row names");
                self.compute()
                    .terminate(machine.machine_id, &machine.provider_ref)
                    .await?;
                self.control_plane()
                    .audit_machine(machine.machine_id, "machine.orphan_terminated")
                    .await?;
                metrics::counter!("machines_reconciled_total", "action" => "orphan_terminated")
                    .increment(1);
            }
        }
        Ok(())
    }

    async fn reconcile_machine(
        &self,
        row: &Machine,
        found: Option<&Found>,
    ) -> Result<(), ReconcileError> {
        let control_plane = self.control_plane();
        if control_plane.machine_is_worked_on(row).await? {
            return Ok(());
        }
        let power = found.map(|m| m.power).filter(|p| *p != Power::Terminated);
        match (row.state, power) {
            (MachineState::Launching, _) => self.finish_launch(row).await,
            (MachineState::Booting | MachineState::Ready, None) => self.miss(row).await,
            (MachineState::Booting | MachineState::Ready, Some(Power::Stopped)) => {
                tracing::warn!(machine = %row.id, "a machine that should run has stopped; starting it");
                let reference = found.map(|m| m.provider_ref.as_str()).unwrap_or_default();
                self.compute().start(row.id, reference).await?;
                control_plane
                    .audit_machine(row.id, "machine.started_again")
                    .await?;
                metrics::counter!("machines_reconciled_total", "action" => "started").increment(1);
                Ok(())
            }
            (MachineState::Booting, Some(_)) if self.boots_too_long(row) => {
                tracing::warn!(machine = %row.id, "a warm machine never registered; replacing it");
                control_plane
                    .mark_machine(row.id, MachineState::Terminating)
                    .await?;
                Ok(())
            }
            (MachineState::Booting | MachineState::Ready, Some(_)) => {
                if row.missing_since.is_some() {
                    control_plane.note_missing(row.id, false).await?;
                }
                Ok(())
            }
            (MachineState::Stopped, Some(Power::Running)) => {
                tracing::warn!(machine = %row.id, "the machine of a paused project runs; stopping it");
                let reference = found.map(|m| m.provider_ref.as_str()).unwrap_or_default();
                self.compute().stop(row.id, reference).await?;
                metrics::counter!("machines_reconciled_total", "action" => "stopped").increment(1);
                Ok(())
            }
            (MachineState::Stopped, None) => self.miss(row).await,
            (MachineState::Terminating, Some(_)) => {
                let reference = found.map(|m| m.provider_ref.as_str()).unwrap_or_default();
                self.compute().terminate(row.id, reference).await?;
                Ok(())
            }
            (MachineState::Terminating, None) => {
                control_plane
                    .mark_machine(row.id, MachineState::Terminated)
                    .await?;
                Ok(())
            }
            // A lost machine stays with its failed project until an operator decides; without a
            // project there is nothing to decide.
            (MachineState::Lost, _) if row.project_id.is_none() => {
                control_plane
                    .mark_machine(row.id, MachineState::Terminating)
                    .await?;
                Ok(())
            }
            (MachineState::Stopped | MachineState::Lost | MachineState::Terminated, _) => Ok(()),
        }
    }

    /// A crash between intent and launch left a pool's machine behind.
    async fn finish_launch(&self, row: &Machine) -> Result<(), ReconcileError> {
        let age = self.control_plane().clock().now() - row.created_at;
        if row.project_id.is_none() && age > TimeDelta::seconds(30) {
            match self.launch_warm(row.id).await {
                Ok(()) => {}
                Err(crate::pool::LaunchError::Domain(error)) => return Err(error.into()),
                Err(crate::pool::LaunchError::Provider(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn boots_too_long(&self, row: &Machine) -> bool {
        let age = self.control_plane().clock().now() - row.created_at;
        row.project_id.is_none()
            && age
                .to_std()
                .is_ok_and(|age| age > self.config().boot_deadline)
    }

    /// The provider does not know the machine. After a while it counts as gone.
    async fn miss(&self, row: &Machine) -> Result<(), ReconcileError> {
        let control_plane = self.control_plane();
        let since = row
            .missing_since
            .map(|since| control_plane.clock().now() - since);
        let gone = since
            .and_then(|s| s.to_std().ok())
            .is_some_and(|s| s >= self.config().missing_grace);
        if !gone {
            return Ok(control_plane.note_missing(row.id, true).await?);
        }
        if row.project_id.is_some() {
            if control_plane.fail_project_of_lost_machine(row).await? {
                tracing::error!(machine = %row.id, "the machine of a project is gone");
                metrics::counter!("machines_reconciled_total", "action" => "lost").increment(1);
            }
        } else {
            control_plane
                .mark_machine(row.id, MachineState::Terminating)
                .await?;
        }
        Ok(())
    }
}
