//! Arithmetic that takes longer than the runtime's threads may be held: signatures, password
//! hashes. Half a millisecond of it, thousands of times, is enough to starve everything that needs
//! many turns of the runtime; opening a connection to Postgres takes eight hundred.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{DomainError, DomainResult};

/// Threads of their own for one kind of arithmetic.
pub(crate) struct Heavy {
    threads: Arc<Semaphore>,
}

/// A thread that is free for the holder, until it is dropped and its work done.
pub(crate) struct Turn(Arc<OwnedSemaphorePermit>);

impl Turn {
    /// The thread stays taken until the work is done, also when the caller goes away meanwhile:
    /// whoever hangs up again and again must not get more of them than there are.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> DomainResult<T> {
        let thread = self.0.clone();
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(thread);
            done
        })
        .await
        .map_err(DomainError::internal)
    }
}

impl Heavy {
    /// For short arithmetic (a signature): four times the cores, so that none idles between the
    /// end of one piece and the beginning of the next. Measured with `make bench`: one thread per
    /// core made a quarter less signatures.
    pub(crate) fn short() -> Self {
        Self::new(4 * cores())
    }

    /// For long arithmetic that takes memory (a password hash): no more than the cores, which
    /// bounds the memory and is no slower.
    pub(crate) fn long() -> Self {
        Self::new(cores())
    }

    fn new(threads: usize) -> Self {
        Self {
            threads: Arc::new(Semaphore::new(threads)),
        }
    }

    /// Runs `work` when a thread is free, in order of arrival. A caller that has gone away before
    /// then costs nothing.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> DomainResult<T> {
        self.turn().await?.run(work).await
    }

    /// Waits for a thread, in order of arrival.
    pub(crate) async fn turn(&self) -> DomainResult<Turn> {
        let thread = self
            .threads
            .clone()
            .acquire_owned()
            .await
            .map_err(DomainError::internal)?;
        Ok(Turn(Arc::new(thread)))
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}
