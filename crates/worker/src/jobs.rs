//! What every worker does now and then. None of it takes input; any number of workers may do it
//! at any time.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::Worker;

/// The beat of a job: true every `period`, false once at shutdown.
pub(crate) struct Ticks {
    interval: tokio::time::Interval,
    shutdown: CancellationToken,
}

impl Ticks {
    pub(crate) fn every(period: Duration, shutdown: CancellationToken) -> Self {
        let mut interval = tokio::time::interval(period);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self { interval, shutdown }
    }

    pub(crate) async fn next(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => false,
            _ = self.interval.tick() => true,
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
