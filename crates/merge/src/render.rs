//! A plan as a migration file: what would run, in the order in which it would.

use std::fmt::Write as _;

use crate::{
    plan::MergePlan,
    script::Statement,
    session::{ROWS_SETTINGS, script_settings},
};

/// Sections `[MIGRATION]`, `[DDL]` and `[DATA]` between `BEGIN` and `COMMIT`. A plan that is not clean opens with a
/// banner; what it shows below is the rest, for reading only. With whose rights a statement runs ([`crate::apply`]) is not
/// part of it.
pub(crate) fn sql(plan: &MergePlan) -> String {
    let mut text = String::new();
    banner(&mut text, plan);
    for warning in &plan.warnings {
        let name = comment(&warning.name());
        let _ = writeln!(
            text,
            "-- warning: {} {name}: {}",
            warning.kind,
            comment(&warning.text)
        );
    }
    if !plan.script.pre_steps.is_empty() {
        text.push_str(
            "-- Committed first: a label cannot be used in the transaction that adds it.\n",
        );
        statements(&mut text, plan, &plan.script.pre_steps);
    }
    text.push_str("BEGIN;\n");
    for migration in &plan.migrations {
        let _ = writeln!(
            text,
            "-- [MIGRATION] {} {}",
            comment(&migration.version),
            comment(&migration.name)
        );
        text.push_str("SET LOCAL search_path = public;\nSET LOCAL ROLE project_admin;\n");
        for statement in &migration.statements {
            let _ = writeln!(text, "{statement}\n;");
        }
        text.push_str("SET CONSTRAINTS ALL IMMEDIATE;\nRESET ROLE;\n");
    }
    if !plan.script.statements.is_empty() {
        for setting in script_settings() {
            let _ = writeln!(text, "{setting};");
        }
        statements(&mut text, plan, &plan.script.statements);
    }
    if !plan.writes.is_empty() {
        for setting in ROWS_SETTINGS {
            let _ = writeln!(text, "SET LOCAL {} = {};", setting.0, setting.1);
        }
    }
    for (change, writes) in &plan.writes {
        if let Some(change) = plan.changes.get(*change) {
            let _ = writeln!(
                text,
                "-- [DATA] {} {} ({})",
                change.kind,
                comment(&change.name()),
                change.action.as_str()
            );
        }
        for write in writes {
            let _ = writeln!(text, "{}", write.shown());
        }
    }
    text.push_str("COMMIT;\n");
    text
}

fn banner(text: &mut String, plan: &MergePlan) {
    if plan.is_clean() {
        return;
    }
    let (conflicts, needs) = (plan.conflicts.len(), plan.needs_migration.len());
    let mut reasons = Vec::new();
    if conflicts > 0 {
        let objects = if conflicts == 1 { "object" } else { "objects" };
        reasons.push(format!("{conflicts} {objects} changed on both sides"));
    }
    if needs > 0 {
        let changes = if needs == 1 {
            "change needs"
        } else {
            "changes need"
        };
        reasons.push(format!("{needs} {changes} a migration"));
    }
    let _ = writeln!(text, "-- ⚠️ MERGE BLOCKED: {}", reasons.join(", "));
    for conflict in &plan.conflicts {
        let hint = comment(&conflict.hint);
        let _ = writeln!(
            text,
            "-- conflict: {} {}: {hint}",
            conflict.kind,
            comment(&conflict.name())
        );
    }
    for item in &plan.needs_migration {
        let hint = comment(&item.hint);
        let _ = writeln!(
            text,
            "-- needs a migration: {} {}: {hint}",
            item.kind,
            comment(&item.name())
        );
    }
}

/// One heading for statements of one change that follow each other.
fn statements(text: &mut String, plan: &MergePlan, statements: &[Statement]) {
    let mut heading = String::new();
    for statement in statements {
        let next = match plan.change_of(statement) {
            Some(change) => format!(
                "-- [DDL] {} {} ({})",
                change.kind,
                comment(&change.name()),
                change.action.as_str()
            ),
            None => match &statement.serves {
                Some(id) => format!("-- [DDL] {} {}", id.kind.as_str(), comment(&id.to_string())),
                None => "-- [DDL] put out of the way and made again".to_owned(),
            },
        };
        if next != heading {
            let _ = writeln!(text, "{next}");
            heading = next;
        }
        let _ = writeln!(text, "{};", statement.sql);
    }
}

/// Names and texts of people must not end the comment that they stand in, nor look to a splitter as if a statement ended.
fn comment(text: &str) -> String {
    one_line(text).replace(';', ",")
}

/// Without line breaks and other characters that do something instead of being seen.
pub(crate) fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_comment_stays_one_line_and_no_statement() {
        assert_eq!(super::comment("a\nDROP;\r\u{1b}b"), "a DROP,  b");
    }
}
