//! The fast path validates a small document in one pass if its body is completely in memory.
//!
//! The streaming writer (`writer.rs`) reads each byte of a value twice: first to find the end of
//! the value, and then to validate the value. On the fast path, `serde_json` finds the end of a
//! value and validates the value in one pass. If the fast path does not accept a document, the
//! streaming writer decides whether the document is valid, and reports the first violation.
//!
//! Invariant: the streaming writer accepts every document that the fast path accepts, and
//! stores the same bytes.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::format::frame::member::{Member, ValueLocation};
use crate::model::limits::{Limits, Usage};

/// A document that the fast path has accepted.
pub(crate) struct OnePassDocument {
    pub(crate) members: Vec<Member>,
    pub(crate) body: Bytes,
    pub(crate) usage: Usage,
}

/// The members of an object, each as the JSON texts of its key and its value.
struct RawMembers<'a>(Vec<(&'a str, &'a str)>);

impl<'de: 'a, 'a> Deserialize<'de> for RawMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = RawMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(TYPICAL_KEYS);
                while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    if members.len() == MAX_KEYS {
                        return Err(A::Error::custom("many keys"));
                    }
                    members.push((key.get(), value.get()));
                }
                Ok(RawMembers(members))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// Initial capacity of the list of members, which is the default limit on the number of keys.
const TYPICAL_KEYS: usize = 10;
/// Maximum number of keys on the fast path. Each key is compared with all earlier keys, so the cost
/// grows with the square of the number of keys.
const MAX_KEYS: usize = 64;

/// Returns the document in `body` if the fast path accepts the document and its stored form has at
/// most `max_bytes` bytes. If the function returns `None`, the document may still be valid, and the
/// streaming writer must validate it.
pub(crate) fn check(body: &[u8], limits: &Limits, max_bytes: u32) -> Option<OnePassDocument> {
    if body.len() as u64 > limits.max_body_bytes {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?;
    let RawMembers(found) = serde_json::from_str(text).ok()?;
    if found.len() > limits.max_keys as usize {
        return None;
    }
    let mut members = Vec::with_capacity(found.len());
    // The stored form is never longer than the body.
    let mut stored = Vec::with_capacity(body.len());
    for (index, (key, value)) in found.iter().enumerate() {
        let is_new = found.iter().take(index).all(|(before, _)| before != key);
        if !is_new || !is_plain_key(key, limits) || !is_plain_value(value, limits) {
            return None;
        }
        stored.push(if index == 0 { b'{' } else { b',' });
        stored.extend_from_slice(key.as_bytes());
        stored.push(b':');
        let location = ValueLocation::Inline {
            offset: u32::try_from(stored.len()).ok()?,
            bytes: u32::try_from(value.len()).ok()?,
        };
        members.push(Member::new((*key).to_owned(), location));
        stored.extend_from_slice(value.as_bytes());
    }
    stored.extend_from_slice(if found.is_empty() { b"{}" } else { b"}" });
    if stored.len() > max_bytes as usize {
        return None;
    }
    let usage = Usage {
        keys: u32::try_from(members.len()).ok()?,
        bytes: stored.len() as u64,
    };
    Some(OnePassDocument {
        members,
        body: stored.into(),
        usage,
    })
}

/// Returns true if the key is within the length limit and has no escapes. Keys without escapes can
/// be compared by their JSON text.
fn is_plain_key(text: &str, limits: &Limits) -> bool {
    // The limit applies to the key without its two quotes.
    text.len() <= limits.max_key_bytes as usize + 2 && !text.contains('\\')
}

/// Returns false if the value may exceed the limit on its length or its depth. Both the length of
/// the value and the number of its opening brackets are upper bounds on its depth.
fn is_plain_value(text: &str, limits: &Limits) -> bool {
    text.len() as u64 <= limits.max_value_bytes
        && (text.len() <= limits.max_depth as usize
            || count_opening_brackets(text.as_bytes()) <= limits.max_depth as usize)
}

fn count_opening_brackets(text: &[u8]) -> usize {
    // A chunk is so short that the number of its brackets fits into a u8. The compiler can
    // therefore use vector instructions with one byte per lane.
    let in_chunk = |chunk: &[u8]| -> u8 {
        let is_opening = |byte: &u8| u8::from(matches!(byte, b'{' | b'['));
        chunk.iter().map(is_opening).sum()
    };
    let chunks = text.chunks(usize::from(u8::MAX));
    chunks.map(|chunk| usize::from(in_chunk(chunk))).sum()
}
