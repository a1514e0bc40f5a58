//! Puts the steps of all families into one graph, and what must come before what.

use super::{
    Statement,
    cuts::Cuts,
    graph::{Graph, Key, Rank, Step},
    inheritance::Moves,
    kinds::{drop_order, is_code, is_relation, keyword},
    quote,
    rebuild::{Action, Actions},
    side::{Side, base_type},
};
use crate::catalog::{Fact, FactId, Kind, Payload};

pub struct Writer<'a, 's> {
    pub from: &'s Side<'a>,
    pub to: &'s Side<'a>,
    pub actions: &'s Actions<'a>,
    pub cuts: &'s Cuts,
    pub moves: &'s Moves,
    pub graph: Graph<'a>,
    /// Those of the database as it is: they act while the script runs.
    pub default_privileges: Vec<(&'a FactId, &'a Fact)>,
}

impl<'a, 's> Writer<'a, 's> {
    pub fn write(
        from: &'s Side<'a>,
        to: &'s Side<'a>,
        actions: &'s Actions<'a>,
        cuts: &'s Cuts,
        moves: &'s Moves,
    ) -> Self {
        let mut writer = Self {
            from,
            to,
            actions,
            cuts,
            moves,
            graph: Graph::default(),
            default_privileges: from
                .facts
                .iter()
                .filter(|(id, _)| id.kind == Kind::DefaultPrivilege)
                .map(|(&id, &fact)| (id, fact))
                .collect(),
        };
        let mut ids: Vec<_> = actions.iter().collect();
        ids.sort_unstable_by_key(|(id, _)| *id);
        for &(id, action) in &ids {
            if id.of.is_none() {
                if action.drops() {
                    writer.drop(id);
                }
                if action.makes() {
                    writer.make(id, action);
                }
            }
        }
        for &(id, _) in &ids {
            if id.kind == Kind::DefaultPrivilege {
                writer.default_privilege(id);
            }
        }
        writer.loosen();
        writer.move_tables();
        writer.privileges_and_comments();
        for &(id, action) in &ids {
            writer.order(id, action);
        }
        writer.free_names();
        writer
    }

    fn make(&mut self, id: &'a FactId, action: Action) {
        match id.kind {
            Kind::Schema | Kind::Extension | Kind::Publication | Kind::EventTrigger => {
                self.make_global(id, action);
            }
            Kind::Collation
            | Kind::Enum
            | Kind::Domain
            | Kind::Composite
            | Kind::Range
            | Kind::Sequence => {
                self.make_type(id, action);
            }
            Kind::Function | Kind::Procedure | Kind::Aggregate => self.make_routine(id, action),
            Kind::Table => self.make_table(id, action),
            Kind::Column => self.make_column(id, action),
            Kind::Constraint | Kind::Index | Kind::Statistics => self.make_constraint(id, action),
            Kind::View | Kind::MaterializedView | Kind::Rule => self.make_view(id, action),
            Kind::Trigger | Kind::Policy | Kind::Rls => self.make_guard(id, action),
            // Written with their subjects, see `privileges`.
            Kind::Owner | Kind::Grant | Kind::Comment | Kind::DefaultPrivilege => {}
        }
    }

    /// The drop of one fact: a statement of its own, or along with what holds it.
    fn drop(&mut self, id: &'a FactId) {
        if matches!(id.kind, Kind::Rls) {
            if self.actions.of(id) == Action::Drop && !self.actions.container_drops(self.from, id) {
                self.drop_rls(id);
            }
            return;
        }
        if matches!(id.kind, Kind::DefaultPrivilege) {
            return;
        }
        if let Some(with) = self.goes_with(id)
            && !self.cuts.explicit.contains(id)
            && !self.moves.before_detach.contains(id)
        {
            self.graph.alias((id, Step::Drop), (with, Step::Drop));
            return;
        }
        let Some(sql) = self.drop_sql(id) else {
            return;
        };
        let rank = Rank {
            phase: 0,
            order: drop_order(self.from, id),
        };
        let statements = vec![self.statement(id, sql)];
        self.graph.add((id, Step::Drop), rank, statements);
    }

    /// What takes the fact with it when it is dropped, if that is dropped too.
    fn goes_with(&self, id: &'a FactId) -> Option<&'a FactId> {
        let goes = |other: &&'a FactId| self.actions.of(other).drops();
        match self.from.payload(id)? {
            Payload::Sequence(sequence) => {
                let column = sequence.owned_by.as_ref()?;
                self.from
                    .find(column)
                    .or_else(|| self.from.container(&column.schema, &column.object))
                    .filter(goes)
            }
            // Its own table may be in a circle of foreign keys with the table that it refers to.
            Payload::Constraint { kind: 'f', .. } => {
                let container = self.from.container_of(id).filter(goes)?;
                let elsewhere = self.from.needs(id).iter().any(|need| {
                    self.actions.of(need).drops()
                        && (need.schema != id.schema || need.object != id.object)
                });
                (!elsewhere).then_some(container)
            }
            _ => self.from.container_of(id).filter(goes),
        }
    }

    fn drop_sql(&self, id: &FactId) -> Option<String> {
        let table = || quote::object(id);
        let part = || quote::ident(&id.part);
        Some(match id.kind {
            Kind::Column => format!("ALTER TABLE {} DROP COLUMN {}", table(), part()),
            Kind::Constraint => {
                let what = domain_or_table(self.from, id);
                format!("ALTER {what} {} DROP CONSTRAINT {}", table(), part())
            }
            Kind::Trigger => format!("DROP TRIGGER {} ON {}", part(), table()),
            Kind::Policy => format!("DROP POLICY {} ON {}", part(), table()),
            Kind::Rule => format!("DROP RULE {} ON {}", part(), table()),
            Kind::Rls | Kind::Owner | Kind::Grant | Kind::DefaultPrivilege | Kind::Comment => {
                return None;
            }
            _ => format!("DROP {}", named(id)),
        })
    }

    pub fn statement(&self, id: &FactId, sql: String) -> Statement {
        let changed = self.from.payload(id) != self.to.payload(id);
        Statement {
            sql,
            serves: changed.then(|| id.clone()),
            makes: None,
            evaluates: false,
        }
    }

    /// Adds a step of the making phase with its statements.
    pub fn step(&mut self, id: &'a FactId, step: Step, order: u16, sql: Vec<String>) {
        let statements = sql
            .into_iter()
            .map(|sql| Statement {
                makes: Some(id.clone()),
                evaluates: step == Step::Make,
                ..self.statement(id, sql)
            })
            .collect();
        self.graph
            .add((id, step), Rank { phase: 1, order }, statements);
    }

    /// The edges of one fact, from what it needs (merge-engine, "Order").
    fn order(&mut self, id: &'a FactId, action: Action) {
        if action == Action::Rebuild {
            self.graph.edge((id, Step::Drop), (id, Step::Make));
        }
        if self.to.find(id).is_some() {
            self.order_makes(id);
        }
        // Owners, grants and comments go with what they tell of, or are altered after it.
        if id.of.is_none() && self.from.find(id).is_some() {
            self.order_drops(id, action);
        }
    }

    /// Columns that are new to a table that stays come in the order that they are to have.
    fn order_new_columns(&mut self, table: &'a FactId) {
        let new: Vec<&'a FactId> = self
            .to
            .own_columns(&table.schema, &table.object)
            .into_iter()
            .map(|(id, _)| id)
            .filter(|id| self.actions.of(id) == Action::Create)
            .collect();
        for (one, next) in new.iter().zip(new.iter().skip(1)) {
            self.graph.edge((one, Step::Make), (next, Step::Make));
        }
    }

    fn order_makes(&mut self, id: &'a FactId) {
        let split = self.graph.contains((id, Step::Complete));
        let early = |need: &FactId| match self.to.payload(id) {
            // What a stub or a column without its default needs: its types.
            Some(Payload::Column(column)) => {
                need.part.is_empty()
                    && (!is_code(need.kind)
                        && (need.kind != Kind::Table
                            || base_type(&column.type_) == quote::object(need)
                            || need.object == id.object && need.schema == id.schema))
            }
            Some(Payload::View { columns, .. }) => {
                !is_code(need.kind)
                    && need.part.is_empty()
                    && (!is_relation(need.kind)
                        || columns
                            .iter()
                            .any(|c| base_type(&c.type_) == quote::object(need)))
            }
            Some(Payload::Function { .. }) => {
                matches!(
                    need.kind,
                    Kind::Schema
                        | Kind::Extension
                        | Kind::Enum
                        | Kind::Domain
                        | Kind::Composite
                        | Kind::Range
                ) || is_relation(need.kind) && need.part.is_empty()
            }
            _ => !is_code(need.kind),
        };
        for &need in self.to.needs(id) {
            if !split || early(need) {
                self.graph.edge((need, Step::Make), (id, Step::Make));
                if need.kind == Kind::Column && id.kind != Kind::Column {
                    self.graph.edge((need, Step::Complete), (id, Step::Make));
                }
            }
            if split {
                self.graph.edge((need, Step::Make), (id, Step::Complete));
            }
        }
        if split {
            self.graph.edge((id, Step::Make), (id, Step::Complete));
        }
        // A table whose row type is in use elsewhere cannot be rewritten any more.
        if id.kind == Kind::Column && self.actions.of(id).fresh() {
            for &part in row_type_columns(self.to, id) {
                self.graph.edge((part, Step::Make), (id, Step::Make));
            }
        }
        if id.kind == Kind::Table && id.of.is_none() && !self.actions.of(id).fresh() {
            self.order_new_columns(id);
        }
        // A new child finds its parents' columns complete.
        if let Some(Payload::Table(table)) = self.to.payload(id)
            && self.actions.of(id).fresh()
        {
            for (schema, parent) in &table.parents {
                for &part in self.to.parts(schema, parent) {
                    if part.kind == Kind::Column {
                        self.graph.edge((part, Step::Make), (id, Step::Make));
                    }
                }
            }
        }
        // Policies, triggers and rules see all columns of their table.
        if matches!(id.kind, Kind::Policy | Kind::Trigger | Kind::Rule) {
            for &part in self.to.parts(&id.schema, &id.object) {
                if part.kind == Kind::Column {
                    self.graph.edge((part, Step::Make), (id, Step::Make));
                }
            }
        }
        // A primary key goes before the next one comes.
        if let Some(Payload::Constraint { kind: 'p', .. }) = self.to.payload(id) {
            for &other in self.from.parts(&id.schema, &id.object) {
                if matches!(
                    self.from.payload(other),
                    Some(Payload::Constraint { kind: 'p', .. })
                ) {
                    self.graph.edge((other, Step::Drop), (id, Step::Make));
                }
            }
        }
        self.graph.edge((id, Step::Make), (id, Step::Late));
        self.graph.edge((id, Step::Attach), (id, Step::Late));
    }

    fn order_drops(&mut self, id: &'a FactId, action: Action) {
        let loosens = self.graph.contains((id, Step::Loosen));
        let attached: Vec<_> = self.from.needs(id).to_vec();
        for need in attached {
            if loosens && self.cuts.emptied.contains(id) {
                // Emptied, the view needs nothing any more.
                self.graph.edge((id, Step::Loosen), (need, Step::Drop));
                continue;
            }
            if action.drops() || self.graph.contains((id, Step::Drop)) {
                self.graph.edge((id, Step::Drop), (need, Step::Drop));
                if self.actions.of(need) == Action::Alter {
                    self.graph.edge((id, Step::Drop), (need, Step::Make));
                }
            } else if loosens {
                self.graph.edge((id, Step::Loosen), (need, Step::Drop));
            } else if action == Action::Alter {
                self.graph.edge((id, Step::Make), (need, Step::Drop));
            }
            if loosens {
                self.graph.edge((id, Step::Loosen), (need, Step::Drop));
            }
        }
        if id.kind == Kind::Column && action.drops() {
            for &part in row_type_columns(self.from, id) {
                self.graph.edge((id, Step::Drop), (part, Step::Make));
            }
        }
        if loosens {
            self.graph.edge((id, Step::Loosen), (id, Step::Drop));
            self.graph.edge((id, Step::Loosen), (id, Step::Make));
            self.graph.edge((id, Step::Make), (id, Step::Complete));
        }
    }

    /// Drops of defaults that come back later, for columns and domains that are not altered otherwise.
    fn loosen(&mut self) {
        let mut loosened: Vec<_> = self.actions.loosened.iter().copied().collect();
        for id in &self.cuts.emptied {
            if let Some(id) = self.from.find(id) {
                self.empty_view(id);
            }
        }
        for id in &self.cuts.loosened {
            if let Some(id) = self.from.find(id) {
                loosened.push(id);
            }
        }
        loosened.sort_unstable();
        loosened.dedup();
        for id in loosened {
            self.loosen_default(id);
        }
    }

    /// A name is free before the next object takes it, whatever its kind.
    fn free_names(&mut self) {
        let mut droppers: std::collections::HashMap<(Space, String, String), Vec<Key<'a>>> =
            std::collections::HashMap::new();
        for (id, action) in self.actions.iter() {
            let gives_up = action == Action::Alter
                && self.from.column(id).is_some_and(|c| c.identity.is_some())
                && self.to.column(id).is_some_and(|c| c.identity.is_none());
            if action.drops() || gives_up {
                let step = if gives_up { Step::Loosen } else { Step::Drop };
                for name in names_taken(self.from, id) {
                    droppers.entry(name).or_default().push((id, step));
                }
            }
        }
        if droppers.is_empty() {
            return;
        }
        for (id, action) in self.actions.iter() {
            if action.makes() {
                for name in names_taken(self.to, id) {
                    for &dropper in droppers.get(&name).map_or(&[][..], Vec::as_slice) {
                        self.graph.edge(dropper, (id, Step::Make));
                    }
                }
            }
        }
    }
}

/// `TABLE public.users`, `FUNCTION public.f(integer)`: an object of its own, as ALTER, DROP and COMMENT name it.
pub fn named(id: &FactId) -> String {
    match id.kind {
        Kind::Function | Kind::Procedure => {
            format!("{} {}", keyword(id.kind), quote::routine(id))
        }
        Kind::Aggregate => {
            let name = quote::routine(id);
            let name = name
                .strip_suffix("()")
                .map_or(name.clone(), |n| format!("{n}(*)"));
            format!("AGGREGATE {name}")
        }
        kind => format!("{} {}", keyword(kind), quote::object(id)),
    }
}

/// Constraints are of tables or of domains.
pub fn domain_or_table(side: &Side<'_>, id: &FactId) -> &'static str {
    match side.container(&id.schema, &id.object) {
        Some(container) if container.kind == Kind::Domain => "DOMAIN",
        _ => "TABLE",
    }
}

/// The parts of the tables whose row type the column has.
fn row_type_columns<'a, 's>(
    side: &'s Side<'a>,
    id: &FactId,
) -> impl Iterator<Item = &'s &'a FactId> + use<'a, 's> {
    let tables: Vec<&'a FactId> = side
        .needs(id)
        .iter()
        .copied()
        .filter(|need| {
            need.kind == Kind::Table && (need.schema != id.schema || need.object != id.object)
        })
        .collect();
    tables
        .into_iter()
        .flat_map(move |table| side.parts(&table.schema, &table.object))
        .filter(|part| part.kind == Kind::Column)
}

/// Name spaces of Postgres that more than one kind shares.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Space {
    Relations,
    Types,
    Routines,
}

fn names_taken(side: &Side<'_>, id: &FactId) -> Vec<(Space, String, String)> {
    let name = |space, name: &str| (space, id.schema.clone(), name.to_owned());
    match id.kind {
        Kind::Table | Kind::View | Kind::MaterializedView | Kind::Composite => {
            vec![
                name(Space::Relations, &id.object),
                name(Space::Types, &id.object),
            ]
        }
        Kind::Sequence | Kind::Index => vec![name(Space::Relations, &id.object)],
        Kind::Enum | Kind::Domain | Kind::Range => vec![name(Space::Types, &id.object)],
        Kind::Function | Kind::Procedure | Kind::Aggregate => {
            vec![name(Space::Routines, &id.object)]
        }
        // Keys take the name of an index.
        Kind::Constraint => match side.payload(id) {
            Some(Payload::Constraint {
                kind: 'p' | 'u' | 'x',
                ..
            }) => vec![name(Space::Relations, &id.part)],
            _ => Vec::new(),
        },
        Kind::Column => match side.column(id) {
            Some(column) if column.identity.is_some() => {
                vec![name(
                    Space::Relations,
                    &format!("{}_{}_seq", id.object, id.part),
                )]
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}
