//! What every worker does now and then. None of it takes input; any number of workers may do it
//! at any time.

use std::time::Duration;

use cp_domain::DomainResult;
use cp_domain::people::Mail;
use cp_model::{MailId, Region};
use cp_provider::SharedObjects;
use futures::stream::{self, StreamExt as _};
use rand::Rng as _;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::Worker;
use crate::copies::prefix_of_backup;
use crate::mail::Mailer;

/// How often mails are looked for whose next attempt has come.
const MAIL_SWEEP: Duration = Duration::from_secs(5);
/// Mails taken, and sent, at once.
const MAIL_BATCH: i64 = 20;

/// The beat of a job: true at once and then every `period`, false once at shutdown.
///
/// The second beat comes after a random part of the period: jobs that all began when the process
/// did would else meet at the database for ever, and so would all processes of a release.
pub(crate) struct Ticks {
    interval: Option<Interval>,
    period: Duration,
    shutdown: CancellationToken,
}

impl Ticks {
    pub(crate) fn every(period: Duration, shutdown: CancellationToken) -> Self {
        Self {
            interval: None,
            period,
            shutdown,
        }
    }

    pub(crate) async fn next(&mut self) -> bool {
        let Some(interval) = &mut self.interval else {
            let second = Instant::now() + self.period.mul_f64(rand::rng().random());
            let interval = self.interval.insert(interval_at(second, self.period));
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            return !self.shutdown.is_cancelled();
        };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => false,
            _ = interval.tick() => true,
        }
    }
}

/// A failed run is logged; the next one makes up for it.
pub(crate) fn log_failure<E: std::fmt::Display>(job: &'static str, result: Result<(), E>) {
    if let Err(error) = result {
        tracing::warn!(job, %error, "a job failed; its next run makes up for it");
    }
}

/// Sends wake-ups for what is due, and ends what is past its deadline.
pub(crate) async fn sweep(worker: Worker, shutdown: CancellationToken) {
    let mut ticks = Ticks::every(worker.config().sweep_every, shutdown);
    while ticks.next().await {
        let control_plane = worker.control_plane();
        log_failure(
            "wake_due_operations",
            control_plane.wake_due_operations().await.map(drop),
        );
        log_failure(
            "fail_expired_operations",
            control_plane.fail_expired_operations().await.map(drop),
        );
        log_failure(
            "expire_branches",
            control_plane.expire_branches().await.map(drop),
        );
    }
}

pub(crate) async fn rotate_keys(worker: Worker, shutdown: CancellationToken) {
    let mut ticks = Ticks::every(Duration::from_mins(1), shutdown);
    while ticks.next().await {
        log_failure(
            "rotate_keys",
            worker.control_plane().rotate_signing_keys(false).await,
        );
    }
}

pub(crate) async fn keep_house(worker: Worker, shutdown: CancellationToken) {
    let mut ticks = Ticks::every(Duration::from_mins(1), shutdown);
    while ticks.next().await {
        log_failure("keep_house", worker.control_plane().keep_house().await);
    }
}

/// Aborts uploads that nobody ended: their parts show in no listing and cost money. Each region by
/// itself: one that is down does not hold up the others.
pub(crate) async fn abort_leftovers(
    worker: Worker,
    objects: SharedObjects,
    region: Region,
    shutdown: CancellationToken,
) {
    let config = worker.config();
    let mut ticks = Ticks::every(config.leftovers_every, shutdown.clone());
    while ticks.next().await {
        let before = worker.control_plane().clock().now() - config.leftover_age;
        let round = objects.abort_leftovers(region, before);
        match shutdown.run_until_cancelled(round).await {
            None => return,
            Some(Ok(0)) => {}
            Some(Ok(count)) => {
                tracing::info!(%region, count, "uploads were aborted that nobody had ended");
                metrics::counter!("uploads_aborted_total", "region" => region.as_str())
                    .increment(count);
            }
            Some(Err(error)) => {
                tracing::warn!(%region, %error, "uploads that nobody ended could not be aborted; the next round tries again");
                metrics::counter!("uploads_abort_failures_total", "region" => region.as_str())
                    .increment(1);
            }
        }
    }
}

/// Begins the daily backups that are due.
pub(crate) async fn back_up_daily(worker: Worker, shutdown: CancellationToken) {
    let mut ticks = Ticks::every(worker.config().backups_every, shutdown);
    while ticks.next().await {
        let at_once = worker.config().scheduled_backups;
        let begun = worker.control_plane().begin_scheduled_backups(at_once);
        log_failure("begin_scheduled_backups", begun.await.map(drop));
        // Where none are made they are all due for ever, which is worth no alarm.
        if at_once > 0 {
            let waits = worker.control_plane().oldest_due_backup_seconds().await;
            log_failure(
                "oldest_due_backup_seconds",
                waits.map(|seconds| {
                    metrics::gauge!("backups_oldest_due_seconds").set(seconds);
                }),
            );
        }
    }
}

/// Ends the backups that are past their time.
pub(crate) async fn expire_backups(worker: Worker, shutdown: CancellationToken) {
    let mut ticks = Ticks::every(worker.config().backups_every * 12, shutdown);
    while ticks.next().await {
        let ended = worker.control_plane().expire_backups().await;
        log_failure("expire_backups", ended.map(drop));
    }
}

/// Deletes what is stored for backups that were deleted.
pub(crate) async fn reclaim_backups(
    worker: Worker,
    objects: SharedObjects,
    shutdown: CancellationToken,
) {
    let mut ticks = Ticks::every(worker.config().backups_every, shutdown.clone());
    while ticks.next().await {
        let round = worker.delete_backups(&objects);
        if let Some(done) = shutdown.run_until_cancelled(round).await {
            log_failure("reclaim_backups", done);
        }
    }
}

/// Sends mails: each as soon as it is queued, and again, when its server did not take it, at a sweep
/// after its pause. Without a mailer they stay queued.
pub(crate) async fn send_mails(worker: Worker, shutdown: CancellationToken) {
    let Some(mailer) = worker.config().mailer.clone() else {
        return;
    };
    let mut queued = worker.control_plane().subscribe_mails();
    let mut sweep = Ticks::every(MAIL_SWEEP, shutdown.clone());
    loop {
        tokio::select! {
            biased;
            goes_on = sweep.next() => if !goes_on {
                return;
            },
            Ok(()) = queued.changed() => {}
        }
        let round = worker.send_due_mails(&mailer);
        tokio::select! {
            result = round => log_failure("send_mails", result),
            // What is cut off here is due again later; its Message-ID tells the copy.
            () = over(&shutdown, worker.config().grace) => return,
        }
    }
}

/// Ends `grace` after the shutdown began.
async fn over(shutdown: &CancellationToken, grace: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(grace).await;
}

impl Worker {
    async fn delete_backups(&self, objects: &SharedObjects) -> DomainResult<()> {
        for backup in self.control_plane().list_deleted_backups().await? {
            let (id, project) = (backup.id, backup.project);
            let Ok(prefix) = prefix_of_backup(project, id) else {
                continue;
            };
            let gone = objects.delete_prefix(backup.region, &prefix).await;
            if let Err(error) = &gone {
                tracing::warn!(backup = %id, %project, %error, "what is stored for a deleted backup could not be deleted; the next round tries again");
            }
            self.control_plane()
                .settle_deleted_backup(id, gone.is_ok())
                .await?;
        }
        Ok(())
    }

    /// Until none is due. Taking a mail moves its next attempt ahead, so this ends.
    async fn send_due_mails(&self, mailer: &Mailer) -> DomainResult<()> {
        loop {
            let mails = self.control_plane().take_due_mails(MAIL_BATCH).await?;
            if mails.is_empty() {
                return Ok(());
            }
            stream::iter(mails)
                .for_each_concurrent(None, async |(id, mail)| {
                    log_failure("send_mails", self.send_mail(mailer, id, &mail).await);
                })
                .await;
        }
    }

    async fn send_mail(&self, mailer: &Mailer, id: MailId, mail: &Mail) -> DomainResult<()> {
        let control_plane = self.control_plane();
        match mailer.send(id, mail, control_plane.clock().now()).await {
            Ok(()) => {
                metrics::counter!("mails_sent_total").increment(1);
                control_plane.mark_mail_sent(id).await
            }
            Err(error) => {
                tracing::warn!(mail = %id, %error, "a mail was not sent; it will be tried again");
                metrics::counter!("mails_failed_total").increment(1);
                control_plane.mark_mail_failed(id, &error.to_string()).await
            }
        }
    }
}
