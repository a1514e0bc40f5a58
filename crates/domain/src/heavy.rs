//! Arithmetic that takes longer than the runtime's threads may be held: signatures, password
//! hashes. Half a millisecond of it, thousands of times, is enough to starve everything that needs
//! many turns of the runtime; opening a connection to Postgres takes eight hundred.

use tokio::sync::Semaphore;

use crate::{DomainError, DomainResult};

/// Threads of their own for one kind of arithmetic.
pub(crate) struct Heavy {
    threads: Semaphore,
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
            threads: Semaphore::new(threads),
        }
    }

    /// Runs `work` when a thread is free, in order of arrival. A caller that has gone away before
    /// then costs nothing.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> DomainResult<T> {
        let _thread = self
            .threads
            .acquire()
            .await
            .map_err(DomainError::internal)?;
        tokio::task::spawn_blocking(work)
            .await
            .map_err(DomainError::internal)
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}
