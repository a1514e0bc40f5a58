//! Takes wake-up messages from apalis and hands them to the engine.
//!
//! Facts about apalis-postgres 1.0 that shape this file: an idle worker looks for messages only
//! when its poll strategy says so; any database error ends it and drops its running tasks; a
//! worker name may be used once; a notification that comes while a fetch is in flight is lost. So:
//! a strategy of our own (nudge, echo, sweep), steps that run outside of apalis's tasks, and a
//! loop that starts a new worker under a new name.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use apalis::prelude::{
    BackendExt, Event, PollSnapshot, PollStrategy, WorkerBuilder, WorkerBuilderExt, WorkerContext,
};
use apalis_postgres::{Config, PostgresStorage};
use cp_domain::queue::{QUEUE, Wakeups};
use cp_model::OperationId;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::Worker;

/// How long after a nudge to look again: a fetch in flight may have looked too early.
const ECHO: Duration = Duration::from_millis(50);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Consumes messages until shutdown, then lets running steps end.
pub(crate) async fn consume(worker: Worker, shutdown: CancellationToken) {
    let steps = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(worker.config().concurrency));
    let mut pause = FIRST_PAUSE;
    while !shutdown.is_cancelled() {
        let began = Instant::now();
        run_once(&worker, &steps, &slots, &shutdown).await;
        if began.elapsed() > Duration::from_secs(10) {
            pause = FIRST_PAUSE;
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
    steps.close();
    if tokio::time::timeout(worker.config().grace, steps.wait())
        .await
        .is_err()
    {
        tracing::warn!("steps still run after the grace period; their leases will end");
    }
}

/// One life of an apalis worker: until shutdown, or until the database fails it.
async fn run_once(
    worker: &Worker,
    steps: &TaskTracker,
    slots: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) {
    let name = format!("{}-{}", worker.config().name, Uuid::now_v7().simple());
    let wakeups: Wakeups = worker.control_plane().wakeups();
    let context = WorkerContext::new(&name);
    let concurrency = worker.config().concurrency;
    let backend = PostgresStorage::<Uuid>::new(wakeups.pool())
        .with_config(
            Config::default()
                .queue(QUEUE)
                .batch_size(1)
                .lock_tasks(false)
                .heartbeat_interval(Duration::from_secs(10))
                .missed_heartbeats(6),
        )
        .poll_with_strategy(WakeStrategy::new(&wakeups, Duration::from_secs(1)));
    let handler = {
        let (worker, steps, slots) = (worker.clone(), steps.clone(), slots.clone());
        move |operation: Uuid| {
            let (worker, steps, slots) = (worker.clone(), steps.clone(), slots.clone());
            async move {
                let Ok(slot) = slots.acquire_owned().await else {
                    return;
                };
                let step = steps.spawn(async move {
                    let work = std::panic::AssertUnwindSafe(Box::pin(
                        worker.work_on(OperationId(operation)),
                    ));
                    if work.catch_unwind().await.is_err() {
                        tracing::error!(%operation, "a step panicked; its lease will end");
                    }
                    drop(slot);
                });
                // Always Ok: a task that fails is fetched again at once.
                let _ = step.await;
            }
        }
    };
    let apalis_worker = WorkerBuilder::new(&context)
        .backend(backend)
        .concurrency(concurrency)
        .build(handler);
    let mut events = pin!(apalis_worker.stream());
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            event = events.next() => match event {
                Some(Ok(Event::Error(error))) => tracing::debug!(%error, "queue worker event"),
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::warn!(%error, "the queue lost the database; starting anew");
                    return;
                }
                None => return,
            },
        }
    }
    let deadline = Instant::now() + worker.config().grace;
    if context.stop().is_ok() {
        let drained = async { while let Some(Ok(_)) = events.next().await {} };
        let _ = timeout_at(deadline, drained).await;
    }
    let _ = timeout_at(deadline + Duration::from_secs(1), wakeups.release(&name)).await;
}

/// Says when to look for messages: at a nudge, once more shortly after it, and at every sweep.
struct WakeStrategy {
    nudges: BoxStream<'static, ()>,
    echo: Option<Pin<Box<Sleep>>>,
    sweep: Interval,
}

impl WakeStrategy {
    fn new(wakeups: &Wakeups, every: Duration) -> Self {
        let mut sweep = interval(every);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let nudges = stream::unfold(wakeups.subscribe(), |mut nudges| async move {
            nudges.changed().await.ok().map(|()| ((), nudges))
        });
        Self {
            nudges: nudges.fuse().boxed(),
            echo: None,
            sweep,
        }
    }
}

impl PollStrategy for WakeStrategy {
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        let mut fired = false;
        // Each source is polled until it is pending: one left ready has no waker registered.
        while let Poll::Ready(Some(())) = self.nudges.poll_next_unpin(cx) {
            fired = true;
            self.echo = Some(Box::pin(sleep(ECHO)));
        }
        if let Some(echo) = &mut self.echo
            && echo.as_mut().poll(cx).is_ready()
        {
            fired = true;
            self.echo = None;
        }
        while self.sweep.poll_tick(cx).is_ready() {
            fired = true;
        }
        if fired {
            Poll::Ready(Some(()))
        } else {
            Poll::Pending
        }
    }
}
