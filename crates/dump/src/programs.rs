//! Which pg_dump and pg_restore fit a server.
//!
//! pg_dump refuses servers newer than itself. pg_restore reads archives of its own release and older ones; from 17 on it
//! sets a parameter that servers before 17 reject. So the programs of the server's own major version are the best, and
//! a machine that has several is asked for all of them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use cp_pg::Binaries;
use tokio::process::Command;

use crate::error::Error;

pub(crate) const PG_DUMP: &str = "pg_dump";
pub(crate) const PG_RESTORE: &str = "pg_restore";

/// The first pg_restore that sets `transaction_timeout`, which servers before it do not know.
const SETS_TRANSACTION_TIMEOUT: u32 = 17;

/// The client programs of this machine.
#[derive(Debug, Clone)]
pub struct Programs {
    /// At least one; best first as the search of `cp-pg` has it.
    installed: Vec<Installed>,
}

#[derive(Debug, Clone)]
struct Installed {
    folder: PathBuf,
    /// The major version of both programs.
    version: u32,
}

impl Programs {
    /// All that the search of `cp-pg` knows: `INSFORGE_PG_BIN`, else PATH, Debian's folders, Homebrew.
    pub async fn find() -> Result<Self, Error> {
        Self::in_folders(Binaries::folders()).await
    }

    /// Exactly those of this folder.
    pub async fn in_dir(folder: impl AsRef<Path>) -> Result<Self, Error> {
        Self::in_folders(vec![folder.as_ref().to_owned()]).await
    }

    async fn in_folders(folders: Vec<PathBuf>) -> Result<Self, Error> {
        let mut installed: Vec<Installed> = Vec::new();
        for folder in &folders {
            let Some(found) = look_into(folder).await else {
                continue;
            };
            if !installed.iter().any(|known| known.folder == found.folder) {
                installed.push(found);
            }
        }
        if installed.is_empty() {
            return Err(Error::NoPrograms(folders));
        }
        Ok(Self { installed })
    }

    /// The pg_dump for a server of this major version.
    pub(crate) fn pg_dump(&self, server: u32) -> Result<PathBuf, Error> {
        let newest = self
            .installed
            .iter()
            .map(|installed| installed.version)
            .max();
        if let Some(newest) = newest.filter(|newest| *newest < server) {
            return Err(Error::ProgramTooOld { server, newest });
        }
        // An archive that no pg_restore could bring back to such a server is of no use.
        Ok(self.fitting(server, server)?.join(PG_DUMP))
    }

    /// The pg_restore for a server of this major version and an archive that needs `oldest` to be read.
    pub(crate) fn pg_restore(&self, server: u32, oldest: u32) -> Result<PathBuf, Error> {
        Ok(self.fitting(server, oldest.max(server))?.join(PG_RESTORE))
    }

    /// The folder of the oldest programs from `oldest` on that the server understands.
    fn fitting(&self, server: u32, oldest: u32) -> Result<&Path, Error> {
        let newest = if server < SETS_TRANSACTION_TIMEOUT {
            SETS_TRANSACTION_TIMEOUT - 1
        } else {
            u32::MAX
        };
        self.installed
            .iter()
            .filter(|installed| (oldest..=newest).contains(&installed.version))
            .min_by_key(|installed| installed.version)
            .map(|installed| installed.folder.as_path())
            .ok_or(Error::NoFittingProgram { server, oldest })
    }
}

/// Debian's programs on the PATH are links to a script that asks for a cluster of its own, so links are followed and
/// both programs must lie where the first one really is.
async fn look_into(folder: &Path) -> Option<Installed> {
    let real = fs::canonicalize(folder.join(PG_DUMP)).ok()?;
    let folder = real.parent()?.to_owned();
    let version = version_of(&folder.join(PG_DUMP)).await?;
    let same = version_of(&folder.join(PG_RESTORE)).await? == version;
    same.then_some(Installed { folder, version })
}

/// `pg_dump (PostgreSQL) 15.13 (Debian …)` gives 15.
async fn version_of(program: &Path) -> Option<u32> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .await
        .ok()?;
    let line = String::from_utf8_lossy(&output.stdout);
    let number = line.split_once("(PostgreSQL) ")?.1;
    number
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn having(versions: &[u32]) -> Programs {
        let installed = versions.iter().map(|version| Installed {
            folder: PathBuf::from(format!("/{version}")),
            version: *version,
        });
        Programs {
            installed: installed.collect(),
        }
    }

    #[test]
    fn the_servers_own_version_is_the_best() {
        let programs = having(&[17, 15, 16]);
        assert_eq!(programs.pg_dump(15).unwrap(), Path::new("/15/pg_dump"));
        assert_eq!(
            programs.pg_restore(15, 9).unwrap(),
            Path::new("/15/pg_restore")
        );
        assert_eq!(programs.pg_dump(17).unwrap(), Path::new("/17/pg_dump"));
    }

    #[test]
    fn an_archive_of_a_newer_pg_dump_takes_a_newer_pg_restore() {
        let programs = having(&[15, 16]);
        assert_eq!(
            programs.pg_restore(15, 16).unwrap(),
            Path::new("/16/pg_restore")
        );
    }

    #[test]
    fn what_does_not_fit_is_told_with_both_versions() {
        let text = having(&[14]).pg_dump(15).unwrap_err().to_string();
        assert!(
            text.contains("Postgres 15") && text.contains("14"),
            "{text}"
        );
        let text = having(&[17]).pg_restore(15, 9).unwrap_err().to_string();
        assert!(text.contains("15") && text.contains("17"), "{text}");
        assert!(having(&[17]).pg_dump(15).is_err());
        assert!(having(&[15, 17]).pg_restore(15, 17).is_err());
        assert!(having(&[17]).pg_restore(17, 17).is_ok());
    }

    #[tokio::test]
    async fn the_script_on_the_path_is_no_program() {
        let programs = Programs::find().await.unwrap();
        for installed in programs.installed {
            assert!(installed.folder.join("pg_restore").is_file());
        }
    }

    #[tokio::test]
    async fn an_empty_folder_is_named() {
        let empty = tempfile::tempdir().unwrap();
        let error = Programs::in_dir(empty.path()).await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&empty.path().display().to_string())
        );
        assert!(error.is_permanent());
    }
}
