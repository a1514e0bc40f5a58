//! One cluster: a data folder, the binaries that serve it and the port it listens on.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    fs,
    process::Command,
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::{
    binaries::Binaries,
    command::{command, run, run_with_input, tail},
    error::Error,
    postmaster::{self, Lock},
    run_as::{RunAs, absolute},
    settings::{self, Settings},
};

/// The superuser of every cluster made here.
pub const SUPERUSER: &str = "postgres";

const INITDB_TIMEOUT: Duration = Duration::from_mins(2);
const COPY_TIMEOUT: Duration = Duration::from_mins(5);
const SINGLE_USER_TIMEOUT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(20);

/// What RFC 3986 leaves unreserved.
const USERINFO: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[derive(Debug, Clone)]
pub struct Cluster {
    binaries: Binaries,
    run_as: RunAs,
    dir: PathBuf,
    port: u16,
    /// Held from before the fork until the postmaster has its lock file: in between it looks
    /// stopped, and is not.
    launching: Arc<Mutex<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    Fresh,
    /// It was running already, from the same folder on the same port.
    Adopted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Ends sessions, then shuts down cleanly.
    Fast,
    /// Like a crash: the next start recovers.
    Immediate,
}

impl Cluster {
    /// Makes a cluster with superuser [`SUPERUSER`]. It is made aside and renamed into place, so
    /// that a folder which exists is whole.
    pub async fn initdb(
        binaries: &Binaries,
        dir: impl Into<PathBuf>,
        port: u16,
        superuser_password: &SecretString,
    ) -> Result<Self, Error> {
        check_password(superuser_password)?;
        let cluster = Self::at(binaries, dir.into(), port).await?;
        let staging = cluster.staging().await?;
        let outcome = cluster.initdb_into(&staging, superuser_password).await;
        cluster.settle(&staging, outcome).await?;
        Ok(cluster)
    }

    async fn initdb_into(&self, staging: &Path, password: &SecretString) -> Result<(), Error> {
        fs::create_dir(staging)
            .await
            .map_err(Error::io("create", staging))?;
        set_private(staging).await?;
        self.run_as.own(staging)?;

        // initdb takes a password from a file only. `tempfile` makes it 0600 and removes it.
        let parent = staging.parent().unwrap_or(Path::new("/"));
        let pwfile = tempfile::Builder::new()
            .prefix(".pw-")
            .tempfile_in(parent)
            .map_err(Error::io("create a password file in", parent))?;
        fs::write(pwfile.path(), password.expose_secret())
            .await
            .map_err(Error::io("write", pwfile.path()))?;
        self.run_as.own(pwfile.path())?;

        let mut initdb = command(&self.binaries.program("initdb"), &self.run_as, staging);
        initdb
            .arg("--pgdata")
            .arg(staging)
            .args(["--username", SUPERUSER])
            .args(["--auth-host=scram-sha-256", "--auth-local=scram-sha-256"])
            .arg(format!("--pwfile={}", pwfile.path().display()))
            .args(["--encoding=UTF8", locale(), "--no-sync"]);
        run(initdb, INITDB_TIMEOUT).await?;
        self.include_settings(staging).await
    }

    /// A cluster that exists already.
    pub async fn open(
        binaries: &Binaries,
        dir: impl Into<PathBuf>,
        port: u16,
    ) -> Result<Self, Error> {
        let cluster = Self::at(binaries, dir.into(), port).await?;
        cluster.check_version(&cluster.dir).await?;
        Ok(cluster)
    }

    /// A copy of the stopped cluster in `from`, sharing blocks with it where the file system
    /// can. Made aside and renamed into place. It keeps the template's superuser password.
    pub async fn copy_template(
        binaries: &Binaries,
        from: &Path,
        to: impl Into<PathBuf>,
        port: u16,
    ) -> Result<Self, Error> {
        let cluster = Self::at(binaries, to.into(), port).await?;
        cluster.check_version(from).await?;
        if postmaster::live(from).await.is_some() {
            return Err(Error::TemplateRunning(from.to_owned()));
        }
        let staging = cluster.staging().await?;
        let outcome = copy_into(from, &staging).await;
        cluster.settle(&staging, outcome).await?;
        Ok(cluster)
    }

    /// Whether `dir` holds a cluster.
    pub fn exists(dir: &Path) -> bool {
        dir.join("PG_VERSION").is_file()
    }

    /// Starts, waits until connections are accepted, and leaves the server running when the
    /// caller ends. Running already from this folder, it is adopted as it is; `settings` then
    /// count from its next start.
    ///
    /// Dropped before it is done, it may leave a server that starts: [`Self::stop`] finds it.
    pub async fn start(&self, settings: &Settings) -> Result<Started, Error> {
        self.run_as.check_reachable(&self.dir)?;
        let deadline = Instant::now() + settings.start_timeout;
        let log_before = self.log_length().await;
        let launching = Arc::clone(&self.launching).lock_owned().await;
        if postmaster::live(&self.dir).await.is_some() {
            self.wait_until(|lock| lock.ready, deadline, log_before)
                .await?;
            return Ok(Started::Adopted);
        }
        self.check_version(&self.dir).await?;
        self.clear_foreign_lock().await?;
        self.write_settings(settings).await?;

        // A task of its own, which a caller who gives up does not end half-way.
        let (cluster, timeout) = (self.clone(), settings.start_timeout);
        let launch = tokio::spawn(async move {
            let _launching = launching;
            let mut pg_ctl = cluster.pg_ctl("start");
            pg_ctl
                .arg("--log")
                .arg(cluster.log_file())
                // We wait ourselves: pg_ctl looks every 100 ms only.
                .arg("--no-wait");
            run(pg_ctl, timeout).await?;
            cluster.wait_until(|_| true, deadline, log_before).await
        });
        launch.await.map_err(|_| self.not_ready())??;
        self.wait_until(|lock| lock.ready, deadline, log_before)
            .await?;
        tracing::debug!(dir = %self.dir.display(), port = self.port, "postgres started");
        Ok(Started::Fresh)
    }

    async fn wait_until(
        &self,
        is_enough: impl Fn(&Lock) -> bool,
        deadline: Instant,
        log_start: usize,
    ) -> Result<(), Error> {
        loop {
            match postmaster::live(&self.dir).await {
                Some(lock) if lock.port.is_some_and(|port| port != self.port) => {
                    return Err(Error::OtherPort {
                        dir: self.dir.clone(),
                        wanted: self.port,
                        actual: lock.port.unwrap_or_default(),
                    });
                }
                Some(lock) if is_enough(&lock) => return Ok(()),
                Some(_) => {}
                // Absent: not yet there (between fork and lock file), or gone again, and then
                // its last words are in the log.
                None => {
                    let said = self.log_since(log_start).await;
                    if said.contains("FATAL:") || said.contains("is shut down") {
                        return Err(Error::Program {
                            program: "postgres".to_owned(),
                            output: said,
                        });
                    }
                }
            }
            if Instant::now() > deadline {
                return Err(self.not_ready());
            }
            sleep(POLL).await;
        }
    }

    fn not_ready(&self) -> Error {
        Error::NotReady {
            port: self.port,
            log: self.log_file(),
        }
    }

    /// Stops and waits for the end. Not running is fine.
    pub async fn stop(&self, mode: StopMode, timeout: Duration) -> Result<(), Error> {
        let _launching = self.launching.lock().await;
        if !self.is_running().await {
            return Ok(());
        }
        let mut pg_ctl = self.pg_ctl("stop");
        pg_ctl.arg("--no-wait").arg(match mode {
            StopMode::Fast => "--mode=fast",
            StopMode::Immediate => "--mode=immediate",
        });
        match run(pg_ctl, timeout).await {
            Ok(_) => {}
            // It ended by itself in between.
            Err(Error::Program { .. }) if !self.is_running().await => return Ok(()),
            Err(error) => return Err(error),
        }
        let deadline = Instant::now() + timeout;
        while self.is_running().await {
            if Instant::now() > deadline {
                return Err(Error::TimedOut {
                    program: "pg_ctl stop".to_owned(),
                });
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    pub async fn is_running(&self) -> bool {
        self.pid().await.is_some()
    }

    /// The postmaster's process id.
    pub async fn pid(&self) -> Option<u32> {
        Some(postmaster::live(&self.dir).await?.pid)
    }

    /// Sets the superuser's password on a stopped cluster, in single-user mode: a copy has the
    /// template's password, and must lose it before anybody can connect.
    pub async fn set_superuser_password(&self, password: &SecretString) -> Result<(), Error> {
        check_password(password)?;
        if self.is_running().await {
            return Err(Error::Running(self.dir.clone()));
        }
        self.clear_foreign_lock().await?;
        let mut postgres = command(&self.binaries.program("postgres"), &self.run_as, &self.dir);
        postgres
            .arg("--single")
            .arg("-D")
            .arg(&self.dir)
            // A failing statement would be logged with the password in it, and must not pass
            // for a success.
            .args(["-c", "log_min_error_statement=panic"])
            .args(["-c", "exit_on_error=on"])
            .args(["-c", "standard_conforming_strings=on"])
            .arg("postgres");
        let literal = password.expose_secret().replace('\'', "''");
        let statement =
            SecretString::from(format!("ALTER ROLE {SUPERUSER} PASSWORD '{literal}'\n"));
        run_with_input(
            postgres,
            statement.expose_secret().as_bytes(),
            SINGLE_USER_TIMEOUT,
        )
        .await?;
        Ok(())
    }

    /// Stops at once if running, then deletes the folder.
    pub async fn remove(self) -> Result<(), Error> {
        self.stop(StopMode::Immediate, Duration::from_secs(10))
            .await?;
        remove_all(&self.dir).await
    }

    pub fn superuser_url(&self, database: &str, password: &SecretString) -> SecretString {
        SecretString::from(format!(
            "postgres://{SUPERUSER}:{}@127.0.0.1:{}/{}?sslmode=disable",
            utf8_percent_encode(password.expose_secret(), USERINFO),
            self.port,
            utf8_percent_encode(database, USERINFO),
        ))
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn log_file(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    async fn at(binaries: &Binaries, dir: PathBuf, port: u16) -> Result<Self, Error> {
        Ok(Self {
            binaries: binaries.clone(),
            run_as: RunAs::detect().await?,
            dir: absolute(&dir)?,
            port,
            launching: Arc::default(),
        })
    }

    fn pg_ctl(&self, verb: &str) -> Command {
        let mut pg_ctl = command(&self.binaries.program("pg_ctl"), &self.run_as, &self.dir);
        pg_ctl.arg(verb).arg("--pgdata").arg(&self.dir);
        pg_ctl
    }

    /// A name beside the final folder (same file system, so that the rename is atomic), unique
    /// to this process and moment.
    async fn staging(&self) -> Result<PathBuf, Error> {
        if fs::try_exists(&self.dir).await.unwrap_or(true) {
            return Err(Error::AlreadyExists(self.dir.clone()));
        }
        self.run_as.check_reachable(&self.dir)?;
        let parent = self.dir.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent)
            .await
            .map_err(Error::io("create", parent))?;
        // A umask may have closed the folders that were just made.
        self.run_as.check_reachable(&self.dir)?;
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy();
        let unique = tempfile::Builder::new()
            .prefix(&format!(".{name}-making-"))
            .tempdir_in(parent)
            .map_err(Error::io("create a folder in", parent))?;
        // Only its name is wanted: initdb and cp make the folder themselves.
        let path = unique.path().to_owned();
        unique.close().map_err(Error::io("remove", &path))?;
        Ok(path)
    }

    /// Renames the finished folder into place, or clears away the failed one.
    async fn settle(&self, staging: &Path, outcome: Result<(), Error>) -> Result<(), Error> {
        let outcome = match outcome {
            Ok(()) => fs::rename(staging, &self.dir).await.map_err(|source| {
                if self.dir.exists() {
                    Error::AlreadyExists(self.dir.clone())
                } else {
                    Error::io("rename into place", &self.dir)(source)
                }
            }),
            failed => failed,
        };
        if outcome.is_err()
            && let Err(error) = remove_all(staging).await
        {
            tracing::warn!(%error, "left a half-made cluster behind");
        }
        outcome
    }

    async fn check_version(&self, dir: &Path) -> Result<(), Error> {
        let version = fs::read_to_string(dir.join("PG_VERSION"))
            .await
            .map_err(|_| Error::NotACluster(dir.to_owned()))?;
        if version.trim() == self.binaries.version().to_string() {
            return Ok(());
        }
        Err(Error::WrongVersion {
            dir: dir.to_owned(),
            cluster: version.trim().to_owned(),
            binaries: self.binaries.version(),
        })
    }

    /// After a crash of the machine the lock's pid may belong to another process of the same
    /// user; Postgres would then refuse to start for ever. Whoever gets here has seen that it is
    /// not the postmaster of this folder. Postgres still checks the shared memory of the folder,
    /// so backends that outlived a killed postmaster are noticed all the same.
    async fn clear_foreign_lock(&self) -> Result<(), Error> {
        let path = postmaster::lock_file(&self.dir);
        match fs::remove_file(&path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    async fn write_settings(&self, settings: &Settings) -> Result<(), Error> {
        self.include_settings(&self.dir).await?;
        let path = self.dir.join(settings::FILE);
        let text = settings.render(self.port)?;
        fs::write(&path, text)
            .await
            .map_err(Error::io("write", &path))?;
        // Settings may hold `app.encryption_key`.
        set_mode(&path, 0o600).await?;
        self.run_as.own(&path)
    }

    /// Makes `postgresql.conf` include our file, once.
    async fn include_settings(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join("postgresql.conf");
        let mut text = fs::read_to_string(&path)
            .await
            .map_err(Error::io("read", &path))?;
        if text.contains(settings::INCLUDE) {
            return Ok(());
        }
        text.push_str(settings::INCLUDE);
        fs::write(&path, text)
            .await
            .map_err(Error::io("write", &path))
    }

    async fn log_length(&self) -> usize {
        fs::metadata(self.log_file())
            .await
            .ok()
            .and_then(|meta| usize::try_from(meta.len()).ok())
            .unwrap_or(0)
    }

    async fn log_since(&self, start: usize) -> String {
        let log = fs::read(self.log_file()).await.unwrap_or_default();
        tail(log.get(start..).unwrap_or_default())
    }
}

/// `cp` knows reflinks (Linux) and clones (macOS); std's copy of a tree knows neither.
async fn copy_into(from: &Path, staging: &Path) -> Result<(), Error> {
    let flags: &[&str] = if cfg!(target_os = "macos") {
        &["-Rpc"]
    } else {
        &["-a", "--reflink=auto"]
    };
    let copied = run(cp(flags, from, staging), COPY_TIMEOUT).await;
    if copied.is_err() {
        // A file system without clones, or a `cp` without the flag.
        remove_all(staging).await?;
        run(cp(&["-Rp"], from, staging), COPY_TIMEOUT).await?;
    }
    for left_over in ["postmaster.pid", "postmaster.opts", "server.log"] {
        let path = staging.join(left_over);
        match fs::remove_file(&path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn cp(flags: &[&str], from: &Path, to: &Path) -> Command {
    // As ourselves: root keeps the owners of the files with it.
    let mut cp = command(Path::new("cp"), &RunAs::Caller, Path::new("/"));
    cp.args(flags).arg(from).arg(to);
    cp
}

async fn remove_all(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", dir)(error))
        }
        _ => Ok(()),
    }
}

async fn set_private(dir: &Path) -> Result<(), Error> {
    set_mode(dir, 0o700).await
}

async fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .await
        .map_err(Error::io("change the mode of", path))
}

fn check_password(password: &SecretString) -> Result<(), Error> {
    let text = password.expose_secret();
    if text.is_empty() || text.contains(['\n', '\r', '\0']) {
        return Err(Error::BadPassword);
    }
    Ok(())
}

/// macOS has no `C.UTF-8` before version 15.
fn locale() -> &'static str {
    if cfg!(target_os = "macos") {
        "--locale=C"
    } else {
        "--locale=C.UTF-8"
    }
}
