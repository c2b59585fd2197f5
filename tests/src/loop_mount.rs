//! File systems in files, mounted over a loop device: to be filled to the brim, or to be
//! copied in one moment.
//!
//! Only for tests that [`crate::machine::is_isolated`] has put into namespaces of their
//! own. The loop devices are freed with the last mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a file system is made with.
#[derive(Debug, Clone, Copy)]
pub enum Format {
    /// Ext4, all of whose space is for everyone.
    Ext4,
    /// XFS whose files can share blocks, so that a copy takes a moment.
    XfsReflink,
}

/// A mounted file system. Unmounted when dropped; its image stays.
#[derive(Debug)]
pub struct LoopMount {
    /// Where it is mounted.
    pub path: PathBuf,
}

impl LoopMount {
    /// Makes a file system of `bytes` in a new file, and mounts it.
    pub fn make(format: Format, image: &Path, bytes: u64, at: &Path) -> Self {
        fs::File::create_new(image).unwrap().set_len(bytes).unwrap();
        match format {
            // Its journal, and tables that are made when they are needed, are part of
            // what a cut can hit.
            Format::Ext4 => run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(image)),
            Format::XfsReflink => {
                run(Command::new("mkfs.xfs")
                    .args(["-q", "-m", "reflink=1"])
                    .arg(image));
            }
        }
        Self::mount(image, at)
    }

    /// Mounts the file system in a file; its journal is replayed.
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
        // A server that was just killed may hold it for a moment longer.
        let unmounted = Command::new("umount")
            .arg("--lazy")
            .arg(&self.path)
            .status();
        if !std::thread::panicking() {
            assert!(unmounted.unwrap().success());
        }
    }
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
