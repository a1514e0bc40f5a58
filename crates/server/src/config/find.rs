//! Which file to read: the one that was named, else the one of a `dev` on this computer.

use std::path::{Path, PathBuf};

use super::load::{Loaded, Origins};
use super::{Config, ConfigError};

/// Written by `dev` into its data folder, for the operators' commands.
pub const DEV_CONFIG: &str = "config.toml";

/// What the command line says about where to look.
#[derive(Debug, Default)]
pub struct Sources {
    /// `--config`, or `INSFORGE_CONFIG`.
    pub file: Option<PathBuf>,
    /// `--data-dir` of a command that is not `dev` itself.
    pub data_dir: Option<PathBuf>,
    /// Whether a `dev` in the working directory will do when nothing else is named.
    pub fall_back_to_dev: bool,
}

pub struct Found {
    pub config: Config,
    pub origins: Origins,
}

/// Reads the configuration from the process's environment and the file that applies.
pub fn find(sources: &Sources) -> Result<Found, ConfigError> {
    // Variables that are no Unicode cannot be ours.
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    find_in(sources, &environment)
}

fn find_in(sources: &Sources, environment: &[(String, String)]) -> Result<Found, ConfigError> {
    let dev_file = match (&sources.file, &sources.data_dir) {
        (None, Some(dir)) => {
            let file = dir.join(DEV_CONFIG);
            if !file.is_file() {
                return Err(ConfigError::NoDev(dir.clone()));
            }
            Some(file)
        }
        _ => None,
    };
    let file = sources.file.clone().or(dev_file);
    let Loaded { config, origins } = Config::load(file.as_deref(), environment.iter().cloned())?;
    let nothing_named = file.is_none() && !config.names_database();
    let here = Path::new(".insforge").join(DEV_CONFIG);
    if nothing_named && sources.fall_back_to_dev && here.is_file() {
        let Loaded { config, origins } = Config::load(Some(&here), environment.iter().cloned())?;
        return Ok(Found { config, origins });
    }
    Ok(Found { config, origins })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_dir_stands_for_the_file_that_dev_left_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources {
            data_dir: Some(dir.path().to_owned()),
            ..Sources::default()
        };
        let error = find_in(&sources, &[]).err().unwrap().to_string();
        assert!(error.contains("start dev there first"), "{error}");

        std::fs::write(
            dir.path().join(DEV_CONFIG),
            "[database]\nurl = \"postgres://x@127.0.0.1/dev\"\n",
        )
        .unwrap();
        assert!(find_in(&sources, &[]).ok().unwrap().config.names_database());
    }
}
