//! The folder of one scenario, the programs that were started in it, and their end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};

use super::{Process, built, kill, processes};
use crate::eventually;

/// Ours are set by each scenario; only where Postgres is stays as it was.
const KEPT: &str = "INSFORGE_PG_BIN";

/// Dropped, it kills all that still runs in it and removes the folder. When a test fails, it says
/// first what its programs said last.
pub struct Home {
    path: PathBuf,
    started: AtomicUsize,
}

/// What an operator's command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    /// What it wrote as JSON.
    ///
    /// # Panics
    /// When it failed or wrote no JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// What it wrote for people to stderr, and that it failed.
    ///
    /// # Panics
    /// When it did not fail.
    #[track_caller]
    pub fn refused(&self) -> &str {
        assert_eq!(self.code, Some(1), "{self:?}");
        &self.err
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// # Panics
    /// When the folder cannot be made.
    pub fn new() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let name = format!("insforge-real-{}", uuid::Uuid::new_v4().simple());
        let path = std::env::temp_dir()
            .canonicalize()
            .expect("there is a folder for temporary files")
            .join(name);
        fs::create_dir_all(path.join("said")).expect("a folder can be made");
        // Under root, Postgres runs as another user, who must get through.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .expect("our own folder's mode can be set");
        Self {
            path,
            started: AtomicUsize::new(0),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The `--data-dir` of what runs here, named like the default.
    pub fn data(&self) -> PathBuf {
        self.path.join(".insforge")
    }

    /// What every program here has said so far, stdout and stderr.
    pub fn said(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path.join("said")).expect("the folder can be read");
        entries.flatten().map(|entry| entry.path()).collect()
    }

    /// All that runs in this folder.
    pub fn processes(&self) -> Vec<Process> {
        processes::of(&self.path)
    }

    /// Those of one machine.
    pub fn processes_of(&self, machine: &Path) -> Vec<Process> {
        processes::of(machine)
    }

    /// Folders of machines, whole ones only.
    pub fn machines(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.data().join("machines")) else {
            return Vec::new();
        };
        entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                !name.starts_with('.')
            })
            .collect()
    }

    /// The folder of the machine whose backend has this address.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn machine_at(&self, access_host: &str) -> PathBuf {
        let port = access_host.rsplit(':').next().expect("an address");
        self.machines()
            .into_iter()
            .find(|dir| {
                let record = fs::read_to_string(dir.join("machine.json")).unwrap_or_default();
                let record: Value = serde_json::from_str(&record).unwrap_or_default();
                record["backend_port"].as_u64() == port.parse().ok()
            })
            .unwrap_or_else(|| panic!("no machine listens at {access_host}"))
    }

    /// `insforge-cloud` with these arguments and nothing of our own in its environment.
    fn command(&self, args: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = Command::new(built("insforge-cloud"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("INSFORGE_") && name != KEPT {
                command.env_remove(name);
            }
        }
        command
            .args(args)
            .envs(env.iter().copied())
            .current_dir(&self.path)
            .stdin(Stdio::null());
        command
    }

    /// Starts `insforge-cloud` and leaves it running. Its words go to files, see [`Self::said`].
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&self, args: &[&str], env: &[(&str, &str)]) -> Program {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let name = format!("{number}-{}", args.first().unwrap_or(&"none"));
        let file = |end: &str| self.path.join("said").join(format!("{name}.{end}"));
        let (out, err) = (file("out"), file("err"));
        let make = |path: &Path| File::create(path).expect("a file can be made");
        let child = self
            .command(args, env)
            .stdout(make(&out))
            .stderr(make(&err))
            .kill_on_drop(true)
            .spawn()
            .expect("insforge-cloud can be started");
        Program { child, out, err }
    }

    /// Runs a command to its end, as it stands.
    ///
    /// # Panics
    /// When it has not ended after half a minute.
    pub async fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Said {
        let ran = self.command(args, env).kill_on_drop(true).output();
        let output = tokio::time::timeout(Duration::from_secs(30), ran)
            .await
            .unwrap_or_else(|_| panic!("{args:?} does not end"))
            .expect("insforge-cloud can be run");
        Said {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// An operator's command on the `dev` of this home.
    pub async fn operator(&self, args: &[&str]) -> Said {
        self.operator_with(args, &[]).await
    }

    pub async fn operator_with(&self, args: &[&str], env: &[(&str, &str)]) -> Said {
        let data = self.data().to_string_lossy().into_owned();
        self.run(&[&["--data-dir", &data], args].concat(), env)
            .await
    }

    /// # Panics
    /// When something still runs after `at_most`; names it.
    pub async fn nothing_runs(&self, at_most: Duration) {
        let until = std::time::Instant::now() + at_most;
        while !self.processes().is_empty() {
            assert!(
                std::time::Instant::now() < until,
                "left running: {:#?}",
                self.processes()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn tell_what_was_said(&self) {
        for path in self.said() {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- {} ---\n{}", path.display(), last.join("\n"));
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell_what_was_said();
        }
        // More than once: what is killed may be replaced by what is killed next.
        for _ in 0..20 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for process in left {
                kill(process.pid);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        for _ in 0..10 {
            if fs::remove_dir_all(&self.path).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A running `insforge-cloud`. Dropped, it is killed.
pub struct Program {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Program {
    /// # Panics
    /// When it has ended and was waited for.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub fn out(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    pub fn err(&self) -> String {
        fs::read_to_string(&self.err).unwrap_or_default()
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it has said something on stdout or stderr that `find` is looking for.
    ///
    /// # Panics
    /// When it ends before, or does not say it in time.
    pub async fn until_said<T>(
        &mut self,
        what: &str,
        at_most: Duration,
        find: impl Fn(&str) -> Option<T>,
    ) -> T {
        eventually(what, at_most, async || {
            let found = find(&self.out()).or_else(|| find(&self.err()));
            assert!(
                found.is_some() || !self.has_ended(),
                "insforge-cloud ended before it said {what}: {}",
                self.err()
            );
            found
        })
        .await
    }

    /// Ctrl-C, and how it ended.
    ///
    /// # Panics
    /// When it has not ended after a minute.
    pub async fn interrupt(mut self) -> ExitStatus {
        processes::signal(self.pid(), "INT");
        tokio::time::timeout(Duration::from_mins(1), self.child.wait())
            .await
            .expect("Ctrl-C ends it within a minute")
            .expect("a child can be waited for")
    }

    /// `kill -9`.
    pub async fn kill(mut self) {
        let _ = self.child.kill().await;
    }
}
