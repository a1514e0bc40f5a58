//! Results on stdout, questions on the terminal.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::bail;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::cli::{Confirm, Output};

/// A reader that goes away early (`| head`) is no error.
pub(super) fn print(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// JSON when asked for, else what `table` makes.
pub(super) fn show<T: Serialize>(
    output: Output,
    value: &T,
    table: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    if output.json {
        print(&serde_json::to_string_pretty(value)?);
    } else {
        print(&table());
    }
    Ok(())
}

/// A value that is longer stands out of its column, rather than making every line as long.
const WIDEST: usize = 48;

/// Columns as wide as their widest value.
pub(super) fn columns<const N: usize>(headers: [&str; N], rows: &[[String; N]]) -> String {
    if rows.is_empty() {
        return "(none)".to_owned();
    }
    let mut widths = headers.map(|header| header.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count().min(WIDEST));
        }
    }
    let line = |cells: [&str; N]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    std::iter::once(line(headers))
        .chain(
            rows.iter()
                .map(|row| line(row.each_ref().map(String::as_str))),
        )
        .collect::<Vec<_>>()
        .join("\n")
}

/// One thing, a line per property.
pub(super) fn properties(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}"))
        .collect::<Vec<_>>()
        .join("\n")
}

pub(super) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

pub(super) fn time_or_dash(at: Option<DateTime<Utc>>) -> String {
    at.map_or_else(|| "-".to_owned(), time)
}

/// Asks before something is ended, when there is somebody to ask.
pub(super) fn confirm(question: &str, confirm: Confirm) -> anyhow::Result<()> {
    if confirm.yes || !io::stdin().is_terminal() {
        return Ok(());
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was changed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let rows = [
            ["ps_1".to_owned(), "Zoë".to_owned()],
            ["ps_22".to_owned(), "A".to_owned()],
        ];
        assert_eq!(
            columns(["ID", "NAME"], &rows),
            "ID     NAME\nps_1   Zoë\nps_22  A"
        );
        assert_eq!(columns(["ID"], &[]), "(none)");
    }

    #[test]
    fn one_long_value_does_not_make_every_line_long() {
        let long = "x".repeat(300);
        let rows = [
            [long.clone(), "a".to_owned()],
            ["y".to_owned(), "b".to_owned()],
        ];
        let shown = columns(["VALUE", "FROM"], &rows);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[1], format!("{long}  a"));
        assert_eq!(lines[2].len(), WIDEST + "  b".len());
    }

    #[test]
    fn properties_line_up() {
        let lines = [("id", "1".to_owned()), ("state", "x".to_owned())];
        assert_eq!(properties(&lines), "id     1\nstate  x");
    }
}
