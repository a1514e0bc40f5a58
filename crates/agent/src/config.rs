//! `agent.json`. Written by the machine's provider (`cp_provider::local::AgentConfig`, or the
//! user-data of an EC2 instance); a test compares it with the former. Everything else of the
//! machine lies beside it, or in the data folder of the `compose` runtime.

use std::{
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use cp_model::MachineId;
use secrecy::SecretString;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(try_from = "AgentFile")]
pub struct Config {
    pub machine_id: MachineId,
    /// Base URL of the control plane, with no trailing slash.
    pub control_url: String,
    /// Single-use: buys a place for the token that the agent makes itself.
    pub bootstrap_token: SecretString,
    /// Where the backend shall listen.
    pub port: u16,
    pub runtime: Runtime,
}

/// How the machine runs a backend, and with that what there is to run.
pub enum Runtime {
    /// A Postgres and a backend, each as a plain process.
    Processes {
        postgres: PostgresConfig,
        program: Program,
    },
    /// The InsForge release by docker compose: production.
    Compose(ComposeConfig),
}

/// What runs as the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// The stand-in of this very program.
    Builtin,
    /// Any program that takes the backend's environment (contract/project-backend.md section 1)
    /// and ends at SIGTERM.
    Command { program: PathBuf, args: Vec<String> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// The folder of `pg_ctl` and its kin.
    pub binaries: PathBuf,
    pub port: u16,
    /// The superuser's, until the first desired backend brings another.
    pub password: SecretString,
    /// No fsync: for tests.
    #[serde(default)]
    pub fast: bool,
}

/// Everything has a default; of an EC2 instance, user-data writes
///
/// ```json
/// "runtime": {"kind": "compose", "release": "v2.3.1", "grow_file_systems": true}
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ComposeConfig {
    /// The release that a project runs which names none: a tag of the `insforge` image, as in
    /// `v2.3.1`. A tag always means the same image: one that is there is not pulled again.
    pub release: String,
    /// Where the machine's Postgres listens. Who may reach it is the security group's to say.
    pub postgres_port: u16,
    /// What the agent keeps, the compose files among it. Created if missing.
    pub data_dir: PathBuf,
    /// Files of the release that the machine's image brings: `functions/` (without it no function
    /// host runs), and `postgresql.conf`, `db-init.sql`, `jwt.sql`, which win over our own.
    pub release_dir: PathBuf,
    /// What docker compose calls the stack.
    pub project_name: String,
    /// Looked for in `PATH` if it is a bare name.
    pub docker: PathBuf,
    pub images: Images,
    /// Make partitions and file systems as large as their disks. Only where the machine is ours
    /// alone: whoever tries this runtime at home, or tests it, keeps their disks as they are.
    pub grow_file_systems: bool,
}

/// Image names; all but `insforge` with their tag. Another place is named for a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// Its tag is the release.
    pub insforge: String,
    pub postgres: String,
    pub postgrest: String,
    pub deno: String,
}

impl Default for ComposeConfig {
    fn default() -> Self {
        Self {
            release: "v2.3.1".to_owned(),
            postgres_port: 5432,
            data_dir: "/var/lib/insforge".into(),
            release_dir: "/opt/insforge/release".into(),
            project_name: "insforge".to_owned(),
            docker: "docker".into(),
            images: Images::default(),
            grow_file_systems: false,
        }
    }
}

/// Of release 2.3.1 (contract/project-backend.md section 1.8).
impl Default for Images {
    fn default() -> Self {
        Self {
            insforge: "ghcr.io/insforge/insforge-oss".to_owned(),
            postgres: "ghcr.io/insforge/postgres:v15.13.4".to_owned(),
            postgrest: "postgrest/postgrest:v12.2.12".to_owned(),
            deno: "denoland/deno:alpine-2.0.6".to_owned(),
        }
    }
}

impl ComposeConfig {
    /// Names and paths stand in the compose files as they are, so they must be plain there.
    fn check(self) -> Result<Self, String> {
        let plain = |text: &str, more: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        let images = &self.images;
        for (name, image) in [
            ("insforge", &images.insforge),
            ("postgres", &images.postgres),
            ("postgrest", &images.postgrest),
            ("deno", &images.deno),
        ] {
            if !plain(image, ".-_/:@") {
                return Err(format!("runtime.images.{name} is not the name of an image"));
            }
        }
        for (name, dir) in [
            ("data_dir", &self.data_dir),
            ("release_dir", &self.release_dir),
        ] {
            if !dir.is_absolute() || !dir.to_str().is_some_and(|text| plain(text, "/.-_")) {
                return Err(format!(
                    "runtime.{name} must be an absolute path of letters, digits, '/', '.', '-' and '_'"
                ));
            }
        }
        if !plain(&self.project_name, "-_") || self.project_name.to_lowercase() != self.project_name
        {
            return Err("runtime.project_name is not a name for docker compose".to_owned());
        }
        if !is_image_tag(&self.release) {
            return Err("runtime.release is not the tag of an image".to_owned());
        }
        Ok(self)
    }
}

/// As the OCI distribution specification has it.
pub(crate) fn is_image_tag(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// The file as it is written: `postgres` stands beside `runtime`, and belongs to some only.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentFile {
    machine_id: MachineId,
    control_url: String,
    bootstrap_token: SecretString,
    port: u16,
    #[serde(default)]
    postgres: Option<PostgresConfig>,
    runtime: RuntimeInFile,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum RuntimeInFile {
    Builtin,
    Command {
        program: PathBuf,
        #[serde(default)]
        args: Vec<String>,
    },
    Compose(ComposeConfig),
}

impl TryFrom<AgentFile> for Config {
    type Error = String;

    fn try_from(file: AgentFile) -> Result<Self, String> {
        let with_postgres = |postgres, program| match postgres {
            Some(postgres) => Ok(Runtime::Processes { postgres, program }),
            None => Err("this runtime needs the field `postgres`".to_owned()),
        };
        let runtime = match file.runtime {
            RuntimeInFile::Builtin => with_postgres(file.postgres, Program::Builtin)?,
            RuntimeInFile::Command { program, args } => {
                with_postgres(file.postgres, Program::Command { program, args })?
            }
            RuntimeInFile::Compose(_) if file.postgres.is_some() => {
                return Err("`postgres` has no meaning with the runtime compose".to_owned());
            }
            RuntimeInFile::Compose(config) => Runtime::Compose(config.check()?),
        };
        Ok(Self {
            machine_id: file.machine_id,
            control_url: file.control_url,
            bootstrap_token: file.bootstrap_token,
            port: file.port,
            runtime,
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is malformed: {source}", path.display())]
    Malformed {
        path: PathBuf,
        source: serde_json::Error,
    },
}

impl Config {
    pub fn load(path: &Path) -> Result<(Self, MachineDir), ConfigError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| ConfigError::Read { path, source }
        };
        let bytes = std::fs::read(path).map_err(at(path))?;
        let config: Self =
            serde_json::from_slice(&bytes).map_err(|source| ConfigError::Malformed {
                path: path.to_owned(),
                source,
            })?;
        let file = path.canonicalize().map_err(at(path))?;
        let identity = identity(&file).map_err(at(path))?;
        let dir = match &config.runtime {
            Runtime::Compose(compose) => {
                make_private_dir(&compose.data_dir).map_err(at(&compose.data_dir))?;
                compose.data_dir.clone()
            }
            Runtime::Processes { .. } => file.parent().unwrap_or(Path::new("/")).to_owned(),
        };
        Ok((
            config,
            MachineDir {
                dir,
                file,
                identity,
            },
        ))
    }
}

fn make_private_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Where what is kept lies. On a laptop it is the machine, agent.json included: when it is gone,
/// so is the machine.
#[derive(Debug, Clone)]
pub struct MachineDir {
    dir: PathBuf,
    file: PathBuf,
    identity: (u64, u64, i64),
}

impl MachineDir {
    pub fn path(&self) -> &Path {
        &self.dir
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// False when the machine was deleted or set aside (its agent.json is gone), or made anew:
    /// then another file took its place, and what we know of it is old.
    pub fn is_still_ours(&self) -> bool {
        identity(&self.file).is_ok_and(|identity| identity == self.identity)
    }
}

fn identity(file: &Path) -> io::Result<(u64, u64, i64)> {
    let meta = file.metadata()?;
    Ok((meta.dev(), meta.ino(), meta.mtime_nsec()))
}
