//! Checks a data directory before the store in it is opened, and creates private directories.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use prefd_engine::Error;

use crate::store::cause::cause;
use crate::store::limits::UnstorableLimits;

/// Name of the subdirectory that a restore writes to. While this subdirectory exists, `prefd
/// serve` and the commands that accept a data directory refuse to open the data directory.
pub(super) const UNFINISHED: &str = "restoring";
/// Mode of new directories. Only the owner can access the files in a directory with this mode.
const DIR_MODE: u32 = 0o700;
/// The bit of a mode that lets every user of the machine write.
const WRITABLE_BY_EVERYONE: u32 = 0o002;
/// The directories in a data directory.
const STORE_DIRS: [&str; 3] = ["log", "blobs", "catalogue"];

/// The data directory contains the files of an unfinished restore. The field is the path of the
/// directory that the restore writes to.
#[derive(Debug, thiserror::Error)]
#[error("{} was left by an unfinished restore: run prefd restore again", .0.display())]
pub(crate) struct UnfinishedRestore(pub(super) PathBuf);

/// The reason why a store was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OpenError {
    #[error(transparent)]
    Unfinished(#[from] UnfinishedRestore),
    #[error(transparent)]
    Limits(#[from] UnstorableLimits),
    #[error("{0}{cause}", cause = cause(.0))]
    Store(#[from] Error),
}

/// Rejects a directory in which a restore was interrupted. Opening a directory after an interrupted
/// restore could create an empty store.
pub(super) fn refuse_unfinished(data_dir: &Path) -> Result<(), UnfinishedRestore> {
    let unfinished = data_dir.join(UNFINISHED);
    if unfinished.exists() {
        return Err(UnfinishedRestore(unfinished));
    }
    Ok(())
}

/// Returns the directories of a store that every user of the machine can write to.
pub(crate) fn writable_by_everyone(data_dir: &Path) -> Vec<PathBuf> {
    let folders = STORE_DIRS.iter().map(|name| data_dir.join(name));
    let directories = [data_dir.to_owned()].into_iter().chain(folders);
    let is_writable = |path: &PathBuf| {
        let mode = path
            .metadata()
            .map(|metadata| metadata.permissions().mode());
        mode.is_ok_and(|mode| mode & WRITABLE_BY_EVERYONE != 0)
    };
    directories.filter(is_writable).collect()
}

/// Creates a directory and its missing parents. Only the owner can access the new directories.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(DIR_MODE).create(path)
}

/// Returns true if a relative path is a path of a store file, such as `log/manifest`,
/// `log/00000001.seg`, `log/00000001.sum` or `blobs/0000000000000001.blob`. A backup with any other
/// path is rejected, because the path could lead out of the data directory.
pub(crate) fn is_store_file(path: &str) -> bool {
    let is_id = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
    };
    match path.split_once('/') {
        Some(("log", "manifest")) => true,
        Some(("log", name)) => {
            let id = name
                .strip_suffix(".seg")
                .or_else(|| name.strip_suffix(".sum"));
            id.is_some_and(|id| is_id(id, 8))
        }
        Some(("blobs", name)) => name.strip_suffix(".blob").is_some_and(|id| is_id(id, 16)),
        _ => false,
    }
}
