//! File operations whose errors name the operation and the path.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::error::{Error, Result};
use crate::platform::fs::{File, FileId, Fs};

/// Writes `bytes` to a new file with a temporary name, and syncs the file. When the engine reads a
/// store, it ignores files with temporary names. If the file `temporary` already exists, it is
/// removed first. After an error, the file is removed, because it would only use disk space.
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
        .map_err(|error| Error::io("write", temporary, error))
        .and_then(|()| {
            file.sync()
                .map_err(|error| Error::io("sync", temporary, error))
        })
        .inspect_err(|_| drop(fs.remove(temporary)))
}

/// Renames a staged file to its final name and syncs the directory. When this function returns
/// without an error, the file is on stable storage under its final name. After an error, `path` may
/// refer to the old file or to the new file.
pub(crate) fn install_file(fs: &dyn Fs, dir: &Path, temporary: &Path, path: &Path) -> Result<()> {
    fs.rename(temporary, path)
        .map_err(|error| Error::io("rename", path, error))?;
    fs.sync_dir(dir)
        .map_err(|error| Error::io("sync", dir, error))
}

/// Maximum length of a read that allocates its buffer without checking the length of the file. For
/// a longer read, the length of the file is checked first, because a length from damaged data must
/// not cause a large allocation.
const UNCHECKED_READ_BYTES: usize = 1024 * 1024;

/// The error numbers that Linux returns for damaged files: `EIO`, `EBADMSG` (a checksum of the file
/// system does not match) and `EUCLEAN` (the structures of the file system are damaged). Any other
/// error, such as `EMFILE`, does not mean that the file is damaged.
const DAMAGED_FILE_ERRNOS: [i32; 3] = [5, 74, 117];

/// Opens a file of the store for reading. Call this function only for files that must exist: a
/// missing file is reported as damage.
///
/// # Errors
/// - [`Error::Corrupt`]: the file is missing.
/// - [`Error::Unreadable`]: the disk reports the file as damaged.
/// - [`Error::Io`]: any other failure.
pub(crate) fn open_stored(fs: &dyn Fs, path: &Path) -> Result<Arc<dyn File>> {
    fs.open(path)
        .map_err(|error| open_error("open", path, error))
}

/// Returns the length of a file of the store, in bytes.
///
/// # Errors
/// Returns the same errors as [`open_stored`].
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

/// Reads `len` bytes at `offset` into a new buffer.
///
/// # Errors
/// - [`Error::Corrupt`]: the file ends before `offset + len`.
/// - [`Error::Unreadable`]: the read failed.
/// - [`Error::Io`]: the length of the file could not be read, and the cause is not damage.
pub(crate) fn read_at(
    file: &dyn File,
    path: impl Fn() -> PathBuf,
    offset: u64,
    len: usize,
) -> Result<Vec<u8>> {
    if len > UNCHECKED_READ_BYTES {
        let found = stored_len(file, &path())?;
        if found.saturating_sub(offset) < len as u64 {
            return Err(truncated(&path(), offset));
        }
    }
    let mut buffer = vec![0; len];
    read_into(file, path, offset, &mut buffer)?;
    Ok(buffer)
}

/// Fills `buffer` with the bytes at `offset`.
///
/// # Errors
/// - [`Error::Corrupt`]: the file ends before the buffer is full.
/// - [`Error::Unreadable`]: the read failed.
pub(crate) fn read_into(
    file: &dyn File,
    path: impl Fn() -> PathBuf,
    offset: u64,
    buffer: &mut [u8],
) -> Result<()> {
    file.read_exact_at(buffer, offset).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            truncated(&path(), offset)
        } else {
            Error::unreadable(&path(), offset, error)
        }
    })
}

fn truncated(path: &Path, offset: u64) -> Error {
    Error::corrupt(path, offset, "the file is truncated")
}

/// Removes a file. A missing file is not an error.
pub(crate) fn remove_if_present(fs: &dyn Fs, path: &Path) -> Result<()> {
    match fs.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Lists the paths of the entries of a directory. A missing directory is treated as empty, because
/// a copy of a store without large documents may have no directory `blobs`.
pub(crate) fn list_if_present(fs: &dyn Fs, dir: &Path) -> Result<Vec<PathBuf>> {
    match fs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        files => files.map_err(|error| Error::io("list", dir, error)),
    }
}

/// Returns the identity of an open file, for later calls of [`check_path`]. Returns `None` if the
/// path of the file has another identity already, as on file systems without stable identities.
pub(crate) fn stable_id(fs: &dyn Fs, path: &Path, file: &dyn File) -> Option<FileId> {
    let id = file.id().ok()?;
    (fs.id(path).ok()? == id).then_some(id)
}

/// Checks that a path still refers to the file with the given identity. If the identity is `None`,
/// only checks that the path exists.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] if the file was removed or renamed; any other error if another file
/// has this path, or if the path cannot be accessed.
pub(crate) fn check_path(fs: &dyn Fs, path: &Path, id: Option<FileId>) -> io::Result<()> {
    let found = fs.id(path)?;
    if id.is_some_and(|id| id != found) {
        return Err(io::Error::other(
            "another file or directory has this path now",
        ));
    }
    Ok(())
}
