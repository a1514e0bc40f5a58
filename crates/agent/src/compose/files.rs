//! The files that docker compose and the containers read, in the data folder:
//!
//! | file | what it holds | mode |
//! |---|---|---|
//! | `compose.yaml` | the containers, the same for every project | 0600 |
//! | `machine.env` | what stands in braces in it: images, ports, sizes | 0600 |
//! | `environment.json` | each container's variables, secrets among them | 0600 |
//! | `postgres/machine.conf` | the key that Postgres decrypts with, sizes | 0600 |
//! | `postgres/*` | what Postgres reads as its own user; no secrets | 0644 |
//!
//! `environment.json` is a second compose file (`--file` twice merges them) and not an `env_file`:
//! JSON has one way to write any value, env files have had several.

use std::{
    fmt::Write as _,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{environment, stack::Stack};
use crate::{
    config::{ComposeConfig, MachineDir},
    keep::{write, write_private},
};

const COMPOSE: &str = "compose.yaml";
const MACHINE: &str = "machine.env";
const ENVIRONMENT: &str = "environment.json";
const POSTGRES: &str = "postgres";
const MACHINE_CONF: &str = "machine.conf";
const START: &str = "start-postgres.sh";

/// Ours; those of the release win where the machine's image brings them.
const POSTGRES_FILES: [(&str, &str); 3] = [
    ("postgresql.conf", include_str!("files/postgresql.conf")),
    ("db-init.sql", include_str!("files/db-init.sql")),
    ("jwt.sql", include_str!("files/jwt.sql")),
];

pub(crate) struct Files {
    dir: PathBuf,
    port: u16,
    config: ComposeConfig,
}

impl Files {
    pub(crate) fn new(dir: &MachineDir, port: u16, config: &ComposeConfig) -> Self {
        Self {
            dir: dir.path().to_owned(),
            port,
            config: config.clone(),
        }
    }

    pub(crate) fn write(&self, stack: &Stack) -> io::Result<()> {
        let postgres = self.dir.join(POSTGRES);
        fs::create_dir_all(&postgres)?;
        // Entered by Postgres's user in its container. On the machine nobody comes this far: the
        // data folder is root's.
        fs::set_permissions(&postgres, fs::Permissions::from_mode(0o755))?;
        for (name, ours) in POSTGRES_FILES {
            let text = read_if_there(&self.config.release_dir.join(name))?;
            write(
                &postgres.join(name),
                text.as_deref().unwrap_or(ours.as_bytes()),
                0o644,
            )?;
        }
        let start = include_str!("files/start-postgres.sh");
        write(&postgres.join(START), start.as_bytes(), 0o644)?;
        write_private(&postgres.join(MACHINE_CONF), machine_conf(stack).as_bytes())?;
        let compose = include_str!("files/compose.yaml");
        write_private(&self.dir.join(COMPOSE), compose.as_bytes())?;
        write_private(&self.dir.join(MACHINE), self.machine_env(stack).as_bytes())?;
        write_private(
            &self.dir.join(ENVIRONMENT),
            environment_json(stack).to_string().as_bytes(),
        )
    }

    pub(crate) fn are_there(&self) -> bool {
        let postgres = self.dir.join(POSTGRES);
        [COMPOSE, MACHINE, ENVIRONMENT]
            .map(|name| self.dir.join(name))
            .iter()
            .chain(&[postgres.join(MACHINE_CONF), postgres.join(START)])
            .all(|path| path.is_file())
    }

    /// Those with an identity.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for path in [
            self.dir.join(ENVIRONMENT),
            self.dir.join(MACHINE),
            self.dir.join(POSTGRES).join(MACHINE_CONF),
        ] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// How `docker compose` finds them, and which services it runs.
    pub(crate) fn compose_args(&self) -> Vec<String> {
        let path = |name: &str| self.dir.join(name).to_string_lossy().into_owned();
        let mut args = vec![
            "--project-directory".to_owned(),
            self.dir.to_string_lossy().into_owned(),
            "--env-file".to_owned(),
            path(MACHINE),
            "--file".to_owned(),
            path(COMPOSE),
            "--file".to_owned(),
            path(ENVIRONMENT),
        ];
        if self.has_functions() {
            args.extend(["--profile".to_owned(), "functions".to_owned()]);
        }
        args
    }

    pub(crate) fn has_functions(&self) -> bool {
        self.functions().is_dir()
    }

    fn functions(&self) -> PathBuf {
        self.config.release_dir.join("functions")
    }

    /// Plain values throughout: `ComposeConfig::check` and `is_image_tag` saw to that.
    fn machine_env(&self, stack: &Stack) -> String {
        let images = &self.config.images;
        let functions = self.functions().to_string_lossy().into_owned();
        let memory = stack.memory;
        let mut text = String::from("# Written by insforge-agent.\n");
        for (name, value) in [
            ("STACK", self.config.project_name.clone()),
            ("PROJECT_ID", stack.project_id.to_string()),
            ("RESTARTS", stack.restarts.to_string()),
            (
                "INSFORGE_IMAGE",
                format!("{}:{}", images.insforge, stack.release),
            ),
            ("POSTGRES_IMAGE", images.postgres.clone()),
            ("POSTGREST_IMAGE", images.postgrest.clone()),
            ("DENO_IMAGE", images.deno.clone()),
            ("PORT", self.port.to_string()),
            ("POSTGRES_PORT", self.config.postgres_port.to_string()),
            ("FILES", self.dir.to_string_lossy().into_owned()),
            ("FUNCTIONS", functions),
            ("MEMORY_MIB", memory.0.to_string()),
            ("INSFORGE_MIB", memory.insforge_limit().to_string()),
            ("POSTGREST_MIB", memory.postgrest_limit().to_string()),
            ("DENO_MIB", memory.deno_limit().to_string()),
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}={value}");
        }
        text
    }
}

fn environment_json(stack: &Stack) -> serde_json::Value {
    let services: serde_json::Map<_, _> = environment::variables(stack)
        .into_iter()
        .map(|(service, variables)| {
            let variables: serde_json::Map<_, _> = variables
                .into_iter()
                // docker compose fills in what follows a single one.
                .map(|(name, value)| (name, value.replace('$', "$$").into()))
                .collect();
            (service.to_owned(), json!({ "environment": variables }))
        })
        .collect();
    json!({ "services": services })
}

fn machine_conf(stack: &Stack) -> String {
    let mut text = String::from(
        "# Written by insforge-agent. What follows the include wins.\n\
         include '/etc/insforge/postgresql.conf'\n",
    );
    let own = [
        ("app.encryption_key", environment::encryption_key(stack)),
        ("cron.database_name", stack.database().to_owned()),
    ];
    for (name, value) in own.into_iter().chain(stack.memory.postgres_settings()) {
        let _ = writeln!(text, "{name} = {}", quote(&value));
    }
    text
}

/// As postgresql.conf has it (Postgres manual, 20.1.2): quotes doubled, backslashes escape.
fn quote(value: &str) -> String {
    let value = value
        .replace('\\', "\\\\")
        .replace('\'', "''")
        .replace('\n', "\\n")
        .replace('\r', "\\r");
    format!("'{value}'")
}

fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
