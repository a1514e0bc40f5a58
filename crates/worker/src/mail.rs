//! Brings mails to people: through an SMTP server, or as files into a folder (`dev`, tests). What is
//! to be sent waits in the database; [`crate::jobs::send_mails`] takes it from there.
//!
//! Each mail has its own SMTP connection. lettre's pool takes back connections whose conversation
//! was abandoned in the middle (its time was over), and the next mail would read the answers meant
//! for the one before: a refusal would pass for a success.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use cp_domain::people::Mail;
use cp_model::MailId;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart, SinglePart};
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

/// How long one mail may take, from connecting to the server's last word.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for a mere look whether the server is there.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a mail was not sent. Repeats nothing of the mail: servers quote what they refuse, and mails
/// hold links that sign people in.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("the recipient's address cannot be used in a mail")]
    BadRecipient,
    #[error("the mail cannot be composed: {0}")]
    Unwritable(#[from] lettre::error::Error),
    #[error("the mail server refused: {0}")]
    Refused(String),
    #[error("the mail server cannot be used: {0}")]
    Server(String),
    #[error("the mail server did not finish in time")]
    TimedOut,
    #[error("cannot write into {}: {source}", folder.display())]
    Folder {
        folder: PathBuf,
        source: std::io::Error,
    },
}

/// What is wrong with an address of a server. The address itself is not repeated: it holds a
/// password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadUrl(&'static str);

/// Whom mails are from: `InsForge <no-reply@example.com>`, or the address alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender(Mailbox);

impl Sender {
    /// The service's own, where nothing else is configured.
    pub fn insforge() -> Self {
        // Both parts are ours and well-formed.
        let address = Address::new_dangerous("no-reply", "insforge.dev");
        Self(Mailbox::new(Some("InsForge".to_owned()), address))
    }
}

impl FromStr for Sender {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.chars().any(char::is_control) {
            return Err("must be on one line");
        }
        text.parse().map(Self).map_err(
            |_| "must be an address, with or without a name: InsForge <no-reply@example.com>",
        )
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Sender {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Told of each mail that a folder got, with its file.
pub type Announce = Arc<dyn Fn(&Mail, &Path) + Send + Sync>;

/// Where mails go. Cheap to clone.
#[derive(Clone)]
pub struct Mailer {
    from: Sender,
    way: Way,
}

#[derive(Clone)]
enum Way {
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    Folder {
        folder: PathBuf,
        announce: Option<Announce>,
    },
}

impl Mailer {
    /// `smtps://user:password@host:465` (TLS from the start, RFC 8314), or
    /// `smtp://user:password@host:587` (STARTTLS, without which nothing is sent). Only a server on
    /// this computer may be spoken to in the clear.
    pub fn smtp(from: Sender, url: &SecretString) -> Result<Self, BadUrl> {
        Ok(Self {
            way: Way::Smtp(transport(&from, url)?),
            from,
        })
    }

    /// One `.eml` file (RFC 5322) per mail, readable by us alone. The folder is made when needed.
    pub fn folder(from: Sender, folder: PathBuf, announce: Option<Announce>) -> Self {
        Self {
            from,
            way: Way::Folder { folder, announce },
        }
    }

    /// Whether mails could be sent now, in words for an operator. Sends nothing.
    pub async fn check(&self) -> Result<String, MailError> {
        match &self.way {
            Way::Smtp(transport) => {
                let attempt = tokio::time::timeout(CHECK_TIMEOUT, transport.test_connection());
                match attempt.await {
                    Ok(Ok(true)) => {
                        Ok("the mail server answers and takes our credentials".to_owned())
                    }
                    Ok(Ok(false)) => Err(MailError::Server("it hangs up".to_owned())),
                    Ok(Err(error)) => Err(error.into()),
                    Err(_) => Err(MailError::TimedOut),
                }
            }
            Way::Folder { folder, .. } if !folder.exists() => Ok(format!(
                "{} will be made for the first mail",
                folder.display()
            )),
            Way::Folder { folder, .. } => tempfile::tempfile_in(folder)
                .map(|_| format!("mails go into {}", folder.display()))
                .map_err(failed_in(folder)),
        }
    }

    /// Sends one mail. Sent again, it has the same Message-ID (and in a folder the same name), so
    /// that a copy is recognised.
    pub async fn send(&self, id: MailId, mail: &Mail, now: DateTime<Utc>) -> Result<(), MailError> {
        let message = compose(&self.from, id, mail, now)?;
        match &self.way {
            Way::Smtp(transport) => {
                let attempt = tokio::time::timeout(SEND_TIMEOUT, transport.send(message));
                attempt.await.map_err(|_| MailError::TimedOut)??;
            }
            Way::Folder { folder, announce } => {
                let path = folder.join(file_name(id, now));
                write(folder.clone(), path.clone(), message.formatted()).await?;
                if let Some(announce) = announce {
                    announce(mail, &path);
                }
            }
        }
        Ok(())
    }
}

fn transport(
    from: &Sender,
    url: &SecretString,
) -> Result<AsyncSmtpTransport<Tokio1Executor>, BadUrl> {
    let form =
        BadUrl("must be like smtps://user:password@host:465 or smtp://user:password@host:587");
    let url = reqwest::Url::parse(url.expose_secret()).map_err(|_| form)?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(form)?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(BadUrl("must end after the host and its port"));
    }
    let parameters = || {
        TlsParameters::new(host.to_owned())
            .map_err(|_| BadUrl("names a host that TLS cannot check"))
    };
    let (tls, port) = match url.scheme() {
        "smtps" => (Tls::Wrapper(parameters()?), 465),
        "smtp" if is_this_computer(host) => (Tls::None, 25),
        "smtp" => (Tls::Required(parameters()?), 587),
        _ => return Err(form),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(url.port().unwrap_or(port))
        .tls(tls)
        .timeout(Some(CHECK_TIMEOUT))
        // A name that is ours in the DNS; this computer's own seldom is.
        .hello_name(ClientId::Domain(from.0.email.domain().to_owned()));
    if !url.username().is_empty() {
        let user = decoded(url.username()).ok_or(form)?;
        let password = decoded(url.password().unwrap_or_default()).ok_or(form)?;
        builder = builder.credentials(Credentials::new(user, password));
    }
    Ok(builder.build())
}

fn is_this_computer(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']);
    host == "localhost"
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Passwords have characters that URLs cannot. None: not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let text = percent_encoding::percent_decode_str(text).decode_utf8();
    text.ok().map(std::borrow::Cow::into_owned)
}

impl From<smtp::Error> for MailError {
    fn from(error: smtp::Error) -> Self {
        match error.status() {
            // The server's words may quote the mail; its numbers say enough.
            Some(code) => Self::Refused(match enhanced_status(&error) {
                Some(detail) => format!("{code} {detail}"),
                None => code.to_string(),
            }),
            None => Self::Server(error.to_string()),
        }
    }
}

/// `5.1.1` and the like at the beginning of the server's words (RFC 3463 section 2).
fn enhanced_status(error: &smtp::Error) -> Option<String> {
    let words = std::error::Error::source(error)?.to_string();
    let first = words.split_whitespace().next()?;
    let parts: Vec<&str> = first.split('.').collect();
    let well_formed = parts.len() == 3
        && parts
            .iter()
            .all(|part| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()));
    well_formed.then(|| first.to_owned())
}

/// The mail as it goes out: plain text and HTML, for the reader's program to choose.
fn compose(
    from: &Sender,
    id: MailId,
    mail: &Mail,
    now: DateTime<Utc>,
) -> Result<Message, MailError> {
    let to: Address = mail.to.parse().map_err(|_| MailError::BadRecipient)?;
    // RFC 3834 section 5: nobody's absence notice shall answer.
    let automatic = HeaderValue::new(
        HeaderName::new_from_ascii_str("Auto-Submitted"),
        "auto-generated".to_owned(),
    );
    let envelope = &mail.envelope;
    let name = envelope.from_name.as_deref().map(one_line);
    let sender = Mailbox {
        name: name.or_else(|| from.0.name.clone()),
        email: from.0.email.clone(),
    };
    let mut message = Message::builder()
        .message_id(Some(format!("<{id}@{}>", from.0.email.domain())))
        .date(now.into())
        .from(sender)
        .to(Mailbox::new(None, to))
        .subject(one_line(&mail.subject))
        .raw_header(automatic);
    if let Some(address) = &envelope.reply_to {
        message = message.reply_to(mailbox(address)?);
    }
    for address in &envelope.more_to {
        message = message.to(mailbox(address)?);
    }
    for address in &envelope.cc {
        message = message.cc(mailbox(address)?);
    }
    for address in &envelope.bcc {
        message = message.bcc(mailbox(address)?);
    }
    if mail.text.is_empty() {
        return Ok(message.singlepart(SinglePart::html(mail.html.clone()))?);
    }
    let body = MultiPart::alternative_plain_html(mail.text.clone(), mail.html.clone());
    Ok(message.multipart(body)?)
}

fn mailbox(address: &str) -> Result<Mailbox, MailError> {
    let address = address.parse().map_err(|_| MailError::BadRecipient)?;
    Ok(Mailbox::new(None, address))
}

/// A subject holds names that people gave: a line break in it would begin a header of theirs.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text
        .split(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
        .filter(|part| !part.is_empty())
        .collect();
    words.join(" ")
}

/// `20261121T064929123Z-<id>.eml`: in order of time, and the same for a mail that is sent again.
fn file_name(id: MailId, now: DateTime<Utc>) -> String {
    let queued_at = id.0.get_timestamp().and_then(|at| {
        let (seconds, nanos) = at.to_unix();
        DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
    });
    let time = queued_at.unwrap_or(now).format("%Y%m%dT%H%M%S%3fZ");
    format!("{time}-{id}.eml")
}

/// Written aside and renamed into place: whoever looks finds the whole mail or none.
async fn write(folder: PathBuf, path: PathBuf, content: Vec<u8>) -> Result<(), MailError> {
    let at = folder.clone();
    let work = move || {
        std::fs::create_dir_all(&folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&folder)?;
        file.write_all(&content)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(failed_in(&at))
}

fn failed_in(folder: &Path) -> impl FnOnce(std::io::Error) -> MailError {
    let folder = folder.to_owned();
    move |source| MailError::Folder { folder, source }
}

#[cfg(test)]
mod tests;
