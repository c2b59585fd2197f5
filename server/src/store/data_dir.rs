//! What every way into a data directory looks at first, and how its folders are made.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use prefd_engine::Error;

use crate::store::cause::cause;

/// The folder that a restore works in. While it exists, nobody opens the directory.
pub(super) const UNFINISHED: &str = "restoring";
/// Nobody but the owner reads what users keep.
const FOLDER_MODE: u32 = 0o700;

/// The directory holds what an interrupted restore has left.
#[derive(Debug, thiserror::Error)]
#[error("{} is of a restore that did not end: run prefd restore again", .0.display())]
pub(crate) struct UnfinishedRestore(pub(super) PathBuf);

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OpenError {
    #[error(transparent)]
    Unfinished(#[from] UnfinishedRestore),
    #[error("{0}{cause}", cause = cause(.0))]
    Store(#[from] Error),
}

/// Refuses a directory in which a restore was interrupted: opened, it would become an empty
/// store.
pub(super) fn refuse_unfinished(data_dir: &Path) -> Result<(), UnfinishedRestore> {
    let unfinished = data_dir.join(UNFINISHED);
    if unfinished.exists() {
        return Err(UnfinishedRestore(unfinished));
    }
    Ok(())
}

/// Makes a folder, and those above it, where they are missing, for the owner only.
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    let mut folder = DirBuilder::new();
    folder.recursive(true).mode(FOLDER_MODE).create(path)
}

/// Whether a backup may hold a file of this path: `log/manifest`, `log/00000001.seg`, `log/00000001.sum`, `blobs/0000000000000001.blob`:
/// nothing that could lie anywhere else.
pub(crate) fn is_file_of_a_store(path: &str) -> bool {
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
