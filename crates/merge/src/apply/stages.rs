//! What of a merge is done in its transaction, and what of an online merge only after the commit.
//!
//! Later come, on tables that the parent has already: the proof of new foreign keys and checks, which are added `NOT VALID`,
//! and new indexes. All others who use the parent may go on meanwhile, which is what an online merge is for. Not later comes
//! - what something else in the merged schema needs (the unique index of a foreign key, the index of a replica identity);
//! - an index that another one makes room for: there is no moment in which the parent has neither;
//! - an index for which a statement has to be lent an owner's rights: `CONCURRENTLY` cannot run inside of anything;
//! - what belongs to a partitioned table, a partition, or a table with heirs or ancestors;
//! - what belongs to a table that gets another owner: expressions have his rights then, and he may lack some.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::{ApplyOptions, rights::Rights};
use crate::{
    catalog::{Catalog, FactId, Kind, Payload},
    plan::MergePlan,
    script::{Statement, quote},
    three_way::Direction,
};

/// Of a merge that is not online all is done at once.
pub(super) struct Stages<'a> {
    /// In the transaction.
    pub now: Cow<'a, [Statement]>,
    /// After it.
    pub later: Vec<Later>,
    /// What the parent should read as in between.
    pub between: Cow<'a, Catalog>,
}

/// A foreign key or check that is to be proved, or an index that is to be built.
pub(super) struct Later {
    pub id: FactId,
    /// As SQL names it.
    pub table: String,
    /// As it runs in a transaction.
    pub statement: Statement,
    /// As it runs after the commit.
    pub online: String,
    /// What an index gets when it is there: its comment, its statistics targets, CLUSTER ON.
    pub follow: Vec<Statement>,
}

impl Later {
    /// As people know it: `index public.users_email`.
    pub fn name(&self) -> String {
        format!("{} {}", self.id.kind.as_str(), self.id)
    }
}

impl<'a> Stages<'a> {
    pub fn of(plan: &'a MergePlan, options: &ApplyOptions) -> Self {
        let all = &plan.script.statements;
        let later = if options.online && plan.direction == Direction::Merge {
            Parent::before(plan).later(all)
        } else {
            Vec::new()
        };
        if later.is_empty() {
            return Self {
                now: Cow::Borrowed(all),
                later,
                between: Cow::Borrowed(&plan.target),
            };
        }
        Self::split(plan, later)
    }

    fn split(plan: &MergePlan, mut later: Vec<Later>) -> Self {
        let places: BTreeMap<FactId, usize> = later
            .iter()
            .enumerate()
            .map(|(place, one)| (one.id.clone(), place))
            .collect();
        let mut now = Vec::new();
        for statement in &plan.script.statements {
            let about = statement
                .makes
                .as_ref()
                .map(|id| id.subject().unwrap_or_else(|| id.clone()));
            let one = about
                .and_then(|id| places.get(&id))
                .map(|place| &mut later[*place]);
            match one {
                Some(one) if one.statement.sql == statement.sql => {}
                Some(one) if one.id.kind == Kind::Index => one.follow.push(statement.clone()),
                // Its comment needs no proof.
                Some(one) if statement.makes.as_ref() == Some(&one.id) => now.push(Statement {
                    sql: not_valid(&statement.sql),
                    ..statement.clone()
                }),
                _ => now.push(statement.clone()),
            }
        }
        let mut between = plan.target.clone();
        between.facts.retain(|id, fact| {
            let about = id.subject();
            let one = places.get_key_value(about.as_ref().unwrap_or(id));
            let Some((later, _)) = one else {
                return true;
            };
            if let Payload::Constraint {
                definition,
                validated,
                ..
            } = &mut fact.payload
            {
                *definition = not_valid(definition);
                *validated = false;
            }
            later.kind != Kind::Index
        });
        Self {
            now: Cow::Owned(now),
            later,
            between: Cow::Owned(between),
        }
    }

    /// Whether the rows need not be asked about it in the transaction.
    pub fn is_later(&self, id: &FactId) -> bool {
        self.later.iter().any(|one| one.id == *id)
    }
}

/// As Postgres prints it, behind all else.
fn not_valid(definition: &str) -> String {
    format!("{definition} NOT VALID")
}

/// What the parent has before the script.
struct Parent<'a> {
    plan: &'a MergePlan,
    rights: Rights<'a>,
    /// By id: a table may be renamed.
    tables: BTreeSet<u32>,
    /// Those that others inherit from or are partitions of.
    with_heirs: BTreeSet<(&'a str, &'a str)>,
}

impl<'a> Parent<'a> {
    fn before(plan: &'a MergePlan) -> Self {
        let tables = |catalog: &'a Catalog| {
            let facts = catalog.facts.iter();
            facts.filter_map(|(id, fact)| match &fact.payload {
                Payload::Table(table) if id.kind == Kind::Table => Some((fact.place.oid, table)),
                _ => None,
            })
        };
        Self {
            plan,
            rights: Rights::new(plan.from(), &plan.target),
            tables: tables(plan.from())
                .map(|(oid, _)| oid)
                .filter(|oid| *oid != 0)
                .collect(),
            with_heirs: tables(&plan.target)
                .flat_map(|(_, table)| &table.parents)
                .map(|(schema, name)| (schema.as_str(), name.as_str()))
                .collect(),
        }
    }

    /// In the order of the script.
    fn later(&self, statements: &[Statement]) -> Vec<Later> {
        let mut later: Vec<Later> = statements
            .iter()
            .filter_map(|statement| self.one(statement))
            .collect();
        let needed = self.needed(&later);
        later.retain(|one| !needed.contains(&one.id));
        later
    }

    fn one(&self, statement: &Statement) -> Option<Later> {
        let id = statement.makes.as_ref()?;
        // What is only put out of the way and made again would not be found missing by the next plan.
        if statement.serves.as_ref() != Some(id) {
            return None;
        }
        match self.payload(id)? {
            Payload::Constraint {
                kind,
                definition,
                validated: true,
            } => self.constraint(id, *kind, definition, statement),
            Payload::Index { definition, on, .. } if statement.sql == *definition => {
                self.index(id, on, statement)
            }
            _ => None,
        }
    }

    fn constraint(
        &self,
        id: &FactId,
        kind: char,
        definition: &str,
        statement: &Statement,
    ) -> Option<Later> {
        let table = FactId::object(Kind::Table, &id.schema, &id.object);
        let possible = match kind {
            'c' => true,
            'f' => self.refers_to_plain_tables(id),
            _ => false,
        };
        if !possible || !self.stands_alone(&table) {
            return None;
        }
        let (name, constraint) = (quote::object(id), quote::ident(&id.part));
        let add = format!("ALTER TABLE {name} ADD CONSTRAINT {constraint} {definition}");
        let validate = format!("ALTER TABLE {name} VALIDATE CONSTRAINT {constraint}");
        (statement.sql == add || statement.sql == validate).then(|| Later {
            id: id.clone(),
            table: name,
            online: validate.clone(),
            statement: Statement {
                sql: validate,
                ..statement.clone()
            },
            follow: Vec::new(),
        })
    }

    fn index(&self, id: &FactId, on: &str, statement: &Statement) -> Option<Later> {
        let table = FactId::object(Kind::Table, &id.schema, on);
        let statements = &self.plan.script.statements;
        let makes_room =
            |other: &Statement| other.serves.as_ref() == Some(id) && other.makes.is_none();
        if !self.stands_alone(&table)
            || self.plan.from().facts.contains_key(id)
            || statements.iter().any(makes_room)
            || self.rights.of_statement(statement).is_some()
        {
            return None;
        }
        let words = ["CREATE INDEX ", "CREATE UNIQUE INDEX "];
        let (words, rest) = words
            .iter()
            .find_map(|words| Some((words, statement.sql.strip_prefix(words)?)))?;
        Some(Later {
            id: id.clone(),
            table: quote::object(&table),
            online: format!("{words}CONCURRENTLY {rest}"),
            statement: statement.clone(),
            follow: Vec::new(),
        })
    }

    /// Whether the table is there before the script, keeps its owner, and is neither part of another nor has parts.
    fn stands_alone(&self, id: &FactId) -> bool {
        let fact = self.plan.target.facts.get(id);
        fact.is_some_and(|fact| self.tables.contains(&fact.place.oid))
            && self.is_plain(id)
            && self.rights.keeps_owner(id)
    }

    fn is_plain(&self, id: &FactId) -> bool {
        let key = (id.schema.as_str(), id.object.as_str());
        match self.payload(id) {
            Some(Payload::Table(table)) => {
                table.partition_by.is_none()
                    && table.bound.is_none()
                    && table.parents.is_empty()
                    && !self.with_heirs.contains(&key)
            }
            _ => false,
        }
    }

    fn refers_to_plain_tables(&self, foreign_key: &FactId) -> bool {
        let needs = self.plan.target.facts.get(foreign_key);
        let needs = needs.into_iter().flat_map(|fact| &fact.needs);
        let mut tables = needs
            .filter(|need| matches!(need.kind, Kind::Table | Kind::Column | Kind::Constraint))
            .map(|need| FactId::object(Kind::Table, &need.schema, &need.object));
        tables.all(|table| self.is_plain(&table))
    }

    fn payload(&self, id: &FactId) -> Option<&'a Payload> {
        let fact = self.plan.target.facts.get(id);
        fact.map(|fact| &fact.payload)
    }

    /// Those of them that other facts of the merged schema need. What tells of an index, as its comment does, follows it.
    fn needed(&self, later: &[Later]) -> BTreeSet<FactId> {
        let ids: BTreeSet<&FactId> = later.iter().map(|one| &one.id).collect();
        let mut needed = BTreeSet::new();
        for (id, fact) in &self.plan.target.facts {
            let needs = fact.needs.iter().filter(|need| ids.contains(need));
            needed.extend(
                needs
                    .filter(|need| id.subject().as_ref() != Some(need))
                    .cloned(),
            );
            if let Payload::Table(table) = &fact.payload
                && let Some(index) = &table.replica_index
            {
                needed.insert(FactId::object(Kind::Index, &id.schema, index));
            }
        }
        needed
    }
}
