//! The cluster that machines are copies of: `initdb` takes seconds, a copy a fraction of one.

use std::{fs, path::PathBuf, time::Duration};

use cp_pg::{Binaries, Cluster};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{
    from_pg, io_at,
    layout::{self, Layout},
    lock,
};
use crate::ProviderError;

/// initdb on a slow disk, run by another process that we wait for.
const LOCK_WAIT: Duration = Duration::from_mins(3);

pub(super) struct Template {
    pub dir: PathBuf,
    /// Of the superuser. Each machine gets its project's own later.
    pub password: SecretString,
}

/// Makes it where it is missing; one process makes, others wait.
pub(super) async fn ensure(
    layout: &Layout,
    binaries: &Binaries,
) -> Result<Template, ProviderError> {
    let dir = layout.template(binaries.version());
    let password_file = layout.template_password(binaries.version());
    if let (true, Ok(password)) = (Cluster::exists(&dir), fs::read_to_string(&password_file)) {
        let password = password.into();
        return Ok(Template { dir, password });
    }

    let lock = layout.template_lock();
    let _lock = lock::wait(&lock, LOCK_WAIT)
        .await
        .map_err(io_at("lock", &lock))?;
    if let (true, Ok(password)) = (Cluster::exists(&dir), fs::read_to_string(&password_file)) {
        let password = password.into();
        return Ok(Template { dir, password });
    }
    // A template whose password is lost is of no use.
    layout::remove_all(&dir)
        .await
        .map_err(io_at("remove", &dir))?;
    let password = SecretString::from(Uuid::new_v4().simple().to_string());
    layout::write_private(&password_file, password.expose_secret().as_bytes())
        .map_err(io_at("write", &password_file))?;
    // The template never runs: its port is a placeholder.
    Cluster::initdb(binaries, &dir, 1, &password)
        .await
        .map_err(from_pg)?;
    Ok(Template { dir, password })
}
