//! The manifest: the list of the log's segments, so that a missing one is noticed,
//! and what must outlive every one of them.
//!
//! ```text
//!  0  8B   magic "PREFDMAN"
//!  8  u16  format version, 1
//! 10  u8   codec of the body
//! 11  u8   zero
//! 12  u32  bytes of the body
//! 16  u32  CRC-32 of the body
//! 20  u32  CRC-32 of the 20 bytes before it
//! 24  body
//! ```
//!

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::format::codec;
use crate::format::fields::FieldReader;
use crate::format::file_header::{FormatVersion, StoreId};
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;

pub(crate) const MAGIC: [u8; 8] = *b"PREFDMAN";
/// The version in which it is written, whatever that of the files that it lists.
const VERSION: FormatVersion = FormatVersion::V1;
/// Bytes before the body.
pub(crate) const HEADER_BYTES: usize = 24;
const HEADER_CRC_AT: usize = 20;
/// No writer comes that far: a million revisions a second take 292,000 years.
const MAX_REVISION: u64 = u64::MAX / 2;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The secret key of the namespace hash; drawn once, when the store is made.
    pub(crate) hash_key: [u8; 16],
    pub(crate) store: StoreId,
    /// The id of the next segment; ids are never used again.
    pub(crate) next_segment: SegmentId,
    /// Every revision below this one may have been used, on the disk or not: after
    /// a crash the sequence goes on from here.
    pub(crate) reserved_revision: u64,
    /// In the order of their ids.
    pub(crate) segments: Vec<SegmentRecord>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentRecord {
    pub(crate) id: SegmentId,
    /// `None` for the one segment that is being written.
    pub(crate) sealed: Option<SealedSegment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealedSegment {
    /// Bytes of the segment; what the file holds behind them is not a part of it.
    pub(crate) bytes: u64,
    /// The highest revision in it.
    pub(crate) last_revision: u64,
}

impl Manifest {
    /// A store that holds nothing yet.
    pub(crate) fn new(hash_key: [u8; 16], store: StoreId) -> Self {
        Self {
            hash_key,
            store,
            next_segment: SegmentId::FIRST,
            reserved_revision: 1,
            segments: Vec::new(),
        }
    }

    /// Its file.
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("manifest")
    }

    /// The id of a segment that is begun now.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where none is left: no writer comes that far.
    pub(crate) fn take_segment_id(&mut self, dir: &Path) -> Result<SegmentId> {
        let id = self.next_segment;
        self.next_segment = id
            .next()
            .ok_or_else(|| Error::corrupt(&Self::path(dir), 0, "no id is left for a segment"))?;
        Ok(id)
    }

    /// Decodes the bytes of the file at `path`.
    pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        let corrupt = |offset, what: &str| Error::corrupt(path, offset, what);
        let (header, body) = bytes
            .split_at_checked(HEADER_BYTES)
            .ok_or_else(|| corrupt(0, "the manifest is cut short"))?;
        let (covered, crc) = header.split_at(HEADER_CRC_AT);
        if crc32fast::hash(covered).to_le_bytes() != *crc {
            return Err(corrupt(0, "the manifest header's checksum does not match"));
        }
        let mut fields = FieldReader::new(covered);
        let (magic, version) = (fields.array(), fields.u16());
        let (codec, zero) = (fields.u8(), fields.u8());
        let (body_bytes, body_crc) = (fields.u32(), fields.u32());
        if magic != Some(MAGIC) {
            return Err(corrupt(0, "the file is not a manifest"));
        }
        if version != Some(VERSION.number()) {
            return Err(Error::UnsupportedFormat {
                path: path.to_owned(),
                found: version.unwrap_or_default(),
                supported: VERSION.number(),
            });
        }
        if body_bytes.map(|n| n as usize) != Some(body.len())
            || body_crc != Some(crc32fast::hash(body))
        {
            return Err(corrupt(
                HEADER_BYTES as u64,
                "the manifest's checksum does not match",
            ));
        }
        (codec == Some(codec::CODEC) && zero == Some(0))
            .then(|| codec::decode(body).ok())
            .flatten()
            .filter(Self::is_possible)
            .ok_or_else(|| corrupt(HEADER_BYTES as u64, "the manifest cannot be decoded"))
    }

    /// Whether a writer can have written it. With another one the next segment could
    /// get an id that is taken, or revisions come to an end.
    fn is_possible(&self) -> bool {
        let ids = self.segments.iter().map(|record| record.id);
        let is_last =
            |record: &SegmentRecord| self.segments.last().is_some_and(|r| r.id == record.id);
        ids.chain([self.next_segment]).is_sorted_by(|a, b| a < b)
            && self.reserved_revision <= MAX_REVISION
            && self
                .segments
                .iter()
                .all(|r| r.sealed.is_some() || is_last(r))
    }

    pub(crate) fn encode(&self, path: &Path) -> Result<Vec<u8>> {
        let body = codec::encode(self)
            .map_err(|error| Error::io("encode", path, io::Error::other(error)))?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.number().to_le_bytes());
        bytes.extend_from_slice(&[codec::CODEC, 0]);
        bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }
}
