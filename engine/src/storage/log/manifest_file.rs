//! Reads and replaces the manifest file. The replacement is atomic: the new manifest is written
//! under another name and synced, then the file is renamed, and then the directory is synced.

use std::io;
use std::path::{Path, PathBuf};

use crate::format::codec;
use crate::format::manifest::{HEADER_BYTES, Manifest};
use crate::model::error::{Error, Result};
use crate::platform::fs::Fs;
use crate::storage::io::{install_file, read_at, stage_file};

fn temporary_path(dir: &Path) -> PathBuf {
    dir.join("manifest.new")
}

/// Reads the manifest of the log in `dir`. Returns `None` if there is no manifest.
///
/// # Errors
/// - [`Error::Corrupt`] or [`Error::Unreadable`]: the manifest is damaged.
/// - [`Error::UnsupportedFormat`]: the manifest was written by a newer version of prefd.
/// - [`Error::Io`]: the file could not be opened, or its length could not be read.
pub(crate) fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<Manifest>> {
    let path = Manifest::path(dir);
    let file = match fs.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", &path, error)),
    };
    let len = file
        .len()
        .map_err(|error| Error::io("stat", &path, error))?;
    let too_long = || Error::corrupt(&path, 0, "the manifest is too long");
    if len > codec::MAX_ENCODED_BYTES + HEADER_BYTES as u64 {
        return Err(too_long());
    }
    let len = usize::try_from(len).map_err(|_| too_long())?;
    let bytes = read_at(&*file, || path.clone(), 0, len)?;
    Manifest::decode(&path, &bytes).map(Some)
}

/// Replaces the manifest of the log in `dir` durably.
pub(crate) fn write(manifest: &Manifest, fs: &dyn Fs, dir: &Path) -> Result<()> {
    stage(manifest, fs, dir)?;
    install(fs, dir)
}

/// Writes the new manifest to a temporary file and syncs the file. The current manifest remains
/// unchanged, even after an error.
pub(crate) fn stage(manifest: &Manifest, fs: &dyn Fs, dir: &Path) -> Result<()> {
    let bytes = manifest.encode(&Manifest::path(dir))?;
    stage_file(fs, &temporary_path(dir), &bytes)
}

/// Replaces the manifest durably with the staged manifest. After an error, it is unknown whether
/// the old or the new manifest is on the disk.
pub(crate) fn install(fs: &dyn Fs, dir: &Path) -> Result<()> {
    install_file(fs, dir, &temporary_path(dir), &Manifest::path(dir))
}
