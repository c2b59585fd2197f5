//! A file that has its name once it is whole: until then it has another one, in the same
//! folder, and goes with whoever writes it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

pub(super) struct WholeFile {
    path: PathBuf,
    folder: PathBuf,
    file: NamedTempFile,
}

impl WholeFile {
    /// Begins one that only its owner may read. `prefix`: what its other name begins with.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] where there is something of this name.
    pub(crate) fn begin(path: &Path, prefix: &str) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).to_owned();
        Ok(Self {
            file: tempfile::Builder::new()
                .prefix(prefix)
                .tempfile_in(&folder)?,
            path: path.to_owned(),
            folder,
        })
    }

    pub(crate) fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Puts on stable storage what was written, and opens it for reading from its start.
    pub(crate) fn reread(&self) -> io::Result<File> {
        self.file.as_file().sync_all()?;
        File::open(self.file.path())
    }

    /// Gives it its name, and puts both on stable storage.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub(crate) fn keep(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist_noclobber(&self.path)?;
        File::open(&self.folder)?.sync_all()
    }
}
