//! The clean-close marker: the exact bytes that the last clean close left in the
//! catalogue's folder, and what they stand for.
//!
//! sled ends its replay silently at a torn record, and never fsyncs. So its files
//! are synced here, and trusted again only where each has the length and the
//! checksum that it had: anything else costs a rebuild, never an answer.
//!
//! ```text
//!  0  8B  magic "PREFDCAT"
//!  8  u64 store id
//! 16  u64 next revision of the log
//! 24  u32 CRC-32 of the files: of each, in the order of their paths, the path,
//!         the length (u64) and the bytes
//! 28  u32 CRC-32 of the 28 bytes before it
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::format::fields::FieldReader;

const MAGIC: [u8; 8] = *b"PREFDCAT";
const NAME: &str = "clean";
const READ_BYTES: usize = 256 * 1024;

/// The state of the log that a catalogue was derived from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CatalogueIdentity {
    pub(crate) store: u64,
    pub(crate) next_revision: u64,
}

/// Whether the folder is what a clean close of this very state left.
pub(crate) fn is_trusted(dir: &Path, identity: CatalogueIdentity) -> bool {
    read(dir).is_some_and(|(found, checksum)| {
        found == identity && files_checksum(dir, false).is_ok_and(|now| now == checksum)
    })
}

/// The same. The marker is gone afterwards, durably, since sled may write from now on.
pub(crate) fn take(dir: &Path, identity: CatalogueIdentity) -> bool {
    let trusted = is_trusted(dir, identity);
    let removed = match fs::remove_file(dir.join(NAME)) {
        Ok(()) => File::open(dir).and_then(|dir| dir.sync_all()).is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    trusted && removed
}

/// Marks the folder as whole.
pub(crate) fn put(dir: &Path, identity: CatalogueIdentity) -> io::Result<()> {
    let checksum = files_checksum(dir, true)?;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&identity.store.to_le_bytes());
    bytes.extend_from_slice(&identity.next_revision.to_le_bytes());
    bytes.extend_from_slice(&checksum.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let mut file = File::create(dir.join(NAME))?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    File::open(dir)?.sync_all()
}

fn read(dir: &Path) -> Option<(CatalogueIdentity, u32)> {
    let bytes = fs::read(dir.join(NAME)).ok()?;
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
        next_revision: fields.u64()?,
    };
    Some((identity, fields.u32()?))
}

/// Bytes of all files in the folder.
pub(crate) fn bytes_on_disk(dir: &Path) -> u64 {
    let mut files = Vec::new();
    // Of a folder that cannot be read, whatever was found.
    let _ = collect(dir, false, &mut files);
    let bytes = |file: &PathBuf| fs::metadata(file).map_or(0, |metadata| metadata.len());
    files.iter().map(bytes).sum()
}

/// One checksum over every file below `dir` but the marker; `sync` puts them on
/// stable storage too.
fn files_checksum(dir: &Path, sync: bool) -> io::Result<u32> {
    let mut files = Vec::new();
    collect(dir, sync, &mut files)?;
    files.sort_unstable();
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    for path in files {
        let name = path.strip_prefix(dir).unwrap_or(&path);
        if name == Path::new(NAME) {
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

fn collect(dir: &Path, sync: bool, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), sync, files)?;
        } else {
            files.push(entry.path());
        }
    }
    if sync {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}
