//! The backend as a process: its environment, its start and its end.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io,
    os::unix::{fs::OpenOptionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use cp_model::agent_protocol::DesiredBackend;
use cp_pg::{RunAs, SUPERUSER};
use rustix::process::Signal;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    process::{Child, ChildStdin, Command},
    time::timeout,
};

use crate::{
    config::{MachineDir, Program},
    postgres::database_of,
    process::{self, LifeLine},
};

/// What of our own environment every program needs. Nothing else is handed on.
const INHERITED: [&str; 6] = ["PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "RUST_LOG"];

/// How this program becomes the stand-in.
#[cfg(not(test))]
const BUILTIN_ARGS: [&str; 1] = ["backend"];
/// In tests this program is the test binary, which becomes the stand-in by a test of its own.
#[cfg(test)]
pub(crate) const BUILTIN_ARGS: [&str; 4] = [
    "--exact",
    "tests::as_the_stand_in",
    "--ignored",
    "--nocapture",
];

/// What a backend may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

const LOG_LIMIT: u64 = 8 * 1024 * 1024;

/// How to run a backend on this machine.
pub(crate) struct Launcher {
    program: PathBuf,
    args: Vec<String>,
    /// The stand-in ends when its standard input does, so it needs no other watching.
    ends_with_stdin: bool,
    run_as: RunAs,
    dir: MachineDir,
    port: u16,
}

impl Launcher {
    pub(crate) fn new(
        program: &Program,
        run_as: RunAs,
        dir: &MachineDir,
        port: u16,
    ) -> io::Result<Self> {
        let (program, args, ends_with_stdin) = match program {
            Program::Builtin => {
                let args = BUILTIN_ARGS.map(str::to_owned).to_vec();
                (own_program(&run_as)?, args, true)
            }
            Program::Command { program, args } => (program.clone(), args.clone(), false),
        };
        let dir = dir.clone();
        for name in ["storage", "logs"] {
            let path = dir.file(name);
            fs::create_dir_all(&path)?;
            run_as.own(&path).map_err(io::Error::other)?;
        }
        Ok(Self {
            program,
            args,
            ends_with_stdin,
            run_as,
            dir,
            port,
        })
    }

    /// Ends a backend that a crashed agent left behind.
    pub(crate) async fn clear(&self) -> io::Result<()> {
        process::kill_left_over(&self.life_line()).await
    }

    /// What is desired, completed by what only this machine knows.
    pub(crate) fn environment(
        &self,
        desired: &DesiredBackend,
        postgres_port: u16,
        database_url: &SecretString,
    ) -> BTreeMap<String, String> {
        let mut env = desired.env.clone();
        let path = |name: &str| self.dir.file(name).to_string_lossy().into_owned();
        for (name, value) in [
            ("STORAGE_DIR", path("storage")),
            ("LOGS_DIR", path("logs")),
            ("POSTGRES_DB", database_of(desired).to_owned()),
        ] {
            env.entry(name.to_owned()).or_insert(value);
        }
        for (name, value) in [
            ("PORT", self.port.to_string()),
            ("HOST", "127.0.0.1".to_owned()),
            ("POSTGRES_HOST", "127.0.0.1".to_owned()),
            ("POSTGRES_PORT", postgres_port.to_string()),
            ("POSTGRES_USER", SUPERUSER.to_owned()),
            ("POSTGRES_PASSWORD", desired.database_password.clone()),
            ("DATABASE_URL", database_url.expose_secret().to_owned()),
        ] {
            env.insert(name.to_owned(), value);
        }
        env
    }

    pub(crate) fn spawn(&self, environment: &BTreeMap<String, String>) -> io::Result<Backend> {
        let log = open_log(&self.dir.file("backend.log"))?;
        let life_line = if self.ends_with_stdin {
            None
        } else {
            let busy = || io::Error::other("an earlier backend still runs");
            Some(LifeLine::open(&self.life_line())?.ok_or_else(busy)?)
        };
        let stdin = match &life_line {
            Some(line) => Stdio::from(line.end_for_child()?),
            None => Stdio::piped(),
        };
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .current_dir(self.dir.path())
            .env_clear()
            .envs(
                INHERITED
                    .iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .env("HOME", self.dir.file("storage"))
            .envs(environment)
            .stdin(stdin)
            .stdout(log.try_clone()?)
            .stderr(log)
            // Its own group, so that what it starts can be ended with it.
            .process_group(0);
        if let RunAs::User { uid, gid, .. } = &self.run_as {
            command.uid(*uid).gid(*gid);
        }
        let mut child = command.spawn()?;
        let pid = child.id().unwrap_or_default();
        if let Some(line) = &life_line
            && let Err(error) = line.name(pid)
        {
            process::signal_group(pid, Signal::KILL);
            return Err(error);
        }
        // Waiting for a tokio child closes its standard input, which would end the stand-in.
        let stdin = child.stdin.take();
        tracing::info!(pid, "backend started");
        Ok(Backend {
            child,
            stdin,
            pid,
            stopped: false,
        })
    }

    fn life_line(&self) -> PathBuf {
        self.dir.file("backend.lock")
    }
}

/// A running backend. Dropped without [`Backend::stop`], it is killed.
pub(crate) struct Backend {
    child: Child,
    /// Open as long as the stand-in shall run.
    stdin: Option<ChildStdin>,
    pid: u32,
    stopped: bool,
}

impl Backend {
    /// Resolves when it has ended. May be dropped and called again.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// SIGTERM, then SIGKILL, to it and all it started.
    pub(crate) async fn stop(&mut self) {
        if self.has_ended().is_none() {
            process::signal(self.pid, Signal::TERM);
            if timeout(GRACE, self.child.wait()).await.is_err() {
                tracing::warn!(pid = self.pid, "the backend does not end; killing it");
            }
        }
        self.kill_group();
        // Killed processes end in an instant.
        let _ = timeout(GRACE, self.child.wait()).await;
        self.stdin = None;
        self.stopped = true;
    }

    fn kill_group(&self) {
        process::signal_group(self.pid, Signal::KILL);
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // Once it is stopped its number may be another's.
        if !self.stopped {
            self.kill_group();
        }
    }
}

/// For operators: how a backend ended.
pub(crate) fn describe_end(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("the backend ended with status {code}; its log is backend.log"),
        (None, Some(signal)) => format!("the backend was ended by signal {signal}"),
        (None, None) => "the backend ended".to_owned(),
    }
}

/// The program of this very process. Under root the backend's user may not be able to reach its
/// file, but Linux lets every process execute what it is itself.
pub(crate) fn own_program(run_as: &RunAs) -> io::Result<PathBuf> {
    let magic = Path::new("/proc/self/exe");
    match run_as {
        RunAs::User { .. } if magic.exists() => Ok(magic.to_owned()),
        _ => std::env::current_exe(),
    }
}

fn open_log(path: &Path) -> io::Result<fs::File> {
    if path.metadata().is_ok_and(|meta| meta.len() > LOG_LIMIT) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}
