//! Splits SQL into statements without understanding it: strings, quoted names, dollar quotes,
//! comments and `BEGIN ATOMIC` bodies are the only things that can hide a semicolon.
//!
//! Also says which statements the API refuses (project-backend 5.7). That check keeps a caller
//! from ending our transaction or changing role by accident. It is no security border, and need
//! not be one: whoever may send restricted SQL may send unrestricted SQL, which runs as the
//! superuser, with the same credentials.

/// One statement, trimmed, without comments and without its final semicolon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    pub text: String,
    /// Its words outside of strings, in upper case; quoted names count as words.
    words: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unterminated {0}")]
pub(crate) struct Unterminated(&'static str);

impl Statement {
    /// The first word, e.g. `SELECT`; empty for a statement that starts with a parenthesis only.
    pub fn verb(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Why the API refuses this statement.
    pub fn refusal(&self) -> Option<&'static str> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            [
                "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT"
                | "RELEASE",
                ..,
            ]
            | ["PREPARE", "TRANSACTION", ..] => Some("Transaction control is not allowed"),
            ["SET", rest @ ..] if is_guarded_setting(rest) => {
                Some("Changing the role, search_path or statement_timeout is not allowed")
            }
            ["RESET", rest @ ..] if rest == ["ALL"] || is_guarded_setting(rest) => {
                Some("Changing the role, search_path or statement_timeout is not allowed")
            }
            ["DISCARD", ..] => Some("DISCARD is not allowed"),
            ["CREATE" | "ALTER" | "DROP", "USER", "MAPPING", ..] => None,
            ["CREATE" | "ALTER" | "DROP", "ROLE" | "USER" | "GROUP", ..] => {
                Some("Role management is not allowed")
            }
            ["CREATE" | "ALTER" | "DROP", "DATABASE" | "TABLESPACE", ..]
            | ["ALTER", "SYSTEM", ..] => Some("Database management is not allowed"),
            _ if words.contains(&"SET_CONFIG") => Some("set_config is not allowed"),
            _ => None,
        }
    }
}

fn is_guarded_setting(words: &[&str]) -> bool {
    match words {
        ["SESSION", "AUTHORIZATION", ..] => true,
        ["LOCAL" | "SESSION", rest @ ..] => is_guarded_setting(rest),
        [name, ..] => matches!(*name, "ROLE" | "SEARCH_PATH" | "STATEMENT_TIMEOUT"),
        [] => false,
    }
}

pub(crate) fn split(sql: &str) -> Result<Vec<Statement>, Unterminated> {
    let mut splitter = Splitter {
        rest: sql,
        statements: Vec::new(),
        text: String::new(),
        words: Vec::new(),
        atomic_depth: 0,
    };
    while splitter.step()? {}
    splitter.finish_statement();
    Ok(splitter.statements)
}

struct Splitter<'a> {
    rest: &'a str,
    statements: Vec<Statement>,
    text: String,
    words: Vec<String>,
    /// Open `BEGIN ATOMIC` and `CASE` blocks: semicolons inside belong to the body.
    atomic_depth: usize,
}

impl Splitter<'_> {
    fn step(&mut self) -> Result<bool, Unterminated> {
        let Some(first) = self.rest.chars().next() else {
            return Ok(false);
        };
        match first {
            '-' if self.rest.starts_with("--") => {
                let end = self.rest.find('\n').unwrap_or(self.rest.len());
                self.skip(end);
            }
            '/' if self.rest.starts_with("/*") => {
                let end = block_comment(self.rest).ok_or(Unterminated("comment"))?;
                self.skip(end);
                // A comment separates words as a space does.
                self.text.push(' ');
            }
            '\'' => {
                let end = quoted(self.rest, '\'', false).ok_or(Unterminated("string"))?;
                self.take(end);
            }
            '"' => {
                let end = quoted(self.rest, '"', false).ok_or(Unterminated("quoted name"))?;
                let name = self.rest[1..end - 1].replace("\"\"", "\"");
                self.words.push(name.to_uppercase());
                self.take(end);
            }
            '$' => {
                if let Some(opening) = dollar_tag(self.rest) {
                    let body = &self.rest[opening.len()..];
                    let length = body
                        .find(opening)
                        .ok_or(Unterminated("dollar-quoted string"))?;
                    self.take(opening.len() * 2 + length);
                } else {
                    self.take(1);
                }
            }
            ';' if self.atomic_depth == 0 => {
                self.skip(1);
                self.finish_statement();
            }
            c if is_word_start(c) => return self.word().map(|()| true),
            c => self.take(c.len_utf8()),
        }
        Ok(true)
    }

    fn word(&mut self) -> Result<(), Unterminated> {
        let end = self
            .rest
            .find(|c: char| !is_word_part(c))
            .unwrap_or(self.rest.len());
        let word = self.rest[..end].to_uppercase();
        if word == "E" && self.rest[end..].starts_with('\'') {
            let length = quoted(&self.rest[end..], '\'', true).ok_or(Unterminated("string"))?;
            self.take(end + length);
            return Ok(());
        }
        let after_begin = self.words.last().is_some_and(|last| last == "BEGIN");
        match word.as_str() {
            "ATOMIC" if after_begin => self.atomic_depth += 1,
            "CASE" if self.atomic_depth > 0 => self.atomic_depth += 1,
            "END" => self.atomic_depth = self.atomic_depth.saturating_sub(1),
            _ => {}
        }
        self.words.push(word);
        self.take(end);
        Ok(())
    }

    fn take(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        self.text.push_str(taken);
        self.rest = rest;
    }

    fn skip(&mut self, length: usize) {
        self.rest = &self.rest[length..];
    }

    fn finish_statement(&mut self) {
        let text = std::mem::take(&mut self.text);
        let words = std::mem::take(&mut self.words);
        self.atomic_depth = 0;
        if !text.trim().is_empty() {
            self.statements.push(Statement {
                text: text.trim().to_owned(),
                words,
            });
        }
    }
}

fn is_word_start(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `$` may stand inside a name, where it opens no dollar quote.
fn is_word_part(c: char) -> bool {
    is_word_start(c) || c == '$'
}

/// The length of a quoted token that starts `text`; a doubled quote stays inside.
fn quoted(text: &str, quote: char, backslash_escapes: bool) -> Option<usize> {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((index, c)) = chars.next() {
        if c == '\\' && backslash_escapes {
            chars.next();
        } else if c == quote {
            if chars.peek().is_some_and(|(_, next)| *next == quote) {
                chars.next();
            } else {
                return Some(index + quote.len_utf8());
            }
        }
    }
    None
}

/// Comments nest in Postgres.
fn block_comment(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut index = 0;
    while index < text.len() {
        let rest = &text[index..];
        if rest.starts_with("/*") {
            depth += 1;
            index += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            index += 2;
            if depth == 0 {
                return Some(index);
            }
        } else {
            index += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    None
}

/// `$tag$` at the start of `text`; `$1` is a parameter, not a tag.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text[1..].find('$')? + 1;
    let tag = &text[1..end];
    let is_tag = !tag.starts_with(|c: char| c.is_numeric()) && tag.chars().all(is_word_start);
    is_tag.then(|| &text[..=end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(sql: &str) -> Vec<String> {
        split(sql)
            .unwrap()
            .into_iter()
            .map(|statement| statement.text)
            .collect()
    }

    #[test]
    fn semicolons_split_only_where_they_end_a_statement() {
        assert_eq!(
            texts("SELECT ';' ; SELECT \"a;b\";; SELECT $x$ ; $$ $x$; SELECT E'\\';' ;"),
            [
                "SELECT ';'",
                "SELECT \"a;b\"",
                "SELECT $x$ ; $$ $x$",
                "SELECT E'\\';'"
            ]
        );
        assert_eq!(
            texts(
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END; SELECT 2"
            ),
            [
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END",
                "SELECT 2"
            ]
        );
        assert_eq!(texts("SELECT $1 ; SELECT a$b$c").len(), 2);
    }

    #[test]
    fn comments_go_except_inside_strings_and_bodies() {
        assert_eq!(
            texts(
                "-- first\nSELECT 1/* a /* nested */ ; */+1; SELECT '-- kept', $$ -- kept $$ -- gone"
            ),
            ["SELECT 1 +1", "SELECT '-- kept', $$ -- kept $$"]
        );
        assert!(texts(" ; -- nothing\n /* here */ ;").is_empty());
    }

    #[test]
    fn what_does_not_end_is_an_error() {
        for sql in ["SELECT 'a", "SELECT \"a", "SELECT $$a", "/* a"] {
            assert!(split(sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn transaction_control_and_role_changes_are_refused() {
        let refused = |sql: &str| split(sql).unwrap()[0].refusal().is_some();
        for sql in [
            "begin",
            "COMMIT",
            "rollback to x",
            "/**/ SET /**/ LOCAL role postgres",
            "set session authorization default",
            "set \"role\" to postgres",
            "RESET ROLE",
            "reset all",
            "SET search_path = x",
            "select set_config('role', 'postgres', true)",
            "create role x",
            "drop database insforge",
            "alter system set x = 1",
        ] {
            assert!(refused(sql), "{sql}");
        }
        for sql in [
            "select 'set_config'",
            "SET work_mem = '1MB'",
            "create table role (id int)",
            "ALTER FUNCTION f() SET search_path = public",
            "CREATE USER MAPPING FOR x SERVER y",
            "SELECT 1 AS begin",
        ] {
            assert!(!refused(sql), "{sql}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_split_or_refused_without_panic(sql in r#"[a-z;'"$/*\-\\ \néE1]{0,40}"#) {
            if let Ok(statements) = split(&sql) {
                prop_assert!(statements.iter().all(|s| !s.text.trim().is_empty()));
            }
        }
    }
}
