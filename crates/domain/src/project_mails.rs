//! Mails that projects' backends have us send to their users (contract/project-backend.md 3.4). They are queued as ours are,
//! counted as `email_requests`, and limited by minute and by day, since they go out in our name.

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use cp_model::{FieldError, FieldResult, MailId, MailTemplate, Plan, Project, field};
use cp_storage::{organizations, usage};

use crate::operations::commit;
use crate::organizations::OrganizationError;
use crate::people::{Envelope, MailText, project_mail};
use crate::usage::{NewUsageEvent, UsageEvent};
use crate::{ControlPlane, DomainError, DomainResult};

/// Mails of one project in a minute.
const A_MINUTE: u32 = 60;

/// Everybody that one mail goes to.
const MOST_RECIPIENTS: usize = 50;

/// What a code or a link is worth after that, nobody needs to read.
const WORTH_READING: TimeDelta = TimeDelta::hours(1);

const LONGEST_SUBJECT: usize = 200;
const LONGEST_NAME: usize = 100;
const LONGEST_CODE: usize = 64;
const LONGEST_LINK: usize = 2_048;

/// A mail of ours to one person, with the code or the link that the backend made.
pub struct TemplateMail<'a> {
    pub email: &'a str,
    pub template: MailTemplate,
    pub token: Option<&'a str>,
    pub link: Option<&'a str>,
}

/// A mail that the project has written itself.
#[derive(Default)]
pub struct OwnMail<'a> {
    pub to: Vec<&'a str>,
    pub cc: Vec<&'a str>,
    pub bcc: Vec<&'a str>,
    pub subject: &'a str,
    pub html: &'a str,
    /// A name to be shown as the sender.
    pub from: Option<&'a str>,
    pub reply_to: Option<&'a str>,
}

/// How many mails a project of this plan may send in a day.
const fn a_day(plan: Plan) -> u32 {
    match plan {
        Plan::Free => 100,
        Plan::Pro | Plan::Partner => 10_000,
    }
}

impl ControlPlane {
    pub async fn send_template_mail(
        &self,
        project: &Project,
        mail: &TemplateMail<'_>,
    ) -> DomainResult<()> {
        let to = field::email("email", mail.email)?;
        let value = match mail.template {
            MailTemplate::EmailVerificationLink | MailTemplate::ResetPasswordLink => {
                check_link(mail.link)?
            }
            MailTemplate::EmailVerificationCode
            | MailTemplate::ResetPasswordCode
            | MailTemplate::RequestOtp => check_code(mail.token)?,
        };
        let text = project_mail(mail.template, value, &project.name);
        let envelope = Envelope {
            from_name: Some(project.name.clone()),
            ..Envelope::default()
        };
        let until = Some(self.now() + WORTH_READING);
        self.send_for(project, &to, text, envelope, until).await
    }

    /// Not for the free plan.
    pub async fn send_own_mail(&self, project: &Project, mail: &OwnMail<'_>) -> DomainResult<()> {
        let addresses = |name: &'static str, given: &[&str]| -> FieldResult<Vec<String>> {
            given.iter().map(|one| field::email(name, one)).collect()
        };
        let to = addresses("to", &mail.to)?;
        let (cc, bcc) = (addresses("cc", &mail.cc)?, addresses("bcc", &mail.bcc)?);
        if to.is_empty() {
            return Err(FieldError::new("to", "must name somebody").into());
        }
        if to.len() + cc.len() + bcc.len() > MOST_RECIPIENTS {
            let rule = format!("cc and bcc together must name at most {MOST_RECIPIENTS}");
            return Err(FieldError::new("to", rule).into());
        }
        let subject = check_length("subject", mail.subject.trim(), LONGEST_SUBJECT)?;
        if mail.html.trim().is_empty() {
            return Err(FieldError::new("html", "must not be empty").into());
        }
        let from = mail.from.filter(|name| !name.trim().is_empty());
        let from = from.map(|name| check_length("from", name.trim(), LONGEST_NAME));
        let reply_to = mail.reply_to.map(|one| field::email("replyTo", one));
        let envelope = Envelope {
            from_name: Some(from.transpose()?.unwrap_or(&project.name).to_owned()),
            reply_to: reply_to.transpose()?,
            more_to: to[1..].to_vec(),
            cc,
            bcc,
        };
        let text = MailText::own(subject, mail.html);
        self.send_for(project, &to[0], text, envelope, None).await
    }

    /// Counts and queues a mail, or neither.
    async fn send_for(
        &self,
        project: &Project,
        to: &str,
        text: MailText,
        envelope: Envelope,
        until: Option<DateTime<Utc>>,
    ) -> DomainResult<()> {
        self.take(&format!("mail:{}", project.id), A_MINUTE).await?;
        let now = self.now();
        let id = MailId::generate();
        let mut tx = self.db().begin().await?;
        let plan = organizations::find_plan(&mut tx, project.organization_id).await?;
        if plan == Plan::Free && text.is_own() {
            return Err(OrganizationError::NoOwnMail(plan).into());
        }
        let sent = usage::count_mails_of_day(&mut tx, project.id, now.date_naive()).await?;
        let limit = a_day(plan);
        if sent >= i64::from(limit) {
            let tomorrow = (now + TimeDelta::days(1))
                .date_naive()
                .and_time(NaiveTime::MIN);
            let left = (tomorrow.and_utc() - now).num_seconds().max(1);
            return Err(DomainError::RateLimited {
                limit,
                retry_after: left.unsigned_abs(),
            });
        }
        let event = UsageEvent::parse(&NewUsageEvent {
            id: &id.to_string(),
            source: "mail",
            project_id: &project.id.to_string(),
            metric: "email_requests",
            value: "1",
            occurred_at: &now.to_rfc3339(),
        })?;
        let counted = usage::list_counted_projects(&mut tx, &[project.id]).await?;
        let events = [event];
        self.count_events(&mut tx, &events, &counted).await?;
        self.queue_mail_as(&mut tx, id, to, text, envelope, until)
            .await?;
        commit(tx).await?;
        self.check_limits_of(&events, &counted).await;
        Ok(())
    }
}

fn check_length<'a>(name: &'static str, given: &'a str, most: usize) -> FieldResult<&'a str> {
    let length = given.chars().count();
    if given.chars().any(char::is_control) {
        return Err(FieldError::new(name, "must not contain control characters"));
    }
    if (1..=most).contains(&length) {
        return Ok(given);
    }
    let rule = format!("must have 1 to {most} characters, has {length}");
    Err(FieldError::new(name, rule))
}

fn check_code(given: Option<&str>) -> FieldResult<&str> {
    check_length("variables.token", given.unwrap_or_default(), LONGEST_CODE)
}

fn check_link(given: Option<&str>) -> FieldResult<&str> {
    let name = "variables.link";
    let link = check_length(name, given.unwrap_or_default(), LONGEST_LINK)?;
    if link.starts_with("https://") || link.starts_with("http://") {
        Ok(link)
    } else {
        Err(FieldError::new(name, "must begin with https:// or http://"))
    }
}
