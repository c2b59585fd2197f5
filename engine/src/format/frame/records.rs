//! The metadata of a put, in the layout of version 3.
//!
//! ```text
//! varint  highest revision among the members that have their own revision; 0 if no member has one
//! varint  highest time among these members; 0 if no member has one
//! for each member:
//!   varint  length of the key's JSON text
//!   varint  length of the value's JSON text
//!   u8      attributes: bit 0 the member has its own revision and time, bit 1 the value is in a
//!           blob
//!   u8      codec of the value, 0
//!   bit 0:  varint  the highest revision minus the revision of the member
//!           varint  the highest time minus the time of the member
//!   bit 1:  u64     id of the blob
//!           varint  offset of the value in the blob
//!           u32     CRC-32 of each chunk of the value
//! ```
//!
//! The keys and the inline values are in the inline body of the frame. The metadata does not depend
//! on the revision of the frame, so it is encoded before the commit.

use crate::format::fields::{FieldReader, push_varint};
use crate::format::frame::header::FrameError;
use crate::format::frame::member::{
    EXTENT_CHUNK_BYTES, Extent, Member, ValueLocation, ValueOrigin, blob_ids, distinct,
};
use crate::model::ids::BlobId;

/// Maximum number of blobs that one frame can refer to. A download keeps all blobs of its frame on
/// the disk, and each blob can contain stale values.
const MAX_FRAME_BLOBS: usize = 16;
/// Attribute: the member has its own revision and time.
const HAS_ORIGIN: u8 = 1;
/// Attribute: the value is in a blob.
const IS_EXTENT: u8 = 2;
/// The codec of values that are stored as they were sent.
const STORED_AS_SENT: u8 = 0;
/// Length of a checksum in bytes.
const CRC_BYTES: usize = 4;

/// The decoded record of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MemberRecord {
    /// Length of the key's JSON text in bytes.
    pub(super) key_bytes: u32,
    pub(super) origin: Option<Box<ValueOrigin>>,
    pub(super) value: RecordedValue,
}

/// The location of a value according to its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RecordedValue {
    /// The value is in the inline body and has this number of bytes.
    Inline(u32),
    Extent(Extent),
}

impl RecordedValue {
    /// Length of the value in bytes.
    fn bytes(&self) -> u64 {
        match self {
            Self::Inline(bytes) => u64::from(*bytes),
            Self::Extent(extent) => extent.bytes,
        }
    }
}

impl MemberRecord {
    /// Creates the record of a member. Returns `None` if the key is too long.
    fn of(member: &Member) -> Option<Self> {
        let value = match &member.value {
            ValueLocation::Inline { bytes, .. } => RecordedValue::Inline(*bytes),
            ValueLocation::Extent(extent) => RecordedValue::Extent(extent.clone()),
        };
        Some(Self {
            key_bytes: u32::try_from(member.key.len()).ok()?,
            origin: member.origin.clone(),
            value,
        })
    }

    /// Length of the key and the value in bytes.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.key_bytes).saturating_add(self.value.bytes())
    }

    /// Length of the value in the inline body in bytes.
    pub(super) fn inline_bytes(&self) -> u32 {
        match &self.value {
            RecordedValue::Inline(bytes) => *bytes,
            RecordedValue::Extent(_) => 0,
        }
    }

    pub(super) fn blob(&self) -> Option<BlobId> {
        match &self.value {
            RecordedValue::Inline(_) => None,
            RecordedValue::Extent(extent) => Some(extent.blob),
        }
    }
}

/// The highest revision and the highest time of the members that have their own.
fn highest(origins: impl Iterator<Item = ValueOrigin>) -> ValueOrigin {
    origins.fold(ValueOrigin::default(), |highest, origin| ValueOrigin {
        revision: highest.revision.max(origin.revision),
        modified_ms: highest.modified_ms.max(origin.modified_ms),
    })
}

/// Encodes the metadata. Returns `None` if the members refer to too many blobs.
pub(super) fn encode(members: &[Member]) -> Option<Vec<u8>> {
    if blob_ids(members).len() > MAX_FRAME_BLOBS {
        return None;
    }
    let records: Option<Vec<MemberRecord>> = members.iter().map(MemberRecord::of).collect();
    Some(encode_records(&records?))
}

/// Encodes the metadata.
pub(super) fn encode_records(records: &[MemberRecord]) -> Vec<u8> {
    let highest = highest(records.iter().filter_map(|r| r.origin.as_deref().copied()));
    let mut section = Vec::new();
    push_varint(&mut section, highest.revision);
    push_varint(&mut section, highest.modified_ms);
    for record in records {
        push_varint(&mut section, record.key_bytes.into());
        push_varint(&mut section, record.value.bytes());
        let is_extent = matches!(record.value, RecordedValue::Extent(_));
        let origin_bit = if record.origin.is_some() {
            HAS_ORIGIN
        } else {
            0
        };
        let extent_bit = if is_extent { IS_EXTENT } else { 0 };
        section.extend_from_slice(&[origin_bit | extent_bit, STORED_AS_SENT]);
        if let Some(origin) = &record.origin {
            push_varint(&mut section, highest.revision - origin.revision);
            push_varint(&mut section, highest.modified_ms - origin.modified_ms);
        }
        if let RecordedValue::Extent(extent) = &record.value {
            section.extend_from_slice(&extent.blob.get().to_le_bytes());
            push_varint(&mut section, extent.offset);
            for crc in &extent.crcs {
                section.extend_from_slice(&crc.to_le_bytes());
            }
        }
    }
    section
}

/// Decodes the metadata, whose checksum the caller has verified.
///
/// # Errors
/// [`FrameError::Unknown`] if a field has an unexpected value. Because the checksum is correct, the
/// metadata is not damaged, but was written by another version of the engine.
pub(super) fn decode(section: &[u8]) -> Result<Vec<MemberRecord>, FrameError> {
    let mut fields = FieldReader::new(section);
    decode_fields(&mut fields).ok_or(FrameError::Unknown)
}

fn decode_fields(fields: &mut FieldReader<'_>) -> Option<Vec<MemberRecord>> {
    let stated = ValueOrigin {
        revision: fields.varint()?,
        modified_ms: fields.varint()?,
    };
    let mut records = Vec::new();
    while !fields.is_empty() {
        records.push(decode_record(fields, stated)?);
    }
    let found = highest(records.iter().filter_map(|r| r.origin.as_deref().copied()));
    let blobs = distinct(records.iter().filter_map(MemberRecord::blob));
    (found == stated && blobs.len() <= MAX_FRAME_BLOBS).then_some(records)
}

fn decode_record(fields: &mut FieldReader<'_>, highest: ValueOrigin) -> Option<MemberRecord> {
    let key_bytes = fields.varint_u32()?;
    let value_bytes = fields.varint()?;
    let (attributes, codec) = (fields.u8()?, fields.u8()?);
    if attributes & !(HAS_ORIGIN | IS_EXTENT) != 0 || codec != STORED_AS_SENT {
        return None;
    }
    let origin = if attributes & HAS_ORIGIN == 0 {
        None
    } else {
        Some(Box::new(ValueOrigin {
            revision: highest.revision.checked_sub(fields.varint()?)?,
            modified_ms: highest.modified_ms.checked_sub(fields.varint()?)?,
        }))
    };
    let value = if attributes & IS_EXTENT == 0 {
        RecordedValue::Inline(u32::try_from(value_bytes).ok()?)
    } else {
        let (blob, offset) = (BlobId::new(fields.u64()?), fields.varint()?);
        let chunks = usize::try_from(value_bytes.div_ceil(EXTENT_CHUNK_BYTES as u64)).ok()?;
        let crcs = fields.take(chunks.checked_mul(CRC_BYTES)?)?;
        let crcs = crcs
            .chunks_exact(CRC_BYTES)
            .filter_map(|crc| FieldReader::new(crc).u32());
        RecordedValue::Extent(Extent {
            blob,
            offset,
            bytes: value_bytes,
            crcs: crcs.collect(),
        })
    };
    Some(MemberRecord {
        key_bytes,
        origin,
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(revision: u64, modified_ms: u64) -> ValueOrigin {
        ValueOrigin {
            revision,
            modified_ms,
        }
    }

    fn inline(bytes: u32) -> MemberRecord {
        MemberRecord {
            key_bytes: 3,
            origin: None,
            value: RecordedValue::Inline(bytes),
        }
    }

    fn extent(blob: u64, bytes: u64) -> MemberRecord {
        let chunks = u32::try_from(bytes.div_ceil(EXTENT_CHUNK_BYTES as u64)).unwrap();
        MemberRecord {
            value: RecordedValue::Extent(Extent {
                blob: BlobId::new(blob),
                offset: 28,
                bytes,
                crcs: (0..chunks).collect(),
            }),
            ..inline(0)
        }
    }

    #[test]
    fn records_round_trip_at_the_limits_of_each_field() {
        let chunk = EXTENT_CHUNK_BYTES as u64;
        let with_origin = |revision, modified_ms| MemberRecord {
            origin: Some(Box::new(origin(revision, modified_ms))),
            ..inline(7)
        };
        for records in [
            vec![],
            vec![inline(0), inline(u32::MAX)],
            vec![
                with_origin(u64::MAX, 0),
                with_origin(0, u64::MAX),
                inline(1),
            ],
            vec![
                extent(u64::MAX, 0),
                extent(1, 1),
                extent(1, chunk),
                extent(1, chunk + 1),
            ],
            (0..MAX_FRAME_BLOBS as u64)
                .map(|blob| extent(blob, 5))
                .collect(),
        ] {
            let section = encode_records(&records);
            assert_eq!(decode(&section), Ok(records));
            for len in 0..section.len() {
                // A truncated record is never accepted as a record with other contents.
                let shorter = decode(&section[..len]).map(|r| encode_records(&r));
                assert!(shorter.is_err() || shorter == Ok(section[..len].to_vec()));
            }
        }
    }

    /// A prefd that does not know the codec of a value must not treat the frame as damaged, because
    /// it would then drop the frame from the end of the log.
    #[test]
    fn metadata_with_unknown_values_is_not_damage() {
        let valid = encode_records(&[inline(5)]);
        assert_eq!(valid, [0, 0, 3, 5, 0, 0]);
        for (at, value, what) in [
            (5, 1, "the codec of compressed values"),
            (5, 255, "an unknown codec"),
            (4, 4, "an unknown attribute"),
            (0, 1, "a highest revision that no member has"),
            (1, 1, "a highest time that no member has"),
        ] {
            let mut changed = valid.clone();
            changed[at] = value;
            assert_eq!(decode(&changed), Err(FrameError::Unknown), "{what}");
        }
        let origin_above_highest = [5, 9, 3, 5, HAS_ORIGIN, 0, 6, 0];
        assert_eq!(decode(&origin_above_highest), Err(FrameError::Unknown));
    }

    #[test]
    fn frame_with_17_blobs_is_refused() {
        let blobs = MAX_FRAME_BLOBS as u64 + 1;
        let records: Vec<_> = (0..blobs).map(|blob| extent(blob, 5)).collect();
        assert_eq!(decode(&encode_records(&records)), Err(FrameError::Unknown));
        let members = records.into_iter().map(|record| match record.value {
            RecordedValue::Extent(extent) => {
                Member::new("\"k\"".to_owned(), ValueLocation::Extent(extent))
            }
            RecordedValue::Inline(_) => panic!("expected an extent"),
        });
        assert_eq!(encode(&members.collect::<Vec<_>>()), None);
    }
}
