//! What is decided about the merge cases: changes, conflicts and renames, without applying anything.

use std::collections::BTreeSet;

use cp_merge::{
    catalog::{self, Catalog},
    three_way::{Direction, Merge, Resolutions, Sides, three_way},
};
use serde_json::Value;

use crate::database::Database;

async fn read(database: &Database) -> Catalog {
    catalog::read(&mut database.connect().await).await.unwrap()
}

fn file(case: &str, name: &str) -> String {
    let path = format!("{}/tests/cases/{case}/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

async fn merge(case: &str) -> Merge {
    let base = Database::empty().await;
    base.psql(&file(case, "base.sql")).await;
    let (parent, branch) = (base.template_copy().await, base.dump_copy().await);
    let (parent_t0, branch_t0) = (read(&parent).await, read(&branch).await);
    parent.psql(&file(case, "parent.sql")).await;
    branch.psql(&file(case, "branch.sql")).await;
    let (parent, branch) = (read(&parent).await, read(&branch).await);
    let sides = Sides {
        parent_t0: &parent_t0,
        parent: &parent,
        branch_t0: &branch_t0,
        branch: &branch,
        direction: Direction::Merge,
    };
    three_way(&sides, &Resolutions::new())
}

fn named(list: &Value) -> BTreeSet<String> {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap().to_owned();
    list.as_array()
        .into_iter()
        .flatten()
        .map(|change| {
            format!(
                "{} {}.{} {}",
                text(change, "type"),
                text(change, "schema"),
                text(change, "object"),
                text(change, "action")
            )
        })
        .collect()
}

fn strings(list: &Value) -> BTreeSet<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn decisions_are_as_the_cases_want() {
    let only = std::env::var("CASE").unwrap_or_default();
    let mut cases: Vec<String> =
        std::fs::read_dir(format!("{}/tests/cases", env!("CARGO_MANIFEST_DIR")))
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(|name| name.starts_with(&only))
            .collect();
    cases.sort();
    let mut wrong = Vec::new();
    for case in cases {
        let merge = merge(&case).await;
        let expect: Value = serde_json::from_str(&file(&case, "expect.json")).unwrap();
        let needs = strings(&expect["needs_migration"]);
        let got: BTreeSet<String> = merge
            .changes
            .iter()
            .filter(|change| !needs.contains(&change.id.to_string()))
            .map(|change| {
                format!(
                    "{} {}.{} {}",
                    change.id.kind.as_str(),
                    change.id.schema,
                    change.id.name(),
                    change.action.as_str()
                )
            })
            .collect();
        let (want, also) = (named(&expect["changes"]), named(&expect["may_also"]));
        let unexpected: Vec<_> = got
            .difference(&want)
            .filter(|change| !also.contains(*change))
            .collect();
        let missing: Vec<_> = want.difference(&got).collect();
        if !unexpected.is_empty() || !missing.is_empty() {
            wrong.push(format!(
                "{case}: unexpected {unexpected:?}, missing {missing:?}"
            ));
        }
        let conflicts: BTreeSet<String> = merge
            .conflicts
            .iter()
            .map(|conflict| conflict.id.to_string())
            .collect();
        if conflicts != strings(&expect["conflicts"]) {
            wrong.push(format!("{case}: conflicts {conflicts:?}"));
        }
        if expect["semantic"] == true && !merge.conflicts.iter().all(|conflict| conflict.semantic) {
            wrong.push(format!("{case}: not semantic {:?}", merge.conflicts));
        }
        let renames: BTreeSet<String> = merge
            .detected
            .iter()
            .map(|rename| {
                format!(
                    "{} {} {}",
                    rename.kind.as_str(),
                    rename.from,
                    rename.to.name()
                )
            })
            .collect();
        let want: BTreeSet<String> = expect["renames"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|rename| {
                let text = |key: &str| rename[key].as_str().unwrap();
                format!(
                    "{} {}.{} {}",
                    text("type"),
                    text("schema"),
                    text("from"),
                    text("to")
                )
            })
            .collect();
        if renames != want {
            wrong.push(format!("{case}: renames {renames:?}"));
        }
        for conflict in &merge.conflicts {
            println!("{case}: {} — {}", conflict.id, conflict.hint);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
