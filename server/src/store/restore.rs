//! A data directory that a restore makes: claimed, filled in a folder of its own, and
//! moved into place in one go. Every call here may block.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use prefd_engine::{DirectoryLock, Error};

use crate::store::data_dir::{UNFINISHED, UnfinishedRestore, private_folder, refuse_unfinished};

/// The store's own lock, which holds nothing.
const LOCK: &str = "lock";
/// What a backup has, the manifest's folder last: a directory without a log is no store.
const FOLDERS: [&str; 2] = ["blobs", "log"];

/// Why a directory cannot be restored to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RestoreDirectoryError {
    #[error("{} is not empty: {}", data_dir.display(), found.display())]
    NotEmpty { data_dir: PathBuf, found: PathBuf },
    #[error("cannot {what} {}: {source}", path.display())]
    System {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{0}")]
    Locked(Error),
}

fn system(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RestoreDirectoryError {
    let path = path.to_owned();
    move |source| RestoreDirectoryError::System { what, path, source }
}

/// A directory that is restored to.
pub(crate) struct RestoreDirectory<'a> {
    data_dir: &'a Path,
    unfinished: PathBuf,
    /// Held to the end: nobody else restores there, and no server starts.
    _lock: DirectoryLock,
}

impl<'a> RestoreDirectory<'a> {
    /// Claims a directory that is empty, or is missing and made, and removes what an
    /// interrupted restore has left in it.
    pub(crate) fn claim(data_dir: &'a Path) -> Result<Self, RestoreDirectoryError> {
        private_folder(data_dir).map_err(system("make", data_dir))?;
        // Before anything is made in it.
        refuse_others(data_dir)?;
        let lock = DirectoryLock::acquire(data_dir).map_err(RestoreDirectoryError::Locked)?;
        for folder in refuse_others(data_dir)?.iter().filter(|f| f.exists()) {
            fs::remove_dir_all(folder).map_err(system("remove", folder))?;
            sync(data_dir)?;
        }
        Ok(Self {
            data_dir,
            unfinished: data_dir.join(UNFINISHED),
            _lock: lock,
        })
    }

    /// Makes the folder that a backup's files are put in. From here on the directory is
    /// refused by everybody else, until [`Self::finish`].
    pub(crate) fn begin(&self) -> Result<&Path, RestoreDirectoryError> {
        private_folder(&self.unfinished).map_err(system("make", &self.unfinished))?;
        Ok(&self.unfinished)
    }

    /// Removes what is not right and so is of no use. Where even this fails, the folder
    /// says so.
    pub(crate) fn abandon(self) {
        let _ = fs::remove_dir_all(&self.unfinished);
    }

    /// Moves what was checked to where a server looks for it.
    pub(crate) fn finish(self) -> Result<(), RestoreDirectoryError> {
        put_in_place(&self.unfinished, self.data_dir)
    }
}

/// Refuses a directory with anything in it but what a restore has left that did not end,
/// which this returns.
fn refuse_others(data_dir: &Path) -> Result<Vec<PathBuf>, RestoreDirectoryError> {
    let leftovers = leftovers(data_dir);
    for found in fs::read_dir(data_dir).map_err(system("list", data_dir))? {
        let found = found.map_err(system("list", data_dir))?.path();
        let is_lock = found.file_name().is_some_and(|name| name == LOCK);
        if !is_lock && !leftovers.contains(&found) {
            return Err(RestoreDirectoryError::NotEmpty {
                data_dir: data_dir.to_owned(),
                found,
            });
        }
    }
    Ok(leftovers)
}

/// What a restore that did not end may have left in a directory. The folder that tells of it
/// goes last, so that until then nobody takes the rest for a store.
fn leftovers(data_dir: &Path) -> Vec<PathBuf> {
    match refuse_unfinished(data_dir) {
        Ok(()) => Vec::new(),
        Err(UnfinishedRestore(unfinished)) => {
            let moved = FOLDERS.iter().map(|folder| data_dir.join(folder));
            moved.chain([unfinished]).collect()
        }
    }
}

/// Moves what was checked to where a server looks for it. Until the last step there is no
/// log, and the folder that says why.
fn put_in_place(unfinished: &Path, data_dir: &Path) -> Result<(), RestoreDirectoryError> {
    for folder in FOLDERS {
        let from = unfinished.join(folder);
        if from.exists() {
            fs::rename(&from, data_dir.join(folder)).map_err(system("move", &from))?;
        }
    }
    sync(data_dir)?;
    fs::remove_dir_all(unfinished).map_err(system("remove", unfinished))?;
    sync(data_dir)
}

fn sync(folder: &Path) -> Result<(), RestoreDirectoryError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(system("sync", folder))
}
