//! The settings of a cluster, and the file that carries them.
//!
//! They live in a file that `postgresql.conf` includes, not on the command line: no shell
//! quoting, and whoever starts the cluster by hand gets the same server.

use std::{fmt::Write as _, time::Duration};

use crate::error::Error;

/// Included at the end of `postgresql.conf`, rewritten at each start.
pub(crate) const FILE: &str = "control-plane.conf";
pub(crate) const INCLUDE: &str = "\ninclude_if_exists = 'control-plane.conf'\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A commit survives a power cut.
    Full,
    /// A commit survives a crash of Postgres, not of the machine: for tests.
    Fast,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub durability: Durability,
    pub max_connections: u16,
    /// In MiB.
    pub shared_buffers_mib: u32,
    /// How long a start may take, recovery after a crash included.
    pub start_timeout: Duration,
    /// Further settings of `postgresql.conf`; they win over the ones above, but not over the
    /// address, the port and the absence of sockets.
    pub extra: Vec<(String, String)>,
}

impl Settings {
    /// Small: a laptop runs one cluster per project.
    pub fn machine() -> Self {
        Self {
            durability: Durability::Full,
            max_connections: 40,
            shared_buffers_mib: 16,
            start_timeout: Duration::from_secs(30),
            extra: Vec::new(),
        }
    }

    pub fn tests() -> Self {
        Self {
            durability: Durability::Fast,
            max_connections: 200,
            shared_buffers_mib: 64,
            ..Self::machine()
        }
    }

    pub(crate) fn render(&self, port: u16) -> Result<String, Error> {
        let mut lines = String::from("# Rewritten at each start by the control plane.\n");
        let mut set = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "{name} = {}", quote(value));
        };
        set("max_connections", &self.max_connections.to_string());
        set("shared_buffers", &format!("{}MB", self.shared_buffers_mib));
        set("wal_level", "replica");
        set("min_wal_size", "32MB");
        set("max_wal_size", "128MB");
        set("autovacuum", "on");
        // Compiling a plan costs more memory and time than these small databases ever win back.
        set("jit", "off");
        set("huge_pages", "off");
        set("timezone", "UTC");
        set("log_timezone", "UTC");
        if self.durability == Durability::Fast {
            set("fsync", "off");
            set("synchronous_commit", "off");
            set("full_page_writes", "off");
        }
        for (name, value) in &self.extra {
            if !is_setting_name(name) || value.contains(['\n', '\r', '\0']) {
                return Err(Error::BadSetting(name.clone()));
            }
            set(name, value);
        }
        // Last, so that nothing above can open the cluster to the network: the last one wins.
        set("listen_addresses", "127.0.0.1");
        set("unix_socket_directories", "");
        set("port", &port.to_string());
        Ok(lines)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::machine()
    }
}

/// Quoted as in postgresql.conf: single quotes and backslashes are doubled.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

fn is_setting_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_settings_cannot_open_the_cluster_to_the_network() {
        let settings = Settings {
            extra: vec![("listen_addresses".into(), "*".into())],
            ..Settings::machine()
        };
        let text = settings.render(5999).unwrap();
        let last = text
            .lines()
            .rfind(|line| line.starts_with("listen_addresses"));
        assert_eq!(last, Some("listen_addresses = '127.0.0.1'"));
    }

    #[test]
    fn values_are_quoted_and_names_checked() {
        let with = |name: &str, value: &str| {
            Settings {
                extra: vec![(name.into(), value.into())],
                ..Settings::machine()
            }
            .render(1)
        };
        assert!(
            with("app.encryption_key", r"it's \ odd")
                .unwrap()
                .contains(r"app.encryption_key = 'it''s \\ odd'")
        );
        assert!(matches!(
            with("work_mem = 1\nx", "1"),
            Err(Error::BadSetting(_))
        ));
        assert!(matches!(
            with("work_mem", "1'\nport = 1"),
            Err(Error::BadSetting(_))
        ));
    }
}
