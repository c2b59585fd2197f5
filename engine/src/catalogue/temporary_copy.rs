//! A temporary copy of the catalogue's files, for checks that must not change the original. sled
//! changes its files when it opens them, and cannot open them for reading only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::platform::fs::{OWNER_ONLY_DIR, OWNER_ONLY_FILE};

/// A private directory in the directory for temporary files. Dropping this value removes the
/// directory.
pub(super) struct TemporaryCopy(PathBuf);

impl TemporaryCopy {
    /// Copies a directory with its files and subdirectories.
    pub(super) fn of(dir: &Path) -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let name = format!("prefd-catalogue-{:016x}", u64::from_le_bytes(random));
        let copy = Self(std::env::temp_dir().join(name));
        create_dir(&copy.0)?;
        copy_entries(dir, &copy.0)?;
        Ok(copy)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryCopy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn create_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(OWNER_ONLY_DIR).create(path)
}

/// The copies have the permissions of new files, because the originals may be read-only.
fn copy_entries(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            create_dir(&copy)?;
            copy_entries(&entry.path(), &copy)?;
            continue;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(OWNER_ONLY_FILE)
            .open(&copy)?;
        io::copy(&mut File::open(entry.path())?, &mut file)?;
    }
    Ok(())
}
