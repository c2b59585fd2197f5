//! The clean-close marker is a file that records a checksum of the catalogue's files after a clean
//! close, and the state of the log from which these files were derived.
//!
//! On Linux, sled calls sync_file_range(2) instead of fsync(2) when it writes its log, so a power
//! cut can tear a record of that log. When sled opens its log again, it silently ignores everything
//! after a torn record. Therefore, this module syncs the files of the catalogue, and trusts them at
//! the next open only if they have the recorded checksum. If the checksum differs, the catalogue is
//! rebuilt, because its listings could be wrong.
//!
//! ```text
//!  0  8B  magic "PREFDCAT"
//!  8  u64 store id
//! 16  u64 reserved revision of the manifest
//! 24  u32 CRC-32 over the path, the length (u64) and the bytes of each file;
//!         the files are sorted by path
//! 28  u32 CRC-32 of bytes 0 to 27
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::format::fields::FieldReader;
use crate::platform::fs::OWNER_ONLY_FILE;

const MAGIC: [u8; 8] = *b"PREFDCAT";
const FILE_NAME: &str = "clean";
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// The state of the log from which a catalogue was derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CatalogueIdentity {
    pub(crate) store: u64,
    pub(crate) reserved_revision: u64,
}

/// Returns true if the files in the catalogue's directory have not changed since a clean close that
/// recorded `identity`.
pub(crate) fn is_trusted(dir: &Path, identity: CatalogueIdentity) -> bool {
    read(dir).is_some_and(|(found, checksum)| {
        found == identity && files_checksum(dir, false).is_ok_and(|now| now == checksum)
    })
}

/// Durably removes the marker, because sled may change the catalogue's files afterwards. Returns
/// true if the catalogue's files could be trusted and the marker has been removed.
pub(crate) fn verify_and_remove(dir: &Path, identity: CatalogueIdentity) -> bool {
    let is_trusted = is_trusted(dir, identity);
    let removed = match fs::remove_file(dir.join(FILE_NAME)) {
        Ok(()) => File::open(dir).and_then(|dir| dir.sync_all()).is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    is_trusted && removed
}

/// Syncs the catalogue's files, and writes the marker of a clean close.
pub(crate) fn write(dir: &Path, identity: CatalogueIdentity) -> io::Result<()> {
    let checksum = files_checksum(dir, true)?;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&identity.store.to_le_bytes());
    bytes.extend_from_slice(&identity.reserved_revision.to_le_bytes());
    bytes.extend_from_slice(&checksum.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(OWNER_ONLY_FILE)
        .open(dir.join(FILE_NAME))?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    File::open(dir)?.sync_all()
}

/// Reads the identity and the checksum of the files from the marker. Returns `None` if the marker
/// is missing or damaged.
fn read(dir: &Path) -> Option<(CatalogueIdentity, u32)> {
    let bytes = fs::read(dir.join(FILE_NAME)).ok()?;
    let (covered, crc) = bytes.split_at_checked(28)?;
    if crc32fast::hash(covered).to_le_bytes() != *crc {
        return None;
    }
    let mut fields = FieldReader::new(covered);
    if fields.array() != Some(MAGIC) {
        return None;
    }
    let identity = CatalogueIdentity {
        store: fields.u64()?,
        reserved_revision: fields.u64()?,
    };
    Some((identity, fields.u32()?))
}

/// Returns true if the process lacks the permission to read a file or directory of the catalogue.
pub(crate) fn is_access_denied(dir: &Path) -> bool {
    let mut files = Vec::new();
    let listed = collect_files(dir, false, &mut files);
    let opened = listed.and_then(|()| files.iter().try_for_each(|path| File::open(path).map(drop)));
    opened.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Returns the total size of all files in `dir` and its subdirectories, in bytes.
pub(crate) fn bytes_on_disk(dir: &Path) -> u64 {
    let mut files = Vec::new();
    // If an error occurs, only the files that were found before the error are counted.
    let _ = collect_files(dir, false, &mut files);
    let bytes = |file: &PathBuf| fs::metadata(file).map_or(0, |metadata| metadata.len());
    files.iter().map(bytes).sum()
}

/// Computes one checksum over all files in `dir` and its subdirectories, except the marker. If
/// `sync` is true, the function also syncs the files and directories.
fn files_checksum(dir: &Path, sync: bool) -> io::Result<u32> {
    let mut files = Vec::new();
    collect_files(dir, sync, &mut files)?;
    files.sort_unstable();
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    for path in files {
        let name = path.strip_prefix(dir).unwrap_or(&path);
        if name == Path::new(FILE_NAME) {
            continue;
        }
        let mut file = File::open(&path)?;
        if sync {
            file.sync_all()?;
        }
        hasher.update(name.as_os_str().as_encoded_bytes());
        hasher.update(&file.metadata()?.len().to_le_bytes());
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hasher.update(buffer.get(..read).unwrap_or_default());
        }
    }
    Ok(hasher.finalize())
}

/// Adds the files in `dir` and its subdirectories to `files`. If `sync` is true, the function also
/// syncs the directories.
fn collect_files(dir: &Path, sync: bool, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect_files(&entry.path(), sync, files)?;
        } else {
            files.push(entry.path());
        }
    }
    if sync {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}
