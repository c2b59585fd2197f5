//! A data directory in which a restore was interrupted. Opened, it would become an empty
//! store, so every way in refuses it first.

use std::path::{Path, PathBuf};

/// The folder that a restore works in. While it exists, nobody opens the directory.
pub(crate) const UNFINISHED: &str = "restoring";

/// The directory holds what an interrupted restore has left.
#[derive(Debug, thiserror::Error)]
#[error("{} is of a restore that did not end: run prefd restore again", .0.display())]
pub(crate) struct UnfinishedRestore(pub(crate) PathBuf);

/// Refuses a directory in which a restore was interrupted.
pub(crate) fn refuse_unfinished(data_dir: &Path) -> Result<(), UnfinishedRestore> {
    let unfinished = data_dir.join(UNFINISHED);
    if unfinished.exists() {
        return Err(UnfinishedRestore(unfinished));
    }
    Ok(())
}
