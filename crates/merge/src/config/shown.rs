//! How people see configuration: rows as JSON, edge functions as their code, migrations as their statements.

use serde_json::{Map, Value};

use super::{
    Migration, Row, Sides,
    tables::{Special, Table},
};
use crate::definitions::Definitions;

/// A row on all sides, or one column of it.
pub(super) fn row(
    sides: &Sides<'_>,
    table: &Table,
    name: &str,
    column: Option<&str>,
) -> Definitions {
    let rows = [sides.parent_t0, sides.parent, sides.branch_t0, sides.branch]
        .map(|rows| rows.row(table, name));
    let mut base = None;
    Definitions::of(sides.direction, |place| {
        // The base is asked for first.
        let base = *base.get_or_insert(rows[place]);
        text(table, rows[place]?, base, column)
    })
}

fn text(table: &Table, row: &Row, base: Option<&Row>, column: Option<&str>) -> Option<String> {
    if table.special == Special::EdgeFunction && column.is_none_or(|column| column == "code") {
        return row.values.get("code")?.clone();
    }
    let shown: Map<String, Value> = row
        .values
        .iter()
        .filter(|(name, _)| column.is_none_or(|column| column == *name))
        .map(|(name, text)| {
            let mut value = value(text.as_deref());
            if table.special == Special::Job && name == "headers" {
                let base = base.and_then(|row| row.values.get(name));
                value = hide(
                    value,
                    base.map(|base| self::value(base.as_deref())).as_ref(),
                );
            }
            (name.clone(), value)
        })
        .collect();
    if shown.is_empty() {
        return None;
    }
    serde_json::to_string_pretty(&shown).ok()
}

/// Postgres's text as what it says. What reads as more than a word or a whole number stays text.
fn value(text: Option<&str>) -> Value {
    let Some(text) = text else {
        return Value::Null;
    };
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match serde_json::from_str::<Value>(text) {
            Ok(Value::Number(number)) if number.to_string() == text => Value::Number(number),
            Ok(value @ (Value::Object(_) | Value::Array(_))) => value,
            _ => Value::String(text.to_owned()),
        },
    }
}

/// Whether a job's headers (JSON) have any value that is not shown.
pub(super) fn may_hold_secrets(headers: &str) -> bool {
    match serde_json::from_str(headers) {
        Ok(Value::Object(headers)) => headers
            .values()
            .any(|value| !value.as_str().is_some_and(is_reference)),
        _ => true,
    }
}

/// Whether it names secrets of the project (`${{secrets.X}}`) and holds nothing else but a scheme's name.
fn is_reference(text: &str) -> bool {
    let (mut rest, mut other, mut names_one) = (text, String::new(), false);
    while let Some((before, behind)) = rest.split_once("${{secrets.") {
        let Some((_name, after)) = behind.split_once("}}") else {
            return false;
        };
        other.push_str(before);
        (rest, names_one) = (after, true);
    }
    other.push_str(rest);
    let schemes = ["", "bearer", "basic", "token"];
    names_one && schemes.contains(&other.trim().to_ascii_lowercase().as_str())
}

/// Headers often hold tokens. Those that name a secret of the project say enough; of others only that they changed.
fn hide(value: Value, base: Option<&Value>) -> Value {
    let Value::Object(headers) = value else {
        return value;
    };
    let hidden = |name: &String, value: Value| match &value {
        Value::String(text) if is_reference(text) => value,
        _ => match base.and_then(|base| base.get(name)) {
            Some(was) if *was != value => "(hidden, changed)".into(),
            _ => "(hidden)".into(),
        },
    };
    headers
        .into_iter()
        .map(|(name, value)| {
            let shown = hidden(&name, value);
            (name, shown)
        })
        .collect()
}

impl Migration {
    /// Its statements.
    pub(crate) fn text(&self) -> String {
        let statements: Vec<String> = self.statements.iter().map(|s| format!("{s};")).collect();
        statements.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{hide, is_reference, may_hold_secrets, value};

    #[test]
    fn only_what_is_nothing_but_a_reference_is_shown() {
        for shown in [
            "${{secrets.A}}",
            "Bearer ${{secrets.A}}",
            "basic ${{secrets.A}}${{secrets.B}}",
        ] {
            assert!(is_reference(shown), "{shown}");
        }
        for hidden in [
            "",
            "abc",
            "Bearer abc",
            "key ${{secrets.A}}",
            "${{secrets.A",
            "${{secrets.A}}x",
        ] {
            assert!(!is_reference(hidden), "{hidden}");
        }
        assert!(may_hold_secrets(r#"{"a": "${{secrets.A}}", "b": "x"}"#));
        assert!(!may_hold_secrets(r#"{"a": "${{secrets.A}}"}"#));
        assert!(!may_hold_secrets("{}"));
    }

    #[test]
    fn texts_are_read_as_what_they_are() {
        let read = |text| value(Some(text));
        assert_eq!(read("true"), json!(true));
        assert_eq!(read("8"), json!(8));
        assert_eq!(read("007"), json!("007"));
        assert_eq!(read("null"), json!("null"));
        assert_eq!(read("[\"a\"]"), json!(["a"]));
        assert_eq!(value(None), json!(null));
    }

    #[test]
    fn tokens_in_headers_are_hidden() {
        let base = json!({"Authorization": "Bearer one", "X-Same": "s"});
        let now =
            json!({"Authorization": "Bearer two", "X-Same": "s", "X-Key": "${{secrets.KEY}}"});
        assert_eq!(
            hide(now, Some(&base)),
            json!({"Authorization": "(hidden, changed)", "X-Same": "(hidden)", "X-Key": "${{secrets.KEY}}"})
        );
    }
}
