//! Makes a backup: the project's database, streamed into the store while the project serves.

use cp_model::BackupTrigger;

use crate::copies::{NO_SLOT, copy_database};
use crate::step::{Outcome, StepContext, StepResult, steps};

steps!(
    Step {
        CopyDatabase = "copy_database",
    }
);

pub(crate) async fn run(cx: &StepContext<'_>) -> StepResult {
    match Step::parse(cx.step) {
        Some(Step::CopyDatabase) | None => copy(cx).await,
    }
}

/// An attempt that dies between the store and the record leaves an object that goes with the backup.
async fn copy(cx: &StepContext<'_>) -> StepResult {
    let control_plane = cx.control_plane();
    let (backup, _) = control_plane
        .load_backup(cx.lease, &cx.operation.data)
        .await?;
    if backup.copy.is_some() {
        return Ok(Outcome::Done);
    }
    let slots = &cx.worker.inner.copies;
    // Half of the places are left to people, who wait.
    let left_to_people = cx.config().copies / 2;
    if backup.trigger == BackupTrigger::Scheduled && slots.available_permits() <= left_to_people {
        return Ok(Outcome::Wait(NO_SLOT));
    }
    let Ok(_slot) = slots.try_acquire() else {
        return Ok(Outcome::Wait(NO_SLOT));
    };
    let (copy, roles) = copy_database(cx, backup.id).await?;
    cx.after_effect().await;
    control_plane
        .record_backup(cx.lease, backup.id, &copy, &roles)
        .await?;
    Ok(Outcome::Done)
}
