//! The way in of a document that is whole in memory and small: checked in one pass.
//!
//! The streaming way (`writer.rs`) looks at each byte twice, to find where values end
//! and to judge them, and knows which violation comes first. Here `serde_json` does
//! both at once, and whatever is not plainly right is left to the streaming way.
//!
//! Invariant: what is accepted here is accepted there, and comes out as the same.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::format::frame::meta::{Member, ValueLocation};
use crate::model::limits::{Limits, Usage};

/// A document of which everything is known.
pub(crate) struct OnePassDocument {
    pub(crate) members: Vec<Member>,
    pub(crate) body: Bytes,
    pub(crate) usage: Usage,
}

/// The members of an object: the JSON texts of keys and values.
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
                let mut members = Vec::with_capacity(USUAL_KEYS);
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

/// Of a document under the default limits, at most.
const USUAL_KEYS: usize = 10;
/// Each key is compared with those before it.
const MAX_KEYS: usize = 64;

/// The document in `body`, if it is valid and takes no more than `max_bytes`. `None`
/// says nothing: it may be valid all the same.
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
    // Nothing is added to what was sent, but for the braces of an empty object.
    let mut kept = Vec::with_capacity(body.len());
    for (index, (key, value)) in found.iter().enumerate() {
        let is_new = found.iter().take(index).all(|(before, _)| before != key);
        if !is_new || !is_plain_key(key, limits) || !is_plain_value(value, limits) {
            return None;
        }
        kept.push(if index == 0 { b'{' } else { b',' });
        kept.extend_from_slice(key.as_bytes());
        kept.push(b':');
        members.push(Member {
            key: (*key).to_owned(),
            value: ValueLocation::Inline {
                offset: u32::try_from(kept.len()).ok()?,
                bytes: u32::try_from(value.len()).ok()?,
            },
        });
        kept.extend_from_slice(value.as_bytes());
    }
    kept.extend_from_slice(if found.is_empty() { b"{}" } else { b"}" });
    if kept.len() > max_bytes as usize {
        return None;
    }
    let usage = Usage {
        keys: u32::try_from(members.len()).ok()?,
        bytes: kept.len() as u64,
    };
    Some(OnePassDocument {
        members,
        body: kept.into(),
        usage,
    })
}

/// Whether the key is within its limit, and says literally what it is.
fn is_plain_key(text: &str, limits: &Limits) -> bool {
    // Its quotes are not counted.
    text.len() <= limits.max_key_bytes as usize + 2 && !text.contains('\\')
}

/// Whether the value is within its limits. Its depth is, where there are not even that
/// many brackets.
fn is_plain_value(text: &str, limits: &Limits) -> bool {
    text.len() as u64 <= limits.max_value_bytes
        && (text.len() <= limits.max_depth as usize
            || opening_brackets(text.as_bytes()) <= limits.max_depth as usize)
}

fn opening_brackets(text: &[u8]) -> usize {
    // Summed up in bytes, of which the processor adds many at once.
    let in_chunk = |chunk: &[u8]| -> u8 {
        let is_opening = |byte: &u8| u8::from(matches!(byte, b'{' | b'['));
        chunk.iter().map(is_opening).sum()
    };
    let chunks = text.chunks(usize::from(u8::MAX));
    chunks.map(|chunk| usize::from(in_chunk(chunk))).sum()
}
