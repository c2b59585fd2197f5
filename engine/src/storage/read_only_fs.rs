//! A file system that refuses every change, for stores that are open for reading only.
//!
//! Code that only reads does not need this wrapper. It makes sure that no step writes by mistake,
//! because a change would fail on a read-only file system, and go unnoticed on any other.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::platform::fs::{File, FileId, Fs};

/// Reads from another file system, and refuses every change.
pub(crate) struct ReadOnlyFs(pub(crate) Arc<dyn Fs>);

/// An open file that cannot be changed.
struct ReadOnlyFile(Arc<dyn File>);

/// The kind is the same as on a file system that is mounted read-only.
fn refused() -> io::Error {
    io::Error::new(
        io::ErrorKind::ReadOnlyFilesystem,
        "the store is open for reading only",
    )
}

impl Fs for ReadOnlyFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(ReadOnlyFile(self.0.open(path)?)))
    }

    fn open_for_write(&self, _path: &Path) -> io::Result<Arc<dyn File>> {
        Err(refused())
    }

    fn create(&self, _path: &Path) -> io::Result<Arc<dyn File>> {
        Err(refused())
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.list(path)
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        self.0.id(path)
    }
}

impl File for ReadOnlyFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Err(refused())
    }

    fn sync(&self) -> io::Result<()> {
        Err(refused())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(refused())
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn id(&self) -> io::Result<FileId> {
        self.0.id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fs::Disk;

    #[test]
    fn reads_are_passed_on_and_changes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        Disk.create(&path)
            .unwrap()
            .write_all_at(b"text", 0)
            .unwrap();
        let fs = ReadOnlyFs(Arc::new(Disk));
        let file = fs.open(&path).unwrap();
        let changes = [
            fs.open_for_write(&path).map(drop),
            fs.create(&other).map(drop),
            fs.rename(&path, &other),
            fs.remove(&path),
            fs.create_dir(&other),
            fs.sync_dir(dir.path()),
            file.write_all_at(b"more", 0),
            file.set_len(0),
            file.sync(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let kind = change.unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::ReadOnlyFilesystem, "change {number}");
        }
        let mut text = [0; 4];
        file.read_exact_at(&mut text, 0).unwrap();
        assert_eq!((&text, file.len().unwrap()), (b"text", 4));
        assert_eq!(fs.list(dir.path()).unwrap(), std::slice::from_ref(&path));
        assert_eq!(fs.id(&path).unwrap(), file.id().unwrap());
    }
}
