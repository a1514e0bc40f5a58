//! Launches in turn. AWS throttles RunInstances per account and region; a launch that it refuses
//! costs a call and tells nothing about when to come back. So everybody who wants to launch gets a
//! place in a line here, and is told when it is due. Waiting holds no worker's slot.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cp_model::MachineId;
use tokio::time::Instant;

/// The longest that anybody is told to wait: who comes back shows that it still stands in the line.
const COME_BACK: Duration = Duration::from_mins(1);
/// A place that nobody came back for is nobody's after that.
const PLACE_KEPT: Duration = Duration::from_secs(90);
/// The longest that a throttling provider slows us down to, per launch.
const SLOWEST: Duration = Duration::from_secs(10);

/// How many launches a region takes: AWS gives RunInstances a bucket per account and region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ration {
    /// Between two launches in the long run.
    pub interval: Duration,
    /// At once after a rest.
    pub burst: NonZeroU32,
}

impl Default for Ration {
    /// Two a second and five at once: what AWS gives a new account.
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(500),
            burst: NonZeroU32::MIN.saturating_add(4),
        }
    }
}

/// The generic cell rate algorithm twice: for the places in the line, which are kept, and for the
/// launches that go out.
pub(crate) struct Pace {
    ration: Ration,
    state: Mutex<State>,
}

struct State {
    /// Where the line ends: when its last one is due, and the bucket full again after that.
    full_at: Instant,
    /// The same of the launches that did go out: who comes late comes together with others, and
    /// the provider counts when they come.
    spent_until: Instant,
    /// More than the ration's while the provider says that it is too much.
    interval: Duration,
    places: HashMap<MachineId, Place>,
    slowed_at: Option<Instant>,
}

struct Place {
    due: Instant,
    seen: Instant,
}

impl Ration {
    /// One less than the burst, so that a call that is faster than the one before it meets a token.
    fn at_once(&self) -> u32 {
        self.burst.get().saturating_sub(1).max(1)
    }
}

impl State {
    /// The line ends behind the last one who still stands in it.
    fn forget_the_gone(&mut self, now: Instant, ration: &Ration) {
        self.places.retain(|_, place| now < place.seen + PLACE_KEPT);
        let last = self.places.values().map(|place| place.due).max();
        let end = last.map_or(now, |due| due.max(now)) + ration.interval * ration.at_once();
        self.full_at = self.full_at.min(end);
    }

    fn turn(&mut self, id: MachineId, now: Instant, ration: &Ration) -> Result<(), Duration> {
        self.forget_the_gone(now, ration);
        let more_at_once = ration.at_once() - 1;
        let due = if let Some(place) = self.places.get(&id) {
            place.due
        } else {
            // At the ration's own pace, whatever the present one: that may be over by then.
            let full_at = self.full_at.max(now);
            self.full_at = full_at + ration.interval;
            let due = full_at.checked_sub(ration.interval * more_at_once);
            due.map_or(now, |due| due.max(now))
        };
        self.places.insert(id, Place { due, seen: now });
        let spare = self.interval * more_at_once;
        let free_at = self.spent_until.checked_sub(spare);
        let free_at = free_at.map_or(now, |at| at.max(now));
        if due <= now && free_at <= now {
            return Ok(());
        }
        // Those who have waited longer come first, at the present pace.
        let ahead = self
            .places
            .values()
            .filter(|place| place.due < due.min(now));
        let ahead = u32::try_from(ahead.count()).unwrap_or(u32::MAX);
        let free_in = free_at - now + self.interval.saturating_mul(ahead);
        let due_in = due.max(now) - now;
        Err(due_in.max(free_in).min(COME_BACK))
    }
}

impl Pace {
    pub(crate) fn new(ration: Ration) -> Self {
        Self {
            ration,
            state: Mutex::new(State {
                full_at: Instant::now(),
                spent_until: Instant::now(),
                interval: ration.interval,
                places: HashMap::new(),
                slowed_at: None,
            }),
        }
    }

    /// Whether it is this one's turn; else how long to wait before coming back. It keeps its place
    /// either way.
    pub(crate) fn turn(&self, id: MachineId) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.turn(id, Instant::now(), &self.ration)
    }

    /// As [`Self::turn`]; whose turn it is gives its place up for a launch.
    pub(crate) fn take(&self, id: MachineId) -> Result<(), Duration> {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.turn(id, now, &self.ration)?;
        state.places.remove(&id);
        state.spent_until = state.spent_until.max(now) + state.interval;
        Ok(())
    }

    /// The provider refused a launch as one too many: half as many from now on, after a rest.
    pub(crate) fn slow_down(&self) -> Duration {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that were out together are refused together: that is one refusal.
        if state.slowed_at.is_some_and(|at| now < at + state.interval) {
            return state.interval;
        }
        state.slowed_at = Some(now);
        state.interval = (state.interval * 2).min(SLOWEST.max(self.ration.interval));
        let rest = state.interval * self.ration.burst.get();
        state.spent_until = state.spent_until.max(now + rest);
        state.interval
    }

    /// The provider took a launch: a little faster again, up to the ration.
    pub(crate) fn speed_up(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let eased = state.interval * 15 / 16;
        state.interval = eased.max(self.ration.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(Ration {
            interval: Duration::from_millis(500),
            burst: NonZeroU32::new(5).unwrap(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_gets_one_turn_in_order_and_no_more_than_the_ration() {
        let pace = pace();
        let mut waiting: Vec<(MachineId, Duration)> = (0..25)
            .map(|_| MachineId::generate())
            .filter_map(|id| pace.take(id).err().map(|wait| (id, wait)))
            .collect();
        assert_eq!(waiting.len(), 21, "four at once, one in hand");
        let began = Instant::now();
        let mut launched = 0;
        while let Some((id, wait)) = waiting.first().copied() {
            tokio::time::sleep_until(began + wait).await;
            waiting.remove(0);
            pace.take(id).unwrap();
            launched += 1;
            let allowed = began.elapsed().as_millis() / 500;
            assert!(
                launched <= allowed,
                "{launched} after {:?}",
                began.elapsed()
            );
        }
        assert_eq!(began.elapsed(), Duration::from_millis(10_500));
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_too_early_keeps_the_place() {
        let pace = pace();
        for _ in 0..4 {
            pace.take(MachineId::generate()).unwrap();
        }
        let id = MachineId::generate();
        let first = pace.take(id).unwrap_err();
        assert_eq!(pace.take(id).unwrap_err(), first);
        tokio::time::sleep(first).await;
        pace.turn(id).unwrap();
        pace.turn(id).unwrap();
        pace.take(id).unwrap();
        assert!(pace.turn(id).is_err(), "a place is for one launch");
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_come_late_do_not_all_go_at_once() {
        let pace = pace();
        let all: Vec<MachineId> = (0..30).map(|_| MachineId::generate()).collect();
        let go = || {
            let mut waits = Vec::new();
            let gone = all.iter().filter(|id| match pace.take(**id) {
                Ok(()) => true,
                Err(wait) => {
                    waits.push(wait);
                    false
                }
            });
            (gone.count(), waits)
        };
        assert_eq!(go().0, 4);
        // By now all of them are due.
        tokio::time::sleep(Duration::from_mins(1)).await;
        let (gone, waits) = go();
        assert_eq!(gone, 4);
        assert!(
            waits.iter().max() >= Some(&Duration::from_secs(10)),
            "{waits:?}"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(go().0, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_do_not_come_back_hold_up_nobody() {
        let pace = pace();
        for _ in 0..1_000 {
            let _ = pace.take(MachineId::generate());
        }
        assert_eq!(pace.take(MachineId::generate()), Err(COME_BACK));
        tokio::time::sleep(PLACE_KEPT).await;
        let wait = pace.take(MachineId::generate()).err();
        assert!(wait <= Some(Duration::from_millis(500)), "{wait:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_slow_it_down_and_launches_speed_it_up_again() {
        let pace = pace();
        assert_eq!(pace.slow_down(), Duration::from_secs(1));
        assert!(pace.take(MachineId::generate()).is_err(), "a rest first");
        assert_eq!(
            pace.slow_down(),
            Duration::from_secs(1),
            "it is one refusal"
        );
        for _ in 0..20 {
            tokio::time::sleep(SLOWEST).await;
            pace.slow_down();
        }
        assert_eq!(pace.slow_down(), SLOWEST);
        for _ in 0..100 {
            pace.speed_up();
        }
        tokio::time::sleep(Duration::from_mins(5)).await;
        for _ in 0..4 {
            pace.take(MachineId::generate()).unwrap();
        }
        let wait = pace.take(MachineId::generate()).unwrap_err();
        assert_eq!(wait, Duration::from_millis(500));
    }
}
