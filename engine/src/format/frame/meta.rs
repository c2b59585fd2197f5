//! The description of a document in its frame: the namespace, the members, and the locations
//! of their values.

use serde::{Deserialize, Serialize};

use crate::format::frame::header::FrameKind;
use crate::model::ids::BlobId;
use crate::model::limits::Usage;
use crate::model::names::Names;

/// The namespace and the members of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrameMeta {
    pub(crate) names: Names,
    pub(super) members: MemberLayout,
}

/// The members of a document, in the order of the document. A delete has no members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MemberLayout {
    /// The keys, and the locations of the values.
    Located(Vec<Member>),
    /// The lengths of the keys and values. The JSON texts of the keys and values are in the inline
    /// body, at offsets that are computed from the lengths.
    Sized(Vec<MemberSizes>),
}

/// The lengths of a key's JSON text and of a value's JSON text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemberSizes {
    pub(super) key: u32,
    pub(super) value: u32,
}

/// One member of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The JSON text of the key as sent, including the quotes.
    pub(crate) key: String,
    pub(crate) value: ValueLocation,
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

/// Computes the length of a body in bytes. `members` yields, for each member, the length of the key
/// plus the length of the value.
///
/// In addition to the keys and values, a body contains the opening brace and, for each member, a
/// colon and a comma. After the last member, the closing brace replaces the comma.
pub(super) fn body_bytes(members: impl Iterator<Item = u64>) -> u64 {
    let (count, texts) = members.fold((0_u64, 0_u64), |(count, sum), bytes| {
        (count + 1, sum.saturating_add(bytes))
    });
    // If the document is empty, no comma is counted, so the closing brace is counted here.
    texts.saturating_add(1 + count.saturating_mul(2).max(1))
}

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

impl MemberSizes {
    pub(super) fn bytes(self) -> u64 {
        u64::from(self.key) + u64::from(self.value)
    }
}

/// Returns the blobs that contain values of `members`, in ascending order and without duplicates.
pub(crate) fn blob_ids(members: &[Member]) -> Vec<BlobId> {
    let mut blobs: Vec<BlobId> = members.iter().filter_map(Member::blob).collect();
    blobs.sort_unstable();
    blobs.dedup();
    blobs
}

impl FrameMeta {
    pub(super) fn new(names: Names, members: MemberLayout) -> Self {
        Self { names, members }
    }

    /// Returns true if the frame belongs to the namespace of this user and client.
    pub(crate) fn belongs_to(&self, (user, client): (&str, &str)) -> bool {
        *self.names.user == *user && *self.names.client == *client
    }

    /// Returns the blobs that contain the document, in ascending order and without duplicates.
    pub(crate) fn blobs(&self) -> Vec<BlobId> {
        match &self.members {
            MemberLayout::Located(members) => blob_ids(members),
            MemberLayout::Sized(_) => Vec::new(),
        }
    }

    /// Returns the number of keys of the document, and the length of the body that a read returns.
    /// For a delete, the number of keys and the length are 0.
    pub(crate) fn usage(&self, kind: FrameKind) -> Usage {
        if kind == FrameKind::Delete {
            return Usage::default();
        }
        let (keys, bytes) = match &self.members {
            MemberLayout::Located(members) => {
                (members.len(), body_bytes(members.iter().map(Member::bytes)))
            }
            MemberLayout::Sized(sizes) => {
                let bytes = body_bytes(sizes.iter().map(|sizes| sizes.bytes()));
                (sizes.len(), bytes)
            }
        };
        Usage {
            keys: u32::try_from(keys).unwrap_or(u32::MAX),
            bytes,
        }
    }

    /// Returns true if the locations of the values are valid. Either all values must be in blobs,
    /// or all values must be in the inline body, at the offsets that are computed from the lengths
    /// of the keys and values.
    ///
    /// If the frame stores only the lengths of the members, the function also checks the quotes,
    /// colons, commas and braces of the inline body.
    pub(crate) fn matches_body(&self, kind: FrameKind, inline: &[u8]) -> bool {
        if kind == FrameKind::Delete {
            return true;
        }
        match &self.members {
            MemberLayout::Located(members) if members.iter().any(|m| m.blob().is_some()) => {
                members.iter().all(|member| member.blob().is_some())
            }
            MemberLayout::Located(members) => inline_end(members) == Some(inline.len() as u64),
            MemberLayout::Sized(sizes) => {
                let mut body = BodyCursor::new(inline);
                sizes.iter().all(|sizes| body.member(*sizes).is_some()) && body.is_at_end()
            }
        }
    }

    /// Returns the members with their keys and locations. Returns `None` if [`Self::matches_body`]
    /// is false.
    pub(crate) fn into_members(self, kind: FrameKind, inline: &[u8]) -> Option<Vec<Member>> {
        if kind == FrameKind::Delete {
            return Some(Vec::new());
        }
        if let MemberLayout::Sized(sizes) = &self.members {
            let mut body = BodyCursor::new(inline);
            let members: Option<Vec<_>> = sizes.iter().map(|sizes| body.member(*sizes)).collect();
            let members = members.filter(|_| body.is_at_end())?;
            return Some(
                members
                    .into_iter()
                    .map(LocatedMember::into_member)
                    .collect(),
            );
        }
        let is_valid = self.matches_body(kind, inline);
        match self.members {
            MemberLayout::Located(members) if is_valid => Some(members),
            MemberLayout::Located(_) | MemberLayout::Sized(_) => None,
        }
    }
}

/// Computes the length of the inline body. Returns `None` if a value is in a blob, or if the offset
/// of a value does not match the lengths of the preceding keys and values.
fn inline_end(members: &[Member]) -> Option<u64> {
    let end = members.iter().try_fold(1_u64, |at, member| {
        let at = at + member.key.len() as u64 + 1;
        match &member.value {
            ValueLocation::Inline { offset, bytes } if u64::from(*offset) == at => {
                Some(at + u64::from(*bytes) + 1)
            }
            ValueLocation::Inline { .. } | ValueLocation::Extent(_) => None,
        }
    })?;
    // The fold has counted one byte after each member: a comma, or the closing brace after the last
    // member. The closing brace of an empty body is added here.
    Some(end + u64::from(members.is_empty()))
}

/// A member that was found in an inline body.
struct LocatedMember<'a> {
    key: &'a str,
    offset: u32,
    bytes: u32,
}

impl LocatedMember<'_> {
    fn into_member(self) -> Member {
        Member {
            key: self.key.to_owned(),
            value: ValueLocation::Inline {
                offset: self.offset,
                bytes: self.bytes,
            },
        }
    }
}

/// Reads the members of an inline body one after another, given the lengths of each key and value.
struct BodyCursor<'a> {
    bytes: &'a [u8],
    /// Offset of the next byte to read.
    at: usize,
    /// True once the opening brace has been read.
    is_begun: bool,
}

impl<'a> BodyCursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            is_begun: false,
        }
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    /// Reads the next member. Returns `None` if the body does not match `sizes`.
    fn member(&mut self, sizes: MemberSizes) -> Option<LocatedMember<'a>> {
        let before: &[u8] = if self.is_begun { b"," } else { b"{" };
        self.is_begun = true;
        if self.take(1)? != before {
            return None;
        }
        let key = std::str::from_utf8(self.take(sizes.key as usize)?).ok()?;
        let is_quoted = key.len() >= 2 && key.starts_with('"') && key.ends_with('"');
        if !is_quoted || self.take(1)? != b":" {
            return None;
        }
        let offset = u32::try_from(self.at).ok()?;
        self.take(sizes.value as usize)?;
        Some(LocatedMember {
            key,
            offset,
            bytes: sizes.value,
        })
    }

    /// Returns true if all of the body except the closing brace has been read. For an empty
    /// document, returns true if the complete body is `{}`.
    fn is_at_end(&self) -> bool {
        let end: &[u8] = if self.is_begun { b"}" } else { b"{}" };
        self.bytes.get(self.at..) == Some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(sizes: &[(u32, u32)]) -> FrameMeta {
        let sizes = sizes.iter().map(|(key, value)| MemberSizes {
            key: *key,
            value: *value,
        });
        let members = MemberLayout::Sized(sizes.collect());
        FrameMeta::new(Names::new("u", "c").unwrap(), members)
    }

    #[test]
    fn members_of_an_inline_body_are_found_by_their_lengths() {
        let body = br#"{"a":1,"":[1,2],"\"":{}}"#;
        let meta = sized(&[(3, 1), (2, 5), (4, 2)]);
        assert!(meta.matches_body(FrameKind::Put, body));
        let usage = meta.usage(FrameKind::Put);
        assert_eq!((usage.keys, usage.bytes), (3, body.len() as u64));
        let members = meta.into_members(FrameKind::Put, body).unwrap();
        let found: Vec<_> = members
            .iter()
            .map(|member| match member.value {
                ValueLocation::Inline { offset, bytes } => {
                    let at = offset as usize;
                    let value = std::str::from_utf8(&body[at..at + bytes as usize]).unwrap();
                    (member.key.as_str(), value)
                }
                ValueLocation::Extent(_) => panic!("{member:?}"),
            })
            .collect();
        assert_eq!(
            found,
            [("\"a\"", "1"), ("\"\"", "[1,2]"), (r#""\"""#, "{}")]
        );
        let empty = sized(&[]);
        assert_eq!(empty.usage(FrameKind::Put), Usage { keys: 0, bytes: 2 });
        assert_eq!(empty.into_members(FrameKind::Put, b"{}"), Some(Vec::new()));
    }

    #[test]
    fn lengths_that_do_not_match_the_body_are_rejected() {
        let body: &[u8] = br#"{"a":1,"b":2}"#;
        assert!(sized(&[(3, 1), (3, 1)]).matches_body(FrameKind::Put, body));
        for (sizes, body) in [
            (&[(3, 1)][..], body),
            (&[(3, 6)], body),
            (&[(3, 8)], body),
            (&[], body),
            (&[(3, 1), (3, 2)], body),
            (&[(3, 1), (2, 2)], body),
            (&[(3, 1), (1, 3)], body),
            (&[(3, 1), (3, 1), (3, 1)], body),
            (&[(3, u32::MAX)], body),
            (&[(u32::MAX, 1)], body),
            (&[(3, 1), (3, 1)], br#"{"a":1;"b":2}"#),
            (&[(3, 1), (3, 1)], br#"{"a":1,"b":2]"#),
            (&[(3, 1), (3, 1)], br#"["a":1,"b":2}"#),
            (&[(3, 1), (3, 1)], br#"{"a"=1,"b":2}"#),
            (&[(3, 1), (3, 1)], br#"{"a":1,'b":2}"#),
            (&[(1, 1)], br#"{":1}"#),
            (&[(3, 1)], b"{\"\xff\":1}"),
            (&[], b"{"),
            (&[], b""),
        ] {
            let meta = sized(sizes);
            assert!(!meta.matches_body(FrameKind::Put, body), "{sizes:?}");
            assert_eq!(meta.into_members(FrameKind::Put, body), None, "{sizes:?}");
        }
    }

    /// The inline body of a document with extents is empty, so an inline value would point to
    /// bytes that do not exist.
    #[test]
    fn document_with_inline_values_and_extents_is_rejected() {
        let extent = Member {
            key: "\"e\"".to_owned(),
            value: ValueLocation::Extent(Extent {
                blob: BlobId::new(1),
                offset: 28,
                bytes: 1,
                crcs: vec![0],
            }),
        };
        let inline = Member {
            key: "\"i\"".to_owned(),
            value: ValueLocation::Inline {
                offset: 5,
                bytes: 1,
            },
        };
        let body = br#"{"i":1}"#;
        for (members, is_valid) in [
            (vec![inline.clone()], true),
            (vec![extent.clone()], true),
            (vec![inline.clone(), extent.clone()], false),
            (vec![extent, inline], false),
        ] {
            let names = Names::new("u", "c").unwrap();
            let meta = FrameMeta::new(names, MemberLayout::Located(members));
            assert_eq!(meta.matches_body(FrameKind::Put, body), is_valid);
            assert_eq!(meta.into_members(FrameKind::Put, body).is_some(), is_valid);
        }
    }
}
