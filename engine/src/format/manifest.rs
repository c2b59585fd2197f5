//! The manifest: the list of all log segments, and data that must survive the removal of all
//! segments. The list of segments makes it possible to detect that a segment is missing.
//!
//! ```text
//!  0  8B   magic "PREFDMAN"
//!  8  u16  format version, 3 (or 1, without the highest time in the body)
//! 10  u8   codec of the body
//! 11  u8   zero
//! 12  u32  length of the body
//! 16  u32  CRC-32 of the body
//! 20  u32  CRC-32 of bytes 0..20
//! 24  body
//! ```

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::format::codec;
use crate::format::fields::FieldReader;
use crate::format::file_header::{FormatVersion, StoreId};
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;

/// Maximum number of frames in a segment. The maximum limits the memory of a segment's summary.
/// With user and client names of 15 bytes each, the summary uses at most about 7 MiB. For each new
/// segment, the manifest reserves this number of revisions. A crashed process therefore cannot have
/// used any revision beyond the reserved revisions.
pub(crate) const MAX_SEGMENT_FRAMES: usize = 65_536;
pub(crate) const MAGIC: [u8; 8] = *b"PREFDMAN";
/// The version of new manifests. The manifest's version is independent of the versions of the
/// listed segments.
const VERSION: FormatVersion = FormatVersion::V3;
/// Length of the header in bytes. The body follows the header.
pub(crate) const HEADER_BYTES: usize = 24;
const HEADER_CRC_AT: usize = 20;

/// The contents of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The secret key with which namespace hashes are computed. The key is randomly generated when
    /// the store is created, and never changes.
    pub(crate) hash_key: [u8; 16],
    pub(crate) store: StoreId,
    /// The id of the next segment. The id of a segment that the manifest has listed is never
    /// reused.
    pub(crate) next_segment: SegmentId,
    /// The first revision that is used after the store is opened again. Any lower revision may
    /// already have been used, even if no stored frame has this revision.
    pub(crate) reserved_revision: u64,
    /// At least the highest time of the frames in the sealed segments, in milliseconds since
    /// 1970-01-01 UTC. `None` if the manifest was read from a file of version 1.
    pub(crate) highest_modified_ms: Option<u64>,
    /// The segments, ordered by id.
    pub(crate) segments: Vec<SegmentRecord>,
}

/// The fields at the start of the body, which are the same in all versions. In version 3, the
/// highest time follows. The segments are the end of the body.
#[derive(Serialize, Deserialize)]
struct LeadingFields {
    hash_key: [u8; 16],
    store: StoreId,
    next_segment: SegmentId,
    reserved_revision: u64,
}

/// The record of a segment in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentRecord {
    pub(crate) id: SegmentId,
    /// The final length of a sealed segment, and the upper bound for its revisions. `None` for the
    /// active segment.
    pub(crate) sealed: Option<SealedSegment>,
}

/// The properties of a segment that are fixed when the segment is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealedSegment {
    /// Length of the segment in bytes. Bytes beyond this length in the file are not part of the
    /// segment.
    pub(crate) bytes: u64,
    /// Upper bound for the revisions in the segment. If a crash ended the segment, the bound also
    /// covers the frames that recovery has copied to the next segment.
    pub(crate) last_revision: u64,
}

impl Manifest {
    /// The highest reserved revision that is accepted in a manifest, 2⁶³ − 1.
    pub(crate) const MAX_REVISION: u64 = u64::MAX / 2;

    /// Returns the manifest of a new store, which has no segments.
    pub(crate) fn new(hash_key: [u8; 16], store: StoreId) -> Self {
        Self {
            hash_key,
            store,
            next_segment: SegmentId::FIRST,
            reserved_revision: 1,
            highest_modified_ms: Some(0),
            segments: Vec::new(),
        }
    }

    /// The path of the manifest in the log directory `dir`.
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("manifest")
    }

    /// Returns the id for a new segment, and increments [`Self::next_segment`].
    ///
    /// # Errors
    /// [`Error::Corrupt`] if all ids are used. No real store uses all ids, so a manifest in which
    /// all ids are used is damaged.
    pub(crate) fn take_segment_id(&mut self, dir: &Path) -> Result<SegmentId> {
        let id = self.next_segment;
        self.next_segment = id
            .next()
            .ok_or_else(|| Error::corrupt(&Self::path(dir), 0, "all segment ids have been used"))?;
        Ok(id)
    }

    /// Decodes the content of the manifest file at `path`.
    ///
    /// # Errors
    /// - [`Error::Corrupt`]: the manifest is damaged or cannot be decoded.
    /// - [`Error::UnsupportedFormat`]: the manifest was written by a newer version of prefd.
    pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        let corrupt = |offset, what: &str| Error::corrupt(path, offset, what);
        let (header, body) = bytes
            .split_at_checked(HEADER_BYTES)
            .ok_or_else(|| corrupt(0, "the manifest is truncated"))?;
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
        let has_highest_time = match version {
            Some(3) => true,
            Some(1) => false,
            _ => {
                return Err(Error::UnsupportedFormat {
                    path: path.to_owned(),
                    found: version.unwrap_or_default(),
                    supported: VERSION.number(),
                });
            }
        };
        if body_bytes.map(|n| n as usize) != Some(body.len())
            || body_crc != Some(crc32fast::hash(body))
        {
            return Err(corrupt(
                HEADER_BYTES as u64,
                "the length or checksum of the manifest does not match",
            ));
        }
        (codec == Some(codec::CODEC) && zero == Some(0))
            .then(|| Self::decode_body(body, has_highest_time))
            .flatten()
            .filter(Self::is_consistent)
            .ok_or_else(|| corrupt(HEADER_BYTES as u64, "the manifest cannot be decoded"))
    }

    /// Decodes the body, which has a highest time in version 3, but not in version 1.
    fn decode_body(body: &[u8], has_highest_time: bool) -> Option<Self> {
        let (leading, highest_modified_ms, segments) = if has_highest_time {
            let (leading, highest, segments) = codec::decode(body).ok()?;
            (leading, Some(highest), segments)
        } else {
            let (leading, segments) = codec::decode(body).ok()?;
            (leading, None, segments)
        };
        let LeadingFields {
            hash_key,
            store,
            next_segment,
            reserved_revision,
        } = leading;
        Some(Self {
            hash_key,
            store,
            next_segment,
            reserved_revision,
            highest_modified_ms,
            segments,
        })
    }

    /// Encodes the body in version 3, or in version 1 if the highest time is unknown.
    fn encode_body(&self) -> std::result::Result<(FormatVersion, Vec<u8>), codec::CodecError> {
        let leading = LeadingFields {
            hash_key: self.hash_key,
            store: self.store,
            next_segment: self.next_segment,
            reserved_revision: self.reserved_revision,
        };
        Ok(match self.highest_modified_ms {
            Some(highest) => (VERSION, codec::encode(&(leading, highest, &self.segments))?),
            None => (
                FormatVersion::V1,
                codec::encode(&(leading, &self.segments))?,
            ),
        })
    }

    /// Returns true if the ids and revisions of the manifest are plausible, and only the last
    /// segment is active. With implausible values, a new segment could get the id of an existing
    /// segment, or the store could run out of revisions.
    fn is_consistent(&self) -> bool {
        let ids = self.segments.iter().map(|record| record.id);
        let is_last =
            |record: &SegmentRecord| self.segments.last().is_some_and(|r| r.id == record.id);
        ids.chain([self.next_segment]).is_sorted_by(|a, b| a < b)
            && self.reserved_revision <= Self::MAX_REVISION
            && self
                .segments
                .iter()
                .all(|r| r.sealed.is_some() || is_last(r))
    }

    /// Encodes the manifest. `path` is only used in error messages. A manifest whose highest time
    /// is unknown is encoded in version 1.
    ///
    /// # Errors
    /// [`Error::Io`] if the body is longer than [`codec::MAX_ENCODED_BYTES`].
    pub(crate) fn encode(&self, path: &Path) -> Result<Vec<u8>> {
        let (version, body) = self
            .encode_body()
            .map_err(|error| Error::io("encode", path, io::Error::other(error)))?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&version.number().to_le_bytes());
        bytes.extend_from_slice(&[codec::CODEC, 0]);
        bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }
}
