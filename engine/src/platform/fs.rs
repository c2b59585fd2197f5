//! The interface between the engine and the file system.
//!
//! The engine reads and writes the log, the blobs and the manifest through the traits [`Fs`] and
//! [`File`]. The lock file and the catalogue are not accessed through these traits. sled, the
//! catalogue's database, does its own I/O. A lost or damaged catalogue is rebuilt from the log.
//!
//! [`Disk`] is the file system of the operating system. Tests set [`crate::Config::fs`] to a
//! simulated disk that loses unsynced writes, tears writes, or fails an operation.

use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

/// The identity of a file or directory: the numbers of its device and its inode. While a file is
/// open, no other file has the same identity.
///
/// ```
/// use prefd_engine::fs::{Disk, Fs};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("example");
/// let file = Disk.create(&path)?;
/// assert_eq!(Disk.id(&path)?, file.id()?);
/// Disk.remove(&path)?;
/// Disk.create(&path)?;
/// assert_ne!(Disk.id(&path)?, file.id()?);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    /// The number of the device.
    pub device: u64,
    /// The number of the inode.
    pub inode: u64,
}

impl FileId {
    fn of_metadata(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    /// Reads the identity of an open file or directory.
    pub(crate) fn of(file: &fs::File) -> io::Result<Self> {
        Ok(Self::of_metadata(&file.metadata()?))
    }
}

/// An open file.
///
/// All reads and writes have an explicit offset, so several threads can use one handle at the same
/// time. All methods block until the operation is complete.
pub trait File: Send + Sync {
    /// Reads exactly `buffer.len()` bytes at `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends before `offset + buffer.len()`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// After an error, some or all of `bytes` may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Writes the content and the length of the file to stable storage (`fdatasync`).
    ///
    /// # Errors
    /// After an error, it is unknown which of the writes since the last successful sync are on
    /// stable storage.
    fn sync(&self) -> io::Result<()>;

    /// Truncates the file to `len` bytes, or extends it with zeros.
    ///
    /// # Errors
    /// Any error of the file system.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The length of the file in bytes.
    ///
    /// # Errors
    /// Any error of the file system.
    fn len(&self) -> io::Result<u64>;

    /// The identity of the file, which is the same for all handles of the file.
    ///
    /// # Errors
    /// Any error of the file system.
    fn id(&self) -> io::Result<FileId>;

    /// Returns true if the length of the file is 0.
    ///
    /// # Errors
    /// The errors of [`File::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A file system.
///
/// An implementation must provide three guarantees. After [`File::sync`], the content and the
/// length of the file survive a power cut. After [`Fs::sync_dir`], the names in the directory
/// survive a power cut. [`Fs::rename`] is atomic. All methods block until the operation is
/// complete.
///
/// An implementation must return the errors that the operating system would return, because the
/// engine checks the [`io::ErrorKind`] and the raw OS error.
pub trait Fs: Send + Sync {
    /// Opens an existing file for reading.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if the file does not exist.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if the file does not exist.
    fn open_for_write(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Creates a new file and opens it for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if the file exists.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Renames a file. An existing file named `to` is replaced.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if `from` does not exist.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file from its directory. Handles of the file that are already open remain usable.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if the file does not exist.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory and its missing parents. Succeeds if the directory already exists.
    ///
    /// # Errors
    /// Any error of the file system.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Writes the names in a directory to stable storage (`fsync` of the directory).
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if the directory does not exist.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// The paths of all entries of a directory, in unspecified order.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if the directory does not exist.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;

    /// The identity of the file or directory to which a path refers. The engine uses the identity
    /// to find out whether a file was removed, renamed or replaced while it was open.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if nothing has this path.
    fn id(&self, path: &Path) -> io::Result<FileId>;
}

/// Permissions of new files, which prevent other users of the machine from reading stored
/// documents.
pub(crate) const OWNER_ONLY_FILE: u32 = 0o600;
/// Permissions of new directories, which prevent other users of the machine from listing the
/// directories or opening files in them.
pub(crate) const OWNER_ONLY_DIR: u32 = 0o700;

/// The file system of the operating system.
///
/// New files have mode 0600 and new directories mode 0700, so that other users of the
/// machine cannot read stored documents.
///
/// ```
/// use prefd_engine::fs::{Disk, Fs};
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path();
/// let file = Disk.create(&dir.join("example"))?;
/// file.write_all_at(b"{}", 0)?;
/// file.sync()?;
/// Disk.sync_dir(dir)?;
/// assert_eq!(Disk.list(dir)?, [dir.join("example")]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl File for fs::File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn id(&self) -> io::Result<FileId> {
        FileId::of(self)
    }
}

impl Fs for Disk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(fs::File::open(path)?))
    }

    fn open_for_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(
            fs::OpenOptions::new().read(true).write(true).open(path)?,
        ))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(
            fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(OWNER_ONLY_FILE)
                .open(path)?,
        ))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(OWNER_ONLY_DIR)
            .create(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        Ok(FileId::of_metadata(&fs::metadata(path)?))
    }
}
