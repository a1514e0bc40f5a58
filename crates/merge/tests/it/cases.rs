//! The merge cases of the contract (`tests/cases/README.md`), each with both ways of copying.

use std::{collections::BTreeSet, fs, path::PathBuf};

use cp_merge::{
    ApplyOptions, Bases, Resolutions, apply, plan,
    report::{Conflict, NeedsMigration},
    snapshot,
};
use serde::Deserialize;

use crate::{
    database::Database,
    dump::{assert_same, normalise},
    merging::{Pair, changes},
};

#[derive(Deserialize)]
struct Expect {
    clean: bool,
    #[serde(default)]
    conflicts: BTreeSet<String>,
    #[serde(default)]
    needs_migration: BTreeSet<String>,
    changes: BTreeSet<Change>,
    #[serde(default)]
    may_also: BTreeSet<Change>,
    #[serde(default)]
    renames: BTreeSet<Rename>,
    #[serde(default)]
    semantic: bool,
    #[serde(default)]
    ignore: Vec<String>,
    #[serde(default)]
    probes: Vec<Probe>,
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord, Clone, Debug)]
struct Change {
    schema: String,
    object: String,
    #[serde(rename = "type")]
    kind: String,
    action: String,
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rename {
    #[serde(rename = "type")]
    kind: String,
    schema: String,
    from: String,
    to: String,
}

#[derive(Deserialize)]
struct Probe {
    sql: String,
    want: String,
}

struct Case {
    base: String,
    parent: String,
    branch: String,
    oracle: String,
    expect: Expect,
}

impl Case {
    fn read(name: &str) -> Self {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/cases")
            .join(name);
        let file = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        Self {
            base: file("base.sql"),
            parent: file("parent.sql"),
            branch: file("branch.sql"),
            oracle: fs::read_to_string(dir.join("oracle.sql"))
                .unwrap_or_else(|_| file("branch.sql")),
            expect: serde_json::from_str(&file("expect.json")).unwrap(),
        }
    }
}

/// The schema that the case wants, dumped only where somebody asks.
struct Oracle {
    database: Database,
}

#[derive(Clone, Copy, Debug)]
enum Copied {
    DumpAndRestore,
    Template,
}

/// Bringing the parent's edits to the branch first, and then merging, makes the same of the parent.
async fn run_rebased(name: &str) {
    let case = Case::read(name);
    if !case.expect.clean {
        return;
    }
    let base = Database::empty().await;
    base.psql(&case.base).await;
    let parent = base.template_copy().await;
    let mut pair = Pair::of(parent, base.dump_copy().await).await;
    let oracle = Oracle { database: base };
    oracle.database.psql(&case.parent).await;
    oracle.database.psql(&case.oracle).await;
    pair.parent.psql(&case.parent).await;
    pair.branch.psql(&case.branch).await;
    let before = changes(&pair.plan().await);
    let parent = normalise(&pair.parent.dump().await, false);

    pair.rebase().await;
    assert_eq!(
        normalise(&pair.parent.dump().await, false),
        parent,
        "{name}: the parent changed"
    );
    let again = pair.plan_rebase(&[]).await;
    assert!(
        again.plan.is_empty(),
        "{name}: {}",
        again.plan.rendered_sql()
    );
    let plan = pair.plan().await;
    assert_eq!(changes(&plan), before, "{name}: {}", plan.rendered_sql());
    pair.merge().await;
    compare(
        &case,
        name,
        &pair.parent,
        &oracle.database,
        &plan.rendered_sql(),
    )
    .await;
}

/// With what comes after the commit, an online merge makes the same as any other.
async fn run_online(name: &str) {
    let case = Case::read(name);
    if !case.expect.clean {
        return;
    }
    let base = Database::empty().await;
    base.psql(&case.base).await;
    let plain = base.template_copy().await;
    let pair = Pair::of(base.template_copy().await, base.dump_copy().await).await;
    plain.psql(&case.parent).await;
    pair.parent.psql(&case.parent).await;
    pair.branch.psql(&case.branch).await;

    let (target, source) = (plain.options(), pair.branch.options());
    let plan_of_plain = plan(&target, &source, &pair.bases, &Resolutions::new())
        .await
        .unwrap();
    apply(&plain.options(), &plan_of_plain, &ApplyOptions::default())
        .await
        .unwrap();
    let applied = pair.apply_online(&pair.plan().await).await;
    assert!(applied.unfinished.is_empty(), "{name}: {applied:#?}");

    let plain = snapshot(&mut plain.connect().await).await.unwrap();
    let online = snapshot(&mut pair.parent.connect().await).await.unwrap();
    let different = plain.catalog.diff(&online.catalog);
    assert!(different.is_empty(), "{name}: {different:?}");
    let again = pair.plan().await;
    assert!(again.is_empty(), "{name}: {}", again.rendered_sql());
}

async fn run(name: &str) {
    let case = Case::read(name);
    let base = Database::empty().await;
    base.psql(&case.base).await;
    let (by_dump, by_template) = (base.template_copy().await, base.template_copy().await);
    let copies = [
        (Copied::DumpAndRestore, base.dump_copy().await, by_dump),
        (Copied::Template, base.template_copy().await, by_template),
    ];
    let oracle = Oracle { database: base };
    oracle.database.psql(&case.parent).await;
    if case.expect.clean {
        oracle.database.psql(&case.oracle).await;
    }
    for (copied, branch, parent) in copies {
        check(
            &case,
            &format!("{name}, {copied:?}"),
            &parent,
            &branch,
            &oracle,
        )
        .await;
    }
}

async fn check(case: &Case, name: &str, parent: &Database, branch: &Database, oracle: &Oracle) {
    let bases = Bases {
        parent: snapshot(&mut parent.connect().await).await.unwrap(),
        branch: snapshot(&mut branch.connect().await).await.unwrap(),
    };
    parent.psql(&case.parent).await;
    branch.psql(&case.branch).await;

    let merge = async || {
        plan(
            &parent.options(),
            &branch.options(),
            &bases,
            &Resolutions::new(),
        )
        .await
    };
    let plan = merge()
        .await
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let sql = plan.rendered_sql();

    let changes: BTreeSet<Change> = plan
        .changes
        .iter()
        .map(|change| Change {
            schema: change.schema.clone(),
            object: change.object.clone(),
            kind: change.kind.clone(),
            action: change.action.as_str().to_owned(),
        })
        .collect();
    let unexpected: Vec<_> = changes
        .difference(&case.expect.changes)
        .filter(|change| !case.expect.may_also.contains(change))
        .collect();
    let missing: Vec<_> = case.expect.changes.difference(&changes).collect();
    assert!(
        unexpected.is_empty() && missing.is_empty(),
        "{name}: unexpected changes {unexpected:#?}, missing {missing:#?}\n{sql}"
    );

    let conflicts: BTreeSet<String> = plan.conflicts.iter().map(Conflict::name).collect();
    let needs: BTreeSet<String> = plan
        .needs_migration
        .iter()
        .map(NeedsMigration::name)
        .collect();
    let allowed: BTreeSet<String> = case
        .expect
        .conflicts
        .union(&case.expect.needs_migration)
        .cloned()
        .collect();
    let told: BTreeSet<String> = conflicts.union(&needs).cloned().collect();
    assert!(
        case.expect.conflicts.is_subset(&conflicts),
        "{name}: conflicts {conflicts:?}\n{sql}"
    );
    assert_eq!(told, allowed, "{name}: conflicts and needs-migration");
    assert_eq!(plan.is_clean(), case.expect.clean, "{name}: clean");
    if case.expect.semantic {
        assert!(
            plan.conflicts.iter().all(|c| c.semantic),
            "{name}: semantic {:?}",
            plan.conflicts
        );
    }
    let renames: BTreeSet<Rename> = plan
        .renames
        .iter()
        .map(|rename| Rename {
            kind: rename.kind.clone(),
            schema: rename.schema.clone(),
            from: rename.from.clone(),
            to: rename.to.clone(),
        })
        .collect();
    assert_eq!(renames, case.expect.renames, "{name}: renames");

    for change in &plan.changes {
        let told = &change.definitions;
        let added = change.action.as_str() == "add";
        assert_eq!(told.base.is_none(), added, "{name}: {change:#?}");
        let dropped = change.action.as_str() == "drop";
        assert_eq!(told.branch.is_none(), dropped, "{name}: {change:#?}");
    }
    for conflict in &plan.diff().conflicts {
        let told = &conflict.definitions;
        assert!(
            told.parent.is_some() || told.branch.is_some(),
            "{name}: {conflict:#?}"
        );
        let absent = conflict.parent_t0_hash.is_empty();
        assert_eq!(told.base.is_none(), absent, "{name}: {conflict:#?}");
    }

    if !case.expect.clean {
        let before = normalise(&parent.dump().await, false);
        let refused = apply(&parent.options(), &plan, &ApplyOptions::default()).await;
        assert!(refused.is_err(), "{name}: applied although blocked");
        let after = normalise(&parent.dump().await, false);
        assert_eq!(after, before, "{name}: changed although blocked");
        return;
    }
    apply(&parent.options(), &plan, &ApplyOptions::default())
        .await
        .unwrap_or_else(|error| panic!("{name}: {error}\n{sql}"));
    compare(case, name, parent, &oracle.database, &sql).await;

    let again = merge()
        .await
        .unwrap_or_else(|error| panic!("{name}, again: {error}"));
    assert!(
        again.is_clean() && again.changes.is_empty() && again.script.statements.is_empty(),
        "{name}: a second merge plans {}",
        again.rendered_sql()
    );
    for probe in &case.expect.probes {
        assert_eq!(
            parent.psql(&probe.sql).await,
            probe.want,
            "{name}: {}",
            probe.sql
        );
    }
}

/// Equal dumps restore to equal databases, so the round trip is made only for those that differ.
async fn compare(case: &Case, name: &str, merged: &Database, oracle: &Database, sql: &str) {
    let loose = case.expect.ignore.iter().any(|what| what == "column_order");
    if normalise(&merged.dump().await, loose) == normalise(&oracle.dump().await, loose) {
        return;
    }
    let merged = normalise(&merged.dump_after_round_trip().await, loose);
    let oracle = normalise(&oracle.dump_after_round_trip().await, loose);
    assert_same(&merged, &oracle, &format!("{name}\n{sql}"));
}

macro_rules! cases {
    ($($test:ident = $name:literal),* $(,)?) => {
        $(#[tokio::test]
        async fn $test() {
            run($name).await;
        })*

        mod rebased {
            $(#[tokio::test]
            async fn $test() {
                super::run_rebased($name).await;
            })*
        }

        mod online {
            $(#[tokio::test]
            async fn $test() {
                super::run_online($name).await;
            })*
        }

        #[test]
        fn every_case_has_its_test() {
            let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
            let there: BTreeSet<String> = fs::read_dir(dir)
                .unwrap()
                .map(|entry| entry.unwrap())
                .filter(|entry| entry.path().is_dir())
                .map(|entry| entry.file_name().into_string().unwrap())
                .collect();
            assert_eq!(there, BTreeSet::from([$($name.to_owned()),*]));
        }
    };
}

cases! {
    case_01_new_table_with_everything = "01-new-table-with-everything",
    case_02_columns_added_on_both_sides = "02-columns-added-on-both-sides",
    case_03_same_column_changed_twice = "03-same-column-changed-twice",
    case_04_different_columns_altered = "04-different-columns-altered",
    case_05_drop_column_with_dependents = "05-drop-column-with-dependents",
    case_06_rename_column = "06-rename-column",
    case_07_rename_column_both_differently = "07-rename-column-both-differently",
    case_08_type_change_under_views = "08-type-change-under-views",
    case_09_not_null_with_null_rows = "09-not-null-with-null-rows",
    case_10_new_not_null_column_without_default = "10-new-not-null-column-without-default",
    case_11_serial_to_identity = "11-serial-to-identity",
    case_12_generated_columns = "12-generated-columns",
    case_13_primary_key_change = "13-primary-key-change",
    case_14_not_valid_constraints = "14-not-valid-constraints",
    case_15_check_violated_by_parent_rows = "15-check-violated-by-parent-rows",
    case_16_unique_and_exclusion = "16-unique-and-exclusion",
    case_17_indexes_of_all_shapes = "17-indexes-of-all-shapes",
    case_18_index_changed_on_both_sides = "18-index-changed-on-both-sides",
    case_19_triggers = "19-triggers",
    case_20_function_changed_on_both_sides = "20-function-changed-on-both-sides",
    case_21_function_overloads = "21-function-overloads",
    case_22_same_change_on_both_sides = "22-same-change-on-both-sides",
    case_23_views = "23-views",
    case_24_view_changed_on_both_sides = "24-view-changed-on-both-sides",
    case_25_materialized_view_rebuilt = "25-materialized-view-rebuilt",
    case_26_sequences = "26-sequences",
    case_27_enum_add_values = "27-enum-add-values",
    case_28_enum_values_from_both_sides = "28-enum-values-from-both-sides",
    case_29_enum_value_removed = "29-enum-value-removed",
    case_30_domains = "30-domains",
    case_31_composite_and_range_types = "31-composite-and-range-types",
    case_32_extensions = "32-extensions",
    case_33_grants_merge = "33-grants-merge",
    case_34_default_privileges = "34-default-privileges",
    case_35_rls_and_policies = "35-rls-and-policies",
    case_36_policy_changed_on_both_sides = "36-policy-changed-on-both-sides",
    case_37_comments_and_owners_only = "37-comments-and-owners-only",
    case_38_schemas = "38-schemas",
    case_39_partitions = "39-partitions",
    case_40_event_trigger = "40-event-trigger",
    case_41_drop_table_against_edit = "41-drop-table-against-edit",
    case_42_same_table_added_differently = "42-same-table-added-differently",
    case_43_parent_dropped_what_branch_uses = "43-parent-dropped-what-branch-uses",
    case_44_function_used_everywhere = "44-function-used-everywhere",
}
