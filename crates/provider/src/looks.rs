//! Looks for single machines, many in one call: while one call is out, whoever else wants to look
//! is gathered for the next. Two thousand operations that wait for their machines cost a call per
//! two hundred, not two thousand.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_ec2::types as t;
use cp_model::MachineId;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::client::{Client, MACHINE, MOST_VALUES, filter};
use super::trouble::Trouble;

/// Calls at once: one that stalls holds up only those who are in it.
const CALLS: usize = 4;

type Found = Result<Vec<t::Instance>, Trouble>;

struct Look {
    id: MachineId,
    answer: oneshot::Sender<Found>,
}

pub(super) struct Looks {
    asks: mpsc::UnboundedSender<Look>,
}

impl Looks {
    /// Needs a tokio runtime; ends with the last of its owners.
    pub(super) fn new(client: Arc<Client>) -> Self {
        let (asks, waiting) = mpsc::unbounded_channel();
        tokio::spawn(look_together(client, waiting));
        Self { asks }
    }

    /// Instances with that machine's tag, in no order.
    pub(super) async fn find(&self, id: MachineId) -> Found {
        let (answer, found) = oneshot::channel();
        let gone = || Trouble::NotDone("the process is ending".into());
        self.asks.send(Look { id, answer }).map_err(|_| gone())?;
        found.await.unwrap_or_else(|_| Err(gone()))
    }
}

async fn look_together(client: Arc<Client>, mut waiting: mpsc::UnboundedReceiver<Look>) {
    let calls = Arc::new(Semaphore::new(CALLS));
    let mut looks = Vec::new();
    // The place first: those who come while all are taken are gathered meanwhile.
    while let Ok(place) = calls.clone().acquire_owned().await {
        if waiting.recv_many(&mut looks, MOST_VALUES).await == 0 {
            return;
        }
        let (client, looks) = (client.clone(), std::mem::take(&mut looks));
        tokio::spawn(async move {
            answer(&client, looks).await;
            drop(place);
        });
    }
}

async fn answer(client: &Client, looks: Vec<Look>) {
    let ids = looks.iter().map(|look| look.id);
    let by_tag = filter(format!("tag:{MACHINE}"), ids);
    let found = client.instances(Some(by_tag)).await;
    let mut by_machine: HashMap<MachineId, Vec<t::Instance>> = HashMap::new();
    let failure = match found {
        Ok(instances) => {
            for instance in instances {
                if let Some(id) = machine_id(&instance) {
                    by_machine.entry(id).or_default().push(instance);
                }
            }
            None
        }
        Err(trouble) => Some(trouble),
    };
    for look in looks {
        let answer = match &failure {
            None => Ok(by_machine.get(&look.id).cloned().unwrap_or_default()),
            Some(trouble) => Err(trouble.clone()),
        };
        // Whoever asked may have gone.
        let _ = look.answer.send(answer);
    }
}

/// Which machine of ours an instance is.
pub(super) fn machine_id(instance: &t::Instance) -> Option<MachineId> {
    let mut tags = instance.tags().iter();
    let tag = tags.find(|tag| tag.key() == Some(MACHINE))?;
    tag.value()?.parse().ok()
}
