//! What ALTER COLUMN TYPE can do by itself: which casts Postgres applies on assignment (`pg_cast.castcontext` `i`
//! or `a`, and any type to a string), and which values they would not carry over as they are.

use super::{quote, sequences, side::Side};
use crate::catalog::Payload;

/// Whether the values of a column survive a change of its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// All of them.
    Always,
    /// Those for which this condition is not true.
    Unless(String),
    /// Nobody knows: there is no assignment cast.
    Unknown,
}

struct Type<'t> {
    base: String,
    /// The numbers in parentheses.
    modifiers: Vec<i32>,
    array: bool,
    text: &'t str,
}

fn parse(text: &str) -> Type<'_> {
    let element = text.trim_end_matches("[]");
    let (base, modifiers) = match quote::parenthesized(element) {
        Some((inner, rest)) if !element.starts_with('"') => {
            let open = element.find('(').unwrap_or(element.len());
            let base = format!("{} {rest}", element[..open].trim_end());
            let numbers = inner
                .split(',')
                .filter_map(|n| n.trim().parse().ok())
                .collect();
            (base.trim_end().to_owned(), numbers)
        }
        _ => (element.to_owned(), Vec::new()),
    };
    Type {
        base,
        modifiers,
        array: element.len() < text.len(),
        text,
    }
}

/// The type below all domains, with the outermost one's text replaced.
fn undomained<'t>(side: &'t Side<'_>, type_: &'t str) -> &'t str {
    let mut type_ = type_;
    for _ in 0..16 {
        let base = side
            .facts
            .iter()
            .find_map(|(id, fact)| match &fact.payload {
                Payload::Domain { base, .. } if quote::object(id) == type_ => Some(base.as_str()),
                _ => None,
            });
        match base {
            Some(base) => type_ = base,
            None => break,
        }
    }
    type_
}

/// The USING expression, where assignment would be refused: through the types' text forms, which exist for all.
pub fn using(from: &Side<'_>, to: &Side<'_>, column: &str, old: &str, new: &str) -> Option<String> {
    match fit(from, to, column, old, new) {
        Fit::Unknown => Some(format!("{column}::text::{new}")),
        _ => None,
    }
}

/// What becomes of the values of `column` (SQL) when its type changes.
pub fn fit(from: &Side<'_>, to: &Side<'_>, column: &str, old: &str, new: &str) -> Fit {
    let (old, new) = (parse(undomained(from, old)), parse(undomained(to, new)));
    if old.array == new.array && old.array {
        return match fit_elements("element.v", &old, &new) {
            Fit::Unless(condition) => Fit::Unless(format!(
                "EXISTS (SELECT FROM pg_catalog.unnest({column}) AS element(v) WHERE {condition})"
            )),
            other => other,
        };
    }
    if old.array != new.array {
        return if new.array || !is_string(&new.base) {
            Fit::Unknown
        } else {
            Fit::Always
        };
    }
    fit_elements(column, &old, &new)
}

fn fit_elements(value: &str, old: &Type<'_>, new: &Type<'_>) -> Fit {
    let (a, b) = (old.base.as_str(), new.base.as_str());
    if a == b && old.modifiers == new.modifiers {
        return Fit::Always;
    }
    if is_string(b) {
        return fit_string(value, old, new);
    }
    if is_number(a) && is_number(b) {
        return fit_number(value, old, new);
    }
    let narrows = match (old.modifiers.first(), new.modifiers.first()) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(m), Some(n)) => n < m,
    };
    let element = new.text.trim_end_matches("[]");
    let round_trip = || Fit::Unless(format!("{value}::{element} <> {value}"));
    match (a, b) {
        ("timestamp without time zone" | "timestamp with time zone", "date") => {
            Fit::Unless(format!("{value} <> {value}::date"))
        }
        (
            "date" | "timestamp without time zone" | "timestamp with time zone",
            "timestamp without time zone" | "timestamp with time zone",
        )
        | (
            "time without time zone",
            "time without time zone" | "time with time zone" | "interval",
        )
        | ("time with time zone", "time with time zone")
        | ("interval", "interval") => {
            if narrows {
                round_trip()
            } else {
                Fit::Always
            }
        }
        // These forget the day or the zone.
        (
            "timestamp without time zone" | "timestamp with time zone" | "time with time zone",
            "time without time zone",
        )
        | ("timestamp with time zone", "time with time zone") => {
            Fit::Unless(format!("{value} IS NOT NULL"))
        }
        ("interval", "time without time zone") => {
            Fit::Unless(format!("{value} <> ({value}::{element})::interval"))
        }
        ("json", "jsonb")
        | ("jsonb", "json")
        | ("cidr", "inet")
        | ("character", "\"char\"" | "name")
        | ("oid", "bigint") => Fit::Always,
        ("inet", "cidr") => Fit::Unless(format!("{value} <> ({value}::cidr)::inet")),
        ("text" | "character varying", "name") => {
            Fit::Unless(format!("pg_catalog.octet_length({value}) > 63"))
        }
        ("text" | "character varying", "\"char\"") => {
            Fit::Unless(format!("pg_catalog.octet_length({value}) > 1"))
        }
        ("bit" | "bit varying", "bit") => {
            let length = new.modifiers.first().copied().unwrap_or(1);
            Fit::Unless(format!("pg_catalog.length({value}) <> {length}"))
        }
        ("bit" | "bit varying", "bit varying") => match new.modifiers.first() {
            Some(length) => Fit::Unless(format!("pg_catalog.length({value}) > {length}")),
            None => Fit::Always,
        },
        ("oid", "integer") => Fit::Unless(format!("{value}::bigint > {}", i32::MAX)),
        ("smallint" | "integer" | "bigint", "oid") => {
            Fit::Unless(format!("{value}::bigint NOT BETWEEN 0 AND {}", u32::MAX))
        }
        ("smallint" | "integer" | "bigint" | "numeric", "money") => Fit::Unless(format!(
            "{value}::numeric NOT BETWEEN -92233720368547758 AND 92233720368547758 OR pg_catalog.round({value}::numeric, 2) <> {value}::numeric"
        )),
        ("money", "numeric") if new.modifiers.is_empty() => Fit::Always,
        _ => Fit::Unknown,
    }
}

fn fit_string(value: &str, old: &Type<'_>, new: &Type<'_>) -> Fit {
    let Some(&length) = new.modifiers.first() else {
        // `char` without a length is one character long.
        return match new.base.as_str() {
            "character" => Fit::Unless(format!("pg_catalog.char_length({value}::text) > 1")),
            _ => Fit::Always,
        };
    };
    let fits = matches!(old.base.as_str(), "character" | "character varying")
        && old.modifiers.first().is_some_and(|&had| had <= length);
    if fits {
        Fit::Always
    } else {
        Fit::Unless(format!("pg_catalog.char_length({value}::text) > {length}"))
    }
}

fn fit_number(value: &str, old: &Type<'_>, new: &Type<'_>) -> Fit {
    let (a, b) = (old.base.as_str(), new.base.as_str());
    let beyond = |limit: i64| Fit::Unless(format!("{value} NOT BETWEEN -{limit} AND {limit}"));
    match (a, b) {
        _ if sequences::is_integer(a) && sequences::is_integer(b) => {
            let ((low, high), (low_before, high_before)) =
                (sequences::type_bounds(b), sequences::type_bounds(a));
            if low <= low_before && high >= high_before {
                Fit::Always
            } else {
                Fit::Unless(format!("{value} NOT BETWEEN {low} AND {high}"))
            }
        }
        _ if sequences::is_integer(b) => {
            let (low, high) = sequences::type_bounds(b);
            Fit::Unless(format!(
                "NOT ({value}::numeric BETWEEN {low} AND {high} AND {value}::numeric = pg_catalog.trunc({value}::numeric))"
            ))
        }
        (_, "numeric") => match new.modifiers[..] {
            [precision, ..] => {
                let scale = new.modifiers.get(1).copied().unwrap_or(0);
                let had = (
                    old.modifiers.first(),
                    old.modifiers.get(1).copied().unwrap_or(0),
                );
                if a == "numeric"
                    && had
                        .0
                        .is_some_and(|&p| p - had.1 <= precision - scale && had.1 <= scale)
                {
                    return Fit::Always;
                }
                Fit::Unless(format!(
                    "pg_catalog.abs({value}::numeric) >= 1e{} OR pg_catalog.round({value}::numeric, {scale}) <> {value}::numeric",
                    precision - scale
                ))
            }
            [] => Fit::Always,
        },
        ("smallint", _) | ("integer" | "real", "double precision") => Fit::Always,
        // Beyond these, not every whole number has a floating point value of its own.
        ("bigint", "double precision") => beyond(1 << 53),
        ("integer" | "bigint", "real") => beyond(1 << 24),
        ("numeric", _) => Fit::Unless(format!(
            "CASE WHEN {value} = 0 OR pg_catalog.abs({value}) BETWEEN 1e-37 AND 1e38 \
             THEN {value}::{b}::text::numeric <> {value} ELSE true END"
        )),
        (_, "real") => Fit::Unless(format!(
            "CASE WHEN {value} = 0 OR pg_catalog.abs({value}) BETWEEN 1e-37 AND 1e38 \
             THEN {value}::real::text::double precision <> {value} ELSE true END"
        )),
        _ => Fit::Unknown,
    }
}

fn is_string(base: &str) -> bool {
    matches!(base, "text" | "character varying" | "character" | "bpchar")
}

fn is_number(base: &str) -> bool {
    sequences::is_integer(base) || matches!(base, "numeric" | "real" | "double precision")
}

/// Whether ALTER TYPE leaves the rows as they are on disk.
pub fn keeps_rows(from: &Side<'_>, to: &Side<'_>, old: &str, new: &str) -> bool {
    let (old, new) = (parse(undomained(from, old)), parse(undomained(to, new)));
    let varying =
        |t: &Type<'_>| !t.array && matches!(t.base.as_str(), "text" | "character varying");
    if varying(&old) && varying(&new) {
        return match (old.modifiers.first(), new.modifiers.first()) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(had), Some(has)) => has >= had,
        };
    }
    let scale = |t: &Type<'_>| t.modifiers.get(1).copied().unwrap_or(0);
    old.base == new.base
        && old.array == new.array
        && (old.modifiers == new.modifiers
            || old.base == "numeric"
                && (new.modifiers.is_empty()
                    || old.modifiers.first() <= new.modifiers.first()
                        && scale(&old) == scale(&new)
                        && !old.modifiers.is_empty()))
}

/// How a type is stored if nobody says otherwise, for types of variable length.
pub fn type_storage(type_: &str) -> &'static str {
    match parse(type_).base.as_str() {
        "numeric" | "inet" | "cidr" if !type_.ends_with("[]") => "MAIN",
        _ => "EXTENDED",
    }
}
