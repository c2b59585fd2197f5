//! Keeps other users of the machine from reading the catalogue, which contains the names of users
//! and clients.
//!
//! sled creates its files with permissions that depend on the umask of the process, and has no
//! setting for them.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::platform::fs::{Disk, Fs, OWNER_ONLY_DIR, OWNER_ONLY_FILE};

/// The bits of a mode that are permissions.
const PERMISSION_BITS: u32 = 0o7777;

/// Creates the catalogue's directory if it does not exist, and removes the access of other users to
/// the directory and to all its files.
pub(crate) fn make_private(dir: &Path) -> io::Result<()> {
    Disk.create_dir(dir)?;
    restrict(dir)
}

/// Removes the access of other users to a directory or a file of the catalogue, and to everything
/// in this directory.
pub(crate) fn restrict(path: &Path) -> io::Result<()> {
    let metadata = path.symlink_metadata()?;
    let mode = match metadata.file_type() {
        kind if kind.is_dir() => OWNER_ONLY_DIR,
        kind if kind.is_file() => OWNER_ONLY_FILE,
        // The store creates only directories and files.
        _ => return Ok(()),
    };
    if metadata.permissions().mode() & PERMISSION_BITS != mode {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            restrict(&entry?.path())?;
        }
    }
    Ok(())
}
