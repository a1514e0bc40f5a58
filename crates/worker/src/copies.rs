//! Copies of databases: taken from a branch's parent and put onto the branch's machine, or taken as a backup and put back.

use std::time::Duration;

use bytes::Bytes;
use cp_domain::parent_away;
use cp_dump::{
    Contents, Database, Exported, FixUps, How, Meter, Programs, Restored, Tls, dump, fix_up_backup,
    fix_up_branch, make_roles, restore,
};
use cp_merge::Snapshot;
use cp_model::{
    Backup, BackupId, Branch, BranchCopies, BranchMode, Failure, Machine, Project, ProjectId,
    ProjectStatus, Region, StoredCopy,
};
use cp_provider::{ObjectError, ObjectKey, ObjectPrefix, SharedObjects, Stored};
use futures::TryStreamExt;
use tokio_util::io::StreamReader;
use uuid::Uuid;

use crate::Worker;
use crate::step::{Outcome, StepContext, StepError};

/// How long a copy waits for others to end.
pub(crate) const NO_SLOT: Duration = Duration::from_secs(2);

/// How often people see how far a copy is.
const TOLD_EVERY: Duration = Duration::from_secs(2);

/// The database of every backend (contract/project-backend.md 1.3).
const NAME: &str = "insforge";
const USER: &str = "postgres";

impl Worker {
    /// The superuser's way into the project's database.
    pub(crate) async fn database_of(
        &self,
        project: &Project,
        machine: Option<&Machine>,
    ) -> Result<Database, StepError> {
        let unreachable = || {
            let text = format!("the database of project {} cannot be reached", project.id);
            StepError::Failed(Outcome::Retry(Failure::new("database_unreachable", text)))
        };
        let machine = machine.ok_or_else(unreachable)?;
        let found = self.find(machine).await?.ok_or_else(unreachable)?;
        let address = found.database_address.ok_or_else(|| {
            let text = "the machines of this service have no database that can be copied";
            StepError::Failed(Outcome::Fail(Failure::new("copies_unavailable", text)))
        })?;
        let (host, port) = address.rsplit_once(':').ok_or_else(unreachable)?;
        Ok(Database {
            host: host.to_owned(),
            port: port.parse().map_err(|_| unreachable())?,
            name: NAME.to_owned(),
            user: USER.to_owned(),
            password: self.control_plane().database_password(project.id).await?,
            tls: Tls::Prefer,
        })
    }

    /// The database of the branch's parent, which must be active.
    pub(crate) async fn database_of_parent(&self, branch: &Branch) -> Result<Database, StepError> {
        let (parent, machine) = self.control_plane().load_parent(branch).await?;
        let away = parent_away(parent.status);
        match parent.status {
            ProjectStatus::Active => self.database_of(&parent, machine.as_ref()).await,
            // It comes back, or its status says soon that it does not.
            ProjectStatus::Restarting
            | ProjectStatus::Restoring
            | ProjectStatus::Upgrading
            | ProjectStatus::Pausing => Err(StepError::Failed(Outcome::Hold(away))),
            _ => Err(StepError::Failed(Outcome::Fail(away))),
        }
    }

    pub(crate) fn objects(&self) -> Result<&SharedObjects, StepError> {
        self.config().objects.as_ref().ok_or_else(|| {
            tracing::error!("branches and backups need a store for objects (section [objects])");
            let text =
                "this service has nowhere to keep copies; operators see the reason in the log";
            StepError::Failed(Outcome::Fail(Failure::new("copies_unavailable", text)))
        })
    }

    /// The snapshot that was stored under this key.
    pub(crate) async fn read_snapshot(
        &self,
        region: Region,
        copy: Option<&StoredCopy>,
    ) -> Result<Snapshot, StepError> {
        let bytes = self.read_copy(region, copy.ok_or_else(incomplete)?).await?;
        let bytes: Vec<Bytes> = bytes.try_collect().await.map_err(stored)?;
        Snapshot::from_bytes(&bytes.concat()).map_err(|error| {
            tracing::error!(%error, "a snapshot of a branch cannot be read");
            incomplete()
        })
    }

    async fn read_copy(
        &self,
        region: Region,
        copy: &StoredCopy,
    ) -> Result<cp_provider::ObjectStream, StepError> {
        let key = ObjectKey::new(copy.key.clone()).map_err(|_| incomplete())?;
        let expected = Stored {
            size: copy.size,
            crc32: copy.crc32,
        };
        let content = self.objects()?.get(region, &key, &expected).await;
        content.map_err(stored)
    }
}

/// Where all objects of a project are. They go when it is deleted.
pub(crate) fn prefix_of(project: ProjectId) -> Result<ObjectPrefix, StepError> {
    prefix(&format!("projects/{project}"))
}

/// Where those are that a branch was made from.
pub(crate) fn prefix_of_branch(branch: ProjectId) -> Result<ObjectPrefix, StepError> {
    prefix(&format!("projects/{branch}/branch"))
}

/// Where a backup is, and what attempts at it left. They go with it.
pub(crate) fn prefix_of_backup(
    project: ProjectId,
    backup: BackupId,
) -> Result<ObjectPrefix, StepError> {
    prefix(&format!("projects/{project}/backups/{backup}"))
}

fn prefix(text: &str) -> Result<ObjectPrefix, StepError> {
    ObjectPrefix::new(text).map_err(|error| {
        tracing::error!(%error, "no prefix can be made of a project's id");
        incomplete()
    })
}

/// Copies the parent's database into the store, together with what it looks like at that moment. The
/// parent serves meanwhile.
pub(crate) async fn copy_parent(
    cx: &StepContext<'_>,
    branch: &Branch,
) -> Result<BranchCopies, StepError> {
    let programs = Programs::find().await.map_err(copied)?;
    let parent = cx.worker.database_of_parent(branch).await?;
    let contents = match branch.mode {
        BranchMode::Full => Contents::Branch,
        BranchMode::SchemaOnly => Contents::BranchWithoutData,
    };
    let prefix = prefix_of_branch(cx.project().id)?;
    let mut exported = Exported::open(&parent).await.map_err(copied)?;
    let roles = exported.roles().await.map_err(copied)?;
    let snapshot = cp_merge::snapshot(exported.connection()).await;
    // Somebody may be changing the schema at this moment, which looks like a damaged one.
    let snapshot = snapshot.map_err(|error| match compared(error) {
        StepError::Failed(Outcome::Fail(failure)) => StepError::Failed(Outcome::Retry(failure)),
        other => other,
    })?;
    let dump = store_dump(cx, &parent, &programs, contents, exported, &prefix).await?;
    let parent = put(cx, &prefix, once(snapshot.to_bytes())).await?;
    Ok(BranchCopies {
        dump: Some(dump),
        parent: Some(parent),
        branch: None,
        roles: serde_json::json!(roles),
    })
}

/// Copies the project's database into the store. It serves meanwhile.
pub(crate) async fn copy_database(
    cx: &StepContext<'_>,
    backup: BackupId,
) -> Result<(StoredCopy, serde_json::Value), StepError> {
    let programs = Programs::find().await.map_err(copied)?;
    let machine = Some(cx.machine()?);
    let database = cx.worker.database_of(cx.project(), machine).await?;
    let prefix = prefix_of_backup(cx.project().id, backup)?;
    let mut exported = Exported::open(&database).await.map_err(copied)?;
    let roles = exported.roles().await.map_err(copied)?;
    let contents = Contents::Everything;
    let copy = store_dump(cx, &database, &programs, contents, exported, &prefix).await?;
    Ok((copy, serde_json::json!(roles)))
}

/// What the database was when the snapshot was exported.
async fn store_dump(
    cx: &StepContext<'_>,
    database: &Database,
    programs: &Programs,
    contents: Contents,
    exported: Exported,
    prefix: &ObjectPrefix,
) -> Result<StoredCopy, StepError> {
    let name = exported.name().to_owned();
    let meter = Meter::new();
    let archive = dump(database, programs, contents, Some(&name), meter.clone())
        .await
        .map_err(copied)?;
    let watched = watch(cx, "copied", &meter);
    let stored = tokio::select! {
        stored = put(cx, prefix, archive) => stored?,
        () = watched => return Err(incomplete()),
    };
    // It lay idle all the while, and something between us may have cut it; pg_dump has its own.
    if let Err(error) = exported.close().await {
        tracing::debug!(%error, "the snapshot's session had ended");
    }
    Ok(stored)
}

/// Fills the branch's database from the copy, makes it a branch's, and keeps what it looks like then.
pub(crate) async fn restore_copy(
    cx: &StepContext<'_>,
    branch: &Branch,
    how: How,
) -> Result<(Restored, BranchCopies), StepError> {
    let stored = branch.copies.dump.as_ref().ok_or_else(incomplete)?;
    let (restored, database) = fill(cx, stored, &branch.copies.roles, how).await?;
    let fix_ups = FixUps {
        schema_only: branch.mode == BranchMode::SchemaOnly,
        run_schedules: false,
    };
    fix_up_branch(&database, fix_ups).await.map_err(copied)?;
    let mut connection = database.connect().await.map_err(copied)?;
    let snapshot = cp_merge::snapshot(&mut connection)
        .await
        .map_err(compared)?;
    let mut copies = branch.copies.clone();
    let prefix = prefix_of_branch(cx.project().id)?;
    copies.branch = Some(put(cx, &prefix, once(snapshot.to_bytes())).await?);
    Ok((restored, copies))
}

/// Fills the project's database from a backup. What it replaces is kept under this id, and the keys of that one stay: those
/// that were replaced since must not be good again.
pub(crate) async fn restore_backup(
    cx: &StepContext<'_>,
    backup: &Backup,
    roles: &serde_json::Value,
    kept: Uuid,
) -> Result<Restored, StepError> {
    let stored = backup.copy.as_ref().ok_or_else(incomplete)?;
    let how = How::InPlaceKeeping(kept);
    let (restored, database) = fill(cx, stored, roles, how).await?;
    fix_up_backup(&database, kept).await.map_err(copied)?;
    Ok(restored)
}

/// Restores a stored dump into the project's database.
async fn fill(
    cx: &StepContext<'_>,
    stored: &StoredCopy,
    roles: &serde_json::Value,
    how: How,
) -> Result<(Restored, Database), StepError> {
    let programs = Programs::find().await.map_err(copied)?;
    let database = cx
        .worker
        .database_of(cx.project(), Some(cx.machine()?))
        .await?;
    let roles: Vec<cp_dump::Role> =
        serde_json::from_value(roles.clone()).map_err(|_| incomplete())?;
    make_roles(&database, &roles).await.map_err(copied)?;
    let archive = cx.worker.read_copy(cx.project().region, stored).await?;
    let meter = Meter::new();
    let watched = watch(cx, "restored", &meter);
    let restored = tokio::select! {
        restored = restore(&database, &programs, archive, how, meter.clone()) => restored.map_err(copied)?,
        () = watched => return Err(incomplete()),
    };
    cx.after_effect().await;
    Ok((restored, database))
}

/// What an earlier step of the operation copied, which the branch does not have for its own yet.
pub(crate) fn recorded_copies(cx: &StepContext<'_>) -> Result<BranchCopies, StepError> {
    serde_json::from_value(cx.operation.data["copies"].clone()).map_err(|_| incomplete())
}

/// Makes these the branch's copies, and deletes all else that is stored for it: what they replace, and what attempts
/// left that did not come to their end.
pub(crate) async fn adopt_copies(
    cx: &StepContext<'_>,
    copies: &BranchCopies,
) -> Result<(), StepError> {
    // What is recorded here takes the place of what is deleted below.
    if copies.dump.is_none() || copies.parent.is_none() || copies.branch.is_none() {
        return Err(incomplete());
    }
    let (objects, region) = (cx.worker.objects()?, cx.project().region);
    // Before the record, which proves that nobody else had the lease while we looked: what was there then is older
    // than anything that another worker may store. The record is what matters; without a list all stays.
    let listed = stored_for(objects, region, &prefix_of_branch(cx.project().id)?).await;
    let there = listed.unwrap_or_default();
    cx.control_plane().record_copies(cx.lease, copies).await?;
    cx.after_effect().await;
    let kept = [&copies.dump, &copies.parent, &copies.branch];
    let is_kept = |key: &ObjectKey| {
        kept.iter()
            .any(|k| k.as_ref().is_some_and(|k| k.key == key.to_string()))
    };
    for key in there.iter().filter(|key| !is_kept(key)) {
        if let Err(error) = objects.delete(region, key).await {
            tracing::warn!(%error, "a copy that nothing refers to is left until the next one is made");
        }
    }
    Ok(())
}

async fn stored_for(
    objects: &SharedObjects,
    region: Region,
    prefix: &ObjectPrefix,
) -> Result<Vec<ObjectKey>, StepError> {
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let page = objects.list(region, prefix, after.as_deref()).await;
        let page = page.map_err(stored)?;
        keys.extend(page.objects.into_iter().map(|object| object.key));
        after = page.next;
        if after.is_none() {
            return Ok(keys);
        }
    }
}

/// Tells how far it is, with the operation and in a metric. Never ends.
async fn watch(cx: &StepContext<'_>, what: &'static str, meter: &Meter) {
    let mut told = 0;
    loop {
        tokio::time::sleep(TOLD_EVERY).await;
        let bytes = meter.bytes();
        metrics::counter!("copied_bytes_total", "what" => what).increment(bytes - told);
        told = bytes;
        tracing::debug!(step = cx.step, bytes, "{what} so far");
        let done = cx.control_plane().note_progress(cx.lease, bytes);
        if let Err(error) = done.await {
            tracing::debug!(%error, "progress was not noted");
        }
    }
}

pub(crate) fn once(bytes: Vec<u8>) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send {
    futures::stream::once(std::future::ready(Ok(Bytes::from(bytes))))
}

/// Stores it under a key of its own. What an attempt leaves behind that did not come to be recorded goes
/// with what it belongs to.
pub(crate) async fn put(
    cx: &StepContext<'_>,
    prefix: &ObjectPrefix,
    content: impl futures::Stream<Item = std::io::Result<Bytes>> + Send,
) -> Result<StoredCopy, StepError> {
    let project = cx.project();
    let key = prefix.attempt().map_err(|_| incomplete())?;
    let mut reader = StreamReader::new(Box::pin(content));
    let kept = cx
        .worker
        .objects()?
        .put(project.region, &key, &mut reader)
        .await
        .map_err(stored)?;
    Ok(StoredCopy {
        key: key.to_string(),
        size: kept.size,
        crc32: kept.crc32,
    })
}

pub(crate) fn incomplete() -> StepError {
    let text = "the copy is not complete, and cannot be used";
    StepError::Failed(Outcome::Fail(Failure::new("copy_incomplete", text)))
}

/// The texts name hosts of ours, and tenants read the failure.
#[allow(clippy::needless_pass_by_value)] // for `map_err`
pub(crate) fn copied(error: cp_dump::Error) -> StepError {
    tracing::warn!(%error, "a database was not copied");
    let failure = Failure::new(
        "copy_failed",
        "the database could not be copied; operators see the reason in the log",
    );
    StepError::Failed(if error.is_permanent() {
        Outcome::Fail(failure)
    } else {
        Outcome::Retry(failure)
    })
}

#[allow(clippy::needless_pass_by_value)] // for `map_err`
pub(crate) fn stored(error: ObjectError) -> StepError {
    tracing::warn!(%error, "a copy was not stored or read");
    let failure = Failure::new(
        "store_failed",
        "the copy could not be stored or read; operators see the reason in the log",
    );
    StepError::Failed(match error {
        ObjectError::Permanent(_) => Outcome::Fail(failure),
        _ => Outcome::Retry(failure),
    })
}

#[allow(clippy::needless_pass_by_value)] // for `map_err`
pub(crate) fn compared(error: cp_merge::Error) -> StepError {
    // Its text quotes statements, and those what people wrote.
    let (sqlstate, permanent) = (error.sqlstate(), error.is_permanent());
    tracing::warn!(
        ?sqlstate,
        permanent,
        "a database could not be compared or merged"
    );
    let failure = Failure::new(
        "compare_failed",
        "the databases could not be compared; operators see the reason in the log",
    );
    StepError::Failed(if error.is_permanent() {
        Outcome::Fail(failure)
    } else {
        Outcome::Retry(failure)
    })
}
