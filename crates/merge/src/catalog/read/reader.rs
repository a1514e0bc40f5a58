//! What the queries share: the session, the facts found so far, and which object of the system catalogs is which fact.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
};

use sqlx::{
    PgConnection,
    postgres::{PgRow, types::Oid},
};

use super::keys::KeyColumn;
use crate::{
    catalog::{Catalog, Fact, FactId, Kind, Needs, Payload, Place},
    error::Error,
    script::quote,
};

/// Oids of the system catalogs themselves: fixed in Postgres's sources (`CATALOG(name, oid, …)`), used in `classid`
/// columns.
pub mod class {
    pub const TYPE: u32 = 1247;
    pub const PROC: u32 = 1255;
    pub const RELATION: u32 = 1259;
    pub const ATTRIBUTE_DEFAULT: u32 = 2604;
    pub const CONSTRAINT: u32 = 2606;
    pub const NAMESPACE: u32 = 2615;
    pub const REWRITE: u32 = 2618;
    pub const TRIGGER: u32 = 2620;
    pub const EXTENSION: u32 = 3079;
    pub const POLICY: u32 = 3256;
    pub const STATISTICS: u32 = 3381;
    pub const COLLATION: u32 = 3456;
    pub const EVENT_TRIGGER: u32 = 3466;
    pub const PUBLICATION: u32 = 6104;
    pub const PUBLICATION_TABLE: u32 = 6106;
    pub const PUBLICATION_SCHEMA: u32 = 6237;
}

/// The control plane's own ledger of merges on a parent: never part of a schema (branches do not have it).
pub const LEDGER: (&str, &str) = ("system", "control_plane_merges");

pub struct Reader<'c> {
    pub conn: &'c mut PgConnection,
    pub catalog: Catalog,
    /// Schemas whose objects are read.
    pub schemas: HashMap<u32, String>,
    pub roles: HashMap<u32, String>,
    /// `(class, oid)` of what is a fact, or an inner part of one, or a member of an extension.
    pub objects: HashMap<(u32, u32), FactId>,
    /// `(table, attnum)` of the columns that are facts, and of inherited ones: then the fact they come from.
    pub columns: HashMap<(u32, i16), FactId>,
    /// Names of columns of views and of attributes, by relation and number.
    pub column_names: HashMap<(u32, i16), String>,
    /// Of the columns of tables, by table and number.
    pub key_columns: HashMap<(u32, i16), KeyColumn>,
    /// What names must be quoted for.
    keywords: HashSet<String>,
    /// Schema and name of the sequences of identity columns, which are no facts.
    pub identity_sequences: HashMap<u32, (String, String)>,
    /// `(class, oid)` of what belongs to an extension.
    pub members: HashSet<(u32, u32)>,
    /// Privileges that an owner has from the start, by `acldefault`'s kind.
    pub owner_rights: HashMap<char, BTreeSet<String>>,
}

impl<'c> Reader<'c> {
    pub async fn start(conn: &'c mut PgConnection) -> Result<Self, Error> {
        let (server_version, keywords): (String, Vec<String>) = sqlx::query_as(
            "SELECT current_setting('server_version_num'), array_agg(word) FROM pg_catalog.pg_get_keywords() WHERE catcode <> 'U'",
        )
        .fetch_one(&mut *conn)
        .await
        .map_err(Error::while_doing("read the server's version"))?;
        let roles: Vec<(Oid, String)> =
            sqlx::query_as("SELECT oid, rolname::text FROM pg_catalog.pg_roles")
                .fetch_all(&mut *conn)
                .await
                .map_err(Error::while_doing("read the roles"))?;
        let members: Vec<(Oid, Oid)> =
            sqlx::query_as("SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e'")
                .fetch_all(&mut *conn)
                .await
                .map_err(Error::while_doing("read the members of extensions"))?;
        Ok(Self {
            conn,
            catalog: Catalog {
                server_version: server_version.parse().unwrap_or_default(),
                ..Catalog::default()
            },
            schemas: HashMap::new(),
            roles: roles.into_iter().map(|(oid, name)| (oid.0, name)).collect(),
            objects: HashMap::new(),
            columns: HashMap::new(),
            column_names: HashMap::new(),
            key_columns: HashMap::new(),
            keywords: keywords.into_iter().collect(),
            identity_sequences: HashMap::new(),
            members: members
                .into_iter()
                .map(|(class, oid)| (class.0, oid.0))
                .collect(),
            owner_rights: HashMap::new(),
        })
    }

    /// All rows of one query. `$1` is the array of the schemas' oids, so every query has to use it.
    pub async fn rows<R>(&mut self, what: &str, sql: &'static str) -> Result<Vec<R>, Error>
    where
        R: for<'r> sqlx::FromRow<'r, PgRow> + Send + Unpin,
    {
        let schemas: Vec<Oid> = self.schemas.keys().map(|oid| Oid(*oid)).collect();
        sqlx::query_as(sql)
            .bind(schemas)
            .fetch_all(&mut *self.conn)
            .await
            .map_err(Error::while_doing(format!("read the {what}")))
    }

    pub fn is_member(&self, class: u32, oid: Oid) -> bool {
        self.members.contains(&(class, oid.0))
    }

    pub fn schema(&self, oid: Oid) -> String {
        self.schemas.get(&oid.0).cloned().unwrap_or_default()
    }

    /// `PUBLIC` for 0. A role that was dropped behind Postgres's back shows as its number.
    pub fn role(&self, oid: Oid) -> String {
        match (oid.0, self.roles.get(&oid.0)) {
            (0, _) => "PUBLIC".to_owned(),
            (_, Some(name)) => name.clone(),
            (number, None) => number.to_string(),
        }
    }

    /// Whom a grant is for. A role that is really called `PUBLIC` is not everyone: it keeps its quotes.
    pub fn grantee(&self, oid: Oid) -> String {
        let name = self.role(oid);
        if oid.0 != 0 && name == "PUBLIC" {
            return format!("\"{name}\"");
        }
        name
    }

    /// Notes a fact that is an object of the class, and that it needs its schema.
    pub fn object(&mut self, class: u32, oid: Oid, id: FactId, payload: Payload) {
        let schema = FactId::object(Kind::Schema, "", &id.schema);
        let needs = if self.catalog.facts.contains_key(&schema) {
            Needs::from([schema])
        } else {
            Needs::default()
        };
        self.objects.insert((class, oid.0), id.clone());
        self.note(
            id,
            Place {
                oid: oid.0,
                number: 0,
            },
            needs,
            payload,
        );
    }

    /// Notes a part of a table, view or domain.
    pub fn part(&mut self, class: u32, oid: Oid, holder: &FactId, id: FactId, payload: Payload) {
        self.objects.insert((class, oid.0), id.clone());
        self.note(
            id,
            Place {
                oid: oid.0,
                number: 0,
            },
            Needs::from([holder.clone()]),
            payload,
        );
    }

    pub fn note(&mut self, id: FactId, place: Place, needs: Needs, payload: Payload) {
        self.catalog.facts.insert(
            id,
            Fact {
                payload,
                needs,
                place,
            },
        );
    }

    /// The relation that an oid of `pg_class` is, if it is a fact.
    pub fn relation(&self, oid: Oid) -> Option<FactId> {
        self.objects.get(&(class::RELATION, oid.0)).cloned()
    }

    /// Of a table's or view's column, or of an attribute.
    pub fn column_name(&self, relation: u32, number: i16) -> Option<&str> {
        let place = (relation, number);
        // The column of a view is the view.
        let column = self.columns.get(&place).filter(|id| !id.part.is_empty());
        let name = column.map(|id| &id.part);
        name.or_else(|| self.column_names.get(&place))
            .map(String::as_str)
    }

    /// As `quote_ident` of this server.
    pub fn quoted<'n>(&self, name: &'n str) -> Cow<'n, str> {
        quote::ident_of(name, |word| self.keywords.contains(word))
    }

    pub fn owner(&mut self, id: &FactId, owner: Oid) {
        let role = self.role(owner);
        self.about(FactId::about(Kind::Owner, id), Payload::Owner { role });
    }

    /// Notes an owner, a grant or a comment: it needs what it is about.
    pub fn about(&mut self, id: FactId, payload: Payload) {
        let needs = id
            .subject()
            .map(|subject| self.holder(subject))
            .into_iter()
            .collect();
        self.catalog.facts.insert(
            id,
            Fact {
                payload,
                needs,
                place: Place::default(),
            },
        );
    }

    /// The fact that a subject stands for: columns of views, attributes and inherited columns are no facts of their own,
    /// their holders are.
    fn holder(&self, subject: FactId) -> FactId {
        if self.catalog.facts.contains_key(&subject) || subject.part.is_empty() {
            return subject;
        }
        [
            Kind::Table,
            Kind::View,
            Kind::MaterializedView,
            Kind::Composite,
        ]
        .into_iter()
        .map(|kind| FactId::object(kind, &subject.schema, &subject.object))
        .find(|id| self.catalog.facts.contains_key(id))
        .unwrap_or(subject)
    }

    pub fn finish(mut self) -> Catalog {
        self.catalog.unmodelled.sort();
        self.catalog
    }
}
