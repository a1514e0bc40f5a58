//! The schemas of all merge cases, into each other.

use std::{fs, path::PathBuf};

use crate::{Report, State};

/// `base`, `base+parent` and `base+branch` of every case.
async fn states() -> Vec<[State; 3]> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let only = std::env::var("CASE").unwrap_or_default();
    let mut cases: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() && path.to_string_lossy().contains(&only))
        .collect();
    cases.sort();
    let mut states = Vec::new();
    for case in cases {
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let sql = |file: &str| fs::read_to_string(case.join(file)).unwrap();
        states.push([
            State::new(&format!("{name} base"), &[&sql("base.sql")]).await,
            State::new(
                &format!("{name} parent"),
                &[&sql("base.sql"), &sql("parent.sql")],
            )
            .await,
            State::new(
                &format!("{name} branch"),
                &[&sql("base.sql"), &sql("branch.sql")],
            )
            .await,
        ]);
    }
    states
}

#[tokio::test]
async fn every_case_becomes_every_other_form_of_itself() {
    let nothing = State::new("nothing", &[]).await;
    let mut report = Report::new();
    let cases = states().await;
    for forms in &cases {
        for to in forms {
            report.check(&nothing, to, None).await;
            report.check(to, &nothing, None).await;
            for from in forms {
                report.check(from, to, None).await;
            }
        }
    }
    for (one, next) in cases.iter().zip(cases.iter().skip(1)) {
        report.check(&one[2], &next[1], None).await;
        report.check(&next[2], &one[1], None).await;
    }
    report.finish();
}
