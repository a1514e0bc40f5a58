//! What a step sees and what it can answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cp_domain::operations::{Lease, NO_CAPACITY, Work};
use cp_domain::{ControlPlane, DomainError};
use cp_model::{Failure, Machine, Operation, Project};
use cp_provider::{ProviderError, SharedCompute};
use serde_json::Value;

use crate::crash::{CrashPoint, CrashSite};
use crate::launch::MachineError;
use crate::{Worker, WorkerConfig};

/// What a step came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// Go on with the next step, at once.
    Next(&'static str),
    /// As `Next`, and keep this for later steps.
    NextWith(&'static str, Value),
    /// Come back after this long, or when woken. Holds no slot and no connection meanwhile.
    Wait(Duration),
    /// Come back in half a minute to a minute, however often, until the operation's deadline; this is
    /// what it waits for.
    Hold(Failure),
    /// The operation has done its work.
    Done,
    /// It did not work; try the step again after a while.
    Retry(Failure),
    /// It cannot work.
    Fail(Failure),
}

/// Why a step came to nothing.
#[derive(Debug)]
pub(crate) enum StepError {
    /// The operation is somebody else's now. Nothing may be written any more.
    LeaseLost,
    Failed(Outcome),
}

pub(crate) type StepResult = Result<Outcome, StepError>;

impl From<DomainError> for StepError {
    fn from(error: DomainError) -> Self {
        match error {
            DomainError::LeaseLost => Self::LeaseLost,
            DomainError::Unavailable => Self::Failed(Outcome::Retry(Failure::new(
                "database_unavailable",
                "the database is not available",
            ))),
            other => {
                tracing::error!(error = %other, "a step met an unexpected error");
                // The text may speak of our insides; tenants read this one.
                Self::Failed(Outcome::Retry(Failure::new(
                    "internal_error",
                    "an internal error; operators see it in the log",
                )))
            }
        }
    }
}

impl From<ProviderError> for StepError {
    fn from(error: ProviderError) -> Self {
        // The detail may name paths and accounts of ours, and tenants read the failure.
        tracing::warn!(%error, "the machine provider failed");
        let failure = |code, message| Failure::new(code, message);
        Self::Failed(match error {
            ProviderError::Permanent(_) => Outcome::Fail(failure(
                "provider_refused",
                "the machine provider refused the request; operators see the reason in the log",
            )),
            // Nothing failed: it is our turn later.
            ProviderError::Throttled(pause) => Outcome::Wait(pause),
            // Of others' making, and over in minutes or hours: no number of attempts tells more.
            ProviderError::Capacity(_) => Outcome::Hold(failure(
                NO_CAPACITY,
                "the machine provider has no room for this instance type at the moment",
            )),
            ProviderError::Transient(_) | ProviderError::Ambiguous(_) | ProviderError::NotFound => {
                Outcome::Retry(failure(
                    "provider_error",
                    "the machine provider did not answer as it should",
                ))
            }
        })
    }
}

impl From<MachineError> for StepError {
    fn from(error: MachineError) -> Self {
        match error {
            MachineError::Domain(error) => error.into(),
            MachineError::Provider(error) => error.into(),
        }
    }
}

/// One run of one step.
pub(crate) struct StepContext<'a> {
    pub worker: &'a Worker,
    pub lease: &'a Lease,
    pub operation: &'a Operation,
    pub work: &'a Work,
    pub step: &'static str,
    effect_told: AtomicBool,
}

impl<'a> StepContext<'a> {
    pub(crate) fn new(
        worker: &'a Worker,
        lease: &'a Lease,
        operation: &'a Operation,
        work: &'a Work,
        step: &'static str,
    ) -> Self {
        Self {
            worker,
            lease,
            operation,
            work,
            step,
            effect_told: AtomicBool::new(false),
        }
    }

    pub(crate) fn control_plane(&self) -> &ControlPlane {
        self.worker.control_plane()
    }

    pub(crate) fn compute(&self) -> &SharedCompute {
        self.worker.compute()
    }

    pub(crate) fn config(&self) -> &WorkerConfig {
        self.worker.config()
    }

    pub(crate) fn project(&self) -> &Project {
        &self.work.project
    }

    /// The project's machine; without one the step cannot go on.
    pub(crate) fn machine(&self) -> Result<&Machine, StepError> {
        self.work.machine.as_ref().ok_or_else(|| {
            StepError::Failed(Outcome::Fail(Failure::new(
                "machine_missing",
                "the project has no machine",
            )))
        })
    }

    /// A step with an effect outside calls this right after it, before it writes anything down.
    pub(crate) async fn after_effect(&self) {
        if !self.effect_told.swap(true, Ordering::Relaxed) {
            self.reach(CrashPoint::AfterEffect).await;
        }
    }

    pub(crate) async fn reach(&self, point: CrashPoint) {
        if let Some(hook) = &self.config().crash_hook {
            hook(CrashSite {
                operation: self.operation.id,
                kind: self.lease.kind,
                step: self.step,
                point,
            })
            .await;
        }
    }
}

/// The steps of one kind of operation, in order of execution, and their one text form.
macro_rules! steps {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($variant),+ }

        impl $name {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            pub(crate) fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|s| s.as_str() == text)
            }
        }
    };
}
pub(crate) use steps;
