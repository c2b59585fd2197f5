//! Reads and replaces the manifest file. The replacement is atomic: the new manifest is written
//! under another name and synced, then the file is renamed, and then the directory is synced.

use std::io;
use std::path::{Path, PathBuf};

use crate::format::codec;
use crate::format::manifest::{HEADER_BYTES, Manifest};
use crate::model::error::{Error, Result};
use crate::platform::fs::Fs;
use crate::storage::io::{install_file, list_if_present, read_at, stage_file};

fn temporary_path(dir: &Path) -> PathBuf {
    dir.join("manifest.new")
}

/// Reads the manifest of the log in `dir`. Returns `None` if the data directory has no store.
///
/// # Errors
/// - [`Error::Corrupt`] or [`Error::Unreadable`]: the manifest is damaged, or is missing although
///   other files of the store exist.
/// - [`Error::UnsupportedFormat`]: the manifest was written by a newer version of prefd.
/// - [`Error::Io`]: the file could not be opened, or its length could not be read.
pub(crate) fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<Manifest>> {
    let path = Manifest::path(dir);
    let file = match fs.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return check_no_files(fs, dir).map(|()| None);
        }
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

/// Checks that a data directory without a manifest has no other files of a store. The manifest is
/// written before all other files, so if one of them exists, the manifest or the log was lost. A
/// new store in this directory would have no documents, and would remove the blobs.
///
/// # Errors
/// [`Error::Corrupt`] with the path of such a file.
fn check_no_files(fs: &dyn Fs, dir: &Path) -> Result<()> {
    let data_dir = dir.parent().unwrap_or(dir);
    let has_extension = |path: &&PathBuf, extensions: &[&str]| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| extensions.contains(&extension))
    };
    let log = list_if_present(fs, dir)?;
    let blobs = list_if_present(fs, &data_dir.join("blobs"))?;
    // A catalogue that cannot be listed prevents no store, because the catalogue can be rebuilt.
    let catalogue = fs.list(&data_dir.join("catalogue")).unwrap_or_default();
    let found = log
        .iter()
        .find(|path| has_extension(path, &["seg", "sum"]))
        .or_else(|| blobs.iter().find(|path| has_extension(path, &["blob"])))
        .or_else(|| catalogue.first());
    found.map_or(Ok(()), |found| {
        let what = format!("the manifest is missing, but {} exists", found.display());
        Err(Error::corrupt(&Manifest::path(dir), 0, what))
    })
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
