//! Dumps made comparable, as merge-cases/README describes.

use std::fmt::Write as _;

/// Blocks sorted, without comments, blank lines and what `pg_dump` puts between blocks.
pub fn normalise(dump: &str, ignore_column_order: bool) -> String {
    let mut blocks: Vec<Block> = vec![Block::default()];
    for line in dump.lines() {
        if let Some(header) = line.strip_prefix("-- Name: ") {
            blocks.push(Block {
                header: header.to_owned(),
                lines: Vec::new(),
            });
        } else if let Some(block) = blocks.last_mut()
            && !is_noise(line)
        {
            block.lines.push(line.to_owned());
        }
    }
    for block in &mut blocks {
        block.normalise(ignore_column_order);
    }
    blocks.sort();
    let mut text = String::new();
    for block in blocks {
        let _ = writeln!(text, "# {}\n{}", block.header, block.lines.join("\n"));
    }
    text
}

#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    header: String,
    lines: Vec<String>,
}

impl Block {
    fn normalise(&mut self, ignore_column_order: bool) {
        if self.header.contains("; Type: ACL;") || self.header.contains("; Type: DEFAULT ACL;") {
            self.lines.sort();
        }
        if ignore_column_order && self.header.contains("; Type: TABLE;") {
            for line in &mut self.lines {
                *line = line.trim_end_matches(',').to_owned();
            }
            self.lines.sort();
        }
    }
}

/// The settings of tables stand before the first one that needs them, whichever that is.
fn is_noise(line: &str) -> bool {
    line.is_empty()
        || line.starts_with("--")
        || line.starts_with("\\restrict")
        || line.starts_with("\\unrestrict")
        || line.starts_with("SET default_tablespace")
        || line.starts_with("SET default_table_access_method")
}

/// Panics with what is only on one side.
pub fn assert_same(merged: &str, oracle: &str, what: &str) {
    if merged == oracle {
        return;
    }
    let (left, right): (Vec<&str>, Vec<&str>) =
        (merged.lines().collect(), oracle.lines().collect());
    let mut difference = String::new();
    for line in left.iter().filter(|line| !right.contains(line)) {
        let _ = writeln!(difference, "merged only: {line}");
    }
    for line in right.iter().filter(|line| !left.contains(line)) {
        let _ = writeln!(difference, "oracle only: {line}");
    }
    panic!("{what}: the schema differs\n{difference}");
}
