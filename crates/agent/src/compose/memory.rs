//! What each container may take of the machine's memory: from 512 MiB (`nano`) upward it must be
//! somebody else than Postgres who is ended when there is too little.

use std::fs;

use serde::{Deserialize, Serialize};

/// The machine's memory in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Memory(pub u64);

impl Memory {
    /// Of this machine; a small one where that cannot be told.
    pub(crate) fn detect() -> Self {
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self::parse(&text).unwrap_or(Self(1024))
    }

    fn parse(meminfo: &str) -> Option<Self> {
        let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(Self(kib / 1024))
    }

    /// The one that was used before, unless the machine was given another size: kernels report a
    /// little more or less, and that is no reason to restart a Postgres.
    pub(crate) fn or_before(self, before: Option<Self>) -> Self {
        match before {
            Some(before) if before.0.abs_diff(self.0) <= before.0 / 8 => before,
            _ => self,
        }
    }

    /// Connections of PostgREST to Postgres, and of the server to PostgREST.
    pub(crate) fn postgrest_pool(self) -> u64 {
        (self.0 / 64).clamp(10, 50)
    }

    /// Limits in MiB. Together they may be more than there is: few need theirs at the same time.
    pub(crate) fn insforge_limit(self) -> u64 {
        (self.0 / 2).max(384)
    }

    pub(crate) fn postgrest_limit(self) -> u64 {
        (self.0 / 8).max(96)
    }

    /// Functions are the user's own code: they can take down themselves.
    pub(crate) fn deno_limit(self) -> u64 {
        (self.0 / 4).max(160)
    }

    /// Settings of postgresql.conf.
    pub(crate) fn postgres_settings(self) -> [(&'static str, String); 5] {
        let mib = |value: u64| format!("{value}MB");
        // A quarter is the manual's advice where Postgres has its machine for itself.
        let share = if self.0 < 4096 { 8 } else { 4 };
        [
            ("shared_buffers", mib((self.0 / share).clamp(32, 16_384))),
            ("effective_cache_size", mib((self.0 / 2).max(64))),
            ("maintenance_work_mem", mib((self.0 / 32).clamp(16, 1024))),
            ("work_mem", mib((self.0 / 512).clamp(2, 64))),
            ("max_connections", (self.0 / 16).clamp(100, 500).to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_leaves_room_on_the_smallest_machine_and_uses_a_big_one() {
        let shared = |mib| Memory(mib).postgres_settings()[0].1.clone();
        assert_eq!(shared(460), "57MB");
        assert_eq!(shared(15_800), "3950MB");
        assert_eq!(Memory(460).postgrest_pool(), 10);
        assert_eq!(Memory(15_800).postgrest_pool(), 50);
    }

    #[test]
    fn only_another_size_of_machine_counts_as_another_memory() {
        assert_eq!(Memory(3900).or_before(Some(Memory(3850))), Memory(3850));
        assert_eq!(Memory(7800).or_before(Some(Memory(3850))), Memory(7800));
        assert_eq!(Memory(3900).or_before(None), Memory(3900));
        assert_eq!(
            Memory::parse("MemTotal:  4015624 kB\nMemFree: 1 kB"),
            Some(Memory(3921))
        );
        assert_eq!(Memory::parse("nothing"), None);
    }
}
