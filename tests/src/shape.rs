//! What a JSON answer has to look like, field by field. A contract's table is written down as one constant, and what does
//! not fit is told with its path: `projects[0].created_at: "yesterday" is no moment in UTC`.

use chrono::{DateTime, NaiveDate};
use serde_json::Value;
use uuid::Uuid;

use crate::Answer;

#[derive(Debug)]
pub enum Shape {
    /// A string that says something.
    Text,
    /// A UUID in lower case: goes into paths as it is.
    Id,
    /// RFC 3339 in UTC with `Z`.
    Moment,
    /// `YYYY-MM-DD`, nothing before it.
    Date,
    Whole,
    Number,
    Flag,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Lower-case letters and digits: the first label of a host.
    Label,
    /// A version without `v` in front.
    Version,
    /// An address that can be opened.
    Url,
    OrNull(&'static Shape),
    List(&'static Shape),
    /// Names are not known beforehand; each value has this shape.
    Map(&'static Shape),
    /// Fields by name; one whose name ends in `?` may be left out. There may be others.
    Object(&'static [(&'static str, Shape)]),
}

impl Shape {
    /// # Errors
    /// The first thing that does not fit, and where.
    pub fn check(&self, at: &str, value: &Value) -> Result<(), String> {
        let fits = match self {
            Self::OrNull(_) if value.is_null() => return Ok(()),
            Self::OrNull(inner) => return inner.check(at, value),
            Self::List(inner) => {
                let items = value.as_array().ok_or_else(|| wrong(at, value, "list"))?;
                let mut places = items.iter().enumerate();
                return places.try_for_each(|(n, item)| inner.check(&format!("{at}[{n}]"), item));
            }
            Self::Map(inner) => {
                let all = value.as_object();
                let all = all.ok_or_else(|| wrong(at, value, "object"))?;
                return all
                    .iter()
                    .try_for_each(|(name, value)| inner.check(&below(at, name), value));
            }
            Self::Object(fields) => return check_fields(fields, at, value),
            Self::Whole => value.is_i64() || value.is_u64(),
            Self::Number => value.is_number(),
            Self::Flag => value.is_boolean(),
            _ => value.as_str().is_some_and(|text| self.fits_text(text)),
        };
        if fits {
            Ok(())
        } else {
            Err(wrong(at, value, &format!("{self:?}")))
        }
    }

    fn fits_text(&self, text: &str) -> bool {
        match self {
            Self::Text => !text.trim().is_empty(),
            Self::Id => Uuid::parse_str(text).is_ok_and(|id| id.to_string() == text),
            Self::Moment => text.ends_with('Z') && DateTime::parse_from_rfc3339(text).is_ok(),
            Self::Date => text
                .get(..10)
                .is_some_and(|day| NaiveDate::parse_from_str(day, "%Y-%m-%d").is_ok()),
            Self::OneOf(words) => words.contains(&text),
            Self::Label => {
                let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
                !text.is_empty() && text.bytes().all(is_plain)
            }
            Self::Version => text.bytes().next().is_some_and(|b| b.is_ascii_digit()),
            Self::Url => reqwest::Url::parse(text)
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()),
            _ => false,
        }
    }

    /// # Panics
    /// When the value does not fit.
    #[track_caller]
    pub fn assert(&self, value: &Value) {
        if let Err(why) = self.check("", value) {
            panic!("{why}\nin {value:#}");
        }
    }
}

fn check_fields(fields: &[(&str, Shape)], at: &str, value: &Value) -> Result<(), String> {
    let object = value
        .as_object()
        .ok_or_else(|| wrong(at, value, "object"))?;
    for (name, shape) in fields {
        let (name, may_be_left_out) = match name.strip_suffix('?') {
            Some(name) => (name, true),
            None => (*name, false),
        };
        match object.get(name) {
            Some(value) => shape.check(&below(at, name), value)?,
            None if may_be_left_out => {}
            None => return Err(format!("{} is missing", below(at, name))),
        }
    }
    Ok(())
}

fn below(at: &str, name: &str) -> String {
    if at.is_empty() {
        name.to_owned()
    } else {
        format!("{at}.{name}")
    }
}

fn wrong(at: &str, value: &Value, wanted: &str) -> String {
    format!("{at}: {value} is no {wanted}")
}

impl Answer {
    /// The body of an answer with this status, which has this shape.
    ///
    /// # Panics
    /// When it is another status or shape; shows the body.
    #[track_caller]
    pub fn shaped(self, status: u16, shape: &Shape) -> Value {
        let body = self.expect(status);
        shape.assert(&body);
        body
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Shape::{
        Date, Flag, Id, List, Map, Moment, Number, Object, OneOf, OrNull, Text, Whole,
    };
    use super::*;

    const THING: Shape = Object(&[
        ("id", Id),
        ("at", Moment),
        ("name", OrNull(&Text)),
        ("note?", Text),
        ("kinds", List(&OneOf(&["a", "b"]))),
        ("sizes", Map(&Number)),
    ]);

    fn thing() -> Value {
        json!({
            "id": "019a2f5e-1c7b-7d10-9a43-6f0c8d2b7e11", "at": "2026-08-20T07:31:12Z", "name": null,
            "kinds": ["a"], "sizes": {"x": 1.5}, "more": true,
        })
    }

    #[test]
    fn what_fits_fits() {
        THING.assert(&thing());
        Date.assert(&json!("2026-08-20T07:31:12Z"));
        Whole.assert(&json!(0));
        Flag.assert(&json!(false));
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_path() {
        for (path, value, says) in [
            ("/id", json!("019A2F5E-1C7B-7D10-9A43-6F0C8D2B7E11"), "id: "),
            ("/at", json!("2026-08-20T07:31:12+00:00"), "at: "),
            ("/at", json!("2026-08-20 07:31:12Z "), "at: "),
            ("/name", json!(""), "name: "),
            ("/kinds", json!({}), "kinds: "),
            ("/kinds/0", json!("c"), "kinds[0]: "),
            ("/sizes/x", json!("1"), "sizes.x: "),
            ("/sizes/x", json!(null), "sizes.x: "),
        ] {
            let mut wrong = thing();
            *wrong.pointer_mut(path).unwrap() = value;
            let why = THING.check("", &wrong).unwrap_err();
            assert!(why.starts_with(says), "{why}");
        }
        let mut wrong = thing();
        wrong.as_object_mut().unwrap().remove("name");
        assert_eq!(THING.check("", &wrong), Err("name is missing".to_owned()));
        let mut wrong = thing();
        wrong["note"] = Value::Null;
        assert!(THING.check("", &wrong).is_err(), "left out is not null");
        let list = json!([thing(), 7]);
        let why = List(&THING).check("things", &list).unwrap_err();
        assert!(why.starts_with("things[1]: 7"), "{why}");
    }
}
