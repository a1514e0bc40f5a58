//! What goes wrong, and when.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::ProviderError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    Find,
    List,
    Launch,
    Start,
    Stop,
    Terminate,
    Resize,
    GrowVolume,
    Ailing,
    Leftovers,
    DeleteLeftover,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Refused with [`ProviderError::Transient`]; nothing happened.
    BeforeEffect,
    /// It happened, and the answer is [`ProviderError::Ambiguous`].
    AfterEffect,
    /// It happened, and the answer is [`ProviderError::Transient`]: a provider that lies.
    AfterEffectDenied,
    /// [`ProviderError::Capacity`]; nothing happened.
    Capacity,
    /// [`ProviderError::Permanent`]; nothing happened.
    Permanent,
    /// It happens, and the answer comes that much later.
    Hang(Duration),
}

impl Fault {
    pub(super) fn has_effect(self) -> bool {
        matches!(
            self,
            Self::AfterEffect | Self::AfterEffectDenied | Self::Hang(_)
        )
    }

    pub(super) fn error(self, verb: Verb) -> ProviderError {
        let text = format!("simulated fault of {verb:?}");
        match self {
            Self::BeforeEffect | Self::AfterEffectDenied | Self::Hang(_) => {
                ProviderError::Transient(text)
            }
            Self::AfterEffect => ProviderError::Ambiguous(text),
            Self::Capacity => ProviderError::Capacity(text),
            Self::Permanent => ProviderError::Permanent(text),
        }
    }
}

/// Scripted faults first, in order; else random ones.
pub(super) struct Faults {
    scripts: HashMap<Verb, VecDeque<Fault>>,
    calls: HashMap<Verb, usize>,
    random: StdRng,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            scripts: HashMap::new(),
            calls: HashMap::new(),
            random: StdRng::seed_from_u64(seed),
        }
    }

    pub(super) fn script(&mut self, verb: Verb, fault: Fault) {
        self.scripts.entry(verb).or_default().push_back(fault);
    }

    pub(super) fn calls(&self, verb: Verb) -> usize {
        self.calls.get(&verb).copied().unwrap_or(0)
    }

    /// Pages of an answer after its first.
    pub(super) fn count_pages(&mut self, verb: Verb, more: usize) {
        *self.calls.entry(verb).or_default() += more;
    }

    /// Counts the call and tells what goes wrong with it. A provider that lies says so too.
    pub(super) fn due(&mut self, verb: Verb, rate: f64, lies: bool) -> Option<Fault> {
        *self.calls.entry(verb).or_default() += 1;
        let scripted = self.scripts.get_mut(&verb).and_then(VecDeque::pop_front);
        if scripted.is_some() {
            return scripted;
        }
        if !self.random.random_bool(rate.clamp(0.0, 1.0)) {
            return None;
        }
        Some(
            match self.random.random_range(0..if lies { 3 } else { 2 }) {
                0 => Fault::BeforeEffect,
                1 => Fault::AfterEffect,
                _ => Fault::AfterEffectDenied,
            },
        )
    }
}
