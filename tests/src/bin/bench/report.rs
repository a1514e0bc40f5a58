//! The table.

use std::path::Path;

use serde_json::json;

#[derive(Debug, Clone)]
pub struct Row {
    pub name: String,
    pub figure: f64,
    /// `x` for ratios.
    pub unit: String,
    pub bar: f64,
    pub goal: f64,
    pub lower_is_better: bool,
    /// The absolute figures behind it, which are only good for this machine.
    pub detail: String,
}

impl Row {
    pub fn holds(&self) -> bool {
        if self.lower_is_better {
            self.figure <= self.bar
        } else {
            self.figure >= self.bar
        }
    }

    fn reaches_goal(&self) -> bool {
        if self.lower_is_better {
            self.figure <= self.goal
        } else {
            self.figure >= self.goal
        }
    }
}

#[derive(Debug, Default)]
pub struct Report {
    pub rows: Vec<Row>,
}

impl Report {
    pub fn extend(&mut self, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            eprintln!("measured: {} {:.2} {}", row.name, row.figure, row.unit);
            self.rows.push(row);
        }
    }

    pub fn print(&self) {
        println!(
            "{:<42} {:>12} {:>10} {:>10}  {:<6} details",
            "what", "figure", "bar", "goal", ""
        );
        for row in &self.rows {
            let sign = if row.lower_is_better { "≤" } else { "≥" };
            let verdict = match (row.holds(), row.reaches_goal()) {
                (true, true) => "goal",
                (true, false) => "ok",
                _ => "MISSED",
            };
            let figure = format!("{:.2} {}", row.figure, row.unit);
            let (bar, goal) = (
                format!("{sign} {}", row.bar),
                format!("{sign} {}", row.goal),
            );
            println!(
                "{:<42} {figure:>12} {bar:>10} {goal:>10}  {verdict:<6} {}",
                row.name, row.detail
            );
        }
    }

    pub fn write(&self, dir: &Path) {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|r| {
                json!({ "name": r.name, "figure": r.figure, "unit": r.unit, "bar": r.bar, "goal": r.goal,
                        "lower_is_better": r.lower_is_better, "holds": r.holds(), "detail": r.detail })
            })
            .collect();
        std::fs::create_dir_all(dir).expect("target/bench can be made");
        let text = serde_json::to_string_pretty(&json!({ "rows": rows })).expect("rows are JSON");
        std::fs::write(dir.join("latest.json"), text).expect("the results can be written");
    }
}
