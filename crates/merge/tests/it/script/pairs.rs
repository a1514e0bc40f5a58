//! The schemas of all merge cases, into each other.

use std::{fs, path::PathBuf};

use cp_merge::script::script;

use super::{Report, State};

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

/// Each form of every second case into each other one, from nothing and to nothing; and whole schemas into unrelated ones.
async fn every_second(first: usize) {
    let nothing = State::new("nothing", &[]).await;
    let mut report = Report::new();
    let cases: Vec<_> = states().await.into_iter().skip(first).step_by(2).collect();
    for forms in &cases {
        for (at, to) in forms.iter().enumerate() {
            report.check(&nothing, to, None).await;
            for (from_at, from) in forms.iter().enumerate() {
                if from_at == at {
                    let same = script(&from.catalog, &to.catalog, &[]);
                    assert!(
                        same.statements.is_empty(),
                        "{}: {:?}",
                        from.name,
                        same.statements
                    );
                } else {
                    report.check(from, to, None).await;
                }
            }
        }
        report.check(&forms[2], &nothing, None).await;
    }
    for (one, next) in cases.iter().zip(cases.iter().skip(1)).step_by(3) {
        report.check(&one[2], &next[1], None).await;
        report.check(&next[2], &one[1], None).await;
    }
    report.finish();
}

#[tokio::test]
async fn every_odd_case_becomes_every_other_form_of_itself() {
    every_second(0).await;
}

#[tokio::test]
async fn every_even_case_becomes_every_other_form_of_itself() {
    every_second(1).await;
}
