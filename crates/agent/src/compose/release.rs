//! Which release to run: the desired one, or the last that served when that one has failed.

use cp_model::agent_protocol::DesiredBackend;

use super::notes::{GivenUp, Notes};

/// The release to run now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub release: String,
    /// It stands in for one that did not become healthy.
    pub in_place_of: Option<GivenUp>,
}

pub(crate) fn choose(desired: &DesiredBackend, default: &str, notes: &Notes) -> Target {
    let wanted = wanted(desired, default, notes);
    let given_up = notes
        .given_up()
        .filter(|given_up| given_up.release == wanted && given_up.restarts == desired.restarts);
    match (given_up, notes.served()) {
        (Some(given_up), Some(served)) if served != wanted => Target {
            release: served.to_owned(),
            in_place_of: Some(given_up.clone()),
        },
        _ => Target {
            release: wanted,
            in_place_of: None,
        },
    }
}

fn wanted(desired: &DesiredBackend, default: &str, notes: &Notes) -> String {
    if let Some(release) = &desired.release {
        return release.clone();
    }
    // None is named: what this restart began with goes on, whatever agent.json says by now. An
    // upgrade of the agent is no reason to restart a customer's backend.
    let given_up = notes.given_up().map(|g| (g.restarts, &g.release));
    let written = notes.written().map(|w| &w.stack);
    let written = written.map(|stack| (stack.restarts, &stack.release));
    for (restarts, release) in given_up.into_iter().chain(written) {
        if restarts == desired.restarts {
            return release.clone();
        }
    }
    match notes.served() {
        Some(served) if !is_newer(default, served) => served.to_owned(),
        _ => default.to_owned(),
    }
}

/// By the numbers of `v2.3.1`. False where that cannot be told: a database goes forward only.
fn is_newer(one: &str, other: &str) -> bool {
    matches!((numbers(one), numbers(other)), (Some(one), Some(other)) if one > other)
}

fn numbers(release: &str) -> Option<Vec<u64>> {
    let numbers = release.strip_prefix('v').unwrap_or(release).split('.');
    numbers.map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        assert!(is_newer("v2.10.0", "v2.9.3"));
        assert!(is_newer("2.3.1", "v2.3"));
        assert!(!is_newer("v2.3.1", "v2.3.1"));
        assert!(!is_newer("main", "v2.3.1") && !is_newer("v3.0.0", "main"));
    }
}
