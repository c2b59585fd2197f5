//! A segment: the header that a file of frames begins with, and its name.
//!
//! ```text
//!  0  8B   magic "PREFDSEG"
//!  8  u16  format version, 1 or 2
//! 10  u16  zero
//! 12  u32  segment id, the number in its file name
//! 16  u64  store id
//! 24  u32  CRC-32 of the 24 bytes before it
//! 28  frames of that version, without gaps
//! ```

use std::path::{Path, PathBuf};

use crate::format::fields::FieldReader;
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;

/// Segments; those written are of version 2.
pub(crate) const KIND: FileKind = FileKind {
    magic: *b"PREFDSEG",
    written: FormatVersion::V2,
};
/// Bytes before the first frame.
pub(crate) const HEADER_BYTES: u64 = 28;
const HEADER_CRC_AT: usize = 24;

/// A version of the format. What was written in an older one is read for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FormatVersion {
    V1,
    V2,
}

impl FormatVersion {
    /// As it stands in file headers.
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }
}

/// A kind of file that begins with this header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileKind {
    pub(crate) magic: [u8; 8],
    /// The version in which it is written, and the newest that is read.
    pub(crate) written: FormatVersion,
}

/// Ties the files of one store together, so that a file of another is noticed.
pub(crate) type StoreId = u64;

pub(crate) fn path(dir: &Path, id: SegmentId) -> PathBuf {
    dir.join(format!("{id}.seg"))
}

/// The header of every file with one: who it is and to which store it belongs.
pub(crate) fn encode_header(kind: FileKind, id: u32, store: StoreId) -> Vec<u8> {
    encode_header_of(kind.magic, kind.written, id, store)
}

/// The same of a version that need not be the one that is written.
pub(crate) fn encode_header_of(
    magic: [u8; 8],
    version: FormatVersion,
    id: u32,
    store: StoreId,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_CRC_AT + 4);
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&version.number().to_le_bytes());
    bytes.extend_from_slice(&0u16.to_le_bytes());
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(&store.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checks that `bytes` begins with the header that `encode_header` makes, or made in an
/// older version; which one.
pub(crate) fn check_header(
    path: &Path,
    bytes: &[u8],
    kind: FileKind,
    id: u32,
    store: StoreId,
) -> Result<FormatVersion> {
    let found = bytes.get(..encode_header(kind, id, store).len());
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
    let mut fields = FieldReader::new(found);
    if fields.array() != Some(kind.magic) {
        return Err(Error::corrupt(path, 0, "the file is of another kind"));
    }
    let number = fields.u16().unwrap_or_default();
    let version = FormatVersion::from_number(number)
        .filter(|version| *version <= kind.written)
        .ok_or_else(|| Error::UnsupportedFormat {
            path: path.to_owned(),
            found: number,
            supported: kind.written.number(),
        })?;
    if found != encode_header_of(kind.magic, version, id, store) {
        return Err(Error::corrupt(
            path,
            0,
            "the file belongs to another place or store",
        ));
    }
    Ok(version)
}
