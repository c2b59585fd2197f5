//! The description of a document in its frame: the namespace, the members, and the locations
//! of their values.

use crate::format::frame::header::FrameKind;
use crate::format::frame::inline_body::{BodyCursor, body_bytes};
use crate::format::frame::member::{Member, ValueLocation, blob_ids, distinct};
use crate::format::frame::records::{MemberRecord, RecordedValue};
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
    /// The records of the members. The JSON texts of the keys and of the inline values are in the
    /// inline body.
    Recorded(Vec<MemberRecord>),
}

/// The lengths of a key's JSON text and of a value's JSON text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemberSizes {
    pub(super) key: u32,
    pub(super) value: u32,
}

impl MemberSizes {
    pub(super) fn bytes(self) -> u64 {
        u64::from(self.key) + u64::from(self.value)
    }
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
            MemberLayout::Recorded(records) => {
                distinct(records.iter().filter_map(MemberRecord::blob))
            }
        }
    }

    /// Returns the number of keys of the document, and the length of the body that a read returns.
    /// For a delete, the number of keys and the length are 0.
    pub(crate) fn usage(&self, kind: FrameKind) -> Usage {
        if kind != FrameKind::Put {
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
            MemberLayout::Recorded(records) => {
                let bytes = body_bytes(records.iter().map(MemberRecord::bytes));
                (records.len(), bytes)
            }
        };
        Usage {
            keys: u32::try_from(keys).unwrap_or(u32::MAX),
            bytes,
        }
    }

    /// Returns true if the locations of the values are valid. If the frame stores the locations,
    /// either all values must be in blobs, or all values must be in the inline body, at the offsets
    /// that are computed from the lengths of the keys and values.
    ///
    /// If the frame stores only the lengths of the members, the function checks the quotes, colons,
    /// commas and braces of the inline body.
    pub(crate) fn matches_body(&self, kind: FrameKind, inline: &[u8]) -> bool {
        if kind != FrameKind::Put {
            return true;
        }
        match &self.members {
            MemberLayout::Located(members) => is_consistent(members, inline),
            MemberLayout::Sized(sizes) => {
                let mut body = BodyCursor::new(inline);
                let has_member =
                    |sizes: &MemberSizes| body.member(sizes.key, sizes.value).is_some();
                sizes.iter().all(has_member) && body.is_at_end()
            }
            MemberLayout::Recorded(records) => {
                let mut body = BodyCursor::new(inline);
                let has_member = |record: &MemberRecord| {
                    body.member(record.key_bytes, record.inline_bytes())
                        .is_some()
                };
                records.iter().all(has_member) && body.is_at_end()
            }
        }
    }

    /// Returns the members with their keys and locations. Returns `None` if [`Self::matches_body`]
    /// is false.
    pub(crate) fn into_members(self, kind: FrameKind, inline: &[u8]) -> Option<Vec<Member>> {
        if kind != FrameKind::Put {
            return Some(Vec::new());
        }
        let mut body = BodyCursor::new(inline);
        let members = match self.members {
            MemberLayout::Located(members) => {
                return is_consistent(&members, inline).then_some(members);
            }
            MemberLayout::Sized(sizes) => sizes
                .iter()
                .map(|sizes| sizes.member_in(&mut body))
                .collect::<Option<Vec<_>>>(),
            MemberLayout::Recorded(records) => records
                .into_iter()
                .map(|record| record.member_in(&mut body))
                .collect(),
        };
        members.filter(|_| body.is_at_end())
    }
}

impl MemberSizes {
    /// Reads the next member of an inline body.
    fn member_in(self, body: &mut BodyCursor<'_>) -> Option<Member> {
        let found = body.member(self.key, self.value)?;
        let value = ValueLocation::Inline {
            offset: found.offset,
            bytes: self.value,
        };
        Some(Member::new(found.key.to_owned(), value))
    }
}

impl MemberRecord {
    /// Reads the next member of an inline body.
    fn member_in(self, body: &mut BodyCursor<'_>) -> Option<Member> {
        let found = body.member(self.key_bytes, self.inline_bytes())?;
        let value = match self.value {
            RecordedValue::Inline(bytes) => ValueLocation::Inline {
                offset: found.offset,
                bytes,
            },
            RecordedValue::Extent(extent) => ValueLocation::Extent(extent),
        };
        Some(Member {
            key: found.key.to_owned(),
            value,
            origin: self.origin,
        })
    }
}

/// Returns true if either all values are in blobs, or all values are in the inline body at the
/// offsets that are computed from the lengths of the keys and values.
fn is_consistent(members: &[Member], inline: &[u8]) -> bool {
    if members.iter().any(|member| member.blob().is_some()) {
        return members.iter().all(|member| member.blob().is_some());
    }
    inline_end(members) == Some(inline.len() as u64)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::member::Extent;

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

    /// In versions 1 and 2, the inline body of a document with extents is empty, so an inline value
    /// would point to bytes that do not exist.
    #[test]
    fn document_with_inline_values_and_extents_is_rejected() {
        let extent = ValueLocation::Extent(Extent {
            blob: BlobId::new(1),
            offset: 28,
            bytes: 1,
            crcs: vec![0],
        });
        let extent = Member::new("\"e\"".to_owned(), extent);
        let inline = ValueLocation::Inline {
            offset: 5,
            bytes: 1,
        };
        let inline = Member::new("\"i\"".to_owned(), inline);
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
