//! What the provider says about machines and disks that nobody asked it for: machines that should not
//! stay where they are are moved, and disks that nobody needs are deleted. As the reconcilers: any
//! number of times, region by region, and nothing while a project has an operation in flight.

use std::collections::HashMap;
use std::time::Instant;

use chrono::TimeDelta;
use cp_model::agent_protocol::ObservedState;
use cp_model::{Machine, MachineId, MachineState, Region};
use cp_provider::{Ailment, Leftover, Power};
use tokio_util::sync::CancellationToken;

use crate::Worker;
use crate::jobs::{Ticks, log_failure};
use crate::launch::MachineError;
use crate::reconcile::count_mended;

/// Moves of a region in one round: when a zone fails, all are impaired, and moving all helps nobody.
const MOST_MOVES: usize = 2;

/// What one round hands to the next.
struct Rounds {
    region: Region,
    /// Since when each machine, by the provider's name for it, ails.
    ailing: HashMap<String, Instant>,
    /// Since when each disk was seen without a machine.
    leftovers: HashMap<String, Instant>,
}

pub(crate) async fn mend_machines(worker: Worker, region: Region, shutdown: CancellationToken) {
    let mut rounds = Rounds {
        region,
        ailing: HashMap::new(),
        leftovers: HashMap::new(),
    };
    let mut ticks = Ticks::every(worker.config().health_every, shutdown);
    while ticks.next().await {
        if worker.doubts().has(region) {
            continue;
        }
        log_failure("move_ailing", worker.move_ailing(&mut rounds).await);
        log_failure(
            "delete_leftovers",
            worker.delete_leftovers(&mut rounds).await,
        );
    }
}

impl Worker {
    async fn move_ailing(&self, rounds: &mut Rounds) -> Result<(), MachineError> {
        let ailing = self.compute().ailing(rounds.region).await?;
        let still = |name: &String| ailing.iter().any(|it| it.provider_ref == *name);
        rounds.ailing.retain(|name, _| still(name));
        if ailing.is_empty() {
            return Ok(());
        }
        let rows = self
            .control_plane()
            .list_living_machines(self.compute().name(), rounds.region)
            .await?;
        let rows: HashMap<&str, MachineId> = rows
            .iter()
            .filter_map(|row| Some((row.provider_ref.as_deref()?, row.id)))
            .collect();
        let mut moved = 0;
        for it in &ailing {
            let since = *rounds
                .ailing
                .entry(it.provider_ref.clone())
                .or_insert_with(Instant::now);
            let is_due = match it.ailment {
                Ailment::Impaired => since.elapsed() >= self.config().impaired_grace,
                Ailment::Retiring => true,
            };
            let Some(id) = rows.get(it.provider_ref.as_str()).filter(|_| is_due) else {
                continue;
            };
            match self.move_machine(*id, it.ailment).await {
                Ok(true) => moved += 1,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(machine = %id, %error, "an ailing machine could not be moved; the next round tries again");
                }
            }
            if moved == MOST_MOVES {
                break;
            }
        }
        Ok(())
    }

    /// Stops the machine of a project; `reconcile` finds it stopped and starts it, elsewhere. One of
    /// the pool is replaced. False: not now.
    async fn move_machine(&self, id: MachineId, ailment: Ailment) -> Result<bool, MachineError> {
        let control_plane = self.control_plane();
        let Some(row) = &control_plane.find_unattended_machine(id).await? else {
            return Ok(false);
        };
        if row.state != MachineState::Ready {
            return Ok(false);
        }
        // AWS's look into the machine fails for what its owner does with it, too: what serves stays.
        let serves = row.observed_state == Some(ObservedState::Serving) && self.heard_lately(row);
        if ailment == Ailment::Impaired && serves {
            return Ok(false);
        }
        if row.project_id.is_none() {
            return self.replace(row, ailment).await;
        }
        let Some(found) = self
            .find(row)
            .await?
            .filter(|it| it.power == Power::Running)
        else {
            return Ok(false);
        };
        // Somebody moved it a moment ago, and the provider has not taken note.
        let rest = TimeDelta::from_std(self.config().impaired_grace * 3).unwrap_or(TimeDelta::MAX);
        if control_plane.clock().now() - found.launched_at < rest {
            return Ok(false);
        }
        tracing::warn!(machine = %id, ?ailment, "a machine cannot stay where it is; stopping it, to start it elsewhere");
        control_plane.audit_machine(id, "machine.moved").await?;
        self.compute().stop(found.at()).await?;
        count_mended("moved");
        Ok(true)
    }

    async fn replace(&self, row: &Machine, ailment: Ailment) -> Result<bool, MachineError> {
        if self.config().spare_orphans {
            return Ok(false);
        }
        let control_plane = self.control_plane();
        let replaced = control_plane
            .mark_machine(row, MachineState::Terminating)
            .await?;
        if replaced {
            tracing::warn!(machine = %row.id, ?ailment, "a warm machine cannot stay where it is; replacing it");
            count_mended("replaced");
        }
        Ok(replaced)
    }

    async fn delete_leftovers(&self, rounds: &mut Rounds) -> Result<(), MachineError> {
        // The provider first: a row is written before its launch makes a disk.
        let leftovers = self.compute().leftovers(rounds.region).await?;
        let still = |name: &String| leftovers.iter().any(|it| it.provider_ref == *name);
        rounds.leftovers.retain(|name, _| still(name));
        for leftover in &leftovers {
            let since = *rounds
                .leftovers
                .entry(leftover.provider_ref.clone())
                .or_insert_with(Instant::now);
            if since.elapsed() < self.config().orphan_grace {
                continue;
            }
            if let Err(error) = self.delete_leftover(rounds.region, leftover).await {
                tracing::warn!(disk = leftover.provider_ref, %error, "a disk that nobody needs could not be deleted; the next round tries again");
            }
        }
        Ok(())
    }

    async fn delete_leftover(
        &self,
        region: Region,
        leftover: &Leftover,
    ) -> Result<(), MachineError> {
        let (id, disk) = (leftover.machine_id, &leftover.provider_ref);
        let row = self.control_plane().find_machine(id).await?;
        // A lost machine's disk may be all that is left of somebody's data, and an operator may have
        // taken a disk off to save it.
        if row.is_some_and(|row| row.state.may_exist()) {
            return Ok(());
        }
        if self.config().spare_orphans {
            tracing::warn!(machine = %id, disk, "a disk is left of a machine that no row names; it is spared (worker.orphans)");
            count_mended("disk_spared");
            return Ok(());
        }
        tracing::warn!(machine = %id, disk, "deleting the disk of a machine that is no more");
        self.compute().delete_leftover(region, leftover).await?;
        self.control_plane()
            .audit_machine(id, "machine.disk_deleted")
            .await?;
        count_mended("disk_deleted");
        Ok(())
    }
}
