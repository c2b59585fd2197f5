//! Checks that the directories of an open store are still at their paths.
//!
//! An operator can remove, rename or replace the data directory, or one of its subdirectories,
//! while the store is open. The open files would still accept writes, but the written data would be
//! lost when the store is closed, and new files would be created in the wrong directory. Therefore,
//! writing stops as soon as a directory is found to be missing. Writing stays stopped until the
//! store is opened again, even if the directory returns to its path, because some of the files may
//! have changed.
//!
//! The checks are made before each change of a directory ([`GuardedFs`]), and every
//! [`CHECK_INTERVAL`]. The path of the active segment is checked after each sync of the segment,
//! see [`crate::storage::log`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::model::error::{Error, Result};
use crate::platform::fs::{File, FileId, Fs};
use crate::platform::wakeup::Wakeup;
use crate::storage::io::check_path;
use crate::storage::lock::DirectoryLock;

/// Time between two checks of the directories. A shorter time would stop writing earlier, but would
/// wake an idle process more often.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The directories of an open store, and the lock of the data directory.
pub(crate) struct DirectoryWatch {
    fs: Arc<dyn Fs>,
    lock: DirectoryLock,
    subdirectories: OnceLock<Vec<Subdirectory>>,
    /// The first failed check. All later checks fail with the same error.
    failure: OnceLock<Error>,
    /// Stops [`Self::run`].
    pub(crate) wakeup: Wakeup,
}

/// A subdirectory of the data directory.
struct Subdirectory {
    path: PathBuf,
    /// The identity at the time when the store was opened.
    id: FileId,
    /// Keeps the directory open, so that its identity cannot be used again after its removal.
    _handle: Option<Arc<dyn File>>,
}

impl DirectoryWatch {
    pub(crate) fn new(fs: Arc<dyn Fs>, lock: DirectoryLock) -> Self {
        Self {
            fs,
            lock,
            subdirectories: OnceLock::new(),
            failure: OnceLock::new(),
            wakeup: Wakeup::default(),
        }
    }

    pub(crate) fn lock(&self) -> &DirectoryLock {
        &self.lock
    }

    /// Adds the subdirectories to later checks.
    ///
    /// # Errors
    /// [`Error::Io`] if a directory does not exist.
    pub(crate) fn add_subdirectories(&self, paths: [PathBuf; 2]) -> Result<()> {
        let subdirectory = |path: PathBuf| {
            // Not every implementation of `Fs` can open a directory.
            let handle = self.fs.open(&path).ok();
            match self.fs.id(&path) {
                Ok(id) => Ok(Subdirectory {
                    path,
                    id,
                    _handle: handle,
                }),
                Err(error) => Err(Error::io("find", &path, error)),
            }
        };
        let found: Result<Vec<_>> = paths.into_iter().map(subdirectory).collect();
        let _ = self.subdirectories.set(found?);
        Ok(())
    }

    /// The first failed check, or `None` if no check has failed.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }

    /// Checks that the data directory and its subdirectories are still at their paths.
    ///
    /// # Errors
    /// [`Error::Poisoned`] with the first path at which a directory was not found. After one failed
    /// check, every later check fails with the same error.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(failure) = self.failure() {
            return Err(failure.clone());
        }
        self.check_now().map_err(|error| self.fail(error))
    }

    fn check_now(&self) -> Result<()> {
        self.check_data_directory()?;
        for directory in self.subdirectories.get().into_iter().flatten() {
            let Subdirectory { path, id, .. } = directory;
            if let Err(error) = check_path(&*self.fs, path, Some(*id)) {
                // The data directory may have been lost after it was checked.
                self.check_data_directory()?;
                return Err(Error::poisoned("find", path, error));
            }
        }
        Ok(())
    }

    fn check_data_directory(&self) -> Result<()> {
        let checked = self.lock.check_directory();
        checked.map_err(|error| Error::poisoned("find", self.lock.dir(), error))
    }

    fn fail(&self, error: Error) -> Error {
        self.failure.get_or_init(|| error).clone()
    }

    /// Checks the directories and the lock file every [`CHECK_INTERVAL`], until the wakeup is
    /// closed or a check fails.
    pub(crate) fn run(&self) {
        loop {
            self.wakeup.sleep(CHECK_INTERVAL);
            if self.wakeup.is_closed() || self.check().is_err() {
                return;
            }
            if let Err(error) = self.lock.restore_lock_file() {
                self.fail(error);
                return;
            }
        }
    }
}

/// A file system that changes no directory unless the directories of the store are still at their
/// paths. Reads are not checked, because every file of the store contains the id of the store.
pub(crate) struct GuardedFs(pub(crate) Arc<DirectoryWatch>);

impl GuardedFs {
    fn inner(&self) -> &dyn Fs {
        &*self.0.fs
    }

    /// The error has neither the kind [`io::ErrorKind::NotFound`] nor a raw OS error, because the
    /// file that the caller wanted to change may exist.
    fn check(&self) -> io::Result<()> {
        self.0.check().map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            io::Error::other(format!("{error}: {}", source.unwrap_or_default()))
        })
    }
}

impl Fs for GuardedFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.inner().open(path)
    }

    fn open_for_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.check()?;
        self.inner().open_for_write(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.check()?;
        self.inner().create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check()?;
        self.inner().rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check()?;
        self.inner().remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.check()?;
        self.inner().create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner().sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner().list(path)
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        self.inner().id(path)
    }
}
