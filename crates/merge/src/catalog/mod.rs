//! A database's schema as a set of facts, each with a name, a payload and what it needs.
//!
//! A fact is the smallest thing that two people can change without being in each other's way: a column, a
//! constraint, a view, what one role may do with one table. Texts in payloads are Postgres's own
//! (`pg_get_*def`, `format_type`), read with an empty `search_path`, so every name in them has its schema.

mod read;

pub use read::read;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// What a fact tells of. The order is that of creation where nothing else decides (merge-engine, "Order").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Schema,
    Extension,
    Collation,
    Enum,
    Domain,
    /// A composite type made by `CREATE TYPE … AS (…)`; printed as `type`.
    #[serde(rename = "type")]
    Composite,
    Range,
    Sequence,
    Function,
    Procedure,
    Aggregate,
    Table,
    Column,
    /// Of a table or of a domain.
    Constraint,
    Index,
    View,
    MaterializedView,
    Rule,
    Statistics,
    Trigger,
    Policy,
    /// The two row security flags of a table.
    Rls,
    Owner,
    Grant,
    DefaultPrivilege,
    Comment,
    Publication,
    EventTrigger,
}

/// The name of a fact: unique in a catalog, stable across dump and restore.
///
/// Names are raw, never quoted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct FactId {
    pub kind: Kind,
    /// Empty for what has no schema (schemas, extensions, event triggers, publications, global default privileges).
    pub schema: String,
    /// The object's own name. With its input types for a function, procedure or aggregate: `f(integer, public.mood)`.
    /// For a part (column, constraint, trigger, policy, rule, RLS flags) the table, view or domain that holds it.
    /// For a default privilege `role:kind`, kind one of `tables, sequences, functions, types, schemas`.
    pub object: String,
    /// The part's name; empty for an object of its own. For facts about a column (its comment, its grants) the column.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub part: String,
    /// What an owner, a grant or a comment belongs to; `None` for all other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Kind>,
    /// The role of a grant or a default privilege; `PUBLIC` for everyone. Empty for all other kinds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub grantee: String,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    pub payload: Payload,
    /// What must be there before this can be (`pg_depend`, resolved to facts; the container of a part among them).
    pub needs: Needs,
    /// Where Postgres keeps it, to tell renames from drop and add. Not part of the hash.
    pub place: Place,
}

/// A small set of names, sorted: most facts need one or two others, and there may be hundreds of thousands of facts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Needs(Vec<FactId>);

impl Needs {
    pub fn insert(&mut self, id: FactId) {
        if let Err(place) = self.0.binary_search(&id) {
            self.0.reserve_exact(1);
            self.0.insert(place, id);
        }
    }

    pub fn is_disjoint(&self, other: &BTreeSet<FactId>) -> bool {
        !self.0.iter().any(|id| other.contains(id))
    }
}

impl std::ops::Deref for Needs {
    type Target = [FactId];

    fn deref(&self) -> &[FactId] {
        &self.0
    }
}

impl FromIterator<FactId> for Needs {
    fn from_iter<I: IntoIterator<Item = FactId>>(ids: I) -> Self {
        let mut ids: Vec<FactId> = ids.into_iter().collect();
        ids.sort();
        ids.dedup();
        ids.shrink_to_fit();
        Self(ids)
    }
}

impl<const N: usize> From<[FactId; N]> for Needs {
    fn from(ids: [FactId; N]) -> Self {
        ids.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a Needs {
    type Item = &'a FactId;
    type IntoIter = std::slice::Iter<'a, FactId>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// `pg_class.oid`, `pg_type.oid`, … of the object; for columns and composite attributes also the number.
/// Unique together with the kind in one database; means nothing in another one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Place {
    pub oid: u32,
    /// `attnum`; 0 for whole objects. The order of a table's columns is that of their numbers.
    pub number: i16,
}

/// What a fact says. Two facts of one name are equal if and only if their payloads are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    Schema,
    Extension {
        schema: String,
    },
    Collation {
        /// `c`, `i`, `d` or `b` (`pg_collation.collprovider`).
        provider: char,
        deterministic: bool,
        /// The options of `CREATE COLLATION` besides these two, as SQL, in the order of the documentation.
        options: String,
    },
    Enum {
        labels: Vec<Label>,
    },
    Domain {
        base: String,
        collation: Option<String>,
        default: Option<String>,
        not_null: bool,
    },
    Composite {
        attributes: Vec<Attribute>,
    },
    Range {
        /// The options of `CREATE TYPE … AS RANGE (…)`, as SQL.
        options: String,
    },
    Sequence(Box<Sequence>),
    /// Also procedures.
    Function {
        /// `pg_get_functiondef`: a whole `CREATE OR REPLACE` statement.
        definition: String,
        /// `pg_get_function_result`; none for procedures.
        result: Option<String>,
        /// `pg_get_function_arguments`: names, modes, types and defaults of all arguments. `CREATE OR REPLACE` may
        /// change neither names nor modes nor drop defaults.
        arguments: String,
        language: String,
        /// Whether the body was parsed when it was made (`BEGIN ATOMIC`): its dependencies then bind.
        atomic: bool,
    },
    Aggregate {
        /// What follows `CREATE AGGREGATE name`: `(integer) (SFUNC = …, STYPE = …)`.
        definition: String,
    },
    Table(Table),
    Column(Column),
    Constraint {
        /// `pg_constraint.contype`: `c` check, `f` foreign key, `p` primary key, `u` unique, `x` exclude.
        kind: char,
        /// `pg_get_constraintdef`; ends with `NOT VALID` where it is not validated.
        definition: String,
        validated: bool,
    },
    Index {
        /// `pg_get_indexdef`.
        definition: String,
        /// The table or materialized view.
        on: String,
        /// `ALTER TABLE … CLUSTER ON`.
        clustered: bool,
        /// Statistics targets of expression columns, by number.
        statistics: BTreeMap<i16, i16>,
    },
    View {
        /// `pg_get_viewdef`, without the final semicolon; WITH CHECK OPTION among the options.
        definition: String,
        /// `pg_class.reloptions`, as `name=value`, sorted.
        options: Vec<String>,
        columns: Vec<ViewColumn>,
    },
    MaterializedView {
        definition: String,
        options: Vec<String>,
        columns: Vec<ViewColumn>,
    },
    Rule {
        /// `pg_get_ruledef`.
        definition: String,
        /// `O` origin, `D` disabled, `R` replica, `A` always.
        enabled: char,
    },
    Statistics {
        /// `pg_get_statisticsobjdef`.
        definition: String,
        target: i32,
        /// The table.
        on: String,
    },
    Trigger {
        /// `pg_get_triggerdef`.
        definition: String,
        /// As for rules.
        enabled: char,
        /// A constraint trigger: cannot be replaced in place.
        constraint: bool,
    },
    Policy {
        /// `r` SELECT, `a` INSERT, `w` UPDATE, `d` DELETE, `*` ALL.
        command: char,
        permissive: bool,
        /// Sorted; `public` for everyone.
        roles: Vec<String>,
        using: Option<String>,
        check: Option<String>,
    },
    Rls {
        enabled: bool,
        forced: bool,
    },
    Owner {
        role: String,
    },
    /// What one role may do, by privilege (`SELECT`, `USAGE`, …); true with the grant option. Never empty.
    Grant {
        privileges: BTreeMap<String, bool>,
    },
    /// The same, of `ALTER DEFAULT PRIVILEGES`. An entry without any privilege is one that was revoked.
    DefaultPrivilege {
        privileges: BTreeMap<String, bool>,
    },
    Comment {
        text: String,
    },
    Publication {
        /// What follows `CREATE PUBLICATION name`, as SQL.
        definition: String,
    },
    EventTrigger {
        event: String,
        /// Sorted; empty for all.
        tags: Vec<String>,
        function: String,
        enabled: char,
    },
}

/// A label of an enum. The oid tells a rename from drop and add; it is not compared and not hashed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Label {
    pub name: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub oid: u32,
}

/// An attribute of a composite type. The number is not compared and not hashed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attribute {
    pub name: String,
    #[serde(rename = "type")]
    pub type_: String,
    pub collation: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub number: i16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewColumn {
    pub name: String,
    #[serde(rename = "type")]
    pub type_: String,
    pub default: Option<String>,
}

/// Of a sequence of its own, or of one that a column owns (serial). Those of identity columns are in [`Identity`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    #[serde(flatten)]
    pub options: SequenceOptions,
    pub unlogged: bool,
    /// The column of `OWNED BY`.
    pub owned_by: Option<FactId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceOptions {
    #[serde(rename = "type")]
    pub type_: String,
    pub start: i64,
    pub increment: i64,
    pub minimum: i64,
    pub maximum: i64,
    pub cache: i64,
    pub cycle: bool,
}

/// The table without its parts. All of it is one unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub unlogged: bool,
    /// `pg_get_partkeydef`, for a partitioned table.
    pub partition_by: Option<String>,
    /// Of which tables it inherits or is a partition, in order.
    pub parents: Vec<(String, String)>,
    /// `FOR VALUES …` or `DEFAULT`, for a partition.
    pub bound: Option<String>,
    /// `name=value`, sorted; those of the TOAST table begin with `toast.`.
    pub options: Vec<String>,
    /// `d` default, `n` nothing, `f` full, `i` index.
    pub replica_identity: char,
    /// The name of the index, for `i`.
    pub replica_index: Option<String>,
    /// Other than `heap`.
    pub access_method: Option<String>,
}

/// A column with all that belongs to it. Inherited columns that equal their origin are no facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    #[serde(rename = "type")]
    pub type_: String,
    /// Other than the type's own.
    pub collation: Option<String>,
    /// `pg_get_expr`; none for identity and generated columns.
    pub default: Option<String>,
    pub not_null: bool,
    /// Boxed, as it is rare: there are more columns than anything else.
    pub identity: Option<Box<Identity>>,
    /// The expression of `GENERATED ALWAYS AS (…) STORED`.
    pub generated: Option<String>,
    /// Other than the type's own: `p`, `e`, `m`, `x`.
    pub storage: Option<char>,
    /// `p` or `l`.
    pub compression: Option<char>,
    /// Other than -1.
    pub statistics: Option<i16>,
    /// `n_distinct` and `n_distinct_inherited` only.
    pub options: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub always: bool,
    #[serde(flatten)]
    pub options: SequenceOptions,
}

/// All facts of a database, and what was seen but is not modelled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// `server_version_num`.
    pub server_version: u32,
    pub facts: BTreeMap<FactId, Fact>,
    /// Schemas of the product and of extensions: read because others refer to them, never merged.
    pub managed: BTreeSet<String>,
    /// Objects of users that no kind covers (casts, operators, foreign tables, …), as people name them: `cast (a AS b)`.
    pub unmodelled: Vec<String>,
}

/// What two catalogs say under one name, of which at least one has it.
#[derive(Clone, Copy, Debug)]
pub struct Difference<'c> {
    pub id: &'c FactId,
    pub old: Option<&'c Fact>,
    pub new: Option<&'c Fact>,
}

impl Difference<'_> {
    /// In payload, or one has it and the other has not.
    pub fn differs(&self) -> bool {
        self.old.map(|fact| &fact.payload) != self.new.map(|fact| &fact.payload)
    }
}

/// SHA-256, as 64 hexadecimal digits.
pub type Hash = String;

/// The first bytes of a catalog as bytes; the number after it is the format's version.
const MAGIC: &str = "cp-merge catalog 1\n";

impl Catalog {
    /// Of all facts that are not managed, without places: two databases with one schema have one hash.
    pub fn hash(&self) -> Hash {
        let mut digest = Sha256::new();
        for (id, fact) in &self.facts {
            if self.is_managed(id) {
                continue;
            }
            digest.update(serde_json::to_vec(id).unwrap_or_default());
            digest.update(b"\n");
            digest.update(fact.payload.canonical_json());
            digest.update(b"\n");
        }
        hex::encode(digest.finalize())
    }

    /// One versioned format: a line that names it, then JSON with one fact per line.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.as_bytes().to_vec();
        let head = Head {
            server_version: self.server_version,
            managed: self.managed.clone(),
            unmodelled: self.unmodelled.clone(),
        };
        bytes.extend(serde_json::to_vec(&head).unwrap_or_default());
        for entry in &self.facts {
            bytes.push(b'\n');
            bytes.extend(serde_json::to_vec(&entry).unwrap_or_default());
        }
        bytes
    }

    /// # Errors
    /// [`Error::InvalidSnapshot`] when these are not bytes that [`Catalog::to_bytes`] of this version wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let invalid = |why: serde_json::Error| Error::InvalidSnapshot(why.to_string());
        let lines = bytes
            .strip_prefix(MAGIC.as_bytes())
            .ok_or_else(|| Error::InvalidSnapshot("other format or version".to_owned()))?;
        let mut lines = lines.split(|byte| *byte == b'\n');
        let head: Head =
            serde_json::from_slice(lines.next().unwrap_or_default()).map_err(invalid)?;
        let facts = lines
            .map(|line| serde_json::from_slice::<(FactId, Fact)>(line).map_err(invalid))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            server_version: head.server_version,
            facts,
            managed: head.managed,
            unmodelled: head.unmodelled,
        })
    }

    /// Names whose payload differs, or that are on one side only, in order.
    pub fn diff(&self, other: &Self) -> Vec<FactId> {
        self.walk(other)
            .filter(Difference::differs)
            .map(|both| both.id.clone())
            .collect()
    }

    /// All names of both, in order, with what either says under them.
    pub fn walk<'c>(&'c self, other: &'c Self) -> impl Iterator<Item = Difference<'c>> {
        let (mut old, mut new) = (self.facts.iter().peekable(), other.facts.iter().peekable());
        std::iter::from_fn(move || {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((old, _)), Some((new, _))) => old.cmp(new),
            };
            let old = if order.is_le() { old.next() } else { None };
            let new = if order.is_ge() { new.next() } else { None };
            Some(Difference {
                id: old.or(new)?.0,
                old: old.map(|(_, fact)| fact),
                new: new.map(|(_, fact)| fact),
            })
        })
    }

    /// Whether a fact belongs to a schema of the product or of an extension, or is one.
    pub fn is_managed(&self, id: &FactId) -> bool {
        let schema = match id.subject_kind() {
            Kind::Schema => &id.object,
            _ => &id.schema,
        };
        self.managed.contains(schema)
    }
}

#[derive(Serialize, Deserialize)]
struct Head {
    server_version: u32,
    managed: BTreeSet<String>,
    unmodelled: Vec<String>,
}

impl FactId {
    /// The kind of the object itself: for owners, grants and comments that of what they belong to.
    pub fn subject_kind(&self) -> Kind {
        self.of.unwrap_or(self.kind)
    }

    /// An object in a schema (or, with an empty schema, in the database).
    pub fn object(kind: Kind, schema: &str, name: &str) -> Self {
        Self {
            kind,
            schema: schema.to_owned(),
            object: name.to_owned(),
            part: String::new(),
            of: None,
            grantee: String::new(),
        }
    }

    /// A part of a table, view or domain.
    pub fn part(kind: Kind, schema: &str, object: &str, part: &str) -> Self {
        Self {
            part: part.to_owned(),
            ..Self::object(kind, schema, object)
        }
    }

    /// The owner, a grant or the comment of `of`; the grantee is set by the caller.
    pub fn about(kind: Kind, of: &FactId) -> Self {
        Self {
            kind,
            of: Some(of.kind),
            ..of.clone()
        }
    }

    /// What an owner, a grant or a comment belongs to.
    pub fn subject(&self) -> Option<FactId> {
        self.of.map(|kind| Self {
            kind,
            of: None,
            grantee: String::new(),
            ..self.clone()
        })
    }

    /// As merge-cases names it after the schema: `users.email`, `users:anon`, `f(integer)`.
    pub fn name(&self) -> String {
        let mut name = self.object.clone();
        if !self.part.is_empty() {
            name.push('.');
            name.push_str(&self.part);
        }
        if !self.grantee.is_empty() {
            name.push(':');
            name.push_str(&self.grantee);
        }
        name
    }
}

/// The whole name, as people give it to resolve a conflict: `public.users.email`.
impl fmt::Display for FactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.schema.is_empty() {
            write!(f, "{}.", self.schema)?;
        }
        f.write_str(&self.name())
    }
}

impl Kind {
    /// As `type` of changes and conflicts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Extension => "extension",
            Self::Collation => "collation",
            Self::Enum => "enum",
            Self::Domain => "domain",
            Self::Composite => "type",
            Self::Range => "range",
            Self::Sequence => "sequence",
            Self::Function => "function",
            Self::Procedure => "procedure",
            Self::Aggregate => "aggregate",
            Self::Table => "table",
            Self::Column => "column",
            Self::Constraint => "constraint",
            Self::Index => "index",
            Self::View => "view",
            Self::MaterializedView => "materialized_view",
            Self::Rule => "rule",
            Self::Statistics => "statistics",
            Self::Trigger => "trigger",
            Self::Policy => "policy",
            Self::Rls => "rls",
            Self::Owner => "owner",
            Self::Grant => "grant",
            Self::DefaultPrivilege => "default_privilege",
            Self::Comment => "comment",
            Self::Publication => "publication",
            Self::EventTrigger => "event_trigger",
        }
    }
}

impl Payload {
    /// SHA-256 of its canonical JSON: equal for payloads that are equal, so without the oids of labels and the numbers
    /// of attributes.
    pub fn hash(&self) -> Hash {
        hex::encode(Sha256::digest(self.canonical_json()))
    }

    fn canonical_json(&self) -> Vec<u8> {
        let plain = match self {
            Self::Enum { labels } => Some(Self::Enum {
                labels: labels
                    .iter()
                    .map(|label| Label {
                        oid: 0,
                        ..label.clone()
                    })
                    .collect(),
            }),
            Self::Composite { attributes } => Some(Self::Composite {
                attributes: attributes
                    .iter()
                    .map(|attribute| Attribute {
                        number: 0,
                        ..attribute.clone()
                    })
                    .collect(),
            }),
            _ => None,
        };
        // Structs, sorted maps and strings only: there is no value in them that JSON does not have.
        serde_json::to_vec(plain.as_ref().unwrap_or(self)).unwrap_or_default()
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
impl Eq for Label {}

impl PartialEq for Attribute {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.type_, &self.collation) == (&other.name, &other.type_, &other.collation)
    }
}
impl Eq for Attribute {}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
