//! The target directory of a restore. A restore locks the directory, writes the files of the backup
//! to a subdirectory, and moves these files into place after verification. Every function in this
//! file may block.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use prefd_engine::{DirectoryLock, Error};

use crate::io_error::{IoError, io_error};
use crate::store::data_dir::{
    UNFINISHED, UnfinishedRestore, create_private_dir, refuse_unfinished,
};

/// Name of the lock file of a store.
const LOCK: &str = "lock";
/// The directories in a backup. `log` is moved into place last, because a directory without a log
/// is not a store.
const DIRS: [&str; 2] = ["blobs", "log"];
/// The directory for recovered files that an ext4 file system contains from the beginning.
const LOST_AND_FOUND: &str = "lost+found";

/// The reason why a directory cannot be the target of a restore.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RestoreDirectoryError {
    #[error("{} is not empty: it contains {}", data_dir.display(), found.display())]
    NotEmpty { data_dir: PathBuf, found: PathBuf },
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("{0}")]
    Locked(Error),
}

/// The target directory of a restore.
pub(crate) struct RestoreDirectory<'a> {
    data_dir: &'a Path,
    unfinished: PathBuf,
    /// The lock is held during the complete restore, so that neither another restore nor a server
    /// opens the directory.
    _lock: DirectoryLock,
}

impl<'a> RestoreDirectory<'a> {
    /// Locks the directory, and creates it if it does not exist. Removes the files of an
    /// interrupted restore.
    ///
    /// # Errors
    /// [`RestoreDirectoryError::NotEmpty`] if the directory contains other files.
    pub(crate) fn lock(data_dir: &'a Path) -> Result<Self, RestoreDirectoryError> {
        create_private_dir(data_dir).map_err(io_error("create", data_dir))?;
        // The directory is checked before the lock file is created, so that a directory with other
        // files is not changed.
        check_empty(data_dir)?;
        let lock = DirectoryLock::acquire(data_dir).map_err(RestoreDirectoryError::Locked)?;
        for leftover in check_empty(data_dir)?.iter().filter(|dir| dir.exists()) {
            fs::remove_dir_all(leftover).map_err(io_error("remove", leftover))?;
            sync(data_dir)?;
        }
        Ok(Self {
            data_dir,
            unfinished: data_dir.join(UNFINISHED),
            _lock: lock,
        })
    }

    /// Creates and returns the subdirectory for the files of the backup. Until [`Self::finish`] has
    /// removed this subdirectory, no server opens the data directory.
    pub(crate) fn begin(&self) -> Result<&Path, RestoreDirectoryError> {
        create_private_dir(&self.unfinished).map_err(io_error("create", &self.unfinished))?;
        Ok(&self.unfinished)
    }

    /// Removes the unpacked files of a backup that cannot be restored. If the removal fails, the
    /// subdirectory remains, so no server opens the data directory.
    pub(crate) fn abandon(self) {
        let _ = fs::remove_dir_all(&self.unfinished);
    }

    /// Moves the verified files into place.
    pub(crate) fn finish(self) -> Result<(), RestoreDirectoryError> {
        move_into_place(&self.unfinished, self.data_dir)
    }
}

/// Checks that the directory contains nothing except the lock file, `lost+found`, and the leftovers
/// of an unfinished restore. Returns the paths at which leftovers of an unfinished restore can
/// exist.
fn check_empty(data_dir: &Path) -> Result<Vec<PathBuf>, RestoreDirectoryError> {
    let leftovers = leftovers(data_dir);
    for found in fs::read_dir(data_dir).map_err(io_error("list", data_dir))? {
        let found = found.map_err(io_error("list", data_dir))?.path();
        let name = found.file_name().unwrap_or_default();
        let is_allowed = name == LOCK || (name == LOST_AND_FOUND && found.is_dir());
        if !is_allowed && !leftovers.contains(&found) {
            return Err(RestoreDirectoryError::NotEmpty {
                data_dir: data_dir.to_owned(),
                found,
            });
        }
    }
    Ok(leftovers)
}

/// Returns the paths at which leftovers of an unfinished restore can exist. The subdirectory that
/// marks the restore as unfinished is the last in the list and is removed last, so that the other
/// leftovers are never opened as a store.
fn leftovers(data_dir: &Path) -> Vec<PathBuf> {
    match refuse_unfinished(data_dir) {
        Ok(()) => Vec::new(),
        Err(UnfinishedRestore(unfinished)) => {
            let moved = DIRS.iter().map(|dir| data_dir.join(dir));
            moved.chain([unfinished]).collect()
        }
    }
}

/// Moves the verified files into place. The subdirectory of the restore is removed last, because no
/// server opens the data directory while the subdirectory exists.
fn move_into_place(unfinished: &Path, data_dir: &Path) -> Result<(), RestoreDirectoryError> {
    for dir in DIRS {
        let from = unfinished.join(dir);
        if from.exists() {
            fs::rename(&from, data_dir.join(dir)).map_err(io_error("move", &from))?;
        }
    }
    sync(data_dir)?;
    fs::remove_dir_all(unfinished).map_err(io_error("remove", unfinished))?;
    sync(data_dir)
}

fn sync(dir: &Path) -> Result<(), RestoreDirectoryError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    Ok(synced.map_err(io_error("sync", dir))?)
}
