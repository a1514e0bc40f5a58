//! How long to wait after a failure: doubling, with jitter so that thousands of agents do not come
//! back in one instant.

use std::time::Duration;

use rand::Rng;

#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            failures: 0,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Between half and all of `first` × 2^failures, at most `most`.
    pub(crate) fn next(&mut self) -> Duration {
        let factor = 2u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        let longest = self.first.saturating_mul(factor).min(self.most);
        longest.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_its_limit_and_starts_over() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second * 10);
        let first = backoff.next();
        assert!(first >= second / 2 && first <= second, "{first:?}");
        for _ in 0..100 {
            backoff.next();
        }
        let late = backoff.next();
        assert!(late >= second * 5 && late <= second * 10, "{late:?}");
        backoff.reset();
        assert!(backoff.next() <= second);
    }
}
