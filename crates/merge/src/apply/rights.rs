//! With whose rights a statement of the script runs.
//!
//! A script runs as a superuser, and what tenants wrote into it must not. Postgres itself runs index expressions, the
//! queries of `REFRESH MATERIALIZED VIEW`, triggers and policies with the rights of an owner or of whoever caused them.
//! Two things it runs with those of the session, and statements that do them are given to the owner here:
//! - Defaults of new columns, generated expressions, checks and changes of type, over the rows that are there (and, where
//!   they are constant, over none at all), and partition keys when partitions join.
//! - The checks of a domain whenever it parses a constant of it or of what is made of it (`'{1}'::public.d[]`), in whatever
//!   holds expressions: views, policies, defaults of arguments, ….
//!
//! What is asked is what a fact is and needs, never how its text reads: that is the tenant's.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    catalog::{Catalog, Column, Fact, FactId, Kind, Payload},
    script::{Probe, Statement},
};

/// Who runs what between two catalogs.
pub(crate) struct Rights<'a> {
    from: &'a Catalog,
    target: &'a Catalog,
    /// What has to do with a domain that checks something, directly or not.
    of_domains: BTreeSet<&'a FactId>,
}

impl<'a> Rights<'a> {
    pub(crate) fn new(from: &'a Catalog, target: &'a Catalog) -> Self {
        Self {
            from,
            target,
            of_domains: of_domains(from, target),
        }
    }

    /// The owner whose rights suffice for a statement of the script; none for the session's own.
    pub(crate) fn of_statement(&self, statement: &Statement) -> Option<String> {
        let id = statement.makes.as_ref()?;
        let holder = holder(self.target, id)?;
        if statement.evaluates && self.evaluates(id) {
            // Of something new the script makes the owner first.
            let role = self.owner_before(&holder);
            return role.or_else(|| owner(self.target, &holder));
        }
        if statement.evaluates && self.joins_by_code(id) {
            return self.owner_before(&holder);
        }
        if self.parses_constants(id) {
            // Something new is his from the beginning, where he may make it.
            let new = || owner(self.target, &holder).filter(|role| self.may_create(role, &holder));
            return self.owner_before(&holder).or_else(new);
        }
        None
    }

    /// A probe reads what its statement will; where it evaluates what users wrote, with the same rights.
    pub(crate) fn of_probe(&self, probe: &Probe) -> Option<String> {
        let id = &probe.id;
        let evaluates = match self.target.facts.get(id).map(|fact| &fact.payload) {
            Some(Payload::Constraint { kind, .. }) => *kind != 'f',
            Some(Payload::Index { .. }) => true,
            // Casts may be of users, and checks of domains are.
            Some(Payload::Column(_)) => self.evaluates(id),
            _ => false,
        };
        if !evaluates {
            return None;
        }
        self.owner_before(&holder(self.target, id)?)
    }

    /// Whether it has one owner before and after the script.
    pub(crate) fn keeps_owner(&self, table: &FactId) -> bool {
        self.owner_before(table) == owner(self.target, table)
    }

    /// Whether Postgres runs what a user wrote over the rows that are there.
    fn evaluates(&self, id: &FactId) -> bool {
        match self.target.facts.get(id).map(|fact| &fact.payload) {
            Some(Payload::Constraint { kind: 'c', .. }) => true,
            Some(Payload::Column(column)) => {
                let retyped = match self.before(id).map(|fact| &fact.payload) {
                    Some(Payload::Column(was)) => {
                        was.type_ != column.type_ || was.collation != column.collation
                    }
                    _ => false,
                };
                retyped || computes(column) || self.of_domains.contains(id)
            }
            _ => false,
        }
    }

    /// Rows are sorted into partitions by expressions.
    fn joins_by_code(&self, id: &FactId) -> bool {
        let Some(Payload::Table(table)) = self.target.facts.get(id).map(|fact| &fact.payload)
        else {
            return false;
        };
        let role = owner(self.target, id);
        table.bound.is_some()
            && table.parents.iter().all(|(schema, name)| {
                let parent = FactId::object(Kind::Table, schema, name);
                self.owner_before(&parent) == role
            })
    }

    /// Of all kinds that hold expressions. (The others hold names, numbers and texts.)
    fn parses_constants(&self, id: &FactId) -> bool {
        let holds_expressions = match id.kind {
            Kind::Table
            | Kind::Column
            | Kind::Index
            | Kind::Statistics
            | Kind::View
            | Kind::MaterializedView
            | Kind::Rule
            | Kind::Trigger
            | Kind::Policy
            | Kind::Function
            | Kind::Procedure
            | Kind::Aggregate => true,
            Kind::Constraint => !matches!(
                self.target.facts.get(id).map(|fact| &fact.payload),
                Some(Payload::Constraint { kind: 'f', .. })
            ),
            _ => false,
        };
        holds_expressions && self.of_domains.contains(id)
    }

    /// Whether the role may make things in the schema as it is when the script begins.
    fn may_create(&self, role: &str, object: &FactId) -> bool {
        let schema = FactId::object(Kind::Schema, "", &object.schema);
        let granted = |grantee: &str| {
            let grant = FactId {
                grantee: grantee.to_owned(),
                ..FactId::about(Kind::Grant, &schema)
            };
            matches!(self.from.facts.get(&grant).map(|fact| &fact.payload),
                Some(Payload::Grant { privileges }) if privileges.contains_key("CREATE"))
        };
        owner(self.from, &schema).as_deref() == Some(role) || granted(role) || granted("PUBLIC")
    }

    /// Who owns it when the script begins. It may have another name then.
    fn owner_before(&self, holder: &FactId) -> Option<String> {
        if self.from.facts.contains_key(holder) {
            return owner(self.from, holder);
        }
        let (was, _) = self.renamed(holder)?;
        owner(self.from, was)
    }

    /// The fact before the script.
    fn before(&self, id: &FactId) -> Option<&'a Fact> {
        let same = self.from.facts.get(id);
        same.or_else(|| self.renamed(id).map(|(_, fact)| fact))
    }

    fn renamed(&self, id: &FactId) -> Option<(&'a FactId, &'a Fact)> {
        let place = self.target.facts.get(id)?.place;
        let mut facts = self.from.facts.iter();
        facts.find(|(was, fact)| was.kind == id.kind && fact.place == place && place.oid != 0)
    }
}

/// Whether it takes code to give rows a value. Drawing from a sequence takes none of users, and the sequence may still be
/// the session's when a column begins to draw from it.
fn computes(column: &Column) -> bool {
    column.generated.is_some()
        || column
            .default
            .as_ref()
            .is_some_and(|default| default.contains('(') && !only_draws(default))
}

/// Exactly `nextval('…'::regclass)`, with one literal.
fn only_draws(default: &str) -> bool {
    let literal = default
        .strip_prefix("nextval('")
        .and_then(|rest| rest.strip_suffix("'::regclass)"));
    // A quote inside is written twice.
    literal.is_some_and(|text| !text.replace("''", "").contains('\''))
}

const RELATIONS: &[Kind] = &[
    Kind::Table,
    Kind::Domain,
    Kind::View,
    Kind::MaterializedView,
];

fn holder(catalog: &Catalog, id: &FactId) -> Option<FactId> {
    let of = |kinds: &[Kind], name: &str| {
        kinds
            .iter()
            .map(|kind| FactId::object(*kind, &id.schema, name))
            .find(|holder| catalog.facts.contains_key(holder))
    };
    match catalog.facts.get(id).map(|fact| &fact.payload) {
        Some(Payload::Index { on, .. } | Payload::Statistics { on, .. }) => of(RELATIONS, on),
        Some(Payload::Function { .. } | Payload::Aggregate { .. }) => Some(id.clone()),
        _ => of(RELATIONS, &id.object),
    }
}

fn owner(catalog: &Catalog, of: &FactId) -> Option<String> {
    match &catalog.facts.get(&FactId::about(Kind::Owner, of))?.payload {
        Payload::Owner { role } => Some(role.clone()),
        _ => None,
    }
}

/// All facts of both catalogs that lead to a domain with checks, over whatever they need and over the parts of what they
/// need (a row of a table is made of its columns).
fn of_domains<'a>(from: &'a Catalog, target: &'a Catalog) -> BTreeSet<&'a FactId> {
    let checks = |catalog: &'a Catalog| {
        let is_check = |fact: &Fact| matches!(fact.payload, Payload::Constraint { kind: 'c', .. });
        let domain = |id: &FactId| FactId::object(Kind::Domain, &id.schema, &id.object);
        let checks = catalog.facts.iter().filter(move |(_, fact)| is_check(fact));
        checks.filter_map(move |(id, _)| catalog.facts.get_key_value(&domain(id)))
    };
    let mut reached: BTreeSet<&FactId> = [from, target]
        .into_iter()
        .flat_map(|catalog| checks(catalog).filter(|(id, _)| !catalog.is_managed(id)))
        .map(|(id, _)| id)
        .collect();
    if reached.is_empty() {
        return reached;
    }
    let mut needed_by: BTreeMap<&FactId, Vec<&FactId>> = BTreeMap::new();
    let mut objects: BTreeMap<(&str, &str), Vec<&FactId>> = BTreeMap::new();
    for catalog in [from, target] {
        for (id, fact) in &catalog.facts {
            for need in &fact.needs {
                needed_by.entry(need).or_default().push(id);
            }
            if id.part.is_empty() && id.of.is_none() {
                objects
                    .entry((&id.schema, &id.object))
                    .or_default()
                    .push(id);
            }
        }
    }
    let mut next: Vec<&FactId> = reached.iter().copied().collect();
    while let Some(id) = next.pop() {
        let whole =
            (!id.part.is_empty()).then(|| objects.get(&(id.schema.as_str(), id.object.as_str())));
        let more = needed_by
            .get(id)
            .into_iter()
            .chain(whole.flatten())
            .flatten();
        next.extend(more.copied().filter(|id| reached.insert(id)));
    }
    reached
}
