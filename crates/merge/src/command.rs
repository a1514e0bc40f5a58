//! What `insforge-cloud merge` does, behind its command line: parsed options in, text or JSON out.

use std::{
    fmt::Write as _,
    io::{self, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use serde_json::json;
use sqlx::{ConnectOptions, Connection, postgres::PgConnectOptions};

use crate::{
    Applied, ApplyOptions, Bases, Choice, MergePlan, Resolutions, Snapshot, apply,
    catalog::{Catalog, Payload, Place},
    plan, snapshot,
    three_way::Action,
};

/// `merge snapshot <address> --output FILE`
#[derive(Clone, Debug)]
pub struct SnapshotCommand {
    pub address: Address,
    pub output: PathBuf,
}

/// `merge diff` and `merge apply`
#[derive(Clone, Debug)]
pub struct MergeCommand {
    /// `--base`: of the parent, when the branch was made.
    pub base: PathBuf,
    /// `--branch-base`: of the branch, right after the copy. Without it `--base` serves for both.
    pub branch_base: Option<PathBuf>,
    pub parent: Address,
    pub branch: Address,
    /// `--resolve NAME=branch|parent`, any number of times.
    pub resolve: Vec<(String, Choice)>,
    /// `--online`, of `apply` ([`ApplyOptions::online`]).
    pub online: bool,
    pub json: bool,
    /// Only where the output is a terminal.
    pub colour: bool,
}

/// A database's URL. Holds a password, and is never printed.
#[derive(Clone)]
pub struct Address(PgConnectOptions);

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[address]")
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        // What the parser says about a URL may quote it.
        PgConnectOptions::from_str(url)
            .map(|options| Self(options.disable_statement_logging()))
            .map_err(|_| "not an address like postgres://user:password@host:5432/database")
    }
}

/// The process's exit code: 0, 1 or 2. Errors are 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Clean,
    /// An online merge was committed, and something that comes after the commit could not be done.
    Unfinished,
    /// Conflicts or changes that need a migration: nothing was applied.
    Blocked,
}

impl Outcome {
    pub const fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Unfinished => 1,
            Self::Blocked => 2,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Snapshot { path: PathBuf, source: crate::Error },
    #[error(transparent)]
    Merge(#[from] crate::Error),
    #[error("write the output: {0}")]
    Output(#[from] io::Error),
}

/// The value of `--resolve`.
///
/// # Errors
/// A text for the person who typed it.
pub fn parse_resolution(text: &str) -> Result<(String, Choice), String> {
    match text.rsplit_once('=') {
        Some((name, "branch")) if !name.is_empty() => Ok((name.to_owned(), Choice::Branch)),
        Some((name, "parent")) if !name.is_empty() => Ok((name.to_owned(), Choice::Parent)),
        _ => Err("NAME=branch or NAME=parent, with the name of a conflict".to_owned()),
    }
}

/// Writes a database's snapshot to a file.
pub async fn take_snapshot(
    command: &SnapshotCommand,
    out: &mut impl Write,
) -> Result<Outcome, CommandError> {
    let snapshot = read(&command.address).await?;
    let bytes = snapshot.to_bytes();
    tokio::fs::write(&command.output, &bytes)
        .await
        .map_err(|source| CommandError::File {
            path: command.output.clone(),
            source,
        })?;
    writeln!(
        out,
        "{}: {} facts, {} bytes, hash {}",
        command.output.display(),
        snapshot.catalog.facts.len(),
        bytes.len(),
        snapshot.hash()
    )?;
    Ok(Outcome::Clean)
}

/// Shows what a merge would do. Changes nothing.
pub async fn diff(command: &MergeCommand, out: &mut impl Write) -> Result<Outcome, CommandError> {
    let plan = plan_for(command).await?;
    if command.json {
        write_json(out, &plan.diff())?;
    } else {
        out.write_all(preview(&plan, command.colour).as_bytes())?;
    }
    Ok(outcome(&plan))
}

/// Merges, if nothing stands in the way.
pub async fn merge(command: &MergeCommand, out: &mut impl Write) -> Result<Outcome, CommandError> {
    let plan = plan_for(command).await?;
    if outcome(&plan) == Outcome::Blocked {
        if command.json {
            write_json(out, &json!({ "status": "blocked", "diff": plan.diff() }))?;
        } else {
            out.write_all(preview(&plan, command.colour).as_bytes())?;
            writeln!(out, "Nothing was applied.")?;
        }
        return Ok(Outcome::Blocked);
    }
    let options = ApplyOptions {
        online: command.online,
        ..ApplyOptions::default()
    };
    let applied = match apply(&command.parent.0, &plan, &options).await {
        Ok(applied) => applied,
        Err(crate::Error::RowsInTheWay(items)) => {
            if command.json {
                let body =
                    json!({ "status": "blocked", "needs_migration": items, "diff": plan.diff() });
                write_json(out, &body)?;
            } else {
                for item in &items {
                    writeln!(
                        out,
                        "needs a migration: {} {}: {}",
                        item.kind,
                        seen(&item.name()),
                        seen(&item.hint)
                    )?;
                }
                writeln!(out, "Nothing was applied.")?;
            }
            return Ok(Outcome::Blocked);
        }
        Err(error) => return Err(error.into()),
    };
    if command.json {
        let body = json!({
            "status": "merged",
            "statements": applied.statements,
            "attempts": applied.attempts,
            "finished": applied.finished,
            "unfinished": applied.unfinished,
            "diff": plan.diff(),
        });
        write_json(out, &body)?;
    } else {
        out.write_all(overview(&plan, command.colour).as_bytes())?;
        writeln!(
            out,
            "Merged: {} statements, attempt {}.",
            applied.statements, applied.attempts
        )?;
        out.write_all(after_commit(&applied).as_bytes())?;
    }
    if applied.unfinished.is_empty() {
        Ok(Outcome::Clean)
    } else {
        Ok(Outcome::Unfinished)
    }
}

/// What an online merge did after its commit, and what it could not do.
fn after_commit(applied: &Applied) -> String {
    let mut text = String::new();
    for done in &applied.finished {
        let _ = writeln!(text, "After the commit: {}", seen(&done.statement));
    }
    for left in &applied.unfinished {
        let (kind, name, why) = (&left.kind, seen(&left.name), seen(&left.why));
        let _ = writeln!(text, "not finished: {kind} {name}: {why}");
    }
    if !applied.unfinished.is_empty() {
        text.push_str(
            "The merge is committed and stands; what is not finished is left to do. Mend what is in its way, then run the same \
             command again: it does what is left.\n",
        );
    }
    text
}

fn outcome(plan: &MergePlan) -> Outcome {
    if plan.is_clean() {
        Outcome::Clean
    } else {
        Outcome::Blocked
    }
}

async fn plan_for(command: &MergeCommand) -> Result<MergePlan, CommandError> {
    let parent = load(&command.base).await?;
    let branch = match &command.branch_base {
        Some(path) => load(path).await?,
        None => base_of_branch(&parent, &read(&command.branch).await?),
    };
    let resolutions: Resolutions = command.resolve.iter().cloned().collect();
    let bases = Bases { parent, branch };
    Ok(plan(&command.parent.0, &command.branch.0, &bases, &resolutions).await?)
}

async fn read(address: &Address) -> Result<Snapshot, CommandError> {
    let failed = crate::Error::while_doing("connect");
    let mut session = address.0.connect().await.map_err(failed)?;
    let snapshot = snapshot(&mut session).await;
    let _ = session.close().await;
    Ok(snapshot?)
}

async fn load(path: &Path) -> Result<Snapshot, CommandError> {
    let bytes = tokio::fs::read(path)
        .await
        .map_err(|source| CommandError::File {
            path: path.to_owned(),
            source,
        })?;
    Snapshot::from_bytes(&bytes).map_err(|source| CommandError::Snapshot {
        path: path.to_owned(),
        source,
    })
}

/// The parent's base as the branch's. A branch that is a copy of the data folder or of the template has the parent's
/// ids, and its renames are seen; one that came out of a dump has others, which then must not be compared.
fn base_of_branch(base: &Snapshot, branch: &Snapshot) -> Snapshot {
    let (mut same, mut other) = (0, 0);
    for (id, fact) in &base.catalog.facts {
        if let Some(now) = branch.catalog.facts.get(id) {
            if now.place == fact.place {
                same += 1;
            } else {
                other += 1;
            }
        }
    }
    let mut base = base.clone();
    if other > same {
        forget_ids(&mut base.catalog);
    }
    base
}

fn forget_ids(catalog: &mut Catalog) {
    for fact in catalog.facts.values_mut() {
        fact.place = Place::default();
        match &mut fact.payload {
            Payload::Enum { labels } => {
                for label in labels {
                    label.oid = 0;
                }
            }
            Payload::Composite { attributes } => {
                for attribute in attributes {
                    attribute.number = 0;
                }
            }
            _ => {}
        }
    }
}

fn write_json(out: &mut impl Write, value: &impl serde::Serialize) -> Result<(), CommandError> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Names and texts of databases must not command the terminal, nor turn what is read around.
fn seen(text: &str) -> String {
    let acts = |c: char| c != '\t' && c.is_control();
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) || turns(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// ANSI escapes, or nothing.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    const RED: u8 = 31;
    const GREEN: u8 = 32;
    const YELLOW: u8 = 33;
    const GREY: u8 = 90;

    /// One line of what may hold anything.
    fn paint(self, colour: u8, text: &str) -> String {
        let text = seen(text);
        if self.0 {
            format!("\u{1b}[{colour}m{text}\u{1b}[0m")
        } else {
            text
        }
    }
}

/// What changes, what stands in the way, and the SQL.
fn preview(plan: &MergePlan, colour: bool) -> String {
    let mut text = overview(plan, colour);
    if plan.changes.is_empty() {
        return text;
    }
    text.push('\n');
    let paint = Paint(colour);
    for line in plan.rendered_sql().lines() {
        let line = seen(line);
        let line = if line.starts_with("--") {
            paint.paint(Paint::GREY, &line)
        } else {
            line
        };
        let _ = writeln!(text, "{line}");
    }
    text
}

/// One side's definition below a hint, not all of a long one.
fn side_of(text: &mut String, side: &str, definition: Option<&str>) {
    const MOST: usize = 12;
    let Some(definition) = definition else {
        let _ = writeln!(text, "  {side} none");
        return;
    };
    let _ = writeln!(text, "  {side}");
    let lines: Vec<&str> = definition.lines().collect();
    for line in lines.iter().take(MOST) {
        let _ = writeln!(text, "    {}", seen(line));
    }
    if lines.len() > MOST {
        let _ = writeln!(text, "    … {} more lines", lines.len() - MOST);
    }
}

fn overview(plan: &MergePlan, colour: bool) -> String {
    let paint = Paint(colour);
    let mut text = String::new();
    for change in &plan.changes {
        let (sign, colour) = match change.action {
            Action::Add => ("+", Paint::GREEN),
            Action::Modify => ("~", Paint::YELLOW),
            Action::Drop => ("-", Paint::RED),
        };
        let line = format!("{sign} {} {}", change.kind, change.name());
        let _ = writeln!(text, "{}", paint.paint(colour, &line));
    }
    for rename in &plan.renames {
        let (kind, schema) = (&rename.kind, &rename.schema);
        let _ = writeln!(
            text,
            "renamed: {kind} {}.{} to {}",
            seen(schema),
            seen(&rename.from),
            seen(&rename.to)
        );
    }
    for conflict in &plan.conflicts {
        let line = format!(
            "conflict: {} {}: {}",
            conflict.kind,
            conflict.name(),
            conflict.hint
        );
        let _ = writeln!(text, "{}", paint.paint(Paint::RED, &line));
        for (side, definition) in [
            ("parent now:", &conflict.definitions.parent),
            ("branch now:", &conflict.definitions.branch),
        ] {
            side_of(&mut text, side, definition.as_deref());
        }
    }
    for item in &plan.needs_migration {
        let line = format!(
            "needs a migration: {} {}: {}",
            item.kind,
            item.name(),
            item.hint
        );
        let _ = writeln!(text, "{}", paint.paint(Paint::RED, &line));
    }
    for warning in &plan.warnings {
        let line = format!(
            "warning: {} {}: {}",
            warning.kind,
            warning.name(),
            warning.text
        );
        let _ = writeln!(text, "{}", paint.paint(Paint::YELLOW, &line));
    }
    for name in &plan.unused_resolutions {
        let line = format!("warning: nothing called {name} is in conflict");
        let _ = writeln!(text, "{}", paint.paint(Paint::YELLOW, &line));
    }
    if plan.is_empty() {
        text.push_str("Nothing to merge.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolution_names_a_conflict_and_a_side() {
        let name = "public.t.a=b".to_owned();
        assert_eq!(
            parse_resolution("public.t.a=b=branch"),
            Ok((name, Choice::Branch))
        );
        assert!(parse_resolution("=parent").is_err());
        assert!(parse_resolution("public.t").is_err());
        assert!(parse_resolution("public.t=theirs").is_err());
    }

    #[test]
    fn names_do_not_command_the_terminal() {
        assert_eq!(
            seen("a\u{1b}[2Jb\u{202e}c\td\n"),
            "a\\u{1b}[2Jb\\u{202e}c\td\\n"
        );
        assert_eq!(Paint(true).paint(1, "\u{1b}"), "\u{1b}[1m\\u{1b}\u{1b}[0m");
    }

    #[test]
    fn an_address_is_never_printed() {
        let address = Address::from_str("postgres://me:secret@localhost/db").unwrap();
        assert!(!format!("{address:?}").contains("secret"));
        let wrong = Address::from_str("postgres://me:secret@localhost:x/db").unwrap_err();
        assert!(!wrong.contains("secret"));
    }
}
