//! The lock of a data directory, which ensures that only one engine has the directory open.
//!
//! The lock consists of kernel locks (flock(2)) on the data directory itself, on its subdirectories
//! `log` and `blobs`, and on the file `lock`. The kernel releases the locks when the process ends.
//!
//! The lock on the directory protects an open store even if somebody removes the file `lock`,
//! because the directory cannot be replaced by an empty one without losing the store. The file
//! `lock` is locked too, because earlier versions of prefd lock only this file, and because a
//! network file system may apply the lock on a directory to one machine only. The text in the file
//! describes the owner for error messages, and has no influence on the lock.
//!
//! The subdirectories are locked, because a mount point can make two data directories share a
//! subdirectory. A subdirectory that is a symbolic link is refused: a copy of the data directory
//! would contain the same link, and the copy and the original would overwrite each other's files,
//! even if they are never open at the same time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::error::{Error, Result};
use crate::platform::fs::{Disk, FileId, Fs};
use crate::storage::io::{check_path, stable_id};

/// The lock of a data directory. Dropping this value releases the lock.
///
/// [`crate::Engine::open`] acquires the lock itself. Acquire the lock directly only to write files
/// into a data directory that no engine has open, for example to restore a backup. While the
/// directory is locked, a second acquisition fails, even within the same process. The kernel
/// releases the lock when the process ends, so a crash leaves no lock behind. The directory stays
/// locked if somebody removes or replaces the file `lock`.
///
/// ```
/// use prefd_engine::{DirectoryLock, Error};
///
/// let dir = tempfile::tempdir()?;
/// let lock = DirectoryLock::acquire(dir.path())?;
/// let second = DirectoryLock::acquire(dir.path());
/// assert!(matches!(second, Err(Error::Locked { .. })));
/// drop(lock);
/// DirectoryLock::acquire(dir.path())?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DirectoryLock {
    dir: PathBuf,
    directory: File,
    /// The identity of the directory. `None` if the file system reports changing identities.
    directory_id: Option<FileId>,
    /// False if the file system cannot lock directories.
    is_directory_locked: bool,
    /// The locked subdirectories, by name.
    subdirectories: Mutex<Vec<(&'static str, File)>>,
    /// The locked file `lock`. `None` if the file does not exist and could not be created.
    lock_file: Mutex<Option<LockFile>>,
}

#[derive(Debug)]
struct LockFile {
    file: File,
    id: FileId,
    /// True if the text in the file names this process.
    names_holder: bool,
}

impl LockFile {
    /// Locks an open file with `try_lock`.
    fn new(
        file: File,
        try_lock: impl Fn(&File) -> Result<(), TryLockError>,
    ) -> Result<Self, FileLockError> {
        match try_lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FileLockError::Taken),
            Err(TryLockError::Error(error)) => return Err(FileLockError::Io("lock", error)),
        }
        let id = FileId::of(&file).map_err(|error| FileLockError::Io("stat", error))?;
        Ok(Self {
            file,
            id,
            names_holder: false,
        })
    }

    /// Writes the name and the process id of this program into the file. An error is ignored,
    /// because the text is only used in the error messages of other processes.
    fn write_holder(&mut self) {
        let program = std::env::current_exe().ok();
        let program = program
            .as_deref()
            .and_then(Path::file_name)
            .map_or_else(|| "a process".into(), |name| name.to_string_lossy());
        let text = format!("{program} (pid {})", std::process::id());
        self.names_holder = true;
        let _ = self
            .file
            .set_len(0)
            .and_then(|()| self.file.write_all_at(text.as_bytes(), 0));
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        self.release();
    }
}

impl DirectoryLock {
    /// Creates the directory if it does not exist, and locks the directory. Never waits for another
    /// owner of the lock, but may block on disk I/O. Syncs nothing. The file `lock` remains after
    /// the lock is dropped.
    ///
    /// # Errors
    /// - [`Error::Locked`]: another process, or another part of this process, has the lock.
    /// - [`Error::Io`]: the directory or the file `lock` could not be created, opened or
    ///   locked; or the subdirectory `log`, `blobs` or `catalogue` is a symbolic link.
    pub fn acquire(dir: &Path) -> Result<Self> {
        let lock = Self::acquire_silently(dir)?;
        lock.write_holder();
        Ok(lock)
    }

    /// Locks the directory like [`Self::acquire`], but does not change the text in the file `lock`.
    pub(crate) fn acquire_silently(dir: &Path) -> Result<Self> {
        Disk.create_dir(dir)
            .map_err(|error| Error::io("create", dir, error))?;
        let directory = File::open(dir).map_err(|error| Error::io("open", dir, error))?;
        // The directory is locked before the file `lock` is created. Otherwise, a failed
        // acquisition could create and lock a new file `lock`, and the owner of the directory could
        // not distinguish this from a second owner.
        let is_directory_locked = match directory.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => return Err(locked(dir)),
            Err(TryLockError::Error(_)) => false,
        };
        let lock = Self {
            dir: dir.to_owned(),
            directory_id: stable_id(&Disk, dir, &directory),
            directory,
            is_directory_locked,
            subdirectories: Mutex::default(),
            lock_file: Mutex::new(None),
        };
        lock.lock_subdirectories()?;
        match lock_file(&dir.join(FILE_NAME)) {
            Ok(file) => *lock.lock_file() = Some(file),
            Err(FileLockError::Taken) => return Err(locked(dir)),
            Err(FileLockError::Io(_, error)) if is_directory_locked && cannot_create(&error) => {}
            Err(FileLockError::Io(op, error)) => {
                return Err(Error::io(op, &dir.join(FILE_NAME), error));
            }
        }
        Ok(lock)
    }

    /// Locks the directory for reading, and changes nothing in it. Any number of readers can have
    /// the lock at the same time. A lock from [`Self::acquire`] excludes all readers, and readers
    /// exclude such a lock. Never waits for another owner of the lock, but may block on disk I/O.
    ///
    /// Only the permission to read is needed. A network file system may emulate the lock of a file
    /// by a record lock, which needs the permission to write if it is exclusive, but not if it is
    /// shared (flock(2), "NFS details").
    ///
    /// # Errors
    /// - [`Error::Locked`]: another process, or another part of this process, has the directory
    ///   open for writing.
    /// - [`Error::Io`]: the directory or an existing file `lock` could not be opened or locked.
    pub(crate) fn acquire_shared(dir: &Path) -> Result<Self> {
        let directory = File::open(dir).map_err(|error| Error::io("open", dir, error))?;
        let locked_directory = directory.try_lock_shared();
        if matches!(locked_directory, Err(TryLockError::WouldBlock)) {
            return Err(locked(dir));
        }
        let path = dir.join(FILE_NAME);
        let lock_file = match (File::open(&path), &locked_directory) {
            (Err(error), Ok(())) if error.kind() == ErrorKind::NotFound => None,
            (Err(error), _) => return Err(Error::io("open", &path, error)),
            (Ok(file), _) => match LockFile::new(file, File::try_lock_shared) {
                Ok(file) => Some(file),
                Err(FileLockError::Taken) => return Err(locked(dir)),
                Err(FileLockError::Io(op, error)) => return Err(Error::io(op, &path, error)),
            },
        };
        let lock = Self {
            dir: dir.to_owned(),
            directory_id: stable_id(&Disk, dir, &directory),
            directory,
            is_directory_locked: locked_directory.is_ok(),
            subdirectories: Mutex::default(),
            lock_file: Mutex::new(lock_file),
        };
        lock.lock_subdirectories_with(File::try_lock_shared)?;
        Ok(lock)
    }

    /// Locks the subdirectories that exist and are not locked yet.
    ///
    /// A subdirectory that cannot be opened is ignored, because the store cannot be opened without
    /// it. If the file system cannot lock directories, the subdirectories remain unlocked.
    ///
    /// # Errors
    /// - [`Error::Locked`]: another data directory contains the same subdirectory, and is locked.
    /// - [`Error::Io`]: a subdirectory is a symbolic link.
    pub(crate) fn lock_subdirectories(&self) -> Result<()> {
        self.lock_subdirectories_with(File::try_lock)
    }

    fn lock_subdirectories_with(
        &self,
        try_lock: impl Fn(&File) -> Result<(), TryLockError>,
    ) -> Result<()> {
        for name in SUBDIRECTORIES {
            let path = self.dir.join(name);
            if path.is_symlink() {
                let what = "expected a directory, but found a symbolic link. Move the directory to \
                            this path";
                return Err(Error::io("use", &path, io::Error::other(what)));
            }
        }
        let mut held = self.subdirectories();
        for name in LOCKED_SUBDIRECTORIES {
            let path = self.dir.join(name);
            if held.iter().any(|(locked, _)| *locked == name) {
                continue;
            }
            let Ok(directory) = File::open(&path) else {
                continue;
            };
            if matches!(try_lock(&directory), Err(TryLockError::WouldBlock)) {
                let holder = "a process that has another data directory open".to_owned();
                return Err(Error::Locked { path, holder });
            }
            held.push((name, directory));
        }
        Ok(())
    }

    fn subdirectories(&self) -> MutexGuard<'_, Vec<(&'static str, File)>> {
        self.subdirectories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_file(&self) -> MutexGuard<'_, Option<LockFile>> {
        self.lock_file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if the directory itself is locked. If the file system cannot lock directories,
    /// only the file `lock` is locked.
    pub(crate) fn is_directory_locked(&self) -> bool {
        self.is_directory_locked
    }

    /// Writes the name and the process id of this program into the file `lock`.
    pub(crate) fn write_holder(&self) {
        if let Some(held) = &mut *self.lock_file() {
            held.write_holder();
        }
    }

    /// The path of the locked directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Checks that the path of the directory still refers to the locked directory.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the directory was removed or renamed; any other error if the path
    /// refers to another directory or cannot be accessed.
    pub(crate) fn check_directory(&self) -> io::Result<()> {
        check_path(&Disk, &self.dir, self.directory_id)
    }

    /// Checks that the file `lock` is still the locked file. If somebody removed or replaced the
    /// file, creates and locks it again, so that versions of prefd that lock only this file cannot
    /// open the directory.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if another process has locked the new file.
    pub(crate) fn restore_lock_file(&self) -> Result<()> {
        let path = self.dir.join(FILE_NAME);
        let mut held = self.lock_file();
        if let Some(held) = &*held
            && Disk.id(&path).is_ok_and(|id| id == held.id)
        {
            return Ok(());
        }
        match lock_file(&path) {
            Ok(mut new) => {
                new.write_holder();
                *held = Some(new);
                Ok(())
            }
            Err(FileLockError::Taken) => {
                let what = "the file was removed or replaced, and another process has locked the \
                            new file";
                Err(Error::poisoned("lock", &path, io::Error::other(what)))
            }
            // The next call tries again. Until then, the lock on the directory is sufficient for
            // current versions of prefd.
            Err(FileLockError::Io(..)) => Ok(()),
        }
    }

    /// Releases the lock.
    ///
    /// The files are unlocked explicitly, because closing a file descriptor is not always
    /// sufficient. If another thread has just forked a child process, the child has a copy of the
    /// descriptor, and keeps the file locked until it executes its program.
    pub(crate) fn release(&self) {
        if let Some(held) = self.lock_file().take() {
            // Without this, a later error message could name this process as the owner.
            if held.names_holder {
                let _ = held.file.set_len(0);
            }
            let _ = held.file.unlock();
        }
        for (_, directory) in self.subdirectories().drain(..) {
            let _ = directory.unlock();
        }
        let _ = self.directory.unlock();
    }
}

/// Name of the lock file in a data directory.
const FILE_NAME: &str = "lock";

/// Names of the subdirectories, which must not be symbolic links.
const SUBDIRECTORIES: [&str; 3] = ["log", "blobs", "catalogue"];
/// Names of the subdirectories that are locked.
const LOCKED_SUBDIRECTORIES: [&str; 2] = ["log", "blobs"];

/// The reason why the file `lock` could not be locked.
enum FileLockError {
    /// Another process has locked the file.
    Taken,
    /// The operation and its error.
    Io(&'static str, io::Error),
}

/// Opens the file `lock`, creates it if it does not exist, and locks it. On a read-only file
/// system, opens an existing file for reading.
fn lock_file(path: &Path) -> Result<LockFile, FileLockError> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let opened = match opened {
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => match File::open(path) {
            // The caller must see that the file cannot be created.
            Err(missing) if missing.kind() == ErrorKind::NotFound => Err(error),
            reopened => reopened,
        },
        opened => opened,
    };
    let file = opened.map_err(|error| FileLockError::Io("open", error))?;
    LockFile::new(file, File::try_lock)
}

/// Returns true if the file `lock` could not be created because the disk is full or read-only.
fn cannot_create(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem
    )
}

/// The error for a directory that another process has locked.
fn locked(dir: &Path) -> Error {
    let path = dir.join(FILE_NAME);
    let mut holder = String::new();
    let _ = File::open(&path).and_then(|mut file| file.read_to_string(&mut holder));
    let holder = holder.trim();
    Error::Locked {
        path,
        holder: if holder.is_empty() {
            "another process".to_owned()
        } else {
            holder.to_owned()
        },
    }
}
