//! The most metadata that a document within given limits can have: its keys, and the metadata of
//! its frame.

use crate::format::codec;
use crate::format::fields::MAX_VARINT_BYTES;
use crate::format::frame::member::EXTENT_CHUNK_BYTES;
use crate::model::error::{Error, Result};
use crate::model::limits::Limits;

/// Maximum length of the start of the metadata in bytes: two varints.
const START_BYTES: u64 = 2 * MAX_VARINT_BYTES as u64;
/// Maximum length of a member record in bytes, without the checksums: the attributes, the codec,
/// the id of the blob, and varints for two lengths, the revision, the time, and the offset in the
/// blob.
const RECORD_BYTES: u64 = 1 + 1 + 8 + 5 * MAX_VARINT_BYTES as u64;
/// Length of a checksum in the metadata, in bytes.
const CHECKSUM_BYTES: u64 = 4;
/// Maximum length of the JSON text of one byte of a key: the escape `\u00XX`.
pub(crate) const MAX_ESCAPE_BYTES: u64 = 6;
/// Length of the shortest JSON text of a member in bytes: the two quotes of an empty key, a colon,
/// a value of one digit, and a comma.
pub(crate) const MIN_MEMBER_BYTES: u64 = 5;

impl Limits {
    /// Maximum length of the keys and the metadata of one document, in bytes. The metadata of a
    /// document in a blob has a checksum for each 64 KiB of each value.
    pub const MAX_METADATA_BYTES: u64 = codec::MAX_ENCODED_BYTES;

    /// Checks that the storage format can hold each document within these limits.
    /// [`crate::Engine::open`] makes the same check. Never blocks.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if [`Self::metadata_bytes`] exceeds [`Self::MAX_METADATA_BYTES`].
    pub fn check(&self) -> Result<()> {
        let bytes = self.metadata_bytes();
        if bytes <= Self::MAX_METADATA_BYTES {
            return Ok(());
        }
        Err(Error::InvalidConfig {
            setting: "limits",
            reason: format!(
                "allow a document with {bytes} bytes of keys and metadata, but the maximum is {}",
                Self::MAX_METADATA_BYTES
            ),
        })
    }

    /// Returns an upper bound of the length of a document's keys and metadata, in bytes. No
    /// document within these limits has more.
    ///
    /// ```
    /// use prefd_engine::Limits;
    /// assert!(Limits::new(10_000, 128, 10 * 1024 * 1024).check().is_ok());
    /// let mut limits = Limits::new(100_000, 128, 10 * 1024 * 1024);
    /// assert!(limits.check().is_err());
    /// // A body of 8 MiB cannot contain 100,000 long keys.
    /// limits.max_body_bytes = 8 * 1024 * 1024;
    /// assert!(limits.metadata_bytes() < Limits::MAX_METADATA_BYTES);
    /// ```
    pub fn metadata_bytes(&self) -> u64 {
        let chunk = EXTENT_CHUNK_BYTES as u64;
        let body = self.max_body_bytes;
        let keys = u64::from(self.max_keys).min(body / MIN_MEMBER_BYTES);
        let text = MAX_ESCAPE_BYTES * u64::from(self.max_key_bytes) + 2;
        let chunks = keys.saturating_mul(self.max_value_bytes.div_ceil(chunk));
        // In addition to its complete chunks, each value has at most one incomplete chunk.
        let chunks_in_body = body / chunk + keys;
        let keys_and_checksums = keys
            .saturating_mul(text)
            .min(body)
            .saturating_add(CHECKSUM_BYTES.saturating_mul(chunks.min(chunks_in_body)));
        (START_BYTES + RECORD_BYTES * keys).saturating_add(keys_and_checksums)
    }

    /// Returns the highest [`Self::max_keys`] that [`Self::check`] accepts together with the other
    /// limits. The result is 0 if a document of a single key can already have too much metadata.
    pub fn highest_max_keys(&self) -> u32 {
        let is_storable = |max_keys| {
            let limits = Self {
                max_keys,
                ..self.clone()
            };
            limits.check().is_ok()
        };
        // Each step decides one bit of the result, beginning with the highest bit.
        (0..u32::BITS).rev().fold(0, |highest, bit| {
            let higher = highest | 1 << bit;
            if is_storable(higher) { higher } else { highest }
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::format::frame::encoded::EncodedFrame;
    use crate::format::frame::header::FrameKind;
    use crate::format::frame::member::{Extent, Member, ValueLocation};
    use crate::format::frame::records;
    use crate::model::ids::BlobId;
    use crate::model::names::NamespaceHash;

    /// The members of a document with as many and as long keys and values as `limits` allow.
    fn largest(limits: &Limits) -> Vec<Member> {
        let chunks = limits.max_value_bytes.div_ceil(EXTENT_CHUNK_BYTES as u64);
        let extent = Extent {
            blob: BlobId::new(u64::MAX),
            offset: u64::from(u32::MAX),
            bytes: limits.max_value_bytes,
            crcs: vec![0; usize::try_from(chunks).unwrap()],
        };
        let key = format!("\"{}\"", "\\u0000".repeat(limits.max_key_bytes as usize));
        let member = Member::new(key, ValueLocation::Extent(extent));
        vec![member; limits.max_keys as usize]
    }

    #[test]
    fn bound_is_at_least_the_length_of_the_longest_keys_and_metadata() {
        for limits in [
            Limits::default(),
            Limits::new(1, 1, 1),
            Limits::new(1000, 16, 64 * 1024),
            Limits::new(7, 300, 64 * 1024 + 1),
        ] {
            let members = largest(&limits);
            let keys: usize = members.iter().map(|member| member.key.len()).sum();
            let bytes = records::encode(&members).unwrap().len() + keys;
            assert!(limits.metadata_bytes() >= bytes as u64, "{limits:?}");
        }
    }

    #[test]
    fn document_with_the_highest_number_of_keys_can_be_encoded() {
        let mut limits = Limits::new(1, 1, 64 * 1024);
        limits.max_body_bytes = u64::MAX;
        limits.max_keys = limits.highest_max_keys();
        assert!(limits.check().is_ok());
        let names = ("user", "client");
        let hash = NamespaceHash::of(&[0; 16], names.0, names.1);
        let members = largest(&limits);
        assert!(EncodedFrame::new(FrameKind::Put, hash, names, &members, Bytes::new()).is_some());
        limits.max_keys += 1;
        assert!(limits.check().is_err());
        // No number of keys is too high if the body is short.
        limits.max_body_bytes = 1024 * 1024;
        assert_eq!(limits.highest_max_keys(), u32::MAX);
        assert_eq!(Limits::new(1, 128, u64::MAX).highest_max_keys(), 0);
    }
}
