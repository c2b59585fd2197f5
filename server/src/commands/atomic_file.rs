//! A file that appears under its final name only after it is complete.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::commands::error::CommandError;
use crate::io_error::io_error;

/// A file that is written under a temporary name in the directory of its final path. Dropping an
/// `AtomicFile` without calling [`Self::commit`] removes the temporary file.
pub(super) struct AtomicFile {
    directory: PathBuf,
    file: NamedTempFile,
}

impl AtomicFile {
    /// Creates the temporary file for a file that does not exist yet. Only its owner may read the
    /// temporary file. The name of the temporary file begins with `prefix`.
    ///
    /// # Errors
    /// [`CommandError::AlreadyExists`] if `path` exists, [`CommandError::Io`] if the temporary
    /// file cannot be created.
    pub(super) fn create(path: &Path, prefix: &str) -> Result<Self, CommandError> {
        if path.symlink_metadata().is_ok() {
            return Err(CommandError::AlreadyExists(path.to_owned()));
        }
        let directory = path
            .parent()
            .filter(|directory| !directory.as_os_str().is_empty());
        Self::create_in(directory.unwrap_or(Path::new(".")), prefix)
    }

    /// Creates the temporary file in `directory`. Only its owner may read the temporary file.
    pub(super) fn create_in(directory: &Path, prefix: &str) -> Result<Self, CommandError> {
        let file = tempfile::Builder::new()
            .prefix(prefix)
            .tempfile_in(directory)
            .map_err(io_error("create a temporary file in", directory))?;
        Ok(Self {
            directory: directory.to_owned(),
            file,
        })
    }

    pub(super) fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Syncs the temporary file, and opens the file for reading from the start.
    pub(super) fn reopen(&self) -> Result<File, CommandError> {
        let reopened = self.file.as_file().sync_all();
        let reopened = reopened.and_then(|()| File::open(self.file.path()));
        Ok(reopened.map_err(io_error("write", self.file.path()))?)
    }

    /// Syncs the file, renames it to the first of `paths` that does not exist, and syncs the
    /// directory. `paths` must be in the directory of the temporary file. Returns the new path.
    ///
    /// # Errors
    /// [`CommandError::AlreadyExists`] with the last path if all paths exist,
    /// [`CommandError::Io`] if a sync or the rename fails.
    pub(super) fn commit(
        self,
        paths: impl IntoIterator<Item = PathBuf>,
    ) -> Result<PathBuf, CommandError> {
        let Self {
            directory,
            mut file,
        } = self;
        let synced = file.as_file().sync_all();
        synced.map_err(io_error("write", file.path()))?;
        let mut taken = None;
        for path in paths {
            match file.persist_noclobber(&path) {
                Ok(_) => {
                    let synced = File::open(&directory).and_then(|directory| directory.sync_all());
                    synced.map_err(io_error("sync", &directory))?;
                    return Ok(path);
                }
                Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => {
                    file = refused.file;
                    taken = Some(path);
                }
                Err(refused) => return Err(io_error("write", path)(refused.error).into()),
            }
        }
        Err(CommandError::AlreadyExists(taken.unwrap_or(directory)))
    }
}
