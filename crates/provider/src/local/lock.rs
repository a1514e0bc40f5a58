//! File locks (`flock`), for three things:
//!
//! - one process at a time changes a machine ([`wait`]);
//! - one process at a time serves a folder of objects (`s3::folder`);
//! - a process is known to live ([`Holder`]): its standard input is a locked file that holds its
//!   process id. The kernel frees the lock when the process ends, however it ends, also while it
//!   is a zombie. So neither a pid that was given to another process nor a crash between the spawn
//!   and the note of the pid can mislead us.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep};

const POLL: Duration = Duration::from_millis(10);

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Unlinks the file while it is held; waiters notice ([`wait`] compares inodes).
    pub(super) fn remove(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "could not remove a lock file");
        }
    }

    pub(super) fn into_file(self) -> File {
        self.file
    }
}

/// Takes the lock, or gives up with [`io::ErrorKind::TimedOut`].
pub(crate) async fn wait(path: &Path, within: Duration) -> io::Result<FileLock> {
    let deadline = Instant::now() + within;
    loop {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) if is_still(path, &file) => {
                let path = path.to_owned();
                return Ok(FileLock { file, path });
            }
            // Unlinked between open and lock: take the new one.
            Ok(()) => continue,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "another process holds the lock",
            ));
        }
        sleep(POLL).await;
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn is_still(path: &Path, file: &File) -> bool {
    match (path.metadata(), file.metadata()) {
        (Ok(named), Ok(held)) => (named.dev(), named.ino()) == (held.dev(), held.ino()),
        _ => false,
    }
}

/// The process that lives on a locked file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Nobody,
    Process(u32),
    /// Locked, but its process id is not written yet.
    Unnamed,
}

pub(super) fn holder(path: &Path) -> Holder {
    let Ok(file) = File::open(path) else {
        return Holder::Nobody;
    };
    // Shared, so that two who look do not see each other. It ends with `file`.
    if file.try_lock_shared().is_ok() {
        return Holder::Nobody;
    }
    let mut text = [0; 16];
    let len = file.read_at(&mut text, 0).unwrap_or(0);
    let pid = std::str::from_utf8(&text[..len]).unwrap_or_default();
    pid.trim().parse().map_or(Holder::Unnamed, Holder::Process)
}

/// Writes who lives on the file.
pub(super) fn name_holder(file: &File, pid: u32) -> io::Result<()> {
    file.write_all_at(format!("{pid}\n").as_bytes(), 0)
}
