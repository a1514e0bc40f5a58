//! Where this machine keeps its Postgres programs.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

/// Set to a folder, it is the only one looked at.
pub(crate) const OVERRIDE: &str = "INSFORGE_PG_BIN";

/// Older releases miss what the merge engine and the project backend rely on.
const OLDEST: u32 = 15;

/// What a folder must hold to be of use.
const NEEDED: [&str; 3] = ["postgres", "initdb", "pg_ctl"];

/// The programs of one Postgres installation, all from the same folder.
#[derive(Debug, Clone)]
pub struct Binaries {
    dir: PathBuf,
    version: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    #[error(
        "no Postgres {OLDEST} or newer on this machine; install it with `{}`, or set {OVERRIDE} to the folder of `initdb`",
        install_command()
    )]
    Nowhere,
    #[error("{} holds no usable Postgres {OLDEST} or newer (needs postgres, initdb, pg_ctl)", .0.display())]
    NotThere(PathBuf),
}

impl Binaries {
    /// `INSFORGE_PG_BIN`, else PATH, else the newest of Debian's folders, else Homebrew.
    pub async fn find() -> Result<Self, NotFound> {
        if let Some(dir) = env::var_os(OVERRIDE).filter(|dir| !dir.is_empty()) {
            return Self::in_dir(PathBuf::from(dir)).await;
        }
        let path = env::var_os("PATH").unwrap_or_default();
        Self::first_of(candidates(&path))
            .await
            .ok_or(NotFound::Nowhere)
    }

    /// Exactly this folder (or the one its `postgres` is linked from).
    pub async fn in_dir(dir: impl AsRef<Path>) -> Result<Self, NotFound> {
        let dir = dir.as_ref();
        let not_there = || NotFound::NotThere(dir.to_owned());
        let home = home_of(dir).ok_or_else(not_there)?;
        let version = version_of(&home.join("postgres"))
            .await
            .filter(|version| *version >= OLDEST)
            .ok_or_else(not_there)?;
        Ok(Self { dir: home, version })
    }

    /// The folders that [`Binaries::find`] looks at, best first: for whoever needs the client
    /// programs alone (`pg_dump`, `pg_restore`), which a machine may have without a server.
    pub fn folders() -> Vec<PathBuf> {
        match env::var_os(OVERRIDE).filter(|dir| !dir.is_empty()) {
            Some(dir) => vec![PathBuf::from(dir)],
            None => candidates(&env::var_os("PATH").unwrap_or_default()),
        }
    }

    async fn first_of(dirs: Vec<PathBuf>) -> Option<Self> {
        for dir in dirs {
            if let Ok(found) = Self::in_dir(&dir).await {
                return Some(found);
            }
        }
        None
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The major version, e.g. 15.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The path of a program, e.g. `pg_dump`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Folders worth a look, best first.
fn candidates(path: &OsStr) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = env::split_paths(path).collect();
    dirs.extend(newest_first("/usr/lib/postgresql", "", "bin"));
    for homebrew in ["/opt/homebrew/opt", "/usr/local/opt"] {
        dirs.extend(newest_first(homebrew, "postgresql@", "bin"));
    }
    dirs
}

/// `{parent}/{prefix}{number}/{below}` with the highest number first.
fn newest_first(parent: &str, prefix: &str, below: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let number = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((number, entry.path().join(below)))
        })
        .collect();
    found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    found.into_iter().map(|(_, dir)| dir).collect()
}

/// The folder that really holds the programs. A `postgres` on the PATH is often a symlink whose
/// sibling `initdb` is elsewhere or absent, so the link is followed first.
fn home_of(dir: &Path) -> Option<PathBuf> {
    let real = dir.join("postgres").canonicalize().ok()?;
    let home = real.parent()?.to_owned();
    NEEDED
        .iter()
        .all(|program| home.join(program).is_file())
        .then_some(home)
}

/// `postgres (PostgreSQL) 15.13 (Debian …)` gives 15; `18beta1` gives 18.
async fn version_of(postgres: &Path) -> Option<u32> {
    let output = Command::new(postgres)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .await
        .ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(line: &str) -> Option<u32> {
    let number = line.split_once(')')?.1.trim_start();
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn install_command() -> &'static str {
    if cfg!(target_os = "macos") {
        "brew install postgresql@15"
    } else {
        "apt-get install postgresql"
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_version_is_read_from_all_known_forms() {
        assert_eq!(
            parse_version("postgres (PostgreSQL) 15.13 (Debian 15.13-0)"),
            Some(15)
        );
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_version("something else"), None);
    }

    #[tokio::test]
    async fn a_folder_without_postgres_is_named() {
        let empty = tempfile::tempdir().unwrap();
        let error = Binaries::in_dir(empty.path()).await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&empty.path().display().to_string())
        );
    }

    #[tokio::test]
    async fn a_machine_without_postgres_learns_the_install_command() {
        let empty = tempfile::tempdir().unwrap();
        assert!(
            Binaries::first_of(vec![empty.path().to_owned()])
                .await
                .is_none()
        );
        let text = NotFound::Nowhere.to_string();
        assert!(text.contains("install postgresql"), "{text}");
        assert!(text.contains(OVERRIDE), "{text}");
    }

    #[tokio::test]
    async fn a_lone_symlink_leads_to_the_folder_of_initdb() {
        let real = Binaries::find().await.unwrap();
        let links = tempfile::tempdir().unwrap();
        symlink(real.program("postgres"), links.path().join("postgres")).unwrap();
        let found = Binaries::in_dir(links.path()).await.unwrap();
        assert!(found.program("initdb").is_file());
        assert_eq!(found.version(), real.version());
    }
}
