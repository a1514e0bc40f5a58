//! What must be known after a crash, in `stack.json` of the data folder (mode 0600, it holds the
//! containers' secrets as the files for docker do).

use std::{io, path::PathBuf};

use cp_model::ProjectId;
use serde::{Deserialize, Serialize};

use super::stack::Stack;
use crate::{config::MachineDir, keep};

const FILE: &str = "stack.json";

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    project_id: Option<ProjectId>,
    database_password: Option<String>,
    written: Option<Written>,
    settled_restarts: Option<i64>,
    served: Option<String>,
    served_before: Option<String>,
    given_up: Option<GivenUp>,
}

/// What the files for docker say, or are about to.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Written {
    pub stack: Stack,
    /// It has served, or its database did alone: files and containers are as `stack` says.
    pub settled: bool,
    /// So many agents began to start it; grows while they are killed over it.
    pub starts: u32,
}

/// A release that did not become healthy. It is not tried again until a restart is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GivenUp {
    pub release: String,
    pub restarts: i64,
    pub reason: String,
}

/// Each change is on disk before it is acted upon.
pub(crate) struct Notes {
    path: PathBuf,
    kept: Kept,
}

impl Notes {
    pub(crate) fn open(dir: &MachineDir) -> io::Result<Self> {
        let path = dir.file(FILE);
        let kept = keep::read_json(&path)?.unwrap_or_default();
        Ok(Self { path, kept })
    }

    /// Whose data this machine holds. For ever: such a machine is for no other project.
    pub(crate) fn project_id(&self) -> Option<ProjectId> {
        self.kept.project_id
    }

    pub(crate) fn written(&self) -> Option<&Written> {
        self.kept.written.as_ref()
    }

    /// The last release that served here.
    pub(crate) fn served(&self) -> Option<&str> {
        self.kept.served.as_deref()
    }

    /// The last one other than that.
    pub(crate) fn served_before(&self) -> Option<&str> {
        self.kept.served_before.as_deref()
    }

    pub(crate) fn given_up(&self) -> Option<&GivenUp> {
        self.kept.given_up.as_ref()
    }

    /// The superuser's password that the database has; none before the first start.
    pub(crate) fn database_password(&self) -> Option<&str> {
        self.kept.database_password.as_deref()
    }

    /// The count of restarts of what was settled before what is written now.
    pub(crate) fn settled_restarts(&self) -> Option<i64> {
        self.kept.settled_restarts
    }

    pub(crate) fn is_settled(&self, stack: &Stack) -> bool {
        let written = self.written();
        written.is_some_and(|written| written.settled && written.stack == *stack)
    }

    /// How often the start of `stack` was begun and not done.
    pub(crate) fn starts(&self, stack: &Stack) -> u32 {
        let written = self.written();
        written
            .filter(|written| !written.settled && written.stack == *stack)
            .map_or(0, |written| written.starts)
    }

    /// `stack` is about to be written and started. From here on the machine is its project's.
    pub(crate) fn begin(&mut self, stack: &Stack) -> io::Result<()> {
        let starts = self.starts(stack).saturating_add(1);
        self.change(|kept| {
            kept.project_id = Some(stack.project_id);
            // The database is initialized with it, if it is not yet.
            kept.database_password
                .get_or_insert_with(|| stack.database_password.clone());
            let written = Written {
                stack: stack.clone(),
                settled: false,
                starts,
            };
            let before = kept.written.replace(written);
            if let Some(before) = before.filter(|before| before.settled) {
                kept.settled_restarts = Some(before.stack.restarts);
            }
        })
    }

    /// What runs is to count as `stack`, which differs in the count of restarts alone.
    pub(crate) fn adopt(&mut self, stack: &Stack) -> io::Result<()> {
        self.change(|kept| {
            if let Some(written) = &mut kept.written {
                written.stack = stack.clone();
            }
        })
    }

    pub(crate) fn note_password(&mut self, password: &str) -> io::Result<()> {
        self.change(|kept| kept.database_password = Some(password.to_owned()))
    }

    /// What was begun serves, or its database does alone: that says nothing of the release.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        self.change(|kept| {
            let Some(written) = &mut kept.written else {
                return;
            };
            written.settled = true;
            written.starts = 0;
            if written.stack.database_only {
                return;
            }
            let release = written.stack.release.clone();
            if kept.served.as_ref() != Some(&release) {
                kept.served_before = kept.served.replace(release);
            }
        })
    }

    pub(crate) fn give_up(&mut self, given_up: GivenUp) -> io::Result<()> {
        self.change(|kept| kept.given_up = Some(given_up))
    }

    pub(crate) fn forget_given_up(&mut self) -> io::Result<()> {
        if self.kept.given_up.is_none() {
            return Ok(());
        }
        self.change(|kept| kept.given_up = None)
    }

    /// Nothing is written any more. Whose data the machine holds stays known.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.change(|kept| {
            kept.written = None;
            kept.given_up = None;
        })
    }

    /// What cannot be kept has not happened.
    fn change(&mut self, change: impl FnOnce(&mut Kept)) -> io::Result<()> {
        let mut kept = self.kept.clone();
        change(&mut kept);
        let bytes = serde_json::to_vec(&kept)?;
        keep::write_private(&self.path, &bytes)?;
        self.kept = kept;
        Ok(())
    }
}
