//! Power cuts: the server runs under load on ext4, in an image on an xfs file system,
//! and the image is copied in one moment. The copy is what a disk holds whose machine
//! has lost its power: what had not been handed to the device is not in it.
//!
//! A device that loses what it was handed but not told to flush is another matter, and
//! a simulated disk's: the copy has everything that was handed over.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::BINARY;
use prefd_tests::crash_model::{Allowed, Model, allowed_between, check, count_lost};
use prefd_tests::load::{CONNECTIONS, Load};
use prefd_tests::loop_mount::{Format, LoopMount, run};
use prefd_tests::machine::{has_strace, is_isolated, report};
use prefd_tests::random::{Random, seeds};
use prefd_tests::server::Launch;
use prefd_tests::strace::inject;

const FILE_SYSTEMS: [&str; 2] = ["xfs", "ext4"];
const OUTER_BYTES: u64 = 4 << 30;
const INNER_BYTES: u64 = 512 << 20;
/// Writes between two cuts, at most.
const CUT_WRITES: u64 = 300;
/// Cuts of the control.
const CONTROL_CUTS: u64 = 5;

/// How many cuts: `PREFD_TEST_CUTS`, or 20.
fn cuts() -> u64 {
    std::env::var("PREFD_TEST_CUTS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(20)
}

/// A disk whose power can be cut. The order of the fields is that of the unmounting.
struct Rig {
    disk: LoopMount,
    outer: LoopMount,
    _dir: tempfile::TempDir,
}

/// What a power cut has left, mounted.
struct Remains {
    mount: LoopMount,
    image: PathBuf,
    /// How long the copy took.
    cut: Duration,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("outer.img");
        let outer = LoopMount::make(
            Format::XfsReflink,
            &image,
            OUTER_BYTES,
            &dir.path().join("outer"),
        );
        // The mount keeps it: should we be killed, nothing large is left.
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

    fn cut(&self) -> Remains {
        let image = self.outer.path.join("cut.img");
        let began = Instant::now();
        run(Command::new("cp")
            .arg("--reflink=always")
            .args([&self.outer.path.join("disk.img"), &image]));
        let cut = began.elapsed();
        let mount = LoopMount::mount(&image, &self.outer.path.with_file_name("remains"));
        Remains { mount, image, cut }
    }

    /// Cuts the power `count` times while `launch` runs under load, and has each of the
    /// remains judged. How long the cuts took.
    fn cut_under_load(
        &self,
        launch: &Launch,
        count: u64,
        mut random: Random,
        mut judge: impl FnMut(u64, &Path, &Allowed),
    ) -> Vec<Duration> {
        let server = launch.start();
        let model = Arc::<Model>::default();
        let load = Load::start(&server, &model, random.draw());
        let mut took = Vec::new();
        for number in 1..=count {
            let attempts = CONNECTIONS + random.below(CUT_WRITES);
            load.wait_for_attempts(model.attempts() + attempts);
            let before = model.histories();
            let remains = self.cut();
            let allowed = allowed_between(&before, &model.histories());
            took.push(remains.cut);
            judge(number, &remains.mount.path.join("data"), &allowed);
            let Remains { mount, image, .. } = remains;
            drop(mount);
            fs::remove_file(image).unwrap();
        }
        load.stop();
        assert!(server.stop().success());
        took
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut() {
    if !is_isolated("nothing_acknowledged_is_lost_by_a_power_cut", &FILE_SYSTEMS) {
        return;
    }
    let seed = seeds(1).start;
    let rig = Rig::new();
    let launch = Launch::new(BINARY, &rig.data_dir()).with(&["--segment-bytes", "131072"]);
    let began = Instant::now();
    let judge = |number: u64, dir: &Path, allowed: &Allowed| {
        let context = format!("PREFD_TEST_SEED={seed}, cut {number}");
        check(dir, allowed, &context);
    };
    let mut took = rig.cut_under_load(&launch, cuts(), Random::new(seed), judge);
    took.sort();
    report(&format!(
        "{} power cuts, {:?} in all; the copy took {:?} (median), {:?} (longest)",
        took.len(),
        began.elapsed(),
        took[took.len() / 2],
        took[took.len() - 1]
    ));
}

/// The control: where no sync reaches the disk, cuts must be seen to lose writes.
#[test]
fn what_is_not_synced_is_seen_to_be_lost() {
    if !has_strace() || !is_isolated("what_is_not_synced_is_seen_to_be_lost", &FILE_SYSTEMS) {
        return;
    }
    let seed = seeds(1).start;
    let rig = Rig::new();
    // The store itself is made durably: it is the writes that are to be lost.
    assert!(
        Launch::new(BINARY, &rig.data_dir())
            .start()
            .stop()
            .success()
    );
    let launch = Launch::new(BINARY, &rig.data_dir());
    let launch = inject(&launch, "fdatasync,fsync", "retval=0");
    let mut lost = 0;
    let judge = |_, dir: &Path, allowed: &Allowed| lost += count_lost(dir, allowed);
    rig.cut_under_load(&launch, CONTROL_CUTS, Random::new(seed), judge);
    report(&format!(
        "{lost} acknowledged writes lost by {CONTROL_CUTS} power cuts without a sync"
    ));
    assert!(lost > 0);
}
