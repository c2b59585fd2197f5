//! File systems in image files, mounted through loop devices. A test can fill such a file system,
//! or copy its image at one moment.
//!
//! Only tests that run in their own mount namespace may use this, see
//! [`crate::machine::ensure_isolated`]. The kernel frees a loop device after its last unmount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The kind of a file system.
#[derive(Debug, Clone, Copy)]
pub enum Format {
    /// Ext4 without blocks reserved for root.
    Ext4,
    /// Ext4 like [`Self::Ext4`], with the given number of inodes.
    Ext4Inodes(u32),
    /// XFS with shared blocks (reflink), so that a large file can be copied almost instantly.
    XfsReflink,
}

/// A mounted file system. Dropping it unmounts the file system and keeps the image.
#[derive(Debug)]
pub struct LoopMount {
    /// The mount point.
    pub path: PathBuf,
}

impl LoopMount {
    /// Creates a file system of `bytes` bytes in a new image file, and mounts it at `at`.
    pub fn make(format: Format, image: &Path, bytes: u64, at: &Path) -> Self {
        fs::File::create_new(image).unwrap().set_len(bytes).unwrap();
        match format {
            // The journal and lazy initialization stay enabled, because a power cut can
            // interrupt them.
            Format::Ext4 => run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(image)),
            Format::Ext4Inodes(inodes) => run(Command::new("mkfs.ext4")
                .args(["-q", "-m", "0", "-N", &inodes.to_string()])
                .arg(image)),
            Format::XfsReflink => {
                run(Command::new("mkfs.xfs")
                    .args(["-q", "-m", "reflink=1"])
                    .arg(image));
            }
        }
        Self::mount(image, at)
    }

    /// Mounts the file system in an image file. The kernel replays its journal.
    pub fn mount(image: &Path, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(image)
            .arg(at));
        Self {
            path: at.to_owned(),
        }
    }
}

impl Drop for LoopMount {
    fn drop(&mut self) {
        // A server that was just killed may still have files open for a moment.
        let unmounted = Command::new("umount")
            .arg("--lazy")
            .arg(&self.path)
            .status();
        if !std::thread::panicking() {
            assert!(unmounted.unwrap().success());
        }
    }
}

/// Runs a command. Panics if it fails.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
}
