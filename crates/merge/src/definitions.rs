//! What people see side by side: an object as SQL text, as each side has it.
//!
//! The text is that of [`crate::script`]: what would make the object in a database that lacks it.

use serde::{Deserialize, Serialize};

use crate::{
    catalog::{Catalog, FactId, Kind, Payload},
    script,
    three_way::{Action, Direction, Names, Sides, ancestors, parts},
};

/// One object in the parent's T0, in the parent now and in the branch now. None where a side has no such object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definitions {
    pub base: Option<String>,
    pub parent: Option<String>,
    pub branch: Option<String>,
}

impl Definitions {
    /// From those of the taker's T0, the taker now, the giver's T0 and the giver now.
    pub(crate) fn of(direction: Direction, mut text: impl FnMut(usize) -> Option<String>) -> Self {
        let [base, parent, branch] = match direction {
            Direction::Merge => [0, 1, 3],
            Direction::Rebase => [2, 3, 1],
        };
        Self {
            base: text(base),
            parent: text(parent),
            branch: text(branch),
        }
    }
}

/// Looks things up on all sides.
pub(crate) struct Describer<'a> {
    pub names: Names,
    /// As they were read.
    pub sides: [&'a Catalog; 4],
    /// As they were compared: with what the migrations bring. For what only those bring.
    pub compared: Sides<'a>,
}

impl Describer<'_> {
    /// Of what a change is about, by its final name.
    pub fn change(&self, last: &FactId, action: Action) -> Definitions {
        self.describe(last, action != Action::Modify)
    }

    /// Of what stands in the way, by its name at T0.
    pub fn obstacle(&self, t0: &FactId) -> Definitions {
        self.describe(&self.names.last(t0), true)
    }

    fn describe(&self, last: &FactId, whole: bool) -> Definitions {
        let compared = [
            self.compared.parent_t0,
            self.compared.parent,
            self.compared.branch_t0,
            self.compared.branch,
        ];
        Definitions::of(self.compared.direction, |place| {
            let own = self.names.own(place, last);
            definition(self.sides[place], &own, whole)
                .or_else(|| definition(compared[place], &own, whole))
        })
    }
}

/// The fact as SQL: a column as in `CREATE TABLE`, all else as the statements that make it, without the last semicolon.
/// A `whole` table has its constraints, too.
pub(crate) fn definition(catalog: &Catalog, id: &FactId, whole: bool) -> Option<String> {
    let fact = catalog.facts.get(id)?;
    if let Payload::Column(column) = &fact.payload {
        return Some(script::column_definition(&id.part, column));
    }
    let mut from = Catalog {
        server_version: catalog.server_version,
        ..Catalog::default()
    };
    let mut around = ancestors(catalog, id);
    if let Payload::Extension { schema } = &fact.payload {
        around.push(FactId::object(Kind::Schema, "", schema));
    }
    for id in around {
        if let Some(fact) = catalog.facts.get(&id) {
            from.facts.insert(id, fact.clone());
        }
    }
    let mut to = from.clone();
    to.facts.insert(id.clone(), fact.clone());
    let held: &[Kind] = match id.kind {
        Kind::Table if whole => &[Kind::Column, Kind::Constraint],
        Kind::Table => &[Kind::Column],
        Kind::Domain => &[Kind::Constraint],
        _ => &[],
    };
    for part in held.iter().flat_map(|kind| parts(catalog, *kind, id)) {
        if let Some(fact) = catalog.facts.get(part) {
            to.facts.insert(part.clone(), fact.clone());
        }
    }
    let statements: Vec<String> = script::script(&from, &to, &[])
        .statements
        .into_iter()
        .filter(|statement| !statement.refreshes())
        .map(|statement| {
            let sql = statement.sql.trim_end();
            sql.strip_suffix(script::NO_DATA).unwrap_or(sql).to_owned()
        })
        // What new things give to everyone by themselves is no part of what they are.
        .filter(|sql| id.of.is_some() || !sql.starts_with("REVOKE "))
        .collect();
    if statements.is_empty() {
        return unwritten(id, &fact.payload);
    }
    Some(statements.join(";\n"))
}

/// What a script has no words for, since a new object is so by itself.
fn unwritten(id: &FactId, payload: &Payload) -> Option<String> {
    let table = script::quote::object(id);
    match payload {
        Payload::Rls { .. } => Some(format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")),
        Payload::Grant { privileges } | Payload::DefaultPrivilege { privileges } => {
            let list: Vec<&str> = privileges.keys().map(String::as_str).collect();
            let role = script::quote::role(&id.grantee);
            Some(format!("GRANT {} TO {role}", list.join(", ")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Fact, Label, Needs, Place};

    #[test]
    fn an_enum_has_its_labels_and_an_owner_its_object() {
        let mood = FactId::object(Kind::Enum, "public", "mood");
        let owner = FactId::about(Kind::Owner, &mood);
        let labels = ["good", "bad"].map(|name| Label {
            name: name.to_owned(),
            oid: 0,
        });
        let fact = |payload| Fact {
            payload,
            needs: Needs::default(),
            place: Place::default(),
        };
        let mut catalog = Catalog::default();
        let role = "project_admin".to_owned();
        catalog.facts.insert(
            mood.clone(),
            fact(Payload::Enum {
                labels: labels.to_vec(),
            }),
        );
        catalog
            .facts
            .insert(owner.clone(), fact(Payload::Owner { role }));
        assert_eq!(
            definition(&catalog, &mood, true).as_deref(),
            Some("CREATE TYPE public.mood AS ENUM ('good', 'bad')")
        );
        assert_eq!(
            definition(&catalog, &owner, true).as_deref(),
            Some("ALTER TYPE public.mood OWNER TO project_admin")
        );
    }
}
