//! The metadata of a put with extents, in the layout of version 2. The layout is read, but no
//! longer written.

use crate::format::codec;
use crate::format::frame::member::Member;

/// Decodes the metadata. Returns an error message if the metadata is not valid, for example because
/// a value is not in a blob.
pub(super) fn decode(section: &[u8]) -> Result<Vec<Member>, &'static str> {
    let members: Vec<Member> =
        codec::decode(section).map_err(|_| "the frame metadata cannot be decoded")?;
    if members.is_empty() || members.iter().any(|member| member.blob().is_none()) {
        return Err("the frame metadata has no members, or has a value that is not in a blob");
    }
    if !members
        .iter()
        .all(|member| member.value.has_all_checksums())
    {
        return Err("an extent in the frame metadata does not have a checksum for each chunk");
    }
    Ok(members)
}

/// Encodes the metadata.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn encode(members: &[Member]) -> Vec<u8> {
    codec::encode(&members).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::member::{EXTENT_CHUNK_BYTES, Extent, ValueLocation};
    use crate::model::ids::BlobId;

    #[test]
    fn metadata_with_anything_but_complete_extents_is_rejected() {
        let member = |value| Member::new("\"k\"".to_owned(), value);
        let extent = |bytes| {
            member(ValueLocation::Extent(Extent {
                blob: BlobId::new(3),
                offset: 28,
                bytes,
                crcs: vec![1, 2],
            }))
        };
        let inline = member(ValueLocation::Inline {
            offset: 5,
            bytes: 1,
        });
        for (members, is_valid) in [
            (vec![extent(70_000)], true),
            (vec![extent(1 + 2 * EXTENT_CHUNK_BYTES as u64)], false),
            (vec![extent(70_000), inline.clone()], false),
            (vec![inline], false),
            (vec![], false),
        ] {
            assert_eq!(decode(&encode(&members)).is_ok(), is_valid, "{members:?}");
        }
    }
}
