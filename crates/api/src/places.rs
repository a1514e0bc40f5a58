//! Who may be worked on, and who may wait. A request holds a [`Place`] as long as it is worked on
//! and leaves it to wait: waiting costs next to nothing, and a few busy partners that wait for
//! their machines must not shut out the others. [`Waits`] bounds the waiting, per partner.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::FromRequestParts;
use cp_model::{PartnerId, UserId};
use http::request::Parts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests of one partner that may wait at once in this process. One more is answered at once
/// with how things stand, as if its time were up.
const WAITS_PER_PARTNER: usize = 200;

/// A request's place among those that are worked on. Free again when it is left or when its last
/// clone is dropped, so a request that goes on without its caller still counts.
#[derive(Clone, Default)]
pub struct Place(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Place {
    /// None: all are taken.
    pub fn take(places: &Arc<Semaphore>) -> Option<Self> {
        let permit = Arc::clone(places).try_acquire_owned().ok()?;
        Some(Self(Arc::new(Mutex::new(Some(permit)))))
    }

    fn leave(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The place that the front door gave; in a router without one, a place that nobody counts.
impl<S: Send + Sync> FromRequestParts<S> for Place {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.remove().unwrap_or_default())
    }
}

/// How many requests of each caller wait; callers without any are not in it.
#[derive(Default)]
pub struct Waits(Mutex<HashMap<String, usize>>);

impl Waits {
    /// Turns the request's place into one to wait in. None: the partner has as many as it may
    /// have, the request keeps its place and does not wait.
    pub fn begin(self: &Arc<Self>, partner: &PartnerId, place: &Place) -> Option<Waiting> {
        self.begin_for(partner.as_str(), place)
    }

    /// The same, for a person.
    pub fn begin_for_user(self: &Arc<Self>, user: UserId, place: &Place) -> Option<Waiting> {
        self.begin_for(&user.to_string(), place)
    }

    fn begin_for(self: &Arc<Self>, caller: &str, place: &Place) -> Option<Waiting> {
        {
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = waiting.entry(caller.to_owned()).or_default();
            if *count >= WAITS_PER_PARTNER {
                return None;
            }
            *count += 1;
        }
        place.leave();
        Some(Waiting {
            waits: Arc::clone(self),
            caller: caller.to_owned(),
        })
    }
}

/// One request that waits, until dropped.
pub struct Waiting {
    waits: Arc<Waits>,
    caller: String,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = self.waits.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waiting.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_last_clone_is_gone() {
        let places = Arc::new(Semaphore::new(1));
        let place = Place::take(&places).unwrap();
        let clone = place.clone();
        drop(place);
        assert!(Place::take(&places).is_none());
        drop(clone);
        assert!(Place::take(&places).is_some());
    }

    #[test]
    fn who_waits_leaves_its_place_to_others() {
        let places = Arc::new(Semaphore::new(1));
        let place = Place::take(&places).unwrap();
        let waits = Arc::new(Waits::default());
        let _waiting = waits.begin(&PartnerId::generate(), &place).unwrap();
        assert!(Place::take(&places).is_some());
    }

    #[test]
    fn one_partner_cannot_take_the_waits_of_another() {
        let waits = Arc::new(Waits::default());
        let (busy, other) = (PartnerId::generate(), PartnerId::generate());
        let begin = |partner| waits.begin(partner, &Place::default());
        let mut held: Vec<_> = (0..WAITS_PER_PARTNER)
            .filter_map(|_| begin(&busy))
            .collect();
        assert_eq!(held.len(), WAITS_PER_PARTNER);

        let places = Arc::new(Semaphore::new(1));
        let place = Place::take(&places).unwrap();
        assert!(waits.begin(&busy, &place).is_none());
        assert!(
            Place::take(&places).is_none(),
            "who may not wait keeps its place"
        );
        assert!(begin(&other).is_some());

        held.pop();
        assert!(begin(&busy).is_some());
        held.clear();
        assert!(waits.0.lock().unwrap().is_empty());
    }
}
