//! The members of a document: their keys, and the locations of their values.

use serde::{Deserialize, Serialize};

use crate::model::ids::BlobId;

/// One member of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The JSON text of the key as sent, including the quotes.
    pub(crate) key: String,
    pub(crate) value: ValueLocation,
    /// The write that last set the value. `None` if the frame that contains the member is this
    /// write.
    #[serde(skip)]
    pub(crate) origin: Option<Box<ValueOrigin>>,
}

/// The revision and the time of the write that last set a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ValueOrigin {
    pub(crate) revision: u64,
    /// In milliseconds since 1970-01-01 UTC.
    pub(crate) modified_ms: u64,
}

/// The location of the JSON text of a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ValueLocation {
    /// The value is in the inline body of the frame. `offset` is counted from the start of the
    /// body.
    Inline { offset: u32, bytes: u32 },
    /// The value is in a blob.
    Extent(Extent),
}

/// The range of a blob that contains one value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    pub(crate) blob: BlobId,
    /// Offset from the start of the blob file.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// The CRC-32 of each chunk of the extent. Each chunk has [`EXTENT_CHUNK_BYTES`] bytes, except
    /// that the last chunk may be shorter.
    pub(crate) crcs: Vec<u32>,
}

/// Number of bytes of an extent that one checksum covers. To verify one byte, a reader must read
/// the complete chunk that contains the byte.
pub(crate) const EXTENT_CHUNK_BYTES: usize = 64 * 1024;

impl ValueLocation {
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Inline { bytes, .. } => u64::from(*bytes),
            Self::Extent(extent) => extent.bytes,
        }
    }

    /// Returns true if an extent has a checksum for each of its chunks. The check also limits the
    /// length of an extent, because the metadata must be long enough to contain all checksums.
    pub(super) fn has_all_checksums(&self) -> bool {
        match self {
            Self::Inline { .. } => true,
            Self::Extent(extent) => {
                let chunks = extent.bytes.div_ceil(EXTENT_CHUNK_BYTES as u64);
                extent.crcs.len() as u64 == chunks
            }
        }
    }
}

impl Member {
    /// Creates a member whose value is set by the write of its frame.
    pub(crate) fn new(key: String, value: ValueLocation) -> Self {
        Self {
            key,
            value,
            origin: None,
        }
    }

    /// Returns true if the value is in the inline body, and was set by the write of its frame.
    pub(super) fn is_plain(&self) -> bool {
        self.origin.is_none() && self.blob().is_none()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.key.len() as u64 + self.value.bytes()
    }

    pub(super) fn blob(&self) -> Option<BlobId> {
        match &self.value {
            ValueLocation::Extent(extent) => Some(extent.blob),
            ValueLocation::Inline { .. } => None,
        }
    }
}

/// Returns the blobs that contain values of `members`, in ascending order and without duplicates.
pub(crate) fn blob_ids(members: &[Member]) -> Vec<BlobId> {
    distinct(members.iter().filter_map(Member::blob))
}

/// Sorts blob ids and removes duplicates.
pub(super) fn distinct(blobs: impl Iterator<Item = BlobId>) -> Vec<BlobId> {
    let mut blobs: Vec<BlobId> = blobs.collect();
    blobs.sort_unstable();
    blobs.dedup();
    blobs
}
