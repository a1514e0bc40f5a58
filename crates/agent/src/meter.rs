//! How busy the machine is: processor, memory, disk and network, once a minute (contract/platform-api.md 13.1). Of the
//! whole computer; on a laptop, where many machines are processes on one, all of them tell the same.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use cp_model::agent_protocol::MachineSample;
use sysinfo::{Disks, Networks, System};
use tokio::{sync::watch, time::sleep};

pub(crate) struct Meter {
    system: System,
    networks: Networks,
    disks: Disks,
    /// The file system that this lies on is the disk.
    path: PathBuf,
    since: Instant,
}

impl Meter {
    pub(crate) fn new(path: &Path) -> Result<Self, sysinfo::Error> {
        let mut system = System::new()?;
        system.refresh_cpu_usage();
        Ok(Self {
            system,
            networks: Networks::new_with_refreshed_list()?,
            disks: Disks::new_with_refreshed_list()?,
            path: path.canonicalize().unwrap_or_else(|_| path.to_owned()),
            since: Instant::now(),
        })
    }

    /// What was since the last look, and what is. None: this computer does not tell.
    #[allow(
        clippy::cast_precision_loss,
        reason = "bytes per second are known to fifteen digits"
    )]
    fn look(&mut self) -> Option<MachineSample> {
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        self.networks.refresh(true);
        self.disks.refresh(true);
        let (total, available) = (self.system.total_memory(), self.system.available_memory());
        let disk = disk_of(&self.disks, &self.path)?;
        let (mut received, mut sent) = (0, 0);
        for (_, network) in self
            .networks
            .iter()
            .filter(|(name, _)| leaves_machine(&name.to_string_lossy()))
        {
            received += network.received();
            sent += network.transmitted();
        }
        let sample = MachineSample {
            cpu_usage: f64::from(self.system.global_cpu_usage()).clamp(0.0, 100.0),
            memory_usage: used_percent(total, available)?,
            disk_usage: used_percent(disk.total_space(), disk.available_space())?,
            network_in: received as f64 / seconds,
            network_out: sent as f64 / seconds,
        };
        sample.check().is_ok().then_some(sample)
    }

    /// Looks every so often.
    pub(crate) async fn keep(
        mut self,
        every: Duration,
        samples: watch::Sender<Option<MachineSample>>,
    ) -> Infallible {
        loop {
            sleep(every).await;
            // Reads small files of the kernel's.
            if let Some(sample) = self.look() {
                samples.send_replace(Some(sample));
            }
        }
    }
}

/// The one whose mount point is the longest that the path begins with.
fn disk_of<'a>(disks: &'a Disks, path: &Path) -> Option<&'a sysinfo::Disk> {
    disks
        .iter()
        .filter(|disk| path.starts_with(disk.mount_point()))
        .max_by_key(|disk| disk.mount_point().as_os_str().len())
}

/// Not loopback, and not what containers talk through among themselves: that would count twice.
fn leaves_machine(interface: &str) -> bool {
    let inner = ["lo", "docker", "br-", "veth", "virbr", "cni"];
    !inner.iter().any(|prefix| interface.starts_with(prefix))
}

#[allow(
    clippy::cast_precision_loss,
    reason = "bytes of a disk are known to a fraction of a percent"
)]
fn used_percent(total: u64, available: u64) -> Option<f64> {
    let used = total.saturating_sub(available);
    (total > 0).then(|| used as f64 / total as f64 * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_within_the_machine_is_not_counted() {
        for inner in ["lo", "docker0", "br-3f1", "veth12ab"] {
            assert!(!leaves_machine(inner), "{inner}");
        }
        for outer in ["eth0", "ens5", "enp0s3", "wlan0"] {
            assert!(leaves_machine(outer), "{outer}");
        }
    }

    #[test]
    fn shares_are_percent() {
        assert_eq!(used_percent(200, 50), Some(75.0));
        assert_eq!(used_percent(0, 0), None);
        assert_eq!(used_percent(10, 20), Some(0.0));
    }
}
