//! Values of Postgres's text format as the JSON that callers of the real server know
//! (project-backend 7): `bigint` and `numeric` as strings, times ISO in UTC, JSON parsed.
//! And the way back: JSON parameters as SQL literals.

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat};
use serde_json::{Number, Value, json};

/// The JSON of one value; `oid` is its type's.
pub(crate) fn from_text(oid: u32, text: &str) -> Value {
    match element_of(oid) {
        Some(element) => array(element, text).unwrap_or_else(|| Value::from(text)),
        None => scalar(oid, text),
    }
}

fn scalar(oid: u32, text: &str) -> Value {
    match oid {
        // bool
        16 => Value::Bool(text == "t"),
        // int2, int4, oid
        21 | 23 | 26 => text
            .parse::<i64>()
            .map_or_else(|_| Value::from(text), Value::from),
        // float4, float8; JSON has no NaN and no infinity
        700 | 701 => text
            .parse::<f64>()
            .ok()
            .and_then(Number::from_f64)
            .map_or(Value::Null, Value::Number),
        // json, jsonb
        114 | 3802 => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
        // bytea, in the form of a Node buffer
        17 => text
            .strip_prefix("\\x")
            .and_then(|digits| hex::decode(digits).ok())
            .map_or_else(
                || Value::from(text),
                |bytes| json!({ "type": "Buffer", "data": bytes }),
            ),
        // date, timestamp, timestamptz
        1082 | 1114 | 1184 => Value::from(iso(text).unwrap_or_else(|| text.to_owned())),
        _ => Value::from(text),
    }
}

/// Infinity, BC and years past 9999 have no ISO form and stay as Postgres writes them.
fn iso(text: &str) -> Option<String> {
    let utc = DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z")
        .map(|time| time.to_utc())
        .or_else(|_| {
            NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").map(|time| time.and_utc())
        })
        .or_else(|_| {
            NaiveDate::parse_from_str(text, "%Y-%m-%d")
                .map(|date| date.and_time(chrono::NaiveTime::MIN).and_utc())
        })
        .ok()?;
    Some(utc.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// The element type of the built-in array types.
fn element_of(oid: u32) -> Option<u32> {
    Some(match oid {
        1000 => 16,
        1001 => 17,
        1005 => 21,
        1007 => 23,
        1016 => 20,
        1028 => 26,
        1021 => 700,
        1022 => 701,
        1231 => 1700,
        199 => 114,
        3807 => 3802,
        1182 => 1082,
        1115 => 1114,
        1185 => 1184,
        // name, text, bpchar, varchar, uuid, inet
        1003 | 1009 | 1014 | 1015 | 2951 | 1041 => 25,
        _ => return None,
    })
}

/// `{1,NULL,"a \"b\"",{…}}`; none of it for the rare arrays with explicit bounds.
fn array(element: u32, text: &str) -> Option<Value> {
    let mut chars = text.chars().peekable();
    let value = array_body(element, &mut chars)?;
    chars.next().is_none().then_some(value)
}

fn array_body(element: u32, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Value> {
    if chars.next() != Some('{') {
        return None;
    }
    let mut items = Vec::new();
    if chars.next_if_eq(&'}').is_some() {
        return Some(Value::Array(items));
    }
    loop {
        items.push(match chars.peek()? {
            '{' => array_body(element, chars)?,
            '"' => {
                chars.next();
                scalar(element, &quoted_item(chars)?)
            }
            _ => {
                let mut item = String::new();
                while let Some(c) = chars.next_if(|c| !matches!(c, ',' | '}')) {
                    item.push(c);
                }
                if item == "NULL" {
                    Value::Null
                } else {
                    scalar(element, &item)
                }
            }
        });
        match chars.next()? {
            ',' => {}
            '}' => return Some(Value::Array(items)),
            _ => return None,
        }
    }
}

fn quoted_item(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut item = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(item),
            '\\' => item.push(chars.next()?),
            c => item.push(c),
        }
    }
}

/// A parameter as an untyped literal, for `EXECUTE`: Postgres gives it the parameter's type.
/// Sound because the session has `standard_conforming_strings`: inside single quotes only the
/// quote itself means something. None for a text with NUL, which Postgres cannot hold.
pub(crate) fn to_literal(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return Some("NULL".to_owned()),
        Value::Array(items) => array_text(items),
        other => plain_text(other),
    };
    (!text.contains('\0')).then(|| format!("'{}'", text.replace('\'', "''")))
}

fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn array_text(items: &[Value]) -> String {
    let items: Vec<String> = items
        .iter()
        .map(|item| match item {
            Value::Null => "NULL".to_owned(),
            Value::Array(inner) => array_text(inner),
            other => {
                let text = plain_text(other).replace('\\', "\\\\").replace('"', "\\\"");
                format!("\"{text}\"")
            }
        })
        .collect();
    format!("{{{}}}", items.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_iso_in_utc() {
        assert_eq!(
            from_text(1184, "2026-03-01 10:00:00.5+00"),
            json!("2026-03-01T10:00:00.500Z")
        );
        assert_eq!(
            from_text(1114, "2026-03-01 10:00:00"),
            json!("2026-03-01T10:00:00.000Z")
        );
        assert_eq!(
            from_text(1082, "2026-03-01"),
            json!("2026-03-01T00:00:00.000Z")
        );
        assert_eq!(from_text(1184, "infinity"), json!("infinity"));
    }

    #[test]
    fn wide_numbers_stay_strings() {
        assert_eq!(from_text(20, "9007199254740993"), json!("9007199254740993"));
        assert_eq!(from_text(1700, "1.50"), json!("1.50"));
        assert_eq!(from_text(23, "7"), json!(7));
        assert_eq!(from_text(701, "NaN"), Value::Null);
    }

    #[test]
    fn arrays_are_arrays() {
        assert_eq!(from_text(1007, "{1,NULL,3}"), json!([1, null, 3]));
        assert_eq!(
            from_text(1009, r#"{"a,\"b\"",c,"NULL",{}}"#),
            json!(["a,\"b\"", "c", "NULL", []])
        );
        assert_eq!(from_text(1007, "{{1,2},{3,4}}"), json!([[1, 2], [3, 4]]));
        assert_eq!(from_text(1007, "[0:1]={1,2}"), json!("[0:1]={1,2}"));
    }

    #[test]
    fn parameters_cannot_leave_their_quotes() {
        assert_eq!(
            to_literal(&json!("a'); DROP--\\")).unwrap(),
            "'a''); DROP--\\'"
        );
        assert_eq!(
            to_literal(&json!([1, "x\"'y", null])).unwrap(),
            r#"'{"1","x\"''y",NULL}'"#
        );
        assert_eq!(to_literal(&json!({"a": 1})).unwrap(), r#"'{"a":1}'"#);
        assert_eq!(to_literal(&json!(null)).unwrap(), "NULL");
        assert_eq!(to_literal(&json!("\0")), None);
    }
}
