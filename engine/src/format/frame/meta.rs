//! What a frame says of its document: whose it is, its members, and where their values
//! lie.

use serde::{Deserialize, Serialize};

use crate::format::frame::header::FrameKind;
use crate::model::ids::BlobId;
use crate::model::limits::Usage;

/// What a frame says besides the numbers in its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrameMeta {
    pub(crate) user: String,
    pub(crate) client: String,
    pub(super) members: MemberLayout,
}

/// In the document's order; none in a delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MemberLayout {
    /// Keys and places.
    Placed(Vec<Member>),
    /// The lengths of the texts of each key and its value, which follow each other in the
    /// inline bytes.
    Sized(Vec<MemberSizes>),
}

/// Bytes of a key's JSON text and of its value's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemberSizes {
    pub(super) key: u32,
    pub(super) value: u32,
}

/// One member of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The key's JSON text as sent, with its quotes.
    pub(crate) key: String,
    pub(crate) value: ValueLocation,
}

/// Where a value's JSON text lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ValueLocation {
    /// In the inline bytes of the frame, which are then the whole body.
    Inline { offset: u32, bytes: u32 },
    /// In a blob file.
    Extent(Extent),
}

/// A run of bytes in a blob file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    pub(crate) blob: BlobId,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// CRC-32 of each [`EXTENT_CHUNK_BYTES`] of the run, the last one shorter.
    pub(crate) crcs: Vec<u32>,
}

/// Bytes of a blob that one checksum covers: what a reader must read to trust any
/// byte of it.
pub(crate) const EXTENT_CHUNK_BYTES: usize = 64 * 1024;

/// Bytes of a body besides those of keys and values: the opening brace, and for each
/// member its colon and what is behind it, a comma or the closing brace.
pub(super) fn body_bytes(members: impl Iterator<Item = u64>) -> u64 {
    let (count, texts) = members.fold((0_u64, 0_u64), |(count, sum), bytes| {
        (count + 1, sum.saturating_add(bytes))
    });
    // Without members there is the closing brace all the same.
    texts.saturating_add(1 + count.saturating_mul(2).max(1))
}

impl ValueLocation {
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Inline { bytes, .. } => u64::from(*bytes),
            Self::Extent(extent) => extent.bytes,
        }
    }

    /// Whether it can be read: an extent has a checksum for each chunk. So no length is
    /// believed that the metadata is not itself long enough for.
    pub(super) fn is_covered(&self) -> bool {
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

/// The blob files that these lie in, each once.
pub(crate) fn blob_ids(members: &[Member]) -> Vec<BlobId> {
    let mut blobs: Vec<BlobId> = members.iter().filter_map(Member::blob).collect();
    blobs.sort_unstable();
    blobs.dedup();
    blobs
}

impl FrameMeta {
    pub(super) fn new(user: String, client: String, members: MemberLayout) -> Self {
        Self {
            user,
            client,
            members,
        }
    }

    pub(crate) fn is_of(&self, (user, client): (&str, &str)) -> bool {
        self.user == user && self.client == client
    }

    /// The blob files that the document lies in, each once.
    pub(crate) fn blobs(&self) -> Vec<BlobId> {
        match &self.members {
            MemberLayout::Placed(members) => blob_ids(members),
            MemberLayout::Sized(_) => Vec::new(),
        }
    }

    /// What the document takes as it is read: braces, keys, colons, values, commas.
    /// Nothing, where the frame is a delete.
    pub(crate) fn usage(&self, kind: FrameKind) -> Usage {
        if kind == FrameKind::Delete {
            return Usage::default();
        }
        let (keys, bytes) = match &self.members {
            MemberLayout::Placed(members) => {
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

    /// Whether the members are where the frame says: all of them in blobs, or all in these
    /// inline bytes, each behind the one before, and nothing between them.
    pub(crate) fn fits(&self, kind: FrameKind, inline: &[u8]) -> bool {
        if kind == FrameKind::Delete {
            return true;
        }
        match &self.members {
            MemberLayout::Placed(members) if members.iter().any(|m| m.blob().is_some()) => {
                members.iter().all(|member| member.blob().is_some())
            }
            MemberLayout::Placed(members) => inline_end(members) == Some(inline.len() as u64),
            MemberLayout::Sized(sizes) => {
                let mut body = BodyCursor::new(inline);
                sizes.iter().all(|sizes| body.member(*sizes).is_some()) && body.is_at_end()
            }
        }
    }

    /// The members, all of them with their keys. `None` where they do not [fit](Self::fits).
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
        let is_right = self.fits(kind, inline);
        match self.members {
            MemberLayout::Placed(members) if is_right => Some(members),
            MemberLayout::Placed(_) | MemberLayout::Sized(_) => None,
        }
    }
}

/// Bytes of the body, if all values lie in it, where they must: each behind its key.
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
    // The comma that the last member has not stands for the closing brace.
    Some(end + u64::from(members.is_empty()))
}

/// A member as it was found in a body.
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

/// Takes the members off a body, of which only the lengths are known.
struct BodyCursor<'a> {
    bytes: &'a [u8],
    at: usize,
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

    /// Whether nothing but the end of a body follows.
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
        FrameMeta::new("u".to_owned(), "c".to_owned(), members)
    }

    #[test]
    fn members_are_found_by_their_lengths() {
        let body = br#"{"a":1,"":[1,2],"\"":{}}"#;
        let meta = sized(&[(3, 1), (2, 5), (4, 2)]);
        assert!(meta.fits(FrameKind::Put, body));
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
    fn lengths_that_a_body_does_not_have_are_refused() {
        let body: &[u8] = br#"{"a":1,"b":2}"#;
        assert!(sized(&[(3, 1), (3, 1)]).fits(FrameKind::Put, body));
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
            assert!(!meta.fits(FrameKind::Put, body), "{sizes:?}");
            assert_eq!(meta.into_members(FrameKind::Put, body), None, "{sizes:?}");
        }
    }

    /// Of one in both, the values in the frame would be looked for in nothing.
    #[test]
    fn a_document_lies_in_its_frame_or_in_blobs() {
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
        for (members, is_right) in [
            (vec![inline.clone()], true),
            (vec![extent.clone()], true),
            (vec![inline.clone(), extent.clone()], false),
            (vec![extent, inline], false),
        ] {
            let meta = FrameMeta::new("u".into(), "c".into(), MemberLayout::Placed(members));
            assert_eq!(meta.fits(FrameKind::Put, body), is_right);
            assert_eq!(meta.into_members(FrameKind::Put, body).is_some(), is_right);
        }
    }
}
