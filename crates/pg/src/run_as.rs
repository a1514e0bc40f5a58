//! Postgres refuses to run as root, so under root its programs run as an unprivileged user.

use std::{
    os::unix::fs::{MetadataExt, chown},
    path::{Component, Path, PathBuf},
};

use tokio::process::Command;

use crate::error::Error;

/// Who runs Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunAs {
    /// We are not root: ourselves.
    Caller,
    /// We are root: this user.
    User { name: String, uid: u32, gid: u32 },
}

impl RunAs {
    pub async fn detect() -> Result<Self, Error> {
        if id(&["-u"]).await != Some(0) {
            return Ok(Self::Caller);
        }
        for name in ["postgres", "nobody"] {
            if let (Some(uid), Some(gid)) = (id(&["-u", name]).await, id(&["-g", name]).await) {
                return Ok(Self::User {
                    name: name.to_owned(),
                    uid,
                    gid,
                });
            }
        }
        Err(Error::NoUnprivilegedUser)
    }

    /// Whether the user may enter every existing folder on the way to `dir` (`dir` itself, where
    /// it exists, excluded: its owner is ours to set). Call it early: the error names the folder
    /// and the mend, while Postgres would only say "permission denied".
    pub fn check_reachable(&self, dir: &Path) -> Result<(), Error> {
        let Self::User { name, uid, gid } = self else {
            return Ok(());
        };
        // Only existing folders can stand in the way; symlinks are followed, since the folders
        // behind them count too.
        let absolute = absolute(dir)?;
        let parents = absolute.ancestors().skip(1);
        let Some(existing) = parents.into_iter().find_map(|p| p.canonicalize().ok()) else {
            return Ok(());
        };
        let mut folder = PathBuf::new();
        for part in existing.components() {
            folder.push(part);
            if !matches!(part, Component::RootDir | Component::Normal(_)) {
                continue;
            }
            let meta = folder
                .metadata()
                .map_err(Error::io("look at", folder.clone()))?;
            // The programs start with no supplementary groups: std clears them with the user.
            let search = match () {
                () if meta.uid() == *uid => 0o100,
                () if meta.gid() == *gid => 0o010,
                () => 0o001,
            };
            if meta.mode() & search == 0 {
                return Err(Error::Unreachable {
                    user: name.clone(),
                    folder,
                });
            }
        }
        Ok(())
    }

    /// Gives one path to the user; nothing to do where we run Postgres ourselves.
    pub fn own(&self, path: &Path) -> Result<(), Error> {
        match self {
            Self::Caller => Ok(()),
            Self::User { uid, gid, .. } => {
                chown(path, Some(*uid), Some(*gid)).map_err(Error::io("change the owner of", path))
            }
        }
    }
}

pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(Error::io("find", path))
}

/// `id` is in POSIX; asking it needs no unsafe call.
async fn id(args: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(args).output().await.ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn stranger() -> RunAs {
        // An id that owns nothing here, so that the bits for "others" decide.
        RunAs::User {
            name: "postgres".into(),
            uid: 4_000_001,
            gid: 4_000_001,
        }
    }

    #[test]
    fn the_closed_folder_is_named_with_its_mend() {
        let home = tempfile::tempdir_in("/tmp").unwrap();
        let closed = home.path().join("closed");
        fs::create_dir(&closed).unwrap();
        let dir = closed.join("projects/p1/pg");
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();

        let error = stranger().check_reachable(&dir).unwrap_err();
        assert!(matches!(&error, Error::Unreachable { folder, .. } if folder.ends_with("closed")));
        assert!(error.to_string().contains("chmod o+x"), "{error}");

        fs::set_permissions(&closed, fs::Permissions::from_mode(0o711)).unwrap();
        stranger().check_reachable(&dir).unwrap();
        RunAs::Caller.check_reachable(&dir).unwrap();
    }
}
