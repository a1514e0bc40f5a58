//! A rename in the model: in names, in what needs them, and in texts.

use std::collections::BTreeSet;

use super::{own_name, space};
use crate::{
    catalog::{Catalog, FactId, Kind, Payload},
    script::{kinds, quote},
};

/// The fact's name after one rename of something else (or of itself).
pub fn renamed(id: &FactId, from: &FactId, to: &FactId) -> FactId {
    let mut id = id.clone();
    if from.kind == Kind::Schema {
        if id.schema == from.object {
            id.schema.clone_from(&to.object);
        } else if id.schema.is_empty()
            && id.subject_kind() == Kind::Schema
            && id.object == from.object
        {
            id.object.clone_from(&to.object);
        }
        if space(id.subject_kind()) == 1 {
            let (old, new) = (
                format!("{}.", quote::ident(&from.object)),
                format!("{}.", quote::ident(&to.object)),
            );
            id.object = replace_name(&id.object, &old, &new);
        }
        return id;
    }
    if !from.part.is_empty() {
        let same = id.schema == from.schema && id.object == from.object && id.part == from.part;
        if same && id.subject_kind() == from.kind {
            id.part.clone_from(&to.part);
        }
        return id;
    }
    if id.schema == from.schema && id.object == from.object && holds(from.kind, id.subject_kind()) {
        id.schema.clone_from(&to.schema);
        id.object.clone_from(&to.object);
    } else if space(id.subject_kind()) == 1 && is_type_like(from.kind) {
        id.object = replace_name(&id.object, &quote::object(from), &quote::object(to));
    }
    id
}

/// Whether facts of kind `part` that carry the container's name belong to it.
fn holds(container: Kind, part: Kind) -> bool {
    container == part
        || matches!(
            (container, part),
            (
                Kind::Table | Kind::View | Kind::MaterializedView | Kind::Domain | Kind::Composite,
                Kind::Column
                    | Kind::Constraint
                    | Kind::Rule
                    | Kind::Trigger
                    | Kind::Policy
                    | Kind::Rls
            )
        )
}

fn is_type_like(kind: Kind) -> bool {
    space(kind) == 0 && !matches!(kind, Kind::Sequence | Kind::Index)
}

pub fn rename_in(catalog: &mut Catalog, from: &FactId, to: &FactId) {
    let facts = std::mem::take(&mut catalog.facts);
    let schemas: BTreeSet<String> = facts
        .keys()
        .filter(|id| id.kind == Kind::Schema)
        .map(|id| id.object.clone())
        .collect();
    for (id, mut fact) in facts {
        let concerned = fact.needs.contains(from)
            || (id.schema == from.schema && id.object == from.object)
            || fact
                .needs
                .iter()
                .any(|n| n.schema == from.schema && n.object == from.object);
        rename_in_payload(&id, &mut fact.payload, from, to, concerned, &schemas);
        fact.needs = fact
            .needs
            .iter()
            .map(|need| renamed(need, from, to))
            .collect();
        let subject_is_part =
            !from.part.is_empty() && matches!(from.kind, Kind::Enum | Kind::Composite);
        let id = if subject_is_part {
            id
        } else {
            renamed(&id, from, to)
        };
        catalog.facts.insert(id, fact);
    }
}

fn rename_in_payload(
    id: &FactId,
    payload: &mut Payload,
    from: &FactId,
    to: &FactId,
    concerned: bool,
    schemas: &BTreeSet<String>,
) {
    match payload {
        Payload::Sequence(sequence) => {
            if let Some(column) = &mut sequence.owned_by {
                *column = renamed(column, from, to);
            }
        }
        Payload::Table(table) => {
            for (schema, name) in &mut table.parents {
                let parent = renamed(&FactId::object(Kind::Table, schema, name), from, to);
                (*schema, *name) = (parent.schema, parent.object);
            }
            let names_index = from.kind == Kind::Index && id.schema == from.schema
                || from.kind == Kind::Constraint && id.object == from.object;
            if names_index && table.replica_index.as_deref() == Some(own_name(from)) {
                table.replica_index = Some(own_name(to).to_owned());
            }
        }
        Payload::Index { on, .. } | Payload::Statistics { on, .. }
            if from.part.is_empty() && id.schema == from.schema && *on == from.object =>
        {
            on.clone_from(&to.object);
        }
        Payload::Enum { labels }
            if id.object == from.object && id.schema == from.schema && !from.part.is_empty() =>
        {
            for label in labels.iter_mut().filter(|l| l.name == from.part) {
                label.name.clone_from(&to.part);
            }
        }
        Payload::Composite { attributes }
            if from.kind == Kind::Composite
                && !from.part.is_empty()
                && id.object == from.object
                && id.schema == from.schema =>
        {
            for attribute in attributes.iter_mut().filter(|a| a.name == from.part) {
                attribute.name.clone_from(&to.part);
            }
        }
        Payload::Extension { schema } if from.kind == Kind::Schema && *schema == from.object => {
            schema.clone_from(&to.object);
        }
        _ => {}
    }
    // How the old name reads in texts, and the new one.
    let own = id == from;
    let change: Box<dyn Fn(&str) -> String> = match from.kind {
        Kind::Schema => {
            let (old, new) = (
                format!("{}.", quote::ident(&from.object)),
                format!("{}.", quote::ident(&to.object)),
            );
            Box::new(move |text| replace_name(text, &old, &new))
        }
        Kind::Enum if !from.part.is_empty() => {
            let type_ = quote::object(from);
            let (old, new) = (
                format!("{}::{type_}", quote::literal(&from.part)),
                format!("{}::{type_}", quote::literal(&to.part)),
            );
            Box::new(move |text| text.replace(&old, &new))
        }
        Kind::Column if concerned => {
            let (old, new) = (from.part.clone(), quote::ident(&to.part).into_owned());
            Box::new(move |text| {
                quote::replace_idents(text, |name, qualifier| {
                    (name == old && !qualifier.is_some_and(|q| schemas.contains(q)))
                        .then(|| new.clone())
                })
            })
        }
        Kind::Index | Kind::Trigger | Kind::Rule if own => {
            let word = kinds::keyword(from.kind);
            let old = format!("{word} {} ", quote::ident(own_name(from)));
            let new = format!("{word} {} ", quote::ident(own_name(to)));
            Box::new(move |text| text.replacen(&old, &new, 1))
        }
        Kind::Function | Kind::Procedure | Kind::Aggregate => {
            let qualified =
                |id: &FactId| format!("{}(", quote::qualified(&id.schema, own_name(id)));
            let (old, new) = (qualified(from), qualified(to));
            // Bodies that are strings are what they are.
            if concerned || own {
                Box::new(move |text| replace_name(text, &old, &new))
            } else {
                return;
            }
        }
        _ if from.part.is_empty() => {
            let (old, new) = (quote::object(from), quote::object(to));
            Box::new(move |text| replace_name(text, &old, &new))
        }
        _ => return,
    };
    let routine = matches!(payload, Payload::Function { atomic: false, .. });
    for text in texts(payload) {
        let new = if routine {
            // Only the signature follows.
            let body = text.find("\nAS ").unwrap_or(text.len());
            format!("{}{}", change(&text[..body]), &text[body..])
        } else {
            change(text)
        };
        *text = new;
    }
}

/// Replaces a name wherever it is not a part of a longer one.
fn replace_name(text: &str, old: &str, new: &str) -> String {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '"' || c == '$';
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(old) {
        let (before, after) = (&rest[..at], &rest[at + old.len()..]);
        let open = before.chars().next_back().or(out.chars().next_back());
        let inside = open.is_some_and(|c| word(c) || c == '.')
            || (old.ends_with(word) && after.starts_with(word));
        out.push_str(before);
        out.push_str(if inside { old } else { new });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// All SQL in a payload.
fn texts(payload: &mut Payload) -> Vec<&mut String> {
    match payload {
        Payload::Domain { base, default, .. } => {
            std::iter::once(base).chain(default.as_mut()).collect()
        }
        Payload::Composite { attributes } => attributes.iter_mut().map(|a| &mut a.type_).collect(),
        Payload::Range { options } => vec![options],
        Payload::Function {
            definition,
            result,
            arguments,
            ..
        } => [definition, arguments]
            .into_iter()
            .chain(result.as_mut())
            .collect(),
        Payload::Aggregate { definition }
        | Payload::Constraint { definition, .. }
        | Payload::Index { definition, .. }
        | Payload::Rule { definition, .. }
        | Payload::Statistics { definition, .. }
        | Payload::Trigger { definition, .. }
        | Payload::Publication { definition } => vec![definition],
        Payload::Table(table) => table
            .partition_by
            .as_mut()
            .into_iter()
            .chain(table.bound.as_mut())
            .collect(),
        Payload::Column(column) => std::iter::once(&mut column.type_)
            .chain(column.default.as_mut())
            .chain(column.generated.as_mut())
            .chain(column.collation.as_mut())
            .collect(),
        Payload::View {
            definition,
            columns,
            ..
        }
        | Payload::MaterializedView {
            definition,
            columns,
            ..
        } => std::iter::once(definition)
            .chain(
                columns
                    .iter_mut()
                    .flat_map(|c| std::iter::once(&mut c.type_).chain(c.default.as_mut())),
            )
            .collect(),
        Payload::Policy { using, check, .. } => {
            using.as_mut().into_iter().chain(check.as_mut()).collect()
        }
        Payload::EventTrigger { function, .. } => vec![function],
        _ => Vec::new(),
    }
}
