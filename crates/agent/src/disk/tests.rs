//! Against a made-up `/proc` and `/sys`, and programs that only note how they were called.

use std::{
    cell::RefCell, os::unix::fs::symlink, os::unix::process::ExitStatusExt, process::ExitStatus,
};

use tempfile::TempDir;

use super::*;

const GIB: u64 = (1 << 30) / SECTOR;

/// The machine's disk, as the kernel shows it.
struct Lab {
    dir: TempDir,
    calls: RefCell<Vec<String>>,
    /// What fails: program, what it says, whether that was on standard output.
    fails: RefCell<Option<(&'static str, &'static str)>>,
}

impl Lab {
    /// A disk of `disk` GiB whose first partition has `partition` and is mounted at `/`.
    fn new(kind: &str, disk: u64, partition: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lab = Self {
            dir,
            calls: RefCell::default(),
            fails: RefCell::default(),
        };
        let mounts = format!(
            "21 1 259:1 / / rw,relatime shared:1 - {kind} /dev/root rw\n\
             22 21 0:20 / /proc rw - proc proc rw\n\
             23 21 0:21 / /run rw - tmpfs tmpfs rw\n\
             24 21 259:9 / /var/lib/my\\040data rw - xfs /dev/nvme1n1 rw\n"
        );
        lab.write("proc/self/mountinfo", &mounts);
        lab.resize(disk, partition);
        lab.write("sys/devices/pci0/nvme1n1/size", &(8 * GIB).to_string());
        fs::create_dir_all(lab.path("sys/dev/block")).unwrap();
        for (number, device) in [("259:1", "nvme0n1/nvme0n1p1"), ("259:9", "nvme1n1")] {
            let device = format!("../../devices/pci0/{device}");
            symlink(device, lab.path("sys/dev/block").join(number)).unwrap();
        }
        lab
    }

    fn resize(&self, disk: u64, partition: u64) {
        let at = "sys/devices/pci0/nvme0n1";
        self.write(&format!("{at}/size"), &format!("{}\n", disk * GIB));
        self.write(&format!("{at}/nvme0n1p1/partition"), "1\n");
        self.write(&format!("{at}/nvme0n1p1/start"), "2048\n");
        // What a whole disk leaves: the start, and the second table of partitions.
        let size = partition * GIB - 2048 - 34;
        self.write(&format!("{at}/nvme0n1p1/size"), &format!("{size}\n"));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn disks(&self, paths: &[&str]) -> Disks<&Self> {
        Disks {
            commands: self,
            proc: self.path("proc"),
            sys: self.path("sys"),
            paths: paths.iter().map(PathBuf::from).collect(),
            grown: HashMap::new(),
        }
    }

    fn take_calls(&self) -> Vec<String> {
        self.calls.take()
    }
}

impl Commands for &Lab {
    async fn run(
        &self,
        program: &Path,
        args: &[&str],
        _within: Duration,
    ) -> Result<Output, CommandError> {
        let program = program.to_str().unwrap();
        self.calls
            .borrow_mut()
            .push(format!("{program} {}", args.join(" ")));
        let said = match *self.fails.borrow() {
            Some((failing, said)) if failing == program => Some(said),
            _ => None,
        };
        if program == "growpart" && said.is_none() {
            let disk = read_number(&self.path("sys/devices/pci0/nvme0n1/size")).unwrap() / GIB;
            self.resize(disk, disk);
        }
        Ok(Output {
            status: ExitStatus::from_raw(if said.is_some() { 256 } else { 0 }),
            stdout: said.unwrap_or_default().into(),
            stderr: Vec::new(),
        })
    }
}

#[tokio::test]
async fn a_larger_volume_becomes_a_larger_partition_and_file_system() {
    let lab = Lab::new("ext4", 8, 8);
    let mut disks = lab.disks(&["/", "/var/lib/insforge"]);
    disks.grow().await.unwrap();
    // At the start it cannot be known, so it is tried; one file system once.
    assert_eq!(lab.take_calls(), ["resize2fs /dev/nvme0n1p1"]);
    disks.grow().await.unwrap();
    assert!(lab.take_calls().is_empty(), "nothing has changed");

    lab.resize(20, 8);
    disks.grow().await.unwrap();
    assert_eq!(
        lab.take_calls(),
        ["growpart /dev/nvme0n1 1", "resize2fs /dev/nvme0n1p1"]
    );
    disks.grow().await.unwrap();
    assert!(lab.take_calls().is_empty());
}

#[tokio::test]
async fn a_data_disk_of_its_own_has_no_partition_and_xfs_grows_by_its_mount() {
    let lab = Lab::new("xfs", 8, 8);
    let mut disks = lab.disks(&["/", "/var/lib/my data/insforge", "/run/nothing"]);
    disks.grow().await.unwrap();
    assert_eq!(
        lab.take_calls(),
        ["xfs_growfs /", "xfs_growfs /var/lib/my data"]
    );
    lab.write("sys/devices/pci0/nvme1n1/size", &(30 * GIB).to_string());
    disks.grow().await.unwrap();
    assert_eq!(lab.take_calls(), ["xfs_growfs /var/lib/my data"]);
}

#[tokio::test]
async fn trouble_is_told_until_it_is_over_and_tried_again() {
    let lab = Lab::new("ext4", 20, 8);
    *lab.fails.borrow_mut() = Some(("resize2fs", "Permission\n denied"));
    let mut disks = lab.disks(&["/"]);
    let error = disks.grow().await.unwrap_err().to_string();
    assert_eq!(error, "`resize2fs` failed: Permission denied");
    lab.take_calls();
    *lab.fails.borrow_mut() = None;
    disks.grow().await.unwrap();
    assert_eq!(lab.take_calls(), ["resize2fs /dev/nvme0n1p1"]);

    let missing = lab.path("proc/self/mountinfo");
    fs::remove_file(missing).unwrap();
    let error = disks.grow().await.unwrap_err().to_string();
    assert!(error.starts_with("cannot see the disk of /"), "{error}");
}

/// Another partition follows: `growpart` says so with a failure, which is none.
#[tokio::test]
async fn a_partition_that_cannot_grow_is_left_alone() {
    let lab = Lab::new("ext4", 20, 8);
    *lab.fails.borrow_mut() = Some(("growpart", "NOCHANGE: partition 1 is size 1"));
    let mut disks = lab.disks(&["/"]);
    disks.grow().await.unwrap();
    assert_eq!(
        lab.take_calls(),
        ["growpart /dev/nvme0n1 1", "resize2fs /dev/nvme0n1p1"]
    );
    disks.grow().await.unwrap();
    assert!(lab.take_calls().is_empty(), "and not asked again");
}

#[tokio::test(start_paused = true)]
async fn it_looks_once_a_minute_and_reports_changes_alone() {
    let lab = Lab::new("ext4", 20, 8);
    *lab.fails.borrow_mut() = Some(("growpart", "no"));
    let (trouble, mut seen) = watch::channel(None);
    let disks = lab.disks(&["/"]);
    let watch = async {
        seen.changed().await.unwrap();
        let told = seen.borrow_and_update().clone().unwrap();
        assert_eq!(
            told,
            "a file system could not be grown: `growpart` failed: no"
        );
        sleep(LOOK_EVERY * 5 / 2).await;
        assert!(!seen.has_changed().unwrap(), "told once");
        *lab.fails.borrow_mut() = None;
        seen.changed().await.unwrap();
        assert_eq!(*seen.borrow(), None);
    };
    tokio::select! {
        never = disks.keep_grown(&trouble) => match never {},
        () = watch => {}
    }
    let calls = lab.take_calls();
    let looks = calls.iter().filter(|call| call.starts_with("growpart"));
    assert_eq!(looks.count(), 4, "{calls:?}");
}
