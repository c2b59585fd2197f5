//! The lock of a data directory: one owner at a time.
//!
//! A kernel lock on the file `lock`, which goes with the process that holds it. What
//! is written in the file only names the holder to people; it is never believed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::model::error::{Error, Result};
use crate::platform::fs::{Disk, Fs};

/// A data directory that is this process's own for as long as this lives: no engine opens
/// it. [`crate::Engine::open`] has one of its own; others need one to lay out the files.
#[derive(Debug)]
pub struct DirectoryLock(File);

impl Drop for DirectoryLock {
    /// Closing our descriptor would not do: a child that another thread is starting has
    /// a copy of it until it executes its program, and would hold the lock so long.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl DirectoryLock {
    /// Makes the directory where it is missing, and locks it. The file `lock` in it stays
    /// when this is dropped. Never blocks.
    ///
    /// # Errors
    /// [`Error::Locked`] where another process has it, or this one; [`Error::Io`].
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
                // Only for the message of who comes second.
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
