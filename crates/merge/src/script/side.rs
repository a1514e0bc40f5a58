//! One of the two catalogs, with the look-ups that writing a script needs.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::quote;
use crate::catalog::{Catalog, Column, Fact, FactId, Kind, Payload, Table};

/// Relations, by schema and name: what columns, constraints, triggers and so on are parts of.
const CONTAINERS: [Kind; 5] = [
    Kind::Table,
    Kind::View,
    Kind::MaterializedView,
    Kind::Domain,
    Kind::Composite,
];

pub struct Side<'a> {
    pub facts: BTreeMap<&'a FactId, &'a Fact>,
    /// What each fact needs, its container and its subject among them, all of it facts of this side.
    needs: HashMap<&'a FactId, Vec<&'a FactId>>,
    dependents: HashMap<&'a FactId, Vec<&'a FactId>>,
    containers: HashMap<(&'a str, &'a str), &'a FactId>,
    /// Columns, constraints, triggers, … by what holds them.
    parts: HashMap<(&'a str, &'a str), Vec<&'a FactId>>,
    /// Owners, grants and comments by what they tell of.
    extras: HashMap<FactId, Vec<&'a FactId>>,
    children: HashMap<(&'a str, &'a str), Vec<&'a FactId>>,
}

/// A column that a table has, be it its own or its parent's.
#[derive(Clone, Copy)]
pub struct Effective<'a> {
    pub id: &'a FactId,
    pub column: &'a Column,
    /// The fact is one of a table further up.
    pub inherited: bool,
}

impl<'a> Side<'a> {
    /// All facts of `catalog` but those of `skipped` schemas.
    pub fn new(catalog: &'a Catalog, skipped: &dyn Fn(&FactId) -> bool) -> Self {
        let mut side = Self {
            facts: catalog
                .facts
                .iter()
                .filter(|(id, _)| !skipped(id))
                .collect(),
            needs: HashMap::new(),
            dependents: HashMap::new(),
            containers: HashMap::new(),
            parts: HashMap::new(),
            extras: HashMap::new(),
            children: HashMap::new(),
        };
        for (&id, &fact) in &side.facts {
            if id.of.is_none() && id.part.is_empty() && CONTAINERS.contains(&id.kind) {
                side.containers.insert((&id.schema, &id.object), id);
            }
            if let Payload::Table(table) = &fact.payload {
                for (schema, name) in &table.parents {
                    side.children.entry((schema, name)).or_default().push(id);
                }
            }
        }
        for &id in side.facts.keys() {
            match id.subject() {
                Some(subject) => side.extras.entry(subject).or_default().push(id),
                None if is_part(id) => side
                    .parts
                    .entry((&id.schema, &id.object))
                    .or_default()
                    .push(id),
                None => {}
            }
        }
        side.fill_needs();
        side
    }

    fn fill_needs(&mut self) {
        let mut needs = HashMap::with_capacity(self.facts.len());
        for (&id, &fact) in &self.facts {
            let mut list: Vec<&'a FactId> = Vec::new();
            let mut seen = HashSet::new();
            let mut add = |need: &'a FactId| {
                if need != id && seen.insert(need) {
                    list.push(need);
                }
            };
            let owned_by = match &fact.payload {
                Payload::Sequence(sequence) => sequence.owned_by.as_ref(),
                _ => None,
            };
            for need in &fact.needs {
                // OWNED BY is a step of its own: a sequence is there before its column.
                let owner = owned_by.is_some_and(|c| {
                    need.schema == c.schema && need.object == c.object && need.of.is_none()
                });
                // A column in a partition's key needs the partition, says Postgres; here that is its parent's column.
                let below = id.kind == Kind::Column && id.of.is_none() && self.descends(need, id);
                if !owner
                    && !below
                    && let Some(found) = self.resolve(need)
                {
                    add(found);
                }
            }
            if let Some(subject) = id.subject() {
                if let Some(found) = self.resolve(&subject) {
                    add(found);
                }
            } else if is_part(id) {
                if let Some(&container) = self.containers.get(&(&*id.schema, &*id.object)) {
                    add(container);
                }
            } else if let Some(on) = fact.payload.on()
                && let Some(&container) = self.containers.get(&(&*id.schema, on))
            {
                add(container);
            }
            if let Payload::Table(table) = &fact.payload {
                for (schema, name) in &table.parents {
                    if let Some(&parent) = self.containers.get(&(&**schema, &**name)) {
                        add(parent);
                    }
                }
            }
            if !id.schema.is_empty() && id.subject().is_none() && !is_part(id) {
                let schema = FactId::object(Kind::Schema, "", &id.schema);
                if let Some(found) = self.find(&schema) {
                    add(found);
                }
            }
            needs.insert(id, list);
        }
        for (&id, list) in &needs {
            for &need in list {
                self.dependents.entry(need).or_default().push(id);
            }
        }
        for list in self.dependents.values_mut() {
            list.sort_unstable();
        }
        self.needs = needs;
    }

    /// Whether the table has that of the column among its ancestors.
    fn descends(&self, table: &FactId, column: &FactId) -> bool {
        self.table(&table.schema, &table.object).is_some_and(|t| {
            t.parents.iter().any(|(schema, name)| {
                (*schema == column.schema && *name == column.object)
                    || self.descends(&FactId::object(Kind::Table, schema, name), column)
            })
        })
    }

    /// The fact, or, where it is a column without a fact of its own (a view's, an inherited one), what holds it.
    fn resolve(&self, id: &FactId) -> Option<&'a FactId> {
        self.find(id).or_else(|| {
            (!id.part.is_empty()).then_some(())?;
            self.containers.get(&(&*id.schema, &*id.object)).copied()
        })
    }

    /// The fact's name with this side's lifetime.
    pub fn find(&self, id: &FactId) -> Option<&'a FactId> {
        self.facts.get_key_value(id).map(|(&id, _)| id)
    }

    pub fn payload(&self, id: &FactId) -> Option<&'a Payload> {
        self.facts.get(id).map(|fact| &fact.payload)
    }

    pub fn needs(&self, id: &FactId) -> &[&'a FactId] {
        self.needs.get(id).map_or(&[], Vec::as_slice)
    }

    pub fn dependents(&self, id: &FactId) -> &[&'a FactId] {
        self.dependents.get(id).map_or(&[], Vec::as_slice)
    }

    /// The table, view, domain or composite type of that name.
    pub fn container(&self, schema: &str, object: &str) -> Option<&'a FactId> {
        self.containers.get(&(schema, object)).copied()
    }

    /// What a part, an index or a statistics object belongs to, and goes with when that is dropped.
    pub fn container_of(&self, id: &FactId) -> Option<&'a FactId> {
        if is_part(id) && id.subject().is_none() {
            return self.container(&id.schema, &id.object);
        }
        let fact = self.facts.get(id)?;
        let on = fact.payload.on()?;
        fact.needs
            .iter()
            .find(|need| {
                need.object == on && matches!(need.kind, Kind::Table | Kind::MaterializedView)
            })
            .and_then(|need| self.find(need))
            .or_else(|| self.container(&id.schema, on))
    }

    pub fn parts<'q>(&'q self, schema: &'q str, object: &'q str) -> &'q [&'a FactId] {
        self.parts.get(&(schema, object)).map_or(&[], Vec::as_slice)
    }

    pub fn extras(&self, subject: &FactId) -> &[&'a FactId] {
        self.extras.get(subject).map_or(&[], Vec::as_slice)
    }

    pub fn children<'q>(&'q self, schema: &'q str, object: &'q str) -> &'q [&'a FactId] {
        self.children
            .get(&(schema, object))
            .map_or(&[], Vec::as_slice)
    }

    pub fn table(&self, schema: &str, object: &str) -> Option<&'a Table> {
        match self.payload(self.container(schema, object)?)? {
            Payload::Table(table) => Some(table),
            _ => None,
        }
    }

    pub fn column(&self, id: &FactId) -> Option<&'a Column> {
        match self.payload(id)? {
            Payload::Column(column) => Some(column),
            _ => None,
        }
    }

    /// The table's own column facts, in the order of the table.
    pub fn own_columns(&self, schema: &str, object: &str) -> Vec<(&'a FactId, &'a Column)> {
        let mut columns: Vec<_> = self
            .parts(schema, object)
            .iter()
            .filter_map(|&id| Some((id, self.column(id)?)))
            .collect();
        columns.sort_by_key(|(id, _)| (self.facts.get(id).map(|f| f.place.number), &id.part));
        columns
    }

    /// All columns of a table: its parents' first, its own facts in their place where it has some.
    pub fn effective_columns(&self, schema: &str, object: &str) -> Vec<Effective<'a>> {
        let mut columns: Vec<Effective<'a>> = Vec::new();
        for (parent_schema, parent) in self.table(schema, object).map_or(&[][..], |t| &t.parents) {
            for column in self.effective_columns(parent_schema, parent) {
                if !columns.iter().any(|c| c.id.part == column.id.part) {
                    columns.push(Effective {
                        inherited: true,
                        ..column
                    });
                }
            }
        }
        for (id, column) in self.own_columns(schema, object) {
            let own = Effective {
                id,
                column,
                inherited: false,
            };
            match columns.iter_mut().find(|c| c.id.part == id.part) {
                Some(at) => *at = own,
                None => columns.push(own),
            }
        }
        columns
    }

    /// One column of a table, its own or inherited.
    pub fn effective_column(
        &self,
        schema: &str,
        object: &str,
        name: &str,
    ) -> Option<Effective<'a>> {
        let own = FactId::part(Kind::Column, schema, object, name);
        if let Some(id) = self.find(&own) {
            return Some(Effective {
                id,
                column: self.column(id)?,
                inherited: false,
            });
        }
        self.table(schema, object)?
            .parents
            .iter()
            .find_map(|(s, o)| self.effective_column(s, o, name))
            .map(|column| Effective {
                inherited: true,
                ..column
            })
    }

    /// The columns whose type is, or is an array of, the type of that name. Own facts only.
    pub fn columns_of_type(&self, schema: &str, name: &str) -> Vec<(&'a FactId, &'a Column)> {
        let name = quote::qualified(schema, name);
        self.facts
            .iter()
            .filter_map(|(&id, fact)| match &fact.payload {
                Payload::Column(column) if base_type(&column.type_) == name => Some((id, column)),
                _ => None,
            })
            .collect()
    }
}

/// A type's name without its array brackets.
pub fn base_type(type_: &str) -> &str {
    type_.trim_end_matches("[]")
}

/// Whether the fact is a part of a table, view or domain (`object` names the container).
pub fn is_part(id: &FactId) -> bool {
    id.of.is_none()
        && matches!(
            id.kind,
            Kind::Column | Kind::Constraint | Kind::Rule | Kind::Trigger | Kind::Policy | Kind::Rls
        )
}

impl Payload {
    /// The relation of an index or a statistics object.
    fn on(&self) -> Option<&str> {
        match self {
            Self::Index { on, .. } | Self::Statistics { on, .. } => Some(on),
            _ => None,
        }
    }
}
