//! The diff as people read it: what stands in the way first, then what changes, then the whole SQL.

use std::time::{Duration, Instant};

use maud::{Markup, html};
use serde::Deserialize;

use super::lines::{is_long, side_by_side};

/// How long all comparisons of a page may take together.
const PATIENCE: Duration = Duration::from_millis(500);

/// What workers keep of a comparison, as far as it is shown (see `wire::branch::DiffResult`).
#[derive(Deserialize)]
pub struct Diff {
    rendered_sql: String,
    changes: Vec<Item>,
    conflicts: Vec<Item>,
    needs_migration: Vec<Item>,
    renames: Vec<Rename>,
    warnings: Vec<Warning>,
}

#[derive(Deserialize)]
struct Item {
    schema: String,
    object: String,
    #[serde(rename = "type")]
    kind: String,
    /// Of changes.
    action: Option<String>,
    /// Of what stands in the way.
    hint: Option<String>,
    #[serde(default)]
    definitions: Definitions,
}

#[derive(Default, Deserialize)]
struct Definitions {
    base: Option<String>,
    parent: Option<String>,
    branch: Option<String>,
}

#[derive(Deserialize)]
struct Rename {
    #[serde(rename = "type")]
    kind: String,
    schema: String,
    from: String,
    to: String,
}

#[derive(Deserialize)]
struct Warning {
    schema: String,
    object: String,
    #[serde(rename = "type")]
    kind: String,
    text: String,
}

impl Diff {
    pub fn render(&self, branch: &str) -> Markup {
        let blocked = self.conflicts.len() + self.needs_migration.len();
        let until = Instant::now() + PATIENCE;
        html! {
            h1 { "What merging " (branch) " would do" }
            p { (self.outcome(blocked)) }
            @if !self.conflicts.is_empty() {
                section.diff aria-labelledby="conflicts" {
                    h2 #conflicts { "Conflicts" }
                    p.fine {
                        "Both sides changed the same thing. Change one of them, or merge with a resolution for each: "
                        code { r#"{"resolutions":{"NAME":"branch"}}"# } " takes the branch’s version, "
                        code { r#""parent""# } " keeps the parent’s."
                    }
                    @for item in &self.conflicts { (item.conflict(until)) }
                }
            }
            @if !self.needs_migration.is_empty() {
                section.diff aria-labelledby="needs-migration" {
                    h2 #needs-migration { "Needs a migration" }
                    p.fine { "The parent’s rows are in the way. Write a migration on the branch that settles them; it runs first." }
                    @for item in &self.needs_migration { (item.change(until)) }
                }
            }
            @if !self.warnings.is_empty() {
                section aria-labelledby="warnings" {
                    h2 #warnings { "Know before you merge" }
                    ul {
                        @for warning in &self.warnings {
                            li {
                                code { (full_name(&warning.schema, &warning.object)) }
                                " (" (kind(&warning.kind)) "): " (warning.text)
                            }
                        }
                    }
                }
            }
            @if !self.changes.is_empty() {
                section.diff aria-labelledby="changes" {
                    h2 #changes { "Changes" }
                    @for rename in &self.renames {
                        p {
                            span.tag { "renamed" } " " (kind(&rename.kind)) " "
                            code { (full_name(&rename.schema, &rename.from)) } " to " code { (rename.to) }
                        }
                    }
                    @for item in &self.changes { (item.change(until)) }
                }
            }
            @if !self.rendered_sql.trim().is_empty() {
                section aria-labelledby="sql" {
                    h2 #sql { "The whole as SQL" }
                    details {
                        summary { "Show the statements in their order" }
                        pre.scroll tabindex="0" { code { (self.rendered_sql) } }
                    }
                }
            }
        }
    }

    fn outcome(&self, blocked: usize) -> String {
        let changes = count(self.changes.len(), "change", "changes");
        match (blocked, self.changes.len()) {
            (0, 0) => "Nothing: the parent has all of the branch’s changes already.".into(),
            (0, _) => {
                format!("{changes}, and nothing stands in the way. Rows of tables never merge.")
            }
            (blocked, 0) => format!(
                "Nothing can be merged yet: {} to settle first.",
                count(blocked, "thing", "things")
            ),
            (blocked, _) => format!(
                "{changes}, but nothing is merged yet: {} to settle first.",
                count(blocked, "thing", "things")
            ),
        }
    }
}

impl Item {
    fn heading(&self) -> Markup {
        html! {
            h3 {
                @if let Some(action) = &self.action {
                    span.tag { (action_word(action)) } " "
                }
                (kind(&self.kind)) " " code { (full_name(&self.schema, &self.object)) }
            }
            @if let Some(hint) = &self.hint { p { (hint) } }
        }
    }

    /// The base against each side.
    fn conflict(&self, until: Instant) -> Markup {
        let Definitions {
            base,
            parent,
            branch,
        } = &self.definitions;
        html! {
            article {
                (self.heading())
                @if base.is_some() {
                    (table(("When the branch was made", base), ("Parent now", parent), until))
                    (table(("When the branch was made", base), ("Branch now", branch), until))
                } @else {
                    (table(("Parent now", parent), ("Branch now", branch), until))
                }
            }
        }
    }

    fn change(&self, until: Instant) -> Markup {
        let Definitions { parent, branch, .. } = &self.definitions;
        html! {
            article {
                (self.heading())
                (table(("Parent now", parent), ("Branch now", branch), until))
            }
        }
    }
}

type Side<'a> = (&'a str, &'a Option<String>);

/// Nothing where neither side has anything to show.
fn table((left_name, left): Side<'_>, (right_name, right): Side<'_>, until: Instant) -> Markup {
    let text = |side: &'_ Option<String>| side.clone().unwrap_or_default();
    let (left_text, right_text) = (text(left), text(right));
    let rows = side_by_side(&left_text, &right_text, until);
    let line = |text: Option<&str>, is_same: bool, mark: &'static str, said: &'static str| {
        html! {
            td.same[is_same].gone[!is_same && text.is_some() && mark == "−"].new[!is_same && text.is_some() && mark == "+"] {
                @if let Some(text) = text {
                    @if !is_same {
                        span.mark-of-change aria-hidden="true" { (mark) } span.hidden { (said) ": " }
                    }
                    code { (text) }
                }
            }
        }
    };
    html! {
        @if is_long(&left_text) || is_long(&right_text) {
            p.fine { "Only the beginning is shown; the JSON of the same address has all of it." }
        }
        @if !rows.is_empty() {
            div.scroll.sides role="region" aria-label=(format!("{left_name}, {right_name}")) tabindex="0" {
                table {
                    thead {
                        tr {
                            th scope="col" { (left_name) @if left.is_none() { " (not there)" } }
                            th scope="col" { (right_name) @if right.is_none() { " (not there)" } }
                        }
                    }
                    tbody {
                        @for row in &rows {
                            tr {
                                (line(row.left, row.is_same, "−", "only left"))
                                (line(row.right, row.is_same, "+", "only right"))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn full_name(schema: &str, object: &str) -> String {
    if schema.is_empty() {
        object.to_owned()
    } else {
        format!("{schema}.{object}")
    }
}

fn kind(kind: &str) -> String {
    kind.replace('_', " ")
}

fn action_word(action: &str) -> &str {
    match action {
        "add" => "added",
        "modify" => "changed",
        "drop" => "dropped",
        other => other,
    }
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(diff: serde_json::Value) -> String {
        let diff: Diff = serde_json::from_value(diff).unwrap();
        diff.render("feat").into_string()
    }

    fn diff(conflicts: &serde_json::Value, changes: &serde_json::Value) -> serde_json::Value {
        json!({
            "summary": { "added": 0, "modified": 0, "conflicts": 0 },
            "rendered_sql": "-- none\n",
            "changes": changes,
            "conflicts": conflicts,
            "needs_migration": [],
            "renames": [],
            "warnings": [],
        })
    }

    #[test]
    fn a_conflict_shows_the_base_against_each_side() {
        let page = render(diff(
            &json!([{ "schema": "public", "object": "users.name", "type": "column", "hint": "both changed its default",
                "definitions": { "base": "name text", "parent": "name text DEFAULT 'a'", "branch": "name text DEFAULT 'b'" } }]),
            &json!([]),
        ));
        assert!(page.contains("Nothing can be merged yet: 1 thing to settle first."));
        assert!(page.contains("both changed its default"));
        assert_eq!(
            page.matches("When the branch was made").count(),
            4,
            "{page}"
        );
        assert!(page.contains("name text DEFAULT 'a'") && page.contains("name text DEFAULT 'b'"));
    }

    #[test]
    fn what_people_wrote_is_text() {
        let page = render(diff(
            &json!([]),
            &json!([{ "schema": "public", "object": "<b>x</b>", "type": "function", "action": "add", "sql": "",
                "definitions": { "base": null, "parent": null, "branch": "<script>alert(1)</script>" } }]),
        ));
        assert!(
            !page.contains("<script>") && !page.contains("<b>"),
            "{page}"
        );
        assert!(page.contains("Parent now (not there)"));
        assert!(page.contains("1 change, and nothing stands in the way"));
    }

    #[test]
    fn nothing_to_merge_is_said() {
        let page = render(diff(&json!([]), &json!([])));
        assert!(page.contains("has all of the branch’s changes already"));
    }
}
