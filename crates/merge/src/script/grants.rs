//! Grants: all of them on what is new, the differences on what stays.
//!
//! What is new ends up with exactly the grants of the wanted catalog: default privileges of the database may have
//! added some when it was made, and those are revoked.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    graph::{Key, Step},
    kinds::{is_relation, order},
    privileges::owner_of,
    quote,
    side::Side,
    writer::Writer,
};
use crate::catalog::{FactId, Kind, Payload};

/// By privilege; true with the grant option.
pub type Privileges = BTreeMap<String, bool>;

impl<'a> Writer<'a, '_> {
    /// Names of sequences of new identity columns on which nobody has grants: the one that Postgres will choose.
    pub(super) fn unnamed_identities(&self) -> Vec<FactId> {
        let mut found = Vec::new();
        for (&id, fact) in &self.to.facts {
            let Payload::Column(column) = &fact.payload else {
                continue;
            };
            if column.identity.is_none() || !self.is_fresh_identity(id) {
                continue;
            }
            if self.default_grantees("sequences", &id.schema).is_empty() {
                continue;
            }
            let named = self
                .to
                .dependents(id)
                .iter()
                .any(|d| d.kind == Kind::Grant && d.of == Some(Kind::Sequence));
            if !named {
                found.push(FactId::object(
                    Kind::Sequence,
                    &id.schema,
                    &format!("{}_{}_seq", id.object, id.part),
                ));
            }
        }
        found
    }

    fn is_fresh_identity(&self, column: &'a FactId) -> bool {
        let sequence = FactId::object(Kind::Sequence, &column.schema, &column.object);
        self.is_fresh(&sequence, column)
    }

    /// What the default privileges of the database may give on new objects of the kind, by grantee.
    fn default_grantees(&self, kind: &str, schema: &str) -> BTreeMap<&'a str, Privileges> {
        let mut found: BTreeMap<&'a str, Privileges> = BTreeMap::new();
        for &(id, fact) in &self.default_privileges {
            if let Payload::DefaultPrivilege { privileges } = &fact.payload
                && id.object.rsplit_once(':').is_some_and(|(_, k)| k == kind)
                && (id.schema.is_empty() || id.schema == schema)
            {
                let entry = found.entry(&id.grantee).or_default();
                for (privilege, option) in privileges {
                    *entry.entry(privilege.clone()).or_default() |= option;
                }
            }
        }
        found
    }

    /// All grants on something new, in as few statements as there are different sets of them.
    pub(super) fn grant_new(
        &mut self,
        subject: &FactId,
        holder: &'a FactId,
        grants: &[&'a FactId],
    ) {
        let Some(on) = grant_target(self.to, subject) else {
            return;
        };
        let owner = owner_of(self.to, subject);
        let by_default = match acl_kind(subject.kind) {
            Some(kind) => self.default_grantees(kind, &subject.schema),
            None => BTreeMap::new(),
        };
        let built_in = default_of_everyone(subject.kind);
        let wanted: BTreeMap<&str, &Privileges> = grants
            .iter()
            .filter_map(|id| Some((id.grantee.as_str(), granted(self.to, id)?)))
            .collect();

        let mut revoke: BTreeSet<&str> = BTreeSet::new();
        for (&grantee, given) in &by_default {
            let within = wanted
                .get(grantee)
                .is_some_and(|w| given.iter().all(|(p, o)| w.get(p) == Some(o)));
            if !within && Some(grantee) != owner {
                revoke.insert(grantee);
            }
        }
        let everyone = wanted.get("PUBLIC");
        if let Some(privilege) = built_in
            && !everyone.is_some_and(|w| w.contains_key(privilege))
        {
            revoke.insert("PUBLIC");
        }
        if let Some(owner) = owner
            && wanted.contains_key(owner)
        {
            revoke.insert(owner);
        }
        let mut give: BTreeMap<(Vec<&str>, bool), Vec<&str>> = BTreeMap::new();
        for (&grantee, &privileges) in &wanted {
            let built_in_only = grantee == "PUBLIC"
                && !by_default.contains_key("PUBLIC")
                && built_in
                    .is_some_and(|p| privileges.len() == 1 && privileges.get(p) == Some(&false));
            if built_in_only {
                continue;
            }
            for option in [false, true] {
                let list: Vec<&str> = privileges
                    .iter()
                    .filter(|(_, o)| **o == option)
                    .map(|(p, _)| p.as_str())
                    .collect();
                if !list.is_empty() {
                    give.entry((list, option)).or_default().push(grantee);
                }
            }
        }
        let roles = |list: Vec<&str>| {
            list.into_iter()
                .map(|r| quote::role(r))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let mut sql = Vec::new();
        if !revoke.is_empty() {
            let list = roles(revoke.into_iter().collect());
            sql.push(format!("REVOKE ALL ON {on} FROM {list}"));
        }
        for ((privileges, option), grantees) in give {
            let option = if option { " WITH GRANT OPTION" } else { "" };
            let list = privileges_sql(&privileges, subject);
            sql.push(format!(
                "GRANT {list} ON {on} TO {}{option}",
                roles(grantees)
            ));
        }
        if sql.is_empty() {
            return;
        }
        let key: Key<'a> = match (self.to.find(subject), grants.first()) {
            (Some(id), _) => (id, Step::Grant),
            (None, Some(grant)) => (grant, Step::Make),
            (None, None) => (holder, Step::Grant),
        };
        let at = if subject.kind == Kind::Column {
            order::GRANT
        } else {
            order::REVOKE
        };
        self.step(key.0, key.1, at, sql);
        self.graph.edge((holder, Step::Make), key);
        self.graph.edge((holder, Step::Complete), key);
        self.after_owner(subject, key);
    }

    /// Grants follow a change of the owner, which rewrites them, and those on columns those on their table.
    fn after_owner(&mut self, subject: &FactId, key: Key<'a>) {
        let mut above = vec![subject.clone()];
        if let Some(Payload::Sequence(sequence)) = self.to.payload(subject)
            && let Some(column) = &sequence.owned_by
            && let (Some(id), Some(table)) = (
                self.to.find(subject),
                self.to.container(&column.schema, &column.object),
            )
        {
            self.graph.edge((id, Step::Own), key);
            for &extra in self.to.extras(table) {
                if extra.kind == Kind::Owner {
                    self.graph.edge((extra, Step::Make), key);
                }
            }
        }
        let holder = self.to.container(&subject.schema, &subject.object);
        if subject.kind == Kind::Column
            && let Some(table) = holder
        {
            above.push(table.clone());
            self.graph.edge((table, Step::Grant), key);
        }
        for object in above {
            for side in [self.from, self.to] {
                for &extra in side.extras(&object) {
                    if extra.kind == Kind::Owner
                        || (extra.kind == Kind::Grant && object != *subject)
                    {
                        self.graph.edge((extra, Step::Make), key);
                    }
                }
            }
        }
    }

    pub(super) fn grant_changes(
        &mut self,
        subject: &FactId,
        old: &[&'a FactId],
        new: &[&'a FactId],
    ) {
        let Some(on) = grant_target(self.to, subject) else {
            return;
        };
        let (old_owner, owner) = (owner_of(self.from, subject), owner_of(self.to, subject));
        let is_column = subject.kind == Kind::Column;
        let ids: BTreeSet<&'a FactId> = old.iter().chain(new).copied().collect();
        for id in ids {
            let grantee = id.grantee.as_str();
            let mut has = granted(self.from, id).cloned();
            let wants = granted(self.to, id);
            let mut sql = Vec::new();
            let role = quote::role(grantee);
            if Some(grantee) == owner && !is_column {
                // The owner has everything unless a fact says otherwise.
                if old_owner != owner {
                    has = match old_owner.and_then(|o| granted_to(self.from, subject, o)) {
                        None => None,
                        Some(kept) => {
                            let mut all = has.unwrap_or_default();
                            all.extend(kept.clone());
                            Some(all)
                        }
                    };
                }
                match (has, wants) {
                    (_, None) if granted(self.from, id).is_some() && old_owner == owner => {
                        sql.push(format!("GRANT ALL ON {on} TO {role}"));
                    }
                    (has, Some(wants)) if has.as_ref() != Some(wants) => {
                        sql.push(format!("REVOKE ALL ON {on} FROM {role}"));
                        sql.extend(grants(&on, &role, wants, subject));
                    }
                    _ => {}
                }
            } else {
                if Some(grantee) == old_owner && old_owner != owner && !is_column {
                    // What was his went over to the new owner.
                    has = None;
                }
                let has = has.unwrap_or_default();
                let empty = Privileges::new();
                let wants = wants.unwrap_or(&empty);
                sql.extend(revokes(&on, &role, &has, wants, subject));
                let mut missing: Privileges = wants
                    .iter()
                    .filter(|(p, o)| has.get(*p).is_none_or(|had| **o && !had))
                    .map(|(p, o)| (p.clone(), *o))
                    .collect();
                if is_column {
                    // A REVOKE on the table took these along.
                    missing.extend(self.revoked_with_table(subject, grantee, wants));
                }
                sql.extend(grants(&on, &role, &missing, subject));
            }
            if Some(grantee) == old_owner && old_owner != owner && !is_column {
                // The new owner took over what the old one had: perhaps not everything.
                let rest = owner.filter(|o| {
                    granted(self.from, id).is_some() && granted_to(self.to, subject, o).is_none()
                });
                sql.extend(rest.map(|o| format!("GRANT ALL ON {on} TO {}", quote::role(o))));
            }
            if !sql.is_empty() {
                let at = if is_column {
                    order::GRANT
                } else {
                    order::REVOKE
                };
                self.step(id, Step::Make, at, sql);
                self.after_owner(subject, (id, Step::Make));
            }
        }
    }

    fn revoked_with_table(&self, column: &FactId, grantee: &str, wants: &Privileges) -> Privileges {
        let Some(table) = self.to.container(&column.schema, &column.object) else {
            return Privileges::new();
        };
        let id = FactId {
            grantee: grantee.to_owned(),
            ..FactId::about(Kind::Grant, table)
        };
        let empty = Privileges::new();
        let had = granted(self.from, &id).unwrap_or(&empty);
        let has = granted(self.to, &id).unwrap_or(&empty);
        wants
            .iter()
            .filter(|(p, _)| had.get(*p).is_some_and(|o| has.get(*p) != Some(o)))
            .map(|(p, o)| (p.clone(), *o))
            .collect()
    }
}

fn granted<'a>(side: &Side<'a>, id: &FactId) -> Option<&'a Privileges> {
    match side.payload(id)? {
        Payload::Grant { privileges } => Some(privileges),
        _ => None,
    }
}

fn granted_to<'a>(side: &Side<'a>, subject: &FactId, role: &str) -> Option<&'a Privileges> {
    let id = FactId {
        grantee: role.to_owned(),
        ..FactId::about(Kind::Grant, subject)
    };
    granted(side, &id)
}

pub fn revokes(
    on: &str,
    role: &str,
    has: &Privileges,
    wants: &Privileges,
    subject: &FactId,
) -> Vec<String> {
    let mut sql = Vec::new();
    let gone: Vec<&str> = has
        .keys()
        .filter(|p| !wants.contains_key(*p))
        .map(String::as_str)
        .collect();
    if !gone.is_empty() {
        sql.push(format!(
            "REVOKE {} ON {on} FROM {role}",
            privileges_sql(&gone, subject)
        ));
    }
    let options: Vec<&str> = has
        .iter()
        .filter(|(p, o)| **o && wants.get(*p) == Some(&false))
        .map(|(p, _)| p.as_str())
        .collect();
    if !options.is_empty() {
        sql.push(format!(
            "REVOKE GRANT OPTION FOR {} ON {on} FROM {role}",
            privileges_sql(&options, subject)
        ));
    }
    sql
}

pub fn grants(on: &str, role: &str, privileges: &Privileges, subject: &FactId) -> Vec<String> {
    let mut sql = Vec::new();
    for option in [false, true] {
        let list: Vec<&str> = privileges
            .iter()
            .filter(|(_, o)| **o == option)
            .map(|(p, _)| p.as_str())
            .collect();
        if !list.is_empty() {
            let with = if option { " WITH GRANT OPTION" } else { "" };
            sql.push(format!(
                "GRANT {} ON {on} TO {role}{with}",
                privileges_sql(&list, subject)
            ));
        }
    }
    sql
}

/// `SELECT, INSERT`, or with a column's name after each.
fn privileges_sql(privileges: &[&str], subject: &FactId) -> String {
    if subject.kind == Kind::Column {
        let column = quote::ident(&subject.part);
        let list: Vec<_> = privileges
            .iter()
            .map(|p| format!("{p} ({column})"))
            .collect();
        return list.join(", ");
    }
    privileges.join(", ")
}

/// `TABLE public.users`: what GRANT and REVOKE name; for a column its table.
pub fn grant_target(side: &Side<'_>, subject: &FactId) -> Option<String> {
    let object = quote::object(subject);
    Some(match subject.kind {
        Kind::Column => {
            let container = side.container(&subject.schema, &subject.object)?;
            if !is_relation(container.kind) {
                return None;
            }
            format!("TABLE {object}")
        }
        Kind::Table | Kind::View | Kind::MaterializedView => format!("TABLE {object}"),
        Kind::Sequence => format!("SEQUENCE {object}"),
        Kind::Function | Kind::Aggregate => format!("FUNCTION {}", quote::routine(subject)),
        Kind::Procedure => format!("PROCEDURE {}", quote::routine(subject)),
        Kind::Enum | Kind::Composite | Kind::Range => format!("TYPE {object}"),
        Kind::Domain => format!("DOMAIN {object}"),
        Kind::Schema => format!("SCHEMA {object}"),
        _ => return None,
    })
}

/// The kind of default privileges that apply.
pub fn acl_kind(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Table | Kind::View | Kind::MaterializedView => "tables",
        Kind::Sequence => "sequences",
        Kind::Function | Kind::Procedure | Kind::Aggregate => "functions",
        Kind::Enum | Kind::Composite | Kind::Range | Kind::Domain => "types",
        Kind::Schema => "schemas",
        _ => return None,
    })
}

fn default_of_everyone(kind: Kind) -> Option<&'static str> {
    match acl_kind(kind)? {
        "functions" => Some("EXECUTE"),
        "types" => Some("USAGE"),
        _ => None,
    }
}
