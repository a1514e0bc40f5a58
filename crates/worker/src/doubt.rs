//! When a provider's list is not believed. Credentials of another account, or a policy that hides
//! machines, give a list that is well-formed and empty; taken for the truth, it would make every
//! project of the region lost.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cp_model::{Machine, MachineState, Region};

use crate::Worker;
use crate::reconcile::count_mended;

/// Fewer machines than that may be gone at once: people and hardware do that.
const MANY: usize = 5;

/// The regions whose lists are doubted now.
#[derive(Default)]
pub(crate) struct Doubts(Mutex<BTreeSet<Region>>);

impl Doubts {
    pub(crate) fn has(&self, region: Region) -> bool {
        self.lock().contains(&region)
    }

    /// True: that is news.
    fn set(&self, region: Region, doubted: bool) -> bool {
        if doubted {
            self.lock().insert(region)
        } else {
            self.lock().remove(&region)
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Region>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    /// Whether our rows or the list of a region are rather wrong than true. `is_listed`: whether the
    /// list has the machine of a row; `strays`: how many of the `listed` machines no row owns.
    pub(crate) fn doubt(
        &self,
        region: Region,
        rows: &[Machine],
        is_listed: impl Fn(&Machine) -> bool,
        strays: usize,
        listed: usize,
    ) -> Doubt {
        let recorded = || rows.iter().filter(|row| holds_data_for_sure(row));
        let unlisted = || recorded().filter(|row| !is_listed(row));
        let count = unlisted().count();
        let one_is_heard = unlisted().any(|row| self.heard_lately(row));
        let doubt = if self.config().believe_losses {
            Doubt::None
        } else if is_doubtful(recorded().count(), count, one_is_heard) {
            Doubt::List
        } else if are_many(strays, listed) {
            Doubt::Rows
        } else {
            Doubt::None
        };
        let is_news = self.doubts().set(region, doubt != Doubt::None);
        match doubt {
            Doubt::List => {
                count_mended("loss_doubted");
                if is_news {
                    tracing::error!(%region, unlisted = count, "the provider's list lacks most machines of the region; nothing is done about it: are these the right credentials? (worker.losses)");
                }
            }
            Doubt::Rows => {
                count_mended("orphans_doubted");
                if is_news {
                    tracing::error!(%region, strays, "most machines of the region are in no row; none is ended: is this the right database, and whole? (worker.losses)");
                }
            }
            Doubt::None if is_news => {
                tracing::warn!(%region, "the provider's list and our rows are believed again");
            }
            Doubt::None => {}
        }
        doubt
    }
}

/// What is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    None,
    /// The provider's list: machines that our rows have are not in it.
    List,
    /// Our rows: machines that the provider has are not in them. An empty database, or another
    /// one's, would make orphans of everything that customers have.
    Rows,
}

/// Recorded as launched, with a project, and nobody has ended it.
fn holds_data_for_sure(row: &Machine) -> bool {
    row.project_id.is_some()
        && row.provider_ref.is_some()
        && matches!(
            row.state,
            MachineState::Booting | MachineState::Ready | MachineState::Stopped
        )
}

fn are_many(these: usize, of: usize) -> bool {
    these >= MANY && these * 2 > of
}

/// Many of them and most of them; or all, while one of them speaks to us.
fn is_doubtful(recorded: usize, unlisted: usize, one_is_heard: bool) -> bool {
    are_many(unlisted, recorded) || (unlisted > 0 && unlisted == recorded && one_is_heard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_and_hardware_do_is_believed() {
        // (recorded, unlisted)
        for (recorded, unlisted) in [(1, 0), (1, 1), (4, 4), (100, 1), (100, 50), (9, 4)] {
            assert!(
                !is_doubtful(recorded, unlisted, false),
                "{unlisted} of {recorded}"
            );
        }
        for (recorded, unlisted) in [(5, 5), (9, 5), (100, 51), (100, 100)] {
            assert!(
                is_doubtful(recorded, unlisted, false),
                "{unlisted} of {recorded}"
            );
        }
        // Gone, and its agent speaks.
        assert!(is_doubtful(1, 1, true));
        assert!(!is_doubtful(2, 1, true));
        assert!(!is_doubtful(0, 0, true));
    }
}
