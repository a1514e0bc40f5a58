//! The warm pool over a simulated day, second by second, with the worker's own rule: how many
//! projects find a warm machine, and what it costs to have them wait. No real time passes.

#![allow(clippy::cast_precision_loss)] // counts, far below 2^52

use std::collections::VecDeque;
use std::time::Duration;

use chrono::TimeDelta;
use cp_model::{InstanceType, Region};
use cp_worker::pool::{BURST_WINDOW, Demand, MostWanted, USUAL_WINDOW, wanted_machines};
use cp_worker::{PoolTarget, WorkerConfig};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::at_least;
use crate::report::Row;

const DAY: u32 = 86_400;
const MINUTE: f64 = 60.0;
/// A launch's boot, and a stopped machine's start, in seconds.
const BOOTS: (f64, f64) = (45.0, 180.0);
const STARTS: (f64, f64) = (20.0, 30.0);
/// Until a machine that was told to stop has stopped, in seconds.
const STOPS: f64 = 30.0;
/// Launches that the region takes: a second, and at once.
const LAUNCHES: (f64, f64) = (2.0, 5.0);
/// USD an hour of a t3.small in us-east-1 while it runs, unless the command line says otherwise.
pub const PRICE: f64 = 0.0208;
/// USD an hour of its disk: 8 GiB of gp3 at 0.08 a month.
const DISK_PRICE: f64 = 8.0 * 0.08 / 730.0;
/// Seconds that EC2 bills at least.
const BILLED: f64 = 60.0;
const TARGET: PoolTarget = PoolTarget {
    region: Region::UsEast,
    instance_type: InstanceType::Nano,
    floor: 2,
    ceiling: 60,
};

#[derive(Clone, Copy)]
enum Arrivals {
    /// So many a minute, all day.
    Poisson(f64),
    /// One a minute, and twenty a minute for ten minutes once an hour on average.
    Bursts,
}

impl Arrivals {
    /// Seconds since midnight, in order.
    fn draw(self, random: &mut StdRng) -> Vec<f64> {
        let (mut now, mut bursting, mut turns_at) = (0.0, false, f64::from(DAY));
        if matches!(self, Self::Bursts) {
            turns_at = exponential(random, 50.0 * MINUTE);
        }
        let mut arrivals = Vec::new();
        while now < f64::from(DAY) {
            let per_minute = match self {
                Self::Poisson(per_minute) => per_minute,
                Self::Bursts if bursting => 20.0,
                Self::Bursts => 1.0,
            };
            let next = now + exponential(random, MINUTE / per_minute);
            // An exponential pause has no memory: it may be drawn anew at the turn.
            if next > turns_at {
                now = turns_at;
                bursting = !bursting;
                turns_at += if bursting {
                    10.0 * MINUTE
                } else {
                    exponential(random, 50.0 * MINUTE)
                };
            } else {
                now = next;
                arrivals.push(now);
            }
        }
        arrivals.retain(|at| *at < f64::from(DAY));
        arrivals
    }
}

fn exponential(random: &mut StdRng, mean: f64) -> f64 {
    -mean * (1.0 - random.random::<f64>()).ln()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    /// The worker's.
    Ours,
    /// What is asked for during a boot and half as much again, and surplus ended at once: what a
    /// plain factor comes to.
    HalfAgain,
}

/// What is wanted now, and what is kept of it.
struct Sizing {
    rule: Rule,
    most_wanted: MostWanted,
}

impl Sizing {
    fn new(rule: Rule) -> Self {
        let most_wanted = MostWanted::default();
        Self { rule, most_wanted }
    }

    fn size(&mut self, now: u32, demand: Demand, lead_time: Duration) -> (usize, usize) {
        let (wanted, kept) = match self.rule {
            Rule::Ours => {
                let wanted = wanted_machines(&TARGET, demand, lead_time);
                let now = Duration::from_secs(now.into());
                (wanted, self.most_wanted.note(now, wanted))
            }
            Rule::HalfAgain => {
                let during_boot = demand.usual * lead_time.as_secs_f64() / MINUTE;
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // below 100
                let wanted = (during_boot * 1.5).ceil() as u32;
                let wanted = wanted.clamp(TARGET.floor, TARGET.ceiling);
                (wanted, wanted)
            }
        };
        (wanted as usize, kept as usize)
    }
}

/// Machines of one kind: those that wait, and those that will.
#[derive(Default)]
struct Shelf {
    /// Since when each runs, or in the stopped tier: since when it is stopped.
    waiting: VecDeque<f64>,
    /// When each is ready, and since when it runs.
    coming: Vec<(f64, f64)>,
    /// Without a place in the ration of launches yet.
    queued: usize,
}

impl Shelf {
    fn count(&self) -> usize {
        self.waiting.len() + self.coming.len() + self.queued
    }

    fn surplus(&self, kept: usize) -> usize {
        let surplus = self.count().saturating_sub(kept);
        surplus.min(self.waiting.len())
    }

    /// Those that are ready by `now`, with when they became so and since when they ran.
    fn arrive(&mut self, now: f64) -> Vec<(f64, f64)> {
        let (ready, coming) = self.coming.drain(..).partition(|(at, _)| *at <= now);
        self.coming = coming;
        ready
    }
}

#[derive(Debug, Default)]
struct Outcome {
    projects: usize,
    hits: usize,
    /// Seconds that the others waited for a machine.
    waited: f64,
    /// Hours that machines ran before a project had them, boots included, or until they were ended.
    running_hours: f64,
    /// Hours that they were stopped.
    stopped_hours: f64,
    launched: usize,
    ended: usize,
}

impl Outcome {
    fn hit_rate(&self) -> f64 {
        100.0 * self.hits as f64 / self.projects as f64
    }

    fn usd(&self, price: f64) -> f64 {
        self.running_hours * (price + DISK_PRICE) + self.stopped_hours * DISK_PRICE
    }

    fn tell(&self, price: f64) -> String {
        let misses = (self.projects - self.hits).max(1) as f64;
        format!(
            "{:.1} % of {} hit, the others waited {:.0} s; {:.0} h running, {:.0} h stopped, {:.2} USD a day; {} of {} launched were ended unused",
            self.hit_rate(),
            self.projects,
            self.waited / misses,
            self.running_hours,
            self.stopped_hours,
            self.usd(price),
            self.ended,
            self.launched
        )
    }
}

struct Day {
    random: StdRng,
    arrivals: Vec<f64>,
    rule: Rule,
    /// Whether machines are booted and stopped ahead, and started when they are wanted.
    stopped_tier: bool,
}

impl Day {
    fn new(arrivals: Arrivals, rule: Rule, stopped_tier: bool) -> Self {
        // The same arrivals for every rule.
        let mut random = StdRng::seed_from_u64(7);
        Self {
            arrivals: arrivals.draw(&mut random),
            random,
            rule,
            stopped_tier,
        }
    }

    fn between(&mut self, (from, to): (f64, f64)) -> f64 {
        self.random.random_range(from..to)
    }

    fn demand(&self, now: f64) -> Demand {
        let per_minute = |window: TimeDelta| {
            let seconds = window.num_seconds() as f64;
            let before = |at: f64| self.arrivals.partition_point(|arrival| *arrival < at);
            (before(now) - before(now - seconds)) as f64 / (seconds / MINUTE)
        };
        Demand {
            usual: per_minute(USUAL_WINDOW),
            burst: per_minute(BURST_WINDOW),
        }
    }

    fn run(mut self) -> Outcome {
        let mut outcome = Outcome {
            projects: self.arrivals.len(),
            ..Outcome::default()
        };
        let (mut warm, mut stopped) = (Shelf::default(), Shelf::default());
        let (mut warm_size, mut stopped_size) = (Sizing::new(self.rule), Sizing::new(self.rule));
        let boot_time = WorkerConfig::default().boot_time;
        let (mut tokens, mut next, mut unserved) = (LAUNCHES.1, 0, VecDeque::new());
        let run = |outcome: &mut Outcome, seconds: f64| outcome.running_hours += seconds / 3600.0;
        for second in 1..=DAY {
            let now = f64::from(second);
            tokens = f64::min(tokens + LAUNCHES.0, LAUNCHES.1);
            for (_, since) in warm.arrive(now) {
                warm.waiting.push_back(since);
            }
            for (at, since) in stopped.arrive(now) {
                run(&mut outcome, at - since);
                stopped.waiting.push_back(at);
            }
            while self.arrivals.get(next).is_some_and(|at| *at < now) {
                next += 1;
                if let Some(since) = warm.waiting.pop_front() {
                    outcome.hits += 1;
                    run(&mut outcome, now - since);
                } else if let Some(since) = stopped.waiting.pop_front() {
                    outcome.stopped_hours += (now - since) / 3600.0;
                    outcome.waited += self.between(STARTS);
                } else {
                    unserved.push_back(now);
                }
            }
            // Projects first: they wait.
            while tokens >= 1.0
                && let Some(since) = unserved.pop_front()
            {
                tokens -= 1.0;
                outcome.waited += now - since + self.between(BOOTS);
            }
            let demand = self.demand(now);
            let lead_time = if self.stopped_tier {
                let lead_time = boot_time + Duration::from_secs_f64(STOPS);
                let (wanted, kept) = stopped_size.size(second, demand, lead_time);
                stopped.queued += wanted.saturating_sub(stopped.count());
                for _ in 0..stopped.surplus(kept) {
                    let since = stopped.waiting.pop_front().unwrap_or(now);
                    outcome.stopped_hours += (now - since) / 3600.0;
                    outcome.ended += 1;
                }
                Duration::from_secs_f64(STARTS.1)
            } else {
                boot_time
            };
            let (wanted, kept) = warm_size.size(second, demand, lead_time);
            warm.queued += wanted.saturating_sub(warm.count());
            for _ in 0..warm.surplus(kept) {
                let since = warm.waiting.pop_front().unwrap_or(now);
                run(&mut outcome, f64::max(now - since, BILLED));
                outcome.ended += 1;
            }
            while warm.queued > 0
                && let Some(since) = stopped.waiting.pop_front()
            {
                outcome.stopped_hours += (now - since) / 3600.0;
                warm.queued -= 1;
                warm.coming.push((now + self.between(STARTS), now));
            }
            while tokens >= 1.0 && warm.queued + stopped.queued > 0 {
                tokens -= 1.0;
                outcome.launched += 1;
                let booted = now + self.between(BOOTS);
                if warm.queued > 0 {
                    warm.queued -= 1;
                    warm.coming.push((booted, now));
                } else {
                    stopped.queued -= 1;
                    stopped.coming.push((booted + STOPS, now));
                }
            }
        }
        let end = f64::from(DAY);
        let left = warm
            .coming
            .iter()
            .chain(&stopped.coming)
            .map(|(_, since)| since);
        for since in warm.waiting.iter().chain(left) {
            run(&mut outcome, end - since);
        }
        for since in &stopped.waiting {
            outcome.stopped_hours += (end - since) / 3600.0;
        }
        outcome
    }
}

/// `price`: USD an hour of a machine that runs.
pub fn measure(price: f64) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, arrivals, hits, goal) in [
        ("0.2 a minute", Arrivals::Poisson(0.2), 95.0, 99.0),
        ("4 a minute", Arrivals::Poisson(4.0), 97.0, 99.0),
        ("20 a minute", Arrivals::Poisson(20.0), 97.0, 99.0),
        ("1, bursts of 20", Arrivals::Bursts, 85.0, 90.0),
    ] {
        let ours = Day::new(arrivals, Rule::Ours, false).run();
        let plain = Day::new(arrivals, Rule::HalfAgain, false).run();
        let tier = Day::new(arrivals, Rule::Ours, true).run();
        println!("a day of {name}: {}", ours.tell(price));
        println!("  by a plain factor: {}", plain.tell(price));
        println!("  with a stopped tier: {}", tier.tell(price));
        let detail = format!(
            "{:.0} idle hours, {:.2} USD a day; by a plain factor {:.1} % for {:.2}; with a stopped tier {:.1} % for {:.2}",
            ours.running_hours,
            ours.usd(price),
            plain.hit_rate(),
            plain.usd(price),
            tier.hit_rate(),
            tier.usd(price)
        );
        let name = format!("a day of {name}: found a warm machine");
        rows.push(at_least(&name, ours.hit_rate(), "%", hits, goal, detail));
    }
    rows
}
