//! The address of a database, for our own connections and for the programs.

use std::{path::PathBuf, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::time::timeout;

use crate::error::{Error, is_transient};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Seen in `pg_stat_activity` of the project's server.
const APPLICATION_NAME: &str = "insforge-control-plane";

/// One database and the superuser that we enter it as. No `Debug`: it holds a password.
#[derive(Clone)]
pub struct Database {
    /// A host name or address.
    pub host: String,
    pub port: u16,
    pub name: String,
    pub user: String,
    pub password: SecretString,
    pub tls: Tls,
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    Disable,
    /// Encrypted where the server can, without proof of who it is.
    Prefer,
    Require,
    /// Encrypted, and the server proves its name by a certificate that this file of authorities (PEM) vouches for.
    VerifyFull {
        authorities: PathBuf,
    },
}

impl Database {
    /// One connection, within ten seconds.
    pub async fn connect(&self) -> Result<PgConnection, Error> {
        let options = self.options();
        match timeout(CONNECT_TIMEOUT, options.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) if is_transient(&error) => Err(self.unreachable(&error.to_string())),
            Ok(Err(error)) => Err(Error::Refused {
                database: self.describe(),
                why: error.to_string(),
            }),
            Err(_) => Err(self.unreachable("no answer within ten seconds")),
        }
    }

    /// For connections of the caller's own.
    pub fn options(&self) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .password(self.password.expose_secret())
            .database(&self.name)
            .application_name(APPLICATION_NAME)
            .options([
                ("jit", "off"),
                // Nothing that a user made in `public` gets in the way of a superuser's statements.
                ("search_path", ""),
                // The copy of a large database takes longer than any user's setting allows a statement.
                ("statement_timeout", "0"),
                ("idle_in_transaction_session_timeout", "0"),
                // A lock that a user holds for ever must not hold us as long.
                ("lock_timeout", "60000"),
                ("lc_messages", "C"),
                // The session that holds a snapshot is silent while pg_dump works: nothing on the way may forget it.
                ("tcp_keepalives_idle", "30"),
                ("tcp_keepalives_interval", "15"),
                ("tcp_keepalives_count", "4"),
            ])
            .disable_statement_logging();
        match &self.tls {
            Tls::Disable => options.ssl_mode(PgSslMode::Disable),
            Tls::Prefer => options.ssl_mode(PgSslMode::Prefer),
            Tls::Require => options.ssl_mode(PgSslMode::Require),
            Tls::VerifyFull { authorities } => options
                .ssl_mode(PgSslMode::VerifyFull)
                .ssl_root_cert(authorities),
        }
    }

    /// The database that every server has, to speak of the others from.
    pub(crate) fn maintenance(&self) -> Self {
        Self {
            name: "postgres".to_owned(),
            ..self.clone()
        }
    }

    /// A connection string of libpq without the password: arguments are visible to everybody on the machine.
    pub(crate) fn conninfo(&self) -> String {
        let port = self.port.to_string();
        let mut pairs = vec![
            ("host", self.host.as_str()),
            ("port", &port),
            ("user", &self.user),
            // Within a string it is a name whatever it looks like; alone, `a=b` would be taken for a string.
            ("dbname", &self.name),
            ("application_name", APPLICATION_NAME),
            ("connect_timeout", "10"),
            // A server that vanished is noticed within two minutes.
            ("keepalives_idle", "30"),
            ("keepalives_interval", "15"),
            ("keepalives_count", "4"),
            ("tcp_user_timeout", "90000"),
            // What is written is made durable once, in the end (see `mark`).
            (
                "options",
                "-c jit=off -c lc_messages=C -c synchronous_commit=off",
            ),
        ];
        let authorities;
        match &self.tls {
            Tls::Disable => pairs.push(("sslmode", "disable")),
            Tls::Prefer => pairs.push(("sslmode", "prefer")),
            Tls::Require => pairs.push(("sslmode", "require")),
            Tls::VerifyFull { authorities: file } => {
                authorities = file.to_string_lossy();
                pairs.extend([("sslmode", "verify-full"), ("sslrootcert", &*authorities)]);
            }
        }
        let pairs: Vec<String> = pairs
            .iter()
            .map(|(key, value)| {
                let value = value.replace('\\', "\\\\").replace('\'', "\\'");
                format!("{key}='{value}'")
            })
            .collect();
        pairs.join(" ")
    }

    /// For errors: where, without the password.
    pub(crate) fn describe(&self) -> String {
        format!("{} on {}:{}", self.name, self.host, self.port)
    }

    fn unreachable(&self, why: &str) -> Error {
        Error::Unreachable {
            database: self.describe(),
            why: why.to_owned(),
        }
    }
}

/// As a name in SQL, whatever is in it.
pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// As a text in SQL, whatever is in it.
pub(crate) fn quote_literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_quotes_its_values_and_has_no_password() {
        let database = Database {
            host: "127.0.0.1".to_owned(),
            port: 5432,
            name: r"it's a \ = name".to_owned(),
            user: "postgres".to_owned(),
            password: SecretString::from("swordfish"),
            tls: Tls::Disable,
        };
        let text = database.conninfo();
        assert!(text.contains(r"dbname='it\'s a \\ = name'"), "{text}");
        assert!(!text.contains("swordfish"), "{text}");
    }
}
