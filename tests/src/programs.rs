//! The real programs, started as processes: for scenarios that kill them.

use std::path::PathBuf;

/// A program that this workspace builds, beside the test's own binary.
///
/// # Panics
/// When it is not built; says how.
pub fn built(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().expect("a test knows its own path");
    // target/<profile>/deps/it-… → target/<profile>
    while dir.file_name().is_some_and(|n| n != "deps") {
        dir.pop();
    }
    dir.pop();
    let program = dir.join(name);
    assert!(
        program.exists(),
        "{} is not built; run: cargo build --workspace",
        program.display()
    );
    program
}
