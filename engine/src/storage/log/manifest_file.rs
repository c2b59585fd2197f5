//! The manifest's file. It is replaced as a whole: the new one is written to another
//! name, synced, renamed, and the directory is synced.

use std::io;
use std::path::{Path, PathBuf};

use crate::format::codec;
use crate::format::manifest::{HEADER_BYTES, Manifest};
use crate::model::error::{Error, Result};
use crate::platform::fs::Fs;
use crate::storage::io::{read_at, stage_file, switch_file};

fn temporary_path(dir: &Path) -> PathBuf {
    dir.join("manifest.new")
}

/// Reads the manifest of the log in `dir`; `None` if there is none.
///
/// # Errors
/// [`Error::Corrupt`], [`Error::UnsupportedFormat`], [`Error::Io`].
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

/// Makes this the manifest of the log in `dir`, durably.
pub(crate) fn write(manifest: &Manifest, fs: &dyn Fs, dir: &Path) -> Result<()> {
    stage(manifest, fs, dir)?;
    switch(fs, dir)
}

/// Writes the new manifest to a temporary file. After an error nothing has changed.
pub(crate) fn stage(manifest: &Manifest, fs: &dyn Fs, dir: &Path) -> Result<()> {
    let bytes = manifest.encode(&Manifest::path(dir))?;
    stage_file(fs, &temporary_path(dir), &bytes)
}

/// Replaces the manifest by the staged one. After an error it is unknown which of the two
/// is on the disk.
pub(crate) fn switch(fs: &dyn Fs, dir: &Path) -> Result<()> {
    switch_file(fs, dir, &temporary_path(dir), &Manifest::path(dir))
}
