//! Compares what the provider has with what the database says, and moves the one or the other.
//! Takes no input and may run anywhere, any number of times, each region by itself: one that is
//! down does not hold up the others. A project with an operation in flight
//! is left to that operation's own steps.

use std::collections::HashMap;
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use cp_domain::machines::{Launched, SILENCE};
use cp_model::agent_protocol::ObservedState;
use cp_model::{Machine, MachineId, MachineState, Region};
use cp_provider::{Machine as Found, Power};
use tokio_util::sync::CancellationToken;

use crate::Worker;
use crate::doubt::Doubt;
use crate::jobs::{Ticks, log_failure};
use crate::launch::MachineError;

/// Silence of a warm machine that counts even when every machine is silent.
const LONG_SILENCE: TimeDelta = TimeDelta::minutes(10);

/// What one round hands to the next.
struct Rounds {
    region: Region,
    /// Since when each machine, by the provider's name for it, was seen without a row.
    orphans: HashMap<String, Instant>,
    /// Since when every round has worked. Silence before that may have been ours.
    watching_since: DateTime<Utc>,
}

pub(crate) async fn reconcile_machines(
    worker: Worker,
    region: Region,
    shutdown: CancellationToken,
) {
    let mut rounds = Rounds {
        region,
        orphans: HashMap::new(),
        watching_since: worker.now(),
    };
    let mut ticks = Ticks::every(worker.config().reconcile_every, shutdown);
    while ticks.next().await {
        let round = worker.reconcile_once(&mut rounds).await;
        if round.is_err() {
            rounds.watching_since = worker.now();
        }
        log_failure("reconcile_machines", round);
    }
}

impl Worker {
    async fn reconcile_once(&self, rounds: &mut Rounds) -> Result<(), MachineError> {
        // The provider first: a row is written before its launch, so whatever is in this list has
        // its row by the time the rows are read.
        let found = self.compute().list(rounds.region).await?;
        let rows = self
            .control_plane()
            .list_living_machines(self.compute().name(), rounds.region)
            .await?;
        let (owned, strays) = pair(&rows, &found);
        let is_listed = |row: &Machine| owned.contains_key(&row.id);
        let doubt = self.doubt(rounds.region, &rows, is_listed, strays.len(), found.len());
        if doubt == Doubt::List {
            // Not in what it has, either: another account's machines are no orphans of ours.
            rounds.orphans.clear();
            return Ok(());
        }
        let last_seen = rows.iter().filter_map(|row| row.last_seen_at).max();
        let tolerated = tolerated_silence(last_seen, rounds.watching_since, self.now());
        for row in &rows {
            let found = owned.get(&row.id).copied();
            // Nearly always; so a round costs two reads, however many machines there are.
            if self.agree(row, found, tolerated) {
                continue;
            }
            if let Err(error) = self.reconcile_machine(row.id, found, tolerated).await {
                tracing::warn!(machine = %row.id, %error, "a machine could not be reconciled; the next round tries again");
            }
        }
        let spare = self.config().spare_orphans || doubt == Doubt::Rows;
        let orphans = &mut rounds.orphans;
        orphans.retain(|reference, _| strays.iter().any(|m| m.provider_ref == *reference));
        for machine in strays {
            let since = *orphans
                .entry(machine.provider_ref.clone())
                .or_insert_with(Instant::now);
            if since.elapsed() < self.config().orphan_grace {
                continue;
            }
            if spare {
                tracing::warn!(machine = %machine.machine_id, reference = machine.provider_ref, "a machine runs that no row names; it is spared (worker.orphans)");
                count_mended("orphan_spared");
            } else if let Err(error) = self.end_orphan(machine).await {
                tracing::warn!(machine = %machine.machine_id, %error, "a machine that no row names could not be terminated; the next round tries again");
            }
        }
        Ok(())
    }

    async fn end_orphan(&self, machine: &Found) -> Result<(), MachineError> {
        tracing::warn!(machine = %machine.machine_id, reference = machine.provider_ref, "terminating a machine that no row names");
        self.compute().terminate(machine.at()).await?;
        self.control_plane()
            .audit_machine(machine.machine_id, "machine.orphan_terminated")
            .await?;
        count_mended("orphan_terminated");
        Ok(())
    }

    /// Whether row and provider say the same, so that there is nothing to do.
    fn agree(&self, row: &Machine, found: Option<&Found>, tolerated_silence: TimeDelta) -> bool {
        let Some(power) = found.map(|m| m.power) else {
            return false;
        };
        let runs = !matches!(power, Power::Stopped | Power::Terminated);
        let fits = match row.state {
            MachineState::Booting => runs && !self.boots_too_long(row),
            MachineState::Ready => runs && !self.is_useless(row, tolerated_silence),
            MachineState::Stopped => !matches!(power, Power::Running | Power::Terminated),
            MachineState::Launching
            | MachineState::Terminating
            | MachineState::Terminated
            | MachineState::Lost => false,
        };
        fits && row.missing_since.is_none() && row.provider_ref.is_some()
    }

    async fn reconcile_machine(
        &self,
        id: MachineId,
        found: Option<&Found>,
        tolerated_silence: TimeDelta,
    ) -> Result<(), MachineError> {
        let control_plane = self.control_plane();
        // Read again: much may have happened since the round began.
        let Some(row) = &control_plane.find_unattended_machine(id).await? else {
            return Ok(());
        };
        let found = found.filter(|m| m.power != Power::Terminated);
        if found.is_some() && row.missing_since.is_some() {
            control_plane.note_missing(row.id, false).await?;
        }
        let spare = self.config().spare_orphans;
        match (row.state, found) {
            (MachineState::Launching, _) => self.finish_launch(row).await,
            // Its agent was quicker than whoever launched it, and died before writing that down.
            (MachineState::Booting | MachineState::Ready, Some(found))
                if row.provider_ref.is_none() && row.project_id.is_none() =>
            {
                let launched = Launched {
                    provider_ref: found.provider_ref.clone(),
                    address: found.address.clone(),
                };
                if control_plane.record_pool_launch(row.id, &launched).await? {
                    control_plane
                        .audit_machine(row.id, "machine.launch_found")
                        .await?;
                    count_mended("launch_found");
                }
                Ok(())
            }
            (MachineState::Booting | MachineState::Ready | MachineState::Stopped, None) => {
                self.miss(row).await
            }
            (MachineState::Booting | MachineState::Ready, Some(found))
                if found.power == Power::Stopped =>
            {
                tracing::warn!(machine = %row.id, "a machine that should run has stopped; starting it");
                self.compute().start(found.at()).await?;
                control_plane.record_started_again(row).await?;
                count_mended("started");
                Ok(())
            }
            (MachineState::Booting, Some(_)) if !spare && self.boots_too_long(row) => {
                tracing::warn!(machine = %row.id, "a warm machine never registered; replacing it");
                self.mend(row, MachineState::Terminating, "replaced").await
            }
            (MachineState::Ready, Some(_)) if !spare && self.is_useless(row, tolerated_silence) => {
                tracing::warn!(machine = %row.id, "a warm machine is silent or does not get ready; replacing it");
                self.mend(row, MachineState::Terminating, "replaced").await
            }
            (MachineState::Stopped, Some(found)) if !spare && found.power == Power::Running => {
                tracing::warn!(machine = %row.id, "the machine of a paused project runs; stopping it");
                self.compute().stop(found.at()).await?;
                control_plane
                    .audit_machine(row.id, "machine.stopped_again")
                    .await?;
                count_mended("stopped");
                Ok(())
            }
            (MachineState::Terminating, Some(found)) => {
                if found.power != Power::Terminating {
                    self.compute().terminate(found.at()).await?;
                }
                Ok(())
            }
            (MachineState::Terminating, None) => {
                control_plane
                    .mark_machine(row, MachineState::Terminated)
                    .await?;
                Ok(())
            }
            // Seen again: the list had been wrong. Its project can be restored by a plain retry;
            // until then a stopped one stays so, or it would run without being billed.
            (MachineState::Lost, Some(found)) if row.project_id.is_some() => {
                let state = match found.power {
                    Power::Stopped => MachineState::Stopped,
                    Power::Pending | Power::Running => MachineState::Ready,
                    Power::Stopping | Power::Terminating | Power::Terminated => return Ok(()),
                };
                tracing::warn!(machine = %row.id, %state, "a lost machine is there again");
                self.mend(row, state, "found_again").await
            }
            // A lost machine stays with its failed project until an operator decides; without a
            // project there is nothing to decide.
            (MachineState::Lost, _) if row.project_id.is_none() => {
                self.mend(row, MachineState::Terminating, "replaced").await
            }
            (MachineState::Booting | MachineState::Ready | MachineState::Stopped, Some(_))
            | (MachineState::Lost | MachineState::Terminated, _) => Ok(()),
        }
    }

    /// A crash between intent and launch left a pool's machine behind. Whoever is at it right now
    /// holds the attempt.
    async fn finish_launch(&self, row: &Machine) -> Result<(), MachineError> {
        if row.project_id.is_none() {
            self.launch_warm(row.id).await?;
        }
        Ok(())
    }

    fn boots_too_long(&self, row: &Machine) -> bool {
        // Not the row's age: for want of room it may have waited long for its launch.
        let began = row.launch_attempted_at.unwrap_or(row.created_at);
        let age = self.now() - began;
        row.project_id.is_none()
            && age
                .to_std()
                .is_ok_and(|age| age > self.config().boot_deadline)
    }

    fn now(&self) -> DateTime<Utc> {
        self.control_plane().clock().now()
    }

    /// A machine of the pool that nobody could claim.
    fn is_useless(&self, row: &Machine, tolerated_silence: TimeDelta) -> bool {
        let now = self.now();
        let silent = row
            .last_seen_at
            .is_none_or(|at| now - at > tolerated_silence);
        let never_idle =
            row.observed_state != Some(ObservedState::Idle) && self.boots_too_long(row);
        row.project_id.is_none() && (silent || never_idle)
    }

    /// The provider does not know the machine. After a while it counts as gone.
    async fn miss(&self, row: &Machine) -> Result<(), MachineError> {
        let control_plane = self.control_plane();
        let since = row
            .missing_since
            .map(|since| control_plane.clock().now() - since);
        let gone = since
            .and_then(|s| s.to_std().ok())
            .is_some_and(|s| s >= self.config().missing_grace)
            && !self.heard_lately(row);
        if !gone {
            return Ok(control_plane.note_missing(row.id, true).await?);
        }
        if row.project_id.is_some() {
            if control_plane.fail_project_of_lost_machine(row).await? {
                tracing::error!(machine = %row.id, "the machine of a project is gone");
                count_mended("lost");
            }
        } else {
            tracing::warn!(machine = %row.id, "a warm machine is gone");
            self.mend(row, MachineState::Terminating, "replaced")
                .await?;
        }
        Ok(())
    }

    /// Moves a machine on, which is audited, and counts it.
    async fn mend(
        &self,
        row: &Machine,
        to: MachineState,
        action: &'static str,
    ) -> Result<(), MachineError> {
        if self.control_plane().mark_machine(row, to).await? {
            count_mended(action);
        }
        Ok(())
    }
}

/// What happened behind our back, and is in order again, or only told of.
pub(crate) fn count_mended(action: &'static str) {
    metrics::counter!("machines_reconciled_total", "action" => action).increment(1);
}

/// Each row with its machine: the recorded one, else the one that `Worker::find` would take. And the
/// machines that no row owns: those whose id no row has, and others of an id whose machine is recorded.
fn pair<'a>(
    rows: &[Machine],
    found: &'a [Found],
) -> (HashMap<MachineId, &'a Found>, Vec<&'a Found>) {
    let rows: HashMap<MachineId, &Machine> = rows.iter().map(|row| (row.id, row)).collect();
    let mut owned = HashMap::new();
    let mut strays = Vec::new();
    for machine in found {
        let recorded = rows.get(&machine.machine_id).map(|row| &row.provider_ref);
        match recorded {
            Some(None) => {
                let rival = owned.insert(machine.machine_id, machine);
                if let Some(first) = Found::first_of([machine].into_iter().chain(rival)) {
                    owned.insert(machine.machine_id, first);
                }
            }
            Some(Some(reference)) if *reference == machine.provider_ref => {
                owned.insert(machine.machine_id, machine);
            }
            Some(Some(_)) | None => strays.push(machine),
        }
    }
    (owned, strays)
}

/// How long a warm machine may be silent. When none is heard, or we were away, it is we who are
/// deaf: the pool must not be thrown away after an outage of ours.
fn tolerated_silence(
    last_seen: Option<DateTime<Utc>>,
    watching_since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> TimeDelta {
    let somebody_is_heard = last_seen.is_some_and(|at| now - at <= SILENCE);
    let tolerated = if somebody_is_heard {
        SILENCE
    } else {
        LONG_SILENCE
    };
    if now - watching_since > tolerated {
        tolerated
    } else {
        TimeDelta::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_only_when_we_were_there_to_hear() {
        let now = Utc::now();
        let ago = |seconds| now - TimeDelta::seconds(seconds);
        let tolerated = |heard, watching| tolerated_silence(heard, ago(watching), now);
        assert_eq!(tolerated(Some(ago(5)), 3600), SILENCE);
        // Nobody is heard: probably we are deaf, but not for ever.
        assert_eq!(tolerated(Some(ago(100)), 3600), LONG_SILENCE);
        assert_eq!(tolerated(None, 3600), LONG_SILENCE);
        // We have just come back, and agents have not had time to report.
        assert_eq!(tolerated(Some(ago(5)), 30), TimeDelta::MAX);
        assert_eq!(tolerated(Some(ago(100)), 300), TimeDelta::MAX);
    }
}
