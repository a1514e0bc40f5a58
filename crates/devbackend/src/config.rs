//! The environment contract (project-backend 1.1 to 1.3, 1.6), read once at start.
//! An empty variable counts as unset.

use std::{
    env,
    net::{IpAddr, Ipv4Addr},
    num::ParseIntError,
};

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

const SHORTEST_SECRET: usize = 32;

/// Whether the instance believes that a control plane manages it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloudMode {
    Cloud,
    SelfHosted,
}

pub struct Config {
    pub host: IpAddr,
    pub port: u16,
    pub cloud_mode: CloudMode,
    pub project_id: Option<String>,
    /// Base URL of the control plane, without a trailing slash.
    pub cloud_api_host: String,
    pub api_base_url: String,
    pub jwt_secret: SecretString,
    /// `ENCRYPTION_KEY`, else `JWT_SECRET`.
    pub encryption_key: SecretString,
    pub access_api_key: Option<SecretString>,
    pub access_anon_key: Option<SecretString>,
    pub root_admin: RootAdmin,
    pub database: DatabaseConfig,
}

/// The password login of the dashboard.
pub struct RootAdmin {
    pub username: String,
    pub password: SecretString,
}

#[derive(Clone)]
pub struct DatabaseConfig {
    pub host: String,
    pub port: u16,
    pub name: String,
    pub user: String,
    pub password: SecretString,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0} is not set; the backend needs it to start")]
    Missing(&'static str),
    #[error("{name} must have at least {SHORTEST_SECRET} characters")]
    TooShort { name: &'static str },
    #[error("{name} is not a port number: {source}")]
    NotAPort {
        name: &'static str,
        source: ParseIntError,
    },
    #[error("HOST is not an IP address; leave it unset for 127.0.0.1")]
    NotAnAddress,
}

impl Config {
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(|name| env::var(name).ok())
    }

    /// From any source of variables; tests bring their own.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let text = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let secret = |name: &str| text(name).map(SecretString::from);
        let required = |name: &'static str| text(name).ok_or(ConfigError::Missing(name));
        let port = |name: &'static str, default: u16| match text(name) {
            None => Ok(default),
            Some(value) => value
                .trim()
                .parse()
                .map_err(|source| ConfigError::NotAPort { name, source }),
        };

        let jwt_secret = long_enough("JWT_SECRET", SecretString::from(required("JWT_SECRET")?))?;
        let encryption_key = match secret("ENCRYPTION_KEY") {
            Some(key) => long_enough("ENCRYPTION_KEY", key)?,
            None => jwt_secret.clone(),
        };
        let port_number = port("PORT", 7130)?;
        Ok(Self {
            host: match text("HOST") {
                None => IpAddr::V4(Ipv4Addr::LOCALHOST),
                Some(host) => host.trim().parse().map_err(|_| ConfigError::NotAnAddress)?,
            },
            port: port_number,
            cloud_mode: match text("AWS_INSTANCE_PROFILE_NAME") {
                Some(_) => CloudMode::Cloud,
                None => CloudMode::SelfHosted,
            },
            project_id: text("PROJECT_ID"),
            cloud_api_host: text("CLOUD_API_HOST")
                .unwrap_or_else(|| "https://api.insforge.dev".to_owned())
                .trim_end_matches('/')
                .to_owned(),
            api_base_url: text("API_BASE_URL")
                .unwrap_or_else(|| format!("http://localhost:{port_number}")),
            jwt_secret,
            encryption_key,
            access_api_key: text("ACCESS_API_KEY").map(|key| prefixed("ik_", key)),
            access_anon_key: text("ACCESS_ANON_KEY").map(|key| prefixed("anon_", key)),
            root_admin: RootAdmin {
                username: text("ROOT_ADMIN_USERNAME")
                    .or_else(|| text("ADMIN_EMAIL"))
                    .ok_or(ConfigError::Missing("ROOT_ADMIN_USERNAME"))?,
                password: secret("ROOT_ADMIN_PASSWORD")
                    .or_else(|| secret("ADMIN_PASSWORD"))
                    .ok_or(ConfigError::Missing("ROOT_ADMIN_PASSWORD"))?,
            },
            database: DatabaseConfig {
                host: text("POSTGRES_HOST").unwrap_or_else(|| "localhost".to_owned()),
                port: port("POSTGRES_PORT", 5432)?,
                name: text("POSTGRES_DB").unwrap_or_else(|| "insforge".to_owned()),
                user: text("POSTGRES_USER").unwrap_or_else(|| "postgres".to_owned()),
                password: secret("POSTGRES_PASSWORD")
                    .unwrap_or_else(|| SecretString::from("postgres")),
            },
        })
    }
}

impl DatabaseConfig {
    pub(crate) fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .database(&self.name)
            .username(&self.user)
            .password(self.password.expose_secret())
            .ssl_mode(PgSslMode::Prefer)
            .application_name("insforge-devbackend")
    }
}

/// The real server adds the prefix where it is missing.
fn prefixed(prefix: &str, key: String) -> SecretString {
    if key.starts_with(prefix) {
        SecretString::from(key)
    } else {
        SecretString::from(format!("{prefix}{key}"))
    }
}

fn long_enough(name: &'static str, secret: SecretString) -> Result<SecretString, ConfigError> {
    if secret.expose_secret().chars().count() < SHORTEST_SECRET {
        return Err(ConfigError::TooShort { name });
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn parse(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut all = vec![
            ("JWT_SECRET", SECRET),
            ("ROOT_ADMIN_USERNAME", "admin"),
            ("ROOT_ADMIN_PASSWORD", "pw"),
        ];
        all.extend_from_slice(variables);
        Config::from_lookup(|name| {
            all.iter()
                .rev()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let config = parse(&[
            ("PROJECT_ID", ""),
            ("PORT", " "),
            ("AWS_INSTANCE_PROFILE_NAME", "  "),
        ])
        .unwrap();
        assert_eq!(config.project_id, None);
        assert_eq!(config.port, 7130);
        assert_eq!(config.cloud_mode, CloudMode::SelfHosted);
        assert!(matches!(
            parse(&[("JWT_SECRET", "")]),
            Err(ConfigError::Missing("JWT_SECRET"))
        ));
    }

    #[test]
    fn keys_get_their_prefixes_and_urls_lose_the_slash() {
        let config = parse(&[
            ("ACCESS_API_KEY", "abc"),
            ("ACCESS_ANON_KEY", "anon_x"),
            ("CLOUD_API_HOST", "http://127.0.0.1:9/"),
        ])
        .unwrap();
        let exposed = |key: Option<SecretString>| key.unwrap().expose_secret().to_owned();
        assert_eq!(exposed(config.access_api_key), "ik_abc");
        assert_eq!(exposed(config.access_anon_key), "anon_x");
        assert_eq!(config.cloud_api_host, "http://127.0.0.1:9");
    }

    #[test]
    fn mistakes_name_the_variable() {
        let message = |result: Result<Config, ConfigError>| match result {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert!(message(parse(&[("JWT_SECRET", "short")])).contains("JWT_SECRET"));
        assert!(message(parse(&[("POSTGRES_PORT", "x")])).contains("POSTGRES_PORT"));
        assert!(message(parse(&[("HOST", "nowhere")])).contains("HOST"));
        assert!(message(parse(&[("ROOT_ADMIN_PASSWORD", "")])).contains("ROOT_ADMIN_PASSWORD"));
    }
}
