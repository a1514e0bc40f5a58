//! Memory at rest, from /proc: the share that each process has alone, and its part of what it
//! shares (Pss; `man 5 proc`).

use std::collections::HashMap;
use std::time::Duration;

use crate::at_most;
use crate::report::Row;
use cp_tests::programs::Dev;

/// The most MiB that this process ever had.
pub fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// MiB of one process.
fn pss(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text
        .lines()
        .find(|l| l.starts_with("Pss:"))
        .unwrap_or("Pss: 0 kB");
    line.split_whitespace()
        .nth(1)
        .and_then(|kb| kb.parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1024.0
}

/// Children of every process.
fn family() -> HashMap<u32, Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<u32>().ok())
        else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // pid (name) state ppid …; the name may hold spaces.
        let parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    children
}

/// Processes whose command line names the folder, with all their descendants.
fn processes_of(folder: &str) -> Vec<u32> {
    let children = family();
    let mut found = Vec::new();
    for pid in children.values().flatten() {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(folder) {
            found.push(*pid);
        }
    }
    let mut next = 0;
    while next < found.len() {
        for child in children.get(&found[next]).into_iter().flatten() {
            if !found.contains(child) {
                found.push(*child);
            }
        }
        next += 1;
    }
    found.sort_unstable();
    found.dedup();
    found
}

pub async fn idle(dev: &Dev) -> Vec<Row> {
    let project = dev.partner.create_active_project("bench-idle").await;
    // After start-up and the first project; nothing happens meanwhile.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let server = pss(dev.pid());
    let mut machines: Vec<f64> = Vec::new();
    for entry in std::fs::read_dir(dev.data().join("machines"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let folder = entry.path().display().to_string();
        let total: f64 = processes_of(&folder).into_iter().map(pss).sum();
        if total > 0.0 {
            machines.push(total);
        }
    }
    let largest = machines.iter().copied().fold(0.0, f64::max);
    dev.partner.delete_project(&project).await.expect(200);
    vec![
        at_most(
            "idle server",
            server,
            "MiB",
            100.0,
            100.0,
            "API, worker and reconcilers in one process".into(),
        ),
        at_most(
            "idle local machine, the largest",
            largest,
            "MiB",
            120.0,
            120.0,
            format!("Postgres, agent and backend; {} machines", machines.len()),
        ),
    ]
}
