//! File operations whose errors name the path and the operation.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::error::{Error, Result};
use crate::platform::fs::{File, Fs};

/// Writes a new file durably, under a name that nothing reads.
pub(crate) fn stage_file(fs: &dyn Fs, temporary: &Path, bytes: &[u8]) -> Result<()> {
    match fs.remove(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("remove", temporary, error));
        }
        _ => {}
    }
    let file = fs
        .create(temporary)
        .map_err(|error| Error::io("create", temporary, error))?;
    file.write_all_at(bytes, 0)
        .map_err(|error| Error::io("write", temporary, error))?;
    file.sync()
        .map_err(|error| Error::io("sync", temporary, error))
}

/// Gives a staged file its name, durably.
pub(crate) fn switch_file(fs: &dyn Fs, dir: &Path, temporary: &Path, path: &Path) -> Result<()> {
    fs.rename(temporary, path)
        .map_err(|error| Error::io("rename", path, error))?;
    fs.sync_dir(dir)
        .map_err(|error| Error::io("sync", dir, error))
}

/// What is asked for at once without a look at the file's length. More than that may
/// come from a length that was forged, and memory for it is only taken if it is there.
const UNCHECKED_READ_BYTES: usize = 1024 * 1024;

/// What Linux reports for a file that the disk or the file system has damaged: `EIO`,
/// `EBADMSG` (a checksum of the file system does not match) and `EUCLEAN` (its structures
/// are damaged). Everything else, such as `EMFILE`, says nothing about the file.
const DAMAGED_FILE_ERRNOS: [i32; 3] = [5, 74, 117];

/// Opens a file of the store for reading. It existed once, so a missing one is damage.
///
/// # Errors
/// [`Error::Corrupt`], [`Error::Unreadable`], [`Error::Io`].
pub(crate) fn open_stored(fs: &dyn Fs, path: &Path) -> Result<Arc<dyn File>> {
    fs.open(path)
        .map_err(|error| open_error("open", path, error))
}

/// The length of a file of the store.
///
/// # Errors
/// As [`open_stored`].
pub(crate) fn stored_len(file: &dyn File, path: &Path) -> Result<u64> {
    file.len().map_err(|error| open_error("stat", path, error))
}

fn open_error(op: &'static str, path: &Path, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        return Error::corrupt(path, 0, "the file is missing");
    }
    match error.raw_os_error() {
        Some(errno) if DAMAGED_FILE_ERRNOS.contains(&errno) => Error::unreadable(path, 0, error),
        _ => Error::io(op, path, error),
    }
}

/// `len` bytes at `offset`; a file that ends before them is corrupt.
pub(crate) fn read_at(
    file: &dyn File,
    path: impl Fn() -> PathBuf,
    offset: u64,
    len: usize,
) -> Result<Vec<u8>> {
    if len > UNCHECKED_READ_BYTES {
        let found = stored_len(file, &path())?;
        if found.saturating_sub(offset) < len as u64 {
            return Err(cut_short(&path(), offset));
        }
    }
    let mut buffer = vec![0; len];
    read_into(file, path, offset, &mut buffer)?;
    Ok(buffer)
}

/// The same, into memory that is there.
pub(crate) fn read_into(
    file: &dyn File,
    path: impl Fn() -> PathBuf,
    offset: u64,
    buffer: &mut [u8],
) -> Result<()> {
    file.read_exact_at(buffer, offset).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            cut_short(&path(), offset)
        } else {
            Error::unreadable(&path(), offset, error)
        }
    })
}

fn cut_short(path: &Path, offset: u64) -> Error {
    Error::corrupt(path, offset, "the file is cut short")
}

/// Removes a file, if it is there.
pub(crate) fn remove_if_present(fs: &dyn Fs, path: &Path) -> Result<()> {
    match fs.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}
