//! Names and literals as Postgres itself writes them (`quote_ident`, `quote_literal`), and the few pieces of
//! reading that texts of the catalog need.

use std::borrow::Cow;

use crate::catalog::FactId;

/// All keywords of Postgres 15 but the unreserved ones (`pg_get_keywords()` where `catcode <> 'U'`), sorted.
/// `quote_ident` quotes these, so that a name never reads as grammar.
#[rustfmt::skip]
const KEYWORDS: &[&str] = &[
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization", "between",
    "bigint", "binary", "bit", "boolean", "both", "case", "cast", "char", "character", "check", "coalesce",
    "collate", "collation", "column", "concurrently", "constraint", "create", "cross", "current_catalog",
    "current_date", "current_role", "current_schema", "current_time", "current_timestamp", "current_user", "dec",
    "decimal", "default", "deferrable", "desc", "distinct", "do", "else", "end", "except", "exists", "extract",
    "false", "fetch", "float", "for", "foreign", "freeze", "from", "full", "grant", "greatest", "group", "grouping",
    "having", "ilike", "in", "initially", "inner", "inout", "int", "integer", "intersect", "interval", "into", "is",
    "isnull", "join", "json_array", "json_arrayagg", "json_exists", "json_object", "json_objectagg", "json_query",
    "json_scalar", "json_serialize", "json_table", "json_value", "lateral", "leading", "least", "left", "like",
    "limit", "localtime", "localtimestamp", "merge_action", "national", "natural", "nchar", "none", "normalize",
    "not", "notnull", "null", "nullif", "numeric", "offset", "on", "only", "or", "order", "out", "outer",
    "overlaps", "overlay", "placing", "position", "precision", "primary", "real", "references", "returning",
    "right", "row", "select", "session_user", "setof", "similar", "smallint", "some", "substring", "symmetric",
    "system_user", "table", "tablesample", "then", "time", "timestamp", "to", "trailing", "treat", "trim", "true",
    "union", "unique", "user", "using", "values", "varchar", "variadic", "verbose", "when", "where", "window",
    "with", "xmlattributes", "xmlconcat", "xmlelement", "xmlexists", "xmlforest", "xmlnamespaces", "xmlparse",
    "xmlpi", "xmlroot", "xmlserialize", "xmltable",
];

/// An identifier, quoted only where it must be.
pub fn ident(name: &str) -> Cow<'_, str> {
    ident_of(name, |name| KEYWORDS.binary_search(&name).is_ok())
}

/// The same, for a server whose keywords are known.
pub fn ident_of(name: &str, is_keyword: impl FnOnce(&str) -> bool) -> Cow<'_, str> {
    let mut bytes = name.bytes();
    let plain = bytes
        .next()
        .is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !is_keyword(name);
    if plain {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(format!("\"{}\"", name.replace('"', "\"\"")))
    }
}

/// `schema.name`, or the name alone where there is no schema.
pub fn qualified(schema: &str, name: &str) -> String {
    if schema.is_empty() {
        ident(name).into_owned()
    } else {
        format!("{}.{}", ident(schema), ident(name))
    }
}

/// A string literal. With backslashes it becomes an `E''` one, whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if text.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// A role in GRANT, REVOKE and policies.
pub fn role(name: &str) -> Cow<'_, str> {
    match name {
        // Everyone, and the role that is called so.
        "PUBLIC" | "\"PUBLIC\"" => Cow::Borrowed(name),
        _ => ident(name),
    }
}

/// Name and input types of a function's [`FactId`]: `f(integer, public.mood)` is `("f", "integer, public.mood")`.
///
/// The name is raw and may hold anything, brackets and quotes too; the types are quoted, and none nests brackets. So it
/// is split from the right, at the last bracket that no quotes enclose: what is printed raw is Postgres's own text.
pub fn split_routine(object: &str) -> (&str, &str) {
    let mut quoted = false;
    for (at, c) in object.char_indices().rev() {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => {
                let arguments = &object[at + 1..];
                return (
                    &object[..at],
                    arguments.strip_suffix(')').unwrap_or(arguments),
                );
            }
            _ => {}
        }
    }
    (object, "")
}

/// `schema.f(integer, public.mood)`, the way ALTER, DROP, GRANT and COMMENT want it.
pub fn routine(id: &FactId) -> String {
    let (name, arguments) = split_routine(&id.object);
    format!("{}({arguments})", qualified(&id.schema, name))
}

/// `schema.object` of a fact that is not a routine; for a part, that of what holds it.
pub fn object(id: &FactId) -> String {
    qualified(&id.schema, &id.object)
}

/// `name=value` of `reloptions`, as WITH and SET want it: values quoted where they are more than a word or number.
pub fn option(option: &str) -> String {
    let Some((name, value)) = option.split_once('=') else {
        return option.to_owned();
    };
    let plain = !value.is_empty()
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'))
        && KEYWORDS
            .binary_search(&value)
            .map_or(true, |_| matches!(value, "true" | "false"));
    let plain = plain
        && !(value.starts_with(|c: char| c.is_ascii_digit()) && value.parse::<f64>().is_err());
    if plain {
        format!("{name}={value}")
    } else {
        format!("{name}={}", literal(value))
    }
}

/// All options of a list, as they stand between the parentheses of WITH or SET.
pub fn options(list: &[String]) -> String {
    list.iter()
        .map(|o| option(o))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The characters outside of quoted names and string literals.
fn bare(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quote = None;
    text.char_indices().filter(move |&(_, c)| {
        if quote.is_some() {
            if quote == Some(c) {
                quote = None;
            }
            return false;
        }
        if matches!(c, '\'' | '"') {
            quote = Some(c);
        }
        quote.is_none()
    })
}

/// The characters outside of parentheses and brackets, too.
fn top(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut depth = 0_i32;
    bare(text).filter(move |&(_, c)| {
        let outside = depth == 0;
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ => {}
        }
        outside && depth == 0
    })
}

/// Splits at `separator` where it stands outside of parentheses, brackets, quotes and string literals; pieces are trimmed.
pub fn split_top(text: &str, separator: char) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for (at, c) in top(text) {
        if c == separator {
            pieces.push(text[start..at].trim());
            start = at + c.len_utf8();
        }
    }
    let last = text[start..].trim();
    if !(last.is_empty() && pieces.is_empty()) {
        pieces.push(last);
    }
    pieces
}

/// What stands in the parentheses that open at the first `(` of the text, and what follows them.
pub fn parenthesized(text: &str) -> Option<(&str, &str)> {
    let (open, _) = bare(text).find(|&(_, c)| c == '(')?;
    let mut depth = 0_i32;
    for (at, c) in bare(&text[open..]) {
        depth += i32::from(c == '(') - i32::from(c == ')');
        if depth == 0 && c == ')' {
            let end = open + at;
            return Some((&text[open + 1..end], text[end + 1..].trim_start()));
        }
    }
    None
}

/// The first position of `word` outside of parentheses, quotes and string literals.
pub fn find_top(text: &str, word: &str) -> Option<usize> {
    top(text)
        .map(|(at, _)| at)
        .find(|&at| text[at..].starts_with(word))
}

/// The identifier (quoted or not) at the beginning, unquoted, and what follows it.
pub fn leading_ident(text: &str) -> Option<(String, &str)> {
    if let Some(rest) = text.strip_prefix('"') {
        let mut name = String::new();
        let mut chars = rest.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if c != '"' {
                name.push(c);
            } else if chars.peek().is_some_and(|(_, next)| *next == '"') {
                name.push('"');
                chars.next();
            } else {
                return Some((name, &rest[at + 1..]));
            }
        }
        return None;
    }
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
        .unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_owned(), &text[end..]))
}

/// Replaces whole identifiers (never parts of them, nor what stands in string literals) by `replace`'s answer, which
/// is asked with the name and the one before it and a dot.
pub fn replace_idents(
    text: &str,
    mut replace: impl FnMut(&str, Option<&str>) -> Option<String>,
) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before: Option<String> = None;
    let mut qualifies = false;
    while let Some(c) = rest.chars().next() {
        if c == '\'' {
            let end = string_end(rest);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            qualifies = false;
        } else if c == '"' || c == '_' || c.is_alphabetic() {
            let Some((name, after)) = leading_ident(rest) else {
                out.push_str(rest);
                return out;
            };
            let token = &rest[..rest.len() - after.len()];
            match replace(&name, before.as_deref().filter(|_| qualifies)) {
                Some(new) => out.push_str(&new),
                None => out.push_str(token),
            }
            rest = after;
            before = Some(name);
            qualifies = false;
        } else if c.is_ascii_digit() {
            // A number may end in letters (`1e5`): no identifier.
            let end = rest
                .find(|c: char| !(c.is_alphanumeric() || c == '.'))
                .unwrap_or(rest.len());
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            qualifies = false;
        } else {
            qualifies = c == '.' && before.is_some();
            if !qualifies {
                before = None;
            }
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// Where the string literal at the beginning ends.
fn string_end(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\'' {
            if chars.peek().is_some_and(|(_, next)| *next == '\'') {
                chars.next();
            } else {
                return at + 1;
            }
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_only_where_postgres_would() {
        for plain in ["users", "_x9", "status", "name", "language"] {
            assert_eq!(ident(plain), plain);
        }
        assert_eq!(ident("user"), "\"user\"");
        assert_eq!(ident("Users"), "\"Users\"");
        assert_eq!(ident("9x"), "\"9x\"");
        assert_eq!(ident("a b\"c"), "\"a b\"\"c\"");
        assert_eq!(ident("größe"), "\"größe\"");
        assert!(KEYWORDS.is_sorted());
    }

    #[test]
    fn a_role_called_public_is_not_everyone() {
        assert_eq!(role("PUBLIC"), "PUBLIC");
        assert_eq!(role("\"PUBLIC\""), "\"PUBLIC\"");
        assert_eq!(role("Anon"), "\"Anon\"");
    }

    #[test]
    fn literals_survive_quotes_and_backslashes() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\b'c"), "E'a\\\\b''c'");
    }

    #[test]
    fn texts_are_split_outside_of_parentheses_and_quotes() {
        assert_eq!(
            split_top("a, f(b, c), 'x,y', \"p,q\"", ','),
            ["a", "f(b, c)", "'x,y'", "\"p,q\""]
        );
        assert!(split_top("", ',').is_empty());
        assert_eq!(
            parenthesized("CHECK ((a > ')')) NOT VALID"),
            Some(("(a > ')')", "NOT VALID"))
        );
        assert_eq!(
            replace_idents("lower(mail) || 'mail' || mailer", |n, _| (n == "mail")
                .then(|| "email".to_owned())),
            "lower(email) || 'mail' || mailer"
        );
    }
}
