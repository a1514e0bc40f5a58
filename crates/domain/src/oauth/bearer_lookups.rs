//! Whether sign-ins live, for many requests by one statement. Each use of an access token asks the
//! database, so that a sign-in that was ended is ended at once; requests that come while the
//! database answers others are asked for together. One that comes alone waits for nobody.

use std::sync::Weak;

use chrono::{DateTime, Utc};
use cp_model::{ClientId, GrantId, UserId};
use cp_storage::oauth_grants::{self, Bearer, BearerKey};
use tokio::sync::{mpsc, oneshot};

use crate::{ControlPlane, DomainError, DomainResult, Inner};

/// Requests that may wait to be asked for; more of them wait to wait.
const QUEUE: usize = 1_024;
/// Asked for at once.
const MOST: usize = 256;

struct Lookup {
    key: BearerKey,
    answer: oneshot::Sender<DomainResult<Option<Bearer>>>,
}

/// Where requests leave their questions.
pub(crate) struct BearerLookups {
    questions: mpsc::Sender<Lookup>,
}

/// What [`answer`] takes them from.
pub(crate) struct Questions(mpsc::Receiver<Lookup>);

impl BearerLookups {
    pub(crate) fn new() -> (Self, Questions) {
        let (questions, receiver) = mpsc::channel(QUEUE);
        (Self { questions }, Questions(receiver))
    }
}

/// Answers until the business ends.
pub(crate) async fn answer(inner: Weak<Inner>, Questions(mut questions): Questions) {
    let mut lookups = Vec::with_capacity(MOST);
    while questions.recv_many(&mut lookups, MOST).await > 0 {
        // Whose caller has gone needs no answer.
        lookups.retain(|lookup| !lookup.answer.is_closed());
        let (keys, answers): (Vec<BearerKey>, Vec<_>) = lookups
            .drain(..)
            .map(|lookup| (lookup.key, lookup.answer))
            .unzip();
        let Some(inner) = inner.upgrade() else { return };
        match find(&inner, &keys, inner.clock.now()).await {
            Ok(found) => {
                for (answer, bearer) in answers.into_iter().zip(found) {
                    let _ = answer.send(Ok(bearer));
                }
            }
            Err(error) => {
                let text = error.to_string();
                for answer in answers {
                    let error = match &error {
                        DomainError::Unavailable => DomainError::Unavailable,
                        _ => DomainError::Internal(text.clone()),
                    };
                    let _ = answer.send(Err(error));
                }
            }
        }
    }
}

async fn find(
    inner: &Inner,
    keys: &[BearerKey],
    now: DateTime<Utc>,
) -> DomainResult<Vec<Option<Bearer>>> {
    let mut conn = inner.db.acquire_for_one().await?;
    let found = oauth_grants::find_bearers(&mut conn, keys, now).await?;
    conn.done();
    Ok(found)
}

impl ControlPlane {
    /// Whom a token of this sign-in stands for; none: the sign-in is over.
    pub(super) async fn find_bearer(
        &self,
        user: UserId,
        grant: GrantId,
        client: &ClientId,
    ) -> DomainResult<Option<Bearer>> {
        let (answer, answered) = oneshot::channel();
        let key = BearerKey {
            user,
            grant,
            client: client.clone(),
        };
        let ended = |_| DomainError::Unavailable;
        self.inner
            .bearer_lookups
            .questions
            .send(Lookup { key, answer })
            .await
            .map_err(|_| DomainError::Unavailable)?;
        answered.await.map_err(ended)?
    }
}
