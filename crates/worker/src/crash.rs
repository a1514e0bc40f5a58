//! Named places at which a test lets a worker die: before a step's effect, after it, and after its
//! record. The engine passes all three of every step, so a new step cannot escape the enumeration.

use std::sync::Arc;

use cp_model::{OperationId, OperationKind};
use futures::future::BoxFuture;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CrashPoint {
    /// The step is about to run.
    BeforeEffect,
    /// The outside world has changed, our rows do not say so yet.
    AfterEffect,
    /// Our rows say so; nothing was done after that.
    AfterRecord,
}

impl CrashPoint {
    pub const ALL: [Self; 3] = [Self::BeforeEffect, Self::AfterEffect, Self::AfterRecord];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeEffect => "before_effect",
            Self::AfterEffect => "after_effect",
            Self::AfterRecord => "after_record",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CrashSite {
    pub operation: OperationId,
    pub kind: OperationKind,
    pub step: &'static str,
    pub point: CrashPoint,
}

/// A hook that never returns keeps the worker at that place, for the test to end it there.
pub type CrashHook = Arc<dyn Fn(CrashSite) -> BoxFuture<'static, ()> + Send + Sync>;
