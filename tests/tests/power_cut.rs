//! Power cuts. The server runs under load on ext4, in an image file on XFS. The image is copied
//! atomically, as a reflink. The copy is what a power cut would leave: writes that the kernel
//! had not handed to the device are missing.
//!
//! The copy contains every write that was handed to the device. A real device can also lose
//! writes that it was not told to flush. Tests on the simulated disk cover such devices.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::BINARY;
use prefd_tests::crash_model::{Allowed, CrashModel, allowed_between, check, count_lost};
use prefd_tests::load::{CONNECTIONS, Load};
use prefd_tests::loop_mount::{Format, LoopMount, run};
use prefd_tests::machine::{ensure_isolated, has_strace, report};
use prefd_tests::random::{Random, seeds};
use prefd_tests::server::Launch;
use prefd_tests::strace::inject;

const FILE_SYSTEMS: [&str; 2] = ["xfs", "ext4"];
const OUTER_BYTES: u64 = 4 << 30;
const INNER_BYTES: u64 = 512 << 20;
/// Maximum number of writes between two cuts, in addition to one per connection.
const CUT_WRITES: u64 = 300;
/// Number of cuts in the control experiment.
const CONTROL_CUTS: u64 = 5;

/// The number of cuts: `PREFD_TEST_CUTS`, or 20.
fn cuts() -> u64 {
    std::env::var("PREFD_TEST_CUTS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(20)
}

/// A disk whose power can be cut: an ext4 image on XFS. The fields are dropped in order, so the
/// inner file system is unmounted first.
struct PowerCutDisk {
    disk: LoopMount,
    outer: LoopMount,
    _dir: tempfile::TempDir,
}

/// A mounted copy of the disk, as a power cut would leave it.
struct DiskAfterCut {
    mount: LoopMount,
    image: PathBuf,
    /// Time that the copy took.
    copy_duration: Duration,
}

impl PowerCutDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("outer.img");
        let outer = LoopMount::make(
            Format::XfsReflink,
            &image,
            OUTER_BYTES,
            &dir.path().join("outer"),
        );
        // The mount keeps the removed image alive, so a killed test leaves no large file behind.
        fs::remove_file(image).unwrap();
        let disk = LoopMount::make(
            Format::Ext4,
            &outer.path.join("disk.img"),
            INNER_BYTES,
            &dir.path().join("disk"),
        );
        Self {
            disk,
            outer,
            _dir: dir,
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.disk.path.join("data")
    }

    fn cut(&self) -> DiskAfterCut {
        let image = self.outer.path.join("cut.img");
        let began = Instant::now();
        run(Command::new("cp")
            .arg("--reflink=always")
            .args([&self.outer.path.join("disk.img"), &image]));
        let copy_duration = began.elapsed();
        let mount = LoopMount::mount(&image, &self.outer.path.with_file_name("after_cut"));
        DiskAfterCut {
            mount,
            image,
            copy_duration,
        }
    }

    /// Runs the server under load, and cuts the power `count` times. Calls `check_store` with the
    /// number of the cut, the data directory in the copy, and the allowed documents. Returns the
    /// duration of each copy.
    fn cut_under_load(
        &self,
        launch: &Launch,
        count: u64,
        mut random: Random,
        mut check_store: impl FnMut(u64, &Path, &Allowed),
    ) -> Vec<Duration> {
        let server = launch.start();
        let model = Arc::<CrashModel>::default();
        let load = Load::start(&server, &model, random.draw());
        let mut durations = Vec::new();
        for number in 1..=count {
            let attempts = CONNECTIONS + random.below(CUT_WRITES);
            load.wait_for_attempts(model.attempts() + attempts);
            let before = model.histories();
            let copy = self.cut();
            let allowed = allowed_between(&before, &model.histories());
            durations.push(copy.copy_duration);
            check_store(number, &copy.mount.path.join("data"), &allowed);
            let DiskAfterCut { mount, image, .. } = copy;
            drop(mount);
            fs::remove_file(image).unwrap();
        }
        load.stop();
        assert!(server.stop().success());
        durations
    }
}

#[test]
fn power_cut_loses_no_acknowledged_write() {
    if !ensure_isolated("power_cut_loses_no_acknowledged_write", &FILE_SYSTEMS) {
        return;
    }
    let seed = seeds(1).start;
    let disk = PowerCutDisk::new();
    let launch = Launch::new(BINARY, &disk.data_dir()).with(&["--segment-bytes", "131072"]);
    let began = Instant::now();
    let check_store = |number: u64, dir: &Path, allowed: &Allowed| {
        let context = format!("PREFD_TEST_SEED={seed}, cut {number}");
        check(dir, allowed, &context);
    };
    let mut durations = disk.cut_under_load(&launch, cuts(), Random::new(seed), check_store);
    durations.sort();
    report(&format!(
        "{} power cuts in {:?}; duration of a copy: median {:?}, longest {:?}",
        durations.len(),
        began.elapsed(),
        durations[durations.len() / 2],
        durations[durations.len() - 1]
    ));
}

/// The control experiment: if no sync reaches the disk, power cuts must lose acknowledged
/// writes.
#[test]
fn power_cut_without_syncs_loses_acknowledged_writes() {
    if !has_strace()
        || !ensure_isolated(
            "power_cut_without_syncs_loses_acknowledged_writes",
            &FILE_SYSTEMS,
        )
    {
        return;
    }
    let seed = seeds(1).start;
    let disk = PowerCutDisk::new();
    // Create the store with working syncs, so that only later writes can be lost.
    assert!(
        Launch::new(BINARY, &disk.data_dir())
            .start()
            .stop()
            .success()
    );
    let launch = Launch::new(BINARY, &disk.data_dir());
    let launch = inject(&launch, "fdatasync,fsync", "retval=0");
    let mut lost = 0;
    let count_in_store = |_, dir: &Path, allowed: &Allowed| lost += count_lost(dir, allowed);
    disk.cut_under_load(&launch, CONTROL_CUTS, Random::new(seed), count_in_store);
    report(&format!(
        "{CONTROL_CUTS} power cuts without syncs lost {lost} acknowledged writes"
    ));
    assert!(
        lost > 0,
        "expected lost writes, because no sync took effect"
    );
}
