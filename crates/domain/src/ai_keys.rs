//! The API keys with which projects' backends ask AI models: one for each project, made when its backend first asks for it
//! (contract/project-backend.md 3.3). The provider itself is called by `api` and `worker`, between these verbs.
//!
//! A key costs money as soon as somebody has it, and its text is told once. So it is written down before it is asked for
//! (`making`), under a name that finds it again; whoever dies in between leaves a row that is doomed after a while, and a
//! worker deletes what may have been made. A project's key is never replaced but by its backend's own wish: backends keep it
//! until they are restarted.
//!
//! The keys of paused projects stay as they are: their machines are off, so nobody uses them, and a restored backend would
//! miss its own.

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::{AiKeyId, Plan, Project, ProjectId};
use cp_storage::ai_keys::{self, NewAiKey};
use cp_storage::organizations;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

pub use cp_storage::ai_keys::{AiKeyToLimit, DoomedAiKey};

use crate::operations::commit;
use crate::{ControlPlane, DomainError, DomainResult};

/// Much longer than the call that makes a key may take.
const MADE_WITHIN: TimeDelta = TimeDelta::minutes(2);

/// So long after so many attempts of which nobody knows how they ended: each may leave a key to be found.
const RESTS: [(TimeDelta, i64); 2] = [(TimeDelta::seconds(10), 1), (TimeDelta::minutes(2), 3)];

/// A key that was asked for is in the provider's list by then, if there is one.
const SURELY_LISTED: TimeDelta = TimeDelta::minutes(15);

/// When deleting, or telling another limit, is tried again.
const TRIED_AGAIN: TimeDelta = TimeDelta::minutes(1);

/// A key that was replaced works a while longer: the backend that does not get the answer goes on with it, and asks again.
const OLD_KEY_GOES_ON: TimeDelta = TimeDelta::minutes(2);

/// Each new key has a month's limit of its own. So there are only so many in this time, counted with those of deleted projects
/// and organizations.
const COUNTED_FOR: TimeDelta = TimeDelta::days(30);
const MOST_OF_PROJECT: i64 = 5;
/// Of all that somebody has in organizations of the free plan.
const MOST_OF_FREE_PERSON: i64 = 10;
/// Of one that is paid for.
const MOST_OF_ORGANIZATION: i64 = 50;

/// Rows that are worked on at once.
const ROUND: i64 = 100;

/// What the key of a project may spend in a month, by its organization's plan, in US dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AiLimits {
    pub free: u32,
    pub pro: u32,
    pub partner: u32,
}

impl Default for AiLimits {
    fn default() -> Self {
        Self {
            free: 1,
            pro: 20,
            partner: 20,
        }
    }
}

impl AiLimits {
    /// In US cents.
    const fn of(self, plan: Plan) -> u32 {
        100 * match plan {
            Plan::Free => self.free,
            Plan::Pro => self.pro,
            Plan::Partner => self.partner,
        }
    }
}

/// What is refused, besides what everything can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AiKeyError {
    #[error("an AI key of this project is being made")]
    BeingMade,
    #[error("the last attempt to make an AI key for this project was not answered")]
    Resting,
}

/// A project's key. Has a secret, so no `Debug`.
pub struct AiKey {
    /// The provider's id of it.
    pub hash: String,
    pub key: SecretString,
}

/// A key that may be asked for now, once.
#[derive(Debug, Clone)]
pub struct AiKeyAttempt {
    pub id: AiKeyId,
    pub project: ProjectId,
    /// What the provider is to call it. No other key has this name.
    pub name: String,
    /// US cents.
    pub monthly_limit: u32,
}

/// How a project gets at its key.
pub enum AiKeyStart {
    There(AiKey),
    /// The caller is to make it.
    Make(AiKeyAttempt),
    /// Somebody else makes it just now.
    Wait,
}

/// What became of a key that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishedAiKey {
    /// It is the project's own. A worker deletes the one before it.
    Current,
    /// It came too late; nobody will ever be given it.
    TooLate,
}

/// What a key is called at the provider.
fn name_of(project: ProjectId, id: AiKeyId) -> String {
    format!("insforge {project} {id}")
}

/// Binds the sealed key to its row: moved to another one it does not open.
fn context(project: ProjectId, id: AiKeyId) -> String {
    format!("ai-key:{project}:{id}")
}

impl ControlPlane {
    /// The project's key, or the right to make it.
    pub async fn begin_ai_key(&self, project: &Project) -> DomainResult<AiKeyStart> {
        if let Some(key) = self.find_ai_key(project.id).await? {
            return Ok(AiKeyStart::There(key));
        }
        match self.begin_ai_key_attempt(project).await {
            Ok(attempt) => {
                // Somebody may have ended an attempt just before ours began.
                let Some(key) = self.find_ai_key(project.id).await? else {
                    return Ok(AiKeyStart::Make(attempt));
                };
                self.abandon_ai_key(&attempt, false).await?;
                Ok(AiKeyStart::There(key))
            }
            Err(DomainError::AiKey(AiKeyError::BeingMade)) => Ok(AiKeyStart::Wait),
            Err(error) => Err(error),
        }
    }

    /// The project's key, if it has one.
    pub async fn find_ai_key(&self, project: ProjectId) -> DomainResult<Option<AiKey>> {
        let mut conn = self.db().acquire().await?;
        let Some(row) = ai_keys::find_current(&mut conn, project).await? else {
            return Ok(None);
        };
        let opened = self
            .sealer()
            .open_text(&row.sealed, &context(project, row.id));
        let key = opened.map_err(|error| {
            DomainError::internal(format!(
                "the AI key of project {project} cannot be opened: {error}"
            ))
        })?;
        Ok(Some(AiKey {
            hash: row.hash,
            key,
        }))
    }

    /// Writes down that a key is about to be asked for, whether there is one or not. At most one at a time for each project.
    pub async fn begin_ai_key_attempt(&self, project: &Project) -> DomainResult<AiKeyAttempt> {
        let (id, now) = (AiKeyId::generate(), self.now());
        let (of, owner) = (project.id, project.organization_id);
        let mut tx = self.db().begin().await?;
        ai_keys::doom_abandoned(&mut tx, Some(of), now - MADE_WITHIN, now).await?;
        for (time, most) in RESTS {
            if ai_keys::count_unknown(&mut tx, of, now - time).await? >= most {
                return Err(AiKeyError::Resting.into());
            }
        }
        let plan = organizations::find_plan(&mut tx, owner).await?;
        let since = now - COUNTED_FOR;
        let made = ai_keys::count_made(&mut tx, of, owner, project.user_id, since).await?;
        let of_plan = match plan {
            Plan::Free => Some((made.of_person, MOST_OF_FREE_PERSON)),
            Plan::Pro => Some((made.of_organization, MOST_OF_ORGANIZATION)),
            // Billed by what they use.
            Plan::Partner => None,
        };
        let limits = [Some((made.of_project, MOST_OF_PROJECT)), of_plan];
        let reached = limits
            .into_iter()
            .flatten()
            .find(|(made, most)| made >= most);
        if let Some((_, most)) = reached {
            return Err(DomainError::RateLimited {
                limit: u32::try_from(most).unwrap_or(u32::MAX),
                retry_after: TimeDelta::days(1).num_seconds().unsigned_abs(),
            });
        }
        let monthly_limit = self.settings().ai_limits.of(plan);
        let new = NewAiKey {
            id,
            project: of,
            organization: owner,
            monthly_limit: monthly_limit.into(),
            now,
        };
        if !ai_keys::insert_making(&mut tx, &new).await? {
            return Err(AiKeyError::BeingMade.into());
        }
        commit(tx).await?;
        Ok(AiKeyAttempt {
            id,
            project: of,
            name: name_of(of, id),
            monthly_limit,
        })
    }

    /// The key was made; it is the project's from now on.
    pub async fn finish_ai_key(
        &self,
        attempt: &AiKeyAttempt,
        project: &Project,
        key: &AiKey,
    ) -> DomainResult<FinishedAiKey> {
        let (id, of, now) = (attempt.id, attempt.project, self.now());
        let sealed = key.key.expose_secret().as_bytes();
        let sealed = self.sealer().seal(sealed, &context(of, id));
        let mut tx = self.db().begin().await?;
        let replaced = ai_keys::doom_current(&mut tx, of, now + OLD_KEY_GOES_ON).await?;
        if !ai_keys::mark_current(&mut tx, of, id, &key.hash, &sealed).await? {
            tx.rollback()
                .await
                .map_err(cp_storage::StorageError::from)?;
            let mut conn = self.db().acquire().await?;
            ai_keys::mark_doomed(&mut conn, of, id, Some(&key.hash), now).await?;
            return Ok(FinishedAiKey::TooLate);
        }
        let (actor, target) = (format!("backend:{of}"), of.to_string());
        let action = if replaced {
            "project.ai_key_rotated"
        } else {
            "project.ai_key_made"
        };
        let (target, details) = (("project", target.as_str()), json!({}));
        self.audit_service(&mut tx, &actor, action, target, Some(project), details)
            .await?;
        commit(tx).await?;
        Ok(FinishedAiKey::Current)
    }

    /// The key was not made; or nobody knows, and a worker looks for it.
    pub async fn abandon_ai_key(
        &self,
        attempt: &AiKeyAttempt,
        may_exist: bool,
    ) -> DomainResult<()> {
        let (id, of) = (attempt.id, attempt.project);
        let mut conn = self.db().acquire().await?;
        if may_exist {
            ai_keys::mark_doomed(&mut conn, of, id, None, self.now()).await?;
        } else {
            ai_keys::delete_unmade(&mut conn, of, id).await?;
        }
        Ok(())
    }

    /// For workers: gives up what nobody ended and what deleted projects left, and tells what is to be deleted now.
    pub async fn list_doomed_ai_keys(&self) -> DomainResult<Vec<DoomedAiKey>> {
        let now = self.now();
        let mut conn = self.db().acquire().await?;
        ai_keys::doom_abandoned(&mut conn, None, now - MADE_WITHIN, now).await?;
        ai_keys::doom_of_deleted_projects(&mut conn, now).await?;
        Ok(ai_keys::list_doomed(&mut conn, now, ROUND).await?)
    }

    /// The provider has no such key any more.
    pub async fn settle_ai_key(&self, id: AiKeyId) -> DomainResult<()> {
        let mut conn = self.db().acquire().await?;
        ai_keys::mark_gone(&mut conn, id).await?;
        Ok(())
    }

    /// It could not be done now, or is not sure to be done.
    pub async fn put_off_ai_key(&self, id: AiKeyId) -> DomainResult<()> {
        let mut conn = self.db().acquire().await?;
        ai_keys::put_off(&mut conn, id, self.now() + TRIED_AGAIN).await?;
        Ok(())
    }

    /// For workers: keys whose organization has another plan than when their limit was told.
    pub async fn list_ai_keys_to_limit(&self) -> DomainResult<Vec<AiKeyToLimit>> {
        let limits = self.settings().ai_limits;
        let limits = Plan::ALL
            .iter()
            .map(|plan| (*plan, limits.of(*plan).into()));
        let limits: Vec<_> = limits.collect();
        let mut conn = self.db().acquire().await?;
        Ok(ai_keys::list_to_limit(&mut conn, &limits, self.now(), ROUND).await?)
    }

    /// The provider was told the limit.
    pub async fn record_ai_limit(&self, key: &AiKeyToLimit) -> DomainResult<()> {
        let mut conn = self.db().acquire().await?;
        ai_keys::set_limit(&mut conn, key.id, key.monthly_limit).await?;
        Ok(())
    }
}

/// Whether a key that is not in the provider's list now was never made.
pub fn is_surely_not_made(created_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    now - created_at > SURELY_LISTED
}

/// What a doomed key is called at the provider.
pub fn name_of_doomed(key: &DoomedAiKey) -> String {
    name_of(key.project, key.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_has_a_name_of_its_own_that_tells_its_project() {
        let project = ProjectId::generate();
        let (one, other) = (AiKeyId::generate(), AiKeyId::generate());
        assert_ne!(name_of(project, one), name_of(project, other));
        assert!(name_of(project, one).contains(&project.to_string()));
    }

    #[test]
    fn limits_are_told_in_cents() {
        assert_eq!(AiLimits::default().of(Plan::Free), 100);
        assert_eq!(AiLimits::default().of(Plan::Pro), 2_000);
    }
}
