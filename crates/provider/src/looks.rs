//! Looks for single machines, many in one call. The first look goes out at once; whoever wants to
//! look within [`GATHER`] of it, or while every call is out, is gathered for the next. Two thousand
//! operations that wait for their machines cost a few calls a second, not two thousand.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cp_model::MachineId;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

/// The most values that one filter takes (EC2 API reference, "Filter").
const MOST_VALUES: usize = 200;
/// Calls at once: one that stalls holds up only those who are in it.
const CALLS: usize = 4;
/// From the beginning of one call to that of the next. Calls are what costs: of fifty looks a
/// second, each by itself, a project that is made would need a dozen.
const GATHER: Duration = Duration::from_millis(250);

/// The longest that a look takes. Who looks holds a worker's slot, and others need it.
const LONGEST: Duration = Duration::from_secs(15);
/// How much later its call ends: who looks says first that it took too long.
const CALLED_OFF: Duration = Duration::from_secs(1);
/// After a look that took that long, others fail at once: the region would take their slots too.
const REST: Duration = Duration::from_secs(5);

/// Why a look has no answer, when that is not its call's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("the process is ending")]
    Ending,
    #[error("no look was answered within {} s", LONGEST.as_secs())]
    Late,
}

/// Since when the region is known to be slow.
#[derive(Default)]
struct Slow(Mutex<Option<Instant>>);

impl Slow {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn rests(&self) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() < REST)
    }
}

struct Look<T, E> {
    id: MachineId,
    answer: oneshot::Sender<Result<Vec<T>, E>>,
}

/// `T` is what is found; `E` is why a call failed, which everybody in it learns.
pub(crate) struct Looks<T, E> {
    asks: mpsc::UnboundedSender<Look<T, E>>,
    slow: Slow,
}

impl<T, E> Looks<T, E>
where
    T: Clone + Send + 'static,
    E: Clone + From<NoAnswer> + Send + 'static,
{
    /// `call` finds what carries these machines' tags. Needs a tokio runtime; ends with the last
    /// of its owners.
    pub(crate) fn new<C, F>(call: C) -> Self
    where
        C: Fn(Vec<MachineId>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Vec<(MachineId, T)>, E>> + Send + 'static,
    {
        let (asks, waiting) = mpsc::unbounded_channel();
        tokio::spawn(look_together(Arc::new(call), waiting));
        Self {
            asks,
            slow: Slow::default(),
        }
    }

    /// All with that machine's tag, in no order.
    pub(crate) async fn find(&self, id: MachineId) -> Result<Vec<T>, E> {
        if self.slow.rests() {
            return Err(NoAnswer::Late.into());
        }
        let (answer, found) = oneshot::channel();
        let gone = || E::from(NoAnswer::Ending);
        self.asks.send(Look { id, answer }).map_err(|_| gone())?;
        // Also of those who wait for their turn.
        let Ok(found) = timeout(LONGEST, found).await else {
            self.slow.note();
            return Err(NoAnswer::Late.into());
        };
        found.unwrap_or_else(|_| Err(gone()))
    }
}

async fn look_together<T, E, C, F>(call: Arc<C>, mut waiting: mpsc::UnboundedReceiver<Look<T, E>>)
where
    T: Clone + Send + 'static,
    E: Clone + From<NoAnswer> + Send + 'static,
    C: Fn(Vec<MachineId>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Vec<(MachineId, T)>, E>> + Send + 'static,
{
    let calls = Arc::new(Semaphore::new(CALLS));
    let mut next_call = Instant::now();
    let mut looks = Vec::new();
    // The place and the time first: those who come before both are there are gathered meanwhile.
    while let Ok(place) = calls.clone().acquire_owned().await {
        sleep_until(next_call).await;
        if waiting.recv_many(&mut looks, MOST_VALUES).await == 0 {
            return;
        }
        next_call = Instant::now() + GATHER;
        let (call, looks) = (call.clone(), std::mem::take(&mut looks));
        tokio::spawn(async move {
            answer(&*call, looks).await;
            drop(place);
        });
    }
}

async fn answer<T, E, C, F>(call: &C, looks: Vec<Look<T, E>>)
where
    T: Clone,
    E: Clone + From<NoAnswer>,
    C: Fn(Vec<MachineId>) -> F,
    F: Future<Output = Result<Vec<(MachineId, T)>, E>>,
{
    let call = call(looks.iter().map(|look| look.id).collect());
    // Nobody waits for it any more by then, and the place is for others.
    let found = timeout(LONGEST + CALLED_OFF, call).await;
    let found = found.unwrap_or_else(|_| Err(NoAnswer::Late.into()));
    let found = found.map(|found| {
        let mut by_machine: HashMap<MachineId, Vec<T>> = HashMap::new();
        for (id, machine) in found {
            by_machine.entry(id).or_default().push(machine);
        }
        by_machine
    });
    for look in looks {
        let answer = match &found {
            Ok(by_machine) => Ok(by_machine.get(&look.id).cloned().unwrap_or_default()),
            Err(error) => Err(error.clone()),
        };
        // Whoever asked may have gone.
        let _ = look.answer.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Gone;

    impl From<NoAnswer> for Gone {
        fn from(_: NoAnswer) -> Self {
            Self
        }
    }

    type Calls = Arc<Mutex<Vec<usize>>>;

    /// Finds every machine that is asked for; `calls` learns how many were asked for together.
    fn looks(takes: Duration) -> (Looks<MachineId, Gone>, Calls) {
        let calls = Calls::default();
        let looks = Looks::new({
            let calls = calls.clone();
            move |ids: Vec<MachineId>| {
                calls.lock().unwrap().push(ids.len());
                async move {
                    tokio::time::sleep(takes).await;
                    Ok(ids.into_iter().map(|id| (id, id)).collect())
                }
            }
        });
        (looks, calls)
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_by_itself_goes_out_at_once() {
        let (looks, calls) = looks(Duration::from_millis(100));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (id, began) = (MachineId::generate(), Instant::now());
        assert_eq!(looks.find(id).await, Ok(vec![id]));
        assert_eq!(began.elapsed(), Duration::from_millis(100));
        assert_eq!(*calls.lock().unwrap(), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn many_looks_are_few_calls_and_everybody_gets_an_own_answer() {
        let (looks, calls) = looks(Duration::from_millis(100));
        let looks = Arc::new(looks);
        let mut asking = tokio::task::JoinSet::new();
        // Fifty a second, for ten seconds.
        for number in 0..500u32 {
            let looks = looks.clone();
            asking.spawn(async move {
                tokio::time::sleep(Duration::from_millis(20) * number).await;
                let (id, began) = (MachineId::generate(), Instant::now());
                assert_eq!(looks.find(id).await, Ok(vec![id]));
                began.elapsed()
            });
        }
        let longest = asking.join_all().await.into_iter().max().unwrap();
        assert!(
            longest <= GATHER + Duration::from_millis(100),
            "{longest:?}"
        );
        let calls = calls.lock().unwrap();
        assert_eq!(calls.iter().sum::<usize>(), 500);
        assert!(calls.len() <= 41, "{} calls", calls.len());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_stall_hold_up_only_those_who_are_in_them() {
        let stall = Duration::from_secs(10);
        let (looks, _) = looks(stall);
        let looks = Arc::new(looks);
        let began = Instant::now();
        let mut asking = tokio::task::JoinSet::new();
        for number in 0..4u32 {
            let looks = looks.clone();
            asking.spawn(async move {
                tokio::time::sleep(GATHER * number).await;
                looks.find(MachineId::generate()).await
            });
        }
        asking.join_all().await;
        assert_eq!(began.elapsed(), stall + GATHER * 3);
    }
}
