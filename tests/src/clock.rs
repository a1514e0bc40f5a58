//! A clock that runs, and that a scenario can move ahead.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::{Clock, SystemClock};

/// The machine's clock and so much more. For scenarios with a worker, which waits for times that
/// come by themselves; without one a `ManualClock` is simpler.
#[derive(Debug, Default)]
pub struct MovingClock {
    ahead_micros: AtomicI64,
}

impl MovingClock {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn advance(&self, by: TimeDelta) {
        let micros = by.num_microseconds().expect("a test moves by days at most");
        self.ahead_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for MovingClock {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now() + TimeDelta::microseconds(self.ahead_micros.load(Ordering::Relaxed))
    }
}
