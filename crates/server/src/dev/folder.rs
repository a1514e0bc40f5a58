//! The folder of a `dev`, and the small files in it. Holds the lock that keeps a second `dev` out.
//!
//! ```text
//! .insforge/
//!     dev.lock       held as long as a dev runs here; names its process
//!     config.toml    for operators' commands (0600)
//!     demo.json      the demo partner, user and OAuth clients (0600)
//!     sealing-key    made once; without it nothing sealed opens again (0600)
//!     postgres/      our own database, with postgres-password (0600) and postgres-port beside it
//!     objects/       snapshots and the like, where no bucket is configured
//!     mail/          the mails that people would get, as .eml files
//!     machines/ …    see `cp_provider::local`
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use cp_pg::Cluster;
use cp_tokens::sealing::SealingKey;
use secrecy::ExposeSecret as _;
use toml::{Table, Value};

use crate::config::Config;
use crate::files::{read_if_there, write_private};

#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("another `insforge-cloud dev` (process {pid}) uses {}; stop it, or choose another --data-dir", path.display())]
    InUse { path: PathBuf, pid: String },
    #[error(
        "{} is missing, but the database in that folder was sealed with it; put it back, or remove the whole folder to begin anew",
        .0.display()
    )]
    SealingKeyLost(PathBuf),
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

pub struct DevFolder {
    path: PathBuf,
    /// Released when the process ends, however it ends.
    _lock: File,
}

impl DevFolder {
    /// Makes the folder where it is missing, and takes its lock.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        make(path).map_err(at("create", path))?;
        let path = path.canonicalize().map_err(at("find", path))?;
        let lock = lock(&path)?;
        let folder = Self { path, _lock: lock };
        // Secrets and databases do not belong into anybody's repository.
        let ignore = folder.file(".gitignore");
        if !ignore.exists() {
            fs::write(&ignore, "*\n").map_err(at("write", &ignore))?;
        }
        Ok(folder)
    }

    /// Absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.file("postgres")
    }

    pub(super) fn mail(&self) -> PathBuf {
        self.file("mail")
    }

    pub(super) fn objects(&self) -> PathBuf {
        self.file("objects")
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<String>, FolderError> {
        let path = self.file(name);
        read_if_there(&path).map_err(at("read", &path))
    }

    pub(super) fn write(&self, name: &str, content: &str) -> Result<(), FolderError> {
        let path = self.file(name);
        write_private(&path, content).map_err(at("write", &path))
    }

    /// The key that seals secrets of this folder's installation: made once. With a database of
    /// somebody else's nobody can tell whether an older key is missing; `doctor` finds that out.
    pub(super) fn sealing_key_file(&self, foreign_database: bool) -> Result<PathBuf, FolderError> {
        let name = "sealing-key";
        let path = self.file(name);
        if self.read(name)?.is_none() {
            if !foreign_database
                && Cluster::exists(&self.postgres())
                && self.file("demo.json").exists()
            {
                return Err(FolderError::SealingKeyLost(path));
            }
            self.write(
                name,
                SealingKey::generate().to_secret_text().expose_secret(),
            )?;
        }
        Ok(path)
    }

    /// Tells operators' commands where everything is.
    pub(super) fn write_config(&self, config: &Config) -> Result<(), FolderError> {
        let text = |value: &str| Value::String(value.to_owned());
        let path = |value: &Path| text(&value.to_string_lossy());
        let mut database = Table::new();
        if let Some(url) = &config.database.url {
            database.insert("url".to_owned(), text(url.expose_secret()));
        }
        if let Some(file) = &config.database.url_file {
            database.insert("url_file".to_owned(), path(file));
        }
        let mut secrets = Table::new();
        if let Some(key) = &config.secrets.sealing_key {
            secrets.insert("sealing_key".to_owned(), text(key.expose_secret()));
        }
        if let Some(file) = &config.secrets.sealing_key_file {
            secrets.insert("sealing_key_file".to_owned(), path(file));
        }
        let mut http = Table::new();
        http.insert("listen".to_owned(), text(&config.http.listen.to_string()));
        if let Some(url) = &config.http.base_url {
            http.insert("base_url".to_owned(), text(url));
        }
        let mut admin = Table::new();
        admin.insert("listen".to_owned(), text(&config.admin.listen.to_string()));
        let mut mail = Table::new();
        mail.insert("from".to_owned(), text(&config.mail.from.to_string()));
        if let Some(url) = &config.mail.smtp_url {
            mail.insert("smtp_url".to_owned(), text(url.expose_secret()));
        }
        if let Some(file) = &config.mail.smtp_url_file {
            mail.insert("smtp_url_file".to_owned(), path(file));
        }
        if let Some(folder) = &config.mail.folder {
            mail.insert("folder".to_owned(), path(folder));
        }
        let mut local = Table::new();
        local.insert("data_dir".to_owned(), path(&self.path));
        let mut limits = Table::new();
        limits.insert(
            "allow_http_webhooks".to_owned(),
            Value::Boolean(config.limits.allow_http_webhooks),
        );
        let mut sections = vec![
            ("http", http),
            ("limits", limits),
            ("admin", admin),
            ("database", database),
            ("secrets", secrets),
            ("local", local),
            ("mail", mail),
        ];
        // It cannot fail: an unset key, which TOML has no form for, is left out.
        if config.objects.names_buckets()
            && let Ok(objects) = Table::try_from(&config.objects)
        {
            sections.push(("objects", objects));
        }
        let table: Table = sections
            .into_iter()
            .map(|(name, section)| (name.to_owned(), Value::Table(section)))
            .collect();
        self.write(
            "config.toml",
            &format!("# Written by `insforge-cloud dev` at each start; holds secrets.\n{table}"),
        )
    }
}

/// Under root the clusters belong to another user, who must get through: 0711. Else 0700.
fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if fs::metadata(path)?.uid() == 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o711))?;
    }
    Ok(())
}

fn lock(folder: &Path) -> Result<File, FolderError> {
    let path = folder.join("dev.lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(at("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(&path).unwrap_or_default();
            return Err(FolderError::InUse {
                path: folder.to_owned(),
                pid: pid.trim().to_owned(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(at("lock", &path)(source)),
    }
    // For the message above alone.
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(at("write", &path))?;
    Ok(file)
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use cp_model::Region;

    use super::*;
    use crate::config::objects::BucketOfRegion;

    #[test]
    fn two_devs_cannot_share_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let first = DevFolder::open(dir.path()).unwrap();
        let error = DevFolder::open(dir.path()).err().unwrap().to_string();
        let pid = std::process::id().to_string();
        assert!(
            error.contains(&pid) && error.contains("--data-dir"),
            "{error}"
        );
        drop(first);
        assert!(DevFolder::open(dir.path()).is_ok());
    }

    #[test]
    fn the_sealing_key_is_made_once_and_its_loss_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = DevFolder::open(&dir.path().join("new/data")).unwrap();
        let path = folder.sealing_key_file(false).unwrap();
        let made = fs::read_to_string(&path).unwrap();
        assert!(SealingKey::parse(&made).is_ok());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        folder.sealing_key_file(false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), made);

        fs::create_dir(folder.postgres()).unwrap();
        fs::write(folder.postgres().join("PG_VERSION"), "15").unwrap();
        fs::write(folder.file("demo.json"), "{}").unwrap();
        fs::remove_file(&path).unwrap();
        let error = folder.sealing_key_file(false).unwrap_err();
        assert!(matches!(error, FolderError::SealingKeyLost(_)));
    }

    #[test]
    fn what_dev_writes_for_operators_can_be_read_as_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let folder = DevFolder::open(dir.path()).unwrap();
        let mut config = Config::default();
        config.database.url = Some("postgres://postgres:p\"w@127.0.0.1:1/x".into());
        config.secrets.sealing_key_file = Some(folder.sealing_key_file(false).unwrap());
        config.http.base_url = Some("http://127.0.0.1:8080".to_owned());
        config.mail.folder = Some(folder.mail());
        config.objects.buckets.push(BucketOfRegion {
            region: Region::UsEast,
            aws_region: None,
            bucket: "acme".to_owned(),
            endpoint: Some("http://127.0.0.1:9000".to_owned()),
            kms_key: None,
        });
        folder.write_config(&config).unwrap();
        let read = Config::load(Some(&folder.file("config.toml")), [])
            .ok()
            .unwrap()
            .config;
        assert_eq!(
            read.database_url().unwrap().expose_secret(),
            "postgres://postgres:p\"w@127.0.0.1:1/x"
        );
        assert!(read.sealer().is_ok());
        assert_eq!(read.mail.folder, Some(folder.mail()));
        assert_eq!(read.mail.from, config.mail.from);
        assert_eq!(read.local.data_dir, folder.path());
        assert_eq!(read.objects.buckets, config.objects.buckets);
    }
}
