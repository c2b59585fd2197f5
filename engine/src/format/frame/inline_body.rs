//! The inline body of a frame: the JSON text of the document without the values that are in blobs.
//!
//! The inline body `{"a":1,"b":,"c":2}` belongs to a document whose value `b` is in a blob. If no
//! value is in a blob, the inline body is the body of the document.

use crate::format::frame::member::{Member, ValueLocation};

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

/// Builds the inline body of a document. `source` contains the inline values at the offsets in
/// `members`. Returns `None` if `source` is too short.
pub(super) fn build(members: &[Member], source: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    for member in members {
        body.push(if body.is_empty() { b'{' } else { b',' });
        body.extend_from_slice(member.key.as_bytes());
        body.push(b':');
        if let ValueLocation::Inline { offset, bytes } = member.value {
            let value = source.get(offset as usize..)?.get(..bytes as usize)?;
            body.extend_from_slice(value);
        }
    }
    if body.is_empty() {
        body.push(b'{');
    }
    body.push(b'}');
    Some(body)
}

/// A member that was found in an inline body.
pub(super) struct LocatedMember<'a> {
    pub(super) key: &'a str,
    /// Offset of the value in the body.
    pub(super) offset: u32,
}

/// Reads the members of an inline body one after another, given the lengths of each key and value.
pub(super) struct BodyCursor<'a> {
    bytes: &'a [u8],
    /// Offset of the next byte to read.
    at: usize,
    /// True once the opening brace has been read.
    is_begun: bool,
}

impl<'a> BodyCursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
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

    /// Reads the next member. `value_bytes` is 0 if the value is in a blob. Returns `None` if the
    /// body does not match the lengths.
    pub(super) fn member(&mut self, key_bytes: u32, value_bytes: u32) -> Option<LocatedMember<'a>> {
        let before: &[u8] = if self.is_begun { b"," } else { b"{" };
        self.is_begun = true;
        if self.take(1)? != before {
            return None;
        }
        let key = std::str::from_utf8(self.take(key_bytes as usize)?).ok()?;
        let is_quoted = key.len() >= 2 && key.starts_with('"') && key.ends_with('"');
        if !is_quoted || self.take(1)? != b":" {
            return None;
        }
        let offset = u32::try_from(self.at).ok()?;
        self.take(value_bytes as usize)?;
        Some(LocatedMember { key, offset })
    }

    /// Returns true if all of the body except the closing brace has been read. For an empty
    /// document, returns true if the complete body is `{}`.
    pub(super) fn is_at_end(&self) -> bool {
        let end: &[u8] = if self.is_begun { b"}" } else { b"{}" };
        self.bytes.get(self.at..) == Some(end)
    }
}
