//! What makes EC2 slow and dear: calls take time and are billed, machines boot for minutes, launches
//! are rationed per region, and tags show late.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use cp_model::Region;
use tokio::time::Instant;

use crate::looks::Looks;
use crate::pace::{Pace, Ration};
use crate::{Machine, ProviderError};

/// Times are drawn evenly from their ranges, with the seed of the world.
///
/// The provider's side of it is that of [`crate::ec2`]: launches wait for their turn in the same
/// line, and looks for single machines go out together, so that [`super::SimCompute::calls`] counts
/// what AWS would.
#[derive(Debug, Clone)]
pub struct Ec2Like {
    /// From launch or start to [`super::SimHost::booted`], for each machine.
    pub boots: RangeInclusive<Duration>,
    /// Before each answer.
    pub latency: RangeInclusive<Duration>,
    /// How long a new machine is missing from `find` and `list`.
    pub tag_lag: RangeInclusive<Duration>,
    /// What each region takes: a bucket that is full at first. A launch beyond it is refused, and
    /// [`super::SimCompute::refused_launches`] counts it.
    pub takes: Ration,
    /// What the provider believes that each region takes.
    pub launches: Ration,
}

impl Default for Ec2Like {
    /// Boots of 45 to 180 s, calls of 100 to 300 ms, tags after 2 s at most, and AWS's ration of
    /// launches.
    fn default() -> Self {
        let milliseconds = |from, to| Duration::from_millis(from)..=Duration::from_millis(to);
        Self {
            boots: milliseconds(45_000, 180_000),
            latency: milliseconds(100, 300),
            tag_lag: milliseconds(0, 2_000),
            takes: Ration::default(),
            launches: Ration::default(),
        }
    }
}

/// A token bucket, as AWS describes its own ("Request throttling for the Amazon EC2 API"). Nothing
/// of [`Pace`] is in it: the one is tested against the other.
pub(super) struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn full(ration: Ration) -> Self {
        Self {
            tokens: f64::from(ration.burst.get()),
            at: Instant::now(),
        }
    }

    /// False: too many.
    pub(super) fn take(&mut self, ration: Ration) -> bool {
        let now = Instant::now();
        let refilled = now
            .duration_since(self.at)
            .div_duration_f64(ration.interval);
        self.tokens = (self.tokens + refilled).min(f64::from(ration.burst.get()));
        self.at = now;
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }
}

/// The provider's side of a region.
pub(super) struct Regional {
    pub pace: Pace,
    pub looks: Looks<Machine, ProviderError>,
}

pub(super) type Regions = HashMap<Region, Regional>;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_takes_a_burst_and_then_two_a_second() {
        let ration = Ration::default();
        let mut bucket = Bucket::full(ration);
        let at_once = (0..20).filter(|_| bucket.take(ration)).count();
        assert_eq!(at_once, 5);
        let mut taken = 0;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            taken += usize::from(bucket.take(ration));
        }
        assert!((19..=20).contains(&taken), "{taken} in ten seconds");
        tokio::time::sleep(Duration::from_mins(1)).await;
        let after_a_rest = (0..20).filter(|_| bucket.take(ration)).count();
        assert_eq!(after_a_rest, 5);
    }
}
