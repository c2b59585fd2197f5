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
    path: PathBuf,
    directory: PathBuf,
    file: NamedTempFile,
}

impl AtomicFile {
    /// Creates the temporary file, which only its owner may read. The name of the temporary file
    /// begins with `prefix`.
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
        let directory = directory.unwrap_or(Path::new(".")).to_owned();
        let file = tempfile::Builder::new()
            .prefix(prefix)
            .tempfile_in(&directory)
            .map_err(io_error("create a temporary file for", path))?;
        Ok(Self {
            path: path.to_owned(),
            directory,
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
        Ok(reopened.map_err(io_error("write", &self.path))?)
    }

    /// Syncs the file, renames it to its final name, and syncs the directory.
    ///
    /// # Errors
    /// [`CommandError::AlreadyExists`] if a file with the final name already exists,
    /// [`CommandError::Io`] if a sync or the rename fails.
    pub(super) fn commit(self) -> Result<(), CommandError> {
        let Self {
            path,
            directory,
            file,
        } = self;
        let commit = || {
            file.as_file().sync_all()?;
            file.persist_noclobber(&path)?;
            File::open(&directory)?.sync_all()
        };
        commit().map_err(|source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => CommandError::AlreadyExists(path.clone()),
            _ => io_error("write", &path)(source).into(),
        })
    }
}
