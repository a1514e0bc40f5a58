//! What a merge tells people and programs: the `DiffResult` of the platform API (10.9), with more than its client reads.

use serde::{Deserialize, Serialize};

use crate::{
    catalog::{FactId, Hash},
    config,
    definitions::Definitions,
    script::{self, Blocked},
    three_way::{self, Action, Direction},
};

/// `POST /projects/v1/branches/{id}/merge?dryRun=true` answers this, and every 409 of the execute call carries it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffResult {
    pub summary: Summary,
    pub rendered_sql: String,
    pub changes: Vec<Change>,
    /// Those of [`needs_migration`](Self::needs_migration) too: the client knows of no other reason to stop.
    pub conflicts: Vec<Conflict>,
    pub needs_migration: Vec<NeedsMigration>,
    pub renames: Vec<Rename>,
    pub warnings: Vec<Warning>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub added: usize,
    /// Drops too.
    pub modified: usize,
    /// All that stands in the way, so that zero means clean.
    pub conflicts: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub schema: String,
    pub object: String,
    /// Names as in merge-cases, and `config_row`, `edge_function`, `migration`.
    #[serde(rename = "type")]
    pub kind: String,
    pub action: Action,
    /// The statements that serve this change, each with its semicolon. Empty where another change brings it along.
    pub sql: String,
    #[serde(default)]
    pub definitions: Definitions,
}

/// Hashes are of the part as each side has it; empty where it has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    pub schema: String,
    pub object: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub parent_t0_hash: Hash,
    pub parent_now_hash: Hash,
    pub branch_now_hash: Hash,
    /// Names both edits.
    pub hint: String,
    /// It follows from what needs what, or from a name taken: nothing was edited twice.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub semantic: bool,
    #[serde(default)]
    pub definitions: Definitions,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeedsMigration {
    pub schema: String,
    pub object: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub parent_t0_hash: Hash,
    pub parent_now_hash: Hash,
    pub branch_now_hash: Hash,
    pub hint: String,
    /// The query that counted; none where the rows do not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<String>,
    /// How many rows of the parent stand in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    #[serde(default)]
    pub definitions: Definitions,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    #[serde(rename = "type")]
    pub kind: String,
    pub schema: String,
    /// Without the schema; of a thing that moved to another one, `to` has it.
    pub from: String,
    pub to: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    pub schema: String,
    pub object: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub text: String,
}

/// `schema.object`, as resolutions name it.
fn full_name(schema: &str, object: &str) -> String {
    if schema.is_empty() {
        object.to_owned()
    } else {
        format!("{schema}.{object}")
    }
}

impl Change {
    pub fn name(&self) -> String {
        full_name(&self.schema, &self.object)
    }
}

impl Conflict {
    /// As a resolution names it.
    pub fn name(&self) -> String {
        full_name(&self.schema, &self.object)
    }
}

impl NeedsMigration {
    pub fn name(&self) -> String {
        full_name(&self.schema, &self.object)
    }

    pub(crate) fn new(id: &FactId, hint: String) -> Self {
        Self {
            schema: id.schema.clone(),
            object: id.name(),
            kind: id.kind.as_str().to_owned(),
            parent_t0_hash: Hash::new(),
            parent_now_hash: Hash::new(),
            branch_now_hash: Hash::new(),
            hint,
            probe: None,
            rows: None,
            definitions: Definitions::default(),
        }
    }

    fn as_conflict(&self) -> Conflict {
        Conflict {
            schema: self.schema.clone(),
            object: self.object.clone(),
            kind: self.kind.clone(),
            parent_t0_hash: self.parent_t0_hash.clone(),
            parent_now_hash: self.parent_now_hash.clone(),
            branch_now_hash: self.branch_now_hash.clone(),
            hint: self.hint.clone(),
            semantic: false,
            definitions: self.definitions.clone(),
        }
    }
}

impl From<&Blocked> for NeedsMigration {
    fn from(blocked: &Blocked) -> Self {
        Self::new(&blocked.id, blocked.why.clone())
    }
}

impl Conflict {
    pub(crate) fn new(
        conflict: three_way::Conflict,
        definitions: Definitions,
        direction: Direction,
    ) -> Self {
        Self {
            schema: conflict.id.schema.clone(),
            object: conflict.id.name(),
            kind: conflict.id.kind.as_str().to_owned(),
            parent_t0_hash: conflict.parent_t0,
            parent_now_hash: conflict.parent_now,
            branch_now_hash: conflict.branch_now,
            hint: conflict.hint,
            semantic: conflict.semantic,
            definitions,
        }
        .seen(direction)
    }

    pub(crate) fn of_row(conflict: config::RowConflict, direction: Direction) -> Self {
        Self {
            schema: conflict.schema,
            object: conflict.object,
            kind: conflict.kind.to_owned(),
            parent_t0_hash: conflict.parent_t0,
            parent_now_hash: conflict.parent_now,
            branch_now_hash: conflict.branch_now,
            hint: conflict.hint,
            semantic: false,
            definitions: conflict.definitions,
        }
        .seen(direction)
    }

    /// With each side's hash under the name that people know.
    fn seen(mut self, direction: Direction) -> Self {
        if direction == Direction::Rebase {
            std::mem::swap(&mut self.parent_now_hash, &mut self.branch_now_hash);
        }
        self
    }
}

impl From<&script::Rename> for Rename {
    fn from(rename: &script::Rename) -> Self {
        let to = if rename.from.schema == rename.to.schema {
            rename.to.name()
        } else {
            rename.to.to_string()
        };
        Self {
            kind: rename.kind.as_str().to_owned(),
            schema: rename.from.schema.clone(),
            from: rename.from.name(),
            to,
        }
    }
}

impl From<&script::Warning> for Warning {
    fn from(warning: &script::Warning) -> Self {
        Self::about(&warning.id, warning.text.clone())
    }
}

impl From<config::Note> for Warning {
    fn from(note: config::Note) -> Self {
        Self {
            schema: note.schema,
            object: note.object,
            kind: note.kind.to_owned(),
            text: note.text,
        }
    }
}

impl Warning {
    pub fn name(&self) -> String {
        full_name(&self.schema, &self.object)
    }

    pub(crate) fn about(id: &FactId, text: String) -> Self {
        Self {
            schema: id.schema.clone(),
            object: id.name(),
            kind: id.kind.as_str().to_owned(),
            text,
        }
    }
}

impl DiffResult {
    pub(crate) fn new(
        changes: &[Change],
        conflicts: &[Conflict],
        needs_migration: &[NeedsMigration],
        renames: &[Rename],
        warnings: &[Warning],
        rendered_sql: String,
    ) -> Self {
        let added = changes
            .iter()
            .filter(|change| change.action == Action::Add)
            .count();
        let mut blocking = conflicts.to_vec();
        blocking.extend(needs_migration.iter().map(NeedsMigration::as_conflict));
        Self {
            summary: Summary {
                added,
                modified: changes.len() - added,
                conflicts: blocking.len(),
            },
            rendered_sql,
            changes: changes.to_vec(),
            conflicts: blocking,
            needs_migration: needs_migration.to_vec(),
            renames: renames.to_vec(),
            warnings: warnings.to_vec(),
        }
    }
}
