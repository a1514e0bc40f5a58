//! The sections of the configuration, their defaults and their rules. Comments are for whoever
//! writes the file.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use chrono::TimeDelta;
use cp_model::{InstanceType, Region};
use cp_tokens::keyring::RotationPolicy;
use cp_worker::mail::Sender;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::scalar::{optional_scalar, optional_secret, scalar, secrets};
use super::shown::{mask, mask_all, mask_url};
use super::{Config, ConfigError, Period};

/// The public interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    #[serde(deserialize_with = "scalar")]
    pub listen: SocketAddr,
    /// Our public URL: issuer of authorizations, and where backends and agents find us. `serve` and
    /// `work` need it.
    #[serde(deserialize_with = "optional_scalar")]
    pub base_url: Option<String>,
    /// How many reverse proxies of ours stand in front; with 0 `X-Forwarded-For` is ignored.
    #[serde(deserialize_with = "scalar")]
    pub trusted_proxies: usize,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            base_url: None,
            trusted_proxies: 0,
        }
    }
}

/// Health, metrics and the queue board. Has no authentication: keep it on a private address.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    #[serde(deserialize_with = "scalar")]
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8081).into(),
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// `postgres://user:password@host/database`.
    #[serde(deserialize_with = "optional_secret", serialize_with = "mask_url")]
    pub url: Option<SecretString>,
    /// A file with the URL.
    #[serde(deserialize_with = "optional_scalar")]
    pub url_file: Option<PathBuf>,
    /// The most connections that this process holds, its listener aside.
    #[serde(deserialize_with = "scalar")]
    pub max_connections: u32,
    /// How long a request waits for a connection before it is answered 503.
    #[serde(deserialize_with = "scalar")]
    pub acquire_timeout: Period,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            max_connections: 20,
            acquire_timeout: Duration::from_secs(3).into(),
        }
    }
}

/// Keys that seal what is stored. Written `id:base64`, with 32 bytes, as `doctor` can make one.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Secrets {
    #[serde(deserialize_with = "optional_secret", serialize_with = "mask")]
    pub sealing_key: Option<SecretString>,
    #[serde(deserialize_with = "optional_scalar")]
    pub sealing_key_file: Option<PathBuf>,
    /// Keys from before, with which older values still open.
    #[serde(deserialize_with = "secrets", serialize_with = "mask_all")]
    pub older_sealing_keys: Vec<SecretString>,
    /// A file with one older key a line.
    #[serde(deserialize_with = "optional_scalar")]
    pub older_sealing_keys_file: Option<PathBuf>,
}

/// When keys that sign authorizations come and go.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Signing {
    /// From a key's first signature to its last.
    #[serde(deserialize_with = "scalar")]
    pub active_lifetime: Period,
    /// From publishing a key to its first signature.
    #[serde(deserialize_with = "scalar")]
    pub publish_ahead: Period,
    /// From a key's last signature to its removal.
    #[serde(deserialize_with = "scalar")]
    pub retire_after: Period,
}

impl Default for Signing {
    fn default() -> Self {
        let policy = RotationPolicy::default();
        let period = |delta: TimeDelta| delta.to_std().unwrap_or_default().into();
        Self {
            active_lifetime: period(policy.active_lifetime),
            publish_ahead: period(policy.publish_ahead),
            retire_after: period(policy.retire_after),
        }
    }
}

impl Signing {
    pub fn policy(&self) -> RotationPolicy {
        let delta = |period: Period| TimeDelta::from_std(period.get()).unwrap_or(TimeDelta::MAX);
        RotationPolicy {
            publish_ahead: delta(self.publish_ahead),
            retire_after: delta(self.retire_after),
            active_lifetime: delta(self.active_lifetime),
        }
    }
}

/// Which releases of the backend there are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Releases {
    /// What people are told to be the newest, as in `v2.2.3`; nothing unless given.
    #[serde(deserialize_with = "optional_scalar")]
    pub latest: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Wrong secrets that one address may send in a minute.
    #[serde(deserialize_with = "scalar")]
    pub auth_failures_per_minute: u32,
    /// Requests worked on at once; more are answered 503.
    #[serde(deserialize_with = "scalar")]
    pub max_in_flight: usize,
    /// Agents' long polls held open at once.
    #[serde(deserialize_with = "scalar")]
    pub max_agent_waits: usize,
    /// How long creating calls wait for `active` before they answer `provisioning`.
    #[serde(deserialize_with = "scalar")]
    pub create_wait: Period,
    /// How long `wait_for_completion` waits before it answers 202.
    #[serde(deserialize_with = "scalar")]
    pub completion_wait: Period,
    /// Projects of one organization that may have branches.
    #[serde(deserialize_with = "scalar")]
    pub parents_per_organization: u32,
    /// Branches that one project may have.
    #[serde(deserialize_with = "scalar")]
    pub branches_per_parent: u32,
    /// Let webhooks be on this computer and in private networks, there by http, too. Not in
    /// production: whoever sets a webhook could reach what only we can reach.
    #[serde(deserialize_with = "scalar")]
    pub allow_http_webhooks: bool,
}

impl Default for Limits {
    fn default() -> Self {
        let domain = cp_domain::Settings::new("");
        let api = cp_api::ApiOptions::default();
        Self {
            auth_failures_per_minute: domain.auth_failures_per_minute,
            max_in_flight: api.max_in_flight,
            max_agent_waits: api.max_agent_waits,
            create_wait: domain.create_wait.into(),
            completion_wait: domain.completion_wait.into(),
            parents_per_organization: domain.branches.parents_per_organization,
            branches_per_parent: domain.branches.branches_per_parent,
            allow_http_webhooks: domain.allow_http_webhooks,
        }
    }
}

/// Where machines come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Processes on this computer.
    Local,
    /// Instances on AWS; see `[ec2]`.
    Ec2,
}

impl Provider {
    /// What `machines.provider` holds.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Ec2 => "ec2",
        }
    }
}

impl std::str::FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "local" => Ok(Self::Local),
            "ec2" => Ok(Self::Ec2),
            _ => Err(format!(
                "unknown provider {text:?}; valid values: local, ec2"
            )),
        }
    }
}

/// What becomes of machines that carry our tag and that no row of the database names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Orphans {
    /// They are terminated after a grace.
    Terminate,
    /// They are logged and counted, and run on; so do warm machines that look useless and those of
    /// paused projects.
    Report,
}

impl std::str::FromStr for Orphans {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "terminate" => Ok(Self::Terminate),
            "report" => Ok(Self::Report),
            _ => Err(format!(
                "unknown choice {text:?}; valid values: terminate, report"
            )),
        }
    }
}

/// What is thought of a provider that does not list most machines of a region any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Losses {
    /// That its list is wrong, another account's for example: an error is logged, and nothing done.
    Doubt,
    /// That the machines are gone: their projects fail.
    Believe,
}

impl std::str::FromStr for Losses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "doubt" => Ok(Self::Doubt),
            "believe" => Ok(Self::Believe),
            _ => Err(format!(
                "unknown choice {text:?}; valid values: doubt, believe"
            )),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    #[serde(deserialize_with = "scalar")]
    pub provider: Provider,
    /// `report` after the database was restored from a backup: machines that were launched since
    /// are customers', although no row names them.
    #[serde(deserialize_with = "scalar")]
    pub orphans: Orphans,
    /// `believe` once you have seen yourself that most machines of a region are gone.
    #[serde(deserialize_with = "scalar")]
    pub losses: Losses,
    /// Where agents find the control plane; `http.base_url` unless given.
    #[serde(deserialize_with = "optional_scalar")]
    pub control_url: Option<String>,
    /// Steps at once.
    #[serde(deserialize_with = "scalar")]
    pub concurrency: usize,
    /// When a worker dies, its operations wait this long for the next one.
    #[serde(deserialize_with = "scalar")]
    pub lease: Period,
    /// How often overdue operations are looked for.
    #[serde(deserialize_with = "scalar")]
    pub sweep_every: Period,
    /// How often machines are compared with the provider's list.
    #[serde(deserialize_with = "scalar")]
    pub reconcile_every: Period,
    /// How often each project's backend is asked what it used.
    #[serde(deserialize_with = "scalar")]
    pub usage_every: Period,
    /// Databases copied at once, for branches and backups.
    #[serde(deserialize_with = "scalar")]
    pub copies: usize,
    /// Daily backups under way at once, of all workers together. 0: none are made.
    #[serde(deserialize_with = "scalar")]
    pub scheduled_backups: usize,
    /// How long running steps are waited for at the end.
    #[serde(deserialize_with = "scalar")]
    pub drain: Period,
}

impl Default for Worker {
    fn default() -> Self {
        let worker = cp_worker::WorkerConfig::default();
        Self {
            provider: Provider::Local,
            orphans: Orphans::Terminate,
            losses: Losses::Doubt,
            control_url: None,
            concurrency: worker.concurrency,
            lease: worker.lease.into(),
            sweep_every: worker.sweep_every.into(),
            reconcile_every: worker.reconcile_every.into(),
            usage_every: worker.usage_every.into(),
            copies: worker.copies,
            scheduled_backups: worker.scheduled_backups,
            drain: worker.grace.into(),
        }
    }
}

/// Warm machines, kept ready to become projects.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// `[[pool.targets]]`, one per region and instance type; others have no warm machines. In the
    /// environment: `INSFORGE_POOL_TARGETS='[{region="us-east",instance_type="nano",floor=2,ceiling=4}]'`.
    pub targets: Vec<PoolTarget>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolTarget {
    pub region: Region,
    pub instance_type: InstanceType,
    /// Kept even without demand.
    pub floor: u32,
    /// Never more than these, whatever the demand.
    pub ceiling: u32,
}

/// Machines that are processes on this computer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Local {
    pub data_dir: PathBuf,
    /// The program `insforge-agent`; beside our own program unless given (`INSFORGE_AGENT_BIN`).
    #[serde(deserialize_with = "optional_scalar")]
    pub agent_bin: Option<PathBuf>,
    /// A program to run as backend instead of the built-in stand-in, with the environment of an
    /// InsForge server.
    #[serde(deserialize_with = "optional_scalar")]
    pub backend_command: Option<PathBuf>,
}

impl Default for Local {
    fn default() -> Self {
        Self {
            data_dir: ".insforge".into(),
            agent_bin: None,
            backend_command: None,
        }
    }
}

/// Mail to people: codes, links, notices. The worker sends it, by exactly one of `smtp_url` and
/// `folder`; with neither, mails stay queued.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mail {
    /// Whom mails are from: `InsForge <no-reply@example.com>`. The server must accept it.
    #[serde(deserialize_with = "scalar")]
    pub from: Sender,
    /// `smtps://user:password@host:465`, or `smtp://user:password@host:587` for STARTTLS.
    #[serde(deserialize_with = "optional_secret", serialize_with = "mask_url")]
    pub smtp_url: Option<SecretString>,
    /// A file with the URL.
    #[serde(deserialize_with = "optional_scalar")]
    pub smtp_url_file: Option<PathBuf>,
    /// Instead of sending: a folder that gets one `.eml` file per mail. For trying things out.
    #[serde(deserialize_with = "optional_scalar")]
    pub folder: Option<PathBuf>,
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            from: Sender::insforge(),
            smtp_url: None,
            smtp_url_file: None,
            folder: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Json,
    Text,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err(format!(
                "unknown log format {text:?}; valid values: json, text"
            )),
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// What is logged, as tracing-subscriber writes filters: `info,cp_worker=debug` (`INSFORGE_LOG`).
    #[serde(deserialize_with = "optional_scalar")]
    pub log: Option<String>,
    /// `json` for machines, `text` for people. `dev` and commands: text; `serve` and `work`: json.
    #[serde(deserialize_with = "optional_scalar")]
    pub format: Option<LogFormat>,
    /// Where spans are sent as OpenTelemetry over HTTP, such as `http://127.0.0.1:4318`; nowhere
    /// unless given.
    #[serde(deserialize_with = "optional_scalar")]
    pub otlp_endpoint: Option<String>,
}

impl Config {
    /// The rules that go beyond one value's form.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        for (key, url) in [
            ("http.base_url", &self.http.base_url),
            ("worker.control_url", &self.worker.control_url),
            ("telemetry.otlp_endpoint", &self.telemetry.otlp_endpoint),
        ] {
            if let Some(url) = url {
                check_origin(url).map_err(|rule| ConfigError::invalid(key, rule))?;
            }
        }
        let at_least_one = [
            (
                "database.max_connections",
                self.database.max_connections > 1,
                "must be at least 2: the worker and its listener need one each",
            ),
            (
                "worker.concurrency",
                self.worker.concurrency > 0,
                "must be at least 1",
            ),
            (
                "worker.copies",
                self.worker.copies > 0,
                "must be at least 1",
            ),
            (
                "worker.usage_every",
                self.worker.usage_every.get() >= std::time::Duration::from_secs(1),
                "must be at least 1s",
            ),
            (
                "limits.max_in_flight",
                self.limits.max_in_flight > 0,
                "must be at least 1",
            ),
            (
                "limits.auth_failures_per_minute",
                self.limits.auth_failures_per_minute > 0,
                "must be at least 1",
            ),
            (
                "worker.lease",
                self.worker.lease.get() >= Duration::from_secs(3),
                "must be at least 3s: it is renewed three times in that span",
            ),
        ];
        for (key, holds, rule) in at_least_one {
            if !holds {
                return Err(ConfigError::invalid(key, rule));
            }
        }
        if self.mail.folder.is_some() && self.names_mail_server() {
            return Err(ConfigError::invalid(
                "mail.folder",
                "may not be set beside mail.smtp_url; keep one of them",
            ));
        }
        self.ec2.validate(self.worker.provider == Provider::Ec2)?;
        self.objects.validate()?;
        self.sites.validate()?;
        self.openrouter.validate()?;
        self.analysis.validate()?;
        if let Some(latest) = &self.releases.latest {
            cp_model::field::release("latest", latest)
                .map_err(|error| ConfigError::invalid("releases.latest", error.rule))?;
        }
        self.signing
            .policy()
            .validate()
            .map_err(|rule| ConfigError::invalid("signing", rule))?;
        for (index, target) in self.pool.targets.iter().enumerate() {
            if target.floor > target.ceiling {
                return Err(ConfigError::invalid(
                    "pool.targets",
                    "a floor may not be above its ceiling",
                ));
            }
            let same = |other: &PoolTarget| {
                (other.region, other.instance_type) == (target.region, target.instance_type)
            };
            if self.pool.targets[..index].iter().any(same) {
                return Err(ConfigError::invalid(
                    "pool.targets",
                    format!("{} {} is there twice", target.region, target.instance_type),
                ));
            }
        }
        Ok(())
    }
}

/// A URL that paths can be appended to.
pub(super) fn check_origin(text: &str) -> Result<(), &'static str> {
    let rule = "must be http:// or https:// and a host, without path, query, user or password";
    let url = reqwest::Url::parse(text).map_err(|_| rule)?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if plain { Ok(()) } else { Err(rule) }
}
