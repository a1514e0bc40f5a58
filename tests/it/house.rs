//! The rules of the house: who may import whom, what may be linked, what may be written down.
//!
//! The same rules stand in `deny.toml` for `cargo deny`. They are tests too, so that they hold where
//! cargo-deny is not installed. They read `cargo metadata` and `git ls-files`, and build nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::PathBuf,
    process::Command,
    sync::LazyLock,
};

use serde::Deserialize;

/// One line per crate: who it may import (README, "Architecture"). Arrows never run back up.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("pg", &[]),
    ("merge", &[]),
    ("dump", &["pg"]),
    ("devbackend", &[]),
    ("tokens", &["model"]),
    ("storage", &["tokens", "model"]),
    ("domain", &["storage", "tokens", "model"]),
    ("provider", &["model", "pg"]),
    ("billing", &["tokens", "model"]),
    ("ai", &["model"]),
    ("api", &["ai", "billing", "domain", "model"]),
    (
        "worker",
        &[
            "ai", "billing", "domain", "provider", "merge", "dump", "model",
        ],
    ),
    (
        "server",
        &[
            "api", "worker", "ai", "billing", "provider", "merge", "dump", "domain", "storage",
            "tokens", "model", "pg",
        ],
    ),
    ("agent", &["model", "pg", "devbackend", "tokens"]),
    (
        "tests",
        &[
            "server",
            "agent",
            "devbackend",
            "api",
            "worker",
            "billing",
            "provider",
            "ai",
            "merge",
            "dump",
            "domain",
            "storage",
            "tokens",
            "model",
            "pg",
        ],
    ),
];

/// What unit tests may import beyond that: a scratch Postgres anywhere, and the agent meets the other
/// side of its protocol.
const ARROWS_OF_TESTS: &[(&str, &[&str])] = &[("*", &["pg"]), ("agent", &["provider"])];

/// Crates that only some of ours may name. A name that ends in `*` is a prefix.
const KEPT: &[Kept] = &[
    Kept {
        what: &["sqlx", "sqlx-*"],
        by: &["storage", "devbackend", "agent", "dump", "merge", "tests"],
        why: "SQL on our own database lives in `storage`; put the query there and call it",
    },
    Kept {
        what: &["apalis", "apalis-*"],
        by: &["storage", "worker", "server", "tests"],
        why: "the queue is a detail of the operations engine; enqueue through `storage`",
    },
    Kept {
        what: &["aws-sdk-*", "aws-config", "aws-smithy-*", "aws-types"],
        by: &["provider"],
        why: "the AWS SDK is big: it stays in one crate that rarely changes; add a verb to a trait of `provider`",
    },
];

struct Kept {
    what: &'static [&'static str],
    by: &'static [&'static str],
    why: &'static str,
}

/// Licences that we can ship under Apache-2.0 without asking anyone. As in `deny.toml`.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "ISC",
    "BSD-3-Clause",
    "0BSD",
    "Zlib",
    "Unicode-3.0",
    // Data, not code: the certificate list of webpki-roots.
    "CDLA-Permissive-2.0",
];

/// Packages that ship a licence file and no SPDX expression: name, expression, first line of the file.
const LICENCE_FILES: &[(&str, &str, &str)] = &[("apalis-postgres", "MIT", "MIT License")];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: HashSet<String>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    license_file: Option<PathBuf>,
    manifest_path: PathBuf,
    source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `None` for a normal dependency.
    kind: Option<String>,
}

static METADATA: LazyLock<Metadata> = LazyLock::new(|| {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo metadata failed. If Cargo.lock is behind, run `cargo check` and commit it:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON in format 1")
});

impl Metadata {
    fn ours(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .iter()
            .filter(|package| self.workspace_members.contains(&package.id))
    }

    fn others(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .iter()
            .filter(|package| !self.workspace_members.contains(&package.id))
    }
}

impl Package {
    /// `model` for `cp-model`.
    fn short_name(&self) -> &str {
        short(&self.name)
    }

    fn manifest(&self) -> String {
        self.manifest_path
            .strip_prefix(&METADATA.workspace_root)
            .unwrap_or(&self.manifest_path)
            .display()
            .to_string()
    }
}

fn short(name: &str) -> &str {
    name.strip_prefix("cp-").unwrap_or(name)
}

fn look_up<'a>(table: &'a [(&str, &[&str])], name: &str) -> Option<BTreeSet<&'a str>> {
    table
        .iter()
        .find(|(from, _)| *from == name)
        .map(|(_, to)| to.iter().copied().collect())
}

/// Fails with all findings at once, so that one run is enough to mend them.
fn assert_none(findings: &[String], what_to_do: &str) {
    assert!(
        findings.is_empty(),
        "{}\n\n{what_to_do}",
        findings.join("\n")
    );
}

#[test]
fn every_crate_lives_in_the_folder_of_its_name() {
    let strays: Vec<String> = METADATA
        .ours()
        .filter(|package| {
            let expected = match package.short_name() {
                "tests" => "tests/Cargo.toml".to_owned(),
                name => format!("crates/{name}/Cargo.toml"),
            };
            !package.name.starts_with("cp-") || package.manifest() != expected
        })
        .map(|package| format!("{} is in {}", package.name, package.manifest()))
        .collect();
    assert_none(
        &strays,
        "The folder crates/x holds package cp-x, and tests/ holds cp-tests: rename one of the two.",
    );
}

#[test]
fn arrows_between_crates_never_run_back_up() {
    let ours: HashSet<&str> = METADATA
        .ours()
        .map(|package| package.name.as_str())
        .collect();
    let mut findings = Vec::new();
    for package in METADATA.ours() {
        let Some(allowed) = look_up(ARROWS, package.short_name()) else {
            findings.push(format!(
                "{} has no line in ARROWS of tests/it/house.rs",
                package.name
            ));
            continue;
        };
        let mut allowed_in_tests = allowed.clone();
        for name in ["*", package.short_name()] {
            allowed_in_tests.extend(look_up(ARROWS_OF_TESTS, name).unwrap_or_default());
        }
        for dependency in &package.dependencies {
            if !ours.contains(dependency.name.as_str()) {
                continue;
            }
            let for_tests = dependency.kind.as_deref() == Some("dev");
            let allowed = if for_tests {
                &allowed_in_tests
            } else {
                &allowed
            };
            if !allowed.contains(short(&dependency.name)) {
                let how = if for_tests {
                    "imports in its tests"
                } else {
                    "imports"
                };
                findings.push(format!(
                    "{} {how} {}: {}",
                    package.name,
                    dependency.name,
                    package.manifest()
                ));
            }
        }
    }
    assert_none(
        &findings,
        "Move the code to where the arrow is allowed, or pass the thing in as a trait or a value. A new arrow is a \
         design decision: say it in README, then add it to ARROWS here and to deny.toml.",
    );
}

#[test]
fn sql_queue_and_aws_stay_in_their_crates() {
    let mut findings = Vec::new();
    for package in METADATA.ours() {
        for dependency in &package.dependencies {
            for kept in KEPT {
                if kept.covers(&dependency.name) && !kept.by.contains(&package.short_name()) {
                    findings.push(format!(
                        "{} names {}, which only {} may: {}",
                        package.name,
                        dependency.name,
                        kept.by.join(", "),
                        kept.why
                    ));
                }
            }
        }
    }
    assert_none(
        &findings,
        "Remove the dependency from the crate's Cargo.toml.",
    );
}

impl Kept {
    fn covers(&self, name: &str) -> bool {
        self.what.iter().any(|what| match what.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == *what,
        })
    }
}

#[test]
fn every_dependency_has_a_licence_that_we_may_ship() {
    let mut findings = Vec::new();
    for package in &METADATA.packages {
        let name = format!("{} {}", package.name, package.version);
        match licence_of(package) {
            Err(problem) => findings.push(format!("{name}: {problem}")),
            Ok(expression) if !may_ship(&expression) => {
                findings.push(format!("{name}: {expression} is not satisfied by LICENCES"));
            }
            Ok(_) => {}
        }
    }
    assert_none(
        &findings,
        "Take another crate. Where the licence is fine for a work under Apache-2.0, add it to LICENCES in \
         tests/it/house.rs and to deny.toml.",
    );
}

fn licence_of(package: &Package) -> Result<spdx::Expression, String> {
    let text = match &package.license {
        Some(expression) => expression.as_str(),
        None => licence_of_file(package)?,
    };
    // Lax: older crates write `MIT/Apache-2.0`.
    spdx::Expression::parse_mode(text, spdx::ParseMode::LAX)
        .map_err(|error| format!("licence `{text}` is no SPDX expression: {}", error.reason))
}

fn licence_of_file(package: &Package) -> Result<&'static str, String> {
    let (_, expression, first_line) = LICENCE_FILES
        .iter()
        .find(|(name, ..)| *name == package.name)
        .ok_or("has no SPDX expression; read its licence file, then add it to LICENCE_FILES")?;
    let file = package
        .license_file
        .as_ref()
        .ok_or("has neither a licence expression nor a licence file")?;
    let path = package.manifest_path.with_file_name(file);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", file.display()))?;
    if text.lines().next().map(str::trim) == Some(*first_line) {
        Ok(expression)
    } else {
        Err("its licence file has changed; read it again".to_owned())
    }
}

fn may_ship(expression: &spdx::Expression) -> bool {
    expression.evaluate(|requirement| {
        // An exception (`WITH …`) only ever grants more.
        requirement
            .license
            .id()
            .is_some_and(|id| LICENCES.contains(&id.name))
    })
}

#[test]
fn copyleft_alone_may_not_be_shipped_and_a_choice_may() {
    let parse = |text| spdx::Expression::parse(text).unwrap();
    assert!(!may_ship(&parse("GPL-3.0-only")));
    assert!(!may_ship(&parse("MIT AND AGPL-3.0-only")));
    assert!(may_ship(&parse("MIT OR GPL-3.0-only")));
    assert!(may_ship(&parse("Apache-2.0 WITH LLVM-exception")));
}

#[test]
fn dependencies_come_from_the_default_registry_only() {
    let strays: Vec<String> = METADATA
        .others()
        .filter(|package| {
            // Cargo's name for the default registry, whatever mirror serves it.
            !package
                .source
                .as_deref()
                .is_some_and(|source| source.starts_with("registry+https://github.com/rust-lang/"))
        })
        .map(|package| {
            format!(
                "{} {} from {}",
                package.name,
                package.version,
                package.source.as_deref().unwrap_or("a path")
            )
        })
        .collect();
    assert_none(
        &strays,
        "A fork by git or path cannot be audited or mirrored: use a published release.",
    );
}

/// Text files that git tracks or would add, by their path.
static SOURCES: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let root = &METADATA.workspace_root;
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()
        .expect("git is installed");
    assert!(
        output.status.success(),
        "git ls-files failed; run the tests in a clone: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = String::from_utf8(output.stdout).expect("paths are UTF-8");
    names
        .split_terminator('\0')
        // A file that is deleted but not yet committed, or not text, has nothing to read.
        .filter_map(|name| Some((name.to_owned(), fs::read_to_string(root.join(name)).ok()?)))
        .collect()
});

/// `path:line: text` of every line that holds one of the words, in files that `chosen` picks.
fn lines_with(words: &[String], chosen: impl Fn(&str) -> bool) -> Vec<String> {
    assert!(!SOURCES.is_empty(), "git lists no file at all");
    let mut found = Vec::new();
    for (path, text) in SOURCES.iter().filter(|(path, _)| chosen(path)) {
        for (index, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str())) {
                found.push(format!("{path}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn nothing_is_left_to_be_written() {
    // Put together here, or this file would be its own finding.
    let words = ["todo", "unimplemented"].map(|word| format!("{word}!("));
    let found = lines_with(&words, |path| {
        path.starts_with("crates/") || path.starts_with("tests/")
    });
    assert_none(
        &found,
        "Write the code, or return an error that says what is not possible.",
    );
}

#[test]
fn no_file_names_a_path_of_somebodys_machine() {
    let homes = ["root", "home", "Users"].map(|parent| format!("/{parent}/"));
    let found = lines_with(&homes, |path| path != "Cargo.lock");
    assert_none(
        &found,
        "Take the path from the environment, the configuration or a relative place.",
    );
}
