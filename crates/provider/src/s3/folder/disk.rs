//! Files that are there whole or not at all, and still there after a power cut.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use cp_pg::Durability;
use serde::{Serialize, de::DeserializeOwned};

/// How careful we are with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disk(pub(super) Durability);

impl Disk {
    /// Writes `value` beside `path` and renames it into place.
    pub(super) fn write_json(self, path: &Path, value: &impl Serialize) -> io::Result<()> {
        let temporary = path.with_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        self.sync(&file)?;
        fs::rename(&temporary, path)?;
        self.sync_parent(path)
    }

    /// Makes the content of a file durable, or the names in a folder.
    pub(super) fn sync(self, file: &File) -> io::Result<()> {
        match self.0 {
            Durability::Full => file.sync_all(),
            Durability::Fast => Ok(()),
        }
    }

    pub(super) fn sync_dir(self, dir: &Path) -> io::Result<()> {
        self.sync(&File::open(dir)?)
    }

    pub(super) fn sync_parent(self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |dir| self.sync_dir(dir))
    }
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&fs::read(path)?).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{}: {error}", path.display()),
        )
    })
}

/// Removes a file or a folder with all that is in it; ok when it is gone.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
