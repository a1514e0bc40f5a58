//! A worker that can be killed: it has a runtime and a connection pool of its own, and killing it
//! drops every task where it stands, as the end of a process does.

use std::sync::Arc;

use cp_domain::{ControlPlane, Settings};
use cp_model::SharedClock;
use cp_provider::SharedCompute;
use cp_tokens::sealing::Sealer;
use cp_worker::{Worker, WorkerConfig};
use tokio_util::sync::CancellationToken;

use crate::postgres::TestDatabase;

pub struct WorkerProcess {
    runtime: Option<tokio::runtime::Runtime>,
    shutdown: CancellationToken,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl WorkerProcess {
    pub(crate) fn start(
        database: &Arc<TestDatabase>,
        clock: SharedClock,
        sealer: Sealer,
        settings: Settings,
        compute: SharedCompute,
        config: WorkerConfig,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let shutdown = CancellationToken::new();
        let (database, token) = (database.clone(), shutdown.clone());
        let running = runtime.spawn(async move {
            let control_plane = ControlPlane::new(
                database.open_as("insforge-worker", 8),
                clock,
                sealer,
                settings,
            );
            Worker::new(control_plane, compute, config).run(token).await;
        });
        Self {
            runtime: Some(runtime),
            shutdown,
            running: Some(running),
        }
    }

    /// As `kill -9`.
    pub fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// As SIGTERM: lets running steps end.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(running) = self.running.take() {
            running.await.expect("the worker ends without a panic");
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
