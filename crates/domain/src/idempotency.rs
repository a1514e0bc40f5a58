//! `Idempotency-Key`: the key commits with the effect, the answer is kept right after it. A
//! process that dies in between loses no effect and doubles none: the next request with the key
//! finds what was done and builds the answer again.

use chrono::TimeDelta;
use cp_model::{OperationId, PartnerId, ProjectId, UserId};
use cp_storage::{PgConnection, idempotency};
use cp_tokens::secret::constant_time_eq;
use serde::{Deserialize, Serialize};

use crate::context::{IdempotentRequest, ProjectCaller};
use crate::{ControlPlane, DomainError, DomainResult};

/// How long answers are kept.
pub(crate) const KEPT: TimeDelta = TimeDelta::hours(24);
/// How long a request may work on its answer before another may take over: above the longest
/// `wait_for_completion`.
const LOCK: TimeDelta = TimeDelta::seconds(90);

/// What a verb did, enough to build its answer from the present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    User(UserId),
    /// Nothing had to be done, or the project was made.
    Project(ProjectId),
    /// Long work on a project was begun.
    Operation {
        project: ProjectId,
        operation: OperationId,
    },
}

pub struct StoredAnswer {
    pub status: u16,
    pub body: Vec<u8>,
}

pub enum Begun {
    /// Nobody has used the key: go on.
    Fresh,
    /// The first answer, to be given again.
    Replay(StoredAnswer),
    /// The effect is there, its answer was never kept: build it.
    Resume(Effect),
}

fn context(partner: &PartnerId, key: &str) -> String {
    format!("idempotency:{partner}:{key}")
}

impl ControlPlane {
    /// Looks whether the key was used before.
    pub async fn begin_idempotent(
        &self,
        partner: &PartnerId,
        request: &IdempotentRequest,
    ) -> DomainResult<Begun> {
        let now = self.now();
        let mut conn = self.db().acquire().await?;
        let Some(found) =
            idempotency::find_key(&mut conn, partner, &request.key, now - KEPT).await?
        else {
            return Ok(Begun::Fresh);
        };
        if !constant_time_eq(&found.fingerprint, &request.fingerprint) {
            return Err(DomainError::IdempotencyKeyReused);
        }
        if let (Some(status), Some(sealed)) = (found.status, found.body_sealed) {
            let body = self
                .sealer()
                .open(&sealed, &context(partner, &request.key))
                .map_err(|e| {
                    DomainError::internal(format!("a kept answer cannot be opened: {e}"))
                })?;
            let body = secrecy::ExposeSecret::expose_secret(&body).to_vec();
            return Ok(Begun::Replay(StoredAnswer {
                status: u16::try_from(status).unwrap_or(500),
                body,
            }));
        }
        if !idempotency::relock(&mut conn, partner, &request.key, now, now + LOCK).await? {
            return Err(DomainError::RequestInProgress);
        }
        let effect = found.effect.ok_or(DomainError::RequestInProgress)?;
        Ok(Begun::Resume(
            serde_json::from_value(effect).map_err(DomainError::internal)?,
        ))
    }

    /// Keeps the answer for the next request with the same key; the first answer stays. Not for
    /// answers that another try may better: 401, 429 and 5xx. `took_effect`: the key was
    /// committed with this request's effect.
    pub async fn keep_answer(
        &self,
        partner: &PartnerId,
        request: &IdempotentRequest,
        took_effect: bool,
        status: u16,
        body: &[u8],
    ) -> DomainResult<()> {
        let now = self.now();
        let sealed = self.sealer().seal(body, &context(partner, &request.key));
        let mut tx = self.db().begin().await?;
        // Refusals have no effect that could have brought the key along.
        let is_new = idempotency::insert_key(
            &mut tx,
            partner,
            &request.key,
            &request.fingerprint,
            now,
            now,
            now - KEPT,
        )
        .await?;
        if !is_new && !took_effect {
            // Another request has taken effect under the key meanwhile: the answer is its to give.
            return Ok(());
        }
        let status = i16::try_from(status).unwrap_or(500);
        idempotency::set_answer(&mut tx, partner, &request.key, status, &sealed).await?;
        tx.commit().await.map_err(cp_storage::StorageError::from)?;
        Ok(())
    }

    /// Takes the key inside the effect's transaction. The second of two requests at once waits
    /// here for the first one's commit, and is refused.
    pub(crate) async fn take_key(
        &self,
        conn: &mut PgConnection,
        partner: &PartnerId,
        request: Option<&IdempotentRequest>,
    ) -> DomainResult<()> {
        let Some(request) = request else {
            return Ok(());
        };
        let now = self.now();
        let taken = idempotency::insert_key(
            conn,
            partner,
            &request.key,
            &request.fingerprint,
            now + LOCK,
            now,
            now - KEPT,
        )
        .await?;
        if taken {
            Ok(())
        } else {
            Err(DomainError::RequestInProgress)
        }
    }

    /// Writes down what was done, in the effect's transaction.
    pub(crate) async fn note_effect(
        &self,
        conn: &mut PgConnection,
        partner: &PartnerId,
        request: Option<&IdempotentRequest>,
        effect: Effect,
    ) -> DomainResult<()> {
        if let Some(request) = request {
            let effect = serde_json::to_value(effect).map_err(DomainError::internal)?;
            idempotency::set_effect(conn, partner, &request.key, &effect).await?;
        }
        Ok(())
    }

    /// As [`Self::take_key`]; people send no keys.
    pub(crate) async fn take_key_of(
        &self,
        conn: &mut PgConnection,
        by: ProjectCaller<'_>,
    ) -> DomainResult<()> {
        match by {
            ProjectCaller::Partner(by, key) => self.take_key(conn, &by.partner.id, key).await,
            ProjectCaller::Person(_) => Ok(()),
        }
    }

    /// As [`Self::note_effect`]; people send no keys.
    pub(crate) async fn note_effect_of(
        &self,
        conn: &mut PgConnection,
        by: ProjectCaller<'_>,
        effect: Effect,
    ) -> DomainResult<()> {
        match by {
            ProjectCaller::Partner(by, key) => {
                self.note_effect(conn, &by.partner.id, key, effect).await
            }
            ProjectCaller::Person(_) => Ok(()),
        }
    }
}
