//! `make bench`: the speed that is promised, as ratios in one run on one machine. Prints one table
//! and writes `target/bench/latest.json`.
//!
//! The server is the real `insforge-cloud dev` of this profile, with real Postgres and real local
//! machines; only the thousand projects, and those on machines like EC2's, run on `sim`. Merges and
//! copies are measured between Postgres servers of their own.

mod copy;
mod ec2_like;
mod load;
mod machines;
mod memory;
mod merge;
mod platform;
mod pool_days;
mod report;
mod sign_in;
mod thousand;
mod usage;

use std::path::Path;

use cp_tests::programs::Dev;
use report::{Report, Row};

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    let report = match arguments.first().map(String::as_str) {
        // This program again, as a process of its own whose memory can be told.
        Some("--thousand") => return runtime.block_on(thousand::child(&arguments[1..])),
        Some("--merge-plan") => return runtime.block_on(merge::child(&arguments[1..])),
        Some("--copy-child") => return runtime.block_on(copy::child()),
        // A part by itself, for who works on it.
        Some("--sign-in") => runtime.block_on(sign_in_alone()),
        Some("--usage") => runtime.block_on(usage_alone()),
        Some("--ec2") => runtime.block_on(ec2_alone(&arguments[1..])),
        Some("--platform") => runtime.block_on(platform_alone()),
        Some("--merge") => runtime.block_on(merge_alone()),
        Some("--copy") => runtime.block_on(copy_alone()),
        Some("--pool") => pool_alone(&arguments[1..]),
        Some(unknown) => {
            eprintln!(
                "bench takes nothing, --sign-in, --usage, --platform, --merge, --copy, --ec2 [PROJECTS] or --pool [USD PER HOUR]; got {unknown}"
            );
            std::process::exit(2);
        }
        None => {
            let report = runtime.block_on(run());
            report.write(Path::new("target/bench"));
            report
        }
    };
    report.print();
    if report.rows.iter().any(|row| !row.holds()) {
        std::process::exit(1);
    }
}

async fn start() -> Dev {
    Dev::start_with(&[("INSFORGE_LOG", "warn")]).await
}

async fn sign_in_alone() -> Report {
    let mut report = Report::default();
    let dev = start().await;
    report.extend(sign_in::measure(&dev).await);
    drop(dev.interrupt().await);
    report
}

async fn usage_alone() -> Report {
    let mut report = Report::default();
    let dev = start().await;
    report.extend(usage::measure(&dev).await);
    drop(dev.interrupt().await);
    report
}

async fn platform_alone() -> Report {
    let mut report = Report::default();
    let dev = start().await;
    report.extend(platform::measure(&dev).await);
    drop(dev.interrupt().await);
    report
}

async fn ec2_alone(arguments: &[String]) -> Report {
    let projects = arguments.first().map_or(ec2_like::PROJECTS, |number| {
        number.parse().expect("a number of projects")
    });
    let mut report = Report::default();
    report.extend(ec2_like::warm().await);
    report.extend(ec2_like::creates(projects).await);
    report
}

async fn merge_alone() -> Report {
    let mut report = Report::default();
    report.extend(merge::measure().await);
    report
}

async fn copy_alone() -> Report {
    let mut report = Report::default();
    report.extend(copy::measure().await);
    report
}

fn pool_alone(arguments: &[String]) -> Report {
    let price = arguments.first().map_or(pool_days::PRICE, |number| {
        number.parse().expect("USD per hour")
    });
    let mut report = Report::default();
    report.extend(pool_days::measure(price));
    report
}

async fn run() -> Report {
    let mut report = Report::default();
    let dev = start().await;
    report.extend(memory::idle(&dev).await);
    report.extend(load::authorization(&dev).await);
    report.extend(load::metadata(&dev).await);
    report.extend(platform::measure(&dev).await);
    report.extend(sign_in::measure(&dev).await);
    report.extend(machines::warm(&dev).await);
    report.extend(machines::cold(&dev).await);
    report.extend(usage::measure(&dev).await);
    drop(dev.interrupt().await);
    report.extend(thousand::measure().await);
    report.extend(merge::measure().await);
    report.extend(copy::measure().await);
    report.extend(ec2_like::warm().await);
    report.extend(ec2_like::creates(ec2_like::PROJECTS).await);
    report.extend(pool_days::measure(pool_days::PRICE));
    report
}

/// A row whose figure should be at least `bar`.
fn at_least(name: &str, figure: f64, unit: &str, bar: f64, goal: f64, detail: String) -> Row {
    Row {
        name: name.into(),
        figure,
        unit: unit.into(),
        bar,
        goal,
        lower_is_better: false,
        detail,
    }
}

/// A row whose figure should be at most `bar`.
fn at_most(name: &str, figure: f64, unit: &str, bar: f64, goal: f64, detail: String) -> Row {
    Row {
        name: name.into(),
        figure,
        unit: unit.into(),
        bar,
        goal,
        lower_is_better: true,
        detail,
    }
}
