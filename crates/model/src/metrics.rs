//! What is measured of a project's machine (contract/platform-api.md 13.1).

use chrono::TimeDelta;

use crate::agent_protocol::MachineSample;
use crate::text_enum;

text_enum!(
    /// How far back.
    MetricsRange ("range") {
        Hour = "1h",
        SixHours = "6h",
        Day = "24h",
        Week = "7d",
    }
);

text_enum!(
    /// What is measured: percent, and bytes per second.
    MachineMetric ("metric") {
        CpuUsage = "cpu_usage",
        MemoryUsage = "memory_usage",
        DiskUsage = "disk_usage",
        NetworkIn = "network_in",
        NetworkOut = "network_out",
    }
);

impl MetricsRange {
    pub const fn length(self) -> TimeDelta {
        match self {
            Self::Hour => TimeDelta::hours(1),
            Self::SixHours => TimeDelta::hours(6),
            Self::Day => TimeDelta::hours(24),
            Self::Week => TimeDelta::days(7),
        }
    }
}

impl MachineMetric {
    pub const fn of(self, sample: &MachineSample) -> f64 {
        match self {
            Self::CpuUsage => sample.cpu_usage,
            Self::MemoryUsage => sample.memory_usage,
            Self::DiskUsage => sample.disk_usage,
            Self::NetworkIn => sample.network_in,
            Self::NetworkOut => sample.network_out,
        }
    }
}
