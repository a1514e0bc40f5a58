//! Rotation, played through time as the worker plays it.

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use crate::keyring::{
    KeyRecord, KeyState, PolicyError, RotationPlan, RotationPolicy, plan_rotation,
};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_750_000_000 + seconds, 0).unwrap()
}

const POLICY: RotationPolicy = RotationPolicy {
    publish_ahead: TimeDelta::seconds(900),
    retire_after: TimeDelta::seconds(660),
    active_lifetime: TimeDelta::seconds(10_000),
};

/// The database's rows and the worker's job.
#[derive(Default)]
struct World {
    keys: Vec<KeyRecord>,
}

impl World {
    fn with_first_key(created: i64) -> Self {
        let mut world = Self::default();
        assert_eq!(
            world.run(created),
            RotationPlan {
                create_next: true,
                ..Default::default()
            }
        );
        assert_eq!(world.run(created).activate.as_deref(), Some("key-0"));
        world
    }

    fn run(&mut self, now: i64) -> RotationPlan {
        self.run_with(at(now), &POLICY, false)
    }

    fn run_with(
        &mut self,
        now: DateTime<Utc>,
        policy: &RotationPolicy,
        force: bool,
    ) -> RotationPlan {
        let plan = plan_rotation(&self.keys, now, policy, force);
        for kid in &plan.retire {
            self.key(kid).state = KeyState::Retired;
        }
        for kid in &plan.begin_retiring {
            let key = self.key(kid);
            (key.state, key.retiring_since) = (KeyState::Retiring, Some(now));
        }
        if let Some(kid) = &plan.activate {
            let key = self.key(kid);
            (key.state, key.activated_at) = (KeyState::Active, Some(now));
        }
        if plan.create_next {
            let kid = format!("key-{}", self.keys.len());
            self.insert(&kid, KeyState::Next, now);
        }
        plan
    }

    fn insert(&mut self, kid: &str, state: KeyState, created_at: DateTime<Utc>) {
        self.keys.push(KeyRecord {
            kid: kid.to_owned(),
            state,
            created_at,
            activated_at: None,
            retiring_since: None,
        });
    }

    fn key(&mut self, kid: &str) -> &mut KeyRecord {
        self.keys.iter_mut().find(|key| key.kid == kid).unwrap()
    }

    fn states(&self) -> Vec<KeyState> {
        self.keys.iter().map(|key| key.state).collect()
    }
}

#[test]
fn a_key_lives_through_its_states_on_time() {
    use KeyState::{Active, Next, Retired, Retiring};
    let mut world = World::with_first_key(0);
    assert!(world.run(9_099).is_empty());
    assert!(world.run(9_100).create_next);
    assert_eq!(world.states(), [Active, Next]);
    assert!(world.run(9_999).is_empty());
    world.run(10_000);
    assert_eq!(world.states(), [Retiring, Active]);
    assert!(world.run(10_659).is_empty());
    world.run(10_660);
    assert_eq!(world.states(), [Retired, Active]);
    assert!(world.run(10_660).is_empty());
}

#[test]
fn a_forced_rotation_publishes_at_once_and_signs_after_the_wait() {
    use KeyState::{Active, Next, Retiring};
    let mut world = World::with_first_key(0);
    assert!(world.run_with(at(100), &POLICY, true).create_next);
    assert!(world.run_with(at(101), &POLICY, true).is_empty());
    assert!(world.run(999).is_empty());
    assert_eq!(world.states(), [Active, Next]);
    world.run(1_000);
    assert_eq!(world.states(), [Retiring, Active]);
}

#[test]
fn when_the_worker_was_away_the_new_key_is_still_published_first() {
    let mut world = World::with_first_key(0);
    let plan = world.run(1_000_000);
    assert_eq!(
        plan,
        RotationPlan {
            create_next: true,
            ..Default::default()
        }
    );
    assert!(world.run(1_000_899).is_empty());
    assert_eq!(world.run(1_000_900).activate.as_deref(), Some("key-1"));
}

#[test]
fn a_clock_that_went_back_changes_nothing() {
    let mut world = World::with_first_key(10_000);
    world.run_with(at(10_100), &POLICY, true);
    assert!(world.run(0).is_empty());
}

#[test]
fn without_an_active_key_the_longest_published_one_signs_at_once() {
    let mut world = World::with_first_key(0);
    world.run_with(at(100), &POLICY, true);
    world.insert("younger", KeyState::Next, at(150));
    world.key("key-0").state = KeyState::Retired;
    assert_eq!(world.run(200).activate.as_deref(), Some("key-1"));
}

#[test]
fn of_several_active_keys_the_latest_stays() {
    let mut world = World::default();
    for (kid, since) in [("a", 0), ("b", 50), ("c", 20)] {
        world.insert(kid, KeyState::Active, at(0));
        world.key(kid).activated_at = Some(at(since));
    }
    assert_eq!(world.run(100).begin_retiring, ["a", "c"]);
    assert_eq!(world.key("b").state, KeyState::Active);
}

#[test]
fn a_retiring_key_without_a_time_starts_its_wait() {
    let mut world = World::with_first_key(0);
    world.insert("lost", KeyState::Retiring, at(0));
    assert_eq!(world.run(5_000).begin_retiring, ["lost"]);
    assert!(world.run(5_659).is_empty());
    assert_eq!(world.run(5_660).retire, ["lost"]);
}

#[test]
fn the_default_policy_is_safe_and_unsafe_ones_are_named() {
    let safe = RotationPolicy::default();
    assert_eq!(safe.validate(), Ok(()));
    let seconds = TimeDelta::seconds;
    let short = RotationPolicy {
        publish_ahead: seconds(299),
        ..safe
    };
    assert_eq!(short.validate(), Err(PolicyError::PublishAheadTooShort));
    let short = RotationPolicy {
        retire_after: seconds(599),
        ..safe
    };
    assert_eq!(short.validate(), Err(PolicyError::RetireAfterTooShort));
    let short = RotationPolicy {
        active_lifetime: seconds(900),
        ..safe
    };
    assert_eq!(short.validate(), Err(PolicyError::ActiveLifetimeTooShort));
}

proptest! {
    /// Whatever the times, however often or seldom the worker runs, and whenever someone forces.
    #[test]
    fn signatures_always_find_their_key(
        publish_ahead in 0..2_000i64,
        retire_after in 0..2_000i64,
        active_lifetime in 0..5_000i64,
        runs in proptest::collection::vec((0..3_000i64, any::<bool>()), 1..60),
    ) {
        let policy = RotationPolicy {
            publish_ahead: TimeDelta::seconds(publish_ahead),
            retire_after: TimeDelta::seconds(retire_after),
            active_lifetime: TimeDelta::seconds(active_lifetime),
        };
        let mut world = World::default();
        let mut now = at(0);
        let mut ever_active = false;
        for (pause, force) in runs {
            now += TimeDelta::seconds(pause);
            let before = world.keys.clone();
            world.run_with(now, &policy, force);

            let active = world.keys.iter().filter(|key| key.state == KeyState::Active).count();
            prop_assert_eq!(active, usize::from(ever_active || active > 0), "exactly one signs");
            ever_active |= active > 0;
            let waiting = world.keys.iter().filter(|key| key.state == KeyState::Next).count();
            prop_assert!(waiting <= 1, "no rotation overtakes another");

            for (old, new) in before.iter().zip(&world.keys) {
                prop_assert!(old.state == new.state || old.state.can_become(new.state));
                if (old.state, new.state) == (KeyState::Next, KeyState::Active) && new.kid != "key-0" {
                    prop_assert!(now - new.created_at >= policy.publish_ahead, "signed too early");
                }
                if new.state == KeyState::Retired && old.state != KeyState::Retired {
                    let last_signature = old.retiring_since.unwrap();
                    prop_assert!(now - last_signature >= policy.retire_after, "gone too early");
                }
            }
        }
    }

    /// A worker that runs often enough rotates on time, again and again.
    #[test]
    fn no_key_signs_longer_than_its_lifetime(runs in proptest::collection::vec(1..60i64, 500..800)) {
        let mut world = World::with_first_key(0);
        let mut now = 0;
        for pause in runs {
            now += pause;
            world.run(now);
            let active = world.keys.iter().find(|key| key.state == KeyState::Active).unwrap();
            let age = at(now) - active.activated_at.unwrap();
            // Two runs may each come up to a minute late: the creating and the activating one.
            prop_assert!(age < POLICY.active_lifetime + TimeDelta::seconds(120), "{age}");
        }
    }
}
