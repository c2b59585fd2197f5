//! The lock of a data directory, which ensures that only one engine has the directory open.
//!
//! The lock is a kernel lock on the file `lock` (flock(2)). The kernel releases the lock when the
//! process ends. The text in the file describes the owner for error messages, and has no influence
//! on the lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::model::error::{Error, Result};
use crate::platform::fs::{Disk, Fs};

/// Exclusive ownership of a data directory. Dropping this value releases the lock.
///
/// [`crate::Engine::open`] acquires the lock itself. Acquire the lock directly only to write files
/// into a data directory that no engine has open, for example to restore a backup. While the
/// directory is locked, a second acquisition fails, even within the same process. The kernel
/// releases the lock when the process ends, so a crash leaves no lock behind.
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
pub struct DirectoryLock(File);

impl Drop for DirectoryLock {
    /// Unlocks the file explicitly, because closing the file descriptor is not always sufficient.
    /// If another thread has just forked a child process, the child has a copy of the descriptor,
    /// and keeps the file locked until it executes its program.
    fn drop(&mut self) {
        let _ = self.0.unlock();
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
    ///   locked.
    pub fn acquire(dir: &Path) -> Result<Self> {
        Disk.create_dir(dir)
            .map_err(|error| Error::io("create", dir, error))?;
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Error::io("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => {
                // A failure to write the program name is ignored, because the name is only used in
                // the error messages of other processes.
                let _ = name_holder(&mut file);
                Ok(Self(file))
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim();
                Err(Error::Locked {
                    path,
                    holder: if holder.is_empty() {
                        "another process".to_owned()
                    } else {
                        holder.to_owned()
                    },
                })
            }
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path, error)),
        }
    }
}

/// Writes the name and the process id of this program into the lock file.
fn name_holder(file: &mut File) -> std::io::Result<()> {
    let program = std::env::current_exe().ok();
    let program = program
        .as_deref()
        .and_then(Path::file_name)
        .map_or_else(|| "a process".into(), |name| name.to_string_lossy());
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    write!(file, "{program} (pid {})", std::process::id())
}
