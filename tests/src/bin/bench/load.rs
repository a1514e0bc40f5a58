//! Requests per second, against what the machine itself can do.

use std::process::Command;

use crate::at_least;
use crate::report::Row;
use cp_tests::programs::Dev;

const SECONDS: u32 = 6;

/// `POST authorization` against the RSA signatures that OpenSSL makes on both cores.
pub async fn authorization(dev: &Dev) -> Vec<Row> {
    let project = dev
        .partner
        .create_active_project("bench-authorization")
        .await;
    let ours = wrk(dev, "POST", &format!("/{project}/authorization"));
    let openssl = openssl_signatures();
    let again = wrk(dev, "POST", &format!("/{project}/authorization"));
    let ours = f64::midpoint(ours, again);
    dev.partner.delete_project(&project).await.expect(200);
    let detail = format!("{ours:.0}/s against {openssl:.0} signatures/s");
    vec![at_least(
        "authorization / openssl rsa2048",
        ours / openssl,
        "x",
        0.60,
        0.75,
        detail,
    )]
}

/// `GET metadata` against `pgbench -S` on the same Postgres.
pub async fn metadata(dev: &Dev) -> Vec<Row> {
    let project = dev.partner.create_active_project("bench-metadata").await;
    let url = dev.database_url();
    prepare_pgbench(&url);
    let ours = wrk(dev, "GET", &format!("/{project}/metadata"));
    let base = pgbench_selects(&url);
    let again = wrk(dev, "GET", &format!("/{project}/metadata"));
    let ours = f64::midpoint(ours, again);
    dev.partner.delete_project(&project).await.expect(200);
    let detail = format!("{ours:.0}/s against {base:.0} transactions/s");
    vec![at_least(
        "metadata / pgbench -S prepared",
        ours / base,
        "x",
        0.20,
        0.30,
        detail,
    )]
}

fn wrk(dev: &Dev, method: &str, path: &str) -> f64 {
    let script = format!(
        "wrk.method = \"{method}\"\nwrk.headers[\"X-Partnership-Secret\"] = \"{}\"\n",
        dev.partner.secret
    );
    let path = format!("/partnership/v1/{}{path}", dev.partner.id);
    wrk_with(dev, &script, &path)
}

/// Requests per second by `wrk` with 32 connections, as this Lua script makes them. Any answer but
/// 200 ends the bench.
pub fn wrk_with(dev: &Dev, script: &str, path: &str) -> f64 {
    let file = dev.home().path().join("wrk.lua");
    std::fs::write(&file, script).expect("the script can be written");
    let url = format!("{}{path}", dev.partner.base_url);
    let output = run(Command::new("wrk")
        .args(["-t1", "-c32", &format!("-d{SECONDS}s"), "-s"])
        .arg(&file)
        .arg(&url));
    assert!(
        !output.contains("Non-2xx"),
        "not every answer was 200:\n{output}"
    );
    figure_after(&output, "Requests/sec:")
}

fn openssl_signatures() -> f64 {
    let output =
        run(Command::new("openssl").args(["speed", "-seconds", "6", "-multi", "2", "rsa2048"]));
    let line = output
        .lines()
        .find(|l| l.starts_with("rsa 2048 bits"))
        .unwrap_or_else(|| panic!("{output}"));
    // rsa 2048 bits 0.000285s 0.000009s   3507.3 117647.1
    let numbers: Vec<f64> = line
        .split_whitespace()
        .filter_map(|w| w.parse().ok())
        .collect();
    numbers[numbers.len() - 2]
}

/// Makes the tables that [`pgbench_selects`] reads.
pub fn prepare_pgbench(url: &str) {
    pgbench(url, &["-i", "-q", "-s", "10"]);
}

/// Transactions per second of `pgbench -S`, prepared.
pub fn pgbench_selects(url: &str) -> f64 {
    pgbench_rate(&pgbench(
        url,
        &[
            "-n", "-S", "-M", "prepared", "-c", "16", "-j", "2", "-T", "6",
        ],
    ))
}

fn pgbench(url: &str, arguments: &[&str]) -> String {
    let program = std::env::var("INSFORGE_PG_BIN")
        .map_or_else(|_| "pgbench".into(), |dir| format!("{dir}/pgbench"));
    let found = if std::path::Path::new(&program).exists() || which(&program) {
        program
    } else {
        newest_pgbench()
    };
    run(Command::new(found).args(arguments).arg(url))
}

fn which(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|o| o.status.success())
}

fn newest_pgbench() -> String {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("Postgres is installed")
        .flatten()
        .map(|d| d.path().join("bin/pgbench"))
        .filter(|p| p.exists())
        .collect();
    found.sort();
    found
        .pop()
        .expect("pgbench is installed")
        .display()
        .to_string()
}

fn pgbench_rate(output: &str) -> f64 {
    figure_after(output, "tps =")
}

fn figure_after(output: &str, label: &str) -> f64 {
    let line = output
        .lines()
        .find(|l| l.contains(label))
        .unwrap_or_else(|| panic!("no {label} in:\n{output}"));
    let rest = line.split(label).nth(1).unwrap_or_default();
    rest.split_whitespace()
        .next()
        .and_then(|w| w.parse().ok())
        .unwrap_or_else(|| panic!("no figure in {line}"))
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}; run scripts/setup --bench"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?} failed:\n{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}
