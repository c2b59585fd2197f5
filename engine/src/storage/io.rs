//! File operations whose errors name the path and the operation.

use std::io;
use std::path::{Path, PathBuf};

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

/// A file of the store that is not there was there once.
pub(crate) fn missing_is_corrupt(op: &'static str, path: &Path, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        Error::corrupt(path, 0, "the file is missing")
    } else {
        Error::io(op, path, error)
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
        let found = file
            .len()
            .map_err(|error| Error::io("stat", &path(), error))?;
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
            Error::io("read", &path(), error)
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
