//! Owners, default privileges and comments; who gets grants is found here, which ones in `grants`.

use std::collections::BTreeMap;

use super::{
    grants::{Privileges, acl_kind, grant_target, grants, revokes},
    graph::Step,
    kinds::order,
    quote,
    rebuild::Action,
    side::Side,
    writer::{Writer, domain_or_table, named},
};
use crate::catalog::{FactId, Kind, Payload};

impl<'a> Writer<'a, '_> {
    pub(super) fn privileges_and_comments(&mut self) {
        self.sequence_owners();
        let mut subjects: BTreeMap<FactId, (Vec<&'a FactId>, Vec<&'a FactId>)> = BTreeMap::new();
        for &id in self.from.facts.keys() {
            if let Some(subject) = id.subject() {
                subjects.entry(subject).or_default().0.push(id);
            }
        }
        for &id in self.to.facts.keys() {
            if let Some(subject) = id.subject() {
                subjects.entry(subject).or_default().1.push(id);
            }
        }
        for subject in self.unnamed_identities() {
            subjects.entry(subject).or_default();
        }
        // Everything that is not new keeps its grants unless a fact says otherwise; what is new may have got some.
        for &id in self.to.facts.keys() {
            if id.of.is_none() && self.actions.of(id).fresh() && acl_kind(id.kind).is_some() {
                subjects.entry(id.clone()).or_default();
            }
        }
        for (subject, (old, new)) in &subjects {
            self.about(subject, old, new);
        }
    }

    fn about(&mut self, subject: &FactId, old: &[&'a FactId], new: &[&'a FactId]) {
        let Some(holder) = holder(self.to, subject, new) else {
            return;
        };
        if subject.kind == Kind::Column && !has_column(self.to, subject) {
            return;
        }
        let fresh = self.is_fresh(subject, holder);
        let of_kind = |ids: &[&'a FactId], kind| {
            ids.iter()
                .copied()
                .filter(move |id| id.kind == kind)
                .collect::<Vec<_>>()
        };

        let owner = of_kind(new, Kind::Owner).first().copied();
        if let Some(owner) = owner {
            self.owner(subject, owner, fresh);
        }
        for comment in of_kind(new, Kind::Comment) {
            if let Some(Payload::Comment { text }) = self.to.payload(comment)
                && (fresh || self.from.payload(comment) != self.to.payload(comment))
            {
                let sql = format!(
                    "COMMENT ON {} IS {}",
                    self.commented(subject),
                    quote::literal(text)
                );
                self.step(comment, Step::Make, order::COMMENT, vec![sql]);
                self.graph.edge((holder, Step::Make), (comment, Step::Make));
            }
        }
        for comment in of_kind(old, Kind::Comment) {
            if !fresh && self.to.find(comment).is_none() {
                let sql = format!("COMMENT ON {} IS NULL", self.commented(subject));
                self.step(comment, Step::Make, order::COMMENT, vec![sql]);
            }
        }
        if grant_target(self.to, subject).is_some() {
            if fresh {
                self.grant_new(subject, holder, &of_kind(new, Kind::Grant));
            } else {
                self.grant_changes(
                    subject,
                    &of_kind(old, Kind::Grant),
                    &of_kind(new, Kind::Grant),
                );
            }
        }
    }

    /// Whether the subject is made by this script. A column without a fact is as new as what holds it; an identity's
    /// sequence as new as the identity.
    pub(super) fn is_fresh(&self, subject: &FactId, holder: &'a FactId) -> bool {
        if subject.kind == Kind::Sequence && holder.kind == Kind::Column {
            let had = self
                .from
                .effective_column(&holder.schema, &holder.object, &holder.part)
                .is_some_and(|c| c.column.identity.is_some());
            return self.is_fresh(holder, holder) || !had;
        }
        if self.actions.of(holder).fresh() {
            return true;
        }
        holder.kind == Kind::Column
            && self
                .to
                .container(&holder.schema, &holder.object)
                .is_some_and(|table| self.actions.of(table).fresh())
    }

    fn owner(&mut self, subject: &FactId, owner: &'a FactId, fresh: bool) {
        let Some(Payload::Owner { role }) = self.to.payload(owner) else {
            return;
        };
        if !fresh && self.from.payload(owner) == self.to.payload(owner) {
            return;
        }
        if let Some(Payload::Sequence(sequence)) = self.to.payload(subject)
            && let Some(column) = &sequence.owned_by
        {
            // An owned sequence follows its table, from the moment it is owned.
            let table_is_new = self
                .to
                .container(&column.schema, &column.object)
                .is_some_and(|table| self.actions.of(table).fresh());
            let owned_before = match self.from.payload(subject) {
                Some(Payload::Sequence(old)) => {
                    !fresh && old.owned_by.as_ref() == Some(column) && !table_is_new
                }
                _ => false,
            };
            if owned_before || (fresh && table_is_new) {
                return;
            }
        }
        let sql = format!("ALTER {} OWNER TO {}", named(subject), quote::ident(role));
        // Who owns a new schema needs it before other things that are his are altered with his rights.
        let at = if fresh && subject.kind == Kind::Schema {
            order::SCHEMA
        } else {
            order::OWNER
        };
        self.step(owner, Step::Make, at, vec![sql]);
        self.before_evaluation(subject, owner);
        if let Some(subject) = self.to.find(subject) {
            if matches!(self.to.payload(subject), Some(Payload::Sequence(s)) if s.owned_by.is_none())
            {
                self.graph
                    .edge((subject, Step::Loosen), (owner, Step::Make));
                self.graph.edge((subject, Step::Own), (owner, Step::Make));
            }
            self.graph.edge((subject, Step::Make), (owner, Step::Make));
            self.graph
                .edge((subject, Step::Complete), (owner, Step::Make));
        }
    }

    /// What is added to something new in a statement of its own may evaluate expressions. That is done with the rights
    /// of the owner ([`crate::apply`]), so he is made first.
    fn before_evaluation(&mut self, subject: &FactId, owner: &'a FactId) {
        let later: Vec<&'a FactId> = self
            .cuts
            .separate
            .iter()
            .filter(|part| (&part.schema, &part.object) == (&subject.schema, &subject.object))
            .filter(|part| match self.to.payload(part) {
                Some(Payload::Constraint { kind, .. }) => *kind == 'c',
                Some(Payload::Column(column)) => {
                    let draws = |default: &String| default.contains("nextval(");
                    column.identity.is_none() && !column.default.as_ref().is_some_and(draws)
                }
                _ => false,
            })
            .filter_map(|part| self.to.find(part))
            .collect();
        for part in later {
            self.graph.edge((owner, Step::Make), (part, Step::Make));
        }
    }

    /// What COMMENT ON names.
    fn commented(&self, subject: &FactId) -> String {
        let (object, part) = (quote::object(subject), quote::ident(&subject.part));
        match subject.kind {
            Kind::Column => format!("COLUMN {object}.{part}"),
            Kind::Constraint => {
                let domain = match domain_or_table(self.to, subject) {
                    "DOMAIN" => "DOMAIN ",
                    _ => "",
                };
                format!("CONSTRAINT {part} ON {domain}{object}")
            }
            Kind::Trigger | Kind::Policy | Kind::Rule => {
                format!("{} {part} ON {object}", super::kinds::keyword(subject.kind))
            }
            _ => named(subject),
        }
    }

    pub(super) fn default_privilege(&mut self, id: &'a FactId) {
        let action = self.actions.of(id);
        if action == Action::Keep {
            return;
        }
        let Some((role, kind)) = id.object.rsplit_once(':') else {
            return;
        };
        if !id.schema.is_empty() {
            let schema = FactId::object(Kind::Schema, "", &id.schema);
            if self.actions.of(&schema) == Action::Drop {
                return;
            }
        }
        let usual = || usual_defaults(role, kind, id);
        let set = |side: &Side<'a>| match side.payload(id) {
            Some(Payload::DefaultPrivilege { privileges }) => privileges.clone(),
            _ => usual(),
        };
        let (has, wants) = (set(self.from), set(self.to));
        let place = if id.schema.is_empty() {
            String::new()
        } else {
            format!(" IN SCHEMA {}", quote::ident(&id.schema))
        };
        let prefix = format!(
            "ALTER DEFAULT PRIVILEGES FOR ROLE {}{place} ",
            quote::ident(role)
        );
        let on = kind.to_uppercase();
        let grantee = quote::role(&id.grantee);
        let missing: Privileges = wants
            .iter()
            .filter(|(p, o)| has.get(*p).is_none_or(|had| **o && !had))
            .map(|(p, o)| (p.clone(), *o))
            .collect();
        let plain = FactId::object(Kind::Table, "", "");
        let sql = revokes(&on, &grantee, &has, &wants, &plain)
            .into_iter()
            .chain(grants(&on, &grantee, &missing, &plain))
            .map(|sql| format!("{prefix}{sql}"))
            .collect();
        self.step(id, Step::Make, order::DEFAULT_PRIVILEGE, sql);
    }
}

/// Who owns the object.
pub fn owner_of<'a>(side: &Side<'a>, subject: &FactId) -> Option<&'a str> {
    // An owned sequence has its table's owner, and so has that of an identity column.
    if subject.kind == Kind::Sequence {
        let column = match side.payload(subject) {
            Some(Payload::Sequence(sequence)) => sequence.owned_by.as_ref(),
            _ => identity_column(side, subject),
        };
        if let Some(column) = column {
            let table = side.container(&column.schema, &column.object)?;
            return owner_of(side, table);
        }
    }
    match side.payload(&FactId::about(Kind::Owner, subject))? {
        Payload::Owner { role } => Some(role),
        _ => None,
    }
}

/// What a global entry without a fact gives: the built-in default.
fn usual_defaults(role: &str, kind: &str, id: &FactId) -> Privileges {
    let all: &[&str] = match (kind, id.grantee.as_str()) {
        _ if !id.schema.is_empty() => &[],
        ("functions", "PUBLIC") => &["EXECUTE"],
        ("types", "PUBLIC") => &["USAGE"],
        (_, grantee) if grantee != role => &[],
        ("functions", _) => &["EXECUTE"],
        ("types", _) => &["USAGE"],
        ("schemas", _) => &["CREATE", "USAGE"],
        ("sequences", _) => &["SELECT", "UPDATE", "USAGE"],
        _ => &[
            "DELETE",
            "INSERT",
            "REFERENCES",
            "SELECT",
            "TRIGGER",
            "TRUNCATE",
            "UPDATE",
        ],
    };
    all.iter().map(|p| ((*p).to_owned(), false)).collect()
}

/// Whether the table, view or composite type has the column.
fn has_column(side: &Side<'_>, column: &FactId) -> bool {
    let payload = side
        .container(&column.schema, &column.object)
        .and_then(|container| side.payload(container));
    match payload {
        Some(Payload::View { columns, .. } | Payload::MaterializedView { columns, .. }) => {
            columns.iter().any(|c| c.name == column.part)
        }
        Some(Payload::Composite { attributes }) => attributes.iter().any(|a| a.name == column.part),
        _ => side
            .effective_column(&column.schema, &column.object, &column.part)
            .is_some(),
    }
}

/// What stands for the subject among the facts: itself, what holds it, or what a grant on it needs.
fn holder<'a>(side: &Side<'a>, subject: &FactId, extras: &[&'a FactId]) -> Option<&'a FactId> {
    side.find(subject)
        .or_else(|| {
            (subject.kind == Kind::Column)
                .then(|| side.container(&subject.schema, &subject.object))?
        })
        .or_else(|| extras.iter().find_map(|id| side.needs(id).first().copied()))
        .or_else(|| {
            // The sequence of an identity column, by the name that Postgres gives it.
            (subject.kind == Kind::Sequence).then(|| identity_column(side, subject))?
        })
}

pub fn identity_column<'a>(side: &Side<'a>, sequence: &FactId) -> Option<&'a FactId> {
    side.facts
        .iter()
        .find_map(|(&id, fact)| match &fact.payload {
            Payload::Column(column)
                if column.identity.is_some()
                    && id.schema == sequence.schema
                    && format!("{}_{}_seq", id.object, id.part) == sequence.object =>
            {
                Some(id)
            }
            _ => None,
        })
}
