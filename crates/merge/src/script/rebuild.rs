//! What is to be done with each fact, and what must be dropped and made again because something under it moves
//! (merge-engine, "Rebuild closure").

use std::collections::{HashMap, HashSet, VecDeque};

use super::{
    Blocked,
    cuts::Cuts,
    quote, routines,
    side::{Side, base_type, is_part},
    types, views,
};
use crate::catalog::{FactId, Kind, Payload};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Keep,
    Create,
    /// In place.
    Alter,
    /// Dropped and made again.
    Rebuild,
    Drop,
}

impl Action {
    pub const fn drops(self) -> bool {
        matches!(self, Self::Drop | Self::Rebuild)
    }

    pub const fn makes(self) -> bool {
        matches!(self, Self::Create | Self::Alter | Self::Rebuild)
    }

    /// The fact is new after the script, whether or not one of its name was there before.
    pub const fn fresh(self) -> bool {
        matches!(self, Self::Create | Self::Rebuild)
    }
}

#[derive(Debug, Default)]
pub struct Actions<'a> {
    by_id: HashMap<&'a FactId, Action>,
    /// Columns and domains that stay while their default must go and come back.
    pub loosened: HashSet<&'a FactId>,
    pub blocked: Vec<Blocked>,
}

impl<'a> Actions<'a> {
    pub fn of(&self, id: &FactId) -> Action {
        self.by_id.get(id).copied().unwrap_or(Action::Keep)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a FactId, Action)> {
        self.by_id.iter().map(|(&id, &action)| (id, action))
    }

    /// Whether what holds the fact, or what it tells of, is dropped (and perhaps made again).
    pub fn container_drops(&self, side: &Side<'a>, id: &FactId) -> bool {
        side.container_of(id)
            .is_some_and(|container| self.of(container).drops())
    }

    fn block(&mut self, id: &'a FactId, why: String) {
        self.by_id.insert(id, Action::Keep);
        if !self.blocked.iter().any(|b| b.id == *id) {
            self.blocked.push(Blocked {
                id: id.clone(),
                why,
            });
        }
    }
}

/// Decides for every fact of either side.
pub fn decide<'a>(from: &Side<'a>, to: &Side<'a>, cuts: &Cuts) -> Actions<'a> {
    let mut actions = Actions::default();
    for (&id, fact) in &to.facts {
        let action = match from.payload(id) {
            None => Action::Create,
            Some(payload) if *payload == fact.payload => Action::Keep,
            Some(_) => Action::Alter,
        };
        actions.by_id.insert(id, action);
    }
    for &id in from.facts.keys() {
        actions.by_id.entry(id).or_insert(Action::Drop);
    }
    settle_inherited(from, to, &mut actions);

    let mut moved: VecDeque<&'a FactId> = VecDeque::new();
    let mut ids: Vec<_> = actions.iter().collect();
    ids.sort_unstable_by_key(|(id, _)| *id);
    for (id, action) in ids {
        if action == Action::Alter
            && let (Some(a), Some(b)) = (from.payload(id), to.payload(id))
        {
            if let Some(why) = blocks(from, to, id, a, b) {
                actions.block(id, why);
            } else if !in_place(a, b) || cuts.rebuild.contains(id) {
                rebuild(from, &mut actions, &mut moved, id);
            } else if moves_dependents(a, b) {
                moved.push_back(id);
            }
        } else if action == Action::Drop {
            moved.push_back(id);
        } else if action == Action::Keep && cuts.rebuild.contains(id) {
            rebuild(from, &mut actions, &mut moved, id);
        }
    }
    while let Some(id) = moved.pop_front() {
        let mut dependents: Vec<&'a FactId> = from.dependents(id).to_vec();
        if id.kind == Kind::Column {
            // Views over children's copies of the column know the child only.
            dependents.extend(descendants(from, &id.schema, &id.object).flat_map(|child| {
                from.dependents(child).iter().copied().filter(|d| {
                    matches!(
                        d.kind,
                        Kind::View | Kind::MaterializedView | Kind::Rule | Kind::Policy
                    )
                })
            }));
        }
        for dependent in dependents {
            react(from, to, &mut actions, &mut moved, id, dependent);
        }
    }
    for id in &cuts.loosened {
        if let Some(id) = to.find(id)
            && actions.of(id) == Action::Keep
        {
            actions.loosened.insert(id);
        }
    }
    actions
}

/// Columns that come or go only because the table is given to or taken from its parents are there all the time.
fn settle_inherited<'a>(from: &Side<'a>, to: &Side<'a>, actions: &mut Actions<'a>) {
    let changed: Vec<_> = actions
        .iter()
        .filter(|(id, action)| {
            id.kind == Kind::Column && matches!(action, Action::Create | Action::Drop)
        })
        .collect();
    for (id, action) in changed {
        let (has, other) = match action {
            Action::Create => (to, from),
            _ => (from, to),
        };
        let Some(there) = other.effective_column(&id.schema, &id.object, &id.part) else {
            continue;
        };
        if !there.inherited {
            continue;
        }
        // A parent that is new does not bring its column to a child that is there already.
        let same = has.column(id) == Some(there.column);
        actions
            .by_id
            .insert(id, if same { Action::Keep } else { Action::Alter });
    }
}

fn descendants<'a>(
    side: &Side<'a>,
    schema: &str,
    object: &str,
) -> impl Iterator<Item = &'a FactId> {
    let mut found: Vec<&'a FactId> = side.children(schema, object).to_vec();
    let mut at = 0;
    while let Some(&child) = found.get(at) {
        for &grandchild in side.children(&child.schema, &child.object) {
            if !found.contains(&grandchild) {
                found.push(grandchild);
            }
        }
        at += 1;
    }
    found.into_iter()
}

/// Marks the fact for a rebuild, unless rows of other tables hold on to it: then it is blocked.
fn rebuild<'a>(
    from: &Side<'a>,
    actions: &mut Actions<'a>,
    moved: &mut VecDeque<&'a FactId>,
    id: &'a FactId,
) {
    if actions.of(id) == Action::Rebuild {
        return;
    }
    if is_type(id.kind)
        && let Some(column) = types::column_that_uses(from, id)
    {
        actions.block(
            id,
            format!("{id} would have to be dropped and made again, but the column {column} is of that type"),
        );
        return;
    }
    actions.by_id.insert(id, Action::Rebuild);
    moved.push_back(id);
}

const fn is_type(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Enum | Kind::Domain | Kind::Composite | Kind::Range | Kind::Collation
    )
}

/// What `dependent` does about `moved`, which is dropped, made again or (a column) gets another type.
fn react<'a>(
    from: &Side<'a>,
    to: &Side<'a>,
    actions: &mut Actions<'a>,
    queue: &mut VecDeque<&'a FactId>,
    moved: &'a FactId,
    dependent: &'a FactId,
) {
    let action = actions.of(dependent);
    if !matches!(action, Action::Keep | Action::Alter) || to.find(dependent).is_none() {
        return;
    }
    let gone = actions.of(moved).drops();
    let Some(payload) = from.payload(dependent) else {
        return;
    };
    if dependent.of.is_some() {
        // Owners, grants and comments are written anew with what they tell of; see `privileges`.
        return;
    }
    let own = is_part(dependent)
        && dependent.schema == moved.schema
        && dependent.object == moved.object
        && moved.kind != Kind::Column
        && !is_part(moved);
    let remake = match payload {
        Payload::Column(_) if own => gone,
        Payload::Column(column) if column.generated.is_some() => true,
        Payload::Column(column) if gone => {
            let collates = moved.kind == Kind::Collation;
            if collates || base_type(&column.type_) == quote::object(moved) {
                actions.block(
                    dependent,
                    format!("the column's type or collation {moved} is dropped and made again"),
                );
            } else {
                actions.loosened.insert(dependent);
            }
            false
        }
        Payload::Domain { base, .. } if gone => {
            let same_base =
                base_type(base) == quote::object(moved) || moved.kind == Kind::Collation;
            if !same_base {
                actions.loosened.insert(dependent);
            }
            same_base
        }
        Payload::Table(table) if gone => {
            if table
                .parents
                .iter()
                .any(|(s, o)| *s == moved.schema && *o == moved.object)
            {
                if actions.of(moved) == Action::Rebuild {
                    actions.block(
                        moved,
                        format!("{moved} would have to be dropped and made again, but {dependent} is a child of it"),
                    );
                }
                false
            } else {
                matches!(moved.kind, Kind::Function | Kind::Collation) || is_type(moved.kind)
            }
        }
        Payload::Schema
        | Payload::Extension { .. }
        | Payload::Sequence(_)
        | Payload::Enum { .. }
        | Payload::Column(_)
        | Payload::Domain { .. }
        | Payload::Table(_)
        | Payload::DefaultPrivilege { .. } => false,
        // Postgres rebuilds these itself when a column's type changes.
        Payload::Constraint { .. }
        | Payload::Index { .. }
        | Payload::Statistics { .. }
        | Payload::Composite { .. }
        | Payload::Range { .. }
        | Payload::Aggregate { .. } => gone,
        Payload::Function { atomic, .. } => gone || *atomic,
        Payload::Publication { definition } => gone || definition.contains(" WHERE "),
        // Writing these anew lets go of what is dropped for good.
        Payload::View { .. }
        | Payload::Rule { .. }
        | Payload::Trigger { .. }
        | Payload::Policy { .. }
            if action == Action::Alter
                && actions.of(moved) == Action::Drop
                && !is_comment_like(from, to, dependent) =>
        {
            false
        }
        _ => true,
    };
    if remake {
        rebuild(from, actions, queue, dependent);
    }
}

/// Whether only something besides the definition differs (an enabled state, options), so that altering in place
/// keeps the old dependencies.
fn is_comment_like(from: &Side<'_>, to: &Side<'_>, id: &FactId) -> bool {
    match (from.payload(id), to.payload(id)) {
        (Some(Payload::View { definition: a, .. }), Some(Payload::View { definition: b, .. }))
        | (Some(Payload::Rule { definition: a, .. }), Some(Payload::Rule { definition: b, .. }))
        | (
            Some(Payload::Trigger { definition: a, .. }),
            Some(Payload::Trigger { definition: b, .. }),
        ) => a == b,
        _ => false,
    }
}

/// Whether ALTER or CREATE OR REPLACE turns one into the other.
fn in_place(from: &Payload, to: &Payload) -> bool {
    match (from, to) {
        (
            Payload::Domain {
                base, collation, ..
            },
            Payload::Domain {
                base: b,
                collation: c,
                ..
            },
        ) => base == b && collation == c,
        (Payload::Composite { attributes: a }, Payload::Composite { attributes: b }) => {
            types::attributes_alterable(a, b)
        }
        (Payload::Function { .. }, Payload::Function { .. }) => routines::replaceable(from, to),
        (Payload::Table(a), Payload::Table(b)) => a.partition_by == b.partition_by,
        (Payload::Column(a), Payload::Column(b)) => {
            b.generated.is_none() || a.generated == b.generated
        }
        (
            Payload::Constraint {
                kind: k,
                definition: a,
                validated: va,
            },
            Payload::Constraint {
                kind: l,
                definition: b,
                validated: vb,
            },
        ) => k == l && !va && *vb && a.trim_end_matches("NOT VALID").trim_end() == b,
        (
            Payload::Index {
                definition: a, on, ..
            },
            Payload::Index {
                definition: b,
                on: p,
                ..
            },
        ) => a == b && on == p,
        (Payload::View { columns: a, .. }, Payload::View { columns: b, .. }) => {
            views::appends_only(a, b)
        }
        (
            Payload::MaterializedView {
                definition: a,
                columns: c,
                ..
            },
            Payload::MaterializedView {
                definition: b,
                columns: d,
                ..
            },
        ) => a == b && c == d,
        (Payload::Statistics { definition: a, .. }, Payload::Statistics { definition: b, .. }) => {
            a == b
        }
        (
            Payload::Trigger {
                constraint: a,
                definition: x,
                ..
            },
            Payload::Trigger {
                constraint: b,
                definition: y,
                ..
            },
        ) => x == y || (!a && !b),
        (Payload::Policy { .. }, Payload::Policy { .. }) => policy_in_place(from, to),
        (Payload::EventTrigger { .. }, Payload::EventTrigger { .. }) => {
            without_state(from) == without_state(to)
        }
        (
            Payload::Collation { .. }
            | Payload::Range { .. }
            | Payload::Aggregate { .. }
            | Payload::Publication { .. },
            _,
        ) => false,
        _ => true,
    }
}

/// ALTER POLICY changes roles and expressions, but takes no expression away.
fn policy_in_place(from: &Payload, to: &Payload) -> bool {
    let parts = |policy: &Payload| match policy {
        Payload::Policy {
            command,
            permissive,
            using,
            check,
            ..
        } => Some((*command, *permissive, using.is_some(), check.is_some())),
        _ => None,
    };
    match (parts(from), parts(to)) {
        (Some(old), Some(new)) => {
            (old.0, old.1) == (new.0, new.1) && old.2 <= new.2 && old.3 <= new.3
        }
        _ => false,
    }
}

/// An event trigger but for its enabled state.
fn without_state(trigger: &Payload) -> Payload {
    let mut trigger = trigger.clone();
    if let Payload::EventTrigger { enabled, .. } = &mut trigger {
        *enabled = 'O';
    }
    trigger
}

/// Whether views and the like over it must get out of the way of the ALTER.
fn moves_dependents(from: &Payload, to: &Payload) -> bool {
    match (from, to) {
        (Payload::Column(a), Payload::Column(b)) => {
            a.type_ != b.type_ || a.collation != b.collation
        }
        (Payload::Composite { attributes: a }, Payload::Composite { attributes: b }) => {
            a.iter().any(|old| !b.contains(old))
        }
        _ => false,
    }
}

/// Why the change needs a migration whatever the rows are.
fn blocks(from: &Side<'_>, to: &Side<'_>, id: &FactId, a: &Payload, b: &Payload) -> Option<String> {
    match (a, b) {
        (Payload::Enum { labels: old }, Payload::Enum { labels: new }) => {
            types::labels_lost(old, new)
        }
        (Payload::Composite { attributes: old }, Payload::Composite { attributes: new }) => {
            let retyped = old.iter().find(|o| {
                new.iter().any(|n| {
                    n.name == o.name && (&n.type_, &n.collation) != (&o.type_, &o.collation)
                })
            })?;
            let column = types::column_that_uses(from, id)?;
            Some(format!(
                "the attribute {} of {id} gets another type, but rows of {column} hold the old one",
                retyped.name
            ))
        }
        (Payload::Column(old), Payload::Column(new)) if old.type_ != new.type_ => {
            let table = from.container(&id.schema, &id.object)?;
            if let Some(column) = types::column_that_uses(from, table) {
                return Some(format!(
                    "{id} gets another type, but rows of {column} hold the table's row type"
                ));
            }
            let keys = to
                .table(&id.schema, &id.object)?
                .partition_by
                .as_deref()
                .and_then(quote::parenthesized)?
                .0;
            let is_key = quote::split_top(keys, ',')
                .iter()
                .any(|key| quote::leading_ident(key).is_some_and(|(name, _)| name == id.part));
            is_key.then(|| format!("{id} is part of the partition key and cannot get another type"))
        }
        _ => None,
    }
}
