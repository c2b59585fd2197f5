//! A file system on which reads of chosen files fail with EIO, as on a disk with bad sectors.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prefd_engine::fs::{Disk, File, FileId, Fs};

/// The error number of EIO on Linux.
const EIO: i32 = 5;

/// The real file system, except that reads of `files` fail.
pub struct UnreadableDisk {
    files: Vec<PathBuf>,
    /// Reads that touch a byte at or after this offset fail.
    from: u64,
}

impl UnreadableDisk {
    /// Fails every read of the given files.
    pub fn new(files: Vec<PathBuf>) -> Arc<Self> {
        Self::from(files, 0)
    }

    /// Fails every read of the given files that touches a byte at or after `from`.
    pub fn from(files: Vec<PathBuf>, from: u64) -> Arc<Self> {
        Arc::new(Self { files, from })
    }

    fn wrap(&self, path: &Path, file: Arc<dyn File>) -> Arc<dyn File> {
        if !self.files.iter().any(|unreadable| unreadable == path) {
            return file;
        }
        let from = self.from;
        Arc::new(UnreadableFile { file, from })
    }
}

struct UnreadableFile {
    file: Arc<dyn File>,
    from: u64,
}

impl File for UnreadableFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset + buffer.len() as u64 > self.from {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn id(&self) -> io::Result<FileId> {
        self.file.id()
    }
}

impl Fs for UnreadableDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.wrap(path, Disk.open(path)?))
    }

    fn open_for_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.wrap(path, Disk.open_for_write(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Disk.create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Disk.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        Disk.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        Disk.list(path)
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        Disk.id(path)
    }
}
