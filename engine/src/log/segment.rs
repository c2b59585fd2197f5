//! A segment: the header that a file of frames begins with, and its name.
//!
//! ```text
//!  0  8B   magic "PREFDSEG"
//!  8  u16  format version, 1
//! 10  u16  zero
//! 12  u32  segment id, the number in its file name
//! 16  u64  store id
//! 24  u32  CRC-32 of the 24 bytes before it
//! 28  frames, without gaps
//! ```

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::fields::Fields;

pub(crate) const MAGIC: [u8; 8] = *b"PREFDSEG";
/// The version of the format of segments, summaries, blobs and the manifest.
pub(crate) const VERSION: u16 = 1;
/// Bytes before the first frame.
pub(crate) const HEADER_BYTES: u64 = 28;
const HEADER_CRC_AT: usize = 24;

/// Ties the files of one store together, so that a file of another is noticed.
pub(crate) type StoreId = u64;

pub(crate) fn path(dir: &Path, id: u32) -> PathBuf {
    dir.join(format!("{id:08x}.seg"))
}

/// The header of every file with one: who it is and to which store it belongs.
pub(crate) fn encode_header(magic: [u8; 8], id: u32, store: StoreId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_CRC_AT + 4);
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&0u16.to_le_bytes());
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(&store.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checks that `bytes` begins with the header that `encode_header` makes.
pub(crate) fn check_header(
    path: &Path,
    bytes: &[u8],
    magic: [u8; 8],
    id: u32,
    store: StoreId,
) -> Result<()> {
    let found = bytes.get(..encode_header(magic, id, store).len());
    let covered = found.and_then(|found| found.get(..HEADER_CRC_AT));
    let (Some(found), Some(covered)) = (found, covered) else {
        return Err(Error::corrupt(path, 0, "the file header is cut short"));
    };
    let crc = found.get(HEADER_CRC_AT..).unwrap_or_default();
    if crc32fast::hash(covered).to_le_bytes() != *crc {
        return Err(Error::corrupt(
            path,
            0,
            "the file header's checksum does not match",
        ));
    }
    let mut fields = Fields::new(found);
    if fields.array() != Some(magic) {
        return Err(Error::corrupt(path, 0, "the file is of another kind"));
    }
    let version = fields.u16().unwrap_or_default();
    if version != VERSION {
        return Err(Error::UnsupportedFormat {
            path: path.to_owned(),
            found: version,
            supported: VERSION,
        });
    }
    if found != encode_header(magic, id, store) {
        return Err(Error::corrupt(
            path,
            0,
            "the file belongs to another place or store",
        ));
    }
    Ok(())
}
