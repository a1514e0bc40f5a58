//! The outbox: mails are queued in the transaction that makes them true and sent by a worker.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::MailId;
use cp_storage::PgConnection;
use cp_storage::mails::{self, MailAttempts, NewMail};
use cp_storage::notifications::{Subscription, Topic};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::mail_texts::MailText;
use crate::{ControlPlane, DomainError, DomainResult};

/// A mail to be sent. Holds links that sign people in, so it has no `Debug`.
pub struct Mail {
    pub to: String,
    pub subject: String,
    /// Empty: the HTML speaks for itself.
    pub text: String,
    pub html: String,
    pub envelope: Envelope,
}

/// Who else a mail is from and for.
#[derive(Default, Clone, Serialize, Deserialize)]
pub struct Envelope {
    /// The sender's name, with our address; none: ours.
    pub from_name: Option<String>,
    pub reply_to: Option<String>,
    /// Besides the first.
    pub more_to: Vec<String>,
    pub cc: Vec<String>,
    pub bcc: Vec<String>,
}

/// How long a sender has before its mail is somebody else's.
const CLAIM: TimeDelta = TimeDelta::minutes(5);
/// A mail that could not be sent for so long is given up.
const GIVE_UP_AFTER: TimeDelta = TimeDelta::hours(24);
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// Characters of an error that are kept.
const LONGEST_ERROR: usize = 500;

/// What is sealed of a mail.
#[derive(Serialize, Deserialize)]
struct Content {
    subject: String,
    text: String,
    html: String,
    #[serde(default)]
    envelope: Envelope,
}

fn context(id: MailId) -> String {
    format!("mail:{id}")
}

impl ControlPlane {
    /// Queues a mail in the caller's transaction. It is not sent once what it offers has ended.
    pub(crate) async fn queue_mail(
        &self,
        conn: &mut PgConnection,
        to: &str,
        mail: MailText,
        expires_at: Option<DateTime<Utc>>,
    ) -> DomainResult<()> {
        let id = MailId::generate();
        self.queue_mail_as(conn, id, to, mail, Envelope::default(), expires_at)
            .await
    }

    /// The same, in somebody's name or to many.
    pub(crate) async fn queue_mail_as(
        &self,
        conn: &mut PgConnection,
        id: MailId,
        to: &str,
        mail: MailText,
        envelope: Envelope,
        expires_at: Option<DateTime<Utc>>,
    ) -> DomainResult<()> {
        let content = Content {
            subject: mail.subject,
            text: mail.text,
            html: mail.html,
            envelope,
        };
        let content = serde_json::to_vec(&content).map_err(DomainError::internal)?;
        let sealed = self.sealer().seal(&content, &context(id));
        let new = NewMail {
            id,
            recipient: to,
            kind: mail.kind,
            content_sealed: &sealed,
            expires_at,
        };
        mails::insert_mail(conn, &new, self.now()).await?;
        Ok(())
    }

    /// Claims mails that are due, the longest due first. They are nobody else's for five minutes.
    pub async fn take_due_mails(&self, limit: i64) -> DomainResult<Vec<(MailId, Mail)>> {
        let now = self.now();
        let mut conn = self.db().acquire().await?;
        let mut claimed = mails::claim_due(&mut conn, limit, now, now + CLAIM).await?;
        drop(conn);
        // The ids are in the order of queueing.
        claimed.sort_by_key(|mail| mail.id);
        let mut due = Vec::with_capacity(claimed.len());
        for mail in claimed {
            if mail.expires_at.is_some_and(|ends| ends <= now) {
                // No worker was there, or the mail server was not, while it was worth reading.
                self.mark_mail_failed(mail.id, "what it offers has expired")
                    .await?;
                continue;
            }
            match self.open_mail(mail.id, mail.recipient, mail.content_sealed.as_deref()) {
                Ok(opened) => due.push((mail.id, opened)),
                Err(error) => {
                    // One such mail must not hold up the others. An operator may bring back the key.
                    tracing::error!(mail = %mail.id, %error, "a mail cannot be opened");
                    self.mark_mail_failed(mail.id, "it cannot be opened; see the log")
                        .await?;
                }
            }
        }
        Ok(due)
    }

    fn open_mail(&self, id: MailId, to: String, sealed: Option<&[u8]>) -> DomainResult<Mail> {
        let sealed =
            sealed.ok_or_else(|| DomainError::internal(format!("mail {id} has no content")))?;
        let content = self
            .sealer()
            .open(sealed, &context(id))
            .map_err(|e| DomainError::internal(format!("mail {id}: {e}")))?;
        let content: Content = serde_json::from_slice(content.expose_secret())
            // The reader's message would quote the content.
            .map_err(|_| DomainError::internal(format!("mail {id} is no mail")))?;
        Ok(Mail {
            to,
            subject: content.subject,
            text: content.text,
            html: content.html,
            envelope: content.envelope,
        })
    }

    /// The mail server has it; what it said is forgotten here.
    pub async fn mark_mail_sent(&self, id: MailId) -> DomainResult<()> {
        let mut conn = self.db().acquire().await?;
        // False: it was sent twice, by a sender that was taken for dead. Nothing to mend.
        mails::mark_sent(&mut conn, id, self.now()).await?;
        Ok(())
    }

    /// Tries again after a while, doubling from half a minute to an hour, for a day or until what
    /// the mail offers has ended.
    pub async fn mark_mail_failed(&self, id: MailId, error: &str) -> DomainResult<()> {
        let now = self.now();
        let error: String = error
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(LONGEST_ERROR)
            .collect();
        let mut conn = self.db().acquire().await?;
        let Some(so_far) = mails::find_attempts(&mut conn, id).await? else {
            return Ok(());
        };
        // Eight random bytes of a version 4 UUID; its fixed bits are not among the low ones.
        let (_, random) = Uuid::new_v4().as_u64_pair();
        match next_attempt(&so_far, now, random) {
            Some(at) => mails::mark_retry(&mut conn, id, &error, at).await?,
            None => mails::mark_failed(&mut conn, id, &error).await?,
        };
        Ok(())
    }

    /// Wakes when a mail was queued.
    pub fn subscribe_mails(&self) -> Subscription {
        self.db().notifications().subscribe(Topic::Mails, "")
    }
}

/// When to try again; none: not any more. A quarter of the pause is random, so that what failed
/// together does not come back together.
fn next_attempt(so_far: &MailAttempts, now: DateTime<Utc>, random: u64) -> Option<DateTime<Utc>> {
    let doublings = u32::try_from(so_far.attempts - 1).unwrap_or(0).min(10);
    let pause = FIRST_PAUSE
        .saturating_mul(1 << doublings)
        .min(LONGEST_PAUSE);
    let jitter = pause / 4 * u32::try_from(random % 1000).unwrap_or(0) / 1000;
    let at = now + TimeDelta::from_std((pause + jitter).min(LONGEST_PAUSE)).ok()?;
    let given_up = so_far.queued_at + GIVE_UP_AFTER;
    let end = so_far
        .expires_at
        .map_or(given_up, |ends| ends.min(given_up));
    (at < end).then_some(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pauses_grow_to_an_hour_and_end_after_a_day(
            attempts in 0..100i32, age in 0..90_000i64, life in proptest::option::of(0..90_000i64), random: u64
        ) {
            let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
            let queued_at = now - TimeDelta::seconds(age);
            let expires_at = life.map(|life| queued_at + TimeDelta::seconds(life));
            let so_far = MailAttempts { attempts, queued_at, expires_at };
            let ends = life.unwrap_or(24 * 3600).min(24 * 3600);
            match next_attempt(&so_far, now, random) {
                Some(at) => {
                    prop_assert!(at - now >= TimeDelta::seconds(30) && at - now <= TimeDelta::hours(1));
                    prop_assert!(at - queued_at < TimeDelta::seconds(ends));
                }
                None => prop_assert!(age >= ends - 3600),
            }
        }
    }

    #[test]
    fn pauses_double() {
        let now = DateTime::UNIX_EPOCH;
        let pause = |attempts| {
            let so_far = MailAttempts {
                attempts,
                queued_at: now,
                expires_at: None,
            };
            next_attempt(&so_far, now, 0).unwrap() - now
        };
        assert_eq!(pause(1), TimeDelta::seconds(30));
        assert_eq!(pause(2), TimeDelta::seconds(60));
        assert_eq!(pause(5), TimeDelta::seconds(480));
        assert_eq!(pause(20), TimeDelta::hours(1));
    }
}
