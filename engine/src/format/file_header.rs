//! The header of segments, summary files and blobs, and the name of segment files.
//!
//! ```text
//!  0  8B   magic: "PREFDSEG", "PREFDSUM" or "PREFDBLB"
//!  8  u16  format version
//! 10  u16  zero
//! 12  u32  the segment id (segment or summary file), or the low 32 bits of the blob id (blob)
//! 16  u64  store id
//! 24  u32  CRC-32 of bytes 0..24
//! 28  the content of the file
//! ```

use std::path::{Path, PathBuf};

use crate::format::fields::FieldReader;
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;

/// The file kind of segments.
pub(crate) const SEGMENT: FileKind = FileKind {
    magic: *b"PREFDSEG",
    written: FormatVersion::V3,
};
/// Length of the file header in bytes. The first frame of a segment directly follows the file
/// header.
pub(crate) const HEADER_BYTES: u64 = 28;
const HEADER_CRC_AT: usize = 24;

/// A version of the file format that the engine can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FormatVersion {
    V1,
    V2,
    V3,
}

impl FormatVersion {
    /// Returns the number that represents the version in file headers.
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }

    fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            3 => Some(Self::V3),
            _ => None,
        }
    }
}

/// A kind of file that begins with a file header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileKind {
    pub(crate) magic: [u8; 8],
    /// The version of new files, which is also the newest version that can be read.
    pub(crate) written: FormatVersion,
}

/// The id of a store. The manifest and the header of each segment, summary file and blob contain
/// the id, so that a file from another store is detected.
pub(crate) type StoreId = u64;

/// The path of a segment in the log directory `dir`.
pub(crate) fn segment_path(dir: &Path, id: SegmentId) -> PathBuf {
    dir.join(format!("{id}.seg"))
}

/// Encodes the header of a new file. The version is `kind.written`.
pub(crate) fn encode_header(kind: FileKind, id: u32, store: StoreId) -> Vec<u8> {
    encode_header_of(kind.magic, kind.written, id, store)
}

/// Encodes the header of a file in the given version.
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

/// Returns the store id in a file header. Returns `None` if the header is damaged, or is that of
/// another kind of file.
pub(crate) fn store_of(bytes: &[u8], kind: FileKind) -> Option<StoreId> {
    let (covered, rest) = bytes.split_at_checked(HEADER_CRC_AT)?;
    let mut fields = FieldReader::new(covered);
    let is_intact = crc32fast::hash(covered).to_le_bytes() == *rest.get(..4)?
        && fields.array() == Some(kind.magic);
    let (_version, _zero, _id) = (fields.u16()?, fields.u16()?, fields.u32()?);
    is_intact.then(|| fields.u64())?
}

/// Checks that `bytes` begins with a valid header for the given kind of file, file id and store id.
/// Returns the version of the file. A version above `kind.written` is not supported.
///
/// # Errors
/// - [`Error::Corrupt`]: the header is damaged, or belongs to another file.
/// - [`Error::UnsupportedFormat`]: the version is not supported.
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
        return Err(Error::corrupt(path, 0, "the file header is truncated"));
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
        return Err(Error::corrupt(
            path,
            0,
            "the file header has the wrong magic",
        ));
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
            "the file header belongs to another file or store",
        ));
    }
    Ok(version)
}
